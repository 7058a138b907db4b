//! The records of one DATA packet that is being filled.

use bytes::{BufMut, Bytes, BytesMut};

use crate::limits::{MAX_PACKET_COST, MAX_RECORD, PACKET_FILL, record_cost};
use crate::message::Batch;
use crate::number::{Position, Seq};
use crate::payload::{Kind, Payload};
use crate::record::{Record, RecordHeader};
use crate::wire::{DATA_HEADER, kind};

/// Whole messages, encoded as the records of one DATA packet that has no sequence number yet.
///
/// [`Session::send_records`](crate::Session::send_records) accepts all of them at once. So a thread
/// that sends can encode its messages itself, and the thread that drives the session only numbers
/// them.
#[derive(Clone, Debug, Default)]
pub struct Records {
    /// Invariant: empty, or a header with the number 0 and whole records.
    block: BytesMut,
    /// The size up to which the packet may be filled; 0 while `block` is empty.
    fill: usize,
    messages: u64,
    /// Invariant: at most [`MAX_PACKET_COST`].
    cost: u64,
    /// Each header is as long as that of a WebSocket frame.
    for_frames: bool,
}

impl Records {
    /// No records, with room for that many bytes of them before the block has to grow.
    pub fn with_capacity(bytes: usize) -> Records {
        Records::over(BytesMut::with_capacity(DATA_HEADER + bytes))
    }

    /// No records, over the memory of a packet that is done with. `None` if that is small, or if
    /// messages of the packet share it.
    pub fn reuse(packet: Batch) -> Option<Records> {
        Records::reuse_bytes(packet.into_bytes())
    }

    /// [`reuse`](Records::reuse) of what [`into_frames`](Records::into_frames) gave.
    pub fn reuse_bytes(packet: Bytes) -> Option<Records> {
        let mut block = packet.try_into_mut().ok()?;
        block.clear();
        let room = DATA_HEADER + PACKET_FILL;
        block.try_reclaim(room).then(|| Records::over(block))
    }

    /// No records, over a block that is used again.
    pub(crate) fn over(mut block: BytesMut) -> Records {
        block.clear();
        Records {
            block,
            ..Records::default()
        }
    }

    /// Appends a message. `false`, and nothing changes, when it does not fit into the packet: send
    /// this packet and begin another one. Every message of at most [`MAX_RECORD`] bytes fits into
    /// an empty packet.
    #[inline]
    pub fn push<'a>(&mut self, payload: impl Into<Payload<'a>>) -> bool {
        let payload = payload.into();
        self.push_bytes(payload.kind(), payload.as_bytes())
    }

    /// [`push`](Records::push) for a payload of either kind. Text must be UTF-8: this is not
    /// checked here, and a peer ends the session over text that is not.
    #[inline]
    pub fn push_bytes(&mut self, kind: Kind, bytes: &[u8]) -> bool {
        if self.block.is_empty() {
            if bytes.len() > MAX_RECORD {
                return false;
            }
            self.begin(Record::max_size(bytes.len()), PACKET_FILL);
        }
        self.push_record(kind, false, bytes)
    }

    /// Whether a message of so many bytes fits into the packet.
    #[inline]
    pub fn has_room_for(&self, bytes: usize) -> bool {
        let cost = self.cost + record_cost(bytes);
        match self.block.is_empty() {
            true => bytes <= MAX_RECORD,
            false => self.has_room(Record::max_size(bytes), cost),
        }
    }

    /// How many messages there are.
    pub fn messages(&self) -> u64 {
        self.messages
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.block.is_empty()
    }

    /// The cost of the messages, as credit counts it.
    pub fn cost(&self) -> u64 {
        self.cost
    }

    /// From now on the header of each record takes as many bytes as the header of an unmasked
    /// WebSocket frame would. So they can become frames where they are. There must be no record yet.
    #[must_use]
    pub fn for_frames(mut self) -> Records {
        debug_assert!(self.is_empty(), "records have headers already");
        self.for_frames = true;
        self
    }

    /// Whether [`into_frames`](Records::into_frames) can be called.
    pub fn is_for_frames(&self) -> bool {
        self.for_frames
    }

    /// Replaces the header of each record by what `write` makes of its kind and its length. `write`
    /// gets exactly the bytes that the header of an unmasked frame takes. The payloads stay where they
    /// are. Without [`for_frames`](Records::for_frames), the headers have other lengths.
    pub fn into_frames(mut self, mut write: impl FnMut(Kind, usize, &mut [u8])) -> Bytes {
        let header = self.block.len().min(DATA_HEADER);
        let mut frames = self.block.split_off(header);
        let mut at = 0;
        while let Some(record) = frames.get(at..).and_then(RecordHeader::read) {
            let payload = at + record.size;
            write(record.kind, record.length, &mut frames[at..payload]);
            at = payload + record.length;
        }
        frames.freeze()
    }

    /// Turns them back into messages, without a session. The positions of these messages are
    /// counted from the first one, and belong to no session.
    pub fn into_batch(mut self) -> Batch {
        let end = Position::START.after_records(self.messages, self.cost);
        let header = self.block.len().min(DATA_HEADER);
        let records = self.block.split_off(header).freeze();
        Batch::records(records, Position::START, end.unwrap_or_default())
    }
}

/// The packet that a session's outbox is filling.
impl Records {
    /// Begins a packet. It is filled up to `fill` bytes, or with one run of records of `first`
    /// bytes if that is more.
    pub(crate) fn begin(&mut self, first: usize, fill: usize) {
        self.fill = fill.max(DATA_HEADER + first);
        // One allocation for a packet that stays alone with its first record.
        self.block.reserve(DATA_HEADER + first);
        self.block.put_u8(kind::DATA);
        self.block.put_u64(0);
    }

    /// Whether records of that many bytes fit into the packet, when all of it costs `cost` then.
    #[inline]
    fn has_room(&self, size: usize, cost: u64) -> bool {
        self.block.len() + size <= self.fill && cost <= MAX_PACKET_COST
    }

    /// Appends a record. `false`, and nothing changes, when it does not fit into the packet, or
    /// when no packet has begun.
    #[inline(always)]
    pub(crate) fn push_record(&mut self, kind: Kind, continues: bool, payload: &[u8]) -> bool {
        let cost = self.cost + record_cost(payload.len());
        if !self.has_room(Record::max_size(payload.len()), cost) {
            return false;
        }
        match self.for_frames {
            false => Record::write(&mut self.block, kind, continues, payload),
            true => Record::write_like_frame(&mut self.block, kind, payload),
        }
        self.cost = cost;
        self.messages += 1;
        true
    }

    /// Appends all of `other`. `false`, and nothing changes, as with
    /// [`push_record`](Records::push_record).
    pub(crate) fn push_records(&mut self, other: &Records) -> bool {
        let records = other.block.get(DATA_HEADER..).unwrap_or_default();
        let cost = self.cost + other.cost;
        if !self.has_room(records.len(), cost) {
            return false;
        }
        self.block.extend_from_slice(records);
        self.for_frames &= other.for_frames;
        self.cost = cost;
        self.messages += other.messages;
        true
    }

    /// Appends the header of a record. Its payload is sent after the packet's bytes.
    pub(crate) fn push_header(&mut self, kind: Kind, continues: bool, length: usize) {
        RecordHeader::write(&mut self.block, kind, continues, length);
        self.cost += record_cost(length);
        self.messages += 1;
    }

    /// Takes the packet out and gives its first record that number. What is left of the block takes
    /// the next packet.
    pub(crate) fn seal(&mut self, first: Seq) -> Bytes {
        if let Some(number) = self.block.get_mut(1..DATA_HEADER) {
            number.copy_from_slice(&first.get().to_be_bytes());
        }
        (self.fill, self.messages, self.cost) = (0, 0, 0);
        self.block.split().freeze()
    }

    /// The bytes that the packet takes so far.
    pub(crate) fn size(&self) -> usize {
        self.block.len()
    }

    /// The room of the block, used or not, in bytes.
    pub(crate) fn capacity(&self) -> usize {
        self.block.capacity()
    }

    /// The block, to be used again.
    pub(crate) fn into_block(self) -> BytesMut {
        self.block
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_pushed_comes_out_of_the_batch() {
        let mut records = Records::default();
        assert!(records.is_empty());
        assert!(records.push("one"));
        assert!(records.push(&[][..]));
        assert!(records.push(&[7; 100][..]));
        assert_eq!(records.messages(), 3);
        assert_eq!(records.cost(), 3 * 64 + 103);
        let mut batch = records.into_batch();
        assert_eq!(batch.remaining(), 3);
        let mut seen = Vec::new();
        while let Some(message) = batch.next_ref() {
            seen.push((message.kind, message.payload.to_vec()));
        }
        assert_eq!(
            seen,
            [
                (Kind::Text, b"one".to_vec()),
                (Kind::Binary, vec![]),
                (Kind::Binary, vec![7; 100])
            ]
        );
        assert_eq!(Records::default().into_batch().remaining(), 0);
    }

    #[test]
    fn records_become_frames_where_they_are() {
        let mut records = Records::default().for_frames();
        let lengths = [0, 1, 15, 16, 125, 126, 4_095, 4_096, 8_192];
        for (index, length) in lengths.into_iter().enumerate() {
            let kind = [Kind::Text, Kind::Binary][index % 2];
            assert!(records.push_bytes(kind, &vec![b'a'; length]));
        }
        let mut messages = records.clone().into_batch();
        for length in lengths {
            let message = messages.next_ref();
            assert_eq!(message.map(|it| it.payload.len()), Some(length));
        }
        assert!(
            messages.next_ref().is_none(),
            "they are messages all the same"
        );

        let mut seen = Vec::new();
        let frames = records.into_frames(|kind, length, header| {
            seen.push((kind, length, header.len()));
            header.fill(0);
        });
        let mut at = 0;
        for (index, length) in lengths.into_iter().enumerate() {
            let kind = [Kind::Text, Kind::Binary][index % 2];
            let header = if length < 126 { 2 } else { 4 };
            assert_eq!(seen[index], (kind, length, header));
            let payload = at + header;
            assert!(frames[at..payload].iter().all(|byte| *byte == 0));
            assert_eq!(frames[payload..payload + length], vec![b'a'; length]);
            at = payload + length;
        }
        assert_eq!((seen.len(), at), (lengths.len(), frames.len()));
        assert!(
            Records::default()
                .into_frames(|_, _, _| panic!())
                .is_empty()
        );
    }

    #[test]
    fn a_full_packet_takes_no_more_and_an_empty_one_takes_the_largest_record() {
        let mut records = Records::default();
        while records.has_room_for(64) {
            assert!(records.push(&[1; 64][..]));
        }
        assert!(!records.push(&[1; 64][..]));
        assert_eq!(records.messages(), 496);
        let mut costly = Records::default();
        while costly.push("") {}
        assert_eq!(costly.cost(), MAX_PACKET_COST);
        let large = vec![0; MAX_RECORD];
        assert!(!records.push(&large[..]));
        let mut alone = Records::default();
        assert!(alone.push(&large[..]));
        assert!(!Records::default().push(&vec![0; MAX_RECORD + 1][..]));
    }

    #[test]
    fn a_packet_ends_at_its_fill_and_the_next_one_takes_the_rest_of_the_block() {
        let mut records = Records::with_capacity(400);
        assert!(!records.push_record(Kind::Binary, false, &[]), "not begun");
        for first in [9, 13] {
            records.begin(10, 200);
            while records.push_record(Kind::Binary, false, &[7; 40]) {}
            assert_eq!(records.messages(), 4);
            assert!(!records.push_bytes(Kind::Binary, &[7; 40]), "it is full");
            let packet = records.seal(Seq::new(first));
            assert_eq!(packet[..9], [0x10, 0, 0, 0, 0, 0, 0, 0, first as u8]);
            assert_eq!((records.messages(), records.cost()), (0, 0));
            assert!(records.is_empty());
        }
        records.begin(1_000, 200);
        assert!(
            records.push_record(Kind::Binary, false, &[7; 900]),
            "the first one fits"
        );
        assert!(!records.push_record(Kind::Binary, false, &[7; 900]));
    }
}
