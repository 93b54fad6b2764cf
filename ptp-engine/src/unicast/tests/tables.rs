//! What the table of grants makes of too much, and when messages are due.

use super::*;
use crate::unicast::service::Service;

fn request(
    service: &mut Service,
    now: Time<Mono>,
    (host, number): (u32, u16),
    kind: Granted,
    log_interval: i8,
) -> u32 {
    let ip = IpAddr::from((0xc000_0200 + host).to_be_bytes());
    let from = Address::Socket(SocketAddr::new(ip, 320));
    let who = PortIdentity { clock_identity: identity(0), port_number: number };
    service.request(now, (0, from, who), Some(kind), log_interval, 300, true)
}

fn service(config: ServiceConfig) -> Service {
    let mut service = Service::new(config, at(0.0));
    service.set_networks(vec!["192.0.0.0/8".parse().unwrap()]);
    service
}

#[test]
fn strangers_are_granted_nothing() {
    let mut service = service(ServiceConfig::default());
    let from = Address::Socket("203.0.113.1:320".parse().unwrap());
    let who = (0, from, PortIdentity::default());
    assert_eq!(service.request(at(0.0), who, Some(Granted::Sync), 0, 300, true), 0);
    assert_eq!(service.clients(), 0);
}

#[test]
fn flood_of_newcomers_takes_half_and_nothing_from_those_who_renew() {
    let mut service = service(ServiceConfig { max_clients: 1_000, ..ServiceConfig::default() });
    for host in 0..400 {
        assert!(request(&mut service, at(0.0), (host, 0), Granted::Sync, 0) > 0);
    }
    for host in 0..400 {
        assert!(request(&mut service, at(30.0), (host, 0), Granted::Sync, 0) > 0);
    }
    let mut granted = 0;
    for host in 1_000..200_000 {
        granted += u32::from(request(&mut service, at(31.0), (host, 0), Granted::Sync, 0) > 0);
    }
    assert_eq!(granted, 500);
    assert_eq!(service.clients(), 900);
    // They have short grants; who was there has not.
    while service.pop_due(at(100.0)).is_some() {}
    for second in 100..160 {
        while service.pop_due(at(f64::from(second))).is_some() {}
    }
    assert_eq!(service.clients(), 400);
    assert!(request(&mut service, at(200.0), (7, 0), Granted::Sync, 0) == 300);
}

#[test]
fn one_address_has_a_limit_and_so_has_the_rate() {
    let config = ServiceConfig {
        max_clients_per_host: 3,
        max_messages_per_second: 64,
        ..ServiceConfig::default()
    };
    let mut service = service(config);
    for number in 0..3 {
        assert!(request(&mut service, at(0.0), (1, number), Granted::Announce, 0) > 0);
    }
    assert_eq!(request(&mut service, at(0.0), (1, 3), Granted::Announce, 0), 0);
    // Newcomers have half of 64: three Announce and 2 x 8.
    assert!(request(&mut service, at(0.0), (2, 0), Granted::Sync, -3) > 0);
    assert_eq!(request(&mut service, at(0.0), (3, 0), Granted::Sync, -3), 0);
    assert_eq!(request(&mut service, at(0.0), (3, 0), Granted::Sync, -8), 0, "too fast");
    assert_eq!(request(&mut service, at(0.0), (3, 0), Granted::Sync, 22), 0, "too slow");
}

#[test]
fn messages_of_one_client_are_as_far_apart_as_was_granted() {
    let mut service = service(ServiceConfig::default());
    request(&mut service, at(0.0), (1, 0), Granted::Sync, -3);
    let mut last: Option<Time<Mono>> = None;
    let mut number = None;
    let mut seen = 0;
    let mut now = at(0.0);
    while now < at(10.0) {
        now = service.next().unwrap().max(now);
        while let Some(outgoing) = service.pop_due(now) {
            if let Some(last) = last {
                let gap = (now - last).as_secs_f64();
                assert!((0.12..0.13).contains(&gap), "{gap}");
            }
            assert_eq!(outgoing.sequence_id, number.map_or(0, |number: u16| number + 1));
            (last, number) = (Some(now), Some(outgoing.sequence_id));
            seen += 1;
        }
        now += Duration::from_micros(10);
    }
    assert!((79..=81).contains(&seen), "{seen}");
}

#[test]
fn delay_req_beyond_twice_what_was_granted_is_refused() {
    let mut service = service(ServiceConfig::default());
    request(&mut service, at(0.0), (1, 0), Granted::DelayResp, 0);
    let ip = IpAddr::from(0xc000_0201_u32.to_be_bytes());
    let from = Address::Socket(SocketAddr::new(ip, 5_000));
    let who = PortIdentity { clock_identity: identity(0), port_number: 0 };
    let admitted = (0..1_000)
        .filter(|n| {
            let now = at(f64::from(*n) / 100.0);
            service.admit_delay_req(now, 0, from, who) == Some(true)
        })
        .count();
    assert!((30..=40).contains(&admitted), "{admitted}");
    let stranger = PortIdentity { clock_identity: identity(3), port_number: 0 };
    assert_eq!(service.admit_delay_req(at(1.0), 0, from, stranger), None);
}
