//! The settings of Table 1 of Kobori, Lee and Hirotsu (doi 10.1002/cpe.7957): SMT, C-states,
//! P-states and turbo off, processes and interrupts pinned. Each of them makes the time between a
//! packet and its stamp vary; none of them keeps the agent from working, so the worst is a warning.

use super::cpu_list;
use crate::doctor::{
    check::Check,
    facts::{Cpu, Interrupts},
};

/// A CPU that wakes up faster than this does not show in software stamps: C1 of usual processors
/// takes 1 or 2 µs, the next state ten or more.
const PROMPT_US: u32 = 5;

const HIDDEN: &str = "the hypervisor hides it; ask those who run the physical host";

pub(super) fn checks(cpu: &Cpu) -> Vec<Check> {
    vec![smt(cpu), c_states(cpu), p_states(cpu), turbo(cpu), cpu_pinning(cpu)]
}

fn smt(cpu: &Cpu) -> Check {
    const NAME: &str = "smt";
    match cpu.smt_active {
        None => Check::skip(NAME, "the kernel does not say whether threads share cores"),
        Some(false) if cpu.virtual_machine => Check::ok(
            NAME,
            "no two CPUs of this virtual machine share a core, as far as the hypervisor tells",
        ),
        Some(false) => Check::ok(NAME, "no two CPUs share a core"),
        Some(true) => Check::warn(
            NAME,
            "CPUs share cores, so the load of one delays the stamps of the other",
            "echo off > /sys/devices/system/cpu/smt/control, or keep the sibling of the agent's CPU idle",
        ),
    }
}

fn c_states(cpu: &Cpu) -> Check {
    const NAME: &str = "c_states";
    if cpu.idle_states.is_empty() {
        return match cpu.virtual_machine {
            true => {
                Check::skip(NAME, "no idle states are shown to this virtual machine").advise(HIDDEN)
            }
            false => Check::ok(NAME, "the kernel manages no idle states, so CPUs only halt"),
        };
    }
    let driver = cpu.idle_driver.as_deref().unwrap_or("unknown driver");
    let limit = cpu.latency_limit_us.unwrap_or(u32::MAX);
    let deepest = cpu
        .idle_states
        .iter()
        .filter(|state| !state.disabled && state.exit_latency_us <= limit)
        .max_by_key(|state| state.exit_latency_us);
    match deepest {
        Some(state) if state.exit_latency_us > PROMPT_US => Check::warn(
            NAME,
            format!(
                "an idle CPU may sleep as deep as {} and needs {} µs to wake up for a packet ({driver})",
                state.name, state.exit_latency_us
            ),
            format!("cpupower idle-set -D {PROMPT_US}, or hold /dev/cpu_dma_latency open with 0"),
        ),
        Some(state) => Check::ok(
            NAME,
            format!(
                "deepest allowed is {}, {} µs to wake up ({driver})",
                state.name, state.exit_latency_us
            ),
        ),
        None => Check::ok(NAME, format!("no idle state is allowed ({driver})")),
    }
}

fn p_states(cpu: &Cpu) -> Check {
    const NAME: &str = "p_states";
    let varying =
        cpu.frequency.iter().find(|policy| policy.variable && policy.governor != "performance");
    match (cpu.frequency.first(), varying) {
        (None, _) if cpu.virtual_machine => {
            Check::skip(NAME, "no frequency scaling is shown to this virtual machine")
                .advise(HIDDEN)
        }
        (None, _) => Check::ok(NAME, "the kernel does not scale the frequency"),
        (_, Some(policy)) => Check::warn(
            NAME,
            format!(
                "governor {} ({}) lowers the frequency of CPUs with little to do, and with it the speed of the path to the stamp",
                policy.governor, policy.driver
            ),
            "cpupower frequency-set -g performance",
        ),
        (Some(policy), None) => {
            Check::ok(NAME, format!("governor {} ({})", policy.governor, policy.driver))
        }
    }
}

fn turbo(cpu: &Cpu) -> Check {
    const NAME: &str = "turbo";
    match cpu.turbo {
        Some(false) => Check::ok(NAME, "CPUs stay at their nominal frequency"),
        Some(true) => Check::warn(
            NAME,
            "CPUs exceed their nominal frequency for as long as they stay cool, so the speed of the path to the stamp changes",
            "echo 1 > /sys/devices/system/cpu/intel_pstate/no_turbo, or echo 0 > /sys/devices/system/cpu/cpufreq/boost",
        ),
        None if cpu.virtual_machine => {
            Check::skip(NAME, "no switch for turbo is shown to this virtual machine").advise(HIDDEN)
        }
        None => Check::skip(NAME, "this CPU or its driver has no switch for turbo"),
    }
}

fn cpu_pinning(cpu: &Cpu) -> Check {
    const NAME: &str = "cpu_pinning";
    let own = (None, &cpu.own);
    // A running agent says more than what one would inherit.
    let (agent, cpus) = cpu
        .agents
        .iter()
        .map(|(process, cpus)| (Some(process), cpus))
        .max_by_key(|(_, cpus)| cpus.len())
        .unwrap_or(own);
    let who = match agent {
        Some(process) => format!("the running agent (process {process})"),
        None => "an agent started from here".to_owned(),
    };
    match cpus.as_slice() {
        [] => Check::skip(NAME, "the CPUs on which this process may run cannot be read"),
        [only] => {
            let isolated = if cpu.isolated.contains(only) { ", which is isolated" } else { "" };
            let tickless = if cpu.tickless.contains(only) { ", without timer tick" } else { "" };
            Check::ok(NAME, format!("{who} runs on CPU {only} only{isolated}{tickless}"))
        }
        several => Check::warn(
            NAME,
            format!("{who} may move between CPUs {}", cpu_list(several)),
            match cpu.isolated.first() {
                Some(isolated) => format!(
                    "start it with taskset -c {isolated} (isolated), or CPUAffinity={isolated} in its unit"
                ),
                None => "start it with taskset -c CPU, or CPUAffinity=CPU in its unit; isolcpus=CPU on the kernel command line keeps others away".to_owned(),
            },
        ),
    }
}

pub(super) fn irq_pinning(interrupts: &Interrupts, cpu: &Cpu) -> Check {
    const NAME: &str = "irq_pinning";
    let interrupts = match interrupts {
        Interrupts::None => return Check::skip(NAME, "no device, so no interrupts of its own"),
        Interrupts::Unknown(why) => return Check::skip(NAME, *why),
        Interrupts::Of(interrupts) => interrupts,
    };
    if interrupts.is_empty() {
        return Check::skip(NAME, "the kernel lists no interrupts of its device");
    }
    let free = interrupts.iter().find(|interrupt| interrupt.cpus.len() > 1);
    let count = interrupts.len();
    match free {
        _ if cpu.online.len() == 1 => Check::ok(NAME, "there is only one CPU"),
        _ if cpu.irqbalance => Check::warn(
            NAME,
            "irqbalance is running and moves interrupts between CPUs",
            "stop irqbalance, or give it --banirq for the interrupts of this interface, and pin them",
        ),
        Some(interrupt) => Check::warn(
            NAME,
            format!(
                "interrupt {} may be served by CPUs {}",
                interrupt.number,
                cpu_list(&interrupt.cpus)
            ),
            format!(
                "echo CPU > /proc/irq/{}/smp_affinity_list, and so on for all {count}",
                interrupt.number
            ),
        ),
        None => Check::ok(NAME, format!("each of {count} interrupts has one CPU")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::{
        check::Status,
        facts::{FrequencyPolicy, IdleState, Interrupt},
    };

    fn state(name: &str, exit_latency_us: u32, disabled: bool) -> IdleState {
        IdleState { name: name.to_owned(), exit_latency_us, disabled }
    }

    fn policy(governor: &str, variable: bool) -> FrequencyPolicy {
        FrequencyPolicy {
            driver: "intel_pstate".to_owned(),
            governor: governor.to_owned(),
            variable,
        }
    }

    #[test]
    fn shared_cores_are_a_warning() {
        let check = |smt_active| smt(&Cpu { smt_active, ..Cpu::default() }).status;
        assert_eq!(check(Some(true)), Status::Warn);
        assert_eq!(check(Some(false)), Status::Ok);
        assert_eq!(check(None), Status::Skip);
    }

    #[test]
    fn deep_sleep_is_a_warning_unless_switched_off_or_limited() {
        let states = |disabled| vec![state("C1", 2, false), state("C6", 133, disabled)];
        let check = |idle_states, latency_limit_us| {
            c_states(&Cpu { idle_states, latency_limit_us, ..Cpu::default() })
        };
        let deep = check(states(false), None);
        assert_eq!(deep.status, Status::Warn);
        assert!(deep.reason.contains("C6") && deep.reason.contains("133 µs"), "{}", deep.reason);
        assert_eq!(check(states(false), Some(2_000_000_000)).status, Status::Warn);
        assert_eq!(check(states(true), None).status, Status::Ok);
        assert_eq!(check(states(false), Some(2)).status, Status::Ok);
        assert_eq!(check(states(false), Some(0)).status, Status::Ok);
    }

    #[test]
    fn virtual_machine_is_told_what_the_hypervisor_hides() {
        let cpu = Cpu { virtual_machine: true, ..Cpu::default() };
        for check in [c_states(&cpu), p_states(&cpu), turbo(&cpu)] {
            assert_eq!(check.status, Status::Skip, "{check:?}");
            assert!(check.advice.is_some_and(|advice| advice.contains("hypervisor")));
        }
        let metal = Cpu::default();
        assert_eq!(c_states(&metal).status, Status::Ok);
        assert_eq!(p_states(&metal).status, Status::Ok);
    }

    #[test]
    fn one_saving_governor_among_many_is_found() {
        let check = |frequency| p_states(&Cpu { frequency, ..Cpu::default() }).status;
        assert_eq!(check(vec![policy("performance", true)]), Status::Ok);
        assert_eq!(check(vec![policy("powersave", false)]), Status::Ok);
        assert_eq!(
            check(vec![policy("performance", true), policy("schedutil", true)]),
            Status::Warn
        );
    }

    #[test]
    fn turbo_is_a_warning() {
        let check = |switch| turbo(&Cpu { turbo: switch, ..Cpu::default() }).status;
        assert_eq!(check(Some(true)), Status::Warn);
        assert_eq!(check(Some(false)), Status::Ok);
        assert_eq!(check(None), Status::Skip);
    }

    #[test]
    fn running_agent_counts_more_than_this_process() {
        let cpu = Cpu {
            own: vec![0, 1, 2, 3],
            agents: vec![(77, vec![3])],
            isolated: vec![3],
            ..Cpu::default()
        };
        let check = cpu_pinning(&cpu);
        assert_eq!(check.status, Status::Ok);
        assert!(check.reason.contains("77") && check.reason.contains("isolated"), "{check:?}");
        let check = cpu_pinning(&Cpu { agents: Vec::new(), ..cpu });
        assert_eq!(check.status, Status::Warn);
        assert!(check.reason.contains("0-3"), "{check:?}");
    }

    #[test]
    fn interrupts_are_pinned_only_if_all_are_and_nobody_moves_them() {
        let interrupt = |number, cpus: &[u32]| Interrupt { number, cpus: cpus.to_vec() };
        let pinned = Interrupts::Of(vec![interrupt(40, &[0]), interrupt(41, &[1])]);
        let loose = Interrupts::Of(vec![interrupt(40, &[0]), interrupt(41, &[0, 1])]);
        let cpu = Cpu { online: vec![0, 1], ..Cpu::default() };
        assert_eq!(irq_pinning(&pinned, &cpu).status, Status::Ok);
        let check = irq_pinning(&loose, &cpu);
        assert_eq!(check.status, Status::Warn);
        assert!(check.advice.is_some_and(|advice| advice.contains("/proc/irq/41/")));
        let balanced = Cpu { irqbalance: true, ..cpu.clone() };
        assert_eq!(irq_pinning(&pinned, &balanced).status, Status::Warn);
        assert_eq!(irq_pinning(&Interrupts::None, &cpu).status, Status::Skip);
        let single = Cpu { online: vec![0], ..cpu };
        assert_eq!(irq_pinning(&loose, &single).status, Status::Ok);
    }
}
