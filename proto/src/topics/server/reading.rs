//! What subscriptions want to read from the log.

use std::sync::Arc;

use super::super::block::Block;
use super::super::position::{Offset, StoredAt};
use super::super::terms::GapReason;
use super::event::{ReadRequest, SubscriptionKey};
use super::subscription::Subscription;
use super::{Server, SubscriptionEnd};
use crate::util;

impl Server {
    /// The log has grown up to this message. An end that is not later changes nothing.
    ///
    /// After calling this: [`poll_read`](Server::poll_read),
    /// [`poll_transmit`](Server::poll_transmit).
    pub fn set_end(&mut self, end: Offset, time: StoredAt) {
        if end == self.end.0 && self.end.1 == StoredAt::UNKNOWN {
            self.end.1 = time;
        }
        if end <= self.end.0 {
            return;
        }
        self.end = (end, time);
        let config = &self.config;
        for subscription in &mut self.subscriptions {
            let wants = subscription.wants_read(end, config.read_bytes).is_some();
            if wants && !subscription.in_read_line {
                subscription.in_read_line = true;
                util::push_back(&mut self.lines.read, subscription.key.number());
            }
        }
    }

    /// The next subscription that wants to read, in turn. It has credit, has sent all that it has,
    /// and is behind the end of the log. `None` also while enough reads are under way, or enough is
    /// in hand.
    ///
    /// Answer by [`read`](Server::read), [`read_damaged`](Server::read_damaged) or
    /// [`read_failed`](Server::read_failed), at once or later.
    pub fn poll_read(&mut self) -> Option<ReadRequest> {
        while self.lines.reading < self.config.reads {
            if self.lines.in_hand >= self.config.hand_bytes && !self.lines.read.is_empty() {
                self.release();
                if self.lines.in_hand >= self.config.hand_bytes {
                    return None;
                }
            }
            let number = self.lines.read.pop_front()?;
            let Ok(index) = self.index(number) else {
                continue;
            };
            let (end, max_bytes) = (self.end.0, self.config.read_bytes);
            let subscription = &mut self.subscriptions[index];
            subscription.in_read_line = false;
            let Some((through, max_bytes)) = subscription.wants_read(end, max_bytes) else {
                continue;
            };
            subscription.reading = true;
            self.lines.reading += 1;
            util::trim(&mut self.lines.read);
            return Some(ReadRequest {
                key: subscription.key,
                filter: subscription.filter.clone(),
                after: subscription.place,
                through,
                max_bytes,
                latest: subscription.is_snapshot(),
            });
        }
        None
    }

    /// Answers a [`ReadRequest`]: every message of the filter behind its `after` and up to `through`
    /// is in the block. The block may have other messages too, before, between and behind.
    ///
    /// `first` is the first message that the log had *after* the reading was done. If it is above
    /// `after + 1`, the block may lack what retention has removed meanwhile, and the subscription
    /// gets a gap up to it. Who knows that the block lacks nothing passes [`Offset::START`].
    ///
    /// Either the block has a message of the filter, or `through` is above `after`: otherwise the
    /// same is asked again at once.
    ///
    /// After calling this: [`poll_transmit`](Server::poll_transmit),
    /// [`poll_read`](Server::poll_read).
    pub fn read(
        &mut self,
        key: SubscriptionKey,
        block: Arc<Block>,
        through: Offset,
        first: Offset,
    ) {
        if through > self.end.0 {
            self.set_end(through, StoredAt::UNKNOWN);
        }
        self.answer_read(key, |subscription| subscription.take(block, through, first));
    }

    /// Answers a [`ReadRequest`]: messages up to `through` cannot be read. The subscription gets a
    /// gap, and goes on behind it. `certain` says whether messages of its filter are among them for
    /// sure.
    ///
    /// After calling this: the same as after [`read`](Server::read).
    pub fn read_damaged(&mut self, key: SubscriptionKey, through: Offset, certain: bool) {
        self.answer_read(key, |subscription| {
            subscription.leave_out(GapReason::Damaged, certain, through);
        });
    }

    /// Answers a [`ReadRequest`]: the log cannot be read. The subscription ends. At most 123 bytes
    /// of the text are sent.
    ///
    /// After calling this: the same as after [`read`](Server::read).
    pub fn read_failed(&mut self, key: SubscriptionKey, text: &str) {
        self.answer_read(key, |_| {});
        self.end(key, SubscriptionEnd::Unavailable, text);
    }

    fn answer_read(&mut self, key: SubscriptionKey, answer: impl FnOnce(&mut Subscription)) {
        self.lines.reading = self.lines.reading.saturating_sub(1);
        let Some(subscription) = self.find(key).filter(|it| it.reading && !it.is_ending()) else {
            return;
        };
        subscription.reading = false;
        answer(subscription);
        let (held, ending) = (subscription.hand_bytes(), subscription.is_ending());
        self.lines.in_hand += held;
        if let Some(index) = self.index(key.number()).ok().filter(|_| ending) {
            self.count_ending(index);
        }
        self.wake(key.number());
    }

    /// Gives up what subscriptions without credit have in hand: the rest of a long message. It is
    /// read again when there is credit. A PING of the client does this, so that a client that stops
    /// holds nothing for long, and [`poll_read`](Server::poll_read) when too much is in hand.
    pub fn release(&mut self) {
        for subscription in &mut self.subscriptions {
            let held = subscription.hand_bytes();
            subscription.release();
            self.lines.in_hand -= held - subscription.hand_bytes();
        }
    }
}
