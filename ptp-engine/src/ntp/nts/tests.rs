//! A server in a few lines, which checks what it is asked by the same keys, and what the association makes of it and of
//! others.

use proptest::prelude::*;
use ptp_common::ntp::{
    NtpTimestamp, ReferenceId,
    nts::{AES_SIV_CMAC_256, KEY_LENGTH, Record, exporter_context, record},
};
use zeroize::Zeroizing;

use super::*;

const COOKIE: usize = 100;
const NOW: Time<Mono> = Time::ZERO;

fn keys() -> Keys {
    Keys::new(Zeroizing::new([1; KEY_LENGTH]), Zeroizing::new([2; KEY_LENGTH]))
}

fn cookies(count: usize) -> Vec<Vec<u8>> {
    (0..count).map(|n| vec![n as u8; COOKIE]).collect()
}

fn association() -> NtsAssociation {
    let mut this = NtsAssociation::new([7; 32]);
    this.agreed(keys(), cookies(MAX_COOKIES));
    this
}

fn header(mode: Mode) -> [u8; HEADER_LENGTH] {
    NtpPacket { mode, stratum: 1, ..NtpPacket::request(NtpTimestamp(77), 4) }.to_bytes()
}

/// What a server answers: a cookie for the one that came, and one for each room.
fn answer(keys: &Keys, request: &[u8], header: [u8; HEADER_LENGTH]) -> Option<Vec<u8>> {
    let parts = Parts::of(request).ok()?;
    let authenticator = parts.authenticator?;
    let server = keys.of_server();
    server.open(parts.associated, authenticator.nonce, authenticator.ciphertext)?;
    let mut packet = header.to_vec();
    push_field(&mut packet, field::UNIQUE_IDENTIFIER, parts.identifier?);
    let mut plain = Vec::new();
    for _ in parts
        .fields
        .map_while(Result::ok)
        .filter(|it| matches!(it.kind, field::COOKIE | field::COOKIE_PLACEHOLDER))
    {
        push_field(&mut plain, field::COOKIE, &[9; COOKIE]);
    }
    // A nonce of another length than ours, which is padded.
    let nonce = [3; 14];
    let sealed = server.seal(&packet, &nonce, &plain)?;
    let lengths = (nonce.len() as u32) << 16 | sealed.len() as u32;
    let value = [&lengths.to_be_bytes()[..], &nonce, &[0, 0], &sealed].concat();
    push_field(&mut packet, field::AUTHENTICATOR, &value);
    Some(packet)
}

fn nak(request: &[u8]) -> Vec<u8> {
    let kiss = NtpPacket {
        mode: Mode::Server,
        stratum: 0,
        reference_id: NAK,
        ..NtpPacket::request(NtpTimestamp(77), 4)
    };
    let mut packet = kiss.to_bytes().to_vec();
    push_field(
        &mut packet,
        field::UNIQUE_IDENTIFIER,
        Parts::of(request).unwrap().identifier.unwrap(),
    );
    packet
}

fn after(seconds: i64) -> Time<Mono> {
    NOW + Duration::from_secs(seconds)
}

#[test]
fn the_vectors_of_rfc_5297_come_out() {
    // Appendix A.1: a header and no nonce, which is a header too (section 3).
    let key: [u8; KEY_LENGTH] =
        core::array::from_fn(|n| if n < 16 { 0xff - n as u8 } else { 0xe0 + n as u8 });
    let mut siv = <aes_siv::siv::Aes128Siv as aes_siv::KeyInit>::new((&key).into());
    let associated: Vec<u8> = (0x10..0x28).collect();
    let plain =
        [0x11, 0x22, 0x33, 0x44, 0x55, 0x66, 0x77, 0x88, 0x99, 0xaa, 0xbb, 0xcc, 0xdd, 0xee];
    let sealed = siv.encrypt([&associated], &plain).unwrap();
    let expected = [
        0x85, 0x63, 0x2d, 0x07, 0xc6, 0xe8, 0xf3, 0x7f, 0x95, 0x0a, 0xcd, 0x32, 0x0a, 0x2e, 0xcc,
        0x93, 0x40, 0xc0, 0x2b, 0x96, 0x90, 0xc4, 0xdc, 0x04, 0xda, 0xef, 0x7f, 0x6a, 0xfe, 0x5c,
    ];
    assert_eq!(sealed, expected);
    assert_eq!(exporter_context(AES_SIV_CMAC_256, false), [0, 0, 0, 15, 0]);
    assert_eq!(exporter_context(AES_SIV_CMAC_256, true), [0, 0, 0, 15, 1]);
}

#[test]
fn an_answer_of_the_server_comes_back_as_a_header_and_brings_as_many_cookies_as_were_missing() {
    let mut this = association();
    assert_eq!((this.state(), this.needs_keys(NOW)), (NtsState::Protected, false));
    // Three that nobody answers, which cost a cookie each.
    for _ in 0..3 {
        this.protect(&header(Mode::Client)).unwrap();
    }
    let packet = this.protect(&header(Mode::Client)).unwrap();
    assert_eq!(this.cookies(), 4);
    let room = Parts::of(&packet).unwrap().fields.map(Result::unwrap);
    assert_eq!(room.filter(|it| it.kind == field::COOKIE_PLACEHOLDER).count(), 3);
    let answer = answer(&keys(), &packet, header(Mode::Server)).unwrap();
    assert!(answer.len() <= packet.len(), "no amplification");
    assert_eq!(this.open(&answer), Ok(header(Mode::Server)));
    assert_eq!(this.cookies(), MAX_COOKIES);
    assert_eq!(this.open(&answer), Err(NtsRefused::NotAsked), "a second copy");
    assert_eq!(
        this.counts(),
        NtsCounts { key_exchanges: 1, authentic: 1, refused: 1, ..NtsCounts::default() }
    );
}

#[test]
fn no_cookie_and_no_identifier_is_sent_twice() {
    let mut this = association();
    let mut seen = Vec::new();
    for _ in 0..MAX_COOKIES {
        let packet = this.protect(&header(Mode::Client)).unwrap();
        let parts = Parts::of(&packet).unwrap();
        let fields = parts.fields.map(Result::unwrap);
        let cookie = fields.clone().find(|it| it.kind == field::COOKIE).unwrap().value.to_vec();
        for told in [cookie, parts.identifier.unwrap().to_vec()] {
            assert!(!seen.contains(&told));
            seen.push(told);
        }
    }
    assert_eq!(this.protect(&header(Mode::Client)), None);
    assert_eq!((this.state(), this.needs_keys(NOW)), (NtsState::Renewing, true));
}

#[test]
fn what_others_say_is_refused_and_changes_nothing() {
    let mut this = association();
    let packet = this.protect(&header(Mode::Client)).unwrap();
    let true_answer = answer(&keys(), &packet, header(Mode::Server)).unwrap();
    let other = Keys::new(Zeroizing::new([1; KEY_LENGTH]), Zeroizing::new([3; KEY_LENGTH]));
    let of_others = answer(&other, &packet, header(Mode::Server)).unwrap();
    assert_eq!(this.open(&of_others), Err(NtsRefused::NotAuthentic));
    // Another time in the header of a true one.
    let mut changed = true_answer.clone();
    changed[40] ^= 1;
    assert_eq!(this.open(&changed), Err(NtsRefused::NotAuthentic));
    assert_eq!(this.open(&true_answer[..HEADER_LENGTH]), Err(NtsRefused::NotAsked), "without NTS");
    // Kisses without authentication, by which anybody could silence it.
    let mut kiss = nak(&packet);
    kiss[12..16].copy_from_slice(&ReferenceId::DENY.0);
    assert_eq!(this.open(&kiss), Err(NtsRefused::NotAuthentic));
    let mut foreign = nak(&packet);
    foreign[HEADER_LENGTH + 4] ^= 1;
    assert_eq!(this.open(&foreign), Err(NtsRefused::NotAsked));
    assert_eq!((this.state(), this.cookies()), (NtsState::Protected, MAX_COOKIES - 1));
    assert_eq!(this.open(&true_answer), Ok(header(Mode::Server)));
}

#[test]
fn a_server_that_has_forgotten_its_keys_is_asked_for_new_ones_when_the_next_request_is_due() {
    let mut this = association();
    let packet = this.protect(&header(Mode::Client)).unwrap();
    assert_eq!(this.open(&nak(&packet)), Err(NtsRefused::Nak));
    // A forged one costs nothing if the true answer comes behind it.
    let true_answer = answer(&keys(), &packet, header(Mode::Server)).unwrap();
    assert!(this.open(&true_answer).is_ok());
    assert_eq!(this.state(), NtsState::Protected);
    let packet = this.protect(&header(Mode::Client)).unwrap();
    assert_eq!(this.open(&nak(&packet)), Err(NtsRefused::Nak));
    assert_eq!((this.state(), this.needs_keys(NOW)), (NtsState::Renewing, true));
    this.began(NOW);
    assert!(!this.needs_keys(NOW), "one at a time");
    this.failed(NOW, true);
    // Until there are others the old ones are used: it may have been another one's refusal.
    assert!(this.protect(&header(Mode::Client)).is_some());
    assert!(!this.needs_keys(after(9)) && this.needs_keys(after(10)));
    this.began(after(10));
    this.agreed(keys(), cookies(2));
    assert_eq!((this.state(), this.cookies()), (NtsState::Protected, 2));
}

#[test]
fn attempts_become_rarer_until_an_answer_is_authentic() {
    let mut this = NtsAssociation::new([7; 32]);
    let (mut now, mut pauses) = (NOW, Vec::new());
    for _ in 0..30 {
        assert!(this.needs_keys(now));
        this.began(now);
        this.failed(now, true);
        assert_eq!(this.state(), NtsState::Failed);
        let before = now;
        // Twice too early, to the second.
        while !this.needs_keys(now) {
            now += Duration::from_secs(1);
        }
        pauses.push((now - before).as_nanos() / 1_000_000_000);
    }
    assert_eq!(pauses[..4], [10, 15, 23, 34]);
    assert_eq!(pauses.last(), Some(&(5 * 86_400)));
    // Nobody was reached: that is tried more often.
    this.began(now);
    this.failed(now, false);
    assert!(!this.needs_keys(now + Duration::from_secs(899)));
    assert!(this.needs_keys(now + Duration::from_secs(900)));
    this.began(now);
    this.agreed(keys(), cookies(1));
    let packet = this.protect(&header(Mode::Client)).unwrap();
    this.open(&answer(&keys(), &packet, header(Mode::Server)).unwrap()).unwrap();
    this.doubt();
    this.began(now);
    this.failed(now, true);
    assert!(this.needs_keys(now + Duration::from_secs(10)));
}

fn record(is_critical: bool, kind: u16, body: &[u8]) -> Vec<u8> {
    let record = Record { is_critical, kind, body };
    [&record.head().unwrap()[..], body].concat()
}

fn exchanged(records: &[Vec<u8>]) -> Result<Option<Agreement>, KeyExchangeError> {
    let mut bytes = records.concat();
    bytes.extend(record(true, record::END, &[]));
    let mut exchange = KeyExchange::default();
    // As it comes from a slow network.
    for piece in bytes[..bytes.len() - 1].chunks(7) {
        assert!(matches!(exchange.take(piece), Ok(None)));
    }
    exchange.take(&bytes[bytes.len() - 1..])
}

fn protocol() -> Vec<u8> {
    record(true, record::NEXT_PROTOCOL, &[0, 0])
}

fn aead() -> Vec<u8> {
    record(false, record::AEAD, &[0, 15])
}

fn cookie() -> Vec<u8> {
    record(false, record::NEW_COOKIE, &[5; COOKIE])
}

#[test]
fn what_a_server_agrees_to_is_taken_and_what_it_adds_is_not() {
    let server = record(false, record::SERVER, b"ntp.example");
    let port = record(false, record::PORT, &[4, 1]);
    let unknown = record(false, 0x4000, b"?");
    let records = [protocol(), aead(), vec![cookie(); 12].concat(), server, unknown, port];
    let agreement = exchanged(&records).unwrap().unwrap();
    assert_eq!(agreement.cookies.len(), MAX_COOKIES);
    assert_eq!((agreement.server.as_deref(), agreement.port), (Some("ntp.example"), Some(1025)));
}

#[test]
fn whoever_does_not_agree_gives_no_keys() {
    use KeyExchangeError as E;
    let refused = |records: &[Vec<u8>]| exchanged(records).unwrap_err();
    assert_eq!(refused(&[aead(), cookie()]), E::Protocol);
    assert_eq!(refused(&[record(true, record::NEXT_PROTOCOL, &[]), aead(), cookie()]), E::Protocol);
    assert_eq!(refused(&[protocol(), cookie()]), E::Algorithm);
    assert_eq!(refused(&[protocol(), record(false, record::AEAD, &[]), cookie()]), E::Algorithm);
    assert_eq!(
        refused(&[protocol(), record(false, record::AEAD, &[0, 30]), cookie()]),
        E::Algorithm
    );
    assert_eq!(refused(&[protocol(), aead()]), E::NoCookies);
    assert_eq!(
        refused(&[protocol(), aead(), record(false, record::NEW_COOKIE, &[1; 3])]),
        E::NoCookies
    );
    assert_eq!(refused(&[record(true, record::ERROR, &[0, 1])]), E::Refused(1));
    assert_eq!(
        refused(&[protocol(), aead(), cookie(), record(true, record::WARNING, &[0, 9])]),
        E::Warning(9)
    );
    assert_eq!(refused(&[protocol(), record(true, 0x1234, &[])]), E::Critical(0x1234));
    assert_eq!(refused(&[protocol(), protocol()]), E::Malformed(record::NEXT_PROTOCOL));
    assert_eq!(
        refused(&[protocol(), aead(), record(false, record::PORT, &[0, 0])]),
        E::Malformed(record::PORT)
    );
    assert_eq!(refused(&[record(false, record::SERVER, b"a b")]), E::Malformed(record::SERVER));
    let endless = vec![cookie(); 200].concat();
    assert_eq!(KeyExchange::default().take(&endless), Err(E::TooLong));
}

#[test]
fn what_is_asked_is_what_the_standard_wants() {
    assert_eq!(request(), [0x80, 1, 0, 2, 0, 0, 0x80, 4, 0, 2, 0, 15, 0x80, 0, 0, 0]);
}

proptest! {
    #[test]
    fn nothing_is_opened_that_nobody_sealed(bytes in prop::collection::vec(any::<u8>(), 0..600)) {
        let mut this = association();
        let packet = this.protect(&header(Mode::Client)).unwrap();
        prop_assert!(this.open(&bytes).is_err());
        // The same behind an identifier that is right.
        let begin = &packet[..HEADER_LENGTH + 4 + IDENTIFIER_LENGTH];
        prop_assert!(this.open(&[begin, &bytes].concat()).is_err());
        prop_assert!(this.cookies() <= MAX_COOKIES);
    }

    #[test]
    fn one_bit_is_enough_to_be_refused(bit in 0_usize..8 * 300) {
        let mut this = association();
        let packet = this.protect(&header(Mode::Client)).unwrap();
        let mut answer = answer(&keys(), &packet, header(Mode::Server)).unwrap();
        let bit = bit % (8 * answer.len());
        // Padding behind the nonce says nothing.
        let padding = HEADER_LENGTH + 36 + 8 + 14;
        prop_assume!(!(padding..padding + 2).contains(&(bit / 8)));
        answer[bit / 8] ^= 1 << (bit % 8);
        prop_assert!(this.open(&answer).is_err());
    }

    #[test]
    fn an_answer_of_any_bytes_gives_cookies_or_a_reason(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        let mut exchange = KeyExchange::default();
        if let Ok(Some(agreement)) = exchange.take(&bytes) {
            prop_assert!((1..=MAX_COOKIES).contains(&agreement.cookies.len()));
        }
    }
}
