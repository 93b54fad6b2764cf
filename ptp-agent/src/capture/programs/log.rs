//! What the kernel programs say of their decisions, in the log of the agent: the answer to "why does the
//! program not see this packet?". For that another object is loaded, built from the same source, which is
//! never in the way of stamps otherwise.

use aya::Ebpf;
use aya_log::EbpfLogger;
use log::{Log, Metadata, Record};

/// What switches it on: `-vvv`, or this name in `PTP_AGENT_LOG`.
pub(crate) const TARGET: &str = "ptp_agent::kernel";

/// The programs with the log, as compiled by `cargo xtask ebpf build`.
pub(super) static OBJECT: &[u8] = kernel_programs!("ptp-agent-debug");

/// Whether somebody wants to read it.
pub(super) fn is_wanted() -> bool {
    tracing::enabled!(target: TARGET, tracing::Level::TRACE)
}

/// Carries lines from the ring of the programs to the log.
pub(super) struct KernelLog(EbpfLogger<ToTracing>);

impl KernelLog {
    /// Of an object that has such a ring.
    pub(super) fn of(ebpf: &mut Ebpf) -> Option<Self> {
        EbpfLogger::init_with_logger(ebpf, ToTracing).ok().map(Self)
    }

    /// Writes what has been said since.
    pub(super) fn flush(&mut self) {
        self.0.flush();
    }
}

struct ToTracing;

impl Log for ToTracing {
    fn enabled(&self, _: &Metadata<'_>) -> bool {
        true
    }

    fn log(&self, record: &Record<'_>) {
        tracing::trace!(target: TARGET, "{}", record.args());
    }

    fn flush(&self) {}
}
