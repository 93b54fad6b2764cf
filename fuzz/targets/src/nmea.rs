//! A receiver's line and the edges of a pulse: whatever bytes come, a second that is told is one that a whole sentence with a
//! right checksum names; and whatever edges come, each is a second or is counted as refused.
use ptp_common::time::{Duration, Free, Time};
use ptp_engine::{
    nmea::{Receiver, parse},
    pulse::{Config, Hint, Refusal, Train},
    servo::Interval,
};

/// 2026-01-01.
const EARLIEST: i64 = 1_767_225_600;
/// 2999-12-31.
const LATEST: i64 = 32_503_680_000;

/// See the module's paragraph.
///
/// # Panics
/// If what must hold does not.
pub fn run(bytes: &[u8]) {
    let _ = parse(bytes, EARLIEST);
    let mut receiver = Receiver::new(EARLIEST);
    let mut told = 0_u64;
    for (n, piece) in (0..).zip(bytes.chunks(7)) {
        receiver.read(Time::from_nanos(n), piece, |it| {
            assert!((EARLIEST..=LATEST).contains(&it.second) && it.at <= Time::from_nanos(n));
            told += 1;
        });
    }
    assert!(told <= receiver.counters().named);
    let mut train = Train::new(Config::default());
    let mut at: Time<Free> = Time::ZERO;
    let mut edges = 0;
    for piece in bytes.chunks_exact(4) {
        let [seconds, a, b, who] = [piece[0], piece[1], piece[2], piece[3]];
        at += Duration::from_millis(i64::from(seconds) * 50) + Duration::from_micros(i64::from(a));
        let half = Duration::from_millis(i64::from(b) * 8);
        let hint = match who % 4 {
            0 => Hint::Nothing,
            1 => Hint::Disputed,
            2 => Hint::Leap,
            _ => {
                Hint::Within(Interval { lo: Duration::ZERO - half, hi: half }, usize::from(who / 4))
            }
        };
        let _ = train.edge(at, hint);
        edges += 1;
        let _ = (train.state(at), train.rate_ppb(), train.jitter(), train.wrong_lately());
    }
    let counters = train.counters();
    let refused: u64 = Refusal::ALL.into_iter().map(|why| counters.refused(why)).sum();
    assert_eq!(counters.used + refused, edges);
}
