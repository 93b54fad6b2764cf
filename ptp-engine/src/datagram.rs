//! The bytes of a message to send.

use core::{
    fmt,
    ops::{self, Range},
};

use ptp_common::{
    ntp::{HEADER_LENGTH, NtpPacket, over_ptp},
    time::{Duration, Mono, Time},
    wire::{
        Body, Bracket, Deviation, Header, Message, TlvBuilder, Tlvs, WireError,
        gptp::{self, FollowUpInformation},
    },
};

/// Where a packet of NTP has its transmit time.
const TRANSMIT: Range<usize> = 40..48;

/// What a message tells beside what every one of its type does.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Telling<'a> {
    /// The value of a TLV of IEEE 802.1, no longer than that of [`FollowUpInformation`].
    pub(crate) gptp: Option<&'a [u8]>,
    /// Of its timestamp.
    pub(crate) bracket: Option<Bracket>,
    /// Of its time.
    pub(crate) deviation: Option<Deviation>,
}

/// The bytes of a message to send: the longest fixed part has 64, and the rest is room for TLVs.
#[derive(Clone, Copy)]
pub struct Datagram {
    bytes: [u8; Self::CAPACITY],
    length: u8,
    made: Option<Time<Mono>>,
}

impl Datagram {
    /// As long as a message may become, bytes.
    pub const CAPACITY: usize = 192;

    /// A message without TLVs.
    pub fn new(header: Header, body: Body) -> Self {
        // Cannot fail, but an empty datagram beats a panic.
        let none = Self { bytes: [0; Self::CAPACITY], length: 0, made: None };
        Self::with_tlvs(header, body, Tlvs::NONE).unwrap_or(none)
    }

    /// A message that tells the bracket of its timestamp, where there is one.
    pub fn bracketed(header: Header, body: Body, bracket: Option<Bracket>) -> Self {
        Self::telling(header, body, Telling { bracket, ..Telling::default() })
    }

    /// A message with a TLV of IEEE 802.1, whose value is no longer than that of [`FollowUpInformation`].
    pub(crate) fn with_gptp(header: Header, body: Body, value: &[u8]) -> Self {
        Self::telling(header, body, Telling { gptp: Some(value), ..Telling::default() })
    }

    /// A message with what is to be told beside it.
    pub(crate) fn telling(header: Header, body: Body, telling: Telling<'_>) -> Self {
        let mut buffer =
            [0; FollowUpInformation::LENGTH + Bracket::LENGTH + Deviation::LENGTH + 12];
        let mut tlvs = TlvBuilder::new(&mut buffer);
        let bracket = telling.bracket.map(Bracket::value);
        let deviation = telling.deviation.map(Deviation::value);
        // That of IEEE 802.1AS is the first one (11.4.4.1).
        let all = telling.gptp.map(gptp::tlv).into_iter();
        let all = all.chain(bracket.as_ref().map(Bracket::tlv));
        let mut all = all.chain(deviation.as_ref().map(Deviation::tlv));
        // Cannot fail: there is room for all of them.
        let pushed = all.try_for_each(|tlv| tlvs.push(tlv));
        let told = pushed.and_then(|()| Self::with_tlvs(header, body, tlvs.finish()));
        told.unwrap_or_else(|_| Self::new(header, body))
    }

    /// An NTP packet without anything behind its header.
    pub fn of_ntp(packet: &NtpPacket) -> Self {
        let mut bytes = [0; Self::CAPACITY];
        bytes[..HEADER_LENGTH].copy_from_slice(&packet.to_bytes());
        Self { bytes, length: HEADER_LENGTH as u8, made: None }
    }

    /// An answer of NTP that was made at `made` and tells when it is expected to leave, if nothing holds it up on its way to the
    /// socket more than usual.
    pub fn of_ntp_answer(packet: &NtpPacket, made: Time<Mono>) -> Self {
        Self { made: Some(made), ..Self::of_ntp(packet) }
    }

    /// When it was made, where what it tells depends on how soon it is sent.
    pub const fn made(&self) -> Option<Time<Mono>> {
        self.made
    }

    /// It is sent later by so much, or sooner, than was expected when it was made, and tells that time.
    pub fn leave_later(&mut self, by: Duration) {
        let place = self.bytes.get_mut(TRANSMIT).and_then(|it| it.first_chunk_mut::<8>());
        let Some(field) = place else { return };
        // Of 2^-32 s; less than that is lost.
        let later = by.as_scaled_nanos() * (1 << 16) / 1_000_000_000;
        *field = u64::from_be_bytes(*field).wrapping_add_signed(later as i64).to_be_bytes();
    }

    /// The same inside of a message of PTP.
    pub fn of_ntp_over_ptp(packet: &[u8; HEADER_LENGTH]) -> Self {
        let message = over_ptp::wrap(packet);
        let mut bytes = [0; Self::CAPACITY];
        bytes[..message.len()].copy_from_slice(&message);
        Self { bytes, length: message.len() as u8, made: None }
    }

    /// A message with TLVs behind it.
    ///
    /// # Errors
    /// [`WireError::Buffer`] where they do not fit.
    pub fn with_tlvs(header: Header, body: Body, tlvs: Tlvs<'_>) -> Result<Self, WireError> {
        let mut bytes = [0; Self::CAPACITY];
        let length = Message { header, body, tlvs }.emit(&mut bytes)?;
        Ok(Self { bytes, length: length as u8, made: None })
    }
}

impl ops::Deref for Datagram {
    type Target = [u8];
    fn deref(&self) -> &[u8] {
        &self.bytes[..usize::from(self.length)]
    }
}
impl PartialEq for Datagram {
    fn eq(&self, other: &Self) -> bool {
        **self == **other
    }
}
impl Eq for Datagram {}
impl fmt::Debug for Datagram {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Datagram(")?;
        for byte in self.iter() {
            write!(f, "{byte:02x}")?;
        }
        f.write_str(")")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ptp_common::{
        ntp::NtpTimestamp,
        wire::{PortIdentity, Timestamp, Tlv, TlvBuilder, TlvType},
    };

    #[test]
    fn an_answer_that_is_held_up_tells_a_later_time_and_nothing_else_changes() {
        let packet = NtpPacket::request(NtpTimestamp(0x0102_0304_ffff_ff00), 6);
        let mut datagram = Datagram::of_ntp_answer(&packet, Time::from_nanos(7));
        assert_eq!(datagram.made(), Some(Time::from_nanos(7)));
        // A second, and a quarter of one less.
        datagram.leave_later(Duration::from_millis(1_000));
        datagram.leave_later(-Duration::from_millis(250));
        let (later, _) = NtpPacket::parse(&datagram).unwrap();
        let transmit = NtpTimestamp(0x0102_0305_bfff_ff00);
        assert_eq!(later, NtpPacket { transmit, ..packet });
        assert_eq!(Datagram::of_ntp(&packet).made(), None);
    }

    #[test]
    fn every_message_has_room_for_tlvs_and_no_more_than_that() {
        let header = Header::new(PortIdentity::default(), 1);
        let body = Body::Sync { origin_timestamp: Timestamp::ZERO };
        let plain = Datagram::new(header, body);
        let value = [7; 144];
        let mut buffer = [0; 320];
        let mut tlvs = TlvBuilder::new(&mut buffer);
        tlvs.push(Tlv { kind: TlvType(0x3fff), value: &value }).unwrap();
        let long = Datagram::with_tlvs(header, body, tlvs.finish()).unwrap();
        assert_eq!(long.len(), plain.len() + 4 + value.len());
        let value = [7; 146];
        let mut tlvs = TlvBuilder::new(&mut buffer);
        tlvs.push(Tlv { kind: TlvType(0x3fff), value: &value }).unwrap();
        assert!(Datagram::with_tlvs(header, body, tlvs.finish()).is_err());
    }
}
