//! Hosts: what they make of a packet's instant, and when they run.

use ptp_common::time::Duration;
use rand::RngExt;
use rand_chacha::ChaCha8Rng;

use super::windows::{Stalls, Windows, nanos};
use crate::sim::{
    noise::Source,
    scenario::{BadStamps, Host as Settings, Sign, Suspend, Which},
};

/// An end in whole nanoseconds: later than `at_ns`, which is before it, however both are rounded.
fn later(end_s: f64, at_ns: i64) -> i64 {
    nanos(end_s).max(at_ns + 1)
}

/// What a departure became.
#[derive(Clone, Copy, Debug)]
pub(super) struct Departure {
    /// When the packet is on the wire.
    pub(super) wire_ns: i64,
    /// When the stamp was taken, if that was later than the sending.
    pub(super) stamped_ns: i64,
    /// What the stamp says too much, grid included.
    pub(super) error_ns: f64,
}

/// What an arrival will become.
#[derive(Clone, Copy, Debug)]
pub(super) struct Arrival {
    /// When the host has it.
    pub(super) at_ns: i64,
    /// How much earlier its stamp is.
    pub(super) early_ns: f64,
    /// What the stamp says too much.
    pub(super) bad_ns: f64,
}

/// A host.
pub(super) struct Host {
    receive: Source,
    transmit: Source,
    receive_grid_ns: f64,
    transmit_grid_ns: f64,
    pub(super) receive_doubt: Duration,
    pub(super) transmit_doubt: Duration,
    bad_stamps: Option<BadStamps>,
    /// Probability that an event message has no stamp.
    pub(super) missing_stamps: f64,
    stalls: Option<Stalls>,
    given_stalls: Windows,
    suspends: Windows,
}

impl Host {
    pub(super) fn new(settings: &Settings, suspends: &[Suspend], seed: u64) -> Self {
        let given = settings.stalls.iter().map(|stall| {
            let from_s = stall.at_s.get();
            [from_s, from_s + stall.length_s.get()]
        });
        let asleep = suspends.iter().map(|suspend| {
            let from_s = suspend.at_s.get();
            [from_s, from_s + suspend.length_s.get()]
        });
        Self {
            receive: Source::new(&settings.receive),
            transmit: Source::new(&settings.transmit),
            receive_grid_ns: settings.receive_grid_ns.get(),
            transmit_grid_ns: settings.transmit_grid_ns.get(),
            receive_doubt: Duration::from_nanos_f64(settings.receive_doubt_ns.get()),
            transmit_doubt: Duration::from_nanos_f64(settings.transmit_doubt_ns.get()),
            bad_stamps: settings.bad_stamps,
            missing_stamps: 0.0,
            stalls: settings.stall.as_ref().map(|stall| Stalls::new(stall, seed)),
            given_stalls: Windows::new(given),
            suspends: Windows::new(asleep),
        }
    }

    /// The first instant from `at_ns` on at which the host runs. It is `now_ns`.
    pub(super) fn runs_at(&mut self, now_ns: i64, at_ns: i64) -> i64 {
        let mut at_ns = self.goes_on_at(now_ns, at_ns);
        while let Some(end_s) = self.suspends.end_s(at_ns as f64 * 1e-9) {
            at_ns = self.goes_on_at(now_ns, later(end_s, at_ns));
        }
        at_ns
    }

    /// The first instant from `at_ns` on at which the host does not stand still, though it may be asleep.
    pub(super) fn goes_on_at(&mut self, now_ns: i64, mut at_ns: i64) -> i64 {
        if self.stalls.is_none() && self.given_stalls.is_empty() {
            return at_ns;
        }
        loop {
            let given = self.given_stalls.end_s(at_ns as f64 * 1e-9);
            let end_ns = given
                .map(|end_s| later(end_s, at_ns))
                .or_else(|| self.stalls.as_mut()?.end_ns(now_ns, at_ns));
            match end_ns {
                Some(end_ns) => at_ns = end_ns,
                None => return at_ns,
            }
        }
    }

    pub(super) fn runs(&mut self, now_ns: i64) -> bool {
        self.runs_at(now_ns, now_ns) == now_ns
    }

    /// Whether what comes is lost.
    pub(super) fn is_asleep(&self, now_s: f64) -> bool {
        self.suspends.contains(now_s)
    }

    /// A packet was sent or received: the paths are warm.
    pub(super) fn touch(&mut self, now_s: f64) {
        self.receive.touch(now_s);
        self.transmit.touch(now_s);
    }

    /// An event message is sent at `now_ns`, when the local clock shows so much more (`phase_ns`).
    pub(super) fn depart(
        &mut self,
        now_ns: i64,
        phase_ns: f64,
        rng: &mut ChaCha8Rng,
        extra: &mut ChaCha8Rng,
    ) -> Departure {
        // A stamp is of now; the packet leaves later by its error. Or the packet leaves now and the
        // stamp comes later.
        let delay = self.transmit.draw(now_ns as f64 * 1e-9, rng);
        let wire_ns = now_ns + delay.max(0.0).round() as i64;
        let late_ns = (-delay).max(0.0).round();
        let mut error_ns = late_ns;
        if self.transmit_grid_ns > 0.0 {
            let local_ns = now_ns as f64 + phase_ns + late_ns;
            error_ns -= local_ns.rem_euclid(self.transmit_grid_ns);
        }
        error_ns += self.bad_ns(Which::Transmit, extra);
        let stamped_ns = self.runs_at(now_ns, now_ns + late_ns as i64);
        Departure { wire_ns: self.runs_at(now_ns, wire_ns), stamped_ns, error_ns }
    }

    /// An event message will be there at `wire_ns`; it is `now_ns`, and the local clock will show so
    /// much more then (`phase_ns`).
    pub(super) fn arrive(
        &mut self,
        now_ns: i64,
        wire_ns: i64,
        phase_ns: f64,
        rng: &mut ChaCha8Rng,
        extra: &mut ChaCha8Rng,
    ) -> Arrival {
        let delay = self.receive.draw(now_ns as f64 * 1e-9, rng);
        let awake_ns = self.goes_on_at(now_ns, wire_ns);
        let mut at_ns = awake_ns + delay.max(0.0).round() as i64;
        if self.receive_grid_ns > 0.0 {
            let over = (at_ns as f64 + phase_ns).rem_euclid(self.receive_grid_ns);
            if over > 0.0 {
                at_ns += (self.receive_grid_ns - over).ceil() as i64;
            }
        }
        Arrival {
            at_ns: self.goes_on_at(now_ns, at_ns),
            early_ns: (-delay).max(0.0),
            bad_ns: self.bad_ns(Which::Receive, extra),
        }
    }

    /// What is to be added to a receive stamp that would be `local_ns`, so that it is a tick.
    pub(super) fn to_tick_ns(&self, local_ns: f64) -> f64 {
        if self.receive_grid_ns > 0.0 {
            (local_ns / self.receive_grid_ns).round() * self.receive_grid_ns - local_ns
        } else {
            0.0
        }
    }

    /// Whether a stamp is missing.
    pub(super) fn has_no_stamp(&self, extra: &mut ChaCha8Rng) -> bool {
        self.missing_stamps > 0.0 && extra.random_bool(self.missing_stamps)
    }

    fn bad_ns(&self, of: Which, extra: &mut ChaCha8Rng) -> f64 {
        let Some(bad) = self.bad_stamps.filter(|bad| bad.of == Which::Both || bad.of == of) else {
            return 0.0;
        };
        if !extra.random_bool(bad.probability.get()) {
            return 0.0;
        }
        let is_ahead = match bad.sign {
            Sign::Either => extra.random_bool(0.5),
            Sign::Ahead => true,
            Sign::Behind => false,
        };
        if is_ahead { bad.off_by_ns.get() } else { -bad.off_by_ns.get() }
    }
}
