//! Takes the linear relation of two clocks out of the differences of their stamps: a NIC's clock
//! runs at its own frequency from its own beginning, and only what remains says something about the
//! stamps.

/// Differences that one line is fitted to. Short against the time in which frequencies change, long
/// against the two degrees of freedom that the line takes from the spread.
const WINDOW: usize = 128;
/// Fewer than this make no line.
const LEAST: usize = 8;

/// Differences that wait for their window to fill.
#[derive(Clone, Debug, Default)]
pub(super) struct Detrend {
    /// Reference stamp, and source minus reference.
    window: Vec<(i64, i64)>,
}

impl Detrend {
    /// Takes a difference; gives the residuals of a window when that is full.
    pub(super) fn push(&mut self, reference_ns: i64, difference_ns: i64) -> Vec<f64> {
        self.window.push((reference_ns, difference_ns));
        if self.window.len() == WINDOW { self.flush() } else { Vec::new() }
    }

    /// The residuals of what has come; nothing where it is too little for a line.
    pub(super) fn flush(&mut self) -> Vec<f64> {
        let window = std::mem::take(&mut self.window);
        let Some(&(x0, y0)) = window.first() else { return Vec::new() };
        if window.len() < LEAST {
            return Vec::new();
        }
        // Relative to the first, so that floating point has digits enough.
        let points: Vec<(f64, f64)> = window
            .iter()
            .map(|(x, y)| (x.saturating_sub(x0) as f64, y.saturating_sub(y0) as f64))
            .collect();
        let count = points.len() as f64;
        let mean_x = points.iter().map(|point| point.0).sum::<f64>() / count;
        let mean_y = points.iter().map(|point| point.1).sum::<f64>() / count;
        let (mut xx, mut xy) = (0.0, 0.0);
        for (x, y) in &points {
            xx += (x - mean_x).powi(2);
            xy += (x - mean_x) * (y - mean_y);
        }
        let slope = if xx > 0.0 { xy / xx } else { 0.0 };
        points.iter().map(|(x, y)| y - mean_y - slope * (x - mean_x)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn drift_and_offset_of_a_clock_vanish_and_the_noise_stays() {
        let mut detrend = Detrend::default();
        let mut residuals = Vec::new();
        for i in 0..2 * WINDOW as i64 {
            let noise = if i % 2 == 0 { 50 } else { -50 };
            // 62.5 ms apart, 37 ppm, begun in another epoch.
            let reference = 1_700_000_000_000_000_000 + i * 62_500_000;
            residuals
                .extend(detrend.push(reference, -1_699_000_000_000_000_000 + i * 2312 + noise));
        }
        assert_eq!(residuals.len(), 2 * WINDOW);
        let sd = (residuals.iter().map(|r| r * r).sum::<f64>() / residuals.len() as f64).sqrt();
        assert!((49.0..51.0).contains(&sd), "{sd}");
    }

    #[test]
    fn too_few_for_a_line_give_nothing() {
        let mut detrend = Detrend::default();
        for i in 0..LEAST as i64 - 1 {
            assert!(detrend.push(i, i).is_empty());
        }
        assert!(detrend.flush().is_empty());
    }

    #[test]
    fn equal_instants_and_absurd_values_are_no_trouble() {
        let mut detrend = Detrend::default();
        for i in 0..LEAST as i64 {
            detrend.push(5, if i == 0 { i64::MIN } else { i64::MAX });
        }
        assert!(detrend.flush().iter().all(|residual| residual.is_finite()));
    }
}
