//! Synchronous Ethernet: what a neighbour tells by ESMC is shown, its end and a lower level are alarms, a flood is counted
//! and not read, and whoever else reads the frames gets them as they came. Needs root.

use std::{
    net::SocketAddr,
    thread,
    time::{Duration, Instant},
};

use bpf_tests::{
    agent::{Agent, binary, http_get, run_to_end, series},
    in_company,
    links::Wire,
    need,
    raw::{FrameListener, FrameSocket},
};
use ptp_common::{
    esmc::{ETHERTYPE_SLOW, Esmc, ExtendedQuality, SLOW_GROUP},
    wire::ClockIdentity,
};
use serde_json::Value;

const PATIENCE: Duration = Duration::from_secs(20);
const METRICS: &str = "127.0.0.1:9319";
const PRC: u8 = 0x2;
const EEC1: u8 = 0xb;

/// A frame of the neighbour's, as short as Ethernet allows.
fn frame(ssm: u8, extended: Option<ExtendedQuality>) -> Vec<u8> {
    let mut message = [0; Esmc::EXTENDED_LENGTH];
    let length = Esmc { is_event: false, ssm, extended }.emit(&mut message);
    let mut frame = [SLOW_GROUP.as_slice(), &[2, 0, 0, 0, 0, 0x77]].concat();
    frame.extend(ETHERTYPE_SLOW.to_be_bytes());
    frame.extend(&message[..length]);
    frame.resize(60, 0);
    frame
}

fn chain() -> ExtendedQuality {
    ExtendedQuality {
        enhanced_ssm: 0x20,
        clock_identity: ClockIdentity([0, 0x1b, 0x19, 0xff, 0xfe, 1, 2, 3]),
        is_mixed: false,
        is_partial: false,
        cascaded_eeecs: 3,
        cascaded_eecs: 1,
    }
}

/// The status when `wanted` says that it is as it should be.
fn status(wire: &Wire, what: &str, wanted: impl Fn(&Value) -> bool) -> Value {
    let address: SocketAddr = METRICS.parse().unwrap();
    let deadline = Instant::now() + PATIENCE;
    loop {
        let status: Value =
            serde_json::from_str(&http_get(&wire.client, address, "/status")).unwrap();
        if wanted(&status) {
            return status;
        }
        assert!(Instant::now() < deadline, "{what}: {status}");
        thread::sleep(Duration::from_millis(100));
    }
}

fn is_raised(status: &Value, alarm: &str) -> bool {
    status["alarms"].as_array().unwrap().iter().any(|each| each["alarm"] == alarm)
}

#[test]
fn levels_are_told_lower_ones_and_silence_are_alarms_and_a_flood_is_counted() {
    let _machine = in_company();
    let wire = need!(Wire::new());
    let socket = wire.grandmaster.run(|| FrameSocket::open("gm0")).unwrap().unwrap();
    let listener = wire.client.run(|| FrameListener::open("ptp0")).unwrap().unwrap();
    let agent =
        Agent::start(&wire.client, &["observe", "-i", "ptp0", "--metrics-address", METRICS]);
    let best = frame(PRC, Some(chain()));
    for _ in 0..2 {
        socket.send(&best).unwrap();
    }
    let told = agent.wait_for(0, PATIENCE, "esmc", |line| {
        let event: Value = serde_json::from_str(&line.text).ok()?;
        (event["event"] == "esmc").then_some(event)
    });
    assert_eq!((&told["level"], &told["rank"]), (&"QL-PRTC".into(), &1.into()), "{told}");
    assert_eq!(told["source"], "02:00:00:00:00:77");
    assert_eq!(told["clock_identity"], "001b19.fffe.010203");
    assert_eq!((&told["cascaded_eeecs"], &told["cascaded_eecs"]), (&3.into(), &1.into()));
    // Whoever else reads gets them as they came.
    let same = listener.hear(PATIENCE, |heard| (heard == best).then_some(()));
    assert!(same.is_some(), "the frame did not come through untouched");

    socket.send(&frame(EEC1, None)).unwrap();
    let lower = status(&wire, "a lower level", |it| is_raised(it, "quality_level_lowered"));
    assert_eq!(lower["synce"][0]["lowered_from"], "QL-PRTC", "{lower}");
    let page = http_get(&wire.client, METRICS.parse().unwrap(), "/metrics");
    assert_eq!(series(&page, "ptp_synce_quality_rank{interface=\"ptp0\"}"), Some(9.0));
    let alarm = "ptp_alarm{alarm=\"quality_level_lowered\"}";
    assert_eq!(series(&page, alarm), Some(1.0));

    // LACP never reaches the agent, and nonsense is counted. Then nobody says anything.
    let mut lacp = frame(PRC, None);
    lacp[14] = 1;
    socket.send(&lacp).unwrap();
    let mut nonsense = frame(PRC, None);
    nonsense[26] = 0;
    socket.send(&nonsense).unwrap();
    for _ in 0..2_000 {
        socket.send(&best).unwrap();
    }
    let count = |status: &Value, name: &str| status["synce"][0][name].as_u64().unwrap();
    let flooded = status(&wire, "a flood", |it| count(it, "excess") > 0);
    let silent = status(&wire, "silence", |it| is_raised(it, "esmc_lost"));
    assert_eq!((count(&silent, "malformed"), &silent["synce"][0]["level"]), (1, &Value::Null));
    assert!(count(&silent, "messages") < 60, "{silent}");
    let all = ["messages", "malformed", "excess", "dropped"].map(|name| count(&silent, name));
    assert_eq!(all.iter().sum::<u64>(), 2 + 1 + 1 + 2_000, "every frame is counted: {silent}");
    assert!(count(&flooded, "messages") <= count(&silent, "messages"));
    socket.send(&best).unwrap();
    status(&wire, "messages again", |it| !is_raised(it, "esmc_lost"));
}

#[test]
fn doctor_says_what_the_neighbour_tells() {
    let _machine = in_company();
    let wire = need!(Wire::new());
    let socket = wire.grandmaster.run(|| FrameSocket::open("gm0")).unwrap().unwrap();
    let mut command = wire.client.command(binary());
    command.args(["--json", "doctor", "-i", "ptp0", "--listen", "2"]);
    let (_, output, log) = thread::scope(|scope| {
        let doctor = scope.spawn(|| run_to_end(command));
        while !doctor.is_finished() {
            socket.send(&frame(0xf, None)).unwrap();
            thread::sleep(Duration::from_millis(100));
        }
        doctor.join().unwrap()
    });
    let checks: Vec<Value> =
        output.lines().filter_map(|line| serde_json::from_str(line).ok()).collect();
    let check = |name: &str| {
        let found = checks.iter().find(|check| check["check"] == name || check["name"] == name);
        found.unwrap_or_else(|| panic!("no check {name}: {output}{log}"))
    };
    assert_eq!(check("esmc")["status"], "WARN", "{output}");
    assert!(check("esmc").to_string().contains("QL-DNU"));
    // Whether the kernel has any: it says so.
    assert!(["SKIP", "OK", "WARN"].contains(&check("dpll")["status"].as_str().unwrap()));
}
