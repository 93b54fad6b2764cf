//! Which of the servers is followed.

use super::Server;
use crate::{
    Change,
    instance::{Cx, Instance},
    outcome::StateReason,
    port::{Role, receiver::Following},
};

impl Instance {
    /// Follows the best of those that answer.
    pub(crate) fn decide_as_asker(&mut self, cx: &mut Cx<'_>, reason: StateReason) {
        let now = cx.now;
        let Some(asking) = self.asking.as_deref_mut() else { return };
        let is_candidate = |server: &Server| {
            let port = self.ports.get(usize::from(server.config.port.0));
            server.is_answering(now)
                && server.identity.is_some_and(|it| !self.distrusted.contains(&it))
                && port.is_some_and(|port| !matches!(port.role, Role::Disabled))
        };
        let candidates = asking.servers.iter().enumerate();
        let candidates = candidates.filter(|(_, server)| is_candidate(server));
        let best = candidates
            .filter_map(|(n, server)| Some((server.said?.rank(), n)))
            .min()
            .map(|(_, n)| n);
        let chosen = core::mem::replace(&mut asking.chosen, best);
        let new = best.and_then(|n| asking.servers[n].parent(self.epoch));
        let Some(mut new) = new else {
            if let Some(old) = self.parent.take() {
                self.epoch += 1;
                self.leave(cx, usize::from(old.port.0), reason);
                self.tell(cx.out, Change::Parent(None));
            }
            return;
        };
        let old = self.parent.filter(|_| chosen == best);
        let is_same_parent = old.is_some_and(|old| {
            old.port == new.port && old.set.parent_port_identity == new.set.parent_port_identity
        });
        let is_same_time = is_same_parent
            && old.is_some_and(|old| {
                old.set.grandmaster_identity == new.set.grandmaster_identity
                    && old.time_properties.ptp_timescale == new.time_properties.ptp_timescale
            });
        if !is_same_time {
            self.epoch += 1;
            new.epoch = self.epoch;
        }
        let before = self.parent.replace(new);
        if !is_same_parent {
            if let Some(old) = before.filter(|old| old.port != new.port) {
                self.leave(cx, usize::from(old.port.0), StateReason::BetterElsewhere);
            }
            let index = usize::from(new.port.0);
            let following = Following::new(&self.ports[index].config);
            self.enter(cx, index, Role::Receiver(following), StateReason::BestTransmitter);
        }
        if !is_same_time {
            self.tell(cx.out, Change::Parent(Some(new)));
        }
    }
}
