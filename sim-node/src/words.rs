//! What the node says, in the words of ptp4l's log as far as somebody looks for them: on standard output, for the
//! suite takes both.

use std::{fmt::Display, io::Write as _};

use ptp_common::{
    time::{Duration, Mono, Ptp, Time},
    wire::ClockIdentity,
};
use ptp_engine::outcome::{Measurement, Observation};

/// A line with the time.
pub(crate) fn say(now: Time<Mono>, line: impl Display) {
    let nanos = now.as_nanos();
    let (seconds, millis) = (nanos / 1_000_000_000, nanos / 1_000_000 % 1_000);
    print(format_args!("ptp4l[{seconds}.{millis:03}]: {line}"));
}

/// A line as it is.
pub(crate) fn print(line: impl Display) {
    // Nobody reads it any more: the simulation goes on all the same.
    let _ = writeln!(std::io::stdout().lock(), "{line}");
}

/// Whom the clock follows from now on; itself with `None`.
pub(crate) fn selected(own: ClockIdentity, best: Option<ClockIdentity>) -> String {
    match best {
        Some(best) => format!("selected best master clock {best}"),
        None => format!("selected local clock {own} as best master"),
    }
}

/// The latest exchange both ways, for the delay that it alone makes.
#[derive(Debug, Default)]
pub(crate) struct Exchange {
    epoch: u64,
    sync: Option<(Time<Ptp>, Time<Mono>)>,
}

impl Exchange {
    /// The mean path delay by the latest Sync and this request.
    pub(crate) fn measured(&mut self, measurement: &Measurement) -> Option<Duration> {
        if self.epoch != measurement.epoch {
            *self = Self { epoch: measurement.epoch, sync: None };
        }
        match measurement.observation {
            Observation::Sync(sync) => {
                self.sync = Some((sync.t1, sync.t2.time));
                None
            }
            Observation::Delay(delay) => {
                let (t1, t2) = self.sync?;
                Some((t2.ahead_of(t1) + delay.t4.ahead_of(delay.t3.time)).half())
            }
            Observation::PeerDelay(peer) => Some(peer.mean_link_delay),
            Observation::LinkTold(told) => Some(told.mean_link_delay),
        }
    }
}
