//! Reading a recording, one block at a time and with the byte position of whatever is wrong. Memory
//! is bounded by the largest block that is accepted, not by what a length field says.

use std::{
    fmt,
    io::{self, Read},
};

use pcap_file::{
    DataLink,
    pcapng::{
        Block, PcapNgParseError, PcapNgParser,
        blocks::{
            enhanced_packet::{EnhancedPacketBlock, EnhancedPacketOption},
            interface_description::InterfaceDescriptionOption,
            opt_common::CommonOption,
        },
    },
};
use ptp_common::time::{Mono, Time};
use serde::Deserialize;

use super::{
    JSON_PDU, MAX_PORTS, VERSION, causes, frame,
    note::{Note, Start},
    servers::{ServerNote, ntp_interface},
};
use crate::{engine::PortIndex, transport::MAX_MESSAGE};

/// The first note of a recording with 256 ports fits four times.
const MAX_BLOCK: u32 = 512 * 1024;
/// What block type and length need, and one more word for the byte order of the first block.
const HEAD: usize = 12;
const SECTION_HEADER: [u8; 4] = [0x0a, 0x0d, 0x0d, 0x0a];
/// What pcap files begin with, in both byte orders, with microseconds and nanoseconds.
const PCAP: [[u8; 4]; 4] = [
    [0xa1, 0xb2, 0xc3, 0xd4],
    [0xd4, 0xc3, 0xb2, 0xa1],
    [0xa1, 0xb2, 0x3c, 0x4d],
    [0x4d, 0x3c, 0xb2, 0xa1],
];

/// Why a recording cannot be read, and where.
#[derive(Debug, thiserror::Error)]
#[error("byte {position}: {problem}")]
pub struct ReadError {
    /// Of the block, or of the place in the file.
    pub position: u64,
    /// What is wrong.
    pub problem: Problem,
}

/// What is wrong with a recording.
#[derive(Debug, thiserror::Error)]
pub enum Problem {
    /// The file could not be read.
    #[error("cannot read: {0}")]
    Io(#[source] io::Error),
    /// Not even the format.
    #[error("this is no pcapng file{0}")]
    NotPcapng(&'static str),
    /// A pcapng file by another program.
    #[error(
        "this is a pcapng file, but no recording: it does not begin with the note of ptp-agent"
    )]
    NotARecording,
    /// By another version of the agent.
    #[error("this is a recording of version {0}, and this program reads version {VERSION}")]
    Version(u64),
    /// The file ends where a recording does not.
    #[error("the recording is cut short: {0}")]
    CutShort(&'static str),
    /// A block that is none.
    #[error("this block cannot be read: {0}")]
    Block(String),
    /// A note that is none, or that cannot be here.
    #[error("this note cannot be read: {0}")]
    Note(String),
}

/// One note.
#[derive(Clone, Debug, PartialEq)]
pub struct Item {
    /// Byte position of its block.
    pub position: u64,
    /// The note.
    pub note: Note,
    /// Its message and the port, if there is one.
    pub message: Option<(PortIndex, Vec<u8>)>,
}

/// What one interface of the file is.
#[derive(Clone, Copy, Debug)]
enum Interface {
    Port(PortIndex),
    Events,
}

/// Reads a recording.
pub struct Reader<R> {
    input: R,
    /// Of the next byte.
    position: u64,
    parser: PcapNgParser,
    block: Vec<u8>,
    start: Start,
    now: Time<Mono>,
    ended: bool,
}

impl<R> fmt::Debug for Reader<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Reader").field("position", &self.position).finish_non_exhaustive()
    }
}

impl<R: Read> Reader<R> {
    /// Reads the beginning, up to and with the start note.
    ///
    /// # Errors
    /// [`ReadError`]: among others when `input` is no recording, or one of another version.
    pub fn new(mut input: R) -> Result<Self, ReadError> {
        let mut block = Vec::new();
        let mut position = 0;
        let at = position;
        if !read_block(&mut input, &mut position, &mut block, None)? {
            return Err(fail(at, Problem::NotPcapng(": it is empty")));
        }
        let (_, mut parser) =
            PcapNgParser::new(&block).map_err(|error| fail(at, unreadable(&error)))?;
        let major = parser.section().major_version;
        if major != 1 {
            let problem = format!("pcapng of version {major} is not known");
            return Err(fail(at, Problem::Block(problem)));
        }
        loop {
            let at = position;
            if !read_block(&mut input, &mut position, &mut block, Some(&parser))? {
                return Err(fail(at, Problem::NotARecording));
            }
            match parse(&mut parser, &block, at)? {
                Block::EnhancedPacket(packet) => {
                    let Some(start) = parse_start(&parser, &packet, at)? else {
                        return Err(fail(at, Problem::NotARecording));
                    };
                    let now = start.now_ns;
                    return Ok(Self { input, position, parser, block, start, now, ended: false });
                }
                Block::InterfaceDescription(_) => check_interfaces(&parser, at)?,
                Block::Packet(_) | Block::SimplePacket(_) | Block::SectionHeader(_) => {
                    return Err(fail(at, Problem::NotARecording));
                }
                _ => {}
            }
        }
    }

    /// With what the recording begins.
    pub const fn start(&self) -> &Start {
        &self.start
    }

    /// The next note; `None` behind the last one.
    ///
    /// # Errors
    /// [`ReadError`]. [`Problem::CutShort`] means that everything before was good.
    pub fn next_item(&mut self) -> Result<Option<Item>, ReadError> {
        loop {
            let at = self.position;
            let Self { input, position, parser, block, .. } = self;
            if !read_block(input, position, block, Some(parser))? {
                return if self.ended {
                    Ok(None)
                } else {
                    Err(fail(at, Problem::CutShort("its end is not marked")))
                };
            }
            match parse(parser, block, at)? {
                Block::EnhancedPacket(packet) => {
                    let item = parse_item(parser, &self.start, &packet, at)?;
                    self.accept(&item)?;
                    return Ok(Some(item));
                }
                Block::InterfaceDescription(_) => check_interfaces(parser, at)?,
                Block::Packet(_) | Block::SimplePacket(_) => {
                    let problem = "a packet that is not of this recording".to_owned();
                    return Err(fail(at, Problem::Block(problem)));
                }
                Block::SectionHeader(_) => {
                    let problem = "a second recording begins here".to_owned();
                    return Err(fail(at, Problem::Block(problem)));
                }
                // Names, statistics and the like, which Wireshark may have added.
                _ => {}
            }
        }
    }

    /// Refuses what no agent writes.
    fn accept(&mut self, item: &Item) -> Result<(), ReadError> {
        let bad = |problem: &str| Err(fail(item.position, Problem::Note(problem.to_owned())));
        if self.ended {
            return bad("it comes behind the end");
        }
        if let Some(now) = item.note.now() {
            if now < self.now {
                return bad("its time is before that of the note before it");
            }
            self.now = now;
        }
        let length = item.message.as_ref().map(|(_, bytes)| bytes.len());
        if length.is_some_and(|length| length > MAX_MESSAGE) {
            return bad("its message is longer than any");
        }
        match &item.note {
            Note::Start(_) => bad("a second start"),
            Note::Message { .. } | Note::Sent { .. } if length.is_none() => {
                bad("it has no message")
            }
            Note::Poll { .. }
            | Note::Link { .. }
            | Note::Reading { .. }
            | Note::Lost { .. }
            | Note::End { .. }
                if length.is_some() =>
            {
                bad("it has a message")
            }
            Note::Link { port, .. } if usize::from(*port) >= self.start.ports.len() => {
                bad("there is no such port")
            }
            Note::End { .. } => {
                self.ended = true;
                Ok(())
            }
            _ => Ok(()),
        }
    }
}

fn fail(position: u64, problem: Problem) -> ReadError {
    ReadError { position, problem }
}

fn unreadable(error: &PcapNgParseError) -> Problem {
    Problem::Block(causes(error))
}

/// Reads as much as there is.
fn fill(input: &mut impl Read, mut buffer: &mut [u8]) -> io::Result<usize> {
    let wanted = buffer.len();
    while !buffer.is_empty() {
        match input.read(buffer) {
            Ok(0) => break,
            Ok(n) => buffer = &mut buffer[n..],
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(wanted - buffer.len())
}

/// Reads one whole block; `false` at the end of the file. The first block, for which there is no
/// parser yet, must be a section header.
fn read_block(
    input: &mut impl Read,
    position: &mut u64,
    block: &mut Vec<u8>,
    parser: Option<&PcapNgParser>,
) -> Result<bool, ReadError> {
    let at = *position;
    let failed = |error| fail(at, Problem::Io(error));
    let mut head = [0; HEAD];
    let got = fill(input, &mut head).map_err(failed)?;
    let [kind, length, order] = [&head[..4], &head[4..8], &head[8..]];
    if got == 0 {
        return Ok(false);
    }
    if parser.is_none() && kind != SECTION_HEADER {
        let is_pcap = PCAP.iter().any(|magic| magic == kind);
        return Err(fail(at, Problem::NotPcapng(if is_pcap { " but a pcap file" } else { "" })));
    }
    if got < HEAD {
        return Err(fail(at + got as u64, Problem::CutShort("it ends within a block")));
    }
    let is_big = match parser {
        _ if kind == SECTION_HEADER => match order {
            [0x1a, 0x2b, 0x3c, 0x4d] => true,
            [0x4d, 0x3c, 0x2b, 0x1a] => false,
            _ => return Err(fail(at, Problem::NotPcapng(""))),
        },
        Some(parser) => parser.section().endianness == pcap_file::Endianness::Big,
        None => false,
    };
    let length = <[u8; 4]>::try_from(length).unwrap_or_default();
    let length = if is_big { u32::from_be_bytes(length) } else { u32::from_le_bytes(length) };
    if !length.is_multiple_of(4) || length < HEAD as u32 {
        let problem = format!("its length, {length}, is impossible");
        return Err(fail(at, Problem::Block(problem)));
    }
    if length > MAX_BLOCK {
        let problem =
            format!("its length is {length} bytes, and no recording has more than {MAX_BLOCK}");
        return Err(fail(at, Problem::Block(problem)));
    }
    let length = length as usize;
    block.clear();
    block.resize(length, 0);
    block[..HEAD].copy_from_slice(&head);
    let got = HEAD + fill(input, &mut block[HEAD..]).map_err(failed)?;
    if got < length {
        return Err(fail(at + got as u64, Problem::CutShort("it ends within a block")));
    }
    *position += length as u64;
    Ok(true)
}

fn parse<'a>(parser: &mut PcapNgParser, block: &'a [u8], at: u64) -> Result<Block<'a>, ReadError> {
    match parser.next_block(block) {
        Ok((_, block)) => Ok(block),
        Err(error) => Err(fail(at, unreadable(&error))),
    }
}

fn check_interfaces(parser: &PcapNgParser, at: u64) -> Result<(), ReadError> {
    if parser.interfaces().len() > MAX_PORTS + 1 {
        return Err(fail(at, Problem::Block("there are too many interfaces".to_owned())));
    }
    Ok(())
}

/// The JSON of a note, and the frame if the note is the comment of one.
fn json_of<'a>(
    parser: &PcapNgParser,
    packet: &'a EnhancedPacketBlock<'_>,
) -> Option<(&'a [u8], Option<&'a [u8]>)> {
    let interface = parser.packet_interface(packet)?;
    if interface.linktype == DataLink::WIRESHARK_UPPER_PDU {
        return packet.data.strip_prefix(&JSON_PDU).map(|json| (json, None));
    }
    // Readers of the file may have added comments of their own.
    packet.options.iter().find_map(|option| match option {
        EnhancedPacketOption::Common(CommonOption::Comment(text))
            if text.starts_with(r#"{"ptp_agent":"#) =>
        {
            Some((text.as_bytes(), Some(&*packet.data)))
        }
        _ => None,
    })
}

/// The start note, or `None` if this is something else.
fn parse_start(
    parser: &PcapNgParser,
    packet: &EnhancedPacketBlock<'_>,
    at: u64,
) -> Result<Option<Start>, ReadError> {
    #[derive(Deserialize)]
    struct Preamble {
        ptp_agent: String,
        version: u64,
    }
    let Some((json, None)) = json_of(parser, packet) else {
        return Ok(None);
    };
    let Ok(Preamble { ptp_agent, version }) = serde_json::from_slice(json) else {
        return Ok(None);
    };
    if ptp_agent != "start" {
        return Ok(None);
    }
    if version != u64::from(VERSION) {
        return Err(fail(at, Problem::Version(version)));
    }
    let bad = |problem: String| fail(at, Problem::Note(problem));
    match serde_json::from_slice(json).map_err(|error| bad(error.to_string()))? {
        Note::Start(start) => match start.fault() {
            Some(fault) => Err(bad(fault.to_owned())),
            None => Ok(Some(start)),
        },
        _ => Ok(None),
    }
}

fn parse_item(
    parser: &PcapNgParser,
    start: &Start,
    packet: &EnhancedPacketBlock<'_>,
    at: u64,
) -> Result<Item, ReadError> {
    let bad = |problem: &str| fail(at, Problem::Note(problem.to_owned()));
    let (json, frame) =
        json_of(parser, packet).ok_or_else(|| bad("a packet without a note of ptp-agent"))?;
    let note = serde_json::from_slice(json).map_err(|error| bad(&error.to_string()))?;
    let message = match (frame, interface(parser, start, packet.interface_id)) {
        (None, Some(Interface::Events)) => None,
        (Some(frame), Some(Interface::Port(port))) => {
            let whole = usize::try_from(packet.original_len) == Ok(frame.len());
            let message = frame::message(frame)
                .filter(|_| whole)
                .ok_or_else(|| bad("its packet carries no whole message"))?;
            Some((port, message.to_vec()))
        }
        _ => return Err(bad("its interface belongs to no port")),
    };
    Ok(Item { position: at, note, message })
}

fn interface(parser: &PcapNgParser, start: &Start, number: u32) -> Option<Interface> {
    let interface = parser.interfaces().get(usize::try_from(number).ok()?)?;
    if interface.linktype == DataLink::WIRESHARK_UPPER_PDU {
        return Some(Interface::Events);
    }
    let name = interface.options.iter().find_map(|option| match option {
        InterfaceDescriptionOption::IfName(name) => Some(name),
        _ => None,
    })?;
    let is_servers = |server: &ServerNote| **name == *ntp_interface(server);
    let servers = || start.ntp.iter().flat_map(|ntp| &ntp.servers);
    let port = start.ports.iter().position(|port| port.interface == **name);
    let port = port.or_else(|| Some(start.ports.len() + servers().position(is_servers)?))?;
    u16::try_from(port).ok().map(|port| Interface::Port(PortIndex(port)))
}
