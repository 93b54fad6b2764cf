//! What the programs that watch interrupts tell user space of a received packet, and how they count polls. Plain
//! words, so that both sides agree without a layout: see [`word`].

/// Words of a record.
pub const WORDS: usize = 4;
/// Interrupts have numbers below this; of others nothing is told.
pub const NUMBERS: usize = 4096;
/// Polls are counted by their packets, all with this many and more as one.
pub const LARGEST_POLL: usize = 64;
/// Places of that count.
pub const POLLS: usize = LARGEST_POLL + 1;

/// Meanings of a record's words. Times are nanoseconds.
pub mod word {
    /// The last interrupt of the interface on that processor, CLOCK_MONOTONIC; 0 where the packet was found by
    /// a poll that needed none.
    pub const INTERRUPT: usize = 0;
    /// TC ingress, CLOCK_MONOTONIC.
    pub const TC_INGRESS: usize = 1;
    /// The stack's own stamp, CLOCK_REALTIME; 0 where there is none.
    pub const STACK: usize = 2;
    /// 1 for a PTP message, 0 for anything else.
    pub const IS_PTP: usize = 3;
}
