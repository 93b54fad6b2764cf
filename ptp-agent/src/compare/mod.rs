//! `compare`: how good are stamps? Each PTP event message is stamped at several points by the kernel
//! programs and, beside them, by the kernel itself (SO_TIMESTAMPING: software always, hardware where
//! there is any). On an interface the differences between stamps of one packet are told; in
//! namespaces of its own, where both ends of the link are one host with one clock, also the spread
//! of the time from a transmit to a receive stamp, which is what a servo suffers from.

mod detrend;
mod join;
mod lab;
mod live;
mod load;
mod point;
mod report;
mod results;
mod side;
mod socket;
mod tally;

use std::{io, path::PathBuf, time::Duration};

use clap::ValueEnum;
use ptp_common::classify::Protocol;

use crate::publish::Format;
use crate::{
    capture::{CaptureError, HintsError, XdpHook},
    lab::netns::NetnsError,
    publish::json::OutputError,
    transport::TransportKind,
};

/// Options of `compare`.
#[derive(Clone, Debug, clap::Args)]
pub struct Args {
    /// Interface whose packets are compared.
    #[arg(short, long, value_name = "IFACE", conflicts_with = "lab")]
    pub interface: Option<String>,
    /// Make two namespaces linked by a veth pair, then by bridges, and measure there: idle, with 4
    /// busy loops and under a UDP flood, primed and unprimed.
    #[arg(long)]
    pub lab: bool,
    /// End after this many seconds; in the laboratory, each measurement.
    #[arg(long, value_name = "S", value_parser = seconds)]
    pub duration: Option<Duration>,
    /// End after this many packets of each direction that there is; in the laboratory, exchanges of
    /// each measurement (default 1000).
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub count: Option<u32>,
    /// Whose packets: ptp or ntp (UDP port 123).
    #[arg(long, default_value = "ptp", value_name = "PROTOCOL")]
    pub protocol: Compared,
    /// Stamp received packets by XDP too. On some drivers this changes the way of all packets, and
    /// so the other stamps.
    #[arg(long, value_name = "MODE", conflicts_with = "protocol")]
    pub xdp: Option<Xdp>,
    /// Ask the driver for the NIC's receive time by XDP metadata (Linux 6.3, on drivers that have
    /// it), and compare that as `skb_hwtstamps` is. Like any XDP, this changes the way of all packets
    /// on some drivers.
    #[arg(long, conflicts_with_all = ["lab", "xdp"])]
    pub xdp_hints: bool,
    /// Send Delay_Req too, as a time receiver does, so that there are transmit stamps of the driver
    /// to compare with. Of other daemons' packets only those daemons get the driver's stamp.
    #[arg(long, conflicts_with = "lab")]
    pub probe: bool,
    /// PTP domain of the probes.
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub domain: u8,
    /// What carries own messages: udp4, udp6 or l2.
    #[arg(long, default_value = "udp4")]
    pub transport: TransportKind,
    /// Send a throwaway frame right before own messages: off, on, or by turns [default: off with
    /// --probe, by turns in the laboratory].
    #[arg(long, value_name = "WHEN")]
    pub prime: Option<Prime>,
    /// Do without copies of sent packets, which delay each of them by 1 to 4 µs.
    #[arg(long, conflicts_with = "lab")]
    pub no_copies: bool,
    /// Switch the NIC's hardware stamps on (SIOCSHWTSTAMP) for as long as this runs. The switch is one
    /// for all programs of the host. Without it, hardware stamps are compared where another program
    /// has them on.
    #[arg(long, conflicts_with = "lab")]
    pub hardware: bool,
    /// With --json, print every packet with all its stamps too.
    #[arg(long)]
    pub packets: bool,
    /// Write a page with plots here.
    #[arg(long, value_name = "FILE")]
    pub html: Option<PathBuf>,
    /// Laboratory: only this link.
    #[arg(long, requires = "lab")]
    pub link: Option<Link>,
    /// Laboratory: only with this many busy loops.
    #[arg(long, value_name = "N", requires = "lab")]
    pub load: Option<u16>,
    /// Laboratory: only under a UDP flood.
    #[arg(long, requires = "lab")]
    pub flood: bool,
}

/// Whose packets are compared.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Compared {
    /// Event messages of PTP.
    #[default]
    Ptp,
    /// Requests and answers of NTP.
    Ntp,
}

impl Compared {
    const fn protocol(self) -> Protocol {
        match self {
            Self::Ptp => Protocol::Ptp,
            Self::Ntp => Protocol::Ntp,
        }
    }
}

/// Which way of XDP.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Xdp {
    /// In the driver.
    Native,
    /// In the stack.
    Generic,
    /// In the driver where it can, else in the stack.
    Auto,
}

impl From<Xdp> for XdpHook {
    fn from(xdp: Xdp) -> Self {
        match xdp {
            Xdp::Native => Self::Native,
            Xdp::Generic => Self::Generic,
            Xdp::Auto => Self::Auto,
        }
    }
}

/// When to prime.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Prime {
    /// Never.
    Off,
    /// Always.
    On,
    /// Every other message.
    Both,
}

impl Prime {
    const fn turns(self) -> &'static [bool] {
        match self {
            Self::Off => &[false],
            Self::On => &[true],
            Self::Both => &[false, true],
        }
    }
}

/// What links the laboratory's namespaces.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Link {
    /// A veth pair.
    Veth,
    /// A bridge on each end of a veth pair: interfaces for which `ptp4l` finds no transmit stamps.
    Bridge,
}

impl Link {
    const ALL: [Self; 2] = [Self::Veth, Self::Bridge];

    const fn name(self) -> &'static str {
        match self {
            Self::Veth => "veth",
            Self::Bridge => "bridge",
        }
    }
}

fn seconds(text: &str) -> Result<Duration, String> {
    let seconds: f64 = text.parse().map_err(|_| "expected a number of seconds".to_owned())?;
    Duration::try_from_secs_f64(seconds).map_err(|error| error.to_string())
}

/// Why nothing can be compared.
#[derive(Debug, thiserror::Error)]
pub enum CompareError {
    /// Neither an interface nor the laboratory.
    #[error("nothing to compare: name an interface with --interface, or use --lab")]
    NoInterface,
    /// No kernel programs.
    #[error(transparent)]
    Capture(#[from] CaptureError),
    /// No XDP metadata.
    #[error(transparent)]
    Hints(#[from] HintsError),
    /// No namespaces.
    #[error(transparent)]
    Netns(#[from] NetnsError),
    /// No sockets.
    #[error("cannot {attempt} on {interface}: {source}{}", privilege_hint(source))]
    Socket {
        /// What was attempted.
        attempt: &'static str,
        /// The interface.
        interface: String,
        /// What the kernel said.
        source: io::Error,
    },
    /// No hardware stamps.
    #[error(
        "cannot switch on hardware timestamps of {interface}: {source}{}",
        hardware_hint(source)
    )]
    Hardware {
        /// The interface.
        interface: String,
        /// What the kernel said.
        source: io::Error,
    },
    /// Priming was asked for where it cannot be.
    #[error("cannot prime on {0}: it has no MAC address; use --prime off")]
    NoPriming(String),
    /// Standard output.
    #[error(transparent)]
    Output(#[from] OutputError),
    /// The page.
    #[error("cannot write the page to {}: {reason}", path.display())]
    Page {
        /// Where.
        path: PathBuf,
        /// What went wrong.
        reason: String,
    },
    /// The operating system refused something that every process may do.
    #[error("cannot {attempt}: {source}")]
    Os {
        /// What was attempted.
        attempt: &'static str,
        /// What the kernel said.
        source: io::Error,
    },
}

fn privilege_hint(source: &io::Error) -> &'static str {
    match source.kind() {
        io::ErrorKind::PermissionDenied => " (run as root, or with CAP_NET_RAW)",
        _ => "",
    }
}

fn hardware_hint(source: &io::Error) -> &'static str {
    match source.raw_os_error() {
        Some(libc::EOPNOTSUPP) => {
            " (the driver has none: leave out --hardware to compare software stamps)"
        }
        Some(libc::EPERM) => " (run as root, or with CAP_NET_ADMIN)",
        Some(libc::ERANGE) => " (the NIC can stamp neither PTP packets nor all packets)",
        _ => "",
    }
}

impl CompareError {
    /// Whether the command was used wrongly, which is exit code 2.
    pub const fn is_bad_usage(&self) -> bool {
        matches!(self, Self::NoInterface)
    }

    /// Whether the host lacks something, which is exit code 3.
    pub fn is_missing_on_host(&self) -> bool {
        match self {
            Self::Capture(error) => error.is_missing_on_host(),
            Self::Hints(error) => error.is_missing_on_host(),
            Self::Netns(error) => error.is_missing_on_host(),
            Self::Socket { source, .. } => {
                matches!(source.kind(), io::ErrorKind::PermissionDenied | io::ErrorKind::NotFound)
            }
            Self::Hardware { .. } | Self::NoPriming(_) => true,
            Self::NoInterface | Self::Output(_) | Self::Page { .. } | Self::Os { .. } => false,
        }
    }
}

/// Runs `compare`. Must be called inside a tokio runtime.
///
/// # Errors
/// [`CompareError`].
pub async fn compare(args: Args, format: Format) -> Result<(), CompareError> {
    if args.lab { lab::run(&args, format).await } else { live::run(&args, format).await }
}
