//! The TLVs of unicast negotiation (IEEE 1588-2019 16.1.4): requests for messages, grants, cancellations and their
//! acknowledgements, which Signaling messages carry. What is asked for is one type of message at one interval for
//! one span of time.

use super::{MessageType, Tlv, TlvBuilder, TlvType, WireError};

/// What may be granted. A Sync brings its Follow_Up with it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Granted {
    /// Announce.
    Announce,
    /// Sync, and Follow_Up where it has two steps.
    Sync,
    /// Delay_Resp.
    DelayResp,
}

impl Granted {
    /// All of them, in the order in which they are needed.
    pub const ALL: [Self; 3] = [Self::Announce, Self::Sync, Self::DelayResp];

    /// The type of message that is granted.
    pub const fn message_type(self) -> MessageType {
        match self {
            Self::Announce => MessageType::Announce,
            Self::Sync => MessageType::Sync,
            Self::DelayResp => MessageType::DelayResp,
        }
    }

    /// The name in JSON and in metric labels.
    pub const fn name(self) -> &'static str {
        self.message_type().name()
    }

    fn of(message_type: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|each| each.message_type() as u8 == message_type)
    }
}

/// One TLV of the negotiation. `message_type` stands as it came, four bits: what is no [`Granted`] is to be denied,
/// in its own name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Negotiation {
    /// REQUEST_UNICAST_TRANSMISSION.
    Request {
        /// `messageType`.
        message_type: u8,
        /// `logInterMessagePeriod`, log2 s.
        log_interval: i8,
        /// `durationField`, s.
        duration_s: u32,
    },
    /// GRANT_UNICAST_TRANSMISSION.
    Grant {
        /// `messageType`.
        message_type: u8,
        /// `logInterMessagePeriod`, log2 s.
        log_interval: i8,
        /// `durationField`, s; 0: denied.
        duration_s: u32,
        /// Renewal Invited: to ask again is likely to be answered by another grant.
        invites_renewal: bool,
    },
    /// CANCEL_UNICAST_TRANSMISSION.
    Cancel {
        /// `messageType`.
        message_type: u8,
        /// The two flags beside it, R (maintain request) and G (maintain grant), as they lie in the octet.
        flags: u8,
    },
    /// ACKNOWLEDGE_CANCEL_UNICAST_TRANSMISSION.
    Acknowledge {
        /// `messageType`.
        message_type: u8,
        /// As of the cancellation.
        flags: u8,
    },
}

/// R of [`Negotiation::Cancel`]: who cancels has asked.
pub const MAINTAIN_REQUEST: u8 = 1;
/// G of [`Negotiation::Cancel`]: who cancels has granted.
pub const MAINTAIN_GRANT: u8 = 2;

impl Negotiation {
    /// The longest value of one of these TLVs, bytes.
    pub const LONGEST: usize = 8;

    /// What a TLV says; `None` where it is another one. What is behind its fields is ignored.
    ///
    /// # Errors
    /// [`WireError::Tlv`] with 0 where it is too short.
    pub fn of(tlv: &Tlv<'_>) -> Option<Result<Self, WireError>> {
        let need = match tlv.kind {
            TlvType::REQUEST_UNICAST_TRANSMISSION => 6,
            TlvType::GRANT_UNICAST_TRANSMISSION => 8,
            TlvType::CANCEL_UNICAST_TRANSMISSION
            | TlvType::ACKNOWLEDGE_CANCEL_UNICAST_TRANSMISSION => 2,
            _ => return None,
        };
        let Some(value) = tlv.value.get(..need) else { return Some(Err(WireError::Tlv(0))) };
        let message_type = value[0] >> 4;
        let more = || {
            let duration_s = u32::from_be_bytes([value[2], value[3], value[4], value[5]]);
            (value[1].cast_signed(), duration_s)
        };
        Some(Ok(match tlv.kind {
            TlvType::REQUEST_UNICAST_TRANSMISSION => {
                let (log_interval, duration_s) = more();
                Self::Request { message_type, log_interval, duration_s }
            }
            TlvType::GRANT_UNICAST_TRANSMISSION => {
                let (log_interval, duration_s) = more();
                let invites_renewal = value[7] & 1 != 0;
                Self::Grant { message_type, log_interval, duration_s, invites_renewal }
            }
            TlvType::CANCEL_UNICAST_TRANSMISSION => {
                Self::Cancel { message_type, flags: value[0] & 3 }
            }
            _ => Self::Acknowledge { message_type, flags: value[0] & 3 },
        }))
    }

    /// Of which type of message it speaks; `None` where that is none that may be granted.
    pub fn granted(self) -> Option<Granted> {
        let (Self::Request { message_type, .. }
        | Self::Grant { message_type, .. }
        | Self::Cancel { message_type, .. }
        | Self::Acknowledge { message_type, .. }) = self;
        Granted::of(message_type)
    }

    /// Appends it to `tlvs`.
    ///
    /// # Errors
    /// [`WireError::Buffer`] where it does not fit.
    pub fn push(self, tlvs: &mut TlvBuilder<'_>) -> Result<(), WireError> {
        let mut value = [0; Self::LONGEST];
        let mut put = |message_type: u8, low: u8, log_interval: i8, duration_s: u32| {
            value[0] = message_type << 4 | low & 3;
            value[1] = log_interval.cast_unsigned();
            value[2..6].copy_from_slice(&duration_s.to_be_bytes());
        };
        let (kind, length) = match self {
            Self::Request { message_type, log_interval, duration_s } => {
                put(message_type, 0, log_interval, duration_s);
                (TlvType::REQUEST_UNICAST_TRANSMISSION, 6)
            }
            Self::Grant { message_type, log_interval, duration_s, invites_renewal } => {
                put(message_type, 0, log_interval, duration_s);
                value[7] = u8::from(invites_renewal);
                (TlvType::GRANT_UNICAST_TRANSMISSION, 8)
            }
            Self::Cancel { message_type, flags } => {
                put(message_type, flags, 0, 0);
                (TlvType::CANCEL_UNICAST_TRANSMISSION, 2)
            }
            Self::Acknowledge { message_type, flags } => {
                put(message_type, flags, 0, 0);
                (TlvType::ACKNOWLEDGE_CANCEL_UNICAST_TRANSMISSION, 2)
            }
        };
        tlvs.push(Tlv { kind, value: &value[..length] })
    }
}

#[cfg(test)]
mod tests {
    use super::super::Tlvs;
    use super::*;
    use proptest::prelude::*;

    fn said() -> impl Strategy<Value = Negotiation> {
        let kind = 0u8..16;
        prop_oneof![
            (kind.clone(), any::<i8>(), any::<u32>()).prop_map(
                |(message_type, log_interval, duration_s)| {
                    Negotiation::Request { message_type, log_interval, duration_s }
                }
            ),
            (kind.clone(), any::<i8>(), any::<u32>(), any::<bool>()).prop_map(
                |(message_type, log_interval, duration_s, invites_renewal)| {
                    Negotiation::Grant { message_type, log_interval, duration_s, invites_renewal }
                }
            ),
            (kind.clone(), 0u8..4)
                .prop_map(|(message_type, flags)| Negotiation::Cancel { message_type, flags }),
            (kind, 0u8..4)
                .prop_map(|(message_type, flags)| Negotiation::Acknowledge { message_type, flags }),
        ]
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_again(said in said()) {
            let mut buffer = [0; 16];
            let mut tlvs = TlvBuilder::new(&mut buffer);
            said.push(&mut tlvs).unwrap();
            let tlvs = tlvs.finish();
            let tlv = tlvs.iter().next().unwrap();
            prop_assert_eq!(Negotiation::of(&tlv), Some(Ok(said)));
        }

        #[test]
        fn what_is_too_short_is_an_error_and_what_is_another_tlv_is_none(
            kind in 0u16..12,
            value in prop::collection::vec(any::<u8>(), 0..12),
        ) {
            let tlv = Tlv { kind: TlvType(kind), value: &value };
            let need = match kind { 4 => 6, 5 => 8, 6 | 7 => 2, _ => usize::MAX };
            match Negotiation::of(&tlv) {
                None => prop_assert_eq!(need, usize::MAX),
                Some(said) => prop_assert_eq!(said.is_ok(), value.len() >= need),
            }
        }
    }

    #[test]
    fn octets_are_those_that_linuxptp_sends() {
        let mut buffer = [0; 64];
        let mut tlvs = TlvBuilder::new(&mut buffer);
        let message_type = Granted::Announce.message_type() as u8;
        let request = Negotiation::Request { message_type, log_interval: -2, duration_s: 300 };
        request.push(&mut tlvs).unwrap();
        Negotiation::Cancel { message_type: 0, flags: MAINTAIN_GRANT }.push(&mut tlvs).unwrap();
        let expected = [0, 4, 0, 6, 0xb0, 0xfe, 0, 0, 1, 44, 0, 6, 0, 2, 0x02, 0];
        let tlvs: Tlvs<'_> = tlvs.finish();
        assert_eq!(tlvs.as_bytes(), expected);
    }
}
