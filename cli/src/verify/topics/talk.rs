//! The messages between the verifier and its publishers and subscribers: lines of JSON, in pipes.

use serde::{Deserialize, Serialize};

use super::super::plan::Sizes;

/// The first line that a process reads: its part in the run.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Part {
    /// Of the nodes.
    pub(super) urls: Vec<String>,
    pub(super) seed: u64,
    /// A client in any language forwards the messages from one topic to another.
    pub(super) forwarded: bool,
    pub(super) sizes: Sizes,
    pub(super) role: Role,
}

#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(super) enum Role {
    Publisher {
        number: u32,
        count: u64,
        /// Messages a second; `None`: as fast as possible.
        rate: Option<f64>,
    },
    Subscriber {
        /// What was removed before it starts is told as a gap. Otherwise it begins with the first
        /// message that the log has, and is not told of those before it.
        told_of_removed: bool,
    },
}

/// An order to a process.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Order {
    /// Receive nothing until told to.
    Pause,
    Resume,
    /// Publish nothing more.
    Stop,
}

/// Messages of a publisher with consecutive indexes, and with consecutive offsets if they have some.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Stretch {
    pub(super) publisher: u32,
    pub(super) index: u64,
    pub(super) offset: u64,
    pub(super) count: u64,
}

/// What became of messages that were published.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Fate {
    Stored,
    /// It was stored before, at an offset that is no longer known.
    StoredBefore,
    Not,
    Unknown,
}

/// A report of a process.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Report {
    /// What became of published messages.
    Published(Fate, Vec<Stretch>),
    /// Everything was published.
    Done,
    /// These messages were received, in this order.
    Took(Vec<Stretch>),
    /// This many messages had wrong bytes.
    Corrupted(u64),
    /// The stream told of a gap here: behind one offset and up to another.
    Gap(u64, u64),
    /// The final message was received.
    Final,
    /// The subscription is behind this offset.
    At(u64),
    /// The process failed.
    Failed(String),
}

/// Adds a message to stretches of messages.
pub(super) fn add(stretches: &mut Vec<Stretch>, publisher: u32, index: u64, offset: u64) {
    if let Some(last) = stretches.last_mut()
        && last.publisher == publisher
        && last.index.saturating_add(last.count) == index
        && (offset == 0 || last.offset.saturating_add(last.count) == offset)
    {
        last.count = last.count.saturating_add(1);
        return;
    }
    stretches.push(Stretch {
        publisher,
        index,
        offset,
        count: 1,
    });
}

impl Stretch {
    /// Each message: its index and its offset, which is 0 if it is not known.
    pub(super) fn messages(self) -> impl Iterator<Item = (u64, u64)> {
        (0..self.count).map(move |nth| {
            let offset = match self.offset {
                0 => 0,
                first => first.saturating_add(nth),
            };
            (self.index.saturating_add(nth), offset)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stretch_gives_back_the_messages_that_were_added() {
        let added = [
            (1, 0, 10),
            (1, 1, 11),
            (1, 2, 13),
            (2, 3, 14),
            (2, 4, 15),
            (1, 9, 16),
        ];
        let mut stretches = Vec::new();
        for (publisher, index, offset) in added {
            add(&mut stretches, publisher, index, offset);
        }
        assert_eq!(stretches.len(), 4);
        let all = stretches.iter().flat_map(|stretch| {
            let of = stretch.publisher;
            stretch
                .messages()
                .map(move |(index, offset)| (of, index, offset))
        });
        assert!(all.eq(added));
        let mut unknown = Vec::new();
        (5..9).for_each(|index| add(&mut unknown, 1, index, 0));
        assert_eq!(unknown.len(), 1);
        assert!(unknown[0].messages().all(|(_, offset)| offset == 0));
    }
}
