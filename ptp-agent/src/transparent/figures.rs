//! What the programs have counted, as figures for metrics, status and the closing summary, and whether too
//! much of it went uncorrected lately.

use std::collections::{BTreeMap, VecDeque};

use ptp_common::{
    residence::{BUCKETS, Outcome, TYPES, bucket_end_ns},
    time::{Duration, Mono, Time},
};
use serde_json::{Value, json};

use crate::publish::metrics::{Forwarding, Way};

/// What is lately.
const WINDOW: Duration = Duration::from_secs(10);
/// Fewer than these are an accident.
const FEW: u64 = 5;

/// Of what the programs and the agent have counted of one port: counts by type and outcome (32 each), and two
/// histograms.
pub fn forwarding(counts: &[u64], histograms: &[u64]) -> Forwarding {
    let mut forwarding = Forwarding::default();
    for (kind, outcomes) in TYPES.iter().zip(counts.chunks(32)) {
        for (outcome, total) in Outcome::ALL.iter().zip(outcomes) {
            if *total > 0 {
                forwarding.messages.insert((kind, outcome.name()), *total);
            }
        }
    }
    for (way, histogram) in Way::ALL.into_iter().zip(histograms.chunks(BUCKETS as usize)) {
        if let Some((sum, counts)) = histogram.split_last()
            && counts.iter().any(|count| *count > 0)
        {
            forwarding.residence.insert(way, (counts.to_vec(), *sum));
        }
    }
    forwarding
}

/// The time below which a share (0 to 1) of the times in a histogram are, to within its buckets, nanoseconds.
pub fn quantile_ns(counts: &[u64], share: f64) -> Option<u64> {
    let total: u64 = counts.iter().sum();
    let wanted = (total as f64 * share).ceil().max(1.0) as u64;
    let mut below = 0;
    let at = counts.iter().position(|count| {
        below += count;
        below >= wanted
    })?;
    u32::try_from(at).ok().map(bucket_end_ns)
}

/// As JSON, for status and summary.
pub fn json_of(forwarding: &Forwarding) -> Value {
    let mut messages = BTreeMap::<_, BTreeMap<_, _>>::new();
    for ((kind, outcome), total) in &forwarding.messages {
        messages.entry(kind).or_default().insert(outcome, total);
    }
    let residence: BTreeMap<_, _> = forwarding
        .residence
        .iter()
        .map(|(way, (counts, sum_ns))| {
            let n: u64 = counts.iter().sum();
            let quantile = |share| quantile_ns(counts, share);
            (
                way.name(),
                json!({
                    "n": n, "mean_ns": sum_ns.checked_div(n), "p50_ns": quantile(0.5),
                    "p99_ns": quantile(0.99), "max_ns": quantile(1.0),
                }),
            )
        })
        .collect();
    json!({ "messages": messages, "residence": residence })
}

/// The closing lines for people, after so many seconds.
pub fn text(duration_s: f64, forwarding: &BTreeMap<String, Forwarding>) -> String {
    let mut lines = vec![format!("{duration_s:.1} s")];
    for (name, forwarding) in forwarding {
        let messages: Vec<String> = forwarding
            .messages
            .iter()
            .map(|((kind, outcome), total)| format!("{kind} {outcome} {total}"))
            .collect();
        lines.push(format!("{name}: {}", messages.join(", ")));
    }
    lines.join("\n")
}

/// Totals of all ports that the alarms look at.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Totals {
    corrected: u64,
    missed: u64,
    relayed: u64,
}

/// See the module's paragraph.
#[derive(Debug, Default)]
pub struct Lately {
    past: VecDeque<(Time<Mono>, Totals)>,
    causes: BTreeMap<&'static str, u64>,
}

impl Lately {
    /// Takes the present figures of all ports.
    pub fn add<'a>(&mut self, now: Time<Mono>, ports: impl IntoIterator<Item = &'a Forwarding>) {
        let mut totals = Totals::default();
        self.causes.clear();
        for ((_, name), total) in ports.into_iter().flat_map(|port| &port.messages) {
            match Outcome::ALL.into_iter().find(|outcome| outcome.name() == *name) {
                Some(Outcome::Corrected | Outcome::CorrectedLate) => totals.corrected += total,
                Some(Outcome::Relayed) => totals.relayed += total,
                Some(outcome) if outcome.is_missed() => {
                    totals.missed += total;
                    *self.causes.entry(outcome.name()).or_default() += total;
                }
                _ => {}
            }
        }
        self.past.push_back((now, totals));
        while self.past.len() > 1 && self.past.get(1).is_some_and(|(at, _)| now - *at >= WINDOW) {
            self.past.pop_front();
        }
    }

    fn recent(&self) -> Option<Totals> {
        let ((_, old), (_, new)) = (self.past.front()?, self.past.back()?);
        Some(Totals {
            corrected: new.corrected.saturating_sub(old.corrected),
            missed: new.missed.saturating_sub(old.missed),
            relayed: new.relayed.saturating_sub(old.relayed),
        })
    }

    /// Why too many messages left uncorrected, if they did.
    pub fn uncorrected(&self) -> Option<String> {
        let recent = self.recent()?;
        let is_much = recent.missed > FEW && recent.missed * 10 > recent.corrected;
        is_much.then(|| {
            let causes = self.causes.iter().filter(|(_, total)| **total > 0);
            let causes: Vec<_> = causes.map(|(name, total)| format!("{name} {total}")).collect();
            format!("{} of late; in all {}", recent.missed, causes.join(", "))
        })
    }

    /// Whether a program of this host relays as well.
    pub fn is_relayed(&self) -> bool {
        self.recent().is_some_and(|recent| recent.relayed > 1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ptp_common::residence::{bucket, count_index};

    fn port(entries: &[(u32, Outcome, u64)]) -> Forwarding {
        let mut counts = vec![0; 256];
        for (kind, outcome, total) in entries {
            counts[count_index(0, *kind, *outcome as u32) as usize] = *total;
        }
        forwarding(&counts, &[0; 128])
    }

    #[test]
    fn outcomes_keep_their_names_and_numbers() {
        for (number, outcome) in Outcome::ALL.into_iter().enumerate() {
            assert_eq!(outcome as usize, number);
        }
        let port = port(&[(4, Outcome::Corrected, 7), (1, Outcome::Timed, 2)]);
        assert_eq!(port.messages[&("follow_up", "corrected")], 7);
        assert_eq!(port.messages[&("delay_req", "timed")], 2);
        assert!(port.residence.is_empty());
    }

    #[test]
    fn share_of_the_times_is_found_to_within_a_bucket() {
        let mut counts = vec![0; 63];
        counts[bucket(1_000) as usize] = 99;
        counts[bucket(1_000_000) as usize] = 1;
        assert_eq!(quantile_ns(&counts, 0.5), Some(1_024));
        assert_eq!(quantile_ns(&counts, 1.0), Some(1_048_576));
        assert_eq!(quantile_ns(&[0; 63], 0.5), None);
    }

    #[test]
    fn few_that_are_missed_are_no_alarm_and_a_tenth_is() {
        let mut lately = Lately::default();
        lately.add(Time::ZERO, &[port(&[(4, Outcome::Corrected, 100)])]);
        let later = |secs| Time::ZERO + Duration::from_secs(secs);
        lately
            .add(later(1), &[port(&[(4, Outcome::Corrected, 130), (4, Outcome::NoResidence, 2)])]);
        assert_eq!(lately.uncorrected(), None);
        let bad = port(&[
            (4, Outcome::Corrected, 140),
            (4, Outcome::NoResidence, 8),
            (0, Outcome::Relayed, 3),
        ]);
        lately.add(later(2), std::slice::from_ref(&bad));
        assert_eq!(lately.uncorrected().unwrap(), "8 of late; in all no_residence 8");
        assert!(lately.is_relayed());
        for secs in 3..20 {
            lately.add(later(secs), std::slice::from_ref(&bad));
        }
        assert!(lately.uncorrected().is_none() && !lately.is_relayed());
    }
}
