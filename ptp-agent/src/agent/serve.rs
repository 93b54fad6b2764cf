//! `ptp-agent serve`: a software grandmaster. Its Follow_Up carries the kernel's stamp of its own
//! Sync, so it is as good as the stamps are, on any interface.

mod kernel;
mod zones;

use std::{
    collections::BTreeMap,
    time::{Duration as StdDuration, Instant},
};

use ptp_common::{
    data_set::TimeProperties,
    time::{Duration, Mono, Ptp, Time},
    wire::{ClockIdentity, ClockQuality},
};
use serde_json::json;

use super::{
    AgentError, Common, Ending, Reload,
    answer_for::{self, AnswerFor},
    clock_identity, clock_line, confinement, data_sets,
    drive::{Drive, Host, Occasion},
    health::{self, Health},
    io::Io,
    local_times::LocalTimes,
    managing::{Managing, Monitoring},
    ntp::{self, NtpServing, over_ptp::OverPtp},
    seed,
    services::Services,
    set_drop_figures, set_message_figures, set_stamp_figures,
    snapshot::{own_port, timestamps},
    start_output, unicast, virtual_clock,
};
use crate::{
    answers::{self, Answers, PortAnswers, Prefix, own_networks},
    clock::{Clock, served::ServedTime, virtual_clock::VirtualClock},
    engine::{
        Change, Command, Commands, Context, Engine, Input, LinkState, NoEvent, PortIndex,
        ReadClock, csptp, instance::Instance, node::Node, receiver::PortConfig,
        transmitter::TransmitterConfig, unicast::service::ServiceConfig,
    },
    publish::{
        alarms::{Facts, Role},
        http::Publication,
        json::{self},
        metrics::Direction,
        snapshot::{self, NtpServed, Port, Snapshot},
    },
    synce::SyncE,
    sys::clock::{host_reading, monotonic},
    zones::ZoneName,
};

/// Which time is served.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub enum ServedClock {
    /// CLOCK_REALTIME: as TAI on the PTP time scale where the kernel knows the TAI offset, otherwise
    /// as it is, on an arbitrary time scale.
    #[default]
    System,
    /// A software clock that starts at the host's time plus `offset` and gains `drift_ppb`.
    Virtual {
        /// Ahead of the host's time at the start.
        offset: Duration,
        /// Faster than the host's monotonic clock, parts per billion.
        drift_ppb: f64,
    },
}

/// What `serve` is told.
#[derive(Clone, Debug)]
pub struct ServeConfig {
    /// As for the other commands.
    pub common: Common,
    /// Which time is served.
    pub clock: ServedClock,
    /// `logSyncInterval`.
    pub log_sync_interval: i8,
    /// `logAnnounceInterval`.
    pub log_announce_interval: i8,
    /// `logMinDelayReqInterval`.
    pub log_min_delay_req_interval: i8,
    /// `priority1`.
    pub priority1: u8,
    /// `priority2`.
    pub priority2: u8,
    /// `clockClass`.
    pub clock_class: u8,
    /// Whether the brackets of stamps are told.
    pub tells_brackets: bool,
    /// Who answers requests, and how many.
    pub answers: answers::Config,
    /// Whether it falls silent where a better one serves.
    pub contends: bool,
    /// Whether and how NTP is served as well.
    pub ntp: Option<NtpServing>,
    /// What is granted to those who ask for unicast messages.
    pub unicast: Option<ServiceConfig>,
    /// Whether Announce and Sync go to all as well.
    pub multicast: bool,
    /// Exchanges that are answered beside.
    pub exchanges: csptp::Answers,
    /// Time zones whose local times are announced.
    pub time_zones: Vec<ZoneName>,
    /// Who may watch it.
    pub monitoring: Monitoring,
    /// In whose name requests are answered, instead of serving.
    pub answer_for: Option<AnswerFor>,
}

#[derive(Clone)]
pub(super) enum Served {
    /// The host's.
    System(ServedTime),
    /// A software clock.
    Virtual(VirtualClock),
}

impl Served {
    /// Reads the host's time anew, if that is what is served.
    pub(super) fn read(&mut self, now: Time<Mono>) {
        if let Self::System(time) = self {
            match host_reading() {
                Ok(reading) => time.read(now, reading),
                Err(error) => tracing::debug!(%error, "the kernel's clock"),
            }
        }
    }

    fn time_properties(&self) -> TimeProperties {
        match self {
            Self::Virtual(_) => TimeProperties::UNKNOWN,
            Self::System(time) => time.latest().time_properties(),
        }
    }
}

impl Served {
    /// What answers in the kernel are to be given with; `None` where the host's clock cannot be read.
    fn for_kernel(&self, now: Time<Mono>) -> Option<answers::Served> {
        let reading = match self {
            Self::System(time) => *time.latest(),
            Self::Virtual(_) => host_reading().ok()?,
        };
        let rate_ppb = match self {
            Self::System(_) => 0.0,
            Self::Virtual(clock) => clock.frequency_ppb(),
        };
        let real_minus_mono = reading.real_minus_mono;
        let tai_offset = Duration::from_secs(reading.tai_offset_s.into());
        let tai_minus_mono = real_minus_mono + tai_offset;
        let time = self.at(now)?;
        Some(answers::Served { mono: now, time, rate_ppb, real_minus_mono, tai_minus_mono })
    }
}

impl ReadClock for Served {
    /// The time that was served at `mono`, unless it was set around then.
    fn at(&self, mono: Time<Mono>) -> Option<Time<Ptp>> {
        match self {
            Self::Virtual(clock) => Some(clock.at(mono)),
            Self::System(time) => time.at(mono),
        }
    }
}

/// Serves until it is told to end; takes over what `reload` makes when it is told to (SIGHUP).
///
/// # Errors
/// [`AgentError`]: what the host lacks at the start, or a reader of the output that has gone.
pub async fn serve(
    config: ServeConfig,
    reload: Option<Reload<ServeConfig>>,
) -> Result<(), AgentError> {
    if config.answer_for.is_some() {
        return answer_for::answer(config, reload).await;
    }
    let ServeConfig { common, clock, .. } = &config;
    let mut ending = Ending::new(common.duration, reload.as_ref())?;
    let publication = Publication::default();
    let services = Services::start(common.serving.clone(), &publication, monotonic());
    let local_times = LocalTimes::open(&config.time_zones)?;
    let io = Io::open(kernel::io_config(&config))?;
    let answers = kernel::open(&config)?;
    let output = start_output(common.format)?;
    let start = monotonic();
    let identity = clock_identity(common, seed(common.seed));
    let count = u16::try_from(common.io.interfaces.len()).unwrap_or(u16::MAX);
    let ports: Vec<PortIndex> = (0..count).map(PortIndex).collect();
    let mut transmitter = TransmitterConfig {
        domain_number: common.domain,
        ports: count,
        priority1: config.priority1,
        priority2: config.priority2,
        log_sync_interval: config.log_sync_interval,
        log_announce_interval: config.log_announce_interval,
        log_min_delay_req_interval: config.log_min_delay_req_interval,
        seed: seed(common.seed),
        tells_brackets: config.tells_brackets,
        unicast: config.unicast.clone(),
        multicast: config.multicast,
        answers: config.exchanges,
        ..TransmitterConfig::new(identity)
    };
    transmitter.clock_quality.clock_class = config.clock_class;
    let served = match *clock {
        ServedClock::System => {
            let reading = host_reading()
                .map_err(|source| AgentError::Os { attempt: "read the kernel's clock", source })?;
            Served::System(ServedTime::new(start, reading))
        }
        ServedClock::Virtual { offset, drift_ppb } => {
            let mut clock = virtual_clock(start, offset);
            if let Err(error) = clock.set_frequency(start, drift_ppb) {
                tracing::warn!(%error, "served clock");
            }
            Served::Virtual(clock)
        }
    };
    transmitter.time_properties = served.time_properties();
    if let (Served::Virtual(clock), Some(output)) = (&served, &output) {
        output.emit(&json::Event::Clock(clock_line(clock, start)))?;
    }
    for port in &ports {
        tracing::info!(
            interface = io.interface(*port),
            domain = common.domain,
            transport = %common.io.transport,
            tx_source = io.sources(*port).map_or("?", |sources| sources.tx.name()),
            %identity,
            "serving"
        );
    }
    let mut commands = Commands::default();
    let mut cx = Context { now: start, clock: &served, out: &mut commands };
    let node = if config.contends {
        let port = PortConfig {
            log_announce_interval: config.log_announce_interval,
            ..PortConfig::default()
        };
        Node::yielding_server(transmitter, vec![port; ports.len()], &mut cx)
    } else {
        Node::server_only(transmitter, &mut cx)
    };
    let mut server = Drive::new(io, node, commands);
    for on in ports.iter().copied().filter(|port| !server.io.is_up(*port)).collect::<Vec<_>>() {
        let down = Input::Link { on, state: LinkState::Down };
        server.with(start, &served, |engine, cx| engine.handle(cx, down));
    }
    let mut ntp = config
        .ntp
        .map(|serving| ntp::Service::open(serving, common, served.clone(), publication.clone()))
        .transpose()?;
    let mut managing = Managing::new(&common.io, None, &config.monitoring, &publication);
    managing.about.is_time_scale_fixed = true;
    managing.look(start, &server.io, server.engine.instance_mut());
    let mut around = Around {
        managing,
        read_at: Time::ZERO,
        served,
        local_times,
        synce: SyncE::open(&common.io.interfaces, start),
        ports,
        start,
        identity,
        domain: common.domain,
        health: Health::new(Role::Transmitter, common.limits, publication.clone(), start),
        publication,
        services,
        reload,
        answers,
        over_ptp: ntp.as_ref().map(ntp::Service::over_ptp),
        serve_to: config.answers.serve_to.clone(),
        interfaces: common.io.interfaces.clone(),
    };
    around.look_after_networks(&mut server);
    around.look_after_zones(&mut server, start);
    around.look_after_answers(&mut server, monotonic());
    confinement::keep_system_calls(common.is_confined);
    match &mut ntp {
        None => server.run(&mut ending, &mut around).await?,
        Some(ntp) => {
            // Signals are the grandmaster's, with which it ends.
            let mut endless = Ending::never()?;
            tokio::select! {
                ended = server.run(&mut ending, &mut around) => ended?,
                ended = ntp.run(&mut endless) => ended?,
            }
        }
    }
    // Clients need not wait for the end of what they were granted.
    while server.with(monotonic(), &around.served, |engine, cx| engine.end_unicast(cx)) {
        server.flush();
    }
    server.flush();
    let (io, transmitter, ports) = (&server.io, &server.engine, &around.ports);
    let lost = losses(io, transmitter, ports);
    let duration_s = (monotonic() - start).as_secs_f64();
    let sent: u64 = ports
        .iter()
        .map(|port| transmitter.counters(*port).sent(ptp_common::wire::MessageType::Sync))
        .sum();
    match output {
        Some(output) => {
            let mut more = serde_json::Map::new();
            more.insert("syncs".into(), sent.into());
            if let Some(counts) = ports.first().and_then(|port| io.stamp_counts(*port)) {
                more.insert("timestamps".into(), json!(timestamps(&counts)));
            }
            output.emit(&json::Event::Summary(json::Summary {
                duration_s,
                samples: 0,
                lost,
                more,
            }))?;
            output.finish()?;
        }
        None => super::print(&format!(
            "{sent} Sync sent in {duration_s:.1} s; lost: {}",
            if lost.is_empty() { "nothing".to_owned() } else { format!("{lost:?}") },
        ))?,
    }
    Ok(())
}

type Server = Drive<Node>;

/// For so long a reading of the host's clock is one for all that was stamped before it.
const SAME: Duration = Duration::from_millis(1);

/// What is around a grandmaster.
struct Around {
    managing: Managing,
    /// When the served time was last read.
    read_at: Time<Mono>,
    served: Served,
    local_times: LocalTimes,
    synce: SyncE,
    ports: Vec<PortIndex>,
    start: Time<Mono>,
    identity: ClockIdentity,
    domain: u8,
    health: Health,
    publication: Publication,
    services: Services,
    reload: Option<Reload<ServeConfig>>,
    answers: Option<Answers>,
    over_ptp: Option<OverPtp>,
    /// Who alone is answered.
    serve_to: Vec<Prefix>,
    interfaces: Vec<String>,
}

impl Host<Node> for Around {
    fn clock(&self) -> &dyn ReadClock {
        &self.served
    }

    fn refresh(&mut self, server: &mut Server, now: Time<Mono>, occasion: Occasion) {
        // What lies between a stamp and its delivery is in the reading, also where that was behind another stamp that
        // was found at the same time.
        let is_known = self.read_at > server.io.drained() && now - self.read_at < SAME;
        if occasion == Occasion::Delivery && is_known {
            return;
        }
        self.read_at = now;
        self.served.read(now);
        server.engine.set_time_properties(self.served.time_properties());
        if let Some(answers) = &mut self.answers
            && let Some(served) = self.served.for_kernel(now)
        {
            answers.tell(now, &served);
        }
    }

    fn given(&mut self, server: &mut Server, input: &Input<'_>) {
        if let Some(ntp) = &mut self.over_ptp {
            ntp.given(monotonic(), &self.served, &mut server.io, input);
        }
    }

    fn told(&mut self, server: &mut Server, command: Command<NoEvent>) -> Result<(), AgentError> {
        if let Command::Changed(Change::PortState { port, old, new, reason }) = command {
            tracing::info!(
                interface = server.io.interface(port),
                from = old.name(),
                to = new.name(),
                reason = reason.name(),
                "port state"
            );
        }
        if let Command::Changed(change) = &command {
            let sets = || data_sets::of_transmitter(&server.engine, &self.managing.about);
            self.managing.changed(change, sets);
        }
        Ok(())
    }

    fn housekeep(&mut self, server: &mut Server, now: Time<Mono>) -> Result<(), AgentError> {
        self.manage(server, now);
        self.look_after_networks(server);
        self.look_after_zones(server, now);
        self.tell_prefixes(server);
        self.look_after_answers(server, now);
        self.publish(server, now);
        Ok(())
    }

    /// Takes over what those who follow can put up with.
    fn reload(&mut self, server: &mut Server) {
        self.health.reloading();
        let Some(new) = self.reload.as_mut().and_then(|reload| reload()) else { return };
        let now = monotonic();
        let (ingress, egress) = (&new.common.io.ingress_latency, &new.common.io.egress_latency);
        server.io.set_latencies(ingress.clone(), egress.clone());
        server.io.set_security(new.common.io.security.clone());
        let transmitter = &mut server.engine;
        transmitter.set_priorities(new.priority1, new.priority2);
        transmitter.set_intervals(
            now,
            new.log_sync_interval,
            new.log_announce_interval,
            new.log_min_delay_req_interval,
        );
        let clock_quality = transmitter.config().clock_quality;
        transmitter.set_quality(ClockQuality { clock_class: new.clock_class, ..clock_quality });
        self.local_times.change(&new.time_zones);
        self.health.set_limits(new.common.limits);
        self.services.change(new.common.serving, now);
    }
}

impl Around {
    /// Does what has been set by management.
    fn manage(&mut self, server: &mut Server, now: Time<Mono>) {
        self.managing.look(now, &server.io, server.engine.instance_mut());
        let engine = server.engine.instance_mut();
        for (port, command) in self.managing.carry_out(now, &mut server.io, engine) {
            server.with(now, &self.served, |node, cx| node.manage_port(cx, port, command));
        }
    }

    /// Who may be granted unicast messages: the interfaces' networks change as addresses do.
    fn look_after_networks(&self, server: &mut Server) {
        if server.engine.service().is_none() {
            return;
        }
        let networks = match self.serve_to.is_empty() {
            true => own_networks(&self.interfaces),
            false => self.serve_to.clone(),
        };
        server.engine.set_networks(networks);
    }

    /// Who may be sent more than came from there: who is in the own networks, and whom the configuration names.
    fn tell_prefixes(&self, server: &mut Server) {
        let engine = &mut server.engine;
        if engine.config().answers == csptp::Answers::default() {
            return;
        }
        let mut trusted = own_networks(&self.interfaces);
        trusted.extend(&self.serve_to);
        engine.set_prefixes(trusted, self.serve_to.clone());
    }

    fn look_after_answers(&mut self, server: &mut Server, now: Time<Mono>) {
        let Some(answers) = &mut self.answers else { return };
        self.served.read(now);
        if let Some(served) = self.served.for_kernel(now) {
            answers.tell(now, &served);
        }
        let Drive { io, engine, .. } = server;
        let (latency, egress_latency) = (io.ingress_latency(), io.egress_latency());
        answers.look_after(now, |index| {
            let port = PortIndex(u16::try_from(index).ok()?);
            let form = engine.delay_resp_form(port).filter(|_| io.is_up(port))?;
            Some(PortAnswers {
                response: form.to_vec(),
                domain: self.domain,
                sdo_id: 0,
                latency,
                egress_latency,
                forms: engine.answer_forms(now, port),
            })
        });
    }

    fn publish(&mut self, server: &Server, now: Time<Mono>) {
        let Drive { io, engine: transmitter, .. } = server;
        self.synce.look(now);
        let Self { ports, publication, health, services, answers, synce, .. } = self;
        let (ports_up, ports_down) = health::links(io, ports);
        let mut totals = health::totals(io, ports, |port| transmitter.counters(port));
        if let Some(answers) = answers {
            totals.refused +=
                ports.iter().map(|port| answers.refused(usize::from(port.0))).sum::<u64>();
        }
        let unanswered = answers.as_ref().and_then(Answers::shortfall);
        services.look_after(now);
        let is_unserved = services.is_lacking();
        let is_displaced = io.is_displaced();
        let rest = synce.facts(now);
        let refused = io.last_refused();
        let facts = Facts {
            totals,
            ports_up,
            ports_down,
            is_unserved,
            is_displaced,
            refused,
            unanswered,
            ..rest
        };
        health.check(now, &facts);
        for port in &*ports {
            let counters = transmitter.counters(*port);
            let interface = io.interface(*port);
            publication.metrics.update(interface, self.domain, |figures| {
                set_message_figures(figures, counters);
                if let Some((rx, tx)) = io.stamp_counts(*port) {
                    set_stamp_figures(figures, Direction::Rx, &rx);
                    set_stamp_figures(figures, Direction::Tx, &tx);
                }
                set_drop_figures(figures, counters, io.counts(*port));
                figures.unicast = unicast::figures(transmitter, *port, now);
                figures.answers = kernel::figures(answers.as_mut(), *port, counters);
            });
        }
        publication.metrics.set_synce(synce.figures(now));
        publication.metrics.set_ring_lost(io.ring_lost());
        // A grandmaster is healthy as long as it runs its loop.
        publication.set_followed_until(Instant::now() + StdDuration::from_secs(10));
        let (extras, time_zone_database) = self.local_times.status();
        let snapshot = Snapshot {
            extras,
            time_zone_database,
            command: Some(snapshot::Command::Serve.into()),
            uptime_s: Some((now - self.start).as_secs_f64()),
            clock_identity: Some(self.identity.to_string()),
            domain: Some(self.domain),
            ports: ports
                .iter()
                .map(|port| Port {
                    unicast: unicast::status(transmitter, *port, &[], now),
                    answers: Some(
                        answers.as_mut().and_then(|each| each.status(usize::from(port.0))),
                    ),
                    ..own_port(io, *port, transmitter.port_state(*port))
                })
                .collect(),
            synce: synce.status(now),
            dplls: synce.dplls().to_vec(),
            lost: losses(io, transmitter, ports),
            alarms: health.status(now),
            data_sets: Some(data_sets::of_transmitter(transmitter, &self.managing.about)),
            ntp_served: publication.ntp_served().map(|served| NtpServed {
                over_ptp: self
                    .over_ptp
                    .as_ref()
                    .map_or_else(BTreeMap::new, |it| ntp::named(it.counters())),
                ..served
            }),
            ..Snapshot::default()
        };
        if let Err(error) = publication.publish(snapshot) {
            tracing::debug!(%error, "status");
        }
    }
}

fn losses(io: &Io, transmitter: &Instance, ports: &[PortIndex]) -> BTreeMap<String, u64> {
    let mut lost = io.losses();
    for port in ports {
        for (cause, total) in transmitter.counters(*port).drops() {
            *lost.entry(cause.name().to_owned()).or_default() += total;
        }
    }
    lost.retain(|_, total| *total > 0);
    lost
}
