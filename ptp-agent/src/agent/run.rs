//! `ptp-agent run`: a time receiver that follows the best grandmaster its ports hear, with a clock
//! of its own or watching the host's.

use std::{collections::BTreeMap, time::Instant};

use ptp_common::{
    time::{Duration, Mono, Ptp, Time},
    wire::ClockIdentity,
};
use serde_json::json;

use super::{
    AgentError, Common, Ending, clock_identity, clock_line,
    io::{Delivery, Io},
    seed, set_drop_figures, set_message_figures, set_stamp_figures, stamp_counts, start_metrics,
    start_output, unix_seconds, virtual_clock,
};
use crate::{
    clock::{Clock, ClockError, ClockScale, virtual_clock::VirtualClock, watch::WatchClock},
    engine::{
        DelayMechanism, PortIndex,
        client::{Client, Event, Sample},
        receiver::{Action, PortConfig, ReceiverConfig},
    },
    publish::{
        http::Publication,
        json::{self, Output},
        metrics::Direction,
    },
    servo::{Servo, ServoState},
    sys::clock::{monotonic, realtime_minus_monotonic},
};

/// Between two looks at the counters, and two lines of text.
const HOUSEKEEPING: Duration = Duration::from_secs(1);
/// A sample is worth a healthy answer for this long.
const FRESH: std::time::Duration = std::time::Duration::from_secs(10);

/// Which clock follows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ClockChoice {
    /// None: the host's time is compared with the grandmaster's.
    #[default]
    None,
    /// A software clock over the host's monotonic clock; the host's own clocks are not touched.
    Virtual,
}

/// What `run` is told.
pub struct RunConfig {
    /// As for the other commands.
    pub common: Common,
    /// How the path delay is measured.
    pub delay_mechanism: DelayMechanism,
    /// Which clock follows.
    pub clock: ClockChoice,
    /// What steers it.
    pub servo: Box<dyn Servo>,
    /// As for [`PortConfig::delay_asymmetry`].
    pub delay_asymmetry: Duration,
}

/// The clock behind the client.
enum Followed {
    Virtual(VirtualClock),
    Watched(WatchClock),
}

impl Followed {
    fn inner(&self) -> &dyn Clock {
        match self {
            Self::Virtual(clock) => clock,
            Self::Watched(clock) => clock,
        }
    }

    fn inner_mut(&mut self) -> &mut dyn Clock {
        match self {
            Self::Virtual(clock) => clock,
            Self::Watched(clock) => clock,
        }
    }
}

impl Clock for Followed {
    fn name(&self) -> &str {
        self.inner().name()
    }
    fn scale(&self) -> ClockScale {
        self.inner().scale()
    }
    fn at(&self, mono: Time<Mono>) -> Time<Ptp> {
        self.inner().at(mono)
    }
    fn reading_error(&self) -> Duration {
        self.inner().reading_error()
    }
    fn is_adjustable(&self) -> bool {
        self.inner().is_adjustable()
    }
    fn frequency_ppb(&self) -> f64 {
        self.inner().frequency_ppb()
    }
    fn max_frequency_ppb(&self) -> f64 {
        self.inner().max_frequency_ppb()
    }
    fn set_frequency(&mut self, now: Time<Mono>, ppb: f64) -> Result<f64, ClockError> {
        self.inner_mut().set_frequency(now, ppb)
    }
    fn step(&mut self, now: Time<Mono>, by: Duration) -> Result<(), ClockError> {
        self.inner_mut().step(now, by)
    }
}

fn watched(now: Time<Mono>) -> (Time<Mono>, Time<Ptp>, Duration) {
    // Both clocks are one counter plus a constant: there is no reading error.
    (now, Time::from_epoch(now.since_epoch() + realtime_minus_monotonic()), Duration::ZERO)
}

/// Runs until it is told to end.
///
/// # Errors
/// [`AgentError`]: what the host lacks at the start, or a reader of the output that has gone.
pub async fn run(config: RunConfig) -> Result<(), AgentError> {
    let RunConfig { common, delay_mechanism, clock, servo, delay_asymmetry } = config;
    let mut ending = Ending::new(common.duration)?;
    let publication = Publication::default();
    let _server = start_metrics(common.metrics_address, &publication)?;
    let io = Io::open(common.io.clone())?;
    let output = start_output(common.json)?;
    let start = monotonic();
    let seed = seed(common.seed);
    let identity = clock_identity(&common.io.interfaces, seed);
    let ports: Vec<PortIndex> = (0..common.io.interfaces.len())
        .filter_map(|n| u16::try_from(n).ok())
        .map(PortIndex)
        .collect();
    let receiver = ReceiverConfig {
        domain_number: common.domain,
        ports: ports
            .iter()
            .map(|port| PortConfig {
                delay_mechanism,
                delay_asymmetry,
                link_up: io.is_up(*port),
                ..PortConfig::default()
            })
            .collect(),
        ..ReceiverConfig::new(identity, seed)
    };
    let followed = match clock {
        ClockChoice::Virtual => Followed::Virtual(virtual_clock(start, Duration::ZERO)),
        ClockChoice::None => {
            let (mono, local, error) = watched(start);
            Followed::Watched(WatchClock::new(ClockScale::Utc, mono, local, error))
        }
    };
    for port in &ports {
        tracing::info!(
            interface = io.interface(*port),
            domain = common.domain,
            transport = %common.io.transport,
            rx_source = io.sources(*port).map_or("?", |sources| sources.rx.name()),
            tx_source = io.sources(*port).map_or("?", |sources| sources.tx.name()),
            %identity,
            "listening"
        );
    }
    let client = Client::new(receiver, servo, followed, start);
    let mut teller = Teller {
        output,
        publication,
        ports,
        samples: 0,
        steps: 0,
        last: None,
        printed: start,
        start,
        identity,
    };
    let mut runner = Runner { io, client };
    if let (Followed::Virtual(clock), Some(output)) = (runner.client.clock(), &teller.output) {
        output.emit(&json::Event::Clock(clock_line(clock, start)))?;
    }
    let mut housekeeping = start;
    loop {
        let now = monotonic();
        if let Followed::Watched(watch) = runner.client.clock_mut() {
            let (mono, local, error) = watched(now);
            watch.update(mono, local, error);
        }
        runner.client.poll(now);
        runner.carry(&mut teller)?;
        if now >= housekeeping {
            housekeeping = now + HOUSEKEEPING;
            teller.housekeep(&runner);
        }
        if ending.is_due(now) {
            break;
        }
        let until = runner.client.next_wakeup().map_or(housekeeping, |at| at.min(housekeeping));
        let until = ending.limit(until);
        tokio::select! {
            biased;
            () = ending.signalled() => break,
            () = runner.io.wait(until) => {}
        }
    }
    teller.housekeep(&runner);
    teller.summarise(&runner)
}

struct Runner {
    io: Io,
    client: Client<Followed>,
}

impl Runner {
    /// Carries deliveries in and events out until neither side has anything.
    fn carry(&mut self, teller: &mut Teller) -> Result<(), AgentError> {
        loop {
            while let Some(event) = self.client.next_event() {
                match event {
                    Event::Engine(Action::SendEvent { port, token, peer_multicast, message }) => {
                        self.io.send_event(port, token, peer_multicast, &message);
                    }
                    Event::Engine(Action::SendGeneral { port, peer_multicast, message }) => {
                        self.io.send_general(port, peer_multicast, &message);
                    }
                    Event::Engine(Action::Measurement(measurement)) => self.io.learn(&measurement),
                    event => teller.tell(&event, self)?,
                }
            }
            let Some(delivery) = self.io.next_delivery() else {
                return Ok(());
            };
            let now = monotonic();
            match delivery {
                Delivery::Message { port, bytes, stamp } => {
                    self.client.handle_message(now, port, &bytes, stamp);
                }
                Delivery::TxStamp { token, stamp } => {
                    self.client.handle_tx_stamp(now, token, stamp);
                }
                Delivery::Link { port, up } => self.client.handle_link(now, port, up),
            }
        }
    }
}

/// Tells the world: log, standard output, metrics, status.
struct Teller {
    output: Option<Output>,
    publication: Publication,
    ports: Vec<PortIndex>,
    samples: u64,
    steps: u64,
    last: Option<Sample>,
    printed: Time<Mono>,
    start: Time<Mono>,
    identity: ClockIdentity,
}

impl Teller {
    fn tell(&mut self, event: &Event, runner: &Runner) -> Result<(), AgentError> {
        match event {
            Event::Sample(sample) => self.sample(sample, runner)?,
            Event::Adjusted { mono, stepped, .. } => {
                if let Some(by) = stepped {
                    self.steps += 1;
                    tracing::info!(by_ns = by.as_nanos(), "clock stepped");
                }
                if let (Followed::Virtual(clock), Some(output)) =
                    (runner.client.clock(), &self.output)
                {
                    output.emit(&json::Event::Clock(clock_line(clock, *mono)))?;
                }
            }
            Event::ServoState { old, new } => {
                tracing::info!(from = old.name(), to = new.name(), "servo state");
            }
            Event::ClockError(error) => tracing::warn!(%error, "clock"),
            Event::Engine(Action::PortState { port, old, new, reason }) => {
                let interface = runner.io.interface(*port);
                tracing::info!(
                    interface,
                    from = old.name(),
                    to = new.name(),
                    reason = reason.name(),
                    "port state"
                );
            }
            Event::Engine(Action::ParentChanged { parent }) => match parent {
                Some(parent) => tracing::info!(
                    grandmaster = %parent.grandmaster_identity,
                    port = %parent.parent_port_identity,
                    steps_removed = parent.steps_removed,
                    "following"
                ),
                None => tracing::warn!("no grandmaster"),
            },
            Event::Engine(_) => {}
        }
        Ok(())
    }

    fn sample(&mut self, sample: &Sample, runner: &Runner) -> Result<(), AgentError> {
        self.samples += 1;
        self.last = Some(*sample);
        let interface = runner.io.interface(sample.port);
        match &self.output {
            Some(output) => output.emit(&json::Event::Sample(json::Sample {
                interface: interface.to_owned(),
                domain: sample.domain_number,
                mono_ns: sample.mono.as_nanos(),
                offset_ns: sample.offset.as_nanos(),
                raw_offset_ns: sample.raw_offset.as_nanos(),
                delay_ns: Some(sample.delay.as_nanos()),
                frequency_ppb: sample.frequency_ppb,
                error_bound_ns: sample.error_bound.map(Duration::as_nanos),
                state: sample.state.name().into(),
                rx_source: Some(sample.rx_source.name().into()),
                tx_source: sample.tx_source.map(|source| source.name().into()),
            }))?,
            None => {
                if sample.mono - self.printed >= HOUSEKEEPING {
                    self.printed = sample.mono;
                    println!(
                        "{interface}: offset {:+} ns  delay {} ns  frequency {:+.1} ppb  {}  bound {}",
                        sample.offset.as_nanos(),
                        sample.delay.as_nanos(),
                        sample.frequency_ppb,
                        sample.state.name(),
                        sample.error_bound.map_or("unknown".to_owned(), |bound| format!(
                            "{} ns",
                            bound.as_nanos()
                        )),
                    );
                }
            }
        }
        // Samples alone are no following: before the first lock the clock may be seconds off.
        if sample.state == ServoState::Locked {
            self.publication.set_followed_until(Instant::now() + FRESH);
        }
        self.publication.metrics.update(interface, sample.domain_number, |figures| {
            figures.offset_from_master_seconds = Some(sample.offset.as_secs_f64());
            figures.mean_path_delay_seconds = Some(sample.delay.as_secs_f64());
            figures.clock_frequency_adjustment_ratio = Some(sample.frequency_ppb * 1e-9);
            figures.last_sample_timestamp_seconds = Some(unix_seconds());
        });
        Ok(())
    }

    fn housekeep(&self, runner: &Runner) {
        let receiver = runner.client.receiver();
        let domain = receiver.domain_number();
        let servo = runner.client.servo().state().name();
        for port in &self.ports {
            let interface = runner.io.interface(*port);
            let counters = receiver.counters(*port);
            let state = receiver.port_state(*port).name();
            self.publication.metrics.update(interface, domain, |figures| {
                figures.port_state = Some(state);
                figures.servo_state = Some(servo);
                figures.clock_steps = self.steps;
                set_message_figures(figures, counters);
                if let Some((rx, tx)) = runner.io.stamp_counts(*port) {
                    set_stamp_figures(figures, Direction::Rx, &rx);
                    set_stamp_figures(figures, Direction::Tx, &tx);
                }
                figures.set_exchanges("sync", counters.sync_exchanges);
                figures.set_exchanges("delay", counters.delay_exchanges);
                figures.set_exchanges("peer_delay", counters.peer_delay_exchanges);
                set_drop_figures(figures, counters, runner.io.counts(*port));
            });
            self.publication.metrics.set_ring_lost(interface, runner.io.ring_lost());
        }
        let parent = receiver.parent();
        let status = json!({
            "command": "run",
            "clock_identity": self.identity.to_string(),
            "domain": domain,
            "servo": runner.client.servo().name(),
            "servo_state": servo,
            "grandmaster": parent.map(|parent| parent.grandmaster_identity.to_string()),
            "parent_port": parent.map(|parent| parent.parent_port_identity.to_string()),
            "steps_removed": parent.map(|parent| parent.steps_removed),
            "samples": self.samples,
            "offset_ns": self.last.map(|sample| sample.offset.as_nanos()),
            "delay_ns": self.last.map(|sample| sample.delay.as_nanos()),
            "frequency_ppb": self.last.map(|sample| sample.frequency_ppb),
            "error_bound_ns": runner.client.servo().error_bound(monotonic()).map(Duration::as_nanos),
            "ports": self.ports.iter().map(|port| json!({
                "interface": runner.io.interface(*port),
                "state": receiver.port_state(*port).name(),
                "sources": runner.io.sources(*port),
            })).collect::<Vec<_>>(),
            "lost": self.losses(runner),
        });
        if let Err(error) = self.publication.set_status(&status) {
            tracing::debug!(%error, "status");
        }
    }

    fn losses(&self, runner: &Runner) -> BTreeMap<String, u64> {
        let mut lost = runner.io.losses();
        for port in &self.ports {
            for (cause, total) in runner.client.receiver().counters(*port).drops() {
                *lost.entry(cause.name().to_owned()).or_default() += total;
            }
        }
        lost.retain(|_, total| *total > 0);
        lost
    }

    fn summarise(self, runner: &Runner) -> Result<(), AgentError> {
        let lost = self.losses(runner);
        let duration_s = (monotonic() - self.start).as_secs_f64();
        match self.output {
            Some(output) => {
                let mut more = serde_json::Map::new();
                if let Some(port) = self.ports.first()
                    && let Some(counts) = runner.io.stamp_counts(*port)
                {
                    more.insert("timestamps".into(), stamp_counts(&counts));
                    more.insert("sources".into(), json!(runner.io.sources(*port)));
                }
                output.emit(&json::Event::Summary(json::Summary {
                    duration_s,
                    samples: self.samples,
                    lost,
                    more,
                }))?;
                output.finish()?;
            }
            None => {
                let matched = |counts: &super::io::SideCounts| counts.matched.values().sum::<u64>();
                let counts = || self.ports.iter().filter_map(|port| runner.io.stamp_counts(*port));
                println!(
                    "{} samples in {duration_s:.1} s; stamps matched: {} received, {} sent; lost: {}",
                    self.samples,
                    counts().map(|(rx, _)| matched(&rx)).sum::<u64>(),
                    counts().map(|(_, tx)| matched(&tx)).sum::<u64>(),
                    if lost.is_empty() { "nothing".to_owned() } else { format!("{lost:?}") },
                );
            }
        }
        Ok(())
    }
}
