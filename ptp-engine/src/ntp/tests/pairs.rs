//! Two requests at once, of a server nearby that answers in basic mode; and how a server tells the departures of such answers.

use super::*;
use std::vec;

/// A client that repeats, and its server.
fn world(kind: ExchangeKind) -> World {
    let mut world = World::new(kind);
    let asked = AssociationConfig { address: SERVER, poll: Poll::new(0, 4), kind, repeats: true };
    let utc = Time::from_epoch(BEGIN - Duration::from_secs(37));
    let client = NtpClient::new(&[asked], utc, [1; 32], Time::ZERO);
    world.client = Driven::new_with(client, Commands::default());
    world
}

type Request = (Vec<u8>, SentToken);

impl World {
    /// A request is sent, and answered after so much more than the way. What is asked at once then.
    fn answered(&mut self, (request, token): &Request, later: Duration) -> Option<Request> {
        let now = self.now;
        self.client.handle_tx_stamp(now, *token, Some(stamp(now)));
        let (answer, left) = self.answer(request).expect("an answer");
        self.now = left + WAY + later;
        self.given(&answer)
    }

    /// What is asked at once when this has come.
    fn given(&mut self, answer: &[u8]) -> Option<Request> {
        let (now, from) = (self.now, Some(Address::Socket(SERVER)));
        let input = Input::Message { on: WITH, from, bytes: answer, stamp: Some(stamp(now)) };
        self.client.handle(now, &self.clock, input);
        let mut next = None;
        while let Some(command) = self.client.next_command() {
            match command {
                Command::Send(transmit) => {
                    next = Some((transmit.message.to_vec(), transmit.token.unwrap()));
                }
                Command::Event(event) => self.events.push(event),
                other => panic!("{other:?}"),
            }
        }
        next
    }

    fn turns(&self) -> Vec<Turn> {
        self.exchanges().iter().map(|exchange| exchange.turn).collect()
    }
}

#[test]
fn a_server_nearby_that_answers_in_basic_mode_is_asked_again_at_once_and_not_a_third_time() {
    let mut world = world(ExchangeKind::Basic);
    for _ in 0..3 {
        let first = world.request();
        let asked = world.now;
        let second = world.answered(&first, Duration::ZERO).expect("a second request");
        assert_eq!(world.answered(&second, Duration::ZERO), None);
        assert!(world.now - asked < Duration::from_millis(1));
    }
    assert_eq!(world.turns(), [Turn::First, Turn::Second].repeat(3));
    let state = world.client.states().next().unwrap();
    assert_eq!((state.requests, state.exchanges, state.reach), (6, 6, 0b111));
}

#[test]
fn who_gives_interleaved_answers_or_is_far_away_is_asked_once() {
    let mut near = world(ExchangeKind::Interleaved);
    for _ in 0..4 {
        let request = near.request();
        assert_eq!(near.answered(&request, Duration::ZERO), None);
    }
    let mut far = world(ExchangeKind::Basic);
    for _ in 0..4 {
        let request = far.request();
        assert_eq!(far.answered(&request, Duration::from_millis(2)), None);
    }
    assert_eq!([near.turns(), far.turns()], [vec![Turn::Alone; 4], vec![Turn::Alone; 4]]);
}

#[test]
fn a_server_that_does_not_answer_second_requests_is_asked_no_more_of_them() {
    let mut world = world(ExchangeKind::Basic);
    let mut repeated = 0;
    for _ in 0..8 {
        let request = world.request();
        repeated += u32::from(world.answered(&request, Duration::ZERO).is_some());
    }
    assert_eq!(repeated, 3);
    assert_eq!(world.turns()[6..], [Turn::Alone; 2]);
    assert_eq!(world.client.states().next().unwrap().reach, 0xff, "it has answered all the same");
}

#[test]
fn a_kiss_for_a_second_request_ends_them_and_changes_nothing_else() {
    let mut world = world(ExchangeKind::Basic);
    let first = world.request();
    let (second, _) = world.answered(&first, Duration::ZERO).unwrap();
    let (answer, _) = world.answer(&second).unwrap();
    let (mut kiss, _) = NtpPacket::parse(&answer).unwrap();
    (kiss.stratum, kiss.reference_id) = (0, ReferenceId::RATE);
    assert_eq!(world.given(&kiss.to_bytes()), None);
    assert_eq!(world.client.states().next().unwrap().poll, 0);
    let request = world.request();
    assert_eq!(world.answered(&request, Duration::ZERO), None);
    // One for a request that stands alone is obeyed as ever.
    let (request, _) = world.request();
    let (answer, _) = world.answer(&request).unwrap();
    let (mut kiss, _) = NtpPacket::parse(&answer).unwrap();
    (kiss.stratum, kiss.reference_id) = (0, ReferenceId::RATE);
    world.given(&kiss.to_bytes());
    assert_eq!(world.client.states().next().unwrap().poll, 1);
}

#[test]
fn a_server_tells_cold_and_warm_answers_by_what_each_of_them_takes() {
    let mut world = World::new(ExchangeKind::Basic);
    let takes = [Duration::from_micros(40), Duration::from_micros(3)];
    let mut errors = Vec::new();
    for n in 0..40 {
        world.now += Duration::from_secs(1);
        for taken in takes {
            let request = NtpPacket::request(NtpTimestamp(2 * n + 1), 0).to_bytes();
            let (came, from) = (world.now + WAY, Some(Address::Socket(CLIENT)));
            let stamped = Some(stamp(came));
            let input = Input::Message { on: WITH, from, bytes: &request, stamp: stamped };
            world.server.handle(came, &world.clock, input);
            let Some(Command::Send(answer)) = world.server.next_command() else { panic!() };
            let left = came + taken;
            let sent = Input::Sent { token: answer.token.unwrap(), stamp: Some(stamp(left)) };
            world.server.handle(left, &world.clock, sent);
            let (packet, _) = NtpPacket::parse(&answer.message).unwrap();
            errors.push(packet.transmit.near(utc(left)) - utc(left));
            world.now = left;
        }
    }
    assert!(errors[16..].iter().all(|error| near(*error, Duration::ZERO)), "{errors:?}");
    // Until it knows, it tells a time that is sooner than the departure: a later one could be no bound.
    assert!(errors[..16].iter().all(|error| error.is_negative()), "{errors:?}");
}
