//! What is done of what management has set.

use ptp_common::time::{Mono, Time};

use super::{Around, Runner};
use crate::agent::managing::Rest;

impl Around {
    /// Does what has been set by management.
    pub(super) fn manage(&mut self, runner: &mut Runner, now: Time<Mono>) {
        let managing = &mut self.teller.managing;
        managing.about.are_alternates_fixed = self.teller.local_times.has_zones();
        managing.look(now, &runner.io, runner.engine.instance_mut());
        for each in managing.carry_out(now, &mut runner.io, runner.engine.instance_mut()) {
            match each {
                // Done already.
                Rest::Latencies { .. } => {}
                Rest::Enable(port, is_enabled) => {
                    runner.with(now, &self.clock, |client, cx| {
                        client.enable_port(cx, port, is_enabled);
                    });
                }
                Rest::Threshold(port, threshold) => {
                    runner.engine.set_neighbor_threshold(port, threshold);
                }
                Rest::PdelayInterval(port, log) => {
                    runner.with(now, &self.clock, |client, cx| {
                        client.set_log_pdelay_req_interval(cx, port, log);
                    });
                }
                Rest::Asymmetry(port, asymmetry) => {
                    runner.engine.set_port_delay_asymmetry(port, asymmetry);
                }
            }
        }
    }
}
