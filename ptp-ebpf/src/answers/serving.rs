//! What every program looks up before it answers: whether anybody is to be answered now, by which numbers, who asks, and
//! which time it was when the request came.

use aya_ebpf::helpers::generated::{bpf_ktime_get_ns, bpf_ktime_get_tai_ns};
use ptp_common::answer::{Outcome, interface, served, slot};

use crate::{
    hook::Hook,
    maps::{Interface, Slot, admit, mixed},
    memory::{first_half, pair},
    packet::{Ends, Request},
};

/// The stack's stamp is taken so long before TC ingress at the most, ns; another one is no stamp of this packet.
const STACK_NS: i64 = 100_000_000;
/// Two reads of the clocks agree with what the agent knows of them to within this, ns.
const AGREE_NS: i64 = 1_000;

/// The clocks, read in this order.
pub struct Clocks {
    pub before_ns: u64,
    tai_ns: u64,
    after_ns: u64,
}

impl Clocks {
    #[inline(always)]
    pub fn read() -> Self {
        // SAFETY: helpers without arguments.
        unsafe {
            Self {
                before_ns: bpf_ktime_get_ns(),
                tai_ns: bpf_ktime_get_tai_ns(),
                after_ns: bpf_ktime_get_ns(),
            }
        }
    }
}

/// Who asks: `sourcePortIdentity` as it lies in memory.
pub struct Asking(u64, u16);

impl Asking {
    #[inline(always)]
    pub fn of(request: &Request) -> Self {
        Self(pair(request[5], request[6]), first_half(request[7]))
    }
}

/// The numbers by which a request is answered.
pub struct Serving {
    pub own: Interface,
    pub slot: Slot,
    pub now_ns: u64,
    generation: u64,
    clocks: Clocks,
}

impl Serving {
    /// Whether anybody is to be answered at all.
    #[inline(always)]
    pub fn open(own: Interface, clocks: Clocks) -> Result<Self, Outcome> {
        if own.get(interface::FLAGS) & interface::SERVING == 0 {
            return Err(Outcome::Passive);
        }
        let now_ns = clocks.before_ns;
        let slot = Slot::now(now_ns).ok_or(Outcome::Stale)?;
        Ok(Self { own, slot, now_ns, generation: slot.get(slot::GENERATION), clocks })
    }

    /// Nobody has set the host's clock since the agent has read it.
    #[inline(always)]
    pub fn check_clock(&self) -> Result<(), Outcome> {
        let offset = self.slot.get(slot::TAI_MINUS_MONO) as i64;
        let tai = (self.clocks.tai_ns as i64).wrapping_sub(offset);
        let is_same = tai > self.clocks.before_ns as i64 - AGREE_NS
            && tai < self.clocks.after_ns as i64 + AGREE_NS;
        if is_same { Ok(()) } else { Err(Outcome::ClockSet) }
    }

    /// The agent asks itself now and then, from its own address.
    #[inline(always)]
    pub fn is_probe(&self, asking: &Asking) -> bool {
        asking.0 == self.slot.get(slot::PROBE)
    }

    /// The time served at an instant of CLOCK_MONOTONIC.
    #[inline(always)]
    pub fn time(&self, mono_ns: i64) -> Option<u64> {
        let slot = self.slot;
        let base_mono = slot.get(slot::BASE_MONO) as i64;
        let base_time = slot.get(slot::BASE_TIME) as i64;
        served(mono_ns, base_mono, base_time, slot.get(slot::RATE) as i64)
            .filter(|time_ns| *time_ns >= 0)
            .map(|time_ns| time_ns as u64)
    }

    /// The same when the request arrived.
    #[inline(always)]
    pub fn arrival<H: Hook>(&self, hook: &H) -> Result<u64, Outcome> {
        let now_ns = self.now_ns as i64;
        let is_stack = self.own.get(interface::FLAGS) & interface::STACK != 0;
        let stack_ns = if is_stack { self.stack_mono(hook) } else { None };
        let latency_ns = self.own.get(interface::LATENCY) as i64;
        self.time(stack_ns.unwrap_or(now_ns) - latency_ns).ok_or(Outcome::Stale)
    }

    /// The stack's stamp as CLOCK_MONOTONIC, where there is one of this packet.
    #[inline(always)]
    pub fn stack_mono<H: Hook>(&self, hook: &H) -> Option<i64> {
        let now_ns = self.now_ns as i64;
        let stack_ns = hook.stack_ns();
        let mono_ns = stack_ns.wrapping_sub(self.slot.get(slot::REAL_MINUS_MONO) as i64);
        (stack_ns != 0 && mono_ns <= now_ns && mono_ns > now_ns - STACK_NS).then_some(mono_ns)
    }

    /// The sender's address as a hash that nobody can aim at.
    #[inline(always)]
    pub fn address(&self, ends: &Ends) -> u64 {
        ends.hash(self.slot.get(slot::SEED))
    }

    /// Whether a client may have an answer now.
    #[inline(always)]
    pub fn admit(&self, kind: u32, address: u64, asking: &Asking) -> Result<(), Outcome> {
        let client = mixed(mixed(address, asking.0), u64::from(asking.1));
        if admit(self.slot, self.now_ns, client)? {
            self.own.count(kind, Outcome::NewClient);
        }
        Ok(())
    }

    /// What was read was not overwritten meanwhile.
    #[inline(always)]
    pub fn confirm(&self) -> Result<(), Outcome> {
        if self.slot.is_still(self.generation) { Ok(()) } else { Err(Outcome::Stale) }
    }
}
