//! What the application's handles see of a session, and what they ask of it.

use std::{collections::VecDeque, sync::Mutex, task::Waker, time::Duration};

use tokio::sync::Notify;

use unstall_proto::Seq;

use crate::messages::{Position, SessionNumber, Undelivered};

/// Shared by the handles and the task of the session; outlives the sessions of one handle.
#[derive(Debug, Default)]
pub(crate) struct Board {
    state: Mutex<State>,
    changed: Notify,
}

#[derive(Debug, Default)]
struct State {
    sent: Sent,
    /// Messages that were given back.
    lost: u64,
    undelivered: VecDeque<Undelivered>,
    undelivered_bytes: usize,
    /// By hand: up to where the application has processed messages.
    processed: Option<Position>,
    /// GOAWAY is to be sent, with this window.
    go_away: Option<Duration>,
    pump: Option<Waker>,
}

/// How far the messages of the latest session have come.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Sent {
    pub(crate) session: SessionNumber,
    /// The last record accepted into it, and the last one acknowledged.
    pub(crate) accepted: Seq,
    pub(crate) acknowledged: Seq,
}

impl Board {
    /// How far the messages have come, and how many were given back so far.
    pub(crate) fn progress(&self) -> (Sent, u64) {
        let state = self.state.lock().unwrap();
        (state.sent, state.lost)
    }

    /// Resolves when the progress changed after this call.
    pub(crate) fn changed(&self) -> tokio::sync::futures::Notified<'_> {
        self.changed.notified()
    }

    /// The session tells how far its messages have come.
    pub(crate) fn set_progress(&self, sent: Sent) {
        let acknowledged = {
            let mut state = self.state.lock().unwrap();
            let before = std::mem::replace(&mut state.sent, sent);
            (before.session, before.acknowledged) != (sent.session, sent.acknowledged)
        };
        if acknowledged {
            self.changed.notify_waiters();
        }
    }

    /// Keeps what was not delivered until the application takes it. Of what earlier sessions left
    /// no more than `limit` bytes stay, the latest; returns how many messages had to go.
    pub(crate) fn give_back(&self, messages: Vec<Undelivered>, limit: usize) -> u64 {
        // Messages are the user's: they are dropped outside of the lock.
        let mut dropped = Vec::new();
        {
            let mut state = self.state.lock().unwrap();
            state.lost += messages.len() as u64;
            while state.undelivered_bytes > limit {
                let Some(oldest) = state.undelivered.pop_front() else {
                    break;
                };
                state.undelivered_bytes -= oldest.message.cost();
                dropped.push(oldest);
            }
            state.undelivered_bytes += messages.iter().map(|it| it.message.cost()).sum::<usize>();
            state.undelivered.extend(messages);
        }
        self.changed.notify_waiters();
        dropped.len() as u64
    }

    pub(crate) fn take_undelivered(&self) -> Vec<Undelivered> {
        let mut state = self.state.lock().unwrap();
        state.undelivered_bytes = 0;
        std::mem::take(&mut state.undelivered).into()
    }

    /// By hand: everything up to `position` is processed.
    pub(crate) fn acknowledge(&self, position: Position) {
        self.ask(|state| state.processed = state.processed.max(Some(position)));
    }

    /// Asks the client to connect elsewhere within this time.
    pub(crate) fn go_away(&self, within: Duration) {
        self.ask(|state| state.go_away = Some(within));
    }

    fn ask(&self, change: impl FnOnce(&mut State)) {
        let pump = {
            let mut state = self.state.lock().unwrap();
            change(&mut state);
            state.pump.take()
        };
        pump.into_iter().for_each(Waker::wake);
    }

    /// What the application asked for: up to where messages are processed, and GOAWAY, once. The
    /// pump is woken when more is asked.
    pub(crate) fn asked(&self, pump: &Waker) -> (Option<Position>, Option<Duration>) {
        let mut state = self.state.lock().unwrap();
        state.pump = Some(pump.clone());
        (state.processed, state.go_away.take())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::messages::Message;

    fn lost(name: &str) -> Vec<Undelivered> {
        vec![Undelivered {
            message: Message::from(name),
            maybe_delivered: true,
        }]
    }

    #[test]
    fn undelivered_messages_that_nobody_takes_are_bounded_and_what_went_is_counted() {
        let board = Board::default();
        let limit = 10 * Message::from("100").cost();
        let dropped: u64 = (100..200)
            .map(|name| board.give_back(lost(&name.to_string()), limit))
            .sum();
        let kept = board.take_undelivered();
        assert_eq!(dropped + kept.len() as u64, 100);
        assert_eq!(kept.len(), 11, "the limit, and the latest session's");
        assert_eq!(kept[10].message.as_text(), Some("199"));
        assert!(board.take_undelivered().is_empty());
    }
}
