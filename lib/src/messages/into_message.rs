//! Everything that can be sent as a message.

use std::{borrow::Cow, sync::Arc};

use bytes::{Bytes, BytesMut};

use super::{Message, MessageRef};
use crate::defaults::SHORT_BYTES;

/// Everything that can be sent as a message.
///
/// - [`Message`], `&Message` and [`MessageRef`].
/// - As text: `&str`, `String`, `&String`, `Box<str>`, `Cow<str>` and `Arc<str>`.
/// - As binary: `&[u8]`, `[u8; N]`, `&[u8; N]`, `Vec<u8>`, `&Vec<u8>`, `Box<[u8]>`, `Cow<[u8]>`,
///   `Arc<[u8]>`, `Bytes`, `&Bytes` and `BytesMut`.
/// - tungstenite's `Utf8Bytes`, as text. Its `Message` may be a control message, so it is converted
///   with `Message::try_from`.
///
/// Short payloads are written into the outbox without a copy in between. Longer ones are not copied
/// if they are owned or shared: one `Arc<str>` can be sent to a thousand connections. The trait
/// cannot be implemented outside of this crate: implement `From<T> for Message` and send the message.
pub trait IntoMessage: Into<Message> + Borrowed {}

impl<T: Into<Message> + Borrowed> IntoMessage for T {}

pub(crate) use borrowed::Borrowed;

mod borrowed {
    /// A payload, borrowed from its owner. Text is UTF-8.
    pub trait Borrowed {
        fn is_text(&self) -> bool;
        fn payload(&self) -> &[u8];
    }
}

/// For each type: whether it is text, its payload, and the message that it becomes.
macro_rules! sent_as_messages {
    ($([$($generics:tt)*] $kind:ty, $text:expr, $payload:expr, $into:expr;)*) => {$(
        impl<$($generics)*> Borrowed for $kind {
            #[inline]
            fn is_text(&self) -> bool {
                let text: fn(&Self) -> bool = $text;
                text(self)
            }
            #[inline]
            fn payload(&self) -> &[u8] {
                let payload: fn(&Self) -> &[u8] = $payload;
                payload(self)
            }
        }

        impl<$($generics)*> From<$kind> for Message {
            fn from(payload: $kind) -> Message {
                let into: fn($kind) -> Message = $into;
                into(payload)
            }
        }
    )*};
}

sent_as_messages! {
    [] &Message, |it| Message::is_text(it), |it| Message::as_bytes(it), Message::clone;
    ['a] MessageRef<'a>, |it| MessageRef::is_text(it), |it| MessageRef::as_bytes(it),
        |it| it.to_message();
    ['a] &'a str, |_| true, |it| str::as_bytes(it), |it| Message::copied(true, it.as_bytes());
    [] String, |_| true, |it| str::as_bytes(it), |it| Message::new(true, it.into());
    ['a] &'a String, |_| true, |it| str::as_bytes(it), |it| Message::copied(true, it.as_bytes());
    [] Box<str>, |_| true, |it| str::as_bytes(it), |it| Message::new(true, String::from(it).into());
    ['a] Cow<'a, str>, |_| true, |it| str::as_bytes(it), |it| match it {
        Cow::Borrowed(text) => Message::from(text),
        Cow::Owned(text) => Message::from(text),
    };
    [] Arc<str>, |_| true, |it| str::as_bytes(it), |it| shared(true, SharedText(it));
    ['a] &'a [u8], |_| false, |it| it, |it| Message::copied(false, it);
    [const N: usize] [u8; N], |_| false, |it| it.as_slice(), |it| Message::copied(false, &it);
    ['a, const N: usize] &'a [u8; N], |_| false, |it| it.as_slice(),
        |it| Message::copied(false, it);
    [] Vec<u8>, |_| false, |it| it, |it| Message::new(false, it.into());
    ['a] &'a Vec<u8>, |_| false, |it| it, |it| Message::copied(false, it);
    [] Box<[u8]>, |_| false, |it| it, |it| Message::new(false, it.into());
    ['a] Cow<'a, [u8]>, |_| false, |it| it, |it| match it {
        Cow::Borrowed(payload) => Message::from(payload),
        Cow::Owned(payload) => Message::from(payload),
    };
    [] Arc<[u8]>, |_| false, |it| it, |it| shared(false, it);
    [] Bytes, |_| false, |it| it, |it| Message::new(false, it);
    ['a] &'a Bytes, |_| false, |it| it, |it| Message::new(false, it.clone());
    [] BytesMut, |_| false, |it| it, |it| Message::new(false, it.freeze());
}

impl Borrowed for Message {
    #[inline]
    fn is_text(&self) -> bool {
        Message::is_text(self)
    }

    #[inline]
    fn payload(&self) -> &[u8] {
        self.as_bytes()
    }
}

/// Shares the payload, unless it is so short that the message stores it inside.
fn shared(text: bool, payload: impl AsRef<[u8]> + Send + 'static) -> Message {
    match payload.as_ref().len() {
        0..=SHORT_BYTES => Message::copied(text, payload.as_ref()),
        _ => Message::new(text, Bytes::from_owner(payload)),
    }
}

struct SharedText(Arc<str>);

impl AsRef<[u8]> for SharedText {
    fn as_ref(&self) -> &[u8] {
        self.0.as_bytes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The message, after a check that its payload is seen the same before it is made.
    fn made(payload: impl IntoMessage) -> Message {
        let (text, bytes) = (payload.is_text(), payload.payload().to_vec());
        let message = payload.into();
        assert_eq!((message.is_text(), message.as_bytes()), (text, &bytes[..]));
        message
    }

    #[test]
    fn every_kind_of_text_is_the_same_message() {
        for len in [0, 1, SHORT_BYTES, SHORT_BYTES + 1, 5000] {
            let text = "x".repeat(len);
            let expected = Message::text(text.clone());
            let all = [
                made(text.as_str()),
                made(&text),
                made(text.clone()),
                made(text.clone().into_boxed_str()),
                made(Cow::Borrowed(text.as_str())),
                made(Cow::<str>::Owned(text.clone())),
                made(Arc::<str>::from(text.as_str())),
                made(&expected),
                made(MessageRef::from(&expected)),
            ];
            for message in all {
                assert_eq!(message, expected);
                assert_eq!(message.into_text(), Ok(text.clone()));
            }
        }
    }

    #[test]
    fn every_kind_of_bytes_is_the_same_message() {
        for len in [0, 1, SHORT_BYTES, SHORT_BYTES + 1, 5000] {
            let bytes = vec![b'x'; len];
            let expected = Message::binary(bytes.clone());
            let shared = Bytes::from(bytes.clone());
            let all = [
                made(bytes.as_slice()),
                made(&bytes),
                made(bytes.clone()),
                made(bytes.clone().into_boxed_slice()),
                made(Cow::Borrowed(bytes.as_slice())),
                made(Cow::<[u8]>::Owned(bytes.clone())),
                made(Arc::<[u8]>::from(bytes.as_slice())),
                made(&shared),
                made(shared),
                made(BytesMut::from(bytes.as_slice())),
            ];
            for message in all {
                assert_eq!(message, expected);
                assert_eq!(AsRef::<[u8]>::as_ref(&message), bytes);
                assert_eq!(message.into_text(), Err(expected.clone()));
            }
        }
        let array = [1u8, 2];
        assert_eq!(Message::from(&array), made(array));
    }

    #[test]
    fn shared_text_is_sent_to_many_without_a_copy() {
        let text = Arc::<str>::from("x".repeat(SHORT_BYTES + 1));
        let messages = [made(text.clone()), made(text.clone())];
        for message in &messages {
            assert_eq!(message.as_bytes().as_ptr(), text.as_ptr());
        }
        drop(messages);
        assert_eq!(Arc::strong_count(&text), 1);
    }
}
