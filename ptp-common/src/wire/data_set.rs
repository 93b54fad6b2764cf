//! The data sets of clause 8, each once: what the engine keeps is what management, status and metrics tell.
//! With `timePropertiesDS` goes the one rule for what lies between the time of a domain and UTC.

use core::fmt;

use super::{Announce, ClockIdentity, ClockQuality, Flags, PortIdentity, TimeInterval, TimeSource};
use crate::time::Duration;

/// `defaultDS` (8.2.1), as it is told (15.5.3.3.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DefaultDataSet {
    /// `twoStepFlag`.
    pub two_step: bool,
    /// `slaveOnly`.
    pub client_only: bool,
    /// `numberPorts`.
    pub number_ports: u16,
    /// `priority1`.
    pub priority1: u8,
    /// `clockQuality`.
    pub clock_quality: ClockQuality,
    /// `priority2`.
    pub priority2: u8,
    /// `clockIdentity`.
    pub clock_identity: ClockIdentity,
    /// `domainNumber`.
    pub domain_number: u8,
}

/// `currentDS` (8.2.2), as it is told (15.5.3.4.1).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CurrentDataSet {
    /// `stepsRemoved`.
    pub steps_removed: u16,
    /// `offsetFromMaster`.
    pub offset_from_master: TimeInterval,
    /// `meanPathDelay`.
    pub mean_path_delay: TimeInterval,
}

/// `parentDS` (8.2.3), as it is told (15.5.3.5.1). Statistics of the parent are never computed, so those
/// fields have the values that the standard gives for that.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ParentDataSet {
    /// `parentPortIdentity`.
    pub parent_port_identity: PortIdentity,
    /// `parentStats`: whether the next two are valid.
    pub parent_stats: bool,
    /// `observedParentOffsetScaledLogVariance`.
    pub observed_offset_scaled_log_variance: u16,
    /// `observedParentClockPhaseChangeRate`.
    pub observed_phase_change_rate: i32,
    /// `grandmasterPriority1`.
    pub grandmaster_priority1: u8,
    /// `grandmasterClockQuality`.
    pub grandmaster_clock_quality: ClockQuality,
    /// `grandmasterPriority2`.
    pub grandmaster_priority2: u8,
    /// `grandmasterIdentity`.
    pub grandmaster_identity: ClockIdentity,
}

impl ParentDataSet {
    /// The variance that a clock tells when it has computed none (7.6.3.3).
    pub const UNKNOWN_VARIANCE: u16 = 0xffff;
    /// The rate that a clock tells when it has computed none (8.2.3.4).
    pub const UNKNOWN_RATE: i32 = i32::MAX;

    /// Of a clock that follows the sender of `announce`.
    pub const fn of(announce: &Announce, sender: PortIdentity) -> Self {
        Self {
            parent_port_identity: sender,
            parent_stats: false,
            observed_offset_scaled_log_variance: Self::UNKNOWN_VARIANCE,
            observed_phase_change_rate: Self::UNKNOWN_RATE,
            grandmaster_priority1: announce.grandmaster_priority1,
            grandmaster_clock_quality: announce.grandmaster_clock_quality,
            grandmaster_priority2: announce.grandmaster_priority2,
            grandmaster_identity: announce.grandmaster_identity,
        }
    }

    /// Of a clock that follows nobody: its own grandmaster (table 22).
    pub const fn own(default: &DefaultDataSet) -> Self {
        let clock_identity = default.clock_identity;
        Self {
            parent_port_identity: PortIdentity { clock_identity, port_number: 0 },
            parent_stats: false,
            observed_offset_scaled_log_variance: Self::UNKNOWN_VARIANCE,
            observed_phase_change_rate: Self::UNKNOWN_RATE,
            grandmaster_priority1: default.priority1,
            grandmaster_clock_quality: default.clock_quality,
            grandmaster_priority2: default.priority2,
            grandmaster_identity: clock_identity,
        }
    }
}

/// `portDS` (8.2.15), as it is told (15.5.3.7.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PortDataSet {
    /// `portIdentity`.
    pub port_identity: PortIdentity,
    /// `portState` by its number (table 20).
    pub port_state: u8,
    /// `logMinDelayReqInterval`.
    pub log_min_delay_req_interval: i8,
    /// `meanLinkDelay`.
    pub mean_link_delay: TimeInterval,
    /// `logAnnounceInterval`.
    pub log_announce_interval: i8,
    /// `announceReceiptTimeout`.
    pub announce_receipt_timeout: u8,
    /// `logSyncInterval`.
    pub log_sync_interval: i8,
    /// `delayMechanism`: 1 is end to end, 2 peer to peer.
    pub delay_mechanism: u8,
    /// `logMinPdelayReqInterval`.
    pub log_min_pdelay_req_interval: i8,
    /// `versionNumber`.
    pub version_number: u8,
}

/// `currentUtcOffset` that can be true, seconds: 37 since 2017, and no leap second is in sight.
pub const UTC_OFFSET: core::ops::RangeInclusive<i16> = 30..=50;
/// TAI minus UTC since 2017, seconds, where a grandmaster on the PTP time scale does not say it or cannot
/// be right.
pub const USUAL_UTC_OFFSET: i16 = 37;

/// What is known of the time of a domain minus UTC.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UtcOffset {
    /// On the PTP time scale, and said to be valid.
    Announced(Duration),
    /// On the PTP time scale, and not said, or not validly: that of today is what it must be, unless a leap
    /// second has come since this program was written.
    Assumed(Duration),
    /// On an arbitrary time scale (7.2.1), in practice UTC: ptp4l with software stamps says 37 s all the same.
    Arbitrary,
}

impl UtcOffset {
    /// The difference where the grandmaster vouches for it; none on an arbitrary time scale, which is taken for
    /// UTC.
    pub const fn known(self) -> Option<Duration> {
        match self {
            Self::Announced(offset) => Some(offset),
            Self::Assumed(_) => None,
            Self::Arbitrary => Some(Duration::ZERO),
        }
    }

    /// The difference as well as it can be told.
    pub const fn best(self) -> Duration {
        match self {
            Self::Announced(offset) | Self::Assumed(offset) => offset,
            Self::Arbitrary => Duration::ZERO,
        }
    }
}

/// `timePropertiesDS` (8.2.4).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TimeProperties {
    /// `currentUtcOffset`, seconds.
    pub current_utc_offset: i16,
    /// `currentUtcOffsetValid`.
    pub current_utc_offset_valid: bool,
    /// `leap59`.
    pub leap59: bool,
    /// `leap61`.
    pub leap61: bool,
    /// `timeTraceable`.
    pub time_traceable: bool,
    /// `frequencyTraceable`.
    pub frequency_traceable: bool,
    /// `ptpTimescale`.
    pub ptp_timescale: bool,
    /// `timeSource`.
    pub time_source: TimeSource,
}

impl TimeProperties {
    /// Of a clock that has no reference: an arbitrary time scale, and nothing said about it.
    pub const UNKNOWN: Self =
        Self::told(USUAL_UTC_OFFSET, Flags(0), TimeSource::INTERNAL_OSCILLATOR);

    /// As a clock tells them, whether they can be true or not.
    pub const fn told(current_utc_offset: i16, flags: Flags, time_source: TimeSource) -> Self {
        Self {
            current_utc_offset,
            current_utc_offset_valid: flags.contains(Flags::UTC_OFFSET_VALID),
            leap59: flags.contains(Flags::LEAP59),
            leap61: flags.contains(Flags::LEAP61),
            time_traceable: flags.contains(Flags::TIME_TRACEABLE),
            frequency_traceable: flags.contains(Flags::FREQUENCY_TRACEABLE),
            ptp_timescale: flags.contains(Flags::PTP_TIMESCALE),
            time_source,
        }
    }

    /// From the flags and the body of an Announce. A UTC offset that cannot be ([`UTC_OFFSET`]) is none.
    pub fn new(flags: Flags, announce: &Announce) -> Self {
        let told = Self::told(announce.current_utc_offset, flags, announce.time_source);
        if UTC_OFFSET.contains(&announce.current_utc_offset) {
            return told;
        }
        Self { current_utc_offset: USUAL_UTC_OFFSET, current_utc_offset_valid: false, ..told }
    }

    /// The bits of `flagField` that tell them.
    pub const fn flags(&self) -> Flags {
        Flags(0)
            .with(Flags::LEAP61, self.leap61)
            .with(Flags::LEAP59, self.leap59)
            .with(Flags::UTC_OFFSET_VALID, self.current_utc_offset_valid)
            .with(Flags::PTP_TIMESCALE, self.ptp_timescale)
            .with(Flags::TIME_TRACEABLE, self.time_traceable)
            .with(Flags::FREQUENCY_TRACEABLE, self.frequency_traceable)
    }

    /// What lies between the time of the domain and UTC. This is the only place that decides it.
    ///
    /// ptp4l announces its offset without `currentUtcOffsetValid` in its default configuration, so that a
    /// missing flag cannot mean that there is no offset.
    pub const fn utc_offset(&self) -> UtcOffset {
        let announced = Duration::from_secs(self.current_utc_offset as i64);
        match (self.ptp_timescale, self.current_utc_offset_valid) {
            (true, true) => UtcOffset::Announced(announced),
            (true, false) => UtcOffset::Assumed(Duration::from_secs(USUAL_UTC_OFFSET as i64)),
            (false, _) => UtcOffset::Arbitrary,
        }
    }
}

/// The time scale, in words.
impl fmt::Display for TimeProperties {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.ptp_timescale, self.current_utc_offset_valid) {
            (true, true) => write!(f, "PTP (TAI), UTC {} s behind", self.current_utc_offset),
            (true, false) => f.write_str("PTP (TAI), UTC offset unknown"),
            (false, _) => f.write_str("arbitrary"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(flags: Flags, offset: i16) -> UtcOffset {
        TimeProperties::told(offset, flags, TimeSource::GNSS).utc_offset()
    }

    #[test]
    fn utc_is_known_where_the_grandmaster_vouches_for_it_and_assumed_where_it_does_not() {
        let both = Flags::PTP_TIMESCALE | Flags::UTC_OFFSET_VALID;
        let seconds = Duration::from_secs;
        assert_eq!(told(both, 38), UtcOffset::Announced(seconds(38)));
        assert_eq!(told(Flags::PTP_TIMESCALE, 38), UtcOffset::Assumed(seconds(37)));
        assert_eq!(told(Flags::UTC_OFFSET_VALID, 38), UtcOffset::Arbitrary);
        assert_eq!(told(both, 38).known(), Some(seconds(38)));
        assert_eq!(told(Flags::PTP_TIMESCALE, 38).known(), None);
        assert_eq!(told(Flags(0), 38).known(), Some(Duration::ZERO));
    }

    #[test]
    fn flags_that_are_told_are_told_again() {
        for bits in 0..=0x3f {
            let flags = Flags(bits);
            assert_eq!(TimeProperties::told(37, flags, TimeSource::GNSS).flags(), flags);
        }
    }
}
