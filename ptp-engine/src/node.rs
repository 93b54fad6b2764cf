//! This host as a PTP Node (IEEE 1588-2019 3.1.49): its instances, one for each domain and sdoId, and the links that
//! they share. All stamps are on the host's one monotonic clock, so that several ports and instances need no clock
//! each: what "jbod" means elsewhere, a clock per port that has to be told from the others, does not exist here.

mod managed;
mod peer_delay;

pub use managed::PortCommand;

use core::ops::{Deref, DerefMut};

use ptp_common::{
    time::{Mono, Time},
    wire::Body,
};

use crate::prelude::*;
use crate::{
    PortIndex, SentToken,
    config::{PortConfig, ReceiverConfig, TransmitterConfig},
    contention::Contention,
    counters::Drop,
    instance::{Cx, Instance, Received},
    link::Link,
    outcome::StateReason,
    seam::{Engine, Input, LinkState, NoEvent},
    sent::Sent,
    stamp::Stamp,
};

/// See the module's paragraph. A clock of one domain is its first instance, which it can be asked as.
#[derive(Debug)]
pub struct Node {
    /// Never empty.
    instances: Vec<Instance>,
    /// In the order of the ports of every instance.
    links: Vec<Link>,
}

impl Node {
    /// A node of `instance` alone, on the links of its ports.
    pub fn new(instance: Instance) -> Self {
        let links = instance.links();
        Self { instances: vec![instance], links }
    }

    /// A clock that follows, see [`Instance::client_only`].
    pub fn client_only(config: ReceiverConfig, cx: &mut Cx<'_>) -> Self {
        Self::new(Instance::client_only(config, cx))
    }

    /// A clock that serves, see [`Instance::server_only`].
    pub fn server_only(config: TransmitterConfig, cx: &mut Cx<'_>) -> Self {
        Self::new(Instance::server_only(config, cx))
    }

    /// A clock that takes either role, see [`Instance::either`].
    pub fn either(config: ReceiverConfig, contention: Contention, cx: &mut Cx<'_>) -> Self {
        Self::new(Instance::either(config, contention, cx))
    }

    /// A clock that serves where no better one does, see [`Instance::yielding_server`].
    pub fn yielding_server(
        config: TransmitterConfig,
        ports: Vec<PortConfig>,
        cx: &mut Cx<'_>,
    ) -> Self {
        Self::new(Instance::yielding_server(config, ports, cx))
    }

    /// With another instance, of another domain, on the same ports.
    #[must_use]
    pub fn with(mut self, mut instance: Instance) -> Self {
        let number = u16::try_from(self.instances.len()).unwrap_or(u16::MAX);
        instance.in_flight.of_instance(number);
        // Links that only it has.
        self.links.extend(instance.links().into_iter().skip(self.links.len()));
        self.instances.push(instance);
        self
    }

    /// The first instance, which the clock follows or serves.
    pub fn instance(&self) -> &Instance {
        &self.instances[0]
    }

    /// The same, to be changed.
    pub fn instance_mut(&mut self) -> &mut Instance {
        &mut self.instances[0]
    }

    /// All of them.
    pub fn instances(&self) -> impl Iterator<Item = &Instance> {
        self.instances.iter()
    }

    /// The link of a port.
    pub fn link(&self, on: PortIndex) -> Option<&Link> {
        self.links.get(usize::from(on.0))
    }

    /// Whose a message is by `domainNumber` and `sdoId` (7.1); the first instance counts what is nobody's.
    fn of_message(&self, bytes: &[u8]) -> usize {
        let at = match (bytes.first(), bytes.get(4), bytes.get(5)) {
            (Some(first), Some(domain_number), Some(minor)) => {
                let sdo_id = u16::from(first >> 4) << 8 | u16::from(*minor);
                let is_for = |instance: &Instance| instance.is_for(*domain_number, sdo_id);
                self.instances.iter().position(is_for)
            }
            _ => None,
        };
        at.unwrap_or(0)
    }

    /// What is about a link goes there, and all else to the instance that it is for.
    fn message(
        &mut self,
        cx: &mut Cx<'_>,
        which: usize,
        received: &Received<'_>,
    ) -> Result<(), Drop> {
        let instance = &mut self.instances[which];
        if let Some(done) = instance.exchange(cx, received) {
            return done;
        }
        let message = instance.admit(cx, received)?;
        match message.body {
            Body::PdelayReq { .. } | Body::PdelayResp { .. } | Body::PdelayRespFollowUp { .. } => {
                self.peer_delay_message(cx, which, received, &message)
            }
            Body::Signaling { .. } => {
                instance.message(cx, received, &message)?;
                self.take_interval_request(cx.now, received.index, &message);
                Ok(())
            }
            _ => instance.message(cx, received, &message),
        }
    }

    /// A token is worth one stamp, and is nobody's where its exchange was given up already.
    fn sent(&mut self, cx: &mut Cx<'_>, token: SentToken, stamp: Option<Stamp>) {
        let is_of = |each: &Instance| each.in_flight.instance() == token.instance();
        let Some(which) = self.instances.iter().position(is_of) else { return };
        let instance = &mut self.instances[which];
        let Some((on, what)) = instance.in_flight.take(token) else { return };
        let index = usize::from(on.0);
        match what {
            Sent::Sync | Sent::SyncTo { .. } | Sent::DelayReq | Sent::Request(_) | Sent::Answer => {
                instance.sent(cx, index, what, token, stamp);
            }
            Sent::PdelayReq => self.pdelay_req_sent(cx, index, token, stamp),
            Sent::PdelayResp => self.pdelay_resp_sent(cx, which, index, token, stamp),
        }
    }

    fn link_state(&mut self, cx: &mut Cx<'_>, on: PortIndex, state: LinkState) {
        let usable = self.links.get_mut(usize::from(on.0)).map_or(state, |link| {
            link.carrier = state;
            link.usable()
        });
        self.link_usable(cx, on, usable, [StateReason::LinkDown, StateReason::LinkUp]);
    }

    /// How much is stored, for the test that it is bounded.
    #[cfg(test)]
    pub(crate) fn stored(&self) -> usize {
        let of_instances = self.instances.iter().map(Instance::stored).sum::<usize>();
        of_instances + self.links.iter().map(Link::stored).sum::<usize>()
    }
}

impl Engine for Node {
    type Event = NoEvent;

    fn handle(&mut self, cx: &mut Cx<'_>, input: Input<'_>) {
        match input {
            Input::Message { on, from, bytes, stamp } => {
                let index = usize::from(on.0);
                let which = self.of_message(bytes);
                let received = Received { index, from, bytes, stamp };
                if let Err(cause) = self.message(cx, which, &received) {
                    self.instances[which].count_drop(index, cause);
                }
            }
            Input::Sent { token, stamp } => self.sent(cx, token, stamp),
            Input::Link { on, state } => self.link_state(cx, on, state),
            // A node has sockets of its own, and no pulses.
            Input::Passed(_) | Input::Pulse(_) | Input::Nmea { .. } => {}
        }
        for instance in &mut self.instances {
            instance.attend_partners(cx);
        }
        self.attend_links(cx.now);
    }

    fn handle_timeout(&mut self, cx: &mut Cx<'_>) {
        for instance in &mut self.instances {
            instance.handle_timeout(cx);
        }
        self.attend_links(cx.now);
        self.requests_due(cx);
    }

    fn next_timeout(&self) -> Option<Time<Mono>> {
        let of_instances = self.instances.iter().filter_map(Instance::next_timeout);
        of_instances.chain(self.links.iter().filter_map(Link::request_at)).min()
    }
}

impl Deref for Node {
    type Target = Instance;
    fn deref(&self) -> &Instance {
        self.instance()
    }
}
impl DerefMut for Node {
    fn deref_mut(&mut self) -> &mut Instance {
        self.instance_mut()
    }
}
