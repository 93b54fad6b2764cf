//! `ptp-agent run`: a time receiver that follows the best grandmaster its ports hear, with a clock
//! of its own or watching the host's.

mod telling;

use std::path::PathBuf;

use ptp_common::time::{Duration, Mono, Time};

use super::{
    AgentError, Asked, Common, Ending, Reload, clock_identity, clock_line,
    health::Health,
    io::{Delivery, Io},
    seed,
    services::Services,
    start_output,
    steer::{self, Steering},
};
use crate::{
    clock::{ClockError, followed::Followed, policy::Limits},
    engine::{
        DelayMechanism, PortIndex,
        client::{Client, Event},
        receiver::{Acceptable, Action, PortConfig, ReceiverConfig},
        strategy,
    },
    publish::{
        alarms::Role,
        export::{Exporting, Exports},
        http::Publication,
        json,
    },
    recording::{self, Addresses, FollowedClock, Recorder, RecordingFile},
    servo::{Options, Servo},
    sys::clock::{monotonic, realtime_minus_monotonic},
    transport::{interface_addresses, interface_mac},
};
use telling::Teller;

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
    /// How far the grandmaster is from UTC at the most, where it does not say so itself.
    pub grandmaster_accuracy: Option<Duration>,
    /// Which times are absurd, and how far a clock may go, be it the agent's or another program's.
    pub limits: Limits,
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
        servo_options,
        servo_name,
        record,
        delay_asymmetry,
        grandmaster_accuracy,
        limits,
        assume_two_step,
        acceptable_masters,
        exporting,
    } = config;
    let exports = Exports::start(exporting, limits, monotonic());
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
    let mut followed = match &clock {
        ClockChoice::Virtual => Followed::virtual_at(start, host),
        ClockChoice::None => Followed::watching(start, host),
        ClockChoice::System(steering) => steer::take_over_system(steering).await?,
        ClockChoice::Phc(device, steering) => steer::take_over_phc(device, steering)?,
    };
    followed.set_limits(limits);
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
            let made = recording::Start::new(
                start,
                real_minus_mono,
                &receiver,
                interfaces,
                transport,
                clock,
                servo_name,
            );
            let is_virtual = clock != FollowedClock::None;
            let note = recording::Start {
                options: (&servo_options).into(),
                limits: is_virtual.then_some((&limits).into()),
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
            transport = %common.io.transport,
            rx_source = io.sources(*port).map_or("?", |sources| sources.rx.name()),
            tx_source = io.sources(*port).map_or("?", |sources| sources.tx.name()),
            %identity,
            "listening"
        );
    }
    let port_configs = receiver.ports.clone();
    let mut client = Client::new(receiver, servo, followed, start);
    client.set_boundary_clock_error(servo_options.boundary_clock_error);
    let mut teller = Teller {
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
                    steer::keep(&mut self.client, now, teller.grandmaster_accuracy)?;
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
        let RunConfig { common, clock, servo_options, delay_asymmetry, limits, exporting, .. } =
            config;
        self.io.set_latencies(common.io.ingress_latency, common.io.egress_latency);
        self.client.set_delay_asymmetry(delay_asymmetry);
        self.client.set_step_thresholds(&servo_options);
        self.client.set_boundary_clock_error(servo_options.boundary_clock_error);
        self.client.clock_mut().set_limits(limits);
        if let (Some(steering), Some(new)) = (&mut self.steering, clock.steering()) {
            steering.limits = limits;
            steering.frequency_file.clone_from(&new.frequency_file);
        }
        teller.grandmaster_accuracy = config.grandmaster_accuracy;
        teller.health.set_limits(common.limits);
        teller.services.change(common.serving, monotonic());
        teller.exports.change(exporting, limits, monotonic());
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
            let sending = self.client.strategist().sending();
            for port in &teller.ports {
                self.io.set_sending(*port, sending);
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
