//! Messages that are encoded before they reach their session, on whatever thread sends them.

use bytes::{BufMut, BytesMut};

use crate::limits::{MAX_PACKET_COST, MAX_RECORD, PACKET_FILL, record_cost};
use crate::message::{Batch, Kind, Payload};
use crate::number::{Offset, Position, Seq};
use crate::packet::{self, DATA_HEADER, Record};

/// Whole messages as the records of one data packet that has no number yet.
///
/// [`Session::send_records`](crate::Session::send_records) accepts all of them at once without a
/// look at any: a thread that sends encodes, and the one that drives the session only numbers.
#[derive(Clone, Debug, Default)]
pub struct Records {
    /// Empty, or a header without its number and whole records.
    buf: BytesMut,
    /// Where the records end, counted from the beginning of all.
    end: Position,
}

impl Records {
    /// None yet, with room for so many bytes of records before it has to grow.
    pub fn with_capacity(bytes: usize) -> Records {
        Records {
            buf: BytesMut::with_capacity(DATA_HEADER + bytes),
            end: Position::START,
        }
    }

    /// None yet, over a block that is empty.
    pub(crate) fn over(block: BytesMut) -> Records {
        Records {
            buf: block,
            end: Position::START,
        }
    }

    /// Appends a message. `false`, and nothing is changed, where it does not fit into the packet: a
    /// full packet is sent before another is begun. Into an empty one every message fits that is
    /// no larger than [`MAX_RECORD`].
    #[inline]
    pub fn push<'a>(&mut self, payload: impl Into<Payload<'a>>) -> bool {
        let payload = payload.into();
        self.push_bytes(payload.kind(), payload.as_bytes())
    }

    /// The same for a payload that is known to be UTF-8, if it is text: that is not looked at again
    /// here. The peer refuses what is not.
    #[inline]
    pub fn push_bytes(&mut self, kind: Kind, bytes: &[u8]) -> bool {
        let Some(end) = self.end.after(record_cost(bytes.len())) else {
            return false;
        };
        if self.buf.is_empty() {
            if bytes.len() > MAX_RECORD {
                return false;
            }
            self.buf.put_u8(packet::kind::DATA);
            self.buf.put_u64(0);
        } else if self.buf.len() + Record::max_size(bytes.len()) > PACKET_FILL
            || end.offset.since(Offset::ZERO) > MAX_PACKET_COST
        {
            return false;
        }
        Record::write(&mut self.buf, kind, false, bytes);
        self.end = end;
        true
    }

    /// How many messages there are.
    pub fn messages(&self) -> u64 {
        self.end.seq.since(Seq::ZERO)
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.buf.is_empty()
    }

    /// What they cost, as credit counts.
    pub fn cost(&self) -> u64 {
        self.end.offset.since(Offset::ZERO)
    }

    /// To be cut into messages again, without a session in between. The positions of these messages
    /// are counted from the first one and belong to no session.
    pub fn into_batch(mut self) -> Batch {
        let header = self.buf.len().min(DATA_HEADER);
        let records = self.buf.split_off(header).freeze();
        Batch::records(records, Position::START, self.end)
    }

    /// The encoded records, without the header.
    pub(crate) fn as_bytes(&self) -> &[u8] {
        &self.buf[self.buf.len().min(DATA_HEADER)..]
    }

    /// The block that they lie in.
    pub(crate) fn into_block(self) -> BytesMut {
        self.buf
    }

    /// The whole packet, its first record numbered.
    pub(crate) fn into_packet(mut self, first: Seq) -> BytesMut {
        if let Some(number) = self.buf.get_mut(1..DATA_HEADER) {
            number.copy_from_slice(&first.get().to_be_bytes());
        }
        self.buf
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
    fn a_full_packet_takes_no_more_and_an_empty_one_takes_the_largest_record() {
        let mut records = Records::default();
        while records.push(&[1; 64][..]) {}
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
}
