//! The path delay filter and the way in which delay and Sync are joined to an offset, with the modes
//! and defaults that linuxptp documents (`delay_filter`, `delay_filter_length`, `tsproc_mode`), so
//! that people can compare and migrate.

use super::{DelayInput, PeerDelayInput, ServoOutput, ServoState, SyncInput};
use crate::prelude::*;
use alloc::collections::VecDeque;
use ptp_common::time::Duration;

/// `delay_filter`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum DelayFilterKind {
    /// `moving_median`.
    #[default]
    MovingMedian,
    /// `moving_average`.
    MovingAverage,
}

impl DelayFilterKind {
    /// All of them.
    pub const ALL: [Self; 2] = [Self::MovingMedian, Self::MovingAverage];

    /// The name, as `--servo` takes it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::MovingMedian => "median",
            Self::MovingAverage => "mean",
        }
    }
}

/// `tsproc_mode`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum TimestampMode {
    /// The filtered delay.
    #[default]
    Filter,
    /// The delay of the latest exchange.
    Raw,
    /// The filtered delay; offsets of slow exchanges count less.
    FilterWeight,
    /// The delay of the latest exchange; offsets of slow exchanges count less.
    RawWeight,
}

impl TimestampMode {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Filter, Self::Raw, Self::FilterWeight, Self::RawWeight];

    /// The name, as `--servo` takes it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Filter => "filter",
            Self::Raw => "raw",
            Self::FilterWeight => "filter-weight",
            Self::RawWeight => "raw-weight",
        }
    }

    const fn is_raw(self) -> bool {
        matches!(self, Self::Raw | Self::RawWeight)
    }
    const fn is_weighted(self) -> bool {
        matches!(self, Self::FilterWeight | Self::RawWeight)
    }
}

/// A moving median or average of delays.
#[derive(Clone, Debug)]
pub struct DelayFilter {
    kind: DelayFilterKind,
    length: usize,
    values: VecDeque<Duration>,
    value: Option<Duration>,
}

impl DelayFilter {
    /// Over the last `length` values, at least one.
    pub fn new(kind: DelayFilterKind, length: usize) -> Self {
        Self { kind, length: length.max(1), values: VecDeque::new(), value: None }
    }

    /// Adds a value.
    pub fn push(&mut self, value: Duration) {
        if self.values.len() >= self.length {
            self.values.pop_front();
        }
        self.values.push_back(value);
        self.refresh();
    }

    /// Takes `by` from the values, oldest first.
    fn subtract(&mut self, by: impl Iterator<Item = Duration>) {
        for (value, by) in self.values.iter_mut().zip(by) {
            *value -= by;
        }
        self.refresh();
    }

    fn refresh(&mut self) {
        let n = self.values.len();
        if n == 0 {
            self.value = None;
            return;
        }
        self.value = Some(match self.kind {
            DelayFilterKind::MovingAverage => {
                let sum: i128 = self.values.iter().map(|value| value.as_scaled_nanos()).sum();
                Duration::from_scaled_nanos(sum / n as i128)
            }
            DelayFilterKind::MovingMedian => {
                let mut sorted: Vec<_> = self.values.iter().copied().collect();
                sorted.sort_unstable();
                if n % 2 == 1 { sorted[n / 2] } else { (sorted[n / 2 - 1] + sorted[n / 2]).half() }
            }
        });
    }

    /// The filtered value; `None` before the first one.
    pub const fn value(&self) -> Option<Duration> {
        self.value
    }

    fn clear(&mut self) {
        self.values.clear();
        self.refresh();
    }
}

/// An offset and what it was made of.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Offset {
    /// Clock minus time transmitter, by the mode.
    pub offset: Duration,
    /// The same with the delay of the latest exchange alone.
    pub raw_offset: Duration,
    /// The delay in use.
    pub delay: Duration,
    /// Trust in this offset, above 0 up to 1.
    pub weight: f64,
}

impl Offset {
    /// What a servo says that leaves the clock as it is.
    pub(super) const fn output(&self, frequency_ppb: f64, state: ServoState) -> ServoOutput {
        ServoOutput {
            offset: self.offset,
            raw_offset: self.raw_offset,
            delay: self.delay,
            frequency_ppb,
            step: None,
            state,
            trust: None,
        }
    }
}

/// Joins Sync and Delay_Req (or link delays) on the steered clock.
#[derive(Clone, Debug)]
pub struct TimestampProcessor {
    mode: TimestampMode,
    filter: DelayFilter,
    /// `t2 - t1` and `t2` of the latest Sync.
    forward: Option<SyncInput>,
    backward: Option<DelayInput>,
    raw_delay: Option<Duration>,
    /// For each delay in the filter, how long it was between Delay_Req and Sync.
    held: VecDeque<Duration>,
}

impl TimestampProcessor {
    /// linuxptp's defaults are `Filter`, `MovingMedian` and a length of 10.
    pub fn new(mode: TimestampMode, kind: DelayFilterKind, length: usize) -> Self {
        Self {
            mode,
            filter: DelayFilter::new(kind, length),
            forward: None,
            backward: None,
            raw_delay: None,
            held: VecDeque::new(),
        }
    }

    /// A Sync; `None` before the first delay.
    pub fn sync(&mut self, input: SyncInput) -> Option<Offset> {
        self.forward = Some(input);
        let exchange_delay = self.exchange_delay().map(|(delay, _)| delay);
        let latest = exchange_delay.or(self.raw_delay)?;
        let filtered = self.filter.value()?;
        let delay = if self.mode.is_raw() { latest } else { filtered };
        let mut weight = 1.0;
        let (filtered_ns, latest_ns) = (filtered.as_nanos_f64(), latest.as_nanos_f64());
        if self.mode.is_weighted() && filtered_ns > 0.0 && latest_ns > 0.0 {
            weight = (filtered_ns / latest_ns).min(1.0);
        }
        let forward = input.t2.clock - input.t1;
        Some(Offset { offset: forward - delay, raw_offset: forward - latest, delay, weight })
    }

    /// An answered Delay_Req.
    pub fn delay(&mut self, input: DelayInput) {
        self.backward = Some(input);
        if let Some((delay, held)) = self.exchange_delay() {
            self.push(delay, held);
        }
    }

    /// A link delay.
    pub fn peer_delay(&mut self, input: PeerDelayInput) {
        self.backward = None;
        self.push(input.mean_link_delay, Duration::ZERO);
    }

    fn push(&mut self, delay: Duration, held: Duration) {
        self.raw_delay = Some(delay);
        self.filter.push(delay);
        self.held.push_back(held);
        if self.held.len() > self.filter.values.len() {
            self.held.pop_front();
        }
    }

    /// Path delay from the latest Sync and the latest Delay_Req, and the time between them.
    fn exchange_delay(&self) -> Option<(Duration, Duration)> {
        let (sync, request) = (self.forward?, self.backward?);
        let held = sync.t2.clock - request.t3.clock;
        Some(((held + (request.t4 - sync.t1)).half(), held))
    }

    /// The delays so far were measured while the clock gained `gain_ppb` on the time transmitter,
    /// which is no delay: takes it out of them.
    pub fn remove_gain(&mut self, gain_ppb: f64) {
        let gained =
            |held: Duration| Duration::from_nanos_f64(held.as_secs_f64() * gain_ppb).half();
        self.filter.subtract(self.held.iter().map(|held| gained(*held)));
        self.held.iter_mut().for_each(|held| *held = Duration::ZERO);
        self.raw_delay = self.filter.values.back().copied();
    }

    /// The clock was stepped: times from before cannot be joined with times from now on. Delays stay
    /// what they were.
    pub fn forget_times(&mut self) {
        self.forward = None;
        self.backward = None;
    }

    /// Another path: nothing of the old one is of use.
    pub fn reset(&mut self) {
        self.forget_times();
        self.raw_delay = None;
        self.filter.clear();
        self.held.clear();
    }

    /// The filtered delay.
    pub fn filtered_delay(&self) -> Option<Duration> {
        self.filter.value()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{servo::LocalTime, stamp::StampSource};
    use ptp_common::time::{Ptp, Time};

    fn filtered(kind: DelayFilterKind, values: &[i64]) -> Option<i64> {
        let mut filter = DelayFilter::new(kind, 4);
        for value in values {
            filter.push(Duration::from_nanos(*value));
        }
        filter.value().map(Duration::as_nanos)
    }

    #[test]
    fn the_median_of_an_even_count_lies_between_the_middle_two() {
        let median = DelayFilterKind::MovingMedian;
        assert_eq!(filtered(median, &[]), None);
        assert_eq!(filtered(median, &[7]), Some(7));
        assert_eq!(filtered(median, &[1, 1_000, 3]), Some(3));
        assert_eq!(filtered(median, &[1, 1_000, 3, 5]), Some(4));
        assert_eq!(filtered(median, &[9_999, 1, 1_000, 3, 5]), Some(4));
    }

    #[test]
    fn the_average_is_over_the_last_values_only() {
        let average = DelayFilterKind::MovingAverage;
        assert_eq!(filtered(average, &[9_999, 1, 2, 3, 6]), Some(3));
    }

    fn local(nanos: i64) -> LocalTime {
        let mono = Time::from_nanos(nanos);
        LocalTime {
            mono,
            clock: Time::from_nanos(nanos),
            source: StampSource::Simulated,
            doubt: Duration::ZERO,
            told_within: None,
        }
    }

    /// Offsets after ten exchanges of 100 ns each way and one Sync that took 300 ns.
    fn after_a_slow_sync(mode: TimestampMode) -> Offset {
        let mut processor = TimestampProcessor::new(mode, DelayFilterKind::MovingMedian, 10);
        let mut last = None;
        for n in 0..10_i64 {
            let at = n * 1_000_000;
            let slow = if n == 9 { 200 } else { 0 };
            let t1 = Time::<Ptp>::from_nanos(at);
            let t2 = local(at + 100 + slow);
            last = processor.sync(SyncInput {
                t1,
                t2,
                sequence_id: 0,
                log_interval: None,
                correction: Duration::ZERO,
            });
            let t3 = local(at + 500);
            processor.delay(DelayInput {
                t3,
                t4: Time::from_nanos(at + 600),
                sequence_id: 0,
                correction: Duration::ZERO,
            });
        }
        last.unwrap()
    }

    #[test]
    fn filter_modes_take_the_median_and_raw_modes_the_latest_delay() {
        let offset = after_a_slow_sync(TimestampMode::Filter);
        assert_eq!((offset.offset.as_nanos(), offset.weight), (200, 1.0));
        assert_eq!(offset.raw_offset.as_nanos(), 100);
        let offset = after_a_slow_sync(TimestampMode::Raw);
        assert_eq!((offset.offset.as_nanos(), offset.delay.as_nanos()), (100, 200));
    }

    #[test]
    fn weighted_modes_trust_a_slow_exchange_less() {
        let offset = after_a_slow_sync(TimestampMode::FilterWeight);
        assert_eq!((offset.offset.as_nanos(), offset.weight), (200, 0.5));
        let offset = after_a_slow_sync(TimestampMode::RawWeight);
        assert_eq!((offset.offset.as_nanos(), offset.weight), (100, 0.5));
    }
}
