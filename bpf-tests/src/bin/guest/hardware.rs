//! A card's own stamps as a source: two emulated cards with clocks (igb) are joined back to back. QEMU's stamps what is
//! sent and nothing that is received, so the receive stamps are the stack's in all runs, and the transmit stamps are
//! the card's, or the software's beside them. One kernel's clock is at both ends: the true error is known.

use std::process::Command;

use bpf_tests::agent::{binary, run_to_end};
use libtest_mimic::Trial;
use nix::{
    sys::time::TimeSpec,
    time::{ClockId, clock_settime},
};
use serde_json::{Value, json};

use crate::{
    cards::{LATER_S, interfaces},
    report::figure,
    trial,
};

/// How long each source is tried, in the guest's time.
const DURATION_S: u32 = 40;

pub(crate) fn trials() -> Vec<Trial> {
    vec![
        trial("hardware::how_a_cards_clock_lies_to_the_hosts_is_measured", relation),
        trial("hardware::stamps_of_the_card_are_used_and_the_card_is_put_back", stamps),
    ]
}

fn lines(arguments: &[&str]) -> Vec<Value> {
    let mut command = Command::new(binary());
    let output = command.arg("--json").args(arguments).output().expect("the agent is there");
    let log = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{arguments:?}: {}\n{log}", output.status);
    let text = String::from_utf8_lossy(&output.stdout);
    text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect()
}

/// Mean, and standard deviation, of what is left beside a straight line.
fn beside_line(points: &[(f64, f64)]) -> (f64, f64) {
    let n = points.len() as f64;
    let mean = |of: fn(&(f64, f64)) -> f64| points.iter().map(of).sum::<f64>() / n;
    let (x, y) = (mean(|it| it.0), mean(|it| it.1));
    let square: f64 = points.iter().map(|it| (it.0 - x).powi(2)).sum();
    let slope = points.iter().map(|it| (it.0 - x) * (it.1 - y)).sum::<f64>() / square;
    let rest = points.iter().map(|it| (it.1 - y - slope * (it.0 - x)).powi(2));
    (slope, (rest.sum::<f64>() / n).sqrt())
}

fn relation() {
    let cards = interfaces("igb");
    assert_eq!(cards.len(), 2, "{cards:?}");
    for card in &cards {
        let nic = lines(&["phc", "nic", card]).remove(0);
        let device = nic["device"].as_str().expect("its clock").to_owned();
        let readings = lines(&["phc", "cmp", &device, "--count", "40", "--interval", "0.5"]);
        let points: Vec<(f64, f64)> = readings
            .iter()
            .filter_map(|it| {
                let at = it["realtime_ns"].as_f64()? - readings[0]["realtime_ns"].as_f64()?;
                let offset = it["offset_ns"].as_i64()? - readings[0]["offset_ns"].as_i64()?;
                Some((at * 1e-9, offset as f64))
            })
            .collect();
        let (rate_ppb, noise_ns) = beside_line(&points);
        let width = readings.iter().filter_map(|it| it["width_ns"].as_i64()).max();
        figure(
            "phc_relation",
            json!({"device": device, "n": points.len(), "rate_ppb": rate_ppb, "noise_ns": noise_ns,
                "widest_ns": width, "method": readings[0]["method"], "first": nic["now"]}),
        );
        assert_eq!(points.len(), 40);
    }
}

/// One run of the laboratory over the two cards.
fn lab(cards: &str, rx: &str, tx: &str) -> Value {
    let duration = DURATION_S.to_string();
    let arguments = [
        "lab",
        "--no-html",
        "--no-tui",
        "--transport",
        "l2",
        "--drift=0",
        "--offset=0",
        "--cards",
        cards,
        "--rx-source",
        rx,
        "--tx-source",
        tx,
        "--duration",
        &duration,
    ];
    let summary = lines(&arguments).pop().unwrap_or_default();
    figure(&format!("hardware rx {rx} tx {tx}"), summary.clone());
    summary
}

fn stamps() {
    clock_settime(ClockId::CLOCK_REALTIME, TimeSpec::new(LATER_S, 0)).expect("a guest's clock");
    let cards = interfaces("igb");
    let joined = cards.join(",");
    let state = || lines(&["phc", "nic", &cards[0]]).remove(0)["now"].clone();
    let before = state();
    for tx in ["start_xmit", "xmit_done"] {
        lab(&joined, "stack", tx);
    }
    let summary = lab(&joined, "stack", "hardware");
    assert_eq!(summary["tx_source"], "hardware", "{summary}");
    let inside = summary["promises"]["inside_bound"].as_f64();
    assert!(inside >= Some(0.999), "{summary}");
    assert_eq!(state(), before, "the card is as it was");
    // What it does not deliver is replaced by the stack's.
    let received = lab(&joined, "hardware", "hardware");
    assert!(received["samples"].as_u64() > Some(0), "{received}");
    assert_eq!(state(), before, "the card is as it was");
    let mut refused = Command::new(binary());
    refused.args(["run", "-i", "lo", "--tx-source", "hardware", "--duration", "1"]);
    let (status, _, log) = run_to_end(refused);
    assert!(status.code() == Some(3) && log.contains("no hardware clock"), "{status} {log}");
}
