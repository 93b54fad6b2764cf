//! What the hooks take from a flow of other packets: small datagrams through a veth pair between two
//! network namespaces, as fast as one thread can send them, with the programs attached as `run` does
//! on both ends and without, by turns. The order changes from round to round (without, with, with,
//! without), so that a host which becomes slower or faster meanwhile favours neither.

use std::{
    net::{Ipv4Addr, SocketAddrV4, UdpSocket},
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::{Duration, Instant},
};

use super::{Cost, Row};
use crate::{
    capture::{Options, Programs},
    lab::netns::{Namespace, veth},
};

/// The row's name.
pub(super) const NAME: &str = "veth_udp_hooks";

const NAMES: [&str; 2] = ["bench0", "bench1"];
const ADDRESSES: [Ipv4Addr; 2] = [Ipv4Addr::new(192, 0, 2, 1), Ipv4Addr::new(192, 0, 2, 2)];
/// The discard service.
const PORT: u16 = 9;
/// With it a frame has the 64 bytes that are the least on Ethernet.
const PAYLOAD: [u8; 18] = [0; 18];

/// Measures `rounds` rounds of four flows of `packets` each. Namespaces need CAP_SYS_ADMIN; without
/// it there is a warning and no row.
pub(super) fn measure(
    rounds: u32,
    packets: u32,
    each: &mut impl FnMut(&Row),
) -> anyhow::Result<()> {
    let ends = match (Namespace::new(), Namespace::new()) {
        (Ok(a), Ok(b)) => [a, b],
        (Err(error), _) | (_, Err(error)) if error.is_missing_on_host() => {
            tracing::warn!(%error, "throughput is not measured");
            return Ok(());
        }
        (a, b) => [a?, b?],
    };
    let [a, b] = &ends;
    veth(a, NAMES[0], b, NAMES[1])?;
    for ((end, name), address) in ends.iter().zip(NAMES).zip(ADDRESSES) {
        end.add_address(name, address.into(), 24)?;
    }
    let [to, from] = [ADDRESSES[1], ADDRESSES[0]].map(|address| SocketAddrV4::new(address, 0));
    let receiver = b.run(|| UdpSocket::bind(SocketAddrV4::new(*to.ip(), PORT)))??;
    receiver.set_read_timeout(Some(Duration::from_millis(20)))?;
    let sender = a.run(|| UdpSocket::bind(from))??;
    sender.connect(receiver.local_addr()?)?;

    let done = AtomicBool::new(false);
    let costs = thread::scope(|scope| {
        scope.spawn(|| {
            // A queue that is full would be another path through the kernel.
            while !done.load(Ordering::Relaxed) {
                let _ = receiver.recv(&mut [0; 64]);
            }
        });
        let costs = flows(&ends, &sender, rounds, packets);
        done.store(true, Ordering::Relaxed);
        costs
    });
    let [without, with] = costs?;
    each(&Row { name: NAME, ns: Cost::of(&with), baseline_ns: Cost::of(&without).mean });
    Ok(())
}

/// Times per packet, ns, without the hooks and with them.
fn flows(
    [a, b]: &[Namespace; 2],
    sender: &UdpSocket,
    rounds: u32,
    packets: u32,
) -> anyhow::Result<[Vec<f64>; 2]> {
    let mut costs = [Vec::new(), Vec::new()];
    // The first round warms up.
    for round in 0..=rounds {
        for is_attached in [false, true, true, false] {
            let attached = is_attached
                .then(|| -> anyhow::Result<_> {
                    // The tracepoints are the host's: one host's worth of them.
                    let options = Options { xmit: true, ..Options::default() };
                    let sending = a.run(|| attached(options, NAMES[0]))??;
                    let receiving = b.run(|| attached(Options::default(), NAMES[1]))??;
                    Ok((sending, receiving))
                })
                .transpose()?;
            let begin = Instant::now();
            for _ in 0..packets {
                sender.send(&PAYLOAD)?;
            }
            let each = begin.elapsed().as_nanos() as f64 / f64::from(packets);
            if round > 0 {
                costs[usize::from(is_attached)].push(each);
            }
            if let Some((sending, receiving)) = attached {
                a.run(|| drop(sending))?;
                b.run(|| drop(receiving))?;
            }
        }
    }
    Ok(costs)
}

fn attached(options: Options, interface: &str) -> anyhow::Result<Programs> {
    let mut programs = Programs::load(options)?;
    programs.attach(interface)?;
    Ok(programs)
}
