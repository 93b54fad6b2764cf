//! Which pulse per second is watched, and what for.

use crate::pulse;

/// What a pulse is for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum PulsePart {
    /// The source that is followed is held against it.
    #[default]
    Witness,
    /// The clock follows it; the others say which second it is.
    Source,
}

/// A pulse per second, and who says which seconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PulseConfig {
    /// What is known of it.
    pub pulse: pulse::Config,
    /// What for.
    pub part: PulsePart,
    /// A receiver tells by a serial line: the earliest time that is believed of it, seconds since 1970.
    pub nmea_earliest: Option<i64>,
    /// The clock that follows is to show TAI, so many seconds ahead of UTC; `None`: it shows UTC.
    pub tai_offset_s: Option<i16>,
}
