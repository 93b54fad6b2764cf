//! Setting clocks: the calls of `clock_adjtime`, for CLOCK_REALTIME and for the clock behind a PTP
//! device. The only place of the agent that can change a clock of the host; all but reading needs
//! CAP_SYS_TIME, or write access to the device.

use std::{
    io,
    os::fd::{AsRawFd, BorrowedFd},
};

use ptp_common::time::{Duration, NANOS_PER_SEC};

/// Kernel's unit of `freq`: 2^-16 parts per million, in parts per billion.
pub const SCALED_PPM: f64 = 1e3 / 65536.0;
/// A clock device's id, as the kernel derives it from a descriptor (`FD_TO_CLOCKID`).
const CLOCKFD: libc::clockid_t = 3;

/// A clock that can be adjusted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AdjustableClock(libc::clockid_t);

/// What `clock_adjtime` tells of a clock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ClockState {
    /// `STA_...` bits.
    pub status: i32,
    /// Frequency adjustment in units of [`SCALED_PPM`].
    pub frequency: i64,
    /// Microseconds per tick; 0 for a clock that has none.
    pub tick: i64,
    /// What the kernel's own loop still has to remove.
    pub offset: i64,
    /// Largest error that is admitted, microseconds.
    pub max_error_us: i64,
    /// Estimated error, microseconds.
    pub est_error_us: i64,
    /// CLOCK_TAI minus CLOCK_REALTIME, seconds.
    pub tai_offset_seconds: i32,
    /// `TIME_OK`, `TIME_INS` ...: where the kernel is with a leap second.
    pub leap_state: i32,
}

/// What is said of the time beside the time itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Vouching {
    /// Somebody vouches for the time.
    pub synchronised: bool,
    /// At the end of this UTC day a second is to be inserted (1) or left out (-1).
    pub leap: i8,
    /// Largest error, microseconds.
    pub max_error_us: i64,
    /// Estimated error, microseconds.
    pub est_error_us: i64,
    /// CLOCK_TAI minus CLOCK_REALTIME, seconds; `None` leaves it.
    pub tai_offset_seconds: Option<i32>,
}

impl Vouching {
    /// The `STA_...` bits that say it.
    pub const fn status(&self) -> i32 {
        let leap = match self.leap {
            0 => 0,
            1.. => libc::STA_INS,
            _ => libc::STA_DEL,
        };
        if self.synchronised { leap } else { leap | libc::STA_UNSYNC }
    }
}

fn empty() -> libc::timex {
    // SAFETY: `timex` is a plain structure of integers for which zero is a valid value.
    unsafe { std::mem::zeroed() }
}

impl AdjustableClock {
    /// CLOCK_REALTIME.
    pub const SYSTEM: Self = Self(libc::CLOCK_REALTIME);

    /// The clock behind an open PTP device, valid while that stays open.
    pub fn of_device(device: BorrowedFd<'_>) -> Self {
        Self((!device.as_raw_fd() << 3) | CLOCKFD)
    }

    /// The number for `clock_gettime`.
    pub const fn id(self) -> libc::clockid_t {
        self.0
    }

    fn call(self, request: &mut libc::timex) -> io::Result<ClockState> {
        // SAFETY: a valid pointer to a structure that lives through the call; the kernel writes no
        // more than that. A clock that does not exist is an error.
        let leap_state = unsafe { libc::clock_adjtime(self.0, request) };
        if leap_state < 0 {
            return Err(io::Error::last_os_error());
        }
        Ok(ClockState {
            status: request.status,
            frequency: request.freq,
            tick: request.tick,
            offset: request.offset,
            max_error_us: request.maxerror,
            est_error_us: request.esterror,
            tai_offset_seconds: request.tai,
            leap_state,
        })
    }

    /// What is in effect; changes nothing and needs no privilege.
    ///
    /// # Errors
    /// What the kernel reports.
    pub fn state(self) -> io::Result<ClockState> {
        self.call(&mut empty())
    }

    /// Sets the frequency, in units of [`SCALED_PPM`], and where given the length of a tick,
    /// microseconds, in one call. In effect when the call returns (Linux 4.20).
    ///
    /// # Errors
    /// What the kernel reports.
    pub fn set_frequency(self, frequency: i64, tick: Option<i64>) -> io::Result<ClockState> {
        let mut request = empty();
        request.modes = libc::ADJ_FREQUENCY;
        request.freq = frequency as libc::c_long;
        if let Some(tick) = tick {
            request.modes |= libc::ADJ_TICK;
            request.tick = tick as libc::c_long;
        }
        self.call(&mut request)
    }

    /// Adds `by` to the time, in whole nanoseconds, whatever time passes meanwhile.
    ///
    /// # Errors
    /// What the kernel reports.
    pub fn step(self, by: Duration) -> io::Result<()> {
        let nanos = by.as_nanos();
        let mut request = empty();
        request.modes = libc::ADJ_SETOFFSET | libc::ADJ_NANO;
        // The fraction is never negative, also of a negative sum.
        request.time.tv_sec = nanos.div_euclid(NANOS_PER_SEC) as _;
        request.time.tv_usec = nanos.rem_euclid(NANOS_PER_SEC) as _;
        self.call(&mut request).map(drop)
    }

    /// Ends whatever the kernel's own loops are still doing, `adjtime` and the phase-locked loop, and
    /// counts in nanoseconds. For CLOCK_REALTIME.
    ///
    /// # Errors
    /// What the kernel reports.
    pub fn take_over(self) -> io::Result<ClockState> {
        let mut request = empty();
        request.modes = libc::ADJ_OFFSET_SINGLESHOT;
        self.call(&mut request)?;
        // What is left of an offset goes only while the loop is on.
        let mut request = empty();
        request.modes = libc::ADJ_STATUS | libc::ADJ_OFFSET | libc::ADJ_NANO;
        request.status = libc::STA_PLL | libc::STA_UNSYNC;
        self.call(&mut request)?;
        // Turning the loop off forgets the nanoseconds.
        let mut request = empty();
        request.modes = libc::ADJ_STATUS | libc::ADJ_NANO;
        request.status = libc::STA_UNSYNC;
        self.call(&mut request)
    }

    /// Says how good the time is. For CLOCK_REALTIME.
    ///
    /// # Errors
    /// What the kernel reports.
    pub fn vouch(self, vouching: Vouching) -> io::Result<ClockState> {
        let mut request = empty();
        request.modes = libc::ADJ_STATUS | libc::ADJ_MAXERROR | libc::ADJ_ESTERROR;
        request.status = vouching.status();
        request.maxerror = vouching.max_error_us as libc::c_long;
        request.esterror = vouching.est_error_us as libc::c_long;
        if let Some(seconds) = vouching.tai_offset_seconds {
            request.modes |= libc::ADJ_TAI;
            request.constant = libc::c_long::from(seconds);
        }
        self.call(&mut request)
    }
}

/// Microseconds of a tick at the nominal rate: 10 000 with the usual 100 ticks per second (USER_HZ).
pub fn nominal_tick() -> i64 {
    match nix::unistd::sysconf(nix::unistd::SysconfVar::CLK_TCK) {
        Ok(Some(ticks @ 1..)) => 1_000_000 / ticks,
        _ => 10_000,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reading_the_system_clock_needs_no_privilege() {
        let state = AdjustableClock::SYSTEM.state().unwrap();
        assert!((nominal_tick() - state.tick).abs() <= nominal_tick() / 10, "{state:?}");
    }

    #[test]
    fn a_descriptor_that_is_no_clock_is_an_error() {
        use std::os::fd::AsFd;
        let file = std::fs::File::open("/dev/null").unwrap();
        assert!(AdjustableClock::of_device(file.as_fd()).state().is_err());
    }
}
