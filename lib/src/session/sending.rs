//! Sent messages on their way from the outbox into the protocol, and what became of them.

use std::collections::VecDeque;

use unstall_proto::{Fate, Kind, SendError, Seq, util::push_back};

use super::Session;
use crate::{
    defaults::{BUDGET_FLOOR_BYTES, REPLAY_BYTES, WRITE_TURN_BYTES},
    handles::{Sent, Shared},
    messages::{Message, Undelivered},
    pump::TurnContext,
    queues::outbox::{Done, Entry},
    reports::Event,
};

/// The state between the outbox and the protocol.
#[derive(Default)]
pub(super) struct Sending {
    /// Entries that were taken from the outbox and that the protocol has not accepted yet.
    waiting: VecDeque<Entry>,
    /// For `flush`: once the record is sent, every message of the outbox before the number is flushed.
    flushes: VecDeque<(Seq, u64)>,
    /// The bytes that the protocol keeps in memory.
    pub(super) kept: usize,
    /// The budget is used up: the session accepts no more until bytes are given back.
    pub(super) held_back: bool,
    /// The progress that the handles were last told.
    told: Sent,
}

/// What became of the entries of one call of [`Session::accept`].
#[derive(Default)]
struct Accepted {
    messages: u64,
    expired: u64,
    done: Done,
    too_large: Vec<Undelivered>,
}

impl Session {
    /// Moves messages from the outbox into the session while it has room.
    pub(super) fn accept(&mut self, turn: &mut TurnContext<'_, '_>) {
        let shared = turn.shared;
        // While attached, the session accepts only what it can send soon. The rest waits in the
        // outbox, where one limit covers it. While detached, it fills the replay buffer.
        let bound = match self.protocol.is_attached() {
            true => WRITE_TURN_BYTES as u64,
            false => u64::MAX,
        };
        let mut accepted = Accepted::default();
        self.sending.held_back = false;
        while self.protocol.unsent() < bound && self.has_next(turn) {
            if !self.has_memory(turn) {
                self.sending.held_back = true;
                break;
            }
            if !self.accept_next(&mut accepted, turn) {
                break;
            }
        }
        turn.report.counters.messages_sent += accepted.messages;
        if accepted.expired > 0 {
            let messages = accepted.expired;
            shared.outbox.count_expired(messages);
            shared.events.push(Event::Expired { messages });
        }
        if accepted.done.upto() > 0 {
            let spare = || self.protocol.spare_records();
            shared
                .outbox
                .release(&accepted.done, std::iter::from_fn(spare));
            let flush = (self.protocol.accepted(), accepted.done.upto());
            push_back(&mut self.sending.flushes, flush);
            self.settle_deliveries(shared);
            give_back(shared, accepted.too_large);
        }
    }

    /// Whether an entry waits to be accepted.
    fn has_next(&mut self, turn: &mut TurnContext<'_, '_>) -> bool {
        let waiting = &mut self.sending.waiting;
        if waiting.is_empty() {
            let _ = turn.shared.outbox.take(waiting, None, turn.now, turn.cx);
        }
        !waiting.is_empty()
    }

    /// Whether the budget allows the session to keep more. If not, an idle session is told to go, and
    /// the task is woken when bytes are given back.
    fn has_memory(&mut self, turn: &mut TurnContext<'_, '_>) -> bool {
        if self.share.cover(self.sending.kept + BUDGET_FLOOR_BYTES) {
            return true;
        }
        // If nothing waits for an acknowledgement, only memory for the next packets is held. Nobody
        // else would free it.
        self.protocol.shrink();
        self.hold();
        self.share.cover(self.sending.kept + BUDGET_FLOOR_BYTES)
            || self.share.poll_refused(turn.cx).is_ready()
    }

    /// Moves one entry into the protocol. `false`: there is none, or no room for it.
    fn accept_next(&mut self, accepted: &mut Accepted, turn: &TurnContext<'_, '_>) -> bool {
        let Some(entry) = self.sending.waiting.front_mut() else {
            return false;
        };
        let done = entry.done();
        match entry {
            Entry::Packed(packed) => {
                let messages = packed.records.messages();
                if self.protocol.send_records(&mut packed.records).is_err() {
                    return false;
                }
                accepted.messages += messages;
            }
            Entry::One(queued) if queued.manner.expires.is_some_and(|at| at <= turn.now) => {
                accepted.expired += 1;
            }
            Entry::One(queued) => match queued.message.send(&mut self.protocol) {
                Ok(_) => accepted.messages += 1,
                Err(SendError::TooLarge { .. }) => {
                    let message = Undelivered::unsent(queued.message.clone());
                    accepted.too_large.push(message);
                }
                Err(_) => return false,
            },
        }
        accepted.done.add(done);
        self.sending.waiting.pop_front();
        true
    }

    /// Whether the protocol has accepted every message.
    pub(super) fn is_idle(&self, shared: &Shared) -> bool {
        self.sending.waiting.is_empty() && !shared.outbox.has_queued()
    }

    /// The write buffer is on the socket: what the protocol has transmitted counts as flushed.
    pub(super) fn settle_flushes(&mut self, shared: &Shared) {
        let mut flushed = None;
        while let Some((seq, upto)) = self.sending.flushes.front() {
            if *seq > self.protocol.transmitted() {
                break;
            }
            flushed = Some(*upto);
            self.sending.flushes.pop_front();
        }
        if let Some(upto) = flushed {
            shared.outbox.complete(upto);
        }
    }

    /// The `on_connect` hook has returned: nobody waits for its flushes any more.
    pub(crate) fn forget_flushes(&mut self) {
        self.sending.flushes.clear();
    }

    /// Tells the handles up to where messages are accepted and acknowledged.
    pub(super) fn settle_deliveries(&mut self, shared: &Shared) {
        let sent = Sent {
            session: self.number,
            accepted: self.protocol.accepted(),
            acknowledged: self.protocol.acknowledged(),
        };
        if self.sending.told != sent {
            self.sending.told = sent;
            shared.board.set_progress(sent);
        }
    }

    /// After the end: gives waiting messages back to the outbox, and unacknowledged messages back to
    /// the application. During the set-up all of them belong to the hook, which sends them again: they
    /// are dropped.
    pub(super) fn give_up_sending(&mut self, shared: &Shared, in_setup: bool) {
        let waiting = std::mem::take(&mut self.sending.waiting);
        let flushed = self.sending.flushes.drain(..).next_back();
        let undelivered: Vec<_> = self
            .protocol
            .undelivered()
            .map(|message| Undelivered {
                maybe_delivered: message.fate == Fate::MaybeDelivered,
                message: Message::new(message.kind == Kind::Text, message.payload),
            })
            .collect();
        if in_setup {
            let sent = Sent {
                acknowledged: self.sending.told.accepted,
                ..self.sending.told
            };
            return shared.board.set_progress(sent);
        }
        shared.outbox.put_back(waiting);
        if let Some((_, upto)) = flushed {
            shared.outbox.complete(upto);
        }
        give_back(shared, undelivered);
    }
}

/// Gives messages back to the application, and reports those that have to be dropped for that.
fn give_back(shared: &Shared, messages: Vec<Undelivered>) {
    if messages.is_empty() {
        return;
    }
    let limit = shared.options.replay_bytes.max(REPLAY_BYTES);
    let messages = shared.board.give_back(messages, limit);
    if messages > 0 {
        tracing::warn!(
            messages,
            "dropped undelivered messages of earlier sessions, because nobody took them"
        );
        shared.events.push(Event::UndeliveredDropped { messages });
    }
}
