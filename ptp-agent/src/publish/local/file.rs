//! The file of a Unix socket: made where nobody answers any more, never in the way of somebody else,
//! and removed when its owner ends.

use std::{
    fs, io,
    os::unix::{
        fs::{FileTypeExt, MetadataExt, PermissionsExt},
        net::{UnixDatagram, UnixListener, UnixStream},
    },
    path::{Path, PathBuf},
    time::Duration,
};

use crate::publish::management::Access;

/// Where agents put their status sockets unless told otherwise.
pub const DIRECTORY: &str = "/run/ptp-agent";
/// Between making a socket and listening to it much less passes.
const NEW: Duration = Duration::from_secs(1);

/// Everybody may use the socket.
const ALL: u32 = 0o666;
/// The user of the agent may.
const OWNER: u32 = 0o600;

/// Why a socket cannot be made. Time-keeping goes on without it.
#[derive(Debug, thiserror::Error)]
pub enum SocketError {
    /// Somebody answers there.
    #[error("cannot make the {what} socket {path}: another program uses it; choose another path")]
    InUse {
        /// Which socket.
        what: &'static str,
        /// Its path.
        path: PathBuf,
    },
    /// There is something else.
    #[error(
        "cannot make the {what} socket {path}: there is a file that is no socket; choose another path"
    )]
    NoSocket {
        /// Which socket.
        what: &'static str,
        /// Its path.
        path: PathBuf,
    },
    /// The kernel does not want to.
    #[error("cannot make the {what} socket {path}: {source}")]
    Failed {
        /// Which socket.
        what: &'static str,
        /// Its path.
        path: PathBuf,
        /// What it said.
        source: io::Error,
    },
}

/// The file. Removed when this is dropped, unless it has become another one.
#[derive(Debug)]
pub(super) struct SocketFile {
    path: PathBuf,
    inode: (u64, u64),
}

impl SocketFile {
    /// Makes a listening socket.
    pub(super) fn listen(path: &Path) -> Result<(UnixListener, Self), SocketError> {
        // Reading does no harm, and people without privileges have questions too.
        Self::make("status", path, ALL, |path| UnixListener::bind(path))
    }

    /// Makes a datagram socket.
    pub(super) fn datagrams(
        path: &Path,
        access: Access,
    ) -> Result<(UnixDatagram, Self), SocketError> {
        let mode = match access {
            Access::Public | Access::ReadOnly => ALL,
            Access::ReadWrite => OWNER,
        };
        Self::make("management", path, mode, |path| UnixDatagram::bind(path))
    }

    fn make<S>(
        what: &'static str,
        path: &Path,
        mode: u32,
        bind: impl Fn(&Path) -> io::Result<S>,
    ) -> Result<(S, Self), SocketError> {
        let failed = |source| SocketError::Failed { what, path: path.to_owned(), source };
        let socket = match bind(path) {
            Err(error) if error.kind() == io::ErrorKind::AddrInUse => {
                let file = fs::symlink_metadata(path).map_err(failed)?;
                if !file.file_type().is_socket() {
                    return Err(SocketError::NoSocket { what, path: path.to_owned() });
                }
                if !is_abandoned(path) {
                    return Err(SocketError::InUse { what, path: path.to_owned() });
                }
                fs::remove_file(path).map_err(failed)?;
                bind(path).map_err(failed)?
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                // The directory was removed by an agent that has ended, or never was.
                if let Some(directory) = path.parent()
                    && directory == Path::new(DIRECTORY)
                {
                    fs::create_dir_all(directory).map_err(failed)?;
                }
                bind(path).map_err(failed)?
            }
            result => result.map_err(failed)?,
        };
        let file = fs::symlink_metadata(path).map_err(failed)?;
        let this = Self { path: path.to_owned(), inode: (file.dev(), file.ino()) };
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).map_err(failed)?;
        Ok((socket, this))
    }
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        let is_own = fs::symlink_metadata(&self.path)
            .is_ok_and(|file| (file.dev(), file.ino()) == self.inode);
        if is_own {
            // Nobody to tell at the end.
            let _ = fs::remove_file(&self.path);
            if let Some(directory) = self.path.parent()
                && directory == Path::new(DIRECTORY)
            {
                // Stays while others have sockets there.
                let _ = fs::remove_dir(directory);
            }
        }
    }
}

/// Whether nobody answers at a socket: its owner was killed. A datagram socket refuses a stream with
/// another error, so both kinds are tried.
pub(super) fn is_abandoned(path: &Path) -> bool {
    let refused = |error: io::Error| error.kind() == io::ErrorKind::ConnectionRefused;
    let stream = UnixStream::connect(path).map(drop);
    let datagram = UnixDatagram::unbound().and_then(|socket| socket.connect(path));
    stream.is_err_and(refused) || datagram.is_err_and(refused)
}

/// Removes the sockets that killed agents have left in [`DIRECTORY`]. One that has just been made may
/// not listen yet.
pub(super) fn clean_directory() {
    let is_new = |path: &Path| {
        let made = fs::symlink_metadata(path).and_then(|file| file.modified());
        made.is_ok_and(|made| made.elapsed().is_ok_and(|age| age < NEW))
    };
    for path in sockets() {
        if is_abandoned(&path) && !is_new(&path) {
            let _ = fs::remove_file(path);
        }
    }
}

/// The sockets in [`DIRECTORY`], in order.
pub(super) fn sockets() -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir(DIRECTORY) else { return Vec::new() };
    let mut paths: Vec<PathBuf> = entries
        .filter_map(|entry| Some(entry.ok()?.path()))
        .filter(|path| path.extension().is_some_and(|extension| extension == "sock"))
        .collect();
    paths.sort();
    paths
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn socket_of_a_killed_agent_is_replaced_and_that_of_a_living_one_is_not() {
        let directory = tempfile::tempdir().unwrap();
        for datagrams in [false, true] {
            let path = directory.path().join(format!("socket-{datagrams}"));
            let make = || {
                if datagrams {
                    SocketFile::datagrams(&path, Access::ReadOnly).map(|(_, file)| (None, file))
                } else {
                    SocketFile::listen(&path).map(|(socket, file)| (Some(socket), file))
                }
            };
            // The owner was killed: the file stays, nobody answers.
            drop(if datagrams {
                UnixDatagram::bind(&path).map(drop)
            } else {
                UnixListener::bind(&path).map(drop)
            });
            let owner = make().unwrap();
            if !datagrams {
                let error = make().unwrap_err();
                assert!(matches!(error, SocketError::InUse { .. }), "{error}");
                assert!(error.to_string().contains("choose another path"));
            }
            drop(owner);
            assert!(!path.exists());
        }
    }

    #[test]
    fn living_datagram_socket_is_left_alone() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("socket");
        let owner = SocketFile::datagrams(&path, Access::ReadOnly).unwrap();
        assert!(matches!(
            SocketFile::datagrams(&path, Access::ReadOnly),
            Err(SocketError::InUse { .. })
        ));
        drop(owner);
    }

    #[test]
    fn files_that_are_no_sockets_and_missing_directories_are_errors() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("file");
        fs::write(&path, "precious").unwrap();
        let error = SocketFile::listen(&path).unwrap_err();
        assert!(matches!(error, SocketError::NoSocket { .. }), "{error}");
        assert_eq!(fs::read_to_string(&path).unwrap(), "precious");
        let path = directory.path().join("none/socket");
        let error = SocketFile::listen(&path).unwrap_err();
        assert!(error.to_string().contains("none/socket"), "{error}");
    }

    #[test]
    fn file_that_has_become_another_one_is_left() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("socket");
        let (_socket, file) = SocketFile::listen(&path).unwrap();
        fs::remove_file(&path).unwrap();
        // Another inode for sure, as the first file is still open.
        fs::write(&path, "another").unwrap();
        drop(file);
        assert!(path.exists());
    }
}
