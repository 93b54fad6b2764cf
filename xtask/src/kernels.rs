//! `cargo xtask test kernels`: the agent on Debian's kernels from the oldest supported to the newest,
//! each in an emulated machine, where the system's clock may be steered and nothing of the host is
//! touched. Needs neither root nor installed packages: kernels and, unless it is installed, the
//! emulator are downloaded as Debian packages and unpacked in the user's cache. What the guests say
//! about their kernels is compared with the table in the documents.

pub(crate) mod foreign;
mod image;
mod kernel;
mod qemu;
mod table;
mod vmlinux;

use std::{
    env,
    ffi::OsString,
    fs::{self, File},
    io::Write as _,
    path::{Path, PathBuf},
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail, ensure};
use serde::Deserialize;

use self::{
    image::Image,
    kernel::{Build, Kernel, SUITES, Series},
    qemu::{Ended, Guest, Qemu, Time},
    table::{Facts, Table},
};
use crate::{
    apt::Apt,
    machine::Machine,
    process::{cargo, target_directory},
};

/// Guests at a time.
const AT_A_TIME: usize = 2;
/// How long a guest may take on the host's clock.
const LIMIT: Duration = Duration::from_secs(1_200);
/// Modules that the tests need, where they are modules.
const MODULES: [&str; 20] = [
    // What libcrc32c looks for and does not name.
    "crc32c_generic",
    "veth",
    "sch_ingress",
    "sch_tbf",
    "nft_flow_offload",
    "nf_flow_table_inet",
    "nft_counter",
    "cls_bpf",
    "8021q",
    "cls_matchall",
    "act_mirred",
    "macvlan",
    "tun",
    "bridge",
    "virtio_pci",
    "virtio_net",
    "igb",
    "e1000e",
    "parport_pc",
    "pps_parport",
];
/// What the two guests on a wire are called in the filter.
const WIRE: &str = "wire";
/// What the three guests are called, two of which are behind a bridge of the third.
const SWITCH: &str = "switch";
/// What the guest with a network card that has a clock is called.
const CARD: &str = "phc";
/// What the guest with a pulse per second is called: a parallel port whose interrupt the kernel stamps.
const PULSE: &str = "pps";
/// What the guest with two cards that stamp by themselves is called.
const HARDWARE: &str = "hardware";
/// What the guest with pairs of network cards that are joined is called: virtual time, one clock at both ends.
pub(crate) const CARDS: &str = "cards";
/// What the guest is called that has the newest kernel and a card: it is told by ethtool's netlink messages what to stamp.
const NETLINK: &str = "nic";
/// Their models, as QEMU calls them.
const MODELS: [&str; 3] = ["virtio-net-pci", "e1000e", "igb"];
/// Their kernel.
const CARD_SERIES: Series = Series::LongTerm("6.12");
/// Test programs of this workspace that are also run in the guests.
const TESTS: [&str; 1] = ["attach"];
/// Programs of this machine that the tests use.
const TOOLS: [&str; 6] = ["ptp4l", "phc2sys", "phc_ctl", "ip", "tc", "nft"];

/// What there is to boot, all of it on this machine.
pub(crate) struct Ready {
    kernels: Vec<(Series, Kernel)>,
    /// With a driver of the network card with a clock that QEMU has.
    card: Option<Kernel>,
    /// The same, the newest.
    newest_card: Option<Kernel>,
    /// Why there are not more kernels.
    pub(crate) missing: Vec<String>,
    qemu: Qemu,
}

/// Downloads what is missing.
///
/// Fails where no guest can be run at all.
pub(crate) fn prepare() -> Result<Ready> {
    if env::consts::ARCH != "x86_64" {
        bail!("the guests run programs of this machine, which is no x86-64 one");
    }
    let cache = cache()?;
    fs::create_dir_all(&cache).with_context(|| format!("cannot make {}", cache.display()))?;
    // Several checkouts share it.
    let lock = File::create(cache.join("lock")).context("cannot write to the cache")?;
    lock.lock().context("cannot lock the cache")?;
    let apt = Apt::open(&cache.join("apt-kernels"), &SUITES)?;
    let qemu = Qemu::get(&cache, Machine::X86).context("no emulator")?;
    println!("  QEMU {}", qemu.version);
    let mut kernels = Vec::new();
    let mut missing = Vec::new();
    for series in Series::ALL {
        match Kernel::get(&apt, &cache, series, Build::Cloud) {
            Ok(kernel) => kernels.push((series, kernel)),
            Err(error) => missing.push(format!("kernel {}: {error:#}", series.name())),
        }
    }
    let card = Kernel::get(&apt, &cache, CARD_SERIES, Build::Full)
        .inspect_err(|error| missing.push(format!("kernel with drivers: {error:#}")))
        .ok();
    let newest_card = Kernel::get(&apt, &cache, Series::Newest, Build::Full)
        .inspect_err(|error| missing.push(format!("newest kernel with drivers: {error:#}")))
        .ok();
    ensure!(!kernels.is_empty(), "no kernels: {}", missing.join("; "));
    Ok(Ready { kernels, card, newest_card, missing, qemu })
}

/// Boots guests, those named in `filter` or all, and shows what they print, each line behind the name of its kernel, to `on_line`.
/// Returns whether the documents' table is as the guests say; with `update`, it is then.
pub(crate) fn run(
    ready: &Ready,
    filter: &[OsString],
    update: bool,
    on_line: impl FnMut(&str) + Send,
) -> Result<()> {
    let programs = programs()?;
    let directory = target_directory().join("kernels");
    fs::create_dir_all(&directory).context("cannot make a directory in the target directory")?;
    let base = base_image(&programs)?;
    let on_line = Mutex::new(on_line);
    let facts: Mutex<Facts> = Mutex::default();
    let show = |guest: &str, line: &str| {
        let mut on_line = on_line.lock().unwrap_or_else(PoisonError::into_inner);
        (*on_line)(&with_name(guest, line));
    };
    let lab = Lab { ready, base: &base, directory: &directory, show: &show, limit: LIMIT };
    let wanted = |name: &str| filter.is_empty() || filter.iter().any(|word| word == name);
    let series = ready.kernels.iter().map(|(series, kernel)| (What::Kernel(*series), kernel));
    let with_cards = [What::Clock, What::Pulse, What::Hardware, What::Cards];
    let card =
        ready.card.iter().flat_map(|kernel| with_cards.into_iter().map(move |it| (it, kernel)));
    let newest = ready.newest_card.iter().map(|kernel| (What::Netlink, kernel));
    // The longest first.
    let queue =
        Mutex::new(card.chain(series).chain(newest).filter(|(what, _)| wanted(what.name())));
    let work = || -> Result<()> {
        loop {
            let next = queue.lock().unwrap_or_else(PoisonError::into_inner).next();
            match next {
                Some((What::Kernel(series), kernel)) => lab.test_kernel(series, kernel, &facts)?,
                Some((What::Clock, kernel)) => lab.test_card(CARD, kernel)?,
                Some((What::Netlink, kernel)) => lab.test_card(NETLINK, kernel)?,
                Some((What::Pulse, kernel)) => lab.test_pulse(kernel)?,
                Some((What::Cards, kernel)) => lab.test_cards(CARDS, &MODELS, kernel)?,
                Some((What::Hardware, kernel)) => lab.test_cards(HARDWARE, &["igb"], kernel)?,
                None => return Ok(()),
            }
        }
    };
    thread::scope(|scope| {
        let workers: Vec<_> = (0..AT_A_TIME).map(|_| scope.spawn(work)).collect();
        let results = workers
            .into_iter()
            .map(|worker| worker.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)));
        results.collect::<Result<()>>()
    })?;
    if wanted(WIRE) {
        lab.test_wire()?;
    }
    if wanted(SWITCH) {
        lab.test_switch()?;
    }
    let facts = facts.into_inner().unwrap_or_else(PoisonError::into_inner);
    table::check(&Table::of_kernels(), &facts, update)
}

/// What a guest is for.
#[derive(Clone, Copy, Debug)]
enum What {
    Kernel(Series),
    Clock,
    Pulse,
    Hardware,
    Cards,
    Netlink,
}

impl What {
    const fn name(self) -> &'static str {
        match self {
            Self::Kernel(series) => series.name(),
            Self::Clock => CARD,
            Self::Pulse => PULSE,
            Self::Hardware => HARDWARE,
            Self::Cards => CARDS,
            Self::Netlink => NETLINK,
        }
    }
}

/// What all guests have in common.
struct Lab<'a> {
    ready: &'a Ready,
    /// The file system, without modules.
    base: &'a [u8],
    /// For files and logs of the guests.
    directory: &'a Path,
    /// Shows a line of a guest.
    show: &'a (dyn Fn(&str, &str) + Sync),
    /// How long a guest may take on the host's clock.
    limit: Duration,
}

/// One guest.
struct Job<'a> {
    name: &'a str,
    kernel: &'a Kernel,
    tests: &'a [&'a str],
    devices: &'a [String],
    time: Time,
    stop: &'a AtomicBool,
}

impl Lab<'_> {
    /// Everything that one guest can test.
    fn test_kernel(&self, series: Series, kernel: &Kernel, facts: &Mutex<Facts>) -> Result<()> {
        let mut tests = vec!["capture", "follow", "clock"];
        let programs: Vec<String> = TESTS.iter().map(|name| format!("/tests/{name}")).collect();
        tests.extend(programs.iter().map(String::as_str));
        let name = series.name();
        let stop = AtomicBool::new(false);
        let job =
            Job { name, kernel, tests: &tests, devices: &[], time: Time::Virtual, stop: &stop };
        self.boot(&job, &|line| {
            if let Some((fact, value)) = table::fact(line) {
                let mut facts = facts.lock().unwrap_or_else(PoisonError::into_inner);
                facts.insert((name, fact), value);
            }
        })
    }

    /// The clock of an emulated network card; its tests are called as the guest is.
    fn test_card(&self, name: &str, kernel: &Kernel) -> Result<()> {
        let devices = ["-device".to_owned(), "igb,romfile=".to_owned()];
        let stop = AtomicBool::new(false);
        let job = Job {
            name,
            kernel,
            tests: &[name],
            devices: &devices,
            time: Time::Virtual,
            stop: &stop,
        };
        self.boot(&job, &|_| {})
    }

    /// A parallel port that raises its interrupt when it is told to, and a network card with a clock.
    fn test_pulse(&self, kernel: &Kernel) -> Result<()> {
        let devices = [
            "-device",
            "igb,romfile=",
            "-chardev",
            "null,id=port",
            "-device",
            "isa-parallel,chardev=port",
        ];
        let stop = AtomicBool::new(false);
        let job = Job {
            name: PULSE,
            kernel,
            tests: &["pps"],
            devices: &devices.map(str::to_owned),
            time: Time::Virtual,
            stop: &stop,
        };
        self.boot(&job, &|_| {})
    }

    /// Two cards of each model in one guest, joined by a hub; its tests are called as the guest is.
    fn test_cards(&self, name: &str, models: &[&str], kernel: &Kernel) -> Result<()> {
        let mut devices = Vec::new();
        for (hub, model) in models.iter().enumerate() {
            for end in 0..2 {
                let id = format!("hub{hub}end{end}");
                devices.extend(["-netdev".to_owned(), format!("hubport,id={id},hubid={hub}")]);
                let mac = format!("52:54:00:00:{hub:02x}:{end:02x}");
                // A port for each: an igb takes the slots behind its own for its virtual functions.
                let (port, slot) = (format!("port{hub}{end}"), 2 * hub + end + 1);
                let root = format!("pcie-root-port,id={port},chassis={slot},slot={slot}");
                let device = format!("{model},bus={port},netdev={id},mac={mac},romfile=");
                devices.extend(["-device".to_owned(), root, "-device".to_owned(), device]);
            }
        }
        let stop = AtomicBool::new(false);
        let job = Job {
            name,
            kernel,
            tests: &[name],
            devices: &devices,
            time: Time::Virtual,
            stop: &stop,
        };
        self.boot(&job, &|_| {})
    }

    /// Two guests on a wire, with the newest kernel that is there. Their time is the host's, because
    /// two virtual times would not stay together.
    fn test_wire(&self) -> Result<()> {
        let (_, kernel) = self.ready.kernels.last().context("no kernels")?;
        // Not below the target directory: the path of a socket is short.
        let directory = tempfile::tempdir().context("cannot make a directory")?;
        let socket = directory.path().join("wire");
        let card = |is_server: &str, mac: &str| {
            let socket = socket.display();
            [
                "-netdev".to_owned(),
                format!("stream,id=wire,server={is_server},addr.type=unix,addr.path={socket}"),
                "-device".to_owned(),
                format!("virtio-net-pci,netdev=wire,mac={mac},romfile="),
            ]
        };
        let stop = AtomicBool::new(false);
        thread::scope(|scope| {
            let server = scope.spawn(|| {
                let job = Job {
                    name: "server",
                    kernel,
                    tests: &["serve_on_wire"],
                    devices: &card("on", "52:54:00:00:00:01"),
                    time: Time::Host,
                    stop: &stop,
                };
                self.boot(&job, &|_| {})
            });
            let deadline = Instant::now() + Duration::from_secs(10);
            while !socket.exists() && Instant::now() < deadline && !server.is_finished() {
                thread::sleep(Duration::from_millis(50));
            }
            let job = Job {
                name: "client",
                kernel,
                tests: &["follow_on_wire"],
                devices: &card("off", "52:54:00:00:00:02"),
                time: Time::Host,
                stop: &AtomicBool::new(false),
            };
            let client = self.boot(&job, &|_| {});
            stop.store(true, Ordering::Relaxed);
            let server = server.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
            client.and(server)
        })
    }

    /// A grandmaster and a client that know nothing of the agent, each on a virtual wire to a third guest, which
    /// forwards between them. Their time is the host's, as above.
    fn test_switch(&self) -> Result<()> {
        let (_, kernel) = self.ready.kernels.last().context("no kernels")?;
        let directory = tempfile::tempdir().context("cannot make a directory")?;
        let socket = |name: &str| directory.path().join(name);
        let card = |is_server: &str, wire: &str, mac: u8| {
            let path = socket(wire);
            let path = path.display();
            [
                "-netdev".to_owned(),
                format!("stream,id={wire},server={is_server},addr.type=unix,addr.path={path}"),
                "-device".to_owned(),
                format!("virtio-net-pci,netdev={wire},mac=52:54:00:00:01:{mac:02x},romfile="),
            ]
        };
        let stop = AtomicBool::new(false);
        let guest = |name: &str, test: &str, devices: &[String], stop: &AtomicBool| {
            let tests = [test];
            let time = Time::HostExactly;
            let job = Job { name, kernel, tests: &tests, devices, time, stop };
            self.boot(&job, &|_| {})
        };
        let devices = [card("on", "wire1", 1), card("on", "wire2", 2)].concat();
        thread::scope(|scope| {
            let switch = scope.spawn(|| guest(SWITCH, "switch", &devices, &AtomicBool::new(false)));
            let deadline = Instant::now() + Duration::from_secs(10);
            let is_there = || socket("wire1").exists() && socket("wire2").exists();
            while !is_there() && Instant::now() < deadline && !switch.is_finished() {
                thread::sleep(Duration::from_millis(50));
            }
            let server = scope.spawn(|| {
                guest("switch-server", "grandmaster_of_switch", &card("off", "wire1", 3), &stop)
            });
            let client = card("off", "wire2", 4);
            let client =
                guest("switch-client", "client_of_switch", &client, &AtomicBool::new(false));
            let join = |guest: thread::ScopedJoinHandle<'_, Result<()>>| {
                guest.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
            };
            let switch = join(switch);
            stop.store(true, Ordering::Relaxed);
            client.and(switch).and(join(server))
        })
    }

    fn boot(&self, job: &Job<'_>, on_line: &dyn Fn(&str)) -> Result<()> {
        let begun = Instant::now();
        let Job { name, kernel, .. } = *job;
        let initrd = self.directory.join(format!("{name}.cpio"));
        let log = self.directory.join(format!("{name}.log"));
        let mut modules = Image::default();
        modules.add_modules(kernel.modules(&MODULES)?);
        let mut file = File::create(&initrd).context("cannot write the guest's file system")?;
        file.write_all(self.base)?;
        modules.write(&mut file)?;
        drop(file);
        let guest = Guest {
            kernel,
            initrd: &initrd,
            tests: job.tests,
            devices: job.devices,
            time: job.time,
            limit: self.limit,
            stop: job.stop,
            log: &log,
        };
        let ended = self.ready.qemu.run(&guest, |line| {
            on_line(line);
            (self.show)(name, line);
        })?;
        println!("  {name}: {} in {:.1} s", kernel.release, begun.elapsed().as_secs_f64());
        let how = match ended {
            Ended::Well | Ended::Stopped => return Ok(()),
            Ended::Early => "ended before its end".to_owned(),
            Ended::TooLate => format!("did not end within {} s", self.limit.as_secs()),
        };
        println!("  {name}: {how}; everything that it said is in {}", log.display());
        (self.show)(name, "test guest_comes_to_its_end ... FAILED");
        (self.show)(name, "test result: FAILED. 0 passed; 1 failed");
        Ok(())
    }
}

/// A line as a test program prints it, with the kernel's name in front of the test's.
fn with_name(kernel: &str, line: &str) -> String {
    match line.strip_prefix("test ") {
        Some(test) if !test.starts_with("result: ") => format!("test {kernel} {test}"),
        _ => line.to_owned(),
    }
}

/// `$XDG_CACHE_HOME/ptp-agent/kernels`: kept when the target directory is cleaned.
fn cache() -> Result<PathBuf> {
    let base = env::var_os("XDG_CACHE_HOME").map(PathBuf::from).filter(|path| path.is_absolute());
    let base = base.or_else(|| Some(env::home_dir()?.join(".cache")));
    Ok(base.context("neither XDG_CACHE_HOME nor HOME is set")?.join("ptp-agent/kernels"))
}

/// The programs of this workspace that guests run.
struct Programs {
    agent: PathBuf,
    guest: PathBuf,
    tests: Vec<(String, PathBuf)>,
    /// Of the tests, which look for it where it was built.
    helper: PathBuf,
}

#[derive(Deserialize)]
struct Artifact {
    target: Crate,
    profile: Profile,
    executable: Option<PathBuf>,
}

#[derive(Deserialize)]
struct Profile {
    /// Built with the harness of tests: a second build of each binary for its unit tests.
    test: bool,
}

#[derive(Deserialize)]
struct Crate {
    name: String,
    kind: Vec<String>,
}

/// Builds the programs, optimised: an emulated processor is slow.
fn programs() -> Result<Programs> {
    let mut arguments =
        vec!["build", "--profile", "guests", "--package", "ptp-agent", "--package", "bpf-tests"];
    arguments.push("--bins");
    arguments.extend(TESTS.iter().flat_map(|name| ["--test", name]));
    // Shown while it runs; the second time there is nothing to do but to tell the names.
    cargo(arguments.iter().copied()).quietly("build of the programs for the guests")?;
    arguments.extend(["--quiet", "--message-format", "json"]);
    let messages = cargo(arguments).output().context("the programs for the guests do not build")?;
    let built = artifacts(&messages);
    let find = |kind: &str, name: &str| find_artifact(&built, kind, name);
    let tests = TESTS.iter().map(|name| Ok(((*name).to_owned(), find("test", name)?)));
    Ok(Programs {
        agent: find("bin", "ptp-agent")?,
        guest: find("bin", "guest")?,
        helper: find("bin", "attach")?,
        tests: tests.collect::<Result<_>>()?,
    })
}

/// What cargo says that it has built.
fn artifacts(messages: &str) -> Vec<Artifact> {
    messages.lines().filter_map(|line| serde_json::from_str(line).ok()).collect()
}

fn find_artifact(built: &[Artifact], kind: &str, name: &str) -> Result<PathBuf> {
    let is_it = |artifact: &&Artifact| {
        let with_harness = artifact.profile.test == (kind == "test");
        with_harness
            && artifact.target.name == name
            && artifact.target.kind.iter().any(|it| it == kind)
    };
    let executable = built.iter().filter(is_it).find_map(|artifact| artifact.executable.clone());
    executable.with_context(|| format!("cargo has built no {kind} {name}"))
}

fn base_image(programs: &Programs) -> Result<Vec<u8>> {
    let mut image = Image::default();
    image.add_program(&programs.guest, "/init")?;
    image.add_program(&programs.agent, "/usr/bin/ptp-agent")?;
    for (name, program) in &programs.tests {
        image.add_program(program, &format!("/tests/{name}"))?;
    }
    image.add_program(&programs.helper, "/usr/bin/attach")?;
    for tool in TOOLS {
        image.add_tool(tool)?;
    }
    for directory in image::MOUNTED {
        image.add_directory(directory);
    }
    let mut bytes = Vec::new();
    image.write(&mut bytes)?;
    Ok(bytes)
}
