//! Frames that ptp4l (linuxptp 3.1.1) sent over a veth pair, captured with tshark: what a real peer
//! sends is found, parsed and written back byte for byte. Software stamps, path trace on; one
//! end-to-end pair per transport, a peer-to-peer pair on Ethernet, a unicast negotiation, and `pmc`.

use ptp_common::{
    classify::{Network, PORT_EVENT, PORT_GENERAL, classify},
    wire::{
        Body, ClockAccuracy, Flags, Message, MessageKey, MessageType, MessageView, PortIdentity,
        TimeInterval, TimeSource, Timestamp, TlvType,
    },
};

struct Capture {
    network: Network,
    kind: MessageType,
    hex: &'static str,
}

const CAPTURES: &[Capture] = &[
    Capture {
        network: Network::Ipv4,
        kind: MessageType::Sync,
        hex: "01005e000181da7bbf715dc2080045000048d0e640000111bcd90a630001e0000181013f013f0034ec2a00\
         02002c00000200000000000000000000000000da7bbffffe715dc20001000300fe00000000000000000000",
    },
    Capture {
        network: Network::Ipv4,
        kind: MessageType::DelayReq,
        hex: "01005e00018182cb1d552187080045000048bae540000111d2d90a630002e0000181013f013f0034ec2b01\
         02002c0000000000000000000000000000000082cb1dfffe55218700010000017f00000000000000000000",
    },
    Capture {
        network: Network::Ipv4,
        kind: MessageType::FollowUp,
        hex: "01005e000181da7bbf715dc2080045000048d0e740000111bcd80a630001e0000181014001400034ec2a08\
         02002c00000000000000000000000000000000da7bbffffe715dc20001000302fe00006b02130e0ad8ea8f",
    },
    Capture {
        network: Network::Ipv4,
        kind: MessageType::DelayResp,
        hex: "01005e000181da7bbf715dc2080045000052d11540000111bca00a630001e000018101400140003eec3409\
         02003600000000000000000000000000000000da7bbffffe715dc200010000030000006b02130e17601bfa\
         82cb1dfffe5521870001",
    },
    Capture {
        network: Network::Ipv4,
        kind: MessageType::Announce,
        hex: "01005e000181da7bbf715dc2080045000068d05840000111bd470a630001e0000181014001400054ec4a0b\
         02004c00000000000000000000000000000000da7bbffffe715dc20001000005ff00000000000000000000\
         00250080f8feffff80da7bbffffe715dc20000a000080008da7bbffffe715dc2",
    },
    Capture {
        network: Network::Ipv4,
        kind: MessageType::Management,
        hex: "01005e00018182cb1d552187080045000064bd9240000111d0100a630002e0000181014001400050ec470d\
         0200480000000000000000000000000000000082cb1dfffe55218700010000047fffffffffffffffffffff\
         01010000000100142001000000000000000000000000000000000000",
    },
    Capture {
        network: Network::Ipv6,
        kind: MessageType::Sync,
        hex: "333300000181da7bbf715dc286dd6006d9a700361101fe80000000000000d87bbffffe715dc2ff0e000000\
         0000000000000000000181013f013f0036f4070002002c00000200000000000000000000000000da7bbfff\
         fe715dc20001000300fe000000000000000000000000",
    },
    Capture {
        network: Network::Ipv6,
        kind: MessageType::DelayReq,
        hex: "33330000018182cb1d55218786dd600bf5b000361101fe8000000000000080cb1dfffe552187ff0e000000\
         0000000000000000000181013f013f0036bdff0102002c0000000000000000000000000000000082cb1dff\
         fe55218700010000017f000000000000000000000000",
    },
    Capture {
        network: Network::Ipv6,
        kind: MessageType::FollowUp,
        hex: "333300000181da7bbf715dc286dd600bd09800361101fe80000000000000d87bbffffe715dc2ff0e000000\
         0000000000000000000181014001400036f4070802002c00000000000000000000000000000000da7bbfff\
         fe715dc20001000302fe00006b0213191df033e40000",
    },
    Capture {
        network: Network::Ipv6,
        kind: MessageType::DelayResp,
        hex: "333300000181da7bbf715dc286dd600bd09800401101fe80000000000000d87bbffffe715dc2ff0e000000\
         0000000000000000000181014001400040f4110902003600000000000000000000000000000000da7bbfff\
         fe715dc200010000030000006b02131a00232dfe82cb1dfffe55218700010000",
    },
    Capture {
        network: Network::Ipv6,
        kind: MessageType::Announce,
        hex: "333300000181da7bbf715dc286dd600bd09800561101fe80000000000000d87bbffffe715dc2ff0e000000\
         0000000000000000000181014001400056f4270b02004c00000000000000000000000000000000da7bbfff\
         fe715dc20001000005ff0000000000000000000000250080f8feffff80da7bbffffe715dc20000a0000800\
         08da7bbffffe715dc20000",
    },
    Capture {
        network: Network::Ipv6,
        kind: MessageType::Management,
        hex: "33330000018182cb1d55218786dd600e41c900521101fe8000000000000080cb1dfffe552187ff0e000000\
         0000000000000000000181014001400052be1b0d0200480000000000000000000000000000000082cb1dff\
         fe55218700010000047fffffffffffffffffffff0101000000010014200100000000000000000000000000\
         00000000000000",
    },
    Capture {
        network: Network::Ethernet,
        kind: MessageType::Sync,
        hex: "011b19000000d213becd3f7b88f70002002c00000200000000000000000000000000d213befffecd3f7b00\
         01000300fe00000000000000000000",
    },
    Capture {
        network: Network::Ethernet,
        kind: MessageType::DelayReq,
        hex: "011b19000000366853e16d0f88f70102002c00000000000000000000000000000000366853fffee16d0f00\
         010000017f00000000000000000000",
    },
    Capture {
        network: Network::Ethernet,
        kind: MessageType::FollowUp,
        hex: "011b19000000d213becd3f7b88f70802002c00000000000000000000000000000000d213befffecd3f7b00\
         01000302fe00006b0212d8021e27e2",
    },
    Capture {
        network: Network::Ethernet,
        kind: MessageType::DelayResp,
        hex: "011b19000000d213becd3f7b88f70902003600000000000000000000000000000000d213befffecd3f7b00\
         010000030000006b0212d8099ca54e366853fffee16d0f0001",
    },
    Capture {
        network: Network::Ethernet,
        kind: MessageType::Announce,
        hex: "011b19000000d213becd3f7b88f70b02004c00000000000000000000000000000000d213befffecd3f7b00\
         01000005ff0000000000000000000000250080f8feffff80d213befffecd3f7b0000a000080008d213beff\
         fecd3f7b",
    },
    Capture {
        network: Network::Ethernet,
        kind: MessageType::Management,
        hex: "011b19000000366853e16d0f88f70d02004800000000000000000000000000000000366853fffee16d0f00\
         010000047fffffffffffffffffffff01010000000100142001000000000000000000000000000000000000",
    },
    Capture {
        network: Network::Ethernet,
        kind: MessageType::PdelayReq,
        hex: "0180c200000e366853e16d0f88f70202003600000000000000000000000000000000366853fffee16d0f00\
         010000057f0000000000000000000000000000000000000000",
    },
    Capture {
        network: Network::Ethernet,
        kind: MessageType::PdelayResp,
        hex: "0180c200000ed213becd3f7b88f70302003600000200000000000000000000000000d213befffecd3f7b00\
         010000057f00006b0212e0350dbbcc366853fffee16d0f0001",
    },
    Capture {
        network: Network::Ethernet,
        kind: MessageType::PdelayRespFollowUp,
        hex: "0180c200000ed213becd3f7b88f70a02003600000000000000000000000000000000d213befffecd3f7b00\
         010000057f00006b0212e03510893d366853fffee16d0f0001",
    },
    Capture {
        network: Network::Ipv4,
        kind: MessageType::Signaling,
        hex: "f60e5842ca08bad02d9d14e6080045000066efd94000401135e50a6300020a630001014001400052152c0c\
         02004a00000400000000000000000000000000bad02dfffe9d14e600010002057ff60e58fffe42ca080001\
         00040006b0010000000a0004000600000000000a0004000690ff0000000a",
    },
];

fn frame(capture: &Capture) -> Vec<u8> {
    let digit = |byte: u8| char::from(byte).to_digit(16).expect("hexadecimal") as u8;
    capture.hex.as_bytes().chunks(2).map(|pair| digit(pair[0]) << 4 | digit(pair[1])).collect()
}

/// The PTP message in `frame`, with the padding that the transport added.
fn payload(frame: &[u8]) -> &[u8] {
    &frame[classify(frame).expect("PTP").ptp_offset..]
}

fn find(network: Network, kind: MessageType) -> Vec<u8> {
    let capture = CAPTURES
        .iter()
        .find(|capture| capture.network == network && capture.kind == kind)
        .expect("captured");
    payload(&frame(capture)).to_vec()
}

#[test]
fn every_message_type_was_captured() {
    for kind in MessageType::ALL {
        assert!(CAPTURES.iter().any(|capture| capture.kind == kind), "{kind:?}");
    }
}

#[test]
fn every_captured_frame_is_found_and_written_back_byte_for_byte() {
    for capture in CAPTURES {
        let frame = frame(capture);
        let location = classify(&frame[..]).expect("PTP");
        assert_eq!(location.network, capture.network);
        let port = match capture.network {
            Network::Ethernet => 0,
            _ if capture.kind.is_event() => PORT_EVENT,
            _ => PORT_GENERAL,
        };
        assert_eq!((location.source_port, location.destination_port), (port, port));
        let payload = payload(&frame);
        let message = Message::parse(payload).expect("well formed");
        assert_eq!(message.message_type(), capture.kind);
        let mut again = vec![0; message.wire_length()];
        message.emit(&mut again).expect("there is room");
        assert_eq!(again, payload[..again.len()]);
        // Over IPv6 two bytes follow, which a transparent clock may change to keep the checksum.
        let padding = if capture.network == Network::Ipv6 { 2 } else { 0 };
        assert_eq!(payload.len() - again.len(), padding);
        assert_eq!(MessageKey::from_prefix(&payload[..34]), Ok(message.key()));
    }
}

#[test]
fn the_announce_says_what_the_grandmaster_was_configured_to_say() {
    let bytes = find(Network::Ipv4, MessageType::Announce);
    let message = Message::parse(&bytes).unwrap();
    let Body::Announce(announce) = message.body else { panic!("{message:?}") };
    // Software stamps: an arbitrary time scale, and yet a UTC offset.
    assert!(!message.header.flags.contains(Flags::PTP_TIMESCALE));
    assert_eq!(announce.current_utc_offset, 37);
    assert_eq!(announce.grandmaster_clock_quality.clock_class, 248);
    assert_eq!(announce.grandmaster_clock_quality.clock_accuracy, ClockAccuracy::UNKNOWN);
    assert_eq!((announce.grandmaster_priority1, announce.grandmaster_priority2), (128, 128));
    assert_eq!(announce.time_source, TimeSource::INTERNAL_OSCILLATOR);
    assert_eq!(announce.steps_removed, 0);
    let source = message.header.source_port_identity;
    assert_eq!(announce.grandmaster_identity, source.clock_identity);
    assert_eq!(message.tlvs.find(TlvType::PATH_TRACE), Some(&source.clock_identity.0[..]));
    assert_eq!(message.header.log_message_interval, -1);
}

#[test]
fn a_follow_up_has_the_sequence_id_and_the_time_of_its_sync() {
    let (sync, follow_up) =
        (find(Network::Ipv6, MessageType::Sync), find(Network::Ipv6, MessageType::FollowUp));
    let (sync, follow_up) = (Message::parse(&sync).unwrap(), Message::parse(&follow_up).unwrap());
    assert!(sync.header.flags.contains(Flags::TWO_STEP));
    assert_eq!(sync.header.sequence_id, follow_up.header.sequence_id);
    assert_eq!(sync.body, Body::Sync { origin_timestamp: Timestamp::ZERO });
    let Body::FollowUp { precise_origin_timestamp } = follow_up.body else { panic!() };
    assert!(precise_origin_timestamp.seconds() > 1_700_000_000);
    assert_eq!(follow_up.header.correction, TimeInterval(0));
}

#[test]
fn a_delay_resp_names_the_port_that_asked() {
    for network in [Network::Ethernet, Network::Ipv4, Network::Ipv6] {
        let (request, response) =
            (find(network, MessageType::DelayReq), find(network, MessageType::DelayResp));
        let request = Message::parse(&request).unwrap();
        let response = Message::parse(&response).unwrap();
        let Body::DelayResp { requesting_port_identity, .. } = response.body else { panic!() };
        assert_eq!(requesting_port_identity, request.header.source_port_identity);
        assert_eq!(response.header.sequence_id, request.header.sequence_id);
    }
}

#[test]
fn a_unicast_negotiation_carries_several_tlvs() {
    let bytes = find(Network::Ipv4, MessageType::Signaling);
    let view = MessageView::new(&bytes).unwrap();
    assert!(view.header().flags.contains(Flags::UNICAST));
    let kinds: Vec<_> = view.tlvs().unwrap().iter().map(|tlv| tlv.kind).collect();
    assert_eq!(kinds, [TlvType::REQUEST_UNICAST_TRANSMISSION; 3]);
}

#[test]
fn a_management_request_addresses_every_port() {
    let bytes = find(Network::Ethernet, MessageType::Management);
    let Body::Management(management) = Message::parse(&bytes).unwrap().body else { panic!() };
    assert_eq!(management.target_port_identity, PortIdentity::ALL);
    assert_eq!((management.starting_boundary_hops, management.action), (1, 0));
}
