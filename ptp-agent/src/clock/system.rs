//! The host's clock, CLOCK_REALTIME, steered by `adjtimex`.
//!
//! All stamps are of CLOCK_MONOTONIC, which the kernel slews together with CLOCK_REALTIME: whoever
//! steers the one stretches the scale that he measures on. But he knows by how much. Every change of
//! frequency takes effect within the call that makes it, between two reads of the clock, so the
//! agent's own adjustments are taken out of a stamp exactly ([`Clock::free_running`]): the servo sees
//! the scale of an oscillator that nobody touches, as with a software clock. The time of the clock at
//! a stamp ([`Clock::at`]) needs no model at all: CLOCK_REALTIME is CLOCK_MONOTONIC plus a constant
//! that only a step changes.

use std::{collections::VecDeque, io};

use ptp_common::{
    data_set::TimeProperties,
    time::{Duration, Free, Mono, Ptp, Time},
};

use super::{
    Clock, ClockError, ClockScale, Consent,
    frequency::{KernelFrequency, LIMIT_PPB},
    leap::LeapSecond,
    policy::{Limits, Policy},
    virtual_clock::VirtualClock,
};
use crate::{
    servo::ServoState,
    sys::{
        adjust::{AdjustableClock, ClockState, Vouching, nominal_tick},
        clock::{monotonic, realtime_minus_monotonic},
    },
};

const NAME: &str = "system";
/// The kernel counts a clock with this error, microseconds, as not synchronised (`NTP_PHASE_LIMIT`).
const MAX_ERROR_US: i64 = 16_000_000;
/// A step makes the kernel forget when a leap second is due (`ntp_clear`), though not that there is one.
/// It is told anew only when a second has begun without the order: this many looks, one per second.
const DISARMED: u8 = 2;
/// A leap second is one to within this, by which nobody steps a clock.
const NO_STEP: Duration = Duration::from_micros(1);
/// Steps that [`Clock::at`] can look back over.
const STEPS: usize = 16;
/// The kernel's own loops (`STA_PLL`, `STA_PPSFREQ`, `STA_PPSTIME`, `STA_FLL`, `STA_FREQHOLD`).
const OTHER_LOOPS: i32 =
    libc::STA_PLL | libc::STA_PPSFREQ | libc::STA_PPSTIME | libc::STA_FLL | libc::STA_FREQHOLD;

/// What the clock is steered through: the kernel, or in tests a model of it.
pub trait Kernel: Send {
    /// CLOCK_MONOTONIC.
    fn monotonic(&self) -> Time<Mono>;
    /// CLOCK_REALTIME minus CLOCK_MONOTONIC.
    fn real_minus_monotonic(&self) -> Duration;
    /// Microseconds of a tick at the nominal rate.
    fn nominal_tick(&self) -> i64;
    /// What is in effect.
    ///
    /// # Errors
    /// What the kernel reports, here and below.
    fn state(&self) -> io::Result<ClockState>;
    /// Ends all other loops and counts in nanoseconds.
    ///
    /// # Errors
    /// As above.
    fn take_over(&mut self) -> io::Result<ClockState>;
    /// Sets the frequency.
    ///
    /// # Errors
    /// As above.
    fn set_frequency(&mut self, frequency: KernelFrequency) -> io::Result<ClockState>;
    /// Adds to the time.
    ///
    /// # Errors
    /// As above.
    fn step(&mut self, by: Duration) -> io::Result<()>;
    /// Says how good the time is.
    ///
    /// # Errors
    /// As above.
    fn vouch(&mut self, vouching: Vouching) -> io::Result<ClockState>;
}

/// The host's.
#[derive(Clone, Copy, Debug, Default)]
pub struct HostKernel;

impl Kernel for HostKernel {
    fn monotonic(&self) -> Time<Mono> {
        monotonic()
    }
    fn real_minus_monotonic(&self) -> Duration {
        realtime_minus_monotonic()
    }
    fn nominal_tick(&self) -> i64 {
        nominal_tick()
    }
    fn state(&self) -> io::Result<ClockState> {
        AdjustableClock::SYSTEM.state()
    }
    fn take_over(&mut self) -> io::Result<ClockState> {
        AdjustableClock::SYSTEM.take_over()
    }
    fn set_frequency(&mut self, frequency: KernelFrequency) -> io::Result<ClockState> {
        AdjustableClock::SYSTEM.set_frequency(frequency.fine, Some(frequency.tick))
    }
    fn step(&mut self, by: Duration) -> io::Result<()> {
        AdjustableClock::SYSTEM.step(by)
    }
    fn vouch(&mut self, vouching: Vouching) -> io::Result<ClockState> {
        AdjustableClock::SYSTEM.vouch(vouching)
    }
}

/// What [`SystemClock::keep`] is told once a second.
#[derive(Clone, Copy, Debug)]
pub struct Keeping<'a> {
    /// The present.
    pub now: Time<Mono>,
    /// State of the servo.
    pub state: ServoState,
    /// To within what the clock repeats: `esterror`.
    pub precision: Option<Duration>,
    /// Bound on the clock's error, that of the grandmaster included as far as it is known: `maxerror`.
    pub error_bound: Option<Duration>,
    /// What the grandmaster says of its time; `None` without one.
    pub time_properties: Option<&'a TimeProperties>,
}

/// See the module's documentation.
pub struct SystemClock {
    kernel: Box<dyn Kernel>,
    policy: Policy,
    leap: LeapSecond,
    nominal_tick: i64,
    max_frequency_ppb: f64,
    /// As the kernel said it back.
    set: KernelFrequency,
    /// From the monotonic to the free-running scale.
    free: VirtualClock,
    /// CLOCK_REALTIME minus CLOCK_MONOTONIC since when; never empty, ascending.
    offsets: VecDeque<(Time<Mono>, Duration)>,
    foreign_steps: VecDeque<Duration>,
    is_refused: bool,
    /// Looks until the kernel may be told of a leap second again.
    disarmed: u8,
    /// As [`Clock::leaps`].
    leaps: i64,
}

impl SystemClock {
    /// Takes the clock over, with `frequency_ppb` (parts per billion) if given, otherwise with the
    /// frequency that it has. Nobody vouches for its time from now on.
    ///
    /// # Errors
    /// [`ClockError::Os`], most of all for the want of CAP_SYS_TIME.
    pub fn take_over(
        mut kernel: Box<dyn Kernel>,
        limits: Limits,
        frequency_ppb: Option<f64>,
    ) -> Result<Self, ClockError> {
        let state = kernel.take_over().map_err(|source| failed("take over", source))?;
        let nominal_tick = kernel.nominal_tick();
        let now = kernel.monotonic();
        let mut clock = Self {
            policy: Policy::new(limits),
            leap: LeapSecond::default(),
            nominal_tick,
            max_frequency_ppb: limits.max_frequency_ppb.abs().min(LIMIT_PPB),
            set: KernelFrequency { tick: state.tick, fine: state.frequency },
            free: VirtualClock::new(now, now.at_offset(Duration::ZERO), 2.0 * LIMIT_PPB),
            offsets: VecDeque::from([(now, kernel.real_minus_monotonic())]),
            foreign_steps: VecDeque::new(),
            is_refused: false,
            disarmed: 0,
            leaps: 0,
            kernel,
        };
        clock.stretch(now)?;
        let wanted = frequency_ppb.unwrap_or_else(|| clock.frequency_ppb());
        clock.set_frequency(now, wanted)?;
        Ok(clock)
    }

    /// Permits other steps and times from now on; the largest frequency stays what it is.
    pub fn set_limits(&mut self, limits: Limits) {
        self.policy.set_limits(limits);
    }

    /// A fresh reading of CLOCK_REALTIME minus CLOCK_MONOTONIC: a change that is not the agent's own
    /// is a leap second, or somebody has stepped the clock.
    pub fn read(&mut self, now: Time<Mono>, real_minus_mono: Duration) {
        let (_, known) = self.offsets[self.offsets.len() - 1];
        if real_minus_mono == known {
            return;
        }
        let by = real_minus_mono - known;
        let order = i64::from(self.leap.order());
        if order != 0 && (by + Duration::from_secs(order)).abs() < NO_STEP {
            self.leaps += order;
        } else {
            if self.foreign_steps.len() >= STEPS {
                self.foreign_steps.pop_front();
            }
            self.foreign_steps.push_back(by);
        }
        self.remember(now, real_minus_mono);
    }

    /// The next step that was neither the agent's own nor a leap second.
    pub fn next_foreign_step(&mut self) -> Option<Duration> {
        self.foreign_steps.pop_front()
    }

    /// Once a second: looks whether another program steers, orders leap seconds, and tells the kernel
    /// how good its time is.
    ///
    /// # Errors
    /// [`ClockError::Interference`] when another program steers; what the kernel reports.
    pub fn keep(&mut self, keeping: Keeping<'_>) -> Result<(), ClockError> {
        let state = self.kernel.state().map_err(|source| failed("read the state of", source))?;
        let found = KernelFrequency { tick: state.tick, fine: state.frequency };
        if found != self.set {
            return Err(ClockError::Interference {
                clock: NAME.into(),
                what: format!(
                    "its frequency was set to {:+.3} ppb, after this agent had set {:+.3} ppb",
                    found.ppb(self.nominal_tick),
                    self.frequency_ppb()
                ),
            });
        }
        if state.status & OTHER_LOOPS != 0 {
            return Err(ClockError::Interference {
                clock: NAME.into(),
                what: format!("a loop of the kernel was turned on (status {:#x})", state.status),
            });
        }
        let utc = self.at(keeping.now);
        self.leap.update(keeping.now, utc, keeping.time_properties);
        let micros = |error: Option<Duration>| {
            let nanos = error.map_or(i64::MAX, |error| error.abs().as_nanos());
            nanos.saturating_add(999).div_euclid(1_000).clamp(0, MAX_ERROR_US)
        };
        let synchronised = keeping.state == ServoState::Locked
            && keeping.error_bound.is_some()
            && !self.is_refused;
        let known = |error: Option<Duration>| if self.is_refused { None } else { error };
        // Announce alone is no reason to believe: a grandmaster that is refused, or has sent no time
        // yet, orders no leap seconds.
        let is_believed =
            !self.is_refused && matches!(keeping.state, ServoState::Locked | ServoState::Holdover);
        let tai_offset = keeping
            .time_properties
            .filter(|properties| {
                is_believed
                    && properties.ptp_timescale
                    && properties.current_utc_offset_valid
                    && properties.time_traceable
                    && !self.leap.is_ambiguous()
            })
            .map(|properties| i32::from(properties.current_utc_offset))
            .filter(|seconds| *seconds != state.tai_offset_seconds && *seconds >= 0);
        let vouching = Vouching {
            synchronised,
            leap: if self.disarmed > 0 || !is_believed { 0 } else { self.leap.order() },
            max_error_us: micros(known(keeping.error_bound)),
            est_error_us: micros(known(keeping.precision)),
            tai_offset_seconds: tai_offset,
        };
        self.kernel.vouch(vouching).map_err(|source| failed("vouch for", source))?;
        self.disarmed = self.disarmed.saturating_sub(1);
        Ok(())
    }

    /// Leaves the clock to itself: nobody vouches for it any more.
    ///
    /// # Errors
    /// What the kernel reports.
    pub fn release(&mut self) -> Result<(), ClockError> {
        let state = self.kernel.state().map_err(|source| failed("read the state of", source))?;
        let vouching = Vouching {
            synchronised: false,
            leap: 0,
            max_error_us: state.max_error_us,
            est_error_us: state.est_error_us,
            tai_offset_seconds: None,
        };
        self.kernel.vouch(vouching).map_err(|source| failed("release", source))?;
        Ok(())
    }

    /// Takes the adjustment in effect out of the scale, from `at` on.
    fn stretch(&mut self, at: Time<Mono>) -> Result<(), ClockError> {
        let ratio = self.frequency_ppb() * 1e-9;
        self.free.set_frequency(at, -1e9 * ratio / (1.0 + ratio)).map(drop)
    }

    fn remember(&mut self, at: Time<Mono>, real_minus_mono: Duration) {
        if self.offsets.len() >= STEPS {
            self.offsets.pop_front();
        }
        self.offsets.push_back((at, real_minus_mono));
    }
}

fn failed(action: &'static str, source: io::Error) -> ClockError {
    match source.kind() {
        io::ErrorKind::PermissionDenied => ClockError::NotPermitted { action, clock: NAME.into() },
        _ => ClockError::Os { action, clock: NAME.into(), source: source.into() },
    }
}

impl Clock for SystemClock {
    fn name(&self) -> &str {
        NAME
    }

    fn scale(&self) -> ClockScale {
        ClockScale::Utc
    }

    fn at(&self, mono: Time<Mono>) -> Time<Ptp> {
        let since = self.offsets.iter().rev().find(|(since, _)| *since <= mono);
        let (_, offset) = since.unwrap_or(&self.offsets[0]);
        mono.at_offset(*offset)
    }

    fn free_running(&self, mono: Time<Mono>) -> Time<Free> {
        self.free.at(mono).at_offset(Duration::ZERO)
    }

    fn leaps(&self) -> i64 {
        self.leaps
    }

    fn consent(&mut self, at: Time<Mono>, offset: Duration) -> Result<Consent, ClockError> {
        if self.leap.is_ambiguous() {
            return Ok(Consent::Later);
        }
        let permitted = self.policy.permit(self.at(at), offset);
        self.is_refused = permitted.is_err();
        match permitted {
            Ok(()) => Ok(Consent::Given),
            Err(refusal) => Err(ClockError::Refused {
                action: "follow the grandmaster with",
                clock: NAME.into(),
                reason: refusal.to_string(),
            }),
        }
    }

    fn is_refused(&self) -> bool {
        self.is_refused
    }

    fn frequency_ppb(&self) -> f64 {
        self.set.ppb(self.nominal_tick)
    }

    fn max_frequency_ppb(&self) -> f64 {
        self.max_frequency_ppb
    }

    fn set_frequency(&mut self, _now: Time<Mono>, ppb: f64) -> Result<f64, ClockError> {
        let ppb = if ppb.is_finite() { ppb } else { self.frequency_ppb() };
        let ppb = ppb.clamp(-self.max_frequency_ppb, self.max_frequency_ppb);
        let wanted = KernelFrequency::nearest(ppb, self.nominal_tick);
        if wanted != self.set {
            let before = self.kernel.monotonic();
            let state = self
                .kernel
                .set_frequency(wanted)
                .map_err(|source| failed("set the frequency of", source))?;
            let after = self.kernel.monotonic();
            self.set = KernelFrequency { tick: state.tick, fine: state.frequency };
            self.stretch(before + (after - before).half())?;
        }
        Ok(self.frequency_ppb())
    }

    fn step(&mut self, now: Time<Mono>, by: Duration) -> Result<(), ClockError> {
        let reading = self.at(now);
        self.policy.step(reading, by).map_err(|refusal| ClockError::Refused {
            action: "step",
            clock: NAME.into(),
            reason: refusal.to_string(),
        })?;
        self.kernel.step(by).map_err(|source| failed("step", source))?;
        self.disarmed = DISARMED;
        let at = self.kernel.monotonic();
        self.remember(at, self.kernel.real_minus_monotonic());
        Ok(())
    }

    fn followed(&mut self) {
        self.policy.followed();
    }
}

#[cfg(test)]
mod tests;
