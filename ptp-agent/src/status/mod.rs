//! `ptp-agent status`: what a running agent says of itself over its Unix socket, as text, as JSON, or
//! as a view of the terminal that is kept up to date.

mod model;
mod text;
mod unicast;
mod view;

use std::{
    io::{self, IsTerminal, Write},
    path::{Path, PathBuf},
    time::Duration,
};

use crate::publish::Format;
use crate::publish::{
    local::{self, StatusError, read_status},
    terminal::Screen,
};
use model::Status;

/// Between two looks of the view.
const REFRESH: Duration = Duration::from_millis(500);

/// Options of `status`.
#[derive(Clone, Debug, clap::Args)]
pub struct Args {
    /// The agent's socket; default: those of all agents that run here.
    #[arg(long, value_name = "PATH")]
    pub status_socket: Option<PathBuf>,
    /// Show it in the terminal, with the recent past, until q is pressed. With --json, one line per
    /// second.
    #[arg(short, long)]
    pub watch: bool,
    /// Only the agent of this interface.
    #[arg(short, long, value_name = "IFACE")]
    pub interface: Option<String>,
}

/// Why there is nothing to see.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// No agent, or none that answers.
    #[error(transparent)]
    Status(#[from] StatusError),
    /// The view is of one agent.
    #[error("several agents run here; choose one with --status-socket or --interface: {0}")]
    Several(String),
    /// None of the agents has it.
    #[error("no running agent has the interface {0}")]
    NoSuchInterface(String),
    /// The terminal, or what standard output is instead.
    #[error("cannot write to the terminal: {0}")]
    Terminal(#[from] io::Error),
}

impl Error {
    /// Whether the reader of standard output has gone, which is no failure.
    pub fn is_closed(&self) -> bool {
        matches!(self, Self::Terminal(error) if error.kind() == io::ErrorKind::BrokenPipe)
    }
}

/// Shows the status.
///
/// # Errors
/// [`Error`].
pub fn run(args: &Args, format: Format) -> Result<(), Error> {
    let paths = paths(args)?;
    if args.watch {
        let [path] = &paths[..] else {
            let names: Vec<_> = paths.iter().map(|path| path.display().to_string()).collect();
            return Err(Error::Several(names.join(", ")));
        };
        return if format.is_json() || !io::stdout().is_terminal() {
            follow(path, format)
        } else {
            watch(path)
        };
    }
    for (at, path) in paths.iter().enumerate() {
        if at > 0 && !format.is_json() {
            writeln!(io::stdout())?;
        }
        print(path, format)?;
    }
    Ok(())
}

fn paths(args: &Args) -> Result<Vec<PathBuf>, Error> {
    if let Some(path) = &args.status_socket {
        return Ok(vec![path.clone()]);
    }
    let mut paths = local::running()?;
    if let Some(interface) = &args.interface {
        paths.retain(|path| {
            read_status(path).is_ok_and(|value| Status::new(&value).has_interface(interface))
        });
        if paths.is_empty() {
            return Err(Error::NoSuchInterface(interface.clone()));
        }
    }
    Ok(paths)
}

fn print(path: &Path, format: Format) -> Result<(), Error> {
    let value = read_status(path)?;
    let text =
        if format.is_json() { format!("{value}\n") } else { text::page(&Status::new(&value)) };
    io::stdout().write_all(text.as_bytes())?;
    Ok(())
}

/// One line, or one page, per second, for pipes.
fn follow(path: &Path, format: Format) -> Result<(), Error> {
    loop {
        print(path, format)?;
        std::thread::sleep(Duration::from_secs(1));
    }
}

fn watch(path: &Path) -> Result<(), Error> {
    // The first answer decides whether there is anything to watch.
    let mut status = Status::new(&read_status(path)?);
    let mut screen = Screen::start()?;
    loop {
        screen.draw(|frame| view::draw(frame, &status))?;
        if screen.is_end_wanted(REFRESH)? {
            return Ok(());
        }
        match read_status(path) {
            Ok(value) => status = Status::new(&value),
            // Perhaps it comes back: a restart is worth watching.
            Err(error) => status.problem = Some(error.to_string()),
        }
    }
}
