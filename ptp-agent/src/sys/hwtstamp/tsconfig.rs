//! ETHTOOL_MSG_TSCONFIG_GET and ETHTOOL_MSG_TSCONFIG_SET (linux/ethtool_netlink_generated.h, Linux 6.14): what a NIC stamps,
//! as sets of bits, and which clock stamps where there are several, such as that of a MAC and that of its PHY.

use std::io;

use super::Config;
use crate::sys::genl::{Connection, Extent, attribute, find, nest, number};

const FAMILY: &str = "ethtool";
const GET: u8 = 46;
const SET: u8 = 47;

// `ETHTOOL_A_TSCONFIG_*`.
const HEADER: u16 = 1;
const PROVIDER: u16 = 2;
const TX_TYPES: u16 = 3;
const RX_FILTERS: u16 = 4;
// `ETHTOOL_A_HEADER_*`.
const HEADER_NAME: u16 = 2;
const HEADER_FLAGS: u16 = 3;
/// `ETHTOOL_FLAG_COMPACT_BITSETS`: answers have words of bits instead of names.
const COMPACT: u32 = 1;
// `ETHTOOL_A_BITSET_*`.
const NO_MASK: u16 = 1;
const SIZE: u16 = 2;
const VALUE: u16 = 4;
// `ETHTOOL_A_TS_HWTSTAMP_PROVIDER_*`.
const PROVIDER_INDEX: u16 = 1;
const PROVIDER_QUALIFIER: u16 = 2;
/// `enum hwtstamp_provider_qualifier`.
const QUALIFIERS: [&str; 2] = ["precise", "approximate"];

/// A clock that stamps packets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Provider {
    /// N of /dev/ptpN.
    pub index: u32,
    /// `precise`: at the medium; `approximate`: at a place before it, such as the DMA.
    pub qualifier: &'static str,
}

/// A way to ask.
#[derive(Debug)]
pub(super) struct Tsconfig {
    kernel: Connection,
}

impl Tsconfig {
    pub(super) fn open() -> io::Result<Self> {
        Ok(Self { kernel: Connection::open(FAMILY)? })
    }

    /// What an interface stamps, and by which clock.
    pub(super) fn get(&self, interface: &str) -> io::Result<(Config, Option<Provider>)> {
        let answers = self.kernel.ask(GET, header(interface), Extent::One)?;
        let answer = answers.first().ok_or(io::ErrorKind::UnexpectedEof)?;
        Ok((config(answer), provider(answer)))
    }

    /// Tells it what to stamp. What became of it, where the kernel says so.
    pub(super) fn set(&self, interface: &str, config: Config) -> io::Result<Option<Config>> {
        let answers = self.kernel.ask(SET, request(interface, config)?, Extent::One)?;
        Ok(answers.first().map(|answer| self::config(answer)))
    }
}

fn header(interface: &str) -> Vec<u8> {
    let name = attribute(HEADER_NAME, format!("{interface}\0").as_bytes());
    nest(HEADER, &[name, attribute(HEADER_FLAGS, &COMPACT.to_ne_bytes())])
}

fn request(interface: &str, config: Config) -> io::Result<Vec<u8>> {
    let tx = bits(TX_TYPES, config.tx_type, super::TX_TYPES.len())?;
    let rx = bits(RX_FILTERS, config.rx_filter, super::RX_FILTERS.len())?;
    Ok([header(interface), tx, rx].concat())
}

/// A set of one of `count` bits.
fn bits(kind: u16, number: i32, count: usize) -> io::Result<Vec<u8>> {
    let bit = u32::try_from(number).ok().filter(|bit| (*bit as usize) < count);
    let word = 1_u32 << bit.ok_or(io::ErrorKind::InvalidInput)?;
    let count = u32::try_from(count).map_err(|_| io::ErrorKind::InvalidInput)?;
    let size = attribute(SIZE, &count.to_ne_bytes());
    Ok(nest(kind, &[attribute(NO_MASK, &[]), size, attribute(VALUE, &word.to_ne_bytes())]))
}

/// What an answer says; what it leaves out is off.
fn config(answer: &[u8]) -> Config {
    let only = |kind| {
        let word = find(answer, kind).and_then(|set| find(&set, VALUE));
        let word = word.and_then(|word| Some(u32::from_ne_bytes(*word.first_chunk()?)));
        word.filter(|word| *word != 0).map_or(0, |word| word.trailing_zeros().cast_signed())
    };
    Config { flags: 0, tx_type: only(TX_TYPES), rx_filter: only(RX_FILTERS) }
}

fn provider(answer: &[u8]) -> Option<Provider> {
    let provider = find(answer, PROVIDER)?;
    let value = |kind| find(&provider, kind).and_then(|it| number(&it));
    let qualifier = value(PROVIDER_QUALIFIER).and_then(|it| usize::try_from(it).ok());
    let qualifier = qualifier.and_then(|at| QUALIFIERS.get(at)).copied().unwrap_or("unknown");
    Some(Provider { index: u32::try_from(value(PROVIDER_INDEX)?).ok()?, qualifier })
}

#[cfg(test)]
mod tests {
    use proptest::{collection::vec, prelude::*};

    use super::*;

    fn example() -> Vec<u8> {
        let clock = [
            attribute(PROVIDER_INDEX, &3_u32.to_ne_bytes()),
            attribute(PROVIDER_QUALIFIER, &1_u32.to_ne_bytes()),
        ];
        let config = Config::named("on", "ptpv2-event").unwrap();
        [request("eth0", config).unwrap(), nest(PROVIDER, &clock)].concat()
    }

    #[test]
    fn what_is_asked_for_is_what_is_read() {
        let answer = example();
        assert_eq!((config(&answer).tx(), config(&answer).rx()), ("on", "ptpv2-event"));
        assert_eq!(provider(&answer), Some(Provider { index: 3, qualifier: "approximate" }));
        assert_eq!(config(&header("eth0")), Config::default());
    }

    #[test]
    fn something_without_a_bit_is_not_asked_for() {
        let unknown = Config { rx_filter: 16, ..Config::default() };
        assert_eq!(request("eth0", unknown).unwrap_err().kind(), io::ErrorKind::InvalidInput);
    }

    proptest! {
        #[test]
        fn no_answer_makes_the_reader_panic(
            bytes in vec(any::<u8>(), 0..120),
            damage in vec((any::<prop::sample::Index>(), any::<u8>()), 0..6),
        ) {
            let mut damaged = example();
            for (at, value) in damage {
                let at = at.index(damaged.len());
                damaged[at] = value;
            }
            for answer in [&damaged, &bytes] {
                let _ = (config(answer).tx(), config(answer).rx(), provider(answer));
            }
        }
    }
}
