//! Each option is there once, with a default of its own kind, and what is missing says why.

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
