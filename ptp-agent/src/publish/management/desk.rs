//! What the loop that keeps time and those who answer management messages leave for each other: data sets one way,
//! settings the other, and what happens to whoever has subscribed. Neither waits, and nothing grows.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU8, Ordering},
    },
};

use ptp_common::wire::management::ManagementEvent;
use tokio::sync::Notify;

use super::{DataSets, Happening, Outcome, Setting};

/// Settings that wait for the loop; each kind of each port once.
const MAX_SETTINGS: usize = 128;
/// Happenings that wait to be told; the oldest goes for another.
const MAX_HAPPENINGS: usize = 256;

/// See the module's paragraph. Clones are the same.
#[derive(Clone, Debug, Default)]
pub struct Desk(Arc<Inner>);

#[derive(Debug, Default)]
struct Inner {
    shared: Mutex<Shared>,
    /// The events that anybody wants to be told of, as bits.
    wanted: AtomicU8,
    wake: Notify,
}

#[derive(Debug, Default)]
struct Shared {
    sets: Option<Arc<DataSets>>,
    settings: Vec<Setting>,
    happenings: VecDeque<Happening>,
    figures: Option<ManagementFigures>,
}

/// What has become of requests, and who is told what happens.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ManagementFigures {
    /// Requests by outcome.
    pub requests: BTreeMap<&'static str, u64>,
    /// Those that have subscribed.
    pub subscribers: usize,
    /// Happenings that were told, and those that were not: nobody took them, or there were too many.
    pub told: u64,
    /// See above.
    pub untold: u64,
    /// Messages of slave event monitoring, by outcome: `sent`, or `unsent` since nobody took them; `received`, `malformed`
    /// and `dropped` by who listens.
    pub slave_events: BTreeMap<&'static str, u64>,
}

impl Desk {
    /// Sets what requests are answered with.
    pub fn set_data_sets(&self, sets: DataSets) {
        self.lock().sets = Some(Arc::new(sets));
    }

    /// What requests are answered with, once there is anything.
    pub fn data_sets(&self) -> Option<Arc<DataSets>> {
        self.lock().sets.clone()
    }

    /// Changes what requests are answered with until it is set anew.
    pub fn update(&self, change: impl FnOnce(&mut DataSets)) {
        if let Some(sets) = &mut self.lock().sets {
            change(Arc::make_mut(sets));
        }
    }

    /// Keeps a setting for [`Self::take_settings`]; GET shows it at once. False where too many wait.
    pub fn add_setting(&self, setting: Setting) -> bool {
        let mut shared = self.lock();
        shared.settings.retain(|each| !each.is_replaced_by(&setting));
        if shared.settings.len() >= MAX_SETTINGS {
            return false;
        }
        shared.settings.push(setting);
        if let Some(sets) = &mut shared.sets {
            Arc::make_mut(sets).set(setting);
        }
        true
    }

    /// What has been set since the last call, in its order.
    pub fn take_settings(&self) -> impl Iterator<Item = Setting> + use<> {
        std::mem::take(&mut self.lock().settings).into_iter()
    }

    /// Whether anybody wants to be told of this.
    pub fn wants(&self, event: ManagementEvent) -> bool {
        self.0.wanted.load(Ordering::Relaxed) & 1 << event as u8 != 0
    }

    /// Something happens: whoever wants to be told of it will be.
    pub fn happen(&self, happening: Happening) {
        if !self.wants(happening.event) {
            return;
        }
        let mut shared = self.lock();
        if shared.happenings.len() >= MAX_HAPPENINGS {
            shared.happenings.pop_front();
            shared.figures.get_or_insert_default().untold += 1;
        }
        shared.happenings.push_back(happening);
        drop(shared);
        self.0.wake.notify_one();
    }

    /// Waits until something may have happened.
    pub async fn woken(&self) {
        self.0.wake.notified().await;
    }

    /// What has happened since the last call.
    pub fn take_happenings(&self) -> VecDeque<Happening> {
        std::mem::take(&mut self.lock().happenings)
    }

    /// Who answers says which events anybody wants (as bits), and how many there are.
    pub fn set_subscribed(&self, wanted: u8, subscribers: usize) {
        self.0.wanted.store(wanted, Ordering::Relaxed);
        self.lock().figures.get_or_insert_default().subscribers = subscribers;
    }

    /// Counts a request.
    pub fn count(&self, outcome: Outcome) {
        let mut shared = self.lock();
        let requests = &mut shared.figures.get_or_insert_default().requests;
        *requests.entry(outcome.name()).or_default() += 1;
    }

    /// Counts what was told, or could not be.
    pub fn count_told(&self, is_told: bool) {
        let mut shared = self.lock();
        let figures = shared.figures.get_or_insert_default();
        let count = if is_told { &mut figures.told } else { &mut figures.untold };
        *count += 1;
    }

    /// Says what has become of messages of slave event monitoring.
    pub fn set_slave_events(&self, by_outcome: BTreeMap<&'static str, u64>) {
        self.lock().figures.get_or_insert_default().slave_events = by_outcome;
    }

    /// The figures, where anything is answered.
    pub fn figures(&self) -> Option<ManagementFigures> {
        self.lock().figures.clone()
    }

    fn lock(&self) -> MutexGuard<'_, Shared> {
        self.0.shared.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::publish::management::{PortSetting, tests::data_sets};
    use ptp_common::wire::management::ManagementData;

    #[test]
    fn settings_of_a_kind_replace_each_other_and_are_shown_at_once() {
        let desk = Desk::default();
        desk.set_data_sets(data_sets());
        for n in 0..=u8::MAX {
            assert!(desk.add_setting(Setting::Priority1(n)));
        }
        assert_eq!(desk.data_sets().unwrap().default.priority1, 255);
        for port in [1, 2, u16::MAX] {
            desk.add_setting(Setting::Port(port, PortSetting::LogSyncInterval(-3)));
        }
        let taken: Vec<_> = desk.take_settings().collect();
        // What is for all replaces what was for one.
        let all = Setting::Port(u16::MAX, PortSetting::LogSyncInterval(-3));
        assert_eq!(taken, [Setting::Priority1(255), all]);
        assert_eq!(desk.take_settings().count(), 0);
    }

    #[test]
    fn settings_are_bounded() {
        let desk = Desk::default();
        let kept = (0..1_000)
            .filter(|port| desk.add_setting(Setting::Port(*port, PortSetting::Enabled(true))));
        assert_eq!(kept.count(), MAX_SETTINGS);
    }

    #[test]
    fn what_nobody_wants_is_not_kept_and_what_nobody_takes_is_bounded() {
        let desk = Desk::default();
        let data = ManagementData::Priority1(1);
        let happening = Happening { event: ManagementEvent::TimeSync, port_number: 0, data };
        desk.happen(happening);
        assert!(desk.take_happenings().is_empty());
        desk.set_subscribed(0b10, 1);
        for _ in 0..MAX_HAPPENINGS + 3 {
            desk.happen(happening);
        }
        assert_eq!(desk.take_happenings().len(), MAX_HAPPENINGS);
        assert_eq!(desk.figures().unwrap().untold, 3);
    }
}
