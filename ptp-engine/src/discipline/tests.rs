//! Claims about a time receiver with its servo and clock, in virtual time.

use super::*;
use crate::{
    clock::virtual_clock::VirtualClock,
    receiver::{DelayObservation, Observation, SyncObservation},
    servo::Observed,
    testing::Listening,
};
use ptp_common::wire::ClockIdentity;

/// What of an exchange came to the servo.
fn heard(servo: &Listening) -> Vec<&'static str> {
    let name = |observed: &Observed| match observed {
        Observed::Sync(_) => "sync",
        Observed::Delay(_) => "delay",
    };
    servo.heard().iter().map(name).collect()
}

/// A software clock that follows when it is told to.
struct Obedient(VirtualClock, Consent);

impl Clock for Obedient {
    fn name(&self) -> &str {
        "obedient"
    }
    fn at(&self, mono: Time<Mono>) -> Time<Ptp> {
        self.0.at(mono)
    }
    fn consent(&mut self, _: Time<Mono>, _: Duration) -> Result<Consent, ClockError> {
        Ok(self.1)
    }
    fn frequency_ppb(&self) -> f64 {
        self.0.frequency_ppb()
    }
    fn max_frequency_ppb(&self) -> f64 {
        self.0.max_frequency_ppb()
    }
    fn set_frequency(&mut self, now: Time<Mono>, ppb: f64) -> Result<f64, ClockError> {
        self.0.set_frequency(now, ppb)
    }
    fn step(&mut self, now: Time<Mono>, by: Duration) -> Result<(), ClockError> {
        self.0.step(now, by)
    }
}

#[test]
fn delays_are_withheld_for_as_long_as_sync_is() {
    let now = Time::from_nanos(1_000_000_000);
    let served = Time::from_seconds_nanos(1_900_000_000, 0);
    let clock = Obedient(VirtualClock::new(now, served, 1e6), Consent::Given);
    let servo = Listening::default();
    let identity = ClockIdentity([1, 0, 0, 0xff, 0xfe, 0, 0, 1]);
    let config = ReceiverConfig::new(identity, 1);
    let mut client = Client::new(config, Box::new(servo.clone()), clock, now);
    let stamp = Stamp::new(now, StampSource::Simulated);
    let sync = Observation::Sync(SyncObservation {
        t1: served,
        t2: stamp,
        sequence_id: 1,
        log_interval: Some(0),
        two_step: true,
        correction: Duration::ZERO,
    });
    let delay = Observation::Delay(DelayObservation {
        t3: stamp,
        t4: served,
        sequence_id: 1,
        correction: Duration::ZERO,
    });
    for (consent, expected) in [
        (Consent::Given, ["sync", "delay"].as_slice()),
        (Consent::Later, &[]),
        (Consent::Given, &["sync", "delay"]),
    ] {
        client.clock_mut().1 = consent;
        for observation in [sync, delay] {
            let parent = PortIdentity { clock_identity: identity, port_number: 1 };
            let measurement = Measurement { port: PortIndex(0), epoch: 1, parent, observation };
            let (mut out, mut said) = (Commands::default(), Commands::default());
            let mut way = Way { now, out: &mut out, said: &mut said };
            client.measured(&mut way, &measurement);
        }
        assert_eq!(heard(&servo), expected, "{consent:?}");
    }
}
