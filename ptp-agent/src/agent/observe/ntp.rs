//! Exchanges of NTP that pass by, of other programs on this host: told as they come, and kept for a line each second.

use std::{collections::BTreeMap, net::IpAddr};

use ptp_common::{
    classify::{Network, Protocol},
    record::{Direction, Record},
    time::{Duration, Mono, Time},
};
use serde::Serialize;

use super::super::{
    AgentError,
    drive::Outside as _,
    tap::{Tap, TapConfig, TapError},
};
use crate::{
    engine::ntp::{NtpAnswered, NtpAsked, NtpSeen, NtpWatch, Passing},
    publish::{http::Publication, json::Output, metrics::NtpFigures},
};

/// Other ends of which the latest is shown.
const SHOWN: usize = 32;

/// What is seen of NTP, and by which hooks.
pub(super) struct NtpEyes {
    tap: Tap,
    watch: NtpWatch,
    servers: BTreeMap<IpAddr, (NtpAsked, u64)>,
    clients: BTreeMap<IpAddr, (NtpAnswered, u64)>,
    /// For who reads lines of text: something is new.
    is_news: bool,
    failed: Option<AgentError>,
}

/// A line of JSON about an exchange of another program with a server.
#[derive(Serialize)]
struct AskedLine<'a> {
    event: &'static str,
    interface: &'a str,
    server: IpAddr,
    kind: crate::engine::ntp::ExchangeKind,
    mono_ns: i64,
    /// CLOCK_REALTIME minus the server's time.
    offset_ns: i64,
    delay_ns: i64,
    stratum: u8,
    rx_source: &'static str,
    tx_source: &'static str,
}

/// The same about an answer to a client.
#[derive(Serialize)]
struct AnsweredLine<'a> {
    event: &'static str,
    interface: &'a str,
    client: IpAddr,
    kind: crate::engine::ntp::ExchangeKind,
    mono_ns: i64,
    /// Claimed minus the stamp taken here.
    receive_difference_ns: i64,
    transmit_difference_ns: Option<i64>,
}

/// From whom it came, or to whom it goes.
fn peer(record: &Record) -> Option<IpAddr> {
    let address = match record.direction {
        Direction::Ingress => &record.source,
        Direction::Egress => &record.destination,
    };
    match record.network {
        Network::Ipv4 => Some(IpAddr::from(*address.first_chunk::<4>()?)),
        Network::Ipv6 => Some(IpAddr::from(*address)),
        Network::Ethernet => None,
    }
}

impl NtpEyes {
    pub(super) fn open(config: &TapConfig) -> Result<Self, TapError> {
        let tap = Tap::open(TapConfig { protocol: Protocol::Ntp, ..config.clone() })?;
        let (servers, clients) = Default::default();
        let watch = NtpWatch::default();
        Ok(Self { tap, watch, servers, clients, is_news: false, failed: None })
    }

    /// Takes what has passed, and tells it.
    pub(super) fn look(&mut self, now: Time<Mono>, output: Option<&Output>) {
        self.tap.drain(now);
        while let Some(packet) = self.tap.next_delivery() {
            let Some(peer) = peer(&packet.record) else { continue };
            let passing = Passing {
                direction: packet.record.direction,
                peer,
                bytes: packet.record.message(),
                stamp: packet.stamp.map(|stamp| (stamp, packet.real)),
            };
            let Some(seen) = self.watch.passed(now, &passing) else { continue };
            self.is_news = true;
            let interface = self.tap.name(packet.record.ifindex);
            let told = match (&seen, output) {
                (_, None) => Ok(()),
                (NtpSeen::Asked(asked), Some(output)) => output.emit(&AskedLine {
                    event: "ntp",
                    interface,
                    server: asked.server,
                    kind: asked.kind,
                    mono_ns: asked.at.time.as_nanos(),
                    offset_ns: asked.offset.as_nanos(),
                    delay_ns: asked.delay.as_nanos(),
                    stratum: asked.stratum,
                    rx_source: asked.at.source.name(),
                    tx_source: asked.sent.source.name(),
                }),
                (NtpSeen::Answered(answered), Some(output)) => output.emit(&AnsweredLine {
                    event: "ntp_claim",
                    interface,
                    client: answered.client,
                    kind: answered.kind,
                    mono_ns: answered.at.time.as_nanos(),
                    receive_difference_ns: answered.receive_difference.as_nanos(),
                    transmit_difference_ns: answered.transmit_difference.map(Duration::as_nanos),
                }),
            };
            if let Err(error) = told {
                self.failed.get_or_insert(error.into());
            }
            match seen {
                NtpSeen::Asked(asked) => keep(&mut self.servers, asked.server, asked),
                NtpSeen::Answered(answered) => keep(&mut self.clients, answered.client, answered),
            }
        }
    }

    /// Once a second: metrics, and a line for each other end that was heard.
    pub(super) fn housekeep(
        &mut self,
        now: Time<Mono>,
        output: Option<&Output>,
        publication: &Publication,
    ) -> Result<(), AgentError> {
        self.tap.check_links(now);
        if let Some(error) = self.failed.take() {
            return Err(error);
        }
        let seconds = |span: Duration| span.as_secs_f64();
        let figures = self.servers.iter().map(|(server, (asked, total))| {
            let figures = NtpFigures {
                offset_seconds: Some(-seconds(asked.offset)),
                delay_seconds: Some(seconds(asked.delay)),
                stratum: Some(asked.stratum),
                exchanges: *total,
                requests: *total,
                ..NtpFigures::default()
            };
            (server.to_string(), figures)
        });
        publication.metrics.set_ntp_servers(figures.collect());
        if output.is_some() || !std::mem::take(&mut self.is_news) {
            return Ok(());
        }
        for (server, (asked, total)) in &self.servers {
            super::super::print(&format!(
                "NTP server {server}: host clock ahead by {:+} ns  delay {} ns  {:?}  {total} exchanges",
                asked.offset.as_nanos(),
                asked.delay.as_nanos(),
                asked.kind,
            ))?;
        }
        for (client, (answered, total)) in &self.clients {
            let sent = answered.transmit_difference;
            let sent = sent.map_or_else(|| "?".to_owned(), |it| format!("{:+}", it.as_nanos()));
            super::super::print(&format!(
                "NTP client {client}: answer claims receive {:+} ns, transmit {sent} ns from the stamps here  {:?}  {total} answers",
                answered.receive_difference.as_nanos(),
                answered.kind,
            ))?;
        }
        Ok(())
    }
}

fn keep<T>(all: &mut BTreeMap<IpAddr, (T, u64)>, end: IpAddr, latest: T) {
    let total = all.remove(&end).map_or(0, |(_, total)| total);
    if all.len() == SHOWN {
        all.pop_first();
    }
    all.insert(end, (latest, total + 1));
}
