//! Numbers that nobody can guess, from the kernel.

use std::{
    fs::File,
    io::{self, Read as _},
};

/// `N` bytes.
///
/// # Errors
/// Where /dev/urandom cannot be read.
pub(crate) fn bytes<const N: usize>() -> io::Result<[u8; N]> {
    let mut bytes = [0; N];
    File::open("/dev/urandom")?.read_exact(&mut bytes)?;
    Ok(bytes)
}
