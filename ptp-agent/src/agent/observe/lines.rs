//! Lines of JSON of an observer.

use serde::Serialize;

use crate::publish::json::Sample;

/// A line of JSON about an offset: the fields of all samples, and whose time it is.
#[derive(Serialize)]
pub(super) struct OffsetLine<'a> {
    pub(super) event: &'static str,
    #[serde(flatten)]
    pub(super) sample: &'a Sample,
    /// `sourcePortIdentity` of the time transmitter.
    pub(super) source_port: String,
    pub(super) vlan: Option<u16>,
}

/// A line of JSON about a time that a local time transmitter claims.
#[derive(Serialize)]
pub(super) struct ClaimLine<'a> {
    pub(super) event: &'static str,
    pub(super) interface: &'a str,
    pub(super) domain: u8,
    pub(super) mono_ns: i64,
    /// Which message's time is claimed.
    pub(super) message: &'static str,
    /// Claimed time minus the stamp taken here.
    pub(super) difference_ns: i64,
    pub(super) source_port: String,
    pub(super) requesting_port: Option<String>,
    pub(super) vlan: Option<u16>,
}
