//! Where clocks are steered: the kernel's clock put back to how a machine starts, a wire, and a
//! grandmaster whose time is known exactly and does not follow what is steered.

use std::{fs, mem, thread, time::Duration};

use bpf_tests::{agent::Agent, links::Wire, median};
use nix::{
    sys::time::TimeSpec,
    time::{ClockId, clock_settime},
};
use ptp_agent::lab::netns::Namespace;
use serde_json::{Value, json};

use crate::grandmaster::{Announced, Grandmaster, Line, minus_raw, read};

pub(crate) const SECOND: i64 = 1_000_000_000;
/// An hour of no importance.
pub(crate) const NOON: i64 = 1_782_820_800 * SECOND;
/// Errors below this count as converged.
pub(crate) const CONVERGED_NS: i64 = 20_000;
/// Microseconds.
pub(crate) const NOMINAL_TICK: i64 = 10_000;
/// Between two looks at the true error.
const LOOK: Duration = Duration::from_millis(100);

/// What the kernel keeps about its clock.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Kernel {
    pub(crate) status: i32,
    pub(crate) tai_offset: i32,
    /// Of the tick and the fine adjustment together.
    pub(crate) frequency_ppb: f64,
    pub(crate) tick: i64,
    pub(crate) max_error_us: i64,
    pub(crate) est_error_us: i64,
    pub(crate) state: i32,
}

pub(crate) fn adjtimex(change: impl FnOnce(&mut libc::timex)) -> Kernel {
    // SAFETY: a structure of integers, for which zero is a valid value.
    let mut request: libc::timex = unsafe { mem::zeroed() };
    change(&mut request);
    // SAFETY: a valid pointer to a structure that lives through the call.
    let state = unsafe { libc::adjtimex(&raw mut request) };
    assert!(state >= 0, "adjtimex: {}", std::io::Error::last_os_error());
    Kernel {
        status: request.status,
        tai_offset: request.tai,
        frequency_ppb: request.freq as f64 * 1e3 / 65_536.0
            + (request.tick - NOMINAL_TICK) as f64 * 1e9 / NOMINAL_TICK as f64,
        tick: request.tick,
        max_error_us: request.maxerror,
        est_error_us: request.esterror,
        state,
    }
}

pub(crate) fn kernel() -> Kernel {
    adjtimex(|_| {})
}

/// Puts the clock back to how a machine starts, at `realtime_ns`.
pub(crate) fn reset(realtime_ns: i64) {
    adjtimex(|request| {
        request.modes =
            libc::ADJ_STATUS | libc::ADJ_FREQUENCY | libc::ADJ_TICK | libc::ADJ_MAXERROR;
        request.status = libc::STA_UNSYNC;
        request.tick = NOMINAL_TICK;
        request.maxerror = 16_000_000;
    });
    adjtimex(|request| {
        request.modes = libc::ADJ_TAI;
        request.constant = 0;
    });
    let time = TimeSpec::new(realtime_ns / SECOND, realtime_ns % SECOND);
    clock_settime(ClockId::CLOCK_REALTIME, time).expect("the first process may set the clock");
}

/// An agent in `namespace` that follows with `--clock CLOCK` under a policy.
pub(crate) fn agent(namespace: &Namespace, clock: &str, policy: &str) -> Agent {
    let file = "/tmp/agent.toml";
    // The tests' dates may lie before the agent's build.
    let mut settings = format!("[clock]\nearliest = 2020-01-01\n{policy}");
    if !policy.contains("frequency-file") {
        settings += "frequency-file = false\n";
    }
    fs::write(file, settings).expect("a file in /tmp");
    let arguments = ["--config", file, "run", "-i", "ptp0", "--clock", clock];
    Agent::start_only(namespace, &arguments)
}

/// A wire, a grandmaster that is ahead of the clock, and what it serves.
pub(crate) struct World {
    pub(crate) wire: Wire,
    pub(crate) grandmaster: Grandmaster,
    pub(crate) line: Line,
}

impl World {
    /// CLOCK_REALTIME starts at `start_ns`; the grandmaster is `ahead_ns` ahead and runs `drift_ppb` fast.
    pub(crate) fn new(start_ns: i64, ahead_ns: i64, drift_ppb: i64, announced: Announced) -> Self {
        reset(start_ns);
        let wire = Wire::new().expect("a guest has namespaces and veth");
        let raw_ns = read(ClockId::CLOCK_MONOTONIC_RAW);
        let now = raw_ns + minus_raw(ClockId::CLOCK_REALTIME);
        let line = Line { raw_ns, served_ns: now + ahead_ns, drift_ppb };
        let grandmaster = Grandmaster::start(&wire.grandmaster, line, announced);
        Self { wire, grandmaster, line }
    }

    /// What `clock` shows minus what is served.
    pub(crate) fn error_ns(&self, clock: ClockId) -> i64 {
        let raw_ns = read(ClockId::CLOCK_MONOTONIC_RAW);
        raw_ns + minus_raw(clock) - self.line.at(raw_ns)
    }

    /// An agent at the other end of the wire.
    pub(crate) fn agent(&self, clock: &str, policy: &str) -> Agent {
        agent(&self.wire.client, clock, policy)
    }

    /// The true error of `clock` over some time.
    pub(crate) fn watch(&self, clock: ClockId, time: Duration) -> Errors {
        let begun = read(ClockId::CLOCK_MONOTONIC_RAW);
        let looks = time.as_millis() / LOOK.as_millis();
        let looks = (0..looks).map(|_| {
            thread::sleep(LOOK);
            let passed = read(ClockId::CLOCK_MONOTONIC_RAW) - begun;
            (passed as f64 / SECOND as f64, self.error_ns(clock))
        });
        Errors(looks.collect())
    }
}

/// Seconds since the beginning, and the error then, nanoseconds.
#[derive(Debug)]
pub(crate) struct Errors(pub(crate) Vec<(f64, i64)>);

impl Errors {
    /// After how many seconds it stayed below [`CONVERGED_NS`].
    pub(crate) fn converged_s(&self) -> Option<f64> {
        let last_out = self.0.iter().rposition(|(_, error)| error.abs() >= CONVERGED_NS);
        self.0.get(last_out.map_or(0, |at| at + 1)).map(|(at, _)| *at)
    }

    /// The second half of it, when the clock has settled, as a figure.
    pub(crate) fn figure(&self) -> Value {
        let settled: Vec<i64> =
            self.0[self.0.len() / 2..].iter().map(|(_, error)| *error).collect();
        let mean = settled.iter().sum::<i64>() as f64 / settled.len() as f64;
        let variance = settled.iter().map(|error| (*error as f64 - mean).powi(2)).sum::<f64>();
        let absolute: Vec<i64> = settled.iter().map(|error| error.abs()).collect();
        json!({"converged_s": self.converged_s(), "n": settled.len(), "mean_ns": mean,
            "sd_ns": (variance / settled.len() as f64).sqrt(), "max_abs_ns": absolute.iter().max(),
            "median_abs_ns": median(absolute.clone())})
    }
}
