//! The clocks: what reading costs, who steers, and whether stamps and agent mean the same clock.

use crate::{
    doctor::{check::Check, facts::Clock},
    publish::text,
};

/// Counters that are read in some ten nanoseconds.
const CHEAP: &[&str] = &[
    "tsc",
    "arch_sys_counter",
    "riscv_clocksource",
    "timebase",
    "tod",
    "kvm-clock",
    "hyperv_clocksource_tsc_page",
];
/// TAI minus UTC since 1972 has been at least this; leap seconds only ever added to it.
const PLAUSIBLE_TAI: std::ops::RangeInclusive<i32> = 10..=60;

pub(super) fn checks(clock: &Clock) -> Vec<Check> {
    vec![source(clock), time_namespace(clock), daemons(clock), steering(clock), tai_offset(clock)]
}

fn source(clock: &Clock) -> Check {
    const NAME: &str = "clocksource";
    let Some(source) = &clock.source else {
        return Check::skip(NAME, "the kernel does not say which counter its clock uses");
    };
    if CHEAP.contains(&source.as_str()) {
        return Check::ok(NAME, format!("{source}, read in some ten nanoseconds"));
    }
    let better = clock.sources.iter().find(|source| CHEAP.contains(&source.as_str()));
    Check::warn(
        NAME,
        format!("each stamp reads {source}, which may take microseconds and vary as much"),
        match better {
            Some(better) => format!(
                "find out why {better} is not used (dmesg | grep -i clocksource); echo {better} > /sys/devices/system/clocksource/clocksource0/current_clocksource"
            ),
            None => "look in dmesg why the CPU's own counter is not trusted, or use another host"
                .to_owned(),
        },
    )
}

fn time_namespace(clock: &Clock) -> Check {
    const NAME: &str = "time_namespace";
    match clock.namespace_offset_ns {
        0 => Check::ok(NAME, "programs in the kernel and this process read the same clock"),
        offset => Check::fail(
            NAME,
            format!(
                "CLOCK_MONOTONIC of this time namespace is {} from that of the kernel, so stamps mean another time here",
                text::nanos(offset as f64)
            ),
            "run the agent outside of the time namespace",
        ),
    }
}

fn daemons(clock: &Clock) -> Check {
    const NAME: &str = "clock_daemons";
    if clock.daemons.is_empty() {
        return Check::ok(NAME, "no program known to steer a clock is running");
    }
    let list: Vec<_> =
        clock.daemons.iter().map(|(name, process)| format!("{name} ({process})")).collect();
    Check::warn(
        NAME,
        format!("running: {}; each may steer the host's clock", list.join(", ")),
        "let one program steer each clock: right below `serve`; stop them before another follows PTP with the same clock",
    )
}

fn steering(clock: &Clock) -> Check {
    const NAME: &str = "clock_steering";
    let Some(kernel) = clock.kernel else {
        return Check::skip(NAME, "the kernel does not tell the state of its clock (adjtimex)");
    };
    let frequency = text::ppb(kernel.frequency_ppb);
    if kernel.synchronised {
        let error = text::nanos(kernel.max_error_us as f64 * 1e3);
        return Check::warn(
            NAME,
            format!(
                "some program vouches for CLOCK_REALTIME to {error} and has set its frequency to {frequency}"
            ),
            "right below `serve`; before the agent follows a grandmaster, know that CLOCK_MONOTONIC, which it stamps with, is steered too",
        );
    }
    Check::ok(NAME, format!("nobody vouches for CLOCK_REALTIME; frequency set to {frequency}"))
}

fn tai_offset(clock: &Clock) -> Check {
    const NAME: &str = "tai_offset";
    const ADVICE: &str =
        "let chronyd (leapsectz right/UTC), ntpd (leapfile) or ptp4l with phc2sys tell the kernel";
    match clock.kernel.map(|kernel| kernel.tai_offset_seconds) {
        None => Check::skip(NAME, "the kernel does not tell its TAI offset (adjtimex)"),
        Some(0) => Check::warn(
            NAME,
            "the kernel was never told TAI minus UTC: its CLOCK_TAI shows UTC, and so does what `serve` sends",
            ADVICE,
        ),
        Some(seconds) if PLAUSIBLE_TAI.contains(&seconds) => {
            Check::ok(NAME, format!("the kernel has TAI minus UTC as {seconds} s"))
        }
        Some(seconds) => Check::warn(
            NAME,
            format!("the kernel has TAI minus UTC as {seconds} s, which it never was"),
            ADVICE,
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{clock::served::KernelLeap, doctor::check::Status, sys::clock::KernelClock};

    const FREE: KernelClock = KernelClock {
        tai_offset_seconds: 37,
        synchronised: false,
        frequency_ppb: 0.0,
        max_error_us: 16_000_000,
        leap: KernelLeap::None,
    };

    fn status(clock: &Clock, name: &str) -> Status {
        let checks = checks(clock);
        checks.iter().find(|check| check.name == name).expect("a check of this name").status
    }

    #[test]
    fn slow_counter_is_a_warning_that_names_the_better_one() {
        let clock = |source: &str| Clock {
            source: Some(source.to_owned()),
            sources: vec!["hpet".to_owned(), "tsc".to_owned()],
            ..Clock::default()
        };
        assert_eq!(status(&clock("tsc"), "clocksource"), Status::Ok);
        let check = source(&clock("hpet"));
        assert_eq!(check.status, Status::Warn);
        assert!(check.advice.is_some_and(|advice| advice.contains("echo tsc")));
    }

    #[test]
    fn shifted_time_namespace_is_a_failure() {
        let clock = Clock { namespace_offset_ns: -1, ..Clock::default() };
        assert_eq!(status(&clock, "time_namespace"), Status::Fail);
        assert_eq!(status(&Clock::default(), "time_namespace"), Status::Ok);
    }

    #[test]
    fn steering_is_seen_by_name_and_by_effect() {
        let named = Clock { daemons: vec![("chronyd".to_owned(), 12)], ..Clock::default() };
        assert_eq!(status(&named, "clock_daemons"), Status::Warn);
        assert_eq!(status(&named, "clock_steering"), Status::Skip);
        let unnamed = KernelClock { synchronised: true, frequency_ppb: -12_345.0, ..FREE };
        let unnamed = Clock { kernel: Some(unnamed), ..Clock::default() };
        assert_eq!(status(&unnamed, "clock_daemons"), Status::Ok);
        assert_eq!(status(&unnamed, "clock_steering"), Status::Warn);
        let free = Clock { kernel: Some(FREE), ..Clock::default() };
        assert_eq!(status(&free, "clock_steering"), Status::Ok);
    }

    #[test]
    fn tai_offset_must_be_known_and_possible() {
        let check = |tai_offset_seconds| {
            let kernel = Some(KernelClock { tai_offset_seconds, ..FREE });
            status(&Clock { kernel, ..Clock::default() }, "tai_offset")
        };
        assert_eq!(check(37), Status::Ok);
        assert_eq!(check(0), Status::Warn);
        assert_eq!(check(-37), Status::Warn);
        assert_eq!(check(3700), Status::Warn);
    }
}
