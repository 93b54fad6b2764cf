//! The routes that packets have taken: the round trip of each and how much longer it was forward than backward.
//! When a route changes, no packet tells which of the two was the even one, and the guess may be wrong. When the
//! round trip is then what it once was, so is the route, and what was believed of it holds again: a detour leaves
//! nothing behind.

use super::filter::Filter;
#[cfg(target_os = "none")]
use crate::math::Float as _;
use crate::prelude::*;

/// Routes that are remembered.
const ROUTES: usize = 4;
/// Two round trips that differ by less than so many of their standard deviations are one ...
const SIGMAS: f64 = 4.0;
/// ... or by less than this share.
const SHARE: f64 = 0.005;
/// A difference between the ways is another one if it is so by more than so many standard deviations of the round
/// trip: what is known of it is known by the same packets.
const APART_SIGMAS: f64 = 8.0;

/// One route, nanoseconds.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Route {
    round_trip_ns: f64,
    /// Forward minus backward.
    uneven_ns: f64,
    variance_ns2: f64,
}

impl Route {
    fn of(filter: &Filter) -> Self {
        let (x, p) = (&filter.x, &filter.p);
        Self {
            round_trip_ns: x[2] + x[3],
            uneven_ns: x[2] - x[3],
            variance_ns2: (p[2][2] + p[3][3] + 2.0 * p[2][3]).max(1.0),
        }
    }

    fn is_like(&self, other: &Self) -> bool {
        let apart = (self.round_trip_ns - other.round_trip_ns).abs();
        let sigma = (self.variance_ns2 + other.variance_ns2).sqrt();
        apart <= (SIGMAS * sigma).max(SHARE * self.round_trip_ns.abs())
    }
}

/// See the module's paragraph. The one that was known first is first; the shortest never goes.
#[derive(Clone, Debug, Default)]
pub(super) struct Routes(Vec<Route>);

impl Routes {
    /// What is believed now has been so for long enough to be known.
    pub(super) fn learn(&mut self, filter: &Filter) {
        let new = Route::of(filter);
        if self.0.iter().any(|known| known.is_like(&new)) {
            return;
        }
        if self.0.len() == ROUTES {
            let shortest = self.0.iter().map(|route| route.round_trip_ns);
            let shortest = shortest.fold(f64::INFINITY, f64::min);
            if let Some(at) = self.0.iter().position(|route| route.round_trip_ns > shortest) {
                self.0.remove(at);
            }
        }
        self.0.push(new);
    }

    /// By how much the offset of the free-running scale is more than what is believed, nanoseconds, if the route is
    /// one that is known and was less or more uneven.
    pub(super) fn unlike(&self, filter: &Filter) -> Option<f64> {
        let new = Route::of(filter);
        let known = self.0.iter().find(|known| known.is_like(&new))?;
        // What is less forward is more in the offset, since packets stay what they are.
        let by = 0.5 * (new.uneven_ns - known.uneven_ns);
        (by.abs() > APART_SIGMAS * new.variance_ns2.sqrt()).then_some(by)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn filter(forward: f64, backward: f64) -> Filter {
        let mut p = [[0.0; 4]; 4];
        (p[2][2], p[3][3]) = (100.0, 100.0);
        Filter::new([0.0, 0.0, forward, backward], p)
    }

    #[test]
    fn route_that_comes_back_is_as_even_as_it_was() {
        let mut routes = Routes::default();
        routes.learn(&filter(160_000.0, 160_000.0));
        routes.learn(&filter(60_000.0, 60_000.0));
        assert_eq!(routes.unlike(&filter(210_000.0, 110_000.0)), Some(50_000.0));
        assert_eq!(routes.unlike(&filter(160_050.0, 159_960.0)), None, "nothing but noise");
        assert_eq!(routes.unlike(&filter(250_000.0, 110_000.0)), None, "a third one");
    }

    #[test]
    fn shortest_route_is_never_forgotten_and_memory_is_bounded() {
        let mut routes = Routes::default();
        for n in 0..50 {
            routes.learn(&filter(50_000.0 + 5_000.0 * f64::from(n), 50_000.0));
        }
        assert_eq!(routes.0.len(), ROUTES);
        assert_eq!(routes.unlike(&filter(60_000.0, 40_000.0)), Some(10_000.0));
    }
}
