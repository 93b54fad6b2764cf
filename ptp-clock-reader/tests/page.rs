//! The page: what is written is read, by Rust and by C, and never a mixture of two writes.

use std::{
    env, fs,
    io::{self, Write},
    path::PathBuf,
    process::Command,
    sync::atomic::{AtomicBool, AtomicU64, Ordering},
    thread,
};

use ptp_clock_reader::{
    BYTES, Course, NO_BOUND, NO_INTERVAL, NO_UTC_OFFSET, OpenError, PtpClock, ReadError, State,
    WORDS,
};

fn course() -> Course {
    Course {
        mono_ns: 5_000_000_000,
        ptp_ns: 1_900_000_000_123_456_789,
        fraction: 1 << 63,
        // 100 ppm slow.
        rate: -(1_i64 << 48) / 10_000,
        bound_ns: 250,
        growth_ppb: 1_000,
        void_ns: 20_000_000_000,
        state: 1,
        utc_offset_s: 37,
        steps: 3,
        interval_ns: [-250, 120],
        precision_ns: Some(30),
        accuracy_ns: Some(100),
    }
}

/// What an agent that knew of no interval wrote.
fn older() -> Course {
    Course { interval_ns: NO_INTERVAL, precision_ns: None, accuracy_ns: None, ..course() }
}

fn page() -> [AtomicU64; WORDS] {
    Default::default()
}

/// A file with the page, removed at the end.
struct Written(PathBuf);

impl Written {
    fn new(name: &str, bytes: &[u8]) -> Self {
        let path = env::temp_dir().join(format!("ptp-clock-{name}-{}", std::process::id()));
        fs::write(&path, bytes).unwrap();
        Self(path)
    }

    fn page(name: &str, course: &Course) -> Self {
        let page = page();
        course.write(&page);
        let words = page.iter().flat_map(|word| word.load(Ordering::Relaxed).to_ne_bytes());
        Self::new(name, &words.collect::<Vec<u8>>())
    }
}

impl Drop for Written {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.0);
    }
}

#[test]
fn what_is_written_is_read() {
    let page = page();
    assert_eq!(Course::read(&page), Err(ReadError::NoPage));
    course().write(&page);
    assert_eq!(Course::read(&page), Ok(course()));
}

#[test]
fn the_clock_runs_at_its_rate_and_the_bound_grows() {
    let later = course().at(15_000_000_000);
    // Ten seconds, less 1 ms, and half a nanosecond more.
    assert_eq!(later.ptp_ns, 1_900_000_010_122_456_789);
    assert_eq!(later.bound_ns, Some(250 + 10_000));
    assert_eq!((later.state, later.utc_offset_s, later.steps), (State::Locked, Some(37), 3));
    let before = course().at(4_000_000_000);
    assert_eq!(before.ptp_ns, 1_899_999_999_123_556_789);
}

#[test]
fn the_interval_opens_with_the_bound_and_utc_has_the_grandmaster_s_error_in_it() {
    let later = course().at(15_000_000_000);
    assert_eq!(later.interval_ns, Some([-250 - 10_000, 120 + 10_000]));
    assert_eq!(later.utc_bound_ns, Some(250 + 10_000 + 100));
    assert_eq!(later.precision_ns, Some(30));
    // A grandmaster that is UTC itself is not one of which nothing is known.
    let page = page();
    Course { accuracy_ns: Some(0), ..course() }.write(&page);
    assert_eq!(Course::read(&page).unwrap().at(5_000_000_000).utc_bound_ns, Some(250));
    for unknown in [
        Course { accuracy_ns: None, ..course() },
        // More than the page can say.
        Course { accuracy_ns: Some(u32::MAX), ..course() },
        Course { utc_offset_s: NO_UTC_OFFSET, ..course() },
    ] {
        unknown.write(&page);
        let time = Course::read(&page).unwrap().at(5_000_000_000);
        assert_eq!((time.bound_ns, time.utc_bound_ns), (Some(250), None));
    }
}

#[test]
fn of_an_older_agent_s_page_everything_is_read_that_it_says() {
    let page = page();
    course().write(&page);
    // It left the last words as they were made.
    for word in &page[13..] {
        word.store(0, Ordering::Relaxed);
    }
    assert_eq!(Course::read(&page), Ok(older()));
    let time = older().at(15_000_000_000);
    assert_eq!((time.bound_ns, time.state), (Some(250 + 10_000), State::Locked));
    assert_eq!((time.interval_ns, time.precision_ns, time.utc_bound_ns), (None, None, None));
}

#[test]
fn an_older_reader_finds_what_it_knows_where_it_was() {
    let [new, old] = [page(), page()];
    course().write(&new);
    older().write(&old);
    // It takes nothing but version 1 of 128 bytes, and looks at no more than the first 13 words.
    assert_eq!(new[1].load(Ordering::Relaxed), 128 << 32 | 1);
    for (new, old) in new.iter().zip(&old).take(13) {
        assert_eq!(new.load(Ordering::Relaxed), old.load(Ordering::Relaxed));
    }
    assert_eq!(BYTES, 128);
}

#[test]
fn after_its_time_nothing_is_believed() {
    let late = course().at(20_000_000_001);
    assert_eq!((late.state, late.bound_ns), (State::Unknown, None));
    assert_eq!((late.interval_ns, late.precision_ns, late.utc_bound_ns), (None, None, None));
}

#[test]
fn a_page_of_before_the_last_boot_is_not_believed() {
    // It is valid for 15 s, and for as long a reader may lag behind its writer.
    assert_eq!(course().at(-10_000_000_000).state, State::Locked);
    let early = course().at(-10_000_000_001);
    assert_eq!((early.state, early.bound_ns), (State::Unknown, None));
}

#[test]
fn what_is_not_known_is_none() {
    let course = Course { bound_ns: NO_BOUND, utc_offset_s: NO_UTC_OFFSET, state: 7, ..course() };
    let time = course.at(5_000_000_000);
    assert_eq!((time.bound_ns, time.utc_offset_s, time.state), (None, None, State::Unknown));
}

#[test]
fn no_reader_ever_sees_half_of_a_change() {
    let page = page();
    let write = |n: i64| {
        Course { mono_ns: n, ptp_ns: n, rate: n, void_ns: n, steps: n as u64, ..course() }
            .write(&page);
    };
    write(0);
    let is_over = AtomicBool::new(false);
    thread::scope(|scope| {
        let reader = scope.spawn(|| {
            let mut reads = 0_u64;
            while !is_over.load(Ordering::Relaxed) || reads == 0 {
                if let Ok(read) = Course::read(&page) {
                    let n = read.mono_ns;
                    assert_eq!((read.ptp_ns, read.rate, read.void_ns), (n, n, n));
                    assert_eq!(read.steps, n as u64);
                    reads += 1;
                }
            }
        });
        (1..200_000).for_each(write);
        is_over.store(true, Ordering::Relaxed);
        reader.join().unwrap();
    });
}

#[test]
fn a_writer_that_died_is_not_waited_for() {
    let page = page();
    course().write(&page);
    page[2].fetch_add(1, Ordering::Relaxed);
    assert_eq!(Course::read(&page), Err(ReadError::Stuck));
    // And its successor makes the page whole.
    course().write(&page);
    assert_eq!(Course::read(&page), Ok(course()));
}

#[test]
fn a_page_in_a_file_is_opened_and_others_are_refused() {
    let written = Written::page("open", &course());
    let clock = PtpClock::open(&written.0).unwrap();
    assert_eq!(clock.course(), Ok(course()));
    assert!(clock.now().is_ok());
    let short = Written::new("short", &[0; 16]);
    assert!(matches!(PtpClock::open(&short.0), Err(OpenError::TooShort(16))));
    let other = Written::new("other", &[7; BYTES]);
    assert!(matches!(PtpClock::open(&other.0), Err(OpenError::Read(ReadError::NoPage))));
    assert!(matches!(PtpClock::open("/no/such/page"), Err(OpenError::Io(_))));
}

#[test]
fn the_c_header_reads_what_rust_reads() {
    let source = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/page.c");
    let include = concat!("-I", env!("CARGO_MANIFEST_DIR"), "/include");
    let program = Written::new("c-program", &[]);
    let compiled = Command::new("cc")
        .args(["-std=gnu11", "-Wall", "-Wextra", "-Werror", "-O2", include, "-o"])
        .arg(&program.0)
        .arg(source)
        .status();
    let Ok(compiled) = compiled else {
        let _ = writeln!(io::stderr(), "skipped: no C compiler");
        return;
    };
    assert!(compiled.success());
    let unknown = Course { utc_offset_s: NO_UTC_OFFSET, ..course() };
    for (course, mono_ns) in [
        (course(), -10_000_000_001),
        (course(), 4_000_000_000),
        (course(), 15_000_000_000),
        (course(), 20_000_000_001),
        (older(), 15_000_000_000),
        (unknown, 15_000_000_000),
        // Valid now, whenever that is, so that stamps for spans are known.
        (Course { void_ns: i64::MAX, mono_ns: 0, ..course() }, 15_000_000_000),
    ] {
        let written = Written::page("c", &course);
        let output = Command::new(&program.0).arg(&written.0).arg(mono_ns.to_string()).output();
        let output = output.unwrap();
        assert!(output.status.success(), "{output:?}");
        let time = course.at(mono_ns);
        let [lowest, highest] = time.interval_ns.unwrap_or(NO_INTERVAL);
        let expected = format!(
            "{} {} {} {} {} {} {} {lowest} {highest}\n",
            time.ptp_ns,
            time.bound_ns.unwrap_or(NO_BOUND),
            time.utc_offset_s.map_or(NO_UTC_OFFSET, i64::from),
            time.steps,
            if time.state == State::Locked { 1 } else { 0 },
            time.utc_bound_ns.unwrap_or(NO_BOUND),
            time.precision_ns.unwrap_or(0),
        );
        assert_eq!(String::from_utf8(output.stdout).unwrap(), expected);
    }
    let other = Written::new("c-other", &[7; BYTES]);
    assert!(!Command::new(&program.0).arg(&other.0).arg("0").output().unwrap().status.success());
}
