//! From one-way differences to offset, delay and drift: what the observer makes of the exchanges
//! with one time transmitter.
//!
//! A stamp taken by software is never too early, and neither is a packet: noise adds to a one-way
//! difference, and its distribution has a sharp lower edge. So the fastest packets speak for all:
//!
//! - of Sync, the smallest difference of a short window, extrapolated to the instant in question
//!   with the measured drift. The window is short (4 s, 16 packets) because the clock that is
//!   observed may be steered, and then its frequency changes every second;
//! - of Delay_Req, the smallest delay of the last 16 exchanges. Each is computed for its own instant,
//!   `meanPathDelay` = ((t2 - t1) + (t4 - t3)) / 2 (IEEE 1588-2019 11.3) with the fastest Sync around
//!   it, so that what the clock has done since then does not matter.

use crate::prelude::*;
use alloc::collections::VecDeque;
use ptp_common::{
    time::{Duration, Mono, Time},
    wire::PortIdentity,
};

/// Sync that are remembered.
const WINDOW_PACKETS: usize = 16;
/// Age at which a Sync leaves the window, unless it is the latest...
const WINDOW: Duration = Duration::from_secs(4);
/// ...and at which even the latest leaves it, and a delay is forgotten: message intervals reach this
/// far.
const LATEST: Duration = Duration::from_secs(64);
/// Delays of which the smallest counts.
const DELAYS: usize = 16;
/// Points from which the drift is computed, at the least and at the most, and the least distance
/// between two of them.
const MIN_ANCHORS: usize = 4;
const MAX_ANCHORS: usize = 16;
const ANCHOR_DISTANCE: Duration = Duration::from_millis(500);
/// A drift that no oscillator has; a clock was set in between.
const IMPOSSIBLE_DRIFT: f64 = 0.01;
/// Distance from what the window predicts at which a packet is held to be an outlier...
const OUTLIER: Duration = Duration::from_millis(10);
/// ...and how many in a row are no outliers but a clock that was set, or another route.
const OUTLIERS: u8 = 4;
/// How long the known peer must be silent before another port is believed to be the peer.
const PEER_PATIENCE: Duration = Duration::from_secs(8);

/// A one-way difference between the host's monotonic clock and the transmitter's, and when the host
/// took its stamp.
#[derive(Clone, Copy, Debug)]
pub(super) struct Point {
    pub(super) at: Time<Mono>,
    pub(super) difference: Duration,
}

impl Point {
    /// The difference at another instant, if it changes by `drift` (a ratio).
    fn at(&self, instant: Time<Mono>, drift: f64) -> Duration {
        self.difference + Duration::from_nanos_f64((instant - self.at).as_nanos_f64() * drift)
    }
}

/// What became of a Sync.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Taken {
    /// It is in the window.
    Yes,
    /// It is too far from the others; the window does without it.
    Outlier,
    /// A clock was set: the window begins anew with it.
    Jump,
}

/// The way between a time transmitter and this host, both directions.
#[derive(Debug, Default)]
pub(super) struct Path {
    /// Host minus transmitter from Sync.
    syncs: VecDeque<Point>,
    delays: Delays,
    /// The latest delay while the drift is not known, and with it no Sync but the nearest.
    first_delay: Option<Duration>,
    /// The fastest Sync of each half second; the last one is still open.
    anchors: VecDeque<Point>,
    anchor_since: Option<Time<Mono>>,
    drift: Option<f64>,
    outliers: u8,
}

impl Path {
    /// Takes the difference host minus transmitter of one Sync.
    pub(super) fn sync(&mut self, point: Point) -> Taken {
        prune(&mut self.syncs, point.at);
        let mut taken = Taken::Yes;
        if let Some(predicted) = self.fastest_sync(point.at)
            && (point.difference - predicted).abs() > OUTLIER
        {
            self.outliers += 1;
            if self.outliers < OUTLIERS {
                return Taken::Outlier;
            }
            *self = Self::default();
            taken = Taken::Jump;
        }
        self.outliers = 0;
        self.anchor(point);
        self.syncs.push_back(point);
        prune(&mut self.syncs, point.at);
        taken
    }

    /// Takes the difference transmitter minus host of one Delay_Req. Returns `meanPathDelay` of this
    /// exchange alone, computed with the Sync next to it.
    pub(super) fn request(&mut self, point: Point) -> Option<Duration> {
        let drift = self.drift.unwrap_or(0.0);
        let nearest = self.syncs.iter().min_by_key(|sync| (sync.at - point.at).abs())?;
        let alone = (nearest.at(point.at, drift) + point.difference).half();
        if self.drift.is_none() {
            self.first_delay = Some(alone);
        } else if let Some(fastest) = self.fastest_sync(point.at) {
            self.delays.push(point.at, (fastest + point.difference).half());
            self.first_delay = None;
        }
        Some(alone)
    }

    /// `meanPathDelay` of the fastest exchange.
    pub(super) fn delay(&self, now: Time<Mono>) -> Option<Duration> {
        self.delays.smallest(now).or(self.first_delay)
    }

    /// How much faster the host's monotonic clock is than the transmitter's, as a ratio.
    pub(super) fn drift(&self) -> Option<f64> {
        self.drift
    }

    /// The smallest difference host minus transmitter, as of `instant`.
    pub(super) fn fastest_sync(&self, instant: Time<Mono>) -> Option<Duration> {
        let drift = self.drift.unwrap_or(0.0);
        self.syncs.iter().map(|point| point.at(instant, drift)).min()
    }

    fn anchor(&mut self, point: Point) {
        while self.anchors.front().is_some_and(|old| point.at - old.at > LATEST) {
            self.anchors.pop_front();
        }
        let drift = self.drift.unwrap_or(0.0);
        match (self.anchors.back_mut(), self.anchor_since) {
            (Some(open), Some(since)) if (point.at - since).abs() < ANCHOR_DISTANCE => {
                if point.difference < open.at(point.at, drift) {
                    *open = point;
                }
                return;
            }
            _ => {}
        }
        if self.anchors.len() >= MIN_ANCHORS {
            self.drift = slope(&self.anchors);
        }
        if self.anchors.len() == MAX_ANCHORS {
            self.anchors.pop_front();
        }
        self.anchors.push_back(point);
        self.anchor_since = Some(point.at);
    }
}

fn prune(points: &mut VecDeque<Point>, now: Time<Mono>) {
    while let Some(oldest) = points.front() {
        let age = now - oldest.at;
        let stale = points.len() > WINDOW_PACKETS || age > LATEST;
        if stale || (age > WINDOW && points.len() > 1) {
            points.pop_front();
        } else {
            break;
        }
    }
}

/// The median of the slopes between all pairs of points (Theil and Sen): a third of them may be
/// wrong and it still is right.
fn slope(points: &VecDeque<Point>) -> Option<f64> {
    let mut slopes = Vec::with_capacity(MAX_ANCHORS * (MAX_ANCHORS - 1) / 2);
    for (n, late) in points.iter().enumerate() {
        for early in points.iter().take(n) {
            let span = (late.at - early.at).as_nanos_f64();
            // Closer together there is more noise than drift; stamps out of order mean nothing.
            if span >= 1e8 {
                slopes.push((late.difference - early.difference).as_nanos_f64() / span);
            }
        }
    }
    let middle = slopes.len() / 2;
    if slopes.is_empty() {
        return None;
    }
    let (_, median, _) = slopes.select_nth_unstable_by(middle, f64::total_cmp);
    Some(*median).filter(|drift| drift.abs() < IMPOSSIBLE_DRIFT)
}

/// The last delays that were measured.
#[derive(Debug, Default)]
struct Delays(VecDeque<(Time<Mono>, Duration)>);

impl Delays {
    fn push(&mut self, at: Time<Mono>, delay: Duration) {
        if self.0.len() == DELAYS {
            self.0.pop_front();
        }
        self.0.push_back((at, delay));
    }

    fn smallest(&self, now: Time<Mono>) -> Option<Duration> {
        let fresh = self.0.iter().filter(|(at, _)| now - *at <= LATEST);
        fresh.map(|(_, delay)| *delay).min()
    }

    fn latest(&self) -> Option<Time<Mono>> {
        self.0.back().map(|(at, _)| *at)
    }
}

/// The link to the neighbour, measured with the peer delay mechanism (11.4).
#[derive(Debug)]
pub(super) struct Link {
    peer: PortIdentity,
    delays: Delays,
}

impl Link {
    pub(super) fn new(peer: PortIdentity) -> Self {
        Self { peer, delays: Delays::default() }
    }

    /// Takes `meanLinkDelay` of one exchange. `false` where a second port answers in the place of a
    /// peer that is still there: a misconfigured switch, or somebody who wants to mislead.
    pub(super) fn exchange(&mut self, at: Time<Mono>, peer: PortIdentity, delay: Duration) -> bool {
        if peer != self.peer {
            if self.delays.latest().is_some_and(|last| at - last < PEER_PATIENCE) {
                return false;
            }
            *self = Self::new(peer);
        }
        self.delays.push(at, delay);
        true
    }

    /// `meanLinkDelay` of the fastest exchange.
    pub(super) fn delay(&self, now: Time<Mono>) -> Option<Duration> {
        self.delays.smallest(now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ns(nanos: i64) -> Duration {
        Duration::from_nanos(nanos)
    }

    fn point(at_ms: i64, difference_ns: i64) -> Point {
        Point { at: Time::from_nanos(at_ms * 1_000_000), difference: ns(difference_ns) }
    }

    #[test]
    fn drift_is_found_under_one_sided_noise() {
        let mut path = Path::default();
        for n in 0..200i64 {
            // 37 ppm, and every third packet up to 50 us late.
            let at = n * 62;
            let noise = if n % 3 == 0 { (n * 7919) % 50_000 } else { (n * 104_729) % 300 };
            path.sync(point(at, at * 37 + noise));
        }
        let drift = path.drift().expect("many anchors");
        assert!((drift - 37e-6).abs() < 1e-7, "{drift}");
    }

    #[test]
    fn delay_is_that_of_the_fastest_packets_though_the_clock_is_steered() {
        let mut path = Path::default();
        let mut difference = 5_000_000;
        for n in 0..400 {
            // The frequency changes by up to 1 ppm every second; the delay is 1 us.
            difference += (n / 10 % 3 - 1) * 100;
            path.sync(point(n * 100, difference + 1_000 + (n * 7_919) % 20_000));
            if n % 10 == 5 {
                path.request(point(n * 100 + 10, -difference + 1_000 + (n * 104_729) % 20_000));
            }
        }
        let now = Time::from_nanos(40_000_000_000);
        let delay = path.delay(now).expect("many exchanges").as_nanos();
        assert!((500..=2_500).contains(&delay), "{delay}");
        let offset = (path.fastest_sync(now).expect("many") - ns(delay)).as_nanos();
        assert!((offset - difference).abs() < 2_000, "{}", offset - difference);
    }

    #[test]
    fn before_the_drift_is_known_the_latest_delay_counts() {
        let mut path = Path::default();
        assert_eq!(path.request(point(0, 500)), None);
        path.sync(point(0, 700));
        assert_eq!(path.request(point(10, 300)), Some(ns(500)));
        assert_eq!(path.request(point(20, 1_300)), Some(ns(1_000)));
        assert_eq!(path.delay(Time::from_nanos(0)), Some(ns(1_000)));
    }

    #[test]
    fn one_outlier_is_left_out_and_a_jump_is_believed() {
        let mut path = Path::default();
        for n in 0..20 {
            assert_eq!(path.sync(point(n * 100, 1_000)), Taken::Yes);
        }
        assert_eq!(path.sync(point(2_000, 20_000_000)), Taken::Outlier);
        assert_eq!(path.sync(point(2_100, 1_000)), Taken::Yes);
        for n in 22..25 {
            assert_eq!(path.sync(point(n * 100, -1_500_000_000)), Taken::Outlier);
        }
        assert_eq!(path.sync(point(2_500, -1_500_000_000)), Taken::Jump);
        let now = Time::from_nanos(2_500_000_000);
        assert_eq!(path.fastest_sync(now), Some(ns(-1_500_000_000)));
        assert_eq!((path.delay(now), path.drift()), (None, None));
    }

    #[test]
    fn the_window_forgets_but_keeps_the_latest() {
        let mut path = Path::default();
        let seconds = |second: i64| Time::from_nanos(second * 1_000_000_000);
        path.sync(point(0, 100));
        path.sync(point(5_000, 900));
        assert_eq!(path.fastest_sync(seconds(5)), Some(ns(900)));
        path.sync(point(10_000, 100));
        path.sync(point(12_000, 900));
        assert_eq!(path.fastest_sync(seconds(12)), Some(ns(100)));
        path.sync(point(80_000, 20_000_000));
        assert_eq!(path.fastest_sync(seconds(80)), Some(ns(20_000_000)));
    }

    #[test]
    fn a_second_responder_is_not_believed_while_the_peer_answers() {
        let peer = |number| PortIdentity { port_number: number, ..PortIdentity::default() };
        let at = |second: i64| Time::from_nanos(second * 1_000_000_000);
        let mut link = Link::new(peer(1));
        assert!(link.exchange(at(0), peer(1), ns(900)));
        assert!(!link.exchange(at(1), peer(2), ns(1)));
        assert_eq!(link.delay(at(1)), Some(ns(900)));
        assert!(link.exchange(at(20), peer(2), ns(700)));
        assert_eq!(link.delay(at(20)), Some(ns(700)));
        assert_eq!(link.delay(at(100)), None);
    }
}
