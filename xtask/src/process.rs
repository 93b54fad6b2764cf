//! Running other programs: finding them, showing their output while reading it, and running slow
//! ones behind a progress line. Everything that `xtask` starts goes through here.

use std::{
    env,
    ffi::{OsStr, OsString},
    fs,
    io::{self, IsTerminal, Read, Write},
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    process::{self, ExitStatus},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};
use duct::Expression;
use indicatif::{ProgressBar, ProgressStyle};

/// Debian keeps these off the path of users other than root, and several of the tools live there.
const SYSTEM_DIRECTORIES: [&str; 3] = ["/usr/local/sbin", "/usr/sbin", "/sbin"];

/// Longest line of a child's output that is looked at; the rest of a longer one is only shown.
const LINE_LIMIT: usize = 64 * 1024;

/// How much is shown of the output of a quiet command that failed.
const LINES_ON_FAILURE: usize = 20;

/// Root of the workspace.
pub(crate) fn workspace() -> PathBuf {
    let manifest = env::var_os("CARGO_MANIFEST_DIR")
        .map_or_else(|| PathBuf::from(env!("CARGO_MANIFEST_DIR")), PathBuf::from);
    manifest.parent().map_or_else(|| PathBuf::from("."), Path::to_path_buf)
}

/// Where cargo puts what it builds.
pub(crate) fn target_directory() -> PathBuf {
    let chosen = env::var_os("CARGO_TARGET_DIR").unwrap_or_else(|| "target".into());
    workspace().join(chosen)
}

/// The cargo that started `xtask`, or the one that built it, or that on the path.
pub(crate) fn cargo_program() -> OsString {
    let builder = || option_env!("CARGO").filter(|path| Path::new(path).exists());
    env::var_os("CARGO").unwrap_or_else(|| builder().unwrap_or("cargo").into())
}

/// A program and its arguments, not yet started, without standard input.
#[derive(Clone, Debug)]
pub(crate) struct Command {
    /// As one would type it.
    text: String,
    expression: Expression,
}

/// `cargo` in the workspace.
pub(crate) fn cargo<I, S>(arguments: I) -> Command
where
    I: IntoIterator<Item = S>,
    S: Into<OsString>,
{
    command(cargo_program(), arguments)
}

/// A program in the workspace, ended together with all that it started when time is up, with exit code
/// [`TIMED_OUT`]. Someone at a terminal can judge that better, and wants Ctrl-C to reach all of it.
pub(crate) fn command_within<I, S>(
    limit: Duration,
    program: impl Into<OsString>,
    arguments: I,
) -> Command
where
    I: IntoIterator<Item = S>,
    S: Into<OsString>,
{
    if io::stdin().is_terminal() || find("timeout").is_none() {
        return command(program, arguments);
    }
    let seconds = limit.as_secs().to_string().into();
    let prefix = ["--kill-after=10".into(), seconds, program.into()];
    command("timeout", prefix.into_iter().chain(arguments.into_iter().map(Into::into)))
}

/// Exit code of what [`command_within`] ended.
pub(crate) const TIMED_OUT: i32 = 124;

/// A program that the kernel kills when the thread that has started it ends, also when this process is
/// killed. (There is a moment at its start when it is not yet so, and where there is no `setpriv` it never
/// is.)
pub(crate) fn mortal(program: &Path) -> process::Command {
    let Some(setpriv) = find("setpriv") else {
        return process::Command::new(program);
    };
    let mut command = process::Command::new(setpriv);
    command.args(["--pdeathsig", "KILL", "--"]).arg(program);
    command
}

/// A program in the workspace.
pub(crate) fn command<I, S>(program: impl Into<OsString>, arguments: I) -> Command
where
    I: IntoIterator<Item = S>,
    S: Into<OsString>,
{
    command_in(&workspace(), program, arguments)
}

/// A program in a directory.
pub(crate) fn command_in<I, S>(
    directory: &Path,
    program: impl Into<OsString>,
    arguments: I,
) -> Command
where
    I: IntoIterator<Item = S>,
    S: Into<OsString>,
{
    let program: OsString = program.into();
    let arguments: Vec<OsString> = arguments.into_iter().map(Into::into).collect();
    let name = Path::new(&program).file_name().unwrap_or(&program);
    let words = std::iter::once(name).chain(arguments.iter().map(OsString::as_os_str));
    let text = words.map(OsStr::to_string_lossy).collect::<Vec<_>>().join(" ");
    let mut expression = duct::cmd(program, arguments).dir(directory).stdin_null();
    // What cargo tells xtask of its package is none of what is built from here: build scripts (ring's) watch these, and
    // whoever builds without them, as tests do for the agent, would build half of the workspace anew.
    for (name, _) in env::vars_os() {
        if is_of_package(&name) {
            expression = expression.env_remove(name);
        }
    }
    Command { text, expression }
}

/// A variable that cargo sets for programs of a package that it runs.
fn is_of_package(name: &OsStr) -> bool {
    let of_package = ["CARGO_PKG_", "CARGO_MANIFEST_", "CARGO_BIN_", "CARGO_CRATE_"];
    of_package.iter().any(|prefix| name.to_string_lossy().starts_with(prefix))
}

impl Command {
    /// With an environment variable.
    pub(crate) fn env(self, name: &str, value: impl Into<OsString>) -> Self {
        Self { expression: self.expression.env(name, value), ..self }
    }

    /// Without environment variables, except where they are set for this command.
    pub(crate) fn without_env(self, names: &[&str]) -> Self {
        // An inner setting wins over an outer one.
        let expression =
            names.iter().fold(self.expression, |expression, name| expression.env_remove(name));
        Self { expression, ..self }
    }

    /// Run it, pass its output (standard error merged into standard output) straight on, and show
    /// each line of it, without colours, to `on_line`.
    pub(crate) fn stream(&self, on_line: impl FnMut(&str)) -> Result<ExitStatus> {
        self.stream_to(&mut io::stdout().lock(), on_line)
    }

    fn stream_to(&self, out: &mut impl Write, mut on_line: impl FnMut(&str)) -> Result<ExitStatus> {
        let reader = self
            .expression
            .stderr_to_stdout()
            .unchecked()
            .reader()
            .with_context(|| self.not_started())?;
        let mut chunk = [0; 8192];
        let mut line = Vec::new();
        loop {
            let n = match (&reader).read(&mut chunk) {
                Ok(0) => break,
                Ok(n) => n,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(error).context("cannot read the output"),
            };
            out.write_all(&chunk[..n])?;
            out.flush()?;
            for &byte in &chunk[..n] {
                if byte == b'\n' {
                    on_line(&without_colours(&line));
                    line.clear();
                } else if line.len() < LINE_LIMIT {
                    line.push(byte);
                }
            }
        }
        if !line.is_empty() {
            on_line(&without_colours(&line));
            writeln!(out)?;
        }
        let output = reader.try_wait()?.context("output ended but the process did not")?;
        Ok(output.status)
    }

    /// Run it behind one progress line, and show its output only if it fails.
    pub(crate) fn quietly(&self, title: &str) -> Result<()> {
        let begun = Instant::now();
        let progress = ProgressBar::new_spinner().with_message(title.to_owned());
        if let Ok(style) = ProgressStyle::with_template("  {spinner} {msg} ({elapsed})") {
            progress.set_style(style);
        }
        if io::stderr().is_terminal() {
            progress.enable_steady_tick(Duration::from_millis(120));
        } else {
            println!("  {title} ...");
        }
        let output = self.expression.stderr_to_stdout().stdout_capture().unchecked().run();
        progress.finish_and_clear();
        let output = output.with_context(|| self.not_started())?;
        if !output.status.success() {
            bail!(
                "{title} failed ({}); the end of its output:\n{}",
                output.status,
                last_lines(&String::from_utf8_lossy(&output.stdout), LINES_ON_FAILURE)
            );
        }
        println!("  {title}: done in {:.0} s", begun.elapsed().as_secs_f64());
        Ok(())
    }

    /// What it prints on standard output, or nothing if it cannot be run or fails.
    pub(crate) fn output(&self) -> Option<String> {
        self.expression.stderr_null().read().ok()
    }

    /// Its exit code, and what it prints on both outputs.
    pub(crate) fn said(&self) -> Result<(Option<i32>, String)> {
        let output = self.expression.stderr_to_stdout().stdout_capture().unchecked().run();
        let output = output.with_context(|| self.not_started())?;
        Ok((output.status.code(), String::from_utf8_lossy(&output.stdout).into_owned()))
    }

    fn not_started(&self) -> String {
        format!("cannot start `{}`", self.text)
    }
}

fn last_lines(text: &str, number: usize) -> String {
    let lines: Vec<&str> = text.lines().collect();
    let skipped = lines.len().saturating_sub(number);
    lines[skipped..].join("\n")
}

fn without_colours(line: &[u8]) -> String {
    console::strip_ansi_codes(&String::from_utf8_lossy(line)).trim_end().to_owned()
}

/// Where a program is, looking beyond the path as root's path does.
pub(crate) fn find(program: &str) -> Option<PathBuf> {
    which::which_in(program, search_path(), workspace()).ok()
}

/// The path with the directories of system tools added.
pub(crate) fn search_path() -> Option<OsString> {
    let path = env::var_os("PATH").unwrap_or_default();
    let system = SYSTEM_DIRECTORIES.iter().map(PathBuf::from);
    env::join_paths(env::split_paths(&path).chain(system)).ok()
}

/// Whether this process runs as root.
pub(crate) fn is_root() -> bool {
    // The owner of /proc/self is the effective user.
    fs::metadata("/proc/self").is_ok_and(|metadata| metadata.uid() == 0)
}

#[cfg(test)]
mod tests {
    use std::{
        io::{BufRead as _, BufReader},
        process::Stdio,
    };

    use anyhow::ensure;

    use super::*;

    #[test]
    fn lines_of_both_streams_are_seen_without_colours() -> Result<()> {
        let mut lines = Vec::new();
        let script =
            r"printf '\033[32mgreen\033[0m\n'; echo no newline at the end >&2; printf last";
        let mut shown = Vec::new();
        let status = command("sh", ["-c", script]).stream_to(&mut shown, |line| {
            lines.push(line.to_owned());
        })?;
        assert!(status.success() && shown.starts_with(b"\x1b[32mgreen"));
        assert_eq!(lines, ["green", "no newline at the end", "last"]);
        Ok(())
    }

    #[test]
    fn a_failing_command_reports_its_status_and_output() {
        assert!(!command("false", [""; 0]).stream(|_| ()).expect("false runs").success());
        let error = command("sh", ["-c", "seq 1000; echo why; exit 3"]).quietly("trying");
        let error = error.unwrap_err().to_string();
        assert!(error.contains("exit status: 3") && error.ends_with("why"), "{error}");
        assert!(error.lines().count() < 30, "{error}");
    }

    #[test]
    fn what_does_not_end_in_time_is_ended() {
        if io::stdin().is_terminal() {
            // Then there is no limit.
            return;
        }
        let command = command_within(Duration::from_secs(1), "sh", ["-c", "sleep 60; echo late"]);
        let status = command.stream_to(&mut Vec::new(), |line| panic!("{line}"));
        assert_eq!(status.expect("sh runs").code(), Some(TIMED_OUT));
    }

    /// A second run of the test below is the process that is killed.
    const VICTIM: &str = "XTASK_TEST_VICTIM";

    #[test]
    fn what_is_mortal_does_not_outlive_a_killed_parent() -> Result<()> {
        if find("setpriv").is_none() {
            return Ok(());
        }
        if env::var_os(VICTIM).is_some() {
            let script = "echo begun; read line; echo outlived";
            mortal(Path::new("/bin/sh")).args(["-c", script]).status()?;
            return Ok(());
        }
        let name = "process::tests::what_is_mortal_does_not_outlive_a_killed_parent";
        let mut victim = process::Command::new(env::current_exe()?)
            .args(["--exact", name, "--nocapture"])
            .env(VICTIM, "1")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        let mut orders = victim.stdin.take().context("a pipe")?;
        let mut said = BufReader::new(victim.stdout.take().context("a pipe")?);
        let mut line = String::new();
        while !line.contains("begun") {
            line.clear();
            ensure!(said.read_line(&mut line)? > 0, "the script has not begun");
        }
        victim.kill()?;
        victim.wait()?;
        // Whoever is left goes on now; the pipe may already have no reader.
        let _ = orders.write_all(b"\n");
        drop(orders);
        let mut rest = String::new();
        said.read_to_string(&mut rest)?;
        assert!(!rest.contains("outlived"), "{rest}");
        Ok(())
    }

    #[test]
    fn a_program_that_does_not_exist_is_named() {
        let error = command("no-such-program", ["it"]).stream(|_| ()).unwrap_err();
        assert!(format!("{error:#}").contains("`no-such-program it`"));
        assert_eq!(find("no-such-program"), None);
    }
}
