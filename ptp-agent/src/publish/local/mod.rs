//! The agent's Unix sockets: one that tells its status to whoever connects, and one that answers
//! linuxptp's management messages. Each runs on a thread of its own and only reads what was
//! published, so no client can hold up time-keeping: the number of clients and the time of each are
//! limited, requests are not even read where none is needed, and an answer that its client does not
//! take is dropped.

mod file;

use std::{
    io::{self, Read},
    os::{
        linux::net::SocketAddrExt,
        unix::net::{SocketAddr, UnixDatagram, UnixListener, UnixStream},
    },
    path::{Path, PathBuf},
    time::Duration,
};

use tokio::io::AsyncWriteExt;

use super::{
    http::Publication,
    management::{Access, Answer, Desk, Outcome, Responder},
    service::{Pace, ServiceThread, serve_clients},
};
use crate::{
    security::{Associations, MAX_SEALED, Policy, Trust},
    sys::clock::monotonic,
};
pub use file::{DIRECTORY, SocketError};
use file::{SocketFile, clean_directory, sockets};

/// Clients at one time; a further one takes the place of the oldest.
const MAX_CLIENTS: usize = 32;
/// Time for a client to take its answer.
const CLIENT_TIMEOUT: Duration = Duration::from_secs(2);
/// Longest management message that is looked at.
const MAX_REQUEST: usize = 2048;
/// An agent's status is not longer.
const MAX_STATUS: u64 = 4 << 20;
/// How long [`read_status`] waits for an agent.
const READ_TIMEOUT: Duration = Duration::from_secs(5);

/// Where the status is told.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum StatusSocket {
    /// In [`DIRECTORY`], named after the process, if that can be done.
    #[default]
    Default,
    /// Here.
    At(PathBuf),
    /// Nowhere.
    Off,
}

impl StatusSocket {
    /// The path, if there is to be one.
    pub fn path(&self) -> Option<PathBuf> {
        match self {
            Self::Off => None,
            Self::At(path) => Some(path.clone()),
            Self::Default => {
                Some(Path::new(DIRECTORY).join(format!("{}.sock", std::process::id())))
            }
        }
    }
}

impl std::str::FromStr for StatusSocket {
    type Err = std::convert::Infallible;
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Ok(match text {
            "none" => Self::Off,
            path => Self::At(path.into()),
        })
    }
}

/// The running status socket; it ends and its file vanishes when this is dropped.
#[derive(Debug)]
pub struct StatusServer {
    _thread: ServiceThread,
    _file: SocketFile,
}

impl StatusServer {
    /// Starts to tell the status of `publication` at `path`; in [`DIRECTORY`], what killed agents have
    /// left is removed.
    ///
    /// # Errors
    /// [`SocketError`].
    pub fn start(path: &Path, publication: &Publication) -> Result<Self, SocketError> {
        if path.parent() == Some(Path::new(DIRECTORY)) {
            clean_directory();
        }
        let (listener, file) = SocketFile::listen(path)?;
        let publication = publication.clone();
        let failed = |source| SocketError::Failed { what: "status", path: path.to_owned(), source };
        listener
            .set_nonblocking(true)
            .and_then(|()| ServiceThread::start("status", || tell_status(listener, publication)))
            .map(|thread| Self { _thread: thread, _file: file })
            .map_err(failed)
    }
}

/// The running management socket; it ends and its file vanishes when this is dropped.
#[derive(Debug)]
pub struct ManagementServer {
    _thread: ServiceThread,
    _file: SocketFile,
}

impl ManagementServer {
    /// Starts to answer management messages with the data sets of `publication`. Where those who ask
    /// may set something, the socket is for the agent's user alone. With keys, a request that is signed must
    /// be so by one of them and is answered signed; where they are required, others are not answered.
    ///
    /// # Errors
    /// [`SocketError`].
    pub fn start(
        path: &Path,
        access: Access,
        security: Option<Policy>,
        publication: &Publication,
    ) -> Result<Self, SocketError> {
        let (socket, file) = SocketFile::datagrams(path, access)?;
        let publication = publication.clone();
        let failed =
            |source| SocketError::Failed { what: "management", path: path.to_owned(), source };
        // A full buffer of one client would make the runtime's socket unready for all: answers go out
        // by a second handle, which does not wait either.
        let sender = socket.try_clone().map_err(failed)?;
        socket
            .set_nonblocking(true)
            .and_then(|()| {
                ServiceThread::start("management", move || {
                    let keys = security.map(Associations::new);
                    answer_management(socket, sender, access, keys, publication)
                })
            })
            .map(|thread| Self { _thread: thread, _file: file })
            .map_err(failed)
    }
}

/// A local datagram socket that others send to; its file vanishes when this is dropped.
#[derive(Debug)]
pub struct Mailbox {
    socket: UnixDatagram,
    _file: SocketFile,
}

impl Mailbox {
    /// At `path`; everybody on the host may send. Nothing is waited for longer than `patience`.
    ///
    /// # Errors
    /// [`SocketError`].
    pub fn open(path: &Path, patience: Duration) -> Result<Self, SocketError> {
        let (socket, file) = SocketFile::datagrams(path, Access::ReadOnly)?;
        let failed =
            |source| SocketError::Failed { what: "slave event", path: path.to_owned(), source };
        socket.set_read_timeout(Some(patience)).map_err(failed)?;
        Ok(Self { socket, _file: file })
    }

    /// The length of the next message; `None` where none comes in time.
    pub fn receive(&self, bytes: &mut [u8]) -> Option<usize> {
        self.socket.recv(bytes).ok()
    }
}

async fn tell_status(listener: UnixListener, publication: Publication) {
    let listener = match tokio::net::UnixListener::from_std(listener) {
        Ok(listener) => listener,
        Err(error) => {
            tracing::error!("the status is not told: {error}");
            return;
        }
    };
    let accept = async || Ok(listener.accept().await?.0);
    serve_clients(MAX_CLIENTS, accept, |mut stream| {
        let status = publication.status_line();
        async move {
            let writing = async {
                stream.write_all(status.as_bytes()).await?;
                stream.shutdown().await
            };
            // A client that has gone, or does not read, is no news to anybody.
            let _ = tokio::time::timeout(CLIENT_TIMEOUT, writing).await;
        }
    })
    .await;
}

async fn answer_management(
    socket: UnixDatagram,
    sender: UnixDatagram,
    access: Access,
    keys: Option<Associations>,
    publication: Publication,
) {
    let socket = match tokio::net::UnixDatagram::from_std(socket) {
        Ok(socket) => socket,
        Err(error) => {
            tracing::error!("management messages are not answered: {error}");
            return;
        }
    };
    let desk = publication.management.clone();
    let mut managing = Managing { responder: Responder::new(access, 0), sender, keys, desk };
    // Nobody can subscribe there, and what happens is for those who have done so elsewhere.
    let has_subscribers = access != Access::Public;
    if has_subscribers {
        managing.desk.set_subscribed(0, 0);
    }
    let desk = managing.desk.clone();
    let mut request = [0; MAX_REQUEST];
    let mut pace = Pace::new();
    loop {
        tokio::select! {
            received = async {
                pace.next().await;
                socket.recv_from(&mut request).await
            } => match received {
                Ok((length, from)) => managing.answer(&request[..length], Place::of(&from)),
                Err(_) => tokio::time::sleep(Duration::from_millis(100)).await,
            },
            () = desk.woken(), if has_subscribers => managing.tell(),
        }
        if has_subscribers {
            let wanted = managing.responder.wanted(monotonic());
            desk.set_subscribed(wanted, managing.responder.subscribers());
        }
    }
}

/// Where somebody is who can be answered.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Place {
    Path(PathBuf),
    /// In the abstract namespace.
    Name(Vec<u8>),
}

impl Place {
    fn of(address: &tokio::net::unix::SocketAddr) -> Option<Self> {
        let path = address.as_pathname().map(|path| Self::Path(path.to_owned()));
        path.or_else(|| address.as_abstract_name().map(|name| Self::Name(name.to_owned())))
    }
}

/// Who asks, and whether that was signed.
#[derive(Clone, Debug)]
struct Asker {
    place: Place,
    is_verified: bool,
}

/// The answering of management messages.
struct Managing {
    responder: Responder<Asker>,
    sender: UnixDatagram,
    keys: Option<Associations>,
    desk: Desk,
}

impl Managing {
    fn answer(&mut self, request: &[u8], from: Option<Place>) {
        let Some(place) = from else { return self.desk.count(Outcome::Malformed) };
        let Some(sets) = self.desk.data_sets() else { return };
        let trust = self.keys.as_ref().map(|keys| keys.open_local(request));
        if matches!(trust, Some(Err(_))) {
            return self.desk.count(Outcome::Unauthenticated);
        }
        let is_verified = trust == Some(Ok(Trust::Verified));
        let asker = Asker { place, is_verified };
        let now = monotonic();
        let Answer { messages, setting, outcome } =
            self.responder.answer(now, request, &asker, &sets);
        self.desk.count(outcome);
        if let Some(setting) = setting {
            tracing::info!(?setting, "set through the management socket");
            if !self.desk.add_setting(setting) {
                tracing::warn!(?setting, "not set: too many settings wait");
            }
        }
        for message in messages {
            if self.send(&message, &asker).is_err() {
                self.desk.count(Outcome::NotTaken);
            }
        }
    }

    /// Tells those who have subscribed what has happened.
    fn tell(&mut self) {
        let Some(sets) = self.desk.data_sets() else { return };
        for happening in self.desk.take_happenings() {
            for (asker, message) in self.responder.tell(monotonic(), &happening, &sets) {
                let sent = self.send(&message, &asker);
                self.desk.count_told(sent.is_ok());
                let is_gone = |error: &io::Error| {
                    matches!(
                        error.kind(),
                        io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused
                    )
                };
                if sent.as_ref().is_err_and(is_gone) {
                    self.responder.forget(|each| each.place == asker.place);
                }
            }
        }
    }

    /// Whose buffer is full does not read.
    fn send(&self, message: &[u8], to: &Asker) -> io::Result<usize> {
        let mut sealed = [0; MAX_SEALED];
        let message = match self.keys.as_ref().filter(|_| to.is_verified) {
            Some(keys) => keys.seal(message, &mut sealed).unwrap_or_default(),
            None => message,
        };
        match &to.place {
            Place::Path(path) => self.sender.send_to(message, path),
            Place::Name(name) => {
                self.sender.send_to_addr(message, &SocketAddr::from_abstract_name(name)?)
            }
        }
    }
}

/// Why there is no status to show.
#[derive(Debug, thiserror::Error)]
pub enum StatusError {
    /// No agent has a socket in the usual place.
    #[error(
        "no running agent has a status socket in {DIRECTORY}; is one running? \
         (otherwise name its socket with --status-socket)"
    )]
    NoAgent,
    /// Nobody to ask.
    #[error("cannot ask the agent at {path}: {source}")]
    Ask {
        /// The socket.
        path: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
    /// Somebody else's socket.
    #[error("what {path} answers is no status of an agent: {source}")]
    Answer {
        /// The socket.
        path: PathBuf,
        /// What is wrong with it.
        source: serde_json::Error,
    },
}

/// The sockets of the agents that run here, as far as they are in the usual place.
///
/// # Errors
/// [`StatusError::NoAgent`].
pub fn running() -> Result<Vec<PathBuf>, StatusError> {
    let living: Vec<PathBuf> =
        sockets().into_iter().filter(|path| !file::is_abandoned(path)).collect();
    if living.is_empty() { Err(StatusError::NoAgent) } else { Ok(living) }
}

/// Asks an agent for its status; takes seconds at the most.
///
/// # Errors
/// [`StatusError`].
pub fn read_status(path: &Path) -> Result<serde_json::Value, StatusError> {
    let ask = || {
        let stream = UnixStream::connect(path)?;
        stream.set_read_timeout(Some(READ_TIMEOUT))?;
        let mut answer = Vec::new();
        stream.take(MAX_STATUS).read_to_end(&mut answer)?;
        Ok(answer)
    };
    let answer = ask().map_err(|source| StatusError::Ask { path: path.to_owned(), source })?;
    serde_json::from_slice(&answer)
        .map_err(|source| StatusError::Answer { path: path.to_owned(), source })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::publish::management::tests::data_sets;
    use std::io::Write;

    type Servers = (StatusServer, ManagementServer);

    fn started(directory: &Path) -> (Servers, Publication, PathBuf, PathBuf) {
        let publication = Publication::default();
        let (status, management) = (directory.join("status"), directory.join("management"));
        let teller = StatusServer::start(&status, &publication).unwrap();
        let sockets = (
            teller,
            ManagementServer::start(&management, Access::ReadOnly, None, &publication).unwrap(),
        );
        (sockets, publication, status, management)
    }

    #[test]
    fn status_is_told_with_the_history_and_files_vanish_at_the_end() {
        let directory = tempfile::tempdir().unwrap();
        let (sockets, publication, status, management) = started(directory.path());
        publication.set_status(&serde_json::json!({"command": "run", "offset_ns": 5})).unwrap();
        publication.add_history(1.0, 5, Some(4_000));
        let answer = read_status(&status).unwrap();
        assert_eq!((&answer["offset_ns"], &answer["history"][0][1]), (&5.into(), &5.into()));
        drop(sockets);
        assert!(!status.exists() && !management.exists());
        assert!(matches!(read_status(&status), Err(StatusError::Ask { .. })));
    }

    #[test]
    fn clients_that_do_not_read_or_talk_nonsense_hold_nobody_up() {
        let directory = tempfile::tempdir().unwrap();
        let (_sockets, publication, status, _) = started(directory.path());
        // More than a socket buffer takes.
        let long = "x".repeat(1 << 20);
        publication.set_status(&serde_json::json!({ "long": long })).unwrap();
        let idle: Vec<UnixStream> = (0..MAX_CLIENTS * 2)
            .map(|_| {
                let mut stream = UnixStream::connect(&status).unwrap();
                let _ = stream.write_all(b"\0GET / HTTP/1.1\r\n\r\n");
                stream
            })
            .collect();
        assert_eq!(read_status(&status).unwrap()["long"], long);
        drop(idle);
    }

    #[test]
    fn management_requests_are_answered_and_rubbish_is_not() {
        let directory = tempfile::tempdir().unwrap();
        let (_sockets, publication, _, management) = started(directory.path());
        publication.management.set_data_sets(data_sets());
        let client = UnixDatagram::bind(directory.path().join("client")).unwrap();
        client.set_read_timeout(Some(READ_TIMEOUT)).unwrap();
        client.send_to(b"rubbish", &management).unwrap();
        client.send_to(&[0; MAX_REQUEST + 100], &management).unwrap();
        // GET PRIORITY1 to all ports of all clocks.
        let mut request = vec![0x0d, 0x02, 0, 54];
        request.resize(34, 0);
        request.extend([0xff; 10]);
        request.extend([0, 0, 0, 0, 0, 1, 0, 2, 0x20, 0x05]);
        client.send_to(&request, &management).unwrap();
        let mut answer = [0; 512];
        let length = client.recv(&mut answer).unwrap();
        assert_eq!(answer[length - 4..length], [0x20, 0x05, 128, 0]);
    }

    #[test]
    fn client_whose_buffer_is_full_loses_answers_and_nobody_else_does() {
        let directory = tempfile::tempdir().unwrap();
        let (_sockets, publication, _, management) = started(directory.path());
        publication.management.set_data_sets(data_sets());
        let mut request = vec![0x0d, 0x02, 0, 54];
        request.resize(34, 0);
        request.extend([0xff; 10]);
        request.extend([0, 0, 0, 0, 0, 1, 0, 2, 0xc0, 0x05]);
        let idle = UnixDatagram::bind(directory.path().join("idle")).unwrap();
        idle.set_write_timeout(Some(READ_TIMEOUT)).unwrap();
        for _ in 0..1000 {
            idle.send_to(&request, &management).unwrap();
        }
        let client = UnixDatagram::bind(directory.path().join("client")).unwrap();
        client.set_read_timeout(Some(READ_TIMEOUT)).unwrap();
        client.send_to(&request, &management).unwrap();
        assert!(client.recv(&mut [0; 512]).is_ok());
    }

    #[test]
    fn socket_that_cannot_be_made_is_named() {
        let (publication, nowhere) = (Publication::default(), Path::new("/proc/none/socket"));
        let error = StatusServer::start(nowhere, &publication).unwrap_err();
        assert!(error.to_string().contains("the status socket /proc/none/socket"), "{error}");
        let error =
            ManagementServer::start(nowhere, Access::ReadOnly, None, &publication).unwrap_err();
        assert!(error.to_string().contains("the management socket /proc/none/socket"), "{error}");
    }
}
