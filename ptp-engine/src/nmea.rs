//! What a GNSS receiver says on its serial line (NMEA 0183): which second it is, and whether the receiver knows. Three
//! sentences matter: RMC (time, date, validity), ZDA (time, date) and GGA (validity). All else is passed over.
//! Sans-I/O: bytes go in with their time of arrival, named seconds come out. Written here rather than taken from a
//! crate because time is the point: a second 60, a date that is 1024 weeks old and a sentence without a checksum
//! must be told apart, and libraries for positions refuse, shift or believe them silently.

use ptp_common::time::{Mono, Time};
use serde::{Deserialize, Serialize};

/// Longest sentence that is read, bytes; NMEA 0183 permits 82, and receivers are known that exceed it.
pub const LONGEST: usize = 128;
/// The week of GPS was counted with ten bits: a receiver that lost count is so many seconds behind.
const ROLLOVER_S: i64 = 1024 * 7 * 86_400;
/// A two-digit year that is smaller is of the 2000s; GPS began in 1980.
const FIRST_YEAR: i64 = 80;

/// Why a sentence was not believed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Refused {
    /// No checksum, or another than that of what stands before it.
    Checksum,
    /// Longer than any sentence is.
    TooLong,
    /// A time, a date or a state that cannot be.
    Malformed,
}

/// What a sentence says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sentence {
    /// Time with a date.
    Time(Named),
    /// Whether the receiver knows its place, and so the time (GGA).
    Fix(bool),
    /// Something else, or a time that the receiver leaves open.
    Other,
}

/// A second of UTC.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Named {
    /// Seconds since 1970. Of a leap second the number of the second after it, as POSIX has it.
    pub second: i64,
    /// Behind it, ns; zero for all that name pulses.
    pub nanos: u32,
    /// Whether it is 23:59:60.
    pub is_leap: bool,
    /// What the sentence itself says of its validity; ZDA says nothing.
    pub is_valid: Option<bool>,
    /// How often 1024 weeks had to be added.
    pub rollovers: u8,
}

/// Reads one sentence, from `$` to the checksum, without the end of the line. No time before `earliest`, seconds since
/// 1970, is believed: weeks are added to it, 1024 at a time, until it is later.
///
/// # Errors
/// [`Refused`].
pub fn parse(sentence: &[u8], earliest: i64) -> Result<Sentence, Refused> {
    let body = sentence.strip_prefix(b"$").ok_or(Refused::Malformed)?;
    let star = body.iter().position(|byte| *byte == b'*').ok_or(Refused::Checksum)?;
    let (body, told) = (&body[..star], &body[star + 1..]);
    let told = core::str::from_utf8(told).ok().filter(|it| it.len() == 2);
    let told = told.and_then(|it| u8::from_str_radix(it, 16).ok());
    if told != Some(body.iter().fold(0, |sum, byte| sum ^ byte)) {
        return Err(Refused::Checksum);
    }
    let mut fields = body.split(|byte| *byte == b',');
    // Two letters of the talker before three of the sentence; $P... is a maker's own.
    let Some([talker, _, kind @ ..]) = fields.next() else { return Err(Refused::Malformed) };
    if *talker == b'P' {
        return Ok(Sentence::Other);
    }
    let mut field = || fields.next().unwrap_or_default();
    match kind {
        b"RMC" => {
            let (clock, state) = (field(), field());
            let date = core::array::from_fn::<_, 7, _>(|_| field())[6];
            let is_valid = match state {
                b"A" => true,
                b"V" | b"" => false,
                _ => return Err(Refused::Malformed),
            };
            if clock.is_empty() || date.is_empty() {
                return Ok(Sentence::Fix(false));
            }
            let date = digits::<6>(date)?;
            let year = i64::from(date[4]) * 10 + i64::from(date[5]);
            let century = if year < FIRST_YEAR { 2000 } else { 1900 };
            let [day, month] = [pair(date[0], date[1]), pair(date[2], date[3])];
            named(clock, (century + year, month, day), Some(is_valid), earliest)
        }
        b"ZDA" => {
            let (clock, day, month, year) = (field(), field(), field(), field());
            if clock.is_empty() || day.is_empty() || month.is_empty() || year.is_empty() {
                return Ok(Sentence::Other);
            }
            let ([a, b], [c, d]) = (digits::<2>(day)?, digits::<2>(month)?);
            let year = digits::<4>(year)?.iter().fold(0, |sum, digit| sum * 10 + i64::from(*digit));
            named(clock, (year, pair(c, d), pair(a, b)), None, earliest)
        }
        b"GGA" => {
            let quality = core::array::from_fn::<_, 6, _>(|_| field())[5];
            match quality {
                // Dead reckoning, by hand and simulated are no fixes.
                b"" | b"0" | b"6" | b"7" | b"8" => Ok(Sentence::Fix(false)),
                b"1" | b"2" | b"3" | b"4" | b"5" | b"9" => Ok(Sentence::Fix(true)),
                _ => Err(Refused::Malformed),
            }
        }
        _ => Ok(Sentence::Other),
    }
}

fn digits<const N: usize>(field: &[u8]) -> Result<[u8; N], Refused> {
    let field: &[u8; N] = field.try_into().map_err(|_| Refused::Malformed)?;
    if !field.iter().all(u8::is_ascii_digit) {
        return Err(Refused::Malformed);
    }
    Ok(field.map(|digit| digit - b'0'))
}

fn pair(tens: u8, ones: u8) -> i64 {
    i64::from(tens) * 10 + i64::from(ones)
}

/// `clock` is hhmmss or hhmmss.sss of the day.
fn named(
    clock: &[u8],
    (year, month, day): (i64, i64, i64),
    is_valid: Option<bool>,
    earliest: i64,
) -> Result<Sentence, Refused> {
    let (whole, fraction) = match clock.iter().position(|byte| *byte == b'.') {
        Some(point) => (&clock[..point], &clock[point + 1..]),
        None => (clock, &b""[..]),
    };
    let [a, b, c, d, e, f] = digits::<6>(whole)?;
    let (hour, minute, second) = (pair(a, b), pair(c, d), pair(e, f));
    if fraction.len() > 9 || !fraction.iter().all(u8::is_ascii_digit) {
        return Err(Refused::Malformed);
    }
    let nanos = fraction.iter().chain([b'0'; 9].iter()).take(9);
    let nanos = nanos.fold(0, |sum, digit| sum * 10 + u32::from(digit - b'0'));
    let is_leap = second == 60 && minute == 59 && hour == 23;
    let is_date = (1980..=2999).contains(&year) && (1..=days_of(year, month)).contains(&day);
    if hour > 23 || minute > 59 || (second > 59 && !is_leap) || !is_date {
        return Err(Refused::Malformed);
    }
    let mut second =
        days_since_1970(year, month, day) * 86_400 + hour * 3600 + minute * 60 + second;
    let behind = earliest.saturating_sub(second).max(0);
    // From 1980 to 2999 there are 52 of them.
    let rollovers =
        u8::try_from((behind + ROLLOVER_S - 1) / ROLLOVER_S).map_err(|_| Refused::Malformed)?;
    second += i64::from(rollovers) * ROLLOVER_S;
    Ok(Sentence::Time(Named { second, nanos, is_leap, is_valid, rollovers }))
}

/// Of a month; 0 of one that is none.
const fn days_of(year: i64, month: i64) -> i64 {
    match month {
        1 | 3 | 5 | 7 | 8 | 10 | 12 => 31,
        4 | 6 | 9 | 11 => 30,
        2 if year % 4 == 0 && (year % 100 != 0 || year % 400 == 0) => 29,
        2 => 28,
        _ => 0,
    }
}

/// Of a date of the Gregorian calendar. Years begin in March here, so that the leap day is their last.
const fn days_since_1970(year: i64, month: i64, day: i64) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    year * 365 + year.div_euclid(4) - year.div_euclid(100) + year.div_euclid(400) + of_year
        - 719_468
}

/// What has been read since the start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counters {
    /// Sentences that named a second.
    pub named: u64,
    /// Others that were whole.
    pub other: u64,
    /// Seconds that were named by a receiver which does not know them.
    pub no_fix: u64,
    /// [`Refused::Checksum`].
    pub checksum: u64,
    /// [`Refused::Malformed`].
    pub malformed: u64,
    /// [`Refused::TooLong`].
    pub too_long: u64,
    /// Seconds to which 1024 weeks or more were added.
    pub rollover: u64,
}

/// A second that is believed, and when its sentence began.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Told {
    /// Arrival of the first byte.
    pub at: Time<Mono>,
    /// Seconds since 1970, UTC.
    pub second: i64,
}

/// Whether a receiver knows the time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Fix {
    /// It has not said so.
    #[default]
    Unknown,
    /// It does.
    Yes,
    /// It does not: its time is that of its own clock.
    No,
}

/// Reads the line of one receiver.
#[derive(Clone, Debug)]
pub struct Receiver {
    earliest: i64,
    buffer: [u8; LONGEST],
    /// `None` between two sentences.
    filled: Option<usize>,
    begun: Time<Mono>,
    fix: Fix,
    latest: Option<Told>,
    is_rolled_over: bool,
    counters: Counters,
}

impl Receiver {
    /// Believes no time before `earliest`, seconds since 1970.
    pub const fn new(earliest: i64) -> Self {
        Self {
            earliest,
            buffer: [0; LONGEST],
            filled: None,
            begun: Time::ZERO,
            fix: Fix::Unknown,
            latest: None,
            is_rolled_over: false,
            counters: Counters {
                named: 0,
                other: 0,
                no_fix: 0,
                checksum: 0,
                malformed: 0,
                too_long: 0,
                rollover: 0,
            },
        }
    }

    /// Bytes that arrived at `at`. Each second that they name and that is believed is given to `told`, once for each
    /// sentence.
    pub fn read(&mut self, at: Time<Mono>, bytes: &[u8], mut told: impl FnMut(Told)) {
        for byte in bytes {
            match (*byte, self.filled) {
                (b'$', _) => {
                    self.begun = at;
                    self.buffer[0] = b'$';
                    self.filled = Some(1);
                }
                (b'\r' | b'\n', Some(filled)) => {
                    self.filled = None;
                    let sentence = parse(&self.buffer[..filled], self.earliest);
                    if let Some(it) = self.learn(sentence) {
                        told(it);
                    }
                }
                (byte, Some(filled)) if filled < LONGEST => {
                    self.buffer[filled] = byte;
                    self.filled = Some(filled + 1);
                }
                (_, Some(_)) => {
                    self.filled = None;
                    self.counters.too_long += 1;
                }
                (_, None) => {}
            }
        }
    }

    fn learn(&mut self, sentence: Result<Sentence, Refused>) -> Option<Told> {
        let fix = |is_valid| if is_valid { Fix::Yes } else { Fix::No };
        let named = match sentence {
            Ok(Sentence::Time(named)) => named,
            Ok(Sentence::Fix(is_valid)) => {
                self.fix = fix(is_valid);
                self.counters.other += 1;
                return None;
            }
            Ok(Sentence::Other) => {
                self.counters.other += 1;
                return None;
            }
            Err(refused) => {
                *match refused {
                    Refused::Checksum => &mut self.counters.checksum,
                    Refused::TooLong => &mut self.counters.too_long,
                    Refused::Malformed => &mut self.counters.malformed,
                } += 1;
                return None;
            }
        };
        if let Some(is_valid) = named.is_valid {
            self.fix = fix(is_valid);
        }
        if self.fix == Fix::No {
            self.counters.no_fix += 1;
            return None;
        }
        self.counters.named += 1;
        self.is_rolled_over = named.rollovers > 0;
        self.counters.rollover += u64::from(self.is_rolled_over);
        if named.nanos != 0 || named.is_leap {
            return None;
        }
        let told = Told { at: self.begun, second: named.second };
        self.latest = Some(told);
        Some(told)
    }

    /// Whether the receiver knows the time, by its latest word.
    pub const fn fix(&self) -> Fix {
        self.fix
    }

    /// Whether its date was 1024 weeks or more in the past.
    pub const fn is_rolled_over(&self) -> bool {
        self.is_rolled_over
    }

    /// The second that was named last.
    pub const fn latest(&self) -> Option<Told> {
        self.latest
    }

    /// What has been read.
    pub const fn counters(&self) -> &Counters {
        &self.counters
    }
}

#[cfg(test)]
mod tests;
