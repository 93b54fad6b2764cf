//! Servers of NTP in the discipline: combined where they are followed, cast out where they lie.

use super::*;
use crate::{
    clock::virtual_clock::VirtualClock,
    discipline::{Client, Standing},
    ntp::{ExchangeKind, Poll},
    receiver::ReceiverConfig,
    seam::Monotonic,
    servo::{Choice, Interval, Options, ServoState, build},
    sources::Policy,
    stamp::{Stamp, StampSource},
};
use ptp_common::ntp::{Mode, NtpPacket, NtpTimestamp};
use std::vec;

/// UTC when the monotonic clock is zero, s.
const EPOCH: i64 = 1_800_000_000;
/// Each way, ns.
const PATH: i64 = 50_000;

fn mono(ns: i64) -> Time<Mono> {
    Time::from_nanos(ns)
}

fn address(n: u8) -> SocketAddr {
    ([192, 0, 2, n], 123).into()
}

/// A client of servers that are ahead of UTC by so much.
struct Bench {
    client: Client<VirtualClock>,
    ahead: Vec<i64>,
    /// How long before it leaves an answer has read the clock: after a while, and right behind another one, ns.
    early: [i64; 2],
    answered: i64,
    now: i64,
    samples: u32,
}

impl Bench {
    fn new(ahead: &[i64], policy: Policy) -> Self {
        Self::asking(ahead, policy, false)
    }

    fn asking(ahead: &[i64], policy: Policy, repeats: bool) -> Self {
        let servers = (1..=ahead.len() as u8).map(|n| AssociationConfig {
            address: address(n),
            poll: Poll::new(0, 2),
            kind: ExchangeKind::Basic,
            repeats,
        });
        let utc = Time::from_nanos(EPOCH * 1_000_000_000);
        let ntp = NtpConfig { servers: servers.collect(), part: NtpPart::Source, utc };
        let mut config = ReceiverConfig::new(ClockIdentity([0xcc; 8]), 3);
        (config.ports, config.ntp, config.on_disagreement) = (vec![], Some(ntp), policy);
        let clock = VirtualClock::new(mono(0), Time::from_nanos(EPOCH * 1_000_000_000), 500_000.0);
        let servo = build(&Choice::default(), &Options::default());
        let client = Client::new(config, servo, clock, mono(0));
        Self {
            client,
            ahead: ahead.to_vec(),
            early: [0; 2],
            answered: i64::MIN,
            now: 0,
            samples: 0,
        }
    }

    fn run_to(&mut self, second: i64) {
        let end = second * 1_000_000_000;
        while self.now < end {
            let next = self.client.next_wakeup().map_or(end, Time::as_nanos);
            self.now = next.clamp(self.now + 1, end.max(self.now + 1));
            self.client.poll(mono(self.now));
            self.collect();
        }
    }

    fn collect(&mut self) {
        while let Some(command) = self.client.next_command() {
            match command {
                Command::Send(transmit) => self.answer(&transmit),
                Command::Event(Event::Sample(sample)) => {
                    assert!(sample.is_of_ntp);
                    self.samples += 1;
                }
                _ => {}
            }
        }
    }

    fn answer(&mut self, transmit: &Transmit) {
        let is_warm = self.now - 1_000_000 < self.answered;
        let early = self.early[usize::from(is_warm)];
        // One's own requests are handed over in the same manner.
        let handed = Duration::from_nanos(early);
        let stamp = |ns| Some(Stamp { handed, ..Stamp::new(mono(ns), StampSource::Simulated) });
        let token = transmit.token.expect("a request is stamped");
        let clock = &Monotonic::default();
        let sent = Input::Sent { token, stamp: stamp(self.now) };
        self.client.handle(mono(self.now), clock, sent);
        let at = usize::from(transmit.on.0);
        let (asked, _) = NtpPacket::parse(&transmit.message).unwrap();
        let told = |ns| {
            let utc = Time::<Real>::from_nanos(EPOCH * 1_000_000_000 + ns + self.ahead[at]);
            NtpTimestamp::of(utc)
        };
        let answer = NtpPacket {
            mode: Mode::Server,
            stratum: 1,
            origin: asked.transmit,
            receive: told(self.now + PATH),
            transmit: told(self.now + PATH + 10_000),
            ..asked
        };
        let arrival = self.now + 2 * PATH + 10_000 + early;
        self.answered = arrival;
        let from = Some(crate::address::Address::Socket(address(at as u8 + 1)));
        let bytes = answer.to_bytes();
        let input = Input::Message { on: transmit.on, from, bytes: &bytes, stamp: stamp(arrival) };
        self.client.handle(mono(arrival), clock, input);
        self.now = arrival;
    }

    /// Clock minus UTC, ns.
    fn error(&self) -> i64 {
        let truth = Time::from_nanos(EPOCH * 1_000_000_000 + self.now);
        (self.client.domain_time(mono(self.now)) - truth).as_nanos()
    }
}

#[test]
fn the_clock_follows_one_server_and_its_bound_holds() {
    let mut bench = Bench::new(&[0], Policy::Alarm);
    bench.run_to(60);
    assert_eq!(bench.client.servo().state(), ServoState::Locked);
    assert!(bench.samples > 15, "{}", bench.samples);
    let bound = bench.client.error_bound(mono(bench.now)).unwrap().as_nanos();
    let error = bench.error().abs();
    assert!(error < 10_000 && error <= bound, "{error} {bound}");
    let parent = bench.client.parent().unwrap();
    assert_eq!(parent.set.grandmaster_identity.0[..3], *b"NTP");
    assert!(bench.client.receiver().parent().is_none(), "there is no PTP");
}

#[test]
fn what_a_server_without_stamps_is_early_by_is_known_from_the_own_requests_where_both_ends_are_warm()
 {
    for (repeats, most) in [(false, 8_000), (true, 100)] {
        let mut bench = Bench::asking(&[0], Policy::Alarm, repeats);
        bench.early = [12_000, 2_000];
        bench.run_to(60);
        let bound = bench.client.error_bound(mono(bench.now)).unwrap().as_nanos();
        let error = bench.error().abs();
        assert!(error < most && error <= bound, "{repeats} {error} {bound}");
        assert!(repeats || error > 4_000, "half of what a cold answer is early by: {error}");
    }
}

#[test]
fn the_own_sending_is_nothing_to_go_by_where_the_round_trip_is_shorter() {
    let mut bench = Bench::asking(&[0], Policy::Alarm, true);
    // A server that tells when its answers leave, and a client that is slow.
    bench.run_to(60);
    let server = &bench.client.ntp.as_ref().unwrap().of[0];
    let exchange = |turn, handed| Exchange {
        with: PortIndex(0),
        t1: Stamp {
            handed: Duration::from_nanos(handed),
            ..Stamp::new(mono(0), StampSource::Simulated)
        },
        t2: Time::from_nanos(PATH),
        t3: Time::from_nanos(PATH),
        t4: Stamp::new(mono(2 * PATH), StampSource::Simulated),
        kind: ExchangeKind::Basic,
        turn,
        server: server.said.unwrap(),
        poll: 0,
    };
    let early = |turn, handed| {
        let mut server = server.clone();
        let exchange = exchange(turn, handed);
        server.learn(Duration::ZERO, Duration::ZERO, &exchange);
        server.early(&exchange).as_nanos()
    };
    assert_eq!(early(Turn::Second, 3_000), 3_000);
    assert_eq!(early(Turn::Second, 900_000), 2 * PATH);
    assert_eq!((early(Turn::Alone, 3_000), early(Turn::Second, 0)), (0, 0));
}

#[test]
fn one_that_lies_among_three_is_cast_out_and_told() {
    let mut bench = Bench::new(&[0, 0, 250_000_000], Policy::FollowMajority);
    bench.run_to(60);
    assert!(bench.error().abs() < 10_000, "{}", bench.error());
    assert_eq!(bench.client.standing(), Standing::Confirmed);
    let liar = bench.client.sources(mono(bench.now)).find(|it| it.agrees == Some(false)).unwrap();
    assert_eq!(liar.id, id(address(3).ip()));
    assert_eq!(bench.client.ntp_servers().filter(|it| it.is_leader).count(), 1);
}

#[test]
fn of_two_that_contradict_each_other_none_is_followed_where_the_policy_says_so() {
    let mut bench = Bench::new(&[0, 250_000_000], Policy::Holdover);
    bench.run_to(30);
    assert_eq!(bench.client.standing(), Standing::Open);
}

#[test]
fn servers_that_agree_on_a_lie_are_believed() {
    let mut bench = Bench::new(&[250_000_000; 3], Policy::FollowMajority);
    bench.run_to(60);
    assert!((bench.error() - 250_000_000).abs() < 10_000, "{}", bench.error());
    assert_eq!(bench.client.standing(), Standing::Agreed);
}

#[test]
fn combined_time_is_where_the_narrow_intervals_are() {
    let servers = Bench::new(&[0, 0, 0], Policy::Alarm);
    let ntp = servers.client.ntp.as_ref().unwrap();
    let opinion = |n: u8, middle: i64, half: i64, is_member| NtpOpinion {
        id: id(address(n).ip()),
        interval: Interval {
            lo: Duration::from_nanos(middle - half),
            hi: Duration::from_nanos(middle + half),
        },
        is_member,
    };
    let opinions =
        [opinion(1, 0, 100, true), opinion(2, 300, 300, true), opinion(3, -9_000, 10, false)];
    // Whoever is narrowest of the members leads; a free-running scale that is farther ahead is of a source behind.
    let (leader, shift) = ntp.combine(&opinions, 2, Policy::Alarm, Time::ZERO, None).unwrap();
    assert_eq!((leader, shift.as_nanos()), (0, -75));
    let none = [opinion(1, 0, 100, false), opinion(2, 900, 100, false)];
    assert_eq!(ntp.combine(&none, 1, Policy::Holdover, Time::ZERO, None), None);
    assert_eq!(ntp.combine(&none, 1, Policy::Alarm, Time::ZERO, None), Some((1, Duration::ZERO)));
}
