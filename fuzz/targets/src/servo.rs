//! All servos, fed with any observations at any times: nothing asks for what no clock can do, and an interval
//! has its ends in order.
use ptp_common::time::{Duration, Free, Time};
use ptp_engine::{
    servo::{
        Choice, DelayInput, LocalTime, Method, Options, PeerDelayInput, Purpose, SyncInput, build,
    },
    stamp::StampSource,
};

const LIMIT_PPB: f64 = 500_000.0;

/// See the module's paragraph.
///
/// # Panics
/// If what must hold does not.
pub fn run(input: &[u8]) {
    let Some((first, mut rest)) = input.split_first() else { return };
    let method = Method::ALL[usize::from(first & 3)];
    let purpose = if first & 4 == 0 { Purpose::Steer } else { Purpose::Watch };
    let options = Options { purpose, ..Options::default() };
    let mut servo = build(&Choice { method, ..Choice::default() }, &options);
    servo.limit_frequency(LIMIT_PPB);
    let mut now: Time<Free> = Time::from_nanos(1_000_000_000);
    let mut sequence_id = 0u16;
    // What, how long after the last one, how far it is shifted, and the number that is.
    while let Some(([what, step, shift, a, b, c], more)) = rest.split_first_chunk() {
        rest = more;
        sequence_id = sequence_id.wrapping_add(1);
        now += Duration::from_nanos((1i64 << (step % 45)) - 1);
        let value = i64::from(i32::from_be_bytes([0, *a, *b, *c]) - 0x80_0000);
        let by = Duration::from_nanos(value.wrapping_shl(u32::from(shift % 40)));
        let doubt = Duration::from_nanos(i64::from(what >> 4));
        let clock = Time::from_nanos(now.as_nanos());
        let local = LocalTime {
            mono: now,
            clock,
            source: StampSource::Simulated,
            doubt,
            told_within: None,
        };
        let correction = if what & 8 == 0 { Duration::ZERO } else { by };
        match what & 7 {
            0..=2 => {
                let log_interval = (step & 0x80 != 0).then_some(*c as i8);
                let t1 = clock - by;
                let sync = SyncInput { t1, t2: local, sequence_id, log_interval, correction };
                if let Some(output) = servo.sync(sync) {
                    assert!(output.frequency_ppb.abs() <= LIMIT_PPB, "{output:?}");
                    servo.adjusted(now, output.frequency_ppb, output.step);
                }
            }
            3 | 4 => servo.delay(DelayInput { t3: local, t4: clock + by, sequence_id, correction }),
            5 => servo.peer_delay(PeerDelayInput {
                mono: now,
                mean_link_delay: by,
                neighbor_rate_ratio: None,
                doubt: Duration::from_nanos(by.as_nanos() & 0xffff),
            }),
            6 => servo.parent_changed(),
            _ => assert!(servo.holdover(now).is_none_or(|ppb| ppb.abs() <= LIMIT_PPB)),
        }
        if let Some(trust) = servo.trust(now, Duration::ZERO) {
            assert!(trust.interval.lo <= trust.interval.hi, "{trust:?}");
        }
    }
}
