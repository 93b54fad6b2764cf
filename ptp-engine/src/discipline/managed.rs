//! What a time receiver is told by management while it runs.

use super::*;
use crate::node::PortCommand;

impl<C: Clock> Discipline<C> {
    /// The instance that the clock follows, to be told something. Whom it follows is no such thing.
    pub fn instance_mut(&mut self) -> &mut Instance {
        self.node.instance_mut()
    }

    /// As for [`Node::manage_port`].
    pub fn manage_port(
        &mut self,
        cx: &mut Context<'_, Event>,
        on: PortIndex,
        command: PortCommand,
    ) {
        self.give(cx, |node, cx| node.manage_port(cx, on, command));
        if let PortCommand::Asymmetry(_) = command {
            // Which moves the clock.
            self.forget_usual();
        }
    }
}
