//! Messages from and to tungstenite's, for programs that have both.

use tokio_tungstenite::tungstenite::{self, Utf8Bytes};

use crate::messages::{Borrowed, Message};

/// A control message of tungstenite is not a message of the application.
///
/// A [`Connection`](crate::Connection) sends and answers pings and close frames itself. To close it,
/// call [`close`](crate::Connection::close). A peer's close frame is in the
/// [`CloseReport`](crate::CloseReport).
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "a ping, pong, close or raw frame is not a message of the application: the connection sends \
     and answers control frames itself"
)]
pub struct ControlMessage(tungstenite::Message);

impl ControlMessage {
    /// The message that was not converted.
    pub fn into_inner(self) -> tungstenite::Message {
        self.0
    }
}

impl TryFrom<tungstenite::Message> for Message {
    type Error = ControlMessage;

    /// Takes the text or the bytes. Payloads of more than 64 bytes are not copied.
    fn try_from(message: tungstenite::Message) -> Result<Message, ControlMessage> {
        match message {
            tungstenite::Message::Text(text) => Ok(text.into()),
            tungstenite::Message::Binary(payload) => Ok(payload.into()),
            control => Err(ControlMessage(control)),
        }
    }
}

impl From<Message> for tungstenite::Message {
    /// A text or binary message. Payloads of more than 64 bytes are not copied.
    fn from(message: Message) -> tungstenite::Message {
        let text = message.is_text();
        let payload = message.into_bytes();
        match text {
            true => tungstenite::Message::Text(
                Utf8Bytes::try_from(payload).expect("text was checked when it came in"),
            ),
            false => tungstenite::Message::Binary(payload),
        }
    }
}

impl From<Utf8Bytes> for Message {
    fn from(text: Utf8Bytes) -> Message {
        Message::new(true, text.into())
    }
}

impl Borrowed for Utf8Bytes {
    fn is_text(&self) -> bool {
        true
    }

    fn payload(&self) -> &[u8] {
        self.as_str().as_bytes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_go_to_tungstenite_and_back() {
        for len in [0, 1, 64, 65, 5000] {
            let text = "x".repeat(len);
            for (ours, theirs) in [
                (
                    Message::from(&text),
                    tungstenite::Message::text(text.clone()),
                ),
                (
                    Message::binary(text.clone()),
                    tungstenite::Message::binary(text.clone()),
                ),
            ] {
                assert_eq!(tungstenite::Message::from(ours.clone()), theirs);
                assert_eq!(Message::try_from(theirs), Ok(ours));
            }
            assert_eq!(
                Message::from(Utf8Bytes::from(text.clone())),
                Message::from(&text)
            );
        }
    }

    #[test]
    fn control_messages_come_back() {
        for control in [
            tungstenite::Message::Ping("x".into()),
            tungstenite::Message::Pong("x".into()),
            tungstenite::Message::Close(None),
        ] {
            let error = Message::try_from(control.clone()).unwrap_err();
            assert!(error.to_string().contains("control frames"));
            assert_eq!(error.into_inner(), control);
        }
    }
}
