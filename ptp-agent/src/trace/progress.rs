//! How far the reading is, on standard error: once a second on a terminal, every ten seconds elsewhere.

use std::{
    io::{self, IsTerminal, Write as _},
    path::PathBuf,
    time::{Duration, Instant},
};

/// Shows progress.
#[derive(Debug)]
pub(super) struct Progress {
    /// Of all files, bytes; `None` where one has no size, as standard input.
    whole: Option<u64>,
    before: u64,
    next: Instant,
    every: Duration,
    is_terminal: bool,
    is_shown: bool,
}

impl Progress {
    /// Of `files`.
    pub(super) fn start(files: &[PathBuf]) -> Self {
        let size = |file: &PathBuf| {
            let metadata = std::fs::metadata(file).ok()?;
            metadata.is_file().then_some(metadata.len())
        };
        let is_terminal = io::stderr().is_terminal();
        let every = Duration::from_secs(if is_terminal { 1 } else { 10 });
        Self {
            whole: files.iter().map(size).sum(),
            before: 0,
            next: Instant::now() + every,
            every,
            is_terminal,
            is_shown: false,
        }
    }

    /// `bytes` of this file have been read.
    pub(super) fn show(&mut self, bytes: u64, spans: u64, open: usize) {
        if Instant::now() < self.next {
            return;
        }
        self.next = Instant::now() + self.every;
        self.is_shown = true;
        let bytes = self.before + bytes;
        let read = match self.whole.filter(|whole| *whole > 0) {
            Some(whole) => format!("{:3.0} %", 100.0 * bytes as f64 / whole as f64),
            None => format!("{} MiB", bytes >> 20),
        };
        let (begin, end) = if self.is_terminal { ("\r", "    ") } else { ("", "\n") };
        // Nobody who cannot see it misses it.
        let _ = write!(io::stderr(), "{begin}{read}, {spans} spans, {open} of them open{end}");
    }

    /// A file of so many bytes has been read.
    pub(super) fn next_file(&mut self, bytes: u64) {
        self.before += bytes;
    }

    /// Everything has been read.
    pub(super) fn end(&self) {
        if self.is_shown && self.is_terminal {
            let _ = writeln!(io::stderr());
        }
    }
}
