//! Everything that the laboratory has learnt from its children so far, and the summary that it
//! makes of it.

use std::{
    borrow::Cow,
    collections::{BTreeMap, VecDeque},
};

use serde::Serialize;
use serde_json::{Map, Value};

use super::{
    Args,
    beside::{self, Ptp4lSummary},
    peers::{News, Role},
    trust::{Judged, Kept, Promise, trimmed_rms},
    truth::{ClockHistory, Truth, true_error},
};
use crate::{
    publish::{
        json::{ClockLine, Event, Sample, Summary},
        statistics::{ErrorStatistics, Statistics},
    },
    servo::ServoState,
    sys::clock::{monotonic, realtime_minus_monotonic},
};
use ptp_common::time::Duration;

/// Log lines kept for the view and for messages.
const LOG_LINES: usize = 200;

/// The figures of a sample that the report is made of.
#[derive(Clone, Debug)]
pub(super) struct Point {
    /// When, CLOCK_MONOTONIC nanoseconds.
    pub mono_ns: i64,
    /// The servo's estimate, nanoseconds.
    pub offset_ns: i64,
    /// That of the exchange alone, nanoseconds.
    pub raw_offset_ns: i64,
    /// Mean path delay, nanoseconds.
    pub delay_ns: Option<i64>,
    /// Correction of the agent clock's frequency, parts per billion.
    pub frequency_ppb: f64,
    /// True error at that instant as known when the sample came, nanoseconds: for the live view. The
    /// report evaluates it again, with what became known later.
    pub true_error_ns: Option<f64>,
    /// What the agent promised.
    pub promise: Promise,
}

/// What is known of both children.
#[derive(Debug, Default)]
pub(super) struct Observation {
    /// The grandmaster serves the host's time, perhaps on another time scale, whole seconds apart.
    is_host_time: bool,
    /// The agent has no clock: the host's minus the offset that it tells stands for it.
    watches: bool,
    /// When the agent's servo was locked first, CLOCK_MONOTONIC nanoseconds.
    locked_ns: Option<i64>,
    /// The agent's clock.
    pub agent_clock: ClockHistory,
    /// The grandmaster's clock.
    pub grandmaster_clock: ClockHistory,
    /// All samples of the agent.
    pub points: Vec<Point>,
    /// The last one in full.
    pub last: Option<Sample>,
    /// How many samples came from which pair of sources, receive and transmit.
    pub sources: BTreeMap<(String, String), u64>,
    /// The agent's own summary.
    pub agent_summary: Option<Summary>,
    /// The grandmaster's own summary.
    pub grandmaster_summary: Option<Summary>,
    /// What ptp4l has printed, where it runs beside.
    pub ptp4l: Vec<beside::Offset>,
    /// The last lines of all logs.
    pub log: VecDeque<(Role, String)>,
}

impl Observation {
    /// Of a laboratory with these options.
    pub(super) fn new(args: &Args) -> Self {
        let mut this = Self {
            is_host_time: !args.grandmaster.is_own(),
            watches: args.watches(),
            ..Self::default()
        };
        if this.is_host_time {
            this.grandmaster_clock.push(host_clock());
        }
        if this.watches {
            this.agent_clock.push(host_clock());
        }
        this
    }

    /// Takes note of what a child sent; tells when one has ended.
    pub(super) fn take(&mut self, news: News) -> Option<(Role, std::process::ExitStatus)> {
        match news {
            News::Event(role, event, promise) => {
                if self.note(role, event).is_some()
                    && let Some(point) = self.points.last_mut()
                {
                    point.promise = promise;
                }
                None
            }
            News::Log(role, line) => {
                self.note_log(role, line);
                None
            }
            News::Ended(role, status) => Some((role, status)),
        }
    }

    /// Takes note of one event. Returns the point it made, if it was a sample.
    pub(super) fn note(&mut self, role: Role, event: Event) -> Option<&Point> {
        match (role, event) {
            (Role::Agent, Event::Clock(line)) if !self.watches => self.agent_clock.push(line),
            (Role::Grandmaster, Event::Clock(line)) => self.grandmaster_clock.push(line),
            (Role::Agent, Event::Summary(summary)) => self.agent_summary = Some(summary),
            (Role::Grandmaster, Event::Summary(summary)) => {
                self.grandmaster_summary = Some(summary);
            }
            (Role::Agent, Event::Sample(sample)) => {
                let name = |source: &Option<Cow<'_, str>>| source.as_deref().unwrap_or("-").into();
                let sources = (name(&sample.rx_source), name(&sample.tx_source));
                *self.sources.entry(sources).or_default() += 1;
                if sample.state == ServoState::Locked {
                    self.locked_ns.get_or_insert(sample.mono_ns);
                }
                self.points.push(Point {
                    mono_ns: sample.mono_ns,
                    offset_ns: sample.offset_ns,
                    raw_offset_ns: sample.raw_offset_ns,
                    delay_ns: sample.delay_ns,
                    frequency_ppb: sample.frequency_ppb,
                    true_error_ns: self.true_error_ns(&sample),
                    promise: Promise::default(),
                });
                self.last = Some(sample);
                return self.points.last();
            }
            (Role::Agent, Event::Clock(_) | Event::Host(_))
            | (Role::Grandmaster, Event::Host(_))
            | (Role::Grandmaster, Event::Sample(_))
            | (Role::Ptp4l, _)
            | (_, Event::Ntp(_) | Event::Unknown) => {}
        }
        None
    }

    /// Keeps a log line.
    pub(super) fn note_log(&mut self, role: Role, line: String) {
        if role == Role::Ptp4l {
            self.ptp4l.extend(beside::parse(&line));
        }
        if self.log.len() == LOG_LINES {
            self.log.pop_front();
        }
        self.log.push_back((role, line));
    }

    /// The last log lines of one child, for the message about its end.
    pub(super) fn last_words(&self, role: Role) -> String {
        let lines: Vec<&str> =
            self.log.iter().filter(|(of, _)| *of == role).map(|(_, line)| line.as_str()).collect();
        lines[lines.len().saturating_sub(5)..].join("\n  ")
    }

    fn true_error_ns(&self, sample: &Sample) -> Option<f64> {
        let truth = self.difference(sample.mono_ns)?.as_nanos_f64();
        Some(if self.watches { truth - sample.offset_ns as f64 } else { truth })
    }

    /// The agent's clock minus the grandmaster's, where they are on one time scale.
    fn difference(&self, mono_ns: i64) -> Option<Duration> {
        let error = true_error(&self.agent_clock, &self.grandmaster_clock, mono_ns)?;
        Some(if self.is_host_time { error - whole_seconds(error) } else { error })
    }

    /// When both clocks ran for the first time, CLOCK_MONOTONIC nanoseconds.
    pub(super) fn start_ns(&self) -> Option<i64> {
        Some(self.agent_clock.start_ns()?.max(self.grandmaster_clock.start_ns()?))
    }

    /// The true error of the whole run, until the agent was last heard of.
    pub(super) fn truth(&self) -> Truth {
        let last_sample = self.points.last().map(|point| point.mono_ns);
        let Some(end) = last_sample.max(self.agent_clock.last_ns()) else {
            return Truth::default();
        };
        if self.watches {
            let locked = self.locked_ns.unwrap_or(i64::MAX);
            let points = self.points.iter().filter(|point| point.mono_ns >= locked);
            let errors = points.filter_map(|point| Some((point.mono_ns, point.true_error_ns?)));
            return Truth::of_errors(errors);
        }
        let instants = self.points.iter().map(|point| point.mono_ns);
        let grandmaster = match true_error(&self.agent_clock, &self.grandmaster_clock, end) {
            Some(error) if self.is_host_time => self.grandmaster_clock.moved(whole_seconds(error)),
            _ => self.grandmaster_clock.clone(),
        };
        // An agent that starts with the host's time is right by chance until it has measured.
        let begin = if self.is_host_time { self.locked_ns.unwrap_or(i64::MAX) } else { i64::MIN };
        Truth::evaluate(&self.agent_clock, &grandmaster, instants, (begin, end))
    }

    /// How the agent's promises were kept, from `from_s` on.
    fn kept(&self, truth: &Truth, from_s: f64) -> Kept {
        let points = self
            .points
            .iter()
            .filter(|point| seconds_since(truth.start_ns, point.mono_ns) >= from_s);
        Kept::of(points.filter_map(|point| {
            let truth_ns = self.difference(point.mono_ns)?.as_nanos_f64();
            Some(Judged { truth_ns, promise: &point.promise })
        }))
    }

    /// How far ptp4l was off, where it ran beside and the agent converged.
    fn ptp4l_summary(&self, truth: &Truth) -> Option<Ptp4lSummary> {
        if self.ptp4l.is_empty() {
            return None;
        }
        let from_ns = truth.start_ns.saturating_add((truth.judged_from_s? * 1e9) as i64);
        let real_minus_mono = realtime_minus_monotonic();
        Some(beside::summary(&self.ptp4l, &self.grandmaster_clock, real_minus_mono, from_ns))
    }

    /// The pair of sources, receive and transmit, that most samples came from.
    pub(super) fn main_sources(&self) -> Option<&(String, String)> {
        self.sources.iter().max_by_key(|(_, count)| **count).map(|(sources, _)| sources)
    }

    /// The closing summary.
    pub(super) fn summary(&self, truth: &Truth) -> LabSummary {
        let errors: Vec<f64> = truth.judged_errors().map(|(_, error)| error).collect();
        let from = truth.judged_from_s.unwrap_or(f64::INFINITY);
        let mut delays: Vec<f64> = self
            .points
            .iter()
            .filter(|point| seconds_since(truth.start_ns, point.mono_ns) >= from)
            .filter_map(|point| Some(point.delay_ns? as f64))
            .collect();
        let ptp4l = self.ptp4l_summary(truth);
        let (rx_source, tx_source) = self.main_sources().cloned().unzip();
        let of = |summary: &Option<Summary>| summary.clone().unwrap_or_default();
        LabSummary {
            event: "summary",
            duration_s: truth.errors.last().map_or(0.0, |(instant, _)| *instant),
            samples: self.points.len() as u64,
            true_error_ns: truth.judged_from_s.map(|_| ErrorStatistics::of(&errors)),
            converged_s: truth.converged_s,
            statistics_from_s: truth.judged_from_s,
            below_1us_for_good_s: truth.settled_s,
            delay_ns: (!delays.is_empty()).then(|| Statistics::of(&mut delays)),
            rx_source,
            tx_source,
            lost: of(&self.agent_summary).lost,
            agent: of(&self.agent_summary).more,
            grandmaster_lost: of(&self.grandmaster_summary).lost,
            grandmaster: of(&self.grandmaster_summary).more,
            trimmed_rms_ns: truth.judged_from_s.map(|_| trimmed_rms(&errors)),
            promises: self.kept(truth, from),
            strategy: self.points.last().and_then(|point| point.promise.strategy.clone()),
            ratio_to_ptp4l: ptp4l
                .filter(|ptp4l| ptp4l.samples > 0 && truth.judged_from_s.is_some())
                .map(|ptp4l| trimmed_rms(&errors) / ptp4l.trimmed_rms_ns),
            ptp4l,
        }
    }
}

/// CLOCK_REALTIME from now on.
fn host_clock() -> ClockLine {
    let mono_ns = monotonic().as_nanos();
    let real = Duration::from_nanos(mono_ns) + realtime_minus_monotonic();
    ClockLine { mono_ns, clock_ns: real.as_scaled_nanos() >> 16, frequency_ppb: 0.0 }
}

/// What of a difference is one of time scales.
pub(super) fn whole_seconds(difference: Duration) -> Duration {
    Duration::from_secs(difference.as_secs_f64().round() as i64)
}

/// Seconds from one monotonic instant to another, both in nanoseconds.
pub(super) fn seconds_since(start_ns: i64, mono_ns: i64) -> f64 {
    mono_ns.saturating_sub(start_ns) as f64 * 1e-9
}

/// The last line of `lab --json`.
#[derive(Clone, Debug, Serialize)]
pub(super) struct LabSummary {
    /// Always "summary".
    pub event: &'static str,
    /// From the start of both clocks to the agent's last sample, seconds.
    pub duration_s: f64,
    /// Samples of the agent.
    pub samples: u64,
    /// Agent clock minus grandmaster clock from `statistics_from_s` on; `null` without convergence.
    pub true_error_ns: Option<ErrorStatistics>,
    /// The start of the first two seconds with |true error| below 10 us; `null` without.
    pub converged_s: Option<f64>,
    /// Where the statistics begin: a settling time after that; `null` without.
    pub statistics_from_s: Option<f64>,
    /// Since when |true error| stayed below 1 us until the end; `null` if it did not.
    pub below_1us_for_good_s: Option<f64>,
    /// Mean path delay from there on.
    pub delay_ns: Option<Statistics>,
    /// Receive stamps of most samples.
    pub rx_source: Option<String>,
    /// Transmit stamps of most samples.
    pub tx_source: Option<String>,
    /// What the agent lost or dropped, by cause.
    pub lost: BTreeMap<String, u64>,
    /// Further figures of the agent.
    pub agent: Map<String, Value>,
    /// What the grandmaster lost or dropped, by cause.
    pub grandmaster_lost: BTreeMap<String, u64>,
    /// Further figures of the grandmaster.
    pub grandmaster: Map<String, Value>,
    /// Root of the mean square of the true error without the largest 5 %.
    pub trimmed_rms_ns: Option<f64>,
    /// How its bounds and intervals were kept.
    pub promises: Kept,
    /// How the agent sent and stamped in the end.
    pub strategy: Option<String>,
    /// The agent's trimmed rms over that of ptp4l beside it.
    pub ratio_to_ptp4l: Option<f64>,
    /// ptp4l beside it, where it was asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ptp4l: Option<Ptp4lSummary>,
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::publish::json::ClockLine;

    const SECOND: i64 = 1_000_000_000;

    /// A run of ten seconds, 16 samples per second, whose agent is stepped at three seconds to
    /// `error_ns` off the truth.
    pub(in crate::lab) fn observation(error_ns: i64) -> Observation {
        let mut observation = Observation::default();
        let line = |mono_ns, clock_ns| ClockLine { mono_ns, clock_ns, frequency_ppb: 0.0 };
        observation.note(Role::Grandmaster, Event::Clock(line(0, 1_500_000_000)));
        observation.note(Role::Agent, Event::Clock(line(0, 0)));
        for sample in 0..160 {
            let mono_ns = sample * SECOND / 16;
            if mono_ns == 3 * SECOND {
                let clock_ns = i128::from(mono_ns + 1_500_000_000 + error_ns);
                observation.note(Role::Agent, Event::Clock(line(mono_ns, clock_ns)));
            }
            observation.note(
                Role::Agent,
                Event::Sample(Sample {
                    interface: "ptp1".into(),
                    domain: 0,
                    mono_ns,
                    offset_ns: error_ns + 20,
                    raw_offset_ns: error_ns - 400,
                    // Wrong before convergence, so that it shows if it were counted.
                    delay_ns: Some(if mono_ns < 3 * SECOND { 9_000_000 } else { 4_000 }),
                    frequency_ppb: 37_000.0,
                    error_bound_ns: None,
                    precision_ns: None,
                    interval_ns: None,
                    state: "locked".into(),
                    rx_source: Some(if sample < 10 { "tc_ingress" } else { "stack" }.into()),
                    tx_source: Some("start_xmit".into()),
                    strategy: None,
                    source: None,
                    grandmaster: None,
                }),
            );
        }
        observation
    }

    #[test]
    fn statistics_begin_with_convergence() {
        let observation = observation(250);
        let summary = observation.summary(&observation.truth());
        assert_eq!((summary.converged_s, summary.samples), (Some(3.0), 160));
        let error = summary.true_error_ns.unwrap();
        assert_eq!((error.mean, error.sd, error.max), (250.0, 0.0, 250.0));
        assert_eq!(summary.delay_ns.unwrap().max, 4_000.0);
        assert_eq!(summary.below_1us_for_good_s, Some(3.0));
    }

    #[test]
    fn run_that_stays_off_has_no_statistics() {
        let observation = observation(50_000);
        let summary = observation.summary(&observation.truth());
        assert_eq!(summary.converged_s, None);
        assert_eq!((summary.true_error_ns, summary.delay_ns), (None, None));
        let json = serde_json::to_value(&summary).unwrap();
        assert!(json["true_error_ns"].is_null() && json["converged_s"].is_null());
    }

    #[test]
    fn main_sources_are_those_of_most_samples() {
        let observation = observation(0);
        let (rx, tx) = observation.main_sources().unwrap();
        assert_eq!((rx.as_str(), tx.as_str()), ("stack", "start_xmit"));
        assert_eq!(observation.sources.len(), 2);
    }

    #[test]
    fn losses_of_both_children_are_told_apart() {
        let mut observation = observation(0);
        for (role, count) in [(Role::Agent, 1), (Role::Grandmaster, 2)] {
            let lost = BTreeMap::from([("ring".to_owned(), count)]);
            observation.note(role, Event::Summary(Summary { lost, ..Summary::default() }));
        }
        let summary = observation.summary(&observation.truth());
        assert_eq!((summary.lost["ring"], summary.grandmaster_lost["ring"]), (1, 2));
    }

    #[test]
    fn last_words_are_of_the_child_that_ended() {
        let mut observation = Observation::default();
        for line in 0..300 {
            observation.note_log(Role::Agent, format!("a{line}"));
            observation.note_log(Role::Grandmaster, "g".into());
        }
        assert!(observation.log.len() <= LOG_LINES);
        assert_eq!(observation.last_words(Role::Agent), "a295\n  a296\n  a297\n  a298\n  a299");
    }
}
