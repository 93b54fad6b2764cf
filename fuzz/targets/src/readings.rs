//! What is known of clocks: lines of agents, and answers of Prometheus.
use ptp_trace::{
    clocks::{Clocks, Limits},
    prometheus, readings,
};

/// See the module's paragraph.
///
/// # Panics
/// If what must hold does not.
pub fn run(data: &[u8]) {
    let mut clocks = Clocks::new(Limits::default(), None);
    let Clocks { known, grandmasters, .. } = &mut clocks;
    let _ = prometheus::take(data, "instance", known, grandmasters);
    readings::read(data, Some("h"), known, grandmasters).expect("memory can be read");
    for at in [i64::MIN, -1, 0, 1_700_000_000_000_000_000, i64::MAX] {
        if let Ok(when) = clocks.when("h", at, 1_000) {
            assert!(when.lo_ns <= when.hi_ns);
        }
    }
}
