//! A leap second that management has announced (`SET GRANDMASTER_SETTINGS_NP`, `UTC_PROPERTIES`): once it has come, it is
//! announced no more, and the UTC offset is the one after it. Who follows would order another one for the next day.

use super::*;
use ptp_common::data_set::TimeProperties;

const DAY_S: i64 = 86_400;

impl Instance {
    /// To be called before anything is announced.
    pub(super) fn pass_leap(&mut self, cx: &Cx<'_>) {
        let told = self.managed.time_properties.filter(|told| told.leap61 || told.leap59);
        let (Some(told), Some(time)) = (told, cx.clock.at(cx.now)) else { return };
        let utc = time - told.utc_offset().best();
        let second = utc.as_nanos().div_euclid(1_000_000_000);
        let midnight = (second.div_euclid(DAY_S) + 1) * DAY_S;
        if second < *self.managed.leap_at.get_or_insert(midnight) {
            return;
        }
        let more = i16::from(told.leap61) - i16::from(told.leap59);
        let current_utc_offset = told.current_utc_offset.saturating_add(more);
        let passed = TimeProperties { current_utc_offset, leap61: false, leap59: false, ..told };
        self.managed.time_properties = Some(passed);
        self.served.time_properties = passed;
        self.managed.leap_at = None;
    }
}
