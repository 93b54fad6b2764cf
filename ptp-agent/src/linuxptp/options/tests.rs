//! Each option is there once, with a default of its own kind, and what is missing says why. The page for those who come
//! from linuxptp has a row for each option of each program of version 4.4, and names no command that is not there.

use super::*;

#[test]
fn every_default_is_a_value_of_its_option_and_every_name_is_there_once() {
    for (at, option) in KNOWN.iter().enumerate() {
        // Of an unsigned word, which the range of its option does not hold.
        if option.default != "0xffffffff" {
            let default = option.value(option.default).unwrap();
            assert!(option.is_default(&default), "{}", option.name);
        }
        assert!(KNOWN[..at].iter().all(|other| other.name != option.name), "{}", option.name);
    }
    for (other, name) in OTHER_NAMES {
        assert_eq!(known(other).unwrap().name, name);
    }
}

/// The table of the page for those who come from linuxptp.
fn table() -> String {
    let mut rows = vec!["| option | default | here |".to_owned(), "|---|---|---|".to_owned()];
    rows.extend(KNOWN.iter().map(|option| {
        let here = match option.fate {
            Fate::Translated(keys) => keys.to_owned(),
            Fate::Missing(why) => format!("*missing*: {why}"),
            Fate::Needless(why) => format!("needs no key: {why}"),
        };
        let names: Vec<&str> = OTHER_NAMES
            .iter()
            .filter(|(_, name)| *name == option.name)
            .map(|(other, _)| *other)
            .chain([option.name])
            .collect();
        let default = if option.default.is_empty() { "-" } else { option.default };
        format!("| `{}` | `{default}` | {here} |", names.join("`, `"))
    }));
    rows.join("\n")
}

#[test]
fn no_row_says_missing_without_a_reason() {
    for option in KNOWN {
        let (Fate::Missing(why) | Fate::Needless(why) | Fate::Translated(why)) = option.fate;
        assert!(why.len() > 5 && !why.contains('|'), "{}: {why:?}", option.name);
        if let Fate::Missing(why) = option.fate {
            assert!(why.split_whitespace().count() >= 3, "{}: {why:?}", option.name);
        }
    }
}

#[test]
fn page_for_those_who_come_from_linuxptp_has_every_option_as_the_importer_has_it() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/migration.md");
    let page = std::fs::read_to_string(path).unwrap();
    let (before, rest) = page.split_once("<!-- options -->\n").unwrap();
    let (_, after) = rest.split_once("<!-- /options -->").unwrap();
    let made = format!("{before}<!-- options -->\n{}\n<!-- /options -->{after}", table());
    if std::env::var_os("PTP_BLESS").is_some() {
        std::fs::write(path, &made).unwrap();
    }
    let is_same = std::fs::read_to_string(path).unwrap() == made;
    assert!(is_same, "out of date: PTP_BLESS=1 cargo test -p ptp-agent --lib linuxptp");
}

/// The programs of linuxptp 4.4: the heading of the page's section, the letters of the command line, and what else they
/// are told on it or in a file, other than ptp4l's options.
const PROGRAMS: [(&str, &str, &[&str]); 9] = [
    ("ptp4l's command line", "AEP246HSLfipslmqvh", &[]),
    ("phc2sys", "arCcdfsEPISFRNOLMiuwnxzltmqvh", &[]),
    ("pmc", "246ubdfhistvz", &["GET", "SET", "COMMAND"]),
    (
        "ts2phc",
        "acfhilmqsv",
        &[
            "ts2phc.channel",
            "ts2phc.external_pps",
            "ts2phc.extts_correction",
            "ts2phc.extts_polarity",
            "ts2phc.holdover",
            "ts2phc.master",
            "ts2phc.nmea_baudrate",
            "ts2phc.nmea_delay",
            "ts2phc.nmea_remote_host",
            "ts2phc.nmea_remote_port",
            "ts2phc.nmea_serialport",
            "ts2phc.perout_phase",
            "ts2phc.pin_index",
            "ts2phc.pin_name",
            "ts2phc.pulserate",
            "ts2phc.pulsewidth",
            "ts2phc.tod_source",
        ],
    ),
    ("tz2alt", "fhklpvwz", &["--truncate-names", "leapfile"]),
    ("nsm", "fhiv", &["NSM ADDRESS"]),
    (
        "timemaster",
        "fnlmqvh",
        &[
            "ntp_program",
            "rundir",
            "user",
            "first_shm_segment",
            "restart_processes",
            "use_vclocks",
            "[ntp_server ADDRESS]",
            "minpoll",
            "maxpoll",
            "iburst",
            "ntp_options",
            "[ptp_domain N]",
            "interfaces",
            "ntp_poll",
            "phc2sys_poll",
            "delay",
            "ptp4l_option",
            "[chrony.conf]",
            "path",
            "options",
        ],
    ),
    ("hwstamp_ctl", "hirtv", &[]),
    ("phc_ctl", "lqQvh", &["set", "get", "adj", "freq", "phase", "cmp", "caps", "pins", "wait"]),
];

/// What stands in backticks in the first column of a section's table.
fn told(page: &str, heading: &str) -> Vec<String> {
    let (_, section) = page.split_once(&format!("\n## {heading}\n")).expect(heading);
    let section = section.split("\n## ").next().unwrap_or_default();
    let cells = section.lines().filter_map(|line| line.strip_prefix("| ")?.split(" | ").next());
    cells.flat_map(|cell| cell.split('`').skip(1).step_by(2)).map(str::to_owned).collect()
}

#[test]
fn page_for_those_who_come_from_linuxptp_has_every_option_of_every_program() {
    let page = include_str!("../../../../docs/migration.md");
    for (heading, letters, words) in PROGRAMS {
        let told = told(page, heading);
        // ts2phc's interface is one that is left out in its manual page too.
        for letter in letters.chars().filter(|letter| (heading, *letter) != ("ts2phc", 'i')) {
            let is_it = |it: &String| {
                it.split(' ')
                    .next()
                    .is_some_and(|it| it.strip_prefix('-').is_some_and(|it| it.starts_with(letter)))
            };
            assert!(told.iter().any(is_it), "{heading}: no row for -{letter}");
        }
        for word in words {
            let is_it = |it: &String| it == word || it.split(' ').next() == Some(word);
            assert!(told.iter().any(is_it), "{heading}: no row for {word}");
        }
    }
}

#[test]
fn no_row_of_the_page_for_those_who_come_from_linuxptp_says_missing_without_a_reason() {
    let page = include_str!("../../../../docs/migration.md");
    let rows = page.lines().filter(|line| line.starts_with("| ") && line.contains("*missing*"));
    let mut count = 0;
    for row in rows {
        let reason = row.split_once("*missing*: ").map(|(_, reason)| reason.trim_end_matches(" |"));
        assert!(reason.is_some_and(|it| it.split_whitespace().count() >= 3), "{row}");
        count += 1;
    }
    assert!(count > 50, "{count} rows, where are the tables?");
}

#[test]
fn integers_are_as_in_c() {
    for (text, value) in
        [("12", Some(12)), ("-3", Some(-3)), ("0xFE", Some(254)), ("010", Some(8)), ("0", Some(0))]
    {
        assert_eq!(integer(text), value, "{text}");
    }
    for text in ["", "-", "0x", "1 2", "1a", "+-1", "--1", "09", "99999999999999999999"] {
        assert_eq!(integer(text), None, "{text}");
    }
}

#[test]
fn misspelt_options_get_a_suggestion() {
    assert_eq!(suggestion("domainNumbr"), Some("domainNumber"));
    assert_eq!(suggestion("xyzzy"), None);
}
