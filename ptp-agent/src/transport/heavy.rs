//! Senders that send more than anybody can take, told to the kernel: of their packets only one in so many
//! reaches the socket's queue, so that there is room in it for others. A classic filter on the socket, which
//! costs a packet some nanoseconds and needs no privilege.

use std::net::IpAddr;

use socket2::SockFilter;

use super::TransportKind;
use crate::engine::address::Address;

/// Senders that a filter knows at the most.
pub(crate) const MOST: usize = 16;

const LOAD_WORD: u16 = 0x20;
const LOAD_HALF: u16 = 0x28;
const JUMP_IF_EQUAL: u16 = 0x15;
const AND: u16 = 0x54;
const RETURN: u16 = 0x06;
/// Where a filter finds the network header, the link header and random numbers, whatever the socket.
const NETWORK: u32 = libc::SKF_NET_OFF as u32;
const LINK: u32 = libc::SKF_LL_OFF as u32;
const RANDOM: u32 = (libc::SKF_AD_OFF + libc::SKF_AD_RANDOM) as u32;

/// A filter that lets pass one in `1 << keep` packets of `senders`, and all of others. `first` is put in
/// front of it, and must go on behind itself where a packet may pass.
pub(super) fn filter(
    kind: TransportKind,
    senders: &[Address],
    keep: u32,
    first: Vec<SockFilter>,
) -> Vec<SockFilter> {
    let checks: Vec<Vec<(u16, u32, u32)>> =
        senders.iter().take(MOST).filter_map(|sender| parts(kind, *sender)).collect();
    // Each part is a load and a jump; behind them all: pass, then the lot.
    let total: usize = checks.iter().map(|parts| 2 * parts.len()).sum();
    let mut program = first;
    let mut left = total;
    for parts in &checks {
        let mut to_next = 2 * parts.len();
        for (at, (load, offset, value)) in parts.iter().enumerate() {
            program.push(SockFilter::new(*load, 0, 0, *offset));
            left -= 2;
            to_next -= 2;
            let is_last = at + 1 == parts.len();
            // Equal: the next part, or the lot behind "pass". Not equal: the next sender.
            let equal = if is_last { left + 1 } else { 0 };
            program.push(SockFilter::new(JUMP_IF_EQUAL, equal as u8, to_next as u8, *value));
        }
    }
    let lot = (1_u32 << keep.min(31)) - 1;
    program.extend([
        SockFilter::new(RETURN, 0, 0, u32::MAX),
        SockFilter::new(LOAD_WORD, 0, 0, RANDOM),
        SockFilter::new(AND, 0, 0, lot),
        SockFilter::new(JUMP_IF_EQUAL, 0, 1, 0),
        SockFilter::new(RETURN, 0, 0, u32::MAX),
        SockFilter::new(RETURN, 0, 0, 0),
    ]);
    program
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
        let filter = filter(TransportKind::Udp4, &senders, 4, Vec::new());
        let received = received(&filter, &[1, 2, 3, 4], 3200);
        assert_eq!((received[0], received[2]), (3200, 3200));
        for heavy in [received[1], received[3]] {
            assert!((100..320).contains(&heavy), "{heavy} of 3200");
        }
    }

    #[test]
    fn without_heavy_senders_all_pass() {
        let filter = filter(TransportKind::Udp4, &[], 10, Vec::new());
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
            socket.attach_filter(&filter(kind, &senders, 8, Vec::new())).unwrap();
        }
    }
}
