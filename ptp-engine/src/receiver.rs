//! A client-only ordinary clock by itself: how it is set up, what it tells, and the clock with its commands.

use ptp_common::time::{Mono, Time};

use crate::{
    instance::Synchronization,
    node::Node,
    seam::{Commands, Context, Driven, Monotonic},
};

pub use crate::{
    config::{Acceptable, NotAnIdentity, PortConfig, PortPart, ReceiverConfig},
    instance::overheard::Hint,
    outcome::{
        DelayObservation, Measurement, Observation, Parent, PeerDelay, StateReason, SyncObservation,
    },
    round_trip::RoundTripTrend,
};

/// A node of a client-only instance, and the commands that it has given.
pub type Receiver = Driven<Node>;

impl Receiver {
    /// A clock whose ports listen, or are disabled where the link is down.
    pub fn new(config: ReceiverConfig, now: Time<Mono>) -> Self {
        let mut commands = Commands::default();
        let clock = &Monotonic::default();
        let mut cx = Context { now, clock, out: &mut commands };
        let node = Node::client_only(config, &mut cx);
        Self::new_with(node, commands)
    }

    /// As for [`Instance::set_synchronized`](crate::instance::Instance::set_synchronized).
    pub fn synchronize(&mut self, synchronization: Synchronization) {
        self.with(|node, out| node.set_synchronized(out, synchronization));
    }

    /// How much is stored, for the test that it is bounded.
    #[cfg(test)]
    pub(crate) fn stored(&self) -> usize {
        self.waiting() + Node::stored(self)
    }
}
