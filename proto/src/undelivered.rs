//! The messages that were not acknowledged when a session ended. They are given back.

use std::collections::VecDeque;

use bytes::Bytes;

use crate::number::Seq;
use crate::payload::Kind;
use crate::record::RecordHeader;
use crate::transmit::{Sealed, Transmit};
use crate::wire::DATA_HEADER;

/// Whether the peer can have received an undelivered message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[expect(clippy::exhaustive_enums, reason = "a message was sent or it was not")]
pub enum Fate {
    /// The peer cannot have it: its last record was never given to a connection.
    NotSent,
    /// The peer may have it or not: it was sent, and not acknowledged.
    MaybeDelivered,
}

/// A message that was accepted and not acknowledged.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct UndeliveredMessage {
    /// Whether it is text or binary.
    pub kind: Kind,
    /// Its bytes.
    pub payload: Bytes,
    /// What [`Session::send`](crate::Session::send) returned for it.
    pub seq: Seq,
    /// Whether the peer can have received it.
    pub fate: Fate,
}

/// The undelivered messages of a session, in the order in which they were sent. Dropping it drops
/// the rest of them.
#[derive(Clone, Debug, Default)]
pub struct Undelivered {
    packets: VecDeque<Sealed>,
    /// The next record begins here in the first packet.
    at: usize,
    /// The number of the record before that one.
    seq: Seq,
    acked: Seq,
    sent: Seq,
}

impl Undelivered {
    pub(crate) fn new(packets: VecDeque<Sealed>, acked: Seq, sent: Seq) -> Undelivered {
        let mut undelivered = Undelivered {
            packets,
            at: 0,
            seq: acked,
            acked,
            sent,
        };
        undelivered.enter_packet();
        undelivered
    }

    fn enter_packet(&mut self) {
        if let Some(packet) = self.packets.front() {
            self.at = DATA_HEADER;
            self.seq = Seq::new(packet.first.get() - 1);
        }
    }

    /// The next record that is not acknowledged: its kind, whether it continues, and its payload.
    fn next_record(&mut self) -> Option<(Kind, bool, Bytes)> {
        loop {
            let Transmit { head, body } = &self.packets.front()?.packet;
            let Some(header) = RecordHeader::read(&head[self.at..]) else {
                self.packets.pop_front();
                self.enter_packet();
                continue;
            };
            let start = self.at + header.size;
            let end = head.len().min(start + header.length);
            self.at = end;
            let payload = match body.is_empty() {
                true => head.slice(start..end),
                false => body.clone(),
            };
            let (kind, continues) = (header.kind, header.continues);
            self.seq = self.seq.next()?;
            if self.seq > self.acked {
                return Some((kind, continues, payload));
            }
        }
    }
}

impl Iterator for Undelivered {
    type Item = UndeliveredMessage;

    fn next(&mut self) -> Option<UndeliveredMessage> {
        let (kind, mut continues, mut payload) = self.next_record()?;
        if continues {
            let mut whole = payload.to_vec();
            while continues {
                let (_, more, part) = self.next_record()?;
                whole.extend_from_slice(&part);
                continues = more;
            }
            payload = whole.into();
        }
        let fate = if self.seq > self.sent {
            Fate::NotSent
        } else {
            Fate::MaybeDelivered
        };
        Some(UndeliveredMessage {
            kind,
            payload,
            seq: self.seq,
            fate,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::limits::MAX_RECORD;
    use crate::number::Offset;
    use crate::outbox::Outbox;
    use crate::payload::Payload;

    #[test]
    fn each_comes_back_in_order_with_its_fate() {
        let mut outbox = Outbox::new(1 << 20);
        let large = vec![b'x'; 2 * MAX_RECORD + 5];
        let limit = Offset::new(u64::MAX);
        outbox.push(Payload::Text("acked")).unwrap();
        outbox.push(Payload::Text("sent")).unwrap();
        outbox.transmit(limit).unwrap();
        outbox.push(Payload::Binary(&large)).unwrap();
        outbox.push(Payload::Text("")).unwrap();
        outbox.transmit(limit).unwrap();
        outbox.acknowledge(Seq::new(1)).unwrap();

        let list: Vec<_> = outbox.take_undelivered().collect();
        let seen: Vec<_> = list
            .iter()
            .map(|m| (m.seq.get(), m.payload.len(), m.fate))
            .collect();
        assert_eq!(
            seen,
            [
                (2, 4, Fate::MaybeDelivered),
                (5, large.len(), Fate::NotSent),
                (6, 0, Fate::NotSent)
            ]
        );
        assert_eq!(list[1].payload, large);
        assert_eq!(outbox.take_undelivered().count(), 0);
    }
}
