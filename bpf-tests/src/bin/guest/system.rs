//! From a kernel that has just booted to a system on which tests can run, and its end.

use std::{env, ffi::CString, fs, path::Path, process::ExitCode};

use nix::{
    kmod::{ModuleInitFlags, finit_module},
    mount::{MsFlags, mount},
    sys::{
        reboot::{RebootMode, reboot},
        utsname::uname,
    },
    unistd::getpid,
};

/// Names the tests to run, and so says that this is a guest.
pub(crate) const TESTS: &str = "PTP_GUEST_TESTS";
const MODULES: &str = "/modules";

/// Mounts what programs expect and loads the modules that the image has.
///
/// # Errors
/// This is no guest, or not one that can be used.
pub(crate) fn be_a_guest() -> Result<(), String> {
    // The kernel hands what it does not know of its command line to the first process.
    if getpid().as_raw() != 1 || env::var_os(TESTS).is_none() || !Path::new(MODULES).is_dir() {
        return Err("steers the clock, and runs as the first process of a guest only".to_owned());
    }
    for (kind, target) in [
        ("proc", "/proc"),
        ("sysfs", "/sys"),
        ("devtmpfs", "/dev"),
        ("tmpfs", "/tmp"),
        ("tmpfs", "/run"),
        ("tracefs", "/sys/kernel/tracing"),
        ("bpf", "/sys/fs/bpf"),
    ] {
        mount(Some(kind), target, Some(kind), MsFlags::empty(), None::<&str>)
            .map_err(|error| format!("cannot mount {target}: {error}"))?;
    }
    let order =
        fs::read_to_string(format!("{MODULES}/order")).map_err(|error| error.to_string())?;
    for name in order.lines() {
        load_module(name).map_err(|error| format!("cannot load module {name}: {error}"))?;
    }
    Ok(())
}

fn load_module(name: &str) -> std::io::Result<()> {
    let file = fs::File::open(format!("{MODULES}/{name}.ko"))?;
    finit_module(&file, &parameters(name), ModuleInitFlags::empty())?;
    Ok(())
}

/// What a module is told.
fn parameters(name: &str) -> CString {
    match name {
        // To stamp one edge and not to wait for the other.
        "pps_parport" => c"clear_wait=0".to_owned(),
        _ => CString::default(),
    }
}

/// Release of the running kernel.
pub(crate) fn release() -> String {
    uname().map(|name| name.release().to_string_lossy().into_owned()).unwrap_or_default()
}

/// Switches the guest off; does not come back.
pub(crate) fn power_off() -> ExitCode {
    match reboot(RebootMode::RB_POWER_OFF) {
        Ok(never) => match never {},
        Err(error) => eprintln!("guest: cannot switch off: {error}"),
    }
    ExitCode::FAILURE
}
