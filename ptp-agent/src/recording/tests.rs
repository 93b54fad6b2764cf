//! Recordings of an agent in virtual time: what was recorded comes out again bit for bit, and what is
//! damaged is refused with its place.

use std::collections::VecDeque;

use proptest::prelude::*;
use ptp_common::{
    time::{Duration, Mono, Time},
    wire::ClockIdentity,
};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

use super::*;
use crate::{
    clock::{Clock, followed::Followed, policy::Limits, virtual_clock::VirtualClock},
    engine::{
        Change, Command, DelayMechanism, Input, LinkState, PortIndex, SentToken, Transmit,
        discipline::{Client, Event, Sample},
        receiver::ReceiverConfig,
        transmitter::{Transmitter, TransmitterConfig},
    },
    servo::{Choice, Options, Servo, build},
    stamp::{Stamp, StampSource},
    transport::TransportKind,
};

const PORT: PortIndex = PortIndex(0);

fn begin() -> Time<Mono> {
    Time::from_nanos(1_000_000_000_000)
}

fn real_minus_mono() -> Duration {
    Duration::from_secs(1_700_000_000)
}

fn servo() -> Box<dyn Servo> {
    let pi: Choice = "pi".parse().unwrap();
    build(&pi, &Options::default())
}

/// What a living agent and its replay are compared by.
#[derive(Debug, Default, PartialEq)]
struct Told {
    samples: Vec<Sample>,
    frequencies: Vec<u64>,
    states: Vec<String>,
}

impl Told {
    fn hear(&mut self, command: &Command<Event>) {
        match command {
            Command::Event(Event::Sample(sample)) => self.samples.push(*sample),
            Command::Event(Event::Adjusted { frequency_ppb, .. }) => {
                self.frequencies.push(frequency_ppb.to_bits());
            }
            Command::Changed(Change::PortState { .. })
            | Command::Event(Event::ServoState { .. }) => {
                self.states.push(format!("{command:?}"));
            }
            _ => {}
        }
    }
}

/// What is on its way to the client.
enum Coming {
    Message(Vec<u8>, Option<Stamp>),
    TxStamp(SentToken, Option<Stamp>),
    Link(bool),
}

/// An agent that follows a grandmaster for `seconds`, and its recording.
fn live(
    transport: TransportKind,
    delay_mechanism: DelayMechanism,
    seconds: i64,
) -> (Told, Vec<u8>) {
    let mut rng = ChaCha8Rng::seed_from_u64(3);
    let mut receiver = ReceiverConfig::new(ClockIdentity([2, 0, 0, 0xff, 0xfe, 0, 0, 2]), 7);
    receiver.ports[0].delay_mechanism = delay_mechanism;
    let reading = begin().at_offset(real_minus_mono());
    let start = Start::new(
        begin(),
        real_minus_mono(),
        &receiver,
        &["veth1".to_owned()],
        transport,
        FollowedClock::Virtual { reading_ns: reading },
        "pi".to_owned(),
    );
    let mut encoder = Encoder::new(Vec::new(), &start, Vec::new()).unwrap();
    let mut client =
        Client::new(receiver, servo(), Followed::virtual_at(begin(), reading), begin());
    let mut config = TransmitterConfig::new(ClockIdentity([1, 0, 0, 0xff, 0xfe, 0, 0, 1]));
    config.log_sync_interval = -4;
    config.log_min_delay_req_interval = -4;
    config.log_announce_interval = 0;
    let mut gm = Transmitter::new(config, begin());
    let mut gm_clock = VirtualClock::new(begin(), reading + Duration::from_millis(700), 1e6);
    gm_clock.set_frequency(begin(), 12_345.6).unwrap();

    let mut told = Told::default();
    let mut sent: VecDeque<(SentToken, Outgoing)> = VecDeque::new();
    let mut coming: VecDeque<Coming> = VecDeque::new();
    let end = begin() + Duration::from_secs(seconds);
    let mut now = begin();
    let real = |time: Time<Mono>| time.at_offset(real_minus_mono());
    let sink = |encoder: &mut Encoder<_>, now, note, message: Option<Outgoing>| {
        encoder.write(real(now), &note, message.as_ref()).unwrap();
    };
    while now < end {
        // Time with a fraction of a nanosecond, and far more polls than are due.
        now += Duration::from_scaled_nanos(rng.random_range(1..200_000_000_000));
        gm.poll(now);
        if client.next_wakeup().is_some_and(|at| at <= now) {
            sink(&mut encoder, now, Note::Poll { now_ns: now }, None);
        }
        client.poll(now);
        if rng.random_bool(0.0005) {
            coming.extend([Coming::Link(false), Coming::Link(true)]);
        }
        loop {
            while let Some(command) = gm.next_command() {
                let Command::Send(Transmit { message: bytes, token, .. }) = command else {
                    continue;
                };
                let arrival = now + Duration::from_nanos_f64(rng.random_range(10_000.0..20_000.0));
                let stamp = Stamp::new(arrival, StampSource::Stack);
                coming.push_back(Coming::Message(bytes.to_vec(), token.map(|_| stamp)));
                if let Some(token) = token {
                    gm.handle_tx_stamp(token, Some(gm_clock.at(now)));
                }
            }
            while let Some(command) = client.next_command() {
                told.hear(&command);
                let Command::Send(Transmit { message, token, to, .. }) = command else { continue };
                let route = Route::Sent { to };
                let outgoing = Outgoing { port: PORT, route, bytes: message.to_vec() };
                let Some(token) = token else {
                    sink(&mut encoder, now, Note::Sent { now_ns: now }, Some(outgoing));
                    continue;
                };
                sent.push_back((token, outgoing));
                let stamp = Stamp::new(now, StampSource::StartXmit);
                let stamp = rng.random_bool(0.95).then_some(stamp);
                coming.push_back(Coming::TxStamp(token, stamp));
                let arrival = now + Duration::from_nanos_f64(rng.random_range(10_000.0..20_000.0));
                gm.handle_message(now, PORT, &message, Some(gm_clock.at(arrival)));
            }
            let Some(next) = coming.pop_front() else { break };
            match next {
                Coming::Message(bytes, stamp) => {
                    let note = Note::Message { now_ns: now, stamp: stamp.map(Into::into) };
                    let route = Route::Received(None);
                    let message = Outgoing { port: PORT, route, bytes: bytes.clone() };
                    sink(&mut encoder, now, note, Some(message));
                    client.handle_message(now, PORT, &bytes, stamp);
                }
                Coming::TxStamp(token, stamp) => {
                    let message = sent.pop_front().map(|(_, message)| message);
                    let stamp_note = stamp.map(Into::into);
                    let note = Note::TxStamp { now_ns: now, token: token.0, stamp: stamp_note };
                    sink(&mut encoder, now, note, message);
                    client.handle_tx_stamp(now, token, stamp);
                }
                Coming::Link(up) => {
                    sink(&mut encoder, now, Note::Link { now_ns: now, port: 0, up }, None);
                    client.handle_link(now, PORT, LinkState::up_if(up));
                }
            }
        }
    }
    sink(&mut encoder, now, Note::End { now_ns: now, lost: 0 }, None);
    (told, encoder.into_inner())
}

/// Reads to the end or to the first error.
fn replay(recording: &[u8]) -> Result<(Told, Replay), ReadError> {
    replay_as(recording, |_| ())
}

/// The same, as if the beginning had been another.
fn replay_as(recording: &[u8], change: impl Fn(&mut Start)) -> Result<(Told, Replay), ReadError> {
    let mut reader = Reader::new(recording)?;
    let mut start = reader.start().clone();
    change(&mut start);
    let mut replay = Replay::new(&start, servo(), Steered::AsRecorded);
    let mut told = Told::default();
    loop {
        while let Some(event) = replay.next_command() {
            told.hear(&event);
        }
        match reader.next_item()? {
            Some(item) => replay.give(&item),
            None => return Ok((told, replay)),
        }
    }
}

#[test]
fn replay_tells_what_the_living_agent_told_bit_for_bit() {
    for transport in TransportKind::ALL {
        for mechanism in [DelayMechanism::E2e, DelayMechanism::P2p] {
            let (living, recording) = live(transport, mechanism, 20);
            // A grandmaster does not answer Pdelay_Req here, so there are no samples with P2p.
            assert!(living.samples.len() > 100 || mechanism == DelayMechanism::P2p);
            let (again, replay) = replay(&recording).unwrap();
            assert_eq!(again, living);
            let (diverged, compared) = replay.diverged();
            assert_eq!(diverged, 0);
            assert!(compared > 10, "{compared}");
        }
    }
}

#[test]
fn what_the_clock_may_do_is_part_of_a_recording_and_of_an_older_one_anything() {
    let (living, recording) = live(TransportKind::Udp4, DelayMechanism::E2e, 5);
    let with = |limits: Limits| {
        replay_as(&recording, |start| start.limits = Some((&limits).into())).unwrap().0
    };
    let grandmaster = begin().since_epoch() + real_minus_mono();
    let earliest = Time::from_epoch(grandmaster - Duration::from_secs(1));
    assert_eq!(with(Limits { earliest, ..Limits::default() }), living);
    // To a clock that believes no time of before its build, this grandmaster has none.
    let absurd =
        with(Limits { earliest: earliest + Duration::from_secs(1_000), ..Limits::default() });
    assert!(absurd.samples.is_empty() && !living.samples.is_empty());
    let text = String::from_utf8_lossy(&recording);
    assert!(!text.contains("limits"), "as agents wrote it that knew of none");
}

#[test]
fn a_recording_cut_anywhere_is_refused_as_cut_short_and_says_where() {
    let (_, recording) = live(TransportKind::Udp4, DelayMechanism::E2e, 1);
    for end in (12..1_500).chain((1_500..recording.len()).step_by(31)) {
        let error = replay(&recording[..end]).map(|_| ()).unwrap_err();
        match error.problem {
            Problem::CutShort(_) => assert_eq!(error.position, end as u64),
            // Whole blocks before the first note.
            Problem::NotARecording => assert!(end < 300, "{end}"),
            other => panic!("{end}: {other}"),
        }
    }
}

#[test]
fn what_is_no_recording_is_told_apart() {
    let (_, recording) = live(TransportKind::Udp4, DelayMechanism::E2e, 1);
    let refusal = |bytes: &[u8]| replay(bytes).map(|_| ()).unwrap_err().to_string();
    assert_eq!(refusal(b""), "byte 0: this is no pcapng file: it is empty");
    assert_eq!(refusal(b"hello, world"), "byte 0: this is no pcapng file");
    assert_eq!(
        refusal(b"\xd4\xc3\xb2\xa1\x02\x00"),
        "byte 0: this is no pcapng file but a pcap file"
    );
    assert_eq!(
        refusal(&recording[..12]),
        "byte 12: the recording is cut short: it ends within a block"
    );

    let at = recording.windows(11).position(|w| w == br#""version":1"#).unwrap();
    let mut other = recording.clone();
    other[at + 10] = b'9';
    let text = refusal(&other);
    assert!(text.contains("a recording of version 9"), "{text}");

    let at = recording.windows(7).position(|w| w == br#":"start"#).unwrap();
    let mut other = recording.clone();
    other[at + 2] = b'S';
    let text = refusal(&other);
    assert!(text.contains("no recording"), "{text}");
}

#[test]
fn a_length_that_would_fill_the_memory_is_refused() {
    let (_, mut recording) = live(TransportKind::Udp4, DelayMechanism::E2e, 1);
    let at = recording.len();
    recording.extend_from_slice(&6u32.to_le_bytes());
    recording.extend_from_slice(&0xffff_fff0u32.to_le_bytes());
    recording.extend_from_slice(&[0; 64]);
    let error = replay(&recording).map(|_| ()).unwrap_err();
    assert_eq!(error.position, at as u64);
    assert!(error.to_string().contains("4294967280 bytes"), "{error}");
}

#[test]
fn comments_and_blocks_of_other_programs_are_no_harm() {
    use pcap_file::pcapng::{
        PcapNgParser, PcapNgWriter,
        blocks::{
            Block, enhanced_packet::EnhancedPacketOption, opt_common::CommonOption,
            unknown::UnknownBlock,
        },
    };
    let (living, recording) = live(TransportKind::Udp4, DelayMechanism::E2e, 4);
    let (mut rest, mut parser) = PcapNgParser::new(&recording).unwrap();
    // In the other byte order, too.
    let mut section = parser.section().clone();
    section.endianness = pcap_file::Endianness::Big;
    let mut writer = PcapNgWriter::with_section_header(Vec::new(), section).unwrap();
    while !rest.is_empty() {
        let (behind, mut block) = parser.next_block(rest).unwrap();
        if let Block::EnhancedPacket(packet) = &mut block {
            let mine = CommonOption::Comment("what is this?".into());
            packet.options.insert(0, EnhancedPacketOption::Common(mine));
        }
        writer.write_block(&block).unwrap();
        writer.write_block(&Block::Unknown(UnknownBlock::new(0x4242, 16, &[1, 2, 3, 4]))).unwrap();
        rest = behind;
    }
    let (again, _) = replay(&writer.into_inner()).unwrap();
    assert_eq!(again, living);
}

#[test]
fn messages_that_are_none_survive_their_frames() {
    for transport in TransportKind::ALL {
        for length in [0, 1, 33, 64, 1_400, 2_048] {
            let bytes: Vec<u8> = (0..length).map(|n| (n % 251) as u8).collect();
            let frame =
                frame::build(transport, &Addresses::default(), Route::Received(None), &bytes);
            assert_eq!(frame::message(&frame), Some(&*bytes), "{transport} {length}");
        }
    }
}

#[test]
fn recorder_writes_a_whole_file_and_says_what_it_had_to_drop() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("a.pcapng");
    let receiver = ReceiverConfig::new(ClockIdentity([2; 8]), 7);
    let names = ["veth1".to_owned()];
    let none = FollowedClock::None;
    let start = Start::new(
        begin(),
        real_minus_mono(),
        &receiver,
        &names,
        TransportKind::L2,
        none,
        "watch".to_owned(),
    );
    let file = RecordingFile::open(&path).unwrap();
    let mut recorder = Recorder::start(file, &start, Vec::new()).unwrap();
    let mut now = begin();
    // Faster than any disk; at least some of it fits the queue.
    for _ in 0..100_000 {
        now += Duration::from_nanos(1);
        let bytes = &[7; 44];
        recorder.input(now, &Input::Message { on: PORT, from: None, bytes, stamp: None });
    }
    let totals = recorder.finish(now).unwrap();
    assert_eq!(totals.recorded + totals.lost, 100_000);
    let bytes = std::fs::read(&path).unwrap();
    let mut reader = Reader::new(&*bytes).unwrap();
    let (mut messages, mut lost) = (0, 0);
    while let Some(item) = reader.next_item().unwrap() {
        match item.note {
            Note::Message { .. } => messages += 1,
            Note::Lost { inputs } => lost += inputs,
            Note::End { lost: all, .. } => assert_eq!(all, lost),
            other => panic!("{other:?}"),
        }
    }
    assert_eq!((messages, lost), (totals.recorded, totals.lost));
}

#[test]
fn a_recording_that_never_begins_leaves_the_disk_as_it_was() {
    let directory = tempfile::tempdir().unwrap();
    let new = directory.path().join("new");
    drop(RecordingFile::open(&new).unwrap());
    assert!(!new.exists());
    let old = directory.path().join("old");
    std::fs::write(&old, "precious").unwrap();
    drop(RecordingFile::open(&old).unwrap());
    assert_eq!(std::fs::read(&old).unwrap(), b"precious");
}

#[test]
fn a_symbolic_link_does_not_choose_the_file_that_is_overwritten() {
    let directory = tempfile::tempdir().unwrap();
    let (precious, link) = (directory.path().join("precious"), directory.path().join("link"));
    std::fs::write(&precious, "precious").unwrap();
    std::os::unix::fs::symlink(&precious, &link).unwrap();
    let error = RecordingFile::open(&link).unwrap_err().to_string();
    assert!(error.contains("symbolic link to a file"), "{error}");
    // Nor does it choose where one is made.
    std::os::unix::fs::symlink(directory.path().join("none"), directory.path().join("dangling"))
        .unwrap();
    assert!(RecordingFile::open(&directory.path().join("dangling")).is_err());
    assert!(!directory.path().join("none").exists());
    assert_eq!(std::fs::read(&precious).unwrap(), b"precious");
    // What cannot be overwritten may be reached as people do.
    std::os::unix::fs::symlink("/dev/null", directory.path().join("null")).unwrap();
    drop(RecordingFile::open(&directory.path().join("null")).unwrap());
    assert!(directory.path().join("null").exists());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn damage_is_refused_or_does_not_matter(at in 0usize..6_000, damage in 1u8..=255) {
        let (_, mut recording) = live(TransportKind::Udp6, DelayMechanism::E2e, 1);
        let at = at % recording.len();
        recording[at] ^= damage;
        if let Err(error) = replay(&recording) {
            prop_assert!(error.position <= recording.len() as u64);
        }
    }
}
