//! Whole messages: header, body, TLVs (IEEE 1588-2019 13.5 to 13.12 and 15.4.1).

use super::{
    ClockAccuracy, ClockIdentity, ClockQuality, Header, MessageKey, MessageType, PortIdentity,
    TimeSource, Timestamp, Tlvs, WireError, header::check_header,
};

/// The body of an Announce (13.5).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Announce {
    /// `originTimestamp`.
    pub origin_timestamp: Timestamp,
    /// `currentUtcOffset`: TAI minus UTC, seconds.
    pub current_utc_offset: i16,
    /// `grandmasterPriority1`.
    pub grandmaster_priority1: u8,
    /// `grandmasterClockQuality`.
    pub grandmaster_clock_quality: ClockQuality,
    /// `grandmasterPriority2`.
    pub grandmaster_priority2: u8,
    /// `grandmasterIdentity`.
    pub grandmaster_identity: ClockIdentity,
    /// `stepsRemoved`: how many boundary clocks there are between the grandmaster and the sender.
    pub steps_removed: u16,
    /// `timeSource`.
    pub time_source: TimeSource,
}

/// The fixed part of a Management message (15.4.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Management {
    /// `targetPortIdentity`.
    pub target_port_identity: PortIdentity,
    /// `startingBoundaryHops`.
    pub starting_boundary_hops: u8,
    /// `boundaryHops`.
    pub boundary_hops: u8,
    /// `actionField`, 4 bits: GET 0, SET 1, RESPONSE 2, COMMAND 3, ACKNOWLEDGE 4.
    pub action: u8,
}

/// What a message says beside its header, one variant for each `messageType`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "the fields have the standard's names and the types say the rest")]
pub enum Body {
    /// 13.6.
    Sync { origin_timestamp: Timestamp },
    /// 13.6.
    DelayReq { origin_timestamp: Timestamp },
    /// 13.9; ten reserved bytes follow the timestamp.
    PdelayReq { origin_timestamp: Timestamp },
    /// 13.10.
    PdelayResp { request_receipt_timestamp: Timestamp, requesting_port_identity: PortIdentity },
    /// 13.7.
    FollowUp { precise_origin_timestamp: Timestamp },
    /// 13.8.
    DelayResp { receive_timestamp: Timestamp, requesting_port_identity: PortIdentity },
    /// 13.11.
    PdelayRespFollowUp {
        response_origin_timestamp: Timestamp,
        requesting_port_identity: PortIdentity,
    },
    /// 13.5.
    Announce(Announce),
    /// 13.12.
    Signaling { target_port_identity: PortIdentity },
    /// 15.4.1.
    Management(Management),
}

impl Body {
    /// The message type that has this body.
    pub const fn message_type(&self) -> MessageType {
        match self {
            Self::Sync { .. } => MessageType::Sync,
            Self::DelayReq { .. } => MessageType::DelayReq,
            Self::PdelayReq { .. } => MessageType::PdelayReq,
            Self::PdelayResp { .. } => MessageType::PdelayResp,
            Self::FollowUp { .. } => MessageType::FollowUp,
            Self::DelayResp { .. } => MessageType::DelayResp,
            Self::PdelayRespFollowUp { .. } => MessageType::PdelayRespFollowUp,
            Self::Announce(_) => MessageType::Announce,
            Self::Signaling { .. } => MessageType::Signaling,
            Self::Management(_) => MessageType::Management,
        }
    }
}

/// A message over bytes that have been checked once: version, type, lengths. What the body says is
/// checked by [`MessageView::body`].
#[derive(Clone, Copy, Debug)]
pub struct MessageView<'a> {
    bytes: &'a [u8],
    kind: MessageType,
    length: usize,
}

impl<'a> MessageView<'a> {
    /// Checks the outside of a message. Bytes beyond `messageLength` are padding and are ignored.
    ///
    /// # Errors
    /// [`WireError::Truncated`], [`WireError::Version`] or [`WireError::MessageType`].
    pub fn new(bytes: &'a [u8]) -> Result<Self, WireError> {
        let view = Self::from_prefix(bytes)?;
        if view.is_cut() {
            return Err(WireError::Truncated { have: bytes.len(), need: view.length });
        }
        Ok(view)
    }

    /// As [`MessageView::new`], for the beginning of a message as a ring record carries it: header
    /// and fixed part are there, the TLVs may be cut off.
    ///
    /// # Errors
    /// As [`MessageView::new`].
    pub fn from_prefix(bytes: &'a [u8]) -> Result<Self, WireError> {
        let kind = check_header(bytes)?;
        let length = usize::from(u16::from_be_bytes([bytes[2], bytes[3]]));
        let have = bytes.len().min(length);
        let need = kind.fixed_length();
        if have < need {
            return Err(WireError::Truncated { have, need });
        }
        Ok(Self { bytes: &bytes[..have], kind, length })
    }

    /// Whether the message is longer than what there is of it.
    pub const fn is_cut(&self) -> bool {
        self.bytes.len() < self.length
    }

    /// What tells the message from all others.
    pub fn key(&self) -> MessageKey {
        self.header().key(self.kind)
    }

    /// `messageLength`, bytes.
    pub const fn message_length(&self) -> usize {
        self.length
    }

    /// The message type.
    pub const fn message_type(&self) -> MessageType {
        self.kind
    }

    /// The header.
    pub fn header(&self) -> Header {
        Header::read(self.bytes)
    }

    /// The bytes of the message without padding, as far as there are any.
    pub const fn as_bytes(&self) -> &'a [u8] {
        self.bytes
    }

    /// The body.
    ///
    /// # Errors
    /// [`WireError::Nanoseconds`] for a timestamp out of range.
    pub fn body(&self) -> Result<Body, WireError> {
        let bytes = self.bytes;
        let stamp = || Timestamp::read(bytes, 34);
        Ok(match self.kind {
            MessageType::Sync => Body::Sync { origin_timestamp: stamp()? },
            MessageType::DelayReq => Body::DelayReq { origin_timestamp: stamp()? },
            MessageType::PdelayReq => Body::PdelayReq { origin_timestamp: stamp()? },
            MessageType::PdelayResp => Body::PdelayResp {
                request_receipt_timestamp: stamp()?,
                requesting_port_identity: PortIdentity::read(bytes, 44),
            },
            MessageType::FollowUp => Body::FollowUp { precise_origin_timestamp: stamp()? },
            MessageType::DelayResp => Body::DelayResp {
                receive_timestamp: stamp()?,
                requesting_port_identity: PortIdentity::read(bytes, 44),
            },
            MessageType::PdelayRespFollowUp => Body::PdelayRespFollowUp {
                response_origin_timestamp: stamp()?,
                requesting_port_identity: PortIdentity::read(bytes, 44),
            },
            MessageType::Announce => {
                let mut identity = [0; 8];
                identity.copy_from_slice(&bytes[53..61]);
                Body::Announce(Announce {
                    origin_timestamp: stamp()?,
                    current_utc_offset: i16::from_be_bytes([bytes[44], bytes[45]]),
                    grandmaster_priority1: bytes[47],
                    grandmaster_clock_quality: ClockQuality {
                        clock_class: bytes[48],
                        clock_accuracy: ClockAccuracy(bytes[49]),
                        offset_scaled_log_variance: u16::from_be_bytes([bytes[50], bytes[51]]),
                    },
                    grandmaster_priority2: bytes[52],
                    grandmaster_identity: ClockIdentity(identity),
                    steps_removed: u16::from_be_bytes([bytes[61], bytes[62]]),
                    time_source: TimeSource(bytes[63]),
                })
            }
            MessageType::Signaling => {
                Body::Signaling { target_port_identity: PortIdentity::read(bytes, 34) }
            }
            MessageType::Management => Body::Management(Management {
                target_port_identity: PortIdentity::read(bytes, 34),
                starting_boundary_hops: bytes[44],
                boundary_hops: bytes[45],
                action: bytes[46] & 0x0f,
            }),
        })
    }

    /// The TLVs.
    ///
    /// # Errors
    /// [`WireError::Tlv`], its offset counted from the beginning of the message;
    /// [`WireError::Truncated`] where the message is cut off.
    pub fn tlvs(&self) -> Result<Tlvs<'a>, WireError> {
        if self.is_cut() {
            return Err(WireError::Truncated { have: self.bytes.len(), need: self.length });
        }
        let at = self.kind.fixed_length();
        Tlvs::new(&self.bytes[at..]).map_err(|error| match error {
            WireError::Tlv(offset) => WireError::Tlv(at + offset),
            other => other,
        })
    }
}

/// A whole message that cannot be illegal. Reserved fields are sent as zero.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Message<'a> {
    /// The header.
    pub header: Header,
    /// The body.
    pub body: Body,
    /// The TLVs, all of them.
    pub tlvs: Tlvs<'a>,
}

impl<'a> Message<'a> {
    /// Parses a message, tolerating padding behind it.
    ///
    /// # Errors
    /// Any [`WireError`] but `Buffer`.
    pub fn parse(bytes: &'a [u8]) -> Result<Self, WireError> {
        let view = MessageView::new(bytes)?;
        Ok(Self { header: view.header(), body: view.body()?, tlvs: view.tlvs()? })
    }

    /// The message type.
    pub const fn message_type(&self) -> MessageType {
        self.body.message_type()
    }

    /// What tells the message from all others.
    pub const fn key(&self) -> MessageKey {
        self.header.key(self.message_type())
    }

    /// Length on the wire, bytes.
    pub const fn wire_length(&self) -> usize {
        self.message_type().fixed_length() + self.tlvs.as_bytes().len()
    }

    /// Writes the message to the beginning of `bytes` and returns its length.
    ///
    /// # Errors
    /// [`WireError::Buffer`] where it does not fit, or where it is longer than the 65 535 bytes that
    /// `messageLength` can say.
    pub fn emit(&self, bytes: &mut [u8]) -> Result<usize, WireError> {
        let need = self.wire_length();
        let kind = self.message_type();
        let error = WireError::Buffer { have: bytes.len(), need };
        let length = u16::try_from(need).map_err(|_| error)?;
        let bytes = bytes.get_mut(..need).ok_or(error)?;
        bytes.fill(0);
        self.header.write(kind, length, bytes);
        match self.body {
            Body::Sync { origin_timestamp }
            | Body::DelayReq { origin_timestamp }
            | Body::PdelayReq { origin_timestamp } => origin_timestamp.write(bytes, 34),
            Body::FollowUp { precise_origin_timestamp } => {
                precise_origin_timestamp.write(bytes, 34);
            }
            Body::PdelayResp { request_receipt_timestamp: timestamp, requesting_port_identity }
            | Body::DelayResp { receive_timestamp: timestamp, requesting_port_identity }
            | Body::PdelayRespFollowUp {
                response_origin_timestamp: timestamp,
                requesting_port_identity,
            } => {
                timestamp.write(bytes, 34);
                requesting_port_identity.write(bytes, 44);
            }
            Body::Announce(announce) => {
                let quality = announce.grandmaster_clock_quality;
                announce.origin_timestamp.write(bytes, 34);
                bytes[44..46].copy_from_slice(&announce.current_utc_offset.to_be_bytes());
                bytes[47] = announce.grandmaster_priority1;
                bytes[48] = quality.clock_class;
                bytes[49] = quality.clock_accuracy.0;
                bytes[50..52].copy_from_slice(&quality.offset_scaled_log_variance.to_be_bytes());
                bytes[52] = announce.grandmaster_priority2;
                bytes[53..61].copy_from_slice(&announce.grandmaster_identity.0);
                bytes[61..63].copy_from_slice(&announce.steps_removed.to_be_bytes());
                bytes[63] = announce.time_source.0;
            }
            Body::Signaling { target_port_identity } => target_port_identity.write(bytes, 34),
            Body::Management(management) => {
                management.target_port_identity.write(bytes, 34);
                bytes[44] = management.starting_boundary_hops;
                bytes[45] = management.boundary_hops;
                bytes[46] = management.action & 0x0f;
            }
        }
        bytes[kind.fixed_length()..].copy_from_slice(self.tlvs.as_bytes());
        Ok(need)
    }
}
