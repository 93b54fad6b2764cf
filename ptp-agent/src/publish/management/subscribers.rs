//! Who is told what happens without asking again (linuxptp's SUBSCRIBE_EVENTS_NP). Their number is bounded, and a
//! subscription ends by itself.

use ptp_common::{
    time::{Duration, Mono, Time},
    wire::{
        Header, PortIdentity,
        management::{ManagementEvent, SubscribeEvents},
    },
};

/// As many at one time; a further one is refused.
pub const MAX_SUBSCRIBERS: usize = 64;

/// One of them.
#[derive(Clone, Debug)]
struct Subscriber<A> {
    who: PortIdentity,
    at: A,
    events: SubscribeEvents,
    /// `None`: not by itself.
    until: Option<Time<Mono>>,
    sequence_id: u16,
    sdo_id: u16,
    minor_version: u8,
}

/// All of them. `A` is where one is told.
#[derive(Debug)]
pub(super) struct Subscribers<A>(Vec<Subscriber<A>>);

impl<A> Default for Subscribers<A> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

/// What is to be told to one, and how its message begins.
pub(super) struct Told<A> {
    pub(super) at: A,
    pub(super) who: PortIdentity,
    pub(super) sequence_id: u16,
    pub(super) sdo_id: u16,
    pub(super) minor_version: u8,
}

impl<A: Clone> Subscribers<A> {
    /// Takes or changes a subscription, or ends it where it is of nothing; false where there is no room.
    pub(super) fn subscribe(
        &mut self,
        now: Time<Mono>,
        header: &Header,
        at: &A,
        events: SubscribeEvents,
    ) -> bool {
        self.prune(now);
        let who = header.source_port_identity;
        let known = self.0.iter().position(|each| each.who == who);
        if events.events.iter().all(|octet| *octet == 0) {
            if let Some(known) = known {
                self.0.remove(known);
            }
            return true;
        }
        let is_for_ever = events.duration_s == SubscribeEvents::FOR_EVER;
        let until = now + Duration::from_secs(events.duration_s.into());
        let subscriber = Subscriber {
            who,
            at: at.clone(),
            events,
            until: (!is_for_ever).then_some(until),
            sequence_id: 0,
            sdo_id: header.sdo_id,
            minor_version: header.minor_version,
        };
        match known {
            Some(known) => {
                let sequence_id = self.0[known].sequence_id;
                self.0[known] = Subscriber { sequence_id, ..subscriber };
            }
            None if self.0.len() >= MAX_SUBSCRIBERS => return false,
            None => self.0.push(subscriber),
        }
        true
    }

    /// What somebody is subscribed to, and for how much longer.
    pub(super) fn of(&self, now: Time<Mono>, who: PortIdentity) -> SubscribeEvents {
        let Some(subscriber) = self.0.iter().find(|each| each.who == who) else {
            return SubscribeEvents::none();
        };
        let left = subscriber.until.map(|until| (until - now).as_nanos() / 1_000_000_000);
        let duration_s =
            left.map_or(SubscribeEvents::FOR_EVER, |left| u16::try_from(left.max(0)).unwrap_or(0));
        SubscribeEvents { duration_s, ..subscriber.events }
    }

    /// Ends what is over.
    pub(super) fn prune(&mut self, now: Time<Mono>) {
        self.0.retain(|each| each.until.is_none_or(|until| until > now));
    }

    /// Those that are to be told of an event.
    pub(super) fn told(&mut self, now: Time<Mono>, event: ManagementEvent) -> Vec<Told<A>> {
        self.prune(now);
        let wanting = self.0.iter_mut().filter(|each| each.events.has(event));
        wanting
            .map(|each| {
                let sequence_id = each.sequence_id;
                each.sequence_id = sequence_id.wrapping_add(1);
                let Subscriber { at, who, sdo_id, minor_version, .. } = each.clone();
                Told { at, who, sequence_id, sdo_id, minor_version }
            })
            .collect()
    }

    /// Whoever is there is gone.
    pub(super) fn forget(&mut self, is_gone: impl Fn(&A) -> bool) {
        self.0.retain(|each| !is_gone(&each.at));
    }

    pub(super) const fn len(&self) -> usize {
        self.0.len()
    }

    /// The events that anybody wants, as bits.
    pub(super) fn wanted(&self) -> u8 {
        self.0.iter().fold(0, |wanted, each| wanted | each.events.events[0])
    }
}
