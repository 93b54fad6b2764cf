//! What the bookkeeping of many unicast grants costs: memory, and the time to grant, to renew and to find what is due.
//! `cargo run --release -p ptp-engine --example grants -- 1000000`

use std::{fs, net::SocketAddr, time::Instant};

use ptp_common::{
    time::{Duration, Mono, Time},
    wire::{ClockIdentity, Granted, PortIdentity},
};
use ptp_engine::{
    address::Address,
    unicast::service::{Service, ServiceConfig},
};

/// Resident memory of this process, MB.
fn resident_mb() -> f64 {
    let statm = fs::read_to_string("/proc/self/statm").unwrap_or_default();
    let pages: f64 = statm.split(' ').nth(1).and_then(|text| text.parse().ok()).unwrap_or(0.0);
    pages * 4096.0 / 1e6
}

fn main() {
    let grants: u32 = std::env::args().nth(1).and_then(|text| text.parse().ok()).unwrap_or(30_000);
    let clients = grants.div_ceil(3);
    let start: Time<Mono> = Time::from_nanos(1_000_000_000_000);
    let config = ServiceConfig {
        max_clients: clients * 2,
        max_messages_per_second: u32::MAX,
        max_duration_s: 3_600,
        ..ServiceConfig::default()
    };
    let before = resident_mb();
    let mut service = Service::new(config, start);
    service.set_networks(vec!["10.0.0.0/8".parse().expect("a prefix")]);
    let ask = |service: &mut Service, now, number: u32| {
        let [_, b, c, d] = number.to_be_bytes();
        let from = Address::Socket(SocketAddr::from(([10, b, c, d], 320)));
        let clock_identity = ClockIdentity((u64::from(number) << 8 | 1).to_be_bytes());
        let who = (0, from, PortIdentity { clock_identity, port_number: 1 });
        let granted = Granted::ALL
            .into_iter()
            .map(|kind| u32::from(service.request(now, who, Some(kind), 0, 3_600, true) > 0));
        granted.sum::<u32>()
    };
    let began = Instant::now();
    let granted: u32 = (0..clients).map(|number| ask(&mut service, start, number)).sum();
    let each_ns = began.elapsed().as_nanos() as f64 / f64::from(granted.max(1));
    println!("{granted} grants to {clients} clients: {each_ns:.0} ns each");
    println!("{:.0} MB, {:.0} bytes each", resident_mb() - before, {
        (resident_mb() - before) * 1e6 / f64::from(granted.max(1))
    });
    let began = Instant::now();
    let mut due = 0_u32;
    for step in 0..3_000 {
        while service.pop_due(start + Duration::from_millis(step)).is_some() {
            due += 1;
        }
    }
    let each_ns = began.elapsed().as_nanos() as f64 / f64::from(due.max(1));
    println!("{due} messages due in 3 s: {each_ns:.0} ns each");
    let later = start + Duration::from_secs(5);
    let began = Instant::now();
    let renewed: u32 = (0..clients).map(|number| ask(&mut service, later, number)).sum();
    let each_ns = began.elapsed().as_nanos() as f64 / f64::from(renewed.max(1));
    println!("{renewed} renewed: {each_ns:.0} ns each; {:.0} MB", resident_mb() - before);
}
