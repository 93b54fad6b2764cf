//! What is exported, read by those for whom it is: the crate for the page, and ClockBound's own client.

use std::{fs, os::unix::net::UnixDatagram};

use clock_bound_client::{ClockBoundClient, ClockStatus};
use ptp_clock_reader::{PtpClock, State};
use ptp_common::time::Time;

use super::*;
use crate::sys::{
    clock::{monotonic, realtime_minus_monotonic},
    shared::{SharedMemory, remove_segment, segment_id},
};

/// What can be made at once.
fn exports(wanted: Exporting) -> Exports {
    let exports = Exports::start(wanted, monotonic());
    assert!(!exports.is_lacking());
    exports
}

fn view(software: Option<&VirtualClock>) -> View<'_> {
    let now = monotonic();
    View {
        now,
        state: ServoState::Locked,
        software,
        error_bound: Some(Duration::from_nanos(300)),
        utc_offset_s: Some(37),
        real: Time::from_epoch(now.since_epoch() + realtime_minus_monotonic()),
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
    }
    drop(exports);
    assert_eq!(reader.now().unwrap().state, State::Unknown);
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
    let mut exports = Exports::start(wanted.clone(), view.now);
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
    exports.change(wanted.clone(), view.now);
    assert!(!exports.is_lacking() && exports.clock_bound.running.is_none());
    exports.change(Exporting { page: None, clock_bound: wanted.page, ..wanted }, view.now);
    assert!(exports.is_lacking(), "a page is no segment of ClockBound");
    exports.change(Exporting { clock_bound: Some(bound), ..Exporting::default() }, view.now);
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
    let mut exports = Exports::start(wanted, view.now);
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
