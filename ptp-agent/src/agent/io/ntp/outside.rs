//! How the one loop drives the sockets of NTP: what has come in, what is sent, and waiting.

use super::*;

/// While so many requests and more wait, nobody looks when an answer leaves: it would take as long as a third of another
/// answer, and costs a client no more than that its next answer is a basic one.
const TRACKED: usize = 16;
/// Between two looks while keys are asked for.
const KEYS: Duration = Duration::from_millis(10);
/// A server that answers later is so far away that nothing is lost where its answer is read later still.
const NEARBY: Duration = Duration::from_millis(5);

impl Outside for NtpIo {
    type Delivery = Delivery;

    fn input(delivery: &Delivery) -> Input<'_> {
        delivery.input()
    }

    fn next_delivery(&mut self) -> Option<Delivery> {
        let (delivery, local) = self.ready.pop_front()?;
        self.local = local;
        Some(delivery)
    }

    fn transmit(&mut self, transmit: &Transmit) {
        match self.peer(transmit.on) {
            Some(at) if self.is_held(at, transmit) => {}
            _ => self.dispatch(transmit),
        }
    }

    async fn wait(&mut self, until: Time<Mono>) {
        if !self.ready.is_empty() {
            return;
        }
        let mut wake = until.min(self.drained + DRAIN);
        if !self.waiting_rx.is_empty() || !self.waiting_tx.is_empty() {
            wake = wake.min(monotonic() + RETRY);
        }
        if self.is_exchanging() {
            wake = wake.min(monotonic() + KEYS);
        }
        let readable = {
            let sockets = self.peers.iter().filter_map(|peer| peer.socket.as_ref());
            let sockets = sockets.chain(self.listeners.iter().map(|listener| &listener.socket));
            let sockets: Vec<_> = sockets.collect();
            tokio::select! {
                biased;
                () = poll_fn(|context| {
                    for socket in &sockets {
                        // Reading until there is nothing ends the readiness.
                        if let Poll::Ready(Ok(mut guard)) = socket.poll_read_ready(context) {
                            guard.retain_ready();
                            return Poll::Ready(());
                        }
                    }
                    Poll::Pending
                }) => true,
                over = self.timer.until(wake) => {
                    if let Err(error) = over {
                        tracing::warn!(%error, "timer");
                        sleep(std::time::Duration::from_millis(1)).await;
                    }
                    false
                }
            }
        };
        if readable {
            self.read();
        }
        self.look(monotonic());
    }
}

impl NtpIo {
    /// Whether something is on its way that should be taken as soon as it is there: the answer of a server nearby, which
    /// may be asked again while it is warm, or a stamp.
    pub(in super::super) fn is_hurried(&self, now: Time<Mono>) -> bool {
        let mut asked = self.peers.iter().filter_map(|peer| peer.asked);
        !self.waiting_rx.is_empty()
            || !self.waiting_tx.is_empty()
            || self.is_exchanging()
            || asked.any(|at| now - at < NEARBY)
    }

    /// Takes what has come while nobody waited.
    pub(in super::super) fn catch_up(&mut self) {
        self.read();
        self.look(monotonic());
    }

    /// Sends it now, if it may leave.
    pub(super) fn dispatch(&mut self, transmit: &Transmit) {
        let Transmit { on, to, mut message, token } = *transmit;
        let peer = self.peer(on);
        let (sent, bytes) = match (peer, to) {
            (Some(at), _) => {
                let Some(message) = self.wrapped(at, &message) else { return self.fail(token) };
                (self.request(at, &message), message.into_owned())
            }
            (None, Destination::Unicast(to)) => {
                (self.answer(on, to, &mut message), message.to_vec())
            }
            (None, Destination::Multicast(_)) => return,
        };
        let now = monotonic();
        let sending = match sent {
            Ok(sending) => sending,
            Err(error) => {
                self.report(peer, &error);
                return self.fail(token);
            }
        };
        let Some(token) = token else { return };
        if peer.is_none() && self.ready.len() >= TRACKED {
            self.counts.untracked += 1;
            return;
        }
        if self.waiting_tx.len() == WAITING {
            self.counts.overrun += 1;
            return self.fail(Some(token));
        }
        let place = match peer {
            Some(at) => self.peers[at].place,
            None => Some(usize::from(on.0)),
        };
        let waiting = Waiting {
            until: now + TX_PATIENCE,
            port: on,
            place,
            bytes,
            source: None,
            local: None,
            stack: None,
            token: Some(token),
            sending,
        };
        if peer.is_none() && !self.ready.is_empty() {
            // Others are to be answered first: stamps of many are looked for at once.
            self.waiting_tx.push_back(waiting);
            return;
        }
        // Those that wait already are looked for where time is not short. This one is among those that records are kept for.
        self.waiting_tx.push_back(waiting);
        self.drain(now);
        let Some(waiting) = self.waiting_tx.pop_back() else { return };
        match self.find(&waiting, now) {
            Some(stamp) => self.ready.push_back((Delivery::TxStamp { token, stamp }, None)),
            None => self.waiting_tx.push_back(waiting),
        }
    }
}
