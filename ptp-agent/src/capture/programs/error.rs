//! Why no stamps can be had, in words that say what to do.

use std::io;

use aya::maps::MapError;
use caps::{CapSet, Capability};
use nix::sys::resource::{Resource, getrlimit};

/// Why no stamps can be had.
#[derive(Debug, thiserror::Error)]
pub enum CaptureError {
    /// The process may not load programs.
    #[error(
        "may not load eBPF programs: needs CAP_BPF, CAP_NET_ADMIN and CAP_PERFMON (or root; before Linux 5.8 CAP_SYS_ADMIN){missing}"
    )]
    Privilege {
        /// Those of them that the process has not, in words.
        missing: String,
        /// What the kernel said.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The kernel lacks something that there is no substitute for.
    #[error(
        "this kernel ({kernel}) cannot run the programs: {reason}; Linux 5.8 or later with CONFIG_BPF_SYSCALL and CONFIG_DEBUG_INFO_BTF is needed"
    )]
    Kernel {
        /// Version of the kernel.
        kernel: String,
        /// What failed.
        reason: String,
    },
    /// The process may open no more files, and each program and map is one.
    #[error(
        "cannot load the eBPF programs: this process may have {limit} files open, which is too few; raise the limit (ulimit -n 256, or LimitNOFILE= of the service)"
    )]
    Descriptors {
        /// `RLIMIT_NOFILE`.
        limit: u64,
    },
    /// The interface is not there.
    #[error("interface {0} does not exist")]
    NoInterface(String),
    /// Its packets are not what the programs look for.
    #[error(
        "packets of {0} have no Ethernet header, which the programs look for to find PTP: use the interface below the tunnel, or a tunnel that carries Ethernet (vxlan, gretap, tap)"
    )]
    NotEthernet(String),
    /// A hook refused the program.
    #[error("cannot attach {program} to {interface}: {source}")]
    Attach {
        /// Name of the program.
        program: &'static str,
        /// Name of the interface.
        interface: String,
        /// What the kernel said.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// Reading counters failed.
    #[error("cannot read map {0}: {1}")]
    Map(&'static str, #[source] MapError),
}

impl CaptureError {
    /// Whether the host lacks something, rather than something having gone wrong.
    pub const fn is_missing_on_host(&self) -> bool {
        !matches!(self, Self::Map(..))
    }

    pub(crate) fn load(error: impl std::error::Error + Send + Sync + 'static) -> Self {
        // The verifier says EACCES, for programs that are wrong and for programs that may not do what
        // they do without CAP_PERFMON.
        let missing = missing_capabilities();
        match error_code(&error) {
            Some(libc::EPERM) => return Self::Privilege { missing, source: Box::new(error) },
            Some(libc::EACCES) if !missing.is_empty() => {
                return Self::Privilege { missing, source: Box::new(error) };
            }
            Some(libc::EMFILE | libc::ENFILE) => {
                let limit = getrlimit(Resource::RLIMIT_NOFILE).map_or(0, |(soft, _)| soft);
                return Self::Descriptors { limit };
            }
            _ => {}
        }
        let kernel = kernel_release();
        Self::Kernel { kernel, reason: chain(&error) }
    }
}

/// The first error number of the kernel's in an error and what caused it.
fn error_code(error: &(dyn std::error::Error + 'static)) -> Option<i32> {
    causes(error)
        .find_map(|cause| cause.downcast_ref::<io::Error>().and_then(io::Error::raw_os_error))
}

/// Which of the needed capabilities the process has not, for a message; empty where it has them all,
/// or the one that includes them.
fn missing_capabilities() -> String {
    use Capability::{CAP_BPF, CAP_NET_ADMIN, CAP_PERFMON, CAP_SYS_ADMIN};
    let Ok(effective) = caps::read(None, CapSet::Effective) else {
        return String::new();
    };
    let missing: Vec<String> = [CAP_BPF, CAP_NET_ADMIN, CAP_PERFMON]
        .into_iter()
        .filter(|needed| {
            let included = *needed != CAP_NET_ADMIN && effective.contains(&CAP_SYS_ADMIN);
            !effective.contains(needed) && !included
        })
        .map(|missing| missing.to_string())
        .collect();
    if missing.is_empty() { String::new() } else { format!("; missing: {}", missing.join(", ")) }
}

/// An error and what caused it, outermost first.
pub(crate) fn causes<'a>(
    error: &'a (dyn std::error::Error + 'static),
) -> impl Iterator<Item = &'a (dyn std::error::Error + 'static)> {
    std::iter::successors(Some(error), |error| error.source())
}

fn chain(error: &(dyn std::error::Error + 'static)) -> String {
    let mut text = error.to_string();
    for cause in causes(error).skip(1) {
        let more = cause.to_string();
        if !text.contains(&more) {
            text = format!("{text}: {more}");
        }
    }
    text
}

/// Release of the running kernel.
pub(crate) fn kernel_release() -> String {
    nix::sys::utsname::uname()
        .map(|name| name.release().to_string_lossy().into_owned())
        .unwrap_or_else(|_| "unknown".to_owned())
}

pub(crate) fn attach_error<E>(
    program: &'static str,
    interface: &str,
) -> impl FnOnce(E) -> CaptureError + use<E>
where
    E: std::error::Error + Send + Sync + 'static,
{
    let interface = interface.to_owned();
    move |error| {
        let code = error_code(&error);
        match CaptureError::load(error) {
            CaptureError::Kernel { reason, .. } => {
                let source = Box::new(Refusal { reason, code });
                CaptureError::Attach { program, interface, source }
            }
            other => other,
        }
    }
}

/// What the kernel said when it refused to attach a program.
#[derive(Debug, thiserror::Error)]
#[error("{reason}")]
pub(super) struct Refusal {
    reason: String,
    code: Option<i32>,
}

impl Refusal {
    /// Whether somebody else has the place. XDP in the driver and behind it exclude each other.
    pub(super) fn is_taken(&self) -> bool {
        matches!(self.code, Some(libc::EBUSY | libc::EEXIST))
    }
}
