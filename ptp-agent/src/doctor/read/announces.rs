//! Listening for grandmasters before any agent runs: Announce messages of every domain, on every
//! transport. Nothing is sent but the memberships of the multicast groups.

use std::{collections::BTreeMap, time::Duration};

use ptp_common::wire::{Body, MessageView, PortIdentity};
use tokio::{
    runtime,
    time::{Instant, timeout_at},
};

use crate::{
    doctor::facts::{Heard, Heralded},
    engine::{bmca::DataSet, receiver::TimeProperties},
    transport::{MAX_MESSAGE, Transport, TransportKind},
};

/// Listens on all interfaces at once, for `seconds`; in their order.
pub(super) fn listen(interfaces: &[String], seconds: u16) -> Vec<Heard> {
    let silence = |error: &str| Heard { seconds, best: Vec::new(), deaf: vec![error.to_owned()] };
    let runtime = match runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return vec![silence(&error.to_string()); interfaces.len()],
    };
    runtime.block_on(async {
        let until = Instant::now() + Duration::from_secs(seconds.into());
        let all = interfaces.iter().map(|interface| on_interface(interface, seconds, until));
        futures_util::future::join_all(all).await
    })
}

async fn on_interface(interface: &str, seconds: u16, until: Instant) -> Heard {
    let all = TransportKind::ALL.map(|kind| on_transport(kind, interface, until));
    let mut heard = Heard { seconds, ..Heard::default() };
    for outcome in futures_util::future::join_all(all).await {
        match outcome {
            Ok(best) => heard.best.extend(best),
            Err(problem) => heard.deaf.push(problem),
        }
    }
    heard
}

async fn on_transport(
    transport: TransportKind,
    interface: &str,
    until: Instant,
) -> Result<Vec<Heralded>, String> {
    let sockets = Transport::open(transport, interface).map_err(|error| error.to_string())?;
    // At most one for each domain.
    let mut best: BTreeMap<u8, Heralded> = BTreeMap::new();
    let mut buffer = [0; MAX_MESSAGE];
    while Instant::now() < until
        && let Ok(received) = timeout_at(until, sockets.receive(&mut buffer)).await
    {
        let length = received.map_err(|error| format!("{transport}: {error}"))?.length;
        let Some(heralded) = heralded(transport, &buffer[..length]) else { continue };
        let known = best.entry(heralded.domain).or_insert(heralded);
        // The latest of the same one counts, for its time properties may have changed.
        if !known.data_set.is_better_than(&heralded.data_set) {
            *known = heralded;
        }
    }
    Ok(best.into_values().collect())
}

fn heralded(transport: TransportKind, bytes: &[u8]) -> Option<Heralded> {
    let message = MessageView::new(bytes).ok()?;
    let Ok(Body::Announce(announce)) = message.body() else { return None };
    let header = message.header();
    Some(Heralded {
        transport,
        domain: header.domain_number,
        data_set: DataSet::new(&announce, header.source_port_identity, PortIdentity::default()),
        time: TimeProperties::new(header.flags, &announce),
    })
}
