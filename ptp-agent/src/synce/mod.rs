//! Synchronous Ethernet beside PTP: the ESMC messages that come in by each interface, and what the kernel's DPLLs do.
//! Both are shown and nothing is done by them.
//!
//! The messages come by a packet socket of their own and not by the hooks: nobody needs a stamp of them, they are one
//! frame a second, and the kernel delivers by EtherType, so that no PTP packet and no other one passes an instruction
//! more for it. The filter lets in one subtype of the slow protocols; frames pass untouched whatever reads them.

pub mod dpll;
mod words;

use std::{io, os::fd::AsRawFd as _};

use nix::sys::socket::{LinkAddr, recvfrom, setsockopt, sockopt::RcvBuf};
use ptp_common::{
    esmc::{ETHERTYPE_SLOW, SLOW_GROUP, SUBTYPE},
    time::{Duration, Mono, Time},
};
use socket2::{SockFilter, Socket};

use crate::{
    engine::esmc::Watch,
    publish::{
        alarms::Facts,
        metrics::SyncEFigures,
        snapshot::{DpllStatus, EsmcStatus},
    },
    sys::{
        classic::{IF_EQUAL, LOAD_BYTE, RETURN},
        dropped_by_kernel, packet,
    },
    transport::{LinkState, link_state},
};
pub use words::{dpll_text, esmc_text};

/// Bytes of frames that may wait in a socket: some dozens.
const QUEUE: usize = 32 * 1024;
/// Frames that are read at a time; those of a flood beyond them wait or are dropped by the kernel.
const AT_A_TIME: usize = 64;
/// A frame of a slow protocol has 128 octets at the most (IEEE 802.3 57A.3), ESMC those of any frame.
const MAX_FRAME: usize = 1_600;
/// Between two questions about DPLLs, and two attempts to listen.
const PATIENCE: Duration = Duration::from_secs(10);

/// What is listened to on an interface.
struct Ear {
    interface: String,
    ifindex: u32,
    socket: Option<Socket>,
    watch: Watch,
    /// Frames that earlier sockets had no room for.
    overflowed: u64,
    problem: Option<String>,
}

/// The ears of a command, and what is known of DPLLs. See the module's paragraph.
pub struct SyncE {
    ears: Vec<Ear>,
    dplls: Vec<DpllStatus>,
    /// Whether this kernel has any; asked once.
    has_dplls: bool,
    due: Time<Mono>,
}

impl SyncE {
    /// Listens on these interfaces. That it may not, or that one is not there, is said in the status.
    pub fn open(interfaces: &[String], now: Time<Mono>) -> Self {
        let ear = |interface: &String| {
            let mut ear = Ear {
                interface: interface.clone(),
                ifindex: 0,
                socket: None,
                watch: Watch::default(),
                overflowed: 0,
                problem: None,
            };
            ear.open();
            ear
        };
        let mut this = Self {
            ears: interfaces.iter().map(ear).collect(),
            dplls: Vec::new(),
            has_dplls: true,
            due: now,
        };
        this.ask();
        this
    }

    /// Reads what has come. To be called about once a second.
    pub fn look(&mut self, now: Time<Mono>) {
        let is_due = now >= self.due;
        if is_due {
            self.due = now + PATIENCE;
            self.ask();
        }
        for ear in &mut self.ears {
            if is_due {
                ear.check();
            }
            ear.read(now);
        }
    }

    fn ask(&mut self) {
        if !self.has_dplls {
            return;
        }
        match dpll::read() {
            Ok(dplls) => self.dplls = dplls,
            Err(error) => {
                tracing::debug!(%error, "DPLL");
                self.has_dplls =
                    !matches!(error, dpll::DpllError::NoFamily | dpll::DpllError::NotPermitted);
                self.dplls.clear();
            }
        }
    }

    /// By interface, those where there have ever been messages, or frames that are none.
    pub fn status(&self, now: Time<Mono>) -> Vec<EsmcStatus> {
        self.ears.iter().filter_map(|ear| ear.status(now)).collect()
    }

    /// The kernel's DPLLs.
    pub fn dplls(&self) -> &[DpllStatus] {
        &self.dplls
    }

    /// For metrics.
    pub fn figures(&self, now: Time<Mono>) -> SyncEFigures {
        SyncEFigures::new(&self.status(now), &self.dplls)
    }

    /// What alarms are judged by, as far as it is known here.
    pub fn facts(&self, now: Time<Mono>) -> Facts {
        let mut facts = Facts::default();
        let add = |to: &mut Option<String>, text: String| match to {
            Some(before) => *before = format!("{before}; {text}"),
            None => *to = Some(text),
        };
        for Ear { interface, watch, .. } in &self.ears {
            if let Some((usual, level)) = watch.lowered(now) {
                let (usual, level) = (usual.name(), level.name());
                add(&mut facts.quality_lowered, format!("{interface}: {level}, usually {usual}"));
            }
            if let Some(silent) = watch.silent_for(now) {
                let seconds = silent.as_secs_f64().round();
                add(&mut facts.esmc_lost, format!("{interface}: none for {seconds} s"));
            }
        }
        facts
    }
}

/// Lets in ESMC and other organizations' slow protocols of this host, in its VLAN.
fn filter() -> Vec<SockFilter> {
    let mut filter = packet::own_frames_first(&[SLOW_GROUP]);
    filter.extend([
        SockFilter::new(LOAD_BYTE, 0, 0, 0),
        SockFilter::new(IF_EQUAL, 0, 1, SUBTYPE.into()),
        SockFilter::new(RETURN, 0, 0, u32::MAX),
        SockFilter::new(RETURN, 0, 0, 0),
    ]);
    filter
}

/// Listens on an interface.
///
/// # Errors
/// What the kernel reports; EPERM without CAP_NET_RAW.
pub(crate) fn listen(interface: &str) -> io::Result<(u32, Socket)> {
    let ifindex = nix::net::if_::if_nametoindex(interface)?;
    let socket = packet::listen(ifindex, ETHERTYPE_SLOW, &filter(), &[SLOW_GROUP])?;
    // That it stays larger is no fault.
    let _ = setsockopt(&socket, RcvBuf, &QUEUE);
    Ok((ifindex, socket))
}

/// Reads what waits in a socket of [`listen`].
pub(crate) fn drain(socket: &Socket, now: Time<Mono>, watch: &mut Watch) -> io::Result<()> {
    let mut buffer = [0; MAX_FRAME];
    for _ in 0..AT_A_TIME {
        match recvfrom::<LinkAddr>(socket.as_raw_fd(), &mut buffer) {
            Ok((length, from)) => {
                let source = from.and_then(|from| from.addr());
                watch.take(now, &buffer[..length], source);
            }
            Err(nix::Error::EAGAIN) => return Ok(()),
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

impl Ear {
    fn open(&mut self) {
        match listen(&self.interface) {
            Ok((ifindex, socket)) => {
                (self.ifindex, self.socket, self.problem) = (ifindex, Some(socket), None);
            }
            Err(error) => {
                let problem = error.to_string();
                if self.problem.as_ref() != Some(&problem) {
                    tracing::debug!(interface = self.interface, problem, "ESMC is not heard");
                    self.problem = Some(problem);
                }
            }
        }
    }

    /// An interface that was made anew has another number.
    fn check(&mut self) {
        let is_here = match link_state(&self.interface) {
            LinkState::Up(ifindex) => self.socket.is_some() && ifindex == self.ifindex,
            LinkState::Down | LinkState::Missing => true,
        };
        if !is_here {
            self.overflowed = self.dropped();
            self.open();
        }
    }

    fn read(&mut self, now: Time<Mono>) {
        let Some(socket) = &self.socket else { return };
        if let Err(error) = drain(socket, now, &mut self.watch) {
            // ENETDOWN, once, when the interface goes down.
            tracing::debug!(interface = self.interface, %error, "ESMC");
        }
    }

    /// Frames that there was no room for.
    fn dropped(&self) -> u64 {
        let dropped = self.socket.as_ref().and_then(|socket| dropped_by_kernel(socket).ok());
        self.overflowed + dropped.map_or(0, u64::from)
    }

    fn status(&self, now: Time<Mono>) -> Option<EsmcStatus> {
        let counts = self.watch.counts();
        let last = self.watch.last();
        if last.is_none() && counts.malformed == 0 {
            return None;
        }
        Some(EsmcStatus::new(&self.interface, now, &self.watch, self.dropped()))
    }
}
