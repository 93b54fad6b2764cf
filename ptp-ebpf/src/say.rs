//! What the programs say of their decisions, with feature `log`: another object, loaded where somebody asks
//! why a packet is not seen. Without the feature nothing of it is there, not even its arguments.

/// A line for whoever reads the log: a context, a format and its arguments.
#[cfg(feature = "log")]
macro_rules! say {
    ($($line:tt)*) => {
        aya_log_ebpf::trace!($($line)*)
    };
}

#[cfg(not(feature = "log"))]
macro_rules! say {
    ($($line:tt)*) => {};
}
