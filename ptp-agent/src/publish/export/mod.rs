//! What other programs on this host are given: the software clock in shared memory, an error bound for
//! CLOCK_REALTIME as AWS ClockBound has it, and samples for chronyd and ntpd. None of it is ever given
//! together with steering the same clock, except the error bound.

mod clockbound;
mod page;
mod refclock;
mod segment;

use std::path::PathBuf;

use ptp_common::time::{Duration, Mono, Ptp, Time};

pub use clockbound::ClockBound;
pub use page::Page;
pub use refclock::{ChronySocket, NtpSegment};
pub use segment::SegmentError;

use crate::{clock::virtual_clock::VirtualClock, servo::ServoState};

/// What is exported, and where to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Exporting {
    /// The software clock.
    pub page: Option<PathBuf>,
    /// The error bound.
    pub clock_bound: Option<PathBuf>,
    /// Socket of a `refclock SOCK` of chronyd.
    pub chrony_sock: Option<PathBuf>,
    /// Unit of a shared-memory reference clock of ntpd, chronyd or gpsd.
    pub ntp_shm: Option<u8>,
}

/// What is known of the clocks at one instant.
#[derive(Clone, Copy, Debug)]
pub struct View<'a> {
    /// The instant.
    pub now: Time<Mono>,
    /// State of the servo.
    pub state: ServoState,
    /// The software clock, where there is one.
    pub software: Option<&'a VirtualClock>,
    /// Bound on the error of the clock that follows.
    pub error_bound: Option<Duration>,
    /// TAI minus UTC of the domain, where its time is TAI and that is known.
    pub utc_offset_s: Option<i32>,
    /// CLOCK_REALTIME at the instant.
    pub real: Time<Ptp>,
    /// CLOCK_REALTIME minus true time, UTC, as the agent knows it.
    pub real_error: Option<Duration>,
    /// How much that may be wrong by.
    pub real_error_bound: Option<Duration>,
    /// A leap second at the end of this day: inserted (1), left out (-1) or none (0).
    pub leap: i8,
    /// Steps of the clock so far.
    pub steps: u64,
}

/// All exports of a command.
#[derive(Debug, Default)]
pub struct Exports {
    page: Option<Page>,
    clock_bound: Option<ClockBound>,
    chrony: Option<ChronySocket>,
    ntp: Option<NtpSegment>,
    /// The error that was told last.
    sent: Option<Duration>,
    exporting: Exporting,
}

/// Seconds of a day in which UTC is not ambiguous, as in [`crate::clock::leap`].
const AWAY_FROM_LEAP: std::ops::Range<i64> = 25..86_394;

impl Exports {
    /// Makes what others are to read. Those who read may come later.
    ///
    /// # Errors
    /// [`SegmentError`].
    pub fn open(exporting: &Exporting) -> Result<Self, SegmentError> {
        Ok(Self {
            page: exporting.page.as_deref().map(Page::open).transpose()?,
            clock_bound: exporting.clock_bound.as_deref().map(ClockBound::open).transpose()?,
            chrony: exporting.chrony_sock.clone().map(ChronySocket::new).transpose()?,
            ntp: exporting.ntp_shm.map(NtpSegment::open).transpose()?,
            sent: None,
            exporting: exporting.clone(),
        })
    }

    /// Exports something else from now on; what stays the same is not interrupted. What cannot be
    /// made is left out.
    pub fn change(&mut self, exporting: &Exporting) -> Vec<SegmentError> {
        fn renew<T>(
            place: &mut Option<T>,
            is_changed: bool,
            open: impl FnOnce() -> Option<Result<T, SegmentError>>,
        ) -> Option<SegmentError> {
            if !is_changed {
                return None;
            }
            // The old one may have the same file.
            *place = None;
            match open() {
                Some(Ok(new)) => *place = Some(new),
                Some(Err(error)) => return Some(error),
                None => {}
            }
            None
        }
        let old = std::mem::replace(&mut self.exporting, exporting.clone());
        let Exporting { page, clock_bound, chrony_sock, ntp_shm } = exporting;
        [
            renew(&mut self.page, old.page != *page, || page.as_deref().map(Page::open)),
            renew(&mut self.clock_bound, old.clock_bound != *clock_bound, || {
                clock_bound.as_deref().map(ClockBound::open)
            }),
            renew(&mut self.chrony, old.chrony_sock != *chrony_sock, || {
                chrony_sock.clone().map(ChronySocket::new)
            }),
            renew(&mut self.ntp, old.ntp_shm != *ntp_shm, || ntp_shm.map(NtpSegment::open)),
        ]
        .into_iter()
        .flatten()
        .collect()
    }

    /// The software clock was adjusted, or the bound is another.
    pub fn adjusted(&mut self, view: &View<'_>) {
        if let Some(page) = &mut self.page {
            page.update(view);
        }
    }

    /// Once a second.
    pub fn tick(&mut self, view: &View<'_>) {
        self.adjusted(view);
        if let Some(clock_bound) = &mut self.clock_bound {
            clock_bound.update(view);
        }
        if view.state != ServoState::Locked {
            return;
        }
        let Some(error) = view.real_error else {
            return;
        };
        // The same to the last bit is the same measurement, which must not count twice; and at
        // midnight nobody knows whether the announced UTC offset is already that of the host.
        let is_repeated = self.sent.replace(error) == Some(error);
        let of_day = view.real.as_nanos().div_euclid(1_000_000_000).rem_euclid(86_400);
        if is_repeated || !AWAY_FROM_LEAP.contains(&of_day) {
            return;
        }
        if let Some(chrony) = &mut self.chrony {
            chrony.send(view.real, error, view.leap);
        }
        if let Some(ntp) = &mut self.ntp {
            ntp.write(view.real, error, view.leap);
        }
    }
}

#[cfg(test)]
mod tests;
