//! The grandmasters that announce themselves.

use super::agents::REFERENCED;
use crate::doctor::{
    check::Check,
    facts::{Heard, Heralded},
};

const NAME: &str = "announces";

pub(super) fn check(heard: Option<&Heard>) -> Check {
    let Some(heard) = heard else {
        return Check::skip(NAME, "not listened for: --listen 5 does");
    };
    let deaf = heard.deaf.join("; ");
    // Without a profile `run` follows the common one.
    let (followable, others): (Vec<_>, Vec<_>) =
        heard.best.iter().partition(|heralded| heralded.sdo_id == 0);
    let mut beside: Vec<_> = others.into_iter().map(describe).collect();
    // The hook tells of those too, with fewer words.
    beside.extend(heard.unheard.iter().filter(|text| !text.contains("sdoId")).cloned());
    if followable.is_empty() {
        return match (heard.deaf.is_empty(), beside.is_empty()) {
            (_, false) => Check::warn(
                NAME,
                format!("no grandmaster that `run` follows, but: {}", beside.join("; ")),
                match heard.best.iter().any(|it| it.sdo_id == 0x100) {
                    true => "`run --profile gptp` follows sdoId 0x100, over l2",
                    false => {
                        "`run` follows version 2 with sdoId 0, in the VLAN of its interface, and what the kernel lets through"
                    }
                },
            ),
            (true, true) => Check::warn(
                NAME,
                format!("no grandmaster on udp4, udp6 or l2 in {} s", heard.seconds),
                "is there one on this link, does a switch or a filter keep multicast away, does it announce more rarely than this was?",
            ),
            (false, true) => Check::skip(NAME, deaf),
        };
    }
    let mut all = followable.iter().map(|it| describe(it)).collect::<Vec<_>>().join("; ");
    if !beside.is_empty() {
        all += &format!(" (and what `run` does not follow: {})", beside.join("; "));
    }
    if !deaf.is_empty() {
        all += &format!(" (not everywhere: {deaf})");
    }
    let has_reference =
        |it: &&Heralded| REFERENCED.contains(&it.data_set.clock_quality.clock_class);
    let followable = || followable.iter().copied();
    if !followable().any(|it| has_reference(&it)) {
        return Check::warn(
            NAME,
            all,
            "none says that it has a reference: fine where all that matters is that clocks agree",
        );
    }
    if let Some(it) = followable()
        .filter(has_reference)
        .find(|it| it.time.ptp_timescale && !it.time.current_utc_offset_valid)
    {
        return Check::warn(
            NAME,
            all,
            format!(
                "give that of domain {} the UTC offset (currentUtcOffsetValid); 37 s is assumed until then",
                it.domain
            ),
        );
    }
    Check::ok(NAME, all)
}

fn describe(it: &Heralded) -> String {
    let Heralded { transport, domain, sdo_id, data_set, time } = it;
    let profile = match sdo_id {
        0 => String::new(),
        0x100 => " with sdoId 0x100 (gPTP)".to_owned(),
        other => format!(" with sdoId {other:#05x}"),
    };
    let class = data_set.clock_quality.clock_class;
    let steps = data_set.steps_removed;
    format!(
        "domain {domain}{profile} over {transport}: {} with clockClass {class}, {steps} steps away, time scale {time}",
        data_set.grandmaster_identity,
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{doctor::check::Status, engine::bmca::DataSet, transport::TransportKind};
    use ptp_common::data_set::TimeProperties;
    use ptp_common::wire::{
        Announce, ClockAccuracy, ClockIdentity, ClockQuality, Flags, PortIdentity, TimeSource,
        Timestamp,
    };

    fn heralded(clock_class: u8, flags: Flags) -> Heralded {
        let announce = Announce {
            origin_timestamp: Timestamp::ZERO,
            current_utc_offset: 37,
            grandmaster_priority1: 128,
            grandmaster_clock_quality: ClockQuality {
                clock_class,
                clock_accuracy: ClockAccuracy(0x21),
                offset_scaled_log_variance: 0,
            },
            grandmaster_priority2: 128,
            grandmaster_identity: ClockIdentity([1; 8]),
            steps_removed: 0,
            time_source: TimeSource(0x20),
        };
        let port = PortIdentity::default();
        Heralded {
            transport: TransportKind::L2,
            domain: 5,
            sdo_id: 0,
            data_set: DataSet::new(&announce, port, port),
            time: TimeProperties::new(flags, &announce),
        }
    }

    fn judged(best: &[Heralded], deaf: &[&str]) -> (Status, String) {
        let deaf = deaf.iter().map(|text| (*text).to_owned()).collect();
        let (best, unheard) = (best.to_vec(), Vec::new());
        let check = check(Some(&Heard { seconds: 5, best, deaf, unheard, ..Heard::default() }));
        (check.status, check.reason)
    }

    #[test]
    fn a_grandmaster_with_a_reference_is_fine_and_others_are_named() {
        let tai = Flags::PTP_TIMESCALE | Flags::UTC_OFFSET_VALID;
        let (status, reason) = judged(&[heralded(248, tai), heralded(6, tai)], &["udp4: taken"]);
        assert_eq!(status, Status::Ok);
        assert!(reason.contains("clockClass 248") && reason.contains("clockClass 6"), "{reason}");
        assert!(reason.contains("domain 5 over l2") && reason.contains("udp4: taken"), "{reason}");
        assert_eq!(judged(&[heralded(248, tai)], &[]).0, Status::Warn);
        assert_eq!(judged(&[heralded(6, Flags::PTP_TIMESCALE)], &[]).0, Status::Warn);
    }

    #[test]
    fn grandmaster_of_another_profile_is_not_ok_because_run_drops_it() {
        let tai = Flags::PTP_TIMESCALE | Flags::UTC_OFFSET_VALID;
        let gptp = Heralded { sdo_id: 0x100, ..heralded(6, tai) };
        let (status, reason) = judged(&[gptp], &[]);
        assert_eq!(status, Status::Warn);
        assert!(reason.contains("no grandmaster that `run` follows"), "{reason}");
        assert!(reason.contains("sdoId 0x100 (gPTP) over l2"), "{reason}");
        // Beside one that it follows it is worth a word.
        let (status, reason) = judged(&[gptp, heralded(6, tai)], &[]);
        assert_eq!(status, Status::Ok);
        assert!(reason.contains("does not follow: domain 5 with sdoId 0x100"), "{reason}");
    }

    #[test]
    fn what_only_the_hook_sees_is_told() {
        let unheard = vec!["Announce in VLAN 100 over l2".to_owned()];
        let check = check(Some(&Heard { seconds: 5, unheard, ..Heard::default() }));
        assert_eq!(check.status, Status::Warn);
        assert!(check.reason.contains("VLAN 100"), "{check:?}");
    }

    #[test]
    fn silence_is_a_warning_only_where_somebody_listened() {
        assert_eq!(judged(&[], &[]).0, Status::Warn);
        assert_eq!(judged(&[], &["udp4: taken"]).0, Status::Skip);
        assert_eq!(check(None).status, Status::Skip);
    }
}
