//! What passes the hook on the way in and is nobody's here: Announce messages by another transport, in
//! another VLAN, domain or profile, of version 1 of PTP, or dropped by the stack behind the hook. The
//! socket hears nothing of all that, and so cannot say why it hears no grandmaster. Bounded, whatever
//! arrives.

use std::{collections::BTreeMap, fmt, net::Ipv4Addr};

use ptp_common::{
    classify::Network,
    record::{Direction, Hook, Record},
    time::{Duration, Mono, Time},
    wire::{HEADER_LENGTH, MessageType},
};

use crate::transport::TransportKind;

/// Kinds of what is heard that are remembered.
const KINDS: usize = 32;
/// What was heard longer ago is no explanation: Announce come every two seconds, mostly.
const FRESH: Duration = Duration::from_secs(20);
/// Announce that must have passed the hook before their absence at the socket says something: one may be
/// on its way.
const MISSED: u64 = 2;

/// What a port listens to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Channel {
    /// What carries the messages.
    pub transport: TransportKind,
    /// `domainNumber`.
    pub domain: u8,
    /// `sdoId`, 12 bits.
    pub sdo_id: u16,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Kind {
    channel: Channel,
    /// Without a tag, or with a priority tag, `None`.
    vlan: Option<u16>,
    /// `versionPTP`.
    version: u8,
}

#[derive(Clone, Copy, Debug)]
struct Heard {
    at: Time<Mono>,
    source: [u8; 16],
    /// Passed the hook.
    seen: u64,
    /// Reached the socket.
    delivered: u64,
}

/// See the module's paragraph.
#[derive(Clone, Debug, Default)]
pub struct Hearsay {
    kinds: BTreeMap<Kind, Heard>,
}

impl Hearsay {
    /// A record of any hook; only Announce on the way in count, and version 1, which has none.
    pub fn note(&mut self, now: Time<Mono>, record: &Record) {
        if record.direction != Direction::Ingress || record.hook != Hook::TcIngress {
            return;
        }
        let transport = match record.network {
            Network::Ethernet => TransportKind::L2,
            Network::Ipv4 => TransportKind::Udp4,
            Network::Ipv6 => TransportKind::Udp6,
        };
        let identifier = record.vlan[0] & 0x0fff;
        let vlan = (record.vlan_count > 0 && identifier != 0).then_some(identifier);
        let Some(kind) = kind(transport, vlan, record.message()) else { return };
        let fresh = Heard { at: now, source: record.source, seen: 0, delivered: 0 };
        self.kinds.retain(|_, heard| now - heard.at < FRESH);
        if !self.kinds.contains_key(&kind) && self.kinds.len() == KINDS {
            return;
        }
        let heard = self.kinds.entry(kind).or_insert(fresh);
        (heard.at, heard.source, heard.seen) = (now, record.source, heard.seen + 1);
    }

    /// A message has come through the socket.
    pub fn delivered(&mut self, transport: TransportKind, message: &[u8]) {
        if let Some(heard) =
            kind(transport, None, message).and_then(|kind| self.kinds.get_mut(&kind))
        {
            heard.delivered += 1;
        }
    }

    /// Why somebody who listens to `own` hears nobody, the likeliest cause first; `None` where nothing
    /// passes the hook that could be meant.
    pub fn explain(&self, now: Time<Mono>, own: Channel, interface: &str) -> Option<String> {
        let mut all: Vec<_> = self
            .kinds
            .iter()
            .filter(|(_, heard)| now - heard.at < FRESH)
            .filter_map(|(kind, heard)| Some((kind.explain(heard, own)?, kind, heard)))
            .collect();
        all.sort_by_key(|(cause, ..)| *cause);
        let texts: Vec<_> = all
            .iter()
            .take(3)
            .map(|(cause, kind, heard)| kind.tell(*cause, heard, interface))
            .collect();
        (!texts.is_empty()).then(|| texts.join("; "))
    }

    /// All that was heard and is not what `run` follows when it is told nothing but the transport and the
    /// domain, for somebody who has listened to all domains of these transports.
    pub fn unheard(&self, interface: &str, listened: &[TransportKind]) -> Vec<String> {
        let causes = self.kinds.iter().filter_map(|(kind, heard)| {
            let own = Channel { sdo_id: 0, ..kind.channel };
            let cause = kind.explain(heard, own)?;
            let is_known = cause != Cause::Dropped || listened.contains(&own.transport);
            is_known.then(|| kind.tell(cause, heard, interface))
        });
        causes.collect()
    }
}

/// Causes, the likeliest first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Cause {
    Dropped,
    Domain,
    Profile,
    Vlan,
    Transport,
    Version,
}

impl Kind {
    fn explain(&self, heard: &Heard, own: Channel) -> Option<Cause> {
        Some(if self.version != 2 {
            Cause::Version
        } else if self.vlan.is_some() {
            Cause::Vlan
        } else if self.channel.transport != own.transport {
            Cause::Transport
        } else if self.channel.sdo_id != own.sdo_id {
            Cause::Profile
        } else if self.channel.domain != own.domain {
            Cause::Domain
        } else if heard.delivered == 0 && heard.seen >= MISSED {
            Cause::Dropped
        } else {
            // It reaches the engine, which has its own counts of what it refuses.
            return None;
        })
    }

    fn tell(&self, cause: Cause, heard: &Heard, interface: &str) -> String {
        let Self { channel: Channel { transport, domain, sdo_id }, vlan, .. } = *self;
        let from = Address(transport, heard.source);
        match cause {
            Cause::Dropped => {
                let filter = match transport {
                    TransportKind::Udp4 => format!(
                        " (reverse path filter: sysctl net.ipv4.conf.{interface}.rp_filter; a firewall; a wrong checksum)"
                    ),
                    TransportKind::Udp6 => " (a firewall; a wrong checksum)".to_owned(),
                    TransportKind::L2 => String::new(),
                };
                format!("Announce from {from} pass the hook, and the kernel drops them{filter}")
            }
            Cause::Domain => format!("Announce in domain {domain} over {transport}, from {from}"),
            Cause::Profile => format!(
                "Announce with sdoId {sdo_id:#05x} (another profile{}) in domain {domain} over {transport}, from {from}",
                if sdo_id == 0x100 { ": gPTP" } else { "" }
            ),
            Cause::Vlan => format!(
                "Announce in VLAN {} over {transport}, domain {domain}, from {from}: give the agent an interface of that VLAN",
                vlan.unwrap_or(0)
            ),
            Cause::Transport => {
                format!(
                    "Announce in domain {domain} over {transport}, from {from}: --transport {transport}"
                )
            }
            Cause::Version => format!(
                "version {} of PTP over {transport}, from {from}: a clock of version 2 cannot follow it (Dante speaks version 1)",
                self.version
            ),
        }
    }
}

/// `None` for what is no Announce; a message of another version has no types that could be known.
fn kind(transport: TransportKind, vlan: Option<u16>, message: &[u8]) -> Option<Kind> {
    let [first, second, _, _, domain, minor_sdo, ..] = *message else { return None };
    let version = second & 0x0f;
    if version == 2
        && (message.len() < HEADER_LENGTH || first & 0x0f != MessageType::Announce as u8)
    {
        return None;
    }
    let is_other = version != 2;
    let sdo_id = u16::from(first & 0xf0) << 4 | u16::from(minor_sdo);
    let channel = if is_other {
        Channel { transport, domain: 0, sdo_id: 0 }
    } else {
        Channel { transport, domain, sdo_id }
    };
    // Anything can be on these ports: only what was ever a version is one.
    (version == 1 || version == 2).then_some(Kind { channel, vlan, version })
}

/// An address as a record has it.
struct Address(TransportKind, [u8; 16]);

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(transport, bytes) = self;
        match transport {
            TransportKind::Udp4 => {
                write!(f, "{}", Ipv4Addr::new(bytes[0], bytes[1], bytes[2], bytes[3]))
            }
            TransportKind::Udp6 => write!(f, "{}", std::net::Ipv6Addr::from(*bytes)),
            TransportKind::L2 => {
                let mac = bytes[..6].iter().map(|byte| format!("{byte:02x}"));
                f.write_str(&mac.collect::<Vec<_>>().join(":"))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const OWN: Channel = Channel { transport: TransportKind::Udp4, domain: 0, sdo_id: 0 };

    fn at(seconds: i64) -> Time<Mono> {
        Time::from_nanos(seconds * 1_000_000_000)
    }

    fn announce(domain: u8, sdo_id: u16) -> [u8; 64] {
        let mut message = [0; 64];
        message[0] = (sdo_id >> 4) as u8 & 0xf0 | 0x0b;
        message[1] = 0x12;
        (message[4], message[5]) = (domain, sdo_id as u8);
        message
    }

    fn heard(kind: Kind, seen: u64, delivered: u64) -> Hearsay {
        let source = [192, 0, 2, 7, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
        Hearsay { kinds: BTreeMap::from([(kind, Heard { at: at(0), source, seen, delivered })]) }
    }

    fn kind_of(transport: TransportKind, vlan: Option<u16>, message: &[u8]) -> Kind {
        kind(transport, vlan, message).expect("worth being remembered")
    }

    #[test]
    fn each_cause_is_told_with_what_is_to_be_done() {
        let udp4 = TransportKind::Udp4;
        let mut version1 = announce(0, 0);
        version1[1] = 1;
        for (kind, words) in [
            (kind_of(udp4, None, &announce(5, 0)), "in domain 5 over udp4, from 192.0.2.7"),
            (kind_of(udp4, None, &announce(0, 0x100)), "sdoId 0x100 (another profile: gPTP)"),
            (kind_of(udp4, Some(100), &announce(0, 0)), "in VLAN 100"),
            (kind_of(TransportKind::L2, None, &announce(0, 0)), "--transport l2"),
            (kind_of(udp4, None, &version1), "version 1 of PTP"),
            (kind_of(udp4, None, &announce(0, 0)), "net.ipv4.conf.eth0.rp_filter"),
        ] {
            let text = heard(kind, 3, 0).explain(at(1), OWN, "eth0").unwrap();
            assert!(text.contains(words), "{text}");
        }
    }

    #[test]
    fn what_reaches_the_socket_and_what_is_old_explains_nothing() {
        let own = kind_of(TransportKind::Udp4, None, &announce(0, 0));
        assert_eq!(heard(own, 3, 1).explain(at(1), OWN, "eth0"), None);
        assert_eq!(heard(own, 1, 0).explain(at(1), OWN, "eth0"), None);
        assert_eq!(heard(own, 3, 0).explain(at(60), OWN, "eth0"), None);
        let mut delivered = heard(own, 3, 0);
        delivered.delivered(TransportKind::Udp4, &announce(0, 0));
        assert_eq!(delivered.explain(at(1), OWN, "eth0"), None);
    }

    #[test]
    fn only_announce_and_old_versions_are_worth_being_remembered() {
        let mut sync = announce(0, 0);
        sync[0] = 0;
        assert_eq!(kind(TransportKind::L2, None, &sync), None);
        assert_eq!(kind(TransportKind::L2, None, &announce(0, 0)[..20]), None);
        assert_eq!(kind(TransportKind::L2, None, &[0xff; 64]), None);
        assert_eq!(kind(TransportKind::L2, None, &[]), None);
    }

    #[test]
    fn dropped_by_the_kernel_comes_first() {
        let udp4 = TransportKind::Udp4;
        let mut both = heard(kind_of(TransportKind::L2, None, &announce(0, 0)), 3, 0);
        both.kinds.extend(heard(kind_of(udp4, None, &announce(0, 0)), 3, 0).kinds);
        let text = both.explain(at(1), OWN, "eth0").unwrap();
        assert!(text.starts_with("Announce from 192.0.2.7 pass the hook"), "{text}");
        assert_eq!(both.unheard("eth0", &TransportKind::ALL).len(), 2);
        assert_eq!(both.unheard("eth0", &[TransportKind::L2]).len(), 1);
    }
}
