//! What travels: text or binary messages, and gaps where something is missing.

use bytes::Bytes;
use std::{collections::VecDeque, fmt, sync::Arc, time::Duration};

use crate::defaults::MESSAGE_OVERHEAD_BYTES;
use crate::error::ConnectionError;

/// Payloads up to this many bytes live inside the [`Message`] itself.
const INLINE_BYTES: usize = 70;

#[derive(Clone)]
enum Payload {
    Inline { len: u8, bytes: [u8; INLINE_BYTES] },
    Shared(Bytes),
}

impl Payload {
    fn inline(payload: &[u8]) -> Option<Payload> {
        let len = payload.len();
        (len <= INLINE_BYTES).then(|| {
            let mut bytes = [0; INLINE_BYTES];
            bytes[..len].copy_from_slice(payload);
            Payload::Inline {
                len: len as u8,
                bytes,
            }
        })
    }

    fn as_slice(&self) -> &[u8] {
        match self {
            Payload::Inline { len, bytes } => &bytes[..*len as usize],
            Payload::Shared(bytes) => bytes,
        }
    }
}

/// A text or binary message (RFC 6455 §5.6).
///
/// Payloads of up to 70 bytes are stored inside the value, larger ones are shared, so a clone never
/// copies more than that. A received message pins at most five times its own size in memory.
///
/// ```
/// # use unstall::Message;
/// let message = Message::from("subscribe");
/// assert_eq!(message.as_text(), Some("subscribe"));
/// assert!(Message::from(vec![1u8, 2]).as_text().is_none());
/// ```
#[derive(Clone)]
pub struct Message {
    text: bool,
    payload: Payload,
}

impl Message {
    /// A text message.
    pub fn text(text: impl Into<String>) -> Message {
        Message::new(true, Bytes::from(text.into()))
    }

    /// A binary message. `Vec<u8>`, `Bytes` and `&'static [u8]` are taken without a copy when they
    /// are longer than 70 bytes.
    pub fn binary(payload: impl Into<Bytes>) -> Message {
        Message::new(false, payload.into())
    }

    pub(crate) fn new(text: bool, payload: Bytes) -> Message {
        let payload = Payload::inline(&payload).unwrap_or(Payload::Shared(payload));
        Message { text, payload }
    }

    /// A message whose payload is a slice of a read buffer of up to `buffer` bytes: copied out where
    /// keeping the slice would pin more than four times the message.
    pub(crate) fn received(text: bool, slice: Bytes, buffer: usize) -> Message {
        if slice.len() < buffer / 4 {
            Message::copied(text, &slice)
        } else {
            Message::new(text, slice)
        }
    }

    /// A message with a payload of its own.
    pub(crate) fn copied(text: bool, payload: &[u8]) -> Message {
        let payload = Payload::inline(payload)
            .unwrap_or_else(|| Payload::Shared(Bytes::copy_from_slice(payload)));
        Message { text, payload }
    }

    /// Whether this is a text message.
    pub fn is_text(&self) -> bool {
        self.text
    }

    /// The text, if this is a text message. Checks the encoding again, so it takes time in
    /// proportion to the length; keep the result rather than asking twice.
    pub fn as_text(&self) -> Option<&str> {
        if !self.text {
            return None;
        }
        std::str::from_utf8(self.as_bytes()).ok()
    }

    /// The payload, of either kind.
    pub fn as_bytes(&self) -> &[u8] {
        self.payload.as_slice()
    }

    /// The payload, of either kind, without a copy if it is longer than 70 bytes.
    pub fn into_bytes(self) -> Bytes {
        match self.payload {
            Payload::Shared(bytes) => bytes,
            inline => Bytes::copy_from_slice(inline.as_slice()),
        }
    }

    /// The payload where it is shared already, else `Err` with the inline bytes.
    pub(crate) fn shared(&self) -> Result<&Bytes, &[u8]> {
        match &self.payload {
            Payload::Shared(bytes) => Ok(bytes),
            inline => Err(inline.as_slice()),
        }
    }

    /// The payload's length in bytes.
    pub fn len(&self) -> usize {
        self.as_bytes().len()
    }

    /// Whether the payload is empty. Empty messages are messages: they are delivered.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// What this message costs in a queue: its payload and a fixed overhead.
    pub(crate) fn cost(&self) -> usize {
        self.len() + MESSAGE_OVERHEAD_BYTES
    }
}

impl fmt::Debug for Message {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const SHOWN: usize = 64;
        match self.as_text() {
            Some(text) if text.len() <= SHOWN => write!(f, "Text({text:?})"),
            Some(text) => {
                let shown: String = text.chars().take(SHOWN).collect();
                write!(f, "Text({shown:?}… {} bytes)", text.len())
            }
            None => write!(f, "Binary({} bytes)", self.len()),
        }
    }
}

impl PartialEq for Message {
    fn eq(&self, other: &Message) -> bool {
        self.text == other.text && self.as_bytes() == other.as_bytes()
    }
}

impl Eq for Message {}

impl From<&str> for Message {
    fn from(text: &str) -> Message {
        Message::copied(true, text.as_bytes())
    }
}

impl From<String> for Message {
    fn from(text: String) -> Message {
        Message::text(text)
    }
}

impl From<&[u8]> for Message {
    fn from(payload: &[u8]) -> Message {
        Message::copied(false, payload)
    }
}

impl<const N: usize> From<&[u8; N]> for Message {
    fn from(payload: &[u8; N]) -> Message {
        Message::from(payload.as_slice())
    }
}

impl From<Vec<u8>> for Message {
    fn from(payload: Vec<u8>) -> Message {
        Message::binary(payload)
    }
}

impl From<Bytes> for Message {
    fn from(payload: Bytes) -> Message {
        Message::binary(payload)
    }
}

/// What [`recv`](crate::Receiver::recv) yields: a message, or the place where some are missing.
#[derive(Clone, Debug)]
pub enum Incoming {
    /// A message, in the order in which the peer sent it.
    Message(Message),
    /// Here something is missing. Nothing goes missing without one.
    Gap(Gap),
}

impl Incoming {
    /// The message, if it is one.
    pub fn into_message(self) -> Option<Message> {
        match self {
            Incoming::Message(message) => Some(message),
            Incoming::Gap(_) => None,
        }
    }

    pub(crate) fn cost(&self) -> usize {
        match self {
            Incoming::Message(message) => message.cost(),
            Incoming::Gap(_) => MESSAGE_OVERHEAD_BYTES,
        }
    }
}

/// What is missing at a place in the received stream, and why.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum Gap {
    /// The connection was lost and made again. Whatever the peer sent in between is missing; a
    /// plain WebSocket cannot say how much.
    Reconnected {
        /// Why the previous connection ended.
        why: Arc<ConnectionError>,
        /// From its end to the new connection.
        away: Duration,
    },
    /// The session ended and could not be resumed; another one may follow. What the peer had
    /// accepted for sending and this side did not receive is missing; the peer was given it back.
    SessionLost {
        /// Why it ended.
        why: Arc<ConnectionError>,
    },
    /// The inbox was full and its policy dropped these messages here.
    Dropped {
        /// How many messages.
        messages: u64,
        /// Their payloads' bytes.
        bytes: u64,
    },
    /// The inbox was full: the message after this gap replaced older ones with the same key.
    Conflated {
        /// How many messages were replaced.
        messages: u64,
        /// Their payloads' bytes.
        bytes: u64,
    },
}

impl Gap {
    /// Takes in a gap that follows with nothing in between, where one can stand for both.
    pub(crate) fn join(&mut self, next: &Gap) -> bool {
        match (self, next) {
            (
                Gap::Dropped { messages, bytes },
                Gap::Dropped {
                    messages: more,
                    bytes: more_bytes,
                },
            ) => {
                *messages += more;
                *bytes += more_bytes;
            }
            (Gap::Reconnected { away, .. }, Gap::Reconnected { away: more, .. }) => *away += *more,
            (Gap::SessionLost { why }, Gap::SessionLost { why: latest }) => *why = latest.clone(),
            _ => return false,
        }
        true
    }
}

/// Received messages and gaps in order.
pub(crate) type Batch = VecDeque<Incoming>;

/// Puts a gap at the back; `true` if it took a place of its own. However much goes missing while
/// nobody reads, what stands for it stays small.
pub(crate) fn push_gap(batch: &mut Batch, gap: Gap) -> bool {
    if let Some(Incoming::Gap(back)) = batch.back_mut()
        && back.join(&gap)
    {
        return false;
    }
    batch.push_back(Incoming::Gap(gap));
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn message_is_no_larger_than_its_queue_place_is_charged() {
        assert!(
            2 * size_of::<Incoming>() <= MESSAGE_OVERHEAD_BYTES,
            "{}",
            size_of::<Incoming>()
        );
    }

    #[test]
    fn received_message_pins_at_most_four_times_its_size() {
        let window = Bytes::from(vec![7u8; 32 << 10]);
        for len in [1, 64, 71, 4096, 8191, 8192, 20_000] {
            let slice = window.slice(100..100 + len);
            let message = Message::received(false, slice.clone(), window.len());
            let inside = window.as_ptr() as usize..window.as_ptr() as usize + window.len();
            assert_eq!(message.as_bytes(), &slice[..]);
            let pins = inside.contains(&(message.into_bytes().as_ptr() as usize));
            assert_eq!(pins, len >= 8192, "{len} bytes");
        }
    }

    #[test]
    fn text_and_binary_round_trip_at_the_inline_edge() {
        for len in [0, 1, INLINE_BYTES - 1, INLINE_BYTES, INLINE_BYTES + 1, 5000] {
            let text = "x".repeat(len);
            assert_eq!(Message::from(text.as_str()).as_text(), Some(text.as_str()));
            assert_eq!(Message::from(text.clone()), Message::from(text.as_str()));
            assert_eq!(Message::binary(text.clone()).into_bytes(), text.as_bytes());
            assert_ne!(Message::binary(text.clone()), Message::text(text));
        }
    }
}
