//! What an instance says: messages to the network, everything else to whoever drives it.

use super::{Cx, Instance};
use crate::{
    Datagram, PortIndex, SentToken,
    counters::Drop,
    seam::{Command, Commands, Destination, Group, NoEvent, Pushed, Transmit},
};
use ptp_common::wire::MessageType;

impl Instance {
    /// Sends an event message, whose stamp comes back with `token`.
    pub(crate) fn send_event(
        &mut self,
        cx: &mut Cx<'_>,
        index: usize,
        kind: MessageType,
        token: SentToken,
        to: Group,
        message: Datagram,
    ) {
        let to = self.group(index, to);
        self.send(cx, index, kind, Destination::Multicast(to), message, Some(token));
    }

    /// Which group a message for `to` goes to: with IEEE 802.1AS all to the one that bridges do not forward (10.4.3).
    fn group(&self, index: usize, to: Group) -> Group {
        if self.ports[index].config.rules.are_gptp() { Group::Peer } else { to }
    }

    pub(crate) fn send_general(
        &mut self,
        cx: &mut Cx<'_>,
        index: usize,
        kind: MessageType,
        to: Group,
        message: Datagram,
    ) {
        let to = self.group(index, to);
        self.send(cx, index, kind, Destination::Multicast(to), message, None);
    }

    pub(crate) fn send(
        &mut self,
        cx: &mut Cx<'_>,
        index: usize,
        kind: MessageType,
        to: Destination,
        message: Datagram,
        token: Option<SentToken>,
    ) {
        self.ports[index].counters.count_sent(kind);
        let on = PortIndex(index as u16);
        self.push(cx.out, Command::Send(Transmit { on, to, message, token }));
    }

    pub(crate) fn push(&mut self, out: &mut Commands<NoEvent>, command: Command<NoEvent>) {
        if out.push(command) == Pushed::AtACost {
            self.stray.count_drop(Drop::ActionOverflow);
        }
    }
}
