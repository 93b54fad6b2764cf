//! Real drivers with a known truth: two emulated network cards of a kind are joined back to back, one in the
//! grandmaster's namespace and one in the agent's, and one kernel's clock is at both ends. Interrupts, rings
//! and doorbells are those of the driver; how long they take is the emulator's affair, so what is claimed
//! are ratios to ptp4l's client on the same card, and figures are told for the page on trueness.

use std::{fs, process::Command};

use bpf_tests::{agent::binary, program};
use libtest_mimic::Trial;
use nix::{
    sys::time::TimeSpec,
    time::{ClockId, clock_settime},
};
use serde_json::Value;

use crate::{report::figure, trial};

/// Drivers of the cards, by the names of their modules.
const DRIVERS: [&str; 3] = ["virtio_net", "e1000e", "igb"];
/// How long each is followed, in the guest's time.
const DURATION_S: u64 = 60;

/// Rms over ptp4l's at the most.
const TRUER: f64 = 0.5;
/// 2040, seconds since 1970.
pub(crate) const LATER_S: i64 = 2_208_988_800;

pub(crate) fn trials() -> Vec<Trial> {
    DRIVERS
        .into_iter()
        .map(|driver| {
            trial(format!("cards::agent_is_truer_than_ptp4l_on_{driver}"), move || truer(driver))
        })
        .collect()
}

/// The interfaces of a driver, in the order of their names.
pub(crate) fn interfaces(driver: &str) -> Vec<String> {
    let entries = fs::read_dir("/sys/class/net").expect("a guest has a network");
    let mut names: Vec<String> = entries
        .filter_map(|entry| {
            let entry = entry.ok()?;
            let link = fs::read_link(entry.path().join("device/driver")).ok()?;
            let is_it = link.file_name()?.to_str()?.replace('-', "_") == driver;
            is_it.then(|| entry.file_name().to_string_lossy().into_owned())
        })
        .collect();
    names.sort();
    names
}

fn truer(driver: &str) {
    if program("ptp4l").is_err() {
        println!("skipped: ptp4l is not installed");
        return;
    }
    let cards = interfaces(driver);
    assert_eq!(cards.len(), 2, "{driver}: {cards:?}");
    // The guest's clock starts before the agent was built, which is no time to follow.
    clock_settime(ClockId::CLOCK_REALTIME, TimeSpec::new(LATER_S, 0)).expect("a guest's clock");
    let mut command = Command::new(binary());
    command.args(["lab", "--json", "--no-html", "--no-tui", "--grandmaster", "ptp4l"]);
    command.args(["--transport", "l2", "--drift=0", "--offset=0", "--cards", &cards.join(",")]);
    command.args(["--duration", &DURATION_S.to_string()]);
    let output = command.output().expect("the agent is there");
    let log = String::from_utf8_lossy(&output.stderr);
    let last = output.stdout.rsplit(|byte| *byte == b'\n').find(|line| !line.is_empty());
    let summary: Value = serde_json::from_slice(last.unwrap_or_default()).unwrap_or_default();
    figure(&format!("cards {driver}"), summary.clone());
    assert!(output.status.success(), "{}\n{log}", output.status);
    let share = summary["promises"]["inside_bound"].as_f64();
    assert!(share >= Some(0.999), "{summary}\n{log}");
    let ratio = summary["ratio_to_ptp4l"].as_f64();
    assert!(ratio.is_some_and(|ratio| ratio <= TRUER), "{summary}\n{log}");
}
