//! TLVs of IEEE 802.1AS: what a Follow_Up has to carry there, and how one neighbour asks the other for other
//! intervals. Both are organization extensions of IEEE 802.1.

use super::{Tlv, TlvType, Tlvs};
use crate::time::Duration;

/// 2^41, by which rates are scaled.
pub const RATE_SCALE: f64 = (1_u64 << 41) as f64;

/// `organizationId` of IEEE 802.1.
const ORGANIZATION: [u8; 3] = [0x00, 0x80, 0xc2];

/// The value of the extension with this subtype, if it is long enough.
fn find<const N: usize>(tlvs: &Tlvs<'_>, sub_type: u8) -> Option<[u8; N]> {
    let is_it = |value: &&[u8]| {
        value.starts_with(&ORGANIZATION) && value.get(3..6) == Some(&[0, 0, sub_type][..])
    };
    let extensions = tlvs.iter().filter(|tlv| tlv.kind == TlvType::ORGANIZATION_EXTENSION);
    let value = extensions.map(|tlv| tlv.value).find(is_it)?;
    value.get(..N)?.try_into().ok()
}

/// The TLV with a value from here.
pub const fn tlv(value: &[u8]) -> Tlv<'_> {
    Tlv { kind: TlvType::ORGANIZATION_EXTENSION, value }
}

/// Follow_Up information TLV (IEEE 802.1AS-2020, 11.4.4.3).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FollowUpInformation {
    /// The rate of the grandmaster over that of the sender, minus one, times 2^41.
    pub cumulative_scaled_rate_offset: i32,
    /// Counts changes of the grandmaster's source of time.
    pub gm_time_base_indicator: u16,
    /// `lastGmPhaseChange`, 2^-16 ns.
    pub last_gm_phase_change: [u8; 12],
    /// `scaledLastGmFreqChange`, 2^-41.
    pub scaled_last_gm_freq_change: i32,
}

impl FollowUpInformation {
    /// Length of the value of its TLV.
    pub const LENGTH: usize = 28;

    /// The rate of the grandmaster over that of the sender, a number near to 1.
    pub fn rate_ratio(&self) -> f64 {
        1.0 + f64::from(self.cumulative_scaled_rate_offset) / RATE_SCALE
    }

    /// The same with this rate: to 2^-41, and no further from 1 than 976 ppm, which is all that there is room for.
    #[must_use]
    pub fn with_rate_ratio(self, ratio: f64) -> Self {
        let scaled = (ratio - 1.0) * RATE_SCALE;
        // To the nearest, without `std`; a cast saturates.
        let half = if scaled < 0.0 { -0.5 } else { 0.5 };
        Self { cumulative_scaled_rate_offset: (scaled + half) as i32, ..self }
    }

    /// `lastGmPhaseChange`: by how much the grandmaster's time has gone on at the last change of its time base. Longer ones
    /// than a duration can be are the longest.
    pub fn phase_change(&self) -> Duration {
        let bytes = self.last_gm_phase_change;
        let sign = if bytes[0] & 0x80 == 0 { 0 } else { 0xff };
        let mut wide = [sign; 16];
        wide[4..].copy_from_slice(&bytes);
        Duration::from_scaled_nanos(i128::from_be_bytes(wide))
    }

    /// The value of its TLV.
    pub fn value(&self) -> [u8; Self::LENGTH] {
        let mut value = [0; Self::LENGTH];
        value[..3].copy_from_slice(&ORGANIZATION);
        value[5] = 1;
        value[6..10].copy_from_slice(&self.cumulative_scaled_rate_offset.to_be_bytes());
        value[10..12].copy_from_slice(&self.gm_time_base_indicator.to_be_bytes());
        value[12..24].copy_from_slice(&self.last_gm_phase_change);
        value[24..].copy_from_slice(&self.scaled_last_gm_freq_change.to_be_bytes());
        value
    }

    /// That of a message; `None` where there is none.
    pub fn find(tlvs: &Tlvs<'_>) -> Option<Self> {
        let value: [u8; Self::LENGTH] = find(tlvs, 1)?;
        let number = |at: usize| i32::from_be_bytes([0, 1, 2, 3].map(|n| value[at + n]));
        let mut last_gm_phase_change = [0; 12];
        last_gm_phase_change.copy_from_slice(&value[12..24]);
        Some(Self {
            cumulative_scaled_rate_offset: number(6),
            gm_time_base_indicator: u16::from_be_bytes([value[10], value[11]]),
            last_gm_phase_change,
            scaled_last_gm_freq_change: number(24),
        })
    }
}

/// An interval that a neighbour asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AskedInterval {
    /// As it is.
    Keep,
    /// As it was at first.
    Initial,
    /// None: nothing is to be sent.
    Stop,
    /// This one, log2 s.
    Log(i8),
}

impl AskedInterval {
    const fn of(byte: u8) -> Self {
        match byte.cast_signed() {
            i8::MIN => Self::Keep,
            126 => Self::Initial,
            127 => Self::Stop,
            log => Self::Log(log),
        }
    }

    const fn byte(self) -> u8 {
        match self {
            Self::Keep => i8::MIN.cast_unsigned(),
            Self::Initial => 126,
            Self::Stop => 127,
            Self::Log(log) => log.cast_unsigned(),
        }
    }
}

/// Message interval request TLV (IEEE 802.1AS-2020, 10.6.4.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IntervalRequest {
    /// Of Pdelay_Req.
    pub link_delay: AskedInterval,
    /// Of Sync.
    pub time_sync: AskedInterval,
    /// Of Announce.
    pub announce: AskedInterval,
    /// `computeNeighborRateRatio` (bit 0), `computeMeanLinkDelay` (1), `oneStepReceiveCapable` (2).
    pub flags: u8,
}

impl IntervalRequest {
    /// Length of the value of its TLV.
    pub const LENGTH: usize = 12;

    /// The value of its TLV.
    pub fn value(&self) -> [u8; Self::LENGTH] {
        let mut value = [0; Self::LENGTH];
        value[..3].copy_from_slice(&ORGANIZATION);
        value[5] = 2;
        let asked = [self.link_delay, self.time_sync, self.announce].map(AskedInterval::byte);
        value[6..9].copy_from_slice(&asked);
        value[9] = self.flags;
        value
    }

    /// That of a message; `None` where there is none.
    pub fn find(tlvs: &Tlvs<'_>) -> Option<Self> {
        let value: [u8; Self::LENGTH] = find(tlvs, 2)?;
        let [link_delay, time_sync, announce] =
            [value[6], value[7], value[8]].map(AskedInterval::of);
        Some(Self { link_delay, time_sync, announce, flags: value[9] })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// The TLV alone on the wire.
    fn wire(value: &[u8]) -> ([u8; 64], usize) {
        let mut bytes = [0; 64];
        let length = tlv(value).emit(&mut bytes).unwrap();
        (bytes, length)
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(
            rate in any::<i32>(), base in any::<u16>(), phase in any::<[u8; 12]>(),
            asked in any::<[u8; 3]>(), flags in any::<u8>(),
        ) {
            let information = FollowUpInformation {
                cumulative_scaled_rate_offset: rate,
                gm_time_base_indicator: base,
                last_gm_phase_change: phase,
                scaled_last_gm_freq_change: rate.wrapping_neg(),
            };
            let (bytes, length) = wire(&information.value());
            let tlvs = Tlvs::new(&bytes[..length]).unwrap();
            prop_assert_eq!(FollowUpInformation::find(&tlvs), Some(information));
            prop_assert_eq!(IntervalRequest::find(&tlvs), None);
            let [link_delay, time_sync, announce] = asked.map(AskedInterval::of);
            let request = IntervalRequest { link_delay, time_sync, announce, flags };
            let (bytes, length) = wire(&request.value());
            let tlvs = Tlvs::new(&bytes[..length]).unwrap();
            prop_assert_eq!(IntervalRequest::find(&tlvs), Some(request));
            prop_assert_eq!(FollowUpInformation::find(&tlvs), None);
        }
    }

    proptest! {
        #[test]
        fn a_rate_is_told_to_its_last_bit_and_no_further_off_than_there_is_room_for(
            ppm in -2_000.0..2_000.0_f64,
        ) {
            let information = FollowUpInformation::default().with_rate_ratio(1.0 + ppm * 1e-6);
            let told = (information.rate_ratio() - 1.0) * 1e6;
            prop_assert!((told - ppm.clamp(-976.5625, 976.5625)).abs() < 1e-6, "{told} {ppm}");
        }
    }

    #[test]
    fn a_phase_change_has_a_sign_and_a_fraction() {
        let mut last_gm_phase_change = [0xff; 12];
        last_gm_phase_change[11] = 0;
        last_gm_phase_change[10] = 0x80;
        let information = FollowUpInformation { last_gm_phase_change, ..Default::default() };
        assert_eq!(information.phase_change(), Duration::from_scaled_nanos(-(1 << 15)));
        last_gm_phase_change = [0; 12];
        last_gm_phase_change[9] = 3;
        let information = FollowUpInformation { last_gm_phase_change, ..Default::default() };
        assert_eq!(information.phase_change(), Duration::from_nanos(3));
    }

    #[test]
    fn one_that_is_cut_or_of_somebody_else_is_none() {
        let value = FollowUpInformation::default().value();
        let (bytes, length) = wire(&value[..26]);
        assert_eq!(FollowUpInformation::find(&Tlvs::new(&bytes[..length]).unwrap()), None);
        let mut foreign = value;
        foreign[0] = 1;
        let (bytes, length) = wire(&foreign);
        assert_eq!(FollowUpInformation::find(&Tlvs::new(&bytes[..length]).unwrap()), None);
        assert_eq!(FollowUpInformation::find(&Tlvs::NONE), None);
    }
}
