//! How far the host's own clock is from the grandmaster, whatever clock the agent follows with: what
//! services stamp their spans with, and so what `trace` wants to know.

use crate::{
    agent::{bound::ceiling, export::host_offset},
    clock::followed::Followed,
    engine::discipline::Discipline,
    publish::{export::View, json::HostLine, metrics::HostClock},
};

/// What there is to say at the time of `view`, with the host's name.
pub(super) fn line(client: &Discipline<Followed>, view: &View<'_>, name: &str) -> HostLine {
    let known = host_offset(client, view);
    let receiver = client.receiver();
    HostLine {
        host: name.to_owned(),
        mono_ns: view.now.as_nanos(),
        real_ns: view.real.as_nanos(),
        offset_ns: known.map(|(offset, _)| offset.as_nanos()),
        // What is left away of the offset counts, too.
        bound_ns: known.map(|(_, bound)| ceiling(bound).saturating_add(1)),
        grandmaster: receiver.parent().map(|parent| parent.set.grandmaster_identity.to_string()),
        domain: receiver.domain_number(),
    }
}

/// The same for metrics.
pub(super) fn figures(line: &HostLine) -> Option<HostClock> {
    let seconds = |nanos: i64| nanos as f64 * 1e-9;
    Some(HostClock {
        offset_seconds: seconds(line.offset_ns?),
        bound_seconds: seconds(line.bound_ns?),
        read_at_seconds: seconds(line.real_ns),
    })
}
