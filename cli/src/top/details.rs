//! Draws the details of one connection.

use std::time::Duration;

use ratatui::Frame;
use ratatui::layout::Rect;
use ratatui::style::{Color, Modifier, Style};
use ratatui::text::Line;
use ratatui::widgets::Paragraph;
use unstall::printable;

use crate::status::{Connection, Details, Queue};
use crate::table;

pub(super) fn draw(frame: &mut Frame<'_>, area: Rect, id: u64, details: Option<&Details>) {
    let lines = lines(id, details).into_iter();
    let mut lines: Vec<_> = lines.flat_map(|it| wrapped(&it, area.width)).collect();
    // Where there is no room for all, the newest events stay, and what the connection does now.
    let room = usize::from(area.height);
    if let Some(events) = lines.iter().position(|it| it.to_string() == EVENTS) {
        let excess = lines.len().saturating_sub(room);
        let oldest = events.saturating_add(1);
        let last = oldest.saturating_add(excess).min(lines.len());
        lines.drain(oldest..last);
    }
    frame.render_widget(Paragraph::new(lines), area);
}

/// The heading of the events.
const EVENTS: &str = "Events";

/// A line in several, if it is too long. Words stay whole where they can.
fn wrapped(line: &Line<'static>, width: u16) -> Vec<Line<'static>> {
    let (text, width) = (line.to_string(), usize::from(width).max(20));
    let mut rest = text.as_str();
    let mut lines = Vec::new();
    while let Some((end, _)) = rest.char_indices().nth(width) {
        let space = rest[..end].rfind(' ').filter(|at| *at >= end / 2);
        let (head, tail) = rest.split_at(space.unwrap_or(end));
        lines.push(Line::styled(head.to_owned(), line.style));
        rest = tail.trim_start();
    }
    lines.push(Line::styled(rest.to_owned(), line.style));
    lines
}

/// What is known of the connection, and then its events in order.
pub(super) fn lines(id: u64, details: Option<&Details>) -> Vec<Line<'static>> {
    let bold = Style::new().add_modifier(Modifier::BOLD);
    let Some(details) = details else {
        return vec![Line::styled(format!("Connection {id}: asking …"), bold)];
    };
    let mut lines = match &details.connection {
        Some(connection) => facts(connection, details.now),
        None => vec![Line::styled(format!("Connection {id} has ended"), bold)],
    };
    if let Some(doctor) = &details.doctor {
        lines.push(Line::raw(format!(
            "doctor: {}",
            printable(&doctor.sentence)
        )));
        if !doctor.advice.is_empty() {
            lines.push(Line::raw(format!("advice: {}", printable(&doctor.advice))));
        }
    }
    lines.push(Line::raw(""));
    lines.push(Line::styled(EVENTS, bold));
    for event in &details.events {
        let ago = Duration::from_millis(details.now.saturating_sub(event.at));
        let ago = format!("{} ago", table::time(ago));
        lines.push(Line::raw(format!("{ago:>11}  {}", printable(&event.text))));
    }
    if details.events.is_empty() {
        lines.push(Line::raw("none"));
    }
    lines
}

fn facts(it: &Connection, now: u64) -> Vec<Line<'static>> {
    let bold = Style::new().add_modifier(Modifier::BOLD);
    let age = Duration::from_millis(now.saturating_sub(it.since));
    let mut who = format!("peer {}", it.peer.as_deref().unwrap_or("not known"));
    if let Some(user) = &it.principal {
        who += &format!(", user {user}");
    }
    let mut lines = vec![
        Line::styled(
            format!(
                "Connection {}: {}, {}'s side, {}",
                it.id,
                printable(&it.kind),
                printable(&it.side),
                printable(&who)
            ),
            bold,
        ),
        Line::raw(format!("{} for {}", printable(&it.state), table::time(age))),
        Line::raw(format!(
            "sent {} messages, {}; received {} messages, {}",
            it.messages_sent,
            table::bytes(it.bytes_sent),
            it.messages_received,
            table::bytes(it.bytes_received)
        )),
        Line::raw(queue("to send", &it.outbox)),
        Line::raw(queue("unread by the application", &it.inbox)),
        Line::raw(format!(
            "held {}, spilled {}",
            table::bytes(it.held_bytes),
            table::bytes(it.spilled_bytes)
        )),
        Line::raw(format!(
            "connected {} times, resumed {} times, dropped {} messages{}",
            it.connects,
            it.resumes,
            it.dropped,
            match it.round_trip_us {
                Some(us) => format!(", round trip {:.1} ms", us as f64 / 1000.0),
                None => String::new(),
            }
        )),
    ];
    for stall in &it.stalls {
        let waited = table::time(Duration::from_millis(stall.for_ms));
        let text = format!("waits for {waited}: {}", printable(&stall.words));
        lines.push(Line::styled(text, Style::new().fg(Color::Red)));
    }
    let waits: Vec<String> = it
        .stalled_ms
        .iter()
        .map(|(cause, ms)| {
            let time = table::time(Duration::from_millis(*ms));
            format!("{} {time}", printable(&cause.replace('_', " ")))
        })
        .collect();
    if !waits.is_empty() {
        lines.push(Line::raw(format!("waited in all: {}", waits.join(", "))));
    }
    lines
}

fn queue(name: &str, queue: &Queue) -> String {
    let oldest = match queue.messages {
        0 => String::new(),
        _ => {
            let age = Duration::from_millis(queue.oldest_ms);
            format!(", the oldest for {}", table::time(age))
        }
    };
    format!(
        "{name}: {} messages, {} of {}{oldest}",
        queue.messages,
        table::bytes(queue.bytes),
        table::bytes(queue.limit)
    )
}
