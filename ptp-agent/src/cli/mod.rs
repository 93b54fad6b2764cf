//! The command line: what each command takes, how it goes together with the configuration file, and
//! what the exit codes mean.

mod args;
mod clock;
mod config;
mod documents;
mod import;
mod knowledge;
mod links;
mod log;
mod management;
mod marking;
mod merge;
mod ntp;
mod phc;
mod pps;
mod profile;
mod pulse;
mod reload;
mod roles;
mod security;
mod servers;
mod transparent;
mod unicast;

use std::{
    path::{Path, PathBuf},
    process::ExitCode,
};

use clap::{CommandFactory, FromArgMatches};

use crate::publish::Format;
use crate::{
    agent::io::pulse::{PulseError, open as open_pulses},
    agent::{
        AgentError,
        confinement::Business,
        observe,
        replay::{self, Recording, ReplayConfig},
        run::{self, ClockChoice},
        serve,
    },
    bench,
    capture::CaptureError,
    clock::phc::PhcError,
    compare::{self, CompareError},
    doctor, lab,
    publish::json::OutputError,
    recording::{FollowedClock, Start, Steered},
    servo::{Servo, choice},
    status,
    synce::SyncE,
    sys::{clock::monotonic, privileges},
    trace,
    transparent::TransparentError,
};
use args::{
    BenchCommand, BenchOther, Cli, Command, ConfigCommand, FollowArgs, RecordArgs, ReplayArgs,
    RunArgs,
};
use config::{Config, keys};
use merge::{UsageError, compare_args, observe_config, run_config, serve_config, watching_servo};

use reload::Invocation;

/// Exit code: the command failed.
const FAILED: u8 = 1;
/// Exit code: bad usage or configuration.
const BAD_USAGE: u8 = 2;
/// Exit code: the host lacks something that is needed.
const HOST_LACKS: u8 = 3;

/// Whether a text can be used as a configuration file; says in one line why not.
///
/// # Errors
/// That line.
pub fn check_configuration(text: &str) -> Result<(), String> {
    let parsed = Config::parse(Path::new("-"), text);
    parsed.map(drop).map_err(|error| error.in_one_line(text))
}

/// Runs the program; the whole of `main`.
pub fn main() -> ExitCode {
    let matches = Cli::command().get_matches();
    let cli = Cli::from_arg_matches(&matches).unwrap_or_else(|error| error.exit());
    log::start(cli.verbose, cli.log_format);
    match run_command(cli, Invocation::new(&matches)) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("ptp-agent: {error:#}");
            ExitCode::from(exit_code(&error))
        }
    }
}

fn exit_code(error: &anyhow::Error) -> u8 {
    if error.is::<UsageError>() || error.is::<trace::UsageError>() {
        return BAD_USAGE;
    }
    if let Some(error) = error.downcast_ref::<CompareError>() {
        return match error {
            error if error.is_bad_usage() => BAD_USAGE,
            error if error.is_missing_on_host() => HOST_LACKS,
            _ => FAILED,
        };
    }
    if error.chain().any(|cause| {
        cause.downcast_ref::<CaptureError>().is_some_and(CaptureError::is_missing_on_host)
    }) {
        return HOST_LACKS;
    }
    if let Some(PhcError::Missing(_) | PhcError::ReadOnly(_)) = error.downcast_ref::<PhcError>() {
        return HOST_LACKS;
    }
    if error.is::<PulseError>() {
        return HOST_LACKS;
    }
    let error = match error.downcast_ref::<TransparentError>() {
        Some(TransparentError::Output(OutputError::Closed)) => return 0,
        Some(TransparentError::OnePort(_)) => return BAD_USAGE,
        Some(TransparentError::Agent(error)) => Some(error),
        Some(error) if error.is_missing_on_host() => return HOST_LACKS,
        _ => error.downcast_ref::<AgentError>(),
    };
    match error {
        // The reader had enough: not our failure.
        Some(AgentError::Output(OutputError::Closed)) => 0,
        // What was named on the command line cannot be used.
        Some(
            AgentError::NoRecording { .. }
            | AgentError::Recording { .. }
            | AgentError::Holes { .. },
        ) => BAD_USAGE,
        Some(error) if error.is_missing_on_host() => HOST_LACKS,
        _ => FAILED,
    }
}

/// The reader of standard output has gone.
fn is_closed(error: &anyhow::Error) -> bool {
    matches!(error.downcast_ref(), Some(CompareError::Output(OutputError::Closed)))
}

fn run_command(cli: Cli, invocation: Invocation) -> anyhow::Result<ExitCode> {
    let Cli { json, config: file, verbose: _, log_format: _, command } = cli;
    let format = Format::json_if(json);
    let file = file.as_deref();
    // It says for itself what is wrong with the file.
    if let Command::Config(args) = command {
        return run_config_command(args, file, format);
    }
    if let Command::Generate(what) = command {
        documents::generate(&what)?;
        return Ok(ExitCode::SUCCESS);
    }
    let config = match file {
        Some(path) => Config::read(path).map_err(UsageError::from)?,
        None => Config::default(),
    };
    log::set_level(config.log_level);
    match command {
        Command::Run(RunArgs { follow, record }) => {
            return follow_grandmaster(follow, record.as_deref(), config, format, file, invocation);
        }
        Command::Record(RecordArgs { run, write }) => {
            return follow_grandmaster(run, Some(&write), config, format, file, invocation);
        }
        Command::Replay(args) => return run_replay(args, format),
        Command::Serve(args) => {
            let again = args.clone();
            let build = move |config| serve_config(again.clone(), config, format);
            let reload = reload::reload(file, invocation, build)?;
            let keys = args.port.tap.security.path(&config);
            let config = serve_config(args, config, format)?;
            // To enter the namespace at the other end of a wire takes more than a server needs.
            if config.common.io.wire.is_empty() {
                privileges::keep_only(privileges::PORTS);
            }
            if config.common.is_confined {
                let serving = Some(&config.common.serving);
                Business { read: read(file, &keys), serving, ..Business::default() }.keep_only();
            }
            block_on(serve::serve(config, reload))?
        }
        Command::Transparent(args) => {
            let config = transparent::config(args, &config, format)?;
            privileges::keep_only(privileges::FRAMES);
            block_on(crate::transparent::transparent(config))?;
        }
        Command::Observe(args) => {
            let again = args.clone();
            let build = move |config| observe_config(again.clone(), &config, format);
            let reload = reload::reload(file, invocation, build)?;
            let keys = args.tap.security.path(&config);
            let config = observe_config(args, &config, format)?;
            // What listens to slow protocols is opened with a right that nothing else needs here.
            let synce = SyncE::open(&config.tap.interfaces, monotonic());
            privileges::keep_only(privileges::CAPTURE);
            if config.is_confined {
                let serving = Some(&config.serving);
                Business { read: read(file, &keys), serving, ..Business::default() }.keep_only();
            }
            block_on(observe::observe(config, reload, synce))?
        }
        Command::Compare(args) => {
            let args = compare_args(args, &config)?;
            if !args.lab {
                privileges::keep_only(privileges::COMPARE);
            }
            match block_on(compare::compare(args, format)) {
                // The reader had enough: not our failure.
                Err(error) if is_closed(&error) => {}
                result => result?,
            }
        }
        Command::Lab(args) => return lab::run(&args, format),
        Command::Bench(BenchCommand { other: Some(BenchOther::Servo(args)), .. }) => {
            return bench::servo::run(&args, format);
        }
        Command::Bench(BenchCommand { stamps, other: None }) => {
            privileges::keep_only(privileges::BENCH);
            bench::run(&stamps, format)?;
        }
        Command::Phc(args) => {
            phc::run(&args, format)?;
        }
        Command::Pps(args) => {
            pps::run(&args, format)?;
        }
        Command::Doctor(mut args) => {
            if args.interface.is_empty() {
                args.interface = config.interface.unwrap_or_default();
            }
            return doctor::run(&args, format, ExitCode::from(HOST_LACKS));
        }
        // Has been done already.
        Command::Config(_) | Command::Generate(_) => {}
        Command::Trace(args) => return trace::run(&args, format),
        Command::Status(args) => match status::run(&args, format) {
            // The reader had enough: not our failure.
            Err(error) if error.is_closed() => {}
            result => result?,
        },
    }
    Ok(ExitCode::SUCCESS)
}

fn follow_grandmaster(
    args: FollowArgs,
    record: Option<&Path>,
    config: Config,
    format: Format,
    file: Option<&Path>,
    mut invocation: Invocation,
) -> anyhow::Result<ExitCode> {
    if record.is_some() {
        // A replay would not know of it.
        invocation.fixed = &[
            "delay-asymmetry",
            "boundary-clock-error",
            "max-first-step",
            "max-step",
            "max-step-sum",
            "earliest",
        ];
    }
    let again = args.clone();
    // The recording goes on as it is.
    let build = move |config| run_config(again.clone(), config, None, format);
    let reload = reload::reload(file, invocation, build)?;
    let keys = args.port.tap.security.path(&config);
    let authorities = args.ntp.authorities(&config);
    let config = run_config(args, config, record, format)?;
    phc::free_to_follow(&config.clock)?;
    // By the right to pass by permissions, which is given up now, and before files are.
    let mut config = config;
    config.pulses = config.pulse.as_ref().map(|it| open_pulses(it.io.clone())).transpose()?;
    privileges::keep_only(&needed_to_follow(&config.clock));
    // Who looks for other programs that have a device open must be able to look into them, which is given up
    // with files.
    if config.common.is_confined && !matches!(config.clock, ClockChoice::Phc(..)) {
        let frequency = match &config.clock {
            ClockChoice::System(steering) => steering.frequency_file.as_deref(),
            _ => None,
        };
        let business = Business {
            read: read(file, &keys).into_iter().chain(authorities.as_deref()).collect(),
            serving: Some(&config.common.serving),
            exporting: Some(&config.exporting),
            // A recording that was never begun is removed again.
            replaced: frequency.into_iter().chain(record).collect(),
        };
        business.keep_only();
    }
    block_on(run::run(config, reload))?;
    Ok(ExitCode::SUCCESS)
}

/// What following with this clock needs: ports, and the right to set the clock only where it is set.
fn needed_to_follow(clock: &ClockChoice) -> Vec<caps::Capability> {
    let mut needed = privileges::PORTS.to_vec();
    if matches!(clock, ClockChoice::System(_)) {
        needed.push(caps::Capability::CAP_SYS_TIME);
    }
    needed
}

/// What a command reads again at SIGHUP.
fn read<'a>(config: Option<&'a Path>, keys: &'a Option<PathBuf>) -> Vec<&'a Path> {
    config.into_iter().chain(keys.as_deref()).collect()
}

fn block_on<E>(work: impl Future<Output = Result<(), E>>) -> anyhow::Result<()>
where
    E: std::error::Error + Send + Sync + 'static,
{
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    Ok(runtime.block_on(work)?)
}

fn run_config_command(
    args: ConfigCommand,
    config: Option<&Path>,
    format: Format,
) -> anyhow::Result<ExitCode> {
    let (file, is_check) = match args {
        ConfigCommand::Import { file } => return import::run(&file, format),
        ConfigCommand::Show { default: true, .. } => {
            print!("{}", keys::default_file());
            return Ok(ExitCode::SUCCESS);
        }
        ConfigCommand::Show { profile: Some(profile), .. } => {
            print!("{}", profile.profile().shown());
            return Ok(ExitCode::SUCCESS);
        }
        ConfigCommand::Check { file } => (file, true),
        ConfigCommand::Show { file, .. } => (file, false),
    };
    let file = file.or(config.map(Path::to_owned)).ok_or(UsageError::NoConfig)?;
    Config::read(&file).map_err(UsageError::from)?;
    if is_check {
        println!("{}: can be used", file.display());
    } else {
        let text = config::text(&file).map_err(UsageError::from)?;
        // What was parsed as a configuration is a table.
        print!("{}", keys::file(&text.parse().unwrap_or_default()));
    }
    Ok(ExitCode::SUCCESS)
}

fn run_replay(args: ReplayArgs, format: Format) -> anyhow::Result<ExitCode> {
    let config = ReplayConfig { file: args.file, partial: args.partial, format };
    let recording = Recording::open(&config)?;
    let servo = match args.servo {
        Some(choice) => choice::build(&choice, &(&recording.start().options).into()),
        None => recorded_servo(recording.start())?,
    };
    let steered = if args.servo.is_some() { Steered::Anew } else { Steered::AsRecorded };
    replay::replay(&config, recording, servo, steered)?;
    Ok(ExitCode::SUCCESS)
}

fn recorded_servo(start: &Start) -> Result<Box<dyn Servo>, UsageError> {
    let options = (&start.options).into();
    if start.clock == FollowedClock::None {
        return Ok(watching_servo(&options));
    }
    match start.servo.parse() {
        Ok(choice) => Ok(choice::build(&choice, &options)),
        Err(_) => Err(UsageError::UnknownServo(start.servo.clone())),
    }
}
