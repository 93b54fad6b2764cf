//! The seam between an engine and whoever drives it: inputs go in with the time, the clock and the way out as
//! parameters, commands come out. No engine has a queue, a timer or a clock of its own, so that sockets, the
//! simulator, a recording and a test can drive one and the same.

use alloc::collections::VecDeque;
use core::ops::{Deref, DerefMut};

use ptp_common::{
    data_set::TimeProperties,
    record::Direction,
    time::{Duration, Mono, Ptp, Real, Time},
    wire::{ClockIdentity, PortIdentity},
};

use crate::{
    Datagram, PortIndex, PortState, SentToken,
    address::Address,
    outcome::{Measurement, Parent, StateReason, SyncObservation},
    servo::Interval,
    stamp::Stamp,
};

/// What is driven.
pub trait Engine {
    /// What an engine tells beside messages and measurements.
    type Event;

    /// Takes an input.
    fn handle(&mut self, cx: &mut Context<'_, Self::Event>, input: Input<'_>);

    /// Does what is due at `cx.now`. To call it early changes nothing.
    fn handle_timeout(&mut self, cx: &mut Context<'_, Self::Event>);

    /// When [`Self::handle_timeout`] has something to do; never before the instant at which it was last called.
    fn next_timeout(&self) -> Option<Time<Mono>>;
}

/// What goes with every input.
pub struct Context<'a, E> {
    /// The present.
    pub now: Time<Mono>,
    /// The clock that is served, and that Pdelay_Req is answered by.
    pub clock: &'a dyn ReadClock,
    /// The way out.
    pub out: &'a mut Commands<E>,
}

/// A clock that can be read through the monotonic one, on which all stamps are.
pub trait ReadClock {
    /// What it showed at `mono`; `None` where it was set around then.
    fn at(&self, mono: Time<Mono>) -> Option<Time<Ptp>>;

    /// Where what it showed at `mono` minus the grandmaster's time is for certain; `None` where that is not known, or only against
    /// somebody between.
    fn error_at(&self, mono: Time<Mono>) -> Option<Interval> {
        let _ = mono;
        None
    }
}

/// The monotonic clock, ahead by a constant. A time receiver answers Pdelay_Req with it: only the difference
/// of two times and the rate mean anything to the peer (11.4.2), and this clock is never stepped.
#[derive(Clone, Copy, Debug, Default)]
pub struct Monotonic(pub Duration);

impl ReadClock for Monotonic {
    fn at(&self, mono: Time<Mono>) -> Option<Time<Ptp>> {
        Some(mono.at_offset(self.0))
    }
}

/// What comes from outside. A recording is a list of these.
#[derive(Clone, Copy, Debug)]
pub enum Input<'a> {
    /// A PTP message came through the socket of a port.
    Message {
        /// Where.
        on: PortIndex,
        /// Who sent it, as far as the socket says.
        from: Option<Address>,
        /// The message.
        bytes: &'a [u8],
        /// Its stamp, for event messages.
        stamp: Option<Stamp>,
    },
    /// The transmit stamp of an event message, or the news that there is none.
    Sent {
        /// From [`Transmit::token`].
        token: SentToken,
        /// The stamp.
        stamp: Option<Stamp>,
    },
    /// A packet passed a hook, on its way in or out, to or from whomever: what an observer sees, who has no sockets.
    Passed(ObservedPacket<'a>),
    /// The edge of a pulse per second.
    Pulse(Stamp),
    /// Bytes of the serial line of a receiver that says which seconds the pulses are (NMEA 0183).
    Nmea {
        /// When they arrived.
        at: Time<Mono>,
        /// The bytes.
        bytes: &'a [u8],
    },
    /// The link of a port came up or went down. To say what is known already does no harm.
    Link {
        /// Which.
        on: PortIndex,
        /// Whether it can be used now.
        state: LinkState,
    },
}

/// A PTP message that passed a hook.
#[derive(Clone, Copy, Debug)]
pub struct ObservedPacket<'a> {
    /// Interface index.
    pub interface: u32,
    /// Whether it came in or went out.
    pub direction: Direction,
    /// VLAN identifier of the outermost tag; 0 (a priority tag) is the same as none.
    pub vlan: Option<u16>,
    /// From whom to whom, without ports; `None` where that is not known.
    pub between: Option<(Address, Address)>,
    /// The PTP message or its beginning, as long as header and fixed body are there.
    pub bytes: &'a [u8],
    /// When it passed, on CLOCK_MONOTONIC; `None` where the stamp was lost.
    pub stamp: Option<Stamp>,
    /// The same instant on CLOCK_REALTIME. Without meaning where there is no stamp.
    pub real: Time<Real>,
}

/// Whether an interface can be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LinkState {
    /// It carries messages.
    Up,
    /// It does not, or is gone.
    Down,
}

impl LinkState {
    /// `Up` where so.
    pub const fn up_if(is_up: bool) -> Self {
        if is_up { Self::Up } else { Self::Down }
    }

    /// Whether it is up.
    pub const fn is_up(self) -> bool {
        matches!(self, Self::Up)
    }
}

/// What the caller is to do, or may want to know, in the order of its making.
#[derive(Clone, Debug, PartialEq)]
pub enum Command<E> {
    /// Send a message.
    Send(Transmit),
    /// Something has been measured.
    Measured(Measurement),
    /// Somebody who is not followed has sent its time.
    Witnessed(Witnessed),
    /// Something has changed.
    Changed(Change),
    /// What the engine in question tells beside.
    Event(E),
}

impl<E> Command<E> {
    /// The same from an engine that tells other events, and this one none.
    pub(crate) fn widen<F>(self, event: impl FnOnce(E) -> F) -> Command<F> {
        match self {
            Self::Send(transmit) => Command::Send(transmit),
            Self::Measured(measurement) => Command::Measured(measurement),
            Self::Witnessed(witnessed) => Command::Witnessed(witnessed),
            Self::Changed(change) => Command::Changed(change),
            Self::Event(this) => Command::Event(event(this)),
        }
    }
}

/// A Sync of a time transmitter that has announced itself and is not followed: it can be compared with the one
/// that is.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Witnessed {
    /// The port that heard it.
    pub port: PortIndex,
    /// Who sent it.
    pub source: PortIdentity,
    /// The grandmaster that it names.
    pub grandmaster: ClockIdentity,
    /// What it says of its time.
    pub time_properties: TimeProperties,
    /// The Sync.
    pub sync: SyncObservation,
}

/// A change of a port's role, or of whom is followed.
#[derive(Clone, Debug, PartialEq)]
pub enum Change {
    /// A port has changed its state.
    PortState {
        /// The port.
        port: PortIndex,
        /// Its state before.
        old: PortState,
        /// Its state now.
        new: PortState,
        /// Why.
        reason: StateReason,
    },
    /// Another time transmitter, another grandmaster, or none.
    Parent(Option<Parent>),
}

/// A message to send.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Transmit {
    /// The port to send on.
    pub on: PortIndex,
    /// To whom.
    pub to: Destination,
    /// The message.
    pub message: Datagram,
    /// Of an event message: its transmit stamp is to be handed back with this.
    pub token: Option<SentToken>,
}

/// To whom a message goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Destination {
    /// To all that listen.
    Multicast(Group),
    /// To one alone; a port number is not used.
    Unicast(Address),
}

/// A multicast group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Group {
    /// 224.0.1.129, ff0x::181, 01-1B-19-00-00-00.
    Primary,
    /// That of the peer delay mechanism, which bridges do not forward: 224.0.0.107, ff02::6b,
    /// 01-80-C2-00-00-0E.
    Peer,
}

/// Commands that wait to be carried out.
#[derive(Debug)]
pub struct Commands<E> {
    queue: VecDeque<Command<E>>,
}

impl<E> Default for Commands<E> {
    fn default() -> Self {
        Self { queue: VecDeque::new() }
    }
}

impl<E> Commands<E> {
    /// As many wait at the most. A caller that collects after each input never gets near; one that never
    /// collects loses the oldest, not its memory.
    pub const CAPACITY: usize = 1024;

    /// The next one.
    pub fn pop(&mut self) -> Option<Command<E>> {
        self.queue.pop_front()
    }

    /// How many wait.
    pub fn len(&self) -> usize {
        self.queue.len()
    }

    /// Whether none waits.
    pub fn is_empty(&self) -> bool {
        self.queue.is_empty()
    }

    /// Adds one; says whether the oldest had to go for it.
    pub fn push(&mut self, command: Command<E>) -> Pushed {
        let is_full = self.queue.len() >= Self::CAPACITY;
        if is_full {
            self.queue.pop_front();
        }
        self.queue.push_back(command);
        if is_full { Pushed::AtACost } else { Pushed::Freely }
    }
}

/// What it took to add a command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pushed {
    /// There was room.
    Freely,
    /// The oldest one went.
    AtACost,
}

/// An engine with the commands that it has given, for callers that would rather ask for them: tests, the
/// simulator and `replay`.
#[derive(Debug)]
pub struct Driven<T: Engine> {
    engine: T,
    commands: Commands<T::Event>,
}

impl<T: Engine> Driven<T> {
    /// `engine`, which has given `commands` when it was made.
    pub const fn new_with(engine: T, commands: Commands<T::Event>) -> Self {
        Self { engine, commands }
    }

    /// An input at `now`, with the clock that is served.
    pub fn handle(&mut self, now: Time<Mono>, clock: &dyn ReadClock, input: Input<'_>) {
        let mut cx = Context { now, clock, out: &mut self.commands };
        self.engine.handle(&mut cx, input);
    }

    /// What is due at `now`.
    pub fn poll(&mut self, now: Time<Mono>) {
        let clock = &Monotonic::default();
        let mut cx = Context { now, clock, out: &mut self.commands };
        self.engine.handle_timeout(&mut cx);
    }

    /// When [`Self::poll`] has something to do.
    pub fn next_wakeup(&self) -> Option<Time<Mono>> {
        self.engine.next_timeout()
    }

    /// Does something to the engine for which it needs the way out.
    pub fn with<R>(&mut self, then: impl FnOnce(&mut T, &mut Commands<T::Event>) -> R) -> R {
        then(&mut self.engine, &mut self.commands)
    }

    /// The next command. To be called until `None` after every input.
    pub fn next_command(&mut self) -> Option<Command<T::Event>> {
        self.commands.pop()
    }

    /// How many commands nobody has asked for.
    pub fn waiting(&self) -> usize {
        self.commands.len()
    }

    /// [`Input::Message`] of somebody unknown, to a time receiver.
    pub fn handle_message(
        &mut self,
        now: Time<Mono>,
        on: PortIndex,
        bytes: &[u8],
        stamp: Option<Stamp>,
    ) {
        let input = Input::Message { on, from: None, bytes, stamp };
        self.handle(now, &Monotonic::default(), input);
    }

    /// [`Input::Sent`].
    pub fn handle_tx_stamp(&mut self, now: Time<Mono>, token: SentToken, stamp: Option<Stamp>) {
        self.handle(now, &Monotonic::default(), Input::Sent { token, stamp });
    }

    /// [`Input::Link`].
    pub fn handle_link(&mut self, now: Time<Mono>, on: PortIndex, state: LinkState) {
        self.handle(now, &Monotonic::default(), Input::Link { on, state });
    }
}

impl<T: Engine> Deref for Driven<T> {
    type Target = T;
    fn deref(&self) -> &T {
        &self.engine
    }
}
impl<T: Engine> DerefMut for Driven<T> {
    fn deref_mut(&mut self) -> &mut T {
        &mut self.engine
    }
}

/// [`Engine`] without events of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NoEvent {}
