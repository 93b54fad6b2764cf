//! What is to happen in the network, in the order of its time.

use std::cmp::Ordering;

use ptp_common::time::Duration;

use crate::engine::{Datagram, PortIndex, SentToken};

#[derive(Debug)]
#[expect(
    clippy::large_enum_variant,
    reason = "nearly all that happens is the arrival of a message"
)]
pub(super) enum Happening {
    /// A message is there; `on` is the port.
    Arrives { to: usize, on: PortIndex, stamp: Option<ReceiveStamp>, bytes: Datagram },
    /// `at` is the local reading since the start.
    Stamped { by: usize, token: SentToken, at: Duration },
    /// A grandmaster begins anew.
    Restarts { n: usize },
}

/// What is wrong with the stamp of an arrival, nanoseconds.
#[derive(Clone, Copy, Debug)]
pub(super) struct ReceiveStamp {
    /// Before it is put on a tick.
    pub(super) noise_ns: f64,
    /// After.
    pub(super) bad_ns: f64,
}

#[derive(Debug)]
pub(super) struct Entry {
    pub(super) at_ns: i64,
    pub(super) order: u64,
    pub(super) what: Happening,
}

impl PartialEq for Entry {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}
impl Eq for Entry {}
impl PartialOrd for Entry {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}
impl Ord for Entry {
    /// The earliest is the greatest.
    fn cmp(&self, other: &Self) -> Ordering {
        (other.at_ns, other.order).cmp(&(self.at_ns, self.order))
    }
}
