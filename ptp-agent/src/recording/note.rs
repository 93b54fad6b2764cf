//! What a recording says beside the packets' bytes: one JSON object per input, in a packet's comment
//! where there is a packet and as a packet of its own where there is none. Times are whole
//! nanoseconds as numbers, or decimal strings where they have a fraction, so that nothing is ever
//! rounded.

use ptp_common::{
    time::{Duration, Mono, Ptp, Time},
    wire::ClockIdentity,
};
use serde::{Deserialize, Serialize};

use super::{
    MAX_PORTS, VERSION,
    made::{LimitsNote, OptionsNote},
    servers::NtpNote,
};
use crate::{
    engine::{
        DelayMechanism, PortIndex,
        config::{AsCapable, LinkDelayService, LockedIntervals, Rules},
        csptp::ServerConfig,
        discipline::Policy,
        receiver::{Acceptable, PortConfig, ReceiverConfig},
        strategy,
    },
    stamp::{Manner, Stamp, StampSource},
    transport::TransportKind,
};

/// One note. All but `Start`, `Sent`, `Lost` and `End` are inputs of the engine.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "ptp_agent", rename_all = "snake_case")]
#[expect(
    clippy::large_enum_variant,
    reason = "one of a recording is large, and each is written or given at once"
)]
pub enum Note {
    /// The first one: with what the engine was made.
    Start(Start),
    /// A message that was received; the packet carries it.
    Message {
        /// When the engine was given it.
        #[serde(with = "exact::time")]
        now_ns: Time<Mono>,
        /// Its stamp.
        stamp: Option<RecordedStamp>,
    },
    /// The transmit stamp of an event message; the packet, where there is one, is that message.
    TxStamp {
        /// When the engine was given it.
        #[serde(with = "exact::time")]
        now_ns: Time<Mono>,
        /// The engine's name for the message.
        token: u64,
        /// The stamp, or that there is none.
        stamp: Option<RecordedStamp>,
    },
    /// A general message that was sent, for readers of the file; no input.
    Sent {
        /// When.
        #[serde(with = "exact::time")]
        now_ns: Time<Mono>,
    },
    /// The engine's timers were due.
    Poll {
        /// When they were looked at.
        #[serde(with = "exact::time")]
        now_ns: Time<Mono>,
    },
    /// A link came up or went down.
    Link {
        /// When the engine was given it.
        #[serde(with = "exact::time")]
        now_ns: Time<Mono>,
        /// Number of the port, from 0.
        port: u16,
        /// Whether it is up.
        up: bool,
    },
    /// The host's CLOCK_REALTIME was set: it lies otherwise to CLOCK_MONOTONIC from now on.
    Reading {
        /// When this was seen.
        #[serde(with = "exact::time")]
        now_ns: Time<Mono>,
        /// CLOCK_REALTIME minus CLOCK_MONOTONIC.
        #[serde(with = "exact::span")]
        real_minus_mono_ns: Duration,
    },
    /// Here inputs are missing, because they could not be written fast enough.
    Lost {
        /// How many.
        inputs: u64,
    },
    /// The last one: the recording is whole, but for what `Lost` notes say.
    End {
        /// When the agent ended.
        #[serde(with = "exact::time")]
        now_ns: Time<Mono>,
        /// Inputs missing in all.
        lost: u64,
    },
}

impl Note {
    /// When it happened, on CLOCK_MONOTONIC; `None` for what has no time of its own.
    pub const fn now(&self) -> Option<Time<Mono>> {
        match self {
            Self::Start(start) => Some(start.now_ns),
            Self::Message { now_ns, .. }
            | Self::TxStamp { now_ns, .. }
            | Self::Sent { now_ns }
            | Self::Poll { now_ns }
            | Self::Link { now_ns, .. }
            | Self::Reading { now_ns, .. }
            | Self::End { now_ns, .. } => Some(*now_ns),
            Self::Lost { .. } => None,
        }
    }
}

/// A stamp.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RecordedStamp {
    /// The instant on CLOCK_MONOTONIC. On CLOCK_REALTIME it is the time of the packet in the file.
    #[serde(with = "exact::time")]
    pub mono_ns: Time<Mono>,
    /// The capture point.
    pub source: StampSource,
    /// [`Stamp::doubt`], where there is any.
    #[serde(default, skip_serializing_if = "is_zero", with = "exact::span")]
    pub doubt_ns: Duration,
    /// [`Stamp::handed`], where it is known.
    #[serde(default, skip_serializing_if = "is_zero", with = "exact::span")]
    pub handed_ns: Duration,
    /// [`Stamp::manner`], where it is not plain.
    #[serde(default, skip_serializing_if = "is_plain")]
    pub manner: Manner,
}

fn is_plain(manner: &Manner) -> bool {
    *manner == Manner::Plain
}

const fn plain() -> strategy::Choice {
    strategy::Choice::Plain
}

fn is_alarm(policy: &Policy) -> bool {
    *policy == Policy::Alarm
}

fn is_zero(duration: &Duration) -> bool {
    *duration == Duration::ZERO
}

impl From<Stamp> for RecordedStamp {
    fn from(
        Stamp { time, source, doubt, handed, manner, late: _, packet: _, told_within: _ }: Stamp,
    ) -> Self {
        Self { mono_ns: time, source, doubt_ns: doubt, handed_ns: handed, manner }
    }
}

impl From<RecordedStamp> for Stamp {
    fn from(RecordedStamp { mono_ns, source, doubt_ns, handed_ns, manner }: RecordedStamp) -> Self {
        Self { doubt: doubt_ns, handed: handed_ns, manner, ..Self::new(mono_ns, source) }
    }
}

/// With what the engine was made, and what else must be known to make it again.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Start {
    /// [`VERSION`].
    pub version: u32,
    /// Version of the agent that wrote the recording, for people.
    pub agent: String,
    /// When, on CLOCK_MONOTONIC.
    #[serde(with = "exact::time")]
    pub now_ns: Time<Mono>,
    /// CLOCK_REALTIME minus CLOCK_MONOTONIC at that time.
    #[serde(with = "exact::span")]
    pub real_minus_mono_ns: Duration,
    /// `clockIdentity` of the agent.
    #[serde(with = "identity")]
    pub clock_identity: ClockIdentity,
    /// `domainNumber`.
    pub domain: u8,
    /// `sdoId`.
    pub sdo_id: u16,
    /// `minorVersionPTP` of what is sent.
    pub minor_version: u8,
    /// Seed of the randomised intervals.
    pub seed: u64,
    /// What carried the messages.
    pub transport: TransportKind,
    /// The clock that followed.
    pub clock: FollowedClock,
    /// What steered it, as `--servo` takes it; `watch` where the clock is only watched.
    pub servo: String,
    /// What that was told beside.
    #[serde(default)]
    pub options: OptionsNote,
    /// What a software clock may do; anything, where there are none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limits: Option<LimitsNote>,
    /// `--strategy`; older recordings have none.
    #[serde(default = "plain")]
    pub strategy: strategy::Choice,
    /// Who may be followed, where not everybody may.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub acceptable: Vec<Acceptable>,
    /// Up to which class grandmasters may be followed, where not of any.
    #[serde(default = "any_class", skip_serializing_if = "is_any_class")]
    pub max_clock_class: u8,
    /// Domains that were asked beside.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub witness_domains: Vec<u8>,
    /// What was done where sources contradicted each other.
    #[serde(default, skip_serializing_if = "is_alarm")]
    pub on_disagreement: Policy,
    /// Servers that were asked, where they were at the start.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub servers: Vec<ServerConfig>,
    /// The ports, in the order of their numbers.
    pub ports: Vec<PortNote>,
    /// The servers of NTP that were asked, whose numbers follow.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ntp: Option<NtpNote>,
}

/// The clock that followed.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum FollowedClock {
    /// The host's CLOCK_REALTIME, only watched.
    None,
    /// A software clock.
    Virtual {
        /// What it showed at the start.
        #[serde(with = "exact::time")]
        reading_ns: Time<Ptp>,
    },
}

/// One port.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PortNote {
    /// Name of the interface; a port's packets belong to the pcapng interface of this name.
    pub interface: String,
    /// `delayMechanism`.
    pub delay_mechanism: DelayMechanism,
    /// `announceReceiptTimeout`, announce intervals.
    pub announce_receipt_timeout: u8,
    /// Announce interval assumed, log2 s.
    pub log_announce_interval: i8,
    /// Mean interval of Delay_Req at first, log2 s.
    pub log_min_delay_req_interval: i8,
    /// Interval of Pdelay_Req, log2 s.
    pub log_min_pdelay_req_interval: i8,
    /// `delayAsymmetry`.
    #[serde(with = "exact::span")]
    pub delay_asymmetry_ns: Duration,
    /// Whether every Sync was taken for the first of two steps.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub assume_two_step: bool,
    /// Whether the link was up at the start.
    pub link_up: bool,
    /// Whose rules it kept.
    #[serde(default, skip_serializing_if = "is_default")]
    pub rules: Rules,
    /// `neighborPropDelayThresh` in nanoseconds, and `allowedLostResponses`; absent where nobody asked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub as_capable: Option<(i64, u8)>,
    /// In whose name the link was measured.
    #[serde(default, skip_serializing_if = "is_default")]
    pub link_delay: LinkDelayService,
    /// Intervals of Sync and Pdelay_Req that were asked for while the clock was locked, log2 s.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub when_locked: Option<(i8, i8)>,
}

fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

impl Start {
    /// Describes an engine that is made now, with a servo and a clock that were told nothing. `interfaces`
    /// are the names of the ports' interfaces.
    pub fn new(
        now: Time<Mono>,
        real_minus_mono: Duration,
        receiver: &ReceiverConfig,
        interfaces: &[String],
        transport: TransportKind,
        clock: FollowedClock,
        servo: String,
    ) -> Self {
        let ports = receiver.ports.iter().zip(interfaces);
        Self {
            version: VERSION,
            agent: env!("CARGO_PKG_VERSION").to_owned(),
            now_ns: now,
            real_minus_mono_ns: real_minus_mono,
            clock_identity: receiver.clock_identity,
            domain: receiver.domain_number,
            sdo_id: receiver.sdo_id,
            minor_version: receiver.minor_version,
            seed: receiver.seed,
            transport,
            clock,
            servo,
            options: OptionsNote::default(),
            limits: None,
            strategy: receiver.strategy,
            acceptable: receiver.acceptable.clone(),
            max_clock_class: receiver.max_clock_class,
            witness_domains: receiver.witness_domains.clone(),
            on_disagreement: receiver.on_disagreement,
            servers: receiver.servers.clone(),
            ports: ports
                .map(|(port, interface)| PortNote {
                    interface: interface.clone(),
                    delay_mechanism: port.delay_mechanism,
                    announce_receipt_timeout: port.announce_receipt_timeout,
                    log_announce_interval: port.log_announce_interval,
                    log_min_delay_req_interval: port.log_min_delay_req_interval,
                    log_min_pdelay_req_interval: port.log_min_pdelay_req_interval,
                    delay_asymmetry_ns: port.delay_asymmetry,
                    assume_two_step: port.assume_two_step,
                    link_up: port.link_up,
                    rules: port.rules,
                    as_capable: port.as_capable.map(|asked| {
                        let nanos = asked.neighbor_prop_delay_threshold.as_nanos();
                        (nanos, asked.allowed_lost_responses)
                    }),
                    link_delay: port.link_delay,
                    when_locked: port
                        .when_locked
                        .map(|asked| (asked.log_sync_interval, asked.log_pdelay_req_interval)),
                })
                .collect(),
            ntp: receiver.ntp.as_ref().map(NtpNote::of),
        }
    }

    /// Ports of both protocols.
    pub fn all_ports(&self) -> usize {
        self.ports.len() + self.ntp.as_ref().map_or(0, |ntp| ntp.servers.len())
    }

    /// Interface of a port of either protocol.
    pub fn interface(&self, port: PortIndex) -> &str {
        let at = usize::from(port.0);
        if let Some(port) = self.ports.get(at) {
            return &port.interface;
        }
        let mut servers = self.ntp.iter().flat_map(|ntp| &ntp.servers);
        servers.nth(at - self.ports.len()).map_or("?", |server| &server.interface)
    }

    /// The engine's configuration again.
    pub fn receiver(&self) -> ReceiverConfig {
        ReceiverConfig {
            clock_identity: self.clock_identity,
            domain_number: self.domain,
            sdo_id: self.sdo_id,
            minor_version: self.minor_version,
            strategy: self.strategy,
            acceptable: self.acceptable.clone(),
            max_clock_class: self.max_clock_class,
            witness_domains: self.witness_domains.clone(),
            on_disagreement: self.on_disagreement,
            // Pulses are not recorded.
            pulse: None,
            ports: self
                .ports
                .iter()
                .map(|port| PortConfig {
                    delay_mechanism: port.delay_mechanism,
                    announce_receipt_timeout: port.announce_receipt_timeout,
                    log_announce_interval: port.log_announce_interval,
                    log_min_delay_req_interval: port.log_min_delay_req_interval,
                    log_min_pdelay_req_interval: port.log_min_pdelay_req_interval,
                    delay_asymmetry: port.delay_asymmetry_ns,
                    assume_two_step: port.assume_two_step,
                    link_up: port.link_up,
                    rules: port.rules,
                    as_capable: port.as_capable.map(|(nanos, lost)| AsCapable {
                        neighbor_prop_delay_threshold: Duration::from_nanos(nanos),
                        allowed_lost_responses: lost,
                    }),
                    link_delay: port.link_delay,
                    when_locked: port.when_locked.map(|(sync, pdelay_req)| LockedIntervals {
                        log_sync_interval: sync,
                        log_pdelay_req_interval: pdelay_req,
                    }),
                    ..PortConfig::default()
                })
                .collect(),
            seed: self.seed,
            ntp: self.ntp.as_ref().map(NtpNote::config),
            contention: None,
            servers: self.servers.clone(),
        }
    }

    /// What is wrong with it, beyond what its types allow.
    pub(super) fn fault(&self) -> Option<&'static str> {
        let names = || self.ports.iter().map(|port| &port.interface);
        if self.all_ports() == 0 {
            Some("there are no ports")
        } else if self.all_ports() > MAX_PORTS {
            Some("there are too many ports")
        } else if names().enumerate().any(|(at, name)| names().take(at).any(|n| n == name)) {
            Some("two ports have the same interface")
        } else {
            None
        }
    }
}

const fn any_class() -> u8 {
    u8::MAX
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde calls it so")]
const fn is_any_class(class: &u8) -> bool {
    *class == u8::MAX
}

/// 16 hexadecimal digits.
mod identity {
    use ptp_common::wire::ClockIdentity;
    use serde::{Deserialize, Deserializer, Serializer, de::Error};

    pub(super) fn serialize<S: Serializer>(
        identity: &ClockIdentity,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&format_args!("{:016x}", u64::from_be_bytes(identity.0)))
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<ClockIdentity, D::Error> {
        let text = String::deserialize(deserializer)?;
        let number = Some(&text)
            .filter(|text| text.len() == 16)
            .and_then(|text| u64::from_str_radix(text, 16).ok())
            .ok_or_else(|| D::Error::custom("expected a clock identity of 16 digits"))?;
        Ok(ClockIdentity(number.to_be_bytes()))
    }
}

/// Times without rounding.
mod exact {
    use serde::{Deserialize, Deserializer, Serializer, de::Error};

    /// Scaled nanoseconds in one nanosecond.
    const ONE: i128 = 1 << 16;
    /// Decimal digits that a scaled nanosecond needs, and itself in units of the last of them.
    const DIGITS: usize = 16;
    const STEP: i128 = 10_i128.pow(DIGITS as u32) / ONE;

    fn serialize<S: Serializer>(scaled: i128, serializer: S) -> Result<S::Ok, S::Error> {
        match i64::try_from(scaled / ONE) {
            Ok(nanos) if scaled % ONE == 0 => serializer.serialize_i64(nanos),
            _ => {
                let sign = if scaled < 0 { "-" } else { "" };
                let magnitude = scaled.unsigned_abs();
                let (whole, part) = (magnitude >> 16, magnitude & 0xffff);
                let part = part * STEP.unsigned_abs();
                serializer.collect_str(&format_args!("{sign}{whole}.{part:0DIGITS$}"))
            }
        }
    }

    fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<i128, D::Error> {
        #[derive(Deserialize)]
        #[serde(untagged)]
        enum Nanos {
            Whole(i64),
            Text(String),
        }
        match Nanos::deserialize(deserializer) {
            Ok(Nanos::Whole(nanos)) => Ok(i128::from(nanos) * ONE),
            Ok(Nanos::Text(text)) => parse(&text).ok_or(()),
            Err(_) => Err(()),
        }
        .map_err(|()| D::Error::custom("expected nanoseconds, whole or in steps of 2^-16"))
    }

    /// What `serialize` writes, as long as the whole nanoseconds fit an `i64`.
    fn parse(text: &str) -> Option<i128> {
        let (negative, digits) = match text.strip_prefix('-') {
            Some(digits) => (true, digits),
            None => (false, text),
        };
        let (whole, part) = digits.split_once('.')?;
        let number = |text: &str| text.bytes().all(|b| b.is_ascii_digit()).then(|| text.parse());
        let whole: u64 = number(whole)?.ok()?;
        let part: u64 = number(part)?.ok().filter(|_| part.len() == DIGITS)?;
        let (whole, part) = (i128::from(whole), i128::from(part));
        if whole > i128::from(i64::MAX) || part % STEP != 0 {
            return None;
        }
        let scaled = whole * ONE + part / STEP;
        Some(if negative { -scaled } else { scaled })
    }

    pub(super) mod time {
        use ptp_common::time::{Duration, Time};
        use serde::{Deserializer, Serializer};

        pub(in super::super) fn serialize<T, S: Serializer>(
            time: &Time<T>,
            serializer: S,
        ) -> Result<S::Ok, S::Error> {
            super::serialize(time.since_epoch().as_scaled_nanos(), serializer)
        }

        pub(in super::super) fn deserialize<'de, T, D: Deserializer<'de>>(
            deserializer: D,
        ) -> Result<Time<T>, D::Error> {
            let scaled = super::deserialize(deserializer)?;
            Ok(Time::from_epoch(Duration::from_scaled_nanos(scaled)))
        }
    }

    pub(super) mod span {
        use ptp_common::time::Duration;
        use serde::{Deserializer, Serializer};

        pub(in super::super) fn serialize<S: Serializer>(
            span: &Duration,
            serializer: S,
        ) -> Result<S::Ok, S::Error> {
            super::serialize(span.as_scaled_nanos(), serializer)
        }

        pub(in super::super) fn deserialize<'de, D: Deserializer<'de>>(
            deserializer: D,
        ) -> Result<Duration, D::Error> {
            super::deserialize(deserializer).map(Duration::from_scaled_nanos)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn poll(scaled: i128) -> Note {
        Note::Poll { now_ns: Time::from_epoch(Duration::from_scaled_nanos(scaled)) }
    }

    #[test]
    fn whole_nanoseconds_are_numbers_and_fractions_are_decimal_strings() {
        for (scaled, text) in [
            (-5 << 16, "-5"),
            (1 << 16 | 0x8000, r#""1.5000000000000000""#),
            (-1, r#""-0.0000152587890625""#),
        ] {
            let text = format!(r#"{{"ptp_agent":"poll","now_ns":{text}}}"#);
            assert_eq!(serde_json::to_string(&poll(scaled)).unwrap(), text);
            assert_eq!(serde_json::from_str::<Note>(&text).unwrap(), poll(scaled));
        }
    }

    #[test]
    fn nonsense_is_no_time() {
        for text in ["1.5", r#""1.5""#, r#""+1.5000000000000000""#, r#""1.0000000000000001""#, "[]"]
        {
            let text = format!(r#"{{"ptp_agent":"poll","now_ns":{text}}}"#);
            assert!(serde_json::from_str::<Note>(&text).is_err(), "{text}");
        }
    }

    proptest! {
        #[test]
        fn every_time_survives(scaled in i128::from(i64::MIN + 1) << 16..=i128::from(i64::MAX) << 16) {
            let text = serde_json::to_string(&poll(scaled)).unwrap();
            prop_assert_eq!(serde_json::from_str::<Note>(&text).unwrap(), poll(scaled));
        }
    }
}
