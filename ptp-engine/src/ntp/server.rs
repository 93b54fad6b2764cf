//! The server: answers requests with the time that is kept, in basic and in interleaved mode (RFC 9769), never with more bytes
//! than were asked with, and not at all while there is no time to give. For interleaved mode it remembers by the
//! receive time of each request when its answer really left; a table of fixed size, so that a flood costs others no more
//! than that their answers are basic ones.

use crate::prelude::*;
use core::{
    hash::{Hash, Hasher},
    net::IpAddr,
};

use ptp_common::{
    ntp::{Leap, Mode, NtpPacket, NtpShort, NtpTimestamp, ReferenceId},
    time::{Duration, Mono, Ptp, Real, Time},
};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use serde::Serialize;
use siphasher::sip::SipHasher13;

use crate::{
    Command, Context, Datagram, Destination, Engine, Input, SentToken, Transmit, address::Address,
    fair::FairShare, ntp::smear::LeapSmear, stamp::Stamp,
};

/// Answers whose departure is remembered.
const REMEMBERED: usize = 1 << 14;
/// One in so many requests that are refused for their rate is told so.
const KISS_EVERY: u32 = 8;
/// Answers of which the median says how long it takes to send one, and the quickest how far that may be wrong.
const LATENCIES: usize = 32;
/// Of fewer nothing is learnt: the very first find nothing where it will be, and take many times as long.
const FEWEST_LATENCIES: usize = 8;
/// Of so many answers what they say is learnt anew.
const LEARNT_EVERY: usize = 32;
/// An answer that is made so shortly after another one leaves on a warm path.
pub const WARM: Duration = Duration::from_millis(1);
/// No answer is believed to take longer to send, whatever its stamp says.
const MAX_LATENCY: Duration = Duration::from_millis(1);

/// What a server is told once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NtpServerConfig {
    /// Answers per second in all; clients share them fairly.
    pub answers_per_second: u32,
    /// For numbers that nobody may guess.
    pub seed: [u8; 32],
}

/// The time that is kept, as it is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Serving {
    /// What the end of the month will be like.
    pub leap: Leap,
    /// 1 where the time comes from a PTP domain or from a clock at this host, else one more than the source's.
    pub stratum: u8,
    /// The precision of the clock, 2^n s.
    pub precision: i8,
    /// Round trip to the source.
    pub root_delay: Duration,
    /// Bound of the error against the source beside half of that.
    pub root_dispersion: Duration,
    /// What is followed.
    pub reference_id: ReferenceId,
    /// When the clock was last measured against it.
    pub reference: Time<Mono>,
    /// What the served time is ahead of UTC: 37 s where it is TAI.
    pub utc_offset: Duration,
    /// How a leap second is hidden; `leap` is not told then.
    pub smear: Option<LeapSmear>,
}

impl Serving {
    /// UTC, or what is told instead of it while a leap second is smeared.
    fn utc(&self, time: Time<Ptp>) -> Time<Real> {
        let smeared = self.smear.map_or(Duration::ZERO, |smear| smear.at(time));
        time.at_offset(-(self.utc_offset + smeared))
    }
}

/// What was done with requests, counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct NtpServerCounters {
    /// Answered with the time of intention.
    pub basic: u64,
    /// Answered with the time at which the answer before really left.
    pub interleaved: u64,
    /// Told to ask less often.
    pub kisses: u64,
    /// Refused for their rate.
    pub rate: u64,
    /// No request, or one that is malformed.
    pub malformed: u64,
    /// With a digest or an extension field that asks for what is not given.
    pub authenticated: u64,
    /// While there is no time to give.
    pub unsynchronized: u64,
    /// Without a receive stamp.
    pub no_stamp: u64,
}

/// A server tells nothing beside its counters.
pub type NtpServerEvent = crate::NoEvent;

/// An answer that was given.
#[derive(Clone, Copy, Debug)]
struct Answer {
    receive: NtpTimestamp,
    /// When it was made.
    at: Time<Mono>,
    is_warm: bool,
    transmit: Option<NtpTimestamp>,
}

/// The server. See the module's paragraph.
#[derive(Debug)]
pub struct NtpServer {
    serving: Option<Serving>,
    fair: FairShare,
    counters: NtpServerCounters,
    /// Empty until there is time to give.
    answers: Vec<Option<Answer>>,
    key: (u64, u64),
    /// When the latest was made.
    made: Option<Time<Mono>>,
    /// How long they take: the first after a while, and those that follow on one another.
    latencies: [Latencies; 2],
    rng: ChaCha8Rng,
}

impl NtpServer {
    /// A server that has no time yet.
    pub fn new(config: &NtpServerConfig, now: Time<Mono>) -> Self {
        let mut rng = ChaCha8Rng::from_seed(config.seed);
        Self {
            serving: None,
            fair: FairShare::new(config.answers_per_second, rng.random(), now),
            counters: NtpServerCounters::default(),
            answers: Vec::new(),
            key: (rng.random(), rng.random()),
            made: None,
            latencies: Default::default(),
            rng,
        }
    }

    /// What is known of the time that is kept; `None` ends the answers.
    pub fn set_serving(&mut self, serving: Option<Serving>) {
        if serving.is_some() && self.answers.is_empty() {
            // Not while the first request waits for its answer.
            self.answers = vec![None; REMEMBERED];
        }
        self.serving = serving;
    }

    /// What was done so far.
    pub const fn counters(&self) -> &NtpServerCounters {
        &self.counters
    }

    fn place(&self, receive: NtpTimestamp) -> usize {
        let mut hasher = SipHasher13::new_with_keys(self.key.0, self.key.1);
        receive.0.hash(&mut hasher);
        hasher.finish() as usize % REMEMBERED
    }

    fn remembered(&self, receive: NtpTimestamp) -> Option<&Answer> {
        let found = self.answers.get(self.place(receive))?.as_ref()?;
        (found.receive == receive).then_some(found)
    }

    /// A receive time that no request has had that is still remembered: it is the name of its answer.
    fn unique(&self, mut receive: NtpTimestamp) -> NtpTimestamp {
        while !receive.is_some() || self.remembered(receive).is_some() {
            receive = NtpTimestamp(receive.0.wrapping_add(1));
        }
        receive
    }

    fn request(
        &mut self,
        cx: &mut Context<'_, NtpServerEvent>,
        from: Address,
        bytes: &[u8],
        at: &Where,
    ) {
        let Ok((asked, trailer)) = NtpPacket::parse(bytes) else {
            self.counters.malformed += 1;
            return;
        };
        let is_request = asked.mode == Mode::Client && asked.transmit.is_some();
        let mut needs_more = false;
        let behind = trailer.extensions(|_| needs_more = true);
        let (true, Ok(behind)) = (is_request, behind) else {
            self.counters.malformed += 1;
            return;
        };
        if needs_more || !behind.is_empty() {
            self.counters.authenticated += 1;
            return;
        }
        let Some(serving) = self.serving else {
            self.counters.unsynchronized += 1;
            return;
        };
        if !self.fair.admit(cx.now, &at.who, &at.who) {
            self.counters.rate += 1;
            if self.rng.random_range(0..KISS_EVERY) == 0 {
                self.counters.kisses += 1;
                let kiss = NtpPacket {
                    mode: Mode::Server,
                    leap: Leap::Unknown,
                    reference_id: ReferenceId::RATE,
                    origin: asked.transmit,
                    transmit: asked.transmit,
                    ..asked
                };
                let kiss = Datagram::of_ntp(&NtpPacket { stratum: 0, ..kiss });
                self.send(cx, from, at, kiss, None);
            }
            return;
        }
        let Some(stamp) = at.stamp else {
            self.counters.no_stamp += 1;
            return;
        };
        let is_warm = self.made.replace(cx.now).is_some_and(|before| cx.now - before < WARM);
        let (latency, doubt) = self.latencies[usize::from(is_warm)].usual;
        let sent_at = cx.now + latency;
        let times = (cx.clock.at(stamp.time), cx.clock.at(sent_at), cx.clock.at(serving.reference));
        let (Some(received), Some(leaves), reference) = times else {
            self.counters.unsynchronized += 1;
            return;
        };
        let told = |time| NtpTimestamp::of(serving.utc(time));
        let before = self.remembered(asked.origin).and_then(|answer| answer.transmit);
        let receive = self.unique(told(received));
        let is_interleaved = asked.receive != asked.transmit && asked.receive.is_some();
        let (origin, transmit) = match before.filter(|_| is_interleaved) {
            Some(before) => (asked.receive, before),
            None => (asked.transmit, told(leaves)),
        };
        let is_basic = origin == asked.transmit;
        if is_basic {
            self.counters.basic += 1;
        } else {
            self.counters.interleaved += 1;
        }
        let answer = NtpPacket {
            leap: if serving.smear.is_some() { Leap::None } else { serving.leap },
            version: asked.version,
            mode: Mode::Server,
            stratum: serving.stratum,
            poll: asked.poll,
            precision: serving.precision,
            root_delay: NtpShort::of(serving.root_delay),
            root_dispersion: NtpShort::of(serving.root_dispersion + doubt),
            reference_id: serving.reference_id,
            reference: reference.map_or(NtpTimestamp::NONE, told),
            origin,
            receive,
            transmit,
        };
        let place = self.place(receive);
        self.answers[place] = Some(Answer { receive, at: cx.now, is_warm, transmit: None });
        let message = match is_basic {
            true => Datagram::of_ntp_answer(&answer, cx.now),
            false => Datagram::of_ntp(&answer),
        };
        self.send(cx, from, at, message, Some(SentToken(receive.0)));
    }

    fn send(
        &self,
        cx: &mut Context<'_, NtpServerEvent>,
        to: Address,
        at: &Where,
        message: Datagram,
        token: Option<SentToken>,
    ) {
        let on = at.on;
        cx.out.push(Command::Send(Transmit { on, to: Destination::Unicast(to), message, token }));
    }

    fn sent(&mut self, cx: &Context<'_, NtpServerEvent>, token: SentToken, stamp: Option<Stamp>) {
        let receive = NtpTimestamp(token.0);
        let place = self.place(receive);
        let (Some(stamp), Some(serving)) = (stamp, self.serving) else { return };
        let Some(Some(answer)) = self.answers.get_mut(place) else { return };
        if answer.receive != receive || answer.transmit.is_some() {
            return;
        }
        let Some(left) = cx.clock.at(stamp.time) else { return };
        let left = NtpTimestamp::of(serving.utc(left));
        answer.transmit = left.is_some().then_some(left);
        let (latency, is_warm) = (stamp.time - answer.at, answer.is_warm);
        self.latencies[usize::from(is_warm)].take(latency);
    }
}

/// Between the making of answers and their departures.
#[derive(Debug, Default)]
struct Latencies {
    known: [Duration; LATENCIES],
    latest: usize,
    /// What is usual, and how much sooner some have left, by which the time of intention may be later than the departure. To
    /// sort them for each answer would take as long as to make it.
    usual: (Duration, Duration),
}

impl Latencies {
    fn take(&mut self, latency: Duration) {
        self.known[self.latest % LATENCIES] = latency.clamp(Duration::ZERO, MAX_LATENCY);
        // Wraps far behind the number of places, and stays there.
        self.latest = self.latest.checked_add(1).unwrap_or(LATENCIES);
        let is_due = self.latest <= LATENCIES || self.latest.is_multiple_of(LEARNT_EVERY);
        if self.latest < FEWEST_LATENCIES || !is_due {
            return;
        }
        let mut known = self.known;
        let known = &mut known[..self.latest.min(LATENCIES)];
        known.sort_unstable();
        if let (Some(least), Some(usual)) = (known.first(), known.get(known.len() / 2)) {
            self.usual = (*usual, *usual - *least);
        }
    }
}

/// Where a request came from.
struct Where {
    on: crate::PortIndex,
    stamp: Option<Stamp>,
    who: Who,
}

/// Who shares a budget: an address, or in IPv6 the network of a host.
#[derive(Hash)]
enum Who {
    Four([u8; 4]),
    Six([u8; 8]),
    Nobody,
}

impl Who {
    fn of(from: Address) -> Self {
        let Address::Socket(from) = from else { return Self::Nobody };
        match from.ip() {
            IpAddr::V4(address) => Self::Four(address.octets()),
            IpAddr::V6(address) => match address.octets().first_chunk() {
                Some(network) => Self::Six(*network),
                None => Self::Nobody,
            },
        }
    }
}

impl Engine for NtpServer {
    type Event = NtpServerEvent;

    fn handle(&mut self, cx: &mut Context<'_, NtpServerEvent>, input: Input<'_>) {
        match input {
            Input::Message { on, from: Some(from), bytes, stamp } => {
                self.request(cx, from, bytes, &Where { on, stamp, who: Who::of(from) });
            }
            Input::Sent { token, stamp } => self.sent(cx, token, stamp),
            Input::Message { from: None, .. } => self.counters.malformed += 1,
            Input::Link { .. } | Input::Passed(_) | Input::Pulse(_) | Input::Nmea { .. } => (),
        }
    }

    fn handle_timeout(&mut self, _: &mut Context<'_, NtpServerEvent>) {}

    fn next_timeout(&self) -> Option<Time<Mono>> {
        None
    }
}
