//! A server in a flood of requests by one host: the others keep their answers. Needs root.

use std::{
    net::{Ipv4Addr, SocketAddr, UdpSocket},
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

#[test]
fn honest_clients_keep_their_answers_while_one_host_floods() {
    let _machine = alone();
    let star = need!(Star::new(3));
    let [server, client, attacker] = &star.leaves[..] else { unreachable!() };
    let mut agent = Agent::start(server, &["serve", "-i", "eth0"]);
    let is_over = AtomicBool::new(false);
    let sent = AtomicU64::new(0);
    let (asked, answered) = thread::scope(|scope| {
        scope.spawn(|| {
            let flooded = attacker.run(|| {
                let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 319)).expect("port 319");
                flood(&socket, &is_over)
            });
            sent.store(flooded.expect("the namespace is there"), Ordering::Relaxed);
        });
        thread::sleep(BEFORE);
        let answers = client.run(|| {
            let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 320)).expect("port 320");
            let sender = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 319)).expect("port 319");
            socket.set_read_timeout(Some(Duration::from_millis(10))).expect("a timeout");
            let (mut asked, mut answered) = (0, std::collections::BTreeSet::new());
            let begin = Instant::now();
            let end = Duration::from_secs(SECONDS);
            let mut buffer = [0; 256];
            while begin.elapsed() < end + Duration::from_secs(1) {
                let due = begin + Duration::from_nanos(u64::from(asked) * 1_000_000_000 / HONEST);
                if begin.elapsed() < end && Instant::now() >= due {
                    let to = SocketAddr::from((SERVER, 319));
                    sender.send_to(&request((asked % 10) as u8 + 1, asked), to).expect("a way");
                    asked += 1;
                }
                if let Ok((length, _)) = socket.recv_from(&mut buffer)
                    && let Ok(view) = MessageView::new(&buffer[..length])
                {
                    answered.insert(view.header().sequence_id);
                }
            }
            (asked, answered.len())
        });
        is_over.store(true, Ordering::Relaxed);
        answers.expect("the namespace is there")
    });
    let summary = agent.finish();
    println!(
        "flooder sent {}; {answered} of {asked} answered\n{summary}",
        sent.load(Ordering::Relaxed)
    );
    assert!(answered * 100 >= usize::from(asked) * 97, "{answered} of {asked}: {summary}");
}
