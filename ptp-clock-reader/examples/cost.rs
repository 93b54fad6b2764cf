//! What one read of the page costs on this machine, beside the read of CLOCK_MONOTONIC in it.
//! `cargo run --release -p ptp-clock-reader --example cost [PAGE]`; without one, a page of its own.

use std::{env, fs, hint::black_box, process, sync::atomic::Ordering, time::Instant};

use ptp_clock_reader::{Course, PtpClock, WORDS};

const READS: u32 = 2_000_000;
const ROUNDS: u32 = 5;

fn nanos_each(mut read: impl FnMut()) -> f64 {
    let round = |_| {
        let start = Instant::now();
        (0..READS).for_each(|_| read());
        start.elapsed().as_nanos() as f64 / f64::from(READS)
    };
    (0..ROUNDS).map(round).fold(f64::INFINITY, f64::min)
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let given = env::args().nth(1);
    let own = env::temp_dir().join(format!("ptp-clock-cost-{}", process::id()));
    if given.is_none() {
        let page: [_; WORDS] = Default::default();
        let course = Course {
            mono_ns: 0,
            ptp_ns: 1_900_000_000_000_000_000,
            fraction: 0,
            rate: 1 << 30,
            bound_ns: 100,
            growth_ppb: 1_000,
            void_ns: i64::MAX,
            state: 1,
            utc_offset_s: 37,
            steps: 0,
            interval_ns: [-80, 100],
            precision_ns: Some(20),
            accuracy_ns: Some(100),
        };
        course.write(&page);
        let words = page.iter().flat_map(|word| word.load(Ordering::Relaxed).to_ne_bytes());
        fs::write(&own, words.collect::<Vec<u8>>())?;
    }
    let clock = PtpClock::open(given.as_ref().map_or(own.as_path(), |path| path.as_ref()));
    let _ = fs::remove_file(&own);
    let clock = clock?;
    let page = nanos_each(|| {
        black_box(clock.now()).ok();
    });
    let monotonic = nanos_each(|| {
        black_box(Instant::now());
    });
    println!("{page:.1} ns per read of the clock, {monotonic:.1} ns of it CLOCK_MONOTONIC");
    println!("(fastest of {ROUNDS} times {READS} reads)");
    Ok(())
}
