//! The configuration file: TOML, keys in kebab-case, every key optional, unknown ones refused with
//! line and column. What the command line says wins.

pub(super) mod keys;

use std::{
    fs,
    io::{self, Read},
    net::SocketAddr,
    path::{Path, PathBuf},
};

use serde::Deserialize;

use super::{
    args::{Delay, ServeClock},
    clock::{ClockSection, ExportArgs, RunClock},
    log::LogLevel,
    management::UserDescription,
    marking::{self, IdentityOption},
    ntp::{Follow, Host, NtpMode, PollOption},
    profile::ProfileName,
    pulse::{EdgeOption, SourceOption},
    roles::{PortOption, RunRole, UntilLocked},
    unicast::ServeUnicast,
};
use crate::{
    agent::{
        answer_for::AnswerFor, io::Sender, link_server::LinkServer, partners::Partner,
        prime::PrimeMode,
    },
    answers,
    capture::{self, Latencies},
    engine::{
        config::LinkDelayService, contention::RelayTime, discipline::Policy, receiver::Acceptable,
        strategy,
    },
    servo::Choice,
    transport::TransportKind,
    zones::ZoneName,
};

/// A configuration file has no reason to be larger.
const MAX_BYTES: u64 = 1024 * 1024;

/// Why a configuration cannot be used.
#[derive(Debug, thiserror::Error)]
pub(super) enum ConfigError {
    #[error("cannot read configuration {path}: {error}")]
    Read { path: PathBuf, error: io::Error },
    #[error("configuration {0} is larger than 1 MiB")]
    TooLarge(PathBuf),
    /// The message of the TOML crate names line and column and shows the place.
    #[error("configuration {path}: {error}{}", suggested(.error))]
    Parse { path: PathBuf, error: toml::de::Error },
    #[error("configuration key {key}: {problem}")]
    Value { key: &'static str, problem: String },
}

/// The whole file.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub(super) struct Config {
    pub(super) interface: Option<Vec<String>>,
    pub(super) transport: Option<TransportKind>,
    pub(super) domain: Option<u8>,
    rx_source: Option<String>,
    tx_source: Option<String>,
    pub(super) ring_kib: Option<u32>,
    pub(super) prime: Option<PrimeMode>,
    pub(super) dscp_event: Option<u8>,
    pub(super) dscp_general: Option<u8>,
    pub(super) udp_ttl: Option<u8>,
    pub(super) udp6_scope: Option<u8>,
    pub(super) clock_identity: Option<IdentityOption>,
    pub(super) ingress_latency: Option<Latencies>,
    pub(super) egress_latency: Option<Latencies>,
    pub(super) metrics_address: Option<SocketAddr>,
    pub(super) status_socket: Option<String>,
    pub(super) management_socket: Option<PathBuf>,
    pub(super) management_socket_ro: Option<PathBuf>,
    pub(super) user_description: Option<UserDescription>,
    pub(super) net_sync_monitor: Option<bool>,
    pub(super) security: Option<PathBuf>,
    pub(super) security_require: Option<bool>,
    pub(super) security_spp: Option<u8>,
    pub(super) security_key: Option<u32>,
    pub(super) confine: Option<bool>,
    pub(super) offset_threshold: Option<u32>,
    pub(super) log_level: Option<LogLevel>,
    #[serde(default)]
    pub(super) clock: ClockSection,
    #[serde(default)]
    pub(super) export: ExportArgs,
    #[serde(default)]
    pub(super) run: RunSection,
    #[serde(default)]
    pub(super) serve: ServeSection,
}

/// `[run]`.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub(super) struct RunSection {
    pub(super) clock: Option<RunClock>,
    pub(super) delay: Option<Delay>,
    pub(super) strategy: Option<strategy::Choice>,
    pub(super) servo: Option<Choice>,
    pub(super) delay_asymmetry: Option<i64>,
    pub(super) asymmetry_limit: Option<u32>,
    pub(super) least_delay_forward: Option<u32>,
    pub(super) least_delay_backward: Option<u32>,
    pub(super) rate_error: Option<f64>,
    pub(super) boundary_clock_error: Option<u32>,
    pub(super) grandmaster_accuracy: Option<u32>,
    pub(super) assume_two_step: Option<bool>,
    pub(super) pin_parent: Option<bool>,
    pub(super) acceptable_masters: Option<Vec<Acceptable>>,
    pub(super) max_clock_class: Option<u8>,
    pub(super) acceptable_senders: Option<Vec<Sender>>,
    pub(super) witness_domains: Option<Vec<u8>>,
    pub(super) on_disagreement: Option<Policy>,
    pub(super) ntp: Option<Vec<Host>>,
    pub(super) ntp_poll: Option<PollOption>,
    pub(super) ntp_nts_ca: Option<PathBuf>,
    pub(super) ntp_mode: Option<NtpMode>,
    pub(super) follow: Option<Follow>,
    pub(super) pps: Option<SourceOption>,
    pub(super) pps_edge: Option<EdgeOption>,
    pub(super) pps_delay: Option<u32>,
    pub(super) pps_lateness: Option<u32>,
    pub(super) pps_accuracy: Option<u32>,
    pub(super) pps_jitter: Option<u32>,
    pub(super) nmea: Option<PathBuf>,
    pub(super) nmea_baud: Option<u32>,
    pub(super) role: Option<RunRole>,
    pub(super) profile: Option<ProfileName>,
    pub(super) local_priority: Option<u8>,
    pub(super) port: Option<Vec<PortOption>>,
    pub(super) log_sync_interval: Option<i8>,
    pub(super) log_announce_interval: Option<i8>,
    pub(super) log_min_delay_req_interval: Option<i8>,
    pub(super) priority1: Option<u8>,
    pub(super) priority2: Option<u8>,
    pub(super) clock_class: Option<u8>,
    pub(super) time_zone: Option<Vec<ZoneName>>,
    pub(super) stamp_brackets: Option<bool>,
    pub(super) path_trace: Option<bool>,
    pub(super) silent_until_locked: Option<UntilLocked>,
    pub(super) max_steps_removed: Option<u16>,
    pub(super) sync_receipt_timeout: Option<u8>,
    pub(super) neighbor_prop_delay_threshold: Option<u32>,
    pub(super) link_delay: Option<LinkDelayService>,
    pub(super) link_delay_server: Option<LinkServer>,
    pub(super) relay: Option<RelayTime>,
    pub(super) log_min_pdelay_req_interval: Option<i8>,
    pub(super) oper_log_sync_interval: Option<i8>,
    pub(super) oper_log_pdelay_req_interval: Option<i8>,
    pub(super) unicast: Option<Vec<Partner>>,
    pub(super) hybrid: Option<bool>,
    pub(super) unicast_duration: Option<std::num::NonZeroU16>,
    pub(super) unicast_query_interval: Option<i8>,
    pub(super) csptp: Option<Vec<String>>,
    pub(super) sptp: Option<Vec<String>>,
    pub(super) log_request_interval: Option<i8>,
    pub(super) management_set: Option<bool>,
    pub(super) slave_event_monitor: Option<PathBuf>,
}

/// `[serve]`.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub(super) struct ServeSection {
    pub(super) clock: Option<ServeClock>,
    pub(super) offset: Option<f64>,
    pub(super) drift: Option<f64>,
    pub(super) log_sync_interval: Option<i8>,
    pub(super) log_announce_interval: Option<i8>,
    pub(super) log_min_delay_req_interval: Option<i8>,
    pub(super) priority1: Option<u8>,
    pub(super) priority2: Option<u8>,
    pub(super) clock_class: Option<u8>,
    pub(super) stamp_brackets: Option<bool>,
    pub(super) kernel_answers: Option<answers::Mode>,
    pub(super) answer_for: Option<AnswerFor>,
    pub(super) serve_to: Option<Vec<answers::Prefix>>,
    pub(super) answers_per_second: Option<std::num::NonZeroU32>,
    pub(super) answers_per_client: Option<std::num::NonZeroU32>,
    pub(super) management_set: Option<bool>,
    pub(super) contend: Option<bool>,
    pub(super) time_zone: Option<Vec<ZoneName>>,
    pub(super) ntp: Option<bool>,
    pub(super) ntp_stratum: Option<u8>,
    pub(super) ntp_smear: Option<bool>,
    pub(super) ntp_answers_per_second: Option<std::num::NonZeroU32>,
    pub(super) unicast: Option<ServeUnicast>,
    pub(super) unicast_clients: Option<std::num::NonZeroU32>,
    pub(super) unicast_clients_per_host: Option<std::num::NonZeroU32>,
    pub(super) unicast_messages_per_second: Option<std::num::NonZeroU32>,
    pub(super) csptp: Option<bool>,
    pub(super) sptp: Option<bool>,
}

impl ConfigError {
    /// The message for the log, where one line is all there is: without the picture of the place.
    pub(super) fn in_one_line(&self, text: &str) -> String {
        let Self::Parse { path, error } = self else { return self.to_string() };
        let before = error.span().and_then(|span| text.get(..span.start)).unwrap_or_default();
        let line = before.matches('\n').count() + 1;
        let column = before.chars().rev().take_while(|it| *it != '\n').count() + 1;
        let message = error.message().replace('\n', ", ");
        let suggestion = suggested(error).replace('\n', "; ");
        let path = path.display();
        format!("configuration {path}: line {line}, column {column}: {message}{suggestion}")
    }
}

/// What may have been meant by a key that there is not.
fn suggested(error: &toml::de::Error) -> String {
    let unknown =
        error.message().strip_prefix("unknown field `").and_then(|rest| rest.split_once('`'));
    let suggestion = unknown.and_then(|(key, _)| keys::suggestion(key));
    suggestion.map_or(String::new(), |suggestion| format!("\n{suggestion}"))
}

/// The text of the file.
pub(super) fn text(path: &Path) -> Result<String, ConfigError> {
    let failed = |error| ConfigError::Read { path: path.to_owned(), error };
    let mut text = String::new();
    // Devices and pipes do not say how long they are.
    let file = fs::File::open(path).map_err(failed)?;
    file.take(MAX_BYTES + 1).read_to_string(&mut text).map_err(failed)?;
    if text.len() as u64 > MAX_BYTES {
        return Err(ConfigError::TooLarge(path.to_owned()));
    }
    Ok(text)
}

impl Config {
    pub(super) fn read(path: &Path) -> Result<Self, ConfigError> {
        Self::parse(path, &text(path)?)
    }

    /// What the text of a file says; `path` is for the message.
    pub(super) fn parse(path: &Path, text: &str) -> Result<Self, ConfigError> {
        let config: Self = toml::from_str(text)
            .map_err(|error| ConfigError::Parse { path: path.to_owned(), error })?;
        config.check()?;
        Ok(config)
    }

    fn check(&self) -> Result<(), ConfigError> {
        self.rx_source()?;
        self.tx_source()?;
        self.clock.check()?;
        marking::check(self).map_err(|(key, problem)| ConfigError::Value { key, problem })?;
        if let Some(kib) = self.ring_kib
            && super::args::ring_kib(&kib.to_string()).is_err()
        {
            let problem = format!("{kib} is not a power of two from 4 to 1048576");
            return Err(ConfigError::Value { key: "ring-kib", problem });
        }
        if let Some(stratum) = self.serve.ntp_stratum.filter(|it| !(1..=15).contains(it)) {
            let problem = format!("{stratum} is not from 1 to 15");
            return Err(ConfigError::Value { key: "serve.ntp-stratum", problem });
        }
        if let Some(ppb) = self.run.rate_error
            && let Err(problem) = super::knowledge::rate_error(&ppb.to_string())
        {
            return Err(ConfigError::Value { key: "run.rate-error", problem });
        }
        let serve = &self.serve;
        for (key, value) in [
            ("run.log-sync-interval", self.run.log_sync_interval),
            ("run.log-announce-interval", self.run.log_announce_interval),
            ("run.log-min-delay-req-interval", self.run.log_min_delay_req_interval),
            ("serve.log-sync-interval", serve.log_sync_interval),
            ("serve.log-announce-interval", serve.log_announce_interval),
            ("serve.log-min-delay-req-interval", serve.log_min_delay_req_interval),
        ] {
            if let Some(log) = value
                && super::args::log_interval(&log.to_string()).is_err()
            {
                let problem = format!("{log} is not from -10 to 10");
                return Err(ConfigError::Value { key, problem });
            }
        }
        Ok(())
    }

    pub(super) fn rx_source(&self) -> Result<Option<capture::Choice>, ConfigError> {
        parse("rx-source", self.rx_source.as_deref(), capture::Choice::of_receive)
    }

    pub(super) fn tx_source(&self) -> Result<Option<capture::Choice>, ConfigError> {
        parse("tx-source", self.tx_source.as_deref(), capture::Choice::of_transmit)
    }
}

fn parse<T>(
    key: &'static str,
    text: Option<&str>,
    parse: impl FnOnce(&str) -> Result<T, String>,
) -> Result<Option<T>, ConfigError> {
    text.map(|text| {
        parse(text)
            .map_err(|problem| ConfigError::Value { key, problem: format!("{text:?}: {problem}") })
    })
    .transpose()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stamp::StampSource;

    #[test]
    fn unknown_key_is_refused_with_line_and_column() {
        let error = toml::from_str::<Config>("domain = 1\n\n[run]\nservoo = \"pi\"\n").unwrap_err();
        let text = error.to_string();
        assert!(text.contains("line 4, column 1") && text.contains("servoo"), "{text}");
    }

    #[test]
    fn one_line_says_where_and_what() {
        let text = "domain = 1\n\n[run]\n  servoo = \"pi\"\n";
        let error = Config::parse(Path::new("a.toml"), text).unwrap_err();
        let line = error.in_one_line(text);
        assert!(line.starts_with("configuration a.toml: line 4, column 3: unknown"), "{line}");
        assert!(line.ends_with("; did you mean `servo` (in [run])?"), "{line}");
        assert!(!line.contains('\n'));
    }

    #[test]
    fn keys_are_kebab_case() {
        let config: Config =
            toml::from_str("rx-source = \"stack\"\n[serve]\nlog-sync-interval = -4\n").unwrap();
        assert_eq!(config.serve.log_sync_interval, Some(-4));
        assert_eq!(config.rx_source().unwrap(), Some(capture::Choice::Fixed(StampSource::Stack)));
    }

    #[test]
    fn a_file_without_a_length_is_not_read_for_ever() {
        let error = text(Path::new("/dev/zero")).unwrap_err();
        assert!(matches!(error, ConfigError::TooLarge(_)), "{error}");
    }

    #[test]
    fn impossible_values_are_refused() {
        let config: Config = toml::from_str("ring-kib = 5\n").unwrap();
        assert!(config.check().is_err());
        assert!(toml::from_str::<Config>("domain = 256\n").is_err());
    }
}
