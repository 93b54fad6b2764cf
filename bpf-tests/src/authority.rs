//! An authority that certifies servers of NTS in tests, in files as chronyd and the agent want them.

use std::{fs, path::Path};

use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};

/// An authority and what it has certified, in a directory of its own.
pub struct Authority {
    issuer: Issuer<'static, KeyPair>,
    directory: tempfile::TempDir,
}

impl Authority {
    /// A new one, whom nobody knows.
    ///
    /// # Panics
    /// If it cannot be made.
    #[expect(clippy::new_without_default, reason = "it makes files")]
    pub fn new() -> Self {
        let mut params = CertificateParams::new(Vec::<String>::new()).expect("no names");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().expect("a key");
        let certificate = params.self_signed(&key).expect("a certificate");
        let directory = tempfile::tempdir().expect("a directory");
        fs::write(directory.path().join("authority.pem"), certificate.pem()).expect("its file");
        Self { issuer: Issuer::new(params, key), directory }
    }

    /// The file by which it is believed.
    pub fn file(&self) -> String {
        self.at("authority.pem")
    }

    /// Files with a key and a certificate for a name or an address.
    ///
    /// # Panics
    /// If it cannot be made.
    pub fn certify(&self, name: &str) -> [String; 2] {
        let params = CertificateParams::new([name.to_owned()]).expect("a name");
        let key = KeyPair::generate().expect("a key");
        let certificate = params.signed_by(&key, &self.issuer).expect("a certificate");
        let files = [("key", key.serialize_pem()), ("certificate", certificate.pem())];
        files.map(|(what, pem)| {
            let file = self.at(&format!("{name}.{what}.pem"));
            fs::write(&file, pem).expect("its file");
            file
        })
    }

    fn at(&self, name: &str) -> String {
        Path::new(self.directory.path()).join(name).display().to_string()
    }
}
