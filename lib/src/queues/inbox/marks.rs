//! What stands for the messages that `DropOldest` dropped.

use crate::messages::{Gap, Incoming};
use crate::queues::items::{Item, Items};

/// What stands at the front of a stream whose oldest messages were dropped: at most three gaps,
/// however long that goes on.
#[derive(Default)]
pub(super) struct Marks {
    /// Messages and bytes dropped before the last reconnect, and after it.
    before: (u64, u64),
    after: (u64, u64),
    reconnected: Option<Gap>,
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
