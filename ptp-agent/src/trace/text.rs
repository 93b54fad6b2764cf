//! What `trace` says to people.

use std::io::{self, Write};

use ptp_trace::{
    judge::{Judged, Pair, Verdict},
    names::Names,
    span::Lack,
};

use super::results::{LISTED, Results};

/// Rows of the table of hosts.
const ROWS: usize = 20;

/// A time as people read it, UTC, to the microsecond.
pub(super) fn utc(unix_ns: i64) -> String {
    const DAY_S: i64 = 86_400;
    let seconds = unix_ns.div_euclid(1_000_000_000);
    let micros = unix_ns.rem_euclid(1_000_000_000) / 1_000;
    let (days, of_day) = (seconds.div_euclid(DAY_S), seconds.rem_euclid(DAY_S));
    // Days since 1 March of year 0 in eras of 400 years, so that leap days come last.
    let days = days + 719_468;
    let (era, of_era) = (days.div_euclid(146_097), days.rem_euclid(146_097));
    let year = (of_era - of_era / 1_460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year + year / 4 - year / 100);
    let month = (5 * of_year + 2) / 153;
    let day = of_year - (153 * month + 2) / 5 + 1;
    let month = if month < 10 { month + 3 } else { month - 9 };
    let year = year + era * 400 + i64::from(month <= 2);
    let (hour, minute, second) = (of_day / 3_600, of_day / 60 % 60, of_day % 60);
    format!("{year:04}-{month:02}-{day:02} {hour:02}:{minute:02}:{second:02}.{micros:06}")
}

/// A span of time as people read it.
pub(super) fn span(nanos: i64) -> String {
    let size = nanos.unsigned_abs();
    let (unit, name) = match size {
        0..1_000 => return format!("{nanos} ns"),
        1_000..1_000_000 => (1e3, "µs"),
        1_000_000..1_000_000_000 => (1e6, "ms"),
        _ => (1e9, "s"),
    };
    let value = nanos as f64 / unit;
    if value.abs() < 100.0 { format!("{value:.2} {name}") } else { format!("{value:.0} {name}") }
}

/// A pair in one line.
pub(super) fn pair(judged: &Judged, pair: &Pair, names: &Names) -> String {
    let (a, b) = (&judged.spans[pair.first], &judged.spans[pair.second]);
    let verdict = match pair.verdict {
        Verdict::Impossible { by_ns } => format!("impossible by {} and more", span(by_ns)),
        verdict => verdict.name().replace('_', " "),
    };
    format!(
        "{} {}: {} {} -> {} {}: {verdict}",
        utc(a.raw_start_ns),
        judged.id,
        names.name(a.host),
        names.name(a.name),
        names.name(b.host),
        names.name(b.name),
    )
}

fn share(part: u64, whole: u64) -> String {
    if whole == 0 { String::new() } else { format!("{:6.2} %", 100.0 * part as f64 / whole as f64) }
}

/// Why an order cannot be told, in words.
fn why(lack: Option<Lack>) -> &'static str {
    lack.map_or("the bounds overlap", Lack::text)
}

/// Everything.
///
/// # Errors
/// What the writer says.
pub(super) fn write(results: &Results, out: &mut impl Write) -> io::Result<()> {
    let Results { totals, counts, .. } = results;
    for file in &results.files {
        if let Some(error) = &file.error {
            writeln!(out, "{}: {error}", file.name)?;
        }
        if file.outcome.faults > 0 {
            let faults = file.outcome.faults;
            writeln!(out, "{}: {faults} parts could not be read; the first:", file.name)?;
            for fault in file.outcome.first_faults.iter().take(3) {
                writeln!(out, "  {fault}")?;
            }
        }
    }
    for complaint in &results.complaints {
        writeln!(out, "{complaint}")?;
    }
    writeln!(
        out,
        "{} spans in {} traces: {} corrected by their hosts' clocks, {} at the source, {} not",
        counts.spans,
        totals.traces,
        counts.by_host,
        counts.at_source,
        counts.lacking.values().sum::<u64>(),
    )?;
    let mut lacking: Vec<_> = counts.lacking.iter().collect();
    lacking.sort();
    for (lack, count) in lacking {
        writeln!(out, "  {count:10}  {}", lack.text())?;
    }
    for (host, spans) in results.without_agent.iter().take(ROWS) {
        writeln!(out, "  {spans:10}  of {}", results.names.name(*host))?;
    }
    writeln!(out, "\n{} pairs of spans on different hosts", totals.pairs)?;
    for (name, count) in [
        ("certain", totals.certain),
        ("not to be told", totals.untold()),
        ("impossible", totals.impossible),
    ] {
        writeln!(out, "  {name:16}{count:10}  {}", share(count, totals.pairs))?;
    }
    let mut untold: Vec<_> = totals.untold.iter().collect();
    untold.sort();
    for (lack, count) in untold {
        writeln!(out, "    {count:10}  {}", why(*lack))?;
    }
    writeln!(
        out,
        "By the hosts' own clocks {} effects are before their causes ({}).",
        totals.raw_backwards,
        share(totals.raw_backwards, totals.pairs).trim(),
    )?;
    if !results.suspicions.is_empty() {
        writeln!(out, "\nClocks that were farther off than they said:")?;
        for suspicion in &results.suspicions {
            writeln!(
                out,
                "  {}: {} impossible pairs, {} beyond the bounds and more, from {} to {} UTC",
                results.accused(suspicion),
                suspicion.pairs,
                span(suspicion.by_ns),
                utc(suspicion.first_ns),
                utc(suspicion.last_ns),
            )?;
            match suspicion.last_good_ns {
                Some(good) => {
                    writeln!(out, "    the last pair before that went well: {}", utc(good))?
                }
                None => writeln!(out, "    no pair before that went well")?,
            }
        }
        for line in &results.listed {
            writeln!(out, "  {line}")?;
        }
        if results.listed.len() == LISTED {
            writeln!(out, "  (--json has all of them)")?;
        }
    }
    if totals.pairs > 0 {
        writeln!(
            out,
            "\n{:<40}{:>10}{:>10}  can order what is farther apart than",
            "hosts", "pairs", "certain"
        )?;
        for ([a, b], figures) in results.by_hosts().into_iter().take(ROWS) {
            let bound =
                figures.bound_ns().map_or("nothing is known".to_owned(), |[median, most]| {
                    format!("{} (median), {} (worst)", span(median), span(most))
                });
            let hosts = format!("{a}, {b}");
            writeln!(out, "{hosts:<40}{:>10}{:>10}  {bound}", figures.pairs, figures.certain)?;
        }
    }
    for (count, what) in [
        (totals.duplicates, "spans have the identity of another of their trace; the first counts"),
        (totals.in_cycles, "spans are their own ancestors; nobody can say who comes first there"),
        (totals.orphans, "spans have a parent that is in none of the files"),
        (counts.without_identity, "spans have no identity and could not be compared"),
        (counts.backwards, "spans end before they begin by their own clock"),
        (totals.closed_early, "traces had to be judged before the end: too many spans were open"),
        (totals.late, "spans came after their trace had been judged"),
    ] {
        if count > 0 {
            writeln!(out, "{count} {what}")?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_told_as_people_read_them() {
        assert_eq!(utc(0), "1970-01-01 00:00:00.000000");
        assert_eq!(utc(1_709_210_096_123_456_789), "2024-02-29 12:34:56.123456");
        assert_eq!(utc(-1), "1969-12-31 23:59:59.999999");
        assert_eq!(utc(i64::MAX), "2262-04-11 23:47:16.854775");
        assert_eq!(span(999), "999 ns");
        assert_eq!(span(-20_500), "-20.50 µs");
        assert_eq!(span(i64::MIN), "-9223372037 s");
    }
}
