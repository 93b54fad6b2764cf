//! What an instance is told by management (IEEE 1588-2019 clause 15) while it runs, and what has happened on its ports
//! that management asks for. Whether a value can be is for whoever takes the request to see: `crate::limits`.

use super::{Cx, Instance, Participation};
use crate::{
    PortIndex,
    contention::PathTrace,
    counters::Timeouts,
    outcome::StateReason,
    port::{Port, PortTimer, Role},
    seam::LinkState,
    unicast::NO_INTERVAL,
};
use ptp_common::{
    data_set::TimeProperties,
    time::{Duration, Mono, Time},
    wire::{Announce, ClockIdentity, ClockQuality, Header, PortIdentity, PowerProfile},
};

/// What overrules what the clock knows of itself.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Managed {
    /// What it says of its own time.
    pub(crate) time_properties: Option<TimeProperties>,
    /// Whether it says that its time is uncertain though it does not know of it.
    pub(crate) is_uncertain: bool,
    /// Whom it tells as the grandmaster instead of itself, and how far that one is.
    pub(crate) external: Option<(ClockIdentity, u16)>,
    /// When the leap second comes that it announces, seconds of UTC.
    pub(crate) leap_at: Option<i64>,
}

impl Timeouts {
    pub(crate) const fn count(&mut self, timer: PortTimer) {
        let count = match timer {
            PortTimer::AnnounceReceipt => &mut self.announce,
            PortTimer::SyncReceipt => &mut self.sync,
            PortTimer::DelayReq => &mut self.delay,
            PortTimer::Announce => &mut self.transmitter_announce,
            PortTimer::Sync => &mut self.transmitter_sync,
            PortTimer::Qualification => &mut self.qualification,
            PortTimer::Decision => return,
        };
        *count += 1;
    }
}

impl Instance {
    /// What it says of itself as a grandmaster from now on, whatever its clock would say.
    pub fn set_grandmaster(&mut self, quality: ClockQuality, time_properties: TimeProperties) {
        self.managed.time_properties = Some(time_properties);
        self.managed.leap_at = None;
        self.served.time_properties = time_properties;
        self.set_quality(quality);
    }

    /// Whether Announce says `synchronizationUncertain` though the clock does not know of it.
    pub const fn set_uncertain(&mut self, is_uncertain: bool) {
        self.managed.is_uncertain = is_uncertain;
    }

    /// Whom it tells as the grandmaster while it follows nobody, and how far that one is: for a clock that is led by
    /// something else than PTP. `None`: itself.
    pub fn set_external_grandmaster(&mut self, external: Option<(ClockIdentity, u16)>) {
        self.managed.external = external;
        self.decide_soon();
    }

    /// The same.
    pub const fn external_grandmaster(&self) -> Option<(ClockIdentity, u16)> {
        self.managed.external
    }

    /// What the Announce of a port say of IEEE C37.238 from the next one on.
    pub fn set_power_profile(&mut self, on: PortIndex, profile: Option<PowerProfile>) {
        if let Some(port) = self.managed_port(on) {
            port.power = profile;
        }
    }

    /// The same.
    pub fn power_profile(&self, on: PortIndex) -> Option<&PowerProfile> {
        self.port(on)?.power.as_ref()
    }

    /// A port can be used from now on, or cannot, for one of these reasons: the first one where it cannot.
    pub(crate) fn link_usable(
        &mut self,
        cx: &mut Cx<'_>,
        on: PortIndex,
        state: LinkState,
        [down, up]: [StateReason; 2],
    ) {
        self.last_now = cx.now;
        let index = usize::from(on.0);
        let Some(port) = self.ports.get_mut(index) else { return };
        match (state, matches!(port.role, Role::Disabled)) {
            (LinkState::Up, true) => self.start_port(cx, index, up),
            (LinkState::Down, false) => {
                port.foreign.clear();
                if let Some(partners) = &mut port.partners {
                    partners.forget_all(cx.now);
                }
                port.shadowed_until = None;
                self.enter(cx, index, Role::Disabled, down);
                self.decide(cx, StateReason::LinkDown);
            }
            (LinkState::Up, false) | (LinkState::Down, true) => {}
        }
    }

    /// The interval of Announce on a port from now on, log2 s; of a port that follows, what it assumes of a time
    /// transmitter that says none.
    pub fn set_log_announce_interval(&mut self, now: Time<Mono>, on: PortIndex, log: i8) {
        if let Some(port) = self.managed_port(on) {
            port.asked_announce = Some(log);
            port.config.log_announce_interval = log;
            self.hasten(now, on, PortTimer::Announce, log);
        }
    }

    /// The interval of Sync on a port from now on, log2 s.
    pub fn set_log_sync_interval(&mut self, now: Time<Mono>, on: PortIndex, log: i8) {
        if let Some(port) = self.managed_port(on) {
            port.asked_sync = Some(log);
            self.hasten(now, on, PortTimer::Sync, log);
        }
    }

    /// As for [`crate::config::PortConfig::announce_receipt_timeout`], from the next Announce on.
    pub fn set_announce_receipt_timeout(&mut self, on: PortIndex, intervals: u8) {
        if let Some(port) = self.managed_port(on) {
            port.config.announce_receipt_timeout = intervals;
        }
    }

    /// As for [`crate::config::PortConfig::delay_asymmetry`], of one port.
    pub fn set_port_delay_asymmetry(&mut self, on: PortIndex, asymmetry: Duration) {
        if let Some(port) = self.managed_port(on) {
            port.config.delay_asymmetry = asymmetry;
        }
    }

    /// The header of what a port sends, without number, flags or interval.
    pub fn header_of_port(&self, on: PortIndex) -> Header {
        let clock_identity = self.clock_identity;
        let mut header = Header::new(PortIdentity { clock_identity, port_number: on.number() }, 0);
        (header.sdo_id, header.domain_number) = (self.sdo_id, self.domain_number);
        header.minor_version = self.minor_version;
        header.log_message_interval = NO_INTERVAL;
        header
    }

    /// Whether it never serves.
    pub const fn is_client_only(&self) -> bool {
        matches!(self.participation, Participation::ClientOnly)
    }

    /// Whether Announce tell the path; `None` of a clock that has none to tell.
    pub fn path_trace(&self) -> Option<PathTrace> {
        self.standing.as_ref().map(|standing| standing.contention.path_trace)
    }

    /// What somebody announces that a port has heard often enough.
    pub fn announced_by(&self, on: PortIndex, source: PortIdentity) -> Option<Announce> {
        let foreign = self.port(on)?.foreign.iter().find(|each| each.source == source)?;
        Some(foreign.believed.announce)
    }

    /// The interval of Announce that a port sends, log2 s.
    pub fn log_announce_interval(&self, on: PortIndex) -> i8 {
        let asked = self.port(on).and_then(|port| port.asked_announce);
        asked.unwrap_or(self.served.log_announce_interval)
    }

    /// The interval of Sync that a port sends, log2 s.
    pub fn log_sync_interval_of(&self, on: PortIndex) -> i8 {
        let asked = self.port(on).and_then(|port| port.asked_sync);
        asked.unwrap_or(self.served.log_sync_interval)
    }

    fn managed_port(&mut self, on: PortIndex) -> Option<&mut Port> {
        self.ports.get_mut(usize::from(on.0))
    }

    /// What is due later than the new interval is long is due then.
    fn hasten(&mut self, now: Time<Mono>, on: PortIndex, timer: PortTimer, log: i8) {
        let key = (on.0, timer);
        let at_most = now + Duration::from_log_interval(log);
        let due = self.timers.at(key).map(|due| due.min(at_most));
        self.timers.put(key, due);
    }
}
