//! The servo benchmark: true error of each servo on simulated links, beside the figures that are to
//! be reached. What `cargo xtask bench servo` prints.

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
    rows
}
