//! An agent's clock beside the host's own, which is the truth where all namespaces share one kernel, and what a
//! process has cost so far.

use std::{fs, path::Path};

use ptp_agent::sys::clock::{monotonic, realtime_minus_monotonic};
use ptp_clock_reader::{PtpClock, PtpTime};

/// An agent's clock at one instant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Look {
    /// It minus the host's time, nanoseconds.
    pub error_ns: i64,
    /// What it says that this is at the most, nanoseconds.
    pub bound_ns: u64,
}

impl Look {
    /// Both clocks at one instant; `None` while the agent gives no bound.
    pub fn at(page: &PtpClock) -> Option<Self> {
        let mono = monotonic();
        let time = page.course().map(|course| course.at(mono.as_nanos() as i64));
        let Ok(PtpTime { ptp_ns, bound_ns: Some(bound_ns), .. }) = time else { return None };
        let real = (mono.since_epoch() + realtime_minus_monotonic()).as_nanos() as i64;
        Some(Self { error_ns: ptp_ns - real, bound_ns })
    }

    /// Whether what the agent says is true.
    pub const fn is_within(&self) -> bool {
        self.error_ns.unsigned_abs() <= self.bound_ns
    }
}

/// Time on processors of all threads of a process, user's and kernel's, nanoseconds; ticks would be too coarse.
pub fn processor_ns(pid: u32) -> u64 {
    let Ok(threads) = fs::read_dir(format!("/proc/{pid}/task")) else { return 0 };
    let spent = |path: &Path| {
        let text = fs::read_to_string(path.join("schedstat")).ok()?;
        text.split_whitespace().next()?.parse::<u64>().ok()
    };
    threads.flatten().filter_map(|thread| spent(&thread.path())).sum()
}
