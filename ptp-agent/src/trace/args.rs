//! The command line of `trace`.

use std::path::PathBuf;

use ptp_trace::{clocks::Limits, judge};

/// Options of `trace`.
#[derive(Clone, Debug, clap::Args)]
pub struct Args {
    /// Spans: OTLP as JSON or protobuf, as the Collector's file exporter writes them, or Jaeger's JSON;
    /// - is standard input.
    #[arg(value_name = "FILE", required = true)]
    pub files: Vec<PathBuf>,
    /// Ask this Prometheus how far the hosts' clocks were, as in http://127.0.0.1:9090.
    #[arg(long, value_name = "URL")]
    pub prometheus: Option<hyper::Uri>,
    /// Only series with these labels, as in 'job="ptp-agent",cluster="a"'.
    #[arg(
        long,
        value_name = "LABELS",
        default_value = "",
        hide_default_value = true,
        requires = "prometheus"
    )]
    pub prometheus_match: String,
    /// The label that names the host; of `instance` the port is left away.
    #[arg(long, value_name = "LABEL", default_value = "instance", requires = "prometheus")]
    pub host_label: String,
    /// What `ptp-agent run --json` has printed on a host; HOST= names it otherwise than its lines do.
    #[arg(long, value_name = "[HOST=]FILE")]
    pub readings: Vec<String>,
    /// A host that spans call NAME is CLOCK to Prometheus or in the readings.
    #[arg(long, value_name = "NAME=CLOCK")]
    pub host: Vec<String>,
    /// Write the spans with corrected times here: as protobuf where the name ends in .pb, otherwise as
    /// JSON lines, both of OTLP.
    #[arg(short, long, value_name = "FILE")]
    pub output: Option<PathBuf>,
    /// Write a page with the traces drawn: those with something impossible first, then those whose order
    /// the hosts' clocks show wrong, then those that cannot be told.
    #[arg(long, value_name = "FILE")]
    pub html: Option<PathBuf>,
    /// Draw this trace alone.
    #[arg(long, value_name = "ID", requires = "html", value_parser = trace_id)]
    pub trace_id: Option<u128>,
    /// Draw so many traces at the most.
    #[arg(long, value_name = "N", default_value_t = 12, requires = "html")]
    pub most: usize,
    /// Keep so many spans open at the most; traces that were idle longest are judged when there are more.
    #[arg(long, value_name = "N", default_value_t = judge::OPEN_SPANS)]
    pub open_spans: usize,
    /// How fine all stamps of spans are, ns; default: as fine as they show to be.
    #[arg(long, value_name = "NS", value_parser = clap::value_parser!(i64).range(1..=1_000_000_000))]
    pub stamp_resolution: Option<i64>,
    /// Between two readings the rate of a host's clock stays so close to its mean there, ppm.
    #[arg(long, value_name = "PPM", default_value_t = Limits::default().wander_ppm, value_parser = ppm)]
    pub wander: f64,
    /// Different grandmasters are no farther apart than this, ns; otherwise their times are not compared.
    #[arg(long, value_name = "NS", value_parser = clap::value_parser!(i64).range(0..=1_000_000_000))]
    pub grandmasters_agree: Option<i64>,
}

impl Args {
    /// Of these files and readings, all else as it is unless told otherwise.
    pub(crate) fn of(files: Vec<PathBuf>, readings: Vec<String>) -> Self {
        Self {
            files,
            prometheus: None,
            prometheus_match: String::new(),
            host_label: "instance".to_owned(),
            readings,
            host: Vec::new(),
            output: None,
            html: None,
            trace_id: None,
            most: 0,
            open_spans: judge::OPEN_SPANS,
            stamp_resolution: None,
            wander: Limits::default().wander_ppm,
            grandmasters_agree: None,
        }
    }
}

fn trace_id(text: &str) -> Result<u128, String> {
    u128::from_str_radix(text, 16).map_err(|_| "a trace has an identity in hexadecimal".to_owned())
}

fn ppm(text: &str) -> Result<f64, String> {
    let value: f64 = text.parse().map_err(|_| "not a number".to_owned())?;
    let is_sensible = (0.0..=1_000.0).contains(&value);
    is_sensible.then_some(value).ok_or_else(|| "from 0 to 1000 ppm".to_owned())
}

/// `NAME=VALUE` taken apart; the name may be missing.
pub(super) fn named(text: &str) -> (Option<&str>, &str) {
    match text.split_once('=') {
        Some((name, value)) if !name.is_empty() => (Some(name), value),
        _ => (None, text),
    }
}
