//! Messages to many at a time. A server of thousands of clients has a hundred messages to send each millisecond: they
//! are collected until the engine has said all that it has to say, and go out by one system call; where there were many,
//! by one for each processor. Few event messages are sent one by one, each on a path that was prepared for it.

use super::lane::Place;
use super::*;
use crate::transport::Batch;

/// No more event messages than these are sent one by one.
const FEW: usize = 4;
/// Other messages are kept until there are so many, while there is something to be given to the engine: what it says
/// to that goes with them.
const MANY: usize = 64;
/// With so many at a time, so often in a row, one processor has to do with nothing but sending, and others are asked to.
const CROWDED: usize = 32;
const IN_A_ROW: u32 = 32;

/// A message that a thread was given to send: of which port, and where it waits for its stamp.
pub(super) type Handed = (PortIndex, Option<Place>);

/// A message to one address alone.
#[derive(Debug)]
struct Letter {
    port: PortIndex,
    to: Address,
    token: Option<SentToken>,
    /// Where its bytes begin and end.
    bytes: (usize, usize),
}

/// What one thread is to send: general messages and event messages.
type OfShard<'a> = [Vec<(Address, &'a [u8], Handed)>; 2];

/// What is to be sent when the engine has said all that it has to say.
#[derive(Debug, Default)]
pub(super) struct Outbox {
    letters: Vec<Letter>,
    bytes: Vec<u8>,
    events: usize,
    /// How often in a row it was crowded.
    crowded: u32,
}

impl Outbox {
    pub(super) fn put(
        &mut self,
        port: PortIndex,
        to: Address,
        token: Option<SentToken>,
        message: &[u8],
    ) {
        let begin = self.bytes.len();
        self.bytes.extend_from_slice(message);
        self.events += usize::from(token.is_some());
        self.letters.push(Letter { port, to, token, bytes: (begin, self.bytes.len()) });
    }

    /// The letters of a port, event messages or the others.
    fn of(
        &self,
        port: PortIndex,
        are_events: bool,
    ) -> impl Iterator<Item = (Address, Option<SentToken>, &[u8])> {
        self.letters
            .iter()
            .filter(move |each| each.port == port && each.token.is_some() == are_events)
            .map(|Letter { to, token, bytes: (begin, end), .. }| {
                (*to, *token, &self.bytes[*begin..*end])
            })
    }

    fn clear(&mut self) {
        self.letters.clear();
        self.bytes.clear();
        self.events = 0;
    }
}

impl Port {
    /// Whether the stamps of messages that are sent together can be found: those of the programs alone.
    fn has_lane(&self) -> bool {
        !self.driver_stamps && self.wire.is_none() && !self.tx.reach.is_displaced()
    }
}

impl Io {
    /// Sends what was collected, unless more is to come soon that can go with it.
    pub(super) fn send_collected(&mut self, is_end: bool) {
        let Outbox { letters, events, .. } = &self.outbox;
        let may_wait = !is_end && *events == 0 && letters.len() < MANY && !self.ready.is_empty();
        if letters.is_empty() || may_wait {
            return;
        }
        let mut outbox = std::mem::take(&mut self.outbox);
        let is_crowded = outbox.letters.len() >= CROWDED;
        outbox.crowded = if is_crowded { outbox.crowded.saturating_add(1) } else { 0 };
        if outbox.crowded >= IN_A_ROW {
            self.ask_threads();
        }
        self.take_back();
        for index in 0..self.ports.len() {
            let port = PortIndex(u16::try_from(index).unwrap_or(u16::MAX));
            if !self.hand_over(port, &outbox) {
                self.send_others(port, &outbox);
                self.send_events(port, &outbox);
            }
        }
        outbox.clear();
        self.outbox = outbox;
    }

    /// From now on threads send, if there are processors for them.
    fn ask_threads(&mut self) {
        let ports = &mut self.ports;
        self.shards.get_or_init(|| {
            let shards = Shards::new()
                .inspect_err(|error| tracing::info!(%error, "one thread sends for many clients"))
                .ok()?;
            tracing::info!(threads = shards.count(), "several threads send for many clients");
            ports.iter_mut().for_each(|port| port.lanes.widen(shards.count()));
            Some(shards)
        });
    }

    /// What the threads could not send, and on which ports they have sent everything.
    fn take_back(&mut self) {
        let Some(Some(shards)) = self.shards.get() else { return };
        let mut told: Vec<Option<Vec<io::Error>>> = self.ports.iter().map(|_| None).collect();
        for ((on, place), result) in shards.outcomes() {
            let on = usize::from(on.0);
            let failures = told[on].get_or_insert_default();
            if let Err(error) = result {
                if let Some(token) = place.and_then(|place| self.ports[on].lanes.fail(place)) {
                    self.ready.push_back(Delivery::TxStamp { token, stamp: None });
                }
                failures.push(error);
            }
        }
        for (port, told) in self.ports.iter_mut().zip(told) {
            told.into_iter().for_each(|failures| port.count_failures(failures));
        }
    }

    /// Has the threads send a port's messages, where there are threads; whether it has.
    fn hand_over(&mut self, on: PortIndex, outbox: &Outbox) -> bool {
        let Some(Some(shards)) = self.shards.get() else { return false };
        let port = &mut self.ports[usize::from(on.0)];
        if !port.has_lane() || port.transport.is_none() {
            return false;
        }
        let events: Vec<_> = outbox.of(on, true).collect();
        let is_few = events.len() <= FEW;
        let manner = if is_few { Manner::Plain } else { port.prepare() };
        let until = monotonic() + TX_PATIENCE;
        let mut of_shards: Vec<OfShard> = Vec::new();
        of_shards.resize_with(shards.count(), Default::default);
        for (to, _, message) in outbox.of(on, false) {
            of_shards[port.lanes.of(to)][0].push((to, message, (on, None)));
        }
        for (to, token, message) in events.into_iter().filter(|_| !is_few) {
            let Some(token) = token else { continue };
            match port.lanes.put(until, to, token, message, manner) {
                Some(place) => of_shards[place.0][1].push((to, message, (on, Some(place)))),
                None => {
                    port.counts.overrun += 1;
                    self.ready.push_back(Delivery::TxStamp { token, stamp: None });
                }
            }
        }
        let mut failures = Vec::new();
        for (at, both) in of_shards.into_iter().enumerate() {
            let mut batch = Batch::default();
            // Those without stamps first: behind them the others find a warm path.
            for (channel, messages) in [Channel::General, Channel::Event].into_iter().zip(both) {
                let places: Vec<_> =
                    messages.iter().filter_map(|(.., (_, place))| *place).collect();
                let Some(transport) = &port.transport else { continue };
                if let Err(error) = batch.add(transport, channel, messages) {
                    let tokens = places.into_iter().filter_map(|place| port.lanes.fail(place));
                    let failed = tokens.map(|token| Delivery::TxStamp { token, stamp: None });
                    self.ready.extend(failed);
                    failures.push(error);
                }
            }
            shards.hand_over(at, batch);
        }
        if !failures.is_empty() {
            port.count_failures(failures);
        }
        if is_few {
            self.send_events(on, outbox);
        }
        // What was handed over before has its stamps meanwhile.
        self.look(monotonic());
        true
    }

    fn send_others(&mut self, on: PortIndex, outbox: &Outbox) {
        let all: Vec<_> = outbox.of(on, false).map(|(to, _, message)| (to, message)).collect();
        let port = &mut self.ports[usize::from(on.0)];
        let Some(transport) = port.transport.as_ref().filter(|_| all.len() > 1) else {
            for (to, message) in all {
                self.send(on, Channel::General, Destination::Unicast(to), message);
            }
            return;
        };
        let mut failures = Vec::new();
        transport.send_many(Channel::General, &all, |_, error| failures.push(error));
        port.count_failures(failures);
    }

    fn send_events(&mut self, on: PortIndex, outbox: &Outbox) {
        let all =
            outbox.of(on, true).filter_map(|(to, token, message)| Some((to, token?, message)));
        let all: Vec<_> = all.collect();
        let port = &mut self.ports[usize::from(on.0)];
        let can = all.len() > FEW && port.has_lane();
        // The first finds its path warm like those behind it; to the bracket around the driver it would be an exception.
        let manner = if can { port.prepare() } else { Manner::Plain };
        let Some(transport) = port.transport.as_ref().filter(|_| can) else {
            for (to, token, message) in all {
                self.send_event(on, Destination::Unicast(to), token, message);
            }
            return;
        };
        let until = monotonic() + TX_PATIENCE;
        let mut places = Vec::with_capacity(all.len());
        let mut messages = Vec::with_capacity(all.len());
        for (to, token, message) in all {
            match port.lanes.put(until, to, token, message, manner) {
                Some(place) => {
                    places.push(place);
                    messages.push((to, message));
                }
                None => {
                    port.counts.overrun += 1;
                    self.ready.push_back(Delivery::TxStamp { token, stamp: None });
                }
            }
        }
        let mut failures = Vec::new();
        transport.send_many(Channel::Event, &messages, |at, error| {
            if let Some(token) = port.lanes.fail(places[at]) {
                self.ready.push_back(Delivery::TxStamp { token, stamp: None });
            }
            failures.push(error);
        });
        port.count_failures(failures);
        self.look(monotonic());
    }

    /// Hands back the stamps of what was sent together, as far as they are there.
    pub(super) fn serve_lanes(&mut self, now: Time<Mono>) {
        let latency = &self.config.egress_latency;
        for port in self.ports.iter_mut().filter(|port| !port.lanes.is_empty()) {
            let chosen = port.tx.selector.chosen();
            for lane in port.lanes.iter_mut() {
                for (token, stamps, manner) in lane.finished(now, chosen) {
                    let stamp = if stamps.iter().next().is_none() {
                        port.tx.reach.missed();
                        port.tx.pairing.give_up();
                        None
                    } else {
                        port.tx.reach.reached();
                        port.tx.sent(&stamps, &mut lane.bracket, manner, latency)
                    };
                    self.ready.push_back(Delivery::TxStamp { token, stamp });
                }
            }
        }
    }

    /// Whether something waits for its stamps.
    pub(super) fn is_waited_for(&self) -> bool {
        !self.waiting_rx.is_empty()
            || !self.waiting_tx.is_empty()
            || self.ports.iter().any(|port| !port.lanes.is_empty())
    }
}

impl Port {
    fn count_failures(&mut self, failures: Vec<io::Error>) {
        self.counts.send_errors += failures.len() as u64;
        match failures.last() {
            Some(error) => self.report(&format!("cannot send on {}: {error}", self.interface)),
            None => self.complaint.clear(),
        }
    }
}
