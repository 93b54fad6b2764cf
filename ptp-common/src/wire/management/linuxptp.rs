//! What linuxptp's `pmc` asks for by numbers of linuxptp's own (`_NP`). Of fixed length all, and what is counted is
//! little-endian.

use super::fields::{Reader, Writer};
use crate::{
    data_set::TimeProperties,
    wire::{ClockIdentity, ClockQuality, Flags, PortIdentity, TimeInterval, TimeSource},
};

/// TIME_STATUS_NP: how well a clock follows, as linuxptp tells it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TimeStatus {
    /// Local clock minus time transmitter, ns.
    pub master_offset: i64,
    /// When the last Sync came in, local clock, ns since its epoch.
    pub ingress_time: i64,
    /// From the Follow_Up of IEEE 802.1AS; zero without.
    pub cumulative_scaled_rate_offset: i32,
    /// As above.
    pub scaled_last_gm_phase_change: i32,
    /// As above.
    pub gm_time_base_indicator: u16,
    /// As above: 2^-16 ns in 96 bits.
    pub last_gm_phase_change: [u8; 12],
    /// Whether there is a grandmaster that is not this clock.
    pub gm_present: bool,
    /// `grandmasterIdentity`.
    pub gm_identity: ClockIdentity,
}

impl TimeStatus {
    pub(super) fn read(from: &mut Reader<'_>) -> Option<Self> {
        Some(Self {
            master_offset: i64::from_be_bytes(from.bytes()?),
            ingress_time: i64::from_be_bytes(from.bytes()?),
            cumulative_scaled_rate_offset: i32::from_be_bytes(from.bytes()?),
            scaled_last_gm_phase_change: i32::from_be_bytes(from.bytes()?),
            gm_time_base_indicator: u16::from_be_bytes(from.bytes()?),
            last_gm_phase_change: from.bytes()?,
            gm_present: i32::from_be_bytes(from.bytes()?) != 0,
            gm_identity: ClockIdentity(from.bytes()?),
        })
    }

    pub(super) fn write(&self, to: &mut Writer<'_>) {
        to.put(&self.master_offset.to_be_bytes());
        to.put(&self.ingress_time.to_be_bytes());
        to.put(&self.cumulative_scaled_rate_offset.to_be_bytes());
        to.put(&self.scaled_last_gm_phase_change.to_be_bytes());
        to.put(&self.gm_time_base_indicator.to_be_bytes());
        to.put(&self.last_gm_phase_change);
        to.put(&i32::from(self.gm_present).to_be_bytes());
        to.put(&self.gm_identity.0);
    }
}

/// PORT_STATS_NP: messages of a port by `messageType`, as linuxptp tells it (counts little-endian).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PortStats {
    /// The port.
    pub port_identity: PortIdentity,
    /// Received.
    pub received: [u64; 16],
    /// Sent.
    pub sent: [u64; 16],
}

impl PortStats {
    pub(super) fn read(from: &mut Reader<'_>) -> Option<Self> {
        Some(Self { port_identity: from.port()?, received: from.counts()?, sent: from.counts()? })
    }

    pub(super) fn write(&self, to: &mut Writer<'_>) {
        to.port(self.port_identity);
        to.counts(&self.received);
        to.counts(&self.sent);
    }
}

/// GRANDMASTER_SETTINGS_NP: what a clock says of itself as a grandmaster.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GrandmasterSettings {
    /// `clockQuality`.
    pub clock_quality: ClockQuality,
    /// `timePropertiesDS`.
    pub time_properties: TimeProperties,
}

impl GrandmasterSettings {
    pub(super) fn read(from: &mut Reader<'_>) -> Option<Self> {
        let clock_quality = from.quality()?;
        let current_utc_offset = i16::from_be_bytes(from.bytes()?);
        let flags = Flags(u16::from(from.byte()?));
        let time_source = TimeSource(from.byte()?);
        let time_properties = TimeProperties::told(current_utc_offset, flags, time_source);
        Some(Self { clock_quality, time_properties })
    }

    pub(super) fn write(&self, to: &mut Writer<'_>) {
        to.quality(self.clock_quality);
        to.put(&self.time_properties.current_utc_offset.to_be_bytes());
        to.put(&[self.time_properties.flags().0 as u8, self.time_properties.time_source.0]);
    }
}

/// PORT_DATA_SET_NP.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PortDataSetNp {
    /// `neighborPropDelayThresh`, ns.
    pub neighbor_prop_delay_threshold_ns: u32,
    /// `asCapable`: 0 where it is not.
    pub as_capable: i32,
}

impl PortDataSetNp {
    pub(super) fn read(from: &mut Reader<'_>) -> Option<Self> {
        Some(Self {
            neighbor_prop_delay_threshold_ns: u32::from_be_bytes(from.bytes()?),
            as_capable: i32::from_be_bytes(from.bytes()?),
        })
    }

    pub(super) fn write(&self, to: &mut Writer<'_>) {
        to.put(&self.neighbor_prop_delay_threshold_ns.to_be_bytes());
        to.put(&self.as_capable.to_be_bytes());
    }
}

/// What can be subscribed to: the number of a bit in [`SubscribeEvents::events`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ManagementEvent {
    /// The state of a port has changed: its PORT_DATA_SET.
    PortState = 0,
    /// A time has been measured: TIME_STATUS_NP.
    TimeSync = 1,
    /// Another parent, or another grandmaster: PARENT_DATA_SET.
    ParentDataSet = 2,
    /// The link has been measured: CMLDS_INFO_NP.
    Cmlds = 3,
}

/// SUBSCRIBE_EVENTS_NP.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SubscribeEvents {
    /// For how long, s; [`Self::FOR_EVER`] for as long as there is anybody to tell.
    pub duration_s: u16,
    /// A bit for each event, from the lowest of the first octet on.
    pub events: [u8; 64],
}

impl SubscribeEvents {
    /// The duration that does not end.
    pub const FOR_EVER: u16 = u16::MAX;

    /// Of nothing.
    pub const fn none() -> Self {
        Self { duration_s: 0, events: [0; 64] }
    }

    /// Whether this event is among them.
    pub const fn has(&self, event: ManagementEvent) -> bool {
        self.events[event as usize / 8] & 1 << (event as usize % 8) != 0
    }

    pub(super) fn read(from: &mut Reader<'_>) -> Option<Self> {
        Some(Self { duration_s: u16::from_be_bytes(from.bytes()?), events: from.bytes()? })
    }

    pub(super) fn write(&self, to: &mut Writer<'_>) {
        to.put(&self.duration_s.to_be_bytes());
        to.put(&self.events);
    }
}

/// PORT_SERVICE_STATS_NP: what has happened on a port, counted since the start (little-endian).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PortServiceStats {
    /// The port.
    pub port_identity: PortIdentity,
    /// In this order: announce_timeout, sync_timeout, delay_timeout, unicast_service_timeout,
    /// unicast_request_timeout, master_announce_timeout, master_sync_timeout, qualification_timeout, sync_mismatch,
    /// followup_mismatch.
    pub counts: [u64; 10],
}

impl PortServiceStats {
    pub(super) fn read(from: &mut Reader<'_>) -> Option<Self> {
        Some(Self { port_identity: from.port()?, counts: from.counts()? })
    }

    pub(super) fn write(&self, to: &mut Writer<'_>) {
        to.port(self.port_identity);
        to.counts(&self.counts);
    }
}

/// PORT_HWCLOCK_NP.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PortHwclock {
    /// The port.
    pub port_identity: PortIdentity,
    /// The number of its hardware clock; -1 where it has none.
    pub phc_index: i32,
    /// Bit 0: a virtual one.
    pub flags: u8,
}

impl PortHwclock {
    pub(super) fn read(from: &mut Reader<'_>) -> Option<Self> {
        Some(Self {
            port_identity: from.port()?,
            phc_index: i32::from_be_bytes(from.bytes()?),
            flags: from.byte()?,
        })
    }

    pub(super) fn write(&self, to: &mut Writer<'_>) {
        to.port(self.port_identity);
        to.put(&self.phc_index.to_be_bytes());
        to.put(&[self.flags]);
    }
}

/// POWER_PROFILE_SETTINGS_NP.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PowerProfileSettings {
    /// Of IEEE C37.238: 0 for none, 1 for that of 2011, 2 for that of 2017.
    pub version: u16,
    /// `grandmasterID`.
    pub grandmaster_id: u16,
    /// `grandmasterTimeInaccuracy`, ns.
    pub grandmaster_time_inaccuracy_ns: u32,
    /// `networkTimeInaccuracy`, ns.
    pub network_time_inaccuracy_ns: u32,
    /// `totalTimeInaccuracy`, ns.
    pub total_time_inaccuracy_ns: u32,
}

impl PowerProfileSettings {
    /// Of a port that announces nothing of it.
    pub const NONE: Self = Self {
        version: 0,
        grandmaster_id: 0,
        grandmaster_time_inaccuracy_ns: u32::MAX,
        network_time_inaccuracy_ns: u32::MAX,
        total_time_inaccuracy_ns: u32::MAX,
    };

    pub(super) fn read(from: &mut Reader<'_>) -> Option<Self> {
        Some(Self {
            version: u16::from_be_bytes(from.bytes()?),
            grandmaster_id: u16::from_be_bytes(from.bytes()?),
            grandmaster_time_inaccuracy_ns: u32::from_be_bytes(from.bytes()?),
            network_time_inaccuracy_ns: u32::from_be_bytes(from.bytes()?),
            total_time_inaccuracy_ns: u32::from_be_bytes(from.bytes()?),
        })
    }

    pub(super) fn write(&self, to: &mut Writer<'_>) {
        to.put(&self.version.to_be_bytes());
        to.put(&self.grandmaster_id.to_be_bytes());
        to.put(&self.grandmaster_time_inaccuracy_ns.to_be_bytes());
        to.put(&self.network_time_inaccuracy_ns.to_be_bytes());
        to.put(&self.total_time_inaccuracy_ns.to_be_bytes());
    }
}

/// CMLDS_INFO_NP: what a link's delay service (16.6) tells those who share the link.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CmldsInfo {
    /// `meanLinkDelay`.
    pub mean_link_delay: TimeInterval,
    /// (`neighborRateRatio` - 1) in 2^-41.
    pub scaled_neighbor_rate_ratio: i32,
    /// Whether the link's other end answers as it should.
    pub as_capable: u32,
}

impl CmldsInfo {
    pub(super) fn read(from: &mut Reader<'_>) -> Option<Self> {
        Some(Self {
            mean_link_delay: TimeInterval(i64::from_be_bytes(from.bytes()?)),
            scaled_neighbor_rate_ratio: i32::from_be_bytes(from.bytes()?),
            as_capable: u32::from_be_bytes(from.bytes()?),
        })
    }

    pub(super) fn write(&self, to: &mut Writer<'_>) {
        to.put(&self.mean_link_delay.0.to_be_bytes());
        to.put(&self.scaled_neighbor_rate_ratio.to_be_bytes());
        to.put(&self.as_capable.to_be_bytes());
    }
}

/// PORT_CORRECTIONS_NP.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PortCorrections {
    /// Between a transmit stamp and the wire.
    pub egress_latency: TimeInterval,
    /// Between the wire and a receive stamp.
    pub ingress_latency: TimeInterval,
    /// `delayAsymmetry`.
    pub delay_asymmetry: TimeInterval,
}

impl PortCorrections {
    pub(super) fn read(from: &mut Reader<'_>) -> Option<Self> {
        Some(Self {
            egress_latency: TimeInterval(i64::from_be_bytes(from.bytes()?)),
            ingress_latency: TimeInterval(i64::from_be_bytes(from.bytes()?)),
            delay_asymmetry: TimeInterval(i64::from_be_bytes(from.bytes()?)),
        })
    }

    pub(super) fn write(&self, to: &mut Writer<'_>) {
        to.put(&self.egress_latency.0.to_be_bytes());
        to.put(&self.ingress_latency.0.to_be_bytes());
        to.put(&self.delay_asymmetry.0.to_be_bytes());
    }
}

/// EXTERNAL_GRANDMASTER_PROPERTIES_NP.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ExternalGrandmaster {
    /// The grandmaster that is told instead of the own clock; zeros: none.
    pub identity: ClockIdentity,
    /// How far it is away.
    pub steps_removed: u16,
}

impl ExternalGrandmaster {
    pub(super) fn read(from: &mut Reader<'_>) -> Option<Self> {
        Some(Self {
            identity: ClockIdentity(from.bytes()?),
            steps_removed: u16::from_be_bytes(from.bytes()?),
        })
    }

    pub(super) fn write(&self, to: &mut Writer<'_>) {
        to.put(&self.identity.0);
        to.put(&self.steps_removed.to_be_bytes());
    }
}
