//! A grandmaster in one namespace, two servers of NTP in two, the agent in the fourth: it learns what is usual, then the grandmaster goes
//! wrong, as itself: the same clock on the same port tells another time from one second to the next. How long until the agent raises an
//! alarm, and which, and whether it raises any while the grandmaster is right.

use std::{
    thread,
    time::{Duration, Instant},
};

use bpf_tests::{
    agent::Agent,
    chrony::Chronyd,
    links::{Star, Wire},
};
use ptp_agent::lab::netns::Namespace;
use serde_json::json;

use super::Result;

/// Between two looks.
const LOOK: Duration = Duration::from_millis(100);
/// Raised when either finds something.
const ALARMS: [&str; 2] = ["grandmaster_contradicted", "grandmaster_shifted"];
/// As long a grandmaster is right between two faults, s.
const RIGHT: u64 = 25;

fn grandmaster(namespace: &Namespace, options: &[&str]) -> Agent {
    let serve = ["serve", "-i", "eth0", "--clock", "virtual", "--log-sync-interval", "-3"];
    let more = ["--log-announce-interval", "0", "--log-min-delay-req-interval", "-3"];
    Agent::start(namespace, &[&serve[..], &more[..], options].concat())
}

/// Which alarms are raised behind `mark`.
fn raised(agent: &Agent, mark: usize) -> Vec<&'static str> {
    let lines = agent.lines();
    let told = |alarm: &&str| {
        let name = format!("alarm=\"{alarm}\"");
        let mut lines = lines.iter().skip(mark);
        lines.any(|line| line.text.contains("alarm raised") && line.text.contains(&name))
    };
    ALARMS.into_iter().filter(told).collect()
}

/// See the module's paragraph. `seconds` is how long a fault may go unseen; what is usual is learnt in four minutes before.
pub(crate) fn witness(seconds: u64) -> Result<()> {
    let star = Star::new(4)?;
    let [gm, one, two, client] = &star.leaves[..] else { return Err("four leaves".into()) };
    let mut servers = [Chronyd::server(one)?, Chronyd::server(two)?];
    let mut right = grandmaster(gm, &[]);
    let run = ["run", "-i", "eth0", "--ntp", "192.0.2.2,192.0.2.3", "--ntp-poll", "0,1"];
    let agent = Agent::start(client, &[&run[..], &["--clock", "virtual"]].concat());
    agent.wait_for_sample(0, Duration::from_secs(60), "locked", |it| it["state"] == "locked");
    // A minute until it is settled, and sixteen spans of eight seconds.
    let learning = Instant::now();
    while learning.elapsed() < Duration::from_secs(230) {
        thread::sleep(LOOK);
    }
    println!(
        "{}",
        json!({
            "event": "bench", "name": "ntp witness", "fault": "none", "waited_s": 230,
            "false_alarms": raised(&agent, 0).len(), "exchanges": agent.events(0, "ntp").len(),
        })
    );
    let faults: [(&str, &[&str]); 5] = [
        ("step of 10 us", &["--offset", "0.00001"]),
        ("step of 100 us", &["--offset", "0.0001"]),
        ("drift of 1 ppm", &["--drift", "1"]),
        ("step of 1 ms", &["--offset", "0.001"]),
        ("step of 1 day", &["--offset", "86400"]),
    ];
    for (name, options) in faults {
        let mark = agent.mark();
        right.finish();
        let mut wrong = grandmaster(gm, options);
        let begin = Instant::now();
        let mut found = None;
        while found.is_none() && begin.elapsed() < Duration::from_secs(seconds) {
            thread::sleep(LOOK);
            found =
                raised(&agent, mark).first().map(|alarm| (*alarm, begin.elapsed().as_secs_f64()));
        }
        println!(
            "{}",
            json!({
                "event": "bench", "name": "ntp witness", "fault": name,
                "found_after_s": found.map(|it| it.1), "by": found.map(|it| it.0), "waited_s": seconds,
            })
        );
        wrong.finish();
        right = grandmaster(gm, &[]);
        thread::sleep(Duration::from_secs(RIGHT));
    }
    drop((agent, right));
    for server in &mut servers {
        server.running().stop();
    }
    from_the_beginning(seconds)
}

/// A grandmaster that was never right, where nothing is usual yet and a contradiction alone can tell: with one server.
fn from_the_beginning(seconds: u64) -> Result<()> {
    for (name, offset) in
        [("1 ms from the beginning", "0.001"), ("1 day from the beginning", "86400")]
    {
        let wire = Wire::new()?;
        let mut server = Chronyd::server(&wire.grandmaster)?;
        let run = ["run", "-i", "ptp0", "--ntp", "192.0.2.1", "--ntp-poll", "0,1"];
        let then = ["--clock", "virtual", "--on-disagreement", "holdover"];
        let agent = Agent::start(&wire.client, &[&run[..], &then[..]].concat());
        agent.wait_for(0, Duration::from_secs(60), "exchanges", |_| {
            (agent.events(0, "ntp").len() >= 4).then_some(())
        });
        let begin = Instant::now();
        let serve = ["serve", "-i", "gm0", "--log-sync-interval", "-3", "--offset", offset];
        let more = ["--log-announce-interval", "0", "--log-min-delay-req-interval", "-3"];
        let grandmaster = Agent::start(&wire.grandmaster, &[&serve[..], &more[..]].concat());
        let mut found = None;
        while found.is_none() && begin.elapsed() < Duration::from_secs(seconds) {
            thread::sleep(LOOK);
            found = raised(&agent, 0).first().map(|alarm| (*alarm, begin.elapsed().as_secs_f64()));
        }
        println!(
            "{}",
            json!({
                "event": "bench", "name": "ntp witness", "fault": name, "servers": 1,
                "found_after_s": found.map(|it| it.1), "by": found.map(|it| it.0), "waited_s": seconds,
            })
        );
        drop((agent, grandmaster));
        server.running().stop();
    }
    Ok(())
}
