//! The frequency that a clock needs, kept in a file from one run to the next, so that a start begins
//! where the last run ended.

use std::{
    fs::{self, OpenOptions},
    io::{self, Read, Write},
    os::unix::fs::OpenOptionsExt,
    path::Path,
};

use crate::sys::confine;

/// Larger files are none of ours, bytes.
const MAX_BYTES: u64 = 128;

/// Why there is nothing to restore.
#[derive(Debug, thiserror::Error)]
pub enum SavedError {
    /// The file cannot be read.
    #[error(transparent)]
    Read(#[from] io::Error),
    /// It holds something else.
    #[error("it does not hold a frequency in parts per billion and nothing else")]
    NoFrequency,
}

/// The frequency in the file, parts per billion; `None` when there is no file.
///
/// # Errors
/// [`SavedError`].
pub fn read(path: &Path) -> Result<Option<f64>, SavedError> {
    // A pipe would keep the start waiting.
    let opened = OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK).open(path);
    let file = match opened {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        file => file?,
    };
    let metadata = file.metadata()?;
    if metadata.len() > MAX_BYTES || !metadata.is_file() {
        return Err(SavedError::NoFrequency);
    }
    confine::check_owner(&file)?;
    let mut text = String::new();
    file.take(MAX_BYTES).read_to_string(&mut text)?;
    let frequency = text.trim().parse().ok().filter(|ppb: &f64| ppb.abs() <= 1e8);
    frequency.map(Some).ok_or(SavedError::NoFrequency)
}

/// Replaces the file as a whole: whoever reads it, and whenever the power goes, finds the old
/// contents or the new.
///
/// # Errors
/// What the file system reports; the old contents are there then.
pub fn write(path: &Path, frequency_ppb: f64) -> io::Result<()> {
    let mut beside = path.as_os_str().to_owned();
    beside.push(".new");
    let beside = Path::new(&beside);
    // What an agent that was killed has left there, or somebody has put there: never written to.
    let _ = fs::remove_file(beside);
    let mut options = OpenOptions::new();
    options.write(true).create_new(true).custom_flags(libc::O_NOFOLLOW).mode(0o644);
    let written = options.open(beside).and_then(|mut file| {
        writeln!(file, "{frequency_ppb:.3}")?;
        file.sync_all()
    });
    let replaced = written.and_then(|()| fs::rename(beside, path));
    if replaced.is_err() {
        // What is left of the attempt; it may not even have begun.
        let _ = fs::remove_file(beside);
    }
    replaced
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_written_is_read_and_nothing_is_left_beside_it() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("frequency");
        assert!(matches!(read(&path), Ok(None)));
        for ppb in [12_345.678, -0.5] {
            write(&path, ppb).unwrap();
            assert_eq!(read(&path).unwrap(), Some(ppb));
        }
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 1);
    }

    #[test]
    fn link_that_somebody_has_put_beside_it_is_not_followed() {
        let directory = tempfile::tempdir().unwrap();
        let at = |name: &str| directory.path().join(name);
        fs::write(at("precious"), "7").unwrap();
        std::os::unix::fs::symlink(at("precious"), at("frequency.new")).unwrap();
        write(&at("frequency"), 1.5).unwrap();
        assert_eq!(fs::read_to_string(at("precious")).unwrap(), "7");
        assert_eq!(read(&at("frequency")).unwrap(), Some(1.5));
    }

    #[test]
    fn other_contents_are_refused() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("frequency");
        for text in ["", "NaN", "inf", "1e9", "12 13", &"1".repeat(200)] {
            fs::write(&path, text).unwrap();
            assert!(matches!(read(&path), Err(SavedError::NoFrequency)), "{text:?}");
        }
        assert!(read(directory.path()).is_err());
    }
}
