//! Many agents, one Prometheus: five hosts on a switch follow one grandmaster, but one of them, whose wire leads
//! to another one that is ten milliseconds ahead. It is locked and content. The fleet's rules name it, the pair
//! bounds are those of the agents, and `trace` asks this Prometheus what spans of these hosts are worth.
//! Needs root.

use std::{
    fs,
    net::{Ipv4Addr, SocketAddr},
    thread,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use bpf_tests::{
    agent::{Agent, binary, run_to_end},
    in_company,
    links::Star,
    need,
    prometheus::{self, Prometheus},
};
use ptp_agent::lab::netns::{Namespace, veth};
use serde_json::{Value, json};

const PATIENCE: Duration = Duration::from_secs(40);
/// The hosts: places of the star. The first is the grandmaster's, the last that of Prometheus.
const HOSTS: std::ops::RangeInclusive<u8> = 2..=6;
/// The one that follows another grandmaster.
const BROKEN: u8 = 6;
const SERVE: &str = "--log-sync-interval -4 --log-announce-interval -2 --log-min-delay-req-interval -4 \
                     --clock virtual --offset";

fn metrics(host: u8) -> SocketAddr {
    (Ipv4Addr::new(192, 0, 2, host), 9319).into()
}

/// Asks until `wanted` accepts the results. Prometheus has nothing to await.
fn query(
    prometheus: &Prometheus<'_>,
    promql: &str,
    wanted: impl Fn(&[Value]) -> bool,
) -> Vec<Value> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let answer = prometheus.ask(promql);
        let results = answer["data"]["result"].as_array().cloned().unwrap_or_default();
        if wanted(&results) {
            return results;
        }
        assert!(Instant::now() < deadline, "{promql}: {answer}");
        thread::sleep(Duration::from_millis(200));
    }
}

fn value(result: &Value) -> f64 {
    result["value"][1].as_str().unwrap().parse().unwrap()
}

fn unix_ns() -> u128 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_nanos()
}

/// A trace: on host 2 a request that the third host answers, and the broken one, and one without an agent.
fn spans(at_ns: u128) -> String {
    let span = |host: &str, id: u32, parent: u32, from: u128, to: u128| {
        json!({
            "resource": {"attributes": [{"key": "host.name", "value": {"stringValue": host}}]},
            "scopeSpans": [{"spans": [{
                "traceId": "000000000000000000000000000000ab",
                "spanId": format!("{id:016x}"),
                "parentSpanId": if parent == 0 { String::new() } else { format!("{parent:016x}") },
                "name": format!("span {id}"),
                "startTimeUnixNano": (at_ns + from + 1).to_string(),
                "endTimeUnixNano": (at_ns + to + 1).to_string(),
            }]}],
        })
    };
    json!({"resourceSpans": [
        span("192.0.2.2", 1, 0, 0, 50_000_000),
        span("192.0.2.3", 2, 1, 5_000_000, 6_000_000),
        span(&format!("192.0.2.{BROKEN}"), 3, 1, 5_000_000, 6_000_000),
        span("192.0.2.99", 4, 1, 5_000_000, 6_000_000),
    ]})
    .to_string()
}

#[test]
fn host_that_silently_follows_another_grandmaster_is_named_and_traces_are_judged_by_it() {
    let _machine = in_company();
    let star = need!(Star::new(7));
    let watcher = &star.leaves[6];
    let rogue = Namespace::new().unwrap();
    let broken = &star.leaves[usize::from(BROKEN) - 1];
    veth(&rogue, "gm0", broken, "ptp0").unwrap();
    rogue.add_address("gm0", Ipv4Addr::new(198, 51, 100, 1).into(), 24).unwrap();
    broken.add_address("ptp0", Ipv4Addr::new(198, 51, 100, 2).into(), 24).unwrap();
    let serve = |namespace: &Namespace, interface: &str, offset: &str| {
        let mut arguments = vec!["serve", "-i", interface];
        arguments.extend(SERVE.split_whitespace().chain([offset]));
        Agent::start(namespace, &arguments)
    };
    let _grandmasters = [serve(&star.leaves[0], "eth0", "0"), serve(&rogue, "gm0", "0.01")];
    let agents: Vec<Agent> = HOSTS
        .map(|host| {
            let address = metrics(host).to_string();
            let interface = if host == BROKEN { "ptp0" } else { "eth0" };
            let run = ["run", "-i", interface, "--clock", "virtual", "--metrics-address", &address];
            Agent::start(&star.leaves[usize::from(host) - 1], &run)
        })
        .collect();
    let targets: Vec<SocketAddr> = HOSTS.map(metrics).collect();
    let rules = ["prometheus-rules.yml", "prometheus-fleet-rules.yml"];
    let prometheus = &need!(Prometheus::scraping(watcher, &targets, &rules));

    // The agents say that all is well, and one of them is of another time.
    query(prometheus, "ptp_servo_state{state=\"locked\"} == 1", |hosts| hosts.len() == 5);
    let count = query(prometheus, "sort_desc(grandmaster:ptp_hosts:count)", |groups| {
        groups.len() == 2 && value(&groups[0]) == 4.0
    });
    assert_eq!(value(&count[1]), 1.0);
    let alert = "ALERTS{alertname=\"PtpFollowsOtherGrandmaster\"}";
    let named = query(prometheus, alert, |alerts| alerts.len() == 1);
    assert_eq!(named[0]["metric"]["instance"], metrics(BROKEN).to_string());

    // What two hosts can order: the worst two by the rule, and any two by hand.
    let worst =
        query(prometheus, "grandmaster:ptp_pair_bound_seconds:max", |pairs| pairs.len() == 1);
    println!("the two worst of four hosts can order what is {} s apart", value(&worst[0]));
    assert!((1e-9..1e-2).contains(&value(&worst[0])), "{worst:?}");
    let dashboard =
        fs::read_to_string(prometheus::deployed("grafana-fleet-dashboard.json")).unwrap();
    let dashboard: Value = serde_json::from_str(&dashboard).unwrap();
    for panel in dashboard["panels"].as_array().unwrap() {
        for target in panel["targets"].as_array().into_iter().flatten() {
            let promql = target["expr"].as_str().unwrap().replace("$host", "192.0.2.2:9319");
            // Series that are empty while all is well.
            let may_be_empty = promql.contains("state!=") || promql.contains("unless");
            let answered = query(prometheus, &promql, |found| may_be_empty || !found.is_empty());
            if promql.contains("group_left ()") {
                assert_eq!(answered.len(), 4, "the broken one cannot be compared: {answered:?}");
            }
        }
    }
    let health = prometheus.get("/api/v1/rules");
    assert!(!health.to_string().contains("\"health\":\"err\""), "{health}");

    // Spans of these hosts, which all stamp with one clock: corrected from Prometheus.
    let at_ns = unix_ns();
    let read_at = format!("min(ptp_host_clock_read_timestamp_seconds) > {}", at_ns as f64 / 1e9);
    query(prometheus, &read_at, |found| !found.is_empty());
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("spans.json");
    fs::write(&file, spans(at_ns)).unwrap();
    let mut command = watcher.command(binary());
    let url = format!("http://{}", prometheus::OWN);
    command.args(["--json", "trace", "--prometheus", &url]).arg(&file);
    let (status, output, log) = run_to_end(command);
    assert!(status.success(), "{output}{log}");
    let lines: Vec<Value> =
        output.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let verdict = |id: u32| {
        let id = format!("{id:016x}");
        let pair =
            lines.iter().find(|line| line["event"] == "pair" && line["second"]["span"] == *id);
        let pair = pair.unwrap_or_else(|| panic!("{output}"));
        (pair["verdict"].as_str().unwrap().to_owned(), pair["reason"].clone(), pair.clone())
    };
    let (told, _, pair) = verdict(2);
    assert_eq!(told, "certain", "{pair}");
    assert!(
        (pair["gap_ns"].as_i64().unwrap() - 5_000_000).abs() <= pair["bound_ns"].as_i64().unwrap()
    );
    assert_eq!(verdict(3).1, "other_grandmaster");
    assert_eq!(verdict(4).1, "no_agent");
    drop(agents);
}
