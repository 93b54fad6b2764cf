//! What a port complains of in the log: a problem once, until it is another or has gone away. One that comes and goes,
//! as when one client of many cannot be reached, is not said again within a minute, and no more than a few different ones are:
//! whoever invents clients must not write the log.

use std::collections::VecDeque;

use ptp_common::time::{Duration, Mono, Time};

/// For so long what was said is not said again.
const QUIET: Duration = Duration::from_secs(60);
/// In that time no more different problems are said.
const MOST: usize = 8;

/// What was said, and what is wrong now.
#[derive(Debug, Default)]
pub(super) struct Complaint {
    present: Option<String>,
    said: VecDeque<(Time<Mono>, String)>,
}

impl Complaint {
    /// Whether a problem is to be said: it was not there before, nor lately.
    pub(super) fn is_news(&mut self, now: Time<Mono>, problem: &str) -> bool {
        if self.present.as_deref() == Some(problem) {
            return false;
        }
        self.present = Some(problem.to_owned());
        while self.said.front().is_some_and(|(at, _)| now - *at >= QUIET) {
            self.said.pop_front();
        }
        if self.said.len() >= MOST || self.said.iter().any(|(_, said)| said == problem) {
            return false;
        }
        self.said.push_back((now, problem.to_owned()));
        true
    }

    /// Nothing is wrong now.
    pub(super) fn clear(&mut self) {
        self.present = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: i64) -> Time<Mono> {
        Time::from_nanos(seconds * 1_000_000_000)
    }

    #[test]
    fn problem_is_said_once_and_again_when_it_was_gone_and_a_minute_has_passed() {
        let mut complaint = Complaint::default();
        assert!(complaint.is_news(at(0), "no route"));
        assert!(!complaint.is_news(at(100), "no route"));
        complaint.clear();
        assert!(complaint.is_news(at(101), "no route"));
        complaint.clear();
        assert!(!complaint.is_news(at(102), "no route"));
        complaint.clear();
        assert!(complaint.is_news(at(162), "no route"));
    }

    #[test]
    fn problems_that_take_turns_are_not_a_line_for_each_message() {
        let mut complaint = Complaint::default();
        let problems = (0..100_000_u32).map(|n| format!("problem {}", n % 3));
        let lines = problems.filter(|problem| complaint.is_news(at(1), problem)).count();
        assert_eq!(lines, 3);
        let invented = (0..100_000_u32).map(|n| format!("cannot reach {n}"));
        let lines = invented.filter(|problem| complaint.is_news(at(2), problem)).count();
        assert_eq!(lines, MOST - 3);
        assert!(complaint.said.len() <= MOST);
    }
}
