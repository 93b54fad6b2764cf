//! Recordings of living agents: the replay prints the same lines bit for bit, Wireshark reads the
//! same file, and what a killed agent leaves behind is good up to its last second. Needs root.

use std::{
    path::Path,
    process::Command,
    time::{Duration, Instant},
};

use bpf_tests::{
    agent::{Agent, binary, run_to_end},
    children::Stream,
    in_company,
    links::{Needed, Wire},
    need, program,
};
use ptp_agent::recording::{Note, Reader};
use serde_json::Value;

const PATIENCE: Duration = Duration::from_secs(30);

/// A grandmaster, and an agent that has recorded some samples and is still running.
struct Scene {
    agent: Agent,
    _grandmaster: Agent,
    _wire: Wire,
}

impl Scene {
    fn new(transport: &str, command: &[&str], samples: usize) -> Needed<Self> {
        let wire = Wire::new()?;
        let common = ["serve", "-i", "gm0", "--offset", "0.5", "--log-sync-interval", "-4"];
        let more = ["--log-announce-interval", "0", "--log-min-delay-req-interval", "-4"];
        let transport = ["--transport", transport];
        let serve: Vec<&str> = common.iter().chain(&more).chain(&transport).copied().collect();
        let grandmaster = Agent::start(&wire.grandmaster, &serve);
        let command: Vec<&str> = command.iter().chain(&transport).copied().collect();
        let agent = Agent::start(&wire.client, &command);
        agent.wait_for_samples(0, PATIENCE, samples);
        Ok(Self { agent, _grandmaster: grandmaster, _wire: wire })
    }

    /// What it has printed of the engine: the summary is another one, and how far the host's clock is off is
    /// no input of the engine and so not in the recording.
    fn printed(&self) -> Vec<String> {
        let lines = self.agent.lines();
        let output = lines.iter().filter(|line| line.stream == Stream::Output);
        output.map(|line| line.text.clone()).filter(|text| !is_of_the_process(text)).collect()
    }
}

fn is_of_the_process(line: &str) -> bool {
    [r#"{"event":"summary""#, r#"{"event":"host""#].iter().any(|event| line.starts_with(event))
}

fn replay(arguments: &[&str], file: &Path) -> (i32, Vec<String>, String) {
    let mut command = Command::new(binary());
    command.args(["--json", "replay"]).args(arguments).arg(file);
    let (status, output, log) = run_to_end(command);
    (status.code().unwrap_or(-1), output.lines().map(str::to_owned).collect(), log)
}

/// Records in namespaces, ends the agent as a service manager does, and compares.
fn replay_prints_what_run_printed(transport: &str, command: &[&str], file: &Path) -> Needed<()> {
    // The PI servo looks on for four seconds before it steers.
    let mut scene = Scene::new(transport, command, 120)?;
    let summary = scene.agent.finish();
    let (code, mut lines, log) = replay(&[], file);
    assert_eq!(code, 0, "{log}");
    let last: Value = serde_json::from_str(&lines.pop().unwrap()).unwrap();
    assert_eq!(lines, scene.printed());
    assert_eq!(last["samples"], summary["samples"]);
    assert_eq!(last["recording"]["complete"], true, "{last}");
    assert_eq!(last["recording"]["diverged"], 0, "{last}");
    assert!(last["recording"]["compared"].as_u64() > Some(10), "{last}");
    println!("{transport} {command:?}: {} lines the same", lines.len());
    Ok(())
}

#[test]
fn replay_of_run_is_the_same_bit_for_bit() {
    let _machine = in_company();
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("a.pcapng");
    let name = file.to_str().unwrap();
    let command = ["run", "-i", "ptp0", "--clock", "virtual", "--record", name];
    need!(replay_prints_what_run_printed("udp4", &command, &file));

    // Another servo on the same packets steers otherwise, and follows too.
    let (code, lines, log) = replay(&["--servo", "pi:raw"], &file);
    assert_eq!(code, 0, "{log}");
    let (_, as_recorded, _) = replay(&[], &file);
    assert_ne!(lines, as_recorded);
    assert!(lines.iter().any(|line| line.contains(r#""state":"locked""#)), "{log}");
}

#[test]
fn replay_of_record_is_the_same_bit_for_bit_and_can_be_steered() {
    let _machine = in_company();
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("a.pcapng");
    let command = ["record", "-i", "ptp0", "-w", file.to_str().unwrap()];
    need!(replay_prints_what_run_printed("l2", &command, &file));

    // Nothing was steered while recording, and now something is: the half second goes away.
    let (code, lines, log) = replay(&["--servo", "pi"], &file);
    assert_eq!(code, 0, "{log}");
    let mut samples = lines.iter().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    let last = samples.rfind(|line| line["event"] == "sample").unwrap();
    assert!(last["offset_ns"].as_i64().unwrap().abs() < 1_000_000, "{last}");
}

#[test]
fn a_recording_opens_in_wireshark_with_both_clocks() {
    let _machine = in_company();
    let tshark = need!(program("tshark"));
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("a.pcapng");
    let command = ["run", "-i", "ptp0", "--clock", "virtual", "--record", file.to_str().unwrap()];
    let mut scene = need!(Scene::new("udp6", &command, 40));
    scene.agent.finish();

    let mut fields = Command::new(&tshark);
    fields.arg("-r").arg(&file).args(["-T", "fields", "-E", "separator=\t"]);
    for field in [
        "frame.protocols",
        "frame.interface_name",
        "frame.time_epoch",
        "frame.comment",
        "_ws.col.Info",
        "_ws.malformed",
    ] {
        fields.args(["-e", field]);
    }
    let (status, output, log) = run_to_end(fields);
    assert!(status.success(), "{log}");
    let bytes = std::fs::read(&file).unwrap();
    let mut reader = Reader::new(&*bytes).unwrap();
    let real_minus_mono = reader.start().real_minus_mono_ns;
    let mut lines = output.lines();
    assert!(lines.next().unwrap().contains("json"), "the start note");
    let mut messages = 0;
    while let Some(item) = reader.next_item().unwrap() {
        let line = lines.next().expect("a packet for each note");
        let columns: Vec<&str> = line.split('\t').collect();
        assert_eq!(columns[5], "", "{line}");
        if item.message.is_none() {
            assert!(columns[0].ends_with("json"), "{line}");
            assert_eq!(columns[1], "ptp-agent");
            continue;
        }
        messages += 1;
        assert_eq!((columns[0], columns[1]), ("eth:ethertype:ipv6:udp:ptp", "ptp0"), "{line}");
        assert!(columns[3].starts_with(r#"{"ptp_agent":"#), "{line}");
        let mono = match item.note {
            Note::Message { stamp: Some(stamp), .. } => stamp.mono_ns,
            Note::TxStamp { stamp: Some(stamp), .. } => stamp.mono_ns,
            ref note => note.now().unwrap(),
        };
        let real = (mono.since_epoch() + real_minus_mono).as_nanos();
        let epoch: i64 = columns[2].replace('.', "").parse().expect("nine decimals");
        assert_eq!(epoch, real, "{line}");
    }
    for kind in ["Sync Message", "Follow_Up", "Delay_Req", "Delay_Resp", "Announce"] {
        assert!(output.contains(kind), "{kind}");
    }
    println!("{messages} messages");
}

#[test]
fn what_a_killed_agent_leaves_is_replayed_up_to_there_and_only_if_asked_for() {
    let _machine = in_company();
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("a.pcapng");
    let command = ["run", "-i", "ptp0", "--clock", "virtual", "--record", file.to_str().unwrap()];
    let mut scene = need!(Scene::new("udp4", &command, 60));
    scene.agent.kill();

    let (code, lines, log) = replay(&[], &file);
    assert_eq!(code, 2, "{log}");
    assert!(lines.is_empty(), "{lines:?}");
    assert!(log.contains("cut short") && log.contains("--partial"), "{log}");

    let (code, mut lines, log) = replay(&["--partial"], &file);
    assert_eq!(code, 0, "{log}");
    assert!(log.contains("cut short"), "{log}");
    let last: Value = serde_json::from_str(&lines.pop().unwrap()).unwrap();
    assert_eq!(last["recording"]["complete"], false, "{last}");
    // What was written in the last second is lost, and the rest is as it was.
    let printed = scene.printed();
    assert!(lines.len() > 10 && printed.starts_with(&lines), "{} lines", lines.len());
}

#[test]
fn a_disk_without_room_is_an_error_at_once() {
    let _machine = in_company();
    let wire = need!(Wire::new());
    let mut command = wire.client.command(binary());
    command.args(["record", "-i", "ptp0", "-w", "/dev/full"]);
    let started = Instant::now();
    let (status, _, log) = run_to_end(command);
    assert_eq!(status.code(), Some(1), "{log}");
    assert!(log.contains("/dev/full") && log.contains("No space left"), "{log}");
    println!("after {:.1?}", started.elapsed());
}
