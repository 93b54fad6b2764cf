//! Pulses per second: a host without one is as good for PTP as one with it; one that does not come, or that the agent may
//! not read, is a warning.

use crate::{
    doctor::{
        check::Check,
        facts::{Pulse, PulseSeen},
    },
    sys::pps::Edge,
};

const NAME: &str = "pulses";

/// All sources in one line.
pub(super) fn check(pulses: &[Pulse]) -> Check {
    if pulses.is_empty() {
        return Check::skip(NAME, "no /dev/pps*: no pulse per second comes to this host");
    }
    let text = pulses.iter().map(text).collect::<Vec<_>>().join("; ");
    if let Some(Pulse { device, .. }) = pulses.iter().find(|pulse| pulse.seen.is_err()) {
        return Check::warn(
            NAME,
            text,
            format!(
                "let the agent's user read {device} (a udev rule with GROUP, or DeviceAllow of its unit)"
            ),
        );
    }
    match pulses.iter().find(|pulse| pulse.seen.as_ref().is_ok_and(|seen| !seen.came)) {
        Some(Pulse { device, .. }) => Check::warn(
            NAME,
            text,
            format!(
                "look at the cable and whether the receiver has a fix; `ptp-agent pps {device}` shows each pulse"
            ),
        ),
        None => Check::ok(NAME, text),
    }
}

fn text(pulse: &Pulse) -> String {
    let Pulse { device, source, seen } = pulse;
    let source = if source.is_empty() { String::new() } else { format!(" ({source})") };
    let seen = match seen {
        Err(problem) => format!("cannot be read: {problem}"),
        Ok(PulseSeen { came: false, .. }) => "no pulse in 1.5 s".to_owned(),
        Ok(PulseSeen { came: true, edge: Edge::Assert }) => "pulses come".to_owned(),
        Ok(PulseSeen { came: true, edge: Edge::Clear }) => {
            "pulses come, by their clear edge (--pps-edge clear)".to_owned()
        }
    };
    format!("{device}{source}: {seen}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::check::Status;

    fn pulse(seen: Result<PulseSeen, String>) -> Pulse {
        Pulse { device: "/dev/pps0".to_owned(), source: "serial0".to_owned(), seen }
    }

    #[test]
    fn a_pulse_that_does_not_come_or_may_not_be_read_is_a_warning_and_none_at_all_is_not() {
        let seen = |came| Ok(PulseSeen { came, edge: Edge::Assert });
        assert_eq!(check(&[]).status, Status::Skip);
        let good = check(&[pulse(seen(true))]);
        assert_eq!(good.status, Status::Ok);
        assert_eq!(good.reason, "/dev/pps0 (serial0): pulses come");
        let silent = check(&[pulse(seen(true)), pulse(seen(false))]);
        assert_eq!(silent.status, Status::Warn);
        assert!(silent.reason.contains("no pulse in 1.5 s"), "{silent:?}");
        let closed = check(&[pulse(Err("Permission denied".to_owned()))]);
        assert_eq!(closed.status, Status::Warn);
        assert!(closed.advice.unwrap().contains("/dev/pps0"));
    }

    #[test]
    fn the_other_edge_is_told_with_its_option() {
        let clear = check(&[pulse(Ok(PulseSeen { came: true, edge: Edge::Clear }))]);
        assert!(clear.reason.contains("--pps-edge clear"), "{clear:?}");
    }
}
