//! Transmit priming. Most of the time that passes between the transmit stamp and the wire, and most of
//! its spread, is a cold path: caches, branch predictors and idle states of a host that sends a few
//! packets per second. A throwaway frame right before an event message takes that cost upon itself.
//!
//! The driver is asked for its stamp of that frame, which nobody reads: the way of a stamped packet through
//! the kernel, which is that of another daemon's Sync, is to be warm as well where that daemon is on the
//! same host, and costs the message itself nothing.
//!
//! The frame has EtherType 0x88B5 (IEEE 802 local experimental) and goes to the interface's own MAC
//! address, so a switch has no port to forward it to and no host takes it for PTP. Whether it helps
//! is measured here, without the other end: by the width of the bracket that the two tracepoints put
//! around the driver.

use std::cell::Cell;

use socket2::Socket;

use crate::{
    capture::{Candidates, median},
    stamp::StampSource,
    sys::packet,
    transport::{driver_stamp, interface_mac},
};

/// Messages sent with and without priming, each, before deciding.
const TRIALS: usize = 8;
/// Priming stays on where the bracket becomes narrower by this factor.
const WORTHWHILE: f64 = 0.8;
/// IEEE 802 local experimental EtherType 1.
const ETHERTYPE: u16 = 0x88b5;
/// Stamps that are awaited at the most.
const MOST_AWAITED: u32 = 8;
/// Shortest payload of an Ethernet frame.
const PAYLOAD: [u8; 46] = [0; 46];

/// Whether event messages are primed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Deserialize, clap::ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum PrimeMode {
    /// Where it helps.
    #[default]
    Auto,
    /// Never.
    Off,
}

#[derive(Debug)]
enum State {
    Off,
    /// Alternates, and collects the widths of brackets with priming and without, ns.
    Trial {
        primed: Vec<i64>,
        unprimed: Vec<i64>,
        sent: u64,
        last: bool,
    },
    On,
}

/// Primes one port.
#[derive(Debug)]
pub struct Primer {
    interface: String,
    target: Option<Throwaway>,
    state: State,
}

impl Primer {
    /// A primer for an interface; off where it has no MAC address or may not have a packet socket.
    pub fn new(mode: PrimeMode, interface: &str) -> Self {
        let target = match mode {
            PrimeMode::Off => None,
            PrimeMode::Auto => Throwaway::open(interface),
        };
        let state = match target {
            None => State::Off,
            Some(_) => {
                State::Trial { primed: Vec::new(), unprimed: Vec::new(), sent: 0, last: false }
            }
        };
        Self { interface: interface.to_owned(), target, state }
    }

    /// Whether messages are primed, or it is being tried.
    pub const fn is_on(&self) -> bool {
        !matches!(self.state, State::Off)
    }

    /// To be called right before an event message is sent. Whether it is primed.
    pub fn before_event(&mut self) -> bool {
        let prime = match &mut self.state {
            State::Off => false,
            State::On => true,
            State::Trial { sent, last, .. } => {
                *sent += 1;
                *last = sent.is_multiple_of(2);
                *last
            }
        };
        if prime && let Some(target) = &self.target {
            target.send();
        }
        prime
    }

    /// The same where somebody else has decided that it be primed. Whether it is: not where it cannot be.
    pub fn prime(&mut self) -> bool {
        // The trial is over: nobody goes by it.
        self.state = if self.target.is_some() { State::On } else { State::Off };
        self.target.as_ref().map(Throwaway::send).is_some()
    }

    /// The stamps of that message, as far as they came.
    pub fn after_event(&mut self, stamps: &Candidates) {
        let State::Trial { primed, unprimed, last, .. } = &mut self.state else {
            return;
        };
        let (Some(start), Some(done)) =
            (stamps.time(StampSource::StartXmit), stamps.time(StampSource::XmitDone))
        else {
            return;
        };
        let widths = if *last { &mut *primed } else { &mut *unprimed };
        if widths.len() < TRIALS {
            widths.push((done - start).as_nanos());
        }
        if primed.len() < TRIALS || unprimed.len() < TRIALS {
            return;
        }
        let (Some(with), Some(without)) =
            (median(primed.iter().copied()), median(unprimed.iter().copied()))
        else {
            return;
        };
        let helps = (with as f64) < without as f64 * WORTHWHILE;
        tracing::info!(
            interface = self.interface,
            primed_ns = with,
            unprimed_ns = without,
            on = helps,
            "transmit priming: median time in the driver"
        );
        self.state = if helps { State::On } else { State::Off };
    }
}

/// The throwaway frame of an interface.
#[derive(Debug)]
pub struct Throwaway {
    socket: Socket,
    ifindex: u32,
    mac: [u8; 6],
    /// Stamps that were asked for and not read yet.
    awaited: Cell<u32>,
}

impl Throwaway {
    /// `None` where the interface has no MAC address or the process may not have a packet socket.
    pub fn open(interface: &str) -> Option<Self> {
        let mac = interface_mac(interface).filter(|mac| *mac != [0; 6])?;
        let ifindex = nix::net::if_::if_nametoindex(interface).ok()?;
        let socket = packet::open_sender()
            .inspect_err(|error| tracing::debug!(interface, %error, "no priming"))
            .ok()?;
        if let Err(error) = driver_stamp::ask(&socket, true) {
            tracing::debug!(interface, %error, "priming without stamps");
        }
        Some(Self { socket, ifindex, mac, awaited: Cell::new(0) })
    }

    /// Sends it. That it fails changes nothing but the accuracy of one stamp.
    pub fn send(&self) {
        // Before it rather than behind it: nothing is to come between it and the message.
        let awaited = self.awaited.get();
        let left = awaited - driver_stamp::discard(&self.socket, awaited);
        // A driver that stamps nothing is not asked about more and more.
        self.awaited.set((left + 1).min(MOST_AWAITED));
        let _ = packet::send(&self.socket, self.ifindex, self.mac, ETHERTYPE, &PAYLOAD);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stamp::Stamp;
    use ptp_common::time::Time;

    fn bracket(width: i64) -> Candidates {
        let stamp = |nanos, source| Stamp::new(Time::from_nanos(nanos), source);
        let mut stamps = Candidates::one(stamp(1_000, StampSource::StartXmit));
        stamps.add(stamp(1_000 + width, StampSource::XmitDone));
        stamps
    }

    fn trial(primed: i64, unprimed: i64) -> Primer {
        let state = State::Trial { primed: Vec::new(), unprimed: Vec::new(), sent: 0, last: false };
        let mut primer = Primer { interface: "test".to_owned(), target: None, state };
        for n in 0..2 * TRIALS {
            primer.before_event();
            primer.after_event(&bracket(if n % 2 == 1 { primed } else { unprimed }));
        }
        primer
    }

    #[test]
    fn priming_stays_on_where_the_driver_gets_faster() {
        assert!(trial(2_000, 5_700).is_on());
    }

    #[test]
    fn priming_ends_where_it_does_not_help() {
        assert!(!trial(2_000, 2_100).is_on());
    }

    #[test]
    fn without_brackets_the_trial_goes_on() {
        let mut primer = trial(2_000, 5_700);
        primer.state =
            State::Trial { primed: Vec::new(), unprimed: Vec::new(), sent: 0, last: false };
        primer.before_event();
        primer.after_event(&Candidates::default());
        assert!(matches!(primer.state, State::Trial { .. }));
    }
}
