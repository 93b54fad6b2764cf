//! The laboratory as a user runs it: real processes, real kernel stamps. Needs root, and says so
//! where it skips.

use std::{
    fs,
    path::PathBuf,
    process::{Command, Output},
};

use serde_json::Value;

/// Exit code of a host that lacks what is needed.
const HOST_LACKS: i32 = 3;

fn lab(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_ptp-agent")).arg("lab").args(arguments).output().unwrap()
}

/// Whether the host cannot do this; says why.
fn is_skipped(output: &Output) -> bool {
    let skipped = output.status.code() == Some(HOST_LACKS);
    if skipped {
        eprintln!("skipped: {}", String::from_utf8_lossy(&output.stderr));
    }
    skipped
}

struct Removed(PathBuf);

impl Drop for Removed {
    fn drop(&mut self) {
        // Not there if the test failed before it was written.
        let _ = fs::remove_file(&self.0);
    }
}

#[test]
fn agent_follows_the_drifting_grandmaster_and_the_truth_is_told() {
    let page = Removed(std::env::temp_dir().join(format!("ptp-lab-{}.html", std::process::id())));
    let file = page.0.to_str().unwrap();
    let output = lab(&["--json", "--duration", "15", "--html", file]);
    if is_skipped(&output) {
        return;
    }
    let log = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(0), "{log}");
    let lines: Vec<Value> = output
        .stdout
        .split(|byte| *byte == b'\n')
        .filter(|line| !line.is_empty())
        .map(|line| serde_json::from_slice(line).unwrap())
        .collect();
    let (summary, samples) = lines.split_last().unwrap();
    assert!(samples.iter().all(|line| line["event"] == "sample"));
    assert_eq!(summary["event"], "summary");
    assert_eq!(summary["samples"], samples.len());
    assert!(summary["duration_s"].as_f64().unwrap() > 10.0, "{summary}");

    // The first error is the offset that the grandmaster was given, less the little that it has
    // drifted since.
    let first = samples[0]["true_error_ns"].as_f64().unwrap();
    assert!((-1.501e9..-1.499e9).contains(&first), "{first}");
    // What software stamps allow with orders of magnitude to spare.
    let error = &summary["true_error_ns"];
    assert!(error["p50"].as_f64().unwrap() < 20_000.0, "{summary}");
    assert!(error["p50"].as_f64() <= error["p99"].as_f64(), "{summary}");
    assert!(error["p99"].as_f64() <= error["max"].as_f64(), "{summary}");
    assert!(summary["converged_s"].as_f64().unwrap() < 12.0, "{summary}");
    // There is no wire, and the transmit stamp is taken when the driver has returned: by then the
    // other end has its receive stamp, so the delay is a little below zero.
    let delay = summary["delay_ns"]["p50"].as_f64().unwrap();
    assert!(delay.abs() < 20_000.0, "{summary}");
    assert!(summary["lost"].is_object(), "{summary}");
    for side in ["agent", "grandmaster"] {
        assert!(summary[side]["timestamps"]["tx"].is_object(), "{summary}");
    }

    let html = fs::read_to_string(&page.0).unwrap();
    assert!(html.matches("<svg").count() >= 6 && html.ends_with("</html>"));
}

#[test]
fn nothing_is_left_when_the_laboratory_is_killed() {
    let mut child = Command::new(env!("CARGO_BIN_EXE_ptp-agent"))
        .args(["lab", "--no-html", "--json"])
        .stdout(std::process::Stdio::piped())
        .stderr(std::process::Stdio::null())
        .spawn()
        .unwrap();
    let namespaces = |of: u32| fs::read_link(format!("/proc/{of}/ns/net")).ok();
    let own = namespaces(std::process::id());
    // The first sample says that everything runs.
    let mut line = String::new();
    let mut stdout = std::io::BufReader::new(child.stdout.take().unwrap());
    std::io::BufRead::read_line(&mut stdout, &mut line).unwrap();
    if line.is_empty() {
        assert_eq!(child.wait().unwrap().code(), Some(HOST_LACKS));
        eprintln!("skipped: no network namespaces here");
        return;
    }
    let children = children_of(child.id());
    assert_eq!(children.len(), 2, "{children:?}");
    assert!(children.iter().all(|pid| namespaces(*pid) != own));
    child.kill().unwrap();
    child.wait().unwrap();
    // The kernel kills the children as it ends the parent; their end may take a moment longer.
    let begin = std::time::Instant::now();
    while children.iter().any(|pid| is_running(*pid)) {
        assert!(begin.elapsed().as_secs() < 10, "still there: {children:?}");
        std::thread::yield_now();
    }
}

fn children_of(parent: u32) -> Vec<u32> {
    let processes = fs::read_dir("/proc").unwrap();
    processes
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
        .filter(|pid| stat(*pid).is_some_and(|(_, of)| of == parent))
        .collect()
}

fn is_running(pid: u32) -> bool {
    // A zombie that nobody has waited for is not running any more.
    stat(pid).is_some_and(|(state, _)| state != "Z")
}

/// State and parent of a process: the fields after its name, which stands in parentheses.
fn stat(pid: u32) -> Option<(String, u32)> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let mut fields = stat.rsplit(')').next()?.split_whitespace();
    Some((fields.next()?.to_owned(), fields.next()?.parse().ok()?))
}

#[test]
fn what_a_child_refuses_is_bad_usage_of_the_laboratory() {
    let output = lab(&["--no-html", "--no-tui", "--drift=900"]);
    if is_skipped(&output) {
        return;
    }
    let message = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(2), "{message}");
    assert!(message.contains("--drift"), "{message}");
}

#[test]
fn report_that_cannot_be_written_is_refused_before_the_run() {
    let output = lab(&["--html", "/nonexistent/page.html"]);
    let message = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{message}");
    assert!(message.contains("/nonexistent/page.html"), "{message}");
}

#[test]
fn traces_of_hosts_whose_clocks_are_off_are_never_told_wrong() {
    let arguments =
        "--trace --requests 100 --pause 1000 --trace-offset 1000000 --bound-below 50000 --json";
    let output = lab(&arguments.split_whitespace().collect::<Vec<_>>());
    if is_skipped(&output) {
        return;
    }
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{text}{}", String::from_utf8_lossy(&output.stderr));
    let row: Value = serde_json::from_str(text.trim()).unwrap();
    for told in ["by_host", "at_source"] {
        assert_eq!((&row[told]["pairs"], &row[told]["wrong"]), (&300.into(), &0.into()), "{row}");
    }
    // A hop of a millisecond's error and no more than that shows the effect first.
    assert!(row["uncorrected_wrong"].as_u64().unwrap() > 0, "{row}");
}
