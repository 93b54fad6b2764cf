//! How an instance and its ports are to behave: the default profile of annex I unless something else is
//! said.

pub mod contention;
mod link;
mod pulse;
pub mod servers;

pub use link::{AsCapable, LinkDelayService, LockedIntervals, Rules};
pub use pulse::{PulseConfig, PulsePart};

use crate::prelude::*;
use crate::{
    DelayMechanism,
    servers::NtpConfig,
    sources, strategy,
    unicast::{client::ClientConfig, service::ServiceConfig},
};
use contention::Contention;
use core::{fmt, str::FromStr};
use ptp_common::{
    data_set::TimeProperties,
    time::Duration,
    wire::{ClockAccuracy, ClockIdentity, ClockQuality, PortIdentity},
};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use servers::{Answers, ServerConfig};

/// How one port behaves.
#[derive(Clone, Debug)]
pub struct PortConfig {
    /// `delayMechanism`.
    pub delay_mechanism: DelayMechanism,
    /// `announceReceiptTimeout`, announce intervals (7.7.3.1).
    pub announce_receipt_timeout: u8,
    /// Announce interval assumed for a time transmitter that says none, log2 s.
    pub log_announce_interval: i8,
    /// Mean interval of Delay_Req until the time transmitter says another, log2 s.
    pub log_min_delay_req_interval: i8,
    /// Interval of Pdelay_Req, log2 s.
    pub log_min_pdelay_req_interval: i8,
    /// `delayAsymmetry` (7.4.2): positive where the path from the time transmitter is the slower.
    pub delay_asymmetry: Duration,
    /// Whether a Sync is taken for the first of two steps whatever its `twoStepFlag` says, as with
    /// linuxptp's `assume_two_step`: for transmitters that send a Follow_Up and forget the flag.
    pub assume_two_step: bool,
    /// Whether the link is up at the start.
    pub link_up: bool,
    /// Which roles the port may take, of a clock that takes either.
    pub part: PortPart,
    /// `syncReceiptTimeout`, Sync intervals: a parent that announces itself and sends no Sync for so long is left
    /// until it sends one. 0: never. Only of a clock that takes either role.
    pub sync_receipt_timeout: u8,
    /// `localPriority` of the alternate algorithm (ITU-T G.8275.1); `None`: the standard's algorithm. All ports
    /// have one, or none has.
    pub local_priority: Option<u8>,
    /// Where so, Announce and Sync are sent and heard only while the port is `asCapable`.
    pub as_capable: Option<AsCapable>,
    /// Whose rules it keeps.
    pub rules: Rules,
    /// In whose name its link is measured.
    pub link_delay: LinkDelayService,
    /// What it asks its neighbour for while the clock is locked, with the rules of IEEE 802.1AS.
    pub when_locked: Option<LockedIntervals>,
    /// Whom it asks for time by unicast negotiation (16.1): nobody else is heard there.
    pub unicast: Option<ClientConfig>,
    /// Whether Delay_Req goes to the time transmitter's address alone (16.9).
    pub hybrid: bool,
}

/// Which roles a port may take.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum PortPart {
    /// Whichever the algorithm says.
    #[default]
    Either,
    /// It never follows (`masterOnly`, 8.2.15.5.2): who announces itself there is not heard.
    Transmitter,
    /// It never serves.
    Receiver,
}

impl Default for PortConfig {
    /// The default profile of annex I, link up.
    fn default() -> Self {
        Self {
            delay_mechanism: DelayMechanism::E2e,
            announce_receipt_timeout: 3,
            log_announce_interval: 1,
            log_min_delay_req_interval: 0,
            log_min_pdelay_req_interval: 0,
            delay_asymmetry: Duration::ZERO,
            assume_two_step: false,
            link_up: true,
            part: PortPart::Either,
            sync_receipt_timeout: 0,
            local_priority: None,
            as_capable: None,
            rules: Rules::Ieee1588,
            link_delay: LinkDelayService::Instance,
            when_locked: None,
            unicast: None,
            hybrid: false,
        }
    }
}

/// `syncReceiptTimeout` where the configuration says none, and there has to be one.
const SYNC_RECEIPT_TIMEOUT: u8 = 3;

impl PortConfig {
    /// After so long without a Sync of somebody who sends one in 2^`log_interval` s, none comes any more.
    pub(crate) fn sync_patience(&self, log_interval: i8) -> Duration {
        let intervals = match self.sync_receipt_timeout {
            0 => SYNC_RECEIPT_TIMEOUT,
            some => some,
        };
        Duration::from_log_interval(log_interval) * i32::from(intervals)
    }
}

/// How the clock behaves.
#[derive(Clone, Debug)]
pub struct ReceiverConfig {
    /// `clockIdentity` of this clock.
    pub clock_identity: ClockIdentity,
    /// `domainNumber`.
    pub domain_number: u8,
    /// `sdoId`, 12 bits.
    pub sdo_id: u16,
    /// `minorVersionPTP` of what is sent; 0 and 1 are both understood.
    pub minor_version: u8,
    /// The ports, in the order of their [`PortIndex`].
    pub ports: Vec<PortConfig>,
    /// Who may be followed (`acceptableMasterTable`, 17.5); nobody in it: everybody may.
    pub acceptable: Vec<Acceptable>,
    /// Grandmasters of a higher `clockClass` are not followed; 255: any is.
    pub max_clock_class: u8,
    /// How requests are sent and which Sync messages are learnt from. Where a port measures its link by
    /// the peer-to-peer mechanism it is [`strategy::Choice::Plain`] whatever this says.
    pub strategy: strategy::Choice,
    /// Domains whose time transmitters are asked as well, to hold the one that is followed against them.
    pub witness_domains: Vec<u8>,
    /// What is done where sources of time contradict each other.
    pub on_disagreement: sources::Policy,
    /// Servers of NTP that are asked as well, or instead.
    pub ntp: Option<NtpConfig>,
    /// A pulse per second that is watched as well, or followed.
    pub pulse: Option<PulseConfig>,
    /// Seed for the randomised intervals; the same seed and inputs give the same actions.
    pub seed: u64,
    /// Where the clock may serve as well: how. `None`: it is a client only.
    pub contention: Option<Contention>,
    /// These servers are asked, and nobody else is followed; none: whoever announces itself.
    pub servers: Vec<ServerConfig>,
}

impl ReceiverConfig {
    /// One port with the default profile in domain 0, and nothing made of messages but what they say.
    pub fn new(clock_identity: ClockIdentity, seed: u64) -> Self {
        Self {
            clock_identity,
            domain_number: 0,
            sdo_id: 0,
            minor_version: 1,
            ports: vec![PortConfig::default()],
            acceptable: Vec::new(),
            max_clock_class: u8::MAX,
            strategy: strategy::Choice::Plain,
            witness_domains: Vec::new(),
            on_disagreement: sources::Policy::Alarm,
            ntp: None,
            pulse: None,
            seed,
            contention: None,
            servers: Vec::new(),
        }
    }
}

/// How the grandmaster behaves.
#[derive(Clone, Debug)]
pub struct TransmitterConfig {
    /// `clockIdentity`.
    pub clock_identity: ClockIdentity,
    /// `domainNumber`.
    pub domain_number: u8,
    /// `sdoId`, 12 bits.
    pub sdo_id: u16,
    /// `minorVersionPTP`.
    pub minor_version: u8,
    /// How many ports.
    pub ports: u16,
    /// `priority1`.
    pub priority1: u8,
    /// `priority2`.
    pub priority2: u8,
    /// `clockQuality`.
    pub clock_quality: ClockQuality,
    /// `logAnnounceInterval`.
    pub log_announce_interval: i8,
    /// `logSyncInterval`.
    pub log_sync_interval: i8,
    /// `logMinDelayReqInterval`, which clients adopt.
    pub log_min_delay_req_interval: i8,
    /// `timePropertiesDS`, which Announce tells.
    pub time_properties: TimeProperties,
    /// Delay_Req and Pdelay_Req answered per second, shared by client; more are counted and dropped.
    pub max_requests_per_second: u32,
    /// Follow_Up and Delay_Resp tell the brackets of their timestamps in a TLV.
    pub tells_brackets: bool,
    /// What is granted to those who ask for unicast messages (16.1); `None`: nothing.
    pub unicast: Option<ServiceConfig>,
    /// Whether Announce and Sync go to all as well.
    pub multicast: bool,
    /// Makes it unforeseeable which clients share a place in the tables.
    pub seed: u64,
    /// Exchanges that are answered beside.
    pub answers: Answers,
}

impl TransmitterConfig {
    /// The default profile of annex I for a clock without reference (class 248), arbitrary time
    /// scale, one port.
    pub fn new(clock_identity: ClockIdentity) -> Self {
        Self {
            clock_identity,
            domain_number: 0,
            sdo_id: 0,
            minor_version: 1,
            ports: 1,
            priority1: 128,
            priority2: 128,
            clock_quality: ClockQuality {
                clock_class: 248,
                clock_accuracy: ClockAccuracy::UNKNOWN,
                offset_scaled_log_variance: 0xffff,
            },
            log_announce_interval: 1,
            log_sync_interval: 0,
            log_min_delay_req_interval: 0,
            time_properties: TimeProperties::UNKNOWN,
            max_requests_per_second: 10_000,
            tells_brackets: false,
            unicast: None,
            multicast: true,
            seed: 0,
            answers: Answers::default(),
        }
    }
}

/// One that may be followed: a clock, or one port of it. A clock counts as the sender of an Announce and as
/// the grandmaster that it names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Acceptable {
    /// The clock.
    pub clock_identity: ClockIdentity,
    /// The number of the port; `None` for all of them.
    pub port_number: Option<u16>,
}

impl Acceptable {
    /// Whether an Announce of `source` about `grandmaster` is from one that may be followed.
    pub fn accepts(&self, source: PortIdentity, grandmaster: ClockIdentity) -> bool {
        match self.port_number {
            Some(port_number) => {
                source == PortIdentity { clock_identity: self.clock_identity, port_number }
            }
            None => [source.clock_identity, grandmaster].contains(&self.clock_identity),
        }
    }
}

/// Why a text is no [`Acceptable`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("expected a clock identity as in 001122.fffe.334455, or a port as in 001122.fffe.334455-1")]
pub struct NotAnIdentity;

impl FromStr for Acceptable {
    type Err = NotAnIdentity;

    /// Sixteen hexadecimal digits, with dots, colons or nothing between them, and the port's number behind
    /// a hyphen.
    fn from_str(text: &str) -> Result<Self, NotAnIdentity> {
        let (clock, port) = match text.split_once('-') {
            Some((clock, port)) => (clock, Some(port.parse().map_err(|_| NotAnIdentity)?)),
            None => (text, None),
        };
        let digits: String = clock.chars().filter(|each| !matches!(each, '.' | ':')).collect();
        let is_identity = digits.len() == 16 && digits.chars().all(|each| each.is_ascii_hexdigit());
        let number = Some(digits).filter(|_| is_identity).ok_or(NotAnIdentity)?;
        let number = u64::from_str_radix(&number, 16).map_err(|_| NotAnIdentity)?;
        Ok(Self { clock_identity: ClockIdentity(number.to_be_bytes()), port_number: port })
    }
}

impl fmt::Display for Acceptable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.port_number {
            Some(port) => write!(f, "{}-{port}", self.clock_identity),
            None => write!(f, "{}", self.clock_identity),
        }
    }
}

impl Serialize for Acceptable {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Acceptable {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn identities_are_read_as_they_are_written_everywhere() {
        let clock_identity = ClockIdentity([0, 0x1b, 0x19, 0xff, 0xfe, 0, 0, 1]);
        for text in ["001b19.fffe.000001", "001b19fffe000001", "00:1B:19:FF:FE:00:00:01"] {
            assert_eq!(text.parse(), Ok(Acceptable { clock_identity, port_number: None }));
        }
        let port = Acceptable { clock_identity, port_number: Some(2) };
        assert_eq!("001b19.fffe.000001-2".parse(), Ok(port));
        assert_eq!(port.to_string(), "001b19.fffe.000001-2");
        for text in [
            "",
            "001b19.fffe.00000",
            "001b19.fffe.000001-",
            "001b19.fffe.00000g",
            "+01b19fffe000001",
        ] {
            assert_eq!(text.parse::<Acceptable>(), Err(NotAnIdentity), "{text}");
        }
    }
}
