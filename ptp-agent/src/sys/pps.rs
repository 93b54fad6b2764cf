//! Pulses per second as the kernel sees them (RFC 2783, linux/pps.h): devices /dev/ppsN. The kernel stamps each edge with
//! CLOCK_REALTIME in the interrupt; here the stamps are fetched. To fetch needs read access to the device and no
//! capability. Nothing is set: neither the mode of capture, which takes CAP_SYS_TIME, nor the kernel's own consumer,
//! which would steer the clock by itself.

use std::{
    fs::{File, OpenOptions},
    io,
    os::{
        fd::AsRawFd,
        unix::fs::{FileTypeExt, OpenOptionsExt},
    },
    path::Path,
    time::Duration as StdDuration,
};

use ptp_common::time::{Duration, Real, Time};

/// `PPS_CAPTUREASSERT` and its like, the bits of the mode.
const CAPTURE_ASSERT: i32 = 0x01;
const CAPTURE_CLEAR: i32 = 0x02;

/// `struct pps_ktime`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
struct KernelTime {
    seconds: i64,
    nanos: i32,
    flags: u32,
}

impl KernelTime {
    fn time(self) -> Time<Real> {
        let whole = Duration::from_secs(self.seconds);
        Time::from_epoch(whole + Duration::from_nanos(i64::from(self.nanos)))
    }
}

/// `struct pps_fdata`: `struct pps_kinfo`, and how long to wait.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
struct Fetched {
    assert_sequence: u32,
    clear_sequence: u32,
    assert: KernelTime,
    clear: KernelTime,
    current_mode: i32,
    padding: i32,
    timeout: KernelTime,
}

/// `struct pps_kparams`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
struct Parameters {
    api_version: i32,
    mode: i32,
    assert_offset: KernelTime,
    clear_offset: KernelTime,
}

// What is passed is a pointer, and so is what the size in the numbers is of.
mod request {
    const SIZE: usize = size_of::<usize>();
    nix::ioctl_read_bad!(parameters, nix::request_code_read!(b'p', 0xa1, SIZE), super::Parameters);
    nix::ioctl_read_bad!(capabilities, nix::request_code_read!(b'p', 0xa3, SIZE), libc::c_int);
    nix::ioctl_readwrite_bad!(
        fetch,
        nix::request_code_readwrite!(b'p', 0xa4, SIZE),
        super::Fetched
    );
}

/// Which edge of the pulse is the second.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Edge {
    /// That by which the line becomes active.
    #[default]
    Assert,
    /// The other one.
    Clear,
}

/// One edge.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Event {
    /// Counts the edges; the kernel keeps the latest only.
    pub sequence: u32,
    /// When, CLOCK_REALTIME.
    pub real: Time<Real>,
}

/// An open device.
#[derive(Debug)]
pub struct Device {
    file: File,
    edge: Edge,
}

impl Device {
    /// Opens the device at `path` to be read.
    ///
    /// # Errors
    /// ENOENT, EACCES; ENOTTY for something else than a source of pulses; EOPNOTSUPP for one that does not stamp the
    /// edge.
    pub fn open(path: &Path, edge: Edge) -> io::Result<Self> {
        let options = libc::O_NOCTTY | libc::O_NONBLOCK;
        let file = OpenOptions::new().read(true).custom_flags(options).open(path)?;
        if !file.metadata()?.file_type().is_char_device() {
            return Err(io::Error::from_raw_os_error(libc::ENOTTY));
        }
        let mut capabilities = 0;
        // SAFETY: a valid pointer to what belongs to this request, here and below.
        unsafe { request::capabilities(file.as_raw_fd(), &raw mut capabilities) }?;
        let mut parameters = Parameters::default();
        // SAFETY: as above.
        unsafe { request::parameters(file.as_raw_fd(), &raw mut parameters) }?;
        let wanted = match edge {
            Edge::Assert => CAPTURE_ASSERT,
            Edge::Clear => CAPTURE_CLEAR,
        };
        if capabilities & parameters.mode & wanted == 0 {
            return Err(io::Error::from_raw_os_error(libc::EOPNOTSUPP));
        }
        Ok(Self { file, edge })
    }

    /// Waits for the next edge, at most `patience`; with zero the latest one.
    ///
    /// # Errors
    /// ETIMEDOUT where none has come; ENODEV where the device has gone.
    pub fn fetch(&self, patience: StdDuration) -> io::Result<Event> {
        let timeout = KernelTime {
            seconds: i64::try_from(patience.as_secs()).unwrap_or(i64::MAX),
            nanos: patience.subsec_nanos().cast_signed(),
            flags: 0,
        };
        let mut fetched = Fetched { timeout, ..Fetched::default() };
        // SAFETY: as above.
        unsafe { request::fetch(self.file.as_raw_fd(), &raw mut fetched) }?;
        Ok(match self.edge {
            Edge::Assert => {
                Event { sequence: fetched.assert_sequence, real: fetched.assert.time() }
            }
            Edge::Clear => Event { sequence: fetched.clear_sequence, real: fetched.clear.time() },
        })
    }
}

const _: () = assert!(size_of::<KernelTime>() == 16);
const _: () = assert!(size_of::<Fetched>() == 64);
const _: () = assert!(size_of::<Parameters>() == 40);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_source_of_pulses_is_refused() {
        for path in ["/dev/null", "/dev/zero"] {
            let error = Device::open(Path::new(path), Edge::Assert).unwrap_err();
            assert!(matches!(error.raw_os_error(), Some(libc::ENOTTY | libc::EINVAL)), "{error}");
        }
        let file = tempfile::NamedTempFile::new().unwrap();
        let error = Device::open(file.path(), Edge::Assert).unwrap_err();
        assert_eq!(error.raw_os_error(), Some(libc::ENOTTY));
        assert!(Device::open(Path::new("/dev/no-such-pps"), Edge::Assert).is_err());
    }
}
