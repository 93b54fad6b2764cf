//! A node of clknetsim's simulated network that takes ptp4l's place: engine, servo and system clock of the agent,
//! driven in the simulator's time. It is the second driver of the sans-I/O core, beside `ptp_agent::agent::drive`,
//! and made for linuxptp's test suite, which stays outside of this project. It has to be linked statically: the
//! suite starts every program with a library before the C library, and that would be a node of its own.

mod clock;
mod drive;
mod keys;
mod links;
mod node;
mod relay;
mod settings;
mod simulator;
mod words;

use std::{env, path::PathBuf, process::ExitCode};

use anyhow::{Context, Result};
use settings::Arguments;
use simulator::Simulator;

/// 2010-01-01, which is the simulator's own default.
const START_DATE: u64 = 1_262_304_000;

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("sim-node: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<()> {
    let settings = Arguments::read(env::args().skip(1))?.settings()?;
    let path = env::var_os("CLKNETSIM_SOCKET").map_or("clknetsim.sock".into(), PathBuf::from);
    let node = number("CLKNETSIM_NODE")?.context("CLKNETSIM_NODE is not set")?;
    let epoch_s = number("CLKNETSIM_START_DATE")?.unwrap_or(START_DATE);
    let unix_subnet =
        number::<u32>("CLKNETSIM_UNIX_SUBNET")?.map(|subnet| subnet.saturating_sub(1));
    let simulator = Simulator::register(&path, node)
        .with_context(|| format!("cannot reach the simulator at {}", path.display()))?;
    node::run(simulator, &settings, node::Whereabouts { node, epoch_s, unix_subnet })
        .context("the simulation")
}

fn number<T: std::str::FromStr>(name: &str) -> Result<Option<T>>
where
    T::Err: std::error::Error + Send + Sync + 'static,
{
    let Ok(text) = env::var(name) else { return Ok(None) };
    text.parse().map(Some).with_context(|| format!("{name} is {text:?}, and no number"))
}
