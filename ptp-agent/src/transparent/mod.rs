//! `ptp-agent transparent`: a transparent clock (IEEE 1588-2019 10.2) for what this host forwards anyway, by
//! a bridge, a macvlan, routing, `tc mirred` or a guest's tap. The kernel programs time and correct; no
//! packet passes here but those few that came before their events had left. This is the loop that tells the
//! programs that somebody is there, keeps the ports up to date, sends what was held, and publishes.

mod attaching;
pub mod figures;
pub mod flowtables;
pub mod held;
pub mod ports;
pub mod programs;
pub mod rate;

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    os::fd::OwnedFd,
    time::{Duration as StdDuration, Instant},
};

use ptp_common::{
    residence::{Outcome, config},
    time::{Duration, Mono, Time},
};
use serde_json::{Value, json};
use socket2::Socket;
use tokio::{io::unix::AsyncFd, task::JoinHandle};

use crate::publish::Format;
use crate::{
    agent::{
        AgentError, Asked, Ending, Reload,
        health::Health,
        services::{Services, Serving},
        start_output,
        tap::ask_for_stamps,
    },
    capture::{CaptureError, ClockRelation},
    publish::{
        alarms::{Facts, Limits, Role},
        http::Publication,
        json::{Event, OutputError, Summary},
        metrics::Forwarding,
    },
    sys::{clock, packet, register_readable},
};
use figures::Lately;
use flowtables::Flows;
use held::Held;
use ports::{Port, Wanted};
use programs::{Departure, PortError, Programs};
use rate::{Follow, Known};

/// Between two signs of life to the programs.
const HEARTBEAT: Duration = Duration::from_millis(100);
/// Between two looks at ports and figures.
const HOUSEKEEPING: Duration = Duration::from_secs(1);
/// Between two looks at what is held, while something is.
const HELD_TICK: Duration = Duration::from_millis(1);
/// Between two questions to the agent that follows.
const RATE_INTERVAL: Duration = Duration::from_secs(2);
/// How long the programs go on without a sign of life: with timing, with corrections, with holding back.
const LIVES: [Duration; 3] =
    [Duration::from_secs(3), Duration::from_secs(2), Duration::from_secs(1)];
/// How long what is held may take at the end.
const FAREWELL: Duration = Duration::from_millis(100);

/// How a transparent clock accounts for the links.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum Delay {
    /// End to end: residence times alone.
    #[default]
    E2e,
    /// Peer to peer: residence times and the delay of the link by which Sync came.
    P2p,
}

/// What becomes of messages to the link-local group 01-80-C2-00-00-0E that are not about peer delay.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum LinkLocal {
    /// What the bridge does: it keeps them.
    #[default]
    Keep,
    /// They go to the other ports.
    Relay,
}

/// What `transparent` is told.
#[derive(Clone, Debug)]
pub struct TransparentConfig {
    /// The ports.
    pub wanted: Wanted,
    /// How links are accounted for.
    pub delay: Delay,
    /// Whether link-local messages are relayed, as 802.1AS wants.
    pub link_local: LinkLocal,
    /// Of each link, ns, where the peer delay mechanism of the port is somebody else's.
    pub link_delays: BTreeMap<String, u32>,
    /// Whose rate scales the residence times.
    pub follow: Follow,
    /// Event messages per second and port that are timed.
    pub events_per_second: u32,
    /// Where a message is taken to leave.
    pub departure: Departure,
    /// Withhold a general message whose event left nobody knows when.
    pub withholds: bool,
    /// Measure only: alter nothing.
    pub is_dry: bool,
    /// End by itself after this time.
    pub duration: Option<StdDuration>,
    /// Where it can be asked.
    pub serving: Serving,
    /// How results are told.
    pub format: Format,
}

impl TransparentConfig {
    /// What is usual.
    pub fn new(wanted: Wanted) -> Self {
        Self {
            wanted,
            delay: Delay::default(),
            link_local: LinkLocal::default(),
            link_delays: BTreeMap::new(),
            follow: Follow::default(),
            events_per_second: 20_000,
            departure: Departure::default(),
            withholds: true,
            is_dry: false,
            duration: None,
            serving: Serving::default(),
            format: Format::Text,
        }
    }
}

/// Why a transparent clock ended before it was asked to.
#[derive(Debug, thiserror::Error)]
pub enum TransparentError {
    /// The programs, or a port.
    #[error(transparent)]
    Port(#[from] PortError),
    /// What was named is not there.
    #[error("interface {0} does not exist")]
    NoInterface(String),
    /// Less than two ports forward nothing.
    #[error(
        "a transparent clock has two ports or more, and only {0} is given: add --interface, or name a bridge with --bridge"
    )]
    OnePort(String),
    /// Interfaces could not be listed.
    #[error("cannot list the interfaces: {0}")]
    Links(#[source] io::Error),
    /// The socket that sends what was held.
    #[error("cannot open a packet socket: {0}")]
    Socket(#[source] io::Error),
    /// As other commands.
    #[error(transparent)]
    Agent(#[from] AgentError),
    /// Standard output.
    #[error(transparent)]
    Output(#[from] OutputError),
}

impl TransparentError {
    /// Whether the host lacks something, which is exit code 3, or something failed, which is 1.
    pub fn is_missing_on_host(&self) -> bool {
        match self {
            Self::Port(PortError::Capture(error)) => error.is_missing_on_host(),
            Self::Agent(error) => error.is_missing_on_host(),
            Self::NoInterface(_) | Self::Socket(_) => true,
            _ => false,
        }
    }
}

/// The clock itself: programs, ports and what is held.
pub struct Transparent {
    config: TransparentConfig,
    programs: Programs,
    held: Held,
    ring: AsyncFd<OwnedFd>,
    sender: Socket,
    /// The same, past the port's queue.
    direct: Option<Socket>,
    /// Keeps the stack's receive stamps on; none are read from it.
    _stamps: Option<Socket>,
    ports: BTreeMap<String, (u8, Port)>,
    /// What was counted here, as the programs count.
    own_counts: BTreeMap<u32, u64>,
    /// By port, ns: as given, or as another agent measures them.
    link_delays: BTreeMap<String, u32>,
    rate: i64,
    rate_ppb: Option<f64>,
    /// Between these link-local messages are relayed, if they are.
    relays: Vec<u32>,
    /// Devices that could not be had, so that each is told once.
    refused: BTreeSet<u32>,
}

impl Transparent {
    /// Loads the programs and attaches them to the ports that are there.
    ///
    /// # Errors
    /// [`TransparentError`]: what was named is not there or cannot be had.
    pub async fn start(config: TransparentConfig) -> Result<Self, TransparentError> {
        let programs = Programs::load(config.departure).map_err(PortError::from)?;
        let sender = packet::open_frame_sender().map_err(TransparentError::Socket)?;
        let direct = packet::open_frame_sender()
            .and_then(|socket| packet::bypass_queue(&socket).map(|()| socket))
            .inspect_err(|error| tracing::debug!(%error, "what was held waits in the queue again"))
            .ok();
        let ring = programs
            .held_descriptor()
            .and_then(register_readable)
            .map_err(TransparentError::Socket)?;
        let mut this = Self {
            link_delays: config.link_delays.clone(),
            held: Held::new(config.withholds),
            config,
            programs,
            ring,
            sender,
            direct,
            _stamps: stamps(),
            ports: BTreeMap::new(),
            own_counts: BTreeMap::new(),
            rate: 0,
            rate_ppb: None,
            relays: Vec::new(),
            refused: BTreeSet::new(),
        };
        let links = ports::links().await.map_err(TransparentError::Links)?;
        if let Some(missing) = ports::missing(&links, &this.config.wanted).first() {
            return Err(TransparentError::NoInterface(missing.clone()));
        }
        let ports = ports::ports(&links, &this.config.wanted);
        if let (Wanted::Interfaces(_), [only]) = (&this.config.wanted, &ports[..]) {
            return Err(TransparentError::OnePort(only.name.clone()));
        }
        this.take_ports(ports, true)?;
        this.beat(clock::monotonic())?;
        Ok(this)
    }

    /// Tells the programs that somebody is there, and what they must know.
    fn beat(&mut self, now: Time<Mono>) -> Result<(), TransparentError> {
        let [time, alter, hold] = LIVES.map(|life| nanos(now + life));
        let relation = ClockRelation::now();
        let mut numbers = [0; config::LENGTH];
        numbers[config::TIME_UNTIL] = time;
        if !self.config.is_dry {
            numbers[config::ALTER_UNTIL] = alter;
            numbers[config::HOLD_UNTIL] = hold;
        }
        numbers[config::RATE] = self.rate.cast_unsigned();
        let tai_offset = relation.tai_minus_mono - relation.real_minus_mono;
        numbers[config::TAI_OFFSET] = tai_offset.as_nanos().cast_unsigned();
        numbers[config::REAL_MINUS_MONO] = relation.real_minus_mono.as_nanos().cast_unsigned();
        numbers[config::EVENTS_PER_SECOND] = self.config.events_per_second.into();
        numbers[config::WITHHOLDS] = self.config.withholds.into();
        numbers[config::IS_P2P] = (self.config.delay == Delay::P2p).into();
        numbers[config::RELAYS] = (self.config.link_local == LinkLocal::Relay).into();
        Ok(self.programs.tell(numbers).map_err(PortError::from)?)
    }

    /// Takes what the programs have taken out, and sends what need not wait any longer.
    fn serve_held(&mut self, now: Time<Mono>, all: bool) {
        while let Some((words, frame)) = self.programs.next_held() {
            self.held.take(now, &words, &frame);
        }
        if self.held.is_empty() {
            return;
        }
        let Self { programs, held, config, ports, link_delays, .. } = self;
        let is_p2p = config.delay == Delay::P2p;
        let link_ns = |number: u8| {
            let port = ports.values().find(|(known, _)| is_p2p && *known == number);
            port.and_then(|(_, port)| link_delays.get(&port.name)).copied().unwrap_or(0)
        };
        let released = held.release(
            now,
            all,
            self.rate,
            |port| link_ns(port).into(),
            |key| programs.residence(key),
        );
        for message in released {
            *self.own_counts.entry(message.count_place | message.outcome as u32).or_default() += 1;
            if message.outcome == Outcome::Withheld {
                continue;
            }
            // It has waited as long as its event, which has left: a queue that is longer than an interval of
            // Sync would bring it behind the next one. What goes as it came keeps its place behind its event.
            let past = (message.outcome == Outcome::CorrectedLate).then_some(self.direct.as_ref());
            let send = |socket| packet::send_frame(socket, message.ifindex, &message.frame);
            let is_sent = past.flatten().is_some_and(|direct| send(direct).is_ok());
            if !is_sent && let Err(error) = send(&self.sender) {
                tracing::debug!(%error, "what was held cannot be sent");
            }
        }
    }

    /// What has been done on each port.
    pub fn forwarding(&mut self) -> BTreeMap<String, Forwarding> {
        let mut all = BTreeMap::new();
        for (name, (number, _)) in &self.ports {
            let mut counts = self.programs.counts(*number);
            for (place, total) in &self.own_counts {
                if place >> 8 == u32::from(*number)
                    && let Some(count) = counts.get_mut((place & 0xff) as usize)
                {
                    *count += total;
                }
            }
            let histograms = self.programs.histograms(*number);
            all.insert(name.clone(), figures::forwarding(&counts, &histograms));
        }
        all
    }

    /// Times messages for so long, altering none if the configuration says so, and returns what was seen.
    ///
    /// # Errors
    /// [`TransparentError`]: the programs could not be told.
    pub async fn watch(
        &mut self,
        duration: StdDuration,
    ) -> Result<BTreeMap<String, Forwarding>, TransparentError> {
        let end = Instant::now() + duration;
        while Instant::now() < end {
            self.beat(clock::monotonic())?;
            tokio::time::sleep(StdDuration::from_millis(100)).await;
        }
        Ok(self.forwarding())
    }

    /// The ports, by name.
    pub const fn ports(&self) -> &BTreeMap<String, (u8, Port)> {
        &self.ports
    }

    fn status(&self, forwarding: &BTreeMap<String, Forwarding>) -> Vec<Value> {
        let port = |(name, (_, port)): (&String, &(u8, Port))| {
            let devices: Vec<&String> = port.leaves.iter().map(|(_, leaf)| leaf).collect();
            let mut status = forwarding.get(name).map_or(json!({}), figures::json_of);
            status["interface"] = name.as_str().into();
            status["devices"] = json!(devices);
            if self.config.delay == Delay::P2p {
                status["link_delay_ns"] = json!(self.link_delays.get(name));
            }
            status["xdp"] = port.has_xdp.into();
            status["flowtable"] = json!(port.flows.name());
            status["state"] = if port.is_up { "transparent" } else { "disabled" }.into();
            status
        };
        self.ports.iter().map(port).collect()
    }
}

/// A socket that wants stamps, and so makes the stack take them of all packets.
fn stamps() -> Option<Socket> {
    match ask_for_stamps() {
        Ok(socket) => Some(socket),
        Err(error) => {
            tracing::debug!(%error, "the stack takes no stamps; arrivals are timed at TC ingress");
            None
        }
    }
}

fn nanos(time: Time<Mono>) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(0)
}

/// Corrects until it is told to end.
///
/// # Errors
/// [`TransparentError`]: what the host lacks at the start, or a reader of the output that has gone.
pub async fn transparent(config: TransparentConfig) -> Result<(), TransparentError> {
    let mut ending = Ending::new(config.duration, None::<&Reload<()>>)?;
    let publication = Publication::default();
    let start = clock::monotonic();
    let mut services = Services::start(config.serving.clone(), &publication, start);
    let output = start_output(config.format)?;
    let mut this = Transparent::start(config).await?;
    let mut health = Health::new(Role::Transparent, Limits::default(), publication.clone(), start);
    let mut lately = Lately::default();
    let mut asking: Option<JoinHandle<Known>> = None;
    let (mut beat_at, mut housekeeping, mut rate_at) = (start, start, start);
    tracing::info!(ports = this.ports.len(), delay = ?this.config.delay, "transparent");
    loop {
        let now = clock::monotonic();
        this.serve_held(now, false);
        if now >= beat_at {
            beat_at = now + HEARTBEAT;
            this.beat(now)?;
        }
        if now >= rate_at {
            rate_at = now + RATE_INTERVAL;
            if asking.as_ref().is_some_and(JoinHandle::is_finished)
                && let Some(task) = asking.take()
            {
                this.take_known(task.await.unwrap_or_default())?;
            }
            if asking.is_none() && this.config.follow != Follow::Off {
                let (follow, own) =
                    (this.config.follow.clone(), this.config.serving.status_socket.clone());
                asking = Some(tokio::task::spawn_blocking(move || rate::ask(&follow, &own)));
            }
        }
        if now >= housekeeping {
            housekeeping = now + HOUSEKEEPING;
            this.look_at_ports().await;
            services.look_after(now);
            let forwarding = this.forwarding();
            lately.add(now, forwarding.values());
            let up = this.ports.values().filter(|(_, port)| port.is_up).count();
            let switched: Vec<&str> = this
                .ports
                .iter()
                .filter(|(_, (_, port))| port.is_switched || port.flows == Flows::Hardware)
                .map(|(name, _)| name.as_str())
                .collect();
            let facts = Facts {
                ports_up: up,
                ports_down: this.ports.len() - up,
                is_unserved: services.is_lacking(),
                uncorrected: lately.uncorrected(),
                is_relayed: lately.is_relayed(),
                switched: (!switched.is_empty()).then(|| switched.join(", ")),
                ..Facts::default()
            };
            health.check(now, &facts);
            let status = json!({
                "command": "transparent",
                "uptime_s": (now - start).as_secs_f64(),
                "rate_ppb": this.rate_ppb,
                "held_now": this.held.len(),
                "ports": this.status(&forwarding),
                "alarms": health.status(now),
            });
            if let Err(error) = publication.set_status(&status) {
                tracing::debug!(%error, "status");
            }
            publication.metrics.set_forwarding(forwarding);
            publication.set_followed_until(Instant::now() + StdDuration::from_secs(10));
        }
        if ending.is_due(now) {
            break;
        }
        let mut until = beat_at.min(housekeeping);
        if !this.held.is_empty() {
            until = until.min(now + HELD_TICK);
        }
        let left = (ending.limit(until) - clock::monotonic()).as_nanos();
        let left = StdDuration::from_nanos(u64::try_from(left).unwrap_or(0));
        tokio::select! {
            biased;
            asked = ending.signalled() => if asked == Asked::ToEnd { break },
            ready = this.ring.readable() => if let Ok(mut ready) = ready { ready.clear_ready() },
            () = tokio::time::sleep(left) => {}
        }
    }
    this.finish().await;
    let forwarding = this.forwarding();
    let duration_s = (clock::monotonic() - start).as_secs_f64();
    match output {
        Some(output) => {
            let mut more = serde_json::Map::new();
            more.insert("ports".into(), this.status(&forwarding).into());
            let lost = BTreeMap::new();
            output.emit(&Event::Summary(Summary { duration_s, samples: 0, lost, more }))?;
            output.finish()?;
        }
        None => crate::agent::print(&figures::text(duration_s, &forwarding))?,
    }
    Ok(())
}

impl Transparent {
    /// Takes what other agents know. A delay that was given on the command line stays.
    fn take_known(&mut self, known: Known) -> Result<(), TransparentError> {
        self.set_rate(known.rate_ppb);
        if self.config.delay == Delay::P2p {
            for (name, (number, _)) in &self.ports {
                let given = self.config.link_delays.get(name);
                if let Some(nanos) = given.or_else(|| known.link_delays.get(name)) {
                    self.link_delays.insert(name.clone(), *nanos);
                    let told = self.programs.set_link_delay(*number, (*nanos).into());
                    told.map_err(PortError::from)?;
                }
            }
        }
        Ok(())
    }

    fn set_rate(&mut self, rate_ppb: Option<f64>) {
        if rate_ppb.is_some() != self.rate_ppb.is_some() {
            match rate_ppb {
                Some(ppb) => tracing::info!(ppb, "residence times by the time transmitter's rate"),
                None => tracing::info!("residence times by this host's rate"),
            }
        }
        self.rate_ppb = rate_ppb;
        self.rate = rate_ppb.map_or(0, rate::scaled);
    }

    /// Holds nothing back any more, and lets go what is held.
    async fn finish(&mut self) {
        if let Err(error) = self.programs.tell([0; config::LENGTH]) {
            tracing::debug!(%error, "the programs cannot be told that this is the end");
        }
        let end = clock::monotonic() + FAREWELL;
        loop {
            let now = clock::monotonic();
            self.serve_held(now, now >= end);
            if self.held.is_empty() || now >= end {
                break;
            }
            tokio::time::sleep(StdDuration::from_millis(1)).await;
        }
        for ifindex in self.programs.attached() {
            self.programs.detach(ifindex);
        }
    }
}

impl From<CaptureError> for TransparentError {
    fn from(error: CaptureError) -> Self {
        Self::Port(error.into())
    }
}
