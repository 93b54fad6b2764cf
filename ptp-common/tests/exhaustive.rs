//! What is small enough to be tried in full: every value of every byte that the classifier decides by, at every
//! length, and every fraction of a nanosecond that a correction field carries. (A model checker would say the same;
//! this runs everywhere in a second or two.)

use std::cell::Cell;

use ptp_common::{
    classify::{
        ETHERTYPE_CTAG, ETHERTYPE_IPV4, ETHERTYPE_IPV6, ETHERTYPE_PTP, ETHERTYPE_STAG, Frame,
        PORT_EVENT, PORT_GENERAL, Reject, classify,
    },
    time::{Duration, Ptp, Time},
    wire::{TimeInterval, Timestamp},
};

/// A frame that notes what is read of it.
struct Watched<'a> {
    bytes: &'a [u8],
    length: usize,
    /// End of the farthest byte that was read.
    read: Cell<usize>,
    refused: Cell<bool>,
}

impl Watched<'_> {
    fn take<const N: usize>(&self, offset: usize) -> Option<[u8; N]> {
        let end = offset.checked_add(N)?;
        if end > self.length {
            self.refused.set(true);
            return None;
        }
        self.read.set(self.read.get().max(end));
        self.bytes[offset..].first_chunk().copied()
    }
}

impl Frame for Watched<'_> {
    fn byte(&self, offset: usize) -> Option<u8> {
        self.take::<1>(offset).map(|[byte]| byte)
    }
    fn be16(&self, offset: usize) -> Option<u16> {
        assert_eq!(offset % 2, 0, "the kernel reads only what is aligned");
        self.take(offset).map(u16::from_be_bytes)
    }
    fn be16_pair(&self, offset: usize) -> Option<[u16; 2]> {
        assert_eq!(offset % 2, 0, "the kernel reads only what is aligned");
        let [a, b, c, d] = self.take(offset)?;
        Some([u16::from_be_bytes([a, b]), u16::from_be_bytes([c, d])])
    }
}

/// Longest frame up to the end of the ports: two tags, a header of 60 bytes, ports.
const DECIDING: usize = 14 + 8 + 60 + 4;

/// Claims about `bytes` at every length that can make a difference.
fn check(bytes: &mut [u8; DECIDING]) {
    // Beyond the fixed part of the headers, every length is like the one before the ports end.
    for length in 0..=DECIDING {
        let frame = Watched { bytes, length, read: Cell::new(0), refused: Cell::new(false) };
        match classify(&frame) {
            Ok(location) => {
                assert!(frame.read.get() <= length && !frame.refused.get());
                assert!(location.vlan_count <= 2);
                assert_eq!(location.l3_offset, 14 + 4 * usize::from(location.vlan_count));
                let header = location.ptp_offset - location.l3_offset;
                assert!(header == 0 || (28..=68).contains(&header), "{header}");
                assert!(
                    location.ptp_offset <= length + 4,
                    "only the rest of the UDP header may lack"
                );
            }
            Err(Reject::Truncated) => assert!(frame.refused.get()),
            Err(Reject::NotPtp) => assert!(!frame.refused.get()),
        }
    }
}

#[test]
fn no_value_of_a_deciding_byte_leads_out_of_the_frame_or_out_of_the_bounds() {
    let mut frames = 0;
    let tags: [&[u16]; 7] = [
        &[],
        &[ETHERTYPE_CTAG],
        &[ETHERTYPE_STAG],
        &[ETHERTYPE_STAG, ETHERTYPE_CTAG],
        &[ETHERTYPE_CTAG, ETHERTYPE_CTAG],
        &[ETHERTYPE_CTAG, ETHERTYPE_STAG],
        &[ETHERTYPE_STAG, ETHERTYPE_STAG],
    ];
    for tags in tags {
        let l3 = 14 + 4 * tags.len();
        let mut begin = [0; DECIDING];
        for (n, tag) in tags.iter().enumerate() {
            begin[12 + 4 * n..][..2].copy_from_slice(&tag.to_be_bytes());
        }
        let mut with = |ethertype: u16, fill: &mut dyn FnMut(&mut [u8; DECIDING])| {
            let mut bytes = begin;
            bytes[l3 - 2..l3].copy_from_slice(&ethertype.to_be_bytes());
            fill(&mut bytes);
            frames += 1;
            check(&mut bytes);
        };
        for port in [PORT_EVENT, PORT_GENERAL, 0] {
            for protocol in [17, 6] {
                for version_ihl in 0..=255_u8 {
                    for fragment in [0, 0x4000, 0x2000, 1, 0x1fff] {
                        with(ETHERTYPE_IPV4, &mut |bytes| {
                            bytes[l3] = version_ihl;
                            bytes[l3 + 6..l3 + 8].copy_from_slice(&u16::to_be_bytes(fragment));
                            bytes[l3 + 9] = protocol;
                            let udp = l3 + 4 * usize::from(version_ihl & 0xf);
                            if udp >= l3 + 20 {
                                bytes[udp + 2..udp + 4].copy_from_slice(&port.to_be_bytes());
                            }
                        });
                    }
                }
                with(ETHERTYPE_IPV6, &mut |bytes| {
                    bytes[l3 + 6] = protocol;
                    bytes[l3 + 42..l3 + 44].copy_from_slice(&port.to_be_bytes());
                });
            }
        }
        for ethertype in [ETHERTYPE_PTP, 0, 0xffff, ETHERTYPE_CTAG] {
            with(ethertype, &mut |_| ());
        }
    }
    assert!(frames > 50_000);
}

#[test]
fn time_stamp_and_correction_together_are_the_time_to_the_last_fraction() {
    const SECOND: i128 = 1_000_000_000 << 16;
    for seconds in [0, 1, 1_700_000_000, (1 << 48) - 1] {
        for nanos in [0, 1, 999_999_999] {
            for fraction in 0..=0xffff_i128 {
                let scaled = seconds * SECOND + (nanos << 16) + fraction;
                let time: Time<Ptp> = Time::from_epoch(Duration::from_scaled_nanos(scaled));
                let (stamp, rest) = Timestamp::from_time(time);
                assert!((0..=0xffff).contains(&rest.0));
                // What a Follow_Up says: its time stamp and its correction.
                assert_eq!(Time::<Ptp>::from(stamp) + rest.into(), time);
                // What a Delay_Resp says: its time stamp less its correction, of a request that had some.
                for request in [0, 1, -1, 1 << 40, i64::MIN + 1, i64::MAX - 0xffff] {
                    let correction = TimeInterval(request.saturating_sub(rest.0));
                    let told = Time::<Ptp>::from(stamp) - Duration::from(correction);
                    let exact = time - Duration::from(TimeInterval(request));
                    assert!(told == exact || request < i64::MIN + 0x10000);
                }
            }
        }
    }
}

#[test]
fn every_correction_survives_the_way_through_a_duration() {
    let near = |edge: i64| (-70_000_i64..70_000).map(move |by| edge.saturating_add(by));
    for scaled in near(0).chain(near(i64::MIN)).chain(near(i64::MAX)).chain(near(1 << 32)) {
        let correction = TimeInterval(scaled);
        assert_eq!(TimeInterval::from(Duration::from(correction)), correction, "{scaled}");
    }
}
