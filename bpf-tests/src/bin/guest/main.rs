//! The first process of a guest of `cargo xtask test kernels`: sets up a bare system, runs the tests
//! named on the kernel's command line, and switches the guest off. It steers the system's clock, so it
//! refuses to run anywhere else. Everything is said on the console: tests as cargo's harness says it,
//! and facts and figures as JSON lines.
//!
//! `PTP_GUEST_TESTS` on that command line names groups of tests of its own and test programs of this
//! crate, by path and with arguments behind colons, with commas between.

mod capture;
mod cards;
mod clock;
mod follow;
mod grandmaster;
mod hardware;
mod machine;
mod phc;
mod pps;
mod report;
mod switch;
mod system;
mod wire;
mod world;

use std::process::{Command, ExitCode};

use libtest_mimic::{Arguments, ColorSetting, Trial};

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if let [command, line] = arguments.as_slice()
        && command == grandmaster::COMMAND
    {
        grandmaster::main(line);
        return ExitCode::SUCCESS;
    }
    if let Err(problem) = system::be_a_guest() {
        eprintln!("guest: {problem}");
        return ExitCode::FAILURE;
    }
    report::fact("release", &system::release());
    let wanted = std::env::var(system::TESTS).unwrap_or_default();
    for name in wanted.split(',').filter(|name| !name.is_empty()) {
        if name.starts_with('/') {
            run_program(name);
            report::tell();
            continue;
        }
        match group(name) {
            Some(trials) => {
                let arguments = Arguments {
                    test_threads: Some(1),
                    color: Some(ColorSetting::Never),
                    ..Arguments::default()
                };
                // What failed is in its output.
                let _ = libtest_mimic::run(&arguments, trials);
            }
            None => println!("test {name} ... FAILED\ntest result: FAILED. 0 passed; 1 failed"),
        }
        report::tell();
    }
    println!("guest: end");
    system::power_off()
}

fn group(name: &str) -> Option<Vec<Trial>> {
    Some(match name {
        "capture" => capture::trials(),
        "follow" => follow::trials(),
        "clock" => clock::trials(),
        "machine" => machine::trials(),
        "phc" => phc::trials(),
        "nic" => phc::netlink_trials(),
        "pps" => pps::trials(),
        "cards" => cards::trials(),
        "hardware" => hardware::trials(),
        "serve_on_wire" => wire::server(),
        "follow_on_wire" => wire::client(),
        "grandmaster_of_switch" => switch::grandmaster(),
        "switch" => switch::switch(),
        "client_of_switch" => switch::client(),
        _ => return None,
    })
}

/// A test of this crate that panics if its claim does not hold.
fn trial(name: impl Into<String>, claim: impl FnOnce() + Send + 'static) -> Trial {
    Trial::test(name.into(), move || {
        claim();
        Ok(())
    })
}

fn run_program(name: &str) {
    let mut words = name.split(':');
    let program = words.next().unwrap_or_default();
    let status = Command::new(program).args(["--test-threads=1"]).args(words).status();
    match status {
        // Its tests that failed are in its output.
        Ok(status) if status.code() == Some(0) || status.code() == Some(101) => {
            let name = program.rsplit('/').next().unwrap_or_default();
            report::fact(name, if status.success() { "yes" } else { "no" });
        }
        other => println!(
            "test {program} ... FAILED\ntest result: FAILED. 0 passed; 1 failed; {other:?}"
        ),
    }
}
