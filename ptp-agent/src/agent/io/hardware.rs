//! Stamps of the network card (`--rx-source hardware`, `--tx-source hardware`): they are of the card's own clock, which
//! is read together with the host's once a second, and are moved to the host's by what the readings say. How far such
//! a stamp may be off, by noise and width of the readings, is in its doubt. The card is told what to stamp, and told
//! what it was told before at the end; where somebody or a change of the link has made it forget, it is told again.

use std::path::PathBuf;

use ptp_common::time::{Duration, Mono, Ptp, Time};

use crate::{
    clock::{
        phc::{Access, Device, PhcError},
        relation::{Figures, Reading, Relation},
    },
    publish::snapshot::PhcRelation,
    stamp::{Stamp, StampSource},
    sys::{
        ethtool,
        hwtstamp::{self, HardwareStamps},
    },
};

/// Between two readings of the clock.
const LOOK: Duration = Duration::from_secs(1);
/// Between two of the first ones, so that the first stamps need not wait.
const FIRST_LOOK: Duration = Duration::from_millis(50);
const FIRST: usize = 8;
/// A relation that is worse than this is none: the stack's own stamps are better.
const WORST: Duration = Duration::from_micros(50);

/// Why a card's stamps cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum HardwareError {
    /// It has no clock.
    #[error(
        "{0} has no hardware clock (ethtool -T {0}): leave --rx-source and --tx-source as they are"
    )]
    NoClock(String),
    /// It does not stamp.
    #[error("{interface} cannot be told to stamp PTP messages: {error}")]
    Refused {
        /// The interface.
        interface: String,
        /// What the kernel said.
        error: std::io::Error,
    },
    /// Its clock cannot be read.
    #[error(transparent)]
    Clock(#[from] PhcError),
}

/// See the module's paragraph.
#[derive(Debug)]
pub(super) struct Card {
    interface: String,
    switch: HardwareStamps,
    wanted: hwtstamp::Config,
    device: Device,
    relation: Relation,
    looked: Option<Time<Mono>>,
    readings: usize,
    /// How often it had to be told again.
    forgotten: u64,
    has_failed: bool,
}

impl Card {
    /// Tells the card of `interface` to stamp, and reads its clock.
    ///
    /// # Errors
    /// [`HardwareError`]; the card is as it was then.
    pub(super) fn open(interface: &str, now: Time<Mono>) -> Result<Self, HardwareError> {
        let no_clock = || HardwareError::NoClock(interface.to_owned());
        let offered = ethtool::timestamping(interface).map_err(|_| no_clock())?;
        let number = offered.phc.ok_or_else(no_clock)?;
        let device = Device::open(&PathBuf::from(format!("/dev/ptp{number}")), Access::Read)?;
        let refused = |error| HardwareError::Refused { interface: interface.to_owned(), error };
        let switch = HardwareStamps::enable(interface).map_err(refused)?;
        let wanted = switch.now().unwrap_or_default();
        let mut card = Self {
            interface: interface.to_owned(),
            switch,
            wanted,
            device,
            relation: Relation::default(),
            looked: None,
            readings: 0,
            forgotten: 0,
            has_failed: false,
        };
        card.look(now);
        Ok(card)
    }

    /// Reads both clocks when it is time, and looks whether the card still stamps.
    pub(super) fn look(&mut self, now: Time<Mono>) {
        let pause = if self.readings < FIRST { FIRST_LOOK } else { LOOK };
        if self.looked.is_some_and(|at| now - at < pause) {
            return;
        }
        self.looked = Some(now);
        match self.device.cross_reading() {
            Ok(reading) => {
                self.has_failed = false;
                self.readings = self.readings.saturating_add(1);
                if self.relation.learn(Reading::from(reading)) {
                    tracing::info!(interface = self.interface, "the card's clock was set");
                }
            }
            Err(error) if !std::mem::replace(&mut self.has_failed, true) => {
                tracing::warn!(interface = self.interface, %error, "cannot read the card's clock");
            }
            Err(_) => {}
        }
        let is_as_wanted = self.switch.now();
        if is_as_wanted.is_ok_and(|now| now != self.wanted) {
            self.forgotten += 1;
            match self.switch.again() {
                Ok(()) => {
                    tracing::warn!(
                        interface = self.interface,
                        "the card had stopped stamping; told again"
                    );
                    self.wanted = self.switch.now().unwrap_or(self.wanted);
                }
                Err(error) => {
                    tracing::warn!(interface = self.interface, %error, "the card does not stamp any more");
                }
            }
        }
    }

    /// A stamp of the card on the host's clock; `None` while nobody knows well enough how the two lie.
    pub(super) fn stamp(&self, time: Time<Ptp>) -> Option<Stamp> {
        self.bound()?;
        Some(Stamp::new(self.relation.mono_at(time)?, StampSource::Hardware))
    }

    /// How far a stamp may be off, if that is little enough.
    pub(super) fn bound(&self) -> Option<Duration> {
        let bound = Duration::from_nanos_f64(self.relation.figures()?.bound_ns);
        (bound <= WORST).then_some(bound)
    }

    /// For the status.
    pub(super) fn told(&self) -> Option<PhcRelation> {
        self.relation.figures().map(relation)
    }

    /// How often the card had to be told to stamp once more.
    pub(super) const fn forgotten(&self) -> u64 {
        self.forgotten
    }
}

/// Figures as the status has them.
pub(in crate::agent) fn relation(it: Figures) -> PhcRelation {
    PhcRelation {
        rate_ppb: it.rate_ppb,
        noise_ns: it.noise_ns,
        bound_ns: it.bound_ns,
        method: it.method.name().into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_interface_without_a_clock_is_refused_with_what_to_do() {
        for interface in ["lo", "nothing0"] {
            let error = Card::open(interface, Time::ZERO).unwrap_err().to_string();
            assert!(error.contains(interface) && error.contains("ethtool -T"), "{error}");
        }
    }
}
