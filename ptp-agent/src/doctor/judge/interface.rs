//! One interface: can it carry PTP, which stamps does its driver have, and which of the agent's own
//! capture points work on it. Also the UDP ports, which all interfaces of a namespace share.

use super::{cpu, interrupts};
use crate::{
    capture::ProbeReport,
    doctor::{
        check::Check,
        facts::{Capture, Cpu, Interface, Link, PortOwner, Probe, Trial},
    },
    stamp::StampSource,
};

/// What IPv6 demands of a link (RFC 8200 section 5); IPv4 and Ethernet PTP need less.
const IPV6_MTU: u32 = 1280;
/// `NETDEV_XDP_ACT_BASIC` of linux/netdev.h: XDP in the driver.
const XDP_BASIC: u64 = 1;

const UNPRIVILEGED: &str = "this process may not load eBPF programs (see privileges_stamps)";

pub(super) fn ports(owners: Option<&[PortOwner]>) -> Check {
    const NAME: &str = "ptp_ports";
    let Some(owners) = owners else {
        return Check::skip(NAME, "the UDP sockets of this network namespace cannot be listed");
    };
    let Some(first) = owners.first() else {
        return Check::ok(NAME, "UDP ports 319 and 320 are free in this network namespace");
    };
    Check::warn(
        NAME,
        format!("UDP port {} is in use by {}", first.port, who(first)),
        "stop it before `run` or `serve` over UDP; `observe` and --transport l2 need no port",
    )
}

/// That a client of NTP has the port is as usual, and in nobody's way but a server's.
pub(super) fn ntp_port(owners: Option<&[PortOwner]>) -> Check {
    const NAME: &str = "ntp_port";
    match owners {
        None => Check::skip(NAME, "the UDP sockets of this network namespace cannot be listed"),
        Some([]) => Check::ok(NAME, "UDP port 123 is free in this network namespace"),
        Some([first, ..]) => Check::ok(
            NAME,
            format!(
                "UDP port 123 is in use by {}; `run --ntp` and `observe --ntp` need no port",
                who(first)
            ),
        )
        .advise("`serve --ntp` needs it: stop that program, or take away its port 123 (chronyd: `port 0`)"),
    }
}

fn who(owner: &PortOwner) -> String {
    match &owner.process {
        Some((name, process)) => format!("{name} ({process})"),
        None => "a process that this one may not look at".to_owned(),
    }
}

pub(super) fn checks(interface: &Interface, host: &Cpu) -> Vec<Check> {
    let Some(link) = &interface.link else {
        return vec![Check::fail(
            "interface",
            format!("{} does not exist in this network namespace", interface.name),
            "ip link shows those that do",
        )];
    };
    let mut checks = vec![state(link), link_type(link), mtu(link), mac(link), driver(link)];
    checks.push(cpu::irq_pinning(&link.interrupts, host));
    checks.extend(interrupts::checks(link));
    checks.push(timestamping(link));
    checks.push(xdp_mode(link));
    checks.extend(capture(link));
    checks
}

fn state(link: &Link) -> Check {
    const NAME: &str = "interface";
    match (link.up, link.carrier) {
        (true, true) => Check::ok(NAME, "exists, is up and has carrier"),
        (true, false) => Check::warn(
            NAME,
            "is up but has no carrier; the agent would wait for it",
            "plug in the cable, or set the other end up",
        ),
        (false, _) => Check::warn(
            NAME,
            "exists but is down; the agent would wait for it",
            "ip link set IFACE up",
        ),
    }
}

fn link_type(link: &Link) -> Check {
    const NAME: &str = "link_type";
    if link.ethernet {
        return Check::ok(NAME, "packets begin with an Ethernet header");
    }
    Check::fail(
        NAME,
        "packets have no Ethernet header, which the programs look for to find PTP",
        "use the interface below the tunnel, or a tunnel that carries Ethernet (vxlan, gretap, tap)",
    )
}

fn mtu(link: &Link) -> Check {
    const NAME: &str = "mtu";
    match link.mtu {
        None => Check::skip(NAME, "the kernel does not tell the largest packet"),
        Some(mtu) if mtu < IPV6_MTU => Check::warn(
            NAME,
            format!("{mtu} bytes are not enough for IPv6, though for PTP over IPv4 and Ethernet"),
            "ip link set IFACE mtu 1500, or no --transport udp6",
        ),
        Some(mtu) => Check::ok(NAME, format!("{mtu} bytes")),
    }
}

fn mac(link: &Link) -> Check {
    const NAME: &str = "mac";
    match link.mac {
        Some(mac) if mac != [0; 6] => {
            Check::ok(NAME, mac.map(|byte| format!("{byte:02x}")).join(":"))
        }
        _ => Check::warn(
            NAME,
            "no hardware address, so PTP cannot tell this port from others by it, and event messages are not primed",
            "name a second interface that has one, or accept a random clock identity",
        ),
    }
}

fn driver(link: &Link) -> Check {
    const NAME: &str = "driver";
    match &link.driver {
        // Interfaces without a device put other things there, or nothing.
        Some(driver)
            if driver.bus.contains([':', '.', '-']) || driver.bus.starts_with("virtio") =>
        {
            Check::ok(NAME, format!("{} at {}", driver.name, driver.bus))
        }
        Some(driver) => Check::ok(NAME, format!("{}, without a device", driver.name)),
        None => Check::ok(NAME, "none; the interface exists in the kernel only"),
    }
}

fn timestamping(link: &Link) -> Check {
    const NAME: &str = "timestamping";
    let Some(offered) = link.timestamping else {
        return Check::skip(NAME, "the kernel does not tell which stamps the driver offers");
    };
    if let (true, true, Some(phc)) = (offered.tx_hardware, offered.rx_hardware, offered.phc) {
        return Check::ok(
            NAME,
            format!("the driver has hardware stamps both ways, from /dev/ptp{phc}"),
        )
        .advise(
            "where hardware stamps work on the whole path, ptp4l -H is more accurate than software",
        );
    }
    match (offered.tx_software, offered.rx_software) {
        (true, true) => {
            Check::ok(NAME, "the driver has software stamps both ways, and no PTP hardware clock")
        }
        (tx, _) => Check::ok(
            NAME,
            format!(
                "the driver has no software stamp on {}, so ptp4l -S refuses this interface; the agent's own capture points do not need it",
                if tx { "reception" } else { "transmission" }
            ),
        ),
    }
}

fn xdp_mode(link: &Link) -> Check {
    const NAME: &str = "xdp_mode";
    if link.xdp_busy {
        let which = link.xdp_program.map_or(String::new(), |id| format!(" (program {id})"));
        return Check::warn(
            NAME,
            format!(
                "another program{which} is attached by XDP already; PTP that it redirects or drops reaches neither sockets nor the programs behind it"
            ),
            "the agent uses the stack's stamps beside it; where no PTP arrives, let it pass UDP ports 319 and 320 and EtherType 0x88F7 (XDP_PASS)",
        );
    }
    match (&link.capture.xdp_native, link.xdp_features) {
        (Trial::Attached, _) => Check::ok(NAME, "native: the driver runs the program (tried)"),
        (Trial::Refused(_), _) => {
            Check::ok(NAME, "generic only: the driver refused the program (tried)")
        }
        (_, Some(features)) if features & XDP_BASIC != 0 => {
            Check::ok(NAME, "native: the driver says that it can")
        }
        (_, Some(_)) => Check::ok(NAME, "generic only: the driver says that it cannot"),
        _ => Check::skip(NAME, "kernels before 6.3 do not tell whether a driver can")
            .advise("doctor --try attaches for a moment"),
    }
}

fn capture(link: &Link) -> Vec<Check> {
    let Capture { tc, xmit, xdp_native, xdp_generic, tcx, probe } = &link.capture;
    let how = if *tcx { "TCX" } else { "clsact" };
    let no_native = link.xdp_features.is_some_and(|features| features & XDP_BASIC == 0);
    let xdp = |name, trial: &Trial| {
        let advice = "the other receive points do without";
        match trial {
            Trial::Loaded(_) if link.xdp_busy => {
                Check::warn(name, "another program is attached by XDP already", advice)
            }
            Trial::Loaded(_) if name == NATIVE && no_native => {
                Check::skip(name, "the driver has no XDP")
            }
            // `auto` and the default never need it.
            Trial::Refused(why) if name == NATIVE => {
                Check::skip(name, format!("refused: {why}")).advise(advice)
            }
            Trial::Refused(why) => Check::warn(name, format!("refused: {why}"), advice),
            other => needed(name, other, "XDP"),
        }
    };
    let through = |check: Check, trial: &Trial, is_stamped: fn(&ProbeReport) -> bool| match probe {
        _ if *trial != Trial::Attached => check,
        Probe::Sent(report) => sent_through(check, report, is_stamped),
        Probe::NotSent(why) if !why.is_empty() => {
            let reason = format!("{}; no packet was sent through it: {why}", check.reason);
            Check { reason, ..check }
        }
        Probe::NotSent(_) => check,
    };
    vec![
        through(needed("capture_stack", tc, how), tc, |report| report.stack),
        through(needed("capture_tc_ingress", tc, how), tc, |report| report.tc_ingress),
        xdp(NATIVE, xdp_native),
        xdp("capture_xdp_generic", xdp_generic),
        through(needed("capture_tc_egress", tc, how), tc, |report| report.tc_egress),
        through(optional("capture_start_xmit", xmit), xmit, |report| report.xmit),
        through(optional("capture_xmit_done", xmit), xmit, |report| report.xmit),
    ]
}

/// A check of an attached program with what has become of a packet that was sent through it.
fn sent_through(
    check: Check,
    report: &ProbeReport,
    is_stamped: impl Fn(&ProbeReport) -> bool,
) -> Check {
    if is_stamped(report) {
        let reason = format!("{}; a packet sent through it was stamped", check.reason);
        return Check { reason, ..check };
    }
    let others = match report.in_front.is_empty() {
        true => String::new(),
        false => format!("; in front of ours are {}", report.in_front.join("; ")),
    };
    Check::warn(
        check.name,
        format!("attached, but a packet sent through it was not stamped{others}"),
        "another program, filter or queueing discipline keeps packets from it (bpftool net, tc filter, tc qdisc): the agent would use the kernel's own stamps, where there are any",
    )
}

const NATIVE: &str = "capture_xdp_native";

/// A point without which the agent does not start.
fn needed(name: &'static str, trial: &Trial, how: &str) -> Check {
    match trial {
        Trial::Attached => Check::ok(name, format!("loaded, attached by {how} and detached again")),
        Trial::Loaded(why) => {
            Check::skip(name, format!("the kernel accepts the program; not attached: {why}"))
        }
        Trial::Refused(why) => Check::fail(
            name,
            format!("refused: {why}"),
            "see kernel_release, btf and link_type; what the kernel says about it may be in dmesg",
        ),
        Trial::Unprivileged => Check::skip(name, UNPRIVILEGED),
    }
}

fn optional(name: &'static str, trial: &Trial) -> Check {
    match trial {
        Trial::Refused(why) => Check::warn(
            name,
            format!("refused: {why}"),
            format!("use --tx-source {}", StampSource::TcEgress.name()),
        ),
        other => needed(name, other, "raw tracepoint"),
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::doctor::facts::Multicast;
    use crate::{
        doctor::{check::Status, facts::Interrupts},
        sys::ethtool::{Driver, Timestamping},
    };

    pub(in super::super) fn healthy() -> Link {
        Link {
            up: true,
            carrier: true,
            ethernet: true,
            mtu: Some(1500),
            mac: Some([2, 0, 0, 0, 0, 1]),
            driver: Some(Driver { name: "igc".to_owned(), bus: "0000:01:00.0".to_owned() }),
            timestamping: Some(Timestamping {
                tx_software: true,
                rx_software: true,
                tx_hardware: true,
                rx_hardware: true,
                phc: Some(0),
                ..Timestamping::default()
            }),
            interrupts: Interrupts::None,
            moderation: None,
            seen: None,
            xdp_features: Some(XDP_BASIC),
            xdp_busy: false,
            xdp_program: None,
            multicast: Multicast::default(),
            capture: Capture {
                tc: Trial::Attached,
                xmit: Trial::Attached,
                xdp_native: Trial::Loaded("only with --try"),
                xdp_generic: Trial::Loaded("only with --try"),
                tcx: true,
                probe: Probe::NotSent(String::new()),
            },
            heard: None,
        }
    }

    fn check(link: Link, name: &str) -> Check {
        let interface = Interface { name: "eth0".to_owned(), link: Some(link) };
        let checks = checks(&interface, &Cpu::default());
        checks.into_iter().find(|check| check.name == name).expect("a check of this name")
    }

    #[test]
    fn healthy_interface_has_no_complaint() {
        let interface = Interface { name: "eth0".to_owned(), link: Some(healthy()) };
        let checks = checks(&interface, &Cpu::default());
        let complaint = |check: &&Check| matches!(check.status, Status::Warn | Status::Fail);
        assert_eq!(checks.iter().find(complaint), None);
    }

    #[test]
    fn missing_interface_is_the_only_failure() {
        let interface = Interface { name: "eth7".to_owned(), link: None };
        let checks = checks(&interface, &Cpu::default());
        let [check] = &checks[..] else { panic!("{checks:?}") };
        assert_eq!((check.name, check.status), ("interface", Status::Fail));
    }

    #[test]
    fn interface_that_is_down_can_come_up_later() {
        for link in [Link { up: false, ..healthy() }, Link { carrier: false, ..healthy() }] {
            assert_eq!(check(link, "interface").status, Status::Warn);
        }
    }

    #[test]
    fn tunnel_without_ethernet_headers_is_a_failure() {
        assert_eq!(check(Link { ethernet: false, ..healthy() }, "link_type").status, Status::Fail);
    }

    #[test]
    fn missing_driver_stamps_are_no_fault() {
        let offered = Timestamping { rx_software: true, ..Timestamping::default() };
        let check = check(Link { timestamping: Some(offered), ..healthy() }, "timestamping");
        assert_eq!(check.status, Status::Ok);
        assert!(check.reason.contains("ptp4l -S refuses"), "{check:?}");
    }

    #[test]
    fn refused_tc_is_a_failure_and_refused_tracepoints_are_a_warning() {
        let refused = || Trial::Refused("no".to_owned());
        let with = |capture| Link { capture, ..healthy() };
        let tc = with(Capture { tc: refused(), ..healthy().capture });
        for name in ["capture_stack", "capture_tc_ingress", "capture_tc_egress"] {
            assert_eq!(check(tc.clone(), name).status, Status::Fail);
        }
        let xmit = with(Capture { xmit: refused(), ..healthy().capture });
        assert_eq!(check(xmit, "capture_xmit_done").status, Status::Warn);
        let unprivileged = with(Capture { tc: Trial::Unprivileged, ..healthy().capture });
        assert_eq!(check(unprivileged, "capture_stack").status, Status::Skip);
    }

    #[test]
    fn point_that_a_packet_did_not_reach_is_a_warning_that_names_who_is_in_front() {
        let in_front = vec!["egress: a u32 filter of priority 1".to_owned()];
        let report =
            ProbeReport { tc_ingress: true, stack: true, in_front, ..ProbeReport::default() };
        let capture = Capture { probe: Probe::Sent(report), ..healthy().capture };
        let link = Link { capture, ..healthy() };
        let reached = check(link.clone(), "capture_stack");
        assert_eq!(reached.status, Status::Ok);
        assert!(reached.reason.contains("was stamped"), "{reached:?}");
        for name in ["capture_tc_egress", "capture_start_xmit", "capture_xmit_done"] {
            let missed = check(link.clone(), name);
            assert_eq!(missed.status, Status::Warn);
            assert!(missed.reason.contains("u32 filter of priority 1"), "{missed:?}");
        }
        // What could not be attached is not blamed on the packet.
        let capture = Capture { xmit: Trial::Refused("no".to_owned()), ..link.capture.clone() };
        let refused = check(Link { capture, ..link }, "capture_xmit_done");
        assert!(refused.reason.contains("refused"), "{refused:?}");
    }

    #[test]
    fn xdp_mode_is_what_was_tried_or_else_what_the_driver_says() {
        let reason = |link| check(link, "xdp_mode").reason;
        assert!(reason(healthy()).starts_with("native"));
        assert!(reason(Link { xdp_features: Some(0), ..healthy() }).starts_with("generic only"));
        let tried = Capture { xdp_native: Trial::Refused("no".to_owned()), ..healthy().capture };
        assert!(reason(Link { capture: tried, ..healthy() }).starts_with("generic only"));
        let old = Link { xdp_features: None, ..healthy() };
        assert_eq!(check(old, "xdp_mode").status, Status::Skip);
        let busy = Link { xdp_busy: true, ..healthy() };
        assert_eq!(check(busy, "xdp_mode").status, Status::Warn);
    }

    #[test]
    fn taken_port_names_its_owner() {
        assert_eq!(ports(Some(&[])).status, Status::Ok);
        assert_eq!(ports(None).status, Status::Skip);
        let owner = PortOwner { port: 319, process: Some(("ptp4l".to_owned(), 42)) };
        let check = ports(Some(&[owner]));
        assert_eq!(check.status, Status::Warn);
        assert!(check.reason.contains("319") && check.reason.contains("ptp4l (42)"), "{check:?}");
    }
}
