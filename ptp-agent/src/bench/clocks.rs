//! The cost of one clock call inside a kernel program (Table 2 of the paper). The program takes the
//! difference of two calls of one clock that follow each other with nothing in between, so exactly
//! one call lies between the two instants at which the counter is read: no loop, no statistics, and
//! nothing to subtract. Interrupts that fall between the two are in, as they are in the paper's
//! maxima. The program keeps count, sum, sum of squares, minimum and maximum.

use anyhow::Context as _;
use aya::{
    maps::Array,
    programs::{SchedClassifier, TestRun as _, TestRunOptions},
};

use super::{Cost, Row, load};
use crate::capture::CaptureError;

/// Pairs of calls per run of the program; `PAIRS` of the kernel programs.
const CALLS_PER_RUN: u32 = 64;

/// A clock, and what the paper found for it.
pub(super) struct Clock {
    /// Name of the row and of the program.
    pub(super) name: &'static str,
    /// For people.
    pub(super) title: &'static str,
    /// The paper's Table 2, nanoseconds.
    pub(super) paper: Cost,
}

/// The clocks, in the paper's order. The paper's kernel had a real-time helper; the one that Linux
/// has is TAI, which is real time and a constant.
pub(super) const CLOCKS: [Clock; 2] = [
    Clock {
        name: "clock_tai",
        title: "real time (TAI helper)",
        paper: Cost { min: 25.0, mean: 40.0, sd: 89.0, max: 20_690.0 },
    },
    Clock {
        name: "clock_mono",
        title: "monotonic",
        paper: Cost { min: 25.0, mean: 27.0, sd: 81.0, max: 17_840.0 },
    },
];

/// Measures each clock that the kernel has, `calls` times at least.
pub(super) fn measure(calls: u32, each: &mut impl FnMut(&Row)) -> anyhow::Result<()> {
    let (mut ebpf, features) = load()?;
    for clock in CLOCKS {
        if clock.name == "clock_tai" && !features.tai {
            continue;
        }
        let program: &mut SchedClassifier = ebpf
            .program_mut(clock.name)
            .with_context(|| format!("the object has no program {}", clock.name))?
            .try_into()?;
        program.load().map_err(CaptureError::load)?;
        // Warms up; what it measured is thrown away.
        run(program, 10)?;
        costs(&mut ebpf)?.set(0, [0; 5], 0)?;
        let program: &mut SchedClassifier =
            ebpf.program_mut(clock.name).context("it was there")?.try_into()?;
        run(program, calls.div_ceil(CALLS_PER_RUN))?;
        let measured = costs(&mut ebpf)?.get(&0, 0)?;
        costs(&mut ebpf)?.set(0, [0; 5], 0)?;
        each(&Row { name: clock.name, ns: cost(measured), baseline_ns: 0.0, throughput: None });
    }
    Ok(())
}

fn run(program: &SchedClassifier, times: u32) -> anyhow::Result<()> {
    let options =
        TestRunOptions { data_in: Some(&[0; 64]), repeat: times, ..TestRunOptions::default() };
    program.test_run(options).context("cannot run a program by BPF_PROG_TEST_RUN")?;
    Ok(())
}

fn costs(ebpf: &mut aya::Ebpf) -> anyhow::Result<Array<&mut aya::maps::MapData, [u64; 5]>> {
    let map = ebpf.map_mut("COSTS").context("the object has no map COSTS")?;
    Ok(Array::try_from(map)?)
}

/// The kernel's sums as a distribution.
fn cost([count, sum, sum_of_squares, min, max]: [u64; 5]) -> Cost {
    let count = count.max(1) as f64;
    let mean = sum as f64 / count;
    // Sums of 1e9 squares below (1 ms)^2 fit; what rounding leaves below zero is none.
    let variance = (sum_of_squares as f64 / count - mean * mean).max(0.0);
    Cost { min: min as f64, mean, sd: variance.sqrt(), max: max as f64 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sums_of_the_kernel_become_a_distribution() {
        assert_eq!(
            cost([4, 80, 1608, 18, 22]),
            Cost { min: 18.0, mean: 20.0, sd: 2.0_f64.sqrt(), max: 22.0 }
        );
        assert_eq!(cost([0; 5]), Cost { min: 0.0, mean: 0.0, sd: 0.0, max: 0.0 });
    }
}
