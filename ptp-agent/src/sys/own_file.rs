//! Files that the agent makes for its user, or overwrites: recordings, pages, corrected spans. Whoever else can write to
//! the same directory must not choose what is overwritten, so a symbolic link to a file, a file of somebody else and one
//! with a second name are refused, and a new file is made only where there is none.

use std::{
    fs::{File, OpenOptions},
    io::{self, Write as _},
    os::unix::fs::OpenOptionsExt as _,
    path::Path,
};

use super::confine;

/// Opens the file to be overwritten, or makes it; and whether it is new. What is in it stays until it is cut.
///
/// # Errors
/// What the kernel says, or why the file may not be overwritten.
pub fn open(path: &Path) -> io::Result<(File, bool)> {
    let mut options = OpenOptions::new();
    options.write(true).custom_flags(libc::O_NOFOLLOW | libc::O_NOCTTY);
    match options.clone().create_new(true).open(path) {
        Ok(file) => Ok((file, true)),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => match options.open(path) {
            Err(error) if error.raw_os_error() == Some(libc::ELOOP) => {
                Ok((behind_link(path)?, false))
            }
            opened => {
                let file = opened?;
                confine::check_own_file(&file)?;
                Ok((file, false))
            }
        },
        Err(error) => Err(error),
    }
}

/// Opens or makes the file, and empties it.
///
/// # Errors
/// As [`open`].
pub fn create(path: &Path) -> io::Result<File> {
    let (file, is_new) = open(path)?;
    if !is_new {
        cut(&file)?;
    }
    Ok(file)
}

/// Replaces what is in the file, or makes it.
///
/// # Errors
/// As [`open`], and what the kernel says when it is written.
pub fn write(path: &Path, content: &[u8]) -> io::Result<()> {
    create(path)?.write_all(content)
}

/// Empties a file; pipes and terminals cannot be cut, and need not be.
///
/// # Errors
/// What the kernel says.
pub fn cut(file: &File) -> io::Result<()> {
    if file.metadata()?.is_file() { file.set_len(0) } else { Ok(()) }
}

/// What a symbolic link leads to, if it is nothing that could be overwritten: `/dev/stdout` is one to a
/// pipe or a terminal.
fn behind_link(path: &Path) -> io::Result<File> {
    let file = OpenOptions::new().write(true).custom_flags(libc::O_NOCTTY).open(path)?;
    if file.metadata()?.is_file() {
        return Err(io::Error::other("it is a symbolic link to a file; name the file itself"));
    }
    Ok(file)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{
        fs,
        os::unix::fs::{chown, symlink},
    };

    #[test]
    fn nothing_of_others_is_overwritten_and_an_own_file_is_replaced() {
        let directory = tempfile::tempdir().unwrap();
        let at = |name: &str| directory.path().join(name);
        fs::write(at("precious"), "7").unwrap();
        symlink(at("precious"), at("link")).unwrap();
        symlink(at("nowhere"), at("dangling")).unwrap();
        fs::hard_link(at("precious"), at("name")).unwrap();
        for name in ["link", "name", "dangling"] {
            assert!(write(&at(name), b"8").is_err(), "{name}");
        }
        assert_eq!(fs::read_to_string(at("precious")).unwrap(), "7");
        assert!(!at("nowhere").exists(), "a link has made a file elsewhere");
        fs::write(at("foreign"), "9").unwrap();
        // Only root can give files away.
        if nix::unistd::geteuid().is_root() {
            chown(at("foreign"), Some(12_345), None).unwrap();
            assert!(write(&at("foreign"), b"8").is_err());
            assert_eq!(fs::read_to_string(at("foreign")).unwrap(), "9");
        }
        for content in ["long enough", "short"] {
            write(&at("own"), content.as_bytes()).unwrap();
            assert_eq!(fs::read_to_string(at("own")).unwrap(), content);
        }
        write(Path::new("/dev/null"), b"8").unwrap();
    }
}
