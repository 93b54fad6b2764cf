//! How sources stand to each other.

/// How sources stand to each other, as it has been for a while.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Standing {
    /// Nothing to compare, or all agree.
    #[default]
    Agreed,
    /// Some contradict others; most agree with the one that is followed.
    Confirmed,
    /// Most agree with each other, and not with the one that is followed.
    Refuted,
    /// Sources contradict each other, and there is no majority.
    Open,
}

impl Standing {
    /// The name in JSON.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Agreed => "agreed",
            Self::Confirmed => "confirmed",
            Self::Refuted => "refuted",
            Self::Open => "open",
        }
    }

    /// Whether somebody contradicts somebody.
    pub const fn is_contradicted(self) -> bool {
        !matches!(self, Self::Agreed)
    }
}
