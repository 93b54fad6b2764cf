//! The laboratory's network: who is in which namespace, and what lies between. On `veth` the agent and the
//! client beside it have a wire of their own each; on `bridge` all are ports of one bridge, which
//! forwards as a switch does, in software.

use std::net::Ipv4Addr;

use super::netns::{Namespace, NetnsError, veth};

/// What lies between grandmaster and agent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum Link {
    /// A veth pair.
    #[default]
    Veth,
    /// A bridge in a namespace of its own, and a veth pair to it for each.
    Bridge,
}

impl Link {
    /// In words.
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Veth => "veth pair between two network namespaces",
            Self::Bridge => "bridge between network namespaces",
        }
    }
}

/// Interface of the agent.
pub(super) const CLIENT_INTERFACE: &str = "ptp1";
/// Interface of the client beside it.
pub(super) const BESIDE_INTERFACE: &str = "ptp3";
/// Interfaces of the grandmaster, to the agent and to the client beside it.
const SERVER_INTERFACES: [&str; 2] = ["ptp0", "ptp2"];
/// Ports of the bridge.
const BRIDGE_PORTS: [&str; 3] = ["port0", "port1", "port2"];

/// The other end of a grandmaster's wire.
#[derive(Clone, Debug)]
pub(super) struct FarEnd {
    pub namespace: Namespace,
    pub interface: &'static str,
}

/// A grandmaster's place.
#[derive(Clone, Debug)]
pub(super) struct Server {
    pub namespace: Namespace,
    /// One port each.
    pub interfaces: Vec<&'static str>,
    /// What each interface is connected to.
    pub far_ends: Vec<FarEnd>,
}

/// The namespaces, linked and addressed. They vanish with this and the processes in them.
#[derive(Debug)]
pub(super) struct Network {
    /// One, or two where the program can have one port only and there are two wires.
    pub servers: Vec<Server>,
    pub client: Namespace,
    pub beside: Option<Namespace>,
    _bridge: Option<Namespace>,
}

impl Network {
    /// Makes it. `beside`: with a place for another client. `is_single`: the grandmaster's program has one
    /// port, and there may be two of it.
    ///
    /// # Errors
    /// What the kernel said.
    pub(super) fn new(link: Link, beside: bool, is_single: bool) -> Result<Self, NetnsError> {
        let server = Namespace::new()?;
        let client = Namespace::new()?;
        let beside = if beside { Some(Namespace::new()?) } else { None };
        match link {
            Link::Veth => Self::on_veth(server, client, beside, is_single),
            Link::Bridge => Self::on_bridge(server, client, beside),
        }
    }

    fn on_veth(
        server: Namespace,
        client: Namespace,
        beside: Option<Namespace>,
        is_single: bool,
    ) -> Result<Self, NetnsError> {
        let [first, second] = SERVER_INTERFACES;
        veth(&server, first, &client, CLIENT_INTERFACE)?;
        // TEST-NET-1 and 2 of RFC 5737: nobody has a route to them.
        server.add_address(first, Ipv4Addr::new(192, 0, 2, 1).into(), 24)?;
        client.add_address(CLIENT_INTERFACE, Ipv4Addr::new(192, 0, 2, 2).into(), 24)?;
        let far_end =
            |namespace: &Namespace, interface| FarEnd { namespace: namespace.clone(), interface };
        let mut servers = vec![Server {
            namespace: server.clone(),
            interfaces: vec![first],
            far_ends: vec![far_end(&client, CLIENT_INTERFACE)],
        }];
        if let Some(beside) = &beside {
            let other = if is_single { Namespace::new()? } else { server };
            veth(&other, second, beside, BESIDE_INTERFACE)?;
            other.add_address(second, Ipv4Addr::new(198, 51, 100, 1).into(), 24)?;
            beside.add_address(BESIDE_INTERFACE, Ipv4Addr::new(198, 51, 100, 2).into(), 24)?;
            let far = far_end(beside, BESIDE_INTERFACE);
            match servers.first_mut().filter(|_| !is_single) {
                Some(server) => {
                    server.interfaces.push(second);
                    server.far_ends.push(far);
                }
                None => servers.push(Server {
                    namespace: other,
                    interfaces: vec![second],
                    far_ends: vec![far],
                }),
            }
        }
        Ok(Self { servers, client, beside, _bridge: None })
    }

    fn on_bridge(
        server: Namespace,
        client: Namespace,
        beside: Option<Namespace>,
    ) -> Result<Self, NetnsError> {
        let bridge = Namespace::new()?;
        let mut ports = vec![(&server, SERVER_INTERFACES[0]), (&client, CLIENT_INTERFACE)];
        ports.extend(beside.as_ref().map(|beside| (beside, BESIDE_INTERFACE)));
        for (last, ((namespace, interface), port)) in (1..).zip(ports.iter().zip(BRIDGE_PORTS)) {
            veth(namespace, interface, &bridge, port)?;
            namespace.add_address(interface, Ipv4Addr::new(192, 0, 2, last).into(), 24)?;
        }
        bridge.bridge("br0", &BRIDGE_PORTS[..ports.len()])?;
        bridge.set_up("br0")?;
        let far_ends = vec![FarEnd { namespace: bridge.clone(), interface: BRIDGE_PORTS[0] }];
        let interfaces = vec![SERVER_INTERFACES[0]];
        let servers = vec![Server { namespace: server, interfaces, far_ends }];
        Ok(Self { servers, client, beside, _bridge: Some(bridge) })
    }
}
