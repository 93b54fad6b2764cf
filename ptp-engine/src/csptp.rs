//! Exchanges that begin with the client and leave nothing behind at the server: those of IEEE 1588.1 (CSPTP), and
//! Meta's SPTP. A request, an answer whose both ends are stamped, and a second message that says when the answer left:
//! all four times of an exchange within one round trip, from one address to one address. A server needs no memory
//! of its clients, and a client may ask several servers, each of which is a source with a causal interval of its
//! own.
//!
//! | | request | answer | behind it |
//! |---|---|---|---|
//! | CSPTP | Sync, CSPTP_REQUEST | Sync, CSPTP_RESPONSE | Follow_Up |
//! | SPTP | Delay_Req, profileSpecific1 | Sync, whose originTimestamp is the request's arrival | Announce, whose originTimestamp is the Sync's departure |
//!
//! An instance that asks takes no part in any election: whom it follows is decided among its servers (`instance/asking.rs`).
//! An instance that serves answers beside what it does otherwise (`instance/answering.rs`).

pub use crate::{
    config::servers::{Answers, Protocol, ServerConfig},
    instance::{
        answering::{AnswerForms, is_worth},
        asking::{MAX_SERVERS, ServerState},
    },
};
