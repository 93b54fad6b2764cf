//! A serial line, or a pseudo-terminal that stands for one, made ready to be read byte by byte: no echo, no editing, no
//! translation, at a given speed. What it was set to before is set again when it is closed.

use std::{
    fs::{File, OpenOptions},
    io::{self, Read},
    mem,
    os::{fd::AsRawFd, unix::fs::OpenOptionsExt},
    path::Path,
    time::Duration as StdDuration,
};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use std::os::fd::AsFd;

/// Speeds that a line may have, baud.
const SPEEDS: [(u32, libc::speed_t); 8] = [
    (4_800, libc::B4800),
    (9_600, libc::B9600),
    (19_200, libc::B19200),
    (38_400, libc::B38400),
    (57_600, libc::B57600),
    (115_200, libc::B115200),
    (230_400, libc::B230400),
    (460_800, libc::B460800),
];

/// Whether a line may be so fast.
pub fn is_speed(baud: u32) -> bool {
    SPEEDS.iter().any(|(known, _)| *known == baud)
}

/// An open line.
pub struct Line {
    file: File,
    /// What a terminal was set to; `None` of a pipe.
    before: Option<libc::termios>,
}

impl Line {
    /// Opens the line at `path`. `baud` of `None` leaves its speed as it is.
    ///
    /// # Errors
    /// What the kernel says; EINVAL for a speed that is none.
    pub fn open(path: &Path, baud: Option<u32>) -> io::Result<Self> {
        // Without O_NONBLOCK the open would wait for a modem.
        let flags = libc::O_NOCTTY | libc::O_NONBLOCK;
        let file = OpenOptions::new().read(true).custom_flags(flags).open(path)?;
        let mut before = mem::MaybeUninit::<libc::termios>::uninit();
        // SAFETY: the kernel fills the structure or says that it has not.
        let is_terminal = unsafe { libc::tcgetattr(file.as_raw_fd(), before.as_mut_ptr()) } == 0;
        if !is_terminal {
            return Ok(Self { file, before: None });
        }
        // SAFETY: it was filled.
        let before = unsafe { before.assume_init() };
        let mut raw = before;
        // SAFETY: a structure that lives through the call, here and below.
        unsafe { libc::cfmakeraw(&raw mut raw) };
        raw.c_cflag |= libc::CLOCAL | libc::CREAD;
        if let Some(baud) = baud {
            let known = SPEEDS.iter().find(|(known, _)| *known == baud);
            let (_, speed) = known.ok_or_else(|| io::Error::from_raw_os_error(libc::EINVAL))?;
            // SAFETY: as above.
            if unsafe { libc::cfsetspeed(&raw mut raw, *speed) } != 0 {
                return Err(io::Error::last_os_error());
            }
        }
        // SAFETY: as above.
        if unsafe { libc::tcsetattr(file.as_raw_fd(), libc::TCSANOW, &raw const raw) } != 0 {
            return Err(io::Error::last_os_error());
        }
        Ok(Self { file, before: Some(before) })
    }

    /// Waits for bytes, at most `patience`, and reads what is there; 0 where nothing came.
    ///
    /// # Errors
    /// EIO or [`io::ErrorKind::UnexpectedEof`] where the other end has gone.
    pub fn read(&mut self, buffer: &mut [u8], patience: StdDuration) -> io::Result<usize> {
        let timeout = PollTimeout::try_from(patience).unwrap_or(PollTimeout::MAX);
        let mut wanted = [PollFd::new(self.file.as_fd(), PollFlags::POLLIN)];
        match poll(&mut wanted, timeout) {
            Ok(0) | Err(nix::Error::EINTR) => return Ok(0),
            Ok(_) => {}
            Err(error) => return Err(error.into()),
        }
        match self.file.read(buffer) {
            Ok(0) => Err(io::ErrorKind::UnexpectedEof.into()),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(0),
            other => other,
        }
    }
}

impl Drop for Line {
    fn drop(&mut self) {
        if let Some(before) = self.before {
            // SAFETY: a structure that lives through the call. That the line has gone meanwhile is no matter.
            unsafe { libc::tcsetattr(self.file.as_raw_fd(), libc::TCSANOW, &raw const before) };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    #[test]
    fn a_pipe_is_read_until_its_writer_goes() {
        let (reader, mut writer) = io::pipe().unwrap();
        let path = format!("/proc/self/fd/{}", reader.as_raw_fd());
        let mut line = Line::open(Path::new(&path), Some(9_600)).unwrap();
        let mut buffer = [0; 16];
        assert_eq!(line.read(&mut buffer, StdDuration::ZERO).unwrap(), 0);
        writer.write_all(b"$GP").unwrap();
        assert_eq!(line.read(&mut buffer, StdDuration::from_secs(5)).unwrap(), 3);
        drop(writer);
        let error = line.read(&mut buffer, StdDuration::from_secs(5)).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof);
    }

    #[test]
    fn a_line_that_is_not_there_is_an_error() {
        assert!(Line::open(Path::new("/dev/no-such-line"), None).is_err());
        assert!(is_speed(9_600) && !is_speed(12_345));
    }
}
