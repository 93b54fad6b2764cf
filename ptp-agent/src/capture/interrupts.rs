//! From interrupt to stamp: for each received packet of an interface, how long before its stamps the card's
//! interrupt was, and how many packets a poll brings. Only for those who ask (`compare`, `doctor`): the programs
//! see every interrupt and every poll of the host while they are attached. Needs TCX (Linux 6.6).

use std::os::unix::net::UnixDatagram;

use aya::{
    Ebpf, EbpfLoader,
    maps::{Array, MapData, PerCpuArray, RingBuf},
    programs::{LinkOrder, RawTracePoint, SchedClassifier, TcAttachType, tc::TcAttachOptions},
};
use ptp_common::{
    interrupts::{NUMBERS, POLLS, WORDS, word},
    time::{Duration, Time},
};
use serde::Serialize;

use super::{
    CaptureError, ClockRelation, attach_error, chain, object::program, programs::kernel_release,
};
use crate::sys::{ethtool::Moderation, irq};

/// The programs as compiled by `cargo xtask ebpf build`.
pub static INTERRUPTS_OBJECT: &[u8] = kernel_programs!("ptp-interrupts");
/// The raw tracepoint programs and where they belong.
pub(crate) const TRACEPOINTS: [(&str, &str); 2] =
    [("ptp_interrupt", "irq_handler_entry"), ("ptp_poll", "napi_poll")];
pub(crate) const TC: &str = "ptp_interrupt_tc";
/// Distances that are kept for the quantiles, the first ones.
const KEPT: usize = 1 << 16;

/// Why nothing can be said of an interface's interrupts.
#[derive(Debug, thiserror::Error)]
pub enum InterruptsError {
    /// Nothing is behind it.
    #[error("no device is behind {0}, so there is no interrupt and no moderation")]
    NoDevice(String),
    /// They cannot be found.
    #[error("the interrupts of {0} cannot be found: {1}")]
    Unknown(String, &'static str),
    /// The programs cannot be loaded or attached.
    #[error(transparent)]
    Capture(#[from] CaptureError),
}

/// The programs at work on one interface; detached when dropped.
pub struct Interrupts {
    ebpf: Ebpf,
    ring: RingBuf<MapData>,
    /// An agent that runs here need not mind them.
    _claims: Option<UnixDatagram>,
    figures: Figures,
}

impl Interrupts {
    /// Loads and attaches for an interface of the current network namespace.
    ///
    /// # Errors
    /// [`InterruptsError`]; nothing stays attached.
    pub fn attach(interface: &str) -> Result<Self, InterruptsError> {
        let ifindex = nix::net::if_::if_nametoindex(interface)
            .map_err(|_| CaptureError::NoInterface(interface.to_owned()))?;
        let numbers = match irq::of(interface, ifindex, None) {
            irq::Interrupts::None => return Err(InterruptsError::NoDevice(interface.to_owned())),
            irq::Interrupts::Unknown(why) => {
                return Err(InterruptsError::Unknown(interface.to_owned(), why));
            }
            irq::Interrupts::Of(numbers) if numbers.is_empty() => {
                let why = "the kernel lists none with a handler";
                return Err(InterruptsError::Unknown(interface.to_owned(), why));
            }
            irq::Interrupts::Of(numbers) => numbers,
        };
        let mut ebpf = load(&numbers)?;
        for (name, tracepoint) in TRACEPOINTS {
            let program: &mut RawTracePoint = program(&mut ebpf, name)?;
            program.load().map_err(CaptureError::load)?;
            program.attach(tracepoint).map_err(CaptureError::load)?;
        }
        let hook: &mut SchedClassifier = program(&mut ebpf, TC)?;
        hook.load().map_err(CaptureError::load)?;
        let claims = hook.info().ok().and_then(|info| chain::claim(info.id()).ok());
        // Behind the program that stamps, whose stamp it would make later.
        let last = TcAttachOptions::TcxOrder(LinkOrder::last());
        hook.attach_with_options(interface, TcAttachType::Ingress, last)
            .map_err(|error| attach_error(TC, interface)(error))?;
        let ring = ebpf.take_map("PACKETS").ok_or_else(|| lacks("PACKETS"))?;
        let ring = RingBuf::try_from(ring).map_err(|error| CaptureError::Map("PACKETS", error))?;
        Ok(Self { ebpf, ring, _claims: claims, figures: Figures::default() })
    }

    /// Reads what has come; the ring holds some thousand packets.
    pub fn drain(&mut self, relation: &ClockRelation) {
        while let Some(item) = self.ring.next() {
            if let Some(words) = parse(&item) {
                self.figures.packet(words, relation);
            }
        }
    }

    /// What has been seen so far.
    pub fn report(&self) -> Report {
        let polls: Vec<u64> = (0..POLLS as u32).map(|place| self.sum("POLLS", place)).collect();
        self.figures.report(&polls, self.sum("LOST", 0))
    }

    fn sum(&self, map: &'static str, place: u32) -> u64 {
        let counts = self.ebpf.map(map).and_then(|map| PerCpuArray::<_, u64>::try_from(map).ok());
        counts.and_then(|counts| Some(counts.get(&place, 0).ok()?.iter().sum())).unwrap_or(0)
    }
}

/// The programs, told which interrupts to watch.
pub(crate) fn load(numbers: &[u32]) -> Result<Ebpf, CaptureError> {
    let mut ebpf = EbpfLoader::new().load(INTERRUPTS_OBJECT).map_err(CaptureError::load)?;
    let map = ebpf.map_mut("IS_WATCHED").ok_or_else(|| lacks("IS_WATCHED"))?;
    let error = |error| CaptureError::Map("IS_WATCHED", error);
    let mut watched = Array::<_, u8>::try_from(map).map_err(error)?;
    for number in numbers.iter().filter(|number| (**number as usize) < NUMBERS) {
        watched.set(*number, 1, 0).map_err(error)?;
    }
    Ok(ebpf)
}

fn lacks(what: &str) -> CaptureError {
    CaptureError::Kernel { kernel: kernel_release(), reason: format!("the object has no {what}") }
}

fn parse(bytes: &[u8]) -> Option<[u64; WORDS]> {
    let (words, rest) = bytes.as_chunks::<8>();
    let words: &[[u8; 8]; WORDS] = words.try_into().ok().filter(|_| rest.is_empty())?;
    Some(words.map(u64::from_ne_bytes))
}

/// Quantiles of a time, nanoseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Spread {
    /// Packets.
    pub n: usize,
    /// Half of them are below.
    pub p50: i64,
    /// All but one in a hundred are below.
    pub p99: i64,
    /// The largest.
    pub max: i64,
}

impl Spread {
    fn of(values: &[i64]) -> Option<Self> {
        let mut values = values.to_vec();
        values.sort_unstable();
        let at =
            |share: f64| values.get(((values.len().max(1) - 1) as f64 * share) as usize).copied();
        Some(Self { n: values.len(), p50: at(0.5)?, p99: at(0.99)?, max: *values.last()? })
    }
}

/// What was seen of an interface's interrupts.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Report {
    /// Packets received.
    pub packets: u64,
    /// PTP messages among them.
    pub ptp: u64,
    /// Packets that a poll found without a new interrupt.
    pub without_interrupt: u64,
    /// From the interrupt to the stack's stamp, nanoseconds; `null` where the stack has stamped none.
    pub to_stack_ns: Option<Spread>,
    /// From the interrupt to TC ingress, nanoseconds.
    pub to_tc_ingress_ns: Option<Spread>,
    /// Polls that brought packets.
    pub polls: u64,
    /// Packets that such a poll brought in the mean.
    pub packets_per_poll: Option<f64>,
    /// The most; all above 64 are 64.
    pub most_in_a_poll: usize,
    /// Packets of which nothing is known, because the ring was full.
    pub lost: u64,
}

/// The same of a driver's settings.
pub fn moderation_in_words(moderation: Moderation) -> String {
    let Moderation { rx_usecs, rx_frames, is_adaptive } = moderation;
    let adaptive = if is_adaptive { "on" } else { "off" };
    format!("rx-usecs {rx_usecs}, rx-frames {rx_frames}, adaptive-rx {adaptive}")
}

#[derive(Debug, Default)]
struct Figures {
    packets: u64,
    ptp: u64,
    without: u64,
    to_stack: Vec<i64>,
    to_tc: Vec<i64>,
}

impl Figures {
    fn packet(&mut self, words: [u64; WORDS], relation: &ClockRelation) {
        let signed = |place: usize| i64::try_from(words[place]).unwrap_or(i64::MAX);
        self.packets += 1;
        self.ptp += u64::from(words[word::IS_PTP] != 0);
        let interrupt_ns = signed(word::INTERRUPT);
        if interrupt_ns == 0 {
            self.without += 1;
            return;
        }
        let keep = |distances: &mut Vec<i64>, at_ns: i64| {
            if distances.len() < KEPT {
                distances.push(at_ns.saturating_sub(interrupt_ns));
            }
        };
        keep(&mut self.to_tc, signed(word::TC_INGRESS));
        if words[word::STACK] != 0 {
            let real = Time::from_epoch(Duration::from_nanos(signed(word::STACK)));
            keep(&mut self.to_stack, relation.mono_at(real).as_nanos());
        }
    }

    /// `polls`: how many brought so many packets.
    fn report(&self, polls: &[u64], lost: u64) -> Report {
        let number: u64 = polls.iter().sum();
        let brought: u64 = (0..).zip(polls).map(|(packets, polls): (u64, _)| packets * polls).sum();
        Report {
            packets: self.packets,
            ptp: self.ptp,
            without_interrupt: self.without,
            to_stack_ns: Spread::of(&self.to_stack),
            to_tc_ingress_ns: Spread::of(&self.to_tc),
            polls: number,
            packets_per_poll: (number > 0).then(|| brought as f64 / number as f64),
            most_in_a_poll: polls.iter().rposition(|polls| *polls > 0).unwrap_or(0),
            lost,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn distances_are_from_the_interrupt_and_packets_without_one_are_counted_apart() {
        let relation = ClockRelation {
            real_minus_mono: Duration::from_nanos(1_000),
            tai_minus_mono: Duration::ZERO,
        };
        let mut figures = Figures::default();
        for n in 0..99 {
            figures.packet([5_000, 9_000 + n, 8_000 + n, 1], &relation);
        }
        figures.packet([0, 9_000, 8_000, 0], &relation);
        let report = figures.report(&[0, 40, 30], 2);
        assert_eq!((report.packets, report.ptp, report.without_interrupt), (100, 99, 1));
        assert_eq!(report.to_stack_ns, Some(Spread { n: 99, p50: 2_049, p99: 2_097, max: 2_098 }));
        assert_eq!(report.to_tc_ingress_ns.map(|spread| spread.p50), Some(4_049));
        assert_eq!((report.polls, report.most_in_a_poll, report.lost), (70, 2, 2));
        assert_eq!(report.packets_per_poll, Some(100.0 / 70.0));
    }

    #[test]
    fn nothing_seen_says_nothing_and_absurd_words_cause_no_panic() {
        let report = Figures::default().report(&[0; POLLS], 0);
        assert_eq!((report.to_stack_ns, report.packets_per_poll), (None, None));
        let mut figures = Figures::default();
        figures.packet([u64::MAX; WORDS], &ClockRelation::now());
        figures.packet([1, 0, u64::MAX, 1], &ClockRelation::now());
        let report = figures.report(&[u64::from(u32::MAX)], 0);
        assert!(!crate::publish::text::interrupts(&report).is_empty());
        assert_eq!(parse(&[0; 31]), None);
    }

    #[test]
    fn interface_without_a_device_is_said_to_have_no_interrupt() {
        let Err(error) = Interrupts::attach("lo") else { panic!("lo has no device") };
        assert!(error.to_string().contains("no device is behind lo"), "{error}");
    }
}
