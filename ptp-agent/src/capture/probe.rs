//! One packet through every capture point, to see whether its stamp arrives. What goes out has an EtherType
//! for experiments and goes to the interface's own address, so that no host takes it for PTP and no switch
//! has a port for it. What comes in never was outside: on the way out it is turned round, and behind the
//! hook it ends.

use std::{io, os::unix::net::UnixDatagram, thread, time::Duration};

use aya::{
    Ebpf,
    programs::{
        LinkOrder, ProgramError, SchedClassifier, TcAttachType,
        tc::{SchedClassifierLinkId, TcAttachOptions},
    },
};
use nix::sys::socket::{setsockopt, sockopt::ReceiveTimestampns};
use ptp_common::{
    classify::ETHERTYPE_PROBE,
    record::{Hook, Record},
    time::{Mono, Time},
};
use socket2::{Domain, Socket, Type};

use super::{CaptureError, Options, Place, Programs, TcPlace, chain};
use crate::{
    sys::{clock::monotonic, packet},
    transport::interface_mac,
};

/// The programs as compiled by `cargo xtask ebpf build`.
static OBJECT: &[u8] = kernel_programs!("ptp-probe");
const TURN: &str = "ptp_probe_turn";
const END: &str = "ptp_probe_end";
/// Room for a few hundred records.
const RING_BYTES: u32 = 64 * 1024;
/// Records are there before the call that sends returns, but for those behind a queueing discipline.
const PATIENCE: ptp_common::time::Duration = ptp_common::time::Duration::from_millis(500);
const LOOK: Duration = Duration::from_millis(2);
/// Shortest payload of an Ethernet frame.
const PAYLOAD: usize = 46;

/// At which points the packets were stamped.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ProbeReport {
    /// TC ingress.
    pub tc_ingress: bool,
    /// The stack's own stamp, read there.
    pub stack: bool,
    /// TC egress.
    pub tc_egress: bool,
    /// The two tracepoints around the driver.
    pub xmit: bool,
    /// Who else is in front of our programs, on the way in and on the way out.
    pub in_front: Vec<String>,
}

/// Why no packet was sent.
#[derive(Debug, thiserror::Error)]
pub enum ProbeError {
    /// The programs cannot be loaded or attached.
    #[error(transparent)]
    Capture(#[from] CaptureError),
    /// The programs that turn packets round cannot.
    #[error("cannot attach the programs that turn the packet round: {0}")]
    Turn(String),
    /// The kernel does not send it.
    #[error("cannot send a packet: {0}")]
    Send(#[from] io::Error),
}

/// Sends a packet out of an interface and another one round, with the programs attached as the agent
/// attaches them. Needs TCX (Linux 6.6); nothing stays behind.
///
/// # Errors
/// [`ProbeError`].
pub fn probe(interface: &str) -> Result<ProbeReport, ProbeError> {
    let mut programs = Programs::load(Options {
        ring_bytes: Some(RING_BYTES),
        xmit: true,
        probe: true,
        place: TcPlace::InFront,
        ..Options::default()
    })?;
    let ifindex = nix::net::if_::if_nametoindex(interface)
        .map_err(|_| CaptureError::NoInterface(interface.to_owned()))?;
    // The stack stamps packets as long as somebody wishes it.
    let wish = Socket::new(Domain::IPV4, Type::DGRAM, None)
        .or_else(|_| Socket::new(Domain::IPV6, Type::DGRAM, None))?;
    setsockopt(&wish, ReceiveTimestampns, &true).map_err(io::Error::from)?;
    let mut turning = Turning::load().map_err(|error| ProbeError::Turn(error.to_string()))?;
    let turn = |turning: &mut Turning, name, hook| {
        turning.attach(name, interface, hook).map_err(|error| ProbeError::Turn(error.to_string()))
    };
    // Behind the hook, so before it is attached.
    turn(&mut turning, END, TcAttachType::Ingress)?;
    programs.attach(interface)?;
    let mut report = ProbeReport { in_front: others(&mut programs, ifindex), ..Default::default() };
    let sender = Sender { socket: packet::open_sender()?, ifindex, to: interface_mac(interface) };

    sender.send(1)?;
    let mut serial = None;
    wait(&mut programs, |record| {
        match record.hook {
            Hook::TcEgress if is_ours(record, 1) => serial = Some(record.serial),
            Hook::Xmit if serial == Some(record.serial) => report.xmit = true,
            _ => {}
        }
        report.xmit
    });
    report.tc_egress = serial.is_some();

    // In front of everything: this one does not leave the host whatever others do.
    turn(&mut turning, TURN, TcAttachType::Egress)?;
    let deadline = monotonic() + PATIENCE;
    while !report.stack && monotonic() < deadline {
        sender.send(2)?;
        wait_until(deadline, &mut programs, |record| {
            if record.hook != Hook::TcIngress || !is_ours(record, 2) {
                return false;
            }
            report.tc_ingress = true;
            // The kernel switches its stamps on a little later.
            report.stack = record.stack_ns != 0;
            true
        });
    }
    Ok(report)
}

fn others(programs: &mut Programs, ifindex: u32) -> Vec<String> {
    let places = programs.places(ifindex).into_iter().flatten();
    let behind = places.zip(["ingress", "egress"]).filter_map(|(place, hook)| match place {
        Place::Behind(others) => Some(format!("{hook}: {}", others.join(", "))),
        Place::Front | Place::Gone => None,
    });
    behind.collect()
}

fn is_ours(record: &Record, number: u8) -> bool {
    record.message() == payload(number)
}

/// Told apart from those of another doctor by the process.
fn payload(number: u8) -> [u8; PAYLOAD] {
    let mut payload = [0; PAYLOAD];
    payload[..4].copy_from_slice(&std::process::id().to_ne_bytes());
    payload[4] = number;
    payload
}

fn wait(programs: &mut Programs, enough: impl FnMut(&Record) -> bool) {
    wait_until(monotonic() + PATIENCE, programs, enough);
}

/// Reads records until one is `enough`.
fn wait_until(
    deadline: Time<Mono>,
    programs: &mut Programs,
    mut enough: impl FnMut(&Record) -> bool,
) {
    loop {
        let mut is_enough = false;
        programs.drain(|record| is_enough |= enough(&record));
        if is_enough || monotonic() >= deadline {
            return;
        }
        // The ring wakes nobody up.
        thread::sleep(LOOK);
    }
}

struct Sender {
    socket: Socket,
    ifindex: u32,
    to: Option<[u8; 6]>,
}

impl Sender {
    fn send(&self, number: u8) -> io::Result<()> {
        let to = self.to.unwrap_or_default();
        match packet::send(&self.socket, self.ifindex, to, ETHERTYPE_PROBE, &payload(number)) {
            // What the kernel says where a program or a queueing discipline has dropped it.
            Err(error) if error.raw_os_error() == Some(libc::ENOBUFS) => Ok(()),
            sent => sent,
        }
    }
}

/// The programs that turn packets round and end them. Detached when dropped.
struct Turning {
    ebpf: Ebpf,
    /// An agent that runs here need not mind them.
    claims: Vec<UnixDatagram>,
}

impl Turning {
    fn load() -> Result<Self, aya::EbpfError> {
        Ok(Self { ebpf: Ebpf::load(OBJECT)?, claims: Vec::new() })
    }

    /// Attaches one of them in front of everything else on a hook.
    fn attach(
        &mut self,
        name: &str,
        interface: &str,
        hook: TcAttachType,
    ) -> Result<SchedClassifierLinkId, ProgramError> {
        let program = self.ebpf.program_mut(name).ok_or(ProgramError::NotLoaded)?;
        let program: &mut SchedClassifier = program.try_into()?;
        program.load()?;
        self.claims.extend(chain::claim(program.info()?.id()));
        let first = TcAttachOptions::TcxOrder(LinkOrder::first());
        program.attach_with_options(interface, hook, first)
    }
}
