//! libFuzzer drives `ptp_fuzz_targets::esmc`; what must hold is said there.
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| ptp_fuzz_targets::esmc::run(input));
