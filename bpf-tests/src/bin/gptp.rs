//! gPTP behind relays of ours: ptp4l with the values of its gPTP.cfg as grandmaster (but for the threshold of links), three relays
//! deep, and behind the last one ptp4l's end station and ours. Two such chains at once, one for each way of passing the time on.
//! `gptp [SECONDS]` (600): how long they are looked at after all have locked. All clocks of one machine are one, so that an
//! agent's distance from the host's clock is its error, and what ptp4l's end station measures is the error of what it is told:
//! it steers nothing. A line of JSON for each hop. Needs root.

use std::{
    env,
    path::{Path, PathBuf},
    process::ExitCode,
    thread,
    time::{Duration, Instant},
};

use bpf_tests::{
    agent::{Agent, binary, run_to_end},
    clocks::{Look, processor_ns},
    ptp4l::Ptp4l,
};
use ptp_agent::lab::netns::{Namespace, NetnsError, veth};
use ptp_clock_reader::PtpClock;
use serde_json::{Value, json};

const GPTP: &str = "gmCapable 1\npriority2 248\nlogAnnounceInterval 0\nlogSyncInterval -3\nsyncReceiptTimeout 3\n\
    neighborPropDelayThresh 1000000\nmin_neighbor_prop_delay -20000000\nassume_two_step 1\npath_trace_enabled 1\n\
    follow_up_info 1\ntransportSpecific 0x1\nptp_dst_mac 01:80:C2:00:00:0E\nnetwork_transport L2\n\
    delay_mechanism P2P\nsummary_interval -4\nfreq_est_interval 0\nlogging_level 7\n";
const PATIENCE: Duration = Duration::from_secs(90);
/// From the last lock on, until every servo knows its link.
const SETTLING: Duration = Duration::from_secs(10);
const LOOK: Duration = Duration::from_millis(20);
const RELAYS: usize = 3;
const WAYS: [&str; 2] = ["residence", "clock"];

/// An agent, with what is read of it from outside.
struct Station {
    name: String,
    agent: Agent,
    path: PathBuf,
    page: Option<PtpClock>,
    socket: PathBuf,
    errors: Vec<f64>,
    bounds: Vec<f64>,
    outside: u64,
    /// Changes of its links before it was looked at, and processor time then.
    before: (u64, u64),
}

impl Station {
    fn start(
        node: &Namespace,
        directory: &Path,
        name: String,
        words: &str,
    ) -> Result<Self, String> {
        let [page, socket] = ["page", "socket"].map(|it| directory.join(format!("{name}.{it}")));
        let words = format!(
            "run --profile gptp --clock virtual {words} --page {} --status-socket {}",
            page.display(),
            socket.display()
        );
        let agent = Agent::start(node, &words.split_whitespace().collect::<Vec<_>>());
        Ok(Self {
            name,
            agent,
            path: page,
            page: None,
            socket,
            errors: Vec::new(),
            bounds: Vec::new(),
            outside: 0,
            before: (0, 0),
        })
    }

    /// How often its links have become capable or ceased to be.
    fn changes(&self) -> u64 {
        let mut command = std::process::Command::new(binary());
        command.args(["status", "--json", "--status-socket"]).arg(&self.socket);
        let (_, text, log) = run_to_end(command);
        let status: Value = text.lines().last().map_or(Value::Null, |line| {
            serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {text} {log}"))
        });
        let ports = status["ports"].as_array().cloned().unwrap_or_default();
        ports.iter().filter_map(|port| port["as_capable_changes"].as_u64()).sum()
    }

    fn begin(&mut self) {
        self.errors.clear();
        self.bounds.clear();
        self.outside = 0;
        self.before = (self.changes(), processor_ns(self.agent.pid()));
    }

    fn look(&mut self) {
        if let Some(look) = self.page.as_ref().and_then(Look::at) {
            self.errors.push(look.error_ns as f64);
            self.bounds.push(look.bound_ns as f64);
            self.outside += u64::from(!look.is_within());
        }
    }

    fn line(&self, seconds: f64) -> Value {
        let spent = processor_ns(self.agent.pid()).saturating_sub(self.before.1);
        let mut line = figures(&self.name, &self.errors);
        line["outside_bound"] = self.outside.into();
        line["bound_p50_ns"] = figures("", &self.bounds)["p50_ns"].clone();
        line["as_capable_changes"] = self.changes().saturating_sub(self.before.0).into();
        line["processor_percent"] = json!(spent as f64 / 1e7 / seconds);
        line
    }
}

/// What is to be said of errors, nanoseconds.
fn figures(name: &str, errors: &[f64]) -> Value {
    let n = errors.len().max(1) as f64;
    let mean = errors.iter().sum::<f64>() / n;
    let squares = errors.iter().map(|error| error * error).sum::<f64>() / n;
    let mut sizes: Vec<f64> = errors.iter().map(|error| error.abs()).collect();
    sizes.sort_by(f64::total_cmp);
    let at = |share: f64| sizes.get((sizes.len() as f64 * share) as usize).copied();
    json!({
        "event": "bench", "name": name, "n": errors.len(), "mean_ns": mean, "rms_ns": squares.sqrt(),
        "sd_ns": (squares - mean * mean).max(0.0).sqrt(), "p50_ns": at(0.5), "p99_ns": at(0.99),
        "max_ns": sizes.last(),
    })
}

fn all(span: Duration) -> Result<(), String> {
    let needed = |error: NetnsError| error.to_string();
    let node = || Namespace::new().map_err(needed);
    let directory = tempfile::tempdir().map_err(|error| error.to_string())?;
    let first = node()?;
    let mut chains = Vec::new();
    for way in WAYS {
        let relays = [node()?, node()?, node()?];
        let ends = [node()?, node()?];
        veth(&first, &format!("{way}0"), &relays[0], "up1").map_err(needed)?;
        for n in 1..RELAYS {
            veth(&relays[n - 1], &format!("down{n}"), &relays[n], &format!("up{}", n + 1))
                .map_err(needed)?;
        }
        for (n, end) in ends.iter().enumerate() {
            veth(&relays[RELAYS - 1], &format!("end{n}"), end, "up").map_err(needed)?;
        }
        chains.push((way, relays, ends));
    }
    let ports = WAYS.map(|way| format!("{way}0"));
    let ports = ports.each_ref().map(String::as_str);
    let _grandmaster = Ptp4l::start(&first, &ports, &[GPTP, "priority1 200"])?;
    let begun = Instant::now();
    let mut stations = Vec::new();
    let mut ends = Vec::new();
    for (way, relays, [theirs, ours]) in &chains {
        let file = directory.path().join(format!("{way}.toml"));
        std::fs::write(&file, format!("[run]\nrelay = \"{way}\"\n"))
            .map_err(|error| error.to_string())?;
        for n in 1..=RELAYS {
            let down = if n < RELAYS { format!("down{n}") } else { "end0 end1".to_owned() };
            let words = format!("--role auto --config {} -i up{n} {down}", file.display());
            let name = format!("{way}_relay{n}");
            stations.push(Station::start(&relays[n - 1], directory.path(), name, &words)?);
        }
        let name = format!("{way}_end");
        stations.push(Station::start(ours, directory.path(), name, "-i up")?);
        ends.push((*way, Ptp4l::start(theirs, &["up"], &[GPTP, "priority1 248"])?));
    }
    for station in &mut stations {
        let agent = &station.agent;
        agent.wait_for_sample(0, PATIENCE, "lock", |sample| sample["state"] == "locked");
        let seconds = begun.elapsed().as_secs_f64();
        // It is a page from the lock on.
        station.page = Some(PtpClock::open(&station.path).map_err(|error| error.to_string())?);
        println!("{}", json!({"event": "locked", "name": station.name, "after_s": seconds}));
    }
    for (_, end) in &ends {
        end.wait_for_text(0, PATIENCE, "master offset");
    }
    thread::sleep(SETTLING);
    let marks: Vec<_> = ends.iter().map(|(_, end)| (end.mark(), end.offsets().len())).collect();
    stations.iter_mut().for_each(Station::begin);
    let begun = Instant::now();
    while begun.elapsed() < span {
        thread::sleep(LOOK);
        stations.iter_mut().for_each(Station::look);
    }
    let seconds = begun.elapsed().as_secs_f64();
    for station in &stations {
        println!("{}", station.line(seconds));
    }
    for ((way, end), (mark, count)) in ends.iter().zip(marks) {
        let offsets: Vec<f64> = end.offsets()[count..].iter().map(|it| *it as f64).collect();
        let mut line = figures(&format!("{way}_ptp4l_end"), &offsets);
        let lines = end.lines();
        let changes = lines[mark..].iter().filter(|it| {
            it.text.contains("setting asCapable") || it.text.contains("resetting asCapable")
        });
        line["as_capable_changes"] = changes.clone().count().into();
        let reasons = changes.filter_map(|it| it.text.split_once("port 1"));
        let reasons: Vec<&str> = reasons.map(|(_, reason)| reason).take(8).collect();
        line["first_reasons"] = reasons.into();
        let faults = lines[mark..].iter().filter(|it| it.text.contains("FAULTY")).count();
        line["faults"] = faults.into();
        println!("{line}");
    }
    for station in &mut stations {
        station.agent.finish();
    }
    Ok(())
}

fn main() -> ExitCode {
    let seconds = env::args().nth(1).and_then(|text| text.parse().ok()).unwrap_or(600);
    match all(Duration::from_secs(seconds)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(reason) => {
            eprintln!("gptp: {reason}");
            ExitCode::FAILURE
        }
    }
}
