//! Generic netlink, as far as the agent asks: a question by the number of a command, with attributes, to a family that is
//! looked up by its name, and the answers' attributes as they came. The kernel answers while it is asked, so nothing
//! here waits. What an attribute means is the caller's affair.

use std::{
    io,
    sync::atomic::{AtomicU32, Ordering},
};

use rtnetlink::{
    packet_core::{
        NLM_F_ACK, NLM_F_DUMP, NLM_F_REQUEST, NetlinkDeserializable, NetlinkHeader, NetlinkMessage,
        NetlinkPayload, NetlinkSerializable, NlaBuffer, NlasIterator,
    },
    sys::{Socket, SocketAddr, protocols::NETLINK_GENERIC},
};

/// Answers that are read at the most: a card has two loops and some dozens of pins.
const MOST: usize = 64;
const BUFFER: usize = 64 * 1024;

// linux/netlink.h and linux/genetlink.h.
const CONTROLLER: u16 = 0x10;
const GET_FAMILY: u8 = 3;
const FAMILY_ID: u16 = 1;
const FAMILY_NAME: u16 = 2;
/// `NLA_F_NESTED`: the value consists of attributes.
const NESTED: u16 = 0x8000;

/// How much is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Extent {
    /// What the attributes name, with an answer that it is done.
    One,
    /// Everything that there is.
    All,
}

/// A message of generic netlink.
#[derive(Clone, Debug, PartialEq)]
struct Generic {
    family: u16,
    command: u8,
    attributes: Vec<u8>,
}

impl NetlinkSerializable for Generic {
    fn message_type(&self) -> u16 {
        self.family
    }

    fn buffer_len(&self) -> usize {
        4 + self.attributes.len()
    }

    fn serialize(&self, buffer: &mut [u8]) {
        buffer[..4].copy_from_slice(&[self.command, 1, 0, 0]);
        buffer[4..].copy_from_slice(&self.attributes);
    }
}

impl NetlinkDeserializable for Generic {
    type Error = io::Error;

    fn deserialize(header: &NetlinkHeader, payload: &[u8]) -> Result<Self, io::Error> {
        let (head, attributes) =
            payload.split_first_chunk::<4>().ok_or(io::ErrorKind::UnexpectedEof)?;
        let attributes = attributes.to_vec();
        Ok(Self { family: header.message_type, command: head[0], attributes })
    }
}

/// A socket for questions to one family. It belongs to the network namespace in which it was opened.
#[derive(Debug)]
pub(crate) struct Connection {
    socket: Socket,
    family: u16,
    /// Of the last question.
    number: AtomicU32,
}

impl Connection {
    /// Looks a family up by its name.
    ///
    /// # Errors
    /// ENOENT where the kernel has no such family (or no driver that brings it), and what sockets say.
    pub(crate) fn open(name: &str) -> io::Result<Self> {
        let mut socket = Socket::new(NETLINK_GENERIC)?;
        socket.bind_auto()?;
        socket.connect(&SocketAddr::new(0, 0))?;
        socket.set_non_blocking(true)?;
        let mut this = Self { socket, family: CONTROLLER, number: AtomicU32::new(0) };
        let name = attribute(FAMILY_NAME, format!("{name}\0").as_bytes());
        let families = this.ask(GET_FAMILY, name, Extent::One)?;
        let family = families.first().and_then(|answer| number(&find(answer, FAMILY_ID)?));
        let family = family.and_then(|id| u16::try_from(id).ok());
        this.family = family.ok_or_else(|| io::Error::from_raw_os_error(libc::ENOENT))?;
        Ok(this)
    }

    /// The attributes of all answers.
    ///
    /// # Errors
    /// What the kernel answers.
    pub(crate) fn ask(
        &self,
        command: u8,
        attributes: Vec<u8>,
        extent: Extent,
    ) -> io::Result<Vec<Vec<u8>>> {
        let number = self.number.fetch_add(1, Ordering::Relaxed).wrapping_add(1);
        let mut header = NetlinkHeader::default();
        header.flags = NLM_F_REQUEST | if extent == Extent::One { NLM_F_ACK } else { NLM_F_DUMP };
        header.sequence_number = number;
        let payload =
            NetlinkPayload::InnerMessage(Generic { family: self.family, command, attributes });
        let mut message = NetlinkMessage::new(header, payload);
        message.finalize();
        let mut bytes = vec![0; message.buffer_len()];
        message.serialize(&mut bytes);
        self.socket.send(&bytes, 0)?;
        let mut answers = Vec::new();
        for _ in 0..MOST {
            let mut buffer = Vec::with_capacity(BUFFER);
            match self.socket.recv(&mut buffer, 0) {
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) => return Err(error),
            }
            let mut rest = &buffer[..];
            while !rest.is_empty() {
                let Ok(message) = NetlinkMessage::<Generic>::deserialize(rest) else { break };
                let length = usize::try_from(message.header.length).unwrap_or(0);
                // To a multiple of four.
                rest = rest.get(length.next_multiple_of(4).max(16)..).unwrap_or_default();
                // What is left of an earlier question.
                if message.header.sequence_number != number {
                    continue;
                }
                match message.payload {
                    NetlinkPayload::InnerMessage(answer) => answers.push(answer.attributes),
                    NetlinkPayload::Error(error) if error.code.is_some() => {
                        return Err(error.to_io());
                    }
                    NetlinkPayload::Done(_) | NetlinkPayload::Error(_) => return Ok(answers),
                    _ => {}
                }
            }
        }
        Ok(answers)
    }
}

/// An attribute of a request.
pub(crate) fn attribute(kind: u16, value: &[u8]) -> Vec<u8> {
    let length = 4 + value.len();
    let head = [u16::try_from(length).unwrap_or(u16::MAX), kind].map(u16::to_ne_bytes);
    let mut bytes = [&head.concat(), value].concat();
    bytes.resize(length.next_multiple_of(4), 0);
    bytes
}

/// An attribute that consists of attributes.
pub(crate) fn nest(kind: u16, attributes: &[Vec<u8>]) -> Vec<u8> {
    attribute(kind | NESTED, &attributes.concat())
}

/// The attributes of a message, as far as they are whole.
pub(crate) fn attributes(bytes: &[u8]) -> impl Iterator<Item = (u16, Vec<u8>)> + '_ {
    let whole = NlasIterator::new(bytes).map_while(Result::ok);
    whole.map(|it: NlaBuffer<&[u8]>| (it.kind(), it.value().to_vec()))
}

/// The value of the first attribute of a kind.
pub(crate) fn find(bytes: &[u8], kind: u16) -> Option<Vec<u8>> {
    attributes(bytes).find(|(other, _)| *other == kind).map(|(_, value)| value)
}

/// A number of two, four or eight octets.
pub(crate) fn number(value: &[u8]) -> Option<u64> {
    match value.len() {
        2 => Some(u16::from_ne_bytes(value.try_into().ok()?).into()),
        4 => Some(u32::from_ne_bytes(value.try_into().ok()?).into()),
        8 => Some(u64::from_ne_bytes(value.try_into().ok()?)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attributes_are_read_as_they_were_written() {
        let bytes = [
            attribute(1, &7_u32.to_ne_bytes()),
            nest(2, &[attribute(3, b"a\0"), attribute(4, &9_u64.to_ne_bytes())]),
        ]
        .concat();
        assert_eq!(number(&find(&bytes, 1).unwrap()), Some(7));
        let inner = find(&bytes, 2).unwrap();
        assert_eq!(find(&inner, 3).unwrap(), b"a\0");
        assert_eq!(number(&find(&inner, 4).unwrap()), Some(9));
        assert_eq!(find(&bytes, 5), None);
        assert_eq!(number(&[1, 2, 3]), None);
    }

    #[test]
    fn a_family_that_the_kernel_does_not_have_is_told_apart_from_other_trouble() {
        let error = Connection::open("no-such-family").unwrap_err();
        assert_eq!(error.raw_os_error(), Some(libc::ENOENT));
    }
}
