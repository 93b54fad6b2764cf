//! What an operator's tools see of a running agent: Prometheus itself scrapes it and answers queries
//! about it. Needs root.

use std::{
    fs,
    net::{Ipv4Addr, SocketAddr},
    thread,
    time::{Duration, Instant},
};

use bpf_tests::{
    agent::{Agent, http_get},
    children::Running,
    in_company,
    links::Wire,
    need, program,
};
use ptp_agent::lab::netns::Namespace;
use serde_json::Value;

/// How long programs may take to start and to hear of each other.
const PATIENCE: Duration = Duration::from_secs(30);

fn address(port: u16) -> SocketAddr {
    SocketAddr::from((Ipv4Addr::LOCALHOST, port))
}

/// A grandmaster and an agent that follows it with a clock of its own.
fn followed(wire: &Wire, arguments: &[&str]) -> (Agent, Agent) {
    let serve = "serve -i gm0 --log-sync-interval -4 --log-announce-interval -2 \
                 --log-min-delay-req-interval -4";
    let serve: Vec<&str> = serve.split_whitespace().collect();
    let grandmaster = Agent::start(&wire.grandmaster, &serve);
    let run = ["run", "-i", "ptp0", "--clock", "virtual"];
    let arguments: Vec<&str> = run.iter().chain(arguments).copied().collect();
    (grandmaster, Agent::start(&wire.client, &arguments))
}

/// Asks until the answer has a value that `wanted` accepts. Prometheus has nothing to await.
fn query(namespace: &Namespace, promql: &str, wanted: impl Fn(f64) -> bool) -> f64 {
    let escaped: String = promql
        .bytes()
        .map(|byte| match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'_' => char::from(byte).to_string(),
            _ => format!("%{byte:02X}"),
        })
        .collect();
    let deadline = Instant::now() + PATIENCE;
    loop {
        let answer = http_get(namespace, address(9090), &format!("/api/v1/query?query={escaped}"));
        let answer: Value = serde_json::from_str(&answer).expect("Prometheus answers with JSON");
        assert_eq!(answer["status"], "success", "{promql}: {answer}");
        let value = answer["data"]["result"][0]["value"][1].as_str().map(str::parse);
        match value {
            Some(Ok(value)) if wanted(value) => return value,
            _ if Instant::now() > deadline => panic!("{promql}: {answer}"),
            _ => thread::sleep(Duration::from_millis(200)),
        }
    }
}

#[test]
fn prometheus_scrapes_the_agent_and_knows_its_offset() {
    let _machine = in_company();
    let prometheus = need!(program("prometheus"));
    let wire = need!(Wire::new());
    let (_grandmaster, agent) = followed(&wire, &["--metrics-address", "127.0.0.1:9319"]);
    agent.wait_for_samples(0, PATIENCE, 16);
    let directory = tempfile::tempdir().unwrap();
    let config = directory.path().join("prometheus.yml");
    fs::write(
        &config,
        "global: {scrape_interval: 1s}\nscrape_configs:\n- job_name: ptp\n  static_configs:\n  - \
         targets: ['127.0.0.1:9319']\n",
    )
    .unwrap();
    let mut command = wire.client.command(prometheus);
    command
        .arg(format!("--config.file={}", config.display()))
        .arg(format!("--storage.tsdb.path={}", directory.path().join("data").display()))
        .arg("--web.listen-address=127.0.0.1:9090");
    let running = Running::start("prometheus", &mut command);
    running.wait_for_text(0, PATIENCE, "Server is ready to receive web requests");

    let client = &wire.client;
    assert_eq!(query(client, "up{job=\"ptp\"}", |up| up == 1.0), 1.0);
    let offset = query(client, "ptp_offset_from_master_seconds{interface=\"ptp0\"}", |_| true);
    assert!(offset.abs() < 1e-2, "{offset} s");
    let age = "time() - ptp_last_sample_timestamp_seconds";
    assert!(query(client, age, |_| true) < 10.0);
    query(client, "ptp_port_state{state=\"time_receiver\"}", |state| state == 1.0);
    query(client, "rate(ptp_messages_total{direction=\"rx\",type=\"sync\"}[5s])", |rate| {
        (8.0..32.0).contains(&rate)
    });
    let median = "histogram_quantile(0.5, rate(ptp_timestamp_difference_seconds_bucket[5s]))";
    let difference = query(client, median, f64::is_finite);
    assert!(
        (0.0..1e-3).contains(&difference),
        "a program runs after the stack's stamp: {difference}"
    );
    let series = query(client, "count({job=\"ptp\",__name__=~\"ptp_.*\"})", |_| true);
    println!("offset {offset} s, {series} series");
    assert!(series < 500.0, "{series} series");
    let text = http_get(client, address(9319), "/metrics");
    let scrape = query(client, "scrape_duration_seconds", |_| true);
    println!("scrape takes {scrape} s for {} bytes", text.len());
}
