//! What an exchange, one Sync and one Delay_Req, costs in each servo: `cargo bench -p ptp-agent`. The
//! same stream as in `cargo xtask bench servo`, with criterion's statistics and comparison with the
//! last run.

use criterion::{Criterion, criterion_group, criterion_main};
use ptp_agent::{
    bench::servo::Exchanges,
    servo::{Options, build},
};

fn exchange(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("exchange");
    for servo in ["adaptive", "pi", "linreg", "rfc5905"] {
        let choice = servo.parse().expect("one of the servos");
        let mut exchanges = Exchanges::new(build(&choice, &Options::default()));
        group.bench_function(servo, |bencher| bencher.iter(|| exchanges.next()));
    }
    group.finish();
}

criterion_group!(benches, exchange);
criterion_main!(benches);
