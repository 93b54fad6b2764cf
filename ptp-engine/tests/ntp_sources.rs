//! Short forms of what the example `ntp_sources` measures: two witnesses find a grandmaster that goes wrong and none that does not, and one
//! of three servers that lies is cast out, all in virtual time.

#[path = "../examples/ntp_sources/cases.rs"]
mod cases;
#[path = "../examples/ntp_sources/rfc5905.rs"]
mod rfc5905;
#[path = "../examples/ntp_sources/world.rs"]
mod world;

use cases::{CAMPUS, INTERNET, LOCAL, SWITCH, servers, witness};
use ptp_engine::ntp::Poll;
use world::Error;

const HOUR: i64 = 3_600;
const MICROSECOND: i64 = 1_000;
const OFTEN: Poll = Poll { min: 3, max: 6 };

#[test]
fn two_witnesses_find_a_grandmaster_that_goes_wrong_by_ten_microseconds_a_millisecond_a_day_or_slowly()
 {
    for (step, drift_ppb, within) in [
        (10 * MICROSECOND, 0, 300.0),
        (1_000 * MICROSECOND, 0, 30.0),
        (86_400_000_000 * MICROSECOND, 0, 30.0),
        (0, 1_000, 150.0),
    ] {
        let error = Error { step, drift_ppb, ..Error::default() };
        let found = witness(LOCAL, OFTEN, error, 5, HOUR / 2, 300).unwrap();
        let first = found.first().unwrap_or(f64::INFINITY);
        assert!(first <= within, "{step} {drift_ppb}: {found:?}");
    }
}

#[test]
fn nobody_finds_a_grandmaster_wrong_that_is_right() {
    for network in [SWITCH, CAMPUS, INTERNET] {
        let found = witness(network, OFTEN, Error::default(), 6, HOUR, 0).unwrap();
        assert!(found.exchanges > 100, "{}: {}", network.name, found.exchanges);
    }
}

#[test]
fn one_of_three_that_lies_is_cast_out_and_the_bound_holds() {
    let [ours, theirs, averaged] = servers(50.0, 2..=2, 3);
    assert_eq!((ours.false_bounds, ours.believed), (0.0, 0.0), "{ours:?}");
    assert!(ours.error_rms < 2.0 && ours.bound_rms < 30.0, "{ours:?}");
    // RFC 5905's intervals are wide enough to believe it.
    assert!(theirs.error_rms > ours.error_rms && averaged.error_rms > ours.error_rms, "{theirs:?}");
    let [honest, theirs, _] = servers(0.0, 2..=2, 3);
    assert!(honest.error_rms < 1.0, "{honest:?} {theirs:?}");
    assert!(honest.bound_rms < theirs.bound_rms && honest.false_bounds == 0.0, "{honest:?}");
}
