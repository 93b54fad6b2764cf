//! What may be done to a clock of the host: how far it may be stepped, once and in all, and which
//! times are absurd. Sans-I/O, like the servo; it is asked before anything is done.

use ptp_common::time::{Duration, Ptp, Time};

/// Largest adjustment of a software clock, parts per billion: as linuxptp's default.
pub const MAX_FREQUENCY_PPB: f64 = 900_000.0;
/// A reference later than this long after the build has no time either, seconds: 80 years.
const LIFE_S: u64 = 80 * 31_557_600;
/// Earlier than any build: 2025-01-01.
const BUILT_AT_LEAST: u64 = 1_735_689_600;

/// When this program was built, to the day; seconds since 1970, UTC. The build script says so.
pub fn built() -> u64 {
    env!("PTP_AGENT_BUILT").parse().unwrap_or(BUILT_AT_LEAST)
}

/// The limits.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Limits {
    /// Farthest that the clock may be from the first reference. `None` for any distance.
    pub max_first_step: Option<Duration>,
    /// Farthest that it may be from the reference later: beyond, it is left alone.
    pub max_step: Option<Duration>,
    /// Largest sum of all later steps, each without its sign.
    pub max_step_sum: Option<Duration>,
    /// No time before this is believed.
    pub earliest: Time<Ptp>,
    /// No time after this is believed.
    pub latest: Time<Ptp>,
    /// Largest adjustment of the frequency, parts per billion: bounds how fast an offset is slewed.
    pub max_frequency_ppb: f64,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            max_first_step: None,
            max_step: Some(Duration::from_secs(1_000)),
            max_step_sum: Some(Duration::from_secs(3_600)),
            earliest: Time::from_seconds_nanos(built(), 0),
            latest: Time::from_seconds_nanos(built() + LIFE_S, 0),
            max_frequency_ppb: MAX_FREQUENCY_PPB,
        }
    }
}

/// Why something was not done.
#[derive(Clone, Copy, Debug, PartialEq, thiserror::Error)]
pub enum Refusal {
    /// The reference has no time, or a wrong one.
    #[error(
        "its time, {seconds} s since 1970, is absurd (before this program was built, or {} years after): set the reference right, or `earliest` in [clock] if it is",
        LIFE_S / 31_557_600
    )]
    AbsurdTime {
        /// What the reference says.
        seconds: i64,
    },
    /// Farther than allowed.
    #[error(
        "it is {:.6} s away, and {limit} in [clock] allows {:.6} s; the clock is left alone",
        .distance.as_secs_f64(), .allowed.as_secs_f64()
    )]
    TooFar {
        /// Clock minus reference.
        distance: Duration,
        /// What is allowed.
        allowed: Duration,
        /// The setting.
        limit: &'static str,
    },
    /// The steps together would be more than allowed.
    #[error(
        "all steps together would be {:.6} s, and max-step-sum in [clock] allows {:.6} s",
        .sum.as_secs_f64(), .allowed.as_secs_f64()
    )]
    SumTooLarge {
        /// With this one.
        sum: Duration,
        /// What is allowed.
        allowed: Duration,
    },
}

/// Limits, and what has been done so far.
#[derive(Clone, Copy, Debug)]
pub struct Policy {
    limits: Limits,
    is_first: bool,
    stepped: Duration,
}

impl Policy {
    /// Nothing has been done yet.
    pub const fn new(limits: Limits) -> Self {
        Self { limits, is_first: true, stepped: Duration::ZERO }
    }

    /// The limits.
    pub const fn limits(&self) -> &Limits {
        &self.limits
    }

    /// Permits something else from now on. What has been done so far counts all the same.
    pub const fn set_limits(&mut self, limits: Limits) {
        self.limits = limits;
    }

    /// Whether the clock, which shows `reading`, may follow a reference from which it is `offset`
    /// away (clock minus reference), by whatever means.
    ///
    /// # Errors
    /// The rule that forbids it.
    pub fn permit(&self, reading: Time<Ptp>, offset: Duration) -> Result<(), Refusal> {
        let reference = reading - offset;
        if reference < self.limits.earliest || reference > self.limits.latest {
            let seconds = reference.since_epoch().as_secs_f64() as i64;
            return Err(Refusal::AbsurdTime { seconds });
        }
        let (allowed, limit) = if self.is_first {
            (self.limits.max_first_step, "max-first-step")
        } else {
            (self.limits.max_step, "max-step")
        };
        match allowed {
            Some(allowed) if offset.abs() > allowed => {
                Err(Refusal::TooFar { distance: offset, allowed, limit })
            }
            _ => Ok(()),
        }
    }

    /// Whether the clock may be stepped now. The step counts as done.
    ///
    /// # Errors
    /// The rule that forbids it; it then does not count.
    pub fn step(&mut self, reading: Time<Ptp>, by: Duration) -> Result<(), Refusal> {
        self.permit(reading, Duration::ZERO - by)?;
        if !self.is_first {
            let sum = self.stepped + by.abs();
            if let Some(allowed) = self.limits.max_step_sum
                && sum > allowed
            {
                return Err(Refusal::SumTooLarge { sum, allowed });
            }
            self.stepped = sum;
        }
        self.is_first = false;
        Ok(())
    }

    /// The clock follows, without a step.
    pub const fn followed(&mut self) {
        self.is_first = false;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn limits() -> Limits {
        Limits {
            max_first_step: Some(Duration::from_secs(100_000)),
            earliest: Time::from_seconds_nanos(1_700_000_000, 0),
            latest: Time::from_seconds_nanos(2_000_000_000, 0),
            ..Limits::default()
        }
    }

    #[test]
    fn the_1970_of_a_grandmaster_without_time_is_refused_at_any_distance() {
        let policy = Policy::new(Limits { max_first_step: None, ..limits() });
        let now = Time::from_seconds_nanos(1_800_000_000, 0);
        let refusal = policy.permit(now, Duration::from_secs(1_800_000_000 - 60)).unwrap_err();
        assert_eq!(refusal, Refusal::AbsurdTime { seconds: 60 });
        // But a clock that itself is at 1970 may be set.
        let reset = Time::from_seconds_nanos(60, 0);
        assert_eq!(policy.permit(reset, Duration::from_secs(60 - 1_800_000_000)), Ok(()));
    }

    #[test]
    fn the_build_date_is_known() {
        assert!(built() >= BUILT_AT_LEAST);
    }

    proptest! {
        #[test]
        fn no_sequence_of_steps_leaves_the_limits(
            steps in prop::collection::vec(
                prop_oneof![-2_000_i64..2_000, -200_000_i64..200_000, any::<i64>()], 1..50,
            ),
            slewed_first: bool,
        ) {
            let limits = limits();
            let mut policy = Policy::new(limits);
            let mut reading = Time::from_seconds_nanos(1_800_000_000, 0);
            let (mut is_first, mut sum) = (!slewed_first, Duration::ZERO);
            if slewed_first {
                policy.followed();
            }
            for seconds in steps {
                let by = Duration::from_secs(seconds);
                if policy.step(reading, by).is_err() {
                    continue;
                }
                reading += by;
                prop_assert!(reading >= limits.earliest && reading <= limits.latest);
                if is_first {
                    prop_assert!(by.abs() <= limits.max_first_step.unwrap());
                } else {
                    sum += by.abs();
                    prop_assert!(by.abs() <= limits.max_step.unwrap());
                }
                is_first = false;
                prop_assert!(sum <= limits.max_step_sum.unwrap());
            }
        }

        #[test]
        fn what_may_not_be_stepped_to_may_not_be_slewed_to(offset_s in any::<i32>()) {
            let mut policy = Policy::new(limits());
            policy.followed();
            let reading = Time::from_seconds_nanos(1_800_000_000, 0);
            let offset = Duration::from_secs(i64::from(offset_s));
            if policy.permit(reading, offset).is_err() {
                prop_assert!(policy.step(reading, Duration::ZERO - offset).is_err());
            }
        }
    }
}
