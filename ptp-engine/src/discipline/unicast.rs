//! What a time receiver is told of those whom it asks for time.

use super::{Context, Discipline, Event};
use crate::{PortIndex, address::Address, clock::Clock, prefix::Prefix, prelude::*};

impl<C: Clock> Discipline<C> {
    /// As for [`crate::instance::Instance::set_partner`].
    pub fn set_partner(
        &mut self,
        cx: &mut Context<'_, Event>,
        port: PortIndex,
        number: u16,
        address: Option<Address>,
    ) {
        self.give(cx, |node, inner| {
            node.instance_mut().set_partner(inner, port, number, address);
        });
    }

    /// As for [`crate::instance::Instance::set_networks`].
    pub fn set_networks(&mut self, networks: Vec<Prefix>) {
        self.node.instance_mut().set_networks(networks);
    }

    /// As for [`crate::instance::Instance::end_unicast`].
    pub fn end_unicast(&mut self, cx: &mut Context<'_, Event>) {
        self.give(cx, |node, inner| while node.instance_mut().end_unicast(inner) {});
    }
}
