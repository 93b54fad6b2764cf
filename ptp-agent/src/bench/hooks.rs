//! What each hook costs per packet, by BPF_PROG_TEST_RUN: the kernel runs the program many times on
//! one packet and says how long one run took on average, to the nanosecond. The empty program of the
//! same kind is run in turn with the others, so that whatever the host does meanwhile falls on all.

use anyhow::Context as _;
use aya::{
    Ebpf,
    programs::{Program, SchedClassifier, TestRun as _, TestRunOptions, Xdp},
};

use super::{Cost, Row, load};
use crate::capture::{CaptureError, Options, Programs, XdpHook};

/// PTP packets that the ring certainly has room for, with its default size.
const PORTION: u32 = 8000;

/// A program and the packet it is given.
struct Case {
    name: &'static str,
    program: &'static str,
    frame: Frame,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Frame {
    /// TCP over IPv4: what a host sees most.
    Other,
    /// A Sync over UDP/IPv4.
    Ptp,
}

const TC: &[Case] = &[
    Case { name: "tc_ingress_other", program: "ptp_tc_ingress", frame: Frame::Other },
    Case { name: "tc_egress_other", program: "ptp_tc_egress", frame: Frame::Other },
    Case { name: "tc_ingress_ptp", program: "ptp_tc_ingress", frame: Frame::Ptp },
    Case { name: "tc_egress_ptp", program: "ptp_tc_egress", frame: Frame::Ptp },
];
const XDP: &[Case] = &[
    Case { name: "xdp_other", program: "ptp_xdp_ingress", frame: Frame::Other },
    Case { name: "xdp_ptp", program: "ptp_xdp_ingress", frame: Frame::Ptp },
];

/// Measures TC, then XDP.
pub(super) fn measure(runs: u32, packets: u32, each: &mut impl FnMut(&Row)) -> anyhow::Result<()> {
    let options = Options { xdp: Some(XdpHook::Generic), xmit: true, ..Options::default() };
    let mut programs = Programs::load(options)?;
    let (mut empty, _) = load()?;
    for (empty_name, empty_program, cases) in
        [("tc_empty", "empty_tc", TC), ("xdp_empty", "empty_xdp", XDP)]
    {
        load_program(&mut empty, empty_program)?;
        let mut baselines = Vec::new();
        let mut costs = vec![Vec::new(); cases.len()];
        for _ in 0..runs {
            baselines.push(run(&mut empty, empty_program, &frame(Frame::Other), packets)?);
            for (case, costs) in cases.iter().zip(&mut costs) {
                costs.push(match case.frame {
                    Frame::Other => {
                        run(programs.ebpf(), case.program, &frame(case.frame), packets)?
                    }
                    Frame::Ptp => run_in_portions(&mut programs, case.program, packets / 10)?,
                });
            }
        }
        let baseline = Cost::of(&baselines);
        each(&Row { name: empty_name, ns: baseline, baseline_ns: baseline.mean, throughput: None });
        for (case, costs) in cases.iter().zip(&costs) {
            each(&Row {
                name: case.name,
                ns: Cost::of(costs),
                baseline_ns: baseline.mean,
                throughput: None,
            });
        }
    }
    Ok(())
}

/// Runs a program on PTP packets, emptying the ring in between: a full ring would be measured as a
/// fast one.
fn run_in_portions(programs: &mut Programs, name: &str, packets: u32) -> anyhow::Result<f64> {
    let portions = packets.div_ceil(PORTION).max(1);
    let mut sum = 0.0;
    for _ in 0..portions {
        programs.drain(|_| ());
        sum += run(programs.ebpf(), name, &frame(Frame::Ptp), PORTION)?;
    }
    programs.drain(|_| ());
    Ok(sum / f64::from(portions))
}

fn load_program(ebpf: &mut Ebpf, name: &str) -> anyhow::Result<()> {
    let program = ebpf.program_mut(name).with_context(|| format!("no program {name}"))?;
    match program {
        Program::SchedClassifier(program) => program.load(),
        Program::Xdp(program) => program.load(),
        _ => Ok(()),
    }
    .map_err(CaptureError::load)?;
    Ok(())
}

/// Mean duration of one run, nanoseconds.
fn run(ebpf: &mut Ebpf, name: &str, frame: &[u8], times: u32) -> anyhow::Result<f64> {
    let options =
        TestRunOptions { data_in: Some(frame), repeat: times, ..TestRunOptions::default() };
    let program = ebpf.program_mut(name).with_context(|| format!("no program {name}"))?;
    let result = match program {
        Program::SchedClassifier(program) => SchedClassifier::test_run(program, options),
        Program::Xdp(program) => Xdp::test_run(program, options),
        _ => anyhow::bail!("{name} is of a kind that cannot be run on a packet"),
    };
    let result = result.with_context(|| format!("cannot run {name} by BPF_PROG_TEST_RUN"))?;
    Ok(result.duration.as_nanos() as f64)
}

/// The packet's bytes.
fn frame(kind: Frame) -> Vec<u8> {
    let (protocol, destination, payload) = match kind {
        // Ports 443 and 50000, sequence numbers, flags: none of it is looked at.
        Frame::Other => {
            (6, [192, 0, 2, 2], [0x01, 0xbb, 0xc3, 0x50].into_iter().chain([0; 16]).collect())
        }
        Frame::Ptp => {
            let mut udp = vec![0x01, 0x3f, 0x01, 0x3f, 0, 52, 0, 0];
            // A Sync: type 0, version 2, length 44.
            udp.extend([0x00, 0x02, 0, 44]);
            udp.extend([0; 40]);
            (17, [224, 0, 1, 129], udp)
        }
    };
    let mut frame = vec![0x01, 0, 0x5e, 0, 1, 0x81, 2, 0, 0, 0, 0, 1, 0x08, 0];
    let total = u16::try_from(20 + payload.len()).unwrap_or(u16::MAX);
    frame.extend([0x45, 0]);
    frame.extend(total.to_be_bytes());
    frame.extend([0, 0, 0x40, 0, 1, protocol, 0, 0, 192, 0, 2, 1]);
    frame.extend(destination);
    frame.extend::<Vec<u8>>(payload);
    frame
}

#[cfg(test)]
mod tests {
    use super::*;
    use ptp_common::classify::{Reject, classify};

    #[test]
    fn frames_are_what_they_are_meant_to_be() {
        assert_eq!(classify(&frame(Frame::Other)[..]), Err(Reject::NotPtp));
        let ptp = frame(Frame::Ptp);
        let location = classify(&ptp[..]).unwrap();
        assert_eq!(location.destination_port, 319);
        assert_eq!(ptp.len() - location.ptp_offset, 44);
    }
}
