//! Whether PTP's groups reach an interface: membership, and bridges that forward groups only where
//! somebody asks for them.

use crate::doctor::{
    check::Check,
    facts::{Multicast, PortOwner},
};

pub(super) fn checks(multicast: &Multicast, owners: Option<&[PortOwner]>) -> Vec<Check> {
    vec![membership(multicast, owners), snooping(multicast)]
}

fn membership(multicast: &Multicast, owners: Option<&[PortOwner]>) -> Check {
    const NAME: &str = "multicast_membership";
    if !multicast.is_on {
        return Check::warn(
            NAME,
            "the interface takes no part in multicast, which PTP is sent by",
            "ip link set IFACE multicast on; or ask servers by unicast: run --unicast HOST, serve --unicast",
        );
    }
    if !multicast.groups.is_empty() {
        return Check::ok(
            NAME,
            format!("somebody here has joined {}", multicast.groups.join(", ")),
        );
    }
    match owners {
        Some([_, ..]) => Check::warn(
            NAME,
            "a PTP port is open in this network namespace, but its groups are not joined on this interface",
            "is that program to use this interface? Without membership switches may withhold PTP from it",
        ),
        _ => {
            Check::ok(NAME, "nobody has joined PTP's groups yet; run and serve do when they start")
        }
    }
}

fn snooping(multicast: &Multicast) -> Check {
    const NAME: &str = "multicast_snooping";
    let Some(bridge) = &multicast.bridge else {
        return Check::ok(NAME, "no bridge of this host is in the way")
            .advise("for switches: IGMP and MLD snooping need a querier in the network");
    };
    let name = &bridge.name;
    match (bridge.snooping, bridge.querier) {
        (false, _) => Check::ok(NAME, format!("bridge {name} sends groups to all of its ports")),
        (true, true) => Check::ok(NAME, format!("bridge {name} snoops, and asks for memberships")),
        (true, false) => Check::warn(
            NAME,
            format!(
                "bridge {name} snoops but does not ask for memberships: without another querier in the network they run out"
            ),
            format!(
                "ip link set {name} type bridge mcast_querier 1, or mcast_snooping 0, unless a router asks"
            ),
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::{check::Status, facts::Bridge};

    fn on() -> Multicast {
        Multicast { is_on: true, ..Multicast::default() }
    }

    #[test]
    fn membership_is_missed_only_where_somebody_needs_it() {
        let owner = [PortOwner { port: 319, process: None }];
        assert_eq!(membership(&Multicast::default(), None).status, Status::Warn);
        assert_eq!(membership(&on(), Some(&[])).status, Status::Ok);
        assert_eq!(membership(&on(), Some(&owner)).status, Status::Warn);
        let joined = Multicast { groups: vec!["224.0.1.129"], ..on() };
        assert_eq!(membership(&joined, Some(&owner)).status, Status::Ok);
    }

    #[test]
    fn snooping_without_a_querier_is_a_warning() {
        let status = |snooping, querier| {
            let bridge = Some(Bridge { name: "br0".to_owned(), snooping, querier });
            snooping_status(&Multicast { bridge, ..on() })
        };
        assert_eq!(status(true, false), Status::Warn);
        assert_eq!((status(false, false), status(true, true)), (Status::Ok, Status::Ok));
        assert_eq!(snooping_status(&on()), Status::Ok);
    }

    fn snooping_status(multicast: &Multicast) -> Status {
        snooping(multicast).status
    }
}
