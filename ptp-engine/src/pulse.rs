//! A pulse per second (RFC 2783): edges go in with their times, and each comes out as a second of UTC or as refused. A
//! pulse says when a second begins, and not which: that is for other sources to say (PTP, NTP, a receiver's
//! sentences), by an interval in which the time must lie. Once it is known the pulses count themselves, and a
//! source that then names another second moves nothing by itself. Sans-I/O.

use ptp_common::time::{Duration, Free, Time};
use serde::{Deserialize, Serialize};

use crate::servo::Interval;

/// Between two pulses.
pub const PERIOD: Duration = Duration::from_secs(1);
/// Pulses that follow each other before the first is used.
const ACQUIRE: u32 = 3;
/// Others at another place, where those of before have stopped, before they take their place.
const REACQUIRE: u32 = 8;
/// Pulses that must be given the same number by others before it is theirs.
const CONFIRM: u32 = 3;
/// So many pulses must have been contradicted by at least two others that agree, before the number is given up.
const CONTRADICTED: u32 = 8;
const OTHERS: usize = 2;
/// After a longer pause pulses are looked for anew: nobody knows how many were missed.
const LONGEST_GAP: Duration = Duration::from_secs(300);
/// Silence after which it is told that there is no pulse.
pub const SILENCE: Duration = Duration::from_millis(3_500);
/// Any oscillator, ppb, against any pulse.
const ANY_RATE_PPB: i128 = 500_000;
/// What a rate that is known may be wrong by, ppb.
const RATE_ERROR_PPB: i128 = 5_000;
/// The rate is taken over so much time at the least.
const BASE: Duration = Duration::from_secs(16);
/// Farther from its place than this a pulse is at another place, and not late.
const ELSEWHERE: Duration = Duration::from_millis(100);
/// What a source whose interval is narrow may be off, and still be meant to name this pulse and no other; and one whose
/// interval is wide.
const SLACK: Duration = Duration::from_millis(100);
const SLACK_OF_WIDE: Duration = Duration::from_millis(1);
const WIDE: Duration = Duration::from_millis(400);
/// Pulses of which it is told whether they are refused.
const LATELY: u32 = 16;

/// What is known of a source of pulses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Config {
    /// From the second to its stamp: cable, receiver, the least time of the interrupt. Subtracted.
    pub delay: Duration,
    /// The stamp may be later than that by so much, for the interrupt may have to wait.
    pub lateness: Duration,
    /// How far the pulse itself is from UTC at the most.
    pub accuracy: Duration,
    /// A pulse farther than this from where it is expected is refused.
    pub jitter: Duration,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            delay: Duration::ZERO,
            lateness: Duration::from_micros(20),
            accuracy: Duration::from_micros(1),
            jitter: Duration::from_micros(500),
        }
    }
}

/// Why an edge was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Refusal {
    /// Not enough of them yet to know their place.
    Searching,
    /// A second one within the same second.
    Doubled,
    /// Near its place, and not at it.
    Jitter,
    /// At another place, such as half a second off.
    Misplaced,
    /// Nobody says which second it is.
    Unnumbered,
    /// Those who say it contradict each other.
    Disputed,
    /// By all others no second begins there.
    NoSecond,
    /// A leap second is near: for a while numbers are given up.
    Leap,
}

impl Refusal {
    /// All of them.
    pub const ALL: [Self; 8] = [
        Self::Searching,
        Self::Doubled,
        Self::Jitter,
        Self::Misplaced,
        Self::Unnumbered,
        Self::Disputed,
        Self::NoSecond,
        Self::Leap,
    ];

    /// The name in status and metrics.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Searching => "searching",
            Self::Doubled => "doubled",
            Self::Jitter => "jitter",
            Self::Misplaced => "misplaced",
            Self::Unnumbered => "unnumbered",
            Self::Disputed => "disputed",
            Self::NoSecond => "no_second",
            Self::Leap => "leap",
        }
    }

    /// Whether it is the pulse itself that is wrong.
    pub const fn is_of_pulse(self) -> bool {
        matches!(self, Self::Doubled | Self::Jitter | Self::Misplaced | Self::NoSecond)
    }

    const fn index(self) -> usize {
        self as usize
    }
}

/// What others say of the time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hint {
    /// Nobody says anything.
    Nothing,
    /// Sources contradict each other, and there is no majority.
    Disputed,
    /// Where the free-running scale minus UTC must lie, by so many that agree.
    Within(Interval, usize),
    /// A leap second is announced, and near.
    Leap,
}

/// What has become of all edges.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Used as seconds.
    pub used: u64,
    /// Pulses that did not come.
    pub missed: u64,
    /// Pulses that another number was given than they had counted.
    pub wrong_second: u64,
    /// Numbers that were given up because at least two others agreed on another.
    pub renumbered: u64,
    /// Places that were given up for another.
    pub moved: u64,
    refused: [u64; 8],
}

impl Counters {
    /// How many were refused for a reason.
    pub const fn refused(&self, why: Refusal) -> u64 {
        self.refused[why.index()]
    }
}

/// Edges at the distance of the period, one after the other.
#[derive(Clone, Copy, Debug)]
struct Chain {
    first: Time<Free>,
    last: Time<Free>,
    /// Periods between the two.
    periods: i64,
    edges: u32,
}

/// An edge against a chain.
enum Place {
    /// So many periods after the last, and by so much beside its place.
    At(i64, Duration),
    /// By so much beside it.
    Beside(Duration),
    /// In the same second.
    Again,
    /// Nobody knows.
    Unknown,
}

impl Chain {
    const fn new(at: Time<Free>) -> Self {
        Self { first: at, last: at, periods: 0, edges: 1 }
    }

    /// How much longer or shorter than the period the pulses come, and what that may be wrong by, ppb.
    fn rate_ppb(&self) -> (i128, i128) {
        let span = self.last - self.first;
        if span < BASE || self.periods == 0 {
            return (0, ANY_RATE_PPB);
        }
        let whole = Duration::from_secs(self.periods);
        let ppb = (span - whole).as_scaled_nanos() * 1_000_000_000 / whole.as_scaled_nanos();
        (ppb.clamp(-ANY_RATE_PPB, ANY_RATE_PPB), RATE_ERROR_PPB)
    }

    fn place(&self, at: Time<Free>, jitter: Duration) -> Place {
        let gap = at - self.last;
        if gap > LONGEST_GAP || gap.is_negative() {
            return Place::Unknown;
        }
        let of = |whole: Duration, ppb: i128| {
            Duration::from_scaled_nanos(whole.as_scaled_nanos() * ppb / 1_000_000_000)
        };
        let (ppb, error_ppb) = self.rate_ppb();
        let periods = nearest_second(gap - of(gap, ppb));
        if periods == 0 {
            return Place::Again;
        }
        let whole = Duration::from_secs(periods);
        let beside = gap - whole - of(whole, ppb);
        if beside.abs() <= jitter + of(whole, error_ppb) {
            Place::At(periods, beside)
        } else {
            Place::Beside(beside)
        }
    }

    fn extend(&mut self, at: Time<Free>, periods: i64) {
        self.last = at;
        self.periods += periods;
        self.edges = self.edges.saturating_add(1);
    }
}

/// The whole second nearest to it.
fn nearest_second(it: Duration) -> i64 {
    floor_second(it + PERIOD.half())
}

fn floor_second(it: Duration) -> i64 {
    let whole = it.as_scaled_nanos().div_euclid(PERIOD.as_scaled_nanos());
    i64::try_from(whole).unwrap_or(i64::MAX)
}

/// How it stands with the pulses.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum State {
    /// None have come, or none of late.
    #[default]
    Silent,
    /// Their place is looked for.
    Searching,
    /// They come, and nobody says which seconds they are.
    Unnumbered,
    /// They are used.
    Numbered,
}

impl State {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Silent, Self::Searching, Self::Unnumbered, Self::Numbered];

    /// The name in status and metrics.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Silent => "silent",
            Self::Searching => "searching",
            Self::Unnumbered => "unnumbered",
            Self::Numbered => "numbered",
        }
    }
}

/// The pulses of one source. See the module's paragraph.
#[derive(Clone, Debug)]
pub struct Train {
    config: Config,
    chain: Option<Chain>,
    /// Edges that were refused and follow each other at the distance of a period.
    other: Option<Chain>,
    /// UTC of the last edge of the chain, seconds since 1970.
    number: Option<i64>,
    /// What others called the last edges, and how many.
    named: Option<(i64, u32)>,
    contradicted: u32,
    /// The last edge that was used, and its second.
    held: Option<(Time<Free>, i64)>,
    latest: Option<Time<Free>>,
    why: Option<Refusal>,
    /// Mean distance from where a pulse was expected, ns.
    jitter_ns: f64,
    /// One bit for each of the last edges: whether it was wrong.
    lately: u32,
    counters: Counters,
}

impl Train {
    /// Of pulses of which this is known.
    pub const fn new(config: Config) -> Self {
        Self {
            config,
            chain: None,
            other: None,
            number: None,
            named: None,
            contradicted: 0,
            held: None,
            latest: None,
            why: None,
            jitter_ns: 0.0,
            lately: 0,
            counters: Counters {
                used: 0,
                missed: 0,
                wrong_second: 0,
                renumbered: 0,
                moved: 0,
                refused: [0; 8],
            },
        }
    }

    /// What is known of the source.
    pub const fn config(&self) -> &Config {
        &self.config
    }

    /// The edge at `at`: the second of UTC that begins there, seconds since 1970. `hint` is what others say.
    ///
    /// # Errors
    /// Why it is not used, which has been counted.
    pub fn edge(&mut self, at: Time<Free>, hint: Hint) -> Result<i64, Refusal> {
        self.latest = Some(at);
        let found = self.placed(at).and_then(|()| self.numbered(at, hint));
        self.why = found.err();
        self.lately <<= 1;
        match found {
            Ok(second) => {
                self.counters.used += 1;
                self.held = Some((at, second));
            }
            Err(why) => {
                self.counters.refused[why.index()] += 1;
                self.lately |= u32::from(why.is_of_pulse());
            }
        }
        found
    }

    /// Whether it is where it has to be.
    fn placed(&mut self, at: Time<Free>) -> Result<(), Refusal> {
        let Some(chain) = &mut self.chain else {
            self.search(at, ACQUIRE);
            return if self.chain.is_some() { Ok(()) } else { Err(Refusal::Searching) };
        };
        let refusal = match chain.place(at, self.config.jitter) {
            Place::At(periods, beside) => {
                chain.extend(at, periods);
                let missed = periods - 1;
                self.counters.missed += missed.unsigned_abs();
                self.jitter_ns += (beside.as_nanos_f64().abs() - self.jitter_ns) / 16.0;
                self.number = self.number.map(|number| number + periods);
                self.named = self.named.map(|(second, times)| (second + periods, times));
                return Ok(());
            }
            Place::Again => Refusal::Doubled,
            Place::Beside(beside) if beside.abs() < ELSEWHERE => Refusal::Jitter,
            Place::Beside(_) => Refusal::Misplaced,
            Place::Unknown => {
                self.forget();
                self.search(at, ACQUIRE);
                return Err(Refusal::Searching);
            }
        };
        let is_silent = at - chain.last > PERIOD * (REACQUIRE as i32 - 1);
        if self.search(at, REACQUIRE) && is_silent {
            self.counters.moved += 1;
            (self.number, self.named, self.contradicted) = (None, None, 0);
        }
        Err(refusal)
    }

    /// Whether enough edges follow each other; they are the chain then, where that has stopped.
    fn search(&mut self, at: Time<Free>, enough: u32) -> bool {
        let other = self.other.get_or_insert(Chain::new(at));
        match other.place(at, self.config.jitter) {
            Place::At(periods, _) => other.extend(at, periods),
            // One that is doubled has two chains, of which the first is kept until it ends.
            Place::Again => {}
            Place::Beside(_) | Place::Unknown => *other = Chain::new(at),
        }
        let is_enough = other.edges >= enough && other.last == at;
        let has_stopped =
            self.chain.is_none_or(|chain| at - chain.last > PERIOD * (REACQUIRE as i32 - 1));
        if is_enough && has_stopped {
            self.chain = self.other.take();
        }
        is_enough
    }

    fn forget(&mut self) {
        (self.chain, self.other, self.number, self.named) = (None, None, None, None);
        self.contradicted = 0;
    }

    /// Which second it is, by its own count or by what others say.
    fn numbered(&mut self, at: Time<Free>, hint: Hint) -> Result<i64, Refusal> {
        let (named, others) = match hint {
            Hint::Leap => {
                (self.number, self.named, self.held) = (None, None, None);
                return Err(Refusal::Leap);
            }
            Hint::Nothing => (Err(Refusal::Unnumbered), 0),
            Hint::Disputed => (Err(Refusal::Disputed), 0),
            Hint::Within(interval, others) => (self.name(at, interval), others),
        };
        let Some(number) = self.number else {
            let second = named?;
            let times = match self.named {
                Some((before, times)) if before == second => times + 1,
                _ => 1,
            };
            self.named = Some((second, times));
            if times < CONFIRM {
                return Err(Refusal::Unnumbered);
            }
            self.number = Some(second);
            self.contradicted = 0;
            return Ok(second);
        };
        match named {
            Ok(second) if second != number => {
                self.counters.wrong_second += 1;
                self.contradicted = self.contradicted.saturating_add(1);
                if others >= OTHERS && self.contradicted >= CONTRADICTED {
                    self.counters.renumbered += 1;
                    (self.number, self.named) = (None, Some((second, 1)));
                    return Err(Refusal::Disputed);
                }
            }
            Ok(_) => self.contradicted = 0,
            Err(_) => {}
        }
        Ok(number)
    }

    /// Whether no second can begin there by the seconds that were counted before: who knows the time to a second only
    /// cannot move it by half of one.
    fn is_denied(&self, at: Time<Free>, second: i64) -> bool {
        let Some((held_at, held)) = self.held else { return false };
        let passed = at - held_at;
        let drift = passed.as_scaled_nanos() * ANY_RATE_PPB / 1_000_000_000;
        let beside = (passed - Duration::from_secs(second.saturating_sub(held))).abs();
        beside > ELSEWHERE + Duration::from_scaled_nanos(drift)
    }

    /// The one second that may begin at `at`.
    fn name(&self, at: Time<Free>, free_minus_utc: Interval) -> Result<i64, Refusal> {
        let begun = at.since_epoch() - self.config.delay;
        let lo = begun - self.config.lateness - free_minus_utc.hi;
        let hi = begun - free_minus_utc.lo;
        let slack = if hi - lo > WIDE { SLACK_OF_WIDE } else { SLACK };
        let (first, last) = (floor_second(lo - slack) + 1, floor_second(hi + slack));
        match last - first {
            0 if hi - lo > WIDE && self.is_denied(at, first) => Err(Refusal::NoSecond),
            0 => Ok(first),
            1.. => Err(Refusal::Unnumbered),
            _ => Err(Refusal::NoSecond),
        }
    }

    /// How it stands at `now`.
    pub fn state(&self, now: Time<Free>) -> State {
        match (self.latest, self.chain) {
            (Some(latest), _) if now - latest > SILENCE => State::Silent,
            (None, _) => State::Silent,
            (_, None) => State::Searching,
            (_, Some(_)) if self.number.is_none() => State::Unnumbered,
            _ => State::Numbered,
        }
    }

    /// Why the last edge was refused; `None` where it was used.
    pub const fn refused(&self) -> Option<Refusal> {
        self.why
    }

    /// Whether the last number is another than all others gave: their second, or it, is wrong.
    pub const fn is_wrong_second(&self) -> bool {
        self.contradicted >= CONFIRM
    }

    /// Share of the last sixteen edges that were wrong themselves, from 0 to 1.
    pub fn wrong_lately(&self) -> f64 {
        let lately = self.lately & ((1 << LATELY) - 1);
        f64::from(lately.count_ones()) / f64::from(LATELY)
    }

    /// Mean distance of a pulse from where it was expected by those before.
    pub fn jitter(&self) -> Duration {
        Duration::from_nanos_f64(self.jitter_ns)
    }

    /// How much longer than a second of the free-running scale the time between two pulses is, ppb, once it is known.
    pub fn rate_ppb(&self) -> Option<f64> {
        let (ppb, error_ppb) = self.chain?.rate_ppb();
        (error_ppb < ANY_RATE_PPB).then_some(ppb as f64)
    }

    /// What has become of all edges.
    pub const fn counters(&self) -> &Counters {
        &self.counters
    }
}

#[cfg(test)]
mod tests;
