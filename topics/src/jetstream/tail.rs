//! The newest messages of the log, without holes, as the reader of the whole log received them.

use std::collections::VecDeque;

use unstall_proto::topics::{Offset, StoredAt};

use super::{
    limits::{TAIL_BYTES, TAIL_LOOK},
    message::Received,
};
use crate::store::{Chunk, Read, StoreError};

#[derive(Debug)]
pub(super) struct Tail {
    messages: VecDeque<Received>,
    bytes: u64,
    /// The last message, also if it is not kept.
    last: Offset,
    last_time: StoredAt,
}

impl Tail {
    /// Nothing is kept; what follows is behind this message.
    pub(super) fn new(last: Offset, last_time: StoredAt) -> Tail {
        Tail {
            messages: VecDeque::new(),
            bytes: 0,
            last,
            last_time,
        }
    }

    pub(super) fn last(&self) -> (Offset, StoredAt) {
        (self.last, self.last_time)
    }

    /// Keeps a message. If it does not follow the last one, retention has cut between them, and what
    /// is older is forgotten.
    pub(super) fn push(&mut self, received: Received) {
        if Some(received.offset()) != self.last.checked_add(1) {
            self.messages.clear();
            self.bytes = 0;
        }
        self.last = received.offset();
        self.last_time = received.time();
        self.bytes += received.cost();
        self.messages.push_back(received);
        while self.bytes > TAIL_BYTES {
            match self.messages.pop_front() {
                Some(oldest) => self.bytes -= oldest.cost(),
                None => return,
            }
        }
    }

    /// Forgets what is behind this message.
    pub(super) fn go_back(&mut self, last: Offset, last_time: StoredAt) {
        while self
            .messages
            .back()
            .is_some_and(|newest| newest.offset() > last)
        {
            self.bytes -= self.messages.pop_back().map_or(0, |newest| newest.cost());
        }
        self.last = last;
        self.last_time = last_time;
    }

    /// The offset and time of a message that is kept, by its place.
    pub(super) fn kept(&self, at: usize) -> Option<(Offset, StoredAt)> {
        self.messages
            .get(at)
            .map(|kept| (kept.offset(), kept.time()))
    }

    pub(super) fn kept_count(&self) -> usize {
        self.messages.len()
    }

    /// Reads, if everything that is asked for first is kept.
    pub(super) fn read(&self, read: &Read) -> Option<Result<Chunk, StoreError>> {
        let first = self.messages.front()?.offset();
        if read.after < first.before() || read.after >= self.last {
            return None;
        }
        let from = (read.after.get() + 1 - first.get()) as usize;
        let mut chunk = Chunk::new(Vec::new(), read.after, first);
        let mut bytes = 0;
        for received in self.messages.iter().skip(from).take(TAIL_LOOK) {
            if received.offset() > read.through || bytes >= read.max_bytes.max(1) {
                break;
            }
            if read.filter.matches(received.name()) {
                match received {
                    Received::Message(stored) => {
                        bytes += stored.payload.len() + stored.topic.as_str().len();
                        chunk.messages.push(stored.clone());
                    }
                    odd if chunk.messages.is_empty() => return Some(Err(unreadable(odd))),
                    // The next read begins with it.
                    _ => break,
                }
            }
            chunk.through = received.offset();
        }
        Some(Ok(chunk))
    }
}

/// Such a message is there, and nobody can be given it.
pub(super) fn unreadable(received: &Received) -> StoreError {
    let why = match received {
        Received::Message(_) => "",
        Received::Odd { why, .. } => why,
    };
    StoreError::Damaged {
        after: received.offset().before(),
        through: received.offset(),
        why: why.into(),
    }
}

#[cfg(test)]
mod tests {
    use unstall_proto::{
        Kind,
        topics::{Filter, Topic},
    };

    use super::*;
    use crate::store::Stored;

    fn at(number: u64) -> Offset {
        Offset::new(number).unwrap()
    }

    fn message(number: u64, topic: &str, length: usize) -> Received {
        Received::Message(Stored::new(
            at(number),
            StoredAt::new(number).unwrap(),
            Topic::new(topic).unwrap(),
            Kind::Binary,
            false,
            vec![0; length].into(),
        ))
    }

    fn tail(messages: impl IntoIterator<Item = Received>) -> Tail {
        let mut tail = Tail::new(at(10), StoredAt::UNKNOWN);
        messages.into_iter().for_each(|message| tail.push(message));
        tail
    }

    fn read(
        tail: &Tail,
        after: u64,
        through: u64,
        filter: &str,
        bytes: usize,
    ) -> Option<(Vec<u64>, u64)> {
        let read = Read::new(at(after), at(through), Filter::new(filter).unwrap(), bytes);
        let chunk = tail.read(&read)?.unwrap();
        let offsets = chunk
            .messages
            .iter()
            .map(|stored| stored.offset.get())
            .collect();
        Some((offsets, chunk.through.get()))
    }

    #[test]
    fn only_what_is_kept_without_holes_is_read_here() {
        let tail = tail([
            message(11, "a", 1),
            message(12, "b", 1),
            message(13, "a", 1),
        ]);
        assert_eq!(read(&tail, 9, 13, ">", 100), None);
        assert_eq!(read(&tail, 10, 13, ">", 100), Some((vec![11, 12, 13], 13)));
        assert_eq!(read(&tail, 10, 12, ">", 100), Some((vec![11, 12], 12)));
        assert_eq!(read(&tail, 10, 13, "b", 100), Some((vec![12], 13)));
        assert_eq!(read(&tail, 12, 20, "b", 100), Some((vec![], 13)));
        assert_eq!(read(&tail, 13, 20, ">", 100), None);
        assert_eq!(read(&tail, 10, 13, ">", 1), Some((vec![11], 11)));
    }

    #[test]
    fn a_jump_forgets_what_was_before_it() {
        let tail = tail([message(11, "a", 1), message(20, "a", 1)]);
        assert_eq!(read(&tail, 10, 20, ">", 100), None);
        assert_eq!(read(&tail, 19, 20, ">", 100), Some((vec![20], 20)));
    }

    #[test]
    fn the_oldest_go_when_it_is_full() {
        let large = TAIL_BYTES as usize / 2;
        let tail = tail([
            message(11, "a", large),
            message(12, "a", large),
            message(13, "a", 1),
        ]);
        assert_eq!(tail.kept(0).map(|(offset, _)| offset), Some(at(12)));
        assert!(tail.bytes <= TAIL_BYTES);
    }

    #[test]
    fn a_message_that_is_no_topic_is_told_where_it_stands() {
        let odd = Received::Odd {
            offset: at(12),
            time: StoredAt::UNKNOWN,
            name: "a*b".into(),
            why: "no topic".into(),
        };
        let tail = tail([message(11, "a", 1), odd, message(13, "a", 1)]);
        assert_eq!(read(&tail, 10, 13, ">", 100), Some((vec![11], 11)));
        let through_it = Read::new(at(11), at(13), Filter::all(), 100);
        let damaged = tail.read(&through_it).unwrap().unwrap_err();
        assert!(matches!(damaged, StoreError::Damaged { after, through, .. }
            if (after, through) == (at(11), at(12))));
        assert_eq!(read(&tail, 12, 13, ">", 100), Some((vec![13], 13)));
        assert_eq!(read(&tail, 10, 13, "a", 100), Some((vec![11, 13], 13)));
    }
}
