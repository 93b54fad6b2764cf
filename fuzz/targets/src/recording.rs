//! Recordings: whatever a file says, reading it ends with a note or with an error that lies within
//! the file, and the engine survives whatever notes come out of it. The first byte says what the rest
//! is: a whole file, blocks behind a good beginning, or recipes for notes with extreme times.
use ptp_agent::{
    engine::{Command, DelayMechanism, PortIndex, discipline::Event, receiver::ReceiverConfig},
    recording::{
        Encoder, FollowedClock, Note, Outgoing, Reader, RecordedStamp, Replay, Route, Start,
        Steered,
    },
    servo::choice::{self, Choice},
    stamp::{Manner, StampSource},
    transport::TransportKind,
};
use ptp_common::{
    time::{Duration, Mono, Time},
    wire::ClockIdentity,
};

/// See the module's paragraph.
///
/// # Panics
/// If what must hold does not.
pub fn run(input: &[u8]) {
    let Some((kind, rest)) = input.split_first() else { return };
    match kind & 3 {
        0 => replay(rest),
        1 => {
            let mut file = encoder(*kind).into_inner();
            file.extend_from_slice(rest);
            replay(&file);
        }
        _ => replay(&cook(*kind, rest)),
    }
}

fn encoder(kind: u8) -> Encoder<Vec<u8>> {
    let mut receiver = ReceiverConfig::new(ClockIdentity([9; 8]), 1);
    if kind & 4 != 0 {
        receiver.ports[0].delay_mechanism = DelayMechanism::P2p;
    }
    let transport = if kind & 8 != 0 { TransportKind::L2 } else { TransportKind::Udp4 };
    let clock = FollowedClock::Virtual { reading_ns: Time::ZERO };
    let names = ["eth0".to_owned()];
    let servo = "adaptive".to_owned();
    let start = Start::new(Time::ZERO, Duration::ZERO, &receiver, &names, transport, clock, servo);
    Encoder::new(Vec::new(), &start, Vec::new()).expect("a vector takes everything")
}

/// Eight bytes make one note; Announce, Sync, Follow_Up and Delay_Resp of one time transmitter, so
/// that the servo gets to see something.
fn cook(kind: u8, input: &[u8]) -> Vec<u8> {
    let mut encoder = encoder(kind);
    let mut now = 0i64;
    for recipe in input.chunks_exact(8) {
        let [what, step, stamp, sequence_id, seconds, token, at, damage] =
            *recipe.first_chunk().expect("of eight");
        now = now.saturating_add(1i64.checked_shl(u32::from(step)).unwrap_or(0));
        let now_ns: Time<Mono> = Time::from_nanos(now);
        let time = match stamp >> 6 {
            0 => now.saturating_sub(i64::from(stamp)),
            1 => now.saturating_add(1 << (stamp & 0x3f)),
            2 => i64::MAX,
            _ => i64::MIN + 1,
        };
        let taken = RecordedStamp {
            mono_ns: Time::from_nanos(time),
            source: StampSource::Stack,
            doubt_ns: Duration::ZERO,
            handed_ns: Duration::ZERO,
            manner: Manner::Plain,
        };
        let stamp = (what & 0x80 == 0).then_some(taken);
        let mut bytes = message(what, sequence_id, seconds);
        if let Some(place) = bytes.get_mut(usize::from(at)) {
            *place = damage;
        }
        let route = Route::Received(None);
        let outgoing = Outgoing { port: PortIndex(0), route, bytes: bytes.to_vec() };
        let (note, outgoing) = match what & 0x70 {
            0x00 => (Note::Poll { now_ns }, None),
            0x10 => (Note::TxStamp { now_ns, token: token.into(), stamp }, None),
            0x20 => (Note::Link { now_ns, port: 0, up: token & 1 == 0 }, None),
            _ => (Note::Message { now_ns, stamp }, Some(outgoing)),
        };
        encoder.write(Time::ZERO, &note, outgoing.as_ref()).expect("a vector takes everything");
    }
    let end = Note::End { now_ns: Time::from_nanos(now), lost: 0 };
    encoder.write(Time::ZERO, &end, None).expect("a vector takes everything");
    encoder.into_inner()
}

fn message(what: u8, sequence_id: u8, seconds: u8) -> [u8; 64] {
    let mut bytes = [0; 64];
    bytes[0] = match what & 0x0f {
        0..4 => 0x0,
        4..8 => 0x8,
        8..12 => 0x9,
        12..15 => 0xb,
        _ => 0x3,
    };
    bytes[1] = 2;
    bytes[3] = 64;
    bytes[6] = (what & 1) << 1;
    bytes[20..28].copy_from_slice(&[1; 8]);
    bytes[29] = 1;
    bytes[31] = sequence_id;
    // Seconds of the time stamp; behind it the port that an answer is for.
    bytes[38] = seconds;
    bytes[44..52].copy_from_slice(&[9; 8]);
    bytes[53] = 1;
    bytes
}

fn replay(file: &[u8]) {
    let within = |position: u64| assert!(position <= file.len() as u64, "{position}");
    let mut reader = match Reader::new(file) {
        Ok(reader) => reader,
        Err(error) => return within(error.position),
    };
    let servo = choice::build(&Choice::default(), &choice::Options::default());
    let mut replay = Replay::new(reader.start(), servo, Steered::Anew);
    loop {
        while let Some(command) = replay.next_command() {
            if let Command::Event(Event::Sample(sample)) = command {
                assert!(sample.frequency_ppb.is_finite());
            }
        }
        match reader.next_item() {
            Ok(Some(item)) => replay.give(&item),
            Ok(None) => return,
            Err(error) => return within(error.position),
        }
    }
}
