//! What the kernel programs that answer for a time transmitter share with the agent: outcomes and where they are
//! counted, the numbers that the agent gives, and the arithmetic of the served time and of budgets. The
//! programs write no message of their own: the agent gives them one that the wire module has made, and they fill
//! in what depends on the request.

/// What became of a request, numbered for counters; the names are labels of metrics.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub enum Outcome {
    /// Answered here.
    Answered = 0,
    /// Left to the agent: it has not told lately that it is there, or knows no time.
    Stale = 1,
    /// Left to the agent: the host's clock was set since it has last read it.
    ClockSet = 2,
    /// Left to the agent: the port serves nobody now.
    Passive = 3,
    /// Left to the agent: TLVs, another domain or version, lengths that are no plain request's.
    Foreign = 4,
    /// Left to the agent: from or to an address that is not answered here.
    Address = 5,
    /// Left to the agent: behind a VLAN tag, in fragments, or joined with others.
    Packet = 6,
    /// Left to the agent: the packet could not be changed.
    Failed = 7,
    /// Dropped: its sender has asked too often.
    ClientLimit = 8,
    /// Dropped: more ask than are answered in all.
    Budget = 9,
    /// Dropped: more ask than are answered, and this one was not known before.
    Crowded = 10,
    /// Dropped: of no prefix that is served.
    Prefix = 11,
    /// Dropped: too many requests in the name of one address outside the link's own.
    Stranger = 12,
    /// The agent's own trial, answered.
    Probe = 13,
    /// A client has come back and has a budget of its own from now on; counted beside the answer.
    NewClient = 14,
    /// A second message could not be sent, so the first one has no departure.
    NoDeparture = 15,
}

impl Outcome {
    /// All of them, in the order of their numbers.
    pub const ALL: [Self; 16] = [
        Self::Answered,
        Self::Stale,
        Self::ClockSet,
        Self::Passive,
        Self::Foreign,
        Self::Address,
        Self::Packet,
        Self::Failed,
        Self::ClientLimit,
        Self::Budget,
        Self::Crowded,
        Self::Prefix,
        Self::Stranger,
        Self::Probe,
        Self::NewClient,
        Self::NoDeparture,
    ];

    /// The name in metrics and status.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Answered => "answered",
            Self::Stale => "stale",
            Self::ClockSet => "clock_set",
            Self::Passive => "passive",
            Self::Foreign => "foreign",
            Self::Address => "address",
            Self::Packet => "packet",
            Self::Failed => "failed",
            Self::ClientLimit => "client_limit",
            Self::Budget => "budget",
            Self::Crowded => "crowded",
            Self::Prefix => "prefix",
            Self::Stranger => "stranger",
            Self::Probe => "probe",
            Self::NewClient => "new_client",
            Self::NoDeparture => "no_departure",
        }
    }

    /// Whether such a request is dropped; all others that are not answered go on to the agent.
    #[inline(always)]
    pub const fn is_refused(self) -> bool {
        matches!(
            self,
            Self::ClientLimit | Self::Budget | Self::Crowded | Self::Prefix | Self::Stranger
        )
    }
}

/// The kinds of requests, numbered for counters.
pub const KINDS: [&str; 3] = ["delay_req", "csptp", "sptp"];
/// Interfaces at the most; they are numbered from 0.
pub const INTERFACES: u32 = 64;
/// Counts in all: 16 outcomes for each of 4 kinds for each interface.
pub const COUNTS: usize = (INTERFACES as usize) << 6;

/// Place of a count.
#[inline(always)]
pub const fn count_index(interface: u32, kind: u32, outcome: u32) -> u32 {
    (interface & (INTERFACES - 1)) << 6 | (kind & 3) << 4 | (outcome & 15)
}

/// Numbers that hold for all interfaces: one of two slots, of which the generation's last bit says which. So
/// a program sees all numbers of one writing, or none.
pub mod slot {
    /// The generation; others are not valid for whoever expects another one.
    pub const GENERATION: usize = 0;
    /// CLOCK_MONOTONIC until which is answered, ns.
    pub const UNTIL: usize = 1;
    /// CLOCK_MONOTONIC at which the served time was [`BASE_TIME`], ns.
    pub const BASE_MONO: usize = 2;
    /// Served time then, ns.
    pub const BASE_TIME: usize = 3;
    /// By how much the served clock is faster than CLOCK_MONOTONIC, in 2^-30.
    pub const RATE: usize = 4;
    /// CLOCK_TAI minus CLOCK_MONOTONIC, ns.
    pub const TAI_MINUS_MONO: usize = 5;
    /// CLOCK_REALTIME minus CLOCK_MONOTONIC, ns.
    pub const REAL_MINUS_MONO: usize = 6;
    /// See [`super::flag`].
    pub const FLAGS: usize = 7;
    /// Nanoseconds that an answer costs of each processor's budget,
    pub const TOTAL_COST: usize = 8;
    /// and how many of them may be used in advance.
    pub const TOTAL_BURST: usize = 9;
    /// The same of one client,
    pub const CLIENT_COST: usize = 10;
    /// in advance.
    pub const CLIENT_BURST: usize = 11;
    /// The same of an address outside the prefixes that are trusted,
    pub const STRANGER_COST: usize = 12;
    /// in advance.
    pub const STRANGER_BURST: usize = 13;
    /// So that nobody can aim at a place in a table.
    pub const SEED: usize = 14;
    /// clockIdentity of the agent's own trials, as it lies in memory.
    pub const PROBE: usize = 15;
    /// How many there are.
    pub const LENGTH: usize = 16;
}

/// Bits of [`slot::FLAGS`] and of prefixes.
pub mod flag {
    /// Only who is in a prefix is answered.
    pub const PREFIXES_ONLY: u64 = 1;
    /// What is known of an arrival goes behind the answer.
    pub const BRACKETS: u64 = 2;
    /// Of a prefix: it is served.
    pub const SERVED: u32 = 1;
    /// Of a prefix: answers may be longer than requests by more than a fifth, and there is no limit for one
    /// address.
    pub const TRUSTED: u32 = 2;
}

/// Numbers of one interface.
pub mod interface {
    /// See the constants below.
    pub const FLAGS: usize = 0;
    /// Between the wire and the receive stamp, ns.
    pub const LATENCY: usize = 1;
    /// Own MAC address, as it lies in memory.
    pub const MAC: usize = 2;
    /// Own IPv4 address, as it lies in memory.
    pub const IP4: usize = 3;
    /// Own IPv6 address for groups that leave the link, as it lies in memory.
    pub const IP6: usize = 4;
    /// Own IPv6 address on the link.
    pub const IP6_LINK: usize = 6;
    /// Delay_Resp as the agent would send it, with the TLV of brackets behind it.
    pub const RESPONSE: usize = 8;
    /// Of CSPTP the answer with its status,
    pub const CSPTP_ANSWER: usize = RESPONSE + super::RESPONSE / 8;
    /// and the Follow_Up.
    pub const CSPTP_FOLLOW_UP: usize = CSPTP_ANSWER + super::CSPTP_ANSWER / 8;
    /// Of SPTP the Sync,
    pub const SPTP_SYNC: usize = CSPTP_FOLLOW_UP + super::WORDS_OF_SYNC;
    /// and the Announce.
    pub const SPTP_ANNOUNCE: usize = SPTP_SYNC + super::WORDS_OF_SYNC;
    /// Between the transmit stamp and the wire, ns.
    pub const EGRESS_LATENCY: usize = SPTP_ANNOUNCE + super::ANNOUNCE / 8;
    /// How many there are.
    pub const LENGTH: usize = EGRESS_LATENCY + 1;

    /// The port is a time transmitter's.
    pub const SERVING: u64 = 1;
    /// The stack's stamp is when a request arrived; otherwise the clock is read.
    pub const STACK: u64 = 2;
    /// SPTP is answered.
    pub const SPTP: u64 = 4;
    /// CSPTP is answered.
    pub const CSPTP: u64 = 8;
    /// XDP answers, in front of TC.
    pub const XDP: u64 = 16;
    /// What XDP answers goes out by a redirect to the same interface, and not by `XDP_TX`: a veth hands that on only where
    /// the other end has a program of its own, and loses it silently otherwise.
    pub const REDIRECT: u64 = 32;
    /// TC answers nothing but the agent's own trials: whoever listens with a packet socket has heard a request before TC, and
    /// answers as well.
    pub const XDP_ALONE: u64 = 128;
    /// XDP and TC see which of them is nearer to the wire.
    pub const COMPARE: u64 = 64;
    /// Where the interface's number is among the flags.
    pub const NUMBER_SHIFT: u32 = 8;
    /// Where the number of [`crate::classify::Network`] is.
    pub const NETWORK_SHIFT: u32 = 16;
}

/// Sums over requests that both points have seen.
pub mod compared {
    /// How many.
    pub const COUNT: usize = 0;
    /// How many of them XDP has seen before the stack's stamp.
    pub const XDP_EARLIER: usize = 1;
    /// The stack's stamp minus XDP's clock, ns, signed.
    pub const SUM_NS: usize = 2;
    /// How many there are.
    pub const LENGTH: usize = 3;
}

/// Length of Delay_Resp, bytes.
pub const PLAIN_RESPONSE: usize = 54;
/// The same with the TLV of brackets.
pub const RESPONSE: usize = PLAIN_RESPONSE + 4 + crate::wire::Bracket::LENGTH;

/// Length of an answer of CSPTP with its status, bytes; a request that is padded is as long.
pub const CSPTP_ANSWER: usize = 88;
/// The same without its status.
pub const CSPTP_PLAIN_ANSWER: usize = 66;
/// Length of a request of CSPTP that is not padded.
pub const CSPTP_REQUEST: usize = 52;
/// Length of a request of SPTP with its TLV.
pub const SPTP_REQUEST: usize = 50;
/// Length of Sync, Follow_Up and Delay_Req without TLVs.
pub const SYNC: usize = 44;
/// Length of Announce.
pub const ANNOUNCE: usize = 64;
/// Words of eight bytes that a Sync is in.
const WORDS_OF_SYNC: usize = SYNC.div_ceil(8);
/// What answers of ours have in the first two words of the control block, by which the program that stamps what
/// leaves knows that nobody waits for a stamp of them.
pub const MARK: [u32; 2] = [0x7054_5041, 0x6e73_5772];

/// Of an address: it is this host's.
pub const OWN: u32 = 1;
/// Of an address: whoever sends to it reaches all.
pub const BROADCAST: u32 = 2;

/// Parts of a nanosecond per nanosecond in which rates are told, log2.
pub const RATE_BITS: u32 = 30;
/// A base is good for so long, ns: the product below has no more room.
pub const BASE_AGE_NS: i64 = 1 << 40;

/// The time served at `mono_ns`, ns; `None` too far from the base. `rate` is below 2^20.
#[inline(always)]
pub const fn served(mono_ns: i64, base_mono_ns: i64, base_time_ns: i64, rate: i64) -> Option<i64> {
    let since = mono_ns - base_mono_ns;
    if since > BASE_AGE_NS || since < -BASE_AGE_NS {
        return None;
    }
    Some(base_time_ns + since + ((since * rate) >> RATE_BITS))
}

/// A rate in parts per thousand million as [`served`] takes it, as near as that comes.
pub fn rate_of_ppb(ppb: f64) -> i64 {
    let rate = ppb * 1e-9 * (1_u64 << RATE_BITS) as f64;
    // `round` needs the standard library.
    let most = f64::from(1 << 20);
    (rate.clamp(-most, most) + if rate < 0.0 { -0.5 } else { 0.5 }) as i64
}

/// A budget, kept as the time at which all that was spent is earned: `Some` with the new one where there is
/// enough left. All in nanoseconds.
#[inline(always)]
pub const fn spend(earned_at: u64, now: u64, cost: u64, burst: u64) -> Option<u64> {
    if earned_at > now + burst {
        return None;
    }
    let from = if earned_at > now { earned_at } else { now };
    Some(from + cost)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn outcomes_keep_their_numbers_and_have_places_of_their_own() {
        for (number, outcome) in Outcome::ALL.into_iter().enumerate() {
            assert_eq!(outcome as usize, number);
        }
        assert!((count_index(63, 3, 15) as usize) < COUNTS);
        assert_ne!(count_index(1, 0, 0), count_index(0, 3, 15));
    }

    #[test]
    fn served_time_runs_at_its_rate_and_knows_its_limits() {
        let rate = rate_of_ppb(10_000.0);
        let second = 1_000_000_000;
        let after = served(5 * second, 4 * second, 77, rate).unwrap();
        // A rate is told to within half a part in 2^30, one ns in a second.
        assert!((after - 77 - second - 10_000).abs() <= 1, "{after}");
        assert_eq!(served(4 * second, 4 * second, 77, rate), Some(77));
        let before = served(3 * second, 4 * second, 77, rate).unwrap();
        assert!((before - 77 + second + 10_000).abs() <= 1, "{before}");
        assert_eq!(served(i64::MAX, 0, 0, 0), None);
        assert!(rate_of_ppb(1e12) <= 1 << 20 && rate_of_ppb(-1e12) >= -(1 << 20));
    }

    #[test]
    fn budget_is_spent_in_advance_up_to_the_burst_and_earned_again() {
        let (cost, burst) = (100, 300);
        let mut earned_at = 0;
        let mut answered = 0;
        while let Some(next) = spend(earned_at, 1_000, cost, burst) {
            earned_at = next;
            answered += 1;
        }
        assert_eq!(answered, 4);
        assert_eq!(spend(earned_at, 1_099, cost, burst), None);
        assert_eq!(spend(earned_at, 1_100, cost, burst), Some(1_500));
    }
}
