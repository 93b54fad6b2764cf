//! The simulated network: grandmasters and a time receiver, all real code, joined by links, on
//! oscillators that only the simulator knows the truth about. It jumps from one event to the next.

use std::collections::BinaryHeap;

use ptp_common::{
    time::{Duration, Mono, Ptp, Time},
    wire::{ClockIdentity, Timestamp},
};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

use self::{
    grandmaster::{Grandmaster, corrected, one_step},
    happening::{Entry, Happening, ReceiveStamp},
    host::{Departure, Host},
    windows::nanos,
};
use super::{
    kernel::SimulatedKernel,
    oscillator::Oscillator,
    scenario::{Scenario, SteeredClock},
};
use crate::{
    clock::{Clock, followed::Followed, policy::Limits, system::SystemClock},
    engine::{
        Change, Command, Datagram, PortIndex, SentToken, Transmit,
        discipline::{Client, Event},
        outcome::Observation,
        receiver::ReceiverConfig,
    },
    servo::Servo,
    stamp::{Stamp, StampSource},
};

mod assault;
mod grandmaster;
mod happening;
mod host;
pub mod network;
mod path;
mod queue;
#[cfg(test)]
mod tests;
mod truth;
mod windows;

use assault::Assault;
pub(super) use assault::{Act, Trick};
use path::Passage;
pub(super) use truth::Course;
pub use truth::{Trusted, Truth};

const PORT: PortIndex = PortIndex(0);
/// The index of the time receiver among the nodes; grandmasters are counted from zero.
const CLIENT: usize = usize::MAX;
/// What an undisturbed monotonic clock shows at the start.
const START: Time<Mono> = Time::from_nanos(1_000_000_000_000);
/// What a right clock shows at the start.
const EPOCH: Time<Ptp> = Time::from_seconds_nanos(1_700_000_000, 0);
/// From the departure of an event message to the news of its stamp.
const STAMP_LATENCY_NS: i64 = 20_000;
/// A sample of the clock's error every so often at the start, whatever the scenario says, so that
/// convergence is timed to a tenth of a second.
const FINE_NS: i64 = 100_000_000;
/// For so long.
const FINE_UNTIL_NS: i64 = 120_000_000_000;

/// The network.
pub(super) struct World {
    now_ns: i64,
    /// For what every scenario has.
    rng: ChaCha8Rng,
    /// For all else, so that what is the same in two scenarios is drawn alike.
    extra: ChaCha8Rng,
    grandmasters: Vec<Grandmaster>,
    client: Client<Followed>,
    /// Whose clock the client steers, if that is not a software clock.
    kernel: Option<SimulatedKernel>,
    oscillator: Oscillator,
    host: Host,
    client_last: Time<Mono>,
    followed: usize,
    /// The error is counted against the grandmaster, not against the boundary clock before it.
    is_against_grandmaster: bool,
    /// The latest estimate.
    offset_ns: Option<f64>,
    queue: BinaryHeap<Entry>,
    order: u64,
    course: Course,
    /// Who does not mean well.
    assault: Option<Assault>,
    /// What the client said, where somebody wants to know.
    told: Option<Vec<Command<Event>>>,
}

fn identity(n: usize) -> ClockIdentity {
    ClockIdentity([n as u8 + 1, 0, 0, 0xff, 0xfe, 0, 0, 1])
}

fn after(epoch: Duration, true_ns: i64, phase_ns: f64) -> Duration {
    epoch + Duration::from_nanos(true_ns) + Duration::from_nanos_f64(phase_ns)
}

fn mono(true_ns: i64, phase_ns: f64) -> Time<Mono> {
    Time::from_epoch(after(START.since_epoch(), true_ns, phase_ns))
}

fn ptp(true_ns: i64, phase_ns: f64) -> Time<Ptp> {
    Time::from_epoch(after(EPOCH.since_epoch(), true_ns, phase_ns))
}

/// The true instant at which a local clock will show `wakeup`, as it runs now; at least 1 ns ahead.
fn when(wakeup: Time<Mono>, local: Time<Mono>, frequency_ppb: f64, now_ns: i64) -> i64 {
    if wakeup <= local {
        return now_ns;
    }
    let ahead = (wakeup - local).as_nanos_f64() / (1.0 + frequency_ppb * 1e-9);
    now_ns.saturating_add((ahead.ceil() as i64).max(1))
}

/// The client's clock, showing `reading` at the start, and where it is the host's, the host's kernel.
fn followed(clock: SteeredClock, reading: Time<Ptp>) -> (Followed, Option<SimulatedKernel>) {
    if clock == SteeredClock::Virtual {
        return (Followed::virtual_at(START, reading), None);
    }
    let kernel = SimulatedKernel::new(START, reading);
    // The simulated time is long before this program was built.
    let limits = Limits { earliest: Time::ZERO, ..Limits::default() };
    let clock = SystemClock::take_over(Box::new(kernel.clone()), limits, None)
        .expect("the simulated kernel refuses nothing");
    (Followed::System(Box::new(clock)), Some(kernel))
}

impl World {
    pub(super) fn new(scenario: &Scenario, servo: Box<dyn Servo>) -> Self {
        let receiver = &scenario.time_receiver;
        let offset = Duration::from_nanos_f64(receiver.oscillator.offset_ns.get());
        let (clock, kernel) = followed(receiver.clock, EPOCH + offset);
        let client = |seed| {
            let config = ReceiverConfig::new(identity(0xcb), seed);
            Client::new(config, servo, clock, START)
        };
        Self { kernel, ..Self::around(scenario, client) }
    }

    /// The network of a scenario, and the client that is made of a seed in the middle of it.
    fn around(scenario: &Scenario, client: impl FnOnce(u64) -> Client<Followed>) -> Self {
        let mut seeds = ChaCha8Rng::seed_from_u64(scenario.seed);
        let client = client(seeds.random());
        let receiver = &scenario.time_receiver;
        // Its offset is the clock's that follows; the monotonic scale has none.
        let oscillator = Oscillator::new(&receiver.oscillator, seeds.random());
        let gm_seeds: Vec<u64> = scenario.grandmaster.iter().map(|_| seeds.random()).collect();
        let rng = ChaCha8Rng::seed_from_u64(seeds.random());
        let mut extra = ChaCha8Rng::seed_from_u64(seeds.random());
        let grandmasters = scenario.grandmaster.iter().zip(gm_seeds).enumerate();
        let grandmasters = grandmasters
            .map(|(n, (settings, seed))| {
                Grandmaster::new(settings, identity(n), START, seed, &mut extra)
            })
            .collect();
        let mut world = Self {
            now_ns: 0,
            rng,
            host: Host::new(&receiver.host, &receiver.suspends, extra.random()),
            extra,
            grandmasters,
            client,
            kernel: None,
            oscillator,
            client_last: START,
            followed: 0,
            is_against_grandmaster: scenario.servo_settings.boundary_clock_error_ns.is_some(),
            offset_ns: None,
            queue: BinaryHeap::new(),
            order: 0,
            course: Course::default(),
            assault: None,
            told: None,
        };
        for (n, settings) in scenario.grandmaster.iter().enumerate() {
            for restart in &settings.restarts {
                let at_s = restart.at_s.get() + restart.silent_s.get();
                world.later(nanos(at_s), Happening::Restarts { n });
            }
        }
        world
    }

    fn now_s(&self) -> f64 {
        self.now_ns as f64 * 1e-9
    }

    /// A local monotonic clock never goes back, whatever its oscillator is made to do.
    fn client_now(&mut self) -> Time<Mono> {
        let raw = mono(self.now_ns, self.oscillator.phase_ns(self.now_ns));
        if let Some(kernel) = &self.kernel {
            kernel.advance(raw);
        }
        let local = self.client_stamp(raw);
        self.client_last = self.client_last.max(local);
        self.client_last
    }

    /// What the client's monotonic clock showed when its oscillator had counted to `raw`.
    fn client_stamp(&self, raw: Time<Mono>) -> Time<Mono> {
        self.kernel.as_ref().map_or(raw, |kernel| kernel.monotonic_at(raw))
    }

    fn gm_now(&mut self, n: usize) -> Time<Mono> {
        let gm = &mut self.grandmasters[n];
        let local = mono(self.now_ns, gm.oscillator.phase_ns(self.now_ns));
        gm.last = gm.last.max(local);
        gm.last
    }

    fn later(&mut self, at_ns: i64, what: Happening) {
        self.order += 1;
        self.queue.push(Entry { at_ns, order: self.order, what });
    }

    /// Through the port `on`. `token` for event messages: stamped on departure here and on arrival there.
    fn send(&mut self, from: usize, on: PortIndex, mut bytes: Datagram, token: Option<SentToken>) {
        let (now_ns, now_s) = (self.now_ns, self.now_s());
        let mut departure_ns = now_ns;
        if let Some(token) = token {
            let (oscillator, host, served_ns) = match from {
                CLIENT => (&mut self.oscillator, &mut self.host, 0.0),
                n => {
                    let gm = &mut self.grandmasters[n];
                    let served_ns = gm.served_ns(now_ns);
                    (&mut gm.oscillator, &mut gm.host, served_ns)
                }
            };
            let phase_ns = oscillator.phase_ns(now_ns) + oscillator.reading_noise_ns();
            let Departure { wire_ns, stamped_ns, error_ns } =
                host.depart(now_ns, phase_ns, &mut self.rng, &mut self.extra);
            let at = after(Duration::ZERO, now_ns, phase_ns + (served_ns + error_ns));
            departure_ns = wire_ns;
            let is_one_step = from != CLIENT && self.grandmasters[from].is_one_step;
            if is_one_step {
                bytes = one_step(bytes, EPOCH + at);
            } else {
                let news_ns = departure_ns.max(stamped_ns) + STAMP_LATENCY_NS;
                let news_ns = self.runs_at(from, news_ns);
                self.later(news_ns, Happening::Stamped { by: from, token, at });
            }
        }
        match from {
            CLIENT => {
                self.host.touch(now_s);
                for n in 0..self.grandmasters.len() {
                    if self.grandmasters[n].heard_on != on {
                        continue;
                    }
                    self.carry(from, n, departure_ns, bytes, token.is_some());
                }
            }
            n => {
                self.grandmasters[n].host.touch(now_s);
                self.carry(n, CLIENT, departure_ns, bytes, token.is_some());
            }
        }
    }

    fn host_mut(&mut self, node: usize) -> &mut Host {
        match node {
            CLIENT => &mut self.host,
            n => &mut self.grandmasters[n].host,
        }
    }

    /// The first instant from `at_ns` on at which a node runs.
    fn runs_at(&mut self, node: usize, at_ns: i64) -> i64 {
        let now_ns = self.now_ns;
        self.host_mut(node).runs_at(now_ns, at_ns)
    }

    fn carry(&mut self, from: usize, to: usize, departure_ns: i64, bytes: Datagram, event: bool) {
        let (now_ns, now_s) = (self.now_ns, self.now_s());
        let (path, on) = match to {
            CLIENT => {
                let gm = &mut self.grandmasters[from];
                (&mut gm.forward, gm.heard_on)
            }
            n => (&mut self.grandmasters[n].backward, PORT),
        };
        for _ in 0..path.copies(now_s, &mut self.rng, &mut self.extra) {
            let path = match to {
                CLIENT => &mut self.grandmasters[from].forward,
                n => &mut self.grandmasters[n].backward,
            };
            let passage = path.pass(now_s, departure_ns, &mut self.rng, &mut self.extra);
            let Some(mut passage) = passage else { continue };
            if self.is_assaulted(to, &mut passage, &bytes, event) {
                continue;
            }
            if !event {
                let at_ns = self.host_mut(to).goes_on_at(now_ns, passage.arrival_ns);
                self.later(at_ns, Happening::Arrives { to, on, stamp: None, bytes });
                continue;
            }
            let (oscillator, host) = match to {
                CLIENT => (&mut self.oscillator, &mut self.host),
                n => {
                    let gm = &mut self.grandmasters[n];
                    (&mut gm.oscillator, &mut gm.host)
                }
            };
            let ahead_s = (passage.arrival_ns - now_ns) as f64 * 1e-9;
            let phase_ns = oscillator.phase_ns(now_ns) + oscillator.frequency_ppb() * ahead_s;
            let (rng, extra) = (&mut self.rng, &mut self.extra);
            let arrival = host.arrive(now_ns, passage.arrival_ns, phase_ns, rng, extra);
            let noise_ns = oscillator.reading_noise_ns() - arrival.early_ns;
            let stamp = Some(ReceiveStamp { noise_ns, bad_ns: arrival.bad_ns });
            let bytes = corrected(bytes, passage.correction_ns);
            self.later(arrival.at_ns, Happening::Arrives { to, on, stamp, bytes });
        }
    }

    /// With somebody in the way who acts by a plan of his own.
    pub(super) fn assaulted(mut self, acts: &[Act], seed: u64) -> Self {
        self.assault = Some(Assault::new(acts.to_vec(), seed));
        self
    }

    /// Lets whoever is in the way do what he does with a message. Whether it is lost.
    fn is_assaulted(
        &mut self,
        to: usize,
        passage: &mut Passage,
        bytes: &Datagram,
        is_event: bool,
    ) -> bool {
        let (now_ns, now_s, n) = (self.now_ns, self.now_s(), self.followed);
        let Some(assault) = &mut self.assault else { return false };
        let gm = &mut self.grandmasters[n];
        let (on, served_ns) = (gm.heard_on, gm.served_ns(now_ns));
        let time = ptp(now_ns, gm.oscillator.phase_ns(now_ns) + served_ns);
        let met = assault.meet(now_s, bytes, is_event, Timestamp::from_time(time).0);
        passage.arrival_ns += met.hold_ns as i64;
        let at_ns = if to == CLIENT { passage.arrival_ns } else { now_ns } + assault::SWIFT_NS;
        for (bytes, is_event) in met.extra {
            let stamp = is_event.then_some(ReceiveStamp { noise_ns: 0.0, bad_ns: 0.0 });
            self.later(at_ns, Happening::Arrives { to: CLIENT, on, stamp, bytes });
        }
        met.is_dropped
    }

    fn happen(&mut self, what: Happening) {
        let (now_ns, now_s) = (self.now_ns, self.now_s());
        match what {
            Happening::Arrives { to: CLIENT, on, stamp, bytes } => {
                if self.host.is_asleep(now_s) {
                    return;
                }
                self.host.touch(now_s);
                let now = self.client_now();
                let phase_ns = self.oscillator.phase_ns(now_ns);
                let stamp = stamp.filter(|_| !self.host.has_no_stamp(&mut self.extra));
                let stamp = stamp.map(|ReceiveStamp { noise_ns, bad_ns }| {
                    let phase_ns = phase_ns + noise_ns;
                    let tick_ns = self.host.to_tick_ns(now_ns as f64 + phase_ns);
                    let raw = mono(now_ns, phase_ns + (tick_ns + bad_ns));
                    Stamp {
                        doubt: self.host.receive_doubt,
                        ..Stamp::new(self.client_stamp(raw), StampSource::Simulated)
                    }
                });
                self.client.handle_message(now, on, &bytes, stamp);
            }
            Happening::Arrives { to, on, stamp, bytes } => {
                if !self.grandmasters[to].is_alive(now_s) {
                    return;
                }
                let now = self.gm_now(to);
                let gm = &mut self.grandmasters[to];
                gm.host.touch(now_s);
                let phase_ns = gm.oscillator.phase_ns(now_ns);
                let served_ns = gm.served_ns(now_ns);
                let stamp = stamp.map(|ReceiveStamp { noise_ns, bad_ns }| {
                    let phase_ns = phase_ns + noise_ns;
                    let tick_ns = gm.host.to_tick_ns(now_ns as f64 + phase_ns);
                    ptp(now_ns, phase_ns + (served_ns + tick_ns + bad_ns))
                });
                gm.transmitter.handle_message(now, on, &bytes, stamp);
            }
            Happening::Stamped { by: CLIENT, token, at } => {
                let now = self.client_now();
                let time = self.client_stamp(START + at);
                let doubt = self.host.transmit_doubt;
                let stamp = Stamp { doubt, ..Stamp::new(time, StampSource::Simulated) };
                let stamp = Some(stamp).filter(|_| !self.host.has_no_stamp(&mut self.extra));
                self.client.handle_tx_stamp(now, token, stamp);
            }
            Happening::Stamped { by, token, at } => {
                self.grandmasters[by].transmitter.handle_tx_stamp(token, Some(EPOCH + at));
            }
            Happening::Restarts { n } => {
                let now = self.gm_now(n);
                self.grandmasters[n].restart(now);
            }
        }
    }

    fn drain(&mut self) {
        for n in 0..self.grandmasters.len() {
            while let Some(command) = self.grandmasters[n].transmitter.next_command() {
                if let Command::Send(transmit) = command
                    && self.grandmasters[n].is_alive(self.now_s())
                {
                    self.transmit(n, &transmit);
                }
            }
        }
        while let Some(command) = self.client.next_command() {
            match &command {
                Command::Changed(Change::Parent(Some(parent))) => {
                    let n = usize::from(parent.set.grandmaster_identity.0[0]).saturating_sub(1);
                    self.course.changes += 1;
                    self.followed = n.min(self.grandmasters.len() - 1);
                }
                Command::Send(transmit) => self.transmit(CLIENT, transmit),
                Command::Measured(measurement) if self.assault.is_some() => {
                    let is_sync = matches!(measurement.observation, Observation::Sync(_));
                    self.course.measured.push((self.now_s(), is_sync));
                }
                Command::Event(Event::Sample(sample)) => {
                    self.course.samples += 1;
                    self.offset_ns = Some(sample.offset.as_nanos_f64());
                }
                Command::Event(Event::Adjusted { stepped: Some(by), .. }) => {
                    self.course.steps.push((self.now_s(), by.as_nanos_f64()));
                }
                _ => {}
            }
            if let Some(told) = &mut self.told {
                told.push(command);
            }
        }
    }

    fn transmit(&mut self, from: usize, transmit: &Transmit) {
        let Transmit { on, message, token, .. } = *transmit;
        let message = match from {
            CLIENT => Some(message),
            n => self.grandmasters[n].filter(self.now_s(), message, &mut self.extra),
        };
        if let Some(message) = message {
            self.send(from, on, message, token);
        }
    }

    /// The client's clock minus that of a grandmaster.
    fn error(&mut self, n: usize) -> Duration {
        let now = self.client_now();
        let gm = &mut self.grandmasters[n];
        let mut set_ns = gm.time_set_ns(self.now_ns as f64 * 1e-9);
        if !self.is_against_grandmaster {
            set_ns += gm.boundary_ns(self.now_ns);
        }
        let reference = ptp(self.now_ns, gm.oscillator.phase_ns(self.now_ns) + set_ns);
        self.client.domain_time(now) - reference
    }

    fn truth(&mut self) -> Truth {
        let now = self.client_now();
        Truth {
            at_s: self.now_s(),
            error_ns: self.error(self.followed).as_nanos_f64(),
            offset_ns: self.offset_ns,
            trust: self.client.trust(now).as_ref().map(Trusted::new),
            state: self.client.servo().state(),
        }
    }

    fn next_event_ns(&mut self) -> i64 {
        let now_ns = self.now_ns;
        let mut next = self.queue.peek().map_or(i64::MAX, |entry| entry.at_ns);
        if let Some(wakeup) = self.client.next_wakeup() {
            let now = self.client_now();
            let steered_ppb =
                self.kernel.as_ref().map_or(0.0, |_| self.client.clock().frequency_ppb());
            let frequency_ppb = self.oscillator.frequency_ppb() + steered_ppb;
            let wakeup_ns = when(wakeup, now, frequency_ppb, now_ns);
            next = next.min(self.runs_at(CLIENT, wakeup_ns));
        }
        for n in 0..self.grandmasters.len() {
            if self.grandmasters[n].is_alive(self.now_s())
                && let Some(wakeup) = self.grandmasters[n].transmitter.next_wakeup()
            {
                let now = self.gm_now(n);
                let frequency_ppb = self.grandmasters[n].oscillator.frequency_ppb();
                let wakeup_ns = when(wakeup, now, frequency_ppb, now_ns);
                next = next.min(self.runs_at(n, wakeup_ns));
            }
        }
        next.max(now_ns)
    }

    /// It is `at_ns`: all that is due happens.
    fn turn(&mut self, at_ns: i64) {
        self.now_ns = at_ns;
        while self.queue.peek().is_some_and(|entry| entry.at_ns <= self.now_ns) {
            if let Some(entry) = self.queue.pop() {
                self.happen(entry.what);
            }
        }
        for n in 0..self.grandmasters.len() {
            let runs = self.grandmasters[n].host.runs(self.now_ns);
            if runs && self.grandmasters[n].is_alive(self.now_s()) {
                let now = self.gm_now(n);
                self.grandmasters[n].transmitter.poll(now);
            }
        }
        if self.host.runs(self.now_ns) {
            let now = self.client_now();
            self.client.poll(now);
        }
        self.drain();
    }

    /// To the end of the scenario.
    pub(super) fn run(mut self, scenario: &Scenario) -> Course {
        self.proceed(scenario);
        self.course
    }

    fn proceed(&mut self, scenario: &Scenario) {
        // Rounded down, so that an end that is a sample's instant has it.
        let whole = |seconds: f64| (seconds * 1e9) as i64;
        let end_ns = whole(scenario.duration_s.get());
        let interval_ns = whole(scenario.sample_interval_s.get()).max(1);
        let (mut next_sample_ns, mut next_fine_ns) = (0, 0);
        self.drain();
        loop {
            let fine_ns = if next_fine_ns <= FINE_UNTIL_NS { next_fine_ns } else { i64::MAX };
            let next = self.next_event_ns().min(next_sample_ns).min(fine_ns);
            if next > end_ns {
                return;
            }
            self.turn(next);
            // Nobody reads the clock of a host that sleeps.
            let is_asleep = self.host.is_asleep(self.now_s());
            if self.now_ns >= next_sample_ns {
                next_sample_ns += interval_ns;
                if !is_asleep {
                    let truth = self.truth();
                    self.course.truth.push(truth);
                }
            }
            if self.now_ns >= fine_ns {
                next_fine_ns += FINE_NS;
                if !is_asleep {
                    let truth = self.truth();
                    self.course.start.push(truth);
                }
            }
        }
    }
}
