//! Recordings: everything that was given to the engine of a time receiver, in the order in which it
//! was given, as a pcapng file that also opens in Wireshark. [`Recorder`] writes one beside a running
//! agent, [`Reader`] reads it back, and [`Replay`] gives it once more to engine, servo and clock,
//! which are deterministic: the same numbers come out bit for bit, and with another servo one sees
//! what that one would have made of the same packets. `docs/recording.md` describes the format.

mod frame;
mod made;
mod note;
mod reader;
mod replay;
mod servers;
mod writer;

pub use frame::{Addresses, Route};
pub use made::{LimitsNote, OptionsNote};
pub use note::{FollowedClock, Note, PortNote, RecordedStamp, Start};
pub use reader::{Item, Problem, ReadError, Reader};
pub use replay::{Replay, Steered};
pub use servers::{NtpNote, ServerNote};
pub use writer::{Encoder, Outgoing, RecordError, Recorder, RecordingFile, Totals};

/// Version of the notes in a recording; a reader refuses another one.
pub const VERSION: u32 = 1;

/// Ports that a recording may have; an agent has a handful.
const MAX_PORTS: usize = 256;

/// Payloads of this kind are JSON to Wireshark: an exported PDU (LINKTYPE 252) whose one tag, 12,
/// names the dissector, and the tag that ends the list.
const JSON_PDU: [u8; 12] = [0, 12, 0, 4, b'j', b's', b'o', b'n', 0, 0, 0, 0];

/// An error with its causes; the library's messages leave them to `source`.
fn causes(error: &(dyn std::error::Error + 'static)) -> String {
    let chain = std::iter::successors(Some(error), |error| error.source());
    chain.map(ToString::to_string).collect::<Vec<_>>().join(": ")
}

#[cfg(test)]
mod tests;
