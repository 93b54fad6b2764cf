//! Several servers as one time: who leads, and what lies between its time and that of all that are believed. What a server is worth
//! and where it is come from the quickest of its latest exchanges (the clock filter of RFC 5905, 10); the interval of what
//! causality allows decides who is believed.

use super::{Latest, NtpOpinion, Server, Servers, id};
use crate::{prelude::*, sources::Policy};
use ptp_common::time::{Duration, Mono, Time};

/// A leader stays one until another is nearer to UTC by this factor, so that the clock does not hop.
const HOP: i64 = 2;
/// An exchange is worth so much less for each second of its age: what the rate of an oscillator is wrong by while it is not looked at,
/// parts per billion.
const AGING_PPB: f64 = 500.0;
/// The cluster algorithm leaves at least so many (RFC 5905's NMIN).
const FEWEST_SURVIVORS: usize = 3;

impl Server {
    fn quickest(&self) -> Option<&Latest> {
        self.latest.iter().min_by_key(|latest| latest.delay)
    }

    /// How far its time may be from UTC by the quickest of its latest exchanges, whenever that was: what it is worth, not what is
    /// left of it between two exchanges.
    fn distance(&self) -> Option<Duration> {
        let quickest = self.quickest()?.delay;
        Some(quickest.half().max(Duration::ZERO) + self.said?.root_distance)
    }

    /// How far it is ahead at `now` of the free-running scale, which gains `rate_ppb`, by the quickest of its latest exchanges.
    /// Offsets of the clock itself would not do: what it was steered by between two servers' exchanges would be taken for
    /// what lies between the servers, and then be steered by again.
    fn ahead_at(&self, now: Time<Mono>, rate_ppb: f64) -> Option<Duration> {
        let aged = |latest: &&Latest| {
            let age = Duration::from_nanos_f64(AGING_PPB * (now - latest.at).as_secs_f64());
            latest.delay.half() + age
        };
        let quickest = self.latest.iter().min_by_key(aged)?;
        let gained = Duration::from_nanos_f64(rate_ppb * (now - quickest.at).as_secs_f64());
        Some(quickest.ahead - gained)
    }
}

impl Servers {
    /// Who leads, and how far the combined time is ahead of the leader's. `None` while there is nobody, or no
    /// majority and the policy is not to follow all the same. Once it is known that the free-running scale gains `rate_ppb`
    /// on them, exchanges of different times can be compared with each other.
    pub(super) fn combine(
        &self,
        opinions: &[NtpOpinion],
        latest: usize,
        policy: Policy,
        now: Time<Mono>,
        rate_ppb: Option<f64>,
    ) -> Option<(usize, Duration)> {
        let place = |opinion: &NtpOpinion| {
            self.of.iter().position(|server| id(server.address.ip()) == opinion.id)
        };
        let mut survivors: Vec<(usize, &NtpOpinion)> = opinions
            .iter()
            .filter(|opinion| opinion.is_member)
            .filter_map(|opinion| Some((place(opinion)?, opinion)))
            .collect();
        if survivors.is_empty() {
            // Two that contradict each other: whom it has followed so far it follows on, or runs on by itself.
            let leader = self.leader.unwrap_or(latest);
            return (policy == Policy::Alarm).then_some((leader, Duration::ZERO));
        }
        let width = |opinion: &NtpOpinion| opinion.interval.half_width();
        // Whoever was asked last has the narrowest interval; the clock must not hop with that.
        let distance = |(at, opinion): &(usize, &NtpOpinion)| {
            self.of[*at].distance().unwrap_or_else(|| width(opinion))
        };
        let nearest = survivors.iter().min_by_key(|survivor| distance(survivor))?;
        let best = &nearest.0;
        let stays = |survivor: &&(usize, &NtpOpinion)| {
            self.leader == Some(survivor.0)
                && distance(survivor).as_scaled_nanos()
                    <= distance(nearest).as_scaled_nanos() * i128::from(HOP)
        };
        let leader = survivors.iter().find(stays).map_or(*best, |(at, _)| *at);
        // An opinion is of the free-running scale against the source: one that is larger is of a source that is behind.
        let all_quick: Option<Vec<(usize, Duration)>> = survivors
            .iter()
            .map(|(at, _)| Some((*at, self.of[*at].ahead_at(now, rate_ppb?)?)))
            .collect();
        let first = all_quick.as_ref().and_then(|all| Some(all.first()?.1)).unwrap_or_default();
        let ahead = |(at, opinion): &(usize, &NtpOpinion)| match &all_quick {
            Some(all) => all
                .iter()
                .find(|(it, _)| it == at)
                .map_or(0.0, |(_, by)| (*by - first).as_nanos_f64()),
            None => -opinion.interval.middle().as_nanos_f64(),
        };
        let origin = survivors.iter().find(|(at, _)| *at == leader).map(ahead)?;
        // The cluster algorithm (11.2.2): who is farthest from all the others goes, until that is no farther than
        // their own noise.
        while survivors.len() > FEWEST_SURVIVORS {
            let spread = |this: &(usize, &NtpOpinion)| {
                let squares = survivors.iter().map(|other| ahead(this) - ahead(other));
                squares.map(|apart| apart * apart).sum::<f64>() / (survivors.len() - 1) as f64
            };
            let worst = survivors
                .iter()
                .enumerate()
                .filter(|(_, (at, _))| *at != leader)
                .map(|(n, survivor)| (n, spread(survivor)))
                .max_by(|a, b| a.1.total_cmp(&b.1));
            let least =
                survivors.iter().map(|(at, _)| self.of[*at].jitter_ns).fold(f64::MAX, f64::min);
            match worst {
                Some((n, spread)) if spread > least * least => drop(survivors.remove(n)),
                _ => break,
            }
        }
        let weighted = survivors.iter().map(|survivor| {
            let weight = 1.0 / distance(survivor).as_nanos_f64().max(1.0);
            (weight, weight * (ahead(survivor) - origin))
        });
        let (weights, sum) = weighted.fold((0.0, 0.0), |sum, it| (sum.0 + it.0, sum.1 + it.1));
        Some((leader, Duration::from_nanos_f64(sum / weights)))
    }
}
