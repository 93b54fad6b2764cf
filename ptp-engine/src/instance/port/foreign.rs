//! The foreign time transmitters of a port (`foreignMasterDS`, 9.3.2.4): who has announced itself
//! often enough, and what is believed of it.
//!
//! Both tables are bounded, and nobody can fill them to anybody's harm. A sender is only noted when it
//! is heard for the first time; it gets a place among the candidates with its second Announce, at
//! the cost of the worst of them, never of a better one or of the parent. So invented identities that
//! announce once push out nothing but each other, and ones that announce twice nothing that is better.
//!
//! What a sender says of itself counts at once where it is new. Where it contradicts what the same
//! sender said before, further messages must confirm it: an Announce that somebody else has sent in
//! its name does not turn time scale, grandmaster or UTC offset.

use crate::prelude::*;
use crate::{
    bmca::DataSet,
    config::Rules,
    limits,
    sequence::{SequenceGuard, Verdict},
};
use core::hash::{Hash, Hasher};
use ptp_common::{
    time::{Duration, Mono, Time},
    wire::{Announce, ClockIdentity, Flags, PortIdentity},
};
use siphasher::sip::SipHasher13;

/// FOREIGN_MASTER_TIME_WINDOW, announce intervals (9.3.2.4.5).
pub(crate) const FOREIGN_MASTER_TIME_WINDOW: i32 = 4;
/// FOREIGN_MASTER_THRESHOLD, Announce messages within the window (9.3.2.4.5).
const FOREIGN_MASTER_THRESHOLD: usize = 2;
/// Candidates per port. The standard asks for at least five (9.3.2.4.6).
pub(crate) const CAPACITY: usize = 16;
/// Announce messages of a candidate whose times are remembered.
const HEARD: usize = 4;
/// Places for senders that have been heard once, in sets of [`WAYS`].
const NEWCOMERS: usize = 512;
const WAYS: usize = 4;
/// One in so many newcomers takes a place that is still in use.
const ADMISSION: u64 = 8;

/// What an Announce says, and the flags that go with it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Announced {
    pub(crate) announce: Announce,
    pub(crate) flags: Flags,
}

/// What never changes while nothing has happened to the grandmaster or its time.
#[derive(Clone, Copy, PartialEq, Eq)]
struct TimeSide {
    grandmaster_identity: ClockIdentity,
    flags: Flags,
    utc_offset: i16,
}

impl Announced {
    fn time_side(&self) -> TimeSide {
        const TIME: Flags = Flags(
            Flags::PTP_TIMESCALE.0 | Flags::UTC_OFFSET_VALID.0 | Flags::LEAP59.0 | Flags::LEAP61.0,
        );
        TimeSide {
            grandmaster_identity: self.announce.grandmaster_identity,
            flags: Flags(self.flags.0 & TIME.0),
            utc_offset: self.announce.current_utc_offset,
        }
    }

    /// Where it claims to know what TAI minus UTC is, whether that can be.
    pub(crate) fn is_utc_offset_plausible(&self) -> bool {
        !self.flags.contains(Flags::PTP_TIMESCALE)
            || !self.flags.contains(Flags::UTC_OFFSET_VALID)
            || limits::is_utc_offset(self.announce.current_utc_offset)
    }

    /// What decides between candidates and changes seldom.
    fn rank_side(&self) -> (u8, u8, u8, u16) {
        let Announce { grandmaster_priority1, grandmaster_priority2, steps_removed, .. } =
            self.announce;
        let class = self.announce.grandmaster_clock_quality.clock_class;
        (grandmaster_priority1, class, grandmaster_priority2, steps_removed)
    }
}

/// What became of an Announce.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Heard {
    /// It is believed.
    Believed,
    /// It contradicts what its sender said before, and is to be confirmed.
    Unconfirmed,
    /// Its sender has not been heard often enough.
    Noted,
    /// The same, because its sender keeps a longer interval than it claims: this one.
    Late(Duration),
    /// Its sender has been heard often enough, but all candidates are better; or has not, and there are
    /// too many such.
    NoRoom,
    /// The same number as the last one. It may say something else, which then is not its sender's.
    Duplicate,
    /// Its number is behind, or far ahead.
    Stale,
}

/// One candidate.
#[derive(Debug)]
pub(crate) struct Foreign {
    pub(crate) source: PortIdentity,
    pub(crate) believed: Announced,
    /// Announce messages in a row that contradict what is believed, and when one last did not.
    contradictions: u8,
    agreed: Time<Mono>,
    configured: i8,
    /// What it claims, within its limits, and when it last claimed no less.
    log_interval: i8,
    claimed: Time<Mono>,
    sequence: SequenceGuard,
    /// When the last Announce messages came, latest first.
    heard: [Option<Time<Mono>>; HEARD],
    /// It announces itself and sends no Sync.
    pub(crate) is_silent: bool,
    /// So many Announce messages within the window qualify it.
    threshold: usize,
}

/// Two Announce messages, one and a half intervals: before the receipt timeout ends it anyway.
fn announce_guard() -> SequenceGuard {
    SequenceGuard::new(2, 3)
}

impl Foreign {
    fn claimed_interval(&self) -> Duration {
        Duration::from_log_interval(self.log_interval)
    }

    /// The interval by which its silence is measured: what it keeps, between what it claims and what is
    /// configured.
    pub(crate) fn interval(&self) -> Duration {
        let claimed = self.claimed_interval();
        let configured = Duration::from_log_interval(self.configured);
        let gaps = self.heard.windows(2).filter_map(|pair| Some(pair[0]? - pair[1]?));
        let kept = gaps.max().unwrap_or(Duration::ZERO);
        kept.max(claimed.min(configured)).min(claimed.max(configured))
    }

    pub(crate) fn last_heard(&self) -> Time<Mono> {
        self.heard[0].unwrap_or(Time::ZERO)
    }

    pub(crate) fn window(&self) -> Duration {
        self.claimed_interval() * FOREIGN_MASTER_TIME_WINDOW
    }

    /// Enough Announce messages within the window.
    pub(crate) fn is_qualified(&self, now: Time<Mono>) -> bool {
        let needed = &self.heard[..self.threshold];
        needed.iter().all(|heard| heard.is_some_and(|at| now - at <= self.window()))
    }

    pub(crate) fn data_set(&self, receiver: PortIdentity) -> DataSet {
        DataSet::new(&self.believed.announce, self.source, receiver)
    }

    fn hear(
        &mut self,
        now: Time<Mono>,
        sequence_id: u16,
        log: i8,
        said: Announced,
        belief: Belief,
    ) -> Heard {
        let verdict = self.sequence.check(now, sequence_id, self.claimed_interval());
        self.claim(now, log);
        match verdict {
            Verdict::Fresh => self.sequence.accept(now, sequence_id),
            verdict => {
                // Whose numbers are the right ones is open then, so the sender may well not have gone
                // over to something else.
                if said.time_side() == self.believed.time_side() {
                    self.agree(now);
                }
                return if verdict == Verdict::Duplicate { Heard::Duplicate } else { Heard::Stale };
            }
        }
        self.heard.rotate_right(1);
        self.heard[0] = Some(now);
        let is_other_time = said.time_side() != self.believed.time_side();
        let is_other_rank = said.rank_side() != self.believed.rank_side();
        if (!is_other_time && !is_other_rank) || belief == Belief::AtOnce {
            self.agree(now);
            self.believed = said;
            return Heard::Believed;
        }
        self.contradictions = self.contradictions.saturating_add(1);
        let (needed, silence) = if is_other_time {
            (limits::CONFIRM_TIME, self.claimed_interval() * limits::CONFIRM_SILENCE)
        } else {
            // Between two true ones there is time for any number of false ones.
            (limits::CONFIRM_RANK, (self.claimed_interval() * limits::CONFIRM_RANK_HALVES).half())
        };
        if self.contradictions < needed || now - self.agreed < silence {
            return Heard::Unconfirmed;
        }
        self.agree(now);
        self.believed = said;
        Heard::Believed
    }

    fn agree(&mut self, now: Time<Mono>) {
        self.contradictions = 0;
        self.agreed = now;
    }

    /// A longer interval is believed at once, a shorter one when nobody has claimed the longer one for a while: by
    /// the interval the silence is measured that lets a false Announce be believed.
    fn claim(&mut self, now: Time<Mono>, log: i8) {
        if log >= self.log_interval || now - self.claimed >= self.claimed_interval() * 2 {
            (self.log_interval, self.claimed) = (log, now);
        }
    }
}

/// A sender that was heard and is no candidate.
#[derive(Clone, Copy, Debug)]
struct Newcomer {
    source: PortIdentity,
    sequence_id: u16,
    heard: Time<Mono>,
    window: Duration,
    /// Whether it came too late after the one before.
    is_late: bool,
}

/// See the module's paragraph.
#[derive(Debug)]
pub(crate) struct ForeignTable {
    candidates: Vec<Foreign>,
    /// Empty until somebody is heard: most ports never need it.
    newcomers: Vec<Option<Newcomer>>,
    /// So that nobody can aim at a place.
    key: u64,
    /// Newcomers that found no free place.
    crowded: u64,
    pub(crate) belief: Belief,
    /// Announce messages that make a candidate.
    threshold: usize,
}

/// When a sender is believed that says something else than before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Belief {
    /// When it has said so several times.
    Confirmed,
    /// At once, as the standard has it: among clocks that pass on what they follow, whoever believes later than
    /// others passes on what is no more.
    AtOnce,
}

impl ForeignTable {
    pub(crate) const fn new(key: u64, rules: Rules) -> Self {
        Self {
            candidates: Vec::new(),
            newcomers: Vec::new(),
            key,
            crowded: 0,
            belief: Belief::Confirmed,
            threshold: if rules.are_gptp() { 1 } else { FOREIGN_MASTER_THRESHOLD },
        }
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &Foreign> {
        self.candidates.iter()
    }

    pub(crate) fn get(&self, at: usize) -> Option<&Foreign> {
        self.candidates.get(at)
    }

    pub(crate) fn retain(&mut self, keep: impl FnMut(&Foreign) -> bool) {
        self.candidates.retain(keep);
    }

    /// Notes whether a candidate sends Sync messages. Whether that is news.
    pub(crate) fn set_silent(&mut self, source: PortIdentity, is_silent: bool) -> bool {
        let known = self.candidates.iter_mut().find(|known| known.source == source);
        known.is_some_and(|known| core::mem::replace(&mut known.is_silent, is_silent) != is_silent)
    }

    pub(crate) fn clear(&mut self) {
        self.candidates.clear();
        self.newcomers.clear();
    }

    #[cfg(test)]
    pub(crate) fn len(&self) -> usize {
        self.candidates.len()
    }

    /// Takes an Announce of `source`. `configured` is the port's own interval, `log` what the sender
    /// claims, within its limits, both log2 s. `receiver` is the port's identity, `parent` is never
    /// pushed out.
    #[expect(clippy::too_many_arguments, reason = "one message with all that it is judged by")]
    pub(crate) fn hear(
        &mut self,
        now: Time<Mono>,
        source: PortIdentity,
        sequence_id: u16,
        (configured, log): (i8, i8),
        said: Announced,
        receiver: PortIdentity,
        parent: Option<PortIdentity>,
    ) -> Heard {
        if let Some(known) = self.candidates.iter_mut().find(|known| known.source == source) {
            return known.hear(now, sequence_id, log, said, self.belief);
        }
        let window = Duration::from_log_interval(log) * FOREIGN_MASTER_TIME_WINDOW;
        let newcomer = Newcomer { source, sequence_id, heard: now, window, is_late: false };
        let before = match self.threshold {
            1 => None,
            _ => match self.note(newcomer) {
                Noted::First => return Heard::Noted,
                Noted::Same => return Heard::Duplicate,
                Noted::Late(gap) => return Heard::Late(gap),
                Noted::Crowd => return Heard::NoRoom,
                Noted::Again { heard } => Some(heard),
            },
        };
        let mut sequence = announce_guard();
        sequence.accept(now, sequence_id);
        let mut heard = [None; HEARD];
        (heard[0], heard[1]) = (Some(now), before);
        let candidate = Foreign {
            source,
            believed: said,
            contradictions: 0,
            agreed: now,
            configured,
            log_interval: log,
            claimed: now,
            sequence,
            heard,
            is_silent: false,
            threshold: self.threshold,
        };
        if self.candidates.len() < CAPACITY {
            self.candidates.push(candidate);
            self.forget(source);
            return Heard::Believed;
        }
        let ours = candidate.data_set(receiver);
        let worst = (0..self.candidates.len())
            .filter(|at| Some(self.candidates[*at].source) != parent)
            .reduce(|worst, at| {
                let (a, b) = (&self.candidates[worst], &self.candidates[at]);
                match (a.is_qualified(now), b.is_qualified(now)) {
                    (true, false) => at,
                    (false, true) => worst,
                    _ if a.data_set(receiver).is_better_than(&b.data_set(receiver)) => at,
                    _ => worst,
                }
            });
        match worst {
            Some(at)
                if !self.candidates[at].is_qualified(now)
                    || ours.is_better_than(&self.candidates[at].data_set(receiver)) =>
            {
                self.candidates[at] = candidate;
                self.forget(source);
                Heard::Believed
            }
            _ => Heard::NoRoom,
        }
    }

    /// Who is a candidate is no newcomer.
    fn forget(&mut self, source: PortIdentity) {
        let set = self.set(&source);
        for place in self.newcomers.iter_mut().skip(set).take(WAYS) {
            if place.is_some_and(|known| known.source == source) {
                *place = None;
            }
        }
    }

    fn set(&self, source: &PortIdentity) -> usize {
        self.hash(source) as usize % (NEWCOMERS / WAYS) * WAYS
    }

    /// Remembers that somebody was heard who is no candidate.
    fn note(&mut self, newcomer: Newcomer) -> Noted {
        if self.newcomers.is_empty() {
            self.newcomers = vec![None; NEWCOMERS];
        }
        let set = self.set(&newcomer.source);
        let now = newcomer.heard;
        let places = &mut self.newcomers[set..set + WAYS];
        let is_gone = |known: &Newcomer| now - known.heard > known.window.max(newcomer.window);
        if let Some(known) =
            places.iter_mut().flatten().find(|known| known.source == newcomer.source)
        {
            let Newcomer { sequence_id, heard, is_late, .. } = *known;
            let is_ahead = (1..0x8000).contains(&newcomer.sequence_id.wrapping_sub(sequence_id));
            // A copy of the same message is no second one.
            if sequence_id == newcomer.sequence_id && now - heard <= newcomer.window {
                return Noted::Same;
            }
            let gap = now - heard;
            *known = Newcomer { is_late: is_ahead && gap > newcomer.window, ..newcomer };
            return match known.is_late {
                // Once may be an outage.
                true if is_late => Noted::Late(gap),
                false if is_ahead => Noted::Again { heard },
                _ => Noted::First,
            };
        }
        if let Some(free) = places.iter_mut().find(|place| place.as_ref().is_none_or(is_gone)) {
            *free = Some(newcomer);
            return Noted::First;
        }
        // In a flood each newcomer has a small chance, and whoever got a place keeps it for a while:
        // long enough for the second Announce of one who goes on announcing.
        self.crowded = self.crowded.wrapping_add(1);
        let dice = self.hash(&self.crowded);
        if dice.is_multiple_of(ADMISSION) {
            let way = (dice / ADMISSION) as usize % WAYS;
            self.newcomers[set + way] = Some(newcomer);
        }
        Noted::Crowd
    }

    fn hash(&self, value: &impl Hash) -> u64 {
        let mut hasher = SipHasher13::new();
        self.key.hash(&mut hasher);
        value.hash(&mut hasher);
        hasher.finish()
    }
}

enum Noted {
    First,
    Same,
    Crowd,
    Late(Duration),
    Again { heard: Time<Mono> },
}
