//! Stored messages that are encoded once and shared by every subscriber of a node.

use std::ops::Range;

use bytes::{BufMut, Bytes, BytesMut};

use super::limits::{MAX_BLOCK, record_cost};
use super::name::{Filter, MAX_NAME};
use super::packet::{MESSAGES_HEAD, kind};
use super::position::{Offset, StoredAt};
use super::record::{Head, MAX_HEAD};
use crate::limits::MAX_RECORD;
use crate::payload::Kind;
use crate::util::copied;

/// A stored message, borrowed from the caller.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(clippy::exhaustive_structs, reason = "a stored message has just these")]
pub struct StoredMessage<'a> {
    /// Its place in the log.
    pub offset: Offset,
    /// When it was stored.
    pub time: StoredAt,
    /// The name of a [`Topic`](super::Topic).
    pub topic: &'a str,
    /// Whether it is text or binary. Text has to be UTF-8: clients check that.
    pub kind: Kind,
    /// Whether it is the topic's last message.
    pub is_final: bool,
    /// The bytes.
    pub payload: &'a [u8],
}

/// A run of stored messages, encoded as the records of MESSAGES packets.
///
/// All subscribers of a node share it, by `Arc<Block>`: what they are sent are slices of it. A
/// message of more than 65,536 bytes is several records. A block does not change.
#[derive(Debug)]
pub struct Block {
    /// The head of a MESSAGES packet for the subscription 1, and the records. So the beginning of a
    /// block is a packet for a client with one subscription, without a copy.
    bytes: Bytes,
    /// One for each record, in order.
    entries: Vec<Entry>,
    /// The longest payload of a message.
    largest: u64,
    /// All messages match this filter.
    matching: Option<Filter>,
}

/// A record of a block.
#[derive(Clone, Copy, Debug)]
struct Entry {
    offset: Offset,
    time: StoredAt,
    /// Where the record ends in the block's bytes.
    end: u32,
    /// The cost of all records up to this one, with it.
    cost: u32,
    /// The length of its payload.
    payload: u32,
    /// The length of its topic. 0 if it is not the first record of its message.
    topic: u8,
    flags: u8,
}

const TEXT: u8 = 1;
const CONTINUES: u8 = 2;
const FINAL: u8 = 4;

/// Messages that are being encoded as a [`Block`].
#[derive(Debug)]
pub struct BlockBuilder {
    bytes: BytesMut,
    entries: Vec<Entry>,
    largest: u64,
    matching: Option<Filter>,
}

impl BlockBuilder {
    /// No messages yet. There is room for this many messages with so many bytes of payloads and
    /// topics together, before memory has to grow.
    pub fn with_capacity(messages: usize, bytes: usize) -> BlockBuilder {
        // The usual head of a record without its topic: 2 bytes of word, 4 of offset, 8 of time, 1.
        let records = messages * 15 + bytes / MAX_RECORD * 4 + bytes;
        let mut buf = BytesMut::with_capacity(MESSAGES_HEAD + records);
        buf.put_u8(kind::MESSAGES);
        buf.put_u32(1);
        BlockBuilder {
            bytes: buf,
            entries: Vec::with_capacity(messages + bytes / MAX_RECORD),
            largest: 0,
            matching: None,
        }
    }

    /// Promises that every message matches this filter, because a store has read them by it. A
    /// server then asks for no topic when a subscription has the same filter.
    #[must_use]
    pub fn matching(mut self, filter: Filter) -> BlockBuilder {
        self.matching = Some(filter);
        self
    }

    /// Appends a message. `false`, and nothing changes, when its offset is not above the one before
    /// it, when its topic is empty or longer than [`MAX_NAME`], or when the block would be longer than
    /// [`MAX_BLOCK`]. An empty block takes every message that a log may have.
    pub fn push(&mut self, message: StoredMessage<'_>) -> bool {
        let records = message.payload.len().div_ceil(MAX_RECORD).max(1);
        let size = message.payload.len() + MAX_HEAD + 4 * records;
        let last = self
            .entries
            .last()
            .map_or(Offset::START, |last| last.offset);
        if self.bytes.len() + size > MAX_BLOCK
            || self.cost() + size as u64 + 64 * records as u64 > u64::from(u32::MAX)
            || message.offset <= last
            || message.topic.is_empty()
            || message.topic.len() > MAX_NAME
        {
            return false;
        }
        let mut rest = message.payload;
        for record in 0..records {
            let (piece, behind) = rest.split_at(rest.len().min(MAX_RECORD));
            rest = behind;
            self.push_record(message, record == 0, record + 1 < records, piece);
        }
        self.largest = self.largest.max(message.payload.len() as u64);
        true
    }

    fn push_record(
        &mut self,
        message: StoredMessage<'_>,
        first: bool,
        continues: bool,
        piece: &[u8],
    ) {
        let head = Head {
            kind: message.kind,
            continues,
            is_final: message.is_final,
            first: first.then_some((Some((message.offset, message.time)), message.topic)),
        };
        head.write_record(&mut self.bytes, piece);
        let topic = if first { message.topic.len() } else { 0 };
        let cost = self.cost() + record_cost(topic, piece.len());
        let text = if message.kind == Kind::Text { TEXT } else { 0 };
        let more = if continues { CONTINUES } else { 0 };
        let last = if message.is_final { FINAL } else { 0 };
        self.entries.push(Entry {
            offset: message.offset,
            time: message.time,
            end: self.bytes.len() as u32,
            cost: cost as u32,
            payload: piece.len() as u32,
            topic: topic as u8,
            flags: text | more | last,
        });
    }

    fn cost(&self) -> u64 {
        self.entries.last().map_or(0, |last| last.cost.into())
    }

    /// The length of what is encoded, in bytes.
    pub fn len(&self) -> usize {
        self.bytes.len() - MESSAGES_HEAD
    }

    /// Whether there is no message yet.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// The finished block.
    pub fn finish(mut self) -> Block {
        // Blocks are kept in caches, so they keep no room to grow.
        let bytes = match self.bytes.capacity() - self.bytes.len() > self.bytes.len() / 8 {
            true => copied(&self.bytes),
            false => self.bytes.freeze(),
        };
        self.entries.shrink_to_fit();
        Block {
            bytes,
            entries: self.entries,
            largest: self.largest,
            matching: self.matching,
        }
    }
}

impl Default for BlockBuilder {
    fn default() -> BlockBuilder {
        BlockBuilder::with_capacity(0, 0)
    }
}

impl Block {
    /// A block of these messages, as far as [`BlockBuilder::push`] takes them.
    pub fn new<'a>(messages: impl IntoIterator<Item = StoredMessage<'a>>) -> Block {
        let mut builder = BlockBuilder::default();
        for message in messages {
            if !builder.push(message) {
                break;
            }
        }
        builder.finish()
    }

    /// The offsets of the first and the last message. `None` if it has none.
    pub fn offsets(&self) -> Option<(Offset, Offset)> {
        let (first, last) = (self.entries.first()?, self.entries.last()?);
        Some((first.offset, last.offset))
    }

    /// The time of the last message.
    pub fn last_time(&self) -> StoredAt {
        let last = self.entries.last();
        last.map_or(StoredAt::UNKNOWN, |last| last.time)
    }

    /// Whether it has no message.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// The memory that it takes, in bytes.
    pub fn memory(&self) -> usize {
        self.bytes.len() + self.entries.capacity() * size_of::<Entry>() + size_of::<Block>()
    }

    /// Its messages with offsets above `after`, for subscribers in the same process. The payload of
    /// a message of one record is a slice of the block.
    pub fn messages(&self, after: Offset) -> impl Iterator<Item = BlockMessage<'_>> {
        let mut record = self.find(after);
        std::iter::from_fn(move || {
            let entry = self.entries.get(record)?;
            let records = record..self.message_end(record);
            let topic = self.topic(record);
            record = records.end;
            Some(BlockMessage {
                offset: entry.offset,
                time: entry.time,
                topic,
                kind: match entry.flags & TEXT {
                    0 => Kind::Binary,
                    _ => Kind::Text,
                },
                is_final: entry.flags & FINAL != 0,
                payload: self.payload(records),
            })
        })
    }

    fn payload(&self, records: Range<usize>) -> Bytes {
        let range = |record: usize| {
            let entry = &self.entries[record];
            entry.end as usize - entry.payload as usize..entry.end as usize
        };
        if records.len() == 1 {
            return self.bytes.slice(range(records.start));
        }
        let length: usize = records.clone().map(|record| range(record).len()).sum();
        let mut whole = Vec::with_capacity(length);
        for record in records {
            whole.extend_from_slice(&self.bytes[range(record)]);
        }
        whole.into()
    }
}

/// A message of a [`Block`].
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct BlockMessage<'a> {
    /// Its place in the log.
    pub offset: Offset,
    /// When it was stored.
    pub time: StoredAt,
    /// The topic.
    pub topic: &'a str,
    /// Whether it is text or binary.
    pub kind: Kind,
    /// Whether it is the topic's last message.
    pub is_final: bool,
    /// The bytes.
    pub payload: Bytes,
}

/// What a server asks of the records, by their place in the block.
impl Block {
    /// The first record whose message has an offset above `after`.
    pub(super) fn find(&self, after: Offset) -> usize {
        self.entries.partition_point(|entry| entry.offset <= after)
    }

    pub(super) fn offset(&self, record: usize) -> Offset {
        self.entries[record].offset
    }

    pub(super) fn time(&self, record: usize) -> StoredAt {
        self.entries[record].time
    }

    pub(super) fn is_final(&self, record: usize) -> bool {
        self.entries[record].flags & FINAL != 0
    }

    /// Whether the record is the first one of its message.
    pub(super) fn begins_message(&self, record: usize) -> bool {
        self.entries[record].topic > 0
    }

    /// Whether the record is the last one of its message.
    pub(super) fn ends_message(&self, record: usize) -> bool {
        self.entries[record].flags & CONTINUES == 0
    }

    /// The record behind the last one of the message that this record is of.
    pub(super) fn message_end(&self, record: usize) -> usize {
        let rest = &self.entries[record..];
        let last = rest.iter().position(|entry| entry.flags & CONTINUES == 0);
        record + last.map_or(rest.len(), |last| last + 1)
    }

    /// The topic in the first record of a message.
    pub(super) fn topic(&self, record: usize) -> &str {
        let entry = &self.entries[record];
        let end = entry.end as usize - entry.payload as usize;
        let topic = &self.bytes[end - usize::from(entry.topic)..end];
        std::str::from_utf8(topic).unwrap_or_default()
    }

    /// The longest payload of a message.
    pub(super) fn largest(&self) -> u64 {
        self.largest
    }

    /// The length of the payload of the message that begins with this record.
    pub(super) fn length(&self, record: usize) -> u64 {
        let records = &self.entries[record..self.message_end(record)];
        records.iter().map(|entry| u64::from(entry.payload)).sum()
    }

    /// Whether all messages are known to match a filter.
    pub(super) fn all_match(&self, filter: &Filter) -> bool {
        filter.is_all() || self.matching.as_ref() == Some(filter)
    }

    fn begin(&self, record: usize) -> usize {
        match record {
            0 => MESSAGES_HEAD,
            record => self.entries[record - 1].end as usize,
        }
    }

    fn cost_before(&self, record: usize) -> u64 {
        match record {
            0 => 0,
            record => self.entries[record - 1].cost.into(),
        }
    }

    /// The cost of records.
    pub(super) fn cost(&self, records: Range<usize>) -> u64 {
        self.cost_before(records.end) - self.cost_before(records.start)
    }

    /// The length of records, in bytes.
    pub(super) fn size(&self, records: Range<usize>) -> usize {
        self.begin(records.end) - self.begin(records.start)
    }

    /// How far records from `records.start` on fit into this many bytes and this credit.
    pub(super) fn fit(&self, records: Range<usize>, bytes: usize, credit: u64) -> usize {
        let begin = self.begin(records.start);
        let before = self.cost_before(records.start);
        let within = &self.entries[records.clone()];
        let fits = |entry: &Entry| {
            entry.end as usize - begin <= bytes && u64::from(entry.cost) - before <= credit
        };
        records.start + within.partition_point(fits)
    }

    /// The encoded records.
    pub(super) fn slice(&self, records: Range<usize>) -> Bytes {
        self.bytes
            .slice(self.begin(records.start)..self.begin(records.end))
    }

    /// A whole packet with the first records, for the subscription 1.
    pub(super) fn packet(&self, records: usize) -> Bytes {
        self.bytes.slice(..self.begin(records))
    }
}

#[cfg(test)]
mod tests;
