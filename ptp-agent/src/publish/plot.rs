//! Plots for the HTML reports, as SVG text to be set into a page. Their colours are names, resolved
//! by the page's style sheet (see [`super::report`]), so that one plot serves light and dark pages.

use std::{fmt, io, ops::Range};

use plotters::{
    coord::Shift,
    drawing::DrawingAreaErrorKind,
    prelude::{
        ChartBuilder, Circle, Color, DrawingArea, IntoDrawingArea, IntoLogRange, LineSeries,
        PathElement, RGBColor, Rectangle, SVGBackend, SeriesLabelPosition, Text,
    },
    style::{IntoFont, TextStyle},
};

use super::statistics::percentile;

/// Width and height of a plot in its own units; the page scales it.
const SIZE: (u32, u32) = (960, 320);
/// Points that are drawn of one line at the most: two for each unit of width.
const COLUMNS: usize = 900;

/// What a colour means; the page says which colour that is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Ink {
    /// Axes and text.
    Text = 1,
    /// Grid lines.
    Grid = 2,
    /// The first series.
    First = 3,
    /// The second series.
    Second = 4,
    /// A vertical mark, or the third series.
    Mark = 5,
}

impl Ink {
    /// All of them.
    pub const ALL: [Self; 5] = [Self::Text, Self::Grid, Self::First, Self::Second, Self::Mark];

    /// The colour that stands for this ink in the SVG text, `#00000N`.
    pub fn placeholder(self) -> String {
        format!("#0000{:02X}", self as u8)
    }

    /// The CSS variable that holds the real colour.
    pub const fn variable(self) -> &'static str {
        match self {
            Self::Text => "--text",
            Self::Grid => "--grid",
            Self::First => "--first",
            Self::Second => "--second",
            Self::Mark => "--mark",
        }
    }

    const fn colour(self) -> RGBColor {
        RGBColor(0, 0, self as u8)
    }
}

/// A finished plot: SVG text that may be set into a page as it is.
#[derive(Clone, Debug)]
pub struct Svg(pub(super) String);

impl Svg {
    /// What was drawn elsewhere, in the same placeholders for colours.
    pub(crate) const fn of_text(text: String) -> Self {
        Self(text)
    }

    /// As a file of its own, in a light page's colours.
    pub fn standing_alone(&self) -> String {
        let colour = |ink| match ink {
            Ink::Text => "#24292f",
            Ink::Grid => "#d8dee4",
            Ink::First => "#0969da",
            Ink::Second => "#bc4c00",
            Ink::Mark => "#1a7f37",
        };
        let text = Ink::ALL
            .iter()
            .fold(self.0.clone(), |text, ink| text.replace(&ink.placeholder(), colour(*ink)));
        let paper = "<rect width=\"100%\" height=\"100%\" fill=\"#ffffff\"/>";
        match text.split_once('>') {
            Some((head, rest)) => format!("{head}>{paper}{rest}"),
            None => text,
        }
    }
}

/// A plot that could not be drawn.
#[derive(Debug, thiserror::Error)]
#[error("cannot draw a plot: {0}")]
pub struct PlotError(String);

impl From<DrawingAreaErrorKind<io::Error>> for PlotError {
    fn from(error: DrawingAreaErrorKind<io::Error>) -> Self {
        Self(error.to_string())
    }
}

/// A line over time.
#[derive(Clone, Copy, Debug)]
pub struct Series<'a> {
    /// For the legend.
    pub name: &'a str,
    /// Instant in seconds and value in the plot's unit, in order of time; finite.
    pub points: &'a [(f64, f64)],
    /// Its colour.
    pub ink: Ink,
    /// Dots rather than a line.
    pub dots: bool,
}

/// A vertical line with a word beside it.
#[derive(Clone, Copy, Debug)]
pub struct Mark<'a> {
    /// Where, seconds.
    pub at_s: f64,
    /// The word.
    pub name: &'a str,
}

/// A unit for an axis, chosen by the size of what is shown.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Unit {
    /// One of it in base units.
    pub size: f64,
    /// Its name.
    pub name: &'static str,
}

impl Unit {
    /// For values in nanoseconds up to `largest` in magnitude.
    pub fn of_nanos(largest: f64) -> Self {
        let (size, name) = match largest.abs() {
            x if x < 2e3 => (1.0, "ns"),
            x if x < 2e6 => (1e3, "µs"),
            x if x < 2e9 => (1e6, "ms"),
            _ => (1e9, "s"),
        };
        Self { size, name }
    }

    /// For values in parts per billion up to `largest` in magnitude.
    pub fn of_ppb(largest: f64) -> Self {
        if largest.abs() < 2e3 {
            Self { size: 1.0, name: "ppb" }
        } else {
            Self { size: 1e3, name: "ppm" }
        }
    }
}

/// Lines over time, on a linear scale that fits them, in `unit`; `quantity` names the vertical axis.
///
/// # Errors
/// [`PlotError`] if the drawing library refuses.
pub fn time_series(
    quantity: &str,
    unit: Unit,
    series: &[Series<'_>],
    marks: &[Mark<'_>],
) -> Result<Svg, PlotError> {
    let scaled: Vec<Vec<(f64, f64)>> = series
        .iter()
        .map(|series| envelope(series.points.iter().map(|&(x, y)| (x, y / unit.size))))
        .collect();
    let x = time_range(series);
    let y = padded(range(scaled.iter().flatten().map(|point| point.1)));
    draw(|area| {
        let mut chart = chart(area).build_cartesian_2d(x.clone(), y.clone())?;
        chart
            .configure_mesh()
            .axis_style(Ink::Text.colour())
            .bold_line_style(Ink::Grid.colour())
            .light_line_style(Ink::Grid.colour().mix(0.0))
            .label_style(label())
            .x_desc("time, s")
            .y_desc(format!("{quantity}, {}", unit.name))
            .y_label_formatter(&|value| decimal(*value, &y))
            .draw()?;
        for (series, points) in series.iter().zip(&scaled) {
            let ink = series.ink.colour();
            let drawn = if series.dots {
                chart.draw_series(points.iter().map(|&at| Circle::new(at, 1, ink.filled())))?
            } else {
                chart.draw_series(LineSeries::new(points.iter().copied(), ink))?
            };
            drawn
                .label(series.name)
                .legend(move |(x, y)| Rectangle::new([(x, y - 2), (x + 16, y + 2)], ink.filled()));
        }
        for mark in marks.iter().filter(|mark| x.contains(&mark.at_s)) {
            let line = [(mark.at_s, y.start), (mark.at_s, y.end)];
            chart.draw_series([PathElement::new(line, Ink::Mark.colour())])?;
            chart.draw_series([Text::new(
                format!(" {}", mark.name),
                (mark.at_s, y.end),
                label(),
            )])?;
        }
        if series.len() > 1 {
            chart
                .configure_series_labels()
                .position(SeriesLabelPosition::UpperRight)
                .label_font(label())
                .draw()?;
        }
        Ok(())
    })
}

/// The magnitude of one quantity in nanoseconds over time, on a logarithmic scale: for what falls by
/// orders of magnitude. Values below 1 ns are drawn at 1 ns.
///
/// # Errors
/// [`PlotError`] if the drawing library refuses.
pub fn magnitude_over_time(
    quantity: &str,
    points_ns: &[(f64, f64)],
    marks: &[Mark<'_>],
) -> Result<Svg, PlotError> {
    let points = envelope(points_ns.iter().map(|&(x, y)| (x, y.abs().max(1.0))));
    let series = Series { name: quantity, points: points_ns, ink: Ink::First, dots: false };
    let x = time_range(&[series]);
    let top = points.iter().map(|point| point.1).fold(100.0, f64::max);
    let y = 1.0..10f64.powf(top.log10().ceil());
    draw(|area| {
        let mut chart = chart(area).build_cartesian_2d(x.clone(), (y.start..y.end).log_scale())?;
        chart
            .configure_mesh()
            .axis_style(Ink::Text.colour())
            .bold_line_style(Ink::Grid.colour())
            .light_line_style(Ink::Grid.colour().mix(0.0))
            .label_style(label())
            .x_desc("time, s")
            .y_desc(quantity)
            .y_label_formatter(&|value| {
                // The labels are decades: twice of each is over the limit of the unit below.
                let unit = Unit::of_nanos(value * 2.0);
                format!("{} {}", value / unit.size, unit.name)
            })
            .draw()?;
        chart.draw_series(LineSeries::new(points.iter().copied(), Ink::First.colour()))?;
        for mark in marks.iter().filter(|mark| x.contains(&mark.at_s)) {
            let line = [(mark.at_s, y.start), (mark.at_s, y.end)];
            chart.draw_series([PathElement::new(line, Ink::Mark.colour())])?;
            chart.draw_series([Text::new(
                format!(" {}", mark.name),
                (mark.at_s, y.end),
                label(),
            )])?;
        }
        Ok(())
    })
}

/// How often which value occurs, in `unit`; the outermost thousandth on each side is left out, so
/// that one outlier does not squeeze everything else into one bar.
///
/// # Errors
/// [`PlotError`] if the drawing library refuses.
pub fn histogram(quantity: &str, unit: Unit, values: &[f64]) -> Result<Svg, PlotError> {
    const BARS: usize = 80;
    let mut sorted: Vec<f64> = values.iter().map(|value| value / unit.size).collect();
    sorted.sort_unstable_by(f64::total_cmp);
    let x = padded(percentile(&sorted, 0.001)..percentile(&sorted, 0.999));
    let width = (x.end - x.start) / BARS as f64;
    let mut counts = [0u32; BARS];
    for value in sorted.iter().filter(|value| x.contains(value)) {
        let bar = ((value - x.start) / width) as usize;
        counts[bar.min(BARS - 1)] += 1;
    }
    let share = |count: u32| 100.0 * f64::from(count) / values.len().max(1) as f64;
    let top = counts.iter().copied().max().map_or(1.0, share).max(0.1) * 1.05;
    draw(|area| {
        let mut chart = chart(area).build_cartesian_2d(x.clone(), 0.0..top)?;
        chart
            .configure_mesh()
            .axis_style(Ink::Text.colour())
            .bold_line_style(Ink::Grid.colour())
            .light_line_style(Ink::Grid.colour().mix(0.0))
            .label_style(label())
            .x_desc(format!("{quantity}, {}", unit.name))
            .y_desc("share, %")
            .x_label_formatter(&|value| decimal(*value, &x))
            .y_label_formatter(&|value| decimal(*value, &(0.0..top)))
            .draw()?;
        let bars = counts.iter().enumerate().map(|(bar, count)| {
            let left = x.start + bar as f64 * width;
            Rectangle::new(
                [(left, 0.0), (left + width, share(*count))],
                Ink::First.colour().filled(),
            )
        });
        chart.draw_series(bars)?;
        Ok(())
    })
}

/// One of several distributions.
#[derive(Clone, Copy, Debug)]
pub struct Distribution<'a> {
    /// For the legend.
    pub name: &'a str,
    /// The values, in base units, in any order; finite.
    pub values: &'a [f64],
}

/// Up to four distributions in one plot, as the share of values that are not larger: the steeper, the
/// narrower. The outermost half hundredth of the widest is left out on each side.
///
/// # Errors
/// [`PlotError`] if the drawing library refuses.
pub fn cumulative(
    quantity: &str,
    unit: Unit,
    distributions: &[Distribution<'_>],
) -> Result<Svg, PlotError> {
    const INKS: [Ink; 4] = [Ink::First, Ink::Second, Ink::Mark, Ink::Text];
    const STEPS: usize = 400;
    let sorted: Vec<Vec<f64>> = distributions
        .iter()
        .map(|distribution| {
            let mut values: Vec<f64> =
                distribution.values.iter().map(|value| value / unit.size).collect();
            values.sort_unstable_by(f64::total_cmp);
            values
        })
        .collect();
    let ends = |values: &Vec<f64>| [percentile(values, 0.005), percentile(values, 0.995)];
    let x = padded(range(sorted.iter().filter(|values| !values.is_empty()).flat_map(ends)));
    draw(|area| {
        let mut chart = chart(area).build_cartesian_2d(x.clone(), 0.0..100.0)?;
        chart
            .configure_mesh()
            .axis_style(Ink::Text.colour())
            .bold_line_style(Ink::Grid.colour())
            .light_line_style(Ink::Grid.colour().mix(0.0))
            .label_style(label())
            .x_desc(format!("{quantity}, {}", unit.name))
            .y_desc("share, %")
            .x_label_formatter(&|value| decimal(*value, &x))
            .y_label_formatter(&|value| format!("{value:.0}"))
            .draw()?;
        for ((distribution, values), ink) in distributions.iter().zip(&sorted).zip(INKS) {
            let ink = ink.colour();
            let points = (0..=STEPS)
                .map(|step| step as f64 / STEPS as f64)
                .map(|share| (percentile(values, share), 100.0 * share))
                .filter(|point| !values.is_empty() && x.contains(&point.0));
            chart
                .draw_series(LineSeries::new(points, ink.stroke_width(2)))?
                .label(distribution.name)
                .legend(move |(x, y)| Rectangle::new([(x, y - 2), (x + 16, y + 2)], ink.filled()));
        }
        chart
            .configure_series_labels()
            .position(SeriesLabelPosition::LowerRight)
            .label_font(label())
            .draw()?;
        Ok(())
    })
}

type Area<'a> = DrawingArea<SVGBackend<'a>, Shift>;

fn draw(
    plot: impl FnOnce(&Area<'_>) -> Result<(), DrawingAreaErrorKind<io::Error>>,
) -> Result<Svg, PlotError> {
    let mut text = String::new();
    {
        let area = SVGBackend::with_string(&mut text, SIZE).into_drawing_area();
        plot(&area)?;
        area.present()?;
    }
    Ok(Svg(text))
}

fn chart<'a, 'b>(area: &'a Area<'b>) -> ChartBuilder<'a, 'b, SVGBackend<'b>> {
    let mut builder = ChartBuilder::on(area);
    builder.margin(12).margin_right(24).x_label_area_size(44).y_label_area_size(88);
    builder
}

fn label() -> TextStyle<'static> {
    ("sans-serif", 17).into_font().color(&Ink::Text.colour())
}

/// Smallest and largest of some values; 0 to 0 of none.
fn range(values: impl Iterator<Item = f64>) -> Range<f64> {
    let (mut low, mut high) = (f64::INFINITY, f64::NEG_INFINITY);
    for value in values {
        low = low.min(value);
        high = high.max(value);
    }
    if low <= high { low..high } else { 0.0..0.0 }
}

/// A little more than `range`, and never empty.
fn padded(range: Range<f64>) -> Range<f64> {
    let pad = match (range.end - range.start) * 0.05 {
        0.0 => 1.0,
        pad => pad,
    };
    range.start - pad..range.end + pad
}

fn time_range(series: &[Series<'_>]) -> Range<f64> {
    let ends = |series: &Series<'_>| Some([series.points.first()?.0, series.points.last()?.0]);
    let Range { start, end } = range(series.iter().filter_map(ends).flatten());
    start..if end > start { end } else { start + 1.0 }
}

/// The least digits that tell neighbouring labels of an axis over `range` apart.
fn decimal(value: f64, range: &Range<f64>) -> String {
    let step = (range.end - range.start) / 20.0;
    let digits = (-step.log10()).ceil().clamp(0.0, 6.0) as usize;
    // Not "-0".
    let value = if value.abs() < step / 100.0 { 0.0 } else { value };
    format!("{value:.digits$}")
}

/// At the most two points for each column of the plot, the smallest and the largest value in it in
/// their order of time: looks like all points, at a bounded size of the page.
fn envelope(points: impl Iterator<Item = (f64, f64)>) -> Vec<(f64, f64)> {
    let points: Vec<(f64, f64)> = points.collect();
    if points.len() <= 2 * COLUMNS {
        return points;
    }
    let size = points.len().div_ceil(COLUMNS);
    let mut reduced = Vec::with_capacity(2 * COLUMNS);
    for column in points.chunks(size) {
        let by_value = |a: &&(f64, f64), b: &&(f64, f64)| a.1.total_cmp(&b.1);
        let (Some(&low), Some(&high)) =
            (column.iter().min_by(by_value), column.iter().max_by(by_value))
        else {
            continue;
        };
        reduced.extend(if low.0 <= high.0 { [low, high] } else { [high, low] });
    }
    reduced
}

impl fmt::Display for Svg {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wave() -> Vec<(f64, f64)> {
        (0..100_000).map(|i| (f64::from(i) * 1e-3, f64::from(i % 977) - 500.0)).collect()
    }

    #[test]
    fn plot_is_svg_of_bounded_size_in_placeholder_colours() {
        let points = wave();
        let series = Series { name: "a", points: &points, ink: Ink::First, dots: false };
        let svg = time_series("offset", Unit::of_nanos(500.0), &[series], &[]).unwrap().0;
        assert!(svg.starts_with("<svg ") && svg.trim_end().ends_with("</svg>"));
        assert!(svg.len() < 100_000, "{}", svg.len());
        assert!(svg.contains(&Ink::First.placeholder()));
    }

    #[test]
    fn envelope_keeps_the_extremes_in_order_of_time() {
        let mut points = wave();
        points[50_000].1 = 1e6;
        points[70_000].1 = -1e6;
        let reduced = envelope(points.into_iter());
        assert!(reduced.len() <= 2 * COLUMNS);
        assert_eq!(range(reduced.iter().map(|point| point.1)), -1e6..1e6);
        assert!(reduced.is_sorted_by(|a, b| a.0 <= b.0));
    }

    #[test]
    fn nothing_and_constants_can_be_drawn() {
        for points in [vec![], vec![(1.0, 5.0)], vec![(0.0, 0.0), (1.0, 0.0)]] {
            let series = Series { name: "a", points: &points, ink: Ink::First, dots: true };
            let mark = Mark { at_s: 0.5, name: "here" };
            time_series("x", Unit::of_ppb(1.0), &[series, series], &[mark]).unwrap();
            magnitude_over_time("x", &points, &[mark]).unwrap();
            let values: Vec<f64> = points.iter().map(|point| point.1).collect();
            histogram("x", Unit::of_nanos(1.0), &values).unwrap();
            let distribution = Distribution { name: "a", values: &values };
            cumulative("x", Unit::of_nanos(1.0), &[distribution; 4]).unwrap();
        }
    }

    #[test]
    fn units_follow_the_size() {
        assert_eq!(Unit::of_nanos(-900.0).name, "ns");
        assert_eq!(Unit::of_nanos(45_000.0).name, "µs");
        assert_eq!(Unit::of_nanos(1.5e9).name, "ms");
        assert_eq!(Unit::of_ppb(-37_000.0).name, "ppm");
    }

    #[test]
    fn labels_have_the_digits_that_they_need() {
        assert_eq!(decimal(120.0, &(0.0..1000.0)), "120");
        assert_eq!(decimal(0.25, &(0.0..1.0)), "0.25");
        assert_eq!(decimal(-1e-12, &(-1.0..1.0)), "0.0");
    }
}
