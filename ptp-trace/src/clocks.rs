//! What is known of the hosts' clocks over time, and what a stamp of one of them was worth. Between two
//! readings of an offset the clock is taken to run evenly, give or take [`Limits::wander_ppm`]; beyond
//! them, and across what is too long a gap, its rate may be anything that a kernel permits, and soon
//! nothing is said at all.

use std::{collections::HashMap, ops::Range};

use crate::{
    names::Names,
    span::{Lack, When},
};

/// Readings of all hosts that are kept.
pub const READINGS_KEPT: usize = 20_000_000;

/// What is assumed of clocks where they were not read.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Limits {
    /// Between two readings the rate of a clock stays so close to its mean there, parts per million.
    pub wander_ppm: f64,
    /// Beyond the readings the offset changes no faster, parts per million. The kernel slews by no more
    /// than 500.
    pub drift_ppm: f64,
    /// Two readings that are farther apart do not say what was between them, ns.
    pub longest_gap_ns: i64,
    /// How far beyond a reading something is said, ns.
    pub reach_ns: i64,
    /// Two grandmasters are no farther apart, ns; `None`: nobody says so.
    pub grandmasters_agree_ns: Option<i64>,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            wander_ppm: 5.0,
            drift_ppm: 500.0,
            longest_gap_ns: 120_000_000_000,
            reach_ns: 30_000_000_000,
            grandmasters_agree_ns: None,
        }
    }
}

/// How far a host's clock was from its grandmaster, once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reading {
    /// When, by the host's own clock, Unix ns.
    pub host_ns: i64,
    /// Host's clock minus grandmaster, ns.
    pub offset_ns: i64,
    /// The truth is no farther from that, ns.
    pub bound_ns: i64,
    /// Number of the grandmaster's name.
    pub grandmaster: u32,
}

impl Reading {
    const fn ends(&self, more_ns: i64) -> [i64; 2] {
        let bound = self.bound_ns.saturating_add(more_ns);
        [self.offset_ns.saturating_sub(bound), self.offset_ns.saturating_add(bound)]
    }
}

/// A host's clock.
#[derive(Clone, Debug, Default)]
pub struct HostClock {
    readings: Vec<Reading>,
    is_sorted: bool,
}

impl HostClock {
    /// Adds what was read, in any order.
    pub fn push(&mut self, reading: Reading) {
        self.is_sorted &= self.readings.last().is_none_or(|last| last.host_ns < reading.host_ns);
        self.is_sorted |= self.readings.is_empty();
        self.readings.push(reading);
    }

    fn sort(&mut self) {
        if !self.is_sorted {
            // Stable: of what was read at one time, the first counts.
            self.readings.sort_by_key(|reading| reading.host_ns);
            self.readings.dedup_by_key(|reading| reading.host_ns);
            self.is_sorted = true;
        }
    }

    /// When it was by the grandmaster's time while the host's clock showed from `host_ns` to `finest_ns - 1`
    /// later.
    ///
    /// # Errors
    /// [`Lack`] where nothing is known.
    pub fn when(&mut self, host_ns: i64, finest_ns: i64, limits: &Limits) -> Result<When, Lack> {
        self.sort();
        let next = self.readings.partition_point(|reading| reading.host_ns <= host_ns);
        let before = next.checked_sub(1).and_then(|at| self.readings.get(at));
        let after = self.readings.get(next);
        let ([lo, hi], grandmaster) = match (before, after) {
            (Some(before), Some(after))
                if after.host_ns.saturating_sub(before.host_ns) <= limits.longest_gap_ns =>
            {
                if before.grandmaster != after.grandmaster {
                    return Err(Lack::GrandmasterChanged);
                }
                (between(before, after, host_ns, limits), before.grandmaster)
            }
            _ => {
                let distance = |reading: &&Reading| reading.host_ns.abs_diff(host_ns);
                let nearest = before.into_iter().chain(after).min_by_key(distance);
                let nearest = nearest.filter(|reading| {
                    i64::try_from(distance(reading)).is_ok_and(|far| far <= limits.reach_ns)
                });
                let nearest = nearest.ok_or(Lack::Gap)?;
                let more = share(distance(&nearest), limits.drift_ppm);
                (nearest.ends(more), nearest.grandmaster)
            }
        };
        Ok(When {
            lo_ns: host_ns.saturating_sub(hi),
            hi_ns: host_ns.saturating_add(finest_ns - 1).saturating_sub(lo),
            grandmaster,
        })
    }
}

/// Lowest and highest offset at `host_ns`, which lies between two readings.
fn between(before: &Reading, after: &Reading, host_ns: i64, limits: &Limits) -> [i64; 2] {
    let span = after.host_ns.abs_diff(before.host_ns).max(1);
    let passed = host_ns.abs_diff(before.host_ns);
    let change = i128::from(after.offset_ns) - i128::from(before.offset_ns);
    let bounds = before.bound_ns.saturating_add(after.bound_ns);
    let most = i128::from(share(span, limits.drift_ppm).saturating_add(bounds));
    if change.abs() > most {
        // A step lies between them, and nobody knows where: either side of it.
        let more = share(span, limits.wander_ppm);
        let ([a, b], [c, d]) = (before.ends(more), after.ends(more));
        return [a.min(c), b.max(d)];
    }
    let gained = change * i128::from(passed) / i128::from(span);
    // Less than the change, which fits.
    let offset = before.offset_ns.saturating_add(gained as i64);
    let more = share(passed.min(span - passed), limits.wander_ppm);
    Reading { offset_ns: offset, bound_ns: before.bound_ns.max(after.bound_ns), ..*before }
        .ends(more.saturating_add(1))
}

/// So many parts per million of a time, ns, rounded up.
fn share(time_ns: u64, ppm: f64) -> i64 {
    // Saturates.
    (time_ns as f64 * ppm * 1e-6).ceil() as i64
}

/// Where readings come from that are fetched when they are needed.
pub trait Source {
    /// Adds what there is of all hosts in `window`, Unix ns by the source's own clock.
    ///
    /// # Errors
    /// Why there is nothing, in words.
    fn fetch(
        &mut self,
        window: Range<i64>,
        known: &mut Known,
        grandmasters: &mut Names,
    ) -> Result<(), String>;
}

/// What is known of all hosts.
#[derive(Clone, Debug, Default)]
pub struct Known {
    hosts: HashMap<Box<str>, HostClock>,
    readings: usize,
    dropped: u64,
}

impl Known {
    /// Adds a reading of the host with this name.
    pub fn push(&mut self, host: &str, reading: Reading) {
        if self.readings >= READINGS_KEPT {
            self.dropped += 1;
            return;
        }
        self.readings += 1;
        if let Some(clock) = self.hosts.get_mut(host) {
            clock.push(reading);
        } else {
            let mut clock = HostClock::default();
            clock.push(reading);
            self.hosts.insert(host.into(), clock);
        }
    }

    /// Hosts of which something is known, in no order.
    pub fn hosts(&self) -> impl Iterator<Item = &str> {
        self.hosts.keys().map(|name| &**name)
    }
}

/// Length of a window that is fetched at once, ns: an hour.
const WINDOW_NS: i64 = 3_600_000_000_000;
/// Windows that are fetched at the most: what a hostile file can make this program ask for.
const WINDOWS: usize = 1_000;

/// The clocks, and whoever can be asked for more.
pub struct Clocks {
    /// What is assumed where they were not read.
    pub limits: Limits,
    /// Names of grandmasters, by number.
    pub grandmasters: Names,
    /// What is known.
    pub known: Known,
    /// Other names that spans give to hosts.
    pub aliases: HashMap<String, String>,
    source: Option<Box<dyn Source>>,
    fetched: HashMap<i64, bool>,
    complaints: Vec<String>,
}

impl std::fmt::Debug for Clocks {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Clocks").field("known", &self.known).finish_non_exhaustive()
    }
}

impl Clocks {
    /// Clocks of which nothing is known yet.
    pub fn new(limits: Limits, source: Option<Box<dyn Source>>) -> Self {
        Self {
            limits,
            grandmasters: Names::default(),
            known: Known::default(),
            aliases: HashMap::new(),
            source,
            fetched: HashMap::new(),
            complaints: Vec::new(),
        }
    }

    /// Fetches what is needed for times in `range`, Unix ns, and has not been fetched.
    pub fn prepare(&mut self, range: Range<i64>) {
        let Some(source) = &mut self.source else { return };
        let first = range.start.saturating_sub(self.limits.longest_gap_ns).div_euclid(WINDOW_NS);
        let last = range.end.saturating_add(self.limits.longest_gap_ns).div_euclid(WINDOW_NS);
        for window in (first..=last).take(WINDOWS) {
            if self.fetched.contains_key(&window) || self.fetched.len() >= WINDOWS {
                continue;
            }
            let start = window.saturating_mul(WINDOW_NS);
            let result = source.fetch(
                start..start.saturating_add(WINDOW_NS),
                &mut self.known,
                &mut self.grandmasters,
            );
            self.fetched.insert(window, result.is_ok());
            if let Err(complaint) = result
                && !self.complaints.contains(&complaint)
                && self.complaints.len() < 20
            {
                self.complaints.push(complaint);
            }
        }
    }

    /// What went wrong while something was fetched, once each.
    pub fn complaints(&self) -> Vec<String> {
        let mut complaints = self.complaints.clone();
        if self.fetched.len() >= WINDOWS {
            complaints.push(format!("spans of more than {WINDOWS} hours: not all were asked for"));
        }
        if self.known.dropped > 0 {
            let dropped = self.known.dropped;
            complaints.push(format!("{dropped} readings of clocks were too many to be kept"));
        }
        complaints
    }

    /// The host that one of `names` is of, by the name that its clock has.
    pub fn host<'a>(&'a self, names: &[&'a str]) -> Option<&'a str> {
        names.iter().find_map(|name| {
            let name = self.aliases.get(*name).map_or(*name, |alias| alias);
            self.known.hosts.get_key_value(name).map(|(name, _)| &**name)
        })
    }

    /// As [`HostClock::when`].
    ///
    /// # Errors
    /// [`Lack`] where nothing is known.
    pub fn when(&mut self, host: &str, host_ns: i64, finest_ns: i64) -> Result<When, Lack> {
        let clock = self.known.hosts.get_mut(host).ok_or(Lack::NoAgent)?;
        clock.when(host_ns, finest_ns, &self.limits)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const S: i64 = 1_000_000_000;

    fn clock(readings: &[(i64, i64, i64)]) -> HostClock {
        let mut clock = HostClock::default();
        for (host_ns, offset_ns, bound_ns) in readings {
            clock.push(Reading {
                host_ns: *host_ns,
                offset_ns: *offset_ns,
                bound_ns: *bound_ns,
                grandmaster: 1,
            });
        }
        clock
    }

    fn when(clock: &mut HostClock, at: i64) -> Result<[i64; 2], Lack> {
        clock.when(at, 1, &Limits::default()).map(|when| [when.lo_ns - at, when.hi_ns - at])
    }

    #[test]
    fn between_two_readings_the_clock_runs_evenly() {
        let mut clock = clock(&[(2 * S, 3_000, 100), (0, 1_000, 200)]);
        assert_eq!(when(&mut clock, 0).unwrap(), [-1_201, -799]);
        // A second from either reading, 5 ppm of it.
        assert_eq!(when(&mut clock, S).unwrap(), [-2_000 - 5_201, -2_000 + 5_201]);
    }

    #[test]
    fn beyond_the_readings_the_bound_grows_until_nothing_is_said() {
        let mut clock = clock(&[(100 * S, 0, 100), (101 * S, 0, 100)]);
        assert_eq!(when(&mut clock, 102 * S).unwrap(), [-500_100, 500_100]);
        assert_eq!(when(&mut clock, 99 * S).unwrap(), [-500_100, 500_100]);
        assert_eq!(when(&mut clock, 132 * S), Err(Lack::Gap));
        assert_eq!(when(&mut clock, i64::MIN), Err(Lack::Gap));
        assert_eq!(when(&mut HostClock::default(), 0), Err(Lack::Gap));
    }

    #[test]
    fn gap_is_a_gap_and_not_a_line_across_it() {
        let mut clock = clock(&[(0, 0, 100), (600 * S, 0, 100)]);
        assert_eq!(when(&mut clock, 300 * S), Err(Lack::Gap));
        assert!(when(&mut clock, 590 * S).unwrap()[1] >= 5_000_000);
    }

    #[test]
    fn where_a_step_lies_between_either_side_is_possible() {
        let mut clock = clock(&[(0, 0, 100), (10 * S, 50_000_000, 100)]);
        let [lo, hi] = when(&mut clock, 9 * S).unwrap();
        assert!(lo <= -50_000_100 && hi >= 100, "{lo} {hi}");
    }

    #[test]
    fn another_grandmaster_in_between_is_said() {
        let mut clock = clock(&[(0, 0, 100)]);
        clock.push(Reading { host_ns: S, offset_ns: 0, bound_ns: 1, grandmaster: 2 });
        assert_eq!(when(&mut clock, 1), Err(Lack::GrandmasterChanged));
        assert!(when(&mut clock, S).is_ok());
    }

    #[test]
    fn coarse_stamp_is_late_by_no_more_than_its_grain() {
        let mut clock = clock(&[(0, 0, 100), (S, 0, 100)]);
        let when = clock.when(0, 1_000, &Limits::default()).unwrap();
        assert_eq!((when.lo_ns, when.hi_ns), (-101, 999 + 101));
    }

    #[test]
    fn what_is_fetched_is_fetched_once_and_not_without_end() {
        struct Asked(std::rc::Rc<std::cell::Cell<usize>>);
        impl Source for Asked {
            fn fetch(&mut self, _: Range<i64>, _: &mut Known, _: &mut Names) -> Result<(), String> {
                self.0.set(self.0.get() + 1);
                Err("away".to_owned())
            }
        }
        let asked = std::rc::Rc::new(std::cell::Cell::new(0));
        let mut clocks = Clocks::new(Limits::default(), Some(Box::new(Asked(asked.clone()))));
        clocks.prepare(WINDOW_NS / 2..WINDOW_NS / 2 + 1);
        clocks.prepare(WINDOW_NS / 2..WINDOW_NS / 2 + 1);
        assert_eq!(asked.get(), 1);
        clocks.prepare(0..i64::MAX);
        clocks.prepare(i64::MIN..0);
        assert!(asked.get() <= WINDOWS);
        assert_eq!(clocks.complaints()[0], "away");
    }

    proptest! {
        /// The truth is a clock whose rate wanders by no more than is assumed.
        #[test]
        fn truth_is_always_inside(
            rates in proptest::collection::vec(-2.0_f64..2.0, 20),
            drift in -80.0_f64..80.0,
            errors in proptest::collection::vec(-1.0_f64..1.0, 21),
            ask in 0.0_f64..1.0,
        ) {
            // Offset at each quarter of a second, the rate changing there; read each second.
            let step = S / 4;
            let mut truth = vec![0.0];
            for rate in &rates {
                truth.push(truth.last().unwrap() + (drift + rate) * 1e-6 * step as f64);
            }
            let mut clock = HostClock::default();
            for n in (0..=20).step_by(4) {
                clock.push(Reading {
                    host_ns: n as i64 * step,
                    offset_ns: (truth[n] + 300.0 * errors[n]).round() as i64,
                    bound_ns: 302,
                    grandmaster: 1,
                });
            }
            let at = (ask * 19.99) * step as f64;
            let quarter = (at / step as f64) as usize;
            let into = at / step as f64 - quarter as f64;
            let offset = truth[quarter] + (truth[quarter + 1] - truth[quarter]) * into;
            let when = clock.when(at as i64, 1, &Limits::default()).unwrap();
            let true_ns = at - offset;
            prop_assert!(when.lo_ns as f64 <= true_ns + 1.0 && true_ns - 1.0 <= when.hi_ns as f64);
        }
    }
}
