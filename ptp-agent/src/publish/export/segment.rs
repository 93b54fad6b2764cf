//! A file that is mapped by others while this agent writes it: opened with care, and by one writer.

use std::{
    fs::{File, OpenOptions},
    io::{self, Read},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
};

use nix::fcntl::{Flock, FlockArg};

use crate::sys::{confine, shared::SharedMemory};

/// Why something cannot be exported.
#[derive(Debug, thiserror::Error)]
pub enum SegmentError {
    /// The file cannot be made, opened or mapped.
    #[error("cannot {attempt} {path}: {error}; its directory must exist and be writable")]
    File {
        /// What was attempted.
        attempt: &'static str,
        /// Which file.
        path: PathBuf,
        /// What the kernel said.
        error: io::Error,
    },
    /// Another program writes it.
    #[error(
        "{0} is written by another program (a lock is on it): stop that, or choose another path"
    )]
    OtherWriter(PathBuf),
    /// It holds something else.
    #[error(
        "{path} is no {what}, but something else of {length} bytes: remove it, or choose another path"
    )]
    SomethingElse {
        /// Which file.
        path: PathBuf,
        /// What it should have been.
        what: &'static str,
        /// Its length.
        length: u64,
    },
    /// A System V segment.
    #[error(
        "cannot attach the shared memory of NTP unit {unit} (key {key:#x}): {error}; is another program's segment there, of another size or owner? See ipcs -m"
    )]
    Attach {
        /// The unit.
        unit: u8,
        /// Its key.
        key: i32,
        /// What the kernel said.
        error: io::Error,
    },
    /// A System V segment that others could write to.
    #[error(
        "the shared memory of NTP unit {unit} (key {key:#x}) is {problem}: others could set the clock by it. Remove it (ipcrm -M {key:#x}) and start the agent before the daemon, or use another unit"
    )]
    Untrusted {
        /// The unit.
        unit: u8,
        /// Its key.
        key: i32,
        /// What is wrong.
        problem: String,
    },
    /// A socket.
    #[error("cannot open a socket for {path}: {error}")]
    Socket {
        /// Where it was to send to.
        path: PathBuf,
        /// What the kernel said.
        error: io::Error,
    },
}

/// The file, mapped, and the lock on it.
#[derive(Debug)]
pub(super) struct Segment {
    pub(super) memory: SharedMemory,
    _lock: Flock<File>,
}

impl Segment {
    /// Opens or makes the file at `path`, which is to hold `bytes` that begin with `magic`. It stays
    /// behind at the end, so that programs that have it mapped go on with the next writer.
    pub(super) fn open(
        path: &Path,
        bytes: usize,
        magic: [u8; 8],
        what: &'static str,
    ) -> Result<Self, SegmentError> {
        let failed = |attempt| {
            let path = path.to_owned();
            move |error| SegmentError::File { attempt, path, error }
        };
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o644)
            .custom_flags(libc::O_NOFOLLOW)
            .open(path)
            .map_err(failed("open"))?;
        // Whose it is could change it, and with it what others take for the time.
        confine::check_own_file(&file).map_err(failed("trust"))?;
        let mut lock = match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
            Ok(lock) => lock,
            Err((_, nix::Error::EWOULDBLOCK)) => {
                return Err(SegmentError::OtherWriter(path.to_owned()));
            }
            Err((_, error)) => return Err(failed("lock")(error.into())),
        };
        let length = lock.metadata().map_err(failed("look at"))?.len();
        let mut found = [0; 8];
        let is_ours = length == bytes as u64
            && lock.read_exact(&mut found).is_ok()
            && (found == magic || found == [0; 8]);
        if length != 0 && !is_ours {
            let path = path.to_owned();
            return Err(SegmentError::SomethingElse { path, what, length });
        }
        lock.set_len(bytes as u64).map_err(failed("lengthen"))?;
        let memory = SharedMemory::map(&lock, bytes).map_err(failed("map"))?;
        Ok(Self { memory, _lock: lock })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{
        fs,
        os::unix::fs::{MetadataExt as _, PermissionsExt as _, chown, symlink},
    };

    fn open(path: &Path) -> Result<Segment, SegmentError> {
        Segment::open(path, 64, *b"segment.", "a segment")
    }

    #[test]
    fn segment_is_never_a_file_of_others_nor_behind_a_link() {
        let directory = tempfile::tempdir().unwrap();
        let at = |name: &str| directory.path().join(name);
        let made = open(&at("made")).unwrap();
        let metadata = fs::metadata(at("made")).unwrap();
        assert_eq!(metadata.permissions().mode() & 0o022, 0, "others could write the time");
        assert_eq!(metadata.uid(), nix::unistd::geteuid().as_raw());
        drop(made);
        fs::write(at("precious"), []).unwrap();
        symlink(at("precious"), at("link")).unwrap();
        fs::hard_link(at("precious"), at("name")).unwrap();
        fs::write(at("foreign"), []).unwrap();
        let mut refused = vec!["link", "name"];
        // Only root can give files away.
        if nix::unistd::geteuid().is_root() {
            chown(at("foreign"), Some(12_345), None).unwrap();
            refused.push("foreign");
        }
        for name in refused {
            let error = open(&at(name)).map(drop);
            assert!(matches!(error, Err(SegmentError::File { .. })), "{name}: {error:?}");
        }
        assert_eq!(fs::metadata(at("precious")).unwrap().len(), 0);
        assert!(open(&at("made")).is_ok(), "its own file is taken again");
    }
}
