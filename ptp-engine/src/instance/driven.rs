//! An instance as whoever drives it sees it: what comes in, and what is due.

use super::{Cx, Instance, Received};
use crate::prelude::*;
use crate::{
    csptp::Asking,
    outcome::StateReason,
    port::PortTimer,
    seam::{Engine, Input, NoEvent},
};
use ptp_common::time::{Mono, Time};

impl Engine for Instance {
    type Event = NoEvent;

    fn handle(&mut self, cx: &mut Cx<'_>, input: Input<'_>) {
        self.last_now = cx.now;
        match input {
            Input::Message { on, from, bytes, stamp } => {
                let index = usize::from(on.0);
                if let Err(cause) = self.message(cx, &Received { index, from, bytes, stamp }) {
                    self.count_drop(index, cause);
                }
            }
            Input::Sent { token, stamp } => self.sent(cx, token, stamp),
            Input::Link { on, state } => self.link(cx, on, state),
            Input::Passed(_) => {}
        }
    }

    fn handle_timeout(&mut self, cx: &mut Cx<'_>) {
        self.last_now = cx.now;
        self.expire(cx);
        self.ask_due(cx);
        let mut due = Vec::new();
        while let Some(each) = self.timers.pop_due(cx.now) {
            due.push(each);
        }
        // Whatever was due first: by port, and each port's in their order.
        due.sort_unstable();
        for ((port, timer), at) in due {
            let index = usize::from(port);
            match timer {
                PortTimer::Announce => self.announce_due(cx, index, at),
                PortTimer::Sync => self.sync_due(cx, index, at),
                PortTimer::DelayReq => self.delay_req_due(cx, index),
                PortTimer::PdelayReq => self.send_pdelay_req(cx, index),
                PortTimer::AnnounceReceipt => self.announce_receipt_due(cx, index),
                PortTimer::SyncReceipt => self.sync_receipt_due(cx, index),
                PortTimer::Qualification => self.qualification_due(cx, index),
                PortTimer::Decision => self.decide(cx, StateReason::BestTransmitter),
            }
        }
    }

    fn next_timeout(&self) -> Option<Time<Mono>> {
        let asking = self.asking.as_deref().and_then(Asking::next_timeout);
        [self.timers.next(), self.expiries.next(), asking].into_iter().flatten().min()
    }
}
