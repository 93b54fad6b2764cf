//! From one-way differences to offset, delay and drift: what the observer makes of the exchanges
//! with one time transmitter.
//!
//! A stamp taken by software is never too early, and neither is a packet: noise adds to a one-way
//! difference and has a sharp lower edge. So the smallest difference of a short window stands for
//! each direction, each extrapolated to the same instant with the measured drift. The window is
//! short (4 s, 16 packets) because the clock under observation may be steered, and then its
//! frequency changes every second. Mean path delay and offset are half the sum and half the
//! difference of the two minima (IEEE 1588-2019 11.3).

use ptp_common::{
    time::{Duration, Mono, Time},
    wire::PortIdentity,
};
use std::collections::VecDeque;

/// Packets of one direction that are remembered.
const WINDOW_PACKETS: usize = 16;
/// Age at which a packet leaves the window, unless it is the latest...
const WINDOW: Duration = Duration::from_secs(4);
/// ...and at which even the latest leaves it: message intervals reach this far.
const LATEST: Duration = Duration::from_secs(64);
/// Points from which the drift is computed, and the least distance between two of them.
const ANCHORS: usize = 16;
const ANCHOR_DISTANCE: Duration = Duration::from_millis(500);
/// A drift that no oscillator has; a clock was set in between.
const IMPOSSIBLE_DRIFT: f64 = 0.01;
/// Distance from what the window predicts at which a packet is held to be an outlier...
const OUTLIER: Duration = Duration::from_millis(10);
/// ...and how many in a row are no outliers but a clock that was set, or another route.
const OUTLIERS: u8 = 4;
/// Peer delay exchanges of which the fastest counts, and how long they do.
const LINK_EXCHANGES: usize = 16;
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
    /// Transmitter minus host from Delay_Req.
    requests: VecDeque<Point>,
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
        prune(&mut self.requests, point.at);
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
        self.requests.push_back(point);
        prune(&mut self.requests, point.at);
        let drift = self.drift.unwrap_or(0.0);
        let nearest = self.syncs.iter().min_by_key(|sync| (sync.at - point.at).abs())?;
        Some((nearest.at(point.at, drift) + point.difference).half())
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

    /// The smallest difference transmitter minus host, as of `instant`.
    pub(super) fn fastest_request(&self, instant: Time<Mono>) -> Option<Duration> {
        let drift = self.drift.unwrap_or(0.0);
        self.requests.iter().map(|point| point.at(instant, -drift)).min()
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
        self.drift = slope(&self.anchors);
        if self.anchors.len() == ANCHORS {
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
    let mut slopes = Vec::with_capacity(ANCHORS * (ANCHORS - 1) / 2);
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

/// The link to the neighbour, measured with the peer delay mechanism (11.4).
#[derive(Debug)]
pub(super) struct Link {
    peer: PortIdentity,
    delays: VecDeque<(Time<Mono>, Duration)>,
}

impl Link {
    pub(super) const fn new(peer: PortIdentity) -> Self {
        Self { peer, delays: VecDeque::new() }
    }

    /// Takes `meanLinkDelay` of one exchange. `false` where a second port answers in the place of a
    /// peer that is still there: a misconfigured switch, or somebody who wants to mislead.
    pub(super) fn exchange(&mut self, at: Time<Mono>, peer: PortIdentity, delay: Duration) -> bool {
        if peer != self.peer {
            if self.delays.back().is_some_and(|(last, _)| at - *last < PEER_PATIENCE) {
                return false;
            }
            *self = Self::new(peer);
        }
        if self.delays.len() == LINK_EXCHANGES {
            self.delays.pop_front();
        }
        self.delays.push_back((at, delay));
        true
    }

    /// `meanLinkDelay` of the fastest exchange.
    pub(super) fn delay(&self, now: Time<Mono>) -> Option<Duration> {
        let fresh = self.delays.iter().filter(|(at, _)| now - *at <= LATEST);
        fresh.map(|(_, delay)| *delay).min()
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
    fn delay_is_half_the_sum_of_the_fastest_packets() {
        let mut path = Path::default();
        for n in 0..10 {
            path.sync(point(n * 100, 5_000_000 + 700 + (n % 4) * 900));
            path.request(point(n * 100 + 10, -5_000_000 + 1_300 + (n % 3) * 500));
        }
        let now = Time::from_nanos(1_000_000_000);
        let (there, back) = (path.fastest_sync(now).unwrap(), path.fastest_request(now).unwrap());
        let delay = (there + back).half().as_nanos();
        let offset = (there - back).half().as_nanos();
        assert!((900..=1_100).contains(&delay), "{delay}");
        assert!((4_999_500..=4_999_900).contains(&offset), "{offset}");
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
        assert_eq!(path.fastest_request(now), None);
    }

    #[test]
    fn the_window_forgets_but_keeps_the_latest() {
        let mut path = Path::default();
        path.request(point(0, 500));
        path.sync(point(0, 100));
        path.request(point(10, 500));
        path.sync(point(5_000, 900));
        assert_eq!(path.fastest_sync(Time::from_nanos(5_000_000_000)), Some(ns(900)));
        assert!(path.fastest_request(Time::from_nanos(5_000_000_000)).is_some());
        path.sync(point(80_000, 900));
        assert_eq!(path.fastest_request(Time::from_nanos(80_000_000_000)), None);
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
