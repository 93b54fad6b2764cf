//! Reading the clocks' state, and who might steer them.

use super::{Process, file};
use crate::{doctor::facts::Clock, sys::clock::kernel_clock};

/// Programs that steer clocks, by the 15 bytes that the kernel keeps of a name.
const DAEMONS: &[&str] = &[
    "chronyd",
    "ntp-daemon",
    "ntpd",
    "phc2sys",
    "ptp4l",
    "ptpd",
    "ptpd2",
    "sfptpd",
    "statime",
    "systemd-timesyn",
    "timemaster",
    "ts2phc",
];

pub(super) fn read(processes: &[Process]) -> Clock {
    let source = |name| file(format!("/sys/devices/system/clocksource/clocksource0/{name}"));
    Clock {
        source: source("current_clocksource").filter(|name| !name.is_empty()),
        sources: source("available_clocksource")
            .map(|names| names.split_whitespace().map(str::to_owned).collect())
            .unwrap_or_default(),
        kernel: kernel_clock().ok(),
        daemons: processes
            .iter()
            .filter(|process| DAEMONS.contains(&process.name.as_str()))
            .map(|process| (process.name.clone(), process.id))
            .collect(),
        // A kernel without time namespaces has no such file.
        namespace_offset_ns: file("/proc/self/timens_offsets")
            .map_or(0, |table| monotonic_offset(&table)),
    }
}

/// The offset of CLOCK_MONOTONIC in a table of lines `CLOCK SECONDS NANOSECONDS`; a clock is a name
/// or a number.
fn monotonic_offset(table: &str) -> i128 {
    table
        .lines()
        .find_map(|line| {
            let fields: Vec<_> = line.split_whitespace().collect();
            let ["monotonic" | "1", seconds, nanos] = fields[..] else { return None };
            let (seconds, nanos): (i64, i64) = (seconds.parse().ok()?, nanos.parse().ok()?);
            Some(i128::from(seconds) * 1_000_000_000 + i128::from(nanos))
        })
        .unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn offset_of_a_time_namespace_is_that_of_the_monotonic_clock() {
        let table = "monotonic         -3 500000000\nboottime           7         0\n";
        assert_eq!(monotonic_offset(table), -2_500_000_000);
        assert_eq!(monotonic_offset("boottime 7 0\n"), 0);
        assert_eq!(monotonic_offset("monotonic x y\n"), 0);
    }

    #[test]
    fn daemons_are_found_by_their_names() {
        let process = |id, name: &str| Process { id, name: name.to_owned() };
        let clock = read(&[process(5, "bash"), process(6, "systemd-timesyn"), process(7, "ptp4l")]);
        assert_eq!(clock.daemons, [("systemd-timesyn".to_owned(), 6), ("ptp4l".to_owned(), 7)]);
    }

    #[test]
    fn names_are_no_longer_than_the_kernel_keeps() {
        assert!(DAEMONS.iter().all(|name| name.len() <= 15));
    }
}
