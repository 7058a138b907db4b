//! `--watch`: shows a table and refreshes it after each look.

use std::collections::{HashMap, VecDeque};
use std::io::{self, IsTerminal};
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::Duration;

use ratatui::buffer::Buffer;
use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::style::{Color, Modifier, Style};
use ratatui::text::Line as TextLine;
use ratatui::widgets::Widget;
use tokio::time::Instant;
use unstall::doctor::{Doctor, Finding, Verdict};

use super::library::{Background, Said};
use super::{Arguments, json, print, report};
use crate::table::{self, Line};
use crate::terminal::{Screen, interruption};
use crate::time::later;

/// How many throughputs are kept for the sparkline of a connection.
const SPARKS: usize = 20;

/// How long a changed verdict stays marked.
const MARKED: Duration = Duration::from_secs(10);

/// Looks and shows the table, until interrupted or until the output is closed. Returns whether
/// something was stuck at the last look.
pub(super) fn run(arguments: &Arguments) -> io::Result<bool> {
    let interrupted = interruption()?;
    let mut output = Output::new(arguments.json)?;
    let looked = watch(arguments, &interrupted, &mut output);
    output.end();
    looked
}

/// Looks and shows, until the end. Returns whether something was stuck at the last look.
fn watch(
    arguments: &Arguments,
    interrupted: &Receiver<()>,
    output: &mut Output,
) -> io::Result<bool> {
    let mut library = Background::start(arguments.library()?)?;
    let mut doctor = Doctor::new();
    let mut history = History::default();
    let mut stuck = false;
    let mut next = Instant::now();
    // A verdict needs two looks.
    arguments.selection.look(&mut doctor)?;
    loop {
        next = later(next, arguments.interval).max(Instant::now());
        match interrupted.recv_timeout(next.saturating_duration_since(Instant::now())) {
            Err(RecvTimeoutError::Timeout) => {}
            Ok(()) | Err(RecvTimeoutError::Disconnected) => return Ok(stuck),
        }
        arguments.selection.look(&mut doctor)?;
        let findings = arguments.selection.of(&doctor)?;
        stuck = findings.iter().any(|finding| finding.verdict.is_stuck());
        history.note(&findings);
        let programs = arguments.ask.programs(&findings);
        let told = library.told(programs, arguments.interval / 2);
        let shown = Seen {
            said: told.of(&findings),
            notes: &told.notes,
            findings,
        };
        match output.show(&history, &shown) {
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => return Ok(stuck),
            shown => shown?,
        }
    }
}

/// One look, and what programs said then.
struct Seen<'t> {
    findings: Vec<Finding>,
    said: Said,
    notes: &'t [String],
}

/// The output that shows the table.
enum Output {
    Json,
    /// Not a terminal: prints one table after the other.
    Tables,
    Terminal {
        screen: Screen,
        /// The last table, which is printed again once the terminal is restored.
        last: String,
    },
}

impl Output {
    fn new(json: bool) -> io::Result<Output> {
        Ok(match (json, io::stdout().is_terminal()) {
            (true, _) => Output::Json,
            (false, false) => Output::Tables,
            (false, true) => Output::Terminal {
                screen: Screen::enter(false)?,
                last: String::new(),
            },
        })
    }

    fn show(&mut self, history: &History, seen: &Seen<'_>) -> io::Result<()> {
        match self {
            Output::Json => print(&json::object(&seen.findings, &seen.said)),
            Output::Tables => print(&(history.table(seen).text() + "\n")),
            Output::Terminal { screen, last } => {
                let table = history.table(seen);
                *last = table.clone().text();
                screen.draw(|frame| frame.render_widget(table, frame.area()))
            }
        }
    }

    /// Leaves the terminal as it was, with the last table in it.
    fn end(self) {
        if let Output::Terminal { screen, last } = self {
            drop(screen);
            let _ = print(&last);
        }
    }
}

/// The sum, and a line for each connection.
#[derive(Clone)]
struct Shown {
    summary: String,
    headings: Vec<&'static str>,
    lines: Vec<Line>,
}

impl Shown {
    /// All of it, as wide as it is, without colours.
    fn text(self) -> String {
        let columns = table::natural(&self.headings, &self.lines);
        let height = u16::try_from(self.lines.len().saturating_add(2)).unwrap_or(u16::MAX);
        let width = table::width(&columns).max(u16::try_from(self.summary.len()).unwrap_or(80));
        table::text(width, height, self)
    }
}

impl Widget for Shown {
    fn render(self, area: Rect, buffer: &mut Buffer) {
        let areas = Layout::vertical([Constraint::Length(1), Constraint::Min(0)]);
        let [top, rest] = areas.areas(area);
        let bold = Style::new().add_modifier(Modifier::BOLD);
        TextLine::styled(self.summary, bold).render(top, buffer);
        let columns = table::natural(&self.headings, &self.lines);
        let columns = table::fitting(columns, rest.width);
        Widget::render(table::table(&columns, &self.lines), rest, buffer);
    }
}

/// The history of the connections that still exist.
#[derive(Default)]
struct History {
    tracks: HashMap<u64, Track>,
}

/// The history of one connection.
struct Track {
    /// Bytes per second in both directions, oldest first.
    throughput: VecDeque<u64>,
    /// Bytes in both directions at the last look, and when that was.
    total: (u64, Instant),
    verdict: Verdict,
    /// The verdict before the current one, and when it changed.
    changed: Option<(Verdict, Instant)>,
}

impl History {
    fn note(&mut self, findings: &[Finding]) {
        let now = Instant::now();
        let mut earlier = std::mem::take(&mut self.tracks);
        for finding in findings {
            let account = &finding.account;
            let total = account.bytes_received + account.bytes_acked;
            let mut track = earlier.remove(&account.cookie).unwrap_or_else(|| Track {
                throughput: VecDeque::new(),
                total: (total, now),
                verdict: finding.verdict,
                changed: None,
            });
            let passed = now.duration_since(track.total.1).as_secs_f64();
            if passed > 0.0 {
                let moved = total.saturating_sub(track.total.0) as f64;
                track.throughput.push_back((moved / passed) as u64);
            }
            if track.throughput.len() > SPARKS {
                track.throughput.pop_front();
            }
            track.total = (total, now);
            if track.verdict != finding.verdict {
                track.changed = Some((track.verdict, now));
                track.verdict = finding.verdict;
            }
            self.tracks.insert(account.cookie, track);
        }
    }

    /// The table, stuck connections first.
    fn table(&self, seen: &Seen<'_>) -> Shown {
        let mut order: Vec<&Finding> = seen.findings.iter().collect();
        order.sort_by_key(|finding| !finding.verdict.is_stuck());
        let stuck = order.iter().filter(|it| it.verdict.is_stuck()).count();
        let lines = order.iter().map(|finding| Line {
            cells: self.cells(finding, seen).to_vec(),
            style: match finding.verdict {
                verdict if verdict.is_stuck() => Style::new().fg(Color::Red),
                Verdict::SlowReader => Style::new().fg(Color::Yellow),
                _ => Style::new(),
            },
        });
        let mut summary = format!("{} connections, {stuck} stuck", seen.findings.len());
        for note in seen.notes {
            summary = format!("{summary}; {note}");
        }
        let mut shown = Shown {
            summary,
            headings: HEADINGS.to_vec(),
            lines: lines.collect(),
        };
        // Most programs that are examined know nothing of the library.
        if seen.said.is_empty() {
            shown.headings.remove(SAYS);
            for line in &mut shown.lines {
                line.cells.remove(SAYS);
            }
        }
        shown
    }

    fn cells(&self, finding: &Finding, seen: &Seen<'_>) -> [String; HEADINGS.len()] {
        let cookie = &finding.account.cookie;
        let (track, said) = (self.tracks.get(cookie), seen.said.get(cookie));
        let changed = track
            .and_then(|track| track.changed)
            .filter(|(_, at)| at.elapsed() < MARKED);
        [
            report::label(finding.verdict),
            table::time(finding.since),
            report::owner(finding),
            finding.account.local.to_string(),
            finding.account.peer.to_string(),
            said.map_or_else(String::new, report::waits),
            report::rate(finding.received_per_second),
            report::rate(finding.acked_per_second),
            sparkline(track.map(|track| &track.throughput)),
            changed.map_or_else(String::new, |(was, _)| {
                format!("* was {}", report::label(was))
            }),
        ]
    }
}

const HEADINGS: [&str; 10] = [
    "VERDICT",
    "FOR",
    "PROGRAM",
    "LOCAL",
    "PEER",
    "UNSTALL SAYS",
    "IN",
    "OUT",
    "THROUGHPUT",
    "",
];

/// The column of what programs say.
const SAYS: usize = 5;

/// The throughput as a row of bars, scaled to its maximum.
fn sparkline(throughput: Option<&VecDeque<u64>>) -> String {
    const BARS: [char; 8] = ['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];
    let Some(throughput) = throughput else {
        return String::new();
    };
    let most = throughput.iter().copied().max().unwrap_or(0).max(1);
    let bar = |&rate: &u64| match rate {
        0 => '.',
        rate => {
            BARS[usize::try_from((u128::from(rate) * 8).div_ceil(u128::from(most)) - 1)
                .unwrap_or(7)]
        }
    };
    throughput.iter().map(bar).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sparkline_scales_to_its_own_maximum() {
        let throughput = VecDeque::from([0, 1, 500, 1000, u64::MAX]);
        assert_eq!(sparkline(Some(&throughput)), ".▁▁▁█");
        assert_eq!(sparkline(Some(&VecDeque::from([0, 1, 4, 8]))), ".▁▄█");
        assert_eq!(sparkline(Some(&VecDeque::new())), "");
    }
}
