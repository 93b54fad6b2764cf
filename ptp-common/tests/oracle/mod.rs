//! A second classifier, written for the reader and not for the verifier: it peels a frame layer by
//! layer. The property tests and the fuzz target hold [`ptp_common::classify`] against it.

use ptp_common::classify::{Location, Network, Reject};

/// The front `N` bytes of what is left, which is then shorter by as much.
fn take<const N: usize>(rest: &mut &[u8]) -> Result<[u8; N], Reject> {
    let (front, back) = rest.split_first_chunk().ok_or(Reject::Truncated)?;
    *rest = back;
    Ok(*front)
}

/// What [`ptp_common::classify::classify`] must say of `frame`.
pub(crate) fn oracle(frame: &[u8]) -> Result<Location, Reject> {
    let mut rest = frame;
    let _addresses: [u8; 12] = take(&mut rest)?;
    let mut ethertype = u16::from_be_bytes(take(&mut rest)?);
    let mut tags = Vec::new();
    while tags.len() < 2 && [0x8100, 0x88a8].contains(&ethertype) {
        tags.push(u16::from_be_bytes(take(&mut rest)?));
        ethertype = u16::from_be_bytes(take(&mut rest)?);
    }
    let l3_offset = frame.len() - rest.len();

    let (network, header_length) = match ethertype {
        0x88f7 => (Network::Ethernet, 0),
        0x0800 => {
            let header: [u8; 10] = take(&mut rest)?;
            let (version, words) = (header[0] / 16, usize::from(header[0] % 16));
            let fragment_offset = u16::from_be_bytes([header[6], header[7]]) % 0x2000;
            if version != 4 || words < 5 || header[9] != 17 || fragment_offset != 0 {
                return Err(Reject::NotPtp);
            }
            (Network::Ipv4, 4 * words)
        }
        0x86dd => {
            let header: [u8; 7] = take(&mut rest)?;
            if header[6] != 17 {
                return Err(Reject::NotPtp);
            }
            (Network::Ipv6, 40)
        }
        _ => return Err(Reject::NotPtp),
    };

    let (mut source_port, mut destination_port, mut ptp_offset) = (0, 0, l3_offset);
    if network != Network::Ethernet {
        let mut udp = frame.get(l3_offset + header_length..).ok_or(Reject::Truncated)?;
        source_port = u16::from_be_bytes(take(&mut udp)?);
        destination_port = u16::from_be_bytes(take(&mut udp)?);
        if ![319, 320].contains(&destination_port) {
            return Err(Reject::NotPtp);
        }
        ptp_offset = l3_offset + header_length + 8;
    }
    let mut vlan = [0; 2];
    vlan[..tags.len()].copy_from_slice(&tags);
    Ok(Location {
        network,
        l3_offset,
        ptp_offset,
        source_port,
        destination_port,
        vlan,
        vlan_count: tags.len() as u8,
    })
}
