//! The simulator without a scenario file: clocks, links and nodes as values, time that goes on by as much as is asked
//! for, and switches for what is to go wrong meanwhile. For tests and programs that look at the nodes themselves;
//! what happens in between is the same code as in `lab --simulate`.

use ptp_common::time::{Duration, Mono, Ptp, Time};

use super::{EPOCH, START, World, path::Path};
use crate::{
    clock::followed::Followed,
    engine::{
        Command, LinkState, PortIndex,
        discipline::{Client, Event},
        transmitter::TransmitterConfig,
    },
    sim::scenario::{self, Direction, Noise, Outliers, Scenario},
};

/// The longest detour of a message, nanoseconds.
const DETOUR_NS: f64 = 5e7;

/// Both directions of all links, and what becomes of messages and stamps.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Link {
    /// Delay of the fastest message.
    pub base: Duration,
    /// At the most on top of it, evenly distributed.
    pub jitter: Duration,
    /// Probability that a message is lost.
    pub loss: f64,
    /// Probability that it comes twice.
    pub duplication: f64,
    /// Probability that it takes a detour of up to 50 ms, and so may be overtaken.
    pub reordering: f64,
    /// Probability that the time receiver gets no stamp of an event message that it sends or receives.
    pub missing_stamps: f64,
}

impl Default for Link {
    /// 10 us, always, and nothing goes wrong.
    fn default() -> Self {
        Self {
            base: Duration::from_micros(10),
            jitter: Duration::ZERO,
            loss: 0.0,
            duplication: 0.0,
            reordering: 0.0,
            missing_stamps: 0.0,
        }
    }
}

impl Link {
    fn direction(&self) -> Result<Direction, String> {
        let ns = |span: Duration| span.as_nanos_f64();
        Ok(Direction {
            base_delay_ns: ns(self.base).try_into()?,
            jitter: Noise::Uniform {
                low_ns: 0.0.try_into()?,
                high_ns: ns(self.jitter).try_into()?,
            },
            loss: self.loss.try_into()?,
            duplication: self.duplication.try_into()?,
            outliers: Some(Outliers {
                probability: self.reordering.try_into()?,
                delay: Noise::Uniform { low_ns: 0.0.try_into()?, high_ns: DETOUR_NS.try_into()? },
            }),
            ..Direction::default()
        })
    }
}

/// A grandmaster.
#[derive(Clone, Debug)]
pub struct Grandmaster {
    /// What it announces, and how often it sends. The first byte of its identity is its number, from 1.
    pub config: TransmitterConfig,
    /// Its time at the start minus [`Network::EPOCH`].
    pub ahead: Duration,
    /// How much too fast its oscillator is, parts per billion.
    pub drift_ppb: f64,
    /// The time receiver's port at the other end of its link.
    pub heard_on: PortIndex,
    /// What it keeps to itself all the time.
    pub silences: Option<scenario::Silence>,
}

/// A time receiver and the grandmasters that it hears, each named by its place in the list. See the module's paragraph.
pub struct Network {
    world: World,
}

impl Network {
    /// What the monotonic clock of the time receiver shows at the start; it is right.
    pub const START: Time<Mono> = START;
    /// The true time then.
    pub const EPOCH: Time<Ptp> = EPOCH;

    /// All nodes begin now, [`Self::START`]. `seed` is of what is drawn: losses and delays.
    ///
    /// # Errors
    /// A value that no scenario may have, or no grandmaster.
    pub fn new(
        seed: u64,
        client: Client<Followed>,
        grandmasters: Vec<Grandmaster>,
        link: Link,
    ) -> Result<Self, String> {
        if grandmasters.is_empty() {
            return Err("no grandmaster".into());
        }
        let mut scenario = Scenario::two_nodes(0.0, 0.0, 0, seed);
        scenario.grandmaster = grandmasters.iter().map(settings).collect::<Result<_, _>>()?;
        let mut world = World::around(&scenario, |_| client);
        for (node, Grandmaster { config, heard_on, .. }) in
            world.grandmasters.iter_mut().zip(grandmasters)
        {
            node.configure(config, START);
            node.heard_on = heard_on;
        }
        world.told = Some(Vec::new());
        let mut network = Self { world };
        network.set_link(link)?;
        Ok(network)
    }

    /// Links are so from now on.
    ///
    /// # Errors
    /// A value that no scenario may have.
    pub fn set_link(&mut self, link: Link) -> Result<(), String> {
        let direction = link.direction()?;
        let missing_stamps = scenario::Probability::try_from(link.missing_stamps)?;
        for gm in &mut self.world.grandmasters {
            gm.forward = Path::new(&direction);
            gm.backward = Path::new(&direction);
        }
        self.world.host.missing_stamps = missing_stamps.get();
        Ok(())
    }

    /// The link of the time receiver's port comes up or goes down.
    pub fn set_link_state(&mut self, port: PortIndex, state: LinkState) {
        let now = self.world.client_now();
        self.world.client.handle_link(now, port, state);
    }

    /// A grandmaster neither sends nor hears from now on; its clock goes on.
    pub fn switch_off(&mut self, n: usize) {
        self.world.grandmasters[n].is_off = true;
    }

    /// It goes on where it was.
    pub fn switch_on(&mut self, n: usize) {
        self.world.grandmasters[n].is_off = false;
    }

    /// A grandmaster forgets everything but its time, and begins anew.
    pub fn restart(&mut self, n: usize) {
        let now = self.world.gm_now(n);
        self.world.grandmasters[n].restart(now);
    }

    /// Time goes on.
    pub fn run_for(&mut self, span: Duration) {
        let world = &mut self.world;
        let end_ns = world.now_ns.saturating_add(span.as_nanos().max(0));
        world.drain();
        loop {
            let next_ns = world.next_event_ns();
            if next_ns > end_ns {
                break;
            }
            world.turn(next_ns);
        }
        world.now_ns = end_ns;
    }

    /// The time receiver.
    pub const fn client(&self) -> &Client<Followed> {
        &self.world.client
    }

    /// What the time receiver has said so far, in its order.
    pub fn told(&self) -> &[Command<Event>] {
        self.world.told.as_deref().unwrap_or_default()
    }

    /// The same, which is then forgotten.
    pub fn take_told(&mut self) -> Vec<Command<Event>> {
        self.world.told.replace(Vec::new()).unwrap_or_default()
    }

    /// The time receiver's clock minus that of a grandmaster, now.
    pub fn true_error(&mut self, n: usize) -> Duration {
        self.world.error(n)
    }
}

fn settings(grandmaster: &Grandmaster) -> Result<scenario::Grandmaster, String> {
    let always = |silences| scenario::Outage {
        from_s: scenario::Instant::default(),
        to_s: scenario::Instant::MAX,
        silences,
        every_s: None,
        count: None,
    };
    Ok(scenario::Grandmaster {
        oscillator: scenario::OscillatorSettings {
            frequency_ppb: grandmaster.drift_ppb.try_into()?,
            ..Default::default()
        },
        // Its stamps are of another time from the start; its timers are not.
        time_steps: vec![scenario::TimeStep {
            at_s: scenario::Instant::default(),
            by_ns: grandmaster.ahead.as_nanos_f64().try_into()?,
            every_s: None,
            count: None,
        }],
        outages: grandmaster.silences.map(always).into_iter().collect(),
        ..Default::default()
    })
}
