//! What depends on the machine's architecture and not on the kernel's version: its counter and what `doctor` says of
//! it, floating point (recordings that were replayed on another architecture must give the same lines), byte order (the
//! log's object is one that nothing else here loads), and what the programs cost. Where time is the number of
//! instructions, a cost in nanoseconds is one in instructions.

use std::{
    collections::BTreeMap,
    fs,
    process::Command,
    thread,
    time::{Duration, Instant},
};

use bpf_tests::{
    agent::{Agent, binary},
    frames::Recipe,
    links::Wire,
    raw::FrameSocket,
};
use libtest_mimic::Trial;
use nix::time::{ClockId, clock_getres};
use serde_json::{Value, json};

use crate::{
    grandmaster::read,
    report::{fact, figure},
    trial,
};

/// Recordings, and beside each what its replay gave elsewhere.
const REPLAYS: &str = "/replays";
/// What the emulator counts for an instruction (`-icount shift=3`).
const NS_PER_INSTRUCTION: f64 = 8.0;
const PATIENCE: Duration = Duration::from_secs(60);
/// The counters that Linux has on these architectures, which are no device.
const COUNTERS: [(&str, &[&str]); 4] = [
    ("x86_64", &["tsc", "hpet", "acpi_pm", "refined-jiffies"]),
    ("aarch64", &["arch_sys_counter"]),
    ("riscv64", &["riscv_clocksource"]),
    ("s390x", &["tod"]),
];

pub(crate) fn trials() -> Vec<Trial> {
    vec![
        trial("machine::doctor_names_this_machines_counter_and_no_other_machines_switches", doctor),
        trial("machine::recordings_replay_to_the_same_lines_as_on_another_machine", replay),
        trial("machine::programs_say_what_they_decide", log),
        trial("machine::system_calls_are_given_up_where_there_is_a_filter", system_calls),
        trial("machine::programs_cost_so_many_instructions", cost),
    ]
}

/// What a command of the agent prints.
fn output(command: &mut Command) -> String {
    let output = command.output().expect("the agent is there");
    let log = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{}\n{log}", output.status);
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn lines(text: &str) -> Vec<Value> {
    text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect()
}

fn doctor() {
    let order = if cfg!(target_endian = "little") { "little" } else { "big" };
    fact("byte_order", order);
    let jit = fs::read_to_string("/proc/sys/net/core/bpf_jit_enable").unwrap_or_default();
    fact("jit", if jit.trim() == "0" || jit.is_empty() { "no" } else { "yes" });
    let wire = Wire::new().expect("a guest has namespaces and veth");
    let said = wire.client.command(binary()).args(["--json", "doctor", "-i", "ptp0"]).output();
    let said = said.expect("the agent is there");
    let said = String::from_utf8_lossy(&said.stdout).into_owned();
    let checks = lines(&said);
    let source = "/sys/devices/system/clocksource/clocksource0/current_clocksource";
    let source = fs::read_to_string(source).expect("every kernel has one");
    let source = source.trim();
    let machine = std::env::consts::ARCH;
    let own = COUNTERS.iter().find(|(name, _)| *name == machine).expect("a known machine").1;
    assert!(own.contains(&source), "{source}");
    let check = checks.iter().find(|check| check["name"] == "clocksource");
    let check = check.unwrap_or_else(|| panic!("no check of the counter: {said}"));
    let reason = check["reason"].as_str().unwrap_or_default();
    assert!(reason.contains(source), "{check}");
    if machine != "x86_64" {
        assert_eq!(check["status"], "OK", "{check}");
        for check in &checks {
            let text = format!("{} {}", check["reason"], check["advice"]).to_lowercase();
            for word in ["tsc", "intel", "hyper-threading"] {
                assert!(!text.contains(word), "{check}");
            }
        }
    }
    fact("clocksource", reason);
    let told = clock_getres(ClockId::CLOCK_MONOTONIC).map_or(0, |it| it.tv_nsec());
    let step = step();
    figure("clock", json!({"source": source, "told_ns": told, "step_ns": step}));
    fact("resolution", &format!("{step} ns"));
    let failed: Vec<_> = checks.iter().filter(|check| check["status"] == "FAIL").collect();
    assert!(failed.is_empty(), "{failed:?}");
}

/// What all times between two readings of the clock are multiples of, nanoseconds: what stamps are rounded to.
fn step() -> i64 {
    let mut step = 0;
    let mut last = read(ClockId::CLOCK_MONOTONIC_RAW);
    for _ in 0..5_000 {
        let now = read(ClockId::CLOCK_MONOTONIC_RAW);
        let (mut rest, mut of) = (now - last, step);
        while rest != 0 {
            (of, rest) = (rest, of % rest);
        }
        step = of;
        last = now;
    }
    step
}

fn replay() {
    let mut compared = BTreeMap::new();
    for entry in fs::read_dir(REPLAYS).expect("recordings are in the image") {
        let path = entry.expect("a directory that can be read").path();
        if path.extension().is_none_or(|extension| extension != "pcapng") {
            continue;
        }
        let elsewhere = fs::read_to_string(path.with_extension("json")).expect("beside it");
        let here = output(Command::new(binary()).args(["--json", "replay"]).arg(&path));
        let pairs = elsewhere.trim_end().lines().zip(here.trim_end().lines());
        for (number, (elsewhere, here)) in pairs.enumerate() {
            assert_eq!(here, elsewhere, "{}, line {}", path.display(), number + 1);
        }
        let count = here.trim_end().lines().count();
        assert_eq!(count, elsewhere.trim_end().lines().count());
        let name = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        compared.insert(name, count);
    }
    let lines: usize = compared.values().sum();
    assert!(lines > 100, "{compared:?}");
    fact("replay", &format!("yes ({lines} lines)"));
    figure("replay", json!(compared));
}

fn log() {
    let wire = Wire::new().expect("a guest has namespaces and veth");
    let mut agent = Agent::start(&wire.client, &["-vvv", "observe", "-i", "ptp0"]);
    let socket = wire.grandmaster.run(|| FrameSocket::open("gm0")).expect("a namespace");
    socket.expect("packet sockets").send(&Recipe::sync_on_udp4().frame()).expect("the wire is up");
    agent.wait_for_text(0, PATIENCE, "TC ingress: message at byte 42, 0 tags");
    agent.finish();
    fact("log", "yes");
}

fn system_calls() {
    let wire = Wire::new().expect("a guest has namespaces and veth");
    let mut agent = Agent::start(&wire.client, &["run", "-i", "ptp0", "--clock", "virtual"]);
    let deadline = Instant::now() + PATIENCE;
    let status = format!("/proc/{}/status", agent.pid());
    let is_confined = || {
        let status = fs::read_to_string(&status).unwrap_or_default();
        status.lines().any(|line| line.starts_with("Seccomp:") && line.ends_with('2'))
    };
    // The filters' library knows little-endian machines only.
    let has_filter = cfg!(target_endian = "little");
    while has_filter && !is_confined() && Instant::now() < deadline {
        thread::sleep(Duration::from_millis(50));
    }
    let is_confined = is_confined();
    if !has_filter {
        agent.wait_for_text(0, PATIENCE, "no filter of system calls for this machine");
    }
    agent.finish();
    fact("system_calls", if is_confined { "yes" } else { "no" });
    assert_eq!(is_confined, has_filter);
}

fn cost() {
    let arguments = ["bench", "--json", "--runs", "2", "--packets", "10000"];
    let said = output(Command::new(binary()).args(arguments).args(["--clock-calls", "20000"]));
    let mut rows = BTreeMap::new();
    for row in lines(&said) {
        let (Some(name), Some(mean)) = (row["name"].as_str(), row["ns"]["mean"].as_f64()) else {
            continue;
        };
        let own = mean - row["baseline_ns"].as_f64().unwrap_or(0.0);
        rows.insert(name.to_owned(), (own / NS_PER_INSTRUCTION).round() as i64);
    }
    for name in ["tc_ingress_ptp", "tc_egress_ptp", "xdp_ptp", "tc_ingress_other"] {
        let instructions = rows.get(name).unwrap_or_else(|| panic!("no {name}: {said}"));
        fact(&format!("cost_{name}"), &instructions.to_string());
    }
    if let Some(clock) = rows.get("clock_mono") {
        fact("cost_clock", &clock.to_string());
    }
    figure("instructions", json!(rows));
}
