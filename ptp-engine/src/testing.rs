//! For the tests of this crate and of those that drive it: a servo that only listens, so that a claim about what
//! a servo is shown needs no servo of its own.

use std::sync::{Arc, Mutex, PoisonError};

use crate::prelude::*;
use crate::servo::{
    DelayInput, Observed, Options, PeerDelayInput, Servo, ServoOutput, ServoState, SyncInput, Trust,
};
use ptp_common::time::{Duration, Free, Time};

/// Writes down what it is told, steers nothing and stays unlocked. Clones have one list.
#[derive(Clone, Debug, Default)]
pub struct Listening(Arc<Mutex<Vec<Observed>>>);

impl Listening {
    /// What was told since this was last asked, in its order.
    pub fn heard(&self) -> Vec<Observed> {
        core::mem::take(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn hear(&self, observed: Observed) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push(observed);
    }
}

impl Servo for Listening {
    fn name(&self) -> &'static str {
        "listening"
    }
    fn sync(&mut self, input: SyncInput) -> Option<ServoOutput> {
        self.hear(Observed::Sync(input));
        None
    }
    fn delay(&mut self, input: DelayInput) {
        self.hear(Observed::Delay(input));
    }
    fn peer_delay(&mut self, _: PeerDelayInput) {}
    fn adjusted(&mut self, _: Time<Free>, _: f64, _: Option<Duration>) {}
    fn limit_frequency(&mut self, _: f64) {}
    fn set_step_thresholds(&mut self, _: &Options) {}
    fn parent_changed(&mut self) {}
    fn holdover(&mut self, _: Time<Free>) -> Option<f64> {
        None
    }
    fn state(&self) -> ServoState {
        ServoState::Unlocked
    }
    fn rate_ppb(&self) -> Option<f64> {
        None
    }
    fn trust(&self, _: Time<Free>, _: Duration) -> Option<Trust> {
        None
    }
}
