//! What becomes of a servo's answer: the clock is adjusted, and it is told.

use super::*;

impl<C: Clock> Discipline<C> {
    pub(super) fn apply(&mut self, way: &mut Way<'_, '_>, output: ServoOutput) {
        if self.clock.is_adjustable() && output.state != ServoState::Unlocked {
            self.adjust(way, output.frequency_ppb, output.step);
            if let Some(trust) = output.trust.filter(|_| output.state == ServoState::Locked) {
                let at_present = self.clock.frequency_ppb();
                let level = self.servo.rate_ppb().map_or(at_present, |rate_ppb| -rate_ppb);
                self.former.learn(way.now, &trust, [level, at_present]);
            }
        }
        self.follow_servo(way);
    }

    pub(super) fn adjust(
        &mut self,
        way: &mut Way<'_, '_>,
        frequency_ppb: f64,
        step: Option<Duration>,
    ) {
        let now = way.now;
        let frequency_ppb = match self.clock.set_frequency(now, frequency_ppb) {
            Ok(effective) => effective,
            Err(error) => {
                way.tell(Event::ClockError(error));
                self.clock.frequency_ppb()
            }
        };
        let stepped = step.and_then(|by| match self.clock.step(now, by) {
            Ok(()) => Some(by),
            Err(error) => {
                way.tell(Event::ClockError(error));
                None
            }
        });
        if stepped.is_some() {
            self.set_at = Some(now);
        }
        self.clock.followed();
        self.former.adjusted(now, frequency_ppb, stepped);
        self.servo.adjusted(self.clock.free_running(now), frequency_ppb, stepped);
        way.tell(Event::Adjusted { mono: now, frequency_ppb, stepped });
    }

    /// No Sync comes any more.
    pub(super) fn hold(&mut self, way: &mut Way<'_, '_>) {
        self.holdover_at = None;
        if let Some(frequency_ppb) = self.servo.holdover(self.clock.free_running(way.now))
            && self.clock.is_adjustable()
        {
            self.adjust(way, frequency_ppb, None);
        }
        self.follow_servo(way);
    }

    pub(super) fn follow_servo(&mut self, way: &mut Way<'_, '_>) {
        let (old, new) = (self.state, self.servo.state());
        let synchronization = match new {
            ServoState::Locked => Synchronization::Locked,
            _ => Synchronization::Unlocked,
        };
        self.node.instance_mut().set_synchronized(way.said, synchronization);
        if old != new {
            self.state = new;
            self.locked_at = (new == ServoState::Locked).then_some(way.now);
            way.tell(Event::ServoState { old, new });
        }
    }

    /// What the servo says, with what it cannot know of in it: boundary clocks between, and what was known before.
    pub(super) fn widen(&self, now: Time<Mono>, trust: Trust) -> Trust {
        self.former.widen(now, self.origin.widen(trust))
    }

    pub(super) fn sample(
        &self,
        way: &mut Way<'_, '_>,
        from: &Measurement,
        t2: Stamp,
        sequence_id: u16,
        output: ServoOutput,
    ) {
        let sample = Sample {
            port: from.port,
            domain_number: self.receiver().domain_number(),
            mono: t2.time,
            offset: output.offset,
            raw_offset: output.raw_offset,
            delay: output.delay,
            frequency_ppb: if self.clock.is_adjustable() {
                self.clock.frequency_ppb()
            } else {
                output.frequency_ppb
            },
            state: output.state,
            trust: output.trust.map(|trust| self.widen(way.now, trust)),
            rx_source: t2.source,
            tx_source: self.tx_source,
            parent: from.parent,
            grandmaster: self.origin.parent.map(|parent| parent.set.grandmaster_identity),
            sequence_id,
            exchange: self.receiver().server(from.parent).map(|server| server.protocol),
            strategy: if self.follows_ntp() || self.follows_pulse() {
                strategy::Strategy::Plain
            } else {
                self.strategist.strategy()
            },
            is_of_ntp: self.follows_ntp(),
            is_of_pulse: !self.follows_ntp() && self.follows_pulse(),
        };
        way.tell(Event::Sample(sample));
    }
}
