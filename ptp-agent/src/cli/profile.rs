//! PTP profiles as values: what `--profile` puts in the place of the defaults, and which of the other options
//! contradict it.

use clap::ValueEnum;
use serde::Deserialize;

use super::merge::UsageError;
use crate::{
    engine::{
        DelayMechanism,
        config::{AsCapable, Rules},
        contention::Holdover,
    },
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
    /// IEEE 802.1AS: gPTP, of audio, video and vehicles, over Ethernet.
    #[value(name = "gptp")]
    #[serde(rename = "gptp")]
    Gptp,
    /// IEEE 802.1AS as vehicles have it: roles are fixed, and nobody announces himself.
    #[value(name = "automotive")]
    #[serde(rename = "automotive")]
    Automotive,
    /// AES67: audio over IP.
    #[value(name = "aes67")]
    #[serde(rename = "aes67")]
    Aes67,
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
    /// `sdoId`.
    pub(super) sdo_id: u16,
    /// Whose rules its ports keep.
    pub(super) rules: Rules,
    /// Whether it allows no other transport and no other delay mechanism.
    is_strict: bool,
    /// `priority1` of a clock with one port, and with several.
    priorities: [u8; 2],
    /// `offsetScaledLogVariance`.
    pub(super) variance: u16,
    /// `syncReceiptTimeout`, Sync intervals.
    pub(super) sync_receipt_timeout: u8,
    /// Whether links have to be `asCapable`.
    as_capable: Option<AsCapable>,
    /// Whether servers are asked by unicast negotiation.
    pub(super) is_unicast: bool,
    /// DSCP of all messages.
    pub(super) dscp: u8,
    /// Least and largest intervals of Announce, Sync and Delay_Req, where it has limits, log2 s.
    limits: Option<[(i8, i8); 3]>,
}

/// What IEEE 1588 says, and profiles that do not say otherwise.
const ANNEX_I: Profile = Profile {
    name: "default",
    transport: TransportKind::Udp4,
    domain: 0,
    domains: (0, 255),
    delay_mechanism: DelayMechanism::E2e,
    log_intervals: [1, 0, 0],
    local_priority: None,
    holdover: None,
    sdo_id: 0,
    rules: Rules::Ieee1588,
    is_strict: false,
    priorities: [128, 128],
    variance: 0xffff,
    sync_receipt_timeout: 0,
    as_capable: None,
    is_unicast: false,
    dscp: 0,
    limits: None,
};

/// `allowedLostResponses` of IEEE 802.1AS-2020.
const ALLOWED_LOST_RESPONSES: u8 = 9;

impl ProfileName {
    pub(super) const fn profile(self) -> Profile {
        match self {
            Self::Default => ANNEX_I,
            Self::G8275_1 => Profile {
                name: "g8275.1",
                transport: TransportKind::L2,
                domain: 24,
                domains: (24, 43),
                is_strict: true,
                log_intervals: [-3, -4, -4],
                local_priority: Some(128),
                // A T-BC: 135 while within its specification, for as long as a free oscillator may be, then 165.
                holdover: Some(Holdover {
                    within: 135,
                    span: Duration::from_secs(300),
                    beyond: 165,
                }),
                ..ANNEX_I
            },
            Self::Gptp => Profile {
                name: "gptp",
                transport: TransportKind::L2,
                domains: (0, 127),
                is_strict: true,
                delay_mechanism: DelayMechanism::P2p,
                log_intervals: [0, -3, 0],
                sdo_id: 0x100,
                rules: Rules::Ieee8021As,
                // An end station, and what passes the time on.
                priorities: [248, 246],
                variance: 0x436a,
                sync_receipt_timeout: 3,
                // 800 ns are for stamps of the hardware. The shortest way through two stacks is a few microseconds, with
                // interrupts that a card holds back some tens; another network between is hundreds.
                as_capable: Some(AsCapable {
                    neighbor_prop_delay_threshold: Duration::from_micros(100),
                    allowed_lost_responses: ALLOWED_LOST_RESPONSES,
                }),
                ..ANNEX_I
            },
            Self::Automotive => Profile {
                name: "automotive",
                rules: Rules::Automotive,
                // A link there is good: nothing waits until it has been measured.
                as_capable: None,
                ..Self::Gptp.profile()
            },
            // The media profile of its annex A; messages of clocks are expedited (6.2).
            Self::Aes67 => Profile {
                name: "aes67",
                domains: (0, 127),
                log_intervals: [1, -3, 0],
                dscp: 46,
                limits: Some([(0, 4), (-4, 1), (-3, 5)]),
                ..ANNEX_I
            },
            Self::G8275_2 => Profile {
                name: "g8275.2",
                domain: 44,
                domains: (44, 63),
                log_intervals: [0, -4, -4],
                local_priority: Some(128),
                holdover: Some(Holdover {
                    within: 135,
                    span: Duration::from_secs(300),
                    beyond: 165,
                }),
                is_unicast: true,
                is_strict: true,
                ..ANNEX_I
            },
            Self::G8265_1 => Profile {
                name: "g8265.1",
                domain: 4,
                domains: (4, 23),
                log_intervals: [1, -4, -4],
                local_priority: Some(128),
                is_unicast: true,
                is_strict: true,
                ..ANNEX_I
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
        if !self.is_strict {
            return Ok(());
        }
        // Telecom profiles by unicast are carried by either IP.
        let is_ip = self.is_unicast && transport != TransportKind::L2;
        if transport != self.transport && !is_ip {
            return against(format!("it is carried by {}, not {transport}", self.transport));
        }
        if delay != self.delay_mechanism {
            let (way, option) = match self.delay_mechanism {
                DelayMechanism::P2p => ("link peer to peer", "p2p"),
                DelayMechanism::E2e | DelayMechanism::Auto => ("path end to end", "e2e"),
            };
            return against(format!("it measures the {way}, with --delay {option}"));
        }
        let (first, last) = self.domains;
        if !(first..=last).contains(&domain) {
            return against(format!("its domains are {first} to {last}, not {domain}"));
        }
        Ok(())
    }

    /// Whether intervals of Announce, Sync and Delay_Req, log2 s, are within its limits.
    pub(super) fn check_intervals(&self, logs: [i8; 3]) -> Result<(), UsageError> {
        let names = ["Announce", "Sync", "Delay_Req"];
        for ((name, log), (least, largest)) in
            names.into_iter().zip(logs).zip(self.limits.into_iter().flatten())
        {
            if !(least..=largest).contains(&log) {
                let what =
                    format!("its intervals of {name} are 2^{least} to 2^{largest} s, not 2^{log}");
                return Err(UsageError::AgainstProfile(self.name, what));
            }
        }
        Ok(())
    }

    /// What it means, as the keys that would say the same.
    pub(super) fn shown(&self) -> String {
        let [announce, sync, delay_req] = self.log_intervals;
        let delay = if self.delay_mechanism == DelayMechanism::P2p { "p2p" } else { "e2e" };
        let mut text = format!(
            "# Profile {}\ntransport = \"{}\"\ndomain = {}\n\n[run]\ndelay = \"{delay}\"\n\
             log-announce-interval = {announce}\nlog-sync-interval = {sync}\n\
             log-min-delay-req-interval = {delay_req}\n",
            self.name, self.transport, self.domain
        );
        if self.dscp > 0 {
            text = text.replacen(
                "\n\n[run]",
                &format!("\ndscp-event = {0}\ndscp-general = {0}\n\n[run]", self.dscp),
                1,
            );
        }
        if let Some([announce, sync, delay_req]) = self.limits {
            text +=
                &format!("# limits of these intervals: {announce:?}, {sync:?}, {delay_req:?}\n");
        }
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
        if self.sync_receipt_timeout > 0 {
            text += &format!("sync-receipt-timeout = {}\n", self.sync_receipt_timeout);
        }
        if let Some(asked) = self.as_capable {
            let nanos = asked.neighbor_prop_delay_threshold.as_nanos();
            text += &format!("neighbor-prop-delay-threshold = {nanos}\n");
        }
        if self.rules.are_static() {
            text += &format!(
                "oper-log-sync-interval = 0\noper-log-pdelay-req-interval = 0\n\
                 # sdoId 0x{:03x}, all messages to the group that bridges do not forward\n\
                 # nobody announces himself: who sends Sync is followed; of several ports all but one are named transmitters\n\
                 # a link is asCapable from the start; once locked, the neighbour is asked for these intervals\n",
                self.sdo_id
            );
        } else if self.rules.are_gptp() {
            let ([one, several], lost) = (self.priorities, ALLOWED_LOST_RESPONSES);
            text += &format!(
                "# sdoId 0x{:03x}, all messages to the group that bridges do not forward, an Announce counts at once\n\
                 # priority1 {one}, with several ports {several}; offsetScaledLogVariance 0x{:04x}\n\
                 # asCapable is lost after {lost} unanswered requests\n\
                 # with several ports a relay: the grandmaster's origin timestamp and its rate are passed on\n",
                self.sdo_id, self.variance
            );
        }
        text
    }

    /// `priority1` of a clock with so many ports.
    pub(super) const fn priority1(&self, ports: usize) -> u8 {
        self.priorities[if ports > 1 { 1 } else { 0 }]
    }

    /// What links have to be, with a threshold in nanoseconds that is given beside it.
    pub(super) fn as_capable(&self, threshold_ns: Option<u32>) -> Option<AsCapable> {
        let given = threshold_ns.map(|nanos| AsCapable {
            neighbor_prop_delay_threshold: Duration::from_nanos(nanos.into()),
            allowed_lost_responses: ALLOWED_LOST_RESPONSES,
        });
        given.or(self.as_capable)
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
        let gptp = ProfileName::Gptp.profile();
        assert!(gptp.check(TransportKind::L2, 0, DelayMechanism::P2p).is_ok());
        let refusal = gptp.check(TransportKind::L2, 0, DelayMechanism::E2e).unwrap_err();
        assert!(refusal.to_string().contains("peer to peer"), "{refusal}");
        let audio = ProfileName::Aes67.profile();
        assert!(audio.check_intervals([0, -4, 5]).is_ok());
        let refusal = audio.check_intervals([1, -5, 0]).unwrap_err().to_string();
        assert!(refusal.contains("Sync"), "{refusal}");
        let default = ProfileName::Default.profile();
        assert!(default.check_intervals([-10, -10, 10]).is_ok());
        assert!(default.check(TransportKind::L2, 7, DelayMechanism::P2p).is_ok());
    }
}
