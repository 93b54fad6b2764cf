//! The result of one check, and how results are shown: a table for people, JSON lines for programs.

use std::io::{self, Write};

use serde::Serialize;

/// How a check ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum Status {
    /// As it should be.
    Ok,
    /// The agent works, but less well than it could.
    Warn,
    /// The agent does not work.
    Fail,
    /// Could not be found out, or does not apply.
    Skip,
}

impl Status {
    const fn name(self) -> &'static str {
        match self {
            Self::Ok => "OK",
            Self::Warn => "WARN",
            Self::Fail => "FAIL",
            Self::Skip => "SKIP",
        }
    }
}

/// One check; a JSON line with `"event":"check"`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "event", rename = "check")]
pub struct Check {
    /// What was checked. Part of the command-line contract.
    pub name: &'static str,
    /// How it ended.
    pub status: Status,
    /// The interface, where it was about one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub interface: Option<String>,
    /// Why, in one line.
    pub reason: String,
    /// What to do, in one line; `null` where there is nothing to do.
    pub advice: Option<String>,
}

impl Check {
    fn new(
        name: &'static str,
        status: Status,
        reason: impl Into<String>,
        advice: Option<String>,
    ) -> Self {
        // What the kernel or the verifier says may have several lines.
        let line = |text: String| text.split_whitespace().collect::<Vec<_>>().join(" ");
        Self {
            name,
            status,
            interface: None,
            reason: line(reason.into()),
            advice: advice.map(line),
        }
    }

    /// All is well.
    pub fn ok(name: &'static str, reason: impl Into<String>) -> Self {
        Self::new(name, Status::Ok, reason, None)
    }

    /// It could be better.
    pub fn warn(name: &'static str, reason: impl Into<String>, advice: impl Into<String>) -> Self {
        Self::new(name, Status::Warn, reason, Some(advice.into()))
    }

    /// Something that is needed is missing.
    pub fn fail(name: &'static str, reason: impl Into<String>, advice: impl Into<String>) -> Self {
        Self::new(name, Status::Fail, reason, Some(advice.into()))
    }

    /// Nothing can be said.
    pub fn skip(name: &'static str, reason: impl Into<String>) -> Self {
        Self::new(name, Status::Skip, reason, None)
    }

    /// The same with something to do.
    #[must_use]
    pub fn advise(mut self, advice: impl Into<String>) -> Self {
        self.advice = Some(advice.into());
        self
    }

    /// The same about an interface.
    #[must_use]
    pub fn on(mut self, interface: &str) -> Self {
        self.interface = Some(interface.to_owned());
        self
    }
}

/// How many checks ended how; the closing JSON line, with `"event":"summary"`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(tag = "event", rename = "summary")]
pub struct Summary {
    /// As they should be.
    pub ok: usize,
    /// Could be better.
    pub warn: usize,
    /// Something needed is missing.
    pub fail: usize,
    /// Nothing could be said.
    pub skip: usize,
}

impl Summary {
    /// Counts.
    pub fn of(checks: &[Check]) -> Self {
        let count = |status| checks.iter().filter(|check| check.status == status).count();
        Self {
            ok: count(Status::Ok),
            warn: count(Status::Warn),
            fail: count(Status::Fail),
            skip: count(Status::Skip),
        }
    }
}

/// Writes checks and summary as JSON lines.
///
/// # Errors
/// What the writer says.
pub(super) fn write_json(checks: &[Check], mut to: impl Write) -> io::Result<()> {
    for check in checks {
        writeln!(to, "{}", serde_json::to_string(check)?)?;
    }
    writeln!(to, "{}", serde_json::to_string(&Summary::of(checks))?)
}

/// Writes checks and summary as a table.
///
/// # Errors
/// What the writer says.
pub(super) fn write_text(checks: &[Check], mut to: impl Write) -> io::Result<()> {
    let width = checks.iter().map(|check| check.name.len()).max().unwrap_or(0);
    let mut interface = None;
    for check in checks {
        if check.interface != interface {
            interface.clone_from(&check.interface);
            if let Some(interface) = &interface {
                writeln!(to, "\n{interface}")?;
            }
        }
        writeln!(to, "{:4}  {:width$}  {}", check.status.name(), check.name, check.reason)?;
        if let Some(advice) = &check.advice {
            writeln!(to, "{:4}  {:width$}  -> {advice}", "", "")?;
        }
    }
    let Summary { ok, warn, fail, skip } = Summary::of(checks);
    writeln!(to, "\n{ok} OK, {warn} WARN, {fail} FAIL, {skip} SKIP")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> Vec<Check> {
        vec![
            Check::ok("smt", "off"),
            Check::warn("mtu", "two\n  lines", "do\nsomething").on("eth0"),
        ]
    }

    #[test]
    fn json_is_one_object_per_line_and_ends_with_the_summary() {
        let mut bytes = Vec::new();
        write_json(&sample(), &mut bytes).unwrap();
        assert_eq!(
            String::from_utf8(bytes).unwrap(),
            concat!(
                r#"{"event":"check","name":"smt","status":"OK","reason":"off","advice":null}"#,
                "\n",
                r#"{"event":"check","name":"mtu","status":"WARN","interface":"eth0","reason":"two lines","advice":"do something"}"#,
                "\n",
                r#"{"event":"summary","ok":1,"warn":1,"fail":0,"skip":0}"#,
                "\n",
            )
        );
    }

    #[test]
    fn table_has_a_line_why_and_a_line_what_to_do() {
        let mut bytes = Vec::new();
        write_text(&sample(), &mut bytes).unwrap();
        assert_eq!(
            String::from_utf8(bytes).unwrap(),
            "OK    smt  off\n\neth0\nWARN  mtu  two lines\n           -> do something\n\n\
             1 OK, 1 WARN, 0 FAIL, 0 SKIP\n"
        );
    }
}
