//! What is told of unicast: for the status of a port and for its metrics.

use std::{borrow::Cow, collections::BTreeMap};

use ptp_common::{
    time::{Duration, Mono, Time},
    wire::Granted,
};

use crate::{
    engine::{
        PortIndex,
        address::Address,
        instance::Instance,
        unicast::service::{Service, Verdict},
    },
    publish::{
        metrics::{Direction, UnicastFigures},
        snapshot::unicast::{self as told, Grant, Unicast},
    },
};

/// As many clients are named in the status.
const NAMED: usize = 32;

fn host(address: Address) -> String {
    match address {
        Address::Socket(socket) => socket.ip().to_string(),
        Address::Mac([a, b, c, d, e, f]) => {
            format!("{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{f:02x}")
        }
    }
}

fn grants(of: [Option<(i8, Duration)>; 3]) -> BTreeMap<Cow<'static, str>, Grant> {
    Granted::ALL
        .into_iter()
        .zip(of)
        .filter_map(|(kind, grant)| {
            let (log_interval, rest) = grant?;
            let remaining_s = rest.as_secs_f64().max(0.0).round();
            Some((kind.name().into(), Grant { log_interval, remaining_s }))
        })
        .collect()
}

fn service(service: &Service, now: Time<Mono>) -> told::Service {
    let (sent, late) = service.sent();
    let names = Granted::ALL.iter().map(|kind| Cow::from(kind.name()));
    let named = service.status(now, NAMED).into_iter().map(|client| told::Client {
        address: host(client.address),
        port: client.identity.to_string(),
        grants: grants(client.grants),
    });
    told::Service {
        clients: service.clients(),
        grants: names.zip(service.grants()).collect(),
        requests: service
            .counts()
            .filter(|(_, total)| *total > 0)
            .map(|(verdict, total)| (verdict.name().into(), total))
            .collect(),
        sent,
        late,
        skipped: service.skipped(),
        of: named.collect(),
    }
}

/// For the status of a port; `None` where there is nothing to say. `names` are those of the servers.
pub(super) fn status(
    instance: &Instance,
    port: PortIndex,
    names: &[String],
    now: Time<Mono>,
) -> Option<Unicast> {
    let config = instance.port_config(port)?;
    let is_asking = config.unicast.is_some();
    let partners = instance.partners(port, now);
    let servers = partners.into_iter().zip(names).map(|(partner, name)| told::Server {
        name: name.clone(),
        address: partner.address.map(host),
        port: partner.identity.map(|identity| identity.to_string()),
        state: partner.state.into(),
        grants: grants(partner.grants),
        refusals: partner.refusals,
        unanswered: partner.unanswered,
    });
    let service = instance.service().map(|each| service(each, now));
    if !is_asking && !config.hybrid && service.is_none() {
        return None;
    }
    let delay_req = (is_asking || config.hybrid).then(|| instance.delay_path(port).name().into());
    Some(Unicast { delay_req, servers: servers.collect(), service })
}

/// For metrics; the grants of a server are those of all its ports, and told of the first.
pub(super) fn figures(instance: &Instance, port: PortIndex, now: Time<Mono>) -> UnicastFigures {
    let mut figures = UnicastFigures::default();
    let partners = instance.partners(port, now);
    for partner in &partners {
        *figures.servers.entry(partner.state).or_default() += 1;
        for (kind, grant) in Granted::ALL.into_iter().zip(partner.grants) {
            let grants = figures.grants.entry((Direction::Rx, kind.name())).or_default();
            *grants += u32::from(grant.is_some());
        }
    }
    if let Some(service) = instance.service().filter(|_| port == PortIndex(0)) {
        figures.clients = Some(service.clients());
        for (kind, grants) in Granted::ALL.into_iter().zip(service.grants()) {
            figures.grants.insert((Direction::Tx, kind.name()), grants);
        }
        let counts =
            service.counts().map(|(verdict, total): (Verdict, u64)| (verdict.name(), total));
        figures.requests = counts.collect();
        let (sent, late) = service.sent();
        let skipped = service.skipped();
        figures.messages = [("in_time", sent - late), ("late", late), ("skipped", skipped)].into();
    }
    figures
}
