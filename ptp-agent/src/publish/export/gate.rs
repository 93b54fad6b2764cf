//! What other programs are not given, and why: the limits that hold for a clock of the host hold for
//! every other way out too, and what nobody knows is not told.

use crate::{
    clock::policy::{Limits, Policy, Refusal},
    engine::origin::BoundReference,
    servo::ServoState,
};

use super::{Exporting, View};

/// Why something is not given.
#[derive(Clone, Copy, Debug, PartialEq, thiserror::Error)]
pub enum Withheld {
    /// The time is implausible, or too far away.
    #[error(
        "CLOCK_REALTIME is not to follow the grandmaster, so other programs are given no time: {0}"
    )]
    Refused(Refusal),
    /// TAI is known, UTC is not.
    #[error(
        "the grandmaster's time is TAI and it gives no valid UTC offset, so other programs are given no time: set currentUtcOffset and currentUtcOffsetValid there"
    )]
    NoUtcOffset,
    /// The error against the grandmaster is known, that against UTC is not.
    #[error(
        "nobody knows how far {} from UTC, so readers of ClockBound are told that nothing is known: {}",
        .0.1, .0.2
    )]
    NoAccuracy(Missing),
}

/// The reference, what is missing in words, and the remedy.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Missing(BoundReference, &'static str, &'static str);

impl Missing {
    const fn of(reference: BoundReference) -> Self {
        match reference {
            BoundReference::Parent => Self(
                reference,
                "the boundary clocks between the grandmaster and here are",
                "boundary-clock-error in [run] says it",
            ),
            _ => Self(
                reference,
                "the grandmaster is",
                "it claims no accuracy, or no traceable time; grandmaster-accuracy in [run] says it",
            ),
        }
    }
}

/// Judges a view before anything of it is given away.
#[derive(Debug)]
pub(super) struct Gate {
    policy: Policy,
    withheld: Option<Withheld>,
}

impl Gate {
    pub(super) const fn new(limits: Limits) -> Self {
        Self { policy: Policy::new(limits), withheld: None }
    }

    pub(super) const fn set_limits(&mut self, limits: Limits) {
        self.policy.set_limits(limits);
    }

    /// What is not given, and why.
    pub(super) const fn withheld(&self) -> Option<&Withheld> {
        self.withheld.as_ref()
    }

    /// What may be given of `view`: samples, and a bound. What may not has no error any more. A change is
    /// one line in the log.
    pub(super) fn pass<'a>(&mut self, wanted: &Exporting, view: &View<'a>) -> (View<'a>, View<'a>) {
        let nothing = View { real_error: None, real_error_bound: None, ..*view };
        let is_wanted = wanted.clock_bound.is_some()
            || wanted.chrony_sock.is_some()
            || wanted.ntp_shm.is_some();
        let is_followed = matches!(view.state, ServoState::Locked | ServoState::Holdover);
        let (samples, bound, withheld) = match self.judge(view) {
            _ if !(is_wanted && is_followed) => (nothing, nothing, None),
            Err(withheld) => (nothing, nothing, Some(withheld)),
            Ok(()) => {
                let is_bounded = view.real_error.is_some() && view.real_error_bound.is_some();
                let lacks = is_bounded && view.inaccuracy.is_none();
                let withheld = (lacks && wanted.clock_bound.is_some())
                    .then(|| Withheld::NoAccuracy(Missing::of(view.reference)));
                (*view, if lacks { nothing } else { *view }, withheld)
            }
        };
        if view.state == ServoState::Locked && samples.real_error.is_some() {
            self.policy.followed();
        }
        self.note(withheld);
        (samples, bound)
    }

    fn judge(&self, view: &View<'_>) -> Result<(), Withheld> {
        if view.is_utc_unknown {
            return Err(Withheld::NoUtcOffset);
        }
        match view.real_error {
            Some(error) => self.policy.permit(view.real, error).map_err(Withheld::Refused),
            None => Ok(()),
        }
    }

    fn note(&mut self, withheld: Option<Withheld>) {
        // The figures of a refusal change every second, its reason does not.
        let kind = |withheld: &Option<Withheld>| withheld.as_ref().map(std::mem::discriminant);
        if kind(&self.withheld) != kind(&withheld) {
            match &withheld {
                Some(reason) => tracing::warn!(%reason, "time withheld"),
                None => tracing::info!("time is given to other programs again"),
            }
        }
        self.withheld = withheld;
    }
}
