//! Floods in virtual time: who is held back, and who passes.

use super::*;
use std::net::Ipv4Addr;

fn host(number: u32) -> Address {
    Address::Socket((Ipv4Addr::from_bits(number), 319).into())
}

/// One message in `micros` of a flooder, as the kernel would let it pass, and one in five milliseconds of
/// each of ten others. Who is held back in the end, and how
/// many of the flooder's and of the others' have come through.
fn flooded(micros: i64, seconds: i64, flooder: impl Fn(i64) -> Address) -> (HeldBack, [i64; 2]) {
    let mut crowd = Crowd::default();
    let (mut dropped, mut passed) = (0, [0, 0]);
    for n in 0..seconds * 1_000_000 / micros {
        let now = Time::ZERO + Duration::from_nanos(n * micros * 1_000);
        if n * micros % 5_000 < micros {
            for number in 1..=10 {
                passed[1] += 1;
                crowd.count(now, Some(host(number)), None, || dropped);
            }
        }
        let from = flooder(n);
        if crowd.held.senders.contains(&without_port(from)) && n % (1 << crowd.held.keep) != 0 {
            dropped += 1;
        } else {
            passed[0] += 1;
            crowd.count(now, Some(from), None, || dropped);
        }
    }
    (crowd.held, passed)
}

#[test]
fn one_flooder_is_held_back_within_a_turn_and_nobody_else_is() {
    let (held, [flooder, others]) = flooded(10, 3, |_| host(99));
    assert_eq!(held.senders, [without_port(host(99))]);
    assert!((1_500..4_000).contains(&flooder), "{flooder} of 300000");
    assert_eq!(others, 6_000);
}

#[test]
fn flood_that_this_host_cannot_take_is_seen_by_what_is_dropped() {
    let (mut crowd, mut dropped) = (Crowd::default(), 0);
    for n in 0..1_000 {
        // 3,000 a second come through, 30 times as many do not.
        dropped += 30;
        let now = Time::ZERO + Duration::from_nanos(n * 333_000);
        let from = if n % 10 == 0 { host(n as u32) } else { host(99) };
        crowd.count(now, Some(from), None, || dropped);
    }
    assert_eq!(crowd.held.senders, [without_port(host(99))]);
    assert!(crowd.held.keep >= 7, "{crowd:?}");
}

#[test]
fn busy_network_below_what_is_answered_is_no_crowd() {
    let (held, _) = flooded(200, 3, |_| host(99));
    assert_eq!(held, HeldBack::default());
}

#[test]
fn flood_of_ever_other_senders_holds_nobody_back() {
    let (held, _) = flooded(10, 2, |n| host(1000 + n as u32));
    assert_eq!(held, HeldBack::default());
}

#[test]
fn flooder_who_ceases_is_let_go() {
    let mut crowd = Crowd::default();
    let at = |millis| Time::ZERO + Duration::from_millis(millis);
    for n in 0..20_000 {
        crowd.count(at(n / 100), Some(host(99)), None, || 0);
    }
    assert_eq!(crowd.held.senders.len(), 1);
    for n in 0..40 {
        crowd.count(at(300 + 100 * n), Some(host(1)), None, || 0);
    }
    assert_eq!(crowd.held, HeldBack::default());
}

fn invented(n: u64) -> Identity {
    let [a, b, c, d, e, f, g, h] = n.to_be_bytes();
    [a, b, c, d, e, f, g, h, 0, 1]
}

/// Messages that wait in the socket's queue: what was in it when somebody began to be held back is still to come.
const QUEUE: usize = 3_000;
/// Between two that are taken out of it, nanoseconds.
const TAKEN_NS: i64 = 25_000;

/// Three clients at an address ask ten times a second; after two seconds somebody floods from there for two,
/// 100,000 a second, as whom is said by number. Who still passes in the end, and the share of the clients' requests in the
/// flood that got into the queue. `before` is asked by the flooder every hundredth of a second until then.
fn shared(
    flooder: impl Fn(u64) -> Identity,
    before: impl Fn(u64) -> Option<Identity>,
) -> (Vec<Identity>, f64) {
    let mut crowd = Crowd::default();
    let mut queue = std::collections::VecDeque::new();
    let (mut asked, mut queued, mut dropped, mut taken) = (0, 0, 0_u64, 0);
    for n in 0..400_000_u64 {
        let now = Time::ZERO + Duration::from_nanos(n as i64 * 10_000);
        let is_flood = n >= 200_000;
        let mut arriving: Vec<(Identity, bool)> = Vec::new();
        if n % 10_000 == 5_000 {
            arriving.extend((1..=3).map(|client| ([client; 10], true)));
        }
        if is_flood {
            arriving.push((flooder(n), false));
        } else if n % 1_000 == 0 {
            arriving.extend(before(n / 1_000).map(|identity| (identity, false)));
        }
        for (identity, is_honest) in arriving {
            let held = &crowd.held;
            let is_held = held.senders.contains(&without_port(host(7)));
            let is_known = || held.regulars.iter().any(|(_, it)| *it == identity);
            let passes = !is_held || n % (1 << held.keep) == 1 || is_known();
            let is_in = passes && queue.len() < QUEUE;
            if is_in {
                queue.push_back((identity, is_honest));
            } else {
                dropped += 1;
            }
            if is_honest && is_flood {
                asked += 1;
                queued += u32::from(is_in);
            }
        }
        while taken < n as i64 * 10_000 {
            taken += TAKEN_NS;
            let Some((identity, is_honest)) = queue.pop_front() else { continue };
            crowd.count(now, Some(host(7)), Some(identity), || dropped);
            let is_excess = crowd.is_excess(Some(host(7)), Some(identity));
            assert!(!(is_excess && is_honest));
            // What is dropped at once takes no time.
            if is_excess {
                taken -= TAKEN_NS * 9 / 10;
            }
        }
    }
    assert_eq!(crowd.held.senders, [without_port(host(7))]);
    (crowd.held.regulars.iter().map(|(_, it)| *it).collect(), f64::from(queued) / f64::from(asked))
}

#[test]
fn who_asked_before_from_the_flooders_address_still_passes() {
    for cycle in [u64::MAX, 100, 1] {
        let (regulars, share) = shared(|n| invented((n % cycle) | 1 << 60), |_| None);
        assert_eq!(regulars, [[1; 10], [2; 10], [3; 10]], "{cycle}");
        assert!(share >= 0.99, "{cycle}: {share}");
    }
}

#[test]
fn so_they_do_where_identities_are_forged_at_random() {
    let key = RandomState::new();
    let (regulars, share) = shared(|n| invented(key.hash_one(n)), |_| None);
    assert_eq!(regulars, [[1; 10], [2; 10], [3; 10]]);
    assert!(share >= 0.99, "{share}");
}

#[test]
fn so_they_do_where_the_flooder_has_made_himself_known_in_many_names() {
    // Each of fifty names asks twice a second, and then they flood; a request or two of each are lost until it is known
    // that it is they.
    let name = |n: u64| invented((n % 50) | 1 << 60);
    let (regulars, share) = shared(name, |n| Some(name(n)));
    assert_eq!(regulars, [[1; 10], [2; 10], [3; 10]]);
    assert!(share >= 0.9, "{share}");
    // One name that is known floods alone.
    let (regulars, share) = shared(|_| name(7), |_| Some(name(7)));
    assert_eq!(regulars, [[1; 10], [2; 10], [3; 10]]);
    assert!(share >= 0.9, "{share}");
}

#[test]
fn names_that_were_invented_take_no_place_of_others() {
    let mut regulars = Regulars::default();
    let at = |second| Time::ZERO + Duration::from_secs(second);
    for turn in 0..4 {
        regulars.hear(at(turn), (without_port(host(8)), [8; 10]));
        regulars.hear(at(turn), (without_port(host(7)), [7; 10]));
    }
    for n in 0..20_000 {
        regulars.hear(at(4), (without_port(host(7)), invented(n / 2)));
    }
    for turn in 5..8 {
        regulars.hear(at(turn), (without_port(host(9)), [9; 10]));
    }
    let is_there = |host_number, number: u8| {
        let here = regulars.of(at(9), Some(without_port(host(host_number))), REGULARS);
        here.iter().any(|(_, it)| *it == [number; 10])
    };
    assert!(is_there(8, 8) && is_there(7, 7) && is_there(9, 9));
    assert!(regulars.known.len() <= ALL_REGULARS);
}

#[test]
fn in_a_flood_of_ever_other_senders_those_pass_who_asked_before() {
    let mut crowd = Crowd::default();
    let (mut dropped, mut honest, mut others) = (0, [0, 0], 0);
    for n in 0..900_000_i64 {
        let now = Time::ZERO + Duration::from_nanos(n * 10_000);
        let is_flood = (200_000..500_000).contains(&n);
        if n % 5_000 == 0 {
            // It is a regular where the kernel has been told so, and else one of all.
            let who = (without_port(host(7)), [1; 10]);
            honest[1] += i32::from(is_flood);
            if !crowd.held.is_everybody || crowd.held.regulars.contains(&who) {
                honest[0] += i32::from(is_flood);
                crowd.count(now, Some(host(7)), Some([1; 10]), || dropped);
            }
        }
        if is_flood {
            let [a, b, c, d] = (n as u32).to_be_bytes();
            let identity = [9, 9, 9, 9, a, b, c, d, 0, 1];
            if crowd.held.is_everybody && n % (1 << crowd.held.keep) != 0 {
                dropped += 1;
            } else {
                others += 1;
                crowd.count(now, Some(host(1_000 + n as u32)), Some(identity), || dropped);
            }
        }
    }
    assert_eq!(honest[0], honest[1]);
    assert!(others < 30_000, "{others} of 300000");
    assert_eq!(crowd.held, HeldBack::default(), "when it is over");
}

#[test]
fn memory_of_who_was_heard_is_bounded() {
    let mut regulars = Regulars::default();
    for n in 0..50_000_u32 {
        let [a, b, c, d] = (n / 2).to_be_bytes();
        let now = Time::ZERO + Duration::from_millis(i64::from(n));
        regulars.hear(now, (without_port(host(7)), [a, b, c, d, 0, 0, 0, 0, 0, 1]));
    }
    assert!(regulars.known.len() <= ALL_REGULARS);
    assert!(regulars.of(Time::ZERO + Duration::from_secs(50), None, REGULARS).len() <= REGULARS);
}
