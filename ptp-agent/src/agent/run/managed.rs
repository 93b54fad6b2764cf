//! What is done of what management has set, and of what another program says of links.

use ptp_common::time::{Mono, Time};

use super::{Around, Runner};

impl Around {
    /// Asks who measures links what they are like.
    pub(super) fn ask_links(&mut self, runner: &mut Runner, now: Time<Mono>) {
        let told = self.asked_links.as_mut().map(|asked| asked.look(now)).unwrap_or_default();
        for (port, command) in told {
            runner.with(now, &self.clock, |client, cx| client.manage_port(cx, port, command));
        }
    }

    /// Does what has been set by management.
    pub(super) fn manage(&mut self, runner: &mut Runner, now: Time<Mono>) {
        let managing = &mut self.teller.managing;
        managing.about.are_alternates_fixed = self.teller.local_times.has_zones();
        managing.look(now, &runner.io, runner.engine.instance_mut());
        for (port, command) in managing.carry_out(now, &mut runner.io, runner.engine.instance_mut())
        {
            runner.with(now, &self.clock, |client, cx| client.manage_port(cx, port, command));
        }
    }
}
