//! The algorithms of RFC 5905 from the exchange to the combined offset, to compare with.

use ptp_engine::ntp::Exchange;

use super::world::utc;

/// Combined offset and synchronization distance, and which servers the selection believes.
pub(crate) struct System {
    pub(crate) offset_ns: f64,
    pub(crate) distance_ns: f64,
    pub(crate) believes: Vec<bool>,
}

/// The clock filter, selection, cluster algorithm and combining of RFC 5905 (10, 11.2), given the true frequency of the
/// oscillator, as a discipline that has settled has it.
#[derive(Default)]
pub(crate) struct Rfc5905 {
    /// Of each server: offset, delay, dispersion at the time of the sample, and that time.
    samples: Vec<Vec<(f64, f64, f64, i64)>>,
    root: Vec<f64>,
}

impl Rfc5905 {
    const PHI: f64 = 15e-6;

    pub(crate) fn take(&mut self, at: usize, exchange: &Exchange) {
        self.samples.resize(self.samples.len().max(at + 1), Vec::new());
        self.root.resize(self.samples.len(), 0.0);
        let (t1, t4) = (exchange.t1.time.as_nanos(), exchange.t4.time.as_nanos());
        // Against what the oscillator would show if it were steered well.
        let there = (exchange.t2.as_nanos() - utc(t1)) as f64;
        let back = (exchange.t3.as_nanos() - utc(t4)) as f64;
        let delay = exchange.delay().as_nanos() as f64;
        self.root[at] = exchange.server.root_distance.as_nanos() as f64;
        let dispersion = 1_000.0 + Self::PHI * (t4 - t1) as f64;
        let stage = &mut self.samples[at];
        stage.insert(0, ((there + back) / 2.0, delay, dispersion, t4));
        stage.truncate(8);
    }

    /// What the clock is set by.
    pub(crate) fn system(&self, now: i64) -> Option<System> {
        // 10: the sample of least delay; jitter against it.
        let peers: Vec<(f64, f64)> = self
            .samples
            .iter()
            .zip(&self.root)
            .filter_map(|(stage, root)| {
                let best = stage.iter().min_by(|a, b| a.1.total_cmp(&b.1))?;
                let squares = stage.iter().map(|it| (it.0 - best.0).powi(2)).sum::<f64>();
                let jitter = (squares / (stage.len().max(2) - 1) as f64).sqrt();
                let mut sorted: Vec<_> = stage.iter().collect();
                sorted.sort_by(|a, b| a.1.total_cmp(&b.1));
                let aged = |it: &(f64, f64, f64, i64)| it.2 + Self::PHI * (now - it.3) as f64;
                let dispersion: f64 =
                    sorted.iter().zip(1..).map(|(it, n)| aged(it) / 2_f64.powi(n)).sum();
                Some((best.0, best.1 / 2.0 + dispersion + jitter + root))
            })
            .collect();
        // 11.2.1.
        let n = peers.len();
        let chosen = (0..n.div_ceil(2)).find_map(|allowed| {
            let mut edges: Vec<f64> = peers.iter().map(|it| it.0 - it.1).collect();
            edges.sort_by(f64::total_cmp);
            let count = |x: f64| peers.iter().filter(|it| (it.0 - x).abs() <= it.1).count();
            let low = edges.iter().copied().find(|x| count(*x) >= n - allowed)?;
            let mut highs: Vec<f64> = peers.iter().map(|it| it.0 + it.1).collect();
            highs.sort_by(|a, b| b.total_cmp(a));
            let high = highs.into_iter().find(|x| count(*x) >= n - allowed)?;
            (low <= high).then_some((low, high))
        })?;
        let is_chosen = |it: &(f64, f64)| it.0 - it.1 <= chosen.1 && it.0 + it.1 >= chosen.0;
        let believes = peers.iter().map(is_chosen).collect();
        let mut survivors: Vec<_> = peers.into_iter().filter(is_chosen).collect();
        // 11.2.2 leaves three; then 11.2.3.
        while survivors.len() > 3 {
            let spread =
                |it: &(f64, f64)| survivors.iter().map(|o| (o.0 - it.0).powi(2)).sum::<f64>();
            let worst = (0..survivors.len())
                .max_by(|a, b| spread(&survivors[*a]).total_cmp(&spread(&survivors[*b])))?;
            survivors.remove(worst);
        }
        let weights: f64 = survivors.iter().map(|it| 1.0 / it.1).sum();
        let combined = survivors.iter().map(|it| it.0 / it.1).sum::<f64>() / weights;
        let distance = survivors.iter().map(|it| it.1).fold(f64::MAX, f64::min);
        Some(System { offset_ns: combined, distance_ns: distance + combined.abs(), believes })
    }
}
