//! This host as a PTP Node (IEEE 1588-2019 3.1.49): its instances, one for each domain and sdoId. All stamps
//! are on the host's one monotonic clock, so that several ports and instances need no clock each: what "jbod"
//! means elsewhere, a clock per port that has to be told from the others, does not exist here.

use ptp_common::time::{Mono, Time};

use crate::prelude::*;
use crate::{
    instance::{Cx, Instance},
    seam::{Engine, Input, NoEvent},
};

/// See the module's paragraph.
#[derive(Debug)]
pub struct Node {
    /// Never empty.
    instances: Vec<Instance>,
}

impl Node {
    /// A node of `instance` alone.
    pub fn new(instance: Instance) -> Self {
        Self { instances: vec![instance] }
    }

    /// With another instance, of another domain, on the same ports.
    #[must_use]
    pub fn with(mut self, mut instance: Instance) -> Self {
        let number = u16::try_from(self.instances.len()).unwrap_or(u16::MAX);
        instance.in_flight.of_instance(number);
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

    /// Whose a message is by `domainNumber` and `sdoId` (7.1); the first instance counts what is nobody's.
    fn of_message(&mut self, bytes: &[u8]) -> &mut Instance {
        let at = match (bytes.first(), bytes.get(4), bytes.get(5)) {
            (Some(first), Some(domain_number), Some(minor)) => {
                let sdo_id = u16::from(first >> 4) << 8 | u16::from(*minor);
                let is_for = |instance: &Instance| instance.is_for(*domain_number, sdo_id);
                self.instances.iter().position(is_for)
            }
            _ => None,
        };
        &mut self.instances[at.unwrap_or(0)]
    }
}

impl Engine for Node {
    type Event = NoEvent;

    fn handle(&mut self, cx: &mut Cx<'_>, input: Input<'_>) {
        match input {
            Input::Message { bytes, .. } => self.of_message(bytes).handle(cx, input),
            Input::Sent { token, .. } => {
                let of_it = |each: &&mut Instance| each.in_flight.instance() == token.instance();
                if let Some(instance) = self.instances.iter_mut().find(of_it) {
                    instance.handle(cx, input);
                }
            }
            Input::Link { .. } => {
                for instance in &mut self.instances {
                    instance.handle(cx, input);
                }
            }
            // A node has sockets of its own.
            Input::Passed(_) => {}
        }
    }

    fn handle_timeout(&mut self, cx: &mut Cx<'_>) {
        for instance in &mut self.instances {
            instance.handle_timeout(cx);
        }
    }

    fn next_timeout(&self) -> Option<Time<Mono>> {
        self.instances.iter().filter_map(Instance::next_timeout).min()
    }
}
