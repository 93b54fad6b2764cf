//! The true error of the agent, which only a laboratory can know: both clocks are virtual, so each
//! is a sequence of straight lines over the one CLOCK_MONOTONIC of the host, and their difference at
//! one monotonic instant has no measurement error at all. Evaluated in integers.

use ptp_common::time::Duration;

use crate::publish::json::ClockLine;

/// Fraction bits of a frequency in parts per billion: 6e-8 ppb is 5 ps after a day.
const FREQUENCY_BITS: u32 = 24;
/// Fraction bits of [`Duration`].
const NANOS_BITS: u32 = 16;

/// |true error| below which the agent counts as converged, nanoseconds.
pub const CONVERGED_BELOW_NS: f64 = 10_000.0;
/// How long it must stay below, nanoseconds.
pub const CONVERGED_FOR_NS: i64 = 2_000_000_000;
/// The statistics leave out so much after convergence, nanoseconds: what is reported is how well the
/// clock is followed, not how it is approached ...
pub const SETTLING_NS: i64 = 10_000_000_000;
/// ... but no more than this share of the rest of the run.
pub const SETTLING_SHARE: f64 = 1.0 / 3.0;
/// The finer mark: from when on |true error| is below this for good, nanoseconds.
pub const SETTLED_BELOW_NS: f64 = 1_000.0;

/// Distance of the instants at which the true error is evaluated, nanoseconds; larger where a run
/// would have more than [`MAX_INSTANTS`] of them.
pub const GRID_NS: i64 = 10_000_000;
/// Instants evaluated at the most.
pub const MAX_INSTANTS: i64 = 500_000;

/// What a virtual clock has shown since it was started.
#[derive(Clone, Debug, Default)]
pub struct ClockHistory {
    lines: Vec<ClockLine>,
}

impl ClockHistory {
    /// Appends a line. One that begins before its predecessor is not believed: time stamps of one
    /// monotonic clock cannot run backwards.
    pub fn push(&mut self, line: ClockLine) {
        if self.lines.last().is_none_or(|last| last.mono_ns <= line.mono_ns) {
            self.lines.push(line);
        }
    }

    /// When the clock was started, CLOCK_MONOTONIC nanoseconds.
    pub fn start_ns(&self) -> Option<i64> {
        self.lines.first().map(|line| line.mono_ns)
    }

    /// When its last line begins, CLOCK_MONOTONIC nanoseconds.
    pub fn last_ns(&self) -> Option<i64> {
        self.lines.last().map(|line| line.mono_ns)
    }

    /// The line on which the clock is at `mono_ns`; `None` before its start.
    fn line_at(&self, mono_ns: i64) -> Option<&ClockLine> {
        let after = self.lines.partition_point(|line| line.mono_ns <= mono_ns);
        self.lines.get(after.checked_sub(1)?)
    }

    /// The same clock on a time scale that is `by` ahead.
    pub fn moved(&self, by: Duration) -> Self {
        let moved = |line: &ClockLine| ClockLine {
            clock_ns: line.clock_ns.saturating_add(by.as_scaled_nanos() >> NANOS_BITS),
            ..*line
        };
        Self { lines: self.lines.iter().map(moved).collect() }
    }

    /// What the clock showed at `mono_ns`; `None` before its start.
    pub fn at(&self, mono_ns: i64) -> Option<Duration> {
        let line = self.line_at(mono_ns)?;
        let elapsed = i128::from(mono_ns) - i128::from(line.mono_ns);
        // A frequency is at most a few thousand ppm; out of a broken line, `as` makes a large number
        // and the saturating product a wrong clock, but no panic.
        let frequency = (line.frequency_ppb * f64::from(1 << FREQUENCY_BITS)).round() as i128;
        let gained = elapsed.saturating_mul(frequency) >> (FREQUENCY_BITS - NANOS_BITS);
        let scaled = line.clock_ns.saturating_add(elapsed).saturating_mul(1 << NANOS_BITS);
        // `gained` still carries the 1e-9 of parts per billion.
        Some(Duration::from_scaled_nanos(scaled.saturating_add(gained.div_euclid(1_000_000_000))))
    }
}

/// Agent clock minus grandmaster clock at `mono_ns`; `None` while one of them does not run yet.
pub fn true_error(
    agent: &ClockHistory,
    grandmaster: &ClockHistory,
    mono_ns: i64,
) -> Option<Duration> {
    Some(agent.at(mono_ns)? - grandmaster.at(mono_ns)?)
}

/// True error over a whole run.
#[derive(Clone, Debug, Default)]
pub struct Truth {
    /// When both clocks ran for the first time, CLOCK_MONOTONIC nanoseconds: zero of the others.
    pub start_ns: i64,
    /// Instant (seconds since the start) and true error (nanoseconds), in order of time.
    pub errors: Vec<(f64, f64)>,
    /// The start of the first two seconds in which |true error| stayed below 10 us, seconds.
    pub converged_s: Option<f64>,
    /// The start of the statistics: [`SETTLING_NS`] after that, or [`SETTLING_SHARE`] of the rest of
    /// the run if that is shorter; seconds.
    pub judged_from_s: Option<f64>,
    /// Since when |true error| is below 1 us until the end, at least a second later; seconds.
    pub settled_s: Option<f64>,
}

impl Truth {
    /// Evaluates both clocks every ten milliseconds, and at each of `instants` besides, from the
    /// moment when both run, and no earlier than the first of `span_ns`, until the second
    /// (CLOCK_MONOTONIC).
    pub fn evaluate(
        agent: &ClockHistory,
        grandmaster: &ClockHistory,
        instants: impl IntoIterator<Item = i64>,
        span_ns: (i64, i64),
    ) -> Self {
        let (Some(agent_start), Some(grandmaster_start)) =
            (agent.start_ns(), grandmaster.start_ns())
        else {
            return Self::default();
        };
        let (begin_ns, end_ns) = span_ns;
        let start_ns = agent_start.max(grandmaster_start).max(begin_ns);
        let span = end_ns.saturating_sub(start_ns).max(0);
        let step = GRID_NS.max(span / MAX_INSTANTS);
        let mut instants: Vec<i64> = (0..=span / step)
            .map(|index| start_ns + index * step)
            .chain(instants.into_iter().filter(|instant| (start_ns..=end_ns).contains(instant)))
            .collect();
        instants.sort_unstable();
        instants.dedup();
        let errors: Vec<(f64, f64)> = instants
            .into_iter()
            .filter_map(|instant| {
                let error = true_error(agent, grandmaster, instant)?;
                Some(((instant - start_ns) as f64 * 1e-9, error.as_nanos_f64()))
            })
            .collect();
        Self::judge(start_ns, errors)
    }

    /// Of errors (nanoseconds) that are known at single instants (CLOCK_MONOTONIC nanoseconds) only, in
    /// order of time.
    pub fn of_errors(errors: impl IntoIterator<Item = (i64, f64)>) -> Self {
        let mut errors = errors.into_iter().peekable();
        let start_ns = errors.peek().map_or(0, |(instant, _)| *instant);
        let errors = errors
            .map(|(instant, error)| (instant.saturating_sub(start_ns) as f64 * 1e-9, error))
            .collect();
        Self::judge(start_ns, errors)
    }

    fn judge(start_ns: i64, errors: Vec<(f64, f64)>) -> Self {
        let converged_s = converged(&errors);
        let settled_s = settled(&errors);
        let judged_from_s = converged_s.map(|since| {
            let rest = errors.last().map_or(since, |last| last.0) - since;
            since + (SETTLING_SHARE * rest).min(SETTLING_NS as f64 * 1e-9)
        });
        Self { start_ns, errors, converged_s, judged_from_s, settled_s }
    }

    /// The errors from the start of the statistics on; none where there was no convergence.
    pub fn judged_errors(&self) -> impl Iterator<Item = (f64, f64)> {
        let from = self.judged_from_s.unwrap_or(f64::INFINITY);
        self.errors.iter().copied().filter(move |(instant, _)| *instant >= from)
    }
}

/// The start of the first stretch, at least [`CONVERGED_FOR_NS`] long, in which every error is below
/// [`CONVERGED_BELOW_NS`].
fn converged(errors: &[(f64, f64)]) -> Option<f64> {
    let mut since = None;
    for (instant, error) in errors {
        if error.abs() >= CONVERGED_BELOW_NS {
            since = None;
            continue;
        }
        let since = *since.get_or_insert(*instant);
        if instant - since >= CONVERGED_FOR_NS as f64 * 1e-9 {
            return Some(since);
        }
    }
    None
}

/// The first instant from which on every error is below [`SETTLED_BELOW_NS`], if at least a second
/// of the run is left by then: every run ends below it for some instants.
fn settled(errors: &[(f64, f64)]) -> Option<f64> {
    let after = errors
        .iter()
        .rposition(|(_, error)| error.abs() >= SETTLED_BELOW_NS)
        .map_or(0, |at| at + 1);
    let (since, last) = (errors.get(after)?.0, errors.last()?.0);
    (last - since >= 1.0).then_some(since)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn history(lines: &[(i64, i128, f64)]) -> ClockHistory {
        let mut history = ClockHistory::default();
        for &(mono_ns, clock_ns, frequency_ppb) in lines {
            history.push(ClockLine { mono_ns, clock_ns, frequency_ppb });
        }
        history
    }

    #[test]
    fn clock_runs_on_the_line_that_began_last() {
        let clock = history(&[(1_000, 0, 0.0), (2_000, 50_000, 1e9)]);
        assert_eq!(clock.at(999), None);
        assert_eq!(clock.at(1_999).unwrap().as_nanos(), 999);
        assert_eq!(clock.at(2_000).unwrap().as_nanos(), 50_000);
        assert_eq!(clock.at(2_100).unwrap().as_nanos(), 50_200);
    }

    #[test]
    fn drift_is_exact_over_a_day_at_an_epoch_of_today() {
        let day = 86_400_000_000_000;
        let clock = history(&[(0, 1_800_000_000_000_000_000, 37_000.0)]);
        let gained = clock.at(day).unwrap() - Duration::from_nanos(1_800_000_000_000_000_000 + day);
        assert_eq!(gained.as_nanos(), 3_196_800_000);
    }

    #[test]
    fn slow_clock_loses() {
        let clock = history(&[(0, 0, -37_000.0)]);
        assert_eq!(clock.at(1_000_000_000).unwrap().as_nanos(), 999_963_000);
    }

    #[test]
    fn line_from_the_past_is_not_believed() {
        let clock = history(&[(1_000, 0, 0.0), (500, 9, 9.0)]);
        assert_eq!(clock.last_ns(), Some(1_000));
    }

    #[test]
    fn absurd_lines_cause_no_panic() {
        for frequency in [f64::NAN, f64::INFINITY, -1e300] {
            let clock = history(&[(i64::MIN, i128::MAX, frequency)]);
            clock.at(i64::MAX).unwrap();
        }
    }

    #[test]
    fn error_is_agent_minus_grandmaster_where_both_run() {
        let agent = history(&[(10, 100, 0.0)]);
        let grandmaster = history(&[(20, 10, 0.0)]);
        assert_eq!(true_error(&agent, &grandmaster, 15), None);
        assert_eq!(true_error(&agent, &grandmaster, 20).unwrap().as_nanos(), 100);
    }

    #[test]
    fn stepped_agent_converges_at_the_step() {
        let second = 1_000_000_000;
        let grandmaster = history(&[(0, 1_500_000_000, 0.0)]);
        let agent = history(&[(0, 0, 0.0), (3 * second, 4_500_000_100, 0.0)]);
        let truth = Truth::evaluate(&agent, &grandmaster, [second / 3], (0, 10 * second));
        assert_eq!(truth.errors.len(), 1_002);
        assert_eq!(truth.converged_s, Some(3.0));
        assert_eq!(truth.settled_s, Some(3.0));
        // A third of the seven seconds that are left.
        assert!((truth.judged_from_s.unwrap() - (3.0 + 7.0 / 3.0)).abs() < 1e-9);
        assert!(truth.judged_errors().all(|(_, error)| error == 100.0));
    }

    #[test]
    fn passing_through_zero_is_no_convergence() {
        let second = 1_000_000_000;
        let grandmaster = history(&[(0, 0, 0.0)]);
        let agent = history(&[(0, -50_000, 10_000.0)]);
        let truth = Truth::evaluate(&agent, &grandmaster, [], (0, 10 * second));
        assert_eq!((truth.converged_s, truth.settled_s), (None, None));
        assert_eq!(truth.judged_errors().count(), 0);
    }

    #[test]
    fn long_run_is_evaluated_at_a_bounded_number_of_instants() {
        let clock = history(&[(0, 0, 0.0)]);
        let truth = Truth::evaluate(&clock, &clock, [], (0, 86_400_000_000_000));
        assert!(truth.errors.len() as i64 <= MAX_INSTANTS + 1);
    }
}
