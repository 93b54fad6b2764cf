//! What lies between a capture point and the wire, as the user has measured it. One figure for
//! whatever point is in use, or figures for single points, which then count for these.

use std::{collections::BTreeMap, str::FromStr};

use ptp_common::time::Duration;
use serde::Deserialize;

use crate::stamp::StampSource;

/// Corrections of one direction, nanoseconds.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Latencies {
    any: Option<i64>,
    by_source: BTreeMap<StampSource, i64>,
}

/// One correction as the command line takes it: `NS` or `SOURCE=NS`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Latency {
    source: Option<StampSource>,
    nanos: i64,
}

impl Latencies {
    /// The correction for stamps of `source`.
    pub fn of(&self, source: StampSource) -> Duration {
        let nanos = self.by_source.get(&source).copied().or(self.any).unwrap_or(0);
        Duration::from_nanos(nanos)
    }

    /// The same correction for all stamps.
    pub fn of_all(nanos: i64) -> Self {
        Self { any: Some(nanos), ..Self::default() }
    }

    /// Adds what `others` say and this does not.
    #[must_use]
    pub fn or(mut self, others: &Self) -> Self {
        self.any = self.any.or(others.any);
        for (source, nanos) in &others.by_source {
            self.by_source.entry(*source).or_insert(*nanos);
        }
        self
    }
}

impl FromIterator<Latency> for Latencies {
    /// Of several for one source the last counts.
    fn from_iter<I: IntoIterator<Item = Latency>>(latencies: I) -> Self {
        let mut all = Self::default();
        for Latency { source, nanos } in latencies {
            match source {
                Some(source) => drop(all.by_source.insert(source, nanos)),
                None => all.any = Some(nanos),
            }
        }
        all
    }
}

impl FromStr for Latency {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        let (source, nanos) = match text.split_once('=') {
            Some((source, nanos)) => {
                let source = StampSource::deserialize(serde::de::value::StrDeserializer::<
                    serde::de::value::Error,
                >::new(source))
                .map_err(|_| format!("{source:?} is no capture point"))?;
                (Some(source), nanos)
            }
            None => (None, text),
        };
        let nanos = nanos.parse().map_err(|_| format!("{nanos:?} is no number of nanoseconds"))?;
        Ok(Self { source, nanos })
    }
}

/// As the file has it: `egress-latency = 120`, or `egress-latency = { xmit_done = -200 }`.
impl<'de> Deserialize<'de> for Latencies {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(untagged, expecting = "nanoseconds, or a table of capture points and nanoseconds")]
        enum File {
            Any(i64),
            BySource(BTreeMap<StampSource, i64>),
        }
        Ok(match File::deserialize(deserializer)? {
            File::Any(nanos) => Self { any: Some(nanos), ..Self::default() },
            File::BySource(by_source) => Self { any: None, by_source },
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn latencies(texts: &[&str]) -> Latencies {
        texts.iter().map(|text| text.parse::<Latency>().unwrap()).collect()
    }

    #[test]
    fn figure_of_the_point_goes_before_the_general_one() {
        let latencies = latencies(&["50", "xmit_done=-200"]);
        assert_eq!(latencies.of(StampSource::XmitDone), Duration::from_nanos(-200));
        assert_eq!(latencies.of(StampSource::StartXmit), Duration::from_nanos(50));
        assert_eq!(Latencies::default().of(StampSource::Stack), Duration::ZERO);
    }

    #[test]
    fn command_line_goes_before_the_file_point_by_point() {
        #[derive(Deserialize)]
        struct File {
            latency: Latencies,
        }
        let file: File = toml::from_str("latency = { stack = 7, xmit_done = 9 }").unwrap();
        let both = latencies(&["xmit_done=-200"]).or(&file.latency);
        assert_eq!(both.of(StampSource::Stack), Duration::from_nanos(7));
        assert_eq!(both.of(StampSource::XmitDone), Duration::from_nanos(-200));
    }

    #[test]
    fn nonsense_is_refused() {
        for text in ["", "x", "stack=", "stock=5", "=5", "5ns"] {
            assert!(text.parse::<Latency>().is_err(), "{text}");
        }
    }
}
