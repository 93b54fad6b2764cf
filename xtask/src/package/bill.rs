//! What is linked into the agent: a list for people, and a bill of materials (SBOM) in CycloneDX's JSON for programs
//! that look for known faults in it. Both come of cargo's own tree of this build and of the lock file, so
//! they hold what was built.

use std::{collections::BTreeMap, fs};

use anyhow::{Context, Result};
use serde_json::{Value, json};

use crate::process::{cargo, workspace};

/// A crate that is linked in.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Linked {
    name: String,
    version: String,
    licence: String,
}

/// All of them in a program for a target, sorted, without those of the workspace.
pub(super) fn linked(target: &str) -> Result<Vec<Linked>> {
    let arguments =
        "tree --locked --package ptp-agent --edges normal --prefix none --no-dedupe --format";
    let tree = cargo(arguments.split(' ').chain(["{p}\t{l}", "--target", target])).output();
    Ok(parse(&tree.context("cargo tree failed")?))
}

fn parse(tree: &str) -> Vec<Linked> {
    let mut crates: Vec<Linked> = tree
        .lines()
        .filter_map(|line| {
            let (crate_, licence) = line.split_once('\t')?;
            let (name, rest) = crate_.split_once(" v")?;
            // Members of the workspace have a path behind their version; procedural macros a word.
            let mut rest = rest.split(' ');
            let version = rest.next()?.to_owned();
            let is_member = rest.any(|word| word.contains('/'));
            let (name, licence) = (name.to_owned(), licence.to_owned());
            (!is_member).then_some(Linked { name, version, licence })
        })
        .collect();
    crates.sort();
    crates.dedup();
    crates
}

/// The list for people.
pub(super) fn list(crates: &[Linked]) -> String {
    let lines: Vec<String> = crates
        .iter()
        .map(|Linked { name, version, licence }| format!("{name} v{version}: {licence}\n"))
        .collect();
    format!("Crates linked into ptp-agent, and their licences:\n\n{}", lines.concat())
}

/// The bill of materials: CycloneDX 1.5.
pub(super) fn bill(crates: &[Linked], version: &str) -> Result<String> {
    let lock = fs::read_to_string(workspace().join("Cargo.lock")).context("Cargo.lock")?;
    let bill = document(crates, version, &checksums(&lock)?);
    Ok(serde_json::to_string_pretty(&bill)? + "\n")
}

/// SHA-256 of each crate's package, by name and version.
fn checksums(lock: &str) -> Result<BTreeMap<(String, String), String>> {
    let lock: toml::Table = lock.parse().context("Cargo.lock is no TOML")?;
    let packages = lock.get("package").and_then(toml::Value::as_array).into_iter().flatten();
    let text = |package: &toml::Value, key: &str| Some(package.get(key)?.as_str()?.to_owned());
    let of = |package: &toml::Value| {
        Some(((text(package, "name")?, text(package, "version")?), text(package, "checksum")?))
    };
    Ok(packages.filter_map(of).collect())
}

fn document(
    crates: &[Linked],
    version: &str,
    checksums: &BTreeMap<(String, String), String>,
) -> Value {
    let components: Vec<Value> = crates
        .iter()
        .map(|Linked { name, version, licence }| {
            let url = format!("pkg:cargo/{name}@{version}");
            let mut component = json!({
                "type": "library",
                "bom-ref": url,
                "name": name,
                "version": version,
                "purl": url,
                // Older manifests have a slash for "or".
                "licenses": [{ "expression": licence.replace('/', " OR ") }],
            });
            if let Some(sum) = checksums.get(&(name.clone(), version.clone())) {
                component["hashes"] = json!([{ "alg": "SHA-256", "content": sum }]);
            }
            component
        })
        .collect();
    json!({
        "bomFormat": "CycloneDX",
        "specVersion": "1.5",
        "version": 1,
        "metadata": { "component": {
            "type": "application",
            "bom-ref": format!("pkg:cargo/ptp-agent@{version}"),
            "name": "ptp-agent",
            "version": version,
            "purl": format!("pkg:cargo/ptp-agent@{version}"),
            "licenses": [{ "expression": "MIT OR Apache-2.0" }],
        }},
        "components": components,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const TREE: &str = "ptp-agent v0.1.0 (/somewhere/ptp-agent)\tMIT OR Apache-2.0\n\
        serde v1.0.2\tMIT OR Apache-2.0\nanyhow v1.0.1\tMIT/Apache-2.0\n\
        serde_derive v1.0.2 (proc-macro)\tMIT\nserde v1.0.2\tMIT OR Apache-2.0\n";

    #[test]
    fn crates_are_listed_once_and_without_the_own_ones() {
        let names: Vec<_> = parse(TREE).into_iter().map(|linked| linked.name).collect();
        assert_eq!(names, ["anyhow", "serde", "serde_derive"]);
    }

    #[test]
    fn bill_names_package_licence_and_checksum() -> Result<()> {
        let lock = "[[package]]\nname = \"anyhow\"\nversion = \"1.0.1\"\nchecksum = \"00ff\"\n";
        let bill = document(&parse(TREE), "0.1.0", &checksums(lock)?);
        let first = &bill["components"][0];
        assert_eq!(first["purl"], "pkg:cargo/anyhow@1.0.1");
        assert_eq!(first["licenses"][0]["expression"], "MIT OR Apache-2.0");
        assert_eq!(first["hashes"][0]["content"], "00ff");
        assert_eq!(bill["components"].as_array().map(Vec::len), Some(3));
        Ok(())
    }
}
