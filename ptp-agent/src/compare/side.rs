//! One interface under observation: the kernel programs on it, and sockets that get copies of its
//! packets with the kernel's own stamps.

use std::io;

use ptp_common::{
    classify::Protocol,
    record::{Direction, Hook, Record},
};

use super::{
    CompareError,
    join::Sighting,
    point::Point,
    socket::{Copies, key_of},
};
use crate::capture::{
    ClockRelation, EgressJoin, Hints, Options, Programs, TcPlace, XdpHook, stamp_at,
};
use crate::stamp::StampSource;

/// After so many event messages at TC ingress without a copy of one, there will be none.
const NO_COPIES: u64 = 8;

/// What to open.
#[derive(Clone, Copy, Debug)]
pub(super) struct SideOptions {
    /// Whose packets.
    pub(super) protocol: Protocol,
    /// XDP as well.
    pub(super) xdp: Option<XdpHook>,
    /// The driver's metadata as well.
    pub(super) hints: bool,
    /// Copies of sent packets as well.
    pub(super) outgoing_copies: bool,
}

/// See the module's paragraph.
pub(super) struct Side {
    programs: Programs,
    _hints: Option<Hints>,
    ifindex: u32,
    xdp: Option<XdpHook>,
    egress: EgressJoin,
    protocol: Protocol,
    received: Copies,
    /// Event messages seen at TC ingress, and copies of received ones.
    seen: u64,
    copied: u64,
    /// Copies are made before TC ingress, because behind it there were none.
    pub(super) copies_are_early: bool,
    sent: Option<Copies>,
    relation: ClockRelation,
    /// Times that CLOCK_REALTIME was stepped, and the kernel's stamps of that moment thrown away.
    pub(super) clock_steps: u64,
}

impl Side {
    /// Loads, attaches and opens everything, in the current network namespace.
    ///
    /// # Errors
    /// [`CompareError`], naming what is missing.
    pub(super) fn open(interface: &str, options: SideOptions) -> Result<Self, CompareError> {
        // Where the agent has them.
        let place = TcPlace::InFront;
        let mut programs = Programs::load(Options {
            protocol: options.protocol,
            xdp: options.xdp,
            xmit: true,
            place,
            ..Options::default()
        })?;
        let hooks = programs.attach(interface)?;
        let hints = options.hints.then(|| Hints::attach(interface)).transpose()?;
        let ifindex = index(interface)?;
        let failed = |source| CompareError::Socket {
            attempt: "open packet sockets with timestamps",
            interface: interface.to_owned(),
            source,
        };
        let received = Copies::received(ifindex, options.protocol).map_err(failed)?;
        let sent = options
            .outgoing_copies
            .then(|| Copies::sent(ifindex, options.protocol))
            .transpose()
            .map_err(failed)?;
        Ok(Self {
            programs,
            _hints: hints,
            ifindex,
            xdp: hooks.xdp,
            egress: EgressJoin::default(),
            protocol: options.protocol,
            received,
            seen: 0,
            copied: 0,
            copies_are_early: false,
            sent,
            relation: ClockRelation::now(),
            clock_steps: 0,
        })
    }

    /// Index of the interface.
    pub(super) const fn ifindex(&self) -> u32 {
        self.ifindex
    }

    /// Records that the ring had no room for.
    pub(super) fn lost(&self) -> u64 {
        self.programs.lost()
    }

    /// How the clocks lie for the stamps that are read now; `None` where CLOCK_REALTIME was stepped
    /// since the last look, so that stamps from before and after the step cannot be told apart.
    fn relation(&mut self) -> Option<ClockRelation> {
        let relation = ClockRelation::now();
        let stepped = relation.real_minus_mono != self.relation.real_minus_mono;
        self.relation = relation;
        self.clock_steps += u64::from(stepped);
        (!stepped).then_some(relation)
    }

    /// Reads everything that has come. `others` reads further sockets under the same relation of
    /// the clocks. `all` is given every record, general messages too.
    pub(super) fn drain(
        &mut self,
        mut all: impl FnMut(&Record),
        mut each: impl FnMut(Sighting),
        others: impl FnOnce(&ClockRelation, &mut dyn FnMut(Sighting)),
    ) {
        if self.copied == 0 && self.seen >= NO_COPIES && !self.copies_are_early {
            self.copies_are_early = true;
            match Copies::received_early(self.ifindex, self.protocol) {
                Ok(early) => self.received = early,
                Err(error) => tracing::warn!(%error, "cannot open another packet socket"),
            }
        }
        let relation = self.relation();
        let Self { programs, xdp, egress, received, seen, copied, sent, protocol, .. } = self;
        // Stepped: the stamps on CLOCK_MONOTONIC are good all the same.
        let mut keep = |sighting: Sighting| {
            let is_real = matches!(
                sighting.point,
                Point::Stack | Point::RxSoftware | Point::TxSoftware | Point::OutgoingCopy
            );
            *seen += u64::from(sighting.point == Point::TcIngress);
            *copied += u64::from(sighting.point == Point::RxSoftware);
            if relation.is_some() || !is_real {
                each(sighting);
            }
        };
        let by = self.relation;
        programs.drain(|record| {
            all(&record);
            sightings(record, *protocol, *xdp, egress, &by, &mut keep);
        });
        received.drain(&by, &mut keep);
        if let Some(sent) = sent {
            sent.drain(&by, &mut keep);
        }
        others(&by, &mut keep);
    }
}

/// Index of an interface of the current namespace.
pub(super) fn index(interface: &str) -> Result<u32, CompareError> {
    nix::net::if_::if_nametoindex(interface).map_err(|error| CompareError::Socket {
        attempt: "find",
        interface: interface.to_owned(),
        source: io::Error::from(error),
    })
}

fn sightings(
    record: Record,
    protocol: Protocol,
    xdp: Option<XdpHook>,
    egress: &mut EgressJoin,
    relation: &ClockRelation,
    each: &mut impl FnMut(Sighting),
) {
    let key = |record: &Record| {
        key_of(protocol, record.message()).filter(|key| key.message_type.is_event())
    };
    let at = |point| stamp_at(&record, point, relation).map(|stamp| stamp.time.as_nanos());
    match (record.direction, record.hook) {
        (Direction::Ingress, Hook::TcIngress) => {
            let Some(key) = key(&record) else { return };
            let hardware = i64::try_from(record.hardware_ns).ok().filter(|ns| *ns != 0);
            for (point, ns) in [
                (Point::TcIngress, at(StampSource::TcIngress)),
                (Point::Stack, at(StampSource::Stack)),
                (Point::HookHardware, hardware),
            ] {
                if let Some(ns) = ns {
                    each(Sighting { key, point, ns });
                }
            }
        }
        (Direction::Ingress, Hook::XdpIngress) => {
            let (Some(key), Some(hook)) = (key(&record), xdp) else { return };
            let point = match hook {
                XdpHook::Generic => Point::XdpGeneric,
                XdpHook::Native | XdpHook::Auto => Point::XdpNative,
            };
            if let Some(ns) = at(hook.point()) {
                each(Sighting { key, point, ns });
            }
        }
        (Direction::Egress, Hook::TcEgress) => {
            let Some(key) = key(&record) else { return };
            if let Some(ns) = at(StampSource::TcEgress) {
                each(Sighting { key, point: Point::TcEgress, ns });
            }
            egress.push(record);
        }
        (Direction::Egress, Hook::Xmit) => {
            let Some(packet) = egress.join(&record) else { return };
            let Some(key) = key(&packet) else { return };
            for (point, source) in [
                (Point::StartXmit, StampSource::StartXmit),
                (Point::XmitDone, StampSource::XmitDone),
            ] {
                if let Some(ns) = at(source) {
                    each(Sighting { key, point, ns });
                }
            }
        }
        _ => {}
    }
}
