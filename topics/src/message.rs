//! What a subscription delivers, and what is published.

use std::fmt;

use bytes::Bytes;
use unstall::IntoMessage;
use unstall_proto::{
    Kind,
    topics::{Gap, LogId, NameError, Offset, Position, StoredAt, Topic},
};

use crate::{defaults::COPIED_BYTES, store::Publication};

/// What a subscription delivers, in the order of the log.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum Delivery {
    /// A message of the filter.
    Message(Message),
    /// Messages are or may be missing here.
    Gap(Gap),
    /// Everything up to this position is delivered, which was the end of the log when the
    /// subscription began. It also comes when the filter matched nothing. It may come again later.
    CaughtUp(Position),
}

/// A message of a log.
#[derive(Clone, PartialEq, Eq)]
pub struct Message {
    pub(crate) log: LogId,
    pub(crate) offset: Offset,
    pub(crate) time: StoredAt,
    pub(crate) topic: Topic,
    pub(crate) kind: Kind,
    pub(crate) is_final: bool,
    pub(crate) payload: Bytes,
}

impl Message {
    /// The place of the message. Save it to go on behind this message, in another process too:
    /// [`Start::After`](crate::Start::After). Not that of a snapshot's message, see
    /// [`Subscription::position`](crate::Subscription::position).
    pub fn position(&self) -> Position {
        Position {
            log: self.log,
            offset: self.offset,
            time: self.time,
        }
    }

    /// Its offset in the log.
    pub fn offset(&self) -> Offset {
        self.offset
    }

    /// When it was stored.
    pub fn time(&self) -> StoredAt {
        self.time
    }

    /// The topic under which it was published.
    pub fn topic(&self) -> &Topic {
        &self.topic
    }

    /// Whether it is the last message of its topic.
    pub fn is_final(&self) -> bool {
        self.is_final
    }

    /// Whether it is text.
    pub fn is_text(&self) -> bool {
        self.kind == Kind::Text
    }

    /// The text. `None` for a binary message.
    pub fn as_text(&self) -> Option<&str> {
        match self.kind {
            // Checked where it arrived.
            Kind::Text => std::str::from_utf8(&self.payload).ok(),
            Kind::Binary => None,
        }
    }

    /// The payload.
    pub fn as_bytes(&self) -> &[u8] {
        &self.payload
    }

    /// The payload, without a copy. It may keep the packet in memory that it arrived in, which is at
    /// most 65 KiB.
    pub fn into_bytes(self) -> Bytes {
        self.payload
    }
}

impl fmt::Debug for Message {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Message")
            .field("topic", &self.topic.as_str())
            .field("offset", &self.offset.get())
            .field("bytes", &self.payload.len())
            .field("final", &self.is_final)
            .finish_non_exhaustive()
    }
}

/// A message to publish, checked.
pub(crate) fn publication(
    topic: &str,
    message: impl IntoMessage,
    is_final: bool,
) -> Result<Publication, NameError> {
    let topic = Topic::new(topic)?;
    let message: unstall::Message = message.into();
    let kind = match message.is_text() {
        true => Kind::Text,
        false => Kind::Binary,
    };
    let mut publication = Publication::new(topic, kind, message.into_bytes());
    publication.is_final = is_final;
    Ok(publication)
}

/// A payload that does not keep much more memory than itself: a short one is copied out of the packet
/// that it came in.
pub(crate) fn copied(payload: Bytes) -> Bytes {
    match payload.len() < COPIED_BYTES {
        true => Bytes::copy_from_slice(&payload),
        false => payload,
    }
}
