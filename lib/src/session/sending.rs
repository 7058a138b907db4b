//! From the outbox into the session, and what became of it.

use std::task::Context;

use tokio::time::Instant;
use unstall_proto::{Fate, Kind, SendError};

use super::Link;
use crate::{
    defaults::{REPLAY_BYTES, SESSION_FLOOR_BYTES, WRITE_TURN_BYTES},
    handles::Shared,
    messages::{Message, Undelivered},
    queues::{
        outbox::{Done, Entry},
        queue,
    },
    reports::Event,
};

impl Link {
    /// Moves messages from the outbox into the session while it has room: how many.
    pub(super) fn accept(&mut self, shared: &Shared, cx: &Context<'_>, now: Instant) -> u64 {
        // A session that keeps much is woken by the acknowledgement of it.
        self.held_back = self.held.is_over_limit() && self.held.bytes() >= SESSION_FLOOR_BYTES;
        let (mut accepted, mut expired) = (0, 0);
        let mut done = Done::default();
        let mut too_large = Vec::new();
        // Without a connection it is the replay buffer's; else what cannot go yet waits in the outbox,
        // where there is one bound to it, and not behind megabytes.
        let bound = match self.session.is_attached() {
            true => WRITE_TURN_BYTES as u64,
            false => u64::MAX,
        };
        while !self.held_back && self.session.unsent() < bound {
            if self.waiting.is_empty() {
                let _ = shared.outbox.take(&mut self.waiting, None, now, cx);
            }
            let Some(entry) = self.waiting.front_mut() else {
                break;
            };
            let all = entry.done();
            match entry {
                Entry::Packed(packed) => {
                    let messages = packed.records.messages();
                    let Ok(seq) = self.session.send_records(&mut packed.records) else {
                        break;
                    };
                    accepted += messages;
                    self.unacknowledged.push(messages, seq);
                }
                Entry::One(queued) if queued.expires.is_some_and(|expires| expires <= now) => {
                    expired += 1;
                }
                Entry::One(queued) => match queued.message.send(&mut self.session) {
                    Ok(seq) => {
                        accepted += 1;
                        self.unacknowledged.push(1, seq);
                    }
                    Err(SendError::TooLarge { .. }) => too_large.push(Undelivered {
                        message: queued.message.clone(),
                        maybe_delivered: false,
                    }),
                    Err(_) => break,
                },
            }
            done.add(all);
            self.waiting.pop_front();
        }
        if expired > 0 {
            shared.outbox.count_expired(expired);
            shared.events.push(Event::Expired { messages: expired });
        }
        if done.upto() > 0 {
            let spare = || self.session.spare_records();
            shared.outbox.release(&done, std::iter::from_fn(spare));
            let flush = (self.session.accepted(), done.upto());
            queue::push(&mut self.flushes, flush);
            let into_session = accepted + too_large.len() as u64;
            shared.board.count_accepted(into_session);
            self.give_back(shared, too_large);
        }
        accepted
    }

    /// Whether everything sent is in the session.
    pub(super) fn is_idle(&self, shared: &Shared) -> bool {
        self.waiting.is_empty() && !shared.outbox.has_queued()
    }

    /// What is on the socket now counts as flushed.
    pub(super) fn settle_flushes(&mut self, shared: &Shared) {
        let mut flushed = None;
        while let Some((seq, upto)) = self.flushes.front() {
            if *seq > self.session.transmitted() {
                break;
            }
            flushed = Some(*upto);
            self.flushes.pop_front();
        }
        if let Some(upto) = flushed {
            shared.outbox.complete(upto);
        }
    }

    /// What the peer acknowledged counts as delivered.
    pub(super) fn settle_deliveries(&mut self, shared: &Shared) {
        let count = self.unacknowledged.count_to(self.session.acknowledged());
        if count > 0 {
            shared.board.count_settled(count);
        }
    }

    /// Messages that wait for the session come back to the outbox.
    pub(super) fn put_back_waiting(&mut self, shared: &Shared) {
        let waiting = std::mem::take(&mut self.waiting);
        if !self.set_up {
            shared.outbox.put_back(waiting);
        }
    }

    /// Gives back what the peer never acknowledged, after the end.
    pub(super) fn collect_undelivered(&mut self, shared: &Shared) {
        let undelivered: Vec<_> = self
            .session
            .undelivered()
            .map(|message| Undelivered {
                maybe_delivered: message.fate == Fate::MaybeDelivered,
                message: Message::new(message.kind == Kind::Text, message.payload),
            })
            .collect();
        self.unacknowledged.clear();
        let flushed = self.flushes.drain(..).next_back();
        if self.set_up {
            shared.board.count_settled(undelivered.len() as u64);
        } else {
            if let Some((_, upto)) = flushed {
                shared.outbox.complete(upto);
            }
            self.give_back(shared, undelivered);
        }
    }

    fn give_back(&self, shared: &Shared, messages: Vec<Undelivered>) {
        if messages.is_empty() {
            return;
        }
        let limit = shared.options.replay_bytes.max(REPLAY_BYTES);
        let messages = shared.board.give_back(messages, limit);
        if messages > 0 {
            tracing::warn!(messages, "nobody took what sessions gave back undelivered");
            shared.events.push(Event::UndeliveredDropped { messages });
        }
    }
}
