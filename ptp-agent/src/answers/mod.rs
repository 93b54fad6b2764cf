//! Answers given by the kernel for a time transmitter (`serve --kernel-answers`): which interfaces have them, what
//! the programs are told of the time and of the ports, and whether an answer really goes out, which is tried
//! before anybody relies on it and every so often after that. Whatever is wrong, requests come to the agent
//! as if there were no such programs.

pub mod beside;
mod exchanges;
mod native;
mod networks;
mod probe;
mod programs;
mod telling;

use std::{
    collections::BTreeMap,
    hash::{BuildHasher as _, Hasher as _, RandomState},
};

use nix::net::if_::if_nametoindex;
use ptp_common::{
    answer::{Outcome, RESPONSE, flag, interface, rate_of_ppb, slot},
    time::{Duration, Mono, Ptp, Time},
    wire::ClockIdentity,
};

pub use crate::engine::prefix::Prefix;
pub use networks::own_networks;
pub use programs::{ANSWERS, InterfaceAddress, OBJECT, Programs};

use crate::{
    capture::CaptureError,
    engine::csptp::{self, AnswerForms},
    publish::snapshot::Answering,
    stamp::StampSource,
    transport::{TransportKind, interface_mac},
};
use native::Native;
use probe::Place;

/// Who answers requests.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Mode {
    /// The kernel at TC where it can, otherwise the agent; by XDP where that may be tried and is measured to be nearer
    /// to the wire.
    #[default]
    Auto,
    /// The kernel at TC; without it nothing starts.
    Tc,
    /// The kernel by XDP in the driver; where that does not do, at TC.
    Xdp,
    /// The agent.
    Off,
}

impl Mode {
    /// The name on the command line.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Auto => "auto",
            Self::Tc => "tc",
            Self::Xdp => "xdp",
            Self::Off => "off",
        }
    }
}

/// How much is answered.
#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    /// Who answers.
    pub mode: Mode,
    /// Whether [`Mode::Auto`] may put a program into the driver to see whether that is better: it resets the queues of
    /// many cards.
    pub tries_xdp: bool,
    /// Whether nobody is answered at TC: another program hears requests before it.
    pub xdp_alone: bool,
    /// Of each processor, answers per second in all.
    pub per_second: u32,
    /// Of one client, answers per second.
    pub per_client: u32,
    /// To one address outside the interface's own networks and `serve_to`, answers per second.
    pub per_stranger: u32,
    /// Only these are answered; all, if there are none.
    pub serve_to: Vec<Prefix>,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            mode: Mode::Auto,
            tries_xdp: false,
            xdp_alone: false,
            per_second: 250_000,
            per_client: 256,
            per_stranger: 1_024,
            serve_to: Vec::new(),
        }
    }
}

/// Which time is served at present.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Served {
    /// At this instant,
    pub mono: Time<Mono>,
    /// the served clock shows this.
    pub time: Time<Ptp>,
    /// It is faster than CLOCK_MONOTONIC by so much, parts per billion.
    pub rate_ppb: f64,
    /// CLOCK_REALTIME minus CLOCK_MONOTONIC.
    pub real_minus_mono: Duration,
    /// CLOCK_TAI minus CLOCK_MONOTONIC.
    pub tai_minus_mono: Duration,
}

/// What a port answers.
#[derive(Clone, Debug)]
pub struct PortAnswers {
    /// Its Delay_Resp, with the TLV of brackets if there is one.
    pub response: Vec<u8>,
    /// Of its messages.
    pub domain: u8,
    /// Of its messages.
    pub sdo_id: u16,
    /// Between the wire and the receive stamp.
    pub latency: Duration,
    /// Between the transmit stamp and the wire.
    pub egress_latency: Duration,
    /// Its answers of CSPTP and SPTP.
    pub forms: Option<AnswerForms>,
}

/// Until the agent says again that it is there.
const VALID: Duration = Duration::from_secs(2);
/// Between two times that it says so, while nothing changes.
const HEARTBEAT: Duration = Duration::from_millis(250);
/// Between two trials of what works.
const PROVE: Duration = Duration::from_secs(30);
/// Between two trials of what does not.
const TRY_AGAIN: Duration = Duration::from_secs(5);
/// Answers that may be given at once, as a share of a second.
const BURST_NS: u64 = 100_000_000;
/// The same of one client: it sends at random, and catches up.
const CLIENT_BURST_NS: u64 = 250_000_000;
const SECOND_NS: u64 = 1_000_000_000;

/// How the answers of a port stand.
#[derive(Clone, Debug, PartialEq, Eq)]
enum State {
    /// Given by the kernel, which was seen to.
    Proven,
    /// To be tried.
    Trial,
    /// Given by the agent, and why.
    Off(String),
}

#[derive(Debug)]
struct Port {
    interface: String,
    ifindex: u32,
    /// It is a time transmitter's, as far as was told.
    told: Option<[u64; interface::LENGTH]>,
    state: State,
    prove_at: Time<Mono>,
    /// Others' programs that packets pass first.
    in_front: Vec<u32>,
    sequence_id: u16,
    /// Why exchanges of two messages are left to the agent.
    no_exchanges: Option<String>,
    /// How it stands with XDP, in front of all this.
    native: Native,
}

/// See the module's paragraph.
pub struct Answers {
    config: Config,
    transport: TransportKind,
    is_stack: bool,
    programs: Programs,
    ports: Vec<Port>,
    seed: u64,
    probe: ClockIdentity,
    told: Option<(Time<Mono>, Served)>,
    has_brackets: bool,
}

impl Answers {
    /// Loads the programs. Nothing is answered before the first [`Answers::look_after`]. `is_stack`: by the stack's
    /// own stamp, which is taken before any program at TC runs and so is nearer to the wire than a clock that
    /// is read there; where a packet has none the clock is read.
    ///
    /// # Errors
    /// What the kernel lacks.
    pub fn open(
        config: Config,
        interfaces: &[String],
        transport: TransportKind,
        is_stack: bool,
        exchanges: csptp::Answers,
    ) -> Result<Self, CaptureError> {
        let mut programs = Programs::load()?;
        let wants_xdp = config.mode == Mode::Xdp || (config.mode == Mode::Auto && config.tries_xdp);
        let loaded = if wants_xdp { programs.load_native() } else { Ok(()) };
        let native = Native::new(wants_xdp, loaded);
        let is_wanted = exchanges != csptp::Answers::default();
        if is_wanted && let Err(error) = programs.load_exchanges() {
            tracing::info!(%error, "CSPTP and SPTP are answered by the agent");
        }
        let mut ports = Vec::new();
        for name in interfaces {
            ports.push(Port {
                interface: name.clone(),
                ifindex: 0,
                told: None,
                state: State::Trial,
                prove_at: Time::ZERO,
                in_front: Vec::new(),
                sequence_id: 0,
                no_exchanges: None,
                native: native.clone(),
            });
        }
        // The standard library's, which nobody can know: the trials' answers are known by it.
        let seed = RandomState::new().build_hasher().finish();
        let mix = |word: u64| (seed ^ word).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let probe = ClockIdentity((mix(1) ^ mix(2) >> 31).to_be_bytes());
        let seed = mix(3) ^ mix(4) >> 29;
        let (told, has_brackets) = (None, false);
        Ok(Self { config, transport, is_stack, programs, ports, seed, probe, told, has_brackets })
    }

    /// Tells the programs which time it is, and that the agent is there. Does little where nothing has changed.
    pub fn tell(&mut self, now: Time<Mono>, served: &Served) {
        if let Some((at, before)) = &self.told
            && now - *at < HEARTBEAT
            && before.real_minus_mono == served.real_minus_mono
            && before.tai_minus_mono == served.tai_minus_mono
        {
            return;
        }
        self.told = Some((now, *served));
        self.tell_now(now, served);
    }

    fn tell_now(&mut self, now: Time<Mono>, served: &Served) {
        let nanos = |duration: Duration| duration.as_nanos() as u64;
        let cost = |per_second: u32| SECOND_NS / u64::from(per_second.max(1));
        let mut numbers = [0; slot::LENGTH];
        let mut flags = 0;
        if !self.config.serve_to.is_empty() {
            flags |= flag::PREFIXES_ONLY;
        }
        if self.has_brackets {
            flags |= flag::BRACKETS;
        }
        for (number, value) in [
            (slot::UNTIL, nanos((now + VALID).since_epoch())),
            (slot::BASE_MONO, nanos(served.mono.since_epoch())),
            (slot::BASE_TIME, nanos(served.time.since_epoch())),
            (slot::RATE, rate_of_ppb(served.rate_ppb) as u64),
            (slot::TAI_MINUS_MONO, nanos(served.tai_minus_mono)),
            (slot::REAL_MINUS_MONO, nanos(served.real_minus_mono)),
            (slot::FLAGS, flags),
            (slot::TOTAL_COST, cost(self.config.per_second)),
            (slot::TOTAL_BURST, BURST_NS),
            (slot::CLIENT_COST, cost(self.config.per_client)),
            (slot::CLIENT_BURST, CLIENT_BURST_NS),
            (slot::STRANGER_COST, cost(self.config.per_stranger)),
            (slot::STRANGER_BURST, CLIENT_BURST_NS),
            (slot::SEED, self.seed),
            (slot::PROBE, u64::from_ne_bytes(self.probe.0)),
        ] {
            numbers[number] = value;
        }
        if let Err(error) = self.programs.tell(numbers) {
            tracing::debug!(%error, "answers in the kernel");
        }
    }

    /// Once a second: attaches where an interface has come, tells what each port answers (`None`: nothing), and
    /// tries what is to be tried.
    pub fn look_after(
        &mut self,
        now: Time<Mono>,
        mut answers: impl FnMut(usize) -> Option<PortAnswers>,
    ) {
        for index in 0..self.ports.len() {
            self.attach_where_new(now, index);
        }
        self.tell_addresses();
        for index in 0..self.ports.len() {
            let wanted = answers(index);
            self.look_after_one(now, index, wanted);
        }
    }

    /// An interface that goes and comes again is another one.
    fn attach_where_new(&mut self, now: Time<Mono>, index: usize) {
        let ifindex = if_nametoindex(self.ports[index].interface.as_str()).unwrap_or(0);
        let port = &mut self.ports[index];
        if port.ifindex == ifindex {
            return;
        }
        let _ = self.programs.set_interface(port.ifindex, None);
        self.programs.detach(port.ifindex);
        (port.ifindex, port.told, port.state) = (ifindex, None, State::Trial);
        port.prove_at = now;
        port.native.begin(now);
        if ifindex != 0
            && let Err(error) = self.programs.attach(ifindex, &port.interface)
        {
            tracing::info!(interface = port.interface, %error, "requests are answered by the agent");
            port.state = State::Off(error.to_string());
            port.prove_at = now + TRY_AGAIN;
        }
    }

    fn look_after_one(&mut self, now: Time<Mono>, index: usize, wanted: Option<PortAnswers>) {
        let ifindex = self.ports[index].ifindex;
        let port = &self.ports[index];
        let numbers = wanted.as_ref().filter(|_| ifindex != 0).map(|wanted| {
            let mut numbers = self.numbers(index, wanted);
            // Off, until a trial says otherwise.
            if matches!(port.state, State::Off(_)) {
                numbers[interface::FLAGS] &= !interface::SERVING;
            }
            numbers
        });
        if let Some(wanted) = &wanted {
            self.has_brackets = wanted.response.len() >= RESPONSE;
        }
        if numbers != self.ports[index].told {
            if let Err(error) = self.programs.set_interface(ifindex, numbers) {
                tracing::debug!(%error, "answers in the kernel");
            }
            self.ports[index].told = numbers;
        }
        let Some(wanted) = wanted.filter(|_| ifindex != 0) else { return };
        // Whoever has come in front may keep packets.
        let in_front = self.programs.in_front(ifindex);
        if in_front != self.ports[index].in_front {
            self.ports[index].in_front = in_front;
            self.ports[index].prove_at = now;
        }
        if self.ports[index].prove_at <= now {
            self.prove(now, index, &wanted);
        }
        self.look_after_native(now, index, &wanted);
    }

    /// Tries whether an answer goes out, after attaching anew where it did not before.
    fn prove(&mut self, now: Time<Mono>, index: usize, wanted: &PortAnswers) {
        let Some((_, served)) = self.told else { return };
        self.tell_now(now, &served);
        let (ifindex, name) = (self.ports[index].ifindex, self.ports[index].interface.clone());
        if matches!(self.ports[index].state, State::Off(_)) {
            if let Err(error) = self.programs.attach(ifindex, &name) {
                self.settle(now, index, State::Off(error.to_string()));
                return;
            }
            let numbers = self.numbers(index, wanted);
            let _ = self.programs.set_interface(ifindex, Some(numbers));
            self.ports[index].told = Some(numbers);
        }
        let state = match self.try_once(index, wanted, ifindex) {
            Ok(()) => State::Proven,
            Err(reason) => State::Off(reason),
        };
        let is_proven = state == State::Proven;
        self.settle(now, index, state);
        if is_proven {
            self.prove_exchanges(index, wanted, ifindex);
        }
    }

    fn try_once(&mut self, index: usize, wanted: &PortAnswers, ifindex: u32) -> Result<(), String> {
        let place = self.place(index, wanted, ifindex)?;
        let port = &mut self.ports[index];
        port.sequence_id = port.sequence_id.wrapping_add(1);
        let tried = probe::probe(&mut self.programs, &place, self.probe, port.sequence_id);
        tried.map(drop).map_err(|error| error.to_string())
    }

    fn place(&self, index: usize, wanted: &PortAnswers, ifindex: u32) -> Result<Place, String> {
        let name = &self.ports[index].interface;
        let mac = interface_mac(name).ok_or("the interface has no MAC address")?;
        let ip = self.own_address(name);
        if ip.is_none() && self.transport != TransportKind::L2 {
            return Err("the interface has no address".to_owned());
        }
        let (domain, sdo_id) = (wanted.domain, wanted.sdo_id);
        Ok(Place { ifindex, transport: self.transport, mac, ip, domain, sdo_id })
    }

    fn settle(&mut self, now: Time<Mono>, index: usize, state: State) {
        let port = &mut self.ports[index];
        let interface = &port.interface;
        match &state {
            State::Off(reason) => {
                if port.state != state {
                    tracing::warn!(interface, reason, "requests are answered by the agent");
                }
                if let Some(numbers) = &mut port.told {
                    numbers[interface::FLAGS] &= !interface::SERVING;
                    let _ = self.programs.set_interface(port.ifindex, Some(*numbers));
                }
                port.prove_at = now + TRY_AGAIN;
            }
            State::Proven | State::Trial => {
                if port.state != state {
                    tracing::info!(interface, "requests are answered in the kernel");
                }
                port.prove_at = now + PROVE;
            }
        }
        port.state = state;
    }

    /// What became of requests of a port, by kind.
    pub fn counts(&mut self, index: usize) -> BTreeMap<(&'static str, Outcome), u64> {
        self.programs.counts(u32::try_from(index).unwrap_or(u32::MAX))
    }

    /// Requests that were dropped on a port because there were too many.
    pub fn refused(&mut self, index: usize) -> u64 {
        let counts = self.counts(index);
        let refused = counts
            .iter()
            .filter(|((_, outcome), _)| outcome.is_refused() && *outcome != Outcome::Prefix);
        refused.map(|(_, total)| total).sum()
    }

    /// Whether the kernel answers on a port.
    pub fn is_proven(&self, index: usize) -> bool {
        self.ports.get(index).is_some_and(|port| {
            let is_enough = !self.config.xdp_alone || port.native.is_proven();
            port.state == State::Proven && is_enough
        })
    }

    /// For the status of a port.
    pub fn status(&mut self, index: usize) -> Option<Answering> {
        let counts = self.counts(index);
        let port = self.ports.get(index)?;
        let mut outcomes = BTreeMap::<String, BTreeMap<String, u64>>::new();
        for ((kind, outcome), total) in counts {
            outcomes.entry(kind.to_string()).or_default().insert(outcome.name().to_owned(), total);
        }
        let native = port.native.reason().filter(|_| self.config.xdp_alone);
        let (by, reason) = match &port.state {
            State::Proven if native.is_some() => ("agent", native.as_deref()),
            State::Proven => ("kernel", None),
            State::Trial => ("agent", Some("not tried yet")),
            State::Off(reason) => ("agent", Some(reason.as_str())),
        };
        let is_native = port.state == State::Proven && port.native.is_proven();
        let point = match (is_native, self.is_stack) {
            (true, _) => StampSource::XdpNative,
            (false, true) => StampSource::Stack,
            (false, false) => StampSource::TcIngress,
        };
        let hook = (by == "kernel").then_some(if is_native { "xdp" } else { "tc" });
        Some(Answering {
            by: by.into(),
            hook: hook.map(Into::into),
            reason: reason.map(str::to_owned),
            no_xdp: port.native.reason(),
            answers_for: None,
            receive_stamp: point.into(),
            requests: outcomes,
        })
    }

    /// Why requests are not answered where they were asked to be, if they are not; nobody asked [`Mode::Auto`] for
    /// anything.
    pub fn shortfall(&self) -> Option<String> {
        self.ports.iter().find_map(|port| {
            let reason = match &port.state {
                State::Off(reason) if self.config.mode != Mode::Auto => reason.clone(),
                _ if self.config.mode == Mode::Xdp => port.native.reason()?,
                _ => return None,
            };
            Some(format!("{}: {reason}", port.interface))
        })
    }
}
