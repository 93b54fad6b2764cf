//! `cargo xtask test package`: the package in a Debian of its own. debootstrap makes the system once;
//! each run unpacks it anew, boots its systemd in namespaces (without the right to set a clock), and
//! then does what an operator does: install, start, look, upset, remove. What is left at the end is
//! compared with what was there before.

use std::{
    ffi::{OsStr, OsString},
    fs,
    path::{Path, PathBuf},
    process::{Child, Stdio},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail, ensure};
use tempfile::TempDir;

use super::rpm_trial;
use crate::process::{command, find, is_root, target_directory, workspace};

/// What the system has beside the least.
const PACKAGES: &str = "systemd,systemd-sysv,dbus,iproute2,adduser,man-db";
const SUITE: &str = "bookworm";

/// How long the system or a service may take to come up.
const PATIENCE: Duration = Duration::from_secs(60);

/// Run as `sh -ec` in fresh namespaces: makes the directory `$1` the root of a system and becomes its
/// systemd. The clock belongs to the host, so nothing in there may set it.
const BOOT: &str = r#"
mount --make-rprivate /
mount --bind "$1" "$1"
cd "$1"
mount -t proc proc proc
mount -t sysfs sysfs sys
mount -t cgroup2 cgroup2 sys/fs/cgroup
mount -t tmpfs tmpfs run
mount -t tmpfs tmpfs tmp
mount -t tmpfs -o mode=755 tmpfs dev
for node in null zero full random urandom tty; do
    touch dev/$node
    mount --bind /dev/$node dev/$node
done
mkdir dev/shm dev/pts host
mount -t devpts -o newinstance,ptmxmode=0666 devpts dev/pts
ln -s pts/ptmx dev/ptmx
mount -t tmpfs tmpfs dev/shm
ln -s /proc/self/fd dev/fd
pivot_root . host
umount -l host
exec setpriv --bounding-set -sys_time --inh-caps -sys_time \
    env -i container=trial PATH=/usr/sbin:/usr/bin:/sbin:/bin \
    /lib/systemd/systemd --system --log-target=journal --show-status=0
"#;

/// What is missing, or nothing.
pub(crate) fn reason_to_skip() -> Option<String> {
    if !is_root() {
        return Some("needs root: it makes namespaces".to_owned());
    }
    let needed = ["debootstrap", "dpkg-deb", "unshare", "nsenter", "setpriv", "tar"];
    let missing: Vec<_> = needed.into_iter().filter(|name| find(name).is_none()).collect();
    if missing.is_empty() { None } else { Some(format!("not installed: {}", missing.join(", "))) }
}

/// A claim, and whether it holds.
type Claim = (&'static str, fn(&Machine) -> Result<()>);

/// In this order: each builds on those before it.
const CLAIMS: [Claim; 9] = [
    ("the package installs and starts nothing", installs),
    ("each command has a manual page and the shell completes it", is_documented),
    ("systemd finds no fault with the unit", unit_is_in_order),
    ("a service without an interface ends with exit code 2 and is not restarted", needs_interface),
    ("the service is ready, follows, and says so", follows),
    ("it runs as its own user with five capabilities", is_confined),
    ("a main loop that stands still is started anew", is_watched),
    ("removal stops the service and keeps its configuration", is_removed),
    ("purging leaves nothing", is_purged),
];

/// What became of a claim.
pub(crate) enum Verdict {
    Holds,
    Fails,
    Skipped(&'static str),
}

/// Tries the package; `told` hears of each claim.
pub(crate) fn run(package: &Path, rpm: &Path, mut told: impl FnMut(Verdict)) -> Result<()> {
    let machine = Machine::boot(package)?;
    let mut is_broken = false;
    for (name, holds) in CLAIMS {
        if is_broken {
            told(Verdict::Skipped("an earlier claim about the package does not hold"));
            continue;
        }
        match holds(&machine) {
            Ok(()) => {
                println!("  ok: {name}");
                told(Verdict::Holds);
            }
            Err(error) => {
                is_broken = true;
                println!("  FAILED: {name}: {error:#}\n{}", machine.journal());
                told(Verdict::Fails);
            }
        }
    }
    told(lintian(package));
    rpm_trial::run(package, rpm, &mut told);
    told(if find("buildah").is_none() {
        Verdict::Skipped("buildah, which builds the image, is not installed")
    } else if let Err(error) = image(package) {
        println!("  FAILED: the container image: {error:#}");
        Verdict::Fails
    } else {
        println!("  ok: the container image is built and runs");
        Verdict::Holds
    });
    Ok(())
}

/// Builds the container image with the package's binary and runs that in a container.
fn image(package: &Path) -> Result<()> {
    let directory = tempfile::Builder::new().prefix("ptp-agent-image").tempdir()?;
    let path = |name: &str| directory.path().join(name).into_os_string();
    command("dpkg-deb", ["-x".into(), package.into(), path("package")]).quietly("dpkg-deb")?;
    let storage = [
        "--root".into(),
        path("storage"),
        "--runroot".into(),
        path("run"),
        "--storage-driver".into(),
    ];
    let buildah = |subcommand: &str, arguments: &[&OsStr]| {
        let options = storage.iter().cloned().chain(["vfs".into(), subcommand.into()]);
        command("buildah", options.chain(arguments.iter().map(Into::into)))
    };
    let isolation = "--isolation=chroot".as_ref();
    let file = workspace().join("docs/deploy/Containerfile");
    let tag = ["--tag", "ptp-agent"].map(OsStr::new);
    let build = [isolation, "--file".as_ref(), file.as_os_str(), tag[0], tag[1]];
    let context = path("package/usr/bin");
    buildah("build", &[&build[..], &[&context]].concat()).quietly("buildah build")?;
    let container = buildah("from", &["localhost/ptp-agent".as_ref()]).output();
    let container = container.context("buildah makes no container of the image")?;
    let words = [container.trim(), "--", "/ptp-agent", "--version"].map(OsStr::new);
    let version = buildah("run", &[&[isolation], &words[..]].concat()).output();
    let version = version.context("the agent does not run in the container")?;
    ensure!(version.starts_with("ptp-agent "), "it says {version:?}");
    Ok(())
}

fn lintian(package: &Path) -> Verdict {
    if find("lintian").is_none() {
        return Verdict::Skipped("lintian is not installed");
    }
    let options = ["--allow-root", "--fail-on", "error"].map(OsString::from);
    let lintian = command("lintian", options.into_iter().chain([package.into()]));
    match lintian.stream(|_| ()) {
        Ok(status) if status.success() => Verdict::Holds,
        _ => Verdict::Fails,
    }
}

/// A small Debian whose systemd runs in namespaces.
struct Machine {
    directory: TempDir,
    group: PathBuf,
    child: Child,
    /// Of its systemd, as the host numbers processes.
    init: u32,
    /// What was there before the package.
    before: Vec<String>,
}

impl Machine {
    fn boot(package: &Path) -> Result<Self> {
        let directory = tempfile::Builder::new().prefix("ptp-agent-trial").tempdir()?;
        let root = directory.path().join("root");
        fs::create_dir(&root)?;
        unpack_base(&root)?;
        let before = files(&root)?;
        fs::copy(package, root.join("ptp-agent.deb"))?;
        // systemd wants a branch of the tree of control groups for itself.
        let group = cgroup2()?.join(format!("ptp-agent-trial-{}", std::process::id()));
        fs::create_dir(&group).with_context(|| format!("cannot make {}", group.display()))?;
        let enter = format!("echo $$ > '{}/cgroup.procs'; exec \"$@\"", group.display());
        let mut unshare = std::process::Command::new("sh");
        unshare.args(["-ec", &enter, "sh"]);
        let namespaces = "unshare --fork --kill-child --pid --mount --cgroup --net --uts --ipc";
        unshare.args(namespaces.split(' ')).args(["sh", "-ec", BOOT, "sh"]).arg(&root);
        let child = unshare.stdin(Stdio::null()).stdout(Stdio::null()).spawn()?;
        let mut this = Self { directory, group, child, init: 0, before };
        this.init = this.find_init()?;
        let state = this.wait_for("the system to come up", |this| {
            let state = this.shell("systemctl is-system-running").unwrap_or_default();
            ["running", "degraded"].contains(&state.trim()).then_some(state)
        })?;
        println!("  a Debian {SUITE} has booted ({})", state.trim());
        Ok(this)
    }

    /// The only child of `unshare`.
    fn find_init(&self) -> Result<u32> {
        let deadline = Instant::now() + PATIENCE;
        let path = format!("/proc/{0}/task/{0}/children", self.child.id());
        while Instant::now() < deadline {
            let children = fs::read_to_string(&path).unwrap_or_default();
            if let Some(init) = children.split_whitespace().next() {
                let name = fs::read_to_string(format!("/proc/{init}/comm")).unwrap_or_default();
                if name.trim() == "systemd" {
                    return Ok(init.parse()?);
                }
            }
            thread::sleep(Duration::from_millis(50));
        }
        bail!("systemd does not start in namespaces of its own")
    }

    fn root(&self) -> PathBuf {
        self.directory.path().join("root")
    }

    /// Standard output of a shell command inside, whatever its exit code; an error if it cannot be
    /// run at all.
    fn shell(&self, script: &str) -> Result<String> {
        let init = self.init.to_string();
        let arguments =
            ["--target", &init, "--all", "--", "sh", "-c", &format!("{{ {script}\n}} 2>&1; true")];
        let path = "/usr/sbin:/usr/bin:/sbin:/bin";
        let inside = command("nsenter", arguments).env("PATH", path).env("LC_ALL", "C.UTF-8");
        inside.output().with_context(|| format!("cannot run inside: {script}"))
    }

    /// The same, for a command that must succeed.
    fn must(&self, script: &str) -> Result<String> {
        let said = self.shell(&format!("{script} && echo DONE-WELL"))?;
        let said = said.strip_suffix("DONE-WELL").map(str::to_owned).ok_or(said);
        said.or_else(|said| bail!("{script}: {said}"))
    }

    fn property(&self, name: &str) -> String {
        let show = format!("systemctl show --value --property {name} ptp-agent.service");
        self.shell(&show).unwrap_or_default().trim().to_owned()
    }

    fn wait_for<T>(&self, what: &str, mut wanted: impl FnMut(&Self) -> Option<T>) -> Result<T> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Some(found) = wanted(self) {
                return Ok(found);
            }
            ensure!(Instant::now() < deadline, "waited in vain for {what}");
            thread::sleep(Duration::from_millis(200));
        }
    }

    fn journal(&self) -> String {
        self.shell("journalctl --no-pager -n 40").unwrap_or_default()
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        // The end of its first process is the end of all of them.
        if self.init != 0 {
            let _ = command("kill", ["-KILL", &self.init.to_string()]).output();
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
        let deadline = Instant::now() + PATIENCE;
        while remove_groups(&self.group).is_err() && Instant::now() < deadline {
            thread::sleep(Duration::from_millis(50));
        }
    }
}

fn remove_groups(group: &Path) -> std::io::Result<()> {
    for entry in fs::read_dir(group)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            remove_groups(&entry.path())?;
        }
    }
    fs::remove_dir(group)
}

/// Where the unified tree of control groups is.
fn cgroup2() -> Result<PathBuf> {
    let mounts = fs::read_to_string("/proc/self/mounts")?;
    let mut mounts = mounts.lines().map(|line| line.split(' ').collect::<Vec<_>>());
    let mount = mounts.find(|fields| fields.get(2) == Some(&"cgroup2"));
    let mount = mount.context("no cgroup2 is mounted here, which systemd needs")?;
    Ok(PathBuf::from(mount[1]))
}

/// Unpacks the system into an empty directory.
pub(super) fn unpack_base(root: &Path) -> Result<()> {
    let base = base()?;
    let options = ["--extract", "--numeric-owner", "--file"].map(OsString::from);
    let paths = [base.into_os_string(), "--directory".into(), root.as_os_str().to_owned()];
    command("tar", options.into_iter().chain(paths)).quietly("unpacking the system")
}

/// The system as debootstrap makes it, packed; made when it is not there.
fn base() -> Result<PathBuf> {
    let directory = target_directory().join("package");
    let packed = directory.join(format!("{SUITE}.tar"));
    if packed.is_file() {
        return Ok(packed);
    }
    fs::create_dir_all(&directory)?;
    let work = tempfile::Builder::new().prefix("ptp-agent-debian").tempdir()?;
    let root = work.path().join("root").into_os_string();
    let include = format!("--include={PACKAGES}");
    let arguments = ["--variant=minbase".into(), include.into(), SUITE.into(), root.clone()];
    command("debootstrap", arguments).quietly("debootstrap (once)")?;
    let part = packed.with_extension("part");
    let arguments = ["--create".into(), "--numeric-owner".into(), "--file".into()];
    let paths = [part.clone().into_os_string(), "--directory".into(), root, ".".into()];
    command("tar", arguments.into_iter().chain(paths)).quietly("packing the system")?;
    fs::rename(part, &packed)?;
    Ok(packed)
}

/// All files but those that any system changes while it runs.
fn files(root: &Path) -> Result<Vec<String>> {
    let ignored = ["var/log", "var/cache", "var/lib/dpkg", "var/lib/systemd", "var/tmp", "root"];
    let mut found = Vec::new();
    let mut open = vec![root.to_owned()];
    while let Some(directory) = open.pop() {
        for entry in fs::read_dir(&directory)? {
            let path = entry?.path();
            let name = path.strip_prefix(root)?;
            let is_volatile = ["dev", "proc", "sys", "run", "tmp"].iter().any(|it| name == *it);
            if is_volatile || ignored.iter().any(|it| name == *it) {
                continue;
            }
            found.push(name.to_string_lossy().into_owned());
            if path.is_dir() && !path.is_symlink() {
                open.push(path);
            }
        }
    }
    found.sort();
    Ok(found)
}

fn installs(machine: &Machine) -> Result<()> {
    machine.must("dpkg --install /ptp-agent.deb")?;
    let version = machine.must("ptp-agent --version")?;
    ensure!(version.trim() == concat!("ptp-agent ", env!("CARGO_PKG_VERSION")), "{version}");
    machine.must("ptp-agent config check /etc/ptp-agent.toml")?;
    machine.must("getent passwd ptp-agent")?;
    ensure!(machine.property("ActiveState") == "inactive");
    Ok(())
}

fn is_documented(machine: &Machine) -> Result<()> {
    // minbase leaves manual pages out when it installs; what counts is what the package holds.
    let listed = machine.must("dpkg-deb --contents /ptp-agent.deb")?;
    for page in ["ptp-agent", "ptp-agent-run", "ptp-agent-config-check"] {
        ensure!(listed.contains(&format!("/usr/share/man/man8/{page}.8.gz")), "no {page}(8)");
    }
    let extract = "dpkg-deb --fsys-tarfile /ptp-agent.deb | tar -x -C /tmp";
    let warnings = machine.must(&format!("{extract} && man --warnings -P cat -l /tmp/usr/share/man/man8/ptp-agent-run.8.gz 2>&1 >/dev/null"))?;
    ensure!(warnings.trim().is_empty(), "{warnings}");
    machine.must("sh -n /usr/share/bash-completion/completions/ptp-agent || bash -n /usr/share/bash-completion/completions/ptp-agent")?;
    machine.must("test -f /tmp/usr/share/doc/ptp-agent/docs/alarms/no_sync.md")?;
    Ok(())
}

fn unit_is_in_order(machine: &Machine) -> Result<()> {
    let said = machine.must("systemd-analyze verify --man=no ptp-agent.service")?;
    ensure!(said.trim().is_empty(), "{said}");
    let said = machine.must("systemd-analyze security --no-pager ptp-agent.service")?;
    let last = said.trim().lines().last().unwrap_or_default();
    println!("  {last}");
    let level: f64 = last
        .split("ptp-agent.service:")
        .nth(1)
        .and_then(|rest| rest.split_whitespace().next()?.parse().ok())
        .with_context(|| format!("no figure: {last}"))?;
    ensure!(level < 3.0, "{said}");
    Ok(())
}

fn needs_interface(machine: &Machine) -> Result<()> {
    machine.shell("systemctl start ptp-agent.service")?;
    ensure!(machine.property("ActiveState") == "failed", "{}", machine.property("ActiveState"));
    ensure!(machine.property("ExecMainStatus") == "2");
    machine.must("journalctl -u ptp-agent | grep -q 'no interface: name one'")?;
    machine.must("systemctl reset-failed ptp-agent.service")?;
    Ok(())
}

fn follows(machine: &Machine) -> Result<()> {
    // Both ends are in one namespace, which Ethernet does not mind.
    machine.must(
        "ip link add gm0 type veth peer name ptp0 && ip link set gm0 up && ip link set ptp0 up \
         && ip link set lo up \
         && systemd-run --unit=grandmaster ptp-agent serve -i gm0 --transport l2 \
            --log-sync-interval -4 --log-announce-interval -2 --log-min-delay-req-interval -4",
    )?;
    let path = machine.root().join("etc/ptp-agent.toml");
    let mut config = fs::read_to_string(&path)?;
    for (default, wanted) in [
        ("#interface = [\"eth0\"]", "interface = [\"ptp0\"]"),
        ("#transport = \"udp4\"", "transport = \"l2\""),
        ("#metrics-address = \"127.0.0.1:9319\"", "metrics-address = \"127.0.0.1:9319\""),
        ("#clock = \"none\"", "clock = \"virtual\""),
    ] {
        ensure!(config.contains(default), "the configuration has no line {default}");
        config = config.replacen(default, wanted, 1);
    }
    fs::write(path, config)?;
    // Returns when the agent has said that it is ready.
    machine.must("systemctl enable --now ptp-agent.service")?;
    ensure!(machine.property("ActiveState") == "active");
    let status = machine.wait_for("the lock in systemd's status", |machine| {
        let status = machine.property("StatusText");
        status.starts_with("locked, grandmaster ").then_some(status)
    })?;
    println!("  systemd says: {status}");
    let status = machine.must("ptp-agent status")?;
    ensure!(
        status.contains("locked (adaptive)") && status.contains("ptp0: time_receiver"),
        "{status}"
    );
    Ok(())
}

fn is_confined(machine: &Machine) -> Result<()> {
    let pid = machine.property("MainPID");
    let status = machine.must(&format!("cat /proc/{pid}/status"))?;
    let field = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(&format!("{name}:")));
        line.unwrap_or_default().split_whitespace().next().unwrap_or_default().to_owned()
    };
    ensure!(field("Uid") != "0", "{status}");
    // CAP_NET_BIND_SERVICE 10, CAP_NET_ADMIN 12, CAP_NET_RAW 13, CAP_PERFMON 38, CAP_BPF 39.
    let wanted: u64 = [10, 12, 13, 38, 39].iter().map(|bit| 1 << bit).sum();
    for set in ["CapPrm", "CapEff", "CapBnd"] {
        let found = u64::from_str_radix(&field(set), 16)?;
        ensure!(found == wanted, "{set} is {found:x} and not {wanted:x}");
    }
    ensure!(field("NoNewPrivs") == "1" && field("Seccomp") == "2", "{status}");
    Ok(())
}

fn is_watched(machine: &Machine) -> Result<()> {
    machine.must(
        "mkdir -p /run/systemd/system/ptp-agent.service.d && printf \
         '[Service]\\nWatchdogSec=3s\\nTimeoutAbortSec=1s\\nRestartSec=100ms\\n' \
         > /run/systemd/system/ptp-agent.service.d/trial.conf && systemctl daemon-reload \
         && systemctl restart ptp-agent.service",
    )?;
    let before = machine.property("MainPID");
    // Longer than the watchdog waits: an agent that turns is left alone.
    thread::sleep(Duration::from_secs(5));
    ensure!(machine.property("MainPID") == before, "it was restarted although it turns");
    machine.must(&format!("kill -STOP {before}"))?;
    machine.wait_for("systemd to start it anew", |machine| {
        let pid = machine.property("MainPID");
        (machine.property("ActiveState") == "active" && pid != before && pid != "0").then_some(())
    })?;
    ensure!(machine.property("NRestarts") != "0");
    machine.must("rm -r /run/systemd/system/ptp-agent.service.d && systemctl daemon-reload")?;
    Ok(())
}

fn is_removed(machine: &Machine) -> Result<()> {
    let pid = machine.property("MainPID");
    machine.must("dpkg --remove ptp-agent")?;
    machine.must(&format!("! test -e /proc/{pid} && ! test -e /usr/bin/ptp-agent"))?;
    machine.must("grep -q ptp0 /etc/ptp-agent.toml")?;
    machine.must("! test -e /etc/systemd/system/multi-user.target.wants/ptp-agent.service")?;
    Ok(())
}

fn is_purged(machine: &Machine) -> Result<()> {
    machine.must("dpkg --purge ptp-agent && rm /ptp-agent.deb")?;
    machine.must("! getent passwd ptp-agent && ! getent group ptp-agent")?;
    let after = files(&machine.root())?;
    let left: Vec<_> = after
        .iter()
        .filter(|name| machine.before.binary_search(name).is_err() && name.contains("ptp"))
        .collect();
    ensure!(left.is_empty(), "{left:?}");
    Ok(())
}
