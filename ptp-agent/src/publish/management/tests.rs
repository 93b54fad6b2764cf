//! Requests as pmc sends them, and what must hold of any bytes.

use super::*;
use proptest::prelude::*;
use ptp_common::{
    data_set::{CurrentDataSet, DefaultDataSet, ParentDataSet, PortDataSet, TimeProperties},
    wire::{
        ClockAccuracy, ClockIdentity, ClockQuality, Flags, TimeInterval, TimeSource,
        management::{
            ExternalGrandmaster, GrandmasterSettings, PortCorrections, PortStats, SubscribeEvents,
            TimeStatus,
        },
    },
};

pub(crate) fn data_sets() -> DataSets {
    let clock_identity = ClockIdentity([1, 2, 3, 0xff, 0xfe, 4, 5, 6]);
    let clock_quality = ClockQuality {
        clock_class: 255,
        clock_accuracy: ClockAccuracy::UNKNOWN,
        offset_scaled_log_variance: 0xffff,
    };
    let port = |port_number| {
        let port_identity = PortIdentity { clock_identity, port_number };
        PortSets::new(
            PortDataSet {
                port_identity,
                port_state: 9,
                log_min_delay_req_interval: -4,
                mean_link_delay: TimeInterval(0),
                log_announce_interval: 1,
                announce_receipt_timeout: 3,
                log_sync_interval: -4,
                delay_mechanism: 1,
                log_min_pdelay_req_interval: 0,
                version_number: 2,
            },
            PortStats { port_identity, received: [port_number.into(); 16], sent: [0; 16] },
        )
    };
    DataSets {
        default: DefaultDataSet {
            two_step: true,
            client_only: true,
            number_ports: 2,
            priority1: 128,
            clock_quality,
            priority2: 127,
            clock_identity,
            domain_number: 0,
        },
        current: CurrentDataSet {
            steps_removed: 1,
            offset_from_master: TimeInterval(-300 << 16),
            mean_path_delay: TimeInterval(4_000 << 16),
        },
        parent: ParentDataSet {
            parent_port_identity: PortIdentity { clock_identity, port_number: 0 },
            parent_stats: false,
            observed_offset_scaled_log_variance: 0xffff,
            observed_phase_change_rate: i32::MAX,
            grandmaster_priority1: 100,
            grandmaster_clock_quality: clock_quality,
            grandmaster_priority2: 101,
            grandmaster_identity: clock_identity,
        },
        time_properties: TimeProperties::told(37, Flags(0x0c), TimeSource::GNSS),
        time_status: TimeStatus::default(),
        grandmaster: GrandmasterSettings {
            clock_quality,
            time_properties: TimeProperties::UNKNOWN,
        },
        is_time_scale_fixed: false,
        uncertain: None,
        external: ExternalGrandmaster::default(),
        path_trace: (true, vec![clock_identity]),
        alternates: Alternates::default(),
        are_alternates_fixed: false,
        description: Description::own(),
        ports: vec![port(1), port(2)],
    }
}

fn request(action: Action, id: ManagementId, target: PortIdentity) -> Vec<u8> {
    request_with(action, id, target, &[])
}

fn request_with(action: Action, id: ManagementId, target: PortIdentity, payload: &[u8]) -> Vec<u8> {
    let mut room = [0; 128];
    let length = ManagementTlv::Data { id, payload }.emit(&mut room).unwrap();
    let from = PortIdentity { clock_identity: ClockIdentity([7; 8]), port_number: 4242 };
    let message = Message {
        header: Header::new(from, 99),
        body: Body::Management(Management {
            target_port_identity: target,
            starting_boundary_hops: 0,
            boundary_hops: 0,
            action: action.0,
        }),
        tlvs: Tlvs::new(&room[..length]).unwrap(),
    };
    let mut bytes = vec![0; 256];
    let length = message.emit(&mut bytes).unwrap();
    bytes.truncate(length);
    bytes
}

fn look(request: &[u8], sets: &DataSets) -> Vec<Vec<u8>> {
    let Answer { messages, setting, .. } = answer(request, sets, Access::ReadOnly);
    assert_eq!(setting, None);
    messages
}

fn asked(action: Action, id: ManagementId) -> Vec<Vec<u8>> {
    look(&request(action, id, PortIdentity::ALL), &data_sets())
}

fn tlv(bytes: &[u8]) -> ManagementTlv<'_> {
    let message = Message::parse(bytes).unwrap();
    message.tlvs.iter().next().and_then(ManagementTlv::read).unwrap()
}

#[test]
fn get_is_answered_to_the_one_who_asked() {
    let answers = asked(Action::GET, ManagementId::CURRENT_DATA_SET);
    assert_eq!(answers.len(), 1);
    let message = Message::parse(&answers[0]).unwrap();
    assert_eq!(message.header.sequence_id, 99);
    let Body::Management(management) = message.body else { panic!("{message:?}") };
    assert_eq!(management.target_port_identity.port_number, 4242);
    assert_eq!(management.action, Action::RESPONSE.0);
    let ManagementTlv::Data { id, payload } = tlv(&answers[0]) else { panic!() };
    let data = ManagementData::read(id, payload);
    assert_eq!(data, Some(ManagementData::Current(data_sets().current)));
}

#[test]
fn port_data_sets_come_from_each_port_that_is_meant() {
    for id in [ManagementId::PORT_DATA_SET, ManagementId::PORT_STATS_NP] {
        assert_eq!(asked(Action::GET, id).len(), 2);
        let one = PortIdentity { port_number: 2, ..PortIdentity::ALL };
        let answers = look(&request(Action::GET, id, one), &data_sets());
        assert_eq!(answers.len(), 1);
        let from = Message::parse(&answers[0]).unwrap().header.source_port_identity;
        assert_eq!(from.port_number, 2);
    }
}

#[test]
fn nothing_can_be_set_and_the_rest_is_not_supported() {
    let error = |action, id| match tlv(&asked(action, id)[0]) {
        ManagementTlv::Error { error, id } => (error, id),
        other => panic!("{other:?}"),
    };
    let priority = ManagementId::PRIORITY1;
    assert_eq!(error(Action::SET, priority), (ManagementErrorId::NOT_SETABLE, priority));
    let faults = ManagementId::FAULT_LOG;
    let unknown = ManagementId(0x2fff);
    for action in [Action::GET, Action::SET, Action::COMMAND] {
        assert_eq!(error(action, faults), (ManagementErrorId::NOT_SUPPORTED, faults));
        assert_eq!(error(action, unknown), (ManagementErrorId::NO_SUCH_ID, unknown));
    }
}

#[test]
fn priorities_are_set_where_that_is_permitted_and_nothing_else_is() {
    let set = |id, payload: &[u8]| {
        let request = request_with(Action::SET, id, PortIdentity::ALL, payload);
        answer(&request, &data_sets(), Access::ReadWrite)
    };
    let Answer { messages, setting, .. } = set(ManagementId::PRIORITY2, &[9, 0]);
    assert_eq!(setting, Some(Setting::Priority2(9)));
    let ManagementTlv::Data { id, payload } = tlv(&messages[0]) else { panic!() };
    assert_eq!(ManagementData::read(id, payload), Some(ManagementData::Priority2(9)));
    let mut sets = data_sets();
    sets.set(Setting::Priority1(3));
    assert_eq!((sets.default.priority1, sets.parent.grandmaster_priority1), (3, 3));
    for (id, payload, error) in [
        (ManagementId::PRIORITY1, &[][..], ManagementErrorId::WRONG_LENGTH),
        (ManagementId::TIME_STATUS_NP, &[0; 2][..], ManagementErrorId::NOT_SETABLE),
    ] {
        let Answer { messages, setting, .. } = set(id, payload);
        assert_eq!(setting, None);
        assert_eq!(tlv(&messages[0]), ManagementTlv::Error { error, id });
    }
}

#[test]
fn other_clocks_domains_and_answers_are_left_alone() {
    let id = ManagementId::DEFAULT_DATA_SET;
    let other = PortIdentity { clock_identity: ClockIdentity([3; 8]), port_number: 1 };
    assert!(look(&request(Action::GET, id, other), &data_sets()).is_empty());
    for action in [Action::RESPONSE, Action::ACKNOWLEDGE, Action(9)] {
        assert!(asked(action, id).is_empty(), "{action:?}");
    }
    let mut elsewhere = data_sets();
    elsewhere.default.domain_number = 1;
    let request = request(Action::GET, id, PortIdentity::ALL);
    assert!(look(&request, &elsewhere).is_empty());
}

/// Data sets of a clock that may serve.
fn serving() -> DataSets {
    let mut sets = data_sets();
    sets.default.client_only = false;
    sets
}

fn set(id: ManagementId, payload: &[u8], sets: &DataSets) -> Answer {
    let request = request_with(Action::SET, id, PortIdentity::ALL, payload);
    answer(&request, sets, Access::ReadWrite)
}

fn payload(data: ManagementData<'_>) -> Vec<u8> {
    let mut bytes = [0; ManagementData::MAX_LENGTH];
    let length = data.emit(&mut bytes).unwrap();
    bytes[..length].to_vec()
}

#[test]
fn everything_that_is_named_is_answered_or_refused_with_a_reason() {
    let mut answered = 0;
    for (id, name) in ManagementId::NAMED {
        for answer in asked(Action::GET, *id) {
            match tlv(&answer) {
                ManagementTlv::Data { id: of, payload } => {
                    assert_eq!(of, *id);
                    let is_read = ManagementData::read(*id, payload).is_some();
                    assert!(is_read || payload.is_empty(), "{name}");
                    answered += 1;
                }
                ManagementTlv::Error { error, .. } => {
                    assert_eq!(error, ManagementErrorId::NOT_SUPPORTED, "{name}");
                }
            }
        }
    }
    // Of the clock once, of two ports twice.
    assert!(answered >= 26 + 2 * 18, "{answered}");
}

#[test]
fn the_public_is_not_told_of_interfaces_and_subscribes_to_nothing() {
    for id in [
        ManagementId::PORT_PROPERTIES_NP,
        ManagementId::PORT_HWCLOCK_NP,
        ManagementId::SUBSCRIBE_EVENTS_NP,
    ] {
        let get = request(Action::GET, id, PortIdentity::ALL);
        let refused = answer(&get, &data_sets(), Access::Public);
        assert_eq!(refused.outcome, Outcome::NotSupported);
        assert_eq!(answer(&get, &data_sets(), Access::ReadOnly).outcome, Outcome::Answered);
    }
}

#[test]
fn what_cannot_be_is_not_set() {
    let settings = GrandmasterSettings {
        clock_quality: ClockQuality { clock_class: 6, ..serving().default.clock_quality },
        time_properties: TimeProperties::told(37, Flags(0x0c), TimeSource::GNSS),
    };
    let id = ManagementId::GRANDMASTER_SETTINGS_NP;
    let good = payload(ManagementData::Grandmaster(settings));
    assert_eq!(set(id, &good, &serving()).setting, Some(Setting::Grandmaster(settings)));
    assert_eq!(set(id, &good, &data_sets()).outcome, Outcome::NotSetable, "a client");
    for (at, octet) in [(0, 0), (0, 255), (5, 99), (6, 0x3)] {
        let mut bad = good.clone();
        bad[at] = octet;
        let Answer { setting, outcome, .. } = set(id, &bad, &serving());
        assert_eq!((setting, outcome), (None, Outcome::WrongValue), "octet {at}");
    }
    let mut fixed = serving();
    fixed.is_time_scale_fixed = true;
    fixed.grandmaster.time_properties.ptp_timescale = false;
    assert_eq!(set(id, &good, &fixed).outcome, Outcome::WrongValue, "the host's time scale");
    for (id, octet, outcome) in [
        (ManagementId::LOG_SYNC_INTERVAL, -3, Outcome::Set),
        (ManagementId::LOG_SYNC_INTERVAL, -8, Outcome::WrongValue),
        (ManagementId::LOG_ANNOUNCE_INTERVAL, 5, Outcome::WrongValue),
        (ManagementId::ANNOUNCE_RECEIPT_TIMEOUT, 1, Outcome::WrongValue),
        (ManagementId::SYNCHRONIZATION_UNCERTAIN_NP, 2, Outcome::WrongValue),
        (ManagementId::DOMAIN, 1, Outcome::NotSetable),
        (ManagementId::SLAVE_ONLY, 1, Outcome::NotSetable),
    ] {
        assert_eq!(set(id, &[octet as u8, 0], &serving()).outcome, outcome, "{id:?}");
    }
    let corrections = |asymmetry_s: i64| {
        payload(ManagementData::Corrections(PortCorrections {
            delay_asymmetry: TimeInterval((asymmetry_s * 1_000_000_000) << 16),
            ..PortCorrections::default()
        }))
    };
    let id = ManagementId::PORT_CORRECTIONS_NP;
    assert_eq!(set(id, &corrections(1), &serving()).outcome, Outcome::Set);
    assert_eq!(set(id, &corrections(11), &serving()).outcome, Outcome::WrongValue);
}

#[test]
fn set_is_answered_with_what_is_in_force_then_by_each_port_that_is_meant() {
    let answer = set(ManagementId::LOG_SYNC_INTERVAL, &[0xfd, 0], &serving());
    assert_eq!(answer.messages.len(), 2);
    let all = PortIdentity::ALL.port_number;
    let setting = Setting::Port(all, PortSetting::LogSyncInterval(-3));
    assert_eq!(answer.setting, Some(setting));
    let ManagementTlv::Data { id, payload } = tlv(&answer.messages[1]) else { panic!() };
    let data = ManagementData::read(id, payload);
    assert_eq!(data, Some(ManagementData::Octet(ManagementId::LOG_SYNC_INTERVAL, 0xfd)));
    let nobody = PortIdentity { port_number: 9, ..PortIdentity::ALL };
    let request = request_with(Action::SET, ManagementId::LOG_SYNC_INTERVAL, nobody, &[0xfd, 0]);
    let Answer { setting, outcome, .. } = super::answer(&request, &serving(), Access::ReadWrite);
    assert_eq!((setting, outcome), (None, Outcome::WrongValue));
}

#[test]
fn ports_are_switched_by_command_where_that_is_permitted() {
    let request = request(Action::COMMAND, ManagementId::DISABLE_PORT, PortIdentity::ALL);
    let refused = answer(&request, &serving(), Access::ReadOnly);
    assert_eq!((refused.setting, refused.outcome), (None, Outcome::NotSupported));
    let done = answer(&request, &serving(), Access::ReadWrite);
    let all = PortIdentity::ALL.port_number;
    assert_eq!(done.setting, Some(Setting::Port(all, PortSetting::Enabled(false))));
    let Body::Management(management) = Message::parse(&done.messages[0]).unwrap().body else {
        panic!()
    };
    assert_eq!(management.action, Action::ACKNOWLEDGE.0);
}

#[test]
fn local_times_are_set_key_by_key() {
    let mut sets = serving();
    for (id, payload) in [
        (
            ManagementId::ALTERNATE_TIME_OFFSET_NAME,
            payload(ManagementData::AlternateName(3, b"CET")),
        ),
        (ManagementId::ALTERNATE_TIME_OFFSET_ENABLE, vec![3, 1]),
    ] {
        let setting = set(id, &payload, &sets).setting.unwrap();
        sets.set(setting);
    }
    let announced = sets.alternates.announced();
    assert_eq!((announced.len(), announced[0].key), (1, 3));
    assert_eq!(announced[0].name.to_string(), "CET");
    let id = ManagementId::ALTERNATE_TIME_OFFSET_ENABLE;
    assert_eq!(set(id, &[4, 1], &sets).outcome, Outcome::WrongValue);
    let get = request_with(Action::GET, id, PortIdentity::ALL, &[3, 0]);
    let answers = look(&get, &sets);
    let ManagementTlv::Data { payload, .. } = tlv(&answers[0]) else { panic!() };
    assert_eq!(payload, [3, 1]);
}

/// A subscription of `port` to events with these bits.
fn subscription(port_number: u16, bits: u8, duration_s: u16) -> Vec<u8> {
    let mut events = SubscribeEvents { duration_s, ..SubscribeEvents::none() };
    events.events[0] = bits;
    let id = ManagementId::SUBSCRIBE_EVENTS_NP;
    let data = payload(ManagementData::Subscribe(events));
    let mut request = request_with(Action::SET, id, PortIdentity::ALL, &data);
    request[28..30].copy_from_slice(&port_number.to_be_bytes());
    request
}

fn at(seconds: i64) -> Time<Mono> {
    Time::ZERO + Duration::from_secs(seconds)
}

#[test]
fn who_has_subscribed_is_told_until_that_is_over() {
    let sets = data_sets();
    let mut responder = Responder::new(Access::ReadOnly, 0);
    for (port, bits, duration_s) in [(1, 0b001, 10), (2, 0b010, u16::MAX)] {
        let answer = responder.answer(at(0), &subscription(port, bits, duration_s), &port, &sets);
        assert_eq!((answer.outcome, answer.setting), (Outcome::Set, None));
    }
    assert_eq!((responder.subscribers(), responder.wanted(at(1))), (2, 0b011));
    let data = ManagementData::Port(sets.ports[1].data);
    let happening = Happening { event: ManagementEvent::PortState, port_number: 2, data };
    for sequence_id in 0..2 {
        let told = responder.tell(at(2), &happening, &sets);
        assert_eq!(told.len(), 1);
        let (to, message) = &told[0];
        let message = Message::parse(message).unwrap();
        assert_eq!((*to, message.header.sequence_id), (1, sequence_id));
        assert_eq!(message.header.source_port_identity.port_number, 2);
        let Body::Management(management) = message.body else { panic!() };
        assert_eq!(management.target_port_identity.port_number, 1);
    }
    assert!(responder.tell(at(10), &happening, &sets).is_empty(), "ten seconds are over");
    assert_eq!(responder.wanted(at(1_000_000)), 0b010);
    responder.answer(at(11), &subscription(2, 0, 10), &2, &sets);
    assert_eq!(responder.subscribers(), 0);
}

#[test]
fn subscribers_are_bounded_and_those_that_are_gone_make_room() {
    let sets = data_sets();
    let mut responder = Responder::new(Access::ReadOnly, 0);
    for port in 0..200 {
        let answer = responder.answer(at(0), &subscription(port, 1, 60), &port, &sets);
        let is_in = usize::from(port) < MAX_SUBSCRIBERS;
        let outcome = if is_in { Outcome::Set } else { Outcome::GeneralError };
        assert_eq!(answer.outcome, outcome);
    }
    responder.forget(|port| *port == 7);
    let answer = responder.answer(at(0), &subscription(200, 1, 60), &200, &sets);
    assert_eq!((answer.outcome, responder.subscribers()), (Outcome::Set, MAX_SUBSCRIBERS));
}

#[test]
fn flood_is_answered_in_part_and_counted() {
    let sets = data_sets();
    let mut responder = Responder::new(Access::ReadOnly, 0);
    let get = request(Action::GET, ManagementId::PRIORITY1, PortIdentity::ALL);
    let mut answers = |seconds| {
        (0..10_000)
            .filter(|_| !responder.answer(at(seconds), &get, &(), &sets).messages.is_empty())
            .count()
    };
    assert_eq!(answers(0), 4_000);
    assert_eq!(answers(1), 4_000);
}

proptest! {
    #[test]
    fn any_bytes_get_whole_answers_or_none(
        mut bytes in prop::collection::vec(any::<u8>(), 0..200),
        is_management: bool,
    ) {
        if is_management && bytes.len() >= 48 {
            let length = bytes.len() as u16;
            bytes[..2].copy_from_slice(&[0x0d, 0x02]);
            bytes[2..4].copy_from_slice(&length.to_be_bytes());
            bytes[4] = 0;
            bytes[34..44].fill(0xff);
        }
        for answer in answer(&bytes, &serving(), Access::ReadWrite).messages {
            prop_assert!(Message::parse(&answer).is_ok());
            prop_assert!(answer.len() <= MAX_ANSWER);
        }
    }
}
