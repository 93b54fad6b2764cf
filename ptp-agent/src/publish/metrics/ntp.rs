//! Servers of NTP that are asked.

use super::family::{
    Families, NTP_ANSWERING, NTP_DELAY, NTP_EXCHANGES, NTP_NTS, NTP_NTS_STATE, NTP_OFFSET,
    NTP_ROOT_DISTANCE, NTP_STRATUM,
};
use crate::engine::ntp::nts::NtsState;

/// What is known of a server of NTP.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct NtpFigures {
    /// Server minus clock at the latest exchange.
    pub offset_seconds: Option<f64>,
    /// Round trip of the latest exchange.
    pub delay_seconds: Option<f64>,
    /// How far it is from its source at the most, by its own words.
    pub root_distance_seconds: Option<f64>,
    /// Its stratum.
    pub stratum: Option<u8>,
    /// Requests sent.
    pub requests: u64,
    /// Exchanges completed.
    pub exchanges: u64,
    /// Whether it answers; not known of those that only others ask.
    pub is_answering: Option<bool>,
    /// How it is protected, where it is asked with NTS.
    pub nts: Option<NtsFigures>,
}

/// How a server of NTP is protected.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct NtsFigures {
    /// Whether there are keys.
    pub state: NtsState,
    /// Key exchanges that gave keys.
    pub key_exchanges: u64,
    /// Key exchanges that gave none.
    pub failures: u64,
    /// Refusals of cookies.
    pub naks: u64,
    /// Answers that were not authentic, or not to what was asked.
    pub refused: u64,
}

/// All families of them.
pub(super) fn add<'a>(
    families: &mut Families,
    servers: impl Iterator<Item = (&'a String, &'a NtpFigures)>,
) {
    for (server, figures) in servers {
        let label = [("server", server.as_str())];
        for (family, value) in [
            (&NTP_OFFSET, figures.offset_seconds),
            (&NTP_DELAY, figures.delay_seconds),
            (&NTP_ROOT_DISTANCE, figures.root_distance_seconds),
            (&NTP_STRATUM, figures.stratum.map(f64::from)),
        ] {
            value.into_iter().for_each(|value| families.add(family, &label, value));
        }
        for (what, total) in [("sent", figures.requests), ("answered", figures.exchanges)] {
            families.add(&NTP_EXCHANGES, &[label[0], ("outcome", what)], total as f64);
        }
        if let Some(is_answering) = figures.is_answering {
            families.add(&NTP_ANSWERING, &label, f64::from(u8::from(is_answering)));
        }
        let Some(nts) = figures.nts else { continue };
        for state in NtsState::ALL {
            let is_it = f64::from(u8::from(state == nts.state));
            families.add(&NTP_NTS_STATE, &[label[0], ("state", state.name())], is_it);
        }
        for (what, total) in [
            ("keys", nts.key_exchanges),
            ("no_keys", nts.failures),
            ("nak", nts.naks),
            ("refused", nts.refused),
        ] {
            families.add(&NTP_NTS, &[label[0], ("outcome", what)], total as f64);
        }
    }
}
