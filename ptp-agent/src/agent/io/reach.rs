//! What a port does when packets do not reach the kernel programs: another program on the same hook ends
//! the chain before ours, or ours were taken off. They are attached again, in front; until that helps, the
//! kernel's own stamps stand in, which are the stack's on the way in and the driver's on the way out.

use std::{borrow::Cow, collections::VecDeque, io};

use ptp_common::time::{Mono, Time};

use super::{Io, Port, wants_driver_stamps};
use crate::{
    capture::{CaptureError, Choice, HeardChannel, Place},
    stamp::{Stamp, StampSource},
};

/// Messages whose driver's stamps may wait for nobody to have seen them.
const STRAYS: usize = 64;

/// The driver's stamps of messages that no program has seen so far.
#[derive(Debug, Default)]
pub(super) struct Standby {
    strays: VecDeque<(Vec<u8>, Stamp)>,
    /// Whether they are asked for on this account alone.
    is_asked: bool,
}

impl Standby {
    pub(super) fn keep(&mut self, message: &[u8], stamp: Stamp) {
        if self.strays.len() == STRAYS {
            self.strays.pop_front();
        }
        self.strays.push_back((message.to_vec(), stamp));
    }

    pub(super) fn has(&self, message: &[u8]) -> bool {
        self.strays.iter().any(|(other, _)| other.as_slice() == message)
    }

    pub(super) fn take(&mut self, message: &[u8]) -> Option<Stamp> {
        let at = self.strays.iter().position(|(other, _)| other.as_slice() == message)?;
        Some(self.strays.remove(at)?.1)
    }
}

impl Port {
    /// The directions in which packets do not reach the programs.
    pub(super) fn displaced(&self) -> Vec<Cow<'static, str>> {
        [("receive", &self.rx), ("transmit", &self.tx)]
            .into_iter()
            .filter(|(_, side)| side.reach.is_displaced())
            .map(|(direction, _)| direction.into())
            .collect()
    }

    pub(super) fn attached_again(&self) -> u64 {
        self.rx.reach.attached_again() + self.tx.reach.attached_again()
    }

    fn tell(&mut self, before: io::Result<[Place; 2]>, again: Result<(), CaptureError>) {
        let in_front: Vec<_> = before
            .into_iter()
            .flatten()
            .zip(["ingress", "egress"])
            .filter_map(|(place, hook)| match place {
                Place::Front => None,
                Place::Behind(others) => Some(format!("{hook} behind {}", others.join(", "))),
                Place::Gone => Some(format!("{hook} taken off")),
            })
            .collect();
        let (interface, missed) = (&self.interface, self.displaced().join(" and "));
        match again {
            Ok(()) => tracing::warn!(
                interface,
                missed,
                chain = in_front.join("; "),
                "attached again, in front of other programs"
            ),
            Err(error) => {
                tracing::warn!(interface, missed, %error, "cannot attach the programs again");
            }
        }
    }
}

impl Io {
    /// Whether packets of some port do not reach the kernel programs.
    pub fn is_displaced(&self) -> bool {
        self.ports.iter().any(|port| !port.displaced().is_empty())
    }

    /// Why the ports may hear no grandmaster in a domain, from what passes the hooks; `None` where nothing
    /// does.
    pub fn explain_silence(&self, now: Time<Mono>, domain: u8, sdo_id: u16) -> Option<String> {
        let ports = self.ports.iter();
        let explain = |port: &Port| {
            let transport = self.config.transport_of(&port.interface);
            let own = HeardChannel { transport, domain, sdo_id };
            port.hearsay.explain(now, own, &port.interface)
        };
        let all: Vec<_> = ports.filter_map(explain).collect();
        (!all.is_empty()).then(|| all.join("; "))
    }

    /// Attaches programs again that packets do not reach, or that others stand in front of.
    pub(super) fn attach_again(&mut self, now: Time<Mono>) {
        if self.is_displaced() {
            // Records that the ring had no room for are no evidence of that.
            let lost = self.programs.lost();
            if std::mem::replace(&mut self.lost, lost) != lost {
                for port in &mut self.ports {
                    port.rx.reach.reached();
                    port.tx.reach.reached();
                }
            }
        }
        for port in self.ports.iter_mut().filter(|port| port.transport.is_some()) {
            if port.rx.reach.wants_again(now) | port.tx.reach.wants_again(now) {
                let before = self.programs.places(port.ifindex);
                let again = self.programs.attach_again(port.ifindex);
                port.tell(before, again);
            }
            let is_displaced = port.tx.reach.is_displaced();
            let Some(transport) = &port.transport else { continue };
            if is_displaced && !port.driver_stamps && !port.standby.is_asked {
                let wanted = Choice::Fixed(StampSource::DriverSoftware);
                port.driver_stamps = wants_driver_stamps(wanted, transport, &port.interface);
                port.standby.is_asked = true;
            } else if !is_displaced && port.standby.is_asked {
                port.standby.is_asked = false;
                port.stop_driver_stamps();
            }
        }
    }

    /// Looks who stands in front of our programs.
    pub(super) fn check_places(&mut self) {
        for port in self.ports.iter_mut().filter(|port| port.transport.is_some()) {
            let Ok([ingress, egress]) = self.programs.places(port.ifindex) else { continue };
            port.rx.reach.set_behind(ingress != Place::Front);
            port.tx.reach.set_behind(egress != Place::Front);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stamp::StampSource;

    #[test]
    fn stamps_that_nobody_asks_for_are_bounded_and_the_oldest_go() {
        let mut standby = Standby::default();
        for n in 0..1000_u16 {
            let stamp = Stamp::new(Time::from_nanos(n.into()), StampSource::DriverSoftware);
            standby.keep(&n.to_be_bytes(), stamp);
        }
        assert_eq!(standby.strays.len(), STRAYS);
        assert!(standby.take(&0_u16.to_be_bytes()).is_none());
        let stamp = standby.take(&999_u16.to_be_bytes()).unwrap();
        assert_eq!(stamp.time, Time::from_nanos(999));
        assert!(standby.take(&999_u16.to_be_bytes()).is_none());
    }
}
