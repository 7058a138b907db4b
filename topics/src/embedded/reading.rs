//! Reads of messages in order.

use std::{cmp::Reverse, collections::BinaryHeap};

use bytes::{Bytes, BytesMut};
use unstall_proto::topics::{Filter, Topic};

use super::{
    cursor::{Cursor, Direction, matching_topics},
    layout::{is_message, log_key, name_of_message, offset_of_log_key, parts},
    names::Names,
    view::{Span, View, offset},
};
use crate::{
    defaults::{
        COPIED_BYTES, FOLLOWED_TOPICS, SCANNED_MESSAGES,
        embedded::{DAMAGE_PROBED, SAMPLE_DENSE, SAMPLED_MESSAGES, TOGETHER_BYTES},
    },
    store::{Chunk, Read, StoreError, Stored},
};

/// A read of the library beneath failed.
#[derive(Debug)]
pub(super) enum Failed {
    Database(fjall::Error),
    /// A message is missing, or cannot be decoded.
    Message,
}

impl From<fjall::Error> for Failed {
    fn from(error: fjall::Error) -> Failed {
        Failed::Database(error)
    }
}

/// A read under way.
pub(super) struct Reading<'a> {
    pub(super) view: &'a View,
    pub(super) filter: &'a Filter,
    /// It reads no further than this, or than what is damaged.
    pub(super) through: u64,
    room: usize,
    names: Names<'a>,
    messages: Vec<Stored>,
    /// The memory of short payloads, which are copied: otherwise each would keep its whole block.
    payloads: BytesMut,
    /// The bytes of payloads that were copied.
    copied: usize,
    /// All that is sought up to here is in `messages`.
    pub(super) reached: u64,
}

/// Whether a message of a topic, at an offset, is wanted.
pub(super) type Wanted<'a> = dyn Fn(&str, u64) -> Result<bool, Failed> + 'a;

/// Whether there is room for more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Step {
    On,
    Full,
}

pub(super) fn read(view: &View, read: &Read) -> Result<Chunk, StoreError> {
    let mut reading = Reading::new(view, read)?;
    let result = reading.run();
    reading.finish(result)
}

impl<'a> Reading<'a> {
    /// # Errors
    /// If the messages that come first are known to be missing.
    pub(super) fn new(view: &'a View, read: &'a Read) -> Result<Reading<'a>, StoreError> {
        let after = read.after.get();
        let mut through = read.through.get().min(view.last).max(after);
        for &(before, end) in &*view.holes {
            if end <= after || before >= through {
                continue;
            }
            if before <= after {
                return Err(damaged(after, end, "they are missing in the log"));
            }
            through = before;
            break;
        }
        Ok(Reading {
            view,
            filter: &read.filter,
            through,
            room: read.max_bytes,
            names: Names::new(&read.filter),
            messages: Vec::new(),
            payloads: BytesMut::new(),
            copied: 0,
            reached: after,
        })
    }

    fn run(&mut self) -> Result<(), Failed> {
        let view = self.view;
        let mut left = SCANNED_MESSAGES;
        for span in view.spans(self.reached, self.through) {
            self.reached = self.reached.max(span.from - 1);
            if !self.filter.is_all() {
                // How dense the matches are is found out by looking.
                let count = SAMPLED_MESSAGES.min(left);
                let before = self.messages.len();
                if self.scan(span, count, None)? == Step::Full {
                    return Ok(());
                }
                left -= count;
                let found = self.messages.len() - before;
                if self.reached < span.through
                    && found * SAMPLE_DENSE < count
                    && let Some(topics) = self.topics(span)
                {
                    match self.follow(span, topics) {
                        Ok(Step::On) => continue,
                        Ok(Step::Full) => return Ok(()),
                        Err(Failed::Message) => return Err(Failed::Message),
                        // The log has everything that the index has.
                        Err(Failed::Database(error)) => {
                            tracing::warn!(%error, "the index of a log cannot be read");
                        }
                    }
                }
            }
            if self.reached < span.through {
                let before = self.reached.max(span.from - 1);
                if self.scan(span, left, None)? == Step::Full || self.reached < span.through {
                    return Ok(());
                }
                left = left.saturating_sub((self.reached - before) as usize);
            }
        }
        self.reached = self.through;
        Ok(())
    }

    /// The topics of a generation that the filter matches. `None` if there are too many to follow, or
    /// they cannot be read.
    fn topics(&self, span: Span<'_>) -> Option<Vec<Box<str>>> {
        matching_topics(span.generation, self.filter, FOLLOWED_TOPICS).ok()?
    }

    /// Looks at the next messages, as many as this, in order, and takes those that match. With
    /// `wanted`, only those of them that it says.
    pub(super) fn scan(
        &mut self,
        span: Span<'_>,
        count: usize,
        wanted: Option<&Wanted<'_>>,
    ) -> Result<Step, Failed> {
        let from = self.reached.max(span.from - 1) + 1;
        if from > span.through || count == 0 {
            return Ok(Step::On);
        }
        let through = span.through.min(from.saturating_add(count as u64 - 1));
        for entry in span.generation.log.range(log_key(from)..=log_key(through)) {
            let (key, value) = entry.into_inner()?;
            let at = offset_of_log_key(&key).ok_or(Failed::Message)?;
            if at != self.reached + 1 {
                return Err(Failed::Message);
            }
            let name = name_of_message(&value).ok_or(Failed::Message)?;
            let topic = self.names.matching(name)?;
            let takes = |topic: &Topic| wanted.map_or(Ok(true), |it| it(topic.as_str(), at));
            match topic {
                Some(topic) if takes(&topic)? => {
                    if self.take(at, topic, &Bytes::from(value))? == Step::Full {
                        return Ok(Step::Full);
                    }
                }
                _ => self.reached = at,
            }
        }
        match self.reached == through {
            true => Ok(Step::On),
            false => Err(Failed::Message),
        }
    }

    /// Takes the messages of some topics of a generation, through the index.
    fn follow(&mut self, span: Span<'_>, topics: Vec<Box<str>>) -> Result<Step, Failed> {
        let from = self.reached.max(span.from - 1) + 1;
        let bounds = (from, span.through);
        let mut cursors: Vec<_> = topics
            .into_iter()
            .map(|topic| Cursor::new(span.generation, topic, bounds, Direction::Forward))
            .collect();
        let mut next = BinaryHeap::new();
        for (place, cursor) in cursors.iter_mut().enumerate() {
            next.extend(cursor.next()?.map(|offset| Reverse((offset, place))));
        }
        while let Some(Reverse((at, place))) = next.pop() {
            let value = span.generation.log.get(log_key(at))?;
            // What is before it is read: a failure from here on is about this message.
            self.reached = at - 1;
            let value = Bytes::from(value.ok_or(Failed::Message)?);
            if self.take_matching(at, &value)? == Step::Full {
                return Ok(Step::Full);
            }
            next.extend(
                cursors[place]
                    .next()?
                    .map(|offset| Reverse((offset, place))),
            );
        }
        self.reached = span.through;
        Ok(Step::On)
    }

    /// Takes a message that the index says to match.
    pub(super) fn take_matching(&mut self, at: u64, value: &Bytes) -> Result<Step, Failed> {
        let name = name_of_message(value).ok_or(Failed::Message)?;
        let topic = self.names.matching(name)?.ok_or(Failed::Message)?;
        self.take(at, topic, value)
    }

    fn take(&mut self, at: u64, topic: Topic, value: &Bytes) -> Result<Step, Failed> {
        let parts = parts(value).ok_or(Failed::Message)?;
        let bytes = parts.payload.len() + topic.as_str().len();
        let payload = match parts.payload.len() < COPIED_BYTES {
            true => self.copied(parts.payload),
            false => value.slice_ref(parts.payload),
        };
        let (time, kind, is_final) = (parts.time, parts.kind, parts.is_final);
        let place = offset(at);
        let message = Stored::new(place, time, topic, kind, is_final, payload);
        self.messages.push(message);
        self.reached = at;
        self.room = self.room.saturating_sub(bytes);
        Ok(if self.room == 0 { Step::Full } else { Step::On })
    }

    /// A copy of a payload. Many share their memory, but a read of few messages takes little.
    fn copied(&mut self, payload: &[u8]) -> Bytes {
        if self.payloads.capacity() < payload.len() {
            let more = self.copied.min(TOGETHER_BYTES).max(payload.len());
            self.payloads = BytesMut::with_capacity(more);
        }
        self.copied += payload.len();
        self.payloads.extend_from_slice(payload);
        self.payloads.split().freeze()
    }

    /// What was read, also if it ended early. If there is nothing, the failure.
    pub(super) fn finish(self, result: Result<(), Failed>) -> Result<Chunk, StoreError> {
        if let Err(failed) = result
            && self.messages.is_empty()
        {
            let why = match failed {
                Failed::Database(error) => error.to_string(),
                Failed::Message => "a message is missing or damaged".to_owned(),
            };
            let after = self.reached.max(self.view.first - 1);
            return Err(damaged(after, self.readable_after(after), &why));
        }
        let first = offset(self.view.first);
        Ok(Chunk::new(self.messages, offset(self.reached), first))
    }

    /// The last message in a row that cannot be read.
    fn readable_after(&self, after: u64) -> u64 {
        let end = self.through.min(after.saturating_add(DAMAGE_PROBED));
        let readable = |at: &u64| {
            let span = self.view.spans(at - 1, *at).next();
            let value = span.map(|span| span.generation.log.get(log_key(*at)));
            let Some(Ok(Some(value))) = value else {
                return false;
            };
            is_message(&value)
        };
        (after + 2..=end)
            .find(readable)
            .map_or(end, |at| at - 1)
            .max(after + 1)
    }
}

pub(super) fn damaged(after: u64, through: u64, why: &str) -> StoreError {
    StoreError::Damaged {
        after: offset(after),
        through: offset(through),
        why: why.into(),
    }
}
