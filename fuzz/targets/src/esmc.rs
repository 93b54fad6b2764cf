//! ESMC: frames there and back, and the watch over an interface, which is given them with any time between: it reads no more
//! than a port may send, and a level is known only while messages come.
use ptp_common::{
    esmc::Esmc,
    time::{Duration, Mono, Time},
};
use ptp_engine::esmc::{SILENCE, Watch};

/// See the module's paragraph.
///
/// # Panics
/// If what must hold does not.
pub fn run(bytes: &[u8]) {
    if let Ok(read) = Esmc::parse(bytes) {
        let mut again = [0; Esmc::EXTENDED_LENGTH];
        let length = read.emit(&mut again);
        assert_eq!(Esmc::parse(&again[..length]), Ok(read));
        assert!(read.quality().rank() <= 15);
    }
    let mut watch = Watch::default();
    let mut now = Time::<Mono>::ZERO;
    let (mut rest, mut frames) = (bytes, 0);
    // How many tenths of a second later, how long the frame is, and the frame.
    while let [later, length, more @ ..] = rest {
        now += Duration::from_millis(i64::from(*later) * 100);
        let (frame, more) = more.split_at(usize::from(*length).min(more.len()));
        watch.take(now, frame, None);
        (rest, frames) = (more, frames + 1);
        let counts = watch.counts();
        assert!(counts.accepted + counts.malformed + counts.excess <= frames);
        assert_eq!(
            watch.level(now).is_some(),
            watch.last().is_some_and(|last| now - last.at <= SILENCE)
        );
        assert!(watch.lowered(now).is_none_or(|(usual, level)| level.rank() > usual.rank()));
        let seconds = (now - Time::ZERO).as_nanos() / 1_000_000_000;
        assert!(counts.accepted + counts.malformed <= 20 + 10 * seconds.unsigned_abs());
    }
}
