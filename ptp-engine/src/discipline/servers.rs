//! Servers that are asked (`csptp`), and change their places.

use core::net::SocketAddr;

use super::{Discipline, Event};
use crate::{PortIndex, clock::Clock, seam::Context};

impl<C: Clock> Discipline<C> {
    /// As for [`Instance::move_server`](crate::instance::Instance::move_server).
    pub fn move_server(
        &mut self,
        cx: &mut Context<'_, Event>,
        n: usize,
        address: Option<SocketAddr>,
        port: PortIndex,
    ) {
        self.give(cx, |node, cx| node.instance_mut().move_server(cx, n, address, port));
    }
}
