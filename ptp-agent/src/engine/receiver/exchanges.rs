//! Exchanges with the parent: Sync with its Follow_Up, Delay_Req with its Delay_Resp, in whatever order
//! their parts and stamps come.

use super::{
    super::{
        Datagram, DelayMechanism, TxToken,
        counters::{Counters, Drop},
        sequence::{SequenceGuard, Verdict},
    },
    DelayObservation, Observation, Receiver, SyncObservation,
};
use crate::{
    limits::{self, Clamped},
    stamp::Stamp,
};
use ptp_common::{
    time::{Duration, Mono, Ptp, Time},
    wire::{Body, Bracket, Flags, Header, MessageType, PortIdentity, Timestamp},
};
use rand::RngExt;

/// Sync messages that wait for their other half.
const SYNC_CAPACITY: usize = 8;
/// Delay_Req messages that wait for stamp or answer.
const DELAY_CAPACITY: usize = 16;
/// A Delay_Req older than this, or than four of its intervals, is not answered any more.
const DELAY_PATIENCE: Duration = Duration::from_secs(2);
/// A bracket may be wider than the path by what a driver takes, part of which is behind the wire.
const DRIVER: Duration = Duration::from_micros(100);
/// Interval assumed where a Sync says none that can be believed.
const UNKNOWN_INTERVAL: Duration = Duration::from_log_interval(-7);

#[derive(Debug)]
pub(super) enum SyncHalf {
    Awaited,
    /// Came without a stamp, and was counted; its Follow_Up needs no second count.
    Lost,
    Stamped {
        t2: Stamp,
        correction: Duration,
        log_interval: Option<i8>,
    },
}

#[derive(Clone, Copy, Debug)]
struct FollowUp {
    origin: Time<Ptp>,
    correction: Duration,
    /// How much before that stamp the Sync may have left.
    doubt: Duration,
}

#[derive(Debug)]
pub(super) struct PendingSync {
    sequence_id: u16,
    sync: SyncHalf,
    follow_up: Option<FollowUp>,
}

#[derive(Debug)]
pub(super) struct PendingDelay {
    sequence_id: u16,
    pub(super) token: TxToken,
    sent: Time<Mono>,
    pub(super) t3: Option<Stamp>,
    /// Corrected, the correction, and how much later than the stamp it may have arrived.
    t4: Option<(Time<Ptp>, Duration, Duration)>,
}

/// Three Sync messages of a new series, two intervals after the last of the old one.
pub(super) fn sync_guard() -> SequenceGuard {
    SequenceGuard::new(3, 4)
}

impl Receiver {
    pub(super) fn take_sync(
        &mut self,
        now: Time<Mono>,
        index: usize,
        header: &Header,
        origin: Timestamp,
        rx: Option<Stamp>,
    ) -> Result<(), Drop> {
        self.check_parent(now, index, header)?;
        let sequence_id = header.sequence_id;
        let log_interval = limits::sync_interval(header.log_message_interval);
        // The first Sync shows that the time transmitter is at work: requests may start (9.5.11.2).
        self.start_delay_req(now, index);
        let port = &mut self.ports[index];
        let correction: Duration = header.correction.into();
        // Some transmitters send a Follow_Up and forget the flag. That it was sent when the epoch began is
        // no time that anybody means.
        let is_one_step = !header.flags.contains(Flags::TWO_STEP)
            && !port.config.assume_two_step
            && origin != Timestamp::ZERO;
        if is_one_step {
            let Some(t2) = rx else {
                port.sync_sequence.accept(now, sequence_id);
                return Err(Drop::MissingRxStamp);
            };
            port.grain.push(origin.into());
            let t1 = Time::<Ptp>::from(origin) + correction;
            let two_step = false;
            let sync = SyncObservation { t1, t2, sequence_id, log_interval, two_step, correction };
            self.finish_sync(now, index, sync);
            return Ok(());
        }
        let half = match rx {
            Some(t2) => SyncHalf::Stamped { t2, correction, log_interval },
            None => SyncHalf::Lost,
        };
        let lost = rx.is_none();
        let pending = self.pending_sync(index, sequence_id);
        if !matches!(pending.sync, SyncHalf::Awaited) {
            return Err(Drop::Duplicate);
        }
        pending.sync = half;
        self.match_sync(now, index, sequence_id);
        if lost { Err(Drop::MissingRxStamp) } else { Ok(()) }
    }

    pub(super) fn take_follow_up(
        &mut self,
        now: Time<Mono>,
        index: usize,
        header: &Header,
        precise_origin: Timestamp,
        bracket: Option<Bracket>,
    ) -> Result<(), Drop> {
        self.check_parent(now, index, header)?;
        // What is earlier than the stamp is on the wrong side of it.
        let doubt = self.peer_doubt(index, bracket, |bracket| -i64::from(bracket.earliest_ns));
        let pending = self.pending_sync(index, header.sequence_id);
        if pending.follow_up.is_some() {
            return Err(Drop::Duplicate);
        }
        let (origin, correction): (Time<Ptp>, Duration) =
            (precise_origin.into(), header.correction.into());
        pending.follow_up = Some(FollowUp { origin, correction, doubt });
        // With the fraction that the timestamp leaves out.
        self.ports[index].grain.push(origin + correction);
        self.match_sync(now, index, header.sequence_id);
        Ok(())
    }

    /// How far a stamp of the other end lies on the wrong side of its wire, by the bracket that it tells.
    fn peer_doubt(
        &mut self,
        index: usize,
        bracket: Option<Bracket>,
        doubt_ns: impl Fn(Bracket) -> i64,
    ) -> Duration {
        let Some(bracket) = bracket else { return Duration::ZERO };
        let port = &mut self.ports[index];
        let doubt = Duration::from_nanos(doubt_ns(bracket).max(0));
        let is_known = bracket.earliest_ns != i32::MIN && bracket.latest_ns != i32::MAX;
        let width = i64::from(bracket.latest_ns) - i64::from(bracket.earliest_ns);
        let width = if is_known { Duration::from_nanos(width) } else { doubt };
        let widest = port.round_trip.latest().map(|path| path + DRIVER);
        if width < Duration::ZERO || widest.is_some_and(|widest| width.max(doubt) > widest) {
            port.counters.count_drop(Drop::ImplausibleBracket);
            return Duration::ZERO;
        }
        doubt
    }

    /// Sync and Follow_Up count only from the parent and in sequence.
    pub(super) fn check_parent(
        &mut self,
        now: Time<Mono>,
        index: usize,
        header: &Header,
    ) -> Result<(), Drop> {
        if header.flags.contains(Flags::ALTERNATE_MASTER) {
            return Err(Drop::AlternateMaster);
        }
        if self.parent_on(index) != Some(header.source_port_identity) {
            return Err(Drop::NotParent);
        }
        let interval = limits::sync_interval(header.log_message_interval)
            .map_or(UNKNOWN_INTERVAL, Duration::from_log_interval);
        match self.ports[index].sync_sequence.check(now, header.sequence_id, interval) {
            Verdict::Fresh => Ok(()),
            Verdict::Duplicate => Err(Drop::Duplicate),
            Verdict::Stale => Err(Drop::Replayed),
        }
    }

    /// The place where the halves of a two-step Sync meet; makes it, at the cost of the oldest.
    pub(super) fn pending_sync(&mut self, index: usize, sequence_id: u16) -> &mut PendingSync {
        let port = &mut self.ports[index];
        let position = port.syncs.iter().position(|pending| pending.sequence_id == sequence_id);
        let position = position.unwrap_or_else(|| {
            if port.syncs.len() >= SYNC_CAPACITY
                && let Some(old) = port.syncs.pop_front()
            {
                count_half(&mut port.counters, &old);
            }
            let follow_up = None;
            port.syncs.push_back(PendingSync { sequence_id, sync: SyncHalf::Awaited, follow_up });
            port.syncs.len() - 1
        });
        &mut port.syncs[position]
    }

    pub(super) fn match_sync(&mut self, now: Time<Mono>, index: usize, sequence_id: u16) {
        let port = &mut self.ports[index];
        let Some(at) = port.syncs.iter().position(|pending| pending.sequence_id == sequence_id)
        else {
            return;
        };
        let Some(FollowUp { origin, correction: more, doubt }) = port.syncs[at].follow_up else {
            return;
        };
        match port.syncs[at].sync {
            SyncHalf::Awaited => {}
            SyncHalf::Lost => {
                port.syncs.remove(at);
                port.sync_sequence.accept(now, sequence_id);
            }
            SyncHalf::Stamped { mut t2, correction, log_interval } => {
                port.syncs.remove(at);
                // At which end it arises makes no difference.
                t2.doubt += doubt;
                let correction = correction + more;
                let (t1, two_step) = (origin + correction, true);
                let sync =
                    SyncObservation { t1, t2, sequence_id, log_interval, two_step, correction };
                self.finish_sync(now, index, sync);
            }
        }
    }

    /// `delayAsymmetry` is still to be added to `t1`.
    pub(super) fn finish_sync(&mut self, now: Time<Mono>, index: usize, mut sync: SyncObservation) {
        let sequence_id = sync.sequence_id;
        let port = &mut self.ports[index];
        port.sync_sequence.accept(now, sequence_id);
        // What is older can only be taken out of order from now on, so it is not taken at all.
        while let Some(at) = port
            .syncs
            .iter()
            .position(|pending| sequence_id.wrapping_sub(pending.sequence_id) < 0x8000)
        {
            if let Some(old) = port.syncs.remove(at) {
                count_half(&mut port.counters, &old);
            }
        }
        port.counters.sync_exchanges += 1;
        let half = port.grain.half();
        sync.t1 += port.config.delay_asymmetry + half;
        sync.t2.doubt += half;
        port.rhythm.sync(sync.t1, sync.t2.time);
        port.round_trip.sync(sync.t1, sync.t2.time);
        self.measured(index, Observation::Sync(sync));
    }

    pub(super) fn start_delay_req(&mut self, now: Time<Mono>, index: usize) {
        let port = &self.ports[index];
        if port.config.delay_mechanism == DelayMechanism::E2e && port.next_delay_req.is_none() {
            let wait = self.random_interval(index);
            self.ports[index].next_delay_req = Some(now + wait);
        }
    }

    /// Uniform over 0..=2 times the mean interval (9.5.11.2).
    pub(super) fn random_interval(&mut self, index: usize) -> Duration {
        let log = self.ports[index].log_delay_req_interval;
        let most = Duration::from_log_interval(log).as_nanos().saturating_mul(2);
        Duration::from_nanos(self.rng.random_range(0..=most))
    }

    /// At random, and with aiming shortly before the Sync that is nearest to that.
    fn next_request(&mut self, now: Time<Mono>, index: usize) -> Time<Mono> {
        let wanted = now + self.random_interval(index);
        let port = &self.ports[index];
        let share = port.rhythm.share();
        if !port.is_aiming || (share < 1.0 && self.rng.random::<f64>() >= share) {
            return wanted;
        }
        let mean = Duration::from_log_interval(port.log_delay_req_interval);
        port.rhythm.aim(now, wanted, mean)
    }

    pub(super) fn send_delay_req(&mut self, now: Time<Mono>, index: usize) {
        let next = self.next_request(now, index);
        let token = self.token();
        let port = &mut self.ports[index];
        let mean = Duration::from_log_interval(port.log_delay_req_interval);
        let patience = DELAY_PATIENCE.max(mean * 4);
        while port
            .delays
            .front()
            .is_some_and(|old| port.delays.len() >= DELAY_CAPACITY || now - old.sent > patience)
        {
            port.delays.pop_front();
            port.counters.count_drop(Drop::UnansweredDelayReq);
        }
        let sequence_id = port.delay_sequence_id;
        port.delay_sequence_id = sequence_id.wrapping_add(1);
        port.next_delay_req = Some(next);
        port.delays.push_back(PendingDelay { sequence_id, token, sent: now, t3: None, t4: None });
        let header = self.header(index, sequence_id);
        let body = Body::DelayReq { origin_timestamp: Timestamp::ZERO };
        let message = Datagram::new(header, body);
        self.send_event(index, MessageType::DelayReq, token, false, message);
    }

    pub(super) fn take_delay_resp(
        &mut self,
        now: Time<Mono>,
        index: usize,
        header: &Header,
        receive: Timestamp,
        requester: PortIdentity,
        bracket: Option<Bracket>,
    ) -> Result<(), Drop> {
        let is_own = requester == self.ports[index].identity;
        let is_parents = self.parent_on(index) == Some(header.source_port_identity);
        if is_parents {
            self.ports[index].rhythm.answered(now, is_own);
        }
        if !is_own {
            return Err(Drop::OtherRequester);
        }
        if !is_parents {
            return Err(Drop::NotParent);
        }
        let port = &mut self.ports[index];
        let sequence_id = header.sequence_id;
        let Some(at) = port.delays.iter().position(|delay| delay.sequence_id == sequence_id) else {
            return Err(if port.last_answered == Some(sequence_id) {
                Drop::Duplicate
            } else {
                Drop::UnmatchedDelayResp
            });
        };
        if port.delays[at].t4.is_some() {
            return Err(Drop::Duplicate);
        }
        let configured = port.config.log_min_delay_req_interval;
        let claimed = limits::delay_req_interval(
            configured,
            port.log_delay_req_interval,
            header.log_message_interval,
        );
        if let Some(Clamped { log, is_clamped }) = claimed {
            port.log_delay_req_interval = log;
            if is_clamped {
                port.counters.count_drop(Drop::IntervalClamped);
            }
            // A request that an earlier answer has put far off does not wait for longer than this one asks.
            let latest = now + Duration::from_log_interval(log) * 2;
            port.next_delay_req = port.next_delay_req.map(|at| at.min(latest));
        }
        let correction: Duration = header.correction.into();
        port.grain.push(Time::<Ptp>::from(receive) - correction);
        let half = port.grain.half();
        let t4 = Time::<Ptp>::from(receive) - correction + port.config.delay_asymmetry + half;
        if port.is_aiming {
            port.rhythm.aimed_arrived(t4);
        }
        let doubt = self.peer_doubt(index, bracket, |bracket| i64::from(bracket.latest_ns));
        self.ports[index].delays[at].t4 = Some((t4, correction, doubt + half));
        self.finish_delay(index, at);
        Ok(())
    }

    pub(super) fn finish_delay(&mut self, index: usize, at: usize) {
        let port = &mut self.ports[index];
        let PendingDelay {
            sequence_id, t3: Some(mut t3), t4: Some((t4, correction, doubt)), ..
        } = port.delays[at]
        else {
            return;
        };
        t3.doubt += doubt;
        port.delays.remove(at);
        port.last_answered = Some(sequence_id);
        if !port.round_trip.delay(t3.time, t4) {
            port.counters.count_drop(Drop::ImplausibleDelay);
            return;
        }
        port.counters.delay_exchanges += 1;
        let delay = DelayObservation { t3, t4, sequence_id, correction };
        self.measured(index, Observation::Delay(delay));
    }
}

fn count_half(counters: &mut Counters, old: &PendingSync) {
    match (&old.sync, &old.follow_up) {
        (SyncHalf::Lost, _) => {}
        (SyncHalf::Awaited, _) => counters.count_drop(Drop::FollowUpWithoutSync),
        (SyncHalf::Stamped { .. }, None) => counters.count_drop(Drop::SyncWithoutFollowUp),
        (SyncHalf::Stamped { .. }, Some(_)) => counters.count_drop(Drop::Reordered),
    }
}
