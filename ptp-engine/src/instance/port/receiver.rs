//! What a port does that follows a time transmitter: Sync with its Follow_Up, Delay_Req with its Delay_Resp, in
//! whatever order their parts and stamps come.

mod asking;

use alloc::collections::VecDeque;

use ptp_common::{
    time::{Duration, Mono, Ptp, Time},
    wire::{
        Body, Bracket, Deviation, Flags, Header, MessageType, PortIdentity, Timestamp, Tlvs,
        gptp::FollowUpInformation,
    },
};
use rand::RngExt;

use crate::{
    Datagram, DelayMechanism, Destination, PortIndex, PortState, SentToken,
    config::PortConfig,
    counters::{Counters, Drop},
    instance::{Aiming, Cx, Instance, Synchronization, relay::Said},
    limits::{self, Clamped},
    outcome::{DelayObservation, Observation, SyncObservation},
    port::{
        Port, PortTimer, Role,
        contest::{Contest, Habit, Steps},
        grain::Grain,
        rhythm::Rhythm,
    },
    round_trip::RoundTrip,
    sent::Sent,
    sequence::{SequenceGuard, Verdict},
    stamp::Stamp,
};

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
enum SyncHalf {
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
    information: Option<FollowUpInformation>,
    /// How much before that stamp the Sync may have left.
    doubt: Duration,
    deviation: Option<Deviation>,
}

#[derive(Debug)]
struct PendingSync {
    sequence_id: u16,
    sync: SyncHalf,
    follow_up: Option<FollowUp>,
}

#[derive(Debug)]
struct PendingDelay {
    sequence_id: u16,
    token: SentToken,
    sent: Time<Mono>,
    t3: Option<Stamp>,
    t4: Option<Answered>,
}

/// What a Delay_Resp has told.
#[derive(Clone, Copy, Debug)]
struct Answered {
    /// Corrected.
    t4: Time<Ptp>,
    correction: Duration,
    /// How much later than the stamp it may have arrived.
    doubt: Duration,
    deviation: Option<Deviation>,
}

/// What belongs to a port and its present parent, and goes with it.
#[derive(Debug)]
pub(crate) struct Following {
    pub(crate) synchronization: Synchronization,
    sync_sequence: SequenceGuard,
    syncs: VecDeque<PendingSync>,
    delays: VecDeque<PendingDelay>,
    last_answered: Option<u16>,
    /// What was said of the last two Sync, for who passes it on.
    said: [Option<Said>; 2],
    /// What was told last of how far its time may be from the grandmaster's.
    deviation: Option<Deviation>,
    pub(crate) log_delay_req_interval: i8,
    /// No exchange since it began, or since the clock ceased to follow.
    pub(crate) lacks_exchange: bool,
    rhythm: Rhythm,
    grain: Grain,
    habit: Habit,
    /// Who else speaks in the parent's name: of Sync, and of answers.
    syncs_told: Contest<SyncObservation>,
    answers_told: Contest<DelayObservation>,
}

impl Following {
    pub(crate) fn new(config: &PortConfig) -> Self {
        Self {
            synchronization: Synchronization::Unlocked,
            // Three Sync messages of a new series, two intervals after the last of the old one.
            sync_sequence: SequenceGuard::new(3, 4),
            syncs: VecDeque::new(),
            delays: VecDeque::new(),
            last_answered: None,
            said: [None; 2],
            deviation: None,
            log_delay_req_interval: config.log_min_delay_req_interval,
            lacks_exchange: true,
            rhythm: Rhythm::default(),
            grain: Grain::default(),
            habit: Habit::default(),
            syncs_told: Contest::default(),
            answers_told: Contest::default(),
        }
    }

    pub(crate) const fn state(&self) -> PortState {
        match self.synchronization {
            Synchronization::Unlocked => PortState::Uncalibrated,
            Synchronization::Locked => PortState::TimeReceiver,
        }
    }

    /// Halves of exchanges from before and after do not fit together.
    pub(crate) fn forget_halves(&mut self) {
        self.syncs.clear();
        self.delays.clear();
        self.syncs_told.forget();
        self.answers_told.forget();
    }

    /// What was said of a Sync, for who passes it on when it is whole.
    fn say(&mut self, said: Said) {
        self.said = [Some(said), self.said[0]];
    }

    fn said_of(&self, sequence_id: u16) -> Option<Said> {
        self.said.into_iter().flatten().find(|said| said.sequence_id == sequence_id)
    }

    #[cfg(test)]
    pub(crate) fn stored(&self) -> usize {
        self.syncs.len() + self.delays.len()
    }

    /// The place where the halves of a two-step Sync meet; makes it, at the cost of the oldest.
    fn pending_sync(&mut self, counters: &mut Counters, sequence_id: u16) -> &mut PendingSync {
        let position = self.syncs.iter().position(|pending| pending.sequence_id == sequence_id);
        let position = position.unwrap_or_else(|| {
            if self.syncs.len() >= SYNC_CAPACITY
                && let Some(old) = self.syncs.pop_front()
            {
                count_half(counters, &old);
            }
            let follow_up = None;
            self.syncs.push_back(PendingSync { sequence_id, sync: SyncHalf::Awaited, follow_up });
            self.syncs.len() - 1
        });
        &mut self.syncs[position]
    }
}

impl Instance {
    pub(crate) fn take_sync(
        &mut self,
        cx: &mut Cx<'_>,
        index: usize,
        header: &Header,
        origin: Timestamp,
        rx: Option<Stamp>,
    ) -> Result<(), Drop> {
        if self.ports[index].config.rules.are_static() {
            self.adopt(cx, index, header);
        }
        // Some transmitters send a Follow_Up and forget the flag. That it was sent when the epoch began is
        // no time that anybody means.
        let is_one_step = !header.flags.contains(Flags::TWO_STEP)
            && !self.ports[index].config.assume_two_step
            && origin != Timestamp::ZERO;
        if is_one_step {
            self.compare(cx.now, index, header, origin);
        }
        self.check_parent(cx.now, index, header).inspect_err(|cause| {
            if *cause == Drop::NotParent {
                self.overhear_sync(cx, index, header, origin, rx);
            }
        })?;
        let sequence_id = header.sequence_id;
        let log_interval = limits::sync_interval(header.log_message_interval);
        // The first Sync shows that the time transmitter is at work: requests may start (9.5.11.2).
        self.start_delay_req(cx.now, index);
        let (following, port) = self.following(index)?;
        let correction: Duration = header.correction.into();
        let steps = if is_one_step { Steps::One } else { Steps::Two };
        if !following.habit.is_usual(cx.now, steps) {
            return Err(Drop::Unconfirmed);
        }
        if is_one_step {
            let Some(t2) = rx else {
                following.sync_sequence.accept(cx.now, sequence_id);
                return Err(Drop::MissingRxStamp);
            };
            following.grain.left(origin.into());
            let t1 = Time::<Ptp>::from(origin) + correction;
            let two_step = false;
            let sync = SyncObservation { t1, t2, sequence_id, log_interval, two_step, correction };
            let information = FollowUpInformation::default();
            following.say(Said { sequence_id, origin, correction, information });
            return self.finish_sync(cx, index, t1, sync);
        }
        let half = match rx {
            Some(t2) => SyncHalf::Stamped { t2, correction, log_interval },
            None => SyncHalf::Lost,
        };
        let pending = following.pending_sync(port.counters, sequence_id);
        if !matches!(pending.sync, SyncHalf::Awaited) {
            return Err(Drop::Duplicate);
        }
        pending.sync = half;
        self.match_sync(cx, index, sequence_id)?;
        if rx.is_none() { Err(Drop::MissingRxStamp) } else { Ok(()) }
    }

    pub(crate) fn take_follow_up(
        &mut self,
        cx: &mut Cx<'_>,
        index: usize,
        header: &Header,
        precise_origin: Timestamp,
        tlvs: Tlvs<'_>,
    ) -> Result<(), Drop> {
        let bracket = Bracket::find(&tlvs);
        self.compare(cx.now, index, header, precise_origin);
        self.check_parent(cx.now, index, header).inspect_err(|cause| {
            if *cause == Drop::NotParent {
                self.overhear_follow_up(cx, index, header, precise_origin);
            }
        })?;
        let is_gptp = self.ports[index].config.rules.are_gptp();
        let information = FollowUpInformation::find(&tlvs);
        if is_gptp && information.is_none() {
            return Err(Drop::MissingInformation);
        }
        let (following, mut port) = self.following(index)?;
        // What is earlier than the stamp is on the wrong side of it.
        let doubt = port.peer_doubt(bracket, |bracket| -i64::from(bracket.earliest_ns));
        let pending = following.pending_sync(port.counters, header.sequence_id);
        if pending.follow_up.is_some() {
            return Err(Drop::Duplicate);
        }
        let (origin, correction): (Time<Ptp>, Duration) =
            (precise_origin.into(), header.correction.into());
        let deviation = Deviation::find(&tlvs);
        pending.follow_up = Some(FollowUp { origin, correction, information, doubt, deviation });
        following.deviation = deviation;
        // With the fraction that the timestamp leaves out.
        following.grain.left(origin + correction);
        self.match_sync(cx, index, header.sequence_id)
    }

    /// What belongs to the parent of a port, and the rest of the port.
    fn following(&mut self, index: usize) -> Result<(&mut Following, Rest<'_>), Drop> {
        let Port { role, config, counters, round_trip, granted, .. } = &mut self.ports[index];
        match role {
            Role::Receiver(following) => {
                Ok((following, Rest { config, counters, round_trip, granted }))
            }
            _ => Err(Drop::NotParent),
        }
    }

    /// Looks whether the parent has said something else of the same Sync before.
    fn compare(&mut self, now: Time<Mono>, index: usize, header: &Header, origin: Timestamp) {
        if self.parent_on(index) == Some(header.source_port_identity)
            && let Ok((following, _)) = self.following(index)
        {
            let told = Time::<Ptp>::from(origin) + header.correction.into();
            following.syncs_told.is_contradiction(now, header.sequence_id, told);
        }
    }

    /// Sync and Follow_Up count only from the parent and in sequence.
    fn check_parent(&mut self, now: Time<Mono>, index: usize, header: &Header) -> Result<(), Drop> {
        if header.flags.contains(Flags::ALTERNATE_MASTER) {
            return Err(Drop::AlternateMaster);
        }
        if self.parent_on(index) != Some(header.source_port_identity) {
            return Err(Drop::NotParent);
        }
        let interval = limits::sync_interval(header.log_message_interval)
            .map_or(UNKNOWN_INTERVAL, Duration::from_log_interval);
        let (following, _) = self.following(index)?;
        match following.sync_sequence.check(now, header.sequence_id, interval) {
            Verdict::Fresh => Ok(()),
            Verdict::Duplicate => Err(Drop::Duplicate),
            Verdict::Stale => Err(Drop::Replayed),
        }
    }

    /// Until when nothing is to come that must be answered or acted on at once: the next Sync. `None` where that is
    /// not known, or where this instance answers others.
    pub fn next_sync(&self) -> Option<Time<Mono>> {
        let is_quiet = |port: &Port| {
            port.config.delay_mechanism == DelayMechanism::E2e
                && !matches!(port.role, Role::Transmitter(..))
        };
        let parent = self.parent.filter(|_| self.ports.iter().all(is_quiet))?;
        match &self.ports.get(usize::from(parent.port.0))?.role {
            Role::Receiver(following) if following.syncs.is_empty() => following.rhythm.next(),
            _ => None,
        }
    }

    fn match_sync(&mut self, cx: &mut Cx<'_>, index: usize, sequence_id: u16) -> Result<(), Drop> {
        let (following, _) = self.following(index)?;
        let Some(at) = following.syncs.iter().position(|each| each.sequence_id == sequence_id)
        else {
            return Ok(());
        };
        let Some(follow_up) = following.syncs[at].follow_up else { return Ok(()) };
        let FollowUp { origin, correction: more, information, doubt, deviation } = follow_up;
        match following.syncs[at].sync {
            SyncHalf::Awaited => Ok(()),
            SyncHalf::Lost => {
                following.syncs.remove(at);
                following.sync_sequence.accept(cx.now, sequence_id);
                Ok(())
            }
            SyncHalf::Stamped { mut t2, correction, log_interval } => {
                following.syncs.remove(at);
                // At which end it arises makes no difference.
                t2.doubt += doubt;
                t2.told_within = deviation;
                let (told, mut correction) = (origin + more, correction + more);
                if let Some(information) = information {
                    let (origin, _) = Timestamp::from_time(origin);
                    following.say(Said { sequence_id, origin, correction, information });
                }
                let (t1, two_step) = (origin + correction, true);
                // Of a relay it is what has passed since, which its deviation is about, and nothing that others have added.
                if information.is_some() && deviation.is_some() {
                    correction = Duration::ZERO;
                }
                let sync =
                    SyncObservation { t1, t2, sequence_id, log_interval, two_step, correction };
                self.finish_sync(cx, index, told, sync)
            }
        }
    }

    /// `delayAsymmetry` is still to be added to `t1`. `told` is what the message said that told the time.
    fn finish_sync(
        &mut self,
        cx: &mut Cx<'_>,
        index: usize,
        told: Time<Ptp>,
        sync: SyncObservation,
    ) -> Result<(), Drop> {
        let sequence_id = sync.sequence_id;
        let (following, port) = self.following(index)?;
        following.sync_sequence.accept(cx.now, sequence_id);
        // What is older can only be taken out of order from now on, so it is not taken at all.
        while let Some(at) = following
            .syncs
            .iter()
            .position(|pending| sequence_id.wrapping_sub(pending.sequence_id) < 0x8000)
        {
            if let Some(old) = following.syncs.remove(at) {
                count_half(port.counters, &old);
            }
        }
        following.syncs_told.note(sequence_id, told);
        for mut sync in following.syncs_told.complete(cx.now, sync).into_iter().flatten() {
            let (following, port) = self.following(index)?;
            port.counters.sync_exchanges += 1;
            let said = following.said_of(sync.sequence_id);
            let half = following.grain.half();
            sync.t1 += port.config.delay_asymmetry + half;
            sync.t2.doubt += half;
            following.rhythm.sync(sync.t1, sync.t2.time);
            port.round_trip.sync(sync.t1, sync.t2.time);
            self.measured(cx, index, Observation::Sync(sync));
            if let Some(said) = said {
                self.pass_on(cx, index, said, sync.t2.time, sync.log_interval);
                self.ask_again(cx, index, sync.log_interval);
            }
        }
        Ok(())
    }
}

/// A port without its role.
struct Rest<'a> {
    config: &'a PortConfig,
    counters: &'a mut Counters,
    round_trip: &'a mut RoundTrip,
    granted: &'a mut Option<(PortIdentity, i8)>,
}

impl Rest<'_> {
    /// How far a stamp of the other end lies on the wrong side of its wire, by the bracket that it tells.
    fn peer_doubt(
        &mut self,
        bracket: Option<Bracket>,
        doubt_ns: impl Fn(Bracket) -> i64,
    ) -> Duration {
        let Some(bracket) = bracket else { return Duration::ZERO };
        let doubt = Duration::from_nanos(doubt_ns(bracket).max(0));
        let is_known = bracket.earliest_ns != i32::MIN && bracket.latest_ns != i32::MAX;
        let width = i64::from(bracket.latest_ns) - i64::from(bracket.earliest_ns);
        let width = if is_known { Duration::from_nanos(width) } else { doubt };
        let widest = self.round_trip.floor().map(|path| path + DRIVER);
        if width < Duration::ZERO || widest.is_some_and(|widest| width.max(doubt) > widest) {
            self.counters.count_drop(Drop::ImplausibleBracket);
            return Duration::ZERO;
        }
        doubt
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
