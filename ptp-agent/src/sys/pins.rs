//! Pins of a PTP hardware clock (linux/ptp_clock.h): edges that it stamps (external timestamps), signals that it makes
//! (periodic output), and which pin is for what. All need write access to the device on newer kernels, and no
//! capability.

use std::{
    fs::File,
    io::{self, Read},
    os::fd::{AsFd, AsRawFd},
    time::Duration as StdDuration,
};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use ptp_common::time::{Duration, Ptp, Time};

use super::phc::DeviceTime;

/// Bits of requests for external timestamps: on, the edge, and that a driver that cannot says so.
const ENABLE: u32 = 1;
const RISING: u32 = 1 << 1;
const FALLING: u32 = 1 << 2;
const STRICT: u32 = 1 << 3;
/// Of periodic output: `on` is given.
const DUTY_CYCLE: u32 = 1 << 1;

/// `struct ptp_extts_request`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
struct ExttsRequest {
    index: u32,
    flags: u32,
    reserved: [u32; 2],
}

/// `struct ptp_perout_request`; its last words are `on` where [`DUTY_CYCLE`] says so.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
struct PeroutRequest {
    start: DeviceTime,
    period: DeviceTime,
    index: u32,
    flags: u32,
    on: DeviceTime,
}

/// `struct ptp_pin_desc`.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
struct PinDescription {
    name: [u8; 64],
    index: u32,
    function: u32,
    channel: u32,
    reserved: [u32; 5],
}

/// `struct ptp_extts_event`, as it is read.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
struct ExttsEvent {
    time: DeviceTime,
    index: u32,
    flags: u32,
    reserved: [u32; 2],
}

const EVENT: usize = size_of::<ExttsEvent>();

mod request {
    nix::ioctl_write_ptr!(extts, b'=', 2, super::ExttsRequest);
    nix::ioctl_write_ptr!(extts2, b'=', 11, super::ExttsRequest);
    nix::ioctl_write_ptr!(perout, b'=', 3, super::PeroutRequest);
    nix::ioctl_write_ptr!(perout2, b'=', 12, super::PeroutRequest);
    nix::ioctl_readwrite!(pin_get, b'=', 6, super::PinDescription);
    nix::ioctl_write_ptr!(pin_set, b'=', 7, super::PinDescription);
}

/// What a pin is for (`enum ptp_pin_function`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Function {
    /// Nothing.
    None,
    /// Edges are stamped.
    Extts,
    /// A signal is made.
    Perout,
    /// Something else, by its number.
    Other(u32),
}

impl Function {
    const fn number(self) -> u32 {
        match self {
            Self::None => 0,
            Self::Extts => 1,
            Self::Perout => 2,
            Self::Other(number) => number,
        }
    }

    const fn of(number: u32) -> Self {
        match number {
            0 => Self::None,
            1 => Self::Extts,
            2 => Self::Perout,
            number => Self::Other(number),
        }
    }

    /// For output.
    pub const fn name(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Extts => "extts",
            Self::Perout => "perout",
            Self::Other(_) => "other",
        }
    }
}

/// A pin.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pin {
    /// Its number.
    pub index: u32,
    /// Its name.
    pub name: String,
    /// What it is for.
    pub function: Function,
    /// Which channel of that it is.
    pub channel: u32,
}

/// What a pin is set to.
///
/// # Errors
/// EINVAL for a pin that is not there, ENOTTY for a device without.
pub fn pin(device: &File, index: u32) -> io::Result<Pin> {
    let mut pin = description(index, Function::None, 0);
    // SAFETY: a valid pointer to the structure that belongs to this request, here and below.
    unsafe { request::pin_get(device.as_raw_fd(), &raw mut pin) }?;
    let end = pin.name.iter().position(|byte| *byte == 0).unwrap_or(pin.name.len());
    Ok(Pin {
        index,
        name: String::from_utf8_lossy(&pin.name[..end]).into_owned(),
        function: Function::of(pin.function),
        channel: pin.channel,
    })
}

const fn description(index: u32, function: Function, channel: u32) -> PinDescription {
    PinDescription { name: [0; 64], index, function: function.number(), channel, reserved: [0; 5] }
}

/// Says what a pin is for.
///
/// # Errors
/// As for [`pin`]; EOPNOTSUPP where the pin is for one thing only.
pub fn set_pin(device: &File, index: u32, function: Function, channel: u32) -> io::Result<()> {
    let pin = description(index, function, channel);
    // SAFETY: as above.
    unsafe { request::pin_set(device.as_raw_fd(), &raw const pin) }.map(drop).map_err(Into::into)
}

/// Which edges are stamped.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Edges {
    /// None any more.
    Off,
    /// Those by which the line rises.
    #[default]
    Rising,
    /// Those by which it falls.
    Falling,
}

/// Stamps edges at a channel, or no longer.
///
/// # Errors
/// EINVAL for a channel that is not there, EOPNOTSUPP for a clock that cannot.
pub fn set_extts(device: &File, channel: u32, edges: Edges) -> io::Result<()> {
    let flags = match edges {
        Edges::Off => 0,
        Edges::Rising => ENABLE | RISING,
        Edges::Falling => ENABLE | FALLING,
    };
    let strict = ExttsRequest { index: channel, flags: flags | STRICT, reserved: [0; 2] };
    // Older kernels know the first form only, and some drivers refuse to be strict.
    // SAFETY: as above.
    if unsafe { request::extts2(device.as_raw_fd(), &raw const strict) }.is_ok() {
        return Ok(());
    }
    let plain = ExttsRequest { flags, ..strict };
    // SAFETY: as above.
    unsafe { request::extts(device.as_raw_fd(), &raw const plain) }.map(drop).map_err(Into::into)
}

/// A signal to be made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Signal {
    /// The clock's time of its first edge.
    pub start: Time<Ptp>,
    /// From one rise to the next; zero ends it.
    pub period: Duration,
    /// How long it is high; `None`: as the driver has it, mostly half of the period.
    pub width: Option<Duration>,
}

/// Makes a signal at a channel, or ends it.
///
/// # Errors
/// As for [`set_extts`].
pub fn set_perout(device: &File, channel: u32, signal: Signal) -> io::Result<()> {
    let request = PeroutRequest {
        start: DeviceTime::of(signal.start.since_epoch()),
        period: DeviceTime::of(signal.period),
        index: channel,
        flags: if signal.width.is_some() { DUTY_CYCLE } else { 0 },
        on: signal.width.map(DeviceTime::of).unwrap_or_default(),
    };
    // SAFETY: as above.
    let new = unsafe { request::perout2(device.as_raw_fd(), &raw const request) };
    match new {
        Ok(_) => Ok(()),
        Err(nix::Error::ENOTTY) if signal.width.is_none() => {
            // SAFETY: as above.
            let old = unsafe { request::perout(device.as_raw_fd(), &raw const request) };
            old.map(drop).map_err(Into::into)
        }
        Err(error) => Err(error.into()),
    }
}

/// An edge that was stamped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stamped {
    /// The channel.
    pub channel: u32,
    /// The clock's time.
    pub time: Time<Ptp>,
}

/// Waits for an edge at any channel, at most `patience`; `None` where there was none.
///
/// # Errors
/// What the kernel says; ENODEV where the device has gone.
pub fn next_edge(mut device: &File, patience: StdDuration) -> io::Result<Option<Stamped>> {
    let timeout = PollTimeout::try_from(patience).unwrap_or(PollTimeout::MAX);
    let mut wanted = [PollFd::new(device.as_fd(), PollFlags::POLLIN)];
    match poll(&mut wanted, timeout) {
        Ok(0) | Err(nix::Error::EINTR) => return Ok(None),
        Ok(_) => {}
        Err(error) => return Err(error.into()),
    }
    let mut bytes = [0; EVENT];
    if device.read(&mut bytes)? < EVENT {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    Ok(Some(edge(&bytes)))
}

fn edge(bytes: &[u8; EVENT]) -> Stamped {
    let word = |at: usize| {
        let word: [u8; 4] = core::array::from_fn(|n| bytes[at + n]);
        u32::from_ne_bytes(word)
    };
    let seconds: [u8; 8] = core::array::from_fn(|n| bytes[n]);
    let whole = Duration::from_secs(i64::from_ne_bytes(seconds));
    let time = Time::from_epoch(whole + Duration::from_nanos(i64::from(word(8))));
    Stamped { channel: word(16), time }
}

const _: () = assert!(size_of::<ExttsRequest>() == 16);
const _: () = assert!(size_of::<PeroutRequest>() == 56);
const _: () = assert!(size_of::<PinDescription>() == 96);
const _: () = assert!(EVENT == 32);

#[cfg(test)]
mod tests {
    use super::*;
    use std::{io::Write, os::fd::OwnedFd};

    #[test]
    fn an_event_is_read_as_the_kernel_writes_it() {
        let (reader, mut writer) = io::pipe().unwrap();
        let device = File::from(OwnedFd::from(reader));
        assert_eq!(next_edge(&device, StdDuration::ZERO).unwrap(), None);
        let mut bytes = Vec::new();
        bytes.extend(1_900_000_000_i64.to_ne_bytes());
        bytes.extend([123_456_789_u32, 0, 3, 0, 0, 0].iter().flat_map(|word| word.to_ne_bytes()));
        writer.write_all(&bytes).unwrap();
        let edge = next_edge(&device, StdDuration::from_secs(5)).unwrap();
        let time = Time::from_seconds_nanos(1_900_000_000, 123_456_789);
        assert_eq!(edge, Some(Stamped { channel: 3, time }));
        writer.write_all(&bytes[..7]).unwrap();
        assert!(next_edge(&device, StdDuration::from_secs(5)).is_err(), "half an event is none");
    }

    #[test]
    fn what_is_no_clock_has_no_pins() {
        let file = File::open("/dev/null").unwrap();
        assert!(pin(&file, 0).is_err() && set_pin(&file, 0, Function::Extts, 0).is_err());
        assert!(set_extts(&file, 0, Edges::Rising).is_err());
        let signal = Signal { start: Time::ZERO, period: Duration::from_secs(1), width: None };
        assert!(set_perout(&file, 0, signal).is_err());
    }
}
