//! Delay_Req and what is answered: when a port asks, and what becomes of it.

use super::*;

impl Instance {
    pub(super) fn start_delay_req(&mut self, now: Time<Mono>, index: usize) {
        let key = (index as u16, PortTimer::DelayReq);
        let Port { config, role, .. } = &self.ports[index];
        if !config.delay_mechanism.is_e2e() {
            return;
        }
        let configured = config.log_min_delay_req_interval;
        let lacks_exchange = matches!(role, Role::Receiver(following) if following.lacks_exchange);
        let longest = Duration::from_log_interval(configured) * 2;
        let log = match self.timers.at(key) {
            None => self.ports[index].log_delay_req_interval(),
            // A clock that needs one does not wait for as long as was asked of it while it needed none.
            Some(due) if lacks_exchange && due - now > longest => configured,
            Some(_) => return,
        };
        let wait = self.random_interval(log);
        self.timers.set(key, now + wait);
    }

    /// Uniform over 0..=2 times a mean interval (9.5.11.2), log2 s.
    fn random_interval(&mut self, log: i8) -> Duration {
        let most = Duration::from_log_interval(log).as_nanos().saturating_mul(2);
        Duration::from_nanos(self.rng.random_range(0..=most))
    }

    /// At random, and with aiming shortly before the Sync that is nearest to that.
    fn next_request(&mut self, now: Time<Mono>, index: usize) -> Time<Mono> {
        let wanted = now + self.random_interval(self.ports[index].log_delay_req_interval());
        let Port { role: Role::Receiver(following), aiming, .. } = &self.ports[index] else {
            return wanted;
        };
        let share = following.rhythm.share();
        if *aiming == Aiming::Off || (share < 1.0 && self.rng.random::<f64>() >= share) {
            return wanted;
        }
        let mean = Duration::from_log_interval(following.log_delay_req_interval);
        following.rhythm.aim(now, wanted, mean)
    }

    pub(crate) fn delay_req_due(&mut self, cx: &mut Cx<'_>, index: usize) {
        let next = self.next_request(cx.now, index);
        let Some(to) = self.delay_req_to(cx.now, index) else {
            self.timers.set((index as u16, PortTimer::DelayReq), next);
            return;
        };
        let port = &mut self.ports[index];
        let Role::Receiver(following) = &mut port.role else { return };
        let token = self.in_flight.put(PortIndex(index as u16), Sent::DelayReq);
        let mean = Duration::from_log_interval(following.log_delay_req_interval);
        let patience = DELAY_PATIENCE.max(mean * 4);
        while following.delays.front().is_some_and(|old| {
            following.delays.len() >= DELAY_CAPACITY || cx.now - old.sent > patience
        }) {
            following.delays.pop_front();
            port.counters.count_drop(Drop::UnansweredDelayReq);
        }
        let sequence_id = port.delay_sequence_id;
        port.delay_sequence_id = sequence_id.wrapping_add(1);
        self.timers.set((index as u16, PortTimer::DelayReq), next);
        let sent = cx.now;
        following.delays.push_back(PendingDelay { sequence_id, token, sent, t3: None, t4: None });
        let mut header = self.header(index, sequence_id);
        if matches!(to, Destination::Unicast(_)) {
            header.flags |= Flags::UNICAST;
        }
        let body = Body::DelayReq { origin_timestamp: Timestamp::ZERO };
        let message = Datagram::new(header, body);
        self.send(cx, index, MessageType::DelayReq, to, message, Some(token));
    }

    /// The stamp of a Delay_Req, or the news that there is none.
    pub(crate) fn delay_req_sent(
        &mut self,
        cx: &mut Cx<'_>,
        index: usize,
        token: SentToken,
        stamp: Option<Stamp>,
    ) {
        let port = &mut self.ports[index];
        let Role::Receiver(following) = &mut port.role else { return };
        let Some(at) = following.delays.iter().position(|delay| delay.token == token) else {
            return;
        };
        if stamp.is_none() {
            following.delays.remove(at);
            port.counters.count_drop(Drop::MissingTxStamp);
            return;
        }
        following.delays[at].t3 = stamp;
        self.finish_delay(cx, index, at);
    }

    pub(crate) fn take_delay_resp(
        &mut self,
        cx: &mut Cx<'_>,
        index: usize,
        header: &Header,
        receive: Timestamp,
        requester: PortIdentity,
        tlvs: Tlvs<'_>,
    ) -> Result<(), Drop> {
        let is_aiming = self.ports[index].aiming == Aiming::On;
        let is_own = requester == self.ports[index].identity;
        let is_parents = self.parent_on(index) == Some(header.source_port_identity);
        if is_parents {
            self.following(index)?.0.rhythm.answered(cx.now, is_own);
        }
        if !is_own {
            return Err(Drop::OtherRequester);
        }
        if !is_parents {
            return Err(Drop::NotParent);
        }
        let (following, mut port) = self.following(index)?;
        let sequence_id = header.sequence_id;
        let correction: Duration = header.correction.into();
        let told = Time::<Ptp>::from(receive) - correction;
        if following.answers_told.is_contradiction(cx.now, sequence_id, told)
            && let Some(at) = following.delays.iter().position(|it| it.sequence_id == sequence_id)
        {
            // Of two answers nobody knows which is the true one.
            following.delays.remove(at);
            following.last_answered = Some(sequence_id);
            return Err(Drop::Duplicate);
        }
        let Some(at) = following.delays.iter().position(|each| each.sequence_id == sequence_id)
        else {
            return Err(if following.last_answered == Some(sequence_id) {
                Drop::Duplicate
            } else {
                Drop::UnmatchedDelayResp
            });
        };
        if following.delays[at].t4.is_some() {
            return Err(Drop::Duplicate);
        }
        following.grain.arrived(told);
        let half = following.grain.half();
        let t4 = told + port.config.delay_asymmetry + half;
        if is_aiming {
            following.rhythm.aimed_arrived(t4);
        }
        // Who answers in the other end's name does not know it: then it is what its last Sync had.
        let deviation = Deviation::find(&tlvs).or(following.deviation);
        let doubt =
            half + port.peer_doubt(Bracket::find(&tlvs), |bracket| i64::from(bracket.latest_ns));
        let configured = port.config.log_min_delay_req_interval;
        let current = following.log_delay_req_interval;
        let claimed = limits::delay_req_interval(configured, current, header.log_message_interval);
        following.delays[at].t4 = Some(Answered { t4, correction, doubt, deviation });
        following.answers_told.note(sequence_id, told);
        if let Some(Clamped { log, is_clamped }) = claimed {
            following.log_delay_req_interval = log;
            *port.granted = Some((header.source_port_identity, log));
            if is_clamped {
                port.counters.count_drop(Drop::IntervalClamped);
            }
            // A request that an earlier answer has put far off does not wait for longer than this one asks.
            let latest = cx.now + Duration::from_log_interval(log) * 2;
            let key = (index as u16, PortTimer::DelayReq);
            let due = self.timers.at(key).map(|at| at.min(latest));
            self.timers.put(key, due);
        }
        self.finish_delay(cx, index, at);
        Ok(())
    }

    fn finish_delay(&mut self, cx: &mut Cx<'_>, index: usize, at: usize) {
        let Ok((following, port)) = self.following(index) else { return };
        let PendingDelay { sequence_id, t3: Some(mut t3), t4: Some(answered), .. } =
            following.delays[at]
        else {
            return;
        };
        let Answered { t4, correction, doubt, deviation } = answered;
        t3.doubt += doubt;
        t3.told_within = deviation;
        following.delays.remove(at);
        following.last_answered = Some(sequence_id);
        if !port.round_trip.delay(t3.time, t4) {
            port.counters.count_drop(Drop::ImplausibleDelay);
            return;
        }
        let delay = DelayObservation { t3, t4, sequence_id, correction };
        for delay in following.answers_told.complete(cx.now, delay).into_iter().flatten() {
            self.ports[index].counters.delay_exchanges += 1;
            if let Ok((following, _)) = self.following(index) {
                following.lacks_exchange = false;
            }
            self.measured(cx, index, Observation::Delay(delay));
        }
    }
}
