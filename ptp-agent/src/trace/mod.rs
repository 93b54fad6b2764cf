//! `trace`: what spans of several hosts are worth. Files, the network, progress and what is printed are
//! here; the reading and judging is the crate `ptp_trace`'s. Files are read once, from front to end, and
//! what is kept is what has to be compared.

mod args;
mod http;
mod output;
mod page;
mod progress;
mod results;
mod text;

use std::{
    fs::File,
    io::{self, BufReader, BufWriter, Write},
    path::Path,
    process::ExitCode,
};

use anyhow::Context;
use ptp_trace::{
    clocks::{Clocks, Limits},
    correct::Corrector,
    input,
    judge::Judge,
    readings,
};

pub use args::Args;
pub use http::UrlError;
pub use results::{FileResult, HostPair, Results};

use args::named;
use output::Output;
use progress::Progress;

use crate::publish::Format;

/// What was asked for cannot be done so.
#[derive(Debug, thiserror::Error)]
pub enum UsageError {
    /// No clock is known.
    #[error(
        "how far were the clocks? Give --prometheus URL or --readings FILE; without them only spans \
             that were stamped at the source could be corrected (--readings /dev/null to have that)"
    )]
    NoClocks,
    /// `--host` without a name.
    #[error("--host {0}: NAME=CLOCK is wanted")]
    Alias(String),
    /// A Prometheus that cannot be asked.
    #[error(transparent)]
    Url(#[from] UrlError),
}

/// Runs the command. The exit code is 1 where a file could not be read to its end; everything that can be
/// said is said all the same.
///
/// # Errors
/// Bad usage, or what is to be written cannot be.
pub fn run(args: &Args, format: Format) -> anyhow::Result<ExitCode> {
    let results = match judge(args, format) {
        Ok(results) => results,
        Err(error) if is_closed(&error) => return Ok(ExitCode::SUCCESS),
        Err(error) => return Err(error),
    };
    let is_whole =
        results.files.iter().all(|file| file.error.is_none() && file.outcome.faults == 0);
    if let Some(path) = &args.html {
        page::write(&results, path)
            .with_context(|| format!("cannot write the page to {}", path.display()))?;
    }
    let mut out = BufWriter::new(io::stdout().lock());
    let written = if format.is_json() {
        output::summary(&results, &mut out)
    } else {
        text::write(&results, &mut out)
    };
    match written.and_then(|()| out.flush()) {
        // The reader had enough: not our failure.
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => {}
        written => written.context("cannot write to standard output")?,
    }
    Ok(if is_whole { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// The reader of standard output had enough, which is not our failure.
fn is_closed(error: &anyhow::Error) -> bool {
    error.chain().any(|cause| {
        cause
            .downcast_ref::<io::Error>()
            .is_some_and(|error| error.kind() == io::ErrorKind::BrokenPipe)
    })
}

/// The clocks that `args` name.
fn clocks(args: &Args) -> anyhow::Result<(Clocks, Vec<String>)> {
    if args.prometheus.is_none() && args.readings.is_empty() {
        return Err(UsageError::NoClocks.into());
    }
    let source = match &args.prometheus {
        Some(url) => {
            let made = http::Prometheus::new(url, &args.host_label, &args.prometheus_match);
            let made = made.map_err(|error| match error.downcast::<UrlError>() {
                Ok(error) => UsageError::Url(error).into(),
                Err(error) => error,
            })?;
            Some(Box::new(made) as Box<dyn ptp_trace::clocks::Source>)
        }
        None => None,
    };
    let limits = Limits {
        wander_ppm: args.wander,
        grandmasters_agree_ns: args.grandmasters_agree,
        ..Limits::default()
    };
    let mut clocks = Clocks::new(limits, source);
    for text in &args.host {
        let (Some(name), clock) = named(text) else {
            return Err(UsageError::Alias(text.clone()).into());
        };
        clocks.aliases.insert(name.to_owned(), clock.to_owned());
    }
    let mut complaints = Vec::new();
    for text in &args.readings {
        let (host, file) = named(text);
        let opened = File::open(file).with_context(|| format!("cannot open {file}"))?;
        let Clocks { known, grandmasters, .. } = &mut clocks;
        let outcome = readings::read(BufReader::new(opened), host, known, grandmasters)
            .with_context(|| format!("cannot read {file}"))?;
        if outcome.faults > 0 {
            complaints.push(format!("{file}: {} lines are none of an agent", outcome.faults));
        }
        if outcome.readings == 0 && outcome.others > 0 {
            complaints.push(format!(
                "{file}: no line says how far the host's clock was; `ptp-agent run --json` prints one a \
                 second (\"event\":\"host\") once it knows"
            ));
        }
    }
    Ok((clocks, complaints))
}

/// Reads and judges everything; pairs are printed as they are judged where JSON is wanted.
///
/// # Errors
/// Bad usage, or what is to be written cannot be.
pub fn judge(args: &Args, format: Format) -> anyhow::Result<Results> {
    let (clocks, complaints) = clocks(args)?;
    let mut corrector = Corrector::new(clocks, args.stamp_resolution);
    let mut judge = Judge::new(args.open_spans, args.grandmasters_agree);
    let mut results = Results::new(args);
    results.complaints = complaints;
    let mut output = args.output.as_deref().map(Output::create).transpose()?;
    let mut pairs = format.is_json().then(|| BufWriter::new(io::stdout().lock()));
    let mut progress = Progress::start(&args.files);
    let mut closed = Vec::new();
    for path in &args.files {
        let read = read_file(path, |mut resource, bytes| {
            corrector.resource(&mut resource, output.is_some(), |trace, span| {
                judge.push(trace, span, &mut |judged| closed.push(judged));
            });
            for judged in closed.drain(..) {
                results.take(judged, &corrector, pairs.as_mut())?;
            }
            if let Some(output) = &mut output {
                output.write(&resource)?;
            }
            progress.show(bytes, corrector.counts.spans, judge.open_spans());
            Ok(())
        });
        let file = FileResult::new(path, read)?;
        progress.next_file(file.outcome.bytes);
        results.files.push(file);
    }
    let mut written = Ok(());
    judge.finish(&mut |judged| {
        if written.is_ok() {
            written = results.take(judged, &corrector, pairs.as_mut());
        }
    });
    written?;
    if let Some(output) = output {
        output.finish()?;
    }
    if let Some(mut pairs) = pairs {
        pairs.flush()?;
    }
    progress.end();
    results.conclude(corrector, judge);
    Ok(results)
}

/// Reads one file.
fn read_file(
    path: &Path,
    take: impl FnMut(opentelemetry_proto::tonic::trace::v1::ResourceSpans, u64) -> io::Result<()>,
) -> Result<input::Outcome, input::InputError> {
    if path == Path::new("-") {
        return input::read(io::stdin().lock(), take);
    }
    input::read(File::open(path)?, take)
}
