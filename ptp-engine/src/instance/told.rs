//! What an instance is told while it runs: what it serves, and how its ports are to behave.

use super::{Aiming, Instance};
use crate::prelude::*;
use crate::{PortIndex, config::TransmitterConfig, extras::Extras};
use ptp_common::{
    data_set::TimeProperties,
    time::Duration,
    wire::{AlternateTimeOffset, ClockQuality},
};

impl Instance {
    /// What a server tells of itself.
    pub const fn config(&self) -> &TransmitterConfig {
        &self.served
    }

    /// What Announce says of the quality from the next one on, for a served clock that is itself
    /// synchronised or has lost its reference.
    pub fn set_quality(&mut self, clock_quality: ClockQuality) {
        self.served.clock_quality = clock_quality;
        self.decide_soon();
    }

    /// What Announce says of the time from the next one on.
    pub const fn set_time_properties(&mut self, time_properties: TimeProperties) {
        // What management has told holds.
        self.served.time_properties = match self.managed.time_properties {
            Some(told) => told,
            None => time_properties,
        };
    }

    /// What Announce says of alternate times (16.3) from the next one on, while this clock is the grandmaster; as many
    /// as there is room for.
    pub fn set_alternate_offsets(&mut self, alternates: Vec<AlternateTimeOffset>) {
        self.alternates = alternates;
    }

    /// Those.
    pub fn alternate_offsets(&self) -> &[AlternateTimeOffset] {
        &self.alternates
    }

    /// What else the parent announces: shown, and applied by nobody.
    pub fn extras(&self) -> Option<&Extras> {
        let parent = self.parent.as_ref()?.set.parent_port_identity;
        let (source, extras) = self.extras.as_ref()?;
        (*source == parent).then_some(extras)
    }

    /// What the best master clock algorithm compares first and third, from the next Announce on.
    pub fn set_priorities(&mut self, priority1: u8, priority2: u8) {
        self.served.priority1 = priority1;
        self.served.priority2 = priority2;
        self.decide_soon();
    }

    /// Lets the requests of a port arrive shortly before a Sync is due, or at any time.
    pub fn set_aiming(&mut self, port: PortIndex, aiming: Aiming) {
        if let Some(port) = self.ports.get_mut(usize::from(port.0)) {
            port.aiming = aiming;
        }
    }

    /// As for [`PortConfig::delay_asymmetry`], for all ports.
    pub fn set_delay_asymmetry(&mut self, asymmetry: Duration) {
        for port in &mut self.ports {
            port.config.delay_asymmetry = asymmetry;
        }
    }
}
