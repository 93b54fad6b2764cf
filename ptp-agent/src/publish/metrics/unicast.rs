//! Families of unicast negotiation: what is granted, to whom, and what became of it.

use super::{
    UnicastFigures,
    family::{
        Families, UNICAST_CLIENTS, UNICAST_GRANTS, UNICAST_MESSAGES, UNICAST_REQUESTS,
        UNICAST_SERVERS,
    },
};

pub(super) fn add(families: &mut Families, port: &[(&str, &str); 2], figures: &UnicastFigures) {
    let with = |more: (&'static str, &'static str)| [port[0], port[1], more];
    if let Some(clients) = figures.clients {
        families.add(&UNICAST_CLIENTS, port, clients as f64);
    }
    for (state, count) in &figures.servers {
        families.add(&UNICAST_SERVERS, &with(("state", state)), f64::from(*count));
    }
    for ((direction, kind), count) in &figures.grants {
        let labels = [port[0], port[1], ("direction", direction.name()), ("type", *kind)];
        families.add(&UNICAST_GRANTS, &labels, f64::from(*count));
    }
    for (outcome, total) in &figures.requests {
        families.add(&UNICAST_REQUESTS, &with(("outcome", outcome)), *total as f64);
    }
    for (outcome, total) in &figures.messages {
        families.add(&UNICAST_MESSAGES, &with(("outcome", outcome)), *total as f64);
    }
}
