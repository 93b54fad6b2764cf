//! What is wrong with time-keeping, as an enumerated set of alarms that are raised and cleared with
//! hysteresis. Sans-I/O: [`Alarms::update`] is told the time and the facts, about once a second, and
//! answers with what has changed; log, status and metrics are for the caller. Rates are judged over
//! a sliding window that holds several message intervals, so no single lost packet raises anything.

mod hysteresis;
mod kinds;
#[cfg(test)]
mod tests;
mod window;

use std::collections::BTreeMap;

use ptp_common::{
    time::{Duration, Mono, Time},
    wire::ClockIdentity,
};

use crate::{engine::receiver::RoundTripTrend, publish::text::nanos, servo::ServoState};
use hysteresis::Hysteresis;
pub use kinds::{Alarm, Role};
use window::Window;

/// Default of [`Limits::offset`].
pub const DEFAULT_OFFSET_LIMIT: Duration = Duration::from_nanos(100_000);
/// A grandmaster on the PTP time scale that does not say what TAI minus UTC is.
const USUAL_UTC_OFFSET: i64 = 37;
/// An offset this near to TAI minus UTC is no offset but a confusion of time scales.
const TIME_SCALE_SLACK: Duration = Duration::from_millis(100);

/// One sample in so many may contradict the others.
const DOUBTFUL: u64 = 10;
/// Fewer messages in the window that could not be taken are no flood: a wrong checksum counts as one too.
const FLOOD: u64 = 100;
/// Fewer messages in the window that authentication refuses are an accident.
const UNAUTHENTIC: u64 = 3;
/// Fewer messages in the window that nobody sends by himself are an accident,
const ODDITIES: u64 = 5;
/// and so are fewer than one in so many that are used.
const ODD_SHARE: u64 = 50;

/// Totals since the start, over all ports.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Totals {
    /// Sync messages that became measurements.
    pub syncs: u64,
    /// Two-step Sync messages whose Follow_Up did not come.
    pub follow_ups_missing: u64,
    /// Requests for the path or link delay that became measurements.
    pub delays: u64,
    /// Such requests without an answer.
    pub delays_unanswered: u64,
    /// Received event messages with a stamp.
    pub rx_stamps: u64,
    /// And without.
    pub rx_stamps_missing: u64,
    /// Sent event messages with a stamp.
    pub tx_stamps: u64,
    /// And without.
    pub tx_stamps_missing: u64,
    /// Sent event messages whose stamps were not used because something came between them.
    pub tx_interrupted: u64,
    /// Stamps that came from another point than the chosen one.
    pub fallbacks: u64,
    /// Records that the ring had no room for.
    pub ring_lost: u64,
    /// Adjustments of the clock that failed.
    pub clock_errors: u64,
    /// Steps of the clock.
    pub clock_steps: u64,
    /// Samples that contradicted the others.
    pub contradictions: u64,
    /// Messages whose number had passed already.
    pub replayed: u64,
    /// Messages that said again what had been said, and packets seen twice.
    pub duplicate: u64,
    /// Messages in this clock's own name.
    pub self_sent: u64,
    /// Answers that nobody had asked for, or that a second one gave.
    pub unmatched: u64,
    /// Announce messages that contradicted what their sender had said.
    pub unconfirmed: u64,
    /// Announce messages for which there was no room.
    pub table_full: u64,
    /// Exchanges whose path delay cannot be.
    pub implausible: u64,
    /// Messages that came faster than they were taken: the kernel, or this program, had no room for them, or held back who
    /// sent them.
    pub overflowed: u64,
    /// Requests that were not answered because there were too many.
    pub refused: u64,
    /// Messages in the time transmitter's name from another address.
    pub other_address: u64,
    /// Messages of time transmitters that are not among the acceptable senders.
    pub other_sender: u64,
    /// Messages that should have been authenticated and were not.
    pub unauthentic: u64,
    /// Packets that were stamped and never came out of the socket.
    pub rx_orphaned: u64,
}

impl Totals {
    /// What nobody sends by himself.
    const fn oddities(&self) -> u64 {
        self.replayed
            .saturating_add(self.duplicate)
            .saturating_add(self.self_sent)
            .saturating_add(self.unmatched)
            .saturating_add(self.unconfirmed)
            .saturating_add(self.other_address)
    }

    /// There are several, and they are no rounding error of what is used.
    fn are_odd(&self, is_raised: bool) -> bool {
        let used = self.syncs.saturating_add(self.delays);
        is_rate(self.oddities(), ODDITIES, is_raised)
            && is_share(self.oddities(), ODD_SHARE, used, is_raised)
    }
}

/// Whether `bad` is more than one in `one_in` of `good`; once an alarm is raised, more than half of that: a share at
/// its limit raises it once and not over and over.
const fn is_share(bad: u64, one_in: u64, good: u64, is_raised: bool) -> bool {
    bad.saturating_mul(one_in).saturating_mul(1 + is_raised as u64) > good
}

/// Whether there are `least` in the window; once an alarm is raised, half as many.
const fn is_rate(bad: u64, least: u64, is_raised: bool) -> bool {
    bad.saturating_mul(1 + is_raised as u64) >= least
}

/// What is known at one time.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Facts {
    /// Totals since the start.
    pub totals: Totals,
    /// How many ports there are whose link is up.
    pub ports_up: usize,
    /// How many whose link is down or whose interface is missing.
    pub ports_down: usize,
    /// `grandmasterIdentity`, while there is a time transmitter.
    pub grandmaster: Option<ClockIdentity>,
    /// The longer of the intervals of Sync and of delay requests, as far as known.
    pub interval: Option<Duration>,
    /// Of the last sample.
    pub offset: Option<Duration>,
    /// Of the servo, if there is one.
    pub servo: Option<ServoState>,
    /// `currentUtcOffset`, seconds, where the domain is on the PTP time scale and gives one.
    pub utc_offset: Option<i64>,
    /// Whether another program steers the clock that this one is to steer.
    pub is_steered_elsewhere: bool,
    /// Whether packets of an interface do not reach the kernel programs.
    pub is_displaced: bool,
    /// Whether metrics, a socket or an export that were asked for cannot be served.
    pub is_unserved: bool,
    /// Whether this process has as many files open as it may.
    pub are_files_used_up: bool,
    /// The clock is a software clock: until it first locks, what it shows is where it was begun.
    pub is_software: bool,
    /// The estimate has left the causal interval.
    pub is_clipped: bool,
    /// Stamps contradict each other now, and nobody knows yet which are right.
    pub is_in_doubt: bool,
    /// Why time is not passed on to the clock or to other programs.
    pub withheld: Option<String>,
    /// How the round trip to the time transmitter has changed.
    pub round_trip: Option<RoundTripTrend>,
    /// How far the nearest of the latest single exchanges is from the filtered offset.
    pub raw_apart: Option<Duration>,
    /// The last message that authentication has refused: why, from whom, where.
    pub refused: Option<String>,
    /// What is heard that cannot be followed and may be the time transmitter that is meant, in words.
    pub hints: Vec<String>,
    /// Where sources of time contradict each other: which, and what is done.
    pub contradicted: Option<String>,
    /// Where the quality level of synchronous Ethernet is lower than it usually is.
    pub quality_lowered: Option<String>,
    /// Where ESMC has stopped.
    pub esmc_lost: Option<String>,
    /// A pulse per second.
    pub pulse: PulseFacts,
    /// How far the clock has moved against servers of NTP, and how many see it.
    pub shifted: Option<String>,
    /// Servers of NTP that do not answer, and how many do.
    pub silent: Option<String>,
    /// Of a transparent clock: why many messages leave without a correction.
    pub uncorrected: Option<String>,
    /// The same: whether a program of this host relays as well.
    pub is_relayed: bool,
    /// The same: ports of a switch in hardware.
    pub switched: Option<String>,
    /// Of a server: why the kernel does not answer as it was asked to.
    pub unanswered: Option<String>,
}

/// What is known of a pulse per second.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PulseFacts {
    /// None comes.
    pub is_lost: bool,
    /// What is wrong with it, in words.
    pub refused: Option<String>,
    /// Why nobody says which second it is.
    pub unnumbered: Option<String>,
    /// The receiver's date is of another age.
    pub rolled_over: Option<String>,
}

/// What is tolerated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Magnitude of the offset.
    pub offset: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self { offset: DEFAULT_OFFSET_LIMIT }
    }
}

/// An alarm was raised or cleared.
#[derive(Clone, Debug, PartialEq)]
pub struct Change {
    /// Which.
    pub alarm: Alarm,
    /// Whether it is raised now.
    pub is_raised: bool,
    /// How long it was in the state before.
    pub after: Duration,
    /// The figures behind it; may be empty.
    pub detail: String,
}

/// See the module's paragraph.
#[derive(Debug)]
pub struct Alarms {
    limits: Limits,
    states: Vec<(Alarm, Hysteresis)>,
    /// The figures behind each raised alarm, where there are any.
    details: BTreeMap<Alarm, String>,
    window: Window,
    grandmaster: Option<ClockIdentity>,
    /// It serves: too many messages are too many requests.
    is_server: bool,
    /// Steps of the clock when it locked first.
    steps_at_lock: Option<u64>,
}

impl Alarms {
    /// All alarms that such an agent can raise, none of them raised.
    pub fn new(role: Role, limits: Limits, now: Time<Mono>) -> Self {
        let alarms = Alarm::ALL.iter().filter(|alarm| alarm.applies_to(role));
        Self {
            limits,
            states: alarms.map(|alarm| (*alarm, Hysteresis::new(now))).collect(),
            details: BTreeMap::new(),
            window: Window::default(),
            grandmaster: None,
            is_server: role == Role::Transmitter,
            steps_at_lock: None,
        }
    }

    /// Tolerates something else from now on.
    pub fn set_limits(&mut self, limits: Limits) {
        self.limits = limits;
    }

    /// Judges the facts; returns what has changed.
    pub fn update(&mut self, now: Time<Mono>, facts: &Facts) -> Vec<Change> {
        let before = self.grandmaster;
        let changed = matches!((before, facts.grandmaster), (Some(old), Some(new)) if old != new);
        if facts.grandmaster.is_some() && facts.grandmaster != before {
            self.grandmaster = facts.grandmaster;
        }
        self.window.add(now, facts);
        let recent = self.window.recent();
        if facts.servo == Some(ServoState::Locked) {
            self.steps_at_lock.get_or_insert(facts.totals.clock_steps);
        }
        let steps_at_lock = self.steps_at_lock;
        let (limits, is_server) = (self.limits, self.is_server);
        let mut changes = Vec::new();
        for (alarm, state) in &mut self.states {
            let is_raised = state.is_raised();
            let share = |bad, one_in, good| is_share(bad, one_in, good, is_raised);
            let condition = match alarm {
                Alarm::LinkDown => facts.ports_down > 0,
                Alarm::NoAnnounce => facts.ports_up > 0 && facts.grandmaster.is_none(),
                Alarm::NoSync => recent.as_ref().is_some_and(|recent| {
                    facts.grandmaster.is_some()
                        && recent.syncs == 0
                        && recent.follow_ups_missing == 0
                        && recent.rx_stamps_missing == 0
                }),
                Alarm::NoFollowUp => recent
                    .as_ref()
                    .is_some_and(|recent| share(recent.follow_ups_missing, 1, recent.syncs)),
                Alarm::NoDelayResp => recent
                    .as_ref()
                    .is_some_and(|recent| share(recent.delays_unanswered, 1, recent.delays)),
                // In a flood it is the flood that loses them.
                Alarm::NoRxStamp => recent.as_ref().is_some_and(|recent| {
                    share(recent.rx_stamps_missing, 1, recent.rx_stamps)
                        && recent.refused == 0
                        && !is_rate(recent.overflowed, FLOOD, false)
                }),
                Alarm::NoTxStamp => recent
                    .as_ref()
                    .is_some_and(|recent| share(recent.tx_stamps_missing, 1, recent.tx_stamps)),
                Alarm::HooksDisplaced => facts.is_displaced,
                Alarm::StampSourceDegraded => recent.as_ref().is_some_and(|recent| {
                    share(recent.fallbacks, 10, recent.rx_stamps.saturating_add(recent.tx_stamps))
                }),
                Alarm::StampsInterrupted => recent.as_ref().is_some_and(|recent| {
                    let sent = recent.tx_stamps.saturating_add(recent.tx_interrupted);
                    share(recent.tx_interrupted, 10, sent)
                }),
                Alarm::RingLoss => recent.as_ref().is_some_and(|recent| {
                    let overflowed = if is_server { 0 } else { recent.overflowed };
                    recent.ring_lost > 0 || is_rate(overflowed, FLOOD, is_raised)
                }),
                Alarm::NotSynchronized => {
                    facts.grandmaster.is_some()
                        && matches!(facts.servo, Some(ServoState::Unlocked | ServoState::Jump))
                }
                Alarm::Holdover => facts.servo == Some(ServoState::Holdover),
                Alarm::OffsetAboveThreshold => {
                    is_trusted(facts) && is_large(facts.offset, limits.offset, state.is_raised())
                }
                Alarm::TimeScaleMismatch => {
                    let is_begun = facts.is_software && steps_at_lock.is_none();
                    !is_begun && is_time_scale_mismatch(facts)
                }
                Alarm::GrandmasterChanged => changed,
                // What led to the first lock is no step of a clock that was locked.
                Alarm::ClockStepped => {
                    steps_at_lock.is_some_and(|steps| facts.totals.clock_steps > steps)
                        && recent.as_ref().is_some_and(|recent| recent.clock_steps > 0)
                }
                Alarm::ClockError => recent.as_ref().is_some_and(|recent| recent.clock_errors > 0),
                Alarm::SteeredElsewhere => facts.is_steered_elsewhere,
                Alarm::EstimateClipped => facts.is_clipped,
                Alarm::TimeInDoubt => {
                    facts.is_in_doubt
                        || recent.as_ref().is_some_and(|recent| {
                            let used = recent.syncs.saturating_add(recent.delays);
                            share(recent.contradictions, DOUBTFUL, used)
                        })
                }
                Alarm::TimeWithheld => facts.withheld.is_some(),
                Alarm::EndpointUnavailable => facts.is_unserved || facts.are_files_used_up,
                Alarm::SpoofingSuspected => {
                    recent.as_ref().is_some_and(|recent| recent.are_odd(is_raised))
                }
                Alarm::GrandmasterContradicted => facts.contradicted.is_some(),
                Alarm::GrandmasterShifted => facts.shifted.is_some(),
                Alarm::WitnessSilent => facts.silent.is_some(),
                Alarm::TablePressure => recent.as_ref().is_some_and(|recent| recent.table_full > 0),
                Alarm::DelayAttackSuspected => {
                    facts.round_trip.is_some_and(|trend| trend.has_changed)
                }
                Alarm::RawOffsetFar => is_large(facts.raw_apart, limits.offset, state.is_raised()),
                Alarm::AuthenticationFailed => recent
                    .as_ref()
                    .is_some_and(|recent| is_rate(recent.unauthentic, UNAUTHENTIC, is_raised)),
                Alarm::RequestFlood => recent.as_ref().is_some_and(|recent| {
                    recent.refused > 0 || is_rate(recent.overflowed, FLOOD, is_raised)
                }),
                Alarm::QualityLevelLowered => facts.quality_lowered.is_some(),
                Alarm::EsmcLost => facts.esmc_lost.is_some(),
                Alarm::NoKernelAnswers => facts.unanswered.is_some(),
                Alarm::PulseLost => facts.pulse.is_lost,
                Alarm::PulseRefused => facts.pulse.refused.is_some(),
                Alarm::PulseUnnumbered => facts.pulse.unnumbered.is_some(),
                Alarm::WeekRollover => facts.pulse.rolled_over.is_some(),
                Alarm::CorrectionsMissing => facts.uncorrected.is_some(),
                Alarm::DoubleCorrection => facts.is_relayed,
                Alarm::HardwareForwarding => facts.switched.is_some(),
            };
            let change = state.update(now, condition, alarm.patience());
            let (alarm, is_raised) = (*alarm, state.is_raised());
            if change.is_none() && !(condition && is_raised) {
                continue;
            }
            let detail = match alarm {
                Alarm::GrandmasterChanged if is_raised => match (before, facts.grandmaster) {
                    (Some(old), Some(new)) => format!("from {old} to {new}"),
                    _ => String::new(),
                },
                _ => detail(alarm, facts, recent.as_ref()),
            };
            if is_raised && !detail.is_empty() {
                self.details.insert(alarm, detail.clone());
            } else if !is_raised {
                self.details.remove(&alarm);
            }
            if let Some(after) = change {
                changes.push(Change { alarm, is_raised, after, detail });
            }
        }
        changes
    }

    /// Every alarm that can be raised here, and whether it is.
    pub fn all(&self) -> impl Iterator<Item = (Alarm, bool)> + '_ {
        self.states.iter().map(|(alarm, state)| (*alarm, state.is_raised()))
    }

    /// Those that are raised, and since when.
    pub fn raised(&self) -> impl Iterator<Item = (Alarm, Time<Mono>)> + '_ {
        let raised = self.states.iter().filter(|(_, state)| state.is_raised());
        raised.map(|(alarm, state)| (*alarm, state.since()))
    }

    /// The figures behind an alarm that is raised; may be empty.
    pub fn detail(&self, alarm: Alarm) -> &str {
        self.details.get(&alarm).map_or("", String::as_str)
    }
}

/// The figures behind an alarm; may be empty.
fn detail(alarm: Alarm, facts: &Facts, recent: Option<&Totals>) -> String {
    match alarm {
        Alarm::OffsetAboveThreshold | Alarm::TimeScaleMismatch => facts
            .offset
            .map(|offset| format!("offset {}", nanos(offset.as_nanos() as f64)))
            .unwrap_or_default(),
        Alarm::StampsInterrupted => recent
            .map(|recent| {
                let sent = recent.tx_stamps.saturating_add(recent.tx_interrupted);
                format!("{} of {sent} messages", recent.tx_interrupted)
            })
            .unwrap_or_default(),
        Alarm::RingLoss => {
            let Totals { ring_lost, overflowed, .. } = facts.totals;
            format!("{ring_lost} records and {overflowed} messages in all")
        }
        Alarm::TimeInDoubt => format!("{} contradictions in all", facts.totals.contradictions),
        Alarm::TimeWithheld => facts.withheld.clone().unwrap_or_default(),
        Alarm::NoAnnounce => {
            let mut hints = facts.hints.clone();
            if let Some(recent) = recent.filter(|recent| recent.unauthentic > 0) {
                hints.push(format!(
                    "{} messages are not authenticated as required",
                    recent.unauthentic
                ));
            }
            if let Some(recent) = recent.filter(|recent| recent.other_sender > 0) {
                let last = facts.refused.as_ref().map(|last| format!(", last: {last}"));
                hints.push(format!(
                    "{} messages are not from acceptable senders{}",
                    recent.other_sender,
                    last.unwrap_or_default()
                ));
            }
            if let Some(recent) = recent.filter(|recent| recent.rx_orphaned > 0) {
                hints.push(format!(
                    "{} packets were stamped and did not come out of the socket: firewall, rp_filter, \
                     another transport or another VLAN",
                    recent.rx_orphaned
                ));
            }
            hints.join("; ")
        }
        Alarm::NotSynchronized => recent
            .filter(|recent| recent.implausible > 0)
            .map(|recent| {
                format!("{} exchanges with a path delay that cannot be", recent.implausible)
            })
            .unwrap_or_default(),
        Alarm::SpoofingSuspected => {
            let counts = recent.map(oddities).unwrap_or_default();
            let last = facts.refused.as_ref().map(|last| format!(", last: {last}"));
            counts + &last.unwrap_or_default()
        }
        Alarm::GrandmasterContradicted => facts.contradicted.clone().unwrap_or_default(),
        Alarm::GrandmasterShifted => facts.shifted.clone().unwrap_or_default(),
        Alarm::WitnessSilent => facts.silent.clone().unwrap_or_default(),
        Alarm::TablePressure => format!("{} in all", facts.totals.table_full),
        Alarm::DelayAttackSuspected => facts
            .round_trip
            .map(|trend| {
                let [usual, present] =
                    [trend.usual, trend.present].map(|trip| nanos(trip.as_nanos() as f64));
                format!("round trip {present}, usually {usual}")
            })
            .unwrap_or_default(),
        Alarm::RawOffsetFar => facts
            .raw_apart
            .map(|apart| format!("at least {}", nanos(apart.as_nanos() as f64)))
            .unwrap_or_default(),
        Alarm::AuthenticationFailed => {
            let total = facts.totals.unauthentic;
            let last = facts.refused.as_ref().map(|last| format!(", last: {last}"));
            format!("{total} in all{}", last.unwrap_or_default())
        }
        Alarm::RequestFlood => {
            let Totals { refused, overflowed, .. } = facts.totals;
            format!("{refused} not answered, {overflowed} held back or not taken in all")
        }
        Alarm::EndpointUnavailable if facts.are_files_used_up => {
            "as many files are open as this process may have (ulimit -n, LimitNOFILE= of the service): \
             no connection is taken and nothing is opened again"
                .to_owned()
        }
        Alarm::QualityLevelLowered => facts.quality_lowered.clone().unwrap_or_default(),
        Alarm::EsmcLost => facts.esmc_lost.clone().unwrap_or_default(),
        Alarm::NoKernelAnswers => facts.unanswered.clone().unwrap_or_default(),
        Alarm::PulseRefused => facts.pulse.refused.clone().unwrap_or_default(),
        Alarm::PulseUnnumbered => facts.pulse.unnumbered.clone().unwrap_or_default(),
        Alarm::WeekRollover => facts.pulse.rolled_over.clone().unwrap_or_default(),
        Alarm::CorrectionsMissing => facts.uncorrected.clone().unwrap_or_default(),
        Alarm::HardwareForwarding => facts.switched.clone().unwrap_or_default(),
        _ => String::new(),
    }
}

/// What was counted of that which nobody sends by himself.
fn oddities(recent: &Totals) -> String {
    let counts = [
        ("replayed", recent.replayed),
        ("duplicate", recent.duplicate),
        ("self_sent", recent.self_sent),
        ("unmatched", recent.unmatched),
        ("unconfirmed", recent.unconfirmed),
        ("other_address", recent.other_address),
    ];
    let counts = counts.iter().filter(|(_, count)| *count > 0);
    counts.map(|(name, count)| format!("{name} {count}")).collect::<Vec<_>>().join(", ")
}

/// Before the first lock the offset is not yet one that anybody relies on.
fn is_trusted(facts: &Facts) -> bool {
    matches!(facts.servo, None | Some(ServoState::Locked | ServoState::Holdover))
}

/// Above the limit; once it was, above half of it.
fn is_large(offset: Option<Duration>, limit: Duration, is_raised: bool) -> bool {
    let limit = if is_raised { limit.half() } else { limit };
    offset.is_some_and(|offset| offset.abs() > limit)
}

/// The offset is TAI minus UTC, one way or the other.
fn is_time_scale_mismatch(facts: &Facts) -> bool {
    let Some(offset) = facts.offset else { return false };
    let known = facts.utc_offset.filter(|seconds| *seconds != 0);
    let seconds = Duration::from_secs(known.unwrap_or(USUAL_UTC_OFFSET)).abs();
    (offset.abs() - seconds).abs() < TIME_SCALE_SLACK
}
