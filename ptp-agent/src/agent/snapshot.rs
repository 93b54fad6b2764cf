//! What the snapshot says of ports and stamps, out of what sockets and engines know.

use std::{borrow::Cow, collections::BTreeMap};

use super::io::{Io, SideCounts};
use crate::{
    engine::{PortIndex, PortState},
    publish::snapshot::{Port, Stamped, Timestamps},
};

/// A port of this agent.
pub(super) fn own_port(io: &Io, port: PortIndex, state: PortState) -> Port {
    Port {
        interface: Some(io.interface(port).to_owned()),
        state: Some(state.into()),
        stamped: Stamped {
            sources: io.sources(port),
            authentication: io.authentication(port),
            timestamps: io.stamp_counts(port).as_ref().map(timestamps).unwrap_or_default(),
        },
        ..Port::default()
    }
}

/// Stamps of a port by direction, source and outcome.
pub(super) fn timestamps((rx, tx): &(SideCounts, SideCounts)) -> Timestamps {
    let sources = |counts: &SideCounts| {
        let mut sources = BTreeMap::new();
        for (source, matched) in &counts.matched {
            sources.insert(
                Cow::Borrowed(source.name()),
                BTreeMap::from([(Cow::Borrowed("matched"), *matched)]),
            );
        }
        let others = sources
            .entry(counts.reference.name().into())
            .or_insert_with(|| BTreeMap::from([("matched".into(), 0)]));
        for (outcome, total) in [
            ("orphaned", counts.pairing.orphaned),
            ("duplicate", counts.pairing.duplicate),
            ("late", counts.pairing.late),
            ("interrupted", counts.interrupted),
            ("missing", counts.pairing.missing),
        ] {
            others.insert(outcome.into(), total);
        }
        sources
    };
    Timestamps::from([("rx".into(), sources(rx)), ("tx".into(), sources(tx))])
}
