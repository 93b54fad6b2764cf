//! How the links of a run are measured and what is said of them: the configuration, and for the snapshot what is known of links
//! and, with IEEE 802.1AS, of the grandmaster's time.

use std::{collections::BTreeMap, io};

use super::super::link_server::{AskedLinks, LinkServer};
use crate::{
    engine::{
        PortIndex,
        config::{LinkDelayService, LockedIntervals, PortConfig},
        contention::RelayTime,
        instance::Instance,
        link::Link,
    },
    publish::{
        metrics::LinkMetrics,
        snapshot::{Gptp, LinkStatus},
    },
};
use ptp_common::time::Duration;

/// Of all links, unless a port says otherwise.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LinkSettings {
    /// In whose name they are measured.
    pub service: LinkDelayService,
    /// Who is asked, where another program measures them.
    pub server: Option<LinkServer>,
    /// What is asked for while the clock is locked.
    pub when_locked: Option<LockedIntervals>,
    /// Interval of Pdelay_Req, log2 s.
    pub log_min_pdelay_req_interval: i8,
}

impl LinkSettings {
    /// A port whose own settings are `own`, with these.
    pub(super) fn on(&self, own: Option<LinkDelayService>, port: PortConfig) -> PortConfig {
        PortConfig {
            link_delay: own.unwrap_or(self.service),
            when_locked: self.when_locked,
            log_min_pdelay_req_interval: self.log_min_pdelay_req_interval,
            ..port
        }
    }
}

impl LinkSettings {
    /// Asks who measures links of `instance`, where somebody does.
    pub(super) fn asked(&self, instance: &Instance) -> io::Result<Option<AskedLinks>> {
        let is_told = |port: &PortIndex| {
            instance.port_config(*port).is_some_and(|port| port.link_delay.is_told())
        };
        let ports = instance.ports().filter(is_told);
        let ports = ports.map(|port| (port, instance.header_of_port(port).source_port_identity));
        self.server.clone().map(|server| AskedLinks::open(server, ports)).transpose()
    }
}

/// What is known of a link.
pub(super) fn status(instance: &Instance, port: PortIndex, link: Option<&Link>) -> LinkStatus {
    let service = instance.port_config(port).map(|port| port.link_delay).unwrap_or_default();
    LinkStatus {
        neighbor_rate_ppb: link.and_then(Link::neighbor_rate_ratio).map(ppb),
        as_capable_changes: link
            .filter(|it| it.is_capable().is_some())
            .map(Link::capability_changes),
        link_delay_service: match service {
            LinkDelayService::Instance => None,
            LinkDelayService::Common => Some("common".to_owned()),
            LinkDelayService::Told => Some("told".to_owned()),
        },
    }
}

/// The same for metrics.
pub(super) fn figures(link: Option<&Link>) -> LinkMetrics {
    let capable = link.and_then(Link::is_capable);
    LinkMetrics {
        delay_seconds: link.and_then(Link::mean_link_delay).map(Duration::as_secs_f64),
        neighbor_rate_ratio: link.and_then(Link::neighbor_rate_ratio).map(|ratio| ratio - 1.0),
        is_capable: capable,
        capable_changes: capable.and(link).map(Link::capability_changes),
    }
}

/// Which links are capable, as it was told last.
#[derive(Debug, Default)]
pub(super) struct Told(BTreeMap<u16, bool>);

impl Told {
    /// Tells the log where that has changed.
    pub(super) fn tell(&mut self, interface: &str, port: PortIndex, link: Option<&Link>) {
        let Some((link, is_capable)) = link.and_then(|it| Some((it, it.is_capable()?))) else {
            return;
        };
        if self.0.insert(port.0, is_capable).unwrap_or(false) == is_capable {
            return;
        }
        let link_delay_ns = link.mean_link_delay().map(Duration::as_nanos);
        if is_capable {
            tracing::info!(interface, link_delay_ns, "link is asCapable");
        } else {
            tracing::warn!(interface, link_delay_ns, "link is not asCapable any more");
        }
    }
}

/// What is known of the grandmaster's time beside the time.
pub(super) fn gptp(instance: &Instance) -> Option<Gptp> {
    let relay = instance.relay_time().map(|relay| match relay {
        RelayTime::Residence => "residence".to_owned(),
        RelayTime::Clock => "clock".to_owned(),
    });
    let time = instance.grandmaster_time();
    let known = Gptp {
        relay,
        grandmaster_rate_ppb: time.map(|time| ppb(time.rate_ratio)),
        time_base_indicator: time.map(|time| time.time_base_indicator),
        last_phase_change_ns: time.map(|time| time.last_phase_change.as_nanos()),
    };
    (known != Gptp::default()).then_some(known)
}

fn ppb(ratio: f64) -> f64 {
    (ratio - 1.0) * 1e9
}
