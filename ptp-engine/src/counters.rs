//! Counts of what came in, what went out and what was dropped and why. Everything that a packet can
//! do wrong ends in one of these; nothing that arrives is a fault.

use ptp_common::wire::{MessageType, WireError};

macro_rules! causes {
    ($($(#[$doc:meta])* $variant:ident = $name:literal,)*) => {
        /// Why a message, or a measurement half made, was dropped.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum Drop { $($(#[$doc])* $variant,)* }

        impl Drop {
            /// All of them, in the order of their declaration.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)*];

            /// Name for JSON and metric labels.
            pub const fn name(self) -> &'static str {
                match self { $(Self::$variant => $name,)* }
            }
        }
    };
}

causes! {
    /// Shorter than its header, its fixed part or its own length says.
    Truncated = "truncated",
    /// `versionPTP` is not 2.
    WrongVersion = "wrong_version",
    /// Reserved type, timestamp out of range, odd TLV.
    Malformed = "malformed",
    /// Another domain, for instance chrony's NTP over PTP in domain 123.
    WrongDomain = "wrong_domain",
    /// Another `sdoId` (another profile).
    WrongSdoId = "wrong_sdo_id",
    /// Sent by this clock and looped back.
    SelfSent = "self_sent",
    /// Announce naming this clock as grandmaster.
    SelfGrandmaster = "self_grandmaster",
    /// `alternateMasterFlag` is set (17.3).
    AlternateMaster = "alternate_master",
    /// Announce with `stepsRemoved` of 255 or more (9.3.2.5).
    StepsRemoved = "steps_removed",
    /// Announce whose path trace has this clock in it already: it goes round in a ring (16.2.3).
    Looped = "looped",
    /// Announce that contradicts what its sender has said, or Sync with a Follow_Up where there was none or the other
    /// way round, until further ones confirm it.
    Unconfirmed = "unconfirmed",
    /// Announce of a time transmitter that may not be followed.
    NotAcceptable = "not_acceptable",
    /// An interval that is not adopted as it was asked for; the message itself counts.
    IntervalClamped = "interval_clamped",
    /// A UTC offset that cannot be; the message itself counts.
    ImplausibleUtcOffset = "implausible_utc_offset",
    /// An exchange whose path delay cannot be.
    ImplausibleDelay = "implausible_delay",
    /// No room for another foreign time transmitter: all candidates are better.
    ForeignTableFull = "foreign_table_full",
    /// Sync, Follow_Up or Delay_Resp from a port that is not the parent.
    NotParent = "not_parent",
    /// Same sequence number as one that was taken already.
    Duplicate = "duplicate",
    /// Sequence number behind, or far ahead of, the last one taken.
    Replayed = "replayed",
    /// Overtaken by a later Sync, or a Pdelay_Req whose stamp came behind that of a later one.
    Reordered = "reordered",
    /// Event message received without a receive stamp.
    MissingRxStamp = "missing_rx_stamp",
    /// Event message sent without a transmit stamp.
    MissingTxStamp = "missing_tx_stamp",
    /// Two-step Sync whose Follow_Up did not come.
    SyncWithoutFollowUp = "sync_without_follow_up",
    /// Follow_Up whose Sync did not come.
    FollowUpWithoutSync = "follow_up_without_sync",
    /// Delay_Req without an answer.
    UnansweredDelayReq = "unanswered_delay_req",
    /// Delay_Resp that no request of this port asked for.
    UnmatchedDelayResp = "unmatched_delay_resp",
    /// Answer to the request of another port: normal on multicast.
    OtherRequester = "other_requester",
    /// Pdelay_Req without an answer.
    UnansweredPdelayReq = "unanswered_pdelay_req",
    /// Pdelay_Resp or its Follow_Up that no request of this port asked for.
    UnmatchedPdelayResp = "unmatched_pdelay_resp",
    /// A second port answered one Pdelay_Req (11.4.4); the known peer is believed.
    MultipleResponders = "multiple_responders",
    /// A correction that says "too large to represent", or is longer than anything forwards a message.
    Correction = "correction",
    /// A bracket that ends before it begins, or is wider than the path; the message itself counts.
    ImplausibleBracket = "implausible_bracket",
    /// Request to a server without an answer.
    UnansweredRequest = "unanswered_request",
    /// Answer to nothing that was asked, or from elsewhere.
    NotAsked = "not_asked",
    /// A server that says it is another one, which answers as well.
    DuplicateIdentity = "duplicate_identity",
    /// Request of a stranger whose answer would be longer by more than a fifth.
    WouldAmplify = "would_amplify",
    /// Request of somebody who is in none of the prefixes that are served.
    NotServed = "not_served",
    /// A message type that this role has no use for.
    NotForRole = "not_for_role",
    /// Announce or Sync on a link that is not `asCapable` (IEEE 802.1AS, 10.2).
    NotCapable = "not_capable",
    /// Follow_Up without the information TLV of IEEE 802.1AS.
    MissingInformation = "missing_information",
    /// More requests per second than are answered.
    RateLimited = "rate_limited",
    /// The port is disabled or does not exist.
    PortDisabled = "port_disabled",
    /// A request for unicast messages that was denied.
    Denied = "unicast_denied",
    /// A grant of what nobody has asked for: no interval, or another one.
    ImplausibleGrant = "implausible_grant",
    /// Unicast Delay_Req without an answer: they go to all for a while.
    HybridUnanswered = "hybrid_unanswered",
    /// Nobody collected the actions; the oldest ones went.
    ActionOverflow = "action_overflow",
}

impl From<WireError> for Drop {
    fn from(error: WireError) -> Self {
        match error {
            WireError::Truncated { .. } => Self::Truncated,
            WireError::Version(_) => Self::WrongVersion,
            _ => Self::Malformed,
        }
    }
}

/// Counts of one port, since it was made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Counters {
    received: [u64; MessageType::ALL.len()],
    sent: [u64; MessageType::ALL.len()],
    dropped: [u64; Drop::ALL.len()],
    /// Sync observations handed on.
    pub sync_exchanges: u64,
    /// Delay_Req / Delay_Resp observations handed on.
    pub delay_exchanges: u64,
    /// Peer delay measurements handed on.
    pub peer_delay_exchanges: u64,
    /// Requests of CSPTP, SPTP and of monitors that were answered.
    pub answers: u64,
    /// Timers that have run out.
    pub timeouts: Timeouts,
}

impl Default for Counters {
    fn default() -> Self {
        Self {
            received: [0; _],
            sent: [0; _],
            dropped: [0; _],
            sync_exchanges: 0,
            delay_exchanges: 0,
            peer_delay_exchanges: 0,
            answers: 0,
            timeouts: Timeouts::default(),
        }
    }
}

fn slot(kind: MessageType) -> usize {
    MessageType::ALL.iter().position(|each| *each == kind).unwrap_or(0)
}

impl Counters {
    /// Messages of this type that came in and were well-formed, of any domain.
    pub fn received(&self, kind: MessageType) -> u64 {
        self.received[slot(kind)]
    }

    /// Messages of this type that the port asked to send.
    pub fn sent(&self, kind: MessageType) -> u64 {
        self.sent[slot(kind)]
    }

    /// What was dropped for this cause.
    pub fn dropped(&self, cause: Drop) -> u64 {
        self.dropped[cause as usize]
    }

    /// Every cause with its count.
    pub fn drops(&self) -> impl Iterator<Item = (Drop, u64)> + '_ {
        Drop::ALL.iter().map(|cause| (*cause, self.dropped(*cause)))
    }

    pub(crate) fn count_received(&mut self, kind: MessageType) {
        self.received[slot(kind)] += 1;
    }

    pub(crate) fn count_sent(&mut self, kind: MessageType) {
        self.sent[slot(kind)] += 1;
    }

    pub(crate) fn count_drop(&mut self, cause: Drop) {
        self.dropped[cause as usize] += 1;
    }
}

/// Timers of a port that have run out, counted since the start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Timeouts {
    /// Announce of the time transmitter.
    pub announce: u64,
    /// Its Sync.
    pub sync: u64,
    /// To send a Delay_Req.
    pub delay: u64,
    /// To send an Announce.
    pub transmitter_announce: u64,
    /// To send a Sync.
    pub transmitter_sync: u64,
    /// To become a time transmitter.
    pub qualification: u64,
}
