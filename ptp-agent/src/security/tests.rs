//! What passes with keys and what does not.

use super::*;
use proptest::prelude::*;
use ptp_common::{
    time::Duration,
    wire::{Body, ClockIdentity, Flags, Header, Message, PortIdentity, Timestamp, Tlvs},
};

const KEYS: &str = "[security_association]\nspp 1\n\
    1 AES128 HEX:FAF48EBA01E7C5966A76CB787AED4E7B\n\
    2 AES256 B64:PKTF9VQz94qPaoAzW4eE3JtFoQ8Ov1OTQSojalWyMbs=\n\
    3 SHA256 26 abcdefghijklmnopqrstuvwxyz\n\
    4 SHA256-128 ASCII:another\n\
    [security_association]\nspp 2\nallow_mutable 1\n7 SHA256-128 secret\n";

fn associations(active: (u8, u32), is_required: bool) -> Associations {
    let choice = file::Choice { spp: Some(active.0), key_id: Some(active.1) };
    let keys = Arc::new(file::parse(KEYS, choice).unwrap());
    Associations::new(Policy { keys, is_required, domains: vec![0] })
}

fn message(sequence_id: u16) -> Vec<u8> {
    let source =
        PortIdentity { clock_identity: ClockIdentity([1, 2, 3, 4, 5, 6, 7, 8]), port_number: 1 };
    let mut header = Header::new(source, sequence_id);
    header.flags = Flags::TWO_STEP;
    let body = Body::Sync { origin_timestamp: Timestamp::ZERO };
    let mut bytes = vec![0; 44];
    Message { header, body, tlvs: Tlvs::NONE }.emit(&mut bytes).unwrap();
    bytes
}

fn sealed(by: &Associations, message: &[u8]) -> Vec<u8> {
    let mut buffer = [0; MAX_SEALED];
    by.seal(message, &mut buffer).unwrap().to_vec()
}

fn open(by: &mut Associations, bytes: &[u8]) -> Result<Trust, Refusal> {
    by.open(Time::ZERO, 0, bytes)
}

#[test]
fn every_key_signs_what_it_opens_with_the_lengths_of_linuxptp() {
    for (key, length) in [((1, 1), 70), ((1, 2), 70), ((1, 3), 86), ((1, 4), 70), ((2, 7), 70)] {
        let mut associations = associations(key, true);
        let signed = sealed(&associations, &message(5));
        assert_eq!(signed.len(), length);
        assert_eq!(open(&mut associations, &signed), Ok(Trust::Verified), "{key:?}");
        let parsed = Message::parse(&signed).unwrap();
        assert_eq!(parsed.header, Message::parse(&message(5)).unwrap().header);
    }
}

#[test]
fn every_key_of_the_association_is_accepted_so_that_keys_can_change_without_a_gap() {
    let mut receiver = associations((1, 1), true);
    for (number, key) in [1, 2, 3, 4].into_iter().enumerate() {
        let sender = associations((1, key), true);
        let signed = sealed(&sender, &message(number as u16));
        assert_eq!(open(&mut receiver, &signed), Ok(Trust::Verified));
    }
}

#[test]
fn port_that_requires_takes_nothing_unsigned_and_no_other_association() {
    let mut receiver = associations((1, 1), true);
    assert_eq!(open(&mut receiver, &message(1)), Err(Refusal::Missing));
    let other = sealed(&associations((2, 7), true), &message(1));
    assert_eq!(open(&mut receiver, &other), Err(Refusal::UnknownKey));
    let mut unknown = sealed(&associations((1, 1), true), &message(1));
    unknown[44 + 9] = 99;
    assert_eq!(open(&mut receiver, &unknown), Err(Refusal::UnknownKey));
}

#[test]
fn port_that_does_not_require_takes_unsigned_messages_and_none_that_is_signed_wrongly() {
    let mut receiver = associations((1, 1), false);
    assert_eq!(open(&mut receiver, &message(1)), Ok(Trust::Unverified));
    let other = sealed(&associations((2, 7), false), &message(1));
    assert_eq!(open(&mut receiver, &other), Ok(Trust::Verified));
    let mut wrong = sealed(&receiver, &message(2));
    wrong[40] ^= 1;
    assert_eq!(open(&mut receiver, &wrong), Err(Refusal::Failed));
}

#[test]
fn messages_of_other_domains_and_no_messages_are_left_to_others() {
    let mut receiver = associations((1, 1), true);
    let mut other = message(1);
    other[4] = 123;
    assert_eq!(open(&mut receiver, &other), Ok(Trust::Unverified));
    assert_eq!(open(&mut receiver, &[0x0b, 0x12]), Ok(Trust::Unverified));
}

#[test]
fn replays_are_refused_and_a_forgery_makes_no_window() {
    let mut receiver = associations((1, 1), true);
    let signed = sealed(&receiver, &message(7));
    let mut forged = sealed(&receiver, &message(9));
    *forged.last_mut().unwrap() ^= 1;
    assert_eq!(open(&mut receiver, &forged), Err(Refusal::Failed));
    assert_eq!(receiver.windows.len(), 0);
    assert_eq!(open(&mut receiver, &signed), Ok(Trust::Verified));
    assert_eq!(open(&mut receiver, &signed), Err(Refusal::Replayed));
    let later = Time::ZERO + Duration::from_secs(3600);
    assert_eq!(receiver.open(later, 0, &signed), Err(Refusal::Replayed));
}

#[test]
fn correction_may_change_only_where_the_association_says_so() {
    for (key, expected) in [((1, 1), Err(Refusal::Failed)), ((2, 7), Ok(Trust::Verified))] {
        let mut receiver = associations(key, true);
        let mut signed = sealed(&receiver, &message(1));
        signed[12] ^= 0x40;
        assert_eq!(open(&mut receiver, &signed), expected);
    }
}

#[test]
fn padding_behind_the_message_is_not_protected_and_changes_nothing() {
    let mut receiver = associations((1, 3), true);
    let mut signed = sealed(&receiver, &message(1));
    signed.extend([0xa5; 9]);
    assert_eq!(open(&mut receiver, &signed), Ok(Trust::Verified));
}

#[test]
fn new_keys_do_not_open_old_messages_again() {
    let mut receiver = associations((1, 1), true);
    let signed = sealed(&receiver, &message(7));
    assert_eq!(open(&mut receiver, &signed), Ok(Trust::Verified));
    let policy = associations((1, 4), true).policy.clone();
    receiver.set_policy(policy);
    assert_eq!(open(&mut receiver, &signed), Err(Refusal::Replayed));
    let next = sealed(&associations((1, 4), true), &message(8));
    assert_eq!(open(&mut receiver, &next), Ok(Trust::Verified));
}

#[test]
fn verdicts_are_counted_under_their_names() {
    let mut totals = Totals::default();
    totals.count(Ok(Trust::Verified));
    totals.count(Err(Refusal::Replayed));
    totals.count(Err(Refusal::Replayed));
    let counted: Vec<_> = totals.refusals().filter(|(_, total)| *total > 0).collect();
    assert_eq!((totals.verified, counted), (1, vec![("auth_replayed", 2)]));
}

#[test]
fn nothing_is_signed_that_would_hide_its_signature_in_a_tlv() {
    // Found by a fuzzer: a TLV that says to be 26 octets longer than the message has.
    let mut bytes = message(1);
    bytes.extend([0, 0, 0, 32, 0, 0, 0, 0, 0, 0]);
    let length = bytes.len() as u16;
    bytes[2..4].copy_from_slice(&length.to_be_bytes());
    let mut buffer = [0; MAX_SEALED];
    assert!(associations((1, 1), false).seal(&bytes, &mut buffer).is_err());
}

proptest! {
    #[test]
    fn no_change_of_a_signed_message_passes(
        key in 1..=4_u32,
        changes in prop::collection::vec((any::<prop::sample::Index>(), 1..=255_u8), 1..4),
    ) {
        let mut receiver = associations((1, key), true);
        let signed = sealed(&receiver, &message(1));
        let mut changed = signed.clone();
        for (at, bits) in &changes {
            changed[at.index(signed.len())] ^= bits;
        }
        // Another domain, or no message: not judged, and dropped by who takes it next.
        let is_judged = MessageView::new(&changed).is_ok() && changed[4] == 0;
        prop_assume!(changed != signed && is_judged);
        // The length may say less than was signed, but then the TLV is cut.
        prop_assert!(open(&mut receiver, &changed).is_err());
    }

    #[test]
    fn no_bytes_make_it_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        let mut associations = associations((1, 1), true);
        let _ = open(&mut associations, &bytes);
        let mut buffer = [0; 100];
        let is_signed = associations.seal(&bytes, &mut buffer).is_ok();
        let view = MessageView::new(&bytes);
        let is_whole = view.is_ok_and(|view| AuthenticationView::of(&view).is_ok());
        prop_assert_eq!(is_signed, is_whole && bytes.len() <= 100 - 26);
    }
}
