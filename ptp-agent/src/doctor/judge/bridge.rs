//! What a transparent clock on a bridge could gain.

use crate::{
    doctor::{
        check::Check,
        facts::{Inside, Watched},
    },
    publish::text::nanos,
    transparent::flowtables::Flows,
};

const GAIN: &str = "transparent_gain";
const OFFLOAD: &str = "transparent_offload";
const RELAY: &str = "transparent_relay";

/// A spread of residence times that no client minds, nanoseconds.
const CALM_NS: u64 = 20_000;

pub(super) fn checks(bridge: &Watched) -> Vec<Check> {
    let ports = match &bridge.ports {
        Ok(ports) => ports,
        Err(why) => return vec![Check::skip(GAIN, why.clone()).on(&bridge.name)],
    };
    let mut checks = Vec::new();
    if ports.is_empty() {
        checks.push(Check::skip(GAIN, "the bridge has no ports").on(&bridge.name));
    }
    for port in ports {
        let seen = [("downstream", &port.downstream), ("upstream", &port.upstream)];
        let told: Vec<String> =
            seen.iter().filter_map(|(way, inside)| Some(describe(way, inside.as_ref()?))).collect();
        let spread = |inside: &Option<Inside>| {
            inside.as_ref().map_or(0, |inside| inside.p99_ns.saturating_sub(inside.p50_ns))
        };
        let worst = spread(&port.downstream).max(spread(&port.upstream));
        let check = if told.is_empty() {
            let seconds = bridge.seconds;
            Check::skip(GAIN, format!("no PTP event message left by this port in {seconds} s"))
        } else if worst < CALM_NS {
            let ease = "clients behind this port see no queue";
            Check::ok(GAIN, format!("{}: {ease}", told.join("; ")))
        } else {
            Check::warn(
                GAIN,
                told.join("; "),
                format!(
                    "`ptp-agent transparent --bridge {}` takes this out of what clients behind the port see",
                    bridge.name
                ),
            )
        };
        checks.push(check.on(&port.name));
        if port.is_switched {
            let check = Check::warn(
                OFFLOAD,
                "a port of a switch in hardware: what it forwards by itself passes no program",
                "use the hardware's own transparent clock, or keep PTP out of the offload",
            );
            checks.push(check.on(&port.name));
        }
        if port.flows == Flows::Hardware {
            let check = Check::warn(
                OFFLOAD,
                "a flowtable asks the hardware to forward from here: that passes no program",
                "leave UDP ports 319 and 320 out of the rule that adds flows, or the table without `flags offload`",
            );
            checks.push(check.on(&port.name));
        }
        if port.is_relayed {
            let check = Check::warn(
                RELAY,
                "a program of this host sends in the name of clocks that were heard on a port",
                "one transparent clock is enough: stop ptp4l with clock_type E2E_TC or P2P_TC, or do without `transparent`",
            );
            checks.push(check.on(&port.name));
        }
    }
    checks
}

fn describe(way: &str, inside: &Inside) -> String {
    let [p50, p99, max] = [inside.p50_ns, inside.p99_ns, inside.max_ns].map(|it| nanos(it as f64));
    format!("{way}: inside for {p50} (median), {p99} (p99), {max} (most) of {} messages", inside.n)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::{check::Status, facts::BridgePort};

    fn port(name: &str, p99_ns: u64) -> BridgePort {
        let inside = Inside { n: 100, p50_ns: 16_384, p99_ns, max_ns: p99_ns };
        BridgePort { name: name.into(), downstream: Some(inside), ..BridgePort::default() }
    }

    #[test]
    fn queue_is_worth_a_transparent_clock_and_a_calm_bridge_is_not() {
        let ports = vec![
            port("tap0", 5_000_000),
            port("tap1", 24_576),
            BridgePort { name: "tap2".into(), is_switched: true, is_relayed: true, ..port("", 0) },
            BridgePort { name: "tap3".into(), flows: Flows::Software, ..BridgePort::default() },
            BridgePort { flows: Flows::Hardware, ..port("eth0", 24_576) },
        ];
        let bridge = Watched { name: "br0".into(), seconds: 5, ports: Ok(ports) };
        let checks = checks(&bridge);
        let of = |name: &str| {
            let of = checks.iter().filter(|it| it.interface.as_deref() == Some(name));
            of.map(|it| (it.name, it.status)).collect::<Vec<_>>()
        };
        assert_eq!(of("tap0"), [(GAIN, Status::Warn)]);
        assert!(checks[0].advice.as_ref().unwrap().contains("transparent --bridge br0"));
        assert_eq!(of("tap1"), [(GAIN, Status::Ok)]);
        assert_eq!(
            of("tap2"),
            [(GAIN, Status::Ok), (OFFLOAD, Status::Warn), (RELAY, Status::Warn)]
        );
        assert_eq!(of("tap3"), [(GAIN, Status::Skip)]);
        assert_eq!(of("eth0"), [(GAIN, Status::Ok), (OFFLOAD, Status::Warn)]);
    }

    #[test]
    fn bridge_that_cannot_be_watched_is_no_verdict() {
        let bridge = Watched { name: "br0".into(), seconds: 5, ports: Err("why".into()) };
        assert_eq!(checks(&bridge)[0].status, Status::Skip);
    }
}
