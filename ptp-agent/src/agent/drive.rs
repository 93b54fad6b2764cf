//! The one loop: what comes from outside goes into an engine, what the engine commands goes out, and between
//! the two a recorder may write down every input. Which engine it is, which clock it reads and what is made of
//! what it tells is a [`Host`]'s; outside are sockets ([`Io`]), or, for who only observes, the hooks of interfaces.

use ptp_common::time::{Duration, Mono, Time};

use super::{AgentError, Asked, Ending, io::Io};
use crate::{
    engine::{Command, Commands, Context, Engine, Input, ReadClock, Transmit},
    recording::Recorder,
    sys::clock::monotonic,
};

/// So much later that may be, to be done with something else.
const SLACK: Duration = Duration::from_millis(100);
/// Between two looks at the counters, and two lines of text.
pub const HOUSEKEEPING: Duration = Duration::from_secs(1);

/// Where inputs come from and messages go.
pub trait Outside {
    /// What makes an input.
    type Delivery;

    /// The input that it makes.
    fn input(delivery: &Self::Delivery) -> Input<'_>;

    /// What has come, oldest first.
    fn next_delivery(&mut self) -> Option<Self::Delivery>;

    /// Sends a message.
    fn transmit(&mut self, transmit: &Transmit);

    /// The engine has said all that it has to say for now: what was kept, to be sent together, may go; at the `end` it
    /// must.
    fn send_out(&mut self, _end: bool) {}

    /// Waits until something may have come, or until `until`. Cancel-safe: nothing that has come is lost.
    fn wait(&mut self, until: Time<Mono>) -> impl Future<Output = ()>;
}

/// What is around an engine.
pub trait Host<E: Engine, O: Outside = Io> {
    /// The clock that the engine may read.
    fn clock(&self) -> &dyn ReadClock;

    /// Reads clocks anew, before the engine is given anything at `now`.
    fn refresh(&mut self, drive: &mut Drive<E, O>, now: Time<Mono>, occasion: Occasion);

    /// The engine has said something that is no message to send.
    ///
    /// # Errors
    /// What ends the command.
    fn told(
        &mut self,
        drive: &mut Drive<E, O>,
        command: Command<E::Event>,
    ) -> Result<(), AgentError>;

    /// The engine has been given this.
    fn given(&mut self, _drive: &mut Drive<E, O>, _input: &Input<'_>) {}

    /// All that was said has been carried out; what was delivered comes next.
    fn settled(&mut self, _drive: &mut Drive<E, O>) {}

    /// Once a second.
    ///
    /// # Errors
    /// What ends the command.
    fn housekeep(&mut self, drive: &mut Drive<E, O>, now: Time<Mono>) -> Result<(), AgentError>;

    /// A signal asks to read the configuration again.
    fn reload(&mut self, _drive: &mut Drive<E, O>) {}
}

/// Why clocks are read anew.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Occasion {
    /// Something may be due.
    Turn,
    /// Something has been delivered.
    Delivery,
}

/// An engine with what is outside of it.
pub struct Drive<E: Engine, O: Outside = Io> {
    /// Sockets and stamps, or what else there is.
    pub io: O,
    /// What is driven.
    pub engine: E,
    /// Writes the inputs down.
    pub recorder: Option<Recorder>,
    commands: Commands<E::Event>,
}

impl<E: Engine, O: Outside> Drive<E, O> {
    /// `engine`, which has given `commands` when it was made.
    pub const fn new(io: O, engine: E, commands: Commands<E::Event>) -> Self {
        Self { io, engine, recorder: None, commands }
    }

    /// Gives the engine something to do, with the clock and the way out that it needs.
    pub fn with<R>(
        &mut self,
        now: Time<Mono>,
        clock: &dyn ReadClock,
        then: impl FnOnce(&mut E, &mut Context<'_, E::Event>) -> R,
    ) -> R {
        let mut cx = Context { now, clock, out: &mut self.commands };
        then(&mut self.engine, &mut cx)
    }

    /// Lets something be done to the engine by the host itself; what it commands is carried out next.
    pub fn hand<R>(&mut self, then: impl FnOnce(&mut E, &mut Commands<E::Event>) -> R) -> R {
        then(&mut self.engine, &mut self.commands)
    }

    /// Until it is told to end.
    ///
    /// # Errors
    /// What `host` says.
    pub(super) async fn run(
        &mut self,
        ending: &mut Ending,
        host: &mut impl Host<E, O>,
    ) -> Result<(), AgentError> {
        let mut housekeeping = monotonic();
        loop {
            let now = monotonic();
            self.turn(now, host)?;
            if now >= housekeeping {
                housekeeping = now + HOUSEKEEPING;
                host.housekeep(self, now)?;
            }
            if ending.is_due(now) {
                return Ok(());
            }
            let due = self.engine.next_timeout();
            let latest = housekeeping + SLACK;
            let until = ending.limit(due.map_or(latest, |at| at.min(latest)));
            tokio::select! {
                biased;
                asked = ending.signalled() => match asked {
                    Asked::ToEnd => return Ok(()),
                    Asked::ToReload => host.reload(self),
                },
                () = self.io.wait(until) => {}
            }
        }
    }

    /// Sends what the engine has still to say; nothing is delivered to it any more.
    pub fn flush(&mut self) {
        while let Some(command) = self.commands.pop() {
            if let Command::Send(transmit) = command {
                self.io.transmit(&transmit);
            }
        }
        self.io.send_out(true);
    }

    /// Does what is due, and carries deliveries in and commands out until neither side has anything.
    ///
    /// # Errors
    /// What `host` says.
    pub fn turn(&mut self, now: Time<Mono>, host: &mut impl Host<E, O>) -> Result<(), AgentError> {
        host.refresh(self, now, Occasion::Turn);
        // To be called before anything is due changes nothing, and is nothing to be recorded.
        if self.engine.next_timeout().is_some_and(|at| at <= now) {
            if let Some(recorder) = &mut self.recorder {
                recorder.poll(now);
            }
            self.with(now, host.clock(), |engine, cx| engine.handle_timeout(cx));
        }
        loop {
            while let Some(command) = self.commands.pop() {
                match command {
                    Command::Send(transmit) => {
                        self.io.transmit(&transmit);
                        if let Some(recorder) = &mut self.recorder {
                            recorder.sent(&transmit);
                        }
                    }
                    command => host.told(self, command)?,
                }
            }
            host.settled(self);
            self.io.send_out(false);
            let Some(delivery) = self.io.next_delivery() else { return Ok(()) };
            let now = monotonic();
            host.refresh(self, now, Occasion::Delivery);
            let input = O::input(&delivery);
            if let Some(recorder) = &mut self.recorder {
                recorder.input(now, &input);
            }
            self.with(now, host.clock(), |engine, cx| engine.handle(cx, input));
            host.given(self, &input);
        }
    }
}
