//! Local times that a grandmaster announces: of the system's time zones, brought up to date with the time that it serves.

use std::path::Path;

use ptp_common::time::{Duration, Mono, Time};

use super::{Around, Served, Server};
use crate::{
    engine::{ReadClock as _, extras::Extras},
    publish::snapshot::{AnnouncedExtras, ZoneDatabase},
    sys::clock::host_reading,
    zones::{DATABASE, Doubt, ZoneError, ZoneName, Zones},
};

/// What a server keeps of them.
#[derive(Default)]
pub(super) struct LocalTimes {
    zones: Option<Zones>,
    doubt: Option<Doubt>,
    told: AnnouncedExtras,
}

impl LocalTimes {
    /// Of these zones.
    pub(super) fn open(names: &[ZoneName]) -> Result<Self, ZoneError> {
        let zones = Zones::open(names, Path::new(DATABASE))?;
        let zones = (!names.is_empty()).then_some(zones);
        if let Some(version) = zones.as_ref().and_then(|zones| zones.age().version.as_ref()) {
            tracing::info!(version, "time zone database");
        }
        Ok(Self { zones, ..Self::default() })
    }

    /// Takes over other zones, or the same ones of a newer database.
    pub(super) fn change(&mut self, names: &[ZoneName]) {
        match Self::open(names) {
            Ok(new) => *self = new,
            Err(error) => tracing::error!(%error, "the old time zones stay"),
        }
    }

    /// For the status: what is announced, and of which database.
    pub(super) fn status(&self) -> (AnnouncedExtras, Option<ZoneDatabase>) {
        let database = self.zones.as_ref().map(|zones| ZoneDatabase {
            version: zones.age().version.clone(),
            doubt: self.doubt.as_ref().map(Doubt::to_string),
        });
        (self.told.clone(), database)
    }
}

impl Around {
    /// Announces what local times are now.
    pub(super) fn look_after_zones(&mut self, server: &mut Server, now: Time<Mono>) {
        let ahead = self.served.time_properties().utc_offset().best();
        let utc = self.served.at(now).map(|time| (time - ahead).since_epoch());
        let (Some(utc), LocalTimes { zones, doubt, told }) = (utc, &mut self.local_times) else {
            return;
        };
        let Some(zones) = zones else {
            // Those that management has set, if any.
            self.managing.about.are_alternates_fixed = false;
            let alternates = self.managing.about.alternates.announced();
            if server.engine.alternate_offsets() != alternates {
                let ahead_s = ahead.as_nanos().div_euclid(1_000_000_000);
                let extras = Extras { alternates: alternates.clone(), power: None };
                *told = AnnouncedExtras::new(&extras, Some(ahead_s));
                server.engine.set_alternate_offsets(alternates);
            }
            return;
        };
        self.managing.about.are_alternates_fixed = true;
        let whole = |span: Duration| span.as_nanos().div_euclid(1_000_000_000);
        let ahead_s = i32::try_from(whole(ahead)).unwrap_or(0);
        let alternates = zones.alternates(whole(utc), ahead_s);
        let extras = Extras { alternates, power: None };
        *told = AnnouncedExtras::new(&extras, Some(ahead_s.into()));
        server.engine.set_alternate_offsets(extras.alternates);
        let kernel_s = match &self.served {
            Served::System(_) => host_reading().map_or(0, |reading| reading.tai_offset_s),
            // Its time is not the kernel's.
            Served::Virtual(_) => 0,
        };
        let found = zones.age().doubt(whole(utc), kernel_s);
        if found != *doubt {
            match &found {
                Some(found) => tracing::warn!("{found}"),
                None => tracing::info!("the time zone database is up to date again"),
            }
            *doubt = found;
        }
    }
}
