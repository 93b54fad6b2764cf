//! Watching the interrupts of interfaces for a while: how far stamps are from them, and what a poll brings.

use std::{thread, time::Duration};

use nix::sys::socket::{setsockopt, sockopt::ReceiveTimestampns};
use socket2::{Domain, Socket, Type};

use crate::{
    capture::{ClockRelation, Interrupts},
    doctor::facts::Interface,
};

/// Between two looks into the rings.
const LOOK: Duration = Duration::from_millis(20);

/// All at a time, for so many seconds.
pub(super) fn watch(interfaces: &mut [Interface], seconds: u16) {
    // The stack stamps packets as long as somebody wishes it.
    let wish = Socket::new(Domain::IPV4, Type::DGRAM, None)
        .or_else(|_| Socket::new(Domain::IPV6, Type::DGRAM, None));
    if let Ok(wish) = &wish {
        let _ = setsockopt(wish, ReceiveTimestampns, &true);
    }
    let mut watched: Vec<_> =
        interfaces.iter().map(|interface| Interrupts::attach(&interface.name)).collect();
    if watched.iter().any(Result::is_ok) {
        for _ in 0..Duration::from_secs(seconds.into()).as_millis() / LOOK.as_millis() {
            thread::sleep(LOOK);
            let relation = ClockRelation::now();
            watched.iter_mut().flatten().for_each(|interrupts| interrupts.drain(&relation));
        }
    }
    for (interface, watched) in interfaces.iter_mut().zip(watched) {
        if let Some(link) = &mut interface.link {
            let seen = watched.map(|interrupts| interrupts.report());
            link.seen = Some(seen.map_err(|error| error.to_string()));
        }
    }
}
