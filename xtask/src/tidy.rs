//! Tests of the project's documents and of the form of its sources: commands that the documents
//! mention exist, links lead somewhere, each source file says at its top what is in it.

mod rooms;

use std::{
    ffi::OsStr,
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result};
use clap::Parser;

use crate::{Cli, process::workspace};

/// Documents that are for people and are committed.
fn documents() -> Result<Vec<PathBuf>> {
    let mut found = vec![workspace().join("README.md")];
    walk(&workspace().join("docs"), OsStr::new("md"), &mut found)?;
    Ok(found)
}

/// All files below a directory with a certain extension, without what cargo builds.
pub(super) fn walk(directory: &Path, extension: &OsStr, found: &mut Vec<PathBuf>) -> Result<()> {
    for entry in
        fs::read_dir(directory).with_context(|| format!("cannot read {}", directory.display()))?
    {
        let path = entry?.path();
        if path.is_dir() {
            let name = path.file_name().unwrap_or_default();
            if !["target", "corpus", ".git"].iter().any(|skipped| name == *skipped) {
                walk(&path, extension, found)?;
            }
        } else if path.extension() == Some(extension) {
            found.push(path);
        }
    }
    Ok(())
}

/// The `cargo xtask` commands in a document's code, inline and in blocks.
fn commands(document: &str) -> Vec<Vec<String>> {
    let mut found = Vec::new();
    let mut in_block = false;
    for line in document.lines() {
        if line.trim_start().starts_with("```") {
            in_block = !in_block;
        } else if in_block {
            found.extend(command(line));
        } else {
            found.extend(line.split('`').skip(1).step_by(2).filter_map(command));
        }
    }
    found
}

/// Words of one command, up to a comment.
fn command(code: &str) -> Option<Vec<String>> {
    let code = code.split(" #").next().unwrap_or_default().trim();
    let rest = code.trim_start_matches("$ ").strip_prefix("cargo xtask")?;
    let rest = rest.split(['|', ';', '&']).next().unwrap_or_default();
    if rest.contains('<') {
        // `cargo xtask <command>`: a form, not a command.
        return None;
    }
    let words = rest.split_whitespace().map(str::to_owned);
    Some(std::iter::once("cargo xtask".to_owned()).chain(words).collect())
}

#[test]
fn commands_in_the_documents_exist() -> Result<()> {
    for path in documents()? {
        for words in commands(&fs::read_to_string(&path)?) {
            if words.len() == 1 {
                continue;
            }
            if let Err(error) = Cli::try_parse_from(&words) {
                let help = error.kind() == clap::error::ErrorKind::DisplayHelp;
                assert!(help, "{}: {}\n{error}", path.display(), words.join(" "));
            }
        }
    }
    Ok(())
}

#[test]
fn the_readme_begins_with_the_two_commands_and_continuous_integration_runs_the_second() -> Result<()>
{
    let readme = fs::read_to_string(workspace().join("README.md"))?;
    let first: Vec<String> =
        commands(&readme).into_iter().take(2).map(|words| words.join(" ")).collect();
    assert_eq!(first, ["cargo xtask demo", "cargo xtask test"]);
    let ci = fs::read_to_string(workspace().join(".ci/run"))?;
    assert!(ci.lines().any(|line| line.ends_with(&first[1])), "{ci}");
    Ok(())
}

#[test]
fn links_between_documents_lead_to_files() -> Result<()> {
    for path in documents()? {
        let text = fs::read_to_string(&path)?;
        for rest in text.split("](").skip(1) {
            let Some((link, _)) = rest.split_once(')') else { continue };
            let file = link.split('#').next().unwrap_or_default();
            if file.is_empty() || file.contains("://") {
                continue;
            }
            let target = path.parent().unwrap_or(Path::new(".")).join(file);
            assert!(target.exists(), "{} links to {link}", path.display());
        }
    }
    Ok(())
}

#[test]
fn each_source_file_says_at_its_top_what_is_in_it() -> Result<()> {
    let mut sources = Vec::new();
    walk(&workspace(), OsStr::new("rs"), &mut sources)?;
    assert!(sources.len() > 10, "only {} source files found", sources.len());
    for path in sources {
        let text = fs::read_to_string(&path)?;
        assert!(text.starts_with("//! "), "{} does not", path.display());
    }
    Ok(())
}

#[test]
fn the_licence_files_are_there() {
    for licence in ["LICENSE-MIT", "LICENSE-APACHE"] {
        assert!(workspace().join(licence).exists(), "{licence} is missing");
    }
}

#[test]
fn commands_are_found_in_blocks_and_inline() {
    let document =
        "Run `cargo xtask demo --json`:\n```sh\ncargo xtask test unit   # quick\nls\n```\n";
    assert_eq!(
        commands(document),
        [vec!["cargo xtask", "demo", "--json"], vec!["cargo xtask", "test", "unit"]]
    );
}
