//! The fuzz targets without a fuzzer: every shape of the corpora, whole, cut, spliced and damaged. Finds less
//! than libFuzzer does in an hour, and what it finds it finds in every run of the test suite, on stable Rust.

use proptest::{
    collection::vec,
    prelude::*,
    sample::Index,
    test_runner::{Config, TestRunner},
};
use ptp_fuzz_targets::TARGETS;

/// Inputs per target; the environment may ask for more (PROPTEST_CASES).
const CASES: u32 = 400;

fn config() -> Config {
    let config = Config::default();
    let cases = if std::env::var_os("PROPTEST_CASES").is_some() { config.cases } else { CASES };
    Config { cases, failure_persistence: None, ..config }
}

/// A change of an input.
#[derive(Clone, Debug)]
enum Change {
    Set(Index, u8),
    Flip(Index, u8),
    Cut(Index),
    Remove(Index, u8),
    Insert(Index, Vec<u8>),
    Splice(Index, Index, Index),
}

fn change() -> impl Strategy<Value = Change> {
    let extreme = prop_oneof![Just(0), Just(1), Just(0x7f), Just(0x80), Just(0xff), any::<u8>()];
    prop_oneof![
        4 => (any::<Index>(), extreme).prop_map(|(at, byte)| Change::Set(at, byte)),
        4 => (any::<Index>(), 0..8_u8).prop_map(|(at, bit)| Change::Flip(at, bit)),
        1 => any::<Index>().prop_map(Change::Cut),
        1 => (any::<Index>(), 1..9_u8).prop_map(|(at, many)| Change::Remove(at, many)),
        1 => (any::<Index>(), vec(any::<u8>(), 1..9)).prop_map(|(at, new)| Change::Insert(at, new)),
        1 => any::<(Index, Index, Index)>().prop_map(|(of, from, to)| Change::Splice(of, from, to)),
    ]
}

fn apply(input: &mut Vec<u8>, change: &Change, seeds: &[Vec<u8>]) {
    let place = |at: &Index, length: usize| at.index(length + 1);
    match change {
        Change::Set(at, byte) if !input.is_empty() => {
            let at = at.index(input.len());
            input[at] = *byte;
        }
        Change::Flip(at, bit) if !input.is_empty() => {
            let at = at.index(input.len());
            input[at] ^= 1 << bit;
        }
        Change::Set(..) | Change::Flip(..) => {}
        Change::Cut(at) => input.truncate(place(at, input.len())),
        Change::Remove(at, many) => {
            let at = place(at, input.len());
            let end = (at + usize::from(*many)).min(input.len());
            input.drain(at..end);
        }
        Change::Insert(at, new) => {
            let at = place(at, input.len());
            input.splice(at..at, new.iter().copied());
        }
        Change::Splice(of, from, to) => {
            let other = &seeds[of.index(seeds.len())];
            let (from, to) = (place(from, other.len()), place(to, input.len()));
            input.truncate(to);
            input.extend_from_slice(&other[from..]);
        }
    }
}

#[test]
fn every_shape_of_the_corpora_holds_what_its_target_claims() {
    for (name, run, seeds) in TARGETS {
        let seeds = seeds();
        assert!(seeds.len() > 1 && seeds.iter().all(|seed| !seed.is_empty()), "{name}");
        for seed in seeds {
            run(&seed);
        }
    }
}

#[test]
fn every_target_holds_for_damaged_shapes_and_for_any_bytes() {
    for (name, run, seeds) in TARGETS {
        let seeds = seeds();
        let damaged = (any::<Index>(), vec(change(), 0..8));
        let input = prop_oneof![
            8 => damaged.prop_map(|(of, changes)| {
                let mut input = seeds[of.index(seeds.len())].clone();
                changes.iter().for_each(|change| apply(&mut input, change, &seeds));
                input
            }),
            1 => vec(any::<u8>(), 0..400),
        ];
        let outcome = TestRunner::new(config()).run(&input, |input| {
            run(&input);
            Ok(())
        });
        assert!(
            outcome.is_ok(),
            "{name}: {}",
            outcome.err().map_or(String::new(), |it| it.to_string())
        );
    }
}
