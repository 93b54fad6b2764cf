//! `cargo xtask demo`: the project's main job from a fresh checkout, which is the release binary's
//! `lab`. Network namespaces and BPF programs need root, so for another user it goes through sudo.

use std::{
    ffi::OsString,
    os::unix::process::CommandExt,
    process::{self, ExitCode},
};

use anyhow::{Context, Result, bail};

use crate::process::{cargo_program, find, is_root, target_directory, workspace};

#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// Arguments of `ptp-agent lab`
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    lab: Vec<OsString>,
}

pub(crate) fn run(arguments: &Arguments) -> Result<ExitCode> {
    let status = process::Command::new(cargo_program())
        .args(["build", "--release", "--package", "ptp-agent", "--bin", "ptp-agent"])
        .current_dir(workspace())
        .status()
        .context("cannot start cargo")?;
    if !status.success() {
        bail!("the release binary could not be built ({status})");
    }
    let agent = target_directory().join("release/ptp-agent");
    let mut command = if is_root() {
        process::Command::new(&agent)
    } else if let Some(sudo) = find("sudo") {
        eprintln!("Network namespaces and BPF programs need root: running the lab through sudo.");
        let mut command = process::Command::new(sudo);
        command.arg(&agent);
        command
    } else {
        bail!(
            "network namespaces and BPF programs need root, and there is no sudo here; \
             as root, run: {} lab",
            agent.display()
        );
    };
    // Replacing this process lets the lab have the terminal and its signals for itself.
    let error = command.arg("lab").args(&arguments.lab).exec();
    Err(error).with_context(|| format!("cannot start {command:?}"))
}
