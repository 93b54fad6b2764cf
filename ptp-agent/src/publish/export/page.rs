//! The software clock in shared memory; `ptp-clock-reader` describes the page and reads it.

use std::{path::Path, sync::atomic::AtomicU64};

use ptp_clock_reader::{BYTES, Course, MAGIC, NO_BOUND, NO_INTERVAL, NO_UTC_OFFSET, WORDS};
use ptp_common::time::Duration;

use super::{SegmentError, View, segment::Segment};
use crate::{
    clock::Clock,
    servo::{Interval, ServoState},
};

/// How long the page may be believed after its last change. The agent writes once a second.
const VALID: Duration = Duration::from_secs(10);
/// The page.
#[derive(Debug)]
pub struct Page(Segment);

impl Page {
    /// Makes the page in `path`, or takes over the one that is there.
    ///
    /// # Errors
    /// [`SegmentError`].
    pub fn open(path: &Path) -> Result<Self, SegmentError> {
        let what = "page of a PTP clock";
        Ok(Self(Segment::open(path, BYTES, MAGIC.to_ne_bytes(), what)?))
    }

    fn words(&self) -> &[AtomicU64; WORDS] {
        let words = self.0.memory.words64();
        words.first_chunk().expect("mapped with the length of the page")
    }

    /// Says what the clock is now.
    pub fn update(&mut self, view: &View<'_>) {
        let Some(software) = view.software else {
            return;
        };
        let reading = software.at(view.now);
        let scaled = reading.since_epoch().as_scaled_nanos();
        let bound = view.trust.map(|trust| ceiling(trust.bound.abs()));
        Course {
            mono_ns: view.now.as_nanos(),
            ptp_ns: reading.as_nanos(),
            // Of 2^-16 ns.
            fraction: (scaled.rem_euclid(1 << 16) as u64) << 48,
            rate: software.rate(),
            bound_ns: bound.map_or(NO_BOUND, |bound| bound as u64),
            growth_ppb: view.growth_ppb().ceil() as u64,
            void_ns: (view.now + VALID).as_nanos(),
            state: match view.state {
                ServoState::Unlocked | ServoState::Jump => 0,
                ServoState::Locked => 1,
                ServoState::Holdover => 2,
            },
            utc_offset_s: view.utc_offset_s.map_or(NO_UTC_OFFSET, i64::from),
            steps: view.steps,
            interval_ns: view.trust.map_or(NO_INTERVAL, |trust| rounded(trust.interval)),
            precision_ns: view.trust.and_then(|trust| u32::try_from(ceiling(trust.precision)).ok()),
            accuracy_ns: view.inaccuracy.and_then(|more| u32::try_from(ceiling(more)).ok()),
        }
        .write(self.words());
    }
}

/// Whole nanoseconds, no fewer.
fn ceiling(span: Duration) -> i64 {
    span.as_nanos().saturating_add(1)
}

/// Whole nanoseconds, no narrower, and never the empty interval, which stands for none.
fn rounded(interval: Interval) -> [i64; 2] {
    [interval.lo.as_nanos().saturating_sub(1), ceiling(interval.hi)]
}

impl Drop for Page {
    /// The file stays, for those who have it mapped; nothing in it is to be believed any more.
    fn drop(&mut self) {
        if let Ok(course) = Course::read(self.words()) {
            let nothing = Course { bound_ns: NO_BOUND, interval_ns: NO_INTERVAL, ..course };
            Course { state: 0, void_ns: 0, precision_ns: None, ..nothing }.write(self.words());
        }
    }
}
