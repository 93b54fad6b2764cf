//! From one-way observations to offset, delay and frequency. A servo is sans-I/O: it is told what
//! was seen and what was done to the clock, and says what to do next. Every local time comes twice,
//! as it was on the free-running monotonic scale and as the steered clock showed it: a classic
//! controller looks at the steered clock, an estimator over long windows must not see its own
//! steering.

pub mod adaptive;
mod causal;
pub mod choice;
mod classic;
mod corrections;
pub mod filter;
mod interval;
mod linreg;
mod ntp;
mod pi;
pub mod trust;

use crate::prelude::*;
pub(crate) use causal::{Causal, Pace};
pub use choice::{Choice, Method, Options, Purpose, UnknownServo, build};
pub use trust::{Basis, Interval, Trust};

#[cfg(test)]
mod tests;

use crate::stamp::StampSource;
use ptp_common::{
    time::{Duration, Free, Ptp, Time},
    wire::Deviation,
};
use serde::{Deserialize, Serialize};

/// A local instant on both scales.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LocalTime {
    /// On the free-running scale.
    pub mono: Time<Free>,
    /// On the steered clock, in the time scale of the domain.
    pub clock: Time<Ptp>,
    /// Where it was taken.
    pub source: StampSource,
    /// How far on the wrong side of the wire it may lie, as [`Stamp::doubt`](crate::stamp::Stamp::doubt).
    pub doubt: Duration,
    /// How far the other end's time may be from the grandmaster's, as
    /// [`Stamp::told_within`](crate::stamp::Stamp::told_within).
    pub told_within: Option<Deviation>,
}

/// A Sync, one way: `t2 - t1` is path delay plus offset.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SyncInput {
    /// Left the time transmitter, corrected.
    pub t1: Time<Ptp>,
    /// Arrived here.
    pub t2: LocalTime,
    /// `sequenceId`.
    pub sequence_id: u16,
    /// The interval that the time transmitter says, log2 s.
    pub log_interval: Option<i8>,
    /// What transparent clocks have added, within `t1` already.
    pub correction: Duration,
}

/// A Delay_Req, the other way: `t4 - t3` is path delay minus offset.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DelayInput {
    /// Left here.
    pub t3: LocalTime,
    /// Arrived at the time transmitter, corrected.
    pub t4: Time<Ptp>,
    /// `sequenceId`.
    pub sequence_id: u16,
    /// What transparent clocks have added, taken from `t4` already.
    pub correction: Duration,
}

/// A measurement of the link by the peer-to-peer mechanism.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct PeerDelayInput {
    /// When it was complete.
    pub mono: Time<Free>,
    /// `meanLinkDelay` of this exchange alone.
    pub mean_link_delay: Duration,
    /// Rate of the peer's clock over the free-running one.
    pub neighbor_rate_ratio: Option<f64>,
    /// By so much a Sync may have been longer on its way than there and back in this exchange.
    pub doubt: Duration,
}

/// What a servo is told of a path, one way.
#[derive(Clone, Copy, Debug)]
pub enum Observed {
    /// A Sync.
    Sync(SyncInput),
    /// An answered Delay_Req.
    Delay(DelayInput),
}

impl Observed {
    /// When it was stamped here.
    pub const fn at(&self) -> Time<Free> {
        match self {
            Self::Sync(sync) => sync.t2.mono,
            Self::Delay(delay) => delay.t3.mono,
        }
    }
}

/// State of the servo.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ServoState {
    /// Measures; the clock is not followed yet.
    Unlocked,
    /// The clock is being stepped.
    Jump,
    /// Follows.
    Locked,
    /// Followed, and now runs on with what it has learnt.
    Holdover,
}

impl ServoState {
    /// All of them, for metrics.
    pub const ALL: [Self; 4] = [Self::Unlocked, Self::Jump, Self::Locked, Self::Holdover];

    /// The name in JSON and in metric labels.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Unlocked => "unlocked",
            Self::Jump => "jump",
            Self::Locked => "locked",
            Self::Holdover => "holdover",
        }
    }
}

/// What a servo makes of a Sync.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ServoOutput {
    /// Best estimate of clock minus time transmitter.
    pub offset: Duration,
    /// The same from the latest exchange alone.
    pub raw_offset: Duration,
    /// `meanPathDelay`, or `meanLinkDelay`.
    pub delay: Duration,
    /// The adjustment that the clock is to run at, parts per billion; positive is faster.
    pub frequency_ppb: f64,
    /// To be added to the clock, after the frequency is set.
    pub step: Option<Duration>,
    /// The state after this Sync.
    pub state: ServoState,
    /// How far the clock can be trusted now; `None` before it is followed.
    pub trust: Option<Trust>,
}

/// A servo.
pub trait Servo: Send {
    /// Its name, as `--servo` takes it.
    fn name(&self) -> &'static str;

    /// A Sync has come. `None` while there is nothing to say, for instance before the first path
    /// delay.
    fn sync(&mut self, input: SyncInput) -> Option<ServoOutput>;

    /// A Delay_Req has been answered.
    fn delay(&mut self, input: DelayInput);

    /// A Delay_Req that was sent in another way than those that are learnt from: it bounds the time by
    /// causality, and no more.
    fn bound_by_delay(&mut self, input: DelayInput) {
        let _ = input;
    }

    /// By what is known now, what was seen so far would have been `history`, in order of time: what was learnt
    /// is to be learnt anew from that, while the clock is kept as it is. `false` where it is too little,
    /// and nothing has changed.
    fn relearn(&mut self, history: &[Observed]) -> bool {
        let _ = history;
        true
    }

    /// A link delay has been measured.
    fn peer_delay(&mut self, input: PeerDelayInput);

    /// What the servo has asked for was done at `now`, the frequency perhaps within limits. `stepped`
    /// is what was really added. Not called where the clock is only watched.
    fn adjusted(&mut self, now: Time<Free>, frequency_ppb: f64, stepped: Option<Duration>);

    /// The clock cannot be adjusted by more than this, parts per billion: nothing beyond is to be
    /// asked for, or integrated.
    fn limit_frequency(&mut self, ppb: f64);

    /// Steps from other offsets on: the thresholds of `options`, and nothing else of it.
    fn set_step_thresholds(&mut self, options: &Options);

    /// The domain's time may have nothing to do any more with what it was: another grandmaster,
    /// another path or another time scale.
    fn parent_changed(&mut self);

    /// No Sync comes any more: the frequency (parts per billion) to run on with. `None` if nothing
    /// has been learnt and the clock should stay as it is.
    fn holdover(&mut self, now: Time<Free>) -> Option<f64>;

    /// The state.
    fn state(&self) -> ServoState;

    /// What the free-running scale gains on the time that is followed, parts per billion, as far as is known.
    fn rate_ppb(&self) -> Option<f64>;

    /// How many samples there were that contradicted the others: stamps that lie, or a time that stepped.
    fn contradictions(&self) -> u64 {
        0
    }

    /// The latest samples contradict the others, and nobody knows yet which are right.
    fn is_contradicted(&self) -> bool {
        false
    }

    /// How far a clock that shows `shown` more than the free-running scale can be trusted at `now`: less
    /// and less while nothing arrives. `None` before it is followed.
    fn trust(&self, now: Time<Free>, shown: Duration) -> Option<Trust>;
}

impl<S: Servo + ?Sized> Servo for Box<S> {
    fn name(&self) -> &'static str {
        (**self).name()
    }
    fn sync(&mut self, input: SyncInput) -> Option<ServoOutput> {
        (**self).sync(input)
    }
    fn delay(&mut self, input: DelayInput) {
        (**self).delay(input);
    }
    fn bound_by_delay(&mut self, input: DelayInput) {
        (**self).bound_by_delay(input);
    }
    fn relearn(&mut self, history: &[Observed]) -> bool {
        (**self).relearn(history)
    }
    fn peer_delay(&mut self, input: PeerDelayInput) {
        (**self).peer_delay(input);
    }
    fn adjusted(&mut self, now: Time<Free>, frequency_ppb: f64, stepped: Option<Duration>) {
        (**self).adjusted(now, frequency_ppb, stepped);
    }
    fn limit_frequency(&mut self, ppb: f64) {
        (**self).limit_frequency(ppb);
    }
    fn set_step_thresholds(&mut self, options: &Options) {
        (**self).set_step_thresholds(options);
    }
    fn parent_changed(&mut self) {
        (**self).parent_changed();
    }
    fn holdover(&mut self, now: Time<Free>) -> Option<f64> {
        (**self).holdover(now)
    }
    fn state(&self) -> ServoState {
        (**self).state()
    }
    fn rate_ppb(&self) -> Option<f64> {
        (**self).rate_ppb()
    }
    fn contradictions(&self) -> u64 {
        (**self).contradictions()
    }
    fn is_contradicted(&self) -> bool {
        (**self).is_contradicted()
    }
    fn trust(&self, now: Time<Free>, shown: Duration) -> Option<Trust> {
        (**self).trust(now, shown)
    }
}
