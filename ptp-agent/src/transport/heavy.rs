//! Senders that send more than anybody can take, told to the kernel: of their packets only one in so many
//! reaches the socket's queue, so that there is room in it for others; of clients that were known before, all do. A
//! classic filter on the socket, which costs a packet some nanoseconds and needs no privilege.

use std::net::IpAddr;

use socket2::SockFilter;

use super::TransportKind;
use crate::{
    engine::address::Address,
    sys::classic::{AND, IF_EQUAL, JUMP, LOAD_HALF, LOAD_WORD, MULTIPLY, RETURN, TO_X, XOR_X},
};

/// Senders that a filter knows at the most.
pub(crate) const MOST: usize = 16;

/// So that words that are alike do not take each other out.
const SPREAD: u32 = 0x9e37_79b1;
/// Where a filter finds the network header, the link header and random numbers, whatever the socket.
const NETWORK: u32 = libc::SKF_NET_OFF as u32;
const LINK: u32 = libc::SKF_LL_OFF as u32;
const RANDOM: u32 = (libc::SKF_AD_OFF + libc::SKF_AD_RANDOM) as u32;

/// `sourcePortIdentity`.
pub type Identity = [u8; 10];

/// Identities that a filter knows at the most: the kernel counts a filter's memory as the socket's, which has 20 KiB.
pub(crate) const REGULARS: usize = 128;

/// As many are of each of so many senders.
pub(crate) const fn regulars_of_each(senders: usize) -> usize {
    match REGULARS.checked_div(senders) {
        Some(each) => each,
        None => REGULARS,
    }
}

const RETURN_ALL: SockFilter = SockFilter::new(RETURN, 0, 0, u32::MAX);
const RETURN_NONE: SockFilter = SockFilter::new(RETURN, 0, 0, 0);

/// A filter that lets pass one in `1 << keep` packets of `senders`, all of theirs that are of `regulars`, and all of
/// others. `first` is put in front of it, and must go on behind itself where a packet may pass.
pub(super) fn filter(
    kind: TransportKind,
    senders: &[Address],
    regulars: &[(Address, Identity)],
    keep: u32,
    first: Vec<SockFilter>,
) -> Vec<SockFilter> {
    let mut program = first;
    let each = regulars_of_each(senders.len().min(MOST));
    for sender in senders.iter().take(MOST) {
        let Some(parts) = parts(kind, *sender) else { continue };
        let own = regulars.iter().filter(|(at, _)| at == sender).take(each);
        let block = all_of(kind, own.map(|(_, identity)| *identity), keep);
        // Who is somebody else goes to the next sender, which may be too far for a conditional jump.
        for (at, (load, offset, value)) in parts.iter().enumerate() {
            let further = 3 * (parts.len() - at - 1) + block.len();
            program.push(SockFilter::new(*load, 0, 0, *offset));
            program.push(SockFilter::new(IF_EQUAL, 1, 0, *value));
            program.push(SockFilter::new(JUMP, 0, 0, further as u32));
        }
        program.extend(block);
    }
    program.push(RETURN_ALL);
    program
}

/// A filter that lets pass one in `1 << keep` packets of all, and all of `regulars`, wherever they are.
pub(super) fn strict(
    kind: TransportKind,
    regulars: &[(Address, Identity)],
    keep: u32,
    first: Vec<SockFilter>,
) -> Vec<SockFilter> {
    let mut program = first;
    let own = regulars.iter().take(REGULARS).map(|(_, identity)| *identity);
    program.extend(all_of(kind, own, keep));
    program
}

/// Lets pass all packets of these clocks, and one in `1 << keep` of others.
fn all_of(
    kind: TransportKind,
    identities: impl Iterator<Item = Identity>,
    keep: u32,
) -> Vec<SockFilter> {
    let lot = (1_u32 << keep.min(31)) - 1;
    let lottery = [
        SockFilter::new(LOAD_WORD, 0, 0, RANDOM),
        SockFilter::new(AND, 0, 0, lot),
        SockFilter::new(IF_EQUAL, 1, 0, 0),
        RETURN_NONE,
        RETURN_ALL,
    ];
    let mut known: Vec<u32> = identities.map(folded).collect();
    known.sort_unstable();
    known.dedup();
    let mut program = Vec::new();
    if !known.is_empty() {
        // A UDP socket's filter sees the UDP header first, a packet socket's here the message.
        let at = if kind == TransportKind::L2 { 20 } else { 8 + 20 };
        program.extend([
            SockFilter::new(LOAD_WORD, 0, 0, at),
            SockFilter::new(MULTIPLY, 0, 0, SPREAD),
            SockFilter::new(TO_X, 0, 0, 0),
            SockFilter::new(LOAD_WORD, 0, 0, at + 4),
            SockFilter::new(XOR_X, 0, 0, 0),
        ]);
    }
    for (n, value) in known.iter().enumerate() {
        let to_end = known.len() - n - 1 + lottery.len() - 1;
        program.push(SockFilter::new(IF_EQUAL, to_end as u8, 0, *value));
    }
    program.extend(lottery);
    program
}

/// Both words of a clock identity in one: one in four thousand million strangers is taken for somebody known.
fn folded(identity: Identity) -> u32 {
    let [a, b, c, d, e, f, g, h, ..] = identity;
    u32::from_be_bytes([a, b, c, d]).wrapping_mul(SPREAD) ^ u32::from_be_bytes([e, f, g, h])
}

/// What a packet of a sender has where: load, offset, value.
fn parts(kind: TransportKind, sender: Address) -> Option<Vec<(u16, u32, u32)>> {
    match (kind, sender) {
        (TransportKind::L2, Address::Mac([a, b, c, d, e, f])) => Some(vec![
            (LOAD_WORD, LINK.wrapping_add(6), u32::from_be_bytes([a, b, c, d])),
            (LOAD_HALF, LINK.wrapping_add(10), u32::from(u16::from_be_bytes([e, f]))),
        ]),
        (TransportKind::Udp4, Address::Socket(from)) => match from.ip() {
            IpAddr::V4(ip) => Some(vec![(LOAD_WORD, NETWORK.wrapping_add(12), ip.to_bits())]),
            IpAddr::V6(_) => None,
        },
        (TransportKind::Udp6, Address::Socket(from)) => match from.ip() {
            IpAddr::V6(ip) => {
                let words = ip.octets();
                let word = |at: usize| u32::from_be_bytes([0, 1, 2, 3].map(|n| words[4 * at + n]));
                let part =
                    |at: usize| (LOAD_WORD, NETWORK.wrapping_add(8 + 4 * at as u32), word(at));
                Some((0..4).map(part).collect())
            }
            IpAddr::V4(_) => None,
        },
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use socket2::{Domain, Socket, Type};
    use std::net::{Ipv4Addr, SocketAddr, UdpSocket};

    fn from(host: u8) -> Address {
        Address::Socket((Ipv4Addr::new(127, 0, 0, host), 319).into())
    }

    /// How many of `count` packets of each host reach a socket that has the filter.
    fn received(filter: &[SockFilter], hosts: &[u8], count: usize) -> Vec<usize> {
        let socket = Socket::new(Domain::IPV4, Type::DGRAM, None).unwrap();
        socket.bind(&SocketAddr::from((Ipv4Addr::LOCALHOST, 0)).into()).unwrap();
        socket.attach_filter(filter).unwrap();
        socket.set_nonblocking(true).unwrap();
        let receiver = UdpSocket::from(socket);
        let to = receiver.local_addr().unwrap();
        hosts
            .iter()
            .map(|host| {
                let sender = UdpSocket::bind((Ipv4Addr::new(127, 0, 0, *host), 0)).unwrap();
                let mut received = 0;
                for _ in 0..count {
                    sender.send_to(&[0; 44], to).unwrap();
                    while receiver.recv(&mut [0; 64]).is_ok() {
                        received += 1;
                    }
                }
                received
            })
            .collect()
    }

    #[test]
    fn one_in_so_many_packets_of_the_heavy_and_all_of_others_pass() {
        let senders = [from(2), from(4)];
        let filter = filter(TransportKind::Udp4, &senders, &[], 4, Vec::new());
        let received = received(&filter, &[1, 2, 3, 4], 3200);
        assert_eq!((received[0], received[2]), (3200, 3200));
        for heavy in [received[1], received[3]] {
            assert!((100..320).contains(&heavy), "{heavy} of 3200");
        }
    }

    #[test]
    fn without_heavy_senders_all_pass() {
        let filter = filter(TransportKind::Udp4, &[], &[], 10, Vec::new());
        assert_eq!(received(&filter, &[1, 2], 100), [100, 100]);
    }

    #[test]
    fn programs_for_every_transport_and_the_most_senders_are_accepted_by_the_kernel() {
        for (kind, domain) in
            [(TransportKind::Udp6, Domain::IPV6), (TransportKind::L2, Domain::IPV4)]
        {
            let sender = |n: u8| match kind {
                TransportKind::L2 => Address::Mac([2, 0, 0, 0, 0, n]),
                _ => Address::Socket(([0xfe80, 0, 0, 0, 0, 0, 0, u16::from(n)], 319).into()),
            };
            let senders: Vec<Address> = (0..MOST as u8).map(sender).collect();
            let socket = Socket::new(domain, Type::DGRAM, None).unwrap();
            let regulars: Vec<(Address, Identity)> = senders
                .iter()
                .flat_map(|sender| {
                    (0..regulars_of_each(MOST) as u8)
                        .map(move |n| (*sender, [n, 0, 0, 0, 0, 0, 0, 0, 0, 1]))
                })
                .collect();
            let groups = [[1, 2, 3, 4, 5, 6]; 2];
            let first = || crate::sys::packet::own_frames_first(&groups);
            socket.attach_filter(&filter(kind, &senders, &regulars, 8, first())).unwrap();
            let one = &senders[..1];
            let all: Vec<_> =
                (0..REGULARS).map(|n| (senders[0], [n as u8, 0, 0, 0, 0, 0, 0, 0, 0, 1])).collect();
            socket.attach_filter(&strict(kind, &all, 8, first())).unwrap();
            socket.attach_filter(&filter(kind, one, &all, 8, first())).unwrap();
        }
    }

    #[test]
    fn of_a_heavy_sender_those_who_were_known_pass() {
        let known = |n: u8| [n, 1, 2, 3, 4, 5, 6, 0x70, 0, 1];
        let regulars = [(from(2), known(7)), (from(2), known(8)), (from(3), known(9))];
        let filter = filter(TransportKind::Udp4, &[from(2), from(3)], &regulars, 10, Vec::new());
        let socket = Socket::new(Domain::IPV4, Type::DGRAM, None).unwrap();
        socket.bind(&SocketAddr::from((Ipv4Addr::LOCALHOST, 0)).into()).unwrap();
        socket.attach_filter(&filter).unwrap();
        socket.set_nonblocking(true).unwrap();
        let receiver = UdpSocket::from(socket);
        let to = receiver.local_addr().unwrap();
        let passed = |host: u8, identity: Identity| {
            let sender = UdpSocket::bind((Ipv4Addr::new(127, 0, 0, host), 0)).unwrap();
            let mut message = [0; 44];
            message[20..30].copy_from_slice(&identity);
            let each = (0..64).map(|_| {
                sender.send_to(&message, to).unwrap();
                i32::from(receiver.recv(&mut [0; 64]).is_ok())
            });
            each.sum::<i32>()
        };
        for (host, n) in [(2, 7), (2, 8), (3, 9), (1, 0)] {
            assert_eq!(passed(host, known(n)), 64, "{host} {n}");
        }
        for (host, n) in [(2, 9), (3, 7), (3, 0)] {
            assert!(passed(host, known(n)) < 8, "{host} {n}");
        }
    }
}
