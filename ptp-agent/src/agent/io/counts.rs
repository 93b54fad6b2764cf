//! What became of packets and messages on one interface, before the engine saw any of it.

use crate::security;

/// Totals of what went wrong on a port, by cause, beside the pairing counts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct IoCounts {
    /// Messages too long to be PTP.
    pub oversized: u64,
    /// Sends that the kernel refused.
    pub send_errors: u64,
    /// Receives that the kernel refused.
    pub receive_errors: u64,
    /// Event messages dropped because too many waited for their stamps already, or were of who is held back.
    pub overrun: u64,
    /// Messages dropped by the kernel because they came faster than they were received.
    pub socket_overflow: u64,
    /// Records that lacked the chosen stamp.
    pub without_stamp: u64,
    /// What authentication has let pass and dropped.
    pub authentication: security::Totals,
    /// Messages in the time transmitter's name from another address than its own.
    pub other_address: u64,
    /// Messages of time transmitters from senders that are not acceptable.
    pub other_sender: u64,
}

impl IoCounts {
    /// Every total with its name in summaries and metrics.
    pub fn iter(&self) -> impl Iterator<Item = (&'static str, u64)> + use<> {
        [
            ("oversized", self.oversized),
            ("send_error", self.send_errors),
            ("receive_error", self.receive_errors),
            ("overrun", self.overrun),
            ("socket_overflow", self.socket_overflow),
            ("record_without_stamp", self.without_stamp),
            ("other_address", self.other_address),
            ("other_sender", self.other_sender),
        ]
        .into_iter()
        .chain(self.authentication.refusals())
    }
}
