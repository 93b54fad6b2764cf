//! Several servers in virtual time: the true error of a steered clock, with losses, copies, forged answers, a restart, and
//! servers that lie, each alone or together.

use super::*;
use crate::{
    Driven,
    clock::{Clock as _, virtual_clock::VirtualClock},
    discipline::{Client, Discipline, Event, Policy, Standing},
    servo::{Choice, Options, ServoState, build},
};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

/// The truth is the monotonic clock and this.
const EPOCH: Duration = Duration::from_secs(1_000);

struct World {
    client: Client<VirtualClock>,
    servers: Vec<Server>,
    rng: ChaCha8Rng,
    /// Of each message.
    loss: f64,
    duplication: f64,
    /// Somebody who answers in the servers' names and does not see the requests.
    is_forged: bool,
    told: Vec<Standing>,
}

impl World {
    fn new(policy: Policy, servers: Vec<Server>) -> Self {
        let mut config = ReceiverConfig::new(identity(0xcc), 7);
        config.on_disagreement = policy;
        config.servers = servers
            .iter()
            .map(|server| ServerConfig {
                log_interval: -3,
                ..ServerConfig::new(Protocol::Csptp, Some(server.address))
            })
            .collect();
        let servo = build(&Choice::default(), &Options::default());
        let wrong = at(0).at_offset(EPOCH + Duration::from_millis(300));
        let clock = VirtualClock::new(at(0), wrong, 500_000.0);
        let client: Driven<Discipline<_>> = Client::new(config, servo, clock, at(0));
        let (rng, told) = (ChaCha8Rng::seed_from_u64(3), Vec::new());
        let (loss, duplication, is_forged) = (0.0, 0.0, false);
        Self { client, servers, rng, loss, duplication, is_forged, told }
    }

    fn collect(&mut self) -> Vec<(SocketAddr, Vec<u8>, SentToken)> {
        let mut requests = Vec::new();
        while let Some(command) = self.client.next_command() {
            match command {
                Command::Send(Transmit {
                    to: crate::Destination::Unicast(Address::Socket(to)),
                    message,
                    token: Some(token),
                    ..
                }) => requests.push((to, message.to_vec(), token)),
                Command::Event(Event::Standing { new, .. }) => self.told.push(new),
                _ => {}
            }
        }
        requests
    }

    fn hear(&mut self, now: Time<Mono>, from: SocketAddr, bytes: &[u8]) {
        let stamp = Some(Stamp::new(now, StampSource::Simulated));
        let from = Some(Address::Socket(from));
        let input = Input::Message { on: PORT, from, bytes, stamp };
        self.client.handle(now, &Monotonic::default(), input);
        drop(self.collect());
    }

    fn run(&mut self, until: Time<Mono>) {
        while let Some(now) = self.client.next_wakeup().filter(|now| *now <= until) {
            self.client.poll(now);
            for (to, request, token) in self.collect() {
                let left = now + Duration::from_micros(5);
                self.client.handle_tx_stamp(
                    left,
                    token,
                    Some(Stamp::new(left, StampSource::Simulated)),
                );
                drop(self.collect());
                let path = Duration::from_nanos(self.rng.random_range(9_000..11_000));
                let is_lost = self.rng.random_bool(self.loss);
                let server = self.servers.iter_mut().find(|each| each.address == to);
                let Some(server) = server.filter(|_| !is_lost) else { continue };
                server.path = path;
                let answers = server.answer(left, &request);
                for (message, arrival) in answers {
                    if self.is_forged {
                        let mut forged = message.clone();
                        forged[31] = self.rng.random();
                        self.hear(arrival - Duration::from_micros(5), to, &forged);
                        let elsewhere = server_at(250);
                        self.hear(arrival - Duration::from_micros(4), elsewhere, &message);
                    }
                    if !self.rng.random_bool(self.loss) {
                        self.hear(arrival, to, &message);
                    }
                    if self.rng.random_bool(self.duplication) {
                        self.hear(arrival + Duration::from_millis(1), to, &message);
                    }
                }
            }
        }
    }

    /// Clock minus truth.
    fn error(&self, now: Time<Mono>) -> Duration {
        self.client.clock().at(now) - now.at_offset(EPOCH)
    }

    fn is_true(&self, now: Time<Mono>) -> bool {
        self.error(now).abs() < Duration::from_micros(2)
    }

    fn followed(&self) -> Option<ClockIdentity> {
        self.client.receiver().parent().map(|parent| parent.set.grandmaster_identity)
    }
}

fn servers(ahead_ns: &[i64]) -> Vec<Server> {
    (1..).zip(ahead_ns).map(|(n, ahead)| Server::new(n, *ahead)).collect()
}

#[test]
fn losses_copies_and_forged_answers_cost_exchanges_and_no_truth() {
    let mut world = World::new(Policy::Alarm, servers(&[0]));
    (world.loss, world.duplication, world.is_forged) = (0.2, 0.3, true);
    world.run(at(30_000));
    assert_eq!(world.client.servo().state(), ServoState::Locked);
    assert!(world.is_true(at(30_000)), "{:?}", world.error(at(30_000)));
    let counters = world.client.receiver().counters(PORT);
    assert!(counters.dropped(Drop::UnansweredRequest) > 20);
    assert!(counters.dropped(Drop::NotAsked) > 200);
}

#[test]
fn a_server_that_starts_again_is_followed_again() {
    let mut world = World::new(Policy::Alarm, servers(&[0]));
    world.run(at(15_000));
    assert!(world.is_true(at(15_000)));
    world.servers[0].is_up = false;
    world.run(at(25_000));
    assert_eq!(world.followed(), None);
    assert_eq!(world.client.servo().state(), ServoState::Holdover);
    // Another process: what it had counted is gone.
    world.servers[0] = Server::new(1, 0);
    world.run(at(35_000));
    assert!(world.is_true(at(35_000)), "{:?}", world.error(at(35_000)));
    assert_eq!(world.client.servo().state(), ServoState::Locked);
}

#[test]
fn one_of_three_that_lies_is_outvoted_and_left() {
    let mut world = World::new(Policy::FollowMajority, servers(&[0, 0, 0]));
    world.run(at(20_000));
    assert_eq!((world.followed(), world.is_true(at(20_000))), (Some(identity(1)), true));
    // By a second: the clock must not follow for a moment.
    world.servers[0].ahead += Duration::from_secs(1);
    for second in 21..60 {
        world.run(at(second * 1_000));
        let error = world.error(at(second * 1_000));
        assert!(error.abs() < Duration::from_micros(50), "{second} s: {error:?}");
    }
    assert_eq!(world.followed(), Some(identity(2)));
    assert!(world.told.contains(&Standing::Confirmed), "{:?}", world.told);
    // It is right again: the first of the list is followed again.
    world.servers[0].ahead = EPOCH;
    world.run(at(120_000));
    assert_eq!(world.followed(), Some(identity(1)));
}

#[test]
fn two_of_three_that_lie_apart_leave_no_majority_and_the_clock_runs_on() {
    for policy in [Policy::Holdover, Policy::FollowMajority] {
        let mut world = World::new(policy, servers(&[0, 0, 0]));
        world.run(at(20_000));
        world.servers[0].ahead += Duration::from_secs(1);
        world.servers[1].ahead += Duration::from_secs(-3);
        world.run(at(50_000));
        assert_eq!(world.client.standing(), Standing::Open, "{policy}");
        assert_eq!(world.client.servo().state(), ServoState::Holdover, "{policy}");
        let error = world.error(at(50_000));
        assert!(error.abs() < Duration::from_micros(50), "{policy}: {error:?}");
    }
}

#[test]
fn two_that_tell_the_same_lie_cannot_be_told_from_two_that_are_right() {
    let mut world = World::new(Policy::Holdover, servers(&[0, 0, 0]));
    world.run(at(20_000));
    world.servers[1].ahead += Duration::from_secs(1);
    world.servers[2].ahead += Duration::from_secs(1);
    world.run(at(50_000));
    // The one that is right is refuted; with this policy nobody is followed then.
    assert_eq!(world.client.standing(), Standing::Refuted);
    assert_eq!(world.client.servo().state(), ServoState::Holdover);
    assert!(world.error(at(50_000)).abs() < Duration::from_micros(50));
}

#[test]
fn another_server_takes_over_within_three_seconds_and_the_clock_stays_true() {
    let mut world = World::new(Policy::Alarm, servers(&[0, 0]));
    world.run(at(20_000));
    world.servers[0].is_up = false;
    world.run(at(23_000));
    assert_eq!(world.followed(), Some(identity(2)));
    world.run(at(33_000));
    assert!(world.is_true(at(33_000)), "{:?}", world.error(at(33_000)));
}

#[test]
fn who_moves_is_asked_at_the_new_place_from_the_beginning() {
    let mut world = World::new(Policy::Alarm, servers(&[0]));
    world.run(at(10_000));
    world.servers[0].address = server_at(77);
    world.client.with(|client, out| {
        let clock = &Monotonic::default();
        let mut cx = crate::Context { now: at(10_000), clock, out };
        client.move_server(&mut cx, 0, Some(server_at(77)), PORT);
    });
    world.run(at(25_000));
    assert_eq!(world.followed(), Some(identity(1)));
    assert!(world.is_true(at(25_000)), "{:?}", world.error(at(25_000)));
}
