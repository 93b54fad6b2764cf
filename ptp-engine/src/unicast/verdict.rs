//! What becomes of requests and grants, for counters and metrics.

macro_rules! verdicts {
    ($($(#[$doc:meta])* $variant:ident = $name:literal,)*) => {
        /// What becomes of a request, or of a grant.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum Verdict { $($(#[$doc])* $variant,)* }

        impl Verdict {
            /// All of them, in the order of their declaration.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)*];

            /// Name for JSON and metric labels.
            pub const fn name(self) -> &'static str {
                match self { $(Self::$variant => $name,)* }
            }
        }
    };
}

verdicts! {
    /// Granted for the first time.
    Granted = "granted",
    /// Granted again.
    Renewed = "renewed",
    /// Ended by the client.
    Cancelled = "cancelled",
    /// Ended, since nobody has asked again.
    Expired = "expired",
    /// Denied: the port serves nobody now.
    NotServing = "not_serving",
    /// Denied: no message that is granted.
    Type = "type",
    /// Denied: too often, or too seldom.
    Interval = "interval",
    /// Denied: for no time at all.
    Duration = "duration",
    /// Denied: from outside the networks that are served.
    Stranger = "stranger",
    /// Denied: the table is full, or the newcomers' part of it.
    Clients = "clients",
    /// Denied: too many clients of one address.
    Host = "host",
    /// Denied: more messages per second than are granted.
    Rate = "rate",
    /// Not looked at: too many requests.
    Limited = "limited",
}
