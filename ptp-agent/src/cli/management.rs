//! What may be set and watched through the management socket and beside it: the options, and what the file says of them.

use std::{path::PathBuf, str::FromStr};

use clap::Args;
use serde::Deserialize;

use super::config::Config;
use crate::{
    agent::{managing::Monitoring, services::Serving},
    publish::management::{Access, Description},
};

/// The options of every port. Their places in the configuration are before the first table.
#[derive(Clone, Debug, Default, Args)]
pub(super) struct MonitoringArgs {
    /// Answer NetSync Monitors (linuxptp's nsm), who ask for time and data sets in a unicast Delay_Req, within the
    /// interfaces' networks: true or false (default).
    #[arg(long, num_args = 0..=1, default_missing_value = "true", value_name = "BOOL")]
    net_sync_monitor: Option<bool>,
    /// Answer management messages here too, for all users and whatever --management-set permits at the other socket:
    /// nothing can be changed, and what the host's interfaces are called is not told (linuxptp's uds_ro_address).
    #[arg(long, value_name = "PATH")]
    management_socket_ro: Option<PathBuf>,
    /// What management tells of this clock: name and place, 128 octets at the most (8.2.1.3.4).
    #[arg(long, value_name = "TEXT")]
    user_description: Option<UserDescription>,
}

/// The options of a clock that follows.
#[derive(Clone, Debug, Default, Args)]
pub(super) struct FollowedArgs {
    /// Let pmc change what can be changed through the management socket, which is then for this user alone.
    #[arg(long, num_args = 0..=1, default_missing_value = "true", value_name = "BOOL")]
    pub(super) management_set: Option<bool>,
    /// Send what is measured of each Sync and Delay_Req, as Signaling, to the local datagram socket here, as ptp4l
    /// does (slave_event_monitor). `observe` and pmc show it.
    #[arg(long, value_name = "PATH")]
    pub(super) slave_event_monitor: Option<PathBuf>,
}

impl MonitoringArgs {
    /// With what the file says.
    pub(super) fn monitoring(&self, config: &Config) -> Monitoring {
        let net_sync = self.net_sync_monitor.or(config.net_sync_monitor).unwrap_or(false);
        let described = self.user_description.as_ref().or(config.user_description.as_ref());
        let user_description = described.map(|text| text.0.clone()).unwrap_or_default();
        Monitoring { net_sync, slave_events: None, user_description }
    }

    /// The socket for everybody, with what the file says.
    pub(super) fn public_socket(&self, config: &Config) -> Option<PathBuf> {
        self.management_socket_ro.clone().or_else(|| config.management_socket_ro.clone())
    }
}

/// A text that is checked.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub(super) struct UserDescription(String);

impl TryFrom<String> for UserDescription {
    type Error = &'static str;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        Description::check_user(&text).map(|()| Self(text))
    }
}

impl FromStr for UserDescription {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        text.to_owned().try_into()
    }
}

/// Whether pmc may change something.
pub(super) fn permit(serving: &mut Serving, may_set: Option<bool>) {
    if may_set.unwrap_or(false) {
        serving.management_access = Access::ReadWrite;
    }
}
