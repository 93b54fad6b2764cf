//! `ptp-agent run`: a time receiver that follows the best grandmaster its ports hear, with a clock
//! of its own or watching the host's.

use std::{collections::BTreeMap, io::Write as _, path::PathBuf, time::Instant};

use ptp_common::{
    time::{Duration, Mono, Time},
    wire::ClockIdentity,
};
use serde_json::json;

use super::{
    AgentError, Asked, Common, Ending, Reload, clock_identity, clock_line, data_sets, export,
    health::{self, Health},
    io::{Delivery, Io},
    print, sample_line, sample_text, seed,
    services::Services,
    set_drop_figures, set_message_figures, set_stamp_figures, stamp_counts, start_output,
    steer::{self, Steering},
    unix_seconds,
};
use crate::{
    clock::{Clock, ClockError, followed::Followed},
    engine::{
        DelayMechanism, PortIndex,
        client::{Client, Event, Sample},
        receiver::{Acceptable, Action, Measurement, Observation, PortConfig, ReceiverConfig},
        strategy::{self, Findings},
    },
    publish::{
        alarms::{Facts, Role, Totals},
        export::{Exporting, Exports},
        http::Publication,
        json::{self, Output},
        metrics::Direction,
    },
    recording::{self, Addresses, FollowedClock, Recorder, RecordingFile},
    servo::{Options, Servo, ServoState},
    sys::clock::{monotonic, realtime_minus_monotonic},
    transport::{interface_addresses, interface_mac},
};

/// Between two looks at the counters, and two lines of text.
const HOUSEKEEPING: Duration = Duration::from_secs(1);

/// Which clock follows.
#[derive(Clone, Debug, Default, PartialEq)]
pub enum ClockChoice {
    /// None: the host's time is compared with the grandmaster's.
    #[default]
    None,
    /// A software clock over the host's monotonic clock; the host's own clocks are not touched.
    Virtual,
    /// CLOCK_REALTIME.
    System(Steering),
    /// A hardware clock.
    Phc(PathBuf, Steering),
}

impl ClockChoice {
    const fn steering(&self) -> Option<&Steering> {
        match self {
            Self::System(steering) | Self::Phc(_, steering) => Some(steering),
            Self::None | Self::Virtual => None,
        }
    }
}

/// What `run` is told.
pub struct RunConfig {
    /// As for the other commands.
    pub common: Common,
    /// Print samples as ptp4l does.
    pub log_ptp4l: bool,
    /// How the path delay is measured.
    pub delay_mechanism: DelayMechanism,
    /// How requests are sent and which Sync messages are learnt from.
    pub strategy: strategy::Choice,
    /// Which clock follows.
    pub clock: ClockChoice,
    /// What steers it.
    pub servo: Box<dyn Servo>,
    /// What that was made with.
    pub servo_options: Options,
    /// The same as `--servo` takes it, for the recording.
    pub servo_name: String,
    /// Where to record what the engine is given.
    pub record: Option<RecordingFile>,
    /// As for [`PortConfig::delay_asymmetry`].
    pub delay_asymmetry: Duration,
    /// As for [`PortConfig::assume_two_step`].
    pub assume_two_step: bool,
    /// As for [`ReceiverConfig::acceptable`].
    pub acceptable_masters: Vec<Acceptable>,
    /// What other programs are given.
    pub exporting: Exporting,
}

/// Runs until it is told to end; takes over what `reload` makes when it is told to (SIGHUP).
///
/// # Errors
/// [`AgentError`]: what the host lacks at the start, or a reader of the output that has gone.
pub async fn run(config: RunConfig, reload: Option<Reload<RunConfig>>) -> Result<(), AgentError> {
    let RunConfig {
        common,
        log_ptp4l,
        delay_mechanism,
        strategy,
        clock,
        servo,
        servo_options: _,
        servo_name,
        record,
        delay_asymmetry,
        assume_two_step,
        acceptable_masters,
        exporting,
    } = config;
    let exports = Exports::start(exporting, monotonic());
    let mut ending = Ending::new(common.duration, reload.as_ref())?;
    let publication = Publication::default();
    let services = Services::start(common.serving.clone(), &publication, monotonic());
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
                assume_two_step,
                link_up: io.is_up(*port),
                ..PortConfig::default()
            })
            .collect(),
        acceptable: acceptable_masters,
        strategy,
        ..ReceiverConfig::new(identity, seed)
    };
    let real_minus_mono = realtime_minus_monotonic();
    let host = Time::from_epoch(start.since_epoch() + real_minus_mono);
    let followed = match &clock {
        ClockChoice::Virtual => Followed::virtual_at(start, host),
        ClockChoice::None => Followed::watching(start, host),
        ClockChoice::System(steering) => steer::take_over_system(steering).await?,
        ClockChoice::Phc(device, steering) => steer::take_over_phc(device, steering)?,
    };
    let steering = clock.steering().cloned();
    let recorder = match record {
        Some(file) => {
            let clock = match clock {
                ClockChoice::Virtual => FollowedClock::Virtual { reading_ns: host },
                // A clock of the host is not recorded: its replay would make other numbers.
                ClockChoice::None | ClockChoice::System(_) | ClockChoice::Phc(..) => {
                    FollowedClock::None
                }
            };
            let (interfaces, transport) = (&common.io.interfaces, common.io.transport);
            let note = recording::Start::new(
                start,
                real_minus_mono,
                &receiver,
                interfaces,
                transport,
                clock,
                servo_name,
            );
            Some(Recorder::start(
                file,
                &note,
                interfaces.iter().map(|name| addresses(name)).collect(),
            )?)
        }
        None => None,
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
    let port_configs = receiver.ports.clone();
    let client = Client::new(receiver, servo, followed, start);
    let mut teller = Teller {
        output,
        health: Health::new(Role::Receiver, common.limits, publication.clone(), start),
        publication,
        services,
        sync_interval: None,
        clock_errors: 0,
        is_stepped_elsewhere: false,
        ports,
        samples: 0,
        steps: 0,
        last: None,
        log_ptp4l,
        remembered: None,
        port_configs,
        printed: start,
        start,
        identity,
        exports,
    };
    let mut runner = Runner { io, client, recorder, steering, reload };
    if let (Followed::Virtual(clock), Some(output)) = (runner.client.clock(), &teller.output) {
        output.emit(&json::Event::Clock(clock_line(clock, start)))?;
    }
    let kept = runner.keep_time(&mut ending, &mut teller).await;
    // What another program steers is left to it as it is.
    if !matches!(kept, Err(AgentError::Clock(ClockError::Interference { .. }))) {
        steer::release(&mut runner.client, monotonic(), runner.steering.as_ref());
    }
    // The recording is to be whole however it ends.
    let recorded = runner.recorder.take().map(|recorder| recorder.finish(monotonic())).transpose();
    kept?;
    teller.housekeep(&runner);
    teller.summarise(&runner)?;
    if let Some(totals) = recorded? {
        tracing::info!(notes = totals.recorded, lost = totals.lost, "recorded");
    }
    Ok(())
}

/// A sample as ptp4l tells it. Its frequency is what is taken away from the clock's.
fn ptp4l_line(sample: &Sample) -> String {
    let mono = sample.mono.as_nanos();
    let state = match sample.state {
        ServoState::Unlocked => 0,
        ServoState::Jump => 1,
        ServoState::Locked | ServoState::Holdover => 2,
    };
    format!(
        "ptp4l[{}.{:03}]: master offset {:10} s{state} freq {:+7.0} path delay {:10}",
        mono / 1_000_000_000,
        mono / 1_000_000 % 1_000,
        sample.offset.as_nanos(),
        -sample.frequency_ppb + 0.0,
        sample.delay.as_nanos(),
    )
}

fn addresses(interface: &str) -> Addresses {
    let (ipv4, ipv6) = interface_addresses(interface);
    Addresses { mac: interface_mac(interface), ipv4, ipv6 }
}

struct Runner {
    io: Io,
    client: Client<Followed>,
    recorder: Option<Recorder>,
    steering: Option<Steering>,
    reload: Option<Reload<RunConfig>>,
}

impl Runner {
    async fn keep_time(
        &mut self,
        ending: &mut Ending,
        teller: &mut Teller,
    ) -> Result<(), AgentError> {
        let mut housekeeping = teller.start;
        loop {
            let now = monotonic();
            self.poll(now);
            self.carry(teller)?;
            if now >= housekeeping {
                housekeeping = now + HOUSEKEEPING;
                teller.is_stepped_elsewhere =
                    steer::keep(&mut self.client, now, teller.last.as_ref())?;
                teller.housekeep(self);
            }
            if ending.is_due(now) {
                return Ok(());
            }
            let until = self.client.next_wakeup().map_or(housekeeping, |at| at.min(housekeeping));
            let until = ending.limit(until);
            tokio::select! {
                biased;
                asked = ending.signalled() => match asked {
                    Asked::ToEnd => return Ok(()),
                    Asked::ToReload => self.reload(teller),
                },
                () = self.io.wait(until) => {}
            }
        }
    }

    /// Takes over what can change without losing lock.
    fn reload(&mut self, teller: &mut Teller) {
        teller.health.reloading();
        let Some(config) = self.reload.as_mut().and_then(|reload| reload()) else { return };
        let RunConfig { common, clock, servo_options, delay_asymmetry, exporting, .. } = config;
        self.io.set_latencies(common.io.ingress_latency, common.io.egress_latency);
        self.client.set_delay_asymmetry(delay_asymmetry);
        self.client.set_step_thresholds(&servo_options);
        if let (Some(steering), Some(new)) = (&mut self.steering, clock.steering()) {
            steering.limits = new.limits;
            steering.frequency_file.clone_from(&new.frequency_file);
            self.client.clock_mut().set_limits(new.limits);
        }
        teller.health.set_limits(common.limits);
        teller.services.change(common.serving, monotonic());
        teller.exports.change(exporting, monotonic());
    }

    /// Reads the host's time, and does what is due.
    fn poll(&mut self, now: Time<Mono>) {
        let real_minus_mono = realtime_minus_monotonic();
        self.client.clock_mut().read(now, Time::from_epoch(now.since_epoch() + real_minus_mono));
        if let Some(recorder) = &mut self.recorder {
            recorder.reading(now, real_minus_mono);
            // To poll before anything is due changes nothing.
            if self.client.next_wakeup().is_some_and(|at| at <= now) {
                recorder.poll(now);
            }
        }
        self.client.poll(now);
    }

    /// Carries deliveries in and events out until neither side has anything.
    fn carry(&mut self, teller: &mut Teller) -> Result<(), AgentError> {
        loop {
            while let Some(event) = self.client.next_event() {
                match event {
                    Event::Engine(Action::SendEvent { port, token, peer_multicast, message }) => {
                        self.io.send_event(port, token, peer_multicast, &message);
                        if let Some(recorder) = &mut self.recorder {
                            recorder.event_sent(token, port, peer_multicast, &message);
                        }
                    }
                    Event::Engine(Action::SendGeneral { port, peer_multicast, message }) => {
                        self.io.send_general(port, peer_multicast, &message);
                        if let Some(recorder) = &mut self.recorder {
                            recorder.general_sent(port, peer_multicast, &message);
                        }
                    }
                    Event::Engine(Action::Measurement(measurement)) => {
                        self.io.learn(&measurement);
                        teller.measured(&measurement);
                    }
                    event => teller.tell(&event, self)?,
                }
            }
            let priming = self.client.strategist().priming();
            for port in &teller.ports {
                self.io.set_priming(*port, priming);
            }
            let Some(delivery) = self.io.next_delivery() else {
                return Ok(());
            };
            self.deliver(monotonic(), delivery);
        }
    }

    fn deliver(&mut self, now: Time<Mono>, delivery: Delivery) {
        let Self { client, recorder, .. } = self;
        match delivery {
            Delivery::Message { port, bytes, stamp, source } => {
                if let Some(recorder) = recorder {
                    recorder.message(now, port, &bytes, stamp, source);
                }
                client.handle_message(now, port, &bytes, stamp);
            }
            Delivery::TxStamp { token, stamp } => {
                if let Some(recorder) = recorder {
                    recorder.tx_stamp(now, token, stamp);
                }
                client.handle_tx_stamp(now, token, stamp);
            }
            Delivery::Link { port, up } => {
                if let Some(recorder) = recorder {
                    recorder.link(now, port, up);
                }
                client.handle_link(now, port, up);
            }
        }
    }
}

/// Tells the world: log, standard output, metrics, status.
struct Teller {
    output: Option<Output>,
    publication: Publication,
    services: Services,
    health: Health,
    /// What the time transmitter says.
    sync_interval: Option<Duration>,
    clock_errors: u64,
    /// Since the last look.
    is_stepped_elsewhere: bool,
    ports: Vec<PortIndex>,
    samples: u64,
    steps: u64,
    last: Option<Sample>,
    log_ptp4l: bool,
    /// When the last sample in the history came.
    remembered: Option<Time<Mono>>,
    port_configs: Vec<PortConfig>,
    printed: Time<Mono>,
    start: Time<Mono>,
    identity: ClockIdentity,
    exports: Exports,
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
                let view = export::view(&runner.client, *mono, self.last.as_ref(), self.steps);
                self.exports.adjusted(&view);
            }
            Event::ServoState { old, new } => {
                tracing::info!(from = old.name(), to = new.name(), "servo state");
            }
            Event::Strategy(change) => {
                let Findings {
                    remote_priming_ns,
                    own_priming_ns,
                    round_trip_ns,
                    sync_noise_ns,
                    request_noise_ns,
                    is_primeable,
                } = change.findings;
                tracing::info!(
                    from = change.from.name(),
                    to = change.to.name(),
                    remote_priming_ns,
                    own_priming_ns,
                    round_trip_ns,
                    sync_noise_ns,
                    request_noise_ns,
                    is_primeable,
                    "strategy"
                );
            }
            Event::ClockError(error) => {
                self.clock_errors += 1;
                tracing::warn!(%error, "clock");
            }
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

    fn measured(&mut self, measurement: &Measurement) {
        if let Observation::Sync(sync) = measurement.observation {
            self.sync_interval = sync.log_interval.map(Duration::from_log_interval);
        }
    }

    fn sample(&mut self, sample: &Sample, runner: &Runner) -> Result<(), AgentError> {
        self.samples += 1;
        self.last = Some(*sample);
        let interface = runner.io.interface(sample.port);
        if self.log_ptp4l {
            let line = ptp4l_line(sample);
            if self.output.is_some() {
                // The samples are what matters.
                let _ = writeln!(std::io::stderr(), "{line}");
            } else {
                print(&line)?;
            }
        }
        match &self.output {
            Some(output) => output.emit(&json::Event::Sample(sample_line(interface, sample)))?,
            None if self.log_ptp4l => {}
            None => {
                if sample.mono - self.printed >= HOUSEKEEPING {
                    self.printed = sample.mono;
                    print(&sample_text(interface, sample))?;
                }
            }
        }
        // Samples alone are no following: before the first lock the clock may be seconds off.
        if sample.state == ServoState::Locked {
            self.publication
                .set_followed_until(Instant::now() + health::freshness(self.sync_interval));
        }
        self.publication.metrics.update(interface, sample.domain_number, |figures| {
            figures.offset_from_master_seconds = Some(sample.offset.as_secs_f64());
            figures.mean_path_delay_seconds = Some(sample.delay.as_secs_f64());
            figures.clock_frequency_adjustment_ratio = Some(sample.frequency_ppb * 1e-9);
            figures.last_sample_timestamp_seconds = Some(unix_seconds());
        });
        Ok(())
    }

    /// What the alarms are judged by.
    fn facts(&self, now: Time<Mono>, runner: &Runner) -> Facts {
        let receiver = runner.client.receiver();
        let parent = receiver.parent();
        let (ports_up, ports_down) = health::links(&runner.io, &self.ports);
        let delay_interval = parent
            .and_then(|parent| receiver.log_min_delay_req_interval(parent.port))
            .map(Duration::from_log_interval);
        let totals = health::totals(&runner.io, &self.ports, |port| receiver.counters(port));
        Facts {
            totals: Totals { clock_errors: self.clock_errors, clock_steps: self.steps, ..totals },
            ports_up,
            ports_down,
            grandmaster: parent.map(|parent| parent.grandmaster_identity),
            interval: self.sync_interval.max(delay_interval),
            offset: self.last.map(|sample| sample.offset),
            servo: Some(runner.client.servo().state()),
            utc_offset: parent
                .map(|parent| parent.time_properties)
                .filter(|properties| properties.current_utc_offset_valid)
                .map(|properties| i64::from(properties.current_utc_offset)),
            is_steered_elsewhere: self.is_stepped_elsewhere,
            is_unserved: self.services.is_lacking() || self.exports.is_lacking(),
            round_trip: receiver.round_trip(),
            hints: receiver.overheard(now).map(|hint| hint.to_string()).collect(),
        }
    }

    fn housekeep(&mut self, runner: &Runner) {
        let now = monotonic();
        self.services.look_after(now);
        let facts = self.facts(now, runner);
        self.health.check(now, &facts);
        self.exports.tick(&export::view(&runner.client, now, self.last.as_ref(), self.steps));
        let receiver = runner.client.receiver();
        let domain = receiver.domain_number();
        let servo = runner.client.servo().state().name();
        let error_bound = runner.client.error_bound(now);
        for port in &self.ports {
            let interface = runner.io.interface(*port);
            let counters = receiver.counters(*port);
            let state = receiver.port_state(*port).name();
            self.publication.metrics.update(interface, domain, |figures| {
                figures.port_state = Some(state);
                figures.servo_state = Some(servo);
                figures.clock_steps = self.steps;
                figures.clock_error_bound_seconds = error_bound.map(Duration::as_secs_f64);
                set_message_figures(figures, counters);
                if let Some((rx, tx)) = runner.io.stamp_counts(*port) {
                    set_stamp_figures(figures, Direction::Rx, &rx);
                    set_stamp_figures(figures, Direction::Tx, &tx);
                }
                figures.priming = runner.io.is_primed(*port);
                figures.set_exchanges("sync", counters.sync_exchanges);
                figures.set_exchanges("delay", counters.delay_exchanges);
                figures.set_exchanges("peer_delay", counters.peer_delay_exchanges);
                set_drop_figures(figures, counters, runner.io.counts(*port));
            });
        }
        self.publication.metrics.set_ring_lost(runner.io.ring_lost());
        let parent = receiver.parent();
        let status = json!({
            "command": "run",
            "uptime_s": (now - self.start).as_secs_f64(),
            "clock": runner.client.clock().name(),
            "clock_identity": self.identity.to_string(),
            "domain": domain,
            "servo": runner.client.servo().name(),
            "servo_state": servo,
            "grandmaster": parent.map(|parent| parent.grandmaster_identity.to_string()),
            "parent_port": parent.map(|parent| parent.parent_port_identity.to_string()),
            "grandmaster_class": parent.map(|parent| parent.grandmaster_clock_quality.clock_class),
            "time_scale": parent.map(|parent| parent.time_properties.to_string()),
            "steps_removed": parent.map(|parent| parent.steps_removed),
            "samples": self.samples,
            "sample_age_s": self.last.map(|sample| (now - sample.mono).as_secs_f64()),
            "offset_ns": self.last.map(|sample| sample.offset.as_nanos()),
            "delay_ns": self.last.map(|sample| sample.delay.as_nanos()),
            "frequency_ppb": self.last.map(|sample| sample.frequency_ppb),
            "error_bound_ns": error_bound.map(Duration::as_nanos),
            "ports": self.ports.iter().map(|port| json!({
                "interface": runner.io.interface(*port),
                "state": receiver.port_state(*port).name(),
                "sources": runner.io.sources(*port),
                "timestamps": runner.io.stamp_counts(*port).as_ref().map(stamp_counts),
            })).collect::<Vec<_>>(),
            "lost": self.losses(runner),
            "strategy": {
                "name": runner.client.strategist().strategy().name(),
                "findings": runner.client.strategist().findings(),
            },
            "alarms": self.health.status(now),
        });
        if let Err(error) = self.publication.set_status(&status) {
            tracing::debug!(%error, "status");
        }
        let interval = self.sync_interval;
        self.publication.set_data_sets(data_sets::of_client(
            &self.port_configs,
            &runner.client,
            self.last.as_ref(),
            interval,
        ));
        if let Some(sample) = self.last.filter(|sample| self.remembered < Some(sample.mono)) {
            self.remembered = Some(sample.mono);
            let at_s = (sample.mono - self.start).as_secs_f64();
            let (offset, delay) = (sample.offset.as_nanos(), sample.delay.as_nanos());
            self.publication.add_history(at_s, offset, Some(delay));
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
                print(&format!(
                    "{} samples in {duration_s:.1} s; stamps matched: {} received, {} sent; lost: {}",
                    self.samples,
                    counts().map(|(rx, _)| matched(&rx)).sum::<u64>(),
                    counts().map(|(_, tx)| matched(&tx)).sum::<u64>(),
                    if lost.is_empty() { "nothing".to_owned() } else { format!("{lost:?}") },
                ))?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::strategy::Strategy;
    use crate::stamp::StampSource;
    use ptp_common::wire::PortIdentity;

    #[test]
    fn sample_is_told_in_the_words_and_columns_of_ptp4l() {
        let sample = Sample {
            port: PortIndex(0),
            domain_number: 0,
            mono: Time::from_nanos(5_374_017_999_999),
            offset: Duration::from_nanos(-12),
            raw_offset: Duration::from_nanos(7),
            delay: Duration::from_nanos(4_210),
            frequency_ppb: -3_450.2,
            state: ServoState::Locked,
            trust: None,
            rx_source: StampSource::Stack,
            tx_source: None,
            parent: PortIdentity::ALL,
            sequence_id: 1,
            strategy: Strategy::Plain,
        };
        assert_eq!(
            ptp4l_line(&sample),
            "ptp4l[5374.017]: master offset        -12 s2 freq   +3450 path delay       4210"
        );
        let states = [ServoState::Unlocked, ServoState::Jump, ServoState::Holdover];
        for (state, word) in states.into_iter().zip([" s0 ", " s1 ", " s2 "]) {
            assert!(ptp4l_line(&Sample { state, ..sample }).contains(word));
        }
    }
}
