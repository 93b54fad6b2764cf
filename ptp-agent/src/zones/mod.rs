//! The system's time zones, for those whom `serve` tells them (IEEE 1588-2019, 16.3: alternate time offsets): what local
//! time is from the time that is served, and when that jumps next. The database is read once at the start and at each
//! reload, so that a running server needs no file; whether it is as new as the kernel's offset of TAI is told.

mod age;

use std::{
    fs,
    io::{self, Read as _},
    path::{Path, PathBuf},
    str::FromStr,
};

use jiff::{Timestamp, tz::TimeZone};
use ptp_common::wire::{AlternateTimeOffset, DisplayName};

pub use age::{Age, Doubt};

/// Where distributions have it (tzfile(5)).
pub const DATABASE: &str = "/usr/share/zoneinfo";
/// As many are announced: there is room for them behind an Announce, and linuxptp keeps as many.
pub const MOST: usize = 4;
/// A file of the database has no reason to be larger.
const MAX_BYTES: u64 = 1 << 20;
/// Transitions that change the name alone are passed over, so many at the most.
const PASSED_OVER: usize = 16;

/// Why a zone cannot be told.
#[derive(Debug, thiserror::Error)]
pub enum ZoneError {
    /// There is no database.
    #[error("no time zone database in {0}: install the package tzdata")]
    NoDatabase(PathBuf),
    /// It has no such zone.
    #[error(
        "the time zone database in {database} has no zone {name}: names are as in Europe/Berlin"
    )]
    NoZone {
        /// Where it is.
        database: PathBuf,
        /// The zone.
        name: String,
    },
    /// Its file is none.
    #[error("cannot read the time zone {name} from {database}: {problem}")]
    Broken {
        /// Where it is.
        database: PathBuf,
        /// The zone.
        name: String,
        /// What is wrong.
        problem: String,
    },
}

/// The name of a zone, as it is asked for: nothing that leads out of the database.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ZoneName(String);

impl FromStr for ZoneName {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let is_part = |part: &str| {
            let is_of_name = |it: char| it.is_ascii_alphanumeric() || "_+-".contains(it);
            !part.is_empty() && part.chars().all(is_of_name)
        };
        match text.split('/').all(is_part) && text.len() <= 64 {
            true => Ok(Self(text.to_owned())),
            false => Err(format!("{text:?} is no name of a time zone, as Europe/Berlin is one")),
        }
    }
}

impl<'de> serde::Deserialize<'de> for ZoneName {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

/// Zones of the system's database.
#[derive(Clone, Debug, Default)]
pub struct Zones {
    zones: Vec<TimeZone>,
    /// How old the database is.
    age: Age,
}

impl Zones {
    /// Reads them.
    ///
    /// # Errors
    /// [`ZoneError`].
    pub fn open(names: &[ZoneName], database: &Path) -> Result<Self, ZoneError> {
        if names.is_empty() {
            return Ok(Self::default());
        }
        if !database.is_dir() {
            return Err(ZoneError::NoDatabase(database.to_owned()));
        }
        let zones = names.iter().take(MOST).map(|name| zone(name, database));
        Ok(Self { zones: zones.collect::<Result<_, _>>()?, age: Age::read(database) })
    }

    /// How old the database is.
    pub const fn age(&self) -> &Age {
        &self.age
    }

    /// What is to be told of them at a time of UTC, seconds since 1970, where the time that is served is so many seconds
    /// ahead of UTC. A jump that comes with a leap second in between is told to the second of what is known now.
    pub fn alternates(&self, utc_s: i64, ahead_s: i32) -> Vec<AlternateTimeOffset> {
        let Ok(now) = Timestamp::from_second(utc_s) else { return Vec::new() };
        let zones = self.zones.iter().zip(0..);
        zones.map(|(zone, key)| alternate(zone, key, now, ahead_s)).collect()
    }
}

fn zone(name: &ZoneName, database: &Path) -> Result<TimeZone, ZoneError> {
    let ZoneName(name) = name;
    let broken = |problem: String| ZoneError::Broken {
        database: database.to_owned(),
        name: name.clone(),
        problem,
    };
    let file = match fs::File::open(database.join(name)) {
        Ok(file) if file.metadata().is_ok_and(|it| it.is_file()) => file,
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            return Err(broken(error.to_string()));
        }
        Ok(_) | Err(_) => {
            return Err(ZoneError::NoZone { database: database.to_owned(), name: name.clone() });
        }
    };
    let mut bytes = Vec::new();
    file.take(MAX_BYTES).read_to_end(&mut bytes).map_err(|error| broken(error.to_string()))?;
    TimeZone::tzif(name, &bytes).map_err(|error| broken(error.to_string()))
}

fn alternate(zone: &TimeZone, key: u8, now: Timestamp, ahead_s: i32) -> AlternateTimeOffset {
    let info = zone.to_offset_info(now);
    let offset = info.offset().seconds();
    let next = zone
        .following(now)
        .take(PASSED_OVER)
        .find(|transition| transition.offset().seconds() != offset);
    let (jump_s, next_jump_s) = next.map_or((0, 0), |next| {
        let at = next.timestamp().as_second() + i64::from(ahead_s);
        (next.offset().seconds() - offset, u64::try_from(at).unwrap_or(0))
    });
    AlternateTimeOffset {
        key,
        current_offset_s: offset - ahead_s,
        jump_s,
        next_jump_s,
        name: DisplayName::new(info.abbreviation()),
    }
}

/// An alternate time in words: `CET UTC+01:00, +3600 s at 2027-03-28T01:00:00Z`; without the offset from UTC, of the
/// sender's own time.
pub fn text(alternate: &AlternateTimeOffset, utc_offset_s: Option<i64>) -> String {
    let AlternateTimeOffset { current_offset_s, jump_s, next_jump_s, name, .. } = alternate;
    let mut text = match utc_offset_s {
        Some(ahead) => {
            let offset = i64::from(*current_offset_s) + ahead;
            let (sign, whole) = (if offset < 0 { '-' } else { '+' }, offset.unsigned_abs());
            let mut text = format!("{name} UTC{sign}{:02}:{:02}", whole / 3_600, whole / 60 % 60);
            if !whole.is_multiple_of(60) {
                text += &format!(":{:02}", whole % 60);
            }
            text
        }
        None => format!("{name} {current_offset_s:+} s from the grandmaster's time"),
    };
    if *jump_s != 0 {
        let at = i64::try_from(*next_jump_s).ok().zip(utc_offset_s);
        let at = at.and_then(|(at, ahead)| Timestamp::from_second(at.checked_sub(ahead)?).ok());
        text += &match at {
            Some(at) => format!(", {jump_s:+} s at {at}"),
            None => format!(", {jump_s:+} s at second {next_jump_s} of it"),
        };
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    /// 2026-11-27T00:00:00Z.
    const WINTER: i64 = 1_795_737_600;

    fn system(names: &[&str]) -> Option<Zones> {
        let names: Vec<ZoneName> = names.iter().map(|name| name.parse().unwrap()).collect();
        match Zones::open(&names, Path::new(DATABASE)) {
            Ok(zones) => Some(zones),
            Err(error @ ZoneError::NoDatabase(_)) => {
                eprintln!("skipped: {error}");
                None
            }
            Err(error) => panic!("{error}"),
        }
    }

    #[test]
    fn local_time_and_its_next_jump_are_told_from_the_time_that_is_served() {
        let Some(zones) = system(&["Europe/Berlin", "America/New_York", "Asia/Tokyo"]) else {
            return;
        };
        let told = zones.alternates(WINTER, 37);
        let [berlin, new_york, tokyo] = &told[..] else { panic!("{told:?}") };
        assert_eq!((berlin.key, berlin.name.to_string()), (0, "CET".to_owned()));
        // TAI is ahead of UTC.
        assert_eq!((berlin.current_offset_s, berlin.jump_s), (3_563, 3_600));
        // 2027-03-28T01:00:00Z by TAI.
        assert_eq!(berlin.next_jump_s, 1_806_195_600 + 37);
        assert_eq!((new_york.current_offset_s, new_york.jump_s), (-5 * 3_600 - 37, 3_600));
        assert_eq!((tokyo.current_offset_s, tokyo.jump_s, tokyo.next_jump_s), (32_363, 0, 0));
        // On an arbitrary time scale, which is UTC in effect.
        assert_eq!(zones.alternates(WINTER, 0)[0].current_offset_s, 3_600);
        let summer = zones.alternates(1_806_195_600, 37)[0];
        assert_eq!((summer.name.to_string(), summer.jump_s), ("CEST".to_owned(), -3_600));
    }

    #[test]
    fn alternate_times_are_told_in_words() {
        let alternate = AlternateTimeOffset {
            key: 0,
            current_offset_s: 3_563,
            jump_s: 3_600,
            next_jump_s: 1_806_195_637,
            name: DisplayName::new("CET"),
        };
        assert_eq!(text(&alternate, Some(37)), "CET UTC+01:00, +3600 s at 2027-03-28T01:00:00Z");
        assert_eq!(
            text(&alternate, None),
            "CET +3563 s from the grandmaster's time, +3600 s at second 1806195637 of it"
        );
        let absurd = AlternateTimeOffset {
            current_offset_s: i32::MIN,
            next_jump_s: u64::MAX >> 16,
            ..alternate
        };
        for utc_offset in [None, Some(37), Some(i64::from(i32::MIN))] {
            assert!(text(&absurd, utc_offset).contains("CET"));
        }
    }

    #[test]
    fn a_missing_database_a_missing_zone_and_a_broken_file_are_told_apart() {
        let directory = tempfile::tempdir().unwrap();
        let (there, name) = (directory.path(), ["Europe/Berlin".parse().unwrap()]);
        let missing = Zones::open(&name, &there.join("nowhere")).unwrap_err();
        assert!(
            matches!(missing, ZoneError::NoDatabase(_)) && missing.to_string().contains("tzdata")
        );
        let missing = Zones::open(&name, there).unwrap_err();
        assert!(matches!(missing, ZoneError::NoZone { .. }), "{missing}");
        fs::create_dir(there.join("Europe")).unwrap();
        fs::write(there.join("Europe/Berlin"), "no zone").unwrap();
        let broken = Zones::open(&name, there).unwrap_err();
        assert!(matches!(broken, ZoneError::Broken { .. }), "{broken}");
        // A directory is no zone.
        let missing = Zones::open(&["Europe".parse().unwrap()], there).unwrap_err();
        assert!(matches!(missing, ZoneError::NoZone { .. }), "{missing}");
    }

    #[test]
    fn no_name_leads_out_of_the_database() {
        for name in
            ["../../etc/shadow", "/etc/localtime", "Europe//Berlin", "", "Europe/Ber lin", "a\0"]
        {
            assert!(name.parse::<ZoneName>().is_err(), "{name:?}");
        }
        for name in ["UTC", "America/Argentina/Buenos_Aires", "Etc/GMT+5"] {
            assert!(name.parse::<ZoneName>().is_ok(), "{name}");
        }
    }
}
