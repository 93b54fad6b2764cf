//! When nobody need be woken. What a time receiver waits for comes with the next Sync and its Follow_Up, whose time is
//! known. Until then the thread sleeps by the clock rather than by its sockets, and what has come meanwhile (the
//! answer to a request, others' traffic, what servers of NTP say) is read with them: one wake-up for all of it instead
//! of one for each. Where the Follow_Up comes later than thought, the sockets wake as they always do, and the next lull is longer.

use super::*;
use crate::sys::schedule;
use tokio::task::yield_now;

/// How long behind a Sync its Follow_Up is waited for: at first, and within which limits.
const FIRST_MARGIN: Duration = Duration::from_micros(400);
const MARGINS: [Duration; 2] = [Duration::from_micros(150), Duration::from_millis(4)];
/// It grows by this part where the Follow_Up was later, and shrinks by that where it was there: one in sixteen is
/// late.
const GROWTH: i64 = 4;
const SHRINKING: i64 = 64;
/// Messages that are read at the end of a lull. More are a flood, in which the sockets wake for a while.
const READ: usize = 64;
const FLOODED: Duration = Duration::from_secs(1);

/// The present lull.
#[derive(Debug)]
pub(super) struct Lull {
    /// When the next Sync is due.
    due: Option<Time<Mono>>,
    margin: Duration,
    /// How often sockets were read since it ended.
    reads: u32,
    not_before: Time<Mono>,
}

impl Default for Lull {
    fn default() -> Self {
        Self { due: None, margin: FIRST_MARGIN, reads: 0, not_before: Time::ZERO }
    }
}

impl Lull {
    /// The next Sync is due then; `None` where that is not known or something else must be answered.
    pub(super) fn set(&mut self, due: Option<Time<Mono>>) {
        if due == self.due {
            return;
        }
        if self.due.is_some() && due.is_some() {
            let change = match self.reads {
                0 => Duration::ZERO,
                1 => -Duration::from_nanos(self.margin.as_nanos() / SHRINKING),
                _ => Duration::from_nanos(self.margin.as_nanos() / GROWTH),
            };
            self.margin = (self.margin + change).clamp(MARGINS[0], MARGINS[1]);
        }
        (self.due, self.reads) = (due, 0);
    }

    /// Its end, if there is one now.
    fn end(&self, now: Time<Mono>) -> Option<Time<Mono>> {
        let end = self.due? + self.margin;
        (end > now && now >= self.not_before).then_some(end)
    }
}

impl Io {
    /// Until shortly behind `due`, when the next Sync is to come, no message need be answered.
    pub fn set_lull(&mut self, due: Option<Time<Mono>>) {
        // In a laboratory the far end of the wire has a socket of its own.
        self.lull.set(due.filter(|_| self.ports.iter().all(|port| port.wire.is_none())));
    }

    /// Sleeps through a lull or until `wake`; `false` where there is none.
    pub(super) async fn rest(&mut self, now: Time<Mono>, wake: Time<Mono>) -> bool {
        let Some(end) = self.lull.end(now) else {
            self.lull.reads = self.lull.reads.saturating_add(1);
            return false;
        };
        if self.ntp.as_ref().is_some_and(|ntp| ntp.is_hurried(now)) {
            return false;
        }
        schedule::sleep_until(end.min(wake));
        let now = monotonic();
        if now >= end {
            self.read_all(now);
            // Signals and news of interfaces are the runtime's, which has slept as well. There is a delivery, or
            // nothing that would be late.
            yield_now().await;
            tokio::select! {
                biased;
                () = self.watch.changed() => self.check_links(now),
                () = std::future::ready(()) => {}
            }
            // Its sockets are the runtime's as well.
            if let Some(ntp) = &mut self.ntp {
                ntp.catch_up();
            }
        } else if now >= wake
            && self.ready.is_empty()
            && (self.is_waited_for() || now >= self.drained + DRAIN)
        {
            self.look(now);
        }
        true
    }

    fn read_all(&mut self, now: Time<Mono>) {
        self.lull.reads = self.lull.reads.saturating_add(1);
        for number in 0..self.ports.len() {
            self.read_on(now, PortIndex(u16::try_from(number).unwrap_or(u16::MAX)));
        }
        self.look(now);
    }

    /// Reads what is there, event messages first.
    pub(super) fn read_on(&mut self, now: Time<Mono>, index: PortIndex) {
        for channel in [Channel::Event, Channel::General] {
            self.read(now, index, channel);
        }
    }

    fn read(&mut self, now: Time<Mono>, index: PortIndex, channel: Channel) {
        for _ in 0..READ {
            let Some(port) = self.ports.get_mut(usize::from(index.0)) else { return };
            let Port { transport, buffer, .. } = port;
            let received = transport.as_ref().and_then(|it| it.try_receive(channel, buffer));
            match received {
                None => return,
                Some(Ok(received)) => self.received(now, index, received),
                Some(Err(error)) => {
                    port.counts.receive_errors += 1;
                    tracing::debug!(interface = port.interface, %error, "receive");
                    self.check_links(now);
                    return;
                }
            }
        }
        self.lull.not_before = now + FLOODED;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(micros: i64) -> Time<Mono> {
        Time::from_nanos(1_000_000_000 + micros * 1_000)
    }

    #[test]
    fn lull_ends_behind_the_next_sync_and_is_none_where_that_is_not_known() {
        let mut lull = Lull::default();
        assert_eq!(lull.end(at(0)), None);
        lull.set(Some(at(62_500)));
        assert_eq!(lull.end(at(0)), Some(at(62_500) + FIRST_MARGIN));
        assert_eq!(lull.end(at(63_000)), None);
        lull.not_before = at(10);
        assert_eq!(lull.end(at(0)), None);
    }

    #[test]
    fn margin_grows_where_the_follow_up_is_late_and_shrinks_slowly_where_it_is_not() {
        let mut lull = Lull::default();
        let mut interval = |reads, n: i64| {
            lull.reads = reads;
            lull.set(Some(at(n * 62_500)));
            lull.margin
        };
        interval(0, 1);
        let shrunk = interval(1, 2);
        assert!(shrunk < FIRST_MARGIN && shrunk > FIRST_MARGIN - Duration::from_micros(10));
        assert!(interval(2, 3) > FIRST_MARGIN);
        for n in 4..100 {
            assert!(interval(3, n) <= MARGINS[1]);
        }
        for n in 100..1_000 {
            assert!(interval(1, n) >= MARGINS[0]);
        }
    }
}
