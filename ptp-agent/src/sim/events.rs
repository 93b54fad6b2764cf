//! What servos make of one event on an otherwise quiet link: how long it takes until the error is below
//! twice the jitter for good, and whether the bound held. Each event with many seeds.

use std::path::Path;

use serde::Serialize;

use super::{Scenario, Truth, course, parallel};
use crate::servo::{Choice, ServoState};

/// The error is to be below so many times the jitter.
const JITTERS: f64 = 2.0;
/// After the event, the error is followed for so long, seconds.
const FOLLOWED_S: f64 = 600.0;
/// A grandmaster that restarts is silent for so long, seconds.
const SILENT_S: f64 = 3.0;
/// From here on after the event it is judged whether the servo has gone wrong altogether, seconds.
const SETTLED_S: f64 = 300.0;

/// What happens.
#[derive(Clone, Copy, Debug, PartialEq)]
enum What {
    /// The time receiver's frequency steps, parts per billion.
    Frequency(f64),
    /// The grandmaster's time steps, nanoseconds.
    Time(f64),
    /// The time receiver's frequency changes by so many parts per billion each second, for so many
    /// seconds.
    Ramp(f64, f64),
    /// The forward way becomes longer by so many nanoseconds: time does not change.
    Route(f64),
    /// The grandmaster restarts with a time that is so many nanoseconds ahead, where requests are so many
    /// octaves rarer than Sync.
    Restart(f64, i8),
}

/// A kind of event on a link.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Event {
    what: What,
    log_interval: i8,
    jitter_ns: f64,
    wander_ppb: f64,
}

const fn event(what: What, log_interval: i8, jitter_ns: f64, wander_ppb: f64) -> Event {
    Event { what, log_interval, jitter_ns, wander_ppb }
}

/// Once and 16 times a second, from 0.1 to 10 us of jitter.
const EVENTS: [Event; 37] = {
    use What::{Frequency, Ramp, Restart, Route, Time};
    [
        event(Frequency(100.0), 0, 1e3, 0.3),
        event(Frequency(300.0), 0, 1e3, 0.3),
        event(Frequency(1_000.0), 0, 1e3, 0.3),
        event(Frequency(-3_000.0), 0, 1e3, 0.3),
        event(Frequency(1_000.0), 0, 1e4, 0.3),
        event(Frequency(100.0), -4, 100.0, 0.3),
        event(Frequency(1_000.0), -4, 100.0, 0.3),
        event(Frequency(100.0), -4, 1e3, 0.3),
        event(Frequency(300.0), -4, 1e3, 0.3),
        event(Frequency(1_000.0), -4, 1e3, 0.3),
        event(Time(3e3), 0, 1e3, 0.3),
        event(Time(5e3), 0, 1e3, 0.3),
        event(Time(-20e3), 0, 1e3, 0.3),
        event(Time(200e3), 0, 1e3, 0.3),
        event(Time(2e3), -4, 1e3, 0.3),
        event(Time(5e3), -4, 1e3, 0.3),
        event(Time(20e3), -4, 1e3, 0.3),
        event(Time(-20e3), -4, 1e3, 0.3),
        event(Time(90e3), -4, 1e3, 0.3),
        event(Time(1e6), -4, 1e3, 0.3),
        event(Ramp(3.0, 200.0), 0, 1e3, 0.03),
        event(Ramp(8.0, 600.0), 0, 1e4, 0.03),
        event(Ramp(3.0, 200.0), -4, 1e3, 0.03),
        event(Ramp(10.0, 100.0), -4, 1e3, 0.03),
        event(Route(5e3), 0, 1e3, 0.3),
        event(Route(70e3), 0, 1e3, 0.3),
        event(Route(-20e3), -4, 1e3, 0.3),
        event(Route(70e3), -4, 1e3, 0.3),
        event(Restart(1e6, 0), -2, 1e3, 0.3),
        event(Restart(1e6, 2), -2, 1e3, 0.3),
        event(Restart(1e6, 4), -2, 1e3, 0.3),
        event(Restart(1e9, 0), -2, 1e3, 0.3),
        event(Restart(1e9, 2), -2, 1e3, 0.3),
        event(Restart(1e9, 4), -2, 1e3, 0.3),
        event(Restart(1e11, 0), -2, 1e3, 0.3),
        event(Restart(1e11, 2), -2, 1e3, 0.3),
        event(Restart(1e11, 4), -2, 1e3, 0.3),
    ]
};

impl Event {
    fn name(&self) -> String {
        let signed = |value: f64| format!("{value:+}");
        let what = match self.what {
            What::Frequency(ppb) => format!("frequency step of {} ppb", signed(ppb)),
            What::Time(ns) => format!("grandmaster steps {} us", signed(ns / 1e3)),
            What::Ramp(ppb, s) => format!("ramp of {} ppb/s for {s} s", signed(ppb)),
            What::Route(ns) => format!("forward way {} us", signed(ns / 1e3)),
            What::Restart(ns, octaves) => {
                let slower = if octaves > 0 {
                    format!(", requests {} times slower", 1 << octaves)
                } else {
                    String::new()
                };
                format!("restart {} s away{slower}", signed(ns * 1e-9))
            }
        };
        let rate = 1 << -self.log_interval;
        format!("{what}, {rate}/s, J {} us", self.jitter_ns / 1e3)
    }

    /// At more exchanges a second less time is needed.
    const fn begins_s(&self) -> f64 {
        if self.log_interval < 0 { 200.3 } else { 700.3 }
    }

    fn ends_s(&self) -> f64 {
        match self.what {
            What::Ramp(_, length_s) => self.begins_s() + length_s,
            What::Restart(..) => self.begins_s() + SILENT_S,
            _ => self.begins_s(),
        }
    }

    /// Interval of requests, log2 seconds.
    const fn log_request_interval(&self) -> i8 {
        match self.what {
            What::Restart(_, octaves) => self.log_interval + octaves,
            _ => self.log_interval,
        }
    }

    /// The error is to be small after so long, seconds: after a restart when the new numbers are believed
    /// and there were ten exchanges of either kind.
    fn limit_s(&self) -> f64 {
        match self.what {
            What::Restart(..) => 1.0 + 10.0 * f64::from(self.log_request_interval()).exp2(),
            _ if self.log_interval < 0 => 10.0,
            _ => 60.0,
        }
    }

    /// Until then after the event, seconds, no packet can have told of it.
    fn unknown_s(&self) -> f64 {
        2.0 * f64::from(self.log_interval.max(self.log_request_interval())).exp2()
    }

    /// Whether an instant is as it is to be once the event is over: the error is small. A restart may be so far
    /// away that the clock is slewed for hours: it is enough that the servo knows most of the error, or that
    /// its state says that it does not follow, and in both cases that the bound holds.
    fn is_well(&self, truth: &Truth) -> bool {
        let is_known = truth.offset_ns.is_some_and(|offset_ns| {
            (offset_ns - truth.error_ns).abs() < truth.error_ns.abs() / 2.0
        });
        let is_admitted = matches!(self.what, What::Restart(..))
            && truth.is_within_bound() != Some(false)
            && (is_known || truth.state != ServoState::Locked);
        is_admitted || truth.error_ns.abs() < JITTERS * self.jitter_ns
    }

    fn scenario(&self, seed: u64, servo: Choice) -> Option<Scenario> {
        let at_s = self.begins_s();
        let (mut receiver, mut grandmaster, mut link) =
            (String::new(), String::new(), String::new());
        match self.what {
            What::Frequency(ppb) => {
                receiver = format!("steps = [{{ at-s = {at_s:?}, frequency-ppb = {ppb:?} }}]");
            }
            What::Time(ns) => {
                grandmaster = format!("time-steps = [{{ at-s = {at_s:?}, by-ns = {ns:?} }}]");
            }
            What::Ramp(ppb, length_s) => {
                let (to_s, change) = (self.ends_s(), ppb * length_s);
                receiver = format!(
                    "temperature = [{{ from-s = {at_s:?}, to-s = {to_s:?}, change-ppb = {change:?} }}]"
                );
            }
            What::Route(ns) => {
                let delay = 50_000.0 + ns;
                link =
                    format!("route-changes = [{{ at-s = {at_s:?}, base-delay-ns = {delay:?} }}]");
            }
            What::Restart(ns, _) => {
                grandmaster = format!(
                    "restarts = [{{ at-s = {at_s:?}, silent-s = {SILENT_S:?}, by-ns = {ns:?} }}]"
                );
            }
        }
        let Self { log_interval, jitter_ns, wander_ppb, .. } = self;
        let text = format!(
            "duration-s = {:?}\nwarm-up-s = {:?}\nsample-interval-s = 0.25\nseed = {seed}\n\
             [time-receiver.oscillator]\noffset-ns = 3e8\nfrequency-ppb = 15000\n\
             random-walk-ppb = {wander_ppb:?}\n{receiver}\n\
             [[grandmaster]]\nlog-sync-interval = {log_interval}\n\
             log-min-delay-req-interval = {}\n{grandmaster}\n\
             [grandmaster.link.forward]\nbase-delay-ns = 50000\n\
             jitter.exponential.mean-ns = {jitter_ns:?}\n{link}\n\
             [grandmaster.link.backward]\nbase-delay-ns = 50000\n\
             jitter.exponential.mean-ns = {jitter_ns:?}\n",
            self.ends_s() + FOLLOWED_S + 1.0,
            at_s - 50.0,
            self.log_request_interval(),
        );
        let scenario = Scenario::parse("event", &text, Path::new(".")).ok()?;
        Some(Scenario { servo, ..scenario })
    }

    fn outcome(&self, truth: &[Truth]) -> Outcome {
        let (begins_s, ends_s) = (self.begins_s(), self.ends_s());
        let known_s = match self.what {
            What::Ramp(..) => begins_s,
            _ => ends_s + self.unknown_s(),
        };
        let after = || truth.iter().filter(|truth| truth.at_s >= begins_s);
        let last_bad = after().rfind(|truth| !self.is_well(truth));
        let settled =
            || after().filter(|truth| truth.at_s >= ends_s + SETTLED_S).map(|truth| truth.error_ns);
        let square = settled().map(|error| error * error).sum::<f64>();
        Outcome {
            settled_after_s: last_bad.map_or(0.0, |truth| (truth.at_s - ends_s).max(0.0)),
            later_rms_ns: (square / settled().count().max(1) as f64).sqrt(),
            violated: after()
                .filter(|truth| truth.at_s >= known_s && truth.is_within_bound() == Some(false))
                .count() as f64
                / after().count().max(1) as f64,
        }
    }
}

/// What one seed came to.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Outcome {
    settled_after_s: f64,
    later_rms_ns: f64,
    violated: f64,
}

/// An event with all of its seeds; a line of the table.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Row {
    /// What happened, on which link.
    pub name: String,
    /// The servo, as `--servo` takes it.
    pub servo: String,
    /// How many seeds.
    pub seeds: usize,
    /// From the end of the event to the last error of twice the jitter: the median of the seeds, seconds.
    /// 601 is never.
    pub settled_median_s: f64,
    /// The longest.
    pub settled_worst_s: f64,
    /// What it is to be.
    pub limit_s: f64,
    /// Seeds in which it was not.
    pub late: usize,
    /// Root mean square of the error from 300 to 600 s after the event: the median of the seeds.
    pub later_rms_median_ns: f64,
    /// The largest.
    pub later_rms_worst_ns: f64,
    /// Seeds in which it was beyond twice the jitter.
    pub wrong: usize,
    /// Seeds in which the error was beyond its bound for more than a thousandth of the time after the
    /// event, the first two intervals not counted: no packet has told of it yet.
    pub violated: usize,
    /// Whether all is well.
    pub met: bool,
}

/// Runs all events on all processors; `each` as for [`suite::judge`](super::suite::judge).
pub fn table(seeds: u64, servos: &[Choice], mut each: impl FnMut(usize, usize, &str)) -> Vec<Row> {
    let kinds: Vec<(Event, Choice)> =
        EVENTS.iter().flat_map(|event| servos.iter().map(move |servo| (*event, *servo))).collect();
    let tasks: Vec<(Event, Choice, u64)> = kinds
        .iter()
        .flat_map(|(event, servo)| (1..=seeds).map(|seed| (*event, *servo, seed)))
        .collect();
    let work = |(event, servo, seed): &(Event, Choice, u64)| {
        let scenario = event.scenario(*seed, *servo);
        scenario.map(|scenario| event.outcome(&course(&scenario).truth))
    };
    let mut outcomes = parallel::map(&tasks, work, |done, (event, servo, seed)| {
        each(done, tasks.len(), &format!("{}, {servo}, {seed}", event.name()));
    })
    .into_iter();
    kinds
        .iter()
        .map(|(event, servo)| {
            let own: Vec<Outcome> = outcomes.by_ref().take(seeds as usize).flatten().collect();
            row(event, servo, &own)
        })
        .collect()
}

fn row(event: &Event, servo: &Choice, outcomes: &[Outcome]) -> Row {
    let [settled_median_s, settled_worst_s] = median_and_worst(outcomes, |one| one.settled_after_s);
    let [later_rms_median_ns, later_rms_worst_ns] =
        median_and_worst(outcomes, |one| one.later_rms_ns);
    let count = |is: &dyn Fn(&Outcome) -> bool| outcomes.iter().filter(|one| is(one)).count();
    let late = count(&|one| one.settled_after_s > event.limit_s());
    let violated = count(&|one| one.violated > 1e-3);
    Row {
        name: event.name(),
        servo: servo.to_string(),
        seeds: outcomes.len(),
        settled_median_s,
        settled_worst_s,
        limit_s: event.limit_s(),
        late,
        later_rms_median_ns,
        later_rms_worst_ns,
        wrong: count(&|one| one.later_rms_ns > JITTERS * event.jitter_ns),
        violated,
        met: late == 0 && violated == 0 && !outcomes.is_empty(),
    }
}

fn median_and_worst(outcomes: &[Outcome], read: fn(&Outcome) -> f64) -> [f64; 2] {
    let mut values: Vec<f64> = outcomes.iter().map(read).collect();
    values.sort_unstable_by(f64::total_cmp);
    let at = |index: usize| values.get(index).copied().unwrap_or(f64::NAN);
    [at(values.len() / 2), at(values.len().saturating_sub(1))]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sim::Trusted;

    #[test]
    fn every_event_is_a_scenario_with_a_name_of_its_own() {
        let mut names: Vec<String> = EVENTS.iter().map(Event::name).collect();
        for event in EVENTS {
            let scenario = event.scenario(1, Choice::default()).unwrap();
            assert!(scenario.duration_s.get() > event.ends_s() + FOLLOWED_S);
        }
        names.sort();
        names.dedup();
        assert_eq!(names.len(), EVENTS.len());
    }

    #[test]
    fn an_error_counts_from_the_end_of_the_event_to_where_it_is_small_for_good() {
        let event = event(What::Ramp(1.0, 100.0), 0, 1e3, 0.3);
        let truth = |at_s: f64, error_ns: f64| Truth {
            at_s,
            error_ns,
            offset_ns: None,
            trust: None,
            state: ServoState::Locked,
        };
        let course = [
            truth(100.0, 1e9),
            truth(750.0, 5e3),
            truth(830.3, 2_500.0),
            truth(900.0, 100.0),
            truth(1_200.0, 300.0),
        ];
        let outcome = event.outcome(&course);
        assert!((outcome.settled_after_s - 30.0).abs() < 1e-9, "{outcome:?}");
        assert_eq!((outcome.later_rms_ns, outcome.violated), (300.0, 0.0));
        let row = row(&event, &Choice::default(), &[outcome; 3]);
        assert!(row.met && row.late == 0 && row.seeds == 3, "{row:?}");
    }

    #[test]
    fn after_a_restart_it_is_enough_to_know_the_error_or_to_say_that_it_is_not_followed() {
        let restart = event(What::Restart(1e9, 2), -2, 1e3, 0.3);
        let truth = |offset_ns, bound_ns: Option<f64>, state| Truth {
            at_s: 300.0,
            error_ns: 1e9,
            offset_ns: Some(offset_ns),
            trust: bound_ns.map(|bound_ns| Trusted {
                bound_ns,
                precision_ns: 0.0,
                interval_ns: [0.0; 2],
                is_clipped: false,
            }),
            state,
        };
        for (offset_ns, bound_ns, state, is_well) in [
            // Slewed, and said so.
            (0.9e9, Some(1.1e9), ServoState::Locked, true),
            (0.9e9, Some(1e5), ServoState::Locked, false),
            // It believes in the old time, and says so.
            (0.0, Some(1.1e9), ServoState::Unlocked, true),
            (0.0, None, ServoState::Unlocked, true),
            (0.0, Some(1.1e9), ServoState::Locked, false),
            (0.0, Some(1e5), ServoState::Holdover, false),
            (0.0, None, ServoState::Locked, false),
        ] {
            let truth = truth(offset_ns, bound_ns, state);
            assert_eq!(restart.is_well(&truth), is_well, "{truth:?}");
        }
        assert_eq!(restart.limit_s(), 11.0);
        let step = event(What::Time(1e9), -2, 1e3, 0.3);
        assert!(!step.is_well(&truth(0.9e9, Some(1.1e9), ServoState::Locked)));
    }
}
