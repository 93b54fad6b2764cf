//! Which test programs there are, and which group they belong to:
//! those called `interop*` to the interoperability tests, the others of `bpf-tests` to the kernel
//! tests, the rest to the unit tests.

use anyhow::{Context, Result};
use serde::Deserialize;

use crate::process::cargo;

/// Test programs of the kernel group that mostly wait: each of their tests says itself whether it wants the
/// machine for itself.
const WAITING: [&str; 5] = ["chain", "compare", "doctor", "hints", "recording"];

/// Names of the test programs by group.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct TestTargets {
    pub(super) unit: Vec<String>,
    pub(super) kernel: Vec<String>,
    pub(super) waiting: Vec<String>,
    pub(super) interop: Vec<String>,
}

#[derive(Deserialize)]
struct Metadata {
    packages: Vec<Package>,
}

#[derive(Deserialize)]
struct Package {
    name: String,
    targets: Vec<Target>,
}

#[derive(Deserialize)]
struct Target {
    name: String,
    kind: Vec<String>,
}

impl TestTargets {
    pub(super) fn read() -> Result<Self> {
        let metadata = cargo(["metadata", "--no-deps", "--format-version", "1", "--quiet"])
            .output()
            .context("cargo metadata failed")?;
        Self::parse(&metadata)
    }

    fn parse(metadata: &str) -> Result<Self> {
        let metadata: Metadata =
            serde_json::from_str(metadata).context("cannot understand cargo metadata")?;
        let mut this = Self::default();
        for package in metadata.packages {
            for target in package.targets {
                if !target.kind.iter().any(|kind| kind == "test") {
                    continue;
                }
                let group = if target.name.starts_with("interop") {
                    &mut this.interop
                } else if package.name == "bpf-tests" && WAITING.contains(&&*target.name) {
                    &mut this.waiting
                } else if package.name == "bpf-tests" {
                    &mut this.kernel
                } else {
                    &mut this.unit
                };
                group.push(target.name);
            }
        }
        Ok(this)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn test_programs_are_grouped_by_package_and_name() -> Result<()> {
        let metadata = r#"{"packages": [
            {"name": "ptp-agent", "targets": [
                {"name": "ptp-agent", "kind": ["bin"]}, {"name": "command_line", "kind": ["test"]}]},
            {"name": "bpf-tests", "targets": [
                {"name": "programs", "kind": ["test"]}, {"name": "doctor", "kind": ["test"]},
                {"name": "interop_ptp4l", "kind": ["test"]}]}
        ]}"#;
        let targets = TestTargets::parse(metadata)?;
        assert_eq!(targets.unit, ["command_line"]);
        assert_eq!(targets.kernel, ["programs"]);
        assert_eq!(targets.waiting, ["doctor"]);
        assert_eq!(targets.interop, ["interop_ptp4l"]);
        Ok(())
    }
}
