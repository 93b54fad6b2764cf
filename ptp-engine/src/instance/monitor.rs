//! NetSync Monitor: somebody asks a clock, whatever role it has, for its time and its data sets by a unicast Delay_Req
//! with an empty TLV (linuxptp's `nsm`). The answer is a Delay_Resp with the data sets, and a Sync with its Follow_Up.
//!
//! Three messages go out for one, so that only those networks are answered that are the host's own or that it was told,
//! and so many a second.

use super::{Cx, Instance, Received, port::transmitter::UNICAST_INTERVAL};
use crate::prelude::*;
use crate::{
    Datagram, Destination, PortIndex, address::Address, counters::Drop, fair::FairShare,
    prefix::Prefix, sent::Sent,
};
use ptp_common::{
    data_set::CurrentDataSet,
    time::{Duration, Mono, Ptp, Time},
    wire::{
        Body, Flags, Header, Message, MessageType, NetSyncResponse, PortIdentity, TimeInterval,
        Timestamp, Tlv, TlvBuilder, TlvType,
        management::{NetworkProtocol, PortAddress},
    },
};

/// Answers per second, of all that ask.
const ANSWERS_PER_SECOND: u32 = 100;
/// Length of a Delay_Resp without TLVs.
const DELAY_RESP: usize = MessageType::DelayResp.fixed_length();

/// What an instance knows that may be monitored.
#[derive(Debug)]
pub(crate) struct Monitored {
    share: FairShare,
    /// Who is answered; Ethernet's senders always are, which are on the link.
    networks: Vec<Prefix>,
    /// Of the ports.
    own: Vec<Option<Address>>,
    /// Where the parent's Announce come from.
    parent: Option<(PortIdentity, Address)>,
    /// What was measured last, and when that Sync came in.
    measured: Option<(Duration, Duration, Time<Ptp>)>,
}

impl Instance {
    /// Who may ask for its time and its data sets; nobody: nobody. `own` are the addresses of its ports, as far as they
    /// have any.
    pub fn set_monitored(
        &mut self,
        now: Time<Mono>,
        networks: Option<Vec<Prefix>>,
        own: Vec<Option<Address>>,
    ) {
        let Some(networks) = networks else {
            self.monitored = None;
            return;
        };
        let seed = self.served.seed;
        let monitored = self.monitored.get_or_insert_with(|| {
            Box::new(Monitored {
                share: FairShare::new(ANSWERS_PER_SECOND, seed, now),
                networks: Vec::new(),
                own: Vec::new(),
                parent: None,
                measured: None,
            })
        });
        (monitored.networks, monitored.own) = (networks, own);
    }

    /// Whether it may be asked.
    pub const fn is_monitored(&self) -> bool {
        self.monitored.is_some()
    }

    /// What was measured last: the offset, the path delay, and the clock's time at which that Sync came in.
    pub fn note_measured(&mut self, offset: Duration, delay: Duration, at: Time<Ptp>) {
        if let Some(monitored) = &mut self.monitored {
            monitored.measured = Some((offset, delay, at));
        }
    }

    /// Where the parent is.
    pub(super) fn note_parent_address(&mut self, received: &Received<'_>, header: &Header) {
        let source = header.source_port_identity;
        let is_parent = self.parent_on(received.index) == Some(source);
        if let (Some(monitored), true, Some(from)) = (&mut self.monitored, is_parent, received.from)
        {
            monitored.parent = Some((source, from));
        }
    }

    /// A request of a monitor; `None` where a message is none, or nobody may ask.
    pub(super) fn monitor_request(
        &mut self,
        cx: &mut Cx<'_>,
        received: &Received<'_>,
        message: &Message<'_>,
    ) -> Option<Result<(), Drop>> {
        if matches!(message.body, Body::Announce(_)) {
            self.note_parent_address(received, &message.header);
            return None;
        }
        let Body::DelayReq { .. } = message.body else { return None };
        let monitored = self.monitored.as_mut()?;
        let header = message.header;
        message.tlvs.find(NetSyncResponse::REQUEST)?;
        let from = received.from.filter(|_| header.flags.contains(Flags::UNICAST))?;
        if let Address::Socket(socket) = from
            && !monitored.networks.iter().any(|network| network.contains(socket.ip()))
        {
            return Some(Err(Drop::WouldAmplify));
        }
        let who = (header.source_port_identity, from);
        if !monitored.share.admit(cx.now, &from, &who) {
            return Some(Err(Drop::RateLimited));
        }
        let Some(arrival) = received.stamp.and_then(|stamp| cx.clock.at(stamp.time)) else {
            return Some(Err(Drop::MissingRxStamp));
        };
        self.answer_monitor(cx, received.index, &header, from, arrival);
        Some(Ok(()))
    }

    fn answer_monitor(
        &mut self,
        cx: &mut Cx<'_>,
        index: usize,
        request: &Header,
        from: Address,
        arrival: Time<Ptp>,
    ) {
        let mut value = [0; NetSyncResponse::MAX_LENGTH];
        let length = self.data_sets_for_monitor(cx.now, index, &mut value);
        let mut header = self.header(index, request.sequence_id);
        header.flags |= Flags::UNICAST;
        header.log_message_interval = UNICAST_INTERVAL;
        let (receive_timestamp, fraction) = Timestamp::from_time(arrival);
        let mut answer = header;
        // 11.3.2 c) 3).
        answer.correction = TimeInterval(request.correction.0.saturating_sub(fraction.0));
        let body = Body::DelayResp {
            receive_timestamp,
            requesting_port_identity: request.source_port_identity,
        };
        let mut buffer = [0; Datagram::CAPACITY - DELAY_RESP];
        let mut tlvs = TlvBuilder::new(&mut buffer);
        // Cannot fail: there is room for it.
        let pushed = tlvs.push(Tlv { kind: TlvType::PTPMON_RESP, value: &value[..length] });
        let told = pushed.and_then(|()| Datagram::with_tlvs(answer, body, tlvs.finish()));
        let Ok(message) = told else { return };
        let to = Destination::Unicast(from);
        self.send(cx, index, MessageType::DelayResp, to, message, None);
        let sequence_id = request.sequence_id;
        let what = Sent::SyncTo { to: from, sequence_id };
        let token = self.in_flight.put(PortIndex(index as u16), what);
        header.flags |= Flags::TWO_STEP;
        let message = Datagram::new(header, Body::Sync { origin_timestamp: Timestamp::ZERO });
        self.send(cx, index, MessageType::Sync, to, message, Some(token));
        self.ports[index].counters.answers += 1;
    }

    fn data_sets_for_monitor(
        &self,
        now: Time<Mono>,
        index: usize,
        value: &mut [u8; NetSyncResponse::MAX_LENGTH],
    ) -> usize {
        let parent = self.parent_data_set(now);
        let monitored = self.monitored.as_deref();
        let of_parent = monitored.and_then(|monitored| monitored.parent);
        let of_parent = of_parent.filter(|(whose, _)| *whose == parent.parent_port_identity);
        let own = monitored.and_then(|monitored| monitored.own.get(index).copied().flatten());
        let mut octets = [0; 16];
        let address = of_parent.map(|(_, address)| address).or(own);
        let unknown = PortAddress { protocol: NetworkProtocol::UDS, address: &[] };
        let parent_address = address.map_or(unknown, |it| it.port_address(&mut octets));
        let measured = monitored.and_then(|monitored| monitored.measured);
        let measured = measured.filter(|_| self.parent.is_some());
        let (offset, delay) =
            measured.map_or((Duration::ZERO, Duration::ZERO), |(offset, delay, _)| (offset, delay));
        let last_sync = measured.map_or(Timestamp::ZERO, |(_, _, at)| Timestamp::from_time(at).0);
        let response = NetSyncResponse {
            port_state: self.ports[index].role.state().number(),
            parent_address,
            parent,
            current: CurrentDataSet {
                steps_removed: self.steps_removed(),
                offset_from_master: offset.into(),
                mean_path_delay: delay.into(),
            },
            time_properties: self.time_properties(),
            last_sync,
        };
        response.value(value)
    }
}
