//! Logs and places in them (SPEC-TOPICS.md, "Terms").

use std::{fmt, str::FromStr};

use crate::error::ProtocolError;
use crate::wire::Fields;

/// The id of a log: 128 random bits, drawn when the log is made.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[expect(clippy::exhaustive_structs, reason = "it is a number of the wire")]
pub struct LogId(pub [u8; 16]);

/// The place of a message in its log. It grows with each message, and is never used again. Offsets
/// need not be contiguous. [`Offset::START`] stands before the first message.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Offset(u64);

/// When a message was stored, in milliseconds since 1970-01-01 UTC, by the clock of whoever stored
/// it. 0 means that it is not known.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct StoredAt(u64);

/// A place behind a message of a log. It holds at every node that serves the log, over restarts.
///
/// Its text form is `LOG:OFFSET:TIME`, the log's id in hexadecimal digits. It is short enough for a
/// URL fragment, a cookie or a row of a database.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[expect(clippy::exhaustive_structs, reason = "a position is just these three")]
pub struct Position {
    /// The log.
    pub log: LogId,
    /// The message behind which the position stands.
    pub offset: Offset,
    /// When that message was stored. A log that has lost its end gives offsets out again; the time
    /// tells such messages apart.
    pub time: StoredAt,
}

impl LogId {
    /// No log: in a start that names no position.
    pub const NONE: LogId = LogId([0; 16]);
}

impl Offset {
    /// Before the first message.
    pub const START: Offset = Offset(0);

    /// The largest offset.
    pub const MAX: Offset = Offset((1 << 62) - 1);

    /// An offset from its number. `None` above [`Offset::MAX`].
    pub const fn new(number: u64) -> Option<Offset> {
        if number <= Offset::MAX.0 {
            Some(Offset(number))
        } else {
            None
        }
    }

    /// Its number.
    pub const fn get(self) -> u64 {
        self.0
    }

    /// The offset that is higher by `count`. `None` above [`Offset::MAX`].
    pub const fn checked_add(self, count: u64) -> Option<Offset> {
        match self.0.checked_add(count) {
            Some(number) => Offset::new(number),
            None => None,
        }
    }

    pub(super) fn decode(fields: &mut Fields<'_>) -> Result<Offset, ProtocolError> {
        let offset = Offset::new(fields.u64()?);
        offset.ok_or(ProtocolError::Malformed("an offset beyond the largest"))
    }

    /// The offset right before this one, and at least [`Offset::START`].
    #[must_use]
    pub const fn before(self) -> Offset {
        Offset(self.0.saturating_sub(1))
    }
}

impl StoredAt {
    /// The latest time that can be named.
    pub const MAX: StoredAt = StoredAt((1 << 62) - 1);

    /// Not known.
    pub const UNKNOWN: StoredAt = StoredAt(0);

    /// A time from its milliseconds since 1970. `None` above [`StoredAt::MAX`].
    pub const fn new(millis: u64) -> Option<StoredAt> {
        if millis <= StoredAt::MAX.0 {
            Some(StoredAt(millis))
        } else {
            None
        }
    }

    pub(super) fn decode(fields: &mut Fields<'_>) -> Result<StoredAt, ProtocolError> {
        let time = StoredAt::new(fields.u64()?);
        time.ok_or(ProtocolError::Malformed("a time beyond the last one"))
    }

    /// Milliseconds since 1970.
    pub const fn millis(self) -> u64 {
        self.0
    }

    /// Whether both times are known, and differ.
    pub fn contradicts(self, other: StoredAt) -> bool {
        self != StoredAt::UNKNOWN && other != StoredAt::UNKNOWN && self != other
    }
}

impl fmt::Display for Offset {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Display for LogId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for LogId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "LogId({self})")
    }
}

impl FromStr for LogId {
    type Err = InvalidPosition;

    fn from_str(text: &str) -> Result<LogId, InvalidPosition> {
        // `from_str_radix` would take a sign.
        if text.len() != 32 || !text.bytes().all(|digit| digit.is_ascii_hexdigit()) {
            return Err(InvalidPosition);
        }
        let number = u128::from_str_radix(text, 16).map_err(|_| InvalidPosition)?;
        Ok(LogId(number.to_be_bytes()))
    }
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}:{}", self.log, self.offset, self.time.0)
    }
}

/// A text is not a position or a log's id.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "this is not a position; it has the form LOG:OFFSET:TIME, with 32 hexadecimal digits for LOG"
)]
#[non_exhaustive]
pub struct InvalidPosition;

impl FromStr for Position {
    type Err = InvalidPosition;

    fn from_str(text: &str) -> Result<Position, InvalidPosition> {
        let mut parts = text.split(':');
        let (Some(log), Some(offset), Some(time), None) =
            (parts.next(), parts.next(), parts.next(), parts.next())
        else {
            return Err(InvalidPosition);
        };
        let number = |text: &str| match text.bytes().all(|digit| digit.is_ascii_digit()) {
            true => text.parse().map_err(|_| InvalidPosition),
            false => Err(InvalidPosition),
        };
        Ok(Position {
            log: log.parse()?,
            offset: Offset::new(number(offset)?).ok_or(InvalidPosition)?,
            time: StoredAt::new(number(time)?).ok_or(InvalidPosition)?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_position_is_the_same_after_its_text_form() {
        let position = Position {
            log: LogId(*b"0123456789abcdef"),
            offset: Offset::MAX,
            time: StoredAt::new(1_764_500_000_000).unwrap(),
        };
        assert_eq!(position.to_string().parse(), Ok(position));
    }

    #[test]
    fn texts_that_are_no_positions_are_refused() {
        let log = "00".repeat(16);
        let beyond = Offset::MAX.get() + 1;
        for text in [
            String::new(),
            format!("{log}:1"),
            format!("{log}:1:2:3"),
            format!("{log}:+1:2"),
            format!("{log}:{beyond}:0"),
            format!("{log}:0:{beyond}"),
            format!("+{}:1:2", &log[1..]),
            format!("{log}0:1:2"),
        ] {
            assert_eq!(text.parse::<Position>(), Err(InvalidPosition), "{text}");
        }
    }
}
