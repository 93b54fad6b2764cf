//! What `compare` says at its end: tables for people, JSON lines, a page with plots.

use std::{
    collections::BTreeMap,
    fmt::Write as _,
    io::{self, Write as _},
};

use ptp_common::record::Direction;
use serde::Serialize;

mod page;
mod tables;

use super::{
    Args, CompareError, Link,
    join::Packet,
    lab::Conditions,
    point::{COMPARISONS, Point, direction_name},
    results::{EXCHANGES, RESIDUALS, Results, Traffic},
    tally::{Figures, Histogram, Tally},
};
use crate::capture::{InterruptReport, moderation_in_words};
use crate::publish::Format;
use crate::publish::{
    plot::{self, Distribution, PlotError, Unit},
    report::{Page, kernel},
    text::nanos,
};
use crate::sys::ethtool::Moderation;
use page::page;
use tables::{Table, ratio_table, remarks, tables};

/// A finished measurement.
#[derive(Debug)]
pub(super) struct Measurement {
    /// The interface, where it is one of the host's.
    pub(super) interface: Option<String>,
    /// The conditions, where it was made in the laboratory.
    pub(super) lab: Option<Conditions>,
    pub(super) duration_s: f64,
    /// What was lost, by cause.
    pub(super) lost: BTreeMap<String, u64>,
    /// Copies of received packets were made before TC ingress.
    pub(super) copies_are_early: bool,
    /// What was seen of the interface's interrupts and how they are held back, or why nothing was; `None` in the
    /// laboratory, whose links have none.
    pub(super) interrupts: Option<Result<(InterruptReport, Option<Moderation>), String>>,
    pub(super) results: Results,
}

impl Measurement {
    fn title(&self) -> String {
        match (&self.lab, &self.interface) {
            (Some(lab), _) => format!("{}, {}", lab.link.name(), lab.disturbance.name()),
            (None, Some(interface)) => interface.clone(),
            (None, None) => String::new(),
        }
    }

    fn place(&self) -> Place<'_> {
        match (self.lab, &self.interface) {
            (Some(conditions), _) => Place::lab(conditions),
            (None, interface) => Place::interface(interface.as_deref().unwrap_or_default()),
        }
    }
}

/// Where and under what conditions, in every line of JSON.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Place<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    interface: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    link: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    disturbance: Option<String>,
}

impl<'a> Place<'a> {
    /// An interface of the host.
    pub(super) const fn interface(interface: &'a str) -> Self {
        Self { interface: Some(interface), link: None, disturbance: None }
    }

    /// The laboratory.
    pub(super) fn lab(conditions: Conditions) -> Self {
        Self {
            interface: None,
            link: Some(conditions.link.name()),
            disturbance: Some(conditions.disturbance.name()),
        }
    }
}

/// The difference between two stamps of one packet, source minus reference.
#[derive(Serialize)]
struct Summary<'a> {
    event: &'static str,
    direction: &'static str,
    source: &'static str,
    reference: &'static str,
    n: u64,
    difference_ns: Figures,
    #[serde(flatten)]
    place: Place<'a>,
    /// Whether the packets were sent from here, and then whether the path was primed.
    primed: Option<bool>,
    /// Source and reference are different clocks; their linear relation was taken out, so that the
    /// mean says nothing.
    detrended: bool,
    histogram: Option<Histogram>,
}

/// From a transmit stamp to a receive stamp of the same packet.
#[derive(Serialize)]
struct Residual<'a> {
    event: &'static str,
    tx_source: &'static str,
    rx_source: &'static str,
    n: u64,
    residual_ns: Figures,
    #[serde(flatten)]
    place: Place<'a>,
    primed: Option<bool>,
    histogram: Option<Histogram>,
}

/// Offset from the other end as exchanges show it; the truth is zero.
#[derive(Serialize)]
struct Exchange<'a> {
    event: &'static str,
    tx_source: &'static str,
    rx_source: &'static str,
    n: u64,
    offset_ns: Figures,
    #[serde(flatten)]
    place: Place<'a>,
    primed: Option<bool>,
}

/// One source's spread over another's, with the same stamps at the other end of the link.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Ratio {
    event: &'static str,
    direction: &'static str,
    source: &'static str,
    reference: &'static str,
    /// The stamp at the other end.
    opposite: &'static str,
    /// Of the standard deviations.
    sd_ratio: f64,
    /// Of the standard deviations of the central 98 %.
    central_sd_ratio: f64,
    n: u64,
    link: &'static str,
    disturbance: String,
    primed: Option<bool>,
    reference_link: &'static str,
    reference_primed: Option<bool>,
}

/// Prints, and writes the page if one is wanted.
///
/// # Errors
/// [`CompareError::Output`] or [`CompareError::Page`].
pub(super) fn publish(
    args: &Args,
    format: Format,
    measurements: &[Measurement],
) -> Result<(), CompareError> {
    let ratios = ratios(measurements);
    if format.is_json() {
        print_json(measurements, &ratios)?;
    } else {
        let text = text(measurements, &ratios);
        match io::stdout().write_all(text.as_bytes()) {
            Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
                return Err(CompareError::Os {
                    attempt: "write to standard output",
                    source: error,
                });
            }
            _ => {}
        }
    }
    if let Some(path) = &args.html {
        let failed = |reason: String| CompareError::Page { path: path.clone(), reason };
        page(measurements, &ratios)
            .map_err(|error| failed(error.to_string()))?
            .write(path)
            .map_err(|error| failed(error.to_string()))?;
        eprintln!("page: {}", path.display());
    }
    Ok(())
}

/// Writes JSON lines, and waits for whoever reads them: nothing here is more urgent than that
/// nothing gets lost.
#[derive(Debug)]
pub(super) struct Lines(io::Stdout);

impl Lines {
    /// To standard output.
    pub(super) fn new() -> Self {
        Self(io::stdout())
    }

    fn print(&self, line: &impl Serialize) -> Result<(), CompareError> {
        let mut text = serde_json::to_vec(line).map_err(|error| written(error.into()))?;
        text.push(b'\n');
        let mut output = self.0.lock();
        output.write_all(&text).and_then(|()| output.flush()).map_err(written)
    }

    /// A packet with all its stamps; on CLOCK_MONOTONIC, hardware stamps in the NIC's time.
    pub(super) fn packet(
        &self,
        place: &Place<'_>,
        packet: &Packet,
        traffic: Traffic,
    ) -> Result<(), CompareError> {
        #[derive(Serialize)]
        struct Line<'a> {
            event: &'static str,
            message: &'static str,
            domain: u8,
            sequence_id: u16,
            rx_ns: BTreeMap<&'static str, i64>,
            tx_ns: BTreeMap<&'static str, i64>,
            #[serde(flatten)]
            place: &'a Place<'a>,
            primed: Option<bool>,
        }
        let stamps = |direction| {
            let points = Point::ALL.iter().filter(|point| point.direction() == direction);
            points.filter_map(|point| Some((point.name(), packet.at(*point)?))).collect()
        };
        self.print(&Line {
            event: "packet",
            message: packet.key.message_type.name(),
            domain: packet.key.domain_number,
            sequence_id: packet.key.sequence_id,
            rx_ns: stamps(Direction::Ingress),
            tx_ns: stamps(Direction::Egress),
            place,
            primed: traffic.primed(),
        })
    }
}

fn written(error: io::Error) -> CompareError {
    CompareError::Output(error.into())
}

fn print_json(measurements: &[Measurement], ratios: &[Ratio]) -> Result<(), CompareError> {
    let lines = Lines::new();
    for measurement in measurements {
        for line in residuals(measurement) {
            lines.print(&line)?;
        }
        for line in exchanges(measurement) {
            lines.print(&line)?;
        }
        if let Some(Ok((report, moderation))) = &measurement.interrupts {
            lines.print(&serde_json::json!({
                "event": "interrupts",
                "interface": measurement.interface,
                "seen": report,
                "moderation": moderation,
            }))?;
        }
        lines.print(&serde_json::json!({
            "event": "measurement",
            "duration_s": measurement.duration_s,
            "received": measurement.results.received,
            "sent": measurement.results.sent,
            "lost": measurement.lost,
            "copies_before_tc_ingress": measurement.copies_are_early,
            "interface": measurement.interface,
            "link": measurement.lab.map(|lab| lab.link.name()),
            "disturbance": measurement.lab.map(|lab| lab.disturbance.name()),
        }))?;
    }
    for ratio in ratios {
        lines.print(ratio)?;
    }
    for line in measurements.iter().flat_map(summaries) {
        lines.print(&line)?;
    }
    Ok(())
}

fn summaries(measurement: &Measurement) -> impl Iterator<Item = Summary<'_>> {
    measurement.results.differences.iter().map(|(&(index, traffic), tally)| {
        let (source, reference) = COMPARISONS[index];
        Summary {
            event: "summary",
            direction: direction_name(source.direction()),
            source: source.name(),
            reference: reference.name(),
            n: tally.n(),
            difference_ns: tally.figures(),
            place: measurement.place(),
            primed: traffic.primed(),
            detrended: source.is_hardware() != reference.is_hardware(),
            histogram: tally.histogram(),
        }
    })
}

fn residuals(measurement: &Measurement) -> impl Iterator<Item = Residual<'_>> {
    measurement.results.residuals.iter().map(|(&(index, traffic), tally)| {
        let (tx, rx) = RESIDUALS[index];
        Residual {
            event: "residual",
            tx_source: tx.name(),
            rx_source: rx.name(),
            n: tally.n(),
            residual_ns: tally.figures(),
            place: measurement.place(),
            primed: traffic.primed(),
            histogram: tally.histogram(),
        }
    })
}

fn exchanges(measurement: &Measurement) -> impl Iterator<Item = Exchange<'_>> {
    measurement.results.offsets.iter().map(|(&(index, traffic), tally)| {
        let (tx, rx) = EXCHANGES[index];
        Exchange {
            event: "exchange",
            tx_source: tx.name(),
            rx_source: rx.name(),
            n: tally.n(),
            offset_ns: tally.figures(),
            place: measurement.place(),
            primed: traffic.primed(),
        }
    })
}

/// A residual as one part of a ratio.
type Part<'a> = (&'a Measurement, Point, Traffic);

/// The ratios that say whether a source is better than what the kernel offers anyway.
fn ratios(measurements: &[Measurement]) -> Vec<Ratio> {
    const RX: [Point; 4] = [Point::Stack, Point::XdpNative, Point::XdpGeneric, Point::TcIngress];
    const TX: [Point; 4] = [Point::XmitSound, Point::XmitDone, Point::StartXmit, Point::TcEgress];
    let mut ratios = Vec::new();
    for measurement in measurements {
        for traffic in [Traffic::Unprimed, Traffic::Primed] {
            for opposite in [Point::TxSoftware, Point::XmitDone] {
                for source in RX {
                    let reference = (measurement, Point::RxSoftware, traffic);
                    ratios.extend(ratio((measurement, source, traffic), reference, opposite));
                }
            }
            for source in TX {
                // Against the driver's stamps of the same packets, and of unprimed ones: other
                // daemons do not prime.
                for reference_traffic in [traffic, Traffic::Unprimed] {
                    if reference_traffic == traffic || traffic == Traffic::Primed {
                        let reference = (measurement, Point::TxSoftware, reference_traffic);
                        let source = (measurement, source, traffic);
                        ratios.extend(ratio(source, reference, Point::RxSoftware));
                    }
                    if traffic == Traffic::Unprimed {
                        break;
                    }
                }
                // A bridge against a plain interface under the same conditions.
                for plain in measurements.iter().filter(|plain| is_plain_of(plain, measurement)) {
                    let reference = (plain, source, traffic);
                    let source = (measurement, source, traffic);
                    ratios.extend(ratio(source, reference, Point::RxSoftware));
                }
            }
        }
    }
    ratios
}

fn is_plain_of(plain: &Measurement, bridged: &Measurement) -> bool {
    match (plain.lab, bridged.lab) {
        (Some(plain), Some(bridged)) => {
            (plain.link, bridged.link) == (Link::Veth, Link::Bridge)
                && plain.disturbance == bridged.disturbance
        }
        _ => false,
    }
}

fn ratio(source: Part<'_>, reference: Part<'_>, opposite: Point) -> Option<Ratio> {
    let tally = |(measurement, point, traffic): Part<'_>| -> Option<(u64, Figures)> {
        let (tx, rx) = match point.direction() {
            Direction::Ingress => (opposite, point),
            Direction::Egress => (point, opposite),
        };
        let tally: &Tally = measurement.results.residual(tx, rx, traffic)?;
        Some((tally.n(), tally.figures()))
    };
    let (n, above) = tally(source)?;
    let (_, below) = tally(reference)?;
    let lab = source.0.lab?;
    let finite = |ratio: f64| ratio.is_finite().then_some(ratio);
    Some(Ratio {
        event: "ratio",
        direction: direction_name(source.1.direction()),
        source: source.1.name(),
        reference: reference.1.name(),
        opposite: opposite.name(),
        sd_ratio: finite(above.sd / below.sd)?,
        central_sd_ratio: finite(above.central_sd / below.central_sd)?,
        n,
        link: lab.link.name(),
        disturbance: lab.disturbance.name(),
        primed: source.2.primed(),
        reference_link: reference.0.lab?.link.name(),
        reference_primed: reference.2.primed(),
    })
}

/// Columns of all figures.
const FIGURES: [&str; 7] = ["n", "mean", "sd", "central sd", "p1", "p50", "p99"];

fn text(measurements: &[Measurement], ratios: &[Ratio]) -> String {
    let mut text = String::new();
    for measurement in measurements {
        for table in tables(measurement) {
            write_table(&mut text, &table);
        }
        for remark in remarks(measurement) {
            let _ = writeln!(text, "{remark}");
        }
        text.push('\n');
    }
    if let Some(table) = ratio_table(ratios) {
        write_table(&mut text, &table);
    }
    text
}

fn write_table(text: &mut String, table: &Table) {
    let width = |column: usize| {
        table
            .rows
            .iter()
            .filter_map(|row| row.get(column))
            .map(|cell| cell.chars().count())
            .chain(table.header.get(column).map(|name| name.len()))
            .max()
            .unwrap_or(0)
    };
    let widths: Vec<usize> = (0..table.header.len()).map(width).collect();
    let is_figure = |column: usize| FIGURES.contains(&table.header[column]);
    let _ = writeln!(text, "{}", table.heading);
    let mut line = |cells: &mut dyn Iterator<Item = &str>| {
        let mut line = String::new();
        for (column, cell) in cells.enumerate() {
            let width = widths[column];
            let _ = if is_figure(column) {
                write!(line, "{cell:>width$}  ")
            } else {
                write!(line, "{cell:<width$}  ")
            };
        }
        let _ = writeln!(text, "{}", line.trim_end());
    };
    line(&mut table.header.iter().copied());
    for row in &table.rows {
        line(&mut row.iter().map(String::as_str));
    }
    text.push('\n');
}
