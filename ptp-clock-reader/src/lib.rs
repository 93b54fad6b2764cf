//! Reads the time of a PTP domain, and the bound on its error, from the page that `ptp-agent run
//! --clock virtual --page PATH` keeps in shared memory. No privilege is needed, no system call but the
//! vDSO's clock, and the host's own clock may be whatever it is. This crate depends on nothing, unless the
//! feature `opentelemetry` is asked for, which adds a span processor that stamps spans with this time.
//!
//! ```no_run
//! let clock = ptp_clock_reader::PtpClock::open("/run/ptp-agent/clock")?;
//! let now = clock.now()?;
//! println!("{} ns, give or take {:?} ns", now.ptp_ns, now.bound_ns);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # The page
//!
//! 128 bytes: sixteen 64-bit words in the machine's byte order, each written as one.
//!
//! | word | name | meaning |
//! |---|---|---|
//! | 0 | magic | the bytes `PTPCLOCK` |
//! | 1 | version | 1; the size in bytes, 128, in the upper half |
//! | 2 | sequence | odd while the page is being written |
//! | 3 | mono | CLOCK_MONOTONIC, ns, at which the following holds |
//! | 4 | ptp | the clock's time then, ns since its epoch |
//! | 5 | fraction | of a nanosecond, to be added, in units of 2^-64 ns |
//! | 6 | rate | how much faster than CLOCK_MONOTONIC the clock runs, signed, in units of 2^-48 |
//! | 7 | bound | largest error of the clock against its grandmaster at *mono*, ns; all ones: not known |
//! | 8 | growth | by how much that grows, parts per billion of the time since |
//! | 9 | void | CLOCK_MONOTONIC, ns, after which nothing of this may be believed |
//! | 10 | state | 0 unknown, 1 locked, 2 holdover |
//! | 11 | UTC offset | TAI minus UTC, s, signed; the smallest number there is: not known, or the epoch is arbitrary |
//! | 12 | steps | counts jumps of the clock |
//! | 13, 14 | lowest, highest | between these, ns, signed, is clock minus grandmaster at *mono*, whatever the paths do |
//! | 15 | precision | lower half: to within this many ns the clock repeats; 0: not known |
//! | 15 | accuracy | upper half: the grandmaster is no farther than this many ns, less one, from UTC; 0: not known |
//!
//! Words 13 to 15 were 0 before there was something in them, and an interval from 0 to 0 is none: a page
//! of an older agent says that this is not known, and readers that are older ignore it. So the version is
//! still 1. Lowest and highest move apart as the bound grows.
//!
//! With *m* a reading of CLOCK_MONOTONIC: time = *ptp* + (*m* - *mono*) + (*m* - *mono*) * *rate* / 2^48,
//! which takes 128-bit arithmetic. A reader takes *sequence*, then the words, then *sequence* again, and
//! begins anew when it was odd or has changed. `include/ptp_clock.h` does the same in C.
#![cfg_attr(not(feature = "std"), no_std)]
#![deny(unsafe_code)]

#[cfg(feature = "std")]
mod map;
#[cfg(feature = "std")]
mod open;
#[cfg(feature = "opentelemetry")]
pub mod spans;

use core::{
    fmt,
    sync::atomic::{AtomicU64, Ordering, fence},
};

#[cfg(feature = "std")]
pub use open::{OpenError, PtpClock};
#[cfg(feature = "opentelemetry")]
pub use spans::PtpSpans;

/// Words of the page.
pub const WORDS: usize = 16;
/// Bytes of the page.
pub const BYTES: usize = WORDS * 8;
/// The first word.
pub const MAGIC: u64 = u64::from_ne_bytes(*b"PTPCLOCK");
/// The second word.
pub const VERSION: u64 = (BYTES as u64) << 32 | 1;
/// The bound when none is known.
pub const NO_BOUND: u64 = u64::MAX;
/// The UTC offset when none is known.
pub const NO_UTC_OFFSET: i64 = i64::MIN;
/// The interval when none is known.
pub const NO_INTERVAL: [i64; 2] = [0; 2];
/// A writer that dies while it writes is not waited for for ever.
const ATTEMPTS: u32 = 1_000_000;

/// The state of the clock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// Not to be believed.
    Unknown,
    /// Follows its grandmaster.
    Locked,
    /// Followed it, and runs on with what it has learnt.
    Holdover,
}

/// Why there is no time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReadError {
    /// Not such a page, or not yet.
    NoPage,
    /// Another version of the layout.
    Version,
    /// The page stays in the middle of a change: its writer has died.
    Stuck,
}

impl fmt::Display for ReadError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NoPage => "this is not a page of a PTP clock",
            Self::Version => "the page of the PTP clock has another version",
            Self::Stuck => "the writer of the PTP clock's page has died while it wrote",
        })
    }
}

impl core::error::Error for ReadError {}

/// What the page says: the course of the clock until the next change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Course {
    /// CLOCK_MONOTONIC, ns, from which it holds.
    pub mono_ns: i64,
    /// The clock's time then, ns.
    pub ptp_ns: i64,
    /// To be added, in units of 2^-64 ns.
    pub fraction: u64,
    /// Rate against CLOCK_MONOTONIC minus one, in units of 2^-48.
    pub rate: i64,
    /// Largest error at `mono_ns`, ns, or [`NO_BOUND`].
    pub bound_ns: u64,
    /// Growth of that, parts per billion.
    pub growth_ppb: u64,
    /// CLOCK_MONOTONIC, ns, until which it may be believed.
    pub void_ns: i64,
    /// As in [`State`]: 0, 1 or 2.
    pub state: u64,
    /// TAI minus UTC, seconds, or [`NO_UTC_OFFSET`].
    pub utc_offset_s: i64,
    /// Jumps of the clock so far.
    pub steps: u64,
    /// Clock minus grandmaster at `mono_ns` is between these, ns, or [`NO_INTERVAL`].
    pub interval_ns: [i64; 2],
    /// To within this many ns the clock repeats; `None` when that is not known, or more than 4 s.
    pub precision_ns: Option<u32>,
    /// The grandmaster is no farther from UTC, ns; `None` when that is not known, or more than 4 s.
    pub accuracy_ns: Option<u32>,
}

/// The time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PtpTime {
    /// Nanoseconds since the epoch: TAI since 1970 where the grandmaster has it.
    pub ptp_ns: i64,
    /// The grandmaster's time is no farther than this, ns; `None` when that is not known.
    pub bound_ns: Option<u64>,
    /// UTC, which is `ptp_ns` minus `utc_offset_s`, is no farther than this, ns; `None` when that is not
    /// known, be it of this clock or of the grandmaster.
    pub utc_bound_ns: Option<u64>,
    /// Clock minus grandmaster lies between these, ns, which may be lopsided: the grandmaster's time is
    /// from `ptp_ns` minus the second to `ptp_ns` minus the first. `None` when that is not known.
    pub interval_ns: Option<[i64; 2]>,
    /// To within this many ns the clock repeats, which says nothing of the path; `None` when not known.
    pub precision_ns: Option<u32>,
    /// State of the clock.
    pub state: State,
    /// TAI minus UTC, s, where it is known.
    pub utc_offset_s: Option<i32>,
    /// Jumps of the clock so far.
    pub steps: u64,
}

impl Course {
    /// The time at `mono_ns` of CLOCK_MONOTONIC.
    pub fn at(&self, mono_ns: i64) -> PtpTime {
        let passed = i128::from(mono_ns) - i128::from(self.mono_ns);
        // Both in units of 2^-64 ns; only the fraction of it counts.
        let gained = passed * i128::from(self.rate) * (1 << 16) + i128::from(self.fraction);
        let ptp = i128::from(self.ptp_ns) + passed + (gained >> 64);
        // A page of before the last boot lies in the future of a clock that began anew.
        let valid = i128::from(self.void_ns) - i128::from(self.mono_ns);
        let is_void = mono_ns > self.void_ns || passed < -valid;
        let state = match self.state {
            1 if !is_void => State::Locked,
            2 if !is_void => State::Holdover,
            _ => State::Unknown,
        };
        let growth = passed.unsigned_abs() * u128::from(self.growth_ppb) / 1_000_000_000;
        let growth = u64::try_from(growth).unwrap_or(NO_BOUND);
        let bound_ns = (self.bound_ns != NO_BOUND && state != State::Unknown)
            .then(|| growth.saturating_add(self.bound_ns));
        let utc_offset_s = i32::try_from(self.utc_offset_s).ok();
        let accuracy = self.accuracy_ns.filter(|_| utc_offset_s.is_some());
        let utc_bound_ns =
            bound_ns.zip(accuracy).map(|(bound, accuracy)| bound.saturating_add(accuracy.into()));
        let [lowest, highest] = self.interval_ns;
        let interval_ns = (self.interval_ns != NO_INTERVAL && state != State::Unknown).then(|| {
            [lowest.saturating_sub_unsigned(growth), highest.saturating_add_unsigned(growth)]
        });
        PtpTime {
            ptp_ns: i64::try_from(ptp).unwrap_or(if ptp < 0 { i64::MIN } else { i64::MAX }),
            bound_ns,
            utc_bound_ns,
            interval_ns,
            precision_ns: self.precision_ns.filter(|_| state != State::Unknown),
            state,
            utc_offset_s,
            steps: self.steps,
        }
    }

    /// Precision and accuracy in one word.
    fn packed(&self) -> u64 {
        let precision = self.precision_ns.map_or(0, |precision| precision.max(1));
        let accuracy = self.accuracy_ns.and_then(|accuracy| accuracy.checked_add(1)).unwrap_or(0);
        u64::from(precision) | u64::from(accuracy) << 32
    }

    /// A consistent copy of what `page` says.
    ///
    /// # Errors
    /// [`ReadError`].
    pub fn read(page: &[AtomicU64; WORDS]) -> Result<Self, ReadError> {
        if page[0].load(Ordering::Relaxed) != MAGIC {
            return Err(ReadError::NoPage);
        }
        if page[1].load(Ordering::Relaxed) != VERSION {
            return Err(ReadError::Version);
        }
        for _ in 0..ATTEMPTS {
            let before = page[2].load(Ordering::Acquire);
            if before.is_multiple_of(2) {
                let word = |n: usize| page[n].load(Ordering::Relaxed);
                let course = Self {
                    mono_ns: word(3) as i64,
                    ptp_ns: word(4) as i64,
                    fraction: word(5),
                    rate: word(6) as i64,
                    bound_ns: word(7),
                    growth_ppb: word(8),
                    void_ns: word(9) as i64,
                    state: word(10),
                    utc_offset_s: word(11) as i64,
                    steps: word(12),
                    interval_ns: [word(13) as i64, word(14) as i64],
                    precision_ns: unpack(word(15) as u32),
                    accuracy_ns: unpack((word(15) >> 32) as u32).map(|more| more - 1),
                };
                // What was loaded is from before the next load.
                fence(Ordering::Acquire);
                if page[2].load(Ordering::Relaxed) == before {
                    return Ok(course);
                }
            }
            core::hint::spin_loop();
        }
        Err(ReadError::Stuck)
    }

    /// Writes the page, for the one program that does. A page that its last writer left in the middle
    /// of a change becomes whole.
    pub fn write(&self, page: &[AtomicU64; WORDS]) {
        let sequence = page[2].load(Ordering::Relaxed) | 1;
        page[2].store(sequence, Ordering::Relaxed);
        // No word is changed before the sequence is odd.
        fence(Ordering::Release);
        for (n, word) in [
            (3, self.mono_ns as u64),
            (4, self.ptp_ns as u64),
            (5, self.fraction),
            (6, self.rate as u64),
            (7, self.bound_ns),
            (8, self.growth_ppb),
            (9, self.void_ns as u64),
            (10, self.state),
            (11, self.utc_offset_s as u64),
            (12, self.steps),
            (13, self.interval_ns[0] as u64),
            (14, self.interval_ns[1] as u64),
            (15, self.packed()),
            (1, VERSION),
            (0, MAGIC),
        ] {
            page[n].store(word, Ordering::Relaxed);
        }
        page[2].store(sequence.wrapping_add(1), Ordering::Release);
    }
}

const fn unpack(half: u32) -> Option<u32> {
    if half == 0 { None } else { Some(half) }
}
