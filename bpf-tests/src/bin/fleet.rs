//! Measurements of many hosts. `fleet rules [AGENTS [SECONDS]]`: a real Prometheus scrapes so many simulated agents,
//! which tell what agents tell: how long the rules take, how many series there are, bytes per sample.
//! `fleet orders [SECONDS]`: what two hosts without PTP hardware can order with this agent, with `ptp4l -S` and
//! with chrony, all three in one run against one clock. The second needs root, linuxptp and chrony.

use std::{
    collections::BTreeMap,
    env,
    error::Error,
    fs::{self, Permissions},
    io::{BufRead as _, BufReader, Read as _, Write as _},
    net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream},
    os::unix::fs::PermissionsExt as _,
    path::Path,
    process::{Command, ExitCode},
    sync::{Arc, Mutex},
    thread,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use bpf_tests::{
    agent::{Agent, field},
    children::Running,
    program,
    prometheus::deployed,
    ptp4l::{CLIENT, Ptp4l},
};
use ptp_agent::{
    engine::PortState,
    lab::netns::{Namespace, veth},
    publish::{
        alarms::Alarm,
        metrics::{CapturePoint, Direction, HostClock, Metrics, StampOutcome},
    },
    servo::ServoState,
    stamp::StampSource,
};
use ptp_common::wire::{ClockIdentity, MessageType, PortIdentity};
use serde_json::{Value, json};

type Result<T> = std::result::Result<T, Box<dyn Error>>;

const PATIENCE: Duration = Duration::from_secs(30);
/// Between two scrapes of the simulated fleet, s.
const INTERVAL: u64 = 5;

fn main() -> ExitCode {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let number = |at: usize, otherwise: u64| {
        arguments.get(at).and_then(|text| text.parse().ok()).unwrap_or(otherwise)
    };
    let measured = match arguments.first().map(String::as_str) {
        Some("rules") => rules(number(1, 500), Duration::from_secs(number(2, 300))),
        Some("orders") => orders(Duration::from_secs(number(1, 60))),
        _ => Err("fleet rules [AGENTS [SECONDS]] or fleet orders [SECONDS]".into()),
    };
    match measured {
        Ok(()) => ExitCode::SUCCESS,
        Err(reason) => {
            eprintln!("fleet: {reason}");
            ExitCode::FAILURE
        }
    }
}

/// Numbers that look random and are the same in each run.
struct Dice(u64);

impl Dice {
    /// From -1 to 1.
    fn roll(&mut self) -> f64 {
        self.0 =
            self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) as f64 / f64::from(1_u32 << 30) - 1.0
    }
}

/// A simulated agent.
struct Simulated {
    metrics: Metrics,
    dice: Dice,
    scrapes: u64,
    grandmaster: ClockIdentity,
}

impl Simulated {
    fn new(number: u64) -> Self {
        let metrics = Metrics::new();
        metrics.set_alarms(Alarm::ALL.iter().map(|alarm| (alarm.name(), false)));
        metrics.set_ring_lost(0);
        // Four grandmasters, and one host of another.
        let grandmaster = ClockIdentity([if number == 0 { 9 } else { (number % 4) as u8 }; 8]);
        Self { metrics, dice: Dice(number), scrapes: 0, grandmaster }
    }

    /// What a scrape gives: as an agent at 16 Sync/s that is locked.
    fn text(&mut self) -> Vec<u8> {
        self.scrapes += 1;
        let (dice, messages) = (&mut self.dice, self.scrapes * 16 * INTERVAL);
        let now =
            SystemTime::now().duration_since(UNIX_EPOCH).map_or(0.0, |time| time.as_secs_f64());
        self.metrics.update("eth0", 0, |figures| {
            figures.port_state = Some(PortState::TimeReceiver);
            figures.servo_state = Some(ServoState::Locked);
            figures.offset_from_master_seconds = Some(dice.roll() * 1e-7);
            figures.mean_path_delay_seconds = Some(3e-6 + dice.roll() * 1e-8);
            figures.clock_frequency_adjustment_ratio = Some(1e-5 + dice.roll() * 1e-9);
            figures.clock_error_bound_seconds = Some(4e-7 + dice.roll() * 5e-8);
            figures.clock_precision_seconds = Some(4e-8 + dice.roll() * 5e-9);
            figures.causal_interval_seconds = Some([-4e-7 + dice.roll() * 1e-8, 3e-7]);
            figures.host_clock = Some(HostClock {
                offset_seconds: 1e-3 + dice.roll() * 1e-6,
                bound_seconds: 5e-7 + dice.roll() * 5e-8,
                read_at_seconds: now,
            });
            figures.set_parent(self.grandmaster, PortIdentity::default());
            figures.last_sample_timestamp_seconds = Some(now);
            figures.priming = Some(true);
            for (direction, kinds) in [
                (
                    Direction::Rx,
                    &[
                        MessageType::Sync,
                        MessageType::FollowUp,
                        MessageType::DelayResp,
                        MessageType::Announce,
                    ][..],
                ),
                (Direction::Tx, &[MessageType::DelayReq][..]),
            ] {
                for kind in kinds {
                    figures.set_messages(direction, *kind, messages);
                }
                for source in [StampSource::Stack, StampSource::TcIngress] {
                    let point = CapturePoint { is_chosen: true, noise_seconds: Some(4e-8) };
                    figures.capture_points.insert((direction, source), point);
                    for outcome in [
                        StampOutcome::Matched,
                        StampOutcome::Orphaned,
                        StampOutcome::Duplicate,
                        StampOutcome::Late,
                        StampOutcome::Interrupted,
                    ] {
                        let is_matched = outcome == StampOutcome::Matched;
                        figures.set_timestamps(
                            direction,
                            source,
                            outcome,
                            if is_matched { messages } else { 0 },
                        );
                    }
                    let differences =
                        figures.timestamp_differences.entry((direction, source)).or_default();
                    for _ in 0..16 {
                        let nanos = 1_200 + (dice.roll() * 400.0) as i64;
                        differences.add(ptp_common::time::Duration::from_nanos(nanos));
                    }
                }
            }
            for outcome in ["sync", "delay", "contradicting"] {
                figures.set_exchanges(outcome, messages);
            }
        });
        self.metrics.encode().unwrap_or_default()
    }
}

/// Serves all simulated agents, each under its number.
fn serve(mut stream: TcpStream, agents: &[Mutex<Simulated>]) -> Option<()> {
    let mut reader = BufReader::new(stream.try_clone().ok()?);
    loop {
        let mut first = String::new();
        if reader.read_line(&mut first).ok()? == 0 {
            return None;
        }
        let mut line = String::new();
        while reader.read_line(&mut line).ok()? > 2 {
            line.clear();
        }
        let number: usize =
            first.split_whitespace().nth(1)?.trim_start_matches('/').parse().ok()?;
        let body = agents.get(number)?.lock().ok()?.text();
        let head = format!(
            "HTTP/1.1 200 OK\r\nContent-Type: text/plain; version=0.0.4\r\nContent-Length: {}\r\n\r\n",
            body.len()
        );
        stream.write_all(head.as_bytes()).ok()?;
        stream.write_all(&body).ok()?;
    }
}

/// The body of a request to a server of this host.
fn http(method: &str, to: SocketAddr, path: &str) -> Result<String> {
    let mut stream = TcpStream::connect(to)?;
    write!(stream, "{method} {path} HTTP/1.0\r\nHost: {to}\r\nContent-Length: 0\r\n\r\n")?;
    let mut text = String::new();
    stream.read_to_string(&mut text)?;
    let (_, body) = text.split_once("\r\n\r\n").ok_or("no answer")?;
    Ok(body.to_owned())
}

/// The values of a metric in a scrape, by its labels.
fn values(text: &str, name: &str) -> BTreeMap<String, f64> {
    let of = text.lines().filter_map(|line| line.strip_prefix(name)?.rsplit_once(' '));
    of.filter(|(labels, _)| labels.is_empty() || labels.starts_with('{'))
        .filter_map(|(labels, value)| Some((labels.to_owned(), value.parse().ok()?)))
        .collect()
}

fn tell(name: &str, unit: &str, value: f64, more: Value) {
    println!(
        "{}",
        json!({"event": "bench", "name": name, "unit": unit, "value": value, "with": more})
    );
}

fn rules(count: u64, duration: Duration) -> Result<()> {
    let agents: Arc<Vec<_>> = Arc::new((0..count).map(|n| Mutex::new(Simulated::new(n))).collect());
    let size = agents[0].lock().map_err(|_| "no agent")?.text().len();
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    let from = listener.local_addr()?;
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let agents = Arc::clone(&agents);
            thread::spawn(move || serve(stream, &agents));
        }
    });
    let directory = tempfile::tempdir()?;
    let own = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?;
    let mut config = format!(
        "global: {{scrape_interval: {INTERVAL}s, evaluation_interval: 15s}}\nrule_files: ['{}', '{}']\n\
         scrape_configs:\n- job_name: ptp-agent\n  static_configs:\n",
        deployed("prometheus-rules.yml").display(),
        deployed("prometheus-fleet-rules.yml").display(),
    );
    for n in 0..count {
        config.push_str(&format!(
            "  - {{targets: ['{from}'], labels: {{__metrics_path__: /{n}, instance: 'host{n}:9319'}}}}\n"
        ));
    }
    let file = directory.path().join("prometheus.yml");
    fs::write(&file, config)?;
    let mut command = Command::new(program("prometheus")?);
    command
        .arg(format!("--config.file={}", file.display()))
        .arg(format!("--storage.tsdb.path={}", directory.path().join("data").display()))
        .arg(format!("--web.listen-address={own}"))
        .arg("--web.enable-admin-api");
    let running = Running::start("prometheus", &mut command);
    running.wait_for_text(0, PATIENCE, "Server is ready to receive web requests");
    // What is measured is what has come together by then.
    thread::sleep(duration);
    let metrics = http("GET", own, "/metrics")?;
    let one = |name: &str| values(&metrics, name).values().copied().next().unwrap_or(f64::NAN);
    let with =
        json!({"agents": count, "scrape_interval_s": INTERVAL, "seconds": duration.as_secs()});
    tell("scrape_size", "B", size as f64, with.clone());
    for (group, seconds) in values(&metrics, "prometheus_rule_group_last_duration_seconds") {
        let name = group.rsplit(';').next().unwrap_or_default().trim_end_matches("\"}").to_owned();
        let with = json!({"agents": count, "group": name});
        tell("rule_evaluation", "s", seconds, with);
    }
    let series = one("prometheus_tsdb_head_series");
    tell("series", "1", series, with.clone());
    tell("series_per_agent", "1", series / count as f64, with.clone());
    tell("prometheus_memory", "B", one("process_resident_memory_bytes"), with.clone());
    let failed: f64 = values(&metrics, "prometheus_rule_evaluation_failures_total").values().sum();
    tell("failed_evaluations", "1", failed, with.clone());
    let answer: Value = serde_json::from_str(&http("POST", own, "/api/v1/admin/tsdb/snapshot")?)?;
    let name = answer["data"]["name"].as_str().ok_or("no snapshot")?;
    let (mut bytes, mut samples) = (0, 0.0);
    for block in fs::read_dir(directory.path().join("data/snapshots").join(name))? {
        let block = block?.path();
        let meta = fs::read_to_string(block.join("meta.json"))?;
        let meta: Value = serde_json::from_str(&meta)?;
        samples += meta["stats"]["numSamples"].as_f64().unwrap_or(0.0);
        bytes += size_of(&block)?;
    }
    tell("samples", "1", samples, with.clone());
    tell("bytes_per_sample", "B", bytes as f64 / samples, with);
    Ok(())
}

fn size_of(directory: &Path) -> Result<u64> {
    let mut bytes = 0;
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        let metadata = entry.metadata()?;
        bytes += if metadata.is_dir() { size_of(&entry.path())? } else { metadata.len() };
    }
    Ok(bytes)
}

/// chronyd that cannot set the clock, with a directory of its own.
struct Chrony {
    directory: tempfile::TempDir,
    _running: Running,
}

impl Chrony {
    fn start(namespace: &Namespace, lines: &str) -> Result<Self> {
        let directory = tempfile::tempdir()?;
        // It makes its command socket nowhere else.
        fs::set_permissions(directory.path(), Permissions::from_mode(0o700))?;
        let at = |name: &str| directory.path().join(name).display().to_string();
        let text = format!(
            "{lines}\ncmdport 0\nbindcmdaddress {}\npidfile {}\nuser root\n",
            at("chronyd.sock"),
            at("pid")
        );
        fs::write(directory.path().join("chrony.conf"), text)?;
        let mut command = namespace.command(program("setpriv")?);
        command.args(["--bounding-set", "-sys_time", "--inh-caps", "-sys_time", "--"]);
        command.arg(program("chronyd")?).args(["-x", "-d", "-f"]).arg(at("chrony.conf"));
        let running = Running::start("chronyd", &mut command);
        Ok(Self { directory, _running: running })
    }

    /// Last offset, and the bound that it claims: half the root delay and the root dispersion, ns.
    fn tracking(&self) -> Option<[f64; 2]> {
        let mut command = Command::new(program("chronyc").ok()?);
        command.args(["-c", "-h"]).arg(self.directory.path().join("chronyd.sock")).arg("tracking");
        let text = String::from_utf8(command.output().ok()?.stdout).ok()?;
        let fields: Vec<f64> =
            text.trim().split(',').map(|field| field.parse().unwrap_or(0.0)).collect();
        let [offset, delay, dispersion] = [5, 10, 11].map(|at| fields.get(at).copied());
        let (offset, bound) = (offset? * 1e9, (delay? / 2.0 + dispersion?) * 1e9);
        (fields.get(2).is_some_and(|stratum| *stratum > 0.0)).then_some([offset, bound])
    }
}

/// Largest but a hundredth of magnitudes, and the median.
fn figures(mut values: Vec<f64>) -> [f64; 2] {
    values.iter_mut().for_each(|value| *value = value.abs());
    values.sort_by(f64::total_cmp);
    let at = |share: f64| {
        let last = values.len().saturating_sub(1) as f64;
        values.get((share * last).round() as usize).copied().unwrap_or(f64::NAN)
    };
    [at(0.5), at(0.99)]
}

/// Differences of the two hosts' errors, and what they claim together.
fn report(name: &str, errors: [Vec<f64>; 2], claims: [Vec<f64>; 2]) {
    let sum = |[a, b]: [Vec<f64>; 2], sign: f64| -> Vec<f64> {
        a.into_iter().zip(b).map(|(a, b)| a + sign * b).collect()
    };
    let errors = sum(errors, -1.0);
    let (count, [median, p99]) = (errors.len(), figures(errors));
    let claims = sum(claims, 1.0);
    let claimed = (!claims.is_empty()).then(|| figures(claims));
    println!(
        "{}",
        json!({
            "event": "orders", "with": name, "samples": count,
            "difference_error_ns": {"p50": median.round(), "p99": p99.round()},
            "claimed_pair_bound_ns": claimed.map(|[median, p99]| json!({"p50": median.round(), "p99": p99.round()})),
        })
    );
}

fn orders(duration: Duration) -> Result<()> {
    let grandmaster = Namespace::new()?;
    let mut clients = Vec::new();
    for n in 0..6_u8 {
        let client = Namespace::new()?;
        let wire = format!("wire{n}");
        veth(&grandmaster, &wire, &client, "eth0")?;
        grandmaster.add_address(&wire, Ipv4Addr::new(192, 0, 2, 4 * n + 1).into(), 30)?;
        client.add_address("eth0", Ipv4Addr::new(192, 0, 2, 4 * n + 2).into(), 30)?;
        clients.push(client);
    }
    let serve = "serve -i wire0 wire1 wire2 wire3 --log-sync-interval -4 --log-announce-interval -1 \
                 --log-min-delay-req-interval -4";
    let _serve = Agent::start(&grandmaster, &serve.split_whitespace().collect::<Vec<_>>());
    let _ntp = Chrony::start(&grandmaster, "local stratum 1\nallow")?;
    let run = ["run", "-i", "eth0", "--clock", "none"];
    let agents = [Agent::start(&clients[0], &run), Agent::start(&clients[1], &run)];
    let ptp4l = [
        Ptp4l::start(&clients[2], &["eth0"], &[CLIENT])?,
        Ptp4l::start(&clients[3], &["eth0"], &[CLIENT])?,
    ];
    let chrony = |n: u8| {
        let server = Ipv4Addr::new(192, 0, 2, 4 * n + 1);
        let lines = format!("server {server} iburst minpoll 0 maxpoll 0 xleave\nport 0");
        Chrony::start(&clients[usize::from(n)], &lines)
    };
    let chrony = [chrony(4)?, chrony(5)?];
    for agent in &agents {
        agent.wait_for_sample(0, PATIENCE, "a bound", |sample| sample["error_bound_ns"].is_i64());
    }
    // All have found their way by then.
    thread::sleep(Duration::from_secs(20));
    let marks = [agents[0].mark(), agents[1].mark()];
    let offsets_before = [ptp4l[0].offsets().len(), ptp4l[1].offsets().len()];
    let mut tracked: [Vec<[f64; 2]>; 2] = Default::default();
    for _ in 0..duration.as_secs() {
        thread::sleep(Duration::from_secs(1));
        if let (Some(a), Some(b)) = (chrony[0].tracking(), chrony[1].tracking()) {
            tracked[0].push(a);
            tracked[1].push(b);
        }
    }
    // All namespaces share one clock: each offset that is told is an error.
    let floats =
        |values: Vec<i64>| values.into_iter().map(|value| value as f64).collect::<Vec<_>>();
    let samples = [0, 1].map(|n| agents[n].samples(marks[n]));
    let of = |name: &'static str| [0, 1].map(|n| floats(field(&samples[n], name)));
    let claims = [0, 1].map(|n| {
        let interval = |sample: &Value| {
            Some([sample["interval_ns"][0].as_f64()?, sample["interval_ns"][1].as_f64()?])
        };
        let half = samples[n].iter().filter_map(interval).map(|[lo, hi]| (hi - lo) / 2.0);
        half.collect::<Vec<_>>()
    });
    report("ptp-agent", of("offset_ns"), claims);
    let offsets = [0, 1].map(|n| floats(ptp4l[n].offsets().split_off(offsets_before[n])));
    report("ptp4l -S", offsets, [Vec::new(), Vec::new()]);
    let of =
        |at: usize| [0, 1].map(|n| tracked[n].iter().map(|both| both[at]).collect::<Vec<f64>>());
    report("chrony", of(0), of(1));
    Ok(())
}
