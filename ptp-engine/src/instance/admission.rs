//! Whether a message is for this clock at all, whatever it says; what is not is counted, and remembered as a hint for
//! people.

use super::{Cx, Instance, LOOPED, Received, is_of_link, overheard::Hint};
use crate::{counters::Drop, port::Role};
use ptp_common::wire::{Message, MessageType, MessageView, WireError};

impl Instance {
    /// What concerns every message, whatever it says: whether it is for this clock at all.
    pub(crate) fn admit<'m>(
        &mut self,
        cx: &mut Cx<'_>,
        received: &Received<'m>,
    ) -> Result<Message<'m>, Drop> {
        self.last_now = cx.now;
        let Received { index, bytes, .. } = *received;
        let now = cx.now;
        let view = MessageView::new(bytes).inspect_err(|error| {
            if *error == WireError::Version(1) {
                self.overheard.hear(now, Hint::Version1);
            }
        })?;
        let header = view.header();
        let kind = view.message_type();
        let source = header.source_port_identity;
        let is_of_serving =
            self.ports.iter().any(|port| port.identity == source && port.role.is_serving());
        let port = self.ports.get_mut(index).ok_or(Drop::PortDisabled)?;
        port.counters.count_received(kind);
        if matches!(port.role, Role::Disabled) {
            return Err(Drop::PortDisabled);
        }
        let is_of_link = is_of_link(port.config.link_delay, kind, &header);
        if header.domain_number != self.domain_number && !is_of_link {
            if kind == MessageType::Announce {
                let domain_number = header.domain_number;
                self.overheard.hear(now, Hint::OtherDomain { domain_number, source });
            }
            return Err(Drop::WrongDomain);
        }
        if header.sdo_id != self.sdo_id && !is_of_link {
            if kind == MessageType::Announce {
                self.overheard.hear(now, Hint::OtherSdoId { sdo_id: header.sdo_id, source });
            }
            return Err(Drop::WrongSdoId);
        }
        if source.clock_identity == self.clock_identity {
            // Of its own messages, a switch may send some back.
            let is_ours = match kind {
                MessageType::Announce | MessageType::Sync => is_of_serving,
                MessageType::DelayReq => {
                    port.delay_sequence_id.wrapping_sub(header.sequence_id) <= LOOPED
                }
                _ => true,
            };
            if !is_ours {
                self.overheard.hear(now, Hint::Twin { source });
            }
            if kind == MessageType::Announce {
                self.hear_own(cx, index, &header);
            }
            return Err(Drop::SelfSent);
        }
        Ok(Message::parse(bytes)?)
    }
}
