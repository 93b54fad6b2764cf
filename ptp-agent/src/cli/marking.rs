//! How packets are marked, and under which identity a clock goes: the options, and what the file says of them.

use std::str::FromStr;

use clap::Args;
use ptp_common::wire::ClockIdentity;
use serde::Deserialize;

use super::config::Config;
use crate::{engine::receiver::Acceptable, transport::Marking};

/// The options. Their places in the configuration are before the first table.
#[derive(Clone, Debug, Default, Args)]
pub(super) struct MarkingArgs {
    /// DSCP of event messages over IP, 0 (default) to 63; networks of audio and video want 46.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u8).range(..64))]
    dscp_event: Option<u8>,
    /// DSCP of general messages over IP, 0 (default) to 63. Other than 0, `serve` answers requests itself and not in the
    /// kernel.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u8).range(..64))]
    dscp_general: Option<u8>,
    /// TTL, over IPv6 hop limit, of messages to groups (default 1: they stay in their network). Other than 1, `serve`
    /// answers requests itself.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u8).range(1..))]
    udp_ttl: Option<u8>,
    /// Scope of the group that messages over IPv6 go to: 2 (link) to 14 (global, default). Requests and answers go
    /// where the other side speaks.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u8).range(2..15))]
    udp6_scope: Option<u8>,
    /// clockIdentity, as in 001b19.fffe.000001 (default: made of the first interface's MAC address). No two clocks of
    /// a network may have the same.
    #[arg(long, value_name = "IDENTITY")]
    clock_identity: Option<IdentityOption>,
}

/// `--clock-identity`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct IdentityOption(pub(super) ClockIdentity);

impl FromStr for IdentityOption {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, &'static str> {
        let expected = "expected sixteen hexadecimal digits, as in 001b19.fffe.000001";
        match text.parse() {
            Ok(Acceptable { clock_identity, port_number: None }) => {
                let is_somebody = ![[0; 8], [0xff; 8]].contains(&clock_identity.0);
                is_somebody
                    .then_some(Self(clock_identity))
                    .ok_or("all zeros and all ones stand for nobody and for everybody")
            }
            _ => Err(expected),
        }
    }
}

impl<'de> Deserialize<'de> for IdentityOption {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

impl MarkingArgs {
    /// These, or else those of the configuration, or else `usual` DSCP.
    pub(super) fn marking(&self, config: &Config, usual_dscp: u8) -> Marking {
        let default = Marking::default();
        Marking {
            dscp_event: self.dscp_event.or(config.dscp_event).unwrap_or(usual_dscp),
            dscp_general: self.dscp_general.or(config.dscp_general).unwrap_or(usual_dscp),
            ttl: self.udp_ttl.or(config.udp_ttl).unwrap_or(default.ttl),
            udp6_scope: self.udp6_scope.or(config.udp6_scope).unwrap_or(default.udp6_scope),
        }
    }

    /// `clockIdentity`, where one is given.
    pub(super) fn identity(&self, config: &Config) -> Option<ClockIdentity> {
        self.clock_identity.or(config.clock_identity).map(|IdentityOption(identity)| identity)
    }
}

/// What is wrong with the file's values, which no parser has seen: the key, and in words.
pub(super) fn check(config: &Config) -> Result<(), (&'static str, String)> {
    for (key, value, from, to) in [
        ("dscp-event", config.dscp_event, 0, 63),
        ("dscp-general", config.dscp_general, 0, 63),
        ("udp-ttl", config.udp_ttl, 1, 255),
        ("udp6-scope", config.udp6_scope, 2, 14),
    ] {
        if let Some(value) = value.filter(|value| !(from..=to).contains(value)) {
            return Err((key, format!("{value} is not from {from} to {to}")));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_identity_is_a_clock_s_and_nobody_else_s() {
        let identity: IdentityOption = "001b19.fffe.000001".parse().unwrap();
        assert_eq!(identity.0, ClockIdentity([0, 0x1b, 0x19, 0xff, 0xfe, 0, 0, 1]));
        for text in ["001b19.fffe.000001-1", "000000.0000.000000", "ffffffffffffffff", "x", ""] {
            assert!(text.parse::<IdentityOption>().is_err(), "{text}");
        }
    }

    #[test]
    fn marks_out_of_range_are_refused_with_their_key() {
        let checked = |text: &str| {
            let config: Config = toml::from_str(text).unwrap();
            check(&config).map_err(|(key, _)| key)
        };
        assert_eq!(checked("dscp-event = 64\n"), Err("dscp-event"));
        assert_eq!(checked("udp6-scope = 15\n"), Err("udp6-scope"));
        assert_eq!(checked("udp-ttl = 0\n"), Err("udp-ttl"));
        assert_eq!(checked("udp-ttl = 255\ndscp-general = 63\n"), Ok(()));
    }
}
