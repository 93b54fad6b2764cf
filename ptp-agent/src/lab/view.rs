//! What can be seen of the laboratory while it runs: a terminal view where there is a terminal, one
//! line per second elsewhere.

use std::{io, time::Duration};

use ratatui::{
    Frame,
    layout::{Constraint, Layout, Rect},
    style::{Color, Style},
    text::{Line, Span},
    widgets::{Block, Paragraph, Sparkline, Table},
};

use super::observation::{Observation, Point, seconds_since};
use crate::{
    publish::{
        terminal::{Screen, Series, bold, chart, dim, figure},
        text::{nanos, ppb},
    },
    servo::ServoState,
};

/// Seconds of the past that the chart shows.
const CHART_SECONDS: f64 = 30.0;
/// Seconds of the past that its vertical scale fits.
const SCALE_SECONDS: f64 = 4.0;

/// How far the run is.
#[derive(Clone, Copy, Debug)]
pub(super) struct Progress<'a> {
    /// What is being done, in a line.
    pub title: &'a str,
    /// Time since the start.
    pub elapsed: Duration,
    /// Time that it will take.
    pub duration: Duration,
    /// Whether the children are ending already.
    pub ending: bool,
}

/// The terminal.
#[derive(Debug)]
pub(super) struct View {
    screen: Screen,
}

impl View {
    /// Takes the terminal.
    ///
    /// # Errors
    /// When standard output is no terminal that could be taken.
    pub(super) fn start() -> io::Result<Self> {
        Ok(Self { screen: Screen::start()? })
    }

    /// Draws the present state.
    ///
    /// # Errors
    /// When the terminal cannot be written to.
    pub(super) fn draw(
        &mut self,
        observation: &Observation,
        progress: Progress<'_>,
    ) -> io::Result<()> {
        self.screen.draw(|frame| draw(frame, observation, progress))
    }

    /// Whether the user asked to end since the last call: q, Escape or Ctrl-C.
    ///
    /// # Errors
    /// When the terminal cannot be read.
    pub(super) fn is_end_wanted(&mut self) -> io::Result<bool> {
        self.screen.is_end_wanted(Duration::ZERO)
    }
}

/// The line that is printed each second where there is no terminal view.
pub(super) fn progress_line(observation: &Observation, progress: Progress<'_>) -> String {
    let seconds = progress.elapsed.as_secs();
    match (&observation.last, observation.points.last()) {
        (Some(sample), Some(point)) => format!(
            "{seconds:>4} s  {:<9} true error {:>9}  bound {:>9}  offset {:>9}  delay {:>9}  frequency {}",
            sample.state,
            optional(point.true_error_ns, nanos),
            optional(sample.error_bound_ns, |bound| nanos(bound as f64)),
            nanos(point.offset_ns as f64),
            optional(point.delay_ns, |delay| nanos(delay as f64)),
            ppb(point.frequency_ppb),
        ),
        _ => format!("{seconds:>4} s  no sample yet"),
    }
}

fn optional<T>(value: Option<T>, format: impl Fn(T) -> String) -> String {
    value.map_or_else(|| "-".into(), format)
}

fn draw(frame: &mut Frame<'_>, observation: &Observation, progress: Progress<'_>) {
    let [title, figures, chart, convergence, log, keys] = Layout::vertical([
        Constraint::Length(1),
        Constraint::Length(7),
        Constraint::Min(8),
        Constraint::Length(4),
        Constraint::Length(4),
        Constraint::Length(1),
    ])
    .areas(frame.area());
    draw_title(frame, title, progress);
    draw_figures(frame, figures, observation);
    draw_chart(frame, chart, observation);
    draw_convergence(frame, convergence, observation);
    draw_log(frame, log, observation);
    let hint = if progress.ending { "ending ..." } else { "q or Ctrl-C ends early" };
    frame.render_widget(Paragraph::new(hint).style(dim()), keys);
}

fn draw_title(frame: &mut Frame<'_>, area: Rect, progress: Progress<'_>) {
    let title = Line::from(vec![
        Span::styled("ptp-agent lab", bold()),
        Span::raw(format!(
            "  {} of {} s  ",
            progress.elapsed.as_secs().min(progress.duration.as_secs()),
            progress.duration.as_secs()
        )),
        Span::styled(progress.title, dim()),
    ]);
    frame.render_widget(Paragraph::new(title), area);
}

fn draw_figures(frame: &mut Frame<'_>, area: Rect, observation: &Observation) {
    let [left, right] =
        Layout::horizontal([Constraint::Percentage(50), Constraint::Percentage(50)]).areas(area);
    let point = observation.points.last();
    let row = figure;
    let read = |read: &dyn Fn(&Point) -> Option<String>| point.and_then(read).unwrap_or("-".into());
    let widths = [Constraint::Length(12), Constraint::Min(8)];
    let bound = observation.last.as_ref().map_or("-".into(), |last| {
        let time = |value: Option<i64>| optional(value, |value| nanos(value as f64));
        format!("{} (precision {})", time(last.error_bound_ns), time(last.precision_ns))
    });
    let now = [
        row("true error", read(&|point| point.true_error_ns.map(nanos)), bold()),
        row("bound", bound, Style::new()),
        row("offset", read(&|point| Some(nanos(point.offset_ns as f64))), Style::new()),
        row("delay", read(&|point| point.delay_ns.map(|ns| nanos(ns as f64))), Style::new()),
        row("frequency", read(&|point| Some(ppb(point.frequency_ppb))), Style::new()),
    ];
    frame.render_widget(Table::new(now, widths).block(Block::bordered().title("agent")), left);

    let last = observation.last.as_ref();
    let state = last.map_or("waiting".into(), |sample| sample.state.to_string());
    let is_locked = last.is_some_and(|sample| sample.state == ServoState::Locked);
    let source = |of: Option<&str>| of.unwrap_or("-").to_owned();
    let counts = [
        row("servo", state, if is_locked { bold() } else { Style::new() }),
        row("samples", observation.points.len().to_string(), Style::new()),
        row("RX stamps", source(last.and_then(|last| last.rx_source.as_deref())), Style::new()),
        row("TX stamps", source(last.and_then(|last| last.tx_source.as_deref())), Style::new()),
    ];
    frame.render_widget(Table::new(counts, widths).block(Block::bordered().title("state")), right);
}

fn draw_chart(frame: &mut Frame<'_>, area: Rect, observation: &Observation) {
    let start = observation.start_ns().unwrap_or_default();
    let end = observation.points.last().map_or(0.0, |point| seconds_since(start, point.mono_ns));
    let from = (end - CHART_SECONDS).max(0.0);
    let shown = |value: &dyn Fn(&Point) -> Option<f64>| -> Vec<(f64, f64)> {
        let recent = observation.points.iter().rev();
        let points = recent.map(|point| (seconds_since(start, point.mono_ns), value(point)));
        let mut points: Vec<(f64, f64)> = points
            .take_while(|(at, _)| *at >= from)
            .filter_map(|(at, value)| Some((at, value?)))
            .collect();
        points.reverse();
        points
    };
    let errors = shown(&|point| point.true_error_ns);
    let offsets = shown(&|point| Some(point.raw_offset_ns as f64));

    let series = [
        Series { name: "offset, one exchange", points: &offsets, is_line: false },
        Series { name: "true error", points: &errors, is_line: true },
    ];
    chart(
        frame,
        area,
        "true error (agent clock minus grandmaster clock)",
        &series,
        (from, from + CHART_SECONDS, end - SCALE_SECONDS),
        (100.0, nanos),
    );
}

/// The whole run in one row of bars: decades of |true error|, 1 ns to 10 s.
fn draw_convergence(frame: &mut Frame<'_>, area: Rect, observation: &Observation) {
    let block = Block::bordered().title("|true error| since the start, logarithmic, 1 ns to 10 s");
    let columns = usize::from(block.inner(area).width).max(1);
    let per_column = observation.points.len().div_ceil(columns).max(1);
    let bars: Vec<u64> = observation
        .points
        .chunks(per_column)
        .map(|points| {
            let errors = points.iter().filter_map(|point| point.true_error_ns);
            let largest = errors.map(f64::abs).fold(1.0, f64::max);
            (largest.log10() * 100.0) as u64
        })
        .collect();
    let sparkline =
        Sparkline::default().block(block).data(bars).max(1_000).style(Style::new().fg(Color::Cyan));
    frame.render_widget(sparkline, area);
}

fn draw_log(frame: &mut Frame<'_>, area: Rect, observation: &Observation) {
    let skip = observation.log.len().saturating_sub(usize::from(area.height));
    let lines: Vec<Line<'_>> = observation
        .log
        .iter()
        .skip(skip)
        .map(|(role, line)| {
            Line::from(vec![Span::styled(format!("{}: ", role.name()), bold()), Span::raw(line)])
        })
        .collect();
    frame.render_widget(Paragraph::new(lines).style(dim()), area);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        lab::peers::Role,
        publish::json::{ClockLine, Event, Sample},
    };
    use ratatui::{Terminal, backend::TestBackend};

    fn observation(samples: i64) -> Observation {
        let mut observation = Observation::default();
        for (role, clock_ns) in [(Role::Grandmaster, 1_500_000_000), (Role::Agent, 1_500_000_250)] {
            let line = ClockLine { mono_ns: 0, clock_ns, frequency_ppb: 0.0 };
            observation.note(role, Event::Clock(line));
        }
        for sample in 0..samples {
            observation.note(
                Role::Agent,
                Event::Sample(Sample {
                    interface: "ptp1".into(),
                    domain: 0,
                    mono_ns: sample * 62_500_000,
                    offset_ns: 300,
                    raw_offset_ns: -400,
                    delay_ns: Some(4_200),
                    frequency_ppb: 37_000.0,
                    error_bound_ns: None,
                    precision_ns: None,
                    interval_ns: None,
                    state: "locked".into(),
                    rx_source: Some("stack".into()),
                    tx_source: Some("start_xmit".into()),
                    strategy: None,
                    source: None,
                    grandmaster: None,
                }),
            );
        }
        observation
    }

    fn progress() -> Progress<'static> {
        Progress {
            title: "udp4",
            elapsed: Duration::from_secs(7),
            duration: Duration::from_secs(60),
            ending: false,
        }
    }

    fn screen(width: u16, height: u16, observation: &Observation) -> String {
        let mut terminal = Terminal::new(TestBackend::new(width, height)).unwrap();
        terminal.draw(|frame| draw(frame, observation, progress())).unwrap();
        terminal.backend().to_string()
    }

    #[test]
    fn view_shows_the_figures_of_the_last_sample() {
        let screen = screen(100, 36, &observation(800));
        for text in ["7 of 60 s", "250 ns", "300 ns", "4.20 µs", "37.000 ppm", "locked", "stack"] {
            assert!(screen.contains(text), "{text}\n{screen}");
        }
    }

    #[test]
    fn view_fits_any_terminal() {
        for (width, height) in [(1, 1), (20, 5), (300, 100)] {
            screen(width, height, &observation(800));
            screen(width, height, &Observation::default());
        }
    }

    #[test]
    fn progress_line_says_when_there_is_nothing_yet() {
        let line = progress_line(&Observation::default(), progress());
        assert!(line.contains("no sample yet"));
        let line = progress_line(&observation(1), progress());
        assert!(line.contains("locked") && line.contains("250 ns"), "{line}");
    }
}
