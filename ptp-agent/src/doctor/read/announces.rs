//! Listening for grandmasters before any agent runs: Announce messages of every domain, on every
//! transport; and beside the sockets what passes the hook and reaches none of them. Nothing is sent but the
//! memberships of the multicast groups.

use std::{cell::RefCell, collections::BTreeMap, time::Duration};

use ptp_common::{
    data_set::TimeProperties,
    wire::{Body, MessageView, PortIdentity},
};
use tokio::{
    runtime,
    time::{Instant, timeout_at},
};

use crate::{
    capture::{Hearsay, Options, Programs, TcPlace},
    doctor::facts::{Heard, Heralded},
    engine::{bmca::DataSet, esmc::Watch},
    publish::snapshot::EsmcStatus,
    synce,
    sys::clock::monotonic,
    transport::{MAX_MESSAGE, Marking, Transport, TransportKind},
};

/// Domains and profiles that are told apart: more are a flood.
const MOST: usize = 256;

/// Listens on all interfaces at once, for `seconds`; in their order.
pub(super) fn listen(interfaces: &[String], seconds: u16) -> Vec<Heard> {
    let silence = |error: &str| Heard { seconds, deaf: vec![error.to_owned()], ..Heard::default() };
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
    let ear = RefCell::new(Ear::new(interface));
    let slow = synce::listen(interface);
    let all = TransportKind::ALL.map(|kind| on_transport(kind, interface, until, &ear));
    let mut heard = Heard { seconds, ..Heard::default() };
    let mut listened = Vec::new();
    for (transport, outcome) in
        TransportKind::ALL.into_iter().zip(futures_util::future::join_all(all).await)
    {
        match outcome {
            Ok(best) => {
                heard.best.extend(best);
                listened.push(transport);
            }
            Err(problem) => heard.deaf.push(problem),
        }
    }
    tokio::time::sleep_until(until).await;
    let mut ear = ear.into_inner();
    ear.drain();
    heard.unheard = ear.hearsay.unheard(interface, &listened);
    heard.esmc = slow.map_err(|error| error.to_string()).and_then(|(_, socket)| {
        let (mut watch, now) = (Watch::default(), monotonic());
        synce::drain(&socket, now, &mut watch).map_err(|error| error.to_string())?;
        let is_any = watch.last().is_some() || watch.counts().malformed > 0;
        Ok(is_any.then(|| EsmcStatus::new(interface, now, &watch, 0)))
    });
    heard
}

/// What passes the hook, where this process may have programs there.
struct Ear {
    programs: Option<Programs>,
    hearsay: Hearsay,
}

impl Ear {
    fn new(interface: &str) -> Self {
        let options = Options { place: TcPlace::InFront, ..Options::default() };
        let programs = Programs::load(options).ok().and_then(|mut programs| {
            // Before Linux 6.6 that would leave a queueing discipline behind.
            let may = programs.features().tcx;
            (may && programs.attach(interface).is_ok()).then_some(programs)
        });
        Self { programs, hearsay: Hearsay::default() }
    }

    fn drain(&mut self) {
        if let Some(programs) = &mut self.programs {
            programs.drain(|record| self.hearsay.note(monotonic(), &record));
        }
    }

    fn delivered(&mut self, transport: TransportKind, message: &[u8]) {
        self.drain();
        self.hearsay.delivered(transport, message);
    }
}

async fn on_transport(
    transport: TransportKind,
    interface: &str,
    until: Instant,
    ear: &RefCell<Ear>,
) -> Result<Vec<Heralded>, String> {
    let sockets = Transport::open(transport, interface, &Marking::default())
        .map_err(|error| error.to_string())?;
    // At most one for each domain and profile.
    let mut best: BTreeMap<(u8, u16), Heralded> = BTreeMap::new();
    let mut buffer = [0; MAX_MESSAGE];
    while Instant::now() < until
        && let Ok(received) = timeout_at(until, sockets.receive(&mut buffer)).await
    {
        let length = received.map_err(|error| format!("{transport}: {error}"))?.length;
        ear.borrow_mut().delivered(transport, &buffer[..length]);
        let Some(heralded) = heralded(transport, &buffer[..length]) else { continue };
        if best.len() == MOST {
            break;
        }
        let known = best.entry((heralded.domain, heralded.sdo_id)).or_insert(heralded);
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
        sdo_id: header.sdo_id,
        data_set: DataSet::new(&announce, header.source_port_identity, PortIdentity::default()),
        time: TimeProperties::new(header.flags, &announce),
    })
}
