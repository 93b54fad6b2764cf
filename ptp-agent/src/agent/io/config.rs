//! How sockets and programs are to be opened, and why they cannot.

use super::*;

/// How to open.
#[derive(Clone, Debug)]
pub struct IoConfig {
    /// Names of the interfaces, one port each.
    pub interfaces: Vec<String>,
    /// What carries the messages.
    pub transport: TransportKind,
    /// Which receive stamp.
    pub rx_source: Choice,
    /// Which transmit stamp.
    pub tx_source: Choice,
    /// Whether event messages may be primed.
    pub prime: PrimeMode,
    /// Between the wire and the receive stamp; subtracted.
    pub ingress_latency: Latencies,
    /// Between the transmit stamp and the wire; added.
    pub egress_latency: Latencies,
    /// Size of the ring, bytes.
    pub ring_bytes: Option<u32>,
    /// Messages in the name of the time transmitter are believed from its address only.
    pub is_pinned: bool,
    /// From whom alone messages of time transmitters are taken; nobody in it: from everybody.
    pub acceptable_senders: Vec<Sender>,
    /// Keys, and whether messages must be authenticated by them.
    pub security: Option<security::Policy>,
    /// In a laboratory: the other ends of the interfaces' wires, where what was sent is stamped.
    pub wire: Vec<FarEnd>,
    /// Interfaces whose messages are carried by something else.
    pub transports: BTreeMap<String, TransportKind>,
    /// Servers of NTP that are asked beside.
    pub ntp: Option<NtpIoConfig>,
    /// How packets over IP are marked.
    pub marking: Marking,
}

impl IoConfig {
    /// Whether servers of NTP are asked from the port of event messages.
    pub(super) fn shares_event_port(&self) -> bool {
        let asked = self.ntp.iter().flat_map(|ntp| &ntp.peers);
        asked.into_iter().any(|peer| peer.carrier == NtpCarrier::Ptp)
    }

    /// What carries the messages of an interface.
    pub fn transport_of(&self, interface: &str) -> TransportKind {
        self.transports.get(interface).copied().unwrap_or(self.transport)
    }
}

/// Why the agent cannot start.
#[derive(Debug, thiserror::Error)]
pub enum IoError {
    /// No stamps.
    #[error(transparent)]
    Capture(#[from] CaptureError),
    /// No sockets.
    #[error(transparent)]
    Transport(#[from] TransportError),
    /// No news of interfaces.
    #[error("cannot watch the interfaces through netlink: {0}")]
    Watch(#[source] io::Error),
    /// No stamps at the other end of a wire.
    #[error("cannot listen at the other end of the wire, {far_end}: {source}")]
    Wire {
        /// Which.
        far_end: FarEnd,
        /// What the kernel said.
        source: io::Error,
    },
    /// Something that every system has.
    #[error("cannot {attempt}: {source}")]
    Os {
        /// What was attempted.
        attempt: &'static str,
        /// What the kernel said.
        source: io::Error,
    },
    /// No stamps of the card.
    #[error(transparent)]
    Hardware(#[from] HardwareError),
    /// No timer.
    #[error("cannot make a timer: {0}")]
    Timer(#[source] io::Error),
}
