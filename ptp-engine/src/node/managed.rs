//! Ports and links that are switched by management: ENABLE_PORT, DISABLE_PORT and the threshold of a link.

use super::Node;
use crate::{
    PortIndex,
    instance::Cx,
    outcome::{LinkTold, StateReason},
    seam::LinkState,
};
use ptp_common::time::Duration;

/// What management has for a port or its link.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum PortCommand {
    /// Whether it takes part.
    Enable(bool),
    /// `neighborPropDelayThresh`.
    Threshold(Duration),
    /// Interval of Pdelay_Req, log2 s.
    PdelayInterval(i8),
    /// `delayAsymmetry`.
    Asymmetry(Duration),
    /// What another program says of the link, of a port of [`LinkDelayService::Told`](crate::config::LinkDelayService::Told).
    Told(LinkTold),
}

impl Node {
    /// Does what management has for a port.
    pub fn manage_port(&mut self, cx: &mut Cx<'_>, on: PortIndex, command: PortCommand) {
        match command {
            PortCommand::Enable(is_enabled) => self.enable_port(cx, on, is_enabled),
            PortCommand::Threshold(threshold) => self.set_neighbor_threshold(on, threshold),
            PortCommand::PdelayInterval(log) => self.set_log_pdelay_req_interval(cx, on, log),
            PortCommand::Asymmetry(asymmetry) => {
                self.instance_mut().set_port_delay_asymmetry(on, asymmetry);
            }
            PortCommand::Told(told) => self.link_told(cx, on, told),
        }
    }

    /// Whether a port takes part at all, whatever its link does: DISABLED where not.
    pub(crate) fn enable_port(&mut self, cx: &mut Cx<'_>, on: PortIndex, is_enabled: bool) {
        let Some(link) = self.links.get_mut(usize::from(on.0)) else { return };
        link.is_enabled = is_enabled;
        let state = link.usable();
        self.link_usable(cx, on, state, [StateReason::Disabled, StateReason::Enabled]);
    }

    /// As for [`crate::config::AsCapable::neighbor_prop_delay_threshold`]; it is kept where nobody asks for it.
    fn set_neighbor_threshold(&mut self, on: PortIndex, threshold: Duration) {
        if let Some(link) = self.links.get_mut(usize::from(on.0)) {
            link.set_threshold(threshold);
        }
    }

    /// The interval of Pdelay_Req on a link from now on, log2 s.
    fn set_log_pdelay_req_interval(&mut self, cx: &Cx<'_>, on: PortIndex, log: i8) {
        if let Some(link) = self.links.get_mut(usize::from(on.0)) {
            link.set_interval(cx.now, Some(log));
        }
    }

    /// A port and its link can be used, or cannot.
    pub(super) fn link_usable(
        &mut self,
        cx: &mut Cx<'_>,
        on: PortIndex,
        state: LinkState,
        reasons: [StateReason; 2],
    ) {
        let index = usize::from(on.0);
        let asks = self.instances[0].asks_for_link_delay();
        if let Some(link) = self.links.get_mut(index)
            && link.set_state(state)
            && asks
        {
            link.start(cx.now);
        }
        self.tell_capability(index);
        for instance in &mut self.instances {
            instance.link_usable(cx, on, state, reasons);
        }
    }
}
