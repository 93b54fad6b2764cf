//! How old a time zone database is: its version, and what it knows of leap seconds, which is held against the kernel's
//! offset of TAI. One that has missed the last leap second may have missed changes of zones too.

use std::{fmt, fs, io::Read as _, path::Path};

/// Between the epoch of NTP, by which the list counts, and 1970.
const NTP_EPOCH_S: i64 = 2_208_988_800;
/// The list has a few kilobytes, of the other file the first line is read.
const MAX_BYTES: u64 = 1 << 16;

/// See the module's paragraph. What cannot be read is unknown.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Age {
    /// As in `2025b`.
    pub version: Option<String>,
    /// TAI minus UTC since when, seconds since 1970, in order.
    offsets: Vec<(i64, i32)>,
    /// Until when no other leap second can come, seconds since 1970.
    expires_s: Option<i64>,
}

/// What is wrong with a database.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Doubt {
    /// The kernel knows of more leap seconds.
    OlderThanKernel {
        /// TAI minus UTC by the database.
        database_s: i32,
        /// By the kernel.
        kernel_s: i32,
    },
    /// The kernel knows of fewer.
    KernelIsOlder {
        /// As there.
        database_s: i32,
        /// As there.
        kernel_s: i32,
    },
    /// It says nothing of leap seconds from some time on.
    Expired,
}

impl fmt::Display for Doubt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::OlderThanKernel { database_s, kernel_s } => write!(
                f,
                "the time zone database is older than the kernel's offset of TAI: by it TAI is {database_s} s ahead of \
                 UTC, by the kernel {kernel_s} s; changes of time zones may be missing too"
            ),
            Self::KernelIsOlder { database_s, kernel_s } => write!(
                f,
                "by the time zone database TAI is {database_s} s ahead of UTC, by the kernel {kernel_s} s: one of them \
                 has not heard of a leap second"
            ),
            Self::Expired => f.write_str(
                "the time zone database's list of leap seconds has expired: is it up to date?",
            ),
        }
    }
}

impl Age {
    /// Of the database in a directory.
    pub(super) fn read(database: &Path) -> Self {
        let read = |name: &str| {
            let mut text = String::new();
            let file = fs::File::open(database.join(name)).ok()?;
            file.take(MAX_BYTES).read_to_string(&mut text).ok()?;
            Some(text)
        };
        let version = read("tzdata.zi")
            .and_then(|text| Some(text.lines().next()?.strip_prefix("# version ")?.to_owned()))
            .or_else(|| read("+VERSION").map(|text| text.trim().to_owned()));
        let version =
            version.filter(|it| it.len() <= 32 && it.chars().all(|it| it.is_ascii_graphic()));
        Self { version, ..Self::of_list(&read("leap-seconds.list").unwrap_or_default()) }
    }

    /// Of the list of leap seconds that IERS and NIST publish.
    fn of_list(list: &str) -> Self {
        let seconds = |text: &str| text.parse::<i64>().ok().map(|it| it - NTP_EPOCH_S);
        let mut age = Self::default();
        for line in list.lines() {
            if let Some(expires) = line.strip_prefix("#@") {
                age.expires_s = seconds(expires.trim());
            } else if !line.starts_with('#') {
                let mut words = line.split_whitespace();
                let since = words.next().and_then(seconds);
                let offset = words.next().and_then(|text| text.parse().ok());
                age.offsets.extend(since.zip(offset));
            }
        }
        age
    }

    /// What is wrong with it at a time of UTC, seconds since 1970, where the kernel's offset of TAI is this; 0 where it
    /// does not know one.
    pub fn doubt(&self, utc_s: i64, kernel_s: i32) -> Option<Doubt> {
        let past = self.offsets.iter().take_while(|(since, _)| *since <= utc_s);
        let database_s = past.last().map(|(_, offset)| *offset);
        match database_s.filter(|_| kernel_s != 0) {
            Some(database_s) if database_s < kernel_s => {
                Some(Doubt::OlderThanKernel { database_s, kernel_s })
            }
            Some(database_s) if database_s > kernel_s => {
                Some(Doubt::KernelIsOlder { database_s, kernel_s })
            }
            _ => self.expires_s.is_some_and(|expires| expires < utc_s).then_some(Doubt::Expired),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIST: &str = "#$\t3945196800\n#@\t3991766400\n2272060800\t10\t# 1 Jan 1972\n\
                        3644697600\t36\t# 1 Jul 2015\n3692217600\t37\t# 1 Jan 2017\n";
    const YEAR_2026: i64 = 1_780_000_000;

    #[test]
    fn database_that_has_missed_a_leap_second_is_older_than_the_kernel() {
        let age = Age::of_list(LIST);
        assert_eq!(age.doubt(YEAR_2026, 37), None);
        // A kernel that knows nothing is no reason to doubt.
        assert_eq!(age.doubt(YEAR_2026, 0), None);
        let doubt = age.doubt(YEAR_2026, 38).unwrap();
        assert_eq!(doubt, Doubt::OlderThanKernel { database_s: 37, kernel_s: 38 });
        assert!(doubt.to_string().contains("older than the kernel"));
        assert_eq!(
            age.doubt(YEAR_2026, 36),
            Some(Doubt::KernelIsOlder { database_s: 37, kernel_s: 36 })
        );
        // A leap second to come counts when it has come.
        assert_eq!(age.doubt(1_450_000_000, 36), None);
        assert_eq!(age.doubt(3_991_766_401 - NTP_EPOCH_S, 37), Some(Doubt::Expired));
    }

    #[test]
    fn a_list_of_rubbish_says_nothing() {
        for list in ["", "#@ x\n1 2\n", "a b\n\n3 \n#@9999999999999999999999"] {
            assert_eq!(Age::of_list(list).doubt(YEAR_2026, 0), None, "{list:?}");
        }
    }
}
