//! The simulated network: grandmasters and a time receiver, all real code, joined by links, on
//! oscillators that only the simulator knows the truth about. It jumps from one event to the next.

use std::{cmp::Ordering, collections::BinaryHeap};

use ptp_common::{
    time::{Duration, Mono, Ptp, Time},
    wire::ClockIdentity,
};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

use super::{
    kernel::SimulatedKernel,
    noise::Source,
    oscillator::Oscillator,
    scenario::{Direction, Host, Outage, RouteChange, Scenario, SteeredClock},
};
use crate::{
    clock::{Clock, followed::Followed, policy::Limits, system::SystemClock},
    engine::{
        Datagram, PortIndex, TxToken,
        client::{Client, Event},
        receiver::{Action, ReceiverConfig},
        transmitter::{Transmitter, TransmitterConfig},
    },
    servo::{Servo, ServoState, Trust},
    stamp::{Stamp, StampSource},
};

const PORT: PortIndex = PortIndex(0);
/// The index of the time receiver among the nodes; grandmasters are counted from zero.
const CLIENT: usize = usize::MAX;
/// What an undisturbed monotonic clock shows at the start.
const START: Time<Mono> = Time::from_nanos(1_000_000_000_000);
/// What a right clock shows at the start.
const EPOCH: Time<Ptp> = Time::from_seconds_nanos(1_700_000_000, 0);
/// From the departure of an event message to the news of its stamp.
const STAMP_LATENCY_NS: i64 = 20_000;
/// Longest detour of a packet that is overtaken.
const DETOUR_NS: f64 = 1e8;
/// A sample of the clock's error every so often at the start, whatever the scenario says, so that
/// convergence is timed to a tenth of a second.
const FINE_NS: i64 = 100_000_000;
/// For so long.
const FINE_UNTIL_NS: i64 = 120_000_000_000;

/// The truth at one instant.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Truth {
    /// True time since the start, seconds.
    pub at_s: f64,
    /// Clock minus the grandmaster that is, or was last, followed; nanoseconds.
    pub error_ns: f64,
    /// What the servo took it for at the last Sync; `None` before the first estimate.
    pub offset_ns: Option<f64>,
    /// How far the clock can be trusted, as the servo says; `None` where it says nothing.
    pub trust: Option<Trusted>,
    /// State of the servo.
    pub state: ServoState,
}

/// What a servo says about the error, nanoseconds.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Trusted {
    /// Bound on its magnitude.
    pub bound_ns: f64,
    /// The spread alone.
    pub precision_ns: f64,
    /// Where it can be by causality: the least and the most.
    pub interval_ns: [f64; 2],
    /// The estimate had left the interval.
    pub is_clipped: bool,
}

impl Trusted {
    fn new(trust: &Trust) -> Self {
        Self {
            bound_ns: trust.bound.as_nanos_f64(),
            precision_ns: trust.precision.as_nanos_f64(),
            interval_ns: [trust.interval.lo, trust.interval.hi].map(Duration::as_nanos_f64),
            is_clipped: trust.is_clipped,
        }
    }

    /// Half of the interval's width.
    pub fn half_width_ns(&self) -> f64 {
        (self.interval_ns[1] - self.interval_ns[0]) / 2.0
    }
}

impl Truth {
    /// Bound on the magnitude of the error, where there is one.
    pub fn bound_ns(&self) -> Option<f64> {
        self.trust.map(|trust| trust.bound_ns)
    }

    /// Whether the error is within the bound, where there is one.
    pub fn is_within_bound(&self) -> Option<bool> {
        self.trust.map(|trust| self.error_ns.abs() <= trust.bound_ns)
    }
}

/// What a run has left behind.
#[derive(Debug, Default)]
pub(super) struct Course {
    /// At the scenario's interval.
    pub(super) truth: Vec<Truth>,
    /// Over the first two minutes, ten per second.
    pub(super) start: Vec<Truth>,
    /// Steps of the clock: when, seconds, and by how much, nanoseconds.
    pub(super) steps: Vec<(f64, f64)>,
    /// Sync messages that were used.
    pub(super) samples: u64,
    /// Changes of the grandmaster that is followed.
    pub(super) changes: u64,
}

struct Path {
    settings: Direction,
    jitter: Source,
    outliers: Option<(f64, Source)>,
    routes: Vec<RouteChange>,
}

impl Path {
    fn new(settings: &Direction) -> Self {
        Self {
            jitter: Source::new(&settings.jitter),
            outliers: settings
                .outliers
                .as_ref()
                .map(|outliers| (outliers.probability.get(), Source::new(&outliers.delay))),
            routes: settings.route_changes.clone(),
            settings: settings.clone(),
        }
    }

    /// The delay of a packet that leaves now.
    fn draw(&mut self, now_s: f64, rng: &mut ChaCha8Rng) -> f64 {
        let route = self.routes.iter().rev().find(|route| route.at_s.get() <= now_s);
        let mut delay =
            route.map_or(self.settings.base_delay_ns, |route| route.base_delay_ns).get();
        delay += self.jitter.draw(now_s, rng);
        if let Some((probability, source)) = &mut self.outliers
            && rng.random_bool(*probability)
        {
            delay += source.draw(now_s, rng);
        }
        if self.settings.reordering.get() > 0.0 && rng.random_bool(self.settings.reordering.get()) {
            delay += DETOUR_NS * rng.random::<f64>();
        }
        delay.max(0.0)
    }
}

struct Stamps {
    receive: Source,
    transmit: Source,
}

impl Stamps {
    fn new(host: &Host) -> Self {
        Self { receive: Source::new(&host.receive), transmit: Source::new(&host.transmit) }
    }
}

struct Grandmaster {
    transmitter: Transmitter,
    oscillator: Oscillator,
    stamps: Stamps,
    forward: Path,
    backward: Path,
    outages: Vec<Outage>,
    last: Time<Mono>,
}

impl Grandmaster {
    fn is_alive(&self, now_s: f64) -> bool {
        !self.outages.iter().any(|outage| (outage.from_s.get()..outage.to_s.get()).contains(&now_s))
    }
}

#[derive(Debug)]
enum Happening {
    Arrives {
        to: usize,
        event_stamp_ns: Option<f64>,
        bytes: Datagram,
    },
    /// `at` is the local reading since the start.
    Stamped {
        by: usize,
        token: TxToken,
        at: Duration,
    },
}

#[derive(Debug)]
struct Entry {
    at_ns: i64,
    order: u64,
    what: Happening,
}

impl PartialEq for Entry {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}
impl Eq for Entry {}
impl PartialOrd for Entry {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}
impl Ord for Entry {
    /// The earliest is the greatest.
    fn cmp(&self, other: &Self) -> Ordering {
        (other.at_ns, other.order).cmp(&(self.at_ns, self.order))
    }
}

/// The network.
pub(super) struct World {
    now_ns: i64,
    rng: ChaCha8Rng,
    grandmasters: Vec<Grandmaster>,
    client: Client<Followed>,
    /// Whose clock the client steers, if that is not a software clock.
    kernel: Option<SimulatedKernel>,
    oscillator: Oscillator,
    stamps: Stamps,
    client_last: Time<Mono>,
    followed: usize,
    /// The latest estimate.
    offset_ns: Option<f64>,
    queue: BinaryHeap<Entry>,
    order: u64,
    course: Course,
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
        let mut seeds = ChaCha8Rng::seed_from_u64(scenario.seed);
        let mut oscillator = scenario.time_receiver.oscillator.clone();
        // The offset is the clock's that follows; its monotonic scale needs none.
        let offset = Duration::from_nanos_f64(std::mem::take(&mut oscillator.offset_ns).get());
        let (clock, kernel) = followed(scenario.time_receiver.clock, EPOCH + offset);
        let config = ReceiverConfig::new(identity(0xcb), seeds.random());
        let oscillator = Oscillator::new(&oscillator, seeds.random());
        let grandmasters = scenario.grandmaster.iter().enumerate().map(|(n, settings)| {
            let mut config = TransmitterConfig::new(identity(n));
            config.priority1 = settings.priority1;
            config.log_sync_interval = settings.log_sync_interval.get();
            config.log_min_delay_req_interval = settings.log_min_delay_req_interval.get();
            config.log_announce_interval = settings.log_announce_interval.get();
            let backward = settings.link.backward.as_ref().unwrap_or(&settings.link.forward);
            Grandmaster {
                transmitter: Transmitter::new(config, START),
                oscillator: Oscillator::new(&settings.oscillator, seeds.random()),
                stamps: Stamps::new(&settings.host),
                forward: Path::new(&settings.link.forward),
                backward: Path::new(backward),
                outages: settings.outages.clone(),
                last: START,
            }
        });
        let grandmasters = grandmasters.collect();
        Self {
            now_ns: 0,
            rng: ChaCha8Rng::seed_from_u64(seeds.random()),
            grandmasters,
            client: Client::new(config, servo, clock, START),
            kernel,
            oscillator,
            stamps: Stamps::new(&scenario.time_receiver.host),
            client_last: START,
            followed: 0,
            offset_ns: None,
            queue: BinaryHeap::new(),
            order: 0,
            course: Course::default(),
        }
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

    /// `token` for event messages: stamped on departure here and on arrival there.
    fn send(&mut self, from: usize, bytes: Datagram, token: Option<TxToken>) {
        let now_s = self.now_s();
        let mut departure_ns = self.now_ns;
        if let Some(token) = token {
            let (oscillator, stamps) = match from {
                CLIENT => (&mut self.oscillator, &mut self.stamps),
                n => {
                    let gm = &mut self.grandmasters[n];
                    (&mut gm.oscillator, &mut gm.stamps)
                }
            };
            let phase_ns = oscillator.phase_ns(self.now_ns) + oscillator.reading_noise_ns();
            let at = after(Duration::ZERO, self.now_ns, phase_ns);
            // A stamp is of now; the packet leaves later by its error.
            departure_ns += stamps.transmit.draw(now_s, &mut self.rng).max(0.0).round() as i64;
            let news_ns = departure_ns + STAMP_LATENCY_NS;
            self.later(news_ns, Happening::Stamped { by: from, token, at });
        }
        match from {
            CLIENT => {
                for n in 0..self.grandmasters.len() {
                    self.carry(from, n, departure_ns, bytes, token.is_some());
                }
            }
            n => self.carry(n, CLIENT, departure_ns, bytes, token.is_some()),
        }
    }

    fn carry(&mut self, from: usize, to: usize, departure_ns: i64, bytes: Datagram, event: bool) {
        let now_s = self.now_s();
        let path = match to {
            CLIENT => &mut self.grandmasters[from].forward,
            n => &mut self.grandmasters[n].backward,
        };
        let loss = path.settings.loss.get();
        if loss > 0.0 && self.rng.random_bool(loss) {
            return;
        }
        let duplication = path.settings.duplication.get();
        let copies = if duplication > 0.0 && self.rng.random_bool(duplication) { 2 } else { 1 };
        for _ in 0..copies {
            let path = match to {
                CLIENT => &mut self.grandmasters[from].forward,
                n => &mut self.grandmasters[n].backward,
            };
            let mut arrival_ns = departure_ns + path.draw(now_s, &mut self.rng).round() as i64;
            let mut event_stamp_ns = None;
            if event {
                let (oscillator, stamps) = match to {
                    CLIENT => (&mut self.oscillator, &mut self.stamps),
                    n => {
                        let gm = &mut self.grandmasters[n];
                        (&mut gm.oscillator, &mut gm.stamps)
                    }
                };
                arrival_ns += stamps.receive.draw(now_s, &mut self.rng).max(0.0).round() as i64;
                event_stamp_ns = Some(oscillator.reading_noise_ns());
            }
            self.later(arrival_ns, Happening::Arrives { to, event_stamp_ns, bytes });
        }
    }

    fn happen(&mut self, what: Happening) {
        let now_ns = self.now_ns;
        match what {
            Happening::Arrives { to: CLIENT, event_stamp_ns, bytes } => {
                let now = self.client_now();
                let phase_ns = self.oscillator.phase_ns(now_ns);
                let stamp = event_stamp_ns.map(|noise_ns| {
                    Stamp::new(
                        self.client_stamp(mono(now_ns, phase_ns + noise_ns)),
                        StampSource::Simulated,
                    )
                });
                self.client.handle_message(now, PORT, &bytes, stamp);
            }
            Happening::Arrives { to, event_stamp_ns, bytes } => {
                if !self.grandmasters[to].is_alive(self.now_s()) {
                    return;
                }
                let now = self.gm_now(to);
                let gm = &mut self.grandmasters[to];
                let phase_ns = gm.oscillator.phase_ns(now_ns);
                let stamp = event_stamp_ns.map(|noise_ns| ptp(now_ns, phase_ns + noise_ns));
                gm.transmitter.handle_message(now, PORT, &bytes, stamp);
            }
            Happening::Stamped { by: CLIENT, token, at } => {
                let now = self.client_now();
                let time = self.client_stamp(START + at);
                let stamp = Stamp::new(time, StampSource::Simulated);
                self.client.handle_tx_stamp(now, token, Some(stamp));
            }
            Happening::Stamped { by, token, at } => {
                self.grandmasters[by].transmitter.handle_tx_stamp(token, Some(EPOCH + at));
            }
        }
    }

    fn drain(&mut self) {
        for n in 0..self.grandmasters.len() {
            while let Some(action) = self.grandmasters[n].transmitter.next_action() {
                if self.grandmasters[n].is_alive(self.now_s()) {
                    self.act(n, action);
                }
            }
        }
        while let Some(event) = self.client.next_event() {
            match event {
                Event::Engine(Action::ParentChanged { parent: Some(parent) }) => {
                    let n = usize::from(parent.grandmaster_identity.0[0]).saturating_sub(1);
                    self.course.changes += 1;
                    self.followed = n.min(self.grandmasters.len() - 1);
                }
                Event::Engine(action) => self.act(CLIENT, action),
                Event::Sample(sample) => {
                    self.course.samples += 1;
                    self.offset_ns = Some(sample.offset.as_nanos_f64());
                }
                Event::Adjusted { stepped: Some(by), .. } => {
                    self.course.steps.push((self.now_s(), by.as_nanos_f64()));
                }
                _ => {}
            }
        }
    }

    fn act(&mut self, from: usize, action: Action) {
        match action {
            Action::SendEvent { token, message, .. } => self.send(from, message, Some(token)),
            Action::SendGeneral { message, .. } => self.send(from, message, None),
            _ => {}
        }
    }

    fn truth(&mut self) -> Truth {
        let now = self.client_now();
        let gm = &mut self.grandmasters[self.followed];
        let reference = ptp(self.now_ns, gm.oscillator.phase_ns(self.now_ns));
        Truth {
            at_s: self.now_s(),
            error_ns: (self.client.domain_time(now) - reference).as_nanos_f64(),
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
            next = next.min(when(wakeup, now, frequency_ppb, now_ns));
        }
        for n in 0..self.grandmasters.len() {
            if self.grandmasters[n].is_alive(self.now_s())
                && let Some(wakeup) = self.grandmasters[n].transmitter.next_wakeup()
            {
                let now = self.gm_now(n);
                let frequency_ppb = self.grandmasters[n].oscillator.frequency_ppb();
                next = next.min(when(wakeup, now, frequency_ppb, now_ns));
            }
        }
        next.max(now_ns)
    }

    /// To the end of the scenario.
    pub(super) fn run(mut self, scenario: &Scenario) -> Course {
        let nanos = |seconds: f64| (seconds * 1e9) as i64;
        let end_ns = nanos(scenario.duration_s.get());
        let interval_ns = nanos(scenario.sample_interval_s.get()).max(1);
        let (mut next_sample_ns, mut next_fine_ns) = (0, 0);
        self.drain();
        loop {
            let fine_ns = if next_fine_ns <= FINE_UNTIL_NS { next_fine_ns } else { i64::MAX };
            let next = self.next_event_ns().min(next_sample_ns).min(fine_ns);
            if next > end_ns {
                return self.course;
            }
            self.now_ns = next;
            while self.queue.peek().is_some_and(|entry| entry.at_ns <= self.now_ns) {
                if let Some(entry) = self.queue.pop() {
                    self.happen(entry.what);
                }
            }
            for n in 0..self.grandmasters.len() {
                if self.grandmasters[n].is_alive(self.now_s()) {
                    let now = self.gm_now(n);
                    self.grandmasters[n].transmitter.poll(now);
                }
            }
            let now = self.client_now();
            self.client.poll(now);
            self.drain();
            if self.now_ns >= next_sample_ns {
                next_sample_ns += interval_ns;
                let truth = self.truth();
                self.course.truth.push(truth);
            }
            if self.now_ns >= fine_ns {
                next_fine_ns += FINE_NS;
                let truth = self.truth();
                self.course.start.push(truth);
            }
        }
    }
}
