//! The networks that interfaces are in: who is there is no stranger, to whom no more may be sent than came from there.

use std::net::IpAddr;

use nix::{ifaddrs::getifaddrs, sys::socket::SockaddrStorage};

use super::Prefix;

/// Those of all of `interfaces`.
pub fn own_networks(interfaces: &[String]) -> Vec<Prefix> {
    let Ok(entries) = getifaddrs() else { return Vec::new() };
    let mut networks: Vec<Prefix> = entries
        .filter(|entry| interfaces.contains(&entry.interface_name))
        .filter_map(|entry| {
            let (address, netmask) = (entry.address?, entry.netmask?);
            Prefix::of(ip_of(&address)?, ip_of(&netmask)?)
        })
        .collect();
    networks.sort_unstable();
    networks.dedup();
    networks
}

/// The IP address in an address of any kind.
pub(super) fn ip_of(address: &SockaddrStorage) -> Option<IpAddr> {
    if let Some(v4) = address.as_sockaddr_in() {
        return Some(v4.ip().into());
    }
    Some(address.as_sockaddr_in6()?.ip().into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn loopback_is_in_its_own_network() {
        let networks = own_networks(&["lo".to_owned()]);
        let localhost: IpAddr = [127, 0, 0, 1].into();
        assert!(networks.iter().any(|network| network.contains(localhost)), "{networks:?}");
        assert!(own_networks(&["none-of-these".to_owned()]).is_empty());
    }
}
