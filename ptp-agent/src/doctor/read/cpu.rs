//! Reading what energy saving and scheduling do, from sysfs.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs::{self, File},
    io::Read as _,
    path::{Path, PathBuf},
};

use nix::{
    sched::{CpuSet, sched_getaffinity},
    unistd::Pid,
};
use procfs::{CpuInfo, Current as _};

use super::{Process, file, parse_cpu_list};
use crate::doctor::facts::{Cpu, FrequencyPolicy, IdleState};

const CPUS: &str = "/sys/devices/system/cpu";

pub(super) fn read(processes: &[Process]) -> Cpu {
    let under = |name: &str| Path::new(CPUS).join(name);
    let cpus = |name| file(under(name)).map(|text| parse_cpu_list(&text)).unwrap_or_default();
    let own_id = std::process::id();
    Cpu {
        virtual_machine: is_virtual_machine(),
        online: cpus("online"),
        smt_active: file(under("smt/active")).map(|text| text == "1"),
        idle_driver: file(under("cpuidle/current_driver")).filter(|name| name != "none"),
        idle_states: idle_states(),
        latency_limit_us: latency_limit(),
        frequency: frequency(),
        turbo: turbo(),
        isolated: cpus("isolated"),
        tickless: cpus("nohz_full"),
        own: affinity(0),
        agents: processes
            .iter()
            .filter(|process| process.name == "ptp-agent" && process.id != own_id)
            .map(|process| (process.id, affinity(process.id)))
            .filter(|(_, cpus)| !cpus.is_empty())
            .collect(),
        irqbalance: processes.iter().any(|process| process.name == "irqbalance"),
    }
}

fn is_virtual_machine() -> bool {
    let flag = CpuInfo::current()
        .is_ok_and(|info| info.flags(0).is_some_and(|flags| flags.contains(&"hypervisor")));
    // Other architectures than x86 tell in the device tree or in the firmware's tables.
    flag || Path::new("/sys/hypervisor/type").exists()
        || Path::new("/proc/device-tree/hypervisor").exists()
        || file("/sys/class/dmi/id/sys_vendor").is_some_and(|vendor| vendor == "QEMU")
}

/// Directories in `parent` whose name is `prefix` and a number.
fn numbered(parent: &Path, prefix: &str) -> Vec<PathBuf> {
    let entries = fs::read_dir(parent).into_iter().flatten().flatten();
    let mut found: Vec<_> = entries
        .filter(|entry| {
            entry.file_name().to_str().and_then(|name| name.strip_prefix(prefix)).is_some_and(
                |number| !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit()),
            )
        })
        .map(|entry| entry.path())
        .collect();
    found.sort();
    found
}

fn idle_states() -> Vec<IdleState> {
    let mut states: BTreeMap<String, IdleState> = BTreeMap::new();
    for cpu in numbered(Path::new(CPUS), "cpu") {
        for state in numbered(&cpu.join("cpuidle"), "state") {
            let number = |name| file(state.join(name)).and_then(|text| text.parse().ok());
            let (Some(name), Some(exit_latency_us)) = (file(state.join("name")), number("latency"))
            else {
                continue;
            };
            // Bits say who has switched it off.
            let disabled = number("disable").unwrap_or(0) != 0;
            let entry =
                states.entry(name.clone()).or_insert(IdleState { name, exit_latency_us, disabled });
            entry.exit_latency_us = entry.exit_latency_us.max(exit_latency_us);
            entry.disabled &= disabled;
        }
    }
    states.into_values().collect()
}

/// Opening the file without writing asks for nothing, so it does not change the limit.
fn latency_limit() -> Option<u32> {
    let mut bytes = [0; 4];
    File::open("/dev/cpu_dma_latency").ok()?.read_exact(&mut bytes).ok()?;
    u32::try_from(i32::from_ne_bytes(bytes)).ok()
}

fn frequency() -> Vec<FrequencyPolicy> {
    let policies = numbered(&Path::new(CPUS).join("cpufreq"), "policy");
    let kinds: BTreeSet<_> = policies
        .iter()
        .filter_map(|policy| {
            let limit = |name| file(policy.join(name)).and_then(|text| text.parse::<u64>().ok());
            Some(FrequencyPolicy {
                driver: file(policy.join("scaling_driver"))?,
                governor: file(policy.join("scaling_governor"))?,
                variable: limit("scaling_min_freq") != limit("scaling_max_freq"),
            })
        })
        .collect();
    kinds.into_iter().collect()
}

fn turbo() -> Option<bool> {
    let switch = |name: &str| file(Path::new(CPUS).join(name)).map(|text| text == "1");
    switch("intel_pstate/no_turbo").map(|off| !off).or_else(|| switch("cpufreq/boost"))
}

/// CPUs on which a process may run, 0 for this thread; empty where it cannot be read.
fn affinity(process: u32) -> Vec<u32> {
    let Ok(set) = i32::try_from(process)
        .map_or(Err(nix::errno::Errno::ESRCH), |id| sched_getaffinity(Pid::from_raw(id)))
    else {
        return Vec::new();
    };
    (0..CpuSet::count())
        .filter(|cpu| set.is_set(*cpu).unwrap_or(false))
        .filter_map(|cpu| u32::try_from(cpu).ok())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_thread_may_run_somewhere_and_only_where_cpus_run() {
        let cpu = read(&[]);
        assert!(!cpu.own.is_empty());
        assert!(cpu.own.iter().all(|own| cpu.online.contains(own)), "{cpu:?}");
    }
}
