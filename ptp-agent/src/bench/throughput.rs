//! What the hooks take from a flow of other packets: small datagrams through a veth pair between two
//! network namespaces, as fast as one thread can send them, with the programs attached as `run` does
//! on both ends, with programs that do nothing in the same places, and with none, by turns. What the
//! programs that do nothing take is the kernel's price of a hook. The flows are short, so that those
//! of one turn meet the same host, and the order changes from turn to turn (there and back again).

use std::{
    any::Any,
    io,
    net::{Ipv4Addr, SocketAddrV4, UdpSocket},
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::Instant,
};

use anyhow::Context as _;
use aya::programs::{RawTracePoint, SchedClassifier, TcAttachType};

use super::{Cost, NO_PROGRAM, Ratio, Row, load, tracepoints};
use crate::{
    capture::{CaptureError, Options, Programs, XMIT},
    lab::netns::{Namespace, veth},
};

/// The rows' names: programs that do nothing, and ours.
pub(super) const NAMES: [&str; 2] = ["veth_udp_empty", "veth_udp_hooks"];

const INTERFACES: [&str; 2] = ["bench0", "bench1"];
const ADDRESSES: [Ipv4Addr; 2] = [Ipv4Addr::new(192, 0, 2, 1), Ipv4Addr::new(192, 0, 2, 2)];
/// The discard service.
const PORT: u16 = 9;
/// With it a frame has the 64 bytes that are the least on Ethernet.
const PAYLOAD: [u8; 18] = [0; 18];

/// What is attached during a flow.
#[derive(Clone, Copy)]
enum Attached {
    Nothing,
    Empty,
    Ours,
}

/// Measures `turns` turns of three flows of `packets` each. Namespaces need CAP_SYS_ADMIN; without
/// it there is a warning and no row.
pub(super) fn measure(turns: u32, packets: u32, each: &mut impl FnMut(&Row)) -> anyhow::Result<()> {
    let ends = match (Namespace::new(), Namespace::new()) {
        (Ok(a), Ok(b)) => [a, b],
        (Err(error), _) | (_, Err(error)) if error.is_missing_on_host() => {
            tracing::warn!(%error, "throughput is not measured");
            return Ok(());
        }
        (a, b) => [a?, b?],
    };
    let [a, b] = &ends;
    veth(a, INTERFACES[0], b, INTERFACES[1])?;
    for ((end, name), address) in ends.iter().zip(INTERFACES).zip(ADDRESSES) {
        end.add_address(name, address.into(), 24)?;
    }
    let [to, from] = [ADDRESSES[1], ADDRESSES[0]].map(|address| SocketAddrV4::new(address, 0));
    let receiver = b.run(|| UdpSocket::bind(SocketAddrV4::new(*to.ip(), PORT)))??;
    receiver.set_nonblocking(true)?;
    let sender = a.run(|| UdpSocket::bind(from))??;
    sender.connect(receiver.local_addr()?)?;

    let done = AtomicBool::new(false);
    let costs = thread::scope(|scope| {
        scope.spawn(|| {
            // A queue that is full would be another path through the kernel. And a reader that
            // slept would have to be woken, which costs as much as a packet, or not, as luck has it.
            while !done.load(Ordering::Relaxed) {
                let _ = receiver.recv(&mut [0; 64]);
            }
        });
        let costs = flows(&ends, &sender, turns, packets);
        done.store(true, Ordering::Relaxed);
        costs
    });
    let [without, others @ ..] = costs?;
    for (name, with) in NAMES.into_iter().zip(others) {
        let ratio = Ratio::of(without.iter().zip(&with).map(|(without, with)| without / with));
        let (ns, baseline_ns) = (Cost::of(&with), Cost::of(&without).mean);
        each(&Row { name, ns, baseline_ns, throughput: Some(ratio) });
    }
    Ok(())
}

/// Times per packet, ns: without programs, with empty ones, with ours.
fn flows(
    ends: &[Namespace; 2],
    sender: &UdpSocket,
    turns: u32,
    packets: u32,
) -> anyhow::Result<[Vec<f64>; 3]> {
    let mut costs = [Vec::new(), Vec::new(), Vec::new()];
    let mut order = [Attached::Nothing, Attached::Empty, Attached::Ours];
    // The first turn warms up.
    for turn in 0..=turns {
        for attached in order {
            let mut programs = Vec::new();
            for (side, (end, interface)) in ends.iter().zip(INTERFACES).enumerate() {
                // The tracepoints are the host's: one host's worth of them.
                let xmit = side == 0;
                match attached {
                    Attached::Nothing => {}
                    Attached::Empty => programs.push(end.run(|| empty(interface, xmit))??),
                    Attached::Ours => programs.push(end.run(|| ours(interface, xmit))??),
                }
            }
            // Attaching leaves cold caches, and work for the kernel.
            send(sender, packets / 4)?;
            let begin = Instant::now();
            send(sender, packets)?;
            let each = begin.elapsed().as_nanos() as f64 / f64::from(packets);
            if turn > 0 {
                costs[attached as usize].push(each);
            }
            for (end, programs) in ends.iter().zip(programs) {
                end.run(|| drop(programs))?;
            }
        }
        order.reverse();
    }
    Ok(costs)
}

fn send(sender: &UdpSocket, packets: u32) -> io::Result<()> {
    (0..packets).try_for_each(|_| sender.send(&PAYLOAD).map(drop))
}

/// Programs that are attached until the drop of this, which must be in the interface's namespace.
type Hooks = Box<dyn Any + Send>;

fn empty(interface: &str, xmit: bool) -> anyhow::Result<Hooks> {
    let (mut ebpf, _) = load()?;
    let tc: &mut SchedClassifier = ebpf.program_mut("empty_tc").context(NO_PROGRAM)?.try_into()?;
    tc.load().map_err(CaptureError::load)?;
    for hook in [TcAttachType::Ingress, TcAttachType::Egress] {
        tc.attach(interface, hook).map_err(CaptureError::load)?;
    }
    if xmit {
        let tracepoint: &mut RawTracePoint =
            ebpf.program_mut(tracepoints::EMPTY).context(NO_PROGRAM)?.try_into()?;
        tracepoint.load().map_err(CaptureError::load)?;
        for (_, name) in XMIT {
            tracepoint.attach(name).map_err(CaptureError::load)?;
        }
    }
    Ok(Box::new(ebpf))
}

fn ours(interface: &str, xmit: bool) -> anyhow::Result<Hooks> {
    let mut programs = Programs::load(Options { xmit, ..Options::default() })?;
    programs.attach(interface)?;
    Ok(Box::new(programs))
}
