//! What the agent answers to management messages (IEEE 1588-2019 clause 15): its data sets, as they
//! were last published, to GET, and an error to everything else. A grandmaster that permits it can be
//! given other priorities; nothing else can be changed this way. Sans-I/O: bytes in, bytes out.

use ptp_common::{
    data_set::{CurrentDataSet, DefaultDataSet, ParentDataSet, PortDataSet, TimeProperties},
    wire::{
        Body, Header, Management, Message, PortIdentity, Tlvs,
        management::{
            Action, ManagementData, ManagementErrorId, ManagementId, ManagementTlv, PortStats,
            TimeStatus,
        },
    },
};

/// Header, fixed part and the longest TLV.
const MAX_ANSWER: usize = 48 + 6 + ManagementData::MAX_LENGTH;
/// Ports that answer one request at the most.
const MAX_PORTS: usize = 64;

/// All data sets of a clock.
#[derive(Clone, Debug, PartialEq)]
pub struct DataSets {
    /// `defaultDS`.
    pub default: DefaultDataSet,
    /// `currentDS`.
    pub current: CurrentDataSet,
    /// `parentDS`.
    pub parent: ParentDataSet,
    /// `timePropertiesDS`.
    pub time_properties: TimeProperties,
    /// linuxptp's TIME_STATUS_NP.
    pub time_status: TimeStatus,
    /// `portDS` and linuxptp's PORT_STATS_NP of each port.
    pub ports: Vec<(PortDataSet, PortStats)>,
}

/// What those who ask may do.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Access {
    /// Look.
    #[default]
    ReadOnly,
    /// And set the priorities.
    SetPriorities,
}

/// Something that has been set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Setting {
    /// `priority1`.
    Priority1(u8),
    /// `priority2`.
    Priority2(u8),
}

impl DataSets {
    /// As they are with a setting.
    pub const fn set(&mut self, setting: Setting) {
        match setting {
            Setting::Priority1(priority) => {
                self.default.priority1 = priority;
                self.parent.grandmaster_priority1 = priority;
            }
            Setting::Priority2(priority) => {
                self.default.priority2 = priority;
                self.parent.grandmaster_priority2 = priority;
            }
        }
    }
}

/// What becomes of a request.
#[derive(Debug, Default, PartialEq)]
pub struct Answer {
    /// To the one who asked.
    pub messages: Vec<Vec<u8>>,
    /// To be done.
    pub setting: Option<Setting>,
}

/// What the answer is made of.
#[expect(clippy::large_enum_variant, reason = "made one at a time and at once written out")]
enum Reply {
    Data(ManagementData),
    Empty(ManagementId),
    Error(ManagementErrorId, ManagementId),
}

/// The answer to a message that came through the management socket; none where it is no request, or
/// not one for this clock.
pub fn answer(request: &[u8], sets: &DataSets, access: Access) -> Answer {
    answered(request, sets, access).unwrap_or_default()
}

fn answered(request: &[u8], sets: &DataSets, access: Access) -> Option<Answer> {
    let message = Message::parse(request).ok()?;
    let Body::Management(management) = message.body else { return None };
    let target = management.target_port_identity;
    let own = sets.default.clock_identity;
    if message.header.domain_number != sets.default.domain_number
        || ![own, PortIdentity::ALL.clock_identity].contains(&target.clock_identity)
    {
        return None;
    }
    let tlv = message.tlvs.iter().find_map(ManagementTlv::read);
    let Some(ManagementTlv::Data { id, payload }) = tlv else { return None };
    let action = Action(management.action);
    let mut setting = None;
    let replies: Vec<(u16, Reply)> = match action {
        Action::GET => get(id, target.port_number, sets),
        Action::SET if access == Access::SetPriorities && is_priority(id) => {
            let data = ManagementData::read(id, payload);
            setting = match data {
                Some(ManagementData::Priority1(priority)) => Some(Setting::Priority1(priority)),
                Some(ManagementData::Priority2(priority)) => Some(Setting::Priority2(priority)),
                _ => None,
            };
            let wrong = Reply::Error(ManagementErrorId::WRONG_LENGTH, id);
            vec![(0, data.filter(|_| setting.is_some()).map_or(wrong, Reply::Data))]
        }
        Action::SET if is_known(id) => {
            vec![(0, Reply::Error(ManagementErrorId::NOT_SETABLE, id))]
        }
        Action::SET | Action::COMMAND if id != ManagementId::NULL => {
            vec![(0, Reply::Error(ManagementErrorId::NOT_SUPPORTED, id))]
        }
        Action::SET | Action::COMMAND => vec![(0, Reply::Empty(id))],
        _ => return None,
    };
    let answer_action =
        if action == Action::COMMAND { Action::ACKNOWLEDGE } else { Action::RESPONSE };
    let replies = replies.into_iter();
    let messages = replies.filter_map(|(port_number, reply)| {
        let from = PortIdentity { clock_identity: own, port_number };
        emit(&message.header, &management, answer_action, from, &reply)
    });
    Some(Answer { messages: messages.collect(), setting })
}

const fn is_priority(id: ManagementId) -> bool {
    matches!(id, ManagementId::PRIORITY1 | ManagementId::PRIORITY2)
}

fn is_known(id: ManagementId) -> bool {
    id == ManagementId::NULL || ManagementData::length(id).is_some()
}

/// The data sets of the clock come from port 0, which stands for the socket; those of ports from
/// each port that is meant.
fn get(id: ManagementId, port_number: u16, sets: &DataSets) -> Vec<(u16, Reply)> {
    let data = match id {
        ManagementId::NULL => return vec![(0, Reply::Empty(id))],
        ManagementId::DEFAULT_DATA_SET => ManagementData::Default(sets.default),
        ManagementId::CURRENT_DATA_SET => ManagementData::Current(sets.current),
        ManagementId::PARENT_DATA_SET => ManagementData::Parent(sets.parent),
        ManagementId::TIME_PROPERTIES_DATA_SET => {
            ManagementData::TimeProperties(sets.time_properties)
        }
        ManagementId::PRIORITY1 => ManagementData::Priority1(sets.default.priority1),
        ManagementId::PRIORITY2 => ManagementData::Priority2(sets.default.priority2),
        ManagementId::TIME_STATUS_NP => ManagementData::TimeStatus(sets.time_status),
        ManagementId::PORT_DATA_SET | ManagementId::PORT_STATS_NP => {
            let is_meant = |number| [number, PortIdentity::ALL.port_number].contains(&port_number);
            let meant = sets
                .ports
                .iter()
                .filter(|(port, _)| is_meant(port.port_identity.port_number))
                .take(MAX_PORTS);
            return meant
                .map(|(port, stats)| {
                    let data = if id == ManagementId::PORT_DATA_SET {
                        ManagementData::Port(*port)
                    } else {
                        ManagementData::PortStats(*stats)
                    };
                    (port.port_identity.port_number, Reply::Data(data))
                })
                .collect();
        }
        _ => return vec![(0, Reply::Error(ManagementErrorId::NOT_SUPPORTED, id))],
    };
    vec![(0, Reply::Data(data))]
}

fn emit(
    request: &Header,
    management: &Management,
    action: Action,
    from: PortIdentity,
    reply: &Reply,
) -> Option<Vec<u8>> {
    let mut payload = [0; ManagementData::MAX_LENGTH];
    let tlv = match reply {
        Reply::Data(data) => {
            let length = data.emit(&mut payload).ok()?;
            ManagementTlv::Data { id: data.id(), payload: &payload[..length] }
        }
        Reply::Empty(id) => ManagementTlv::Data { id: *id, payload: &[] },
        Reply::Error(error, id) => ManagementTlv::Error { error: *error, id: *id },
    };
    let mut room = [0; 6 + ManagementData::MAX_LENGTH];
    let length = tlv.emit(&mut room).ok()?;
    let hops = management.starting_boundary_hops.saturating_sub(management.boundary_hops);
    let message = Message {
        header: Header {
            domain_number: request.domain_number,
            sdo_id: request.sdo_id,
            minor_version: request.minor_version,
            ..Header::new(from, request.sequence_id)
        },
        body: Body::Management(Management {
            target_port_identity: request.source_port_identity,
            starting_boundary_hops: hops,
            boundary_hops: hops,
            action: action.0,
        }),
        tlvs: Tlvs::new(&room[..length]).ok()?,
    };
    let mut bytes = vec![0; MAX_ANSWER];
    let length = message.emit(&mut bytes).ok()?;
    bytes.truncate(length);
    Some(bytes)
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use proptest::prelude::*;
    use ptp_common::wire::{
        ClockAccuracy, ClockIdentity, ClockQuality, Flags, TimeInterval, TimeSource,
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
            (
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
            ports: vec![port(1), port(2)],
        }
    }

    fn request(action: Action, id: ManagementId, target: PortIdentity) -> Vec<u8> {
        request_with(action, id, target, &[])
    }

    fn request_with(
        action: Action,
        id: ManagementId,
        target: PortIdentity,
        payload: &[u8],
    ) -> Vec<u8> {
        let mut room = [0; 16];
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
        let mut bytes = vec![0; 128];
        let length = message.emit(&mut bytes).unwrap();
        bytes.truncate(length);
        bytes
    }

    fn look(request: &[u8], sets: &DataSets) -> Vec<Vec<u8>> {
        let Answer { messages, setting } = answer(request, sets, Access::ReadOnly);
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
        let domain = ManagementId(0x2007);
        for action in [Action::GET, Action::SET, Action::COMMAND] {
            assert_eq!(error(action, domain), (ManagementErrorId::NOT_SUPPORTED, domain));
        }
    }

    #[test]
    fn priorities_are_set_where_that_is_permitted_and_nothing_else_is() {
        let set = |id, payload: &[u8]| {
            let request = request_with(Action::SET, id, PortIdentity::ALL, payload);
            answer(&request, &data_sets(), Access::SetPriorities)
        };
        let Answer { messages, setting } = set(ManagementId::PRIORITY2, &[9, 0]);
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
            let Answer { messages, setting } = set(id, payload);
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
            for answer in answer(&bytes, &data_sets(), Access::SetPriorities).messages {
                prop_assert!(Message::parse(&answer).is_ok());
                prop_assert!(answer.len() <= MAX_ANSWER);
            }
        }
    }
}
