//! The engine, the servo and the clock of a recording once more, driven by its notes instead of by
//! sockets and timers.

use std::collections::VecDeque;

use ptp_common::time::{Mono, Time};

use super::{
    note::{FollowedClock, Note, Start},
    reader::Item,
};
use crate::{
    clock::followed::Followed,
    engine::{
        Command, Datagram, LinkState, PortIndex, SentToken, Transmit,
        discipline::{Client, Event},
    },
    servo::{Options, Servo},
};

/// Sent event messages whose stamps may be outstanding.
const AWAITING_STAMPS: usize = 512;

/// Which clock a replay steers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Steered {
    /// That of the recording.
    AsRecorded,
    /// Where the recording's clock was only watched, a software clock that begins at the same time.
    Anew,
}

/// See the module's paragraph.
pub struct Replay {
    client: Client<Followed>,
    sent: VecDeque<(SentToken, Datagram)>,
    now: Time<Mono>,
    compared: u64,
    diverged: u64,
}

impl Replay {
    /// The agent as it was at the start.
    pub fn new(start: &Start, servo: Box<dyn Servo>, steered: Steered) -> Self {
        let now = start.now_ns;
        let host = now.at_offset(start.real_minus_mono_ns);
        let mut clock = match start.clock {
            FollowedClock::Virtual { reading_ns } => Followed::virtual_at(now, reading_ns),
            FollowedClock::None if steered == Steered::Anew => Followed::virtual_at(now, host),
            FollowedClock::None => Followed::watching(now, host),
        };
        if let Some(limits) = &start.limits {
            clock.set_limits(limits.into());
        }
        let mut client = Client::new(start.receiver(), servo, clock, now);
        let options = Options::from(&start.options);
        client.set_boundary_clock_error(options.boundary_clock_error);
        Self { client, sent: VecDeque::new(), now, compared: 0, diverged: 0 }
    }

    /// Gives the engine what `item` says. [`Self::next_command`] is to be called until `None` behind it.
    pub fn give(&mut self, item: &Item) {
        if let Some(now) = item.note.now() {
            self.now = now;
        }
        match (&item.note, &item.message) {
            (Note::Message { now_ns, stamp }, Some((port, bytes))) => {
                self.client.handle_message(*now_ns, *port, bytes, stamp.map(Into::into));
            }
            (Note::TxStamp { now_ns, token, stamp }, message) => {
                let token = SentToken(*token);
                if let Some(message) = message {
                    self.compare(token, message);
                }
                self.client.handle_tx_stamp(*now_ns, token, stamp.map(Into::into));
            }
            (Note::Poll { now_ns }, _) => self.client.poll(*now_ns),
            (Note::Link { now_ns, port, up }, _) => {
                let state = LinkState::up_if(*up);
                self.client.handle_link(*now_ns, PortIndex(*port), state);
            }
            (Note::Reading { now_ns, real_minus_mono_ns }, _) => {
                let host = now_ns.at_offset(*real_minus_mono_ns);
                self.client.clock_mut().read(*now_ns, host);
            }
            // No inputs of the engine.
            (
                Note::Start(_)
                | Note::Message { .. }
                | Note::Sent { .. }
                | Note::Lost { .. }
                | Note::End { .. },
                _,
            ) => {}
        }
    }

    /// What the engine has said; messages to send are not among it.
    pub fn next_command(&mut self) -> Option<Command<Event>> {
        loop {
            match self.client.next_command()? {
                Command::Send(Transmit { token: Some(token), message, .. }) => {
                    if self.sent.len() == AWAITING_STAMPS {
                        self.sent.pop_front();
                    }
                    self.sent.push_back((token, message));
                }
                Command::Send(_) | Command::Measured(_) | Command::Witnessed(_) => {}
                command => return Some(command),
            }
        }
    }

    /// Counts the messages that the agent sent and this engine does not.
    fn compare(&mut self, token: SentToken, (_, recorded): &(PortIndex, Vec<u8>)) {
        let sent = self
            .sent
            .iter()
            .position(|(sent, _)| *sent == token)
            .and_then(|at| self.sent.remove(at));
        self.compared += 1;
        // Padding may follow the recorded message.
        if !sent.is_some_and(|(_, message)| recorded.starts_with(&message)) {
            self.diverged += 1;
        }
    }

    /// The agent.
    pub const fn client(&self) -> &Client<Followed> {
        &self.client
    }

    /// The time of the latest note.
    pub const fn now(&self) -> Time<Mono> {
        self.now
    }

    /// Event messages of the recording that this engine did not send, or not the same, of how many.
    /// Anything but zero says that this is not the engine that the recording was made with.
    pub const fn diverged(&self) -> (u64, u64) {
        (self.diverged, self.compared)
    }
}
