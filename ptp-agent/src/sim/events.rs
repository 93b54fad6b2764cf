//! What servos make of one event on an otherwise quiet link: how long it takes until the error is below
//! twice the jitter for good, and whether the bound held. Each event with many seeds.

use std::path::Path;

use serde::Serialize;

use super::{Scenario, Truth, course, parallel};
use crate::servo::Choice;

/// The error is to be below so many times the jitter.
const JITTERS: f64 = 2.0;
/// After the event, the error is followed for so long, seconds.
const FOLLOWED_S: f64 = 600.0;
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
const EVENTS: [Event; 27] = {
    use What::{Frequency, Ramp, Route, Time};
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
        event(Time(1e6), -4, 1e3, 0.3),
        event(Ramp(3.0, 200.0), 0, 1e3, 0.03),
        event(Ramp(8.0, 600.0), 0, 1e4, 0.03),
        event(Ramp(3.0, 200.0), -4, 1e3, 0.03),
        event(Ramp(10.0, 100.0), -4, 1e3, 0.03),
        event(Route(5e3), 0, 1e3, 0.3),
        event(Route(70e3), 0, 1e3, 0.3),
        event(Route(-20e3), -4, 1e3, 0.3),
        event(Route(70e3), -4, 1e3, 0.3),
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
            _ => self.begins_s(),
        }
    }

    /// The error is to be small after so long, seconds.
    const fn limit_s(&self) -> f64 {
        if self.log_interval < 0 { 10.0 } else { 60.0 }
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
        }
        let Self { log_interval, jitter_ns, wander_ppb, .. } = self;
        let text = format!(
            "duration-s = {:?}\nwarm-up-s = {:?}\nsample-interval-s = 0.25\nseed = {seed}\n\
             [time-receiver.oscillator]\noffset-ns = 3e8\nfrequency-ppb = 15000\n\
             random-walk-ppb = {wander_ppb:?}\n{receiver}\n\
             [[grandmaster]]\nlog-sync-interval = {log_interval}\n\
             log-min-delay-req-interval = {log_interval}\n{grandmaster}\n\
             [grandmaster.link.forward]\nbase-delay-ns = 50000\n\
             jitter.exponential.mean-ns = {jitter_ns:?}\n{link}\n\
             [grandmaster.link.backward]\nbase-delay-ns = 50000\n\
             jitter.exponential.mean-ns = {jitter_ns:?}\n",
            self.ends_s() + FOLLOWED_S + 1.0,
            at_s - 50.0,
        );
        let scenario = Scenario::parse("event", &text, Path::new(".")).ok()?;
        Some(Scenario { servo, ..scenario })
    }

    fn outcome(&self, truth: &[Truth]) -> Outcome {
        let (begins_s, ends_s) = (self.begins_s(), self.ends_s());
        let limit_ns = JITTERS * self.jitter_ns;
        let after = || truth.iter().filter(|truth| truth.at_s >= begins_s);
        let last_bad = after().rfind(|truth| truth.error_ns.abs() >= limit_ns);
        let settled =
            || after().filter(|truth| truth.at_s >= ends_s + SETTLED_S).map(|truth| truth.error_ns);
        let square = settled().map(|error| error * error).sum::<f64>();
        Outcome {
            settled_after_s: last_bad.map_or(0.0, |truth| (truth.at_s - ends_s).max(0.0)),
            later_rms_ns: (square / settled().count().max(1) as f64).sqrt(),
            violated: after().filter(|truth| truth.is_within_bound() == Some(false)).count() as f64
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
    /// event.
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

    #[test]
    fn every_event_is_a_scenario_with_a_name_of_its_own() {
        let mut names: Vec<String> = EVENTS.iter().map(Event::name).collect();
        for event in EVENTS {
            let scenario = event.scenario(1, Choice::default()).expect(&event.name());
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
            state: crate::servo::ServoState::Locked,
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
}
