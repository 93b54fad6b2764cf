//! Time from and to single addresses: the options, and what the file says of it.

use clap::{Args, ValueEnum};
use serde::Deserialize;

use super::{
    config::{RunSection, ServeSection},
    merge::UsageError,
    profile::Profile,
};
use crate::{
    agent::partners::Partner,
    engine::unicast::{client::ClientConfig, service::ServiceConfig},
    transport::TransportKind,
};

/// As many servers may be named.
const MAX_PARTNERS: usize = 16;

/// Options of `run`.
#[derive(Clone, Debug, Default, Args)]
pub(super) struct UnicastArgs {
    /// Ask these servers for time by unicast negotiation and follow the best of them; multicast is not heard.
    /// Names are resolved again when an address changes. Intervals are asked for as --log-sync-interval and the
    /// others say.
    #[arg(long, value_name = "HOST,...", value_delimiter = ',')]
    pub(super) unicast: Vec<Partner>,
    /// Send Delay_Req to the address of the time transmitter alone, while Announce and Sync are multicast; where it
    /// does not answer they are multicast again.
    #[arg(long, num_args = 0..=1, default_missing_value = "true", value_name = "BOOL",
          conflicts_with = "unicast")]
    pub(super) hybrid: Option<bool>,
}

/// What a run is told of it.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Unicast {
    pub(super) partners: Vec<Partner>,
    pub(super) client: Option<ClientConfig>,
    pub(super) hybrid: bool,
}

impl UnicastArgs {
    /// Whether servers are asked.
    pub(super) fn is_negotiating(&self, section: &RunSection) -> bool {
        !self.unicast.is_empty() || section.unicast.as_ref().is_some_and(|all| !all.is_empty())
    }

    /// These, or else those of the configuration.
    pub(super) fn or(
        &self,
        section: &RunSection,
        transport: TransportKind,
        profile: &Profile,
        log_intervals: [i8; 3],
    ) -> Result<Unicast, UsageError> {
        let partners = match self.unicast.is_empty() {
            true => section.unicast.clone().unwrap_or_default(),
            false => self.unicast.clone(),
        };
        let hybrid = self.hybrid.or(section.hybrid).unwrap_or(false) && self.unicast.is_empty();
        if partners.len() > MAX_PARTNERS {
            let too_many = format!("{}, at most {MAX_PARTNERS}", partners.len());
            return Err(UsageError::OutOfRange("--unicast", too_many));
        }
        if let Some(other) = partners.iter().find(|partner| !partner.fits(transport)) {
            return Err(UsageError::NoPartner(other.to_string(), transport));
        }
        let mut all = partners.iter().enumerate();
        if let Some((_, twice)) = all.find(|(at, each)| partners[..*at].contains(each)) {
            return Err(UsageError::TwiceTheSamePartner(twice.to_string()));
        }
        if partners.is_empty() && profile.is_unicast {
            let what = "it has no multicast: name servers with --unicast".to_owned();
            return Err(UsageError::AgainstProfile(profile.name, what));
        }
        let client = (!partners.is_empty()).then(|| ClientConfig {
            log_intervals,
            duration_s: section.unicast_duration.map_or(300, |given| given.get().into()),
            log_query_interval: section.unicast_query_interval.unwrap_or(0),
            ..ClientConfig::new(partners.len() as u16)
        });
        Ok(Unicast { partners, client, hybrid })
    }
}

/// What `serve` makes of those who ask for unicast messages.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum ServeUnicast {
    /// Nothing is granted to anybody.
    #[default]
    Off,
    /// They are served, beside multicast.
    Also,
    /// They are served, and there is no multicast.
    Only,
}

/// What is granted, and whether there is multicast.
pub(super) fn service(
    given: Option<ServeUnicast>,
    section: &ServeSection,
) -> (Option<ServiceConfig>, bool) {
    let unicast = given.or(section.unicast).unwrap_or_default();
    let default = ServiceConfig::default();
    let number = |given: Option<std::num::NonZeroU32>, default| given.map_or(default, u32::from);
    let config = ServiceConfig {
        max_clients: number(section.unicast_clients, default.max_clients),
        max_messages_per_second: number(
            section.unicast_messages_per_second,
            default.max_messages_per_second,
        ),
        max_clients_per_host: number(
            section.unicast_clients_per_host,
            default.max_clients_per_host,
        ),
        ..default
    };
    let is_granting = unicast != ServeUnicast::Off;
    (is_granting.then_some(config), unicast != ServeUnicast::Only)
}
