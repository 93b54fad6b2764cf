//! What a child process does between fork and exec: enter a network namespace, ask the kernel to be
//! killed together with its parent, so that no child survives even a SIGKILL of the parent, and for
//! foreign programs a /run of their own and no right to set clocks.

use std::{
    ffi::CStr,
    io,
    os::{
        fd::{AsFd, OwnedFd},
        unix::process::CommandExt,
    },
    process::Command,
    sync::Arc,
};

use nix::{
    errno::Errno,
    mount::{MsFlags, mount},
    sched::{CloneFlags, setns, unshare},
    sys::{prctl, signal::Signal},
    unistd::{Pid, getppid},
};

/// Lets the child of `command` start in the network namespace behind `namespace`.
pub fn enter_network_namespace(command: &mut Command, namespace: Arc<OwnedFd>) {
    let enter = move || setns(namespace.as_fd(), CloneFlags::CLONE_NEWNET).map_err(io::Error::from);
    // SAFETY: between fork and exec only async-signal-safe calls are allowed: the closure does one
    // system call and an errno conversion that does not allocate. The descriptor is open because the
    // closure owns a reference to it, and close-on-exec, so the program does not inherit it.
    unsafe { command.pre_exec(enter) };
}

/// Lets the kernel send SIGKILL to the child of `command` when the *thread* that spawns it ends: it
/// must be spawned from a thread that lives as long as the child is wanted.
///
/// The kernel drops this wish when it executes a program with file capabilities or a set-user-ID
/// bit; such a child ends when it writes to the pipe that its parent no longer reads.
pub fn die_with_parent(command: &mut Command) {
    let parent = Pid::this();
    let ask = move || {
        prctl::set_pdeathsig(Signal::SIGKILL)?;
        // The parent may have died before the request: then nobody will send the signal.
        if getppid() == parent { Ok(()) } else { Err(io::Error::from(nix::errno::Errno::ESRCH)) }
    };
    // SAFETY: between fork and exec only async-signal-safe calls are allowed: the closure does
    // prctl, getppid and an errno conversion that does not allocate, on values that it owns.
    unsafe { command.pre_exec(ask) };
}

/// Gives the child of `command` empty directories /run and /var/run that only it sees: files and sockets
/// that it makes there vanish with it, however it ends. Needs CAP_SYS_ADMIN.
pub fn own_run_directory(command: &mut Command) {
    let make = || {
        const NONE: Option<&CStr> = None;
        unshare(CloneFlags::CLONE_NEWNS)?;
        // Otherwise the mounts below would show in the namespace that this is a copy of.
        mount(NONE, c"/", NONE, MsFlags::MS_REC | MsFlags::MS_PRIVATE, NONE)?;
        mount(Some(c"none"), c"/run", Some(c"tmpfs"), MsFlags::empty(), NONE)?;
        // Mostly a link to the former.
        match mount(Some(c"none"), c"/var/run", Some(c"tmpfs"), MsFlags::empty(), NONE) {
            // A bare system has none.
            Ok(()) | Err(Errno::ENOENT) => Ok(()),
            Err(error) => Err(error.into()),
        }
    };
    // SAFETY: between fork and exec only async-signal-safe calls are allowed: the closure does system
    // calls on constant C strings, which nix passes on without a copy, and errno conversions that do
    // not allocate.
    unsafe { command.pre_exec(make) };
}

/// Takes CAP_SYS_TIME away from the child of `command` and all that it executes. Needs CAP_SETPCAP.
pub fn never_set_clocks(command: &mut Command) {
    /// CAP_SYS_TIME of linux/capability.h.
    const CAP_SYS_TIME: libc::c_ulong = 25;
    let drop = || {
        // SAFETY: PR_CAPBSET_DROP takes one integer and no pointers.
        let result = unsafe { libc::prctl(libc::PR_CAPBSET_DROP, CAP_SYS_TIME, 0, 0, 0) };
        if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
    };
    // SAFETY: between fork and exec only async-signal-safe calls are allowed: the closure does one
    // system call and reads errno.
    unsafe { command.pre_exec(drop) };
}
