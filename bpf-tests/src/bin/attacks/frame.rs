//! Frames of PTP over UDP/IPv4 as somebody in the path sees them, and as somebody makes them who writes
//! whatever sender he likes into them.

use std::net::Ipv4Addr;

use ptp_common::wire::{Body, Flags, MessageType, MessageView, Timestamp};

const IP: usize = 14;
const UDP: usize = IP + 20;
const PTP: usize = UDP + 8;
const GROUP: Ipv4Addr = Ipv4Addr::new(224, 0, 1, 129);
const GROUP_MAC: [u8; 6] = [0x01, 0x00, 0x5e, 0x00, 0x01, 0x81];
const FORGER_MAC: [u8; 6] = [0x02, 0, 0, 0, 0, 0x66];

/// A second into the future.
pub(crate) fn later(stamp: Timestamp) -> Timestamp {
    Timestamp::new(stamp.seconds() + 1, stamp.nanoseconds()).unwrap_or(stamp)
}

#[derive(Clone)]
pub(crate) struct Frame {
    pub(crate) bytes: Vec<u8>,
    pub(crate) is_of_transmitter: bool,
    kind: Option<MessageType>,
}

impl Frame {
    pub(crate) fn new(mut bytes: Vec<u8>, is_of_transmitter: bool) -> Self {
        let is_udp =
            bytes.len() >= PTP && bytes[IP - 2..=IP] == [8, 0, 0x45] && bytes[IP + 9] == 17;
        if is_udp {
            // A veth does not make checksums, and what was made would be wrong after a change.
            bytes[UDP + 6..UDP + 8].fill(0);
        }
        let is_ptp = is_udp && matches!(bytes[UDP + 2..UDP + 4], [1, 0x3f | 0x40]);
        let kind = bytes.get(PTP..).filter(|_| is_ptp);
        let kind = kind.and_then(|message| MessageView::new(message).ok());
        let kind = kind.map(|view| view.message_type());
        Self { bytes, is_of_transmitter, kind }
    }

    pub(crate) const fn kind(&self) -> Option<MessageType> {
        self.kind
    }

    pub(crate) fn sequence_id(&self) -> Option<u16> {
        let view = MessageView::new(self.bytes.get(PTP..)?).ok()?;
        Some(view.header().sequence_id)
    }

    /// Adds to the correction field.
    pub(crate) fn correct(&mut self, by_ns: i64) {
        if let Some(field) = self.bytes.get_mut(PTP + 8..PTP + 16)
            && let Ok(old) = <[u8; 8]>::try_from(&*field)
        {
            field.copy_from_slice(&(i64::from_be_bytes(old) + (by_ns << 16)).to_be_bytes());
        }
    }

    /// Changes the first timestamp of the body.
    pub(crate) fn change_time(&mut self, change: impl Fn(Timestamp) -> Timestamp) {
        let view = self.bytes.get(PTP..).and_then(|message| MessageView::new(message).ok());
        let time = match view.and_then(|view| view.body().ok()) {
            Some(Body::FollowUp { precise_origin_timestamp: time }) => time,
            Some(Body::DelayResp { receive_timestamp: time, .. }) => time,
            Some(Body::Sync { origin_timestamp: time }) => time,
            _ => return,
        };
        let new = change(time);
        let at = PTP + 34;
        self.bytes[at..at + 6].copy_from_slice(&new.seconds().to_be_bytes()[2..]);
        self.bytes[at + 6..at + 10].copy_from_slice(&new.nanoseconds().to_be_bytes());
    }

    pub(crate) fn flip(&mut self, flag: Flags) {
        let [high, low] = flag.0.to_be_bytes();
        self.bytes[PTP + 6] ^= high;
        self.bytes[PTP + 7] ^= low;
    }
}

/// A message to the group, from whomever it is to come; `port` is 319 or 320.
pub(crate) fn forged(from: Ipv4Addr, port: u16, message: &[u8]) -> Vec<u8> {
    forged_to((GROUP, GROUP_MAC), from, port, message)
}

/// The same to one host.
pub(crate) fn forged_to(
    (to, mac): (Ipv4Addr, [u8; 6]),
    from: Ipv4Addr,
    port: u16,
    message: &[u8],
) -> Vec<u8> {
    let mut frame = Vec::with_capacity(PTP + message.len());
    frame.extend(mac);
    frame.extend(FORGER_MAC);
    frame.extend([8, 0]);
    let length = |more: usize| u16::try_from(message.len() + more).unwrap_or(0).to_be_bytes();
    let mut header = vec![0x45, 0];
    header.extend(length(28));
    header.extend([0, 0, 0x40, 0, 1, 17, 0, 0]);
    header.extend(from.octets());
    header.extend(to.octets());
    let words = header.chunks(2).map(|pair| u32::from(u16::from_be_bytes([pair[0], pair[1]])));
    let mut sum: u32 = words.sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    header[10..12].copy_from_slice(&(!(sum as u16)).to_be_bytes());
    frame.extend(header);
    frame.extend(port.to_be_bytes());
    frame.extend(port.to_be_bytes());
    frame.extend(length(8));
    frame.extend([0, 0]);
    frame.extend(message);
    frame
}
