//! Tells the program when it was built, to the day: a reference that shows an earlier time has none.
//! `SOURCE_DATE_EPOCH` makes builds reproducible.

use std::{
    env,
    time::{SystemTime, UNIX_EPOCH},
};

/// A build is not made before the code was written: 2025-01-01, for builders without a clock.
const EARLIEST: u64 = 1_735_689_600;
const DAY: u64 = 86_400;

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-env-changed=SOURCE_DATE_EPOCH");
    let given = env::var("SOURCE_DATE_EPOCH").ok().and_then(|text| text.parse::<u64>().ok());
    let now = || SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |now| now.as_secs());
    let built = given.unwrap_or_else(now).max(EARLIEST);
    println!("cargo::rustc-env=PTP_AGENT_BUILT={}", built / DAY * DAY);
}
