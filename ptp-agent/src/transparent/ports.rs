//! Which interfaces are the ports of a transparent clock. Messages are timed as low as this host can see
//! them: a port that is a VLAN or a macvlan is followed down to the device that it is stacked on, and a bond
//! to its members, so that a queue anywhere above is inside the residence. What is stacked on the same device
//! is one port. The kernel is asked again every second: bridges get and lose ports.

use std::{collections::BTreeSet, io};

use futures_util::TryStreamExt as _;
use rtnetlink::packet_route::link::{
    InfoKind, LinkAttribute, LinkFlags, LinkInfo, LinkMessage, LinkXdp, XdpAttached,
};

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
}

/// More than that are never stacked.
const DEPTH: usize = 8;

/// All interfaces of this network namespace.
///
/// # Errors
/// What the kernel says.
pub async fn links() -> io::Result<Vec<Link>> {
    let (connection, handle, _) = rtnetlink::new_connection()?;
    let task = tokio::spawn(connection);
    let messages: Result<Vec<_>, _> = handle.link().get().execute().try_collect().await;
    task.abort();
    Ok(messages.map_err(io::Error::other)?.iter().map(link).collect())
}

fn link(message: &LinkMessage) -> Link {
    let mut link = Link {
        index: message.header.index,
        is_up: message.header.flags.contains(LinkFlags::Up),
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
                kind = info.iter().find_map(|info| match info {
                    LinkInfo::Kind(kind) => Some(kind.clone()),
                    _ => None,
                });
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
    Some(Port {
        name: device.name.clone(),
        has_no_queue: leaves.iter().all(|leaf| leaf.qdisc == "noqueue"),
        is_up: leaves.iter().any(|leaf| leaf.is_up),
        is_switched: leaves.iter().any(|leaf| leaf.is_switched),
        has_xdp: leaves.iter().any(|leaf| leaf.has_xdp),
        leaves: leaves.iter().map(|leaf| (leaf.index, leaf.name.clone())).collect(),
        members,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn link(index: u32, name: &str) -> Link {
        Link { index, name: name.to_owned(), qdisc: "noqueue".into(), ..Link::default() }
    }

    fn host() -> Vec<Link> {
        vec![
            link(1, "br0"),
            Link { controller: Some(1), ..link(2, "tap0") },
            Link { qdisc: "tbf".into(), ..link(3, "eth0") },
            Link { controller: Some(1), stacked: Stacked::On(3), ..link(4, "eth0.100") },
            Link { stacked: Stacked::On(3), ..link(5, "eth0.200") },
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
