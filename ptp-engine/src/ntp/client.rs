//! The client: one association for each server. It asks in a random phase of an interval that adapts, takes only answers
//! to what it asked, obeys the kiss codes, and hands on four times of each exchange. In interleaved mode the transmit time of
//! an answer comes with the next one, so that it is that of the wire and not that of the server's intention.
//!
//! In basic mode the server reads its clock before it sends, and what lies between is error, by half. It is ten microseconds
//! where the server has slept, and two where it has just answered: a server nearby is asked a second time as soon as its
//! answer is there, and only the second exchange says what time it is.

use crate::prelude::*;
use core::net::SocketAddr;

use ptp_common::{
    ntp::{Leap, Mode, NtpPacket, NtpTimestamp, ReferenceId},
    time::{Duration, Mono, Real, Time},
};
use rand::{Rng, RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use serde::Serialize;

use crate::{
    Command, Context, Datagram, Destination, Engine, Input, PortIndex, SentToken, Transmit,
    address::Address,
    servers::{AssociationConfig, ExchangeKind, Poll, Turn},
    stamp::Stamp,
    timers::Timers,
};

/// Requests at the start that follow each other quickly.
const BURST: u8 = 4;
/// The interval between those, or the usual one where that is shorter.
const BURST_INTERVAL: Duration = Duration::from_secs(2);
/// A server that is farther from its source than this tells nothing (MAXDIST of RFC 5905).
const MAX_ROOT_DISTANCE: Duration = Duration::from_millis(1_500);
/// Rates of two clocks differ by no more than this, parts per million, when a round trip is judged.
const MAX_RATE_PPM: i64 = 500;
/// And stamps of two kinds by no more.
const STAMP_DOUBT: Duration = Duration::from_micros(10);
/// As much trust must gather before the interval becomes longer, or be lost before it becomes shorter (RFC 5905's
/// LIMIT).
const POLL_HYSTERESIS: i32 = 30;
/// An offset that is within so many jitters is none (RFC 5905's PGATE).
const POLL_GATE: i64 = 4;
/// A server is silent when none of these of the last eight requests was answered: the latest may still be, and four before it.
const SILENT: u8 = 0b1_1111;
/// All servers are not asked quickly to look closer again before so much time has passed.
const LOOK_AGAIN: Duration = Duration::from_secs(600);

/// A server whose answers come more quickly than this is nearby: farther away the way there differs from the way back by more than
/// what a server takes to send.
const NEARBY: Duration = Duration::from_millis(1);
/// Second requests in a row that were not answered, after which there are no more: who limits rates may be silent.
const MOST_UNREPEATED: u8 = 3;

/// What a server says of its time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ServerState {
    /// What the end of the month will be like.
    pub leap: Leap,
    /// 1 of one with a clock of its own.
    pub stratum: u8,
    /// What it follows.
    pub reference_id: ReferenceId,
    /// How far its time may be from the source's: half of the round trip there, and the error that has gathered.
    pub root_distance: Duration,
}

/// One exchange.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Exchange {
    /// With whom.
    pub with: PortIndex,
    /// When the request left.
    pub t1: Stamp,
    /// When it arrived there.
    pub t2: Time<Real>,
    /// When the answer left there.
    pub t3: Time<Real>,
    /// When it arrived.
    pub t4: Stamp,
    /// What `t3` is worth.
    pub kind: ExchangeKind,
    /// Which of two it is.
    pub turn: Turn,
    /// The server.
    pub server: ServerState,
    /// The interval at which it is asked.
    pub poll: i8,
}

impl Exchange {
    /// Round trip without the time that the server took.
    pub fn delay(&self) -> Duration {
        (self.t4.time - self.t1.time) - (self.t3 - self.t2)
    }
}

/// Why an answer was not used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Refused {
    /// No NTP packet, or none of a server.
    Malformed,
    /// From somebody who was not asked.
    FromElsewhere,
    /// To nothing that was asked, or a second one.
    NotAsked,
    /// The server has no time, or is too far from its source.
    Unsynchronized,
    /// Times that cannot be: answered before it was asked, or a round trip shorter than nothing.
    Implausible,
    /// The request or the answer has no stamp.
    NoStamp,
}

/// What a client tells.
#[derive(Clone, Copy, Debug, PartialEq)]
#[expect(clippy::large_enum_variant, reason = "made once in an exchange and handed on at once")]
pub enum NtpEvent {
    /// An exchange is complete.
    Exchange(Exchange),
    /// An answer was not used.
    Refused {
        /// Of whom.
        with: PortIndex,
        /// Why.
        why: Refused,
    },
    /// A server asks for less, or for nothing more.
    Kiss {
        /// Which.
        with: PortIndex,
        /// Its code.
        code: ReferenceId,
    },
    /// Eight requests in a row were not answered: its name should be resolved anew.
    Unreachable(PortIndex),
}

/// How it is with a server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AssociationState {
    /// Where it is.
    pub address: SocketAddr,
    /// Which of the last eight requests were answered, the latest in the lowest bit.
    pub reach: u8,
    /// The interval at which it is asked, a power of two of seconds.
    pub poll: i8,
    /// It has refused service, and is not asked any more.
    pub is_denied: bool,
    /// The last four requests and more were not answered.
    pub is_silent: bool,
    /// Requests sent.
    pub requests: u64,
    /// Exchanges completed.
    pub exchanges: u64,
}

/// A request that waits for its answer and its stamp.
#[derive(Clone, Copy, Debug)]
struct Request {
    serial: u32,
    /// What a basic answer carries as origin, and what an interleaved one does.
    cookies: (NtpTimestamp, Option<NtpTimestamp>),
    sent: Sent,
    /// The answer, while the stamp of the request is still missing.
    answer: Option<(NtpPacket, Stamp)>,
    is_answered: bool,
    is_second: bool,
}

#[derive(Clone, Copy, Debug)]
enum Sent {
    Waiting,
    Stamped(Stamp),
    Never,
}

/// The last answered request, of which an interleaved answer tells more.
#[derive(Clone, Copy, Debug)]
struct Previous {
    serial: u32,
    t1: Option<Stamp>,
    t2: NtpTimestamp,
    t4: Stamp,
    server: ServerState,
}

#[derive(Debug)]
struct Association {
    config: AssociationConfig,
    poll: i8,
    /// No shorter than this, because the server said so.
    floor: i8,
    trust: i32,
    reach: u8,
    burst: u8,
    /// Second requests in a row that were not answered; as many as are allowed where it is asked once alone.
    unrepeated: u8,
    serial: u32,
    request: Option<Request>,
    previous: Option<Previous>,
    is_denied: bool,
    requests: u64,
    exchanges: u64,
}

impl Association {
    const fn new(config: AssociationConfig) -> Self {
        Self {
            poll: config.poll.min,
            floor: config.poll.min,
            config,
            trust: 0,
            reach: 0,
            burst: BURST,
            unrepeated: if config.repeats { 0 } else { MOST_UNREPEATED },
            serial: 0,
            request: None,
            previous: None,
            is_denied: false,
            requests: 0,
            exchanges: 0,
        }
    }

    fn set_poll(&mut self, poll: i8) {
        let ceiling = self.config.poll.max.max(self.floor);
        self.poll = poll.clamp(self.floor, ceiling);
        self.trust = 0;
    }

    /// Whether an exchange of that kind and length is the first of two.
    fn is_repeated(&self, kind: ExchangeKind, delay: Duration) -> bool {
        let Some(request) = &self.request else { return false };
        // Interleaved answers are asked for, and not given.
        let is_all_there_is =
            self.config.kind == ExchangeKind::Basic || request.cookies.1.is_some();
        kind == ExchangeKind::Basic
            && is_all_there_is
            && !request.is_second
            && self.unrepeated < MOST_UNREPEATED
            && delay < NEARBY
    }

    /// Whether none of the last eight requests was answered: it is asked less and less.
    const fn is_gone(&self) -> bool {
        self.reach == 0 && self.requests >= 8
    }

    /// The time to the next request, in a random phase so that clients do not fall into step.
    fn interval(&self, rng: &mut ChaCha8Rng) -> Duration {
        // Whether one that does not answer is there is found out sooner; once it is known, there is no hurry any more.
        let is_missed = self.requests > 1 && self.reach & 0b10 == 0 && self.reach != 0;
        let usual = Duration::from_log_interval(if is_missed { self.floor } else { self.poll });
        let base = if self.burst > 0 { usual.min(BURST_INTERVAL) } else { usual };
        let part = rng.random_range(-0.02..=0.02);
        base + Duration::from_nanos_f64(base.as_nanos_f64() * part)
    }
}

/// The client. See the module's paragraph.
#[derive(Debug)]
pub struct NtpClient {
    associations: Vec<Association>,
    timers: Timers<u16>,
    rng: ChaCha8Rng,
    /// When it was last asked to look closer.
    looked: Option<Time<Mono>>,
    /// UTC when the monotonic clock was zero, to some decades: which era of NTP it is.
    epoch: Time<Real>,
}

impl NtpClient {
    /// A client of these servers, of which each is a port: as many as `u16` can count, the rest is ignored. `utc`
    /// is the time at `now` to some decades; `seed` is for numbers that nobody may guess.
    pub fn new(
        servers: &[AssociationConfig],
        utc: Time<Real>,
        seed: [u8; 32],
        now: Time<Mono>,
    ) -> Self {
        let associations: Vec<_> =
            servers.iter().take(usize::from(u16::MAX)).copied().map(Association::new).collect();
        let mut timers = Timers::default();
        let mut rng = ChaCha8Rng::from_seed(seed);
        for index in 0..associations.len() as u16 {
            // The first ones within a fifth of a second of each other.
            timers.set(index, now + Duration::from_micros(rng.random_range(0..200_000)));
        }
        Self { associations, timers, rng, looked: None, epoch: utc - now.since_epoch() }
    }

    /// How it is with each server.
    pub fn states(&self) -> impl Iterator<Item = AssociationState> {
        self.associations.iter().map(|this| AssociationState {
            address: this.config.address,
            reach: this.reach,
            poll: this.poll,
            is_denied: this.is_denied,
            is_silent: this.requests > u64::from(SILENT.count_ones()) && this.reach & SILENT == 0,
            requests: this.requests,
            exchanges: this.exchanges,
        })
    }

    /// The server of an association is somewhere else now: it is asked from the beginning.
    pub fn move_to(&mut self, with: PortIndex, address: SocketAddr, now: Time<Mono>) {
        let Some(this) = self.associations.get_mut(usize::from(with.0)) else { return };
        *this = Association::new(AssociationConfig { address, ..this.config });
        self.timers.set(with.0, now);
    }

    /// What was made of an exchange: while the offset is within its own noise the interval grows, else it shrinks
    /// (RFC 5905 section 13, `poll_update`).
    pub fn judge(&mut self, with: PortIndex, offset: Duration, jitter: Duration) {
        let Some(this) = self.associations.get_mut(usize::from(with.0)) else { return };
        let step = i32::from(this.poll).abs().max(1);
        let is_quiet =
            offset.abs().as_scaled_nanos() <= jitter.as_scaled_nanos() * i128::from(POLL_GATE);
        this.trust += if is_quiet { step } else { -2 * step };
        if this.trust >= POLL_HYSTERESIS {
            this.set_poll(this.poll.saturating_add(1));
        } else if this.trust <= -POLL_HYSTERESIS {
            this.set_poll(this.poll.saturating_sub(1));
        }
    }

    /// Something is to be found out soon: all servers that answer are asked a few times, as at the start. Not those that have asked
    /// for less, and not twice in ten minutes.
    pub fn look_closer(&mut self, now: Time<Mono>) {
        if self.looked.is_some_and(|at| now - at < LOOK_AGAIN) {
            return;
        }
        self.looked = Some(now);
        for (index, this) in (0..).zip(&mut self.associations) {
            let is_patient = this.is_denied || this.reach == 0 || this.floor > this.config.poll.min;
            if is_patient || Duration::from_log_interval(this.poll) <= BURST_INTERVAL {
                continue;
            }
            this.burst = BURST;
            let soon = now + Duration::from_millis(self.rng.random_range(1_000..2_000));
            self.timers.set(index, soon);
        }
    }

    /// One that was gone answers again: it is asked as at the start.
    fn welcome(&mut self, with: PortIndex, now: Time<Mono>) {
        let Some(this) = self.associations.get_mut(usize::from(with.0)) else { return };
        this.set_poll(this.floor);
        this.burst = BURST;
        self.timers.set(with.0, now + this.interval(&mut self.rng));
    }

    fn ask(&mut self, cx: &mut Context<'_, NtpEvent>, index: u16) {
        let this = &mut self.associations[usize::from(index)];
        if this.is_denied {
            return;
        }
        let is_unanswered = |request: &Request| request.is_second && !request.is_answered;
        if this.request.as_ref().is_some_and(is_unanswered) {
            this.unrepeated = this.unrepeated.saturating_add(1);
        }
        let with = PortIndex(index);
        let was_gone = this.is_gone();
        this.reach <<= 1;
        if this.is_gone() {
            if !was_gone || this.requests.is_multiple_of(8) {
                cx.out.push(Command::Event(NtpEvent::Unreachable(with)));
            }
            this.previous = None;
            this.set_poll(this.poll.saturating_add(1));
        }
        this.burst = this.burst.saturating_sub(1);
        let at = cx.now + this.interval(&mut self.rng);
        self.timers.set(index, at);
        self.send(cx, index, false);
    }

    fn send(&mut self, cx: &mut Context<'_, NtpEvent>, index: u16, is_second: bool) {
        let this = &mut self.associations[usize::from(index)];
        let with = PortIndex(index);
        let mut cookie = || NtpTimestamp(self.rng.next_u64() | 1);
        let transmit = cookie();
        let mut packet = NtpPacket::request(transmit, this.poll);
        let interleaved = this.previous.filter(|_| this.config.kind == ExchangeKind::Interleaved);
        let second = interleaved.map(|previous| {
            packet.origin = previous.t2;
            // The lowest bit of one cookie is set and of the other one not, so that they differ.
            packet.receive = NtpTimestamp(cookie().0 & !1);
            packet.receive
        });
        this.serial = this.serial.wrapping_add(1);
        this.request = Some(Request {
            serial: this.serial,
            cookies: (transmit, second),
            sent: Sent::Waiting,
            answer: None,
            is_answered: false,
            is_second,
        });
        this.requests += 1;
        let to = Destination::Unicast(Address::Socket(this.config.address));
        let token = SentToken(u64::from(index) << 32 | u64::from(this.serial));
        let message = Datagram::of_ntp(&packet);
        cx.out.push(Command::Send(Transmit { on: with, to, message, token: Some(token) }));
    }

    fn answered(
        &mut self,
        with: PortIndex,
        from: Option<Address>,
        bytes: &[u8],
        stamp: Option<Stamp>,
    ) -> Option<NtpEvent> {
        let pivot = self.epoch;
        let this = self.associations.get_mut(usize::from(with.0))?;
        let refuse = |why| Some(NtpEvent::Refused { with, why });
        let is_from_there = match from {
            Some(Address::Socket(from)) => from == this.config.address,
            Some(Address::Mac(_)) => false,
            None => true,
        };
        if !is_from_there {
            return refuse(Refused::FromElsewhere);
        }
        let Ok((packet, trailer)) = NtpPacket::parse(bytes) else {
            return refuse(Refused::Malformed);
        };
        if packet.mode != Mode::Server || trailer.extensions(|_| ()).is_err() {
            return refuse(Refused::Malformed);
        }
        let Some(request) = this.request.as_mut().filter(|request| !request.is_answered) else {
            return refuse(Refused::NotAsked);
        };
        let kind = if packet.origin == request.cookies.0 {
            ExchangeKind::Basic
        } else if request.cookies.1.is_some_and(|cookie| packet.origin == cookie) {
            ExchangeKind::Interleaved
        } else {
            return refuse(Refused::NotAsked);
        };
        request.is_answered = true;
        if packet.stratum == 0 {
            let code = packet.reference_id;
            match code {
                // It is asked half as often, and so it will be.
                ReferenceId::RATE if request.is_second => this.unrepeated = MOST_UNREPEATED,
                ReferenceId::RATE => {
                    this.floor = this.poll.saturating_add(1).min(Poll::LIMITS.max);
                    this.burst = 0;
                    this.set_poll(this.floor);
                }
                ReferenceId::DENY | ReferenceId::RSTR => this.is_denied = true,
                _ => return refuse(Refused::Unsynchronized),
            }
            return Some(NtpEvent::Kiss { with, code });
        }
        this.reach |= 1;
        if request.is_second {
            this.unrepeated = 0;
        }
        let root_distance = packet.root_delay.span().half() + packet.root_dispersion.span();
        let has_time = packet.leap != Leap::Unknown && packet.stratum < 16;
        if !has_time || root_distance > MAX_ROOT_DISTANCE {
            return refuse(Refused::Unsynchronized);
        }
        let Some(t4) = stamp else { return refuse(Refused::NoStamp) };
        if !packet.receive.is_some() || !packet.transmit.is_some() {
            return refuse(Refused::Implausible);
        }
        let server = ServerState {
            leap: packet.leap,
            stratum: packet.stratum,
            reference_id: packet.reference_id,
            root_distance,
        };
        let (serial, sent) = (request.serial, request.sent);
        let t1 = if let Sent::Stamped(stamp) = sent { Some(stamp) } else { None };
        let now = Previous { serial, t1, t2: packet.receive, t4, server };
        let before = this.previous.replace(now);
        match kind {
            ExchangeKind::Interleaved => {
                let Some(before) = before else { return refuse(Refused::NotAsked) };
                let t3 = packet.transmit;
                Self::finish(this, with, pivot, before, t3, ExchangeKind::Interleaved)
            }
            ExchangeKind::Basic => match sent {
                Sent::Waiting => {
                    request.answer = Some((packet, t4));
                    None
                }
                Sent::Never => refuse(Refused::NoStamp),
                Sent::Stamped(_) => {
                    Self::finish(this, with, pivot, now, packet.transmit, ExchangeKind::Basic)
                }
            },
        }
    }

    fn sent(&mut self, token: SentToken, stamp: Option<Stamp>) -> Option<NtpEvent> {
        let (index, serial) = ((token.0 >> 32) as usize, token.0 as u32);
        let pivot = self.epoch;
        let this = self.associations.get_mut(index)?;
        let with = PortIndex(index as u16);
        if let Some(previous) = this.previous.as_mut().filter(|previous| previous.serial == serial)
        {
            previous.t1 = stamp;
        }
        let request = this.request.as_mut().filter(|request| request.serial == serial)?;
        if !matches!(request.sent, Sent::Waiting) {
            return None;
        }
        request.sent = stamp.map_or(Sent::Never, Sent::Stamped);
        let (packet, _) = request.answer.take()?;
        let previous = this.previous.filter(|previous| previous.serial == serial)?;
        Self::finish(this, with, pivot, previous, packet.transmit, ExchangeKind::Basic)
    }

    /// The four times together, if they can be.
    fn finish(
        this: &mut Association,
        with: PortIndex,
        epoch: Time<Real>,
        of: Previous,
        t3: NtpTimestamp,
        kind: ExchangeKind,
    ) -> Option<NtpEvent> {
        let Some(t1) = of.t1 else {
            return Some(NtpEvent::Refused { with, why: Refused::NoStamp });
        };
        let pivot = epoch + of.t4.time.since_epoch();
        let (t2, t3) = (of.t2.near(pivot), t3.near(pivot));
        let poll = this.poll;
        let (t4, server, turn) = (of.t4, of.server, Turn::Alone);
        let mut exchange = Exchange { with, t1, t2, t3, t4, kind, turn, server, poll };
        let taken = of.t4.time - t1.time;
        let slack = Duration::from_scaled_nanos(
            taken.as_scaled_nanos() / 1_000_000 * i128::from(MAX_RATE_PPM),
        ) + STAMP_DOUBT;
        if taken.is_negative()
            || (t3 - t2).is_negative()
            || (exchange.delay() + slack).is_negative()
        {
            return Some(NtpEvent::Refused { with, why: Refused::Implausible });
        }
        this.exchanges += 1;
        if this.is_repeated(kind, exchange.delay()) {
            exchange.turn = Turn::First;
        } else if kind == ExchangeKind::Basic
            && this.request.as_ref().is_some_and(|request| request.is_second)
        {
            exchange.turn = Turn::Second;
        }
        Some(NtpEvent::Exchange(exchange))
    }
}

impl Engine for NtpClient {
    type Event = NtpEvent;

    fn handle(&mut self, cx: &mut Context<'_, NtpEvent>, input: Input<'_>) {
        let event = match input {
            Input::Message { on, from, bytes, stamp } => {
                let is_gone = |this: &Self| {
                    this.associations.get(usize::from(on.0)).is_some_and(Association::is_gone)
                };
                let was_gone = is_gone(self);
                let event = self.answered(on, from, bytes, stamp);
                if was_gone && !is_gone(self) {
                    self.welcome(on, cx.now);
                }
                event
            }
            Input::Sent { token, stamp } => self.sent(token, stamp),
            Input::Link { .. } | Input::Passed(_) | Input::Pulse(_) | Input::Nmea { .. } => None,
        };
        if let Some(NtpEvent::Exchange(Exchange { with, turn: Turn::First, .. })) = &event {
            // At once: it grows cold again.
            self.send(cx, with.0, true);
        }
        if let Some(event) = event {
            cx.out.push(Command::Event(event));
        }
    }

    fn handle_timeout(&mut self, cx: &mut Context<'_, NtpEvent>) {
        while let Some((index, _)) = self.timers.pop_due(cx.now) {
            self.ask(cx, index);
        }
    }

    fn next_timeout(&self) -> Option<Time<Mono>> {
        self.timers.next()
    }
}
