//! What docs/deploy holds for many agents: the fleet's rules and dashboard name what exists, promtool accepts
//! and tests them, and the kustomization has everything that it says, with the same rules.

use std::{
    collections::BTreeSet,
    fs,
    io::{self, Write as _},
    path::{Path, PathBuf},
    process::{Command, Output},
};

use ptp_agent::publish::metrics::FAMILIES;
use serde_json::Value;

fn deployed(file: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/deploy").join(file)
}

fn read(file: &str) -> String {
    let path = deployed(file);
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn yaml(file: &str) -> Value {
    serde_saphyr::from_str(&read(file)).unwrap_or_else(|error| panic!("{file}: {error}"))
}

/// The rules of a file.
fn rules(file: &str) -> Vec<Value> {
    let groups = yaml(file)["groups"].as_array().unwrap().clone();
    groups.iter().flat_map(|group| group["rules"].as_array().unwrap().clone()).collect()
}

/// Runs a program; says so where it is not there.
fn run(program: &str, arguments: &[&str]) -> Option<Output> {
    match Command::new(program).args(arguments).current_dir(deployed(".")).output() {
        Ok(output) => Some(output),
        Err(error) => {
            let _ = writeln!(io::stderr(), "skipped: {program} cannot be started: {error}");
            None
        }
    }
}

/// Names of metrics in a query: those of the agent, and what is recorded of them.
fn metrics(query: &str) -> BTreeSet<&str> {
    let is_of_name = |letter: char| letter.is_ascii_alphanumeric() || "_:".contains(letter);
    query.split(|letter| !is_of_name(letter)).filter(|word| word.contains("ptp_")).collect()
}

#[test]
fn fleet_queries_name_metrics_that_exist() {
    let rules = rules("prometheus-fleet-rules.yml");
    let recorded: BTreeSet<&str> =
        rules.iter().filter_map(|rule| rule["record"].as_str()).collect();
    let dashboard: Value = serde_json::from_str(&read("grafana-fleet-dashboard.json")).unwrap();
    let panels = dashboard["panels"].as_array().unwrap();
    let shown = panels.iter().flat_map(|panel| panel["targets"].as_array().into_iter().flatten());
    let queries: Vec<&str> =
        rules.iter().chain(shown).map(|one| one["expr"].as_str().unwrap()).collect();
    for query in &queries {
        for name in metrics(query) {
            let is_known =
                recorded.contains(name) || FAMILIES.iter().any(|family| family.name == name);
            assert!(is_known, "{query}: no metric {name}");
        }
    }
    for name in recorded {
        let uses = queries.iter().filter(|query| metrics(query).contains(name)).count();
        assert!(uses > 0, "{name} is recorded for nobody");
    }
}

#[test]
fn fleet_alerts_have_a_severity_a_summary_a_page_and_a_test() {
    let tests = read("prometheus-fleet-rules-test.yml");
    for rule in rules("prometheus-fleet-rules.yml").iter().filter(|rule| rule["alert"].is_string())
    {
        let name = rule["alert"].as_str().unwrap();
        assert!(
            ["critical", "warning", "info"].contains(&rule["labels"]["severity"].as_str().unwrap())
        );
        assert!(rule["annotations"]["summary"].as_str().is_some_and(|text| !text.is_empty()));
        let page = rule["annotations"]["runbook"].as_str().unwrap();
        let text = read(&format!("../../{page}"));
        assert!(text.contains(&format!("`{name}`")), "{page} does not explain {name}");
        assert!(tests.contains(&format!("alertname: {name}\n")), "{name} is never tested to fire");
    }
}

#[test]
fn promtool_accepts_the_fleet_rules_and_their_unit_tests_pass() {
    for arguments in [
        ["check", "rules", "--lint-fatal", "prometheus-fleet-rules.yml"].as_slice(),
        &["test", "rules", "prometheus-fleet-rules-test.yml"],
    ] {
        let Some(output) = run("promtool", arguments) else { return };
        let said = [output.stdout, output.stderr].concat();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&said));
    }
}

#[test]
fn fleet_dashboard_has_each_panel_in_its_own_place_with_unit_and_explanation() {
    let dashboard: Value = serde_json::from_str(&read("grafana-fleet-dashboard.json")).unwrap();
    let (mut taken, mut ids) = (BTreeSet::new(), BTreeSet::new());
    for panel in dashboard["panels"].as_array().unwrap() {
        assert!(ids.insert(panel["id"].as_u64().unwrap()), "{panel}");
        let place = |name: &str| panel["gridPos"][name].as_u64().unwrap();
        for x in place("x")..place("x") + place("w") {
            assert!(x < 24, "{} is wider than the screen", panel["title"]);
            for y in place("y")..place("y") + place("h") {
                assert!(taken.insert((x, y)), "{} covers another panel", panel["title"]);
            }
        }
        if panel["type"] != "row" {
            assert!(panel["description"].as_str().is_some_and(|text| text.len() > 10), "{panel}");
            assert!(panel["fieldConfig"]["defaults"]["unit"].is_string(), "{panel}");
        }
    }
}

/// Files of rules as the Prometheus operator takes them: the same groups, deeper.
fn prometheus_rule() -> String {
    let mut text = "# prometheus-rules.yml and prometheus-fleet-rules.yml as the Prometheus operator takes them. Made of those by\n\
        # `PTP_BLESS=1 cargo test -p ptp-agent --test fleet`.\n\
        apiVersion: monitoring.coreos.com/v1\nkind: PrometheusRule\nmetadata:\n  name: ptp-agent\n  \
        namespace: ptp-agent\n  labels:\n    app.kubernetes.io/name: ptp-agent\nspec:\n  groups:\n"
        .to_owned();
    for file in ["prometheus-rules.yml", "prometheus-fleet-rules.yml"] {
        let rules = read(file);
        let (_, groups) = rules.split_once("\ngroups:\n").unwrap();
        for line in groups.lines().filter(|line| !line.trim_start().starts_with('#')) {
            text.push_str("  ");
            text.push_str(line);
            text.push('\n');
        }
    }
    text
}

#[test]
fn rules_of_the_cluster_are_those_of_the_files() {
    let expected = prometheus_rule();
    if std::env::var_os("PTP_BLESS").is_some() {
        fs::write(deployed("kubernetes-rules.yml"), &expected).unwrap();
    }
    let is_same = read("kubernetes-rules.yml") == expected;
    assert!(is_same, "out of date: PTP_BLESS=1 cargo test -p ptp-agent --test fleet");
    let made: Value = serde_saphyr::from_str(&expected).unwrap();
    let groups = |file| yaml(file)["groups"].as_array().unwrap().len();
    let all = groups("prometheus-rules.yml") + groups("prometheus-fleet-rules.yml");
    assert_eq!(made["spec"]["groups"].as_array().unwrap().len(), all);
}

/// What the kustomization makes, by kind; made by kubectl itself where it is there.
#[test]
fn kustomization_makes_agent_rules_and_dashboards() {
    let kustomization = yaml("kustomization.yaml");
    for resource in kustomization["resources"].as_array().unwrap() {
        assert!(deployed(resource.as_str().unwrap()).is_file(), "{resource}");
    }
    let Some(output) = run("kubectl", &["kustomize", "."]) else { return };
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8(output.stdout).unwrap();
    let made: Vec<Value> = serde_saphyr::from_multiple(&text).unwrap();
    let of_kind = |kind: &str| made.iter().filter(|one| one["kind"] == kind).collect::<Vec<_>>();
    for kind in ["Namespace", "DaemonSet", "Service", "ServiceMonitor", "PrometheusRule"] {
        assert_eq!(of_kind(kind).len(), 1, "{kind}");
    }
    for one in &made {
        let is_there = one["kind"] == "Namespace" || one["metadata"]["namespace"] == "ptp-agent";
        assert!(is_there, "{}", one["metadata"]);
    }
    let dashboards = of_kind("ConfigMap")
        .into_iter()
        .find(|map| map["metadata"]["labels"]["grafana_dashboard"] == "1")
        .expect("a map that Grafana's sidecar finds");
    for file in ["grafana-dashboard.json", "grafana-fleet-dashboard.json"] {
        let text = dashboards["data"][file].as_str().unwrap();
        let dashboard: Value = serde_json::from_str(text).unwrap();
        assert!(dashboard["panels"].as_array().is_some_and(|panels| !panels.is_empty()));
    }
}

#[test]
fn every_metric_of_the_cluster_says_of_which_node_it_is_and_pods_read_the_page_only() {
    let manifests: Vec<Value> = serde_saphyr::from_multiple(&read("kubernetes.yml")).unwrap();
    let of_kind = |kind: &str| manifests.iter().find(|one| one["kind"] == kind).unwrap();
    let relabelings = &of_kind("ServiceMonitor")["spec"]["endpoints"][0]["relabelings"];
    for label in ["instance", "node"] {
        let is_node = relabelings.as_array().unwrap().iter().any(|one| {
            one["targetLabel"] == label
                && one["sourceLabels"][0] == "__meta_kubernetes_pod_node_name"
        });
        assert!(is_node, "{label}");
    }
    let pod: Value = serde_saphyr::from_str(&read("kubernetes-reader.yml")).unwrap();
    let spec = &pod["spec"];
    let mount = &spec["containers"][0]["volumeMounts"][0];
    assert_eq!((&mount["readOnly"], &mount["mountPath"]), (&true.into(), &"/run/ptp-agent".into()));
    assert_eq!(spec["volumes"][0]["hostPath"]["path"], "/run/ptp-agent");
    assert_eq!(spec["containers"][0]["securityContext"]["runAsNonRoot"], true);
    assert_eq!(spec["containers"][0]["securityContext"]["capabilities"]["drop"][0], "ALL");
    let selected = spec["nodeSelector"].as_object().unwrap().keys().next().unwrap();
    let page = read("../guide/containers.md");
    assert!(page.contains(selected.as_str()), "the label of good nodes is explained");
}
