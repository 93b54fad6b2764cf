//! libFuzzer drives `ptp_fuzz_targets::monitoring`; what must hold is said there.
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| ptp_fuzz_targets::monitoring::run(input));
