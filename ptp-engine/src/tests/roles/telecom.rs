//! What telecom profiles want of a clock: another comparison, and a class that tells of holdover.

use super::*;

#[test]
fn by_the_alternate_algorithm_the_port_with_the_lower_local_priority_is_followed() {
    let mut world = World::new();
    let telecom = |n: u8, ports: usize| {
        let (mut config, mut contention) = clock(n, ports);
        config.ports.iter_mut().for_each(|port| port.local_priority = Some(128));
        contention.local_priority = Some(128);
        (config, contention)
    };
    let with_reference = |n: u8| {
        let (config, mut contention) = telecom(n, 1);
        contention.transmitter.clock_quality.clock_class = 6;
        (config, contention)
    };
    let first = world.add(with_reference(1), &[0]);
    let second = world.add(with_reference(2), &[1]);
    let mut third = telecom(3, 2);
    third.0.ports[1].local_priority = Some(1);
    let ours = world.add(third, &[0, 1]);
    world.run(30);
    assert_eq!(world.grandmaster(ours), identity(2));
    // Both have a reference, and serve.
    assert_eq!((world.state(first, 0), world.state(second, 0)), (TimeTransmitter, TimeTransmitter));
    world.clocks[second].alive = false;
    world.run(30);
    assert_eq!(world.grandmaster(ours), identity(1));
}

#[test]
fn a_clock_that_loses_its_reference_says_so_by_class_and_keeps_its_time_scale() {
    let mut world = World::new();
    let mut first = clock(1, 1);
    let flags = Flags::PTP_TIMESCALE | Flags::UTC_OFFSET_VALID | Flags::TIME_TRACEABLE;
    first.1.transmitter.time_properties =
        ptp_common::data_set::TimeProperties::told(37, flags, TimeSource::GNSS);
    let first = world.add(first, &[0]);
    let mut second = clock(2, 2);
    second.1.holdover = Some(crate::contention::Holdover {
        within: 135,
        span: Duration::from_secs(30),
        beyond: 165,
    });
    let ours = world.add(second, &[0, 1]);
    world.run(20);
    world.clocks[first].alive = false;
    world.run(15);
    let (header, announce, _) = world.last_announce(1);
    assert_eq!(announce.grandmaster_identity, identity(2));
    assert_eq!(announce.grandmaster_clock_quality.clock_class, 135);
    assert!(header.flags.contains(Flags::PTP_TIMESCALE | Flags::UTC_OFFSET_VALID));
    assert!(!header.flags.contains(Flags::TIME_TRACEABLE));
    assert_eq!(announce.time_source, TimeSource::INTERNAL_OSCILLATOR);
    world.run(30);
    let (header, announce, _) = world.last_announce(1);
    assert_eq!(announce.grandmaster_clock_quality.clock_class, 165);
    assert!(header.flags.contains(Flags::SYNCHRONIZATION_UNCERTAIN));
    assert_eq!(world.clocks[ours].instance.steps_removed(), 0);
}
