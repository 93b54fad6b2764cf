//! The error bound of CLOCK_REALTIME in the shared-memory segment of AWS ClockBound, version 2 (80
//! bytes), which the programs and libraries for it read.
//!
//! | offset | bytes | meaning |
//! |---|---|---|
//! | 0 | 8 | magic: 0x414D5A4E, 0x43420200 |
//! | 8 | 4 | size |
//! | 12 | 2 | version: 2 |
//! | 14 | 2 | generation: odd while it is written, never 0 |
//! | 16 | 16 | CLOCK_MONOTONIC_COARSE of the bound, s and ns |
//! | 32 | 16 | CLOCK_MONOTONIC after which it is void |
//! | 48 | 8 | bound, ns |
//! | 56 | 8 | disruption marker |
//! | 64 | 4 | largest drift, ppb |
//! | 68 | 4 | status: 0 unknown, 1 synchronised, 2 free running |
//! | 72 | 1 | whether disruptions are detected; then padding |

use std::{
    path::Path,
    sync::atomic::{AtomicU32, Ordering, fence},
};

use ptp_common::time::{Duration, Mono, Time};

use super::{SegmentError, View, segment::Segment};
use crate::{servo::ServoState, sys::clock::monotonic_coarse};

const BYTES: usize = 80;
const MAGIC: [u32; 2] = [0x414D_5A4E, 0x4342_0200];
const VERSION: u16 = 2;
/// The word that holds version and generation.
const GENERATION: usize = 3;
/// As ClockBound's own daemon has it: after so long nothing is known.
const VOID_AFTER: Duration = Duration::from_secs(1_000);
/// A clock that nobody follows drifts by less than this, ppb: ClockBound's default.
const MAX_DRIFT_PPB: u32 = 50_000;

/// The segment.
#[derive(Debug)]
pub struct ClockBound {
    segment: Segment,
    generation: u16,
    is_known: bool,
}

impl ClockBound {
    /// Makes the segment in `path`, or takes over the one that is there. It can be read from the
    /// first bound on.
    ///
    /// # Errors
    /// [`SegmentError`].
    pub fn open(path: &Path) -> Result<Self, SegmentError> {
        let mut magic = [0; 8];
        magic[..4].copy_from_slice(&MAGIC[0].to_ne_bytes());
        magic[4..].copy_from_slice(&MAGIC[1].to_ne_bytes());
        let segment = Segment::open(path, BYTES, magic, "segment of ClockBound")?;
        let generation = split(segment.memory.words32()[GENERATION].load(Ordering::Relaxed)).1;
        let mut this = Self { segment, generation, is_known: generation != 0 };
        if this.is_known {
            // What the last writer said need not be true any more.
            this.write(Time::ZERO, Duration::ZERO, 0, MAX_DRIFT_PPB);
        }
        Ok(this)
    }

    fn words(&self) -> &[AtomicU32] {
        self.segment.memory.words32()
    }

    /// Says how good CLOCK_REALTIME is now.
    pub fn update(&mut self, view: &View<'_>) {
        // True time is UTC to its readers, and both states promise that the bound holds against it.
        let bound = match (view.real_error, view.real_error_bound, view.inaccuracy) {
            (Some(error), Some(bound), Some(inaccuracy)) => Some(error.abs() + bound + inaccuracy),
            _ => None,
        };
        let status = match (view.state, bound) {
            (ServoState::Locked, Some(_)) => 1,
            (ServoState::Holdover, Some(_)) => 2,
            _ => 0,
        };
        // Before anything is known nobody needs to read it.
        if status == 0 && !self.is_known {
            return;
        }
        self.is_known = true;
        // Its clients read the coarse clock, and to them a bound of the future is a fault.
        let drift_ppb = MAX_DRIFT_PPB.max(view.growth_ppb().ceil() as u32);
        let now = monotonic_coarse().min(view.now);
        self.write(now, bound.unwrap_or(Duration::ZERO), status, drift_ppb);
    }

    fn write(&mut self, now: Time<Mono>, bound: Duration, status: u32, drift_ppb: u32) {
        let writing = self.generation | 1;
        let word = |n: usize, value: u32| self.words()[n].store(value, Ordering::Relaxed);
        word(GENERATION, join(VERSION, writing));
        // No word is changed before the generation is odd.
        fence(Ordering::Release);
        word(0, MAGIC[0]);
        word(1, MAGIC[1]);
        word(2, BYTES as u32);
        let long = |n: usize, value: i64| {
            let bytes = value.to_ne_bytes();
            let half = |from: usize| {
                u32::from_ne_bytes([bytes[from], bytes[from + 1], bytes[from + 2], bytes[from + 3]])
            };
            word(n, half(0));
            word(n + 1, half(4));
        };
        for (n, time) in [(4, now), (8, now + VOID_AFTER)] {
            long(n, time.as_nanos().div_euclid(1_000_000_000));
            long(n + 2, time.as_nanos().rem_euclid(1_000_000_000));
        }
        // Rounded up: a bound is never too small.
        long(12, bound.as_nanos().saturating_add(1));
        long(14, 0);
        word(16, drift_ppb);
        word(17, status);
        word(18, 0);
        word(19, 0);
        // Zero would say that there is nothing yet.
        let written = match writing.wrapping_add(1) {
            0 => 2,
            next => next,
        };
        self.words()[GENERATION].store(join(VERSION, written), Ordering::Release);
        self.generation = written;
    }
}

impl Drop for ClockBound {
    /// The file stays, for those who have it mapped; nothing in it is to be believed any more.
    fn drop(&mut self) {
        if self.is_known {
            self.write(Time::ZERO, Duration::ZERO, 0, MAX_DRIFT_PPB);
        }
    }
}

/// Version and generation in one word, in the order of the machine's bytes.
fn join(version: u16, generation: u16) -> u32 {
    let (version, generation) = (version.to_ne_bytes(), generation.to_ne_bytes());
    u32::from_ne_bytes([version[0], version[1], generation[0], generation[1]])
}

fn split(word: u32) -> (u16, u16) {
    let bytes = word.to_ne_bytes();
    (u16::from_ne_bytes([bytes[0], bytes[1]]), u16::from_ne_bytes([bytes[2], bytes[3]]))
}
