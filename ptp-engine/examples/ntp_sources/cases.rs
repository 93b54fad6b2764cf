//! What is asked of the sources: how soon two witnesses find a grandmaster that goes wrong, how often they find one that has not,
//! and what three servers are worth of which one lies.

use ptp_common::time::Duration;
use ptp_engine::ntp::{NtpPart, Poll};

use super::{
    rfc5905::Rfc5905,
    world::{Error, SECOND, Server, Way, World, server},
};

/// What is between the client and its witnesses.
#[derive(Clone, Copy)]
pub(crate) struct Network {
    pub(crate) name: &'static str,
    pub(crate) way: Way,
}

/// A switch between, interleaved mode, stamps of kernel programs on both ends.
pub(crate) const SWITCH: Network =
    Network { name: "one switch, stamps at the wire", way: Way { least: 4_000, jitter: 500.0 } };
/// The same with what software stamps lose in the stack.
pub(crate) const LOCAL: Network =
    Network { name: "local network", way: Way { least: 15_000, jitter: 4_000.0 } };
/// Some routers.
pub(crate) const CAMPUS: Network =
    Network { name: "campus", way: Way { least: 200_000, jitter: 60_000.0 } };
/// Far away.
pub(crate) const INTERNET: Network =
    Network { name: "internet", way: Way { least: 8_000_000, jitter: 1_500_000.0 } };

/// Seconds until it was found by intervals that contradict each other, and by the shift.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Found {
    pub(crate) contradicted: Option<f64>,
    pub(crate) shifted: Option<f64>,
    pub(crate) exchanges: usize,
}

impl Found {
    /// By whichever was first.
    pub(crate) fn first(&self) -> Option<f64> {
        [self.contradicted, self.shifted].into_iter().flatten().min_by(f64::total_cmp)
    }
}

/// Two witnesses, whose ways differ by a tenth, watch a grandmaster that is right for `quiet` seconds and then wrong by `error` for
/// `wrong` seconds at the most. Nothing may be found while it is right.
pub(crate) fn witness(
    network: Network,
    poll: Poll,
    error: Error,
    seed: u64,
    quiet: i64,
    wrong: i64,
) -> Result<Found, String> {
    let way = network.way;
    let slower = Way { least: way.least + way.least / 10, ..way };
    let distance = Duration::from_micros(2);
    let servers = [server(1, [way, slower], 0, distance), server(2, [slower, way], 0, distance)];
    let from = quiet * SECOND;
    let error = Error { from, ..error };
    let mut world = World::new(&servers, poll, NtpPart::Witness, Some(error), seed);
    let mut found = Found::default();
    let mut false_alarm = None;
    world.run(from + wrong * SECOND, SECOND, |world| {
        let after = (world.now - from) as f64 / 1e9;
        let shifted = world.client.shifted();
        let contradicted = world.client.standing().is_contradicted();
        if after < 0.0 && (contradicted || shifted.is_some()) {
            false_alarm.get_or_insert(format!("at {} s: {shifted:?}", world.now / SECOND));
        } else if after >= 0.0 {
            if contradicted {
                found.contradicted.get_or_insert(after);
            }
            if shifted.is_some() {
                found.shifted.get_or_insert(after);
            }
        }
        // Both ways, as far as they find it at all.
        found.contradicted.is_none() || found.shifted.is_none()
    });
    found.exchanges = world.exchanges.len();
    false_alarm.map_or(Ok(found), Err)
}

/// Of clock and bound, ms.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Worth {
    pub(crate) error_rms: f64,
    pub(crate) bound_rms: f64,
    /// Share of looks at which the error was beyond the bound.
    pub(crate) false_bounds: f64,
    /// Share of looks at which the liar was believed.
    pub(crate) believed: f64,
}

/// What is gathered for [`Worth`].
#[derive(Default)]
struct Looks {
    errors: Vec<f64>,
    bounds: Vec<f64>,
    wrong: usize,
    believed: usize,
}

impl Looks {
    fn add(&mut self, error_ns: f64, bound_ns: Option<f64>, believes: bool) {
        self.errors.push(error_ns / 1e6);
        self.believed += usize::from(believes);
        if let Some(bound) = bound_ns {
            self.bounds.push(bound / 1e6);
            self.wrong += usize::from(error_ns.abs() > bound);
        }
    }

    fn worth(&self) -> Worth {
        let share = |count: usize, of: usize| count as f64 / of.max(1) as f64;
        Worth {
            error_rms: rms(&self.errors),
            bound_rms: rms(&self.bounds),
            false_bounds: share(self.wrong, self.bounds.len()),
            believed: share(self.believed, self.errors.len()),
        }
    }
}

fn rms(values: &[f64]) -> f64 {
    (values.iter().map(|it| it * it).sum::<f64>() / values.len().max(1) as f64).sqrt()
}

/// The engine, RFC 5905 as it combines, and that averaged over eight looks as a discipline does.
pub(crate) type Compared = [Worth; 3];

/// Three servers with delays as on the internet, of which the nearest is ahead by `lie_ms`, followed for `hours` after the first two.
pub(crate) fn servers(lie_ms: f64, seeds: core::ops::RangeInclusive<u64>, hours: i64) -> Compared {
    let ms = |ms: f64| (ms * 1e6) as i64;
    let (mut ours, mut combined, mut averaged) =
        (Looks::default(), Looks::default(), Looks::default());
    for seed in seeds {
        let way = |least: f64| Way { least: ms(least), jitter: 1.5e6 };
        let servers: [Server; 3] = [
            server(1, [way(8.0), way(9.0)], 0, Duration::from_micros(300)),
            server(2, [way(15.0), way(12.0)], 0, Duration::from_micros(500)),
            server(3, [way(6.0), way(6.5)], ms(lie_ms), Duration::from_micros(400)),
        ];
        let mut world = World::new(&servers, Poll::default(), NtpPart::Source, None, seed);
        let mut rfc = Rfc5905::default();
        let (mut taken, mut average) = (0, None);
        world.run((2 + hours) * 3_600 * SECOND, 16 * SECOND, |world| {
            for exchange in &world.exchanges[taken..] {
                rfc.take(usize::from(exchange.with.0), exchange);
            }
            taken = world.exchanges.len();
            let system = rfc.system(world.now);
            if let Some(system) = &system {
                // As much as in eight of the shortest intervals.
                let before = average.unwrap_or(system.offset_ns);
                average = Some(before + (system.offset_ns - before) / 32.0);
            }
            if world.now < 2 * 3_600 * SECOND {
                return true;
            }
            let (error, bound) = world.error();
            let liar = servers[2].address.ip();
            ours.add(error as f64, bound.map(|it| it as f64), world.believes(liar));
            if let (Some(system), Some(average)) = (&system, average) {
                let believes = system.believes.get(2) == Some(&true);
                // What a clock that is set by it would be wrong by.
                combined.add(system.offset_ns, Some(system.distance_ns), believes);
                averaged.add(average, Some(system.distance_ns), believes);
            }
            true
        });
    }
    [ours, combined, averaged].map(|looks| looks.worth())
}
