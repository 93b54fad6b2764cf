//! Which interfaces are the ports of a transparent clock. Messages are timed as low as this host can see
//! them: a port that is a VLAN or a macvlan is followed down to the device that it is stacked on, and a bond
//! to its members, so that a queue anywhere above is inside the residence. What is stacked on the same device
//! is one port. The kernel is asked again every second: bridges get and lose ports.

use std::{collections::BTreeSet, io};

use futures_util::TryStreamExt as _;
use rtnetlink::packet_route::link::{
    BridgePortState, InfoBridge, InfoBridgePort, InfoData, InfoKind, InfoPortData, LinkAttribute,
    LinkFlags, LinkInfo, LinkMessage, LinkXdp, XdpAttached,
};

use super::flowtables::{self, Flows};

/// What is to be a port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Wanted {
    /// These interfaces.
    Interfaces(Vec<String>),
    /// All ports of a bridge, those included that join later.
    Bridge(String),
}

/// How an interface is stacked on others.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Stacked {
    /// It is not.
    #[default]
    No,
    /// On one device: a VLAN or a macvlan.
    On(u32),
    /// On all that name it as their controller: a bond or a team.
    OnMembers,
}

/// An interface as the kernel describes it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Link {
    /// Its number.
    pub index: u32,
    /// Its name.
    pub name: String,
    /// What is below it.
    pub stacked: Stacked,
    /// The bridge or bond that it belongs to.
    pub controller: Option<u32>,
    /// Kind of the queueing discipline at its root.
    pub qdisc: String,
    /// Whether it is a port of a switch in hardware.
    pub is_switched: bool,
    /// Whether it is up.
    pub is_up: bool,
    /// Whether an XDP program is on it.
    pub has_xdp: bool,
    /// What forwards its packets past the usual way.
    pub flows: Flows,
    /// As a port of a bridge: which link-local groups it forwards, one bit for each last octet; as a bridge, for
    /// all of its ports.
    pub group_mask: u16,
    /// Whether its bridge forwards from and to it, as far as the spanning tree is concerned.
    pub is_forwarding: bool,
}

/// A port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Port {
    /// Name of the device that the port comes down to.
    pub name: String,
    /// Devices where messages are timed: number and name.
    pub leaves: Vec<(u32, String)>,
    /// All interfaces that are this port, as the kernel may name it.
    pub members: BTreeSet<u32>,
    /// No queue is in front of the driver.
    pub has_no_queue: bool,
    /// At least one device is up.
    pub is_up: bool,
    /// Packets may pass a switch in hardware, where nobody sees them.
    pub is_switched: bool,
    /// An XDP program is on a device; what that forwards by itself never comes here.
    pub has_xdp: bool,
    /// Of all interfaces that are this port.
    pub flows: Flows,
    /// The bridge forwards the link-local group of peer delay from here.
    pub is_leaky: bool,
    /// Devices between which link-local messages may be relayed: nothing is stacked on them, and no spanning tree
    /// blocks them.
    pub relays: Vec<u32>,
}

/// More than that are never stacked.
const DEPTH: usize = 8;

/// Of a mask of link-local groups: 01-80-C2-00-00-0E.
const PEER_DELAY_BIT: u16 = 1 << 0xe;

/// All interfaces of this network namespace.
///
/// # Errors
/// What the kernel says.
pub async fn links() -> io::Result<Vec<Link>> {
    let (connection, handle, _) = rtnetlink::new_connection()?;
    let task = tokio::spawn(connection);
    let messages: Result<Vec<_>, _> = handle.link().get().execute().try_collect().await;
    task.abort();
    let mut links: Vec<Link> = messages.map_err(io::Error::other)?.iter().map(link).collect();
    match flowtables::read() {
        Ok(tables) => {
            for link in &mut links {
                link.flows = flowtables::of(&tables, &link.name);
            }
        }
        Err(error) => tracing::debug!(%error, "flowtables cannot be listed"),
    }
    Ok(links)
}

fn link(message: &LinkMessage) -> Link {
    let mut link = Link {
        index: message.header.index,
        is_up: message.header.flags.contains(LinkFlags::Up),
        is_forwarding: true,
        ..Link::default()
    };
    let (mut kind, mut lower, mut is_elsewhere) = (None, None, false);
    for attribute in &message.attributes {
        match attribute {
            LinkAttribute::IfName(name) => link.name.clone_from(name),
            LinkAttribute::Qdisc(qdisc) => link.qdisc.clone_from(qdisc),
            LinkAttribute::Controller(index) => link.controller = Some(*index),
            LinkAttribute::Link(index) => lower = Some(*index),
            // The device below is in another namespace.
            LinkAttribute::LinkNetNsId(_) => is_elsewhere = true,
            LinkAttribute::PhysSwitchId(_) => link.is_switched = true,
            LinkAttribute::Xdp(about) => {
                link.has_xdp = about
                    .iter()
                    .any(|it| matches!(it, LinkXdp::Attached(how) if *how != XdpAttached::None));
            }
            LinkAttribute::LinkInfo(info) => {
                for info in info {
                    match info {
                        LinkInfo::Kind(it) => kind = Some(it.clone()),
                        LinkInfo::Data(InfoData::Bridge(about)) => {
                            link.group_mask = about.iter().fold(0, |mask, it| match it {
                                InfoBridge::GroupFwdMask(more) => mask | more,
                                _ => mask,
                            });
                        }
                        LinkInfo::PortData(InfoPortData::BridgePort(about)) => {
                            for it in about {
                                match it {
                                    InfoBridgePort::GroupFwdMask(mask) => link.group_mask = *mask,
                                    InfoBridgePort::State(state) => {
                                        link.is_forwarding = *state == BridgePortState::Forwarding;
                                    }
                                    _ => {}
                                }
                            }
                        }
                        _ => {}
                    }
                }
            }
            _ => {}
        }
    }
    link.stacked = match (kind, lower) {
        (Some(InfoKind::Vlan | InfoKind::MacVlan | InfoKind::MacVtap), Some(lower))
            if !is_elsewhere =>
        {
            Stacked::On(lower)
        }
        (Some(InfoKind::Bond | InfoKind::Team), _) => Stacked::OnMembers,
        _ => Stacked::No,
    };
    link
}

/// The device that an interface comes down to.
fn base(links: &[Link], mut index: u32) -> u32 {
    for _ in 0..DEPTH {
        match links.iter().find(|link| link.index == index).map(|link| link.stacked) {
            Some(Stacked::On(lower)) if links.iter().any(|link| link.index == lower) => {
                index = lower;
            }
            _ => break,
        }
    }
    index
}

/// The names among `wanted` that no interface has.
pub fn missing(links: &[Link], wanted: &Wanted) -> Vec<String> {
    let names = match wanted {
        Wanted::Interfaces(names) => names.as_slice(),
        Wanted::Bridge(name) => std::slice::from_ref(name),
    };
    let is_missing = |name: &&String| links.iter().all(|link| link.name != **name);
    names.iter().filter(is_missing).cloned().collect()
}

/// The ports among the interfaces, in the order of their names.
pub fn ports(links: &[Link], wanted: &Wanted) -> Vec<Port> {
    let is_wanted = |link: &&Link| match wanted {
        Wanted::Interfaces(names) => names.contains(&link.name),
        Wanted::Bridge(name) => {
            let bridge = links.iter().find(|link| link.name == *name);
            bridge.is_some_and(|bridge| link.controller == Some(bridge.index))
        }
    };
    let bases: BTreeSet<u32> =
        links.iter().filter(is_wanted).map(|link| base(links, link.index)).collect();
    let mut ports: Vec<Port> = bases.into_iter().filter_map(|base| port(links, base)).collect();
    ports.sort_by(|a, b| a.name.cmp(&b.name));
    ports
}

fn port(links: &[Link], index: u32) -> Option<Port> {
    let device = links.iter().find(|link| link.index == index)?;
    let leaves: Vec<&Link> = match device.stacked {
        Stacked::OnMembers => links.iter().filter(|link| link.controller == Some(index)).collect(),
        _ => vec![device],
    };
    let mut members: BTreeSet<u32> = links
        .iter()
        .filter(|link| base(links, link.index) == index)
        .map(|link| link.index)
        .collect();
    members.extend(leaves.iter().map(|leaf| leaf.index));
    let controller = |link: &Link| {
        let index = link.controller?;
        links.iter().find(|link| link.index == index)
    };
    let mask = |link: &Link| link.group_mask | controller(link).map_or(0, |it| it.group_mask);
    let is_member = |link: &&Link| members.contains(&link.index);
    let is_plain = device.stacked == Stacked::No && members.len() == 1;
    Some(Port {
        name: device.name.clone(),
        is_leaky: links.iter().filter(is_member).any(|link| mask(link) & PEER_DELAY_BIT != 0),
        relays: (is_plain && device.is_forwarding).then_some(index).into_iter().collect(),
        has_no_queue: leaves.iter().all(|leaf| leaf.qdisc == "noqueue"),
        is_up: leaves.iter().any(|leaf| leaf.is_up),
        is_switched: leaves.iter().any(|leaf| leaf.is_switched),
        has_xdp: leaves.iter().any(|leaf| leaf.has_xdp),
        flows: links.iter().filter(is_member).map(|link| link.flows).max().unwrap_or_default(),
        leaves: leaves.iter().map(|leaf| (leaf.index, leaf.name.clone())).collect(),
        members,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn link(index: u32, name: &str) -> Link {
        Link {
            index,
            name: name.to_owned(),
            qdisc: "noqueue".into(),
            is_forwarding: true,
            ..Link::default()
        }
    }

    fn host() -> Vec<Link> {
        vec![
            link(1, "br0"),
            Link { controller: Some(1), ..link(2, "tap0") },
            Link { qdisc: "tbf".into(), ..link(3, "eth0") },
            Link { controller: Some(1), stacked: Stacked::On(3), ..link(4, "eth0.100") },
            Link { stacked: Stacked::On(3), flows: Flows::Software, ..link(5, "eth0.200") },
            Link { controller: Some(1), stacked: Stacked::OnMembers, ..link(6, "bond0") },
            Link { controller: Some(6), has_xdp: true, ..link(7, "eth1") },
            Link { controller: Some(6), is_switched: true, ..link(8, "eth2") },
        ]
    }

    fn names(ports: &[Port]) -> Vec<&str> {
        ports.iter().map(|port| port.name.as_str()).collect()
    }

    #[test]
    fn ports_of_a_bridge_are_followed_down_to_their_devices() {
        let ports = ports(&host(), &Wanted::Bridge("br0".into()));
        assert_eq!(names(&ports), ["bond0", "eth0", "tap0"]);
        assert_eq!(ports[0].leaves, [(7, "eth1".to_owned()), (8, "eth2".to_owned())]);
        assert_eq!(ports[0].members, BTreeSet::from([6, 7, 8]));
        assert!(ports[0].is_switched && !ports[1].is_switched);
        assert!(ports[0].has_xdp && !ports[1].has_xdp);
        assert_eq!(ports[1].members, BTreeSet::from([3, 4, 5]));
        assert!(!ports[1].has_no_queue && ports[2].has_no_queue);
        assert_eq!((ports[0].flows, ports[1].flows), (Flows::None, Flows::Software));
    }

    #[test]
    fn link_local_groups_leak_where_a_bridge_or_its_port_forwards_them() {
        let mut links = host();
        let wanted = Wanted::Bridge("br0".into());
        assert!(ports(&links, &wanted).iter().all(|port| !port.is_leaky));
        links[1].group_mask = 0x4000;
        let leaky = |links: &[Link]| {
            ports(links, &wanted).iter().map(|port| port.is_leaky).collect::<Vec<_>>()
        };
        assert_eq!(leaky(&links), [false, false, true]);
        links[0].group_mask = 0xffff;
        assert_eq!(leaky(&links), [true; 3]);
        links[0].group_mask = 0x0010;
        links[1].group_mask = 0;
        assert_eq!(leaky(&links), [false; 3]);
    }

    #[test]
    fn link_local_messages_are_relayed_between_plain_ports_that_no_tree_blocks() {
        let mut links = host();
        links.push(Link { controller: Some(1), ..link(9, "tap1") });
        links.push(Link { controller: Some(1), is_forwarding: false, ..link(10, "tap2") });
        let ports = ports(&links, &Wanted::Bridge("br0".into()));
        let relays: Vec<u32> = ports.iter().flat_map(|port| port.relays.clone()).collect();
        assert_eq!(relays, [2, 9]);
    }

    #[test]
    fn what_is_stacked_on_one_device_is_one_port() {
        let both = Wanted::Interfaces(vec!["eth0.100".into(), "eth0.200".into()]);
        assert_eq!(names(&ports(&host(), &both)), ["eth0"]);
    }

    #[test]
    fn what_is_not_there_is_named() {
        assert_eq!(missing(&host(), &Wanted::Bridge("br1".into())), ["br1"]);
        let interfaces = Wanted::Interfaces(vec!["eth0".into(), "eth9".into()]);
        assert_eq!(missing(&host(), &interfaces), ["eth9"]);
        assert!(ports(&host(), &Wanted::Bridge("br1".into())).is_empty());
    }

    #[test]
    fn devices_that_name_each_other_are_no_endless_loop() {
        let links = [
            Link { stacked: Stacked::On(2), ..link(1, "a") },
            Link { stacked: Stacked::On(1), ..link(2, "b") },
        ];
        let _ = ports(&links, &Wanted::Interfaces(vec!["a".into()]));
    }
}
