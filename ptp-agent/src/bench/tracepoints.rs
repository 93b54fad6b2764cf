//! What the tracepoints around the driver cost. They cannot be run by hand as the hooks can, so
//! packets are sent through the loopback interface of a network namespace made for it, while the
//! kernel keeps count of each program's run time (BPF_ENABLE_STATS). Reading its clock for that costs
//! something too; the empty program, run on the same packets, has it in as well. The kernel measures
//! its own statistics by the tick of a nanosecond, and the mean is over ten thousand packets, so a
//! fraction of a nanosecond is real.

use std::{io, net::UdpSocket};

use anyhow::Context as _;
use aya::{
    Ebpf,
    programs::{
        LinkOrder, ProgramInfo, RawTracePoint, SchedClassifier, TcAttachType, tc::TcAttachOptions,
    },
    sys::{Stats, enable_stats},
};

use super::{Cost, NO_PROGRAM, Row, load};
use crate::{
    capture::{
        CaptureError, INTERRUPT_TC, INTERRUPT_TRACEPOINTS, Options, Programs, load_interrupts,
    },
    lab::netns::Namespace,
};

/// Packets sent without looking at the ring, which has room for that many.
const PORTION: u32 = 4000;

/// The empty program.
pub(super) const EMPTY: &str = "empty_start_xmit";

/// A program on packets of one kind.
struct Case {
    name: &'static str,
    program: &'static str,
}

const OTHER: [Case; 2] = [
    Case { name: "start_xmit_other", program: "ptp_start_xmit" },
    Case { name: "xmit_done_other", program: "ptp_xmit_done" },
];
const PTP: [Case; 2] = [
    Case { name: "start_xmit_ptp", program: "ptp_start_xmit" },
    Case { name: "xmit_done_ptp", program: "ptp_xmit_done" },
];

/// Measures in a namespace of its own. Both this and the statistics need CAP_SYS_ADMIN, unlike the
/// rest of the command; without it there is a warning and no row.
pub(super) fn measure(runs: u32, packets: u32, each: &mut impl FnMut(&Row)) -> anyhow::Result<()> {
    let namespace = match Namespace::new() {
        Err(error) if error.is_missing_on_host() => {
            tracing::warn!(%error, "the tracepoints are not measured");
            return Ok(());
        }
        namespace => namespace?,
    };
    let rows = namespace.run(|| measure_here(runs, packets))??;
    rows.iter().for_each(each);
    Ok(())
}

fn measure_here(runs: u32, packets: u32) -> anyhow::Result<Vec<Row>> {
    let _statistics = enable_stats(Stats::RunTime).context("cannot switch on BPF statistics")?;
    let (mut empty, _) = load()?;
    let program: &mut RawTracePoint = empty.program_mut(EMPTY).context(NO_PROGRAM)?.try_into()?;
    program.load().map_err(CaptureError::load)?;
    program.attach("net_dev_start_xmit").map_err(CaptureError::load)?;
    let mut programs = Programs::load(Options { xmit: true, ..Options::default() })?;
    programs.attach("lo")?;

    let mut baselines = Vec::new();
    let mut rows = Vec::new();
    // Any port but PTP's will do for the others.
    for (cases, port) in [(&OTHER, 0), (&PTP, ptp_common::classify::PORT_EVENT)] {
        let sender = UdpSocket::bind("127.0.0.1:0")?;
        let receiver = UdpSocket::bind(("127.0.0.1", port))?;
        sender.connect(receiver.local_addr()?)?;
        let mut costs = [const { Vec::new() }; 2];
        for run in 0..=runs {
            let before = empty_info(&mut empty)?;
            let before_each = infos(&mut programs, cases)?;
            send(&sender, &mut programs, packets)?;
            let baseline = mean(&before, &empty_info(&mut empty)?);
            let after_each = infos(&mut programs, cases)?;
            // The first run warms up.
            if run > 0 {
                baselines.push(baseline);
                for ((costs, before), after) in costs.iter_mut().zip(&before_each).zip(&after_each)
                {
                    costs.push(mean(before, after));
                }
            }
        }
        for (case, costs) in cases.iter().zip(&costs) {
            rows.push(Row {
                name: case.name,
                ns: Cost::of(costs),
                baseline_ns: 0.0,
                throughput: None,
            });
        }
    }
    rows.extend(interrupts(runs, packets)?);
    let baseline = Cost::of(&baselines);
    rows.insert(0, Row { name: "xmit_empty", ns: baseline, baseline_ns: 0.0, throughput: None });
    for row in &mut rows {
        row.baseline_ns = baseline.mean;
    }
    Ok(rows)
}

/// What watching interrupts costs: each poll, each received packet, and each interrupt of any device, of which
/// there may be few or none meanwhile.
fn interrupts(runs: u32, packets: u32) -> anyhow::Result<Vec<Row>> {
    const NAMES: [(&str, &str); 3] = [
        ("interrupt_other", INTERRUPT_TRACEPOINTS[0].0),
        ("poll", INTERRUPT_TRACEPOINTS[1].0),
        ("interrupt_tc", INTERRUPT_TC),
    ];
    let mut ebpf = load_interrupts(&[])?;
    for (name, tracepoint) in INTERRUPT_TRACEPOINTS {
        let program: &mut RawTracePoint = ebpf.program_mut(name).context(NO_PROGRAM)?.try_into()?;
        program.load().map_err(CaptureError::load)?;
        program.attach(tracepoint).map_err(CaptureError::load)?;
    }
    let hook: &mut SchedClassifier =
        ebpf.program_mut(INTERRUPT_TC).context(NO_PROGRAM)?.try_into()?;
    hook.load().map_err(CaptureError::load)?;
    let last = TcAttachOptions::TcxOrder(LinkOrder::last());
    if let Err(error) = hook.attach_with_options("lo", TcAttachType::Ingress, last) {
        tracing::warn!(%error, "watching interrupts is not measured, which needs TCX");
        return Ok(Vec::new());
    }
    let look = |ebpf: &Ebpf| -> anyhow::Result<[ProgramInfo; 3]> {
        let info = |name: &str| anyhow::Ok(ebpf.program(name).context(NO_PROGRAM)?.info()?);
        Ok([info(NAMES[0].1)?, info(NAMES[1].1)?, info(NAMES[2].1)?])
    };
    let (sender, receiver) = (UdpSocket::bind("127.0.0.1:0")?, UdpSocket::bind("127.0.0.1:0")?);
    sender.connect(receiver.local_addr()?)?;
    let mut costs = [const { Vec::new() }; 3];
    for _ in 0..runs {
        let before = look(&ebpf)?;
        for _ in 0..packets {
            sender.send(&[0; 44])?;
        }
        for ((costs, before), after) in costs.iter_mut().zip(&before).zip(&look(&ebpf)?) {
            if after.run_count() > before.run_count() {
                costs.push(mean(before, after));
            }
        }
    }
    let row = |((name, _), costs): (&(&'static str, _), &Vec<f64>)| Row {
        name,
        ns: Cost::of(costs),
        baseline_ns: 0.0,
        throughput: None,
    };
    Ok(NAMES.iter().zip(&costs).filter(|(_, costs)| !costs.is_empty()).map(row).collect())
}

/// Sends datagrams of a Sync's size. Nobody reads them: the receiver's buffer is soon full and drops
/// them, behind everything that is measured.
fn send(sender: &UdpSocket, programs: &mut Programs, packets: u32) -> io::Result<()> {
    for portion in (0..packets).step_by(PORTION as usize) {
        for _ in portion..packets.min(portion + PORTION) {
            sender.send(&[0; 44])?;
        }
        programs.drain(|_| ());
    }
    Ok(())
}

fn empty_info(ebpf: &mut Ebpf) -> anyhow::Result<ProgramInfo> {
    Ok(ebpf.program(EMPTY).context(NO_PROGRAM)?.info()?)
}

fn infos(programs: &mut Programs, cases: &[Case; 2]) -> anyhow::Result<Vec<ProgramInfo>> {
    cases
        .iter()
        .map(|case| {
            let program = programs.ebpf().program(case.program);
            Ok(program.with_context(|| format!("no program {}", case.program))?.info()?)
        })
        .collect()
}

/// Mean run time between two looks, nanoseconds.
fn mean(before: &ProgramInfo, after: &ProgramInfo) -> f64 {
    let time = after.run_time().saturating_sub(before.run_time());
    let count = after.run_count().saturating_sub(before.run_count());
    time.as_nanos() as f64 / count.max(1) as f64
}
