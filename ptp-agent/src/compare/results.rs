//! What is collected from packets: differences between the stamps of one packet on one interface,
//! and, where both ends of the link are seen, one-way residuals and errors of whole exchanges.

use std::collections::BTreeMap;

use super::{
    detrend::Detrend,
    join::Packet,
    point::{COMPARISONS, Point},
    tally::Tally,
};
use crate::capture::Bracket;

/// Transmit and receive point of the one-way residuals. The first of each direction's ratios are
/// taken against the kernel's own stamps.
pub(super) const RESIDUALS: &[(Point, Point)] = &[
    (Point::TxSoftware, Point::RxSoftware),
    (Point::XmitSound, Point::RxSoftware),
    (Point::XmitDone, Point::RxSoftware),
    (Point::StartXmit, Point::RxSoftware),
    (Point::TcEgress, Point::RxSoftware),
    (Point::TxSoftware, Point::Stack),
    (Point::TxSoftware, Point::XdpNative),
    (Point::TxSoftware, Point::XdpGeneric),
    (Point::TxSoftware, Point::TcIngress),
    (Point::XmitDone, Point::Stack),
    (Point::XmitDone, Point::XdpNative),
    (Point::XmitDone, Point::XdpGeneric),
    (Point::XmitDone, Point::TcIngress),
];

/// Transmit and receive point of whole exchanges.
pub(super) const EXCHANGES: &[(Point, Point)] = &[
    (Point::TxSoftware, Point::RxSoftware),
    (Point::XmitSound, Point::Stack),
    (Point::XmitDone, Point::Stack),
    (Point::StartXmit, Point::Stack),
    (Point::TcEgress, Point::TcIngress),
    (Point::XmitDone, Point::XdpNative),
    (Point::XmitDone, Point::XdpGeneric),
];

/// Which packets are counted together: sent by this process with or without priming, or by others.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Traffic {
    /// Of another daemon, or received.
    Others,
    /// Sent from here, the path cold.
    Unprimed,
    /// Sent from here, primed.
    Primed,
}

impl Traffic {
    /// Own traffic.
    pub(super) const fn own(primed: bool) -> Self {
        if primed { Self::Primed } else { Self::Unprimed }
    }

    /// For tables.
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Others => "",
            Self::Unprimed => "unprimed",
            Self::Primed => "primed",
        }
    }

    /// For JSON.
    pub(super) const fn primed(self) -> Option<bool> {
        match self {
            Self::Others => None,
            Self::Unprimed => Some(false),
            Self::Primed => Some(true),
        }
    }
}

/// See the module's paragraph. The numbers in the keys are indices into the lists.
#[derive(Debug, Default)]
pub(super) struct Results {
    pub(super) differences: BTreeMap<(usize, Traffic), Tally>,
    pub(super) residuals: BTreeMap<(usize, Traffic), Tally>,
    pub(super) offsets: BTreeMap<(usize, Traffic), Tally>,
    detrends: BTreeMap<(usize, Traffic), Detrend>,
    brackets: BTreeMap<Traffic, Bracket>,
    /// Packets of each direction.
    pub(super) received: u64,
    pub(super) sent: u64,
}

impl Results {
    /// Marks the transmit stamp as sound where the bracket around the driver is. To be called with
    /// every packet, before anything else is done with it.
    pub(super) fn judge(&mut self, packet: &mut Packet, traffic: Traffic) {
        if let (Some(width), Some(done)) =
            (packet.between(Point::XmitDone, Point::StartXmit), packet.at(Point::XmitDone))
            && self.brackets.entry(traffic).or_default().is_sound(width)
        {
            packet.derive(Point::XmitSound, done);
        }
    }

    /// Takes a packet with all its stamps.
    pub(super) fn packet(&mut self, packet: &Packet, traffic: Traffic) {
        let has = |points: &[Point]| points.iter().any(|point| packet.at(*point).is_some());
        self.received += u64::from(has(&[Point::TcIngress, Point::RxSoftware]));
        self.sent += u64::from(has(&[Point::TcEgress, Point::OutgoingCopy]));
        for (index, (source, reference)) in COMPARISONS.iter().enumerate() {
            let Some(difference) = packet.between(*source, *reference) else { continue };
            let tally = self.differences.entry((index, traffic)).or_default();
            if source.is_hardware() == reference.is_hardware() {
                tally.push(difference as f64);
            } else {
                let detrend = self.detrends.entry((index, traffic)).or_default();
                let at = packet.at(*reference).unwrap_or(0);
                detrend.push(at, difference).into_iter().for_each(|value| tally.push(value));
            }
        }
    }

    /// Takes a packet that was seen at both ends of its link.
    pub(super) fn crossing(&mut self, packet: &Packet, traffic: Traffic) {
        for (index, (tx, rx)) in RESIDUALS.iter().enumerate() {
            if let Some(residual) = packet.between(*rx, *tx) {
                self.residuals.entry((index, traffic)).or_default().push(residual as f64);
            }
        }
    }

    /// Takes the two packets of an exchange between clocks that are one and the same: the offset
    /// that it shows is its error.
    pub(super) fn exchange(&mut self, there: &Packet, back: &Packet, traffic: Traffic) {
        for (index, (tx, rx)) in EXCHANGES.iter().enumerate() {
            if let (Some(a), Some(b)) = (there.between(*rx, *tx), back.between(*rx, *tx)) {
                let offset = (a as f64 - b as f64) / 2.0;
                self.offsets.entry((index, traffic)).or_default().push(offset);
            }
        }
    }

    /// Nothing more comes.
    pub(super) fn finish(&mut self) {
        for (key, detrend) in &mut self.detrends {
            let tally = self.differences.entry(*key).or_default();
            detrend.flush().into_iter().for_each(|value| tally.push(value));
        }
        self.differences.retain(|_, tally| tally.n() > 0);
    }

    /// The residual between two points.
    pub(super) fn residual(&self, tx: Point, rx: Point, traffic: Traffic) -> Option<&Tally> {
        let index = RESIDUALS.iter().position(|pair| *pair == (tx, rx))?;
        self.residuals.get(&(index, traffic)).filter(|tally| tally.n() > 1)
    }
}
