//! The alarms of a running command: what the engine and the capture side know as facts for them, and
//! every change in log, metrics and status; and what the service manager is told of them.

use std::borrow::Cow;

use ptp_common::time::{Duration, Mono, Time};

use super::io::Io;
use crate::{
    engine::{
        PortIndex,
        counters::{Counters, Drop},
        instance::Instance,
    },
    publish::{
        alarms::{Alarms, Facts, Limits, Role, Totals},
        http::Publication,
        manager::ServiceManager,
        snapshot,
    },
    servo::ServoState,
    sys,
};

/// See the module's paragraph.
pub(crate) struct Health {
    role: Role,
    alarms: Alarms,
    publication: Publication,
    manager: ServiceManager,
    files: Files,
}

/// Whether this process can open something more, looked at once a second.
#[derive(Debug, Default)]
struct Files {
    looked: Option<Time<Mono>>,
    are_used_up: bool,
}

impl Files {
    const BETWEEN: Duration = Duration::from_secs(1);

    fn are_used_up(&mut self, now: Time<Mono>) -> bool {
        if self.looked.is_none_or(|looked| now - looked >= Self::BETWEEN) {
            self.looked = Some(now);
            self.are_used_up = !sys::has_a_descriptor_left();
        }
        self.are_used_up
    }
}

impl Health {
    /// Nothing is wrong yet.
    pub(crate) fn new(
        role: Role,
        limits: Limits,
        publication: Publication,
        now: Time<Mono>,
    ) -> Self {
        let manager = ServiceManager::from_environment();
        let alarms = Alarms::new(role, limits, now);
        Self { role, alarms, publication, manager, files: Files::default() }
    }

    /// Takes another role, with nothing wrong in it yet.
    pub(super) fn take_role(&mut self, role: Role, limits: Limits, now: Time<Mono>) {
        if self.role != role {
            self.role = role;
            self.alarms = Alarms::new(role, limits, now);
        }
    }

    /// Tolerates something else from now on.
    pub(super) fn set_limits(&mut self, limits: Limits) {
        self.alarms.set_limits(limits);
    }

    /// The configuration is being read again; the next [`Health::check`] says that this is done.
    pub(super) fn reloading(&mut self) {
        self.manager.reloading();
    }

    /// Judges the facts, and tells what has changed: one line each. To be called by the main loop,
    /// since this is what the service manager takes as its sign of life.
    pub(crate) fn check(&mut self, now: Time<Mono>, facts: &Facts) {
        let are_files_used_up = self.files.are_used_up(now);
        let facts = &match are_files_used_up {
            true => Cow::Owned(Facts { are_files_used_up, ..facts.clone() }),
            false => Cow::Borrowed(facts),
        };
        for change in self.alarms.update(now, facts) {
            let (alarm, detail) = (change.alarm.name(), change.detail);
            let meaning = change.alarm.summary();
            if change.is_raised {
                tracing::warn!(alarm, meaning, detail, "alarm raised");
            } else {
                let after_s = change.after.as_secs_f64().round();
                tracing::info!(alarm, meaning, after_s, "alarm cleared");
            }
        }
        let all = self.alarms.all().map(|(alarm, raised)| (alarm.name(), raised));
        self.publication.metrics.set_alarms(all);
        self.manager.turn(&self.summary(facts));
    }

    /// How the agent is, in a line that changes only when something has happened.
    fn summary(&self, facts: &Facts) -> String {
        let doing = match (self.role, facts.servo, facts.grandmaster) {
            (Role::Transmitter, ..) => "serving".to_owned(),
            (Role::Transparent, ..) => "correcting".to_owned(),
            (Role::Observer, _, None) => "observing, no time transmitter".to_owned(),
            (Role::Observer, _, Some(grandmaster)) => {
                format!("observing, grandmaster {grandmaster}")
            }
            (Role::Receiver, servo, grandmaster) => {
                let servo = servo.unwrap_or(ServoState::Unlocked).name();
                let from = grandmaster.map_or("none".to_owned(), |identity| identity.to_string());
                format!("{servo}, grandmaster {from}")
            }
        };
        let links = match facts.ports_down {
            0 => String::new(),
            down => format!("; {down} of {} links down", down + facts.ports_up),
        };
        let raised: Vec<_> = self.alarms.raised().map(|(alarm, _)| alarm.name()).collect();
        let alarms = if raised.is_empty() { "none".to_owned() } else { raised.join(", ") };
        format!("{doing}{links}; alarms: {alarms}")
    }

    /// The raised alarms for the status.
    pub(crate) fn status(&self, now: Time<Mono>) -> Vec<snapshot::Alarm> {
        let alarms = self.alarms.raised().map(|(alarm, since)| snapshot::Alarm {
            alarm: alarm.name().into(),
            for_s: (now - since).as_secs_f64(),
            meaning: alarm.summary().into(),
            detail: self.alarms.detail(alarm).to_owned(),
            explanation: alarm.explanation().into(),
            runbook: Some(alarm.runbook().into()),
        });
        alarms.collect()
    }
}

/// Adds up what the ports have counted.
pub(super) fn totals<'a>(
    io: &Io,
    ports: &[PortIndex],
    counters: impl Fn(PortIndex) -> &'a Counters,
) -> Totals {
    let mut totals = Totals { ring_lost: io.ring_lost(), ..Totals::default() };
    for port in ports {
        let counters = counters(*port);
        totals.syncs += counters.sync_exchanges;
        totals.follow_ups_missing += counters.dropped(Drop::SyncWithoutFollowUp);
        totals.delays += counters.delay_exchanges + counters.peer_delay_exchanges;
        let of = |cause| counters.dropped(cause);
        totals.replayed += of(Drop::Replayed);
        totals.duplicate += of(Drop::Duplicate);
        totals.self_sent += of(Drop::SelfSent);
        totals.unmatched += of(Drop::UnmatchedDelayResp)
            + of(Drop::UnmatchedPdelayResp)
            + of(Drop::MultipleResponders);
        totals.unconfirmed += of(Drop::Unconfirmed);
        totals.table_full += of(Drop::ForeignTableFull);
        totals.implausible += of(Drop::ImplausibleDelay);
        totals.refused += of(Drop::RateLimited);
        totals.delays_unanswered += counters.dropped(Drop::UnansweredDelayReq)
            + counters.dropped(Drop::UnansweredPdelayReq);
        totals.overflowed += io.counts(*port).socket_overflow + io.counts(*port).overrun;
        totals.other_address += io.counts(*port).other_address;
        totals.other_sender += io.counts(*port).other_sender;
        totals.unauthentic +=
            io.counts(*port).authentication.refusals().map(|(_, total)| total).sum::<u64>();
        if let Some((rx, tx)) = io.stamp_counts(*port) {
            totals.rx_stamps += rx.matched.values().sum::<u64>();
            totals.rx_stamps_missing += rx.pairing.missing;
            totals.rx_orphaned += rx.pairing.orphaned;
            totals.duplicate += rx.pairing.duplicate;
            totals.tx_stamps += tx.matched.values().sum::<u64>();
            totals.tx_stamps_missing += tx.pairing.missing;
            totals.tx_interrupted += tx.interrupted;
        }
        totals.fallbacks += io.sources(*port).map_or(0, |sources| sources.fallbacks);
    }
    totals
}

/// What is heard by somebody who has no time transmitter: what passes the hooks first, for they see more than
/// the sockets, and then what only the engine can know.
pub(super) fn hints(io: &Io, receiver: &Instance, now: Time<Mono>) -> Vec<String> {
    if receiver.parent().is_some() {
        return Vec::new();
    }
    let passing = io.explain_silence(now, receiver.domain_number(), receiver.sdo_id());
    let is_told = passing.is_some();
    let overheard = receiver.overheard(now).filter(|hint| !(is_told && hint.is_of_other_channel()));
    passing.into_iter().chain(overheard.map(|hint| hint.to_string())).collect()
}

/// How many ports can be used, and how many cannot.
pub(super) fn links(io: &Io, ports: &[PortIndex]) -> (usize, usize) {
    let up = ports.iter().filter(|port| io.is_up(**port)).count();
    (up, ports.len() - up)
}

/// How long a sample stays fresh: several intervals, and at least ten seconds.
pub(super) fn freshness(interval: Option<Duration>) -> std::time::Duration {
    let nanos = (interval.unwrap_or(Duration::ZERO) * 8).as_nanos();
    std::time::Duration::from_nanos(u64::try_from(nanos).unwrap_or(0))
        .max(std::time::Duration::from_secs(10))
}
