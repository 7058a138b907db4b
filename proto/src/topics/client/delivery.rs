//! What a subscription delivers.

use bytes::Bytes;

use super::super::name::Topic;
use super::super::position::{LogId, Offset, Position, StoredAt};
use super::super::record::TopicRecord;
use super::super::terms::{Gap, SubscriptionEnd};
use crate::payload::Kind;

/// The next thing in a subscription.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Delivery {
    /// Messages, in order.
    Messages(MessageBatch),
    /// Messages are or may be missing here.
    Gap {
        /// What is missing, and why.
        gap: Gap,
        /// The place behind the gap. Offsets behind it are of this log.
        position: Position,
    },
    /// Everything is delivered that the log had when the subscription was made, or resumed.
    CaughtUp {
        /// The end that the log had.
        position: Position,
    },
    /// Everything up to a place is delivered, although no message stands there.
    Progress {
        /// The place.
        position: Position,
    },
    /// The subscription is over. Nothing follows, unless
    /// [`Client::resubscribe`](super::Client::resubscribe) lets it go on.
    Ended {
        /// Why.
        reason: SubscriptionEnd,
        /// Why, in the server's words.
        text: String,
    },
}

/// Messages that arrived together: slices of the packet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MessageBatch {
    log: LogId,
    /// Whole records of whole messages, checked.
    records: Bytes,
    /// Where the next message begins.
    at: usize,
    remaining: usize,
    cost: u64,
    last: (Offset, StoredAt),
    /// The only message, if it came in several records.
    whole: Option<Box<TopicMessage>>,
    /// The topic of the message before: neighbours often share it.
    topic: Option<Topic>,
}

/// A message of a subscription.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct TopicMessage {
    /// Its place in the log.
    pub offset: Offset,
    /// When it was stored.
    pub time: StoredAt,
    /// The topic.
    pub topic: Topic,
    /// Text or binary.
    pub kind: Kind,
    /// Whether it is the topic's last message.
    pub is_final: bool,
    /// The bytes. Those of text are UTF-8. A payload may be a slice of the packet that it came in.
    pub payload: Bytes,
    /// What it cost, for [`Client::taken`](super::Client::taken).
    pub cost: u64,
}

/// A message of a [`MessageBatch`], borrowed from it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct TopicMessageRef<'a> {
    /// Its place in the log.
    pub offset: Offset,
    /// When it was stored.
    pub time: StoredAt,
    /// The topic.
    pub topic: &'a str,
    /// Text or binary.
    pub kind: Kind,
    /// Whether it is the topic's last message.
    pub is_final: bool,
    /// The bytes. Those of text are UTF-8.
    pub payload: &'a [u8],
    /// What it cost, for [`Client::taken`](super::Client::taken).
    pub cost: u64,
}

impl MessageBatch {
    /// Whole messages, each of one record, checked.
    pub(super) fn records(
        log: LogId,
        records: Bytes,
        count: usize,
        cost: u64,
        last: (Offset, StoredAt),
    ) -> MessageBatch {
        MessageBatch {
            log,
            records,
            at: 0,
            remaining: count,
            cost,
            last,
            whole: None,
            topic: None,
        }
    }

    /// A message that came in several records.
    pub(super) fn whole(log: LogId, message: TopicMessage) -> MessageBatch {
        MessageBatch {
            log,
            records: Bytes::new(),
            at: 0,
            remaining: 1,
            cost: message.cost,
            last: (message.offset, message.time),
            whole: Some(Box::new(message)),
            topic: None,
        }
    }

    /// Appends a batch of small records to another, if both are below so many bytes. If not, it is
    /// given back.
    pub(super) fn join(&mut self, other: MessageBatch, below: usize) -> Result<(), MessageBatch> {
        let small = self.records.len() + other.records.len() <= below;
        let records = self.whole.is_none() && other.whole.is_none();
        if !small || !records || self.log != other.log {
            return Err(other);
        }
        self.records = [&self.records[..], &other.records[..]].concat().into();
        self.remaining += other.remaining;
        self.cost += other.cost;
        self.last = other.last;
        Ok(())
    }

    /// How many messages are left in it.
    pub fn remaining(&self) -> usize {
        self.remaining
    }

    /// What all its messages cost, also those that were taken out: for
    /// [`Client::taken`](super::Client::taken).
    pub fn cost(&self) -> u64 {
        self.cost
    }

    /// The log that the messages are from.
    pub fn log(&self) -> LogId {
        self.log
    }

    /// The place behind the last message.
    pub fn position(&self) -> Position {
        Position {
            log: self.log,
            offset: self.last.0,
            time: self.last.1,
        }
    }

    /// Takes out the next message, without a copy and without taking memory.
    pub fn next_ref(&mut self) -> Option<TopicMessageRef<'_>> {
        self.remaining = self.remaining.checked_sub(1)?;
        if let Some(message) = &self.whole {
            return Some(TopicMessageRef {
                offset: message.offset,
                time: message.time,
                topic: message.topic.as_str(),
                kind: message.kind,
                is_final: message.is_final,
                payload: &message.payload,
                cost: message.cost,
            });
        }
        let record = TopicRecord::read_stored(&self.records[self.at..], true).ok()?;
        self.at += record.size;
        let first = record.first?;
        Some(TopicMessageRef {
            offset: first.stored.0,
            time: first.stored.1,
            topic: std::str::from_utf8(first.topic).ok()?,
            kind: record.kind,
            is_final: record.is_final,
            payload: record.payload,
            cost: record.cost(),
        })
    }
}

impl Iterator for MessageBatch {
    type Item = TopicMessage;

    /// Takes out the next message. Its payload is a slice of the packet.
    fn next(&mut self) -> Option<TopicMessage> {
        self.remaining = self.remaining.checked_sub(1)?;
        if let Some(message) = self.whole.take() {
            return Some(*message);
        }
        let record = TopicRecord::read_stored(&self.records[self.at..], true).ok()?;
        self.at += record.size;
        let first = record.first?;
        let topic = match &self.topic {
            Some(topic) if topic.as_str().as_bytes() == first.topic => topic.clone(),
            _ => Topic::new(std::str::from_utf8(first.topic).ok()?).ok()?,
        };
        self.topic = Some(topic.clone());
        Some(TopicMessage {
            offset: first.stored.0,
            time: first.stored.1,
            topic,
            kind: record.kind,
            is_final: record.is_final,
            payload: self.records.slice(self.at - record.payload.len()..self.at),
            cost: record.cost(),
        })
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        (self.remaining, Some(self.remaining))
    }
}

impl ExactSizeIterator for MessageBatch {}
