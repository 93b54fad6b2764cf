//! What can be set by management, and whether a value can be. A value that cannot be is an error, and is not made to
//! fit: whoever sets something is to know what it is.

use ptp_common::{
    data_set::TimeProperties,
    time::Duration,
    wire::{
        AlternateTimeOffset, DisplayName, Flags, Inaccuracy, PortIdentity, PowerProfile,
        management::{
            ExternalGrandmaster, GrandmasterSettings, ManagementData, ManagementErrorId,
            ManagementId, PortCorrections, PowerProfileSettings,
        },
    },
};

use super::sets::{Alternates, DataSets};
use crate::engine::limits;

/// Something that has been set.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Setting {
    /// `priority1`.
    Priority1(u8),
    /// `priority2`.
    Priority2(u8),
    /// What the clock says of itself as a grandmaster.
    Grandmaster(GrandmasterSettings),
    /// `synchronizationUncertain`; `None`: as the clock knows it.
    Uncertain(Option<bool>),
    /// Whom it tells as the grandmaster instead of itself.
    External(ExternalGrandmaster),
    /// Local times.
    Alternates(Alternates),
    /// Of the port with this number, or of all with that of all.
    Port(u16, PortSetting),
}

/// Something of a port.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum PortSetting {
    /// Whether it takes part at all.
    Enabled(bool),
    /// Interval of Announce, log2 s.
    LogAnnounceInterval(i8),
    /// `announceReceiptTimeout`, announce intervals.
    AnnounceReceiptTimeout(u8),
    /// Interval of Sync, log2 s.
    LogSyncInterval(i8),
    /// Interval of Pdelay_Req, log2 s.
    LogMinPdelayReqInterval(i8),
    /// `neighborPropDelayThresh`, ns.
    NeighborThreshold(u32),
    /// Latencies and asymmetry.
    Corrections(PortCorrections),
    /// What Announce say of IEEE C37.238.
    Power(PowerProfileSettings),
}

impl Setting {
    /// Whether a later one of `other` makes this one needless.
    pub fn is_replaced_by(&self, other: &Self) -> bool {
        use std::mem::discriminant;
        match (self, other) {
            (Self::Port(port, this), Self::Port(of, that)) => {
                (port == of || *of == PortIdentity::ALL.port_number)
                    && discriminant(this) == discriminant(that)
            }
            _ => discriminant(self) == discriminant(other),
        }
    }
}

/// What a power profile's settings announce; `None` for nothing.
pub fn power_profile(settings: &PowerProfileSettings) -> Option<PowerProfile> {
    let inaccuracy = match settings.version {
        1 => Inaccuracy::V2011 {
            grandmaster_ns: settings.grandmaster_time_inaccuracy_ns,
            network_ns: settings.network_time_inaccuracy_ns,
        },
        2 => Inaccuracy::V2017 { total_ns: settings.total_time_inaccuracy_ns },
        _ => return None,
    };
    Some(PowerProfile { grandmaster_id: settings.grandmaster_id, inaccuracy })
}

/// The settings that announce this.
pub fn power_settings(profile: Option<&PowerProfile>) -> PowerProfileSettings {
    let none = PowerProfileSettings::NONE;
    let Some(PowerProfile { grandmaster_id, inaccuracy }) = profile.copied() else { return none };
    match inaccuracy {
        Inaccuracy::V2011 { grandmaster_ns, network_ns } => PowerProfileSettings {
            version: 1,
            grandmaster_id,
            grandmaster_time_inaccuracy_ns: grandmaster_ns,
            network_time_inaccuracy_ns: network_ns,
            ..none
        },
        Inaccuracy::V2017 { total_ns } => PowerProfileSettings {
            version: 2,
            grandmaster_id,
            total_time_inaccuracy_ns: total_ns,
            ..none
        },
    }
}

/// What can be set at all, by those who may.
pub(super) const fn is_settable(id: ManagementId) -> bool {
    matches!(
        id,
        ManagementId::PRIORITY1
            | ManagementId::PRIORITY2
            | ManagementId::CLOCK_ACCURACY
            | ManagementId::UTC_PROPERTIES
            | ManagementId::TRACEABILITY_PROPERTIES
            | ManagementId::TIMESCALE_PROPERTIES
            | ManagementId::LOG_ANNOUNCE_INTERVAL
            | ManagementId::ANNOUNCE_RECEIPT_TIMEOUT
            | ManagementId::LOG_SYNC_INTERVAL
            | ManagementId::LOG_MIN_PDELAY_REQ_INTERVAL
            | ManagementId::ALTERNATE_TIME_OFFSET_ENABLE
            | ManagementId::ALTERNATE_TIME_OFFSET_NAME
            | ManagementId::ALTERNATE_TIME_OFFSET_PROPERTIES
            | ManagementId::GRANDMASTER_SETTINGS_NP
            | ManagementId::SYNCHRONIZATION_UNCERTAIN_NP
            | ManagementId::EXTERNAL_GRANDMASTER_PROPERTIES_NP
            | ManagementId::PORT_DATA_SET_NP
            | ManagementId::PORT_CORRECTIONS_NP
            | ManagementId::POWER_PROFILE_SETTINGS_NP
    )
}

/// What a SET asks for, of the port with this number or of all.
pub(super) fn setting(
    id: ManagementId,
    payload: &[u8],
    port_number: u16,
    sets: &DataSets,
) -> Result<Setting, ManagementErrorId> {
    let wrong_value = Err(ManagementErrorId::WRONG_VALUE);
    let of_port = |setting| Ok(Setting::Port(port_number, setting));
    let data = ManagementData::read(id, payload).ok_or(ManagementErrorId::WRONG_LENGTH)?;
    match data {
        ManagementData::Priority1(priority) => Ok(Setting::Priority1(priority)),
        ManagementData::Priority2(priority) => Ok(Setting::Priority2(priority)),
        ManagementData::Grandmaster(settings) => grandmaster(settings, sets),
        ManagementData::Utc(offset, flags) => {
            let mut settings = sets.grandmaster;
            settings.time_properties = TimeProperties {
                current_utc_offset: offset,
                leap61: flags & 1 != 0,
                leap59: flags & 2 != 0,
                current_utc_offset_valid: flags & 4 != 0,
                ..settings.time_properties
            };
            grandmaster(settings, sets)
        }
        ManagementData::AlternateEnable(key, is_on) => {
            let mut alternates = settable_alternates(sets)?;
            match (key, alternates.0.get_mut(usize::from(key))) {
                (_, Some(place)) => place.0 = is_on,
                (u8::MAX, None) => alternates.0.iter_mut().for_each(|place| place.0 = is_on),
                (_, None) => return wrong_value,
            }
            Ok(Setting::Alternates(alternates))
        }
        ManagementData::AlternateName(key, name) => {
            let name = std::str::from_utf8(name).map_err(|_| ManagementErrorId::WRONG_VALUE)?;
            if name.chars().count() > 10 {
                return wrong_value;
            }
            change_alternate(sets, key, |each| each.name = DisplayName::new(name))
        }
        ManagementData::AlternateProperties(it) => change_alternate(sets, it.key, |each| {
            each.current_offset_s = it.current_offset_s;
            each.jump_s = it.jump_s;
            each.next_jump_s = it.next_jump_s;
        }),
        ManagementData::ExternalGrandmaster(external) => {
            if sets.default.client_only {
                return Err(ManagementErrorId::NOT_SETABLE);
            }
            Ok(Setting::External(external))
        }
        ManagementData::PortNp(it) => {
            of_port(PortSetting::NeighborThreshold(it.neighbor_prop_delay_threshold_ns))
        }
        ManagementData::Corrections(it) => {
            let latencies = [it.egress_latency, it.ingress_latency];
            let is_plausible =
                latencies.iter().all(|each| Duration::from(*each).abs() <= limits::LATENCY)
                    && limits::is_correction(it.delay_asymmetry.into());
            let is_one = sets.ports.len() < 2 || port_number == PortIdentity::ALL.port_number;
            let [egress, ingress] = latencies;
            let is_other = sets.ports.iter().any(|port| {
                let now = &port.corrections;
                (now.egress_latency, now.ingress_latency) != (egress, ingress)
            });
            if is_other && !is_one {
                // Latencies are of capture points, which all ports share.
                return Err(ManagementErrorId::NOT_SETABLE);
            }
            if is_plausible { of_port(PortSetting::Corrections(it)) } else { wrong_value }
        }
        ManagementData::Power(power) if power.version <= 2 => of_port(PortSetting::Power(power)),
        ManagementData::Octet(id, value) => octet(id, value, port_number, sets),
        ManagementData::Power(_) => wrong_value,
        _ => Err(ManagementErrorId::NOT_SETABLE),
    }
}

fn octet(
    id: ManagementId,
    value: u8,
    port_number: u16,
    sets: &DataSets,
) -> Result<Setting, ManagementErrorId> {
    let wrong_value = Err(ManagementErrorId::WRONG_VALUE);
    let mut settings = sets.grandmaster;
    let log = value as i8;
    let interval = |setting| match limits::is_asked_interval(log) {
        true => Ok(Setting::Port(port_number, setting)),
        false => wrong_value,
    };
    match id {
        ManagementId::SYNCHRONIZATION_UNCERTAIN_NP => match value {
            0 | 1 => Ok(Setting::Uncertain(Some(value == 1))),
            u8::MAX => Ok(Setting::Uncertain(None)),
            _ => wrong_value,
        },
        ManagementId::CLOCK_ACCURACY => {
            settings.clock_quality.clock_accuracy.0 = value;
            grandmaster(settings, sets)
        }
        ManagementId::TRACEABILITY_PROPERTIES => {
            let flags = Flags(u16::from(value));
            settings.time_properties.time_traceable = flags.contains(Flags::TIME_TRACEABLE);
            settings.time_properties.frequency_traceable =
                flags.contains(Flags::FREQUENCY_TRACEABLE);
            grandmaster(settings, sets)
        }
        ManagementId::TIMESCALE_PROPERTIES => {
            let flags = Flags(u16::from(value));
            settings.time_properties.ptp_timescale = flags.contains(Flags::PTP_TIMESCALE);
            grandmaster(settings, sets)
        }
        ManagementId::LOG_ANNOUNCE_INTERVAL => interval(PortSetting::LogAnnounceInterval(log)),
        ManagementId::LOG_SYNC_INTERVAL => interval(PortSetting::LogSyncInterval(log)),
        ManagementId::LOG_MIN_PDELAY_REQ_INTERVAL => {
            interval(PortSetting::LogMinPdelayReqInterval(log))
        }
        ManagementId::ANNOUNCE_RECEIPT_TIMEOUT => {
            match limits::ANNOUNCE_RECEIPT_TIMEOUT.contains(&value) {
                true => Ok(Setting::Port(port_number, PortSetting::AnnounceReceiptTimeout(value))),
                false => wrong_value,
            }
        }
        _ => Err(ManagementErrorId::NOT_SETABLE),
    }
}

/// What a clock that may serve can say of itself.
fn grandmaster(
    settings: GrandmasterSettings,
    sets: &DataSets,
) -> Result<Setting, ManagementErrorId> {
    if sets.default.client_only {
        return Err(ManagementErrorId::NOT_SETABLE);
    }
    let GrandmasterSettings { clock_quality, time_properties } = settings;
    let is_class = (1..=254).contains(&clock_quality.clock_class);
    let is_offset = limits::is_utc_offset(time_properties.current_utc_offset);
    let has_one_leap = !(time_properties.leap59 && time_properties.leap61);
    let is_scale = !sets.is_time_scale_fixed
        || time_properties.ptp_timescale == sets.grandmaster.time_properties.ptp_timescale;
    if is_class && is_offset && has_one_leap && is_scale {
        Ok(Setting::Grandmaster(settings))
    } else {
        Err(ManagementErrorId::WRONG_VALUE)
    }
}

fn settable_alternates(sets: &DataSets) -> Result<Alternates, ManagementErrorId> {
    if sets.default.client_only || sets.are_alternates_fixed {
        return Err(ManagementErrorId::NOT_SETABLE);
    }
    Ok(sets.alternates)
}

fn change_alternate(
    sets: &DataSets,
    key: u8,
    change: impl FnOnce(&mut AlternateTimeOffset),
) -> Result<Setting, ManagementErrorId> {
    let mut alternates = settable_alternates(sets)?;
    let place = alternates.0.get_mut(usize::from(key)).ok_or(ManagementErrorId::WRONG_VALUE)?;
    change(&mut place.1);
    Ok(Setting::Alternates(alternates))
}
