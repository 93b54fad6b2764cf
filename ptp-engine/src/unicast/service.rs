//! What a time transmitter has granted, to whom, and until when. Requests cost nothing and addresses can be
//! invented, so: nobody outside the networks that are served is granted anything, the table and the messages per
//! second have a limit, and who has renewed a grant is never put out by somebody who has only asked: newcomers have
//! half of both at the most, and short grants once there are many.

use alloc::collections::BTreeMap;
use core::net::IpAddr;

use ptp_common::{
    time::{Duration, Mono, Time},
    wire::{Granted, PortIdentity},
};

pub use super::verdict::Verdict;
use super::{host, wheel::Wheel};
use crate::{address::Address, prefix::Prefix, prelude::*};

/// How much is granted.
#[derive(Clone, Debug, PartialEq)]
pub struct ServiceConfig {
    /// Clients at the most.
    pub max_clients: u32,
    /// Messages per second that may be granted in all; a Sync counts twice, with its Follow_Up.
    pub max_messages_per_second: u32,
    /// Clients of one address at the most: there may be several behind a translation.
    pub max_clients_per_host: u32,
    /// The shortest intervals, log2 s, in the order of [`Granted::ALL`].
    pub log_fastest: [i8; 3],
    /// The longest interval, log2 s.
    pub log_slowest: i8,
    /// The longest grant, s.
    pub max_duration_s: u32,
    /// Signaling messages that are looked at per second; each client that is known has four of its own.
    pub max_signaling_per_second: u32,
}

impl Default for ServiceConfig {
    fn default() -> Self {
        Self {
            max_clients: 4096,
            max_messages_per_second: 50_000,
            max_clients_per_host: 64,
            log_fastest: [-3, -7, -7],
            log_slowest: 6,
            max_duration_s: 1_000,
            max_signaling_per_second: 4_000,
        }
    }
}

/// Newcomers are granted so much at a time, s, where more than a quarter of the table is in use.
const SHORT_S: u32 = 60;
/// A grant that is asked for again so much later is renewed: its client has had time to hear of it.
const RENEWED: Duration = Duration::from_secs(2);
/// Signaling messages per second of one client, and how many at once.
const SIGNALING: f32 = 4.0;
const SIGNALING_BURST: f32 = 16.0;
/// Answers to Delay_Req at once: they are spread at random.
const BURST: f32 = 16.0;
/// What is sent later than this after its time is late.
const LATE: Duration = Duration::from_millis(10);

/// One promise.
#[derive(Clone, Copy, Debug)]
struct Promise {
    until: Time<Mono>,
    since: Time<Mono>,
    /// When the next message is due.
    due: Time<Mono>,
    log_interval: i8,
    is_live: bool,
    sequence_id: u16,
    /// Names its timer: older ones mean nothing.
    generation: u32,
    /// Answers that may be given now, as of when.
    saved: f32,
    refilled: Time<Mono>,
}

impl Promise {
    const NONE: Self = Self {
        until: Time::ZERO,
        since: Time::ZERO,
        due: Time::ZERO,
        log_interval: 0,
        is_live: false,
        sequence_id: 0,
        generation: 0,
        saved: 0.0,
        refilled: Time::ZERO,
    };
}

#[derive(Debug)]
struct Client {
    port: u16,
    to: Address,
    identity: PortIdentity,
    promises: [Promise; 3],
    /// It has renewed a grant.
    is_known: bool,
    signaled: Time<Mono>,
    saved: f32,
}

type Key = (u16, Address, PortIdentity);

#[derive(Clone, Copy, Debug)]
struct Due {
    client: u32,
    kind: u8,
    generation: u32,
}

/// A message that is due.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Outgoing {
    /// The port that sends it.
    pub port: u16,
    /// To whom.
    pub to: Address,
    /// Which.
    pub kind: Granted,
    /// `sequenceId`: each client and type has its own.
    pub sequence_id: u16,
}

/// What a client has, for status.
#[derive(Clone, Copy, Debug)]
pub struct ClientStatus {
    /// Its address.
    pub address: Address,
    /// Its port.
    pub identity: PortIdentity,
    /// Intervals granted, log2 s, and for how much longer, in the order of [`Granted::ALL`].
    pub grants: [Option<(i8, Duration)>; 3],
}

/// See the module's paragraph.
#[derive(Debug)]
pub struct Service {
    config: ServiceConfig,
    /// Who is served.
    networks: Vec<Prefix>,
    clients: Vec<Option<Client>>,
    free: Vec<u32>,
    by_key: BTreeMap<Key, u32>,
    by_host: BTreeMap<Address, u32>,
    wheel: Wheel<Due>,
    generation: u32,
    newcomers: u32,
    /// Messages per second that have been granted, and those to newcomers, in 2^-16.
    rate: u64,
    newcomers_rate: u64,
    grants: [u32; 3],
    counts: [u64; Verdict::ALL.len()],
    sent: u64,
    late: u64,
    skipped: u64,
    /// For strangers and newcomers.
    saved: f64,
    refilled: Time<Mono>,
    pub(crate) sequence_id: u16,
    /// It takes back what it has granted, and grants nothing more.
    is_over: bool,
}

/// Messages per second of a grant, in 2^-16.
fn rate_of(kind: Granted, log_interval: i8) -> u64 {
    let shift = 16 - i32::from(log_interval);
    let rate = 1_u64 << shift.clamp(0, 40);
    if kind == Granted::Sync { rate * 2 } else { rate }
}

impl Service {
    /// Without clients.
    pub fn new(config: ServiceConfig, now: Time<Mono>) -> Self {
        let saved = config.max_signaling_per_second.into();
        Self {
            config,
            networks: Vec::new(),
            clients: Vec::new(),
            free: Vec::new(),
            by_key: BTreeMap::new(),
            by_host: BTreeMap::new(),
            wheel: Wheel::new(now),
            generation: 0,
            newcomers: 0,
            rate: 0,
            newcomers_rate: 0,
            grants: [0; 3],
            counts: [0; _],
            sent: 0,
            late: 0,
            skipped: 0,
            saved,
            refilled: now,
            sequence_id: 0,
            is_over: false,
        }
    }

    /// Who is served from now on; a link without addresses (Ethernet) is served as a whole.
    pub fn set_networks(&mut self, networks: Vec<Prefix>) {
        self.networks = networks;
    }

    /// How many clients there are.
    pub fn clients(&self) -> usize {
        self.by_key.len()
    }

    /// How many grants of each kind there are, in the order of [`Granted::ALL`].
    pub const fn grants(&self) -> [u32; 3] {
        self.grants
    }

    /// What became of requests and grants.
    pub fn counts(&self) -> impl Iterator<Item = (Verdict, u64)> + '_ {
        Verdict::ALL.iter().map(|verdict| (*verdict, self.counts[*verdict as usize]))
    }

    /// Messages that were sent because they had been granted, and those of them that were sent more than 10 ms
    /// after their time.
    pub const fn sent(&self) -> (u64, u64) {
        (self.sent, self.late)
    }

    /// Messages that had been granted and were not sent, since the next one of the same client was due already.
    pub const fn skipped(&self) -> u64 {
        self.skipped
    }

    /// The first `most` clients.
    pub fn status(&self, now: Time<Mono>, most: usize) -> Vec<ClientStatus> {
        let clients = self.by_key.values().filter_map(|at| self.clients[*at as usize].as_ref());
        clients
            .take(most)
            .map(|client| ClientStatus {
                address: client.to,
                identity: client.identity,
                grants: client.promises.map(|promise| {
                    promise.is_live.then(|| (promise.log_interval, promise.until - now))
                }),
            })
            .collect()
    }

    fn is_served(&self, from: Address) -> bool {
        let ip: IpAddr = match from {
            Address::Mac(_) => return true,
            Address::Socket(socket) => socket.ip(),
        };
        self.networks.iter().any(|network| network.contains(ip))
    }

    /// Whether a Signaling message is looked at.
    pub fn admit(&mut self, now: Time<Mono>, port: u16, from: Address, who: PortIdentity) -> bool {
        let at = self.by_key.get(&(port, host(from), who)).copied();
        if let Some(client) = at.and_then(|at| self.clients[at as usize].as_mut()) {
            let waited = (now - client.signaled).as_secs_f64().max(0.0) as f32;
            client.saved = (client.saved + waited * SIGNALING).min(SIGNALING_BURST);
            client.signaled = now;
            if client.saved >= 1.0 {
                client.saved -= 1.0;
                return true;
            }
        } else {
            let most = f64::from(self.config.max_signaling_per_second);
            let waited = (now - self.refilled).as_secs_f64().max(0.0);
            self.saved = (self.saved + waited * most).min(most);
            self.refilled = now;
            if self.saved >= 1.0 {
                self.saved -= 1.0;
                return true;
            }
        }
        self.count(Verdict::Limited);
        false
    }

    fn count(&mut self, verdict: Verdict) {
        self.counts[verdict as usize] += 1;
    }

    /// Judges a request: for how long it is granted, s; 0 is a denial.
    pub fn request(
        &mut self,
        now: Time<Mono>,
        (port, from, identity): (u16, Address, PortIdentity),
        kind: Option<Granted>,
        log_interval: i8,
        duration_s: u32,
        is_serving: bool,
    ) -> u32 {
        let judged =
            self.judge(now, (port, from, identity), kind, log_interval, duration_s, is_serving);
        match judged {
            Ok((verdict, duration_s)) => {
                self.count(verdict);
                duration_s
            }
            Err(verdict) => {
                self.count(verdict);
                0
            }
        }
    }

    fn judge(
        &mut self,
        now: Time<Mono>,
        (port, from, identity): (u16, Address, PortIdentity),
        kind: Option<Granted>,
        log_interval: i8,
        duration_s: u32,
        is_serving: bool,
    ) -> Result<(Verdict, u32), Verdict> {
        if !self.is_served(from) {
            return Err(Verdict::Stranger);
        }
        let kind = kind.ok_or(Verdict::Type)?;
        if !is_serving || self.is_over {
            return Err(Verdict::NotServing);
        }
        let fastest = self.config.log_fastest[kind as usize];
        if log_interval < fastest || log_interval > self.config.log_slowest {
            return Err(Verdict::Interval);
        }
        if duration_s == 0 {
            return Err(Verdict::Duration);
        }
        let key = (port, host(from), identity);
        let at = self.by_key.get(&key).copied();
        let client = at.and_then(|at| self.clients[at as usize].as_ref());
        let old = client.map_or(Promise::NONE, |client| client.promises[kind as usize]);
        let is_known = client.is_some_and(|client| client.is_known)
            || (old.is_live && now - old.since >= RENEWED);
        let max = self.config.max_clients;
        if client.is_none() {
            if self.by_key.len() >= max as usize || self.newcomers >= max.div_ceil(2) {
                return Err(Verdict::Clients);
            }
            let of_host = self.by_host.get(&key.1).copied().unwrap_or(0);
            if of_host >= self.config.max_clients_per_host {
                return Err(Verdict::Host);
            }
        }
        let most = u64::from(self.config.max_messages_per_second) << 16;
        let before = if old.is_live { rate_of(kind, old.log_interval) } else { 0 };
        let rate = rate_of(kind, log_interval);
        let in_all = (self.rate - before).saturating_add(rate);
        if in_all > most
            || (!is_known
                && self.newcomers_rate - before.min(self.newcomers_rate) + rate > most / 2)
        {
            return Err(Verdict::Rate);
        }
        let mut granted_s = duration_s.min(self.config.max_duration_s);
        if !is_known && self.by_key.len() >= max as usize / 4 {
            granted_s = granted_s.min(SHORT_S);
        }
        let at = at.unwrap_or_else(|| self.enter(now, key, from));
        if is_known {
            self.become_known(at);
        }
        self.promise(now, at, kind, log_interval, granted_s);
        let verdict = if old.is_live { Verdict::Renewed } else { Verdict::Granted };
        Ok((verdict, granted_s))
    }

    fn enter(&mut self, now: Time<Mono>, key: Key, to: Address) -> u32 {
        let (port, host, identity) = key;
        let client = Client {
            port,
            to,
            identity,
            promises: [Promise::NONE; 3],
            is_known: false,
            signaled: now,
            saved: SIGNALING_BURST,
        };
        let at = match self.free.pop() {
            Some(at) => {
                self.clients[at as usize] = Some(client);
                at
            }
            None => {
                self.clients.push(Some(client));
                self.clients.len() as u32 - 1
            }
        };
        self.by_key.insert(key, at);
        *self.by_host.entry(host).or_default() += 1;
        self.newcomers += 1;
        at
    }

    fn become_known(&mut self, at: u32) {
        let Some(client) = self.clients[at as usize].as_mut() else { return };
        if core::mem::replace(&mut client.is_known, true) {
            return;
        }
        self.newcomers -= 1;
        for kind in Granted::ALL {
            let promise = &client.promises[kind as usize];
            if promise.is_live {
                self.newcomers_rate -= rate_of(kind, promise.log_interval);
            }
        }
    }

    fn promise(
        &mut self,
        now: Time<Mono>,
        at: u32,
        kind: Granted,
        log_interval: i8,
        duration_s: u32,
    ) {
        self.end(at, kind, None);
        let Some(client) = self.clients[at as usize].as_mut() else { return };
        let rate = rate_of(kind, log_interval);
        self.rate += rate;
        if !client.is_known {
            self.newcomers_rate += rate;
        }
        self.grants[kind as usize] += 1;
        let promise = &mut client.promises[kind as usize];
        let until = now + Duration::from_secs(duration_s.into());
        let is_same = promise.log_interval == log_interval;
        let is_running = promise.generation != 0 && promise.until > now;
        (promise.until, promise.log_interval, promise.is_live) = (until, log_interval, true);
        let interval = Duration::from_log_interval(log_interval);
        let due = match kind {
            Granted::DelayResp => until,
            // At a place of the interval that no two clients are likely to share.
            Granted::Announce | Granted::Sync => {
                let hash = (u64::from(at) << 2 | kind as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15);
                let part = (interval.as_nanos().max(1) as u64 >> 16).saturating_mul(hash >> 48);
                let first = Duration::from_nanos(part as i64);
                // The first Announce is waited for.
                if kind == Granted::Announce {
                    now + first.min(Duration::from_millis(50))
                } else {
                    now + first
                }
            }
        };
        // It goes on as it was, at the new interval from the next message on: to ask for ever other ones must not set ever
        // more timers.
        if is_running && (is_same || kind == Granted::DelayResp || promise.due <= due) {
            return;
        }
        self.generation = self.generation.wrapping_add(1).max(1);
        (promise.generation, promise.since, promise.due) = (self.generation, now, due);
        (promise.saved, promise.refilled) = (BURST, now);
        let due = Due { client: at, kind: kind as u8, generation: self.generation };
        self.wheel.set(now, promise.due, due);
    }

    /// A promise holds no more; and whether it did.
    fn end(&mut self, at: u32, kind: Granted, why: Option<Verdict>) -> bool {
        let Some(client) = self.clients[at as usize].as_mut() else { return false };
        let promise = &mut client.promises[kind as usize];
        if !core::mem::replace(&mut promise.is_live, false) {
            return false;
        }
        let rate = rate_of(kind, promise.log_interval);
        self.rate -= rate;
        if !client.is_known {
            self.newcomers_rate -= rate;
        }
        self.grants[kind as usize] -= 1;
        let Some(why) = why else { return true };
        (promise.until, promise.generation) = (Time::ZERO, 0);
        self.counts[why as usize] += 1;
        if client.promises.iter().all(|promise| !promise.is_live) {
            self.forget(at);
        }
        true
    }

    fn forget(&mut self, at: u32) {
        let Some(client) = self.clients[at as usize].take() else { return };
        let host = host(client.to);
        self.by_key.remove(&(client.port, host, client.identity));
        if let Some(count) = self.by_host.get_mut(&host) {
            *count -= 1;
            if *count == 0 {
                self.by_host.remove(&host);
            }
        }
        if !client.is_known {
            self.newcomers -= 1;
        }
        self.free.push(at);
    }

    /// A client wants something no more.
    pub fn cancel(&mut self, port: u16, from: Address, identity: PortIdentity, kind: Granted) {
        if let Some(at) = self.by_key.get(&(port, host(from), identity)).copied() {
            self.end(at, kind, Some(Verdict::Cancelled));
        }
    }

    /// Whether a Delay_Req is of somebody to whom answers have been granted, and if so, whether it is within what
    /// was granted (twice as often, since requests are spread at random).
    pub fn admit_delay_req(
        &mut self,
        now: Time<Mono>,
        port: u16,
        from: Address,
        identity: PortIdentity,
    ) -> Option<bool> {
        let at = *self.by_key.get(&(port, host(from), identity))?;
        let client = self.clients[at as usize].as_mut()?;
        let promise = &mut client.promises[Granted::DelayResp as usize];
        if !promise.is_live || promise.until <= now {
            return None;
        }
        let waited = (now - promise.refilled).as_secs_f64().max(0.0) as f32;
        let interval = Duration::from_log_interval(promise.log_interval).as_secs_f64() as f32;
        promise.saved = (promise.saved + 2.0 * waited / interval).min(BURST);
        promise.refilled = now;
        let may = promise.saved >= 1.0;
        if may {
            promise.saved -= 1.0;
        }
        Some(may)
    }

    /// The next message that is due; call until `None`.
    pub fn pop_due(&mut self, now: Time<Mono>) -> Option<Outgoing> {
        while let Some(due) = self.wheel.pop_due(now) {
            let kind = Granted::ALL[usize::from(due.kind)];
            let Some(client) = self.clients[due.client as usize].as_mut() else { continue };
            let promise = &mut client.promises[usize::from(due.kind)];
            if promise.generation != due.generation || !promise.is_live {
                continue;
            }
            if promise.until <= now {
                self.end(due.client, kind, Some(Verdict::Expired));
                continue;
            }
            if kind == Granted::DelayResp {
                let until = promise.until;
                self.wheel.set(now, until, due);
                continue;
            }
            if now - promise.due > LATE {
                self.late += 1;
            }
            let interval = Duration::from_log_interval(promise.log_interval);
            // At its own place of the interval still, where the server could not do what it has granted: all of them
            // at once is what it could do even less.
            let missed = (now - promise.due).as_nanos() / interval.as_nanos().max(1);
            promise.due += interval * i32::try_from(missed + 1).unwrap_or(i32::MAX);
            self.skipped += missed.max(0) as u64;
            let at = promise.due;
            let sequence_id = promise.sequence_id;
            promise.sequence_id = sequence_id.wrapping_add(1);
            let outgoing = Outgoing { port: client.port, to: client.to, kind, sequence_id };
            self.sent += 1;
            self.wheel.set(now, at, due);
            return Some(outgoing);
        }
        None
    }

    /// How many timers are set, for the test that they are bounded.
    #[cfg(test)]
    pub(crate) const fn timers(&self) -> usize {
        self.wheel.len()
    }

    /// When [`Self::pop_due`] has something to do.
    pub fn next(&self) -> Option<Time<Mono>> {
        self.wheel.next()
    }

    /// Takes back all that was granted to one client, and whom to tell: `None` when nobody is left.
    pub fn dismiss_one(&mut self) -> Option<(u16, Address, PortIdentity, [bool; 3])> {
        self.is_over = true;
        let ((port, ..), at) = self.by_key.first_key_value()?;
        let (port, at) = (*port, *at);
        let client = self.clients[at as usize].as_ref()?;
        let (to, identity) = (client.to, client.identity);
        let had = client.promises.map(|promise| promise.is_live);
        for kind in Granted::ALL {
            self.end(at, kind, Some(Verdict::Cancelled));
        }
        Some((port, to, identity, had))
    }
}
