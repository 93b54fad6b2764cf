//! The connection of a key exchange of NTS (RFC 8915 section 4): TLS 1.3 to TCP port 4460, by rustls, because nobody should
//! write TLS, with ring for its ciphers, which wants no more than a C compiler. It blocks, and is for a thread of its own; a deadline ends it
//! whatever the other end does. What is said in it, and what follows from it, is the engine's.

use std::{
    io::{self, Read, Write},
    net::{SocketAddr, TcpStream, ToSocketAddrs},
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, Instant},
};

use ptp_common::ntp::{PORT, nts as wire};
use rustls::{
    ClientConfig, ClientConnection, RootCertStore,
    pki_types::{CertificateDer, ServerName, pem::PemObject as _},
};
use zeroize::Zeroizing;

use crate::engine::ntp::nts::{Agreement, KeyExchange, KeyExchangeError, Keys, request};

/// For all of it.
const PATIENCE: Duration = Duration::from_secs(15);
/// For the connection to one of the server's addresses.
const CONNECT_PATIENCE: Duration = Duration::from_secs(4);
/// Of a name so many addresses are tried.
const MAX_ADDRESSES: usize = 4;

/// Why nobody can be trusted.
#[derive(Debug, thiserror::Error)]
pub enum TrustError {
    /// The file cannot be read, or is none with certificates.
    #[error("cannot read certificates from {path}: {problem}")]
    File {
        /// Which.
        path: PathBuf,
        /// Why not.
        problem: String,
    },
    /// The system has none.
    #[error(
        "the system has no certificates that a server could be judged by ({0}): name some with --ntp-nts-ca"
    )]
    NoneHere(String),
    /// No session can be made.
    #[error("TLS: {0}")]
    Tls(#[from] rustls::Error),
}

/// Whose certificates are believed: read once, so that nothing has to be read later.
#[derive(Clone, Debug)]
pub struct Trust(Arc<ClientConfig>);

/// That it is the same one.
impl PartialEq for Trust {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}
impl Eq for Trust {}

impl Trust {
    /// The authorities in a file (PEM), or those of the system.
    ///
    /// # Errors
    /// [`TrustError`].
    pub fn new(file: Option<&Path>) -> Result<Self, TrustError> {
        let roots = match file {
            Some(path) => of_file(path)?,
            None => of_system()?,
        };
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&rustls::version::TLS13])?;
        let mut config = config.with_root_certificates(roots).with_no_client_auth();
        config.alpn_protocols = vec![wire::ALPN.to_vec()];
        Ok(Self(Arc::new(config)))
    }
}

fn of_file(path: &Path) -> Result<RootCertStore, TrustError> {
    let failed = |problem: String| TrustError::File { path: path.to_owned(), problem };
    let mut roots = RootCertStore::empty();
    let certificates =
        CertificateDer::pem_file_iter(path).map_err(|error| failed(error.to_string()))?;
    for certificate in certificates {
        let certificate = certificate.map_err(|error| failed(error.to_string()))?;
        roots.add(certificate).map_err(|error| failed(error.to_string()))?;
    }
    if roots.is_empty() {
        return Err(failed("there are none in it".to_owned()));
    }
    Ok(roots)
}

fn of_system() -> Result<RootCertStore, TrustError> {
    let found = rustls_native_certs::load_native_certs();
    let mut roots = RootCertStore::empty();
    // Some systems have very old ones among them that no library takes.
    roots.add_parsable_certificates(found.certs);
    for error in &found.errors {
        tracing::debug!(%error, "certificates of the system");
    }
    if roots.is_empty() {
        let problem = found.errors.first().map_or("none found".to_owned(), ToString::to_string);
        return Err(TrustError::NoneHere(problem));
    }
    Ok(roots)
}

/// Why there are no keys.
#[derive(Debug, thiserror::Error)]
pub enum NtsError {
    /// The name leads nowhere, or not to this kind of server.
    #[error("cannot find {0}: {1}")]
    Name(String, io::Error),
    /// Nobody is there.
    #[error("cannot connect to {0}: {1}")]
    Connect(SocketAddr, io::Error),
    /// Broken off, or too slow.
    #[error("the connection broke: {0}")]
    Broken(io::Error),
    /// The certificate is not good, or they do not understand each other.
    #[error("TLS: {0}")]
    Tls(rustls::Error),
    /// It speaks TLS, but about something else.
    #[error("the server does not do NTS (no ALPN ntske/1)")]
    NotNts,
    /// What it says cannot be heeded.
    #[error(transparent)]
    Answer(#[from] KeyExchangeError),
}

impl NtsError {
    /// Whether a server was there and said no, so that asking again soon is a burden to it.
    pub const fn is_refusal(&self) -> bool {
        matches!(self, Self::Tls(_) | Self::NotNts | Self::Answer(_))
    }
}

impl From<rustls::Error> for NtsError {
    fn from(error: rustls::Error) -> Self {
        Self::Tls(error)
    }
}

/// What came out.
#[derive(Debug)]
pub struct Agreed {
    /// The keys.
    pub keys: Keys,
    /// What to begin with.
    pub cookies: Vec<Vec<u8>>,
    /// Who takes them.
    pub server: SocketAddr,
}

/// Asks a server for keys; blocks for seconds at the most.
///
/// # Errors
/// [`NtsError`].
pub fn exchange(trust: &Trust, host: &str, port: u16) -> Result<Agreed, NtsError> {
    exchange_within(trust, host, port, PATIENCE)
}

fn exchange_within(
    trust: &Trust,
    host: &str,
    port: u16,
    patience: Duration,
) -> Result<Agreed, NtsError> {
    let until = Instant::now() + patience;
    let unnamed = |error: io::Error| NtsError::Name(host.to_owned(), error);
    let name = ServerName::try_from(host.to_owned())
        .map_err(|error| unnamed(io::Error::new(io::ErrorKind::InvalidInput, error)))?;
    let addresses: Vec<_> =
        (host, port).to_socket_addrs().map_err(unnamed)?.take(MAX_ADDRESSES).collect();
    let mut failed = unnamed(io::ErrorKind::NotFound.into());
    for address in addresses {
        let connected = TcpStream::connect_timeout(&address, CONNECT_PATIENCE.min(left(until)));
        let stream = match connected {
            Ok(stream) => stream,
            Err(error) => {
                failed = NtsError::Connect(address, error);
                continue;
            }
        };
        let mut tls = ClientConnection::new(trust.0.clone(), name.clone())?;
        let agreement = speak(&mut tls, Timed { stream, until })?;
        let keys = Keys::new(key(&tls, false)?, key(&tls, true)?);
        let Agreement { cookies, server, port } = agreement;
        let port = port.unwrap_or(PORT);
        let server = match server {
            None => SocketAddr::new(address.ip(), port),
            Some(host) => {
                let unnamed = |error| NtsError::Name(host.clone(), error);
                let found = (host.as_str(), port).to_socket_addrs().map_err(unnamed)?.next();
                found.ok_or_else(|| unnamed(io::ErrorKind::NotFound.into()))?
            }
        };
        return Ok(Agreed { keys, cookies, server });
    }
    Err(failed)
}

fn key(
    tls: &ClientConnection,
    to_client: bool,
) -> Result<Zeroizing<[u8; wire::KEY_LENGTH]>, rustls::Error> {
    let mut key = Zeroizing::new([0; wire::KEY_LENGTH]);
    let context = wire::exporter_context(wire::AES_SIV_CMAC_256, to_client);
    tls.export_keying_material(&mut key[..], wire::EXPORTER_LABEL, Some(&context))?;
    Ok(key)
}

/// What is asked and answered.
fn speak(tls: &mut ClientConnection, mut stream: Timed) -> Result<Agreement, NtsError> {
    // What rustls says comes wrapped, and is what matters.
    let broken = |error: io::Error| match error.downcast::<rustls::Error>() {
        Ok(error) => NtsError::Tls(error),
        Err(error) => NtsError::Broken(error),
    };
    while tls.is_handshaking() {
        tls.complete_io(&mut stream).map_err(broken)?;
    }
    if tls.alpn_protocol() != Some(wire::ALPN) {
        return Err(NtsError::NotNts);
    }
    let mut session = rustls::Stream::new(tls, &mut stream);
    session.write_all(&request()).and_then(|()| session.flush()).map_err(broken)?;
    let mut exchange = KeyExchange::default();
    let mut buffer = [0; 2048];
    loop {
        let length = match session.read(&mut buffer) {
            Ok(0) => return Err(KeyExchangeError::Truncated.into()),
            Ok(length) => length,
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
                return Err(KeyExchangeError::Truncated.into());
            }
            Err(error) => return Err(broken(error)),
        };
        if let Some(agreement) = exchange.take(&buffer[..length])? {
            session.conn.send_close_notify();
            // That it has gone by now is fine.
            let _ = session.conn.write_tls(session.sock);
            return Ok(agreement);
        }
    }
}

fn left(until: Instant) -> Duration {
    // None at all would be taken for no limit.
    until.saturating_duration_since(Instant::now()).max(Duration::from_millis(1))
}

/// A connection that ends at a deadline, however slowly bytes come.
struct Timed {
    stream: TcpStream,
    until: Instant,
}

impl Timed {
    fn check(&self) -> io::Result<()> {
        match Instant::now() < self.until {
            true => Ok(()),
            false => Err(io::ErrorKind::TimedOut.into()),
        }
    }
}

impl Read for Timed {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.check()?;
        self.stream.set_read_timeout(Some(left(self.until)))?;
        self.stream.read(buffer)
    }
}

impl Write for Timed {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.check()?;
        self.stream.set_write_timeout(Some(left(self.until)))?;
        self.stream.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.stream.flush()
    }
}

#[cfg(test)]
mod tests;
