//! Writes the shapes of one target, named as the argument, as files below `PTP_FUZZ_SEEDS`.

use std::{env, fs, path::PathBuf};

use ptp_fuzz_targets::TARGETS;

fn main() -> std::io::Result<()> {
    let wanted = env::args().nth(1).unwrap_or_default();
    let directory = PathBuf::from(env::var_os("PTP_FUZZ_SEEDS").unwrap_or_default());
    fs::create_dir_all(&directory)?;
    for (_, _, seeds) in TARGETS.iter().filter(|(name, ..)| *name == wanted) {
        for (number, seed) in seeds().iter().enumerate() {
            fs::write(directory.join(format!("{number:03}")), seed)?;
        }
    }
    Ok(())
}
