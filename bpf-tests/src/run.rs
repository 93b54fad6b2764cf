//! One kernel program under BPF_PROG_TEST_RUN: given a frame, what it returned, what became of the
//! frame, and the records that it wrote.

use aya::programs::{Program, ProgramError, SchedClassifier, TestRun as _, TestRunOptions, Xdp};
use ptp_agent::capture::Programs;
use ptp_common::record::Record;

/// A program that runs on frames.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hook {
    /// TC ingress.
    TcIngress,
    /// TC egress.
    TcEgress,
    /// XDP.
    Xdp,
}

impl Hook {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::TcIngress, Self::TcEgress, Self::Xdp];

    /// Name of the program in the object.
    pub const fn program(self) -> &'static str {
        match self {
            Self::TcIngress => "ptp_tc_ingress",
            Self::TcEgress => "ptp_tc_egress",
            Self::Xdp => "ptp_xdp_ingress",
        }
    }

    /// The return value of "go on as if I were not here": TCX_NEXT, XDP_PASS.
    pub const fn pass(self) -> u32 {
        match self {
            Self::TcIngress | Self::TcEgress => u32::MAX,
            Self::Xdp => 2,
        }
    }

    /// The same in records.
    pub const fn in_records(self) -> ptp_common::record::Hook {
        match self {
            Self::TcIngress => ptp_common::record::Hook::TcIngress,
            Self::TcEgress => ptp_common::record::Hook::TcEgress,
            Self::Xdp => ptp_common::record::Hook::XdpIngress,
        }
    }
}

/// Length of a link header and the longest network header that the kernel looks at.
const HEADERS: usize = 14 + 40;

/// What a run did.
#[derive(Debug)]
pub struct Outcome {
    /// What the program returned.
    pub returned: u32,
    /// The frame afterwards.
    pub frame: Vec<u8>,
    /// The records that it wrote.
    pub records: Vec<Record>,
}

/// Runs the program of a hook once on a frame, with a context (`struct __sk_buff`, `struct xdp_md`)
/// if one is given. `None` where the kernel refuses the frame: BPF_PROG_TEST_RUN wants a link header,
/// and newer kernels want for TC also the network header that it announces.
///
/// # Errors
/// What else the kernel says.
pub fn run(
    programs: &mut Programs,
    hook: Hook,
    frame: &[u8],
    context: Option<&[u8]>,
) -> Result<Option<Outcome>, ProgramError> {
    let mut after = vec![0; frame.len() + 64];
    let result = test_run(
        programs,
        hook,
        TestRunOptions {
            data_in: Some(frame),
            data_out: Some(&mut after),
            ctx_in: context,
            ..TestRunOptions::default()
        },
    );
    let result = match result {
        Err(ProgramError::SyscallError(error))
            if hook != Hook::Xdp
                && frame.len() < HEADERS
                && error.io_error.raw_os_error() == Some(libc::EINVAL) =>
        {
            return Ok(None);
        }
        other => other?,
    };
    after.truncate(result.data_size_out as usize);
    Ok(Some(Outcome { returned: result.return_value, frame: after, records: drained(programs) }))
}

/// Runs the program of a hook `times` times on a frame and leaves the records in the ring.
///
/// # Errors
/// What the kernel says.
pub fn repeat(
    programs: &mut Programs,
    hook: Hook,
    frame: &[u8],
    times: u32,
) -> Result<(), ProgramError> {
    let options =
        TestRunOptions { data_in: Some(frame), repeat: times, ..TestRunOptions::default() };
    test_run(programs, hook, options).map(drop)
}

/// Everything that is in the ring.
pub fn drained(programs: &mut Programs) -> Vec<Record> {
    let mut records = Vec::new();
    programs.drain(|record| records.push(record));
    records
}

fn test_run(
    programs: &mut Programs,
    hook: Hook,
    options: TestRunOptions<'_>,
) -> Result<aya::programs::TestRunResult, ProgramError> {
    match programs.ebpf().program_mut(hook.program()) {
        Some(Program::SchedClassifier(program)) => SchedClassifier::test_run(program, options),
        Some(Program::Xdp(program)) => Xdp::test_run(program, options),
        _ => Err(ProgramError::NotLoaded),
    }
}
