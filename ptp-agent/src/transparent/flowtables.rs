//! Flowtables of netfilter, and the devices that they take packets from. What is in one is forwarded past routing and
//! firewall: in software it still passes TC, so that it is timed and corrected like everything else, in hardware
//! (`flags offload`) nobody sees it. The kernel is asked over netlink, and what it says is read here.

use std::{
    io::{self, ErrorKind},
    os::fd::AsRawFd as _,
};

use nix::sys::{
    socket::{
        AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, recv, send, setsockopt, socket,
        sockopt::ReceiveTimeout,
    },
    time::TimeVal,
};

/// What forwards packets of a device past the usual way.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Flows {
    /// Nothing.
    #[default]
    None,
    /// A flowtable, in the kernel.
    Software,
    /// A flowtable that asks the hardware to.
    Hardware,
}

impl Flows {
    /// The name in status.
    pub const fn name(self) -> Option<&'static str> {
        match self {
            Self::None => None,
            Self::Software => Some("software"),
            Self::Hardware => Some("hardware"),
        }
    }

    /// Tells the log that this is so now.
    pub(super) fn tell(self, port: &str) {
        match self {
            Self::None => tracing::info!(port, "in no flowtable any more"),
            Self::Software => tracing::info!(
                port,
                "a flowtable of netfilter forwards from here, past the firewall; that is corrected as well"
            ),
            Self::Hardware => tracing::warn!(
                port,
                "a flowtable of netfilter asks the hardware to forward from here: what that does is neither seen nor corrected"
            ),
        }
    }
}

/// A flowtable.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Flowtable {
    /// Table and name.
    pub name: String,
    /// Devices by their names.
    pub devices: Vec<String>,
    /// Whether it asks the hardware.
    pub is_hardware: bool,
}

/// Of a netlink message's head, bytes; and of nfnetlink's behind it.
const HEAD: usize = 16;
const FAMILY: usize = 4;
const NFNL_SUBSYS_NFTABLES: u16 = 10;
const NFT_MSG_NEWFLOWTABLE: u16 = NFNL_SUBSYS_NFTABLES << 8 | 22;
const NFT_MSG_GETFLOWTABLE: u16 = NFNL_SUBSYS_NFTABLES << 8 | 23;
const NLM_F_REQUEST: u16 = 1;
const NLM_F_DUMP: u16 = 0x300;
const NLMSG_ERROR: u16 = 2;
const NLMSG_DONE: u16 = 3;
/// Attributes of a flowtable, of its hook, and of its list of devices.
const TABLE: u16 = 1;
const NAME: u16 = 2;
const HOOK: u16 = 3;
const FLAGS: u16 = 7;
const DEVICES: u16 = 3;
const DEVICE: u16 = 1;
/// `NFT_FLOWTABLE_HW_OFFLOAD`.
const HARDWARE: u32 = 1;
/// The kernel answers at once, or never.
const PATIENCE_S: i64 = 1;
/// A part of an answer is shorter.
const PART: usize = 64 * 1024;

/// All flowtables of this network namespace; none where the kernel knows of no such thing.
///
/// # Errors
/// What the kernel says: CAP_NET_ADMIN is needed.
pub fn read() -> io::Result<Vec<Flowtable>> {
    let protocol = SockProtocol::NetlinkNetFilter;
    let flags = SockFlag::SOCK_CLOEXEC;
    let socket = match socket(AddressFamily::Netlink, SockType::Raw, flags, protocol) {
        Ok(socket) => socket,
        // A kernel without netfilter.
        Err(nix::errno::Errno::EPROTONOSUPPORT) => return Ok(Vec::new()),
        Err(error) => return Err(error.into()),
    };
    setsockopt(&socket, ReceiveTimeout, &TimeVal::new(PATIENCE_S, 0))?;
    send(socket.as_raw_fd(), &request(), MsgFlags::empty())?;
    let mut tables = Vec::new();
    let mut part = vec![0; PART];
    loop {
        let length = recv(socket.as_raw_fd(), &mut part, MsgFlags::empty())?;
        match parse(&part[..length], &mut tables) {
            Ok(Part::More) => {}
            Ok(Part::Last) => return Ok(tables),
            // Without nf_tables, or without flowtables in it.
            Err(error) if error.kind() == ErrorKind::Unsupported => return Ok(tables),
            Err(error) => return Err(error),
        }
    }
}

/// How packets of a device are forwarded past the usual way.
pub fn of(tables: &[Flowtable], device: &str) -> Flows {
    let has = |table: &&Flowtable| table.devices.iter().any(|name| name == device);
    let flows = tables.iter().filter(has).map(|table| match table.is_hardware {
        true => Flows::Hardware,
        false => Flows::Software,
    });
    flows.max().unwrap_or_default()
}

fn request() -> Vec<u8> {
    let length = (HEAD + FAMILY) as u32;
    let mut bytes = length.to_ne_bytes().to_vec();
    bytes.extend(NFT_MSG_GETFLOWTABLE.to_ne_bytes());
    bytes.extend((NLM_F_REQUEST | NLM_F_DUMP).to_ne_bytes());
    // Number and port; then any family, version 0 and no resource.
    bytes.resize(HEAD + FAMILY, 0);
    bytes
}

/// Whether more is to come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Part {
    More,
    Last,
}

/// Reads a part of an answer.
fn parse(mut bytes: &[u8], tables: &mut Vec<Flowtable>) -> io::Result<Part> {
    while let Some((head, _)) = bytes.split_first_chunk::<HEAD>() {
        let length = u32::from_ne_bytes([head[0], head[1], head[2], head[3]]) as usize;
        let Some(body) = bytes.get(HEAD..length) else {
            return Err(ErrorKind::InvalidData.into());
        };
        match u16::from_ne_bytes([head[4], head[5]]) {
            NLMSG_DONE => return Ok(Part::Last),
            NLMSG_ERROR => {
                let code = body.first_chunk::<4>().copied().map_or(0, i32::from_ne_bytes);
                return match -code {
                    0 => Ok(Part::Last),
                    libc::EOPNOTSUPP | libc::EINVAL => Err(ErrorKind::Unsupported.into()),
                    code => Err(io::Error::from_raw_os_error(code)),
                };
            }
            NFT_MSG_NEWFLOWTABLE => tables.push(flowtable(body.get(FAMILY..).unwrap_or_default())),
            _ => {}
        }
        bytes = bytes.get(aligned(length)..).unwrap_or_default();
    }
    Ok(Part::More)
}

fn flowtable(bytes: &[u8]) -> Flowtable {
    let mut table = Flowtable::default();
    let (mut of, mut name) = (String::new(), String::new());
    for (kind, value) in attributes(bytes) {
        match kind {
            TABLE => of = text(value),
            NAME => name = text(value),
            HOOK => {
                let lists = attributes(value).filter(|(kind, _)| *kind == DEVICES);
                let devices = lists.flat_map(|(_, list)| attributes(list));
                let devices = devices.filter(|(kind, _)| *kind == DEVICE);
                table.devices.extend(devices.map(|(_, device)| text(device)));
            }
            FLAGS => {
                let flags = value.first_chunk::<4>().copied().map_or(0, u32::from_be_bytes);
                table.is_hardware = flags & HARDWARE != 0;
            }
            _ => {}
        }
    }
    table.name = format!("{of} {name}");
    table
}

/// Kinds and values, up to the first that is not whole.
fn attributes(mut bytes: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    std::iter::from_fn(move || {
        let head = bytes.first_chunk::<4>()?;
        let length = usize::from(u16::from_ne_bytes([head[0], head[1]]));
        let value = bytes.get(4..length)?;
        // Without the flags for nesting and byte order.
        let kind = u16::from_ne_bytes([head[2], head[3]]) & 0x3fff;
        bytes = bytes.get(aligned(length)..).unwrap_or_default();
        Some((kind, value))
    })
}

const fn aligned(length: usize) -> usize {
    length.next_multiple_of(4)
}

fn text(value: &[u8]) -> String {
    let end = value.iter().position(|byte| *byte == 0).unwrap_or(value.len());
    String::from_utf8_lossy(&value[..end]).into_owned()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn attribute(kind: u16, value: &[u8]) -> Vec<u8> {
        let mut bytes = (value.len() as u16 + 4).to_ne_bytes().to_vec();
        bytes.extend(kind.to_ne_bytes());
        bytes.extend(value);
        bytes.resize(aligned(bytes.len()), 0);
        bytes
    }

    fn message(kind: u16, body: &[u8]) -> Vec<u8> {
        let mut bytes = ((HEAD + body.len()) as u32).to_ne_bytes().to_vec();
        bytes.extend(kind.to_ne_bytes());
        bytes.resize(HEAD, 0);
        bytes.extend(body);
        bytes
    }

    /// As nf_tables says it.
    fn table(name: &str, devices: &[&str], flags: u32) -> Vec<u8> {
        let devices: Vec<u8> =
            devices.iter().flat_map(|name| attribute(1, format!("{name}\0").as_bytes())).collect();
        let hook = [attribute(1, &[0; 4]), attribute(2, &[0; 4]), attribute(0x8003, &devices)];
        let body = [
            vec![1, 0, 0, 0],
            attribute(1, b"filter\0"),
            attribute(2, format!("{name}\0").as_bytes()),
            attribute(4, &[0; 4]),
            attribute(7, &flags.to_be_bytes()),
            attribute(0x8003, &hook.concat()),
        ];
        message(NFT_MSG_NEWFLOWTABLE, &body.concat())
    }

    #[test]
    fn flowtables_are_read_with_their_devices_and_whether_the_hardware_is_asked() {
        let answer = [
            table("ft", &["eth0", "tap0"], 0),
            table("hw", &["eth1"], 1),
            message(NLMSG_DONE, &[0; 4]),
        ];
        let mut tables = Vec::new();
        assert_eq!(parse(&answer.concat(), &mut tables).unwrap(), Part::Last);
        assert_eq!(tables[0].name, "filter ft");
        let flows = ["eth0", "tap0", "eth1", "eth2"].map(|device| of(&tables, device));
        assert_eq!(flows, [Flows::Software, Flows::Software, Flows::Hardware, Flows::None]);
        assert_eq!(parse(&table("more", &[], 0), &mut tables).unwrap(), Part::More);
    }

    #[test]
    fn a_kernel_that_knows_of_no_flowtables_has_none_and_one_that_refuses_is_an_error() {
        let mut tables = Vec::new();
        for (code, kind) in [
            (libc::EOPNOTSUPP, ErrorKind::Unsupported),
            (libc::EINVAL, ErrorKind::Unsupported),
            (libc::EPERM, ErrorKind::PermissionDenied),
        ] {
            let answer = message(NLMSG_ERROR, &(-code).to_ne_bytes());
            assert_eq!(parse(&answer, &mut tables).unwrap_err().kind(), kind);
        }
    }

    proptest! {
        #[test]
        fn whatever_is_answered_is_read_to_its_end(bytes in prop::collection::vec(any::<u8>(), 0..256)) {
            let mut tables = Vec::new();
            let _ = parse(&bytes, &mut tables);
            let _ = parse(&message(NFT_MSG_NEWFLOWTABLE, &bytes), &mut tables);
            prop_assert!(tables.len() <= 16);
        }
    }
}
