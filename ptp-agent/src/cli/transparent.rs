//! What `ptp-agent transparent` takes.

use std::{collections::BTreeMap, net::SocketAddr, time::Duration as StdDuration};

use clap::Args;

use super::{args::seconds, config::Config, merge::UsageError};
use crate::publish::Format;
use crate::{
    agent::services::Serving,
    publish::local::StatusSocket,
    transparent::{
        Delay, LinkLocal, TransparentConfig, ports::Wanted, programs::Departure, rate::Follow,
    },
};

/// Of the command.
#[derive(Clone, Debug, Args)]
pub(super) struct TransparentArgs {
    /// Port; two or more. What is stacked on others (VLAN, macvlan, bond) is followed down to them.
    #[arg(short, long, value_name = "PORT", num_args = 1.., conflicts_with = "bridge")]
    interface: Vec<String>,
    /// All ports of this bridge, those included that join it later.
    #[arg(long, value_name = "BRIDGE")]
    bridge: Option<String>,
    /// End to end (default), or peer to peer: adds the delay of the link by which Sync came, and lets no
    /// peer delay messages through.
    #[arg(long)]
    delay: Option<Delay>,
    /// Of peer to peer: what becomes of messages to 01-80-C2-00-00-0E that are not about peer delay, for instance all
    /// others of 802.1AS: keep (default; no bridge forwards them), or relay to the other ports.
    #[arg(long, value_name = "WHAT", requires = "delay")]
    link_local: Option<LinkLocal>,
    /// Of peer to peer: the delay of a port's link, ns. Otherwise that which an agent of this host measures
    /// there (`run --delay p2p`).
    #[arg(long, value_name = "PORT=NS", value_parser = link_delay)]
    link_delay: Vec<(String, u32)>,
    /// Whose knowledge is used, of the time transmitter's rate and of links: auto (default; an agent of this host that follows), the
    /// status socket of one, or none.
    #[arg(long, value_name = "WHOM")]
    follow: Option<Follow>,
    /// Event messages per second that are timed on each port (default 20000); what is more passes as it came.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    events_per_second: Option<u32>,
    /// What becomes of a Follow_Up or Delay_Resp whose event message left nobody knows when: withhold (default; one
    /// exchange is lost, one in 17 at the most), or pass (uncorrected: the queue is in it).
    #[arg(long, value_name = "WHAT")]
    uncertain: Option<Uncertain>,
    /// Measure how long messages are inside, and change none.
    #[arg(long)]
    dry_run: bool,
    /// Where between the tracepoints around the driver a message is taken to leave.
    #[arg(long, hide = true)]
    departure: Option<Departure>,
    /// End by itself after this many seconds.
    #[arg(long, value_name = "S", value_parser = seconds)]
    duration: Option<StdDuration>,
    /// Serve Prometheus metrics, /healthz and /status here; off unless given.
    #[arg(long, value_name = "ADDR:PORT")]
    metrics_address: Option<SocketAddr>,
    /// Tell `status` about this clock here, or nowhere (none); default: in /run/ptp-agent.
    #[arg(long, value_name = "PATH")]
    status_socket: Option<StatusSocket>,
}

/// What becomes of messages that cannot be corrected for want of a stamp.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Uncertain {
    /// They are lost.
    Withhold,
    /// They go as they came.
    Pass,
}

fn link_delay(text: &str) -> Result<(String, u32), String> {
    let (port, nanos) = text.rsplit_once('=').ok_or("expected PORT=NS")?;
    let nanos = nanos.parse().map_err(|_| "expected a number of nanoseconds".to_owned())?;
    Ok((port.to_owned(), nanos))
}

/// With the configuration file, of which `interface`, `metrics-address` and `status-socket` are taken.
pub(super) fn config(
    args: TransparentArgs,
    file: &Config,
    format: Format,
) -> Result<TransparentConfig, UsageError> {
    let wanted = match args.bridge {
        Some(bridge) => Wanted::Bridge(bridge),
        None => {
            let mut interfaces = args.interface;
            if interfaces.is_empty() {
                interfaces = file.interface.clone().unwrap_or_default();
            }
            match interfaces.iter().enumerate().find(|(at, name)| interfaces[..*at].contains(name))
            {
                _ if interfaces.is_empty() => return Err(UsageError::NoPorts),
                Some((_, twice)) => return Err(UsageError::TwiceTheSame(twice.clone())),
                None => Wanted::Interfaces(interfaces),
            }
        }
    };
    let status_socket = file.status_socket.as_ref().and_then(|text| text.parse().ok());
    let usual = TransparentConfig::new(wanted);
    Ok(TransparentConfig {
        delay: args.delay.unwrap_or_default(),
        link_local: args.link_local.unwrap_or_default(),
        link_delays: args.link_delay.into_iter().collect::<BTreeMap<_, _>>(),
        follow: args.follow.unwrap_or_default(),
        events_per_second: args.events_per_second.unwrap_or(usual.events_per_second),
        departure: args.departure.unwrap_or_default(),
        withholds: args.uncertain != Some(Uncertain::Pass),
        is_dry: args.dry_run,
        duration: args.duration,
        serving: Serving {
            metrics_address: args.metrics_address.or(file.metrics_address),
            status_socket: args.status_socket.or(status_socket).unwrap_or_default(),
            ..Serving::default()
        },
        format,
        ..usual
    })
}
