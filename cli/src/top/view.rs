//! What is on the screen: the last status, and what the user has chosen.

use std::cmp::Ordering;
use std::collections::HashMap;

use crossterm::event::{KeyCode, KeyEvent, KeyModifiers};

use crate::status::{Connection, Details, Status};

/// How many rows a page key moves.
const PAGE: isize = 15;

/// By what the rows are sorted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Sort {
    #[default]
    Waits,
    Number,
    Peer,
    Out,
    In,
    ToSend,
    Unread,
}

impl Sort {
    const ALL: [Sort; 7] = [
        Sort::Waits,
        Sort::Number,
        Sort::Peer,
        Sort::Out,
        Sort::In,
        Sort::ToSend,
        Sort::Unread,
    ];

    fn next(self) -> Sort {
        let at = Sort::ALL.iter().position(|it| *it == self).unwrap_or(0);
        Sort::ALL[(at + 1) % Sort::ALL.len()]
    }

    pub(super) fn name(self) -> &'static str {
        match self {
            Sort::Waits => "the longest wait",
            Sort::Number => "number",
            Sort::Peer => "peer",
            Sort::Out => "messages out",
            Sort::In => "messages in",
            Sort::ToSend => "bytes to send",
            Sort::Unread => "unread bytes",
        }
    }
}

/// What passes a second.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Rates {
    pub(super) messages_out: f64,
    pub(super) messages_in: f64,
}

/// The counters of a connection at the last look.
#[derive(Clone, Copy, Debug, Default)]
struct Counted {
    sent: u64,
    received: u64,
}

/// What a key asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Wish {
    Nothing,
    Quit,
    /// The details of a connection.
    Details(u64),
}

#[derive(Debug, Default)]
pub(super) struct View {
    pub(super) status: Status,
    counted: HashMap<u64, Counted>,
    rates: HashMap<u64, Rates>,
    pub(super) sort: Sort,
    pub(super) reversed: bool,
    pub(super) filter: String,
    pub(super) typing: bool,
    /// The number of the chosen connection.
    pub(super) chosen: Option<u64>,
    /// The connection whose details are shown, and what is known of it.
    pub(super) details: Option<(u64, Option<Details>)>,
    /// Why the last question had no answer.
    pub(super) problem: Option<String>,
}

impl View {
    /// Takes in a status.
    pub(super) fn take(&mut self, status: Status) {
        let seconds = status.now.saturating_sub(self.status.now) as f64 / 1000.0;
        let is_later = self.status.version > 0 && seconds > 0.0;
        let mut counted = HashMap::with_capacity(status.connections.len());
        let mut rates = HashMap::new();
        for it in &status.connections {
            let now = Counted {
                sent: it.messages_sent,
                received: it.messages_received,
            };
            match self.counted.get(&it.id) {
                Some(before) if is_later => {
                    let rate = |now: u64, before: u64| now.saturating_sub(before) as f64 / seconds;
                    let rate = Rates {
                        messages_out: rate(now.sent, before.sent),
                        messages_in: rate(now.received, before.received),
                    };
                    rates.insert(it.id, rate);
                }
                // The server answers with the same look, if it is asked twice at once.
                Some(_) => {
                    rates.extend(self.rates.get(&it.id).map(|rate| (it.id, *rate)));
                }
                None => {}
            }
            counted.insert(it.id, now);
        }
        (self.counted, self.rates) = (counted, rates);
        self.status = status;
        self.problem = None;
    }

    pub(super) fn take_details(&mut self, id: u64, details: Details) {
        if let Some((shown, known)) = &mut self.details
            && *shown == id
        {
            *known = Some(details);
        }
    }

    pub(super) fn rates(&self, id: u64) -> Rates {
        self.rates.get(&id).copied().unwrap_or_default()
    }

    /// The rows to show, in their order.
    pub(super) fn rows(&self) -> Vec<&Connection> {
        let filter = self.filter.to_lowercase();
        let mut rows: Vec<&Connection> = self.status.connections.iter().collect();
        rows.retain(|row| filter.is_empty() || matches(row, &filter));
        rows.sort_by(|a, b| {
            let order = self.order(a, b);
            let order = match self.reversed {
                true => order.reverse(),
                false => order,
            };
            order.then(a.id.cmp(&b.id))
        });
        rows
    }

    /// What is large or waits comes first.
    fn order(&self, a: &Connection, b: &Connection) -> Ordering {
        let rate = |of: fn(Rates) -> f64| of(self.rates(b.id)).total_cmp(&of(self.rates(a.id)));
        match self.sort {
            Sort::Waits => b.waits().cmp(&a.waits()),
            Sort::Number => a.id.cmp(&b.id),
            Sort::Peer => a.peer.cmp(&b.peer),
            Sort::Out => rate(|it| it.messages_out),
            Sort::In => rate(|it| it.messages_in),
            Sort::ToSend => b.outbox.bytes.cmp(&a.outbox.bytes),
            Sort::Unread => b.inbox.bytes.cmp(&a.inbox.bytes),
        }
    }

    /// The place of the chosen row.
    pub(super) fn place(&self, rows: &[&Connection]) -> Option<usize> {
        rows.iter().position(|row| Some(row.id) == self.chosen)
    }

    /// Moves the choice by so many rows.
    fn choose(&mut self, by: isize) {
        let rows = self.rows();
        let last = rows.len().saturating_sub(1);
        let at = match self.place(&rows) {
            Some(at) => at.saturating_add_signed(by).min(last),
            None if by < 0 => last,
            None => 0,
        };
        self.chosen = rows.get(at).map(|row| row.id);
    }

    pub(super) fn key(&mut self, key: KeyEvent) -> Wish {
        let control = key.modifiers.contains(KeyModifiers::CONTROL);
        match key.code {
            KeyCode::Char('c' | 'd') if control => return Wish::Quit,
            _ if self.typing => self.typed(key.code),
            KeyCode::Char('q') => return Wish::Quit,
            KeyCode::Esc if self.details.is_some() => self.details = None,
            KeyCode::Esc => self.filter.clear(),
            _ if self.details.is_some() => {}
            KeyCode::Enter => {
                if self.chosen.is_none() {
                    self.choose(0);
                }
                if let Some(id) = self.chosen {
                    self.details = Some((id, None));
                    return Wish::Details(id);
                }
            }
            KeyCode::Char('s') => self.sort = self.sort.next(),
            KeyCode::Char('r') => self.reversed = !self.reversed,
            KeyCode::Char('/') => self.typing = true,
            KeyCode::Up | KeyCode::Char('k') => self.choose(-1),
            KeyCode::Down | KeyCode::Char('j') => self.choose(1),
            KeyCode::PageUp => self.choose(-PAGE),
            KeyCode::PageDown => self.choose(PAGE),
            KeyCode::Home => self.choose(isize::MIN),
            KeyCode::End => self.choose(isize::MAX),
            _ => {}
        }
        Wish::Nothing
    }

    /// A key while the filter is typed.
    fn typed(&mut self, key: KeyCode) {
        match key {
            KeyCode::Char(letter) => self.filter.push(letter),
            KeyCode::Backspace => drop(self.filter.pop()),
            KeyCode::Enter => self.typing = false,
            KeyCode::Esc => {
                self.typing = false;
                self.filter.clear();
            }
            _ => {}
        }
    }
}

fn matches(row: &Connection, filter: &str) -> bool {
    let stalls = row.stalls.iter().flat_map(|it| [&it.cause, &it.words]);
    let texts = [&row.kind, &row.side, &row.state].into_iter();
    let texts = texts.chain(&row.peer).chain(&row.principal).chain(stalls);
    row.id.to_string() == filter
        || texts
            .into_iter()
            .any(|it| it.to_lowercase().contains(filter))
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::status::Stall;

    pub(in crate::top) fn connection(id: u64, peer: &str) -> Connection {
        Connection {
            id,
            peer: Some(peer.to_owned()),
            kind: "session".to_owned(),
            side: "server".to_owned(),
            state: "open".to_owned(),
            ..Connection::default()
        }
    }

    pub(in crate::top) fn waiting(mut connection: Connection, for_ms: u64) -> Connection {
        connection.stalls.push(Stall {
            cause: "socket_full".to_owned(),
            words: "the peer is not reading".to_owned(),
            for_ms,
        });
        connection
    }

    pub(in crate::top) fn status(now: u64, connections: Vec<Connection>) -> Status {
        Status {
            version: 1,
            now,
            connections_total: connections.len(),
            connections,
            ..Status::default()
        }
    }

    fn ids(view: &View) -> Vec<u64> {
        view.rows().iter().map(|row| row.id).collect()
    }

    fn press(view: &mut View, keys: &[KeyCode]) -> Wish {
        let wishes = keys.iter().map(|key| view.key((*key).into()));
        wishes.last().unwrap()
    }

    #[test]
    fn rows_are_sorted_by_the_longest_wait_and_then_by_what_the_user_chooses() {
        let mut view = View::default();
        let mut busy = connection(1, "b");
        let long = waiting(connection(3, "a"), 9_000);
        let short = waiting(connection(2, "c"), 100);
        view.take(status(
            1_000,
            vec![busy.clone(), short.clone(), long.clone()],
        ));
        assert_eq!(ids(&view), [3, 2, 1]);
        busy.messages_sent = 300;
        view.take(status(3_000, vec![busy, short, long]));
        assert_eq!(view.rates(1).messages_out, 150.0);
        press(&mut view, &[KeyCode::Char('s')]);
        assert_eq!(ids(&view), [1, 2, 3], "by number");
        press(&mut view, &[KeyCode::Char('r')]);
        assert_eq!(ids(&view), [3, 2, 1]);
        press(&mut view, &[KeyCode::Char('r'), KeyCode::Char('s')]);
        assert_eq!(ids(&view), [3, 1, 2], "by peer");
        press(&mut view, &[KeyCode::Char('s')]);
        assert_eq!(ids(&view), [1, 2, 3], "by messages out");
        for _ in 0..4 {
            press(&mut view, &[KeyCode::Char('s')]);
        }
        assert_eq!(view.sort, Sort::Waits);
    }

    /// The server answers with the same look if it is asked twice within a second.
    #[test]
    fn rates_stay_if_the_same_look_comes_again() {
        let mut view = View::default();
        let mut one = connection(1, "a");
        view.take(status(1_000, vec![one.clone()]));
        one.messages_sent = 10;
        view.take(status(2_000, vec![one.clone()]));
        view.take(status(2_000, vec![one]));
        assert_eq!(view.rates(1).messages_out, 10.0);
    }

    #[test]
    fn a_filter_finds_peers_causes_and_numbers_and_escape_ends_it() {
        let mut view = View::default();
        let stuck = waiting(connection(12, "10.0.0.2:80"), 100);
        view.take(status(1, vec![connection(1, "10.0.0.1:80"), stuck]));
        let typed = |text: &str| text.chars().map(KeyCode::Char).collect::<Vec<_>>();
        for (text, found) in [
            ("/0.2:", vec![12]),
            ("/NOT READ", vec![12]),
            ("/1", vec![12, 1]),
        ] {
            press(&mut view, &typed(text));
            assert_eq!(ids(&view), found, "{text}");
            press(&mut view, &[KeyCode::Esc]);
        }
        press(&mut view, &typed("/session"));
        press(&mut view, &[KeyCode::Enter, KeyCode::Char('s')]);
        assert_eq!((view.sort, ids(&view).len()), (Sort::Number, 2));
        press(&mut view, &typed("/q"));
        assert_eq!((view.filter.as_str(), ids(&view).len()), ("sessionq", 0));
        press(&mut view, &[KeyCode::Esc]);
        assert_eq!(press(&mut view, &[KeyCode::Char('q')]), Wish::Quit);
    }

    #[test]
    fn the_choice_stays_with_its_connection_and_enter_asks_for_its_details() {
        let mut view = View::default();
        let all: Vec<_> = (1..=40).map(|id| connection(id, "a")).collect();
        view.take(status(1, all.clone()));
        press(&mut view, &[KeyCode::Down, KeyCode::Down, KeyCode::Down]);
        assert_eq!(view.chosen, Some(3));
        let mut later = all;
        later[9] = waiting(later[9].clone(), 50);
        view.take(status(2, later));
        assert_eq!(view.place(&view.rows()), Some(3), "one more is above it");
        assert_eq!(press(&mut view, &[KeyCode::Enter]), Wish::Details(3));
        view.take_details(4, Details::default());
        assert!(view.details.as_ref().unwrap().1.is_none(), "of another one");
        view.take_details(3, Details::default());
        assert!(view.details.as_ref().unwrap().1.is_some());
        press(&mut view, &[KeyCode::Esc, KeyCode::End, KeyCode::PageDown]);
        assert_eq!(view.chosen, Some(40));
        press(&mut view, &[KeyCode::Home, KeyCode::Up]);
        assert_eq!(view.chosen, Some(10));
    }
}
