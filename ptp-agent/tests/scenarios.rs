//! Every scenario of `tests/scenarios` and `docs/scenarios` with its own seed and with all servos: the
//! default servo's bound holds, it is as good as the best of the others, and it steps only where time does.
//! `ptp-agent bench servo --scenarios DIR --seeds N` does the same with more seeds.

use std::path::Path;

use ptp_agent::sim::suite::{self, Named};

/// Sync messages of a scenario that is short enough for a test.
const MOST_SYNCS: f64 = 40_000.0;

fn scenarios(directory: &str) -> Vec<Named> {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join(directory);
    suite::read_directory(&directory).unwrap()
}

fn syncs(Named { scenario, .. }: &Named) -> f64 {
    let log_interval = scenario.grandmaster[0].log_sync_interval.get();
    scenario.duration_s.get() / f64::from(log_interval).exp2()
}

#[test]
fn in_every_scenario_the_bound_holds_and_no_other_servo_is_better() {
    let mut all = scenarios("tests/scenarios");
    assert!(all.len() >= 60, "{}", all.len());
    all.extend(scenarios("../docs/scenarios").into_iter().filter(|each| syncs(each) < MOST_SYNCS));
    let servos = suite::SERVOS.map(|servo| servo.parse().unwrap());
    let cases = suite::judge(&all, 1, &servos, |_, _, _| {});
    assert_eq!(cases.len(), all.len());
    let failures: Vec<String> = cases
        .iter()
        .flat_map(|case| {
            case.failures.iter().map(|failure| format!("{}: {failure}", case.scenario))
        })
        .collect();
    assert!(failures.is_empty(), "{} failures:\n{}", failures.len(), failures.join("\n"));
}

#[test]
fn every_scenario_says_when_its_statistics_begin() {
    // Else each servo would be judged over another time.
    for Named { name, scenario } in scenarios("tests/scenarios") {
        assert!(scenario.warm_up_s.get() > 0.0, "{name}");
        assert!(!scenario.title.is_empty(), "{name}");
    }
}
