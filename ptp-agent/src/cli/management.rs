//! What may be set and watched through the management socket and beside it: the options, and what the file says of them.

use std::path::PathBuf;

use clap::Args;

use super::config::Config;
use crate::{
    agent::{managing::Monitoring, services::Serving},
    publish::management::Access,
};

/// The options of every port. Their places in the configuration are before the first table.
#[derive(Clone, Debug, Default, Args)]
pub(super) struct MonitoringArgs {
    /// Answer NetSync Monitors (linuxptp's nsm), who ask for time and data sets in a unicast Delay_Req, within the
    /// interfaces' networks: true or false (default).
    #[arg(long, num_args = 0..=1, default_missing_value = "true", value_name = "BOOL")]
    net_sync_monitor: Option<bool>,
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
        Monitoring { net_sync, slave_events: None }
    }
}

/// Whether pmc may change something.
pub(super) fn permit(serving: &mut Serving, may_set: Option<bool>) {
    if may_set.unwrap_or(false) {
        serving.management_access = Access::ReadWrite;
    }
}
