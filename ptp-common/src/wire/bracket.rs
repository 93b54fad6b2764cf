//! How far from a timestamp the instant may be that it stands for, as its sender knows it: from the program's
//! own tracepoints around the driver, for instance. An organization extension that is not propagated
//! (IEEE 1588-2019, 14.3), so that whoever does not know it skips it. It goes behind Follow_Up for
//! the precise origin timestamp and behind Delay_Resp for the receive timestamp.

use super::{
    Tlv, Tlvs,
    own::{self, SubType},
};

/// The instant is no earlier than the timestamp plus the one, and no later than the timestamp plus the
/// other, nanoseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bracket {
    /// `i32::MIN` where it is not known.
    pub earliest_ns: i32,
    /// `i32::MAX` where it is not known.
    pub latest_ns: i32,
}

impl Bracket {
    /// Length of the value of its TLV.
    pub const LENGTH: usize = own::LENGTH;

    /// The value of its TLV.
    pub fn value(self) -> [u8; Self::LENGTH] {
        own::value(SubType::Bracket, self.earliest_ns.to_be_bytes(), self.latest_ns.to_be_bytes())
    }

    /// The TLV with that value.
    pub const fn tlv(value: &[u8; Self::LENGTH]) -> Tlv<'_> {
        own::tlv(value)
    }

    /// That of a message; `None` where there is none.
    pub fn find(tlvs: &Tlvs<'_>) -> Option<Self> {
        let (earliest, latest) = own::find(tlvs, SubType::Bracket)?;
        Some(Self {
            earliest_ns: i32::from_be_bytes(earliest),
            latest_ns: i32::from_be_bytes(latest),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bracket_is_found_among_others_and_another_organization_s_is_none() {
        let bracket = Bracket { earliest_ns: -40, latest_ns: 1_200 };
        let value = bracket.value();
        let mut foreign = value;
        foreign[0] = 0;
        let mut buffer = [0; 64];
        let mut tlvs = super::super::TlvBuilder::new(&mut buffer);
        tlvs.push(Bracket::tlv(&foreign)).unwrap();
        let none = tlvs.finish();
        assert_eq!(Bracket::find(&none), None);
        let mut buffer = [0; 64];
        let mut tlvs = super::super::TlvBuilder::new(&mut buffer);
        tlvs.push(Bracket::tlv(&foreign)).unwrap();
        tlvs.push(Bracket::tlv(&value)).unwrap();
        assert_eq!(Bracket::find(&tlvs.finish()), Some(bracket));
        assert_eq!(Bracket::find(&Tlvs::NONE), None);
    }
}
