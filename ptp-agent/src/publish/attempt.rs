//! What was asked for and is not needed to keep time: where it cannot be had, that is one line in the log,
//! and it is tried again now and then.

use std::fmt::Display;

use ptp_common::time::Duration;

/// Between two attempts.
pub(crate) const RETRY: Duration = Duration::from_secs(10);

/// One of them.
#[derive(Debug)]
pub(crate) struct Service<T> {
    pub(crate) running: Option<T>,
    /// What was said last, until it is another or has gone away.
    problem: Option<String>,
    /// Nobody misses it.
    pub(crate) is_optional: bool,
}

impl<T> Default for Service<T> {
    fn default() -> Self {
        Self { running: None, problem: None, is_optional: false }
    }
}

impl<T> Service<T> {
    /// Starts it unless it runs; returns it when that has just been done.
    pub(crate) fn attempt<E: Display>(
        &mut self,
        start: impl FnOnce() -> Result<T, E>,
    ) -> Option<&T> {
        if self.running.is_some() {
            return None;
        }
        match start() {
            Ok(running) => {
                self.problem = None;
                Some(self.running.insert(running))
            }
            Err(error) => {
                let problem = error.to_string();
                if self.problem.as_ref() != Some(&problem) {
                    if self.is_optional {
                        tracing::debug!("{problem}");
                    } else {
                        tracing::error!("{problem}; going on without it, and trying now and then");
                    }
                    self.problem = Some(problem);
                }
                None
            }
        }
    }

    /// It was asked for and is not there.
    pub(crate) const fn is_lacking(&self) -> bool {
        self.problem.is_some() && !self.is_optional
    }
}
