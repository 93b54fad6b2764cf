//! Loads the programs that answer, puts them on the interfaces of a time transmitter in front of all others, and
//! tells them what they need. Links end with the process; where an older kernel's clsact filters do not, the
//! programs find that the agent has not told for a while that it is there, and answer nobody.

use std::{
    collections::{BTreeMap, BTreeSet},
    os::unix::net::UnixDatagram,
};

use aya::{
    Ebpf, EbpfLoader,
    maps::{Array, HashMap, MapError, PerCpuArray, ProgramArray, lpm_trie},
    programs::{
        LinkOrder, ProgramError, RawTracePoint, SchedClassifier, TcAttachType, TestRunAttrs,
        TestRunOptions, Xdp,
        tc::{NlOptions, SchedClassifierLinkId, TcAttachOptions, TcHandle},
        xdp::XdpLinkId,
    },
};
use aya_obj::generated::bpf_attach_type::BPF_TCX_INGRESS;
use nix::sys::resource::{RLIM_INFINITY, Resource, setrlimit};
use ptp_common::answer::{COUNTS, KINDS, Outcome, count_index, interface, slot};

use super::Prefix;
use crate::capture::{
    CLSACT_PRIORITY, CaptureError, Clsact, Features, attach_error, claim_name, map, program,
};
use crate::sys::bpf::tcx_programs;

/// The programs as compiled by `cargo xtask ebpf build`.
pub static OBJECT: &[u8] = kernel_programs!("ptp-answers");

/// The program at TC ingress.
pub const ANSWERS: &str = "ptp_answers_tc";
/// Lets a frame of ours in.
const IN: &str = "ptp_answers_in";
/// Where that goes on for exchanges of two messages,
const EXCHANGE: &str = "ptp_answers_exchange";
/// and what tells when the first of them left.
const OUT: &str = "ptp_answers_out";
const LEAVE: &str = "ptp_answers_leave";
const TRACEPOINT: &str = "net_dev_start_xmit";
/// For [`Clsact`], which clears both hooks.
const HOOKS: [(&str, TcAttachType); 2] =
    [(ANSWERS, TcAttachType::Ingress), (OUT, TcAttachType::Egress)];

/// An address of an interface, as it lies in memory: IPv4 as `::ffff:0:0/96`.
pub type InterfaceAddress = (u32, [u32; 4]);

struct Attachment {
    link: Option<SchedClassifierLinkId>,
    out: Option<SchedClassifierLinkId>,
    clsact: Option<Clsact>,
}

/// The loaded programs.
pub struct Programs {
    ebpf: Ebpf,
    is_tcx: bool,
    /// Whether exchanges of two messages are answered.
    has_exchanges: bool,
    attached: BTreeMap<u32, Attachment>,
    /// The program in the driver.
    pub(super) native: BTreeMap<u32, XdpLinkId>,
    addresses: BTreeMap<InterfaceAddress, u32>,
    prefixes: BTreeSet<(u32, [u8; 16])>,
    generation: u64,
    id: Option<u32>,
    /// Tells agents that it is one of theirs.
    _claim: Option<UnixDatagram>,
}

impl Programs {
    /// Loads the committed object. Its programs answer nobody until they are [told](Self::tell) to.
    ///
    /// # Errors
    /// [`CaptureError::Privilege`] or [`CaptureError::Kernel`]; Linux 6.1 is needed.
    pub fn load() -> Result<Self, CaptureError> {
        // Before Linux 5.11 maps count against this limit; later it does not matter.
        let _ = setrlimit(Resource::RLIMIT_MEMLOCK, RLIM_INFINITY, RLIM_INFINITY);
        let mut ebpf = EbpfLoader::new().load(OBJECT).map_err(CaptureError::load)?;
        program::<SchedClassifier>(&mut ebpf, ANSWERS)?.load().map_err(CaptureError::load)?;
        // Only for trials; without it there are none.
        if let Err(error) = program::<Xdp>(&mut ebpf, IN)?.load() {
            tracing::debug!(%error, "no way in for trials");
        }
        let id = program::<SchedClassifier>(&mut ebpf, ANSWERS)?.info().ok().map(|info| info.id());
        Ok(Self {
            ebpf,
            is_tcx: Features::probe().tcx,
            has_exchanges: false,
            attached: BTreeMap::new(),
            native: BTreeMap::new(),
            addresses: BTreeMap::new(),
            prefixes: BTreeSet::new(),
            generation: 1,
            id,
            _claim: id.and_then(|id| claim_name(&format!("ptp-agent/program/{id}")).ok()),
        })
    }

    /// Loads what answers CSPTP and SPTP, and what tells when the first of two messages left. To be called before
    /// anything is attached.
    ///
    /// # Errors
    /// What the kernel lacks; Delay_Req is answered all the same then.
    pub fn load_exchanges(&mut self) -> Result<(), CaptureError> {
        for name in [EXCHANGE, OUT] {
            program::<SchedClassifier>(&mut self.ebpf, name)?.load().map_err(CaptureError::load)?;
        }
        let leave = program::<RawTracePoint>(&mut self.ebpf, LEAVE)?;
        leave.load().map_err(CaptureError::load)?;
        leave.attach(TRACEPOINT).map_err(|error| attach_error(LEAVE, TRACEPOINT)(error))?;
        let program = program::<SchedClassifier>(&mut self.ebpf, EXCHANGE)?;
        let fd = program.fd().and_then(|fd| fd.try_clone().map_err(ProgramError::from));
        let fd = fd.map_err(CaptureError::load)?;
        let mut exchanges: ProgramArray<_> = map(&mut self.ebpf, "EXCHANGES")?;
        exchanges.set(0, &fd, 0).map_err(|error| CaptureError::Map("EXCHANGES", error))?;
        self.has_exchanges = true;
        Ok(())
    }

    /// Attaches to an interface at TC in front of all others; again, if it is attached already.
    ///
    /// # Errors
    /// [`CaptureError::Attach`]; then it is not attached.
    pub fn attach(&mut self, ifindex: u32, interface: &str) -> Result<(), CaptureError> {
        self.detach_tc(ifindex);
        let clsact = if self.is_tcx {
            None
        } else {
            let clsact = Clsact::prepare(interface, ifindex, HOOKS);
            Some(clsact.map_err(|error| attach_error(ANSWERS, interface)(error))?)
        };
        self.attached.insert(ifindex, Attachment { link: None, out: None, clsact });
        let options = || {
            if self.is_tcx {
                TcAttachOptions::TcxOrder(LinkOrder::first())
            } else {
                TcAttachOptions::Netlink(NlOptions {
                    priority: CLSACT_PRIORITY,
                    handle: TcHandle::AUTO_ASSIGN,
                    classid: None,
                })
            }
        };
        let (first, second) = (options(), options());
        let mut attach = |name, direction, options| {
            program::<SchedClassifier>(&mut self.ebpf, name)?
                .attach_with_options(interface, direction, options)
                .map_err(|error| attach_error(name, interface)(error))
        };
        let link = attach(ANSWERS, TcAttachType::Ingress, first);
        let out = self.has_exchanges.then(|| attach(OUT, TcAttachType::Egress, second)).transpose();
        let (result, link, out) = match (link, out) {
            (Ok(link), Ok(out)) => (Ok(()), Some(link), out),
            (Ok(link), Err(error)) => (Err(error), Some(link), None),
            (Err(error), out) => (Err(error), None, out.ok().flatten()),
        };
        if let Some(attachment) = self.attached.get_mut(&ifindex) {
            (attachment.link, attachment.out) = (link, out);
        }
        if result.is_err() {
            self.detach_tc(ifindex);
        }
        result
    }

    /// Takes the programs off an interface. That it has vanished is no error.
    pub fn detach(&mut self, ifindex: u32) {
        self.detach_native(ifindex);
        self.detach_tc(ifindex);
    }

    fn detach_tc(&mut self, ifindex: u32) {
        let Some(attachment) = self.attached.remove(&ifindex) else { return };
        for (name, link) in [(ANSWERS, attachment.link), (OUT, attachment.out)] {
            if let Some(link) = link
                && let Ok(program) = program::<SchedClassifier>(&mut self.ebpf, name)
            {
                let _ = program.detach(link);
            }
        }
        if let Some(clsact) = attachment.clsact
            && let Err(error) = clsact.release()
        {
            tracing::debug!(ifindex, %error, "clsact was not removed");
        }
    }

    /// The programs at TC ingress that packets pass before this one; none where that cannot be told.
    pub(super) fn in_front(&self, ifindex: u32) -> Vec<u32> {
        if !self.is_tcx {
            return Vec::new();
        }
        let all = tcx_programs(ifindex, BPF_TCX_INGRESS).unwrap_or_default();
        all.into_iter().take_while(|id| Some(*id) != self.id).collect()
    }

    /// Tells the numbers of [`slot`], all but the generation.
    ///
    /// # Errors
    /// [`CaptureError::Map`].
    pub fn tell(&mut self, mut numbers: [u64; slot::LENGTH]) -> Result<(), CaptureError> {
        self.generation += 1;
        let generation = self.generation;
        numbers[slot::GENERATION] = generation;
        let failed = |name| move |error| CaptureError::Map(name, error);
        let mut slots: Array<_, [u64; slot::LENGTH]> = map(&mut self.ebpf, "SLOTS")?;
        slots.set((generation & 1) as u32, numbers, 0).map_err(failed("SLOTS"))?;
        let mut current: Array<_, u64> = map(&mut self.ebpf, "GENERATION")?;
        current.set(0, generation, 0).map_err(failed("GENERATION"))
    }

    /// Tells the numbers of [`interface`]; with `None` nobody is answered there.
    ///
    /// # Errors
    /// [`CaptureError::Map`].
    pub fn set_interface(
        &mut self,
        ifindex: u32,
        numbers: Option<[u64; interface::LENGTH]>,
    ) -> Result<(), CaptureError> {
        let mut map: HashMap<_, u32, [u64; interface::LENGTH]> = map(&mut self.ebpf, "INTERFACES")?;
        let done = match numbers {
            Some(numbers) => map.insert(ifindex, numbers, 0),
            None => match map.remove(&ifindex) {
                Err(MapError::KeyNotFound) => Ok(()),
                removed => removed,
            },
        };
        done.map_err(|error| CaptureError::Map("INTERFACES", error))
    }

    /// Tells which addresses the interfaces have, and which of them reach all.
    ///
    /// # Errors
    /// [`CaptureError::Map`].
    pub fn set_addresses(
        &mut self,
        addresses: BTreeMap<InterfaceAddress, u32>,
    ) -> Result<(), CaptureError> {
        if addresses == self.addresses {
            return Ok(());
        }
        let before = std::mem::take(&mut self.addresses);
        let mut map: HashMap<_, [u32; 5], u32> = map(&mut self.ebpf, "ADDRESSES")?;
        let key = |(ifindex, [a, b, c, d]): &InterfaceAddress| [*ifindex, *a, *b, *c, *d];
        for gone in before.keys().filter(|address| !addresses.contains_key(*address)) {
            let _ = map.remove(&key(gone));
        }
        for (address, kind) in &addresses {
            map.insert(key(address), kind, 0)
                .map_err(|error| CaptureError::Map("ADDRESSES", error))?;
        }
        self.addresses = addresses;
        Ok(())
    }

    /// Tells which prefixes are what.
    ///
    /// # Errors
    /// [`CaptureError::Map`].
    pub fn set_prefixes(&mut self, prefixes: &[(Prefix, u32)]) -> Result<(), CaptureError> {
        let wanted: BTreeSet<_> = prefixes.iter().map(|(prefix, _)| prefix.mapped()).collect();
        let before = std::mem::replace(&mut self.prefixes, wanted.clone());
        let mut map: lpm_trie::LpmTrie<_, [u8; 16], u32> = map(&mut self.ebpf, "PREFIXES")?;
        for (length, bytes) in before.difference(&wanted) {
            let _ = map.remove(&lpm_trie::Key::new(*length, *bytes));
        }
        for (prefix, flags) in prefixes {
            let (length, bytes) = prefix.mapped();
            map.insert(&lpm_trie::Key::new(length, bytes), flags, 0)
                .map_err(|error| CaptureError::Map("PREFIXES", error))?;
        }
        Ok(())
    }

    /// What became of the requests of an interface: by kind and outcome, without what there was none of.
    pub fn counts(&mut self, number: u32) -> BTreeMap<(&'static str, Outcome), u64> {
        let Ok(map) = map::<PerCpuArray<_, u64>>(&mut self.ebpf, "COUNTS_OF") else {
            return BTreeMap::new();
        };
        let mut counts = BTreeMap::new();
        for (kind, name) in (0..).zip(KINDS) {
            for outcome in Outcome::ALL {
                let index = count_index(number, kind, outcome as u32);
                debug_assert!((index as usize) < COUNTS);
                let total: u64 = map.get(&index, 0).map_or(0, |all| all.iter().sum());
                if total > 0 {
                    counts.insert((name, outcome), total);
                }
            }
        }
        counts
    }

    /// Lets a frame come in by an interface as if the driver had received it.
    ///
    /// # Errors
    /// What the kernel says; Linux 5.18 is needed.
    pub fn inject(&mut self, ifindex: u32, frame: &[u8]) -> Result<(), ProgramError> {
        let context = context(ifindex, frame);
        let options = TestRunOptions {
            data_in: Some(frame),
            ctx_in: Some(&context),
            repeat: 1,
            attrs: TestRunAttrs::new().xdp_live_frames(1),
            ..TestRunOptions::default()
        };
        use aya::programs::TestRun as _;
        let program: &mut Xdp =
            self.ebpf.program_mut(IN).ok_or(ProgramError::NotLoaded)?.try_into()?;
        program.test_run(options).map(drop)
    }

    /// Whether exchanges of two messages can be answered.
    pub const fn has_exchanges(&self) -> bool {
        self.has_exchanges
    }

    /// The loaded programs themselves; for tests and measurements that run them by hand.
    pub const fn ebpf(&mut self) -> &mut Ebpf {
        &mut self.ebpf
    }
}

/// `struct xdp_md` of a frame that comes in by an interface: data, data_end, data_meta, ingress_ifindex,
/// rx_queue_index, egress_ifindex.
pub(super) fn context(ifindex: u32, frame: &[u8]) -> [u8; 24] {
    let length = u32::try_from(frame.len()).unwrap_or(0);
    let mut context = [0_u8; 24];
    context[4..8].copy_from_slice(&length.to_ne_bytes());
    context[12..16].copy_from_slice(&ifindex.to_ne_bytes());
    context
}

impl Drop for Programs {
    /// Links end by themselves; this is for the queueing disciplines, which do not.
    fn drop(&mut self) {
        let all = self.attached.keys().chain(self.native.keys());
        for ifindex in all.copied().collect::<BTreeSet<_>>() {
            self.detach(ifindex);
        }
    }
}
