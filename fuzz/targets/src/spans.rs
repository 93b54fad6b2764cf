//! Files of spans, judged with a clock that is known: nothing is lost silently, and memory is what was read.
use ptp_trace::{
    clocks::{Clocks, Limits, Reading},
    correct::Corrector,
    input,
    judge::Judge,
};

/// See the module's paragraph.
///
/// # Panics
/// If what must hold does not.
pub fn run(data: &[u8]) {
    let mut clocks = Clocks::new(Limits::default(), None);
    for second in 0..10 {
        let reading =
            Reading { host_ns: second * 1_000_000_000, offset_ns: 5, bound_ns: 7, grandmaster: 1 };
        clocks.known.push("h", reading);
    }
    let mut corrector = Corrector::new(clocks, None);
    let mut judge = Judge::new(100, None);
    let mut judged = 0;
    let outcome = input::read(data, |mut resource, _| {
        corrector.resource(&mut resource, true, |trace, span| {
            judge.push(trace, span, &mut |closed| judged += closed.spans.len() as u64);
        });
        assert!(judge.open_spans() <= 100);
        Ok::<(), std::convert::Infallible>(())
    });
    judge.finish(&mut |closed| judged += closed.spans.len() as u64);
    assert_eq!(judged + corrector.counts.without_identity, corrector.counts.spans);
    let _ = judge.ledger.suspicions();
    if let Ok(outcome) = outcome {
        assert!(outcome.bytes <= data.len() as u64);
    }
}
