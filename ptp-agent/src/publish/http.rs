//! What the agent publishes, and the HTTP server that shows it: `/metrics` for Prometheus, `/healthz` for orchestrators and load
//! balancers, `/status` for people and scripts. It runs on a thread of its own, so that no client
//! can hold up time-keeping, and it serves one short request per connection: whoever is slow, sends
//! rubbish or comes in numbers loses its connection and nothing else.

use std::{
    collections::VecDeque,
    convert::Infallible,
    io,
    net::{SocketAddr, TcpListener},
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use bytes::Bytes;
use http_body_util::Full;
use hyper::{
    Method, Request, Response, StatusCode,
    body::Incoming,
    header::{ALLOW, CONTENT_TYPE, HeaderValue},
    server::conn::http1,
    service::service_fn,
};
use hyper_util::rt::{TokioIo, TokioTimer};
use serde::Serialize;

use super::{
    management::Desk,
    metrics::Metrics,
    service::{ServiceThread, serve_clients},
    snapshot::{NtpServed, Snapshot},
};

/// Connections at one time; a further one takes the place of the oldest.
const MAX_CONNECTIONS: usize = 64;
/// Time for the whole header of a request.
const HEADER_TIMEOUT: Duration = Duration::from_secs(5);
/// Time for a whole connection, the client's reading of the answer included.
const CONNECTION_TIMEOUT: Duration = Duration::from_secs(15);
/// Bytes that a request's line and header may have.
const MAX_HEADER_BYTES: usize = 16 * 1024;
/// Header fields that a request may have.
const MAX_HEADER_FIELDS: usize = 64;

/// Points of the recent past that are kept: ten minutes.
const MAX_HISTORY: usize = 600;

/// What the server shows; shared between it and the agent.
#[derive(Clone, Default)]
pub struct Publication {
    /// For `/metrics`.
    pub metrics: Metrics,
    /// For management messages.
    pub management: Desk,
    shared: Arc<Mutex<Shared>>,
}

#[derive(Default)]
struct Shared {
    followed_until: Option<Instant>,
    status: serde_json::Value,
    /// The status as text, made for the first client that wants it.
    status_line: Option<Arc<str>>,
    history: VecDeque<(f64, i64, Option<i64>)>,
    ntp_served: Option<NtpServed>,
}

impl Publication {
    /// Says that a clock is being followed, and that this is so until `until` unless said again: an
    /// agent that hangs or hears nothing becomes unhealthy by itself.
    pub fn set_followed_until(&self, until: Instant) {
        self.lock().followed_until = Some(until);
    }

    /// Says that no clock is followed any more.
    #[cfg(test)]
    fn set_not_followed(&self) {
        self.lock().followed_until = None;
    }

    /// Whether a clock is followed at `now`.
    pub fn is_followed(&self, now: Instant) -> bool {
        self.lock().followed_until.is_some_and(|until| now < until)
    }

    /// Shows a snapshot: on `/status` and the sockets, and its states in the metrics.
    ///
    /// # Errors
    /// When it cannot be written as JSON.
    pub fn publish(&self, mut snapshot: Snapshot) -> serde_json::Result<()> {
        self.metrics.show(&snapshot);
        if let Some(figures) = self.management.figures() {
            snapshot.management = Some((&figures).into());
            self.metrics.set_management(figures);
        }
        if let Some(sets) = snapshot.data_sets.take() {
            self.management.set_data_sets(sets);
        }
        self.set_status(&snapshot)
    }

    /// Sets what `/status` shows.
    ///
    /// # Errors
    /// When `status` cannot be written as JSON.
    pub fn set_status(&self, status: &impl Serialize) -> serde_json::Result<()> {
        let status = serde_json::to_value(status)?;
        let mut shared = self.lock();
        shared.status = status;
        shared.status_line = None;
        Ok(())
    }

    /// Adds a point to the recent past that the status socket tells: seconds since the start, offset
    /// and delay in ns. To be called about once a second.
    pub fn add_history(&self, at_s: f64, offset_ns: i64, delay_ns: Option<i64>) {
        let mut shared = self.lock();
        if shared.history.len() >= MAX_HISTORY {
            shared.history.pop_front();
        }
        shared.history.push_back((at_s, offset_ns, delay_ns));
        shared.status_line = None;
    }

    /// The status with process, version and recent past, as one line.
    pub fn status_line(&self) -> Arc<str> {
        let mut shared = self.lock();
        if let Some(line) = &shared.status_line {
            return Arc::clone(line);
        }
        let mut status = shared.status.clone();
        if let serde_json::Value::Object(fields) = &mut status {
            fields.insert("pid".into(), std::process::id().into());
            fields.insert("version".into(), env!("CARGO_PKG_VERSION").into());
            fields.insert("history".into(), serde_json::json!(shared.history));
        }
        let line: Arc<str> = (status.to_string() + "\n").into();
        shared.status_line = Some(Arc::clone(&line));
        line
    }

    /// Sets how NTP is served, for the next snapshot.
    pub fn set_ntp_served(&self, served: NtpServed) {
        self.lock().ntp_served = Some(served);
    }

    /// How NTP is served; `None` where it is not.
    pub fn ntp_served(&self) -> Option<NtpServed> {
        self.lock().ntp_served.clone()
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Shared> {
        self.shared.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn answer(&self, method: &Method, path: &str) -> Response<Full<Bytes>> {
        if !matches!(*method, Method::GET | Method::HEAD) {
            let mut answer = plain(StatusCode::METHOD_NOT_ALLOWED, "only GET and HEAD\n");
            answer.headers_mut().insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
            return answer;
        }
        match path {
            "/metrics" => match self.metrics.encode() {
                Ok(text) => answer(StatusCode::OK, prometheus::TEXT_FORMAT, text),
                Err(error) => {
                    plain(StatusCode::INTERNAL_SERVER_ERROR, format!("cannot encode: {error}\n"))
                }
            },
            "/healthz" if self.is_followed(Instant::now()) => {
                plain(StatusCode::OK, "following a clock\n")
            }
            "/healthz" => plain(StatusCode::SERVICE_UNAVAILABLE, "following no clock\n"),
            "/status" => {
                let status = self.lock().status.to_string() + "\n";
                answer(StatusCode::OK, "application/json", status)
            }
            "/" => plain(StatusCode::OK, "ptp-agent: /metrics, /healthz, /status\n"),
            _ => plain(StatusCode::NOT_FOUND, "there are /metrics, /healthz and /status\n"),
        }
    }
}

fn plain(status: StatusCode, text: impl Into<Bytes>) -> Response<Full<Bytes>> {
    answer(status, "text/plain; charset=utf-8", text)
}

fn answer(
    status: StatusCode,
    content_type: &'static str,
    body: impl Into<Bytes>,
) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(body.into()));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    response
}

/// Why the server could not be started.
#[derive(Debug, thiserror::Error)]
pub enum HttpError {
    /// Another process listens there.
    #[error(
        "cannot serve metrics on {0}: the address is in use \
         (another agent? choose another one with --metrics-address)"
    )]
    InUse(SocketAddr),
    /// The address does not belong to this host, or may not be used.
    #[error("cannot serve metrics on {address}: {source}")]
    Failed {
        /// The address.
        address: SocketAddr,
        /// What the kernel said.
        source: io::Error,
    },
}

/// A running server; it ends when this is dropped.
#[derive(Debug)]
pub struct Server {
    address: SocketAddr,
    _thread: ServiceThread,
}

impl Server {
    /// Starts to serve `publication` on `address`; port 0 lets the kernel choose.
    ///
    /// # Errors
    /// [`HttpError::InUse`] when somebody else listens there.
    pub fn start(address: SocketAddr, publication: Publication) -> Result<Self, HttpError> {
        let failed = |source: io::Error| match source.kind() {
            io::ErrorKind::AddrInUse => HttpError::InUse(address),
            _ => HttpError::Failed { address, source },
        };
        let listener = TcpListener::bind(address).map_err(failed)?;
        listener.set_nonblocking(true).map_err(failed)?;
        let bound = listener.local_addr().map_err(failed)?;
        let thread =
            ServiceThread::start("http", move || serve(listener, publication)).map_err(failed)?;
        Ok(Self { address: bound, _thread: thread })
    }

    /// Where the server listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }
}

async fn serve(listener: TcpListener, publication: Publication) {
    let listener = match tokio::net::TcpListener::from_std(listener) {
        Ok(listener) => listener,
        Err(error) => {
            tracing::error!("metrics are not served: {error}");
            return;
        }
    };
    let accept = async || Ok(listener.accept().await?.0);
    serve_clients(MAX_CONNECTIONS, accept, |stream| {
        let publication = publication.clone();
        async move {
            let service = service_fn(|request: Request<Incoming>| {
                let answer = publication.answer(request.method(), request.uri().path());
                async { Ok::<_, Infallible>(answer) }
            });
            let connection = http1::Builder::new()
                .timer(TokioTimer::new())
                .header_read_timeout(HEADER_TIMEOUT)
                .max_buf_size(MAX_HEADER_BYTES)
                .max_headers(MAX_HEADER_FIELDS)
                .keep_alive(false)
                .serve_connection(TokioIo::new(stream), service);
            // Neither a broken request nor a client that goes is news to anybody else.
            let _ = tokio::time::timeout(CONNECTION_TIMEOUT, connection).await;
        }
    })
    .await;
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{
        io::{Read, Write},
        net::TcpStream,
    };

    fn server() -> (Server, Publication) {
        let publication = Publication::default();
        let any = SocketAddr::from(([127, 0, 0, 1], 0));
        (Server::start(any, publication.clone()).unwrap(), publication)
    }

    fn exchange(server: &Server, request: &[u8]) -> String {
        let mut stream = TcpStream::connect(server.address()).unwrap();
        stream.set_read_timeout(Some(HEADER_TIMEOUT * 4)).unwrap();
        // The server may have answered and closed before a long request is written.
        let _ = stream.write_all(request);
        let mut answer = Vec::new();
        let _ = stream.read_to_end(&mut answer);
        String::from_utf8_lossy(&answer).into_owned()
    }

    fn get(server: &Server, path: &str) -> String {
        exchange(server, format!("GET {path} HTTP/1.1\r\nHost: a\r\n\r\n").as_bytes())
    }

    #[test]
    fn scrape_has_the_type_and_text_of_prometheus() {
        let (server, publication) = server();
        publication.metrics.set_ring_lost(4);
        let answer = get(&server, "/metrics");
        assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
        assert!(answer.contains("content-type: text/plain; version=0.0.4"), "{answer}");
        assert!(answer.contains("ptp_ring_lost_total 4\n"), "{answer}");
    }

    #[test]
    fn health_is_good_only_while_a_clock_is_followed() {
        let (server, publication) = server();
        assert!(get(&server, "/healthz").starts_with("HTTP/1.1 503 "));
        publication.set_followed_until(Instant::now() + Duration::from_secs(60));
        assert!(get(&server, "/healthz").starts_with("HTTP/1.1 200 "));
        publication.set_followed_until(Instant::now());
        assert!(get(&server, "/healthz").starts_with("HTTP/1.1 503 "));
        publication.set_followed_until(Instant::now() + Duration::from_secs(60));
        publication.set_not_followed();
        assert!(get(&server, "/healthz").starts_with("HTTP/1.1 503 "));
    }

    #[test]
    fn status_is_the_json_that_was_set() {
        let (server, publication) = server();
        publication.set_status(&serde_json::json!({"offset_ns": -3})).unwrap();
        let answer = get(&server, "/status");
        assert!(answer.contains("content-type: application/json"), "{answer}");
        assert!(answer.ends_with("\r\n\r\n{\"offset_ns\":-3}\n"), "{answer}");
    }

    #[test]
    fn other_paths_and_methods_are_refused() {
        let (server, _) = server();
        assert!(get(&server, "/nothing").starts_with("HTTP/1.1 404 "));
        let post = exchange(&server, b"POST /metrics HTTP/1.1\r\nHost: a\r\n\r\n");
        assert!(post.starts_with("HTTP/1.1 405 "), "{post}");
    }

    #[test]
    fn address_in_use_is_one_clear_message() {
        let (server, publication) = server();
        let error = Server::start(server.address(), publication).unwrap_err();
        assert!(matches!(error, HttpError::InUse(_)));
        assert!(error.to_string().contains(&server.address().to_string()), "{error}");
    }

    #[test]
    fn rubbish_gets_an_error_and_the_next_client_its_answer() {
        let (server, _) = server();
        let long = [b"GET /".as_slice(), &[b'a'; 100_000]].concat();
        for rubbish in
            [b"\x16\x03\x01\x02\0\x01\0".as_slice(), b"GET\r\n\r\n", b"\0\0\0\0\r\n", &long]
        {
            let answer = exchange(&server, rubbish);
            assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 4"), "{answer}");
        }
        assert!(get(&server, "/metrics").starts_with("HTTP/1.1 200 "));
    }

    #[test]
    fn slow_and_many_clients_do_not_hold_up_others() {
        let (server, _) = server();
        let slow: Vec<TcpStream> = (0..MAX_CONNECTIONS * 2)
            .map(|_| {
                let mut stream = TcpStream::connect(server.address()).unwrap();
                stream.write_all(b"GET /metr").unwrap();
                stream
            })
            .collect();
        let begin = Instant::now();
        assert!(get(&server, "/metrics").starts_with("HTTP/1.1 200 "));
        assert!(begin.elapsed() < HEADER_TIMEOUT, "waited for {:?}", begin.elapsed());
        drop(slow);
    }

    #[test]
    fn client_that_never_finishes_its_header_is_cut_off() {
        let (server, _) = server();
        let answer = exchange(&server, b"GET /metrics HTTP/1.1\r\n");
        assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 408"), "{answer}");
    }

    #[test]
    fn dropped_server_frees_its_address() {
        let (server, publication) = server();
        let address = server.address();
        drop(server);
        Server::start(address, publication).unwrap();
    }
}
