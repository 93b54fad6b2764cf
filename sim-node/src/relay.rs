//! A transparent clock among the simulated nodes: what a node hears by one port it sends by the others, with the time
//! that the message was inside, by the arithmetic and the keys of the kernel programs ([`ptp_common::residence`]).
//! The simulator has neither bridges nor kernels, so that the forwarding is done here, in user space, together with
//! what keeps it from going round in circles (`tc_spanning_tree`).

use std::collections::VecDeque;

use ptp_common::{
    residence::{
        CORRECTION, DELAY_REQ, DELAY_RESP, FOLLOW_UP, HEAD, Head, Key, Kind, PDELAY_REQ,
        PDELAY_RESP, PDELAY_RESP_FOLLOW_UP, PORT_IDENTITY, REQUESTER, SYNC, added, scaled,
    },
    time::{Duration, Mono, Time},
};
use ptp_engine::DelayMechanism;

/// Residences that are remembered, more than are asked for again.
const RESIDENCES: usize = 4_096;
/// Messages that wait for their events at the most, and how long.
const WAITING: usize = 64;
const PATIENCE: Duration = Duration::from_millis(500);
/// messageType of Announce.
const ANNOUNCE: u8 = 0xb;
/// Of an Announce message: from grandmasterPriority1 to stepsRemoved. In this order, byte by byte, the better of two
/// different grandmasters comes first (figure 34), and of one grandmaster what has fewer steps.
const RANK: std::ops::Range<usize> = 47..63;
/// Where stepsRemoved is in that.
const STEPS: usize = 14;
/// unicastFlag in the first octet of flagField.
const UNICAST: u8 = 0x04;
/// Announce messages that may be missing before nobody is believed to be there.
const MISSING: i32 = 3;

/// A message to send: by which port, and what.
pub(crate) type Outgoing = (u16, Vec<u8>);

/// See the module's paragraph.
#[derive(Debug)]
pub(crate) struct Relay {
    ports: u16,
    delay: DelayMechanism,
    /// `None`: the network has no circles.
    tree: Option<Tree>,
    residences: VecDeque<(Key, u64)>,
    waiting: VecDeque<Waiting>,
    /// By port, as its engine measures it.
    links: Vec<Duration>,
}

/// A general message that has overtaken its event.
#[derive(Debug)]
struct Waiting {
    since: Time<Mono>,
    came: u16,
    went: u16,
    data: Vec<u8>,
}

/// What decides by which ports messages go on.
#[derive(Debug)]
struct Tree {
    /// By port: what was announced there, and until when that counts.
    heard: Vec<Option<([u8; STEPS + 2], Time<Mono>)>>,
}

impl Tree {
    fn hear(&mut self, now: Time<Mono>, port: u16, message: &[u8]) {
        let (Some(rank), Some(place)) = (message.get(RANK), self.heard.get_mut(usize::from(port)))
        else {
            return;
        };
        let interval = Duration::from_log_interval(message[33].cast_signed());
        *place = rank.try_into().ok().map(|rank| (rank, now + interval * MISSING));
    }

    fn at(&self, now: Time<Mono>, port: u16) -> Option<&[u8; STEPS + 2]> {
        let (rank, until) = self.heard.get(usize::from(port))?.as_ref()?;
        (now < *until).then_some(rank)
    }

    /// The port towards the grandmaster.
    fn root(&self, now: Time<Mono>) -> Option<u16> {
        let ports = 0..u16::try_from(self.heard.len()).unwrap_or(u16::MAX);
        ports.filter(|port| self.at(now, *port).is_some()).min_by_key(|port| self.at(now, *port))
    }

    /// Whether somebody else is nearer to the same grandmaster on a port that is not the root.
    fn is_blocked(&self, now: Time<Mono>, root: u16, port: u16) -> bool {
        let (Some(best), Some(there)) = (self.at(now, root), self.at(now, port)) else {
            return false;
        };
        port != root && there[..STEPS] == best[..STEPS] && steps(there) <= steps(best) + 1
    }

    fn lets(&self, now: Time<Mono>, message_type: u8, came: u16, went: u16) -> bool {
        let Some(root) = self.root(now) else { return false };
        let is_down = matches!(message_type, ANNOUNCE | SYNC | FOLLOW_UP | DELAY_RESP);
        let is_on_way = if is_down { came == root } else { came == root || went == root };
        is_on_way && !self.is_blocked(now, root, came) && !self.is_blocked(now, root, went)
    }
}

fn steps(rank: &[u8; STEPS + 2]) -> u32 {
    u32::from(u16::from_be_bytes([rank[STEPS], rank[STEPS + 1]]))
}

impl Relay {
    /// Between so many ports, in a network that has circles if `has_circles`.
    pub(crate) fn new(ports: u16, delay: DelayMechanism, has_circles: bool) -> Self {
        let tree = has_circles.then(|| Tree { heard: vec![None; ports.into()] });
        Self {
            ports,
            delay,
            tree,
            residences: VecDeque::new(),
            waiting: VecDeque::new(),
            links: vec![Duration::ZERO; ports.into()],
        }
    }

    /// A port's peer delay has been measured.
    pub(crate) fn set_link(&mut self, port: u16, delay: Duration) {
        if let Some(link) = self.links.get_mut(usize::from(port)) {
            *link = delay;
        }
    }

    /// A message has arrived by a port, an event message at `arrival`. What is to be sent at `now`.
    pub(crate) fn forward(
        &mut self,
        now: Time<Mono>,
        came: u16,
        data: &[u8],
        arrival: Option<Time<Mono>>,
    ) -> Vec<Outgoing> {
        let Some(first) = data.first_chunk::<HEAD>() else { return Vec::new() };
        let head = Head::new(first);
        if !head.is_version_2() || data[6] & UNICAST != 0 {
            return Vec::new();
        }
        let message_type = head.message_type();
        if message_type == ANNOUNCE
            && let Some(tree) = &mut self.tree
        {
            tree.hear(now, came, data);
        }
        let is_ours = matches!(message_type, PDELAY_REQ | PDELAY_RESP | PDELAY_RESP_FOLLOW_UP);
        if is_ours && self.delay == DelayMechanism::P2p {
            return Vec::new();
        }
        self.waiting.retain(|it| now - it.since < PATIENCE);
        let mut out = Vec::new();
        for went in 0..self.ports {
            let is_let = self.tree.as_ref().is_none_or(|it| it.lets(now, message_type, came, went));
            if went == came || !is_let {
                continue;
            }
            match (head.kind(), arrival) {
                (Some((_, Kind::Event)), Some(arrival)) => {
                    out.push((went, self.event(&head, data, came, went, now - arrival)));
                    self.release(came, went, &mut out);
                }
                (Some((_, Kind::Event)), None) => {}
                (Some((_, Kind::General)), _) => match self.general(data, came, went) {
                    Some(data) => out.push((went, data)),
                    None if message_type == FOLLOW_UP && self.waiting.len() < WAITING => {
                        let data = data.to_vec();
                        self.waiting.push_back(Waiting { since: now, came, went, data });
                    }
                    None => out.push((went, data.to_vec())),
                },
                (None, _) => out.extend(self.other(message_type, data).map(|data| (went, data))),
            }
        }
        out
    }

    /// An event message leaves.
    fn event(
        &mut self,
        head: &Head<'_>,
        data: &[u8],
        came: u16,
        went: u16,
        residence: Duration,
    ) -> Vec<u8> {
        let mut data = data.to_vec();
        let event = head.message_type();
        let residence_ns = u64::try_from(residence.as_nanos()).unwrap_or(0);
        let key = head.key(event, &head.source(), number(came), number(went));
        self.residences.push_front((key, residence_ns));
        self.residences.truncate(RESIDENCES);
        if event == SYNC && !head.is_two_step() {
            correct(&mut data, residence_ns + self.link_ns(came));
        }
        data
    }

    /// A general message, with what its events took. `None` where nobody knows that.
    fn general(&self, data: &[u8], came: u16, went: u16) -> Option<Vec<u8>> {
        let mut corrected = data.to_vec();
        let head = Head::new(data.first_chunk()?);
        let (source, here, there) = (head.source(), number(came), number(went));
        let requester = || data.get(REQUESTER..)?.first_chunk::<PORT_IDENTITY>().copied();
        let nanos = match head.message_type() {
            FOLLOW_UP => {
                self.residence_ns(&head.key(SYNC, &source, here, there))? + self.link_ns(came)
            }
            // 10.3: no business of a peer-to-peer transparent clock.
            DELAY_RESP if self.delay == DelayMechanism::P2p => return Some(corrected),
            DELAY_RESP => self.residence_ns(&head.key(DELAY_REQ, &requester()?, there, here))?,
            _ => {
                self.residence_ns(&head.key(PDELAY_RESP, &source, here, there))?
                    + self.residence_ns(&head.key(PDELAY_REQ, &requester()?, there, here))?
            }
        };
        correct(&mut corrected, nanos);
        Some(corrected)
    }

    /// What is neither timed nor corrected.
    fn other(&self, message_type: u8, data: &[u8]) -> Option<Vec<u8>> {
        let mut data = data.to_vec();
        if message_type == ANNOUNCE && self.tree.is_some() {
            let field = data.get_mut(RANK.end - 2..RANK.end)?;
            let steps = u16::from_be_bytes([field[0], field[1]]).checked_add(1)?;
            field.copy_from_slice(&steps.to_be_bytes());
        }
        Some(data)
    }

    /// What has waited for an event that has just left.
    fn release(&mut self, came: u16, went: u16, out: &mut Vec<Outgoing>) {
        let mut waiting = std::mem::take(&mut self.waiting);
        waiting.retain(|it| {
            if (it.came, it.went) != (came, went) {
                return true;
            }
            let Some(data) = self.general(&it.data, came, went) else { return true };
            out.push((went, data));
            false
        });
        self.waiting = waiting;
    }

    fn residence_ns(&self, key: &Key) -> Option<u64> {
        self.residences.iter().find(|(known, _)| known == key).map(|(_, nanos)| *nanos)
    }

    /// Of the link by which a message came, as far as that belongs to its correction.
    fn link_ns(&self, port: u16) -> u64 {
        if self.delay != DelayMechanism::P2p {
            return 0;
        }
        let link = self.links.get(usize::from(port)).copied().unwrap_or_default();
        u64::try_from(link.as_nanos()).unwrap_or(0)
    }
}

/// Ports are numbered from 1 in a key: 0 is none.
fn number(port: u16) -> u32 {
    u32::from(port) + 1
}

/// Adds to `correctionField`, where there is room.
fn correct(message: &mut [u8], residence_ns: u64) {
    let Some(field) = message.get_mut(CORRECTION..).and_then(|it| it.first_chunk_mut::<8>()) else {
        return;
    };
    let new = scaled(residence_ns, 0).and_then(|more| added(i64::from_be_bytes(*field), more));
    if let Some(new) = new {
        *field = new.to_be_bytes();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(nanos: i64) -> Time<Mono> {
        Time::from_nanos(nanos)
    }

    /// A message of a clock: type, number, stepsRemoved of an Announce.
    fn message(message_type: u8, sequence_id: u8, steps: u8) -> Vec<u8> {
        let mut bytes = vec![0; 64];
        bytes[0] = message_type;
        bytes[1] = 2;
        bytes[3] = 64;
        bytes[6] = 2;
        bytes[27] = 9;
        bytes[31] = sequence_id;
        bytes[62] = steps;
        bytes
    }

    fn correction(message: &[u8]) -> i64 {
        i64::from_be_bytes(message[8..16].try_into().unwrap()) >> 16
    }

    #[test]
    fn follow_up_carries_the_residence_and_the_link_by_which_its_sync_came() {
        for (delay, link) in [(DelayMechanism::E2e, 0), (DelayMechanism::P2p, 500)] {
            let mut relay = Relay::new(3, delay, false);
            relay.set_link(0, Duration::from_nanos(500));
            let sync = message(SYNC, 1, 0);
            let out = relay.forward(at(130), 0, &sync, Some(at(100)));
            assert_eq!(out, [(1, sync.clone()), (2, sync.clone())]);
            let out = relay.forward(at(140), 0, &message(FOLLOW_UP, 1, 0), None);
            let seen: Vec<_> = out.iter().map(|(port, it)| (*port, correction(it))).collect();
            assert_eq!(seen, [(1, 30 + link), (2, 30 + link)]);
        }
    }

    #[test]
    fn follow_up_that_overtakes_its_sync_waits_for_it() {
        let mut relay = Relay::new(2, DelayMechanism::E2e, false);
        assert!(relay.forward(at(0), 0, &message(FOLLOW_UP, 1, 0), None).is_empty());
        let out = relay.forward(at(20), 0, &message(SYNC, 1, 0), Some(at(10)));
        assert_eq!(out.len(), 2);
        assert_eq!(correction(&out[1].1), 10);
    }

    #[test]
    fn delay_resp_carries_the_residence_of_the_request_by_the_other_way() {
        let mut relay = Relay::new(2, DelayMechanism::E2e, false);
        let request = message(DELAY_REQ, 3, 0);
        relay.forward(at(40), 1, &request, Some(at(0)));
        let mut response = message(DELAY_RESP, 3, 0);
        response[20..30].fill(7);
        response[REQUESTER..REQUESTER + 10].copy_from_slice(&request[20..30]);
        let out = relay.forward(at(50), 0, &response, None);
        assert_eq!((out[0].0, correction(&out[0].1)), (1, 40));
        // Nobody has asked.
        response[31] = 4;
        let out = relay.forward(at(50), 0, &response, None);
        assert_eq!(out, [(1, response)]);
    }

    #[test]
    fn peer_delay_is_the_links_own_business_where_links_are_accounted_for() {
        let mut relay = Relay::new(2, DelayMechanism::P2p, false);
        assert!(relay.forward(at(1), 0, &message(PDELAY_REQ, 1, 0), Some(at(0))).is_empty());
        let mut relay = Relay::new(2, DelayMechanism::E2e, false);
        assert_eq!(relay.forward(at(1), 0, &message(PDELAY_REQ, 1, 0), Some(at(0))).len(), 1);
    }

    #[test]
    fn in_a_circle_messages_go_one_way() {
        let mut relay = Relay::new(3, DelayMechanism::E2e, true);
        let sync = |number| message(SYNC, number, 0);
        assert!(relay.forward(at(1), 1, &sync(1), Some(at(0))).is_empty(), "from where?");
        let out = relay.forward(at(2), 1, &message(ANNOUNCE, 1, 2), None);
        assert_eq!(
            out.iter().map(|(port, it)| (*port, it[62])).collect::<Vec<_>>(),
            [(0, 3), (2, 3)]
        );
        // The same grandmaster by another way, as near: nothing comes or goes there.
        assert!(relay.forward(at(3), 2, &message(ANNOUNCE, 1, 2), None).is_empty());
        let out = relay.forward(at(5), 1, &sync(2), Some(at(4)));
        assert_eq!(out.iter().map(|(port, _)| *port).collect::<Vec<_>>(), [0]);
        assert!(relay.forward(at(5), 2, &sync(2), Some(at(4))).is_empty());
        // Requests go to the grandmaster alone.
        let out = relay.forward(at(6), 0, &message(DELAY_REQ, 1, 0), Some(at(6)));
        assert_eq!(out.iter().map(|(port, _)| *port).collect::<Vec<_>>(), [1]);
        // The way is gone, and the other one counts.
        let later = at(2_999_999_999);
        relay.forward(later, 2, &message(ANNOUNCE, 3, 2), None);
        let later = at(3_500_000_000);
        let out = relay.forward(later, 2, &sync(3), Some(later));
        assert_eq!(out.iter().map(|(port, _)| *port).collect::<Vec<_>>(), [0, 1]);
    }

    #[test]
    fn what_is_no_message_goes_nowhere() {
        let mut relay = Relay::new(2, DelayMechanism::E2e, false);
        assert!(relay.forward(at(0), 0, &[0; 43], Some(at(0))).is_empty());
        let mut other = message(SYNC, 1, 0);
        other[1] = 1;
        assert!(relay.forward(at(0), 0, &other, Some(at(0))).is_empty());
        let mut unicast = message(SYNC, 1, 0);
        unicast[6] |= UNICAST;
        assert!(relay.forward(at(0), 0, &unicast, Some(at(0))).is_empty());
    }
}
