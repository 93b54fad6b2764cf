//! The data sets that management requests are answered with, out of what the engine knows.

use ptp_common::{
    data_set::{CurrentDataSet, DefaultDataSet, ParentDataSet, PortDataSet},
    time::{Duration, Mono, Time},
    wire::{
        ClockAccuracy, ClockQuality, MessageType, PortIdentity, TimeInterval,
        gptp::RATE_SCALE,
        management::{
            CmldsInfo, ExternalGrandmaster, GrandmasterSettings, PortCorrections, PortDataSetNp,
            PortServiceStats, PortStats, TimeStatus, UnicastMaster,
        },
    },
};

use crate::{
    clock::Clock,
    engine::{
        DelayMechanism, PortIndex, PortState,
        contention::PathTrace,
        counters::{Counters, Drop},
        discipline::{Discipline, Sample},
        instance::Instance,
        link::Link,
        node::Node,
        receiver::PortPart,
    },
    publish::management::{
        Alternates, DataSets, Description, Place, PortSets, USUAL_THRESHOLD_NS, power_settings,
    },
    sys::clock::monotonic,
};

/// `clockClass` of a clock that never serves (table 4).
const CLIENT_ONLY: u8 = 255;
const VERSION: u8 = 2;
/// Those of a table of unicast partners that are told.
const MAX_PARTNERS: usize = 24;

/// What the engine does not know of the clock.
#[derive(Clone, Debug, Default)]
pub struct About {
    /// Where the ports are, in their order.
    pub places: Vec<Place>,
    /// Words about the clock.
    pub description: Description,
    /// Between a transmit stamp and the wire, and between the wire and a receive stamp.
    pub latencies: (Duration, Duration),
    /// Local times that have been set.
    pub alternates: Alternates,
    /// Whether they come from elsewhere.
    pub are_alternates_fixed: bool,
    /// As for [`DataSets::is_time_scale_fixed`].
    pub is_time_scale_fixed: bool,
    /// As for [`DataSets::uncertain`].
    pub uncertain: Option<bool>,
}

/// Of a time receiver.
pub fn of_client<C: Clock>(
    client: &Discipline<C>,
    sample: Option<&Sample>,
    sync_interval: Option<Duration>,
    about: &About,
) -> DataSets {
    let receiver = client.receiver();
    let sample = sample.filter(|_| receiver.parent().is_some());
    let mut sets = of_instance(receiver, |port| client.link(port), about);
    let log_sync_interval = sync_interval.map_or(0, |interval| {
        // Exact, as it was made of the logarithm.
        interval.as_secs_f64().log2().round() as i8
    });
    for (port, index) in sets.ports.iter_mut().zip(receiver.ports()) {
        let is_p2p = client.link(index).is_some_and(|link| is_p2p(link.delay_mechanism()));
        if let Some(sample) = sample.filter(|sample| is_p2p && sample.port == index) {
            port.data.mean_link_delay = sample.delay.into();
        }
        if receiver.receiving_port() == Some(index) && sync_interval.is_some() {
            port.data.log_sync_interval = log_sync_interval;
        }
    }
    sets.current.offset_from_master = sample.map_or(TimeInterval(0), |sample| sample.offset.into());
    sets.current.mean_path_delay = sample.map_or(TimeInterval(0), |sample| sample.delay.into());
    sets.time_status = time_status(client, sample);
    sets
}

/// TIME_STATUS_NP of a time receiver.
pub fn time_status<C: Clock>(client: &Discipline<C>, sample: Option<&Sample>) -> TimeStatus {
    let receiver = client.receiver();
    let parent = receiver.parent();
    let clock_identity = receiver.clock_identity();
    TimeStatus {
        master_offset: sample.map_or(0, |sample| sample.offset.as_nanos()),
        ingress_time: sample
            .map_or(0, |sample| client.clock().at(sample.mono).since_epoch().as_nanos()),
        gm_present: parent.is_some(),
        gm_identity: parent.map_or(clock_identity, |parent| parent.set.grandmaster_identity),
        ..TimeStatus::default()
    }
}

/// Of a grandmaster.
pub fn of_transmitter(transmitter: &Node, about: &About) -> DataSets {
    of_instance(transmitter, |port| transmitter.link(port), about)
}

/// `parentDS` as it is told.
pub fn parent_of(instance: &Instance, now: Time<Mono>) -> ParentDataSet {
    match instance.parent() {
        Some(parent) => parent.set,
        None => ParentDataSet {
            grandmaster_clock_quality: quality(instance, now),
            ..instance.parent_data_set(now)
        },
    }
}

fn quality(instance: &Instance, now: Time<Mono>) -> ClockQuality {
    if instance.is_client_only() {
        return ClockQuality {
            clock_class: CLIENT_ONLY,
            clock_accuracy: ClockAccuracy::UNKNOWN,
            offset_scaled_log_variance: ParentDataSet::UNKNOWN_VARIANCE,
        };
    }
    instance.quality(now)
}

fn of_instance<'a>(
    instance: &'a Instance,
    link: impl Fn(PortIndex) -> Option<&'a Link>,
    about: &About,
) -> DataSets {
    let now = monotonic();
    let config = instance.config();
    let ports: Vec<_> = instance
        .ports()
        .map(|port| {
            let place = about.places.get(usize::from(port.0)).cloned().unwrap_or_default();
            port_sets(instance, port, link(port), place, about.latencies)
        })
        .collect();
    let default = DefaultDataSet {
        two_step: true,
        client_only: instance.is_client_only(),
        number_ports: u16::try_from(ports.len()).unwrap_or(u16::MAX),
        priority1: config.priority1,
        clock_quality: quality(instance, now),
        priority2: config.priority2,
        clock_identity: instance.clock_identity(),
        domain_number: instance.domain_number(),
    };
    let announced = instance.alternate_offsets();
    DataSets {
        default,
        current: CurrentDataSet {
            steps_removed: instance.steps_removed(),
            ..CurrentDataSet::default()
        },
        parent: parent_of(instance, now),
        time_properties: instance.time_properties(),
        time_status: TimeStatus { gm_identity: instance.clock_identity(), ..TimeStatus::default() },
        grandmaster: GrandmasterSettings {
            clock_quality: quality(instance, now),
            time_properties: config.time_properties,
        },
        is_time_scale_fixed: about.is_time_scale_fixed,
        uncertain: about.uncertain,
        external: instance
            .external_grandmaster()
            .map_or_else(ExternalGrandmaster::default, |(identity, steps_removed)| {
                ExternalGrandmaster { identity, steps_removed }
            }),
        path_trace: (instance.path_trace() == Some(PathTrace::On), instance.path().collect()),
        alternates: match about.are_alternates_fixed {
            true => Alternates::of(announced),
            false => about.alternates,
        },
        are_alternates_fixed: about.are_alternates_fixed,
        description: about.description.clone(),
        ports,
    }
}

fn port_sets(
    instance: &Instance,
    port: PortIndex,
    link: Option<&Link>,
    place: Place,
    (egress_latency, ingress_latency): (Duration, Duration),
) -> PortSets {
    let port_identity =
        PortIdentity { clock_identity: instance.clock_identity(), port_number: port.number() };
    let default = Default::default();
    let config = instance.port_config(port).unwrap_or(&default);
    let state = instance.port_state(port);
    let is_serving = state == PortState::TimeTransmitter;
    let counters = instance.counters(port);
    let delay_mechanism = link.map_or(config.delay_mechanism, Link::delay_mechanism);
    let is_p2p = is_p2p(delay_mechanism);
    let mean_link_delay = link.and_then(Link::mean_link_delay).filter(|_| is_p2p);
    let data = PortDataSet {
        port_identity,
        port_state: state.number(),
        log_min_delay_req_interval: match is_serving {
            true => instance.config().log_min_delay_req_interval,
            false => instance.log_min_delay_req_interval(port).unwrap_or(0),
        },
        mean_link_delay: mean_link_delay.map_or(TimeInterval(0), Into::into),
        log_announce_interval: match instance.is_client_only() {
            true => config.log_announce_interval,
            false => instance.log_announce_interval(port),
        },
        announce_receipt_timeout: config.announce_receipt_timeout,
        log_sync_interval: instance.log_sync_interval_of(port),
        delay_mechanism: mechanism(delay_mechanism),
        log_min_pdelay_req_interval: link
            .map_or(config.log_min_pdelay_req_interval, Link::log_interval),
        version_number: VERSION,
    };
    let is_capable = link.and_then(Link::is_capable).unwrap_or(true);
    let threshold = link.and_then(Link::neighbor_prop_delay_threshold);
    let ratio = link.and_then(Link::neighbor_rate_ratio).filter(|_| is_p2p);
    PortSets {
        service: service(port_identity, counters),
        transmitter_only: !instance.is_client_only() && config.part == PortPart::Transmitter,
        np: PortDataSetNp {
            neighbor_prop_delay_threshold_ns: threshold.map_or(USUAL_THRESHOLD_NS, |threshold| {
                u32::try_from(threshold.as_nanos()).unwrap_or(u32::MAX)
            }),
            as_capable: is_capable.into(),
        },
        link: cmlds_info(data.mean_link_delay, ratio, is_capable),
        corrections: PortCorrections {
            egress_latency: egress_latency.into(),
            ingress_latency: ingress_latency.into(),
            delay_asymmetry: config.delay_asymmetry.into(),
        },
        power: power_settings(instance.power_profile(port)),
        place,
        unicast_masters: unicast_masters(instance, port, monotonic()),
        ..PortSets::new(data, stats(port_identity, counters))
    }
}

/// CMLDS_INFO_NP of a link.
pub(super) fn cmlds_info(
    mean_link_delay: TimeInterval,
    neighbor_rate_ratio: Option<f64>,
    is_capable: bool,
) -> CmldsInfo {
    CmldsInfo {
        mean_link_delay,
        scaled_neighbor_rate_ratio: neighbor_rate_ratio
            .map_or(0, |ratio| ((ratio - 1.0) * RATE_SCALE) as i32),
        as_capable: is_capable.into(),
    }
}

/// Whom a port asks by unicast, as they are on the wire.
fn unicast_masters(instance: &Instance, port: PortIndex, now: Time<Mono>) -> Vec<u8> {
    let mut table = Vec::new();
    let parent = instance.parent().map(|parent| parent.set.parent_port_identity);
    for partner in instance.partners(port, now).into_iter().take(MAX_PARTNERS) {
        let Some(address) = partner.address else { continue };
        let mut octets = [0; 16];
        let said = partner.identity.and_then(|identity| instance.announced_by(port, identity));
        let is_followed = partner.identity.is_some() && partner.identity == parent;
        let [announce, sync, delay] = partner.grants.map(|grant| grant.is_some());
        let nothing = ClockQuality {
            clock_class: 0,
            clock_accuracy: ClockAccuracy(0),
            offset_scaled_log_variance: 0,
        };
        let entry = UnicastMaster {
            port_identity: partner.identity.unwrap_or_default(),
            clock_quality: said.map_or(nothing, |it| it.grandmaster_clock_quality),
            is_selected: is_followed,
            // WAIT, HAVE_ANN, NEED_SYDY, HAVE_SYDY.
            state: match (announce, is_followed, sync && delay) {
                (false, ..) => 0,
                (true, false, _) => 1,
                (true, true, false) => 2,
                (true, true, true) => 3,
            },
            priority1: said.map_or(0, |it| it.grandmaster_priority1),
            priority2: said.map_or(0, |it| it.grandmaster_priority2),
            address: address.port_address(&mut octets),
        };
        let mut room = [0; 64];
        if let Some(length) = entry.emit(&mut room) {
            table.extend_from_slice(&room[..length]);
        }
    }
    table
}

const fn is_p2p(mechanism: DelayMechanism) -> bool {
    matches!(mechanism, DelayMechanism::P2p)
}

const fn mechanism(mechanism: DelayMechanism) -> u8 {
    match mechanism {
        // Until the neighbour asks.
        DelayMechanism::E2e | DelayMechanism::Auto => 1,
        DelayMechanism::P2p => 2,
    }
}

fn stats(port_identity: PortIdentity, counters: &Counters) -> PortStats {
    let mut stats = PortStats { port_identity, received: [0; 16], sent: [0; 16] };
    for kind in MessageType::ALL {
        stats.received[usize::from(kind as u8)] = counters.received(kind);
        stats.sent[usize::from(kind as u8)] = counters.sent(kind);
    }
    stats
}

fn service(port_identity: PortIdentity, counters: &Counters) -> PortServiceStats {
    let timeouts = counters.timeouts;
    PortServiceStats {
        port_identity,
        counts: [
            timeouts.announce,
            timeouts.sync,
            timeouts.delay,
            // Unicast messages are sent and asked for by timers that are not of ports.
            0,
            0,
            timeouts.transmitter_announce,
            timeouts.transmitter_sync,
            timeouts.qualification,
            counters.dropped(Drop::SyncWithoutFollowUp),
            counters.dropped(Drop::FollowUpWithoutSync),
        ],
    }
}
