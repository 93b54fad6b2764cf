//! Threads that send. Of the time that a server of a hundred thousand clients takes, four fifths are in the system call
//! that sends, and one processor is not enough. Messages to one address all go by the same thread, so they are sent in the
//! order in which they were handed over.

use std::{
    io,
    ops::Range,
    sync::{
        Arc,
        mpsc::{Receiver, Sender, SyncSender, channel, sync_channel},
    },
    thread::{self, JoinHandle},
};

use super::{Channel, Transport, many::Way};
use crate::engine::address::Address;
use socket2::Socket;

/// More threads than this have nothing to do: one makes messages for about six.
const MOST: usize = 6;
/// What may wait for a thread; then who hands over waits, as it would if it sent by itself.
const WAITING: usize = 2;

/// Messages for one thread; `T` names one of them to who hands it over.
#[derive(Debug)]
pub struct Batch<T> {
    parts: Vec<Part<T>>,
    bytes: Vec<u8>,
}

#[derive(Debug)]
struct Part<T> {
    way: Arc<Way<Socket>>,
    messages: Vec<(Address, Range<usize>, T)>,
}

impl<T> Default for Batch<T> {
    fn default() -> Self {
        Self { parts: Vec::new(), bytes: Vec::new() }
    }
}

impl<T: Copy> Batch<T> {
    /// Adds messages, which are sent behind those that were added before.
    ///
    /// # Errors
    /// If there are no descriptors left; then nothing is added.
    pub fn add<'a>(
        &mut self,
        transport: &Transport,
        channel: Channel,
        messages: impl IntoIterator<Item = (Address, &'a [u8], T)>,
    ) -> io::Result<()> {
        let mut messages = messages.into_iter().peekable();
        if messages.peek().is_some() {
            self.append(transport.shared_way(channel)?, messages);
        }
        Ok(())
    }

    fn append<'a>(
        &mut self,
        way: Arc<Way<Socket>>,
        messages: impl Iterator<Item = (Address, &'a [u8], T)>,
    ) {
        let messages = messages.map(|(to, message, name)| {
            let begin = self.bytes.len();
            self.bytes.extend_from_slice(message);
            (to, begin..self.bytes.len(), name)
        });
        self.parts.push(Part { way, messages: messages.collect() });
    }

    fn send(&self, mut tell: impl FnMut(Outcome<T>)) {
        for Part { way, messages } in &self.parts {
            let all: Vec<(Address, &[u8])> =
                messages.iter().map(|(to, place, _)| (*to, &self.bytes[place.clone()])).collect();
            let mut is_whole = true;
            way.send_many(&all, |at, error| {
                is_whole = false;
                tell((messages[at].2, Err(error)));
            });
            if let Some((.., last)) = messages.last().filter(|_| is_whole) {
                tell((*last, Ok(())));
            }
        }
    }
}

/// A message that could not be sent, and why; or the last of messages of one socket that all were.
type Outcome<T> = (T, io::Result<()>);

/// A thread, and how it is handed something.
#[derive(Debug)]
struct Shard<T> {
    hand: SyncSender<Batch<T>>,
    thread: JoinHandle<()>,
}

/// The threads. They end with this, after what they have been handed.
#[derive(Debug)]
pub struct Shards<T> {
    threads: Vec<Shard<T>>,
    outcomes: Receiver<Outcome<T>>,
}

impl<T: Copy + Send + 'static> Shards<T> {
    /// One for each processor.
    ///
    /// # Errors
    /// If there is one processor alone, or no thread can be had.
    pub fn new() -> io::Result<Self> {
        let processors = thread::available_parallelism()?.get().min(MOST);
        if processors < 2 {
            return Err(io::ErrorKind::Unsupported.into());
        }
        let (told, outcomes) = channel();
        let threads: io::Result<_> = (0..processors).map(|_| begin(told.clone())).collect();
        Ok(Self { threads: threads?, outcomes })
    }

    /// How many there are.
    pub const fn count(&self) -> usize {
        self.threads.len()
    }

    /// Hands over, and waits where there is more to do than the thread can.
    pub fn hand_over(&self, shard: usize, batch: Batch<T>) {
        if batch.parts.is_empty() {
            return;
        }
        if let Some(shard) = self.threads.get(shard) {
            // It ends when `hand` does, no sooner.
            let _ = shard.hand.send(batch);
        }
    }

    /// Messages that could not be sent since this was asked last, and why; and where all were that were handed over
    /// together for one socket, the last of them.
    pub fn outcomes(&self) -> impl Iterator<Item = Outcome<T>> {
        self.outcomes.try_iter()
    }
}

fn begin<T: Copy + Send + 'static>(told: Sender<Outcome<T>>) -> io::Result<Shard<T>> {
    let (hand, taken) = sync_channel::<Batch<T>>(WAITING);
    let run = move || {
        for batch in taken {
            // Nobody listens any more at the end.
            batch.send(|outcome| drop(told.send(outcome)));
        }
    };
    Ok(Shard { hand, thread: thread::Builder::new().name("send".into()).spawn(run)? })
}

impl<T> Drop for Shards<T> {
    fn drop(&mut self) {
        for Shard { hand, thread } in self.threads.drain(..) {
            drop(hand);
            // It says nothing but that it has ended.
            let _ = thread.join();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{net::UdpSocket, time::Duration};

    fn host(last: u8, port: u16) -> Address {
        Address::Socket(([127, 0, 7, last], port).into())
    }

    #[test]
    fn messages_to_one_address_keep_their_order_and_what_cannot_be_sent_is_handed_back() {
        let first = UdpSocket::bind("127.0.7.1:0").unwrap();
        let port = first.local_addr().unwrap().port();
        let second = UdpSocket::bind(("127.0.7.2", port)).unwrap();
        let mut shards = Shards::new().unwrap_or_else(|_| {
            // A machine with one processor can do it all the same.
            let (told, outcomes) = channel();
            let threads = (0..2).map(|_| begin(told.clone()).unwrap()).collect();
            Shards { threads, outcomes }
        });
        let sender = UdpSocket::bind("127.0.0.1:0").unwrap();
        let way = Arc::new(Way::over_udp4(sender.into(), port));
        let long = vec![0; 70_000];
        for batch_number in 0_u8..20 {
            for shard in 0..2 {
                let mut batch = Batch::default();
                let way = Arc::clone(&way);
                let texts: Vec<[u8; 2]> = (0..10).map(|n| [batch_number, n]).collect();
                let mut all: Vec<(Address, &[u8], u8)> =
                    texts.iter().map(|text| (host(shard + 1, 0), text.as_slice(), 0)).collect();
                all.insert(5, (host(9, 0), if shard == 0 { &long } else { b"to nobody" }, 7));
                batch.append(way, all.into_iter());
                shards.hand_over(usize::from(shard), batch);
            }
        }
        for receiver in [first, second] {
            receiver.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
            for batch_number in 0..20 {
                for n in 0..10 {
                    let mut buffer = [0; 4];
                    assert_eq!(receiver.recv(&mut buffer).unwrap(), 2);
                    assert_eq!(buffer[..2], [batch_number, n]);
                }
            }
        }
        // The threads have told of the last batch when they have ended.
        let Shards { threads, outcomes } = &mut shards;
        for Shard { hand, thread } in threads.drain(..) {
            drop(hand);
            thread.join().unwrap();
        }
        let (failed, whole): (Vec<_>, Vec<_>) =
            outcomes.try_iter().partition(|(_, result)| result.is_err());
        assert_eq!(failed.into_iter().map(|(name, _)| name).collect::<Vec<u8>>(), [7; 20]);
        assert_eq!(whole.into_iter().map(|(name, _)| name).collect::<Vec<u8>>(), [0; 20]);
    }
}
