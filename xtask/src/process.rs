//! Running other programs: finding them, showing their output while reading it, and running slow
//! ones behind a progress line. Everything that `xtask` starts goes through here.

use std::{
    env,
    ffi::OsString,
    fs,
    io::{self, IsTerminal, Read, Write},
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    process::ExitStatus,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};
use duct::Expression;
use indicatif::{ProgressBar, ProgressStyle};

/// Debian keeps these off the path of users other than root, and several of the tools live there.
const SYSTEM_DIRECTORIES: [&str; 3] = ["/usr/local/sbin", "/usr/sbin", "/sbin"];

/// Longest line of a child's output that is looked at; the rest of a longer one is only shown.
const LINE_LIMIT: usize = 64 * 1024;

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

/// The cargo that started `xtask`.
pub(crate) fn cargo_program() -> OsString {
    env::var_os("CARGO").unwrap_or_else(|| "cargo".into())
}

/// `cargo` in the workspace, with the arguments given and no standard input.
pub(crate) fn cargo<I, S>(arguments: I) -> Expression
where
    I: IntoIterator<Item = S>,
    S: Into<OsString>,
{
    command(cargo_program(), arguments)
}

/// A program in the workspace, with the arguments given and no standard input.
pub(crate) fn command<I, S>(program: impl Into<OsString>, arguments: I) -> Expression
where
    I: IntoIterator<Item = S>,
    S: Into<OsString>,
{
    command_in(&workspace(), program, arguments)
}

/// A program in a directory, with the arguments given and no standard input.
pub(crate) fn command_in<I, S>(
    directory: &Path,
    program: impl Into<OsString>,
    arguments: I,
) -> Expression
where
    I: IntoIterator<Item = S>,
    S: Into<OsString>,
{
    let program: OsString = program.into();
    duct::cmd(program, arguments.into_iter().map(Into::<OsString>::into))
        .dir(directory)
        .stdin_null()
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

/// Run a command, pass its output (standard error merged into standard output) straight on, and show
/// each line of it, without colours, to `on_line`.
pub(crate) fn stream(command: &Expression, on_line: impl FnMut(&str)) -> Result<ExitStatus> {
    stream_to(&mut io::stdout().lock(), command, on_line)
}

fn stream_to(
    out: &mut impl Write,
    command: &Expression,
    mut on_line: impl FnMut(&str),
) -> Result<ExitStatus> {
    let reader = command
        .stderr_to_stdout()
        .unchecked()
        .reader()
        .with_context(|| format!("cannot start {command:?}"))?;
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

fn without_colours(line: &[u8]) -> String {
    console::strip_ansi_codes(&String::from_utf8_lossy(line)).trim_end().to_owned()
}

/// Run a slow command behind one progress line, and show its output only when it fails.
pub(crate) fn quietly(title: &str, command: &Expression) -> Result<()> {
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
    let output = command.stderr_to_stdout().stdout_capture().unchecked().run();
    progress.finish_and_clear();
    let output = output.with_context(|| format!("cannot start {command:?}"))?;
    if !output.status.success() {
        bail!(
            "{title} failed ({}); its output:\n{}",
            output.status,
            String::from_utf8_lossy(&output.stdout).trim_end()
        );
    }
    println!("  {title}: done in {:.0} s", begun.elapsed().as_secs_f64());
    Ok(())
}

/// What a command prints on standard output, or nothing when it cannot be run or fails.
pub(crate) fn output_of(command: &Expression) -> Option<String> {
    command.stderr_null().read().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_both_streams_are_seen_without_colours() -> Result<()> {
        let mut lines = Vec::new();
        let script =
            r"printf '\033[32mgreen\033[0m\n'; echo no newline at the end >&2; printf last";
        let mut shown = Vec::new();
        let status = stream_to(&mut shown, &command("sh", ["-c", script]), |line| {
            lines.push(line.to_owned());
        })?;
        assert!(status.success() && shown.starts_with(b"\x1b[32mgreen"));
        assert_eq!(lines, ["green", "no newline at the end", "last"]);
        Ok(())
    }

    #[test]
    fn a_failing_command_reports_its_status_and_output() {
        assert!(!stream(&command("false", [""; 0]), |_| ()).expect("false runs").success());
        let error = quietly("trying", &command("sh", ["-c", "echo why; exit 3"])).unwrap_err();
        assert!(error.to_string().contains("why") && error.to_string().contains('3'), "{error}");
    }

    #[test]
    fn a_program_that_does_not_exist_is_named() {
        let error = stream(&command("no-such-program", [""; 0]), |_| ()).unwrap_err();
        assert!(format!("{error:#}").contains("no-such-program"));
        assert_eq!(find("no-such-program"), None);
    }
}
