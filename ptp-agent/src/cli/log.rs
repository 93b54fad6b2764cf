//! The log: on standard error, for people or as JSON, and limited in rate at each place of the
//! program that writes it, because some lines can be brought about by packets.

use std::{
    collections::HashMap,
    io::{self, IsTerminal, Write},
    sync::{Mutex, OnceLock, PoisonError},
    time::{Duration, Instant},
};

use clap::ValueEnum;
use tracing::{Event, Metadata, Subscriber, callsite::Identifier};
use tracing_subscriber::{
    EnvFilter, Layer,
    layer::{Context, Filter, SubscriberExt},
    reload,
    util::SubscriberInitExt,
};

use crate::capture::KERNEL_LOG;

/// Lines of one place that come through at once,
const BURST: u32 = 20;
/// and then one in this time.
const REFILL: Duration = Duration::from_secs(1);

/// How lines look.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(super) enum LogFormat {
    /// For people.
    #[default]
    Human,
    /// One JSON object per line.
    Json,
}

/// What the log has.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum LogLevel {
    Error,
    Warn,
    #[default]
    Info,
    Debug,
    Trace,
}

impl LogLevel {
    const fn name(self) -> &'static str {
        match self {
            Self::Error => "error",
            Self::Warn => "warn",
            Self::Info => "info",
            Self::Debug => "debug",
            Self::Trace => "trace",
        }
    }
}

type SetLevel = Box<dyn Fn(LogLevel) + Send + Sync>;

/// Changes the level; absent where the command line or the environment says it.
static SET_LEVEL: OnceLock<SetLevel> = OnceLock::new();

/// Sets the level that the configuration file says, or the default. The command line and the
/// environment win.
pub(super) fn set_level(level: Option<LogLevel>) {
    if let Some(set) = SET_LEVEL.get() {
        set(level.unwrap_or_default());
    }
}

/// Starts the log. `PTP_AGENT_LOG` takes the directives of `tracing` and wins over `verbose`.
pub(super) fn start(verbose: u8, format: LogFormat) {
    let level = match verbose {
        0 => LogLevel::Info,
        1 => LogLevel::Debug,
        _ => LogLevel::Trace,
    };
    let environment = EnvFilter::try_from_env("PTP_AGENT_LOG");
    let is_settable = verbose == 0 && environment.is_err();
    // The kernel programs speak of each packet of the host: only for those who ask a third time.
    let directives = match verbose {
        2 => format!("{},{KERNEL_LOG}=debug", level.name()),
        _ => level.name().to_owned(),
    };
    let filter = environment.unwrap_or_else(|_| EnvFilter::new(directives));
    let (filter, handle) = reload::Layer::new(filter);
    let lines = tracing_subscriber::fmt::layer().with_writer(io::stderr);
    let lines = match format {
        LogFormat::Human => lines.with_ansi(io::stderr().is_terminal()).boxed(),
        LogFormat::Json => lines.json().flatten_event(true).boxed(),
    };
    let limit = RateLimit { format, ..RateLimit::default() };
    tracing_subscriber::registry().with(lines.with_filter(limit)).with(filter).init();
    if is_settable {
        // Fails only where the log is gone, and there is nothing to tell that to.
        let set = move |level: LogLevel| drop(handle.reload(EnvFilter::new(level.name())));
        let _ = SET_LEVEL.set(Box::new(set));
    }
}

/// One bucket for each place; there are as many as the program has, whatever arrives.
#[derive(Debug, Default)]
struct RateLimit {
    format: LogFormat,
    buckets: Mutex<HashMap<Identifier, Bucket>>,
}

impl<S: Subscriber> Filter<S> for RateLimit {
    fn enabled(&self, _: &Metadata<'_>, _: &Context<'_, S>) -> bool {
        true
    }

    fn event_enabled(&self, event: &Event<'_>, _: &Context<'_, S>) -> bool {
        let metadata = event.metadata();
        // Asked for by name, and all of it comes from one place of the program.
        if metadata.target() == KERNEL_LOG {
            return true;
        }
        let now = Instant::now();
        let verdict = {
            let mut buckets = self.buckets.lock().unwrap_or_else(PoisonError::into_inner);
            buckets.entry(metadata.callsite()).or_insert_with(|| Bucket::new(now)).take(now)
        };
        if let Verdict::Pass { left_out: left_out @ 1.. } = verdict {
            let place = metadata.target();
            // Nobody to tell if standard error is closed.
            let _ = match self.format {
                LogFormat::Human => {
                    writeln!(io::stderr(), "{place}: {left_out} lines like the next one left out")
                }
                LogFormat::Json => {
                    let line = serde_json::json!({
                        "level": "WARN", "message": "lines like the next one left out",
                        "target": place, "left_out": left_out,
                    });
                    writeln!(io::stderr(), "{line}")
                }
            };
        }
        verdict != Verdict::Drop
    }
}

/// What to do with a line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Verdict {
    /// Write it, and before it how many were left out.
    Pass { left_out: u64 },
    /// Leave it out.
    Drop,
}

#[derive(Debug)]
struct Bucket {
    tokens: u32,
    filled: Instant,
    left_out: u64,
}

impl Bucket {
    const fn new(now: Instant) -> Self {
        Self { tokens: BURST, filled: now, left_out: 0 }
    }

    fn take(&mut self, now: Instant) -> Verdict {
        let whole = now.saturating_duration_since(self.filled).as_secs() / REFILL.as_secs();
        if whole > 0 {
            self.tokens = u32::try_from(whole).unwrap_or(BURST).saturating_add(self.tokens);
            self.tokens = self.tokens.min(BURST);
            self.filled = now;
        }
        if self.tokens == 0 {
            self.left_out += 1;
            return Verdict::Drop;
        }
        self.tokens -= 1;
        Verdict::Pass { left_out: std::mem::take(&mut self.left_out) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flood_of_lines_is_thinned_and_what_was_left_out_is_counted() {
        let start = Instant::now();
        let mut bucket = Bucket::new(start);
        let passed = (0..1000).filter(|_| bucket.take(start) != Verdict::Drop).count();
        assert_eq!(passed, BURST as usize);
        let later = start + REFILL;
        assert_eq!(bucket.take(later), Verdict::Pass { left_out: 1000 - u64::from(BURST) });
        assert_eq!(bucket.take(later), Verdict::Drop);
        let much_later = later + REFILL * 1000;
        let passed = (0..1000).filter(|_| bucket.take(much_later) != Verdict::Drop).count();
        assert_eq!(passed, BURST as usize);
    }
}
