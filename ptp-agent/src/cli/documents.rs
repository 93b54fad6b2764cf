//! `ptp-agent generate`: manual pages and shell completions, made of the command line's own texts.
//! Hidden, because it is for those who make packages; in the program itself, so that what is installed
//! is of the same build.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use anyhow::Context;
use clap::{Command, CommandFactory, Subcommand};
use clap_complete::Shell;
use clap_mangen::{
    Man,
    roff::{Roff, roman},
};

use super::args::Cli;
use crate::sys::own_file;

/// What is made.
#[derive(Debug, Subcommand)]
pub(super) enum Generate {
    /// Manual pages, one per command, into a directory.
    Man {
        /// The directory; it is made if need be.
        directory: PathBuf,
    },
    /// What a shell needs to complete commands and options, to standard output.
    Completions {
        /// Which shell.
        shell: Shell,
    },
}

/// Makes it.
///
/// # Errors
/// A file that cannot be written.
pub(super) fn generate(what: &Generate) -> anyhow::Result<()> {
    let mut command = Cli::command();
    match what {
        Generate::Completions { shell } => {
            clap_complete::generate(*shell, &mut command, "ptp-agent", &mut io::stdout());
        }
        Generate::Man { directory } => {
            fs::create_dir_all(directory)
                .with_context(|| format!("cannot make {}", directory.display()))?;
            // Gives each command its whole name, `ptp-agent run`, and the global options.
            command.build();
            pages(&command, "ptp-agent", directory)?;
        }
    }
    Ok(())
}

/// The page of a command and those of its subcommands: `ptp-agent-bench-servo.8`.
fn pages(command: &Command, name: &str, directory: &Path) -> anyhow::Result<()> {
    let path = directory.join(format!("{name}.8"));
    own_file::write(&path, &page(command, name))
        .with_context(|| format!("cannot write {}", path.display()))?;
    for below in command.get_subcommands().filter(|it| !it.is_hide_set()) {
        if below.get_name() != "help" {
            pages(below, &format!("{name}-{}", below.get_name()), directory)?;
        }
    }
    Ok(())
}

fn page(command: &Command, name: &str) -> Vec<u8> {
    let man = Man::new(command.clone()).section("8").manual("ptp-agent").date("");
    let mut page = Vec::new();
    man.render(&mut page).expect("memory can be written to");
    let mut more = Roff::new();
    if name == "ptp-agent" {
        more.control("SH", ["FILES"]);
        for (file, is) in [
            ("/etc/ptp-agent.toml", "configuration of the service, each key explained"),
            ("/run/ptp-agent/", "sockets for ptp-agent status"),
            ("/var/lib/ptp-agent/", "what is kept from one run to the next"),
            ("/usr/share/doc/ptp-agent/", "guide, a page per alarm, alert rules, dashboard"),
        ] {
            more.control("TP", []).text([roman(file)]).text([roman(is)]);
        }
        more.control("SH", ["EXIT STATUS"]).text([roman(
            "0 success, 1 failed, 2 bad usage or configuration, 3 the host lacks something that is \
             needed (named in the message).",
        )]);
    }
    more.to_writer(&mut page).expect("memory can be written to");
    page
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_command_has_a_page_with_its_options() {
        let directory = tempfile::tempdir().unwrap();
        generate(&Generate::Man { directory: directory.path().to_owned() }).unwrap();
        let read = |name: &str| fs::read_to_string(directory.path().join(name)).unwrap();
        assert!(read("ptp-agent.8").contains("/etc/ptp\\-agent.toml"), "{}", read("ptp-agent.8"));
        let run = read("ptp-agent-run.8");
        for word in ["\\-\\-clock", "\\-\\-config", "CAP_BPF"] {
            assert!(run.contains(word), "{word}\n{run}");
        }
        for name in Cli::command().get_subcommands().filter(|it| !it.is_hide_set()) {
            assert!(read(&format!("ptp-agent-{}.8", name.get_name())).starts_with(".ie"));
        }
        assert!(directory.path().join("ptp-agent-config-check.8").is_file());
        assert!(!directory.path().join("ptp-agent-generate.8").exists());
    }
}
