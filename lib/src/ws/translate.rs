//! What tungstenite says, as the rest of the library says it.

use std::{io, task::Poll};

use tokio_tungstenite::tungstenite::{
    Error, Message as WsMessage,
    error::{CapacityError, ProtocolError},
    protocol::CloseFrame,
};

use super::{Failure, Received, incoming::Payload};
use crate::reports::{Close, CloseCode, ConnectionError};

/// What tungstenite yields, checked by it.
pub(super) fn engine_message(message: WsMessage) -> Result<Received<'static>, Failure> {
    let shared = |text, payload| {
        let payload = Payload::Shared(payload);
        Received::Message { text, payload }
    };
    Ok(match message {
        WsMessage::Text(text) => shared(true, text.into()),
        WsMessage::Binary(payload) => shared(false, payload),
        WsMessage::Ping(_) => Received::Ping,
        WsMessage::Pong(payload) => Received::Pong(payload),
        WsMessage::Close(frame) => Received::Close(close(frame)),
        WsMessage::Frame(_) => {
            let why = "a raw frame where a message was due".to_owned();
            return Err(Failure::Broken(ConnectionError::Protocol(why)));
        }
    })
}

pub(super) fn would_block_is_pending<T>(result: Result<T, Error>) -> Poll<Result<T, Error>> {
    match result {
        Err(Error::Io(error)) if error.kind() == io::ErrorKind::WouldBlock => Poll::Pending,
        result => Poll::Ready(result),
    }
}

/// A close reason has at most 123 bytes (RFC 6455 §5.5): cut at a character.
pub(super) fn fit(reason: &str) -> &str {
    let mut end = reason.len().min(123);
    while !reason.is_char_boundary(end) {
        end -= 1;
    }
    &reason[..end]
}

pub(super) fn close(frame: Option<CloseFrame>) -> Close {
    match frame {
        Some(frame) => Close {
            code: Some(CloseCode::received(frame.code.into())),
            reason: frame.reason.as_str().to_owned(),
        },
        None => Close {
            code: None,
            reason: String::new(),
        },
    }
}

pub(super) fn failure(error: Error) -> Failure {
    Failure::Broken(match error {
        Error::ConnectionClosed | Error::AlreadyClosed => return Failure::Closed,
        Error::Protocol(ProtocolError::SendAfterClosing) => return Failure::Closed,
        Error::Protocol(ProtocolError::ResetWithoutClosingHandshake) => {
            ConnectionError::EndOfStream
        }
        Error::Protocol(error) => ConnectionError::Protocol(error.to_string()),
        Error::Capacity(CapacityError::MessageTooLong { size, max_size }) => {
            ConnectionError::MessageTooLarge {
                size,
                limit: max_size,
            }
        }
        Error::Utf8(_) => ConnectionError::InvalidText,
        Error::Io(error) => ConnectionError::from(error),
        error => ConnectionError::Protocol(error.to_string()),
    })
}
