//! `lab --beside-ptp4l`: linuxptp's ptp4l with software stamps as a second time receiver of the same
//! grandmaster, on a link like the agent's. It only measures (`free_running`); how far its offsets are from the truth is
//! known exactly, because what it compares is CLOCK_REALTIME with the grandmaster's virtual clock.

use std::{env, path::PathBuf, process::Command};

use ptp_common::time::Duration;
use serde::Serialize;

use super::{network::Place, observation::whole_seconds, trust::trimmed_rms, truth::ClockHistory};
use crate::{publish::statistics::ErrorStatistics, sys::child};

/// Debian keeps system programs off the path of users other than root.
const SYSTEM_DIRECTORIES: [&str; 3] = ["/usr/local/sbin", "/usr/sbin", "/sbin"];

/// Where a program is, if it is installed.
pub(super) fn find(program: &str) -> Option<PathBuf> {
    let path = env::var_os("PATH").unwrap_or_default();
    let directories = env::split_paths(&path).chain(SYSTEM_DIRECTORIES.map(PathBuf::from));
    directories.map(|directory| directory.join(program)).find(|file| file.is_file())
}

/// ptp4l as a client that touches no clock: free-running, and without the capability to do it. Its
/// sockets are in a /run of its own, so that nothing stays when it is killed.
pub(super) fn command(place: &Place, program: PathBuf, transport: &str) -> Command {
    let mut command = place.namespace.command(program);
    child::own_run_directory(&mut command);
    child::never_set_clocks(&mut command);
    command.args(["-S", "-s", "-m", "-q", self::transport(transport), "-i", &place.interface]);
    if place.is_shared {
        // Both would make it from the address of the one card.
        command.arg("--clockIdentity=020000.fffe.000001");
    }
    command.args(["--free_running=1", "--kernel_leap=0"]);
    // As often as it can: once per second.
    command.args(["--freq_est_interval=0", "--summary_interval=-4"]);
    command
}

/// Its option for a transport.
pub(super) fn transport(name: &str) -> &'static str {
    match name {
        "l2" => "-2",
        "udp6" => "-6",
        _ => "-4",
    }
}

/// An offset that ptp4l has printed.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Offset {
    /// When, CLOCK_MONOTONIC nanoseconds, to the millisecond.
    pub mono_ns: i64,
    /// CLOCK_REALTIME minus grandmaster, as measured, nanoseconds.
    pub offset_ns: i64,
}

/// Reads `ptp4l[1234.567]: master offset -42 s0 freq ...`; `None` for all other lines.
pub(super) fn parse(line: &str) -> Option<Offset> {
    let (_, rest) = line.split_once('[')?;
    let (at, rest) = rest.split_once(']')?;
    let (_, rest) = rest.split_once("master offset")?;
    let offset_ns = rest.split_whitespace().next()?.parse().ok()?;
    let (seconds, millis) = at.trim().split_once('.')?;
    let (seconds, millis): (i64, i64) = (seconds.parse().ok()?, millis.parse().ok()?);
    // The middle of the millisecond that was cut off.
    let mono_ns =
        seconds.checked_mul(1_000)?.checked_add(millis)?.checked_mul(1_000_000)? + 500_000;
    Some(Offset { mono_ns, offset_ns })
}

/// How far ptp4l's offsets were from the truth.
#[derive(Clone, Copy, Debug, Serialize)]
pub(super) struct Ptp4lSummary {
    /// Offsets that it printed from the start of the statistics on.
    pub samples: u64,
    /// Its offset minus the true one.
    pub offset_error_ns: ErrorStatistics,
    /// Root of the mean square without the largest 5 %.
    pub trimmed_rms_ns: f64,
}

/// The summary of the offsets from `from_ns` on (CLOCK_MONOTONIC); `real_minus_mono` is
/// CLOCK_REALTIME minus CLOCK_MONOTONIC.
pub(super) fn summary(
    offsets: &[Offset],
    grandmaster: &ClockHistory,
    real_minus_mono: Duration,
    from_ns: i64,
) -> Ptp4lSummary {
    let errors: Vec<f64> = offsets
        .iter()
        .filter(|offset| offset.mono_ns >= from_ns)
        .filter_map(|offset| {
            let real = Duration::from_nanos(offset.mono_ns) + real_minus_mono;
            let truth = real - grandmaster.at(offset.mono_ns)?;
            let error = Duration::from_nanos(offset.offset_ns) - truth;
            // Whole seconds are a difference of time scales.
            Some((error - whole_seconds(error)).as_nanos_f64())
        })
        .collect();
    Ptp4lSummary {
        samples: errors.len() as u64,
        offset_error_ns: ErrorStatistics::of(&errors),
        trimmed_rms_ns: trimmed_rms(&errors),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::publish::json::ClockLine;

    #[test]
    fn offsets_are_read_and_other_lines_are_not() {
        let line =
            "ptp4l[12045.803]: master offset      -1742 s0 freq      +0 path delay      2011";
        assert_eq!(parse(line), Some(Offset { mono_ns: 12_045_803_500_000, offset_ns: -1742 }));
        for other in [
            "",
            "ptp4l[12045.803]: port 1: LISTENING to UNCALIBRATED on RS_SLAVE",
            "ptp4l[x.y]: master offset 1 s0",
            "ptp4l[9223372036854775807.999]: master offset 1 s0",
            "ptp4l[1.5]: master offset",
        ] {
            assert_eq!(parse(other), None, "{other}");
        }
    }

    #[test]
    fn errors_are_against_the_grandmasters_clock() {
        let mut grandmaster = ClockHistory::default();
        let line = ClockLine { mono_ns: 0, clock_ns: 5_000, frequency_ppb: 1e6 };
        grandmaster.push(line);
        // At 1 ms the grandmaster shows 6000 ns more than monotonic, real time 20000 ns more.
        let offset = |mono_ns, offset_ns| Offset { mono_ns, offset_ns };
        let offsets = [offset(1_000_000, 14_100), offset(500_000, 0)];
        let summary = summary(&offsets, &grandmaster, Duration::from_nanos(20_000), 1_000_000);
        assert_eq!(summary.samples, 1);
        assert_eq!(summary.offset_error_ns.mean, 100.0);
    }
}
