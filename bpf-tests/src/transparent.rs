//! A transparent clock's programs on the ports of a switch, run by the test itself: the agent's loop is not
//! there, so that it is the test that decides when somebody is. And messages in frames of every kind, with
//! checksums as they must be.

use std::time::Duration;

use aya::maps::HashMap;
use ptp_agent::{
    lab::netns::Namespace,
    transparent::programs::{Departure, Programs},
};
use ptp_common::{
    classify::{PORT_EVENT, PORT_GENERAL, classify},
    residence::{Key, Outcome, UNCERTAIN, config, count_index},
    wire::{Body, Flags, Header, PortIdentity, TimeInterval, Timestamp},
};

use crate::{
    forge::message,
    frames::{Payload, Recipe},
    raw::{FrameListener, FrameSocket},
};

/// How long a frame may take; the machine may be busy with other things.
pub const PATIENCE: Duration = Duration::from_secs(10);

/// Programs on the interfaces of a namespace, which are ports 1, 2, 3 and so on.
pub struct Clock {
    namespace: Namespace,
    /// `None` only while dropping.
    programs: Option<Programs>,
    numbers: [u64; config::LENGTH],
}

impl Clock {
    /// Attaches to the interfaces, without a queue if `has_no_queue`, and says that somebody is there.
    ///
    /// # Panics
    /// If the programs cannot be loaded or attached.
    pub fn new(namespace: &Namespace, interfaces: &[&str], has_no_queue: bool) -> Self {
        let programs = namespace
            .run(|| {
                let mut programs = Programs::load(Departure::default()).unwrap();
                for (number, interface) in (1..).zip(interfaces) {
                    let ifindex = nix::net::if_::if_nametoindex(*interface).unwrap();
                    programs.attach(ifindex, interface).unwrap();
                    programs.set_port(ifindex, Some((number, has_no_queue))).unwrap();
                }
                programs
            })
            .unwrap();
        let mut numbers = [0; config::LENGTH];
        for at in [config::TIME_UNTIL, config::ALTER_UNTIL, config::HOLD_UNTIL] {
            numbers[at] = u64::MAX;
        }
        numbers[config::EVENTS_PER_SECOND] = 100_000;
        let mut this = Self { namespace: namespace.clone(), programs: Some(programs), numbers };
        this.tell(&[]);
        this
    }

    /// The programs.
    ///
    /// # Panics
    /// Never: they are there until the value is dropped.
    pub fn programs(&mut self) -> &mut Programs {
        self.programs.as_mut().unwrap()
    }

    /// Tells the programs some numbers of [`config`] anew.
    ///
    /// # Panics
    /// If the kernel refuses.
    pub fn tell(&mut self, numbers: &[(usize, u64)]) {
        for (at, number) in numbers {
            self.numbers[*at] = *number;
        }
        let numbers = self.numbers;
        self.programs().tell(numbers).unwrap();
    }

    /// Makes it so that nobody knows when those have left that have passed so far.
    ///
    /// # Panics
    /// If the kernel refuses.
    pub fn forget_departures(&mut self) {
        let map = self.programs().ebpf().map_mut("RESIDENCES").unwrap();
        let mut map: HashMap<_, Key, [u64; 3]> = HashMap::try_from(map).unwrap();
        let known: Vec<_> = map.iter().map(Result::unwrap).collect();
        for (key, [arrival, _, _]) in known {
            map.insert(key, [arrival, UNCERTAIN, 0], 0).unwrap();
        }
    }

    /// How often a port has counted an outcome of a type (by its place among the types).
    pub fn count(&mut self, port: u8, kind: u32, outcome: Outcome) -> u64 {
        self.programs().counts(port)[count_index(0, kind, outcome as u32) as usize]
    }
}

impl Drop for Clock {
    fn drop(&mut self) {
        let programs = self.programs.take();
        let _ = self.namespace.run(|| drop(programs));
    }
}

/// What carries a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Carrier {
    /// Ethernet.
    Ethernet,
    /// Ethernet in a VLAN.
    Tagged,
    /// UDP over IPv4.
    Udp4,
    /// UDP over IPv6.
    Udp6,
}

impl Carrier {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Ethernet, Self::Tagged, Self::Udp4, Self::Udp6];

    /// A message in a frame.
    pub fn frame(self, message: &[u8]) -> Vec<u8> {
        let mut recipe = match self {
            Self::Ethernet | Self::Tagged => Recipe::sync_on_ethernet(),
            Self::Udp4 => Recipe::sync_on_udp4(),
            Self::Udp6 => Recipe::sync_on_udp6(),
        };
        if self == Self::Tagged {
            recipe.tags.push((0x8100, 5));
        }
        let port = if message[0] & 0x0f < 8 { PORT_EVENT } else { PORT_GENERAL };
        if let Payload::Ipv4 { ports, .. } | Payload::Ipv6 { ports, .. } = &mut recipe.payload {
            ports[1] = port;
        }
        recipe.message = message.to_vec();
        let mut frame = recipe.frame();
        if let Some(sum) = udp_sum(&frame) {
            let at = udp_at(&frame).unwrap_or_default();
            let sum = match !sum {
                0 => 0xffff,
                sum => sum,
            };
            frame[at + 6..at + 8].copy_from_slice(&sum.to_be_bytes());
        }
        frame
    }
}

fn udp_at(frame: &[u8]) -> Option<usize> {
    let location = classify(frame).ok()?;
    (location.l3_offset != location.ptp_offset).then(|| location.ptp_offset - 8)
}

/// The one's complement sum of a UDP datagram and its pseudo header: 0xffff where the checksum is right.
/// `None` where it is no UDP.
pub fn udp_sum(frame: &[u8]) -> Option<u16> {
    let location = classify(frame).ok()?;
    let at = udp_at(frame)?;
    let length = usize::from(u16::from_be_bytes([frame[at + 4], frame[at + 5]]));
    let addresses = if frame[location.l3_offset] >> 4 == 4 {
        &frame[location.l3_offset + 12..location.l3_offset + 20]
    } else {
        &frame[location.l3_offset + 8..location.l3_offset + 40]
    };
    let words = |bytes: &[u8]| {
        let word = |it: &[u8]| u64::from(it[0]) << 8 | u64::from(it.get(1).copied().unwrap_or(0));
        bytes.chunks(2).map(word).sum::<u64>()
    };
    let mut sum = words(addresses) + words(frame.get(at..at + length)?) + length as u64 + 17;
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    Some(sum as u16)
}

/// Sums the IPv4 header of a frame without tags and options anew.
pub fn sum_header(frame: &mut [u8]) {
    frame[24..26].fill(0);
    let words = frame[14..34].chunks(2).map(|it| u32::from(it[0]) << 8 | u32::from(it[1]));
    let sum = words.sum::<u32>();
    let sum = (sum & 0xffff) + (sum >> 16);
    let sum = !((sum & 0xffff) + (sum >> 16)) as u16;
    frame[24..26].copy_from_slice(&sum.to_be_bytes());
}

/// The message in a frame, without padding; `None` where there is none.
pub fn ptp(frame: &[u8]) -> Option<&[u8]> {
    let begin = classify(frame).ok()?.ptp_offset;
    let length = frame.get(begin + 2..begin + 4)?;
    let length = usize::from(u16::from_be_bytes([length[0], length[1]]));
    frame.get(begin..begin + length).or(frame.get(begin..))
}

/// `correctionField` of a message in nanoseconds, rounded down.
///
/// # Panics
/// If the message has none.
pub fn correction_ns(message: &[u8]) -> i64 {
    i64::from_be_bytes(message[8..16].try_into().unwrap()) >> 16
}

/// A two-step Sync.
pub fn sync(source: PortIdentity, sequence_id: u16) -> Vec<u8> {
    let header = Header { flags: Flags::TWO_STEP, ..Header::new(source, sequence_id) };
    message(header, Body::Sync { origin_timestamp: Timestamp::default() })
}

/// A one-step Sync.
pub fn one_step(source: PortIdentity, sequence_id: u16) -> Vec<u8> {
    message(Header::new(source, sequence_id), Body::Sync { origin_timestamp: Timestamp::default() })
}

/// Its Follow_Up, with a correction in 2^-16 ns.
pub fn follow_up(source: PortIdentity, sequence_id: u16, correction: i64) -> Vec<u8> {
    let header =
        Header { correction: TimeInterval(correction), ..Header::new(source, sequence_id) };
    message(header, Body::FollowUp { precise_origin_timestamp: Timestamp::default() })
}

/// A Delay_Req.
pub fn delay_req(source: PortIdentity, sequence_id: u16) -> Vec<u8> {
    message(
        Header::new(source, sequence_id),
        Body::DelayReq { origin_timestamp: Timestamp::default() },
    )
}

/// A Delay_Resp to `requester`.
pub fn delay_resp(source: PortIdentity, sequence_id: u16, requester: PortIdentity) -> Vec<u8> {
    let body = Body::DelayResp {
        receive_timestamp: Timestamp::default(),
        requesting_port_identity: requester,
    };
    message(Header::new(source, sequence_id), body)
}

/// A host's side of a wire.
pub struct Side {
    send: FrameSocket,
    listen: FrameListener,
}

impl Side {
    /// `eth0` of a namespace.
    ///
    /// # Panics
    /// If it has none.
    pub fn of(namespace: &Namespace) -> Self {
        let open = || Self {
            send: FrameSocket::open("eth0").unwrap(),
            listen: FrameListener::open("eth0").unwrap(),
        };
        namespace.run(open).unwrap()
    }

    /// Sends a frame.
    ///
    /// # Panics
    /// If the kernel refuses.
    pub fn send(&self, frame: &[u8]) {
        self.send.send(frame).unwrap();
    }

    /// The next message that is of the same type, sender and number, with its whole frame.
    ///
    /// # Panics
    /// If none comes.
    pub fn hear(&self, like: &[u8]) -> (Vec<u8>, Vec<u8>) {
        self.hear_within(PATIENCE, like).expect("the message arrives")
    }

    /// The message of these two that comes first.
    ///
    /// # Panics
    /// If none comes.
    pub fn hear_first(&self, of: [&[u8]; 2]) -> Vec<u8> {
        let heard = self.listen.hear(PATIENCE, |frame| {
            let message = ptp(frame)?;
            of.iter().any(|like| message.get(..) == Some(*like)).then(|| message.to_vec())
        });
        heard.expect("one of the messages arrives")
    }

    /// The message of the type, sender and number of one of these two that comes first.
    ///
    /// # Panics
    /// If none comes.
    pub fn hear_type_of(&self, of: [&[u8]; 2]) -> (Vec<u8>, Vec<u8>) {
        let heard = self.listen.hear(PATIENCE, |frame| {
            let message = ptp(frame)?;
            let is_like = |like: &&[u8]| {
                message.len() >= 32
                    && message[0] & 0x0f == like[0] & 0x0f
                    && message[20..32] == like[20..32]
            };
            of.iter().any(is_like).then(|| (message.to_vec(), frame.to_vec()))
        });
        heard.expect("one of the messages arrives")
    }

    /// As [`Side::hear`], or `None` if none comes in time.
    pub fn hear_within(&self, patience: Duration, like: &[u8]) -> Option<(Vec<u8>, Vec<u8>)> {
        self.listen.hear(patience, |frame| {
            let message = ptp(frame)?;
            let is_it = message.len() >= 32
                && message[0] & 0x0f == like[0] & 0x0f
                && message[20..32] == like[20..32];
            is_it.then(|| (message.to_vec(), frame.to_vec()))
        })
    }
}

/// A frame over IPv4 in somebody's name, with checksums that are right; others as they are.
pub fn in_the_name_of(address: [u8; 4], mut frame: Vec<u8>) -> Vec<u8> {
    if frame[12..14] == [0x08, 0x00] {
        frame[26..30].copy_from_slice(&address);
        sum_header(&mut frame);
        frame[40..42].fill(0);
        let sum = !udp_sum(&frame).unwrap_or_default();
        frame[40..42].copy_from_slice(&sum.to_be_bytes());
    }
    frame
}
