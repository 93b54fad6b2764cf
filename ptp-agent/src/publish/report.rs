//! One self-contained HTML page: headline figures, paragraphs, plots and tables, no script and
//! nothing loaded from elsewhere, readable on paper and in dark mode. The laboratory's report is
//! made of it, and so is every other command's that has one.

use std::{fmt::Write as _, fs, io, path::Path};

use maud::{DOCTYPE, Markup, PreEscaped, html};
use tracing_subscriber::fmt::{
    format::Writer,
    time::{FormatTime, SystemTime},
};

use super::plot::{Ink, Svg};
use crate::sys::own_file;

/// Everything but the rules for the plots' inks.
const STYLE: &str = "
:root{color-scheme:light dark;--page:#fff;--panel:#f4f6f8;--text:#1c2530;--quiet:#5a6672;
--grid:#dde2e7;--first:#1f6fc0;--second:#d9822b;--mark:#2e9e6b}
@media (prefers-color-scheme:dark){:root{--page:#14181d;--panel:#1d242c;--text:#e4e9ee;
--quiet:#9aa7b4;--grid:#333d47;--first:#6cb0f5;--second:#f0a860;--mark:#5fcf9b}}
*{box-sizing:border-box}
body{margin:0 auto;max-width:62rem;padding:1.5rem;background:var(--page);color:var(--text);
font:16px/1.5 system-ui,sans-serif}
h1{font-size:1.7rem;margin:0 0 .3rem;line-height:1.25}
h2{font-size:1.2rem;margin:2.4rem 0 .4rem}
p{max-width:46rem;margin:.4rem 0 .8rem}
.quiet,figcaption{color:var(--quiet)}
.figures{display:grid;grid-template-columns:repeat(auto-fit,minmax(8.8rem,1fr));gap:.7rem;
margin:1.4rem 0;padding:0}
.figures div{background:var(--panel);border-radius:.5rem;padding:.7rem .9rem}
.figures dt{color:var(--quiet);font-size:.85rem}
.figures dd{margin:0;font-size:1.35rem;font-weight:600;font-variant-numeric:tabular-nums}
figure{margin:.6rem 0 1.4rem}
figcaption{font-size:.9rem;max-width:46rem}
svg{display:block;width:100%;height:auto}
.scroll{overflow-x:auto}
table{border-collapse:collapse;margin:.6rem 0 1.2rem;font-variant-numeric:tabular-nums}
caption{text-align:left;color:var(--quiet);font-size:.9rem;padding-bottom:.3rem;white-space:nowrap}
th,td{text-align:left;padding:.25rem 1.4rem .25rem 0;border-bottom:1px solid var(--grid)}
thead th{color:var(--quiet);font-weight:500;font-size:.9rem}
tbody th{font-weight:400}
td{white-space:nowrap}
th.number,td.number{text-align:right}
footer{margin-top:2.5rem;color:var(--quiet);font-size:.85rem}
@media print{body{max-width:none;padding:0}figure,table{break-inside:avoid}}
";

/// A page that is being written, from top to bottom.
#[derive(Debug)]
pub struct Page {
    title: String,
    lead: String,
    body: Vec<Markup>,
}

impl Page {
    /// A page with a title and a sentence below it.
    pub fn new(title: impl Into<String>, lead: impl Into<String>) -> Self {
        Self { title: title.into(), lead: lead.into(), body: Vec::new() }
    }

    /// The headline figures: name and value of each.
    pub fn figures(&mut self, figures: &[(&str, String)]) {
        self.body.push(html! {
            dl class="figures" {
                @for (name, value) in figures { div { dt { (name) } dd { (value) } } }
            }
        });
    }

    /// A section heading.
    pub fn heading(&mut self, text: &str) {
        self.body.push(html! { h2 { (text) } });
    }

    /// A paragraph.
    pub fn paragraph(&mut self, text: &str) {
        self.body.push(html! { p { (text) } });
    }

    /// A plot and what is to be seen in it.
    pub fn plot(&mut self, plot: &Svg, caption: &str) {
        self.body.push(html! {
            figure { (PreEscaped(&plot.0)) figcaption { (caption) } }
        });
    }

    /// A table; the first column of each row is its heading, and columns of numbers are set flush
    /// right.
    pub fn table(&mut self, caption: &str, header: &[&str], rows: &[Vec<String>]) {
        let is_number =
            |cell: &String| cell.starts_with(|c: char| c.is_ascii_digit() || "-+−".contains(c));
        let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
        let classes: Vec<Option<&str>> = (0..columns)
            .map(|column| {
                let numbers = rows.iter().filter_map(|row| row.get(column)).all(is_number);
                (column > 0 && numbers).then_some("number")
            })
            .collect();
        self.body.push(html! {
            div class="scroll" { table {
                @if !caption.is_empty() { caption { (caption) } }
                @if !header.is_empty() {
                    thead { tr {
                        @for (name, class) in header.iter().zip(&classes) {
                            th scope="col" class=[class] { (name) }
                        }
                    } }
                }
                tbody {
                    @for row in rows {
                        tr {
                            @for (column, (cell, class)) in row.iter().zip(&classes).enumerate() {
                                @if column == 0 { th scope="row" { (cell) } }
                                @else { td class=[class] { (cell) } }
                            }
                        }
                    }
                }
            } }
        });
    }

    /// The page as HTML text, with version, host kernel and date at its end.
    pub fn finish(self) -> String {
        let mut style = STYLE.to_owned();
        for ink in Ink::ALL {
            let (colour, variable) = (ink.placeholder(), ink.variable());
            for property in ["fill", "stroke"] {
                let _ =
                    writeln!(style, "svg [{property}=\"{colour}\"]{{{property}:var({variable})}}");
            }
        }
        html! {
            (DOCTYPE)
            html lang="en" {
                head {
                    meta charset="utf-8";
                    meta name="viewport" content="width=device-width,initial-scale=1";
                    title { (self.title) }
                    style { (PreEscaped(style)) }
                }
                body {
                    header { h1 { (self.title) } p class="quiet" { (self.lead) } }
                    main { @for part in &self.body { (part) } }
                    footer {
                        "ptp-agent " (env!("CARGO_PKG_VERSION")) ", " (kernel()) ", " (now())
                    }
                }
            }
        }
        .into_string()
    }

    /// Writes the page to a file.
    ///
    /// # Errors
    /// When the file cannot be written, or is none of our own.
    pub fn write(self, path: &Path) -> io::Result<()> {
        own_file::write(path, self.finish().as_bytes())
    }
}

/// The kernel's name, release and machine, as far as it tells.
pub fn kernel() -> String {
    let read = |name: &str| fs::read_to_string(format!("/proc/sys/kernel/{name}"));
    let release = read("osrelease").unwrap_or_default();
    format!("Linux {} {}", release.trim(), std::env::consts::ARCH)
}

/// The date and time of day, UTC, to the second.
pub fn now() -> String {
    let mut text = String::new();
    // Writing to a string cannot fail; a clock before 1970 leaves it empty.
    let _ = SystemTime.format_time(&mut Writer::new(&mut text));
    let seconds = text.split('.').next().unwrap_or_default();
    format!("{} UTC", seconds.trim_end_matches('Z').replace('T', " "))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::publish::plot::{Unit, histogram};

    #[test]
    fn page_is_self_contained_and_escapes_what_it_is_given() {
        let mut page = Page::new("A <b> & c", "lead");
        page.figures(&[("p99", "<1 ns".into())]);
        page.plot(&histogram("x", Unit::of_nanos(1.0), &[1.0, 2.0]).unwrap(), "caption");
        page.table("t", &["a", "b"], &[vec!["</table>".into(), "-3".into()]]);
        page.table("", &[], &[vec!["a".into(), "1".into()], vec!["b".into(), "one".into()]]);
        let html = page.finish();
        assert!(html.contains("A &lt;b&gt; &amp; c") && html.contains("&lt;/table&gt;"));
        assert!(html.contains("<td class=\"number\">-3<"));
        assert!(html.contains("<td>1<"), "a column of numbers and words is one of words");
        for foreign in ["<script", "src=", "href=", "@import", "url("] {
            assert!(!html.contains(foreign), "{foreign}");
        }
    }

    #[test]
    fn every_ink_of_a_plot_has_a_colour_on_the_page() {
        let html = Page::new("a", "b").finish();
        for ink in Ink::ALL {
            assert!(html.contains(&format!("{}:#", ink.variable())));
            assert!(html.contains(&ink.placeholder()));
        }
    }

    #[test]
    fn date_has_seconds_and_its_time_zone() {
        let now = now();
        assert!(now.len() == "2026-01-01 00:00:00 UTC".len() && now.ends_with(" UTC"), "{now}");
    }
}
