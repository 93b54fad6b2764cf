//! A transparent clock's ports come and go: programs are attached and detached, and what is special about a port
//! is said once.

use std::collections::BTreeSet;

use ptp_common::residence::MAX_PORTS;

use super::{
    Delay, Transparent, TransparentError,
    ports::{self, Port},
    programs::PortError,
};

impl Transparent {
    /// Looks which ports there are now.
    pub(super) async fn look_at_ports(&mut self) {
        match ports::links().await {
            Ok(links) => {
                let ports = ports::ports(&links, &self.config.wanted);
                if let Err(error) = self.take_ports(ports, false) {
                    tracing::warn!(%error, "port");
                }
            }
            Err(error) => tracing::warn!(%error, "interfaces cannot be listed"),
        }
    }

    /// Attaches to new ports, and detaches from those that have gone. Where a port cannot be had, the others
    /// go on, unless `strictly`.
    pub(super) fn take_ports(
        &mut self,
        ports: Vec<Port>,
        strictly: bool,
    ) -> Result<(), TransparentError> {
        let leaves: BTreeSet<u32> =
            ports.iter().flat_map(|port| port.leaves.iter().map(|(index, _)| *index)).collect();
        for ifindex in self.programs.attached() {
            if !leaves.contains(&ifindex) {
                self.programs.detach(ifindex);
            }
        }
        let names: BTreeSet<&String> = ports.iter().map(|port| &port.name).collect();
        let gone: Vec<String> =
            self.ports.keys().filter(|name| !names.contains(name)).cloned().collect();
        for name in gone {
            if let Some((_, port)) = self.ports.remove(&name) {
                tracing::info!(port = name, "is no port any more");
                for ifindex in port.members {
                    self.programs.set_port(ifindex, None).map_err(PortError::from)?;
                }
            }
        }
        for port in ports {
            let known = self.ports.get(&port.name).map(|(number, port)| (*number, port.clone()));
            if known.as_ref().is_some_and(|(_, old)| *old == port)
                && port.leaves.iter().all(|(index, _)| self.programs.is_attached(*index))
            {
                continue;
            }
            let Some(number) = known.as_ref().map(|(number, _)| *number).or_else(|| self.free())
            else {
                tracing::warn!(port = port.name, "more ports than {MAX_PORTS}: not corrected");
                continue;
            };
            if known.is_none() {
                self.programs.clear(number);
            }
            for (ifindex, leaf) in &port.leaves {
                if self.programs.is_attached(*ifindex) {
                    continue;
                }
                match self.programs.attach(*ifindex, leaf) {
                    Ok(()) => {
                        self.refused.remove(ifindex);
                        tracing::info!(port = port.name, interface = leaf, "correcting");
                    }
                    Err(error) if strictly => return Err(error.into()),
                    Err(error) if self.refused.insert(*ifindex) => {
                        tracing::warn!(%error, interface = leaf, "cannot be a port");
                    }
                    Err(_) => {}
                }
            }
            let old = known.map(|(_, port)| port.members).unwrap_or_default();
            for ifindex in old.difference(&port.members) {
                self.programs.set_port(*ifindex, None).map_err(PortError::from)?;
            }
            for ifindex in &port.members {
                let told = Some((number, port.has_no_queue));
                self.programs.set_port(*ifindex, told).map_err(PortError::from)?;
            }
            let old = self.ports.get(&port.name).map(|(_, old)| old);
            let had_xdp = old.is_some_and(|old| old.has_xdp);
            let had_flows = old.map(|old| old.flows).unwrap_or_default();
            let was_leaky = old.is_some_and(|old| old.is_leaky);
            if port.has_xdp && !had_xdp {
                tracing::info!(
                    port = port.name,
                    "an XDP program is there: what it forwards by itself is neither seen nor corrected"
                );
            }
            if port.flows != had_flows {
                port.flows.tell(&port.name);
            }
            let link_ns = self.link_delays.get(&port.name).copied().unwrap_or(0);
            self.programs.set_link_delay(number, link_ns.into()).map_err(PortError::from)?;
            if self.config.delay == Delay::P2p && port.is_leaky && !was_leaky {
                tracing::warn!(
                    port = port.name,
                    "the bridge forwards peer delay messages, so that nobody measures the link: `ip link set BRIDGE type bridge group_fwd_mask 0`"
                );
            }
            self.ports.insert(port.name.clone(), (number, port));
        }
        let relays: Vec<u32> = self
            .ports
            .values()
            .filter(|(_, port)| !port.is_leaky)
            .flat_map(|(_, port)| port.relays.clone())
            .collect();
        if relays != self.relays {
            self.programs.set_relays(&relays).map_err(PortError::from)?;
            self.relays = relays;
        }
        Ok(())
    }

    fn free(&self) -> Option<u8> {
        let taken: BTreeSet<u8> = self.ports.values().map(|(number, _)| *number).collect();
        (1..=u8::try_from(MAX_PORTS).unwrap_or(u8::MAX)).find(|number| !taken.contains(number))
    }
}
