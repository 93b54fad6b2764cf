//! What an attacker reaches: an agent and ptp4l beside it, both behind one switch with a grandmaster that keeps
//! the host's own time, and somebody who begins after ten seconds of peace: beside the path (`injector`), in it (`man`), or at
//! the grandmaster's own source of time. All share one kernel clock, so that a clock's distance from it is its error.
//! `attacks [--together N] [SECONDS [NAME...]]`: how many at once, how long each lasts, and which. One line
//! of JSON for each: displacement of both, whether the agent's bound held, seconds to its alarms and to its
//! recovery. ptp4l runs free: what it would have steered by is its displacement. Needs root and linuxptp; the
//! one that `cargo xtask setup --peers` unpacks is taken where it is there.

use std::{
    env, fs,
    net::Ipv4Addr,
    os::unix::fs::PermissionsExt as _,
    path::Path,
    process::ExitCode,
    sync::atomic::{AtomicBool, AtomicUsize, Ordering},
    thread,
    time::{Duration, Instant},
};

use bpf_tests::{
    agent::Agent,
    children::Line,
    clocks::{Look, processor_ns},
    links::{Star, mac},
    ptp4l::{Ptp4l, authenticating},
};
use ptp_agent::lab::netns::Namespace;
use ptp_clock_reader::PtpClock;
use serde_json::{Map, Value, json};

mod frame;
mod injector;
mod man;

use injector::Injector;
use man::Man;

const PATIENCE: Duration = Duration::from_secs(60);
/// Between two looks at the clocks.
const LOOK: Duration = Duration::from_millis(20);
/// Of this, and of the quiet network's worst, nobody can be told from noise, ns.
const NOISE_NS: i64 = 20_000;
/// Before the attack and after it.
const BEFORE: Duration = Duration::from_secs(10);
const AFTER: Duration = Duration::from_secs(30);
pub(crate) const GRANDMASTER: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);
const AGENT: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 2);
const ATTACKER: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 4);
const KEYS: &str = "[security_association]\nspp 1\n\
    3 SHA256-128 HEX:F8ADC6B8B8E9AA709106BA42481EC9E29607334DE2C3C737A11A12931DB27F8C\n";
const SERVE: &str =
    "serve --log-sync-interval -3 --log-announce-interval 0 --log-min-delay-req-interval -3";

/// Where he is.
#[derive(Clone, Copy)]
enum Way {
    Beside(injector::Trick),
    Between(man::Trick),
    /// The grandmaster's own time is moved by so many seconds.
    Source(&'static str),
}

/// What the agent was told beforehand.
#[derive(Clone, Copy)]
enum Told {
    Nothing,
    /// Options of `run`.
    Options(&'static str),
    /// The grandmaster is the only one that is acceptable.
    Acceptable,
    /// All have keys and require them.
    Keys,
    /// To ask the grandmaster for unicast messages, which it grants beside multicast.
    Unicast,
    /// Two more domains with other grandmasters, and the majority is followed.
    Witnesses,
}

struct Attack {
    name: &'static str,
    /// Of RFC 7384.
    threat: &'static str,
    way: Way,
    told: Told,
}

const fn attack(name: &'static str, threat: &'static str, way: Way) -> Attack {
    Attack { name, threat, way, told: Told::Nothing }
}

const fn told(name: &'static str, threat: &'static str, way: Way, told: Told) -> Attack {
    Attack { name, threat, way, told }
}

use Way::{Beside, Between, Source};

const UNPINNED: Told = Told::Options("--no-pin-parent");
const HOLDOVER: Told = Told::Options("--on-disagreement holdover");

const ATTACKS: [Attack; 43] = [
    attack("none", "-", Beside(injector::nothing)),
    told("none_signed", "-", Beside(injector::nothing), Told::Keys),
    attack("none_through_a_man", "-", Between(|_, _, _| man::Fate::Pass)),
    attack("man_moves_time", "3.2.1", Between(man::move_time)),
    told("man_moves_time_signed", "3.2.1", Between(man::move_time), Told::Keys),
    attack("man_lies_now_and_then", "3.2.1", Between(man::lie_now_and_then)),
    attack("man_pulls_by_correction", "3.2.1", Between(man::pull_by_correction)),
    told("man_pulls_by_correction_signed", "3.2.1", Between(man::pull_by_correction), Told::Keys),
    attack("man_flips_announce", "3.2.1", Between(man::flip_announce)),
    attack("announce_flipped", "3.2.1", Beside(injector::announce_flipped)),
    attack("sync_spoofed", "3.2.2", Beside(injector::sync_spoofed)),
    told("sync_spoofed_unpinned", "3.2.2", Beside(injector::sync_spoofed), UNPINNED),
    attack("sync_forged", "3.2.2", Beside(injector::sync_forged)),
    attack("pair_forged", "3.2.2", Beside(injector::pair_forged)),
    attack("pair_forged_late", "3.2.2", Beside(injector::pair_forged_late)),
    told("pair_forged_late_signed", "3.2.2", Beside(injector::pair_forged_late), Told::Keys),
    attack("follow_up_spoofed", "3.2.2", Beside(injector::follow_up_spoofed)),
    attack("follow_up_forged", "3.2.2", Beside(injector::follow_up_forged)),
    attack("delay_resp_spoofed", "3.2.2", Beside(injector::delay_resp_spoofed)),
    attack("delay_resp_forged", "3.2.2", Beside(injector::delay_resp_forged)),
    attack("ghost_sync", "3.2.2", Beside(injector::ghosts)),
    attack("management_forged", "3.2.2", Beside(injector::management_forged)),
    attack("sync_replayed", "3.2.3", Beside(injector::sync_replayed)),
    attack("man_replays", "3.2.3", Between(man::replay)),
    told("man_replays_signed", "3.2.3", Between(man::replay), Told::Keys),
    attack("rogue_announce_twice", "3.2.4", Beside(injector::rogue_twice)),
    attack("rogue_master", "3.2.4", Beside(injector::rogue_master)),
    told("rogue_master_acceptable", "3.2.4", Beside(injector::rogue_master), Told::Acceptable),
    told("rogue_master_holdover", "3.2.4", Beside(injector::rogue_master), HOLDOVER),
    told("rogue_master_signed", "3.2.4", Beside(injector::rogue_master), Told::Keys),
    attack("man_removes_sync", "3.2.5", Between(man::remove_sync)),
    attack("man_removes_answers", "3.2.5", Between(man::remove_answers)),
    attack("man_removes_announce", "3.2.5", Between(man::remove_announce)),
    attack("man_removes_all", "3.2.5", Between(man::remove_all)),
    attack("man_holds_sync", "3.2.6", Between(man::hold_sync)),
    attack("man_holds_requests", "3.2.6", Between(man::hold_requests)),
    attack("man_pulls_by_hold", "3.2.6", Between(man::pull_by_hold)),
    attack("noise_flood", "3.2.7", Beside(injector::noise)),
    told("unsigned_flood", "3.2.8", Beside(injector::unsigned_flood), Told::Keys),
    attack("many_masters", "3.2.9", Beside(injector::many_masters)),
    attack("announce_fast", "3.2.9", Beside(injector::announce_fast)),
    told("grants_forged", "3.2.9", Beside(injector::grants_forged), Told::Unicast),
    told("time_source_witnessed", "3.2.10", Source("0.001"), Told::Witnesses),
];

/// What was seen of the agent's clock in some time.
#[derive(Clone, Copy, Debug, Default)]
struct Seen {
    worst_ns: i64,
    last_bad: Option<Instant>,
    looks: u64,
    out_of_bound: u64,
    /// Of the errors, ns².
    squares: f64,
}

impl Seen {
    /// The agent's clock against the host's.
    fn look(&mut self, page: &PtpClock, quiet_ns: i64) {
        let Some(look) = Look::at(page) else {
            self.last_bad = Some(Instant::now());
            return;
        };
        let error = look.error_ns;
        self.looks += 1;
        self.squares += (error as f64) * (error as f64);
        self.worst_ns = if error.abs() > self.worst_ns.abs() { error } else { self.worst_ns };
        self.out_of_bound += u64::from(!look.is_within());
        if error.abs() > quiet_ns + NOISE_NS {
            self.last_bad = Some(Instant::now());
        }
    }
}

/// Of the grandmaster.
const fn interface(attack: &Attack) -> &'static str {
    match attack.way {
        Between(_) => "gm0",
        _ => "eth0",
    }
}

/// The nodes of one measurement, in the order in which they end.
struct Nodes {
    agent: Agent,
    ptp4l: Ptp4l,
    servers: Vec<Agent>,
}

fn start(namespace: &Namespace, words: &str) -> Agent {
    Agent::start(namespace, &words.split_whitespace().collect::<Vec<_>>())
}

impl Nodes {
    fn start(
        star: &Star,
        grandmaster: &Namespace,
        attack: &Attack,
        directory: &Path,
    ) -> Result<Self, String> {
        let keys = directory.join("keys");
        fs::write(&keys, KEYS).map_err(|error| error.to_string())?;
        let mode = fs::Permissions::from_mode(0o600);
        fs::set_permissions(&keys, mode).map_err(|error| error.to_string())?;
        let keys = keys.display();
        let with_keys = format!("--security {keys} --security-require");
        let is_signed = matches!(attack.told, Told::Keys);
        let signed = if is_signed { with_keys.as_str() } else { "" };
        let own_time =
            if matches!(attack.way, Source(_)) { "--clock virtual --offset 0" } else { "" };
        let is_unicast = matches!(attack.told, Told::Unicast);
        let grants = if is_unicast { "--unicast also" } else { "" };
        let mut servers = vec![start(
            grandmaster,
            &format!("{SERVE} -i {} {signed} {own_time} {grants}", interface(attack)),
        )];
        if matches!(attack.told, Told::Witnesses) {
            for (leaf, domain) in star.leaves[4..].iter().zip(1..) {
                servers.push(start(leaf, &format!("{SERVE} -i eth0 --domain {domain}")));
            }
        }
        let mut options = match attack.told {
            Told::Nothing => String::new(),
            Told::Options(options) => options.to_owned(),
            Told::Keys => with_keys.clone(),
            Told::Unicast => format!("--unicast {GRANDMASTER} --log-sync-interval -3"),
            Told::Witnesses => "--witness-domains 1,2 --on-disagreement follow-majority".to_owned(),
            Told::Acceptable => {
                let identity = servers[0].wait_for(0, PATIENCE, "identity", |line| {
                    let rest = line.text.split(" identity=").nth(1)?;
                    Some(
                        rest.split(|c: char| c != '.' && !c.is_ascii_hexdigit()).next()?.to_owned(),
                    )
                });
                let config = directory.join("config.toml");
                let text = format!("[run]\nacceptable-masters = [\"{identity}\"]\n");
                fs::write(&config, text).map_err(|error| error.to_string())?;
                format!("--config {}", config.display())
            }
        };
        if options == "--no-pin-parent" {
            let config = directory.join("config.toml");
            fs::write(&config, "[run]\npin-parent = false\n").map_err(|error| error.to_string())?;
            options = format!("--config {}", config.display());
        }
        let page = directory.join("page");
        let run = format!("run -i eth0 --clock virtual --page {} {options}", page.display());
        let agent = start(&star.leaves[1], &run);
        // Its own defaults, but for what lets it print every measurement.
        let client = "slaveOnly 1\nsummary_interval -4\nfreq_est_interval 0\n";
        let security = format!("sa_file {keys}\nspp 1\nactive_key_id 3\n");
        let options = [client, if is_signed { security.as_str() } else { "" }];
        let beside = &star.leaves[2];
        let ptp4l = match authenticating(beside, "ptp4l") {
            Ok(_) => Ptp4l::start_authenticating(beside, &["eth0"], &options)?,
            Err(_) => Ptp4l::start(beside, &["eth0"], &options)?,
        };
        agent.wait_for_state(0, PATIENCE, "time_receiver");
        // Behind a man it refuses even what he leaves alone ("auth: bad message"), and has no offset.
        if !is_signed || !matches!(attack.way, Between(_)) {
            let is_offset = |line: &Line| line.text.contains("master offset").then_some(());
            ptp4l.wait_for(0, PATIENCE, "offset", is_offset);
        }
        Ok(Self { agent, ptp4l, servers })
    }
}

fn measure(attack: &Attack, span: Duration) -> Result<Value, String> {
    let star = Star::new(if matches!(attack.told, Told::Witnesses) { 6 } else { 4 })?;
    let man = matches!(attack.way, Between(_)).then(|| Man::new(&star)).transpose()?;
    let grandmaster = man.as_ref().map_or(&star.leaves[0], |man| &man.grandmaster);
    let directory = tempfile::tempdir().map_err(|error| error.to_string())?;
    let mut nodes = Nodes::start(&star, grandmaster, attack, directory.path())?;
    let page = PtpClock::open(directory.path().join("page")).map_err(|error| error.to_string())?;

    let mut quiet = Seen::default();
    let begun = Instant::now();
    while begun.elapsed() < BEFORE {
        thread::sleep(LOOK);
        quiet.look(&page, i64::MAX / 2);
    }
    let (measured, cpu_before) = (Instant::now(), processor_ns(nodes.agent.pid()));
    let (mark, before) = (nodes.agent.mark(), nodes.ptp4l.offsets().len());
    let victim = (AGENT, mac(&star.leaves[1], "eth0"));
    let injector = Injector::new(&star.leaves[3], ATTACKER, victim)?;
    let is_over = AtomicBool::new(false);
    let (mut during, mut after) = (Seen::default(), Seen::default());
    let mut alarms: Map<String, Value> = Map::new();
    let begun = Instant::now();
    thread::scope(|scope| {
        match attack.way {
            Beside(trick) => {
                let (injector, is_over) = (&injector, &is_over);
                scope.spawn(move || trick(injector, is_over));
            }
            Between(trick) => man.iter().for_each(|man| man.begin(trick)),
            Source(offset) => {
                nodes.servers[0].finish();
                let moved = format!("{SERVE} -i eth0 --clock virtual --offset {offset}");
                nodes.servers[0] = start(grandmaster, &moved);
            }
        }
        while begun.elapsed() < span {
            thread::sleep(LOOK);
            during.look(&page, quiet.worst_ns.abs());
            let lines = nodes.agent.lines();
            for line in lines[mark..].iter().filter(|line| line.text.contains("alarm raised")) {
                let seconds = (begun.elapsed().as_secs_f64() * 10.0).round() / 10.0;
                alarms.entry(name_of(&line.text)).or_insert(seconds.into());
            }
        }
        is_over.store(true, Ordering::Relaxed);
    });
    match attack.way {
        Between(_) => man.iter().for_each(Man::cease),
        Source(_) => {
            nodes.servers[0].finish();
            nodes.servers[0] =
                start(grandmaster, &format!("{SERVE} -i eth0 --clock virtual --offset 0"));
        }
        Beside(_) => {}
    }
    let ended = Instant::now();
    while ended.elapsed() < AFTER {
        thread::sleep(LOOK);
        after.look(&page, quiet.worst_ns.abs());
    }
    let offsets = nodes.ptp4l.offsets();
    let theirs = offsets[before.min(offsets.len())..].iter().max_by_key(|offset| offset.abs());
    let recovery = after.last_bad.map_or(0.0, |bad| (bad - ended).as_secs_f64());
    let first = alarms.iter().min_by(|one, other| {
        one.1.as_f64().unwrap_or(f64::MAX).total_cmp(&other.1.as_f64().unwrap_or(f64::MAX))
    });
    let worst = [during.worst_ns, after.worst_ns].into_iter().max_by_key(|worst| worst.abs());
    let (looks, squares) = (during.looks + after.looks, during.squares + after.squares);
    let row = json!({
        "event": "bench",
        "name": attack.name,
        "threat": attack.threat,
        "quiet_ns": quiet.worst_ns,
        "displacement_ns": worst,
        "rms_ns": (squares / looks.max(1) as f64).sqrt(),
        "cpu_ns_per_s": (processor_ns(nodes.agent.pid()).saturating_sub(cpu_before)) as f64 / measured.elapsed().as_secs_f64(),
        "looks": looks,
        "outside_bound": during.out_of_bound + after.out_of_bound,
        "alarm": first.map(|(name, _)| name),
        "alarm_s": first.map(|(_, after)| after),
        "alarms": alarms,
        "recovery_s": recovery,
        "ptp4l_displacement_ns": theirs,
        "ptp4l_n": offsets.len() - before.min(offsets.len()),
    });
    nodes.agent.finish();
    nodes.servers.iter_mut().for_each(|server| drop(server.finish()));
    Ok(row)
}

fn name_of(line: &str) -> String {
    let name = line.split("alarm=\"").nth(1).and_then(|rest| rest.split('"').next());
    name.unwrap_or("?").to_owned()
}

fn main() -> ExitCode {
    let mut words: Vec<String> = env::args().skip(1).collect();
    let mut together = 1;
    if words.first().is_some_and(|word| word == "--together") && words.len() > 1 {
        together = words[1].parse().unwrap_or(1);
        words.drain(..2);
    }
    let seconds = words.first().and_then(|text| text.parse().ok()).unwrap_or(25);
    let names = words.get(1..).unwrap_or_default();
    let wanted: Vec<&Attack> = ATTACKS
        .iter()
        .filter(|attack| names.is_empty() || names.iter().any(|name| name == attack.name))
        .collect();
    let (next, bad) = (AtomicUsize::new(0), AtomicUsize::new(0));
    thread::scope(|scope| {
        for _ in 0..together {
            scope.spawn(|| {
                while let Some(attack) = wanted.get(next.fetch_add(1, Ordering::Relaxed)) {
                    match measure(attack, Duration::from_secs(seconds)) {
                        Ok(row) => {
                            let is_bad = row["outside_bound"] != 0;
                            bad.fetch_add(usize::from(is_bad), Ordering::Relaxed);
                            println!("{row}");
                        }
                        Err(reason) => {
                            bad.fetch_add(1, Ordering::Relaxed);
                            eprintln!("attacks: {}: {reason}", attack.name);
                        }
                    }
                }
            });
        }
    });
    if bad.into_inner() == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
