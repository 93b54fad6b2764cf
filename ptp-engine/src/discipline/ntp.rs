//! Servers of NTP as sources of time: each is a witness among the others, and where the clock follows NTP the ones that
//! can be right together are combined into one time (RFC 5905 section 11.2, with intervals by causality in the place of
//! its root distances): the selection casts out who contradicts the majority, the cluster algorithm who is farthest
//! from the rest, and what is left counts by how narrow its interval is. The servo is given the exchanges of one of them,
//! the leader, moved to the combined time.

use core::net::{IpAddr, SocketAddr};

mod combine;

use super::{Discipline, Event, Way, council::NtpOpinion, shift::Shift, witness::free_running};
use crate::prelude::*;
use crate::{
    PortIndex, SentToken, Transmit,
    clock::Clock,
    ntp::{AssociationState, Exchange, ExchangeKind, NtpClient, NtpEvent, ServerState},
    outcome::{Measurement, Observation, Parent, SyncObservation},
    seam::{Command, Commands, Context, Engine, Input},
    servers::{AssociationConfig, NtpConfig, NtpPart, Turn},
    servo::{DelayInput, LocalTime, SyncInput},
    sources::SourceId,
};
use alloc::collections::VecDeque;
use ptp_common::{
    data_set::{ParentDataSet, TimeProperties},
    ntp::Leap,
    time::{Duration, Mono, Ptp, Real, Time},
    wire::{ClockAccuracy, ClockIdentity, ClockQuality, PortIdentity},
};

/// Tokens of requests have this bit, and no others have.
const TOKEN: u64 = 1 << 63;
/// What is between the leader and the combined time is followed in so many exchanges.
const SMOOTHING: f64 = 8.0;
/// Exchanges over which the jitter is taken.
const JITTER: i64 = 8;
/// Exchanges of which the quickest counts (RFC 5905's clock filter).
const LATEST: usize = 8;
/// So long after it has locked a clock is where its grandmaster has it.
const SETTLED: Duration = Duration::from_secs(60);
/// One server that sees a shift may have shifted itself.
const FEWEST_SHIFTED: usize = 2;

/// One exchange.
#[derive(Clone, Copy, Debug)]
struct Latest {
    at: Time<Mono>,
    /// Server minus the free-running scale: no steering moves this.
    ahead: Duration,
    delay: Duration,
    /// How long before its stamp the request was handed over, in an exchange between two that were warm.
    handed: Option<Duration>,
}

/// What is known of one server.
#[derive(Clone, Debug)]
struct Server {
    address: SocketAddr,
    said: Option<ServerState>,
    offset: Option<Duration>,
    jitter_ns: f64,
    delay: Duration,
    /// The latest exchanges.
    latest: VecDeque<Latest>,
    /// What the clock showed more than the free-running scale when the last two answers came. In interleaved mode an exchange is
    /// known as late as with the answer after it, and the clock is another one by then.
    shown: [Option<(Time<Mono>, Duration)>; 2],
    /// Of basic and of interleaved exchanges, which differ by what the server takes to send.
    shifts: [Shift; 2],
    kind: ExchangeKind,
}

impl Server {
    fn heard(&mut self, at: Time<Mono>, shown: Duration) {
        self.shown = [Some((at, shown)), self.shown[0]];
    }

    /// What the clock showed more than the free-running scale when an answer came at `at`.
    fn shown_at(&self, at: Time<Mono>) -> Option<Duration> {
        self.shown.iter().flatten().find(|(heard, _)| *heard == at).map(|(_, shown)| *shown)
    }

    const fn shift(&self) -> &Shift {
        &self.shifts[self.kind as usize]
    }

    /// How long before it left an answer has read the clock, where nobody can know it but by oneself: a program without stamps
    /// is early by as much as this one would be, both warm. Never more than the round trip that it is a part of.
    fn early(&self, exchange: &Exchange) -> Duration {
        if exchange.kind != ExchangeKind::Basic || exchange.turn != Turn::Second {
            return Duration::ZERO;
        }
        let own = self.latest.iter().filter_map(|latest| latest.handed).min();
        let round_trips = self.latest.iter().filter(|latest| latest.handed.is_some());
        let quickest = round_trips.map(|latest| latest.delay).min();
        own.min(quickest).unwrap_or(Duration::ZERO).max(Duration::ZERO)
    }

    /// What the latest offset says of the noise.
    fn learn(&mut self, offset: Duration, shown: Duration, exchange: &Exchange) -> Duration {
        let at = exchange.t4.time;
        let delay = exchange.delay();
        let before = self.offset.replace(offset);
        self.delay = delay;
        if self.latest.len() == LATEST {
            self.latest.pop_front();
        }
        let is_known = exchange.turn == Turn::Second && exchange.t1.handed != Duration::ZERO;
        let handed = is_known.then_some(exchange.t1.handed);
        let ahead = offset + shown;
        self.latest.push_back(Latest { at, ahead, delay, handed });
        let jitter = Duration::from_nanos_f64(self.jitter_ns);
        if let Some(before) = before {
            let step = (offset - before).as_nanos_f64().abs();
            self.jitter_ns += (step - self.jitter_ns) / JITTER as f64;
        }
        jitter
    }
}

/// One server, for status and metrics.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct NtpServerStatus {
    /// Reachability, interval and counts.
    pub association: AssociationState,
    /// What it said last.
    pub said: Option<ServerState>,
    /// Server minus clock at the latest exchange.
    pub offset: Option<Duration>,
    /// Round trip of the latest exchange.
    pub delay: Duration,
    /// Mean difference of two offsets that follow each other.
    pub jitter: Duration,
    /// How much farther the server is ahead of the clock than usual, where that is sure.
    pub shift: Option<Duration>,
    /// Whether it is the one by whose exchanges the clock is steered.
    pub is_leader: bool,
}

/// The clock has moved against servers of NTP; see [`Discipline::shifted`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shifted {
    /// By so much forwards.
    pub by: Duration,
    /// Servers that see it,
    pub seen_by: usize,
    /// of so many of which it is known what is usual.
    pub of: usize,
}

/// See the module's paragraph.
#[derive(Debug)]
pub(super) struct Servers {
    client: NtpClient,
    said: Commands<NtpEvent>,
    base: u16,
    pub(super) part: NtpPart,
    of: Vec<Server>,
    pub(super) is_followed: bool,
    leader: Option<usize>,
    shift: Option<Duration>,
    parent: Option<Parent>,
    epoch: u64,
    sequence_id: u16,
}

impl Servers {
    pub(super) fn new(config: &NtpConfig, ports: usize, seed: u64, now: Time<Mono>) -> Self {
        let mut key = [0; 32];
        for (place, shift) in key.chunks_exact_mut(8).zip([1, 13, 29, 47]) {
            place.copy_from_slice(
                &seed.rotate_left(shift).wrapping_mul(0x9e37_79b9_7f4a_7c15).to_be_bytes(),
            );
        }
        let server = |config: &AssociationConfig| Server {
            address: config.address,
            said: None,
            offset: None,
            jitter_ns: 0.0,
            delay: Duration::ZERO,
            latest: VecDeque::new(),
            shown: [None; 2],
            shifts: Default::default(),
            kind: config.kind,
        };
        Self {
            client: NtpClient::new(&config.servers, config.utc, key, now),
            said: Commands::default(),
            base: u16::try_from(ports).unwrap_or(u16::MAX),
            part: config.part,
            of: config.servers.iter().map(server).collect(),
            is_followed: config.part == NtpPart::Source,
            leader: None,
            shift: None,
            parent: None,
            epoch: 0,
            sequence_id: 0,
        }
    }

    pub(super) fn next_timeout(&self) -> Option<Time<Mono>> {
        self.client.next_timeout()
    }

    pub(super) fn leader(&self) -> Option<SourceId> {
        self.leader.map(|at| id(self.of[at].address.ip()))
    }

    /// Follows them from now on, or no longer.
    pub(super) fn follow(&mut self, is_followed: bool) {
        self.is_followed = is_followed;
        (self.leader, self.shift, self.parent) = (None, None, None);
    }
}

const fn id(server: IpAddr) -> SourceId {
    SourceId::Ntp(server)
}

/// What stands for the identity of a server: its address, as far as that has room.
fn identity(server: IpAddr) -> ClockIdentity {
    ClockIdentity(match server {
        IpAddr::V4(address) => {
            let [a, b, c, d] = address.octets();
            [b'N', b'T', b'P', 0, a, b, c, d]
        }
        IpAddr::V6(address) => address.octets().last_chunk().copied().unwrap_or_default(),
    })
}

/// UTC is told as it is.
pub(super) const fn utc(leap: Leap) -> TimeProperties {
    let (leap61, leap59) = (matches!(leap, Leap::Positive), matches!(leap, Leap::Negative));
    TimeProperties { leap61, leap59, ..TimeProperties::UNKNOWN }
}

/// A time of UTC as the time of a domain whose scale is UTC.
const fn shown(time: Time<Real>) -> Time<Ptp> {
    Time::from_epoch(time.since_epoch())
}

impl<C: Clock> Discipline<C> {
    /// The time transmitter of PTP or the server of NTP that is followed.
    pub fn parent(&self) -> Option<&Parent> {
        match &self.ntp {
            Some(ntp) if ntp.is_followed => ntp.parent.as_ref(),
            _ if self.follows_pulse() => self.pulse.as_ref()?.parent(),
            _ => self.receiver().parent(),
        }
    }

    /// Whether a server of NTP is what the clock follows.
    pub fn follows_ntp(&self) -> bool {
        self.ntp.as_ref().is_some_and(|ntp| ntp.is_followed)
    }

    /// The servers of NTP that are asked, in the order of their ports.
    pub fn ntp_servers(&self) -> impl Iterator<Item = NtpServerStatus> {
        self.ntp.iter().flat_map(|ntp| {
            ntp.client.states().zip(&ntp.of).enumerate().map(|(at, (association, server))| {
                NtpServerStatus {
                    association,
                    said: server.said,
                    offset: server.offset,
                    delay: server.delay,
                    jitter: Duration::from_nanos_f64(server.jitter_ns),
                    shift: server.shift().by(),
                    is_leader: ntp.is_followed && ntp.leader == Some(at),
                }
            })
        })
    }

    /// Gives an input to the client of NTP where it is for that.
    pub(super) fn handled_by_ntp(
        &mut self,
        cx: &mut Context<'_, Event>,
        input: &Input<'_>,
    ) -> bool {
        let Some(base) = self.ntp.as_ref().map(|ntp| ntp.base) else { return false };
        let inner = match *input {
            Input::Message { on: PortIndex(on), from, bytes, stamp } if on >= base => {
                Input::Message { on: PortIndex(on - base), from, bytes, stamp }
            }
            Input::Sent { token: SentToken(token), stamp } if token & TOKEN != 0 => {
                Input::Sent { token: SentToken(token & !TOKEN), stamp }
            }
            _ => return false,
        };
        let shown = self.utc_shown(cx.now);
        let Some(ntp) = &mut self.ntp else { return false };
        if let Input::Message { on, stamp: Some(stamp), .. } = &inner
            && let Some(server) = ntp.of.get_mut(usize::from(on.0))
        {
            server.heard(stamp.time, shown);
        }
        let mut way = Context { now: cx.now, clock: cx.clock, out: &mut ntp.said };
        ntp.client.handle(&mut way, inner);
        self.hear_ntp(cx);
        true
    }

    pub(super) fn ntp_due(&mut self, cx: &mut Context<'_, Event>) {
        let Some(ntp) = &mut self.ntp else { return };
        let mut way = Context { now: cx.now, clock: cx.clock, out: &mut ntp.said };
        ntp.client.handle_timeout(&mut way);
        self.hear_ntp(cx);
    }

    /// What the client has said.
    fn hear_ntp(&mut self, cx: &mut Context<'_, Event>) {
        let mut said = core::mem::take(&mut self.said);
        while let Some(ntp) = &mut self.ntp
            && let Some(command) = ntp.said.pop()
        {
            let base = ntp.base;
            match command {
                Command::Send(transmit) => {
                    let on = PortIndex(transmit.on.0.saturating_add(base));
                    let token = transmit.token.map(|token| SentToken(token.0 | TOKEN));
                    cx.out.push(Command::Send(Transmit { on, token, ..transmit }));
                }
                Command::Event(event) => {
                    let mut way = Way { now: cx.now, out: cx.out, said: &mut said };
                    if let NtpEvent::Exchange(exchange) = &event {
                        self.exchanged(&mut way, exchange);
                    }
                    way.tell(Event::Ntp(event));
                }
                Command::Measured(_) | Command::Witnessed(_) | Command::Changed(_) => {}
            }
        }
        self.said = said;
        if !self.said.is_empty() {
            self.give(cx, |_, _| ());
        }
    }

    fn exchanged(&mut self, way: &mut Way<'_, '_>, exchange: &Exchange) {
        let at = usize::from(exchange.with.0);
        let free =
            |stamp: crate::stamp::Stamp| free_running(self.clock.free_running(stamp.time), stamp);
        let (delay, sync) = self.as_ptp(exchange, free, Duration::ZERO);
        let known = self.ntp.as_ref().and_then(|ntp| ntp.of.get(at)?.shown_at(exchange.t4.time));
        let shown = known.unwrap_or_else(|| self.utc_shown(way.now));
        let shown_by_clock = |stamp: crate::stamp::Stamp| {
            Time::<Real>::from_epoch(self.clock.free_running(stamp.time).since_epoch() + shown)
        };
        let ahead = |server: Time<Real>, clock: Time<Real>| server - clock;
        let offset = (ahead(exchange.t2, shown_by_clock(exchange.t1))
            + ahead(exchange.t3, shown_by_clock(exchange.t4)))
        .half();
        let round_trip = exchange.delay();
        let is_settled = self.locked_at.is_some_and(|at| exchange.t1.time - at >= SETTLED);
        let is_watched = is_settled && self.clock.is_adjustable() && !self.follows_ntp();
        let Some(ntp) = &mut self.ntp else { return };
        let Some(server) = ntp.of.get_mut(at) else { return };
        server.said = Some(exchange.server);
        if exchange.turn == Turn::First {
            let address = server.address.ip();
            self.bound_by(way.now, address, exchange, &delay, &sync);
            return;
        }
        server.kind = exchange.kind;
        if is_watched
            && ntp.part == NtpPart::Witness
            && server.shifts[exchange.kind as usize].take(way.now, offset, round_trip)
        {
            // Whether the others see it, too, is to be known soon.
            ntp.client.look_closer(way.now);
        }
        let jitter = server.learn(offset, shown, exchange);
        let server = server.address.ip();
        ntp.client.judge(exchange.with, offset, jitter);
        self.bound_by(way.now, server, exchange, &delay, &sync);
        if self.follows_ntp() {
            self.follow_ntp(way, at, exchange);
        }
    }

    /// What an exchange says of where a server's time can be at all.
    fn bound_by(
        &mut self,
        now: Time<Mono>,
        server: IpAddr,
        exchange: &Exchange,
        delay: &DelayInput,
        sync: &SyncInput,
    ) {
        let properties = utc(exchange.server.leap);
        let witness = self.council.witness(now, id(server), identity(server), properties);
        witness.exchange(now, delay, sync, exchange.delay(), exchange.server.root_distance);
    }

    /// Whether the clock, which follows a grandmaster, is not where it usually is against servers of NTP: at least two that
    /// answer, and more than half of those of which it is known what is usual, see it in the same sense. It finds much
    /// less than a contradiction of intervals, and proves less: the grandmaster is wrong by so much, or the path to it is not
    /// what it was.
    pub fn shifted(&self) -> Option<Shifted> {
        let ntp = self.ntp.as_ref().filter(|ntp| !ntp.is_followed)?;
        let answering = ntp.client.states().zip(&ntp.of).filter(|(state, _)| !state.is_silent);
        let shifts: Vec<&Shift> =
            answering.map(|(_, server)| server.shift()).filter(|shift| shift.is_known()).collect();
        let seen = |is_ahead: bool| {
            let mut seen: Vec<Duration> = shifts
                .iter()
                .filter_map(|shift| shift.by().filter(|by| by.is_negative() != is_ahead))
                .collect();
            seen.sort_unstable();
            seen
        };
        let [ahead, behind] = [true, false].map(seen);
        let seen = if ahead.len() > behind.len() { ahead } else { behind };
        let is_sure = seen.len() >= FEWEST_SHIFTED && 2 * seen.len() > shifts.len();
        // A server that is farther ahead is one of which the clock has moved back.
        is_sure.then(|| Shifted {
            by: -seen[seen.len() / 2],
            seen_by: seen.len(),
            of: shifts.len(),
        })
    }

    /// Asks the servers of NTP a few times soon, where they are witnesses.
    pub(super) fn look_closer(&mut self, now: Time<Mono>) {
        if let Some(ntp) = self.ntp.as_mut().filter(|ntp| ntp.part == NtpPart::Witness) {
            ntp.client.look_closer(now);
        }
    }

    /// What was usual between clock and servers is so no more.
    pub(super) fn forget_usual(&mut self) {
        for server in self.ntp.iter_mut().flat_map(|ntp| &mut ntp.of) {
            server.shifts = Default::default();
        }
    }

    /// An exchange as a servo takes it, the server's times moved by `shift`.
    fn as_ptp(
        &self,
        exchange: &Exchange,
        local: impl Fn(crate::stamp::Stamp) -> LocalTime,
        shift: Duration,
    ) -> (DelayInput, SyncInput) {
        let sequence_id = self.ntp.as_ref().map_or(0, |ntp| ntp.sequence_id);
        let correction = Duration::ZERO;
        let t4 = shown(exchange.t2) + shift;
        let delay = DelayInput { t3: local(exchange.t1), t4, sequence_id, correction };
        let sync = SyncInput {
            t1: shown(exchange.t3) + shift,
            t2: local(exchange.t4),
            sequence_id,
            log_interval: Some(exchange.poll),
            correction,
        };
        (delay, sync)
    }

    /// Steers by an exchange with the leader.
    fn follow_ntp(&mut self, way: &mut Way<'_, '_>, at: usize, exchange: &Exchange) {
        let now = way.now;
        let free = self.clock.free_running(now);
        let opinions = self.council.ntp_opinions(now, free);
        let policy = self.on_disagreement();
        let Some(ntp) = &mut self.ntp else { return };
        let rate_ppb = self.locked_at.and(self.servo.rate_ppb());
        let found = ntp.combine(&opinions, at, policy, now, rate_ppb);
        let Some((leader, shift)) = found else { return };
        if ntp.leader != Some(leader) {
            (ntp.leader, ntp.shift) = (Some(leader), None);
            ntp.epoch += 1;
            self.servo.parent_changed();
            self.strategist.clear();
        }
        let Some(ntp) = &mut self.ntp else { return };
        if leader != at {
            return;
        }
        let smooth = ntp.shift.map_or(shift, |before| {
            before + Duration::from_nanos_f64((shift - before).as_nanos_f64() / SMOOTHING)
        });
        ntp.shift = Some(smooth);
        ntp.sequence_id = ntp.sequence_id.wrapping_add(1);
        let (sequence_id, epoch) = (ntp.sequence_id, ntp.epoch);
        let port = PortIndex(ntp.base.saturating_add(exchange.with.0));
        let parent = parent_of(ntp.of[at].address, port, exchange, epoch);
        let port_identity = parent.set.parent_port_identity;
        let early = ntp.of[at].early(exchange);
        if ntp.parent.replace(parent).map(|old| old.epoch) != Some(epoch) {
            way.out.push(Command::Changed(crate::seam::Change::Parent(Some(parent))));
        }
        self.origin.parent = Some(parent);
        self.origin.root_distance = Some(exchange.server.root_distance + smooth.abs());
        self.measured_at = Some(now);
        self.tx_source = Some(exchange.t1.source);
        if self.is_unheard() {
            return;
        }
        let exchanged = self.as_ptp(exchange, |stamp| self.local(stamp), smooth);
        let (delay, mut sync) = self.counted_on(exchanged);
        // The answer has left later than it says. That is believed, and not known: the bound stays that of what it says.
        sync.t1 += early;
        sync.t2.doubt += early;
        if !self.may_follow(way, exchange.t4.time, &sync) {
            return;
        }
        self.servo.delay(delay);
        let Some(output) = self.servo.sync(sync) else { return };
        self.apply(way, output);
        let sync = SyncObservation {
            t1: sync.t1,
            t2: exchange.t4,
            sequence_id,
            log_interval: sync.log_interval,
            two_step: false,
            correction: sync.correction,
        };
        let observation = Observation::Sync(sync);
        let measurement = Measurement { port, parent: port_identity, epoch, observation };
        self.sample(way, &measurement, exchange.t4, sequence_id, output);
    }
}

/// A server in the words of PTP. What it follows is in the bound already, so there is nobody between.
fn parent_of(server: SocketAddr, port: PortIndex, exchange: &Exchange, epoch: u64) -> Parent {
    let clock_identity = identity(server.ip());
    let clock_class = if exchange.server.stratum == 1 { 6 } else { 187 };
    let set = ParentDataSet {
        parent_port_identity: PortIdentity { clock_identity, port_number: 1 },
        parent_stats: false,
        observed_offset_scaled_log_variance: ParentDataSet::UNKNOWN_VARIANCE,
        observed_phase_change_rate: ParentDataSet::UNKNOWN_RATE,
        grandmaster_priority1: 128,
        grandmaster_clock_quality: ClockQuality {
            clock_class,
            clock_accuracy: ClockAccuracy::UNKNOWN,
            offset_scaled_log_variance: 0xffff,
        },
        grandmaster_priority2: 128,
        grandmaster_identity: clock_identity,
    };
    let time_properties = utc(exchange.server.leap);
    Parent { port, set, steps_removed: 0, epoch, time_properties }
}

#[cfg(test)]
mod tests;
