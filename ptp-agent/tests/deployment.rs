//! What docs/deploy holds, against what the agent is. Prometheus and Grafana: each query of the alert
//! rules and of the dashboard names metrics and labels that exist, each alarm has its rule and its
//! page. systemd, containers and Kubernetes: the same capabilities everywhere, and no key twice.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    io::{self, Write as _},
    path::{Path, PathBuf},
    process::Command,
};

use ptp_agent::{
    engine::{PortState, counters::Drop as Cause, strategy::Strategy, unicast::service::Verdict},
    publish::{
        alarms::Alarm,
        management::{ManagementFigures, Outcome as ManagementOutcome},
        metrics::{
            CapturePoint, Direction, FAMILIES, Forwarding, Histogram, HostClock, LinkMetrics,
            Metrics, NtpFigures, NtsFigures, PulseFigures, SourceFigures, StampOutcome,
            SyncEFigures, UnicastFigures, Way,
        },
        snapshot::{DpllStatus, EsmcStatus},
    },
    servo::ServoState,
    stamp::StampSource,
};
use ptp_common::{
    residence::{Outcome, TYPES},
    wire::{ClockIdentity, MessageType, PortIdentity},
};
use serde::Deserialize;
use serde_json::Value;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

fn read(path: &str) -> String {
    let file = root().join(path);
    fs::read_to_string(&file).unwrap_or_else(|error| panic!("{}: {error}", file.display()))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Rules {
    groups: Vec<Group>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Group {
    name: String,
    rules: Vec<Rule>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Rule {
    alert: String,
    expr: String,
    #[serde(default, rename = "for")]
    _wait: Option<String>,
    labels: BTreeMap<String, String>,
    annotations: BTreeMap<String, String>,
}

fn rules() -> Vec<Rule> {
    let text = read("docs/deploy/prometheus-rules.yml");
    let rules: Rules = serde_saphyr::from_str(&text).unwrap();
    assert!(rules.groups.iter().all(|group| group.name.starts_with("ptp-agent")));
    rules.groups.into_iter().flat_map(|group| group.rules).collect()
}

fn dashboard() -> Value {
    serde_json::from_str(&read("docs/deploy/grafana-dashboard.json")).unwrap()
}

/// The panels that show something, without the rows' headings.
fn panels(dashboard: &Value) -> impl Iterator<Item = &Value> {
    let panels = dashboard["panels"].as_array().unwrap().iter();
    panels.filter(|panel| panel["type"] != "row")
}

/// All queries: where they stand, and with Grafana's variables filled in.
fn queries() -> Vec<(String, String)> {
    let mut queries: Vec<_> = rules().into_iter().map(|rule| (rule.alert, rule.expr)).collect();
    let dashboard = dashboard();
    for panel in panels(&dashboard) {
        for target in panel["targets"].as_array().unwrap() {
            let query = target["expr"].as_str().unwrap();
            let query = query.replace("$__rate_interval", "1m");
            let query = ["instance", "interface", "domain"]
                .iter()
                .fold(query, |query, name| query.replace(&format!("${name}"), ".*"));
            assert!(!query.contains('$'), "{query}");
            queries.push((panel["title"].as_str().unwrap().to_owned(), query));
        }
    }
    queries
}

/// What is exported, by name of the series: labels and their values.
fn exported() -> BTreeMap<String, BTreeMap<String, BTreeSet<String>>> {
    let metrics = Metrics::new();
    for state in PortState::ALL {
        assert!(metrics.update("eth0", 0, |figures| {
            figures.port_state = Some(state);
            figures.servo_state = Some(ServoState::Unlocked);
            figures.strategy = Some(Strategy::Plain);
            figures.offset_from_master_seconds = Some(0.0);
            figures.mean_path_delay_seconds = Some(0.0);
            figures.clock_frequency_adjustment_ratio = Some(0.0);
            figures.clock_error_bound_seconds = Some(0.0);
            figures.clock_precision_seconds = Some(0.0);
            figures.causal_interval_seconds = Some([0.0; 2]);
            figures.host_clock = Some(HostClock::default());
            figures.set_parent(ClockIdentity::default(), PortIdentity::default());
            figures.last_sample_timestamp_seconds = Some(0.0);
            figures.priming = Some(true);
            for direction in [Direction::Rx, Direction::Tx] {
                for kind in MessageType::ALL {
                    figures.set_messages(direction, kind, 1);
                }
                let source = StampSource::Stack;
                for outcome in [
                    StampOutcome::Matched,
                    StampOutcome::Orphaned,
                    StampOutcome::Duplicate,
                    StampOutcome::Late,
                    StampOutcome::Interrupted,
                ] {
                    figures.set_timestamps(direction, source, outcome, 1);
                }
                let point = CapturePoint { is_chosen: true, noise_seconds: Some(0.0) };
                figures.capture_points.insert((direction, source), point);
                figures.timestamp_differences.insert((direction, source), Histogram::default());
            }
            figures.answers.insert(("kernel", "answered"), 1);
            figures.link = LinkMetrics {
                delay_seconds: Some(0.0),
                neighbor_rate_ratio: Some(0.0),
                is_capable: Some(true),
                capable_changes: Some(0),
            };
            figures.unicast = UnicastFigures {
                clients: Some(1),
                servers: [("followed", 1), ("announced", 1), ("unanswered", 1)].into(),
                grants: [((Direction::Rx, "sync"), 1), ((Direction::Tx, "sync"), 1)].into(),
                requests: Verdict::ALL.iter().map(|verdict| (verdict.name(), 1)).collect(),
                messages: [("in_time", 1), ("late", 1)].into(),
            };
            for outcome in ["sync", "delay", "peer_delay"] {
                figures.set_exchanges(outcome, 1);
            }
            for cause in Cause::ALL {
                figures.set_exchanges(cause.name(), 1);
            }
        }));
    }
    metrics.set_ring_lost(0);
    metrics.set_sources(SourceFigures { followed: Some(("ptp", 0)), ..SourceFigures::default() });
    metrics.set_ntp_requests([("basic", 1)].into());
    let server = NtpFigures {
        offset_seconds: Some(0.0),
        delay_seconds: Some(0.0),
        root_distance_seconds: Some(0.0),
        stratum: Some(1),
        requests: 1,
        exchanges: 1,
        nts: Some(NtsFigures::default()),
        is_answering: Some(true),
    };
    metrics.set_ntp_servers([("192.0.2.1".to_owned(), server)].into());
    let heard = EsmcStatus {
        interface: "eth0".to_owned(),
        level: Some("QL-PRC".into()),
        rank: Some(3),
        ..EsmcStatus::default()
    };
    metrics.set_synce(SyncEFigures::new(&[heard], &[DpllStatus::default()]));
    metrics.set_management(ManagementFigures {
        requests: ManagementOutcome::ALL.iter().map(|outcome| (outcome.name(), 1)).collect(),
        slave_events: [("sent", 1)].into(),
        ..ManagementFigures::default()
    });
    metrics.set_pulse(Some(PulseFigures {
        offset_seconds: Some(0.0),
        pulses: [("used", 1)].into(),
        sentences: [("named", 1)].into(),
        fix: Some(true),
        ..PulseFigures::default()
    }));
    metrics.set_alarms(Alarm::ALL.iter().map(|alarm| (alarm.name(), false)));
    let messages = TYPES
        .iter()
        .flat_map(|kind| Outcome::ALL.iter().map(move |outcome| ((*kind, outcome.name()), 1)));
    let forwarding = Forwarding {
        residence: Way::ALL.map(|way| (way, (vec![1], 1))).into(),
        messages: messages.collect(),
    };
    metrics.set_forwarding([("eth0".to_owned(), forwarding)].into());
    let text = String::from_utf8(metrics.encode().unwrap()).unwrap();
    // What Prometheus adds for each target.
    let mut exported = BTreeMap::from([("up".to_owned(), BTreeMap::new())]);
    for line in text.lines().filter(|line| !line.starts_with('#')) {
        let (series, _) = line.rsplit_once(' ').unwrap();
        let (name, labels) = series.trim_end_matches('}').split_once('{').unwrap_or((series, ""));
        let known = exported.entry(name.to_owned()).or_default();
        for label in labels.split(',').filter(|label| !label.is_empty()) {
            let (label, value) = label.split_once('=').unwrap();
            let values: &mut BTreeSet<String> = known.entry(label.to_owned()).or_default();
            values.insert(value.trim_matches('"').to_owned());
        }
    }
    exported
}

/// What a query asks of a label: name, operator, value.
type Matcher<'a> = (&'a str, &'a str, &'a str);

/// The metrics that a query names, each with what it asks of the labels.
/// That the rest of it is PromQL, promtool says of the rules and a real Prometheus of the dashboard.
fn selectors(query: &str) -> Vec<(&str, Vec<Matcher<'_>>)> {
    let is_of_name = |letter: char| letter.is_ascii_alphanumeric() || "_:".contains(letter);
    let mut selectors = Vec::new();
    for (start, _) in query.match_indices("ptp_").chain(query.match_indices("up{")) {
        if query[..start].ends_with(is_of_name) {
            continue;
        }
        let (name, rest) = query[start..]
            .split_at(query[start..].find(|it| !is_of_name(it)).unwrap_or(query.len() - start));
        let labels =
            rest.strip_prefix('{').map_or("", |rest| rest.split_once('}').expect("closed").0);
        let matchers = labels.split(',').filter(|label| !label.is_empty());
        let matchers = matchers.map(|matcher| {
            let (label, rest) = matcher.split_at(matcher.find(['=', '!']).expect("an operator"));
            let (operator, value) = rest.split_once('"').expect("a quoted value");
            (label.trim(), operator.trim(), value.trim_end().strip_suffix('"').expect("quoted"))
        });
        selectors.push((name, matchers.collect()));
    }
    selectors
}

#[test]
fn selectors_of_a_query_are_found() {
    let query =
        "sum(rate(ptp_a_total{x=\"1\", y=~\"a|b\"}[1m])) / my_ptp_b + up{job!=\"c\"} - ptp_c";
    let expected = [
        ("ptp_a_total", vec![("x", "=", "1"), ("y", "=~", "a|b")]),
        ("ptp_c", vec![]),
        ("up", vec![("job", "!=", "c")]),
    ];
    assert_eq!(selectors(query), expected);
}

#[test]
fn every_query_names_metrics_and_labels_that_exist() {
    let exported = exported();
    for (place, query) in queries() {
        let selectors = selectors(&query);
        assert!(!selectors.is_empty(), "{place}: {query} asks for nothing");
        for (name, matchers) in selectors {
            let labels = exported.get(name).unwrap_or_else(|| panic!("{place}: no metric {name}"));
            for (label, operator, value) in matchers {
                if ["job", "instance"].contains(&label) {
                    continue;
                }
                let values = labels.get(label);
                let values =
                    values.unwrap_or_else(|| panic!("{place}: {name} has no label {label}"));
                let is_one = ["=", "!="].contains(&operator);
                assert!(!is_one || values.contains(value), "{place}: no {label}={value}");
            }
        }
    }
}

#[test]
fn dashboard_shows_every_metric() {
    let dashboard = dashboard();
    let text = dashboard["panels"].to_string();
    for family in FAMILIES {
        assert!(text.contains(family.name), "{} is not shown", family.name);
    }
}

#[test]
fn dashboard_has_each_panel_in_its_own_place_with_unit_and_explanation() {
    let dashboard = dashboard();
    let mut taken: BTreeSet<(u64, u64)> = BTreeSet::new();
    let mut ids = BTreeSet::new();
    for panel in dashboard["panels"].as_array().unwrap() {
        assert!(ids.insert(panel["id"].as_u64().unwrap()), "{panel}");
        let place = |name: &str| panel["gridPos"][name].as_u64().unwrap();
        for x in place("x")..place("x") + place("w") {
            assert!(x < 24, "{} is wider than the screen", panel["title"]);
            for y in place("y")..place("y") + place("h") {
                assert!(taken.insert((x, y)), "{} covers another panel", panel["title"]);
            }
        }
    }
    for panel in panels(&dashboard) {
        let title = panel["title"].as_str().unwrap();
        assert!(panel["description"].as_str().is_some_and(|text| text.len() > 10), "{title}");
        assert!(panel["fieldConfig"]["defaults"]["unit"].is_string(), "{title}");
    }
}

#[test]
fn every_alarm_has_a_rule_and_a_page() {
    let rules = rules();
    for alarm in Alarm::ALL {
        let selector = format!("ptp_alarm{{alarm=\"{}\"}}", alarm.name());
        let rule = rules.iter().find(|rule| rule.expr.starts_with(&selector));
        let rule = rule.unwrap_or_else(|| panic!("no rule for {}", alarm.name()));
        assert_eq!(rule.annotations["runbook"], alarm.runbook(), "{}", rule.alert);
        let page = read(alarm.runbook());
        assert!(page.starts_with(&format!("# Alarm `{}`\n", alarm.name())));
        let index = read("docs/alarms/README.md");
        assert!(index.contains(&format!("({}.md)", alarm.name())), "{}", alarm.name());
    }
}

#[test]
fn every_rule_has_a_severity_a_summary_and_a_page() {
    for rule in rules() {
        assert!(["critical", "warning", "info"].contains(&rule.labels["severity"].as_str()));
        assert!(!rule.annotations["summary"].is_empty(), "{}", rule.alert);
        let runbook = &rule.annotations["runbook"];
        assert!(root().join(runbook).is_file(), "{}: no page {runbook}", rule.alert);
    }
}

#[test]
fn promtool_accepts_the_rules_and_their_unit_tests_pass() {
    for arguments in [
        ["check", "rules", "--lint-fatal", "prometheus-rules.yml"].as_slice(),
        &["test", "rules", "prometheus-rules-test.yml"],
    ] {
        let mut command = Command::new("promtool");
        let output = command.args(arguments).current_dir(root().join("docs/deploy")).output();
        let output = match output {
            Ok(output) => output,
            Err(error) => {
                let _ = writeln!(io::stderr(), "skipped: promtool cannot be started: {error}");
                return;
            }
        };
        let said = [output.stdout, output.stderr].concat();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&said));
    }
}

#[test]
fn every_rule_is_in_the_unit_tests() {
    let tests = read("docs/deploy/prometheus-rules-test.yml");
    for rule in rules() {
        let fires = format!("alertname: {}\n", rule.alert);
        assert!(tests.contains(&fires), "{} is never tested to fire", rule.alert);
    }
}

/// The capabilities of a line of the unit.
fn of_unit(unit: &str, key: &str) -> BTreeSet<String> {
    let line = unit.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix('='));
    line.unwrap_or_default().split_whitespace().map(str::to_owned).collect()
}

/// The documents of the Kubernetes file by their kind; a key that is there twice is an error.
fn manifests() -> BTreeMap<String, Value> {
    let text = read("docs/deploy/kubernetes.yml");
    let documents: Vec<Value> = serde_saphyr::from_multiple(&text).unwrap();
    let named = |document: Value| (document["kind"].as_str().unwrap().to_owned(), document);
    documents.into_iter().map(named).collect()
}

#[test]
fn unit_container_and_daemon_set_give_the_same_capabilities() {
    let unit = read("docs/deploy/ptp-agent.service");
    let needed = of_unit(&unit, "AmbientCapabilities");
    assert_eq!(needed, of_unit(&unit, "CapabilityBoundingSet"));
    assert_eq!(needed.len(), 5, "{needed:?}");

    let manifests = manifests();
    let container = &manifests["DaemonSet"]["spec"]["template"]["spec"]["containers"][0];
    let given = container["securityContext"]["capabilities"]["add"].as_array().unwrap();
    let given = given.iter().map(|name| format!("CAP_{}", name.as_str().unwrap()));
    assert_eq!(needed, given.collect());

    for file in ["docs/deploy/Containerfile", "docs/guide/containers.md"] {
        let text = read(file);
        let given = text.split("--cap-add ").skip(1);
        let given: BTreeSet<String> = given
            .map(|rest| format!("CAP_{}", rest.split_whitespace().next().unwrap()))
            // What steering the clock needs is named beside.
            .filter(|name| name != "CAP_SYS_TIME")
            .collect();
        assert_eq!(needed, given, "{file}");
    }
}

#[test]
fn service_monitor_finds_the_service_and_the_service_the_pods() {
    let manifests = manifests();
    let daemons = &manifests["DaemonSet"]["spec"];
    let labels = &daemons["template"]["metadata"]["labels"];
    let service = &manifests["Service"];
    assert_eq!(&daemons["selector"]["matchLabels"], labels);
    assert_eq!(&service["spec"]["selector"], labels);
    let monitor = &manifests["ServiceMonitor"]["spec"];
    assert_eq!(monitor["selector"]["matchLabels"], service["metadata"]["labels"]);
    assert_eq!(monitor["endpoints"][0]["port"], service["spec"]["ports"][0]["name"]);
    // Rules and dashboard select by it; the operator takes the service's name for the job.
    assert_eq!(service["metadata"]["name"], "ptp-agent");
    let container = &daemons["template"]["spec"]["containers"][0];
    assert_eq!(service["spec"]["ports"][0]["targetPort"], container["ports"][0]["name"]);
    assert_eq!(daemons["template"]["spec"]["hostNetwork"], true);
}

#[test]
fn transparent_clock_of_a_node_has_what_it_needs_and_no_more() {
    let text = read("docs/deploy/kubernetes-transparent.yml");
    let document: Value = serde_saphyr::from_str(&text).unwrap();
    let pod = &document["spec"]["template"]["spec"];
    assert_eq!(pod["hostNetwork"], true);
    let container = &pod["containers"][0];
    let given = container["securityContext"]["capabilities"]["add"].as_array().unwrap();
    let given: Vec<_> = given.iter().map(|name| name.as_str().unwrap()).collect();
    assert_eq!(given, ["BPF", "NET_ADMIN", "PERFMON", "NET_RAW"]);
    let mut help = Command::new(env!("CARGO_BIN_EXE_ptp-agent"));
    let help = help.args(["transparent", "--help"]).output().unwrap();
    let help = String::from_utf8(help.stdout).unwrap();
    for argument in container["args"].as_array().unwrap() {
        let argument = argument.as_str().unwrap();
        let option = argument.split('=').next().unwrap();
        let is_known = help.contains(option) || argument.starts_with("--log-format");
        assert!(is_known || argument == "transparent", "{argument}");
    }
    for name in given {
        assert!(help.contains(&format!("CAP_{name}")), "{name}");
    }
}

#[test]
fn configuration_in_the_cluster_can_be_used() {
    let manifests = manifests();
    let text = manifests["ConfigMap"]["data"]["ptp-agent.toml"].as_str().unwrap();
    let file = tempfile::NamedTempFile::new().unwrap();
    fs::write(file.path(), text).unwrap();
    let mut check = Command::new(env!("CARGO_BIN_EXE_ptp-agent"));
    let output = check.args(["config", "check"]).arg(file.path()).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}
