//! Which capture point to believe. One packet passes several; the selector of a direction is shown
//! all of their stamps, learns what the other end says of the same packet, and takes the point whose
//! one-way residual is the least noisy on this host's live traffic.
//!
//! Points differ by a nearly constant time (a tracepoint behind the driver is later than one before
//! it), so stamps of two points are never mixed as they are: all are moved by the median of their
//! measured difference to one reference point, which stays the same for as long as the selector lives.

use std::{collections::VecDeque, num::NonZeroU64};

use ptp_common::{
    record::Direction,
    time::{Duration, Mono, Ptp, Time},
};

use crate::stamp::{PacketId, Stamp, StampSource};

/// Packets compared before the first choice, and between two choices.
const ROUND: usize = 32;
/// Packets over which differences between points are taken.
const DIFFERENCES: usize = 64;
/// Packets that may wait for the other end's answer.
const WAITING: usize = 64;
/// After so many packets in a row that the chosen point has missed, it has stopped delivering.
const MISSED: u32 = 8;
/// Another point must be better by this factor: what is within it is chance.
const HYSTERESIS: f64 = 0.7;
/// Of a stamp that nothing confirms: as long as a driver may take.
const UNKNOWN_DOUBT: Duration = Duration::from_millis(1);
/// Points at the most.
const POINTS: usize = 4;

/// The stamps of one packet, one for each point that saw it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Candidates {
    stamps: [Option<Stamp>; POINTS],
}

impl Candidates {
    /// One stamp.
    pub fn one(stamp: Stamp) -> Self {
        let mut candidates = Self::default();
        candidates.add(stamp);
        candidates
    }

    /// Adds a stamp, unless its point is there already or there is no room.
    pub fn add(&mut self, stamp: Stamp) {
        if self.time(stamp.source).is_none()
            && let Some(free) = self.stamps.iter_mut().find(|slot| slot.is_none())
        {
            *free = Some(stamp);
        }
    }

    /// When the packet passed a point.
    pub fn time(&self, source: StampSource) -> Option<Time<Mono>> {
        self.iter().find(|stamp| stamp.source == source).map(|stamp| stamp.time)
    }

    /// How far on the wrong side of the wire a stamp at `used` may lie. All that is seen of a received packet
    /// comes after the wire, and all that is seen of a sent one comes before it, but for the
    /// tracepoint behind the driver.
    pub fn doubt(&self, used: Time<Mono>, direction: Direction) -> Duration {
        let on_its_side =
            self.iter().filter(|stamp| stamp.source != StampSource::XmitDone).map(|stamp| {
                match direction {
                    Direction::Egress => used - stamp.time,
                    Direction::Ingress => stamp.time - used,
                }
            });
        on_its_side.min().unwrap_or(UNKNOWN_DOUBT).max(Duration::ZERO)
    }

    /// All of them.
    pub fn iter(&self) -> impl Iterator<Item = Stamp> + '_ {
        self.stamps.iter().flatten().copied()
    }
}

/// What was measured of one point; for status and logs.
#[derive(Clone, Copy, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct PointReport {
    /// The point.
    pub source: StampSource,
    /// Mean absolute deviation of the one-way residual in the last round, ns; `null` before it.
    pub noise_ns: Option<f64>,
    /// Median of reference point minus this one, ns: what is added to its stamps.
    pub to_reference_ns: Option<i64>,
}

/// A change of the choice.
#[derive(Clone, Debug, PartialEq)]
pub struct Switch {
    /// The point before.
    pub from: StampSource,
    /// The point from now on.
    pub to: StampSource,
    /// Noise of both, ns.
    pub noise_ns: (f64, f64),
}

/// The selector of one direction of one port.
#[derive(Debug)]
pub struct Selector {
    /// In order of preference while nothing is known.
    points: Vec<StampSource>,
    chosen: StampSource,
    reference: StampSource,
    automatic: bool,
    differences: Vec<VecDeque<i64>>,
    /// See [`Selector::with_stand_in`].
    stand_in: Option<StampSource>,
    /// Packets that are not answered yet, in the order of their names; `next` is that of the one to come.
    waiting: VecDeque<Candidates>,
    next: NonZeroU64,
    round: Vec<(Time<Ptp>, Candidates)>,
    noise: Vec<Option<f64>>,
    missed: u32,
    /// Packets stamped by another point because the chosen one had none.
    pub fallbacks: u64,
}

impl Selector {
    /// Chooses among `points`, the first of which is used until something is known.
    pub fn automatic(points: &[StampSource]) -> Self {
        Self::new(points, true)
    }

    /// Always uses the first point; the others stand in where it has no stamp.
    pub fn fixed(points: &[StampSource]) -> Self {
        Self::new(points, false)
    }

    fn new(points: &[StampSource], automatic: bool) -> Self {
        let first = points.first().copied().unwrap_or(StampSource::TcIngress);
        let points: Vec<_> = points.iter().copied().take(POINTS).collect();
        Self {
            chosen: first,
            reference: first,
            automatic,
            differences: vec![VecDeque::new(); points.len()],
            stand_in: None,
            waiting: VecDeque::new(),
            next: NonZeroU64::MIN,
            round: Vec::new(),
            noise: vec![None; points.len()],
            missed: 0,
            points,
            fallbacks: 0,
        }
    }

    /// A point whose stamp is used, as it is, where none of the others has one. Nobody waits for it, and it
    /// is not compared with the others: their absence makes it no better than they are.
    pub fn with_stand_in(self, source: StampSource) -> Self {
        Self { stand_in: Some(source), ..self }
    }

    /// In the place of another: what was measured there means nothing here, but no name is given twice.
    pub fn in_place_of(self, other: &Self) -> Self {
        Self { next: other.next, ..self }
    }

    /// The point in use.
    pub const fn chosen(&self) -> StampSource {
        self.chosen
    }

    /// The point to whose time all stamps are moved.
    pub const fn reference(&self) -> StampSource {
        self.reference
    }

    /// The stamp to use for a packet, moved to the reference point; `None` where no point has one.
    pub fn choose(&mut self, candidates: &Candidates) -> Option<Stamp> {
        self.compare(candidates);
        let order = std::iter::once(self.chosen).chain(self.points.iter().copied());
        let Some((source, time)) =
            order.into_iter().find_map(|point| Some((point, candidates.time(point)?)))
        else {
            let source = self.stand_in?;
            let stamp = Stamp::new(candidates.time(source)?, source);
            self.fallbacks += 1;
            return Some(stamp);
        };
        if source == self.chosen {
            self.missed = 0;
        } else {
            self.fallbacks += 1;
            self.missed += 1;
            if self.automatic && self.missed >= MISSED {
                // Nobody need wait for it any more. Where it comes back, a round will show it.
                tracing::warn!(from = self.chosen.name(), to = source.name(), "capture point lost");
                (self.chosen, self.missed) = (source, 0);
            }
        }
        let time = time + self.to_reference(source).unwrap_or(Duration::ZERO);
        if self.waiting.len() == WAITING {
            self.waiting.pop_front();
        }
        self.waiting.push_back(*candidates);
        let packet = Some(PacketId(self.next));
        self.next = self.next.saturating_add(1);
        Some(Stamp { packet, ..Stamp::new(time, source) })
    }

    fn compare(&mut self, candidates: &Candidates) {
        let Some(reference) = candidates.time(self.reference) else {
            return;
        };
        for (point, differences) in self.points.iter().zip(&mut self.differences) {
            if let Some(time) = candidates.time(*point) {
                if differences.len() == DIFFERENCES {
                    differences.pop_front();
                }
                differences.push_back((reference - time).as_nanos());
            }
        }
    }

    /// What is added to the stamps of a point; `None` before it was seen beside the reference.
    fn to_reference(&self, source: StampSource) -> Option<Duration> {
        if source == self.reference {
            return Some(Duration::ZERO);
        }
        let at = self.points.iter().position(|point| *point == source)?;
        median(self.differences[at].iter().copied()).map(Duration::from_nanos)
    }

    /// The other end's time of a packet. Returns a change of the choice, if this leads to one.
    pub fn learn(&mut self, packet: PacketId, remote: Time<Ptp>) -> Option<Switch> {
        if !self.automatic || self.points.len() < 2 {
            return None;
        }
        let first = self.next.get() - self.waiting.len() as u64;
        let at = usize::try_from(packet.0.get().checked_sub(first)?).ok()?;
        if at >= self.waiting.len() {
            return None;
        }
        // What is older was never answered.
        let candidates = self.waiting.drain(..=at).next_back()?;
        self.round.push((remote, candidates));
        if self.round.len() < ROUND {
            return None;
        }
        let round = std::mem::take(&mut self.round);
        for (point, noise) in self.points.iter().zip(&mut self.noise) {
            *noise = residual_noise(&round, *point);
        }
        let noise_of = |source| {
            self.points.iter().zip(&self.noise).find(|(point, _)| **point == source)?.1.as_ref()
        };
        let (best, best_noise) = self
            .points
            .iter()
            .filter_map(|point| Some((*point, *noise_of(*point)?)))
            .min_by(|a, b| a.1.total_cmp(&b.1))?;
        let now = noise_of(self.chosen).copied().unwrap_or(f64::INFINITY);
        if best == self.chosen || best_noise >= now * HYSTERESIS {
            return None;
        }
        let switch = Switch { from: self.chosen, to: best, noise_ns: (now, best_noise) };
        self.chosen = best;
        Some(switch)
    }

    /// What is known of each point.
    pub fn report(&self) -> Vec<PointReport> {
        self.points
            .iter()
            .zip(&self.noise)
            .map(|(source, noise_ns)| PointReport {
                source: *source,
                noise_ns: *noise_ns,
                to_reference_ns: self.to_reference(*source).map(Duration::as_nanos),
            })
            .collect()
    }
}

/// Mean absolute deviation of local minus remote time around a straight line, ns: the two clocks may
/// run at different rates. `None` unless the point saw every packet of the round.
fn residual_noise(round: &[(Time<Ptp>, Candidates)], source: StampSource) -> Option<f64> {
    let (first_remote, first) = round.first()?;
    let start = first.time(source)?;
    let points: Option<Vec<(f64, f64)>> = round
        .iter()
        .map(|(remote, candidates)| {
            let local = candidates.time(source)? - start;
            let remote = *remote - *first_remote;
            Some((remote.as_nanos_f64(), (local - remote).as_nanos_f64()))
        })
        .collect();
    let points = points?;
    let count = points.len() as f64;
    let (x, y) =
        points.iter().fold((0.0, 0.0), |(sx, sy), (x, y)| (sx + x / count, sy + y / count));
    let (xx, xy) = points.iter().fold((0.0, 0.0), |(sxx, sxy), (px, py)| {
        (sxx + (px - x).powi(2), sxy + (px - x) * (py - y))
    });
    let slope = if xx > 0.0 { xy / xx } else { 0.0 };
    Some(points.iter().map(|(px, py)| (py - y - slope * (px - x)).abs()).sum::<f64>() / count)
}

/// The median, of an even number the lower one.
pub(crate) fn median(values: impl Iterator<Item = i64>) -> Option<i64> {
    let mut values: Vec<i64> = values.collect();
    let middle = values.len().checked_sub(1)? / 2;
    Some(*values.select_nth_unstable(middle).1)
}

#[cfg(test)]
mod tests {
    use super::*;

    const QUIET: StampSource = StampSource::XmitDone;
    const NOISY: StampSource = StampSource::TcEgress;

    fn packet(n: i64, noise_ns: i64) -> Candidates {
        let at = n * 62_500_000;
        let mut candidates = Candidates::one(Stamp::new(Time::from_nanos(at + noise_ns), NOISY));
        candidates.add(Stamp::new(Time::from_nanos(at + 1_000), QUIET));
        candidates
    }

    /// A remote clock that gains 37 ppm.
    fn remote(n: i64) -> Time<Ptp> {
        Time::from_nanos(1_700_000_000_000_000_000 + n * 62_502_312)
    }

    fn feed(selector: &mut Selector, packets: i64) -> Vec<Switch> {
        (0..packets)
            .filter_map(|n| {
                let stamp = selector.choose(&packet(n, (n * 7_919) % 600 - 300)).unwrap();
                selector.learn(stamp.packet?, remote(n))
            })
            .collect()
    }

    #[test]
    fn least_noisy_point_is_chosen_although_the_clocks_drift() {
        let mut selector = Selector::automatic(&[NOISY, QUIET]);
        let choices = feed(&mut selector, 40);
        assert_eq!(choices.len(), 1);
        assert_eq!((choices[0].from, choices[0].to), (NOISY, QUIET));
        assert_eq!(selector.chosen(), QUIET);
    }

    #[test]
    fn stamps_do_not_jump_when_the_choice_changes() {
        let mut selector = Selector::automatic(&[NOISY, QUIET]);
        feed(&mut selector, 40);
        let stamp = selector.choose(&packet(50, 0)).unwrap();
        assert_eq!(stamp.source, QUIET);
        // The two points lie 1000 ns apart; the correction has taken that away but for the noise.
        let error = (stamp.time - Time::from_nanos(50 * 62_500_000)).as_nanos();
        assert!(error.abs() < 300, "{error}");
    }

    #[test]
    fn fixed_choice_stays_and_falls_back_corrected() {
        let mut selector = Selector::fixed(&[QUIET, NOISY]);
        assert!(feed(&mut selector, 100).is_empty());
        let only = Candidates::one(Stamp::new(Time::from_nanos(0), NOISY));
        let stamp = selector.choose(&only).unwrap();
        assert_eq!(stamp.source, NOISY);
        assert!((stamp.time.as_nanos() - 1_000).abs() < 300, "{stamp:?}");
        assert_eq!(selector.fallbacks, 1);
    }

    #[test]
    fn point_that_stops_delivering_is_left_and_found_again() {
        let mut selector = Selector::automatic(&[QUIET, NOISY]);
        feed(&mut selector, 40);
        let only = Candidates::one(Stamp::new(Time::from_nanos(0), NOISY));
        for _ in 0..MISSED {
            assert_eq!(selector.chosen(), QUIET);
            selector.choose(&only);
        }
        assert_eq!(selector.chosen(), NOISY);
        assert_eq!(feed(&mut selector, 40).len(), 1);
        assert_eq!(selector.chosen(), QUIET);
    }

    #[test]
    fn stand_in_is_used_as_it_is_and_never_chosen() {
        let mut selector = Selector::automatic(&[QUIET]).with_stand_in(NOISY);
        let stamp = Stamp::new(Time::from_nanos(7), NOISY);
        for n in 1..=u64::from(MISSED) + 1 {
            assert_eq!(selector.choose(&Candidates::one(stamp)), Some(stamp));
            assert_eq!((selector.chosen(), selector.fallbacks), (QUIET, n));
        }
        assert_eq!(selector.choose(&packet(1, 0)).map(|stamp| stamp.source), Some(QUIET));
    }

    #[test]
    fn answer_to_a_packet_of_before_the_interface_came_back_teaches_nothing() {
        let mut old = Selector::automatic(&[NOISY, QUIET]);
        let before = old.choose(&packet(1, 0)).unwrap().packet.unwrap();
        let mut new = Selector::automatic(&[NOISY, QUIET]).in_place_of(&old);
        let stamp = new.choose(&packet(2, 0)).unwrap();
        assert_ne!(stamp.packet, Some(before));
        assert_eq!(new.learn(before, remote(1)), None);
        assert!(new.round.is_empty());
        new.learn(stamp.packet.unwrap(), remote(2));
        new.learn(stamp.packet.unwrap(), remote(2));
        assert_eq!(new.round.len(), 1, "one packet, one answer");
    }

    #[test]
    fn packet_without_any_stamp_has_none() {
        assert_eq!(Selector::fixed(&[QUIET]).choose(&Candidates::default()), None);
    }

    #[test]
    fn answers_that_never_come_cost_bounded_memory() {
        let mut selector = Selector::automatic(&[NOISY, QUIET]);
        for n in 0..10_000 {
            selector.choose(&packet(n, 0));
        }
        assert_eq!(selector.waiting.len(), WAITING);
    }
}
