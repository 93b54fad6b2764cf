//! `cargo xtask demo` and `cargo xtask bench`: commands of the agent, run from a checkout. What they
//! share is that the release binary is built first and then run as root, through sudo if necessary,
//! because network namespaces and BPF programs need it.

use std::{
    ffi::OsString,
    os::unix::process::CommandExt,
    process::{self, ExitCode},
};

use anyhow::{Context, Result, bail};

use crate::process::{cargo_program, find, is_root, target_directory, workspace};

#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// Passed on to the agent
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    arguments: Vec<OsString>,
}

/// What there is to measure.
#[derive(clap::Subcommand)]
pub(crate) enum Bench {
    /// What the stamps cost: the clock calls inside eBPF, and each hook (`ptp-agent bench`)
    Hooks(Arguments),
    /// What the servos reach where the truth is known, beside the targets (`ptp-agent bench servo`)
    Servo(Arguments),
}

pub(crate) fn demo(arguments: &Arguments) -> Result<ExitCode> {
    run(&["lab"], arguments)
}

pub(crate) fn bench(bench: &Bench) -> Result<ExitCode> {
    match bench {
        Bench::Hooks(arguments) => run(&["bench"], arguments),
        Bench::Servo(arguments) => run(&["bench", "servo"], arguments),
    }
}

fn run(command: &[&str], arguments: &Arguments) -> Result<ExitCode> {
    let status = process::Command::new(cargo_program())
        .args(["build", "--release", "--package", "ptp-agent", "--bin", "ptp-agent"])
        .current_dir(workspace())
        .status()
        .context("cannot start cargo")?;
    if !status.success() {
        bail!("the release binary could not be built ({status})");
    }
    let agent = target_directory().join("release/ptp-agent");
    let mut process = if is_root() {
        process::Command::new(&agent)
    } else if let Some(sudo) = find("sudo") {
        eprintln!("Network namespaces and BPF programs need root: running the agent through sudo.");
        let mut process = process::Command::new(sudo);
        process.arg(&agent);
        process
    } else {
        bail!(
            "network namespaces and BPF programs need root, and there is no sudo here; \
             as root, run: {} {}",
            agent.display(),
            command.join(" ")
        );
    };
    // Replacing this process lets the agent have the terminal and its signals for itself.
    let error = process.args(command).args(&arguments.arguments).exec();
    Err(error).with_context(|| format!("cannot start {process:?}"))
}
