//! The tables of kernels in `docs/kernels.md` and of machines in `docs/architectures.md`: made of the facts that guests
//! told, written there on request, otherwise compared.

use std::{collections::BTreeMap, fmt::Write as _, fs};

use anyhow::{Context, Result, bail};
use serde::Deserialize;

use super::kernel::Series;
use crate::{machine::Machine, process::workspace};

const BEGIN: &str = "<!-- written by `cargo xtask test kernels --update` -->\n";
const END: &str = "<!-- end -->\n";

/// What a guest said about a property, by the name of its column.
pub(super) type Facts = BTreeMap<(&'static str, String), String>;

/// A table in a document.
pub(super) struct Table {
    document: &'static str,
    columns: Vec<&'static str>,
    /// Names of facts, and what to call them.
    rows: &'static [(&'static str, &'static str)],
    /// Rows that tell and claim nothing.
    information: &'static [&'static str],
}

impl Table {
    /// Of kernels.
    pub(super) fn of_kernels() -> Self {
        Self {
            document: "docs/kernels.md",
            columns: Series::ALL.map(Series::name).to_vec(),
            rows: &KERNELS,
            information: &["release"],
        }
    }

    /// Of machines.
    pub(super) fn of_machines() -> Self {
        Self {
            document: "docs/architectures.md",
            columns: Machine::ALL.map(Machine::name).to_vec(),
            rows: &MACHINES,
            information: &[
                "release",
                "cost_tc_ingress_ptp",
                "cost_tc_egress_ptp",
                "cost_xdp_ptp",
                "cost_tc_ingress_other",
                "cost_clock",
                "tests",
                "binary",
                "packages",
            ],
        }
    }
}

const MACHINES: [(&str, &str); 32] = [
    ("release", RELEASE),
    ("byte_order", "byte order, and objects of the kernel programs"),
    ("btf", "BTF"),
    ("jit", "programs are compiled for the processor"),
    ("bpf_ktime_get_tai_ns", "`bpf_ktime_get_tai_ns`"),
    ("bpf_xdp_load_bytes", "`bpf_xdp_load_bytes`"),
    ("__sk_buff->hwtstamp", "`__sk_buff->hwtstamp`"),
    ("clsact", "TC by clsact"),
    ("tcx", "TC by TCX links"),
    ("xdp_native", "XDP in the driver (veth)"),
    ("xdp_generic", "XDP in the stack"),
    ("rx_points", "receive stamps"),
    ("tx_points", "transmit stamps"),
    ("log", "the programs' log (`-vvv`)"),
    ("answers", "answers in the kernel, Delay_Req"),
    ("transparent", "transparent clock"),
    ("follows_udp4", "follows `ptp4l`, UDP/IPv4"),
    ("follows_udp6", "follows `ptp4l`, UDP/IPv6"),
    ("follows_l2", "follows `ptp4l`, Ethernet"),
    ("steers", "steers the system clock"),
    ("system_calls", "system calls given up (seccomp)"),
    ("clocksource", "the kernel's counter, as `doctor` has it"),
    ("resolution", "its resolution"),
    ("replay", "recordings replay to the numbers of x86-64"),
    ("cost_clock", "instructions of a clock call"),
    ("cost_tc_ingress_ptp", "instructions per PTP packet, TC ingress"),
    ("cost_tc_egress_ptp", "the same, TC egress"),
    ("cost_xdp_ptp", "the same, XDP"),
    ("cost_tc_ingress_other", "per other packet, TC ingress"),
    ("tests", "tests of the guest that passed"),
    ("binary", "the program, linked statically"),
    ("packages", "packages (.deb, .rpm)"),
];

const KERNELS: [(&str, &str); 15] = [
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
pub(super) fn check(table: &Table, facts: &Facts, update: bool) -> Result<()> {
    let document = table.document;
    let path = workspace().join(document);
    let text = fs::read_to_string(&path).with_context(|| format!("cannot read {document}"))?;
    let Some((before, rest)) = text.split_once(BEGIN) else {
        bail!("{document} has no place for the table: {BEGIN}");
    };
    let Some((committed, after)) = rest.split_once(END) else {
        bail!("{document} has no end of the table: {END}");
    };
    let mut all = table.parse(committed);
    if update {
        all.extend(facts.iter().map(|(key, value)| (key.clone(), value.clone())));
        let text = format!("{before}{BEGIN}{}{END}{after}", table.text(&all));
        return fs::write(&path, text).with_context(|| format!("cannot write {document}"));
    }
    let problems = table.differences(&all, facts);
    if !problems.is_empty() {
        bail!(
            "{document} says otherwise (`cargo xtask test kernels --update` writes it):\n{}",
            problems.join("\n")
        );
    }
    Ok(())
}

impl Table {
    fn differences(&self, committed: &Facts, facts: &Facts) -> Vec<String> {
        let mut problems = Vec::new();
        for ((column, name), value) in facts {
            if self.information.contains(&name.as_str())
                || !self.rows.iter().any(|(row, _)| row == name)
            {
                continue;
            }
            let said = committed.get(&(*column, name.clone())).map_or("nothing", String::as_str);
            if said != value {
                problems.push(format!("  {column}, {name}: {value}, the document says {said}"));
            }
        }
        problems
    }

    fn text(&self, facts: &Facts) -> String {
        let mut text = String::from("| |");
        for column in &self.columns {
            let _ = write!(text, " {column} |");
        }
        text.push_str("\n|---|");
        text.push_str(&"---|".repeat(self.columns.len()));
        text.push('\n');
        for (name, label) in self.rows {
            let value = |column: &'static str| facts.get(&(column, (*name).to_owned()));
            if self.columns.iter().all(|column| value(column).is_none()) {
                continue;
            }
            let _ = write!(text, "| {label} |");
            for column in &self.columns {
                let _ = write!(text, " {} |", value(column).map_or("?", String::as_str));
            }
            text.push('\n');
        }
        text
    }

    /// The facts in a table.
    fn parse(&self, text: &str) -> Facts {
        let mut facts = Facts::new();
        for line in text.lines() {
            let mut cells = line.trim().trim_matches('|').split('|').map(str::trim);
            let Some(label) = cells.next() else { continue };
            let Some((name, _)) = self.rows.iter().find(|(_, row)| *row == label) else { continue };
            for (column, value) in self.columns.iter().zip(cells) {
                if value != "?" {
                    facts.insert((*column, (*name).to_owned()), value.to_owned());
                }
            }
        }
        facts
    }
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
        let table = Table::of_kernels();
        assert_eq!(table.parse(&table.text(&facts)), facts);
    }

    #[test]
    fn only_what_a_guest_said_is_compared() {
        let committed = facts(&[("5.10", "tcx", "no"), ("6.1", "release", "6.1.1")]);
        let said =
            facts(&[("6.1", "release", "6.1.2"), ("5.10", "tcx", "no"), ("6.1", "xyz", "1")]);
        let table = Table::of_kernels();
        assert_eq!(table.differences(&committed, &said), Vec::<String>::new());
        let said = facts(&[("5.10", "tcx", "yes"), ("6.1", "btf", "yes")]);
        assert_eq!(table.differences(&committed, &said).len(), 2);
    }

    #[test]
    fn facts_are_told_from_other_lines() {
        let line = r#"{"event":"fact","name":"tcx","value":"no"}"#;
        assert_eq!(fact(line), Some(("tcx".to_owned(), "no".to_owned())));
        assert_eq!(fact(r#"{"event":"sample","name":"tcx","value":"no"}"#), None);
        assert_eq!(fact("test a ... ok"), None);
    }
}
