//! What is told of each Sync that was used.

use ptp_common::{
    time::{Duration, Mono, Time},
    wire::{ClockIdentity, PortIdentity},
};

use crate::{
    PortIndex,
    csptp::Protocol,
    servo::{ServoState, Trust},
    stamp::StampSource,
    strategy::Strategy,
};

/// One line of `run --json`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Sample {
    /// The port.
    pub port: PortIndex,
    /// The domain.
    pub domain_number: u8,
    /// When the Sync arrived.
    pub mono: Time<Mono>,
    /// Clock minus time transmitter, as the servo sees it.
    pub offset: Duration,
    /// The same from the latest exchange alone.
    pub raw_offset: Duration,
    /// Mean path delay or mean link delay.
    pub delay: Duration,
    /// The adjustment of the clock after this Sync, parts per billion.
    pub frequency_ppb: f64,
    /// State of the servo.
    pub state: ServoState,
    /// How far the clock can be trusted.
    pub trust: Option<Trust>,
    /// Where the Sync was stamped.
    pub rx_source: StampSource,
    /// Where the latest answered request was stamped; `None` before the first one.
    pub tx_source: Option<StampSource>,
    /// The time transmitter.
    pub parent: PortIdentity,
    /// The grandmaster behind it.
    pub grandmaster: Option<ClockIdentity>,
    /// `sequenceId` of the Sync.
    pub sequence_id: u16,
    /// How a server was asked; `None` where nobody had to be.
    pub exchange: Option<Protocol>,
    /// How requests are sent and Sync messages chosen.
    pub strategy: Strategy,
    /// Whether it was a server of NTP, of which the port is counted behind those of PTP.
    pub is_of_ntp: bool,
    /// Whether it was a pulse per second, of which the port is counted behind all others.
    pub is_of_pulse: bool,
}
