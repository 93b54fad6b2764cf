//! Who else steers the host's clock: programs that are known to, and changes of what the kernel keeps
//! about the clock that somebody must have made.

use std::{path::Path, time::Duration as StdDuration};

use procfs::process::{FDTarget, Process, all_processes};

use super::frequency::KernelFrequency;
use crate::sys::adjust::{ClockState, nominal_tick};

/// Programs that steer CLOCK_REALTIME wherever they run, by the 15 bytes that the kernel keeps of a
/// name. `ptp4l` and others that may steer a clock device or nothing at all are told by their effect.
const STEERING: &[&str] =
    &["chronyd", "ntp-daemon", "ntpd", "phc2sys", "sfptpd", "systemd-timesyn"];
/// CAP_SYS_TIME, as a bit of a set of capabilities.
const CAP_SYS_TIME: u64 = 1 << 25;

/// How long the kernel's state is watched before the clock is taken over: it changes by itself once a
/// second.
pub const WATCH: StdDuration = StdDuration::from_millis(1_100);

/// Running programs that steer the host's clock, as `name (process N)`.
pub fn programs() -> Vec<String> {
    let Ok(all) = all_processes() else {
        return Vec::new();
    };
    // One that ends meanwhile is an error, and is not there.
    all.filter_map(|process| rival(&process.ok()?)).collect()
}

fn rival(process: &Process) -> Option<String> {
    let name = process.stat().ok()?.comm;
    if !STEERING.contains(&name.as_str()) {
        return None;
    }
    // Without the capability nobody steers, and `chronyd -x` gives it up.
    if process.status().is_ok_and(|status| status.capeff & CAP_SYS_TIME == 0) {
        return None;
    }
    let arguments = process.cmdline().unwrap_or_default();
    if name == "chronyd" && arguments.iter().any(|argument| argument == "-x") {
        return None;
    }
    Some(format!("{name} (process {})", process.pid))
}

/// Programs that steer clock devices and have this one open, as `name (process N)`.
pub fn users_of(device: &Path) -> Vec<String> {
    const STEERING: &[&str] = &["chronyd", "phc2sys", "ptp4l", "sfptpd", "statime", "ts2phc"];
    let Ok(all) = all_processes() else {
        return Vec::new();
    };
    // The kernel names the file itself, not the link that somebody took to it.
    let device = &std::fs::canonicalize(device).unwrap_or_else(|_| device.to_owned());
    let own = std::process::id();
    all.filter_map(|process| {
        let process = process.ok()?;
        let name = process.stat().ok()?.comm;
        if u32::try_from(process.pid) == Ok(own) || !STEERING.contains(&name.as_str()) {
            return None;
        }
        let mut open = process.fd().ok()?.filter_map(Result::ok);
        let has_it = open
            .any(|descriptor| matches!(&descriptor.target, FDTarget::Path(path) if path == device));
        has_it.then(|| format!("{name} (process {})", process.pid))
    })
    .collect()
}

/// What somebody has changed between two looks at the kernel's state.
pub fn change(before: &ClockState, after: &ClockState) -> Option<String> {
    let nominal_tick = nominal_tick();
    let ppb = |state: &ClockState| {
        KernelFrequency { tick: state.tick, fine: state.frequency }.ppb(nominal_tick)
    };
    if (before.frequency, before.tick) != (after.frequency, after.tick) {
        let (from, to) = (ppb(before), ppb(after));
        return Some(format!("its frequency went from {from:+.3} to {to:+.3} ppb"));
    }
    // The kernel itself only lets it grow.
    if after.max_error_us < before.max_error_us {
        let (from, to) = (before.max_error_us, after.max_error_us);
        return Some(format!("its maximum error was set from {from} to {to} us"));
    }
    if before.offset != after.offset {
        let what = "the kernel is slewing an offset that somebody gave it (adjtimex, ADJ_OFFSET)";
        return Some(what.to_owned());
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    const QUIET: ClockState = ClockState {
        status: 0,
        frequency: 100,
        tick: 10_000,
        offset: 0,
        max_error_us: 5_000,
        est_error_us: 100,
        tai_offset_seconds: 37,
        leap_state: 0,
    };

    #[test]
    fn an_error_that_grows_is_the_kernels_own_doing() {
        let later = ClockState { max_error_us: 5_500, ..QUIET };
        assert_eq!(change(&QUIET, &later), None);
    }

    #[test]
    fn what_only_a_steering_program_does_is_told() {
        for other in [
            ClockState { frequency: 101, ..QUIET },
            ClockState { tick: 10_001, ..QUIET },
            ClockState { max_error_us: 4_999, ..QUIET },
            ClockState { offset: 17, ..QUIET },
        ] {
            assert!(change(&QUIET, &other).is_some(), "{other:?}");
        }
    }

    /// Kills it at the end.
    struct Child(std::process::Child);

    impl Drop for Child {
        fn drop(&mut self) {
            let _ = self.0.kill();
            let _ = self.0.wait();
        }
    }

    #[test]
    fn who_has_a_device_open_is_found_also_behind_a_link() {
        use std::{fs, os::unix::fs::symlink, process::Command};
        let directory = tempfile::tempdir().unwrap();
        let file = |name: &str| directory.path().join(name);
        fs::write(file("device"), "").unwrap();
        symlink(file("device"), file("link")).unwrap();
        fs::write(file("other"), "").unwrap();
        // A program is known by the name of its file.
        fs::copy("/usr/bin/sleep", file("ts2phc")).unwrap();
        let mut command = Command::new(file("ts2phc"));
        let device = fs::File::open(file("link")).unwrap();
        let child = Child(command.arg("60").stdin(device).spawn().unwrap());
        let expected = format!("ts2phc (process {})", child.0.id());
        for name in ["device", "link"] {
            assert_eq!(users_of(&file(name)), [expected.as_str()], "{name}");
        }
        assert!(users_of(&file("other")).is_empty());
    }

    #[test]
    fn names_are_no_longer_than_the_kernel_keeps() {
        assert!(STEERING.iter().all(|name| name.len() <= 15));
    }
}
