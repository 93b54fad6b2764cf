//! Switches a NIC's hardware timestamps on, and back to what they were: by ethtool's netlink messages (`tsconfig`, Linux
//! 6.14), which also know of clocks in a PHY, and where the kernel or the driver does not know those, by SIOCGHWTSTAMP and
//! SIOCSHWTSTAMP. The switch is one for the whole host, so nobody touches it unasked.

mod tsconfig;

use std::{io, os::fd::AsRawFd};

use socket2::Socket;

pub use self::tsconfig::Provider;
use self::tsconfig::Tsconfig;
use super::ifreq;

/// `enum hwtstamp_tx_types` of linux/net_tstamp.h, by number.
pub const TX_TYPES: [&str; 4] = ["off", "on", "onestep-sync", "onestep-p2p"];
/// `enum hwtstamp_rx_filters` of linux/net_tstamp.h, by number, named as ethtool does.
pub const RX_FILTERS: [&str; 16] = [
    "none",
    "all",
    "some",
    "ptpv1-l4-event",
    "ptpv1-l4-sync",
    "ptpv1-l4-delay-req",
    "ptpv2-l4-event",
    "ptpv2-l4-sync",
    "ptpv2-l4-delay-req",
    "ptpv2-l2-event",
    "ptpv2-l2-sync",
    "ptpv2-l2-delay-req",
    "ptpv2-event",
    "ptpv2-sync",
    "ptpv2-delay-req",
    "ntp-all",
];

/// `HWTSTAMP_TX_ON` of linux/net_tstamp.h.
const TX_ON: i32 = 1;
/// `HWTSTAMP_FILTER_PTP_V2_EVENT`: event messages of version 2 over all transports.
const FILTER_PTP_V2_EVENT: i32 = 12;
/// `HWTSTAMP_FILTER_ALL`: for NICs that stamp all packets or none.
const FILTER_ALL: i32 = 1;

/// `SIOCSHWTSTAMP` of linux/sockios.h.
const SIOCSHWTSTAMP: u16 = 0x89b0;
/// `SIOCGHWTSTAMP`.
const SIOCGHWTSTAMP: u16 = 0x89b1;

mod raw {
    nix::ioctl_readwrite_bad!(set, super::SIOCSHWTSTAMP, libc::ifreq);
    nix::ioctl_readwrite_bad!(get, super::SIOCGHWTSTAMP, libc::ifreq);
}

/// `struct hwtstamp_config`: what a NIC stamps.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Config {
    flags: i32,
    tx_type: i32,
    rx_filter: i32,
}

impl Config {
    /// Of names out of [`TX_TYPES`] and [`RX_FILTERS`]; `None` where one is none.
    pub fn named(tx: &str, rx: &str) -> Option<Self> {
        let number = |names: &[&str], wanted| names.iter().position(|name| *name == wanted);
        let (tx_type, rx_filter) = (number(&TX_TYPES, tx)?, number(&RX_FILTERS, rx)?);
        Some(Self { flags: 0, tx_type: tx_type as i32, rx_filter: rx_filter as i32 })
    }

    /// What of the packets sent is stamped.
    pub fn tx(&self) -> &'static str {
        name_of(&TX_TYPES, self.tx_type)
    }

    /// What of the packets received is stamped.
    pub fn rx(&self) -> &'static str {
        name_of(&RX_FILTERS, self.rx_filter)
    }
}

fn name_of(names: &[&'static str], number: i32) -> &'static str {
    usize::try_from(number).ok().and_then(|at| names.get(at)).copied().unwrap_or("unknown")
}

/// By which way the kernel was asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// ethtool's `tsconfig`; with the clock that stamps, where the kernel says which.
    Netlink(Option<Provider>),
    /// SIOCGHWTSTAMP.
    Ioctl,
}

impl Way {
    /// In a word.
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Netlink(_) => "netlink",
            Self::Ioctl => "ioctl",
        }
    }
}

/// What a NIC stamps now.
///
/// # Errors
/// EOPNOTSUPP where its driver stamps nothing or does not tell, ENODEV.
pub fn configuration(interface: &str) -> io::Result<Config> {
    told(interface).map(|(config, _)| config)
}

/// The same, and who has said so.
///
/// # Errors
/// As for [`configuration`].
pub fn told(interface: &str) -> io::Result<(Config, Way)> {
    Kernel::open()?.get(interface)
}

/// Tells a NIC what to stamp, until somebody tells it otherwise. What the driver made of it, which can be
/// more than was asked for.
///
/// # Errors
/// EOPNOTSUPP, ERANGE where it cannot stamp just that, EPERM without CAP_NET_ADMIN, ENODEV.
pub fn configure(interface: &str, config: Config) -> io::Result<Config> {
    Kernel::open()?.set(interface, config)
}

/// Hardware timestamps that were switched on. Dropping it switches back.
#[derive(Debug)]
pub struct HardwareStamps {
    kernel: Kernel,
    interface: String,
    before: Config,
}

impl HardwareStamps {
    /// Switches on stamps of all PTP event messages, in and out.
    ///
    /// # Errors
    /// EOPNOTSUPP where the driver has none, ERANGE where it can stamp neither PTP nor everything,
    /// EPERM without CAP_NET_ADMIN, ENODEV.
    pub fn enable(interface: &str) -> io::Result<Self> {
        let kernel = Kernel::open()?;
        let before = match kernel.get(interface) {
            Ok((before, _)) => before,
            // Some drivers can be told and not asked: then off is what remains.
            Err(error) if error.raw_os_error() == Some(libc::EOPNOTSUPP) => Config::default(),
            Err(error) => return Err(error),
        };
        let this = Self { kernel, interface: interface.to_owned(), before };
        this.again()?;
        Ok(this)
    }

    /// Switches on once more, what somebody has switched off.
    ///
    /// # Errors
    /// As for [`Self::enable`].
    pub fn again(&self) -> io::Result<()> {
        let wanted = |rx_filter| Config { flags: 0, tx_type: TX_ON, rx_filter };
        self.set(wanted(FILTER_PTP_V2_EVENT)).or_else(|_| self.set(wanted(FILTER_ALL)))
    }

    /// What is stamped now.
    ///
    /// # Errors
    /// As for [`configuration`].
    pub fn now(&self) -> io::Result<Config> {
        self.kernel.get(&self.interface).map(|(config, _)| config)
    }

    fn set(&self, config: Config) -> io::Result<()> {
        self.kernel.set(&self.interface, config).map(drop)
    }
}

impl Drop for HardwareStamps {
    fn drop(&mut self) {
        // Nobody to tell; an interface that has gone needs no restoring.
        let _ = self.set(self.before);
    }
}

enum Request {
    Get,
    Set,
}

/// Both ways to the kernel. They belong to the network namespace in which they were opened.
#[derive(Debug)]
struct Kernel {
    socket: Socket,
    netlink: Option<Tsconfig>,
}

impl Kernel {
    fn open() -> io::Result<Self> {
        // Whatever is in the way of netlink, the older request is there.
        Ok(Self { socket: ifreq::socket()?, netlink: Tsconfig::open().ok() })
    }

    fn get(&self, interface: &str) -> io::Result<(Config, Way)> {
        if let Some(said) = self.by_netlink(|netlink| netlink.get(interface)) {
            return said.map(|(config, clock)| (config, Way::Netlink(clock)));
        }
        let mut config = Config::default();
        ask(&self.socket, interface, &mut config, Request::Get)?;
        Ok((config, Way::Ioctl))
    }

    fn set(&self, interface: &str, mut config: Config) -> io::Result<Config> {
        let said = self.by_netlink(|netlink| {
            let made_of_it = netlink.set(interface, config)?;
            made_of_it.map_or_else(|| netlink.get(interface).map(|(config, _)| config), Ok)
        });
        if let Some(said) = said {
            return said;
        }
        ask(&self.socket, interface, &mut config, Request::Set)?;
        Ok(config)
    }

    /// What is said by netlink; `None` where kernel or driver do not know it: older ones know no such message
    /// (EOPNOTSUPP), and an interface over a driver of the older kind says EINVAL.
    fn by_netlink<T>(
        &self,
        question: impl FnOnce(&Tsconfig) -> io::Result<T>,
    ) -> Option<io::Result<T>> {
        match question(self.netlink.as_ref()?) {
            Err(error) if matches!(error.raw_os_error(), Some(libc::EOPNOTSUPP | libc::EINVAL)) => {
                None
            }
            said => Some(said),
        }
    }
}

fn ask(socket: &Socket, interface: &str, config: &mut Config, request: Request) -> io::Result<()> {
    let mut envelope = ifreq::addressed(interface, config)?;
    match request {
        // SAFETY: the envelope names an interface with a terminated string and points to a structure
        // of the layout of `struct hwtstamp_config`; both live through the call.
        Request::Get => unsafe { raw::get(socket.as_raw_fd(), &raw mut envelope) }?,
        // SAFETY: as above.
        Request::Set => unsafe { raw::set(socket.as_raw_fd(), &raw mut envelope) }?,
    };
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_numbers_are_those_of_the_kernel() {
        let config = Config::named("on", "ptpv2-event").unwrap();
        assert_eq!((config.tx_type, config.rx_filter), (TX_ON, FILTER_PTP_V2_EVENT));
        assert_eq!((config.tx(), config.rx()), ("on", "ptpv2-event"));
        assert_eq!(Config { rx_filter: 99, ..config }.rx(), "unknown");
        assert_eq!(Config::named("on", "everything"), None);
    }

    #[test]
    fn interface_without_hardware_stamps_is_an_error() {
        HardwareStamps::enable("lo").unwrap_err();
        HardwareStamps::enable("nothing0").unwrap_err();
        configuration("lo").unwrap_err();
        configure("lo", Config::default()).unwrap_err();
    }
}
