//! What a child process does between fork and exec: enter a network namespace, and ask the kernel
//! to be killed together with its parent, so that no child survives even a SIGKILL of the parent.

use std::{
    io,
    os::{
        fd::{AsFd, OwnedFd},
        unix::process::CommandExt,
    },
    process::Command,
    sync::Arc,
};

use nix::{
    sched::{CloneFlags, setns},
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
