//! The agent's time in the hands of others: chronyd of the distribution, which is told not to steer
//! (`-x`) and cannot (no CAP_SYS_TIME), takes samples from it; the shared page and the error bound are
//! read while the agent follows. All namespaces share one clock, so the truth is an offset of zero.
//! Needs root.

use std::{
    fs::{self, Permissions},
    os::unix::fs::PermissionsExt,
    path::Path,
    process::Command,
    time::{Duration, Instant},
};

use bpf_tests::{
    agent::Agent, alone, children::Running, links::Wire, links::output, need, program,
};
use ptp_agent::{lab::netns::Namespace, sys::clock::realtime};
use ptp_clock_reader::{PtpClock, State};

/// How long the agent may take to lock, and chronyd to take samples.
const PATIENCE: Duration = Duration::from_secs(40);

fn chronyd(namespace: &Namespace, directory: &Path) -> Result<Running, String> {
    let chronyd = program("chronyd")?;
    let setpriv = program("setpriv")?;
    let at = |name: &str| directory.join(name).display().to_string();
    let configuration = format!(
        "refclock SOCK {} refid PTP poll 0 filter 1\ncmdport 0\nport 0\nbindcmdaddress {}\npidfile {}\nuser root\n",
        at("samples"),
        at("chronyd.sock"),
        at("pid"),
    );
    let file = directory.join("chrony.conf");
    fs::write(&file, configuration).map_err(|error| error.to_string())?;
    let mut command = namespace.command(setpriv);
    command.args(["--bounding-set", "-sys_time", "--inh-caps", "-sys_time", "--"]);
    Ok(Running::start("chronyd", command.arg(chronyd).args(["-x", "-d", "-f"]).arg(file)))
}

/// A table of `chronyc` as comma-separated lines, once it has a line of the source with a sample.
fn chronyc(directory: &Path, table: &str, has_sample: impl Fn(&[&str]) -> bool) -> Vec<String> {
    let chronyc = program("chronyc").expect("comes with chronyd");
    let start = Instant::now();
    loop {
        let mut command = Command::new(&chronyc);
        command.args(["-c", "-h"]).arg(directory.join("chronyd.sock")).arg(table);
        let text = match command.output() {
            Ok(output) => String::from_utf8_lossy(&output.stdout).into_owned(),
            Err(error) => error.to_string(),
        };
        for line in text.lines() {
            let fields: Vec<&str> = line.split(',').collect();
            if fields.contains(&"PTP") && has_sample(&fields) {
                return fields.into_iter().map(str::to_owned).collect();
            }
        }
        assert!(start.elapsed() < PATIENCE, "chronyc {table}: {text}");
        // It has nothing to wait on, but the next sample is a second away.
        std::thread::sleep(Duration::from_millis(500));
    }
}

#[test]
fn chronyd_takes_samples_also_after_a_restart_and_the_page_and_the_bound_hold() {
    need!(program("chronyd").map(drop));
    let _machine = alone();
    let wire = need!(Wire::new());
    let directory = tempfile::tempdir().unwrap();
    // chronyd makes its command socket nowhere else.
    fs::set_permissions(directory.path(), Permissions::from_mode(0o700)).unwrap();
    let at = |name: &str| directory.path().join(name).display().to_string();
    let serve = ["serve", "-i", "gm0", "--log-sync-interval", "-4"];
    let more = ["--log-announce-interval", "-1", "--log-min-delay-req-interval", "-4"];
    let mut server = Agent::start(&wire.grandmaster, &[&serve[..], &more[..]].concat());
    let (samples, page, bound) = (at("samples"), at("page"), at("bound"));
    let run = ["run", "-i", "ptp0", "--clock", "virtual", "--chrony-sock", &samples];
    let more = ["--page", &page, "--clock-bound", &bound];
    let mut client = Agent::start(&wire.client, &[&run[..], &more[..]].concat());
    client.wait_for_sample(0, PATIENCE, "locked sample", |sample| sample["state"] == "locked");
    // The second time the agent has to find it again.
    for _ in 0..2 {
        let mut daemon = need!(chronyd(&wire.client, directory.path()));
        let source = chronyc(directory.path(), "sources", |fields| fields[5] != "0");
        println!("sources: {}", source.join(","));
        let statistics = chronyc(directory.path(), "sourcestats", |fields| {
            fields[1].parse().is_ok_and(|points: u32| points >= 3)
        });
        println!("sourcestats: {}", statistics.join(","));
        let offset: f64 = source[7].parse().expect("an offset in seconds");
        assert!(offset.abs() < 1e-3, "{offset} s");
        daemon.stop();
    }
    let clock = PtpClock::open(&page).unwrap();
    let before = realtime().as_nanos();
    let shown = clock.now().unwrap();
    let after = realtime().as_nanos();
    println!("page: {shown:?}, CLOCK_REALTIME {before} to {after}");
    assert_eq!(shown.state, State::Locked);
    let tai_ns = i64::from(shown.utc_offset_s.unwrap_or(0)) * 1_000_000_000;
    let bound_ns = i64::try_from(shown.bound_ns.expect("known while locked")).unwrap();
    assert!(shown.ptp_ns - tai_ns - bound_ns <= after, "{shown:?}");
    assert!(shown.ptp_ns - tai_ns + bound_ns >= before, "{shown:?}");
    assert_eq!(fs::metadata(&bound).unwrap().len(), 80);
    client.finish();
    server.finish();
    assert_eq!(clock.now().unwrap().state, State::Unknown);
    // No other program steers: nothing has been left that could.
    assert!(!output(Command::new("ps").args(["-e", "-o", "args"])).contains("chrony.conf"));
}
