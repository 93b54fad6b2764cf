//! Everything that the compiler cannot check: raw system calls, and the calls whose safety rests on
//! a promise of the caller. The rest of the crate forbids `unsafe`; what it needs from here has a
//! safe signature, and every block here says why it holds.
#![expect(unsafe_code, reason = "the one module where system calls are wrapped")]

pub mod child;
pub mod clock;
pub mod packet;
