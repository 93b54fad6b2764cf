//! What clocks are worth that pass the time on. `roles [chain|ring|ports|second]... [--seconds S] [--rounds N] [--changes N]
//! [--clocks N] [--with OPTION]`, all four if none is named, one line of JSON for each figure. `chain`: ptp4l's client behind so many (4) boundary
//! clocks of ours (`--with` gives them an option more), and at the same time behind as many `ptp4l -S`, each of which steers a clock of its own
//! (`examples/own_clock.rs`). `ring`: three contenders in a ring, two of ours and one ptp4l, whose grandmaster is
//! killed again and again. `ports`: processor time of a boundary clock with 2, 8 and 32 ports. `second`: statime as boundary clock
//! and as the other end of a peer delay. All clocks of the machine are one clock, which nobody touches: it is the truth.
//! Needs root and linuxptp; `second` needs statime (`cargo xtask setup --peers`), and is left out without it.

mod chain;
mod ports;
mod ring;
mod second;

use std::{
    env,
    net::Ipv4Addr,
    path::PathBuf,
    process::{Command, ExitCode},
    time::Duration,
};

use bpf_tests::{agent::Agent, ptp4l::Ptp4l};
use ptp_agent::lab::netns::{Namespace, NetnsError, veth};
use serde_json::{Value, json};

/// How long anything may take to begin.
const PATIENCE: Duration = Duration::from_secs(60);
/// Four Announce and eight Sync a second on all clocks, so that nothing takes long.
const RATES: &str = "logAnnounceInterval -2\nlogSyncInterval -3\nlogMinDelayReqInterval -3\n\
                     logMinPdelayReqInterval -3\n";
const OWN_RATES: [&str; 3] =
    ["--log-announce-interval=-2", "--log-sync-interval=-3", "--log-min-delay-req-interval=-3"];

/// What is measured, and for how long.
struct Options {
    seconds: Duration,
    rounds: usize,
    changes: usize,
    clocks: u8,
    /// More options of our boundary clocks in the chain.
    with: Vec<String>,
}

type Measured = Result<(), String>;

fn main() -> ExitCode {
    match measure(env::args().skip(1)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(reason) => {
            eprintln!("roles: {reason}");
            ExitCode::FAILURE
        }
    }
}

fn measure(mut arguments: impl Iterator<Item = String>) -> Measured {
    let mut options = Options {
        seconds: Duration::from_secs(60),
        rounds: 3,
        changes: 100,
        clocks: 4,
        with: Vec::new(),
    };
    let mut wanted = Vec::new();
    while let Some(argument) = arguments.next() {
        if argument == "--with" {
            options.with.extend(arguments.next());
            continue;
        }
        let mut number = || -> Result<u8, String> {
            let value = arguments.next().unwrap_or_default();
            value.parse().map_err(|_| format!("{argument} needs a number up to 255"))
        };
        match argument.as_str() {
            "--seconds" => options.seconds = Duration::from_secs(number()?.into()),
            "--rounds" => options.rounds = number()?.into(),
            "--changes" => options.changes = number()?.into(),
            "--clocks" => options.clocks = number()?,
            "chain" | "ring" | "ports" | "second" => wanted.push(argument),
            _ => return Err(format!("{argument:?} is none of chain, ring, ports, second")),
        }
    }
    let is_wanted =
        |name: &str| wanted.is_empty() || wanted.iter().any(|argument| argument == name);
    if is_wanted("chain") {
        chain::measure(&options)?;
    }
    if is_wanted("ring") {
        ring::measure(&options)?;
    }
    if is_wanted("ports") {
        ports::measure(&options)?;
    }
    if is_wanted("second") {
        second::measure(&options)?;
    }
    Ok(())
}

/// A boundary clock of ours on these interfaces.
fn boundary(namespace: &Namespace, interfaces: &[&str], more: &[&str]) -> Agent {
    let mut arguments = vec!["run", "--role", "auto", "--status-socket", "none", "-i"];
    arguments.extend(interfaces);
    arguments.extend(OWN_RATES);
    arguments.extend(more);
    Agent::start_only(namespace, &arguments)
}

/// Waits until a clock of ours follows somebody.
fn follows(agent: &Agent, mark: usize) {
    agent.wait_for(mark, PATIENCE, "time_receiver", |line| {
        (line.text.contains("port state") && line.text.contains("to=\"time_receiver\""))
            .then_some(())
    });
}

/// ptp4l as grandmaster of class 6.
fn grandmaster(namespace: &Namespace, interfaces: &[&str]) -> Result<Ptp4l, String> {
    Ptp4l::grandmaster(namespace, interfaces, &[RATES, "clockClass 6\n"])
}

/// The library that gives a ptp4l its own clock: built by whoever builds this program.
fn own_clock() -> Result<PathBuf, String> {
    let program = env::current_exe().map_err(|error| error.to_string())?;
    let target = program.parent().ok_or("this program is nowhere")?;
    let library = target.join("examples/libown_clock.so");
    if !library.is_file() {
        let mut cargo = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
        cargo.args(["build", "--quiet", "--package", "bpf-tests", "--example", "own_clock"]);
        if !cfg!(debug_assertions) {
            cargo.arg("--release");
        }
        let built = cargo.current_dir(env!("CARGO_MANIFEST_DIR")).status();
        if !built.is_ok_and(|status| status.success()) || !library.is_file() {
            return Err("cannot build the example own_clock".to_owned());
        }
    }
    Ok(library)
}

/// A wire between two namespaces: 10.`net`.`number`.1 at the end of the first, .2 at the other.
fn wire(
    (first, left): (&Namespace, &str),
    (second, right): (&Namespace, &str),
    [net, number]: [u8; 2],
) -> Result<(), String> {
    let needed = |error: NetnsError| error.to_string();
    veth(first, left, second, right).map_err(needed)?;
    for (node, interface, host) in [(first, left, 1), (second, right, 2)] {
        let address = Ipv4Addr::new(10, net, number, host);
        node.add_address(interface, address.into(), 24).map_err(needed)?;
    }
    Ok(())
}

fn namespace() -> Result<Namespace, String> {
    Namespace::new().map_err(|error| error.to_string())
}

fn tell(value: &Value) {
    println!("{value}");
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}

/// Root of the mean square.
fn rms(values: &[f64]) -> f64 {
    (values.iter().map(|value| value * value).sum::<f64>() / values.len() as f64).sqrt()
}

/// Figures of errors in nanoseconds; `trimmed_rms`: without the outermost hundredth at either end.
fn figures(mut errors: Vec<f64>) -> Value {
    errors.sort_by(f64::total_cmp);
    let cut = errors.len() / 100;
    let kept = errors.get(cut..errors.len() - cut).unwrap_or_default();
    json!({
        "n": errors.len(),
        "rms": rms(&errors),
        "trimmed_rms": rms(kept),
        "mean": errors.iter().sum::<f64>() / errors.len() as f64,
        "median_abs": median(errors.iter().map(|error| error.abs()).collect()),
        "max_abs": errors.iter().map(|error| error.abs()).fold(0.0, f64::max),
    })
}
