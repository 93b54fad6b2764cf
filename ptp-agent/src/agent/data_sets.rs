//! The data sets that management requests are answered with, out of what the engine knows.

use ptp_common::{
    data_set::{CurrentDataSet, DefaultDataSet, ParentDataSet, PortDataSet},
    time::Duration,
    wire::{
        ClockAccuracy, ClockQuality, MessageType, PortIdentity, TimeInterval,
        management::{PortStats, TimeStatus},
    },
};

use crate::{
    clock::Clock,
    engine::{
        DelayMechanism, PortState,
        counters::Counters,
        discipline::{Discipline, Sample},
        instance::Instance,
    },
    publish::management::DataSets,
    sys::clock::monotonic,
};

/// `clockClass` of a clock that never serves (table 4).
const CLIENT_ONLY: u8 = 255;
const VERSION: u8 = 2;

/// Of a time receiver.
pub fn of_client<C: Clock>(
    client: &Discipline<C>,
    sample: Option<&Sample>,
    sync_interval: Option<Duration>,
) -> DataSets {
    let receiver = client.receiver();
    let clock_identity = receiver.clock_identity();
    let parent = receiver.parent();
    let own_quality = ClockQuality {
        clock_class: CLIENT_ONLY,
        clock_accuracy: ClockAccuracy::UNKNOWN,
        offset_scaled_log_variance: ParentDataSet::UNKNOWN_VARIANCE,
    };
    let sample = sample.filter(|_| parent.is_some());
    let ports = receiver.ports().filter_map(|port| {
        let config = receiver.port_config(port)?;
        let port_identity = PortIdentity { clock_identity, port_number: port.number() };
        let is_p2p = config.delay_mechanism == DelayMechanism::P2p;
        let delay = sample.filter(|sample| is_p2p && sample.port == port);
        let log_sync_interval = sync_interval.map_or(0, |interval| {
            // Exact, as it was made of the logarithm.
            interval.as_secs_f64().log2().round() as i8
        });
        let data = PortDataSet {
            port_identity,
            port_state: receiver.port_state(port).number(),
            log_min_delay_req_interval: receiver.log_min_delay_req_interval(port).unwrap_or(0),
            mean_link_delay: delay.map_or(TimeInterval(0), |sample| sample.delay.into()),
            log_announce_interval: config.log_announce_interval,
            announce_receipt_timeout: config.announce_receipt_timeout,
            log_sync_interval: if receiver.port_state(port) == PortState::TimeTransmitter {
                receiver.config().log_sync_interval
            } else {
                log_sync_interval
            },
            delay_mechanism: mechanism(config.delay_mechanism),
            log_min_pdelay_req_interval: config.log_min_pdelay_req_interval,
            version_number: VERSION,
        };
        Some((data, stats(port_identity, receiver.counters(port))))
    });
    let ports: Vec<_> = ports.collect();
    let serves = receiver.may_take_either_role();
    let now = monotonic();
    let default = DefaultDataSet {
        two_step: true,
        client_only: !serves,
        number_ports: u16::try_from(ports.len()).unwrap_or(u16::MAX),
        priority1: receiver.config().priority1,
        clock_quality: if serves { receiver.quality(now) } else { own_quality },
        priority2: receiver.config().priority2,
        clock_identity,
        domain_number: receiver.domain_number(),
    };
    DataSets {
        default,
        current: CurrentDataSet {
            steps_removed: parent.map_or(0, |parent| parent.steps_removed.saturating_add(1)),
            offset_from_master: sample.map_or(TimeInterval(0), |sample| sample.offset.into()),
            mean_path_delay: sample.map_or(TimeInterval(0), |sample| sample.delay.into()),
        },
        parent: parent.map_or(ParentDataSet::own(&default), |parent| parent.set),
        time_properties: receiver.time_properties(),
        time_status: TimeStatus {
            master_offset: sample.map_or(0, |sample| sample.offset.as_nanos()),
            ingress_time: sample
                .map_or(0, |sample| client.clock().at(sample.mono).since_epoch().as_nanos()),
            gm_present: parent.is_some(),
            gm_identity: parent.map_or(clock_identity, |parent| parent.set.grandmaster_identity),
            ..TimeStatus::default()
        },
        ports,
    }
}

/// Of a grandmaster.
pub fn of_transmitter(transmitter: &Instance) -> DataSets {
    let config = transmitter.config();
    let clock_identity = config.clock_identity;
    let ports = (0..config.ports).map(|index| {
        let port = crate::engine::PortIndex(index);
        let port_identity = PortIdentity { clock_identity, port_number: port.number() };
        let data = PortDataSet {
            port_identity,
            port_state: transmitter.port_state(port).number(),
            log_min_delay_req_interval: config.log_min_delay_req_interval,
            mean_link_delay: TimeInterval(0),
            log_announce_interval: config.log_announce_interval,
            announce_receipt_timeout: 3,
            log_sync_interval: config.log_sync_interval,
            delay_mechanism: mechanism(DelayMechanism::E2e),
            log_min_pdelay_req_interval: 0,
            version_number: VERSION,
        };
        (data, stats(port_identity, transmitter.counters(port)))
    });
    let default = DefaultDataSet {
        two_step: true,
        client_only: false,
        number_ports: config.ports,
        priority1: config.priority1,
        clock_quality: config.clock_quality,
        priority2: config.priority2,
        clock_identity,
        domain_number: config.domain_number,
    };
    DataSets {
        default,
        current: CurrentDataSet::default(),
        parent: ParentDataSet::own(&default),
        time_properties: config.time_properties,
        time_status: TimeStatus { gm_identity: clock_identity, ..TimeStatus::default() },
        ports: ports.collect(),
    }
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
