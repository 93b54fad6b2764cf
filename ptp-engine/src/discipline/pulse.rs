//! A pulse per second in the discipline: a witness among the others, or what the clock follows. An edge that was
//! given its second is an exchange of its own kind: the second began no later than the edge, and no earlier than the
//! interrupt may have been late by. So it bounds the clock's error by causality as a round trip does, with a
//! path of some microseconds.

use super::{Discipline, Event, Way, ntp::utc, witness::free_running};
use crate::{
    PortIndex,
    clock::Clock,
    config::{PulseConfig, PulsePart},
    nmea::{self, Counters as NmeaCounters, Fix, Receiver},
    outcome::{Measurement, Observation, Parent, SyncObservation},
    pulse::{Counters, Hint, PERIOD, Refusal, State, Train},
    seam::{Change, Command, Context, Input},
    servo::{DelayInput, LocalTime, SyncInput},
    sources::SourceId,
    stamp::Stamp,
};
use ptp_common::{
    data_set::{ParentDataSet, TimeProperties},
    ntp::Leap,
    time::{Duration, Free, Mono, Ptp, Time},
    wire::{ClockAccuracy, ClockIdentity, ClockQuality, PortIdentity, TimeSource},
};

/// What stands for the identity of a pulse, and of a receiver's line.
const PULSE: ClockIdentity = ClockIdentity(*b"PPS\0\0\0\0\0");
const NMEA: ClockIdentity = ClockIdentity(*b"NMEA\0\0\0\0");
/// A sentence comes within this behind the second that it names.
const SENTENCE: Duration = Duration::from_secs(1);
/// Seconds before and after the end of a day with a leap second in which no number holds.
const LEAP_BEFORE: i64 = 6;
const LEAP_AFTER: i64 = 25;
const DAY: i64 = 86_400;

/// A pulse, for status and metrics.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct PulseStatus {
    /// How it stands.
    pub state: State,
    /// Why the last edge was refused.
    pub refused: Option<Refusal>,
    /// What has become of all edges.
    pub counters: Counters,
    /// Clock minus pulse at the last edge that was given a second.
    pub offset: Option<Duration>,
    /// Mean distance of an edge from where those before made it expected.
    pub jitter: Duration,
    /// How much longer than a second of the host the pulse's interval is, ppb.
    pub rate_ppb: Option<f64>,
    /// Whether others call it another second.
    pub is_wrong_second: bool,
    /// Share of the last sixteen edges that were wrong themselves.
    pub wrong_lately: f64,
    /// Whether the clock follows it.
    pub is_followed: bool,
    /// The receiver that names seconds, where there is one.
    pub nmea: Option<NmeaStatus>,
}

/// A receiver's line, for status and metrics.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct NmeaStatus {
    /// Whether it knows the time.
    pub fix: Fix,
    /// Whether its date had to be brought forward by 1024 weeks.
    pub is_rolled_over: bool,
    /// How long ago it last named a second.
    pub age: Option<Duration>,
    /// What has been read.
    pub counters: NmeaCounters,
}

/// See the module's paragraph.
#[derive(Debug)]
pub(super) struct Pulses {
    config: PulseConfig,
    train: Train,
    receiver: Option<Receiver>,
    port: PortIndex,
    parent: Option<Parent>,
    offset: Option<Duration>,
    sequence_id: u16,
    epoch: u64,
}

impl Pulses {
    /// Its port is behind `ports` others.
    pub(super) fn new(config: PulseConfig, ports: usize) -> Self {
        Self {
            train: Train::new(config.pulse),
            receiver: config.nmea_earliest.map(Receiver::new),
            config,
            port: PortIndex(u16::try_from(ports).unwrap_or(u16::MAX)),
            parent: None,
            offset: None,
            sequence_id: 0,
            epoch: 0,
        }
    }

    pub(super) const fn parent(&self) -> Option<&Parent> {
        self.parent.as_ref()
    }

    const fn is_source(&self) -> bool {
        matches!(self.config.part, PulsePart::Source)
    }

    /// What the pulse says of its time; `leap` by whom it is numbered.
    fn properties(&self, leap: Leap) -> TimeProperties {
        let utc = utc(leap);
        match self.config.tai_offset_s {
            None => utc,
            Some(offset) => TimeProperties {
                current_utc_offset: offset,
                current_utc_offset_valid: true,
                ptp_timescale: true,
                time_traceable: true,
                frequency_traceable: true,
                time_source: TimeSource::GNSS,
                ..utc
            },
        }
    }
}

impl<C: Clock> Discipline<C> {
    /// Whether a pulse per second is what the clock follows.
    pub fn follows_pulse(&self) -> bool {
        self.pulse.as_ref().is_some_and(|pulse| pulse.is_source())
    }

    /// The pulse that is watched.
    pub fn pulse(&self, now: Time<Mono>) -> Option<PulseStatus> {
        let pulse = self.pulse.as_ref()?;
        let Pulses { train, receiver, .. } = &**pulse;
        Some(PulseStatus {
            state: train.state(self.clock.free_running(now)),
            refused: train.refused(),
            counters: *train.counters(),
            offset: pulse.offset,
            jitter: train.jitter(),
            rate_ppb: train.rate_ppb(),
            is_wrong_second: train.is_wrong_second(),
            wrong_lately: train.wrong_lately(),
            is_followed: pulse.is_source(),
            nmea: receiver.as_ref().map(|receiver| NmeaStatus {
                fix: receiver.fix(),
                is_rolled_over: receiver.is_rolled_over(),
                age: receiver.latest().map(|told| now - told.at),
                counters: *receiver.counters(),
            }),
        })
    }

    /// Takes what comes from a pulse or a receiver.
    pub(super) fn handled_by_pulse(
        &mut self,
        cx: &mut Context<'_, Event>,
        input: &Input<'_>,
    ) -> bool {
        match *input {
            Input::Pulse(stamp) => {
                let mut said = core::mem::take(&mut self.said);
                self.edge(&mut Way { now: cx.now, out: cx.out, said: &mut said }, stamp);
                self.said = said;
                if !self.said.is_empty() {
                    self.give(cx, |_, _| ());
                }
                true
            }
            Input::Nmea { at, bytes } => {
                self.sentences(cx.now, at, bytes);
                true
            }
            _ => false,
        }
    }

    /// A receiver names a second after it has begun, and before the next one does.
    fn sentences(&mut self, now: Time<Mono>, at: Time<Mono>, bytes: &[u8]) {
        let Some(receiver) = self.pulse.as_mut().and_then(|it| it.receiver.as_mut()) else {
            return;
        };
        let (clock, council) = (&self.clock, &mut self.council);
        receiver.read(at, bytes, |nmea::Told { at, second }| {
            let local = |at| {
                let source = crate::stamp::StampSource::Pps;
                free_running(clock.free_running(at), Stamp::new(at, source))
            };
            let (delay, sync) = bounds(second, local(at - SENTENCE), local(at), 0);
            let witness = council.witness(now, SourceId::Nmea, NMEA, utc(Leap::None));
            witness.exchange(now, &delay, &sync, SENTENCE, Duration::ZERO);
        });
    }

    /// What those say who name seconds.
    fn hint(&self, now: Time<Mono>, free: Time<Free>) -> Hint {
        let hint = self.council.hint(now, free);
        if let Hint::Within(interval, _) = hint
            && self.council.is_leap_announced()
        {
            let utc = free.since_epoch() - interval.middle();
            let second = i64::try_from(utc.as_scaled_nanos() / PERIOD.as_scaled_nanos());
            let of_day = second.unwrap_or(0).rem_euclid(DAY);
            if !(LEAP_AFTER..DAY - LEAP_BEFORE).contains(&of_day) {
                return Hint::Leap;
            }
        }
        hint
    }

    fn edge(&mut self, way: &mut Way<'_, '_>, stamp: Stamp) {
        let now = way.now;
        let free = self.clock.free_running(stamp.time);
        let hint = self.hint(now, free);
        let is_leap = self.council.is_leap_announced();
        let Some(pulse) = &mut self.pulse else { return };
        let Ok(second) = pulse.train.edge(free, hint) else { return };
        let PulseConfig { pulse: known, tai_offset_s, .. } = pulse.config;
        pulse.sequence_id = pulse.sequence_id.wrapping_add(1);
        let (sequence_id, port) = (pulse.sequence_id, pulse.port);
        let leap = if is_leap { self.leap_of_receiver() } else { Leap::None };
        let Some(pulse) = &mut self.pulse else { return };
        let properties = pulse.properties(leap);
        let shown = second + i64::from(tai_offset_s.unwrap_or(0));
        let at = |late: Duration| Stamp { time: stamp.time - known.delay - late, ..stamp };
        let (asked, answered) = (at(known.lateness), at(Duration::ZERO));
        let witness = self.council.witness(now, SourceId::Pulse, PULSE, properties);
        let local = |stamp: Stamp| free_running(self.clock.free_running(stamp.time), stamp);
        let (delay, sync) = bounds(shown, local(asked), local(answered), sequence_id);
        witness.exchange(now, &delay, &sync, known.lateness, known.accuracy);
        let middle = at(known.lateness.half()).time;
        let begun = Time::<Ptp>::from_epoch(Duration::from_secs(second));
        let utc_shown = self.clock.free_running(middle).since_epoch() + self.utc_shown(middle);
        let offset = utc_shown - begun.since_epoch();
        let Some(pulse) = &mut self.pulse else { return };
        pulse.offset = Some(offset);
        if !self.follows_pulse() || self.follows_ntp() {
            return;
        }
        let Some(pulse) = &mut self.pulse else { return };
        let is_first = pulse.parent.is_none();
        pulse.epoch += u64::from(is_first);
        let parent = parent_of(port, properties, pulse.epoch);
        pulse.parent = Some(parent);
        if is_first {
            self.servo.parent_changed();
            self.strategist.clear();
            way.out.push(Command::Changed(Change::Parent(Some(parent))));
        }
        self.origin.parent = Some(parent);
        self.origin.root_distance = Some(known.accuracy);
        self.measured_at = Some(now);
        self.tx_source = None;
        if self.is_unheard() {
            return;
        }
        let bounds = bounds(shown, self.local(asked), self.local(answered), sequence_id);
        let (delay, sync) = self.counted_on(bounds);
        if !self.may_follow(way, answered.time, &sync) {
            return;
        }
        self.servo.delay(delay);
        let Some(output) = self.servo.sync(sync) else { return };
        self.apply(way, output);
        let observed = SyncObservation {
            t1: sync.t1,
            t2: answered,
            sequence_id,
            log_interval: sync.log_interval,
            two_step: false,
            correction: sync.correction,
        };
        let measurement = Measurement {
            port,
            parent: parent.set.parent_port_identity,
            epoch: parent.epoch,
            observation: Observation::Sync(observed),
        };
        self.sample(way, &measurement, answered, sequence_id, output);
    }

    /// What PTP announces, for the clock that follows the pulse.
    fn leap_of_receiver(&self) -> Leap {
        match self.receiver().parent().map(|parent| parent.time_properties) {
            Some(said) if said.leap59 => Leap::Negative,
            // Servers of NTP have no parent here; all that is ever announced is a positive one.
            _ => Leap::Positive,
        }
    }
}

/// The second began after `asked` and before `answered`.
fn bounds(
    second: i64,
    asked: LocalTime,
    answered: LocalTime,
    sequence_id: u16,
) -> (DelayInput, SyncInput) {
    let begun = Time::from_epoch(Duration::from_secs(second));
    let correction = Duration::ZERO;
    let delay = DelayInput { t3: asked, t4: begun, sequence_id, correction };
    let log_interval = Some(0);
    (delay, SyncInput { t1: begun, t2: answered, sequence_id, log_interval, correction })
}

/// A pulse in the words of PTP.
fn parent_of(port: PortIndex, time_properties: TimeProperties, epoch: u64) -> Parent {
    let set = ParentDataSet {
        parent_port_identity: PortIdentity { clock_identity: PULSE, port_number: 1 },
        parent_stats: false,
        observed_offset_scaled_log_variance: ParentDataSet::UNKNOWN_VARIANCE,
        observed_phase_change_rate: ParentDataSet::UNKNOWN_RATE,
        grandmaster_priority1: 128,
        grandmaster_clock_quality: ClockQuality {
            clock_class: 6,
            clock_accuracy: ClockAccuracy::UNKNOWN,
            offset_scaled_log_variance: 0xffff,
        },
        grandmaster_priority2: 128,
        grandmaster_identity: PULSE,
    };
    Parent { port, set, steps_removed: 0, epoch, time_properties }
}

#[cfg(test)]
mod tests;
