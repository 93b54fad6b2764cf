//! The table of kernels in `docs/kernels.md`: made of the facts that guests told, written there on
//! request, otherwise compared.

use std::{collections::BTreeMap, fmt::Write as _, fs};

use anyhow::{Context, Result, bail};
use serde::Deserialize;

use super::kernel::Series;
use crate::process::workspace;

const DOCUMENT: &str = "docs/kernels.md";
const BEGIN: &str = "<!-- written by `cargo xtask test kernels --update` -->\n";
const END: &str = "<!-- end -->\n";

/// What a kernel said about a property.
pub(super) type Facts = BTreeMap<(&'static str, String), String>;

/// Names of facts, and what to call them in the table.
const ROWS: [(&str, &str); 15] = [
    ("release", RELEASE),
    ("btf", "BTF"),
    ("bpf_ktime_get_tai_ns", "`bpf_ktime_get_tai_ns`"),
    ("bpf_xdp_load_bytes", "`bpf_xdp_load_bytes`"),
    ("__sk_buff->hwtstamp", "`__sk_buff->hwtstamp`"),
    ("clsact", "TC by clsact"),
    ("tcx", "TC by TCX links"),
    ("xdp_native", "XDP in the driver (veth)"),
    ("xdp_generic", "XDP in the stack"),
    ("rx_points", "receive stamps"),
    ("tx_points", "transmit stamps"),
    ("follows_udp4", "follows `ptp4l`, UDP/IPv4"),
    ("follows_udp6", "follows `ptp4l`, UDP/IPv6"),
    ("follows_l2", "follows `ptp4l`, Ethernet"),
    ("steers", "steers the system clock"),
];

/// Debian changes it every few weeks, so it is for information only.
const RELEASE: &str = "release that was tested";

#[derive(Deserialize)]
struct Fact {
    event: String,
    name: String,
    value: String,
}

/// The fact that a line tells.
pub(super) fn fact(line: &str) -> Option<(String, String)> {
    let fact: Fact = serde_json::from_str(line).ok()?;
    (fact.event == "fact").then_some((fact.name, fact.value))
}

/// Compares the document with facts, or writes them there.
pub(super) fn check(facts: &Facts, update: bool) -> Result<()> {
    let path = workspace().join(DOCUMENT);
    let document = fs::read_to_string(&path).with_context(|| format!("cannot read {DOCUMENT}"))?;
    let Some((before, rest)) = document.split_once(BEGIN) else {
        bail!("{DOCUMENT} has no place for the table: {BEGIN}");
    };
    let Some((committed, after)) = rest.split_once(END) else {
        bail!("{DOCUMENT} has no end of the table: {END}");
    };
    let mut all = parse(committed);
    if update {
        all.extend(facts.iter().map(|(key, value)| (key.clone(), value.clone())));
        let document = format!("{before}{BEGIN}{}{END}{after}", table(&all));
        return fs::write(&path, document).with_context(|| format!("cannot write {DOCUMENT}"));
    }
    let problems = differences(&all, facts);
    if !problems.is_empty() {
        bail!(
            "{DOCUMENT} says otherwise (`cargo xtask test kernels --update` writes it):\n{}",
            problems.join("\n")
        );
    }
    Ok(())
}

fn differences(committed: &Facts, facts: &Facts) -> Vec<String> {
    let mut problems = Vec::new();
    for ((kernel, name), value) in facts {
        if name == "release" || !ROWS.iter().any(|(row, _)| row == name) {
            continue;
        }
        let said = committed.get(&(*kernel, name.clone())).map_or("nothing", String::as_str);
        if said != value {
            problems.push(format!("  {kernel}, {name}: {value}, the document says {said}"));
        }
    }
    problems
}

fn table(facts: &Facts) -> String {
    let mut text = String::from("| |");
    for series in Series::ALL {
        let _ = write!(text, " {} |", series.name());
    }
    text.push_str("\n|---|");
    text.push_str(&"---|".repeat(Series::ALL.len()));
    text.push('\n');
    for (name, label) in ROWS {
        let value = |series: Series| facts.get(&(series.name(), name.to_owned()));
        if Series::ALL.into_iter().all(|series| value(series).is_none()) {
            continue;
        }
        let _ = write!(text, "| {label} |");
        for series in Series::ALL {
            let _ = write!(text, " {} |", value(series).map_or("?", String::as_str));
        }
        text.push('\n');
    }
    text
}

/// The facts in a table.
fn parse(table: &str) -> Facts {
    let mut facts = Facts::new();
    for line in table.lines() {
        let mut cells = line.trim().trim_matches('|').split('|').map(str::trim);
        let Some(label) = cells.next() else { continue };
        let Some((name, _)) = ROWS.iter().find(|(_, row)| *row == label) else { continue };
        for (series, value) in Series::ALL.into_iter().zip(cells) {
            if value != "?" {
                facts.insert((series.name(), (*name).to_owned()), value.to_owned());
            }
        }
    }
    facts
}

#[cfg(test)]
mod tests {
    use super::*;

    fn facts(entries: &[(&'static str, &str, &str)]) -> Facts {
        let entries = entries.iter();
        entries
            .map(|(kernel, name, it)| ((*kernel, (*name).to_owned()), (*it).to_owned()))
            .collect()
    }

    #[test]
    fn table_is_read_as_it_is_written() {
        let facts =
            facts(&[("5.10", "tcx", "no"), ("newest", "tcx", "yes"), ("6.1", "btf", "yes")]);
        assert_eq!(parse(&table(&facts)), facts);
    }

    #[test]
    fn only_what_a_guest_said_is_compared() {
        let committed = facts(&[("5.10", "tcx", "no"), ("6.1", "release", "6.1.1")]);
        let said =
            facts(&[("6.1", "release", "6.1.2"), ("5.10", "tcx", "no"), ("6.1", "xyz", "1")]);
        assert_eq!(differences(&committed, &said), Vec::<String>::new());
        let said = facts(&[("5.10", "tcx", "yes"), ("6.1", "btf", "yes")]);
        assert_eq!(differences(&committed, &said).len(), 2);
    }

    #[test]
    fn facts_are_told_from_other_lines() {
        let line = r#"{"event":"fact","name":"tcx","value":"no"}"#;
        assert_eq!(fact(line), Some(("tcx".to_owned(), "no".to_owned())));
        assert_eq!(fact(r#"{"event":"sample","name":"tcx","value":"no"}"#), None);
        assert_eq!(fact("test a ... ok"), None);
    }
}
