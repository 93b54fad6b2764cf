//! What the agent's servers have in common: a thread with a runtime of its own, so that no client can
//! hold up time-keeping, and a loop that accepts clients in bounded numbers.

use std::{
    collections::VecDeque,
    io, thread,
    time::{Duration, Instant},
};

use tokio::{sync::oneshot, task::JoinHandle};

/// Between two attempts to accept where the process is out of descriptors: others may free some.
const RETRY: Duration = Duration::from_millis(100);

/// In a turn so many clients or requests are served; the others wait in the kernel's queue, and who fills that waits himself. What
/// anybody of this host sends so costs no more than a few parts in a hundred of a processor.
const IN_A_TURN: u32 = 64;
const TURN: Duration = Duration::from_millis(50);

/// Keeps that pace.
#[derive(Debug)]
pub(super) struct Pace {
    begun: Instant,
    served: u32,
}

impl Pace {
    pub(super) fn new() -> Self {
        Self { begun: Instant::now(), served: 0 }
    }

    /// Waits, if need be, until the next may be served.
    pub(super) async fn next(&mut self) {
        let passed = self.begun.elapsed();
        if self.served >= IN_A_TURN && passed < TURN {
            tokio::time::sleep(TURN - passed).await;
        }
        if self.served >= IN_A_TURN || passed >= TURN {
            *self = Self::new();
        }
        self.served += 1;
    }
}

/// A running server; it ends when this is dropped.
#[derive(Debug)]
pub(super) struct ServiceThread {
    stop: Option<oneshot::Sender<()>>,
    thread: Option<thread::JoinHandle<()>>,
}

impl ServiceThread {
    /// Runs what `service` makes, inside the runtime of a new thread of that name.
    ///
    /// # Errors
    /// What the kernel says to a thread or a runtime more.
    pub(super) fn start<F: Future<Output = ()>>(
        name: &str,
        service: impl FnOnce() -> F + Send + 'static,
    ) -> io::Result<Self> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let (stop, stopped) = oneshot::channel();
        let thread = thread::Builder::new().name(name.into()).spawn(move || {
            runtime.block_on(async {
                tokio::select! {
                    () = service() => {}
                    _ = stopped => {}
                }
            });
        })?;
        Ok(Self { stop: Some(stop), thread: Some(thread) })
    }
}

impl Drop for ServiceThread {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            // A panic there has been printed already, and must not become one of the agent.
            let _ = thread.join();
        }
    }
}

/// Serves whoever comes, each in a task of its own, at most `limit` at one time: a further client
/// takes the place of the oldest.
pub(super) async fn serve_clients<S, F>(
    limit: usize,
    mut accept: impl AsyncFnMut() -> io::Result<S>,
    mut serve: impl FnMut(S) -> F,
) where
    F: Future<Output = ()> + Send + 'static,
{
    let mut clients: VecDeque<JoinHandle<()>> = VecDeque::new();
    let mut pace = Pace::new();
    loop {
        pace.next().await;
        let Ok(stream) = accept().await else {
            // The client has gone again, or there is no descriptor for it.
            tokio::time::sleep(RETRY).await;
            continue;
        };
        clients.retain(|client| !client.is_finished());
        if clients.len() >= limit
            && let Some(oldest) = clients.pop_front()
        {
            oldest.abort();
        }
        clients.push_back(tokio::spawn(serve(stream)));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn flood_is_served_at_a_pace() {
        let begun = Instant::now();
        let mut pace = Pace::new();
        for _ in 0..3 * IN_A_TURN + 1 {
            pace.next().await;
        }
        assert!(begun.elapsed() >= TURN * 3, "{:?}", begun.elapsed());
    }
}
