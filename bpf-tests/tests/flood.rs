//! A hundred thousand PTP packets per second for ten seconds, a thousand times what the largest
//! networks send: every one is accounted for, as recorded or as lost, and the agent lives. Needs root.

use std::{
    thread,
    time::{Duration, Instant},
};

use bpf_tests::{
    agent::Agent,
    forge::{message, port},
    frames::Recipe,
    links::Wire,
    need,
    raw::FrameSocket,
};
use ptp_common::wire::{Body, Header, Timestamp};

const PER_SECOND: u64 = 100_000;
const SECONDS: u64 = 10;
/// Sent without looking at the clock.
const BURST: u64 = 100;

fn sync(sequence_id: u16) -> Vec<u8> {
    let message = message(
        Header { domain_number: 99, ..Header::new(port(0x66), sequence_id) },
        Body::Sync { origin_timestamp: Timestamp::ZERO },
    );
    Recipe { message, ..Recipe::sync_on_ethernet() }.frame()
}

/// Sends at the rate, catching up where it falls behind; how long it took.
fn flood(socket: &FrameSocket) -> Duration {
    let begin = Instant::now();
    for burst in 0..PER_SECOND * SECONDS / BURST {
        let due = begin + Duration::from_nanos(burst * BURST * 1_000_000_000 / PER_SECOND);
        thread::sleep(due.saturating_duration_since(Instant::now()));
        for packet in burst * BURST..(burst + 1) * BURST {
            socket.send(&sync(packet as u16)).expect("a veth pair takes every frame");
        }
    }
    begin.elapsed()
}

#[test]
fn every_one_of_a_million_packets_is_recorded_or_counted_as_lost() {
    let wire = need!(Wire::new());
    let mut observer = Agent::start(&wire.client, &["observe", "-i", "ptp0"]);
    let took = wire
        .grandmaster
        .run(|| FrameSocket::open("gm0").map(|socket| flood(&socket)))
        .expect("the namespace is there")
        .expect("needs a packet socket");
    // The agent looks into the ring every 20 ms.
    thread::sleep(Duration::from_millis(200));
    let summary = observer.finish();
    let recorded = summary["ports"]
        .as_array()
        .into_iter()
        .flatten()
        .filter(|port| port["domain"] == 99)
        .filter_map(|port| port["messages"]["sync"].as_u64())
        .sum::<u64>();
    let lost = summary["lost"]["ring"].as_u64().expect("a count");
    let sent = PER_SECOND * SECONDS;
    println!(
        "{sent} sent in {:.1} s ({:.0} per second): {recorded} recorded, {lost} lost",
        took.as_secs_f64(),
        sent as f64 / took.as_secs_f64()
    );
    assert_eq!(recorded + lost, sent, "{summary}");
    assert!(recorded > 0, "{summary}");
}
