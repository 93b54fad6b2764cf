//! Asks Prometheus: one query for each hour that spans are of, over plain HTTP, with limits of time and size.

use std::{ops::Range, time::Duration};

use http_body_util::{BodyExt, Limited};
use hyper::{Request, Uri, client::conn::http1, header};
use hyper_util::rt::TokioIo;
use ptp_trace::{
    clocks::{Known, Source},
    names::Names,
    prometheus,
};
use tokio::{net::TcpStream, runtime::Runtime, time::timeout};

/// How long one query may take.
const PATIENCE: Duration = Duration::from_secs(60);
/// The largest answer that is taken, bytes.
const LARGEST: usize = 256 << 20;
/// Queries that may fail one after the other before no more are asked.
const FAILURES: u32 = 3;

/// Why a Prometheus cannot be asked at all.
#[derive(Debug, thiserror::Error)]
pub enum UrlError {
    /// Not over TLS.
    #[error(
        "{0}: only http:// is spoken here; for a Prometheus behind TLS forward a port, as with kubectl \
         port-forward or ssh -L"
    )]
    Scheme(Uri),
    /// No host in it.
    #[error("{0} names no host; a Prometheus is named as in http://127.0.0.1:9090")]
    Host(Uri),
}

/// A Prometheus.
#[derive(Debug)]
pub(super) struct Prometheus {
    url: Uri,
    host: String,
    port: u16,
    label: String,
    matchers: String,
    runtime: Runtime,
    failures: u32,
}

impl Prometheus {
    /// The one at `url`.
    ///
    /// # Errors
    /// [`UrlError`], or when there is no runtime to be had.
    pub(super) fn new(url: &Uri, label: &str, matchers: &str) -> anyhow::Result<Self> {
        if url.scheme_str() != Some("http") {
            return Err(UrlError::Scheme(url.clone()).into());
        }
        let host = url.host().filter(|host| !host.is_empty());
        let host = host.ok_or_else(|| UrlError::Host(url.clone()))?;
        Ok(Self {
            host: host.trim_matches(['[', ']']).to_owned(),
            port: url.port_u16().unwrap_or(80),
            url: url.clone(),
            label: label.to_owned(),
            matchers: matchers.to_owned(),
            runtime: tokio::runtime::Builder::new_current_thread().enable_all().build()?,
            failures: 0,
        })
    }

    async fn ask(&self, query: &str, at_s: i64) -> Result<Vec<u8>, String> {
        let stream = TcpStream::connect((self.host.as_str(), self.port));
        let stream = stream.await.map_err(|error| format!("cannot be reached: {error}"))?;
        let broken = |error: hyper::Error| format!("breaks off: {error}");
        let (mut sender, connection) =
            http1::handshake(TokioIo::new(stream)).await.map_err(broken)?;
        let connection = tokio::spawn(connection);
        let path = self.url.path().trim_end_matches('/');
        let body = format!("query={}&time={at_s}", encoded(query));
        let request = Request::post(format!("{path}/api/v1/query"))
            .header(header::HOST, self.url.authority().map_or("", |authority| authority.as_str()))
            .header(header::CONTENT_TYPE, "application/x-www-form-urlencoded")
            .body(body)
            .map_err(|error| format!("cannot be asked: {error}"))?;
        let response = sender.send_request(request).await.map_err(broken)?;
        let status = response.status();
        let body = Limited::new(response.into_body(), LARGEST).collect().await;
        connection.abort();
        let body = body.map_err(|error| format!("breaks off: {error}"))?.to_bytes();
        // Prometheus says in the body what it does not like; something before it may say anything.
        if !status.is_success() && !body.starts_with(b"{") {
            return Err(format!("answers {status}"));
        }
        Ok(body.to_vec())
    }
}

impl Source for Prometheus {
    fn fetch(
        &mut self,
        window: Range<i64>,
        known: &mut Known,
        grandmasters: &mut Names,
    ) -> Result<(), String> {
        if self.failures >= FAILURES {
            return Err(format!(
                "{}: given up after {FAILURES} queries without an answer",
                self.url
            ));
        }
        let (query, at_s) = prometheus::query(&window, &self.matchers);
        let answer = self.runtime.block_on(async {
            match timeout(PATIENCE, self.ask(&query, at_s)).await {
                Ok(answer) => answer,
                Err(_) => Err(format!("does not answer within {} s", PATIENCE.as_secs())),
            }
        });
        let taken =
            answer.and_then(|answer| prometheus::take(&answer, &self.label, known, grandmasters));
        match taken {
            Ok(_) => {
                self.failures = 0;
                Ok(())
            }
            Err(what) => {
                self.failures += 1;
                Err(format!("{}: {what}", self.url))
            }
        }
    }
}

/// For a form: everything but letters, digits and a few marks as percent and hexadecimal.
fn encoded(text: &str) -> String {
    let mut encoded = String::with_capacity(2 * text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-_.~".contains(&byte) {
            encoded.push(char::from(byte));
        } else {
            encoded.push_str(&format!("%{byte:02X}"));
        }
    }
    encoded
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{
        io::{Read as _, Write as _},
        net::TcpListener,
        thread,
    };

    /// A server that answers each connection with one of `answers`, and where it is.
    fn server(answers: Vec<String>) -> Uri {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        thread::spawn(move || {
            for answer in answers {
                let (mut stream, _) = listener.accept().unwrap();
                let mut request = [0; 4096];
                let _ = stream.read(&mut request);
                let _ = stream.write_all(answer.as_bytes());
            }
        });
        format!("http://{address}/prefix/").parse().unwrap()
    }

    fn fetch(prometheus: &mut Prometheus) -> Result<(), String> {
        let window = 0..3_600_000_000_000;
        prometheus.fetch(window, &mut Known::default(), &mut Names::default())
    }

    #[test]
    fn answers_are_taken_and_every_failure_is_said_in_words() {
        let answer = |status: &str, body: &str, length: usize| {
            format!("HTTP/1.1 {status}\r\nContent-Length: {length}\r\n\r\n{body}")
        };
        let whole = |status: &str, body: &str| answer(status, body, body.len());
        let url = server(vec![
            whole("200 OK", r#"{"status":"success","data":{"resultType":"matrix","result":[]}}"#),
            whole("422 no", r#"{"status":"error","error":"too many"}"#),
            whole("502 Bad Gateway", "<html>"),
            answer("200 OK", "{", 9),
        ]);
        let mut prometheus = Prometheus::new(&url, "instance", "").unwrap();
        assert_eq!(fetch(&mut prometheus), Ok(()));
        for words in ["too many", "502", "breaks off"] {
            let error = fetch(&mut prometheus).unwrap_err();
            assert!(error.contains(words), "{error}");
        }
        assert!(fetch(&mut prometheus).unwrap_err().contains("given up"));
    }

    #[test]
    fn one_that_is_away_is_said_to_be() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap()).parse().unwrap();
        drop(listener);
        let mut prometheus = Prometheus::new(&url, "instance", "").unwrap();
        assert!(fetch(&mut prometheus).unwrap_err().contains("cannot be reached"));
    }

    #[test]
    fn what_cannot_be_spoken_is_refused_with_what_to_do() {
        let new = |url: &'static str| Prometheus::new(&Uri::from_static(url), "instance", "");
        assert!(new("https://prometheus").unwrap_err().to_string().contains("port-forward"));
        assert!(new("prometheus:9090").unwrap_err().to_string().contains("http://"));
    }

    #[test]
    fn queries_are_encoded_for_a_form() {
        assert_eq!(encoded("a=~\"b|c\"[1s]"), "a%3D~%22b%7Cc%22%5B1s%5D");
    }
}
