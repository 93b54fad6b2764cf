//! Inputs to begin with: the shapes that are seen in captures of PTP networks, made here. A target needs its
//! seeds to be of the right kind, not to be many: engine and property tests make the rest of them.

use ptp_common::{
    classify::{ETHERTYPE_IPV4, ETHERTYPE_IPV6, ETHERTYPE_PTP, PORT_EVENT, PORT_GENERAL},
    esmc::{Esmc, ExtendedQuality},
    ntp::{Mode, NtpPacket, NtpTimestamp, ReferenceId},
    record::{RECORD_SIZE, RECORD_VERSION},
    wire::{
        Announce, Authentication, Body, ClockAccuracy, ClockIdentity, ClockQuality, CsptpRequest,
        CsptpResponse, Flags, Header, Management, Message, MessageType, PortIdentity, TimeInterval,
        TimeSource, Timestamp, Tlv, TlvBuilder, TlvType, Tlvs, csptp,
    },
};

const PORT: PortIdentity =
    PortIdentity { clock_identity: ClockIdentity([0, 1, 2, 0xff, 0xfe, 3, 4, 5]), port_number: 1 };

fn body(kind: MessageType) -> Body {
    let stamp = Timestamp::new(1_800_000_000, 999_999_999).unwrap_or(Timestamp::ZERO);
    match kind {
        MessageType::Sync => Body::Sync { origin_timestamp: stamp },
        MessageType::DelayReq => Body::DelayReq { origin_timestamp: stamp },
        MessageType::PdelayReq => Body::PdelayReq { origin_timestamp: stamp },
        MessageType::PdelayResp => {
            Body::PdelayResp { request_receipt_timestamp: stamp, requesting_port_identity: PORT }
        }
        MessageType::FollowUp => Body::FollowUp { precise_origin_timestamp: stamp },
        MessageType::DelayResp => {
            Body::DelayResp { receive_timestamp: stamp, requesting_port_identity: PORT }
        }
        MessageType::PdelayRespFollowUp => Body::PdelayRespFollowUp {
            response_origin_timestamp: stamp,
            requesting_port_identity: PORT,
        },
        MessageType::Announce => Body::Announce(Announce {
            origin_timestamp: stamp,
            current_utc_offset: 37,
            grandmaster_priority1: 128,
            grandmaster_clock_quality: ClockQuality {
                clock_class: 6,
                clock_accuracy: ClockAccuracy(0x21),
                offset_scaled_log_variance: 0x4e5d,
            },
            grandmaster_priority2: 128,
            grandmaster_identity: PORT.clock_identity,
            steps_removed: 1,
            time_source: TimeSource(0x20),
        }),
        MessageType::Signaling => Body::Signaling { target_port_identity: PORT },
        MessageType::Management => Body::Management(Management {
            target_port_identity: PORT,
            starting_boundary_hops: 1,
            boundary_hops: 1,
            action: 0,
        }),
    }
}

/// TLVs as they follow messages: one of each shape.
const TLVS: [(TlvType, &[u8]); 16] = [
    (TlvType::PATH_TRACE, &[7; 16]),
    // CET: key, offset, jump, time of the next one, name.
    (
        TlvType::ALTERNATE_TIME_OFFSET_INDICATOR,
        &[0, 0, 0, 0x0e, 0x10, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 3, b'C', b'E', b'T', 0],
    ),
    // 802.1AS information of Follow_Up.
    (
        TlvType::ORGANIZATION_EXTENSION,
        &[0, 0x80, 0xc2, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0],
    ),
    (TlvType::REQUEST_UNICAST_TRANSMISSION, &[0xb0, 1, 0, 0, 1, 0x2c]),
    (TlvType::GRANT_UNICAST_TRANSMISSION, &[0x90, 0xfc, 0, 0, 1, 0x2c, 0, 1]),
    // GET DEFAULT_DATA_SET, and PRIORITY1 with a value.
    (TlvType::MANAGEMENT, &[0x20, 0x00]),
    (TlvType::MANAGEMENT, &[0x20, 0x05, 128, 0]),
    (TlvType::MANAGEMENT, &[0, 2, 3, b'a', b'b', b'c']),
    (TlvType::MANAGEMENT, &[0xc0, 0x01, 6, 0x21, 0x4e, 0x5d, 0, 37, 0x3c, 0x20]),
    (TlvType::MANAGEMENT, &[0xc0, 0x04, 1, 1, 1, 1, 1, 1, 1, 1, 0, 1, 9, 0, 1, b'e']),
    (TlvType::MANAGEMENT, &[0xc0, 0x08, 0, 0]),
    (TlvType::SLAVE_RX_SYNC_TIMING_DATA, &[1; 44]),
    (TlvType::SLAVE_DELAY_TIMING_DATA_NP, &[1; 40]),
    (TlvType::PTPMON_REQ, &[]),
    (TlvType::PTPMON_RESP, &[0; 70]),
    (TlvType::PAD, &[]),
];

fn bytes(header: Header, body: Body, tlvs: Tlvs<'_>) -> Vec<u8> {
    let message = Message { header, body, tlvs };
    let mut bytes = vec![0; message.wire_length()];
    // There is room for all of it.
    let length = message.emit(&mut bytes).unwrap_or(0);
    bytes.truncate(length);
    bytes
}

fn tlv(kind: TlvType, value: &[u8]) -> Vec<u8> {
    let tlv = Tlv { kind, value };
    let mut bytes = vec![0; tlv.wire_length()];
    let length = tlv.emit(&mut bytes).unwrap_or(0);
    bytes.truncate(length);
    bytes
}

/// Every type of message, alone, with each TLV, and authenticated.
pub fn messages() -> Vec<Vec<u8>> {
    let mut all = Vec::new();
    for kind in MessageType::ALL {
        let header = Header { flags: Flags::TWO_STEP, ..Header::new(PORT, 7) };
        let plain = bytes(header, body(kind), Tlvs::NONE);
        let authentication = Authentication { spp: 1, key_id: 1, icv_length: 16 };
        let mut buffer = vec![0; plain.len() + authentication.wire_length()];
        if authentication.append(&plain, &mut buffer).is_ok() {
            all.push(buffer);
        }
        for (tlv_type, value) in TLVS {
            let tlv = tlv(tlv_type, value);
            if let Ok(tlvs) = Tlvs::new(&tlv) {
                all.push(bytes(header, body(kind), tlvs));
            }
        }
        all.push(plain);
    }
    all
}

/// Single TLVs, and all of them one behind the other.
pub fn tlvs() -> Vec<Vec<u8>> {
    let single: Vec<Vec<u8>> = TLVS.iter().map(|(kind, value)| tlv(*kind, value)).collect();
    let all = single.concat();
    single.into_iter().chain([all]).collect()
}

/// What a receiver says, line by line and at once.
pub fn sentences() -> Vec<Vec<u8>> {
    let bodies = [
        "GPRMC,123519.00,A,4807.038,N,01131.000,E,022.4,084.4,230326,003.1,W,A",
        "GNZDA,123520,23,03,2026,00,00",
        "GPGGA,123520,4807.0,N,01131.0,E,1,08,0.9,545.4,M,46.9,M,,",
        "GPRMC,123521,V,,,,,,,070806,,,N",
        "GPZDA,235960,31,12,2026,00,00",
    ];
    let line = |body: &str| {
        let sum = body.bytes().fold(0, |sum, byte| sum ^ byte);
        format!("${body}*{sum:02X}\r\n")
    };
    let lines = bodies.map(line);
    let all = lines.concat().into_bytes();
    lines.into_iter().map(String::into_bytes).chain([all]).collect()
}

/// NTP: requests, answers, a kiss, and one with an extension field and a digest.
pub fn ntp() -> Vec<Vec<u8>> {
    let request = NtpPacket::request(NtpTimestamp(0x0123_4567_89ab_cdef), 6);
    let answer = NtpPacket {
        mode: Mode::Server,
        stratum: 1,
        receive: NtpTimestamp(0xee00_0000_1000_0000),
        transmit: NtpTimestamp(0xee00_0000_1100_0000),
        ..request
    };
    let kiss = NtpPacket { stratum: 0, reference_id: ReferenceId::RATE, ..answer };
    let plain = [request, answer, kiss].map(|packet| packet.to_bytes().to_vec());
    let mut long = plain[0].clone();
    long.extend_from_slice(&[1, 4, 0, 28]);
    long.extend_from_slice(&[0; 24 + 20]);
    let both = [plain[0].clone(), vec![0; 32], plain[1].clone()].concat();
    plain.into_iter().chain([long, both]).collect()
}

/// NTS: what a client says in a key exchange, what it is answered, and a packet with all of its fields.
pub fn nts() -> Vec<Vec<u8>> {
    let cookie = [&[0, 5, 0, 16][..], &[5; 16]].concat();
    let agreed = [&[0x80, 1, 0, 2, 0, 0, 0x80, 4, 0, 2, 0, 15][..], &cookie].concat();
    let more = [&agreed[..], b"\0\x06\0\x04host\0\x07\0\x02\0\x7b", &[0x80, 0, 0, 0]].concat();
    let refused = vec![0x80, 2, 0, 2, 0, 1, 0x80, 0, 0, 0];
    let mut packet = NtpPacket::request(NtpTimestamp(7), 6).to_bytes().to_vec();
    for (kind, value) in [(0x0104_u16, &[1; 32][..]), (0x0204, &[2; 16]), (0x0304, &[0; 16])] {
        packet.extend_from_slice(&kind.to_be_bytes());
        packet.extend_from_slice(&(value.len() as u16 + 4).to_be_bytes());
        packet.extend_from_slice(value);
    }
    packet.extend_from_slice(&[4, 4, 0, 40, 0, 16, 0, 16]);
    packet.extend_from_slice(&[3; 32]);
    let nak = NtpPacket {
        mode: Mode::Server,
        reference_id: ReferenceId(*b"NTSN"),
        ..NtpPacket::request(NtpTimestamp(7), 6)
    };
    vec![ptp_engine::ntp::nts::request(), more, refused, packet, nak.to_bytes().to_vec()]
}

/// Requests and answers of CSPTP and SPTP, each in a piece of its own.
pub fn exchanges() -> Vec<Vec<u8>> {
    let message = |header: Header, body, tlvs: &[(TlvType, &[u8])]| {
        let mut buffer = [0; 160];
        let mut builder = TlvBuilder::new(&mut buffer);
        for (kind, value) in tlvs {
            builder.push(Tlv { kind: *kind, value }).expect("it fits");
        }
        let mut bytes = vec![0; 160];
        Message { header, body, tlvs: builder.finish() }.emit(&mut bytes).expect("it fits");
        bytes
    };
    let mut header = Header::new(PortIdentity::default(), 7);
    (header.sdo_id, header.domain_number) = (csptp::SDO_ID, csptp::DEFAULT_DOMAIN);
    header.flags = Flags::UNICAST;
    let zero = Timestamp::ZERO;
    let sync = Body::Sync { origin_timestamp: zero };
    let request = CsptpRequest { status: true, alternate_time: false }.value();
    let response = CsptpResponse { ingress: zero, correction: TimeInterval(1 << 16) }.value();
    let asks =
        message(header, sync, &[(TlvType::CSPTP_REQUEST, &request), (TlvType::PAD, &[0; 96])]);
    header.flags = Flags::UNICAST | Flags::TWO_STEP;
    let answers = message(
        header,
        sync,
        &[(TlvType::CSPTP_RESPONSE, &response), (TlvType::CSPTP_STATUS, &[9; 18])],
    );
    let follows = message(header, Body::FollowUp { precise_origin_timestamp: zero }, &[]);
    let mut header = Header::new(PortIdentity::default(), 7);
    header.flags = Flags::UNICAST | Flags::PROFILE_SPECIFIC_1;
    let sptp =
        message(header, Body::DelayReq { origin_timestamp: zero }, &[(TlvType::PAD, &[0; 96])]);
    let all = [asks, answers, follows, sptp];
    let both = all.concat();
    all.into_iter().chain([both]).collect()
}

/// Messages in frames: Ethernet, IPv4 and IPv6, untagged, tagged and tagged twice.
pub fn frames() -> Vec<Vec<u8>> {
    let message = &messages()[0];
    let mut all = Vec::new();
    for tags in [&[][..], &[0x8100, 0x0064], &[0x88a8, 0x0001, 0x8100, 0x0064]] {
        for ethertype in [ETHERTYPE_PTP, ETHERTYPE_IPV4, ETHERTYPE_IPV6] {
            for port in [PORT_EVENT, PORT_GENERAL, 123] {
                let mut frame = vec![0x02; 12];
                for word in tags.iter().chain([&ethertype]) {
                    frame.extend(word.to_be_bytes());
                }
                let length = message.len() as u16 + 8;
                match ethertype {
                    ETHERTYPE_IPV4 => {
                        frame.extend([0x45, 0]);
                        frame.extend((length + 20).to_be_bytes());
                        frame.extend([0, 0, 0, 0, 1, 17, 0, 0, 192, 0, 2, 1, 224, 0, 1, 129]);
                    }
                    ETHERTYPE_IPV6 => {
                        frame.extend([0x60, 0, 0, 0]);
                        frame.extend(length.to_be_bytes());
                        frame.extend([17, 1]);
                        frame.extend([0xfe; 32]);
                    }
                    _ => {}
                }
                if ethertype != ETHERTYPE_PTP {
                    frame.extend(port.to_be_bytes());
                    frame.extend(port.to_be_bytes());
                    frame.extend(length.to_be_bytes());
                    frame.extend([0, 0]);
                }
                frame.extend(message);
                all.push(frame);
            }
        }
    }
    all
}

/// Records of each hook.
pub fn records() -> Vec<Vec<u8>> {
    (1..=4)
        .map(|hook| {
            let mut record = vec![0; RECORD_SIZE];
            record[..4].copy_from_slice(&[RECORD_VERSION, hook, u8::from(hook % 2 == 0), 1]);
            let message = &messages()[0];
            let at = RECORD_SIZE - 128;
            record[at..at + message.len()].copy_from_slice(message);
            record
        })
        .collect()
}

/// Eight bytes for each message of an exchange, over and over.
pub fn recipes() -> Vec<Vec<u8>> {
    let sync = [0x40, 0, 1, 20, 0, 0, 255, 0];
    let follow_up = [0x08, 0, 1, 10, 5, 0, 255, 0];
    let delay_req = [0x11, 1, 1, 20, 0, 0, 255, 0];
    let delay_resp = [0x09, 4, 1, 10, 9, 0, 255, 0];
    let announce = [0x0b, 0, 1, 24, 0, 0, 255, 0];
    let all = [announce, sync, follow_up, delay_req, delay_resp];
    vec![all.concat(), all.concat().repeat(8)]
}

/// Recipes for notes, behind the byte that says so.
pub fn recordings() -> Vec<Vec<u8>> {
    let announce = [0x7d, 30, 0x01, 1, 0, 0, 255, 0];
    let sync = [0x71, 27, 0x01, 1, 1, 0, 255, 0];
    let follow_up = [0x75, 20, 0x01, 1, 1, 0, 255, 0];
    let poll = [0x00, 28, 0, 0, 0, 0, 0, 0];
    let stamp = [0x10, 20, 0x01, 0, 0, 0, 0, 0];
    let answer = [0x79, 20, 0x01, 0, 1, 0, 255, 0];
    let all = [announce, sync, follow_up, poll, stamp, answer].concat().repeat(6);
    [0, 1, 2, 3, 6, 10].map(|kind| [&[kind][..], &all].concat()).into()
}

/// Configurations of linuxptp.
pub fn configurations() -> Vec<Vec<u8>> {
    [
        "[global]\ndomainNumber 24\nslaveOnly 1\ntime_stamping software\n[eth0]\ndelay_mechanism P2P\n",
        "[global]\npriority1 128\nlogSyncInterval -4\nclock_servo linreg\nsa_file /etc/keys\n# end\n",
        "[unicast_master_table]\ntable_id 1\nlogQueryInterval 0\nUDPv4 192.0.2.1\n",
    ]
    .map(|text| text.as_bytes().to_vec())
    .into()
}

/// Key files behind an even byte, messages behind an odd one.
pub fn keys_and_messages() -> Vec<Vec<u8>> {
    let files = [
        "[security_association]\nspp 1\nseqid_window 20\nallow_mutable 1\n1 AES128 HEX:FAF48EBA01E7C5966A76CB787AED4E7B\n",
        "spp = 1\nactive-key = 2\n[[association]]\nspp = 1\n[[association.key]]\nid = 2\ntype = \"SHA256\"\nvalue = \"B64:c2VjcmV0\"\n",
    ];
    let files = files.iter().map(|text| [&[0], text.as_bytes()].concat());
    let messages = messages();
    let messages = messages
        .iter()
        .flat_map(|message| [1, 3, 0x81].map(|kind| [&[kind][..], message].concat()));
    files.chain(messages).collect()
}

/// Messages of ESMC, alone and as a series of frames with the time between.
pub fn slow_frames() -> Vec<Vec<u8>> {
    let extended = ExtendedQuality {
        enhanced_ssm: 0x21,
        clock_identity: PORT.clock_identity,
        is_mixed: false,
        is_partial: true,
        cascaded_eeecs: 1,
        cascaded_eecs: 2,
    };
    let messages = [(0x2, None), (0xf, None), (0x2, Some(extended))].map(|(ssm, extended)| {
        let mut buffer = [0; Esmc::EXTENDED_LENGTH];
        let length = Esmc { is_event: ssm == 0xf, ssm, extended }.emit(&mut buffer);
        buffer[..length].to_vec()
    });
    let series = messages.iter().cycle().take(30).flat_map(|message| {
        let length = u8::try_from(message.len()).unwrap_or(u8::MAX);
        [&[7, length][..], message].concat()
    });
    let series: Vec<u8> = series.collect();
    messages.into_iter().chain([series]).collect()
}

/// Lines of agents and answers of Prometheus.
pub fn readings() -> Vec<Vec<u8>> {
    [
        "{\"event\":\"host\",\"host\":\"h\",\"mono_ns\":1,\"real_ns\":1700000000000000000,\"offset_ns\":-5,\"bound_ns\":7,\"grandmaster\":\"0a0b0c.fffe.0d0e0f\",\"domain\":0}\n",
        "{\"status\":\"success\",\"data\":{\"resultType\":\"matrix\",\"result\":[{\"metric\":{\"__name__\":\"ptp_host_clock_offset_seconds\",\"instance\":\"h\"},\"values\":[[1700000000.1,\"0.5\"]]}]}}",
    ]
    .map(|text| text.as_bytes().to_vec())
    .into()
}

/// Spans of the collector and of Jaeger.
pub fn spans() -> Vec<Vec<u8>> {
    [
        "{\"resourceSpans\":[{\"resource\":{\"attributes\":[{\"key\":\"host.name\",\"value\":{\"stringValue\":\"h\"}}]},\"scopeSpans\":[{\"spans\":[{\"traceId\":\"0102030405060708090a0b0c0d0e0f10\",\"spanId\":\"0102030405060708\",\"name\":\"a\",\"startTimeUnixNano\":\"1\",\"endTimeUnixNano\":\"2\"}]}]}]}",
        "{\"data\":[{\"traceID\":\"1\",\"spans\":[{\"traceID\":\"1\",\"spanID\":\"2\",\"operationName\":\"a\",\"references\":[],\"startTime\":1,\"duration\":2,\"processID\":\"p1\"}],\"processes\":{\"p1\":{\"serviceName\":\"s\",\"tags\":[{\"key\":\"hostname\",\"value\":\"h\"}]}}}]}",
    ]
    .map(|text| text.as_bytes().to_vec())
    .into()
}
