//! `ptp-agent observe`: a witness of other daemons. It sends nothing and opens no PTP port; what it
//! knows is what passes the hooks of its interfaces, in both directions, for all ports and domains.

mod esmc;
mod lines;
mod ntp;
mod ports;
mod slave_events;

use std::{
    collections::{BTreeMap, HashMap},
    path::PathBuf,
    time::{Duration as StdDuration, Instant},
};

use ptp_common::{
    record::Direction,
    time::{Duration, Mono, Time},
    wire::{MessageKey, MessageType},
};
use serde_json::{Map, json};

use super::{
    AgentError, Ending, Reload, confinement,
    drive::{Drive, HOUSEKEEPING, Host, Occasion},
    health::Health,
    services::{Services, Serving},
    start_output,
    tap::{Tap, TapConfig},
    unix_seconds,
};
use crate::publish::Format;
use crate::{
    engine::{
        Command, Commands, Input, Monotonic, ReadClock,
        observer::{
            ClaimSample, Observation, ObservedPacket, Observer, OffsetSample, PortKey,
            PortSnapshot, Refusals,
        },
    },
    publish::{
        alarms::{self, Facts, Limits, Role},
        http::Publication,
        json::{Event, Output, PTP, Sample, Summary},
        metrics::{self, MAX_PORTS, StampOutcome, message_type_name},
        snapshot::{self, Named, Observed, Observing, Snapshot},
    },
    security::Policy,
    stamp::StampSource,
    synce::SyncE,
    sys::clock::monotonic,
};
use lines::{ClaimLine, OffsetLine};
use ntp::NtpEyes;
use ports::{causes, in_order, is_worth_telling, line, ports};
use slave_events::{SlaveEventsHeard, SlaveEventsPassed};

/// An observation is worth a healthy answer for this long.
const FRESH: StdDuration = StdDuration::from_secs(10);
/// A time transmitter that has been silent for longer is not there.
const ANNOUNCED: Duration = Duration::from_secs(10);
/// No Sync for eight of these is an alarm: other daemons' Sync is mostly more frequent.
const SYNC_INTERVAL: Duration = Duration::from_secs(2);
/// Lines of text per second at the most, whatever passes by.
const MAX_LINES: usize = 32;
/// An observer has no servo; this stands where samples tell the servo's state.
const STATE: &str = "observing";

/// What `observe` is told.
#[derive(Clone, Debug)]
pub struct ObserveConfig {
    /// The interfaces, and how packets are stamped.
    pub tap: TapConfig,
    /// Whether exchanges of NTP are shown as well.
    pub ntp: bool,
    /// Where time receivers of this host tell what they have measured.
    pub slave_events: Option<PathBuf>,
    /// End by itself after this time.
    pub duration: Option<StdDuration>,
    /// Keys by which messages are checked.
    pub security: Option<Policy>,
    /// Where it can be asked.
    pub serving: Serving,
    /// What is tolerated before there is an alarm.
    pub limits: Limits,
    /// To give up system calls that are not needed once everything is open.
    pub is_confined: bool,
    /// How results are told.
    pub format: Format,
}

/// Observes until it is told to end; takes over what `reload` makes when it is told to (SIGHUP). `synce` has been opened
/// before privileges were given up.
///
/// # Errors
/// [`AgentError`]: what the host lacks at the start, or a reader of the output that has gone.
pub async fn observe(
    config: ObserveConfig,
    reload: Option<Reload<ObserveConfig>>,
    synce: SyncE,
) -> Result<(), AgentError> {
    let mut ending = Ending::new(config.duration, reload.as_ref())?;
    let publication = Publication::default();
    let services = Services::start(config.serving, &publication, monotonic());
    let slave_events = config.slave_events.map(SlaveEventsHeard::open).transpose()?;
    let ntp = config.ntp.then(|| NtpEyes::open(&config.tap)).transpose()?;
    let mut tap = Tap::open(config.tap)?;
    let output = start_output(config.format)?;
    let start = monotonic();
    for (interface, up, rx_source) in tap.interfaces() {
        tracing::info!(
            interface,
            up,
            rx_source = rx_source.name(),
            tx_source = tap.tx_source().name(),
            "observing"
        );
    }
    confinement::keep_system_calls(config.is_confined);
    tap.set_security(config.security);
    let teller = Teller::new(output, publication, services, config.limits, start);
    let mut around = Around {
        teller,
        reload,
        ntp,
        slave_events,
        passed: SlaveEventsPassed::default(),
        synce,
        refusals: Refusals::default(),
        clock: Monotonic::default(),
    };
    let mut eyes = Drive::new(tap, Observer::new(), Commands::default());
    eyes.run(&mut ending, &mut around).await?;
    // What has passed until now.
    let now = monotonic();
    eyes.io.drain(now);
    eyes.turn(now, &mut around)?;
    around.housekeep(&mut eyes, now)?;
    around.teller.summarise(now, &eyes.io, &eyes.engine)
}

type Eyes = Drive<Observer, Tap>;

/// What is around an observer.
struct Around {
    teller: Teller,
    reload: Option<Reload<ObserveConfig>>,
    ntp: Option<NtpEyes>,
    slave_events: Option<SlaveEventsHeard>,
    passed: SlaveEventsPassed,
    synce: SyncE,
    /// As many as were told of.
    refusals: Refusals,
    /// Nobody is told the time.
    clock: Monotonic,
}

impl Host<Observer, Tap> for Around {
    fn clock(&self) -> &dyn ReadClock {
        &self.clock
    }

    fn refresh(&mut self, _: &mut Eyes, now: Time<Mono>, occasion: Occasion) {
        if let (Some(ntp), Occasion::Turn) = (&mut self.ntp, occasion) {
            ntp.look(now, self.teller.output.as_ref());
        }
    }

    fn given(&mut self, eyes: &mut Eyes, input: &Input<'_>) {
        let Input::Passed(packet) = input else { return };
        let refusals = *eyes.engine.refusals();
        self.teller.count_refusal(&eyes.io, packet, &self.refusals, &refusals);
        self.refusals = refusals;
        self.teller.count_stamp(&eyes.io, packet);
        self.passed.pass(packet.interface, packet.bytes);
    }

    fn told(&mut self, eyes: &mut Eyes, command: Command<Observation>) -> Result<(), AgentError> {
        let Command::Event(observation) = command else { return Ok(()) };
        self.teller.tell(&eyes.io, &eyes.engine, &observation)
    }

    fn housekeep(&mut self, eyes: &mut Eyes, now: Time<Mono>) -> Result<(), AgentError> {
        if let Some(ntp) = &mut self.ntp {
            ntp.housekeep(now, self.teller.output.as_ref(), &self.teller.publication)?;
        }
        if let Some(heard) = &mut self.slave_events {
            heard.tell(self.teller.output.as_ref(), &self.teller.publication.management)?;
        }
        self.passed.tell(self.teller.output.as_ref(), &eyes.io)?;
        eyes.engine.advance(now);
        self.synce.look(now);
        self.teller.housekeep(now, &eyes.io, &eyes.engine, &self.synce);
        esmc::tell(self.teller.output.as_ref(), now, &self.synce)?;
        self.teller.print(now, &eyes.io, &eyes.engine)
    }

    fn reload(&mut self, eyes: &mut Eyes) {
        self.teller.health.reloading();
        let Some(new) = self.reload.as_mut().and_then(|reload| reload()) else { return };
        self.teller.health.set_limits(new.limits);
        self.teller.services.change(new.serving, monotonic());
        eyes.io.set_security(new.security);
    }
}

/// Where totals of metrics are kept: by interface and domain.
type Place = (String, u8);

/// Counts of stamps, by direction, source and outcome.
type Stamps = BTreeMap<(metrics::Direction, StampSource, StampOutcome), u64>;

/// Totals of all ports of a domain on an interface, also of ports that the observer has forgotten.
#[derive(Debug, Default)]
struct Totals {
    messages: BTreeMap<(metrics::Direction, MessageType), u64>,
    exchanges: BTreeMap<&'static str, u64>,
    stamps: Stamps,
}

/// Tells the world: log, standard output, metrics, status.
struct Teller {
    output: Option<Output>,
    publication: Publication,
    services: Services,
    start: Time<Mono>,
    samples: u64,
    health: Health,
    /// Sync messages that could be judged.
    syncs: u64,
    offset: Option<Duration>,
    totals: BTreeMap<Place, Totals>,
    /// What is in the totals already, per port.
    counted: HashMap<PortKey, PortSnapshot>,
}

impl Teller {
    fn new(
        output: Option<Output>,
        publication: Publication,
        services: Services,
        limits: Limits,
        start: Time<Mono>,
    ) -> Self {
        Self {
            output,
            health: Health::new(Role::Observer, limits, publication.clone(), start),
            syncs: 0,
            offset: None,
            publication,
            services,
            start,
            samples: 0,
            totals: BTreeMap::new(),
            counted: HashMap::new(),
        }
    }

    /// The totals of a domain on an interface; `None` beyond the number of ports that metrics show.
    fn totals(&mut self, place: Place) -> Option<&mut Totals> {
        if !self.totals.contains_key(&place) && self.totals.len() == MAX_PORTS {
            return None;
        }
        Some(self.totals.entry(place).or_default())
    }

    /// Counts what became of the stamp of an event message.
    fn count_stamp(&mut self, tap: &Tap, packet: &ObservedPacket<'_>) {
        let Ok(MessageKey { domain_number, .. }) = MessageKey::from_prefix(packet.bytes) else {
            return;
        };
        if !super::io::is_event(packet.bytes) {
            return;
        }
        let (direction, source) = match packet.direction {
            Direction::Ingress => (metrics::Direction::Rx, tap.rx_source_of(packet.interface)),
            Direction::Egress => (metrics::Direction::Tx, tap.tx_source()),
        };
        let outcome = match packet.stamp {
            Some(_) => StampOutcome::Matched,
            None => StampOutcome::Orphaned,
        };
        let place = (tap.name(packet.interface).to_owned(), domain_number);
        if let Some(totals) = self.totals(place) {
            *totals.stamps.entry((direction, source, outcome)).or_default() += 1;
        }
    }

    /// Counts a message that the observer refused, in a domain that is known: what the bytes of a
    /// broken message say must not make new ones.
    fn count_refusal(
        &mut self,
        tap: &Tap,
        packet: &ObservedPacket<'_>,
        before: &Refusals,
        after: &Refusals,
    ) {
        if before == after {
            return;
        }
        let domain_number = packet.bytes.get(4).copied().unwrap_or(0);
        let place = (tap.name(packet.interface).to_owned(), domain_number);
        if let Some(totals) = self.totals.get_mut(&place) {
            for ((cause, old), (_, new)) in before.iter().zip(after.iter()) {
                *totals.exchanges.entry(cause).or_default() += new - old;
            }
        }
    }

    fn tell(
        &mut self,
        tap: &Tap,
        observer: &Observer,
        observation: &Observation,
    ) -> Result<(), AgentError> {
        self.publication.set_followed_until(Instant::now() + FRESH);
        if matches!(observation, Observation::Offset(_) | Observation::SyncClaim(_)) {
            self.syncs += 1;
        }
        match observation {
            Observation::Offset(sample) => self.offset(tap, observer, sample),
            Observation::SyncClaim(claim) => self.claim(tap, MessageType::Sync, claim),
            Observation::DelayClaim(claim) => self.claim(tap, MessageType::DelayReq, claim),
            Observation::Delay(_) => Ok(()),
            Observation::PeerDelay(sample) => {
                let interface = tap.name(sample.domain.interface);
                if let Some(delay) = sample.delay {
                    self.publication.metrics.update(
                        interface,
                        sample.domain.domain_number,
                        |figures| figures.mean_path_delay_seconds = Some(delay.as_secs_f64()),
                    );
                }
                Ok(())
            }
        }
    }

    fn offset(
        &mut self,
        tap: &Tap,
        observer: &Observer,
        sample: &OffsetSample,
    ) -> Result<(), AgentError> {
        self.samples += 1;
        self.offset = Some(sample.offset);
        let interface = tap.name(sample.domain.interface);
        let domain = sample.domain.domain_number;
        if let Some(output) = &self.output {
            let is_source = |port: &&PortSnapshot| {
                (port.key.domain, port.key.port_identity) == (sample.domain, sample.source)
            };
            let source = observer.ports().find(is_source).and_then(|port| port.announced);
            output.emit(&OffsetLine {
                event: "sample",
                sample: &Sample {
                    interface: interface.to_owned(),
                    domain,
                    mono_ns: sample.at.as_nanos(),
                    offset_ns: sample.offset.as_nanos(),
                    raw_offset_ns: sample.raw_offset.as_nanos(),
                    delay_ns: sample.delay.map(Duration::as_nanos),
                    // As elsewhere the correction that would make the local clock run right.
                    frequency_ppb: sample.frequency_ppb.map_or(0.0, |faster| -faster),
                    // What others see of each other has no two ways of its own to be bounded by.
                    error_bound_ns: None,
                    precision_ns: None,
                    interval_ns: None,
                    state: Named::Other(STATE.into()),
                    rx_source: Some(sample.rx_source.name().into()),
                    tx_source: sample.tx_source.map(|source| source.name().into()),
                    strategy: None,
                    source: Some(sample.protocol.map_or(PTP, |it| it.name()).into()),
                    grandmaster: source.map(|it| it.announce.grandmaster_identity.to_string()),
                },
                source_port: sample.source.to_string(),
                vlan: sample.domain.vlan,
            })?;
        }
        self.publication.metrics.update(interface, domain, |figures| {
            figures.offset_from_master_seconds = Some(sample.offset.as_secs_f64());
            figures.mean_path_delay_seconds =
                sample.delay.map(Duration::as_secs_f64).or(figures.mean_path_delay_seconds);
            figures.last_sample_timestamp_seconds = Some(unix_seconds());
        });
        Ok(())
    }

    fn claim(
        &mut self,
        tap: &Tap,
        message: MessageType,
        claim: &ClaimSample,
    ) -> Result<(), AgentError> {
        if let Some(output) = &self.output {
            output.emit(&ClaimLine {
                event: "claim",
                interface: tap.name(claim.domain.interface),
                domain: claim.domain.domain_number,
                mono_ns: claim.at.as_nanos(),
                message: message_type_name(message),
                difference_ns: claim.difference.as_nanos(),
                source_port: claim.source.to_string(),
                requesting_port: claim.requester.map(|port| port.to_string()),
                vlan: claim.domain.vlan,
            })?;
        }
        Ok(())
    }

    /// What the alarms are judged by: of several time transmitters the one with the smallest identity
    /// stands for all, so that one that comes and goes changes nothing.
    fn facts(&self, now: Time<Mono>, tap: &Tap, observer: &Observer, synce: &SyncE) -> Facts {
        let announced = observer
            .ports()
            .filter(|port| now - port.last_seen < ANNOUNCED)
            .filter_map(|port| Some(port.announced?.announce.grandmaster_identity))
            .min_by_key(|identity| identity.0);
        let ports_up = tap.interfaces().filter(|(_, up, _)| *up).count();
        Facts {
            totals: alarms::Totals {
                syncs: self.syncs,
                ring_lost: tap.ring_lost(),
                unauthentic: tap.authentication().1.refusals().map(|(_, total)| total).sum(),
                ..alarms::Totals::default()
            },
            ports_up,
            ports_down: tap.interfaces().count() - ports_up,
            grandmaster: announced,
            interval: Some(SYNC_INTERVAL),
            offset: self.offset,
            is_displaced: tap.is_displaced(),
            is_unserved: self.services.is_lacking(),
            refused: tap.last_refused(),
            ..synce.facts(now)
        }
    }

    /// Brings alarms, metrics and status up to date.
    fn housekeep(&mut self, now: Time<Mono>, tap: &Tap, observer: &Observer, synce: &SyncE) {
        self.services.look_after(now);
        let facts = self.facts(now, tap, observer, synce);
        self.health.check(now, &facts);
        for port in observer.ports() {
            self.add(tap, port);
        }
        self.counted = observer.ports().map(|port| (port.key, port.clone())).collect();
        for ((interface, domain), totals) in &self.totals {
            self.publication.metrics.update(interface, *domain, |figures| {
                figures.messages.clone_from(&totals.messages);
                figures.exchanges.clone_from(&totals.exchanges);
                figures.timestamps.clone_from(&totals.stamps);
            });
        }
        self.publication.metrics.set_synce(synce.figures(now));
        self.publication.metrics.set_ring_lost(tap.ring_lost());
        let (has_keys, authentication) = tap.authentication();
        let snapshot = Snapshot {
            command: Some(snapshot::Command::Observe.into()),
            uptime_s: Some((now - self.start).as_secs_f64()),
            samples: Some(self.samples),
            observing: Observing {
                interfaces: tap
                    .interfaces()
                    .map(|(interface, up, rx_source)| Observed {
                        interface: interface.to_owned(),
                        up,
                        rx_source: rx_source.into(),
                        tx_source: tap.tx_source().into(),
                    })
                    .collect(),
                authentication: has_keys.then(|| snapshot::Authentication {
                    verified: authentication.verified,
                    unverified: authentication.unverified,
                    ..snapshot::Authentication::default()
                }),
            },
            synce: synce.status(now),
            dplls: synce.dplls().to_vec(),
            ports: ports(tap, observer),
            lost: self.losses(tap, observer),
            alarms: self.health.status(now),
            ..Snapshot::default()
        };
        if let Err(error) = self.publication.publish(snapshot) {
            tracing::debug!(%error, "status");
        }
    }

    /// Adds what is new of a port to the totals: the observer's own counts end with the port, and
    /// totals must not.
    fn add(&mut self, tap: &Tap, port: &PortSnapshot) {
        let before =
            self.counted.remove(&port.key).filter(|before| before.first_seen == port.first_seen);
        let place = (tap.name(port.key.domain.interface).to_owned(), port.key.domain.domain_number);
        let Some(totals) = self.totals(place) else { return };
        let direction = match port.key.direction {
            Direction::Ingress => metrics::Direction::Rx,
            Direction::Egress => metrics::Direction::Tx,
        };
        for kind in MessageType::ALL {
            let old = before.as_ref().map_or(0, |before| before.sent(kind));
            *totals.messages.entry((direction, kind)).or_default() +=
                port.sent(kind).saturating_sub(old);
        }
        let now = port.exchanges.iter().chain(port.losses.iter());
        let old = before.as_ref().map(|before| before.exchanges.iter().chain(before.losses.iter()));
        let old: Vec<u64> = old.into_iter().flatten().map(|(_, total)| total).collect();
        for (at, (name, total)) in now.enumerate() {
            // A loss may be taken back (a late packet); a total does not go down.
            *totals.exchanges.entry(name).or_default() +=
                total.saturating_sub(old.get(at).copied().unwrap_or(0));
        }
    }

    /// One line per port that has been heard since the last time.
    fn print(&self, now: Time<Mono>, tap: &Tap, observer: &Observer) -> Result<(), AgentError> {
        if self.output.is_some() {
            return Ok(());
        }
        let mut heard: Vec<&PortSnapshot> = observer
            .ports()
            .filter(|port| now - port.last_seen <= HOUSEKEEPING && is_worth_telling(port))
            .collect();
        heard.sort_by_key(|port| (port.key.domain, port.is_local(), port.first_seen));
        for port in heard.iter().take(MAX_LINES) {
            super::print(&line(tap, port))?;
        }
        if heard.len() > MAX_LINES {
            super::print(&format!("and {} ports more", heard.len() - MAX_LINES))?;
        }
        Ok(())
    }

    /// Everything that was lost or dropped, by cause.
    fn losses(&self, tap: &Tap, observer: &Observer) -> BTreeMap<String, u64> {
        let counts = tap.counts();
        let mut lost = BTreeMap::from([
            ("ring".to_owned(), tap.ring_lost()),
            ("malformed_record".to_owned(), tap.malformed()),
            ("rx_stamp_missing".to_owned(), counts.rx_without_stamp),
            ("tx_stamp_missing".to_owned(), counts.tx_without_stamp),
            ("output_lines".to_owned(), self.output.as_ref().map_or(0, Output::dropped)),
        ]);
        for (cause, total) in observer.refusals().iter() {
            *lost.entry(cause.to_owned()).or_default() += total;
        }
        for (cause, total) in observer.ports().flat_map(|port| port.losses.iter()) {
            *lost.entry(cause.to_owned()).or_default() += total;
        }
        for (cause, total) in tap.authentication().1.refusals() {
            *lost.entry(cause.to_owned()).or_default() += total;
        }
        lost.retain(|_, total| *total > 0);
        lost
    }

    fn summarise(self, now: Time<Mono>, tap: &Tap, observer: &Observer) -> Result<(), AgentError> {
        let mut lost = self.losses(tap, observer);
        let duration_s = (now - self.start).as_secs_f64();
        match self.output {
            Some(output) => {
                let more = Map::from_iter([("ports".to_owned(), json!(ports(tap, observer)))]);
                let samples = self.samples;
                // That nothing was lost here is worth being said: who counts packets relies on it.
                lost.entry("ring".to_owned()).or_insert(0);
                output.emit(&Event::Summary(Summary { duration_s, samples, lost, more }))?;
                output.finish()?;
            }
            None => {
                let lost = causes(lost.iter());
                super::print(&format!("observed for {duration_s:.1} s; lost: {lost}"))?;
                for port in in_order(observer) {
                    let sent: Vec<String> = MessageType::ALL
                        .into_iter()
                        .filter(|kind| port.sent(*kind) > 0)
                        .map(|kind| format!("{} {}", port.sent(kind), message_type_name(kind)))
                        .collect();
                    super::print(&format!("{}\n    sent {}", line(tap, port), sent.join(", ")))?;
                    let lost = causes(port.losses.iter().filter(|(_, total)| *total > 0));
                    let exchanges = causes(port.exchanges.iter());
                    super::print(&format!("    exchanges {exchanges}; lost: {lost}"))?;
                }
            }
        }
        Ok(())
    }
}
