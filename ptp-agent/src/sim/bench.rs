//! The servo benchmark: true error of each servo on simulated links, beside the figures that are to
//! be reached. What `cargo xtask bench servo` prints.

use std::path::Path;

use serde::Serialize;

use super::{Scenario, run};

/// One line of the table.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Row {
    /// What was simulated.
    pub case: String,
    /// The servo, as `--servo` takes it.
    pub servo: String,
    /// The seed.
    pub seed: u64,
    /// True error, root mean square, nanoseconds.
    pub rms_ns: f64,
    /// At most this, nanoseconds; for linuxptp's methods the figure that linuxptp reaches.
    pub target_ns: Option<f64>,
}

/// Servo and figure, nanoseconds.
type Targets = &'static [(&'static str, f64)];

/// Seeds of the table.
pub const SEEDS: [u64; 3] = [1, 2, 3];

/// Runs one case.
pub fn row(case: &str, servo: &str, scenario: Scenario, target_ns: Option<f64>) -> Row {
    let mut scenario = scenario;
    let seed = scenario.seed;
    if let Ok(choice) = servo.parse() {
        scenario.servo = choice;
    }
    let report = run(&scenario);
    Row {
        case: case.to_owned(),
        servo: servo.to_owned(),
        seed,
        rms_ns: report.summary.true_error_ns.rms,
        target_ns,
    }
}

/// All cases, servos and seeds.
pub fn table() -> Vec<Row> {
    let mut rows = Vec::new();
    let cases: [(f64, f64, Targets); 4] = [
        (1e3, 1.0, &[("adaptive", 60.0), ("pi:raw-weight", 190.0), ("pi", 290.0)]),
        (1e4, 1.0, &[("adaptive", 240.0), ("pi:raw-weight", 1.6e3), ("pi", 2.9e3)]),
        (1e5, 1.0, &[("adaptive", 1e3), ("pi:raw-weight", 13e3), ("pi", 28e3)]),
        (1e3, 10.0, &[("adaptive", 150.0), ("linreg", 450.0), ("pi:raw-weight", 600.0)]),
    ];
    for (jitter, wander, servos) in cases {
        for &(servo, target) in servos {
            for seed in SEEDS {
                let case = format!("J={} us, {wander} ppb/sqrt(s)", jitter / 1e3);
                let scenario = Scenario::two_nodes(jitter, wander, 0, seed);
                rows.push(row(&case, servo, scenario, Some(target)));
            }
        }
    }
    // Against 60 ns without the disturbance, no more than twice as much.
    for (case, text) in
        [("J=1 us on one way only", ONE_WAY), ("J=1 us, 1 % lost, 1 % late by 10 ms", DISTURBED)]
    {
        for seed in SEEDS {
            let text = format!("seed = {seed}\n{text}");
            if let Ok(scenario) = Scenario::parse(case, &text, Path::new(".")) {
                rows.push(row(case, "adaptive", scenario, Some(120.0)));
            }
        }
    }
    rows
}

/// Jitter towards the time receiver, none on the way back.
const ONE_WAY: &str = "
duration-s = 5000
warm-up-s = 1000
sample-interval-s = 0.25
time-receiver.oscillator.random-walk-ppb = 1
[[grandmaster]]
link.forward = { base-delay-ns = 50000, jitter.exponential.mean-ns = 1000 }
link.backward = { base-delay-ns = 50000 }
";

/// Loss and outliers on both ways.
const DISTURBED: &str = "
duration-s = 5000
warm-up-s = 1000
sample-interval-s = 0.25
time-receiver.oscillator.random-walk-ppb = 1
[[grandmaster]]
[grandmaster.link.forward]
base-delay-ns = 50000
jitter.exponential.mean-ns = 1000
loss = 0.01
outliers = { probability = 0.01, delay.constant.ns = 10000000 }
";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_scenarios_of_the_table_can_be_read() {
        for text in [ONE_WAY, DISTURBED] {
            Scenario::parse("table", text, Path::new(".")).unwrap();
        }
    }
}
