//! Messages, text or binary, owned and borrowed.

use bytes::Bytes;
use std::{fmt, ops::Range};
use unstall_proto::{self as proto, Kind, Seq, util::copied};

use crate::defaults::{MESSAGE_OVERHEAD_BYTES, PACKET_BUFFER_BYTES, SHORT_BYTES};

/// A short payload. It is copied and moved as whole words, at a constant length. If it were copied
/// field by field, each step would stall until the processor has stored the one before.
#[derive(Clone, Copy)]
#[repr(C, align(16))]
struct Short {
    /// The bytes after `len` are unspecified: they may be those of the next message.
    bytes: [u8; SHORT_BYTES],
    text: bool,
    len: u8,
}

#[derive(Clone)]
enum Repr {
    Short(Short),
    Shared { bytes: Bytes, text: bool },
}

impl Short {
    /// The first `len` bytes of `buffer`, which may go on after them. `None` if they are not short.
    #[inline]
    fn copied(text: bool, buffer: &[u8], len: usize) -> Option<Short> {
        if len > SHORT_BYTES {
            return None;
        }
        let bytes = match buffer.first_chunk() {
            Some(bytes) => *bytes,
            None => {
                let mut bytes = [0; SHORT_BYTES];
                bytes[..len].copy_from_slice(&buffer[..len]);
                bytes
            }
        };
        let len = len as u8;
        Some(Short { bytes, text, len })
    }
}

/// A text or binary message (RFC 6455 §5.6).
///
/// Payloads of up to 64 bytes are stored inside the value, and larger ones are shared: a clone copies
/// at most 64 bytes. A received message keeps at most four times its own size in memory.
///
/// Two messages are equal if they are of the same kind and have the same payload.
///
/// ```
/// # use unstall::Message;
/// let message = Message::from("subscribe");
/// assert_eq!(message.as_text(), Some("subscribe"));
/// assert!(Message::from(vec![1u8, 2]).as_text().is_none());
/// ```
///
/// It is made from [every usual type](crate::IntoMessage) of text and bytes, and converts from and to
/// tungstenite's messages:
/// ```
/// # use unstall::{Message, tokio_tungstenite::tungstenite};
/// # fn main() -> Result<(), unstall::ControlMessage> {
/// let theirs = tungstenite::Message::from(Message::from("subscribe"));
/// let ours = Message::try_from(theirs)?; // a control message comes back in the error
/// assert_eq!(ours.into_text().as_deref(), Ok("subscribe"));
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct Message(Repr);

impl Message {
    /// A text message.
    pub fn text(text: impl Into<String>) -> Message {
        Message::new(true, Bytes::from(text.into()))
    }

    /// A binary message. `Vec<u8>`, `Bytes` and `&'static [u8]` are taken without a copy when they
    /// are longer than 64 bytes.
    pub fn binary(payload: impl Into<Bytes>) -> Message {
        Message::new(false, payload.into())
    }

    pub(crate) fn new(text: bool, bytes: Bytes) -> Message {
        Message(match Short::copied(text, &bytes, bytes.len()) {
            Some(short) => Repr::Short(short),
            None => Repr::Shared { bytes, text },
        })
    }

    /// The next message of a packet, if it is short and not the last. Only its words are moved.
    #[inline(always)]
    pub(crate) fn cut_short(packet: &mut proto::Batch) -> Option<Message> {
        let short = packet.next_if(|kind, buffer, len| match buffer.first_chunk() {
            Some(bytes) if len <= SHORT_BYTES => Some(Short {
                bytes: *bytes,
                text: kind == Kind::Text,
                len: len as u8,
            }),
            _ => None,
        })?;
        Some(Message(Repr::Short(short)))
    }

    fn cut_out(text: bool, buffer: &Bytes, range: Range<usize>) -> Message {
        match Short::copied(text, &buffer[range.start..], range.len()) {
            Some(short) => Message(Repr::Short(short)),
            None => Message::copied(text, &buffer[range]),
        }
    }

    /// The next message of a packet.
    #[inline]
    pub(crate) fn cut(packet: &mut proto::Batch) -> Option<Message> {
        packet.next_as(|kind, bytes, range| {
            let text = kind == Kind::Text;
            let whole = range.len() == bytes.len();
            match whole || range.len() >= PACKET_BUFFER_BYTES / 4 {
                true => Message::new(text, bytes.slice(range)),
                false => Message::cut_out(text, bytes, range),
            }
        })
    }

    /// A message with a copy of the payload.
    pub(crate) fn copied(text: bool, payload: &[u8]) -> Message {
        Message(match Short::copied(text, payload, payload.len()) {
            Some(short) => Repr::Short(short),
            None => Repr::Shared {
                bytes: copied(payload),
                text,
            },
        })
    }

    /// Whether this is a text message.
    #[inline]
    pub fn is_text(&self) -> bool {
        match &self.0 {
            Repr::Short(short) => short.text,
            Repr::Shared { text, .. } => *text,
        }
    }

    /// The text, or `None` for a binary message. It checks the encoding, so it takes time in
    /// proportion to the length: keep the result rather than asking twice.
    pub fn as_text(&self) -> Option<&str> {
        if !self.is_text() {
            return None;
        }
        std::str::from_utf8(self.as_bytes()).ok()
    }

    /// The payload of a text or binary message.
    #[inline]
    pub fn as_bytes(&self) -> &[u8] {
        match &self.0 {
            Repr::Short(short) => &short.bytes[..usize::from(short.len).min(SHORT_BYTES)],
            Repr::Shared { bytes, .. } => bytes,
        }
    }

    /// The text, as a `String`. A received text is copied, because its memory is shared.
    ///
    /// # Errors
    /// The message is binary. It comes back.
    pub fn into_text(self) -> Result<String, Message> {
        match self.as_text() {
            Some(text) => Ok(text.to_owned()),
            None => Err(self),
        }
    }

    /// The payload of a text or binary message. It is not copied if it is longer than 64 bytes.
    pub fn into_bytes(self) -> Bytes {
        match self.0 {
            Repr::Shared { bytes, .. } => bytes,
            Repr::Short(_) => Bytes::copy_from_slice(self.as_bytes()),
        }
    }

    pub(crate) fn kind(&self) -> Kind {
        kind(self.is_text())
    }

    /// Gives the message to the session.
    pub(crate) fn send(&self, session: &mut proto::Session) -> Result<Seq, proto::SendError> {
        match &self.0 {
            Repr::Shared { bytes, text } => session.send_shared(kind(*text), bytes),
            Repr::Short(_) => match self.as_text() {
                Some(text) => session.send(text),
                None => session.send(self.as_bytes()),
            },
        }
    }

    /// The payload, shared.
    pub(crate) fn bytes(&self) -> Bytes {
        match &self.0 {
            Repr::Shared { bytes, .. } => bytes.clone(),
            Repr::Short(_) => Bytes::copy_from_slice(self.as_bytes()),
        }
    }

    /// The payload's length in bytes.
    pub fn len(&self) -> usize {
        self.as_bytes().len()
    }

    /// Whether the payload is empty. Empty messages are delivered like all others.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// What this message costs in a queue, in bytes: its payload and a fixed overhead.
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

impl AsRef<[u8]> for Message {
    fn as_ref(&self) -> &[u8] {
        self.as_bytes()
    }
}

impl PartialEq for Message {
    fn eq(&self, other: &Message) -> bool {
        self.is_text() == other.is_text() && self.as_bytes() == other.as_bytes()
    }
}

impl Eq for Message {}

pub(crate) fn kind(text: bool) -> Kind {
    match text {
        true => Kind::Text,
        false => Kind::Binary,
    }
}

/// A received message, borrowed from the packet that brought it. Nothing is copied.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MessageRef<'a> {
    text: bool,
    payload: &'a [u8],
}

impl<'a> MessageRef<'a> {
    /// Whether this is a text message.
    pub fn is_text(&self) -> bool {
        self.text
    }

    /// The text, or `None` for a binary message. It checks the encoding, so it takes time in
    /// proportion to the length.
    pub fn as_text(&self) -> Option<&'a str> {
        self.text
            .then(|| std::str::from_utf8(self.payload).ok())
            .flatten()
    }

    /// The payload of a text or binary message.
    pub fn as_bytes(&self) -> &'a [u8] {
        self.payload
    }

    /// A copy of the message, to keep.
    pub fn to_message(&self) -> Message {
        Message::copied(self.text, self.payload)
    }
}

impl AsRef<[u8]> for MessageRef<'_> {
    fn as_ref(&self) -> &[u8] {
        self.payload
    }
}

impl<'a> From<&'a Message> for MessageRef<'a> {
    fn from(message: &'a Message) -> MessageRef<'a> {
        MessageRef {
            text: message.is_text(),
            payload: message.as_bytes(),
        }
    }
}

impl<'a> From<proto::MessageRef<'a>> for MessageRef<'a> {
    fn from(message: proto::MessageRef<'a>) -> MessageRef<'a> {
        MessageRef {
            text: message.kind == Kind::Text,
            payload: message.payload,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn short_messages_are_cut_alike_in_the_middle_of_a_packet_and_at_its_end() {
        let mut records = proto::Records::default();
        let texts: Vec<String> = (0..=SHORT_BYTES + 1).map(|len| "x".repeat(len)).collect();
        for text in &texts {
            assert!(records.push(text.as_str()));
        }
        let (mut packet, mut again) = {
            let packet = records.into_batch();
            (packet.clone(), packet)
        };
        for text in &texts {
            assert_eq!(
                Message::cut(&mut packet),
                Some(Message::from(text.as_str()))
            );
            let cut = Message::cut_short(&mut again).or_else(|| Message::cut(&mut again));
            assert_eq!(cut, Some(Message::from(text.as_str())));
        }
        assert!(packet.is_finished() && again.is_finished());
    }

    #[test]
    fn text_and_binary_round_trip_at_the_inline_edge() {
        for len in [0, 1, SHORT_BYTES - 1, SHORT_BYTES, SHORT_BYTES + 1, 5000] {
            let text = "x".repeat(len);
            assert_eq!(Message::from(text.as_str()).as_text(), Some(text.as_str()));
            assert_eq!(Message::from(text.clone()), Message::from(text.as_str()));
            assert_eq!(Message::binary(text.clone()).into_bytes(), text.as_bytes());
            assert_ne!(Message::binary(text.clone()), Message::text(text));
        }
    }
}
