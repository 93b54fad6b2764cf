//! `cargo xtask fuzz`: every fuzz target with libFuzzer for as long as is asked for, from the shapes that its
//! crate makes, and a table of what that reached: executions, coverage, crashes. In `cargo xtask test` the same
//! for seconds. Where there is no cargo-fuzz, the property tests of the same targets have to do
//! (`fuzz/targets`), which are part of the unit tests.

use std::{fs, process::ExitCode, time::Instant};

use anyhow::{Context, Result, bail};
use serde::Deserialize;

use crate::process::{cargo, find, workspace};

#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// Targets; all if none is named
    targets: Vec<String>,
    /// How long each target runs
    #[arg(long, value_name = "S", default_value_t = 60)]
    seconds: u32,
    /// As for a night: half an hour each
    #[arg(long, conflicts_with = "seconds")]
    long: bool,
}

const LONG: u32 = 30 * 60;

/// What a run of a target has reached.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Reached {
    /// Inputs tried.
    executions: u64,
    /// Edges of the program that were taken.
    edges: u64,
    /// Edges, counts and compared values that were seen.
    features: u64,
    /// Inputs that are worth keeping.
    corpus: u64,
}

impl Reached {
    /// Reads a line of libFuzzer.
    fn read(&mut self, line: &str) {
        if let Some(rest) = line.strip_prefix("stat::number_of_executed_units:") {
            self.executions = rest.trim().parse().unwrap_or(0);
        }
        let words: Vec<&str> = line.split_whitespace().collect();
        for pair in words.windows(2) {
            let number = || pair[1].split('/').next().and_then(|text| text.parse().ok());
            match pair[0] {
                "cov:" => self.edges = number().unwrap_or(self.edges),
                "ft:" => self.features = number().unwrap_or(self.features),
                "corp:" => self.corpus = number().unwrap_or(self.corpus),
                _ => {}
            }
        }
    }
}

/// Why no target can be run with libFuzzer here.
pub(crate) fn reason_to_skip() -> Option<String> {
    let needs = [("cargo-fuzz", "cargo-fuzz"), ("a C++ compiler", "c++")];
    let missing: Vec<&str> =
        needs.iter().filter(|(_, it)| find(it).is_none()).map(|(name, _)| *name).collect();
    let missing = missing.join(" and ");
    (!missing.is_empty()).then(|| format!("missing {missing} (cargo xtask setup --fuzz)"))
}

/// Runs all targets, or those named.
pub(crate) fn run(arguments: &Arguments) -> Result<ExitCode> {
    if let Some(reason) = reason_to_skip() {
        bail!("{reason}");
    }
    let seconds = if arguments.long { LONG } else { arguments.seconds };
    let wanted = |name: &String| arguments.targets.is_empty() || arguments.targets.contains(name);
    let mut rows = Vec::new();
    for fuzz_crate in crates() {
        for target in targets(fuzz_crate)?.into_iter().filter(wanted) {
            let begun = Instant::now();
            let (is_fine, reached) = one(fuzz_crate, &target, seconds)?;
            rows.push((target, is_fine, reached, begun.elapsed()));
        }
    }
    println!(
        "\n{:<16} {:>8} {:>12} {:>9} {:>7} {:>9} {:>7}  crashes",
        "target", "seconds", "executions", "per s", "edges", "features", "corpus"
    );
    for (target, is_fine, reached, took) in &rows {
        let per_second = reached.executions as f64 / f64::from(seconds.max(1));
        println!(
            "{target:<16} {:>8.0} {:>12} {per_second:>9.0} {:>7} {:>9} {:>7}  {}",
            took.as_secs_f64(),
            reached.executions,
            reached.edges,
            reached.features,
            reached.corpus,
            if *is_fine { "0" } else { "CRASHED" },
        );
    }
    let all_fine = rows.iter().all(|(_, is_fine, ..)| *is_fine);
    Ok(if all_fine { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Runs one target; returns whether nothing crashed, and what it reached.
pub(crate) fn one(fuzz_crate: &str, target: &str, seconds: u32) -> Result<(bool, Reached)> {
    println!("-- {target}");
    let seeds = seeds(target)?;
    let corpus = workspace().join(fuzz_crate).join("corpus").join(target);
    fs::create_dir_all(&corpus).with_context(|| format!("cannot make {}", corpus.display()))?;
    let limit = format!("-max_total_time={seconds}");
    // Without a sanitizer stable Rust will do, and there is no unsafe code for it to look at.
    let (corpus, seeds) = (corpus.display().to_string(), seeds.display().to_string());
    let arguments =
        ["fuzz", "run", "-s", "none", "--fuzz-dir", fuzz_crate, target, &corpus, &seeds, "--"];
    let options = [limit.as_str(), "-print_final_stats=1", "-verbosity=1", "-max_len=4096"];
    let mut reached = Reached::default();
    let status = cargo(arguments.into_iter().chain(options)).stream(|line| reached.read(line))?;
    Ok((status.success(), reached))
}

/// Writes the shapes of a target as files, which is how libFuzzer takes them.
fn seeds(target: &str) -> Result<std::path::PathBuf> {
    let directory = crate::process::target_directory().join("fuzz-seeds").join(target);
    let made =
        cargo(["run", "--quiet", "-p", "ptp-fuzz-targets", "--example", "seeds", "--", target])
            .env("PTP_FUZZ_SEEDS", &directory);
    made.quietly(&format!("seeds of {target}"))?;
    Ok(directory)
}

/// The crates of fuzz targets that there are, below the workspace.
pub(crate) fn crates() -> Vec<&'static str> {
    let crates = ["fuzz", "fuzz/agent"].into_iter();
    crates.filter(|path| workspace().join(path).join("Cargo.toml").exists()).collect()
}

/// Whether a crate of fuzz targets builds the whole agent for them.
pub(crate) fn brings_the_agent(fuzz_crate: &str) -> bool {
    fuzz_crate == "fuzz/agent"
}

/// Names of the fuzz targets in one of these crates.
pub(crate) fn targets(fuzz_crate: &str) -> Result<Vec<String>> {
    #[derive(Deserialize)]
    struct Manifest {
        bin: Vec<Name>,
    }
    #[derive(Deserialize)]
    struct Name {
        name: String,
    }
    let path = workspace().join(fuzz_crate).join("Cargo.toml");
    let text =
        fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
    let manifest: Manifest =
        toml::from_str(&text).with_context(|| format!("cannot understand {}", path.display()))?;
    Ok(manifest.bin.into_iter().map(|bin| bin.name).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_of_libfuzzer_are_read() {
        let mut reached = Reached::default();
        for line in [
            "#8192\tpulse  cov: 211 ft: 402 corp: 12/480b lim: 80 exec/s: 4096 rss: 40Mb",
            "#9000\tDONE   cov: 215 ft: 410 corp: 13/500b lim: 80 exec/s: 4500 rss: 40Mb",
            "stat::number_of_executed_units: 9000",
        ] {
            reached.read(line);
        }
        let expected = Reached { executions: 9000, edges: 215, features: 410, corpus: 13 };
        assert_eq!(reached, expected);
    }

    #[test]
    fn every_target_has_shapes_and_a_property_test() {
        let table = fs::read_to_string(workspace().join("fuzz/targets/src/lib.rs")).unwrap();
        let readme = fs::read_to_string(workspace().join("fuzz/README.md")).unwrap();
        for fuzz_crate in crates() {
            for target in targets(fuzz_crate).unwrap() {
                assert!(table.contains(&format!("(\"{target}\", {target}::run")), "{target}");
                assert!(readme.contains(&format!("| `{target}`")), "{target}");
            }
        }
    }
}
