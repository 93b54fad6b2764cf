//! Counts tests by reading what the test programs print. A test that cannot run here has no way to
//! tell the harness; by this project's convention it writes a line `skipped: REASON` straight to
//! standard error (which the harness does not capture), and returns. The harness then counts it as
//! passed, and this as skipped.

use std::collections::BTreeMap;

/// Numbers of tests, and why some were not run.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Tally {
    /// As the harness says, so with those that skipped themselves.
    returned: u64,
    /// Of these, those that skipped themselves.
    skipped_themselves: u64,
    pub(super) failed: u64,
    /// Names of tests that failed, where they have one.
    pub(super) failures: Vec<String>,
    /// Reason, and how many tests were skipped for it.
    pub(super) reasons: BTreeMap<String, u64>,
}

impl Tally {
    /// Take in a line that a test program printed.
    pub(super) fn read(&mut self, line: &str) {
        if let Some(counts) = line.strip_prefix("test result: ") {
            self.read_result(counts);
        } else if let Some(reason) = skip_reason(line) {
            self.skip(reason);
            self.skipped_themselves += 1;
        } else if let Some(reason) = ignore_reason(line) {
            self.skip(reason);
        } else if let Some(name) = failed_test(line) {
            self.failures.push(name.to_owned());
        }
    }

    /// `ok. 1 passed; 0 failed; 2 ignored; 0 measured; 3 filtered out; finished in 0.00s`
    fn read_result(&mut self, counts: &str) {
        let counts = counts.split_once(". ").map_or(counts, |(_, counts)| counts);
        for count in counts.split(';') {
            let mut words = count.split_whitespace();
            let Some(Ok(number)) = words.next().map(str::parse::<u64>) else { continue };
            match words.next() {
                Some("passed") => self.returned += number,
                Some("failed") => self.failed += number,
                _ => (),
            }
        }
    }

    /// Count a test that was not run.
    pub(super) fn skip(&mut self, reason: &str) {
        *self.reasons.entry(reason.to_owned()).or_default() += 1;
    }

    /// Count one check that has no harness.
    pub(super) fn count_one(&mut self, passed: bool) {
        if passed {
            self.returned += 1;
        } else {
            self.failed += 1;
        }
    }

    /// A program that failed without naming a test that failed (it did not compile, or it crashed)
    /// counts as one failed test.
    pub(super) fn with_status(mut self, success: bool) -> Self {
        if !success && self.failed == 0 {
            self.failed = 1;
        }
        self
    }

    pub(super) fn passed(&self) -> u64 {
        // More skips than results: a program ended before it could give its result.
        self.returned.saturating_sub(self.skipped_themselves)
    }

    pub(super) fn skipped(&self) -> u64 {
        self.reasons.values().sum()
    }

    pub(super) fn add(&mut self, other: &Self) {
        self.returned += other.returned;
        self.skipped_themselves += other.skipped_themselves;
        self.failed += other.failed;
        for (reason, count) in &other.reasons {
            *self.reasons.entry(reason.clone()).or_default() += count;
        }
    }
}

/// With one thread the harness begins a test's line before running it, so that what the test writes
/// comes after `test NAME ... `.
fn skip_reason(line: &str) -> Option<&str> {
    let written = match line.strip_prefix("test ") {
        Some(rest) => rest.split_once(" ... ")?.1,
        None => line,
    };
    written.strip_prefix("skipped: ")
}

/// `test NAME ... ignored, REASON`, in documentation tests without a reason.
fn ignore_reason(line: &str) -> Option<&str> {
    let (_, result) = line.strip_prefix("test ")?.rsplit_once(" ... ")?;
    let reason = result.strip_prefix("ignored")?;
    match reason.strip_prefix(", ") {
        Some(reason) => Some(reason),
        None if reason.is_empty() => Some("ignored without a reason"),
        None => None,
    }
}

/// `test NAME ... FAILED`
fn failed_test(line: &str) -> Option<&str> {
    line.strip_prefix("test ")?.strip_suffix(" ... FAILED")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(lines: &[&str]) -> Tally {
        let mut tally = Tally::default();
        lines.iter().for_each(|line| tally.read(line));
        tally.with_status(true)
    }

    #[test]
    fn the_results_of_several_programs_add_up() {
        let tally = read(&[
            "running 5 tests",
            "test a ... ok",
            "test result: ok. 5 passed; 0 failed; 0 ignored; 0 measured; 0 filtered out; finished in 0.00s",
            "test result: FAILED. 2 passed; 1 failed; 0 ignored; 0 measured; 7 filtered out; finished in 1.20s",
        ]);
        assert_eq!((tally.passed(), tally.failed, tally.skipped()), (7, 1, 0));
    }

    #[test]
    fn a_test_that_says_it_was_skipped_is_not_counted_as_passed() {
        let tally = read(&[
            "test one ... skipped: needs root",
            "ok",
            "skipped: needs root",
            "test two ... ok",
            "test three ... ok",
            "test result: ok. 3 passed; 0 failed; 0 ignored; 0 measured; 0 filtered out",
        ]);
        assert_eq!((tally.passed(), tally.skipped()), (1, 2));
        assert_eq!(tally.reasons["needs root"], 2);
    }

    #[test]
    fn ignored_tests_are_counted_with_their_reason() {
        let tally = read(&[
            "test slow ... ignored, takes an hour",
            "test src/lib.rs - example (line 3) ... ignored",
            "test result: ok. 0 passed; 0 failed; 2 ignored; 0 measured; 0 filtered out",
        ]);
        assert_eq!((tally.passed(), tally.skipped()), (0, 2));
        assert_eq!(tally.reasons["takes an hour"], 1);
    }

    #[test]
    fn a_program_that_crashes_counts_as_a_failed_test() {
        let mut tally = Tally::default();
        tally.read("skipped: needs root");
        let tally = tally.with_status(false);
        assert_eq!((tally.passed(), tally.failed, tally.skipped()), (0, 1, 1));
    }

    #[test]
    fn other_output_is_not_mistaken_for_results() {
        let lines =
            ["test result: pending", "nothing skipped: really", "test x ... ignored by all"];
        assert_eq!(read(&lines), Tally::default());
    }
}
