//! QEMU and the guests in it: a processor emulated instruction by instruction, whose time is the
//! number of instructions done. Idle time is skipped, so that a guest's minute may take a second, and
//! how busy the host is does not show in it. A guest says everything on its serial line.

use std::{
    fs,
    io::{BufRead as _, BufReader, Write as _},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::{
        atomic::{AtomicBool, Ordering},
        mpsc::{self, RecvTimeoutError},
    },
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};

use super::kernel::Kernel;
use crate::{
    apt::Apt,
    machine::Machine,
    process::{find, mortal},
};

/// The first version whose `-netdev stream` and whose igb are good enough.
const WANTED: u32 = 8;

/// How long a guest that has come to its end may take to switch itself off.
const SWITCH_OFF: Duration = Duration::from_secs(10);

/// Between two looks whether a guest is to be stopped.
const LOOK: Duration = Duration::from_millis(200);

/// The last line of a guest that came to its end.
pub(super) const END: &str = "guest: end";

/// An emulator, installed or unpacked.
#[derive(Clone, Debug)]
pub(super) struct Qemu {
    program: PathBuf,
    /// What it emulates.
    machine: Machine,
    /// What it was unpacked from, unless it is installed.
    root: Option<PathBuf>,
    /// As it calls itself.
    pub(super) version: String,
}

/// What is booted.
#[derive(Clone, Debug)]
pub(super) struct Guest<'a> {
    pub(super) kernel: &'a Kernel,
    pub(super) initrd: &'a Path,
    /// Groups of tests of its first process, and paths of test programs.
    pub(super) tests: &'a [&'a str],
    /// More arguments of QEMU.
    pub(super) devices: &'a [String],
    /// How time passes in it.
    pub(super) time: Time,
    /// How long it may take on the host's clock.
    pub(super) limit: Duration,
    /// Ends it, once this is set.
    pub(super) stop: &'a AtomicBool,
    /// Everything that it says is kept here.
    pub(super) log: &'a Path,
}

/// How time passes in a guest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Time {
    /// As instructions are done.
    Virtual,
    /// As it does on the host.
    Host,
    /// The same, by the emulated timer whose rate is the host's exactly: what a guest finds out about its
    /// processor's counter is another rate each time.
    HostExactly,
}

/// How a guest ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ended {
    /// By itself, having come to its end.
    Well,
    /// By itself, before that.
    Early,
    /// By force, when its time was up.
    TooLate,
    /// By force, because it was to be stopped.
    Stopped,
}

/// Debian's package of the emulator of a whole machine, and the directory in the cache for it.
const fn package(machine: Machine) -> (&'static str, &'static str) {
    match machine {
        Machine::X86 => ("qemu-system-x86", "qemu"),
        Machine::Arm => ("qemu-system-arm", "qemu-arm"),
        Machine::Riscv => ("qemu-system-riscv", "qemu-riscv"),
        Machine::S390 => ("qemu-system-s390x", "qemu-s390x"),
    }
}

/// Unpacks the newest version of one of QEMU's packages, and what it needs, into `root`.
fn unpack(cache: &Path, package: &str, root: &Path) -> Result<()> {
    let codename = codename().context("/etc/os-release names no Debian release")?;
    let backports = format!("{codename}-backports");
    let security = format!("{codename}-security");
    let has_new = !matches!(codename.as_str(), "bullseye" | "bookworm");
    let mut suites = vec![codename.as_str()];
    if has_new {
        suites.push(&security);
    } else {
        suites.extend([security.as_str(), backports.as_str()]);
    }
    let apt = Apt::open(&cache.join("apt-qemu"), &suites)?;
    let release = if has_new { &codename } else { &backports };
    let packages = apt.to_install(package, release)?;
    apt.unpack(&packages, root)
}

/// The emulator of a machine's programs, which runs those of other machines beside this one's. Installed, or else
/// Debian's static one, unpacked in `cache`.
pub(super) fn user_emulator(cache: &Path, machine: Machine) -> Result<PathBuf> {
    let name = format!("qemu-{}-static", machine.name());
    let installed = find(&name).or_else(|| find(&format!("qemu-{}", machine.name())));
    if let Some(program) = installed {
        return Ok(program);
    }
    let root = cache.join("qemu-user");
    let names = [&name, name.trim_end_matches("-static")];
    let program =
        || names.map(|name| root.join("usr/bin").join(name)).into_iter().find(|it| it.exists());
    if program().is_none() {
        unpack(cache, "qemu-user-static", &root)?;
    }
    program().with_context(|| format!("no {name} in {}", root.display()))
}

impl Qemu {
    /// The installed emulator, or else Debian's for this machine, downloaded into `cache` and
    /// unpacked there.
    pub(super) fn get(cache: &Path, machine: Machine) -> Result<Self> {
        let name = format!("qemu-system-{}", machine.name());
        if let Some(program) = find(&name)
            && let Ok(installed) = Self::open(program, machine, None)
            && installed.major() >= Some(WANTED)
        {
            return Ok(installed);
        }
        let (package, directory) = package(machine);
        let root = cache.join(directory);
        let program = root.join("usr/bin").join(name);
        if !program.exists() {
            unpack(cache, package, &root)?;
        }
        Self::open(program, machine, Some(root))
    }

    fn open(program: PathBuf, machine: Machine, root: Option<PathBuf>) -> Result<Self> {
        let mut this = Self { program, machine, root, version: String::new() };
        let output = this.command().arg("--version").output();
        let output = output.with_context(|| format!("cannot start {}", this.program.display()))?;
        let text = String::from_utf8_lossy(&output.stdout);
        let version = text.split_whitespace().skip_while(|word| *word != "version").nth(1);
        let Some(version) = version else {
            bail!(
                "{} does not run: {}",
                this.program.display(),
                String::from_utf8_lossy(&output.stderr).trim()
            );
        };
        this.version = version.to_owned();
        Ok(this)
    }

    fn major(&self) -> Option<u32> {
        self.version.split('.').next()?.parse().ok()
    }

    fn command(&self) -> Command {
        let mut command = mortal(&self.program);
        let Some(root) = &self.root else { return command };
        // Debian still puts some libraries into /lib.
        let libraries = ["usr/lib/x86_64-linux-gnu", "lib/x86_64-linux-gnu"]
            .map(|path| root.join(path).display().to_string());
        command.env("LD_LIBRARY_PATH", libraries.join(":"));
        for data in ["usr/share/qemu", "usr/share/seabios", "usr/lib/ipxe/qemu"] {
            command.arg("-L").arg(root.join(data));
        }
        command
    }

    /// Boots a guest and shows every line that it writes to `on_line`.
    pub(super) fn run(&self, guest: &Guest<'_>, mut on_line: impl FnMut(&str)) -> Result<Ended> {
        let mut command = self.command();
        command.args(["-accel", "tcg", "-m", "768", "-smp", "1", "-seed", "7"]);
        let (model, console): (&[&str], &str) = match self.machine {
            Machine::X86 => (&["-M", "q35"], "ttyS0"),
            Machine::Arm => (&["-M", "virt", "-cpu", "cortex-a72"], "ttyAMA0"),
            Machine::Riscv => (&["-M", "virt"], "ttyS0"),
            Machine::S390 => (&["-M", "s390-ccw-virtio"], "ttysclp0"),
        };
        command.args(model);
        let (clock, source) = match guest.time {
            Time::Virtual => {
                command.args(["-icount", "shift=3,sleep=off"]);
                ("base=2026-01-01T00:00:00,clock=vm", "")
            }
            Time::Host => ("base=2026-01-01T00:00:00", ""),
            Time::HostExactly => ("base=2026-01-01T00:00:00", " clocksource=hpet"),
        };
        command.args(["-rtc", clock]);
        command.args(["-nodefaults", "-display", "none", "-no-reboot", "-serial", "stdio"]);
        command.arg("-kernel").arg(&guest.kernel.vmlinux).arg("-initrd").arg(guest.initrd);
        let line = format!(
            "console={console} quiet loglevel=3 panic=-1 nokaslr norandmaps random.trust_cpu=off \
             mitigations=off cryptomgr.notests PATH=/usr/sbin:/usr/bin:/sbin:/bin PTP_AGENT_BINARY=/usr/bin/ptp-agent PTP_ATTACH_BINARY=/usr/bin/attach PTP_GUEST_TESTS={}{source}",
            guest.tests.join(",")
        );
        command.arg("-append").arg(line).args(guest.devices);
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut log = fs::File::create(guest.log)
            .with_context(|| format!("cannot write {}", guest.log.display()))?;
        let child =
            command.spawn().with_context(|| format!("cannot start {}", self.program.display()))?;
        let mut child = Running { child };
        let (sender, lines) = mpsc::channel();
        if let Some(output) = child.child.stdout.take() {
            let sender = sender.clone();
            std::thread::spawn(move || forward(output, &sender));
        }
        if let Some(errors) = child.child.stderr.take() {
            std::thread::spawn(move || forward(errors, &sender));
        }
        let mut deadline = Instant::now() + guest.limit;
        let mut ended = Ended::Early;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            match lines.recv_timeout(left.min(LOOK)) {
                Ok(line) => {
                    writeln!(log, "{line}").context("cannot write the guest's log")?;
                    if line == END {
                        ended = Ended::Well;
                        // Some machines do not switch themselves off.
                        deadline = deadline.min(Instant::now() + SWITCH_OFF);
                    }
                    on_line(&line);
                    // A guest that never stops talking is no excuse.
                    if guest.stop.load(Ordering::Relaxed) {
                        return Ok(Ended::Stopped);
                    }
                    if ended != Ended::Well && left.is_zero() {
                        return Ok(Ended::TooLate);
                    }
                }
                Err(RecvTimeoutError::Disconnected) => return Ok(ended),
                Err(RecvTimeoutError::Timeout) if guest.stop.load(Ordering::Relaxed) => {
                    return Ok(Ended::Stopped);
                }
                Err(RecvTimeoutError::Timeout) if left.is_zero() && ended == Ended::Well => {
                    return Ok(ended);
                }
                Err(RecvTimeoutError::Timeout) if left.is_zero() => return Ok(Ended::TooLate),
                Err(RecvTimeoutError::Timeout) => {}
            }
        }
    }
}

/// A process that does not outlive this value.
struct Running {
    child: Child,
}

impl Drop for Running {
    fn drop(&mut self) {
        // Both fail only for one that has ended.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn forward(from: impl std::io::Read, to: &mpsc::Sender<String>) {
    let mut from = BufReader::new(from);
    let mut line = Vec::new();
    while from.read_until(b'\n', &mut line).is_ok_and(|read| read > 0) {
        let text = String::from_utf8_lossy(&line);
        if to.send(text.trim_end().to_owned()).is_err() {
            return;
        }
        line.clear();
    }
}

fn codename() -> Option<String> {
    let release = fs::read_to_string("/etc/os-release").ok()?;
    let name = release.lines().find_map(|line| line.strip_prefix("VERSION_CODENAME="))?;
    let debian = release.lines().any(|line| line == "ID=debian");
    debian.then(|| name.trim_matches('"').to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::process::command;

    /// How a guest ends whose emulator is a script.
    fn ended(script: &str, limit: Duration, stop: bool) -> Result<Ended> {
        let directory = tempfile::tempdir()?;
        let program = directory.path().join("emulator");
        // Written by a process of its own: a file that any other here has open cannot be executed.
        let write = r#"printf '#!/bin/sh\n%s\n' "$1" > "$0" && chmod +x "$0""#;
        let arguments = ["-c".as_ref(), write.as_ref(), program.as_os_str(), script.as_ref()];
        command("sh", arguments).output().context("cannot write the script")?;
        let machine = Machine::X86;
        let qemu = Qemu { program, machine, root: None, version: String::new() };
        let guest = Guest {
            kernel: &Kernel::none(),
            initrd: directory.path(),
            tests: &[],
            devices: &[],
            time: Time::Virtual,
            limit,
            stop: &AtomicBool::new(stop),
            log: &directory.path().join("log"),
        };
        qemu.run(&guest, |_| {})
    }

    const LONG: Duration = Duration::from_secs(60);

    #[test]
    fn a_guest_comes_to_its_end_when_it_says_so() {
        assert_eq!(ended("echo guest: end", LONG, false).unwrap(), Ended::Well);
        assert_eq!(ended("echo guest: begin", LONG, false).unwrap(), Ended::Early);
    }

    #[test]
    fn a_guest_that_never_stops_talking_is_stopped_all_the_same() {
        assert_eq!(ended("exec yes", Duration::ZERO, false).unwrap(), Ended::TooLate);
        assert_eq!(ended("exec yes", LONG, true).unwrap(), Ended::Stopped);
    }
}
