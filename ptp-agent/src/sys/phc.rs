//! PTP hardware clocks (PHC): the devices /dev/ptpN, what they can do, and reads of them together with
//! the system clock. They are set through [`super::adjust`].

use std::{fs::File, io, os::fd::AsFd, os::fd::AsRawFd};

use nix::time::{ClockId, clock_gettime};
use ptp_common::time::{Duration, Ptp, Real, Time};

use super::{adjust::AdjustableClock, clock::realtime};

/// Samples of one read; the narrowest counts.
const SAMPLES: usize = 10;
/// `PTP_MAX_SAMPLES` of linux/ptp_clock.h.
const MAX_SAMPLES: usize = 25;

/// `struct ptp_clock_time`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub struct DeviceTime {
    seconds: i64,
    nanos: u32,
    reserved: u32,
}

impl DeviceTime {
    /// A time since the epoch, or a span; not below zero.
    pub(super) fn of(time: Duration) -> Self {
        let nanos = time.as_nanos().max(0);
        let nanos_of = u32::try_from(nanos % 1_000_000_000).unwrap_or(0);
        Self { seconds: nanos / 1_000_000_000, nanos: nanos_of, reserved: 0 }
    }

    fn time<S>(self) -> Time<S> {
        Time::from_epoch(
            Duration::from_secs(self.seconds) + Duration::from_nanos(i64::from(self.nanos)),
        )
    }
}

/// `struct ptp_clock_caps`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub struct DeviceCapabilities {
    /// Largest adjustment of the frequency, parts per billion.
    pub max_adj: i32,
    /// Programmable alarms.
    pub n_alarm: i32,
    /// External time stamp channels.
    pub n_ext_ts: i32,
    /// Programmable periodic signals.
    pub n_per_out: i32,
    /// Whether it has a pulse per second.
    pub pps: i32,
    /// Pins.
    pub n_pins: i32,
    /// Whether it is read together with the system clock by hardware.
    pub cross_timestamping: i32,
    /// Whether it adjusts phase.
    pub adjust_phase: i32,
    /// Largest adjustment of phase, ns.
    pub max_phase_adj: i32,
    reserved: [i32; 11],
}

/// `struct ptp_sys_offset`: system, device, system, device, ... system.
#[repr(C)]
struct SystemOffset {
    samples: u32,
    reserved: [u32; 3],
    times: [DeviceTime; 2 * MAX_SAMPLES + 1],
}

/// `struct ptp_sys_offset_extended`: system, device, system each time.
#[repr(C)]
struct SystemOffsetExtended {
    samples: u32,
    reserved: [u32; 3],
    times: [[DeviceTime; 3]; MAX_SAMPLES],
}

/// `struct ptp_sys_offset_precise`.
#[repr(C)]
#[derive(Default)]
struct SystemOffsetPrecise {
    device: DeviceTime,
    real: DeviceTime,
    raw: DeviceTime,
    reserved: [u32; 4],
}

mod request {
    nix::ioctl_read!(capabilities, b'=', 1, super::DeviceCapabilities);
    nix::ioctl_write_ptr!(offset, b'=', 5, super::SystemOffset);
    nix::ioctl_readwrite!(offset_precise, b'=', 8, super::SystemOffsetPrecise);
    nix::ioctl_readwrite!(offset_extended, b'=', 9, super::SystemOffsetExtended);
}

/// How a device and the system clock were read together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Method {
    /// By hardware (PTP_SYS_OFFSET_PRECISE).
    Precise,
    /// By the driver, around the access to the device (PTP_SYS_OFFSET_EXTENDED).
    Extended,
    /// By the kernel, around the driver (PTP_SYS_OFFSET).
    Offset,
    /// From here, around the system call.
    Bracketed,
}

impl Method {
    /// For output.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Precise => "precise",
            Self::Extended => "extended",
            Self::Offset => "offset",
            Self::Bracketed => "bracketed",
        }
    }
}

/// One instant on both clocks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CrossReading {
    /// The device's clock.
    pub device: Time<Ptp>,
    /// CLOCK_REALTIME.
    pub real: Time<Real>,
    /// The two are together to within half of this.
    pub width: Duration,
    /// How that was found.
    pub method: Method,
}

/// What an open device can do.
///
/// # Errors
/// ENOTTY for something else than a clock.
pub fn capabilities(device: &File) -> io::Result<DeviceCapabilities> {
    let mut capabilities = DeviceCapabilities::default();
    // SAFETY: a valid pointer to the structure that belongs to this request.
    unsafe { request::capabilities(device.as_raw_fd(), &raw mut capabilities) }?;
    Ok(capabilities)
}

/// The device's time.
///
/// # Errors
/// What the kernel reports: ENODEV for a device that has gone.
pub fn time(device: &File) -> io::Result<Time<Ptp>> {
    let clock = ClockId::from_raw(AdjustableClock::of_device(device.as_fd()).id());
    let now = clock_gettime(clock)?;
    Ok(Time::from_epoch(Duration::from_secs(now.tv_sec()) + Duration::from_nanos(now.tv_nsec())))
}

/// The device and CLOCK_REALTIME at one instant, in the best way that the device has.
///
/// # Errors
/// What the kernel reports when none works.
pub fn cross_reading(device: &File) -> io::Result<CrossReading> {
    precise(device)
        .or_else(|_| extended(device))
        .or_else(|_| offset(device))
        .or_else(|_| bracketed(device))
}

fn precise(device: &File) -> io::Result<CrossReading> {
    let mut reading = SystemOffsetPrecise::default();
    // SAFETY: a valid pointer to the structure that belongs to this request.
    unsafe { request::offset_precise(device.as_raw_fd(), &raw mut reading) }?;
    Ok(CrossReading {
        device: reading.device.time(),
        real: reading.real.time(),
        width: Duration::ZERO,
        method: Method::Precise,
    })
}

fn extended(device: &File) -> io::Result<CrossReading> {
    let mut reading = SystemOffsetExtended {
        samples: SAMPLES as u32,
        reserved: [0; 3],
        times: [[DeviceTime::default(); 3]; MAX_SAMPLES],
    };
    // SAFETY: a valid pointer to the structure that belongs to this request.
    unsafe { request::offset_extended(device.as_raw_fd(), &raw mut reading) }?;
    let triples =
        reading.times[..SAMPLES].iter().map(|[before, device, after]| (*before, *device, *after));
    narrowest(triples, Method::Extended)
}

fn offset(device: &File) -> io::Result<CrossReading> {
    let mut reading = SystemOffset {
        samples: SAMPLES as u32,
        reserved: [0; 3],
        times: [DeviceTime::default(); 2 * MAX_SAMPLES + 1],
    };
    // SAFETY: a valid pointer to the structure that belongs to this request; despite the direction
    // in its number the kernel writes to it, so the pointer is made from a mutable reference.
    unsafe { request::offset(device.as_raw_fd(), &raw mut reading) }?;
    let times = &reading.times;
    narrowest(
        (0..SAMPLES).map(|n| (times[2 * n], times[2 * n + 1], times[2 * n + 2])),
        Method::Offset,
    )
}

fn narrowest(
    triples: impl Iterator<Item = (DeviceTime, DeviceTime, DeviceTime)>,
    method: Method,
) -> io::Result<CrossReading> {
    triples
        .map(|(before, device, after)| {
            let (before, after) = (before.time::<Real>(), after.time::<Real>());
            together(before, device.time(), after, method)
        })
        .filter(|reading| !reading.width.is_negative())
        .min_by_key(|reading| reading.width)
        .ok_or_else(|| io::Error::other("the system clock was stepped back meanwhile"))
}

fn bracketed(device: &File) -> io::Result<CrossReading> {
    let mut best: Option<CrossReading> = None;
    for _ in 0..SAMPLES {
        let before = realtime();
        let device = time(device)?;
        let reading = together(before, device, realtime(), Method::Bracketed);
        if !reading.width.is_negative() && best.is_none_or(|best| reading.width < best.width) {
            best = Some(reading);
        }
    }
    best.ok_or_else(|| io::Error::other("the system clock was stepped back meanwhile"))
}

fn together(
    before: Time<Real>,
    device: Time<Ptp>,
    after: Time<Real>,
    method: Method,
) -> CrossReading {
    let width = after - before;
    CrossReading { device, real: before + width.half(), width, method }
}

// The sizes are part of the requests' numbers.
const _: () = assert!(size_of::<DeviceCapabilities>() == 80);
const _: () = assert!(size_of::<SystemOffset>() == 832);
const _: () = assert!(size_of::<SystemOffsetExtended>() == 1_216);
const _: () = assert!(size_of::<SystemOffsetPrecise>() == 64);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_clock_is_an_error() {
        let file = File::open("/dev/null").unwrap();
        assert!(capabilities(&file).is_err());
        assert!(cross_reading(&file).is_err());
    }

    #[test]
    fn of_many_readings_the_narrowest_counts() {
        let at = |nanos: u32| DeviceTime { seconds: 5, nanos, reserved: 0 };
        let triples =
            [(at(100), at(7), at(900)), (at(1_000), at(8), at(1_100)), (at(5), at(9), at(1))];
        let reading = narrowest(triples.into_iter(), Method::Extended).unwrap();
        assert_eq!(reading.width, Duration::from_nanos(100));
        assert_eq!(reading.real, Time::from_seconds_nanos(5, 1_050));
        assert_eq!(reading.device, Time::from_seconds_nanos(5, 8));
    }
}
