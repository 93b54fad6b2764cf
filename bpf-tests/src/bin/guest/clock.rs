//! The agent steers CLOCK_REALTIME for real, against a grandmaster whose time is known exactly and
//! does not follow: convergence and residual error, steps allowed and refused, the TAI offset, a leap
//! second. What is looked at is the clock itself and the kernel's state of it, not what the agent says.

use std::{
    fs,
    process::Command,
    thread,
    time::{Duration, Instant},
};

use bpf_tests::{agent::START, children::Running, program};
use libtest_mimic::Trial;
use nix::time::ClockId;
use ptp_common::wire::Flags;
use serde_json::json;

use crate::{
    grandmaster::{Announced, minus_raw, read},
    report::{fact, figure},
    trial,
    world::{CONVERGED_NS, NOMINAL_TICK, NOON, SECOND, World, adjtimex, kernel, reset},
};

/// What is steered here.
const CLOCK: ClockId = ClockId::CLOCK_REALTIME;
/// 2026-06-30 23:59:00 UTC, a minute before a time at which leap seconds are inserted.
const BEFORE_LEAP: i64 = 1_782_863_940 * SECOND;
/// 2026-07-01 00:00:00 UTC.
const MIDNIGHT: i64 = BEFORE_LEAP + 60 * SECOND;

pub(crate) fn trials() -> Vec<Trial> {
    vec![
        trial("clock::system_clock_is_stepped_and_slewed_to_the_grandmaster", converges),
        trial("clock::step_of_ten_seconds_is_refused_by_policy", refused),
        trial("clock::tai_offset_of_a_traceable_grandmaster_is_set", tai_offset),
        trial("clock::leap_second_is_inserted_at_the_right_instant", leap_second),
        trial("clock::large_frequency_takes_the_tick_and_is_remembered", large_frequency),
        trial("clock::agent_refuses_while_another_program_steers", rival),
        trial("clock::agent_refuses_beside_a_program_that_is_known_to_steer", rival_by_name),
    ]
}

fn converges() {
    let world = World::new(NOON, 10 * SECOND + 123_456_789, 37_000, Announced::default());
    let mut agent = world.agent("system", "");
    let errors = world.watch(CLOCK, Duration::from_secs(60));
    let locked = kernel();
    let status = agent.stop();
    let free = kernel();
    let mut figures = errors.figure();
    figures["frequency_ppb"] = json!(locked.frequency_ppb);
    figures["drift_ppb"] = json!(world.line.drift_ppb);
    figure("system_clock", figures);
    assert!(status.success(), "{status}\n{}", agent.last_words());
    let converged_s = errors.converged_s();
    let converged_s = converged_s.unwrap_or_else(|| panic!("{errors:?}\n{}", agent.last_words()));
    assert!(converged_s < 45.0, "{converged_s} s\n{}", agent.last_words());
    assert!(locked.status & libc::STA_UNSYNC == 0, "{locked:?}");
    assert!(locked.max_error_us < 1_000 && locked.est_error_us < 100, "{locked:?}");
    assert!(free.status & libc::STA_UNSYNC != 0, "{free:?}");
    assert!((locked.frequency_ppb - 37_000.0).abs() < 2_000.0, "{locked:?}");
    // The frequency that was learnt stays in force.
    assert!((free.frequency_ppb - 37_000.0).abs() < 2_000.0, "{free:?}");
    fact("steers", "yes");
}

fn refused() {
    let world = World::new(NOON, 10 * SECOND, 0, Announced::default());
    let mut agent = world.agent("system", "max-first-step = 5.0\n");
    agent.wait_for(0, 2 * START, "refusal", |line| {
        let text = line.text.to_lowercase();
        ["refuse", "policy", "max-first-step", "farther", "limit"]
            .iter()
            .any(|word| text.contains(word))
            .then_some(())
    });
    let errors = world.watch(CLOCK, Duration::from_secs(5));
    let said = agent.last_words();
    let _ = agent.kill();
    let nearest = errors.0.iter().map(|(_, error)| error.abs()).min().unwrap_or(0);
    figure("refused_step", json!({"nearest_ns": nearest}));
    // Slewing at 500 ppm would be a few milliseconds.
    assert!(nearest > 9 * SECOND, "{nearest}\n{said}");
}

/// Of a grandmaster that knows UTC.
fn traceable(utc_offset: i16, leap: Flags) -> Announced {
    let flags = Flags::PTP_TIMESCALE | Flags::UTC_OFFSET_VALID | Flags::TIME_TRACEABLE | leap;
    Announced { flags: flags.0, utc_offset }
}

fn tai_offset() {
    let world = World::new(NOON, 37 * SECOND + 5_000_000, 0, traceable(37, Flags(0)));
    let mut agent = world.agent("system", "");
    let errors = world.watch(CLOCK, Duration::from_secs(40));
    let kernel = kernel();
    let tai = minus_raw(ClockId::CLOCK_TAI) - minus_raw(ClockId::CLOCK_REALTIME);
    let said = agent.last_words();
    let _ = agent.stop();
    let last = errors.0.last().map_or(0, |(_, error)| error + 37 * SECOND);
    figure("tai_offset", json!({"kernel_s": kernel.tai_offset, "utc_error_ns": last}));
    assert_eq!(kernel.tai_offset, 37, "{said}");
    assert!((tai - 37 * SECOND).abs() < 1_000_000, "{tai}");
    assert!(last.abs() < CONVERGED_NS, "{last}\n{said}");
}

fn leap_second() {
    let mut world =
        World::new(BEFORE_LEAP, 37 * SECOND + 2_000_000, 10_000, traceable(37, Flags::LEAP61));
    let mut agent = world.agent("system", "");
    let mut before = None;
    let mut during = None;
    let mut inserted = None;
    let deadline = Instant::now() + Duration::from_secs(80);
    let mut announced = false;
    // 23:59:60 UTC begins at midnight on the time scale of the offset before.
    let instant = MIDNIGHT + 37 * SECOND;
    // What the kernel was told and did, and when, relative to that.
    let mut changes: Vec<(f64, i32, i32, i32)> = Vec::new();
    while Instant::now() < deadline {
        thread::sleep(Duration::from_millis(5));
        let raw_ns = read(ClockId::CLOCK_MONOTONIC_RAW);
        let tai_ns = world.line.at(raw_ns);
        let real_ns = raw_ns + minus_raw(ClockId::CLOCK_REALTIME);
        let offset = tai_ns - real_ns;
        let kernel = kernel();
        let last = changes.last().map(|(_, status, state, tai)| (*status, *state, *tai));
        if last != Some((kernel.status, kernel.state, kernel.tai_offset)) {
            let at = (tai_ns - instant) as f64 / SECOND as f64;
            changes.push((at, kernel.status, kernel.state, kernel.tai_offset));
        }
        if kernel.state == libc::TIME_OOP {
            during.get_or_insert(tai_ns);
        }
        if offset < 37 * SECOND + SECOND / 2 {
            before = Some((tai_ns, kernel));
        } else if inserted.is_none() {
            inserted = Some(tai_ns);
        }
        // The grandmaster announces the new offset within two announce intervals of the leap.
        if !announced && tai_ns >= MIDNIGHT + 38 * SECOND {
            world.grandmaster.announce(traceable(38, Flags(0)));
            announced = true;
        }
    }
    let after = kernel();
    let raw_ns = read(ClockId::CLOCK_MONOTONIC_RAW);
    let error_ns =
        raw_ns + minus_raw(ClockId::CLOCK_REALTIME) + 38 * SECOND - world.line.at(raw_ns);
    let said = agent.last_words();
    let _ = agent.stop();
    figure(
        "leap_second",
        json!({"inserted_after_ns": inserted.map(|at: i64| at - instant),
            "ambiguous_second_from_ns": during.map(|at: i64| at - instant),
            "tai_offset_after_s": after.tai_offset, "error_after_ns": error_ns,
            "kernel_at_status_state_tai": changes}),
    );
    assert!(before.is_some(), "the clock was never right\n{said}");
    let inserted = inserted.unwrap_or_else(|| panic!("no leap second: {after:?}\n{said}"));
    // The kernel acts at its next tick.
    assert!((0..50_000_000).contains(&(inserted - instant)), "{}\n{said}", inserted - instant);
    assert_eq!(after.tai_offset, 38, "{said}");
    assert!(after.status & (libc::STA_INS | libc::STA_DEL) == 0, "{after:?}\n{said}");
    assert!(error_ns.abs() < CONVERGED_NS, "{error_ns}\n{said}");
}

/// An oscillator 700 ppm off, and an offset that may only be slewed.
fn large_frequency() {
    const DRIFT_PPB: i64 = 700_000;
    let world = World::new(NOON, 2_000_000, DRIFT_PPB, Announced::default());
    let file = "/tmp/frequency";
    let policy = format!("first-step-threshold = false\nfrequency-file = \"{file}\"\n");
    let above_monotonic = || minus_raw(CLOCK) - minus_raw(ClockId::CLOCK_MONOTONIC);
    let before = above_monotonic();
    let mut agent = world.agent("system", &policy);
    let errors = world.watch(CLOCK, Duration::from_secs(60));
    let slewed = kernel();
    let stepped_ns = above_monotonic() - before;
    assert!(agent.stop().success(), "{}", agent.last_words());
    let mut figures = errors.figure();
    figures["tick"] = json!(slewed.tick);
    figures["frequency_ppb"] = json!(slewed.frequency_ppb);
    figure("large_frequency", figures);
    let is_right = |ppb: f64| (ppb - DRIFT_PPB as f64).abs() < 2_000.0;
    assert!(errors.converged_s().is_some(), "{errors:?}\n{}", agent.last_words());
    assert!(slewed.tick != NOMINAL_TICK && is_right(slewed.frequency_ppb), "{slewed:?}");
    assert!(stepped_ns.abs() < 100_000, "{stepped_ns} ns are a step");
    let saved: f64 = fs::read_to_string(file).expect("kept").trim().parse().expect("a number");
    assert!(is_right(saved), "{saved}");
    // The next start begins with it.
    reset(NOON);
    let mut agent = world.agent("system", &policy);
    agent.wait_for_text(0, START, "steers CLOCK_REALTIME");
    assert!(is_right(kernel().frequency_ppb), "{:?}", kernel());
    let _ = agent.kill();
}

/// Another program under the name of one that steers.
fn rival_by_name() {
    let world = World::new(NOON, SECOND, 0, Announced::default());
    let name = "/tmp/chronyd";
    fs::copy(program("ip").expect("ip is in the image"), name).expect("a file in /tmp");
    let rival = Running::start("rival", Command::new(name).arg("monitor"));
    let mut agent = world.agent("system", "");
    let status = agent.wait(START);
    let said = agent.last_words();
    let it = format!("chronyd (process {})", rival.pid());
    assert!(!status.success() && said.contains(&it), "{status}\n{said}");
    assert!(world.error_ns(CLOCK).abs() > SECOND / 2, "stepped all the same");
}

/// Something that changes the frequency every quarter of a second, as a daemon does.
fn rival() {
    let world = World::new(NOON, SECOND, 0, Announced::default());
    let mut agent = world.agent("system", "");
    let deadline = Instant::now() + START;
    let mut ppm = 0;
    let ended = loop {
        thread::sleep(Duration::from_millis(250));
        ppm = (ppm + 1) % 10;
        adjtimex(|request| {
            request.modes = libc::ADJ_FREQUENCY;
            request.freq = ppm << 16;
        });
        if agent.lines().iter().any(|line| line.text.contains("frequency")) {
            break true;
        }
        if Instant::now() > deadline {
            break false;
        }
    };
    assert!(ended, "{}", agent.last_words());
    let status = agent.wait(START);
    assert!(!status.success(), "{status}\n{}", agent.last_words());
    assert!(world.error_ns(CLOCK).abs() > SECOND / 2, "stepped all the same");
}
