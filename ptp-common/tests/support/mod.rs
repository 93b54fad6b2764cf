//! What several test files need: strategies that draw legal messages.

use proptest::{collection::vec, prelude::*, sample::select};
use ptp_common::wire::{
    Announce, Body, ClockAccuracy, ClockIdentity, ClockQuality, Flags, Header, Management, Message,
    MessageType, PortIdentity, TimeInterval, TimeSource, Timestamp, Tlv, TlvBuilder, TlvType,
};

/// Any port identity.
pub(crate) fn port_identity() -> impl Strategy<Value = PortIdentity> {
    (any::<[u8; 8]>(), any::<u16>()).prop_map(|(clock, port_number)| PortIdentity {
        clock_identity: ClockIdentity(clock),
        port_number,
    })
}

/// Any timestamp that the wire can carry.
pub(crate) fn timestamp() -> impl Strategy<Value = Timestamp> {
    (0..1u64 << 48, 0..1_000_000_000u32).prop_map(|(seconds, nanoseconds)| {
        Timestamp::new(seconds, nanoseconds).expect("drawn from its range")
    })
}

/// Any header; fields narrower than their type stay within their bits.
pub(crate) fn header() -> impl Strategy<Value = Header> {
    (
        (0..0x1000u16, 0..0x10u8, any::<u8>(), any::<u16>(), any::<i64>()),
        (any::<[u8; 4]>(), port_identity(), any::<u16>(), any::<i8>()),
    )
        .prop_map(
            |(
                (sdo_id, minor_version, domain_number, flags, correction),
                (message_type_specific, source_port_identity, sequence_id, log_message_interval),
            )| Header {
                sdo_id,
                minor_version,
                domain_number,
                flags: Flags(flags),
                correction: TimeInterval(correction),
                message_type_specific,
                source_port_identity,
                sequence_id,
                log_message_interval,
            },
        )
}

fn announce() -> impl Strategy<Value = Body> {
    (
        (timestamp(), any::<i16>(), any::<u8>(), any::<u8>(), any::<u8>()),
        (any::<u16>(), any::<u8>(), any::<[u8; 8]>(), any::<u16>(), any::<u8>()),
    )
        .prop_map(
            |(
                (origin_timestamp, current_utc_offset, priority1, clock_class, accuracy),
                (variance, priority2, identity, steps_removed, time_source),
            )| {
                Body::Announce(Announce {
                    origin_timestamp,
                    current_utc_offset,
                    grandmaster_priority1: priority1,
                    grandmaster_clock_quality: ClockQuality {
                        clock_class,
                        clock_accuracy: ClockAccuracy(accuracy),
                        offset_scaled_log_variance: variance,
                    },
                    grandmaster_priority2: priority2,
                    grandmaster_identity: ClockIdentity(identity),
                    steps_removed,
                    time_source: TimeSource(time_source),
                })
            },
        )
}

/// A body of any of the ten message types.
pub(crate) fn body() -> impl Strategy<Value = Body> {
    select(&MessageType::ALL[..]).prop_flat_map(|kind| match kind {
        MessageType::Announce => announce().boxed(),
        MessageType::Management => (port_identity(), any::<u8>(), any::<u8>(), 0..0x10u8)
            .prop_map(|(target_port_identity, starting_boundary_hops, boundary_hops, action)| {
                Body::Management(Management {
                    target_port_identity,
                    starting_boundary_hops,
                    boundary_hops,
                    action,
                })
            })
            .boxed(),
        _ => (timestamp(), port_identity())
            .prop_map(move |(stamp, port)| match kind {
                MessageType::Sync => Body::Sync { origin_timestamp: stamp },
                MessageType::DelayReq => Body::DelayReq { origin_timestamp: stamp },
                MessageType::PdelayReq => Body::PdelayReq { origin_timestamp: stamp },
                MessageType::PdelayResp => Body::PdelayResp {
                    request_receipt_timestamp: stamp,
                    requesting_port_identity: port,
                },
                MessageType::FollowUp => Body::FollowUp { precise_origin_timestamp: stamp },
                MessageType::DelayResp => {
                    Body::DelayResp { receive_timestamp: stamp, requesting_port_identity: port }
                }
                MessageType::PdelayRespFollowUp => Body::PdelayRespFollowUp {
                    response_origin_timestamp: stamp,
                    requesting_port_identity: port,
                },
                MessageType::Signaling => Body::Signaling { target_port_identity: port },
                MessageType::Announce | MessageType::Management => unreachable!("drawn above"),
            })
            .boxed(),
    })
}

/// Type and value of up to five TLVs, known types and others, values of even length.
pub(crate) fn tlvs() -> impl Strategy<Value = Vec<(TlvType, Vec<u8>)>> {
    let kind = prop_oneof![
        Just(TlvType::PATH_TRACE),
        Just(TlvType::PAD),
        Just(TlvType::MANAGEMENT),
        any::<u16>().prop_map(TlvType),
    ];
    let value = (0..20usize).prop_flat_map(|words| vec(any::<u8>(), words * 2));
    vec((kind, value), 0..5)
}

/// A legal message: its parts, and its bytes.
#[derive(Clone, Debug)]
pub(crate) struct Sample {
    pub(crate) header: Header,
    pub(crate) body: Body,
    pub(crate) tlvs: Vec<(TlvType, Vec<u8>)>,
    pub(crate) bytes: Vec<u8>,
}

/// A legal message of any type with TLVs.
pub(crate) fn message() -> impl Strategy<Value = Sample> {
    (header(), body(), tlvs()).prop_map(|(header, body, tlvs)| {
        let mut buffer = [0; 1024];
        let mut builder = TlvBuilder::new(&mut buffer);
        for (kind, value) in &tlvs {
            builder.push(Tlv { kind: *kind, value }).expect("even, and there is room");
        }
        let message = Message { header, body, tlvs: builder.finish() };
        let mut bytes = vec![0xa5; message.wire_length()];
        message.emit(&mut bytes).expect("there is room");
        Sample { header, body, tlvs, bytes }
    })
}
