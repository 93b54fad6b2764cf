//! What the wire may ask for and what it may claim: every bound on values that come in a message, in
//! one place. Nothing here is a property of a good network; each bound is so far out that only a
//! mistake or an attack exceeds it. `docs/limits.md` has the same list for people, and a test holds
//! the two together.

use core::ops::RangeInclusive;
pub use ptp_common::data_set::{USUAL_UTC_OFFSET, UTC_OFFSET};
use ptp_common::time::Duration;

/// `logMessageInterval` that is an interval at all, log2 s; what is outside says nothing (7.7.2.1).
pub const LOG_INTERVAL: RangeInclusive<i8> = -10..=22;
/// Announce: how many times shorter than the configured interval a sender's may be, log2.
pub const ANNOUNCE_SHORTER: i8 = 1;
/// Announce: how many times longer than the configured interval a sender's may be, log2.
pub const ANNOUNCE_LONGER: i8 = 3;
/// Delay_Req: how many times shorter than the configured interval a Delay_Resp may make it, log2.
pub const DELAY_REQ_SHORTER: i8 = 7;
/// Delay_Req: how many times longer than the configured interval a Delay_Resp may make it, log2.
pub const DELAY_REQ_LONGER: i8 = 5;
/// Delay_Req: how many times longer than it is one Delay_Resp may make the interval, log2.
pub const DELAY_REQ_STEP: i8 = 3;
/// Unicast: how many times shorter than asked for a granted interval may be, log2.
pub const GRANT_SHORTER: i8 = 1;
/// Unicast: how many times longer than asked for a granted interval may be, log2.
pub const GRANT_LONGER: i8 = 3;
/// Sync: the longest interval that a Sync may claim for itself, log2 s.
pub const LOG_SYNC_LONGEST: i8 = 5;
/// Farthest that the mean path delay or link delay may be from zero.
pub const PATH_DELAY: Duration = Duration::from_secs(10);
/// Farthest that the correction of one exchange may be from zero.
pub const CORRECTION: Duration = Duration::from_secs(10);
/// As long a Sync of a time transmitter that is only overheard may have been under way.
pub const WITNESS_PATH: Duration = Duration::from_nanos(10_000_000);
/// Announce messages in a row after which another grandmaster, time scale or UTC offset of the same
/// sender is believed.
pub const CONFIRM_TIME: u8 = 3;
/// For as many intervals nobody may have said the old one in the sender's name meanwhile.
pub const CONFIRM_SILENCE: i32 = 2;
/// Announce messages in a row after which another priority, class or distance of the same sender is
/// believed.
pub const CONFIRM_RANK: u8 = 2;
/// For as many halves of an interval nobody may have said the old one in the sender's name meanwhile.
pub const CONFIRM_RANK_HALVES: i32 = 3;

/// `announceReceiptTimeout` that may be set by management: the standard's least, and not for ever.
pub const ANNOUNCE_RECEIPT_TIMEOUT: RangeInclusive<u8> = 2..=32;
/// Farthest that a latency that is set by management may be from zero.
pub const LATENCY: Duration = Duration::from_secs(1);

/// A received `logMessageInterval`, if it is an interval.
pub fn log_interval(log: i8) -> Option<i8> {
    LOG_INTERVAL.contains(&log).then_some(log)
}

/// A claimed value and what may be believed of it: `None` beside it where that is all of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Clamped {
    /// What is used.
    pub log: i8,
    /// Whether that is not what was claimed.
    pub is_clamped: bool,
}

fn clamp(claimed: i8, low: i8, high: i8) -> Clamped {
    let log = claimed.clamp(low, high.max(low));
    Clamped { log, is_clamped: log != claimed }
}

/// The Announce interval to be assumed for a sender that says `claimed`, log2 s.
pub fn announce_interval(configured: i8, claimed: i8) -> Option<Clamped> {
    let claimed = log_interval(claimed)?;
    let (low, high) =
        (configured.saturating_sub(ANNOUNCE_SHORTER), configured.saturating_add(ANNOUNCE_LONGER));
    Some(clamp(claimed, low, high))
}

/// The mean interval of Delay_Req after a Delay_Resp that asks for `claimed`, log2 s; `current` is in
/// use.
pub fn delay_req_interval(configured: i8, current: i8, claimed: i8) -> Option<Clamped> {
    let claimed = log_interval(claimed)?;
    let (low, high) =
        (configured.saturating_sub(DELAY_REQ_SHORTER), configured.saturating_add(DELAY_REQ_LONGER));
    Some(clamp(claimed, low, high.min(current.saturating_add(DELAY_REQ_STEP))))
}

/// The interval that a Sync claims for itself, log2 s.
pub fn sync_interval(claimed: i8) -> Option<i8> {
    log_interval(claimed).map(|log| log.min(LOG_SYNC_LONGEST))
}

/// Whether `currentUtcOffset` can be true, seconds.
pub fn is_utc_offset(seconds: i16) -> bool {
    UTC_OFFSET.contains(&seconds)
}

/// Whether a correction can be true.
pub fn is_correction(correction: Duration) -> bool {
    correction.abs() <= CORRECTION
}

/// Whether a round trip, all corrections taken off, can be true.
pub fn is_round_trip(round_trip: Duration) -> bool {
    round_trip.half().abs() <= PATH_DELAY
}

/// Whether a neighbour may ask for an interval (IEEE 802.1AS), log2 s: no flood, and no silence.
pub fn is_asked_interval(log: i8) -> bool {
    (-7..=4).contains(&log)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::prelude::*;
    use std::{fs, path::Path};

    #[test]
    fn page_has_every_limit_with_the_value_it_has() {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/limits.md");
        let page = fs::read_to_string(path).unwrap();
        let seconds = |limit: Duration| format!("{} s", limit.as_secs_f64());
        let power = |log: i8| format!("{}", 1_u32 << log);
        let rows = [
            ("log-interval", format!("{} to {}", LOG_INTERVAL.start(), LOG_INTERVAL.end())),
            ("announce-shorter", power(ANNOUNCE_SHORTER)),
            ("announce-longer", power(ANNOUNCE_LONGER)),
            ("delay-req-shorter", power(DELAY_REQ_SHORTER)),
            ("delay-req-longer", power(DELAY_REQ_LONGER)),
            ("delay-req-step", power(DELAY_REQ_STEP)),
            ("grant-shorter", power(GRANT_SHORTER)),
            ("grant-longer", power(GRANT_LONGER)),
            ("sync-longest", format!("{} s", power(LOG_SYNC_LONGEST))),
            ("path-delay", seconds(PATH_DELAY)),
            ("correction", seconds(CORRECTION)),
            ("utc-offset", format!("{} s to {} s", UTC_OFFSET.start(), UTC_OFFSET.end())),
            ("witness-path", seconds(WITNESS_PATH)),
            (
                "announce-receipt-timeout",
                format!(
                    "{} to {}",
                    ANNOUNCE_RECEIPT_TIMEOUT.start(),
                    ANNOUNCE_RECEIPT_TIMEOUT.end()
                ),
            ),
            ("latency", seconds(LATENCY)),
            ("confirm-time", CONFIRM_TIME.to_string()),
            ("confirm-silence", CONFIRM_SILENCE.to_string()),
            ("confirm-rank", CONFIRM_RANK.to_string()),
            ("confirm-rank-silence", (f64::from(CONFIRM_RANK_HALVES) / 2.0).to_string()),
        ];
        for (name, value) in rows {
            let row = page.lines().find(|line| line.starts_with(&format!("| `{name}` |")));
            let row = row.unwrap_or_else(|| panic!("no row for {name}"));
            let cell = row.split('|').nth(2).map(str::trim);
            assert_eq!(cell, Some(value.as_str()), "{name}");
        }
    }

    #[test]
    fn no_claim_leaves_the_interval_outside_its_bounds() {
        for claimed in i8::MIN..=i8::MAX {
            for configured in [-128, -4, 0, 1, 4, 127] {
                if let Some(Clamped { log, is_clamped }) = announce_interval(configured, claimed) {
                    assert!(log >= configured.saturating_sub(ANNOUNCE_SHORTER));
                    assert!(log <= configured.saturating_add(ANNOUNCE_LONGER));
                    assert_eq!(is_clamped, log != claimed);
                }
                if let Some(Clamped { log, .. }) =
                    delay_req_interval(configured, configured, claimed)
                {
                    assert!(log <= configured.saturating_add(DELAY_REQ_STEP));
                }
            }
        }
        assert_eq!(sync_interval(22), Some(LOG_SYNC_LONGEST));
        assert_eq!(sync_interval(127), None);
    }
}
