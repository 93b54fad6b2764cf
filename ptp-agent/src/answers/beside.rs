//! What is to be known of another time transmitter of this host before its clients are answered in its name: who it is,
//! what its Delay_Resp look like, that it serves now, and which time its own stamps mean. All of it is learnt from
//! the messages that it sends, and nothing is assumed of it. Sans-I/O: messages and instants in, an answer's form out.

use std::collections::VecDeque;

use ptp_common::{
    answer::RESPONSE,
    time::{Duration, Mono, Ptp, Real, Time},
    wire::{Body, Flags, Header, Message, PortIdentity, Timestamp, TlvType, Tlvs},
};

use crate::transport::TransportKind;

/// Pairs of Sync and Follow_Up that are looked at,
const PAIRS: usize = 8;
/// and that are needed.
const NEEDED: usize = 3;
/// Sync leaves the socket so long before its stamp: never later, and on a busy host not much earlier. Another clock than
/// the host's is off by anything.
const EARLY: Duration = Duration::from_micros(-100);
const LATE: Duration = Duration::from_millis(1);
/// Of its intervals of Sync so many may pass in silence, and this besides: a busy host is late.
const SILENT_INTERVALS: i32 = 3;
const SILENT_BESIDE: Duration = Duration::from_millis(500);
/// Intervals of Sync, log2 s, that are believed.
const INTERVALS: std::ops::RangeInclusive<i8> = -7..=4;
const SECOND_NS: i64 = 1_000_000_000;

/// Why nobody is answered in another's name.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Obstacle {
    /// Nobody serves here.
    #[error("no Sync of another time transmitter leaves by this interface")]
    Nobody,
    /// It has stopped.
    #[error("{0} has sent no Sync for {seconds:.1} s: it does not serve now", seconds = .1.as_secs_f64())]
    Silent(PortIdentity, Duration),
    /// What carries its messages is not what is answered.
    #[error("{0} sends over {1}, and {2} is answered: --transport {1}")]
    Transport(PortIdentity, TransportKind, TransportKind),
    /// Its card stamps.
    #[error(
        "{0} sends one-step Sync, which only a card can: its time is the card's, not the host's"
    )]
    OneStep(PortIdentity),
    /// Nobody here has its keys.
    #[error("{0} authenticates its messages, and a kernel program has no keys")]
    Authenticated(PortIdentity),
    /// Too few pairs yet.
    #[error("which time {0} serves is not known yet: {1} of {NEEDED} pairs of Sync and Follow_Up")]
    Unproven(PortIdentity, usize),
    /// Another clock.
    #[error("{0} serves another clock than the host's: whole seconds and {ns} ns apart", ns = .1.as_nanos())]
    OtherClock(PortIdentity, Duration),
    /// It may not answer at all: the peer delay mechanism, or grants.
    #[error("{0} was not seen to answer a Delay_Req yet")]
    Unanswering(PortIdentity),
}

/// What is answered in its name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Known {
    /// It.
    pub identity: PortIdentity,
    /// Its Delay_Resp.
    pub response: Vec<u8>,
    /// Of its messages.
    pub domain: u8,
    /// Of its messages.
    pub sdo_id: u16,
    /// Its time minus CLOCK_REALTIME, whole seconds.
    pub ahead: Duration,
}

/// Who sends Sync.
#[derive(Clone, Debug)]
struct Sender {
    header: Header,
    transport: TransportKind,
    last_sync: Time<Mono>,
    pending: Option<(u16, Time<Real>)>,
    ahead: VecDeque<Duration>,
    is_authenticated: bool,
    has_answered: bool,
    /// `logMinDelayReqInterval`, as its answers to all have it.
    log_interval: Option<i8>,
}

/// The other time transmitter on one interface.
#[derive(Clone, Debug)]
pub struct Neighbour {
    transport: TransportKind,
    sender: Option<Sender>,
}

impl Neighbour {
    /// Nothing is known yet. `transport`: what is answered.
    pub const fn new(transport: TransportKind) -> Self {
        Self { transport, sender: None }
    }

    /// Who it is.
    pub fn identity(&self) -> Option<PortIdentity> {
        Some(self.sender.as_ref()?.header.source_port_identity)
    }

    /// Whether its answers are known, so that no more of them need be looked at.
    pub fn has_answered(&self) -> bool {
        self.sender.as_ref().is_some_and(|sender| sender.has_answered)
    }

    /// Takes note of a message that left this host by the interface; `real`: when.
    pub fn sent(
        &mut self,
        now: Time<Mono>,
        real: Option<Time<Real>>,
        transport: TransportKind,
        bytes: &[u8],
    ) {
        let Ok(Message { header, body, tlvs }) = Message::parse(bytes) else { return };
        if let Body::Sync { .. } = body {
            self.sync(now, real, transport, header);
        }
        let Some(sender) = &mut self.sender else { return };
        if !is_same(&sender.header, &header) {
            return;
        }
        sender.is_authenticated |= tlvs.iter().any(|tlv| tlv.kind == TlvType::AUTHENTICATION);
        match body {
            Body::FollowUp { precise_origin_timestamp } => {
                if let Some((number, left)) = sender.pending.take()
                    && number == header.sequence_id
                {
                    let origin: Time<Ptp> = precise_origin_timestamp.into();
                    let origin = origin + Duration::from(header.correction);
                    if sender.ahead.len() == PAIRS {
                        sender.ahead.pop_front();
                    }
                    sender.ahead.push_back(origin.since_epoch() - left.since_epoch());
                }
            }
            Body::DelayResp { .. } => {
                sender.has_answered = true;
                if !header.flags.contains(Flags::UNICAST) {
                    sender.log_interval = Some(header.log_message_interval);
                }
            }
            _ => {}
        }
    }

    fn sync(
        &mut self,
        now: Time<Mono>,
        real: Option<Time<Real>>,
        transport: TransportKind,
        header: Header,
    ) {
        // Whoever was first stays until it is silent: several may serve domains of their own.
        let is_another = self.sender.as_ref().is_none_or(|sender| {
            let is_silent = now - sender.last_sync > patience(&sender.header);
            !is_same(&sender.header, &header) && is_silent
        });
        if is_another {
            self.sender = Some(Sender {
                header,
                transport,
                last_sync: now,
                pending: None,
                ahead: VecDeque::new(),
                is_authenticated: false,
                has_answered: false,
                log_interval: None,
            });
        }
        let Some(sender) = &mut self.sender else { return };
        if is_same(&sender.header, &header) {
            (sender.header, sender.transport, sender.last_sync) = (header, transport, now);
            sender.pending = real.map(|real| (header.sequence_id, real));
        }
    }

    /// What is answered in its name now.
    ///
    /// # Errors
    /// Why nothing is.
    pub fn known(&self, now: Time<Mono>) -> Result<Known, Obstacle> {
        let sender = self.sender.as_ref().ok_or(Obstacle::Nobody)?;
        let header = &sender.header;
        let identity = header.source_port_identity;
        let silent = now - sender.last_sync;
        if silent > patience(header) {
            return Err(Obstacle::Silent(identity, silent));
        }
        if sender.transport != self.transport {
            return Err(Obstacle::Transport(identity, sender.transport, self.transport));
        }
        if !header.flags.contains(Flags::TWO_STEP) {
            return Err(Obstacle::OneStep(identity));
        }
        if sender.is_authenticated {
            return Err(Obstacle::Authenticated(identity));
        }
        if sender.ahead.len() < NEEDED {
            return Err(Obstacle::Unproven(identity, sender.ahead.len()));
        }
        let ahead = sender.ahead()?;
        if !sender.has_answered {
            return Err(Obstacle::Unanswering(identity));
        }
        let (domain, sdo_id) = (header.domain_number, header.sdo_id);
        Ok(Known { identity, response: sender.response(), domain, sdo_id, ahead })
    }
}

impl Sender {
    /// Its time minus the host's in whole seconds, where nothing else is between.
    fn ahead(&self) -> Result<Duration, Obstacle> {
        let mut all: Vec<Duration> = self.ahead.iter().copied().collect();
        all.sort_unstable();
        let middle = all[all.len() / 2];
        let seconds = (middle.as_nanos() + SECOND_NS / 2).div_euclid(SECOND_NS);
        let ahead = Duration::from_secs(seconds);
        let rest = middle - ahead;
        if rest < EARLY || rest > LATE {
            return Err(Obstacle::OtherClock(self.header.source_port_identity, rest));
        }
        Ok(ahead)
    }

    /// Its Delay_Resp, of which the request's part is filled in by who answers (11.3.2).
    fn response(&self) -> Vec<u8> {
        let mut header = Header::new(self.header.source_port_identity, 0);
        header.sdo_id = self.header.sdo_id;
        header.minor_version = self.header.minor_version;
        header.domain_number = self.header.domain_number;
        // What linuxptp has by default.
        header.log_message_interval = self.log_interval.unwrap_or(0);
        let body = Body::DelayResp {
            receive_timestamp: Timestamp::ZERO,
            requesting_port_identity: PortIdentity::default(),
        };
        let mut message = [0; RESPONSE];
        let length = Message { header, body, tlvs: Tlvs::NONE }.emit(&mut message);
        // There is room for it.
        message[..length.unwrap_or_default()].to_vec()
    }
}

/// Whether both are messages of the same port in the same domain.
fn is_same(one: &Header, other: &Header) -> bool {
    let of = |header: &Header| (header.source_port_identity, header.domain_number, header.sdo_id);
    of(one) == of(other)
}

/// How long it may send no Sync.
fn patience(header: &Header) -> Duration {
    let log = header.log_message_interval.clamp(*INTERVALS.start(), *INTERVALS.end());
    Duration::from_log_interval(log) * SILENT_INTERVALS + SILENT_BESIDE
}

#[cfg(test)]
mod tests {
    use super::*;
    use ptp_common::wire::ClockIdentity;

    const UDP: TransportKind = TransportKind::Udp4;

    fn header(number: u16) -> Header {
        let clock_identity = ClockIdentity([1, 2, 3, 4, 5, 6, 7, 8]);
        let mut header = Header::new(PortIdentity { clock_identity, port_number: 1 }, number);
        header.log_message_interval = 0;
        header.flags = Flags::TWO_STEP;
        header
    }

    fn bytes(header: Header, body: Body) -> Vec<u8> {
        let mut bytes = [0; 128];
        let length = Message { header, body, tlvs: Tlvs::NONE }.emit(&mut bytes).unwrap();
        bytes[..length].to_vec()
    }

    fn at(millis: i64) -> Time<Mono> {
        Time::ZERO + Duration::from_millis(millis)
    }

    fn real(millis: i64) -> Time<Real> {
        Time::from_epoch(Duration::from_secs(1_700_000_000) + Duration::from_millis(millis))
    }

    /// A server one second after the other, whose time is so far ahead of the host's.
    fn after(syncs: i64, ahead: Duration, answers: bool) -> Neighbour {
        let mut neighbour = Neighbour::new(UDP);
        let zero = Timestamp::ZERO;
        for n in 0..syncs {
            let (now, number) = (at(n * 1000), n as u16);
            let sync = bytes(header(number), Body::Sync { origin_timestamp: zero });
            neighbour.sent(now, Some(real(n * 1000)), UDP, &sync);
            let time: Time<Ptp> = Time::from_epoch(real(n * 1000).since_epoch() + ahead);
            let (precise_origin_timestamp, _) = Timestamp::from_time(time);
            let follow_up = bytes(header(number), Body::FollowUp { precise_origin_timestamp });
            neighbour.sent(now, None, UDP, &follow_up);
        }
        if answers {
            let mut header = header(9);
            header.log_message_interval = -3;
            let requesting_port_identity = PortIdentity::default();
            let body = Body::DelayResp { receive_timestamp: zero, requesting_port_identity };
            neighbour.sent(at(syncs * 1000), None, UDP, &bytes(header, body));
        }
        neighbour
    }

    #[test]
    fn its_identity_interval_and_time_scale_are_learnt_from_what_it_sends() {
        for seconds in [0, 37] {
            let ahead = Duration::from_secs(seconds) + Duration::from_micros(12);
            let known = after(3, ahead, true).known(at(3000)).unwrap();
            assert_eq!(known.ahead, Duration::from_secs(seconds));
            let Message { header: form, body, .. } = Message::parse(&known.response).unwrap();
            assert_eq!(form.source_port_identity, header(0).source_port_identity);
            assert_eq!((form.log_message_interval, form.flags), (-3, Flags(0)));
            assert!(matches!(body, Body::DelayResp { .. }));
        }
    }

    #[test]
    fn nobody_is_answered_while_it_is_silent_or_was_not_seen_to_answer() {
        let ahead = Duration::from_micros(12);
        assert_eq!(Neighbour::new(UDP).known(at(0)), Err(Obstacle::Nobody));
        let unanswering = after(3, ahead, false).known(at(2500));
        assert!(matches!(unanswering, Err(Obstacle::Unanswering(_))), "{unanswering:?}");
        let unproven = after(2, ahead, true).known(at(1500));
        assert!(matches!(unproven, Err(Obstacle::Unproven(_, 2))), "{unproven:?}");
        let served = after(3, ahead, true);
        served.known(at(2000 + 3500)).unwrap();
        let silent = served.known(at(2000 + 3501));
        assert!(matches!(silent, Err(Obstacle::Silent(..))), "{silent:?}");
    }

    #[test]
    fn another_clock_than_the_hosts_is_not_served() {
        for off in [Duration::from_millis(2), Duration::from_millis(-1), Duration::from_millis(400)]
        {
            let known = after(5, Duration::from_secs(37) + off, true).known(at(5000));
            assert!(matches!(known, Err(Obstacle::OtherClock(..))), "{off:?}: {known:?}");
        }
    }

    #[test]
    fn one_step_and_another_transport_are_told() {
        let mut one_step = Neighbour::new(UDP);
        let mut plain = header(1);
        plain.flags = Flags(0);
        let sync = bytes(plain, Body::Sync { origin_timestamp: Timestamp::ZERO });
        one_step.sent(at(0), Some(real(0)), UDP, &sync);
        assert!(matches!(one_step.known(at(1)), Err(Obstacle::OneStep(_))));
        one_step.sent(at(0), Some(real(0)), TransportKind::L2, &sync);
        let known = one_step.known(at(1));
        assert!(matches!(known, Err(Obstacle::Transport(_, TransportKind::L2, _))), "{known:?}");
    }

    #[test]
    fn second_server_of_another_domain_takes_nothing_over_until_the_first_is_silent() {
        let mut neighbour = after(3, Duration::ZERO, true);
        let mut other = header(7);
        other.domain_number = 24;
        let sync = bytes(other, Body::Sync { origin_timestamp: Timestamp::ZERO });
        neighbour.sent(at(2500), Some(real(2500)), UDP, &sync);
        assert_eq!(neighbour.known(at(2600)).unwrap().domain, 0);
        neighbour.sent(at(9000), Some(real(9000)), UDP, &sync);
        let known = neighbour.known(at(9001));
        assert!(matches!(known, Err(Obstacle::Unproven(_, 0))), "{known:?}");
    }
}
