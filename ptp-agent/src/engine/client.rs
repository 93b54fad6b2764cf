//! A time receiver with its servo and its clock: the loop from messages and stamps to a steered
//! clock, still sans-I/O. `run`, the simulator and `replay` use it unchanged.

use super::{
    DelayMechanism, PortIndex, TxToken,
    origin::Origin,
    receiver::{
        Action, DelayObservation, Measurement, Observation, ParentDataSet, PortConfig, Receiver,
        ReceiverConfig,
    },
    strategy::{self, Strategist, Strategy, Use},
};
use crate::{
    clock::{Clock, ClockError, ClockScale, Consent},
    servo::{
        DelayInput, LocalTime, Options, PeerDelayInput, Servo, ServoOutput, ServoState, SyncInput,
        Trust,
    },
    stamp::{Stamp, StampSource},
};
use ptp_common::{
    time::{Duration, Mono, Ptp, Time},
    wire::{ClockIdentity, PortIdentity},
};
use std::collections::VecDeque;

/// Sync messages that may be missing before the servo goes into holdover, Sync intervals.
const HOLDOVER_AFTER: i32 = 8;
/// And at least this long: at high rates some loss is no event.
const HOLDOVER_AT_LEAST: Duration = Duration::from_secs(2);
/// A time transmitter that is silent for no longer is the same when it is back: its time, its path and
/// what both have taught.
const REMEMBERED: Duration = Duration::from_secs(600);
/// Events that wait to be collected.
const EVENT_CAPACITY: usize = 4096;
/// TAI minus UTC since 2017, for a grandmaster on the PTP time scale that does not say.
const DEFAULT_UTC_OFFSET: i16 = 37;

/// What the caller is to do or may want to publish, in the order of its making.
#[derive(Debug)]
pub enum Event {
    /// From the receiver: messages to send, measurements, states.
    Engine(Action),
    /// A Sync has been used.
    Sample(Sample),
    /// The clock was adjusted. Has been done already; for logs and metrics.
    Adjusted {
        /// When.
        mono: Time<Mono>,
        /// The frequency adjustment in effect, parts per billion.
        frequency_ppb: f64,
        /// What was added to the time.
        stepped: Option<Duration>,
    },
    /// The servo has changed its state.
    ServoState {
        /// Its state before.
        old: ServoState,
        /// Its state now.
        new: ServoState,
    },
    /// Requests are sent, or Sync messages chosen, in another way.
    Strategy(strategy::Change),
    /// The clock could not be adjusted; the measurement goes on.
    ClockError(ClockError),
}

/// One line of `run --json`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Sample {
    /// The port.
    pub port: PortIndex,
    /// The domain.
    pub domain_number: u8,
    /// When the Sync arrived.
    pub mono: Time<Mono>,
    /// Clock minus time transmitter, as the servo sees it.
    pub offset: Duration,
    /// The same from the latest exchange alone.
    pub raw_offset: Duration,
    /// Mean path delay or mean link delay.
    pub delay: Duration,
    /// The adjustment of the clock after this Sync, parts per billion.
    pub frequency_ppb: f64,
    /// State of the servo.
    pub state: ServoState,
    /// How far the clock can be trusted.
    pub trust: Option<Trust>,
    /// Where the Sync was stamped.
    pub rx_source: StampSource,
    /// Where the latest answered request was stamped; `None` before the first one.
    pub tx_source: Option<StampSource>,
    /// The time transmitter.
    pub parent: PortIdentity,
    /// The grandmaster behind it.
    pub grandmaster: Option<ClockIdentity>,
    /// `sequenceId` of the Sync.
    pub sequence_id: u16,
    /// How requests are sent and Sync messages chosen.
    pub strategy: Strategy,
}

/// Whose time it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Reference {
    port: PortIndex,
    parent: PortIdentity,
    grandmaster: ClockIdentity,
    ptp_timescale: bool,
}

impl Reference {
    const fn of(parent: &ParentDataSet) -> Self {
        Self {
            port: parent.port,
            parent: parent.parent_port_identity,
            grandmaster: parent.grandmaster_identity,
            ptp_timescale: parent.time_properties.ptp_timescale,
        }
    }
}

/// The time receiver. See the module's documentation.
pub struct Client<C> {
    receiver: Receiver,
    servo: Box<dyn Servo>,
    strategist: Strategist,
    clock: C,
    events: VecDeque<Event>,
    epoch: u64,
    /// Whose time the servo has followed last, and when it was last measured.
    reference: Option<Reference>,
    measured_at: Option<Time<Mono>>,
    pub(super) origin: Origin,
    tx_source: Option<StampSource>,
    holdover_at: Option<Time<Mono>>,
    state: ServoState,
    /// The clock may not follow the reference, and that has been told.
    is_refused: bool,
    /// The clock does not follow at present: nothing is to be measured.
    is_paused: bool,
}

impl<C: Clock> Client<C> {
    /// A time receiver that steers `clock`, or only watches it where it is not adjustable.
    pub fn new(
        config: ReceiverConfig,
        mut servo: Box<dyn Servo>,
        clock: C,
        now: Time<Mono>,
    ) -> Self {
        if clock.is_adjustable() {
            servo.limit_frequency(clock.max_frequency_ppb());
        }
        let is_peer = |port: &PortConfig| port.delay_mechanism == DelayMechanism::P2p;
        let choice = if config.ports.iter().any(is_peer) {
            strategy::Choice::Plain
        } else {
            config.strategy
        };
        let mut client = Self {
            strategist: Strategist::new(choice),
            receiver: Receiver::new(config, now),
            state: servo.state(),
            servo,
            clock,
            events: VecDeque::new(),
            epoch: 0,
            reference: None,
            measured_at: None,
            origin: Origin::default(),
            tx_source: None,
            holdover_at: None,
            is_refused: false,
            is_paused: false,
        };
        client.collect(now);
        client
    }

    /// The next event. To be called until `None` after every input.
    pub fn next_event(&mut self) -> Option<Event> {
        self.events.pop_front()
    }

    /// When [`Self::poll`] has something to do.
    pub fn next_wakeup(&self) -> Option<Time<Mono>> {
        [self.receiver.next_wakeup(), self.holdover_at].into_iter().flatten().min()
    }

    /// The protocol side: data sets, states and counters.
    pub const fn receiver(&self) -> &Receiver {
        &self.receiver
    }

    /// The clock.
    pub const fn clock(&self) -> &C {
        &self.clock
    }

    /// The clock, to keep its readings fresh. Whoever adjusts it here fights the servo.
    pub const fn clock_mut(&mut self) -> &mut C {
        &mut self.clock
    }

    /// The servo.
    pub fn servo(&self) -> &dyn Servo {
        &*self.servo
    }

    /// Steps from other offsets on: the thresholds of `options`, and nothing else of it.
    pub fn set_step_thresholds(&mut self, options: &Options) {
        self.servo.set_step_thresholds(options);
    }

    /// How the two ways of the path differ, as for
    /// [`PortConfig::delay_asymmetry`](super::receiver::PortConfig::delay_asymmetry), of all ports.
    pub fn set_delay_asymmetry(&mut self, asymmetry: Duration) {
        self.receiver.set_delay_asymmetry(asymmetry);
    }

    /// How requests are sent and which Sync messages are learnt from.
    pub const fn strategist(&self) -> &Strategist {
        &self.strategist
    }

    /// How far the clock can be trusted at `now`, against the grandmaster where boundary clocks between
    /// are known, else against the parent: [`Origin::bound_reference`] says which.
    pub fn trust(&self, now: Time<Mono>) -> Option<Trust> {
        let free = self.clock.free_running(now);
        let shown = self.domain_time(now).since_epoch() - free.since_epoch();
        self.servo.trust(free, shown).map(|trust| self.origin.widen(trust))
    }

    /// Where the clock's time comes from, also in holdover.
    pub const fn origin(&self) -> &Origin {
        &self.origin
    }

    /// Error of each boundary clock between the grandmaster and here, where it is known.
    pub const fn set_boundary_clock_error(&mut self, error: Option<Duration>) {
        self.origin.boundary_clock_error = error;
    }

    /// Bound on |clock - time transmitter| at `now`.
    pub fn error_bound(&self, now: Time<Mono>) -> Option<Duration> {
        self.trust(now).map(|trust| trust.bound)
    }

    /// Leaves the clock to run on with the frequency that was learnt, and without whatever slew was
    /// under way.
    pub fn release(&mut self, now: Time<Mono>) {
        self.hold(now);
    }

    /// A PTP message came through the socket of `port`; `rx` is its stamp, for event messages.
    pub fn handle_message(
        &mut self,
        now: Time<Mono>,
        port: PortIndex,
        bytes: &[u8],
        rx: Option<Stamp>,
    ) {
        self.receiver.handle_message(now, port, bytes, rx);
        self.collect(now);
    }

    /// The transmit stamp of an event message, or the news that there is none.
    pub fn handle_tx_stamp(&mut self, now: Time<Mono>, token: TxToken, stamp: Option<Stamp>) {
        self.receiver.handle_tx_stamp(now, token, stamp);
        self.collect(now);
    }

    /// The link of a port came up or went down.
    pub fn handle_link(&mut self, now: Time<Mono>, port: PortIndex, up: bool) {
        self.receiver.handle_link(now, port, up);
        self.collect(now);
    }

    /// Does what is due.
    pub fn poll(&mut self, now: Time<Mono>) {
        self.receiver.poll(now);
        self.collect(now);
        if self.holdover_at.is_some_and(|at| at <= now) {
            self.hold(now);
            self.collect(now);
        }
    }

    fn collect(&mut self, now: Time<Mono>) {
        while let Some(action) = self.receiver.next_action() {
            match &action {
                Action::Measurement(measurement) => {
                    let measurement = *measurement;
                    self.push(Event::Engine(action));
                    self.measured(now, &measurement);
                }
                Action::ParentChanged { parent: None } => {
                    self.push(Event::Engine(action));
                    self.hold(now);
                }
                _ => self.push(Event::Engine(action)),
            }
        }
    }

    /// A caller that never collects loses the oldest events, not its memory.
    fn push(&mut self, event: Event) {
        if self.events.len() >= EVENT_CAPACITY {
            self.events.pop_front();
        }
        self.events.push_back(event);
    }

    fn measured(&mut self, now: Time<Mono>, measurement: &Measurement) {
        if measurement.epoch != self.epoch {
            self.epoch = measurement.epoch;
            self.follow_reference(now);
        }
        self.measured_at = Some(now);
        self.origin.parent = self.receiver.parent().copied().or(self.origin.parent);
        match measurement.observation {
            Observation::Sync(sync) => {
                let t2 = self.local(sync.t2);
                let consent = self.consent(sync.t2.time, t2.clock - sync.t1);
                if consent.is_some() {
                    let interval =
                        sync.log_interval.map_or(Duration::ZERO, Duration::from_log_interval);
                    let patience = HOLDOVER_AT_LEAST.max(interval * HOLDOVER_AFTER);
                    self.holdover_at = Some(now.max(sync.t2.time) + patience);
                }
                self.is_paused = consent != Some(Consent::Given);
                if self.is_paused {
                    return;
                }
                let input = SyncInput {
                    t1: sync.t1,
                    t2,
                    sequence_id: sync.sequence_id,
                    log_interval: sync.log_interval,
                    correction: sync.correction,
                };
                if let Some(output) = self.servo.sync(self.strategist.sync(input)) {
                    self.apply(now, output);
                    self.sample(measurement, sync.t2, sync.sequence_id, output);
                }
            }
            Observation::Delay(delay) => {
                self.tx_source = Some(delay.t3.source);
                // Around a leap second this one, too, is of two time scales.
                if self.is_paused {
                    return;
                }
                let t3 = self.local(delay.t3);
                let DelayObservation { t4, sequence_id, correction, .. } = delay;
                let input = DelayInput { t3, t4, sequence_id, correction };
                let used = self.strategist.delay(input, delay.t3.manner);
                self.receiver.set_aiming(measurement.port, self.strategist.is_aiming());
                match used {
                    Use::Learn => self.servo.delay(input),
                    Use::Bound => self.servo.bound_by_delay(input),
                }
                if let Some(history) = self.strategist.take_history()
                    && !self.servo.relearn(&history)
                {
                    self.strategist.postpone();
                }
                if let Some(change) = self.strategist.take_change() {
                    self.push(Event::Strategy(change));
                }
            }
            Observation::PeerDelay(peer) => {
                self.tx_source = Some(peer.t1.source);
                self.servo.peer_delay(PeerDelayInput {
                    mono: self.clock.free_running(peer.t4.time),
                    mean_link_delay: peer.mean_link_delay,
                    neighbor_rate_ratio: peer.neighbor_rate_ratio,
                });
            }
        }
    }

    /// The parent is another one than before, or the same again. What was learnt of one that has only
    /// been silent for a while holds still.
    fn follow_reference(&mut self, now: Time<Mono>) {
        let reference = self.receiver.parent().map(Reference::of);
        let is_back = reference.is_some()
            && reference == self.reference
            && self.measured_at.is_some_and(|at| now - at < REMEMBERED);
        if !is_back {
            self.reference = reference;
            self.tx_source = None;
            self.strategist.clear();
            self.servo.parent_changed();
        }
    }

    /// A stamp on both scales, the clock's in the time scale of the domain.
    fn local(&self, stamp: Stamp) -> LocalTime {
        let clock = self.clock.at(stamp.time) + self.domain_offset();
        let Stamp { time, source, doubt, .. } = stamp;
        LocalTime { mono: self.clock.free_running(time), clock, source, doubt }
    }

    /// Whether the clock may follow; a refusal is told once.
    fn consent(&mut self, at: Time<Mono>, offset: Duration) -> Option<Consent> {
        match self.clock.consent(at, offset) {
            Ok(consent) => {
                self.is_refused = false;
                Some(consent)
            }
            Err(error) => {
                if !std::mem::replace(&mut self.is_refused, true) {
                    self.push(Event::ClockError(error));
                }
                None
            }
        }
    }

    /// The domain's time minus the time that the clock is meant to show.
    fn domain_offset(&self) -> Duration {
        // A clock in holdover shows the time of the one that it has followed.
        let parent = self.origin.parent.as_ref().or(self.receiver.parent());
        let Some(ParentDataSet { time_properties, .. }) = parent else {
            return Duration::ZERO;
        };
        if self.clock.scale() == ClockScale::Ptp || !time_properties.ptp_timescale {
            return Duration::ZERO;
        }
        let seconds = if time_properties.current_utc_offset_valid {
            time_properties.current_utc_offset
        } else {
            DEFAULT_UTC_OFFSET
        };
        Duration::from_secs(i64::from(seconds))
    }

    /// The clock's reading in the time scale of the domain, for the true error of `lab` and tests.
    pub fn domain_time(&self, mono: Time<Mono>) -> Time<Ptp> {
        self.clock.at(mono) + self.domain_offset()
    }

    fn apply(&mut self, now: Time<Mono>, output: ServoOutput) {
        if self.clock.is_adjustable() && output.state != ServoState::Unlocked {
            self.adjust(now, output.frequency_ppb, output.step);
        }
        self.follow_servo();
    }

    fn adjust(&mut self, now: Time<Mono>, frequency_ppb: f64, step: Option<Duration>) {
        let frequency_ppb = match self.clock.set_frequency(now, frequency_ppb) {
            Ok(effective) => effective,
            Err(error) => {
                self.push(Event::ClockError(error));
                self.clock.frequency_ppb()
            }
        };
        let stepped = step.and_then(|by| match self.clock.step(now, by) {
            Ok(()) => Some(by),
            Err(error) => {
                self.push(Event::ClockError(error));
                None
            }
        });
        self.clock.followed();
        self.servo.adjusted(self.clock.free_running(now), frequency_ppb, stepped);
        self.push(Event::Adjusted { mono: now, frequency_ppb, stepped });
    }

    /// No Sync comes any more.
    fn hold(&mut self, now: Time<Mono>) {
        self.holdover_at = None;
        if let Some(frequency_ppb) = self.servo.holdover(self.clock.free_running(now))
            && self.clock.is_adjustable()
        {
            self.adjust(now, frequency_ppb, None);
        }
        self.follow_servo();
    }

    fn follow_servo(&mut self) {
        let (old, new) = (self.state, self.servo.state());
        self.receiver.set_synchronized(new == ServoState::Locked);
        if old != new {
            self.state = new;
            self.push(Event::ServoState { old, new });
        }
    }

    fn sample(&mut self, from: &Measurement, t2: Stamp, sequence_id: u16, output: ServoOutput) {
        let sample = Sample {
            port: from.port,
            domain_number: self.receiver.domain_number(),
            mono: t2.time,
            offset: output.offset,
            raw_offset: output.raw_offset,
            delay: output.delay,
            frequency_ppb: if self.clock.is_adjustable() {
                self.clock.frequency_ppb()
            } else {
                output.frequency_ppb
            },
            state: output.state,
            trust: output.trust.map(|trust| self.origin.widen(trust)),
            rx_source: t2.source,
            tx_source: self.tx_source,
            parent: from.parent,
            grandmaster: self.origin.parent.map(|parent| parent.grandmaster_identity),
            sequence_id,
            strategy: self.strategist.strategy(),
        };
        self.push(Event::Sample(sample));
    }
}

#[cfg(test)]
mod tests;
