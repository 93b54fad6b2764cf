//! What a relay of IEEE 802.1AS passes on (IEEE 802.1AS-2020, 11.2.14 and 11.2.15): the grandmaster's
//! `preciseOriginTimestamp` as it is, in `correctionField` what has passed since, and the rate of the grandmaster over that
//! of the own clock, which is what the sender says times the rate of the neighbour. A Sync goes on as it comes
//! (`syncLocked`), unless somebody behind has asked for another interval: then the last one does.

use ptp_common::{
    time::{Duration, Mono, Ptp, Time},
    wire::{Deviation, TimeInterval, Timestamp, gptp::FollowUpInformation},
};

use super::{Cx, Instance};
use crate::{contention::RelayTime, port::Role};

/// What no clock gains or loses in a second: it has been set.
const SET: f64 = 1e-3;

/// What was said of a Sync.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Said {
    pub(crate) sequence_id: u16,
    /// `preciseOriginTimestamp`.
    pub(crate) origin: Timestamp,
    /// The corrections of Sync and Follow_Up.
    pub(crate) correction: Duration,
    pub(crate) information: FollowUpInformation,
}

/// The last Sync of the parent.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Passed {
    epoch: u64,
    origin: Timestamp,
    /// What has passed since until it was here, in the grandmaster's time.
    correction: Duration,
    arrived: Time<Mono>,
    /// The rate of the grandmaster over that of the monotonic clock.
    rate_ratio: f64,
    information: FollowUpInformation,
    log_interval: i8,
    /// After this it is too old to be passed on.
    until: Time<Mono>,
}

/// See the module's paragraph.
#[derive(Debug, Default)]
pub(crate) struct Relay {
    passed: Option<Passed>,
    /// `gmTimeBaseIndicator` of the own time: how often this clock has become the source of its own time.
    time_base: u16,
}

/// Whose time a port sends.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Source {
    /// That of this clock.
    Own,
    /// The parent's.
    Parent(Passed),
    /// None, as there is none at present.
    Nobody,
}

/// What a Follow_Up tells.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Told {
    pub(crate) origin: Timestamp,
    pub(crate) correction: TimeInterval,
    pub(crate) information: FollowUpInformation,
    pub(crate) deviation: Option<Deviation>,
}

/// What is known of the grandmaster's time beside the time itself.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct GrandmasterTime {
    /// The rate of the grandmaster over that of this host's monotonic clock, as all neighbours on the way say it.
    pub rate_ratio: f64,
    /// `gmTimeBaseIndicator`: counts changes of the source of the grandmaster's time.
    pub time_base_indicator: u16,
    /// `lastGmPhaseChange`.
    pub last_phase_change: Duration,
}

impl Instance {
    /// What the parent's Follow_Up says of the grandmaster's time, with the rules of IEEE 802.1AS.
    pub fn grandmaster_time(&self) -> Option<GrandmasterTime> {
        let passed = self.passed()?;
        Some(GrandmasterTime {
            rate_ratio: passed.rate_ratio,
            time_base_indicator: passed.information.gm_time_base_indicator,
            last_phase_change: passed.information.phase_change(),
        })
    }

    /// Whose time it passes on, where it is a relay.
    pub fn relay_time(&self) -> Option<RelayTime> {
        let is_one = self.ports.len() > 1 && self.ports.iter().any(|it| it.config.rules.are_gptp());
        let standing = self.standing.as_ref().filter(|_| is_one);
        standing.map(|standing| standing.contention.relay)
    }

    fn passed(&self) -> Option<Passed> {
        self.relay.passed.filter(|passed| Some(passed.epoch) == self.parent.map(|it| it.epoch))
    }

    /// Whether the parent's time is passed on whatever the own clock makes of it.
    pub(super) fn passes_on_unlocked(&self) -> bool {
        self.relay_time() == Some(RelayTime::Residence) && self.passed().is_some()
    }

    /// A Sync of the parent has come whole, at `arrived`.
    pub(crate) fn pass_on(
        &mut self,
        cx: &mut Cx<'_>,
        index: usize,
        said: Said,
        arrived: Time<Mono>,
        log_interval: Option<i8>,
    ) {
        let Some(parent) = self.parent else { return };
        let port = &self.ports[index];
        if !port.config.rules.are_gptp() {
            return;
        }
        let rate_ratio =
            said.information.rate_ratio() * port.link.neighbor_rate_ratio.unwrap_or(1.0);
        let delay = port.link.delay.unwrap_or(Duration::ZERO);
        let log_interval = log_interval.unwrap_or(self.served.log_sync_interval);
        let interval = Duration::from_log_interval(log_interval);
        let last = self.passed();
        let passed = Passed {
            epoch: parent.epoch,
            origin: said.origin,
            correction: said.correction + port.config.delay_asymmetry + scaled(delay, rate_ratio),
            arrived,
            rate_ratio,
            information: said.information,
            log_interval,
            until: arrived + port.config.sync_patience(log_interval),
        };
        self.relay.passed = Some(passed);
        match self.relay_time() {
            None => return,
            Some(RelayTime::Residence) => self.locked(),
            Some(RelayTime::Clock) => {}
        }
        // A parent that sends more often than it says does not make more of what goes on.
        if last.is_some_and(|last| (arrived - last.arrived) * 4 < interval) {
            return;
        }
        for to in 0..self.ports.len() {
            if matches!(self.ports[to].role, Role::Transmitter(_))
                && self.ports[to].is_capable
                && self.is_sync_locked(to)
            {
                self.send_sync(cx, to);
            }
        }
    }

    /// `syncLocked`: whether a port sends a Sync when one comes, and not by its own interval.
    pub(super) fn is_sync_locked(&self, index: usize) -> bool {
        let interval = self.log_sync_interval(index);
        self.relay_time().is_some()
            && self.passed().is_some_and(|passed| passed.log_interval == interval)
    }

    /// Whose time is sent at `now`.
    fn source(&self, now: Time<Mono>) -> Source {
        if self.relay_time().is_none() {
            return Source::Own;
        }
        match (self.parent, self.passed()) {
            (Some(_), Some(passed)) if now <= passed.until => Source::Parent(passed),
            (Some(_), _) => Source::Nobody,
            // Where roles are fixed the time is that of the port which follows, or there is none.
            (None, _) if self.is_fixed_to_follow() => Source::Nobody,
            (None, _) => Source::Own,
        }
    }

    /// Whether there is a time to send at `now`.
    pub(super) fn has_time(&self, now: Time<Mono>) -> bool {
        self.tells_time() && self.source(now) != Source::Nobody
    }

    /// What the Follow_Up of a Sync tells that left at `sent`; `None` where that is not known.
    pub(super) fn told(&self, cx: &Cx<'_>, sent: Time<Mono>) -> Option<Told> {
        match self.source(sent) {
            Source::Nobody => None,
            Source::Own => {
                let (origin, correction) = Timestamp::from_time(cx.clock.at(sent)?);
                let information = FollowUpInformation {
                    gm_time_base_indicator: self.relay.time_base,
                    ..FollowUpInformation::default()
                };
                let information = information.with_rate_ratio(self.own_rate(cx, sent));
                let deviation = self.deviation(cx, sent, cx.clock.at(sent)?);
                Some(Told { origin, correction, information, deviation })
            }
            Source::Parent(passed) => {
                let correction = match self.relay_time() {
                    Some(RelayTime::Clock) => cx.clock.at(sent)? - Time::<Ptp>::from(passed.origin),
                    _ => passed.correction + scaled(sent - passed.arrived, passed.rate_ratio),
                };
                let told = Time::<Ptp>::from(passed.origin) + correction;
                Some(Told {
                    origin: passed.origin,
                    correction: correction.into(),
                    deviation: self.deviation(cx, sent, told),
                    information: passed.information.with_rate_ratio(passed.rate_ratio),
                })
            }
        }
    }

    /// How far `told`, which this clock says that it was at `at`, may be from the grandmaster's time: its own bound, and by how much it
    /// says something else than its clock. `None` while it follows nobody, and where it does not know.
    pub(super) fn deviation(
        &self,
        cx: &Cx<'_>,
        at: Time<Mono>,
        told: Time<Ptp>,
    ) -> Option<Deviation> {
        if self.parent.is_none() || !self.served.tells_brackets {
            return None;
        }
        let error = cx.clock.error_at(at)?;
        let beyond = told - cx.clock.at(at)?;
        Deviation::of(error.lo + beyond, error.hi + beyond)
    }

    /// The rate of the clock that is served over that of the one by which Pdelay_Req are answered.
    fn own_rate(&self, cx: &Cx<'_>, at: Time<Mono>) -> f64 {
        if !self.may_take_either_role() {
            return 1.0;
        }
        let second = Duration::from_secs(1);
        let (Some(end), Some(begin)) = (cx.clock.at(at), cx.clock.at(at - second)) else {
            return 1.0;
        };
        let rate = (end - begin).as_nanos_f64() / second.as_nanos_f64();
        if (1.0 - SET..1.0 + SET).contains(&rate) { rate } else { 1.0 }
    }

    /// The time is that of this clock from now on.
    pub(super) fn became_source(&mut self) {
        if self.relay.passed.take().is_some() {
            self.relay.time_base = self.relay.time_base.wrapping_add(1);
        }
    }
}

/// A span of the local clock in the grandmaster's time.
fn scaled(span: Duration, rate_ratio: f64) -> Duration {
    span + Duration::from_nanos_f64(span.as_nanos_f64() * (rate_ratio - 1.0))
}
