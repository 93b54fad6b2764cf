//! Which hooks the kernel has, and which capture points give a stamp of a real packet: each is tried
//! by itself on a wire between two namespaces, so that the table says what was seen and not what a
//! version number promises. A fact is told even where the kernel lacks the thing; the trial fails only
//! if something is missing that every supported kernel has.

use std::{
    collections::BTreeSet,
    path::Path,
    thread,
    time::{Duration, Instant},
};

use bpf_tests::{frames::Recipe, links::Wire, raw::FrameSocket};
use libtest_mimic::Trial;
use ptp_agent::capture::{
    CaptureError, ClockRelation, EgressJoin, Features, Options, Programs, TcAttach, XdpHook,
    stamp_at,
};
use ptp_agent::stamp::StampSource;
use ptp_common::record::{Hook, Record};

use crate::{report::fact, trial};

/// How long a record may take to come.
const PATIENCE: Duration = Duration::from_secs(2);

pub(crate) fn trials() -> Vec<Trial> {
    vec![
        trial("capture::kernel_has_what_all_supported_kernels_have", features),
        trial("capture::clsact_works_on_every_kernel", || {
            assert!(tc("clsact", TcAttach::Clsact));
        }),
        trial("capture::tcx_works_where_the_kernel_has_it", || {
            let works = Features::probe().tcx && tc("tcx", TcAttach::Auto);
            fact("tcx", yes(works));
            assert_eq!(works, Features::probe().tcx);
        }),
        trial("capture::xdp_in_the_driver_works", || {
            assert!(xdp("xdp_native", XdpHook::Native));
        }),
        trial("capture::xdp_in_the_stack_works", || {
            assert!(xdp("xdp_generic", XdpHook::Generic));
        }),
        trial("capture::stamps_of_all_points_lie_in_the_order_of_the_way", all_points),
    ]
}

const fn yes(yes: bool) -> &'static str {
    if yes { "yes" } else { "no" }
}

fn features() {
    let features = Features::probe();
    fact("bpf_ktime_get_tai_ns", yes(features.tai));
    fact("bpf_xdp_load_bytes", yes(features.xdp_load_bytes));
    fact("__sk_buff->hwtstamp", yes(features.hwtstamp));
    let btf = Path::new("/sys/kernel/btf/vmlinux").exists();
    fact("btf", yes(btf));
    assert!(btf);
}

/// Attaches with `options` at both ends of a wire, sends PTP messages over it, and returns the records
/// of sender and receiver.
fn observe(options: &Options) -> Result<[Vec<Record>; 2], CaptureError> {
    let wire = Wire::new().expect("a guest has namespaces and veth");
    let ends = [(&wire.grandmaster, "gm0"), (&wire.client, "ptp0")];
    let mut attached = Vec::new();
    for (namespace, interface) in ends {
        let mut programs = Programs::load(options.clone())?;
        namespace.run(|| programs.attach(interface)).expect("the namespace is there")?;
        attached.push(programs);
    }
    let socket = wire.grandmaster.run(|| FrameSocket::open("gm0")).expect("a namespace");
    let socket = socket.expect("a guest has packet sockets");
    let mut records = [Vec::new(), Vec::new()];
    let deadline = Instant::now() + PATIENCE;
    // The stack's own stamp is switched on in the background, so the first packet may lack it.
    while Instant::now() < deadline && !complete(&records, options) {
        socket.send(&Recipe::sync_on_udp4().frame()).expect("the wire is up");
        thread::sleep(Duration::from_millis(20));
        for (programs, records) in attached.iter_mut().zip(&mut records) {
            programs.drain(|record| records.push(record));
        }
    }
    for ((namespace, _), programs) in ends.into_iter().zip(attached) {
        namespace.run(|| drop(programs)).expect("the namespace is there");
    }
    Ok(records)
}

fn complete(records: &[Vec<Record>; 2], options: &Options) -> bool {
    let [sender, receiver] = records;
    let has = |records: &[Record], hook| records.iter().any(|record| record.hook == hook);
    has(sender, Hook::TcEgress)
        && receiver.iter().any(|record| record.hook == Hook::TcIngress)
        && (options.xdp.is_none() || has(receiver, Hook::XdpIngress))
        && (!options.xmit || has(sender, Hook::Xmit))
        && receiver.len() > 10
}

fn tc(name: &str, way: TcAttach) -> bool {
    let options = Options { tc: way, ..Options::default() };
    let works = match observe(&options) {
        Ok([sender, receiver]) => {
            sender.iter().any(|record| record.hook == Hook::TcEgress)
                && receiver.iter().any(|record| record.hook == Hook::TcIngress)
        }
        Err(error) => {
            println!("{name}: {error}");
            false
        }
    };
    fact(name, yes(works));
    works
}

fn xdp(name: &str, hook: XdpHook) -> bool {
    let options = Options { xdp: Some(hook), ..Options::default() };
    let works = match observe(&options) {
        Ok([_, receiver]) => receiver.iter().any(|record| record.hook == Hook::XdpIngress),
        Err(error) => {
            println!("{name}: {error}");
            false
        }
    };
    fact(name, yes(works));
    works
}

/// The stamps that one packet was given on its way, with everything attached.
fn all_points() {
    const RX: [StampSource; 3] =
        [StampSource::Stack, StampSource::XdpNative, StampSource::TcIngress];
    const TX: [StampSource; 3] =
        [StampSource::TcEgress, StampSource::StartXmit, StampSource::XmitDone];
    // Software stamps of the stack are taken as long as anybody wants them.
    let _wanted = stack_stamps();
    let options = Options { xmit: true, xdp: Some(XdpHook::Native), ..Options::default() };
    let [sender, receiver] = observe(&options).expect("each was attached before");
    let relation = ClockRelation::now();
    let mut join = EgressJoin::default();
    let mut points = BTreeSet::new();
    for record in &sender {
        points.extend(
            TX.iter()
                .filter_map(|point| stamp_at(record, *point, &relation))
                .map(|stamp| stamp.source.name()),
        );
        match record.hook {
            Hook::TcEgress => join.push(record.clone()),
            Hook::Xmit => {
                let egress = join.join(record).expect("a record of the same packet");
                assert!(egress.mono_ns <= record.mono_ns && record.mono_ns <= record.done_ns);
            }
            _ => {}
        }
    }
    for record in &receiver {
        for source in RX {
            if let Some(stamp) = stamp_at(record, source, &relation) {
                points.insert(stamp.source.name());
                let program = Duration::from_nanos(record.mono_ns);
                let stamp = Duration::from_nanos(u64::try_from(stamp.time.as_nanos()).unwrap_or(0));
                let earlier = program.abs_diff(stamp);
                assert!(earlier < Duration::from_millis(50), "{source:?}: {earlier:?}");
            }
        }
    }
    let named = |wanted: &[&'static str]| {
        let seen: Vec<&str> =
            wanted.iter().filter(|point| points.contains(*point)).copied().collect();
        seen.join(", ")
    };
    fact("rx_points", &named(&RX.map(|source| source.name())));
    fact("tx_points", &named(&TX.map(|source| source.name())));
    assert_eq!(points.len(), RX.len() + TX.len(), "{points:?}");
}

/// A socket that wants the stack to stamp what is received.
fn stack_stamps() -> std::net::UdpSocket {
    use nix::sys::socket::{TimestampingFlag, setsockopt, sockopt};
    let socket = std::net::UdpSocket::bind("127.0.0.1:0").expect("a guest has a loopback address");
    let flags = TimestampingFlag::SOF_TIMESTAMPING_RX_SOFTWARE
        | TimestampingFlag::SOF_TIMESTAMPING_SOFTWARE;
    setsockopt(&socket, sockopt::Timestamping, &flags).expect("every kernel stamps");
    socket
}
