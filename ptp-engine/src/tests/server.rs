//! The transmitter message by message.

use super::*;
use crate::prelude::*;

fn messages(transmitter: &mut Transmitter) -> Vec<(Option<SentToken>, Vec<u8>)> {
    let mut messages = Vec::new();
    while let Some(action) = transmitter.next_command() {
        match action {
            Command::Send(Transmit { token: Some(token), message, .. }) => {
                messages.push((Some(token), message.to_vec()));
            }
            Command::Send(Transmit { token: None, message, .. }) => {
                messages.push((None, message.to_vec()))
            }
            _ => panic!(),
        }
    }
    messages
}

#[test]
fn a_follow_up_carries_the_stamp_of_its_sync_to_the_fraction() {
    let mut transmitter = grandmaster();
    transmitter.poll(at(0));
    let sent = messages(&mut transmitter);
    let (token, sync) = sent.iter().find(|(token, _)| token.is_some()).unwrap();
    let sync = Message::parse(sync).unwrap();
    assert_eq!(sync.message_type(), MessageType::Sync);
    let when = Time::<Ptp>::from_seconds_nanos(77, 5) + Duration::from_scaled_nanos(0x1234);
    transmitter.handle_tx_stamp(token.unwrap(), Some(when));
    let sent = messages(&mut transmitter);
    let follow_up = Message::parse(&sent[0].1).unwrap();
    assert_eq!(follow_up.header.sequence_id, sync.header.sequence_id);
    assert_eq!(follow_up.header.correction, TimeInterval(0x1234));
    assert_eq!(follow_up.body, Body::FollowUp { precise_origin_timestamp: time(77, 5) });
}

#[test]
fn a_delay_resp_returns_correction_and_receive_time_to_the_fraction() {
    let mut transmitter = grandmaster();
    let when = Time::<Ptp>::from_seconds_nanos(77, 5) + Duration::from_scaled_nanos(0x1234);
    transmitter.handle_message(at(5), PORT, &delay_req(9, 7 << 16), Some(when));
    let sent = messages(&mut transmitter);
    let answer = Message::parse(&sent[0].1).unwrap();
    assert_eq!(answer.header.correction, TimeInterval((7 << 16) - 0x1234));
    assert_eq!(
        answer.body,
        Body::DelayResp { receive_timestamp: time(77, 5), requesting_port_identity: OWN_PORT }
    );
}

#[test]
fn ntp_over_ptp_in_domain_123_is_not_answered() {
    let mut transmitter = grandmaster();
    let mut bytes = delay_req(9, 0);
    bytes[4] = 123;
    transmitter.handle_message(at(5), PORT, &bytes, Some(Time::ZERO));
    assert!(transmitter.next_command().is_none());
    assert_eq!(transmitter.counters(PORT).dropped(Drop::WrongDomain), 1);
}

#[test]
fn requests_beyond_the_limit_are_counted_and_dropped_and_the_limit_recovers() {
    let mut transmitter = grandmaster();
    for n in 0..100 {
        transmitter.handle_message(at(5), PORT, &delay_req(n, 0), Some(Time::ZERO));
    }
    assert_eq!(messages(&mut transmitter).len(), 10);
    assert_eq!(transmitter.counters(PORT).dropped(Drop::RateLimited), 90);
    transmitter.handle_message(at(205), PORT, &delay_req(200, 0), Some(Time::ZERO));
    assert_eq!(messages(&mut transmitter).len(), 1);
}

#[test]
fn sync_messages_keep_their_grid_when_polled_late() {
    let mut transmitter = grandmaster();
    let mut sent = 0;
    for millis in (0..100_000).step_by(37) {
        transmitter.poll(at(millis));
        sent += messages(&mut transmitter).iter().filter(|(token, _)| token.is_some()).count();
    }
    assert_eq!(sent, 100);
}

#[test]
fn brackets_of_stamps_are_told_where_that_is_wanted() {
    for tells_brackets in [true, false] {
        let config =
            TransmitterConfig { tells_brackets, ..TransmitterConfig::new(GM.clock_identity) };
        let mut transmitter = Transmitter::new(config, at(0));
        while transmitter.next_command().is_some() {}
        transmitter.handle_message(at(5), PORT, &delay_req(9, 0), Some(Time::ZERO));
        let sent = messages(&mut transmitter);
        let answer = Message::parse(&sent[0].1).unwrap();
        let told = Bracket { earliest_ns: i32::MIN, latest_ns: 1 };
        assert_eq!(Bracket::find(&answer.tlvs), tells_brackets.then_some(told));
    }
}
