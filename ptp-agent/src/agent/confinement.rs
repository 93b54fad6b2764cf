//! When a running command gives up what, and which files are its business: those of its configuration, its
//! keys, its sockets and exports, and what the kernel tells of itself. Files are given up before any thread
//! is started, system calls when everything has been opened and attached once.

use std::path::{Path, PathBuf};

use super::services::Serving;
use crate::{
    publish::{export::Exporting, local::DIRECTORY},
    sys::confine::{self, Files},
};

/// What the kernel, the C library and the administrator tell: read, and nothing else.
const READ: [&str; 7] = [
    "/proc",
    "/sys",
    "/etc",
    "/dev",
    "/usr/lib",
    "/usr/share/zoneinfo",
    // Where links in /etc/ssl/certs lead.
    "/usr/share/ca-certificates",
];

/// Where sockets and exports are wont to be: another configuration may put them there while a command runs.
const RUNTIME: [&str; 2] = ["/run", "/dev/shm"];

/// What a command reads and writes besides.
#[derive(Clone, Debug, Default)]
pub struct Business<'a> {
    /// Configuration and keys; whoever changes them may replace them.
    pub read: Vec<&'a Path>,
    /// Its sockets.
    pub serving: Option<&'a Serving>,
    /// What other programs are given.
    pub exporting: Option<&'a Exporting>,
    /// Files that are replaced as a whole.
    pub replaced: Vec<&'a Path>,
}

impl Business<'_> {
    fn files(&self) -> Files {
        let mut read: Vec<PathBuf> = READ.iter().map(PathBuf::from).collect();
        read.extend(self.read.iter().filter_map(|path| directory(path)));
        let status = self.serving.and_then(|serving| serving.status_socket.path());
        let mut written: Vec<&Path> = self.replaced.clone();
        written.extend(status.as_deref());
        let sockets = self.serving.map(|it| [&it.management_socket, &it.public_socket]);
        written.extend(sockets.into_iter().flatten().filter_map(Option::as_deref));
        let exports = self.exporting.into_iter().flat_map(|exporting| {
            [&exporting.page, &exporting.clock_bound, &exporting.chrony_sock]
        });
        written.extend(exports.filter_map(Option::as_deref));
        // The directory of all agents is made by the first and removed by the last.
        let directories = Path::new(DIRECTORY).parent().map(Path::to_owned);
        let mut write: Vec<PathBuf> = written.into_iter().filter_map(directory).collect();
        write.extend(RUNTIME.map(PathBuf::from));
        write.push(std::env::temp_dir());
        Files { read, write, directories: directories.into_iter().collect(), ..Files::default() }
    }

    /// Gives up all other files in this thread, from which later ones inherit.
    pub fn keep_only(&self) {
        match confine::files(&self.files()) {
            Ok(true) => tracing::debug!("files given up"),
            Ok(false) => tracing::debug!("this kernel has no Landlock: files stay within reach"),
            Err(error) => tracing::warn!(%error, "cannot give up files"),
        }
    }
}

fn directory(path: &Path) -> Option<PathBuf> {
    let parent = path.parent()?;
    let parent = if parent.as_os_str().is_empty() { Path::new(".") } else { parent };
    // It must be there when access to it is granted.
    if parent == Path::new(DIRECTORY) && !parent.exists() {
        let _ = std::fs::create_dir_all(parent);
    }
    Some(parent.to_owned())
}

/// Gives up system calls that are of no use once everything is open.
pub(super) fn keep_system_calls(is_wanted: bool) {
    if !is_wanted {
        return;
    }
    match confine::system_calls() {
        Ok(()) => tracing::debug!("system calls given up"),
        Err(error) => tracing::warn!(%error, "cannot give up system calls"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::publish::local::StatusSocket;

    #[test]
    fn directories_of_what_is_written_are_open_and_nothing_above() {
        let serving = Serving {
            status_socket: StatusSocket::At("/run/a/status".into()),
            management_socket: Some("pmc".into()),
            ..Serving::default()
        };
        let exporting = Exporting { page: Some("/dev/shm/page".into()), ..Exporting::default() };
        let business = Business {
            read: vec![Path::new("/opt/keys/one")],
            serving: Some(&serving),
            exporting: Some(&exporting),
            replaced: vec![Path::new("/var/lib/ptp-agent/frequency")],
        };
        let files = business.files();
        let expected = ["/var/lib/ptp-agent", "/run/a", ".", "/dev/shm"];
        assert_eq!(files.write[..4], expected.map(PathBuf::from));
        assert_eq!(files.write.len(), 4 + RUNTIME.len() + 1);
        assert_eq!(files.read.last(), Some(&PathBuf::from("/opt/keys")));
        assert_eq!(files.directories, [PathBuf::from("/run")]);
    }
}
