//! Draws the list of connections.

use std::time::Duration;

use ratatui::Frame;
use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::style::{Color, Modifier, Style};
use ratatui::text::Line as TextLine;
use ratatui::widgets::{Paragraph, TableState};
use unstall::printable;

use super::details;
use super::view::View;
use crate::status::{Connection, Status};
use crate::table::{self, Column, Line};

/// A connection that has waited for so long is shown as stuck.
const LONG: Duration = Duration::from_secs(2);

/// Draws the whole screen.
pub(super) fn screen(frame: &mut Frame<'_>, view: &View, base: &str) {
    let area = frame.area();
    let head = head(&view.status, base);
    let [top, middle, bottom] = Layout::vertical([
        Constraint::Length(u16::try_from(head.len()).unwrap_or(u16::MAX)),
        Constraint::Min(0),
        Constraint::Length(1),
    ])
    .areas(area);
    frame.render_widget(Paragraph::new(head), top);
    match &view.details {
        Some((id, known)) => details::draw(frame, middle, *id, known.as_ref()),
        None => rows(frame, middle, view),
    }
    frame.render_widget(Paragraph::new(foot(view)), bottom);
}

/// The height of a screen with all rows.
pub(super) fn height(view: &View, base: &str) -> u16 {
    let lines = head(&view.status, base).len() + view.rows().len().max(1) + 2;
    u16::try_from(lines).unwrap_or(u16::MAX)
}

/// The sums.
fn head(status: &Status, base: &str) -> Vec<TextLine<'static>> {
    let (process, totals, rates) = (&status.process, &status.totals, &status.rates);
    let age = Duration::from_millis(status.now.saturating_sub(process.started));
    let first = format!(
        "{} {} (pid {}) at {base}, up {}",
        printable(&process.name),
        printable(&process.version),
        process.pid,
        table::time(age)
    );
    let mut lines = vec![
        TextLine::styled(first, Style::new().add_modifier(Modifier::BOLD)),
        TextLine::raw(format!(
            "{} open, {} connecting, {} closing; {} sessions, {} plain; {} stalled",
            totals.open,
            totals.connecting,
            totals.closing,
            totals.sessions,
            totals.plain,
            totals.stalled
        )),
        TextLine::raw(format!(
            "out {}/s, {}/s; in {}/s, {}/s; held {}{}",
            table::count(rates.messages_sent),
            table::bytes(rates.bytes_sent as u64),
            table::count(rates.messages_received),
            table::bytes(rates.bytes_received as u64),
            table::bytes(totals.held_bytes),
            match &status.server {
                Some(server) => format!(" of {}", table::bytes(server.held_limit_bytes)),
                None => String::new(),
            }
        )),
    ];
    if let Some(log) = &status.log {
        let (all, waiting) = (status.subscriptions_total, &status.subscriptions);
        let waits = waiting.iter().filter(|it| it.waits_for_credit).count();
        let lag = waiting.iter().map(|it| it.lag).max().unwrap_or(0);
        lines.push(TextLine::raw(format!(
            "log {} to {}, {} refused; {all} subscriptions, {waits} wait for their clients, largest lag {lag}",
            log.first, log.last, log.refused
        )));
    }
    let causes: Vec<String> = status
        .causes
        .iter()
        .filter(|it| it.connections > 0)
        .map(|it| format!("{} {}", it.connections, printable(&it.words)))
        .collect();
    lines.push(match causes.is_empty() {
        true => TextLine::raw("nothing waits"),
        false => TextLine::styled(
            format!("waits: {}", causes.join(", ")),
            Style::new().fg(Color::Yellow),
        ),
    });
    lines
}

fn foot(view: &View) -> TextLine<'static> {
    let dim = Style::new().add_modifier(Modifier::DIM);
    if let Some(problem) = &view.problem {
        return TextLine::styled(problem.clone(), Style::new().fg(Color::Red));
    }
    if view.typing {
        return TextLine::raw(format!("/{}_", view.filter));
    }
    if view.details.is_some() {
        return TextLine::styled("Esc back  q quit", dim);
    }
    let order = match view.reversed {
        true => format!("{} reversed", view.sort.name()),
        false => view.sort.name().to_owned(),
    };
    let filter = match view.filter.as_str() {
        "" => String::new(),
        filter => format!(" ({filter})"),
    };
    TextLine::styled(
        format!("q quit  Enter details  / filter{filter}  s sort: {order}  r reverse"),
        dim,
    )
}

/// The columns for a width. The last one takes what is left.
fn columns(width: u16) -> Vec<Column> {
    let mut columns = vec![
        Column::numbers("ID", 5),
        Column::new("PEER", if width >= 110 { 32 } else { 21 }),
    ];
    if width >= 100 {
        columns.push(Column::new("KIND", 7));
    }
    if width >= 130 {
        columns.push(Column::new("USER", 12));
    }
    columns.extend([
        Column::numbers("OUT/s", 5),
        Column::numbers("IN/s", 5),
        Column::numbers("TO SEND", 8),
        Column::numbers("UNREAD", 8),
        Column::numbers("FOR", 5),
    ]);
    let left = width.saturating_sub(table::width(&columns)).max(10);
    columns.push(Column::new("WAITS FOR", left));
    columns
}

fn cell(column: &Column, view: &View, row: &Connection) -> String {
    let rates = view.rates(row.id);
    match column.heading {
        "ID" => row.id.to_string(),
        "PEER" => match &row.peer {
            Some(peer) => printable(peer).to_string(),
            None => "-".to_owned(),
        },
        "KIND" => printable(&row.kind).to_string(),
        "USER" => printable(row.principal.as_deref().unwrap_or_default()).to_string(),
        "OUT/s" => table::count(rates.messages_out),
        "IN/s" => table::count(rates.messages_in),
        "TO SEND" => table::bytes(row.outbox.bytes),
        "UNREAD" => table::bytes(row.inbox.bytes),
        "FOR" => match row.cause() {
            Some(_) => table::time(row.waits()),
            None => String::new(),
        },
        _ => waits_for(row, column.width),
    }
}

/// The cause in words, or in fewer words where there is no room.
fn waits_for(row: &Connection, width: u16) -> String {
    let Some(stall) = row.cause() else {
        return match row.state.as_str() {
            "open" => String::new(),
            state => printable(state).to_string(),
        };
    };
    let short = match stall.cause.as_str() {
        "application_not_reading" => "own app not reading",
        "out_of_credit" => "out of credit",
        "replay_full" => "no acknowledgement",
        "socket_full" => "peer not reading",
        "peer_silent" => "peer silent",
        _ => stall.words.as_str(),
    };
    let words = match stall.words.chars().count() > usize::from(width) {
        true => short,
        false => stall.words.as_str(),
    };
    printable(words).to_string()
}

fn rows(frame: &mut Frame<'_>, area: Rect, view: &View) {
    let (columns, rows) = (columns(area.width), view.rows());
    let place = view.place(&rows);
    // Only what is on the screen is made into cells: there may be ten thousand rows.
    let room = usize::from(area.height.saturating_sub(1)).max(1);
    let first = place.map_or(0, |at| (at + 1).saturating_sub(room));
    let lines: Vec<Line> = rows
        .iter()
        .skip(first)
        .take(room)
        .map(|row| Line {
            cells: columns.iter().map(|it| cell(it, view, row)).collect(),
            style: match row.waits() {
                wait if wait >= LONG => Style::new().fg(Color::Red),
                wait if wait > Duration::ZERO => Style::new().fg(Color::Yellow),
                _ => Style::new(),
            },
        })
        .collect();
    let chosen = Style::new().add_modifier(Modifier::REVERSED);
    let table = table::table(&columns, &lines).row_highlight_style(chosen);
    let mut state = TableState::new().with_selected(place.map(|at| at - first));
    frame.render_stateful_widget(table, area, &mut state);
    if rows.is_empty() {
        let [_, below] = Layout::vertical([Constraint::Length(1), Constraint::Min(0)]).areas(area);
        let why = match view.status.connections.is_empty() {
            true => "no connections",
            false => "no connection has this text; Esc shows all",
        };
        frame.render_widget(Paragraph::new(why), below);
    }
}

#[cfg(test)]
mod tests {
    use ratatui::Terminal;
    use ratatui::backend::TestBackend;

    use super::super::view::tests::{connection, status, waiting};
    use super::*;
    use crate::status::Details;

    fn shown(view: &View, width: u16, height: u16) -> String {
        let mut terminal = Terminal::new(TestBackend::new(width, height)).unwrap();
        terminal
            .draw(|frame| screen(frame, view, "http://127.0.0.1:9200"))
            .unwrap();
        table::lines(terminal.backend().buffer())
    }

    /// The examples of the chapter that promises what a server tells.
    fn example(heading: &str) -> String {
        let chapter = include_str!("../../../docs/src/status.md");
        let (_, text) = chapter.split_once(heading).unwrap();
        let (_, text) = text.split_once("```json\n").unwrap();
        text.split_once("```").unwrap().0.to_owned()
    }

    #[test]
    fn what_the_guide_promises_fits_on_a_small_terminal() {
        let mut view = View::default();
        view.take(serde_json::from_str(&example("## `GET /status.json`")).unwrap());
        let text = shown(&view, 80, 24);
        let lines: Vec<_> = text.lines().collect();
        assert_eq!(
            lines[..7],
            [
                "unstall hub 0.1.0 (pid 4711) at http://127.0.0.1:9200, up 166m",
                "2 open, 1 connecting, 0 closing; 2 sessions, 1 plain; 1 stalled",
                "out 10/s, 640 B/s; in 0/s, 0 B/s; held 64 KiB of 256 MiB",
                "log 1 to 42, 0 refused; 1 subscriptions, 0 wait for their clients, largest lag 2",
                "nothing waits",
                "   ID PEER                  OUT/s  IN/s  TO SEND   UNREAD   FOR WAITS FOR",
                "    7 127.0.0.1:53908           0     0    2 KiB      0 B    4s out of credit",
            ]
        );
        assert!(lines[23].starts_with("q quit  Enter details"), "{text}");
        let wide = shown(&view, 160, 24);
        let words = "out of credit: the peer's application is not reading";
        assert!(wide.contains(words), "{wide}");
        assert!(wide.contains("session alice"), "{wide}");
    }

    #[test]
    fn details_show_a_connections_events_and_the_doctors_verdict() {
        let mut view = View::default();
        let status: Status = serde_json::from_str(&example("## `GET /status.json`")).unwrap();
        let json = example("## `GET /status/connections/ID.json`");
        let mut details: Details = serde_json::from_str(&json).unwrap();
        details.connection = status.connections.first().cloned();
        view.take(status);
        view.details = Some((7, None));
        assert!(shown(&view, 80, 24).contains("Connection 7: asking"));
        view.take_details(7, details);
        let text = shown(&view, 80, 24);
        for part in [
            "Connection 7: session, server's side, peer 127.0.0.1:53908, user alice",
            "open for 16m",
            "waits for 4s: out of credit: the peer's application is not reading",
            "to send: 12 messages, 2 KiB of 1.0 MiB, the oldest for 4s",
            "connected 2 times, resumed 1 times, dropped 0 messages",
            "    10s ago  resumed 12 ms later; 37 records were sent again",
            "Esc back",
        ] {
            assert!(text.contains(part), "{part}: {text}");
        }
    }

    #[test]
    fn the_chosen_row_of_ten_thousand_is_on_the_screen() {
        let mut view = View::default();
        let mut all: Vec<_> = (1..=10_000)
            .map(|id| connection(id, "10.0.0.1:80"))
            .collect();
        all[4_999] = waiting(all[4_999].clone(), 5_000);
        view.take(status(1, all));
        let text = shown(&view, 80, 24);
        let stuck = text.lines().nth(5).unwrap();
        assert!(
            stuck.contains(" 5000 ") && stuck.ends_with("5s peer not reading"),
            "{text}"
        );
        view.chosen = Some(9_999);
        let text = shown(&view, 80, 24);
        assert!(text.contains(" 9999 10.0.0.1:80"), "{text}");
        assert_eq!(text.lines().count(), 24);
    }

    #[test]
    fn control_characters_of_a_peer_do_not_reach_the_terminal() {
        let mut view = View::default();
        view.take(status(1, vec![connection(1, "\x1b[2Jpeer")]));
        let text = shown(&view, 80, 24);
        assert!(
            !text.contains('\x1b') && text.contains(r"\u{1b}[2Jpeer"),
            "{text}"
        );
    }

    #[test]
    fn a_problem_is_told_below_what_was_seen_last() {
        let mut view = View::default();
        view.take(status(1, vec![]));
        assert!(shown(&view, 80, 24).contains("no connections"));
        view.problem = Some("no server answers".to_owned());
        assert!(shown(&view, 80, 24).ends_with("no server answers\n"));
        // Any size will do.
        for (width, height) in [(1, 1), (10, 3), (80, 4)] {
            shown(&view, width, height);
        }
    }
}
