//! Somebody who does not mean well, between the nodes or beside them, for a while: what he holds, drops, repeats
//! and invents. He forges the sender's address as well, so that nothing but the engine stands in his way.

use ptp_common::wire::{
    Announce, Body, ClockAccuracy, ClockIdentity, ClockQuality, Flags, Header, Message,
    PortIdentity, TimeInterval, TimeSource, Timestamp,
};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

use crate::engine::Datagram;

/// Messages that are kept to be sent again.
const KEPT: usize = 32;

/// What he does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Trick {
    /// Holds Sync, all by the same time.
    HoldSync,
    /// Holds Sync, a little longer every second.
    HoldSyncSlowly,
    /// Holds Delay_Req, all by the same time.
    HoldRequests,
    /// Drops most Sync.
    DropSync,
    /// Drops most Delay_Resp.
    DropAnswers,
    /// Drops most Announce.
    DropAnnounce,
    /// Sends what was sent before once more.
    Replay,
    /// Announces in the parent's name another time scale.
    FlipAnnounce,
    /// Announces in the parent's name with an interval of a millisecond.
    HastyAnnounce,
    /// Invents clocks that are worse.
    ManyClocks,
    /// Answers requests sooner than the parent, a second off and with an interval of weeks.
    ForgeAnswers,
    /// Sends a one-step Sync in the parent's name with the number of the next, a second ahead.
    ForgeSync,
    /// Drops most Follow_Up, and nothing else.
    DropFollowUps,
    /// Says in each Follow_Up that Sync was held by as much as he pleases.
    LieInCorrection,
    /// Says that of each request in its answer.
    LieInAnswers,
    /// Gives each Sync the Follow_Up of another one.
    SwapFollowUps,
    /// Sends everything again in another domain and with another sdoId, a second ahead.
    OtherDomains,
    /// Sends Sync and Announce in the parent's name whose numbers are half the range ahead.
    RunAhead,
    /// Announces a better clock that has the time receiver's own identity.
    Twin,
}

impl Trick {
    /// All of them.
    pub(crate) const ALL: [Self; 19] = [
        Self::HoldSync,
        Self::HoldSyncSlowly,
        Self::HoldRequests,
        Self::DropSync,
        Self::DropAnswers,
        Self::DropAnnounce,
        Self::Replay,
        Self::FlipAnnounce,
        Self::HastyAnnounce,
        Self::ManyClocks,
        Self::ForgeAnswers,
        Self::ForgeSync,
        Self::DropFollowUps,
        Self::LieInCorrection,
        Self::LieInAnswers,
        Self::SwapFollowUps,
        Self::OtherDomains,
        Self::RunAhead,
        Self::Twin,
    ];
}

/// When he does what, seconds, and how much, nanoseconds.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Act {
    /// What.
    pub trick: Trick,
    /// From when on.
    pub from_s: f64,
    /// Until when.
    pub to_s: f64,
    /// For how long he holds, or how much longer each second.
    pub by_ns: f64,
}

/// What becomes of a message that he meets.
#[derive(Debug, Default)]
pub(super) struct Met {
    pub(super) is_dropped: bool,
    pub(super) hold_ns: f64,
    /// For the time receiver, and whether it is an event message.
    pub(super) extra: Vec<(Datagram, bool)>,
}

/// See the module's paragraph.
pub(super) struct Assault {
    acts: Vec<Act>,
    rng: ChaCha8Rng,
    kept: Vec<(Datagram, bool)>,
    parent: Option<PortIdentity>,
    invented: u16,
    /// What the Follow_Up before said.
    swapped: Option<Body>,
}

impl Assault {
    pub(super) fn new(acts: Vec<Act>, seed: u64) -> Self {
        let rng = ChaCha8Rng::seed_from_u64(seed);
        Self { acts, rng, kept: Vec::new(), parent: None, invented: 0, swapped: None }
    }

    /// A message between the nodes at `now_s`. `time` is the grandmaster's.
    pub(super) fn meet(
        &mut self,
        now_s: f64,
        message: &Datagram,
        is_event: bool,
        time: Timestamp,
    ) -> Met {
        let mut met = Met::default();
        let Ok(Message { header, body, .. }) = Message::parse(message) else { return met };
        if matches!(body, Body::Sync { .. }) {
            self.parent = Some(header.source_port_identity);
        }
        let acts: Vec<Act> = self.acts.clone();
        for act in acts.iter().filter(|act| (act.from_s..act.to_s).contains(&now_s)) {
            self.play(act, now_s, &header, &body, time, &mut met);
        }
        let is_of_transmitter = !matches!(body, Body::DelayReq { .. });
        if is_of_transmitter {
            if self.kept.len() == KEPT {
                self.kept.remove(0);
            }
            self.kept.push((*message, is_event));
        }
        met
    }

    fn play(
        &mut self,
        act: &Act,
        now_s: f64,
        header: &Header,
        body: &Body,
        time: Timestamp,
        met: &mut Met,
    ) {
        let next = header.sequence_id.wrapping_add(1);
        let ahead = Timestamp::new(time.seconds() + 1, time.nanoseconds()).unwrap_or(time);
        match (act.trick, body) {
            (Trick::HoldSync, Body::Sync { .. }) | (Trick::HoldRequests, Body::DelayReq { .. }) => {
                met.hold_ns += act.by_ns;
            }
            (Trick::HoldSyncSlowly, Body::Sync { .. }) => {
                met.hold_ns += act.by_ns * (now_s - act.from_s);
            }
            (Trick::DropSync, Body::Sync { .. })
            | (Trick::DropFollowUps, Body::FollowUp { .. })
            | (Trick::DropAnswers, Body::DelayResp { .. })
            | (Trick::DropAnnounce, Body::Announce(_)) => {
                met.is_dropped |= self.rng.random_bool(0.9);
            }
            (Trick::Replay, Body::FollowUp { .. }) if !self.kept.is_empty() => {
                let at = self.rng.random_range(0..self.kept.len());
                met.extra.push(self.kept[at]);
            }
            (Trick::FlipAnnounce, Body::Announce(announce)) => {
                let flags = Flags(header.flags.0 ^ Flags::PTP_TIMESCALE.0);
                let header = Header { flags, sequence_id: next, ..*header };
                met.extra.push((Datagram::new(header, Body::Announce(*announce)), false));
            }
            (Trick::HastyAnnounce, Body::Announce(announce)) => {
                let header = Header { log_message_interval: -10, sequence_id: next, ..*header };
                met.extra.push((Datagram::new(header, Body::Announce(*announce)), false));
            }
            (Trick::ManyClocks, Body::FollowUp { .. }) => {
                self.invented = self.invented.wrapping_add(1);
                let [high, low] = self.invented.to_be_bytes();
                let clock_identity = ClockIdentity([0x99, 0, 0, 0xff, 0xfe, 0, high, low]);
                let source = PortIdentity { clock_identity, port_number: 1 };
                for sequence_id in 0..2 {
                    let header =
                        Header { log_message_interval: 4, ..Header::new(source, sequence_id) };
                    met.extra.push((Datagram::new(header, Body::Announce(worse(source))), false));
                }
            }
            (Trick::ForgeAnswers, Body::DelayReq { .. }) => {
                let Some(parent) = self.parent else { return };
                let (asking, log_message_interval) = (header.source_port_identity, 22);
                let header =
                    Header { log_message_interval, ..Header::new(parent, header.sequence_id) };
                let body = Body::DelayResp {
                    receive_timestamp: ahead,
                    // Who has asked.
                    requesting_port_identity: asking,
                };
                met.extra.push((Datagram::new(header, body), false));
            }
            (Trick::ForgeSync, Body::FollowUp { .. }) => {
                let header = Header { flags: Flags(0), sequence_id: next, ..*header };
                met.extra
                    .push((Datagram::new(header, Body::Sync { origin_timestamp: ahead }), true));
            }
            (Trick::LieInCorrection, Body::FollowUp { .. })
            | (Trick::LieInAnswers, Body::DelayResp { .. }) => {
                let held = header.correction.0 + (act.by_ns * 65_536.0) as i64;
                let header = Header { correction: TimeInterval(held), ..*header };
                met.is_dropped = true;
                met.extra.push((Datagram::new(header, *body), false));
            }
            (Trick::SwapFollowUps, Body::FollowUp { .. }) => {
                let told = self.swapped.replace(*body).unwrap_or(*body);
                met.is_dropped = true;
                met.extra.push((Datagram::new(*header, told), false));
            }
            (
                Trick::OtherDomains,
                Body::Sync { .. }
                | Body::FollowUp { .. }
                | Body::Announce(_)
                | Body::DelayResp { .. },
            ) => {
                let body = match *body {
                    Body::Sync { .. } => Body::Sync { origin_timestamp: ahead },
                    Body::FollowUp { .. } => Body::FollowUp { precise_origin_timestamp: ahead },
                    Body::DelayResp { requesting_port_identity, .. } => {
                        Body::DelayResp { receive_timestamp: ahead, requesting_port_identity }
                    }
                    other => other,
                };
                let is_event = matches!(body, Body::Sync { .. });
                let domain_number = header.domain_number.wrapping_add(1);
                for header in
                    [Header { domain_number, ..*header }, Header { sdo_id: 0x100, ..*header }]
                {
                    met.extra.push((Datagram::new(header, body), is_event));
                }
            }
            (Trick::RunAhead, Body::Sync { .. } | Body::Announce(_)) => {
                let sequence_id = header.sequence_id.wrapping_add(0x7fff);
                let is_event = matches!(body, Body::Sync { .. });
                met.extra.push((Datagram::new(Header { sequence_id, ..*header }, *body), is_event));
            }
            (Trick::Twin, Body::DelayReq { .. }) => {
                let source = header.source_port_identity;
                let announce = Announce { grandmaster_priority1: 0, ..worse(source) };
                let header = Header { log_message_interval: 0, ..Header::new(source, next) };
                met.extra.push((Datagram::new(header, Body::Announce(announce)), false));
            }
            _ => {}
        }
    }
}

fn worse(source: PortIdentity) -> Announce {
    Announce {
        origin_timestamp: Timestamp::ZERO,
        current_utc_offset: 37,
        grandmaster_priority1: 250,
        grandmaster_clock_quality: ClockQuality {
            clock_class: 255,
            clock_accuracy: ClockAccuracy::UNKNOWN,
            offset_scaled_log_variance: 0xffff,
        },
        grandmaster_priority2: 250,
        grandmaster_identity: source.clock_identity,
        steps_removed: 0,
        time_source: TimeSource::GNSS,
    }
}

/// So much later than he meets a message his own arrives, ns.
pub(super) const SWIFT_NS: i64 = 1_000;
