//! Local times of the time that `serve` serves.

use ptp_common::time::{Mono, Time};

use super::{Around, Served, Server};
use crate::{engine::ReadClock as _, sys::clock::host_reading};

impl Around {
    /// Announces what local times are now.
    pub(super) fn look_after_zones(&mut self, server: &mut Server, now: Time<Mono>) {
        let ahead = self.served.time_properties().utc_offset().best();
        let Some(utc) = self.served.at(now).map(|time| (time - ahead).since_epoch()) else {
            return;
        };
        self.managing.about.are_alternates_fixed = self.local_times.has_zones();
        let kernel_s = match &self.served {
            Served::System(_) => host_reading().map_or(0, |reading| reading.tai_offset_s),
            // Its time is not the kernel's.
            Served::Virtual(_) => 0,
        };
        if let Some(alternates) = self.local_times.announced(utc, ahead, kernel_s) {
            server.engine.set_alternate_offsets(alternates);
        }
    }
}
