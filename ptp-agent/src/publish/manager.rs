//! What the service manager is told (systemd's `sd_notify` protocol): that the agent is ready, how it
//! is in a line, and that its main loop still turns. Whoever runs that loop says so once a second; a
//! thread of its own passes it on, because a service manager that does not read must not hold up
//! time-keeping, and the last word reaches the manager before the process is gone.

use std::{
    env, io,
    sync::mpsc::{Receiver, SyncSender, channel, sync_channel},
    thread,
    time::Duration,
};

use sd_notify::NotifyState;

use crate::sys::clock::monotonic;

/// Messages that wait at the most; further ones are dropped, and said again if they matter.
const MAX_WAITING: usize = 8;
/// How long the last message may take.
const LAST_WORDS: Duration = Duration::from_millis(200);

/// See the module's paragraph. Without a service manager it does nothing.
#[derive(Debug, Default)]
pub struct ServiceManager {
    link: Option<Link>,
    is_ready: bool,
    status: String,
}

#[derive(Debug)]
struct Link {
    messages: SyncSender<String>,
    /// Closed when all messages have been passed on.
    done: Receiver<()>,
    has_watchdog: bool,
}

impl ServiceManager {
    /// The service manager that the environment names, if it names one (`NOTIFY_SOCKET`,
    /// `WATCHDOG_USEC`).
    pub fn from_environment() -> Self {
        if env::var_os("NOTIFY_SOCKET").is_none() {
            return Self::default();
        }
        let has_watchdog = sd_notify::watchdog_enabled().is_some();
        match Self::new(has_watchdog, |text| sd_notify::notify(&[NotifyState::Custom(text)])) {
            Ok(this) => this,
            Err(error) => {
                tracing::warn!(%error, "cannot start the thread that tells the service manager");
                Self::default()
            }
        }
    }

    fn new(
        has_watchdog: bool,
        mut tell: impl FnMut(&str) -> io::Result<()> + Send + 'static,
    ) -> io::Result<Self> {
        let (messages, waiting) = sync_channel::<String>(MAX_WAITING);
        let (alive, done) = channel::<()>();
        thread::Builder::new().name("service".into()).spawn(move || {
            let _alive = alive;
            let mut has_failed = false;
            for message in waiting {
                if let Err(error) = tell(message.trim_end())
                    && !has_failed
                {
                    has_failed = true;
                    tracing::warn!(%error, "cannot tell the service manager");
                }
            }
        })?;
        let link = Some(Link { messages, done, has_watchdog });
        Ok(Self { link, is_ready: false, status: String::new() })
    }

    /// The main loop has made a turn, and the agent is as `status` says. The first time this means
    /// that the agent is ready. To be called about once a second.
    pub fn turn(&mut self, status: &str) {
        let Some(link) = &self.link else { return };
        let mut message = String::new();
        if !self.is_ready {
            message.push_str("READY=1\n");
        }
        if link.has_watchdog {
            message.push_str("WATCHDOG=1\n");
        }
        if status != self.status {
            message.push_str(&format!("STATUS={}\n", status.replace('\n', " ")));
        }
        if !message.is_empty() && link.messages.try_send(message).is_ok() {
            self.is_ready = true;
            status.clone_into(&mut self.status);
        }
    }

    /// The configuration is being read again. The next [`ServiceManager::turn`] says that this is done.
    pub fn reloading(&mut self) {
        if let Some(link) = &self.link {
            let micros = monotonic().as_nanos() / 1_000;
            let message = format!("RELOADING=1\nMONOTONIC_USEC={micros}\n");
            if link.messages.try_send(message).is_ok() {
                self.is_ready = false;
            }
        }
    }
}

impl Drop for ServiceManager {
    fn drop(&mut self) {
        if let Some(Link { messages, done, .. }) = self.link.take() {
            // A queue that is full belongs to a manager that does not listen.
            let _ = messages.try_send("STOPPING=1\n".into());
            drop(messages);
            // Ends with an error in any case: nothing is ever sent.
            let _ = done.recv_timeout(LAST_WORDS);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc::Sender;

    fn service(has_watchdog: bool) -> (ServiceManager, Receiver<String>) {
        let (sender, receiver): (Sender<String>, _) = channel();
        let tell = move |text: &str| sender.send(text.to_owned()).map_err(io::Error::other);
        (ServiceManager::new(has_watchdog, tell).unwrap(), receiver)
    }

    #[test]
    fn first_turn_is_ready_and_a_status_is_told_once() {
        let (mut service, told) = service(false);
        service.turn("listening");
        service.turn("listening");
        service.turn("locked\nto somebody");
        drop(service);
        let told: Vec<String> = told.iter().collect();
        assert_eq!(told, ["READY=1\nSTATUS=listening", "STATUS=locked to somebody", "STOPPING=1"]);
    }

    #[test]
    fn watchdog_is_told_of_every_turn_and_of_nothing_else() {
        let (mut service, told) = service(true);
        service.turn("locked");
        service.turn("locked");
        service.turn("locked");
        drop(service);
        let told: Vec<String> = told.iter().collect();
        assert_eq!(told.iter().filter(|text| text.contains("WATCHDOG=1")).count(), 3, "{told:?}");
    }

    #[test]
    fn reload_ends_with_ready() {
        let (mut service, told) = service(false);
        service.turn("locked");
        service.reloading();
        service.turn("locked");
        drop(service);
        let told: Vec<String> = told.iter().collect();
        assert!(told[1].starts_with("RELOADING=1\nMONOTONIC_USEC="), "{told:?}");
        assert_eq!(told[2], "READY=1", "{told:?}");
    }

    #[test]
    fn manager_that_does_not_read_holds_up_nothing() {
        let (block, blocked) = channel::<()>();
        let tell = move |_: &str| {
            let _ = blocked.recv();
            Ok(())
        };
        let mut service = ServiceManager::new(true, tell).unwrap();
        for _ in 0..10 * MAX_WAITING {
            service.turn("locked");
        }
        drop(service);
        drop(block);
    }

    #[test]
    fn without_a_manager_nothing_is_told() {
        let mut service = ServiceManager::default();
        service.turn("locked");
        service.reloading();
        assert!(!service.is_ready);
    }
}
