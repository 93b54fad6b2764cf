//! The places at which one packet can be stamped, those of the kernel programs and those of the
//! kernel itself, and which of them are compared with which.

use ptp_common::record::Direction;

/// Where a stamp of a packet was taken. Each point belongs to one direction.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub(super) enum Point {
    /// eBPF: native XDP.
    XdpNative,
    /// eBPF: generic XDP.
    XdpGeneric,
    /// eBPF: clock read at TC ingress.
    TcIngress,
    /// eBPF: `skb->tstamp` as read at TC ingress.
    Stack,
    /// eBPF: `skb_hwtstamps` as read at TC ingress; the NIC's time.
    HookHardware,
    /// Software receive stamp of a socket with SO_TIMESTAMPING.
    RxSoftware,
    /// Hardware receive stamp of a socket with SO_TIMESTAMPING; the NIC's time.
    RxHardware,
    /// eBPF: clock read at TC egress.
    TcEgress,
    /// eBPF: raw tracepoint `net_dev_start_xmit`.
    StartXmit,
    /// eBPF: raw tracepoint `net_dev_xmit`.
    XmitDone,
    /// The same, of those packets only whose bracket around the driver is not overlong: the stamps
    /// that `run` and `serve` use.
    XmitSound,
    /// The copy of a sent packet that a packet socket gets. The stack stamps it before it calls the
    /// driver, whoever sent the packet.
    OutgoingCopy,
    /// The driver's software transmit stamp from the sending socket's error queue.
    TxSoftware,
    /// The hardware transmit stamp from the sending socket's error queue; the NIC's time.
    TxHardware,
}

impl Point {
    /// All of them, in the order of their numbers.
    pub(super) const ALL: [Self; Self::COUNT] = [
        Self::XdpNative,
        Self::XdpGeneric,
        Self::TcIngress,
        Self::Stack,
        Self::HookHardware,
        Self::RxSoftware,
        Self::RxHardware,
        Self::TcEgress,
        Self::StartXmit,
        Self::XmitDone,
        Self::XmitSound,
        Self::OutgoingCopy,
        Self::TxSoftware,
        Self::TxHardware,
    ];

    /// How many there are.
    pub(super) const COUNT: usize = Self::TxHardware as usize + 1;

    /// The name in tables and JSON.
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::XdpNative => "xdp_native",
            Self::XdpGeneric => "xdp_generic",
            Self::TcIngress => "tc_ingress",
            Self::Stack => "stack",
            Self::HookHardware => "skb_hwtstamps",
            Self::RxSoftware | Self::TxSoftware => "so_timestamping_software",
            Self::RxHardware | Self::TxHardware => "so_timestamping_hardware",
            Self::TcEgress => "tc_egress",
            Self::StartXmit => "start_xmit",
            Self::XmitDone => "xmit_done",
            Self::XmitSound => "xmit_done_sound",
            Self::OutgoingCopy => "outgoing_copy",
        }
    }

    /// The direction of the packets that pass here.
    pub(super) const fn direction(self) -> Direction {
        match self {
            Self::XdpNative
            | Self::XdpGeneric
            | Self::TcIngress
            | Self::Stack
            | Self::HookHardware
            | Self::RxSoftware
            | Self::RxHardware => Direction::Ingress,
            Self::TcEgress
            | Self::StartXmit
            | Self::XmitDone
            | Self::XmitSound
            | Self::OutgoingCopy
            | Self::TxSoftware
            | Self::TxHardware => Direction::Egress,
        }
    }

    /// Whether the stamp is in the NIC's time rather than on CLOCK_MONOTONIC.
    pub(super) const fn is_hardware(self) -> bool {
        matches!(self, Self::HookHardware | Self::RxHardware | Self::TxHardware)
    }
}

/// The contract's word for a direction.
pub(super) const fn direction_name(direction: Direction) -> &'static str {
    match direction {
        Direction::Ingress => "rx",
        Direction::Egress => "tx",
    }
}

/// What is compared with what: source and reference, in the order of the tables. References of the
/// kernel first; where there is none, the points of the kernel programs among themselves remain.
pub(super) const COMPARISONS: &[(Point, Point)] = &[
    (Point::Stack, Point::RxSoftware),
    (Point::XdpNative, Point::RxSoftware),
    (Point::XdpGeneric, Point::RxSoftware),
    (Point::TcIngress, Point::RxSoftware),
    (Point::HookHardware, Point::RxHardware),
    (Point::RxSoftware, Point::RxHardware),
    (Point::Stack, Point::RxHardware),
    (Point::XdpNative, Point::RxHardware),
    (Point::XdpGeneric, Point::RxHardware),
    (Point::TcIngress, Point::RxHardware),
    (Point::TcIngress, Point::Stack),
    (Point::TcIngress, Point::XdpNative),
    (Point::TcIngress, Point::XdpGeneric),
    (Point::TcEgress, Point::TxSoftware),
    (Point::StartXmit, Point::TxSoftware),
    (Point::XmitDone, Point::TxSoftware),
    (Point::XmitSound, Point::TxSoftware),
    (Point::TcEgress, Point::TxHardware),
    (Point::StartXmit, Point::TxHardware),
    (Point::XmitDone, Point::TxHardware),
    (Point::TxSoftware, Point::TxHardware),
    (Point::TcEgress, Point::OutgoingCopy),
    (Point::StartXmit, Point::OutgoingCopy),
    (Point::XmitDone, Point::OutgoingCopy),
    (Point::TcEgress, Point::StartXmit),
    (Point::XmitDone, Point::StartXmit),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn list_is_complete_and_in_order() {
        for (number, point) in Point::ALL.iter().enumerate() {
            assert_eq!(*point as usize, number);
        }
    }

    #[test]
    fn only_points_of_one_direction_are_compared() {
        for (source, reference) in COMPARISONS {
            assert_eq!(source.direction(), reference.direction(), "{source:?} {reference:?}");
            assert_ne!(source, reference);
        }
    }
}
