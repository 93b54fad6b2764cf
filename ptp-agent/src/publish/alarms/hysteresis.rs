//! One alarm's memory: it changes its state only when the opposite was true for a while.

use ptp_common::time::{Duration, Mono, Time};

/// How long a condition must hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Patience {
    /// Until the alarm is raised.
    pub(super) raise: Duration,
    /// Must have been false for so long until it is cleared.
    pub(super) clear: Duration,
}

/// See the module's paragraph.
#[derive(Clone, Copy, Debug)]
pub(super) struct Hysteresis {
    is_raised: bool,
    since: Time<Mono>,
    /// Since when the condition has been the opposite of the state.
    contrary_since: Option<Time<Mono>>,
}

impl Hysteresis {
    pub(super) const fn new(now: Time<Mono>) -> Self {
        Self { is_raised: false, since: now, contrary_since: None }
    }

    pub(super) const fn is_raised(&self) -> bool {
        self.is_raised
    }

    pub(super) const fn since(&self) -> Time<Mono> {
        self.since
    }

    /// Takes note of the condition. When that changes the state, returns how long the old one lasted.
    pub(super) fn update(
        &mut self,
        now: Time<Mono>,
        condition: bool,
        patience: Patience,
    ) -> Option<Duration> {
        if condition == self.is_raised {
            self.contrary_since = None;
            return None;
        }
        let contrary_since = *self.contrary_since.get_or_insert(now);
        let needed = if condition { patience.raise } else { patience.clear };
        if now - contrary_since < needed {
            return None;
        }
        let lasted = now - self.since;
        *self = Self { is_raised: condition, since: now, contrary_since: None };
        Some(lasted)
    }
}
