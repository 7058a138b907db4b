//! Messages that were accepted for sending. They are encoded at once, and kept until the peer
//! acknowledges them.

#[cfg(test)]
mod tests;

use std::collections::VecDeque;
use std::hash::{Hash, Hasher};

use bytes::{Bytes, BytesMut};

use crate::error::ProtocolError;
use crate::limits::{
    BLOCK, MAX_RECORD, PACKET_FILL, SENT_PACKET_MEMORY, SPARE_BLOCKS, message_cost, record_cost,
};
use crate::number::{Offset, Position, Seq};
use crate::payload::{Kind, Payload};
use crate::record::Record;
use crate::records::Records;
use crate::transmit::{Sealed, Transmit};
use crate::undelivered::Undelivered;
use crate::util;
use crate::wire::DATA_HEADER;

/// Accepted messages, in packets.
#[derive(Clone, Debug)]
pub(crate) struct Outbox {
    /// The finished packets that are not wholly acknowledged, in order.
    sealed: VecDeque<Sealed>,
    /// Invariant: the memory that all of `sealed` keeps, in bytes.
    memory: u64,
    /// The index in `sealed` of the packet to send next on this connection.
    next: usize,
    /// The packet that is being filled.
    open: Records,
    /// Blocks of acknowledged packets, to be used again while there is traffic: each new allocation
    /// would cost page faults. At most [`SPARE_BLOCKS`], each with room for a full packet.
    spare: Vec<BytesMut>,
    /// The end of what was accepted.
    accepted: Position,
    /// The offset at which the first kept packet begins.
    released: Offset,
    /// The last record that the peer has acknowledged.
    acked: Seq,
    /// The last record that was given to any connection.
    sent: Seq,
    /// The last record that was given to this connection, or that its peer named as received.
    on_connection: Seq,
    /// The most that accepted and unacknowledged records may cost.
    limit: u64,
}

/// Only positions are hashed: they say which messages there are.
impl Hash for Outbox {
    fn hash<H: Hasher>(&self, state: &mut H) {
        for packet in &self.sealed {
            (packet.first, packet.end, packet.continues).hash(state);
        }
        (self.next, self.open.messages(), self.accepted).hash(state);
        (self.released, self.acked, self.sent, self.on_connection).hash(state);
    }
}

impl Outbox {
    pub(crate) fn new(limit: u64) -> Outbox {
        Outbox {
            sealed: VecDeque::new(),
            memory: 0,
            next: 0,
            open: Records::default(),
            spare: Vec::new(),
            accepted: Position::START,
            released: Offset::ZERO,
            acked: Seq::ZERO,
            sent: Seq::ZERO,
            on_connection: Seq::ZERO,
            limit,
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

    /// The last record that was given to this connection, or that its peer named as received.
    pub(crate) fn transmitted(&self) -> Seq {
        self.on_connection
    }

    /// Whether everything accepted is acknowledged.
    pub(crate) fn is_delivered(&self) -> bool {
        self.acked == self.accepted.seq
    }

    /// The cost of the kept records.
    pub(crate) fn cost(&self) -> u64 {
        self.accepted.offset.since(self.released)
    }

    /// The memory of the kept packets and of the blocks for the next ones, in bytes. A block of
    /// which a part is acknowledged counts with the rest of it.
    pub(crate) fn memory(&self) -> u64 {
        let spare: usize = self.spare.iter().map(BytesMut::capacity).sum();
        self.memory + (self.open.capacity() + spare) as u64
    }

    /// The cost of what may still be accepted.
    pub(crate) fn room(&self) -> u64 {
        self.full_at().since(self.accepted.offset)
    }

    /// The offset up to which records may be accepted.
    #[inline]
    fn full_at(&self) -> Offset {
        self.released.saturating_add(self.limit)
    }

    /// Accepts a message if there is room for it. Returns the sequence number of its last record.
    #[inline]
    pub(crate) fn push(&mut self, payload: Payload<'_>) -> Option<Seq> {
        let bytes = payload.as_bytes();
        if bytes.len() <= MAX_RECORD {
            let end = self.accepted.after(record_cost(bytes.len()))?;
            if end.offset > self.full_at() {
                return None;
            }
            self.append(payload.kind(), false, bytes, end);
            return Some(end.seq);
        }
        self.push_large(payload.kind(), bytes, None)
    }

    /// [`push`](Outbox::push) for a payload that is shared. Long records keep slices of it.
    pub(crate) fn push_shared(&mut self, kind: Kind, payload: &Bytes) -> Option<Seq> {
        self.push_large(kind, payload, Some(payload))
    }

    /// Accepts encoded messages if there is room for all of them. Returns the sequence number of
    /// the last one.
    pub(crate) fn push_records(&mut self, records: &mut Records) -> Option<Seq> {
        let end = self
            .accepted
            .after_records(records.messages(), records.cost())?;
        if end.offset > self.full_at() {
            return None;
        }
        let records = std::mem::take(records);
        if records.is_empty() {
            return Some(end.seq);
        }
        if records.size() < PACKET_FILL / 4 {
            // Small runs share packets when they come faster than the connection takes them.
            if !self.open.push_records(&records) {
                self.begin_packet(records.size());
                let pushed = self.open.push_records(&records);
                debug_assert!(pushed, "one packet's records fit into a packet");
            }
            self.accepted = end;
            self.keep(records.into_block());
        } else {
            self.seal(false);
            let open = std::mem::replace(&mut self.open, records);
            self.accepted = end;
            // Nothing else goes into its block.
            let memory = self.open.capacity();
            self.seal_with(Bytes::new(), false, memory);
            self.open = open;
        }
        Some(end.seq)
    }

    /// Accepts a message of any number of records. Each but the last has a packet of its own.
    fn push_large(&mut self, kind: Kind, bytes: &[u8], shared: Option<&Bytes>) -> Option<Seq> {
        let cost = message_cost(bytes.len() as u64);
        let records = bytes.len().div_ceil(MAX_RECORD).max(1) as u64;
        let end = self.accepted.after_records(records, cost)?;
        if end.offset > self.full_at() {
            return None;
        }
        let mut begin = 0;
        for record in 1..=records {
            let chunk = begin..bytes.len().min(begin + MAX_RECORD);
            let continues = record < records;
            let end = self.accepted.after(record_cost(chunk.len()))?;
            // A record this long has its packet to itself in any case.
            let uncopied = shared.filter(|_| chunk.len() >= PACKET_FILL);
            if continues || uncopied.is_some() {
                self.seal(false);
            }
            begin = chunk.end;
            match uncopied {
                Some(payload) => self.append_uncopied(kind, continues, payload.slice(chunk), end),
                None => self.append(kind, continues, &bytes[chunk], end),
            }
            if continues {
                self.seal(true);
            }
        }
        Some(self.accepted.seq)
    }

    /// Makes a packet of one record whose payload is not copied.
    fn append_uncopied(&mut self, kind: Kind, continues: bool, payload: Bytes, end: Position) {
        self.begin_packet(Record::max_size(0));
        self.open.push_header(kind, continues, payload.len());
        self.accepted = end;
        let memory = self.open.size() + payload.len();
        self.seal_with(payload, continues, memory);
    }

    /// Writes one record into the open packet, or into a new one if it does not fit.
    #[inline]
    fn append(&mut self, kind: Kind, continues: bool, payload: &[u8], end: Position) {
        if !self.open.push_record(kind, continues, payload) {
            self.append_first(kind, continues, payload);
        }
        self.accepted = end;
    }

    #[cold]
    fn append_first(&mut self, kind: Kind, continues: bool, payload: &[u8]) {
        self.begin_packet(Record::max_size(payload.len()));
        let pushed = self.open.push_record(kind, continues, payload);
        debug_assert!(pushed, "a record fits into a packet");
    }

    /// Seals the open packet, and begins another one with room for that many bytes of records.
    fn begin_packet(&mut self, size: usize) {
        self.seal(false);
        let needed = DATA_HEADER + size;
        // The rest of a block is not worth a packet when it is less than an eighth of one.
        if self.open.capacity() < needed.max(PACKET_FILL / 8) {
            let spare = self.spare.pop().filter(|it| it.capacity() >= needed);
            let block = spare.unwrap_or_else(|| BytesMut::with_capacity(needed.max(BLOCK)));
            self.open = Records::over(block);
        }
        // A packet ends where its block ends: a block that grows is copied.
        let fill = PACKET_FILL.min(self.open.capacity());
        self.open.begin(size, fill);
    }

    /// Seals the open packet, if there is one.
    fn seal(&mut self, continues: bool) {
        if !self.open.is_empty() {
            let memory = self.open.size();
            self.seal_with(Bytes::new(), continues, memory);
        }
    }

    /// Seals the open packet with `body` after it. The two keep that many bytes of memory.
    fn seal_with(&mut self, body: Bytes, continues: bool, memory: usize) {
        let before = self.accepted.seq.get() - self.open.messages();
        // Cannot be exhausted: the packet has a record with that number.
        let first = Seq::new(before.saturating_add(1));
        // A block is never much larger than a packet.
        let memory = u32::try_from(memory).unwrap_or(u32::MAX);
        self.memory += u64::from(memory) + SENT_PACKET_MEMORY;
        let sealed = Sealed {
            packet: Transmit::new(self.open.seal(first), body),
            first,
            end: self.accepted,
            continues,
            memory,
        };
        util::push_back(&mut self.sealed, sealed);
    }

    /// The offset at which the packets end that were given to this connection, or that its peer had
    /// received before.
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

    /// The cost of the records that were not given to this connection.
    pub(crate) fn unsent(&self) -> u64 {
        self.accepted.offset.since(self.sent_end())
    }

    /// The offset at which the packet to send next ends.
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

    /// Checks that a peer can have received up to `received` and acknowledged up to `acked`.
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

    /// Continues on a new connection after the record `received`, which
    /// [`check_resume`](Outbox::check_resume) has allowed. Returns how many records are sent again.
    pub(crate) fn rewind(&mut self, received: Seq) -> u64 {
        self.on_connection = received;
        self.next = self
            .sealed
            .partition_point(|packet| packet.end.seq <= received);
        self.sent.since(received)
    }

    /// The peer has acknowledged everything up to `seq`. Packets of which all is acknowledged are
    /// dropped.
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
        self.acked = seq;
        self.drop_acknowledged();
        Ok(())
    }

    fn drop_acknowledged(&mut self) {
        let acked = self.acked;
        let done = self
            .sealed
            .partition_point(|packet| packet.end.seq <= acked);
        let mut end = self.released;
        let mut acknowledged = std::mem::take(&mut self.sealed);
        for sealed in acknowledged.drain(..done) {
            end = sealed.end.offset;
            self.memory -= u64::from(sealed.memory) + SENT_PACKET_MEMORY;
            if let Ok(block) = sealed.packet.head.try_into_mut() {
                self.keep(block);
            }
        }
        util::trim(&mut acknowledged);
        self.sealed = acknowledged;
        self.next = self.next.saturating_sub(done);
        let settled = end.since(self.released);
        self.released = end;
        // With little traffic, an idle session holds no block.
        if settled < BLOCK as u64 / 4 {
            self.shrink();
        }
    }

    /// Frees the blocks for the next packets, if nothing waits for an acknowledgement.
    pub(crate) fn shrink(&mut self) {
        if self.sealed.is_empty() {
            self.spare = Vec::new();
            if self.open.is_empty() {
                self.open = Records::default();
            }
        }
    }

    /// Keeps a block to be used again, if it has room for a packet.
    fn keep(&mut self, mut block: BytesMut) {
        block.clear();
        // This packet may be the second of its block: the room of the first one is had again.
        let whole = block.try_reclaim(BLOCK) || block.capacity() >= DATA_HEADER + PACKET_FILL;
        if whole && self.spare.len() < SPARE_BLOCKS {
            self.spare.push(block);
        }
    }

    /// No records, over a block that is used again.
    pub(crate) fn spare_records(&mut self) -> Option<Records> {
        self.spare.pop().map(Records::over)
    }

    /// Checks that no message continues after the record `acked`: only whole messages are taken, so
    /// only whole ones are acknowledged.
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

    /// Gives back everything that is not acknowledged. Nothing is kept.
    pub(crate) fn take_undelivered(&mut self) -> Undelivered {
        self.seal(false);
        let packets = std::mem::take(&mut self.sealed);
        (self.open, self.spare) = (Records::default(), Vec::new());
        self.memory = 0;
        self.next = 0;
        self.released = self.accepted.offset;
        Undelivered::new(packets, self.acked, self.sent)
    }
}
