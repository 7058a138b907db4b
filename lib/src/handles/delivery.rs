//! What the handles know of the messages that a session sends, and what they ask of the session.

use std::{collections::VecDeque, sync::Mutex, task::Waker, time::Duration};

use tokio::sync::Notify;

use unstall_proto::Seq;

use crate::messages::{Position, SessionNumber, Undelivered};

/// Shared by the handles and the task of the session. It outlives the sessions of a connection.
#[derive(Debug, Default)]
pub(crate) struct Board {
    posted: Mutex<Posted>,
    changed: Notify,
}

#[derive(Debug, Default)]
struct Posted {
    sent: Sent,
    /// Messages that were given back.
    lost: u64,
    undelivered: VecDeque<Undelivered>,
    undelivered_bytes: usize,
    /// By hand: up to here the application has acknowledged messages.
    acknowledged_to: Option<Position>,
    /// GOAWAY is to be sent, with this window.
    go_away: Option<Duration>,
    pump: Option<Waker>,
}

/// How many messages of the latest session were accepted and acknowledged.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Sent {
    pub(crate) session: SessionNumber,
    /// The last record that it accepted, and the last one that the peer acknowledged.
    pub(crate) accepted: Seq,
    pub(crate) acknowledged: Seq,
}

impl Board {
    /// How many messages were accepted and acknowledged, and how many were given back so far.
    pub(crate) fn progress(&self) -> (Sent, u64) {
        let posted = self.posted.lock().unwrap();
        (posted.sent, posted.lost)
    }

    /// Resolves when the progress changed after this call.
    pub(crate) fn changed(&self) -> tokio::sync::futures::Notified<'_> {
        self.changed.notified()
    }

    /// The session tells how many of its messages were accepted and acknowledged.
    pub(crate) fn set_progress(&self, sent: Sent) {
        let acknowledged = {
            let mut posted = self.posted.lock().unwrap();
            let before = std::mem::replace(&mut posted.sent, sent);
            (before.session, before.acknowledged) != (sent.session, sent.acknowledged)
        };
        if acknowledged {
            self.changed.notify_waiters();
        }
    }

    /// Keeps undelivered messages until the application takes them. Of those that earlier sessions
    /// left, it keeps the latest, up to about `limit` bytes. Returns how many messages it dropped.
    pub(crate) fn give_back(&self, messages: Vec<Undelivered>, limit: usize) -> u64 {
        // Dropping a message may run the user's code, so it happens outside of the lock.
        let mut dropped = Vec::new();
        {
            let mut posted = self.posted.lock().unwrap();
            posted.lost += messages.len() as u64;
            while posted.undelivered_bytes > limit {
                let Some(oldest) = posted.undelivered.pop_front() else {
                    break;
                };
                posted.undelivered_bytes -= oldest.message.cost();
                dropped.push(oldest);
            }
            posted.undelivered_bytes += messages.iter().map(|it| it.message.cost()).sum::<usize>();
            posted.undelivered.extend(messages);
        }
        self.changed.notify_waiters();
        dropped.len() as u64
    }

    pub(crate) fn take_undelivered(&self) -> Vec<Undelivered> {
        let mut posted = self.posted.lock().unwrap();
        posted.undelivered_bytes = 0;
        std::mem::take(&mut posted.undelivered).into()
    }

    /// By hand: everything up to `position` is acknowledged.
    pub(crate) fn acknowledge(&self, position: Position) {
        self.ask(|posted| posted.acknowledged_to = posted.acknowledged_to.max(Some(position)));
    }

    /// Asks the client to connect elsewhere within this time.
    pub(crate) fn go_away(&self, within: Duration) {
        self.ask(|posted| posted.go_away = Some(within));
    }

    fn ask(&self, change: impl FnOnce(&mut Posted)) {
        let pump = {
            let mut posted = self.posted.lock().unwrap();
            change(&mut posted);
            posted.pump.take()
        };
        pump.into_iter().for_each(Waker::wake);
    }

    /// What the application asked for: up to where it acknowledges messages, and GOAWAY, once. The
    /// pump is woken when it asks for more.
    pub(crate) fn asked(&self, pump: &Waker) -> (Option<Position>, Option<Duration>) {
        let mut posted = self.posted.lock().unwrap();
        posted.pump = Some(pump.clone());
        (posted.acknowledged_to, posted.go_away.take())
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
