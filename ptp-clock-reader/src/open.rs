//! A page in a file, and the time now.

use std::{fmt, fs::File, io, path::Path};

use crate::{
    BYTES, Course, PtpTime, ReadError,
    map::{Map, monotonic_ns},
};

/// The clock behind an open page.
#[derive(Debug)]
pub struct PtpClock {
    map: Map,
}

/// Why a page cannot be opened.
#[derive(Debug)]
pub enum OpenError {
    /// The file cannot be opened or mapped.
    Io(io::Error),
    /// It is too short for a page, bytes.
    TooShort(u64),
    /// It is no page, or one of another version.
    Read(ReadError),
}

impl fmt::Display for OpenError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Io(error) => write!(f, "cannot open the page of the PTP clock: {error}"),
            Self::TooShort(bytes) => {
                write!(f, "a page of a PTP clock has {BYTES} bytes, and this file {bytes}")
            }
            Self::Read(error) => error.fmt(f),
        }
    }
}

impl std::error::Error for OpenError {}

impl PtpClock {
    /// Opens the page in `path`.
    ///
    /// # Errors
    /// [`OpenError`].
    pub fn open(path: impl AsRef<Path>) -> Result<Self, OpenError> {
        let file = File::open(path).map_err(OpenError::Io)?;
        let length = file.metadata().map_err(OpenError::Io)?.len();
        if length < BYTES as u64 {
            return Err(OpenError::TooShort(length));
        }
        let clock = Self { map: Map::new(&file).map_err(OpenError::Io)? };
        clock.course().map_err(OpenError::Read)?;
        Ok(clock)
    }

    /// The time now.
    ///
    /// # Errors
    /// [`ReadError`].
    pub fn now(&self) -> Result<PtpTime, ReadError> {
        Ok(self.course()?.at(monotonic_ns()))
    }

    /// What the page says.
    ///
    /// # Errors
    /// [`ReadError`].
    pub fn course(&self) -> Result<Course, ReadError> {
        Course::read(self.map.words())
    }
}
