//! Sources of time in virtual time: how long it takes until two servers of NTP find a grandmaster that goes wrong, that they
//! find none in a day in which it does not, and what three servers with delays as on the internet are worth, of which one
//! lies, beside the algorithm of RFC 5905 on the same exchanges.
//!
//! `cargo run --release -p ptp-engine --example ntp_sources -- [witness|sizes|quiet|servers [FROM-TO]]`, where FROM and TO are seeds.
//! Those that are usual were never looked at while the algorithms were made.

mod cases;
mod rfc5905;
mod world;

use std::ops::RangeInclusive;

use cases::{CAMPUS, Found, INTERNET, LOCAL, Network, SWITCH, servers, witness};
use ptp_engine::ntp::Poll;
use world::Error;

const SEEDS: RangeInclusive<u64> = 9..=16;
const HOUR: i64 = 3_600;
const MS: i64 = 1_000_000;

/// How often witnesses are asked, and how long it takes until it is known what is usual.
const POLLS: [(&str, Poll, i64); 2] = [
    ("8 to 64 s", Poll { min: 3, max: 6 }, 2 * HOUR),
    ("64 to 1024 s", Poll { min: 6, max: 10 }, 12 * HOUR),
];

/// Those that are asked for, or the usual ones.
fn seeds() -> RangeInclusive<u64> {
    let asked = std::env::args().nth(2);
    let asked = asked.as_ref().and_then(|text| {
        let (from, to) = text.split_once('-')?;
        Some(from.parse().ok()?..=to.parse().ok()?)
    });
    asked.unwrap_or(SEEDS)
}

fn median(mut values: Vec<f64>) -> Option<f64> {
    values.sort_unstable_by(f64::total_cmp);
    values.get(values.len() / 2).copied()
}

/// Median and longest, and in how many of all.
fn told(all: &[Found], of: impl Fn(&Found) -> Option<f64>) -> String {
    let found: Vec<f64> = all.iter().filter_map(of).collect();
    let longest = found.iter().copied().fold(0.0, f64::max);
    match median(found.clone()) {
        Some(median) if found.len() == all.len() => format!("{median:.0} s ({longest:.0})"),
        Some(median) => format!("{median:.0} s, {} of {}", found.len(), all.len()),
        None => "-".to_owned(),
    }
}

fn runs(network: Network, (_, poll, quiet): (&str, Poll, i64), error: Error) -> Vec<Found> {
    let run = |seed| witness(network, poll, error, seed, quiet, HOUR);
    let found = seeds().filter_map(|seed| match run(seed) {
        Ok(found) => Some(found),
        Err(reason) => {
            println!("false alarm: {}, seed {seed}: {reason}", network.name);
            None
        }
    });
    found.collect()
}

fn row(network: Network, poll: (&'static str, Poll, i64), name: &str, error: Error) {
    let found = runs(network, poll, error);
    println!(
        "| {} | {} | {name} | {} | {} | {} |",
        network.name,
        poll.0,
        told(&found, |it| it.contradicted),
        told(&found, |it| it.shifted),
        told(&found, Found::first),
    );
}

fn heading() {
    println!(
        "| network | asked every | fault | by intervals | by shift | first |\n|---|---|---|---|---|---|"
    );
}

fn faults() {
    heading();
    for network in [SWITCH, LOCAL, CAMPUS, INTERNET] {
        for poll in POLLS {
            for (name, step, drift_ppb) in [
                ("step of 10 us", MS / 100, 0),
                ("step of 1 ms", MS, 0),
                ("step of 1 day", 86_400_000 * MS, 0),
                ("drift of 1 ppm", 0, 1_000),
            ] {
                row(network, poll, name, Error { step, drift_ppb, ..Error::default() });
            }
        }
    }
}

fn sizes() {
    heading();
    for network in [SWITCH, LOCAL, CAMPUS, INTERNET] {
        for micros in [2, 5, 10, 20, 50, 100, 200, 500, 1_000, 2_000, 5_000, 10_000, 20_000] {
            let error = Error { step: micros * 1_000, ..Error::default() };
            row(network, POLLS[0], &format!("step of {micros} us"), error);
        }
        for drift_ppb in [20, 50, 100, 1_000] {
            let error = Error { drift_ppb, ..Error::default() };
            row(network, POLLS[0], &format!("drift of {drift_ppb} ppb"), error);
        }
    }
}

fn quiet() {
    for network in [SWITCH, LOCAL, CAMPUS, INTERNET] {
        for (name, poll, _) in POLLS {
            let (mut alarms, mut exchanges) = (0, 0);
            for seed in seeds() {
                match witness(network, poll, Error::default(), seed, 24 * HOUR, 0) {
                    Ok(found) => exchanges += found.exchanges,
                    Err(reason) => {
                        alarms += 1;
                        println!("{}, {name}, seed {seed}: {reason}", network.name);
                    }
                }
            }
            println!(
                "{}, asked every {name}: right for 24 h, {} seeds: {alarms} false alarms, {exchanges} exchanges",
                network.name,
                seeds().count(),
            );
        }
    }
}

fn falseticker() {
    println!(
        "| the nearest is ahead by | | error, rms | bound, rms | false bounds | liar believed |\n|---|---|---|---|---|---|"
    );
    for lie_ms in [0.0, 5.0, 15.0, 50.0, 200.0] {
        let compared = servers(lie_ms, seeds(), 10);
        let names = ["agent", "RFC 5905, combined", "RFC 5905, averaged"];
        for (name, worth) in names.iter().zip(compared) {
            println!(
                "| {lie_ms} ms | {name} | {:.3} ms | {:.1} ms | {:.2} % | {:.0} % |",
                worth.error_rms,
                worth.bound_rms,
                100.0 * worth.false_bounds,
                100.0 * worth.believed,
            );
        }
    }
}

fn main() {
    let what = std::env::args().nth(1);
    for (name, part) in
        [("witness", faults as fn()), ("sizes", sizes), ("quiet", quiet), ("servers", falseticker)]
    {
        if what.as_deref().is_none_or(|what| what == name) {
            part();
        }
    }
}
