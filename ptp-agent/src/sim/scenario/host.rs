//! Hosts, as a scenario says them: what is wrong with their stamps, and when they do not run.

use serde::Deserialize;

use super::{
    noise::Noise,
    values::{Count, Instant, Phase, Probability, Seconds, Span, recurring},
};

/// Errors of a host's stamps, and times in which it stands still.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
pub struct Host {
    /// How much later than its arrival a packet is stamped. A negative value is a stamp before the
    /// arrival: on the wrong side of the wire.
    pub receive: Noise,
    /// How much earlier than its departure a packet is stamped. A negative value is a stamp after the
    /// departure.
    pub transmit: Noise,
    /// Packets are received at the ticks of this period only, on the host's own oscillator, and all that
    /// have come since the last one have the same stamp: interrupt coalescing. 0 is none.
    pub receive_grid_ns: Span,
    /// Transmit stamps are of the last tick of this period: a coarse clock. 0 is none.
    pub transmit_grid_ns: Span,
    /// By how much before the arrival a receive stamp may lie, as the agent is told. Of the time receiver
    /// only.
    pub receive_doubt_ns: Span,
    /// By how much after the departure a transmit stamp may lie, as the agent is told. Of the time
    /// receiver only.
    pub transmit_doubt_ns: Span,
    /// Stamps that are wrong altogether.
    pub bad_stamps: Option<BadStamps>,
    /// Stands still at random.
    pub stall: Option<Stall>,
    /// Stands still at given times.
    pub stalls: Vec<GivenStall>,
}

/// Stamps that are wrong altogether, now and then: hardware that reads seconds and nanoseconds apart.
#[derive(Clone, Copy, Debug, PartialEq, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct BadStamps {
    /// Of each stamp.
    pub probability: Probability,
    /// By so much.
    #[serde(default = "a_second")]
    pub off_by_ns: Span,
    /// In which direction.
    #[serde(default)]
    pub sign: Sign,
    /// Which stamps.
    #[serde(default)]
    pub of: Which,
}

fn a_second() -> Span {
    Span(1e9)
}

/// Which way a stamp is wrong.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Sign {
    /// Either, at random.
    #[default]
    Either,
    /// Too late a time.
    Ahead,
    /// Too early a time.
    Behind,
}

/// Which stamps are wrong.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Which {
    /// All.
    #[default]
    Both,
    /// Those of arrivals.
    Receive,
    /// Those of departures.
    Transmit,
}

/// A host that stands still at random: nothing is received, stamped, sent or thought until it goes on, and
/// then everything at once.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Stall {
    /// Mean time from the end of one to the next.
    pub every_s: Seconds,
    /// For how long.
    pub length: Noise,
}

/// The same at a given time.
#[derive(Clone, Copy, Debug, PartialEq, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct GivenStall {
    /// When.
    pub at_s: Instant,
    /// For how long.
    pub length_s: Seconds,
    /// And again after so long.
    pub every_s: Option<Seconds>,
    /// So often altogether; to the end of the scenario unless given.
    pub count: Option<Count>,
}

recurring!(GivenStall, "stalls", at_s);

/// A host that sleeps: what comes meanwhile is lost.
#[derive(Clone, Copy, Debug, PartialEq, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Suspend {
    /// When.
    pub at_s: Instant,
    /// For how long.
    pub length_s: Seconds,
    /// What its oscillator does meanwhile.
    #[serde(default)]
    pub clock: SleepingClock,
    /// How much the clock is ahead when it wakes, beside that.
    #[serde(default)]
    pub jump_ns: Phase,
    /// And again after so long.
    pub every_s: Option<Seconds>,
    /// So often altogether; to the end of the scenario unless given.
    pub count: Option<Count>,
}

recurring!(Suspend, "suspends", at_s);

impl Suspend {
    /// What the oscillator is ahead afterwards.
    pub(super) const fn phase_ns(&self) -> f64 {
        let stood_ns = match self.clock {
            SleepingClock::Stands => self.length_s.get() * 1e9,
            SleepingClock::GoesOn => 0.0,
        };
        self.jump_ns.get() - stood_ns
    }
}

/// An oscillator during suspend.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum SleepingClock {
    /// Does not count, as CLOCK_MONOTONIC.
    #[default]
    Stands,
    /// Goes on, as CLOCK_BOOTTIME.
    GoesOn,
}

impl Host {
    pub(super) fn noises(&mut self) -> impl Iterator<Item = &mut Noise> {
        [&mut self.receive, &mut self.transmit]
            .into_iter()
            .chain(self.stall.as_mut().map(|stall| &mut stall.length))
    }
}
