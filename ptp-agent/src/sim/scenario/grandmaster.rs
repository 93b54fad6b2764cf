//! Grandmasters, as a scenario says them: what they announce, when they are silent, when their time is
//! another, and the boundary clocks between them and the time receiver.

use serde::Deserialize;

use super::{
    host::Host,
    link::Link,
    oscillator::OscillatorSettings,
    values::{Count, Instant, LogInterval, Nanos, Phase, Probability, Seconds, Span, recurring},
};

/// A time in which a grandmaster is silent.
#[derive(Clone, Copy, Debug, PartialEq, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Outage {
    /// From here.
    pub from_s: Instant,
    /// To here.
    pub to_s: Instant,
    /// What is missing.
    #[serde(default)]
    pub silences: Silence,
    /// And again after so long.
    pub every_s: Option<Seconds>,
    /// So often altogether; to the end of the scenario unless given.
    pub count: Option<Count>,
}

recurring!(Outage, "outages", from_s, to_s);

/// What a grandmaster does not send.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Silence {
    /// Anything; nor does it hear.
    #[default]
    All,
    /// Sync and Follow_Up.
    Sync,
    /// Follow_Up.
    FollowUp,
    /// Announce.
    Announce,
    /// Delay_Resp.
    DelayResp,
}

/// A time that is set: stamps show another one from then on, timers go on as they were.
#[derive(Clone, Copy, Debug, PartialEq, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct TimeStep {
    /// When.
    pub at_s: Instant,
    /// By so much.
    pub by_ns: Phase,
    /// And again after so long.
    pub every_s: Option<Seconds>,
    /// So often altogether; to the end of the scenario unless given.
    pub count: Option<Count>,
}

recurring!(TimeStep, "time-steps", at_s);

/// A grandmaster that ends and starts again, with new sequence numbers and perhaps with another time.
#[derive(Clone, Copy, Debug, PartialEq, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Restart {
    /// When it ends.
    pub at_s: Instant,
    /// For how long it is silent.
    pub silent_s: Seconds,
    /// How much its time is ahead of the old one.
    #[serde(default)]
    pub by_ns: Phase,
    /// And again after so long.
    pub every_s: Option<Seconds>,
    /// So often altogether; to the end of the scenario unless given.
    pub count: Option<Count>,
}

recurring!(Restart, "restarts", at_s);

/// A boundary clock: what it serves is off by a constant and by what wanders (Ornstein and Uhlenbeck).
#[derive(Clone, Copy, Debug, PartialEq, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct BoundaryClock {
    /// The constant.
    #[serde(default)]
    pub offset_ns: Nanos,
    /// Standard deviation of the rest.
    #[serde(default)]
    pub wander_ns: Span,
    /// Time constant of the rest.
    #[serde(default = "a_minute")]
    pub time_constant_s: Seconds,
}

fn a_minute() -> Seconds {
    Seconds(60.0)
}

/// A grandmaster and its link.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
pub struct Grandmaster {
    /// `priority1`; the lowest that is alive is followed.
    pub priority1: u8,
    /// `clockClass`.
    pub clock_class: u8,
    /// `clockAccuracy`.
    pub clock_accuracy: u8,
    /// `stepsRemoved` beside the boundary clocks below.
    pub steps_removed: u8,
    /// Sync interval.
    pub log_sync_interval: LogInterval,
    /// Delay_Req interval.
    pub log_min_delay_req_interval: LogInterval,
    /// Announce interval.
    pub log_announce_interval: LogInterval,
    /// Sync carries its own stamp, and there is no Follow_Up.
    pub one_step: bool,
    /// Probability that a Sync has no Follow_Up.
    pub follow_up_loss: Probability,
    /// Its oscillator.
    pub oscillator: OscillatorSettings,
    /// Its stamps.
    pub host: Host,
    /// The link.
    pub link: Link,
    /// Boundary clocks between it and the link: stamps and intervals above are those of the last one.
    pub boundary_clocks: Vec<BoundaryClock>,
    /// When it is silent.
    pub outages: Vec<Outage>,
    /// When its time is set.
    pub time_steps: Vec<TimeStep>,
    /// When it starts again.
    pub restarts: Vec<Restart>,
}

impl Default for Grandmaster {
    fn default() -> Self {
        Self {
            priority1: 128,
            clock_class: 248,
            clock_accuracy: 0xfe,
            steps_removed: 0,
            log_sync_interval: LogInterval(0),
            log_min_delay_req_interval: LogInterval(0),
            log_announce_interval: LogInterval(1),
            one_step: false,
            follow_up_loss: Probability::default(),
            oscillator: OscillatorSettings::default(),
            host: Host::default(),
            link: Link::default(),
            boundary_clocks: Vec::new(),
            outages: Vec::new(),
            time_steps: Vec::new(),
            restarts: Vec::new(),
        }
    }
}
