//! What is exported, read by those for whom it is: the crate for the page, and ClockBound's own client.

use std::{fs, os::unix::net::UnixDatagram};

use clock_bound_client::{ClockBoundClient, ClockStatus};
use ptp_clock_reader::{PtpClock, State};
use ptp_common::time::Time;

use super::*;
use crate::{
    servo::{Basis, Interval},
    sys::{
        clock::{monotonic, realtime_minus_monotonic},
        shared::{SharedMemory, remove_segment, segment_id},
    },
};

/// What can be made at once.
fn exports(wanted: Exporting) -> Exports {
    let exports = Exports::start(wanted, limits(), monotonic());
    assert!(!exports.is_lacking());
    exports
}

/// Some days here are before the build.
fn limits() -> Limits {
    Limits { earliest: Time::ZERO, ..Limits::default() }
}

fn view(software: Option<&VirtualClock>) -> View<'_> {
    let now = monotonic();
    View {
        now,
        state: ServoState::Locked,
        software,
        trust: Some(Trust {
            bound: Duration::from_nanos(300),
            precision: Duration::from_nanos(20),
            interval: Interval { lo: Duration::from_nanos(-300), hi: Duration::from_nanos(200) },
            basis: Basis::Causality,
            is_clipped: false,
            growth: Duration::ZERO,
        }),
        rate_error_ppb: 1_000.0,
        reference: BoundReference::Grandmaster,
        inaccuracy: Some(Duration::from_nanos(100)),
        utc_offset_s: Some(37),
        is_utc_unknown: false,
        real: now.at_offset(realtime_minus_monotonic()),
        real_error: Some(Duration::from_micros(-40)),
        real_error_bound: Some(Duration::from_micros(10)),
        leap: 0,
        steps: 2,
    }
}

#[test]
fn the_page_shows_the_software_clock_and_is_void_without_its_writer() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("page");
    let now = monotonic();
    let clock = {
        use crate::clock::Clock;
        let mut clock = VirtualClock::new(now, Time::from_seconds_nanos(1_900_000_000, 0), 1e6);
        clock.set_frequency(now, -321_000.5).unwrap();
        clock
    };
    let mut exports = exports(Exporting { page: Some(path.clone()), ..Exporting::default() });
    exports.tick(&view(Some(&clock)));
    let reader = PtpClock::open(&path).unwrap();
    let course = reader.course().unwrap();
    for later_ns in [0, 1_000_000_000, 9_000_000_000] {
        use crate::clock::Clock;
        let mono = now + Duration::from_nanos(later_ns);
        let shown = course.at(mono.as_nanos());
        assert!((shown.ptp_ns - clock.at(mono).as_nanos()).abs() <= 1);
        assert_eq!((shown.state, shown.utc_offset_s), (State::Locked, Some(37)));
        assert!(shown.bound_ns.is_some_and(|bound| bound >= 300));
        assert!(shown.utc_bound_ns.is_some_and(|bound| bound >= 400));
        assert!(shown.precision_ns.is_some_and(|precision| (20..30).contains(&precision)));
        assert!(shown.interval_ns.is_some_and(|[lo, hi]| lo <= -300 && hi >= 200));
    }
    drop(exports);
    assert_eq!(reader.now().unwrap().state, State::Unknown);
}

#[test]
fn bound_of_a_clock_that_removes_an_error_grows_as_fast_as_it_does_that() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("page");
    let now = monotonic();
    let clock = VirtualClock::new(now, Time::from_seconds_nanos(1_900_000_000, 0), 1e6);
    let mut exports = exports(Exporting { page: Some(path.clone()), ..Exporting::default() });
    let mut view = view(Some(&clock));
    for (growth, least) in [(Duration::ZERO, 1_000), (Duration::from_micros(400), 400_000)] {
        view.trust = view.trust.map(|trust| Trust { growth, ..trust });
        exports.tick(&view);
        let course = PtpClock::open(&path).unwrap().course().unwrap();
        // Who is held up for two seconds has gone on beyond the end of it.
        let bound = course.at(view.now.as_nanos() + 2_000_000_000).bound_ns.unwrap();
        assert!((2 * least + 300..2 * least + 310).contains(&bound), "{growth:?}: {bound}");
    }
}

#[test]
fn the_client_of_clockbound_reads_it_as_synchronised_and_the_interval_contains_the_truth() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("shm");
    let mut exports =
        exports(Exporting { clock_bound: Some(path.clone()), ..Exporting::default() });
    exports.tick(&view(None));
    assert_eq!(fs::metadata(&path).unwrap().len(), 80);
    let mut client = ClockBoundClient::new_with_path(path.to_str().unwrap()).unwrap();
    // The system clock is 40 us behind, and that is known to within 10 us.
    let truth = || {
        let real = monotonic().since_epoch() + realtime_minus_monotonic();
        (real + Duration::from_micros(40)).as_nanos()
    };
    let nanos = |seconds: i64, nanos: i64| seconds * 1_000_000_000 + nanos;
    for _ in 0..100 {
        exports.tick(&view(None));
        let before = truth();
        let bounds = client.now().unwrap();
        let after = truth();
        assert_eq!(bounds.clock_status, ClockStatus::Synchronized);
        let earliest = nanos(bounds.earliest.tv_sec(), bounds.earliest.tv_nsec());
        let latest = nanos(bounds.latest.tv_sec(), bounds.latest.tv_nsec());
        assert!(earliest <= after && before <= latest, "{earliest} {before} {after} {latest}");
        assert!(latest - earliest < 200_000, "{}", latest - earliest);
    }
    exports.tick(&View { state: ServoState::Holdover, ..view(None) });
    assert_eq!(client.now().unwrap().clock_status, ClockStatus::FreeRunning);
    drop(exports);
    assert_eq!(client.now().unwrap().clock_status, ClockStatus::Unknown);
    // The next writer goes on, for those who have it mapped.
    let mut exports = self::exports(Exporting { clock_bound: Some(path), ..Exporting::default() });
    exports.tick(&view(None));
    assert_eq!(client.now().unwrap().clock_status, ClockStatus::Synchronized);
}

#[test]
fn what_a_killed_agent_said_last_is_not_believed() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("shm");
    let mut killed = ClockBound::open(&path).unwrap();
    killed.update(&view(None));
    // As it is left behind without an orderly end.
    let left = directory.path().join("left");
    fs::copy(&path, &left).unwrap();
    let mut client = ClockBoundClient::new_with_path(left.to_str().unwrap()).unwrap();
    assert_eq!(client.now().unwrap().clock_status, ClockStatus::Synchronized);
    let mut next = ClockBound::open(&left).unwrap();
    assert_eq!(client.now().unwrap().clock_status, ClockStatus::Unknown);
    next.update(&view(None));
    assert_eq!(client.now().unwrap().clock_status, ClockStatus::Synchronized);
}

#[test]
fn a_sample_counts_once_and_none_is_given_around_midnight_utc() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("chrony.sock");
    let daemon = UnixDatagram::bind(&path).unwrap();
    daemon.set_nonblocking(true).unwrap();
    let received = || std::iter::from_fn(|| daemon.recv(&mut [0; 64]).ok()).count();
    let mut exports = exports(Exporting { chrony_sock: Some(path), ..Exporting::default() });
    let mut tick = |second_of_day: u64, error_ns: i64| {
        exports.tick(&View {
            real: Time::from_seconds_nanos(86_400 * 20_000 + second_of_day, 0),
            real_error: Some(Duration::from_nanos(error_ns)),
            ..view(None)
        });
        received()
    };
    assert_eq!([tick(40_000, 5), tick(40_001, 5), tick(40_002, 6)], [1, 0, 1]);
    assert_eq!([tick(86_393, 7), tick(86_394, 8), tick(24, 9), tick(25, 10)], [1, 0, 0, 1]);
}

#[test]
fn what_cannot_be_exported_is_tried_again_and_the_rest_goes_on() {
    let directory = tempfile::tempdir().unwrap();
    let [page, bound] = ["page", "bound"].map(|name| directory.path().join(name));
    let other_writer = Page::open(&page).unwrap();
    let mut view = view(None);
    let wanted =
        Exporting { page: Some(page), clock_bound: Some(bound.clone()), ..Exporting::default() };
    let mut exports = Exports::start(wanted.clone(), limits(), view.now);
    assert!(exports.is_lacking());
    exports.tick(&view);
    let mut client = ClockBoundClient::new_with_path(bound.to_str().unwrap()).unwrap();
    assert_eq!(client.now().unwrap().clock_status, ClockStatus::Synchronized);
    drop(other_writer);
    exports.tick(&view);
    assert!(exports.is_lacking(), "too early");
    view.now += RETRY;
    exports.tick(&view);
    assert!(!exports.is_lacking());
    // Nobody misses what is no longer asked for, and the same file can be had under another name.
    let wanted = Exporting { clock_bound: None, ..wanted };
    exports.change(wanted.clone(), limits(), view.now);
    assert!(!exports.is_lacking() && exports.clock_bound.running.is_none());
    exports.change(
        Exporting { page: None, clock_bound: wanted.page, ..wanted },
        limits(),
        view.now,
    );
    assert!(exports.is_lacking(), "a page is no segment of ClockBound");
    exports.change(
        Exporting { clock_bound: Some(bound), ..Exporting::default() },
        limits(),
        view.now,
    );
    assert!(!exports.is_lacking());
}

#[test]
fn a_segment_of_ntp_that_is_too_short_is_waited_for_and_a_removed_one_is_made_again() {
    let unit = 212;
    let key = refclock::key(unit);
    let too_short = SharedMemory::attach(key, 16, 0o600).unwrap();
    let error = NtpSegment::open(unit).unwrap_err().to_string();
    assert!(error.contains("NTP unit 212") && error.contains("ipcs -m"), "{error}");
    let mut view = view(None);
    let wanted = Exporting { ntp_shm: Some(unit), ..Exporting::default() };
    let mut exports = Exports::start(wanted, limits(), view.now);
    assert!(exports.is_lacking());
    remove_segment(key);
    drop(too_short);
    let mut tick = || {
        view.now += RETRY;
        view.real_error = view.real_error.map(|error| error + Duration::from_nanos(1));
        exports.tick(&view);
        exports.is_lacking()
    };
    assert!(!tick());
    remove_segment(key);
    assert!(!tick() && segment_id(key).is_some());
    remove_segment(key);
    let too_short = SharedMemory::attach(key, 16, 0o600).unwrap();
    assert!(tick(), "written into a segment that nobody reads");
    remove_segment(key);
    drop(too_short);
    assert!(!tick());
    remove_segment(key);
}

#[test]
fn a_path_that_cannot_be_used_gets_a_clear_error() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("page");
    let first = Page::open(&path).unwrap();
    let error = Page::open(&path).unwrap_err();
    assert!(matches!(error, SegmentError::OtherWriter(_)), "{error}");
    assert!(matches!(ClockBound::open(&path).unwrap_err(), SegmentError::OtherWriter(_)));
    drop(first);
    let error = ClockBound::open(&path).unwrap_err();
    assert!(matches!(error, SegmentError::SomethingElse { length: 128, .. }), "{error}");
    fs::write(&path, "a file that somebody needs").unwrap();
    let error = Page::open(&path).unwrap_err();
    assert!(matches!(error, SegmentError::SomethingElse { .. }), "{error}");
    assert_eq!(fs::read_to_string(&path).unwrap(), "a file that somebody needs");
    let error = Page::open(&directory.path().join("no/page")).unwrap_err();
    assert!(matches!(error, SegmentError::File { attempt: "open", .. }), "{error}");
    let link = directory.path().join("link");
    std::os::unix::fs::symlink(&path, &link).unwrap();
    assert!(Page::open(&link).is_err());
}

/// What the ways out are given in a second each: whether chronyd got a sample, ntpd's segment changed,
/// and what ClockBound's readers see.
struct Outs {
    _directory: tempfile::TempDir,
    daemon: UnixDatagram,
    client: ClockBoundClient,
    exports: Exports,
    unit: u8,
    ticks: i64,
}

impl Outs {
    fn new(unit: u8, limits: Limits) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let at = |name: &str| directory.path().join(name);
        let daemon = UnixDatagram::bind(at("chrony.sock")).unwrap();
        daemon.set_nonblocking(true).unwrap();
        let wanted = Exporting {
            page: None,
            clock_bound: Some(at("bound")),
            chrony_sock: Some(at("chrony.sock")),
            ntp_shm: Some(unit),
        };
        let mut exports = Exports::start(wanted, limits, monotonic());
        exports.tick(&in_range(Duration::from_nanos(1)));
        daemon.recv(&mut [0; 64]).unwrap();
        let client = ClockBoundClient::new_with_path(at("bound").to_str().unwrap()).unwrap();
        Self { _directory: directory, daemon, client, exports, unit, ticks: 1 }
    }

    fn tick(&mut self, view: &View<'_>) -> (bool, bool, ClockStatus) {
        self.ticks += 1;
        let segment = SharedMemory::attach(refclock::key(self.unit), 96, 0o600).unwrap();
        let count = || segment.words32()[1].load(std::sync::atomic::Ordering::Relaxed);
        let before = count();
        // No sample is given twice.
        let distinct = Duration::from_nanos(self.ticks);
        let real_error = view.real_error.map(|error| error + distinct);
        self.exports.tick(&View { real_error, ..*view });
        let is_sent = self.daemon.recv(&mut [0; 64]).is_ok();
        (is_sent, count() != before, self.client.now().unwrap().clock_status)
    }

    fn withheld(&self) -> String {
        self.exports.withheld().map(ToString::to_string).unwrap_or_default()
    }
}

impl Drop for Outs {
    fn drop(&mut self) {
        remove_segment(refclock::key(self.unit));
    }
}

/// CLOCK_REALTIME in the middle of a day after the build, `error` off.
fn in_range(error: Duration) -> View<'static> {
    let day = crate::clock::policy::built() / 86_400 + 2;
    let real = Time::from_seconds_nanos(day * 86_400 + 43_200, 0);
    View { real, real_error: Some(error), ..view(None) }
}

const ALL_OUT: (bool, bool, ClockStatus) = (true, true, ClockStatus::Synchronized);
const NOTHING_OUT: (bool, bool, ClockStatus) = (false, false, ClockStatus::Unknown);

#[test]
fn absurd_time_leaves_by_no_way_and_the_reason_is_said() {
    let mut outs = Outs::new(213, Limits::default());
    assert_eq!(outs.tick(&in_range(Duration::from_nanos(5))), ALL_OUT);
    // A grandmaster in 2000, and one in 1970.
    for seconds in [951_825_600, 60] {
        let view = in_range(Duration::ZERO);
        let error = view.real - Time::from_seconds_nanos(seconds, 0);
        assert_eq!(outs.tick(&View { real_error: Some(error), ..view }), NOTHING_OUT);
        assert!(outs.withheld().contains("absurd"), "{}", outs.withheld());
    }
    assert_eq!(outs.tick(&in_range(Duration::from_nanos(5))), ALL_OUT);
    assert_eq!(outs.withheld(), "");
}

#[test]
fn a_rogue_a_day_off_leaves_by_no_way_once_time_was_given() {
    let day = Duration::from_secs(86_400);
    let mut outs = Outs::new(214, Limits::default());
    assert_eq!(outs.tick(&in_range(day)), NOTHING_OUT);
    assert!(outs.withheld().contains("max-step in [clock]"), "{}", outs.withheld());
    // Where an operator allows it, and where nothing was given yet.
    let far = Limits { max_step: None, ..Limits::default() };
    outs.exports.gate.set_limits(far);
    assert_eq!(outs.tick(&in_range(day)), ALL_OUT);
    let mut gate = Gate::new(Limits::default());
    let wanted = Exporting { ntp_shm: Some(215), ..Exporting::default() };
    assert!(gate.pass(&wanted, &in_range(day)).0.real_error.is_some());
}

#[test]
fn without_a_valid_utc_offset_nothing_is_given_and_that_is_said() {
    let mut outs = Outs::new(216, Limits::default());
    let view = View { utc_offset_s: None, is_utc_unknown: true, ..in_range(Duration::ZERO) };
    assert_eq!(outs.tick(&View { real_error: None, ..view }), NOTHING_OUT);
    assert!(outs.withheld().contains("currentUtcOffsetValid"), "{}", outs.withheld());
    // To those who asked for nothing, nothing is missing; nor before the first lock.
    outs.exports.change(Exporting::default(), limits(), view.now);
    outs.exports.tick(&view);
    assert_eq!(outs.withheld(), "");
}

#[test]
fn readers_of_clockbound_are_promised_no_utc_that_nobody_knows() {
    let mut outs = Outs::new(217, Limits::default());
    let unknown = View { inaccuracy: None, ..in_range(Duration::from_nanos(7)) };
    // Samples make no promise.
    assert_eq!(outs.tick(&unknown), (true, true, ClockStatus::Unknown));
    assert!(outs.withheld().contains("grandmaster-accuracy"), "{}", outs.withheld());
    outs.tick(&View { reference: BoundReference::Parent, ..unknown });
    assert!(outs.withheld().contains("boundary-clock-error"), "{}", outs.withheld());
    assert_eq!(outs.tick(&in_range(Duration::from_nanos(7))), ALL_OUT);
}

#[test]
fn the_bound_of_clockbound_has_the_grandmaster_s_own_error_in_it() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("shm");
    let mut exports =
        exports(Exporting { clock_bound: Some(path.clone()), ..Exporting::default() });
    let mut bound_ns = |inaccuracy| {
        exports.tick(&View { inaccuracy: Some(inaccuracy), ..view(None) });
        i64::from_ne_bytes(fs::read(&path).unwrap()[48..56].try_into().unwrap())
    };
    let perfect = bound_ns(Duration::ZERO);
    assert!((50_000..50_010).contains(&perfect), "{perfect}");
    assert_eq!(bound_ns(Duration::from_micros(25)) - perfect, 25_000);
}
