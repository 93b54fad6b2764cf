//! Claims about the kernel programs, each run by BPF_PROG_TEST_RUN on frames that never leave the
//! kernel: what a record says, what gets a record, and what happens when the ring is full. All on
//! the committed object, and on the freshly built one where `cargo xtask test` has built one.

use std::{
    os::fd::{AsFd as _, AsRawFd as _, OwnedFd},
    thread,
};

use aya::programs::Program;
use bpf_tests::{
    frames::{Expected, Payload, Recipe, recipe, sync},
    need,
    objects::{kernel_programs, objects},
    run::{Hook, drained, repeat, run},
};
use proptest::{
    prelude::*,
    test_runner::{Config, TestRunner},
};
use ptp_agent::{
    capture::{Features, Options, Programs, XdpHook},
    sys::clock,
};
use ptp_common::{
    classify::classify,
    record::{Direction, MESSAGE_CAPACITY, Record},
};

fn options() -> Options {
    Options { xdp: Some(XdpHook::Generic), ..Options::default() }
}

/// Both objects, each as this kernel can use it and as an old kernel would.
fn variants() -> Vec<(String, Programs)> {
    let mut variants = Vec::new();
    for object in objects() {
        for (title, features) in
            [("all features", None), ("no features", Some(Features::default()))]
        {
            let name = format!("{}, {title}", object.name);
            let programs = Programs::load_object(&object.bytes, Options { features, ..options() })
                .unwrap_or_else(|error| panic!("{name}: {error}"));
            variants.push((name, programs));
        }
    }
    variants
}

/// A run of which everything that no packet may change has been checked; its record, if any. The
/// outer `None` is for a frame that the kernel does not run TC programs on.
fn stamped(
    programs: &mut Programs,
    hook: Hook,
    frame: &[u8],
    context: Option<&[u8]>,
) -> Option<Option<Record>> {
    let outcome = run(programs, hook, frame, context)
        .unwrap_or_else(|error| panic!("{hook:?} on {} bytes: {error:?}", frame.len()))?;
    assert_eq!(outcome.returned, hook.pass(), "{hook:?} on {frame:02x?}");
    assert_eq!(outcome.frame, frame, "{hook:?} altered the packet");
    assert!(outcome.records.len() <= 1, "{hook:?} wrote {} records", outcome.records.len());
    Some(outcome.records.into_iter().next())
}

/// The record of a frame that is long enough and PTP.
fn record(programs: &mut Programs, hook: Hook, frame: &[u8], context: Option<&[u8]>) -> Record {
    stamped(programs, hook, frame, context).flatten().expect("a record was due")
}

/// What a record must say of the first `length` bytes of a recipe's frame.
fn check(record: &Record, programs: &Programs, hook: Hook, recipe: &Recipe, length: usize) {
    let mut expected = recipe.expected(length).expect("a record was written, so one was due");
    if hook == Hook::Xdp && !programs.features().xdp_load_bytes {
        // Without the helper the message is copied two bytes at a time.
        expected.message.truncate(expected.message.len() & !1);
    }
    assert_eq!(Expected::of(record), expected, "{hook:?}, {length} bytes of {recipe:?}");
    assert_eq!(record.hook, hook.in_records());
    let direction = if hook == Hook::TcEgress { Direction::Egress } else { Direction::Ingress };
    assert_eq!(record.direction, direction);
    assert_eq!(record.packet_length, length as u32);
    // The kernel runs the programs as if the packet were on the loopback interface.
    assert_eq!((record.ifindex, record.queue), (1, 0));
    assert!(!record.vlan_offloaded);
    assert_eq!(record.vlan[usize::from(record.vlan_count)..].iter().sum::<u16>(), 0);
    assert_eq!(record.serial != 0, hook == Hook::TcEgress, "serial {:#x}", record.serial);
    assert_eq!((record.done_ns, record.stack_ns, record.hardware_ns), (0, 0, 0));
}

#[test]
fn record_says_what_the_packet_is_on_every_hook() {
    need!(kernel_programs());
    for (name, mut programs) in variants() {
        let mut runner =
            TestRunner::new(Config { cases: 400, failure_persistence: None, ..Config::default() });
        let programs = std::cell::RefCell::new(&mut programs);
        let result = runner.run(&recipe(), |recipe| {
            let frame = recipe.frame();
            let programs = &mut **programs.borrow_mut();
            for hook in Hook::ALL {
                let Some(record) = stamped(programs, hook, &frame, None) else { continue };
                prop_assert_eq!(
                    record.is_some(),
                    recipe.expected(frame.len()).is_some(),
                    "{:?}",
                    hook
                );
                if let Some(record) = record {
                    check(&record, programs, hook, &recipe, frame.len());
                }
            }
            Ok(())
        });
        result.unwrap_or_else(|error| panic!("{name}: {error}"));
    }
}

#[test]
fn packet_cut_at_any_byte_gives_what_is_left_or_nothing() {
    need!(kernel_programs());
    let tags = [(0x88a8, 0x2005), (0x8100, 0x6fff)];
    let mut recipes =
        vec![Recipe::sync_on_ethernet(), Recipe::sync_on_udp4(), Recipe::sync_on_udp6()];
    let mut longest = Recipe::sync_on_udp4();
    if let Payload::Ipv4 { options, .. } = &mut longest.payload {
        *options = vec![[1; 4]; 10];
    }
    recipes.push(longest);
    for recipe in recipes.clone() {
        recipes.push(Recipe { tags: tags[..1].to_vec(), ..recipe.clone() });
        recipes.push(Recipe { tags: tags.to_vec(), ..recipe });
    }
    for (name, mut programs) in variants() {
        for recipe in &recipes {
            let frame = recipe.frame();
            // The kernel runs programs on no less than a link header.
            for length in 14..=frame.len() {
                for hook in Hook::ALL {
                    let Some(record) = stamped(&mut programs, hook, &frame[..length], None) else {
                        continue;
                    };
                    let due = recipe.expected(length).is_some();
                    assert_eq!(
                        record.is_some(),
                        due,
                        "{name}: {hook:?}, {length} bytes of {recipe:?}"
                    );
                    if let Some(record) = record {
                        check(&record, &programs, hook, recipe, length);
                    }
                }
            }
        }
    }
}

#[test]
fn kernel_and_user_space_agree_on_what_is_ptp() {
    need!(kernel_programs());
    // Recipes with bytes changed anywhere: here nobody knows what is expected but the classifier.
    let mutations = prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..4);
    let cut = any::<prop::sample::Index>();
    let strategy = (recipe(), mutations, prop::option::weighted(0.3, cut));
    for (name, mut programs) in variants() {
        let mut runner =
            TestRunner::new(Config { cases: 2000, failure_persistence: None, ..Config::default() });
        let programs = std::cell::RefCell::new(&mut programs);
        let result = runner.run(&strategy, |(recipe, mutations, cut)| {
            let mut frame = recipe.frame();
            for (at, value) in mutations {
                // Where it matters: the headers.
                let headers = frame.len().min(100);
                frame[at.index(headers)] = value;
            }
            if let Some(cut) = cut {
                frame.truncate(14 + cut.index(frame.len() - 13));
            }
            let location = classify(&frame[..]).ok();
            for hook in Hook::ALL {
                let Some(record) = stamped(&mut programs.borrow_mut(), hook, &frame, None) else {
                    continue;
                };
                prop_assert_eq!(record.is_some(), location.is_some(), "{:?}", hook);
                let (Some(record), Some(location)) = (record, location) else { continue };
                prop_assert_eq!(record.network, location.network);
                prop_assert_eq!(record.source_port, location.source_port);
                prop_assert_eq!(record.destination_port, location.destination_port);
                prop_assert_eq!(record.vlan, location.vlan);
                prop_assert_eq!(record.vlan_count, location.vlan_count);
                let rest = frame.get(location.ptp_offset..).unwrap_or_default();
                let rest = &rest[..rest.len().min(MESSAGE_CAPACITY)];
                prop_assert_eq!(record.message(), &rest[..record.message().len()]);
                prop_assert!(rest.len() - record.message().len() <= 1);
            }
            Ok(())
        });
        result.unwrap_or_else(|error| panic!("{name}: {error}"));
    }
}

#[test]
fn clocks_are_read_between_the_callers_own_readings() {
    need!(kernel_programs());
    let frame = Recipe::sync_on_udp4().frame();
    for (name, mut programs) in variants() {
        for hook in Hook::ALL {
            let mut last = 0;
            let mut nearest = i128::MAX;
            for _ in 0..50 {
                let before = clock::monotonic();
                let record = record(&mut programs, hook, &frame, None);
                let after = clock::monotonic();
                let mono = i128::from(record.mono_ns);
                let (before, after) =
                    (before.since_epoch().as_nanos(), after.since_epoch().as_nanos());
                assert!(
                    i128::from(before) <= mono && mono <= i128::from(after),
                    "{name}, {hook:?}: {before} <= {mono} <= {after}"
                );
                assert!(record.mono_ns >= last, "{name}, {hook:?}: went back");
                last = record.mono_ns;
                if programs.features().tai {
                    let tai_minus_mono = clock::realtime_minus_monotonic().as_nanos() as i128
                        + i128::from(clock::tai_offset_seconds().unwrap()) * 1_000_000_000;
                    let difference = i128::from(record.tai_ns) - mono - tai_minus_mono;
                    nearest = nearest.min(difference.abs());
                } else {
                    assert_eq!(record.tai_ns, 0, "{name}, {hook:?}");
                }
            }
            // An interrupt may fall between the two readings once, not every time.
            assert!(
                !programs.features().tai || nearest < 10_000,
                "{name}, {hook:?}: TAI is {nearest} ns from where it should be"
            );
        }
    }
}

#[test]
fn stamps_of_stack_and_nic_come_along_on_ingress() {
    need!(kernel_programs());
    // `struct __sk_buff` of linux/bpf.h: `tstamp` at 152, `hwtstamp` at 184.
    let mut context = [0; 192];
    context[152..160].copy_from_slice(&1_700_000_000_123_456_789_u64.to_ne_bytes());
    context[184..192].copy_from_slice(&42_u64.to_ne_bytes());
    let frame = Recipe::sync_on_ethernet().frame();
    for (name, mut programs) in variants() {
        let record = record(&mut programs, Hook::TcIngress, &frame, Some(&context));
        assert_eq!(record.stack_ns, 1_700_000_000_123_456_789, "{name}");
        let hardware_ns = if programs.features().hwtstamp { 42 } else { 0 };
        assert_eq!(record.hardware_ns, hardware_ns, "{name}");
    }
}

#[test]
fn serials_of_egress_packets_differ() {
    need!(kernel_programs());
    let frame = Recipe::sync_on_ethernet().frame();
    let mut programs = Programs::load(options()).unwrap();
    repeat(&mut programs, Hook::TcEgress, &frame, 1000).unwrap();
    let mut serials: Vec<u64> = drained(&mut programs).iter().map(|record| record.serial).collect();
    assert_eq!(serials.len(), 1000);
    serials.sort_unstable();
    serials.dedup();
    assert_eq!(serials.len(), 1000);
}

#[test]
fn full_ring_loses_records_counts_them_and_recovers() {
    need!(kernel_programs());
    let frame = Recipe::sync_on_udp6().frame();
    for object in objects() {
        let options = Options { ring_bytes: Some(4096), ..options() };
        let mut programs = Programs::load_object(&object.bytes, options).unwrap();
        for hook in Hook::ALL {
            repeat(&mut programs, hook, &frame, 1000).unwrap();
            let counts = programs.counts(hook.in_records()).unwrap();
            let recorded = drained(&mut programs).len() as u64;
            assert_eq!(counts.seen, 1000, "{hook:?}");
            assert_eq!(recorded + counts.lost, 1000, "{hook:?}");
            assert!(recorded >= 4096 / 300, "{hook:?}: {recorded} records in 4096 bytes");

            let room = u32::try_from(recorded).unwrap();
            repeat(&mut programs, hook, &frame, room).unwrap();
            assert_eq!(drained(&mut programs).len() as u64, recorded, "{hook:?}");
            let after = programs.counts(hook.in_records()).unwrap();
            assert_eq!((after.seen, after.lost), (1000 + recorded, counts.lost), "{hook:?}");
        }
        assert_eq!(programs.malformed(), 0);
    }
}

#[test]
fn seen_is_recorded_plus_lost_under_two_writers_and_a_slow_reader() {
    need!(kernel_programs());
    const TIMES: u32 = 50_000;
    let frame = Recipe::sync_on_ethernet().frame();
    let options = Options { ring_bytes: Some(64 * 1024), ..options() };
    let mut programs = Programs::load(options).unwrap();
    let descriptor: OwnedFd = match programs.ebpf().program_mut("ptp_tc_ingress").unwrap() {
        Program::SchedClassifier(program) => {
            program.fd().unwrap().as_fd().try_clone_to_owned().unwrap()
        }
        _ => panic!("of another kind"),
    };
    let mut recorded = 0;
    thread::scope(|scope| {
        let writers: Vec<_> =
            (0..2).map(|_| scope.spawn(|| test_run(&descriptor, &frame, TIMES))).collect();
        while !writers.iter().all(thread::ScopedJoinHandle::is_finished) {
            recorded += drained(&mut programs).len() as u64;
            thread::yield_now();
        }
    });
    recorded += drained(&mut programs).len() as u64;
    let counts = programs.counts(ptp_common::record::Hook::TcIngress).unwrap();
    assert_eq!(counts.seen, 2 * u64::from(TIMES));
    assert_eq!(recorded + counts.lost, counts.seen);
    assert!(recorded > 0 && programs.malformed() == 0);
}

/// BPF_PROG_TEST_RUN by descriptor, so that two threads can run one program.
fn test_run(program: &OwnedFd, frame: &[u8], times: u32) {
    let mut options = libbpf_sys::bpf_test_run_opts {
        sz: size_of::<libbpf_sys::bpf_test_run_opts>() as libbpf_sys::size_t,
        data_in: frame.as_ptr().cast(),
        data_size_in: frame.len() as u32,
        repeat: times as i32,
        ..libbpf_sys::bpf_test_run_opts::default()
    };
    // SAFETY: the descriptor is open, the structure says its size, and the frame that it points to
    // lives through the call.
    let result =
        unsafe { libbpf_sys::bpf_prog_test_run_opts(program.as_raw_fd(), &raw mut options) };
    assert_eq!(result, 0);
}

#[test]
fn short_message_is_no_reason_to_read_beyond_the_packet() {
    need!(kernel_programs());
    for (_, mut programs) in variants() {
        for length in 0..8 {
            let recipe = Recipe { message: sync()[..length].to_vec(), ..Recipe::sync_on_udp4() };
            let frame = recipe.frame();
            for hook in Hook::ALL {
                let record = record(&mut programs, hook, &frame, None);
                check(&record, &programs, hook, &recipe, frame.len());
            }
        }
    }
}
