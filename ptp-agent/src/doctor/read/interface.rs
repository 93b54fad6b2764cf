//! Looking at an interface: what route netlink, ethtool and sysfs tell, and what becomes of the
//! stamping programs there.

use std::io;

use futures_util::TryStreamExt as _;
use rtnetlink::LinkGetRequest;
use rtnetlink::packet_route::link::{
    InfoBridge, InfoData, LinkAttribute, LinkFlags, LinkInfo, LinkLayerType, LinkMessage, LinkXdp,
    XdpAttached,
};

use super::{file, multicast, netdev, parse_cpu_list};
use crate::{
    capture::{CaptureError, Features, Options, Programs, XdpHook},
    doctor::facts::{
        Bridge, Capture, Interface, Interrupt, Interrupts, Link, Multicast, Probe, Trial,
    },
    sys::{ethtool, irq},
};

/// Room for a few hundred records: nobody reads them.
const RING_BYTES: u32 = 64 * 1024;

const NOT_ASKED: &str = "only with --try, because some drivers restart their queues for it";
/// `dev_disable_lro` and `dev_disable_gro_hw` of the kernel, also for the ports of a bridge or bond.
const STAYS_OFF: &str = "the kernel would switch receive offloads off and leave them off; every Ethernet interface takes it";
const BUSY: &str = "another XDP program is attached";
const LEAVES_TRACES: &str = "before Linux 6.6 that would leave a queueing discipline behind";

pub(super) fn read(names: &[String], try_xdp: bool) -> Vec<Interface> {
    names
        .iter()
        .map(|name| Interface {
            name: name.clone(),
            link: link_message(name).ok().map(|message| link(name, &message, try_xdp)),
        })
        .collect()
}

fn link_message(name: &str) -> io::Result<LinkMessage> {
    link_where(|links| links.match_name(name.to_owned()))
}

fn link_where(wanted: impl FnOnce(LinkGetRequest) -> LinkGetRequest) -> io::Result<LinkMessage> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build()?;
    runtime.block_on(async {
        let (connection, handle, _) = rtnetlink::new_connection()?;
        tokio::spawn(connection);
        let links = wanted(handle.link().get()).execute();
        let link = std::pin::pin!(links).try_next().await.map_err(io::Error::other)?;
        link.ok_or_else(|| io::ErrorKind::NotFound.into())
    })
}

fn link(name: &str, message: &LinkMessage, try_xdp: bool) -> Link {
    let mut mtu = None;
    let mut mac = None;
    let mut xdp_busy = false;
    let mut xdp_program = None;
    for attribute in &message.attributes {
        match attribute {
            LinkAttribute::Mtu(bytes) => mtu = Some(*bytes),
            LinkAttribute::Address(bytes) => mac = bytes.as_slice().try_into().ok(),
            LinkAttribute::Xdp(xdp) => {
                xdp_program = xdp.iter().find_map(|xdp| match xdp {
                    LinkXdp::ProgId(id) => Some(*id),
                    _ => None,
                });
                xdp_busy = xdp.iter().any(|xdp| {
                    matches!(xdp, LinkXdp::Attached(attached) if *attached != XdpAttached::None)
                });
            }
            _ => {}
        }
    }
    let header = &message.header;
    Link {
        up: header.flags.contains(LinkFlags::Up),
        carrier: header.flags.contains(LinkFlags::LowerUp),
        // Loopback packets have the header too.
        ethernet: matches!(header.link_layer_type, LinkLayerType::Ether | LinkLayerType::Loopback),
        mtu,
        mac,
        driver: ethtool::driver(name).ok(),
        timestamping: ethtool::timestamping(name).ok(),
        interrupts: interrupts(name, header.index, mac),
        moderation: ethtool::moderation(name).ok(),
        seen: None,
        xdp_features: netdev::xdp_features(header.index).ok(),
        xdp_busy,
        xdp_program,
        multicast: multicast(name, message),
        capture: Capture { probe: probe(name, header.flags), ..capture(name, try_xdp, xdp_busy) },
        heard: None,
    }
}

/// Membership, and the bridge that the interface is or belongs to.
fn multicast(name: &str, message: &LinkMessage) -> Multicast {
    let controller = message.attributes.iter().find_map(|attribute| match attribute {
        LinkAttribute::Controller(index) => Some(*index),
        _ => None,
    });
    let above = || {
        let index = controller?;
        link_where(|links| links.match_index(index)).ok()
    };
    Multicast {
        is_on: message.header.flags.contains(LinkFlags::Multicast),
        groups: multicast::groups(name),
        bridge: bridge(message).or_else(|| bridge(&above()?)),
    }
}

fn bridge(message: &LinkMessage) -> Option<Bridge> {
    let mut name = String::new();
    let mut switches = None;
    for attribute in &message.attributes {
        match attribute {
            LinkAttribute::IfName(text) => name.clone_from(text),
            LinkAttribute::LinkInfo(infos) => {
                let bridge = infos.iter().find_map(|info| match info {
                    LinkInfo::Data(InfoData::Bridge(bridge)) => Some(bridge),
                    _ => None,
                });
                let Some(bridge) = bridge else { continue };
                let is = |wanted: fn(&InfoBridge) -> Option<bool>| {
                    bridge.iter().find_map(wanted).unwrap_or(false)
                };
                let snooping = is(|info| match info {
                    InfoBridge::MulticastSnooping(is) => Some(*is),
                    _ => None,
                });
                let querier = is(|info| match info {
                    InfoBridge::MulticastQuerier(is) => Some(*is),
                    _ => None,
                });
                switches = Some((snooping, querier));
            }
            _ => {}
        }
    }
    switches.map(|(snooping, querier)| Bridge { name, snooping, querier })
}

/// With the processors that may serve each.
fn interrupts(name: &str, ifindex: u32, mac: Option<[u8; 6]>) -> Interrupts {
    match irq::of(name, ifindex, mac) {
        irq::Interrupts::None => Interrupts::None,
        irq::Interrupts::Unknown(why) => Interrupts::Unknown(why),
        irq::Interrupts::Of(numbers) => {
            let used = numbers.into_iter().filter_map(|number| {
                let cpus = file(irq::directory(number).join("smp_affinity_list"))?;
                Some(Interrupt { number, cpus: parse_cpu_list(&cpus) })
            });
            Interrupts::Of(used.collect())
        }
    }
}

fn options() -> Options {
    Options { ring_bytes: Some(RING_BYTES), ..Options::default() }
}

/// Whether the programs become machine code; `None` where none can be loaded.
pub(super) fn is_compiled() -> Option<bool> {
    let mut programs = Programs::load(options()).ok()?;
    let program = programs.ebpf().program("ptp_tc_ingress")?;
    let program: &aya::programs::SchedClassifier = program.try_into().ok()?;
    Some(program.info().ok()?.size_jitted() > 0)
}

/// Loads the programs as the agent does, attaches them and takes them away again.
fn capture(interface: &str, try_xdp: bool, xdp_busy: bool) -> Capture {
    let mut tcx = false;
    let tc = match Programs::load(options()) {
        Err(error) => refused(error),
        // `attach` would also take the place of the filters of a running agent.
        Ok(programs) if !programs.features().tcx => Trial::Loaded(LEAVES_TRACES),
        Ok(mut programs) => {
            tcx = true;
            attach(&mut programs, interface)
        }
    };
    let xmit = match Programs::load(Options { xmit: true, ..options() }) {
        Err(error) => refused(error),
        // The tracepoints are attached by loading, for all interfaces.
        Ok(_) => Trial::Attached,
    };
    let native = Options { xdp: Some(XdpHook::Native), ..options() };
    let (xdp_native, xdp_generic) = match Programs::load(native) {
        Err(error) => {
            let trial = refused(error);
            (trial.clone(), trial)
        }
        // It is the same program.
        Ok(_) if xdp_busy => (Trial::Loaded(BUSY), Trial::Loaded(BUSY)),
        Ok(_) if !try_xdp => (Trial::Loaded(NOT_ASKED), Trial::Loaded(STAYS_OFF)),
        Ok(programs) if !programs.features().tcx => {
            (Trial::Loaded(LEAVES_TRACES), Trial::Loaded(STAYS_OFF))
        }
        Ok(mut programs) => (attach(&mut programs, interface), Trial::Loaded(STAYS_OFF)),
    };
    let probe = Probe::NotSent(String::new());
    Capture { tc, xmit, xdp_native, xdp_generic, tcx, probe }
}

/// Sends packets through the programs, where that leaves nothing behind.
fn probe(interface: &str, flags: LinkFlags) -> Probe {
    if !flags.contains(LinkFlags::Up | LinkFlags::LowerUp) {
        return Probe::NotSent("the interface is down".to_owned());
    }
    if !Features::probe().tcx {
        return Probe::NotSent(LEAVES_TRACES.to_owned());
    }
    match crate::capture::probe(interface) {
        Ok(report) => Probe::Sent(report),
        Err(error) => Probe::NotSent(error.to_string()),
    }
}

fn attach(programs: &mut Programs, interface: &str) -> Trial {
    match programs.attach(interface) {
        Ok(_) => Trial::Attached,
        Err(error) => refused(error),
    }
}

fn refused(error: CaptureError) -> Trial {
    match error {
        CaptureError::Privilege { .. } => Trial::Unprivileged,
        other => Trial::Refused(other.to_string()),
    }
}
