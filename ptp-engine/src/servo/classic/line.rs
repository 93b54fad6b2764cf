//! Lines of least squares through offsets over time, and the rate that they tell.

#[cfg(target_os = "none")]
use crate::math::Float as _;
use ptp_common::time::{Duration, Free, Time};

/// A line through so much of the past at least, or all that there is, ...
const SPAN: Duration = Duration::from_secs(32);
/// ... and through so many points.
const POINTS: f64 = 16.0;
/// Nothing is said of a rate by fewer points ...
const FEWEST: f64 = 8.0;
/// ... or in less time.
const SHORTEST: Duration = Duration::from_secs(2);
/// Stamps are whole nanoseconds.
const GRAIN_NS2: f64 = 1.0;

/// Sums for a least-squares line through (time, offset), relative to the first point.
#[derive(Clone, Copy, Debug)]
pub(super) struct Line {
    pub(super) first: Time<Free>,
    pub(super) last: Time<Free>,
    base: Duration,
    n: f64,
    x: f64,
    y: f64,
    xx: f64,
    xy: f64,
    yy: f64,
}

impl Line {
    pub(super) fn new(mono: Time<Free>, offset: Duration) -> Self {
        let mut line = Self {
            first: mono,
            last: mono,
            base: offset,
            n: 0.0,
            x: 0.0,
            y: 0.0,
            xx: 0.0,
            xy: 0.0,
            yy: 0.0,
        };
        line.push(mono, offset);
        line
    }

    /// Seconds and nanoseconds.
    pub(super) fn push(&mut self, mono: Time<Free>, offset: Duration) {
        self.last = mono;
        let x = (mono - self.first).as_secs_f64();
        let y = (offset - self.base).as_nanos_f64();
        self.n += 1.0;
        self.x += x;
        self.y += y;
        self.xx += x * x;
        self.xy += x * y;
        self.yy += y * y;
    }

    /// ns/s, which is parts per billion.
    pub(super) fn slope(&self) -> Option<f64> {
        let denominator = self.n * self.xx - self.x * self.x;
        (self.n >= 2.0 && denominator > 0.0)
            .then(|| (self.n * self.xy - self.x * self.y) / denominator)
    }

    /// The line's offset at the last point.
    pub(super) fn end(&self, slope: f64) -> Duration {
        let x = (self.last - self.first).as_secs_f64();
        let mean = self.y / self.n;
        self.base + Duration::from_nanos_f64(mean + slope * (x - self.x / self.n))
    }

    fn span(&self) -> Duration {
        self.last - self.first
    }

    fn rate(&self) -> Option<Rate> {
        if self.n < FEWEST || self.span() < SHORTEST {
            return None;
        }
        let ppb = self.slope()?;
        let over = |sum: f64, a: f64, b: f64| sum - a * b / self.n;
        let (xx, xy) = (over(self.xx, self.x, self.x), over(self.xy, self.x, self.y));
        let rest = over(self.yy, self.y, self.y) - ppb * xy;
        let variance = (rest / (self.n - 2.0)).max(GRAIN_NS2);
        let sigma_ppb = (variance / xx).sqrt();
        (ppb.is_finite() && sigma_ppb.is_finite()).then_some(Rate { ppb, sigma_ppb })
    }
}

/// A rate, and its standard deviation by what the points are off the line, parts per billion.
#[derive(Clone, Copy, Debug)]
pub(super) struct Rate {
    pub(super) ppb: f64,
    pub(super) sigma_ppb: f64,
}

/// How the free-running scale moves against the grandmaster, by the last half minute to minute.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Gait {
    old: Option<Line>,
    young: Option<Line>,
}

impl Gait {
    /// Free-running less the grandmaster's time, whatever the way has added.
    pub(super) fn push(&mut self, at: Time<Free>, offset: Duration) {
        if let Some(old) = &mut self.old {
            old.push(at, offset);
        }
        match &mut self.young {
            Some(young) if young.span() >= SPAN && young.n >= POINTS => {
                self.old = self.young.replace(Line::new(at, offset));
            }
            Some(young) => young.push(at, offset),
            None => self.young = Some(Line::new(at, offset)),
        }
    }

    pub(super) fn rate(&self) -> Option<Rate> {
        self.line()?.rate()
    }

    pub(super) fn span(&self) -> Duration {
        self.line().map_or(Duration::ZERO, Line::span)
    }

    fn line(&self) -> Option<&Line> {
        self.old.as_ref().or(self.young.as_ref())
    }
}
