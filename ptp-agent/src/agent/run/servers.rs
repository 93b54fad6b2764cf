//! Servers that are asked by CSPTP and SPTP: their names and where those are, and how it is with each.

use ptp_common::{
    time::{Mono, Time},
    wire::csptp,
};

use crate::{
    agent::bound,
    clock::followed::Followed,
    engine::{
        Commands, Context, Monotonic, PortIndex,
        csptp::{Protocol, ServerConfig},
        discipline::{Discipline, Event},
    },
    publish::snapshot::ServerStatus,
    transport::resolve::{Resolver, way_to},
};

/// A server as it is configured.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NamedServer {
    /// How it is asked.
    pub protocol: Protocol,
    /// Its name or its address.
    pub name: String,
}

/// See the module's paragraph.
#[derive(Debug)]
pub(super) struct Servers {
    named: Vec<NamedServer>,
    resolver: Resolver,
    interfaces: Vec<String>,
}

impl Servers {
    /// `None` where there are none to ask.
    pub(super) fn start(named: Vec<NamedServer>, io: &crate::agent::io::IoConfig) -> Option<Self> {
        if named.is_empty() {
            return None;
        }
        let names = named.iter().map(|server| server.name.clone());
        let resolver = Resolver::start(io.transport, names);
        Some(Self { named, resolver, interfaces: io.interfaces.clone() })
    }

    /// What the engine is told of them at first.
    pub(super) fn configs(&self, domain: u8, log_interval: i8) -> Vec<ServerConfig> {
        let domain_number = match csptp::DOMAINS.contains(&domain) {
            true => domain,
            false => csptp::DEFAULT_DOMAIN,
        };
        let addresses = self.resolver.addresses();
        let servers = self.named.iter().zip(addresses).map(|(named, address)| ServerConfig {
            domain_number,
            log_interval,
            port: self.port(address),
            ..ServerConfig::new(named.protocol, address)
        });
        servers.collect()
    }

    fn port(&self, address: Option<std::net::SocketAddr>) -> PortIndex {
        let at = address.map_or(0, |address| way_to(address, &self.interfaces));
        PortIndex(u16::try_from(at).unwrap_or(0))
    }

    /// Once a second: who has moved.
    pub(super) fn look(
        &mut self,
        engine: &mut Discipline<Followed>,
        now: Time<Mono>,
        out: &mut Commands<Event>,
    ) {
        let answering: Vec<bool> =
            engine.receiver().servers(now).map(|server| server.is_answering).collect();
        let is_silent = |n: usize| !answering.get(n).copied().unwrap_or(false);
        let moved = self.resolver.look(now, is_silent);
        for (n, address) in moved {
            let port = self.port(Some(address));
            let clock = &Monotonic::default();
            let mut cx = Context { now, clock, out: &mut *out };
            engine.move_server(&mut cx, n, Some(address), port);
        }
    }

    /// For the snapshot.
    pub(super) fn status(
        &self,
        engine: &Discipline<Followed>,
        now: Time<Mono>,
    ) -> Vec<ServerStatus> {
        let states = engine.receiver().servers(now);
        let all =
            self.named.iter().zip(states).enumerate().map(|(n, (named, state))| ServerStatus {
                name: named.name.clone(),
                protocol: named.protocol.name().into(),
                address: state.config.address.map(|address| address.ip().to_string()),
                answering: state.is_answering,
                followed: state.is_followed,
                requests: state.requests,
                exchanges: state.exchanges,
                round_trip_ns: state.round_trip.map(bound::ceiling),
                problem: self.resolver.problem(n).map(str::to_owned),
            });
        all.collect()
    }
}
