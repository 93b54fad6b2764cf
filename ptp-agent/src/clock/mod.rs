//! The clocks of the host that can be followed with, beside those of [`ptp_engine::clock`] that are only
//! numbers: the host's own and hardware clocks, and what is known of others who steer them.

pub mod followed;
pub mod frequency;
pub mod phc;
pub mod relation;
pub mod rivals;
pub mod saved;
pub mod system;

pub use ptp_engine::clock::*;
