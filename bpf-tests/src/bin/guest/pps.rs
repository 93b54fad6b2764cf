//! Pulses per second for real: a parallel port whose interrupt the kernel stamps (pps_parport), and a thread here that
//! raises it where a second of the guest's own clock begins, or where it should not. So the pulse and the clock that
//! is compared with it are one, and what is between them is known. A receiver's sentences come by a pseudo-terminal.

use std::{
    fs::{self, File, OpenOptions},
    io::Write as _,
    os::{
        fd::{AsRawFd as _, FromRawFd as _},
        unix::fs::FileExt as _,
    },
    process::{Command, ExitStatus},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicI64, Ordering},
    },
    thread::{self, JoinHandle},
    time::Duration,
};

use bpf_tests::{
    agent::{Agent, binary, run_to_end},
    children::{Running, Stream},
};
use libtest_mimic::Trial;
use nix::{
    sys::time::TimeSpec,
    time::{ClockId, ClockNanosleepFlags, clock_nanosleep, clock_settime},
};
use serde_json::{Value, json};

use crate::{
    grandmaster::{Announced, minus_raw, read},
    report::figure,
    trial,
    world::{NOON, SECOND, World, reset},
};

/// The source that pps_parport makes.
const DEVICE: &str = "/dev/pps0";
/// Registers of the first parallel port.
const STATUS: u64 = 0x379;
const CONTROL: u64 = 0x37a;
/// Interrupt enabled, initialised, selected, no strobe: to write this raises the interrupt.
const RAISE: u8 = 0x1c;
/// Later than the agent was built.
const LATER: i64 = 2_208_988_800 * SECOND;
/// What is known of these pulses: the emulated processor wakes up, writes and takes the interrupt in 77 to 98 us.
const KNOWN: [&str; 6] =
    ["--pps-delay", "70000", "--pps-lateness", "40000", "--pps-jitter", "1000000"];
const PATIENCE: Duration = Duration::from_secs(90);

pub(crate) fn trials() -> Vec<Trial> {
    vec![
        trial("pps::a_clock_is_judged_by_a_pulse_that_is_made_from_it", judged),
        trial("pps::pulses_that_are_wrong_are_told_apart", wrong),
        trial("pps::a_software_clock_locks_to_a_pulse_that_a_receiver_numbers", follows),
        trial("pps::the_system_clock_locks_to_a_pulse_made_from_another_clock", steers),
        trial("pps::sentences_that_become_a_second_wrong_move_nothing", wrong_second),
        trial("pps::ptp_numbers_the_seconds_of_a_pulse", numbered_by_ptp),
        trial("pps::a_hardware_clock_follows_a_pulse", hardware),
        trial("pps::what_a_card_cannot_do_with_signals_is_refused", refused),
    ]
}

/// When pulses come, beside whole seconds of a clock.
#[derive(Clone, Copy)]
struct Shape {
    /// Of CLOCK_REALTIME, or of CLOCK_MONOTONIC_RAW moved by this.
    raw_ahead_ns: Option<i64>,
    /// What each is late by, ns, by its number.
    late_ns: fn(i64) -> i64,
    /// A second one so much later.
    again_ns: Option<i64>,
}

const TRUE: Shape = Shape { raw_ahead_ns: None, late_ns: |_| 0, again_ns: None };

/// Raises the interrupt until it is dropped.
struct Generator {
    ends: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Generator {
    fn start(shape: Shape) -> Self {
        let port = OpenOptions::new().read(true).write(true).open("/dev/port").expect("a guest's");
        let ends = Arc::new(AtomicBool::new(false));
        let end = ends.clone();
        let thread = thread::spawn(move || {
            let now = |shape: &Shape| match shape.raw_ahead_ns {
                None => read(ClockId::CLOCK_REALTIME),
                Some(ahead) => read(ClockId::CLOCK_MONOTONIC_RAW) + ahead,
            };
            let raise = || {
                port.write_all_at(&[RAISE], CONTROL).expect("the port's control");
                // That takes the interrupt's level back.
                port.read_exact_at(&mut [0], STATUS).expect("the port's status");
            };
            let wait_until = |at: i64| {
                // Clocks that are stepped or slewed meanwhile are looked at again.
                loop {
                    let left = at - now(&shape);
                    if left <= 0 {
                        return;
                    }
                    let nap = if left > 2_000_000 { left - 1_000_000 } else { 50_000.min(left) };
                    let nap = TimeSpec::new(nap / SECOND, nap % SECOND);
                    let flags = ClockNanosleepFlags::empty();
                    let _ = clock_nanosleep(ClockId::CLOCK_MONOTONIC, flags, &nap);
                }
            };
            let mut number = 0;
            while !end.load(Ordering::Relaxed) {
                let second = now(&shape) / SECOND + 1;
                let late = (shape.late_ns)(number);
                number += 1;
                if late >= SECOND {
                    // None at all.
                    wait_until(second * SECOND + 10_000_000);
                    continue;
                }
                wait_until(second * SECOND + late);
                raise();
                if let Some(again) = shape.again_ns {
                    wait_until(second * SECOND + late + again);
                    raise();
                }
            }
        });
        Self { ends, thread: Some(thread) }
    }
}

impl Drop for Generator {
    fn drop(&mut self) {
        self.ends.store(true, Ordering::Relaxed);
        let _ = self.thread.take().map(JoinHandle::join);
    }
}

/// A pseudo-terminal at whose other end a receiver tells the time.
struct Receiver {
    ends: Arc<AtomicBool>,
    /// Seconds by which it is wrong.
    wrong_s: Arc<AtomicI64>,
    path: String,
    thread: Option<JoinHandle<()>>,
}

impl Receiver {
    /// It tells CLOCK_REALTIME, or CLOCK_MONOTONIC_RAW moved by `raw_ahead_ns`.
    fn start(raw_ahead_ns: Option<i64>) -> Self {
        let (mut master, path) = pseudo_terminal();
        let ends = Arc::new(AtomicBool::new(false));
        let wrong_s = Arc::new(AtomicI64::new(0));
        let (end, wrong) = (ends.clone(), wrong_s.clone());
        let thread = thread::spawn(move || {
            let mut told = 0;
            while !end.load(Ordering::Relaxed) {
                thread::sleep(Duration::from_millis(20));
                let now = match raw_ahead_ns {
                    None => read(ClockId::CLOCK_REALTIME),
                    Some(ahead) => read(ClockId::CLOCK_MONOTONIC_RAW) + ahead,
                };
                // 180 ms behind the second.
                let second = (now - 180_000_000).div_euclid(SECOND);
                if second != told {
                    told = second;
                    let line = sentence(second + wrong.load(Ordering::Relaxed));
                    let _ = master.write_all(line.as_bytes());
                }
            }
        });
        Self { ends, wrong_s, path, thread: Some(thread) }
    }
}

impl Drop for Receiver {
    fn drop(&mut self) {
        self.ends.store(true, Ordering::Relaxed);
        let _ = self.thread.take().map(JoinHandle::join);
    }
}

/// One that is open at its one end, and the path of its other.
fn pseudo_terminal() -> (File, String) {
    let pts = "/dev/pts";
    if !fs::exists("/dev/pts/ptmx").unwrap_or(false) {
        let _ = fs::create_dir(pts);
        let flags = nix::mount::MsFlags::empty();
        nix::mount::mount(Some("devpts"), pts, Some("devpts"), flags, None::<&str>)
            .expect("a guest has pseudo-terminals");
    }
    let master = OpenOptions::new().read(true).write(true).open("/dev/pts/ptmx").expect("ptmx");
    let mut number = 0_i32;
    let unlocked = 0_i32;
    // SAFETY: both requests take a pointer to an integer that lives through the call.
    let result = unsafe {
        libc::ioctl(master.as_raw_fd(), libc::TIOCSPTLCK, &raw const unlocked)
            + libc::ioctl(master.as_raw_fd(), libc::TIOCGPTN, &raw mut number)
    };
    assert_eq!(result, 0, "{}", std::io::Error::last_os_error());
    // SAFETY: a duplicate of a descriptor that is open here.
    let master = unsafe { File::from_raw_fd(libc::dup(master.as_raw_fd())) };
    (master, format!("{pts}/{number}"))
}

/// ZDA of a second since 1970.
fn sentence(second: i64) -> String {
    let (days, of_day) = (second.div_euclid(86_400), second.rem_euclid(86_400));
    let (year, month, day) = date(days);
    let (hour, minute, second) = (of_day / 3600, of_day / 60 % 60, of_day % 60);
    let body = format!("GPZDA,{hour:02}{minute:02}{second:02}.00,{day:02},{month:02},{year},00,00");
    let sum = body.bytes().fold(0, |sum, byte| sum ^ byte);
    format!("${body}*{sum:02X}\r\n")
}

/// Year, month and day of a day since 1970.
fn date(mut days: i64) -> (i64, i64, i64) {
    for year in 1970.. {
        let is_leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
        let february = if is_leap { 29 } else { 28 };
        let months = [31, february, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31];
        for (month, length) in (1..).zip(months) {
            if days < length {
                return (year, month, days + 1);
            }
            days -= length;
        }
    }
    unreachable!("years do not end")
}

fn agent_command(arguments: &[&str]) -> Command {
    let mut command = Command::new(binary());
    command.arg("--json").args(arguments);
    command
}

/// As [`run_to_end`], for what takes its time.
fn run_long(mut command: Command) -> (ExitStatus, String, String) {
    let mut running = Running::start("agent", &mut command);
    let status = running.wait(PATIENCE);
    let text = |stream| {
        let lines = running.lines();
        let lines = lines.iter().filter(|line| line.stream == stream);
        lines.map(|line| format!("{}\n", line.text)).collect::<String>()
    };
    (status, text(Stream::Output), text(Stream::Log))
}

/// What `ptp-agent pps` says at its end.
fn judge(seconds: u32, more: &[&str]) -> Value {
    let duration = seconds.to_string();
    let arguments = [&["pps", DEVICE, "--duration", &duration], more].concat();
    let (status, said, log) = run_long(agent_command(&arguments));
    assert!(status.success(), "{status}\n{log}");
    let last = said.lines().last().unwrap_or_default();
    serde_json::from_str(last).unwrap_or_else(|_| panic!("no JSON: {said}"))
}

fn set_clock(ns: i64) {
    clock_settime(ClockId::CLOCK_REALTIME, TimeSpec::new(ns / SECOND, ns % SECOND))
        .expect("a guest's clock");
}

fn judged() {
    set_clock(LATER);
    let _generator = Generator::start(TRUE);
    let html = "/tmp/pps.html";
    let summary = judge(40, &["--html", html]);
    figure("pps_of_the_same_clock", summary.clone());
    let of = |name: &str| summary["offset_ns"][name].as_f64().expect("a figure");
    assert!(summary["n"].as_u64() >= Some(35), "{summary}");
    // The kernel's stamp is behind the second by the generator's wake-up and the interrupt.
    assert!((0.0..300_000.0).contains(&of("mean")) && of("sd") < 100_000.0, "{summary}");
    assert_eq!(
        (&summary["missed"], summary["refused"].as_object().map(|it| it.len())),
        (&json!(0), Some(0))
    );
    assert!(fs::read_to_string(html).is_ok_and(|page| page.contains("<svg")));
}

fn wrong() {
    set_clock(LATER);
    let seen = |shape: Shape, what: &str| {
        let _generator = Generator::start(shape);
        let summary = judge(30, &[]);
        figure(&format!("pps_wrong_{what}"), summary.clone());
        summary
    };
    let doubled = seen(Shape { again_ns: Some(100_000_000), ..TRUE }, "doubled");
    assert!(doubled["refused"]["doubled"].as_u64() >= Some(20), "{doubled}");
    let jitters = Shape { late_ns: |n| if n % 5 == 4 { 20_000_000 } else { 0 }, ..TRUE };
    let jitters = seen(jitters, "jitter");
    assert!(jitters["refused"]["jitter"].as_u64() >= Some(3), "{jitters}");
    let half = Shape { late_ns: |n| if n > 10 && n < 14 { SECOND / 2 } else { 0 }, ..TRUE };
    let half = seen(half, "half_a_second");
    assert_eq!(half["refused"]["misplaced"].as_u64(), Some(3), "{half}");
    let stops = Shape { late_ns: |n| if n > 10 && n < 16 { SECOND } else { 0 }, ..TRUE };
    let stops = seen(stops, "missed");
    assert_eq!(stops["missed"].as_u64(), Some(5), "{stops}");
}

/// An agent that follows the pulse without any interface.
fn follow(clock: &str, nmea: Option<&str>, more: &[&str]) -> Agent {
    let mut arguments = vec!["run", "--follow", "pps", "--pps", DEVICE, "--clock", clock];
    if let Some(nmea) = nmea {
        arguments.extend(["--nmea", nmea]);
    }
    arguments.extend(KNOWN);
    arguments.extend(more);
    let mut command = agent_command(&arguments);
    Agent::from_running(Running::start("agent", &mut command))
}

fn locked(sample: &Value) -> bool {
    sample["state"] == "locked"
}

/// Seconds of the guest until an agent says that it has locked.
fn time_to_lock(agent: &Agent) -> f64 {
    let begun = read(ClockId::CLOCK_MONOTONIC);
    agent.wait_for_sample(0, PATIENCE, "lock", locked);
    (read(ClockId::CLOCK_MONOTONIC) - begun) as f64 * 1e-9
}

/// By the page that an agent publishes.
fn judge_page(page: &str) -> Value {
    judge(30, &["--page", page])
}

fn follows() {
    set_clock(LATER);
    let _generator = Generator::start(TRUE);
    let receiver = Receiver::start(None);
    let page = "/tmp/page";
    let mut agent = follow("virtual", Some(&receiver.path), &["--page", page]);
    let lock_s = time_to_lock(&agent);
    let samples = agent.wait_for_samples(agent.mark(), PATIENCE, 20);
    let summary = judge_page(page);
    let sample = samples.last().cloned().unwrap_or_default();
    assert!(agent.stop().success(), "{}", agent.last_words());
    figure(
        "pps_follow_virtual",
        json!({"time_to_lock_s": lock_s, "judged": summary, "sample": sample}),
    );
    assert_eq!((&sample["source"], &sample["rx_source"]), (&json!("pps"), &json!("pps")));
    let mean = summary["offset_ns"]["mean"].as_f64().expect("a mean");
    // The clock shows what the interrupt takes, beside the second at which it is raised.
    assert!((60_000.0..130_000.0).contains(&mean) && lock_s < 60.0, "{summary}");
}

/// The pulse is of a clock that nobody steers, and the system's begins 1.4 s behind it and 30 ppm slow.
fn steers() {
    reset(LATER - 1_400_000_000);
    let raw_ahead = minus_raw(ClockId::CLOCK_REALTIME) + 1_400_000_000;
    let _generator = Generator::start(Shape { raw_ahead_ns: Some(raw_ahead), ..TRUE });
    let receiver = Receiver::start(Some(raw_ahead));
    let file = "/tmp/pps.toml";
    fs::write(file, "[clock]\nfrequency-file = false\n").expect("a file in /tmp");
    let mut agent = follow("system", Some(&receiver.path), &["--config", file]);
    let lock_s = time_to_lock(&agent);
    agent.wait_for_samples(agent.mark(), PATIENCE, 30);
    let errors: Vec<i64> = (0..30)
        .map(|_| {
            thread::sleep(Duration::from_secs(1));
            minus_raw(ClockId::CLOCK_REALTIME) - raw_ahead
        })
        .collect();
    let kernel = crate::world::kernel();
    assert!(agent.stop().success(), "{}", agent.last_words());
    reset(LATER);
    let mean = errors.iter().sum::<i64>() as f64 / errors.len() as f64;
    let sd = (errors.iter().map(|it| (*it as f64 - mean).powi(2)).sum::<f64>()
        / errors.len() as f64)
        .sqrt();
    figure(
        "pps_follow_system",
        json!({"time_to_lock_s": lock_s, "n": errors.len(), "mean_ns": mean,
        "sd_ns": sd, "max_abs_ns": errors.iter().map(|it| it.abs()).max(), "status": kernel.status}),
    );
    assert!(mean.abs() < 40_000.0, "{errors:?}");
    assert_eq!(kernel.status & libc::STA_UNSYNC, 0, "{kernel:?}");
}

fn wrong_second() {
    reset(LATER);
    let raw_ahead = minus_raw(ClockId::CLOCK_REALTIME);
    let _generator = Generator::start(Shape { raw_ahead_ns: Some(raw_ahead), ..TRUE });
    let receiver = Receiver::start(Some(raw_ahead));
    let page = "/tmp/page-wrong";
    let mut agent = follow("virtual", Some(&receiver.path), &["--page", page]);
    time_to_lock(&agent);
    agent.wait_for_samples(agent.mark(), PATIENCE, 10);
    receiver.wrong_s.store(1, Ordering::Relaxed);
    let mark = agent.mark();
    agent.wait_for_text(mark, PATIENCE, "grandmaster_contradicted");
    let samples = agent.wait_for_samples(agent.mark(), PATIENCE, 20);
    let largest = samples.iter().filter_map(|it| it["offset_ns"].as_i64()).map(i64::abs).max();
    assert!(agent.stop().success(), "{}", agent.last_words());
    figure("pps_wrong_second", json!({"samples": samples.len(), "largest_offset_ns": largest}));
    assert!(largest < Some(1_000_000), "{samples:?}");
}

/// The grandmaster and the pulse are one clock, and the agent's begins ten seconds beside it.
fn numbered_by_ptp() {
    let world = World::new(NOON, 10 * SECOND, 0, Announced::default());
    let line = world.line;
    let raw_ahead = line.served_ns - line.raw_ns;
    let _generator = Generator::start(Shape { raw_ahead_ns: Some(raw_ahead), ..TRUE });
    let file = "/tmp/pps-ptp.toml";
    fs::write(file, "[clock]\nearliest = 2020-01-01\n").expect("a file in /tmp");
    let arguments = [
        "--config", file, "run", "-i", "ptp0", "--follow", "pps", "--pps", DEVICE, "--clock",
        "virtual",
    ];
    let arguments = [&arguments[..], &KNOWN].concat();
    let mut agent = Agent::start_only(&world.wire.client, &arguments);
    let lock_s = time_to_lock(&agent);
    let samples = agent.wait_for_samples(agent.mark(), PATIENCE, 20);
    assert!(agent.stop().success(), "{}", agent.last_words());
    let largest = samples.iter().filter_map(|it| it["offset_ns"].as_i64()).map(i64::abs).max();
    figure("pps_numbered_by_ptp", json!({"time_to_lock_s": lock_s, "largest_offset_ns": largest}));
    assert!(samples.iter().all(|it| it["source"] == "pps"), "{samples:?}");
    assert!(largest < Some(1_000_000), "{samples:?}");
}

/// ts2phc's job, through the host's clock: a virtual clock over the emulated card's.
fn hardware() {
    reset(LATER);
    let _ = fs::write("/sys/class/ptp/ptp0/n_vclocks", "1");
    let device = "/dev/ptp1";
    let _generator = Generator::start(TRUE);
    let receiver = Receiver::start(None);
    let mut agent = follow(&format!("phc:{device}"), Some(&receiver.path), &[]);
    let lock_s = time_to_lock(&agent);
    agent.wait_for_samples(agent.mark(), PATIENCE, 30);
    let compare = agent_command(&["phc", "cmp", device, "--count", "20"]);
    let (status, said, log) = run_long(compare);
    assert!(agent.stop().success(), "{}", agent.last_words());
    assert!(status.success(), "{log}");
    let lines = said.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    let offsets: Vec<i64> = lines.filter_map(|line| line["offset_ns"].as_i64()).collect();
    figure("pps_follow_phc", json!({"time_to_lock_s": lock_s, "offsets_ns": offsets}));
    assert!(offsets.len() == 20 && offsets.iter().all(|it| it.abs() < 60_000), "{offsets:?}");
}

fn refused() {
    let refuses = |arguments: &[&str], word: &str| {
        let (status, _, log) = run_to_end(agent_command(arguments));
        assert!(!status.success() && log.contains(word), "{arguments:?}: {log}");
    };
    let (status, said, log) = run_to_end(agent_command(&["phc", "pins", "/dev/ptp0"]));
    assert!(status.success(), "{log}");
    let signals: Value =
        said.lines().next().and_then(|line| serde_json::from_str(line).ok()).unwrap_or_default();
    figure("phc_signals", signals.clone());
    if signals["outputs"] == 0 {
        refuses(&["phc", "perout", "/dev/ptp0"], "0 channels");
    }
    if signals["inputs"] == 0 {
        refuses(&["phc", "extts", "/dev/ptp0"], "0 channels");
        refuses(&["pps", "phc:/dev/ptp0", "--duration", "1"], "does not stamp edges");
    }
    refuses(&["pps", "/dev/pps7", "--duration", "1"], "/dev/pps7");
    refuses(&["run", "--follow", "pps"], "--pps");
    let (status, ..) = run_to_end(agent_command(&["pps", "/dev/null", "--duration", "1"]));
    assert_eq!(status.code(), Some(3), "something is missing on the host");
    let silent = agent_command(&["pps", DEVICE, "--duration", "3"]);
    let (status, _, log) = run_to_end(silent);
    assert!(!status.success() && log.contains("no pulse"), "{log}");
}
