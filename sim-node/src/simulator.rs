//! The client's side of clknetsim's protocol: requests over a Unix socket of type SOCK_SEQPACKET, each a head of
//! two 32-bit words (number, zero) and a body, in the machine's own byte order. One request is outstanding at a
//! time; time passes only within SELECT. Written from the layout of its messages alone.

use std::{
    io,
    os::fd::{AsRawFd, OwnedFd},
    path::Path,
    thread,
    time::Duration as StdDuration,
};

use nix::sys::socket::{
    AddressFamily, MsgFlags, SockFlag, SockType, UnixAddr, connect, recv, send, socket,
};

/// Longest message that the server carries, bytes.
pub(crate) const MAX_MESSAGE: usize = 4_000;
/// To all nodes.
pub(crate) const ALL_NODES: u32 = u32::MAX;
/// Attempts to reach the server, and the time between two: nodes are started first.
const ATTEMPTS: (u32, StdDuration) = (3_000, StdDuration::from_millis(10));
/// A datagram, among the server's types of messages.
const UDP: u32 = 1;
const TIMEX: usize = 208;
const MESSAGE_HEAD: usize = 24;

/// Numbers of the requests.
mod request {
    pub(super) const REGISTER: i32 = 1;
    pub(super) const GETTIME: i32 = 2;
    pub(super) const ADJTIMEX: i32 = 4;
    pub(super) const SELECT: i32 = 6;
    pub(super) const SEND: i32 = 7;
    pub(super) const RECV: i32 = 8;
    pub(super) const DEREGISTER: i32 = 11;
}

/// The node's clocks at one instant, seconds; CLOCK_REALTIME since the date at which the simulation begins.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct Readings {
    pub(crate) real_s: f64,
    pub(crate) monotonic_s: f64,
}

/// Why SELECT has returned.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Wake {
    /// The time is up.
    Timeout(Readings),
    /// A message waits.
    Message(Readings),
    /// The simulation is over.
    Terminate,
}

/// A message with the other end's address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Packet {
    pub(crate) subnet: u32,
    /// From whom or to whom, counted from 0.
    pub(crate) node: u32,
    pub(crate) src_port: u32,
    pub(crate) dst_port: u32,
    pub(crate) data: Vec<u8>,
}

/// What of `struct timex` a clock is asked and told by.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Timex {
    pub(crate) modes: u32,
    pub(crate) offset: i64,
    pub(crate) frequency: i64,
    pub(crate) max_error: i64,
    pub(crate) est_error: i64,
    pub(crate) status: i32,
    pub(crate) constant: i64,
    /// Seconds, and nanoseconds that are never negative.
    pub(crate) time: (i64, i64),
    pub(crate) tick: i64,
    pub(crate) tai: i32,
}

impl Timex {
    fn emit(&self) -> [u8; TIMEX] {
        let mut bytes = [0; TIMEX];
        let mut put = |at: usize, value: &[u8]| bytes[at..at + value.len()].copy_from_slice(value);
        put(0, &self.modes.to_ne_bytes());
        put(8, &self.offset.to_ne_bytes());
        put(16, &self.frequency.to_ne_bytes());
        put(24, &self.max_error.to_ne_bytes());
        put(32, &self.est_error.to_ne_bytes());
        put(40, &self.status.to_ne_bytes());
        put(48, &self.constant.to_ne_bytes());
        put(72, &self.time.0.to_ne_bytes());
        put(80, &self.time.1.to_ne_bytes());
        put(88, &self.tick.to_ne_bytes());
        put(160, &self.tai.to_ne_bytes());
        bytes
    }

    fn read(bytes: &[u8]) -> io::Result<Self> {
        Ok(Self {
            modes: field::<4, _>(bytes, 0, u32::from_ne_bytes)?,
            offset: field::<8, _>(bytes, 8, i64::from_ne_bytes)?,
            frequency: field::<8, _>(bytes, 16, i64::from_ne_bytes)?,
            max_error: field::<8, _>(bytes, 24, i64::from_ne_bytes)?,
            est_error: field::<8, _>(bytes, 32, i64::from_ne_bytes)?,
            status: field::<4, _>(bytes, 40, i32::from_ne_bytes)?,
            constant: field::<8, _>(bytes, 48, i64::from_ne_bytes)?,
            time: (
                field::<8, _>(bytes, 72, i64::from_ne_bytes)?,
                field::<8, _>(bytes, 80, i64::from_ne_bytes)?,
            ),
            tick: field::<8, _>(bytes, 88, i64::from_ne_bytes)?,
            tai: field::<4, _>(bytes, 160, i32::from_ne_bytes)?,
        })
    }
}

fn field<const N: usize, T>(bytes: &[u8], at: usize, read: fn([u8; N]) -> T) -> io::Result<T> {
    bytes
        .get(at..at + N)
        .and_then(|field| field.try_into().ok())
        .map(read)
        .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "a reply of the server is short"))
}

fn readings(bytes: &[u8], at: usize) -> io::Result<Readings> {
    Ok(Readings {
        real_s: field(bytes, at, f64::from_ne_bytes)?,
        monotonic_s: field(bytes, at + 8, f64::from_ne_bytes)?,
    })
}

/// The way to the server.
#[derive(Debug)]
pub(crate) struct Simulator {
    socket: OwnedFd,
}

impl Simulator {
    /// Connects to the server at `path`, and waits until it lets `node`, counted from 1, begin.
    ///
    /// # Errors
    /// What the kernel reports; also when the server goes away, here and below.
    pub(crate) fn register(path: &Path, node: u32) -> io::Result<Self> {
        let address = UnixAddr::new(path)?;
        let (attempts, pause) = ATTEMPTS;
        let mut attempt = 0;
        let socket = loop {
            let flags = SockFlag::SOCK_CLOEXEC;
            let socket = socket(AddressFamily::Unix, SockType::SeqPacket, flags, None)?;
            match connect(socket.as_raw_fd(), &address) {
                Ok(()) => break socket,
                Err(error) if attempt >= attempts => return Err(error.into()),
                Err(_) => {
                    attempt += 1;
                    thread::sleep(pause);
                }
            }
        };
        let this = Self { socket };
        this.ask(request::REGISTER, &node.saturating_sub(1).to_ne_bytes())?;
        Ok(this)
    }

    /// The clocks, now.
    pub(crate) fn time(&self) -> io::Result<Readings> {
        readings(&self.ask(request::GETTIME, &0_u32.to_ne_bytes())?, 0)
    }

    /// `adjtimex`: what it returns, and what is in effect.
    pub(crate) fn adjust(&self, timex: &Timex) -> io::Result<(i32, Timex)> {
        let mut body = [0; 8 + TIMEX];
        body[8..].copy_from_slice(&timex.emit());
        let reply = self.ask(request::ADJTIMEX, &body)?;
        let state: i32 = field(&reply, 0, i32::from_ne_bytes)?;
        if state < 0 {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        Ok((state, Timex::read(reply.get(8..).unwrap_or_default())?))
    }

    /// Waits for a message, at most for so many seconds of the node's CLOCK_MONOTONIC.
    pub(crate) fn select(&self, timeout_s: f64) -> io::Result<Wake> {
        let mut body = [0; 16];
        body[..8].copy_from_slice(&timeout_s.to_ne_bytes());
        body[8] = 1;
        let reply = self.ask(request::SELECT, &body)?;
        let readings = readings(&reply, 24)?;
        Ok(match field::<4, _>(&reply, 0, i32::from_ne_bytes)? {
            0 => Wake::Timeout(readings),
            1 | 2 => Wake::Message(readings),
            _ => Wake::Terminate,
        })
    }

    /// The message that SELECT has told of, if it is a datagram.
    pub(crate) fn receive(&self) -> io::Result<Option<Packet>> {
        let reply = self.ask(request::RECV, &[])?;
        let word = |at| field::<4, _>(&reply, at, u32::from_ne_bytes);
        let length = word(20)? as usize;
        let data = reply.get(MESSAGE_HEAD..MESSAGE_HEAD + length).unwrap_or_default().to_vec();
        let packet = Packet {
            subnet: word(4)?,
            node: word(8)?,
            src_port: word(12)?,
            dst_port: word(16)?,
            data,
        };
        Ok((word(0)? == UDP).then_some(packet))
    }

    /// Sends a datagram; there is no reply.
    pub(crate) fn send(&self, packet: &Packet) -> io::Result<()> {
        if packet.data.len() > MAX_MESSAGE {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        let Packet { subnet, node, src_port, dst_port, data } = packet;
        let mut body = Vec::with_capacity(MESSAGE_HEAD + data.len());
        for word in [UDP, *subnet, *node, *src_port, *dst_port, data.len() as u32] {
            body.extend(word.to_ne_bytes());
        }
        body.extend(data);
        self.tell(request::SEND, &body)
    }

    /// Leaves the simulation.
    pub(crate) fn deregister(&self) -> io::Result<()> {
        self.tell(request::DEREGISTER, &[])
    }

    fn tell(&self, request: i32, body: &[u8]) -> io::Result<()> {
        let mut bytes = Vec::with_capacity(8 + body.len());
        bytes.extend(request.to_ne_bytes());
        bytes.extend([0; 4]);
        bytes.extend(body);
        send(self.socket.as_raw_fd(), &bytes, MsgFlags::MSG_NOSIGNAL)?;
        Ok(())
    }

    fn ask(&self, request: i32, body: &[u8]) -> io::Result<Vec<u8>> {
        self.tell(request, body)?;
        let mut reply = vec![0; 2 * MAX_MESSAGE + 1_024];
        let length = recv(self.socket.as_raw_fd(), &mut reply, MsgFlags::empty())?;
        if length == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        reply.truncate(length);
        Ok(reply)
    }
}
