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
    /// Opens the line at `path`, and forgets what a terminal has kept from before. `baud` of `None` leaves its speed as
    /// it is.
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
            // As `cfsetspeed` does, which the crate `libc` takes by a version that is not in static libraries of glibc. The
            // speed of what comes in is that of what goes out where it is not named.
            raw.c_cflag = raw.c_cflag & !(libc::CBAUD | libc::CIBAUD) | speed;
        }
        // SAFETY: as above.
        if unsafe { libc::tcsetattr(file.as_raw_fd(), libc::TCSANOW, &raw const raw) } != 0 {
            return Err(io::Error::last_os_error());
        }
        // What was said before somebody listened names seconds that are over. Where it cannot be thrown away it is read.
        // SAFETY: no memory is passed.
        unsafe { libc::tcflush(file.as_raw_fd(), libc::TCIFLUSH) };
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

    /// Both ends of a pseudo-terminal.
    fn pseudo_terminal() -> (File, File) {
        use std::os::fd::FromRawFd as _;
        let (mut ours, mut theirs) = (-1, -1);
        let none = std::ptr::null_mut();
        // SAFETY: pointers to two integers that live through the call; the others may be null.
        let result = unsafe {
            libc::openpty(&raw mut ours, &raw mut theirs, none, none.cast(), none.cast())
        };
        assert_eq!(result, 0, "{}", io::Error::last_os_error());
        // SAFETY: both were just opened and belong to nobody else.
        unsafe { (File::from_raw_fd(ours), File::from_raw_fd(theirs)) }
    }

    /// How it edits, translates, and how fast it is.
    fn settings(terminal: &File) -> (libc::tcflag_t, libc::tcflag_t, libc::speed_t) {
        let mut settings = mem::MaybeUninit::<libc::termios>::uninit();
        // SAFETY: the kernel fills the structure, which is looked at.
        let settings = unsafe {
            assert_eq!(libc::tcgetattr(terminal.as_raw_fd(), settings.as_mut_ptr()), 0);
            settings.assume_init()
        };
        (settings.c_lflag, settings.c_iflag, settings.c_cflag & libc::CBAUD)
    }

    #[test]
    fn a_receiver_at_a_pseudo_terminal_is_read_as_it_speaks_and_its_settings_are_put_back() {
        use crate::engine::nmea::{Fix, Receiver};
        let (mut receiver, end) = pseudo_terminal();
        let before = settings(&end);
        assert_ne!(before.2, libc::B9600);
        let path = std::fs::read_link(format!("/proc/self/fd/{}", end.as_raw_fd())).unwrap();
        // Nobody has listened to that.
        receiver.write_all(b"$GPZDA,123518,23,03,2026,00,00*48\r\n").unwrap();
        let mut line = Line::open(&path, Some(9_600)).unwrap();
        assert_eq!(line.read(&mut [0; 64], StdDuration::ZERO).unwrap(), 0);
        assert_eq!(settings(&end).2, libc::B9600);
        assert_ne!(settings(&end), before, "no echo and no editing");
        let said = b"\x03garbage\r\n$GPZDA,123519,23,03,2026,00,00*4";
        receiver.write_all(said).unwrap();
        let body = "GPZDA,123519,23,03,2026,00,00";
        let sum = body.bytes().fold(0, |sum, byte| sum ^ byte);
        receiver.write_all(format!("\r\n${body}*{sum:02X}\r\n").as_bytes()).unwrap();
        let mut reader = Receiver::new(1_767_225_600);
        let (mut seconds, mut buffer) = (Vec::new(), [0; 64]);
        while seconds.is_empty() {
            let count = line.read(&mut buffer, StdDuration::from_secs(5)).unwrap();
            assert!(count > 0, "it has said more");
            let at = crate::sys::clock::monotonic();
            reader.read(at, &buffer[..count], |told| seconds.push(told.second));
        }
        assert_eq!((&seconds[..], reader.counters().checksum), (&[1_774_269_319][..], 1));
        assert_eq!(reader.fix(), Fix::Unknown);
        drop(line);
        assert_eq!(settings(&end), before);
        // The other end goes: that is an error, and no endless reading of nothing.
        let mut line = Line::open(&path, None).unwrap();
        drop((receiver, end));
        assert!(line.read(&mut buffer, StdDuration::from_secs(5)).is_err());
    }

    #[test]
    fn a_line_that_is_not_there_is_an_error() {
        assert!(Line::open(Path::new("/dev/no-such-line"), None).is_err());
        assert!(is_speed(9_600) && !is_speed(12_345));
    }
}
