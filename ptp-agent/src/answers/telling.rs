//! What the programs are told of the interfaces: who they are, which messages they answer with, which addresses are
//! theirs and who is in their networks.

use std::{collections::BTreeMap, net::IpAddr};

use nix::ifaddrs::getifaddrs;
use ptp_common::{
    answer::{BROADCAST, OWN, PLAIN_RESPONSE, RESPONSE, flag, interface},
    classify::Network,
};

use super::{Answers, PortAnswers, Prefix, exchanges, networks::ip_of};
use crate::transport::{TransportKind, interface_mac};

impl Answers {
    pub(super) fn numbers(&self, index: usize, wanted: &PortAnswers) -> [u64; interface::LENGTH] {
        let mut numbers = [0; interface::LENGTH];
        let network = match self.transport {
            TransportKind::L2 => Network::Ethernet,
            TransportKind::Udp4 => Network::Ipv4,
            TransportKind::Udp6 => Network::Ipv6,
        };
        let stack = if self.is_stack { interface::STACK } else { 0 };
        numbers[interface::FLAGS] = interface::SERVING
            | stack
            | (index as u64) << interface::NUMBER_SHIFT
            | u64::from(network as u8) << interface::NETWORK_SHIFT
            | self.ports[index].native.flags()
            | if self.config.xdp_alone { interface::XDP_ALONE } else { 0 };
        numbers[interface::LATENCY] = wanted.latency.as_nanos() as u64;
        self.set_forms(index, &mut numbers, wanted);
        let name = &self.ports[index].interface;
        let mut mac = [0; 8];
        mac[..6].copy_from_slice(&interface_mac(name).unwrap_or_default());
        numbers[interface::MAC] = u64::from_ne_bytes(mac);
        for address in addresses_of(name) {
            match address {
                IpAddr::V4(v4) if numbers[interface::IP4] == 0 => {
                    numbers[interface::IP4] = u32::from_ne_bytes(v4.octets()).into();
                }
                IpAddr::V6(v6) => {
                    let places = if v6.is_unicast_link_local() {
                        [interface::IP6_LINK, interface::IP6]
                    } else {
                        [interface::IP6, interface::IP6]
                    };
                    let (first, second) = halves(v6.octets());
                    for at in places {
                        let is_free = numbers[at] == 0 || !v6.is_unicast_link_local();
                        if is_free {
                            (numbers[at], numbers[at + 1]) = (first, second);
                        }
                    }
                }
                IpAddr::V4(_) => {}
            }
        }
        debug_assert!(wanted.response.len() >= PLAIN_RESPONSE);
        let response = &wanted.response[..wanted.response.len().min(RESPONSE)];
        exchanges::put(&mut numbers, interface::RESPONSE, response);
        numbers
    }

    pub(super) fn own_address(&self, interface: &str) -> Option<IpAddr> {
        let is_v6 = self.transport == TransportKind::Udp6;
        addresses_of(interface).into_iter().find(|address| address.is_ipv6() == is_v6)
    }

    /// Tells the addresses and networks of the interfaces.
    pub(super) fn tell_addresses(&mut self) {
        let Ok(entries) = getifaddrs() else { return };
        let mut addresses = BTreeMap::new();
        let mut prefixes: Vec<(Prefix, u32)> = Vec::new();
        for entry in entries {
            let Some(port) = self.ports.iter().find(|port| port.interface == entry.interface_name)
            else {
                continue;
            };
            let Some(address) = entry.address.as_ref().and_then(ip_of) else { continue };
            addresses.insert((port.ifindex, key(address)), OWN);
            if let Some(broadcast) = entry.broadcast.as_ref().and_then(ip_of) {
                addresses.entry((port.ifindex, key(broadcast))).or_insert(BROADCAST);
            }
            let netmask = entry.netmask.as_ref().and_then(ip_of);
            if let Some(prefix) = netmask.and_then(|mask| Prefix::of(address, mask)) {
                prefixes.push((prefix, flag::TRUSTED));
            }
        }
        for prefix in &self.config.serve_to {
            prefixes.retain(|(other, _)| other != prefix);
            prefixes.push((*prefix, flag::TRUSTED | flag::SERVED));
        }
        // One of an interface inside one that is served is served too: the longest prefix decides.
        for (prefix, flags) in &mut prefixes {
            let (length, bytes) = prefix.mapped();
            let is_served = self.config.serve_to.iter().any(|served| {
                let (shorter, _) = served.mapped();
                let address = std::net::Ipv6Addr::from(bytes);
                let address = address.to_ipv4_mapped().map_or(IpAddr::V6(address), IpAddr::V4);
                shorter <= length && served.contains(address)
            });
            if is_served {
                *flags |= flag::SERVED;
            }
        }
        for told in [self.programs.set_addresses(addresses), self.programs.set_prefixes(&prefixes)]
        {
            if let Err(error) = told {
                tracing::debug!(%error, "answers in the kernel");
            }
        }
    }
}

fn addresses_of(interface: &str) -> Vec<IpAddr> {
    let Ok(entries) = getifaddrs() else { return Vec::new() };
    entries
        .filter(|entry| entry.interface_name == interface)
        .filter_map(|entry| ip_of(entry.address.as_ref()?))
        .collect()
}

/// An address as the programs have it.
fn key(address: IpAddr) -> [u32; 4] {
    let octets = match address {
        IpAddr::V4(v4) => v4.to_ipv6_mapped().octets(),
        IpAddr::V6(v6) => v6.octets(),
    };
    let mut words = [0; 4];
    for (word, bytes) in words.iter_mut().zip(octets.as_chunks::<4>().0) {
        *word = u32::from_ne_bytes(*bytes);
    }
    words
}

fn halves(octets: [u8; 16]) -> (u64, u64) {
    let words = octets.as_chunks::<8>().0;
    (u64::from_ne_bytes(words[0]), u64::from_ne_bytes(words[1]))
}
