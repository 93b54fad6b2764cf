//! What kernel programs and user space must agree on: the PTP wire format, the packet classifier,
//! the time types with their scales and the layouts of ring record and packet metadata. `no_std`, no
//! I/O, no unsafe code, so that the same source compiles for `bpfel-unknown-none`, for the agent and
//! for fuzzers.
#![no_std]
#![forbid(unsafe_code)]

pub mod answer;
pub mod classify;
pub mod esmc;
pub mod hint;
pub mod interrupts;
pub mod ntp;
pub mod record;
pub mod residence;
pub mod time;
pub mod wire;

pub use wire::data_set;
