//! The driver's metadata, on a veth pair: veth offers the function that is asked (Linux 6.3), and
//! never knows a time. So the way of a time that is known is tested with metadata written by hand.

use std::{
    thread::sleep,
    time::{Duration, Instant},
};

use bpf_tests::{
    frames::Recipe,
    in_company,
    links::{Wire, ip},
    metadata::{Witness, write},
    need,
    objects::kernel_programs,
    raw::FrameSocket,
};
use ptp_agent::{
    capture::{Hints, HintsError, Options, Programs},
    lab::netns::Namespace,
};
use ptp_common::{
    hint,
    record::{Hook, Record},
};

/// Packets of one kind that a test sends.
const PACKETS: u64 = 20;

/// On the client's side of a wire; `Err` with the reason to skip.
fn attach(wire: &Wire, interface: &str) -> Result<Hints, String> {
    match wire.client.run(|| Hints::attach(interface)).unwrap() {
        Ok(hints) => Ok(hints),
        Err(error @ HintsError::Kernel { .. }) => Err(error.to_string()),
        Err(error) => panic!("{error}"),
    }
}

fn send(wire: &Wire, frame: &[u8]) {
    let socket = wire.grandmaster.run(|| FrameSocket::open("gm0")).unwrap().unwrap();
    for _ in 0..PACKETS {
        socket.send(frame).unwrap();
    }
}

/// An IPv4 packet of a protocol for experiments (RFC 3692), which nobody answers.
fn other_frame() -> Vec<u8> {
    let mut frame = Recipe::sync_on_udp4().frame();
    frame[14 + 9] = 253;
    frame
}

fn attached_programs(wire: &Wire) -> Programs {
    let mut programs = Programs::load(Options::default()).unwrap();
    wire.client.run(|| programs.attach("ptp0")).unwrap().unwrap();
    programs
}

/// The records of the packets that were sent, once all are there.
fn records(programs: &mut Programs) -> Vec<Record> {
    let deadline = Instant::now() + Duration::from_secs(5);
    let mut records = Vec::new();
    while records.len() < PACKETS as usize && Instant::now() < deadline {
        programs.drain(|record| {
            if record.hook == Hook::TcIngress {
                records.push(record);
            }
        });
        sleep(Duration::from_millis(5));
    }
    assert_eq!(records.len(), PACKETS as usize);
    records
}

fn has_xdp(namespace: &Namespace, interface: &str) -> bool {
    ip(namespace, &format!("-details link show dev {interface}")).contains("xdp")
}

#[test]
fn only_ptp_packets_carry_a_hint_and_all_arrive() {
    need!(kernel_programs());
    let _company = in_company();
    let wire = need!(Wire::new());
    let mut programs = attached_programs(&wire);
    let witness =
        need!(wire.client.run(|| Witness::attach("ptp0")).unwrap().map_err(|e| e.to_string()));
    let _hints = need!(attach(&wire, "ptp0"));

    send(&wire, &other_frame());
    let deadline = Instant::now() + Duration::from_secs(5);
    while witness.counts().unwrap()[0] < PACKETS && Instant::now() < deadline {
        sleep(Duration::from_millis(5));
    }
    let [without, with] = witness.counts().unwrap();
    assert!(without >= PACKETS, "{without}");
    assert_eq!(with, 0);

    send(&wire, &Recipe::sync_on_ethernet().frame());
    let records = records(&mut programs);
    assert!(records.iter().all(|record| record.hardware_ns == 0), "{records:?}");
    assert_eq!(witness.counts().unwrap()[1], PACKETS);
}

#[test]
fn hints_end_with_their_value_and_can_come_again() {
    need!(kernel_programs());
    let _company = in_company();
    let wire = need!(Wire::new());
    for _ in 0..2 {
        let hints = need!(attach(&wire, "ptp0"));
        assert!(has_xdp(&wire.client, "ptp0"));
        let second = wire.client.run(|| Hints::attach("ptp0")).unwrap();
        assert!(matches!(&second, Err(HintsError::Busy(name)) if name == "ptp0"), "{second:?}");
        drop(hints);
        assert!(!has_xdp(&wire.client, "ptp0"));
    }
}

#[test]
fn device_without_metadata_is_named_and_the_other_programs_go_on() {
    need!(kernel_programs());
    let _company = in_company();
    let wire = need!(Wire::new());
    drop(need!(attach(&wire, "ptp0")));
    ip(&wire.client, "link add name br0 type bridge");
    ip(&wire.client, "link set lo up");
    let mut programs = attached_programs(&wire);
    for interface in ["br0", "lo"] {
        let refused = wire.client.run(|| Hints::attach(interface)).unwrap();
        let is_named = matches!(&refused, Err(HintsError::Driver(name)) if name == interface);
        assert!(is_named, "{interface}: {refused:?}");
        assert!(!has_xdp(&wire.client, interface));
    }
    let missing = wire.client.run(|| Hints::attach("none")).unwrap();
    assert!(matches!(missing, Err(HintsError::NoInterface(_))));
    send(&wire, &Recipe::sync_on_udp4().frame());
    records(&mut programs);
}

#[test]
fn time_in_a_hint_is_recorded_and_other_metadata_is_not() {
    const TIME: u64 = 0x1234_5678_9abc_def0;
    need!(kernel_programs());
    let _company = in_company();
    let wire = need!(Wire::new());
    let mut programs = attached_programs(&wire);
    let mut other = hint::encode(TIME);
    other[0] = 0;
    for (words, hardware_ns) in [(hint::encode(TIME), TIME), (other, 0)] {
        let written = wire.client.run(|| write("ptp0", words)).unwrap();
        let _writer = need!(written.map_err(|error| error.to_string()));
        send(&wire, &Recipe::sync_on_ethernet().frame());
        for record in records(&mut programs) {
            assert_eq!(record.hardware_ns, hardware_ns);
        }
    }
}
