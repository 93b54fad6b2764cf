//! Reading the host's clocks. Nothing here ever sets one.

use std::io;

use nix::time::{ClockId, clock_gettime};
use ptp_common::time::{Duration, Mono, Real, Time};
use ptp_engine::clock::served::{HostReading, KernelLeap};

/// Between two reads of the same clock only a step or a leap second moves it by so much.
const HALF_A_SECOND: Duration = Duration::from_millis(500);

fn read<S>(clock: ClockId) -> Time<S> {
    // The clocks asked for below exist on every Linux that can load the programs.
    let now = clock_gettime(clock).expect("POSIX clocks are always readable");
    let seconds = u64::try_from(now.tv_sec()).unwrap_or(0);
    Time::from_seconds_nanos(seconds, u32::try_from(now.tv_nsec()).unwrap_or(0))
}

/// CLOCK_MONOTONIC, the clock of all stamps.
pub fn monotonic() -> Time<Mono> {
    read(ClockId::CLOCK_MONOTONIC)
}

/// CLOCK_MONOTONIC as it was at the last tick of the kernel, some milliseconds ago at the most.
pub fn monotonic_coarse() -> Time<Mono> {
    read(ClockId::CLOCK_MONOTONIC_COARSE)
}

/// What this thread has used of a processor so far.
pub fn thread_cpu_time() -> Duration {
    read::<Mono>(ClockId::CLOCK_THREAD_CPUTIME_ID).since_epoch()
}

/// CLOCK_REALTIME.
pub fn realtime() -> Time<Real> {
    read(ClockId::CLOCK_REALTIME)
}

/// CLOCK_REALTIME minus CLOCK_MONOTONIC, exact to the nanosecond.
///
/// Both are one counter plus a constant that only a step changes. The coarse clocks show the counter
/// as it was at the last tick, so two reads within one tick differ by just that constant, with no
/// noise from the time between them; a tick in between shows as a change of the first.
pub fn realtime_minus_monotonic() -> Duration {
    loop {
        let before: Time<Mono> = read(ClockId::CLOCK_MONOTONIC_COARSE);
        let real: Time<Real> = read(ClockId::CLOCK_REALTIME_COARSE);
        let after: Time<Mono> = read(ClockId::CLOCK_MONOTONIC_COARSE);
        if before == after {
            return real.ahead_of(before);
        }
    }
}

/// Which time the host shows, and what the kernel means to do with it at the end of the day.
///
/// # Errors
/// As [`kernel_clock`].
pub fn host_reading() -> io::Result<HostReading> {
    // A leap second changes two of these at once.
    let mut real_minus_mono = realtime_minus_monotonic();
    loop {
        let kernel = kernel_clock()?;
        let again = realtime_minus_monotonic();
        if (again - real_minus_mono).abs() < HALF_A_SECOND {
            let tai_offset_s = kernel.tai_offset_seconds;
            return Ok(HostReading { real_minus_mono: again, tai_offset_s, leap: kernel.leap });
        }
        real_minus_mono = again;
    }
}

/// What the kernel keeps about its clock beside the time itself (`adjtimex`).
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct KernelClock {
    /// CLOCK_TAI minus CLOCK_REALTIME, whole seconds; 0 until somebody has told the kernel.
    pub tai_offset_seconds: i32,
    /// Whether some program vouches for the time. The kernel withdraws it by itself when nobody
    /// confirms it for hours.
    pub synchronised: bool,
    /// Correction of the clock's frequency in force, parts per billion.
    pub frequency_ppb: f64,
    /// Largest error that the steering program admits; grows by itself until the next confirmation,
    /// microseconds.
    pub max_error_us: i64,
    /// The leap second that it will make at the end of this day.
    pub leap: KernelLeap,
}

/// Reads what the kernel keeps about its clock.
///
/// # Errors
/// What `adjtimex` reports; reading needs no privilege.
pub fn kernel_clock() -> io::Result<KernelClock> {
    // SAFETY: `timex` is a plain structure of integers for which zero is a valid value.
    let mut request: libc::timex = unsafe { std::mem::zeroed() };
    // SAFETY: a valid pointer to a structure that lives through the call; with `modes` zero the call
    // only reads.
    let state = unsafe { libc::adjtimex(&raw mut request) };
    if state < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(KernelClock {
        tai_offset_seconds: request.tai,
        synchronised: request.status & libc::STA_UNSYNC == 0,
        // In units of 2^-16 parts per million.
        frequency_ppb: request.freq as f64 * 1e3 / 65536.0,
        max_error_us: request.maxerror as i64,
        leap: match state {
            libc::TIME_INS => KernelLeap::Insert,
            libc::TIME_DEL => KernelLeap::Delete,
            _ => KernelLeap::None,
        },
    })
}

/// The kernel's TAI offset (CLOCK_TAI minus CLOCK_REALTIME), whole seconds; 0 until somebody has
/// told the kernel. Mostly without a system call, since it is read for each packet.
///
/// # Errors
/// As [`kernel_clock`].
pub fn tai_offset_seconds() -> io::Result<i32> {
    let before = realtime().since_epoch();
    let tai = read::<Real>(ClockId::CLOCK_TAI).since_epoch();
    let took = realtime().since_epoch() - before;
    // Not where this was interrupted, or the clock stepped.
    if took < Duration::ZERO || took > Duration::from_millis(1) {
        return Ok(kernel_clock()?.tai_offset_seconds);
    }
    let milliseconds = (tai - before).as_nanos().div_euclid(1_000_000);
    Ok(i32::try_from((milliseconds + 500).div_euclid(1_000)).unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn coarse_clocks_give_the_offset_that_bracketed_reads_enclose() {
        let exact = realtime_minus_monotonic();
        let narrowest = (0..1000)
            .map(|_| {
                let before = monotonic();
                let real = realtime();
                let after = monotonic();
                (after - before, real, before, after)
            })
            .min_by_key(|(width, ..)| *width)
            .expect("a thousand reads");
        let (_, real, before, after) = narrowest;
        let low = real.ahead_of(after);
        let high = real.ahead_of(before);
        assert!(low <= exact && exact <= high, "{low:?} <= {exact:?} <= {high:?}");
    }

    #[test]
    fn tai_offset_is_what_the_kernel_keeps() {
        assert_eq!(tai_offset_seconds().unwrap(), kernel_clock().unwrap().tai_offset_seconds);
    }

    #[test]
    fn coarse_offset_is_the_same_each_time() {
        let first = realtime_minus_monotonic();
        assert!((0..100).all(|_| realtime_minus_monotonic() == first));
    }
}
