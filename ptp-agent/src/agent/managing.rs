//! What the commands that keep time do for management: what has been set is done, what happens is told, and what the
//! engine does not know of the clock is looked up now and then.

use std::net::{IpAddr, SocketAddr};

use ptp_common::{
    time::{Duration, Mono, Time},
    wire::{
        PortIdentity,
        management::{ManagementData, ManagementEvent, NetworkProtocol, PortCorrections},
    },
};

use super::{
    data_sets::{self, About},
    io::{Io, IoConfig},
};
use crate::{
    answers::own_networks,
    capture::Latencies,
    clock::Clock,
    engine::{
        Change, PortIndex,
        address::Address,
        discipline::{Discipline, Sample},
        instance::Instance,
        link::Link,
        node::PortCommand,
        prefix::Prefix,
    },
    publish::{
        http::Publication,
        management::{
            DataSets, Description, Desk, Happening, Place, PortSetting, Setting, power_profile,
        },
    },
    transport::{TransportKind, interface_addresses, interface_mac},
};

/// Addresses of interfaces change seldom.
const LOOK: Duration = Duration::from_secs(10);

/// How a command may be managed and monitored, beside its sockets.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Monitoring {
    /// Whether it answers NetSync Monitors.
    pub net_sync: bool,
    /// Where messages of slave event monitoring go.
    pub slave_events: Option<std::path::PathBuf>,
    /// `userDescription`.
    pub user_description: String,
}

/// See the module's paragraph.
pub(super) struct Managing {
    pub(super) about: About,
    io: IoConfig,
    phc_index: Option<i32>,
    is_monitored: bool,
    looked_at: Option<Time<Mono>>,
    desk: Desk,
}

/// What else a setting is for than for the instance.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Rest {
    /// Between stamps and wire, of all ports.
    Latencies {
        /// Between the wire and a receive stamp.
        ingress: Duration,
        /// Between a transmit stamp and the wire.
        egress: Duration,
    },
    /// A port or its link.
    Port(PortIndex, PortCommand),
}

impl Managing {
    pub(super) fn new(
        io: &IoConfig,
        phc_index: Option<i32>,
        monitoring: &Monitoring,
        publication: &Publication,
    ) -> Self {
        let user = monitoring.user_description.clone();
        let description = Description { user, ..Description::own() };
        let about = About { description, ..About::default() };
        let desk = publication.management.clone();
        let is_monitored = monitoring.net_sync;
        Self { about, io: io.clone(), phc_index, is_monitored, looked_at: None, desk }
    }

    /// Looks up what the engine does not know; whether it may be monitored is said to `instance`.
    pub(super) fn look(&mut self, now: Time<Mono>, io: &Io, instance: &mut Instance) {
        self.about.latencies = (io.egress_latency(), io.ingress_latency());
        if self.looked_at.is_some_and(|at| now - at < LOOK) {
            return;
        }
        self.looked_at = Some(now);
        let interfaces = &self.io.interfaces;
        self.about.places = interfaces
            .iter()
            .map(|name| place(name, self.io.transport_of(name), self.phc_index))
            .collect();
        if self.is_monitored {
            let networks: Vec<Prefix> = own_networks(interfaces);
            let own = interfaces.iter().map(|name| own_address(name, self.io.transport_of(name)));
            instance.set_monitored(now, Some(networks), own.collect());
        }
    }

    /// Does to `instance` and `io` what has been set, and returns what is for ports.
    pub(super) fn carry_out(
        &mut self,
        now: Time<Mono>,
        io: &mut Io,
        instance: &mut Instance,
    ) -> Vec<(PortIndex, PortCommand)> {
        let mut of_ports = Vec::new();
        for setting in self.desk.take_settings() {
            for each in carry_out(setting, now, instance, &mut self.about) {
                match each {
                    Rest::Port(port, command) => of_ports.push((port, command)),
                    Rest::Latencies { ingress, egress } => {
                        let (ingress, egress) = (ingress.as_nanos(), egress.as_nanos());
                        if (ingress, egress)
                            != (io.ingress_latency().as_nanos(), io.egress_latency().as_nanos())
                        {
                            io.set_latencies(Latencies::of_all(ingress), Latencies::of_all(egress));
                        }
                    }
                }
            }
        }
        of_ports
    }

    /// A port's state or the parent has changed.
    pub(super) fn changed(&self, change: &Change, sets: impl FnOnce() -> DataSets) {
        let (event, port) = match change {
            Change::PortState { port, .. } => (ManagementEvent::PortState, Some(*port)),
            Change::Parent(_) => (ManagementEvent::ParentDataSet, None),
        };
        let is_asked = self.desk.data_sets().is_some();
        if !is_asked {
            return;
        }
        let sets = sets();
        let data = match port {
            None => Some((0, ManagementData::Parent(sets.parent))),
            Some(port) => sets
                .ports
                .get(usize::from(port.0))
                .map(|sets| (port.number(), ManagementData::Port(sets.data))),
        };
        self.desk.set_data_sets(sets);
        if let Some((port_number, data)) = data {
            self.desk.happen(Happening { event, port_number, data });
        }
    }

    /// A time has been measured.
    pub(super) fn sampled<C: Clock>(&self, client: &Discipline<C>, sample: &Sample) {
        if self.desk.wants(ManagementEvent::TimeSync) {
            let status = data_sets::time_status(client, Some(sample));
            self.desk.update(|sets| sets.time_status = status);
            let data = ManagementData::TimeStatus(status);
            self.desk.happen(Happening { event: ManagementEvent::TimeSync, port_number: 0, data });
        }
    }

    /// A link has been measured.
    pub(super) fn link_measured(&self, port: PortIndex, link: Option<&Link>) {
        let Some(link) = link.filter(|_| self.desk.wants(ManagementEvent::Cmlds)) else { return };
        let data = ManagementData::Cmlds(data_sets::cmlds_info(
            link.mean_link_delay().unwrap_or(Duration::ZERO).into(),
            link.neighbor_rate_ratio(),
            link.is_capable().unwrap_or(true),
        ));
        let (event, port_number) = (ManagementEvent::Cmlds, port.number());
        self.desk.happen(Happening { event, port_number, data });
    }
}

/// Does to `instance` what has been set, and returns what is for others, port by port.
pub fn carry_out(
    setting: Setting,
    now: Time<Mono>,
    instance: &mut Instance,
    about: &mut About,
) -> Vec<Rest> {
    match setting {
        Setting::Priority1(new) => {
            let priority2 = instance.config().priority2;
            instance.set_priorities(new, priority2);
        }
        Setting::Priority2(new) => {
            let priority1 = instance.config().priority1;
            instance.set_priorities(priority1, new);
        }
        Setting::Grandmaster(settings) => {
            instance.set_grandmaster(settings.clock_quality, settings.time_properties);
        }
        Setting::Uncertain(uncertain) => {
            about.uncertain = uncertain;
            instance.set_uncertain(uncertain == Some(true));
        }
        Setting::External(external) => {
            let is_any = external.identity.0 != [0; 8] || external.steps_removed != 0;
            let external = (external.identity, external.steps_removed);
            instance.set_external_grandmaster(is_any.then_some(external));
        }
        Setting::Alternates(alternates) => {
            about.alternates = alternates;
            instance.set_alternate_offsets(alternates.announced());
        }
        Setting::Port(number, setting) => {
            let all = PortIdentity::ALL.port_number;
            let ports = instance.ports().filter(|port| [all, port.number()].contains(&number));
            let ports: Vec<_> = ports.collect();
            return ports
                .into_iter()
                .flat_map(|port| set_port(now, instance, port, setting))
                .collect();
        }
    }
    Vec::new()
}

fn set_port(
    now: Time<Mono>,
    instance: &mut Instance,
    port: PortIndex,
    setting: PortSetting,
) -> Vec<Rest> {
    let told = |command| vec![Rest::Port(port, command)];
    match setting {
        PortSetting::Enabled(is_enabled) => return told(PortCommand::Enable(is_enabled)),
        PortSetting::LogAnnounceInterval(log) => instance.set_log_announce_interval(now, port, log),
        PortSetting::AnnounceReceiptTimeout(n) => instance.set_announce_receipt_timeout(port, n),
        PortSetting::LogSyncInterval(log) => instance.set_log_sync_interval(now, port, log),
        PortSetting::LogMinPdelayReqInterval(log) => return told(PortCommand::PdelayInterval(log)),
        PortSetting::NeighborThreshold(ns) => {
            return told(PortCommand::Threshold(Duration::from_nanos(ns.into())));
        }
        PortSetting::Corrections(corrections) => {
            let PortCorrections { egress_latency, ingress_latency, delay_asymmetry } = corrections;
            let (ingress, egress) = (ingress_latency.into(), egress_latency.into());
            return vec![
                Rest::Latencies { ingress, egress },
                Rest::Port(port, PortCommand::Asymmetry(delay_asymmetry.into())),
            ];
        }
        PortSetting::Power(power) => instance.set_power_profile(port, power_profile(&power)),
    }
    Vec::new()
}

fn place(interface: &str, transport: TransportKind, phc_index: Option<i32>) -> Place {
    let mac = interface_mac(interface);
    let (ipv4, ipv6) = interface_addresses(interface);
    let (protocol, protocol_address) = match transport {
        TransportKind::Udp4 => (NetworkProtocol::UDP_IPV4, ipv4.map(|it| it.octets().to_vec())),
        TransportKind::Udp6 => (NetworkProtocol::UDP_IPV6, ipv6.map(|it| it.octets().to_vec())),
        TransportKind::L2 => (NetworkProtocol::IEEE_802_3, mac.map(|mac| mac.to_vec())),
    };
    Place {
        interface: interface.to_owned(),
        physical_address: mac.map(|mac| mac.to_vec()).unwrap_or_default(),
        protocol,
        protocol_address: protocol_address.unwrap_or_default(),
        phc_index,
    }
}

fn own_address(interface: &str, transport: TransportKind) -> Option<Address> {
    let (ipv4, ipv6) = interface_addresses(interface);
    let socket = |ip: IpAddr| Address::Socket(SocketAddr::new(ip, 319));
    match transport {
        TransportKind::Udp4 => ipv4.map(|ip| socket(ip.into())),
        TransportKind::Udp6 => ipv6.map(|ip| socket(ip.into())),
        TransportKind::L2 => interface_mac(interface).map(Address::Mac),
    }
}

/// The number of a hardware clock by the name of its device.
pub(super) fn phc_index(device: &std::path::Path) -> Option<i32> {
    let name = device.file_name()?.to_str()?;
    name.strip_prefix("ptp")?.parse().ok()
}
