//! Claims about the classifier: generated frames of every kind, whole and cut at every byte, are
//! classified as what they were generated to be and as the oracle says.

mod oracle;

use oracle::oracle;
use proptest::{collection::vec, option, prelude::*, sample::select};
use ptp_common::classify::{
    ETHERTYPE_CTAG, ETHERTYPE_IPV4, ETHERTYPE_IPV6, ETHERTYPE_PTP, ETHERTYPE_STAG, Frame, Location,
    Network, PORT_EVENT, PORT_GENERAL, Reject, classify, classify_ethertype,
};

/// What a frame is made from.
#[derive(Clone, Debug)]
struct Recipe {
    tags: Vec<(u16, u16)>,
    payload: Payload,
    message: Vec<u8>,
}

#[derive(Clone, Debug)]
enum Payload {
    Ethernet,
    Ipv4 { options: Vec<[u8; 4]>, fragment: u16, protocol: u8, udp: (u16, u16) },
    Ipv6 { next_header: u8, udp: (u16, u16) },
    Other { ethertype: u16 },
}

impl Recipe {
    fn frame(&self) -> Vec<u8> {
        let mut frame = vec![0x01, 0x1b, 0x19, 0, 0, 0, 0x02, 0, 0, 0, 0, 1];
        for (ethertype, tci) in &self.tags {
            frame.extend(ethertype.to_be_bytes());
            frame.extend(tci.to_be_bytes());
        }
        let udp_length = (8 + self.message.len()) as u16;
        let udp_header = |(source, destination): (u16, u16)| {
            [source, destination, udp_length, 0].map(u16::to_be_bytes).concat()
        };
        match &self.payload {
            Payload::Ethernet => frame.extend(ETHERTYPE_PTP.to_be_bytes()),
            Payload::Ipv4 { options, fragment, protocol, udp } => {
                frame.extend(ETHERTYPE_IPV4.to_be_bytes());
                let words = 5 + options.len();
                let total = (words * 4) as u16 + udp_length;
                frame.extend([0x40 | words as u8, 0]);
                frame.extend([total, 0x1234, *fragment].map(u16::to_be_bytes).concat());
                frame.extend([1, *protocol, 0, 0, 10, 0, 0, 1, 224, 0, 1, 129]);
                frame.extend(options.concat());
                frame.extend(udp_header(*udp));
            }
            Payload::Ipv6 { next_header, udp } => {
                frame.extend(ETHERTYPE_IPV6.to_be_bytes());
                frame.extend([0x60, 0, 0, 0]);
                frame.extend(udp_length.to_be_bytes());
                frame.extend([*next_header, 1]);
                frame.extend([0xfe; 16]);
                frame.extend([0xff; 16]);
                frame.extend(udp_header(*udp));
            }
            Payload::Other { ethertype } => frame.extend(ethertype.to_be_bytes()),
        }
        frame.extend(&self.message);
        frame
    }

    /// What the recipe says, with no look at the frame.
    fn expected(&self) -> Result<Location, Reject> {
        let l3_offset = 14 + 4 * self.tags.len();
        let mut vlan = [0; 2];
        for (place, (_, tci)) in vlan.iter_mut().zip(&self.tags) {
            *place = *tci;
        }
        let (network, header_length, udp) = match &self.payload {
            Payload::Ethernet => (Network::Ethernet, 0, None),
            Payload::Ipv4 { options, fragment, protocol: 17, udp } if fragment & 0x1fff == 0 => {
                (Network::Ipv4, 20 + 4 * options.len(), Some(*udp))
            }
            Payload::Ipv6 { next_header: 17, udp } => (Network::Ipv6, 40, Some(*udp)),
            _ => return Err(Reject::NotPtp),
        };
        let (source_port, destination_port) = udp.unwrap_or((0, 0));
        if udp.is_some() && ![PORT_EVENT, PORT_GENERAL].contains(&destination_port) {
            return Err(Reject::NotPtp);
        }
        Ok(Location {
            network,
            l3_offset,
            ptp_offset: l3_offset + header_length + if udp.is_some() { 8 } else { 0 },
            source_port,
            destination_port,
            vlan,
            vlan_count: self.tags.len() as u8,
        })
    }
}

fn ports() -> impl Strategy<Value = (u16, u16)> {
    let port = || prop_oneof![4 => select(&[PORT_EVENT, PORT_GENERAL][..]), 1 => any::<u16>()];
    (port(), port())
}

fn recipe() -> impl Strategy<Value = Recipe> {
    let protocol = || prop_oneof![6 => Just(17u8), 1 => any::<u8>()];
    // Whole, first fragment (more fragments follow), later fragment, don't-fragment.
    let fragment =
        prop_oneof![4 => Just(0u16), 1 => Just(0x2000), 1 => Just(0x4000), 1 => any::<u16>()];
    let payload = prop_oneof![
        2 => Just(Payload::Ethernet),
        4 => (vec(any::<[u8; 4]>(), 0..=10), fragment, protocol(), ports()).prop_map(
            |(options, fragment, protocol, udp)| Payload::Ipv4 { options, fragment, protocol, udp }
        ),
        3 => (protocol(), ports())
            .prop_map(|(next_header, udp)| Payload::Ipv6 { next_header, udp }),
        1 => any::<u16>()
            .prop_filter("one of the others", |ethertype| {
                ![0x0800, 0x86dd, 0x88f7, 0x8100, 0x88a8].contains(ethertype)
            })
            .prop_map(|ethertype| Payload::Other { ethertype }),
    ];
    let tag = (select(&[ETHERTYPE_CTAG, ETHERTYPE_STAG][..]), any::<u16>());
    let message = vec(any::<u8>(), 0..130);
    (vec(tag, 0..=2), payload, message).prop_map(|(tags, payload, message)| Recipe {
        tags,
        payload,
        message,
    })
}

proptest! {
    #[test]
    fn a_frame_is_what_it_was_made_to_be(recipe in recipe()) {
        let frame = recipe.frame();
        prop_assert_eq!(classify(&frame[..]), recipe.expected());
        prop_assert_eq!(oracle(&frame), recipe.expected());
        if let Ok(location) = classify(&frame[..]) {
            prop_assert_eq!(&frame[location.ptp_offset..], &recipe.message[..]);
        }
    }

    #[test]
    fn a_frame_cut_at_any_byte_is_classified_as_the_oracle_says(recipe in recipe()) {
        let frame = recipe.frame();
        for length in 0..=frame.len() {
            let cut = &frame[..length];
            prop_assert_eq!(classify(cut), oracle(cut), "cut at {}", length);
            // Less of a frame can only be less certain.
            let certain = classify(cut) == Err(Reject::Truncated) || classify(cut) == recipe.expected();
            prop_assert!(certain, "cut at {}", length);
        }
    }

    #[test]
    fn arbitrary_bytes_are_classified_as_the_oracle_says(
        mut frame in vec(any::<u8>(), 0..160),
        ethertypes in vec(option::of(select(&[0x0800u16, 0x86dd, 0x88f7, 0x8100, 0x88a8][..])), 3),
    ) {
        for (at, ethertype) in [12, 16, 20].into_iter().zip(ethertypes) {
            if let (Some(place), Some(ethertype)) = (frame.get_mut(at..at + 2), ethertype) {
                place.copy_from_slice(&ethertype.to_be_bytes());
            }
        }
        prop_assert_eq!(classify(&frame[..]), oracle(&frame));
    }

    #[test]
    fn a_caller_that_knows_the_ethertype_gets_the_same_answer(recipe in recipe()) {
        let frame = recipe.frame();
        let ethertype = frame[..].be16(12).unwrap();
        prop_assert_eq!(classify_ethertype(&frame[..], ethertype), classify(&frame[..]));
    }
}

#[test]
fn three_tags_are_not_followed() {
    let recipe = Recipe {
        tags: vec![(ETHERTYPE_STAG, 1), (ETHERTYPE_CTAG, 2), (ETHERTYPE_CTAG, 3)],
        payload: Payload::Ethernet,
        message: vec![0; 44],
    };
    assert_eq!(classify(&recipe.frame()[..]), Err(Reject::NotPtp));
    assert_eq!(oracle(&recipe.frame()), Err(Reject::NotPtp));
}

#[test]
fn a_read_at_the_end_of_the_address_space_is_refused() {
    assert_eq!([0u8; 4][..].be16(usize::MAX), None);
    assert_eq!([0u8; 4][..].be16(3), None);
    assert_eq!([1u8, 2, 3, 4][..].be16(2), Some(0x0304));
}
