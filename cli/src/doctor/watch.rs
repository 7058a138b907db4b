//! `--watch`: shows a table and refreshes it after each look.

use std::collections::{HashMap, VecDeque};
use std::io::{self, IsTerminal};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread;
use std::time::Duration;

use tokio::time::Instant;
use unstall::doctor::{Doctor, Finding, Verdict};

use super::{Arguments, json, print, report};
use crate::time::later;

/// How many throughputs are kept for the sparkline of a connection.
const SPARKS: usize = 20;

/// How long a changed verdict stays marked.
const MARKED: Duration = Duration::from_secs(10);

/// Looks and shows the table, until interrupted or until the output is closed. Returns whether
/// something was stuck at the last look.
pub(super) fn run(arguments: &Arguments) -> io::Result<bool> {
    let interrupted = interruption()?;
    let mut output = Output::new(arguments.json);
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
        match output.show(&history, &findings) {
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => return Ok(stuck),
            shown => shown?,
        }
    }
}

/// The output that shows the table.
enum Output {
    Json,
    /// Not a terminal: prints one table after the other.
    Tables,
    Terminal(Screen),
}

impl Output {
    fn new(json: bool) -> Output {
        match (json, io::stdout().is_terminal()) {
            (true, _) => Output::Json,
            (false, false) => Output::Tables,
            (false, true) => Output::Terminal(Screen::enter()),
        }
    }

    fn show(&mut self, history: &History, findings: &[Finding]) -> io::Result<()> {
        match self {
            Output::Json => print(&json::object(findings)),
            Output::Tables => {
                let lines = history
                    .table(findings)
                    .into_iter()
                    .map(|row| row.text + "\n");
                print(&(lines.collect::<String>() + "\n"))
            }
            Output::Terminal(screen) => screen.show(history.table(findings)),
        }
    }
}

/// The terminal's alternate screen without a cursor, until dropped.
struct Screen {
    /// The last table, which is printed again once the terminal is restored.
    last: Vec<Row>,
}

impl Screen {
    fn enter() -> Screen {
        let _ = print("\x1b[?1049h\x1b[?25lLooking ...");
        Screen { last: Vec::new() }
    }

    fn show(&mut self, rows: Vec<Row>) -> io::Result<()> {
        let (width, height) = match terminal_size::terminal_size() {
            Some((width, height)) => (usize::from(width.0), usize::from(height.0)),
            None => (80, 24),
        };
        let mut frame = String::from("\x1b[H");
        for (index, row) in rows.iter().take(height).enumerate() {
            let separator = if index == 0 { "" } else { "\r\n" };
            frame += &format!("{separator}{}\x1b[K", row.painted(width));
        }
        self.last = rows;
        print(&(frame + "\x1b[J"))
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        let _ = print("\x1b[?25h\x1b[?1049l");
        let last: String = self
            .last
            .iter()
            .map(|row| row.painted(usize::MAX) + "\n")
            .collect();
        let _ = print(&last);
    }
}

/// A line of the table.
struct Row {
    text: String,
    /// The SGR parameters of ECMA-48 that it is shown with.
    style: &'static str,
}

impl Row {
    fn painted(&self, width: usize) -> String {
        let text: String = self.text.chars().take(width).collect();
        format!("\x1b[{}m{text}\x1b[0m", self.style)
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
    fn table(&self, findings: &[Finding]) -> Vec<Row> {
        let mut order: Vec<&Finding> = findings.iter().collect();
        order.sort_by_key(|finding| !finding.verdict.is_stuck());
        let mut cells = vec![HEADINGS.map(str::to_owned)];
        cells.extend(order.iter().map(|finding| self.cells(finding)));
        let mut widths = [0; HEADINGS.len()];
        for row in &cells {
            for (width, cell) in widths.iter_mut().zip(row) {
                *width = (*width).max(cell.chars().count());
            }
        }
        let stuck = findings
            .iter()
            .filter(|finding| finding.verdict.is_stuck())
            .count();
        let summary = format!("{} connections, {stuck} stuck", findings.len());
        let mut rows = vec![Row {
            text: summary,
            style: "1",
        }];
        for (index, row) in cells.iter().enumerate() {
            let padded = row
                .iter()
                .zip(widths)
                .map(|(cell, width)| format!("{cell:width$}  "));
            let text = padded.collect::<String>().trim_end().to_owned();
            let style = match index.checked_sub(1).map(|index| order[index].verdict) {
                None => "2",
                Some(verdict) if verdict.is_stuck() => "31",
                Some(Verdict::SlowReader) => "33",
                Some(_) => "0",
            };
            rows.push(Row { text, style });
        }
        rows
    }

    fn cells(&self, finding: &Finding) -> [String; HEADINGS.len()] {
        let track = self.tracks.get(&finding.account.cookie);
        let changed = track
            .and_then(|track| track.changed)
            .filter(|(_, at)| at.elapsed() < MARKED);
        [
            report::label(finding.verdict),
            report::time(finding.since),
            report::owner(finding),
            finding.account.local.to_string(),
            finding.account.peer.to_string(),
            report::rate(finding.received_per_second),
            report::rate(finding.acked_per_second),
            sparkline(track.map(|track| &track.throughput)),
            changed.map_or_else(String::new, |(was, _)| {
                format!("* was {}", report::label(was))
            }),
        ]
    }
}

const HEADINGS: [&str; 9] = [
    "VERDICT",
    "FOR",
    "PROGRAM",
    "LOCAL",
    "PEER",
    "IN",
    "OUT",
    "THROUGHPUT",
    "",
];

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

/// Receives when the user or the system asks the process to end.
fn interruption() -> io::Result<mpsc::Receiver<()>> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_io()
        .build()?;
    let (sender, receiver) = mpsc::channel();
    // In a thread of its own, because the looks block.
    thread::Builder::new()
        .name("signals".to_owned())
        .spawn(move || {
            runtime.block_on(signal());
            let _ = sender.send(());
        })?;
    Ok(receiver)
}

#[cfg(unix)]
async fn signal() {
    use tokio::signal::unix::{SignalKind, signal};
    let listen = |kind| signal(kind).ok();
    let mut hangup = listen(SignalKind::hangup());
    let mut terminate = listen(SignalKind::terminate());
    tokio::select! {
        _ = tokio::signal::ctrl_c() => {}
        Some(_) = async { hangup.as_mut()?.recv().await } => {}
        Some(_) = async { terminate.as_mut()?.recv().await } => {}
    }
}

#[cfg(not(unix))]
async fn signal() {
    let _ = tokio::signal::ctrl_c().await;
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

    #[test]
    fn a_row_is_cut_to_the_width_of_the_terminal() {
        let row = Row {
            text: "▁▂▃ wide".to_owned(),
            style: "31",
        };
        assert_eq!(row.painted(4), "\x1b[31m▁▂▃ \x1b[0m");
    }
}
