//! A server-only ordinary clock by itself, for callers whose stamps are of the time that is served already: the
//! simulator's and the tests' grandmasters.

use core::ops::{Deref, DerefMut};

use ptp_common::time::{Duration, Mono, Ptp, Time};

use crate::{
    PortIndex, SentToken,
    address::Address,
    instance::Instance,
    node::Node,
    seam::{Command, Commands, Context, Driven, Input, LinkState, Monotonic, NoEvent},
    stamp::{Stamp, StampSource},
};

pub use crate::config::TransmitterConfig;

/// The grandmaster with the commands that it has given. See the module's paragraph.
#[derive(Debug)]
pub struct Transmitter(Driven<Node>);

impl Transmitter {
    /// A grandmaster whose ports begin to send at `now`.
    pub fn new(config: TransmitterConfig, now: Time<Mono>) -> Self {
        let mut commands = Commands::default();
        let clock = &Monotonic::default();
        let mut cx = Context { now, clock, out: &mut commands };
        let node = Node::server_only(config, &mut cx);
        Self(Driven::new_with(node, commands))
    }

    /// The next command. To be called until `None` after every input.
    pub fn next_command(&mut self) -> Option<Command<NoEvent>> {
        self.0.next_command()
    }

    /// When [`Self::poll`] has something to do.
    pub fn next_wakeup(&self) -> Option<Time<Mono>> {
        self.0.next_wakeup()
    }

    /// Sends what is due.
    pub fn poll(&mut self, now: Time<Mono>) {
        self.0.poll(now);
    }

    /// The link of a port came up or went down.
    pub fn handle_link(&mut self, now: Time<Mono>, port: PortIndex, state: LinkState) {
        self.0.handle_link(now, port, state);
    }

    /// The transmit stamp of an event message, of the time that is served, or the news that there is none.
    pub fn handle_tx_stamp(&mut self, token: SentToken, sent: Option<Time<Ptp>>) {
        // When it comes makes no difference to anything.
        self.0.handle_tx_stamp(Time::ZERO, token, sent.map(served));
    }

    /// A PTP message came through the socket of `port`; `rx` is its stamp, of the time that is served.
    pub fn handle_message(
        &mut self,
        now: Time<Mono>,
        port: PortIndex,
        bytes: &[u8],
        rx: Option<Time<Ptp>>,
    ) {
        self.handle_message_from(now, port, bytes, rx, None);
    }

    /// As [`Self::handle_message`], from whom: a unicast request is then answered by unicast, and two
    /// senders with one identity are told apart.
    pub fn handle_message_from(
        &mut self,
        now: Time<Mono>,
        on: PortIndex,
        bytes: &[u8],
        rx: Option<Time<Ptp>>,
        from: Option<Address>,
    ) {
        let input = Input::Message { on, from, bytes, stamp: rx.map(served) };
        self.0.handle(now, &Monotonic::default(), input);
    }
}

/// A stamp on a monotonic clock that shows the served time, which [`Monotonic`] gives back.
fn served(time: Time<Ptp>) -> Stamp {
    Stamp::new(time.at_offset(Duration::ZERO), StampSource::Simulated)
}

impl Deref for Transmitter {
    type Target = Instance;
    fn deref(&self) -> &Instance {
        &self.0
    }
}
impl DerefMut for Transmitter {
    fn deref_mut(&mut self) -> &mut Instance {
        &mut self.0
    }
}
