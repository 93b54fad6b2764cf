//! Network Time Security on the wire (RFC 8915): the records of a key exchange (section 4), and where the parts of a packet
//! are that is protected by the keys it gave (section 5). Nothing is enciphered or believed here: bytes are only
//! found and laid out, so that a fuzzer can reach all of it.

use super::HEADER_LENGTH;

/// TCP port of the key exchange.
pub const PORT: u16 = 4460;
/// What the TLS handshake of a key exchange is for (ALPN).
pub const ALPN: &[u8] = b"ntske/1";
/// Label by which keys are derived from the TLS session (section 5.1).
pub const EXPORTER_LABEL: &[u8] = b"EXPORTER-network-time-security";
/// `NTS Next Protocol`: NTPv4.
pub const NTPV4: u16 = 0;
/// AEAD_AES_SIV_CMAC_256, the algorithm that all have to know (RFC 5297).
pub const AES_SIV_CMAC_256: u16 = 15;
/// Length of its keys, bytes.
pub const KEY_LENGTH: usize = 32;
/// Length of what it puts before a ciphertext, bytes.
pub const TAG_LENGTH: usize = 16;
/// Length of the nonces that are made here, bytes.
pub const NONCE_LENGTH: usize = 16;
/// Shortest unique identifier (section 5.3), bytes.
pub const IDENTIFIER_LENGTH: usize = 32;
/// Kiss code of who cannot make anything of a cookie (section 5.7).
pub const NAK: super::ReferenceId = super::ReferenceId(*b"NTSN");

/// Types of extension fields.
pub mod field {
    /// Names a request.
    pub const UNIQUE_IDENTIFIER: u16 = 0x0104;
    /// A cookie.
    pub const COOKIE: u16 = 0x0204;
    /// Room for another cookie in the answer.
    pub const COOKIE_PLACEHOLDER: u16 = 0x0304;
    /// What authenticates everything before it, and what is enciphered.
    pub const AUTHENTICATOR: u16 = 0x0404;
}

/// Types of records, without the critical bit.
pub mod record {
    /// Ends a message.
    pub const END: u16 = 0;
    /// What the keys are for.
    pub const NEXT_PROTOCOL: u16 = 1;
    /// Why there are none.
    pub const ERROR: u16 = 2;
    /// None is defined, and one that is not understood is an error (section 4.1.4).
    pub const WARNING: u16 = 3;
    /// With which algorithm.
    pub const AEAD: u16 = 4;
    /// A cookie.
    pub const NEW_COOKIE: u16 = 5;
    /// Which server takes the cookies.
    pub const SERVER: u16 = 6;
    /// At which port.
    pub const PORT: u16 = 7;
}

/// Set in the type of a record that must be understood.
const CRITICAL: u16 = 0x8000;
/// Type and length of a record or an extension field.
const HEAD: usize = 4;

/// Why a packet is not one that NTS protects.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NtsError {
    /// Shorter than the header of NTP.
    #[error("truncated: {0} bytes")]
    Truncated(usize),
    /// An extension field that is shorter than its own head, no multiple of four, or longer than the packet.
    #[error("malformed extension field at byte {0}")]
    Field(usize),
    /// Two identifiers.
    #[error("two unique identifiers")]
    TwoIdentifiers,
    /// Nonce and ciphertext do not fit into their field.
    #[error("malformed authenticator")]
    Authenticator,
}

/// A record of a key exchange (section 4).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Record<'a> {
    /// Whether who does not know the type must give up.
    pub is_critical: bool,
    /// The type, see [`record`].
    pub kind: u16,
    /// What is in it.
    pub body: &'a [u8],
}

impl<'a> Record<'a> {
    /// The first record in `bytes`, and what is behind it; `None` while it is not whole.
    pub fn split(bytes: &'a [u8]) -> Option<(Self, &'a [u8])> {
        let (head, rest) = bytes.split_first_chunk::<HEAD>()?;
        let kind = u16::from_be_bytes([head[0], head[1]]);
        let (body, rest) =
            rest.split_at_checked(usize::from(u16::from_be_bytes([head[2], head[3]])))?;
        let record = Self { is_critical: kind & CRITICAL != 0, kind: kind & !CRITICAL, body };
        Some((record, rest))
    }

    /// What stands before the body on the wire; `None` where the body is too long for a record.
    pub fn head(&self) -> Option<[u8; HEAD]> {
        let [a, b] =
            (self.kind & !CRITICAL | if self.is_critical { CRITICAL } else { 0 }).to_be_bytes();
        let [c, d] = u16::try_from(self.body.len()).ok()?.to_be_bytes();
        Some([a, b, c, d])
    }

    /// The numbers that a body consists of; `None` where it is no list of such.
    pub fn numbers(&self) -> Option<impl Iterator<Item = u16> + 'a> {
        let is_list = self.body.len().is_multiple_of(2);
        let numbers = self.body.chunks_exact(2).map(|pair| u16::from_be_bytes([pair[0], pair[1]]));
        is_list.then_some(numbers)
    }
}

/// What the keys of a session are derived with (section 5.1): protocol, algorithm, and the direction.
pub const fn exporter_context(aead: u16, to_client: bool) -> [u8; 5] {
    let ([a, b], [c, d]) = (NTPV4.to_be_bytes(), aead.to_be_bytes());
    [a, b, c, d, to_client as u8]
}

/// An extension field and where it ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Field<'a> {
    /// The type, see [`field`].
    pub kind: u16,
    /// What is in it, padding included.
    pub value: &'a [u8],
    /// Where its head begins, counted from the first field.
    pub begin: usize,
}

/// Extension fields one behind the other, until one is malformed, which is the last item then.
#[derive(Clone, Debug)]
pub struct Fields<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Fields<'a> {
    /// Of what follows a header, or of what was enciphered.
    pub const fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, at: 0 }
    }
}

impl<'a> Iterator for Fields<'a> {
    /// A field, or where one is malformed.
    type Item = Result<Field<'a>, usize>;

    fn next(&mut self) -> Option<Self::Item> {
        let rest = self.bytes.get(self.at..).filter(|rest| !rest.is_empty())?;
        let begin = self.at;
        let whole = rest.first_chunk::<HEAD>().and_then(|head| {
            let length = usize::from(u16::from_be_bytes([head[2], head[3]]));
            let is_sound = length >= HEAD && length.is_multiple_of(4);
            let value = rest.get(HEAD..length).filter(|_| is_sound)?;
            Some((Field { kind: u16::from_be_bytes([head[0], head[1]]), value, begin }, length))
        });
        let Some((field, length)) = whole else {
            self.at = self.bytes.len();
            return Some(Err(begin));
        };
        self.at += length;
        Some(Ok(field))
    }
}

/// What is in an authenticator (section 5.6).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Authenticator<'a> {
    /// Of any length.
    pub nonce: &'a [u8],
    /// [`TAG_LENGTH`] bytes at the least, and then enciphered extension fields.
    pub ciphertext: &'a [u8],
}

impl<'a> Authenticator<'a> {
    fn parse(value: &'a [u8]) -> Option<Self> {
        let (head, rest) = value.split_first_chunk::<4>()?;
        let nonce = usize::from(u16::from_be_bytes([head[0], head[1]]));
        let ciphertext = usize::from(u16::from_be_bytes([head[2], head[3]]));
        let begin = nonce.next_multiple_of(4);
        let (nonce, ciphertext) = (rest.get(..nonce)?, rest.get(begin..begin + ciphertext)?);
        (!nonce.is_empty() && ciphertext.len() >= TAG_LENGTH).then_some(Self { nonce, ciphertext })
    }
}

/// A packet, taken apart. What stands behind the authenticator is nobody's word, and left away.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Parts<'a> {
    /// The header of NTP.
    pub header: &'a [u8; HEADER_LENGTH],
    /// What names the request.
    pub identifier: Option<&'a [u8]>,
    /// What the authenticator vouches for: all before it.
    pub associated: &'a [u8],
    /// The extension fields in there.
    pub fields: Fields<'a>,
    /// It; `None` where there is none.
    pub authenticator: Option<Authenticator<'a>>,
}

/// By what they still have to give.
impl PartialEq for Fields<'_> {
    fn eq(&self, other: &Self) -> bool {
        self.bytes.get(self.at..) == other.bytes.get(other.at..)
    }
}
impl Eq for Fields<'_> {}

impl<'a> Parts<'a> {
    /// Takes a packet apart.
    ///
    /// # Errors
    /// [`NtsError`].
    pub fn of(packet: &'a [u8]) -> Result<Self, NtsError> {
        let Some((header, rest)) = packet.split_first_chunk::<HEADER_LENGTH>() else {
            return Err(NtsError::Truncated(packet.len()));
        };
        let mut identifier = None;
        let mut authenticator = None;
        let mut end = rest.len();
        for field in Fields::new(rest) {
            let field = field.map_err(|at| NtsError::Field(HEADER_LENGTH + at))?;
            match field.kind {
                field::UNIQUE_IDENTIFIER => {
                    let before = identifier.replace(field.value);
                    if before.is_some() {
                        return Err(NtsError::TwoIdentifiers);
                    }
                }
                field::AUTHENTICATOR => {
                    let parsed = Authenticator::parse(field.value);
                    authenticator = Some(parsed.ok_or(NtsError::Authenticator)?);
                    end = field.begin;
                    break;
                }
                _ => {}
            }
        }
        let fields = Fields::new(&rest[..end]);
        let associated = &packet[..HEADER_LENGTH + end];
        Ok(Self { header, identifier, associated, fields, authenticator })
    }
}

#[cfg(test)]
mod tests {
    extern crate std;
    use super::*;
    use proptest::prelude::*;
    use std::vec::Vec;

    fn field(kind: u16, value: &[u8]) -> Vec<u8> {
        let length = (value.len() as u16 + 4).to_be_bytes();
        [&kind.to_be_bytes()[..], &length, value].concat()
    }

    #[test]
    fn a_record_is_read_as_it_was_written_and_never_before_it_is_whole() {
        let record = Record { is_critical: true, kind: record::AEAD, body: &[0, 15] };
        let bytes = [&record.head().unwrap()[..], record.body, &[9]].concat();
        assert_eq!(Record::split(&bytes), Some((record, &[9][..])));
        assert_eq!(record.numbers().unwrap().collect::<Vec<_>>(), [AES_SIV_CMAC_256]);
        for length in 0..6 {
            assert_eq!(Record::split(&bytes[..length]), None);
        }
        assert!(Record { body: &[0], ..record }.numbers().is_none());
    }

    #[test]
    fn what_stands_behind_the_authenticator_is_left_away() {
        let sealed = [&[0, 3, 0, 16][..], &[1, 2, 3, 0], &[7; 16]].concat();
        let identifier = field(field::UNIQUE_IDENTIFIER, &[5; 32]);
        let authenticator = field(field::AUTHENTICATOR, &sealed);
        let behind = field(field::UNIQUE_IDENTIFIER, &[6; 32]);
        let packet = [&[0; 48][..], &identifier, &authenticator, &behind].concat();
        let parts = Parts::of(&packet).unwrap();
        assert_eq!(parts.identifier, Some(&[5; 32][..]));
        assert_eq!(parts.associated, &packet[..48 + 36]);
        assert_eq!(parts.fields.clone().count(), 1);
        let found = parts.authenticator.unwrap();
        assert_eq!((found.nonce, found.ciphertext), (&[1, 2, 3][..], &[7; 16][..]));
        let twice = [&[0; 48][..], &identifier, &behind].concat();
        assert_eq!(Parts::of(&twice), Err(NtsError::TwoIdentifiers));
    }

    #[test]
    fn an_authenticator_that_does_not_fit_its_field_is_malformed() {
        for sealed in
            [&[0_u8, 0, 0, 16][..], &[0, 4, 0, 200, 1, 2, 3, 4], &[0, 1], &[0, 1, 0, 1, 1, 0, 0, 0]]
        {
            let length = sealed.len().next_multiple_of(4);
            let mut value = sealed.to_vec();
            value.resize(length, 0);
            let packet = [&[0; 48][..], &field(field::AUTHENTICATOR, &value)].concat();
            assert_eq!(Parts::of(&packet), Err(NtsError::Authenticator), "{sealed:?}");
        }
        let packet = [&[0; 48][..], &[4, 4, 0, 7, 0, 0, 0, 0]].concat();
        assert_eq!(Parts::of(&packet), Err(NtsError::Field(48)));
        assert_eq!(Parts::of(&packet[..47]), Err(NtsError::Truncated(47)));
    }

    proptest! {
        #[test]
        fn fields_are_the_whole_of_what_they_were_made_of(
            values in prop::collection::vec((any::<u16>(), prop::collection::vec(any::<u32>(), 0..20)), 0..8),
        ) {
            let made: Vec<(u16, Vec<u8>)> = values
                .into_iter()
                .map(|(kind, words)| (kind, words.iter().flat_map(|it| it.to_be_bytes()).collect()))
                .collect();
            let bytes: Vec<u8> = made.iter().flat_map(|(kind, value)| field(*kind, value)).collect();
            let read: Vec<(u16, Vec<u8>)> = Fields::new(&bytes)
                .map(|field| field.map(|it| (it.kind, it.value.to_vec())).unwrap())
                .collect();
            prop_assert_eq!(read, made);
        }

        #[test]
        fn any_bytes_are_taken_apart_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
            if let Ok(parts) = Parts::of(&bytes) {
                prop_assert!(bytes.starts_with(parts.associated));
            }
            let mut rest = &bytes[..];
            while let Some((record, behind)) = Record::split(rest) {
                prop_assert_eq!(record.body.len() + 4 + behind.len(), rest.len());
                rest = behind;
            }
        }
    }
}
