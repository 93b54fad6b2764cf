//! The observer as an [`Engine`]: what passes is its only input, observations are its only commands, and once a second
//! it looks at what has been waited for in vain.

use ptp_common::time::{Mono, Time};

use super::{Observation, Observer};
use crate::{Command, Context, Engine, Input};

impl Engine for Observer {
    type Event = Observation;

    fn handle(&mut self, cx: &mut Context<'_, Observation>, input: Input<'_>) {
        if let Input::Passed(packet) = input
            && let Some(observation) = self.packet(cx.now, &packet)
        {
            cx.out.push(Command::Event(observation));
        }
    }

    fn handle_timeout(&mut self, cx: &mut Context<'_, Observation>) {
        if self.due.is_some_and(|due| due <= cx.now) {
            self.advance(cx.now);
        }
    }

    fn next_timeout(&self) -> Option<Time<Mono>> {
        self.due
    }
}
