//! The filters of system calls (seccomp): what a running agent may still ask of the kernel. The list is one for all
//! machines; what it adds for each is what that machine alone has.

use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter,
    SeccompRule,
};

use super::ConfineError;

/// System calls that the agent, its runtime and its C library make while time is kept, opening and attaching
/// again included. What is missing here fails with EPERM.
#[rustfmt::skip]
const SYSTEM_CALLS: &[libc::c_long] = &[
    // Files and descriptors.
    libc::SYS_read, libc::SYS_write, libc::SYS_readv, libc::SYS_writev, libc::SYS_pread64, libc::SYS_pwrite64,
    libc::SYS_openat, libc::SYS_close, libc::SYS_fstat, libc::SYS_newfstatat, libc::SYS_statx, libc::SYS_lseek,
    libc::SYS_fcntl, libc::SYS_dup, libc::SYS_dup3, libc::SYS_ioctl, libc::SYS_flock, libc::SYS_fsync,
    libc::SYS_fdatasync, libc::SYS_ftruncate, libc::SYS_getdents64, libc::SYS_readlinkat, libc::SYS_faccessat,
    libc::SYS_faccessat2, libc::SYS_mkdirat, libc::SYS_unlinkat, libc::SYS_renameat2,
    libc::SYS_fchmod, libc::SYS_fchmodat, libc::SYS_umask, libc::SYS_pipe2, libc::SYS_statfs, libc::SYS_fstatfs,
    libc::SYS_getcwd,
    // Memory.
    libc::SYS_brk, libc::SYS_mmap, libc::SYS_munmap, libc::SYS_mremap, libc::SYS_mprotect, libc::SYS_madvise,
    libc::SYS_shmget, libc::SYS_shmat, libc::SYS_shmdt, libc::SYS_shmctl, libc::SYS_membarrier,
    // Threads, signals, waiting. What makes threads stands below; clone3 is refused by the other filter.
    libc::SYS_clone3,
    libc::SYS_futex, libc::SYS_set_robust_list, libc::SYS_get_robust_list, libc::SYS_rseq, libc::SYS_gettid,
    libc::SYS_getpid, libc::SYS_exit, libc::SYS_exit_group, libc::SYS_sched_yield,
    libc::SYS_sched_getaffinity, libc::SYS_sched_setaffinity, libc::SYS_sched_getattr, libc::SYS_sched_setattr, libc::SYS_getcpu,
    libc::SYS_sigaltstack, libc::SYS_rt_sigaction, libc::SYS_rt_sigprocmask, libc::SYS_rt_sigreturn,
    libc::SYS_rt_sigtimedwait, libc::SYS_tgkill, libc::SYS_restart_syscall, libc::SYS_epoll_create1, libc::SYS_epoll_ctl,
    libc::SYS_epoll_pwait, libc::SYS_epoll_pwait2, libc::SYS_ppoll, libc::SYS_pselect6, libc::SYS_eventfd2,
    libc::SYS_signalfd4, libc::SYS_timerfd_create, libc::SYS_timerfd_settime, libc::SYS_timerfd_gettime, libc::SYS_nanosleep,
    libc::SYS_clock_nanosleep,
    // Clocks.
    libc::SYS_clock_gettime, libc::SYS_clock_getres, libc::SYS_clock_settime, libc::SYS_clock_adjtime,
    libc::SYS_adjtimex, libc::SYS_gettimeofday,
    // Sockets; which families stands below.
    libc::SYS_socketpair, libc::SYS_bind, libc::SYS_listen, libc::SYS_accept4, libc::SYS_connect, libc::SYS_getsockname,
    libc::SYS_getpeername, libc::SYS_getsockopt, libc::SYS_setsockopt, libc::SYS_sendto, libc::SYS_sendmsg,
    libc::SYS_sendmmsg, libc::SYS_recvfrom, libc::SYS_recvmsg, libc::SYS_recvmmsg, libc::SYS_shutdown,
    // Kernel programs: an interface that comes back is attached to again.
    libc::SYS_bpf, libc::SYS_perf_event_open,
    // About itself.
    libc::SYS_prctl, libc::SYS_prlimit64, libc::SYS_getrusage, libc::SYS_sysinfo, libc::SYS_uname, libc::SYS_getrandom,
    libc::SYS_getuid, libc::SYS_geteuid, libc::SYS_getgid, libc::SYS_getegid, libc::SYS_capget, libc::SYS_capset,
];

/// The same, of machines that still have the calls that others have left behind.
#[cfg(target_arch = "x86_64")]
#[rustfmt::skip]
const OLD_SYSTEM_CALLS: &[libc::c_long] = &[
    libc::SYS_renameat, libc::SYS_open, libc::SYS_stat, libc::SYS_lstat, libc::SYS_access, libc::SYS_mkdir, libc::SYS_rmdir, libc::SYS_unlink,
    libc::SYS_rename, libc::SYS_chmod, libc::SYS_readlink, libc::SYS_poll, libc::SYS_select, libc::SYS_epoll_wait,
    libc::SYS_dup2, libc::SYS_pipe, libc::SYS_arch_prctl, libc::SYS_time, libc::SYS_accept,
];
#[cfg(target_arch = "aarch64")]
const OLD_SYSTEM_CALLS: &[libc::c_long] = &[libc::SYS_renameat];
#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
const OLD_SYSTEM_CALLS: &[libc::c_long] = &[];

/// Families of sockets that an agent opens.
const FAMILIES: [libc::c_int; 5] =
    [libc::AF_UNIX, libc::AF_INET, libc::AF_INET6, libc::AF_NETLINK, libc::AF_PACKET];

/// Without it clone makes a process.
const THREAD: u64 = libc::CLONE_THREAD as u64;

fn when(argument: u8, how: SeccompCmpOp, value: u64) -> Option<SeccompRule> {
    let condition = SeccompCondition::new(argument, SeccompCmpArgLen::Qword, how, value).ok()?;
    SeccompRule::new(vec![condition]).ok()
}

fn program() -> Result<BpfProgram, ConfineError> {
    let machine = |error: &dyn std::fmt::Display| ConfineError::Machine(error.to_string());
    let plain = SYSTEM_CALLS.iter().chain(OLD_SYSTEM_CALLS).map(|call| (*call, Vec::new()));
    let families = FAMILIES
        .iter()
        .filter_map(|family| when(0, SeccompCmpOp::Eq, u64::try_from(*family).unwrap_or(u64::MAX)));
    let threads = when(0, SeccompCmpOp::MaskedEq(THREAD), THREAD);
    let more =
        [(libc::SYS_socket, families.collect()), (libc::SYS_clone, threads.into_iter().collect())];
    let filter = SeccompFilter::new(
        plain.chain(more).collect(),
        SeccompAction::Errno(libc::EPERM as u32),
        SeccompAction::Allow,
        std::env::consts::ARCH.try_into().map_err(|error| machine(&error))?,
    );
    filter.and_then(TryInto::try_into).map_err(|error| machine(&error))
}

/// Both filters, in the order in which they have to be applied: behind the second there are no more.
fn programs() -> Result<[BpfProgram; 2], ConfineError> {
    Ok([program_for_clone3()?, program()?])
}

/// clone3 keeps its flags in memory, where no filter sees them; where it is not there, C libraries take
/// clone.
fn program_for_clone3() -> Result<BpfProgram, ConfineError> {
    let machine = |error: &dyn std::fmt::Display| ConfineError::Machine(error.to_string());
    let filter = SeccompFilter::new(
        [(libc::SYS_clone3, Vec::new())].into(),
        SeccompAction::Allow,
        SeccompAction::Errno(libc::ENOSYS as u32),
        std::env::consts::ARCH.try_into().map_err(|error| machine(&error))?,
    );
    filter.and_then(TryInto::try_into).map_err(|error| machine(&error))
}

/// Gives up system calls in all threads of the process.
pub(super) fn apply() -> Result<(), ConfineError> {
    for program in programs()? {
        seccompiler::apply_filter_all_threads(&program).map_err(ConfineError::Filter)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{io, thread};

    fn call(number: libc::c_long, arguments: [libc::c_long; 3]) -> i32 {
        let [a, b, c] = arguments;
        // SAFETY: the calls that are tried here get arguments that do nothing even without a filter: no
        // pointer is given to anything that writes.
        let result = unsafe { libc::syscall(number, a, b, c) };
        if result < 0 { io::Error::last_os_error().raw_os_error().unwrap_or(0) } else { 0 }
    }

    /// On a thread that has the filters, and ends with them.
    fn confined<T: Send>(what: impl FnOnce() -> T + Send) -> T {
        thread::scope(|scope| {
            let thread = scope.spawn(|| {
                for program in programs().unwrap() {
                    seccompiler::apply_filter(&program).unwrap();
                }
                what()
            });
            thread.join().unwrap()
        })
    }

    #[test]
    fn calls_that_an_intruder_wants_are_refused() {
        let refused = [
            libc::SYS_execve,
            libc::SYS_execveat,
            libc::SYS_ptrace,
            libc::SYS_process_vm_readv,
            libc::SYS_process_vm_writev,
            libc::SYS_mount,
            libc::SYS_umount2,
            libc::SYS_pivot_root,
            libc::SYS_chroot,
            libc::SYS_setns,
            libc::SYS_unshare,
            libc::SYS_init_module,
            libc::SYS_finit_module,
            libc::SYS_delete_module,
            libc::SYS_kexec_load,
            libc::SYS_reboot,
            libc::SYS_swapon,
            libc::SYS_keyctl,
            libc::SYS_add_key,
            libc::SYS_userfaultfd,
            libc::SYS_io_uring_setup,
            libc::SYS_open_by_handle_at,
            libc::SYS_setuid,
            libc::SYS_setgid,
            libc::SYS_fchownat,
            libc::SYS_linkat,
            libc::SYS_symlinkat,
            libc::SYS_mknodat,
            libc::SYS_kill,
            libc::SYS_personality,
            libc::SYS_quotactl,
            libc::SYS_memfd_create,
        ];
        let answers = confined(|| refused.map(|number| (number, call(number, [-1, 0, 0]))));
        for (number, answer) in answers {
            assert_eq!(answer, libc::EPERM, "system call {number}");
        }
    }

    #[test]
    fn processes_are_refused_and_threads_are_not() {
        let (fork, clone3, joined) = confined(|| {
            let fork = call(libc::SYS_clone, [libc::SIGCHLD.into(), 0, 0]);
            let clone3 = call(libc::SYS_clone3, [0, 0, 0]);
            (fork, clone3, thread::spawn(|| 7).join().unwrap())
        });
        assert_eq!((fork, clone3, joined), (libc::EPERM, libc::ENOSYS, 7));
    }

    #[test]
    fn sockets_of_families_without_use_are_refused() {
        let open = |family: libc::c_int| {
            call(libc::SYS_socket, [family.into(), libc::SOCK_DGRAM.into(), 0])
        };
        let [inet, alg, vsock] =
            confined(|| [libc::AF_INET, libc::AF_ALG, libc::AF_VSOCK].map(open));
        assert_eq!([inet, alg, vsock], [0, libc::EPERM, libc::EPERM]);
    }
}
