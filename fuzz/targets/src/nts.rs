//! NTS: the records of a key exchange, packets taken apart, and an association that is given anything as answers: nothing is
//! opened that nobody sealed, cookies stay bounded and are used once, and records are the whole of their bytes.
use ptp_common::{
    ntp::{
        HEADER_LENGTH, NtpPacket, NtpTimestamp,
        nts::{KEY_LENGTH, Parts, Record, field},
    },
    time::{Mono, Time},
};
use ptp_engine::ntp::nts::{KeyExchange, Keys, MAX_COOKIES, NtsAssociation, NtsRefused, NtsState};

/// See the module's paragraph.
///
/// # Panics
/// If what must hold does not.
pub fn run(bytes: &[u8]) {
    let mut rest = bytes;
    while let Some((record, behind)) = Record::split(rest) {
        let head = record.head().expect("it came with one");
        assert_eq!([&head[..], record.body, behind].concat(), rest);
        rest = behind;
    }
    let mut exchange = KeyExchange::default();
    let mut cookies = vec![vec![7; 100]; MAX_COOKIES];
    for piece in bytes.chunks(64) {
        match exchange.take(piece) {
            Ok(None) => {}
            Ok(Some(agreement)) => {
                assert!((1..=MAX_COOKIES).contains(&agreement.cookies.len()));
                cookies = agreement.cookies;
                break;
            }
            Err(_) => break,
        }
    }
    if let Ok(parts) = Parts::of(bytes) {
        assert!(bytes.starts_with(parts.associated) && parts.associated.starts_with(parts.header));
        assert!(
            parts.fields.map(|it| it.expect("looked at before").value.len() + 4).sum::<usize>()
                + HEADER_LENGTH
                == parts.associated.len()
        );
    }
    let now = Time::<Mono>::ZERO;
    let mut this = NtsAssociation::new([1; 32]);
    this.began(now);
    this.agreed(Keys::new([2; KEY_LENGTH].into(), [3; KEY_LENGTH].into()), cookies);
    let header = NtpPacket::request(NtpTimestamp(7), 6).to_bytes();
    let mut seen: Vec<Vec<u8>> = Vec::new();
    for piece in bytes.chunks(96) {
        let before = this.cookies();
        let Some(request) = this.protect(&header) else { break };
        assert_eq!(this.cookies(), before - 1);
        assert!(request.len() <= 1232 && request.len().is_multiple_of(4));
        let identifier = Parts::of(&request).expect("a packet").identifier.expect("one").to_vec();
        assert!(!seen.contains(&identifier));
        // As it comes, and as if it were to what was asked.
        assert!(this.open(piece).is_err());
        let mut answer = piece.get(..HEADER_LENGTH).unwrap_or(&header).to_vec();
        answer.extend_from_slice(&field::UNIQUE_IDENTIFIER.to_be_bytes());
        answer.extend_from_slice(&[0, 36]);
        answer.extend_from_slice(&identifier);
        answer.extend_from_slice(piece);
        let refused = this.open(&answer).expect_err("nobody sealed it");
        assert!(refused != NtsRefused::Nak || this.state() == NtsState::Renewing);
        seen.push(identifier);
    }
}
