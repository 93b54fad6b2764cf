//! The servo of `--clock none`: it says by how much the local time scale is off and adjusts nothing.

use super::{
    DelayInput, Options, PeerDelayInput, Servo, ServoOutput, ServoState, SyncInput, Trust,
    filter::{DelayFilterKind, TimestampMode, TimestampProcessor},
};
use ptp_common::time::{Duration, Mono, Time};

/// Smoothing of the frequency difference, in Sync messages.
const SMOOTHING: f64 = 32.0;

/// Measures only.
#[derive(Debug)]
pub struct WatchServo {
    processor: TimestampProcessor,
    /// Where the offset was about a second ago, for the frequency difference.
    anchor: Option<(Time<Mono>, Duration)>,
    frequency_ppb: f64,
    state: ServoState,
}

impl WatchServo {
    /// With linuxptp's default delay filter.
    pub fn new() -> Self {
        let (mode, kind) = (TimestampMode::Filter, DelayFilterKind::MovingMedian);
        Self {
            processor: TimestampProcessor::new(mode, kind, 10),
            anchor: None,
            frequency_ppb: 0.0,
            state: ServoState::Unlocked,
        }
    }
}

impl Default for WatchServo {
    fn default() -> Self {
        Self::new()
    }
}

impl Servo for WatchServo {
    fn name(&self) -> &'static str {
        "watch"
    }

    /// `frequency_ppb` is the adjustment that would make the local scale run right.
    fn sync(&mut self, input: SyncInput) -> Option<ServoOutput> {
        let measured = self.processor.sync(input)?;
        match self.anchor {
            None => self.anchor = Some((input.t2.mono, measured.offset)),
            Some((mono, offset)) => {
                let seconds = (input.t2.mono - mono).as_secs_f64();
                // A point per second at the most: closer ones say more about noise than rate.
                if seconds >= 1.0 {
                    let slope = (measured.offset - offset).as_nanos_f64() / seconds;
                    self.frequency_ppb += (-slope - self.frequency_ppb) / SMOOTHING;
                    self.anchor = Some((input.t2.mono, measured.offset));
                }
            }
        }
        self.state = ServoState::Locked;
        Some(measured.output(self.frequency_ppb, self.state))
    }

    fn delay(&mut self, input: DelayInput) {
        self.processor.delay(input);
    }

    fn peer_delay(&mut self, input: PeerDelayInput) {
        self.processor.peer_delay(input);
    }

    fn adjusted(&mut self, _now: Time<Mono>, _frequency_ppb: f64, _stepped: Option<Duration>) {}

    fn limit_frequency(&mut self, _ppb: f64) {}

    fn set_step_thresholds(&mut self, _options: &Options) {}

    fn parent_changed(&mut self) {
        *self = Self::new();
    }

    fn holdover(&mut self, _now: Time<Mono>) -> Option<f64> {
        self.state = ServoState::Unlocked;
        None
    }

    fn state(&self) -> ServoState {
        self.state
    }

    fn trust(&self, _now: Time<Mono>, _shown: Duration) -> Option<Trust> {
        None
    }
}
