//! Which capture point is wanted, and how its stamp is read from a record. The points themselves, and their only
//! names, are [`StampSource`]'s.

use ptp_common::{
    record::{Hook, Record},
    time::{Mono, Time},
};

use super::{AttachedHooks, ClockRelation, XdpHook, mono_stamp, nanos};
use crate::stamp::{Stamp, StampSource};

/// Points at which a received packet can be stamped.
const RECEIVE: [StampSource; 5] = [
    StampSource::Stack,
    StampSource::TcIngress,
    StampSource::XdpNative,
    StampSource::XdpGeneric,
    StampSource::Hardware,
];
/// Points at which a sent packet can be stamped.
const TRANSMIT: [StampSource; 5] = [
    StampSource::XmitDone,
    StampSource::StartXmit,
    StampSource::TcEgress,
    StampSource::DriverSoftware,
    StampSource::Hardware,
];

/// Which capture point of a direction is wanted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Choice {
    /// The one that is measured to be best.
    #[default]
    Auto,
    /// This one.
    Fixed(StampSource),
    /// XDP: in the driver where it can, else in the stack.
    AnyXdp,
}

impl Choice {
    /// As `--rx-source` has it.
    ///
    /// # Errors
    /// What is expected instead.
    pub fn of_receive(text: &str) -> Result<Self, String> {
        match text {
            "auto" => Ok(Self::Auto),
            "xdp" => Ok(Self::AnyXdp),
            _ => one_of(&RECEIVE, text).ok_or_else(|| {
                "expected stack, tc_ingress, xdp, xdp_native, xdp_generic or hardware, or auto"
                    .to_owned()
            }),
        }
    }

    /// As `--tx-source` has it.
    ///
    /// # Errors
    /// What is expected instead.
    pub fn of_transmit(text: &str) -> Result<Self, String> {
        match text {
            "auto" => Ok(Self::Auto),
            _ => one_of(&TRANSMIT, text).ok_or_else(|| {
                "expected xmit_done, start_xmit, tc_egress, driver_software or hardware, or auto".to_owned()
            }),
        }
    }

    /// The same where nothing can be measured: then `otherwise`.
    pub fn or(self, otherwise: StampSource) -> Self {
        if self == Self::Auto { Self::Fixed(otherwise) } else { self }
    }

    /// Whether it is this point and no other.
    pub fn is(self, point: StampSource) -> bool {
        self == Self::Fixed(point)
    }

    /// Which way of XDP it needs.
    pub const fn xdp(self) -> Option<XdpHook> {
        match self {
            Self::AnyXdp => Some(XdpHook::Auto),
            Self::Fixed(StampSource::XdpNative) => Some(XdpHook::Native),
            Self::Fixed(StampSource::XdpGeneric) => Some(XdpHook::Generic),
            Self::Auto | Self::Fixed(_) => None,
        }
    }

    /// The receive point on an interface with these hooks: the stack's where another program has the place of
    /// XDP. `None` where it is to be measured.
    pub fn received_at(self, hooks: AttachedHooks) -> Option<StampSource> {
        match self {
            Self::Auto => None,
            Self::Fixed(point) if self.xdp().is_none() => Some(point),
            Self::Fixed(_) | Self::AnyXdp => {
                Some(hooks.xdp.map_or(StampSource::Stack, XdpHook::point))
            }
        }
    }
}

fn one_of(points: &[StampSource], name: &str) -> Option<Choice> {
    points.iter().find(|point| point.name() == name).map(|point| Choice::Fixed(*point))
}

impl XdpHook {
    /// The point at which packets are stamped by it.
    pub const fn point(self) -> StampSource {
        match self {
            Self::Generic => StampSource::XdpGeneric,
            Self::Native | Self::Auto => StampSource::XdpNative,
        }
    }
}

/// The hook whose records carry the stamps of a point; `None` for one that is not taken by our programs, which
/// nobody but the sender of the packet can have.
pub const fn hook_of(point: StampSource) -> Option<Hook> {
    match point {
        StampSource::TcIngress | StampSource::Stack => Some(Hook::TcIngress),
        StampSource::XdpNative | StampSource::XdpGeneric => Some(Hook::XdpIngress),
        StampSource::TcEgress => Some(Hook::TcEgress),
        StampSource::StartXmit | StampSource::XmitDone => Some(Hook::Xmit),
        StampSource::DriverSoftware
        | StampSource::Hardware
        | StampSource::Pps
        | StampSource::Extts
        | StampSource::Simulated => None,
    }
}

/// The stamp that was taken at `point`; `None` where the record is another hook's or lacks that stamp.
pub fn stamp_at(record: &Record, point: StampSource, relation: &ClockRelation) -> Option<Stamp> {
    if hook_of(point) != Some(record.hook) {
        return None;
    }
    let time: Time<Mono> = match point {
        StampSource::Stack => relation.stack_stamp(record)?,
        StampSource::XmitDone => Time::from_epoch(nanos(record.done_ns)),
        _ => mono_stamp(record),
    };
    Some(Stamp::new(time, point))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_point_is_chosen_by_its_own_name_in_its_own_direction() {
        for point in RECEIVE {
            assert_eq!(Choice::of_receive(point.name()), Ok(Choice::Fixed(point)));
            assert_eq!(Choice::of_transmit(point.name()).is_ok(), TRANSMIT.contains(&point));
        }
        for point in TRANSMIT {
            assert_eq!(Choice::of_transmit(point.name()), Ok(Choice::Fixed(point)));
            assert_eq!(Choice::of_receive(point.name()).is_ok(), RECEIVE.contains(&point));
        }
        assert_eq!(Choice::of_receive("xdp"), Ok(Choice::AnyXdp));
        assert!(Choice::of_receive("simulated").is_err());
    }

    #[test]
    fn where_another_program_has_the_place_of_xdp_it_is_the_stacks_stamp() {
        let hooks = |xdp| AttachedHooks { tcx: true, xdp };
        for choice in [Choice::AnyXdp, Choice::Fixed(StampSource::XdpNative)] {
            assert_eq!(choice.received_at(hooks(None)), Some(StampSource::Stack));
            let generic = hooks(Some(XdpHook::Generic));
            assert_eq!(choice.received_at(generic), Some(StampSource::XdpGeneric));
        }
        let tc = Choice::Fixed(StampSource::TcIngress);
        assert_eq!(tc.received_at(hooks(None)), Some(StampSource::TcIngress));
        assert_eq!(Choice::Auto.received_at(hooks(None)), None);
    }
}
