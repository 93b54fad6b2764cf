//! A hundred thousand PTP packets per second for ten seconds, a thousand times what the largest
//! networks send: every one is accounted for, as recorded or as lost, and the agent lives. Needs root.

use std::{
    fs, thread,
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

/// Packets that the kernel itself had no room for between two interfaces, since it was started: the
/// second column of each processor. On a busy machine a veth pair is drained by a thread that has to wait
/// its turn.
fn dropped_by_backlog() -> u64 {
    let table = fs::read_to_string("/proc/net/softnet_stat").expect("every Linux has it");
    let dropped = table.lines().filter_map(|line| line.split_whitespace().nth(1));
    dropped.filter_map(|count| u64::from_str_radix(count, 16).ok()).sum()
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
    let before = dropped_by_backlog();
    let mut observer = Agent::start(&wire.client, &["observe", "-i", "ptp0"]);
    let took = wire
        .grandmaster
        .run(|| FrameSocket::open("gm0").map(|socket| flood(&socket)))
        .expect("the namespace is there")
        .expect("needs a packet socket");
    // What is on its way through the kernel still arrives; the agent looks a last time when it ends.
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
    match dropped_by_backlog() - before {
        0 => assert_eq!(recorded + lost, sent, "{summary}"),
        // Others' packets may be among them.
        dropped => assert!(
            recorded + lost <= sent && sent <= recorded + lost + dropped,
            "{dropped} dropped before the hook: {summary}"
        ),
    }
    assert!(recorded > 0, "{summary}");
}
