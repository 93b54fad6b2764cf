//! The sources of time beside each other, for status, metrics and the alarm where they contradict each other.

use std::collections::BTreeMap;

use ptp_common::time::{Mono, Time};

use crate::{
    agent::bound::{ceiling, nanos_outwards},
    clock::followed::Followed,
    engine::{
        csptp::ServerConfig,
        discipline::{Discipline, Source, Standing},
        sources::SourceId,
    },
    publish::{
        metrics::{NtpFigures, NtsFigures, SourceFigures},
        snapshot::{NtpServer, SourceStatus, SourcesStatus},
    },
};

/// In a detail.
const NAMED: usize = 4;

/// The server that a source is.
fn asked(engine: &Discipline<Followed>, id: SourceId) -> Option<ServerConfig> {
    let SourceId::Ptp { port, .. } = id else { return None };
    engine.receiver().server(port)
}

fn name(engine: &Discipline<Followed>, id: SourceId) -> String {
    if let Some(ServerConfig { protocol, address: Some(address), .. }) = asked(engine, id) {
        return format!("{protocol} server {}", address.ip());
    }
    match id {
        SourceId::Ptp { domain_number, port } => format!("{port} in domain {domain_number}"),
        SourceId::Ntp(server) => format!("NTP server {server}"),
        SourceId::Pulse => "the pulse".to_owned(),
        SourceId::Nmea => "the receiver's sentences".to_owned(),
    }
}

/// What the snapshot says of them.
pub(super) fn status(engine: &Discipline<Followed>, now: Time<Mono>) -> SourcesStatus {
    let sources = engine.sources(now).map(|source| {
        let asked = asked(engine, source.id);
        let (kind, domain) = match source.id {
            SourceId::Ptp { domain_number, .. } => match asked {
                Some(server) => (server.protocol.name(), None),
                None => ("ptp", Some(domain_number)),
            },
            SourceId::Ntp(_) => ("ntp", None),
            SourceId::Pulse => ("pps", None),
            SourceId::Nmea => ("nmea", None),
        };
        SourceStatus {
            kind: kind.into(),
            domain,
            name: name(engine, source.id),
            grandmaster: source.grandmaster.to_string(),
            followed: source.is_followed,
            agrees: source.agrees,
            interval_ns: source.interval.map(nanos_outwards),
        }
    });
    SourcesStatus {
        standing: engine.standing().name().into(),
        on_disagreement: engine.on_disagreement().name().into(),
        of: sources.collect(),
    }
}

/// For metrics: how many agree, contradict or have no opinion yet, and which domain is followed.
pub(super) fn figures(engine: &Discipline<Followed>, now: Time<Mono>) -> SourceFigures {
    let mut figures = SourceFigures::default();
    for source in engine.sources(now) {
        match source.agrees {
            Some(true) => figures.agreeing += 1,
            Some(false) => figures.contradicting += 1,
            None => figures.unknown += 1,
        }
    }
    let receiver = engine.receiver();
    figures.followed =
        receiver.parent().map(|parent| match receiver.server(parent.set.parent_port_identity) {
            Some(server) => (server.protocol.name(), server.domain_number),
            None => ("ptp", receiver.domain_number()),
        });
    for server in receiver.servers(now) {
        figures.servers[usize::from(!server.is_answering)] += 1;
    }
    if engine.follows_ntp() || engine.follows_pulse() {
        let source = if engine.follows_ntp() { "ntp" } else { "pps" };
        figures.followed = engine.parent().map(|_| (source, 0));
    }
    figures
}

/// For metrics: what is known of each server of NTP.
pub(super) fn ntp_figures(servers: &[NtpServer]) -> BTreeMap<String, NtpFigures> {
    let seconds = |nanos: i64| nanos as f64 * 1e-9;
    servers
        .iter()
        .map(|server| {
            let figures = NtpFigures {
                offset_seconds: server.offset_ns.map(seconds),
                delay_seconds: server.delay_ns.map(seconds),
                root_distance_seconds: server.root_distance_ns.map(seconds),
                stratum: server.stratum,
                requests: server.requests,
                exchanges: server.exchanges,
                nts: server.nts.as_ref().map(|nts| NtsFigures {
                    state: nts.state.known().unwrap_or_default(),
                    key_exchanges: nts.key_exchanges,
                    failures: nts.failures,
                    naks: nts.naks,
                    refused: nts.refused,
                }),
                is_answering: Some(!(server.silent || server.denied)),
            };
            (server.name.clone(), figures)
        })
        .collect()
}

/// How far the clock has moved against servers of NTP, in words; `None` where it has not.
pub(super) fn shifted(engine: &Discipline<Followed>) -> Option<String> {
    let shifted = engine.shifted()?;
    let way = if shifted.by.is_negative() { "back" } else { "forward" };
    Some(format!(
        "{way} by {:.7} s, seen by {} of {} servers",
        shifted.by.abs().as_secs_f64(),
        shifted.seen_by,
        shifted.of
    ))
}

/// Which servers of NTP do not answer, in words; `None` while all do.
pub(super) fn silent(servers: &[NtpServer]) -> Option<String> {
    let told = |server: &NtpServer| match server.denied {
        true => format!("{} has refused service", server.name),
        false => format!("{} does not answer", server.name),
    };
    let silent: Vec<String> =
        servers.iter().filter(|server| server.silent || server.denied).map(told).collect();
    let left = servers.len() - silent.len();
    let rest = if silent.len() > NAMED { "; ..." } else { "" };
    (!silent.is_empty()).then(|| {
        let named = silent[..silent.len().min(NAMED)].join("; ");
        format!("{named}{rest}; {left} of {} answer", servers.len())
    })
}

/// Which sources contradict each other, in words; `None` while none do.
pub(super) fn contradicted(engine: &Discipline<Followed>, now: Time<Mono>) -> Option<String> {
    let done = match engine.standing() {
        Standing::Agreed => return None,
        Standing::Confirmed => "most agree with the one that is followed",
        Standing::Refuted => "most contradict the one that is followed",
        Standing::Open => "there is no majority",
    };
    let told = |source: &Source| {
        let place = source.interval.map_or_else(String::new, |interval| {
            let middle = (interval.lo + interval.hi).half();
            format!(
                " (clock ahead by {:.6} s within {} ns)",
                middle.as_secs_f64(),
                ceiling(interval.half_width())
            )
        });
        let mark = if source.is_followed { ", followed" } else { "" };
        format!("{}{place}{mark}", name(engine, source.id))
    };
    let known = engine.sources(now).filter(|source| source.interval.is_some());
    let all: Vec<String> = known.take(NAMED).map(|source| told(&source)).collect();
    Some(format!("{done}: {}", all.join("; ")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_does_not_answer_is_named_and_who_does_is_counted() {
        let server = |name: &str, silent, denied| NtpServer {
            name: name.to_owned(),
            silent,
            denied,
            ..NtpServer::default()
        };
        assert_eq!(silent(&[]), None);
        assert_eq!(silent(&[server("a", false, false)]), None);
        let told =
            silent(&[server("a", true, false), server("b", true, true), server("c", false, false)]);
        let told = told.expect("two are silent");
        assert_eq!(told, "a does not answer; b has refused service; 1 of 3 answer");
        let many: Vec<_> = (0..6).map(|_| server("x", true, false)).collect();
        assert!(silent(&many).is_some_and(|told| told.ends_with("; ...; 0 of 6 answer")));
    }
}
