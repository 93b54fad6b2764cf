//! What the host's clock shows against the times that others tell.

use super::{
    Announced, OffsetSample, Port,
    path::{Point, Taken},
};
use crate::{csptp::Protocol, stamp::Stamp};
use ptp_common::time::{Duration, Ptp, Real, Time};

impl Port {
    /// Makes a sample of a Sync from outside; of one that is the answer to a request, with that.
    pub(super) fn measure(
        &mut self,
        link_delay: Option<Duration>,
        sequence_id: u16,
        stamp: Stamp,
        real: Time<Real>,
        t1: Time<Ptp>,
        asked: Option<(Protocol, Point)>,
    ) -> Option<OffsetSample> {
        let path = self.path.get_or_insert_default();
        let difference = stamp.time.ahead_of(t1);
        match path.sync(Point { at: stamp.time, difference }) {
            Taken::Yes => {}
            Taken::Outlier => self.seen.losses.outlier += 1,
            Taken::Jump => self.seen.losses.clock_jump += 1,
        }
        if let Some((_, request)) = asked
            && let Some(delay) = path.request(request)
        {
            self.seen.delay.record(delay.as_nanos_f64());
        }
        let there = path.fastest_sync(stamp.time)?;
        // End to end where there is somebody who measures it, else the delay of the link.
        let delay = path.delay(stamp.time).or(link_delay);
        // Before the first Announce nobody knows what the transmitter's time means.
        let utc_offset = self.seen.announced?.utc_offset();
        let to_real = real.ahead_of(stamp.time) + utc_offset;
        let offset = |difference: Duration| difference + to_real - delay.unwrap_or_default();
        let sample = OffsetSample {
            domain: self.seen.key.domain,
            source: self.seen.key.port_identity,
            sequence_id,
            at: stamp.time,
            offset: offset(there),
            raw_offset: offset(difference),
            delay,
            frequency_ppb: path.drift().map(|drift| drift * 1e9),
            rx_source: stamp.source,
            tx_source: self.tx_source,
            protocol: asked.map(|(protocol, _)| protocol),
        };
        self.seen.offset.record(sample.raw_offset.as_nanos_f64());
        self.seen.sample = Some(sample);
        Some(sample)
    }
}

/// The host's time on the scale of the domain.
pub(super) fn on_ptp_scale(real: Time<Real>, announced: &Announced) -> Time<Ptp> {
    real.at_offset(announced.utc_offset())
}
