//! docs/threat-model.md names for every threat the tests that show what happens; each of them is there.

use std::{collections::BTreeSet, fs, path::Path};

/// Names of functions below a directory, and of files and modules.
fn names(directory: &Path, into: &mut BTreeSet<String>) {
    for entry in fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_stem().unwrap().to_string_lossy().into_owned();
        if path.is_dir() {
            if name != "target" {
                into.insert(name);
                names(&path, into);
            }
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            into.insert(name);
            let text = fs::read_to_string(&path).unwrap();
            for line in text.lines() {
                let line = line.trim_start();
                let line = line.strip_prefix("pub(crate) ").unwrap_or(line);
                let name = line.strip_prefix("fn ").or_else(|| line.strip_prefix("mod "));
                if let Some(name) = name {
                    let end = |c: char| !c.is_ascii_alphanumeric() && c != '_';
                    into.insert(name.split(end).next().unwrap().to_owned());
                }
            }
        }
    }
}

#[test]
fn tests_that_the_threat_model_names_exist() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let mut known = BTreeSet::new();
    for crate_name in ["ptp-agent", "ptp-engine", "ptp-common", "bpf-tests", "fuzz"] {
        names(&root.join(crate_name), &mut known);
    }
    // The rows of `bench attacks`.
    let attacks = fs::read_to_string(root.join("bpf-tests/src/bin/attacks/main.rs")).unwrap();
    known.extend(attacks.split('"').skip(1).step_by(2).map(str::to_owned));
    let text = fs::read_to_string(root.join("docs/threat-model.md")).unwrap();
    let rows = text.lines().filter(|line| line.starts_with('|') && line.matches('|').count() == 5);
    let (mut rows_seen, mut missing) = (0, Vec::new());
    for row in rows.skip(2) {
        rows_seen += 1;
        let shown = row.trim_end_matches('|').rsplit('|').next().unwrap();
        let quoted: Vec<&str> = shown.split('`').skip(1).step_by(2).collect();
        assert!(!quoted.is_empty(), "nothing shows it: {row}");
        for name in quoted {
            // A command is checked where it is described.
            if name.starts_with("cargo ") {
                continue;
            }
            let is_known = |part: &str| known.contains(part);
            if !name.split("::").all(is_known) {
                missing.push(name.to_owned());
            }
        }
    }
    assert_eq!(missing, Vec::<String>::new(), "named, and not there");
    assert!(rows_seen >= 25, "{rows_seen}");
}
