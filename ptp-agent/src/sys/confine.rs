//! What a running agent gives up for good, where the kernel can take it: system calls that it has no use for
//! (seccomp), and files that are none of its business (Landlock, Linux 5.13). Both hold for all
//! threads, and for whoever takes over a thread by a fault in a parser. What the kernel does not know is left
//! as it is and said in the log.

use std::{
    io,
    path::{Path, PathBuf},
};

use landlock::{
    ABI, Access as _, AccessFs, BitFlags, PathBeneath, PathFd, Ruleset, RulesetAttr as _,
    RulesetCreatedAttr as _, RulesetStatus,
};

#[cfg(target_endian = "little")]
mod filter;
/// The crate that makes the filters knows little-endian machines only.
#[cfg(target_endian = "big")]
mod filter {
    pub(super) fn apply() -> Result<(), super::ConfineError> {
        Err(super::ConfineError::Machine(std::env::consts::ARCH.to_owned()))
    }
}

/// Why nothing could be given up.
#[derive(Debug, thiserror::Error)]
pub enum ConfineError {
    /// No filter for this machine.
    #[error("no filter of system calls for this machine: {0}")]
    Machine(String),
    /// The kernel does not want the filter.
    #[cfg(target_endian = "little")]
    #[error("cannot filter system calls: {0}")]
    Filter(seccompiler::Error),
    /// The kernel does not want the rules.
    #[error("cannot restrict access to files: {0}")]
    Files(#[from] landlock::RulesetError),
}

/// Gives up system calls in all threads of the process.
///
/// # Errors
/// [`ConfineError`]; nothing, or less, is given up then.
pub fn system_calls() -> Result<(), ConfineError> {
    filter::apply()
}

/// Which files there are for an agent.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Files {
    /// May be read, with all below.
    pub read: Vec<PathBuf>,
    /// Directories in which files and sockets may be made, written, replaced and removed.
    pub write: Vec<PathBuf>,
    /// Files that may be written.
    pub write_file: Vec<PathBuf>,
    /// Directories in which directories may be made and removed.
    pub directories: Vec<PathBuf>,
}

/// Gives up all other files in this thread and in those that it starts from now on. Paths that do not exist
/// are left out. Returns whether the kernel can.
///
/// # Errors
/// [`ConfineError`]; nothing is given up then.
pub fn files(files: &Files) -> Result<bool, ConfineError> {
    // What a kernel does not know of this it leaves out. Device files and abstract sockets stay as they
    // are: they have been opened, or are told apart otherwise.
    let abi = ABI::V3;
    let read = AccessFs::from_read(abi) & !AccessFs::Execute;
    let write = read
        | AccessFs::WriteFile
        | AccessFs::Truncate
        | AccessFs::MakeReg
        | AccessFs::MakeSock
        | AccessFs::RemoveFile;
    let write_file = AccessFs::ReadFile | AccessFs::WriteFile | AccessFs::Truncate;
    let directories = AccessFs::MakeDir | AccessFs::RemoveDir;
    let rules = [
        (&files.read, read),
        (&files.write, write),
        (&files.write_file, write_file),
        (&files.directories, directories),
    ];
    let mut ruleset = Ruleset::default().handle_access(AccessFs::from_all(abi))?.create()?;
    for (paths, access) in rules {
        for path in paths {
            if let Ok(open) = PathFd::new(path) {
                ruleset = ruleset.add_rule(PathBeneath::new(open, allowed(path, access)))?;
            }
        }
    }
    Ok(ruleset.restrict_self()?.ruleset != RulesetStatus::NotEnforced)
}

/// What of `access` has a meaning for this path.
fn allowed(path: &Path, access: BitFlags<AccessFs>) -> BitFlags<AccessFs> {
    if path.is_dir() { access } else { access & AccessFs::from_file(ABI::V3) }
}

/// Why a file may not be trusted that is to be written or believed: it belongs to somebody else.
///
/// # Errors
/// What the kernel says of the file, or EPERM.
pub fn check_owner(file: &std::fs::File) -> io::Result<()> {
    use std::os::unix::fs::MetadataExt as _;
    let owner = file.metadata()?.uid();
    if owner == 0 || owner == nix::unistd::geteuid().as_raw() {
        return Ok(());
    }
    let problem = format!("it belongs to user {owner}, who is neither root nor the agent's own");
    Err(io::Error::new(io::ErrorKind::PermissionDenied, problem))
}

/// Why a file that is there may not be overwritten: it belongs to somebody else, or has a second name, by which it may
/// be another file than is meant.
///
/// # Errors
/// As [`check_owner`].
pub fn check_own_file(file: &std::fs::File) -> io::Result<()> {
    use std::os::unix::fs::MetadataExt as _;
    let metadata = file.metadata()?;
    // Pipes and terminals are not overwritten.
    if !metadata.is_file() {
        return Ok(());
    }
    check_owner(file)?;
    if metadata.nlink() > 1 {
        let problem = format!("it has {} names (hard links)", metadata.nlink());
        return Err(io::Error::new(io::ErrorKind::PermissionDenied, problem));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{fs, thread};

    #[test]
    fn files_outside_are_refused_where_the_kernel_can() {
        let directory = tempfile::tempdir().unwrap();
        let at = |name: &str| directory.path().join(name);
        for name in ["readable", "writable", "secret"] {
            fs::create_dir(at(name)).unwrap();
            fs::write(at(name).join("file"), name).unwrap();
        }
        let rules = Files {
            read: vec![at("readable"), at("missing")],
            write: vec![at("writable")],
            ..Files::default()
        };
        let outcome = thread::scope(|scope| {
            let thread = scope.spawn(|| {
                if !files(&rules).unwrap() {
                    return None;
                }
                let read = |name: &str| fs::read(at(name).join("file")).is_ok();
                let write = |name: &str| fs::write(at(name).join("new"), "").is_ok();
                Some((
                    ["readable", "writable", "secret"].map(read),
                    ["readable", "writable", "secret"].map(write),
                ))
            });
            thread.join().unwrap()
        });
        if let Some(outcome) = outcome {
            assert_eq!(outcome, ([true, true, false], [false, true, false]));
        } else {
            println!("this kernel has no Landlock");
        }
    }
}
