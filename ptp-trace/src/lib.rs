//! What traces of several hosts are worth. Each host stamps spans with its own clock; where it is known
//! how far that clock was from a common grandmaster, and to within what, times can be corrected, and of
//! two events on different hosts it can be said whether their order is certain, cannot be told, or is
//! impossible, which means that a clock lied. Nothing is guessed: a host of which nothing is known says
//! so in each verdict.
//!
//! Data flows in one direction: [`input`] reads spans part by part (OTLP as JSON or protobuf, Jaeger's
//! JSON), [`correct`] asks the host's [`clocks`] what its stamps were worth, [`judge`] keeps what must be
//! compared until a trace is complete and tells the verdicts. Clocks are known from [`readings`] that the
//! agent has printed, or from [`prometheus`]. No sockets and no files here: whoever calls opens them.
#![forbid(unsafe_code)]

pub mod attributes;
pub mod clocks;
pub mod correct;
pub mod input;
pub mod judge;
pub mod names;
pub mod prometheus;
pub mod readings;
pub mod span;
