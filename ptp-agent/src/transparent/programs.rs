//! Loads the programs of the transparent clock, attaches them to its ports and reads what they remember.
//! Links end with the process; where an older kernel's clsact filters do not, the programs find that the
//! agent has not told for a while that it is there, and do nothing.

use std::{
    collections::BTreeMap,
    io,
    os::{
        fd::{AsFd as _, OwnedFd},
        unix::net::UnixDatagram,
    },
};

use aya::{
    Ebpf, EbpfLoader,
    maps::{Array, HashMap, MapData, MapError, RingBuf},
    programs::{
        LinkOrder, RawTracePoint, SchedClassifier, TcAttachType,
        tc::{NlOptions, SchedClassifierLinkId, TcAttachOptions, TcHandle},
    },
};
use nix::sys::resource::{RLIM_INFINITY, Resource, setrlimit};
use ptp_common::residence::{
    COUNTS, HISTOGRAMS, Key, LOST, NO_QUEUE, RELAYS, UNCERTAIN, config, held,
};

use crate::capture::{
    CLSACT_PRIORITY, CaptureError, Clsact, Features, attach_error, claim_name, map, program,
};

/// The programs as compiled by `cargo xtask ebpf build`.
pub static OBJECT: &[u8] = kernel_programs!("ptp-transparent");

/// Our programs on TC, and the hooks that they belong to.
pub(crate) const HOOKS: [(&str, TcAttachType); 2] =
    [("ptp_tc_arrive", TcAttachType::Ingress), ("ptp_tc_depart", TcAttachType::Egress)];
/// The same of the raw tracepoints.
const TRACEPOINTS: [(&str, &str); 3] = [
    ("ptp_tc_start", "net_dev_start_xmit"),
    ("ptp_tc_done", "net_dev_xmit"),
    ("ptp_tc_dropped", "kfree_skb"),
];

/// Where between the two tracepoints around the driver a message is taken to leave.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum Departure {
    /// Before the driver.
    Start,
    /// In the middle.
    #[default]
    Middle,
    /// Behind it.
    Done,
}

/// What is known of how long an event message was inside.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Residence {
    /// Nothing any more, or never anything.
    Unknown,
    /// It is still inside.
    Pending,
    /// A queue has dropped it.
    Lost,
    /// It has left, nobody knows when. With it, nanoseconds until the driver was called, if that is known.
    Uncertain(Option<u64>),
    /// Nanoseconds.
    Known(u64),
}

struct Attachment {
    interface: String,
    links: Vec<(&'static str, SchedClassifierLinkId)>,
    clsact: Option<Clsact>,
    /// Tells another transparent clock that this device has one.
    _claim: UnixDatagram,
}

/// Why a port cannot be one.
#[derive(Debug, thiserror::Error)]
pub enum PortError {
    /// The programs.
    #[error(transparent)]
    Capture(#[from] CaptureError),
    /// Two would correct twice.
    #[error("interface {0} is a port of another ptp-agent transparent already")]
    Taken(String),
}

/// The loaded programs.
pub struct Programs {
    ebpf: Ebpf,
    held: RingBuf<MapData>,
    features: Features,
    attached: BTreeMap<u32, Attachment>,
}

impl Programs {
    /// Loads the committed object. Its programs do nothing until they are [told](Self::tell) to.
    ///
    /// # Errors
    /// [`CaptureError::Privilege`] or [`CaptureError::Kernel`].
    pub fn load(departure: Departure) -> Result<Self, CaptureError> {
        Self::load_as(departure, Features::probe())
    }

    /// The same as on a kernel that has these features only; for tests.
    ///
    /// # Errors
    /// As [`Programs::load`].
    pub fn load_as(departure: Departure, features: Features) -> Result<Self, CaptureError> {
        // Before Linux 5.11 maps count against this limit; later it does not matter.
        let _ = setrlimit(Resource::RLIMIT_MEMLOCK, RLIM_INFINITY, RLIM_INFINITY);
        let flags = [("HAS_TAI", u8::from(features.tai)), ("DEPARTURE", departure as u8)];
        let mut loader = EbpfLoader::new();
        for (name, value) in &flags {
            loader.override_global(name, value, true);
        }
        let mut ebpf = loader.load(OBJECT).map_err(CaptureError::load)?;
        for (name, _) in HOOKS {
            program::<SchedClassifier>(&mut ebpf, name)?.load().map_err(CaptureError::load)?;
        }
        for (name, tracepoint) in TRACEPOINTS {
            let program = program::<RawTracePoint>(&mut ebpf, name)?;
            program.load().map_err(CaptureError::load)?;
            program.attach(tracepoint).map_err(CaptureError::load)?;
        }
        let held = ebpf
            .take_map("HELD")
            .ok_or(MapError::InvalidName { name: "HELD".to_owned() })
            .and_then(RingBuf::try_from)
            .map_err(|error| CaptureError::Map("HELD", error))?;
        Ok(Self { ebpf, held, features, attached: BTreeMap::new() })
    }

    /// Whether the programs are on a device.
    pub fn is_attached(&self, ifindex: u32) -> bool {
        self.attached.contains_key(&ifindex)
    }

    /// Devices that have the programs.
    pub fn attached(&self) -> Vec<u32> {
        self.attached.keys().copied().collect()
    }

    /// Attaches the programs to a device: first on the way in, last on the way out, so that what other
    /// programs do is inside.
    ///
    /// # Errors
    /// [`PortError`]; then nothing is attached.
    pub fn attach(&mut self, ifindex: u32, interface: &str) -> Result<(), PortError> {
        let claim = claim_name(&format!("ptp-agent/transparent/{ifindex}"))
            .map_err(|_| PortError::Taken(interface.to_owned()))?;
        let is_tcx = self.features.tcx;
        let clsact = if is_tcx {
            None
        } else {
            let clsact = Clsact::prepare(interface, ifindex, HOOKS);
            Some(clsact.map_err(|error| attach_error(HOOKS[0].0, interface)(error))?)
        };
        let links = Vec::new();
        let interface = interface.to_owned();
        let attachment = Attachment { interface, links, clsact, _claim: claim };
        self.attached.insert(ifindex, attachment);
        for (name, hook) in HOOKS {
            if let Err(error) = self.attach_one(ifindex, name, hook, is_tcx) {
                self.detach(ifindex);
                return Err(error.into());
            }
        }
        Ok(())
    }

    fn attach_one(
        &mut self,
        ifindex: u32,
        name: &'static str,
        hook: TcAttachType,
        is_tcx: bool,
    ) -> Result<(), CaptureError> {
        let Some(attachment) = self.attached.get_mut(&ifindex) else { return Ok(()) };
        let options = if is_tcx {
            TcAttachOptions::TcxOrder(match hook {
                TcAttachType::Ingress => LinkOrder::first(),
                _ => LinkOrder::last(),
            })
        } else {
            TcAttachOptions::Netlink(NlOptions {
                priority: CLSACT_PRIORITY + 1,
                handle: TcHandle::AUTO_ASSIGN,
                classid: None,
            })
        };
        let interface = attachment.interface.clone();
        let program = program::<SchedClassifier>(&mut self.ebpf, name)?;
        let link = program
            .attach_with_options(&interface, hook, options)
            .map_err(|error| attach_error(name, &interface)(error))?;
        attachment.links.push((name, link));
        Ok(())
    }

    /// Takes the programs off a device. That it has vanished is no error.
    pub fn detach(&mut self, ifindex: u32) {
        let Some(attachment) = self.attached.remove(&ifindex) else { return };
        for (name, link) in attachment.links {
            if let Ok(program) = program::<SchedClassifier>(&mut self.ebpf, name) {
                let _ = program.detach(link);
            }
        }
        if let Some(clsact) = attachment.clsact
            && let Err(error) = clsact.release()
        {
            tracing::debug!(interface = attachment.interface, %error, "clsact was not removed");
        }
    }

    /// Tells the programs the numbers of [`config`].
    ///
    /// # Errors
    /// [`CaptureError::Map`].
    pub fn tell(&mut self, numbers: [u64; config::LENGTH]) -> Result<(), CaptureError> {
        let mut map: Array<_, [u64; config::LENGTH]> = map(&mut self.ebpf, "CONFIG")?;
        map.set(0, numbers, 0).map_err(|error| CaptureError::Map("CONFIG", error))
    }

    /// Says which port an interface belongs to; `None`: to none.
    ///
    /// # Errors
    /// [`CaptureError::Map`].
    pub fn set_port(&mut self, ifindex: u32, port: Option<(u8, bool)>) -> Result<(), CaptureError> {
        let mut map: HashMap<_, u32, u32> = map(&mut self.ebpf, "PORTS")?;
        let done = match port {
            Some((number, has_no_queue)) => {
                let flags = if has_no_queue { NO_QUEUE } else { 0 };
                map.insert(ifindex, u32::from(number) | flags, 0)
            }
            None => match map.remove(&ifindex) {
                Err(MapError::KeyNotFound) => Ok(()),
                removed => removed,
            },
        };
        done.map_err(|error| CaptureError::Map("PORTS", error))
    }

    /// Sets meanLinkDelay of a port, nanoseconds.
    ///
    /// # Errors
    /// [`CaptureError::Map`].
    pub fn set_link_delay(&mut self, port: u8, nanos: u64) -> Result<(), CaptureError> {
        let mut map: Array<_, u64> = map(&mut self.ebpf, "LINKS")?;
        map.set(port.into(), nanos, 0).map_err(|error| CaptureError::Map("LINKS", error))
    }

    /// Says between which interfaces link-local messages are relayed; more than there is room for are left out.
    ///
    /// # Errors
    /// [`CaptureError::Map`].
    pub fn set_relays(&mut self, interfaces: &[u32]) -> Result<(), CaptureError> {
        let mut map: Array<_, u32> = map(&mut self.ebpf, "RELAY_TO")?;
        let ended = interfaces.iter().copied().chain(std::iter::repeat(0));
        for (number, ifindex) in (0..RELAYS).zip(ended) {
            map.set(number, ifindex, 0).map_err(|error| CaptureError::Map("RELAY_TO", error))?;
        }
        Ok(())
    }

    /// How long an event message was inside.
    pub fn residence(&mut self, key: &Key) -> Residence {
        let Ok(map) = map::<HashMap<_, Key, [u64; 3]>>(&mut self.ebpf, "RESIDENCES") else {
            return Residence::Unknown;
        };
        match map.get(key, 0) {
            Ok([_, 0, _]) => Residence::Pending,
            Ok([_, LOST, _]) => Residence::Lost,
            Ok([arrival, UNCERTAIN, start]) => {
                Residence::Uncertain((start != 0).then(|| start.wrapping_sub(arrival)))
            }
            Ok([arrival, departure, _]) => Residence::Known(departure.wrapping_sub(arrival)),
            Err(_) => Residence::Unknown,
        }
    }

    /// The next message that was taken out: its numbers and its frame.
    pub fn next_held(&mut self) -> Option<([u64; held::WORDS], Vec<u8>)> {
        let item = self.held.next()?;
        let (numbers, frame) = item.split_at_checked(held::WORDS * 8)?;
        let mut words = [0; held::WORDS];
        for (word, bytes) in words.iter_mut().zip(numbers.chunks_exact(8)) {
            *word = u64::from_ne_bytes(bytes.try_into().unwrap_or_default());
        }
        Some((words, frame.to_vec()))
    }

    /// What becomes readable when a message was taken out.
    ///
    /// # Errors
    /// Too many open files.
    pub fn held_descriptor(&self) -> io::Result<OwnedFd> {
        self.held.as_fd().try_clone_to_owned()
    }

    /// All counts of a port: of each type each outcome.
    pub fn counts(&mut self, port: u8) -> Vec<u64> {
        self.range("COUNTS_OF", u32::from(port) << 8, COUNTS as u32 / 256)
    }

    /// The histograms of a port, one way after the other.
    pub fn histograms(&mut self, port: u8) -> Vec<u64> {
        self.range("TIMES", u32::from(port) << 7, HISTOGRAMS as u32 / 256)
    }

    fn range(&mut self, name: &'static str, from: u32, count: u32) -> Vec<u64> {
        let Ok(map) = map::<Array<_, u64>>(&mut self.ebpf, name) else { return Vec::new() };
        (from..from + count).map(|index| map.get(&index, 0).unwrap_or(0)).collect()
    }

    /// Forgets what was counted of a port, whose number is to be another's.
    pub fn clear(&mut self, port: u8) {
        for (name, from, count) in [
            ("COUNTS_OF", u32::from(port) << 8, COUNTS as u32 / 256),
            ("TIMES", u32::from(port) << 7, HISTOGRAMS as u32 / 256),
        ] {
            if let Ok(mut map) = map::<Array<_, u64>>(&mut self.ebpf, name) {
                for index in from..from + count {
                    let _ = map.set(index, 0, 0);
                }
            }
        }
    }

    /// What the kernel has.
    pub const fn features(&self) -> Features {
        self.features
    }

    /// The loaded programs themselves; for tests and measurements that run them by hand.
    pub const fn ebpf(&mut self) -> &mut Ebpf {
        &mut self.ebpf
    }
}

impl Drop for Programs {
    /// Links end by themselves; this is for the queueing disciplines, which do not.
    fn drop(&mut self) {
        for ifindex in self.attached() {
            self.detach(ifindex);
        }
    }
}
