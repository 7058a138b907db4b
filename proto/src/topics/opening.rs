//! Where a subscription begins: the answers to each start (SPEC-TOPICS.md, "Subscribing").

use super::position::{LogId, Offset, Position, StoredAt};
use super::terms::{Gap, GapReason, Snapshot};

/// A log at one moment: its id, and the first and last message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(clippy::exhaustive_structs, reason = "these are the bounds of a log")]
pub struct LogBounds {
    /// The log's id.
    pub log: LogId,
    /// The first message that is there. If there is none, one more than `last`.
    pub first: Offset,
    /// The last message that was ever there.
    pub last: Offset,
    /// When that message was stored, if it is known.
    pub last_time: StoredAt,
}

/// The answer to SUBSCRIBE: where delivery begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Opening {
    /// Delivery begins behind this offset.
    pub after: Offset,
    /// The time of the message there, if it is known.
    pub time: StoredAt,
    /// The last message that the log has at this moment.
    pub end: Offset,
    /// The time of that message, if it is known.
    pub end_time: StoredAt,
    /// What is or may be missing before the first message.
    pub gap: Option<Gap>,
    /// Delivery begins with the latest message of each topic, of those behind this offset.
    pub snapshot: Option<Offset>,
}

impl Opening {
    fn behind(bounds: &LogBounds, after: Offset, time: StoredAt) -> Opening {
        Opening {
            after,
            time,
            end: bounds.last,
            end_time: bounds.last_time,
            gap: None,
            snapshot: None,
        }
    }

    /// [`Start::Beginning`](super::Start::Beginning).
    pub fn beginning(bounds: &LogBounds) -> Opening {
        Opening::behind(bounds, bounds.first.before(), StoredAt::UNKNOWN)
    }

    /// [`Start::Now`](super::Start::Now).
    pub fn now(bounds: &LogBounds) -> Opening {
        Opening::behind(bounds, bounds.last, bounds.last_time)
    }

    /// [`Start::Last`](super::Start::Last) and [`Start::Since`](super::Start::Since): the store has
    /// found behind which offset the sought messages begin. What is removed meanwhile becomes a gap.
    pub fn sought(bounds: &LogBounds, after: Offset) -> Opening {
        Opening::behind(bounds, after.min(bounds.last), StoredAt::UNKNOWN)
    }

    /// [`Start::Latest`](super::Start::Latest). `bounds` and `found` are as in
    /// [`after`](Opening::after), for the snapshot's end.
    pub fn latest(bounds: &LogBounds, snapshot: Option<Snapshot>, found: StoredAt) -> Opening {
        let mut opening = Opening::behind(bounds, Offset::START, StoredAt::UNKNOWN);
        opening.snapshot = Some(Offset::START);
        let Some(Snapshot { end, through }) = snapshot else {
            return opening;
        };
        let reason = match () {
            () if end.log != bounds.log => GapReason::AnotherLog,
            () if has_diverged(bounds, end, found) || through > bounds.last => GapReason::Diverged,
            () => {
                opening.snapshot = Some(through);
                return opening;
            }
        };
        opening.gap = Some(Gap {
            reason,
            certain: false,
            after: through,
            through: Offset::START,
        });
        opening
    }

    /// [`Start::After`](super::Start::After), which has four answers. `found` is the time of the
    /// message that the log has at the position's offset; unknown if it has none there.
    ///
    /// `bounds` have to be those of the log itself: a node that may lag behind asks for them first.
    pub fn after(bounds: &LogBounds, position: Position, found: StoredAt) -> Opening {
        let lost = |reason, after| Opening {
            gap: Some(Gap {
                reason,
                certain: false,
                after: position.offset,
                through: after,
            }),
            ..Opening::behind(bounds, after, StoredAt::UNKNOWN)
        };
        if position.log != bounds.log {
            return lost(GapReason::AnotherLog, bounds.first.before());
        }
        if has_diverged(bounds, position, found) {
            let end = lost(GapReason::Diverged, bounds.last);
            return Opening {
                time: bounds.last_time,
                ..end
            };
        }
        let mut opening = Opening::behind(bounds, position.offset, position.time);
        if position.offset < bounds.first.before() {
            opening.gap = Some(Gap {
                reason: GapReason::Removed,
                certain: false,
                after: position.offset,
                through: bounds.first.before(),
            });
        }
        opening
    }
}

/// Whether the log no longer has what a position in it names.
fn has_diverged(bounds: &LogBounds, position: Position, found: StoredAt) -> bool {
    let at_end = position.offset == bounds.last && position.time.contradicts(bounds.last_time);
    position.offset > bounds.last || at_end || position.time.contradicts(found)
}
