//! What the fuzz targets do with their input, one module per target, apart from the engine that drives them:
//! libFuzzer does, with coverage, in the crates around this one; and the property tests of this crate do,
//! with damaged shapes of [`corpus`], on any toolchain and in every run of the test suite.

pub mod corpus;

pub mod authentication;
pub mod classifier;
pub mod csptp;
pub mod esmc;
pub mod management;
pub mod monitoring;
pub mod nmea;
pub mod node;
pub mod ntp;
pub mod nts;
pub mod readings;
pub mod residence;
pub mod ring_record;
pub mod servo;
pub mod signaling;
pub mod spans;
pub mod tlvs;
pub mod wire_message;

#[cfg(feature = "agent")]
pub mod linuxptp;
#[cfg(feature = "agent")]
pub mod observer;
#[cfg(feature = "agent")]
pub mod recording;
#[cfg(feature = "agent")]
pub mod security;

/// A target: what it is called, what it does with an input, and shapes to begin with.
pub type Target = (&'static str, fn(&[u8]), fn() -> Vec<Vec<u8>>);

/// All targets.
pub const TARGETS: &[Target] = &[
    ("wire_message", wire_message::run, corpus::messages),
    ("tlvs", tlvs::run, corpus::tlvs),
    ("authentication", authentication::run, corpus::messages),
    ("classifier", classifier::run, corpus::frames),
    ("csptp", csptp::run, corpus::exchanges),
    ("esmc", esmc::run, corpus::slow_frames),
    ("management", management::run, corpus::messages),
    ("monitoring", monitoring::run, corpus::messages),
    ("nmea", nmea::run, corpus::sentences),
    ("node", node::run, corpus::recipes),
    ("ntp", ntp::run, corpus::ntp),
    ("nts", nts::run, corpus::nts),
    ("readings", readings::run, corpus::readings),
    ("residence", residence::run, corpus::frames),
    ("ring_record", ring_record::run, corpus::records),
    ("servo", servo::run, corpus::recipes),
    ("signaling", signaling::run, corpus::recipes),
    ("spans", spans::run, corpus::spans),
    #[cfg(feature = "agent")]
    ("observer", observer::run, corpus::recipes),
    #[cfg(feature = "agent")]
    ("recording", recording::run, corpus::recordings),
    #[cfg(feature = "agent")]
    ("linuxptp", linuxptp::run, corpus::configurations),
    #[cfg(feature = "agent")]
    ("security", security::run, corpus::keys_and_messages),
];
