//! Grandmasters, and the boundary clocks between them and their link: the real transmitter, the time that
//! it serves, and when it is silent.

use ptp_common::{
    time::{Duration, Mono, Ptp, Time},
    wire::{
        Body, ClockAccuracy, ClockIdentity, Flags, Message, MessageType, TimeInterval, Timestamp,
    },
};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

use super::{host::Host, path::Path, windows::Windows};
use crate::{
    engine::{
        Datagram, PortIndex,
        transmitter::{Transmitter, TransmitterConfig},
    },
    sim::{
        noise::normal,
        oscillator::Oscillator,
        scenario::{BoundaryClock, Grandmaster as Settings, Silence},
    },
};

/// Steps of a boundary clock's wander in its time constant.
const WANDER_STEPS: f64 = 64.0;

/// What a boundary clock is off.
struct Wander {
    settings: BoundaryClock,
    rng: ChaCha8Rng,
    step_ns: f64,
    /// The step that holds the present, and the values at its ends.
    step: f64,
    ends: [f64; 2],
}

impl Wander {
    fn new(settings: BoundaryClock, seed: u64) -> Self {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let start = settings.wander_ns.get() * normal(&mut rng);
        let step_ns = settings.time_constant_s.get() * 1e9 / WANDER_STEPS;
        let mut wander = Self { settings, rng, step_ns, step: 0.0, ends: [start; 2] };
        wander.ends[1] = wander.next();
        wander
    }

    fn next(&mut self) -> f64 {
        let kept = (-1.0 / WANDER_STEPS).exp();
        let fresh = self.settings.wander_ns.get() * (1.0 - kept * kept).sqrt();
        kept * self.ends[1] + fresh * normal(&mut self.rng)
    }

    fn at(&mut self, now_ns: i64) -> f64 {
        let at = now_ns as f64 / self.step_ns;
        while at >= self.step + 1.0 {
            self.step += 1.0;
            self.ends = [self.ends[1], self.next()];
        }
        let [from, to] = self.ends;
        self.settings.offset_ns.get() + from + (to - from) * (at - self.step).clamp(0.0, 1.0)
    }
}

/// See the module's paragraph.
pub(super) struct Grandmaster {
    config: TransmitterConfig,
    pub(super) transmitter: Transmitter,
    pub(super) oscillator: Oscillator,
    pub(super) host: Host,
    pub(super) forward: Path,
    pub(super) backward: Path,
    /// The client's port at the other end.
    pub(super) heard_on: PortIndex,
    /// It neither sends nor hears until this is changed.
    pub(super) is_off: bool,
    /// When it neither sends nor hears.
    silent: Windows,
    muted: Vec<(Silence, Windows)>,
    /// When its time was set, seconds, and by how much altogether until then, nanoseconds.
    time_steps: Vec<(f64, f64)>,
    boundary_clocks: Vec<Wander>,
    steps_removed: u16,
    pub(super) is_one_step: bool,
    follow_up_loss: f64,
    pub(super) last: Time<Mono>,
}

impl Grandmaster {
    /// `seed` is of its oscillator, `extra` of all that not every grandmaster has.
    pub(super) fn new(
        settings: &Settings,
        identity: ClockIdentity,
        start: Time<Mono>,
        seed: u64,
        extra: &mut ChaCha8Rng,
    ) -> Self {
        let mut config = TransmitterConfig::new(identity);
        config.priority1 = settings.priority1;
        config.clock_quality.clock_class = settings.clock_class;
        config.clock_quality.clock_accuracy = ClockAccuracy(settings.clock_accuracy);
        config.log_sync_interval = settings.log_sync_interval.get();
        config.log_min_delay_req_interval = settings.log_min_delay_req_interval.get();
        config.log_announce_interval = settings.log_announce_interval.get();
        let backward = settings.link.backward.as_ref().unwrap_or(&settings.link.forward);
        let outages = |silence: Silence| {
            let outages = settings.outages.iter().filter(move |each| each.silences == silence);
            outages.map(|outage| [outage.from_s.get(), outage.to_s.get()])
        };
        let restarts = settings.restarts.iter().map(|restart| {
            let at_s = restart.at_s.get();
            ([at_s, at_s + restart.silent_s.get()], restart.by_ns.get())
        });
        let mut set: Vec<(f64, f64)> = settings
            .time_steps
            .iter()
            .map(|step| (step.at_s.get(), step.by_ns.get()))
            .chain(restarts.clone().map(|([_, to_s], by_ns)| (to_s, by_ns)))
            .collect();
        set.sort_by(|a, b| a.0.total_cmp(&b.0));
        let mut sum = 0.0;
        for (_, by_ns) in &mut set {
            sum += *by_ns;
            *by_ns = sum;
        }
        let muted = [Silence::Sync, Silence::FollowUp, Silence::Announce, Silence::DelayResp];
        Self {
            transmitter: Transmitter::new(config.clone(), start),
            config,
            oscillator: Oscillator::new(&settings.oscillator, seed),
            host: Host::new(&settings.host, &[], extra.random()),
            forward: Path::new(&settings.link.forward),
            backward: Path::new(backward),
            heard_on: PortIndex(0),
            is_off: false,
            silent: Windows::new(outages(Silence::All).chain(restarts.map(|(span, _)| span))),
            muted: muted.map(|silence| (silence, Windows::new(outages(silence)))).to_vec(),
            time_steps: set,
            boundary_clocks: settings
                .boundary_clocks
                .iter()
                .map(|clock| Wander::new(*clock, extra.random()))
                .collect(),
            steps_removed: u16::from(settings.steps_removed)
                + settings.boundary_clocks.len() as u16,
            is_one_step: settings.one_step,
            follow_up_loss: settings.follow_up_loss.get(),
            last: start,
        }
    }

    pub(super) fn is_alive(&self, now_s: f64) -> bool {
        !self.is_off && !self.silent.contains(now_s)
    }

    /// It is another one, and begins at `now`.
    pub(super) fn configure(&mut self, config: TransmitterConfig, now: Time<Mono>) {
        self.config = config;
        self.restart(now);
    }

    /// It has forgotten everything but its time.
    pub(super) fn restart(&mut self, now: Time<Mono>) {
        self.transmitter = Transmitter::new(self.config.clone(), now);
    }

    /// By how much its time was set since the start.
    pub(super) fn time_set_ns(&self, now_s: f64) -> f64 {
        let begun = self.time_steps.partition_point(|(at_s, _)| *at_s <= now_s);
        begun.checked_sub(1).map_or(0.0, |step| self.time_steps[step].1)
    }

    /// What the boundary clocks are off altogether.
    pub(super) fn boundary_ns(&mut self, now_ns: i64) -> f64 {
        self.boundary_clocks.iter_mut().map(|clock| clock.at(now_ns)).sum()
    }

    /// What its stamps say more than its oscillator.
    pub(super) fn served_ns(&mut self, now_ns: i64) -> f64 {
        self.time_set_ns(now_ns as f64 * 1e-9) + self.boundary_ns(now_ns)
    }

    /// The message as it is sent, if it is.
    pub(super) fn filter(
        &self,
        now_s: f64,
        message: Datagram,
        extra: &mut ChaCha8Rng,
    ) -> Option<Datagram> {
        let Ok(parsed) = Message::parse(&message) else { return Some(message) };
        let kind = parsed.message_type();
        let is_muted = self.muted.iter().any(|(silence, windows)| {
            let concerns = match silence {
                Silence::All => true,
                Silence::Sync => matches!(kind, MessageType::Sync | MessageType::FollowUp),
                Silence::FollowUp => kind == MessageType::FollowUp,
                Silence::Announce => kind == MessageType::Announce,
                Silence::DelayResp => kind == MessageType::DelayResp,
            };
            concerns && windows.contains(now_s)
        });
        if is_muted {
            return None;
        }
        match parsed.body {
            Body::FollowUp { .. } if self.follow_up_loss > 0.0 => {
                (!extra.random_bool(self.follow_up_loss)).then_some(message)
            }
            Body::Announce(mut announce) if self.steps_removed > 0 => {
                announce.steps_removed = self.steps_removed;
                // The grandmaster is another clock than the one that is heard. The first byte is the
                // number in the scenario.
                announce.grandmaster_identity.0[7] = 0xaa;
                Some(Datagram::new(parsed.header, Body::Announce(announce)))
            }
            _ => Some(message),
        }
    }
}

/// A Sync that carries its own stamp.
pub(super) fn one_step(message: Datagram, sent: Time<Ptp>) -> Datagram {
    let Ok(parsed) = Message::parse(&message) else { return message };
    let mut header = parsed.header;
    let (origin_timestamp, fraction) = Timestamp::from_time(sent);
    header.flags = header.flags.with(Flags::TWO_STEP, false);
    header.correction = fraction;
    Datagram::new(header, Body::Sync { origin_timestamp })
}

/// What transparent clocks make of a message.
pub(super) fn corrected(message: Datagram, by_ns: f64) -> Datagram {
    if by_ns == 0.0 {
        return message;
    }
    let Ok(parsed) = Message::parse(&message) else { return message };
    let mut header = parsed.header;
    let sum = Duration::from(header.correction) + Duration::from_nanos_f64(by_ns);
    header.correction = TimeInterval::from(sum);
    Datagram::new(header, parsed.body)
}
