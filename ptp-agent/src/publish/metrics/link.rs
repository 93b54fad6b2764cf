//! Families of links: how long they are, whether they are good enough, and the rate of the neighbour.

use super::family::{CAPABLE, CAPABLE_CHANGES, Families, LINK_DELAY, NEIGHBOR_RATE};

/// What is shown of the link of a port. What is not known, or not asked, has no series.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct LinkMetrics {
    /// `meanLinkDelay`, seconds.
    pub delay_seconds: Option<f64>,
    /// `neighborRateRatio` less one.
    pub neighbor_rate_ratio: Option<f64>,
    /// `asCapable`.
    pub is_capable: Option<bool>,
    /// How often that has changed.
    pub capable_changes: Option<u64>,
}

impl LinkMetrics {
    pub(super) fn add(&self, families: &mut Families, port: &[(&str, &str); 2]) {
        for (family, value) in [
            (&LINK_DELAY, self.delay_seconds),
            (&NEIGHBOR_RATE, self.neighbor_rate_ratio),
            (&CAPABLE, self.is_capable.map(f64::from)),
            (&CAPABLE_CHANGES, self.capable_changes.map(|changes| changes as f64)),
        ] {
            if let Some(value) = value {
                families.add(family, port, value);
            }
        }
    }
}
