//! How the command line and the configuration file go together, and what is wrong with the result.

use std::{collections::BTreeMap, path::Path};

use ptp_common::{classify::Protocol, time::Duration};

use super::{
    args::{Delay, FollowArgs, ObserveArgs, PortArgs, ServeArgs, ServeClock, TapArgs},
    clock::RunClock,
    config::{Config, ConfigError},
    links, management,
    ntp::{Asking, Follow},
    roles::time_zones,
    unicast::service,
};
use crate::publish::Format;
use crate::{
    agent::{
        Common,
        io::{IoConfig, NtpIoConfig, Sender},
        managing::Monitoring,
        observe::ObserveConfig,
        run::{ClockChoice, RunConfig},
        serve::{ServeConfig, ServedClock},
        services::Serving,
        tap::TapConfig,
    },
    answers,
    capture::{Choice as PointChoice, Latencies, Latency},
    compare,
    engine::{csptp, discipline::MAX_WITNESS_DOMAINS, ntp::NtpPart},
    publish::alarms::{DEFAULT_OFFSET_LIMIT, Limits},
    recording::{RecordError, RecordingFile},
    security::file::KeyFileError,
    servo::{Options, Purpose, Servo, choice},
    stamp::StampSource,
    transport::{TransportKind, nts::TrustError},
};

/// What stands between the command line and a working command.
#[derive(Debug, thiserror::Error)]
pub(super) enum UsageError {
    #[error(transparent)]
    Config(#[from] ConfigError),
    #[error("no interface: name one with --interface, or in the configuration file")]
    NoInterface,
    #[error("no ports: name a bridge with --bridge, or two or more interfaces with --interface")]
    NoPorts,
    #[error("no configuration file: name one, or use --config")]
    NoConfig,
    #[error("interface {0} is named twice")]
    TwiceTheSame(String),
    #[error(transparent)]
    Record(#[from] RecordError),
    #[error(
        "the recording was made with servo {0:?}, which this program does not have; choose one with --servo"
    )]
    UnknownServo(String),
    #[error(
        "only the sender of a packet gets the driver's transmit stamp: choose another --tx-source for observe"
    )]
    DriverStampOfOthers,
    #[error(
        "cannot record while a clock of the host is steered: record with --clock virtual or none"
    )]
    NotRecordable,
    #[error("cannot record a clock that may serve: what it serves by is not recorded")]
    NotRecordableRole,
    #[error(
        "a clock that may serve needs one that follows: --clock virtual (the default then), system or phc"
    )]
    NothingToServe,
    #[error("{0} says how to serve, and with --role receiver nothing is served: add --role auto")]
    OnlyAuto(&'static str),
    #[error("profile {0}: {1}")]
    AgainstProfile(&'static str, String),
    #[error("{0} is measured end to end: the common service measures links, with delay p2p")]
    CommonServiceEndToEnd(String),
    #[error(
        "link-delay says who measures links here, and link-delay-server that another program does"
    )]
    LinksMeasuredTwice,
    #[error("link-delay = \"told\" is what link-delay-server makes of it: say who is asked")]
    LinksToldByNobody,
    #[error("--port names {0}, which is none of the interfaces")]
    NoSuchPort(String),
    #[error("{0} cannot be asked by {1}")]
    NoPartner(String, TransportKind),
    #[error("server {0} is named twice")]
    TwiceTheSamePartner(String),
    #[error("cannot record what is negotiated: where servers are is not recorded")]
    NotRecordableUnicast,
    #[error("{0}")]
    Export(&'static str),
    #[error("authentication is required, but there are no keys: name a file with --security")]
    NoKeys,
    #[error(transparent)]
    Keys(#[from] KeyFileError),
    #[error("nothing to follow: name servers of NTP with --ntp")]
    NoNtpServers,
    #[error("{0} needs a pulse: name its source with --pps")]
    NoPulse(&'static str),
    #[error("cannot record pulses: a recording has no place for them")]
    NotRecordablePulse,
    #[error("cannot find the server {0}: {1}")]
    NoSuchServer(String, #[source] std::io::Error),
    #[error("the server {0} is named twice, or two names are one address")]
    TwiceTheSameServer(String),
    #[error(transparent)]
    Trust(#[from] TrustError),
    #[error("with --follow ntp there is no PTP: {0} has no meaning")]
    OnlyPtp(&'static str),
    #[error("servers are asked over IP: --csptp and --sptp need --transport udp4 or udp6")]
    NoAddresses,
    #[error("--csptp and --sptp are for a clock that only follows: leave --role auto out")]
    AsksOrServes,
    #[error("{0} is out of range: {1}")]
    OutOfRange(&'static str, String),
}

fn interfaces(args: &TapArgs, config: &Config) -> Result<Vec<String>, UsageError> {
    let interfaces = if args.interface.is_empty() {
        config.interface.clone().unwrap_or_default()
    } else {
        args.interface.clone()
    };
    if interfaces.is_empty() {
        return Err(UsageError::NoInterface);
    }
    if let Some(twice) =
        interfaces.iter().enumerate().find(|(at, name)| interfaces[..*at].contains(name))
    {
        return Err(UsageError::TwiceTheSame(twice.1.clone()));
    }
    Ok(interfaces)
}

fn sources(args: &TapArgs, config: &Config) -> Result<(PointChoice, PointChoice), UsageError> {
    let rx = args.rx_source.or(config.rx_source()?);
    let tx = args.tx_source.or(config.tx_source()?);
    Ok((rx.unwrap_or_default(), tx.unwrap_or_default()))
}

fn serving(args: &TapArgs, config: &Config) -> Serving {
    let file = config.status_socket.as_ref();
    // What a path is parsed of is never refused.
    let file = || file.and_then(|text| text.parse().ok());
    Serving {
        metrics_address: args.metrics_address.or(config.metrics_address),
        status_socket: args.status_socket.clone().or_else(file).unwrap_or_default(),
        ..Serving::default()
    }
}

fn limits(args: &TapArgs, config: &Config) -> Limits {
    let offset = args.offset_threshold.or(config.offset_threshold);
    Limits {
        offset: offset.map_or(DEFAULT_OFFSET_LIMIT, |nanos| Duration::from_nanos(nanos.into())),
    }
}

fn is_confined(args: &TapArgs, config: &Config) -> bool {
    args.confine.or(config.confine).unwrap_or(true)
}

fn ring_bytes(args: &TapArgs, config: &Config) -> Option<u32> {
    args.ring_kib.or(config.ring_kib).map(|kib| kib * 1024)
}

/// `observe` knows no round trip of its own to compare points with, and others do not prime what they
/// send. It takes the point before the driver: a stamp that is never later than the wire has noise in
/// one direction only, which minimum filtering removes.
fn tap(args: &TapArgs, config: &Config) -> Result<TapConfig, UsageError> {
    let (rx_source, tx_source) = sources(args, config)?;
    if rx_source.is(StampSource::Hardware) {
        let problem = "hardware is for run and serve".to_owned();
        return Err(UsageError::OutOfRange("--rx-source", problem));
    }
    let tx_source = match tx_source {
        PointChoice::Fixed(StampSource::DriverSoftware | StampSource::Hardware) => {
            return Err(UsageError::DriverStampOfOthers);
        }
        PointChoice::Fixed(point) => point,
        PointChoice::Auto | PointChoice::AnyXdp => StampSource::StartXmit,
    };
    Ok(TapConfig {
        protocol: Protocol::Ptp,
        interfaces: interfaces(args, config)?,
        rx_source: rx_source.or(StampSource::Stack),
        tx_source,
        ring_bytes: ring_bytes(args, config),
    })
}

fn common(
    args: &PortArgs,
    config: &Config,
    format: Format,
    usual_dscp: u8,
) -> Result<Common, UsageError> {
    common_on(interfaces(&args.tap, config)?, args, config, format, usual_dscp)
}

fn common_on(
    interfaces: Vec<String>,
    args: &PortArgs,
    config: &Config,
    format: Format,
    usual_dscp: u8,
) -> Result<Common, UsageError> {
    let (rx_source, tx_source) = sources(&args.tap, config)?;
    let latencies = |given: &[Latency], file: &Option<Latencies>| {
        let given: Latencies = given.iter().copied().collect();
        file.as_ref().map_or_else(|| given.clone(), |file| given.clone().or(file))
    };
    let domain = args.domain.or(config.domain).unwrap_or(0);
    let security = args.tap.security.policy(config, &[domain])?;
    Ok(Common {
        io: IoConfig {
            interfaces,
            transport: args.transport.or(config.transport).unwrap_or_default(),
            rx_source,
            tx_source,
            prime: args.prime.or(config.prime).unwrap_or_default(),
            ingress_latency: latencies(&args.ingress_latency, &config.ingress_latency),
            egress_latency: latencies(&args.egress_latency, &config.egress_latency),
            ring_bytes: ring_bytes(&args.tap, config),
            is_pinned: false,
            acceptable_senders: Vec::new(),
            security: security.clone(),
            wire: Vec::new(),
            transports: BTreeMap::new(),
            ntp: None,
            marking: args.marking.marking(config, usual_dscp),
        },
        domain,
        clock_identity: args.marking.identity(config),
        duration: args.tap.duration,
        serving: Serving {
            security,
            management_socket: args
                .management_socket
                .clone()
                .or_else(|| config.management_socket.clone()),
            public_socket: args.monitoring.public_socket(config),
            ..serving(&args.tap, config)
        },
        limits: limits(&args.tap, config),
        is_confined: is_confined(&args.tap, config),
        format,
        seed: args.seed,
    })
}

/// The interface may come from the configuration file.
pub(super) fn compare_args(
    mut args: compare::Args,
    config: &Config,
) -> Result<compare::Args, UsageError> {
    if !args.lab && args.interface.is_none() {
        let interfaces = config.interface.clone().unwrap_or_default();
        args.interface = Some(interfaces.into_iter().next().ok_or(UsageError::NoInterface)?);
    }
    Ok(args)
}

pub(super) fn observe_config(
    args: ObserveArgs,
    config: &Config,
    format: Format,
) -> Result<ObserveConfig, UsageError> {
    Ok(ObserveConfig {
        tap: tap(&args.tap, config)?,
        ntp: args.ntp,
        slave_events: args.slave_event_monitor,
        security: args.tap.security.policy(config, &[])?,
        duration: args.tap.duration,
        serving: serving(&args.tap, config),
        limits: limits(&args.tap, config),
        is_confined: is_confined(&args.tap, config),
        format,
    })
}

pub(super) fn run_config(
    args: FollowArgs,
    config: Config,
    record: Option<&Path>,
    format: Format,
) -> Result<RunConfig, UsageError> {
    let mut args = args;
    let profile = args.roles.profile(&config.run);
    args.port.transport = args.port.transport.or(config.transport).or(Some(profile.transport));
    args.port.domain = args.port.domain.or(config.domain).or(Some(profile.domain));
    let follow = args.ntp.follow(&config.run);
    let interfaces = match interfaces(&args.port.tap, &config) {
        Err(UsageError::NoInterface) if follow == Follow::Pps => Vec::new(),
        interfaces => interfaces?,
    };
    let mut common = common_on(interfaces, &args.port, &config, format, profile.dscp)?;
    let monitoring = args.port.monitoring.monitoring(&config);
    let section = config.run;
    let delay_mechanism =
        args.delay.or(section.delay).map_or(profile.delay_mechanism, Delay::mechanism);
    profile.check(common.io.transport, common.domain, delay_mechanism)?;
    profile.check_intervals(args.roles.log_intervals(&section))?;
    common.io.is_pinned = section.pin_parent.unwrap_or(true);
    let witness_domains = match args.witness_domains.is_empty() {
        true => section.witness_domains.clone().unwrap_or_default(),
        false => args.witness_domains,
    };
    if witness_domains.len() > MAX_WITNESS_DOMAINS {
        let too_many = format!("{}, at most {MAX_WITNESS_DOMAINS}", witness_domains.len());
        return Err(UsageError::OutOfRange("--witness-domains", too_many));
    }
    for policy in [&mut common.io.security, &mut common.serving.security].into_iter().flatten() {
        policy.domains.extend(&witness_domains);
    }
    common.io.acceptable_senders = section.acceptable_senders.clone().unwrap_or_default();
    let needs_key = |sender: &Sender| matches!(sender, Sender::Key(_));
    if common.io.security.is_none() && common.io.acceptable_senders.iter().any(needs_key) {
        return Err(UsageError::NoKeys);
    }
    let knowledge = args.knowledge.or(&section);
    let is_negotiating = args.unicast.is_negotiating(&section);
    let roles = args.roles.or(&section, &common.io.interfaces, is_negotiating)?;
    let ports = common
        .io
        .interfaces
        .iter()
        .map(|name| (name.as_str(), roles.ports.get(name).copied().unwrap_or_default()));
    let ports: Vec<_> = ports.collect();
    let is_auto = roles.contention.is_some();
    let links = links::settings(&section, &profile, is_auto, delay_mechanism, &ports)?;
    let log_intervals = match is_negotiating {
        true => args.roles.log_intervals(&section),
        false => profile.log_intervals,
    };
    let unicast = args.unicast.or(&section, common.io.transport, &profile, log_intervals)?;
    if record.is_some() && (is_negotiating || unicast.hybrid) {
        return Err(UsageError::NotRecordableUnicast);
    }
    for (interface, port) in &roles.ports {
        if let Some(transport) = port.transport {
            common.io.transports.insert(interface.clone(), transport);
        }
    }
    let asking = args.ntp.or(&section)?;
    let ntp = asking.map(|Asking { config, peers }| {
        let interfaces = common.io.interfaces.clone();
        if config.part == NtpPart::Source {
            common.io.interfaces.clear();
        }
        let io = &common.io;
        let ntp_io = NtpIoConfig {
            base: u16::try_from(io.interfaces.len()).unwrap_or(u16::MAX),
            interfaces,
            peers,
            serves: false,
            rx_source: io.rx_source,
            tx_source: io.tx_source,
            prime: io.prime,
            ring_bytes: io.ring_bytes,
            ingress_latency: io.ingress_latency.clone(),
            egress_latency: io.egress_latency.clone(),
        };
        common.io.ntp = Some(ntp_io);
        config
    });
    if ntp.as_ref().is_some_and(|ntp| ntp.part == NtpPart::Source) {
        if roles.contention.is_some() {
            return Err(UsageError::OnlyPtp("--role auto"));
        }
        if !witness_domains.is_empty() {
            return Err(UsageError::OnlyPtp("--witness-domains"));
        }
    }
    let limits = config.clock.limits()?;
    let earliest_s = limits.earliest.as_nanos() / 1_000_000_000;
    let pulse = args.pulse.or(&section, follow, earliest_s)?;
    if record.is_some() && pulse.is_some() {
        return Err(UsageError::NotRecordablePulse);
    }
    let may_serve = roles.contention.is_some();
    let (servers, log_request_interval) =
        args.servers.or(&section, common.io.transport, may_serve)?;
    let default = if may_serve { RunClock::Virtual } else { RunClock::None };
    let clock = args.clock.or(section.clock).unwrap_or(default);
    if may_serve && clock == RunClock::None {
        return Err(UsageError::NothingToServe);
    }
    if may_serve && record.is_some() {
        return Err(UsageError::NotRecordableRole);
    }
    let permitted = args.management.management_set.or(section.management_set);
    management::permit(&mut common.serving, permitted);
    let monitoring = Monitoring {
        slave_events: args.management.slave_event_monitor.or(section.slave_event_monitor),
        ..monitoring
    };
    let exporting = args.export.exporting(config.export, &clock).map_err(UsageError::Export)?;
    let (clock, options) = match clock {
        RunClock::None => (ClockChoice::None, choice::Options::default()),
        RunClock::Virtual => (ClockChoice::Virtual, choice::Options::default()),
        RunClock::System => {
            let (steering, options) = config.clock.steering()?;
            (ClockChoice::System(steering), options)
        }
        RunClock::Phc(device) => {
            let (steering, options) = config.clock.phc_steering()?;
            (ClockChoice::Phc(device, steering), options)
        }
    };
    if record.is_some() && matches!(clock, ClockChoice::System(_) | ClockChoice::Phc(..)) {
        return Err(UsageError::NotRecordable);
    }
    let servo_options = knowledge.tell(options);
    let (servo, servo_name) = match clock {
        ClockChoice::None => (watching_servo(&servo_options), WATCH.to_owned()),
        _ => {
            let choice = args.servo.or(section.servo).unwrap_or_default();
            (choice::build(&choice, &servo_options), choice.to_string())
        }
    };
    Ok(RunConfig {
        common,
        log_ptp4l: args.log_ptp4l,
        host_clock_offset: Duration::from_nanos(args.host_clock_offset),
        delay_mechanism,
        local_priority: roles.local_priority,
        sdo_id: profile.sdo_id,
        rules: profile.rules,
        as_capable: roles.as_capable,
        links,
        log_intervals,
        partners: unicast.partners,
        unicast: unicast.client,
        hybrid: unicast.hybrid,
        contention: roles.contention,
        time_zones: roles.time_zones,
        ports: roles.ports,
        sync_receipt_timeout: roles.sync_receipt_timeout,
        strategy: args.strategy.or(section.strategy).unwrap_or_default(),
        clock,
        servo,
        servo_options,
        servo_name,
        record: record.map(RecordingFile::open).transpose()?,
        delay_asymmetry: Duration::from_nanos(
            args.delay_asymmetry.or(section.delay_asymmetry).unwrap_or(0),
        ),
        grandmaster_accuracy: knowledge.grandmaster_accuracy,
        limits,
        assume_two_step: section.assume_two_step.unwrap_or(false),
        acceptable_masters: section.acceptable_masters.unwrap_or_default(),
        max_clock_class: section.max_clock_class.unwrap_or(u8::MAX),
        witness_domains,
        on_disagreement: args.on_disagreement.or(section.on_disagreement).unwrap_or_default(),
        ntp,
        pulse,
        pulses: None,
        servers,
        log_request_interval,
        exporting,
        monitoring,
    })
}

/// What a recording says of the servo where the clock is only watched.
const WATCH: &str = "watch";

/// `options` as for a clock that is steered.
pub(super) fn watching_servo(options: &Options) -> Box<dyn Servo> {
    let options = Options { purpose: Purpose::Watch, ..*options };
    choice::build(&choice::Choice::default(), &options)
}

pub(super) fn serve_config(
    args: ServeArgs,
    config: Config,
    format: Format,
) -> Result<ServeConfig, UsageError> {
    let mut common = common(&args.port, &config, format, 0)?;
    // To enter the namespace at the other end of a wire takes more than a server needs.
    common.is_confined &= args.wire.is_empty();
    common.io.wire = args.wire;
    let monitoring = args.port.monitoring.monitoring(&config);
    let section = config.serve;
    let (unicast, multicast) = service(args.unicast, &section);
    management::permit(&mut common.serving, args.management_set.or(section.management_set));
    let offset = args.offset.or(section.offset);
    let drift = args.drift.or(section.drift).unwrap_or(0.0);
    let default =
        if offset.is_some() || drift != 0.0 { ServeClock::Virtual } else { ServeClock::System };
    let clock = match args.clock.or(section.clock).unwrap_or(default) {
        ServeClock::System => ServedClock::System,
        ServeClock::Virtual => {
            let offset = offset.unwrap_or(0.0);
            if !(-4e9..4e9).contains(&offset) {
                return Err(UsageError::OutOfRange("--offset", format!("{offset} s")));
            }
            if !(-500.0..=500.0).contains(&drift) {
                return Err(UsageError::OutOfRange("--drift", format!("{drift} ppm, at most 500")));
            }
            ServedClock::Virtual {
                offset: Duration::from_nanos_f64(offset * 1e9),
                drift_ppb: drift * 1e3,
            }
        }
    };
    let ntp = args.ntp.or(&section);
    let default = answers::Config::default();
    let per_second = args.answers_per_second.or(section.answers_per_second.map(u32::from));
    let per_client = args.answers_per_client.or(section.answers_per_client.map(u32::from));
    let answers = answers::Config {
        mode: args.kernel_answers.or(section.kernel_answers).unwrap_or_default(),
        per_second: per_second.unwrap_or(default.per_second),
        per_client: per_client.unwrap_or(default.per_client),
        serve_to: if args.serve_to.is_empty() {
            section.serve_to.unwrap_or_default()
        } else {
            args.serve_to
        },
        ..default
    };
    let answer_for = args.answer_for.or(section.answer_for);
    if answer_for.is_some() && answers.mode == answers::Mode::Off {
        let text = "off, and with --answer-for nobody else answers".to_owned();
        return Err(UsageError::OutOfRange("--kernel-answers", text));
    }
    let time_zones = time_zones(&args.time_zone, section.time_zone.as_deref())?;
    Ok(ServeConfig {
        common,
        ntp,
        clock,
        log_sync_interval: args.log_sync_interval.or(section.log_sync_interval).unwrap_or(0),
        log_announce_interval: args
            .log_announce_interval
            .or(section.log_announce_interval)
            .unwrap_or(1),
        log_min_delay_req_interval: args
            .log_min_delay_req_interval
            .or(section.log_min_delay_req_interval)
            .unwrap_or(0),
        priority1: args.priority1.or(section.priority1).unwrap_or(128),
        priority2: args.priority2.or(section.priority2).unwrap_or(128),
        clock_class: args.clock_class.or(section.clock_class).unwrap_or(248),
        time_zones,
        contends: args.contend.or(section.contend).unwrap_or(false),
        exchanges: csptp::Answers {
            csptp: args.csptp.or(section.csptp).unwrap_or(false),
            sptp: args.sptp.or(section.sptp).unwrap_or(false),
        },
        tells_brackets: args.stamp_brackets.or(section.stamp_brackets).unwrap_or(true),
        answer_for,
        unicast,
        multicast,
        answers,
        monitoring,
    })
}
