//! Exchanges of which a part is still missing. Each queue belongs to one port, is bounded in length
//! and age, and says what was lost when it lets an incomplete exchange go. The parts are accepted in
//! any order, because records of different hooks and CPUs may overtake each other.

use super::{Losses, PacketStamp};
use crate::prelude::*;
use alloc::collections::VecDeque;
use ptp_common::{
    record::Direction,
    time::{Duration, Mono, Ptp, Time},
    wire::PortIdentity,
};

/// Exchanges of one kind and port that may be incomplete at a time.
const PENDING: usize = 16;
/// Delay_Resp that may wait for their Delay_Req. Few, and apart from the requests, so that nobody
/// can push requests out with answers to nothing.
const EARLY_RESPONSES: usize = 4;
/// Ports that may answer one request.
const RESPONDERS: usize = 4;
/// How long the missing part is waited for.
const PATIENCE: Duration = Duration::from_secs(4);

/// A message that says again what has been said.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Duplicate;

/// What a Sync says.
#[derive(Clone, Copy, Debug)]
pub(super) struct SyncPart {
    pub(super) stamp: Option<PacketStamp>,
    /// `originTimestamp` and `correctionField`.
    pub(super) origin: Time<Ptp>,
    pub(super) two_step: bool,
}

#[derive(Debug)]
struct PendingSync {
    sequence_id: u16,
    since: Time<Mono>,
    sync: Option<SyncPart>,
    /// `preciseOriginTimestamp` and `correctionField` of the Follow_Up, and the latter alone.
    follow_up: Option<Time<Ptp>>,
    sync_correction: Duration,
    done: bool,
}

/// A Sync with its time of transmission.
#[derive(Clone, Copy, Debug)]
pub(super) struct CompleteSync {
    pub(super) stamp: Option<PacketStamp>,
    /// When the transmitter says that it was sent, all corrections added.
    pub(super) t1: Time<Ptp>,
}

/// Sync and Follow_Up of one time transmitter.
#[derive(Debug, Default)]
pub(super) struct Syncs(VecDeque<PendingSync>);

impl Syncs {
    /// `repeats`: whether the port may send one `sequenceId` several times, as a transmitter of
    /// unicast messages does to its clients.
    pub(super) fn sync(
        &mut self,
        now: Time<Mono>,
        sequence_id: u16,
        part: SyncPart,
        correction: Duration,
        repeats: bool,
    ) -> Result<Option<CompleteSync>, Duplicate> {
        let mut same = self.0.iter_mut().filter(|each| each.sequence_id == sequence_id).peekable();
        let is_known = same.peek().is_some();
        let place = match same.find(|each| each.sync.is_none()) {
            Some(place) => place,
            None if is_known && !repeats => return Err(Duplicate),
            None => self.push(now, sequence_id),
        };
        place.sync = Some(part);
        place.sync_correction = correction;
        Ok(place.complete())
    }

    pub(super) fn follow_up(
        &mut self,
        now: Time<Mono>,
        sequence_id: u16,
        origin: Time<Ptp>,
    ) -> Result<Option<CompleteSync>, Duplicate> {
        let mut same = self.0.iter_mut().filter(|each| each.sequence_id == sequence_id).peekable();
        let is_known = same.peek().is_some();
        let place = match same.find(|each| !each.done && each.follow_up.is_none()) {
            Some(place) => place,
            None if is_known => return Err(Duplicate),
            None => self.push(now, sequence_id),
        };
        place.follow_up = Some(origin);
        Ok(place.complete())
    }

    fn push(&mut self, now: Time<Mono>, sequence_id: u16) -> &mut PendingSync {
        self.0.push_back(PendingSync {
            sequence_id,
            since: now,
            sync: None,
            follow_up: None,
            sync_correction: Duration::ZERO,
            done: false,
        });
        let last = self.0.len() - 1;
        &mut self.0[last]
    }

    /// Lets go of what is too old or too much.
    pub(super) fn expire(&mut self, now: Time<Mono>, losses: &mut Losses) {
        expire(
            &mut self.0,
            now,
            |each| each.since,
            |gone| match gone {
                PendingSync { done: true, .. } => {}
                PendingSync { sync: Some(_), .. } => losses.sync_without_follow_up += 1,
                PendingSync { .. } => losses.follow_up_without_sync += 1,
            },
        );
    }
}

impl PendingSync {
    fn complete(&mut self) -> Option<CompleteSync> {
        let SyncPart { stamp, origin, two_step } = self.sync?;
        let origin = if two_step { self.follow_up? } else { origin };
        self.done = true;
        Some(CompleteSync { stamp, t1: origin + self.sync_correction })
    }
}

/// What a Delay_Req says.
#[derive(Clone, Copy, Debug)]
pub(super) struct RequestPart {
    pub(super) stamp: Option<PacketStamp>,
    pub(super) correction: Duration,
}

/// What a Delay_Resp says.
#[derive(Clone, Copy, Debug)]
pub(super) struct ResponsePart {
    pub(super) responder: PortIdentity,
    pub(super) direction: Direction,
    pub(super) receive_timestamp: Time<Ptp>,
    pub(super) correction: Duration,
}

#[derive(Debug)]
struct PendingRequest {
    sequence_id: u16,
    since: Time<Mono>,
    request: RequestPart,
    responders: Vec<PortIdentity>,
}

/// A Delay_Req and its answer.
#[derive(Clone, Copy, Debug)]
pub(super) struct CompleteDelay {
    pub(super) request: RequestPart,
    pub(super) response: ResponsePart,
}

/// Delay_Req of one port and the answers to it.
#[derive(Debug, Default)]
pub(super) struct Requests {
    pending: VecDeque<PendingRequest>,
    early: VecDeque<(u16, Time<Mono>, ResponsePart)>,
}

impl Requests {
    pub(super) fn request(
        &mut self,
        now: Time<Mono>,
        sequence_id: u16,
        request: RequestPart,
    ) -> Result<Option<CompleteDelay>, Duplicate> {
        if self.pending.iter().any(|each| each.sequence_id == sequence_id) {
            return Err(Duplicate);
        }
        let early = self.early.iter().position(|(early, ..)| *early == sequence_id);
        let response = early.and_then(|at| self.early.remove(at)).map(|(_, _, response)| response);
        let responders = response.iter().map(|response| response.responder).collect();
        self.pending.push_back(PendingRequest { sequence_id, since: now, request, responders });
        Ok(response.map(|response| CompleteDelay { request, response }))
    }

    pub(super) fn response(
        &mut self,
        now: Time<Mono>,
        sequence_id: u16,
        response: ResponsePart,
    ) -> Result<Option<CompleteDelay>, Duplicate> {
        let Some(place) = self.pending.iter_mut().find(|each| each.sequence_id == sequence_id)
        else {
            self.early.push_back((sequence_id, now, response));
            return Ok(None);
        };
        let responders = &mut place.responders;
        if responders.contains(&response.responder) || responders.len() >= RESPONDERS {
            return Err(Duplicate);
        }
        responders.push(response.responder);
        Ok(Some(CompleteDelay { request: place.request, response }))
    }

    /// Lets go of what is too old or too much.
    pub(super) fn expire(&mut self, now: Time<Mono>, losses: &mut Losses) {
        expire(
            &mut self.pending,
            now,
            |each| each.since,
            |gone| {
                losses.delay_req_without_resp += u64::from(gone.responders.is_empty());
            },
        );
        while self.early.front().is_some_and(|(_, since, _)| {
            now - *since > PATIENCE || self.early.len() > EARLY_RESPONSES
        }) {
            self.early.pop_front();
            losses.delay_resp_without_req += 1;
        }
    }
}

/// What a Pdelay_Resp says.
#[derive(Clone, Copy, Debug)]
pub(super) struct PdelayRespPart {
    pub(super) stamp: Option<PacketStamp>,
    pub(super) request_receipt: Time<Ptp>,
    pub(super) correction: Duration,
    pub(super) two_step: bool,
}

#[derive(Debug)]
struct PdelayAnswer {
    responder: PortIdentity,
    response: Option<PdelayRespPart>,
    /// `responseOriginTimestamp` and `correctionField`.
    follow_up: Option<(Time<Ptp>, Duration)>,
    done: bool,
}

#[derive(Debug)]
struct PendingPdelay {
    sequence_id: u16,
    since: Time<Mono>,
    stamp: Option<PacketStamp>,
    answers: Vec<PdelayAnswer>,
}

/// A Pdelay_Req, its answer, and how long the responder took.
#[derive(Clone, Copy, Debug)]
pub(super) struct CompletePdelay {
    /// Pdelay_Req.
    pub(super) request: Option<PacketStamp>,
    /// Pdelay_Resp.
    pub(super) response: Option<PacketStamp>,
    /// On the responder's clock, corrections included.
    pub(super) turnaround: Duration,
}

/// Pdelay_Req of one port and the answers to it.
#[derive(Debug, Default)]
pub(super) struct PeerRequests(VecDeque<PendingPdelay>);

impl PeerRequests {
    pub(super) fn request(
        &mut self,
        now: Time<Mono>,
        sequence_id: u16,
        stamp: Option<PacketStamp>,
    ) -> Result<(), Duplicate> {
        if self.0.iter().any(|each| each.sequence_id == sequence_id) {
            return Err(Duplicate);
        }
        self.0.push_back(PendingPdelay { sequence_id, since: now, stamp, answers: Vec::new() });
        Ok(())
    }

    /// `None` where there is no such request.
    pub(super) fn response(
        &mut self,
        sequence_id: u16,
        responder: PortIdentity,
        part: PdelayRespPart,
    ) -> Option<Result<Option<CompletePdelay>, Duplicate>> {
        let (stamp, answer) = match self.answer(sequence_id, responder)? {
            Ok(place) => place,
            Err(duplicate) => return Some(Err(duplicate)),
        };
        if answer.response.is_some() {
            return Some(Err(Duplicate));
        }
        answer.response = Some(part);
        Some(Ok(answer.complete(stamp)))
    }

    /// `None` where there is no such request.
    pub(super) fn follow_up(
        &mut self,
        sequence_id: u16,
        responder: PortIdentity,
        origin: Time<Ptp>,
        correction: Duration,
    ) -> Option<Result<Option<CompletePdelay>, Duplicate>> {
        let (stamp, answer) = match self.answer(sequence_id, responder)? {
            Ok(place) => place,
            Err(duplicate) => return Some(Err(duplicate)),
        };
        if answer.done || answer.follow_up.is_some() {
            return Some(Err(Duplicate));
        }
        answer.follow_up = Some((origin, correction));
        Some(Ok(answer.complete(stamp)))
    }

    fn answer(
        &mut self,
        sequence_id: u16,
        responder: PortIdentity,
    ) -> Option<Result<(Option<PacketStamp>, &mut PdelayAnswer), Duplicate>> {
        let place = self.0.iter_mut().find(|each| each.sequence_id == sequence_id)?;
        let known = place.answers.iter().position(|answer| answer.responder == responder);
        let at = match known {
            Some(at) => at,
            None if place.answers.len() >= RESPONDERS => return Some(Err(Duplicate)),
            None => {
                place.answers.push(PdelayAnswer {
                    responder,
                    response: None,
                    follow_up: None,
                    done: false,
                });
                place.answers.len() - 1
            }
        };
        Some(Ok((place.stamp, &mut place.answers[at])))
    }

    /// Lets go of what is too old or too much.
    pub(super) fn expire(&mut self, now: Time<Mono>, losses: &mut Losses) {
        expire(
            &mut self.0,
            now,
            |each| each.since,
            |gone| {
                if gone.answers.is_empty() {
                    losses.pdelay_req_without_resp += 1;
                } else if !gone.answers.iter().any(|answer| answer.done) {
                    losses.pdelay_resp_without_follow_up += 1;
                }
            },
        );
    }
}

impl PdelayAnswer {
    fn complete(&mut self, request: Option<PacketStamp>) -> Option<CompletePdelay> {
        let response = self.response?;
        // One step: the turnaround is in the correction field (11.4.2).
        let mut turnaround = response.correction;
        if response.two_step {
            let (origin, correction) = self.follow_up?;
            turnaround += (origin - response.request_receipt) + correction;
        }
        self.done = true;
        Some(CompletePdelay { request, response: response.stamp, turnaround })
    }
}

/// Pops from the front what is older than [`PATIENCE`] or beyond [`PENDING`].
fn expire<T>(
    queue: &mut VecDeque<T>,
    now: Time<Mono>,
    since: impl Fn(&T) -> Time<Mono>,
    mut lost: impl FnMut(T),
) {
    while queue.len() > PENDING
        || queue.front().is_some_and(|oldest| now - since(oldest) > PATIENCE)
    {
        if let Some(gone) = queue.pop_front() {
            lost(gone);
        }
    }
}

#[cfg(test)]
impl Syncs {
    pub(super) fn is_bounded(&self) -> bool {
        self.0.len() <= PENDING
    }
}

#[cfg(test)]
impl Requests {
    pub(super) fn is_bounded(&self) -> bool {
        self.pending.len() <= PENDING && self.early.len() <= EARLY_RESPONSES
    }
}

#[cfg(test)]
impl PeerRequests {
    pub(super) fn is_bounded(&self) -> bool {
        self.0.len() <= PENDING
    }
}
