//! The agent as a library. Data flows in one direction: packet -> hook -> ring record -> [`capture`]
//! pairs it with the message that passed the host's firewall on the socket ([`transport`]) ->
//! [`engine`] turns stamps into measurements -> [`servo`] turns measurements into offset, delay and
//! frequency -> [`clock`] is steered and [`publish`] tells. `engine` and `servo` are the crate
//! `ptp-engine`, which never touches a socket, a clock of the host or a runtime: it is given `now` and
//! inputs and returns actions.
#![deny(unsafe_code)]

// Clocks, stamps and the kernel's time structures are taken in words of 64 bits, and stamps go from one processor to
// another in such words without a lock (see `in_flight` of the kernel programs): on a 32-bit machine a stamp could be
// put together of two. A bound that may be false is worse than no agent.
#[cfg(not(target_pointer_width = "64"))]
compile_error!(
    "ptp-agent is for 64-bit machines: on 32-bit ones a stamp that another processor is writing may be read half, \
     and the error bound would not hold"
);

#[macro_use]
mod object;

pub mod agent;
pub mod answers;
pub mod bench;
pub mod capture;
pub mod cli;
pub mod clock;
pub mod compare;
pub mod doctor;
pub mod lab;
pub mod linuxptp;
pub mod publish;
pub mod recording;
pub mod security;
pub mod sim;
pub mod status;
pub mod synce;
pub mod sys;
pub mod trace;
pub mod transparent;
pub mod transport;
pub mod zones;

pub use ptp_engine as engine;
pub use ptp_engine::{limits, servo, stamp};
