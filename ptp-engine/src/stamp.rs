//! A timestamp of one packet and where it was taken: the currency between capture, engine and servo.

use core::num::NonZeroU64;

use ptp_common::{
    time::{Duration, Mono, Time},
    wire::Deviation,
};
use serde::{Deserialize, Serialize};

/// Where a stamp was taken. The names are those of the JSON samples and of the `source` label.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum StampSource {
    /// Clock read by the program at TC ingress.
    TcIngress,
    /// The stack's own receive stamp, read at TC ingress (`skb->tstamp`).
    Stack,
    /// Native XDP.
    XdpNative,
    /// Generic XDP.
    XdpGeneric,
    /// Clock read by the program at TC egress.
    TcEgress,
    /// Raw tracepoint `net_dev_start_xmit`.
    StartXmit,
    /// Raw tracepoint `net_dev_xmit`.
    XmitDone,
    /// The driver's software stamp from the socket's error queue.
    DriverSoftware,
    /// The clock of the network card.
    Hardware,
    /// The kernel's stamp of a pulse per second (RFC 2783).
    Pps,
    /// The stamp of an edge at a pin of a hardware clock.
    Extts,
    /// No host at all: drawn by the simulator.
    Simulated,
}

impl StampSource {
    /// The name used in JSON and in metric labels.
    pub const fn name(self) -> &'static str {
        match self {
            Self::TcIngress => "tc_ingress",
            Self::Stack => "stack",
            Self::XdpNative => "xdp_native",
            Self::XdpGeneric => "xdp_generic",
            Self::TcEgress => "tc_egress",
            Self::StartXmit => "start_xmit",
            Self::XmitDone => "xmit_done",
            Self::DriverSoftware => "driver_software",
            Self::Hardware => "hardware",
            Self::Pps => "pps",
            Self::Extts => "extts",
            Self::Simulated => "simulated",
        }
    }
}

/// Names a packet among those of its port and direction, so that whoever learns something of it later can say of
/// which. Given by who stamps; a recording and the simulator give none.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PacketId(pub NonZeroU64);

/// When a packet passed a capture point, on the host's monotonic clock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stamp {
    /// The instant, CLOCK_MONOTONIC.
    pub time: Time<Mono>,
    /// The capture point.
    pub source: StampSource,
    /// How far on the wrong side of the wire the stamp may lie: a receive stamp by so much before the
    /// arrival, a transmit stamp by so much after the departure. Mostly zero.
    pub doubt: Duration,
    /// Of a message that was sent: how much later than the stamp it may have left, at the most; zero where
    /// that is not known.
    pub late: Duration,
    /// Of a request of NTP that was sent: how long before the stamp the program had read the clock to send it, which is when
    /// one without stamps would have had it leave; zero where that is not known.
    pub handed: Duration,
    /// Of a message that was sent: in which manner.
    pub manner: Manner,
    /// Which packet it was.
    pub packet: Option<PacketId>,
    /// How far the time of the other end may be from the grandmaster's that belongs to it, where that end has told.
    pub told_within: Option<Deviation>,
}

/// In which manner a message was sent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Manner {
    /// As it is.
    #[default]
    Plain,
    /// Right behind a throwaway frame.
    Primed,
}

impl Stamp {
    /// A stamp that is on its side of the wire for certain.
    pub const fn new(time: Time<Mono>, source: StampSource) -> Self {
        let (none, manner) = (Duration::ZERO, Manner::Plain);
        Self {
            time,
            source,
            doubt: none,
            late: none,
            handed: none,
            manner,
            packet: None,
            told_within: None,
        }
    }
}
