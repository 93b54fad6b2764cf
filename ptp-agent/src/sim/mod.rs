//! The simulator: the real engine and servo in virtual time, on oscillators, links and hosts that a
//! scenario describes and a seed makes repeatable, so that the true error is known exactly and a day
//! takes seconds.

use std::{
    io::{self, BufWriter, Write as _},
    path::{Path, PathBuf},
    process::ExitCode,
};

use anyhow::Context;

pub use report::Report;
pub use scenario::{Scenario, ScenarioError};
pub use world::{Trusted, Truth, network};

use crate::publish::Format;
use crate::servo;

pub mod bench;
pub mod events;
pub mod faults;
pub mod kernel;
mod noise;
mod oscillator;
mod parallel;
pub mod report;
pub mod scenario;
pub mod stability;
pub mod suite;
mod world;

/// Runs a scenario to its end.
pub fn run(scenario: &Scenario) -> Report {
    Report::new(scenario, course(scenario))
}

fn course(scenario: &Scenario) -> world::Course {
    let servo = servo::build(&scenario.servo, &scenario.servo_settings.options());
    world::World::new(scenario, servo).run(scenario)
}

/// `lab --simulate`: runs the scenario in `path`, with another servo and another seed where they are
/// given, prints the result as text or as JSON lines (one for each sample, the summary last), and writes
/// an HTML page if asked. The exit code is 0 when the
/// clock converged, 1 when it did not, 2 when the scenario cannot be used (the problem and its place
/// on standard error; nothing is written then).
///
/// # Errors
/// When the result cannot be written.
pub fn command(
    path: &Path,
    servo: Option<servo::Choice>,
    seed: Option<u64>,
    format: Format,
    html: Option<PathBuf>,
) -> anyhow::Result<ExitCode> {
    let mut scenario = match Scenario::read(path) {
        Ok(scenario) => scenario,
        Err(error) => {
            eprintln!("ptp-agent: {:#}", anyhow::Error::from(error));
            return Ok(ExitCode::from(2));
        }
    };
    if let Some(servo) = servo {
        scenario.servo = servo;
    }
    if let Some(seed) = seed {
        scenario.seed = seed;
    }
    let report = run(&scenario);
    if let Some(html) = html {
        report
            .page()?
            .write(&html)
            .with_context(|| format!("cannot write the report to {}", html.display()))?;
    }
    let mut stdout = BufWriter::new(io::stdout().lock());
    let written = if format.is_json() {
        report.write_json(&mut stdout)
    } else {
        stdout.write_all(report.text().as_bytes()).and_then(|()| stdout.flush())
    };
    match written {
        // `head` has seen enough.
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => {}
        written => written.context("cannot write the result")?,
    }
    Ok(if report.summary.converged_s.is_some() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
