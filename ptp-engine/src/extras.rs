//! What stands behind an Announce and is for people: alternate times (16.3) and the power profile's inaccuracies (IEEE
//! C37.238). It is kept of who announces, bounded, shown, and applied by nobody.

use ptp_common::wire::{AlternateTimeOffset, PowerProfile, Tlvs};

use crate::prelude::*;

/// Alternate times that are kept of an Announce; linuxptp sends up to four.
const MOST: usize = 8;

/// See the module's paragraph.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Extras {
    /// Alternate times, in the order of the message.
    pub alternates: Vec<AlternateTimeOffset>,
    /// Of the power profile.
    pub power: Option<PowerProfile>,
}

impl Extras {
    /// Of the TLVs of an Announce.
    pub fn of(tlvs: &Tlvs<'_>) -> Self {
        Self {
            alternates: AlternateTimeOffset::all(tlvs).take(MOST).collect(),
            power: PowerProfile::find(tlvs),
        }
    }
}
