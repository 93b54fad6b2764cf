//! What the messages of synchronous Ethernet (ESMC, ITU-T G.8264) say of a link: the quality level, whether it has become
//! lower than it usually is, and whether the messages have stopped. Sans-I/O: frames and the time in, states out. Nobody
//! signs these messages, so nothing follows from them but what is shown.

use ptp_common::{
    esmc::{Esmc, EsmcError, MOST_PER_SECOND, QualityLevel},
    time::{Duration, Mono, Time},
};

/// Without a message for so long the link's quality is unknown (G.8264, 11.3.2.1).
pub const SILENCE: Duration = Duration::from_secs(5);
/// A lower level that has lasted for so long is the usual one.
const GETTING_USED: Duration = Duration::from_secs(3_600);
/// As many frames may have waited when they are read.
const BURST: u32 = 2 * MOST_PER_SECOND;

/// How many frames there were.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Messages that were understood.
    pub accepted: u64,
    /// Frames that are no ESMC message though they claim to be one.
    pub malformed: u64,
    /// Frames beyond what a port may send in a second, which were not read.
    pub excess: u64,
}

/// What was heard last.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Heard {
    /// When.
    pub at: Time<Mono>,
    /// The message.
    pub message: Esmc,
    /// Who sent it: a MAC address.
    pub source: Option<[u8; 6]>,
}

/// The level that a link usually has.
#[derive(Clone, Copy, Debug)]
struct Usual {
    level: QualityLevel,
    /// Since when it is lower.
    lower_since: Option<Time<Mono>>,
}

/// The messages that come in by one interface.
#[derive(Clone, Debug, Default)]
pub struct Watch {
    counts: Counts,
    last: Option<Heard>,
    usual: Option<Usual>,
    /// Frames that may still be read, and since when.
    budget: Option<(u32, Time<Mono>)>,
}

impl Watch {
    /// Takes a frame, without its Ethernet header.
    pub fn take(&mut self, now: Time<Mono>, bytes: &[u8], source: Option<[u8; 6]>) {
        if !self.may_read(now) {
            self.counts.excess += 1;
            return;
        }
        match Esmc::parse(bytes) {
            Ok(message) => {
                self.counts.accepted += 1;
                self.judge(now, message.quality());
                self.last = Some(Heard { at: now, message, source });
            }
            // The kernel's filter lets in what has the subtype; other organizations have it too.
            Err(EsmcError::Other) => {}
            Err(_) => self.counts.malformed += 1,
        }
    }

    /// Ten frames a second are what a port may send; whoever floods is read no more often.
    fn may_read(&mut self, now: Time<Mono>) -> bool {
        let (left, since) = self.budget.get_or_insert((BURST, now));
        let whole = (now - *since).as_nanos() / 1_000_000_000;
        if whole > 0 {
            let more = u32::try_from(whole).unwrap_or(BURST).saturating_mul(MOST_PER_SECOND);
            *left = left.saturating_add(more).min(BURST);
            *since += Duration::from_secs(whole);
        }
        let may = *left > 0;
        *left = left.saturating_sub(1);
        may
    }

    fn judge(&mut self, now: Time<Mono>, level: QualityLevel) {
        let Some(usual) = &mut self.usual else {
            self.usual = Some(Usual { level, lower_since: None });
            return;
        };
        if level.rank() > usual.level.rank() {
            let since = *usual.lower_since.get_or_insert(now);
            if now - since >= GETTING_USED {
                *usual = Usual { level, lower_since: None };
            }
            return;
        }
        usual.lower_since = None;
        // One message alone may have been anybody's.
        let is_confirmed = self.last.is_some_and(|last| last.message.quality() == level);
        if is_confirmed || level.rank() == usual.level.rank() {
            usual.level = level;
        }
    }

    /// Frames so far.
    pub const fn counts(&self) -> Counts {
        self.counts
    }

    /// The latest message; `None` where there has never been any.
    pub const fn last(&self) -> Option<&Heard> {
        self.last.as_ref()
    }

    /// The level that the link has; `None` where there is no message, or none any more.
    pub fn level(&self, now: Time<Mono>) -> Option<QualityLevel> {
        let last = self.last.as_ref().filter(|last| now - last.at <= SILENCE)?;
        Some(last.message.quality())
    }

    /// For how long there has been no message where there were some; `None` while they come.
    pub fn silent_for(&self, now: Time<Mono>) -> Option<Duration> {
        let silent = now - self.last.as_ref()?.at;
        (silent > SILENCE).then_some(silent)
    }

    /// The level that the link usually has, and the lower one that it has now; `None` while it is as usual.
    pub fn lowered(&self, now: Time<Mono>) -> Option<(QualityLevel, QualityLevel)> {
        let (usual, level) = (self.usual?.level, self.level(now)?);
        (level.rank() > usual.rank()).then_some((usual, level))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::prelude::*;
    use proptest::{collection::vec, prelude::*};

    const PRC: u8 = 0x2;
    const EEC1: u8 = 0xb;

    fn at(seconds: i64) -> Time<Mono> {
        Time::ZERO + Duration::from_secs(seconds)
    }

    fn frame(ssm: u8) -> Vec<u8> {
        let mut buffer = [0; Esmc::EXTENDED_LENGTH];
        let length = Esmc { is_event: false, ssm, extended: None }.emit(&mut buffer);
        buffer[..length].to_vec()
    }

    fn heard(watch: &mut Watch, seconds: i64, ssm: u8) {
        watch.take(at(seconds), &frame(ssm), Some([2; 6]));
    }

    #[test]
    fn level_is_unknown_five_seconds_after_the_last_message() {
        let mut watch = Watch::default();
        assert_eq!((watch.level(at(0)), watch.silent_for(at(0))), (None, None));
        heard(&mut watch, 10, PRC);
        assert_eq!(watch.level(at(15)), Some(QualityLevel::Prc));
        assert_eq!(watch.level(at(16)), None);
        assert_eq!(watch.silent_for(at(16)), Some(Duration::from_secs(6)));
        heard(&mut watch, 17, PRC);
        assert_eq!(watch.silent_for(at(18)), None);
    }

    #[test]
    fn lower_level_is_told_until_the_usual_one_is_back_or_an_hour_has_passed() {
        let mut watch = Watch::default();
        (0..5).for_each(|second| heard(&mut watch, second, PRC));
        assert_eq!(watch.lowered(at(5)), None);
        heard(&mut watch, 5, EEC1);
        assert_eq!(watch.lowered(at(6)), Some((QualityLevel::Prc, QualityLevel::Eec1)));
        // What has stopped is not lower, but unknown.
        assert_eq!(watch.lowered(at(20)), None);
        heard(&mut watch, 30, PRC);
        assert_eq!(watch.lowered(at(31)), None);
        for second in 40..40 + 3_601 {
            heard(&mut watch, second, EEC1);
        }
        assert_eq!(watch.lowered(at(3_641)), None);
    }

    #[test]
    fn a_single_message_of_a_better_level_does_not_become_the_usual_one() {
        let mut watch = Watch::default();
        (0..3).for_each(|second| heard(&mut watch, second, EEC1));
        heard(&mut watch, 3, PRC);
        heard(&mut watch, 4, EEC1);
        assert_eq!(watch.lowered(at(4)), None);
        (5..7).for_each(|second| heard(&mut watch, second, PRC));
        heard(&mut watch, 7, EEC1);
        assert_eq!(watch.lowered(at(7)), Some((QualityLevel::Prc, QualityLevel::Eec1)));
    }

    #[test]
    fn flood_and_nonsense_are_counted_and_a_flood_is_not_read() {
        let mut watch = Watch::default();
        for _ in 0..1_000 {
            heard(&mut watch, 1, PRC);
        }
        let Counts { accepted, excess, .. } = watch.counts();
        assert_eq!((accepted, excess), (20, 980));
        heard(&mut watch, 2, PRC);
        assert_eq!(watch.counts().accepted, 21);
        let mut nonsense = frame(PRC);
        nonsense[12] = 0;
        watch.take(at(3), &nonsense, None);
        assert_eq!(watch.counts().malformed, 1);
    }

    proptest! {
        #[test]
        fn whatever_comes_at_most_so_many_are_read(
            frames in vec((0..200_i64, 0..16_u8, any::<bool>()), 0..400),
        ) {
            let mut watch = Watch::default();
            let mut now = 0;
            for (later, ssm, is_whole) in frames {
                now += later;
                let bytes = frame(ssm);
                let bytes = if is_whole { &bytes[..] } else { &bytes[..9] };
                watch.take(Time::ZERO + Duration::from_millis(now), bytes, None);
            }
            let Counts { accepted, malformed, .. } = watch.counts();
            prop_assert!(accepted + malformed <= u64::from(BURST) + 10 * (now as u64 / 1_000));
        }
    }
}
