//! How a receiver and its ports are to behave: the default profile of annex I unless something else is
//! said.

use super::super::DelayMechanism;
use ptp_common::{time::Duration, wire::ClockIdentity};

/// How one port behaves.
#[derive(Clone, Debug)]
pub struct PortConfig {
    /// `delayMechanism`.
    pub delay_mechanism: DelayMechanism,
    /// `announceReceiptTimeout`, announce intervals (7.7.3.1).
    pub announce_receipt_timeout: u8,
    /// Announce interval assumed for a time transmitter that says none, log2 s.
    pub log_announce_interval: i8,
    /// Mean interval of Delay_Req until the time transmitter says another, log2 s.
    pub log_min_delay_req_interval: i8,
    /// Interval of Pdelay_Req, log2 s.
    pub log_min_pdelay_req_interval: i8,
    /// `delayAsymmetry` (7.4.2): positive where the path from the time transmitter is the slower.
    pub delay_asymmetry: Duration,
    /// Whether the link is up at the start.
    pub link_up: bool,
}

impl Default for PortConfig {
    /// The default profile of annex I, link up.
    fn default() -> Self {
        Self {
            delay_mechanism: DelayMechanism::E2e,
            announce_receipt_timeout: 3,
            log_announce_interval: 1,
            log_min_delay_req_interval: 0,
            log_min_pdelay_req_interval: 0,
            delay_asymmetry: Duration::ZERO,
            link_up: true,
        }
    }
}

/// How the clock behaves.
#[derive(Clone, Debug)]
pub struct ReceiverConfig {
    /// `clockIdentity` of this clock.
    pub clock_identity: ClockIdentity,
    /// `domainNumber`.
    pub domain_number: u8,
    /// `sdoId`, 12 bits.
    pub sdo_id: u16,
    /// `minorVersionPTP` of what is sent; 0 and 1 are both understood.
    pub minor_version: u8,
    /// The ports, in the order of their [`PortIndex`].
    pub ports: Vec<PortConfig>,
    /// Seed for the randomised intervals; the same seed and inputs give the same actions.
    pub seed: u64,
}

impl ReceiverConfig {
    /// One port with the default profile in domain 0.
    pub fn new(clock_identity: ClockIdentity, seed: u64) -> Self {
        Self {
            clock_identity,
            domain_number: 0,
            sdo_id: 0,
            minor_version: 1,
            ports: vec![PortConfig::default()],
            seed,
        }
    }
}
