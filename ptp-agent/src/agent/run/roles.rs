//! What a clock that takes either role tells beside what every time receiver tells.

use ptp_common::time::{Mono, Time};

use crate::{
    agent::local_times::LocalTimes,
    clock::followed::Followed,
    engine::{PortState, discipline::Discipline, instance::Instance},
    publish::snapshot::{AnnouncedExtras, EitherRole, InstanceRole, Snapshot},
    sys::clock::host_reading,
};

/// Whether it serves its own time and follows nobody.
pub(super) fn is_grandmaster(instance: &Instance) -> bool {
    instance.may_take_either_role()
        && instance.parent().is_none()
        && instance.ports().any(|port| instance.port_state(port) == PortState::TimeTransmitter)
}

/// Says what local times are now, of the time that it serves; told to others while it is the grandmaster.
pub(super) fn announce_local_times(
    local_times: &mut LocalTimes,
    client: &mut Discipline<Followed>,
    now: Time<Mono>,
) {
    if !client.receiver().may_take_either_role() {
        return;
    }
    let ahead = client.receiver().time_properties().utc_offset().best();
    let utc = (client.domain_time(now) - ahead).since_epoch();
    let kernel_s = match client.clock() {
        Followed::System(_) => host_reading().map_or(0, |reading| reading.tai_offset_s),
        // Their time is not the kernel's.
        _ => 0,
    };
    if let Some(alternates) = local_times.announced(utc, ahead, kernel_s) {
        client.set_alternate_offsets(alternates);
    }
}

/// What the parent announces beside its time.
pub(super) fn extras(instance: &Instance) -> AnnouncedExtras {
    let Some(extras) = instance.extras() else { return AnnouncedExtras::default() };
    let ahead = instance.time_properties().utc_offset().known();
    AnnouncedExtras::new(extras, ahead.map(|it| it.as_nanos() / 1_000_000_000))
}

/// For the snapshot: whose time it is and over which way it has come. Nothing of a client only, of which the rest says
/// all of it.
pub(super) fn tell(snapshot: &mut Snapshot, instance: &Instance, now: Time<Mono>) {
    if !instance.may_take_either_role() {
        return;
    }
    let set = instance.parent_data_set(now);
    let following = &mut snapshot.following;
    following.grandmaster = Some(set.grandmaster_identity.to_string());
    following.grandmaster_class = Some(set.grandmaster_clock_quality.clock_class);
    following.steps_removed = Some(instance.steps_removed());
    following.time_scale = Some(instance.time_properties().to_string());
    let role =
        if is_grandmaster(instance) { InstanceRole::Grandmaster } else { InstanceRole::Auto };
    snapshot.roles = EitherRole {
        role: Some(role.into()),
        path: instance.path().map(|identity| identity.to_string()).collect(),
        synchronization_uncertain: instance.is_uncertain(now),
    };
}
