//! A software clock under the same policy as a clock of the host: others are given what it shows, so a
//! time that no clock of the host would be set to is none for it either.

use crate::prelude::*;
use core::ops::{Deref, DerefMut};

use ptp_common::time::{Duration, Mono, Ptp, Time};

use super::{
    Clock, ClockError, Consent,
    policy::{Limits, Policy},
    virtual_clock::VirtualClock,
};

/// See the module's paragraph. Without limits it follows anything, as in a simulation.
#[derive(Clone, Debug)]
pub struct PolicedClock {
    clock: VirtualClock,
    policy: Option<Policy>,
    is_refused: bool,
}

impl PolicedClock {
    /// A clock that may do anything.
    pub const fn new(clock: VirtualClock) -> Self {
        Self { clock, policy: None, is_refused: false }
    }

    /// What it may do from now on. What has been done so far counts all the same.
    pub const fn set_limits(&mut self, limits: Limits) {
        match &mut self.policy {
            Some(policy) => policy.set_limits(limits),
            None => self.policy = Some(Policy::new(limits)),
        }
    }
}

impl Deref for PolicedClock {
    type Target = VirtualClock;
    fn deref(&self) -> &VirtualClock {
        &self.clock
    }
}

impl DerefMut for PolicedClock {
    fn deref_mut(&mut self) -> &mut VirtualClock {
        &mut self.clock
    }
}

impl Clock for PolicedClock {
    fn name(&self) -> &str {
        self.clock.name()
    }
    fn at(&self, mono: Time<Mono>) -> Time<Ptp> {
        self.clock.at(mono)
    }
    fn consent(&mut self, at: Time<Mono>, offset: Duration) -> Result<Consent, ClockError> {
        let Some(policy) = &self.policy else { return Ok(Consent::Given) };
        let permitted = policy.permit(self.clock.at(at), offset);
        self.is_refused = permitted.is_err();
        permitted.map(|()| Consent::Given).map_err(|refusal| ClockError::Refused {
            action: "follow the grandmaster with",
            clock: self.name().to_owned(),
            reason: refusal.to_string(),
        })
    }
    fn is_refused(&self) -> bool {
        self.is_refused
    }
    fn followed(&mut self) {
        if let Some(policy) = &mut self.policy {
            policy.followed();
        }
    }
    fn frequency_ppb(&self) -> f64 {
        self.clock.frequency_ppb()
    }
    fn max_frequency_ppb(&self) -> f64 {
        self.clock.max_frequency_ppb()
    }
    fn set_frequency(&mut self, now: Time<Mono>, ppb: f64) -> Result<f64, ClockError> {
        self.clock.set_frequency(now, ppb)
    }
    fn step(&mut self, now: Time<Mono>, by: Duration) -> Result<(), ClockError> {
        let reading = self.clock.at(now);
        if let Some(policy) = &mut self.policy {
            policy.step(reading, by).map_err(|refusal| ClockError::Refused {
                action: "step",
                clock: self.clock.name().to_owned(),
                reason: refusal.to_string(),
            })?;
        }
        self.clock.step(now, by)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Time<Mono> = Time::from_nanos(5_000_000_000);

    fn clock() -> PolicedClock {
        let time = Time::from_seconds_nanos(crate::clock::policy::built() + 1_000, 0);
        PolicedClock::new(VirtualClock::new(NOW, time, 1e6))
    }

    fn limited() -> PolicedClock {
        let mut clock = clock();
        clock.set_limits(Limits::default());
        clock
    }

    #[test]
    fn a_grandmaster_of_1970_or_2000_is_followed_by_no_software_clock() {
        let mut clock = limited();
        for seconds in [60, 951_825_600] {
            let offset = clock.at(NOW) - Time::from_seconds_nanos(seconds, 0);
            let refused = clock.consent(NOW, offset).unwrap_err();
            assert!(refused.to_string().contains("absurd"), "{refused}");
            assert!(clock.is_refused() && clock.step(NOW, -offset).is_err());
        }
        // It is back in its senses, and a time scale away at the first step.
        assert!(clock.consent(NOW, Duration::from_secs(-37)).is_ok() && !clock.is_refused());
    }

    #[test]
    fn a_rogue_a_day_off_is_not_followed_once_the_clock_has_followed() {
        let day = Duration::from_secs(86_400);
        let mut clock = limited();
        clock.step(NOW, day).expect("the first step may go anywhere");
        clock.followed();
        assert!(clock.consent(NOW, -day).is_err());
        let refused = clock.step(NOW, day).unwrap_err().to_string();
        assert!(refused.contains("max-step"), "{refused}");
        let shown = clock.at(NOW);
        for _ in 0..3 {
            clock.step(NOW, Duration::from_secs(900)).unwrap();
        }
        // All later steps together.
        let refused = clock.step(NOW, Duration::from_secs(950)).unwrap_err().to_string();
        assert!(refused.contains("max-step-sum"), "{refused}");
        assert_eq!(clock.at(NOW) - shown, Duration::from_secs(2_700));
    }

    #[test]
    fn without_limits_anything_goes() {
        let mut clock = clock();
        let offset = clock.at(NOW).since_epoch();
        assert!(clock.consent(NOW, offset).is_ok());
        clock.step(NOW, Duration::ZERO - offset).unwrap();
        assert_eq!(clock.at(NOW), Time::ZERO);
    }
}
