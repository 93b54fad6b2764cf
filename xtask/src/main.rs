//! `cargo xtask <command>`: every command that a developer of this project needs, in one place and
//! in Rust, so that no shell scripts grow beside the code. This file is the command line; each
//! command has a module of its own.

mod agent;
mod apt;
mod asking;
mod conformance;
mod ebpf;
mod fuzz;
mod kernels;
mod machine;
mod package;
mod process;
mod setup;
mod suite;
#[cfg(test)]
mod tidy;
mod truth;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// The developer's commands of ptp-agent.
#[derive(Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask")]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Install what building and testing need, and only what is missing
    Setup(setup::Arguments),
    /// Build the release binary and run `ptp-agent lab` with the arguments given
    Demo(agent::Arguments),
    /// Run the checks and tests, all or the groups named
    Test(suite::Arguments),
    /// Run the fuzz targets for longer, and say what that reached
    Fuzz(fuzz::Arguments),
    /// Build the Debian package, with a static binary
    Package(package::Arguments),
    /// Draw the pictures of the user guide anew, from a real run
    Pictures,
    /// Measure, with the release binary
    #[command(subcommand)]
    Bench(agent::Bench),
    /// The kernel programs: rebuild the committed object, or check it against the source
    #[command(subcommand)]
    Ebpf(ebpf::Command),
}

fn main() -> ExitCode {
    let result = match Cli::parse().command {
        Command::Setup(arguments) => setup::run(&arguments),
        Command::Demo(arguments) => agent::demo(&arguments),
        Command::Test(arguments) => suite::run(&arguments),
        Command::Fuzz(arguments) => fuzz::run(&arguments),
        Command::Package(arguments) => package::run(&arguments),
        Command::Pictures => agent::pictures(),
        Command::Bench(command) => agent::bench(&command),
        Command::Ebpf(command) => ebpf::run(&command),
    };
    result.unwrap_or_else(|error| {
        eprintln!("error: {error:#}");
        ExitCode::FAILURE
    })
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_well_formed() {
        Cli::command().debug_assert();
    }
}
