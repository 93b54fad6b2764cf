//! What an operator's tools see of a running agent: Prometheus itself scrapes it and answers the
//! queries of dashboard and alert rules, `status` shows it as text, as JSON and in a real
//! pseudo-terminal, linuxptp's `pmc` reads its data sets, a service manager's socket hears of it.
//! Needs root.

use std::{
    io::{BufRead as _, BufReader},
    os::unix::net::UnixDatagram,
    path::Path,
    process::{Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use bpf_tests::{
    agent::{Agent, binary, http_get, run_to_end},
    children::{Running, Stream},
    in_company,
    links::Wire,
    need, program,
    prometheus::{self, Prometheus, dashboard},
    terminal::Terminal,
};
use ptp_clock_reader::{PtpClock, State};
use serde_json::Value;

/// How long programs may take to start and to hear of each other.
const PATIENCE: Duration = Duration::from_secs(30);

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
fn query(prometheus: &Prometheus<'_>, promql: &str, wanted: impl Fn(f64) -> bool) -> f64 {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let answer = prometheus.ask(promql);
        let value = answer["data"]["result"][0]["value"][1].as_str().map(str::parse);
        match value {
            Some(Ok(value)) if wanted(value) => return value,
            _ if Instant::now() > deadline => panic!("{promql}: {answer}"),
            _ => thread::sleep(Duration::from_millis(200)),
        }
    }
}

/// Panels that are empty while all is well, until the capture points have been compared, or where there is no
/// transparent clock and nobody is served.
const EMPTY_PANELS: &[&str] = &[
    "Alarms",
    "Management and events",
    "Given up or refused",
    "Noise of the capture points",
    "Residence",
    "Corrected and passed",
    "Requests by who answered them",
    "Servers of NTP",
    "NTP requests",
    "Pulse per second",
    "Pulses and sentences",
    "Unicast: clients, servers and grants",
    "Unicast: requests and late messages",
    "Quality of frequency",
    "ESMC frames",
    "Links: delay",
    "Links: neighbours and asCapable",
];

/// Every panel of the dashboard has something to show of this agent, and no query is refused.
fn dashboard_is_answered(prometheus: &Prometheus<'_>) {
    for panel in dashboard()["panels"].as_array().unwrap() {
        let title = panel["title"].as_str().unwrap();
        for promql in prometheus::queries(panel, "5s") {
            if EMPTY_PANELS.contains(&title) {
                prometheus.ask(&promql);
            } else {
                query(prometheus, &promql, |_| true);
            }
        }
    }
}

/// Prometheus evaluates every alert rule, and none of them fires for an agent that is well.
fn rules_are_evaluated(prometheus: &Prometheus<'_>) {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let answer = prometheus.get("/api/v1/rules");
        let groups = answer["data"]["groups"].as_array().unwrap();
        let rules: Vec<_> =
            groups.iter().flat_map(|group| group["rules"].as_array().unwrap()).collect();
        assert!(!rules.is_empty() && rules.iter().all(|rule| rule["health"] != "err"), "{answer}");
        if rules.iter().all(|rule| rule["health"] == "ok") {
            let firing: Vec<_> = rules.iter().filter(|rule| rule["state"] == "firing").collect();
            assert!(firing.is_empty(), "{firing:?}");
            return;
        }
        assert!(Instant::now() < deadline, "{answer}");
        thread::sleep(Duration::from_millis(200));
    }
}

#[test]
fn prometheus_scrapes_the_agent_and_knows_its_offset() {
    let _machine = in_company();
    let wire = need!(Wire::new());
    let (_grandmaster, agent) = followed(&wire, &["--metrics-address", "127.0.0.1:9319"]);
    agent.wait_for_samples(0, PATIENCE, 16);
    let prometheus = &need!(Prometheus::start(&wire.client));

    assert_eq!(query(prometheus, "up{job=\"ptp-agent\"}", |up| up == 1.0), 1.0);
    let offset = query(prometheus, "ptp_offset_from_master_seconds{interface=\"ptp0\"}", |_| true);
    assert!(offset.abs() < 1e-2, "{offset} s");
    let age = "time() - ptp_last_sample_timestamp_seconds";
    assert!(query(prometheus, age, |_| true) < 10.0);
    query(prometheus, "ptp_port_state{state=\"time_receiver\"}", |state| state == 1.0);
    query(prometheus, "rate(ptp_messages_total{direction=\"rx\",type=\"sync\"}[5s])", |rate| {
        (8.0..32.0).contains(&rate)
    });
    // Points on the way out come before the driver's stamp or after it.
    let median = "histogram_quantile(0.5, rate(ptp_timestamp_difference_seconds_bucket\
                  {direction=\"rx\",source=\"tc_ingress\"}[5s]))";
    let difference = query(prometheus, median, f64::is_finite);
    assert!(
        (0.0..1e-3).contains(&difference),
        "a program runs after the stack's stamp: {difference}"
    );
    let series = query(prometheus, "count({job=\"ptp-agent\",__name__=~\"ptp_.*\"})", |_| true);
    println!("offset {offset} s, {series} series");
    assert!(series < 500.0, "{series} series");
    let text = http_get(&wire.client, prometheus::AGENT, "/metrics");
    let scrape = query(prometheus, "scrape_duration_seconds", |_| true);
    println!("scrape takes {scrape} s for {} bytes", text.len());
    dashboard_is_answered(prometheus);
    rules_are_evaluated(prometheus);
}

#[test]
fn service_manager_hears_of_the_start_of_turns_of_changes_and_of_the_end() {
    let _machine = in_company();
    let wire = need!(Wire::new());
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("notify");
    let manager = UnixDatagram::bind(&path).unwrap();
    manager.set_read_timeout(Some(PATIENCE)).unwrap();
    let heard = || {
        let mut buffer = [0; 4096];
        let length = manager.recv(&mut buffer).expect("the agent says something");
        String::from_utf8(buffer[..length].to_vec()).unwrap()
    };
    let arguments = "serve -i gm0 --log-sync-interval -4 --log-announce-interval -2";
    let grandmaster =
        Agent::start(&wire.grandmaster, &arguments.split_whitespace().collect::<Vec<_>>());
    let mut command = wire.client.command(binary());
    command
        .args(["--json", "run", "-i", "ptp0", "--clock", "virtual"])
        .env("NOTIFY_SOCKET", &path)
        .env("WATCHDOG_USEC", "30000000");
    let mut agent = Agent::from_running(Running::start("agent run", &mut command));
    let first = heard();
    assert!(first.contains("READY=1\n") && first.contains("STATUS=unlocked"), "{first}");
    let mut turns = 0;
    let status = loop {
        let text = heard();
        turns += text.matches("WATCHDOG=1\n").count();
        if text.contains("STATUS=locked, grandmaster ") {
            break text;
        }
    };
    assert!(status.contains("alarms: none"), "{status}");
    assert!(turns > 0);
    drop(grandmaster);
    while !heard().contains("alarms: holdover") {}
    agent.finish();
    while !heard().contains("STOPPING=1") {}
}

#[test]
fn a_reader_that_goes_away_ends_the_agent_in_order() {
    let _machine = in_company();
    let wire = need!(Wire::new());
    let serve = ["serve", "-i", "gm0", "--log-sync-interval=-4", "--log-announce-interval=-2"];
    let _grandmaster = Agent::start(&wire.grandmaster, &serve);
    let directory = tempfile::tempdir().unwrap();
    let page = directory.path().join("page");
    let mut command = wire.client.command(binary());
    command.args(["run", "-i", "ptp0", "--clock", "virtual", "--page"]).arg(&page);
    let mut agent = command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
    let mut lines = BufReader::new(agent.stdout.take().unwrap()).lines();
    let mut locked = lines.by_ref().map_while(Result::ok).filter(|line| line.contains("  locked"));
    // One line per second; by the second one the page says so, too.
    assert!(locked.nth(1).is_some());
    let clock = PtpClock::open(&page).unwrap();
    assert_eq!(clock.now().unwrap().state, State::Locked);
    drop(lines);
    let deadline = Instant::now() + PATIENCE;
    let ended = loop {
        match agent.try_wait().unwrap() {
            Some(ended) => break ended,
            None if Instant::now() > deadline => {
                agent.kill().unwrap();
                break agent.wait().unwrap();
            }
            None => thread::sleep(Duration::from_millis(20)),
        }
    };
    assert_eq!(ended.code(), Some(0), "{ended}");
    assert_eq!(clock.now().unwrap().state, State::Unknown);
}

fn status(socket: &Path, more: &[&str]) -> Command {
    let mut command = Command::new(binary());
    command.args(more).args(["status", "--status-socket"]).arg(socket);
    command
}

#[test]
fn status_tells_of_following_and_of_the_alarm_when_the_grandmaster_goes() {
    let _machine = in_company();
    let wire = need!(Wire::new());
    let directory = tempfile::tempdir().unwrap();
    let socket = directory.path().join("status");
    let (mut grandmaster, mut agent) =
        followed(&wire, &["--status-socket", socket.to_str().unwrap()]);
    agent.wait_for_state(0, PATIENCE, "time_receiver");
    // Counters are brought up to date once a second.
    thread::sleep(Duration::from_millis(1200));
    let (ended, text, log) = run_to_end(status(&socket, &[]));
    assert!(ended.success(), "{log}");
    for word in ["locked (adaptive)", "ptp0: time_receiver", "matched", "alarms       none"] {
        assert!(text.contains(word), "{word}\n{text}");
    }
    let (_, json, _) = run_to_end(status(&socket, &["--json"]));
    let json: Value = serde_json::from_str(&json).unwrap();
    assert_eq!(json["servo_state"], "locked", "{json}");
    assert!(json["history"].as_array().is_some_and(|history| !history.is_empty()), "{json}");

    let mark = agent.mark();
    grandmaster.stop();
    agent.wait_for_text(mark, PATIENCE, "alarm raised alarm=\"holdover\"");
    let (_, text, _) = run_to_end(status(&socket, &[]));
    assert!(text.contains("ALARM        holdover"), "{text}");

    agent.finish();
    assert!(!socket.exists());
    let (ended, _, log) = run_to_end(status(&socket, &[]));
    assert_eq!(ended.code(), Some(1));
    assert!(log.contains("cannot ask the agent at"), "{log}");
}

#[test]
fn unusable_sockets_are_one_line_each_and_time_is_kept() {
    let _machine = in_company();
    let wire = need!(Wire::new());
    let arguments = ["--status-socket", "/proc/none", "--management-socket", "/proc/none/socket"];
    let (_grandmaster, agent) = followed(&wire, &arguments);
    agent.wait_for_samples(0, PATIENCE, 4);
    let lines = agent.lines();
    for what in ["status", "management"] {
        let said = lines.iter().filter(|line| line.text.contains(&format!("the {what} socket")));
        assert_eq!(said.count(), 1, "{}", agent.last_words());
    }
}

#[test]
fn view_in_a_terminal_shows_the_agent_and_ends_with_q() {
    let _machine = in_company();
    let wire = need!(Wire::new());
    let directory = tempfile::tempdir().unwrap();
    let socket = directory.path().join("status");
    let (_grandmaster, agent) = followed(&wire, &["--status-socket", socket.to_str().unwrap()]);
    agent.wait_for_state(0, PATIENCE, "time_receiver");

    let mut terminal = Terminal::start(status(&socket, &[]).arg("--watch"), 40, 120);
    // On a wire of this host the delay may be less than a microsecond.
    let words =
        ["ptp-agent run", "┌offset", "locked (adaptive)", "time_receiver", "matched", " ns"];
    terminal.wait_for(PATIENCE, &words);
    println!("{}", terminal.screen().contents());
    assert!(terminal.screen().alternate_screen());
    assert!(terminal.end_with(b"q", PATIENCE).success());
    assert!(!terminal.screen().alternate_screen(), "the terminal is not given back");
}

#[test]
fn pmc_shows_the_agents_numbers() {
    let _machine = in_company();
    let pmc = need!(program("pmc"));
    let wire = need!(Wire::new());
    let directory = tempfile::tempdir().unwrap();
    let (sockets, own) = (["status", "management"], directory.path().join("pmc"));
    let [socket, management] = sockets.map(|name| directory.path().join(name));
    let arguments = ["--status-socket", socket.to_str().unwrap(), "--management-socket"];
    let arguments = [&arguments[..], &[management.to_str().unwrap()]].concat();
    let (_grandmaster, agent) = followed(&wire, &arguments);
    agent.wait_for_state(0, PATIENCE, "time_receiver");
    thread::sleep(Duration::from_millis(1200));
    let ask = |request: &str| {
        let mut command = Command::new(&pmc);
        command.args(["-u", "-b", "0", "-i"]).arg(&own).arg("-s").arg(&management).arg(request);
        let (ended, text, log) = run_to_end(command);
        assert!(ended.success(), "{request}: {log}");
        text
    };
    let number = |text: &str, name: &str| -> f64 {
        let line = text.lines().find_map(|line| line.trim().strip_prefix(name));
        line.unwrap_or_else(|| panic!("no {name}\n{text}")).trim().parse().unwrap()
    };
    let current = ask("GET CURRENT_DATA_SET");
    assert_eq!(number(&current, "stepsRemoved"), 1.0, "{current}");
    let (offset, delay) = (number(&current, "offsetFromMaster"), number(&current, "meanPathDelay"));
    let samples = agent.samples(0);
    let is_among = |field: &str, value: f64| {
        let mut values = samples.iter().chain(samples.last()).filter_map(|it| it[field].as_f64());
        values.any(|known| (known - value).abs() < 1.0)
    };
    assert!(is_among("offset_ns", offset), "offset {offset} is of no sample");
    assert!(is_among("delay_ns", delay), "delay {delay} is of no sample");

    let default = ask("GET DEFAULT_DATA_SET");
    assert_eq!(number(&default, "slaveOnly"), 1.0, "{default}");
    assert_eq!(number(&default, "clockClass"), 255.0, "{default}");
    let port = ask("GET PORT_DATA_SET");
    assert!(port.contains("SLAVE"), "{port}");
    assert_eq!(number(&port, "logSyncInterval"), -4.0, "{port}");
    let status = ask("GET TIME_STATUS_NP");
    assert!(status.contains("gmPresent                  true"), "{status}");
    let statistics = ask("GET PORT_STATS_NP");
    assert!(number(&statistics, "rx_Sync") > 16.0, "{statistics}");
    assert!(number(&statistics, "tx_Delay_Req") > 1.0, "{statistics}");
    let parent = ask("GET PARENT_DATA_SET");
    let (_, json, _) = run_to_end(self::status(&socket, &["--json"]));
    let json: Value = serde_json::from_str(&json).unwrap();
    let grandmaster = json["grandmaster"].as_str().unwrap();
    assert!(parent.contains(&format!("grandmasterIdentity                   {grandmaster}")));
    assert!(ask("GET TIME_PROPERTIES_DATA_SET").contains("currentUtcOffset"));
    assert_eq!(number(&ask("GET PRIORITY1"), "priority1"), 128.0);
    assert_eq!(number(&ask("GET PRIORITY2"), "priority2"), 128.0);
    let refused = ask("SET PRIORITY1 5");
    assert!(refused.contains("MANAGEMENT_ERROR_STATUS"), "{refused}");
    let settings = ask("GET GRANDMASTER_SETTINGS_NP");
    assert_eq!(number(&settings, "clockClass"), 255.0, "of a client: {settings}");
    let refused = ask(
        "SET GRANDMASTER_SETTINGS_NP clockClass 6 clockAccuracy 0x21 offsetScaledLogVariance 0x4e5d currentUtcOffset 37 \
         leap61 0 leap59 0 currentUtcOffsetValid 1 ptpTimescale 1 timeTraceable 1 frequencyTraceable 0 timeSource 0x20",
    );
    assert!(refused.contains("MANAGEMENT_ERROR_STATUS"), "{refused}");
}

#[test]
fn json_log_has_an_object_in_every_line_and_a_change_of_state_is_one() {
    let _machine = in_company();
    let wire = need!(Wire::new());
    let arguments = [
        "--log-format",
        "json",
        "run",
        "-i",
        "ptp0",
        "--clock",
        "virtual",
        "--status-socket",
        "off",
    ];
    let mut agent = Agent::start_only(&wire.client, &arguments);
    let serve = ["serve", "-i", "gm0", "--log-sync-interval", "-4", "--status-socket", "none"];
    let _grandmaster = Agent::start(&wire.grandmaster, &serve);
    // The machine hears it as an event, the operator reads it in the log.
    agent.wait_for_text(0, PATIENCE, "\"to\":\"time_receiver\"");
    assert!(agent.stop().success(), "{}", agent.last_words());
    let log: Vec<Value> = agent
        .lines()
        .iter()
        .filter(|line| line.stream == Stream::Log)
        .map(|line| serde_json::from_str(&line.text).unwrap_or_else(|_| panic!("{}", line.text)))
        .collect();
    for line in &log {
        for key in ["timestamp", "level", "target"] {
            assert!(line[key].is_string(), "no {key}: {line}");
        }
    }
    let to_receiver =
        |line: &&Value| line["message"] == "port state" && line["to"] == "time_receiver";
    assert_eq!(log.iter().filter(to_receiver).count(), 1, "{log:?}");
}
