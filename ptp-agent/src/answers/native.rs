//! Answers by XDP in the driver, in front of those at TC, which stay behind: what XDP leaves, TC answers, so that XDP may
//! be taken away, or fail, at any time. Where it does not do, that is said and TC answers alone. Whether it is nearer
//! to the wire than the stack's stamp is measured with real requests where that is to decide.

use std::{fs, io::ErrorKind};

use aya::{
    maps::{MapError, PerCpuArray, PerCpuValues},
    programs::{
        ProgramError, RawTracePoint, TestRun as _, TestRunAttrs, TestRunOptions, Xdp, XdpMode,
    },
};
use ptp_common::{
    answer::{compared, interface},
    time::{Duration, Mono, Time},
};

use super::{Answers, Mode, PortAnswers, Programs, State, probe};
use crate::{
    capture::{CaptureError, attach_error, map, program},
    sys::ethtool,
};

/// The program in the driver,
pub(super) const NATIVE: &str = "ptp_answers_xdp";
/// and what tells in a trial whether a driver has taken the answer.
const TAKEN: &str = "ptp_answers_taken";
const TAKEN_AT: &str = "xdp_devmap_xmit";
/// Requests that both points must have seen before one is chosen, and the share of them, in tenths, that XDP
/// must have seen earlier.
const COMPARED: u64 = 64;
const MOSTLY: u64 = 9;
/// Between two trials of what works, and of what could not be attached.
const AGAIN: Duration = Duration::from_secs(30);
/// Between two trials of what was attached and failed: attaching may reset a card's queues.
const LATER: Duration = Duration::from_secs(600);
/// A dry run may be interrupted by a packet.
const DRY_RUNS: usize = 3;
/// A veth loses `XDP_TX` silently where the other end has no program.
const VETH: &str = "veth";

/// How it stands.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Stand {
    /// Nobody asked for it.
    Unwanted,
    /// To be attached.
    Due,
    /// Attached, and passes all: it is seen which point is nearer to the wire.
    Measuring,
    /// It answers, and was seen to.
    Proven,
    /// TC answers alone, and why.
    Off(String),
}

/// XDP on one interface.
#[derive(Clone, Debug)]
pub(super) struct Native {
    stand: Stand,
    /// When it is looked at again, if ever.
    at: Option<Time<Mono>>,
    is_redirected: bool,
}

impl Native {
    pub(super) fn new(is_wanted: bool, loaded: Result<(), CaptureError>) -> Self {
        let stand = match (is_wanted, loaded) {
            (false, _) => Stand::Unwanted,
            (true, Ok(())) => Stand::Due,
            (true, Err(error)) => Stand::Off(error.to_string()),
        };
        // What cannot be loaded is not tried again.
        let at = (stand == Stand::Due).then_some(Time::ZERO);
        Self { stand, at, is_redirected: false }
    }

    /// The interface is another one.
    pub(super) fn begin(&mut self, now: Time<Mono>) {
        if self.at.is_some() {
            (self.stand, self.at) = (Stand::Due, Some(now));
        }
    }

    /// Among [`interface::FLAGS`].
    pub(super) const fn flags(&self) -> u64 {
        match self.stand {
            Stand::Proven if self.is_redirected => interface::XDP | interface::REDIRECT,
            Stand::Proven => interface::XDP,
            Stand::Measuring => interface::COMPARE,
            _ => 0,
        }
    }

    pub(super) fn is_proven(&self) -> bool {
        self.stand == Stand::Proven
    }

    /// Why it does not answer, where it was to.
    pub(super) fn reason(&self) -> Option<String> {
        match &self.stand {
            Stand::Off(reason) => Some(reason.clone()),
            Stand::Measuring => Some("it is being measured".to_owned()),
            Stand::Due => Some("not tried yet".to_owned()),
            Stand::Unwanted | Stand::Proven => None,
        }
    }
}

impl Answers {
    /// What is to be done with XDP on a port, where TC was seen to answer.
    pub(super) fn look_after_native(
        &mut self,
        now: Time<Mono>,
        index: usize,
        wanted: &PortAnswers,
    ) {
        if self.ports[index].state != State::Proven {
            return;
        }
        match self.ports[index].native.stand {
            Stand::Unwanted => {}
            Stand::Measuring => self.compare(now, index, wanted),
            Stand::Due | Stand::Proven | Stand::Off(_) => {
                if self.ports[index].native.at.is_none_or(|at| at > now) {
                    return;
                }
                if self.config.mode == Mode::Xdp || self.ports[index].native.is_proven() {
                    self.prove_native(now, index, wanted);
                } else {
                    let attached = self.attach_to_compare(index);
                    let stand = attached.map_or_else(Stand::Off, |()| Stand::Measuring);
                    self.settle_native(now, index, wanted, stand, AGAIN);
                }
            }
        }
    }

    /// Decides, once enough requests were seen.
    fn compare(&mut self, now: Time<Mono>, index: usize, wanted: &PortAnswers) {
        let [count, earlier, sum_ns] =
            self.programs.compared(u32::try_from(index).unwrap_or(u32::MAX));
        if count < COMPARED {
            return;
        }
        let mean_ns = sum_ns.cast_signed() / count.cast_signed();
        let interface = &self.ports[index].interface;
        tracing::info!(interface, count, earlier, mean_ns, "XDP's clock before the stack's stamp");
        if earlier * 10 >= count * MOSTLY {
            self.prove_native(now, index, wanted);
        } else {
            let reason = format!(
                "the stack's stamp is nearer to the wire: XDP saw {earlier} of {count} requests before it, on the \
                 mean {} ns behind it",
                -mean_ns
            );
            self.programs.detach_native(self.ports[index].ifindex);
            self.settle_native(now, index, wanted, Stand::Off(reason), AGAIN);
            // It was measured.
            self.ports[index].native.at = None;
        }
    }

    fn prove_native(&mut self, now: Time<Mono>, index: usize, wanted: &PortAnswers) {
        if let Err(reason) = self.attach_native(index) {
            self.settle_native(now, index, wanted, Stand::Off(reason), AGAIN);
            return;
        }
        let before = std::mem::replace(&mut self.ports[index].native.stand, Stand::Proven);
        self.tell_native(index, wanted);
        let tried = self.try_native(index, wanted);
        self.ports[index].native.stand = before;
        match tried {
            Ok(()) => self.settle_native(now, index, wanted, Stand::Proven, AGAIN),
            Err(reason) => {
                self.programs.detach_native(self.ports[index].ifindex);
                self.settle_native(now, index, wanted, Stand::Off(reason), LATER);
            }
        }
    }

    /// A veth's receive path is another one with XDP, by NAPI, so that the stack stamps later than without: whatever is
    /// compared then, TC without XDP is nearer to the wire.
    fn attach_to_compare(&mut self, index: usize) -> Result<(), String> {
        if is_veth(&self.ports[index].interface) {
            return Err("XDP makes the stamps of a veth worse: NAPI comes before them".to_owned());
        }
        self.attach_native(index)
    }

    fn attach_native(&mut self, index: usize) -> Result<(), String> {
        let port = &mut self.ports[index];
        let vlans = vlans_on(&port.interface)?;
        if let Some(vlan) = vlans.first() {
            self.programs.detach_native(port.ifindex);
            return Err(format!(
                "{vlan} is on top of it: where a card takes tags off, XDP cannot tell whose a request is"
            ));
        }
        port.native.is_redirected = is_veth(&port.interface);
        let attached = self.programs.attach_native(port.ifindex, &port.interface);
        attached.map_err(|error| error.to_string())
    }

    fn try_native(&mut self, index: usize, wanted: &PortAnswers) -> Result<(), String> {
        let ifindex = self.ports[index].ifindex;
        let place = self.place(index, wanted, ifindex)?;
        let port = &mut self.ports[index];
        port.sequence_id = port.sequence_id.wrapping_add(1);
        let tried = probe::probe_native(&mut self.programs, &place, self.probe, port.sequence_id);
        tried.map(drop).map_err(|error| error.to_string())
    }

    fn tell_native(&mut self, index: usize, wanted: &PortAnswers) {
        let numbers = self.numbers(index, wanted);
        let _ = self.programs.set_interface(self.ports[index].ifindex, Some(numbers));
        self.ports[index].told = Some(numbers);
    }

    fn settle_native(
        &mut self,
        now: Time<Mono>,
        index: usize,
        wanted: &PortAnswers,
        stand: Stand,
        again: Duration,
    ) {
        let port = &mut self.ports[index];
        let interface = &port.interface;
        if port.native.stand != stand {
            match &stand {
                Stand::Off(reason) => {
                    tracing::warn!(interface, reason, "XDP does not answer, TC does");
                }
                Stand::Proven => tracing::info!(interface, "requests are answered by XDP"),
                Stand::Measuring => {
                    tracing::info!(interface, "XDP is compared with the stack's stamp");
                }
                Stand::Unwanted | Stand::Due => {}
            }
        }
        (port.native.stand, port.native.at) = (stand, Some(now + again));
        self.tell_native(index, wanted);
    }
}

fn is_veth(interface: &str) -> bool {
    ethtool::driver(interface).is_ok_and(|driver| driver.name == VETH)
}

/// The VLAN interfaces on top of one.
fn vlans_on(interface: &str) -> Result<Vec<String>, String> {
    match fs::read_to_string("/proc/thread-self/net/vlan/config") {
        Ok(table) => Ok(vlans_in(&table, interface)),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(Vec::new()),
        Err(error) => Err(format!("cannot see whether it has VLANs: {error}")),
    }
}

/// Lines of `name | identifier | interface`, behind two of heading.
fn vlans_in(table: &str, interface: &str) -> Vec<String> {
    let lines = table.lines().map(|line| line.split('|').map(str::trim).collect::<Vec<_>>());
    let on = lines.filter(|words| words.len() == 3 && words[2] == interface);
    on.map(|words| words[0].to_owned()).collect()
}

impl Programs {
    /// Loads what answers in the driver. It answers nobody before it is attached and told to.
    ///
    /// # Errors
    /// What the kernel lacks.
    pub(super) fn load_native(&mut self) -> Result<(), CaptureError> {
        program::<Xdp>(self.ebpf(), NATIVE)?.load().map_err(CaptureError::load)?;
        program::<RawTracePoint>(self.ebpf(), TAKEN)?.load().map_err(CaptureError::load)
    }

    /// Attaches it to an interface, unless it is attached already.
    ///
    /// # Errors
    /// [`CaptureError::Attach`]: another program is there, or the driver runs none.
    pub(super) fn attach_native(
        &mut self,
        ifindex: u32,
        interface: &str,
    ) -> Result<(), CaptureError> {
        if self.native.contains_key(&ifindex) {
            return Ok(());
        }
        let program = program::<Xdp>(self.ebpf(), NATIVE)?;
        let link = program.attach(interface, XdpMode::Driver);
        let link = link.map_err(|error| attach_error(NATIVE, interface)(error))?;
        self.native.insert(ifindex, link);
        Ok(())
    }

    /// Takes it off again.
    pub(super) fn detach_native(&mut self, ifindex: u32) {
        if let Some(link) = self.native.remove(&ifindex)
            && let Ok(program) = program::<Xdp>(self.ebpf(), NATIVE)
        {
            let _ = program.detach(link);
        }
    }

    /// Sums over the requests that both points of an interface have seen; see [`compared`].
    pub(super) fn compared(&mut self, number: u32) -> [u64; compared::LENGTH] {
        let mut sums = [0_u64; compared::LENGTH];
        let map = map::<PerCpuArray<_, [u64; compared::LENGTH]>>(self.ebpf(), "COMPARED");
        let Ok(all) = map.and_then(|map| {
            map.get(&number, 0).map_err(|error| CaptureError::Map("COMPARED", error))
        }) else {
            return sums;
        };
        for one in all.iter() {
            for (sum, part) in sums.iter_mut().zip(one) {
                *sum = sum.wrapping_add(*part);
            }
        }
        sums
    }

    /// What the program makes of a frame, without sending anything.
    ///
    /// # Errors
    /// What the kernel says.
    pub(super) fn dry_run(
        &mut self,
        ifindex: u32,
        frame: &[u8],
    ) -> Result<(u32, Vec<u8>), ProgramError> {
        let context = super::programs::context(ifindex, frame);
        let mut answer = vec![0; 512];
        let options = TestRunOptions {
            data_in: Some(frame),
            data_out: Some(&mut answer),
            ctx_in: Some(&context),
            ..TestRunOptions::default()
        };
        let program: &mut Xdp =
            self.ebpf().program_mut(NATIVE).ok_or(ProgramError::NotLoaded)?.try_into()?;
        let result = program.test_run(options)?;
        answer.truncate(result.data_size_out as usize);
        Ok((result.return_value, answer))
    }

    /// Lets the program have a frame, and its answer go to the driver; whether that has taken it.
    ///
    /// # Errors
    /// What the kernel says; Linux 5.18 is needed.
    pub(super) fn live_run(&mut self, ifindex: u32, frame: &[u8]) -> Result<bool, CaptureError> {
        let failed = |error| attach_error(TAKEN, TAKEN_AT)(error);
        let tracepoint = program::<RawTracePoint>(self.ebpf(), TAKEN)?;
        let link = tracepoint.attach(TAKEN_AT).map_err(failed)?;
        let result = self.live_run_watched(ifindex, frame);
        let _ = program::<RawTracePoint>(self.ebpf(), TAKEN)?.detach(link);
        result
    }

    fn live_run_watched(&mut self, ifindex: u32, frame: &[u8]) -> Result<bool, CaptureError> {
        self.taken(true)?;
        let context = super::programs::context(ifindex, frame);
        let options = TestRunOptions {
            data_in: Some(frame),
            ctx_in: Some(&context),
            attrs: TestRunAttrs::new().xdp_live_frames(1),
            ..TestRunOptions::default()
        };
        let program = program::<Xdp>(self.ebpf(), NATIVE)?;
        program.test_run(options).map_err(|error| attach_error(NATIVE, "a trial")(error))?;
        Ok(self.taken(false)? > 0)
    }

    /// Frames that a driver has taken from a trial; begins anew on request.
    fn taken(&mut self, begins: bool) -> Result<u64, CaptureError> {
        const NAME: &str = "TAKEN";
        let failed = |error| CaptureError::Map(NAME, error);
        let mut map = map::<PerCpuArray<_, [u64; 2]>>(self.ebpf(), NAME)?;
        let all = map.get(&0, 0).map_err(failed)?;
        let total = all.iter().map(|[_, taken]| taken).sum();
        if begins {
            let none = PerCpuValues::try_from(vec![[0; 2]; all.len()]);
            let none = none.map_err(|error| failed(MapError::IoError(error)))?;
            map.set(0, none, 0).map_err(failed)?;
        }
        Ok(total)
    }
}

/// `XDP_TX` and `XDP_REDIRECT` of linux/bpf.h.
pub(super) const SENT: [u32; 2] = [3, 4];

/// How often a dry run is repeated.
pub(super) const fn dry_runs() -> usize {
    DRY_RUNS
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn vlans_are_found_by_the_interface_below() {
        let table = "VLAN Dev name    | VLAN ID\nName-Type: VLAN_NAME_TYPE_RAW_PLUS_VID_NO_PAD\n\
                     eth0.100       | 100  | eth0\neth1.7         | 7  | eth1\n";
        assert_eq!(vlans_in(table, "eth0"), ["eth0.100"]);
        assert!(vlans_in(table, "eth2").is_empty() && vlans_in("", "eth0").is_empty());
    }
}
