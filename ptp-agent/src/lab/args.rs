//! The laboratory's command line.

use std::path::PathBuf;

use super::{grandmaster::Grandmaster, network::Link};
use crate::engine::csptp::Protocol;

/// Options of `lab`.
#[derive(Clone, Debug, clap::Args)]
pub struct Args {
    /// Run this scenario in virtual time instead, with the same engine and servo on simulated links
    /// and oscillators; needs no privilege.
    #[arg(long, value_name = "SCENARIO.toml")]
    pub simulate: Option<PathBuf>,
    /// Let requests pass through three hosts whose clocks are off, and compare with the truth what `trace`
    /// says of their spans.
    #[arg(long, conflicts_with_all = ["simulate", "record", "beside_ptp4l", "grandmaster", "html"])]
    pub trace: bool,
    /// Requests.
    #[arg(long, value_name = "N", default_value_t = 1_000, requires = "trace", value_parser = clap::value_parser!(u64).range(1..=1_000_000))]
    pub requests: u64,
    /// Between two spans that follow each other not less, µs.
    #[arg(long, value_name = "US", default_value_t = 20, requires = "trace", value_parser = clap::value_parser!(u64).range(0..=1_000_000))]
    pub hop: u64,
    /// Between two requests, µs.
    #[arg(long, value_name = "US", default_value_t = 5_000, requires = "trace", value_parser = clap::value_parser!(u64).range(0..=10_000_000))]
    pub pause: u64,
    /// How far the hosts' clocks are off, ns: by 0, by this and by its negative; one run for each.
    #[arg(long, value_name = "NS", value_delimiter = ',', default_values_t = [0, 10_000, 1_000_000, 100_000_000],
          requires = "trace", value_parser = clap::value_parser!(i64).range(-10_000_000_000..=10_000_000_000))]
    pub trace_offset: Vec<i64>,
    /// Begin when each agent knows its host's clock to within this, ns.
    #[arg(long, value_name = "NS", default_value_t = 2_000, requires = "trace", value_parser = clap::value_parser!(i64).range(1..))]
    pub bound_below: i64,
    /// Keep spans and readings here.
    #[arg(long, value_name = "DIRECTORY", requires = "trace")]
    pub trace_directory: Option<PathBuf>,
    /// Simulate with this seed instead of the scenario's.
    #[arg(long, value_name = "N", requires = "simulate")]
    pub seed: Option<u64>,
    /// How long to run, seconds.
    #[arg(long, value_name = "S", default_value_t = 60, value_parser = clap::value_parser!(u32).range(1..=86_400))]
    pub duration: u32,
    /// Log2 of the Sync interval in seconds: -4 is 16 per second.
    #[arg(long, alias = "rate", value_name = "LOG", default_value_t = -4, allow_negative_numbers = true,
          value_parser = clap::value_parser!(i8).range(-7..=4))]
    pub log_sync_interval: i8,
    /// What carries the messages: udp4, udp6 or l2.
    #[arg(long, default_value = "udp4", value_parser = ["udp4", "udp6", "l2"])]
    pub transport: String,
    /// Who serves the time: serve (this program), exact (the same, with stamps taken on the wire
    /// itself, as a grandmaster with stamps in hardware has them), or another program that is
    /// installed: ptp4l, ptpd or statime. Those serve the host's time, whose error is known as exactly.
    #[arg(long, value_enum, default_value_t)]
    pub grandmaster: Grandmaster,
    /// Where the program of another grandmaster is; default: on the path.
    #[arg(long, value_name = "FILE")]
    pub grandmaster_program: Option<PathBuf>,
    /// What lies between: a veth pair (for ptp4l beside it a like one), or a bridge for all.
    #[arg(long, value_enum, default_value_t)]
    pub link: Link,
    /// Instead: two network cards of this host that are joined by a cable, or as one wire by an emulator. The
    /// grandmaster is at the first, the agent and ptp4l beside it at the second. They must have no
    /// addresses; they are in namespaces of their own until the end, and come back without settings.
    #[arg(long, value_name = "A,B", value_delimiter = ',', conflicts_with = "link")]
    pub cards: Option<Vec<String>>,
    /// Log2 of the mean interval of Delay_Req in seconds that the grandmaster permits; default: that of
    /// Sync with serve and exact, each program's own with others.
    #[arg(long, value_name = "LOG", allow_negative_numbers = true,
          value_parser = clap::value_parser!(i8).range(-7..=4))]
    pub log_min_delay_req_interval: Option<i8>,
    /// Who answers requests for serve; see `serve --kernel-answers`.
    #[arg(long, value_enum, value_name = "WHO", default_value_t)]
    pub kernel_answers: crate::answers::Mode,
    /// Let the agent ask serve by csptp or sptp, at the rate of its Sync, instead of following what is sent to all.
    #[arg(long, value_name = "PROTOCOL", conflicts_with = "cards")]
    pub ask: Option<Protocol>,
    /// The agent's clock: virtual, or none, where the error is that of the offset that it tells.
    #[arg(long, default_value = "virtual", value_parser = ["virtual", "none"])]
    pub clock: String,
    /// How far the clock of serve and exact is ahead at the start, seconds.
    #[arg(long, value_name = "S", default_value_t = 1.5, allow_negative_numbers = true)]
    pub offset: f64,
    /// How much too fast it runs, parts per million.
    #[arg(long, value_name = "PPM", default_value_t = 37.0, allow_negative_numbers = true)]
    pub drift: f64,
    /// The agent's servo, as for `run`.
    #[arg(long)]
    pub servo: Option<String>,
    /// How far the two ways of the link may differ, as for `run`, ns.
    #[arg(long, value_name = "NS")]
    pub asymmetry_limit: Option<u32>,
    /// The agent's strategy, as for `run`.
    #[arg(long)]
    pub strategy: Option<String>,
    /// Whether the agent primes, as for `run`.
    #[arg(long, value_name = "MODE")]
    pub prime: Option<String>,
    /// Receive stamps of both sides, as for `run`.
    #[arg(long, value_name = "SOURCE")]
    pub rx_source: Option<String>,
    /// Transmit stamps of both sides, as for `run`.
    #[arg(long, value_name = "SOURCE")]
    pub tx_source: Option<String>,
    /// Run linuxptp's ptp4l beside the agent, as a free-running client with software stamps on a
    /// like link to the same grandmaster, and report the true error of its offsets too. Needs
    /// CAP_SETPCAP besides, so that ptp4l can be denied the right to set clocks. With another
    /// grandmaster than serve it runs anyway where it is installed.
    #[arg(long)]
    pub beside_ptp4l: bool,
    /// Record what the agent's engine is given, for `replay`, as `run --record` does.
    #[arg(long, value_name = "FILE")]
    pub record: Option<PathBuf>,
    /// Busy loops to run beside it.
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub load: u16,
    /// Where to write the report, an HTML page.
    #[arg(long, value_name = "FILE", default_value = "ptp-lab.html")]
    pub html: PathBuf,
    /// Write no report.
    #[arg(long, conflicts_with = "html")]
    pub no_html: bool,
    /// One line per second instead of the terminal view.
    #[arg(long)]
    pub no_tui: bool,
    /// Only keep one processor busy, until killed; how `--load` starts its children.
    #[arg(long, hide = true)]
    pub busy_loop: bool,
}

impl Args {
    /// Whether ptp4l is to run beside the agent.
    pub(super) fn wants_ptp4l(&self) -> bool {
        self.beside_ptp4l || self.grandmaster != Grandmaster::Serve
    }

    /// Whether the agent only watches.
    pub(super) fn watches(&self) -> bool {
        self.clock == "none"
    }
}
