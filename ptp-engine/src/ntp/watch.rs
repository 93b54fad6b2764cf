//! What passes by of NTP: exchanges of other programs on this host, as the hooks see them. Where the host asks, an
//! exchange says how far its clock is from the server's, by stamps that no program has touched. Where it answers,
//! the times that the server claims are held against the stamps of the packets that they are of.

use alloc::collections::VecDeque;
use core::net::IpAddr;

use ptp_common::{
    ntp::{Mode, NtpPacket, NtpTimestamp},
    record::Direction,
    time::{Duration, Mono, Real, Time},
};
use serde::Serialize;

use crate::{servers::ExchangeKind, stamp::Stamp};

/// Requests that may wait for their answers, and peers of which the latest exchange is known; the oldest goes first.
const REMEMBERED: usize = 256;
/// No answer comes later.
const PATIENCE: Duration = Duration::from_secs(5);
/// Nor an interleaved one that tells of an exchange before this.
const BEFORE: Duration = Duration::from_secs(2_100);

/// A packet that passed.
#[derive(Clone, Copy, Debug)]
pub struct Passing<'a> {
    /// Which way.
    pub direction: Direction,
    /// The other end: from whom it came, or to whom it went.
    pub peer: IpAddr,
    /// Its beginning.
    pub bytes: &'a [u8],
    /// When it passed, on CLOCK_REALTIME; `None` where it has no stamp.
    pub stamp: Option<(Stamp, Time<Real>)>,
}

/// What was seen.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum NtpSeen {
    /// This host has asked a server.
    Asked(NtpAsked),
    /// It has answered a client.
    Answered(NtpAnswered),
}

/// An exchange with a server.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct NtpAsked {
    /// Which.
    pub server: IpAddr,
    /// What its transmit time is worth.
    pub kind: ExchangeKind,
    /// When the answer came.
    pub at: Stamp,
    /// Where the request was stamped.
    pub sent: Stamp,
    /// CLOCK_REALTIME minus the server's time.
    pub offset: Duration,
    /// Round trip without the time that the server took.
    pub delay: Duration,
    /// Of the server.
    pub stratum: u8,
}

/// An answer to a client: what it claims against what was seen.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct NtpAnswered {
    /// Whose request it was.
    pub client: IpAddr,
    /// What the transmit time is worth.
    pub kind: ExchangeKind,
    /// When the answer left.
    pub at: Stamp,
    /// The receive time that it claims minus the stamp of the request.
    pub receive_difference: Duration,
    /// The transmit time that it claims minus the stamp of the answer that it is of, where that is known.
    pub transmit_difference: Option<Duration>,
}

/// What was not used. Totals.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct NtpWatchCounts {
    /// No NTP packet, or one of another mode.
    pub other: u64,
    /// Answers to nothing that was seen.
    pub unasked: u64,
    /// Packets without a stamp.
    pub without_stamp: u64,
}

type At = (Stamp, Time<Real>);

#[derive(Clone, Copy, Debug)]
struct Asking {
    peer: IpAddr,
    direction: Direction,
    at: At,
    transmit: NtpTimestamp,
    receive: NtpTimestamp,
}

/// The latest exchange with a peer, of which an interleaved answer tells more.
#[derive(Clone, Copy, Debug)]
struct Latest {
    peer: IpAddr,
    direction: Direction,
    request: At,
    answer: At,
    /// The receive time that the server has told, by which it is named in the next request.
    received: NtpTimestamp,
}

/// See the module's paragraph.
#[derive(Debug, Default)]
pub struct NtpWatch {
    asking: VecDeque<Asking>,
    latest: VecDeque<Latest>,
    counts: NtpWatchCounts,
}

impl NtpWatch {
    /// What was not used so far.
    pub const fn counts(&self) -> &NtpWatchCounts {
        &self.counts
    }

    /// Takes a packet.
    pub fn passed(&mut self, now: Time<Mono>, passing: &Passing<'_>) -> Option<NtpSeen> {
        self.asking.retain(|it| now - it.at.0.time <= PATIENCE);
        self.latest.retain(|it| now - it.answer.0.time <= BEFORE);
        let Ok((packet, _)) = NtpPacket::parse(passing.bytes) else {
            self.counts.other += 1;
            return None;
        };
        if !matches!(packet.mode, Mode::Client | Mode::Server) {
            self.counts.other += 1;
            return None;
        }
        let Some(at) = passing.stamp else {
            self.counts.without_stamp += 1;
            return None;
        };
        let Passing { direction, peer, .. } = *passing;
        if packet.mode == Mode::Client {
            if self.asking.len() == REMEMBERED {
                self.asking.pop_front();
            }
            let (transmit, receive) = (packet.transmit, packet.receive);
            self.asking.push_back(Asking { peer, direction, at, transmit, receive });
            return None;
        }
        self.answer(at, direction, peer, &packet)
    }

    fn answer(
        &mut self,
        at: At,
        direction: Direction,
        peer: IpAddr,
        packet: &NtpPacket,
    ) -> Option<NtpSeen> {
        let kind_of = |asking: &Asking| {
            let is_its = asking.peer == peer && asking.direction != direction;
            match packet.origin {
                origin if !is_its || !origin.is_some() => None,
                origin if origin == asking.transmit => Some(ExchangeKind::Basic),
                origin if origin == asking.receive => Some(ExchangeKind::Interleaved),
                _ => None,
            }
        };
        let found = self.asking.iter().enumerate().find_map(|(n, it)| Some((n, kind_of(it)?)));
        let Some((found, kind)) = found else {
            self.counts.unasked += 1;
            return None;
        };
        let asking = self.asking.remove(found)?;
        let before = self.latest.iter().position(|it| it.peer == peer && it.direction == direction);
        let before = before.and_then(|at| self.latest.remove(at));
        if self.latest.len() == REMEMBERED {
            self.latest.pop_front();
        }
        let (request, received) = (asking.at, packet.receive);
        let latest = Latest { peer, direction, request, answer: at, received };
        self.latest.push_back(latest);
        if packet.stratum == 0 || !packet.receive.is_some() || !packet.transmit.is_some() {
            return None;
        }
        let told = packet.transmit.near(at.1);
        match direction {
            Direction::Ingress => {
                let of = match kind {
                    ExchangeKind::Basic => latest,
                    ExchangeKind::Interleaved => before?,
                };
                let (t2, t3) = (of.received.near(of.request.1), told);
                let (there, back) = (t2 - of.request.1, t3 - of.answer.1);
                Some(NtpSeen::Asked(NtpAsked {
                    server: peer,
                    kind,
                    at: of.answer.0,
                    sent: of.request.0,
                    offset: -(there + back).half(),
                    delay: there - back,
                    stratum: packet.stratum,
                }))
            }
            Direction::Egress => {
                let of_answer = match kind {
                    ExchangeKind::Basic => Some(at.1),
                    ExchangeKind::Interleaved => before.map(|before| before.answer.1),
                };
                Some(NtpSeen::Answered(NtpAnswered {
                    client: peer,
                    kind,
                    at: at.0,
                    receive_difference: received.near(request.1) - request.1,
                    transmit_difference: of_answer.map(|left| told - left),
                }))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stamp::StampSource;
    use core::net::Ipv4Addr;

    const PEER: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1));

    fn real(ns: i64) -> Time<Real> {
        Time::from_nanos(1_700_000_000_000_000_000 + ns)
    }

    fn pass(
        watch: &mut NtpWatch,
        direction: Direction,
        packet: NtpPacket,
        ns: i64,
    ) -> Option<NtpSeen> {
        let stamp = Stamp::new(Time::from_nanos(ns), StampSource::Stack);
        let bytes = packet.to_bytes();
        let stamp = Some((stamp, real(ns)));
        let passing = Passing { direction, peer: PEER, bytes: &bytes, stamp };
        watch.passed(Time::from_nanos(ns), &passing)
    }

    fn answer(origin: u64, receive: i64, transmit: i64) -> NtpPacket {
        NtpPacket {
            mode: Mode::Server,
            stratum: 1,
            origin: NtpTimestamp(origin),
            receive: NtpTimestamp::of(real(receive)),
            transmit: NtpTimestamp::of(real(transmit)),
            ..NtpPacket::request(NtpTimestamp(1), 4)
        }
    }

    fn near(found: Duration, expected: i64) -> bool {
        (found.as_nanos() - expected).abs() <= 1
    }

    #[test]
    fn an_exchange_of_another_program_says_how_far_the_hosts_clock_is() {
        let mut watch = NtpWatch::default();
        let request = NtpPacket::request(NtpTimestamp(77), 4);
        assert_eq!(pass(&mut watch, Direction::Egress, request, 1_000), None);
        // The server is 500 ns behind: what it calls 1_600 is 2_100 here.
        let seen = pass(&mut watch, Direction::Ingress, answer(77, 1_600, 2_600), 4_200);
        let Some(NtpSeen::Asked(asked)) = seen else { panic!("{seen:?}") };
        assert!(near(asked.offset, 500) && near(asked.delay, 2_200), "{asked:?}");
        assert_eq!(asked.kind, ExchangeKind::Basic);
        assert_eq!(pass(&mut watch, Direction::Ingress, answer(77, 1, 2), 5_000), None);
        assert_eq!(watch.counts().unasked, 1, "an answer answers once");
    }

    #[test]
    fn an_interleaved_answer_completes_the_exchange_before() {
        let mut watch = NtpWatch::default();
        pass(&mut watch, Direction::Egress, NtpPacket::request(NtpTimestamp(77), 4), 1_000);
        pass(&mut watch, Direction::Ingress, answer(77, 1_600, 2_600), 4_200);
        let second =
            NtpPacket { receive: NtpTimestamp(88), ..NtpPacket::request(NtpTimestamp(99), 4) };
        pass(&mut watch, Direction::Egress, second, 101_000);
        let seen = pass(&mut watch, Direction::Ingress, answer(88, 101_600, 2_700), 104_200);
        let Some(NtpSeen::Asked(asked)) = seen else { panic!("{seen:?}") };
        assert_eq!(
            (asked.kind, asked.at.time),
            (ExchangeKind::Interleaved, Time::from_nanos(4_200))
        );
        assert!(near(asked.delay, 2_100) && near(asked.offset, 450), "{asked:?}");
    }

    #[test]
    fn what_a_server_on_this_host_claims_is_held_against_the_stamps() {
        let mut watch = NtpWatch::default();
        pass(&mut watch, Direction::Ingress, NtpPacket::request(NtpTimestamp(77), 4), 1_000);
        let seen = pass(&mut watch, Direction::Egress, answer(77, 1_300, 8_000), 9_500);
        let Some(NtpSeen::Answered(answered)) = seen else { panic!("{seen:?}") };
        assert!(near(answered.receive_difference, 300), "{answered:?}");
        assert!(near(answered.transmit_difference.unwrap(), -1_500), "{answered:?}");
    }

    #[test]
    fn a_flood_of_requests_is_bounded_and_noise_is_counted() {
        let mut watch = NtpWatch::default();
        for n in 0..10_000 {
            pass(
                &mut watch,
                Direction::Egress,
                NtpPacket::request(NtpTimestamp(n + 1), 4),
                n as i64,
            );
        }
        assert_eq!(watch.asking.len(), REMEMBERED);
        let passing =
            Passing { direction: Direction::Ingress, peer: PEER, bytes: &[0; 40], stamp: None };
        assert_eq!(watch.passed(Time::ZERO, &passing), None);
        assert_eq!(watch.counts().other, 1);
    }
}
