//! Loads the committed object, attaches its programs to interfaces and reads their records. Links
//! end with the process, however it ends; only the clsact queueing discipline of kernels before 6.6
//! can survive a SIGKILL, and is tidied up at the next start.

use std::{collections::BTreeMap, fs, os::unix::net::UnixDatagram};

use aya::{
    Ebpf, EbpfLoader,
    maps::{MapData, MapError, PerCpuArray, RingBuf},
    programs::{
        ProgramType, RawTracePoint, SchedClassifier, TcAttachType, Xdp, XdpMode,
        tc::{NlOptions, SchedClassifierLinkId, TcAttachOptions, TcHandle},
        xdp::XdpLinkId,
    },
    sys::is_helper_supported,
    util::KernelVersion,
};
use aya_obj::generated::bpf_func_id;
use nix::sys::resource::{RLIM_INFINITY, Resource, getrlimit, setrlimit};
use ptp_common::{
    classify::Protocol,
    record::{Hook, Record, RecordError},
};

use self::log::KernelLog;
use super::{clsact::Clsact, object::program};
use crate::sys::ifreq;

mod error;
mod log;
mod place;

pub use error::CaptureError;
pub(crate) use error::attach_error;
pub(super) use error::{causes, kernel_release};
pub(crate) use log::TARGET as KERNEL_LOG;
pub use place::TcPlace;

/// The kernel programs as compiled by `cargo xtask ebpf build`.
pub static OBJECT: &[u8] = kernel_programs!("ptp-agent");

/// Our filters on a clsact queueing discipline, so that ones left behind can be told from others'.
pub(crate) const CLSACT_PRIORITY: u16 = 0x5054;
/// Files that the programs are, with their maps and links, and what opens them.
const FEWEST_FILES: u64 = 32;
/// Files that an agent with some hundred interfaces has open.
const ENOUGH_FILES: u64 = 4096;
const XDP: &str = "ptp_xdp_ingress";
/// The raw tracepoint programs and where they belong.
pub(crate) const XMIT: [(&str, &str); 3] = [
    ("ptp_start_xmit", "net_dev_start_xmit"),
    ("ptp_xmit_done", "net_dev_xmit"),
    ("ptp_dropped", "kfree_skb"),
];

/// What the kernel has of the things that differ between versions.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Features {
    /// `bpf_ktime_get_tai_ns` (Linux 6.1).
    pub tai: bool,
    /// `bpf_xdp_load_bytes` (Linux 5.18).
    pub xdp_load_bytes: bool,
    /// `__sk_buff->hwtstamp` (Linux 5.16).
    pub hwtstamp: bool,
    /// TCX links (Linux 6.6).
    pub tcx: bool,
}

impl Features {
    /// Asks the kernel.
    pub fn probe() -> Self {
        let kernel = KernelVersion::current().unwrap_or(KernelVersion::new(0, 0, 0));
        let helper = |kind, id| is_helper_supported(kind, id).unwrap_or(false);
        Self {
            tai: helper(ProgramType::SchedClassifier, bpf_func_id::BPF_FUNC_ktime_get_tai_ns),
            xdp_load_bytes: helper(ProgramType::Xdp, bpf_func_id::BPF_FUNC_xdp_load_bytes),
            hwtstamp: kernel >= KernelVersion::new(5, 16, 0),
            tcx: kernel >= KernelVersion::new(6, 6, 0),
        }
    }
}

/// Which way of XDP.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum XdpHook {
    /// In the driver; refused where the driver cannot.
    Native,
    /// In the stack, behind the driver.
    Generic,
    /// In the driver where it can, else in the stack.
    Auto,
}

/// Which way of TC.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum TcAttach {
    /// TCX where the kernel has it.
    #[default]
    Auto,
    /// The clsact queueing discipline, also where the kernel has TCX.
    Clsact,
}

/// The two hooks of TC, and our program on each.
const fn hooks(protocol: Protocol) -> [(&'static str, TcAttachType); 2] {
    let (ingress, egress) = match protocol {
        Protocol::Ptp => ("ptp_tc_ingress", "ptp_tc_egress"),
        Protocol::Ntp => ("ntp_tc_ingress", "ntp_tc_egress"),
    };
    [(ingress, TcAttachType::Ingress), (egress, TcAttachType::Egress)]
}

/// How to load.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// Whose packets are stamped. There is no XDP for those of NTP.
    pub protocol: Protocol,
    /// Size of the ring, bytes: a power of two and whole pages; `None` for the object's own 2 MiB.
    pub ring_bytes: Option<u32>,
    /// Attach XDP as well.
    pub xdp: Option<XdpHook>,
    /// Attach the raw tracepoints around the driver as well.
    pub xmit: bool,
    /// Stamp the frames of `doctor` as well.
    pub probe: bool,
    /// Way of TC.
    pub tc: TcAttach,
    /// Where on TC, if others are there too.
    pub place: TcPlace,
    /// What the kernel is taken to have; `None` asks it. For tests of what older kernels get.
    pub features: Option<Features>,
}

/// Counts of one hook over all CPUs since loading; `seen == recorded + lost`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct HookCounts {
    /// PTP packets that passed.
    pub seen: u64,
    /// Those of them for which the ring had no room.
    pub lost: u64,
}

/// What was attached to an interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AttachedHooks {
    /// Whether TC is by TCX links rather than clsact.
    pub tcx: bool,
    /// Which XDP there is, if any: `Native` or `Generic`.
    pub xdp: Option<XdpHook>,
}

#[derive(Debug, Default)]
struct Attachment {
    interface: String,
    ingress: Option<SchedClassifierLinkId>,
    egress: Option<SchedClassifierLinkId>,
    xdp: Option<XdpLinkId>,
    clsact: Option<Clsact>,
}

impl Attachment {
    fn new(interface: &str) -> Self {
        Self { interface: interface.to_owned(), ..Self::default() }
    }
}

/// The loaded programs.
pub struct Programs {
    ebpf: Ebpf,
    ring: RingBuf<MapData>,
    features: Features,
    options: Options,
    attached: BTreeMap<u32, Attachment>,
    /// What tells other agents that our programs are an agent's.
    claims: Vec<UnixDatagram>,
    log: Option<KernelLog>,
    malformed: u64,
}

impl Programs {
    /// Loads the committed object.
    ///
    /// # Errors
    /// [`CaptureError::Privilege`] or [`CaptureError::Kernel`].
    pub fn load(options: Options) -> Result<Self, CaptureError> {
        if log::is_wanted() {
            match Self::load_object(log::OBJECT, options.clone()) {
                Err(error @ CaptureError::Kernel { .. }) => tracing::warn!(
                    %error,
                    "the kernel programs that say what they do cannot be loaded; the others are"
                ),
                loaded => return loaded,
            }
        }
        Self::load_object(OBJECT, options)
    }

    /// Loads another build of the object; for tests of a fresh build.
    ///
    /// # Errors
    /// As [`Programs::load`].
    pub fn load_object(object: &[u8], options: Options) -> Result<Self, CaptureError> {
        // Before Linux 5.11 maps count against this limit; later it does not matter.
        let _ = setrlimit(Resource::RLIMIT_MEMLOCK, RLIM_INFINITY, RLIM_INFINITY);
        // The default of 1024, or whatever somebody has lowered it to, is a soft limit: programs, maps and
        // sockets of many interfaces need more. That it cannot be raised shows when they run out.
        if let Ok((soft, hard)) = getrlimit(Resource::RLIMIT_NOFILE)
            && soft < hard.min(ENOUGH_FILES)
        {
            let _ = setrlimit(Resource::RLIMIT_NOFILE, hard.min(ENOUGH_FILES), hard);
        }
        // Without a descriptor left the kernel is asked for less and less, and what it says to that last is about
        // something else.
        let limit = getrlimit(Resource::RLIMIT_NOFILE).map_or(u64::MAX, |(soft, _)| soft);
        let open = fs::read_dir("/proc/self/fd").map_or(0, |files| files.count() as u64);
        if open + FEWEST_FILES > limit {
            return Err(CaptureError::Descriptors { limit });
        }
        let features = options.features.unwrap_or_else(Features::probe);
        let flags = [
            ("HAS_TAI", u8::from(features.tai)),
            ("HAS_XDP_LOAD_BYTES", u8::from(features.xdp_load_bytes)),
            ("HAS_HWTSTAMP", u8::from(features.hwtstamp)),
            ("WANT_XMIT", u8::from(options.xmit)),
            ("WANT_PROBE", u8::from(options.probe)),
        ];
        let mut loader = EbpfLoader::new();
        for (name, value) in &flags {
            loader.override_global(name, value, true);
        }
        if let Some(bytes) = options.ring_bytes {
            loader.map_max_entries("RECORDS", bytes);
        }
        let mut ebpf = loader.load(object).map_err(CaptureError::load)?;
        for (name, _) in hooks(options.protocol) {
            program::<SchedClassifier>(&mut ebpf, name)?.load().map_err(CaptureError::load)?;
        }
        if options.xdp.is_some() {
            program::<Xdp>(&mut ebpf, XDP)?.load().map_err(CaptureError::load)?;
        }
        if options.xmit {
            for (name, tracepoint) in XMIT {
                let program = program::<RawTracePoint>(&mut ebpf, name)?;
                program.load().map_err(CaptureError::load)?;
                program.attach(tracepoint).map_err(CaptureError::load)?;
            }
        }
        let ring = ebpf
            .take_map("RECORDS")
            .ok_or(MapError::InvalidName { name: "RECORDS".to_owned() })
            .and_then(RingBuf::try_from)
            .map_err(|error| CaptureError::Map("RECORDS", error))?;
        let (attached, claims) = Default::default();
        let log = KernelLog::of(&mut ebpf);
        Ok(Self { ebpf, ring, features, options, attached, claims, log, malformed: 0 })
    }

    /// The two hooks of TC, and our program on each.
    const fn hooks(&self) -> [(&'static str, TcAttachType); 2] {
        hooks(self.options.protocol)
    }

    /// Attaches the programs to an interface.
    ///
    /// # Errors
    /// [`CaptureError::NoInterface`], [`CaptureError::Privilege`] or [`CaptureError::Attach`].
    pub fn attach(&mut self, interface: &str) -> Result<AttachedHooks, CaptureError> {
        let ifindex = nix::net::if_::if_nametoindex(interface)
            .map_err(|_| CaptureError::NoInterface(interface.to_owned()))?;
        // Where the kernel does not tell, the packets will.
        if ifreq::has_ethernet_header(interface).is_ok_and(|has| !has) {
            return Err(CaptureError::NotEthernet(interface.to_owned()));
        }
        self.detach(ifindex);
        let tcx = self.features.tcx && self.options.tc == TcAttach::Auto;
        // What is attached so far is known from the beginning, so that a failure leaves nothing.
        self.attached.insert(ifindex, Attachment::new(interface));
        self.claim();
        let attached = self.attach_all(interface, ifindex, tcx);
        if attached.is_err() {
            self.detach(ifindex);
        }
        attached
    }

    fn attach_all(
        &mut self,
        interface: &str,
        ifindex: u32,
        tcx: bool,
    ) -> Result<AttachedHooks, CaptureError> {
        if !tcx {
            let clsact = Clsact::prepare(interface, ifindex, self.hooks())
                .map_err(|error| attach_error(self.hooks()[0].0, interface)(error))?;
            self.attachment(ifindex).clsact = Some(clsact);
        }
        let [(to_us, ingress), (from_us, egress)] = self.hooks();
        let ingress = self.attach_tc(interface, to_us, ingress, tcx)?;
        self.attachment(ifindex).ingress = Some(ingress);
        let egress = self.attach_tc(interface, from_us, egress, tcx)?;
        self.attachment(ifindex).egress = Some(egress);
        let mut hooks = AttachedHooks { tcx, xdp: None };
        if let Some((link, hook)) = self.attach_xdp(interface)? {
            self.attachment(ifindex).xdp = Some(link);
            hooks.xdp = Some(hook);
        }
        Ok(hooks)
    }

    fn attachment(&mut self, ifindex: u32) -> &mut Attachment {
        self.attached.entry(ifindex).or_default()
    }

    fn attach_tc(
        &mut self,
        interface: &str,
        name: &'static str,
        kind: TcAttachType,
        tcx: bool,
    ) -> Result<SchedClassifierLinkId, CaptureError> {
        let place = self.options.place;
        let program = program::<SchedClassifier>(&mut self.ebpf, name)?;
        let failed = |error| attach_error(name, interface)(error);
        if tcx {
            let order = TcAttachOptions::TcxOrder(place.order(kind));
            return program.attach_with_options(interface, kind, order).map_err(failed);
        }
        let mut attach = |priority| {
            let handle = TcHandle::AUTO_ASSIGN;
            let options = NlOptions { priority, handle, classid: None };
            program.attach_with_options(interface, kind, TcAttachOptions::Netlink(options))
        };
        let priority = place.priority(interface, kind);
        match attach(priority) {
            // A filter of another kind has that very priority, and is the only one that may.
            Err(_) if priority != CLSACT_PRIORITY => attach(CLSACT_PRIORITY).map_err(failed),
            attached => attached.map_err(failed),
        }
    }

    fn attach_xdp(
        &mut self,
        interface: &str,
    ) -> Result<Option<(XdpLinkId, XdpHook)>, CaptureError> {
        let Some(wanted) = self.options.xdp else {
            return Ok(None);
        };
        let program = program::<Xdp>(&mut self.ebpf, XDP)?;
        let native = match wanted {
            XdpHook::Generic => None,
            XdpHook::Native | XdpHook::Auto => Some(program.attach(interface, XdpMode::Driver)),
        };
        match native {
            Some(Ok(link)) => return Ok(Some((link, XdpHook::Native))),
            Some(Err(error)) if wanted == XdpHook::Native => {
                return Err(attach_error(XDP, interface)(error));
            }
            _ => {}
        }
        let link = program
            .attach(interface, XdpMode::Skb)
            .map_err(|error| attach_error(XDP, interface)(error))?;
        Ok(Some((link, XdpHook::Generic)))
    }

    /// Detaches from an interface. That it has vanished, and its hooks with it, is no error. Must be
    /// called in the network namespace of the interface, as must the drop of this value.
    pub fn detach(&mut self, ifindex: u32) {
        let Some(attachment) = self.attached.remove(&ifindex) else {
            return;
        };
        tracing::debug!(interface = attachment.interface, "detaching");
        let links = [attachment.ingress, attachment.egress];
        for ((name, _), link) in self.hooks().into_iter().zip(links) {
            if let Some(link) = link
                && let Ok(program) = program::<SchedClassifier>(&mut self.ebpf, name)
            {
                let _ = program.detach(link);
            }
        }
        if let Some(link) = attachment.xdp
            && let Ok(program) = program::<Xdp>(&mut self.ebpf, XDP)
        {
            let _ = program.detach(link);
        }
        if let Some(clsact) = attachment.clsact
            && let Err(error) = clsact.release()
        {
            tracing::debug!(interface = attachment.interface, %error, "clsact was not removed");
        }
    }

    /// Reads everything that is in the ring.
    pub fn drain(&mut self, mut each: impl FnMut(Record)) {
        if let Some(log) = &mut self.log {
            log.flush();
        }
        while let Some(item) = self.ring.next() {
            match Record::parse(&item) {
                Ok(record) => each(record),
                Err(RecordError::Size(_) | RecordError::Version(_) | RecordError::Field(..)) => {
                    self.malformed += 1;
                }
            }
        }
    }

    /// Ring entries that were no records. Only another version's programs could write such.
    pub const fn malformed(&self) -> u64 {
        self.malformed
    }

    /// Counts of a hook.
    ///
    /// # Errors
    /// [`CaptureError::Map`].
    pub fn counts(&self, hook: Hook) -> Result<HookCounts, CaptureError> {
        const NAME: &str = "COUNTS";
        let error = |error| CaptureError::Map(NAME, error);
        let map = self.ebpf.map(NAME).ok_or(error(MapError::InvalidName { name: NAME.into() }))?;
        let counts: PerCpuArray<_, [u64; 2]> = PerCpuArray::try_from(map).map_err(error)?;
        let values = counts.get(&(hook as u32), 0).map_err(error)?;
        Ok(values.iter().fold(HookCounts::default(), |sum, [seen, lost]| HookCounts {
            seen: sum.seen + seen,
            lost: sum.lost + lost,
        }))
    }

    /// Records lost on all hooks because the ring was full.
    pub fn lost(&self) -> u64 {
        [Hook::TcIngress, Hook::TcEgress, Hook::XdpIngress, Hook::Xmit]
            .into_iter()
            .filter_map(|hook| self.counts(hook).ok())
            .map(|counts| counts.lost)
            .sum()
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
        while let Some((&ifindex, _)) = self.attached.first_key_value() {
            self.detach(ifindex);
        }
    }
}
