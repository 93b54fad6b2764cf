//! Links between a grandmaster and the time receiver, as a scenario says them: delay, loss, queues, and
//! the transparent clocks on the way.

use serde::Deserialize;

use super::{
    noise::Noise,
    values::{Count, Instant, Load, Ppb, Probability, Seconds, Span, Window, recurring},
};

/// Another route from some instant on.
#[derive(Clone, Copy, Debug, PartialEq, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct RouteChange {
    /// When.
    pub at_s: Instant,
    /// The base delay from then on.
    pub base_delay_ns: Span,
    /// And again after so long.
    pub every_s: Option<Seconds>,
    /// So often altogether; to the end of the scenario unless given.
    pub count: Option<Count>,
}

recurring!(RouteChange, "route-changes", at_s);

/// Rare packets that are much later.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Outliers {
    /// Of each packet.
    pub probability: Probability,
    /// How much later.
    pub delay: Noise,
}

/// Times in which much is lost, at random (Gilbert and Elliott).
#[derive(Clone, Copy, Debug, PartialEq, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct LossBursts {
    /// Mean time between two of them.
    pub every_s: Seconds,
    /// Mean length.
    pub length_s: Seconds,
    /// Probability that a packet is lost meanwhile.
    #[serde(default = "all")]
    pub loss: Probability,
}

fn all() -> Probability {
    Probability(1.0)
}

/// A bottleneck: packets of a direction leave it in the order of their arrival, each behind all that was
/// there before it, so that waits are alike for packets that follow each other.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Queue {
    /// What one of our own packets takes; is added to its delay.
    #[serde(default = "a_microsecond")]
    pub service_ns: Span,
    /// Packets of others, which come at random.
    pub cross: Option<Cross>,
    /// A queue that a long transfer fills and, when something is lost, drains.
    pub sawtooth: Option<Sawtooth>,
    /// Room for so much: what would wait longer is lost.
    pub limit_ns: Option<Span>,
    /// When there is traffic of others; always unless given.
    #[serde(default)]
    pub during: Vec<Window>,
}

fn a_microsecond() -> Span {
    Span(1_000.0)
}

/// Packets of others: a Poisson process.
#[derive(Clone, Copy, Debug, PartialEq, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Cross {
    /// What each of them takes.
    pub service_ns: Span,
    /// Share of the time that they take.
    pub load: Load,
    /// How many come together.
    #[serde(default)]
    pub batch: Count,
}

/// A standing queue that grows in a straight line and falls at once, its periods uneven by half.
#[derive(Clone, Copy, Debug, PartialEq, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Sawtooth {
    /// The wait before it falls.
    pub peak_ns: Span,
    /// The wait after it fell.
    #[serde(default)]
    pub trough_ns: Span,
    /// Mean time from fall to fall.
    pub period_s: Seconds,
}

/// A transparent clock: keeps event messages for a while and says for how long.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct TransparentClock {
    /// For how long; is added to the delay.
    pub residence: Noise,
    /// How much too fast the oscillator is by which it is measured.
    #[serde(default)]
    pub rate_error_ppb: Ppb,
    /// What the correction field says too much, beside that.
    #[serde(default)]
    pub error: Noise,
}

/// One direction of a link.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
pub struct Direction {
    /// The delay of the fastest packet.
    pub base_delay_ns: Span,
    /// What comes on top of it, drawn for each packet alone.
    pub jitter: Noise,
    /// What comes on top of it because others are there first.
    pub queue: Option<Queue>,
    /// Probability that a packet is lost.
    pub loss: Probability,
    /// Times in which more are.
    pub loss_bursts: Option<LossBursts>,
    /// Probability that it comes twice.
    pub duplication: Probability,
    /// Probability that it takes a detour of up to a tenth of a second and so may be overtaken.
    pub reordering: Probability,
    /// Rare late packets.
    pub outliers: Option<Outliers>,
    /// Changes of the base delay, in order of time.
    pub route_changes: Vec<RouteChange>,
    /// Transparent clocks on the way.
    pub transparent_clocks: Vec<TransparentClock>,
}

impl Direction {
    pub(super) fn noises(&mut self) -> impl Iterator<Item = &mut Noise> {
        let clocks = self.transparent_clocks.iter_mut();
        [&mut self.jitter]
            .into_iter()
            .chain(self.outliers.as_mut().map(|outliers| &mut outliers.delay))
            .chain(clocks.flat_map(|clock| [&mut clock.residence, &mut clock.error]))
    }
}

/// A link between a grandmaster and the time receiver.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
pub struct Link {
    /// From the grandmaster.
    pub forward: Direction,
    /// To the grandmaster; like `forward` unless given.
    pub backward: Option<Direction>,
}

impl Link {
    pub(super) fn directions(&mut self) -> impl Iterator<Item = &mut Direction> {
        [&mut self.forward].into_iter().chain(self.backward.as_mut())
    }
}
