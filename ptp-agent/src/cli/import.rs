//! `ptp-agent config import`: a configuration of linuxptp's as one of the agent's, for a person who
//! goes through what has no counterpart, or as JSON for a program.

use std::{
    io::{self, Write as _},
    path::Path,
    process::ExitCode,
};

use serde_json::json;

use super::{BAD_USAGE, check_configuration, config, merge::UsageError};
use crate::linuxptp::{Note, Problem, Role, Translation, translate};
use crate::publish::Format;

/// Widest line of a comment.
const WIDTH: usize = 98;

pub(super) fn run(path: &Path, format: Format) -> anyhow::Result<ExitCode> {
    let text = config::text(path).map_err(UsageError::from)?;
    let translation = translate(&text);
    let is_wrong = translation.notes.iter().any(|note| note.problem.is_error());
    let path = path.display().to_string();
    let file = file(&path, &translation);
    // What is made here can be used, or this program is at fault.
    check_configuration(&file).map_err(|problem| anyhow::anyhow!("translated badly: {problem}"))?;
    let mut log = io::stderr().lock();
    for note in &translation.notes {
        // Nobody to tell if standard error is closed.
        let _ = writeln!(log, "{path}:{}: {}", note.line, line(note));
    }
    let mut output = io::stdout().lock();
    let written = if format.is_json() {
        let notes = translation.notes.iter().map(|note| {
            let Note { line, problem, section, option, value, text } = note;
            json!({
                "event": "note", "line": line, "problem": problem, "section": section,
                "option": option, "value": value, "text": text,
            })
        });
        let result = json!({
            "event": "configuration",
            "command": translation.role,
            "needless": translation.needless,
            "toml": if is_wrong { None } else { Some(&file) },
        });
        notes.chain([result]).try_for_each(|event| writeln!(output, "{event}"))
    } else if is_wrong {
        Ok(())
    } else {
        output.write_all(file.as_bytes())
    };
    match written {
        // The reader had enough: not our failure.
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => {}
        written => written?,
    }
    if is_wrong {
        let _ = writeln!(log, "ptp-agent: {path}: ptp4l would not take this file either");
        return Ok(ExitCode::from(BAD_USAGE));
    }
    Ok(ExitCode::SUCCESS)
}

/// The configuration, with what there is to know as comments.
fn file(path: &str, translation: &Translation) -> String {
    let command = match translation.role {
        Role::Run => "run",
        Role::Serve => "serve",
    };
    let mut file = String::new();
    comment(&mut file, &format!("Translated from {path:?}; for `ptp-agent {command} --config`."));
    comment(
        &mut file,
        "`ptp-agent config show FILE` shows it among all keys with their explanations.",
    );
    if translation.needless > 0 {
        let needless = translation.needless;
        comment(&mut file, &format!("{needless} options are as the agent does it anyway."));
    }
    if translation.table.get("run").and_then(|run| run.get("servo")).is_some() {
        comment(&mut file, "Without `servo` the agent uses its own, adaptive one.");
    }
    if !translation.notes.is_empty() {
        file += "#\n# Without counterpart:\n";
        for note in &translation.notes {
            comment(&mut file, &format!("line {}: {}", note.line, line(note)));
        }
    }
    file.push('\n');
    file += &translation.table.to_string();
    file
}

/// A note in one line that has nothing but printable characters, whatever the file has.
fn line(note: &Note) -> String {
    let Note { section, option, value, text, .. } = note;
    let place = if section.is_empty() { String::new() } else { format!("[{section}] ") };
    let value = if value.is_empty() { String::new() } else { format!(" {value}") };
    let problem = match note.problem {
        Problem::NoCounterpart => "",
        Problem::Unknown => "unknown: ",
        Problem::BadValue => "bad value: ",
        Problem::Syntax => "syntax: ",
    };
    format!("{place}{option}{value}: {problem}{text}").chars().flat_map(printable).collect()
}

fn printable(character: char) -> impl Iterator<Item = char> {
    let escaped = character.is_control().then(|| character.escape_default());
    let plain = escaped.is_none().then_some(character);
    escaped.into_iter().flatten().chain(plain)
}

fn comment(file: &mut String, text: &str) {
    let mut length = WIDTH;
    let mut is_first = true;
    for word in text.split(' ') {
        if length + word.len() >= WIDTH {
            if !is_first {
                file.push('\n');
            }
            file.push_str(if is_first { "#" } else { "#  " });
            length = 3;
            is_first = false;
        }
        file.push(' ');
        file.push_str(word);
        length += word.chars().count() + 1;
    }
    file.push('\n');
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn result_can_be_used_and_says_what_is_missing() {
        let text = "[global]\nuser nobody\nuserDescription a\u{1b}b\ndomainNumber 4\n[eth0]\n";
        let file = file("ptp4l.conf", &translate(text));
        check_configuration(&file).unwrap();
        assert!(file.contains("# line 2: [global] user nobody: the service manager starts it"));
        assert!(file.contains("a\\u{1b}b"), "{file}");
        assert!(file.contains("domain = 4\n"));
    }

    /// The configurations that linuxptp ships, where it is installed.
    #[test]
    fn samples_of_linuxptp_become_configurations_that_can_be_used() {
        let mut files: Vec<_> = std::fs::read_dir("/usr/share/doc/linuxptp/configs")
            .into_iter()
            .flatten()
            .filter_map(|entry| Some(entry.ok()?.path()))
            .filter(|path| path.extension().is_some_and(|extension| extension == "cfg"))
            .collect();
        files.push("/etc/linuxptp/ptp4l.conf".into());
        let mut seen = 0;
        for path in files {
            let Ok(text) = std::fs::read_to_string(&path) else { continue };
            seen += 1;
            let translation = translate(&text);
            let name = path.display().to_string();
            for note in &translation.notes {
                let is_of_another = name.contains("ts2phc") && note.problem == Problem::Unknown;
                let is_fine = note.problem == Problem::NoCounterpart || is_of_another;
                assert!(is_fine, "{name}: {note:?}");
            }
            check_configuration(&file(&name, &translation)).unwrap();
        }
        if seen == 0 {
            let _ = writeln!(
                io::stderr(),
                "skipped: linuxptp's sample configurations are not installed"
            );
        }
    }

    #[test]
    fn long_lines_are_broken_between_words() {
        let mut file = String::new();
        comment(&mut file, &"word ".repeat(60));
        assert!(file.lines().count() > 2);
        assert!(
            file.lines().all(|line| line.starts_with('#') && line.len() <= WIDTH + 4),
            "{file}"
        );
    }

    proptest! {
        #[test]
        fn whatever_the_file_has_the_result_can_be_used(text in "(\\[[a-z]{1,9}\\]\n|[a-zA-Z_]{1,9} [ -~]{0,9}\n|\\PC{0,20}\n|\\[global\\]\n(domainNumber|uds_address|refclock_sock_address|clock_servo|delay_filter_length|max_frequency|step_threshold|ntpshm_segment) [ -~]{0,9}\n){0,9}") {
            let translation = translate(&text);
            check_configuration(&file("a\nb", &translation)).unwrap();
            for note in &translation.notes {
                prop_assert!((1..=text.lines().count()).contains(&note.line));
            }
        }
    }
}
