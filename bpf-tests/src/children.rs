//! Child processes whose output is read line by line as it comes, so that a test waits for events
//! and not for time. A child is killed when its value is dropped, and when the test's thread ends.

use std::{
    io::{BufRead, BufReader, Read},
    process::{Child, Command, ExitStatus, Stdio},
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    thread,
    time::{Duration, Instant},
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};

/// How long a child may take to end after it was asked to.
const PATIENCE: Duration = Duration::from_secs(10);

/// Where a line came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stream {
    /// Standard output.
    Output,
    /// Standard error.
    Log,
}

/// A line that a child wrote.
#[derive(Clone, Debug)]
pub struct Line {
    /// When it was read.
    pub at: Instant,
    /// Where it came from.
    pub stream: Stream,
    /// Without the line's end.
    pub text: String,
}

#[derive(Default)]
struct Lines {
    /// The lines so far, and how many streams have ended.
    state: Mutex<(Vec<Line>, usize)>,
    changed: Condvar,
}

impl Lines {
    fn lock(&self) -> MutexGuard<'_, (Vec<Line>, usize)> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn read(self: &Arc<Self>, stream: Stream, from: impl Read + Send + 'static) {
        let this = Arc::clone(self);
        thread::spawn(move || {
            for text in BufReader::new(from).lines().map_while(Result::ok) {
                this.lock().0.push(Line { at: Instant::now(), stream, text });
                this.changed.notify_all();
            }
            this.lock().1 += 1;
            this.changed.notify_all();
        });
    }
}

/// A running child.
pub struct Running {
    name: String,
    child: Child,
    lines: Arc<Lines>,
    /// When it was started.
    pub since: Instant,
}

impl Running {
    /// Starts `command`, which is called `name` in messages.
    ///
    /// # Panics
    /// If it cannot be started.
    pub fn start(name: impl Into<String>, command: &mut Command) -> Self {
        let name = name.into();
        let since = Instant::now();
        let mut child = command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap_or_else(|error| panic!("cannot start {name}: {error}"));
        let lines = Arc::new(Lines::default());
        if let Some(output) = child.stdout.take() {
            lines.read(Stream::Output, output);
        }
        if let Some(log) = child.stderr.take() {
            lines.read(Stream::Log, log);
        }
        Self { name, child, lines, since }
    }

    /// Its process number.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Everything that it has written so far.
    pub fn lines(&self) -> Vec<Line> {
        self.lines.lock().0.clone()
    }

    /// How many lines there are so far: a point from which to wait on.
    pub fn mark(&self) -> usize {
        self.lines.lock().0.len()
    }

    /// Waits for a line behind `mark` that `wanted` accepts, and returns what that makes of it.
    ///
    /// # Panics
    /// If none comes within `patience`, or the child ends before.
    pub fn wait_for<T>(
        &self,
        mark: usize,
        patience: Duration,
        what: &str,
        mut wanted: impl FnMut(&Line) -> Option<T>,
    ) -> T {
        let deadline = Instant::now() + patience;
        let mut next = mark;
        let mut state = self.lines.lock();
        loop {
            while let Some(line) = state.0.get(next) {
                if let Some(found) = wanted(line) {
                    return found;
                }
                next += 1;
            }
            let left = deadline.saturating_duration_since(Instant::now());
            let ended = state.1 == 2;
            if left.is_zero() || ended {
                drop(state);
                let why = if ended { "it has ended" } else { "time is up" };
                panic!("{}: no {what}: {why}\n{}", self.name, self.last_words());
            }
            (state, _) = self
                .lines
                .changed
                .wait_timeout(state, left)
                .unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Waits for a line that contains `text`.
    ///
    /// # Panics
    /// As [`Running::wait_for`].
    pub fn wait_for_text(&self, mark: usize, patience: Duration, text: &str) -> Line {
        self.wait_for(mark, patience, text, |line| line.text.contains(text).then(|| line.clone()))
    }

    /// The last lines, for a message.
    pub fn last_words(&self) -> String {
        let lines = self.lines();
        let last = lines[lines.len().saturating_sub(25)..].iter();
        last.map(|line| format!("  {}: {}\n", self.name, line.text)).collect()
    }

    /// Sends a signal.
    ///
    /// # Panics
    /// If the child has been waited for.
    pub fn signal(&self, signal: Signal) {
        let pid = i32::try_from(self.child.id()).expect("process numbers are small");
        kill(Pid::from_raw(pid), signal).unwrap_or_else(|error| panic!("{}: {error}", self.name));
    }

    /// Waits for its end.
    ///
    /// # Panics
    /// If it does not end within `patience`.
    pub fn wait(&mut self, patience: Duration) -> ExitStatus {
        let deadline = Instant::now() + patience;
        let mut state = self.lines.lock();
        while state.1 < 2 {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                drop(state);
                panic!("{} does not end\n{}", self.name, self.last_words());
            }
            (state, _) = self
                .lines
                .changed
                .wait_timeout(state, left)
                .unwrap_or_else(PoisonError::into_inner);
        }
        drop(state);
        self.child.wait().unwrap_or_else(|error| panic!("{}: {error}", self.name))
    }

    /// Asks it to end (SIGTERM) and waits for that.
    ///
    /// # Panics
    /// If it does not end within ten seconds.
    pub fn stop(&mut self) -> ExitStatus {
        self.signal(Signal::SIGTERM);
        self.wait(PATIENCE)
    }

    /// Kills it (SIGKILL) and waits for that.
    ///
    /// # Panics
    /// If it does not end within ten seconds.
    pub fn kill(&mut self) -> ExitStatus {
        self.signal(Signal::SIGKILL);
        self.wait(PATIENCE)
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if thread::panicking() {
            eprintln!("{}", self.last_words());
        }
        // Both fail only for a child that has ended, which is what is wanted.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
