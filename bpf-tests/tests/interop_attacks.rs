//! Attacks on a network of packets: who tries to capture, to confuse or to exhaust an agent, and what the
//! agent says of it. What each message does by itself is tested in virtual time; here it has to come
//! through sockets and hooks. Needs root.

use std::{
    net::Ipv4Addr,
    thread,
    time::{Duration, Instant},
};

use bpf_tests::{
    agent::{Agent, SERVE},
    forge::{Party, announce, message, port},
    in_company,
    links::Star,
    need,
};
use ptp_common::wire::{
    Body, Flags, Header, Message, MessageType, MessageView, PortIdentity, Timestamp,
};

const PATIENCE: Duration = Duration::from_secs(20);
const ATTACKER: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 3);

/// The next message of a type that somebody sends to the general port.
fn overhear(party: &Party, kind: MessageType, is_it: impl Fn(&Message<'_>) -> bool) -> Vec<u8> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        assert!(Instant::now() < deadline, "no {kind:?}");
        if let Some(bytes) = party.hear_general(Duration::from_secs(1))
            && MessageView::new(&bytes).is_ok_and(|view| view.message_type() == kind)
            && Message::parse(&bytes).is_ok_and(|message| is_it(&message))
        {
            return bytes;
        }
    }
}

#[test]
fn captor_of_two_announces_is_left_again_within_seconds() {
    let _machine = in_company();
    let star = need!(Star::new(3));
    let [grandmaster, client, attacker] = &star.leaves[..] else { unreachable!() };
    let mut server = Agent::start(grandmaster, &SERVE);
    let mut agent = Agent::start(client, &["run", "-i", "eth0"]);
    agent.wait_for_state(0, PATIENCE, "time_receiver");
    let party = Party::new(attacker, ATTACKER);

    let mark = agent.mark();
    let captor = port(0x11);
    for sequence_id in 0..2 {
        let header = Header { log_message_interval: 22, ..Header::new(captor, sequence_id) };
        party.general(&message(header, announce(captor.clock_identity, 1)));
        thread::sleep(Duration::from_millis(100));
    }
    let captured = Instant::now();
    agent.wait_for_text(mark, PATIENCE, "following grandmaster=111111.1111.111111");
    agent.wait_for_state(mark, PATIENCE, "time_receiver");
    println!("back after {:.1} s", captured.elapsed().as_secs_f64());
    println!("run: {}\nserve: {}", agent.finish(), server.finish());
}

#[test]
fn false_announces_in_the_parents_name_change_nothing_and_are_an_alarm() {
    let _machine = in_company();
    let star = need!(Star::new(3));
    let [grandmaster, client, attacker] = &star.leaves[..] else { unreachable!() };
    let mut server = Agent::start(grandmaster, &SERVE);
    let mut agent = Agent::start(client, &["run", "-i", "eth0"]);
    agent.wait_for_state(0, PATIENCE, "time_receiver");
    let party = Party::new(attacker, ATTACKER);

    let mark = agent.mark();
    let begun = Instant::now();
    let deadline = begun + Duration::from_secs(40);
    let is_alarm = |agent: &Agent| {
        let lines = agent.lines();
        lines[mark..].iter().any(|line| line.text.contains("alarm=\"spoofing_suspected\""))
    };
    while !is_alarm(&agent) {
        assert!(Instant::now() < deadline, "no alarm");
        let mut copy = overhear(&party, MessageType::Announce, |_| true);
        // The time scale, the interval, and the next number; and once more, from long ago.
        copy[7] ^= 0x08;
        copy[33] = (-10_i8).cast_unsigned();
        for ahead in [1, 0, 500] {
            let sequence_id = MessageView::new(&copy).unwrap().header().sequence_id;
            let sequence_id = sequence_id.wrapping_add(ahead);
            copy[30..32].copy_from_slice(&sequence_id.to_be_bytes());
            party.general(&copy);
        }
    }
    println!("alarm after {:.1} s", begun.elapsed().as_secs_f64());
    for line in &agent.lines()[mark..] {
        for word in ["port state", "following", "no grandmaster", "stepped"] {
            assert!(!line.text.contains(word), "{}", line.text);
        }
    }
    println!("run: {}\nserve: {}", agent.finish(), server.finish());
}

#[test]
fn unicast_request_is_answered_by_unicast() {
    let _machine = in_company();
    let star = need!(Star::new(3));
    let [grandmaster, client, other] = &star.leaves[..] else { unreachable!() };
    let mut server = Agent::start(grandmaster, &SERVE);
    let party = Party::new(client, Ipv4Addr::new(192, 0, 2, 2));
    let witness = Party::new(other, ATTACKER);
    let own = PortIdentity { port_number: 7, ..port(0x22) };
    let request = |sequence_id, flags| {
        let header = Header { flags, ..Header::new(own, sequence_id) };
        message(header, Body::DelayReq { origin_timestamp: Timestamp::ZERO })
    };
    let answers = |message: &Message<'_>| {
        matches!(message.body, Body::DelayResp { requesting_port_identity, .. }
            if requesting_port_identity == own)
    };
    overhear(&party, MessageType::Announce, |_| true);
    party.event_to(Ipv4Addr::new(192, 0, 2, 1), &request(1, Flags::UNICAST));
    let answer = overhear(&party, MessageType::DelayResp, answers);
    let answer = MessageView::new(&answer).unwrap().header();
    assert_eq!((answer.sequence_id, answer.log_message_interval), (1, 0x7f));
    assert!(answer.flags.contains(Flags::UNICAST));
    // The next one is for everybody, and the first that the others hear.
    party.event(&request(2, Flags(0)));
    let heard = overhear(&witness, MessageType::DelayResp, answers);
    assert_eq!(MessageView::new(&heard).unwrap().header().sequence_id, 2);
    println!("serve: {}", server.finish());
}
