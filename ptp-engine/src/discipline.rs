//! A time receiver with its servo and its clock: the loop from messages and stamps to a steered
//! clock, still sans-I/O. `run`, the simulator and `replay` use it unchanged. The protocol is the [`Node`]'s;
//! here, and nowhere else, a clock is steered.

mod council;
mod driven;
mod former;
mod leaps;
mod links;
mod managed;
mod ntp;
mod pulse;
mod sample;
mod servers;
mod shift;
mod steering;
#[cfg(test)]
mod tests;
mod unicast;
mod witness;

use crate::prelude::*;
pub use crate::sources::Policy;
use crate::{
    DelayMechanism, PortIndex,
    clock::{Clock, ClockError, Consent},
    config::{PortConfig, ReceiverConfig},
    instance::{Aiming, Instance, Synchronization},
    link::Link,
    node::Node,
    ntp::NtpEvent,
    origin::{BoundReference, Origin},
    outcome::{DelayObservation, Measurement, Observation, Parent},
    seam::{
        Change, Command, Commands, Context, Driven, Engine, Input, Monotonic, NoEvent, ReadClock,
    },
    servo::{
        DelayInput, Interval, LocalTime, Options, Servo, ServoOutput, ServoState, SyncInput, Trust,
    },
    stamp::{Stamp, StampSource},
    strategy::{self, Strategist, Use},
};
use council::Council;
pub use council::{MAX_WITNESS_DOMAINS, Source, Standing};
use former::Former;
use leaps::Leaps;
pub use ntp::{NtpServerStatus, Shifted};
use ptp_common::{
    data_set::TimeProperties,
    time::{Duration, Mono, Ptp, Time},
    wire::{AlternateTimeOffset, ClockIdentity, PortIdentity},
};
pub use pulse::{NmeaStatus, PulseStatus};
pub use sample::Sample;

/// Sync messages that may be missing before the servo goes into holdover, Sync intervals.
const HOLDOVER_AFTER: i32 = 8;
/// Or so many of the time that lay between the latest ones, if that is longer.
const HOLDOVER_AFTER_SLOW: i32 = 2;
/// And at least this long: at high rates some loss is no event.
const HOLDOVER_AT_LEAST: Duration = Duration::from_secs(2);
/// A time transmitter that is silent for no longer is the same when it is back: its time, its path and
/// what both have taught.
const REMEMBERED: Duration = Duration::from_secs(600);

/// What it tells beside what its node says.
#[derive(Debug)]
pub enum Event {
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
    /// What was heard of a server of NTP; its port is counted from the first one of these.
    Ntp(NtpEvent),
    /// Sources of time contradict each other, or agree again.
    Standing {
        /// How they stood to each other before.
        old: Standing,
        /// How they do now.
        new: Standing,
    },
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
    const fn of(parent: &Parent) -> Self {
        Self {
            port: parent.port,
            parent: parent.set.parent_port_identity,
            grandmaster: parent.set.grandmaster_identity,
            ptp_timescale: parent.time_properties.ptp_timescale,
        }
    }
}

/// The time receiver. See the module's documentation.
pub struct Discipline<C> {
    node: Node,
    servo: Box<dyn Servo>,
    strategist: Strategist,
    clock: C,
    epoch: u64,
    /// Whose time the servo has followed last, and when it was last measured.
    reference: Option<Reference>,
    measured_at: Option<Time<Mono>>,
    pub(super) origin: Origin,
    tx_source: Option<StampSource>,
    holdover_at: Option<Time<Mono>>,
    /// When the latest Sync arrived, and how long after the one before.
    sync_at: Option<Time<Mono>>,
    sync_gap: Duration,
    state: ServoState,
    /// Since when it has been locked without a break.
    locked_at: Option<Time<Mono>>,
    /// The clock may not follow the reference, and that has been told.
    is_refused: bool,
    /// The clock does not follow at present: nothing is to be measured.
    is_paused: bool,
    /// Whom else the clock is held against.
    council: Council,
    /// Servers of NTP that are asked.
    ntp: Option<Box<ntp::Servers>>,
    /// A pulse per second.
    pulse: Option<Box<pulse::Pulses>>,
    /// When the time that is served was last set, be it the clock or what lies between it and the domain.
    set_at: Option<Time<Mono>>,
    served_offset: Duration,
    /// What was known before another time was believed.
    former: Former,
    /// Leap seconds of whom is followed.
    leaps: Leaps,
    /// Room for what the node says of one input; empty between two.
    said: Commands<NoEvent>,
}

/// The clock in the time scale of the domain, as it is served.
struct DomainClock<'a, C> {
    clock: &'a C,
    offset: Duration,
    set_at: Option<Time<Mono>>,
    servo: &'a dyn Servo,
    origin: &'a Origin,
    former: &'a Former,
    leaps: Duration,
    now: Time<Mono>,
}

impl<C: Clock> ReadClock for DomainClock<'_, C> {
    fn at(&self, mono: Time<Mono>) -> Option<Time<Ptp>> {
        // What it showed before it was set nobody needs any more.
        let is_known = self.set_at.is_none_or(|set_at| mono > set_at);
        is_known.then(|| self.clock.at(mono) + self.offset)
    }

    fn error_at(&self, mono: Time<Mono>) -> Option<Interval> {
        if self.origin.bound_reference() == BoundReference::Parent {
            return None;
        }
        let free = self.clock.free_running(mono);
        let shown = (self.at(mono)? + self.leaps).ahead_of(free);
        let trust = self.servo.trust(free, shown)?;
        Some(self.former.widen(self.now, self.origin.widen(trust)).interval)
    }
}

/// The present, and where what is told goes: the caller, and behind that what the node has still to be heard of.
struct Way<'a, 'b> {
    now: Time<Mono>,
    out: &'a mut Commands<Event>,
    said: &'b mut Commands<NoEvent>,
}

impl Way<'_, '_> {
    fn tell(&mut self, event: Event) {
        self.out.push(Command::Event(event));
    }
}

/// A time receiver and the commands that it has given.
pub type Client<C> = Driven<Discipline<C>>;

impl<C: Clock> Client<C> {
    /// A time receiver that steers `clock`, or only watches it where it is not adjustable.
    pub fn new(config: ReceiverConfig, servo: Box<dyn Servo>, clock: C, now: Time<Mono>) -> Self {
        let mut commands = Commands::default();
        let read = &Monotonic::default();
        let mut cx = Context { now, clock: read, out: &mut commands };
        let discipline = Discipline::new(config, servo, clock, &mut cx);
        Self::new_with(discipline, commands)
    }
}

impl<C: Clock> Discipline<C> {
    /// A time receiver that steers `clock`, or only watches it where it is not adjustable.
    pub fn new(
        mut config: ReceiverConfig,
        mut servo: Box<dyn Servo>,
        clock: C,
        cx: &mut Context<'_, Event>,
    ) -> Self {
        if clock.is_adjustable() {
            servo.limit_frequency(clock.max_frequency_ppb());
        }
        let is_peer = |port: &PortConfig| port.delay_mechanism != DelayMechanism::E2e;
        // A server answers at once, so there is no Sync to be aimed at, and its path is nearly as warm as a primed one:
        // the error is 0.05 us with primed requests and 1.1 us with others (veth, 16 a second).
        let choice = if config.ports.iter().any(is_peer) || !config.servers.is_empty() {
            strategy::Choice::Plain
        } else {
            config.strategy
        };
        let council = Council::new(&config, cx);
        let behind = config.ports.len() + config.ntp.as_ref().map_or(0, |it| it.servers.len());
        let ntp = config
            .ntp
            .take()
            .map(|ntp| Box::new(ntp::Servers::new(&ntp, config.ports.len(), config.seed, cx.now)));
        let pulse = config.pulse.take().map(|it| Box::new(pulse::Pulses::new(it, behind)));
        let mut said = Commands::default();
        let mut inner = Context { now: cx.now, clock: cx.clock, out: &mut said };
        let node = match config.contention.take() {
            Some(contention) => Node::either(config, contention, &mut inner),
            None => Node::client_only(config, &mut inner),
        };
        let mut discipline = Self {
            strategist: Strategist::new(choice),
            node,
            state: servo.state(),
            locked_at: None,
            servo,
            clock,
            epoch: 0,
            reference: None,
            measured_at: None,
            origin: Origin::default(),
            tx_source: None,
            holdover_at: None,
            sync_at: None,
            sync_gap: Duration::ZERO,
            is_refused: false,
            is_paused: false,
            council,
            ntp,
            pulse,
            set_at: None,
            served_offset: Duration::ZERO,
            former: Former::default(),
            leaps: Leaps::default(),
            said,
        };
        discipline.give(cx, |_, _| ());
        discipline
    }

    /// The protocol side: data sets, states and counters.
    pub fn receiver(&self) -> &Instance {
        self.node.instance()
    }

    /// The link of a port.
    pub fn link(&self, on: PortIndex) -> Option<&Link> {
        self.node.link(on)
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

    /// How the two ways of the path differ, as for [`PortConfig::delay_asymmetry`], of all ports.
    pub fn set_delay_asymmetry(&mut self, asymmetry: Duration) {
        self.node.instance_mut().set_delay_asymmetry(asymmetry);
        // Which moves the clock.
        self.forget_usual();
    }

    /// How requests are sent and which Sync messages are learnt from.
    pub const fn strategist(&self) -> &Strategist {
        &self.strategist
    }

    /// How far the clock can be trusted at `now`, against the grandmaster where boundary clocks between
    /// are known, else against the parent: [`Origin::bound_reference`] says which.
    pub fn trust(&self, now: Time<Mono>) -> Option<Trust> {
        let free = self.clock.free_running(now);
        let shown = (self.domain_time(now) + self.leaps.made()).ahead_of(free);
        self.servo.trust(free, shown).map(|trust| self.widen(now, trust))
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
    pub fn release(&mut self, cx: &mut Context<'_, Event>) {
        let mut said = core::mem::take(&mut self.said);
        self.hold(&mut Way { now: cx.now, out: cx.out, said: &mut said });
        self.said = said;
        self.give(cx, |_, _| ());
    }

    /// Holds the sources of time against each other, and does what that leads to.
    fn compare(&mut self, cx: &mut Context<'_, Event>) {
        let mut said = core::mem::take(&mut self.said);
        self.confer(&mut Way { now: cx.now, out: cx.out, said: &mut said });
        self.said = said;
        if !self.said.is_empty() {
            self.give(cx, |_, _| ());
        }
    }

    /// Lets the node do something, and does what that leads to.
    fn give(
        &mut self,
        cx: &mut Context<'_, Event>,
        input: impl FnOnce(&mut Node, &mut Context<'_, NoEvent>),
    ) {
        let mut said = core::mem::take(&mut self.said);
        let now = cx.now;
        self.follow_leaps(now);
        let offset = self.domain_offset();
        if offset != self.served_offset {
            (self.served_offset, self.set_at) = (offset, Some(now));
        }
        let own = DomainClock {
            clock: &self.clock,
            offset,
            set_at: self.set_at,
            servo: &*self.servo,
            origin: &self.origin,
            former: &self.former,
            leaps: self.leaps.made(),
            now,
        };
        // A client that nobody may ask only answers Pdelay_Req, with whatever it is given for that.
        let instance = self.node.instance();
        let serves = instance.may_take_either_role() || instance.is_monitored();
        let clock: &dyn ReadClock = if serves { &own } else { cx.clock };
        let mut inner = Context { now, clock, out: &mut said };
        input(&mut self.node, &mut inner);
        while let Some(command) = said.pop() {
            let mut way = Way { now, out: cx.out, said: &mut said };
            match command {
                Command::Measured(measurement) => {
                    let parent = self.receiver().parent_of(measurement.parent);
                    let domain_number = self.receiver().domain_number();
                    self.watch(now, domain_number, parent.as_ref(), &measurement);
                    if self.receiver().is_of_parent(&measurement) {
                        way.out.push(Command::Measured(measurement));
                        self.measured(&mut way, &measurement);
                    }
                }
                Command::Witnessed(witnessed) => {
                    let domain_number = self.receiver().domain_number();
                    self.overheard(now, domain_number, &witnessed);
                }
                Command::Changed(Change::Parent(None)) => {
                    way.out.push(Command::Changed(Change::Parent(None)));
                    self.hold(&mut way);
                }
                command => drop(way.out.push(command.widen(|never| match never {}))),
            }
        }
        self.said = said;
    }

    fn measured(&mut self, way: &mut Way<'_, '_>, measurement: &Measurement) {
        if self.follows_ntp() || self.follows_pulse() {
            return;
        }
        let now = way.now;
        self.origin.root_distance = None;
        if measurement.epoch != self.epoch {
            self.epoch = measurement.epoch;
            self.follow_reference(now);
        }
        self.measured_at = Some(now);
        self.origin.parent = self.receiver().parent().copied().or(self.origin.parent);
        // Others say that it lies, or might: nothing is learnt of it.
        if self.is_unheard() {
            return;
        }
        match measurement.observation {
            Observation::Sync(sync) => {
                let t2 = self.local(sync.t2);
                let input = SyncInput {
                    t1: sync.t1 + self.leaps.made(),
                    t2,
                    sequence_id: sync.sequence_id,
                    log_interval: sync.log_interval,
                    correction: sync.correction,
                };
                if !self.may_follow(way, sync.t2.time, &input) {
                    return;
                }
                // What it told before it knew how far it is from the grandmaster was its own time.
                let is_told = t2.told_within.is_some();
                if is_told && !self.origin.is_told {
                    self.strategist.clear();
                    self.servo.parent_changed();
                }
                self.origin.is_told = is_told;
                if let Some(output) = self.servo.sync(self.strategist.sync(input)) {
                    self.apply(way, output);
                    self.sample(way, measurement, sync.t2, sync.sequence_id, output);
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
                let t4 = t4 + self.leaps.made();
                let input = DelayInput { t3, t4, sequence_id, correction };
                let used = self.strategist.delay(input, delay.t3.manner);
                let aiming = if self.strategist.is_aiming() { Aiming::On } else { Aiming::Off };
                self.node.instance_mut().set_aiming(measurement.port, aiming);
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
                    way.tell(Event::Strategy(change));
                }
            }
            observation @ (Observation::PeerDelay(_) | Observation::LinkTold(_)) => {
                if let Observation::PeerDelay(peer) = observation {
                    self.tx_source = Some(peer.t1.source);
                }
                let free = |time| self.clock.free_running(time);
                if let Some(input) = links::link_delay(&observation, free) {
                    self.servo.peer_delay(input);
                }
            }
        }
    }

    /// Whether the clock may follow what arrived at `arrived`; if so, how long it is waited for the next one.
    fn may_follow(&mut self, way: &mut Way<'_, '_>, arrived: Time<Mono>, sync: &SyncInput) -> bool {
        let consent = self.consent(way, arrived, sync.t2.clock - sync.t1);
        if consent.is_some() {
            let interval = sync.log_interval.map_or(Duration::ZERO, Duration::from_log_interval);
            let gap = self.sync_at.map_or(Duration::ZERO, |at| arrived - at);
            // A rhythm that is slower than what may be claimed shows in two gaps.
            let slow = gap.min(self.sync_gap) * HOLDOVER_AFTER_SLOW;
            (self.sync_at, self.sync_gap) = (Some(arrived), gap);
            let patience = HOLDOVER_AT_LEAST.max(interval * HOLDOVER_AFTER).max(slow);
            self.holdover_at = Some(way.now.max(arrived) + patience);
        }
        let is_ambiguous = self.leaps.is_ambiguous(self.domain_time(way.now));
        self.is_paused = consent != Some(Consent::Given) || is_ambiguous;
        !self.is_paused
    }

    /// The parent is another one than before, or the same again. What was learnt of one that has only
    /// been silent for a while holds still.
    fn follow_reference(&mut self, now: Time<Mono>) {
        let reference = self.receiver().parent().map(Reference::of);
        let is_back = reference.is_some()
            && reference == self.reference
            && self.measured_at.is_some_and(|at| now - at < REMEMBERED);
        if !is_back {
            self.reference = reference;
            self.tx_source = None;
            self.strategist.clear();
            self.leaps.begin_anew();
            self.servo.parent_changed();
            self.former.replaced(now);
        }
    }

    /// A stamp on both scales, the clock's in the time scale of the domain.
    fn local(&self, stamp: Stamp) -> LocalTime {
        let clock = self.clock.at(stamp.time) + self.domain_offset() + self.leaps.made();
        let Stamp { time, source, doubt, told_within, .. } = stamp;
        LocalTime { mono: self.clock.free_running(time), clock, source, doubt, told_within }
    }

    /// Whether the clock may follow; a refusal is told once.
    fn consent(
        &mut self,
        way: &mut Way<'_, '_>,
        at: Time<Mono>,
        offset: Duration,
    ) -> Option<Consent> {
        match self.clock.consent(at, offset) {
            Ok(consent) => {
                self.is_refused = false;
                Some(consent)
            }
            Err(error) => {
                if !core::mem::replace(&mut self.is_refused, true) {
                    way.tell(Event::ClockError(error));
                }
                None
            }
        }
    }

    /// Whether others may follow it and it follows nobody.
    fn is_grandmaster(&self) -> bool {
        self.receiver().may_take_either_role() && self.receiver().parent().is_none()
    }

    /// What it tells of its time while it follows nobody and has followed nobody yet.
    pub fn set_time_properties(&mut self, properties: TimeProperties) {
        self.node.instance_mut().set_time_properties(properties);
    }

    /// As for [`Instance::set_alternate_offsets`].
    pub fn set_alternate_offsets(&mut self, alternates: Vec<AlternateTimeOffset>) {
        self.node.instance_mut().set_alternate_offsets(alternates);
    }

    /// As for [`Instance::set_priorities`].
    pub fn set_priorities(&mut self, priority1: u8, priority2: u8) {
        self.node.instance_mut().set_priorities(priority1, priority2);
    }

    /// The clock's reading in the time scale of the domain, for the true error of `lab` and tests.
    pub fn domain_time(&self, mono: Time<Mono>) -> Time<Ptp> {
        self.clock.at(mono) + self.domain_offset()
    }
}
