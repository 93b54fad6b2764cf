//! The configuration file read again while a command runs (SIGHUP): what has changed is said in one
//! line each, with whether it is taken over or needs a restart. What needs a restart stays as it is
//! in the configuration that the command is given; a file that cannot be used changes nothing.

use std::path::{Path, PathBuf};

use clap::{ArgMatches, parser::ValueSource};
use toml::{Table, Value};

use super::{
    config::{self, Config, ConfigError, keys},
    log,
    merge::UsageError,
};
use crate::agent::Reload;

/// What the command line says of the command that runs.
pub(super) struct Invocation {
    command: String,
    /// The options that are given, which win over the file.
    options: Vec<String>,
    /// Keys that cannot change in this run though they could in others.
    pub(super) fixed: &'static [&'static str],
}

impl Invocation {
    pub(super) fn new(matches: &ArgMatches) -> Self {
        let (command, matches) = match matches.subcommand() {
            Some((command, matches)) => (command.to_owned(), Some(matches)),
            None => (String::new(), None),
        };
        let is_given = |id: &&str| {
            let source = |matches: &ArgMatches| matches.value_source(id);
            matches.and_then(source) == Some(ValueSource::CommandLine)
        };
        let ids = matches.into_iter().flat_map(ArgMatches::ids).map(clap::Id::as_str);
        // Groups of options are identifiers too, and have no source.
        let options = ids.filter(is_given).map(|id| id.replace('_', "-")).collect();
        Self { command, options, fixed: &[] }
    }
}

fn text(path: Option<&Path>) -> Result<String, ConfigError> {
    path.map_or_else(|| Ok(String::new()), config::text)
}

/// Reads `path` again each time it is called, and makes a configuration of it; `None` without a file, the
/// configuration's or that of keys.
pub(super) fn reload<C>(
    path: Option<&Path>,
    invocation: Invocation,
    build: impl Fn(Config) -> Result<C, UsageError> + 'static,
) -> Result<Option<Reload<C>>, UsageError> {
    // Keys can change without a configuration file, too.
    if path.is_none() && !invocation.options.iter().any(|option| option == "security") {
        return Ok(None);
    }
    let in_effect = text(path)?.parse().unwrap_or_default();
    let mut again = Again { path: path.map(Path::to_owned), invocation, in_effect };
    Ok(Some(Box::new(move || match again.read(&build) {
        Ok(config) => Some(config),
        Err(problem) => {
            tracing::error!("{problem}; the old settings stay");
            None
        }
    })))
}

struct Again {
    path: Option<PathBuf>,
    invocation: Invocation,
    /// The file as far as it is in effect.
    in_effect: Table,
}

impl Again {
    fn read<C>(&mut self, build: impl Fn(Config) -> Result<C, UsageError>) -> Result<C, String> {
        let path = self.path.as_deref();
        let text = text(path).map_err(|error| error.to_string())?;
        let path = path.unwrap_or(Path::new(""));
        let in_one_line = |error: ConfigError| error.in_one_line(&text);
        Config::parse(path, &text).map_err(in_one_line)?;
        // What was parsed as a configuration is a table.
        let mut table: Table = text.parse().unwrap_or_default();
        let differences = keys::differences(&self.in_effect, &table, &self.invocation.command);
        let waiting: Vec<_> = differences.iter().filter(|it| !self.is_live(it)).collect();
        for difference in waiting {
            put(&mut table, difference.section, difference.key, difference.from.clone());
        }
        let config = Config::parse(path, &table.to_string()).map_err(in_one_line)?;
        let level = config.log_level;
        let config = build(config).map_err(|error| error.to_string())?;
        log::set_level(level);
        self.tell(&differences);
        self.in_effect = table;
        Ok(config)
    }

    fn is_live(&self, difference: &keys::Difference) -> bool {
        difference.is_live && !self.invocation.fixed.contains(&difference.key)
    }

    fn tell(&self, differences: &[keys::Difference]) {
        let mut is_told = false;
        for difference in differences.iter().filter(|it| it.is_used) {
            is_told = true;
            let key = match difference.section {
                "" => difference.key.to_owned(),
                section => format!("{section}.{}", difference.key),
            };
            let text = |value: &Option<Value>| {
                value.as_ref().map_or_else(|| "default".to_owned(), Value::to_string)
            };
            let (from, to) = (text(&difference.from), text(&difference.to));
            if self.invocation.options.iter().any(|option| option == difference.key) {
                tracing::info!(key, from, to, "configuration changed, but the command line wins");
            } else if self.is_live(difference) {
                tracing::info!(key, from, to, "configuration changed");
            } else {
                tracing::warn!(key, from, to, "configuration changed, which needs a restart");
            }
        }
        if !is_told {
            tracing::info!("configuration read again: nothing has changed");
        }
    }
}

fn put(table: &mut Table, section: &str, key: &str, value: Option<Value>) {
    let table = match section {
        "" => table,
        section => {
            let section = table.entry(section).or_insert_with(|| Value::Table(Table::new()));
            match section {
                Value::Table(table) => table,
                _ => return,
            }
        }
    };
    match value {
        Some(value) => drop(table.insert(key.to_owned(), value)),
        None => drop(table.remove(key)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory as _;

    use super::super::args::Cli;

    fn again(directory: &Path, text: &str) -> Again {
        let path = directory.join("agent.toml");
        std::fs::write(&path, text).unwrap();
        let matches = Cli::command().get_matches_from(["ptp-agent", "run", "--domain", "3"]);
        let invocation = Invocation::new(&matches);
        assert_eq!(invocation.options, ["domain"]);
        Again { path: Some(path), invocation, in_effect: text.parse().unwrap() }
    }

    #[test]
    fn what_needs_a_restart_stays_and_the_rest_is_taken_over() {
        let directory = tempfile::tempdir().unwrap();
        let mut again = again(directory.path(), "transport = \"l2\"\noffset-threshold = 5\n");
        let text = "offset-threshold = 7\n[run]\nservo = \"pi\"\ndelay-asymmetry = 9\n";
        std::fs::write(again.path.as_ref().unwrap(), text).unwrap();
        let config = again.read(Ok).unwrap();
        assert_eq!(config.offset_threshold, Some(7));
        assert_eq!(config.run.delay_asymmetry, Some(9));
        assert_eq!(config.transport, Some(crate::transport::TransportKind::L2));
        assert_eq!(config.run.servo, None);
        // And is told again the next time.
        let left = keys::differences(&again.in_effect, &text.parse().unwrap(), "run");
        let left: Vec<&str> = left.iter().map(|it| it.key).collect();
        assert_eq!(left, ["transport", "servo"]);
    }

    #[test]
    fn what_is_fixed_in_this_run_needs_a_restart_too() {
        let directory = tempfile::tempdir().unwrap();
        let mut again = again(directory.path(), "");
        again.invocation.fixed = &["delay-asymmetry"];
        std::fs::write(again.path.as_ref().unwrap(), "[run]\ndelay-asymmetry = 9\n").unwrap();
        assert_eq!(again.read(Ok).unwrap().run.delay_asymmetry, None);
    }

    #[test]
    fn broken_file_is_one_line_and_changes_nothing() {
        let directory = tempfile::tempdir().unwrap();
        let mut again = again(directory.path(), "offset-threshold = 5\n");
        for text in ["offset-threshold = \n", "offset-treshold = 6\n", "ring-kib = 5\n", "\u{0}"] {
            std::fs::write(again.path.as_ref().unwrap(), text).unwrap();
            let problem = again.read(Ok).map(drop).unwrap_err();
            assert!(!problem.contains('\n') && problem.contains("configuration"), "{problem}");
        }
        std::fs::remove_file(again.path.as_ref().unwrap()).unwrap();
        assert!(again.read(Ok).is_err());
        assert_eq!(again.in_effect, "offset-threshold = 5".parse().unwrap());
    }
}
