//! The tables, and the remarks that go with them.

use super::*;
use crate::publish::text;

fn cells(tally: &Tally) -> Vec<String> {
    let figures = tally.figures();
    let mut cells = vec![tally.n().to_string()];
    cells.extend(
        [figures.mean, figures.sd, figures.central_sd, figures.p1, figures.p50, figures.p99]
            .map(nanos),
    );
    cells
}

/// A table: heading, names of the columns, rows.
pub(super) struct Table {
    pub(super) heading: String,
    pub(super) header: Vec<&'static str>,
    pub(super) rows: Vec<Vec<String>>,
}

pub(super) fn tables(measurement: &Measurement) -> Vec<Table> {
    let results = &measurement.results;
    let title = measurement.title();
    let header = |first: &[&'static str]| {
        first.iter().copied().chain(FIGURES).collect::<Vec<&'static str>>()
    };
    let row = |first: &[&str], tally: &Tally| {
        first.iter().map(|&cell| cell.to_owned()).chain(cells(tally)).collect::<Vec<String>>()
    };
    let mut tables = Vec::new();
    if !results.residuals.is_empty() {
        tables.push(Table {
            heading: format!("{title}: receive stamp minus transmit stamp"),
            header: header(&["transmit", "receive", "path"]),
            rows: results
                .residuals
                .iter()
                .map(|(&(index, traffic), tally)| {
                    let (tx, rx) = RESIDUALS[index];
                    row(&[tx.name(), rx.name(), traffic.name()], tally)
                })
                .collect(),
        });
    }
    if !results.offsets.is_empty() {
        tables.push(Table {
            heading: format!("{title}: offset shown by single exchanges, the truth is 0"),
            header: header(&["transmit", "receive", "path"]),
            rows: results
                .offsets
                .iter()
                .map(|(&(index, traffic), tally)| {
                    let (tx, rx) = EXCHANGES[index];
                    row(&[tx.name(), rx.name(), traffic.name()], tally)
                })
                .collect(),
        });
    }
    for direction in [Direction::Ingress, Direction::Egress] {
        let rows: Vec<Vec<String>> = results
            .differences
            .iter()
            .filter(|((index, _), _)| COMPARISONS[*index].0.direction() == direction)
            .map(|(&(index, traffic), tally)| {
                let (source, reference) = COMPARISONS[index];
                row(&[source.name(), reference.name(), traffic.name()], tally)
            })
            .collect();
        if !rows.is_empty() {
            let way = if direction == Direction::Ingress { "received" } else { "sent" };
            tables.push(Table {
                heading: format!("{title}: {way} packets, source minus reference"),
                header: header(&["source", "reference", "path"]),
                rows,
            });
        }
    }
    tables
}

pub(super) fn ratio_table(ratios: &[Ratio]) -> Option<Table> {
    let path = |primed: Option<bool>| match primed {
        Some(true) => "primed",
        Some(false) => "unprimed",
        None => "",
    };
    let rows: Vec<Vec<String>> = ratios
        .iter()
        .map(|ratio| {
            let mut reference = format!("{} {}", ratio.reference, path(ratio.reference_primed));
            if ratio.reference_link != ratio.link {
                let _ = write!(reference, " on {}", ratio.reference_link);
            }
            vec![
                format!("{}, {}", ratio.link, ratio.disturbance),
                ratio.direction.to_owned(),
                // The result first: on a page the long names behind it may be out of sight.
                format!("{:.2}", ratio.sd_ratio),
                format!("{:.2}", ratio.central_sd_ratio),
                format!("{} {}", ratio.source, path(ratio.primed)),
                reference,
                ratio.opposite.to_owned(),
            ]
        })
        .collect();
    (!rows.is_empty()).then(|| Table {
        heading: "Spread of a source over the spread of a reference".into(),
        header: vec!["where", "", "sd", "central sd", "source", "reference", "opposite"],
        rows,
    })
}

/// What a measurement cannot say, and why.
pub(super) fn remarks(measurement: &Measurement) -> Vec<String> {
    let results = &measurement.results;
    let has = |point: Point| {
        results.differences.keys().any(|(index, _)| {
            let (source, reference) = COMPARISONS[*index];
            source == point || reference == point
        })
    };
    let mut remarks = vec![format!(
        "{}: {} event messages received and {} sent in {:.1} s.",
        measurement.title(),
        results.received,
        results.sent,
        measurement.duration_s
    )];
    match &measurement.interrupts {
        Some(Ok((report, moderation))) => {
            let moderation =
                moderation.map_or_else(|| "not told by the driver".into(), moderation_in_words);
            remarks.push(format!(
                "Interrupts: {}. Moderation: {moderation}.",
                text::interrupts(report)
            ));
        }
        Some(Err(why)) => remarks.push(format!("Interrupts: not measured, {why}.")),
        None => {}
    }
    if results.received > 0 && !has(Point::RxSoftware) {
        remarks.push("No receive stamps of the kernel: too few packets were copied.".into());
    }
    if measurement.copies_are_early {
        remarks.push(
            "The interface hands its packets on (to a bridge, for instance) before ordinary sockets \
             see them. So the copies with the kernel's stamps are made before TC ingress, and delay \
             the stamp there."
                .into(),
        );
    }
    if results.sent > 0 && !has(Point::TxSoftware) {
        remarks.push(
            "No transmit stamps of the driver: the kernel gives them to the sending socket only, \
             which is another daemon's, or the driver makes none. The outgoing copy is stamped by \
             the stack before it calls the driver; --probe sends messages that have the driver's \
             stamp, where there is one."
                .into(),
        );
    }
    if results.differences.keys().any(|(index, _)| {
        let (source, reference) = COMPARISONS[*index];
        source.is_hardware() != reference.is_hardware()
    }) {
        remarks.push(
            "Hardware stamps are in the NIC's own time. Its linear relation to the host's clock, \
             fitted over 128 packets at a time, is taken out, and the mean with it."
                .into(),
        );
    }
    let lost: Vec<String> = measurement
        .lost
        .iter()
        .filter(|(_, count)| **count > 0)
        .map(|(cause, count)| format!("{cause} {count}"))
        .collect();
    if !lost.is_empty() {
        remarks.push(format!("Lost: {}.", lost.join(", ")));
    }
    remarks
}
