//! What a running agent says of how far its clock can be trusted, and what it does not pass on: a
//! grandmaster far in the past reaches neither chronyd's socket nor the page nor ClockBound's segment.
//! All namespaces share one clock. Needs root.

use std::{
    fs,
    net::SocketAddr,
    os::unix::net::UnixDatagram,
    path::Path,
    thread,
    time::{Duration, Instant},
};

use bpf_tests::{
    agent::{Agent, http_get, series},
    clocks::Look,
    in_company,
    links::{Star, Wire},
    need,
    ptp4l::Ptp4l,
};
use ptp_agent::{engine::strategy::Strategy, publish::local::read_status};
use ptp_clock_reader::{PtpClock, State};
use serde_json::Value;

const PATIENCE: Duration = Duration::from_secs(40);

fn serve(wire: &Wire, more: &[&str]) -> Agent {
    let serve = "serve -i gm0 --log-sync-interval -4 --log-announce-interval -2 \
                 --log-min-delay-req-interval -4";
    let arguments: Vec<&str> = serve.split_whitespace().chain(more.iter().copied()).collect();
    Agent::start(&wire.grandmaster, &arguments)
}

fn alarm(agent: &Agent, mark: usize, text: &str) {
    let words = format!("alarm=\"{text}\"");
    agent.wait_for(mark, PATIENCE, &words, |line| {
        (line.text.contains("alarm raised") && line.text.contains(&words)).then_some(())
    });
}

/// ClockBound's status word, or unknown while nobody has written the segment.
fn clock_bound_status(path: &Path) -> u32 {
    let bytes = fs::read(path).unwrap();
    u32::from_ne_bytes(bytes[68..72].try_into().unwrap())
}

#[test]
fn a_grandmaster_in_2000_reaches_nobody_by_any_way_and_is_said() {
    let _machine = in_company();
    let wire = need!(Wire::new());
    // 26 years ago, as a clock that was never set.
    let mut grandmaster = serve(&wire, &["--clock", "virtual", "--offset=-820000000"]);
    let directory = tempfile::tempdir().unwrap();
    let at = |name: &str| directory.path().join(name).display().to_string();
    let [samples, page, bound, socket] = ["samples", "page", "bound", "status"].map(at);
    let chronyd = UnixDatagram::bind(&samples).unwrap();
    chronyd.set_nonblocking(true).unwrap();
    let out = ["--chrony-sock", &samples, "--clock-bound", &bound, "--status-socket", &socket];
    for clock in [&["--clock", "virtual", "--page", &page][..], &["--clock", "none"]] {
        let run = [&["run", "-i", "ptp0"][..], clock, &out].concat();
        let mut agent = Agent::start(&wire.client, &run);
        alarm(&agent, 0, "time_withheld");
        let status: Value = read_status(Path::new(&socket)).unwrap();
        let withheld = status["withheld"].as_str().unwrap_or_default();
        assert!(withheld.contains("absurd"), "{clock:?}: {status}");
        assert!(chronyd.recv(&mut [0; 64]).is_err(), "{clock:?}: chronyd was given a sample");
        assert_eq!(clock_bound_status(Path::new(&bound)), 0);
        agent.finish();
    }
    assert_eq!(PtpClock::open(&page).unwrap().now().unwrap().state, State::Unknown);
    grandmaster.finish();
}

#[test]
fn samples_status_metrics_and_page_say_how_far_and_against_whom() {
    let _machine = in_company();
    let wire = need!(Wire::new());
    let mut grandmaster = serve(&wire, &[]);
    let directory = tempfile::tempdir().unwrap();
    let at = |name: &str| directory.path().join(name).display().to_string();
    let [page, socket] = ["page", "status"].map(at);
    let metrics: SocketAddr = "127.0.0.1:9319".parse().unwrap();
    let run = ["run", "-i", "ptp0", "--clock", "virtual", "--page", &page];
    let more = ["--status-socket", &socket, "--metrics-address", "127.0.0.1:9319"];
    let knows = ["--grandmaster-accuracy", "250", "--rate-error", "500"];
    let mut agent = Agent::start(&wire.client, &[&run[..], &more, &knows].concat());
    let sample =
        agent.wait_for_sample(0, PATIENCE, "locked sample", |sample| sample["state"] == "locked");
    let bound = sample["error_bound_ns"].as_i64().unwrap();
    let [lowest, highest] = [0, 1].map(|end| sample["interval_ns"][end].as_i64().unwrap());
    assert!(lowest <= highest && bound >= lowest.abs().max(highest.abs()), "{sample}");
    assert!(sample["precision_ns"].as_i64().unwrap() >= 0, "{sample}");
    assert_eq!(sample["source"], "ptp");
    let strategy = sample["strategy"].as_str().unwrap();
    assert!(Strategy::ALL.iter().any(|known| known.name() == strategy), "{sample}");
    // The status is of the last second.
    let mark = agent.lines().len();
    agent.wait_for_samples(mark, PATIENCE, 40);
    let status: Value = read_status(Path::new(&socket)).unwrap();
    assert_eq!(status["bound_basis"], "causality", "{status}");
    assert_eq!(status["bound_reference"], "grandmaster", "{status}");
    assert_eq!(status["grandmaster"], sample["grandmaster"], "{status}");
    assert_eq!(status["utc"]["grandmaster_accuracy_ns"], 250, "{status}");
    let bound = status["error_bound_ns"].as_i64().unwrap();
    assert!((249..=251).contains(&(status["utc"]["bound_ns"].as_i64().unwrap() - bound)));
    for name in ["clock_stepped", "time_scale_mismatch", "time_withheld"] {
        assert!(!status["alarms"].to_string().contains(name), "{status}");
    }
    let text = http_get(&wire.client, metrics, "/metrics");
    let labels = r#"interface="ptp0",domain="0""#;
    let end =
        |end| series(&text, &format!("ptp_causal_interval_seconds{{{labels},end=\"{end}\"}}"));
    assert!(end("lo").unwrap() <= end("hi").unwrap(), "{text}");
    assert!(series(&text, &format!("ptp_clock_precision_seconds{{{labels}}}")).is_some(), "{text}");
    let time = PtpClock::open(&page).unwrap().now().unwrap();
    assert!(time.interval_ns.is_some() && time.precision_ns.is_some(), "{time:?}");
    agent.finish();
    grandmaster.finish();
}

/// How often a follower's clock is outside of its own bound in some seconds, of how many looks; the farthest one.
fn outside(page: &Path) -> (u32, u32, Option<Look>) {
    let page = PtpClock::open(page).unwrap();
    let (mut outside, mut looks, mut farthest) = (0, 0, None::<Look>);
    let begun = Instant::now();
    while begun.elapsed() < Duration::from_secs(5) {
        thread::sleep(Duration::from_millis(5));
        let Some(look) = Look::at(&page) else { continue };
        looks += 1;
        outside += u32::from(!look.is_within());
        if farthest.is_none_or(|far| look.error_ns.abs() > far.error_ns.abs()) {
            farthest = Some(look);
        }
    }
    (outside, looks, farthest)
}

/// A quiet link is where a bound that is made of the noise alone is smallest, and false: the delay of a cold transmit
/// path on one side only is no noise.
#[test]
fn bound_holds_on_quiet_links_whoever_serves_and_whatever_is_between() {
    let _machine = in_company();
    let directory = tempfile::tempdir().unwrap();
    let (star, switched, wire) = (need!(Star::new(2)), need!(Star::new(2)), need!(Wire::new()));
    let rates = "logSyncInterval -3\nlogMinDelayReqInterval -3";
    let _ptp4l = need!(Ptp4l::grandmaster(&star.leaves[0], &["eth0"], &[rates]));
    let mut own = Agent::start(&switched.leaves[0], &bpf_tests::agent::SERVE);
    let mut straight = serve(&wire, &[]);
    let followers = [
        ("ptp4l", &star.leaves[1], "eth0"),
        ("switched", &switched.leaves[1], "eth0"),
        ("straight", &wire.client, "ptp0"),
    ];
    let mut followers = followers.map(|(name, namespace, interface)| {
        let page = directory.path().join(name);
        let words = page.display().to_string();
        let run = ["run", "-i", interface, "--clock", "virtual", "--page", &words];
        (Agent::start(namespace, &run), page)
    });
    for (follower, _) in &followers {
        follower.wait_for_sample(0, PATIENCE, "lock", |sample| sample["state"] == "locked");
    }
    thread::scope(|scope| {
        for (_, page) in &followers {
            scope.spawn(move || {
                let (outside, looks, farthest) = outside(page);
                println!("{outside} of {looks} outside, farthest {farthest:?}");
                assert!(outside == 0 && looks > 100, "{outside} of {looks}: {farthest:?}");
            });
        }
    });
    for (follower, _) in &mut followers {
        follower.finish();
    }
    own.finish();
    straight.finish();
}
