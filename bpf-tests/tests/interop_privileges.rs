//! What a running agent can still do: capabilities, open files, system calls and files within reach, of each
//! command after everything is attached, and that it works all the same when interfaces come back.
//! Needs root.

use std::{
    collections::BTreeSet,
    fs,
    path::Path,
    process::Command,
    time::{Duration, Instant},
};

use bpf_tests::{
    agent::Agent,
    in_company,
    links::{Wire, ip},
    need,
};

const PATIENCE: Duration = Duration::from_secs(20);
/// CAP_NET_BIND_SERVICE, CAP_NET_ADMIN, CAP_NET_RAW, CAP_PERFMON, CAP_BPF.
const PORTS: u64 = 1 << 10 | 1 << 12 | 1 << 13 | 1 << 38 | 1 << 39;
const CAPTURE: u64 = 1 << 12 | 1 << 38 | 1 << 39;

/// A line of /proc/PID/status of each thread.
fn of_each_thread(pid: u32, key: &str) -> BTreeSet<String> {
    let threads = fs::read_dir(format!("/proc/{pid}/task")).unwrap();
    let of = |path: &Path| {
        let status = fs::read_to_string(path.join("status")).unwrap_or_default();
        let line = status.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(':'));
        line.unwrap_or_default().trim().to_owned()
    };
    threads.map(|thread| of(&thread.unwrap().path())).collect()
}

/// What is open, in classes: numbers and names left out.
fn open_files(pid: u32) -> BTreeSet<String> {
    let files = fs::read_dir(format!("/proc/{pid}/fd")).unwrap().flatten();
    let class = |target: &Path| {
        let text = target.to_string_lossy().into_owned();
        match text.split_once(':') {
            Some(("socket" | "pipe", _)) => text.split(':').next().unwrap_or_default().to_owned(),
            _ => text,
        }
    };
    files.filter_map(|file| fs::read_link(file.path()).ok()).map(|path| class(&path)).collect()
}

#[test]
fn running_agents_keep_what_they_need_and_nothing_else() {
    let _machine = in_company();
    let wire = need!(Wire::new());
    let directory = tempfile::tempdir().unwrap();
    let socket = |name: &str| directory.path().join(name).to_str().unwrap().to_owned();
    let [served, followed, observed] = ["serve", "run", "observe"].map(socket);
    let serve = ["serve", "-i", "gm0", "--log-sync-interval", "-3", "--status-socket", &served];
    let run = [
        "run",
        "-i",
        "ptp0",
        "--clock",
        "virtual",
        "--metrics-address",
        "127.0.0.1:9319",
        "--status-socket",
        &followed,
    ];
    let observe = ["observe", "-i", "ptp0", "--status-socket", &observed];
    let mut server = Agent::start(&wire.grandmaster, &serve);
    let mut agent = Agent::start(&wire.client, &run);
    let mut observer = Agent::start(&wire.client, &observe);
    agent.wait_for_state(0, PATIENCE, "time_receiver");

    for (each, capabilities) in [(&server, PORTS), (&agent, PORTS), (&observer, CAPTURE)] {
        let pid = each.pid();
        let expected: BTreeSet<String> = [format!("{capabilities:016x}")].into();
        for set in ["CapEff", "CapPrm"] {
            assert_eq!(of_each_thread(pid, set), expected, "{set}");
        }
        for (key, value) in [("CapInh", "0000000000000000"), ("NoNewPrivs", "1"), ("Seccomp", "2")]
        {
            assert_eq!(of_each_thread(pid, key), [value.to_owned()].into(), "{key}");
        }
        let known = ["socket", "pipe", "/dev/null", "anon_inode:", "/proc/"];
        let open = open_files(pid);
        println!("{open:?}");
        for file in &open {
            assert!(known.iter().any(|known| file.starts_with(known)), "{file} is open: {open:?}");
        }
    }

    // An interface that goes and comes back needs programs, sockets and netlink once more.
    let mark = agent.mark();
    ip(&wire.client, "link del ptp0");
    agent.wait_for_state(mark, PATIENCE, "disabled");
    need!(wire.connect());
    for interface in [(&wire.client, "ptp0"), (&wire.grandmaster, "gm0")] {
        ip(interface.0, &format!("link set {} up", interface.1));
    }
    agent.wait_for_state(mark, PATIENCE, "time_receiver");
    let summaries = [server.finish(), agent.finish(), observer.finish()];
    println!("{summaries:?}");
    for socket in [served, followed, observed] {
        assert!(!Path::new(&socket).exists(), "{socket} is left");
    }
}

/// Lets a process have files up to this number open; what is open stays so.
fn limit_files(pid: u32, most: &str) {
    let arguments = ["--pid", &pid.to_string(), &format!("--nofile={most}")];
    let status = Command::new("prlimit").args(arguments).status().expect("util-linux");
    assert!(status.success());
}

#[test]
fn agent_whose_descriptors_run_out_keeps_time_says_so_and_recovers_by_itself() {
    let _machine = in_company();
    let wire = need!(Wire::new());
    let serve = "serve -i gm0 --log-sync-interval -3 --log-announce-interval -2 --log-min-delay-req-interval -3";
    let _server = Agent::start(&wire.grandmaster, &serve.split(' ').collect::<Vec<_>>());
    let mut agent = Agent::start(&wire.client, &["run", "-i", "ptp0", "--clock", "virtual"]);
    agent.wait_for_samples(0, PATIENCE, 4);

    // None that is new is below this.
    limit_files(agent.pid(), "3:4096");
    let mark = agent.mark();
    agent.wait_for_text(mark, PATIENCE, "as many files are open as this process may have");
    agent.wait_for_samples(agent.mark(), PATIENCE, 4);
    // A link that goes and comes is seen all the same, and followed again.
    let mark = agent.mark();
    ip(&wire.client, "link set ptp0 down");
    agent.wait_for_state(mark, PATIENCE, "disabled");
    let mark = agent.mark();
    ip(&wire.client, "link set ptp0 up");
    agent.wait_for_state(mark, PATIENCE, "time_receiver");
    // One that is another now cannot be opened, which is said, ...
    let mark = agent.mark();
    ip(&wire.client, "link del ptp0");
    agent.wait_for_state(mark, PATIENCE, "disabled");
    need!(wire.connect());
    for (namespace, interface) in [(&wire.client, "ptp0"), (&wire.grandmaster, "gm0")] {
        ip(namespace, &format!("link set {interface} up"));
    }
    agent.wait_for_text(mark, PATIENCE, "link_down");
    // ... and is as soon as there is room.
    let mark = agent.mark();
    limit_files(agent.pid(), "1024:4096");
    agent.wait_for_state(mark, PATIENCE, "time_receiver");
    let is_cleared = |line: &str| line.contains("cleared") && line.contains("endpoint_unavailable");
    agent.wait_for(0, PATIENCE, "alarm cleared", |line| is_cleared(&line.text).then_some(()));
    agent.finish();
}

#[test]
fn file_outside_its_business_is_out_of_reach_of_an_agent_that_runs() {
    let _machine = in_company();
    let wire = need!(Wire::new());
    let inside = tempfile::tempdir().unwrap();
    let outside = tempfile::tempdir_in("/var/tmp").unwrap();
    let config = inside.path().join("agent.toml");
    let socket = |directory: &tempfile::TempDir| directory.path().join("status");
    let write = |directory: &tempfile::TempDir| {
        let path = socket(directory);
        fs::write(&config, format!("status-socket = {path:?}\n")).unwrap();
    };
    write(&inside);
    let arguments = ["--config", config.to_str().unwrap(), "observe", "-i", "ptp0"];
    let mut observer = Agent::start(&wire.client, &arguments);
    let is_landlocked = fs::read_to_string("/proc/kallsyms")
        .is_ok_and(|text| text.contains("landlock_restrict_self"));
    if !is_landlocked {
        bpf_tests::skipped("this kernel has no Landlock");
        return;
    }
    let mark = observer.mark();
    write(&outside);
    observer.signal(nix::sys::signal::Signal::SIGHUP);
    observer.wait_for_text(mark, PATIENCE, "Permission denied");
    assert!(!socket(&outside).exists());
    let begun = Instant::now();
    write(&inside);
    observer.signal(nix::sys::signal::Signal::SIGHUP);
    while !socket(&inside).exists() {
        assert!(begun.elapsed() < PATIENCE, "{}", observer.last_words());
        std::thread::yield_now();
    }
    println!("{}", observer.finish());
}
