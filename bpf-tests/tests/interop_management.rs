//! linuxptp's own programs ask an agent: `pmc` for everything that it can ask for, which must be what it gets of ptp4l
//! beside it, field by field; `pmc` that subscribes and sets; `nsm` for the time of a client; `pmc` and `observe` for
//! slave events, of ptp4l and of the agent; and `phc2sys -a`, which finds no hardware clock. Nothing steers a clock.
//! Needs root.

use std::{
    collections::BTreeMap,
    io::{BufRead as _, BufReader, Write as _},
    os::unix::fs::PermissionsExt as _,
    path::Path,
    process::{Child, Command, Stdio},
    sync::mpsc::{Receiver, channel},
    time::{Duration, Instant},
};

use bpf_tests::{
    agent::Agent,
    in_company,
    links::{Star, output},
    need,
    ptp4l::{Ptp4l, authenticating},
};
use ptp_agent::lab::netns::Namespace;

const PATIENCE: Duration = Duration::from_secs(20);
const RATES: &str = "logSyncInterval -3\nlogMinDelayReqInterval -3\n";

/// Fields that differ, and why.
const DIFFERENT: &[(&str, &str)] = &[
    ("physicalAddress", "two hosts"),
    ("protocolAddress", "two hosts"),
    ("clockIdentity", "two clocks"),
    ("portIdentity", "two clocks"),
    ("interface", "two hosts"),
    ("productDescription", "says what program it is"),
    ("revisionData", "says what program it is"),
    ("offsetFromMaster", "measured"),
    ("meanPathDelay", "measured"),
    ("master_offset", "measured"),
    ("ingress_time", "measured"),
    ("cumulativeScaledRateOffset", "ptp4l that runs free adds its estimate of the rate"),
    ("portState", "ptp4l that runs free stays UNCALIBRATED"),
];
/// Data sets of counts: they count from different instants.
const COUNTS: &[&str] = &["PORT_STATS_NP", "PORT_SERVICE_STATS_NP"];

/// A grandmaster, a client of ptp4l and one of ours on a bridge.
struct Network {
    star: Star,
    directory: tempfile::TempDir,
}

impl Network {
    fn path(&self, name: &str) -> String {
        self.directory.path().join(name).display().to_string()
    }

    /// What pmc prints for some requests, one after the other, to the socket at `to`. By its standard input, for it
    /// waits after each request of its command line.
    fn pmc(&self, to: &str, requests: &[String]) -> String {
        let mut pmc = Pmc::start(self, &self.path("pmc"), to);
        let mut text = String::new();
        // What belongs to the last one has been printed when the next one is answered.
        let last = "GET NULL_MANAGEMENT".to_owned();
        for request in requests.iter().chain([&last]) {
            pmc.say(request);
            text += &pmc.until("RESPONSE");
        }
        text
    }

    fn program(&self, name: &str) -> Command {
        authenticating(&self.star.leaves[2], name).expect("it was there before")
    }
}

/// A pmc that runs until this is dropped.
struct Pmc {
    child: Child,
    lines: Receiver<String>,
}

impl Pmc {
    fn start(network: &Network, own: &str, to: &str) -> Self {
        let mut pmc = network.program("pmc");
        pmc.args(["-u", "-b", "0", "-i", own, "-s", to]);
        let mut child =
            pmc.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
        let stdout = BufReader::new(child.stdout.take().unwrap());
        let (sender, lines) = channel();
        std::thread::spawn(move || {
            // Ends with the program, or with who reads.
            stdout.lines().map_while(Result::ok).all(|line| sender.send(line).is_ok())
        });
        Self { child, lines }
    }

    fn say(&mut self, request: &str) {
        writeln!(self.child.stdin.as_mut().unwrap(), "{request}").unwrap();
    }

    /// What it prints until a line has this in it.
    fn until(&self, enough: &str) -> String {
        let (mut text, deadline) = (String::new(), Instant::now() + PATIENCE);
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let line = self.lines.recv_timeout(left);
            let line = line.unwrap_or_else(|error| panic!("no {enough}: {error}\n{text}"));
            text += &line;
            text.push('\n');
            if line.contains(enough) {
                return text;
            }
        }
    }
}

impl Drop for Pmc {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The identifiers that pmc knows, without those that it does not send itself.
fn identifiers(help: &str) -> Vec<String> {
    let mut found: Vec<String> = help
        .lines()
        .filter_map(|line| line.trim().strip_prefix("[action] "))
        .map(str::to_owned)
        .filter(|id| !["ENABLE_PORT", "DISABLE_PORT"].contains(&id.as_str()))
        .collect();
    found.sort();
    found
}

/// Fields of each answer by the data set's name, in their order; what is without a name is left out.
fn fields(text: &str) -> BTreeMap<String, Vec<(String, String)>> {
    let mut sets = BTreeMap::new();
    let mut set = None;
    for line in text.lines() {
        if let Some((_, name)) = line.split_once("RESPONSE MANAGEMENT ") {
            set = Some(name.trim().to_owned());
            sets.entry(name.trim().to_owned()).or_insert_with(Vec::new);
        } else if let (Some(set), Some(field)) = (&set, line.strip_prefix("\t\t")) {
            let (name, value) = field.split_once(char::is_whitespace).unwrap_or((field, ""));
            let fields: &mut Vec<(String, String)> = sets.get_mut(set).expect("made above");
            fields.push((name.trim().to_owned(), value.trim().to_owned()));
        }
    }
    sets
}

fn hosts(star: &Star) -> [&Namespace; 3] {
    [&star.leaves[0], &star.leaves[1], &star.leaves[2]]
}

#[test]
fn pmc_gets_of_an_agent_what_it_gets_of_ptp4l_field_by_field() {
    let _machine = in_company();
    let star = need!(Star::new(3));
    need!(authenticating(&star.leaves[0], "pmc"));
    let network = Network { star, directory: tempfile::tempdir().unwrap() };
    let [first, second, third] = hosts(&network.star);
    let options = [RATES, "logAnnounceInterval -2\nclockClass 6\npriority1 100\nserverOnly 1\n"];
    let (theirs, theirs_events) = (network.path("theirs"), network.path("theirs-events"));
    let _grandmaster = need!(Ptp4l::start_authenticating(first, &["eth0"], &options));
    let client = format!(
        "clientOnly 1\nuds_address {theirs}\nuds_ro_address {}\nslave_event_monitor {theirs_events}\n\
         userDescription clock 3;rack 14\n",
        network.path("read-only")
    );
    let client = need!(Ptp4l::start_authenticating(second, &["eth0"], &[RATES, &client]));
    let (ours, events) = (network.path("ours"), network.path("ours-events"));
    let agent = Agent::start(
        third,
        &[
            "run",
            "-i",
            "eth0",
            "--clock",
            "virtual",
            "--management-socket",
            &ours,
            "--management-set",
            "--management-socket-ro",
            &network.path("ours-for-all"),
            "--user-description",
            "clock 3;rack 14",
            "--net-sync-monitor",
            "--slave-event-monitor",
            &events,
        ],
    );
    agent.wait_for_state(0, PATIENCE, "time_receiver");
    client.wait_for_text(0, PATIENCE, "UNCALIBRATED");
    client.wait_for_text(0, PATIENCE, "master offset");
    fields_are_equal(&network, &theirs, &ours);
    subscribers_are_told(&network, &ours);
    slave_events_are_told(&network, [(&theirs_events, &theirs), (&events, &ours)]);
    monitors_are_answered(&network);
    phc2sys_finds_no_hardware_clock(&network, &ours);
    what_cannot_be_set_of_a_client_is_refused(&network, &ours);
    everybody_may_look_at_the_same_and_change_nothing(&network);
}

/// At either's socket for all users.
fn everybody_may_look_at_the_same_and_change_nothing(network: &Network) {
    let requests = ["GET USER_DESCRIPTION", "GET PORT_PROPERTIES_NP", "SET PRIORITY1 7"];
    for socket in ["read-only", "ours-for-all"] {
        let socket = network.path(socket);
        let mode = std::fs::metadata(&socket).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o666, "{socket}");
        let answers = requests.map(|request| network.pmc(&socket, &[request.to_owned()]));
        assert!(answers[0].contains("clock 3;rack 14"), "{socket}: {}", answers[0]);
        for answer in &answers[1..] {
            assert!(!answer.contains("RESPONSE MANAGEMENT PORT_PROPERTIES_NP"), "{answer}");
            assert!(!answer.contains("RESPONSE MANAGEMENT PRIORITY1"), "{answer}");
        }
    }
}

fn fields_are_equal(network: &Network, theirs: &str, ours: &str) {
    let mut pmc = network.program("pmc");
    pmc.args(["-u", "-i", &network.path("helped"), "-s", theirs, "help"]);
    let help = output(&mut pmc);
    let ids = identifiers(&help);
    assert!(ids.len() > 30, "{help}");
    let requests: Vec<String> = ids.iter().map(|id| format!("GET {id}")).collect();
    let deadline = Instant::now() + PATIENCE;
    loop {
        let answers = [theirs, ours].map(|socket| network.pmc(socket, &requests));
        let [theirs, ours] = answers.each_ref().map(|text| fields(text));
        let unequal = differences(&theirs, &ours);
        if unequal.is_empty() {
            let count: usize = theirs.values().map(Vec::len).sum();
            println!("{} data sets, {count} fields", theirs.len());
            assert!(theirs.len() > 30 && count > 140, "{}", answers[0]);
            return;
        }
        // What was published may be a second old.
        assert!(Instant::now() < deadline, "{unequal:?}\n{}\n{}", answers[0], answers[1]);
    }
}

type Sets = BTreeMap<String, Vec<(String, String)>>;

fn differences(theirs: &Sets, ours: &Sets) -> Vec<String> {
    let mut found = Vec::new();
    for (set, fields) in theirs {
        let Some(own) = ours.get(set) else {
            found.push(format!("{set}: none of ours"));
            continue;
        };
        let names = |fields: &[(String, String)]| -> Vec<String> {
            fields.iter().map(|(name, _)| name.clone()).collect()
        };
        if names(fields) != names(own) {
            found.push(format!("{set}: other fields {own:?}"));
        }
        if COUNTS.contains(&set.as_str()) {
            continue;
        }
        for ((name, value), (_, own)) in fields.iter().zip(own) {
            if value != own && !DIFFERENT.iter().any(|(different, _)| different == name) {
                found.push(format!("{set}.{name}: {value} and {own}"));
            }
        }
    }
    found
}

fn subscribers_are_told(network: &Network, ours: &str) {
    let subscribe = "SET SUBSCRIBE_EVENTS_NP duration 5 NOTIFY_PORT_STATE on NOTIFY_TIME_SYNC on";
    let mut pmc = Pmc::start(network, &network.path("subscriber"), ours);
    pmc.say(subscribe);
    let told = pmc.until("seq 2 RESPONSE MANAGEMENT TIME_STATUS_NP");
    assert!(told.contains("NOTIFY_TIME_SYNC       on"), "{told}");
    for sequence_id in 0..3 {
        let line = format!("seq {sequence_id} RESPONSE MANAGEMENT TIME_STATUS_NP");
        assert!(told.contains(&line), "{told}");
    }
}

fn slave_events_are_told(network: &Network, of: [(&str, &str); 2]) {
    for (events, asked) in of {
        let told = Pmc::start(network, events, asked).until("delayResponseTimestamp");
        assert!(told.contains("SLAVE_DELAY_TIMING_DATA_NP N 1"), "{told}");
    }
    for (events, _) in of {
        let arguments =
            ["observe", "-i", "eth0", "--slave-event-monitor", events, "--status-socket", "none"];
        let mut observer = Agent::start(&network.star.leaves[0], &arguments);
        let deadline = Instant::now() + PATIENCE;
        loop {
            let lines = observer.events(0, "slave_event");
            let has = |kind: &str| lines.iter().any(|line| line["kind"] == kind);
            if has("sync") && has("delay") {
                break;
            }
            assert!(Instant::now() < deadline, "{lines:?}");
            std::thread::yield_now();
        }
        observer.finish();
        assert!(!Path::new(events).exists());
    }
}

fn monitors_are_answered(network: &Network) {
    let config = network.path("nsm.cfg");
    std::fs::write(&config, "[global]\ntime_stamping software\ntx_timestamp_timeout 500\n")
        .unwrap();
    let mut nsm = authenticating(&network.star.leaves[0], "nsm").expect("pmc was there");
    let deadline = Instant::now() + PATIENCE;
    nsm.args(["-f", &config, "-i", "eth0"]);
    loop {
        let mut child =
            nsm.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
        writeln!(child.stdin.take().unwrap(), "NSM 192.0.2.3").unwrap();
        let text = String::from_utf8(child.wait_with_output().unwrap().stdout).unwrap();
        if text.contains("NSM MEASUREMENT COMPLETE") {
            assert!(text.contains("stepsRemoved                          1"), "{text}");
            assert!(text.contains("gm.ClockClass                         6"), "{text}");
            return;
        }
        assert!(Instant::now() < deadline, "{text}");
    }
}

fn phc2sys_finds_no_hardware_clock(network: &Network, ours: &str) {
    let mut phc2sys = network.program("phc2sys");
    phc2sys.args(["-a", "-m", "-z", ours]);
    let ended = phc2sys.output().unwrap();
    let said = [ended.stdout, ended.stderr].concat();
    let text = String::from_utf8_lossy(&said).into_owned();
    // It has subscribed and asked for the properties of every port, and takes no port with software stamps.
    assert!(text.contains("no suitable ports available"), "{text}");
}

fn what_cannot_be_set_of_a_client_is_refused(network: &Network, ours: &str) {
    let settings = "SET GRANDMASTER_SETTINGS_NP clockClass 6 clockAccuracy 0xfd \
         offsetScaledLogVariance 0xfffe currentUtcOffset 37 leap61 0 leap59 0 \
         currentUtcOffsetValid 1 ptpTimescale 1 timeTraceable 1 frequencyTraceable 1 timeSource 0xa1";
    let answer = network.pmc(ours, &[settings.to_owned()]);
    assert!(answer.contains("MANAGEMENT_ERROR_STATUS"), "{answer}");
    let set = "SET PORT_DATA_SET_NP neighborPropDelayThresh 1000 asCapable 0";
    let answer = network.pmc(ours, &[set.to_owned()]);
    assert!(answer.contains("neighborPropDelayThresh 1000"), "{answer}");
}
