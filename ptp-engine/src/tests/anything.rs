//! Whatever arrives, in whatever order: nothing panics and nothing grows.

use super::*;
use crate::prelude::*;
use proptest::prelude::*;

/// Messages that are right, so that changes of them get deep into the engine.
fn templates() -> Vec<Vec<u8>> {
    let mut templates = vec![announce(GM, 1), sync(1, 0), follow_up(1, time(1, 0), 0)];
    templates.push(delay_resp(1, time(1, 0), OWN_PORT, 0));
    templates.push(pdelay_resp(GM, 1, time(1, 0)));
    templates.push(pdelay_follow_up(GM, 1, time(1, 0)));
    templates.push(delay_req(1, 0));
    let request = Body::PdelayReq { origin_timestamp: Timestamp::ZERO };
    templates.push(wire(Header::new(GM, 1), request));
    templates
}

#[derive(Clone, Debug)]
struct Input {
    wait_ms: i64,
    bytes: Vec<u8>,
    stamped: bool,
    token: Option<u64>,
    link: Option<bool>,
}

fn mutated() -> impl Strategy<Value = Vec<u8>> {
    let changes = prop::collection::vec((0usize..64, any::<u8>()), 0..4);
    (0..templates().len(), 0u16..40, changes, any::<bool>()).prop_map(
        |(which, sequence_id, changes, cut)| {
            let mut bytes = templates().swap_remove(which);
            bytes[30..32].copy_from_slice(&sequence_id.to_be_bytes());
            for (at, value) in changes {
                let at = at % bytes.len();
                bytes[at] = value;
                if cut && value < 8 {
                    bytes.truncate(at);
                }
                if bytes.is_empty() {
                    break;
                }
            }
            bytes
        },
    )
}

/// A message that is nearly right, or not at all.
pub(super) fn message() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![9 => mutated(), 1 => prop::collection::vec(any::<u8>(), 0..100)]
}

fn inputs() -> impl Strategy<Value = Vec<Input>> {
    let bytes = message();
    let input = (
        prop_oneof![Just(0), 0i64..50, 0i64..3_000, Just(1_000_000_000_000)],
        bytes,
        any::<bool>(),
        prop::option::of(0u64..50),
        prop::option::weighted(0.02, any::<bool>()),
    )
        .prop_map(|(wait_ms, bytes, stamped, token, link)| Input {
            wait_ms,
            bytes,
            stamped,
            token,
            link,
        });
    prop::collection::vec(input, 1..300)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 128, ..ProptestConfig::default() })]

    #[test]
    fn nothing_that_arrives_panics_the_receiver_or_makes_it_grow(
        inputs in inputs(),
        peer in any::<bool>(),
    ) {
        let mut receiver = Receiver::new(if peer { p2p() } else { config() }, at(0));
        let mut now = 0_i64;
        for input in inputs {
            now = now.saturating_add(input.wait_ms).min(9_000_000_000_000);
            let stamped = if input.stamped { stamp(at(now)) } else { None };
            receiver.handle_message(at(now), PORT, &input.bytes, stamped);
            receiver.handle_message(at(now), PortIndex(9), &input.bytes, stamped);
            if let Some(token) = input.token {
                receiver.handle_tx_stamp(at(now), SentToken(token), stamped);
            }
            if let Some(up) = input.link {
                receiver.handle_link(at(now), PORT, LinkState::up_if(up));
            }
            receiver.poll(at(now));
            // Nobody collects the actions, on purpose.
            prop_assert!(receiver.stored() <= 1_024 + 16 + 8 + 16 + 4 * 5);
        }
        if let Some(next) = receiver.next_wakeup() {
            receiver.poll(next);
        }
    }

    #[test]
    fn nothing_that_arrives_panics_the_transmitter(inputs in inputs()) {
        let mut transmitter = grandmaster();
        let mut now = 0_i64;
        for input in inputs {
            now = now.saturating_add(input.wait_ms).min(9_000_000_000_000);
            let stamped = input.stamped.then(|| Time::from_nanos(now));
            transmitter.handle_message(at(now), PORT, &input.bytes, stamped);
            if let Some(token) = input.token {
                transmitter.handle_tx_stamp(SentToken(token), stamped);
            }
            transmitter.poll(at(now));
            while transmitter.next_command().is_some() {}
        }
    }
}
