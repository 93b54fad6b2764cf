//! A clock of its own for a program that would steer the host's: a library to preload (`LD_PRELOAD`) into `ptp4l -S`, so
//! that several boundary clocks of linuxptp steer at once on one host, each what it takes for CLOCK_REALTIME, and the host's
//! clock stays as it is and is the truth. What is replaced is all that ptp4l has to do with that clock: `clock_gettime`,
//! `clock_settime`, `clock_adjtime`, and the stamps that `recvmsg` brings. The clock is a line over the host's, as the
//! kernel's is over the processor's counter. Whoever uses it takes CAP_SYS_TIME from the program as well: without the library
//! it can then change nothing either.

use std::sync::{Mutex, MutexGuard, PoisonError};

use libc::{c_int, clockid_t, cmsghdr, msghdr, ssize_t, timespec, timex};

const SECOND_NS: i64 = 1_000_000_000;
/// Nominal `timex.tick`, and what one more of it is worth (USER_HZ is 100), parts per billion.
const TICK: i64 = 10_000;
const TICK_PPB: f64 = 1e5;
/// `timex.freq` has 16 bits behind the ppm.
const FREQ_PPB: f64 = 1e3 / 65_536.0;
/// As the kernel has it: 500 ppm.
const TOLERANCE: i64 = 32_768_000;

/// The clock from one instant of the host's clock on.
#[derive(Clone, Copy)]
struct Line {
    host_ns: i64,
    own_ns: i64,
    ppb: f64,
}

impl Line {
    const fn at(&self, host_ns: i64) -> i64 {
        let since = host_ns - self.host_ns;
        self.own_ns + since + (since as f64 * self.ppb * 1e-9) as i64
    }
}

struct Clock {
    line: Line,
    /// In effect before: stamps are older than what has been done since.
    before: Line,
    freq: i64,
    tick: i64,
}

static CLOCK: Mutex<Clock> = Mutex::new(Clock {
    line: Line { host_ns: 0, own_ns: 0, ppb: 0.0 },
    before: Line { host_ns: 0, own_ns: 0, ppb: 0.0 },
    freq: 0,
    tick: TICK,
});

fn lock() -> MutexGuard<'static, Clock> {
    CLOCK.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Clock {
    /// At an instant of the host's clock.
    const fn at(&self, host_ns: i64) -> i64 {
        if host_ns < self.line.host_ns { self.before.at(host_ns) } else { self.line.at(host_ns) }
    }

    fn change(&mut self, host_ns: i64, by_ns: i64) {
        let ppb = self.freq as f64 * FREQ_PPB + (self.tick - TICK) as f64 * TICK_PPB;
        self.before = self.line;
        self.line = Line { host_ns, own_ns: self.line.at(host_ns) + by_ns, ppb };
    }
}

const fn nanos(time: &timespec) -> i64 {
    time.tv_sec * SECOND_NS + time.tv_nsec
}

const fn spec(nanos: i64) -> timespec {
    timespec { tv_sec: nanos.div_euclid(SECOND_NS), tv_nsec: nanos.rem_euclid(SECOND_NS) }
}

fn host_now() -> i64 {
    let mut time = spec(0);
    // SAFETY: a system call that writes the structure it is given; it cannot fail with this clock.
    unsafe { libc::syscall(libc::SYS_clock_gettime, libc::CLOCK_REALTIME, &raw mut time) };
    nanos(&time)
}

/// clock_gettime(2).
///
/// # Safety
/// As there: `time` can be written.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn clock_gettime(clock: clockid_t, time: *mut timespec) -> c_int {
    if clock != libc::CLOCK_REALTIME {
        // SAFETY: what the caller promises.
        return unsafe { libc::syscall(libc::SYS_clock_gettime, clock, time) } as c_int;
    }
    let now = spec(lock().at(host_now()));
    // SAFETY: what the caller promises.
    unsafe { time.write(now) };
    0
}

/// clock_settime(2).
///
/// # Safety
/// As there: `time` can be read.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn clock_settime(clock: clockid_t, time: *const timespec) -> c_int {
    if clock != libc::CLOCK_REALTIME {
        // SAFETY: what the caller promises.
        return unsafe { libc::syscall(libc::SYS_clock_settime, clock, time) } as c_int;
    }
    // SAFETY: what the caller promises.
    let wanted = nanos(unsafe { &*time });
    let (mut own, now) = (lock(), host_now());
    let by = wanted - own.at(now);
    own.change(now, by);
    0
}

/// clock_adjtime(2): frequency, tick and offset; what else the kernel knows is without effect.
///
/// # Safety
/// As there: `request` can be read and written.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn clock_adjtime(clock: clockid_t, request: *mut timex) -> c_int {
    if clock != libc::CLOCK_REALTIME {
        // SAFETY: what the caller promises.
        return unsafe { libc::syscall(libc::SYS_clock_adjtime, clock, request) } as c_int;
    }
    // SAFETY: what the caller promises.
    let request = unsafe { &mut *request };
    let (mut own, now) = (lock(), host_now());
    let is_nano = request.modes & libc::ADJ_NANO != 0;
    let mut by = 0;
    if request.modes & libc::ADJ_FREQUENCY != 0 {
        own.freq = request.freq.clamp(-TOLERANCE, TOLERANCE);
    }
    if request.modes & libc::ADJ_TICK != 0 {
        own.tick = request.tick;
    }
    if request.modes & libc::ADJ_SETOFFSET != 0 {
        let part = request.time.tv_usec * if is_nano { 1 } else { 1_000 };
        by = request.time.tv_sec * SECOND_NS + part;
    }
    if request.modes & (libc::ADJ_FREQUENCY | libc::ADJ_TICK | libc::ADJ_SETOFFSET) != 0 {
        own.change(now, by);
    }
    let time = spec(own.at(now));
    (request.freq, request.tick, request.tolerance) = (own.freq, own.tick, TOLERANCE);
    (request.offset, request.status, request.maxerror, request.esterror) = (0, 0, 0, 0);
    request.time.tv_sec = time.tv_sec;
    request.time.tv_usec = if is_nano { time.tv_nsec } else { time.tv_nsec / 1_000 };
    libc::TIME_OK
}

/// recvmsg(2), with the stamps of this clock.
///
/// # Safety
/// As there.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn recvmsg(socket: c_int, message: *mut msghdr, flags: c_int) -> ssize_t {
    // SAFETY: what the caller promises.
    let length = unsafe { libc::syscall(libc::SYS_recvmsg, socket, message, flags) } as ssize_t;
    if length >= 0 {
        // SAFETY: the kernel has filled it.
        unsafe { restamp(message) };
    }
    length
}

/// # Safety
/// As the kernel leaves it in recvmsg(2).
unsafe fn restamp(message: *mut msghdr) {
    // SAFETY: as above; what is walked through is what the kernel has written.
    let mut each: *mut cmsghdr = unsafe { libc::CMSG_FIRSTHDR(message) };
    while !each.is_null() {
        // SAFETY: as above.
        let (level, kind) = unsafe { ((*each).cmsg_level, (*each).cmsg_type) };
        if level == libc::SOL_SOCKET
            && [libc::SCM_TIMESTAMPING, libc::SCM_TIMESTAMPNS].contains(&kind)
        {
            // SAFETY: both begin with the software stamp, a timespec, which need not be aligned.
            let stamp: *mut timespec = unsafe { libc::CMSG_DATA(each) }.cast();
            // SAFETY: as above.
            let host = nanos(&unsafe { stamp.read_unaligned() });
            if host != 0 {
                // SAFETY: as above.
                unsafe { stamp.write_unaligned(spec(lock().at(host))) };
            }
        }
        // SAFETY: as above.
        each = unsafe { libc::CMSG_NXTHDR(message, each) };
    }
}
