//! Tests of how the sources are divided: no file is long, and no folder of a crate leans on one that leans on it.

use std::{
    collections::{BTreeMap, BTreeSet},
    ffi::OsStr,
    fs,
    path::{Path, PathBuf},
};

use anyhow::Result;

use super::walk;
use crate::process::workspace;

/// Lines of a file, at the most.
const LINES: usize = 600;
/// Crates that have folders.
const CRATES: [&str; 3] = ["ptp-common", "ptp-engine", "ptp-agent"];

/// The sources of a directory.
fn sources(directory: &Path) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    walk(directory, OsStr::new("rs"), &mut found)?;
    Ok(found)
}

/// Which top-level module of a crate a file is in; `None` for the crate itself, and for tests, which may use anything.
fn module_of(source: &Path) -> Option<String> {
    let of_tests = ["tests", "testing", "attacks"];
    let mut parts = source
        .iter()
        .map(|part| Path::new(part).file_stem().unwrap_or_default().to_string_lossy().into_owned());
    let module = parts.next().filter(|it| !["lib", "main", "prelude"].contains(&it.as_str()))?;
    let is_test = |part: &String| of_tests.contains(&part.as_str());
    (!is_test(&module) && !parts.any(|part| is_test(&part))).then_some(module)
}

/// The first names behind `crate::`, also those of a group.
fn names(text: &str) -> Vec<String> {
    let mut found = Vec::new();
    for (at, root) in text.match_indices("crate::") {
        let rest = &text[at + root.len()..];
        let Some(group) = rest.strip_prefix('{') else {
            found.push(rest.to_owned());
            continue;
        };
        let (mut depth, mut from) = (0, 0);
        for (at, character) in group.char_indices() {
            match character {
                '{' => depth += 1,
                '}' if depth == 0 => {
                    found.push(group[from..at].to_owned());
                    break;
                }
                '}' => depth -= 1,
                ',' if depth == 0 => {
                    found.push(group[from..at].to_owned());
                    from = at + 1;
                }
                _ => {}
            }
        }
    }
    let is_part = |character: char| character.is_alphanumeric() || character == '_';
    let first = |name: String| name.trim().chars().take_while(|it| is_part(*it)).collect();
    found.into_iter().map(first).filter(|name: &String| !name.is_empty()).collect()
}

/// Whom each module uses, by the name of a module or of what the crate takes from one to its top.
fn uses(root: &Path) -> Result<BTreeMap<String, BTreeSet<String>>> {
    let top = fs::read_to_string(root.join("lib.rs"))?;
    let mut homes = BTreeMap::new();
    for line in top.split("\npub use ").skip(1).filter_map(|rest| rest.split_once(';')) {
        if let Some((module, names)) = line.0.split_once("::") {
            let names = names.split(|it: char| !it.is_alphanumeric() && it != '_');
            homes.extend(names.map(|name| (name.to_owned(), module.to_owned())));
        }
    }
    let mut used: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for path in sources(root)? {
        let Some(module) = module_of(path.strip_prefix(root)?) else { continue };
        let text = fs::read_to_string(&path)?;
        let code = text.split("\n#[cfg(test)]\nmod tests {").next().unwrap_or_default();
        let lines = code.lines().filter(|line| !line.trim_start().starts_with("//"));
        let code = lines.collect::<Vec<_>>().join("\n");
        let names = names(&code).into_iter();
        let names = names.map(|name| homes.get(&name).cloned().unwrap_or(name));
        let others: Vec<_> = names.filter(|name| *name != module).collect();
        used.entry(module).or_default().extend(others);
    }
    Ok(used)
}

/// Modules that lean on each other, and who leans on those; empty where none do.
fn circle(mut used: BTreeMap<String, BTreeSet<String>>) -> Vec<String> {
    // Whoever leans on nobody is in no circle, and nobody is for leaning on them.
    loop {
        let left: BTreeSet<String> = used.keys().cloned().collect();
        let leans = |others: &BTreeSet<String>| others.iter().any(|it| left.contains(it));
        let before = used.len();
        used.retain(|_, others| leans(others));
        if used.len() == before {
            return used.into_keys().collect();
        }
    }
}

#[test]
fn no_file_is_long() -> Result<()> {
    for path in sources(&workspace())? {
        let lines = fs::read_to_string(&path)?.lines().count();
        assert!(lines <= LINES, "{} has {lines} lines", path.display());
    }
    Ok(())
}

#[test]
fn no_folder_leans_on_one_that_leans_on_it() -> Result<()> {
    for name in CRATES {
        let used = uses(&workspace().join(name).join("src"))?;
        assert!(used.len() > 5, "{name}: {used:?}");
        assert_eq!(circle(used.clone()), Vec::<String>::new(), "{name}, of {used:#?}");
    }
    Ok(())
}

#[test]
fn what_is_used_is_found_in_groups_and_paths() {
    let text = "use crate::{\n    a::{b, c},\n    d,\n};\nfn f() { crate::e::g() }\n";
    assert_eq!(names(text), ["a", "d", "e"]);
    let of = |others: &[&str]| others.iter().map(|it| (*it).to_owned()).collect();
    let mut used = BTreeMap::from([("a".to_owned(), of(&["b"])), ("b".to_owned(), of(&["c"]))]);
    assert!(circle(used.clone()).is_empty());
    used.insert("c".to_owned(), of(&["a", "d"]));
    assert_eq!(circle(used), ["a", "b", "c"]);
}
