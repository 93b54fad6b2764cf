//! What is said in a key exchange, once there is a TLS session (RFC 8915 section 4): one message of records each way.

use core::fmt::Display;

use ptp_common::ntp::nts::{AES_SIV_CMAC_256, NTPV4, Record, record};

use crate::prelude::*;

/// Answers that are longer are refused, bytes.
pub(crate) const MAX_ANSWER: usize = 16 << 10;
/// Cookies that are kept; whoever sends more sends them in vain.
pub const MAX_COOKIES: usize = 8;
/// The longest cookie that is taken, bytes: one with a request around it fits into any network's packets.
pub const MAX_COOKIE: usize = 1024;

/// Why there are no keys.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum KeyExchangeError {
    /// More than any answer has.
    #[error("an answer of more than {MAX_ANSWER} bytes")]
    TooLong,
    /// The connection ended before the message did.
    #[error("the answer ended too early")]
    Truncated,
    /// A record that is not as it has to be, or is there twice.
    #[error("malformed record of type {0}")]
    Malformed(u16),
    /// A record of an unknown type that may not be passed over.
    #[error("a critical record of unknown type {0}")]
    Critical(u16),
    /// The server says why.
    #[error("the server refuses: {}", ServerError(.0))]
    Refused(u16),
    /// None is known that a client could heed.
    #[error("the server warns, number {0}, and nobody knows of what")]
    Warning(u16),
    /// The server does not serve NTPv4 by this.
    #[error("the server does not protect NTPv4")]
    Protocol,
    /// The server does not have the algorithm that all have to have.
    #[error("the server does not know AEAD_AES_SIV_CMAC_256")]
    Algorithm,
    /// Keys without cookies are of no use.
    #[error("the server gave no cookies")]
    NoCookies,
}

struct ServerError<'a>(&'a u16);

impl Display for ServerError<'_> {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self.0 {
            0 => f.write_str("it does not know a critical record"),
            1 => f.write_str("it takes the request for malformed"),
            2 => f.write_str("it has an internal error"),
            other => write!(f, "number {other}"),
        }
    }
}

/// What a client says.
pub fn request() -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut push = |kind, body: &[u8]| {
        let record = Record { is_critical: true, kind, body };
        // None of them is too long.
        bytes.extend_from_slice(&record.head().unwrap_or_default());
        bytes.extend_from_slice(body);
    };
    push(record::NEXT_PROTOCOL, &NTPV4.to_be_bytes());
    push(record::AEAD, &AES_SIV_CMAC_256.to_be_bytes());
    push(record::END, &[]);
    bytes
}

/// What was agreed upon, besides the keys.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Agreement {
    /// Eight at the most.
    pub cookies: Vec<Vec<u8>>,
    /// Name or address of the server that takes them, where it is not the one that gave them.
    pub server: Option<String>,
    /// Its port, where that is not 123.
    pub port: Option<u16>,
}

/// The answer to a [`request`], as it comes in.
#[derive(Debug, Default)]
pub struct KeyExchange {
    bytes: Vec<u8>,
}

impl KeyExchange {
    /// Takes more of it. What was agreed upon, once it is whole.
    ///
    /// # Errors
    /// [`KeyExchangeError`], all but `Truncated`.
    pub fn take(&mut self, bytes: &[u8]) -> Result<Option<Agreement>, KeyExchangeError> {
        if self.bytes.len() + bytes.len() > MAX_ANSWER {
            return Err(KeyExchangeError::TooLong);
        }
        self.bytes.extend_from_slice(bytes);
        let (mut rest, mut records) = (&self.bytes[..], Vec::new());
        while let Some((record, behind)) = Record::split(rest) {
            if record.kind == record::END {
                return agreement(&records).map(Some);
            }
            records.push(record);
            rest = behind;
        }
        Ok(None)
    }
}

fn agreement(records: &[Record<'_>]) -> Result<Agreement, KeyExchangeError> {
    let mut agreement = Agreement::default();
    let (mut protocol, mut algorithm) = (None, None);
    for record in records {
        let malformed = || KeyExchangeError::Malformed(record.kind);
        let number = || {
            let mut numbers = record.numbers()?;
            numbers.next().filter(|_| numbers.next().is_none())
        };
        let once = |is_new: bool| if is_new { Ok(()) } else { Err(malformed()) };
        match record.kind {
            record::NEXT_PROTOCOL => {
                once(protocol.is_none())?;
                protocol = Some(record.numbers().ok_or_else(malformed)?.any(|it| it == NTPV4));
            }
            record::AEAD => {
                once(algorithm.is_none())?;
                // Nothing in it: the server knows none of those that were named.
                let known = if record.body.is_empty() {
                    None
                } else {
                    Some(number().ok_or_else(malformed)?)
                };
                algorithm = Some(known == Some(AES_SIV_CMAC_256));
            }
            record::ERROR => {
                return Err(KeyExchangeError::Refused(number().ok_or_else(malformed)?));
            }
            record::WARNING => {
                return Err(KeyExchangeError::Warning(number().ok_or_else(malformed)?));
            }
            record::NEW_COOKIE => {
                let is_fine = super::is_fine(record.body);
                if is_fine && agreement.cookies.len() < MAX_COOKIES {
                    agreement.cookies.push(record.body.to_vec());
                }
            }
            record::SERVER => {
                once(agreement.server.is_none())?;
                agreement.server = Some(host(record.body).ok_or_else(malformed)?);
            }
            record::PORT => {
                once(agreement.port.is_none())?;
                agreement.port = Some(number().filter(|port| *port != 0).ok_or_else(malformed)?);
            }
            other if record.is_critical => return Err(KeyExchangeError::Critical(other)),
            _ => {}
        }
    }
    match (protocol, algorithm) {
        (Some(true), Some(true)) if agreement.cookies.is_empty() => {
            Err(KeyExchangeError::NoCookies)
        }
        (Some(true), Some(true)) => Ok(agreement),
        (Some(true), _) => Err(KeyExchangeError::Algorithm),
        (_, _) => Err(KeyExchangeError::Protocol),
    }
}

/// A name or an address (section 4.1.7), or `None` where it can be neither.
fn host(body: &[u8]) -> Option<String> {
    let is_fine =
        |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b'_' | b':');
    let host = core::str::from_utf8(body).ok()?;
    (!body.is_empty() && body.len() < 256 && body.iter().all(is_fine)).then(|| host.to_owned())
}
