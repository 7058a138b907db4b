//! What this side has accepted for sending: encoded at once, kept until it is acknowledged.

#[cfg(test)]
mod tests;

use std::collections::VecDeque;
use std::hash::{Hash, Hasher};

use bytes::{BufMut, Bytes, BytesMut};

use crate::error::ProtocolError;
use crate::limits::{
    BLOCK, MAX_PACKET_COST, MAX_RECORD, PACKET_FILL, SENT_PACKET_MEMORY, SPARE_BLOCKS,
    message_cost, record_cost,
};
use crate::message::{Kind, Payload};
use crate::number::{Offset, Position, Seq};
use crate::packet::{DATA_HEADER, Record, RecordHeader, kind};
use crate::queue;
use crate::records::Records;
use crate::transmit::Transmit;
use crate::undelivered::Undelivered;

/// A sealed data packet, as it was and will be sent.
#[derive(Clone, Debug)]
pub(crate) struct Sealed {
    pub(crate) packet: Transmit,
    pub(crate) first: Seq,
    end: Position,
    /// Whether its last record's message continues in the next packet.
    continues: bool,
    /// The bytes of memory that it keeps.
    size: u32,
}

/// Accepted messages, in packets.
#[derive(Clone, Debug)]
pub(crate) struct Outbox {
    /// Sealed packets that are not wholly acknowledged, in order.
    sealed: VecDeque<Sealed>,
    /// What all of `sealed` takes in memory, in bytes.
    memory: u64,
    /// The index in `sealed` of the packet to send next on this connection.
    next: usize,
    /// The packet that is being filled. Invariant: empty, or a header and whole records.
    open: BytesMut,
    /// Blocks of acknowledged packets, to be used again while more is under way: to ask the
    /// allocator for each costs page faults. At most [`SPARE_BLOCKS`], each for a full packet at
    /// least.
    spare: Vec<BytesMut>,
    /// Where the open packet's records begin.
    open_start: Position,
    /// The size at which the open packet is full, and the offset; 0 without one.
    open_fill: usize,
    open_end: Offset,
    /// The end of what was accepted.
    accepted: Position,
    /// Where the first kept packet begins, as credit counts.
    released: Offset,
    acked: Seq,
    /// The last record ever handed to a connection.
    sent: Seq,
    /// The last record that the peer of this connection has, or was handed to it.
    on_connection: Seq,
    /// The most that accepted and unacknowledged records may cost.
    limit: u64,
    /// Where that is reached: `limit` after `released`.
    full_at: Offset,
}

/// By positions only: what was accepted does not change.
impl Hash for Outbox {
    fn hash<H: Hasher>(&self, state: &mut H) {
        for packet in &self.sealed {
            (packet.first, packet.end, packet.continues).hash(state);
        }
        let open = self.open.is_empty();
        (self.next, open, self.open_start, self.accepted).hash(state);
        (self.released, self.acked, self.sent, self.on_connection).hash(state);
    }
}

impl Outbox {
    pub(crate) fn new(limit: u64) -> Outbox {
        Outbox {
            sealed: VecDeque::new(),
            memory: 0,
            next: 0,
            open: BytesMut::new(),
            spare: Vec::new(),
            open_start: Position::START,
            open_fill: 0,
            open_end: Offset::ZERO,
            accepted: Position::START,
            released: Offset::ZERO,
            acked: Seq::ZERO,
            sent: Seq::ZERO,
            on_connection: Seq::ZERO,
            limit,
            full_at: Offset::new(limit),
        }
    }

    /// The last record that was accepted.
    pub(crate) fn accepted(&self) -> Seq {
        self.accepted.seq
    }

    /// The last record that is acknowledged.
    pub(crate) fn acked(&self) -> Seq {
        self.acked
    }

    /// The last record that the peer of this connection has, or was handed to it.
    pub(crate) fn transmitted(&self) -> Seq {
        self.on_connection
    }

    /// Whether everything accepted is acknowledged.
    pub(crate) fn is_delivered(&self) -> bool {
        self.acked == self.accepted.seq
    }

    /// What the kept records cost.
    pub(crate) fn cost(&self) -> u64 {
        self.accepted.offset.since(self.released)
    }

    /// What everything kept takes in memory, with the blocks for what comes next, in bytes. A block
    /// that is acknowledged in part counts with what is left of it.
    pub(crate) fn memory(&self) -> u64 {
        let spare: usize = self.spare.iter().map(BytesMut::capacity).sum();
        self.memory + (self.open.capacity() + spare) as u64
    }

    /// How much more may be accepted.
    pub(crate) fn room(&self) -> u64 {
        self.full_at.since(self.accepted.offset)
    }

    /// Accepts a message if there is room for it: the sequence number of its last record.
    #[inline]
    pub(crate) fn push(&mut self, payload: Payload<'_>) -> Option<Seq> {
        let bytes = payload.as_bytes();
        if bytes.len() <= MAX_RECORD {
            let end = self.accepted.after(record_cost(bytes.len()))?;
            if end.offset > self.full_at {
                return None;
            }
            self.append(payload.kind(), false, bytes, end);
            return Some(end.seq);
        }
        self.push_large(payload.kind(), bytes, None)
    }

    /// The same for a payload that is shared: of a long one slices are kept.
    pub(crate) fn push_shared(&mut self, kind: Kind, payload: &Bytes) -> Option<Seq> {
        self.push_large(kind, payload, Some(payload))
    }

    /// Accepts encoded messages if there is room for all of them: the sequence number of the last.
    pub(crate) fn push_records(&mut self, records: &mut Records) -> Option<Seq> {
        let end = self
            .accepted
            .after_records(records.messages(), records.cost())?;
        if end.offset > self.full_at {
            return None;
        }
        let records = std::mem::take(records);
        let bytes = records.as_bytes();
        if bytes.is_empty() {
            return Some(end.seq);
        }
        if bytes.len() < PACKET_FILL / 4 {
            // What comes in trickles while the connection is busy shares packets all the same.
            self.make_room(bytes.len(), end);
            self.open.extend_from_slice(bytes);
            self.keep(records.into_block());
        } else {
            self.seal(false);
            self.open_start = self.accepted;
            // Cannot be exhausted: the last record's number was checked.
            let first = Seq::new(self.accepted.seq.get().saturating_add(1));
            let block = std::mem::replace(&mut self.open, records.into_packet(first));
            self.accepted = end;
            let size = self.open.capacity();
            self.seal_with(Bytes::new(), false, size);
            self.open = block;
        }
        self.accepted = end;
        Some(end.seq)
    }

    /// Accepts a message of any number of records. Each but the last has a packet of its own.
    fn push_large(&mut self, kind: Kind, bytes: &[u8], shared: Option<&Bytes>) -> Option<Seq> {
        let cost = message_cost(bytes.len() as u64);
        let records = bytes.len().div_ceil(MAX_RECORD).max(1) as u64;
        self.accepted.seq.checked_add(records)?;
        let end = self.accepted.offset.checked_add(cost)?;
        if end > self.full_at {
            return None;
        }
        let mut begin = 0;
        for record in 1..=records {
            let chunk = begin..bytes.len().min(begin + MAX_RECORD);
            let continues = record < records;
            let end = self.accepted.after(record_cost(chunk.len()))?;
            // Such a record has its packet to itself in any case.
            let apart = shared.filter(|_| chunk.len() >= PACKET_FILL);
            if continues || apart.is_some() {
                self.seal(false);
            }
            begin = chunk.end;
            match apart {
                Some(payload) => self.append_apart(kind, continues, payload.slice(chunk), end),
                None => self.append(kind, continues, &bytes[chunk], end),
            }
            if continues {
                self.seal(true);
            }
        }
        Some(self.accepted.seq)
    }

    /// Makes a packet of one record whose payload stays where it is.
    fn append_apart(&mut self, kind: Kind, continues: bool, payload: Bytes, end: Position) {
        self.begin_packet(Record::max_size(0));
        self.accepted = end;
        RecordHeader::write(&mut self.open, kind, continues, payload.len());
        let size = self.open.len() + payload.len();
        self.seal_with(payload, continues, size);
    }

    /// Writes one record into the open packet, or into a new one if it does not fit.
    #[inline]
    fn append(&mut self, kind: Kind, continues: bool, payload: &[u8], end: Position) {
        self.make_room(Record::max_size(payload.len()), end);
        self.accepted = end;
        Record::write(&mut self.open, kind, continues, payload);
    }

    /// Makes sure that so many bytes of records, which end at `end`, fit into the open packet.
    #[inline]
    fn make_room(&mut self, size: usize, end: Position) {
        if self.open.len() + size > self.open_fill || end.offset > self.open_end {
            self.begin_packet(size);
        }
    }

    /// Ends the open packet, and begins one with room for a record of that size.
    #[cold]
    fn begin_packet(&mut self, size: usize) {
        self.seal(false);
        let needed = DATA_HEADER + size;
        // A remnant of a block below an eighth of a packet is not worth a packet.
        if self.open.capacity() < needed.max(PACKET_FILL / 8) {
            let spare = self.spare.pop().filter(|it| it.capacity() >= needed);
            self.open = spare.unwrap_or_else(|| BytesMut::with_capacity(needed.max(BLOCK)));
        }
        // A packet ends where its block ends: growing it would copy it.
        self.open_fill = PACKET_FILL.min(self.open.capacity());
        self.open_end = self.accepted.offset.saturating_add(MAX_PACKET_COST);
        self.open_start = self.accepted;
        self.open.put_u8(kind::DATA);
        // Cannot be exhausted: the record's own number was checked.
        self.open.put_u64(self.accepted.seq.get().saturating_add(1));
    }

    /// Ends the open packet, if there is one.
    fn seal(&mut self, continues: bool) {
        if !self.open.is_empty() {
            let size = self.open.len();
            self.seal_with(Bytes::new(), continues, size);
        }
    }

    /// Ends the open packet with `body`. Both together keep `size` bytes of memory.
    fn seal_with(&mut self, body: Bytes, continues: bool, size: usize) {
        self.open_fill = 0;
        let head = self.open.split().freeze();
        let first = Seq::new(self.open_start.seq.get().saturating_add(1));
        // A block is not much larger than a packet.
        let size = u32::try_from(size).unwrap_or(u32::MAX);
        self.memory += u64::from(size) + SENT_PACKET_MEMORY;
        let sealed = Sealed {
            packet: Transmit { head, body },
            first,
            end: self.accepted,
            continues,
            size,
        };
        queue::push(&mut self.sealed, sealed);
    }

    /// Where the packets handed to this connection, or to an earlier one that the peer has, end.
    pub(crate) fn sent_end(&self) -> Offset {
        match self
            .next
            .checked_sub(1)
            .and_then(|last| self.sealed.get(last))
        {
            Some(packet) => packet.end.offset,
            None => self.released,
        }
    }

    /// What the records cost that were not handed to this connection.
    pub(crate) fn unsent(&self) -> u64 {
        self.accepted.offset.since(self.sent_end())
    }

    /// Where the packet to send next ends, as credit counts.
    pub(crate) fn next_end(&self) -> Option<Offset> {
        match self.sealed.get(self.next) {
            Some(packet) => Some(packet.end.offset),
            None if self.open.is_empty() => None,
            None => Some(self.accepted.offset),
        }
    }

    /// The next packet to send on this connection, if `credit` covers all of it.
    pub(crate) fn transmit(&mut self, credit: Offset) -> Option<&Sealed> {
        if self.next_end()? > credit {
            return None;
        }
        if self.next == self.sealed.len() {
            self.seal(false);
        }
        let packet = self.sealed.get(self.next)?;
        self.next += 1;
        self.sent = self.sent.max(packet.end.seq);
        self.on_connection = self.on_connection.max(packet.end.seq);
        Some(packet)
    }

    /// Whether a peer could have received up to `received` and acknowledged up to `acked`.
    pub(crate) fn check_resume(&self, received: Seq, acked: Seq) -> Result<(), ProtocolError> {
        if received > self.sent {
            return Err(ProtocolError::Inconsistent(
                "it received what was never sent",
            ));
        }
        if received < self.acked {
            return Err(ProtocolError::Inconsistent(
                "it lost what it had acknowledged",
            ));
        }
        if acked > received {
            return Err(ProtocolError::Inconsistent(
                "it acknowledged what it did not receive",
            ));
        }
        self.check_whole(acked)
    }

    /// Begins again on a new connection after the record `received`, which
    /// [`check_resume`](Outbox::check_resume) allowed. Gives how many records are sent again.
    pub(crate) fn rewind(&mut self, received: Seq) -> u64 {
        self.on_connection = received;
        self.next = self
            .sealed
            .partition_point(|packet| packet.end.seq <= received);
        self.sent.since(received)
    }

    /// Everything up to `seq` is acknowledged: what is wholly acknowledged is let go.
    pub(crate) fn acknowledge(&mut self, seq: Seq) -> Result<(), ProtocolError> {
        if seq <= self.acked {
            return Ok(());
        }
        if seq > self.on_connection {
            return Err(ProtocolError::InvalidAck {
                acknowledged: seq,
                why: "was not sent",
            });
        }
        self.check_whole(seq)?;
        let done = self.sealed.partition_point(|packet| packet.end.seq <= seq);
        let mut end = None;
        let mut acknowledged = std::mem::take(&mut self.sealed);
        for sealed in acknowledged.drain(..done) {
            end = Some(sealed.end.offset);
            self.memory -= u64::from(sealed.size) + SENT_PACKET_MEMORY;
            if let Ok(block) = sealed.packet.head.try_into_mut() {
                self.keep(block);
            }
        }
        queue::trim(&mut acknowledged);
        self.sealed = acknowledged;
        let settled = end.map_or(0, |end| end.since(self.released));
        if let Some(end) = end {
            self.release(end);
        }
        // Where little travels, a session at rest holds no block.
        if self.sealed.is_empty() {
            self.spare = Vec::new();
            if self.open.is_empty() && settled < BLOCK as u64 / 4 {
                self.open = BytesMut::new();
            }
        }
        self.next = self.next.saturating_sub(done);
        self.acked = seq;
        Ok(())
    }

    /// Keeps a block to be used again, if it is worth it.
    fn keep(&mut self, mut block: BytesMut) {
        if self.spare.len() < SPARE_BLOCKS && block.capacity() >= DATA_HEADER + PACKET_FILL {
            block.clear();
            self.spare.push(block);
        }
    }

    /// Records without any, over a block that was used before.
    pub(crate) fn spare_records(&mut self) -> Option<Records> {
        self.spare.pop().map(Records::over)
    }

    /// Nothing is kept up to there.
    fn release(&mut self, end: Offset) {
        self.released = end;
        self.full_at = end.saturating_add(self.limit);
    }

    /// Only whole messages can be taken, so only they are acknowledged.
    fn check_whole(&self, acked: Seq) -> Result<(), ProtocolError> {
        let index = self.sealed.partition_point(|packet| packet.end.seq < acked);
        match self.sealed.get(index) {
            Some(packet) if packet.continues && packet.end.seq == acked => {
                Err(ProtocolError::InvalidAck {
                    acknowledged: acked,
                    why: "is within a message",
                })
            }
            _ => Ok(()),
        }
    }

    /// Everything that is not acknowledged, to be given back; nothing is kept.
    pub(crate) fn take_undelivered(&mut self) -> Undelivered {
        self.seal(false);
        let packets = std::mem::take(&mut self.sealed);
        (self.open, self.spare) = (BytesMut::new(), Vec::new());
        self.memory = 0;
        self.next = 0;
        self.release(self.accepted.offset);
        Undelivered::new(packets, self.acked, self.sent)
    }
}
