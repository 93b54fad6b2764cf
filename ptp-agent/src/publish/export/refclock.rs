//! Samples for other daemons that steer the clock: chronyd's SOCK reference clock and the shared
//! memory of NTP (the SHM driver of ntpd, which chronyd reads too). A daemon that is not there, or
//! starts again, is no error: the next sample finds it.

use std::{
    io,
    os::unix::net::UnixDatagram,
    path::PathBuf,
    sync::atomic::{AtomicU32, Ordering, fence},
};

use ptp_common::time::{Duration, Ptp, Time};

use super::SegmentError;
use crate::sys::shared::{SegmentAccess, SharedMemory, segment_access, segment_id};

/// `SOCK_MAGIC` of chrony's refclock_sock.c.
const SOCK_MAGIC: i32 = 0x534f_434b;
/// A `struct sock_sample`.
const SOCK_BYTES: usize = 40;
/// `NTPD_BASE`: the letters `NTP0`.
const NTP_KEY: i32 = 0x4e54_5030;
/// A `struct shmTime` on 64-bit machines.
const NTP_BYTES: usize = 96;

fn parts(time: Time<Ptp>) -> (i64, u32) {
    let nanos = time.as_nanos();
    (nanos.div_euclid(1_000_000_000), nanos.rem_euclid(1_000_000_000) as u32)
}

/// The socket of a `refclock SOCK`.
#[derive(Debug)]
pub struct ChronySocket {
    path: PathBuf,
    socket: UnixDatagram,
    is_there: Option<bool>,
}

impl ChronySocket {
    /// Will send to `path`, which chronyd makes.
    ///
    /// # Errors
    /// [`SegmentError::Socket`].
    pub fn new(path: PathBuf) -> Result<Self, SegmentError> {
        let socket = UnixDatagram::unbound()
            .and_then(|socket| socket.set_nonblocking(true).map(|()| socket))
            .map_err(|error| SegmentError::Socket { path: path.clone(), error })?;
        Ok(Self { path, socket, is_there: None })
    }

    /// Sends a sample: at `real` of CLOCK_REALTIME that was `error` ahead of the true time.
    pub fn send(&mut self, real: Time<Ptp>, error: Duration, leap: i8) {
        let result = self.socket.send_to(&sample(real, error, leap), &self.path);
        let is_there = match &result {
            Ok(_) => true,
            // It is there, only slow.
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => true,
            Err(_) => false,
        };
        if self.is_there.replace(is_there) != Some(is_there) {
            let path = self.path.display();
            match result {
                Err(error) if !is_there => {
                    tracing::warn!(%path, %error, "chronyd does not listen here; samples wait for it");
                }
                _ => tracing::info!(%path, "samples go to chronyd"),
            }
        }
    }
}

/// `struct sock_sample`: timeval, offset (true minus system), pulse, leap, padding, magic.
fn sample(real: Time<Ptp>, error: Duration, leap: i8) -> [u8; SOCK_BYTES] {
    let (seconds, nanos) = parts(real);
    let leap: i32 = match leap {
        0 => 0,
        1.. => 1,
        _ => 2,
    };
    let mut bytes = [0; SOCK_BYTES];
    bytes[..8].copy_from_slice(&seconds.to_ne_bytes());
    bytes[8..16].copy_from_slice(&i64::from(nanos / 1_000).to_ne_bytes());
    bytes[16..24].copy_from_slice(&(-error.as_secs_f64()).to_ne_bytes());
    bytes[28..32].copy_from_slice(&leap.to_ne_bytes());
    bytes[36..].copy_from_slice(&SOCK_MAGIC.to_ne_bytes());
    bytes
}

/// The shared memory of NTP.
#[derive(Debug)]
pub struct NtpSegment {
    unit: u8,
    id: Option<i32>,
    memory: SharedMemory,
}

impl NtpSegment {
    /// Makes the segment of `unit`, for this user alone whatever the unit, or uses the one that is there
    /// if it is a system account's and nobody else may write to it. ntpd makes units from 2 on for
    /// everybody, who could then step the clock.
    ///
    /// # Errors
    /// [`SegmentError::Attach`], [`SegmentError::Untrusted`].
    pub fn open(unit: u8) -> Result<Self, SegmentError> {
        let key = key(unit);
        let failed = |error| SegmentError::Attach { unit, key, error };
        let memory = SharedMemory::attach(key, NTP_BYTES, 0o600).map_err(failed)?;
        let access = segment_access(key).map_err(failed)?;
        if let Some(problem) = distrust(access, nix::unistd::geteuid().as_raw()) {
            return Err(SegmentError::Untrusted { unit, key, problem });
        }
        Ok(Self { unit, id: segment_id(key), memory })
    }

    /// Whether those who come now read this segment, and not one that somebody has made since.
    pub fn is_current(&self) -> bool {
        segment_id(key(self.unit)) == self.id
    }

    /// Writes a sample: at `real` of CLOCK_REALTIME that was `error` ahead of the true time, and this
    /// repeats to within `precision`.
    pub fn write(&self, real: Time<Ptp>, error: Duration, precision: Option<Duration>, leap: i8) {
        write(self.memory.words32(), real - error, real, log_precision(precision), leap);
    }
}

/// Why a segment cannot be trusted; `None` where it can. The daemon that reads may have made it, under an
/// account of its own.
fn distrust(access: SegmentAccess, own: u32) -> Option<String> {
    /// `SYS_UID_MAX` of login.defs: people's accounts come behind it.
    const LAST_SYSTEM_ACCOUNT: u32 = 999;
    let SegmentAccess { owner, creator, mode } = access;
    let stranger = [owner, creator].into_iter().find(|id| *id > LAST_SYSTEM_ACCOUNT && *id != own);
    if let Some(stranger) = stranger {
        return Some(format!("user {stranger}'s"));
    }
    (mode & 0o022 != 0).then(|| format!("writable for others (mode {mode:o})"))
}

pub(super) const fn key(unit: u8) -> i32 {
    NTP_KEY + unit as i32
}

/// As NTP has it: log2 s, rounded up. What is not known is about a microsecond.
fn log_precision(precision: Option<Duration>) -> i32 {
    const UNKNOWN: i32 = -20;
    match precision.map(|precision| precision.as_secs_f64().abs()) {
        Some(seconds) if seconds.is_normal() => seconds.log2().ceil().clamp(-30.0, 0.0) as i32,
        _ => UNKNOWN,
    }
}

/// `struct shmTime` in mode 1: the reader checks that `count` (word 1) has not changed meanwhile.
fn write(words: &[AtomicU32], clock: Time<Ptp>, receive: Time<Ptp>, log_precision: i32, leap: i8) {
    let store = |n: usize, value: u32| words[n].store(value, Ordering::Relaxed);
    let long = |n: usize, value: i64| {
        let bytes = value.to_ne_bytes();
        store(n, u32::from_ne_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]));
        store(n + 1, u32::from_ne_bytes([bytes[4], bytes[5], bytes[6], bytes[7]]));
    };
    let count = words[1].load(Ordering::Relaxed);
    store(12, 0);
    store(0, 1);
    store(1, count.wrapping_add(1));
    fence(Ordering::Release);
    let (seconds, nanos) = parts(clock);
    long(2, seconds);
    store(4, nanos / 1_000);
    store(13, nanos);
    let (seconds, nanos) = parts(receive);
    long(6, seconds);
    store(8, nanos / 1_000);
    store(14, nanos);
    store(
        9,
        match leap {
            0 => 0,
            1.. => 1,
            _ => 2,
        },
    );
    store(10, log_precision as u32);
    fence(Ordering::Release);
    store(1, count.wrapping_add(2));
    words[12].store(1, Ordering::Release);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::shared::remove_segment;

    const REAL: Time<Ptp> = Time::from_seconds_nanos(1_900_000_000, 123_456_789);

    #[test]
    fn a_sample_says_true_minus_system() {
        let bytes = sample(REAL, Duration::from_millis(-250), -1);
        let double = f64::from_ne_bytes(bytes[16..24].try_into().unwrap());
        assert!((double - 0.25).abs() < 1e-12);
        let int = |at: usize| i32::from_ne_bytes(bytes[at..at + 4].try_into().unwrap());
        assert_eq!((int(24), int(28), int(32), int(36)), (0, 2, 0, 0x534f434b));
        assert_eq!(i64::from_ne_bytes(bytes[8..16].try_into().unwrap()), 123_456);
    }

    #[test]
    fn samples_wait_for_chronyd_and_find_it_again_after_a_restart() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("chrony.sock");
        let mut socket = ChronySocket::new(path.clone()).unwrap();
        socket.send(REAL, Duration::ZERO, 0);
        for _ in 0..2 {
            let daemon = UnixDatagram::bind(&path).unwrap();
            socket.send(REAL, Duration::from_millis(1), 0);
            let mut bytes = [0; 64];
            assert_eq!(daemon.recv(&mut bytes).unwrap(), SOCK_BYTES);
            drop(daemon);
            std::fs::remove_file(&path).unwrap();
            socket.send(REAL, Duration::ZERO, 0);
        }
    }

    #[test]
    fn segment_that_others_could_write_to_is_refused_and_a_new_one_is_private() {
        let unit = 213;
        drop(SharedMemory::attach(key(unit), NTP_BYTES, 0o666).unwrap());
        let error = NtpSegment::open(unit).unwrap_err();
        assert!(matches!(error, SegmentError::Untrusted { .. }), "{error}");
        assert!(error.to_string().contains("mode 666"), "{error}");
        remove_segment(key(unit));
        let segment = NtpSegment::open(unit).unwrap();
        assert_eq!(segment_access(key(unit)).unwrap().mode, 0o600);
        remove_segment(key(unit));
        drop(segment);
    }

    #[test]
    fn segment_of_a_daemon_is_trusted_and_that_of_a_person_is_not() {
        let access = |owner, creator, mode| SegmentAccess { owner, creator, mode };
        assert_eq!(distrust(access(0, 0, 0o600), 0), None);
        assert_eq!(distrust(access(123, 123, 0o644), 0), None);
        assert_eq!(distrust(access(1000, 1000, 0o600), 1000), None);
        assert!(distrust(access(1000, 1000, 0o600), 0).is_some());
        // Given away by its maker, who may take it back.
        assert!(distrust(access(0, 1000, 0o600), 0).is_some());
        assert!(distrust(access(0, 0, 0o620), 0).is_some());
    }

    #[test]
    fn the_segment_of_ntp_is_written_as_its_readers_expect_it() {
        // A unit that no daemon has.
        let unit = 211;
        let segment = NtpSegment::open(unit).unwrap();
        segment.write(REAL, Duration::from_millis(500), Some(Duration::from_nanos(1_000)), 1);
        let other = SharedMemory::attach(key(unit), NTP_BYTES, 0o666).unwrap();
        let word = |n: usize| other.words32()[n].load(Ordering::Relaxed);
        assert_eq!((word(0), word(1) % 2, word(12)), (1, 0, 1));
        assert_eq!((word(2), word(13)), (1_899_999_999, 623_456_789));
        assert_eq!((word(6), word(14), word(9)), (1_900_000_000, 123_456_789, 1));
        assert_eq!(
            word(10) as i32,
            -19,
            "a microsecond is less than 2^-19 s and more than 2^-20 s"
        );
        assert!(segment.is_current());
        remove_segment(key(unit));
        assert!(!segment.is_current());
    }
}
