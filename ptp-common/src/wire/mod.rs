//! The PTP version 2.0 and 2.1 wire format (IEEE 1588-2019 clause 13, and 14 for TLVs), in two
//! layers: [`MessageView`] is a checked view over received bytes, [`Message`] an owned message that
//! cannot be illegal. Parsing allocates nothing.

mod alternate;
mod authentication;
mod bracket;
pub mod csptp;
pub mod data_set;
mod deviation;
pub mod gptp;
mod header;
pub mod management;
mod message;
mod monitoring;
mod own;
mod power;
mod tlv;
mod types;
mod unicast;

pub use alternate::{AlternateTimeOffset, DisplayName};
pub use authentication::{Authentication, AuthenticationView, SecurityParameters};
pub use bracket::Bracket;
pub use csptp::{CsptpRequest, CsptpResponse, CsptpStatus};
pub use deviation::Deviation;
pub use header::{Flags, HEADER_LENGTH, Header, MessageKey, MessageType};
pub use message::{Announce, Body, Management, Message, MessageView};
pub use monitoring::{DelayTiming, EventTiming, NetSyncResponse, SyncTiming};
pub use power::{Inaccuracy, PowerProfile};
pub use tlv::{Tlv, TlvBuilder, TlvIter, TlvType, Tlvs};
pub use types::{
    ClockAccuracy, ClockIdentity, ClockQuality, PortIdentity, TimeInterval, TimeSource, Timestamp,
};
pub use unicast::{Granted, MAINTAIN_GRANT, MAINTAIN_REQUEST, Negotiation};

/// Why bytes are no PTP message that this implementation understands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum WireError {
    /// Shorter than its header, its fixed part or its own `messageLength` says.
    #[error("truncated: {have} bytes, needs {need}")]
    Truncated {
        /// Bytes there are.
        have: usize,
        /// Bytes there would have to be.
        need: usize,
    },
    /// `versionPTP` is not 2.
    #[error("unsupported PTP version {0}")]
    Version(u8),
    /// A reserved message type.
    #[error("reserved message type {0:#x}")]
    MessageType(u8),
    /// A timestamp with 10^9 nanoseconds or more (5.3.3).
    #[error("timestamp with {0} nanoseconds")]
    Nanoseconds(u32),
    /// A TLV of odd length or beyond the end of the message (14.1.1).
    #[error("malformed TLV at byte {0}")]
    Tlv(usize),
    /// The buffer to write to is too small.
    #[error("buffer of {have} bytes, needs {need}")]
    Buffer {
        /// Size of the buffer, bytes.
        have: usize,
        /// Size of the message, bytes.
        need: usize,
    },
}
