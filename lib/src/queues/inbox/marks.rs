//! The gaps that mark what the `DropOldest` policy dropped.

use crate::messages::{Gap, Incoming};
use crate::queues::items::{Item, Items};

/// The gaps at the front of a queue whose oldest messages were dropped. They are at most three,
/// however many messages are dropped.
#[derive(Default)]
pub(super) struct Marks {
    /// Messages and bytes that were dropped before the last reconnect.
    before: (u64, u64),
    /// The last reconnect, or the loss of a session.
    reconnected: Option<Gap>,
    /// Messages and bytes that were dropped after it.
    after: (u64, u64),
}

impl Marks {
    pub(super) fn dropped(&mut self, messages: u64, bytes: u64) {
        let side = match self.reconnected {
            Some(_) => &mut self.after,
            None => &mut self.before,
        };
        side.0 += messages;
        side.1 += bytes;
    }

    /// Takes in a gap that was at the front of the queue.
    pub(super) fn join(&mut self, gap: Gap) {
        match gap {
            Gap::Dropped { messages, bytes } | Gap::Conflated { messages, bytes } => {
                self.dropped(messages, bytes);
            }
            gap @ (Gap::Reconnected { .. } | Gap::SessionLost { .. }) => {
                let after = std::mem::take(&mut self.after);
                self.before = (self.before.0 + after.0, self.before.1 + after.1);
                let joined = self
                    .reconnected
                    .as_mut()
                    .is_some_and(|first| first.join(&gap));
                if !joined {
                    self.reconnected = Some(gap);
                }
            }
        }
    }

    pub(super) fn into_items(self) -> Items {
        let dropped =
            |(messages, bytes)| (messages > 0).then_some(Gap::Dropped { messages, bytes });
        let marks = [dropped(self.before), self.reconnected, dropped(self.after)];
        let gaps = marks.into_iter().flatten();
        gaps.map(|gap| Item::One(Incoming::Gap(gap))).collect()
    }
}
