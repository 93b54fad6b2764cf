//! Servers that are as they should be, and such that are not, each for one connection on loopback.

use std::{net::TcpListener, thread};

use rcgen::{
    BasicConstraints, CertificateParams, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    date_time_ymd,
};
use rustls::{ServerConfig, ServerConnection, pki_types::PrivateKeyDer};

use super::*;

struct Authority {
    issuer: Issuer<'static, KeyPair>,
    file: tempfile::NamedTempFile,
}

impl Authority {
    fn new() -> Self {
        let mut params = CertificateParams::new(Vec::<String>::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().unwrap();
        let certificate = params.self_signed(&key).unwrap();
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(certificate.pem().as_bytes()).unwrap();
        Self { issuer: Issuer::new(params, key), file }
    }

    fn trust(&self) -> Trust {
        Trust::new(Some(self.file.path())).unwrap()
    }

    /// A server with a certificate for `name`.
    fn server(&self, name: &str, is_expired: bool) -> ServerConfig {
        let mut params = CertificateParams::new([name.to_owned()]).unwrap();
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        if is_expired {
            params.not_after = date_time_ymd(2020, 1, 1);
        }
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        let key = PrivateKeyDer::try_from(key.serialize_der()).unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = ServerConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&rustls::version::TLS13])
            .unwrap();
        let chain = vec![certificate.der().clone()];
        let mut config = config.with_no_client_auth().with_single_cert(chain, key).unwrap();
        config.alpn_protocols = vec![wire::ALPN.to_vec()];
        config
    }
}

/// Answers one connection, and says which keys it has, to the client.
fn serve(config: ServerConfig, answer: Vec<u8>) -> (u16, thread::JoinHandle<Option<[u8; 32]>>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let thread = thread::spawn(move || {
        let (mut stream, _) = listener.accept().ok()?;
        let mut tls = ServerConnection::new(Arc::new(config)).ok()?;
        let mut session = rustls::Stream::new(&mut tls, &mut stream);
        let mut asked = vec![0; request().len()];
        session.read_exact(&mut asked).ok()?;
        assert_eq!(asked, request());
        session.write_all(&answer).ok()?;
        session.flush().ok()?;
        let context = wire::exporter_context(wire::AES_SIV_CMAC_256, true);
        tls.export_keying_material([0; 32], wire::EXPORTER_LABEL, Some(&context)).ok()
    });
    (port, thread)
}

/// Protocol, algorithm, cookie, port and end.
fn answer() -> Vec<u8> {
    let cookie = [&[0, 5, 0, 100][..], &[7; 100]].concat();
    [&[0x80, 1, 0, 2, 0, 0, 0, 4, 0, 2, 0, 15][..], &cookie, &[0, 7, 0, 2, 4, 1, 0x80, 0, 0, 0]]
        .concat()
}

fn asked(trust: &Trust, config: ServerConfig, answer: Vec<u8>) -> Result<Agreed, NtsError> {
    let (port, thread) = serve(config, answer);
    let outcome = exchange_within(trust, "127.0.0.1", port, Duration::from_secs(10));
    thread.join().unwrap();
    outcome
}

#[test]
fn a_server_with_a_good_certificate_gives_keys_and_cookies() {
    let authority = Authority::new();
    let (port, thread) = serve(authority.server("127.0.0.1", false), answer());
    let agreed = exchange(&authority.trust(), "127.0.0.1", port).unwrap();
    assert_eq!(agreed.cookies, [[7; 100]]);
    assert_eq!(agreed.server, "127.0.0.1:1025".parse().unwrap());
    assert!(thread.join().unwrap().is_some_and(|key| key != [0; 32]));
}

#[test]
fn a_certificate_that_is_not_good_gives_no_keys() {
    let authority = Authority::new();
    let trust = authority.trust();
    let other = Authority::new();
    for (what, config) in [
        ("another name", authority.server("192.0.2.1", false)),
        ("too old", authority.server("127.0.0.1", true)),
        ("another authority", other.server("127.0.0.1", false)),
    ] {
        let error = asked(&trust, config, answer()).unwrap_err();
        let is_certificate = matches!(&error, NtsError::Tls(rustls::Error::InvalidCertificate(_)));
        assert!(is_certificate && error.is_refusal(), "{what}: {error}");
    }
}

#[test]
fn who_speaks_of_something_else_gives_no_keys() {
    let authority = Authority::new();
    let trust = authority.trust();
    let good = || authority.server("127.0.0.1", false);
    let mut web = good();
    web.alpn_protocols.clear();
    assert!(matches!(asked(&trust, web, answer()), Err(NtsError::NotNts)));
    let mut web = good();
    web.alpn_protocols = vec![b"h2".to_vec()];
    assert!(matches!(asked(&trust, web, answer()), Err(NtsError::Tls(_))));
    let refusal = vec![0x80, 2, 0, 2, 0, 1, 0x80, 0, 0, 0];
    let error = asked(&trust, good(), refusal).unwrap_err();
    assert!(matches!(error, NtsError::Answer(KeyExchangeError::Refused(1))), "{error}");
    let half = answer()[..20].to_vec();
    let error = asked(&trust, good(), half).unwrap_err();
    assert!(matches!(error, NtsError::Answer(KeyExchangeError::Truncated)), "{error}");
}

#[test]
fn nobody_there_and_somebody_who_only_listens_end_in_time() {
    let authority = Authority::new();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let patience = Duration::from_millis(100);
    let error = exchange_within(&authority.trust(), "127.0.0.1", port, patience).unwrap_err();
    assert!(matches!(error, NtsError::Broken(_)) && !error.is_refusal(), "{error}");
    drop(listener);
    let error = exchange(&authority.trust(), "127.0.0.1", port).unwrap_err();
    assert!(matches!(error, NtsError::Connect(..)) && !error.is_refusal(), "{error}");
    let error = exchange(&authority.trust(), "no host", port).unwrap_err();
    assert!(matches!(error, NtsError::Name(..)), "{error}");
}

#[test]
fn a_file_without_certificates_is_said_to_be_one() {
    let file = tempfile::NamedTempFile::new().unwrap();
    for path in [file.path(), Path::new("/nonexistent/authority.pem")] {
        let error = Trust::new(Some(path)).unwrap_err().to_string();
        assert!(error.contains(&path.display().to_string()), "{error}");
    }
}
