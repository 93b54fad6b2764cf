//! The agent's Prometheus metrics. The engine counts in totals of its own, so a scrape is a snapshot
//! of plain figures: whoever runs a port sets its [`PortFigures`], and a collector turns them into
//! metric families. (The `prometheus` crate's own vectors find a series by a hash of its label
//! values without separators, which would confuse domain 10 of eth1 with domain 0 of eth11.)
//!
//! Names, units and labels are a contract. The number of series is bounded whatever arrives on the
//! wire: labels other than the domain come from closed sets, and domains are limited in number.

mod family;
mod figures;
mod histogram;
mod link;
mod management;
mod ntp;
mod pulse;
mod synce;
mod transparent;
mod unicast;

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use prometheus::{
    Encoder, Registry, TextEncoder,
    core::{Collector, Desc},
    proto::MetricFamily,
};

pub use family::FAMILIES;
pub use figures::{
    CapturePoint, Direction, HostClock, MAX_PARENTS, PORT_STATES, Parent, PortFigures,
    SERVO_STATES, STRATEGIES, StampOutcome, UnicastFigures, message_type_name,
};
pub use histogram::{DIFFERENCE_BOUNDS, Histogram};
pub use link::LinkMetrics;
pub use ntp::{NtpFigures, NtsFigures};
pub use pulse::PulseFigures;
pub use synce::SyncEFigures;
pub use transparent::{Forwarding, Way};

use super::snapshot::{Following, Named, Snapshot};
use crate::{
    engine::{PortState, strategy::Strategy},
    servo::ServoState,
};
use family::{
    ALARM, ANSWERS, BUILD_INFO, CAUSAL_INTERVAL, ERROR_BOUND, EXCHANGES, FREQUENCY, Families,
    HOST_OFFSET, HOST_OFFSET_BOUND, HOST_READ_AT, LAST_SAMPLE, MESSAGES, NTP_REQUESTS, OFFSET,
    PARENT, PATH_DELAY, PORT_STATE, PRECISION, PRIMING, RING_LOST, SERVERS, SERVO_STATE,
    SOURCE_SELECTED, SOURCES, STEPS, STRATEGY, TIMESTAMP_DIFFERENCE, TIMESTAMP_NOISE,
    TIMESTAMP_SOURCE, TIMESTAMPS,
};

/// Ports (interface and domain) shown at the most.
pub const MAX_PORTS: usize = 64;

/// All metrics of a process. Clones share them.
#[derive(Clone)]
pub struct Metrics {
    registry: Registry,
    figures: Figures,
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
    }
}

impl Metrics {
    /// Metrics of a process that has no port yet.
    pub fn new() -> Self {
        let figures = Figures::new();
        let registry = Registry::new();
        registry
            .register(Box::new(figures.clone()))
            .expect("the only collector of a new registry cannot clash");
        Self { registry, figures }
    }

    /// Changes the figures of one port, which are made when it is named for the first time. Returns
    /// false, and changes nothing, for a port beyond [`MAX_PORTS`].
    pub fn update(
        &self,
        interface: &str,
        domain: u8,
        change: impl FnOnce(&mut PortFigures),
    ) -> bool {
        let mut state = self.figures.lock();
        let ports = state.ports.values().map(BTreeMap::len).sum::<usize>();
        let known = state.ports.get_mut(interface).and_then(|domains| domains.get_mut(&domain));
        if let Some(figures) = known {
            change(figures);
        } else if ports < MAX_PORTS {
            let domains = state.ports.entry(interface.to_owned()).or_default();
            change(domains.entry(domain).or_default());
        } else {
            return false;
        }
        true
    }

    /// Shows the states that a snapshot has of the ports of this agent.
    pub fn show(&self, snapshot: &Snapshot) {
        let Some(domain) = snapshot.domain else { return };
        let Following { servo_state, strategy, .. } = &snapshot.following;
        for port in &snapshot.ports {
            let (Some(interface), Some(state)) = (&port.interface, &port.state) else { continue };
            self.update(interface, domain, |figures| {
                figures.port_state = state.known();
                figures.servo_state = servo_state.as_ref().and_then(Named::known);
                figures.strategy = strategy.as_ref().and_then(|it| it.name.known());
                figures.priming = port.stamped.sources.as_ref().map(|sources| sources.primed);
            });
        }
    }

    /// Takes the series of one port away.
    #[cfg(test)]
    fn forget(&self, interface: &str, domain: u8) {
        let mut state = self.figures.lock();
        if let Some(domains) = state.ports.get_mut(interface) {
            domains.remove(&domain);
            if domains.is_empty() {
                state.ports.remove(interface);
            }
        }
    }

    /// Sets the total of records that did not fit into the ring, which all interfaces share.
    pub fn set_ring_lost(&self, total: u64) {
        self.figures.lock().ring_lost = Some(total);
    }

    /// Sets every alarm that can be raised here to raised or not.
    pub fn set_alarms(&self, alarms: impl IntoIterator<Item = (&'static str, bool)>) {
        self.figures.lock().alarms = alarms.into_iter().collect();
    }

    /// Sets what is known of the sources of time.
    pub fn set_sources(&self, sources: SourceFigures) {
        self.figures.lock().sources = Some(sources);
    }

    /// Sets what became of requests of NTP that came here.
    pub fn set_ntp_requests(&self, requests: BTreeMap<&'static str, u64>) {
        self.figures.lock().ntp_requests = requests;
    }

    /// Sets what is known of the servers of NTP that are asked, by name.
    pub fn set_ntp_servers(&self, servers: BTreeMap<String, NtpFigures>) {
        self.figures.lock().ntp_servers = servers;
    }

    /// Sets what is known of synchronous Ethernet.
    pub fn set_synce(&self, figures: SyncEFigures) {
        self.figures.lock().synce = figures;
    }

    /// Sets what is known of a pulse per second.
    pub fn set_pulse(&self, pulse: Option<PulseFigures>) {
        self.figures.lock().pulse = pulse;
    }

    /// Sets what a transparent clock has done on its ports, by interface. Those beyond [`MAX_PORTS`] are not
    /// shown.
    pub fn set_forwarding(&self, forwarding: BTreeMap<String, Forwarding>) {
        self.figures.lock().forwarding = forwarding;
    }

    /// Everything in Prometheus' text format.
    ///
    /// # Errors
    /// When the encoder refuses a family.
    pub fn encode(&self) -> prometheus::Result<Vec<u8>> {
        let mut text = Vec::new();
        // A family without a series would be a bare HELP line; the encoder refuses it.
        let families: Vec<_> = self
            .registry
            .gather()
            .into_iter()
            .filter(|family| !family.get_metric().is_empty())
            .collect();
        TextEncoder::new().encode(&families, &mut text)?;
        Ok(text)
    }
}

/// How many sources of time there are, and which is followed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SourceFigures {
    /// Can be right together.
    pub agreeing: u64,
    /// Cannot be right if those are.
    pub contradicting: u64,
    /// Not known well enough.
    pub unknown: u64,
    /// What is followed, and its domain.
    pub followed: Option<(&'static str, u8)>,
    /// Servers that are asked and answer, and those that do not.
    pub servers: [u64; 2],
}

#[derive(Default)]
struct State {
    ports: BTreeMap<String, BTreeMap<u8, PortFigures>>,
    ring_lost: Option<u64>,
    alarms: BTreeMap<&'static str, bool>,
    forwarding: BTreeMap<String, Forwarding>,
    sources: Option<SourceFigures>,
    ntp_requests: BTreeMap<&'static str, u64>,
    ntp_servers: BTreeMap<String, NtpFigures>,
    synce: SyncEFigures,
    pulse: Option<PulseFigures>,
    management: Option<super::management::ManagementFigures>,
}

#[derive(Clone)]
struct Figures {
    state: Arc<Mutex<State>>,
    descriptions: Arc<[Desc]>,
}

impl Figures {
    fn new() -> Self {
        let descriptions = FAMILIES
            .iter()
            .map(|family| {
                Desc::new(family.name.into(), family.help.into(), Vec::new(), Default::default())
                    .expect("name and help are constants that a test checks")
            })
            .collect();
        Self { state: Arc::default(), descriptions }
    }

    /// The state, even if a thread has panicked while it held the lock: its figures are plain values.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Collector for Figures {
    fn desc(&self) -> Vec<&Desc> {
        self.descriptions.iter().collect()
    }

    fn collect(&self) -> Vec<MetricFamily> {
        let mut families = Families::default();
        families.add(&BUILD_INFO, &[("version", env!("CARGO_PKG_VERSION"))], 1.0);
        let state = self.lock();
        for (interface, domains) in &state.ports {
            for (domain, figures) in domains {
                add_port(&mut families, interface, &domain.to_string(), figures);
            }
        }
        if let Some(total) = state.ring_lost {
            families.add(&RING_LOST, &[], total as f64);
        }
        for (interface, forwarding) in state.forwarding.iter().take(MAX_PORTS) {
            forwarding.add(interface, &mut families);
        }
        if let Some(sources) = state.sources {
            for (standing, number) in [
                ("agreeing", sources.agreeing),
                ("contradicting", sources.contradicting),
                ("unknown", sources.unknown),
            ] {
                families.add(&SOURCES, &[("standing", standing)], number as f64);
            }
            for (state, number) in ["answering", "silent"].into_iter().zip(sources.servers) {
                families.add(&SERVERS, &[("state", state)], number as f64);
            }
            if let Some((source, domain)) = sources.followed {
                let domain = domain.to_string();
                families.add(&SOURCE_SELECTED, &[("source", source), ("domain", &domain)], 1.0);
            }
        }
        for (outcome, total) in &state.ntp_requests {
            families.add(&NTP_REQUESTS, &[("outcome", outcome)], *total as f64);
        }
        ntp::add(&mut families, state.ntp_servers.iter().take(MAX_PORTS));
        state.synce.add(&mut families);
        if let Some(pulse) = &state.pulse {
            pulse.add(&mut families);
        }
        management::add(&mut families, state.management.as_ref());
        for (alarm, raised) in &state.alarms {
            families.add(&ALARM, &[("alarm", alarm)], f64::from(*raised));
        }
        families.finish()
    }
}

fn add_port(families: &mut Families, interface: &str, domain: &str, figures: &PortFigures) {
    let port = [("interface", interface), ("domain", domain)];
    for (family, value) in [
        (&OFFSET, figures.offset_from_master_seconds),
        (&PATH_DELAY, figures.mean_path_delay_seconds),
        (&FREQUENCY, figures.clock_frequency_adjustment_ratio),
        (&ERROR_BOUND, figures.clock_error_bound_seconds),
        (&PRECISION, figures.clock_precision_seconds),
        (&LAST_SAMPLE, figures.last_sample_timestamp_seconds),
        (&HOST_OFFSET, figures.host_clock.map(|clock| clock.offset_seconds)),
        (&HOST_OFFSET_BOUND, figures.host_clock.map(|clock| clock.bound_seconds)),
        (&HOST_READ_AT, figures.host_clock.map(|clock| clock.read_at_seconds)),
    ] {
        if let Some(value) = value {
            families.add(family, &port, value);
        }
    }
    for (end, value) in
        ["lo", "hi"].into_iter().zip(figures.causal_interval_seconds.iter().flatten())
    {
        families.add(&CAUSAL_INTERVAL, &[port[0], port[1], ("end", end)], *value);
    }
    if let Some(Parent { grandmaster, port: parent }) = &figures.parent {
        let labels = [("grandmaster", grandmaster.as_str()), ("parent", parent.as_str())];
        families.add(&PARENT, &[port[0], port[1], labels[0], labels[1]], 1.0);
    }
    for (family, label, current, states) in [
        (&PORT_STATE, "state", figures.port_state.map(PortState::name), &PORT_STATES[..]),
        (&SERVO_STATE, "state", figures.servo_state.map(ServoState::name), &SERVO_STATES[..]),
        (&STRATEGY, "strategy", figures.strategy.map(Strategy::name), &STRATEGIES[..]),
    ] {
        let Some(current) = current else { continue };
        for state in states {
            let labels = [port[0], port[1], (label, *state)];
            families.add(family, &labels, f64::from(*state == current));
        }
    }
    for ((direction, kind), total) in &figures.messages {
        let labels = [("direction", direction.name()), ("type", message_type_name(*kind))];
        families.add(&MESSAGES, &[port[0], port[1], labels[0], labels[1]], *total as f64);
    }
    for ((direction, source, outcome), total) in &figures.timestamps {
        let labels = [
            port[0],
            port[1],
            ("direction", direction.name()),
            ("source", source.name()),
            ("outcome", outcome.name()),
        ];
        families.add(&TIMESTAMPS, &labels, *total as f64);
    }
    for ((direction, source), point) in &figures.capture_points {
        let labels = [("direction", direction.name()), ("source", source.name())];
        let labels = [port[0], port[1], labels[0], labels[1]];
        families.add(&TIMESTAMP_SOURCE, &labels, f64::from(point.is_chosen));
        if let Some(noise) = point.noise_seconds {
            families.add(&TIMESTAMP_NOISE, &labels, noise);
        }
    }
    if let Some(primed) = figures.priming {
        families.add(&PRIMING, &port, f64::from(primed));
    }
    for (outcome, total) in &figures.exchanges {
        families.add(&EXCHANGES, &[port[0], port[1], ("outcome", outcome)], *total as f64);
    }
    for ((place, outcome), total) in &figures.answers {
        let labels = [("where", *place), ("outcome", *outcome)];
        families.add(&ANSWERS, &[port[0], port[1], labels[0], labels[1]], *total as f64);
    }
    unicast::add(families, &port, &figures.unicast);
    figures.link.add(families, &port);
    families.add(&STEPS, &port, figures.clock_steps as f64);
    for ((direction, source), histogram) in &figures.timestamp_differences {
        let labels = [("direction", direction.name()), ("source", source.name())];
        let labels = [port[0], port[1], labels[0], labels[1]];
        families.add_histogram(&TIMESTAMP_DIFFERENCE, &labels, histogram);
    }
}

#[cfg(test)]
mod tests;
