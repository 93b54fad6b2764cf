//! The steps that were run and how they ended: a line for each as it ends, and at the end a table, the
//! reasons of what was skipped, the names of what failed, and the number of tests.

use std::{
    fmt::{self, Display, Write},
    process::ExitCode,
    time::{Duration, Instant},
};

use anyhow::Result;

use super::tally::Tally;

/// How a step ended, unless an error ended it.
pub(super) enum Outcome {
    Ran { tally: Tally },
    Skipped(String),
}

impl Outcome {
    /// A check that is one test by itself.
    pub(super) fn passed() -> Self {
        let mut tally = Tally::default();
        tally.count_one(true);
        Self::Ran { tally }
    }
}

/// The steps run so far.
#[derive(Default)]
pub(super) struct Suite {
    steps: Vec<Step>,
}

impl Suite {
    /// Run a step. Returns false if it failed.
    pub(super) fn step(&mut self, title: &str, run: impl FnOnce() -> Result<Outcome>) -> bool {
        println!("\n== {title}");
        let begun = Instant::now();
        let step = Step::new(title, run(), begun.elapsed());
        println!("{step}");
        let succeeded = !step.failed();
        self.steps.push(step);
        succeeded
    }

    /// The table, the reasons, and in the last line the number of tests.
    pub(super) fn summary(&self) -> String {
        let mut text = String::new();
        // Writing to a string does not fail.
        let _ = self.write_summary(&mut text);
        text
    }

    fn write_summary(&self, text: &mut String) -> fmt::Result {
        let mut total = Tally::default();
        let mut elapsed = Duration::ZERO;
        writeln!(
            text,
            "{:<20} {:<8} {:>7} {:>7} {:>7} {:>8}",
            "step", "result", "passed", "failed", "skipped", "seconds"
        )?;
        for step in &self.steps {
            write_row(text, &step.title, step.word(), &step.tally, step.elapsed)?;
            total.add(&step.tally);
            elapsed += step.elapsed;
        }
        write_row(text, "all", "", &total, elapsed)?;
        if !total.reasons.is_empty() {
            writeln!(text, "\nskipped:")?;
            for (reason, count) in &total.reasons {
                writeln!(text, "  {count} x {}", reason.replace('\n', "\n      "))?;
            }
        }
        if self.steps.iter().any(Step::failed) {
            writeln!(text, "\nFAILED:")?;
            for step in self.steps.iter().filter(|step| step.failed()) {
                writeln!(text, "  {} {}", step.title, step.tally.failures.join(", "))?;
            }
        }
        writeln!(
            text,
            "\n{} passed, {} failed, {} skipped",
            total.passed(),
            total.failed,
            total.skipped()
        )
    }

    /// Success if no step failed.
    pub(super) fn exit_code(&self) -> ExitCode {
        if self.steps.iter().any(Step::failed) { ExitCode::FAILURE } else { ExitCode::SUCCESS }
    }
}

fn write_row(
    text: &mut String,
    title: &str,
    word: &str,
    tally: &Tally,
    elapsed: Duration,
) -> fmt::Result {
    writeln!(
        text,
        "{title:<20} {word:<8} {:>7} {:>7} {:>7} {:>8.1}",
        tally.passed(),
        tally.failed,
        tally.skipped(),
        elapsed.as_secs_f64()
    )
}

struct Step {
    title: String,
    result: StepResult,
    tally: Tally,
    elapsed: Duration,
}

enum StepResult {
    Passed,
    /// Because of an error, or because tests did.
    Failed(Option<String>),
    Skipped(String),
}

impl Step {
    fn new(title: &str, outcome: Result<Outcome>, elapsed: Duration) -> Self {
        let mut own = Tally::default();
        let (result, tally) = match outcome {
            Ok(Outcome::Ran { tally }) if tally.failed == 0 => (StepResult::Passed, tally),
            Ok(Outcome::Ran { tally }) => (StepResult::Failed(None), tally),
            Ok(Outcome::Skipped(reason)) => {
                own.skip(&reason);
                (StepResult::Skipped(reason), own)
            }
            Err(error) => {
                own.count_one(false);
                (StepResult::Failed(Some(format!("{error:#}"))), own)
            }
        };
        Self { title: title.to_owned(), result, tally, elapsed }
    }

    fn failed(&self) -> bool {
        matches!(self.result, StepResult::Failed(_))
    }

    fn word(&self) -> &'static str {
        match self.result {
            StepResult::Passed => "passed",
            StepResult::Failed(_) => "FAILED",
            StepResult::Skipped(_) => "skipped",
        }
    }
}

impl Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "== {}: {} ({:.1} s)", self.title, self.word(), self.elapsed.as_secs_f64())?;
        match &self.result {
            StepResult::Failed(Some(reason)) | StepResult::Skipped(reason) => {
                write!(f, "\n   {reason}")
            }
            StepResult::Passed | StepResult::Failed(None) => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use anyhow::anyhow;

    use super::*;

    fn suite(outcomes: Vec<Result<Outcome>>) -> Suite {
        let step = |outcome| Step::new("step", outcome, Duration::from_secs(1));
        Suite { steps: outcomes.into_iter().map(step).collect() }
    }

    fn last_line(suite: &Suite) -> String {
        suite.summary().lines().last().unwrap_or_default().to_owned()
    }

    #[test]
    fn one_failed_step_fails_the_suite_and_counts_as_a_failed_test() {
        let suite = suite(vec![Err(anyhow!("out of luck")), Ok(Outcome::passed())]);
        assert_eq!(suite.exit_code(), ExitCode::FAILURE);
        assert_eq!(last_line(&suite), "1 passed, 1 failed, 0 skipped");
        assert!(suite.steps[0].to_string().contains("out of luck"));
    }

    #[test]
    fn skipped_steps_are_no_failure_and_say_why() {
        let suite = suite(vec![Ok(Outcome::Skipped("not here".to_owned()))]);
        assert_eq!(suite.exit_code(), ExitCode::SUCCESS);
        assert_eq!(last_line(&suite), "0 passed, 0 failed, 1 skipped");
        assert!(suite.summary().contains("1 x not here"));
    }

    #[test]
    fn tests_that_failed_fail_their_step_and_are_named() {
        let mut tally = Tally::default();
        tally.read("test the_earth_is_flat ... FAILED");
        tally
            .read("test result: FAILED. 3 passed; 1 failed; 2 ignored; 0 measured; 0 filtered out");
        let suite = suite(vec![Ok(Outcome::Ran { tally })]);
        assert_eq!(suite.exit_code(), ExitCode::FAILURE);
        assert!(suite.summary().contains("the_earth_is_flat"));
    }
}
