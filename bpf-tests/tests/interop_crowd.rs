//! A server in a flood of requests by one host: the others keep their answers. Needs root.

use std::{
    net::{Ipv4Addr, UdpSocket},
    sync::atomic::{AtomicBool, AtomicU64, Ordering},
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
use ptp_common::wire::{Body, Flags, Header, MessageView, Timestamp};

const SERVER: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);
/// Requests per second of the flooder, as many as the machine can make of this.
const FLOOD: u64 = 100_000;
const BURST: u64 = 50;
const SECONDS: u64 = 6;
/// The flood has begun, and the server has seen what it is.
const BEFORE: Duration = Duration::from_secs(1);
/// So long a client asks before the flood that is to pass from the flooder's address.
const KNOWN: Duration = Duration::from_millis(1_500);
/// Requests per second of the honest clients together.
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

/// Asks from this thread's namespace as so many clients in turns, and counts which requests are answered, for so long.
fn ask(identities: (u8, u8), per_second: u64, seconds: Duration) -> (u16, usize) {
    let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 320)).expect("port 320");
    let sender = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).expect("a port");
    socket.set_read_timeout(Some(Duration::from_millis(10))).expect("a timeout");
    let (first, count) = identities;
    let (mut asked, mut answered) = (0_u16, std::collections::BTreeSet::new());
    let begin = Instant::now();
    let mut buffer = [0; 256];
    while begin.elapsed() < seconds + Duration::from_secs(1) {
        let due = begin + Duration::from_nanos(u64::from(asked) * 1_000_000_000 / per_second);
        if begin.elapsed() < seconds && Instant::now() >= due {
            let who = first + (asked % u16::from(count)) as u8;
            sender.send_to(&request(who, asked), (SERVER, 319)).expect("a way");
            asked += 1;
        }
        if let Ok((length, _)) = socket.recv_from(&mut buffer)
            && let Ok(view) = MessageView::new(&buffer[..length])
        {
            answered.insert(view.header().sequence_id);
        }
    }
    (asked, answered.len())
}

#[test]
fn honest_clients_keep_their_answers_while_one_host_floods() {
    let _machine = alone();
    let star = need!(Star::new(3));
    let [server, client, attacker] = &star.leaves[..] else { unreachable!() };
    let mut agent = Agent::start(server, &["serve", "-i", "eth0", "--kernel-answers", "off"]);
    let is_over = AtomicBool::new(false);
    let sent = AtomicU64::new(0);
    let (others, same) = thread::scope(|scope| {
        // Whoever asked from the flooder's own address before he began.
        let same = scope.spawn(|| {
            let seconds = KNOWN + BEFORE + Duration::from_secs(SECONDS);
            attacker.run(|| ask((0x21, 2), 20, seconds)).expect("the namespace is there")
        });
        thread::sleep(KNOWN);
        scope.spawn(|| {
            let flooded = attacker.run(|| {
                let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 319)).expect("port 319");
                flood(&socket, &is_over)
            });
            sent.store(flooded.expect("the namespace is there"), Ordering::Relaxed);
        });
        thread::sleep(BEFORE);
        let seconds = Duration::from_secs(SECONDS);
        let others = client.run(|| ask((1, 10), HONEST, seconds));
        let same = same.join().expect("it asked");
        is_over.store(true, Ordering::Relaxed);
        (others.expect("the namespace is there"), same)
    });
    let log: Vec<String> = agent.lines().iter().map(|line| line.text.clone()).collect();
    let summary = agent.finish();
    println!("flooder sent {}; {others:?}, {same:?}\n{summary}", sent.load(Ordering::Relaxed));
    for (asked, answered) in [others, same] {
        assert!(answered * 100 >= usize::from(asked) * 97, "{others:?} {same:?}: {summary}");
    }
    // What the kernel holds back of it is a flood all the same.
    assert!(log.iter().any(|line| line.contains("request_flood")), "{log:#?}");
}
