//! Which roles `run` takes, and how it serves where it does: the options, and what the file says in `[run]`.

use std::{collections::BTreeMap, str::FromStr};

use clap::{Args, ValueEnum};
use serde::Deserialize;

use super::{
    args::{Delay, log_interval},
    config::RunSection,
    merge::UsageError,
    profile::{Profile, ProfileName},
};
use crate::{
    agent::run::PortSettings,
    engine::{
        config::{AsCapable, LinkDelayService},
        contention::{BeforeLock, Contention, PathTrace, RelayTime},
        receiver::PortPart,
        transmitter::TransmitterConfig,
    },
    transport::TransportKind,
    zones::{self, ZoneName},
};
use ptp_common::wire::ClockIdentity;

/// `--role`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum RunRole {
    /// Follows, and never serves whatever it hears or does not hear.
    #[default]
    Receiver,
    /// Follows the best clock or is it: an ordinary clock, with several interfaces a boundary clock.
    Auto,
}

/// `silent-until-locked`.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(untagged, expecting = "expected true, false or \"sync\"")]
pub(super) enum UntilLocked {
    Is(bool),
    Of(Held),
}

/// What alone is not sent until then.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Held {
    /// Sync, and answers.
    Sync,
}

impl From<UntilLocked> for BeforeLock {
    fn from(silent: UntilLocked) -> Self {
        match silent {
            UntilLocked::Is(true) => Self::Silent,
            UntilLocked::Of(Held::Sync) => Self::Announced,
            UntilLocked::Is(false) => Self::Uncertain,
        }
    }
}

/// The options. Their places in the configuration are in `[run]`.
#[derive(Clone, Debug, Default, Args)]
pub(super) struct RoleArgs {
    /// receiver (default) follows and never serves; auto takes either role: an ordinary clock, with several
    /// interfaces a boundary clock. It needs a clock to follow with; default then: virtual.
    #[arg(long)]
    pub(super) role: Option<RunRole>,
    /// PTP profile: what is in effect where nothing else is said. `config show --profile NAME` prints it; what
    /// contradicts it is refused.
    #[arg(long, value_name = "NAME")]
    pub(super) profile: Option<ProfileName>,
    /// Of one interface something else: udp4, udp6 or l2; e2e, p2p or auto; cmlds, where its link is measured in the name of
    /// the common service; transmitter or receiver, where it may take that role alone. Several are allowed.
    #[arg(long, value_name = "IFACE=WORD[,WORD]")]
    pub(super) port: Vec<PortOption>,
    /// With --role auto or --unicast: interval of Sync, log2 s (default 0).
    #[arg(long, value_name = "LOG2", allow_negative_numbers = true, value_parser = log_interval)]
    pub(super) log_sync_interval: Option<i8>,
    /// With --role auto or --unicast: interval of Announce, log2 s (default 1), the same on all clocks of a domain.
    #[arg(long, value_name = "LOG2", allow_negative_numbers = true, value_parser = log_interval)]
    pub(super) log_announce_interval: Option<i8>,
    /// With --role auto or --unicast: smallest mean interval of Delay_Req that clients adopt, log2 s (default 0).
    #[arg(long, value_name = "LOG2", allow_negative_numbers = true, value_parser = log_interval)]
    pub(super) log_min_delay_req_interval: Option<i8>,
    /// With --role auto: priority1 of the data set comparison (default 128); smaller wins.
    #[arg(long)]
    pub(super) priority1: Option<u8>,
    /// With --role auto: priority2 of the data set comparison (default 128); smaller wins.
    #[arg(long)]
    pub(super) priority2: Option<u8>,
    /// With --role auto: clockClass (default 248, a clock without reference); from 1 to 127 it never follows.
    #[arg(long)]
    pub(super) clock_class: Option<u8>,
    /// With --role auto: while it is the grandmaster, announce local time of these zones, as in Europe/Berlin, with its
    /// next jump (16.3); at most four. Clients show it, and follow it with no clock. From the system's database, which is
    /// read again at SIGHUP.
    #[arg(long, value_name = "NAME,...", value_delimiter = ',')]
    pub(super) time_zone: Vec<ZoneName>,
}

/// `--port`.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct PortOption {
    interface: String,
    settings: PortSettings,
}

impl FromStr for PortOption {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (interface, words) = text
            .split_once('=')
            .filter(|(interface, _)| !interface.is_empty())
            .ok_or("expected an interface and what is other with it, as in eth1=l2,p2p")?;
        let mut settings = PortSettings::default();
        for word in words.split(',') {
            if let Ok(transport) = word.parse::<TransportKind>() {
                settings.transport = Some(transport);
            } else if let Ok(delay) = <Delay as ValueEnum>::from_str(word, false) {
                settings.delay_mechanism = Some(delay.mechanism());
            } else if word == "cmlds" {
                settings.link_delay = Some(LinkDelayService::Common);
            } else {
                settings.part = match word {
                    "transmitter" => PortPart::Transmitter,
                    "receiver" => PortPart::Receiver,
                    _ => {
                        return Err(format!(
                            "{word:?} is none of udp4, udp6, l2, e2e, p2p, auto, cmlds, transmitter, receiver"
                        ));
                    }
                };
            }
        }
        Ok(Self { interface: interface.to_owned(), settings })
    }
}

impl<'de> Deserialize<'de> for PortOption {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

/// What a run is told of roles.
pub(super) struct Roles {
    /// Where it may serve: how.
    pub(super) contention: Option<Contention>,
    /// By interface.
    pub(super) ports: BTreeMap<String, PortSettings>,
    /// `syncReceiptTimeout`.
    pub(super) sync_receipt_timeout: u8,
    /// Of all ports.
    pub(super) local_priority: Option<u8>,
    /// Of all links.
    pub(super) as_capable: Option<AsCapable>,
    /// What local times are announced.
    pub(super) time_zones: Vec<ZoneName>,
}

/// Zones of the command line, or else of the file; as many as are announced.
pub(super) fn time_zones(
    given: &[ZoneName],
    of_file: Option<&[ZoneName]>,
) -> Result<Vec<ZoneName>, UsageError> {
    let names = if given.is_empty() { of_file.unwrap_or_default() } else { given };
    if names.len() > zones::MOST {
        let too_many = format!("{}, at most {}", names.len(), zones::MOST);
        return Err(UsageError::OutOfRange("--time-zone", too_many));
    }
    Ok(names.to_vec())
}

impl RoleArgs {
    /// Whether either role may be taken.
    pub(super) fn is_auto(&self, section: &RunSection) -> bool {
        self.role.or(section.role).unwrap_or_default() == RunRole::Auto
    }

    /// The profile.
    pub(super) fn profile(&self, section: &RunSection) -> Profile {
        self.profile.or(section.profile).unwrap_or_default().profile()
    }

    /// Of Announce, Sync and Delay_Req: what is asked for by who negotiates, log2 s.
    pub(super) fn log_intervals(&self, section: &RunSection) -> [i8; 3] {
        let [announce, sync, delay_req] = self.profile(section).log_intervals;
        [
            self.log_announce_interval.or(section.log_announce_interval).unwrap_or(announce),
            self.log_sync_interval.or(section.log_sync_interval).unwrap_or(sync),
            self.log_min_delay_req_interval
                .or(section.log_min_delay_req_interval)
                .unwrap_or(delay_req),
        ]
    }

    /// These, or else those of the configuration, on `interfaces`.
    pub(super) fn or(
        &self,
        section: &RunSection,
        interfaces: &[String],
        is_negotiating: bool,
    ) -> Result<Roles, UsageError> {
        let given = if self.port.is_empty() {
            section.port.as_deref().unwrap_or_default()
        } else {
            &self.port
        };
        let mut ports = BTreeMap::new();
        for PortOption { interface, settings } in given {
            if !interfaces.contains(interface) {
                return Err(UsageError::NoSuchPort(interface.clone()));
            }
            if ports.insert(interface.clone(), *settings).is_some() {
                return Err(UsageError::TwiceTheSame(interface.clone()));
            }
        }
        let is_auto = self.is_auto(section);
        let profile = self.profile(section);
        let [announce, sync, delay_req] = profile.log_intervals;
        let local_priority =
            profile.local_priority.map(|usual| section.local_priority.unwrap_or(usual));
        if local_priority.is_none() && section.local_priority.is_some() {
            let what = "local-priority is of profile g8275.1".to_owned();
            return Err(UsageError::AgainstProfile(profile.name, what));
        }
        let of_serving = [
            ("--log-sync-interval", self.log_sync_interval.is_some()),
            ("--log-announce-interval", self.log_announce_interval.is_some()),
            ("--log-min-delay-req-interval", self.log_min_delay_req_interval.is_some()),
            ("--priority1", self.priority1.is_some()),
            ("--priority2", self.priority2.is_some()),
            ("--clock-class", self.clock_class.is_some()),
            ("--time-zone", !self.time_zone.is_empty()),
        ];
        // Who negotiates asks for the intervals.
        let of_serving = of_serving.into_iter().skip(if is_negotiating { 3 } else { 0 });
        let mut of_serving = of_serving.filter(|(_, given)| *given);
        if !is_auto && let Some((option, _)) = of_serving.next() {
            return Err(UsageError::OnlyAuto(option));
        }
        if !is_auto && ports.values().any(|port| port.part == PortPart::Transmitter) {
            return Err(UsageError::OnlyAuto("a transmitter port"));
        }
        let default = TransmitterConfig::new(ClockIdentity::default());
        let mut transmitter = TransmitterConfig {
            log_sync_interval: self.log_sync_interval.or(section.log_sync_interval).unwrap_or(sync),
            log_announce_interval: self
                .log_announce_interval
                .or(section.log_announce_interval)
                .unwrap_or(announce),
            log_min_delay_req_interval: self
                .log_min_delay_req_interval
                .or(section.log_min_delay_req_interval)
                .unwrap_or(delay_req),
            priority1: self
                .priority1
                .or(section.priority1)
                .unwrap_or(profile.priority1(interfaces.len())),
            priority2: self.priority2.or(section.priority2).unwrap_or(default.priority2),
            tells_brackets: section.stamp_brackets.unwrap_or(true),
            ..default
        };
        transmitter.clock_quality.offset_scaled_log_variance = profile.variance;
        if let Some(class) = self.clock_class.or(section.clock_class) {
            transmitter.clock_quality.clock_class = class;
        }
        let contention = is_auto.then(|| Contention {
            max_steps_removed: section.max_steps_removed.unwrap_or(255),
            path_trace: match section.path_trace {
                Some(false) => PathTrace::Off,
                _ => PathTrace::On,
            },
            before_lock: section.silent_until_locked.map(Into::into).unwrap_or_default(),
            holdover: profile.holdover,
            relay: section.relay.unwrap_or(RelayTime::Clock),
            local_priority,
            ..Contention::new(transmitter)
        });
        // What the file says of serving is for whoever serves.
        let of_file = section.time_zone.as_deref().filter(|_| is_auto);
        Ok(Roles {
            time_zones: time_zones(&self.time_zone, of_file)?,
            contention,
            ports,
            sync_receipt_timeout: section
                .sync_receipt_timeout
                .unwrap_or(profile.sync_receipt_timeout),
            local_priority,
            as_capable: profile.as_capable(section.neighbor_prop_delay_threshold),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_port_is_told_apart_in_words() {
        let port: PortOption = "eth1=l2,p2p,transmitter".parse().unwrap();
        assert_eq!(port.interface, "eth1");
        assert_eq!(port.settings.transport, Some(TransportKind::L2));
        assert_eq!(port.settings.part, PortPart::Transmitter);
        assert!("eth1".parse::<PortOption>().is_err());
        assert!("=l2".parse::<PortOption>().is_err());
        assert!("eth1=l3".parse::<PortOption>().unwrap_err().contains("l3"));
    }

    #[test]
    fn what_only_a_server_needs_is_refused_of_a_receiver() {
        let args = RoleArgs { priority1: Some(1), ..RoleArgs::default() };
        let section = RunSection::default();
        let interfaces = ["eth0".to_owned()];
        assert!(matches!(
            args.or(&section, &interfaces, false),
            Err(UsageError::OnlyAuto("--priority1"))
        ));
        let args = RoleArgs { role: Some(RunRole::Auto), ..args };
        let roles = args.or(&section, &interfaces, false).unwrap();
        assert_eq!(roles.contention.unwrap().transmitter.priority1, 1);
        let port = vec!["eth7=l2".parse().unwrap()];
        let args = RoleArgs { port, ..RoleArgs::default() };
        assert!(matches!(args.or(&section, &interfaces, false), Err(UsageError::NoSuchPort(_))));
    }
}
