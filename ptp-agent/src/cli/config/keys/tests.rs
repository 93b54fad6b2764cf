//! Claims about the table of keys and the file that it makes.

use super::{
    super::{ClockSection, Config, ExportArgs, RunSection, ServeSection},
    *,
};
use serde::{Deserialize, Deserializer, de, forward_to_deserialize_any};

/// What the parser knows, in the order of the sections.
const KNOWN: [fn() -> &'static [&'static str]; 5] = [
    fields::<Config>,
    fields::<ClockSection>,
    fields::<ExportArgs>,
    fields::<RunSection>,
    fields::<ServeSection>,
];

/// The names of the fields that a structure is deserialized from.
fn fields<'de, T: Deserialize<'de>>() -> &'static [&'static str] {
    struct Ask<'a>(&'a mut &'static [&'static str]);
    impl<'de> Deserializer<'de> for Ask<'_> {
        type Error = de::value::Error;
        fn deserialize_any<V: de::Visitor<'de>>(self, _: V) -> Result<V::Value, Self::Error> {
            Err(de::Error::custom("not a structure"))
        }
        fn deserialize_struct<V: de::Visitor<'de>>(
            self,
            _: &'static str,
            fields: &'static [&'static str],
            _: V,
        ) -> Result<V::Value, Self::Error> {
            *self.0 = fields;
            Err(de::Error::custom("only asked for its fields"))
        }
        forward_to_deserialize_any! {
            bool i8 i16 i32 i64 u8 u16 u32 u64 f32 f64 char str string bytes byte_buf option unit
            unit_struct newtype_struct seq tuple tuple_struct map enum identifier ignored_any
        }
    }
    let mut names: &'static [&'static str] = &[];
    // The error is the way out.
    let _ = T::deserialize(Ask(&mut names));
    names
}

#[test]
fn every_key_that_is_parsed_is_documented_once() {
    let cli = Cli::command();
    for (section, fields) in SECTIONS.iter().zip(KNOWN) {
        let tables = SECTIONS.iter().map(|section| section.name);
        let tables: Vec<&str> = if section.name.is_empty() { tables.collect() } else { vec![] };
        let known = fields().iter().filter(|name| !tables.contains(name));
        let mut known: Vec<&str> = known.copied().collect();
        let mut listed: Vec<&str> = section.keys.iter().map(|key| key.name).collect();
        known.sort_unstable();
        listed.sort_unstable();
        assert_eq!(listed, known, "[{}]", section.name);
        for key in section.keys {
            let documentation = documentation(&cli, section, key);
            assert!(!documentation.is_empty(), "[{}] {}", section.name, key.name);
        }
    }
}

#[test]
fn committed_file_is_the_generated_one() {
    let committed = include_str!("../../../../../docs/ptp-agent.toml");
    assert!(
        committed == default_file(),
        "docs/ptp-agent.toml is not what `ptp-agent config show --default` prints"
    );
}

#[test]
fn every_commented_value_can_be_used() {
    let uncommented: String = default_file()
        .lines()
        .map(|line| match line.strip_prefix('#') {
            Some(value) if !value.starts_with(' ') => format!("{value}\n"),
            _ => format!("{line}\n"),
        })
        .collect();
    let config: Config = toml::from_str(&uncommented).unwrap();
    config.check().unwrap();
    assert_eq!(config.offset_threshold, Some(100_000));
}

#[test]
fn given_values_stand_among_the_defaults() {
    let given = "domain = 3\n[run]\nservo = \"pi\"\n";
    let shown = file(&given.parse().unwrap());
    assert!(shown.contains("\ndomain = 3\n") && shown.contains("\nservo = \"pi\"\n"));
    assert!(shown.contains("\n#transport = \"udp4\"\n"));
}

#[test]
fn commands_use_the_keys_that_they_have_options_for() {
    let old = toml::Table::new();
    let new = "domain = 1\nlog-level = \"warn\"\n[serve]\npriority1 = 1\n[clock]\nmax-step = 1\n";
    let used = |command| {
        let all = differences(&old, &new.parse().unwrap(), command);
        assert_eq!(all.len(), 4);
        all.into_iter().filter(|it| it.is_used).map(|it| it.key).collect::<Vec<_>>()
    };
    assert_eq!(used("run"), ["domain", "log-level", "max-step"]);
    assert_eq!(used("serve"), ["domain", "log-level", "priority1"]);
    assert_eq!(used("observe"), ["log-level"]);
}

#[test]
fn unknown_keys_get_a_suggestion() {
    for (unknown, expected) in [
        ("servoo", "did you mean `servo` (in [run])?"),
        ("metric-adress", "did you mean `metrics-address` (before the first table)?"),
        ("servo", "`servo` belongs in [run]"),
    ] {
        assert_eq!(suggestion(unknown).as_deref(), Some(expected));
    }
    assert_eq!(suggestion("xyzzy"), None);
}
