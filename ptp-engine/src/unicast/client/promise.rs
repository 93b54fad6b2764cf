//! What one partner has promised of one type of message: asked for, granted until, or to be given back.
//!
//! A cancellation is one message, which whoever forges its sender's address can send as well. So it ends nothing by
//! itself: the promise is asked for again, and who has taken it back refuses that, or says nothing.

use ptp_common::time::{Duration, Mono, Time};

use super::PATIENCE;

/// What is said to be taken back is granted again within so much, or it is none any more.
const CONFIRMED: Duration = Duration::from_millis(500);
/// Between two cancellations that are looked at.
const DOUBTS: Duration = Duration::from_secs(1);

/// How one promise stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum State {
    /// Nothing is wanted.
    Idle,
    /// Wanted and to be asked for, or asked for.
    Asked,
    /// Granted.
    Granted {
        until: Time<Mono>,
        log_interval: i8,
        since: Time<Mono>,
        /// When it is to be asked for again.
        renew_at: Time<Mono>,
    },
    /// Not wanted any more; the other side is being told.
    Cancelling { left: u8 },
}

#[derive(Clone, Copy, Debug)]
pub(super) struct Promise {
    pub(super) state: State,
    /// Requests in a row that were not answered.
    pub(super) unanswered: u8,
    /// Refusals in a row.
    pub(super) refusals: u8,
    /// A request has been sent that may be answered.
    pub(super) is_pending: bool,
    /// When the last message came that was promised.
    pub(super) heard: Option<Time<Mono>>,
    /// When it was last said to be taken back.
    pub(super) doubted: Option<Time<Mono>>,
}

impl Promise {
    pub(super) const NEW: Self = Self {
        state: State::Idle,
        unanswered: 0,
        refusals: 0,
        is_pending: false,
        heard: None,
        doubted: None,
    };

    pub(super) const fn granted(&self) -> Option<i8> {
        match self.state {
            State::Granted { log_interval, .. } => Some(log_interval),
            _ => None,
        }
    }

    pub(super) fn failures(&self) -> u8 {
        self.refusals.max(self.unanswered.saturating_sub(PATIENCE))
    }

    /// Somebody says in its server's name that it is taken back: it is to be asked for again at once, and is none any more
    /// where that is not granted. Nothing becomes of it where the same was said less than a second ago.
    pub(super) fn doubt(&mut self, now: Time<Mono>) -> bool {
        if self.doubted.is_some_and(|at| now - at < DOUBTS) {
            return false;
        }
        if let State::Granted { until, renew_at, .. } = &mut self.state {
            *until = (*until).min(now + CONFIRMED);
            *renew_at = now;
            self.doubted = Some(now);
        }
        true
    }
}

/// Why a promise is none any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Loss {
    /// Nobody has renewed it.
    End,
    /// It was refused, or taken back.
    Refusal,
    /// Nothing came of it.
    Silence,
}
