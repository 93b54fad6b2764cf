//! The laboratory's network: who is in which namespace, and what lies between. On `veth` the agent and the
//! client beside it have a wire of their own each; on `bridge` all are ports of one bridge, which
//! forwards as a switch does, in software. Two network cards of the host that are joined by a cable can
//! be the wire, too: one clock is at both ends of it, so the truth is known there as well.

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
const CLIENT_INTERFACE: &str = "ptp1";
/// Interface of the client beside it.
const BESIDE_INTERFACE: &str = "ptp3";
/// Interfaces of the grandmaster, to the agent and to the client beside it.
const SERVER_INTERFACES: [&str; 2] = ["ptp0", "ptp2"];
/// Ports of the bridge.
const BRIDGE_PORTS: [&str; 3] = ["port0", "port1", "port2"];

/// The other end of a grandmaster's wire.
#[derive(Clone, Debug)]
pub(super) struct FarEnd {
    pub namespace: Namespace,
    pub interface: String,
}

/// A grandmaster's place.
#[derive(Clone, Debug)]
pub(super) struct Server {
    pub namespace: Namespace,
    /// One port each.
    pub interfaces: Vec<String>,
    /// What each interface is connected to.
    pub far_ends: Vec<FarEnd>,
}

/// Where a client is.
#[derive(Clone, Debug)]
pub(super) struct Place {
    pub namespace: Namespace,
    pub interface: String,
    /// The agent is there too.
    pub is_shared: bool,
}

impl Place {
    fn new(namespace: Namespace, interface: &str) -> Self {
        Self { namespace, interface: interface.to_owned(), is_shared: false }
    }
}

/// Of the server, for who asks it.
pub(super) const SERVER_ADDRESS: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);

/// The namespaces, linked and addressed. They vanish with this and the processes in them.
#[derive(Debug)]
pub(super) struct Network {
    /// One, or two where the program can have one port only and there are two wires.
    pub servers: Vec<Server>,
    /// Of the agent.
    pub client: Place,
    pub beside: Option<Place>,
    _bridge: Option<Namespace>,
    /// Interfaces of the host, and where they are meanwhile.
    _cards: Vec<Card>,
}

/// An interface of the host in one of the namespaces, until it is dropped.
#[derive(Debug)]
struct Card {
    namespace: Namespace,
    interface: String,
}

impl Card {
    fn adopt(namespace: &Namespace, interface: &str) -> Result<Self, NetnsError> {
        namespace.adopt(interface)?;
        Ok(Self { namespace: namespace.clone(), interface: interface.to_owned() })
    }
}

impl Drop for Card {
    fn drop(&mut self) {
        // Where that fails the kernel does it, when the namespace has gone.
        let _ = self.namespace.release(&self.interface);
    }
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

    /// Makes one of two interfaces that are joined: they are in its namespaces until it ends, and the client
    /// beside the agent shares the second with it.
    ///
    /// # Errors
    /// What the kernel said, or that one of them is in use.
    pub(super) fn on_cards(cards: &[String; 2], beside: bool) -> Result<Self, NetnsError> {
        let [server_card, client_card] = cards;
        let (server, client) = (Namespace::new()?, Namespace::new()?);
        let mut adopted = Vec::new();
        for (namespace, card, last) in [(&server, server_card, 1), (&client, client_card, 2)] {
            adopted.push(Card::adopt(namespace, card)?);
            namespace.set_up(card)?;
            namespace.add_address(card, Ipv4Addr::new(192, 0, 2, last).into(), 24)?;
        }
        for (namespace, card) in [(&server, server_card), (&client, client_card)] {
            namespace.await_link_local(card)?;
        }
        let client = Place::new(client, client_card);
        let far_end =
            FarEnd { namespace: client.namespace.clone(), interface: client_card.clone() };
        let beside = beside.then(|| Place { is_shared: true, ..client.clone() });
        let servers = vec![Server {
            namespace: server,
            interfaces: vec![server_card.clone()],
            far_ends: vec![far_end],
        }];
        Ok(Self { servers, client, beside, _bridge: None, _cards: adopted })
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
        server.add_address(first, SERVER_ADDRESS.into(), 24)?;
        client.add_address(CLIENT_INTERFACE, Ipv4Addr::new(192, 0, 2, 2).into(), 24)?;
        let far_end = |namespace: &Namespace, interface: &str| FarEnd {
            namespace: namespace.clone(),
            interface: interface.to_owned(),
        };
        let mut servers = vec![Server {
            namespace: server.clone(),
            interfaces: vec![first.to_owned()],
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
                    server.interfaces.push(second.to_owned());
                    server.far_ends.push(far);
                }
                None => servers.push(Server {
                    namespace: other,
                    interfaces: vec![second.to_owned()],
                    far_ends: vec![far],
                }),
            }
        }
        let client = Place::new(client, CLIENT_INTERFACE);
        let beside = beside.map(|beside| Place::new(beside, BESIDE_INTERFACE));
        Ok(Self { servers, client, beside, _bridge: None, _cards: Vec::new() })
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
        let far_ends =
            vec![FarEnd { namespace: bridge.clone(), interface: BRIDGE_PORTS[0].to_owned() }];
        let interfaces = vec![SERVER_INTERFACES[0].to_owned()];
        let servers = vec![Server { namespace: server, interfaces, far_ends }];
        let client = Place::new(client, CLIENT_INTERFACE);
        let beside = beside.map(|beside| Place::new(beside, BESIDE_INTERFACE));
        Ok(Self { servers, client, beside, _bridge: Some(bridge), _cards: Vec::new() })
    }
}
