//! What has become of management requests, for metrics and status.

use ptp_common::wire::management::{Action, ManagementErrorId};

use super::Reply;

macro_rules! outcomes {
    ($($(#[$doc:meta])* $variant:ident = $name:literal,)*) => {
        /// What has become of a request.
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
        pub enum Outcome { $($(#[$doc])* $variant,)* }

        impl Outcome {
            /// All of them.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)*];

            /// Name for JSON and metric labels.
            pub const fn name(self) -> &'static str {
                match self { $(Self::$variant => $name,)* }
            }
        }
    };
}

outcomes! {
    /// GET, with what was asked for.
    #[default]
    Answered = "answered",
    /// SET, and it is in force.
    Set = "set",
    /// COMMAND, and it is done.
    Commanded = "commanded",
    /// No request: not whole, or another message.
    Malformed = "malformed",
    /// For another clock or domain.
    OtherClock = "other_clock",
    /// NO_SUCH_ID.
    NoSuchId = "no_such_id",
    /// NOT_SUPPORTED, also for want of permission.
    NotSupported = "not_supported",
    /// NOT_SETABLE, also for want of permission.
    NotSetable = "not_setable",
    /// WRONG_LENGTH.
    WrongLength = "wrong_length",
    /// WRONG_VALUE, also for a port that does not exist.
    WrongValue = "wrong_value",
    /// GENERAL_ERROR: no room for another subscriber.
    GeneralError = "general_error",
    /// Too many a second: not answered.
    RateLimited = "rate_limited",
    /// Keys were asked for: not answered.
    Unauthenticated = "unauthenticated",
    /// Whoever asked has not taken the answer.
    NotTaken = "not_taken",
}

impl Outcome {
    /// Of an action with these replies.
    pub(super) fn of(action: Action, replies: &[(u16, Reply<'_>)]) -> Self {
        let error = replies.iter().find_map(|(_, reply)| match reply {
            Reply::Error(error, _) => Some(*error),
            Reply::Data(_) | Reply::Empty(_) => None,
        });
        match error {
            None => match action {
                Action::SET => Self::Set,
                Action::COMMAND => Self::Commanded,
                _ => Self::Answered,
            },
            Some(ManagementErrorId::NO_SUCH_ID) => Self::NoSuchId,
            Some(ManagementErrorId::NOT_SUPPORTED) => Self::NotSupported,
            Some(ManagementErrorId::NOT_SETABLE) => Self::NotSetable,
            Some(ManagementErrorId::WRONG_LENGTH) => Self::WrongLength,
            Some(ManagementErrorId::WRONG_VALUE) => Self::WrongValue,
            Some(_) => Self::GeneralError,
        }
    }

    /// Whether the answer is an error.
    pub(super) const fn is_error(self) -> bool {
        !matches!(self, Self::Answered | Self::Set | Self::Commanded)
    }
}
