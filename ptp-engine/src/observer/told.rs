//! What ports tell behind their messages that is about time and no time itself: Follow_Up information and message interval
//! request of IEEE 802.1AS, and how far from the grandmaster a clock of ours says that it is. The last of each is kept of a port, and shown.

use ptp_common::wire::{
    Deviation, Tlvs,
    gptp::{FollowUpInformation, IntervalRequest},
};

/// See the module's paragraph.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Told {
    /// Of its last Follow_Up that has one.
    pub information: Option<FollowUpInformation>,
    /// What it has asked its neighbour for last.
    pub asked: Option<IntervalRequest>,
    /// Of its last Follow_Up; `None` where that has none.
    pub deviation: Option<Deviation>,
}

impl Told {
    pub(super) fn by_follow_up(&mut self, tlvs: &Tlvs<'_>) {
        self.information = FollowUpInformation::find(tlvs).or(self.information);
        self.deviation = Deviation::find(tlvs);
    }

    pub(super) fn by_signaling(&mut self, tlvs: &Tlvs<'_>) {
        self.asked = IntervalRequest::find(tlvs).or(self.asked);
    }
}
