//! Changes to a running agent: the configuration file read again at SIGHUP, and priorities that
//! linuxptp's `pmc` sets. None of them costs the lock. Needs root.

use std::{
    fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::Command,
    time::{Duration, Instant},
};

use bpf_tests::{
    agent::{Agent, http_get, run_to_end, series},
    in_company,
    links::Wire,
    need, program,
};
use nix::sys::signal::Signal;

const PATIENCE: Duration = Duration::from_secs(30);

/// With Announce messages so rare that a virtual machine may stand still for a second, and nobody believes
/// that the grandmaster has gone.
const SERVE: &str = "serve -i gm0 --log-sync-interval -4 --log-announce-interval 0 \
                     --log-min-delay-req-interval -4";

fn words(text: &str) -> Vec<&str> {
    text.split_whitespace().collect()
}

struct Config {
    directory: tempfile::TempDir,
}

impl Config {
    fn new(text: &str) -> Self {
        let this = Self { directory: tempfile::tempdir().unwrap() };
        this.write(text);
        this
    }

    fn path(&self) -> PathBuf {
        self.directory.path().join("agent.toml")
    }

    fn write(&self, text: &str) {
        fs::write(self.path(), text).unwrap();
    }

    /// Starts a command with this file.
    fn start(&self, namespace: &ptp_agent::lab::netns::Namespace, arguments: &[&str]) -> Agent {
        let path = self.path();
        let all = [arguments, &["--config", path.to_str().unwrap()]].concat();
        Agent::start(namespace, &all)
    }

    /// Changes the file, and waits until the agent says `expected`.
    fn change(&self, agent: &Agent, text: &str, expected: &str) -> usize {
        self.write(text);
        let mark = agent.mark();
        agent.signal(Signal::SIGHUP);
        agent.wait_for_text(mark, PATIENCE, expected);
        mark
    }
}

fn locked(agent: &Agent) {
    agent.wait_for_text(0, PATIENCE, "to=\"locked\"");
    agent.wait_for_state(0, PATIENCE, "time_receiver");
    let locked = |sample: &serde_json::Value| sample["state"] == "locked";
    agent.wait_for_sample(0, PATIENCE, "lock", locked);
}

/// Samples have come since, all of them in lock, and no state has changed.
fn assert_lock_was_kept(agent: &Agent, mark: usize) {
    let samples = agent.wait_for_samples(agent.mark(), PATIENCE, 16);
    let all = agent.samples(mark);
    assert!(all.len() >= samples.len());
    assert!(all.iter().all(|sample| sample["state"] == "locked"), "{all:?}");
    // The alarm of the step at the first lock may come after it; a step has a line of its own as well.
    let lines = agent.lines()[mark..].to_vec();
    for line in lines.iter().filter(|line| !line.text.contains("alarm=\"clock_stepped\"")) {
        for word in ["port state", "servo state", "following", "no grandmaster", "stepped"] {
            assert!(!line.text.contains(word), "{}", line.text);
        }
    }
}

#[test]
fn sighup_changes_a_follower_without_losing_its_lock() {
    let _machine = in_company();
    let wire = need!(Wire::new());
    let _grandmaster = Agent::start(&wire.grandmaster, &words(SERVE));
    let config = Config::new("metrics-address = \"127.0.0.1:9319\"\n");
    let run = ["run", "-i", "ptp0", "--clock", "virtual", "--domain", "0"];
    let mut agent = config.start(&wire.client, &run);
    locked(&agent);

    // Everything that can change, and something that cannot.
    let pages = config.directory.path().join("page");
    let text = format!(
        "metrics-address = \"127.0.0.1:9320\"\noffset-threshold = 1\nlog-level = \"debug\"\n\
         ingress-latency = 40\negress-latency = 30\ndomain = 7\n\
         [export]\npage = {pages:?}\n[run]\nservo = \"pi\"\ndelay-asymmetry = 5\n\
         [serve]\npriority1 = 1\n[clock]\nstep-threshold = 0.5\n"
    );
    let mark = config.change(&agent, &text, "configuration changed key=\"run.delay-asymmetry\"");
    assert_lock_was_kept(&agent, mark);
    let said = agent.lines()[mark..].to_vec();
    let has = |text: &str| said.iter().any(|line| line.text.contains(text));
    for key in ["metrics-address", "offset-threshold", "ingress-latency", "export.page"] {
        assert!(has(&format!("configuration changed key=\"{key}\"")), "{key}");
    }
    assert!(has("offset-threshold\" from=\"default\" to=\"1\""));
    assert!(has("which needs a restart key=\"run.servo\""));
    assert!(has("but the command line wins key=\"domain\""));
    assert!(!has("serve.priority1"), "not of this command");
    agent.wait_for_text(mark, PATIENCE, "alarm raised alarm=\"offset_above_threshold\"");
    let metrics = http_get(&wire.client, "127.0.0.1:9320".parse().unwrap(), "/metrics");
    assert!(series(&metrics, "ptp_alarm{alarm=\"offset_above_threshold\"}").is_some());
    assert!(pages.exists());

    // The other way round; what waits for a restart is said again.
    let mark =
        config.change(&agent, "[run]\nservo = \"pi\"\n", "needs a restart key=\"run.servo\"");
    agent.wait_for_text(mark, PATIENCE, "alarm cleared alarm=\"offset_above_threshold\"");
    assert_lock_was_kept(&agent, mark);
    let mark = config.change(&agent, &text, "configuration changed key=\"export.page\"");
    assert_lock_was_kept(&agent, mark);
    agent.finish();
}

#[test]
fn broken_file_is_one_line_and_the_old_settings_stay() {
    let _machine = in_company();
    let wire = need!(Wire::new());
    let _grandmaster = Agent::start(&wire.grandmaster, &words(SERVE));
    let config = Config::new("metrics-address = \"127.0.0.1:9319\"\n");
    let mut agent = config.start(&wire.client, &["run", "-i", "ptp0", "--clock", "virtual"]);
    locked(&agent);
    let mark = agent.mark();
    for (text, problem) in [
        ("metrics-address = \n", "line 1, column 19"),
        ("metrics-adress = \"127.0.0.1:1\"\n", "did you mean `metrics-address`"),
        ("ring-kib = 5\n", "not a power of two"),
        // Not with this clock, which is that of the command line.
        ("[export]\nntp-shm = 1\nchrony-sock = 5\n", "line 3"),
    ] {
        let mark = config.change(&agent, text, "the old settings stay");
        let said = agent.wait_for_text(mark, PATIENCE, "the old settings stay").text;
        assert!(said.contains(problem), "{said}");
    }
    fs::remove_file(config.path()).unwrap();
    let gone = agent.mark();
    agent.signal(Signal::SIGHUP);
    agent.wait_for_text(gone, PATIENCE, "the old settings stay");
    assert_lock_was_kept(&agent, mark);
    http_get(&wire.client, "127.0.0.1:9319".parse().unwrap(), "/metrics");
    agent.finish();
}

#[test]
fn sighup_without_a_file_ends_in_good_order() {
    let _machine = in_company();
    let wire = need!(Wire::new());
    for command in ["run", "serve", "observe"] {
        let mut agent = Agent::start(&wire.client, &[command, "-i", "ptp0"]);
        agent.signal(Signal::SIGHUP);
        assert!(agent.wait(PATIENCE).success(), "{}", agent.last_words());
        assert_eq!(agent.events(0, "summary").len(), 1);
    }
}

#[test]
fn sighup_changes_a_grandmaster_and_an_observer_and_nobody_notices() {
    let _machine = in_company();
    let wire = need!(Wire::new());
    let config = Config::new("[serve]\nlog-sync-interval = -2\n");
    let serve = "serve -i gm0 --log-announce-interval -2 --log-min-delay-req-interval -4";
    let mut grandmaster = config.start(&wire.grandmaster, &words(serve));
    let watched = Config::new("");
    let mut observer = watched.start(&wire.client, &["observe", "-i", "ptp0"]);
    let mut agent = Agent::start(&wire.client, &["run", "-i", "ptp0", "--clock", "virtual"]);
    locked(&agent);

    let mark = agent.mark();
    let text = "[serve]\nlog-sync-interval = -5\npriority1 = 100\nlog-announce-interval = 3\n";
    let theirs = config.change(&grandmaster, text, "configuration changed key=\"serve.priority1\"");
    grandmaster.wait_for_text(theirs, PATIENCE, "the command line wins key=\"serve.log-announce");
    assert_lock_was_kept(&agent, mark);
    // 32 instead of 4 per second.
    let begin = Instant::now();
    agent.wait_for_samples(agent.mark(), PATIENCE, 64);
    assert!(begin.elapsed() < Duration::from_secs(8), "{:?}", begin.elapsed());

    let socket = watched.directory.path().join("status");
    let text = format!("status-socket = {socket:?}\n");
    watched.change(&observer, &text, "configuration changed key=\"status-socket\"");
    observer.wait_for_samples(observer.mark(), PATIENCE, 4);
    assert!(socket.exists());
    for agent in [&mut agent, &mut observer, &mut grandmaster] {
        agent.finish();
    }
}

#[test]
fn pmc_sets_priorities_of_a_grandmaster_that_permits_it_and_of_no_other() {
    let _machine = in_company();
    let pmc = need!(program("pmc"));
    let wire = need!(Wire::new());
    let directory = tempfile::tempdir().unwrap();
    let at = |name: &str| directory.path().join(name);
    let (own, socket) = (at("pmc"), at("management"));
    let ask = |socket: &Path, request: &str| {
        let mut command = Command::new(&pmc);
        command.args(["-u", "-b", "0", "-i"]).arg(&own).arg("-s").arg(socket).arg(request);
        let (ended, text, log) = run_to_end(command);
        assert!(ended.success(), "{request}: {log}");
        text
    };
    let serve = [&words(SERVE)[..], &["--management-socket", socket.to_str().unwrap()]].concat();

    let mut grandmaster = Agent::start(&wire.grandmaster, &serve);
    while !ask(&socket, "GET PRIORITY1").contains("128") {}
    let refused = ask(&socket, "SET PRIORITY1 90");
    assert!(refused.contains("MANAGEMENT_ERROR_STATUS"), "{refused}");
    assert_eq!(fs::metadata(&socket).unwrap().permissions().mode() & 0o777, 0o666);
    grandmaster.finish();

    let permitting = [&serve[..], &["--management-set"]].concat();
    let mut grandmaster = Agent::start(&wire.grandmaster, &permitting);
    assert_eq!(fs::metadata(&socket).unwrap().permissions().mode() & 0o777, 0o600);
    let follower = at("follower");
    let run = ["run", "-i", "ptp0", "--clock", "virtual", "--management-socket"];
    let run = [&run[..], &[follower.to_str().unwrap()]].concat();
    let mut agent = Agent::start(&wire.client, &run);
    locked(&agent);
    let mark = agent.mark();
    for (request, shown) in [("PRIORITY1", "priority1 90"), ("PRIORITY2", "priority2 91")] {
        let value = &shown[10..];
        let set = ask(&socket, &format!("SET {request} {value}"));
        assert!(set.contains("RESPONSE MANAGEMENT") && set.contains(shown), "{set}");
        let get = ask(&socket, &format!("GET {request}"));
        assert!(get.contains(shown), "{get}");
    }
    for other in ["SET TIMEZONE 1", "SET DOMAIN 5", "SET GRANDMASTER_SETTINGS_NP clockClass 6"] {
        assert!(!ask(&socket, other).contains("RESPONSE MANAGEMENT"), "{other}");
    }
    grandmaster.wait_for_text(0, PATIENCE, "Priority2(91)");
    // It is what Announce says, and changes nothing for who follows already.
    let deadline = Instant::now() + PATIENCE;
    loop {
        let parent = ask(&follower, "GET PARENT_DATA_SET");
        let number = |name: &str| {
            let line = parent.lines().find_map(|line| line.trim().strip_prefix(name));
            line.and_then(|line| line.trim().parse::<u8>().ok())
        };
        if (number("grandmasterPriority1"), number("grandmasterPriority2")) == (Some(90), Some(91))
        {
            break;
        }
        assert!(Instant::now() < deadline, "{parent}");
    }
    assert_lock_was_kept(&agent, mark);
    // Who follows has no say.
    let refused = ask(&follower, "SET PRIORITY1 5");
    assert!(refused.contains("MANAGEMENT_ERROR_STATUS"), "{refused}");
    agent.finish();
    grandmaster.finish();
}
