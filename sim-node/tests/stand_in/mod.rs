//! A stand-in for the simulator's server, made from the table of its requests: clocks with an offset and a frequency
//! of their own, one network whose packets take as long as they are told to, and time that jumps to whatever is
//! next once all nodes wait.

use std::{
    collections::VecDeque,
    fs,
    os::fd::{AsRawFd, FromRawFd, OwnedFd},
    path::Path,
    process::{Child, Command, Output, Stdio},
};

use nix::sys::socket::{
    AddressFamily, Backlog, MsgFlags, SockFlag, SockType, UnixAddr, accept, bind, listen, recv,
    send, socket,
};
use tempfile::TempDir;

/// Microseconds of a tick at the nominal rate.
const TICK: f64 = 10_000.0;
/// What a packet takes, seconds.
const DELAY_S: f64 = 1e-6;
/// Where local sockets are.
pub(crate) const UNIX_SUBNET: u32 = 1;

/// A message on its way, or arrived.
#[derive(Clone, Debug)]
pub(crate) struct Packet {
    pub(crate) subnet: u32,
    pub(crate) from: u32,
    pub(crate) src_port: u32,
    pub(crate) dst_port: u32,
    pub(crate) data: Vec<u8>,
}

/// How a node begins.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Begin {
    pub(crate) configuration: &'static str,
    /// Subnets of its ports, by the names of its interfaces.
    pub(crate) interfaces: &'static [&'static str],
    pub(crate) offset_s: f64,
    /// Faster than true time, parts of one.
    pub(crate) fast: f64,
}

struct Node {
    socket: OwnedFd,
    fast: f64,
    tick: i64,
    fine: i64,
    monotonic_s: f64,
    real_s: f64,
    /// Until when SELECT waits, on its own clock.
    until_s: Option<f64>,
    inbox: VecDeque<Packet>,
}

impl Node {
    fn rate(&self) -> f64 {
        (1.0 + self.fast) * (self.tick as f64 / TICK + self.fine as f64 / 65_536e6)
    }

    fn reply(&self, bytes: &[u8]) {
        send(self.socket.as_raw_fd(), bytes, MsgFlags::MSG_NOSIGNAL).expect("the node listens");
    }

    fn times(&self) -> Vec<u8> {
        [self.real_s, self.monotonic_s, self.monotonic_s, 0.0, 0.0]
            .into_iter()
            .flat_map(f64::to_ne_bytes)
            .collect()
    }

    fn wake(&mut self, why: u32) {
        self.until_s = None;
        let mut bytes: Vec<u8> =
            [why, 1, 0, 0, 0, 0].into_iter().flat_map(u32::to_ne_bytes).collect();
        bytes.extend(self.times());
        self.reply(&bytes);
    }
}

/// See the module's paragraph.
pub(crate) struct StandIn {
    _room: TempDir,
    children: Vec<Child>,
    nodes: Vec<Node>,
    now_s: f64,
    /// By arrival.
    flying: Vec<(f64, usize, Packet)>,
    /// What was sent to a local socket of nobody.
    pub(crate) answers: Vec<Packet>,
}

impl StandIn {
    /// Starts nodes, and lets them begin.
    pub(crate) fn start(begins: &[Begin]) -> Self {
        let room = tempfile::tempdir().expect("a directory");
        let path = room.path().join("socket");
        let flags = SockFlag::SOCK_CLOEXEC;
        let listener =
            socket(AddressFamily::Unix, SockType::SeqPacket, flags, None).expect("a socket");
        bind(listener.as_raw_fd(), &UnixAddr::new(&path).expect("short")).expect("bound");
        listen(&listener, Backlog::new(8).expect("few")).expect("listening");
        let (mut children, mut nodes) = (Vec::new(), Vec::new());
        for (begin, number) in begins.iter().zip(1..) {
            children.push(child(room.path(), begin, number));
            let socket = accept(listener.as_raw_fd()).expect("the node comes");
            // SAFETY: `accept` has just made it, and nobody else has it.
            let socket = unsafe { OwnedFd::from_raw_fd(socket) };
            nodes.push(Node {
                socket,
                fast: begin.fast,
                tick: TICK as i64,
                fine: 0,
                monotonic_s: 0.0,
                real_s: begin.offset_s,
                until_s: None,
                inbox: VecDeque::new(),
            });
        }
        Self { _room: room, children, nodes, now_s: 0.0, flying: Vec::new(), answers: Vec::new() }
    }

    /// Lets so much time pass.
    pub(crate) fn run(&mut self, seconds: f64) {
        let end_s = self.now_s + seconds;
        loop {
            for index in 0..self.nodes.len() {
                while self.nodes[index].until_s.is_none() {
                    assert!(self.serve(index), "the node has gone");
                }
            }
            let mut is_somebody_awake = false;
            for node in &mut self.nodes {
                if node.until_s.is_some_and(|until_s| until_s <= node.monotonic_s) {
                    node.wake(0);
                    is_somebody_awake = true;
                } else if !node.inbox.is_empty() {
                    node.wake(1);
                    is_somebody_awake = true;
                }
            }
            if is_somebody_awake {
                continue;
            }
            let deadlines = self.nodes.iter().filter_map(|node| {
                Some(self.now_s + (node.until_s? - node.monotonic_s) / node.rate())
            });
            let arrivals = self.flying.iter().map(|(at_s, ..)| *at_s);
            let next_s = deadlines.chain(arrivals).fold(end_s, f64::min).max(self.now_s);
            let passed_s = next_s - self.now_s;
            for node in &mut self.nodes {
                let own_s = passed_s * node.rate();
                node.monotonic_s += own_s;
                node.real_s += own_s;
                // Rounding is not to keep a node waiting.
                if let Some(until_s) =
                    node.until_s.filter(|at| (at - node.monotonic_s).abs() < 1e-12)
                {
                    node.monotonic_s = node.monotonic_s.max(until_s);
                }
            }
            self.now_s = next_s;
            let nodes = &mut self.nodes;
            self.flying.retain(|(at_s, to, packet)| {
                let is_flying = *at_s > next_s;
                if !is_flying {
                    nodes[*to].inbox.push_back(packet.clone());
                }
                is_flying
            });
            if next_s >= end_s {
                return;
            }
        }
    }

    /// CLOCK_REALTIME of a node minus that of the first, seconds.
    pub(crate) fn ahead_s(&self, index: usize) -> f64 {
        self.nodes[index].real_s - self.nodes[0].real_s
    }

    /// A message for a node, as if somebody had sent it.
    pub(crate) fn deliver(&mut self, to: usize, packet: Packet) {
        self.nodes[to].inbox.push_back(packet);
    }

    /// Tells the nodes that it is over, and how they have ended.
    pub(crate) fn end(mut self) -> Vec<Output> {
        for index in 0..self.nodes.len() {
            while self.nodes[index].until_s.is_none() && self.serve(index) {}
            self.nodes[index].wake(3);
            while self.serve(index) {}
        }
        self.children.into_iter().map(|child| child.wait_with_output().expect("it ends")).collect()
    }

    /// Goes away without a word.
    pub(crate) fn vanish(mut self) -> Vec<Output> {
        self.nodes.clear();
        self.children.into_iter().map(|child| child.wait_with_output().expect("it ends")).collect()
    }

    /// One request of a node; whether there was one.
    fn serve(&mut self, index: usize) -> bool {
        let node = &mut self.nodes[index];
        let mut bytes = [0; 8_192];
        let length = recv(node.socket.as_raw_fd(), &mut bytes, MsgFlags::empty()).unwrap_or(0);
        let Some((head, body)) = bytes[..length].split_at_checked(8) else { return false };
        let word = |at: usize| u32::from_ne_bytes(body[at..at + 4].try_into().expect("four"));
        let long = |at: usize| i64::from_ne_bytes(body[at..at + 8].try_into().expect("eight"));
        match (head[0], body.len()) {
            (1, 4) => {
                assert_eq!(word(0) as usize, index);
                node.reply(&[2_u32, 1].map(u32::to_ne_bytes).concat());
            }
            (2, 4) => node.reply(&node.times()),
            (4, 216) => {
                let modes = word(8);
                if modes & libc::ADJ_FREQUENCY != 0 {
                    node.fine = long(24);
                }
                if modes & libc::ADJ_TICK != 0 {
                    node.tick = long(96);
                }
                if modes & libc::ADJ_SETOFFSET != 0 {
                    node.real_s += long(80) as f64 + long(88) as f64 * 1e-9;
                }
                let mut reply = [0; 216];
                reply[8..].copy_from_slice(&body[8..]);
                reply[24..32].copy_from_slice(&node.fine.to_ne_bytes());
                reply[96..104].copy_from_slice(&node.tick.to_ne_bytes());
                node.reply(&reply);
            }
            (6, 16) => {
                let timeout_s = f64::from_ne_bytes(body[..8].try_into().expect("eight"));
                node.until_s = Some(node.monotonic_s + timeout_s);
            }
            (7, 24..) => self.send(index, &word, &body[24..]),
            (8, 0) => {
                let packet = node.inbox.pop_front().expect("what SELECT has told of");
                let Packet { subnet, from, src_port, dst_port, data } = packet;
                let length = data.len() as u32;
                let words = [1, subnet, from, src_port, dst_port, length];
                let mut reply = words.map(u32::to_ne_bytes).concat();
                reply.extend(data);
                node.reply(&reply);
            }
            (11, 0) => {}
            (request, length) => panic!("request {request} of {length} bytes"),
        }
        true
    }

    fn send(&mut self, from: usize, word: &dyn Fn(usize) -> u32, data: &[u8]) {
        assert_eq!((word(0), word(20) as usize), (1, data.len()));
        let (subnet, to) = (word(4), word(8));
        let packet = Packet {
            subnet,
            from: from as u32,
            src_port: word(12),
            dst_port: word(16),
            data: data.to_vec(),
        };
        if to != u32::MAX && to as usize >= self.nodes.len() {
            self.answers.push(packet);
            return;
        }
        for index in (0..self.nodes.len()).filter(|index| *index != from) {
            if to == u32::MAX || to as usize == index {
                self.flying.push((self.now_s + DELAY_S, index, packet.clone()));
            }
        }
    }
}

fn child(room: &Path, begin: &Begin, number: usize) -> Child {
    let file = room.join(format!("conf.{number}"));
    fs::write(&file, format!("[global]\n{}\n", begin.configuration)).expect("written");
    command(number)
        .arg("-f")
        .arg(file)
        .args(begin.interfaces.iter().flat_map(|interface| ["-i", interface]))
        .env("CLKNETSIM_SOCKET", room.join("socket"))
        .env("CLKNETSIM_UNIX_SUBNET", (UNIX_SUBNET + 1).to_string())
        .spawn()
        .expect("it starts")
}

/// The program, as a node.
pub(crate) fn command(number: usize) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_sim-node"));
    command
        .env("CLKNETSIM_NODE", number.to_string())
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    command
}
