//! What an attacker reaches: an agent and ptp4l beside it, both behind one switch with a grandmaster that keeps
//! the host's own time and an attacker who begins after ten seconds of peace. All share one kernel clock, so that a
//! clock's distance from it is its error. `attacks [SECONDS [NAME...]]`: how long each attack lasts, and which. One line
//! of JSON for each: displacement of both, whether the agent's bound held, seconds to its alarm and to its
//! recovery. ptp4l runs free: what it would have steered by is its displacement. Needs root and linuxptp.

use std::{
    env,
    net::Ipv4Addr,
    process::ExitCode,
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::{Duration, Instant},
};

use bpf_tests::{
    agent::Agent,
    forge::{Party, announce, message, now, port},
    links::Star,
    ptp4l::{CLIENT, Ptp4l},
};
use ptp_agent::{
    lab::netns::Namespace,
    sys::clock::{monotonic, realtime_minus_monotonic},
};
use ptp_clock_reader::{PtpClock, PtpTime};
use ptp_common::wire::{Body, Flags, Header, MessageType, MessageView, Timestamp};
use serde_json::json;

const PATIENCE: Duration = Duration::from_secs(40);
/// Between two looks at the clocks.
const LOOK: Duration = Duration::from_millis(20);
/// Of this, and of the quiet network's worst, nobody can be told from noise, ns.
const NOISE_NS: i64 = 20_000;
/// After the attack.
const AFTER: Duration = Duration::from_secs(20);
const ATTACKER: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 4);

/// What an attacker does until he is told to end.
struct Attack {
    name: &'static str,
    /// Of RFC 7384.
    threat: &'static str,
    run: fn(&Party, &AtomicBool),
}

const ATTACKS: [Attack; 9] = [
    Attack { name: "none", threat: "-", run: nothing },
    Attack { name: "sync_spoofed", threat: "3.2.2", run: sync_spoofed },
    Attack { name: "follow_up_spoofed", threat: "3.2.2", run: follow_up_spoofed },
    Attack { name: "delay_resp_spoofed", threat: "3.2.2", run: delay_resp_spoofed },
    Attack { name: "sync_replayed", threat: "3.2.3", run: sync_replayed },
    Attack { name: "announce_flipped", threat: "3.2.1", run: announce_flipped },
    Attack { name: "announce_fast", threat: "3.2.9", run: announce_fast },
    Attack { name: "rogue_announce_twice", threat: "3.2.4", run: rogue_announce_twice },
    Attack { name: "many_masters", threat: "3.2.9", run: many_masters },
];

fn nothing(_: &Party, is_over: &AtomicBool) {
    while !is_over.load(Ordering::Relaxed) {
        thread::sleep(LOOK);
    }
}

/// Does something with each general message of a type until it is over.
fn on_general(
    party: &Party,
    is_over: &AtomicBool,
    kind: MessageType,
    mut what: impl FnMut(&[u8], Header),
) {
    while !is_over.load(Ordering::Relaxed) {
        if let Some(bytes) = party.hear_general(Duration::from_millis(100))
            && let Ok(view) = MessageView::new(&bytes)
            && view.message_type() == kind
        {
            what(&bytes, view.header());
        }
    }
}

/// A second into the future.
fn later(stamp: Timestamp) -> Timestamp {
    Timestamp::new(stamp.seconds() + 1, stamp.nanoseconds()).unwrap_or(stamp)
}

/// One-step Sync in the parent's name with the next number, a second ahead, each time one was heard.
fn sync_spoofed(party: &Party, is_over: &AtomicBool) {
    on_general(party, is_over, MessageType::FollowUp, |_, header| {
        let next = header.sequence_id.wrapping_add(1);
        let header = Header { flags: Flags(0), sequence_id: next, ..header };
        party.event(&message(header, Body::Sync { origin_timestamp: later(now()) }));
    });
}

/// Follow_Up for the next Sync, a second ahead.
fn follow_up_spoofed(party: &Party, is_over: &AtomicBool) {
    on_general(party, is_over, MessageType::FollowUp, |_, header| {
        let header = Header { sequence_id: header.sequence_id.wrapping_add(1), ..header };
        let precise_origin_timestamp = later(now());
        party.general(&message(header, Body::FollowUp { precise_origin_timestamp }));
    });
}

/// Answers to requests before the parent, 100 ms off, and with an interval of weeks.
fn delay_resp_spoofed(party: &Party, is_over: &AtomicBool) {
    let mut parent = None;
    while !is_over.load(Ordering::Relaxed) {
        if let Some(bytes) = party.hear_event(Duration::from_millis(50))
            && let Ok(view) = MessageView::new(&bytes)
        {
            let header = view.header();
            match (view.message_type(), parent) {
                (MessageType::Sync, _) => parent = Some(header.source_port_identity),
                (MessageType::DelayReq, Some(source)) => {
                    let answer = Header {
                        log_message_interval: 22,
                        ..Header::new(source, header.sequence_id)
                    };
                    let body = Body::DelayResp {
                        receive_timestamp: later(now()),
                        requesting_port_identity: header.source_port_identity,
                    };
                    party.general(&message(answer, body));
                }
                _ => {}
            }
        }
    }
}

/// Each Follow_Up again, and each from ten messages ago.
fn sync_replayed(party: &Party, is_over: &AtomicBool) {
    let mut past: Vec<Vec<u8>> = Vec::new();
    on_general(party, is_over, MessageType::FollowUp, |bytes, header| {
        let sync = Header { flags: Flags::TWO_STEP, ..header };
        party.event(&message(sync, Body::Sync { origin_timestamp: Timestamp::ZERO }));
        party.general(bytes);
        past.push(bytes.to_vec());
        if past.len() > 10 {
            party.general(&past.remove(0));
        }
    });
}

/// The parent's Announce with another time scale.
fn announce_flipped(party: &Party, is_over: &AtomicBool) {
    on_general(party, is_over, MessageType::Announce, |bytes, header| {
        let mut copy = bytes.to_vec();
        copy[7] ^= 0x0c;
        copy[30..32].copy_from_slice(&header.sequence_id.wrapping_add(1).to_be_bytes());
        party.general(&copy);
    });
}

/// The parent's Announce with an interval of a millisecond.
fn announce_fast(party: &Party, is_over: &AtomicBool) {
    on_general(party, is_over, MessageType::Announce, |bytes, header| {
        let mut copy = bytes.to_vec();
        copy[33] = (-10_i8).cast_unsigned();
        copy[30..32].copy_from_slice(&header.sequence_id.wrapping_add(1).to_be_bytes());
        party.general(&copy);
    });
}

/// Two Announces of a better clock that claims an interval of weeks.
fn rogue_announce_twice(party: &Party, is_over: &AtomicBool) {
    let rogue = port(0x11);
    for sequence_id in 0..2 {
        let header = Header { log_message_interval: 22, ..Header::new(rogue, sequence_id) };
        party.general(&message(header, announce(rogue.clock_identity, 1)));
        thread::sleep(Duration::from_millis(100));
    }
    nothing(party, is_over);
}

/// Invented clocks, worse than the parent, a hundred a second, each twice.
fn many_masters(party: &Party, is_over: &AtomicBool) {
    let mut number = 0_u16;
    while !is_over.load(Ordering::Relaxed) {
        let mut source = port(0x20);
        source.clock_identity.0[6..8].copy_from_slice(&number.to_be_bytes());
        for sequence_id in 0..2 {
            let header = Header { log_message_interval: 4, ..Header::new(source, sequence_id) };
            party.general(&message(header, announce(source.clock_identity, 200)));
        }
        number = number.wrapping_add(1);
        thread::sleep(Duration::from_millis(10));
    }
}

/// What was seen of the agent's clock in some time.
#[derive(Clone, Copy, Debug, Default)]
struct Seen {
    worst_ns: i64,
    last_bad: Option<Instant>,
    looks: u64,
    out_of_bound: u64,
}

/// The agent's clock against the host's.
fn look(page: &PtpClock, seen: &mut Seen, quiet_ns: i64) {
    // Both clocks at one instant.
    let mono = monotonic();
    let time = page.course().map(|course| course.at(mono.as_nanos() as i64));
    let Ok(PtpTime { ptp_ns, bound_ns: Some(bound), .. }) = time else {
        seen.last_bad = Some(Instant::now());
        return;
    };
    let real = (mono.since_epoch() + realtime_minus_monotonic()).as_nanos() as i64;
    let error = ptp_ns - real;
    seen.looks += 1;
    seen.worst_ns = if error.abs() > seen.worst_ns.abs() { error } else { seen.worst_ns };
    seen.out_of_bound += u64::from(error.unsigned_abs() > bound);
    if error.abs() > quiet_ns + NOISE_NS {
        seen.last_bad = Some(Instant::now());
    }
}

fn measure(attack: &Attack, span: Duration) -> Result<serde_json::Value, String> {
    let star = Star::new(4)?;
    let [grandmaster, client, beside, attacker] = &star.leaves[..] else { unreachable!() };
    let directory = tempfile::tempdir().map_err(|error| error.to_string())?;
    let page_path = directory.path().join("page");
    let serve = "serve -i eth0 --log-sync-interval -3 --log-announce-interval 0 --log-min-delay-req-interval -3";
    let mut server = start(grandmaster, serve);
    let run = format!("run -i eth0 --clock virtual --page {}", page_path.display());
    let mut agent = start(client, &run);
    let ptp4l = Ptp4l::start(beside, &["eth0"], &[CLIENT])?;
    agent.wait_for_state(0, PATIENCE, "time_receiver");
    ptp4l.wait_for(0, PATIENCE, "offset", |line| line.text.contains("master offset").then_some(()));
    let page = PtpClock::open(&page_path).map_err(|error| error.to_string())?;

    let mut quiet = Seen::default();
    let begun = Instant::now();
    while begun.elapsed() < Duration::from_secs(10) {
        thread::sleep(LOOK);
        look(&page, &mut quiet, i64::MAX / 2);
    }
    let (mark, theirs) = (agent.mark(), ptp4l.offsets().len());
    let party = Party::new(attacker, ATTACKER);
    let is_over = AtomicBool::new(false);
    let (mut during, mut after) = (Seen::default(), Seen::default());
    let mut alarm = None;
    let begun = Instant::now();
    thread::scope(|scope| {
        scope.spawn(|| (attack.run)(&party, &is_over));
        while begun.elapsed() < span {
            thread::sleep(LOOK);
            look(&page, &mut during, quiet.worst_ns.abs());
            if alarm.is_none() {
                let lines = agent.lines();
                let raised = lines[mark..].iter().find(|line| line.text.contains("alarm raised"));
                alarm = raised.map(|line| (begun.elapsed(), name_of(&line.text)));
            }
        }
        is_over.store(true, Ordering::Relaxed);
    });
    let ended = Instant::now();
    while ended.elapsed() < AFTER {
        thread::sleep(LOOK);
        look(&page, &mut after, quiet.worst_ns.abs());
    }
    let offsets = ptp4l.offsets();
    let theirs = offsets[theirs.min(offsets.len())..].iter().max_by_key(|offset| offset.abs());
    let recovery = after.last_bad.map_or(0.0, |bad| (bad - ended).as_secs_f64());
    let looks = during.looks + after.looks;
    let row = json!({
        "event": "bench",
        "name": attack.name,
        "threat": attack.threat,
        "quiet_ns": quiet.worst_ns,
        "displacement_ns": if during.worst_ns.abs() > after.worst_ns.abs() { during.worst_ns } else { after.worst_ns },
        "looks": looks,
        "outside_bound": during.out_of_bound + after.out_of_bound,
        "alarm": alarm.as_ref().map(|(_, name)| name),
        "alarm_s": alarm.as_ref().map(|(after, _)| after.as_secs_f64()),
        "recovery_s": recovery,
        "ptp4l_displacement_ns": theirs,
    });
    agent.finish();
    server.finish();
    Ok(row)
}

fn name_of(line: &str) -> String {
    let name = line.split("alarm=\"").nth(1).and_then(|rest| rest.split('"').next());
    name.unwrap_or("?").to_owned()
}

fn start(namespace: &Namespace, words: &str) -> Agent {
    Agent::start(namespace, &words.split_whitespace().collect::<Vec<_>>())
}

fn main() -> ExitCode {
    let mut arguments = env::args().skip(1);
    let seconds = arguments.next().and_then(|text| text.parse().ok()).unwrap_or(40);
    let names: Vec<String> = arguments.collect();
    let wanted =
        |attack: &&Attack| names.is_empty() || names.iter().any(|name| name == attack.name);
    let mut is_fine = true;
    for attack in ATTACKS.iter().filter(wanted) {
        match measure(attack, Duration::from_secs(seconds)) {
            Ok(row) => {
                is_fine &= row["outside_bound"] == 0;
                println!("{row}");
            }
            Err(reason) => {
                eprintln!("attacks: {reason}");
                return ExitCode::FAILURE;
            }
        }
    }
    if is_fine { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
