//! Brackets of stamps that a time transmitter tells: what bounds the time by them, and those that cannot be.

use super::*;
use crate::Datagram;

/// `latest_ns` of a bracket whose beginning is the stamp is no doubt; what is before it is.
#[test]
fn what_lies_before_a_transmit_stamp_and_behind_a_receive_stamp_is_doubt() {
    let mut bench = Bench::following(config());
    let told = |earliest_ns, latest_ns| Some(Bracket { earliest_ns, latest_ns });
    bench.put(1_100, &sync(7, 0));
    bench.put(1_101, &with_bracket(&follow_up(7, time(100, 5), 0), told(-300, 450)));
    let mut observations = bench.observations();
    let (now, token, request) = bench.request(1_101);
    bench.receiver.handle_tx_stamp(at(now), token, stamp(at(now)));
    let answer = delay_resp(request.sequence_id, time(100, 0), OWN_PORT, 0);
    bench.put(now + 1, &with_bracket(&answer, told(i32::MIN, 20)));
    observations.extend(bench.observations());
    let doubts: Vec<Duration> = observations
        .iter()
        .map(|observation| match observation {
            Observation::Sync(sync) => sync.t2.doubt,
            Observation::Delay(delay) => delay.t3.doubt,
            Observation::PeerDelay(_) | Observation::LinkTold(_) => panic!(),
        })
        .collect();
    assert_eq!(doubts, [300, 20].map(Duration::from_nanos));
    assert_eq!(bench.total_dropped(), 0);
}

#[test]
fn bracket_that_cannot_be_is_counted_and_the_message_counts() {
    let mut bench = Bench::following(config());
    // The path is a millisecond long.
    bench.put(1_100, &sync(7, 0));
    bench.put(1_101, &follow_up(7, time(100, 0), 0));
    let (now, token, request) = bench.request(1_101);
    bench.receiver.handle_tx_stamp(at(now), token, stamp(at(now)));
    let passed = u32::try_from(now - 1_100).unwrap() * 1_000_000 + 1_000_000;
    let answer = delay_resp(request.sequence_id, time(100, passed), OWN_PORT, 0);
    bench.put(now + 1, &answer);
    assert_eq!(bench.observations().len(), 1);
    bench.actions.clear();
    let impossible = [(500, -500), (-900_000, 900_000), (i32::MIN, i32::MAX), (i32::MAX, i32::MIN)];
    for (n, (earliest_ns, latest_ns)) in (8..).zip(impossible) {
        let later = now + 1_000 * i64::from(n - 7);
        bench.put(later, &sync(n, 0));
        let bracket = Some(Bracket { earliest_ns, latest_ns });
        bench.put(later + 1, &with_bracket(&follow_up(n, time(100, 0), 0), bracket));
    }
    let sound = bench.observations().iter().all(|observation| {
        matches!(observation, Observation::Sync(sync) if sync.t2.doubt == Duration::ZERO)
    });
    assert!(sound && bench.observations().len() == 4);
    assert_eq!(bench.dropped(Drop::ImplausibleBracket), 4);
}

fn with_bracket(bytes: &[u8], bracket: Option<Bracket>) -> Vec<u8> {
    let Message { header, body, .. } = Message::parse(bytes).unwrap();
    Datagram::bracketed(header, body, bracket).to_vec()
}
