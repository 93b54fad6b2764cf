//! How an engine is driven, in virtual time: a grandmaster and a time receiver on a wire of 5 us, without a socket, a
//! thread or a clock of the host. Whoever brings sockets does the same with them.
//!
//! `cargo run -p ptp-engine --example two_nodes`

use ptp_common::{
    time::{Duration, Mono, Ptp, Time},
    wire::ClockIdentity,
};
use ptp_engine::{
    Command, Commands, Context, Engine, Input, Monotonic, PortIndex, ReadClock, SentToken,
    Transmit,
    clock::{Clock as _, virtual_clock::VirtualClock},
    discipline::{Discipline, Event},
    node::Node,
    receiver::ReceiverConfig,
    servo::{Options, build},
    stamp::{Stamp, StampSource},
    transmitter::TransmitterConfig,
};

const WIRE: Duration = Duration::from_micros(5);
const PORT: PortIndex = PortIndex(0);

/// One end of the wire: an engine, what it has commanded, and what has been sent to it.
struct End<E: Engine> {
    engine: E,
    commands: Commands<E::Event>,
    clock: Box<dyn ReadClock>,
}

/// What happens next, and when.
enum Coming {
    Message { to_client: bool, bytes: Vec<u8>, is_event: bool },
    Stamp { of_client: bool, token: SentToken },
}

impl<E: Engine> End<E> {
    /// The present, the clock and the way out are parameters of everything.
    fn with(&mut self, now: Time<Mono>, then: impl FnOnce(&mut E, &mut Context<'_, E::Event>)) {
        let mut cx = Context { now, clock: &*self.clock, out: &mut self.commands };
        then(&mut self.engine, &mut cx);
    }
}

/// The grandmaster's time: seconds ahead of the monotonic clock, and 10 ppm fast.
struct Served(VirtualClock);

impl ReadClock for Served {
    fn at(&self, mono: Time<Mono>) -> Option<Time<Ptp>> {
        Some(self.0.at(mono))
    }
}

fn main() {
    let mut now: Time<Mono> = Time::from_nanos(1_000_000_000);
    let mut served = VirtualClock::new(now, Time::from_seconds_nanos(1_700_000_000, 0), 1e5);
    served.set_frequency(now, 10_000.0).expect("within the limit");
    let truth = served.clone();

    // A node that serves: its instance begins with commands, as after any input.
    let mut commands = Commands::default();
    let clock: Box<dyn ReadClock> = Box::new(Served(served));
    let mut cx = Context { now, clock: &*clock, out: &mut commands };
    let mut config = TransmitterConfig::new(ClockIdentity([1; 8]));
    (config.log_sync_interval, config.log_min_delay_req_interval) = (-4, -4);
    let node = Node::server_only(config, &mut cx);
    let mut server = End { engine: node, commands, clock };

    // A node that follows, with what steers its clock.
    let mut commands = Commands::default();
    let clock: Box<dyn ReadClock> = Box::new(Monotonic::default());
    let mut cx = Context { now, clock: &*clock, out: &mut commands };
    let followed = VirtualClock::new(now, Time::ZERO, 1e5);
    let servo = build(&"pi".parse().expect("a servo"), &Options::default());
    let config = ReceiverConfig::new(ClockIdentity([2; 8]), 1);
    let discipline = Discipline::new(config, servo, followed, &mut cx);
    let mut client = End { engine: discipline, commands, clock };

    let end = now + Duration::from_secs(30);
    let mut coming: Vec<(Time<Mono>, Coming)> = Vec::new();
    let mut samples = 0_u32;
    loop {
        // What was commanded goes out ...
        while let Some(command) = server.commands.pop() {
            if let Command::Send(transmit) = command {
                depart(&mut coming, now, &transmit, false);
            }
        }
        while let Some(command) = client.commands.pop() {
            match command {
                Command::Send(transmit) => depart(&mut coming, now, &transmit, true),
                Command::Event(Event::Sample(_)) => samples += 1,
                _ => {}
            }
        }
        // ... then time jumps to whatever is next ...
        let timeouts = [server.engine.next_timeout(), client.engine.next_timeout()];
        let next = coming.iter().map(|(at, _)| *at).chain(timeouts.into_iter().flatten()).min();
        let Some(next) = next.filter(|next| *next <= end) else { break };
        now = next;
        // ... and inputs go in.
        while let Some(at) = coming.iter().position(|(at, _)| *at <= now) {
            let stamp = |time| Some(Stamp::new(time, StampSource::Simulated));
            match coming.remove(at).1 {
                Coming::Message { to_client, bytes, is_event } => {
                    let stamp = if is_event { stamp(now) } else { None };
                    let input = Input::Message { on: PORT, from: None, bytes: &bytes, stamp };
                    if to_client {
                        client.with(now, |engine, cx| engine.handle(cx, input));
                    } else {
                        server.with(now, |engine, cx| engine.handle(cx, input));
                    }
                }
                Coming::Stamp { of_client, token } => {
                    let input = Input::Sent { token, stamp: stamp(now) };
                    if of_client {
                        client.with(now, |engine, cx| engine.handle(cx, input));
                    } else {
                        server.with(now, |engine, cx| engine.handle(cx, input));
                    }
                }
            }
        }
        server.with(now, |engine, cx| engine.handle_timeout(cx));
        client.with(now, |engine, cx| engine.handle_timeout(cx));
    }

    let error = client.engine.domain_time(end) - truth.at(end);
    println!("{samples} samples, {} ns off after 30 s", error.as_nanos());
    assert!(error.abs() < Duration::from_nanos(100), "the client follows");
}

/// A message is on the wire at once, and its transmit stamp is there before it arrives.
fn depart(
    coming: &mut Vec<(Time<Mono>, Coming)>,
    now: Time<Mono>,
    transmit: &Transmit,
    of_client: bool,
) {
    if let Some(token) = transmit.token {
        coming.push((now, Coming::Stamp { of_client, token }));
    }
    let (bytes, is_event) = (transmit.message.to_vec(), transmit.token.is_some());
    coming.push((now + WIRE, Coming::Message { to_client: !of_client, bytes, is_event }));
}
