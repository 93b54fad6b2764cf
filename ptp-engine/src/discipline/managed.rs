//! What a time receiver is told by management while it runs.

use super::*;

impl<C: Clock> Discipline<C> {
    /// The instance that the clock follows, to be told something. Whom it follows is no such thing.
    pub fn instance_mut(&mut self) -> &mut Instance {
        self.node.instance_mut()
    }

    /// As for [`Node::enable_port`].
    pub fn enable_port(&mut self, cx: &mut Context<'_, Event>, on: PortIndex, is_enabled: bool) {
        self.give(cx, |node, cx| node.enable_port(cx, on, is_enabled));
    }

    /// As for [`Node::set_neighbor_threshold`].
    pub fn set_neighbor_threshold(&mut self, on: PortIndex, threshold: Duration) {
        self.node.set_neighbor_threshold(on, threshold);
    }

    /// As for [`Node::set_log_pdelay_req_interval`].
    pub fn set_log_pdelay_req_interval(
        &mut self,
        cx: &mut Context<'_, Event>,
        on: PortIndex,
        log: i8,
    ) {
        self.give(cx, |node, cx| node.set_log_pdelay_req_interval(cx, on, log));
    }

    /// As for [`Instance::set_port_delay_asymmetry`].
    pub fn set_port_delay_asymmetry(&mut self, on: PortIndex, asymmetry: Duration) {
        self.node.instance_mut().set_port_delay_asymmetry(on, asymmetry);
        // Which moves the clock.
        self.forget_usual();
    }
}
