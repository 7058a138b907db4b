//! Why a connection ended.

use std::{error::Error, fmt, io, sync::Arc, time::Duration};

use super::{Brief, Close, CloseCode, ConnectError};

/// An error of the application's code: of a hook, or of a function that makes headers.
pub type BoxError = Box<dyn Error + Send + Sync>;

/// Why a connection ended, other than by a normal close.
///
/// Each variant says who acted. [`is_retryable`](ConnectionError::is_retryable) says whether
/// connecting again may help; a [`Client`](crate::Client) then does so on its own. The underlying
/// cause, such as the operating system's error, is the [`source`](std::error::Error::source) and
/// not a part of the text.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum ConnectionError {
    /// The peer closed the connection with a code other than 1000 (normal).
    ClosedByPeer(Close),
    /// This side closed the connection, or dropped all of its handles.
    ClosedHere,
    /// Nothing was received from the peer for the silence timeout, not even an answer to a ping.
    PeerSilent(Duration),
    /// The peer read nothing for the write timeout.
    WriteStalled(Duration),
    /// The connection broke while the inbox was full, and the application received nothing for the
    /// silence timeout after that. What the peer had sent beyond the inbox is lost.
    NotReceived(Duration),
    /// The peer ended the TCP connection without a close frame.
    EndOfStream,
    /// The operating system reported an error of the socket.
    Io(Arc<io::Error>),
    /// The peer violated RFC 6455.
    Protocol(String),
    /// The peer sent a text message that is not UTF-8.
    InvalidText,
    /// A message was larger than
    /// [`Options::max_message_bytes`](crate::Options::max_message_bytes).
    MessageTooLarge {
        /// Its size in bytes, as far as it is known.
        size: usize,
        /// The limit in bytes.
        limit: usize,
    },
    /// The inbox was full, and its policy is [`Overflow::Disconnect`](crate::Overflow::Disconnect).
    InboxFull,
    /// A [`Budget`](crate::Budget) was used up, and this connection held the most bytes of
    /// incomplete messages. The peer was told with code 1013.
    Evicted {
        /// The bytes that were held for this connection.
        held: usize,
    },
    /// The `on_connect` hook failed.
    Setup(Arc<dyn Error + Send + Sync>),
    /// Connecting again failed with an error that is not retryable, or all attempts failed.
    Reconnect(Arc<ConnectError>),
    /// The server is shutting down and asked its clients to connect again.
    GoingAway,
    /// The server refused the session, but may accept it later.
    SessionRefused {
        /// Why.
        why: SessionLoss,
        /// How long the server asks to wait, if it did. At most
        /// [`RETRY_AFTER_MAX`](crate::defaults::RETRY_AFTER_MAX).
        retry_after: Option<Duration>,
    },
    /// The server agreed to `unstall.v1` but did not answer HELLO within the connect timeout. It
    /// may be overloaded. A client that connects again asks for a session again.
    HelloUnanswered(Duration),
    /// The session ended and cannot be resumed.
    SessionLost(SessionLoss),
    /// The connection closed normally, but messages that were accepted were not delivered.
    /// [`Sender::close`](crate::Sender::close) and [`Sender::ended`](crate::Sender::ended) give them
    /// back.
    Undelivered {
        /// How many.
        messages: u64,
    },
    /// The connection's task was stopped from outside: the runtime was shut down.
    Aborted,
}

impl fmt::Display for ConnectionError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        use ConnectionError::*;
        match self {
            ClosedByPeer(close) => write!(f, "the peer closed the connection: {close}"),
            ClosedHere => f.write_str("this side closed the connection"),
            PeerSilent(time) => write!(
                f,
                "nothing was received from the peer for {time:?}: the peer or the network has failed"
            ),
            WriteStalled(time) => {
                write!(f, "the peer read nothing for {time:?} while data waited for it")
            }
            NotReceived(time) => write!(
                f,
                "the connection broke, and the application received nothing for {time:?} while the inbox was full: \
                 the peer's last messages may be lost; receive in time, or raise the silence timeout"
            ),
            EndOfStream => {
                f.write_str("the peer ended the TCP connection without closing the WebSocket")
            }
            Io(_) => f.write_str("the socket failed"),
            Protocol(why) => {
                write!(
                    f,
                    "the peer violated the WebSocket protocol: {}",
                    Brief(why)
                )
            }
            InvalidText => f.write_str("the peer sent a text message that is not UTF-8"),
            MessageTooLarge { size, limit } => write!(
                f,
                "a message of at least {size} bytes is larger than the limit of {limit} bytes"
            ),
            InboxFull => f.write_str(
                "the inbox was full, and its overflow policy is to disconnect: receive faster, or choose another policy",
            ),
            Evicted { held } => write!(
                f,
                "the memory budget was used up, and this connection held the most of it ({held} bytes): try again later, or raise the budget"
            ),
            Setup(_) => f.write_str("the on_connect hook failed"),
            Reconnect(_) => f.write_str("connecting again failed"),
            GoingAway => f.write_str("the server is shutting down and asked its clients to connect again"),
            SessionRefused { why, .. } => {
                write!(f, "the server refused the session for now: {why}")
            }
            HelloUnanswered(time) => write!(
                f,
                "the server agreed to a session but did not answer HELLO within {time:?}"
            ),
            SessionLost(why) => write!(f, "the session was lost: {why}"),
            Undelivered { messages } => write!(
                f,
                "the connection closed before {messages} accepted messages were delivered"
            ),
            Aborted => f.write_str("the connection's task was stopped: the runtime was shut down"),
        }
    }
}

impl Error for ConnectionError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match self {
            // The inner error, not the `Arc`, so that a caller can downcast it.
            ConnectionError::Io(error) => Some(&**error),
            ConnectionError::Setup(error) => Some(&**error),
            ConnectionError::Reconnect(error) => Some(&**error),
            _ => None,
        }
    }
}

impl ConnectionError {
    /// Whether connecting again may succeed, with nothing changed.
    ///
    /// False if the peer closed with 1003, 1008 or 1010, if this side closed, if the runtime was
    /// shut down, or if connecting again failed for good.
    pub fn is_retryable(&self) -> bool {
        match self {
            ConnectionError::ClosedByPeer(close) => !matches!(
                close.code,
                Some(
                    CloseCode::UNSUPPORTED_DATA
                        | CloseCode::POLICY_VIOLATION
                        | CloseCode::MANDATORY_EXTENSION
                )
            ),
            ConnectionError::Reconnect(error) => error.is_retryable(),
            ConnectionError::ClosedHere
            | ConnectionError::Undelivered { .. }
            | ConnectionError::Aborted => false,
            // A hook may fail because a server is down for a moment. The next time the inbox may be
            // read in time.
            ConnectionError::Setup(_) | ConnectionError::InboxFull => true,
            ConnectionError::PeerSilent(_)
            | ConnectionError::WriteStalled(_)
            | ConnectionError::NotReceived(_)
            | ConnectionError::EndOfStream
            | ConnectionError::Io(_)
            | ConnectionError::Protocol(_)
            | ConnectionError::InvalidText
            | ConnectionError::MessageTooLarge { .. }
            | ConnectionError::GoingAway
            | ConnectionError::Evicted { .. }
            | ConnectionError::HelloUnanswered(_)
            | ConnectionError::SessionRefused { .. }
            | ConnectionError::SessionLost(_) => true,
        }
    }
}

impl From<io::Error> for ConnectionError {
    fn from(error: io::Error) -> ConnectionError {
        ConnectionError::Io(Arc::new(error))
    }
}

/// Why a session ended, or was refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SessionLoss {
    /// The session was without a connection for longer than its life, or the server ended it.
    #[error("it was without a connection for too long, or the other side ended it")]
    Expired,
    /// The server ended the session to make room for others. It had been without a connection for
    /// longest, or held the most memory.
    #[error("the server ended it to make room for other sessions")]
    Evicted,
    /// The server does not know the session, because it was restarted.
    #[error("the server was restarted and does not know it")]
    Unknown,
    /// The token or the principal does not match the session's.
    #[error("it belongs to another client")]
    NotYours,
    /// A newer connection of the same session exists.
    #[error("it is in use by a newer connection")]
    Superseded,
    /// The server has no room for the session.
    #[error("the server has no room for another session")]
    Full,
    /// The close was not completed by its deadline.
    #[error("the close was not completed by its deadline")]
    CloseTimedOut,
    /// The peer aborted the session. The text is the peer's reason, as it was sent. Use
    /// [`printable`](crate::printable) to print it.
    #[error("the peer aborted it: {}", Brief(.0))]
    AbortedByPeer(String),
    /// The server or the protocol refused the session.
    #[error("{}", Brief(.0))]
    Refused(String),
    /// The server no longer offers sessions.
    #[error("the server no longer offers sessions")]
    NotOffered,
    /// The server agreed to `unstall.v1` but does not speak it.
    #[error("the server agreed to unstall.v1 but does not speak it")]
    NotSpoken,
}

/// [`flush`](crate::Sender::flush) failed: the connection ended before everything was written.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct FlushError {
    /// Why it ended.
    pub reason: Arc<ConnectionError>,
}

impl fmt::Display for FlushError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the connection ended before everything was written")
    }
}

impl Error for FlushError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        Some(&*self.reason)
    }
}

/// [`delivered`](crate::Sender::delivered) failed: it is not known whether everything was
/// delivered.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum DeliveryError {
    /// The connection is plain. A plain peer does not report what its application received.
    NotASession,
    /// The session ended first. Its undelivered messages come back.
    Lost {
        /// How many come back.
        messages: u64,
    },
    /// The connection ended first.
    Ended(Arc<ConnectionError>),
}

impl fmt::Display for DeliveryError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            DeliveryError::NotASession => f.write_str(
                "the connection is plain, so it is not known what the peer's application received: use a session",
            ),
            DeliveryError::Lost { messages } => {
                write!(f, "the session ended with {messages} messages undelivered")
            }
            DeliveryError::Ended(_) => {
                f.write_str("the connection ended before everything was delivered")
            }
        }
    }
}

impl Error for DeliveryError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match self {
            DeliveryError::Ended(why) => Some(&**why),
            DeliveryError::NotASession | DeliveryError::Lost { .. } => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused() -> io::Error {
        io::Error::from(io::ErrorKind::ConnectionRefused)
    }

    fn ended() -> Arc<ConnectionError> {
        Arc::new(ConnectionError::Io(Arc::new(refused())))
    }

    /// Once a cause was in the text and was the source as well, or was neither.
    #[test]
    fn cause_is_told_once_as_the_source() {
        let tcp = ConnectError::Tcp {
            to: "h:1".into(),
            source: refused(),
        };
        let dns = ConnectError::Dns {
            host: "h".into(),
            source: refused(),
        };
        let tls = ConnectError::Tls {
            host: "h".into(),
            source: refused(),
        };
        let interrupted = ConnectError::Interrupted {
            host: "h".into(),
            source: refused().into(),
        };
        let errors: [Box<dyn Error>; 9] = [
            Box::new(tcp),
            Box::new(dns),
            Box::new(tls),
            Box::new(interrupted),
            Box::new(ConnectError::HeaderFunction(refused().into())),
            Box::new(ConnectionError::Setup(Arc::new(refused()))),
            Box::new(ConnectionError::Io(Arc::new(refused()))),
            Box::new(FlushError { reason: ended() }),
            Box::new(DeliveryError::Ended(ended())),
        ];
        for error in errors {
            let mut told = vec![error.to_string()];
            let mut next = error.source();
            while let Some(cause) = next {
                told.push(cause.to_string());
                next = cause.source();
            }
            let whole = told.join(": ");
            let cause = refused().to_string();
            assert_eq!(whole.matches(&cause).count(), 1, "{whole}");
            assert_eq!(told.last(), Some(&cause), "{whole}");
        }
    }

    #[test]
    fn failed_reconnect_says_why() {
        let why = ConnectError::Tcp {
            to: "h:1".into(),
            source: refused(),
        };
        let error = ConnectionError::Reconnect(Arc::new(why));
        let cause = error.source().expect("a source");
        assert!(
            cause
                .downcast_ref::<ConnectError>()
                .is_some_and(ConnectError::is_retryable)
        );
    }
}
