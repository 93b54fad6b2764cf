//! The status as a view of the terminal: offset and delay of the last minutes, states, stamps,
//! losses, alarms.

use ratatui::{
    Frame,
    layout::{Constraint, Layout, Rect},
    style::{Color, Style},
    text::{Line, Span},
    widgets::{Block, Paragraph, Row, Table, Wrap},
};

use super::{
    model::{Sources, Status, stamps},
    text::{agent, bound_by, grandmaster, interval, lost, shown, span, time, utc},
};
use crate::{
    publish::{
        snapshot::Named,
        terminal::{Series, bold, chart, dim, figure},
        text::{nanos, ppb},
    },
    servo::ServoState,
    stamp::StampSource,
};

/// Seconds of the past that the charts show.
const CHART_SECONDS: f64 = 300.0;

pub(super) fn draw(frame: &mut Frame<'_>, status: &Status) {
    let alarms = u16::try_from(status.alarms.len().clamp(1, 4)).unwrap_or(1);
    let ports = u16::try_from(status.ports.len().clamp(1, 4)).unwrap_or(1);
    let [title, figures, offsets, delays, stamps, raised, keys] = Layout::vertical([
        Constraint::Length(1),
        Constraint::Length(10),
        Constraint::Min(7),
        Constraint::Min(5),
        Constraint::Length(ports + 3),
        Constraint::Length(alarms + 2),
        Constraint::Length(1),
    ])
    .areas(frame.area());
    draw_title(frame, title, status);
    draw_figures(frame, figures, status);
    draw_history(frame, (offsets, delays), status);
    draw_ports(frame, stamps, status);
    draw_alarms(frame, raised, status);
    frame.render_widget(Paragraph::new("q ends").style(dim()), keys);
}

fn draw_title(frame: &mut Frame<'_>, area: Rect, status: &Status) {
    let mut spans = vec![Span::styled(agent(status), bold())];
    if let Some(problem) = &status.problem {
        spans.push(Span::styled(format!("  {problem}"), Style::new().fg(Color::Red)));
    }
    frame.render_widget(Paragraph::new(Line::from(spans)), area);
}

fn draw_figures(frame: &mut Frame<'_>, area: Rect, status: &Status) {
    let [left, right] =
        Layout::horizontal([Constraint::Percentage(40), Constraint::Percentage(60)]).areas(area);
    let widths = [Constraint::Length(12), Constraint::Min(8)];
    let plain = Style::new();
    let now = [
        figure("offset", time(status.following.offset_ns), bold()),
        figure("delay", time(status.following.delay_ns), plain),
        figure("frequency", status.following.frequency_ppb.map_or("-".into(), ppb), plain),
        figure("error bound", bound_by(status), plain),
        figure("precision", time(status.following.precision_ns), plain),
        figure("interval", interval(status), plain),
        figure(
            "samples",
            match (status.samples, status.following.sample_age_s) {
                (Some(samples), Some(age)) => format!("{samples}, last {} ago", span(age)),
                (Some(samples), None) => samples.to_string(),
                _ => "-".into(),
            },
            plain,
        ),
    ];
    frame.render_widget(Table::new(now, widths).block(Block::bordered().title("clock")), left);
    let known = |value: &Option<String>| value.clone().unwrap_or("-".into());
    let is_locked =
        status.following.servo_state.as_ref().is_some_and(|state| *state == ServoState::Locked);
    let state = [
        figure(
            "servo",
            format!(
                "{} ({})",
                shown(status.following.servo_state.as_ref()),
                known(&status.following.servo)
            ),
            if is_locked { bold() } else { plain },
        ),
        figure("grandmaster", grandmaster(status), plain),
        figure("parent", known(&status.following.parent_port), plain),
        figure("own clock", known(&status.clock_identity), plain),
        figure("bound is to", shown(status.following.bound_reference.as_ref()), plain),
        figure("UTC", utc(status), plain),
        figure("withheld", status.following.withheld.clone().unwrap_or("nothing".into()), plain),
        figure("lost", lost(status), plain),
    ];
    frame.render_widget(Table::new(state, widths).block(Block::bordered().title("state")), right);
}

fn draw_history(frame: &mut Frame<'_>, (offsets, delays): (Rect, Rect), status: &Status) {
    let to = status.history.last().map_or(CHART_SECONDS, |point| point.0.max(CHART_SECONDS));
    let from = to - CHART_SECONDS;
    let recent = || status.history.iter().filter(|point| point.0 >= from);
    let offset: Vec<_> = recent().map(|point| (point.0, point.1 as f64)).collect();
    let delay: Vec<_> = recent().filter_map(|point| Some((point.0, point.2? as f64))).collect();
    for (area, title, points) in [(offsets, "offset", &offset), (delays, "delay", &delay)] {
        let series = [Series { name: "", points, is_line: true }];
        chart(frame, area, title, &series, (from, to, from), (100.0, nanos));
    }
}

fn draw_ports(frame: &mut Frame<'_>, area: Rect, status: &Status) {
    let rows = status.ports.iter().map(|port| {
        let role = || shown(port.observed.role.as_ref());
        let state = port.state.as_ref().map_or_else(role, ToString::to_string);
        let sources = port.stamped.sources.as_ref();
        let source = |of: fn(&Sources) -> &Named<StampSource>| shown(sources.map(of));
        let primed = sources.is_some_and(|sources| sources.primed);
        Row::new([
            port.interface.clone().unwrap_or("-".into()),
            state,
            source(|sources| &sources.rx),
            stamps(port, "rx"),
            source(|sources| &sources.tx) + if primed { " (primed)" } else { "" },
            stamps(port, "tx"),
        ])
    });
    let widths = [
        Constraint::Length(10),
        Constraint::Length(16),
        Constraint::Length(12),
        Constraint::Min(20),
        Constraint::Length(20),
        Constraint::Min(20),
    ];
    let header = ["port", "state", "RX source", "RX stamps", "TX source", "TX stamps"];
    let table = Table::new(rows, widths)
        .header(Row::new(header).style(dim()))
        .block(Block::bordered().title("timestamps"));
    frame.render_widget(table, area);
}

fn draw_alarms(frame: &mut Frame<'_>, area: Rect, status: &Status) {
    let red = Style::new().fg(Color::Red);
    let lines: Vec<Line<'_>> = status
        .alarms
        .iter()
        .map(|alarm| {
            Line::from(vec![
                Span::styled(alarm.alarm.to_string(), red),
                Span::raw(format!(" for {}: {}", span(alarm.for_s), alarm.meaning)),
            ])
        })
        .collect();
    let (lines, style) = if lines.is_empty() {
        (vec![Line::styled("none", dim())], Style::new())
    } else {
        (lines, red)
    };
    let block = Block::bordered().title("alarms").border_style(style);
    frame.render_widget(Paragraph::new(lines).wrap(Wrap { trim: true }).block(block), area);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::status::model::tests::example;
    use ratatui::{Terminal, backend::TestBackend};

    fn screen(width: u16, height: u16, status: &Status) -> String {
        let mut terminal = Terminal::new(TestBackend::new(width, height)).unwrap();
        terminal.draw(|frame| draw(frame, status)).unwrap();
        terminal.backend().to_string()
    }

    #[test]
    fn view_shows_figures_states_stamps_and_alarms() {
        let screen = screen(120, 40, &Status::new(&example()));
        for text in [
            "-123 ns",
            "812 ns by causality",
            "45 ns",
            "-812 ns to 630 ns",
            "bound is to  grandmaster",
            "within 912 ns",
            "4.21 µs",
            "locked (adaptive)",
            "aabbcc.fffe.ddeeff",
            "time_receiver",
            "512 matched",
            "start_xmit (primed)",
            "7 wrong_domain",
            "grandmaster_changed for 12 s",
            "300 s",
        ] {
            assert!(screen.contains(text), "{text}\n{screen}");
        }
    }

    #[test]
    fn view_fits_any_terminal_and_any_status() {
        for (width, height) in [(1, 1), (20, 5), (80, 24), (300, 100)] {
            screen(width, height, &Status::new(&example()));
            screen(width, height, &Status::default());
        }
    }
}
