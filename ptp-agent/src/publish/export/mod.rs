//! What other programs on this host are given: the software clock in shared memory, an error bound for
//! CLOCK_REALTIME as AWS ClockBound has it, and samples for chronyd and ntpd. None of it is ever given
//! together with steering the same clock, except the error bound.

mod clockbound;
mod gate;
mod page;
mod refclock;
mod segment;

use std::path::PathBuf;

use ptp_common::time::{Duration, Mono, Ptp, Time};

pub use clockbound::ClockBound;
pub use gate::Withheld;
pub use page::Page;
pub use refclock::{ChronySocket, NtpSegment};
pub use segment::SegmentError;

use super::attempt::{RETRY, Service};
use crate::{
    clock::{policy::Limits, virtual_clock::VirtualClock},
    engine::origin::BoundReference,
    servo::{ServoState, Trust},
};
use gate::Gate;

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
    /// How far the clock that follows can be trusted, against [`Self::reference`].
    pub trust: Option<Trust>,
    /// By how much that grows with age, parts per billion.
    pub rate_error_ppb: f64,
    /// Grandmaster or parent.
    pub reference: BoundReference,
    /// How far that is from UTC at the most; `None` where nobody knows.
    pub inaccuracy: Option<Duration>,
    /// TAI minus UTC of the domain, where its time is TAI and that is known.
    pub utc_offset_s: Option<i32>,
    /// Its time is TAI, and that is not known.
    pub is_utc_unknown: bool,
    /// CLOCK_REALTIME at the instant.
    pub real: Time<Ptp>,
    /// CLOCK_REALTIME minus true time, UTC, as the agent knows it.
    pub real_error: Option<Duration>,
    /// How much that may be wrong by, as far as the reference is right.
    pub real_error_bound: Option<Duration>,
    /// A leap second at the end of this day: inserted (1), left out (-1) or none (0).
    pub leap: i8,
    /// Steps of the clock so far.
    pub steps: u64,
}

/// By how much a bound grows until the next change at the least, parts per billion: more than a clock that was
/// just followed drifts away.
const LEAST_GROWTH_PPB: f64 = 1_000.0;

impl View<'_> {
    /// By how much the bound grows until the next change, parts per billion.
    fn growth_ppb(&self) -> f64 {
        let growth_ppb = self.trust.map_or(0.0, |trust| trust.growth.as_nanos_f64());
        growth_ppb.max(self.rate_error_ppb).max(LEAST_GROWTH_PPB)
    }
}

/// All exports of a command.
#[derive(Debug)]
pub struct Exports {
    wanted: Exporting,
    gate: Gate,
    page: Service<Page>,
    clock_bound: Service<ClockBound>,
    chrony: Service<ChronySocket>,
    ntp: Service<NtpSegment>,
    retry_at: Time<Mono>,
    /// The error that was told last.
    sent: Option<Duration>,
}

/// Seconds of a day in which UTC is not ambiguous, as in [`crate::clock::leap`].
const AWAY_FROM_LEAP: std::ops::Range<i64> = 25..86_394;

impl Exports {
    /// Makes what others are to read, within `limits`. Those who read may come later. What cannot be made
    /// is one line in the log, and is tried again now and then.
    pub fn start(wanted: Exporting, limits: Limits, now: Time<Mono>) -> Self {
        let mut this = Self {
            wanted,
            gate: Gate::new(limits),
            page: Service::default(),
            clock_bound: Service::default(),
            chrony: Service::default(),
            ntp: Service::default(),
            retry_at: now,
            sent: None,
        };
        this.look_after(now);
        this
    }

    /// Exports something else from now on, within other limits; what stays the same is not interrupted.
    pub fn change(&mut self, wanted: Exporting, limits: Limits, now: Time<Mono>) {
        self.gate.set_limits(limits);
        // Each old one goes first: the new one may have the same file.
        let old = std::mem::replace(&mut self.wanted, wanted);
        if old.page != self.wanted.page {
            self.page = Service::default();
        }
        if old.clock_bound != self.wanted.clock_bound {
            self.clock_bound = Service::default();
        }
        if old.chrony_sock != self.wanted.chrony_sock {
            self.chrony = Service::default();
        }
        if old.ntp_shm != self.wanted.ntp_shm {
            self.ntp = Service::default();
        }
        self.retry_at = now;
        self.look_after(now);
    }

    /// Tries again what could not be made, when it is time.
    fn look_after(&mut self, now: Time<Mono>) {
        if now < self.retry_at {
            return;
        }
        self.retry_at = now + RETRY;
        let Exporting { page, clock_bound, chrony_sock, ntp_shm } = &self.wanted;
        if let Some(path) = page {
            self.page.attempt(|| Page::open(path));
        }
        if let Some(path) = clock_bound {
            self.clock_bound.attempt(|| ClockBound::open(path));
        }
        if let Some(path) = chrony_sock {
            self.chrony.attempt(|| ChronySocket::new(path.clone()));
        }
        if let Some(unit) = ntp_shm {
            self.ntp.attempt(|| NtpSegment::open(*unit));
        }
    }

    /// Whether something is not exported that was asked for.
    pub const fn is_lacking(&self) -> bool {
        self.page.is_lacking()
            || self.clock_bound.is_lacking()
            || self.chrony.is_lacking()
            || self.ntp.is_lacking()
    }

    /// What is asked for and not given at present, and why.
    pub const fn withheld(&self) -> Option<&Withheld> {
        self.gate.withheld()
    }

    /// The software clock was adjusted, or the bound is another.
    pub fn adjusted(&mut self, view: &View<'_>) {
        if let Some(page) = &mut self.page.running {
            page.update(view);
        }
    }

    /// Once a second.
    pub fn tick(&mut self, view: &View<'_>) {
        self.look_after(view.now);
        self.adjusted(view);
        let (samples, bound) = self.gate.pass(&self.wanted, view);
        if let Some(clock_bound) = &mut self.clock_bound.running {
            clock_bound.update(&bound);
        }
        if view.state != ServoState::Locked {
            return;
        }
        let Some(error) = samples.real_error else {
            return;
        };
        // The same to the last bit is the same measurement, which must not count twice; and at
        // midnight nobody knows whether the announced UTC offset is already that of the host.
        let is_repeated = self.sent.replace(error) == Some(error);
        let of_day = view.real.as_nanos().div_euclid(1_000_000_000).rem_euclid(86_400);
        if is_repeated || !AWAY_FROM_LEAP.contains(&of_day) {
            return;
        }
        if let Some(chrony) = &mut self.chrony.running {
            chrony.send(view.real, error, view.leap);
        }
        // A daemon that starts again may have removed its segment, and then reads another one.
        if self.ntp.running.as_ref().is_some_and(|ntp| !ntp.is_current()) {
            self.ntp = Service::default();
            self.retry_at = view.now;
            self.look_after(view.now);
        }
        if let Some(ntp) = &self.ntp.running {
            let precision = view.trust.map(|trust| trust.precision);
            ntp.write(view.real, error, precision, view.leap);
        }
    }
}

#[cfg(test)]
mod tests;
