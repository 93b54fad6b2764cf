//! `ptp-agent serve`: a software grandmaster. Its Follow_Up carries the kernel's stamp of its own
//! Sync, so it is as good as the stamps are, on any interface.

use std::{
    collections::BTreeMap,
    time::{Duration as StdDuration, Instant},
};

use ptp_common::{
    time::{Duration, Mono, Ptp, Time},
    wire::{Bracket, ClockQuality, Flags, TimeSource},
};
use serde_json::json;

use super::{
    AgentError, Asked, Common, Ending, Reload, clock_identity, clock_line, data_sets,
    health::{self, Health},
    io::{Delivery, Io, IoConfig},
    seed,
    services::Services,
    set_drop_figures, set_message_figures, set_stamp_figures, stamp_counts, start_output,
    virtual_clock,
};
use crate::{
    capture::{RxSource, TxSource},
    clock::{Clock, virtual_clock::VirtualClock},
    engine::{
        PortIndex,
        receiver::Action,
        transmitter::{Transmitter, TransmitterConfig},
    },
    publish::{
        alarms::{Facts, Role},
        http::Publication,
        json::{self},
        management::Setting,
        metrics::Direction,
    },
    sys::clock::{monotonic, realtime_minus_monotonic, tai_offset_seconds},
};

const HOUSEKEEPING: Duration = Duration::from_secs(1);

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
}

enum Served {
    System { tai_offset: Duration },
    Virtual(VirtualClock),
}

impl Served {
    fn at(&self, mono: Time<Mono>) -> Time<Ptp> {
        match self {
            Self::Virtual(clock) => clock.at(mono),
            Self::System { tai_offset } => {
                Time::from_epoch(mono.since_epoch() + realtime_minus_monotonic() + *tai_offset)
            }
        }
    }
}

/// Serves until it is told to end; takes over what `reload` makes when it is told to (SIGHUP).
///
/// # Errors
/// [`AgentError`]: what the host lacks at the start, or a reader of the output that has gone.
pub async fn serve(
    config: ServeConfig,
    mut reload: Option<Reload<ServeConfig>>,
) -> Result<(), AgentError> {
    let ServeConfig { common, clock, .. } = &config;
    let mut ending = Ending::new(common.duration, reload.as_ref())?;
    let publication = Publication::default();
    let mut services = Services::start(common.serving.clone(), &publication, monotonic());
    // Nobody tells a grandmaster when its messages arrived, so there is nothing to compare points by.
    let mut io = Io::open(IoConfig {
        rx_source: Some(common.io.rx_source.unwrap_or(RxSource::Stack)),
        tx_source: Some(common.io.tx_source.unwrap_or(TxSource::StartXmit)),
        ..common.io.clone()
    })?;
    let output = start_output(common.json)?;
    let start = monotonic();
    let identity = clock_identity(&common.io.interfaces, seed(common.seed));
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
        ..TransmitterConfig::new(identity)
    };
    transmitter.clock_quality.clock_class = config.clock_class;
    let mut served = match *clock {
        ServedClock::System => {
            let seconds = tai_offset_seconds().unwrap_or(0);
            if seconds != 0 {
                transmitter.time_flags = Flags::PTP_TIMESCALE | Flags::UTC_OFFSET_VALID;
                transmitter.current_utc_offset = i16::try_from(seconds).unwrap_or(37);
                transmitter.time_source = TimeSource::NTP;
            }
            Served::System { tai_offset: Duration::from_secs(i64::from(seconds)) }
        }
        ServedClock::Virtual { offset, drift_ppb } => {
            let mut clock = virtual_clock(start, offset);
            if let Err(error) = clock.set_frequency(start, drift_ppb) {
                tracing::warn!(%error, "served clock");
            }
            Served::Virtual(clock)
        }
    };
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
    let mut transmitter = Transmitter::new(transmitter, start);
    let mut housekeeping = start;
    let mut health = Health::new(Role::Transmitter, common.limits, publication.clone(), start);
    let housekeep = |now: Time<Mono>,
                     io: &Io,
                     transmitter: &Transmitter,
                     health: &mut Health,
                     services: &mut Services| {
        let (ports_up, ports_down) = health::links(io, &ports);
        let totals = health::totals(io, &ports, |port| transmitter.counters(port));
        services.look_after(now);
        let is_unserved = services.is_lacking();
        let is_displaced = io.is_displaced();
        let rest = Facts::default();
        let facts = Facts { totals, ports_up, ports_down, is_unserved, is_displaced, ..rest };
        health.check(now, &facts);
        for port in &ports {
            let counters = transmitter.counters(*port);
            let interface = io.interface(*port);
            publication.metrics.update(interface, common.domain, |figures| {
                figures.port_state =
                    Some(if io.is_up(*port) { "time_transmitter" } else { "disabled" });
                set_message_figures(figures, counters);
                if let Some((rx, tx)) = io.stamp_counts(*port) {
                    set_stamp_figures(figures, Direction::Rx, &rx);
                    set_stamp_figures(figures, Direction::Tx, &tx);
                }
                figures.priming = io.is_primed(*port);
                set_drop_figures(figures, counters, io.counts(*port));
            });
        }
        publication.metrics.set_ring_lost(io.ring_lost());
        publication.set_data_sets(data_sets::of_transmitter(transmitter));
        // A grandmaster is healthy as long as it runs its loop.
        publication.set_followed_until(Instant::now() + StdDuration::from_secs(10));
        let status = json!({
            "command": "serve",
            "clock_identity": identity.to_string(),
            "domain": common.domain,
            "uptime_s": (now - start).as_secs_f64(),
            "ports": ports.iter().map(|port| json!({
                "interface": io.interface(*port),
                "state": if io.is_up(*port) { "time_transmitter" } else { "disabled" },
                "sources": io.sources(*port),
                "timestamps": io.stamp_counts(*port).as_ref().map(stamp_counts),
            })).collect::<Vec<_>>(),
            "lost": losses(io, transmitter, &ports),
            "alarms": health.status(now),
        });
        if let Err(error) = publication.set_status(&status) {
            tracing::debug!(%error, "status");
        }
    };
    loop {
        let now = monotonic();
        transmitter.poll(now);
        carry(&mut io, &mut transmitter, &mut served);
        if now >= housekeeping {
            housekeeping = now + HOUSEKEEPING;
            for setting in publication.take_settings() {
                tracing::info!(?setting, "set through the management socket");
                let TransmitterConfig { priority1, priority2, .. } = *transmitter.config();
                match setting {
                    Setting::Priority1(new) => transmitter.set_priorities(new, priority2),
                    Setting::Priority2(new) => transmitter.set_priorities(priority1, new),
                }
            }
            housekeep(now, &io, &transmitter, &mut health, &mut services);
        }
        if ending.is_due(now) {
            break;
        }
        let until = transmitter.next_wakeup().map_or(housekeeping, |at| at.min(housekeeping));
        let until = ending.limit(until);
        tokio::select! {
            biased;
            asked = ending.signalled() => match asked {
                Asked::ToEnd => break,
                Asked::ToReload => {
                    health.reloading();
                    if let Some(new) = reload.as_mut().and_then(|reload| reload()) {
                        let now = monotonic();
                        reconfigure(&new, now, &mut io, &mut transmitter);
                        health.set_limits(new.common.limits);
                        services.change(new.common.serving, now);
                    }
                }
            },
            () = io.wait(until) => {}
        }
    }
    let lost = losses(&io, &transmitter, &ports);
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
                more.insert("timestamps".into(), stamp_counts(&counts));
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

/// Takes over what those who follow can put up with.
fn reconfigure(new: &ServeConfig, now: Time<Mono>, io: &mut Io, transmitter: &mut Transmitter) {
    let (ingress, egress) = (&new.common.io.ingress_latency, &new.common.io.egress_latency);
    io.set_latencies(ingress.clone(), egress.clone());
    transmitter.set_priorities(new.priority1, new.priority2);
    transmitter.set_intervals(
        now,
        new.log_sync_interval,
        new.log_announce_interval,
        new.log_min_delay_req_interval,
    );
    let TransmitterConfig { clock_quality, time_flags, current_utc_offset, .. } =
        *transmitter.config();
    let clock_quality = ClockQuality { clock_class: new.clock_class, ..clock_quality };
    transmitter.set_quality(clock_quality, time_flags, current_utc_offset);
}

/// Whole nanoseconds, no fewer.
fn nanos(span: Duration) -> i32 {
    i32::try_from(span.as_nanos().saturating_add(1)).unwrap_or(i32::MAX)
}

fn carry(io: &mut Io, transmitter: &mut Transmitter, served: &mut Served) {
    loop {
        while let Some(action) = transmitter.next_action() {
            match action {
                Action::SendEvent { port, token, peer_multicast, message } => {
                    io.send_event(port, token, peer_multicast, &message);
                }
                Action::SendGeneral { port, peer_multicast, message } => {
                    io.send_general(port, peer_multicast, &message);
                }
                Action::SendUnicast { port, to, message } => io.send_unicast(port, to, &message),
                _ => {}
            }
        }
        let Some(delivery) = io.next_delivery() else {
            return;
        };
        let now = monotonic();
        match delivery {
            Delivery::Message { port, bytes, stamp, source } => {
                let received = stamp.map(|stamp| served.at(stamp.time));
                // When the interrupt was is not known, only on which side of it the stamp is.
                transmitter.set_bracket(
                    stamp.map(|stamp| Bracket {
                        earliest_ns: i32::MIN,
                        latest_ns: nanos(stamp.doubt),
                    }),
                );
                transmitter.handle_message_from(now, port, &bytes, received, source);
            }
            Delivery::TxStamp { token, stamp } => {
                let sent = stamp.map(|stamp| served.at(stamp.time));
                let whole = stamp.filter(|stamp| stamp.late > Duration::ZERO);
                transmitter.set_bracket(whole.map(|stamp| Bracket {
                    earliest_ns: -nanos(stamp.doubt),
                    latest_ns: nanos(stamp.late),
                }));
                transmitter.handle_tx_stamp(token, sent);
            }
            Delivery::Link { port, up } => {
                tracing::info!(
                    interface = io.interface(port),
                    to = if up { "time_transmitter" } else { "disabled" },
                    "port state"
                );
                transmitter.handle_link(now, port, up);
            }
        }
    }
}

fn losses(io: &Io, transmitter: &Transmitter, ports: &[PortIndex]) -> BTreeMap<String, u64> {
    let mut lost = io.losses();
    for port in ports {
        for (cause, total) in transmitter.counters(*port).drops() {
            *lost.entry(cause.name().to_owned()).or_default() += total;
        }
    }
    lost.retain(|_, total| *total > 0);
    lost
}
