//! The pictures of the user guide, from a real run: an agent follows a grandmaster that goes and comes
//! back, Prometheus scrapes the agent and is asked the dashboard's own queries, and `status --watch`
//! is seen in a real terminal. `pictures DIRECTORY` writes them. Needs root and Prometheus.

use std::{
    env, fs,
    path::Path,
    process::{Command, ExitCode},
    thread,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use bpf_tests::{
    agent::{Agent, binary},
    links::Wire,
    prometheus::{self, Prometheus, dashboard, queries},
    terminal::Terminal,
};
use ptp_agent::publish::plot::{Ink, Series, Unit, time_series};
use serde_json::Value;

/// Undisturbed, without grandmaster, and with it again.
const SPANS: [Duration; 3] =
    [Duration::from_secs(80), Duration::from_secs(40), Duration::from_secs(60)];
const PATIENCE: Duration = Duration::from_secs(30);

/// Which panels of the dashboard are drawn, and the files' names.
const PANELS: [(&str, &str); 4] = [
    ("Offset from the grandmaster", "panel-offset"),
    ("Mean path delay", "panel-delay"),
    ("Error bound", "panel-bound"),
    ("Alarms", "panel-alarms"),
];

fn main() -> ExitCode {
    let Some(directory) = env::args().nth(1) else {
        eprintln!("usage: pictures DIRECTORY");
        return ExitCode::from(2);
    };
    match draw(Path::new(&directory)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(reason) => {
            eprintln!("pictures: {reason}");
            ExitCode::FAILURE
        }
    }
}

fn unix_time() -> f64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs_f64()
}

fn draw(directory: &Path) -> Result<(), String> {
    let failed = |error: std::io::Error| format!("{}: {error}", directory.display());
    fs::create_dir_all(directory).map_err(failed)?;
    let wire = Wire::new()?;
    let serve = "serve -i gm0 --log-sync-interval -4 --log-announce-interval -2 \
                 --log-min-delay-req-interval -4 --status-socket none";
    let serve: Vec<&str> = serve.split_whitespace().collect();
    let mut grandmaster = Agent::start(&wire.grandmaster, &serve);
    let sockets = tempfile::tempdir().map_err(failed)?;
    let socket = sockets.path().join("status");
    let run = ["run", "-i", "ptp0", "--clock", "virtual", "--metrics-address", "127.0.0.1:9319"];
    let socket_text = socket.to_string_lossy();
    let arguments = [&run[..], &["--status-socket", &socket_text]].concat();
    let agent = Agent::start(&wire.client, &arguments);
    agent.wait_for_samples(0, PATIENCE, 16);
    let prometheus = Prometheus::start(&wire.client)?;
    let start = unix_time();
    thread::sleep(SPANS[0]);

    let mut watch = Command::new(binary());
    watch.args(["status", "--watch", "--status-socket"]).arg(&socket);
    let mut terminal = Terminal::start(&mut watch, 36, 120);
    terminal.wait_for(PATIENCE, &["locked (adaptive)", "matched"]);
    terminal.watch(Duration::from_secs(2));
    let screen = screen(terminal.screen());
    fs::write(directory.join("status-watch.svg"), screen).map_err(failed)?;
    terminal.end_with(b"q", PATIENCE);

    grandmaster.stop();
    thread::sleep(SPANS[1]);
    let _grandmaster = Agent::start(&wire.grandmaster, &serve);
    thread::sleep(SPANS[2]);
    let end = unix_time();
    let dashboard = dashboard();
    let panels = dashboard["panels"].as_array().ok_or("the dashboard has no panels")?;
    for (title, name) in PANELS {
        let panel = panels.iter().find(|panel| panel["title"] == title);
        let panel = panel.ok_or_else(|| format!("the dashboard has no panel {title:?}"))?;
        let answers: Vec<Value> = queries(panel, "5s")
            .iter()
            .map(|promql| prometheus.history(promql, start, end))
            .collect();
        let svg = plot(title, panel, &answers, start)?;
        fs::write(directory.join(name).with_extension("svg"), svg).map_err(failed)?;
    }
    println!("scraped {} s from {}", (end - start).round(), prometheus::AGENT);
    Ok(())
}

/// A panel as a plot: values over time, or for states a line at a height of its own for each.
fn plot(title: &str, panel: &Value, answers: &[Value], start: f64) -> Result<String, String> {
    let is_states = panel["type"] == "state-timeline";
    let mut lines: Vec<(String, Vec<(f64, f64)>)> = Vec::new();
    for answer in answers {
        for series in answer["data"]["result"].as_array().into_iter().flatten() {
            let height = lines.len() as f64 + 1.0;
            let points = series["values"].as_array().into_iter().flatten().filter_map(|point| {
                let value: f64 = point[1].as_str()?.parse().ok()?;
                let value = if is_states { height } else { value * 1e9 };
                Some((point[0].as_f64()? - start, value))
            });
            let labels = ["alarm", "interface"].map(|name| series["metric"][name].as_str());
            let name = labels.into_iter().flatten().next().unwrap_or("").to_owned();
            lines.push((name, points.collect()));
        }
    }
    let inks = [Ink::First, Ink::Second, Ink::Mark];
    let series: Vec<Series<'_>> = lines
        .iter()
        .zip(inks.iter().cycle())
        .map(|((name, points), ink)| Series { name, points, ink: *ink, dots: false })
        .collect();
    if series.is_empty() {
        return Err(format!("{title}: Prometheus has nothing"));
    }
    let largest = lines.iter().flat_map(|(_, points)| points).map(|(_, y)| y.abs());
    let largest = largest.fold(0.0, f64::max);
    let unit =
        if is_states { Unit { size: 1.0, name: "one line each" } } else { Unit::of_nanos(largest) };
    let svg = time_series(title, unit, &series, &[]).map_err(|error| error.to_string())?;
    Ok(svg.standing_alone())
}

/// Size of a character cell.
const CELL: (f64, f64) = (7.8, 16.0);

/// A terminal's screen as a picture: runs of cells that look alike become one text element.
fn screen(screen: &vt100::Screen) -> String {
    let (rows, columns) = screen.size();
    let (width, height) = (f64::from(columns) * CELL.0 + 16.0, f64::from(rows) * CELL.1 + 16.0);
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width} {height}\" width=\"{width}\" \
         height=\"{height}\"><rect width=\"100%\" height=\"100%\" fill=\"#0d1117\"/><g \
         font-family=\"DejaVu Sans Mono, Menlo, Consolas, monospace\" font-size=\"13\">\n"
    );
    for row in 0..rows {
        let mut column = 0;
        while column < columns {
            let from = column;
            let style = |column| {
                let cell = screen.cell(row, column);
                cell.map(|cell| (cell.fgcolor(), cell.bold(), cell.dim()))
            };
            let mut text = String::new();
            while column < columns && style(column) == style(from) {
                let cell = screen.cell(row, column);
                let content = cell.map_or("", vt100::Cell::contents);
                text.push_str(if content.is_empty() { " " } else { content });
                column += 1;
            }
            let Some((colour, bold, dim)) = style(from) else { continue };
            if text.trim().is_empty() {
                continue;
            }
            let weight = if bold { " font-weight=\"bold\"" } else { "" };
            // Spaces that a browser does not run together.
            let text = text.replace('&', "&amp;").replace('<', "&lt;").replace(' ', "\u{a0}");
            svg.push_str(&format!(
                "<text x=\"{:.1}\" y=\"{:.1}\" textLength=\"{:.1}\" fill=\"{}\"{weight}>{text}</text>\n",
                8.0 + f64::from(from) * CELL.0,
                8.0 + f64::from(row + 1) * CELL.1 - 4.0,
                f64::from(column - from) * CELL.0,
                fill(colour, dim),
            ));
        }
    }
    svg + "</g></svg>\n"
}

fn fill(colour: vt100::Color, dim: bool) -> String {
    match colour {
        vt100::Color::Rgb(red, green, blue) => format!("#{red:02x}{green:02x}{blue:02x}"),
        vt100::Color::Idx(index) => match index % 8 {
            0 => "#6e7681",
            1 => "#ff7b72",
            2 => "#7ee787",
            3 => "#f2cc60",
            4 => "#79c0ff",
            5 => "#d2a8ff",
            6 => "#a5d6ff",
            _ => "#e6edf3",
        }
        .to_owned(),
        vt100::Color::Default if dim => "#8b949e".to_owned(),
        vt100::Color::Default => "#e6edf3".to_owned(),
    }
}
