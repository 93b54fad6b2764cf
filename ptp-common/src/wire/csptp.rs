//! What the client-server exchange of IEEE 1588.1 (CSPTP) adds to the wire: a request is a Sync with one TLV, its
//! answer a Sync with another, and a Follow_Up. Three independent implementations agree on the numbers of the TLVs;
//! of the values one has what an earlier draft of the standard had, with an organization in front, and two have the
//! address of the server's own parent behind its status, so all of it is read. A fourth has another number for the
//! status, which is read as well. And what Meta's SPTP adds: one flag and a TLV that says nothing here.

use super::{
    ClockAccuracy, ClockIdentity, ClockQuality, Flags, TimeInterval, Timestamp, Tlv, TlvType, Tlvs,
};
use core::ops::RangeInclusive;

/// `sdoId` of CSPTP.
pub const SDO_ID: u16 = 0x300;
/// Domains of CSPTP,
pub const DOMAINS: RangeInclusive<u8> = 128..=239;
/// of which this is used where nothing else is said.
pub const DEFAULT_DOMAIN: u8 = 128;
/// Organization and subtype that an earlier draft had in front of two of the values.
const ORGANIZATION: usize = 6;
/// Protocol and length of the address of a server's own parent, which may be behind its status.
const PARENT: usize = 4;

impl TlvType {
    /// CSPTP_REQUEST.
    pub const CSPTP_REQUEST: Self = Self(0xff00);
    /// CSPTP_RESPONSE.
    pub const CSPTP_RESPONSE: Self = Self(0xff01);
    /// CSPTP_STATUS.
    pub const CSPTP_STATUS: Self = Self(0xf002);
    /// The same as one implementation has it, next to the others.
    pub const CSPTP_STATUS_OTHERWISE: Self = Self(0xff02);
    /// In requests of SPTP: which of the server's workers is to answer.
    pub const ALTERNATE_RESPONSE_PORT: Self = Self(0x2007);
}

impl Flags {
    /// profileSpecific1, by which SPTP tells its Delay_Req from others.
    pub const PROFILE_SPECIFIC_1: Self = Self(0x2000);
}

/// CSPTP_REQUEST.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CsptpRequest {
    /// Whether CSPTP_STATUS is wanted.
    pub status: bool,
    /// Whether ALTERNATE_TIME_OFFSET_INDICATOR is wanted.
    pub alternate_time: bool,
}

impl CsptpRequest {
    /// Length of the value.
    pub const LENGTH: usize = 4;

    /// The value of its TLV.
    pub const fn value(self) -> [u8; Self::LENGTH] {
        [self.status as u8 | (self.alternate_time as u8) << 1, 0, 0, 0]
    }

    /// That of a message: `None` where there is none, or more than one.
    pub fn find(tlvs: &Tlvs<'_>) -> Option<Self> {
        let [flags, ..] = *alone(tlvs, TlvType::CSPTP_REQUEST)?.first_chunk::<4>()?;
        Some(Self { status: flags & 1 != 0, alternate_time: flags & 2 != 0 })
    }
}

/// CSPTP_RESPONSE.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CsptpResponse {
    /// `reqIngressTimestamp`: when the request arrived.
    pub ingress: Timestamp,
    /// `reqCorrectionField` of the request, less the fraction that the timestamp leaves out.
    pub correction: TimeInterval,
}

impl CsptpResponse {
    /// Length of the value.
    pub const LENGTH: usize = 18;

    /// The value of its TLV.
    pub fn value(self) -> [u8; Self::LENGTH] {
        let mut value = [0; Self::LENGTH];
        self.ingress.write(&mut value, 0);
        value[10..].copy_from_slice(&self.correction.0.to_be_bytes());
        value
    }

    /// That of a message: `None` where there is none, more than one, or one whose timestamp cannot be.
    pub fn find(tlvs: &Tlvs<'_>) -> Option<Self> {
        let value = alone(tlvs, TlvType::CSPTP_RESPONSE)?;
        let value = match value.len() {
            Self::LENGTH => value,
            length if length >= ORGANIZATION + Self::LENGTH => &value[ORGANIZATION..],
            _ => return None,
        };
        let correction = i64::from_be_bytes(*value[10..].first_chunk()?);
        let ingress = Timestamp::read(value, 0).ok()?;
        Some(Self { ingress, correction: TimeInterval(correction) })
    }
}

/// CSPTP_STATUS: what Announce would say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CsptpStatus {
    /// `grandmasterPriority1`.
    pub priority1: u8,
    /// `grandmasterClockQuality`.
    pub quality: ClockQuality,
    /// `grandmasterPriority2`.
    pub priority2: u8,
    /// `stepsRemoved`.
    pub steps_removed: u16,
    /// `currentUtcOffset`, seconds.
    pub current_utc_offset: i16,
    /// `grandmasterIdentity`.
    pub grandmaster_identity: ClockIdentity,
}

impl CsptpStatus {
    /// Length of the value.
    pub const LENGTH: usize = 18;

    /// The value of its TLV.
    pub fn value(self) -> [u8; Self::LENGTH] {
        let mut value = [0; Self::LENGTH];
        value[0] = self.priority1;
        value[1] = self.quality.clock_class;
        value[2] = self.quality.clock_accuracy.0;
        value[3..5].copy_from_slice(&self.quality.offset_scaled_log_variance.to_be_bytes());
        value[5] = self.priority2;
        value[6..8].copy_from_slice(&self.steps_removed.to_be_bytes());
        value[8..10].copy_from_slice(&self.current_utc_offset.to_be_bytes());
        value[10..].copy_from_slice(&self.grandmaster_identity.0);
        value
    }

    /// That of a message; `None` where there is none.
    pub fn find(tlvs: &Tlvs<'_>) -> Option<Self> {
        let value = tlvs
            .find(TlvType::CSPTP_STATUS)
            .or_else(|| tlvs.find(TlvType::CSPTP_STATUS_OTHERWISE))?;
        // What is behind it, if anything is, says how long it is itself.
        let is_parent = |from: usize| {
            let said = value.get(from + Self::LENGTH + 2..from + Self::LENGTH + PARENT);
            let length = said.map(|said| usize::from(u16::from_be_bytes([said[0], said[1]])));
            length.is_some_and(|length| {
                let end = from + Self::LENGTH + PARENT + length;
                [end, end.next_multiple_of(2)].contains(&value.len())
            })
        };
        let value = match value.len() {
            Self::LENGTH => value,
            _ if is_parent(0) => value,
            length if length >= ORGANIZATION + Self::LENGTH => &value[ORGANIZATION..],
            _ => return None,
        };
        let [p1, class, accuracy, v1, v2, p2, s1, s2, u1, u2, a, b, c, d, e, f, g, h] =
            *value.first_chunk()?;
        Some(Self {
            priority1: p1,
            quality: ClockQuality {
                clock_class: class,
                clock_accuracy: ClockAccuracy(accuracy),
                offset_scaled_log_variance: u16::from_be_bytes([v1, v2]),
            },
            priority2: p2,
            steps_removed: u16::from_be_bytes([s1, s2]),
            current_utc_offset: i16::from_be_bytes([u1, u2]),
            grandmaster_identity: ClockIdentity([a, b, c, d, e, f, g, h]),
        })
    }
}

/// The value of the only TLV of a type.
fn alone<'a>(tlvs: &Tlvs<'a>, kind: TlvType) -> Option<&'a [u8]> {
    let mut all = tlvs.iter().filter(|tlv: &Tlv<'_>| tlv.kind == kind);
    let first = all.next()?.value;
    all.next().is_none().then_some(first)
}

#[cfg(test)]
mod tests {
    use super::super::TlvBuilder;
    use super::*;

    const STATUS: CsptpStatus = CsptpStatus {
        priority1: 15,
        quality: ClockQuality {
            clock_class: 248,
            clock_accuracy: ClockAccuracy(41),
            offset_scaled_log_variance: 0x8000,
        },
        priority2: 16,
        steps_removed: 4,
        current_utc_offset: -2,
        grandmaster_identity: ClockIdentity([9, 10, 11, 12, 13, 14, 15, 16]),
    };

    fn with<R>(tlvs: &[(TlvType, &[u8])], then: impl FnOnce(&Tlvs<'_>) -> R) -> R {
        let mut buffer = [0; 256];
        let mut builder = TlvBuilder::new(&mut buffer);
        for (kind, value) in tlvs {
            builder.push(Tlv { kind: *kind, value }).unwrap();
        }
        then(&builder.finish())
    }

    #[test]
    fn values_are_those_that_others_send_and_are_read_again() {
        let status = [15, 248, 41, 128, 0, 16, 0, 4, 255, 254, 9, 10, 11, 12, 13, 14, 15, 16];
        assert_eq!(STATUS.value(), status);
        with(&[(TlvType::CSPTP_STATUS, &status)], |tlvs| {
            assert_eq!(CsptpStatus::find(tlvs), Some(STATUS));
        });
        let ingress = Timestamp::new(200, 100).unwrap();
        let response = CsptpResponse { ingress, correction: TimeInterval(50) };
        let value = [0, 0, 0, 0, 0, 200, 0, 0, 0, 100, 0, 0, 0, 0, 0, 0, 0, 50];
        assert_eq!(response.value(), value);
        with(&[(TlvType::CSPTP_RESPONSE, &value)], |tlvs| {
            assert_eq!(CsptpResponse::find(tlvs), Some(response));
        });
        for flags in 0..4 {
            let request = CsptpRequest { status: flags & 1 != 0, alternate_time: flags & 2 != 0 };
            assert_eq!(request.value(), [flags, 0, 0, 0]);
            with(&[(TlvType::CSPTP_REQUEST, &request.value())], |tlvs| {
                assert_eq!(CsptpRequest::find(tlvs), Some(request));
            });
        }
    }

    #[test]
    fn an_organization_in_front_of_the_values_is_skipped() {
        let (mut response, mut status) = ([7; 24], [7; 34]);
        let ingress = Timestamp::new(200, 100).unwrap();
        let told = CsptpResponse { ingress, correction: TimeInterval(-1) };
        response[6..].copy_from_slice(&told.value());
        status[6..24].copy_from_slice(&STATUS.value());
        let both = [(TlvType::CSPTP_RESPONSE, &response[..]), (TlvType::CSPTP_STATUS, &status[..])];
        with(&both, |tlvs| {
            assert_eq!(CsptpResponse::find(tlvs), Some(told));
            assert_eq!(CsptpStatus::find(tlvs), Some(STATUS));
        });
    }

    #[test]
    fn address_of_the_servers_parent_behind_its_status_is_left_alone() {
        // IPv4, IPv6 and Ethernet.
        for (protocol, length) in [(1_u8, 4_u8), (2, 16), (3, 6)] {
            for organization in [0, ORGANIZATION] {
                let mut value = [7; 64];
                let parent = organization + CsptpStatus::LENGTH;
                value[organization..parent].copy_from_slice(&STATUS.value());
                value[parent..parent + PARENT].copy_from_slice(&[0, protocol, 0, length]);
                let value = &value[..parent + PARENT + usize::from(length)];
                for kind in [TlvType::CSPTP_STATUS, TlvType::CSPTP_STATUS_OTHERWISE] {
                    with(&[(kind, value)], |tlvs| {
                        assert_eq!(CsptpStatus::find(tlvs), Some(STATUS), "{organization}");
                    });
                }
            }
        }
    }

    #[test]
    fn two_of_a_kind_or_one_that_is_short_is_none() {
        let value = CsptpRequest::default().value();
        let twice = [(TlvType::CSPTP_REQUEST, &value[..]), (TlvType::CSPTP_REQUEST, &value[..])];
        with(&twice, |tlvs| assert_eq!(CsptpRequest::find(tlvs), None));
        with(&[(TlvType::CSPTP_REQUEST, &value[..2])], |tlvs| {
            assert_eq!(CsptpRequest::find(tlvs), None);
        });
        // A nanosecond too many.
        let mut value = [0; 18];
        value[6..10].copy_from_slice(&1_000_000_000_u32.to_be_bytes());
        with(&[(TlvType::CSPTP_RESPONSE, &value)], |tlvs| {
            assert_eq!(CsptpResponse::find(tlvs), None);
        });
        with(&[(TlvType::CSPTP_RESPONSE, &value[..16])], |tlvs| {
            assert_eq!(CsptpResponse::find(tlvs), None);
        });
    }
}
