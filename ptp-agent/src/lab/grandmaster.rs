//! Who serves the time in the laboratory: this program's `serve`, the same with stamps that are taken on the
//! wire itself, or another PTP daemon as its users run it. Of the latter the clock is the host's, so that
//! the true error of whoever follows is known as exactly as with our own.

use std::{
    fs::File,
    io::{self, Write},
    os::fd::AsRawFd,
    path::{Path, PathBuf},
    process::{self, Command},
};

use nix::sys::memfd::{MFdFlags, memfd_create};

use super::{Args, beside, network::Server, peers::OWN_BINARY};
use crate::sys::child;

/// The program that serves the time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum Grandmaster {
    /// `ptp-agent serve`.
    #[default]
    Serve,
    /// The same, stamped on the wire.
    Exact,
    /// linuxptp's ptp4l with software stamps.
    Ptp4l,
    /// ptpd.
    Ptpd,
    /// statime.
    Statime,
}

impl Grandmaster {
    /// Whether it is this program, whose clock is virtual and told line by line.
    pub(super) const fn is_own(self) -> bool {
        matches!(self, Self::Serve | Self::Exact)
    }

    /// Whether it serves on one interface only.
    pub(super) const fn is_single(self) -> bool {
        matches!(self, Self::Ptpd)
    }

    /// In messages.
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Serve => "ptp-agent serve",
            Self::Exact => "a grandmaster with the wire's own stamps",
            Self::Ptp4l => "ptp4l -S",
            Self::Ptpd => "ptpd",
            Self::Statime => "statime",
        }
    }

    const fn program(self) -> &'static str {
        match self {
            Self::Serve | Self::Exact => OWN_BINARY,
            Self::Ptp4l => "ptp4l",
            Self::Ptpd => "ptpd",
            Self::Statime => "statime",
        }
    }
}

/// Why it cannot be started.
#[derive(Debug, thiserror::Error)]
pub(super) enum GrandmasterError {
    /// Not there.
    #[error("{0} is not installed; name it with --grandmaster-program")]
    NotInstalled(&'static str),
    /// It cannot do this.
    #[error("{0} does not speak {1}")]
    Transport(&'static str, String),
    /// No file for its configuration.
    #[error("cannot make a configuration for the grandmaster: {0}")]
    Config(#[from] io::Error),
}

impl GrandmasterError {
    /// Whether the host lacks something.
    pub(super) const fn is_missing_on_host(&self) -> bool {
        matches!(self, Self::NotInstalled(_) | Self::Transport(..))
    }
}

/// The grandmaster of a run: where its program is, and what must live as long as it.
#[derive(Debug)]
pub(super) struct Service {
    program: PathBuf,
    configs: Vec<File>,
}

impl Service {
    /// Finds the program.
    ///
    /// # Errors
    /// [`GrandmasterError`].
    pub(super) fn find(args: &Args) -> Result<Self, GrandmasterError> {
        let kind = args.grandmaster;
        if kind == Grandmaster::Ptpd && args.transport == "udp6" {
            return Err(GrandmasterError::Transport(kind.name(), args.transport.clone()));
        }
        let program = match &args.grandmaster_program {
            Some(program) => program.clone(),
            None if kind.is_own() => kind.program().into(),
            None => beside::find(kind.program())
                .ok_or(GrandmasterError::NotInstalled(kind.program()))?,
        };
        Ok(Self { program, configs: Vec::new() })
    }

    /// The command that serves in `server`.
    ///
    /// # Errors
    /// Where no configuration can be made.
    pub(super) fn command(
        &mut self,
        args: &Args,
        server: &Server,
    ) -> Result<Command, GrandmasterError> {
        Ok(match args.grandmaster {
            Grandmaster::Serve | Grandmaster::Exact => self.own(args, server),
            Grandmaster::Ptp4l => self.ptp4l(args, server),
            Grandmaster::Ptpd => self.ptpd(args, server),
            Grandmaster::Statime => self.statime(args, server)?,
        })
    }

    fn own(&self, args: &Args, server: &Server) -> Command {
        let mut command = server.namespace.command(&self.program);
        command.args(["serve", "-i"]).args(&server.interfaces);
        stamps(args, &mut command);
        command.args(["--transport", &args.transport]).args(["--clock", "virtual", "--json"]);
        let min_delay_req = args.log_min_delay_req_interval.unwrap_or(args.log_sync_interval);
        command
            .arg(format!("--log-sync-interval={}", args.log_sync_interval))
            // As many measurements of the delay as of the offset.
            .arg(format!("--log-min-delay-req-interval={min_delay_req}"))
            // Found within a second, where the default would take four.
            .arg("--log-announce-interval=-1")
            .arg(format!("--offset={}", args.offset))
            .arg(format!("--drift={}", args.drift))
            .args(["--kernel-answers", args.kernel_answers.name()]);
        if let Some(protocol) = args.ask {
            command.arg(format!("--{protocol}"));
        }
        if args.grandmaster == Grandmaster::Exact {
            for far_end in &server.far_ends {
                let path = far_end.namespace.path();
                command.arg(format!("--wire={}={}", path.display(), far_end.interface));
            }
        }
        command
    }

    /// A foreign daemon: it may not set clocks, and its files vanish with it.
    fn foreign(&self, server: &Server) -> Command {
        let mut command = server.namespace.command(&self.program);
        child::own_run_directory(&mut command);
        child::never_set_clocks(&mut command);
        command
    }

    fn ptp4l(&self, args: &Args, server: &Server) -> Command {
        let mut command = self.foreign(server);
        command.args(["-S", "-m", "-q", beside::transport(&args.transport)]);
        for interface in &server.interfaces {
            command.args(["-i", interface]);
        }
        command.args(["--masterOnly=1", "--free_running=1", "--kernel_leap=0"]);
        // On a busy machine its stamps take longer than the 10 ms that it waits: it would be FAULTY for
        // 16 s.
        command.arg("--tx_timestamp_timeout=500");
        command.arg(format!("--logSyncInterval={}", args.log_sync_interval));
        if let Some(log) = args.log_min_delay_req_interval {
            command.arg(format!("--logMinDelayReqInterval={log}"));
        }
        command
    }

    fn ptpd(&self, args: &Args, server: &Server) -> Command {
        let mut command = self.foreign(server);
        command.args(["--global:foreground=Y", "--global:verbose_foreground=Y"]);
        command.args([
            "--clock:no_adjust=Y",
            "--clock:no_reset=Y",
            "--ptpengine:preset=masteronly",
        ]);
        let transport = if args.transport == "l2" { "ethernet" } else { "ipv4" };
        command.arg(format!("--ptpengine:transport={transport}"));
        for interface in &server.interfaces {
            command.arg(format!("--ptpengine:interface={interface}"));
        }
        command.arg(format!("--ptpengine:log_sync_interval={}", args.log_sync_interval));
        if let Some(log) = args.log_min_delay_req_interval {
            command.arg(format!("--ptpengine:log_delayreq_interval={log}"));
        }
        command
    }

    fn statime(&mut self, args: &Args, server: &Server) -> Result<Command, GrandmasterError> {
        let mut text = String::from("virtual-system-clock = true\npriority1 = 100\n");
        let mode = match args.transport.as_str() {
            "l2" => "ethernet",
            "udp6" => "ipv6",
            _ => "ipv4",
        };
        for interface in &server.interfaces {
            text.push_str(&format!(
                "[[port]]\ninterface = \"{interface}\"\nnetwork-mode = \"{mode}\"\n\
                 hardware-clock = \"none\"\nmaster-only = true\nsync-interval = {}\n",
                args.log_sync_interval
            ));
            if let Some(log) = args.log_min_delay_req_interval {
                text.push_str(&format!("delay-interval = {log}\n"));
            }
        }
        let config = config_file(&text)?;
        let mut command = self.foreign(server);
        command.arg("--config").arg(&config.1);
        self.configs.push(config.0);
        Ok(command)
    }
}

/// Stamps of a command of this program, both sides alike.
pub(super) fn stamps(args: &Args, command: &mut Command) {
    for (option, source) in [("--rx-source", &args.rx_source), ("--tx-source", &args.tx_source)] {
        if let Some(source) = source {
            command.args([option, source]);
        }
    }
}

/// A file that is nowhere, and where others find it.
fn config_file(text: &str) -> io::Result<(File, PathBuf)> {
    let mut file = File::from(memfd_create(c"grandmaster", MFdFlags::empty())?);
    file.write_all(text.as_bytes())?;
    let path = Path::new("/proc").join(format!("{}/fd/{}", process::id(), file.as_raw_fd()));
    Ok((file, path))
}
