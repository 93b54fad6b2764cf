//! A server in a flood of requests by one host: the others keep their answers. Needs root.

use std::{
    collections::BTreeSet,
    net::{Ipv4Addr, SocketAddr, UdpSocket},
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::{Duration, Instant},
};

use bpf_tests::{
    agent::Agent,
    alone,
    forge::{message, port},
    links::Star,
    need,
};
use ptp_agent::lab::netns::Namespace;
use ptp_common::wire::{Body, Flags, Header, Message, Timestamp};

const SERVER: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);
/// Requests per second of the flooder, as many as the machine can make of this.
const FLOOD: u64 = 100_000;
const BURST: u64 = 50;
const SECONDS: u64 = 6;
/// The flood has begun, and the server has seen what it is.
const BEFORE: Duration = Duration::from_secs(1);
/// For so long a client has asked before, so that it is known.
const KNOWN: Duration = Duration::from_secs(2);
/// Requests per second of an honest client.
const HONEST: u64 = 80;

fn request(identity: u8, sequence_id: u16) -> Vec<u8> {
    let header = Header { flags: Flags::UNICAST, ..Header::new(port(identity), sequence_id) };
    message(header, Body::DelayReq { origin_timestamp: Timestamp::ZERO })
}

/// Sends requests with ever other identities until it is told to end; how many.
fn flood(socket: &UdpSocket, is_over: &AtomicBool) -> u64 {
    let begin = Instant::now();
    let mut sent = 0_u64;
    let mut message = request(0x66, 0);
    while !is_over.load(Ordering::Relaxed) {
        let due = begin + Duration::from_nanos(sent * 1_000_000_000 / FLOOD);
        thread::sleep(due.saturating_duration_since(Instant::now()));
        for _ in 0..BURST {
            message[20..28].copy_from_slice(&sent.to_be_bytes());
            sent += u64::from(socket.send_to(&message, (SERVER, 319)).is_ok());
        }
    }
    sent
}

/// A client that asks at its own pace, by ten identities in turn.
struct Client {
    event: UdpSocket,
    general: UdpSocket,
    first: u8,
}

/// When what was asked, by its number, and what of it was answered.
struct Asked {
    at: Vec<Instant>,
    answered: BTreeSet<u16>,
}

impl Client {
    fn new(namespace: &Namespace, first: u8) -> Self {
        let open = |port| UdpSocket::bind((Ipv4Addr::UNSPECIFIED, port)).expect("the port");
        let [event, general] =
            [319, 320].map(|port| namespace.run(|| open(port)).expect("the namespace is there"));
        general.set_read_timeout(Some(Duration::from_millis(10))).expect("a timeout");
        Self { event, general, first }
    }

    fn ask(&self, span: Duration) -> Asked {
        let (mut at, mut answered) = (Vec::new(), BTreeSet::new());
        let begin = Instant::now();
        let mut buffer = [0; 256];
        while begin.elapsed() < span + Duration::from_secs(1) {
            let asked = at.len() as u64;
            let due = begin + Duration::from_nanos(asked * 1_000_000_000 / HONEST);
            if begin.elapsed() < span && Instant::now() >= due {
                let to = SocketAddr::from((SERVER, 319));
                let identity = self.first + (asked % 10) as u8;
                // A full send buffer, in a flood, is a request that was not made.
                if self.event.send_to(&request(identity, asked as u16), to).is_ok() {
                    at.push(Instant::now());
                }
            }
            if let Ok((length, _)) = self.general.recv_from(&mut buffer)
                && let Ok(Message { header, body, .. }) = Message::parse(&buffer[..length])
                && let Body::DelayResp { requesting_port_identity: asker, .. } = body
            {
                let is_ours = (0..10).any(|n| asker == port(self.first + n));
                answered.extend(is_ours.then_some(header.sequence_id));
            }
        }
        Asked { at, answered }
    }
}

impl Asked {
    /// How many were asked from then on, and how many of them were answered.
    fn since(&self, begun: Instant) -> (usize, usize) {
        let first = self.at.iter().filter(|at| **at < begun).count();
        let answered = self.answered.iter().filter(|number| usize::from(**number) >= first);
        (self.at.len() - first, answered.count())
    }
}

#[test]
fn honest_clients_keep_their_answers_while_one_host_floods() {
    let _machine = alone();
    let star = need!(Star::new(3));
    let [server, elsewhere, attacker] = &star.leaves[..] else { unreachable!() };
    let mut agent = Agent::start(server, &["serve", "-i", "eth0"]);
    // One at the flooder's own address, which has asked before he began, and one at another.
    let (beside, apart) = (Client::new(attacker, 0x11), Client::new(elsewhere, 0x31));
    let is_over = AtomicBool::new(false);
    let span = Duration::from_secs(SECONDS);
    let (of_beside, of_apart, begun, sent) = thread::scope(|scope| {
        let earlier = scope.spawn(|| beside.ask(KNOWN + BEFORE + span));
        thread::sleep(KNOWN);
        let flooding = scope.spawn(|| flood(&beside.event, &is_over));
        thread::sleep(BEFORE);
        let begun = Instant::now();
        let of_apart = apart.ask(span);
        let of_beside = earlier.join().expect("a client");
        is_over.store(true, Ordering::Relaxed);
        (of_beside, of_apart, begun, flooding.join().expect("a flooder"))
    });
    let summary = agent.finish();
    let (asked, answered) = of_apart.since(begun);
    let (asked_beside, answered_beside) = of_beside.since(begun);
    println!(
        "flooder sent {sent}; {answered} of {asked} answered, \
         of his own address {answered_beside} of {asked_beside}\n{summary}"
    );
    assert!(answered * 100 >= asked * 97, "{answered} of {asked}: {summary}");
    assert!(answered_beside * 2 >= asked_beside, "{answered_beside} of {asked_beside}: {summary}");
}
