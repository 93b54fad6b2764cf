//! The page with plots.

use super::*;

pub(super) fn page(measurements: &[Measurement], ratios: &[Ratio]) -> Result<Page, PlotError> {
    let is_lab = measurements.iter().any(|measurement| measurement.lab.is_some());
    let mut page = if is_lab {
        Page::new(
            "Comparison of timestamps in the laboratory",
            "Both ends of the link are one host with one clock, so the time from a transmit stamp \
             to a receive stamp is known exactly, and its spread is all that a servo suffers from.",
        )
    } else {
        Page::new(
            "Comparison of timestamps",
            "Several stamps of each PTP event message, by eBPF programs and by the kernel itself.",
        )
    };
    if let Some(table) = ratio_table(ratios) {
        page.heading("Ratios");
        page.paragraph(
            "Standard deviation of the one-way residual with one source, divided by that with a \
             reference; below 1 the source is better. The central sd leaves out 1 % on each side: \
             the few packets that an interrupt hit.",
        );
        page.table(&table.heading, &table.header, &table.rows);
    }
    for measurement in measurements {
        page.heading(&measurement.title());
        for remark in remarks(measurement) {
            page.paragraph(&remark);
        }
        for table in tables(measurement) {
            page.table(&table.heading, &table.header, &table.rows);
        }
        if measurement.lab.is_some() {
            residual_plots(&mut page, &measurement.results)?;
        } else {
            difference_plots(&mut page, &measurement.results)?;
        }
    }
    page.heading("How this was run");
    page.table("", &[], &[vec!["kernel".into(), kernel()]]);
    Ok(page)
}

/// The spread of the sources of each direction, one above the other: around their medians, because
/// a constant is a matter of calibration.
fn residual_plots(page: &mut Page, results: &Results) -> Result<(), PlotError> {
    const TX: [(Point, Point); 5] = [
        (Point::TxSoftware, Point::RxSoftware),
        (Point::XmitSound, Point::RxSoftware),
        (Point::XmitDone, Point::RxSoftware),
        (Point::StartXmit, Point::RxSoftware),
        (Point::TcEgress, Point::RxSoftware),
    ];
    const RX: [(Point, Point); 4] = [
        (Point::XmitDone, Point::Stack),
        (Point::XmitDone, Point::TcIngress),
        (Point::XmitDone, Point::XdpNative),
        (Point::XmitDone, Point::XdpGeneric),
    ];
    for traffic in [Traffic::Unprimed, Traffic::Primed] {
        for (pairs, is_tx, what) in [
            (&TX[..], true, "transmit points, against the kernel's receive stamp"),
            (&RX[..], false, "receive points, against xmit_done"),
        ] {
            let centred: Vec<(&str, Vec<f64>)> = pairs
                .iter()
                .filter_map(|&(tx, rx)| {
                    let tally = results.residual(tx, rx, traffic)?;
                    let median = tally.figures().p50;
                    let values = tally.values().iter().map(|value| value - median).collect();
                    let name = if is_tx { tx.name() } else { rx.name() };
                    Some((name, values))
                })
                .collect();
            if centred.is_empty() {
                continue;
            }
            let caption = format!(
                "Time from transmit to receive stamp around its median, {}: {what}. The steeper the \
                 better.",
                traffic.name()
            );
            cumulative(page, "residual", &centred, &caption)?;
        }
    }
    Ok(())
}

/// All sources against each reference in one plot, and each by itself.
fn difference_plots(page: &mut Page, results: &Results) -> Result<(), PlotError> {
    let mut groups: BTreeMap<(Point, Traffic), Vec<(Point, &Tally)>> = BTreeMap::new();
    for (&(index, traffic), tally) in &results.differences {
        let (source, reference) = COMPARISONS[index];
        groups.entry((reference, traffic)).or_default().push((source, tally));
    }
    for ((reference, traffic), tallies) in groups {
        let values: Vec<(&str, Vec<f64>)> = tallies
            .iter()
            .map(|(source, tally)| (source.name(), tally.values().to_vec()))
            .collect();
        let caption = format!(
            "{} packets, {}: stamp minus {}.",
            if reference.direction() == Direction::Ingress { "Received" } else { "Sent" },
            if traffic == Traffic::Others { "all" } else { traffic.name() },
            reference.name()
        );
        cumulative(page, "difference", &values, &caption)?;
        for (source, tally) in tallies {
            let name = format!("{} - {} {}", source.name(), reference.name(), traffic.name());
            histogram(page, &name, tally)?;
        }
    }
    Ok(())
}

fn cumulative(
    page: &mut Page,
    quantity: &str,
    values: &[(&str, Vec<f64>)],
    caption: &str,
) -> Result<(), PlotError> {
    let distributions: Vec<Distribution<'_>> =
        values.iter().map(|(name, values)| Distribution { name, values }).collect();
    let largest = values.iter().flat_map(|(_, values)| values).fold(0.0, |largest: f64, value| {
        // Nanoseconds up to some microseconds are easier to compare than either alone.
        largest.max(value.abs().min(1e5))
    });
    page.plot(
        &plot::cumulative(quantity, Unit::of_nanos(largest / 10.0), &distributions)?,
        caption,
    );
    Ok(())
}

fn histogram(page: &mut Page, name: &str, tally: &Tally) -> Result<(), PlotError> {
    let figures = tally.figures();
    let unit = Unit::of_nanos(figures.p99.abs().max(figures.p1.abs()));
    let caption = format!(
        "{} packets: mean {}, sd {}, median {}, 99 % below {}.",
        tally.n(),
        nanos(figures.mean),
        nanos(figures.sd),
        nanos(figures.p50),
        nanos(figures.p99)
    );
    page.plot(&plot::histogram(name.trim(), unit, tally.values())?, &caption);
    Ok(())
}
