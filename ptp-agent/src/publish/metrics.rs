//! The agent's Prometheus metrics. The engine counts in totals of its own, so a scrape is a snapshot
//! of plain figures: whoever runs a port sets its [`PortFigures`], and a collector turns them into
//! metric families. (The `prometheus` crate's own vectors find a series by a hash of its label
//! values without separators, which would confuse domain 10 of eth1 with domain 0 of eth11.)
//!
//! Names, units and labels are a contract. The number of series is bounded whatever arrives on the
//! wire: labels other than the domain come from closed sets, and domains are limited in number.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use prometheus::{
    Encoder, Registry, TextEncoder,
    core::{Collector, Desc},
    proto::{Counter, Gauge, LabelPair, Metric, MetricFamily, MetricType},
};
use ptp_common::wire::MessageType;

use crate::stamp::StampSource;

/// Ports (interface and domain) shown at the most.
pub const MAX_PORTS: usize = 64;

/// Values of the `state` label of `ptp_port_state`: the roles of IEEE 1588g in the order of IEEE 1588-2019 table
/// 20, in lower case.
pub const PORT_STATES: [&str; 9] = [
    "initializing",
    "faulty",
    "disabled",
    "listening",
    "pre_time_transmitter",
    "time_transmitter",
    "passive",
    "uncalibrated",
    "time_receiver",
];

/// Values of the `state` label of `ptp_servo_state`.
pub const SERVO_STATES: [&str; 4] = ["unlocked", "jump", "locked", "holdover"];

/// Which way a message or a stamped packet went.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Direction {
    /// Received.
    Rx,
    /// Transmitted.
    Tx,
}

impl Direction {
    /// The value of the `direction` label.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Rx => "rx",
            Self::Tx => "tx",
        }
    }
}

/// What became of a timestamp.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum StampOutcome {
    /// Paired with its message.
    Matched,
    /// No message came for it.
    Orphaned,
    /// A second one for the same packet and source.
    Duplicate,
    /// Came when its message had been given up.
    Late,
}

impl StampOutcome {
    /// The value of the `outcome` label.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Matched => "matched",
            Self::Orphaned => "orphaned",
            Self::Duplicate => "duplicate",
            Self::Late => "late",
        }
    }
}

/// Everything shown of one port in one domain. A figure that is `None` or absent has no series, so
/// that zero and unknown differ. Totals only grow.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct PortFigures {
    /// Local clock minus grandmaster clock, seconds.
    pub offset_from_master_seconds: Option<f64>,
    /// Mean path delay, seconds.
    pub mean_path_delay_seconds: Option<f64>,
    /// Correction applied to the clock's frequency, as a ratio (1e-6 is 1 ppm).
    pub clock_frequency_adjustment_ratio: Option<f64>,
    /// When the last sample was taken, seconds since 1970.
    pub last_sample_timestamp_seconds: Option<f64>,
    /// One of [`PORT_STATES`].
    pub port_state: Option<&'static str>,
    /// One of [`SERVO_STATES`].
    pub servo_state: Option<&'static str>,
    /// Messages received and sent.
    pub messages: BTreeMap<(Direction, MessageTypeOrd), u64>,
    /// Timestamps, by what became of them.
    pub timestamps: BTreeMap<(Direction, StampSource, StampOutcome), u64>,
    /// Exchanges, completed or given up, by the engine's name for it.
    pub exchanges: BTreeMap<&'static str, u64>,
    /// Steps of the clock.
    pub clock_steps: u64,
}

impl PortFigures {
    /// Sets the total of messages of one type and direction.
    pub fn set_messages(&mut self, direction: Direction, kind: MessageType, total: u64) {
        self.messages.insert((direction, MessageTypeOrd(kind)), total);
    }

    /// Sets the total of timestamps of one direction, source and outcome.
    pub fn set_timestamps(
        &mut self,
        direction: Direction,
        source: StampSource,
        outcome: StampOutcome,
        total: u64,
    ) {
        self.timestamps.insert((direction, source, outcome), total);
    }

    /// Sets the total of exchanges with one outcome.
    pub fn set_exchanges(&mut self, outcome: &'static str, total: u64) {
        self.exchanges.insert(outcome, total);
    }
}

/// A message type in the order of its number on the wire, as a map key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MessageTypeOrd(pub MessageType);

impl PartialOrd for MessageTypeOrd {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for MessageTypeOrd {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (self.0 as u8).cmp(&(other.0 as u8))
    }
}

/// The value of the `type` label.
pub const fn message_type_name(kind: MessageType) -> &'static str {
    match kind {
        MessageType::Sync => "sync",
        MessageType::DelayReq => "delay_req",
        MessageType::PdelayReq => "pdelay_req",
        MessageType::PdelayResp => "pdelay_resp",
        MessageType::FollowUp => "follow_up",
        MessageType::DelayResp => "delay_resp",
        MessageType::PdelayRespFollowUp => "pdelay_resp_follow_up",
        MessageType::Announce => "announce",
        MessageType::Signaling => "signaling",
        MessageType::Management => "management",
    }
}

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

    /// Takes the series of one port away.
    pub fn forget(&self, interface: &str, domain: u8) {
        let mut state = self.figures.lock();
        if let Some(domains) = state.ports.get_mut(interface) {
            domains.remove(&domain);
            if domains.is_empty() {
                state.ports.remove(interface);
            }
        }
    }

    /// Sets the total of records that did not fit into the ring of an interface's programs.
    pub fn set_ring_lost(&self, interface: &str, total: u64) {
        let mut state = self.figures.lock();
        if state.ring_lost.contains_key(interface) || state.ring_lost.len() < MAX_PORTS {
            state.ring_lost.insert(interface.to_owned(), total);
        }
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

#[derive(Default)]
struct State {
    ports: BTreeMap<String, BTreeMap<u8, PortFigures>>,
    ring_lost: BTreeMap<String, u64>,
}

#[derive(Clone)]
struct Figures {
    state: Arc<Mutex<State>>,
    descriptions: Arc<[Desc]>,
}

/// Name, help text and type of each family, in the order in which [`Collector::collect`] fills them.
const FAMILIES: [(&str, &str, MetricType); 11] = [
    ("ptp_agent_build_info", "Version of the agent; always 1.", MetricType::GAUGE),
    (
        "ptp_offset_from_master_seconds",
        "Local clock minus grandmaster clock at the last sample.",
        MetricType::GAUGE,
    ),
    (
        "ptp_mean_path_delay_seconds",
        "Mean propagation time of one way to the time transmitter.",
        MetricType::GAUGE,
    ),
    (
        "ptp_clock_frequency_adjustment_ratio",
        "Correction applied to the clock's frequency (1e-6 is 1 ppm).",
        MetricType::GAUGE,
    ),
    (
        "ptp_last_sample_timestamp_seconds",
        "Unix time of the last sample; its age tells a dead clock from a good one.",
        MetricType::GAUGE,
    ),
    ("ptp_port_state", "1 for the state that the port is in, 0 for the others.", MetricType::GAUGE),
    (
        "ptp_servo_state",
        "1 for the state that the servo is in, 0 for the others.",
        MetricType::GAUGE,
    ),
    ("ptp_messages_total", "PTP messages accepted and sent.", MetricType::COUNTER),
    (
        "ptp_timestamps_total",
        "Timestamps by where they were taken and what became of them.",
        MetricType::COUNTER,
    ),
    (
        "ptp_exchanges_total",
        "Measurements of offset and delay, completed or given up.",
        MetricType::COUNTER,
    ),
    ("ptp_clock_steps_total", "Times that the clock was stepped.", MetricType::COUNTER),
];
const RING_LOST: (&str, &str, MetricType) = (
    "ptp_ring_lost_total",
    "Timestamp records lost because the ring buffer was full.",
    MetricType::COUNTER,
);

impl Figures {
    fn new() -> Self {
        let descriptions = FAMILIES
            .iter()
            .chain([&RING_LOST])
            .map(|(name, help, _)| {
                Desc::new((*name).into(), (*help).into(), Vec::new(), Default::default())
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
        let mut build = Family::new(FAMILIES[0]);
        build.push(&[("version", env!("CARGO_PKG_VERSION"))], 1.0);
        let [mut offset, mut delay, mut frequency, mut last_sample, mut port_state] =
            [1, 2, 3, 4, 5].map(|family: usize| Family::new(FAMILIES[family]));
        let [mut servo_state, mut messages, mut timestamps, mut exchanges, mut steps] =
            [6, 7, 8, 9, 10].map(|family: usize| Family::new(FAMILIES[family]));
        let mut ring_lost = Family::new(RING_LOST);

        let state = self.lock();
        for (interface, domain, figures) in state.ports.iter().flat_map(|(interface, domains)| {
            domains.iter().map(move |(domain, figures)| (interface, domain.to_string(), figures))
        }) {
            let port = [("interface", interface.as_str()), ("domain", domain.as_str())];
            for (family, value) in [
                (&mut offset, figures.offset_from_master_seconds),
                (&mut delay, figures.mean_path_delay_seconds),
                (&mut frequency, figures.clock_frequency_adjustment_ratio),
                (&mut last_sample, figures.last_sample_timestamp_seconds),
            ] {
                if let Some(value) = value {
                    family.push(&port, value);
                }
            }
            for (family, current, states) in [
                (&mut port_state, figures.port_state, &PORT_STATES[..]),
                (&mut servo_state, figures.servo_state, &SERVO_STATES[..]),
            ] {
                let Some(current) = current else { continue };
                for state in states {
                    let value = if *state == current { 1.0 } else { 0.0 };
                    family.push(&[port[0], port[1], ("state", state)], value);
                }
            }
            for ((direction, kind), total) in &figures.messages {
                let labels = [("direction", direction.name()), ("type", message_type_name(kind.0))];
                messages.push(&[port[0], port[1], labels[0], labels[1]], *total as f64);
            }
            for ((direction, source, outcome), total) in &figures.timestamps {
                let labels = [
                    ("direction", direction.name()),
                    ("source", source.name()),
                    ("outcome", outcome.name()),
                ];
                timestamps
                    .push(&[port[0], port[1], labels[0], labels[1], labels[2]], *total as f64);
            }
            for (outcome, total) in &figures.exchanges {
                exchanges.push(&[port[0], port[1], ("outcome", outcome)], *total as f64);
            }
            steps.push(&port, figures.clock_steps as f64);
        }
        for (interface, total) in &state.ring_lost {
            ring_lost.push(&[("interface", interface)], *total as f64);
        }
        [
            build,
            offset,
            delay,
            frequency,
            last_sample,
            port_state,
            servo_state,
            messages,
            timestamps,
            exchanges,
            steps,
            ring_lost,
        ]
        .into_iter()
        .map(Family::finish)
        .collect()
    }
}

/// A metric family while it is filled.
struct Family {
    family: MetricFamily,
    kind: MetricType,
    series: Vec<Metric>,
}

impl Family {
    fn new((name, help, kind): (&str, &str, MetricType)) -> Self {
        let mut family = MetricFamily::default();
        family.set_name(name.into());
        family.set_help(help.into());
        family.set_field_type(kind);
        Self { family, kind, series: Vec::new() }
    }

    fn push(&mut self, labels: &[(&str, &str)], value: f64) {
        let labels = labels.iter().map(|(name, value)| {
            let mut label = LabelPair::default();
            label.set_name((*name).into());
            label.set_value((*value).into());
            label
        });
        let mut metric = Metric::from_label(labels.collect());
        if self.kind == MetricType::COUNTER {
            let mut counter = Counter::default();
            counter.set_value(value);
            metric.set_counter(counter);
        } else {
            let mut gauge = Gauge::default();
            gauge.set_value(value);
            metric.set_gauge(gauge);
        }
        self.series.push(metric);
    }

    fn finish(mut self) -> MetricFamily {
        self.family.set_metric(self.series);
        self.family
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{engine::PortState, servo::ServoState};
    use std::{
        io::Write,
        process::{Command, Stdio},
    };

    fn text(metrics: &Metrics) -> String {
        String::from_utf8(metrics.encode().unwrap()).unwrap()
    }

    fn filled() -> Metrics {
        let metrics = Metrics::new();
        assert!(metrics.update("veth0", 0, |figures| {
            figures.offset_from_master_seconds = Some(-1.2e-7);
            figures.mean_path_delay_seconds = Some(3e-6);
            figures.clock_frequency_adjustment_ratio = Some(-3.7e-5);
            figures.last_sample_timestamp_seconds = Some(1.7e9);
            figures.port_state = Some("time_receiver");
            figures.servo_state = Some("locked");
            for kind in MessageType::ALL {
                figures.set_messages(Direction::Rx, kind, 5);
            }
            figures.set_timestamps(Direction::Tx, StampSource::StartXmit, StampOutcome::Matched, 7);
            figures.set_exchanges("completed", 9);
            figures.clock_steps = 1;
        }));
        metrics.set_ring_lost("veth0", 3);
        metrics
    }

    #[test]
    fn promtool_has_no_complaint() {
        let child = Command::new("promtool")
            .args(["check", "metrics"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn();
        let mut child = match child {
            Ok(child) => child,
            Err(error) => {
                eprintln!("skipped: promtool cannot be started: {error}");
                return;
            }
        };
        child.stdin.take().unwrap().write_all(text(&filled()).as_bytes()).unwrap();
        let output = child.wait_with_output().unwrap();
        let complaint = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success() && complaint.is_empty(), "{complaint}");
    }

    #[test]
    fn every_family_has_help_and_a_series() {
        let text = text(&filled());
        for (name, _, _) in FAMILIES.iter().chain([&RING_LOST]) {
            assert!(text.contains(&format!("# HELP {name} ")), "{text}");
            assert!(text.contains(&format!("\n{name}{{")), "{text}");
        }
    }

    #[test]
    fn exactly_one_state_is_one() {
        let text = text(&filled());
        let ones =
            text.lines().filter(|line| line.starts_with("ptp_port_state{") && line.ends_with(" 1"));
        assert_eq!(
            ones.collect::<Vec<_>>(),
            [r#"ptp_port_state{interface="veth0",domain="0",state="time_receiver"} 1"#]
        );
        let all = text.lines().filter(|line| line.starts_with("ptp_port_state{")).count();
        assert_eq!(all, PORT_STATES.len());
    }

    #[test]
    fn states_of_engine_and_servo_are_among_the_labels() {
        for state in PortState::ALL {
            assert!(PORT_STATES.contains(&state.name()), "{}", state.name());
        }
        assert_eq!(ServoState::ALL.map(ServoState::name), SERVO_STATES);
    }

    #[test]
    fn unknown_offset_has_no_series() {
        let metrics = Metrics::new();
        metrics.update("eth0", 0, |_| {});
        assert!(!text(&metrics).contains("ptp_offset_from_master_seconds"));
    }

    #[test]
    fn ports_whose_labels_concatenate_alike_stay_apart() {
        let metrics = Metrics::new();
        metrics.update("eth1", 10, |figures| figures.clock_steps = 1);
        metrics.update("eth11", 0, |figures| figures.clock_steps = 2);
        let text = text(&metrics);
        assert!(
            text.contains(r#"ptp_clock_steps_total{interface="eth1",domain="10"} 1"#),
            "{text}"
        );
        assert!(
            text.contains(r#"ptp_clock_steps_total{interface="eth11",domain="0"} 2"#),
            "{text}"
        );
    }

    #[test]
    fn series_stay_bounded_whatever_domains_are_seen() {
        let metrics = Metrics::new();
        let accepted = (0..=255).filter(|domain| metrics.update("eth0", *domain, |_| {})).count();
        assert_eq!(accepted, MAX_PORTS);
        metrics.forget("eth0", 0);
        assert!(metrics.update("eth0", 255, |_| {}));
    }

    #[test]
    fn interface_name_cannot_break_the_format() {
        let metrics = Metrics::new();
        metrics.set_ring_lost("a\"b\\c\n", 1);
        assert!(text(&metrics).contains(r#"{interface="a\"b\\c\n"} 1"#));
    }
}
