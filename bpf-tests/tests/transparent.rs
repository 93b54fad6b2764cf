//! Claims about the programs of the transparent clock on a real bridge: what they add to which message, what
//! they leave alone and count, and that they do nothing when nobody tells them that he is there.

use std::time::Instant;

use bpf_tests::{
    forge::port,
    links::{Star, ip, output},
    need,
    objects::kernel_programs,
    raw::Tap,
    transparent::{
        Carrier, Clock, PATIENCE, Side, correction_ns, delay_req, delay_resp, follow_up, one_step,
        ptp, sum_header, sync, udp_sum,
    },
};
use ptp_agent::lab::netns::{Namespace, veth};
use ptp_common::residence::{Outcome, config};

const SYNC: u32 = 0;
const DELAY_REQ: u32 = 1;
const FOLLOW_UP: u32 = 4;
const DELAY_RESP: u32 = 5;
const PORTS: [&str; 3] = ["port1", "port2", "port3"];

/// A switch with three ports and whoever is behind them.
fn star() -> Result<(Star, [Side; 3]), String> {
    kernel_programs()?;
    let star = Star::new(3)?;
    let sides = [0, 1, 2].map(|at| Side::of(&star.leaves[at]));
    Ok((star, sides))
}

/// A message as it was but for its correction.
fn same_but_corrected(sent: &[u8], heard: &[u8]) -> bool {
    sent[..8] == heard[..8] && sent[16..] == heard[16..]
}

/// What leaves by a port of the switch waits: about 100 ms for each kilobyte.
fn slow(switch: &Namespace, port: &str) {
    let shaper = format!("qdisc replace dev {port} root tbf rate 80kbit burst 1540 limit 64k");
    output(switch.command("tc").args(shaper.split_whitespace()));
}

/// A frame of no interest that fills a queue.
fn stuffing() -> Vec<u8> {
    let mut frame = vec![0; 1_000];
    frame[..14]
        .copy_from_slice(&[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 2, 0, 0, 0, 0, 9, 0x88, 0xb5]);
    frame
}

#[test]
fn follow_up_is_given_the_residence_of_its_sync_whatever_carries_it() {
    let (star, [a, b, _]) = need!(star());
    let mut clock = Clock::new(&star.switch, &PORTS, true);
    for (number, carrier) in (1..).zip(Carrier::ALL) {
        let begin = Instant::now();
        let (event, general) = (sync(port(1), number), follow_up(port(1), number, 5 << 16));
        a.send(&carrier.frame(&event));
        assert_eq!(b.hear(&event).0, event, "{carrier:?}: a two-step Sync goes as it came");
        let elapsed = begin.elapsed().as_nanos() as i64;
        a.send(&carrier.frame(&general));
        let (heard, frame) = b.hear(&general);
        assert!(same_but_corrected(&general, &heard), "{carrier:?}");
        let residence = correction_ns(&heard) - 5;
        assert!(residence > 0 && residence < elapsed, "{carrier:?}: {residence} of {elapsed}");
        assert!(udp_sum(&frame).is_none_or(|sum| sum == 0xffff), "{carrier:?}");
    }
    assert_eq!(clock.count(2, FOLLOW_UP, Outcome::Corrected), 4);
    assert_eq!(clock.count(2, SYNC, Outcome::Timed), 4);
    let times: u64 = clock.programs().histograms(2)[..63].iter().sum();
    assert_eq!(times, 4, "each is in the histogram");
}

#[test]
fn delay_resp_is_given_the_residence_of_its_request_and_nobody_elses() {
    let (star, [a, b, c]) = need!(star());
    let mut clock = Clock::new(&star.switch, &PORTS, true);
    let request = delay_req(port(2), 7);
    b.send(&Carrier::Udp4.frame(&request));
    assert_eq!(a.hear(&request).0, request);
    let response = delay_resp(port(1), 7, port(2));
    a.send(&Carrier::Udp4.frame(&response));
    let (heard, frame) = b.hear(&response);
    assert!(same_but_corrected(&response, &heard) && correction_ns(&heard) > 0);
    assert_eq!(udp_sum(&frame), Some(0xffff));
    assert_eq!(c.hear(&response).0, response, "the copy by a port that no request came from");
    let other = delay_resp(port(1), 8, port(2));
    a.send(&Carrier::Ethernet.frame(&other));
    assert_eq!(b.hear(&other).0, other);
    assert_eq!(clock.count(2, DELAY_RESP, Outcome::Corrected), 1);
    assert_eq!(clock.count(2, DELAY_RESP, Outcome::Unrequested), 1);
    assert_eq!(clock.count(3, DELAY_RESP, Outcome::Unrequested), 2);
    assert_eq!(clock.count(1, DELAY_REQ, Outcome::Timed), 1);
}

#[test]
fn each_copy_of_a_flooded_sync_is_corrected_by_the_time_that_it_was_inside_itself() {
    let (star, [a, b, c]) = need!(star());
    slow(&star.switch, "port3");
    let _clock = Clock::new(&star.switch, &PORTS, false);
    let (event, general) = (sync(port(1), 1), follow_up(port(1), 1, 0));
    a.send(&stuffing());
    a.send(&stuffing());
    let begin = Instant::now();
    a.send(&Carrier::Ethernet.frame(&event));
    b.hear(&event);
    let soon = begin.elapsed().as_nanos() as i64;
    c.hear(&event);
    let late = begin.elapsed().as_nanos() as i64;
    a.send(&Carrier::Ethernet.frame(&general));
    let [by_b, by_c] = [&b, &c].map(|side| correction_ns(&side.hear(&general).0));
    assert!(by_b > 0 && by_b < soon, "{by_b} of {soon}");
    assert!(by_c > 30_000_000 && by_c < late, "{by_c} of {late}");
}

#[test]
fn nothing_is_altered_or_held_when_nobody_says_that_he_is_there() {
    let (star, [a, b, _]) = need!(star());
    slow(&star.switch, "port2");
    let mut clock = Clock::new(&star.switch, &PORTS, true);
    // Stopped a moment ago, then long ago.
    for (number, stopped) in
        (1..).zip([&[config::HOLD_UNTIL, config::ALTER_UNTIL][..], &[config::TIME_UNTIL]])
    {
        clock.tell(&stopped.iter().map(|at| (*at, 1)).collect::<Vec<_>>());
        a.send(&stuffing());
        let (event, general) = (one_step(port(1), number), follow_up(port(1), number, 0));
        a.send(&Carrier::Ethernet.frame(&event));
        a.send(&Carrier::Ethernet.frame(&general));
        assert_eq!(b.hear(&event).0, event);
        assert_eq!(b.hear(&general).0, general);
    }
    assert!(clock.programs().next_held().is_none());
}

#[test]
fn follow_up_that_overtakes_its_sync_is_taken_out_and_only_as_long_as_there_is_somebody_to_send_it()
{
    let (star, [a, b, _]) = need!(star());
    slow(&star.switch, "port2");
    let mut clock = Clock::new(&star.switch, &PORTS, false);
    let (event, general) = (sync(port(1), 1), follow_up(port(1), 1, 0));
    for _ in 0..2 {
        a.send(&stuffing());
    }
    a.send(&Carrier::Udp4.frame(&event));
    a.send(&Carrier::Udp4.frame(&general));
    b.hear(&event);
    let (_, frame) = clock.programs().next_held().expect("it was taken out");
    assert!(frame.starts_with(&Carrier::Udp4.frame(&general)));
    assert_eq!(clock.count(2, FOLLOW_UP, Outcome::Held), 1);
    clock.tell(&[(config::HOLD_UNTIL, 1)]);
    let (event, general) = (sync(port(1), 2), follow_up(port(1), 2, 0));
    a.send(&stuffing());
    a.send(&Carrier::Udp4.frame(&event));
    a.send(&Carrier::Udp4.frame(&general));
    assert_eq!(b.hear(&general).0, general);
    assert_eq!(clock.count(2, FOLLOW_UP, Outcome::NoResidence), 1);
}

#[test]
fn follow_up_of_a_sync_that_left_unseen_is_withheld_where_others_are_corrected() {
    let (star, [a, b, _]) = need!(star());
    let mut clock = Clock::new(&star.switch, &PORTS, true);
    clock.tell(&[(config::WITHHOLDS, 1)]);
    // Whether the Follow_Up comes as it was sent.
    let exchange = |clock: &mut Clock, number, is_seen: bool| {
        let (event, general) = (sync(port(1), number), follow_up(port(1), number, 0));
        a.send(&Carrier::Ethernet.frame(&event));
        b.hear(&event);
        if !is_seen {
            clock.forget_departures();
        }
        a.send(&Carrier::Ethernet.frame(&general));
        // Nothing overtakes.
        let next = sync(port(1), number + 1);
        a.send(&Carrier::Ethernet.frame(&next));
        b.hear_first([&general, &next]) == general
    };
    assert!(exchange(&mut clock, 1, false), "nothing can be timed: all goes on");
    for number in 0..16 {
        exchange(&mut clock, 10 * number + 10, true);
    }
    assert!(!exchange(&mut clock, 1_000, false));
    assert_eq!(clock.count(2, FOLLOW_UP, Outcome::Withheld), 1);
    assert!(exchange(&mut clock, 1_010, false), "one of seventeen at the most");
    assert_eq!(clock.count(2, FOLLOW_UP, Outcome::Withheld), 1);
    assert_eq!(clock.count(2, FOLLOW_UP, Outcome::EventLost), 2);
    assert_eq!(clock.count(2, FOLLOW_UP, Outcome::Corrected), 16);
}

#[test]
fn what_must_not_or_cannot_be_corrected_passes_as_it_came_and_is_counted_by_cause() {
    let (star, [a, b, _]) = need!(star());
    let mut clock = Clock::new(&star.switch, &PORTS, true);
    let tlv = |tlv_type: u16, length: u16| {
        [&tlv_type.to_be_bytes()[..], &length.to_be_bytes(), &[0; 8]].concat()
    };
    let with = |number, more: &[u8]| {
        let mut message = [&follow_up(port(1), number, 0), more].concat();
        let length = (message.len() as u16).to_be_bytes();
        message[2..4].copy_from_slice(&length);
        message
    };
    let changed = |number, at: usize, byte| {
        let mut message = follow_up(port(1), number, 0);
        message[at] = byte;
        message
    };
    let cases = [
        (Outcome::Authenticated, with(1, &tlv(0x8009, 8))),
        (Outcome::Authenticated, with(2, &[tlv(3, 8), tlv(0x8009, 8)].concat())),
        (Outcome::Malformed, with(3, &tlv(3, 200))),
        (Outcome::Malformed, with(4, &tlv(3, 0).repeat(8))),
        (Outcome::Version, changed(5, 1, 0x01)),
        (Outcome::Malformed, changed(6, 3, 200)),
        (Outcome::Malformed, changed(7, 3, 40)),
        (Outcome::Overflow, follow_up(port(1), 8, i64::MAX)),
        (Outcome::Overflow, follow_up(port(1), 9, i64::MAX - 1)),
        (Outcome::NoResidence, follow_up(port(1), 10, 0)),
    ];
    let mut expected = std::collections::BTreeMap::new();
    for (number, (outcome, general)) in (1..).zip(&cases) {
        if *outcome != Outcome::NoResidence {
            let event = sync(port(1), number);
            a.send(&Carrier::Udp6.frame(&event));
            b.hear(&event);
        }
        let frame = Carrier::Udp6.frame(general);
        a.send(&frame);
        assert_eq!(b.hear(general).1, frame, "{outcome:?}");
        *expected.entry(*outcome).or_insert(0) += 1;
    }
    for (outcome, count) in expected {
        assert_eq!(clock.count(2, FOLLOW_UP, outcome), count, "{outcome:?}");
    }
    // A TLV that says nothing about authentication is no obstacle, and a correction may be negative.
    let event = sync(port(1), 20);
    a.send(&Carrier::Udp6.frame(&event));
    b.hear(&event);
    let general = with(20, &tlv(3, 8));
    a.send(&Carrier::Udp6.frame(&general));
    assert!(correction_ns(&b.hear(&general).0) > 0);
    let general = follow_up(port(1), 20, i64::MIN);
    a.send(&Carrier::Udp6.frame(&general));
    assert!(correction_ns(&b.hear(&general).0) > i64::MIN >> 16);
}

#[test]
fn parts_of_packets_and_messages_without_an_arrival_are_left_alone() {
    let (star, [a, b, _]) = need!(star());
    let mut clock = Clock::new(&star.switch, &PORTS, true);
    let event = sync(port(1), 1);
    let mut frame = Carrier::Udp4.frame(&event);
    // More fragments follow.
    frame[20] |= 0x20;
    sum_header(&mut frame);
    a.send(&frame);
    b.hear(&event);
    assert_eq!(clock.count(1, SYNC, Outcome::Fragment), 1);
    // The programs were told of the port by which it leaves, and of the other only afterwards.
    clock.tell(&[(config::EVENTS_PER_SECOND, 0)]);
    let event = sync(port(1), 2);
    a.send(&Carrier::Udp4.frame(&event));
    b.hear(&event);
    assert_eq!(clock.count(1, SYNC, Outcome::Flood), 1);
    assert_eq!(clock.count(2, SYNC, Outcome::NoArrival), 1);
}

#[test]
fn flood_on_one_port_takes_nothing_from_another() {
    let (star, [a, b, c]) = need!(star());
    let mut clock = Clock::new(&star.switch, &PORTS, true);
    clock.tell(&[(config::EVENTS_PER_SECOND, 50)]);
    for number in 0..200_u16 {
        let mut forged = port(3);
        forged.port_number = number;
        c.send(&Carrier::Ethernet.frame(&sync(forged, number)));
    }
    let (event, general) = (sync(port(1), 1), follow_up(port(1), 1, 0));
    a.send(&Carrier::Ethernet.frame(&event));
    b.hear(&event);
    a.send(&Carrier::Ethernet.frame(&general));
    assert!(correction_ns(&b.hear(&general).0) > 0);
    // However slow the machine is, the second was not over more than a few times.
    assert!(clock.count(3, SYNC, Outcome::Flood) > 0);
    assert_eq!(clock.count(1, SYNC, Outcome::Flood), 0);
}

#[test]
fn same_identity_and_number_from_another_port_changes_nothing_and_a_repeated_one_is_timed_anew() {
    let (star, [a, b, c]) = need!(star());
    slow(&star.switch, "port2");
    let mut clock = Clock::new(&star.switch, &PORTS, false);
    let (event, general) = (sync(port(1), 1), follow_up(port(1), 1, 0));
    a.send(&Carrier::Ethernet.frame(&event));
    b.hear(&event);
    // Forged: waits long, and belongs to nothing.
    for _ in 0..2 {
        c.send(&stuffing());
    }
    c.send(&Carrier::Ethernet.frame(&event));
    a.send(&Carrier::Ethernet.frame(&general));
    let first = correction_ns(&b.hear(&general).0);
    b.hear_within(PATIENCE, &event);
    assert!(first > 0 && first < 30_000_000, "{first}");
    // Again from the right port, behind a queue: now that is its residence.
    for _ in 0..2 {
        a.send(&stuffing());
    }
    a.send(&Carrier::Ethernet.frame(&event));
    b.hear(&event);
    a.send(&Carrier::Ethernet.frame(&general));
    let second = correction_ns(&b.hear(&general).0);
    assert!(second > 30_000_000, "{second}");
    assert_eq!(clock.count(2, FOLLOW_UP, Outcome::Corrected), 2);
}

#[test]
fn one_step_sync_is_corrected_where_no_queue_follows() {
    let (star, [a, b, _]) = need!(star());
    let mut clock = Clock::new(&star.switch, &PORTS, true);
    for (number, carrier) in (1..).zip(Carrier::ALL) {
        let event = one_step(port(1), number);
        let begin = Instant::now();
        a.send(&carrier.frame(&event));
        let (heard, frame) = b.hear(&event);
        let elapsed = begin.elapsed().as_nanos() as i64;
        assert!(same_but_corrected(&event, &heard), "{carrier:?}");
        let residence = correction_ns(&heard);
        assert!(residence > 0 && residence < elapsed + 20_000, "{carrier:?}: {residence}");
        assert!(udp_sum(&frame).is_none_or(|sum| sum == 0xffff), "{carrier:?}");
    }
    assert_eq!(clock.count(2, SYNC, Outcome::Corrected), 4);
}

#[test]
fn one_step_sync_behind_a_queue_passes_and_then_so_does_what_goes_the_other_way() {
    let (star, [a, b, _]) = need!(star());
    slow(&star.switch, "port2");
    let mut clock = Clock::new(&star.switch, &PORTS, false);
    // That there is a queue shows in the first that waits in it.
    a.send(&stuffing());
    a.send(&stuffing());
    for number in 1..3 {
        let event = one_step(port(1), number);
        a.send(&Carrier::Ethernet.frame(&event));
        b.hear(&event);
    }
    assert_eq!(clock.count(2, SYNC, Outcome::Queue), 1);
    let request = delay_req(port(2), 1);
    b.send(&Carrier::Ethernet.frame(&request));
    a.hear(&request);
    let response = delay_resp(port(1), 1, port(2));
    a.send(&Carrier::Ethernet.frame(&response));
    assert_eq!(b.hear(&response).0, response, "half a correction is worse than none");
    assert_eq!(clock.count(2, DELAY_RESP, Outcome::OneWay), 1);
}

#[test]
fn peer_to_peer_adds_the_link_by_which_sync_came_and_ends_peer_delay() {
    let (star, [a, b, _]) = need!(star());
    let mut clock = Clock::new(&star.switch, &PORTS, true);
    clock.tell(&[(config::IS_P2P, 1)]);
    clock.programs().set_link_delay(1, 1_000_000_000).unwrap();
    let (event, general) = (sync(port(1), 1), follow_up(port(1), 1, 0));
    a.send(&Carrier::Udp4.frame(&event));
    b.hear(&event);
    a.send(&Carrier::Udp4.frame(&general));
    let correction = correction_ns(&b.hear(&general).0);
    assert!(correction > 1_000_000_000 && correction < 3_000_000_000, "{correction}");
    let mut request = delay_req(port(2), 1);
    request[0] = 2;
    request[3] = 54;
    request.extend([0; 10]);
    b.send(&Carrier::Udp4.frame(&request));
    let last = delay_req(port(2), 2);
    b.send(&Carrier::Udp4.frame(&last));
    a.hear(&last);
    assert_eq!(clock.count(1, 2, Outcome::Terminated), 1);
}

#[test]
fn residence_is_scaled_by_the_time_transmitters_rate() {
    let (star, [a, b, _]) = need!(star());
    slow(&star.switch, "port2");
    let mut clock = Clock::new(&star.switch, &PORTS, false);
    // Slower by nearly a thousandth.
    let rate = -ptp_common::residence::MAX_RATE;
    clock.tell(&[(config::RATE, rate.cast_unsigned())]);
    let (event, general) = (sync(port(1), 1), follow_up(port(1), 1, 0));
    for _ in 0..2 {
        a.send(&stuffing());
    }
    a.send(&Carrier::Ethernet.frame(&event));
    b.hear(&event);
    a.send(&Carrier::Ethernet.frame(&general));
    let scaled = correction_ns(&b.hear(&general).0);
    clock.tell(&[(config::RATE, 0)]);
    a.send(&Carrier::Ethernet.frame(&general));
    let plain = correction_ns(&b.hear(&general).0);
    assert_eq!(scaled, plain - plain.div_euclid(1024) - i64::from(plain % 1024 != 0));
}

#[test]
fn whatever_forwards_is_corrected() {
    need!(kernel_programs());
    for way in ["mirred", "route", "macvlan"] {
        let switch = Namespace::new().unwrap();
        let ends = [1, 2].map(|number| {
            let end = Namespace::new().unwrap();
            veth(&end, "eth0", &switch, &format!("port{number}")).unwrap();
            end
        });
        let mut is_unicast = false;
        let tc = |arguments: &str| {
            let mut command = switch.command("tc");
            command.args(arguments.split_whitespace()).output().unwrap().status.success()
        };
        match way {
            "mirred" => {
                assert!(tc("qdisc add dev port1 clsact"));
                let is_there = ["matchall", "u32 match u32 0 0", "basic"].iter().any(|filter| {
                    let action = "action mirred egress redirect dev port2";
                    tc(&format!("filter add dev port1 ingress protocol all {filter} {action}"))
                });
                if !is_there {
                    bpf_tests::skipped("this kernel has no filter that could redirect");
                    continue;
                }
            }
            "route" => {
                is_unicast = true;
                ip(&switch, "address add 192.0.2.254/24 dev port1");
                ip(&switch, "address add 198.51.100.254/24 dev port2");
                ip(&switch, "neighbour add 198.51.100.1 lladdr 02:00:00:00:00:02 dev port2");
                let forward = || std::fs::write("/proc/sys/net/ipv4/ip_forward", "1");
                switch.run(forward).unwrap().unwrap();
            }
            _ => {
                ip(&switch, "link add link port2 name above2 type macvlan mode passthru");
                ip(&switch, "link set above2 up");
                switch.bridge("br0", &["port1", "above2"]).unwrap();
            }
        }
        let mut clock = Clock::new(&switch, &PORTS[..2], true);
        let [a, b] = [0, 1].map(|at| Side::of(&ends[at]));
        let mac = ip(&switch, "-br link show dev port1");
        let mac: Vec<u8> = mac
            .split_whitespace()
            .find(|word| word.matches(':').count() == 5)
            .map(|mac| mac.split(':').map(|it| u8::from_str_radix(it, 16).unwrap()).collect())
            .unwrap();
        let frame = |message: &[u8]| {
            let mut frame = Carrier::Udp4.frame(message);
            if is_unicast {
                frame[..6].copy_from_slice(&mac);
                frame[22] = 64;
                frame[30..34].copy_from_slice(&[198, 51, 100, 1]);
                // No UDP checksum.
                frame[40..42].fill(0);
                sum_header(&mut frame);
            }
            frame
        };
        let (event, general) = (sync(port(1), 1), follow_up(port(1), 1, 0));
        a.send(&frame(&event));
        b.hear(&event);
        a.send(&frame(&general));
        let heard = b.hear(&general).0;
        assert!(correction_ns(&heard) > 0, "{way}");
        assert_eq!(clock.count(2, FOLLOW_UP, Outcome::Corrected), 1, "{way}");
    }
}

#[test]
fn guest_behind_a_tap_is_corrected_both_ways() {
    need!(kernel_programs());
    let star = need!(Star::new(1));
    let tap = match star.switch.run(|| Tap::open("tap0")).unwrap() {
        Ok(tap) => tap,
        Err(error) => return bpf_tests::skipped(&format!("no taps here: {error}")),
    };
    ip(&star.switch, "link set tap0 master switch up");
    let mut clock = Clock::new(&star.switch, &["port1", "tap0"], true);
    let a = Side::of(&star.leaves[0]);
    let hear = |like: &[u8]| {
        let message = tap.hear(PATIENCE, |frame| {
            let message = ptp(frame)?;
            let is_it =
                message.len() >= 32 && message[0] == like[0] && message[20..32] == like[20..32];
            is_it.then(|| message.to_vec())
        });
        message.expect("the message reaches the guest")
    };
    let (event, general) = (sync(port(1), 1), follow_up(port(1), 1, 0));
    a.send(&Carrier::Ethernet.frame(&event));
    hear(&event);
    a.send(&Carrier::Ethernet.frame(&general));
    assert!(correction_ns(&hear(&general)) > 0);
    let request = delay_req(port(2), 1);
    tap.send(&Carrier::Ethernet.frame(&request)).unwrap();
    a.hear(&request);
    let response = delay_resp(port(1), 1, port(2));
    a.send(&Carrier::Ethernet.frame(&response));
    assert!(correction_ns(&hear(&response)) > 0);
    assert_eq!(clock.count(2, DELAY_RESP, Outcome::Corrected), 1);
}

#[test]
fn who_sends_in_the_name_of_a_clock_that_was_heard_relays() {
    let (star, [a, b, _]) = need!(star());
    let mut clock = Clock::new(&star.switch, &PORTS, true);
    let event = sync(port(1), 1);
    a.send(&Carrier::Ethernet.frame(&event));
    b.hear(&event);
    let relay = star.switch.run(|| bpf_tests::raw::FrameSocket::open("port2").unwrap()).unwrap();
    relay.send(&Carrier::Ethernet.frame(&event)).unwrap();
    relay.send(&Carrier::Ethernet.frame(&sync(port(9), 1))).unwrap();
    b.hear(&sync(port(9), 1));
    assert_eq!(clock.count(2, SYNC, Outcome::Relayed), 1);
}
