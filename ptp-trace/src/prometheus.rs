//! Readings of hosts' clocks from Prometheus: which queries to ask, and what its answers say. Whoever calls
//! carries them over the network.

use std::{collections::HashMap, ops::Range};

use serde::{Deserialize, de::IgnoredAny};

use crate::{
    clocks::{Known, Reading},
    names::Names,
};

/// Host's clock minus grandmaster's time as UTC, seconds.
pub const OFFSET: &str = "ptp_host_clock_offset_seconds";
/// The truth is no farther from that, seconds.
pub const BOUND: &str = "ptp_host_clock_offset_bound_seconds";
/// What the host's clock showed then, Unix seconds.
pub const READ_AT: &str = "ptp_host_clock_read_timestamp_seconds";
/// Names the grandmaster.
pub const PARENT: &str = "ptp_parent_info";

/// The query for everything in `window`, Unix ns: the raw samples, as they were scraped. Second: the time at
/// which to ask it, Unix seconds.
pub fn query(window: &Range<i64>, matchers: &str) -> (String, i64) {
    let seconds = window.end.saturating_sub(window.start) / 1_000_000_000;
    let names = [OFFSET, BOUND, READ_AT, PARENT].join("|");
    let matchers = if matchers.is_empty() { String::new() } else { format!(",{matchers}") };
    (format!("{{__name__=~\"{names}\"{matchers}}}[{seconds}s]"), window.end / 1_000_000_000)
}

#[derive(Deserialize)]
struct Answer {
    status: String,
    #[serde(default)]
    error: String,
    #[serde(default)]
    data: Option<Data>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Data {
    result_type: String,
    #[serde(default)]
    result: Vec<Series>,
}

#[derive(Deserialize)]
struct Series {
    metric: HashMap<String, String>,
    #[serde(default)]
    values: Vec<(f64, String)>,
    #[serde(default, rename = "histograms")]
    _histograms: IgnoredAny,
}

/// What was scraped of one agent's domain at one time.
#[derive(Default)]
struct Scrape {
    offset_s: Option<f64>,
    bound_s: Option<f64>,
    read_at_s: Option<f64>,
    grandmaster: Option<u32>,
}

/// Takes what an answer says; hosts are named by the label `label`, ports of an `instance` left away.
///
/// # Errors
/// What is wrong with it, or what Prometheus says of the query.
pub fn take(
    answer: &[u8],
    label: &str,
    known: &mut Known,
    grandmasters: &mut Names,
) -> Result<usize, String> {
    let answer: Answer = serde_json::from_slice(answer)
        .map_err(|error| format!("this is no answer of Prometheus: {error}"))?;
    let data = match answer.data {
        Some(data) if answer.status == "success" => data,
        _ => return Err(format!("Prometheus refuses the query: {}", answer.error)),
    };
    if data.result_type != "matrix" {
        return Err(format!("Prometheus answers with a {}, not a matrix", data.result_type));
    }
    // All values of one scrape have the same time to the millisecond. A host may have several series, one
    // for each interface that time can come from, all of the same clock.
    type Place = (String, String, String);
    let mut scrapes: HashMap<Place, HashMap<i64, Scrape>> = HashMap::new();
    let mut unnamed = 0_usize;
    for series in &data.result {
        let text = |label: &str| series.metric.get(label).map_or("", String::as_str);
        let Some(host) = series.metric.get(label) else {
            unnamed += 1;
            continue;
        };
        let place = (host.clone(), text("interface").to_owned(), text("domain").to_owned());
        let name = text("__name__");
        let grandmaster = (name == PARENT).then(|| grandmasters.number(text("grandmaster")));
        let of_place = scrapes.entry(place).or_default();
        for (at, value) in &series.values {
            let Some(value) = value.parse().ok().filter(|value: &f64| value.is_finite()) else {
                continue;
            };
            let scrape = of_place.entry((at * 1e3).round() as i64).or_default();
            match name {
                OFFSET => scrape.offset_s = Some(value),
                BOUND => scrape.bound_s = Some(value),
                READ_AT => scrape.read_at_s = Some(value),
                _ => scrape.grandmaster = grandmaster.filter(|_| value != 0.0),
            }
        }
    }
    if !data.result.is_empty() && unnamed == data.result.len() {
        return Err(format!("no series of Prometheus has the label {label}"));
    }
    let mut taken = 0;
    for ((host, ..), of_place) in &scrapes {
        let host = if label == "instance" { without_port(host) } else { host };
        for reading in of_place.values().filter_map(reading) {
            known.push(host, reading);
            taken += 1;
        }
    }
    Ok(taken)
}

fn reading(scrape: &Scrape) -> Option<Reading> {
    let (offset_s, read_at_s) = (scrape.offset_s?, scrape.read_at_s?);
    let bound_s = scrape.bound_s.filter(|bound| *bound >= 0.0)?;
    // Numbers of Prometheus have 53 bits.
    let lost_s = (offset_s.abs() + bound_s) * f64::EPSILON;
    Some(Reading {
        host_ns: (read_at_s * 1e9).round() as i64,
        offset_ns: (offset_s * 1e9).round() as i64,
        bound_ns: ((bound_s + lost_s) * 1e9).ceil() as i64 + 1,
        grandmaster: scrape.grandmaster?,
    })
}

/// `host:port` without the port, `[::1]:port` without port and brackets.
pub fn without_port(instance: &str) -> &str {
    if let Some((address, _)) = instance.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        return address;
    }
    match instance.rsplit_once(':') {
        Some((host, port)) if !host.contains(':') && port.parse::<u16>().is_ok() => host,
        _ => instance,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clocks::{Clocks, Limits};
    use proptest::prelude::*;

    fn series(name: &str, more: &str, values: &str) -> String {
        format!(
            r#"{{"metric":{{"__name__":"{name}","instance":"h1:9319","interface":"eth0","domain":"0"{more}}},"values":[{values}]}}"#
        )
    }

    fn answer() -> String {
        let all = [
            series(
                OFFSET,
                "",
                r#"[1700000000.5,"0.001"],[1700000015.5,"0.001"],[1700000030.5,"NaN"]"#,
            ),
            series(BOUND, "", r#"[1700000000.5,"2e-06"],[1700000015.5,"2e-06"]"#),
            series(READ_AT, "", r#"[1700000000.5,"1700000000"],[1700000015.5,"1700000015"]"#),
            series(PARENT, r#","grandmaster":"gm""#, r#"[1700000000.5,"1"],[1700000015.5,"1"]"#),
        ];
        format!(
            r#"{{"status":"success","data":{{"resultType":"matrix","result":[{}]}}}}"#,
            all.join(",")
        )
    }

    #[test]
    fn scrapes_become_readings_of_the_host_without_its_port() {
        let mut clocks = Clocks::new(Limits::default(), None);
        let Clocks { known, grandmasters, .. } = &mut clocks;
        assert_eq!(take(answer().as_bytes(), "instance", known, grandmasters), Ok(2));
        let at = 1_700_000_000_000_000_000;
        let when = clocks.when("h1", at, 1).unwrap();
        assert!((when.middle_ns() - (at - 1_000_000)).abs() <= 1);
        assert!((2_000..2_400).contains(&when.bound_ns()), "{}", when.bound_ns());
        assert_eq!(clocks.grandmasters.name(when.grandmaster), "gm");
    }

    #[test]
    fn refusals_and_nonsense_are_said_in_words() {
        let mut clocks = Clocks::new(Limits::default(), None);
        let Clocks { known, grandmasters, .. } = &mut clocks;
        let mut take = |text: &str, label| take(text.as_bytes(), label, known, grandmasters);
        let error = take(r#"{"status":"error","error":"too many samples"}"#, "instance");
        assert!(error.unwrap_err().contains("too many samples"));
        assert!(take("<html>", "instance").unwrap_err().contains("no answer of Prometheus"));
        assert!(take(&answer(), "node").unwrap_err().contains("label node"));
    }

    #[test]
    fn port_is_left_away_and_nothing_else() {
        for (instance, host) in [
            ("h1:9319", "h1"),
            ("h1", "h1"),
            ("[fe80::1]:9319", "fe80::1"),
            ("fe80::1", "fe80::1"),
            ("a:b", "a:b"),
        ] {
            assert_eq!(without_port(instance), host);
        }
    }

    #[test]
    fn query_asks_for_the_window_and_no_more() {
        let (text, at) = query(&(0..3_600_000_000_000), "job=\"ptp-agent\"");
        assert!(text.ends_with(",job=\"ptp-agent\"}[3600s]"), "{text}");
        assert_eq!(at, 3_600);
    }

    proptest! {
        #[test]
        fn any_answer_ends(text in ".{0,300}", cut in 0_usize..900) {
            let mut clocks = Clocks::new(Limits::default(), None);
            let Clocks { known, grandmasters, .. } = &mut clocks;
            let _ = take(text.as_bytes(), "instance", known, grandmasters);
            let answer = answer();
            let _ = take(&answer.as_bytes()[..cut.min(answer.len())], "instance", known, grandmasters);
        }
    }
}
