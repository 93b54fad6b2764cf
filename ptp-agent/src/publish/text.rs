//! Figures as people read them: a unit that fits, and no more digits than mean something.

use crate::capture::InterruptReport;

/// A time in nanoseconds, three significant digits or whole nanoseconds.
pub fn nanos(value: f64) -> String {
    let magnitude = value.abs();
    let (size, unit) = match magnitude {
        x if x < 999.5 => return format!("{} ns", whole(value)),
        x if x < 999.5e3 => (1e3, "µs"),
        x if x < 999.5e6 => (1e6, "ms"),
        _ => (1e9, "s"),
    };
    format!("{} {unit}", three_digits(value / size))
}

/// A ratio in parts per billion.
pub fn ppb(value: f64) -> String {
    if value.abs() < 999.5 {
        format!("{} ppb", three_digits(value))
    } else {
        format!("{:.3} ppm", value / 1e3)
    }
}

/// What interrupts did to stamps.
pub fn interrupts(report: &InterruptReport) -> String {
    let Some(spread) = report.to_stack_ns.or(report.to_tc_ingress_ns) else {
        return format!("{} packets, none of them behind an interrupt", report.packets);
    };
    let stamp = if report.to_stack_ns.is_some() { "the stack's stamp" } else { "TC ingress" };
    let polls = report.packets_per_poll.map_or_else(String::new, |mean| {
        format!("; {mean:.2} packets per poll, {} at the most", report.most_in_a_poll)
    });
    let (half, most) = (nanos(spread.p50 as f64), nanos(spread.p99 as f64));
    let (n, without) = (spread.n, report.without_interrupt);
    format!(
        "from the interrupt to {stamp} {half} (p50), {most} (p99) of {n} packets, {without} more came \
         without an interrupt of their own{polls}"
    )
}

fn whole(value: f64) -> f64 {
    // Adding zero turns -0 into 0.
    value.round() + 0.0
}

fn three_digits(value: f64) -> String {
    match value.abs() {
        x if x < 9.995 => format!("{:.2}", value + 0.0),
        x if x < 99.95 => format!("{value:.1}"),
        _ => format!("{value:.0}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_have_a_fitting_unit() {
        for (value, text) in [
            (-0.2, "0 ns"),
            (-123.4, "-123 ns"),
            (999.6, "1.00 µs"),
            (45_678.0, "45.7 µs"),
            (-1.5e9, "-1.50 s"),
            (250e6, "250 ms"),
        ] {
            assert_eq!(nanos(value), text);
        }
    }

    #[test]
    fn frequencies_are_ppb_or_ppm() {
        assert_eq!(ppb(-36_999.7), "-37.000 ppm");
        assert_eq!(ppb(12.34), "12.3 ppb");
    }
}
