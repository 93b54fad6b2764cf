//! NTP over PTP as it is served: requests that come as event messages of domain 123 to the grandmaster's own port 319,
//! where they are stamped as all others are. The instance does not answer that domain; this does, with an
//! engine of its own on the same clock.

use std::{cell::Cell, rc::Rc};

use ptp_common::{
    ntp::{HEADER_LENGTH, over_ptp},
    time::{Mono, Time},
};

use crate::{
    agent::drive::Outside as _,
    agent::io::Io,
    engine::{
        Command, Commands, Context, Datagram, Engine as _, Input, ReadClock, SentToken, Transmit,
        ntp::{NtpServer, NtpServerConfig, NtpServerCounters, Serving},
    },
};

/// Answers have tokens with this bit, and no instance gives such.
const TOKEN: u64 = 1 << 62;
/// Answers whose stamps may be outstanding.
const WAITING: usize = 256;

/// What is told of the served time, shared with the service on port 123.
pub(in crate::agent) type Told = Rc<Cell<Option<Serving>>>;

/// See the module's paragraph.
pub(in crate::agent) struct OverPtp {
    engine: NtpServer,
    commands: Commands<crate::engine::ntp::NtpServerEvent>,
    told: Told,
    /// The engine's own names of answers on their way out, and where the next one goes.
    waiting: [SentToken; WAITING],
    next: usize,
}

impl OverPtp {
    pub(super) fn new(config: &NtpServerConfig, told: Told, now: Time<Mono>) -> Self {
        let engine = NtpServer::new(config, now);
        Self {
            engine,
            commands: Commands::default(),
            told,
            waiting: [SentToken(0); WAITING],
            next: 0,
        }
    }

    pub(in crate::agent) const fn counters(&self) -> &NtpServerCounters {
        self.engine.counters()
    }

    /// Answers where an input of the grandmaster is a request of NTP, and takes the stamps of answers.
    pub(in crate::agent) fn given(
        &mut self,
        now: Time<Mono>,
        clock: &dyn ReadClock,
        io: &mut Io,
        input: &Input<'_>,
    ) {
        let inner = match *input {
            Input::Message { on, from, bytes, stamp } => match over_ptp::unwrap(bytes) {
                Some(bytes) => Input::Message { on, from, bytes, stamp },
                None => return,
            },
            Input::Sent { token: SentToken(token), stamp } if token & TOKEN != 0 => {
                let place = (token & !TOKEN) as usize;
                Input::Sent { token: self.waiting[place % WAITING], stamp }
            }
            _ => return,
        };
        self.engine.set_serving(self.told.get());
        let mut cx = Context { now, clock, out: &mut self.commands };
        self.engine.handle(&mut cx, inner);
        while let Some(command) = self.commands.pop() {
            let Command::Send(transmit) = command else { continue };
            let Some(packet) = transmit.message.first_chunk::<HEADER_LENGTH>() else { continue };
            let token = transmit.token.map(|token| {
                self.next = (self.next + 1) % WAITING;
                self.waiting[self.next] = token;
                SentToken(TOKEN | self.next as u64)
            });
            let message = Datagram::of_ntp_over_ptp(packet);
            io.transmit(&Transmit { message, token, ..transmit });
        }
    }
}
