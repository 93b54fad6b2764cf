//! libFuzzer drives `ptp_fuzz_targets::ring_record`; what must hold is said there.
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| ptp_fuzz_targets::ring_record::run(input));
