//! Nodes in the simulated time of a stand-in for the server.

mod stand_in;

use std::{process::Output, str};

use ptp_common::wire::{
    Body, ClockIdentity, Header, Management, Message, PortIdentity, Tlvs,
    management::{Action, ManagementId, ManagementTlv},
};
use stand_in::{Begin, Packet, StandIn, UNIX_SUBNET, command};

const PORT: &[&str] = &["eth0"];
const GRANDMASTER: Begin =
    Begin { configuration: "masterOnly 1", interfaces: PORT, offset_s: 0.0, fast: 0.0 };
const CLIENT: Begin =
    Begin { configuration: "slaveOnly 1", interfaces: PORT, offset_s: 0.1, fast: 5e-5 };

fn log(output: &Output) -> &str {
    assert!(output.status.success(), "{output:?}");
    str::from_utf8(&output.stdout).expect("text")
}

#[test]
fn a_client_follows_a_grandmaster_and_its_system_clock_is_right() {
    let mut network = StandIn::start(&[GRANDMASTER, CLIENT]);
    network.run(60.0);
    // Both directions take as long, to the nanoseconds by which a card stamps the begin of a frame.
    assert!(network.ahead_s(1).abs() < 1e-7, "{}", network.ahead_s(1));
    let ended = network.end();
    assert!(log(&ended[0]).contains("selected local clock 123456.fffe.780101 as best master"));
    let client = log(&ended[1]);
    assert!(client.contains("selected best master clock 123456.fffe.780101"), "{client}");
    assert!(client.contains("master offset"), "{client}");
}

#[test]
fn peer_delay_and_software_stamps_are_as_good() {
    let configuration = "masterOnly 1\ndelay_mechanism P2P\ntime_stamping software";
    let grandmaster = Begin { configuration, ..GRANDMASTER };
    let configuration = "slaveOnly 1\ndelay_mechanism P2P\ntime_stamping software\nlogging_level 7";
    let mut network = StandIn::start(&[grandmaster, Begin { configuration, ..CLIENT }]);
    network.run(60.0);
    assert!(network.ahead_s(1).abs() < 1e-7, "{}", network.ahead_s(1));
    let ended = network.end();
    let delay = log(&ended[1]).lines().rfind(|line| line.contains("delay   filtered"));
    assert!(delay.is_some_and(|line| line.ends_with("raw       1000")), "{delay:?}");
}

#[test]
fn a_client_behind_a_transparent_clock_follows_and_the_clock_in_between_need_not() {
    for (serves, forwards, follows) in [
        ("masterOnly 1", "clock_type E2E_TC\nfree_running 1", "slaveOnly 1"),
        (
            "masterOnly 1\ndelay_mechanism P2P",
            "clock_type P2P_TC\ndelay_mechanism P2P\nfree_running 1",
            "slaveOnly 1\ndelay_mechanism P2P",
        ),
    ] {
        let mut network = StandIn::start(&[
            Begin { configuration: serves, ..GRANDMASTER },
            Begin {
                configuration: forwards,
                interfaces: &["eth0", "eth2"],
                offset_s: 0.5,
                fast: 1e-5,
            },
            Begin { configuration: follows, interfaces: &["eth2"], ..CLIENT },
        ]);
        network.run(60.0);
        // Peer delay sees each link, and the clock in between says how long a message took.
        assert!(network.ahead_s(2).abs() < 1e-7, "{forwards}: {}", network.ahead_s(2));
        assert!(network.ahead_s(1) > 0.5, "{forwards}: {}", network.ahead_s(1));
        network.end();
    }
}

#[test]
fn of_two_that_may_be_either_the_one_with_the_lower_identity_serves() {
    let either = |offset_s| Begin { configuration: "", offset_s, ..GRANDMASTER };
    let mut network = StandIn::start(&[either(0.0), either(-0.2)]);
    network.run(60.0);
    assert!(network.ahead_s(1).abs() < 1e-7, "{}", network.ahead_s(1));
    let ended = network.end();
    assert!(!log(&ended[0]).contains("selected best master clock"));
    assert!(log(&ended[1]).contains("selected best master clock 123456.fffe.780101"));
}

/// What asks all ports for something.
fn get(id: ManagementId) -> Vec<u8> {
    let mut room = [0; 16];
    let length = ManagementTlv::Data { id, payload: &[] }.emit(&mut room).expect("it fits");
    let from = PortIdentity { clock_identity: ClockIdentity([7; 8]), port_number: 1 };
    let body = Body::Management(Management {
        target_port_identity: PortIdentity::ALL,
        starting_boundary_hops: 0,
        boundary_hops: 0,
        action: Action::GET.0,
    });
    let tlvs = Tlvs::new(&room[..length]).expect("whole");
    let mut data = vec![0; 128];
    let length =
        Message { header: Header::new(from, 5), body, tlvs }.emit(&mut data).expect("it fits");
    data.truncate(length);
    data
}

#[test]
fn who_asks_at_the_local_socket_is_answered_there() {
    let mut network = StandIn::start(&[GRANDMASTER]);
    network.run(1.0);
    let data = get(ManagementId::DEFAULT_DATA_SET);
    // From a node that is none of the stand-in's.
    network.deliver(0, Packet { subnet: UNIX_SUBNET, from: 9, src_port: 4, dst_port: 1, data });
    network.run(1.0);
    let [answer] = &network.answers[..] else { panic!("{:?}", network.answers) };
    assert_eq!((answer.subnet, answer.src_port, answer.dst_port), (UNIX_SUBNET, 1, 4));
    let message = Message::parse(&answer.data).expect("a message");
    assert_eq!(message.header.sequence_id, 5);
    network.end();
}

#[test]
fn management_that_a_port_has_received_and_answered_is_counted() {
    /// Of the answer: the header, the target, the TLV's head, and the port that tells.
    const COUNTS: usize = 34 + 14 + 6 + 10;
    const MANAGEMENT: usize = 0xd;
    let mut network = StandIn::start(&[GRANDMASTER]);
    network.run(1.0);
    let data = get(ManagementId::NULL);
    network.deliver(0, Packet { subnet: 0, from: 9, src_port: 320, dst_port: 320, data });
    network.run(1.0);
    let data = get(ManagementId::PORT_STATS_NP);
    network.deliver(0, Packet { subnet: UNIX_SUBNET, from: 9, src_port: 4, dst_port: 1, data });
    network.run(1.0);
    let answer = network.answers.last().expect("an answer");
    let (received, sent) = answer.data[COUNTS..].split_at(16 * 8);
    for counts in [received, sent] {
        let count = counts[MANAGEMENT * 8..].first_chunk().expect("a count of each type");
        assert_eq!(u64::from_le_bytes(*count), 1);
    }
    network.end();
}

#[test]
fn a_server_that_goes_away_is_an_error_and_no_panic() {
    let mut network = StandIn::start(&[GRANDMASTER]);
    network.run(1.0);
    for ended in network.vanish() {
        assert_eq!(ended.status.code(), Some(1));
        assert!(String::from_utf8_lossy(&ended.stderr).starts_with("sim-node: the simulation: "));
    }
}

#[test]
fn what_cannot_be_is_refused_before_the_server_is_asked() {
    for arguments in [
        &["-z"][..],
        &["-f", "/nonexistent", "-i", "eth0"],
        &["--priority1", "x", "-i", "eth0"],
        &[],
    ] {
        let ended = command(1).args(arguments).output().expect("it starts");
        assert_eq!(ended.status.code(), Some(1), "{arguments:?}");
        assert!(ended.stderr.starts_with(b"sim-node: "), "{arguments:?}");
    }
}
