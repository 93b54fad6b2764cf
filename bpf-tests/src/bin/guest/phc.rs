//! The clock of an emulated network card is read, set and steered for real: by the commands of
//! `ptp-agent phc`, and by an agent that follows a grandmaster over another wire. The card itself
//! carries no packet: its clock is what matters here. Every refusal is looked at, too, because on a
//! machine without such a card it cannot be.
//!
//! QEMU's igb (as of 10.0) cannot be steered itself: each change of its frequency moves its time, by
//! twice what the change would have made since the machine began, and by 2199 s (2^60 of its units) if
//! it is a reduction, whose sign is lost. So it runs freely, and what is steered is one of the virtual
//! clocks that the kernel makes of any free-running device (`n_vclocks`, since Linux 5.14).

use std::{
    fs::{self, File, Permissions},
    os::{
        fd::AsRawFd as _,
        unix::{fs::PermissionsExt as _, process::CommandExt as _},
    },
    process::{Command, ExitStatus},
    time::Duration,
};

use bpf_tests::{
    agent::{START, binary, run_to_end},
    children::Running,
    links::Wire,
    program,
    ptp4l::Ptp4l,
};
use libtest_mimic::Trial;
use nix::time::ClockId;
use serde_json::{Value, json};

use crate::{
    grandmaster::{Announced, minus_raw},
    report::figure,
    trial,
    world::{CONVERGED_NS, NOON, SECOND, World, agent, kernel},
};

/// The clock of the card.
const CARD: &str = "/dev/ptp0";
/// A virtual one over it.
const DEVICE: &str = "/dev/ptp1";
const CLOCK: &str = "phc:/dev/ptp1";
/// How many virtual clocks there are to be.
const VIRTUAL_CLOCKS: &str = "/sys/class/ptp/ptp0/n_vclocks";
/// Following takes this long at the most, in the guest's time.
const PATIENCE: Duration = Duration::from_secs(60);
/// What an emulated processor takes between two commands.
const SLACK_NS: i64 = 50_000_000;

/// Of a kernel that can be told by netlink.
pub(crate) fn netlink_trials() -> Vec<Trial> {
    vec![
        trial("nic::a_card_says_what_it_stamps_and_is_told_what_to_stamp", nic),
        trial("nic::the_newest_kernel_is_asked_by_netlink_and_names_the_clock", by_netlink),
    ]
}

pub(crate) fn trials() -> Vec<Trial> {
    vec![
        trial("phc::the_clock_of_a_card_is_listed_read_and_stepped", card),
        trial("phc::a_card_says_what_it_stamps_and_is_told_what_to_stamp", nic),
        trial("phc::a_device_that_does_not_let_itself_be_steered_ends_the_agent", not_steerable),
        trial("phc::the_device_is_set_adjusted_and_compared_and_nothing_else_is", commands),
        trial("phc::the_device_follows_a_grandmaster_and_keeps_what_was_learnt", follows),
        trial("phc::the_device_follows_ptp4l", follows_ptp4l),
        trial("phc::a_device_that_somebody_steers_is_refused", in_use),
        trial("phc::the_agent_ends_when_the_device_is_set_by_somebody_else", interference),
        trial("phc::what_is_missing_no_clock_or_read_only_is_refused", refused),
    ]
}

fn command(arguments: &[&str]) -> Command {
    let mut command = Command::new(binary());
    command.arg("--json").args(arguments);
    command
}

/// What `ptp-agent phc` says.
fn phc(arguments: &[&str]) -> Vec<Value> {
    let (status, said, log) = run_to_end(command(&[&["phc"], arguments].concat()));
    assert!(status.success(), "phc {arguments:?}: {status}\n{log}");
    said.lines().map(|line| serde_json::from_str(line).expect("JSON lines")).collect()
}

/// A field of its last line.
fn last(arguments: &[&str], field: &str) -> f64 {
    let lines = phc(arguments);
    let value = lines.last().and_then(|line| line[field].as_f64());
    value.unwrap_or_else(|| panic!("phc {arguments:?} says no {field}: {lines:?}"))
}

/// That a command fails, and says in one line all of `words`.
fn refuses(command: Command, words: &[&str]) -> ExitStatus {
    let (status, _, log) = run_to_end(command);
    assert!(!status.success(), "{words:?}");
    let error = log.lines().find(|line| line.starts_with("ptp-agent: ")).unwrap_or_default();
    assert!(words.iter().all(|word| error.contains(word)), "{words:?}: {log}");
    status
}

/// `run` on this machine's loopback interface, where nothing is heard.
fn run() -> Command {
    command(&["run", "-i", "lo", "--clock", CLOCK])
}

fn card() {
    let devices = phc(&["list"]);
    let card = devices.iter().find(|it| it["device"] == CARD).expect("the emulated card's");
    assert!(card["interfaces"].as_array().is_some_and(|cards| cards.len() == 1), "{card}");
    assert!(card["max_frequency_ppb"].as_i64().is_some_and(|limit| limit > 100_000), "{card}");
    let set_ns = last(&["set", CARD], "offset_ns");
    let stepped_ns = last(&["adj", CARD, "--step", "-1.5"], "offset_ns");
    let read = &phc(&["get", CARD])[0];
    figure(
        "phc_card",
        json!({"card": card, "set_ns": set_ns, "width_ns": read["width_ns"],
            "method": read["method"], "drift_ppb": last(&["cmp", CARD, "--count", "3"], "drift_ppb")}),
    );
    assert!(set_ns.abs() < 1e4, "{set_ns}");
    assert!((stepped_ns - set_ns + 1.5e9).abs() < 1e5, "{set_ns} {stepped_ns}");
}

/// As hwstamp_ctl does.
fn nic() {
    let devices = phc(&["list"]);
    let card = devices.iter().find(|it| it["device"] == CARD).expect("the emulated card's");
    let interface = card["interfaces"][0].as_str().expect("its interface");
    let one = |arguments: &[&str]| phc(&[&["nic", interface], arguments].concat()).remove(0);
    let before = one(&[]);
    figure("nic", before.clone());
    assert_eq!(before["device"], CARD, "{before}");
    let filters = before["rx_filters"].as_array().expect("filters");
    assert!(filters.contains(&json!("none")) && filters.len() > 1, "{before}");
    let off = json!({"tx": "off", "rx": "none"});
    assert_eq!((&before["now"], before["tx_hardware"].as_bool()), (&off, Some(true)), "{before}");
    // This card stamps messages of PTP and nothing else.
    assert!(
        filters.contains(&json!("ptpv2-event")) && !filters.contains(&json!("all")),
        "{before}"
    );
    refuses(command(&["phc", "nic", interface, "--rx", "all"]), &[interface, "ptpv2-event"]);
    let on = one(&["--tx", "on", "--rx", "ptpv2-event"]);
    let told = json!({"tx": "on", "rx": "ptpv2-event"});
    assert_eq!((&on["before"], &on["now"]), (&off, &told), "{on}");
    // What it cannot do is refused and changes nothing, and what is not named stays as it is.
    refuses(
        command(&["phc", "nic", interface, "--tx", "onestep-p2p"]),
        &[interface, "onestep-p2p"],
    );
    let less = one(&["--rx", "none"]);
    assert_eq!(less["now"], json!({"tx": "on", "rx": "none"}), "{less}");
    assert_eq!(one(&["--tx", "off"])["now"], off);
    refuses(command(&["phc", "nic", "lo", "--tx", "on"]), &["lo"]);
    refuses(command(&["phc", "nic", "nothing0"]), &["nothing0"]);
}

/// ETHTOOL_MSG_TSCONFIG, which the driver of this card knows since Linux 6.16; the older request says the same.
fn by_netlink() {
    let devices = phc(&["list"]);
    let card = devices.iter().find(|it| it["device"] == CARD).expect("the emulated card's");
    let interface = card["interfaces"][0].as_str().expect("its interface");
    let said = phc(&["nic", interface, "--tx", "on", "--rx", "ptpv2-event"]).remove(0);
    figure("nic_by_netlink", said.clone());
    assert_eq!(said["asked_by"], "netlink", "{said}");
    assert_eq!(said["stamped_by"]["device"], CARD, "{said}");
    assert_eq!(said["now"], json!({"tx": "on", "rx": "ptpv2-event"}), "{said}");
    let off = phc(&["nic", interface, "--tx", "off", "--rx", "none"]).remove(0);
    assert_eq!(off["now"], json!({"tx": "off", "rx": "none"}), "{off}");
}

/// While there are virtual clocks, the kernel keeps everybody off the one that they are made of.
fn not_steerable() {
    fs::write(VIRTUAL_CLOCKS, "1").expect("virtual clocks");
    let devices = phc(&["list"]);
    assert!(devices.iter().any(|it| it["device"] == DEVICE), "{devices:?}");
    refuses(command(&["phc", "set", CARD]), &[CARD, "busy"]);
    refuses(command(&["run", "-i", "lo", "--clock", "phc:/dev/ptp0"]), &[CARD, "busy"]);
}

fn commands() {
    let realtime = minus_raw(ClockId::CLOCK_REALTIME);
    let before = kernel();
    let shown = last(&["set", DEVICE, "--to", "1000000000.5"], "time_ns");
    assert!((shown - 1_000_000_000.5e9).abs() < SLACK_NS as f64, "{shown}");
    let set_ns = last(&["set", DEVICE], "offset_ns");
    let stepped_ns = last(&["adj", DEVICE, "--step", "-1.5"], "offset_ns");
    let read = &phc(&["get", DEVICE])[0];
    assert!((stepped_ns - set_ns + 1.5e9).abs() < 1e5, "{set_ns} {stepped_ns}");
    let ppb = last(&["adj", DEVICE, "--frequency", "-40000"], "frequency_ppb");
    assert!((ppb + 40_000.0).abs() < 1.0, "{ppb}");
    let drift_ppb = last(&["cmp", DEVICE, "--count", "3"], "drift_ppb");
    let nominal = last(&["adj", DEVICE, "--frequency", "0"], "frequency_ppb");
    let drift_at_0_ppb = last(&["cmp", DEVICE, "--count", "3"], "drift_ppb");
    figure(
        "phc_commands",
        json!({"set_ns": set_ns, "width_ns": read["width_ns"], "method": read["method"],
            "drift_ppb": drift_ppb, "drift_at_0_ppb": drift_at_0_ppb}),
    );
    assert!(set_ns.abs() < 1e4, "{set_ns}");
    assert!(nominal.abs() < 1.0 && (drift_ppb - drift_at_0_ppb + 40_000.0).abs() < 1_000.0);
    let beyond = command(&["phc", "adj", DEVICE, "--frequency", "2e9"]);
    refuses(beyond, &[DEVICE, "at the most"]);
    // CLOCK_REALTIME is only read.
    assert!((minus_raw(ClockId::CLOCK_REALTIME) - realtime).abs() < SLACK_NS);
    let after = kernel();
    assert_eq!((after.frequency_ppb, after.tai_offset), (before.frequency_ppb, before.tai_offset));
}

/// The number of the clock behind a descriptor, as linux/posix-timers.h makes it.
fn clock_of(device: &File) -> ClockId {
    ClockId::from_raw((!device.as_raw_fd() << 3) | 3)
}

fn follows() {
    let device = File::open(DEVICE).expect("the emulated card's clock");
    let world = World::new(NOON, 10 * SECOND, 37_000, Announced::default());
    phc(&["adj", DEVICE, "--frequency", "0"]);
    phc(&["set", DEVICE]);
    let mut agent = world.agent(CLOCK, "");
    let errors = world.watch(clock_of(&device), PATIENCE);
    let status = agent.stop();
    let kept_ppb = last(&["get", DEVICE], "frequency_ppb");
    let mut figures = errors.figure();
    figures["frequency_ppb"] = json!(kept_ppb);
    figure("phc_clock", figures);
    assert!(status.success(), "{status}\n{}", agent.last_words());
    let converged_s = errors.converged_s();
    let converged_s = converged_s.unwrap_or_else(|| panic!("{errors:?}\n{}", agent.last_words()));
    assert!(converged_s < PATIENCE.as_secs_f64() / 2.0, "{converged_s} s");
    // The system clock is nobody's business here.
    assert!(kernel().frequency_ppb.abs() < 1.0, "{:?}", kernel());
    let realtime_ns = world.error_ns(ClockId::CLOCK_REALTIME);
    assert!((realtime_ns + 10 * SECOND).abs() < SLACK_NS, "{realtime_ns}");
}

/// Its software stamps are of CLOCK_REALTIME: the device shows that, too, in the end.
fn follows_ptp4l() {
    let wire = Wire::new().expect("a guest has namespaces and veth");
    let _grandmaster =
        Ptp4l::grandmaster(&wire.grandmaster, &["gm0"], &[]).expect("ptp4l is in the image");
    phc(&["adj", DEVICE, "--step", "3"]);
    let mut agent = agent(&wire.client, CLOCK, "");
    let locked = |sample: &Value| sample["state"] == "locked";
    agent.wait_for_sample(0, PATIENCE, "lock", locked);
    agent.wait_for_samples(agent.mark(), PATIENCE, 160);
    let offsets = phc(&["cmp", DEVICE, "--count", "5"]);
    let offsets: Vec<i64> = offsets.iter().filter_map(|it| it["offset_ns"].as_i64()).collect();
    agent.finish();
    figure("phc_behind_ptp4l", json!({"offsets_ns": offsets}));
    assert_eq!(offsets.len(), 5);
    assert!(offsets.iter().all(|offset| offset.abs() < CONVERGED_NS), "{offsets:?}");
}

fn in_use() {
    let world = World::new(NOON, 0, 0, Announced::default());
    let mut agent = world.agent(CLOCK, "");
    agent.wait_for_text(0, START, "steers");
    refuses(run(), &[DEVICE, "another agent"]);
    refuses(command(&["phc", "set", DEVICE]), &[DEVICE, "another agent"]);
    refuses(command(&["phc", "adj", DEVICE, "--step", "1"]), &[DEVICE, "another agent"]);
    // Reading disturbs nobody.
    phc(&["get", DEVICE]);
    assert!(agent.stop().success(), "{}", agent.last_words());
    let Ok(phc2sys) = program("phc2sys") else { return };
    let mut command = Command::new(phc2sys);
    command.args(["-c", DEVICE, "-s", "CLOCK_REALTIME", "-O", "0", "-m"]);
    let rival = Running::start("phc2sys", &mut command);
    rival.wait_for_text(0, START, "offset");
    refuses(run(), &[DEVICE, "phc2sys"]);
    refuses(self::command(&["phc", "set", DEVICE]), &[DEVICE, "phc2sys"]);
}

fn interference() {
    for (what, adjust) in [
        ("frequency", ["phc_ctl", DEVICE, "freq", "12345"]),
        ("set", ["phc_ctl", DEVICE, "adj", "1.5"]),
    ] {
        let Ok(phc_ctl) = program(adjust[0]) else { return };
        let world = World::new(NOON, 0, 0, Announced::default());
        let mut agent = world.agent(CLOCK, "");
        agent.wait_for_text(0, START, "steers");
        let (status, _, log) = {
            let mut command = Command::new(phc_ctl);
            command.args(&adjust[1..]);
            run_to_end(command)
        };
        assert!(status.success(), "{log}");
        let ended = agent.wait(START);
        let said = agent.last_words();
        assert!(!ended.success() && said.contains(DEVICE) && said.contains(what), "{said}");
    }
}

fn refused() {
    let on = |device: &str| command(&["run", "-i", "lo", "--clock", &format!("phc:{device}")]);
    refuses(on("/dev/ptp7"), &["/dev/ptp7", "phc list"]);
    refuses(on("/dev/null"), &["/dev/null", "not a PTP clock"]);
    let file = "/tmp/no-clock";
    fs::write(file, "").expect("a file in /tmp");
    refuses(on(file), &[file, "not a PTP clock"]);
    fs::set_permissions(DEVICE, Permissions::from_mode(0o444)).expect("the guest's own device");
    let mut follow = run();
    for name in [CAP_DAC_OVERRIDE, CAP_DAC_READ_SEARCH] {
        without_capability(&mut follow, name);
    }
    let status = refuses(follow, &[DEVICE, "may not be written"]);
    assert_eq!(status.code(), Some(3), "something is missing on the host");
    let mut set = command(&["phc", "set", DEVICE]);
    set.uid(65_534).gid(65_534);
    refuses(set, &[DEVICE, "may not be written"]);
    // It may be read, though.
    let mut get = command(&["phc", "get", DEVICE]);
    get.uid(65_534).gid(65_534);
    let (status, said, log) = run_to_end(get);
    assert!(status.success() && said.contains("offset_ns"), "{log}");
    fs::set_permissions(DEVICE, Permissions::from_mode(0o600)).expect("the guest's own device");
}

/// Of linux/capability.h: permissions of files do not matter.
const CAP_DAC_OVERRIDE: libc::c_ulong = 1;
/// Nor for reading.
const CAP_DAC_READ_SEARCH: libc::c_ulong = 2;

/// Takes a capability away from a program that is started as root.
fn without_capability(command: &mut Command, capability: libc::c_ulong) {
    let drop = move || {
        // SAFETY: PR_CAPBSET_DROP takes one integer and no pointers.
        let result = unsafe { libc::prctl(libc::PR_CAPBSET_DROP, capability, 0, 0, 0) };
        if result == 0 { Ok(()) } else { Err(std::io::Error::last_os_error()) }
    };
    // SAFETY: between fork and exec only async-signal-safe calls are allowed: the closure does one
    // system call and reads errno.
    unsafe { command.pre_exec(drop) };
}
