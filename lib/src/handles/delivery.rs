//! What the application's handles see of a session, and what they ask of it.

use std::{collections::VecDeque, sync::Mutex, task::Waker, time::Duration};

use tokio::sync::Notify;

use crate::messages::Undelivered;

/// Shared by the handles and the task of the session; outlives the sessions of one handle.
#[derive(Debug, Default)]
pub(crate) struct Board {
    state: Mutex<State>,
    changed: Notify,
}

#[derive(Debug, Default)]
struct State {
    /// Messages accepted into sessions, and those that were acknowledged or are the hook's own.
    accepted: u64,
    settled: u64,
    /// Messages that were given back.
    lost: u64,
    undelivered: VecDeque<Undelivered>,
    undelivered_bytes: usize,
    /// By hand: messages that the application has processed.
    processed: u64,
    /// GOAWAY is to be sent, with this window.
    go_away: Option<Duration>,
    pump: Option<Waker>,
}

/// How the messages accepted so far have fared.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Progress {
    pub(crate) accepted: u64,
    pub(crate) settled: u64,
    pub(crate) lost: u64,
}

impl Board {
    pub(crate) fn progress(&self) -> Progress {
        let state = self.state.lock().unwrap();
        Progress {
            accepted: state.accepted,
            settled: state.settled,
            lost: state.lost,
        }
    }

    /// Resolves when the progress changed after this call.
    pub(crate) fn changed(&self) -> tokio::sync::futures::Notified<'_> {
        self.changed.notified()
    }

    pub(crate) fn count_accepted(&self, messages: u64) {
        self.state.lock().unwrap().accepted += messages;
    }

    pub(crate) fn count_settled(&self, messages: u64) {
        self.state.lock().unwrap().settled += messages;
        self.changed.notify_waiters();
    }

    /// Keeps what was not delivered until the application takes it. Of what earlier sessions left
    /// no more than `limit` bytes stay, the latest; returns how many messages had to go.
    pub(crate) fn give_back(&self, messages: Vec<Undelivered>, limit: usize) -> u64 {
        let mut dropped = 0;
        {
            let mut state = self.state.lock().unwrap();
            state.lost += messages.len() as u64;
            while state.undelivered_bytes > limit {
                let Some(oldest) = state.undelivered.pop_front() else {
                    break;
                };
                state.undelivered_bytes -= oldest.message.cost();
                dropped += 1;
            }
            state.undelivered_bytes += messages.iter().map(|it| it.message.cost()).sum::<usize>();
            state.undelivered.extend(messages);
        }
        self.changed.notify_waiters();
        dropped
    }

    pub(crate) fn take_undelivered(&self) -> Vec<Undelivered> {
        let mut state = self.state.lock().unwrap();
        state.undelivered_bytes = 0;
        std::mem::take(&mut state.undelivered).into()
    }

    /// By hand: everything up to this many received messages is processed.
    pub(crate) fn acknowledge(&self, messages: u64) {
        self.ask(|state| state.processed = state.processed.max(messages));
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

    /// What the application asked for: how many messages are processed, and GOAWAY, once. The
    /// pump is woken when more is asked.
    pub(crate) fn asked(&self, pump: &Waker) -> (u64, Option<Duration>) {
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
