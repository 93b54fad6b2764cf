//! How a time receiver is driven: its node, its witnesses, and the end of waiting for a Sync.

use super::*;

impl<C: Clock> Engine for Discipline<C> {
    type Event = Event;

    fn handle(&mut self, cx: &mut Context<'_, Event>, input: Input<'_>) {
        if !self.handled_by_ntp(cx, &input)
            && !self.handled_by_pulse(cx, &input)
            && !self.handled_by_witness(cx, &input)
        {
            self.give(cx, |node, cx| node.handle(cx, input));
        }
        self.compare(cx);
    }

    fn handle_timeout(&mut self, cx: &mut Context<'_, Event>) {
        self.give(cx, |node, cx| node.handle_timeout(cx));
        self.witnesses_due(cx);
        self.ntp_due(cx);
        if self.holdover_at.is_some_and(|at| at <= cx.now) {
            self.release(cx);
        }
    }

    fn next_timeout(&self) -> Option<Time<Mono>> {
        let ntp = self.ntp.as_ref().and_then(|ntp| ntp.next_timeout());
        [self.node.next_timeout(), self.witnesses_timeout(), ntp, self.holdover_at]
            .into_iter()
            .flatten()
            .min()
    }
}
