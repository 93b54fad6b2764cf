//! Claims about what a transparent clock does at the edges of what a bridge forwards: how much it holds back of a
//! flood, and which messages to a link-local group go on.

use std::time::Instant;

use bpf_tests::{
    forge::port,
    links::{Star, output},
    need,
    objects::kernel_programs,
    transparent::{
        Carrier, Clock, PATIENCE, Side, correction_ns, delay_req, delay_resp, follow_up, sync,
    },
};
use ptp_common::residence::{LINK_LOCAL, Outcome, config, held};

const SYNC: u32 = 0;
const FOLLOW_UP: u32 = 4;
const PORTS: [&str; 3] = ["port1", "port2", "port3"];

fn star() -> Result<(Star, [Side; 3]), String> {
    kernel_programs()?;
    let star = Star::new(3)?;
    let sides = [0, 1, 2].map(|at| Side::of(&star.leaves[at]));
    Ok((star, sides))
}

#[test]
fn of_a_flood_of_follow_ups_no_more_is_held_than_there_is_room_for() {
    const FORGED: u64 = 1_000;
    let (star, [a, _, _]) = need!(star());
    let shaper = "qdisc replace dev port2 root tbf rate 80kbit burst 1540 limit 64k";
    output(star.switch.command("tc").args(shaper.split_whitespace()));
    let mut clock = Clock::new(&star.switch, &PORTS, false);
    let mut stuffing = vec![0; 1_500];
    stuffing[..14].copy_from_slice(&[255, 255, 255, 255, 255, 255, 2, 0, 0, 0, 0, 9, 0x88, 0xb5]);
    // The Sync waits behind these for a second.
    for _ in 0..8 {
        a.send(&stuffing);
    }
    a.send(&Carrier::Ethernet.frame(&sync(port(1), 1)));
    for _ in 0..FORGED {
        a.send(&Carrier::Ethernet.frame(&follow_up(port(1), 1, 0)));
    }
    let deadline = Instant::now() + PATIENCE;
    let (held, passed) = loop {
        let count = |clock: &mut Clock, outcome| clock.count(2, FOLLOW_UP, outcome);
        let held = count(&mut clock, Outcome::Held);
        let passed = count(&mut clock, Outcome::TableFull);
        if held + passed == FORGED {
            break (held, passed);
        }
        assert!(Instant::now() < deadline, "{held} and {passed}");
        std::thread::yield_now();
    };
    let room = 256 * 1024 / held::BYTES as u64;
    assert!(held > 0 && held <= room, "{held} and {passed}");
    let waiting = std::iter::from_fn(|| clock.programs().next_held()).count() as u64;
    assert_eq!(waiting, held);
}

#[test]
fn message_that_ends_too_soon_goes_as_it_came_and_is_counted() {
    let (star, [a, b, _]) = need!(star());
    let mut clock = Clock::new(&star.switch, &PORTS, true);
    for (number, carrier) in [(1, Carrier::Udp4), (2, Carrier::Udp6)] {
        for length in [34, 43] {
            let general = &follow_up(port(1), number, 0)[..length];
            let frame = carrier.frame(general);
            a.send(&frame);
            assert_eq!(b.hear(general).1, frame, "{carrier:?} {length}");
        }
        let event = &sync(port(1), number)[..40];
        a.send(&carrier.frame(event));
        assert_eq!(b.hear(event).0, event, "{carrier:?}");
    }
    assert_eq!(clock.count(2, FOLLOW_UP, Outcome::Malformed), 4);
    // Where it comes in, and where it leaves.
    assert_eq!(clock.count(1, SYNC, Outcome::Malformed), 2);
    assert_eq!(clock.count(2, SYNC, Outcome::Malformed), 2);
}

#[test]
fn link_local_messages_are_relayed_and_corrected_if_that_is_wanted_and_peer_delay_stays() {
    let (star, [a, b, c]) = need!(star());
    let mut clock = Clock::new(&star.switch, &PORTS, true);
    clock.tell(&[(config::IS_P2P, 1)]);
    let local = |message: &[u8]| {
        let mut frame = Carrier::Ethernet.frame(message);
        frame[..6].copy_from_slice(&LINK_LOCAL);
        frame
    };
    // What comes by the usual way comes afterwards.
    let last = |number| Carrier::Ethernet.frame(&delay_resp(port(1), number, port(2)));
    let is_relayed = |number| {
        let (event, general) = (sync(port(1), number), follow_up(port(1), number, 0));
        a.send(&local(&event));
        a.send(&local(&general));
        a.send(&last(number));
        let heard = [&b, &c].map(|side| {
            let first = side.hear_first([&event, &delay_resp(port(1), number, port(2))]);
            let is_event = first == event;
            is_event.then(|| correction_ns(&side.hear(&general).0))
        });
        heard.map(|correction| correction.is_some_and(|nanos| nanos > 0))
    };
    assert_eq!(is_relayed(1), [false; 2], "a bridge keeps them");
    let interfaces: Vec<u32> = star
        .switch
        .run(|| PORTS[..2].iter().map(|it| nix::net::if_::if_nametoindex(*it).unwrap()).collect())
        .unwrap();
    clock.programs().set_relays(&interfaces).unwrap();
    assert_eq!(is_relayed(2), [false; 2], "nobody has asked for it");
    clock.tell(&[(config::RELAYS, 1)]);
    assert_eq!(is_relayed(3), [true, false], "by the ports that are named");
    assert_eq!(clock.count(2, FOLLOW_UP, Outcome::Corrected), 1);
    assert_eq!(clock.count(1, SYNC, Outcome::Timed), 0, "not back to where it came from");
    let mut request = delay_req(port(1), 4);
    request[0] = 2;
    request[3] = 54;
    request.extend([0; 10]);
    a.send(&local(&request));
    a.send(&last(4));
    let response = delay_resp(port(1), 4, port(2));
    assert_eq!(b.hear_first([&request, &response]), response);
    // Nobody is there any more.
    clock.tell(&[(config::ALTER_UNTIL, 1)]);
    assert_eq!(is_relayed(5), [false; 2]);
}
