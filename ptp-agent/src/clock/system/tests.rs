//! The system clock on a model of the kernel: nothing here touches a clock of this machine.

use super::*;
use crate::sim::kernel::SimulatedKernel;
use ptp_common::wire::TimeSource;

const EPOCH_S: u64 = 1_900_000_000;

fn raw(seconds: f64) -> Time<Mono> {
    Time::from_nanos(1_000_000_000) + Duration::from_nanos_f64(seconds * 1e9)
}

fn taken_over() -> (SystemClock, SimulatedKernel) {
    let kernel = SimulatedKernel::new(raw(0.0), Time::from_seconds_nanos(EPOCH_S, 0));
    let clock = SystemClock::take_over(Box::new(kernel.clone()), Limits::default(), None).unwrap();
    (clock, kernel)
}

fn at(kernel: &SimulatedKernel, seconds: f64) -> Time<Mono> {
    kernel.advance(raw(seconds));
    kernel.monotonic()
}

fn properties() -> TimeProperties {
    TimeProperties {
        current_utc_offset: 37,
        current_utc_offset_valid: true,
        leap59: false,
        leap61: false,
        time_traceable: true,
        frequency_traceable: true,
        ptp_timescale: true,
        time_source: TimeSource::GNSS,
    }
}

fn keeping(now: Time<Mono>, properties: Option<&TimeProperties>) -> Keeping<'_> {
    Keeping {
        now,
        state: ServoState::Locked,
        precision: Some(Duration::from_nanos(1_500)),
        error_bound: Some(Duration::from_nanos(20_001)),
        time_properties: properties,
    }
}

#[test]
fn stamps_lose_the_agents_own_adjustments_and_nothing_else() {
    let (mut clock, kernel) = taken_over();
    let mut worst = 0;
    for n in 0..10_000_i64 {
        let seconds = n as f64 * 0.0625;
        let now = at(&kernel, seconds);
        // Up to the limit either way, with the tick where that is needed.
        let ppb = ((n * 7_919) % 1_800_001 - 900_000) as f64;
        clock.set_frequency(now, ppb).unwrap();
        let stamp = kernel.monotonic_at(raw(seconds - 0.3));
        let error = clock.free_running(stamp).ahead_of(raw(seconds - 0.3));
        worst = worst.max(error.as_scaled_nanos().abs());
    }
    // 2^-16 ns each.
    assert!(worst <= 8, "{worst}");
}

#[test]
fn the_time_at_a_stamp_is_what_the_kernel_showed_across_steps() {
    let (mut clock, kernel) = taken_over();
    let now = at(&kernel, 1.0);
    clock.set_frequency(now, 400_000.0).unwrap();
    let before = at(&kernel, 2.0);
    let shown_before = kernel.realtime();
    let now = at(&kernel, 3.0);
    clock.step(now, Duration::from_millis(-1_234)).unwrap();
    let after = at(&kernel, 4.0);
    assert_eq!(clock.at(after), kernel.realtime());
    assert_eq!(clock.at(before), shown_before);
    assert!(clock.next_foreign_step().is_none());
}

#[test]
fn a_step_by_somebody_else_is_noticed() {
    let (mut clock, kernel) = taken_over();
    kernel.jump(Duration::from_secs(5));
    let now = at(&kernel, 1.0);
    clock.read(now, kernel.real_minus_monotonic());
    assert_eq!(clock.next_foreign_step(), Some(Duration::from_secs(5)));
    assert_eq!(clock.at(now), kernel.realtime());
}

#[test]
fn another_program_that_steers_is_noticed_by_what_it_does() {
    let (mut clock, mut kernel) = taken_over();
    let now = at(&kernel, 1.0);
    clock.keep(keeping(now, None)).unwrap();
    kernel.set_frequency(KernelFrequency { tick: 10_000, fine: 77 }).unwrap();
    let error = clock.keep(keeping(now, None)).unwrap_err();
    assert!(matches!(error, ClockError::Interference { .. }), "{error}");
}

#[test]
fn the_kernel_is_told_how_good_the_time_is() {
    let (mut clock, kernel) = taken_over();
    let now = at(&kernel, 1.0);
    clock.keep(keeping(now, Some(&properties()))).unwrap();
    let state = kernel.state().unwrap();
    assert_eq!(state.status & libc::STA_UNSYNC, 0);
    assert_eq!((state.max_error_us, state.est_error_us), (21, 2));
    assert_eq!(state.tai_offset_seconds, 37);
    clock.keep(Keeping { state: ServoState::Holdover, ..keeping(now, None) }).unwrap();
    assert_ne!(kernel.state().unwrap().status & libc::STA_UNSYNC, 0);
}

#[test]
fn a_tai_offset_that_is_not_traceable_is_not_set() {
    let (mut clock, kernel) = taken_over();
    let now = at(&kernel, 1.0);
    for untold in [
        TimeProperties { time_traceable: false, ..properties() },
        TimeProperties { current_utc_offset_valid: false, ..properties() },
        TimeProperties { ptp_timescale: false, ..properties() },
    ] {
        clock.keep(keeping(now, Some(&untold))).unwrap();
        assert_eq!(kernel.state().unwrap().tai_offset_seconds, 0);
    }
}

#[test]
fn a_reference_too_far_away_is_not_followed_and_the_time_not_vouched_for() {
    let (mut clock, kernel) = taken_over();
    let now = at(&kernel, 1.0);
    clock.followed();
    assert!(clock.consent(now, Duration::from_secs(5_000)).is_err());
    assert!(clock.step(now, Duration::from_secs(-5_000)).is_err());
    clock.keep(keeping(now, None)).unwrap();
    assert_ne!(kernel.state().unwrap().status & libc::STA_UNSYNC, 0);
    assert_eq!(clock.consent(now, Duration::from_secs(5)).unwrap(), Consent::Given);
}

#[test]
fn a_leap_second_is_ordered_and_nothing_is_adjusted_around_it() {
    let (mut clock, kernel) = taken_over();
    let announced = TimeProperties { leap61: true, ..properties() };
    let midnight = (EPOCH_S / 86_400 + 1) * 86_400;
    let until_midnight = (midnight - EPOCH_S) as f64;
    let now = at(&kernel, until_midnight - 60.0);
    clock.keep(keeping(now, Some(&announced))).unwrap();
    assert_ne!(kernel.state().unwrap().status & libc::STA_INS, 0);
    assert_eq!(clock.consent(now, Duration::ZERO).unwrap(), Consent::Given);
    let now = at(&kernel, until_midnight - 1.0);
    clock.keep(keeping(now, Some(&announced))).unwrap();
    assert_eq!(clock.consent(now, Duration::from_secs(1)).unwrap(), Consent::Later);
    // The kernel inserts it.
    kernel.jump(Duration::from_secs(-1));
    let now = at(&kernel, until_midnight + 9.0);
    clock.read(now, kernel.real_minus_monotonic());
    assert!(clock.next_foreign_step().is_none());
    let after = TimeProperties { current_utc_offset: 38, ..properties() };
    clock.keep(keeping(now, Some(&after))).unwrap();
    assert_eq!(clock.consent(now, Duration::ZERO).unwrap(), Consent::Given);
    let state = kernel.state().unwrap();
    assert_eq!((state.status & libc::STA_INS, state.tai_offset_seconds), (0, 38));
}

#[test]
fn after_a_step_the_leap_second_is_ordered_anew() {
    let (mut clock, kernel) = taken_over();
    let announced = TimeProperties { leap61: true, ..properties() };
    let mut orders = Vec::new();
    for second in 1..7 {
        let now = at(&kernel, f64::from(second));
        if second == 2 {
            clock.step(now, Duration::from_millis(10)).unwrap();
        }
        clock.keep(keeping(now, Some(&announced))).unwrap();
        orders.push(kernel.state().unwrap().status & libc::STA_INS != 0);
    }
    // Two looks are more than a second: one begins in between.
    assert_eq!(orders, [true, false, false, true, true, true]);
}

#[test]
fn the_frequency_is_restored_and_beyond_500_ppm_the_tick_is_used() {
    let kernel = SimulatedKernel::new(raw(0.0), Time::from_seconds_nanos(EPOCH_S, 0));
    let limits = Limits { max_frequency_ppb: 2e6, ..Limits::default() };
    let clock =
        SystemClock::take_over(Box::new(kernel.clone()), limits, Some(-1_234_567.0)).unwrap();
    let state = kernel.state().unwrap();
    assert_eq!(state.tick, 10_000 - 12);
    assert!((clock.frequency_ppb() + 1_234_567.0).abs() < 0.01);
}

#[test]
fn released_the_clock_is_nobodys() {
    let (mut clock, kernel) = taken_over();
    let now = at(&kernel, 1.0);
    clock.keep(keeping(now, None)).unwrap();
    clock.release().unwrap();
    let state = kernel.state().unwrap();
    assert_ne!(state.status & libc::STA_UNSYNC, 0);
    assert_eq!(state.max_error_us, 21);
}

#[test]
fn a_grandmaster_that_is_not_believed_orders_neither_leap_second_nor_tai_offset() {
    let announced = TimeProperties { leap61: true, ..properties() };
    let told = |clock: &mut SystemClock, kernel: &SimulatedKernel, state| {
        let now = at(kernel, 1.0);
        clock.keep(Keeping { state, ..keeping(now, Some(&announced)) }).unwrap();
        let state = kernel.state().unwrap();
        (state.status & libc::STA_INS != 0, state.tai_offset_seconds)
    };
    // It has announced itself, but nobody knows yet what time it has.
    for state in [ServoState::Unlocked, ServoState::Jump] {
        let (mut clock, kernel) = taken_over();
        assert_eq!(told(&mut clock, &kernel, state), (false, 0), "{state:?}");
    }
    // It is too far away to be followed.
    let (mut clock, kernel) = taken_over();
    clock.followed();
    let now = at(&kernel, 0.5);
    assert!(clock.consent(now, Duration::from_secs(5_000)).is_err());
    assert_eq!(told(&mut clock, &kernel, ServoState::Locked), (false, 0));
    assert_eq!(clock.consent(now, Duration::ZERO).unwrap(), Consent::Given);
    assert_eq!(told(&mut clock, &kernel, ServoState::Holdover), (true, 37));
}
