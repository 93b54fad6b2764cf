//! PTP profiles as values: what `--profile` puts in the place of the defaults, and which of the other options
//! contradict it.

use clap::ValueEnum;
use serde::Deserialize;

use super::merge::UsageError;
use crate::{
    engine::{DelayMechanism, contention::Holdover},
    transport::TransportKind,
};
use ptp_common::time::Duration;

/// `--profile`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum, Deserialize)]
pub(super) enum ProfileName {
    /// IEEE 1588 annex I.
    #[default]
    #[value(name = "default")]
    #[serde(rename = "default")]
    Default,
    /// ITU-T G.8275.1: telecom, full timing support, over Ethernet.
    #[value(name = "g8275.1")]
    #[serde(rename = "g8275.1")]
    G8275_1,
    /// ITU-T G.8275.2: telecom, partial timing support, by unicast.
    #[value(name = "g8275.2")]
    #[serde(rename = "g8275.2")]
    G8275_2,
    /// ITU-T G.8265.1: telecom, frequency, by unicast.
    #[value(name = "g8265.1")]
    #[serde(rename = "g8265.1")]
    G8265_1,
}

/// What a profile says.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Profile {
    pub(super) name: &'static str,
    pub(super) transport: TransportKind,
    pub(super) domain: u8,
    /// Domains that the profile allows.
    domains: (u8, u8),
    pub(super) delay_mechanism: DelayMechanism,
    /// Of Announce, Sync and Delay_Req, log2 s.
    pub(super) log_intervals: [i8; 3],
    /// Of ports and of the clock, where it compares by the alternate algorithm.
    pub(super) local_priority: Option<u8>,
    pub(super) holdover: Option<Holdover>,
    /// Whether servers are asked by unicast negotiation.
    pub(super) is_unicast: bool,
}

impl ProfileName {
    pub(super) const fn profile(self) -> Profile {
        match self {
            Self::Default => Profile {
                name: "default",
                transport: TransportKind::Udp4,
                domain: 0,
                domains: (0, 255),
                delay_mechanism: DelayMechanism::E2e,
                log_intervals: [1, 0, 0],
                local_priority: None,
                holdover: None,
                is_unicast: false,
            },
            Self::G8275_1 => Profile {
                name: "g8275.1",
                transport: TransportKind::L2,
                domain: 24,
                domains: (24, 43),
                delay_mechanism: DelayMechanism::E2e,
                log_intervals: [-3, -4, -4],
                local_priority: Some(128),
                // A T-BC: 135 while within its specification, for as long as a free oscillator may be, then 165.
                holdover: Some(Holdover {
                    within: 135,
                    span: Duration::from_secs(300),
                    beyond: 165,
                }),
                is_unicast: false,
            },
            Self::G8275_2 => Profile {
                name: "g8275.2",
                transport: TransportKind::Udp4,
                domain: 44,
                domains: (44, 63),
                delay_mechanism: DelayMechanism::E2e,
                log_intervals: [0, -4, -4],
                local_priority: Some(128),
                holdover: Some(Holdover {
                    within: 135,
                    span: Duration::from_secs(300),
                    beyond: 165,
                }),
                is_unicast: true,
            },
            Self::G8265_1 => Profile {
                name: "g8265.1",
                transport: TransportKind::Udp4,
                domain: 4,
                domains: (4, 23),
                delay_mechanism: DelayMechanism::E2e,
                log_intervals: [1, -4, -4],
                local_priority: Some(128),
                holdover: None,
                is_unicast: true,
            },
        }
    }
}

impl Profile {
    /// Whether what is given beside it goes with it.
    pub(super) fn check(
        &self,
        transport: TransportKind,
        domain: u8,
        delay: DelayMechanism,
    ) -> Result<(), UsageError> {
        let against = |what: String| Err(UsageError::AgainstProfile(self.name, what));
        if self.local_priority.is_none() {
            return Ok(());
        }
        // Telecom profiles by unicast are carried by either IP.
        let is_ip = self.is_unicast && transport != TransportKind::L2;
        if transport != self.transport && !is_ip {
            return against(format!("it is carried by {}, not {transport}", self.transport));
        }
        if delay != self.delay_mechanism {
            return against("it measures the path end to end, with --delay e2e".to_owned());
        }
        let (first, last) = self.domains;
        if !(first..=last).contains(&domain) {
            return against(format!("its domains are {first} to {last}, not {domain}"));
        }
        Ok(())
    }

    /// What it means, as the keys that would say the same.
    pub(super) fn shown(&self) -> String {
        let [announce, sync, delay_req] = self.log_intervals;
        let mut text = format!(
            "# Profile {}\ntransport = \"{}\"\ndomain = {}\n\n[run]\ndelay = \"e2e\"\n\
             log-announce-interval = {announce}\nlog-sync-interval = {sync}\n\
             log-min-delay-req-interval = {delay_req}\n",
            self.name, self.transport, self.domain
        );
        if let Some(priority) = self.local_priority {
            text += &format!("# alternate data set comparison, localPriority {priority}\n");
        }
        if self.is_unicast {
            text += "# unicast negotiation: name servers, as in unicast = [\"192.0.2.1\"]\n";
        }
        if let Some(Holdover { within, span, beyond }) = self.holdover {
            let seconds = span.as_secs_f64();
            text += &format!(
                "# clockClass in holdover: {within} for {seconds} s, then {beyond} and uncertain\n"
            );
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_contradicts_a_profile_is_refused_with_the_reason() {
        let telecom = ProfileName::G8275_1.profile();
        assert!(telecom.check(TransportKind::L2, 24, DelayMechanism::E2e).is_ok());
        for (transport, domain, delay, word) in [
            (TransportKind::Udp4, 24, DelayMechanism::E2e, "udp4"),
            (TransportKind::L2, 0, DelayMechanism::E2e, "24 to 43"),
            (TransportKind::L2, 24, DelayMechanism::P2p, "end to end"),
        ] {
            let refusal = telecom.check(transport, domain, delay).unwrap_err().to_string();
            assert!(refusal.contains(word), "{refusal}");
        }
        let default = ProfileName::Default.profile();
        assert!(default.check(TransportKind::L2, 7, DelayMechanism::P2p).is_ok());
    }
}
