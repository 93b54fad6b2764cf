//! Whom a time receiver asks (`unicastMasterTable`, 17.4.3), and what it has been granted. Each promise has its own
//! state and its own time: asked for, granted until, to be renewed at, refused. Whoever does not answer is asked
//! less and less often; whoever refuses is asked for less; whoever grants and then sends nothing is as good as not
//! there.

use ptp_common::{
    time::{Duration, Mono, Time},
    wire::{Granted, Negotiation, PortIdentity},
};

use super::{cancel, host};
use crate::{address::Address, counters::Drop, limits, prelude::*, timers::Timers};

mod promise;
mod status;

use promise::{Loss, Promise, State};
pub use status::PartnerStatus;

/// What is asked of whom.
#[derive(Clone, Debug, PartialEq)]
pub struct ClientConfig {
    /// How many there are to ask; their addresses are told later, and may change.
    pub partners: u16,
    /// Intervals asked for, log2 s, in the order of [`Granted::ALL`].
    pub log_intervals: [i8; 3],
    /// For how long, s.
    pub duration_s: u32,
    /// `logQueryInterval`: between two requests, log2 s.
    pub log_query_interval: i8,
}

impl ClientConfig {
    /// The default profile's intervals for so many partners.
    pub const fn new(partners: u16) -> Self {
        Self { partners, log_intervals: [1, 0, 0], duration_s: 300, log_query_interval: 0 }
    }
}

/// Requests without an answer, or refusals, after which somebody is asked less often.
const PATIENCE: u8 = 3;
/// The longest time between two requests is the query interval times two to this.
const SLOWEST: u8 = 6;
/// After refusals the interval asked for becomes longer, up to as many powers of two.
const SLOWER: i8 = limits::GRANT_LONGER;
/// Silence of somebody who has granted Sync, in intervals and at least.
const SILENT: i32 = 8;
const SILENT_AT_LEAST: Duration = Duration::from_secs(2);
/// A cancellation is said as often, unless it is acknowledged.
const CANCELLATIONS: u8 = 3;

/// One of the table.
#[derive(Debug)]
struct Partner {
    address: Option<Address>,
    identity: Option<PortIdentity>,
    promises: [Promise; 3],
    /// Somebody else in the table has the same identity.
    is_twin: bool,
    /// Times in a row that it has granted and then was silent, and until when it is left alone for that.
    silences: u8,
    left_until: Time<Mono>,
    sequence_id: u16,
}

/// What is to be done.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Effect {
    /// A Signaling message is to be sent.
    Signal { to: Address, identity: Option<PortIdentity>, sequence_id: u16, said: Vec<Negotiation> },
    /// Somebody is not to be followed any more.
    Lost(PortIdentity),
    /// Somebody is to be followed only where there is nobody else; or again like all others.
    Silent(PortIdentity, bool),
}

/// Timers: of a promise, or that somebody was left alone for long enough.
type Key = (u16, u8);
const RETURN: u8 = 3;

/// See the module's paragraph.
#[derive(Debug)]
pub(crate) struct Client {
    config: ClientConfig,
    partners: Vec<Partner>,
    timers: Timers<Key>,
    /// Whom Sync and Delay_Resp are wanted of.
    followed: Option<PortIdentity>,
    /// When a stranger was last told that nothing is wanted of it.
    stray: Option<Time<Mono>>,
}

impl Client {
    pub(crate) fn new(config: ClientConfig) -> Self {
        let partners = (0..config.partners)
            .map(|_| Partner {
                address: None,
                identity: None,
                promises: [Promise::NEW; 3],
                is_twin: false,
                silences: 0,
                left_until: Time::ZERO,
                sequence_id: 0,
            })
            .collect();
        Self { config, partners, timers: Timers::default(), followed: None, stray: None }
    }

    /// The query interval, twice as long for each of `failures`.
    fn pause(&self, failures: u8) -> Duration {
        let log = i32::from(self.config.log_query_interval) + i32::from(failures.min(SLOWEST));
        Duration::from_log_interval(log.clamp(-10, 22) as i8)
    }

    fn wanted_interval(&self, kind: Granted, refusals: u8) -> i8 {
        let slower = (refusals.min(SLOWER.unsigned_abs())).cast_signed();
        self.config.log_intervals[kind as usize].saturating_add(slower)
    }

    /// What is known of somebody's address: another one, or none. What the old one had promised is given back.
    pub(crate) fn set_address(
        &mut self,
        now: Time<Mono>,
        number: u16,
        address: Option<Address>,
        effects: &mut Vec<Effect>,
    ) {
        let Some(partner) = self.partners.get_mut(usize::from(number)) else { return };
        let address = address.map(host);
        if partner.address == address {
            return;
        }
        if let Some(to) = partner.address {
            let said: Vec<_> = Granted::ALL
                .into_iter()
                .filter(|kind| partner.promises[*kind as usize].granted().is_some())
                .map(cancel)
                .collect();
            if !said.is_empty() {
                partner.sequence_id = partner.sequence_id.wrapping_add(1);
                let (identity, sequence_id) = (partner.identity, partner.sequence_id);
                effects.push(Effect::Signal { to, identity, sequence_id, said });
            }
        }
        effects.extend(partner.identity.take().map(Effect::Lost));
        (partner.address, partner.is_twin) = (address, false);
        partner.promises = [Promise::NEW; 3];
        (partner.silences, partner.left_until) = (0, Time::ZERO);
        for kind in 0..=RETURN {
            self.timers.cancel((number, kind));
        }
        if address.is_some() {
            self.want(now, number, Granted::Announce);
        }
    }

    /// The link was down: nobody has promised anything.
    pub(crate) fn forget_all(&mut self, now: Time<Mono>) {
        for number in 0..self.partners.len() as u16 {
            let address = self.partners[usize::from(number)].address;
            let mut unsaid = Vec::new();
            self.set_address(now, number, None, &mut unsaid);
            self.set_address(now, number, address, &mut unsaid);
        }
        self.followed = None;
    }

    fn want(&mut self, now: Time<Mono>, number: u16, kind: Granted) {
        let promise = &mut self.partners[usize::from(number)].promises[kind as usize];
        if matches!(promise.state, State::Idle | State::Cancelling { .. }) {
            *promise = Promise { state: State::Asked, ..Promise::NEW };
            self.timers.set((number, kind as u8), now);
        }
    }

    fn want_no_more(&mut self, now: Time<Mono>, number: u16, kind: Granted) {
        let promise = &mut self.partners[usize::from(number)].promises[kind as usize];
        match promise.state {
            // A grant may be on its way.
            State::Asked if !promise.is_pending => {
                promise.state = State::Idle;
                self.timers.cancel((number, kind as u8));
            }
            State::Asked | State::Granted { .. } => {
                promise.state = State::Cancelling { left: CANCELLATIONS };
                self.timers.set((number, kind as u8), now);
            }
            State::Idle | State::Cancelling { .. } => {}
        }
    }

    /// Who is followed: Sync and Delay_Resp are wanted of it alone.
    pub(crate) fn follow(&mut self, now: Time<Mono>, parent: Option<PortIdentity>) {
        if self.followed == parent {
            return;
        }
        self.followed = parent;
        for number in 0..self.partners.len() as u16 {
            let partner = &self.partners[usize::from(number)];
            let is_followed = parent.is_some() && partner.identity == parent && !partner.is_twin;
            for kind in [Granted::Sync, Granted::DelayResp] {
                if is_followed {
                    self.want(now, number, kind);
                } else {
                    self.want_no_more(now, number, kind);
                }
            }
        }
    }

    fn at(&self, from: Option<Address>) -> Option<u16> {
        let from = host(from?);
        self.partners.iter().position(|each| each.address == Some(from)).map(|at| at as u16)
    }

    /// A message of a time transmitter has come: which interval was granted for it, log2 s.
    pub(crate) fn expect(
        &mut self,
        now: Time<Mono>,
        from: Option<Address>,
        source: PortIdentity,
        kind: Granted,
    ) -> Result<i8, Drop> {
        let number = self.at(from).ok_or(Drop::NotAsked)?;
        let partner = &mut self.partners[usize::from(number)];
        if partner.identity != Some(source) || partner.is_twin {
            return Err(Drop::NotAsked);
        }
        let promise = &mut partner.promises[kind as usize];
        let log = promise.granted().ok_or(Drop::NotAsked)?;
        promise.heard = Some(now);
        if kind == Granted::Sync {
            partner.silences = 0;
        }
        Ok(log)
    }

    /// Whom an unasked message may be answered with a cancellation: one a second.
    pub(crate) fn may_send_away(&mut self, now: Time<Mono>) -> bool {
        let may = self.stray.is_none_or(|at| now - at >= Duration::from_secs(1));
        if may {
            self.stray = Some(now);
        }
        may
    }

    /// Where a Delay_Req to `parent` goes; `None` while it has granted no answers.
    pub(crate) fn answers_of(&self, parent: PortIdentity) -> Option<Address> {
        let partner = self.partners.iter().find(|each| each.identity == Some(parent))?;
        partner.promises[Granted::DelayResp as usize].granted()?;
        partner.address
    }

    /// Takes what a partner says in a Signaling message; what is to be acknowledged goes into `answers`.
    pub(crate) fn take(
        &mut self,
        now: Time<Mono>,
        from: Option<Address>,
        source: PortIdentity,
        said: Negotiation,
        answers: &mut Vec<Negotiation>,
        effects: &mut Vec<Effect>,
    ) -> Result<(), Drop> {
        let number = self.at(from).ok_or(Drop::NotAsked)?;
        let kind = said.granted().ok_or(Drop::NotAsked)?;
        match said {
            Negotiation::Grant { log_interval, duration_s, .. } => {
                self.granted(now, number, source, kind, log_interval, duration_s, effects)
            }
            Negotiation::Cancel { message_type, flags } => {
                let partner = &mut self.partners[usize::from(number)];
                if partner.identity != Some(source) {
                    return Err(Drop::NotAsked);
                }
                if partner.promises[kind as usize].doubt(now) {
                    answers.push(Negotiation::Acknowledge { message_type, flags });
                    self.schedule(now, number, kind);
                }
                Ok(())
            }
            Negotiation::Acknowledge { .. } => {
                let partner = &mut self.partners[usize::from(number)];
                if partner.identity != Some(source) {
                    return Err(Drop::NotAsked);
                }
                let promise = &mut partner.promises[kind as usize];
                if matches!(promise.state, State::Cancelling { .. }) {
                    promise.state = State::Idle;
                    self.timers.cancel((number, kind as u8));
                }
                Ok(())
            }
            Negotiation::Request { .. } => Err(Drop::NotForRole),
        }
    }

    #[expect(clippy::too_many_arguments, reason = "one grant with all that it is judged by")]
    fn granted(
        &mut self,
        now: Time<Mono>,
        number: u16,
        source: PortIdentity,
        kind: Granted,
        log_interval: i8,
        duration_s: u32,
        effects: &mut Vec<Effect>,
    ) -> Result<(), Drop> {
        let is_twin = self.partners.iter().enumerate().any(|(at, each)| {
            at != usize::from(number) && each.identity == Some(source) && !each.is_twin
        });
        let asked_s = self.config.duration_s;
        let wanted = self.config.log_intervals[kind as usize];
        let partner = &mut self.partners[usize::from(number)];
        let promise = &mut partner.promises[kind as usize];
        let is_wanted = matches!(promise.state, State::Asked | State::Granted { .. });
        if !promise.is_pending || !is_wanted {
            return Err(Drop::NotAsked);
        }
        if partner.identity.is_some_and(|known| known != source) && kind != Granted::Announce {
            return Err(Drop::NotAsked);
        }
        promise.is_pending = false;
        promise.unanswered = 0;
        // What nobody has asked for is no offer.
        let is_usable = limits::log_interval(log_interval).is_some_and(|log| {
            (wanted.saturating_sub(limits::GRANT_SHORTER)
                ..=wanted.saturating_add(limits::GRANT_LONGER))
                .contains(&log)
        });
        if duration_s == 0 || !is_usable {
            if duration_s != 0
                && let Some(to) = partner.address
            {
                // It will send all the same, unless it is told.
                partner.sequence_id = partner.sequence_id.wrapping_add(1);
                let (identity, sequence_id) = (Some(source), partner.sequence_id);
                let said = vec![cancel(kind)];
                effects.push(Effect::Signal { to, identity, sequence_id, said });
            }
            self.lose(now, number, kind, Loss::Refusal, effects);
            return Err(if duration_s == 0 { Drop::Denied } else { Drop::ImplausibleGrant });
        }
        if kind == Granted::Announce {
            if partner.identity != Some(source) {
                effects.extend(partner.identity.replace(source).map(Effect::Lost));
            }
            partner.is_twin = is_twin;
        }
        let granted = Duration::from_secs(duration_s.min(asked_s).into());
        let (until, renew_at) = (now + granted, now + three_quarters(granted));
        let since = match promise.state {
            State::Granted { since, .. } => since,
            _ => now,
        };
        promise.state = State::Granted { until, log_interval, since, renew_at };
        promise.refusals = 0;
        self.schedule(now, number, kind);
        if is_twin {
            return Err(Drop::DuplicateIdentity);
        }
        // It may be followed already, by another address.
        if kind == Granted::Announce && self.followed == Some(source) {
            self.want(now, number, Granted::Sync);
            self.want(now, number, Granted::DelayResp);
        }
        Ok(())
    }

    /// The next time at which a granted promise needs attention: renewal, end, or that it was silent.
    fn schedule(&mut self, now: Time<Mono>, number: u16, kind: Granted) {
        let partner = &self.partners[usize::from(number)];
        let promise = &partner.promises[kind as usize];
        let State::Granted { until, log_interval, since, renew_at } = promise.state else { return };
        let silence = silence_at(kind, log_interval, promise.heard.unwrap_or(since).max(since));
        let at = until.min(renew_at).min(silence.unwrap_or(until)).max(now);
        self.timers.set((number, kind as u8), at);
    }

    /// A promise is none any more; it is asked for again after a while that grows with each failure.
    fn lose(
        &mut self,
        now: Time<Mono>,
        number: u16,
        kind: Granted,
        loss: Loss,
        effects: &mut Vec<Effect>,
    ) {
        let partner = &mut self.partners[usize::from(number)];
        let promise = &mut partner.promises[kind as usize];
        let had = promise.granted().is_some();
        match loss {
            Loss::End => {}
            Loss::Refusal => promise.refusals = promise.refusals.saturating_add(1),
            Loss::Silence => promise.unanswered = promise.unanswered.max(PATIENCE) + 1,
        }
        promise.state = State::Asked;
        (promise.is_pending, promise.heard) = (false, None);
        let failures = promise.failures().max(partner.silences);
        let is_hopeless = promise.refusals >= PATIENCE;
        if let Some(identity) = partner.identity {
            match kind {
                Granted::Announce if had => effects.push(Effect::Lost(identity)),
                Granted::Sync | Granted::DelayResp if is_hopeless => {
                    self.leave_alone(now, number, effects);
                }
                _ => {}
            }
        }
        let at = now + self.pause(failures);
        self.timers.set((number, kind as u8), at);
    }

    /// Somebody grants nothing that could be followed, or nothing comes: others are preferred for a while.
    fn leave_alone(&mut self, now: Time<Mono>, number: u16, effects: &mut Vec<Effect>) {
        let partner = &mut self.partners[usize::from(number)];
        let Some(identity) = partner.identity else { return };
        partner.silences = partner.silences.saturating_add(1);
        let failures = partner.silences.saturating_add(3);
        let until = now + self.pause(failures);
        self.partners[usize::from(number)].left_until = until;
        self.timers.set((number, RETURN), until);
        effects.push(Effect::Silent(identity, true));
    }

    /// Does what is due.
    pub(crate) fn attend(&mut self, now: Time<Mono>, effects: &mut Vec<Effect>) {
        let mut said: Vec<(u16, Negotiation)> = Vec::new();
        while let Some(((number, kind), _)) = self.timers.pop_due(now) {
            if kind == RETURN {
                if let Some(identity) = self.partners[usize::from(number)].identity {
                    effects.push(Effect::Silent(identity, false));
                }
                continue;
            }
            self.attend_one(now, number, Granted::ALL[usize::from(kind)], &mut said, effects);
        }
        for number in 0..self.partners.len() as u16 {
            let of_it = said.iter().filter(|(whose, _)| *whose == number);
            let of_it: Vec<Negotiation> = of_it.map(|(_, said)| *said).collect();
            let partner = &mut self.partners[usize::from(number)];
            let (Some(to), false) = (partner.address, of_it.is_empty()) else { continue };
            partner.sequence_id = partner.sequence_id.wrapping_add(1);
            let (identity, sequence_id) = (partner.identity, partner.sequence_id);
            effects.push(Effect::Signal { to, identity, sequence_id, said: of_it });
        }
    }

    fn attend_one(
        &mut self,
        now: Time<Mono>,
        number: u16,
        kind: Granted,
        said: &mut Vec<(u16, Negotiation)>,
        effects: &mut Vec<Effect>,
    ) {
        let duration_s = self.config.duration_s;
        let promise = self.partners[usize::from(number)].promises[kind as usize];
        let key = (number, kind as u8);
        let message_type = kind.message_type() as u8;
        match promise.state {
            State::Idle => {}
            State::Asked => {
                let log_interval = self.wanted_interval(kind, promise.refusals);
                said.push((
                    number,
                    Negotiation::Request { message_type, log_interval, duration_s },
                ));
                let promise = &mut self.partners[usize::from(number)].promises[kind as usize];
                promise.is_pending = true;
                promise.unanswered = promise.unanswered.saturating_add(1);
                let (unanswered, failures) = (promise.unanswered, promise.failures());
                if unanswered == PATIENCE + 1 && kind != Granted::Announce {
                    self.leave_alone(now, number, effects);
                }
                let at = now + self.pause(failures);
                self.timers.set(key, at);
            }
            State::Granted { until, .. } if until <= now => {
                // Nobody has renewed it.
                self.lose(now, number, kind, Loss::End, effects);
                self.timers.cancel(key);
                self.attend_one(now, number, kind, said, effects);
            }
            State::Granted { until, log_interval, since, renew_at } => {
                let heard = promise.heard.unwrap_or(since).max(since);
                if silence_at(kind, log_interval, heard).is_some_and(|at| at <= now) {
                    said.push((number, cancel(kind)));
                    self.leave_alone(now, number, effects);
                    self.lose(now, number, kind, Loss::Silence, effects);
                    return;
                }
                if renew_at <= now {
                    let request = Negotiation::Request { message_type, log_interval, duration_s };
                    said.push((number, request));
                    let renew_at = now + self.pause(promise.unanswered);
                    let promise = &mut self.partners[usize::from(number)].promises[kind as usize];
                    promise.is_pending = true;
                    promise.unanswered = promise.unanswered.saturating_add(1);
                    promise.state = State::Granted { until, log_interval, since, renew_at };
                }
                self.schedule(now, number, kind);
            }
            State::Cancelling { left: 0 } => {
                self.partners[usize::from(number)].promises[kind as usize].state = State::Idle;
            }
            State::Cancelling { left } => {
                said.push((number, cancel(kind)));
                self.partners[usize::from(number)].promises[kind as usize].state =
                    State::Cancelling { left: left - 1 };
                let at = now + self.pause(0);
                self.timers.set(key, at);
            }
        }
    }

    /// When [`Self::attend`] has something to do.
    pub(crate) fn next(&self) -> Option<Time<Mono>> {
        self.timers.next()
    }

    /// Gives back all that was granted.
    pub(crate) fn give_back(&mut self, now: Time<Mono>, effects: &mut Vec<Effect>) {
        for number in 0..self.partners.len() as u16 {
            self.set_address(now, number, None, effects);
        }
    }
}

fn three_quarters(span: Duration) -> Duration {
    Duration::from_nanos(span.as_nanos() / 4 * 3)
}

/// When somebody has been silent for too long who was last heard at `heard`; never of what answers.
fn silence_at(kind: Granted, log_interval: i8, heard: Time<Mono>) -> Option<Time<Mono>> {
    (kind != Granted::DelayResp).then(|| {
        let interval = Duration::from_log_interval(log_interval);
        heard + (interval * SILENT).max(SILENT_AT_LEAST)
    })
}
