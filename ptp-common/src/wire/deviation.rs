//! How far the time that a message tells may be from the grandmaster's, as a clock knows it that passes the time on: what its
//! own bound is. Whoever follows it adds that to its own, so that a bound behind boundary clocks and relays is one
//! against the grandmaster. It goes behind Follow_Up for the precise origin timestamp and behind Delay_Resp for the receive timestamp.

use super::{
    Tlv, Tlvs,
    own::{self, SubType},
};
use crate::time::Duration;

/// What is told minus the grandmaster's time is no less than minus the one and no more than the other, nanoseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Deviation {
    /// How far it may be behind.
    pub behind_ns: u32,
    /// How far it may be ahead.
    pub ahead_ns: u32,
}

impl Deviation {
    /// Length of the value of its TLV.
    pub const LENGTH: usize = own::LENGTH;

    /// No narrower than from `least` to `most`, and never without zero in it: nobody's time is corrected by it. `None` where that is
    /// farther than can be told.
    pub fn of(least: Duration, most: Duration) -> Option<Self> {
        let whole = |span: Duration| {
            let ns = span.max(Duration::ZERO).as_nanos().checked_add(1)?;
            u32::try_from(ns).ok()
        };
        Some(Self { behind_ns: whole(-least)?, ahead_ns: whole(most)? })
    }

    /// How far it may be behind.
    pub fn behind(self) -> Duration {
        Duration::from_nanos(i64::from(self.behind_ns))
    }

    /// How far it may be ahead.
    pub fn ahead(self) -> Duration {
        Duration::from_nanos(i64::from(self.ahead_ns))
    }

    /// The value of its TLV.
    pub fn value(self) -> [u8; Self::LENGTH] {
        own::value(SubType::Deviation, self.behind_ns.to_be_bytes(), self.ahead_ns.to_be_bytes())
    }

    /// The TLV with that value.
    pub const fn tlv(value: &[u8; Self::LENGTH]) -> Tlv<'_> {
        own::tlv(value)
    }

    /// That of a message; `None` where there is none.
    pub fn find(tlvs: &Tlvs<'_>) -> Option<Self> {
        let (behind, ahead) = own::find(tlvs, SubType::Deviation)?;
        Some(Self { behind_ns: u32::from_be_bytes(behind), ahead_ns: u32::from_be_bytes(ahead) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::{Bracket, TlvBuilder};

    #[test]
    fn a_deviation_is_told_beside_a_bracket_and_never_too_narrow() {
        let nanos = Duration::from_nanos;
        let deviation = Deviation::of(nanos(-700), nanos(1_200)).unwrap();
        assert_eq!(deviation, Deviation { behind_ns: 701, ahead_ns: 1_201 });
        let bracket = Bracket { earliest_ns: -40, latest_ns: 1_200 };
        let (value, other, mut buffer) = (deviation.value(), bracket.value(), [0; 64]);
        let mut tlvs = TlvBuilder::new(&mut buffer);
        tlvs.push(Bracket::tlv(&other)).unwrap();
        assert_eq!(Deviation::find(&tlvs.finish()), None);
        let mut tlvs = TlvBuilder::new(&mut buffer);
        tlvs.push(Bracket::tlv(&other)).unwrap();
        tlvs.push(Deviation::tlv(&value)).unwrap();
        let both = tlvs.finish();
        assert_eq!(
            (Deviation::find(&both), Bracket::find(&both)),
            (Some(deviation), Some(bracket))
        );
        // One that is ahead for certain may still be right.
        let ahead = Deviation::of(nanos(300), nanos(500)).unwrap();
        assert_eq!(ahead, Deviation { behind_ns: 1, ahead_ns: 501 });
        assert_eq!(Deviation::of(Duration::from_secs(-5), nanos(0)), None);
    }
}
