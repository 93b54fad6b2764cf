//! Sentences of receivers: those that name seconds, and those that must not.

use super::*;
use proptest::prelude::*;
use std::{format, string::String, vec::Vec};

/// 2026-01-01.
const EARLIEST: i64 = 1_767_225_600;

fn with_checksum(body: &str) -> String {
    let sum = body.bytes().fold(0, |sum, byte| sum ^ byte);
    format!("${body}*{sum:02X}")
}

fn said(body: &str) -> Result<Sentence, Refused> {
    parse(with_checksum(body).as_bytes(), EARLIEST)
}

fn second(body: &str) -> Named {
    match said(body) {
        Ok(Sentence::Time(named)) => named,
        other => panic!("{body}: {other:?}"),
    }
}

/// What a receiver makes of these lines, each of which arrives 100 ms after the second.
fn told(lines: &[String]) -> (Receiver, Vec<Told>) {
    let mut receiver = Receiver::new(EARLIEST);
    let mut all = Vec::new();
    for (n, line) in (1..).zip(lines) {
        let at = Time::from_nanos(n * 1_000_000_000 + 100_000_000);
        receiver.read(at, format!("{line}\r\n").as_bytes(), |told| all.push(told));
    }
    (receiver, all)
}

#[test]
fn rmc_and_zda_name_the_same_second() {
    let rmc = second("GPRMC,123519.00,A,4807.038,N,01131.000,E,022.4,084.4,230326,003.1,W,A");
    let zda = second("GNZDA,123519,23,03,2026,00,00");
    assert_eq!(rmc.second, 1_774_269_319);
    assert_eq!((zda.second, zda.nanos, zda.is_valid), (rmc.second, 0, None));
    assert_eq!((rmc.is_valid, rmc.rollovers), (Some(true), 0));
    let void = second("GPRMC,123519,V,,,,,,,230326,,,N");
    assert_eq!(void.is_valid, Some(false));
}

#[test]
fn a_date_that_is_1024_weeks_old_is_brought_back_and_told() {
    // 2006-08-07 is 1024 weeks before 2026-03-23.
    let named = second("GPRMC,123519,A,,,,,,,070806,,,A");
    assert_eq!((named.second, named.rollovers), (1_774_269_319, 1));
    let named = second("GPZDA,123519,22,12,1986,00,00");
    assert_eq!((named.second, named.rollovers), (1_774_269_319, 2));
    let (receiver, all) = told(&[with_checksum("GPRMC,123519,A,,,,,,,070806,,,A")]);
    assert!(receiver.is_rolled_over());
    assert_eq!((receiver.counters().rollover, all.len()), (1, 1));
}

#[test]
fn a_leap_second_is_known_and_numbers_nothing() {
    let named = second("GPZDA,235960,31,12,2026,00,00");
    let after = second("GPZDA,000000,01,01,2027,00,00");
    assert!(named.is_leap && !after.is_leap);
    assert_eq!(named.second, after.second);
    let (_, all) = told(&[with_checksum("GPZDA,235960,31,12,2026,00,00")]);
    assert_eq!(all, []);
    assert_eq!(said("GPZDA,225960,31,12,2026,00,00"), Err(Refused::Malformed));
}

#[test]
fn a_receiver_without_a_fix_names_no_second_until_it_has_one() {
    let gga = |quality: u8| {
        with_checksum(&format!("GPGGA,123519,4807.0,N,01131.0,E,{quality},08,0.9,545.4,M,46.9,M,,"))
    };
    let zda = || with_checksum("GPZDA,123520,23,03,2026,00,00");
    let (receiver, all) = told(&[gga(0), zda(), gga(6), zda()]);
    assert_eq!((all.len(), receiver.fix(), receiver.counters().no_fix), (0, Fix::No, 2));
    let (receiver, all) = told(&[gga(0), zda(), gga(1), zda()]);
    assert_eq!((all.len(), receiver.fix()), (1, Fix::Yes));
    let (_, all) = told(&[with_checksum("GPRMC,,V,,,,,,,,,,N"), zda()]);
    assert_eq!(all, []);
    let (receiver, all) = told(&[zda()]);
    assert_eq!((all.len(), receiver.fix()), (1, Fix::Unknown), "one that says nothing is believed");
}

#[test]
fn without_its_checksum_a_sentence_is_nothing() {
    let whole = with_checksum("GPZDA,123519,23,03,2026,00,00");
    let bare = whole.split('*').next().unwrap();
    for wrong in [String::from(bare), format!("{bare}*"), format!("{bare}*0"), format!("{bare}*00")]
    {
        assert_eq!(parse(wrong.as_bytes(), EARLIEST), Err(Refused::Checksum), "{wrong}");
    }
    let lower = whole.to_lowercase().replace("gpzda", "GPZDA");
    assert!(parse(lower.as_bytes(), EARLIEST).is_ok(), "{lower}");
}

#[test]
fn times_and_dates_that_cannot_be_are_malformed() {
    for wrong in [
        "GPZDA,240000,23,03,2026,00,00",
        "GPZDA,126019,23,03,2026,00,00",
        "GPZDA,12351x,23,03,2026,00,00",
        "GPZDA,123519,29,02,2026,00,00",
        "GPZDA,123519,00,03,2026,00,00",
        "GPZDA,123519,23,13,2026,00,00",
        "GPZDA,123519,23,03,26,00,00",
        "GPZDA,123519.0000000000,23,03,2026,00,00",
        "GPRMC,123519,X,,,,,,,230326,,,A",
        "GPRMC,123519,A,,,,,,,23032026,,,A",
        "GPGGA,123519,,,,,x,,,,,,,,",
    ] {
        assert_eq!(said(wrong), Err(Refused::Malformed), "{wrong}");
    }
    assert_eq!(second("GPZDA,000000,29,02,2028,00,00").second, 1_835_395_200);
}

#[test]
fn sentences_of_makers_and_other_ones_are_passed_over() {
    for other in ["PUBX,04,123519,230326", "GPGSV,3,1,11,03,03,111,00", "GPZDA,,,,,00,00"] {
        assert_eq!(said(other), Ok(Sentence::Other), "{other}");
    }
    // A fraction is the time of another second's part and names no pulse.
    let (receiver, all) = told(&[with_checksum("GPZDA,123519.20,23,03,2026,00,00")]);
    assert_eq!((all.len(), receiver.counters().named), (0, 1));
}

#[test]
fn the_arrival_is_that_of_the_first_byte() {
    let mut receiver = Receiver::new(EARLIEST);
    let line = format!("noise\x00{}\r\n", with_checksum("GPZDA,123519,23,03,2026,00,00"));
    let mut all = Vec::new();
    for (n, byte) in (0..).zip(line.bytes()) {
        receiver.read(Time::from_nanos(n), &[byte], |told| all.push(told));
    }
    assert_eq!(all, [Told { at: Time::from_nanos(6), second: 1_774_269_319 }]);
}

#[test]
fn a_line_without_end_takes_no_memory_and_the_next_sentence_is_read() {
    let (receiver, all) =
        told(&[format!("${}", "A".repeat(10_000)), with_checksum("GPZDA,123519,23,03,2026,00,00")]);
    assert_eq!((all.len(), receiver.counters().too_long), (1, 1));
}

proptest! {
    #[test]
    fn garbage_names_no_second(bytes in prop::collection::vec(any::<u8>(), 0..2_000)) {
        let mut receiver = Receiver::new(EARLIEST);
        receiver.read(Time::ZERO, &bytes, |told| panic!("{told:?}"));
    }

    /// Every second of this century is read as what it was written as.
    #[test]
    fn every_second_comes_back(second_written in EARLIEST..4_102_444_800_i64) {
        let days = second_written.div_euclid(86_400);
        let (year, month, day) = (1970..2100)
            .flat_map(|year| (1..=12).map(move |month| (year, month)))
            .flat_map(|(year, month)| (1..=days_of(year, month)).map(move |day| (year, month, day)))
            .nth(days as usize)
            .unwrap();
        let of_day = second_written.rem_euclid(86_400);
        let clock = format!("{:02}{:02}{:02}", of_day / 3600, of_day / 60 % 60, of_day % 60);
        let zda = second(&format!("GNZDA,{clock}.00,{day:02},{month:02},{year},00,00"));
        prop_assert_eq!((zda.second, zda.rollovers), (second_written, 0));
        if year < 2080 {
            let rmc = second(&format!("GNRMC,{clock},A,,,,,,,{day:02}{month:02}{:02},,,A", year % 100));
            prop_assert_eq!(rmc.second, second_written);
        }
    }

    /// One wrong bit is found by the checksum or makes another sentence that is refused; it never moves the time.
    #[test]
    fn a_flipped_bit_moves_no_time(at in 1_usize..40, bit in 0_u8..8) {
        let mut line = with_checksum("GPZDA,123519.00,23,03,2026,00,00").into_bytes();
        let at = at.min(line.len() - 1);
        line[at] ^= 1 << bit;
        if let Ok(Sentence::Time(named)) = parse(&line, EARLIEST) {
            prop_assert_eq!(named.second, 1_774_269_319);
        }
    }
}
