//! Claims about time arithmetic: nothing wraps, nothing is lost.

use proptest::prelude::*;
use ptp_common::{
    time::{Duration, Mono, NANOS_PER_SEC, Ptp, Time},
    wire::TimeInterval,
};

fn duration() -> impl Strategy<Value = Duration> {
    prop_oneof![any::<i128>(), Just(i128::MAX), Just(i128::MIN), -1_000_000..1_000_000i128]
        .prop_map(Duration::from_scaled_nanos)
}

fn time() -> impl Strategy<Value = Time<Mono>> {
    duration().prop_map(Time::from_epoch)
}

proptest! {
    #[test]
    fn arithmetic_saturates(a in duration(), b in duration(), at in time(), by in any::<i32>()) {
        let (x, y) = (a.as_scaled_nanos(), b.as_scaled_nanos());
        prop_assert_eq!((a + b).as_scaled_nanos(), x.saturating_add(y));
        prop_assert_eq!((a - b).as_scaled_nanos(), x.saturating_sub(y));
        prop_assert_eq!((-a).as_scaled_nanos(), x.saturating_neg());
        prop_assert_eq!((a * by).as_scaled_nanos(), x.saturating_mul(by.into()));
        prop_assert_eq!(a.abs().as_scaled_nanos(), x.saturating_abs());
        prop_assert_eq!(a.half().as_scaled_nanos(), x.div_euclid(2));
        let epoch = at.since_epoch().as_scaled_nanos();
        prop_assert_eq!((at + a).since_epoch().as_scaled_nanos(), epoch.saturating_add(x));
        prop_assert_eq!((at - a).since_epoch().as_scaled_nanos(), epoch.saturating_sub(x));
        let _ = (a.as_nanos(), at.as_nanos(), a.as_secs_f64(), format!("{a:?} {at:?}"));
        let _ = TimeInterval::from(a);
    }

    #[test]
    fn nanoseconds_come_back(nanos in any::<i64>()) {
        prop_assert_eq!(Duration::from_nanos(nanos).as_nanos(), nanos);
        prop_assert_eq!(Time::<Ptp>::from_nanos(nanos).as_nanos(), nanos);
        let whole = Time::<Mono>::from_nanos(nanos) - Time::ZERO;
        prop_assert_eq!(whole, Duration::from_nanos(nanos));
    }

    #[test]
    fn correction_fields_come_back(scaled in any::<i64>()) {
        let interval = TimeInterval(scaled);
        prop_assert_eq!(TimeInterval::from(Duration::from(interval)), interval);
    }

    #[test]
    fn durations_round_to_the_nearest_nanosecond(scaled in -1i128 << 70..1i128 << 70) {
        let error = (Duration::from_scaled_nanos(scaled).as_nanos() as i128) * 65_536 - scaled;
        prop_assert!((-32_768..=32_768).contains(&error));
    }

    #[test]
    fn instants_round_down(scaled in -1i128 << 70..1i128 << 70) {
        let time = Time::<Mono>::from_epoch(Duration::from_scaled_nanos(scaled));
        let rest = scaled - (time.as_nanos() as i128) * 65_536;
        prop_assert!((0..65_536).contains(&rest));
    }

    #[test]
    fn fractions_are_kept_to_the_scaled_nanosecond(nanos in -1e9..1e9f64) {
        prop_assert!((Duration::from_nanos_f64(nanos).as_nanos_f64() - nanos).abs() < 1.0 / 65_536.0);
    }

    #[test]
    fn log_intervals_are_powers_of_two(log in any::<i8>()) {
        let within = i32::from(log.clamp(-16, 22));
        prop_assert_eq!(Duration::from_log_interval(log).as_secs_f64(), 2f64.powi(within));
    }
}

#[test]
fn no_unit_overflows() {
    for extreme in [i64::MIN, i64::MAX] {
        assert_eq!(Duration::from_nanos(extreme).as_nanos(), extreme);
        assert_eq!(Duration::from_secs(extreme).as_nanos(), extreme);
        assert_eq!(
            Duration::from_secs(extreme).as_scaled_nanos(),
            i128::from(extreme) * i128::from(NANOS_PER_SEC) * 65_536
        );
        let _ = (Duration::from_micros(extreme), Duration::from_millis(extreme));
    }
    assert_eq!(Time::<Ptp>::from_seconds_nanos(u64::MAX, u32::MAX).as_nanos(), i64::MAX);
}

#[test]
fn what_is_no_number_is_no_time() {
    assert_eq!(Duration::from_nanos_f64(f64::NAN), Duration::ZERO);
    assert_eq!(Duration::from_nanos_f64(f64::INFINITY).as_scaled_nanos(), i128::MAX);
    assert_eq!(Duration::from_nanos_f64(f64::NEG_INFINITY).as_scaled_nanos(), i128::MIN);
}
