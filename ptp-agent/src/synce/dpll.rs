//! The kernel's DPLLs (generic netlink family `dpll`, Linux 6.7): the frequency loops of cards for synchronous Ethernet,
//! which lock to one of their inputs. Asked once in ten seconds by a socket that is closed again; a host without such a
//! card has no family, and nobody asks again.

use std::io;

use crate::{
    publish::snapshot::{DpllPin, DpllStatus},
    sys::genl::{Connection, Extent, attributes, find, number},
};

/// Of devices and of pins, as many are kept.
const KEPT: usize = 256;

// linux/dpll.h.
const DEVICE_GET: u8 = 2;
const PIN_GET: u8 = 8;
const MODES: [&str; 3] = ["?", "manual", "automatic"];
const LOCKS: [&str; 5] = ["?", "unlocked", "locked", "locked_ho_acq", "holdover"];
const KINDS: [&str; 3] = ["?", "pps", "eec"];
const PIN_KINDS: [&str; 6] = ["?", "mux", "ext", "synce_eth_port", "int_oscillator", "gnss"];
const PIN_STATES: [&str; 4] = ["?", "connected", "disconnected", "selectable"];

/// Why nothing is known of DPLLs.
#[derive(Debug, thiserror::Error)]
pub enum DpllError {
    /// The kernel has none: no driver that is loaded knows any.
    #[error("this kernel has no DPLL (no netlink family `dpll`)")]
    NoFamily,
    /// CAP_NET_ADMIN is missing.
    #[error("may not ask for DPLLs: needs CAP_NET_ADMIN")]
    NotPermitted,
    /// Anything else.
    #[error("cannot ask for DPLLs: {0}")]
    Netlink(#[from] io::Error),
}

/// All of them.
///
/// # Errors
/// [`DpllError`].
pub fn read() -> Result<Vec<DpllStatus>, DpllError> {
    let kernel = Connection::open("dpll").map_err(refused)?;
    let ask = |command| kernel.ask(command, Vec::new(), Extent::All).map_err(refused);
    let mut devices: Vec<_> =
        ask(DEVICE_GET)?.iter().filter_map(|answer| device(answer)).take(KEPT).collect();
    for answer in ask(PIN_GET)?.iter().take(KEPT) {
        add_pin(&mut devices, answer);
    }
    Ok(devices)
}

fn refused(error: io::Error) -> DpllError {
    match error.kind() {
        io::ErrorKind::NotFound => DpllError::NoFamily,
        io::ErrorKind::PermissionDenied => DpllError::NotPermitted,
        _ => DpllError::Netlink(error),
    }
}

fn text(value: &[u8]) -> String {
    let value = value.split(|byte| *byte == 0).next().unwrap_or_default();
    String::from_utf8_lossy(value).chars().filter(|it| !it.is_control()).take(64).collect()
}

/// The name of a value, `?` for one that is newer than this program.
fn named(names: &[&'static str], value: Option<u64>) -> String {
    let name = value.and_then(|value| names.get(usize::try_from(value).ok()?));
    (*name.unwrap_or(&"?")).to_owned()
}

/// What a message says of a loop.
fn device(bytes: &[u8]) -> Option<DpllStatus> {
    let mut dpll = DpllStatus::default();
    let (mut mode, mut lock, mut kind) = (None, None, None);
    let mut id = None;
    for (attribute, value) in attributes(bytes) {
        match attribute {
            1 => id = number(&value),
            2 => dpll.module = text(&value),
            4 => dpll.clock_id = number(&value).map(|it| format!("{it:016x}")),
            5 => mode = number(&value),
            7 => lock = number(&value),
            8 => {
                let millidegrees = number(&value).and_then(|it| u32::try_from(it).ok());
                dpll.temperature_c = millidegrees.map(|it| f64::from(it.cast_signed()) / 1e3);
            }
            9 => kind = number(&value),
            _ => {}
        }
    }
    dpll.id = u32::try_from(id?).ok()?;
    dpll.mode = named(&MODES, mode);
    dpll.lock_status = named(&LOCKS, lock);
    dpll.kind = named(&KINDS, kind);
    Some(dpll)
}

/// Adds a pin to the loops that have it as an input or output.
fn add_pin(devices: &mut [DpllStatus], bytes: &[u8]) {
    let (mut label, mut kind) = (None, None);
    let mut parents = Vec::new();
    for (attribute, value) in attributes(bytes) {
        match attribute {
            // Of the board, the panel, the package: whichever the driver has first.
            6..=8 => label = label.or(Some(text(&value))),
            9 => kind = number(&value),
            18 => parents.push(value),
            _ => {}
        }
    }
    for parent in parents {
        let value = |kind| find(&parent, kind).and_then(|it| number(&it));
        let Some(device) = devices.iter_mut().find(|device| Some(u64::from(device.id)) == value(2))
        else {
            continue;
        };
        if device.pins.len() < KEPT {
            device.pins.push(DpllPin {
                label: label.clone().unwrap_or_default(),
                kind: named(&PIN_KINDS, kind),
                state: named(&PIN_STATES, value(16)),
                priority: value(15).and_then(|it| u32::try_from(it).ok()),
            });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::genl::attribute;
    use proptest::{collection::vec, prelude::*};

    fn u32_of(kind: u16, value: u32) -> Vec<u8> {
        attribute(kind, &value.to_ne_bytes())
    }

    /// A loop that holds over, and one of its inputs.
    fn example() -> (Vec<u8>, Vec<u8>) {
        let device = [
            u32_of(1, 7),
            attribute(2, b"ice\0"),
            attribute(4, &0x507c_6fff_fe5c_4ae8_u64.to_ne_bytes()),
            u32_of(5, 2),
            u32_of(7, 4),
            u32_of(8, 41_500),
            u32_of(9, 2),
            // Newer than this program.
            u32_of(99, 1),
        ];
        let parent = [u32_of(2, 7), u32_of(15, 3), u32_of(16, 1)].concat();
        let pin = [attribute(6, b"C827_0-RCLKA\0"), u32_of(9, 3), attribute(18 | 0x8000, &parent)];
        (device.concat(), pin.concat())
    }

    #[test]
    fn loop_and_its_input_are_read() {
        let (bytes, pin) = example();
        let mut devices = vec![device(&bytes).unwrap()];
        add_pin(&mut devices, &pin);
        let [dpll] = &devices[..] else { panic!("{devices:?}") };
        assert_eq!((dpll.id, dpll.module.as_str()), (7, "ice"));
        assert_eq!(dpll.clock_id.as_deref(), Some("507c6ffffe5c4ae8"));
        assert_eq!((dpll.kind.as_str(), dpll.mode.as_str()), ("eec", "automatic"));
        assert_eq!((dpll.lock_status.as_str(), dpll.temperature_c), ("holdover", Some(41.5)));
        let [pin] = &dpll.pins[..] else { panic!("{dpll:?}") };
        assert_eq!((pin.label.as_str(), pin.state.as_str()), ("C827_0-RCLKA", "connected"));
        assert_eq!((pin.kind.as_str(), pin.priority), ("synce_eth_port", Some(3)));
    }

    #[test]
    fn a_kernel_says_whether_it_has_any() {
        // There is one kernel here: whichever it is, the answer is one of these.
        match read() {
            Ok(dplls) => assert!(dplls.iter().all(|dpll| !dpll.lock_status.is_empty())),
            Err(DpllError::NoFamily | DpllError::NotPermitted) => {}
            Err(error) => panic!("{error}"),
        }
    }

    proptest! {
        #[test]
        fn no_answer_makes_the_reader_panic(
            bytes in vec(any::<u8>(), 0..200),
            damage in vec((any::<prop::sample::Index>(), any::<u8>()), 0..6),
        ) {
            let (mut first, mut pin) = example();
            for (at, value) in damage {
                let at = at.index(pin.len().min(first.len()));
                first[at] = value;
                pin[at] = value;
            }
            let mut devices: Vec<_> =
                [device(&first), device(&bytes)].into_iter().flatten().collect();
            add_pin(&mut devices, &pin);
            add_pin(&mut devices, &bytes);
        }
    }
}
