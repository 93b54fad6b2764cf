//! What the terminal views share: taking the terminal and giving it back, the keys that end a view,
//! styles, and a chart of something signed over time.

use std::{io, time::Duration};

use crossterm::event::{self, KeyCode, KeyEventKind, KeyModifiers};
use ratatui::{
    DefaultTerminal, Frame,
    layout::Rect,
    style::{Color, Modifier, Style},
    symbols::Marker,
    text::Span,
    widgets::{Axis, Block, Chart, Dataset, GraphType, LegendPosition, Row},
};

/// The terminal, given back when this is dropped, and on a panic.
#[derive(Debug)]
pub struct Screen {
    terminal: DefaultTerminal,
}

impl Screen {
    /// Takes the terminal.
    ///
    /// # Errors
    /// When standard output is no terminal that could be taken.
    pub fn start() -> io::Result<Self> {
        // Installs the panic hook too.
        Ok(Self { terminal: ratatui::try_init()? })
    }

    /// Draws.
    ///
    /// # Errors
    /// When the terminal cannot be written to.
    pub fn draw(&mut self, draw: impl FnOnce(&mut Frame<'_>)) -> io::Result<()> {
        self.terminal.draw(draw)?;
        Ok(())
    }

    /// Whether the user asks to end (q, Escape or Ctrl-C), looked for until `patience` is over or
    /// something happens.
    ///
    /// # Errors
    /// When the terminal cannot be read.
    pub fn is_end_wanted(&mut self, patience: Duration) -> io::Result<bool> {
        let mut wanted = false;
        let mut patience = patience;
        while event::poll(patience)? {
            patience = Duration::ZERO;
            let event::Event::Key(key) = event::read()? else { continue };
            let interrupt =
                key.code == KeyCode::Char('c') && key.modifiers.contains(KeyModifiers::CONTROL);
            let quit = matches!(key.code, KeyCode::Char('q') | KeyCode::Esc);
            wanted |= key.kind == KeyEventKind::Press && (quit || interrupt);
        }
        Ok(wanted)
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        ratatui::restore();
    }
}

/// What is of less interest.
pub fn dim() -> Style {
    Style::new().add_modifier(Modifier::DIM)
}

/// What is of more.
pub fn bold() -> Style {
    Style::new().add_modifier(Modifier::BOLD)
}

/// A named figure as a row of a table.
pub fn figure(name: &'static str, value: String, style: Style) -> Row<'static> {
    Row::new([Span::styled(name, dim()), Span::styled(value, style)])
}

/// A series of a chart.
#[derive(Clone, Copy, Debug)]
pub struct Series<'a> {
    /// Its name in the legend.
    pub name: &'static str,
    /// Seconds and values.
    pub points: &'a [(f64, f64)],
    /// A line in colour; otherwise quiet dots.
    pub is_line: bool,
}

/// Draws series over the seconds `from..to`. The vertical scale shows at least `least` and is
/// symmetrical, or begins at zero where nothing is negative. It fits all that is at or behind `fit`
/// but its most extreme twentieth: neither an outlier nor the time before the first step may flatten
/// the rest.
pub fn chart(
    frame: &mut Frame<'_>,
    area: Rect,
    title: &str,
    series: &[Series<'_>],
    (from, to, fit): (f64, f64, f64),
    (least, unit): (f64, fn(f64) -> String),
) {
    let fitted = || {
        let points = series.iter().flat_map(|series| series.points);
        points.filter(|(at, _)| *at >= fit).map(|(_, value)| *value)
    };
    let mut magnitudes: Vec<f64> = fitted().map(f64::abs).collect();
    magnitudes.sort_unstable_by(f64::total_cmp);
    let fits = magnitudes.get(magnitudes.len() * 19 / 20).copied().unwrap_or(0.0).max(least) * 1.2;
    let bottom = if fitted().any(|value| value < 0.0) { -fits } else { 0.0 };
    let middle = if bottom < 0.0 { "0".into() } else { unit(fits / 2.0) };
    let datasets = series.iter().map(|series| {
        let set = Dataset::default().name(series.name).data(series.points);
        if series.is_line {
            set.marker(Marker::Braille)
                .graph_type(GraphType::Line)
                .style(Style::new().fg(Color::Cyan))
        } else {
            set.marker(Marker::Dot)
                .graph_type(GraphType::Scatter)
                .style(Style::new().fg(Color::DarkGray))
        }
    });
    let chart = Chart::new(datasets.collect())
        .block(Block::bordered().title(title))
        .x_axis(
            Axis::default()
                .style(dim())
                .bounds([from, to])
                .labels([format!("{from:.0} s"), format!("{to:.0} s")]),
        )
        .y_axis(Axis::default().style(dim()).bounds([bottom, fits]).labels([
            unit(bottom),
            middle,
            unit(fits),
        ]))
        .legend_position((series.len() > 1).then_some(LegendPosition::TopRight));
    frame.render_widget(chart, area);
}
