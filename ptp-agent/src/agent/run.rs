//! `ptp-agent run`: a time receiver that follows the best grandmaster its ports hear, with a clock
//! of its own or watching the host's.

mod apart;
mod host;
mod links;
mod managed;
mod pulse;
mod roles;
mod servers;
mod sources;
mod telling;

use std::{collections::BTreeMap, path::PathBuf};

use ptp_common::time::{Duration, Mono, Time};

use super::{
    AgentError, Common, Ending, Reload, clock_identity, clock_line, confinement,
    drive::{Drive, Host, Occasion},
    health::Health,
    io::{Io, PulseIo, pulse::Opened},
    link_server::AskedLinks,
    local_times::LocalTimes,
    managing::{Managing, Monitoring, phc_index},
    partners::{Partner, Partners},
    seed,
    services::Services,
    slave_events::SlaveEvents,
    start_output,
    steer::{self, Steering},
};
use crate::{
    clock::{ClockError, followed::Followed, policy::Limits},
    engine::{
        Command, Commands, Context, DelayMechanism, Monotonic, PortIndex, PortState, ReadClock,
        config::{AsCapable, LinkDelayService, PulseConfig, Rules},
        contention::Contention,
        discipline::{Discipline, Event, Policy},
        ntp::NtpConfig,
        receiver::{Acceptable, PortConfig, PortPart, ReceiverConfig},
        strategy::{self, Sending},
        unicast::client::ClientConfig,
    },
    publish::{
        alarms::Role,
        export::{Exporting, Exports},
        http::Publication,
        json,
    },
    recording::{self, Addresses, FollowedClock, Recorder, RecordingFile},
    servo::{Options, Servo},
    synce::SyncE,
    sys::clock::{host_reading, monotonic, realtime_minus_monotonic, tai_offset_seconds},
    transport::{TransportKind, interface_addresses, interface_mac},
    zones::ZoneName,
};
use apart::Apart;
pub use links::LinkSettings;
pub use pulse::PulseRun;
pub use servers::NamedServer;
use servers::Servers;
use telling::Teller;
pub use telling::ptp4l_line;

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

/// What is other on one interface.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct PortSettings {
    /// What carries its messages.
    pub transport: Option<TransportKind>,
    /// How its path delay is measured.
    pub delay_mechanism: Option<DelayMechanism>,
    /// Which roles it may take.
    pub part: PortPart,
    /// In whose name its link is measured.
    pub link_delay: Option<LinkDelayService>,
}

/// What `run` is told.
pub struct RunConfig {
    /// As for the other commands.
    pub common: Common,
    /// Print samples as ptp4l does.
    pub log_ptp4l: bool,
    /// In a laboratory: the host's clock is taken to be so far ahead of what it is.
    pub host_clock_offset: Duration,
    /// How the path delay is measured.
    pub delay_mechanism: DelayMechanism,
    /// Where the clock may serve as well: how. Identity, domain and ports are filled in.
    pub contention: Option<Contention>,
    /// Where it may serve: the zones whose local time it announces while it is the grandmaster.
    pub time_zones: Vec<ZoneName>,
    /// What is other on some interfaces.
    pub ports: BTreeMap<String, PortSettings>,
    /// As for [`PortConfig::sync_receipt_timeout`].
    pub sync_receipt_timeout: u8,
    /// As for [`PortConfig::local_priority`].
    pub local_priority: Option<u8>,
    /// Of the profile: of Announce, Sync and Delay_Req, log2 s.
    pub log_intervals: [i8; 3],
    /// `sdoId`.
    pub sdo_id: u16,
    /// As for [`PortConfig::rules`].
    pub rules: Rules,
    /// As for [`PortConfig::as_capable`].
    pub as_capable: Option<AsCapable>,
    /// How links are measured.
    pub links: LinkSettings,
    /// Whom it asks for time by unicast; nobody in it: multicast is followed.
    pub partners: Vec<Partner>,
    /// And for what.
    pub unicast: Option<ClientConfig>,
    /// As for [`PortConfig::hybrid`].
    pub hybrid: bool,
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
    /// How far the grandmaster is from UTC at the most, where it does not say so itself.
    pub grandmaster_accuracy: Option<Duration>,
    /// Which times are absurd, and how far a clock may go, be it the agent's or another program's.
    pub limits: Limits,
    /// As for [`PortConfig::assume_two_step`].
    pub assume_two_step: bool,
    /// As for [`ReceiverConfig::acceptable`].
    pub acceptable_masters: Vec<Acceptable>,
    /// As for [`ReceiverConfig::max_clock_class`].
    pub max_clock_class: u8,
    /// As for [`ReceiverConfig::witness_domains`].
    pub witness_domains: Vec<u8>,
    /// As for [`ReceiverConfig::on_disagreement`].
    pub on_disagreement: Policy,
    /// As for [`ReceiverConfig::ntp`]; the time is filled in.
    pub ntp: Option<NtpConfig>,
    /// A pulse per second.
    pub pulse: Option<PulseRun>,
    /// The same, opened before privileges were given up.
    pub pulses: Option<Opened>,
    /// These are asked, and nobody else is followed; none: whoever announces itself.
    pub servers: Vec<NamedServer>,
    /// The interval between requests to each, log2 s.
    pub log_request_interval: i8,
    /// What other programs are given.
    pub exporting: Exporting,
    /// Who may watch it.
    pub monitoring: Monitoring,
}

/// Runs until it is told to end; takes over what `reload` makes when it is told to (SIGHUP).
///
/// # Errors
/// [`AgentError`]: what the host lacks at the start, or a reader of the output that has gone.
pub async fn run(config: RunConfig, reload: Option<Reload<RunConfig>>) -> Result<(), AgentError> {
    let RunConfig {
        common,
        log_ptp4l,
        host_clock_offset,
        delay_mechanism,
        contention,
        time_zones,
        ports: port_settings,
        sync_receipt_timeout,
        local_priority,
        log_intervals: [log_announce_interval, _, log_min_delay_req_interval],
        sdo_id,
        rules,
        as_capable,
        links,
        partners,
        unicast,
        hybrid,
        strategy,
        clock,
        servo,
        servo_options,
        servo_name,
        record,
        delay_asymmetry,
        grandmaster_accuracy,
        limits,
        assume_two_step,
        acceptable_masters,
        max_clock_class,
        witness_domains,
        on_disagreement,
        ntp,
        pulse,
        pulses,
        servers,
        log_request_interval,
        exporting,
        monitoring,
    } = config;
    let exports = Exports::start(exporting, limits, monotonic());
    let mut ending = Ending::new(common.duration, reload.as_ref())?;
    let publication = Publication::default();
    let services = Services::start(common.serving.clone(), &publication, monotonic());
    let local_times = LocalTimes::open(&time_zones)?;
    let mut io = Io::open(common.io.clone())?;
    if let Some(pulses) = pulses {
        tracing::info!(source = %pulses.source(), "taking pulses");
        io.take_pulses(PulseIo::start(pulses)?);
    }
    let output = start_output(common.format)?;
    let start = monotonic();
    let seed = seed(common.seed);
    let identity = clock_identity(&common, seed);
    let ports: Vec<PortIndex> = (0..common.io.interfaces.len())
        .filter_map(|n| u16::try_from(n).ok())
        .map(PortIndex)
        .collect();
    let host_utc = realtime_minus_monotonic() + host_clock_offset;
    let servers = Servers::start(servers, &common.io);
    let receiver = ReceiverConfig {
        domain_number: common.domain,
        sdo_id,
        servers: servers
            .as_ref()
            .map(|servers| servers.configs(common.domain, log_request_interval))
            .unwrap_or_default(),
        ports: ports
            .iter()
            .map(|port| {
                let own = port_settings.get(io.interface(*port)).copied().unwrap_or_default();
                let serving = contention.as_ref().map(|contention| &contention.transmitter);
                let default = PortConfig::default();
                let port = PortConfig {
                    delay_mechanism: own.delay_mechanism.unwrap_or(delay_mechanism),
                    delay_asymmetry,
                    assume_two_step,
                    link_up: io.is_up(*port),
                    part: own.part,
                    sync_receipt_timeout,
                    local_priority,
                    as_capable,
                    rules,
                    unicast: unicast.clone(),
                    hybrid,
                    log_min_delay_req_interval: match servers {
                        Some(_) => log_request_interval,
                        None => log_min_delay_req_interval,
                    },
                    log_announce_interval: serving
                        .map_or(log_announce_interval, |serving| serving.log_announce_interval),
                    ..default
                };
                links.on(own.link_delay, port)
            })
            .collect(),
        contention,
        acceptable: acceptable_masters,
        max_clock_class,
        witness_domains,
        on_disagreement,
        ntp: ntp.map(|ntp| NtpConfig { utc: start.at_offset(host_utc), ..ntp }),
        strategy,
        pulse: pulse.map(|pulse| PulseConfig { tai_offset_s: tai_to_show(&clock), ..pulse.engine }),
        ..ReceiverConfig::new(identity, seed)
    };
    let real_minus_mono = realtime_minus_monotonic() + host_clock_offset;
    let host = start.at_offset(real_minus_mono);
    let mut followed = match &clock {
        ClockChoice::Virtual => Followed::virtual_at(start, host),
        ClockChoice::None => Followed::watching(start, host),
        ClockChoice::System(steering) => steer::take_over_system(steering).await?,
        ClockChoice::Phc(device, steering) => steer::take_over_phc(device, steering)?,
    };
    followed.set_limits(limits);
    let steering = clock.steering().cloned();
    let steering_device = match &clock {
        ClockChoice::Phc(device, _) => Some(device.clone()),
        _ => None,
    };
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
            let made = recording::Start::new(
                start,
                real_minus_mono,
                &receiver,
                interfaces,
                transport,
                clock,
                servo_name,
            );
            let mut asked = made.ntp.clone();
            let servers = asked.iter_mut().flat_map(|ntp| &mut ntp.servers);
            for (server, port) in servers.zip(ports.len() as u16..) {
                server.interface = io.interface(PortIndex(port)).to_owned();
            }
            let is_virtual = clock != FollowedClock::None;
            let note = recording::Start {
                options: (&servo_options).into(),
                limits: is_virtual.then_some((&limits).into()),
                ntp: asked,
                ..made
            };
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
            transport = %common.io.transport_of(io.interface(*port)),
            rx_source = io.sources(*port).map_or("?", |sources| sources.rx.name()),
            tx_source = io.sources(*port).map_or("?", |sources| sources.tx.name()),
            %identity,
            "listening"
        );
    }
    if let Some(ntp) = io.ntp() {
        for (interface, server) in ntp.asked() {
            tracing::info!(interface, server, "asking");
        }
    }
    let mut commands = Commands::default();
    let read = &Monotonic::default();
    let mut cx = Context { now: start, clock: read, out: &mut commands };
    let mut client = Discipline::new(receiver, servo, followed, &mut cx);
    client.set_boundary_clock_error(servo_options.boundary_clock_error);
    let slave_events = monitoring.slave_events.clone().map(SlaveEvents::open).transpose();
    let slave_events =
        slave_events.map_err(|source| AgentError::Os { attempt: "open a socket", source })?;
    let asked_links = links
        .asked(client.receiver())
        .map_err(|source| AgentError::Os { attempt: "open a socket", source })?;
    let index = match &steering_device {
        Some(device) => phc_index(device),
        None => None,
    };
    let mut managing = Managing::new(&common.io, index, &monitoring, &publication);
    managing.look(start, &io, client.instance_mut());
    let teller = Teller {
        managing,
        slave_events,
        output,
        health: Health::new(Role::Receiver, common.limits, publication.clone(), start),
        publication,
        services,
        sync_interval: None,
        clock_errors: 0,
        refusal: None,
        grandmaster_accuracy,
        rate_error_ppb: servo_options.rate_error_ppb,
        is_stepped_elsewhere: false,
        ports,
        samples: 0,
        steps: 0,
        last: None,
        apart: Apart::default(),
        capable: links::Told::default(),
        log_ptp4l,
        host_clock_offset,
        host_name: host_name(),
        remembered: None,
        printed: start,
        start,
        identity,
        partners: partners.iter().map(Partner::to_string).collect(),
        exports,
        limits: common.limits,
        servers,
        synce: SyncE::open(&common.io.interfaces, start),
        local_times,
    };
    let partners = Partners::start(&partners, common.io.transport);
    let mut runner = Drive::new(io, client, commands);
    runner.recorder = recorder;
    let clock = Monotonic::default();
    let mut around = Around { teller, steering, reload, clock, partners, asked_links };
    if let (Followed::Virtual(clock), Some(output)) = (runner.engine.clock(), &around.teller.output)
    {
        output.emit(&json::Event::Clock(clock_line(clock, start)))?;
    }
    confinement::keep_system_calls(common.is_confined);
    let kept = runner.run(&mut ending, &mut around).await;
    // Whoever serves is told that it need not any more.
    let clock = Monotonic::default();
    runner.with(monotonic(), &clock, |client, cx| client.end_unicast(cx));
    runner.flush();
    // What another program steers is left to it as it is.
    if !matches!(kept, Err(AgentError::Clock(ClockError::Interference { .. }))) {
        steer::release(&mut runner, monotonic(), around.steering.as_ref());
    }
    // The recording is to be whole however it ends.
    let recorded = runner.recorder.take().map(|recorder| recorder.finish(monotonic())).transpose();
    kept?;
    around.teller.housekeep(&runner)?;
    around.teller.summarise(&runner)?;
    if let Some(totals) = recorded? {
        tracing::info!(notes = totals.recorded, lost = totals.lost, "recorded");
    }
    Ok(())
}

/// A hardware clock shows TAI, where the kernel knows how far that is from UTC; all others show UTC.
fn tai_to_show(clock: &ClockChoice) -> Option<i16> {
    let ClockChoice::Phc(..) = clock else { return None };
    let offset = tai_offset_seconds().ok().and_then(|offset| i16::try_from(offset).ok());
    let offset = offset.filter(|offset| *offset != 0);
    if offset.is_none() {
        tracing::warn!("the kernel does not know TAI: with a pulse the hardware clock shows UTC");
    }
    offset
}

/// The host's name; empty where it has none.
fn host_name() -> String {
    nix::unistd::gethostname().map_or_else(|_| String::new(), |name| name.to_string_lossy().into())
}

fn addresses(interface: &str) -> Addresses {
    let (ipv4, ipv6) = interface_addresses(interface);
    Addresses { mac: interface_mac(interface), ipv4, ipv6 }
}

type Runner = Drive<Discipline<Followed>>;

/// What is around a time receiver.
struct Around {
    teller: Teller,
    steering: Option<Steering>,
    reload: Option<Reload<RunConfig>>,
    /// Pdelay_Req is answered by.
    clock: Monotonic,
    /// Where those are who are asked for time.
    partners: Partners,
    /// Links that another program measures.
    asked_links: Option<AskedLinks>,
}

impl Host<Discipline<Followed>> for Around {
    fn clock(&self) -> &dyn ReadClock {
        &self.clock
    }

    /// Reads the host's time.
    fn refresh(&mut self, runner: &mut Runner, now: Time<Mono>, occasion: Occasion) {
        if occasion == Occasion::Delivery {
            return;
        }
        let ports = &self.teller.ports;
        let is_silent = |number| {
            let is_silent =
                |port: &PortIndex| runner.engine.receiver().is_partner_silent(*port, number, now);
            ports.iter().all(is_silent)
        };
        for (number, address) in self.partners.news(now, is_silent) {
            for port in &self.teller.ports {
                runner.with(now, &self.clock, |client, cx| {
                    client.set_partner(cx, *port, number, address);
                });
            }
        }
        let real_minus_mono = realtime_minus_monotonic() + self.teller.host_clock_offset;
        runner.engine.clock_mut().read(now, now.at_offset(real_minus_mono));
        if runner.engine.receiver().may_take_either_role()
            && matches!(runner.engine.clock(), Followed::System(_))
            && let Ok(reading) = host_reading()
        {
            runner.engine.set_time_properties(reading.time_properties());
        }
        if let Some(recorder) = &mut runner.recorder {
            recorder.reading(now, real_minus_mono);
        }
    }

    fn told(&mut self, runner: &mut Runner, command: Command<Event>) -> Result<(), AgentError> {
        if let Command::Measured(measurement) = &command {
            runner.io.learn(measurement);
            self.teller.measured(measurement, runner);
            return Ok(());
        }
        if let Command::Event(Event::Ntp(event)) = &command
            && let Some(ntp) = runner.io.ntp_mut()
        {
            ntp.heard(event);
        }
        self.teller.tell(&command, runner)?;
        if let Command::Event(Event::Sample(sample)) = &command {
            let at = runner.engine.domain_time(sample.mono);
            runner.engine.instance_mut().note_measured(sample.offset, sample.delay, at);
        }
        Ok(())
    }

    fn settled(&mut self, runner: &mut Runner) {
        let parent = runner.engine.receiver().parent();
        runner.io.follow(parent.map(|parent| (parent.port, parent.set.parent_port_identity)));
        let sending = runner.engine.strategist().sending();
        for port in &self.teller.ports {
            // Who serves primes as `serve` does: where it helps.
            let serves = runner.engine.receiver().port_state(*port) == PortState::TimeTransmitter;
            runner.io.set_sending(*port, if serves { Sending::Free } else { sending });
        }
        runner.io.set_lull(runner.engine.receiver().next_sync());
    }

    fn housekeep(&mut self, runner: &mut Runner, now: Time<Mono>) -> Result<(), AgentError> {
        self.manage(runner, now);
        self.ask_links(runner, now);
        let accuracy = self.teller.grandmaster_accuracy;
        if let Some(servers) = &mut self.teller.servers {
            runner.hand(|engine, out| servers.look(engine, now, out));
        }
        roles::announce_local_times(&mut self.teller.local_times, &mut runner.engine, now);
        self.teller.is_stepped_elsewhere = steer::keep(&mut runner.engine, now, accuracy)?;
        self.teller.housekeep(runner)
    }

    /// Takes over what can change without losing lock.
    fn reload(&mut self, runner: &mut Runner) {
        let teller = &mut self.teller;
        teller.health.reloading();
        let Some(config) = self.reload.as_mut().and_then(|reload| reload()) else { return };
        let RunConfig {
            common,
            clock,
            servo_options,
            delay_asymmetry,
            limits,
            exporting,
            on_disagreement,
            time_zones,
            ..
        } = config;
        runner.io.set_latencies(common.io.ingress_latency, common.io.egress_latency);
        runner.io.set_security(common.io.security);
        let client = &mut runner.engine;
        client.set_delay_asymmetry(delay_asymmetry);
        client.set_step_thresholds(&servo_options);
        client.set_boundary_clock_error(servo_options.boundary_clock_error);
        client.set_on_disagreement(on_disagreement);
        client.clock_mut().set_limits(limits);
        if let (Some(steering), Some(new)) = (&mut self.steering, clock.steering()) {
            steering.limits = limits;
            steering.frequency_file.clone_from(&new.frequency_file);
        }
        teller.grandmaster_accuracy = config.grandmaster_accuracy;
        teller.limits = common.limits;
        teller.local_times.change(&time_zones);
        teller.health.set_limits(common.limits);
        teller.services.change(common.serving, monotonic());
        teller.exports.change(exporting, limits, monotonic());
    }
}
