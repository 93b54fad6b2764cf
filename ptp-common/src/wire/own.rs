//! TLVs of this project's own: organization extensions that are not propagated (IEEE 1588-2019, 14.3), so that whoever
//! does not know them skips them. Each has two numbers of four octets.

use super::{Tlv, TlvType, Tlvs};

/// `organizationId`: locally administered, so nobody's by assignment,
const ORGANIZATION: [u8; 3] = [0x72, 0x50, 0x54];
/// and the beginning of `organizationSubType`, which tells what is meant by it from what others may.
const SUB_TYPE: [u8; 2] = [0xb5, 0xac];

/// The end of `organizationSubType`.
#[derive(Clone, Copy)]
pub(super) enum SubType {
    Bracket = 1,
    Deviation = 2,
}

/// Length of a value.
pub(super) const LENGTH: usize = 14;

/// The value of a TLV.
pub(super) fn value(kind: SubType, first: [u8; 4], second: [u8; 4]) -> [u8; LENGTH] {
    let mut value = [0; LENGTH];
    value[..3].copy_from_slice(&ORGANIZATION);
    value[3..5].copy_from_slice(&SUB_TYPE);
    value[5] = kind as u8;
    value[6..10].copy_from_slice(&first);
    value[10..].copy_from_slice(&second);
    value
}

/// The TLV with that value.
pub(super) const fn tlv(value: &[u8; LENGTH]) -> Tlv<'_> {
    Tlv { kind: TlvType::ORGANIZATION_EXTENSION_DO_NOT_PROPAGATE, value }
}

/// Both numbers of the first one of this kind.
pub(super) fn find(tlvs: &Tlvs<'_>, kind: SubType) -> Option<([u8; 4], [u8; 4])> {
    let value: &[u8; LENGTH] = tlvs
        .iter()
        .filter(|tlv| tlv.kind == TlvType::ORGANIZATION_EXTENSION_DO_NOT_PROPAGATE)
        .filter_map(|tlv| tlv.value.try_into().ok())
        .find(|value: &&[u8; LENGTH]| {
            value.starts_with(&ORGANIZATION) && value[3..5] == SUB_TYPE && value[5] == kind as u8
        })?;
    let [.., a, b, c, d, e, f, g, h] = *value;
    Some(([a, b, c, d], [e, f, g, h]))
}
