//! A grandmaster whose time does not follow the clock that is steered on the same kernel: it serves a
//! line over CLOCK_MONOTONIC_RAW, which nobody steers. (CLOCK_MONOTONIC, and with it every software
//! clock based on it, runs faster when CLOCK_REALTIME is made to run faster.) Stamps are carried over
//! by a bracketed read of both clocks within milliseconds of the stamp.

use std::{
    io::{BufRead as _, BufReader},
    process::{Child, ChildStdin, Command, Stdio},
};

use nix::time::{ClockId, clock_gettime};
use ptp_agent::{
    agent::{
        AgentError,
        drive::{Drive, Host, Occasion, Outside as _},
        io::{Io, IoConfig},
        prime::PrimeMode,
    },
    capture::{Choice, Latencies},
    engine::{
        self, Commands, Context, Engine as _, NoEvent, ReadClock, node::Node,
        transmitter::TransmitterConfig,
    },
    lab::netns::Namespace,
    sys::clock::monotonic,
    transport::{Marking, TransportKind},
};
use ptp_common::{
    data_set::TimeProperties,
    time::{Duration, Mono, Ptp, Time},
    wire::{ClockIdentity, Flags, TimeSource},
};
use serde::{Deserialize, Serialize};
use std::io::Write as _;

/// First argument of the process that is a grandmaster.
pub(crate) const COMMAND: &str = "grandmaster";
/// Reads of which the narrowest counts.
const READS: usize = 5;

/// The time that is served: exact for everybody on this kernel.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(crate) struct Line {
    /// An instant on CLOCK_MONOTONIC_RAW.
    pub(crate) raw_ns: i64,
    /// What is served then, nanoseconds since the epoch.
    pub(crate) served_ns: i64,
    /// How much faster than CLOCK_MONOTONIC_RAW, parts per billion.
    pub(crate) drift_ppb: i64,
}

impl Line {
    pub(crate) fn at(&self, raw_ns: i64) -> i64 {
        let passed = i128::from(raw_ns - self.raw_ns);
        let gained = passed * i128::from(self.drift_ppb) / 1_000_000_000;
        self.served_ns + i64::try_from(passed + gained).unwrap_or(i64::MAX)
    }
}

/// What is announced about it.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Announced {
    /// Flags of `timePropertiesDS`.
    pub(crate) flags: u16,
    /// `currentUtcOffset`, seconds.
    pub(crate) utc_offset: i16,
}

/// The state of a clock, nanoseconds.
pub(crate) fn read(clock: ClockId) -> i64 {
    let time = clock_gettime(clock).expect("a clock of every kernel");
    time.tv_sec() * 1_000_000_000 + time.tv_nsec()
}

/// What `clock` shows minus CLOCK_MONOTONIC_RAW, from the narrowest of some bracketed reads.
pub(crate) fn minus_raw(clock: ClockId) -> i64 {
    let reads = (0..READS).map(|_| {
        let before = read(ClockId::CLOCK_MONOTONIC_RAW);
        let it = read(clock);
        let after = read(ClockId::CLOCK_MONOTONIC_RAW);
        (after - before, it - (before + after) / 2)
    });
    reads.min().map_or(0, |(_, difference)| difference)
}

/// A running grandmaster on `gm0` of a namespace.
pub(crate) struct Grandmaster {
    child: Child,
    orders: ChildStdin,
}

impl Grandmaster {
    pub(crate) fn start(namespace: &Namespace, line: Line, announced: Announced) -> Self {
        let line = serde_json::to_string(&line).expect("a structure of numbers");
        let mut command: Command = namespace.command("/init");
        command.args([COMMAND, &line]).stdin(Stdio::piped());
        let mut child = command.spawn().expect("this very program");
        let orders = child.stdin.take().expect("it was asked for");
        let mut this = Self { child, orders };
        this.announce(announced);
        this
    }

    /// Announces something else from now on.
    pub(crate) fn announce(&mut self, announced: Announced) {
        let order = serde_json::to_string(&announced).expect("a structure of numbers");
        writeln!(self.orders, "{order}").expect("the grandmaster runs");
    }
}

impl Drop for Grandmaster {
    fn drop(&mut self) {
        // Both fail only for one that has ended.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The process that is a grandmaster: serves the line of its argument until it is killed, and
/// announces what it reads.
pub(crate) fn main(line: &str) {
    let line: Line = serde_json::from_str(line).expect("a line");
    let (sender, mut orders) = tokio::sync::mpsc::unbounded_channel();
    std::thread::spawn(move || {
        for order in BufReader::new(std::io::stdin()).lines().map_while(Result::ok) {
            let announced: Announced = serde_json::from_str(&order).expect("an order");
            if sender.send(announced).is_err() {
                return;
            }
        }
    });
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.expect("a runtime").block_on(async {
        let io = Io::open(IoConfig {
            interfaces: vec!["gm0".to_owned()],
            transport: TransportKind::Udp4,
            rx_source: Choice::Auto,
            tx_source: Choice::Auto,
            prime: PrimeMode::Off,
            ingress_latency: Latencies::default(),
            egress_latency: Latencies::default(),
            ring_bytes: None,
            is_pinned: false,
            acceptable_senders: Vec::new(),
            security: None,
            wire: Vec::new(),
            transports: std::collections::BTreeMap::new(),
            ntp: None,
            marking: Marking::default(),
        })
        .expect("stamps on a wire of this kernel");
        let identity = ClockIdentity([2, 0, 0, 0xff, 0xfe, 0, 0, 1]);
        let config = TransmitterConfig {
            priority1: 100,
            log_sync_interval: -4,
            log_announce_interval: 0,
            log_min_delay_req_interval: -4,
            ..TransmitterConfig::new(identity)
        };
        let mut quality = config.clock_quality;
        quality.clock_class = 6;
        let start = monotonic();
        let mut commands = Commands::default();
        let mut cx = Context { now: start, clock: &line, out: &mut commands };
        let node = Node::server_only(config, &mut cx);
        let mut server = Drive::new(io, node, commands);
        let mut around = Around(line);
        loop {
            while let Ok(announced) = orders.try_recv() {
                server.engine.set_quality(quality);
                server.engine.set_time_properties(TimeProperties::told(
                    announced.utc_offset,
                    Flags(announced.flags),
                    TimeSource::INTERNAL_OSCILLATOR,
                ));
            }
            server.turn(monotonic(), &mut around).expect("nothing fails here");
            let due = server.engine.next_timeout();
            let until = due.unwrap_or(monotonic() + Duration::from_secs(1));
            server.io.wait(until).await;
        }
    });
}

/// What is around the grandmaster: its time, and nobody to tell anything.
struct Around(Line);

impl Host<Node> for Around {
    fn clock(&self) -> &dyn ReadClock {
        &self.0
    }
    fn refresh(&mut self, _: &mut Drive<Node>, _: Time<Mono>, _: Occasion) {}
    fn told(&mut self, _: &mut Drive<Node>, _: engine::Command<NoEvent>) -> Result<(), AgentError> {
        Ok(())
    }
    fn housekeep(&mut self, _: &mut Drive<Node>, _: Time<Mono>) -> Result<(), AgentError> {
        Ok(())
    }
}

impl ReadClock for Line {
    fn at(&self, stamp: Time<Mono>) -> Option<Time<Ptp>> {
        let raw_ns = stamp.as_nanos() - minus_raw(ClockId::CLOCK_MONOTONIC);
        Some(Time::from_nanos(Line::at(self, raw_ns)))
    }
}
