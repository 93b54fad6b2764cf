//! A program in a real pseudo-terminal, and what its screen shows.

use std::{
    fs::File,
    io::{Read, Write},
    process::{Child, Command, ExitStatus, Stdio},
    sync::mpsc::{Receiver, channel},
    thread,
    time::{Duration, Instant},
};

use nix::pty::{Winsize, openpty};

/// See the module's paragraph. The program is killed when this is dropped.
pub struct Terminal {
    master: File,
    chunks: Receiver<Vec<u8>>,
    screen: vt100::Parser,
    child: Child,
}

impl Terminal {
    /// Starts `command` in a terminal of this size.
    ///
    /// # Panics
    /// If there is no terminal, or the program cannot be started.
    pub fn start(command: &mut Command, rows: u16, columns: u16) -> Self {
        let size = Winsize { ws_row: rows, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 };
        let terminal = openpty(Some(&size), None).expect("a pseudo-terminal");
        let side = || Stdio::from(terminal.slave.try_clone().expect("a file descriptor"));
        let child = command
            .env("TERM", "xterm-256color")
            .stdin(side())
            .stdout(side())
            .stderr(side())
            .spawn()
            .unwrap_or_else(|error| panic!("cannot start {command:?}: {error}"));
        drop(terminal.slave);
        let master = File::from(terminal.master);
        let mut output = master.try_clone().expect("a file descriptor");
        let (sender, chunks) = channel();
        // Ends with an error when the last process at the other side has closed it.
        thread::spawn(move || {
            let mut chunk = [0; 4096];
            while let Ok(length @ 1..) = output.read(&mut chunk) {
                if sender.send(chunk[..length].to_vec()).is_err() {
                    break;
                }
            }
        });
        Self { master, chunks, screen: vt100::Parser::new(rows, columns, 0), child }
    }

    /// What is on the screen.
    pub fn screen(&self) -> &vt100::Screen {
        self.screen.screen()
    }

    /// Waits until the screen shows all of these words.
    ///
    /// # Panics
    /// If it does not within `patience`.
    pub fn wait_for(&mut self, patience: Duration, words: &[&str]) {
        let deadline = Instant::now() + patience;
        while !words.iter().all(|word| self.screen().contents().contains(word)) {
            let left = deadline.saturating_duration_since(Instant::now());
            let Ok(chunk) = self.chunks.recv_timeout(left) else {
                panic!("{words:?} are not all shown\n{}", self.screen().contents());
            };
            self.screen.process(&chunk);
        }
    }

    /// Goes on for a while.
    pub fn watch(&mut self, time: Duration) {
        let deadline = Instant::now() + time;
        while let Ok(chunk) =
            self.chunks.recv_timeout(deadline.saturating_duration_since(Instant::now()))
        {
            self.screen.process(&chunk);
        }
    }

    /// Presses keys, and waits until the program has given the terminal back and ended.
    ///
    /// # Panics
    /// If the terminal cannot be written to.
    pub fn end_with(&mut self, keys: &[u8], patience: Duration) -> ExitStatus {
        self.master.write_all(keys).expect("the terminal is open");
        while let Ok(chunk) = self.chunks.recv_timeout(patience) {
            self.screen.process(&chunk);
        }
        self.child.wait().expect("the child can be waited for")
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        // Both fail only for a child that has ended, which is what is wanted.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
