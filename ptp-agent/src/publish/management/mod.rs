//! What the agent answers to management messages (IEEE 1588-2019 clause 15): its data sets, as they were last
//! published, to GET, and to SET and COMMAND of those who may what is in force then; an error to everything else. And what
//! it tells those who have subscribed to that. Sans-I/O: bytes in, bytes out.

mod desk;
mod get;
mod outcome;
mod sets;
mod settings;
mod subscribers;
#[cfg(test)]
pub(crate) mod tests;

use ptp_common::{
    time::{Duration, Mono, Time},
    wire::{
        Body, Header, Management, Message, PortIdentity, Tlvs,
        management::{
            Action, ManagementData, ManagementErrorId, ManagementEvent, ManagementId, ManagementTlv,
        },
    },
};

pub use desk::{Desk, ManagementFigures};
pub use outcome::Outcome;
pub use sets::{Alternates, DataSets, Description, Place, PortSets, USUAL_THRESHOLD_NS};
pub use settings::{PortSetting, Setting, power_profile, power_settings};
pub use subscribers::MAX_SUBSCRIBERS;
use subscribers::{Subscribers, Told};

/// Header, fixed part and the longest TLV.
const MAX_ANSWER: usize = 48 + 6 + ManagementData::MAX_LENGTH;
/// Requests per second that are answered, and as many at once.
const REQUESTS_PER_SECOND: u32 = 4_000;

/// What those who ask may do.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Access {
    /// Look at what everybody may know: not at the host's interfaces, and without subscriptions. linuxptp gives as
    /// much to the network and to its socket for all users.
    Public,
    /// Look at everything, and subscribe to events.
    #[default]
    ReadOnly,
    /// And set what can be set.
    ReadWrite,
}

/// What becomes of a request.
#[derive(Debug, Default, PartialEq)]
pub struct Answer {
    /// To the one who asked.
    pub messages: Vec<Vec<u8>>,
    /// To be done.
    pub setting: Option<Setting>,
    /// For counting.
    pub outcome: Outcome,
}

impl Answer {
    const fn none(outcome: Outcome) -> Self {
        Self { messages: Vec::new(), setting: None, outcome }
    }
}

/// What an answer is made of.
#[expect(clippy::large_enum_variant, reason = "made one at a time and at once written out")]
enum Reply<'a> {
    Data(ManagementData<'a>),
    Empty(ManagementId),
    Error(ManagementErrorId, ManagementId),
}

/// The answer to a message that came through a management socket; none where it is no request, or
/// not one for this clock.
pub fn answer(request: &[u8], sets: &DataSets, access: Access) -> Answer {
    Responder::new(access, 0).answer(Time::ZERO, request, &(), sets)
}

/// Something that happens, with what is told of it: to those who have subscribed.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Happening {
    /// What.
    pub event: ManagementEvent,
    /// The port that it is told by; 0 for the clock itself.
    pub port_number: u16,
    /// What is told.
    pub data: ManagementData<'static>,
}

/// Who answers on one socket. `A` is where somebody is who asks.
#[derive(Debug)]
pub struct Responder<A> {
    access: Access,
    /// The number of the port that data sets of the clock come from: 0 stands for a socket of the host.
    own: u16,
    subscribers: Subscribers<A>,
    /// Requests that may be answered now, and since when.
    saved: u32,
    refilled: Time<Mono>,
}

impl<A: Clone> Responder<A> {
    /// Nobody has asked yet.
    pub fn new(access: Access, own: u16) -> Self {
        let subscribers = Subscribers::default();
        Self { access, own, subscribers, saved: REQUESTS_PER_SECOND, refilled: Time::ZERO }
    }

    /// What becomes of a message of `from`.
    pub fn answer(&mut self, now: Time<Mono>, request: &[u8], from: &A, sets: &DataSets) -> Answer {
        if !self.admit(now) {
            return Answer::none(Outcome::RateLimited);
        }
        let Ok(message) = Message::parse(request) else { return Answer::none(Outcome::Malformed) };
        let Body::Management(management) = message.body else {
            return Answer::none(Outcome::Malformed);
        };
        let target = management.target_port_identity;
        let own = sets.default.clock_identity;
        if message.header.domain_number != sets.default.domain_number
            || ![own, PortIdentity::ALL.clock_identity].contains(&target.clock_identity)
        {
            return Answer::none(Outcome::OtherClock);
        }
        let tlv = message.tlvs.iter().find_map(ManagementTlv::read);
        let Some(ManagementTlv::Data { id, payload }) = tlv else {
            return Answer::none(Outcome::Malformed);
        };
        let asked = Asked { id, payload, port_number: target.port_number };
        let action = Action(management.action);
        let path = get::path_octets(sets);
        let mut changed = None;
        let (replies, setting) = match action {
            Action::GET => (self.get(now, &message.header, &asked, sets, &path), None),
            Action::SET => match self.set(now, &message.header, &asked, from, sets) {
                Ok(setting) => {
                    let sets = changed.insert(sets.clone());
                    if let Some(setting) = setting {
                        sets.set(setting);
                    }
                    (self.get(now, &message.header, &asked, sets, &path), setting)
                }
                Err(error) => (self.refused(&asked, error), None),
            },
            Action::COMMAND => match self.command(&asked, sets) {
                Ok(setting) => (self.get(now, &message.header, &asked, sets, &path), setting),
                Err(error) => (self.refused(&asked, error), None),
            },
            _ => return Answer::none(Outcome::Malformed),
        };
        let outcome = Outcome::of(action, &replies);
        // A port that does not exist has nothing set.
        let setting = setting.filter(|_| !outcome.is_error());
        let answer_action =
            if action == Action::COMMAND { Action::ACKNOWLEDGE } else { Action::RESPONSE };
        let messages = replies.into_iter().filter_map(|(port_number, reply)| {
            let from = PortIdentity { clock_identity: own, port_number };
            emit_answer(&message.header, &management, answer_action, from, &reply)
        });
        Answer { messages: messages.collect(), setting, outcome }
    }

    /// What is told to whom of something that happens.
    pub fn tell(
        &mut self,
        now: Time<Mono>,
        happening: &Happening,
        sets: &DataSets,
    ) -> Vec<(A, Vec<u8>)> {
        let clock_identity = sets.default.clock_identity;
        let from = PortIdentity { clock_identity, port_number: happening.port_number };
        let told = self.subscribers.told(now, happening.event);
        let messages = told.into_iter().filter_map(|told| {
            let Told { at, who, sequence_id, sdo_id, minor_version } = told;
            let header = Header {
                domain_number: sets.default.domain_number,
                sdo_id,
                minor_version,
                ..Header::new(from, sequence_id)
            };
            let body = Management {
                target_port_identity: who,
                starting_boundary_hops: 1,
                boundary_hops: 1,
                action: Action::RESPONSE.0,
            };
            Some((at, emit(header, body, &Reply::Data(happening.data))?))
        });
        messages.collect()
    }

    /// How many have subscribed.
    pub const fn subscribers(&self) -> usize {
        self.subscribers.len()
    }

    /// The events that anybody wants, as bits; ends subscriptions that are over.
    pub fn wanted(&mut self, now: Time<Mono>) -> u8 {
        self.subscribers.prune(now);
        self.subscribers.wanted()
    }

    /// Whoever is there is gone.
    pub fn forget(&mut self, is_gone: impl Fn(&A) -> bool) {
        self.subscribers.forget(is_gone);
    }

    fn admit(&mut self, now: Time<Mono>) -> bool {
        let passed = (now - self.refilled).max(Duration::ZERO);
        let more = passed.as_nanos() / (1_000_000_000 / i64::from(REQUESTS_PER_SECOND));
        if more > 0 {
            let more = u32::try_from(more).unwrap_or(u32::MAX);
            self.saved = self.saved.saturating_add(more).min(REQUESTS_PER_SECOND);
            self.refilled = now;
        }
        let may = self.saved > 0;
        self.saved = self.saved.saturating_sub(1);
        may
    }

    fn get<'a>(
        &self,
        now: Time<Mono>,
        header: &Header,
        asked: &Asked<'_>,
        sets: &'a DataSets,
        path: &'a [u8],
    ) -> Vec<(u16, Reply<'a>)> {
        let Asked { id, payload, port_number } = *asked;
        let is_private = matches!(
            id,
            ManagementId::SUBSCRIBE_EVENTS_NP
                | ManagementId::PORT_PROPERTIES_NP
                | ManagementId::PORT_HWCLOCK_NP
        );
        if is_private && self.access == Access::Public {
            return self.refused(asked, ManagementErrorId::NOT_SUPPORTED);
        }
        if id == ManagementId::SUBSCRIBE_EVENTS_NP {
            let subscribed = self.subscribers.of(now, header.source_port_identity);
            return vec![(self.own, Reply::Data(ManagementData::Subscribe(subscribed)))];
        }
        get::get(id, payload, port_number, self.own, sets, path)
    }

    /// What a SET asks for; nothing where it changes nothing of the clock.
    fn set(
        &mut self,
        now: Time<Mono>,
        header: &Header,
        asked: &Asked<'_>,
        from: &A,
        sets: &DataSets,
    ) -> Result<Option<Setting>, ManagementErrorId> {
        let Asked { id, payload, port_number } = *asked;
        if id == ManagementId::SUBSCRIBE_EVENTS_NP && self.access != Access::Public {
            let Some(ManagementData::Subscribe(events)) = ManagementData::read(id, payload) else {
                return Err(ManagementErrorId::WRONG_LENGTH);
            };
            let may = self.subscribers.subscribe(now, header, from, events);
            return if may { Ok(None) } else { Err(ManagementErrorId::GENERAL_ERROR) };
        }
        if id == ManagementId::NULL {
            return Ok(None);
        }
        if !id.is_named() {
            return Err(ManagementErrorId::NO_SUCH_ID);
        }
        if self.access != Access::ReadWrite || !settings::is_settable(id) {
            let is_known =
                ManagementData::length(id).is_some() || ManagementData::is_of_any_length(id);
            return Err(match is_known {
                true => ManagementErrorId::NOT_SETABLE,
                false => ManagementErrorId::NOT_SUPPORTED,
            });
        }
        settings::setting(id, payload, port_number, sets).map(Some)
    }

    fn command(
        &self,
        asked: &Asked<'_>,
        sets: &DataSets,
    ) -> Result<Option<Setting>, ManagementErrorId> {
        let Asked { id, port_number, .. } = *asked;
        let is_enabled = match id {
            ManagementId::NULL => return Ok(None),
            ManagementId::ENABLE_PORT => true,
            ManagementId::DISABLE_PORT => false,
            id if id.is_named() => return Err(ManagementErrorId::NOT_SUPPORTED),
            _ => return Err(ManagementErrorId::NO_SUCH_ID),
        };
        if self.access != Access::ReadWrite {
            return Err(ManagementErrorId::NOT_SUPPORTED);
        }
        if sets.ports.is_empty() {
            return Err(ManagementErrorId::WRONG_VALUE);
        }
        Ok(Some(Setting::Port(port_number, PortSetting::Enabled(is_enabled))))
    }

    fn refused<'a>(&self, asked: &Asked<'_>, error: ManagementErrorId) -> Vec<(u16, Reply<'a>)> {
        vec![(self.own, Reply::Error(error, asked.id))]
    }
}

/// What a request is about.
struct Asked<'a> {
    id: ManagementId,
    payload: &'a [u8],
    port_number: u16,
}

fn emit_answer(
    request: &Header,
    management: &Management,
    action: Action,
    from: PortIdentity,
    reply: &Reply<'_>,
) -> Option<Vec<u8>> {
    let hops = management.starting_boundary_hops.saturating_sub(management.boundary_hops);
    let header = Header {
        domain_number: request.domain_number,
        sdo_id: request.sdo_id,
        minor_version: request.minor_version,
        ..Header::new(from, request.sequence_id)
    };
    let body = Management {
        target_port_identity: request.source_port_identity,
        starting_boundary_hops: hops,
        boundary_hops: hops,
        action: action.0,
    };
    emit(header, body, reply)
}

fn emit(header: Header, body: Management, reply: &Reply<'_>) -> Option<Vec<u8>> {
    let mut payload = [0; ManagementData::MAX_LENGTH];
    let tlv = match reply {
        Reply::Data(data) => match data.emit(&mut payload) {
            Ok(length) => ManagementTlv::Data { id: data.id(), payload: &payload[..length] },
            Err(_) => {
                ManagementTlv::Error { error: ManagementErrorId::RESPONSE_TOO_BIG, id: data.id() }
            }
        },
        Reply::Empty(id) => ManagementTlv::Data { id: *id, payload: &[] },
        Reply::Error(error, id) => ManagementTlv::Error { error: *error, id: *id },
    };
    let mut room = [0; 6 + ManagementData::MAX_LENGTH];
    let length = tlv.emit(&mut room).ok()?;
    let tlvs = Tlvs::new(&room[..length]).ok()?;
    let message = Message { header, body: Body::Management(body), tlvs };
    let mut bytes = vec![0; MAX_ANSWER];
    let length = message.emit(&mut bytes).ok()?;
    bytes.truncate(length);
    Some(bytes)
}
