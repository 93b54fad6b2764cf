//! `cargo xtask demo`, `cargo xtask bench` and `cargo xtask pictures`: the agent, run from a checkout. What
//! they share is that the release binary is built first and then run as root, through sudo if
//! necessary, because network namespaces and BPF programs need it.

use std::{
    ffi::OsString,
    fs,
    os::unix::process::CommandExt,
    path::Path,
    process::{self, ExitCode},
};

use anyhow::{Context, Result, bail};

use crate::{
    asking, conformance,
    package::{self, Built},
    process::{cargo, cargo_program, command, find, is_root, target_directory, workspace},
    truth,
};

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
    /// What the agent takes of a host, beside ptp4l: size, start, memory, processor time, scrapes
    Agent(Arguments),
    /// Random faults and attacks in virtual time: does the bound hold, does the clock recover
    Faults(Arguments),
    /// What the servos reach where the truth is known, beside the targets (`ptp-agent bench servo`)
    Servo(Arguments),
    /// How many Delay_Req are answered in a flood, and the honest client's among them: by the kernel, by the agent, by
    /// ptp4l; see docs/answers.md
    Answers(Arguments),
    /// How near to the truth receive stamps are, of ptp4l, of the agent and of the kernel's answers at TC and by XDP, and the
    /// client's true error against each; see docs/answers.md
    Receipt(Arguments),
    /// How many Delay_Req a second the kernel answers at the most, by XDP and at TC; see docs/answers.md
    Ceiling(Arguments),
    /// How many exchanges of CSPTP and SPTP are answered whole in a flood, by the kernel and by the agent; see
    /// docs/csptp.md
    Exchanges(Arguments),
    /// How many clients one server serves by unicast, and how late; see docs/unicast.md
    Unicast(Arguments),
    /// How true the time is that is asked for by CSPTP and SPTP, beside end to end in the same run; see docs/csptp.md
    Asking(asking::Arguments),
    /// What attackers reach, with ptp4l beside the agent: displacement, bound, alarm, recovery
    Attacks(Arguments),
    /// What authentication costs a message, and whether it changes the error of time: a grandmaster and a follower with
    /// keys and two without, at once; see docs/authentication.md
    Authentication(Arguments),
    /// What clocks are worth that pass the time on: a chain of boundary clocks beside ptp4l's, grandmasters killed in a ring,
    /// processor time by the number of ports, statime as second opinion; see docs/roles.md
    Roles(Arguments),
    /// What many hosts cost and can order: `rules` (a Prometheus with 500 simulated agents) or `orders` (this agent,
    /// ptp4l and chrony); see docs/fleet.md
    Fleet(Arguments),
    /// gPTP three relays deep behind ptp4l with its gPTP.cfg, by both ways of passing the time on: errors of each hop, and how
    /// often links have ceased to be capable, in so many seconds (600); see docs/gptp.md
    Gptp(Arguments),
    /// NTP beside chronyd: `clients`, `servers`, `witness` or `rate`, or all of them; see docs/ntp.md
    Ntp(Arguments),
    /// A million spans through `ptp-agent trace`, and the laboratory for traces; see docs/traces.md
    Traces(Arguments),
    /// What a transparent clock in software is worth behind loaded bridges, and what it costs: without it and
    /// with it in the same run
    Transparent(Arguments),
    /// How true the agent is against other grandmasters, with ptp4l's client beside it; writes the tables
    /// of docs/truth.md
    Truth(truth::Arguments),
    /// linuxptp's own test suite, which the developer has, with this project's nodes in ptp4l's place: passed or not,
    /// and errors over ptp4l's
    Suite(conformance::Arguments),
}

pub(crate) fn demo(arguments: &Arguments) -> Result<ExitCode> {
    run(&["lab"], arguments)
}

pub(crate) fn bench(bench: &Bench) -> Result<ExitCode> {
    match bench {
        Bench::Hooks(arguments) => run(&["bench"], arguments),
        Bench::Agent(arguments) => footprint(arguments),
        Bench::Answers(arguments) => {
            with_test_program("answers", &package::binary()?, &arguments.arguments)
        }
        Bench::Receipt(arguments) => {
            with_test_program("receipt", &package::binary()?, &arguments.arguments)
        }
        Bench::Ceiling(arguments) => {
            with_test_program("ceiling", &package::binary()?, &arguments.arguments)
        }
        Bench::Exchanges(arguments) => {
            with_test_program("exchanges", &package::binary()?, &arguments.arguments)
        }
        Bench::Unicast(arguments) => {
            with_test_program("unicast", &package::binary()?, &arguments.arguments)
        }
        Bench::Asking(arguments) => asking::run(arguments),
        Bench::Attacks(arguments) => {
            with_test_program("attacks", &package::binary()?, &arguments.arguments)
        }
        Bench::Authentication(arguments) => {
            with_test_program("authenticated", &package::binary()?, &arguments.arguments)
        }
        Bench::Faults(arguments) => {
            let run = ["run", "--release", "--package", "ptp-agent", "--example", "faults", "--"];
            let run = run.map(OsString::from).into_iter().chain(arguments.arguments.clone());
            let is_fine = cargo(run).stream(|_| ())?.success();
            Ok(if is_fine { ExitCode::SUCCESS } else { ExitCode::FAILURE })
        }
        Bench::Servo(arguments) => run(&["bench", "servo"], arguments),
        Bench::Roles(arguments) => {
            // What the program looks for beside itself.
            let library = cargo(["build", "--package", "bpf-tests", "--example", "own_clock"]);
            if !library.stream(|_| ())?.success() {
                bail!("the example own_clock could not be built");
            }
            with_test_program("roles", &package::binary()?, &arguments.arguments)
        }
        Bench::Fleet(arguments) => {
            with_test_program("fleet", &package::binary()?, &arguments.arguments)
        }
        Bench::Gptp(arguments) => {
            with_test_program("gptp", &package::binary()?, &arguments.arguments)
        }
        Bench::Ntp(arguments) => {
            with_test_program("ntp", &package::binary()?, &arguments.arguments)
        }
        Bench::Traces(arguments) => traces(arguments),
        Bench::Transparent(arguments) => {
            let binary = package::binary()?;
            with_test_program("transparent", &binary, &arguments.arguments)
        }
        Bench::Truth(arguments) => truth::run(arguments),
        Bench::Suite(arguments) => conformance::run(arguments),
    }
}

/// Figures of the package as well as those of the running agent.
fn footprint(arguments: &Arguments) -> Result<ExitCode> {
    let Built { package, binary, .. } = package::build()?;
    let size = fs::metadata(&package)?.len();
    println!(r#"{{"event":"bench","name":"package_size","unit":"B","value":{size}}}"#);
    let unit = workspace().join("docs/deploy/ptp-agent.service").into_os_string();
    let options = ["security", "--offline=true", "--no-pager"].map(OsString::from);
    match command("systemd-analyze", options.into_iter().chain([unit])).output() {
        Some(text) => println!("{}", text.lines().last().unwrap_or_default()),
        None => println!("systemd-analyze, which rates the unit, is not installed"),
    }
    with_test_program("footprint", &binary, &arguments.arguments)
}

/// Makes a million spans, lets the release binary judge them, and then the laboratory's own.
fn traces(arguments: &Arguments) -> Result<ExitCode> {
    const SPANS: &str = "1000000";
    const HOSTS: usize = 5;
    let directory = target_directory().join("traces");
    fs::create_dir_all(&directory)?;
    let make = ["run", "--release", "--package", "ptp-trace", "--example", "spans", "--", SPANS];
    let mut make: Vec<OsString> = make.map(OsString::from).into();
    make.extend([HOSTS.to_string().into(), directory.clone().into_os_string()]);
    if !cargo(make).stream(|_| ())?.success() {
        bail!("the spans could not be made");
    }
    let binary = package::binary()?;
    for (file, more) in [("spans.json", None), ("spans.pb", None), ("spans.pb", Some("out.pb"))] {
        let mut judge = process::Command::new(&binary);
        judge.arg("trace").arg(directory.join(file)).stdout(process::Stdio::null());
        for host in 0..HOSTS {
            judge.arg("--readings").arg(directory.join(format!("host{host}.jsonl")));
        }
        if let Some(output) = more {
            judge.arg("--output").arg(directory.join(output));
        }
        let begin = std::time::Instant::now();
        if !judge.status()?.success() {
            bail!("{file} could not be judged");
        }
        let seconds = begin.elapsed().as_secs_f64();
        let more = more.unwrap_or("nothing");
        println!(
            r#"{{"event":"bench","name":"{SPANS} spans of {file}, {more} written","unit":"s","value":{seconds}}}"#
        );
    }
    fs::remove_dir_all(&directory)?;
    run(&["lab", "--trace"], arguments)
}

/// Draws the guide's pictures anew.
pub(crate) fn pictures() -> Result<ExitCode> {
    let binary = package::binary()?;
    with_test_program("pictures", &binary, &["docs/guide/pictures".into()])
}

/// Runs a program of `bpf-tests`, which finds the agent's binary where it is told.
fn with_test_program(name: &str, binary: &Path, arguments: &[OsString]) -> Result<ExitCode> {
    if !is_root() {
        bail!("network namespaces and BPF programs need root: run this as root");
    }
    let build = cargo(["build", "--workspace", "--bin", name]);
    if !build.stream(|_| ())?.success() {
        bail!("{name} could not be built");
    }
    let program = target_directory().join("debug").join(name);
    let error = process::Command::new(&program)
        .args(arguments)
        .env("PTP_AGENT_BINARY", binary)
        .current_dir(workspace())
        .exec();
    Err(error).with_context(|| format!("cannot start {}", program.display()))
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
