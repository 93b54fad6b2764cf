//! Requests that mean no good, and what a server makes of them.

use super::*;
use crate::unicast::service::Service;

/// What a server that serves 192.0.2.0/24 answers to a request from an address.
fn answered(from: Address, said: Negotiation) -> (Option<Negotiation>, [usize; 2]) {
    let mut world = World::new();
    world.server(1, 128, ServiceConfig::default());
    world.settle();
    let source = PortIdentity { clock_identity: identity(9), port_number: 1 };
    let request = signaling(source, said);
    let now = world.now;
    let server = world.instance(1);
    let input = Input::Message { on: PORT, from: Some(from), bytes: &request, stamp: None };
    server.handle(now, &Monotonic::default(), input);
    let mut answer = None;
    while let Some(command) = server.next_command() {
        let Command::Send(transmit) = command else { continue };
        if MessageView::new(&transmit.message).unwrap().message_type() == MessageType::Signaling {
            assert_eq!(transmit.to, Destination::Unicast(from));
            assert!(answer.replace(transmit.message).is_none(), "one answer");
        }
    }
    let lengths = [request.len(), answer.as_ref().map_or(0, |answer| answer.len())];
    let said = answer.map(|answer| {
        let message = Message::parse(&answer).unwrap();
        Negotiation::of(&message.tlvs.iter().next().unwrap()).unwrap().unwrap()
    });
    (said, lengths)
}

#[test]
fn absurd_requests_are_denied_in_their_own_name_and_for_ever_is_the_longest_that_is_granted() {
    for (message_type, log_interval, duration_s, granted_s) in [
        (0x0, -128, 300, 0),
        (0x0, 127, 300, 0),
        (0x0, -8, 300, 0),
        (0xb, -4, 300, 0),
        (0x9, 7, 300, 0),
        (0x0, 0, 0, 0),
        // Delay_Req, Management and what is no message at all.
        (0x1, 0, 300, 0),
        (0xd, 0, 300, 0),
        (0x7, 0, 300, 0),
        (0x3, 0, 300, 0),
        (0x0, 0, u32::MAX, 1_000),
        (0xb, 6, u32::MAX, 1_000),
    ] {
        let said = Negotiation::Request { message_type, log_interval, duration_s };
        let (answer, _) = answered(address(9), said);
        let invites_renewal = granted_s != 0;
        let duration_s = granted_s;
        let expected =
            Negotiation::Grant { message_type, log_interval, duration_s, invites_renewal };
        assert_eq!(answer, Some(expected));
    }
}

#[test]
fn stranger_gets_a_denial_that_is_hardly_longer_than_its_request() {
    let from = Address::Socket("203.0.113.9:320".parse().unwrap());
    let said = Negotiation::Request { message_type: 0, log_interval: 0, duration_s: 300 };
    let (answer, [request, denial]) = answered(from, said);
    assert!(matches!(answer, Some(Negotiation::Grant { duration_s: 0, .. })), "{answer:?}");
    // Ethernet, IPv4 and UDP are around both.
    let around = 14 + 20 + 8;
    assert!((denial + around) * 5 <= (request + around) * 6, "{denial} for {request}");
}

#[test]
fn who_asks_for_ever_other_intervals_sets_no_ever_more_timers() {
    let mut service = Service::new(ServiceConfig::default(), at(0.0));
    service.set_networks(networks());
    let who = (0, address(9), PortIdentity { clock_identity: identity(9), port_number: 1 });
    let mut most = 0;
    for n in 0..20_000_u32 {
        let now = at(f64::from(n) / 32.0);
        for kind in Granted::ALL {
            let log_interval = if n % 2 == 0 { 6 } else { -3 };
            assert!(service.request(now, who, Some(kind), log_interval, 1_000, true) > 0);
        }
        while service.pop_due(now).is_some() {}
        most = most.max(service.timers());
    }
    assert!(most < 2_000, "{most}");
    assert_eq!(service.clients(), 1);
}

#[test]
fn server_that_could_not_keep_up_sends_at_the_same_places_afterwards_and_counts_what_is_missing() {
    let mut service = Service::new(ServiceConfig::default(), at(0.0));
    service.set_networks(networks());
    for port_number in 0..64 {
        let who = (0, address(9), PortIdentity { clock_identity: identity(9), port_number });
        assert!(service.request(at(0.0), who, Some(Granted::Sync), 0, 300, true) > 0);
    }
    let mut popped = 0;
    // It does nothing for five seconds.
    while service.pop_due(at(5.0)).is_some() {
        popped += 1;
    }
    assert_eq!(popped, 64);
    assert_eq!(popped + service.skipped(), 5 * 64);
    let mut at_once = 0;
    for step in 0..100 {
        let mut now = 0;
        while service.pop_due(at(5.0 + f64::from(step + 1) / 100.0)).is_some() {
            now += 1;
        }
        at_once = at_once.max(now);
    }
    assert!(at_once <= 8, "{at_once} in ten milliseconds");
}
