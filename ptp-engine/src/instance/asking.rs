//! The client: it asks each of its servers at that server's interval, takes only answers to what it asked, from the
//! address that it asked, and follows the best that answers. What is measured against the others is handed on as
//! well, so that they can be held against each other.

mod choice;
pub(crate) mod exchanges;

use core::net::SocketAddr;

use alloc::collections::VecDeque;
use ptp_common::{
    data_set::{ParentDataSet, TimeProperties},
    time::{Duration, Mono, Ptp, Time},
    wire::{
        Announce, ClockAccuracy, ClockIdentity, ClockQuality, CsptpStatus, Flags, Header,
        PortIdentity, TimeSource, Timestamp, csptp,
    },
};
use rand::RngExt;

use super::{Cx, Instance};
use crate::prelude::*;
use crate::{
    PortIndex, SentToken,
    address::Address,
    config::servers::{Protocol, ServerConfig},
    counters::Drop,
    limits,
    outcome::{Measurement, Parent, StateReason},
    stamp::Stamp,
    timers::Timers,
};

/// As many are asked at the most.
pub const MAX_SERVERS: usize = 16;
/// Requests to one server that may be under way.
const PENDING: usize = 16;
/// An answer that takes longer comes too late.
const PATIENCE: Duration = Duration::from_secs(1);
/// A server that was silent for so long, or for so many of its intervals, is not followed.
const SILENT: Duration = Duration::from_secs(2);
const SILENT_INTERVALS: i32 = 5;
/// The first requests follow each other quickly, so that there is something to go by.
const BURST: u32 = 8;
const BURST_INTERVAL: Duration = Duration::from_millis(125);
/// A server that does not answer is asked no more often than this.
const SLOW: Duration = Duration::from_secs(1);
/// Requests in a row without an answer after which it is so.
const MISSED: u32 = 8;
/// All begin within so much of each other.
const SPREAD: Duration = Duration::from_millis(100);
/// How much shorter than nothing a round trip may seem: two clocks, one of them steered meanwhile.
const SLACK: Duration = Duration::from_micros(100);

/// What a server says of its time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Said {
    announce: Announce,
    flags: Flags,
}

impl Said {
    /// Of a server that says nothing: a clock that nobody knows anything of.
    fn nothing(identity: ClockIdentity, flags: Flags) -> Self {
        let announce = Announce {
            origin_timestamp: Timestamp::ZERO,
            current_utc_offset: 0,
            grandmaster_priority1: 128,
            grandmaster_clock_quality: ClockQuality {
                clock_class: 248,
                clock_accuracy: ClockAccuracy::UNKNOWN,
                offset_scaled_log_variance: 0xffff,
            },
            grandmaster_priority2: 128,
            grandmaster_identity: identity,
            steps_removed: 0,
            time_source: TimeSource::INTERNAL_OSCILLATOR,
        };
        Self { announce, flags }
    }

    fn with(mut self, status: &CsptpStatus) -> Self {
        self.announce.grandmaster_priority1 = status.priority1;
        self.announce.grandmaster_clock_quality = status.quality;
        self.announce.grandmaster_priority2 = status.priority2;
        self.announce.grandmaster_identity = status.grandmaster_identity;
        self.announce.steps_removed = status.steps_removed;
        self.announce.current_utc_offset = status.current_utc_offset;
        self
    }

    fn time_properties(&self) -> TimeProperties {
        TimeProperties::new(self.flags, &self.announce)
    }

    /// Whether times before and after can be compared.
    fn is_same_time(&self, other: &Self) -> bool {
        self.announce.grandmaster_identity == other.announce.grandmaster_identity
            && self.flags.contains(Flags::PTP_TIMESCALE)
                == other.flags.contains(Flags::PTP_TIMESCALE)
    }

    /// What is compared, the best first. Not the identity: among equals the order of the configuration counts.
    fn rank(&self) -> (u8, u8, u8, u16, u8) {
        let quality = self.announce.grandmaster_clock_quality;
        (
            self.announce.grandmaster_priority1,
            quality.clock_class,
            quality.clock_accuracy.0,
            quality.offset_scaled_log_variance,
            self.announce.grandmaster_priority2,
        )
    }
}

/// What a server of CSPTP says of its time, as an Announce would say it.
pub(crate) fn announce_of(
    status: Option<&CsptpStatus>,
    identity: ClockIdentity,
    flags: Flags,
) -> Announce {
    let nothing = Said::nothing(identity, flags);
    status.map_or(nothing, |status| nothing.with(status)).announce
}

#[derive(Clone, Copy, Debug)]
enum Departure {
    Awaited,
    Stamped(Stamp),
}

/// The answer.
#[derive(Clone, Copy, Debug)]
struct Answer {
    rx: Stamp,
    identity: PortIdentity,
    /// When the request arrived at the server.
    ingress: Time<Ptp>,
    /// Of the request, where the answer tells it.
    request_correction: Option<Duration>,
    correction: Duration,
    said: Option<Said>,
}

/// When the answer left.
#[derive(Clone, Copy, Debug)]
struct Origin {
    time: Time<Ptp>,
    correction: Duration,
    /// Of the request, where this tells it.
    request_correction: Option<Duration>,
    said: Option<Said>,
}

/// A request under way.
#[derive(Clone, Copy, Debug)]
struct Pending {
    sequence_id: u16,
    token: SentToken,
    asked_at: Time<Mono>,
    departure: Departure,
    answer: Option<Answer>,
    origin: Option<Origin>,
}

/// How it is with a server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ServerState {
    /// As it was configured, and where it is.
    pub config: ServerConfig,
    /// Whose time it serves; `None` while it has not answered.
    pub identity: Option<PortIdentity>,
    /// Whether it answers.
    pub is_answering: bool,
    /// Whether it is followed.
    pub is_followed: bool,
    /// Requests sent.
    pub requests: u64,
    /// Exchanges that were complete.
    pub exchanges: u64,
    /// The latest round trip without the time that the server took.
    pub round_trip: Option<Duration>,
}

#[derive(Debug)]
struct Server {
    config: ServerConfig,
    pending: VecDeque<Pending>,
    identity: Option<PortIdentity>,
    said: Option<Said>,
    /// Something else that it says of its time, and how often in a row.
    doubtful: Option<(Said, u8)>,
    answered_at: Option<Time<Mono>>,
    /// Requests in a row that were not answered.
    missed: u32,
    requests: u64,
    exchanges: u64,
    round_trip: Option<Duration>,
}

impl Server {
    const fn new(config: ServerConfig) -> Self {
        Self {
            config,
            pending: VecDeque::new(),
            identity: None,
            said: None,
            doubtful: None,
            answered_at: None,
            missed: 0,
            requests: 0,
            exchanges: 0,
            round_trip: None,
        }
    }

    fn interval(&self) -> Duration {
        Duration::from_log_interval(self.config.log_interval)
    }

    fn is_answering(&self, now: Time<Mono>) -> bool {
        let patience = SILENT.max(self.interval() * SILENT_INTERVALS);
        self.answered_at.is_some_and(|at| now - at <= patience)
    }

    fn is_at(&self, from: Option<Address>, on: PortIndex) -> bool {
        let Some(address) = self.config.address.filter(|_| self.config.port == on) else {
            return false;
        };
        match from {
            Some(Address::Socket(from)) => from.ip().to_canonical() == address.ip().to_canonical(),
            Some(Address::Mac(_)) => false,
            // Who drives an instance without sockets says who it is by the sequence number alone.
            None => true,
        }
    }

    /// Whether a message is of the kind of its answers.
    fn is_of(&self, header: &Header, domain_number: u8, sdo_id: u16) -> bool {
        let expected = match self.config.protocol {
            Protocol::Csptp => (self.config.domain_number, csptp::SDO_ID),
            Protocol::Sptp => (domain_number, sdo_id),
        };
        (header.domain_number, header.sdo_id) == expected
    }

    fn parent(&self, epoch: u64) -> Option<Parent> {
        let (said, identity) = (self.said?, self.identity?);
        Some(Parent {
            port: self.config.port,
            set: ParentDataSet::of(&said.announce, identity),
            steps_removed: said.announce.steps_removed,
            epoch,
            time_properties: said.time_properties(),
        })
    }

    /// Gives up what is not answered any more; how many.
    fn expire(&mut self, now: Time<Mono>) -> u32 {
        let mut expired = 0;
        while self
            .pending
            .front()
            .is_some_and(|old| self.pending.len() >= PENDING || now - old.asked_at > PATIENCE)
        {
            self.pending.pop_front();
            expired += 1;
        }
        self.missed = self.missed.saturating_add(expired);
        expired
    }

    /// What it says is believed at once, and something else only when it is said again and again.
    fn believe(&mut self, said: Said) -> Result<(), Drop> {
        match self.said {
            Some(old) if !old.is_same_time(&said) => {
                let times = match self.doubtful {
                    Some((before, times)) if before.is_same_time(&said) => times + 1,
                    _ => 1,
                };
                if times < limits::CONFIRM_TIME {
                    self.doubtful = Some((said, times));
                    return Err(Drop::Unconfirmed);
                }
            }
            _ => {}
        }
        self.doubtful = None;
        self.said = Some(said);
        Ok(())
    }
}

/// The servers of an instance that asks.
#[derive(Debug)]
pub(crate) struct Asking {
    servers: Vec<Server>,
    chosen: Option<usize>,
    timers: Timers<u16>,
}

impl Asking {
    /// What is asked first.
    pub(crate) fn next_timeout(&self) -> Option<Time<Mono>> {
        self.timers.next()
    }

    /// How much is stored, for the test that it is bounded.
    #[cfg(test)]
    pub(crate) fn stored(&self) -> usize {
        self.servers.iter().map(|server| server.pending.len()).sum()
    }
}

impl Instance {
    /// Follows nobody but these servers, if there are any.
    pub(crate) fn start_asking(&mut self, cx: &mut Cx<'_>, servers: &[ServerConfig]) {
        if servers.is_empty() {
            return;
        }
        let servers: Vec<Server> =
            servers.iter().take(MAX_SERVERS).copied().map(Server::new).collect();
        let mut timers = Timers::default();
        for index in 0..servers.len() as u16 {
            let wait = self.rng.random_range(0..=SPREAD.as_nanos());
            timers.set(index, cx.now + Duration::from_nanos(wait));
        }
        self.asking = Some(Box::new(Asking { servers, chosen: None, timers }));
    }

    /// Whether it asks servers, instead of hearing who announces itself.
    pub const fn is_asking(&self) -> bool {
        self.asking.is_some()
    }

    /// How it is with each server.
    pub fn servers(&self, now: Time<Mono>) -> impl Iterator<Item = ServerState> {
        let asking = self.asking.as_deref();
        let chosen = asking.and_then(|asking| asking.chosen);
        let servers = asking.map_or(&[][..], |asking| &asking.servers[..]);
        servers.iter().enumerate().map(move |(n, server)| ServerState {
            config: server.config,
            identity: server.identity,
            is_answering: server.is_answering(now),
            is_followed: chosen == Some(n),
            requests: server.requests,
            exchanges: server.exchanges,
            round_trip: server.round_trip,
        })
    }

    /// The server that has this identity.
    pub fn server(&self, identity: PortIdentity) -> Option<ServerConfig> {
        let servers = &self.asking.as_deref()?.servers;
        let server = servers.iter().find(|each| each.identity == Some(identity))?;
        Some(server.config)
    }

    /// Whose time a measurement is of.
    pub(crate) fn parent_of(&self, identity: PortIdentity) -> Option<Parent> {
        let Some(asking) = self.asking.as_deref() else { return self.parent };
        let server = asking.servers.iter().find(|each| each.identity == Some(identity))?;
        server.parent(0)
    }

    /// Whether a measurement is of the one that is followed.
    pub(crate) fn is_of_parent(&self, measurement: &Measurement) -> bool {
        self.asking.is_none()
            || self
                .parent
                .is_some_and(|parent| parent.set.parent_port_identity == measurement.parent)
    }

    /// A server is somewhere else now, or its name has no address any more: it is asked from the beginning, by
    /// `port`.
    pub fn move_server(
        &mut self,
        cx: &mut Cx<'_>,
        n: usize,
        address: Option<SocketAddr>,
        port: PortIndex,
    ) {
        let Some(asking) = self.asking.as_deref_mut() else { return };
        let Some(server) = asking.servers.get_mut(n) else { return };
        if server.config.address == address {
            return;
        }
        *server = Server::new(ServerConfig { address, port, ..server.config });
        asking.timers.set(n as u16, cx.now);
        self.decide_as_asker(cx, StateReason::BetterElsewhere);
    }
}
