//! Readings of a host's clock from what `ptp-agent run --json` has printed there: its lines with
//! `"event":"host"`, one a second.

use std::io::{self, BufRead, Read as _};

use serde::{Deserialize, Serialize};

use crate::{
    clocks::{Known, Reading},
    names::Names,
};

/// The longest line that is read, bytes; longer ones are no line of an agent.
const LONGEST_LINE: u64 = 1 << 20;

/// How far the host's clock (CLOCK_REALTIME) is from the grandmaster, as the agent prints it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HostLine {
    /// Name of the host.
    pub host: String,
    /// When, on CLOCK_MONOTONIC, ns.
    pub mono_ns: i64,
    /// What CLOCK_REALTIME showed then, ns.
    pub real_ns: i64,
    /// That minus the grandmaster's time as UTC, ns; `null` while it is not known.
    pub offset_ns: Option<i64>,
    /// The truth is no farther from that, ns.
    pub bound_ns: Option<i64>,
    /// `grandmasterIdentity`.
    pub grandmaster: Option<String>,
    /// PTP domain number.
    #[serde(default)]
    pub domain: u8,
}

/// What the lines of an agent may be.
#[derive(Deserialize)]
#[serde(tag = "event", rename_all = "snake_case")]
enum Line {
    Host(HostLine),
    #[serde(other)]
    Other,
}

/// What became of a file.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Outcome {
    /// Readings taken.
    pub readings: u64,
    /// Lines of an agent that say nothing of the host's clock, or do not know it.
    pub others: u64,
    /// Lines that are none of an agent.
    pub faults: u64,
}

/// Takes all readings of `reader`; `host` names the host instead of the lines themselves.
///
/// # Errors
/// What the system says.
pub fn read(
    mut reader: impl BufRead,
    host: Option<&str>,
    known: &mut Known,
    grandmasters: &mut Names,
) -> io::Result<Outcome> {
    let mut outcome = Outcome::default();
    let mut line = Vec::new();
    loop {
        line.clear();
        if (&mut reader).take(LONGEST_LINE).read_until(b'\n', &mut line)? == 0 {
            return Ok(outcome);
        }
        if line.trim_ascii().is_empty() {
            continue;
        }
        match serde_json::from_slice(&line) {
            Ok(Line::Host(line)) => match reading(&line, grandmasters) {
                Some(reading) => {
                    known.push(host.unwrap_or(&line.host), reading);
                    outcome.readings += 1;
                }
                None => outcome.others += 1,
            },
            Ok(Line::Other) => outcome.others += 1,
            Err(_) => outcome.faults += 1,
        }
    }
}

fn reading(line: &HostLine, grandmasters: &mut Names) -> Option<Reading> {
    let (offset_ns, bound_ns) = (line.offset_ns?, line.bound_ns.filter(|bound| *bound >= 0)?);
    let grandmaster = grandmasters.number(line.grandmaster.as_deref()?);
    Some(Reading { host_ns: line.real_ns, offset_ns, bound_ns, grandmaster })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn host_lines_are_taken_and_others_passed_over() {
        let text = br#"{"event":"sample","offset_ns":5,"grandmaster":"a"}
{"event":"host","host":"h1","mono_ns":1,"real_ns":1000,"offset_ns":7,"bound_ns":3,"grandmaster":"gm","domain":0}
{"event":"host","host":"h1","mono_ns":2,"real_ns":2000,"offset_ns":null,"bound_ns":null,"grandmaster":null}

{"event":"host","host":"h1","mono_ns":2,"real_ns":2000,"offset_ns":1,"bound_ns":-1,"grandmaster":"gm"}
no JSON
"#;
        let (mut known, mut names) = (Known::default(), Names::default());
        let outcome = read(text.as_slice(), None, &mut known, &mut names).unwrap();
        assert_eq!(outcome, Outcome { readings: 1, others: 3, faults: 1 });
        assert_eq!(known.hosts().collect::<Vec<_>>(), ["h1"]);
        read(text.as_slice(), Some("named"), &mut known, &mut names).unwrap();
        assert!(known.hosts().any(|host| host == "named"));
    }

    #[test]
    fn line_without_end_takes_no_memory_without_end() {
        let (mut known, mut names) = (Known::default(), Names::default());
        let endless = io::BufReader::new(io::repeat(b'x').take(3 * LONGEST_LINE));
        assert_eq!(read(endless, None, &mut known, &mut names).unwrap().faults, 3);
    }
}
