//! Keeps Debian packages from starting their services while they are installed. Debian's scripts ask
//! `/usr/sbin/policy-rc.d` first and start nothing when it exits with 101. The file is written only
//! if there is none, and taken away again however the installation ends; one that an earlier run left
//! because it was killed is recognised and taken away too.

use std::{
    fs::{self, OpenOptions},
    io::{ErrorKind, Write},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
    process,
    sync::atomic::{AtomicBool, Ordering},
};

use anyhow::{Context, Result};

/// What Debian's `invoke-rc.d` asks.
pub(super) const POLICY: &str = "/usr/sbin/policy-rc.d";

const CONTENT: &str = "#!/bin/sh
# Written by `cargo xtask setup` of ptp-agent for the duration of one installation.
# If you find it afterwards, that was killed; delete it.
exit 101
";

static GUARDED: AtomicBool = AtomicBool::new(false);
static INTERRUPTED: AtomicBool = AtomicBool::new(false);
static HANDLER: AtomicBool = AtomicBool::new(false);

/// The file is there as long as this lives.
#[must_use]
#[derive(Debug)]
pub(super) struct NoDaemons {
    /// The file to take away, unless it belongs to somebody else.
    file: Option<PathBuf>,
}

impl NoDaemons {
    /// Write the file, unless there is one already.
    pub(super) fn begin(path: &Path) -> Result<Self> {
        GUARDED.store(true, Ordering::SeqCst);
        match OpenOptions::new().write(true).create_new(true).mode(0o755).open(path) {
            Ok(mut file) => {
                // From here on the file goes away whatever happens.
                let guard = Self { file: Some(path.to_owned()) };
                file.write_all(CONTENT.as_bytes())
                    .with_context(|| format!("cannot write {}", path.display()))?;
                Ok(guard)
            }
            Err(error) if error.kind() == ErrorKind::AlreadyExists => {
                if fs::read(path).is_ok_and(|content| CONTENT.as_bytes() == content) {
                    return Ok(Self { file: Some(path.to_owned()) });
                }
                println!("  {} exists and stays as it is", path.display());
                Ok(Self { file: None })
            }
            Err(error) => {
                GUARDED.store(false, Ordering::SeqCst);
                Err(error).with_context(|| format!("cannot create {}", path.display()))
            }
        }
    }

    /// Take the file away and say so if this fails.
    pub(super) fn end(mut self) -> Result<()> {
        self.remove()
    }

    fn remove(&mut self) -> Result<()> {
        GUARDED.store(false, Ordering::SeqCst);
        match self.file.take() {
            Some(path) => fs::remove_file(&path)
                .with_context(|| format!("{} is left and must be deleted", path.display())),
            None => Ok(()),
        }
    }
}

impl Drop for NoDaemons {
    fn drop(&mut self) {
        if let Err(error) = self.remove() {
            eprintln!("error: {error:#}");
        }
    }
}

/// From now on Ctrl-C and a request to terminate end this process only while there is no guard; with
/// one, the package manager (which gets Ctrl-C too) ends first and [`interrupted`] tells afterwards.
pub(super) fn catch_interrupts() -> Result<()> {
    if HANDLER.swap(true, Ordering::SeqCst) {
        return Ok(());
    }
    ctrlc::set_handler(|| {
        if GUARDED.load(Ordering::SeqCst) {
            INTERRUPTED.store(true, Ordering::SeqCst);
        } else {
            process::exit(130);
        }
    })
    .context("cannot catch Ctrl-C")
}

/// Whether the user wanted to stop while there was a guard.
pub(super) fn interrupted() -> bool {
    INTERRUPTED.load(Ordering::SeqCst)
}

#[cfg(test)]
mod tests {
    use std::{os::unix::fs::PermissionsExt, panic};

    use super::*;

    #[test]
    fn services_are_refused_while_it_lives_and_the_file_is_gone_afterwards() -> Result<()> {
        let directory = tempfile::tempdir()?;
        let path = directory.path().join("policy-rc.d");
        let guard = NoDaemons::begin(&path)?;
        assert_eq!(fs::metadata(&path)?.permissions().mode() & 0o111, 0o111);
        let asked = duct::cmd!("sh", &path, "prometheus", "start").unchecked().run()?;
        assert_eq!(asked.status.code(), Some(101));
        guard.end()?;
        assert!(!path.exists());
        Ok(())
    }

    #[test]
    fn the_file_is_gone_after_a_panic() -> Result<()> {
        let directory = tempfile::tempdir()?;
        let path = directory.path().join("policy-rc.d");
        let result = panic::catch_unwind(|| {
            let _guard = NoDaemons::begin(&path).expect("the directory is writable");
            panic!("in the middle of an installation");
        });
        assert!(result.is_err() && !path.exists());
        Ok(())
    }

    #[test]
    fn somebody_elses_file_stays() -> Result<()> {
        let directory = tempfile::tempdir()?;
        let path = directory.path().join("policy-rc.d");
        fs::write(&path, "#!/bin/sh\nexit 0\n")?;
        NoDaemons::begin(&path)?.end()?;
        assert_eq!(fs::read_to_string(&path)?, "#!/bin/sh\nexit 0\n");
        Ok(())
    }

    #[test]
    fn a_file_left_by_a_killed_run_is_taken_away() -> Result<()> {
        let directory = tempfile::tempdir()?;
        let path = directory.path().join("policy-rc.d");
        fs::write(&path, CONTENT)?;
        NoDaemons::begin(&path)?.end()?;
        assert!(!path.exists());
        Ok(())
    }
}
