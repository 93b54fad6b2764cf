#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| ptp_fuzz_targets::spans::run(input));
