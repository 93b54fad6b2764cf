//! What is told of the partners of a port.

use ptp_common::{
    time::{Duration, Mono, Time},
    wire::PortIdentity,
};

use super::{Client, PATIENCE, State};
use crate::address::Address;

/// What a partner is at present, for status.
#[derive(Clone, Debug)]
pub struct PartnerStatus {
    /// Its address, where that is known.
    pub address: Option<Address>,
    /// Its port, once it has answered.
    pub identity: Option<PortIdentity>,
    /// In one word.
    pub state: &'static str,
    /// Intervals granted, log2 s, and for how much longer, in the order of [`Granted::ALL`].
    pub grants: [Option<(i8, Duration)>; 3],
    /// Refusals in a row.
    pub refusals: u8,
    /// Requests in a row that were not answered.
    pub unanswered: u8,
}

impl Client {
    /// How everybody stands.
    pub(crate) fn status(&self, now: Time<Mono>) -> impl Iterator<Item = PartnerStatus> + '_ {
        self.partners.iter().map(move |partner| {
            let [announce, sync, delay] = &partner.promises;
            let is_followed = self.followed.is_some() && partner.identity == self.followed;
            let state = match (partner.address, announce.granted()) {
                (None, _) => "unresolved",
                (Some(_), _) if partner.is_twin => "duplicate_identity",
                (Some(_), None) if announce.refusals > 0 => "refused",
                (Some(_), None) if announce.unanswered > PATIENCE => "unanswered",
                (Some(_), None) => "asked",
                (Some(_), Some(_)) if partner.left_until > now => "silent",
                (Some(_), Some(_)) if !is_followed => "announced",
                _ if sync.granted().is_some() && delay.granted().is_some() => "followed",
                _ => "selected",
            };
            PartnerStatus {
                address: partner.address,
                identity: partner.identity,
                state,
                grants: partner.promises.map(|promise| match promise.state {
                    State::Granted { until, log_interval, .. } => Some((log_interval, until - now)),
                    _ => None,
                }),
                refusals: partner.promises.iter().map(|each| each.refusals).max().unwrap_or(0),
                unanswered: partner.promises.iter().map(|each| each.unanswered).max().unwrap_or(0),
            }
        })
    }

    /// Whether a partner does not answer where it is, so that it may be elsewhere by now.
    pub(crate) fn is_silent(&self, number: u16, now: Time<Mono>) -> bool {
        self.partners.get(usize::from(number)).is_some_and(|partner| {
            let [announce, ..] = &partner.promises;
            partner.left_until > now
                || (announce.granted().is_none() && announce.unanswered > PATIENCE)
        })
    }
}
