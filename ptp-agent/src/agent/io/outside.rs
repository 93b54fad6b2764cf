//! What the one loop wants of the outside: deliveries, sending, waiting.

use super::*;

impl Outside for Io {
    type Delivery = Delivery;

    fn input(delivery: &Delivery) -> Input<'_> {
        delivery.input()
    }

    fn next_delivery(&mut self) -> Option<Delivery> {
        self.ready
            .pop_front()
            .or_else(|| self.pulse.as_mut()?.next_delivery())
            .or_else(|| self.ntp.as_mut()?.next_delivery())
    }

    /// Sends a message. The stamp of an event message comes as a [`Delivery::TxStamp`], mostly at once.
    fn transmit(&mut self, transmit: &Transmit) {
        let Transmit { on: port, to, message, token } = transmit;
        if usize::from(port.0) >= self.ports.len()
            && let Some(ntp) = &mut self.ntp
        {
            return ntp.transmit(transmit);
        }
        let mut buffer = [0; security::MAX_SEALED];
        // Before priming: what is warm then has to stay so.
        let Some(message) = self.seal(*port, message, &mut buffer) else {
            if let Some(token) = *token {
                self.ready.push_back(Delivery::TxStamp { token, stamp: None });
            }
            return;
        };
        match (*to, *token) {
            // Perhaps one of many.
            (Destination::Unicast(to), token) => self.outbox.put(*port, to, token, message),
            (to, None) => {
                self.send(*port, Channel::General, to, message);
            }
            (to, Some(token)) => self.send_event(*port, to, token, message),
        }
    }

    fn send_out(&mut self, is_end: bool) {
        self.send_collected(is_end);
    }

    async fn wait(&mut self, until: Time<Mono>) {
        if !self.ready.is_empty() {
            return;
        }
        let now = monotonic();
        let mut wake = until.min(self.drained + DRAIN);
        if self.is_waited_for() {
            wake = wake.min(now + RETRY);
        }
        for reopen in self.ports.iter().filter_map(|port| port.reopen_at) {
            wake = wake.min(reopen);
        }
        if self.rest(now, wake).await {
            return;
        }
        let (ntp, pulse) = (&mut self.ntp, &mut self.pulse);
        let event = tokio::select! {
            biased;
            received = receive_any(&mut self.ports) => Some(received),
            () = self.watch.changed() => None,
            () = async {
                match ntp {
                    Some(ntp) => ntp.wait(wake).await,
                    None => pending().await,
                }
            } => return self.look(monotonic()),
            () = async {
                match pulse {
                    Some(pulse) => pulse.wait().await,
                    None => pending().await,
                }
            } => return,
            over = self.timer.until(wake) => {
                if let Err(error) = over {
                    // Cannot be; and to go round without a pause would be worse than to be late.
                    tracing::warn!(%error, "timer");
                    sleep(std::time::Duration::from_millis(1)).await;
                }
                let now = monotonic();
                if self.ports.iter().any(|port| port.reopen_at.is_some_and(|at| at <= now)) {
                    self.check_links(now);
                }
                self.look(now);
                return;
            }
        };
        let now = monotonic();
        match event {
            Some((port, Ok(received))) => {
                let is_busy = now - std::mem::replace(&mut self.heard, now) < BUSY;
                self.received(now, port, received);
                if is_busy {
                    // More have come meanwhile: one look into the ring for all of them.
                    self.read_on(now, port);
                }
            }
            Some((port, Err(error))) => {
                self.ports[usize::from(port.0)].counts.receive_errors += 1;
                tracing::debug!(interface = self.interface(port), %error, "receive");
                self.check_links(now);
            }
            None => self.check_links(now),
        }
        self.look(now);
    }
}

impl Io {
    /// Sends an event message by itself, on a way that was prepared for it.
    pub(super) fn send_event(
        &mut self,
        port: PortIndex,
        to: Destination,
        token: SentToken,
        message: &[u8],
    ) {
        let failed = Delivery::TxStamp { token, stamp: None };
        let manner = self.ports.get_mut(usize::from(port.0)).map(Port::prepare);
        let manner = manner.unwrap_or_default();
        if !self.send(port, Channel::Event, to, message) {
            self.ready.push_back(failed);
            return;
        }
        let now = monotonic();
        if self.waiting_tx.len() == WAITING {
            self.ports[usize::from(port.0)].counts.overrun += 1;
            self.ready.push_back(failed);
            return;
        }
        self.waiting_tx.push_back(Waiting {
            until: now + TX_PATIENCE,
            port,
            bytes: message.to_vec(),
            source: None,
            stack: None,
            token: Some(token),
            manner,
        });
        self.look(now);
    }
}
