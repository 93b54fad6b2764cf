//! A pulse per second as status, metrics and alarms tell it.

use std::collections::BTreeMap;

use ptp_common::time::{Duration, Mono, Time};

use super::Runner;
use crate::{
    agent::io::{
        hardware::relation,
        pulse::{PulseIo, PulseIoConfig},
    },
    engine::{
        config::PulseConfig,
        discipline::PulseStatus,
        nmea::Fix,
        pulse::{Refusal, State},
    },
    publish::{
        alarms::PulseFacts,
        metrics::PulseFigures,
        snapshot::{NmeaLine, Pulse},
    },
};

/// More of the latest edges than this were wrong: the pulse is not to be relied on.
const WRONG: f64 = 0.25;
/// A receiver that names seconds is silent after this.
const NMEA_SILENCE: Duration = Duration::from_secs(10);

/// What `run` is told of a pulse.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PulseRun {
    /// What it is for.
    pub engine: PulseConfig,
    /// Where it comes from.
    pub io: PulseIoConfig,
}

fn outcomes(status: &PulseStatus, io: &PulseIo) -> BTreeMap<&'static str, u64> {
    let counters = &status.counters;
    let refused = Refusal::ALL.into_iter().map(|why| (why.name(), counters.refused(why)));
    let counts = io.counts();
    let others = [
        ("used", counters.used),
        ("missed", counters.missed),
        ("wrong_second", counters.wrong_second),
        ("renumbered", counters.renumbered),
        ("moved", counters.moved),
        ("clock_stepped", counts.stepped),
        ("overrun", counts.overrun),
    ];
    refused.chain(others).collect()
}

fn sentences(status: &PulseStatus) -> BTreeMap<&'static str, u64> {
    let Some(nmea) = &status.nmea else { return BTreeMap::new() };
    let it = &nmea.counters;
    [
        ("named", it.named),
        ("other", it.other),
        ("no_fix", it.no_fix),
        ("checksum", it.checksum),
        ("malformed", it.malformed),
        ("too_long", it.too_long),
        ("rollover", it.rollover),
    ]
    .into()
}

const fn fix(fix: Fix) -> &'static str {
    match fix {
        Fix::Unknown => "unknown",
        Fix::Yes => "yes",
        Fix::No => "no",
    }
}

/// For the status.
pub(super) fn status(runner: &Runner, now: Time<Mono>) -> Option<Pulse> {
    let (status, io) = (runner.engine.pulse(now)?, runner.io.pulse()?);
    let named = |counts: BTreeMap<&'static str, u64>| {
        let counts = counts.into_iter().filter(|(_, total)| *total > 0);
        counts.map(|(name, total)| (name.to_owned(), total)).collect()
    };
    Some(Pulse {
        source: io.config().source.to_string(),
        state: status.state.name().into(),
        followed: status.is_followed,
        refused: status.refused.map(|why| why.name().into()),
        offset_ns: status.offset.map(Duration::as_nanos),
        jitter_ns: status.jitter.as_nanos(),
        interval_error_ppb: status.rate_ppb,
        wrong_second: status.is_wrong_second,
        pulses: named(outcomes(&status, io)),
        nmea: status.nmea.map(|nmea| NmeaLine {
            device: io.config().nmea.as_ref().map(|(path, _)| path.display().to_string()),
            fix: fix(nmea.fix).into(),
            rolled_over: nmea.is_rolled_over,
            age_s: nmea.age.map(Duration::as_secs_f64),
            sentences: named(sentences(&status)),
        }),
        phc: io.relation().map(relation),
    })
}

/// For metrics.
pub(super) fn figures(runner: &Runner, now: Time<Mono>) -> Option<PulseFigures> {
    let (status, io) = (runner.engine.pulse(now)?, runner.io.pulse()?);
    Some(PulseFigures {
        state: status.state,
        offset_seconds: status.offset.map(Duration::as_secs_f64),
        jitter_seconds: status.jitter.as_secs_f64(),
        pulses: outcomes(&status, io),
        sentences: sentences(&status),
        fix: status.nmea.map(|nmea| nmea.fix == Fix::Yes),
    })
}

/// For alarms.
pub(super) fn facts(runner: &Runner, now: Time<Mono>) -> PulseFacts {
    let Some(status) = runner.engine.pulse(now) else { return PulseFacts::default() };
    let is_wrong = status.wrong_lately > WRONG;
    let refused = (is_wrong || status.is_wrong_second).then(|| {
        let share = (status.wrong_lately * 16.0).round();
        let why =
            status.refused.map_or(String::new(), |why| format!(", the last one: {}", why.name()));
        let second = if status.is_wrong_second {
            "; others call the pulses another second than they have counted"
        } else {
            ""
        };
        format!("{share} of the last 16 edges were wrong{why}{second}")
    });
    let unnumbered = (status.state == State::Unnumbered).then(|| {
        let nmea = match status.nmea {
            None => "no --nmea",
            Some(nmea) if nmea.fix == Fix::No => "the receiver has no fix",
            Some(nmea) if nmea.age.is_none_or(|age| age > NMEA_SILENCE) => {
                "the receiver names no second"
            }
            Some(_) => "the receiver names seconds",
        };
        let why = match status.refused {
            Some(Refusal::Disputed) => "those who say which second it is contradict each other",
            Some(Refusal::NoSecond) => "no second begins there by those who know the time",
            Some(Refusal::Leap) => "a leap second is near",
            _ => "nobody says which second it is, or not well enough",
        };
        format!("{why}; {nmea}")
    });
    let rolled_over = status.nmea.is_some_and(|nmea| nmea.is_rolled_over).then(|| {
        "the receiver's date is 1024 weeks or more in the past; it was brought forward".to_owned()
    });
    PulseFacts { is_lost: status.state == State::Silent, refused, unnumbered, rolled_over }
}
