//! Questions of the ethtool interface, which no safe crate asks without a runtime: which driver serves an
//! interface, which timestamps it offers, and how its interrupts are held back. All only read and need no
//! privilege.

use std::{ffi::CStr, io, mem, os::fd::AsRawFd};

use super::{hwtstamp, ifreq};

/// `SIOCETHTOOL` of linux/sockios.h.
const SIOCETHTOOL: u16 = 0x8946;
/// `ETHTOOL_GDRVINFO` of linux/ethtool.h.
const GET_DRIVER: u32 = 0x0003;
/// `ETHTOOL_GCOALESCE` of linux/ethtool.h.
const GET_COALESCING: u32 = 0x000e;
/// `ETHTOOL_GET_TS_INFO` of linux/ethtool.h.
const GET_TIMESTAMPING: u32 = 0x0041;

mod raw {
    nix::ioctl_readwrite_bad!(ethtool, super::SIOCETHTOOL, libc::ifreq);
}

/// `struct ethtool_drvinfo`.
#[repr(C)]
struct DriverRequest {
    command: u32,
    driver: [u8; 32],
    version: [u8; 32],
    firmware_version: [u8; 32],
    bus: [u8; 32],
    extended_rom_version: [u8; 32],
    reserved: [u8; 12],
    counts: [u32; 5],
}

/// `struct ethtool_ts_info`.
#[repr(C)]
struct TimestampingRequest {
    command: u32,
    so_timestamping: u32,
    phc_index: i32,
    tx_types: u32,
    tx_reserved: [u32; 3],
    rx_filters: u32,
    rx_reserved: [u32; 3],
}

/// `struct ethtool_coalesce`.
#[repr(C)]
struct CoalescingRequest {
    command: u32,
    rx_usecs: u32,
    rx_frames: u32,
    of_interrupts_and_transmission: [u32; 7],
    is_adaptive_rx: u32,
    rest: [u32; 12],
}

/// Which driver serves an interface.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Driver {
    /// Its name.
    pub name: String,
    /// Where the device sits, as the bus names it; empty, or something without meaning, where there
    /// is no device.
    pub bus: String,
}

/// Which timestamps a driver offers to sockets (SO_TIMESTAMPING).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Timestamping {
    /// Software stamps of transmitted packets; without them linuxptp refuses software timestamping.
    pub tx_software: bool,
    /// Software stamps of received packets.
    pub rx_software: bool,
    /// Hardware stamps of transmitted packets.
    pub tx_hardware: bool,
    /// Hardware stamps of received packets.
    pub rx_hardware: bool,
    /// Number of the PTP hardware clock.
    pub phc: Option<u32>,
    /// What can be stamped of the packets sent: a bit for each of [`hwtstamp::TX_TYPES`].
    pub tx_types: u32,
    /// What can be stamped of the packets received: a bit for each of [`hwtstamp::RX_FILTERS`].
    pub rx_filters: u32,
}

impl Timestamping {
    /// Names of what can be stamped of the packets sent.
    pub fn tx_names(&self) -> Vec<&'static str> {
        names_of(&hwtstamp::TX_TYPES, self.tx_types)
    }

    /// Names of what can be stamped of the packets received.
    pub fn rx_names(&self) -> Vec<&'static str> {
        names_of(&hwtstamp::RX_FILTERS, self.rx_filters)
    }
}

fn names_of(names: &[&'static str], bits: u32) -> Vec<&'static str> {
    names.iter().enumerate().filter(|(at, _)| bits >> at & 1 != 0).map(|(_, name)| *name).collect()
}

/// How the interrupts of received packets are held back (moderation).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub struct Moderation {
    /// A packet waits so long for others before there is an interrupt, microseconds. Some drivers give small
    /// numbers a meaning of their own.
    pub rx_usecs: u32,
    /// Or until there are so many; 0 where they are not counted.
    pub rx_frames: u32,
    /// The driver changes both by itself.
    pub is_adaptive: bool,
}

/// Asks how the interrupts of an interface of this network namespace are held back.
///
/// # Errors
/// As [`driver`]: EOPNOTSUPP where the driver has nothing to tell.
pub fn moderation(interface: &str) -> io::Result<Moderation> {
    // SAFETY: a plain structure of integers for which zero is a valid value.
    let mut request: CoalescingRequest = unsafe { mem::zeroed() };
    request.command = GET_COALESCING;
    ask(interface, &mut request)?;
    Ok(Moderation {
        rx_usecs: request.rx_usecs,
        rx_frames: request.rx_frames,
        is_adaptive: request.is_adaptive_rx != 0,
    })
}

/// Asks for the driver of an interface of this network namespace.
///
/// # Errors
/// What the kernel reports: EOPNOTSUPP where the interface has nothing to tell, ENODEV where there
/// is no such interface.
pub fn driver(interface: &str) -> io::Result<Driver> {
    // SAFETY: a plain structure of integers for which zero is a valid value.
    let mut request: DriverRequest = unsafe { mem::zeroed() };
    request.command = GET_DRIVER;
    ask(interface, &mut request)?;
    Ok(Driver { name: text(&request.driver), bus: text(&request.bus) })
}

/// Asks which timestamps an interface of this network namespace offers.
///
/// # Errors
/// As [`driver`].
pub fn timestamping(interface: &str) -> io::Result<Timestamping> {
    // SAFETY: a plain structure of integers for which zero is a valid value.
    let mut request: TimestampingRequest = unsafe { mem::zeroed() };
    request.command = GET_TIMESTAMPING;
    ask(interface, &mut request)?;
    let offers =
        |what: u32, report: u32| request.so_timestamping & (what | report) == what | report;
    let (software, hardware) =
        (libc::SOF_TIMESTAMPING_SOFTWARE, libc::SOF_TIMESTAMPING_RAW_HARDWARE);
    Ok(Timestamping {
        tx_software: offers(libc::SOF_TIMESTAMPING_TX_SOFTWARE, software),
        rx_software: offers(libc::SOF_TIMESTAMPING_RX_SOFTWARE, software),
        tx_hardware: offers(libc::SOF_TIMESTAMPING_TX_HARDWARE, hardware),
        rx_hardware: offers(libc::SOF_TIMESTAMPING_RX_HARDWARE, hardware),
        phc: u32::try_from(request.phc_index).ok(),
        tx_types: request.tx_types,
        rx_filters: request.rx_filters,
    })
}

fn ask<T>(interface: &str, request: &mut T) -> io::Result<()> {
    let mut envelope = ifreq::addressed(interface, request)?;
    let socket = ifreq::socket()?;
    // SAFETY: the envelope names an interface with a terminated string and points to a structure of
    // the layout that its command has in linux/ethtool.h; both live through the call.
    unsafe { raw::ethtool(socket.as_raw_fd(), &raw mut envelope) }?;
    Ok(())
}

fn text(bytes: &[u8]) -> String {
    CStr::from_bytes_until_nul(bytes)
        .map_or_else(|_| String::from_utf8_lossy(bytes), CStr::to_string_lossy)
        .into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_have_the_size_that_the_kernel_expects() {
        assert_eq!(mem::size_of::<DriverRequest>(), 196);
        assert_eq!(mem::size_of::<TimestampingRequest>(), 44);
        assert_eq!(mem::size_of::<CoalescingRequest>(), 92);
    }

    #[test]
    fn loopback_offers_software_stamps_and_no_hardware_clock() {
        let offered = timestamping("lo").unwrap();
        assert!(offered.rx_software, "{offered:?}");
        assert_eq!(offered.phc, None);
    }

    #[test]
    fn missing_and_impossible_interfaces_are_errors() {
        for name in ["nothing0", "a name that is far too long", "a\0b"] {
            driver(name).unwrap_err();
            moderation(name).unwrap_err();
        }
    }
}
