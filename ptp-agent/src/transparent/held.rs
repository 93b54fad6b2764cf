//! Messages that came before their events had left, and wait here until those have: bounded in number and in
//! time. Then they are corrected and sent by the interface that they were about to leave by.

use std::collections::VecDeque;

use ptp_common::{
    residence::{CORRECTION, Key, Outcome, added, checksum, credit, held, scaled},
    time::{Duration, Mono, Time},
};

use super::programs::Residence;

/// Messages that wait at the most.
const MOST: usize = 256;
/// How long one waits at the most; then it goes as it came.
const PATIENCE: Duration = Duration::from_millis(500);

/// A message that waits.
#[derive(Debug)]
struct Message {
    key: Key,
    second: Option<Key>,
    ifindex: u32,
    count_place: u32,
    ptp_offset: usize,
    frame: Vec<u8>,
    since: Time<Mono>,
}

/// A message that waits no longer.
#[derive(Debug, PartialEq, Eq)]
pub struct Released {
    /// Interface by which it leaves.
    pub ifindex: u32,
    /// Place of its count, without an outcome.
    pub count_place: u32,
    /// What has become of it.
    pub outcome: Outcome,
    /// The frame, corrected if it could be. Not to be sent where it is [`Outcome::Withheld`].
    pub frame: Vec<u8>,
}

/// See the module's paragraph.
#[derive(Debug, Default)]
pub struct Held {
    waiting: VecDeque<Message>,
    /// Whether a message is withheld whose event left nobody knows when; see [`credit`].
    withholds: bool,
    credit: u64,
    /// Records of the ring that made no sense.
    pub malformed: u64,
}

impl Held {
    /// Nothing waits yet. Whether messages may be withheld whose event left nobody knows when.
    pub fn new(withholds: bool) -> Self {
        Self { withholds, ..Self::default() }
    }

    /// Takes what the programs have taken out.
    pub fn take(&mut self, now: Time<Mono>, words: &[u64; held::WORDS], frame: &[u8]) {
        let length = words[held::LENGTH] as u32 as usize;
        let ptp_offset = (words[held::LENGTH] >> 32) as usize;
        let (Some(frame), Ok(ifindex)) = (frame.get(..length), words[held::IFINDEX].try_into())
        else {
            self.malformed += 1;
            return;
        };
        if frame.get(ptp_offset..).is_none_or(|message| message.len() < CORRECTION + 8) {
            self.malformed += 1;
            return;
        }
        let (frame, ptp_offset) = with_tag(frame, ptp_offset, words[held::VLAN]);
        let key = |at: usize| [words[at], words[at + 1]];
        let second = key(held::SECOND);
        self.waiting.push_back(Message {
            key: key(held::KEY),
            second: (second != [0; 2]).then_some(second),
            ifindex,
            count_place: words[held::COUNT] as u32,
            ptp_offset,
            frame,
            since: now,
        });
    }

    /// Whether none waits.
    pub fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    /// How many wait.
    pub fn len(&self) -> usize {
        self.waiting.len()
    }

    /// Those whose events have left, or that have waited too long, or are too many; with `all` every one.
    /// `more_ns` is what the link by which a message came takes, by port, where that is to be added.
    pub fn release(
        &mut self,
        now: Time<Mono>,
        all: bool,
        rate: i64,
        more_ns: impl Fn(u8) -> u64,
        mut residence: impl FnMut(&Key) -> Residence,
    ) -> Vec<Released> {
        let mut released = Vec::new();
        let Self { waiting, withholds, credit, .. } = self;
        let mut left = waiting.len();
        waiting.retain_mut(|message| {
            let first = residence(&message.key);
            let (total, pending) = {
                let second = message.second.map_or(Residence::Known(0), |key| residence(&key));
                let link = more_ns((message.key[1] >> 8) as u8);
                match (first, second) {
                    (Residence::Known(a), Residence::Known(b)) => {
                        (Ok(a.saturating_add(b).saturating_add(link)), false)
                    }
                    (Residence::Uncertain(Some(a)), Residence::Known(b)) => {
                        (Ok(a.saturating_add(b).saturating_add(link)), false)
                    }
                    (Residence::Pending, _) => (Err(Outcome::Expired), true),
                    (Residence::Lost | Residence::Uncertain(_), _) => {
                        (Err(Outcome::EventLost), false)
                    }
                    _ => (Err(Outcome::NoResidence), false),
                }
            };
            let is_uncertain = pending || matches!(first, Residence::Uncertain(_));
            if pending && !all && left <= MOST && now - message.since < PATIENCE {
                return true;
            }
            left -= 1;
            let outcome = match total {
                _ if is_uncertain && *withholds && !all && *credit >= credit::PRICE => {
                    *credit -= credit::PRICE;
                    Outcome::Withheld
                }
                Ok(nanos) if correct(&mut message.frame, message.ptp_offset, nanos, rate) => {
                    *credit = credit::MOST.min(*credit + 1);
                    Outcome::CorrectedLate
                }
                Ok(_) => Outcome::Overflow,
                Err(outcome) => outcome,
            };
            released.push(Released {
                ifindex: message.ifindex,
                count_place: message.count_place,
                outcome,
                frame: std::mem::take(&mut message.frame),
            });
            false
        });
        released
    }
}

/// Puts a tag that was beside the frame into it.
fn with_tag(frame: &[u8], ptp_offset: usize, tag: u64) -> (Vec<u8>, usize) {
    if tag == 0 || frame.len() < 12 {
        return (frame.to_vec(), ptp_offset);
    }
    let tag = (tag as u32).to_be_bytes();
    ([&frame[..12], &tag, &frame[12..]].concat(), ptp_offset + 4)
}

/// Adds a residence to the message in a frame. Whether there was room; if not, the frame is as it was.
pub fn correct(frame: &mut [u8], ptp_offset: usize, residence_ns: u64, rate: i64) -> bool {
    let field = ptp_offset + CORRECTION;
    let Some(old) = frame.get(field..).and_then(|rest| rest.first_chunk::<8>()).copied() else {
        return false;
    };
    let Some(new) = scaled(residence_ns, rate)
        .and_then(|correction| added(i64::from_be_bytes(old), correction))
        .map(i64::to_be_bytes)
    else {
        return false;
    };
    if let Some((at, is_begun)) = udp_checksum(frame, ptp_offset) {
        frame[field..field + 8].copy_from_slice(&new);
        let before = u16::from_be_bytes([frame[at], frame[at + 1]]);
        let sum = if is_begun {
            // Left to the hardware, which does not see what we send: it is summed here.
            match !folded(before.into(), &frame[ptp_offset - 8..]) {
                0 => 0xffff,
                sum => sum,
            }
        } else {
            checksum(before, old, new)
        };
        frame[at..at + 2].copy_from_slice(&sum.to_be_bytes());
    } else {
        frame[field..field + 8].copy_from_slice(&new);
    }
    true
}

/// The one's complement sum of `bytes` and `sum`, as far as the UDP header at their front says, whose
/// checksum field is not counted.
fn folded(sum: u32, bytes: &[u8]) -> u16 {
    let length = usize::from(u16::from_be_bytes([bytes[4], bytes[5]])).min(bytes.len());
    let mut sum = sum;
    for (at, word) in bytes[..length].chunks(2).enumerate() {
        if at != 3 {
            sum += u32::from(word[0]) << 8 | u32::from(word.get(1).copied().unwrap_or(0));
        }
    }
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    sum as u16
}

/// Where the UDP checksum of a frame is, if it has one, and whether it is only that of the pseudo header.
fn udp_checksum(frame: &[u8], ptp_offset: usize) -> Option<(usize, bool)> {
    use ptp_common::classify::{Network, classify};
    let location = classify(frame).ok().filter(|location| location.ptp_offset == ptp_offset)?;
    let at = ptp_offset.checked_sub(2)?;
    let udp = frame.get(ptp_offset - 8..).filter(|udp| udp.len() >= 8)?;
    let addresses = match location.network {
        Network::Ethernet => return None,
        Network::Ipv4 => frame.get(location.l3_offset + 12..location.l3_offset + 20)?,
        Network::Ipv6 => frame.get(location.l3_offset + 8..location.l3_offset + 40)?,
    };
    let words = addresses.chunks_exact(2).map(|word| u32::from(word[0]) << 8 | u32::from(word[1]));
    let length = u32::from(u16::from_be_bytes([udp[4], udp[5]]));
    let mut sum = words.sum::<u32>() + length + 17;
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    let checksum = u16::from_be_bytes([udp[6], udp[7]]);
    Some((at, checksum != 0 && u32::from(checksum) == sum))
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: Key = [1, 0x0102];

    fn words(length: usize, offset: usize, tag: u64) -> [u64; held::WORDS] {
        let mut words = [0; held::WORDS];
        words[..2].copy_from_slice(&KEY);
        words[held::IFINDEX] = 7;
        words[held::LENGTH] = length as u64 | (offset as u64) << 32;
        words[held::VLAN] = tag;
        words
    }

    fn frame() -> Vec<u8> {
        let mut frame = vec![0; 14 + 44];
        frame[12..14].copy_from_slice(&[0x88, 0xf7]);
        frame
    }

    fn at(millis: i64) -> Time<Mono> {
        Time::ZERO + Duration::from_millis(millis)
    }

    fn release(held: &mut Held, now: Time<Mono>, residence: Residence) -> Vec<Released> {
        held.release(now, false, 0, |_| 0, |_| residence)
    }

    #[test]
    fn message_waits_until_its_event_has_left_and_is_then_corrected() {
        let mut held = Held::default();
        held.take(at(0), &words(58, 14, 0), &frame());
        assert!(release(&mut held, at(1), Residence::Pending).is_empty() && held.len() == 1);
        let released = release(&mut held, at(2), Residence::Known(1_000));
        assert_eq!(released[0].outcome, Outcome::CorrectedLate);
        assert_eq!(released[0].frame[22..30], (1_000_i64 << 16).to_be_bytes());
        assert!(held.is_empty());
    }

    #[test]
    fn message_goes_as_it_came_after_half_a_second_or_when_its_event_was_dropped() {
        for (millis, residence, outcome) in [
            (499, Residence::Lost, Outcome::EventLost),
            (500, Residence::Pending, Outcome::Expired),
            (1, Residence::Unknown, Outcome::NoResidence),
        ] {
            let mut held = Held::default();
            held.take(at(0), &words(58, 14, 0), &frame());
            let released = release(&mut held, at(millis), residence);
            assert_eq!((released[0].outcome, &released[0].frame), (outcome, &frame()));
        }
    }

    #[test]
    fn message_whose_event_left_unseen_is_withheld_as_far_as_others_were_corrected() {
        let mut held = Held::new(true);
        let mut outcomes = |residence, count: u64| {
            let mut released = Vec::new();
            for _ in 0..count {
                held.take(at(0), &words(58, 14, 0), &frame());
                released.extend(release(&mut held, at(500), residence));
            }
            released.into_iter().map(|it| it.outcome).collect::<Vec<_>>()
        };
        let unseen = Residence::Uncertain(None);
        assert_eq!(outcomes(unseen, 1), [Outcome::EventLost], "nothing was corrected yet");
        outcomes(Residence::Known(1), 2 * credit::PRICE);
        let late = outcomes(Residence::Pending, 1);
        assert_eq!(late, [Outcome::Withheld], "half a second is no time to leave in");
        assert_eq!(outcomes(unseen, 2), [Outcome::Withheld, Outcome::EventLost]);
        assert_eq!(outcomes(Residence::Lost, 1), [Outcome::EventLost]);
        let interrupted = Residence::Uncertain(Some(1_000));
        assert_eq!(outcomes(interrupted, 1), [Outcome::CorrectedLate], "better than nothing");
    }

    #[test]
    fn however_many_are_taken_few_wait() {
        let mut held = Held::default();
        for _ in 0..1_000 {
            held.take(at(0), &words(58, 14, 0), &frame());
        }
        let released = release(&mut held, at(1), Residence::Pending);
        assert_eq!((released.len(), held.len()), (1_000 - MOST, MOST));
    }

    #[test]
    fn tag_beside_the_frame_is_put_into_it() {
        let mut held = Held::default();
        held.take(at(0), &words(58, 14, 0x8100_0005), &frame());
        let released = release(&mut held, at(1), Residence::Known(1));
        assert_eq!(released[0].frame[12..18], [0x81, 0x00, 0x00, 0x05, 0x88, 0xf7]);
        assert_eq!(released[0].frame[26..34], (1_i64 << 16).to_be_bytes());
    }

    #[test]
    fn nonsense_in_the_ring_is_counted() {
        let mut held = Held::default();
        held.take(at(0), &words(600, 14, 0), &frame());
        held.take(at(0), &words(58, 57, 0), &frame());
        assert!(held.is_empty() && held.malformed == 2);
    }

    fn udp(checksum: impl Fn(&[u8]) -> u16) -> Vec<u8> {
        let mut frame = vec![0; 14 + 20 + 8 + 44];
        frame[12..14].copy_from_slice(&[0x08, 0x00]);
        frame[14] = 0x45;
        frame[23] = 17;
        frame[26..34].copy_from_slice(&[192, 0, 2, 1, 224, 0, 1, 129]);
        frame[34..40].copy_from_slice(&[0x01, 0x3f, 0x01, 0x40, 0, 52]);
        for (value, byte) in (1..).zip(&mut frame[42..]) {
            *byte = value;
        }
        let sum = checksum(&frame);
        frame[40..42].copy_from_slice(&sum.to_be_bytes());
        frame
    }

    fn pseudo(frame: &[u8]) -> u32 {
        let words =
            frame[26..34].chunks(2).map(|word| u32::from(word[0]) << 8 | u32::from(word[1]));
        words.sum::<u32>() + 52 + 17
    }

    fn whole(frame: &[u8]) -> u16 {
        !folded(pseudo(frame), &frame[34..])
    }

    #[test]
    fn checksum_is_right_whether_it_was_whole_begun_or_none() {
        let begun = |frame: &[u8]| folded(pseudo(frame), &[0, 0, 0, 0, 0, 8, 0, 0]) - 8;
        for (name, mut frame) in [("whole", udp(whole)), ("begun", udp(begun))] {
            assert!(correct(&mut frame, 42, 123_456, 0), "{name}");
            let sum = u16::from_be_bytes([frame[40], frame[41]]);
            assert_eq!(sum, whole(&frame), "{name}");
        }
        let mut none = udp(|_| 0);
        assert!(correct(&mut none, 42, 123_456, 0));
        assert_eq!(none[40..42], [0, 0]);
        let mut wrong = udp(|frame| whole(frame) ^ 1);
        assert!(correct(&mut wrong, 42, 123_456, 0));
        assert_ne!(u16::from_be_bytes([wrong[40], wrong[41]]), whole(&wrong), "stays wrong");
    }
}
