//! statime as second opinion, over links that are measured by peer delay: a boundary clock of ours between ptp4l and statime,
//! and statime's boundary clock between ptp4l and a client of ours. What statime says of itself is read from its observation
//! socket (as the one that serves it measures no link); what our client shows, from its page, against the host's clock.

use std::{
    fs,
    io::Read as _,
    os::unix::{fs::PermissionsExt as _, net::UnixStream},
    path::{Path, PathBuf},
    thread,
    time::{Duration, Instant},
};

use bpf_tests::{agent::Agent, children::Running, clocks::Look, program};
use ptp_agent::lab::netns::Namespace;
use ptp_clock_reader::PtpClock;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::{
    Measured, Options, PATIENCE, boundary, figures, follows, grandmaster, namespace, tell, wire,
};

const NET: u8 = 81;
const WARM_UP: Duration = Duration::from_secs(20);
const LOOK: Duration = Duration::from_millis(125);
/// statime makes its identity of the first interface with a globally administered address.
const GLOBAL: [u8; 6] = [0x00, 0x1b, 0x19, 0x00, 0x51, 0x01];

/// A running statime.
struct Statime {
    _running: Running,
    socket: PathBuf,
    _directory: TempDir,
}

fn find() -> Option<PathBuf> {
    let unpacked = Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/peers/bin/statime");
    if unpacked.is_file() { Some(unpacked) } else { program("statime").ok() }
}

impl Statime {
    /// On its ports: interface, and whether the link is measured by peer delay.
    fn start(
        file: &Path,
        namespace: &Namespace,
        ports: &[(&str, bool)],
        is_client: bool,
    ) -> Result<Self, String> {
        let failed = |error: std::io::Error| error.to_string();
        let directory = tempfile::tempdir().map_err(failed)?;
        let socket = directory.path().join("observation");
        let mut text = format!(
            "loglevel = \"warn\"\nvirtual-system-clock = true\nslave-only = {is_client}\npath-trace = true\n\
             [observability]\nobservation-path = \"{}\"\n",
            socket.display()
        );
        for (interface, is_peer) in ports {
            let mechanism = if *is_peer { "P2P" } else { "E2E" };
            text.push_str(&format!(
                "[[port]]\ninterface = \"{interface}\"\nnetwork-mode = \"ipv4\"\n\
                 hardware-clock = \"none\"\ndelay-mechanism = \"{mechanism}\"\n\
                 announce-interval = -2\nsync-interval = -3\ndelay-interval = -3\n"
            ));
        }
        let config = directory.path().join("statime.toml");
        fs::write(&config, text).map_err(failed)?;
        // Refused where others may write.
        fs::set_permissions(&config, fs::Permissions::from_mode(0o600)).map_err(failed)?;
        let mut command = namespace.command(program("setpriv")?);
        command.args(["--bounding-set=-sys_time", "--inh-caps=-sys_time"]);
        command.arg(file).arg("--config").arg(&config);
        let running = Running::start("statime", &mut command);
        Ok(Self { _running: running, socket, _directory: directory })
    }

    /// What it says of itself now.
    fn told(&self) -> Option<Value> {
        let mut stream = UnixStream::connect(&self.socket).ok()?;
        stream.set_read_timeout(Some(Duration::from_secs(2))).ok()?;
        let mut text = String::new();
        stream.read_to_string(&mut text).ok()?;
        serde_json::from_str(&text).ok()
    }

    fn wait_for_parent(&self, since: Instant) -> Result<(), String> {
        while since.elapsed() < PATIENCE {
            let told = self.told().unwrap_or_default();
            let steps = told["instance"]["current_ds"]["steps_removed"].as_u64();
            if steps.is_some_and(|steps| steps > 0) {
                return Ok(());
            }
            thread::sleep(LOOK);
        }
        Err(format!("statime follows nobody: {}", self.told().unwrap_or_default()))
    }
}

/// Its offset from its parent, nanoseconds; it tells that with 32 binary places.
fn offset(told: &Value) -> Option<f64> {
    let bits = told["instance"]["current_ds"]["offset_from_master"].as_f64()?;
    Some(bits / 2_f64.powi(32))
}

/// A port's mean link delay by peer delay, nanoseconds; it tells that with 16 binary places.
fn link_delay(told: &Value) -> Option<f64> {
    let ports = told["instance"]["port_ds"].as_array()?;
    let bits = ports.iter().find_map(|port| {
        port["delay_mechanism"].as_object()?.get("P2P")?["mean_link_delay"].as_f64()
    })?;
    Some(bits / 2_f64.powi(16))
}

/// Ours passes on, statime follows.
fn behind_ours(file: &Path, options: &Options) -> Measured {
    let [root, middle, end] = [namespace()?, namespace()?, namespace()?];
    wire((&root, "gm0"), (&middle, "up"), [NET, 1])?;
    wire((&middle, "down"), (&end, "end"), [NET, 2])?;
    end.set_mac("end", GLOBAL).map_err(|error| error.to_string())?;
    let _grandmaster = grandmaster(&root, &["gm0"])?;
    let clock = boundary(&middle, &["up", "down"], &["--port", "down=udp4,p2p"]);
    follows(&clock, 0);
    let statime = Statime::start(file, &end, &[("end", true)], true)?;
    statime.wait_for_parent(Instant::now())?;
    thread::sleep(WARM_UP);
    let (mut offsets, mut delays) = (Vec::new(), Vec::new());
    let (mut last, begin) = (Value::Null, Instant::now());
    while begin.elapsed() < options.seconds {
        thread::sleep(LOOK);
        let Some(told) = statime.told() else { continue };
        offsets.extend(offset(&told));
        delays.extend(link_delay(&told));
        last = told;
    }
    if offsets.is_empty() {
        return Err(format!("statime tells no offset: {last}"));
    }
    tell(&json!({ "event": "bench", "name": "second", "boundary": "ours", "client": "statime",
                  "delay": "p2p", "statime_offset_ns": figures(offsets),
                  "statime_link_delay_ns": figures(delays),
                  "steps_removed": last["instance"]["current_ds"]["steps_removed"] }));
    Ok(())
}

/// statime passes on, ours follows.
fn behind_statime(file: &Path, options: &Options) -> Measured {
    let [root, middle, end] = [namespace()?, namespace()?, namespace()?];
    wire((&root, "gm0"), (&middle, "up"), [NET, 3])?;
    wire((&middle, "down"), (&end, "end"), [NET, 4])?;
    for (interface, last) in [("up", 0x11), ("down", 0x12)] {
        let mut mac = GLOBAL;
        mac[5] = last;
        middle.set_mac(interface, mac).map_err(|error| error.to_string())?;
    }
    let _grandmaster = grandmaster(&root, &["gm0"])?;
    let statime = Statime::start(file, &middle, &[("up", false), ("down", true)], false)?;
    statime.wait_for_parent(Instant::now())?;
    let directory = tempfile::tempdir().map_err(|error| error.to_string())?;
    let page = directory.path().join("page");
    let shown = page.display().to_string();
    let arguments = [
        &["run", "-i", "end", "--clock", "virtual", "--delay", "p2p", "--status-socket", "none"][..],
        &["--page", &shown],
    ];
    let agent = Agent::start_only(&end, &arguments.concat());
    agent.wait_for_text(0, PATIENCE, "\"state\":\"locked\"");
    thread::sleep(WARM_UP);
    let page = PtpClock::open(&page).map_err(|error| error.to_string())?;
    let (mark, begin) = (agent.mark(), Instant::now());
    let mut errors = Vec::new();
    while begin.elapsed() < options.seconds {
        thread::sleep(LOOK);
        if let Some(look) = Look::at(&page) {
            errors.push(look.error_ns as f64);
        }
    }
    let samples = agent.samples(mark);
    let ours = samples.iter().filter_map(|sample| sample["delay_ns"].as_f64()).collect();
    if errors.is_empty() {
        return Err("no page of our client's".to_owned());
    }
    tell(&json!({ "event": "bench", "name": "second", "boundary": "statime", "client": "ours",
                  "delay": "p2p", "true_error_ns": figures(errors), "our_link_delay_ns": figures(ours) }));
    Ok(())
}

pub(crate) fn measure(options: &Options) -> Measured {
    let Some(file) = find() else {
        eprintln!("second: no statime (cargo xtask setup --peers installs it): left out");
        return Ok(());
    };
    behind_ours(&file, options)?;
    behind_statime(&file, options)
}
