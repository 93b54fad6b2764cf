//! A real Prometheus that scrapes one agent in its namespace, with the alert rules of docs/deploy.

use std::{
    fs,
    net::{Ipv4Addr, SocketAddr},
    path::{Path, PathBuf},
    time::Duration,
};

use ptp_agent::lab::netns::Namespace;
use serde_json::Value;
use tempfile::TempDir;

use crate::{agent::http_get, children::Running, program};

/// Where the agent serves its metrics.
pub const AGENT: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 9319);
/// Where Prometheus answers.
pub const OWN: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 9090);

/// A file of docs/deploy.
///
/// # Panics
/// If it is not there.
pub fn deployed(file: &str) -> PathBuf {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/deploy").join(file);
    path.canonicalize().unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// The dashboard.
///
/// # Panics
/// If it is not there, or no JSON.
pub fn dashboard() -> Value {
    let text = fs::read_to_string(deployed("grafana-dashboard.json")).expect("it can be read");
    serde_json::from_str(&text).expect("the dashboard is JSON")
}

/// The queries of a panel, with Grafana's variables filled in.
pub fn queries(panel: &Value, rate_interval: &str) -> Vec<String> {
    let targets = panel["targets"].as_array().into_iter().flatten();
    let queries = targets.filter_map(|target| target["expr"].as_str()).map(|query| {
        let query = query.replace("$__rate_interval", rate_interval);
        let variables = ["$instance", "$interface", "$domain"];
        variables.iter().fold(query, |query, variable| query.replace(variable, ".*"))
    });
    queries.collect()
}

/// See the module's paragraph.
pub struct Prometheus<'a> {
    namespace: &'a Namespace,
    _running: Running,
    _directory: TempDir,
}

impl<'a> Prometheus<'a> {
    /// Starts it in the agent's namespace, scraping every second, and waits until it answers.
    ///
    /// # Errors
    /// The reason to skip: it is not installed.
    ///
    /// # Panics
    /// If it does not start.
    pub fn start(namespace: &'a Namespace) -> Result<Self, String> {
        Self::scraping(namespace, &[AGENT], &["prometheus-rules.yml"])
    }

    /// The same, scraping `targets`, with these files of rules of docs/deploy.
    ///
    /// # Errors
    /// The reason to skip: it is not installed.
    ///
    /// # Panics
    /// If it does not start.
    pub fn scraping(
        namespace: &'a Namespace,
        targets: &[SocketAddr],
        rules: &[&str],
    ) -> Result<Self, String> {
        let program = program("prometheus")?;
        let directory = tempfile::tempdir().expect("a temporary directory");
        let config = directory.path().join("prometheus.yml");
        let quoted = |items: Vec<String>| format!("['{}']", items.join("', '"));
        let rules = rules.iter().map(|file| deployed(file).display().to_string()).collect();
        let targets = targets.iter().map(ToString::to_string).collect();
        let text = format!(
            "global: {{scrape_interval: 1s, evaluation_interval: 1s}}\nrule_files: {}\n\
             scrape_configs:\n- job_name: ptp-agent\n  static_configs:\n  - targets: {}\n",
            quoted(rules),
            quoted(targets),
        );
        fs::write(&config, text).expect("a file in an own directory");
        let mut command = namespace.command(program);
        command
            .arg(format!("--config.file={}", config.display()))
            .arg(format!("--storage.tsdb.path={}", directory.path().join("data").display()))
            .arg(format!("--web.listen-address={OWN}"));
        let running = Running::start("prometheus", &mut command);
        let patience = Duration::from_secs(30);
        running.wait_for_text(0, patience, "Server is ready to receive web requests");
        Ok(Self { namespace, _running: running, _directory: directory })
    }

    /// The answer to a request of its interface.
    ///
    /// # Panics
    /// If that is no success.
    pub fn get(&self, path: &str) -> Value {
        let answer = http_get(self.namespace, OWN, path);
        let answer: Value = serde_json::from_str(&answer).expect("Prometheus answers with JSON");
        assert_eq!(answer["status"], "success", "{path}: {answer}");
        answer
    }

    /// What a query gives now.
    ///
    /// # Panics
    /// If it is refused.
    pub fn ask(&self, promql: &str) -> Value {
        self.get(&format!("/api/v1/query?query={}", escaped(promql)))
    }

    /// What a query gave each second from `start` to `end`, Unix time.
    ///
    /// # Panics
    /// If it is refused.
    pub fn history(&self, promql: &str, start: f64, end: f64) -> Value {
        let promql = escaped(promql);
        self.get(&format!("/api/v1/query_range?query={promql}&start={start}&end={end}&step=1"))
    }
}

fn escaped(text: &str) -> String {
    text.bytes()
        .map(|byte| match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'_' => char::from(byte).to_string(),
            _ => format!("%{byte:02X}"),
        })
        .collect()
}
