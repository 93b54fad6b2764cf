//! What the suite's output says of a run, and what runs with ours are beside those of ptp4l alone: passed or not,
//! and the error of each clock over that of the same clock in the same simulation.

use serde_json::json;

/// Above the lines.
pub(super) const HEAD: &str =
    "test             ours    seeds          clocks  RMS over ptp4l's: median, worst";

/// The error of a clock in one of a test's simulations.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Clock {
    /// Which simulation, counted from 0.
    simulation: usize,
    node: u32,
    rms_s: f64,
    /// Whether the suite was content with it.
    is_ok: bool,
}

/// A test that has run.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Run {
    pub(super) output: String,
    pub(super) is_passed: bool,
    clocks: Vec<Clock>,
}

impl Run {
    pub(super) fn new(output: String, is_passed: bool) -> Self {
        let (mut clocks, mut simulations) = (Vec::new(), 0_usize);
        for line in output.lines().map(str::trim) {
            if line.starts_with("running simulation") {
                simulations += 1;
            }
            clocks.extend(clock(line, simulations.saturating_sub(1)));
        }
        Self { output, is_passed, clocks }
    }
}

/// `node 2: 25 4.91e-08 4.16e-08 1.46e-08 8.18e-09 OK`: time to synchronise, largest errors of time and
/// frequency, and their root mean squares.
fn clock(line: &str, simulation: usize) -> Option<Clock> {
    let (node, rest) = line.strip_prefix("node ")?.split_once(": ")?;
    let words: Vec<&str> = rest.split_whitespace().collect();
    let [_, _, _, rms, _, verdict] = words[..] else { return None };
    Some(Clock {
        simulation,
        node: node.parse().ok()?,
        rms_s: rms.parse().ok()?,
        is_ok: verdict == "OK",
    })
}

/// A test with ours in some place, over all seeds.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Outcome {
    /// By seed.
    passed: Vec<(u32, bool)>,
    /// RMS over ptp4l's, ascending.
    ratios: Vec<f64>,
}

impl Outcome {
    /// Of runs by seed, ours and ptp4l's, as far as their nodes are of interest.
    pub(super) fn of<'a>(
        runs: impl Iterator<Item = (u32, &'a Run, &'a Run)>,
        concerns: impl Fn(u32) -> bool,
    ) -> Self {
        let (mut passed, mut ratios) = (Vec::new(), Vec::new());
        for (seed, ours, theirs) in runs {
            passed.push((seed, ours.is_passed));
            for clock in ours.clocks.iter().filter(|clock| concerns(clock.node)) {
                // Some simulations are meant to fail.
                let same = |other: &&Clock| {
                    (other.simulation, other.node) == (clock.simulation, clock.node) && other.is_ok
                };
                let other = theirs.clocks.iter().find(same);
                ratios.extend(
                    other.filter(|other| other.rms_s > 0.0).map(|other| clock.rms_s / other.rms_s),
                );
            }
        }
        ratios.sort_unstable_by(f64::total_cmp);
        Self { passed, ratios }
    }

    pub(super) fn is_passed(&self) -> bool {
        self.passed.iter().all(|(_, is_passed)| *is_passed)
    }

    fn median(&self) -> Option<f64> {
        self.ratios.get(self.ratios.len() / 2).copied()
    }

    fn worst(&self) -> Option<f64> {
        self.ratios.last().copied()
    }

    pub(super) fn line(&self, test: &str, place: &str) -> String {
        let word = |(_, is_passed): &(u32, bool)| if *is_passed { "pass" } else { "FAIL" };
        let seeds = self.passed.iter().map(word).collect::<Vec<_>>().join(" ");
        let figure =
            |value: Option<f64>| value.map_or("-".to_owned(), |value| format!("{value:.2}"));
        let count = self.ratios.len();
        let (median, worst) = (figure(self.median()), figure(self.worst()));
        format!("{test:16} {place:7} {seeds:14} {count:6}  {median:>6} {worst:>6}")
    }

    pub(super) fn json(&self, test: &str, place: &str) -> String {
        let seeds =
            self.passed.iter().map(|(seed, is_passed)| json!({"seed": seed, "passed": is_passed}));
        json!({
            "event": "test",
            "test": test,
            "ours": place,
            "seeds": seeds.collect::<Vec<_>>(),
            "clocks": self.ratios.len(),
            "rms_ratio_median": self.median(),
            "rms_ratio_worst": self.worst(),
        })
        .to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const OURS: &str = "  running simulation:   OK\n    checking clock sync time\n      \
                        node 2: 25 4.91e-08 4.16e-08 1.50e-08 8.18e-09    \tOK\n      \
                        node 3: 25 4.91e-08 4.16e-08 9.00e-08 8.18e-09    \tBAD\n  \
                        running simulation:   OK\n      \
                        node 2: 25 4.91e-08 4.16e-08 3.00e-08 8.18e-09    \tOK\n";

    fn run(output: &str, is_passed: bool) -> Run {
        Run::new(output.to_owned(), is_passed)
    }

    #[test]
    fn clocks_are_compared_with_the_same_in_the_same_simulation() {
        let theirs = OURS.replace("1.50e-08", "3.00e-08").replacen("BAD", "OK", 1);
        let (ours, theirs) = (run(OURS, false), run(&theirs, true));
        let outcome = Outcome::of([(1, &ours, &theirs)].into_iter(), |node| node == 2);
        assert_eq!(outcome.ratios, [0.5, 1.0]);
        assert!(!outcome.is_passed());
        assert!(outcome.line("01-defaults", "node 2").contains("FAIL"));
    }

    #[test]
    fn what_ptp4l_fails_too_is_no_measure() {
        let ours = run(OURS, true);
        let outcome = Outcome::of([(1, &ours, &ours)].into_iter(), |node| node == 3);
        assert_eq!((outcome.ratios.len(), outcome.is_passed()), (0, true));
        assert!(outcome.json("01-defaults", "all").contains("\"rms_ratio_median\":null"));
    }

    #[test]
    fn output_of_other_kinds_is_none_of_clocks() {
        assert_eq!(run("node x: 1\nnode 2: 1 2 3\nnode 2: a b c d e OK\n", true).clocks, []);
    }
}
