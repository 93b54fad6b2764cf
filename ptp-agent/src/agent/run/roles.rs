//! What a clock that takes either role tells beside what every time receiver tells.

use ptp_common::time::{Mono, Time};
use serde_json::{Value, json};

use crate::engine::{PortState, instance::Instance};

/// Whether it serves its own time and follows nobody.
pub(super) fn is_grandmaster(instance: &Instance) -> bool {
    instance.may_take_either_role()
        && instance.parent().is_none()
        && instance.ports().any(|port| instance.port_state(port) == PortState::TimeTransmitter)
}

/// For the status: whose time it is and over which way it has come. `None` for a client only, whose status says
/// all of it.
pub(super) fn status(instance: &Instance, now: Time<Mono>) -> Option<Value> {
    if !instance.may_take_either_role() {
        return None;
    }
    let set = instance.parent_data_set(now);
    let path: Vec<String> = instance.path().map(|identity| identity.to_string()).collect();
    Some(json!({
        "role": if is_grandmaster(instance) { "grandmaster" } else { "auto" },
        "grandmaster": set.grandmaster_identity.to_string(),
        "grandmaster_class": set.grandmaster_clock_quality.clock_class,
        "steps_removed": instance.steps_removed(),
        "path": path,
        "time_scale": instance.time_properties().to_string(),
        "synchronization_uncertain": instance.is_uncertain(now),
    }))
}
