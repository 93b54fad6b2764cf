//! What authentication costs a message in practice, and whether it changes the error of time: a grandmaster and a
//! follower with keys that are required, and two without, each pair on a wire of its own, at once and under the same load.
//! `authenticated [SECONDS [ROUNDS]]`: how long each round lasts after both have locked. A line of JSON for each round and
//! one for the medians of all. Both pairs share the host's clock, so a follower's distance from it is its error.
//! Needs root.

use std::{
    env, fs,
    os::unix::fs::PermissionsExt as _,
    path::Path,
    process::ExitCode,
    thread,
    time::{Duration, Instant},
};

use bpf_tests::{
    agent::Agent,
    clocks::{Look, processor_ns},
    links::Wire,
};
use ptp_clock_reader::PtpClock;
use serde_json::{Value, json};

/// From the lock on, until the servo knows its link.
const SETTLING: Duration = Duration::from_secs(8);
const PATIENCE: Duration = Duration::from_secs(40);
/// Between two looks at the clocks.
const LOOK: Duration = Duration::from_millis(10);
/// A hundred and more of everything in a second, so that the processor's time is that of the messages.
const LOG_INTERVAL: &str = "-7";
/// Sync, Follow_Up, Delay_Req and Delay_Resp: each agent handles all four.
const MESSAGES: f64 = 4.0;
const KEYS: &str = "[security_association]\nspp 1\n\
    3 SHA256-128 HEX:F8ADC6B8B8E9AA709106BA42481EC9E29607334DE2C3C737A11A12931DB27F8C\n";
const KINDS: [&str; 2] = ["plain", "signed"];

/// A grandmaster and who follows it.
struct Pair {
    server: Agent,
    follower: Agent,
    page: PtpClock,
    _wire: Wire,
}

/// What a pair has cost and how true it was.
#[derive(Clone, Copy, Default)]
struct Figures {
    server_us: f64,
    follower_us: f64,
    mean_ns: f64,
    sd_ns: f64,
    outside: u64,
    looks: u64,
}

impl Pair {
    fn start(directory: &Path, kind: &str, keys: Option<&Path>) -> Result<Self, String> {
        let wire = Wire::new()?;
        let security = keys.map_or(String::new(), |keys| {
            format!("--security {} --security-require", keys.display())
        });
        let start = |namespace, words: String| {
            Agent::start(namespace, &words.split_whitespace().collect::<Vec<_>>())
        };
        // The kernel has no keys and answers no signed request: so it answers for neither.
        let server = start(
            &wire.grandmaster,
            format!(
                "serve -i gm0 --kernel-answers off --log-announce-interval 0 --status-socket none \
                 --log-sync-interval {LOG_INTERVAL} --log-min-delay-req-interval {LOG_INTERVAL} {security}"
            ),
        );
        let page = directory.join(kind);
        let follower = start(
            &wire.client,
            format!(
                "run -i ptp0 --clock virtual --status-socket none --page {} {security}",
                page.display()
            ),
        );
        follower.wait_for_sample(0, PATIENCE, "lock", |sample| sample["state"] == "locked");
        let page = PtpClock::open(page).map_err(|error| error.to_string())?;
        Ok(Self { server, follower, page, _wire: wire })
    }
}

/// Both at once.
fn measure(pairs: &[Pair; 2], span: Duration) -> [Figures; 2] {
    let spent = || {
        [0, 1].map(|at: usize| {
            [&pairs[at].server, &pairs[at].follower].map(|agent| processor_ns(agent.pid()))
        })
    };
    let marks = [0, 1].map(|at: usize| pairs[at].follower.mark());
    let before = spent();
    let mut errors = [Vec::new(), Vec::new()];
    let mut outside = [0; 2];
    let begun = Instant::now();
    while begun.elapsed() < span {
        thread::sleep(LOOK);
        for at in [0, 1] {
            if let Some(look) = Look::at(&pairs[at].page) {
                errors[at].push(look.error_ns as f64);
                outside[at] += u64::from(!look.is_within());
            }
        }
    }
    let after = spent();
    [0, 1].map(|at: usize| {
        let messages = MESSAGES * pairs[at].follower.samples(marks[at]).len().max(1) as f64;
        let us = |agent: usize| {
            after[at][agent].saturating_sub(before[at][agent]) as f64 / 1e3 / messages
        };
        let n = errors[at].len().max(1) as f64;
        let mean_ns = errors[at].iter().sum::<f64>() / n;
        let squares: f64 = errors[at].iter().map(|error| (error - mean_ns).powi(2)).sum();
        Figures {
            server_us: us(0),
            follower_us: us(1),
            mean_ns,
            sd_ns: (squares / n).sqrt(),
            outside: outside[at],
            looks: errors[at].len() as u64,
        }
    })
}

fn line(name: &str, [plain, signed]: [Figures; 2], rounds: usize) -> Value {
    let pair = |of: fn(&Figures) -> f64| json!({"plain": of(&plain), "signed": of(&signed)});
    let ratio = |of: fn(&Figures) -> f64| of(&signed) / of(&plain);
    json!({
        "event": "bench", "name": name, "rounds": rounds,
        "serve_us_per_message": pair(|it| it.server_us), "serve_ratio": ratio(|it| it.server_us),
        "run_us_per_message": pair(|it| it.follower_us), "run_ratio": ratio(|it| it.follower_us),
        "error_mean_ns": pair(|it| it.mean_ns), "error_sd_ns": pair(|it| it.sd_ns),
        "outside_bound": {"plain": plain.outside, "signed": signed.outside},
        "looks": {"plain": plain.looks, "signed": signed.looks},
    })
}

fn median(rounds: &[[Figures; 2]], at: usize) -> Figures {
    let of = |figure: fn(&Figures) -> f64| {
        let mut values: Vec<f64> = rounds.iter().map(|round| figure(&round[at])).collect();
        values.sort_by(f64::total_cmp);
        values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
    };
    Figures {
        server_us: of(|it| it.server_us),
        follower_us: of(|it| it.follower_us),
        mean_ns: of(|it| it.mean_ns),
        sd_ns: of(|it| it.sd_ns),
        outside: rounds.iter().map(|round| round[at].outside).sum(),
        looks: rounds.iter().map(|round| round[at].looks).sum(),
    }
}

fn all(span: Duration, count: usize) -> Result<(), String> {
    let directory = tempfile::tempdir().map_err(|error| error.to_string())?;
    let keys = directory.path().join("keys");
    let mode = fs::Permissions::from_mode(0o600);
    fs::write(&keys, KEYS)
        .and_then(|()| fs::set_permissions(&keys, mode))
        .map_err(|error| error.to_string())?;
    let mut rounds = Vec::new();
    for number in 0..count {
        let with = |at: usize| {
            let keys = (at == 1).then_some(keys.as_path());
            Pair::start(directory.path(), &format!("{}{number}", KINDS[at]), keys)
        };
        // In turns, for whoever is first might have it better.
        let mut pairs = if number % 2 == 0 {
            let plain = with(0)?;
            [plain, with(1)?]
        } else {
            let signed = with(1)?;
            [with(0)?, signed]
        };
        thread::sleep(SETTLING);
        let round = measure(&pairs, span);
        println!("{}", line("authentication_round", round, 1));
        rounds.push(round);
        for pair in &mut pairs {
            pair.follower.finish();
            pair.server.finish();
        }
    }
    println!("{}", line("authentication", [0, 1].map(|at| median(&rounds, at)), count));
    Ok(())
}

fn main() -> ExitCode {
    let number = |at: usize| env::args().nth(at).and_then(|text| text.parse::<u64>().ok());
    let (seconds, rounds) = (number(1).unwrap_or(20), number(2).unwrap_or(5));
    match all(Duration::from_secs(seconds), rounds as usize) {
        Ok(()) => ExitCode::SUCCESS,
        Err(reason) => {
            eprintln!("authenticated: {reason}");
            ExitCode::FAILURE
        }
    }
}
