//! The TLV of the power profile (IEEE C37.238) behind Announce: how inaccurate time is at its grandmaster and on its way.
//! Two versions are in use; both are organization extensions of IEEE C37.238's own organization.

use super::{Tlv, TlvType, Tlvs};

/// `organizationId`.
const ORGANIZATION: [u8; 3] = [0x1c, 0x12, 0x9d];
/// Of either version's value, bytes.
const LENGTH: usize = 18;

/// What it says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PowerProfile {
    /// `grandmasterID`.
    pub grandmaster_id: u16,
    /// How inaccurate, by the version.
    pub inaccuracy: Inaccuracy,
}

/// In nanoseconds at the most; 0xffffffff is more than can be told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Inaccuracy {
    /// C37.238-2011.
    V2011 {
        /// `grandmasterTimeInaccuracy`.
        grandmaster_ns: u32,
        /// `networkTimeInaccuracy`.
        network_ns: u32,
    },
    /// C37.238-2017.
    V2017 {
        /// `totalTimeInaccuracy`.
        total_ns: u32,
    },
}

impl PowerProfile {
    /// That of a message; `None` where there is none.
    pub fn find(tlvs: &Tlvs<'_>) -> Option<Self> {
        let extensions = tlvs.iter().filter(|tlv| tlv.kind == TlvType::ORGANIZATION_EXTENSION);
        extensions.filter_map(|tlv| Self::read(tlv.value)).next()
    }

    /// The value of its TLV.
    pub fn value(&self) -> [u8; LENGTH] {
        let mut value = [0; LENGTH];
        value[..3].copy_from_slice(&ORGANIZATION);
        value[6..8].copy_from_slice(&self.grandmaster_id.to_be_bytes());
        let mut put = |at: usize, ns: u32| value[at..at + 4].copy_from_slice(&ns.to_be_bytes());
        let subtype = match self.inaccuracy {
            Inaccuracy::V2011 { grandmaster_ns, network_ns } => {
                put(8, grandmaster_ns);
                put(12, network_ns);
                1
            }
            Inaccuracy::V2017 { total_ns } => {
                put(12, total_ns);
                2
            }
        };
        value[5] = subtype;
        value
    }

    /// The TLV with such a value.
    pub const fn tlv(value: &[u8]) -> Tlv<'_> {
        Tlv { kind: TlvType::ORGANIZATION_EXTENSION, value }
    }

    /// Reads the value of a TLV.
    pub fn read(value: &[u8]) -> Option<Self> {
        let value: &[u8; LENGTH] = value.try_into().ok()?;
        let number = |at: usize| {
            u32::from_be_bytes([value[at], value[at + 1], value[at + 2], value[at + 3]])
        };
        if value[..3] != ORGANIZATION {
            return None;
        }
        let inaccuracy = match value[3..6] {
            [0, 0, 1] => Inaccuracy::V2011 { grandmaster_ns: number(8), network_ns: number(12) },
            [0, 0, 2] => Inaccuracy::V2017 { total_ns: number(12) },
            _ => return None,
        };
        Some(Self { grandmaster_id: u16::from_be_bytes([value[6], value[7]]), inaccuracy })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_versions_are_read_and_other_organizations_are_not() {
        let v2017 = [0x1c, 0x12, 0x9d, 0, 0, 2, 0x00, 0x07, 0, 0, 0, 0, 0, 0, 0x03, 0xe8, 0, 0];
        let read = PowerProfile::read(&v2017).unwrap();
        assert_eq!(
            (read.grandmaster_id, read.inaccuracy),
            (7, Inaccuracy::V2017 { total_ns: 1_000 })
        );
        assert_eq!(read.value(), v2017);
        let mut v2011 = v2017;
        (v2011[5], v2011[11]) = (1, 9);
        let read = PowerProfile::read(&v2011).unwrap();
        assert_eq!(read.inaccuracy, Inaccuracy::V2011 { grandmaster_ns: 9, network_ns: 1_000 });
        assert_eq!(PowerProfile::read(&read.value()), Some(read));
        for (at, value) in [(0, 0), (5, 3)] {
            let mut other = v2017;
            other[at] = value;
            assert_eq!(PowerProfile::read(&other), None);
        }
        assert_eq!(PowerProfile::read(&v2017[..17]), None);
    }
}
