//! The interrupts of an interface: whether the card holds them back, and how far the stamps are from them.

use crate::{
    capture::moderation_in_words,
    doctor::{
        check::Check,
        facts::{Interrupts, Link},
    },
    publish::text,
};

/// From interrupt to stamp more than this, or a spread of more, is no part of a quiet host, ns.
const LONG_NS: i64 = 100_000;
/// More packets than this in the mean poll, and their stamps are those of the poll rather than their own.
const MANY_IN_A_POLL: f64 = 2.0;

pub(super) fn checks(link: &Link) -> [Check; 2] {
    [moderation(link), distance(link)]
}

fn moderation(link: &Link) -> Check {
    const NAME: &str = "interrupt_moderation";
    if matches!(link.interrupts, Interrupts::None) {
        return Check::skip(NAME, "no device, so no interrupts that could be held back");
    }
    let Some(moderation) = link.moderation else {
        return Check::skip(NAME, "the driver does not tell how it holds interrupts back");
    };
    let said = moderation_in_words(moderation);
    if moderation.rx_usecs == 0 && !moderation.is_adaptive {
        return Check::ok(NAME, format!("none ({said})"));
    }
    Check::warn(
        NAME,
        format!("the card holds interrupts back, and a packet's stamp with them ({said})"),
        "ethtool -C IFACE adaptive-rx off rx-usecs 0, at the price of more interrupts under load",
    )
}

fn distance(link: &Link) -> Check {
    const NAME: &str = "interrupt_to_stamp";
    let report = match &link.seen {
        None if matches!(link.interrupts, Interrupts::None) => {
            return Check::skip(NAME, "no device, so no interrupt to measure from");
        }
        None => return Check::skip(NAME, "only with --measure SECONDS"),
        Some(Err(why)) => return Check::skip(NAME, why.clone()),
        Some(Ok(report)) => report,
    };
    let Some(spread) = report.to_stack_ns.or(report.to_tc_ingress_ns) else {
        return Check::skip(NAME, text::interrupts(report));
    };
    let many = report.packets_per_poll.is_some_and(|mean| mean > MANY_IN_A_POLL);
    if spread.p99 > LONG_NS || many {
        return Check::warn(
            NAME,
            text::interrupts(report),
            "pin the interface's interrupts to a CPU that nothing else runs on, and hold them back less",
        );
    }
    Check::ok(NAME, text::interrupts(report))
}

#[cfg(test)]
mod tests {
    use super::{super::interface::tests::healthy, *};
    use crate::{
        capture::{InterruptReport, Spread},
        doctor::check::Status,
        sys::ethtool::Moderation,
    };

    fn card() -> Link {
        Link { interrupts: Interrupts::Of(Vec::new()), ..healthy() }
    }

    #[test]
    fn card_that_holds_interrupts_back_is_said_with_its_settings() {
        let with = |moderation| moderation_of(Link { moderation, ..card() });
        fn moderation_of(link: Link) -> Check {
            moderation(&link)
        }
        let held = Moderation { rx_usecs: 50, ..Moderation::default() };
        let check = with(Some(held));
        assert_eq!(check.status, Status::Warn);
        assert!(check.reason.contains("rx-usecs 50"), "{check:?}");
        assert_eq!(with(Some(Moderation::default())).status, Status::Ok);
        assert_eq!(with(None).status, Status::Skip);
        assert_eq!(moderation(&healthy()).status, Status::Skip);
    }

    #[test]
    fn distance_from_the_interrupt_is_measured_only_where_there_is_one_and_somebody_asks() {
        let with = |seen| distance(&Link { seen, ..card() });
        let report = |p99| InterruptReport {
            packets: 10,
            to_stack_ns: Some(Spread { n: 10, p50: 4_000, p99, max: p99 }),
            packets_per_poll: Some(1.0),
            ..InterruptReport::default()
        };
        assert_eq!(with(Some(Ok(report(9_000)))).status, Status::Ok);
        assert_eq!(with(Some(Ok(report(900_000)))).status, Status::Warn);
        let many = InterruptReport { packets_per_poll: Some(8.0), ..report(9_000) };
        assert_eq!(with(Some(Ok(many))).status, Status::Warn);
        assert!(with(None).reason.contains("--measure"));
        assert_eq!(with(Some(Err("no device".to_owned()))).status, Status::Skip);
        assert_eq!(distance(&healthy()).status, Status::Skip);
    }
}
