//! `ptp-agent doctor`: is this host fit for precise time from software stamps, and if not, what to
//! do? [`read`] looks and changes nothing; [`judge`] turns what was seen into verdicts, without
//! touching the host, so that verdicts about other hosts can be tested on this one.

mod check;
mod facts;
mod judge;
mod read;

use std::{
    io::{self, IsTerminal as _, Write as _},
    process::ExitCode,
};

use anyhow::Context as _;

use crate::publish::Format;

pub use check::{Check, Status, Summary};

/// Arguments of the command.
#[derive(Clone, Debug, Default, clap::Args)]
pub struct Args {
    /// Interface; several are allowed. Without, only the host is looked at.
    #[arg(short, long, value_name = "IFACE", num_args = 1..)]
    pub interface: Vec<String>,
    /// Attach XDP in the driver too. Some drivers restart their queues for it, so that packets may be
    /// lost for a moment; without, it is only loaded.
    #[arg(long = "try")]
    pub try_xdp: bool,
    /// Listen for grandmasters on the interfaces for so long, on every transport and in every domain.
    /// UDP ports 319 and 320 must be free. Twice the announce interval or more: 5 does for most.
    #[arg(long, value_name = "SECONDS", requires = "interface", value_parser = clap::value_parser!(u16).range(1..=300))]
    pub listen: Option<u16>,
    /// What could a transparent clock on this bridge gain? Measures how long PTP messages are inside, and
    /// changes none.
    #[arg(long, value_name = "BRIDGE")]
    pub bridge: Option<String>,
    /// For so long that is measured (default 5). Without --bridge: watch the interfaces' interrupts for so long, how
    /// far the stamps are from them and how many packets a poll brings.
    #[arg(long, value_name = "SECONDS", value_parser = clap::value_parser!(u16).range(1..=300))]
    pub measure: Option<u16>,
}

/// Looks at the host and the interfaces.
///
/// The stamping programs are loaded for real, and attached to the interfaces for a moment.
pub fn examine(args: &Args) -> Vec<Check> {
    judge::all(&read::all(args))
}

/// The command: prints all checks.
///
/// # Errors
/// What writing to standard output says.
pub fn run(args: &Args, format: Format, missing: ExitCode) -> anyhow::Result<ExitCode> {
    if let Some(seconds) = args.listen
        && io::stderr().is_terminal()
    {
        let _ = writeln!(io::stderr(), "listening for grandmasters for {seconds} s ...");
    }
    let checks = examine(args);
    let mut out = io::BufWriter::new(io::stdout().lock());
    let write = if format.is_json() { check::write_json } else { check::write_text };
    match write(&checks, &mut out).and_then(|()| out.flush()) {
        // The reader had enough: not our failure.
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => {}
        written => written.context("cannot write to standard output")?,
    }
    Ok(if Summary::of(&checks).fail == 0 { ExitCode::SUCCESS } else { missing })
}
