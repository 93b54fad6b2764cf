//! What an observer says of a port: a line of text for people, and the figures of summary and status.

use ptp_common::{
    data_set::{TimeProperties, UtcOffset},
    wire::MessageType,
};

use super::Tap;
use crate::{
    engine::observer::{Observer, PortSnapshot, Spread},
    publish::{
        metrics::message_type_name,
        snapshot::{
            AnnouncedExtras, Figures, Messages, Named, ObservedPort, ObservedRole, ObservedTold,
            Port, Way,
        },
        text,
    },
};

/// A port that only sends Signaling or Management has nothing to measure.
pub(super) fn is_worth_telling(port: &PortSnapshot) -> bool {
    port.is_time_transmitter()
        || port.is_time_receiver()
        || port.sent(MessageType::PdelayReq) > 0
        || port.sent(MessageType::Announce) > 0
}

pub(super) fn in_order(observer: &Observer) -> Vec<&PortSnapshot> {
    let mut ports: Vec<_> = observer.ports().collect();
    ports.sort_by_key(|port| (port.key.domain, port.is_local(), port.first_seen));
    ports
}

pub(super) fn causes<N: std::fmt::Display, T: std::fmt::Display>(
    totals: impl Iterator<Item = (N, T)>,
) -> String {
    let all: Vec<String> = totals.map(|(name, total)| format!("{total} {name}")).collect();
    if all.is_empty() { "nothing".to_owned() } else { all.join(", ") }
}

/// What a port does, as far as its messages tell.
fn role(port: &PortSnapshot) -> ObservedRole {
    if port.is_time_transmitter() {
        ObservedRole::TimeTransmitter
    } else if port.is_time_receiver() || port.sent(MessageType::PdelayReq) > 0 {
        ObservedRole::TimeReceiver
    } else {
        ObservedRole::Other
    }
}

/// What stands behind its Announce.
fn extras(port: &PortSnapshot) -> AnnouncedExtras {
    let time = port.announced.map(|it| TimeProperties::new(it.flags, &it.announce).utc_offset());
    let ahead = time.and_then(UtcOffset::known).map(|it| it.as_nanos() / 1_000_000_000);
    AnnouncedExtras::new(&port.extras, ahead)
}

/// One line of text about a port.
pub(super) fn line(tap: &Tap, port: &PortSnapshot) -> String {
    let domain = port.key.domain;
    let mut parts = vec![format!(
        "{}{} domain {}{}: {} ({} {})",
        tap.name(domain.interface),
        domain.vlan.map_or(String::new(), |vlan| format!(" VLAN {vlan}")),
        domain.domain_number,
        if domain.sdo_id == 0 { String::new() } else { format!(" sdoId {:#05x}", domain.sdo_id) },
        port.key.port_identity,
        if port.is_local() { "local" } else { "remote" },
        Named::from(role(port)).to_string().replace('_', " "),
    )];
    if let Some(sample) = &port.sample {
        parts.push(format!("offset {:+} ns", sample.offset.as_nanos()));
        if let Some(delay) = sample.delay {
            parts.push(format!("delay {} ns", delay.as_nanos()));
        }
        if let Some(faster) = sample.frequency_ppb {
            parts.push(format!("frequency {:+.1} ppb", -faster));
        }
    }
    let spread = |what: &str, spread: &Spread| {
        let (mean, sd) = (text::nanos(spread.mean), text::nanos(spread.sd()));
        format!("{what} {mean} (sd {sd}, {})", spread.count)
    };
    for (what, figures) in [
        ("claims Sync later than stamped by", &port.sync_claim),
        ("Delay_Req later than stamped by", &port.delay_claim),
    ] {
        if figures.count > 0 {
            parts.push(spread(what, figures));
        }
    }
    if port.sample.is_none() && port.delay.count > 0 {
        parts.push(spread("link delay", &port.delay));
    }
    if port.exchanges.delay > 0 {
        parts.push(format!("{} delay requests answered", port.exchanges.delay));
    }
    let told = ObservedTold::new(&port.told);
    parts.extend(told.lines().map(|(what, text)| format!("{what} {text}")));
    parts.extend(extras(port).lines().map(|(what, text)| format!("{what} {text}")));
    let lost: u64 = port.losses.iter().map(|(_, total)| total).sum();
    parts.push(format!("lost {lost}"));
    parts.join("  ")
}

/// All ports for the summary and the status.
pub(super) fn ports(tap: &Tap, observer: &Observer) -> Vec<Port> {
    in_order(observer).into_iter().map(|port| figures(tap, port)).collect()
}

fn figures(tap: &Tap, port: &PortSnapshot) -> Port {
    let domain = port.key.domain;
    let spread = |spread: &Spread| {
        (spread.count > 0).then(|| Figures {
            n: spread.count,
            mean: spread.mean,
            sd: spread.sd(),
            min: spread.min,
            max: spread.max,
        })
    };
    let named = |(name, total): (&str, u64)| (name.to_owned(), total);
    let messages = MessageType::ALL
        .into_iter()
        .map(|kind| (message_type_name(kind), port.sent(kind)))
        .filter(|(_, total)| *total > 0);
    let way = if port.is_local() { Way::Tx } else { Way::Rx };
    Port {
        interface: Some(tap.name(domain.interface).to_owned()),
        observed: ObservedPort {
            vlan: domain.vlan,
            domain: Some(domain.domain_number),
            sdo_id: Some(domain.sdo_id),
            port: Some(port.key.port_identity.to_string()),
            direction: Some(way.into()),
            role: Some(role(port).into()),
            grandmaster: port.announced.map(|it| it.announce.grandmaster_identity.to_string()),
            extras: extras(port),
            told: ObservedTold::new(&port.told),
            exchanges: port.exchanges.iter().map(named).collect(),
            lost: port.losses.iter().filter(|(_, total)| *total > 0).map(named).collect(),
            offset_ns: port.sample.map(|sample| sample.offset.as_nanos()),
            raw_offset_ns: spread(&port.offset),
            delay_ns: spread(&port.delay),
            sync_claim_ns: spread(&port.sync_claim),
            delay_req_claim_ns: spread(&port.delay_claim),
        },
        messages: Some(Messages::ByType(messages.map(named).collect())),
        ..Port::default()
    }
}
