//! The compiled kernel programs under test, and what in this host may prevent a test of them.

use std::{env, fs, path::PathBuf, sync::OnceLock};

use nix::unistd::geteuid;
use ptp_agent::capture::{self, CaptureError, Options, Programs};

/// Where `cargo xtask test` says that it has put the object it just built from source.
const FRESH_OBJECT: &str = "PTP_EBPF_FRESH_OBJECT";

/// An object, and what to call it in messages.
#[derive(Clone, Debug)]
pub struct Object {
    /// For people.
    pub name: String,
    /// The bytes.
    pub bytes: Vec<u8>,
}

/// The committed object, and the freshly built one where there is one.
pub fn objects() -> Vec<Object> {
    let mut objects =
        vec![Object { name: "committed object".into(), bytes: capture::OBJECT.to_vec() }];
    if let Some(path) = env::var_os(FRESH_OBJECT).map(PathBuf::from) {
        let bytes = fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        objects.push(Object { name: path.display().to_string(), bytes });
    }
    objects
}

/// The committed object for measurements.
pub use ptp_agent::bench::OBJECT as BENCH_OBJECT;

/// Whether kernel programs can be loaded here.
///
/// # Errors
/// The reason to skip.
pub fn kernel_programs() -> Result<(), String> {
    static ANSWER: OnceLock<Result<(), String>> = OnceLock::new();
    ANSWER
        .get_or_init(|| match Programs::load(Options::default()) {
            Err(error @ CaptureError::Privilege { .. }) => Err(error.to_string()),
            _ if !geteuid().is_root() => Err("needs root".to_owned()),
            _ => Ok(()),
        })
        .clone()
}
