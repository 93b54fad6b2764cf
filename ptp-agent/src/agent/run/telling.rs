//! What a running time receiver tells the world: samples and events as they come, and once a second the
//! alarms, metrics, status and exports that are made of all that is known by then.

use std::{collections::BTreeMap, io::Write as _, time::Instant};

use ptp_common::{
    time::{Duration, Mono, Time},
    wire::ClockIdentity,
};
use serde_json::json;

use super::{
    super::{
        AgentError, bound, clock_line, data_sets,
        drive::HOUSEKEEPING,
        export::{self, Known},
        health::{self, Health},
        io::SideCounts,
        local_times::LocalTimes,
        managing::Managing,
        ntp, ntp_line, print, sample_line, sample_text,
        services::Services,
        set_drop_figures, set_message_figures, set_stamp_figures,
        slave_events::SlaveEvents,
        snapshot::{own_port, timestamps},
        unicast, unix_seconds,
    },
    Runner, host, links, pulse, roles,
    servers::Servers,
};
use super::{apart::Apart, sources};
use crate::{
    clock::{Clock, ClockError, followed::Followed},
    engine::{
        Change, Command, PortIndex,
        discipline::{Event, Sample},
        link::Link,
        ntp::NtpEvent,
        receiver::{Measurement, Observation},
        strategy::Findings,
    },
    publish::{
        alarms::{Facts, Limits, Role, Totals},
        export::{Exports, View},
        http::Publication,
        json::{self, Output},
        management::DataSets,
        metrics::Direction,
        snapshot::{self, Following, Port, Snapshot, StrategyStatus},
    },
    servo::{ServoState, Trust},
    synce::SyncE,
    sys::clock::monotonic,
};

/// Tells the world: log, standard output, metrics, status.
pub(super) struct Teller {
    pub(super) managing: Managing,
    pub(super) slave_events: Option<SlaveEvents>,
    pub(super) output: Option<Output>,
    pub(super) publication: Publication,
    pub(super) services: Services,
    pub(super) health: Health,
    /// What the time transmitter says.
    pub(super) sync_interval: Option<Duration>,
    pub(super) clock_errors: u64,
    /// What the clock's policy said last.
    pub(super) refusal: Option<String>,
    pub(super) grandmaster_accuracy: Option<Duration>,
    pub(super) rate_error_ppb: f64,
    /// Since the last look.
    pub(super) is_stepped_elsewhere: bool,
    pub(super) ports: Vec<PortIndex>,
    pub(super) samples: u64,
    pub(super) steps: u64,
    pub(super) last: Option<Sample>,
    pub(super) apart: Apart,
    /// What the log was told of links.
    pub(super) capable: links::Told,
    pub(super) log_ptp4l: bool,
    pub(super) host_clock_offset: Duration,
    pub(super) host_name: String,
    /// When the last sample in the history came.
    pub(super) remembered: Option<Time<Mono>>,
    pub(super) printed: Time<Mono>,
    pub(super) start: Time<Mono>,
    pub(super) identity: ClockIdentity,
    /// Names of those who are asked for time.
    pub(super) partners: Vec<String>,
    pub(super) exports: Exports,
    /// What the alarms tolerate.
    pub(super) limits: Limits,
    /// Who is asked.
    pub(super) servers: Option<Servers>,
    pub(super) synce: SyncE,
    /// What it announces while it is the grandmaster.
    pub(super) local_times: LocalTimes,
}

impl Teller {
    pub(super) fn tell(
        &mut self,
        command: &Command<Event>,
        runner: &Runner,
    ) -> Result<(), AgentError> {
        match command {
            Command::Event(Event::Sample(sample)) => self.sample(sample, runner)?,
            Command::Event(Event::Adjusted { mono, stepped, .. }) => {
                if let Some(by) = stepped {
                    self.steps += 1;
                    tracing::info!(by_ns = by.as_nanos(), "clock stepped");
                }
                if let (Followed::Virtual(clock), Some(output)) =
                    (runner.engine.clock(), &self.output)
                {
                    output.emit(&json::Event::Clock(clock_line(clock, *mono)))?;
                }
                let view = export::view(&runner.engine, *mono, &self.known());
                self.exports.adjusted(&view);
            }
            Command::Event(Event::ServoState { old, new }) => {
                tracing::info!(from = old.name(), to = new.name(), "servo state");
            }
            Command::Event(Event::Strategy(change)) => {
                let Findings {
                    remote_priming_ns,
                    round_trip_ns,
                    sync_noise_ns,
                    request_noise_ns,
                    is_primeable,
                    is_priming_late,
                } = change.findings;
                tracing::info!(
                    from = change.from.name(),
                    to = change.to.name(),
                    remote_priming_ns,
                    round_trip_ns,
                    sync_noise_ns,
                    request_noise_ns,
                    is_primeable,
                    is_priming_late,
                    "strategy"
                );
            }
            Command::Event(Event::Ntp(event)) => self.ntp(event, runner)?,
            Command::Event(Event::Standing { old, new }) => {
                tracing::info!(from = old.name(), to = new.name(), "sources of time");
            }
            Command::Event(Event::ClockError(error)) => {
                self.clock_errors += 1;
                if let ClockError::Refused { .. } = error {
                    self.refusal = Some(error.to_string());
                }
                tracing::warn!(%error, "clock");
            }
            Command::Changed(Change::PortState { port, old, new, reason }) => {
                let interface = runner.io.interface(*port);
                tracing::info!(
                    interface,
                    from = old.name(),
                    to = new.name(),
                    reason = reason.name(),
                    "port state"
                );
            }
            Command::Changed(Change::Parent(parent)) => match parent {
                Some(parent) => tracing::info!(
                    grandmaster = %parent.set.grandmaster_identity,
                    port = %parent.set.parent_port_identity,
                    steps_removed = parent.steps_removed,
                    "following"
                ),
                None => tracing::warn!("no grandmaster"),
            },
            Command::Send(_) | Command::Measured(_) | Command::Witnessed(_) => {}
        }
        if let Command::Changed(change) = command {
            self.managing.changed(change, || self.data_sets(runner));
        }
        Ok(())
    }

    /// What was heard of a server of NTP.
    fn ntp(&self, event: &NtpEvent, runner: &Runner) -> Result<(), AgentError> {
        let Some(io) = runner.io.ntp() else { return Ok(()) };
        let name = |with: PortIndex| io.name(PortIndex(with.0.saturating_add(io.first_port())));
        match event {
            NtpEvent::Exchange(exchange) => {
                if let Some(output) = &self.output {
                    output.emit(&json::Event::Ntp(ntp_line(name(exchange.with), exchange)))?;
                }
            }
            NtpEvent::Refused { with, why } => {
                tracing::debug!(server = name(*with), ?why, "NTP answer not used");
            }
            NtpEvent::Kiss { with, code } => {
                tracing::warn!(server = name(*with), %code, "NTP server asks for less");
            }
            NtpEvent::Unreachable(with) => {
                tracing::warn!(server = name(*with), "NTP server does not answer");
            }
        }
        Ok(())
    }

    fn known(&self) -> Known {
        Known {
            last: self.last,
            steps: self.steps,
            grandmaster_accuracy: self.grandmaster_accuracy,
            rate_error_ppb: self.rate_error_ppb,
            host_clock_offset: self.host_clock_offset,
        }
    }

    /// Why time is withheld from the clock or from other programs.
    fn withheld(&self, runner: &Runner) -> Option<String> {
        let is_refused = runner.engine.clock().is_refused() && runner.engine.parent().is_some();
        let refused = self.refusal.as_deref().filter(|_| is_refused);
        bound::withheld(refused, self.exports.withheld())
    }

    fn data_sets(&self, runner: &Runner) -> DataSets {
        let (last, about) = (self.last.as_ref(), &self.managing.about);
        data_sets::of_client(&runner.engine, last, self.sync_interval, about)
    }

    pub(super) fn measured(&mut self, measurement: &Measurement, runner: &Runner) {
        let engine = &runner.engine;
        let port = measurement.port;
        if let Observation::PeerDelay(_) | Observation::LinkTold(_) = measurement.observation {
            self.managing.link_measured(port, engine.link(port));
        }
        if let Some(events) = &mut self.slave_events {
            let config = engine.receiver().port_config(port);
            let asymmetry = config.map_or(Duration::ZERO, |config| config.delay_asymmetry);
            let header = engine.receiver().header_of_port(port);
            events.measured(&header, measurement, asymmetry, |mono| engine.domain_time(mono));
        }
        if let Observation::Sync(sync) = measurement.observation {
            self.sync_interval = sync.log_interval.map(Duration::from_log_interval);
        }
    }

    fn sample(&mut self, sample: &Sample, runner: &Runner) -> Result<(), AgentError> {
        self.samples += 1;
        self.last = Some(*sample);
        self.managing.sampled(&runner.engine, sample);
        let is_locked = sample.state == ServoState::Locked;
        self.apart.sample(is_locked.then(|| sample.raw_offset - sample.offset));
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
    fn facts(&self, now: Time<Mono>, runner: &Runner, trust: Option<&Trust>) -> Facts {
        let receiver = runner.engine.receiver();
        let parent = runner.engine.parent();
        let (ports_up, ports_down) = health::links(&runner.io, &self.ports);
        let delay_interval = parent
            .and_then(|parent| receiver.log_min_delay_req_interval(parent.port))
            .map(Duration::from_log_interval);
        let totals = health::totals(&runner.io, &self.ports, |port| receiver.counters(port));
        let (contradictions, is_in_doubt) = bound::doubt(runner.engine.servo());
        // An exchange with a server of NTP is what a Sync and an answered Delay_Req are together.
        let exchanges = || runner.engine.ntp_servers().map(|server| server.association.exchanges);
        let totals = match runner.engine.follows_ntp() {
            true => Totals { syncs: exchanges().sum(), delays: exchanges().sum(), ..totals },
            false => totals,
        };
        // A pulse is all three.
        let pulses = runner.engine.pulse(now).filter(|pulse| pulse.is_followed);
        let totals = match pulses.map(|pulse| pulse.counters.used) {
            Some(used) => Totals { syncs: used, delays: used, ..totals },
            None => totals,
        };
        let polls = runner.engine.ntp_servers().filter(|server| server.is_leader);
        let poll = polls.map(|server| Duration::from_log_interval(server.association.poll)).max();
        let interval = self.sync_interval.max(delay_interval).max(poll);
        Facts {
            totals: Totals {
                clock_errors: self.clock_errors,
                clock_steps: self.steps,
                contradictions,
                ..totals
            },
            // That no server answers is told as that no time transmitter is heard.
            ports_up: ports_up
                + usize::from(runner.engine.follows_ntp() || runner.engine.follows_pulse()),
            ports_down,
            grandmaster: parent.map(|parent| parent.set.grandmaster_identity),
            interval,
            offset: self.last.map(|sample| sample.offset),
            servo: Some(runner.engine.servo().state()),
            utc_offset: parent
                .map(|parent| parent.time_properties)
                .filter(|properties| properties.current_utc_offset_valid)
                .map(|properties| i64::from(properties.current_utc_offset)),
            is_steered_elsewhere: self.is_stepped_elsewhere,
            is_displaced: runner.io.is_displaced(),
            is_unserved: self.services.is_lacking() || self.exports.is_lacking(),
            is_software: matches!(runner.engine.clock(), Followed::Virtual(_)),
            is_clipped: trust.is_some_and(|trust| trust.is_clipped),
            is_in_doubt,
            withheld: self.withheld(runner),
            round_trip: receiver.round_trip(),
            refused: runner.io.last_refused(),
            raw_apart: self.apart.least(),
            contradicted: sources::contradicted(&runner.engine, now),
            shifted: sources::shifted(&runner.engine),
            silent: sources::silent(&ntp::asked(&runner.engine, &runner.io)),
            hints: health::hints(&runner.io, receiver, now),
            pulse: pulse::facts(runner, now),
            ..self.synce.facts(now)
        }
    }

    pub(super) fn housekeep(&mut self, runner: &Runner) -> Result<(), AgentError> {
        let now = monotonic();
        if let Some(events) = &self.slave_events {
            self.publication.management.set_slave_events(events.counts());
        }
        self.services.look_after(now);
        self.synce.look(now);
        let view = export::view(&runner.engine, now, &self.known());
        self.exports.tick(&view);
        let host = host::line(&runner.engine, &view, &self.host_name);
        let host_clock = host::figures(&host);
        if let Some(output) = &self.output {
            output.emit(&json::Event::Host(host))?;
        }
        let serves_own = roles::is_grandmaster(runner.engine.receiver());
        if serves_own {
            // As healthy as its loop, like any grandmaster.
            let fresh = health::freshness(None);
            self.publication.set_followed_until(Instant::now() + fresh);
        }
        let role = if serves_own { Role::Transmitter } else { Role::Receiver };
        self.health.take_role(role, self.limits, now);
        let facts = self.facts(now, runner, view.trust.as_ref());
        self.health.check(now, &facts);
        let receiver = runner.engine.receiver();
        let domain = receiver.domain_number();
        for port in &self.ports {
            let interface = runner.io.interface(*port);
            self.capable.tell(interface, *port, runner.engine.link(*port));
            let counters = receiver.counters(*port);
            self.publication.metrics.update(interface, domain, |figures| {
                figures.clock_steps = self.steps;
                figures.host_clock = host_clock;
                bound::set_figures(figures, view.trust.as_ref(), runner.engine.origin());
                figures.unicast = unicast::figures(receiver, *port, now);
                figures.link = links::figures(runner.engine.link(*port));
                set_message_figures(figures, counters);
                if let Some((rx, tx)) = runner.io.stamp_counts(*port) {
                    set_stamp_figures(figures, Direction::Rx, &rx);
                    set_stamp_figures(figures, Direction::Tx, &tx);
                }
                figures.set_exchanges("sync", counters.sync_exchanges);
                figures.set_exchanges("delay", counters.delay_exchanges);
                figures.set_exchanges("peer_delay", counters.peer_delay_exchanges);
                // There is one servo, and its samples come from this port.
                if runner.engine.origin().parent.is_some_and(|parent| parent.port == *port) {
                    figures.set_exchanges("contradicting", facts.totals.contradictions);
                }
                set_drop_figures(figures, counters, runner.io.counts(*port));
            });
        }
        self.publication.metrics.set_sources(sources::figures(&runner.engine, now));
        let asked = ntp::asked(&runner.engine, &runner.io);
        self.publication.metrics.set_ntp_servers(sources::ntp_figures(&asked));
        self.publication.metrics.set_synce(self.synce.figures(now));
        self.publication.metrics.set_pulse(pulse::figures(runner, now));
        self.publication.metrics.set_ring_lost(runner.io.ring_lost());
        let snapshot = self.snapshot(now, runner, &view, facts.withheld);
        if let Err(error) = self.publication.publish(snapshot) {
            tracing::debug!(%error, "status");
        }
        if let Some(sample) = self.last.filter(|sample| self.remembered < Some(sample.mono)) {
            self.remembered = Some(sample.mono);
            let at_s = (sample.mono - self.start).as_secs_f64();
            let (offset, delay) = (sample.offset.as_nanos(), sample.delay.as_nanos());
            self.publication.add_history(at_s, offset, Some(delay));
        }
        Ok(())
    }

    fn snapshot(
        &self,
        now: Time<Mono>,
        runner: &Runner,
        view: &View<'_>,
        withheld: Option<String>,
    ) -> Snapshot {
        let client = &runner.engine;
        let (receiver, last) = (client.receiver(), self.last.as_ref());
        let parent = client.parent();
        let mut following = Following {
            clock: Some(client.clock().name().into()),
            servo: Some(client.servo().name().into()),
            servo_state: Some(client.servo().state().into()),
            grandmaster: parent.map(|parent| parent.set.grandmaster_identity.to_string()),
            parent_port: parent.map(|parent| parent.set.parent_port_identity.to_string()),
            grandmaster_class: parent
                .map(|parent| parent.set.grandmaster_clock_quality.clock_class),
            time_scale: parent.map(|parent| parent.time_properties.to_string()),
            steps_removed: parent.map(|parent| parent.steps_removed),
            sample_age_s: last.map(|sample| (now - sample.mono).as_secs_f64()),
            offset_ns: last.map(|sample| sample.offset.as_nanos()),
            delay_ns: last.map(|sample| sample.delay.as_nanos()),
            frequency_ppb: last.map(|sample| sample.frequency_ppb),
            strategy: Some(StrategyStatus {
                name: client.strategist().strategy().into(),
                findings: client.strategist().findings(),
            }),
            ..Following::default()
        };
        bound::tell(&mut following, view, withheld);
        let ports = self.ports.iter().map(|port| {
            let link = client.link(*port);
            let delay = link.and_then(Link::mean_link_delay);
            Port {
                unicast: unicast::status(receiver, *port, &self.partners, now),
                link_delay_ns: Some(delay.map(Duration::as_nanos)),
                as_capable: link.and_then(Link::is_capable),
                link: links::status(receiver, *port, link),
                ..own_port(&runner.io, *port, receiver.port_state(*port))
            }
        });
        let (own, time_zone_database) = self.local_times.status();
        let extras = if roles::is_grandmaster(receiver) { own } else { roles::extras(receiver) };
        let mut snapshot = Snapshot {
            command: Some(snapshot::Command::Run.into()),
            uptime_s: Some((now - self.start).as_secs_f64()),
            clock_identity: Some(self.identity.to_string()),
            domain: Some(receiver.domain_number()),
            samples: Some(self.samples),
            following,
            ports: ports.collect(),
            lost: self.losses(runner),
            alarms: self.health.status(now),
            data_sets: Some(self.data_sets(runner)),
            sources: Some(sources::status(client, now)),
            extras,
            gptp: links::gptp(receiver),
            time_zone_database,
            synce: self.synce.status(now),
            dplls: self.synce.dplls().to_vec(),
            ntp: ntp::asked(client, &runner.io),
            pps: pulse::status(runner, now),
            servers: self.servers.as_ref().map(|it| it.status(client, now)).unwrap_or_default(),
            ..Snapshot::default()
        };
        roles::tell(&mut snapshot, receiver, now);
        snapshot
    }

    fn losses(&self, runner: &Runner) -> BTreeMap<String, u64> {
        let mut lost = runner.io.losses();
        for port in &self.ports {
            for (cause, total) in runner.engine.receiver().counters(*port).drops() {
                *lost.entry(cause.name().to_owned()).or_default() += total;
            }
        }
        lost.retain(|_, total| *total > 0);
        lost
    }

    pub(super) fn summarise(self, runner: &Runner) -> Result<(), AgentError> {
        let lost = self.losses(runner);
        let duration_s = (monotonic() - self.start).as_secs_f64();
        match self.output {
            Some(output) => {
                let mut more = serde_json::Map::new();
                if let Some(port) = self.ports.first()
                    && let Some(counts) = runner.io.stamp_counts(*port)
                {
                    more.insert("timestamps".into(), json!(timestamps(&counts)));
                    more.insert("sources".into(), json!(runner.io.sources(*port)));
                    if let Some(authentication) = runner.io.authentication(*port) {
                        more.insert("authentication".into(), json!(authentication));
                    }
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
                let matched = |counts: &SideCounts| counts.matched.values().sum::<u64>();
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

/// A sample as ptp4l tells it. Its frequency is what is taken away from the clock's.
pub fn ptp4l_line(sample: &Sample) -> String {
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{engine::strategy::Strategy, stamp::StampSource};
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
            grandmaster: None,
            sequence_id: 1,
            exchange: None,
            strategy: Strategy::Plain,
            is_of_ntp: false,
            is_of_pulse: false,
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
