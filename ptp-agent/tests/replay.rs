//! `ptp-agent replay` on what is no recording: an error with its place, nothing on standard output,
//! exit code 2.

use std::{
    fs,
    process::{Command, Output},
};

use ptp_agent::{
    engine::receiver::ReceiverConfig,
    recording::{Encoder, FollowedClock, Note, Start},
    transport::TransportKind,
};
use ptp_common::{
    time::{Duration, Time},
    wire::ClockIdentity,
};

fn replay(bytes: &[u8], arguments: &[&str]) -> Output {
    let file = tempfile::NamedTempFile::new().unwrap();
    fs::write(file.path(), bytes).unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_ptp-agent"));
    command.args(["--json", "replay"]).args(arguments).arg(file.path()).output().unwrap()
}

/// An agent that heard nothing: a whole recording with these notes.
fn recording(servo: &str, notes: &[Note]) -> Vec<u8> {
    let now = Time::from_nanos(1_000);
    let start = Start::new(
        now,
        Duration::from_secs(1_700_000_000),
        &ReceiverConfig::new(ClockIdentity([1; 8]), 1),
        &["eth0".to_owned()],
        TransportKind::Udp4,
        FollowedClock::Virtual { reading_ns: Time::from_nanos(1_700_000_000_000_001_000) },
        servo.to_owned(),
    );
    let mut encoder = Encoder::new(Vec::new(), &start, Vec::new()).unwrap();
    for note in notes {
        encoder.write(Time::from_nanos(1_700_000_000_000_001_000), note, None).unwrap();
    }
    encoder.into_inner()
}

fn end(now: i64) -> Note {
    Note::End { now_ns: Time::from_nanos(now), lost: 0 }
}

fn is_refused(output: &Output, text: &str) {
    let log = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(2), "{log}");
    assert!(output.stdout.is_empty());
    assert!(log.contains(text), "{text}: {log}");
    assert_eq!(log.matches(text).count(), 1, "{log}");
}

#[test]
fn a_whole_recording_is_replayed() {
    let output = replay(&recording("pi", &[end(2_000_001_000)]), &[]);
    assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8(output.stdout).unwrap();
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!(
        lines[0],
        r#"{"event":"clock","mono_ns":1000,"clock_ns":1700000000000001000,"frequency_ppb":0.0}"#
    );
    assert!(lines[1].starts_with(r#"{"event":"summary","duration_s":2.0,"samples":0,"#), "{text}");
    assert_eq!(lines.len(), 2);
}

#[test]
fn what_is_no_recording_is_refused() {
    is_refused(&replay(b"", &[]), "byte 0: this is no pcapng file: it is empty");
    is_refused(&replay(b"#!/bin/sh\nexit 0\n", &[]), "byte 0: this is no pcapng file");
    let pcap = [0xd4, 0xc3, 0xb2, 0xa1, 2, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 4, 0, 1, 0, 0, 0];
    is_refused(&replay(&pcap, &[]), "byte 0: this is no pcapng file but a pcap file");
}

#[test]
fn a_cut_recording_is_refused_unless_asked_for() {
    let whole = recording("pi", &[end(2_000)]);
    let cut = &whole[..whole.len() - 3];
    is_refused(&replay(cut, &[]), &format!("byte {}: the recording is cut short", cut.len()));
    let partial = replay(cut, &["--partial"]);
    assert_eq!(partial.status.code(), Some(0));
    assert!(String::from_utf8_lossy(&partial.stderr).contains("cut short"));

    let unmarked = recording("pi", &[]);
    let text =
        format!("byte {}: the recording is cut short: its end is not marked", unmarked.len());
    is_refused(&replay(&unmarked, &[]), &text);
}

#[test]
fn holes_are_refused_unless_asked_for() {
    let holes = recording("pi", &[Note::Lost { inputs: 7 }, end(2_000)]);
    is_refused(&replay(&holes, &[]), "7 inputs could not be recorded here");
    assert_eq!(replay(&holes, &["--partial"]).status.code(), Some(0));
}

#[test]
fn time_that_runs_backwards_is_refused() {
    let notes = [Note::Poll { now_ns: Time::from_nanos(3_000) }, end(2_000)];
    is_refused(&replay(&recording("pi", &notes), &[]), "before that of the note before it");
}

#[test]
fn a_servo_of_the_future_has_to_be_replaced() {
    let bytes = recording("crystal-ball", &[end(2_000)]);
    is_refused(&replay(&bytes, &[]), "crystal-ball");
    assert_eq!(replay(&bytes, &["--servo", "pi"]).status.code(), Some(0));
}
