//! A clock that follows a pulse, in virtual time: numbered by a receiver's sentences, by a server of NTP, by nobody, and
//! by those who are a second off.

use super::*;
use crate::{
    clock::virtual_clock::VirtualClock,
    config::ReceiverConfig,
    discipline::Client,
    pulse,
    seam::Monotonic,
    servo::{Choice, Options, ServoState, build},
    stamp::StampSource,
};
use std::{format, vec};

const S: i64 = 1_000_000_000;
/// UTC when the monotonic clock is zero, seconds since 1970; at the sixteenth second a day begins.
const EPOCH: i64 = 1_799_999_984;

struct Bench {
    client: Client<VirtualClock>,
    /// The host's oscillator, against the pulse.
    ppb: i64,
    samples: u32,
    followed: bool,
}

impl Bench {
    /// The clock begins `ahead_ns` ahead of UTC.
    fn new(part: PulsePart, ahead_ns: i64, ppb: i64) -> Self {
        let mut config = ReceiverConfig::new(ClockIdentity([0xcc; 8]), 3);
        config.ports = vec![];
        config.pulse = Some(PulseConfig {
            pulse: pulse::Config::default(),
            part,
            nmea_earliest: Some(EPOCH - 1_000_000),
            tai_offset_s: None,
        });
        let reading = Time::from_nanos(EPOCH * S + ahead_ns);
        let clock = VirtualClock::new(Time::ZERO, reading, 500_000.0);
        let servo = build(&Choice::default(), &Options::default());
        let client = Client::new(config, servo, clock, Time::ZERO);
        Self { client, ppb, samples: 0, followed: false }
    }

    /// The host's clock when a second of UTC begins.
    fn mono(&self, second: i64) -> i64 {
        second * S + second * self.ppb
    }

    fn give(&mut self, at: i64, input: Input<'_>) {
        let at = Time::from_nanos(at);
        self.client.poll(at);
        self.client.handle(at, &Monotonic::default(), input);
        while let Some(command) = self.client.next_command() {
            match command {
                Command::Event(Event::Sample(sample)) => {
                    assert!(sample.is_of_pulse && !sample.is_of_ntp);
                    self.samples += 1;
                }
                Command::Changed(Change::Parent(parent)) => self.followed = parent.is_some(),
                _ => {}
            }
        }
    }

    /// The pulse of a second, stamped `late_ns` after it.
    fn pulse(&mut self, second: i64, late_ns: i64) {
        let stamped = self.mono(second) + late_ns;
        let stamp = Stamp::new(Time::from_nanos(stamped), StampSource::Pps);
        self.give(stamped + 50_000, Input::Pulse(stamp));
    }

    /// A sentence that names a second, `ahead_s` too large, 200 ms after it.
    fn sentence(&mut self, second: i64, ahead_s: i64) {
        let at = self.mono(second) + 200_000_000 + second % 7 * 20_000_000;
        self.sentence_at(at, second, ahead_s);
    }

    fn sentence_at(&mut self, at: i64, second: i64, ahead_s: i64) {
        let of_day = (EPOCH + second + ahead_s).rem_euclid(86_400);
        let days = (EPOCH + second + ahead_s).div_euclid(86_400) - 20_832;
        // 20 832 days after 1970 is 2027-01-14.
        let body = format!(
            "GPZDA,{:02}{:02}{:02},{:02},01,2027,00,00",
            of_day / 3600,
            of_day / 60 % 60,
            of_day % 60,
            14 + days
        );
        let sum = body.bytes().fold(0, |sum, byte| sum ^ byte);
        let line = format!("${body}*{sum:02X}\r\n");
        self.give(at, Input::Nmea { at: Time::from_nanos(at), bytes: line.as_bytes() });
    }

    /// Clock minus UTC when a second begins.
    fn error_ns(&self, second: i64) -> i64 {
        let shown = self.client.clock().at(Time::from_nanos(self.mono(second)));
        shown.as_nanos() - (EPOCH + second) * S
    }

    fn status(&self, second: i64) -> PulseStatus {
        self.client.pulse(Time::from_nanos(self.mono(second) + 100_000)).unwrap()
    }
}

#[test]
fn a_clock_locks_to_a_pulse_that_a_receiver_numbers() {
    let mut bench = Bench::new(PulsePart::Source, 3_300_000_000, 40_000);
    let mut locked_at = None;
    for second in 1..=120 {
        bench.pulse(second, 8_000 + second % 5 * 500);
        bench.sentence(second, 0);
        if bench.client.servo().state() == ServoState::Locked {
            locked_at.get_or_insert(second);
        }
        if second > 60 {
            let error = bench.error_ns(second);
            let bound = bench.client.error_bound(Time::from_nanos(bench.mono(second) + 100_000));
            assert!(error.abs() < 6_000, "{second}: {error} ns");
            assert!(
                bound.unwrap() >= Duration::from_nanos(error.abs()),
                "{second}: {error} {bound:?}"
            );
        }
    }
    assert!(locked_at.is_some_and(|at| at < 30), "{locked_at:?}");
    let status = bench.status(120);
    assert_eq!((status.state, bench.followed), (State::Numbered, true));
    assert!(bench.samples > 80, "{}", bench.samples);
    assert!(status.rate_ppb.is_some_and(|ppb| (ppb - 40_000.0).abs() < 200.0), "{status:?}");
}

#[test]
fn a_pulse_that_nobody_numbers_moves_nothing() {
    let mut bench = Bench::new(PulsePart::Source, 250_000_000, 0);
    for second in 1..=60 {
        bench.pulse(second, 5_000);
    }
    assert_eq!((bench.samples, bench.error_ns(60)), (0, 250_000_000));
    assert_eq!(bench.status(60).state, State::Unnumbered);
}

#[test]
fn sentences_that_become_a_second_wrong_move_nothing_and_are_told() {
    let mut bench = Bench::new(PulsePart::Source, 0, 0);
    for second in 1..=60 {
        bench.pulse(second, 8_000);
        bench.sentence(second, 0);
    }
    for second in 61..=120 {
        bench.pulse(second, 8_000);
        bench.sentence(second, 1);
        assert!(bench.error_ns(second).abs() < 10_000, "{second}: {}", bench.error_ns(second));
    }
    assert!(bench.client.standing().is_contradicted() || bench.status(120).is_wrong_second);
}

#[test]
fn when_the_pulse_stops_the_clock_runs_on_and_comes_back() {
    let mut bench = Bench::new(PulsePart::Source, 0, 25_000);
    for second in (1..=60).chain(90..=120) {
        bench.pulse(second, 8_000);
        bench.sentence(second, 0);
    }
    for second in 61..=89 {
        assert!(bench.error_ns(second).abs() < 200_000, "{}", bench.error_ns(second));
    }
    assert_eq!(bench.status(120).state, State::Numbered);
    assert!(bench.error_ns(120).abs() < 10_000, "{}", bench.error_ns(120));
    bench.client.poll(Time::from_nanos(bench.mono(130)));
    assert_eq!(bench.client.servo().state(), ServoState::Holdover);
    assert_eq!(bench.status(130).state, State::Silent);
}

#[test]
fn a_pulse_half_a_second_off_moves_nothing_where_another_knows_the_time() {
    let mut bench = Bench::new(PulsePart::Source, 0, 0);
    for second in 1..=40 {
        bench.pulse(second, 8_000);
        bench.sentence(second, 0);
    }
    for second in 41..=55 {
        bench.pulse(second, S / 2);
        bench.sentence(second, 0);
        assert!(bench.error_ns(second).abs() < 20_000, "{}", bench.error_ns(second));
    }
    let status = bench.status(46);
    assert!(status.counters.refused(Refusal::Misplaced) >= 8 && status.wrong_lately > 0.4);
}

#[test]
fn as_a_witness_it_is_compared_and_not_followed() {
    let mut bench = Bench::new(PulsePart::Witness, 700_000, 0);
    for second in 1..=40 {
        bench.pulse(second, 10_000);
        bench.sentence(second, 0);
    }
    assert_eq!((bench.samples, bench.error_ns(40), bench.followed), (0, 700_000, false));
    let offset = bench.status(40).offset.unwrap();
    assert!(
        (offset - Duration::from_nanos(700_000)).abs() < Duration::from_micros(1),
        "{offset:?}"
    );
    let sources = bench.client.sources(Time::from_nanos(bench.mono(40) + 300_000_000));
    let known: std::vec::Vec<_> = sources.map(|source| (source.id, source.is_followed)).collect();
    assert_eq!(known.len(), 2, "{known:?}");
    assert!(known.contains(&(SourceId::Pulse, false)) && known.contains(&(SourceId::Nmea, false)));
}

/// What a line has kept from before somebody listened is read at once, and one sentence may come late.
#[test]
fn old_sentences_at_the_start_number_nothing_wrongly() {
    for (old, late_ms) in [(1, 0), (1, 900), (2, 300), (4, 100), (1, 1_500), (3, 2_300)] {
        for phase_ms in [10, 170, 450, 800, 990] {
            let mut bench = Bench::new(PulsePart::Source, 3_300_000_000, 40_000);
            let begun = bench.mono(10) + phase_ms * 1_000_000;
            for second in 10 - old..10 {
                bench.sentence_at(begun + late_ms * 1_000_000, second, 0);
            }
            for second in 14..=90 {
                bench.pulse(second, 8_000 + second % 5 * 500);
                bench.sentence(second, 0);
            }
            let error = bench.error_ns(90);
            assert!(
                error.abs() < 10_000,
                "{old} {late_ms} {phase_ms}: {error} {:?}",
                bench.status(90)
            );
        }
    }
}
