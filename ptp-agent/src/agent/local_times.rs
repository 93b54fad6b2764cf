//! Local times that a grandmaster announces, be it `serve` or `run --role auto` while it is one: of the system's time zones,
//! brought up to date with the time that is served.

use std::path::Path;

use ptp_common::{time::Duration, wire::AlternateTimeOffset};

use crate::{
    engine::extras::Extras,
    publish::snapshot::{AnnouncedExtras, ZoneDatabase},
    zones::{DATABASE, Doubt, ZoneError, ZoneName, Zones},
};

/// What a grandmaster keeps of them.
#[derive(Default)]
pub(super) struct LocalTimes {
    zones: Option<Zones>,
    doubt: Option<Doubt>,
    told: AnnouncedExtras,
    has_told: bool,
}

impl LocalTimes {
    /// Of these zones.
    ///
    /// # Errors
    /// As for [`Zones::open`].
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
            Ok(new) => *self = Self { has_told: self.has_told, ..new },
            Err(error) => tracing::error!(%error, "the old time zones stay"),
        }
    }

    /// Whether there are any.
    pub(super) const fn has_zones(&self) -> bool {
        self.zones.is_some()
    }

    /// For the status: what is announced, and of which database.
    pub(super) fn status(&self) -> (AnnouncedExtras, Option<ZoneDatabase>) {
        let database = self.zones.as_ref().map(|zones| ZoneDatabase {
            version: zones.age().version.clone(),
            doubt: self.doubt.as_ref().map(Doubt::to_string),
        });
        (self.told.clone(), database)
    }

    /// What is to be announced at a time of UTC (since 1970) by who serves a time that is so far `ahead` of it; `None`
    /// where nothing has to change. `kernel_s`: what the kernel says of that, seconds, where its time is served.
    pub(super) fn announced(
        &mut self,
        utc: Duration,
        ahead: Duration,
        kernel_s: i32,
    ) -> Option<Vec<AlternateTimeOffset>> {
        let Some(zones) = &self.zones else {
            self.told = AnnouncedExtras::default();
            return std::mem::take(&mut self.has_told).then(Vec::new);
        };
        let whole = |span: Duration| span.as_nanos().div_euclid(1_000_000_000);
        let ahead_s = i32::try_from(whole(ahead)).unwrap_or(0);
        let alternates = zones.alternates(whole(utc), ahead_s);
        let extras = Extras { alternates, power: None };
        self.told = AnnouncedExtras::new(&extras, Some(ahead_s.into()));
        let found = zones.age().doubt(whole(utc), kernel_s);
        if found != self.doubt {
            match &found {
                Some(found) => tracing::warn!("{found}"),
                None => tracing::info!("the time zone database is up to date again"),
            }
            self.doubt = found;
        }
        self.has_told = true;
        Some(extras.alternates)
    }
}
