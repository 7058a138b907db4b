//! Sequence numbers, offsets, positions and generations. Their arithmetic is checked here.

use std::fmt;

use crate::limits::{MAX_RECORD, RECORD_OVERHEAD, record_cost};

/// The sequence number of a record in one direction of a session (SPEC.md, "Sequence").
///
/// The first record has the number 1. [`Seq::ZERO`] means "none yet".
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Seq(u64);

impl Seq {
    /// No record yet.
    pub const ZERO: Seq = Seq(0);

    /// The sequence number `value`.
    pub const fn new(value: u64) -> Seq {
        Seq(value)
    }

    /// The number itself.
    pub const fn get(self) -> u64 {
        self.0
    }

    /// The sequence number that many records later. `None` past `u64::MAX`.
    pub const fn checked_add(self, records: u64) -> Option<Seq> {
        match self.0.checked_add(records) {
            Some(value) => Some(Seq(value)),
            None => None,
        }
    }

    /// The next sequence number. `None` past `u64::MAX`.
    pub const fn next(self) -> Option<Seq> {
        self.checked_add(1)
    }

    /// How many records come after `earlier`, up to and with this one. 0 if `earlier` is not
    /// earlier.
    pub const fn since(self, earlier: Seq) -> u64 {
        self.0.saturating_sub(earlier.0)
    }
}

impl fmt::Display for Seq {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A point in one direction of a session, as credit counts it (SPEC.md, "Credit").
///
/// It is the cost of all records from the first one of the session up to that point. A record costs
/// the length of its payload and [`RECORD_OVERHEAD`](crate::limits::RECORD_OVERHEAD).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Offset(u64);

impl Offset {
    /// The beginning of the session.
    pub const ZERO: Offset = Offset(0);

    /// The offset `value`.
    pub const fn new(value: u64) -> Offset {
        Offset(value)
    }

    /// The number itself.
    pub const fn get(self) -> u64 {
        self.0
    }

    /// The offset that many bytes later. `None` past `u64::MAX`.
    pub const fn checked_add(self, bytes: u64) -> Option<Offset> {
        match self.0.checked_add(bytes) {
            Some(value) => Some(Offset(value)),
            None => None,
        }
    }

    /// The offset that many bytes later, or `u64::MAX`.
    #[must_use]
    pub const fn saturating_add(self, bytes: u64) -> Offset {
        Offset(self.0.saturating_add(bytes))
    }

    /// How many bytes lie between `earlier` and this offset. 0 if `earlier` is not earlier.
    pub const fn since(self, earlier: Offset) -> u64 {
        self.0.saturating_sub(earlier.0)
    }
}

impl fmt::Display for Offset {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// The end of a received message, or the beginning of the session.
///
/// Each received message carries the position of its end. Give it to
/// [`Session::taken`](crate::Session::taken) or
/// [`Session::acknowledge`](crate::Session::acknowledge) to say how far the application has come.
///
/// The positions of one session are in the order of its messages. Positions of different sessions
/// are not comparable. The session keeps none, so an application may keep any number for any time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Position {
    /// The last record of the message.
    pub(crate) seq: Seq,
    /// The cost of all records up to and with that one.
    pub(crate) offset: Offset,
}

impl Position {
    /// The beginning of the session: before its first message.
    pub const START: Position = Position {
        seq: Seq::ZERO,
        offset: Offset::ZERO,
    };

    /// The sequence number of the message's last record: what the sender's
    /// [`send`](crate::Session::send) returned. [`Seq::ZERO`] before the first message.
    pub const fn seq(self) -> Seq {
        self.seq
    }

    /// Whether there can be records from `earlier` to here. Each costs at least the overhead, and
    /// at most as much as the largest record. Most positions of other sessions do not pass this.
    pub(crate) fn can_follow(self, earlier: Position) -> bool {
        let records = self.seq.get().checked_sub(earlier.seq.get());
        let cost = self.offset.get().checked_sub(earlier.offset.get());
        let (Some(records), Some(cost)) = (records, cost) else {
            return false;
        };
        let most = records.saturating_mul(record_cost(MAX_RECORD));
        (records.saturating_mul(RECORD_OVERHEAD)..=most).contains(&cost)
    }

    /// The position one record of that cost later. `None` past `u64::MAX`.
    #[inline]
    pub(crate) const fn after(self, cost: u64) -> Option<Position> {
        self.after_records(1, cost)
    }

    /// The position that many records later, which cost `cost` together. `None` past `u64::MAX`.
    #[inline]
    pub(crate) const fn after_records(self, records: u64, cost: u64) -> Option<Position> {
        match (self.seq.checked_add(records), self.offset.checked_add(cost)) {
            (Some(seq), Some(offset)) => Some(Position { seq, offset }),
            _ => None,
        }
    }
}

/// The number of a connection within its session. The client begins at 1 and raises it at each
/// attempt.
///
/// A newer generation fences the older one: packets of the older connection are refused (SPEC.md,
/// "Resume").
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Generation(u64);

impl Generation {
    /// Before the first connection.
    pub const ZERO: Generation = Generation(0);

    /// The generation `value`.
    pub const fn new(value: u64) -> Generation {
        Generation(value)
    }

    /// The number itself.
    pub const fn get(self) -> u64 {
        self.0
    }

    /// The next generation. `None` past `u64::MAX`.
    pub const fn next(self) -> Option<Generation> {
        match self.0.checked_add(1) {
            Some(value) => Some(Generation(value)),
            None => None,
        }
    }
}

impl fmt::Display for Generation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sequence_numbers_end_at_the_last_u64_and_never_wrap() {
        assert_eq!(Seq::ZERO.next(), Some(Seq::new(1)));
        assert_eq!(Seq::new(u64::MAX - 1).next(), Some(Seq::new(u64::MAX)));
        assert_eq!(Seq::new(u64::MAX).next(), None);
        assert_eq!(Seq::new(5).checked_add(u64::MAX), None);
    }

    #[test]
    fn distances_backwards_are_zero_not_huge() {
        assert_eq!(Seq::new(3).since(Seq::new(7)), 0);
        assert_eq!(Seq::new(u64::MAX).since(Seq::ZERO), u64::MAX);
        assert_eq!(Offset::new(3).since(Offset::new(7)), 0);
        assert_eq!(
            Offset::new(u64::MAX).saturating_add(9),
            Offset::new(u64::MAX)
        );
    }

    #[test]
    fn a_position_follows_another_only_by_records_of_a_possible_cost() {
        let at = |seq, offset| Position {
            seq: Seq::new(seq),
            offset: Offset::new(offset),
        };
        let from = at(5, 1_000);
        for (seq, offset, follows) in [
            (5, 1_000, true),
            (5, 1_001, false),
            (4, 999, false),
            (4, 1_064, false),
            (6, 1_063, false),
            (6, 1_064, true),
            (6, 1_000 + 65_600, true),
            (6, 1_000 + 65_601, false),
            (7, 1_128, true),
            (7, 1_127, false),
            (u64::MAX, u64::MAX, false),
        ] {
            assert_eq!(at(seq, offset).can_follow(from), follows, "{seq} {offset}");
        }
    }

    #[test]
    fn a_position_moves_both_numbers_or_none() {
        let last = Position {
            seq: Seq::new(u64::MAX - 1),
            offset: Offset::new(u64::MAX - 64),
        };
        let end = last.after(64).unwrap();
        assert_eq!((end.seq.get(), end.offset.get()), (u64::MAX, u64::MAX));
        assert_eq!(end.after(0), None);
        assert_eq!(last.after(65), None);
    }
}
