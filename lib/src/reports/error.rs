//! Why a connection ended.

use std::{fmt, io, sync::Arc, time::Duration};

use super::ConnectError;

/// An error from the application's own code: a hook or a header provider.
pub type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// A close code (RFC 6455 §7.4).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct CloseCode(u16);

impl CloseCode {
    /// 1000: the purpose of the connection is fulfilled.
    pub const NORMAL: CloseCode = CloseCode(1000);
    /// 1001: the endpoint goes away, such as a server shutting down.
    pub const GOING_AWAY: CloseCode = CloseCode(1001);
    /// 1002: the peer broke the protocol.
    pub const PROTOCOL_ERROR: CloseCode = CloseCode(1002);
    /// 1003: a kind of data that cannot be accepted.
    pub const UNSUPPORTED_DATA: CloseCode = CloseCode(1003);
    /// 1007: a payload that contradicts its type, such as text that is not UTF-8.
    pub const INVALID_PAYLOAD: CloseCode = CloseCode(1007);
    /// 1008: against the endpoint's policy.
    pub const POLICY_VIOLATION: CloseCode = CloseCode(1008);
    /// 1009: the message is too big.
    pub const MESSAGE_TOO_BIG: CloseCode = CloseCode(1009);
    /// 1010: the server did not agree to an extension the client requires.
    pub const MANDATORY_EXTENSION: CloseCode = CloseCode(1010);
    /// 1011: the server met a condition that it cannot go on from.
    pub const INTERNAL_ERROR: CloseCode = CloseCode(1011);
    /// 1013: try again later.
    pub const TRY_AGAIN_LATER: CloseCode = CloseCode(1013);

    /// A code that may be sent: 1000 to 1003, 1007 to 1014, 3000 to 4999; else `None`.
    pub fn new(code: u16) -> Option<CloseCode> {
        matches!(code, 1000..=1003 | 1007..=1014 | 3000..=4999).then_some(CloseCode(code))
    }

    /// The number.
    pub fn as_u16(self) -> u16 {
        self.0
    }

    pub(crate) fn received(code: u16) -> CloseCode {
        CloseCode(code)
    }
}

impl fmt::Display for CloseCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// The close frame that a peer sent.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Close {
    /// Its code; `None` where the frame had none.
    pub code: Option<CloseCode>,
    /// Its reason; may be empty.
    pub reason: String,
}

impl fmt::Display for Close {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.code {
            Some(code) => write!(f, "code {code}")?,
            None => write!(f, "no code")?,
        }
        if !self.reason.is_empty() {
            write!(f, " ({})", self.reason)?;
        }
        Ok(())
    }
}

/// Why a connection ended otherwise than by a normal close.
///
/// A variant says who acted. [`is_retryable`](ConnectionError::is_retryable) says whether
/// connecting again may help; a [`Client`](crate::Client) does that by itself.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ConnectionError {
    /// The peer closed with a code other than normal.
    #[error("the peer closed the connection: {0}")]
    ClosedByPeer(Close),
    /// This side closed it, or dropped all its handles.
    #[error("the connection was closed by this side")]
    ClosedHere,
    /// Nothing came from the peer for the silence time, not even an answer to a ping.
    #[error("nothing was received from the peer for {0:?}: it or the network is gone")]
    PeerSilent(Duration),
    /// The peer took nothing for the write timeout.
    #[error("the peer took no byte for {0:?} while data waited: it does not read")]
    WriteStalled(Duration),
    /// The peer ended the TCP stream without a close frame.
    #[error("the peer ended the TCP stream without closing the WebSocket")]
    EndOfStream,
    /// The operating system reported an error of the socket.
    #[error("the socket failed: {0}")]
    Io(Arc<io::Error>),
    /// The peer broke RFC 6455.
    #[error("the peer broke the WebSocket protocol: {0}")]
    Protocol(String),
    /// The peer sent text that is not UTF-8.
    #[error("the peer sent text that is not UTF-8")]
    InvalidText,
    /// The peer sent a message over the limit.
    #[error("the peer sent a message of at least {size} bytes, over the limit of {limit}")]
    MessageTooLarge {
        /// Its size as far as known, in bytes.
        size: usize,
        /// [`Options::max_message_bytes`](crate::Options::max_message_bytes).
        limit: usize,
    },
    /// The inbox was full and [`Overflow::Disconnect`](crate::Overflow::Disconnect) is its policy.
    #[error("the application did not read and its inbox was full: disconnected by policy")]
    InboxFull,
    /// The `on_connect` hook failed.
    #[error("the on_connect hook failed: {0}")]
    Setup(String),
    /// Connecting again failed in a way that no retry can mend, or the attempts were used up.
    #[error("reconnecting failed: {0}")]
    Reconnect(Arc<ConnectError>),
    /// The server goes away and asked to be left.
    #[error("the server goes away and asked its clients to connect again")]
    GoingAway,
    /// The server refuses the session for now.
    #[error("the server refused the session for now: {why}")]
    SessionRefused {
        /// Why.
        why: SessionLoss,
        /// When the server wants to be asked again, if it said so.
        retry_after: Option<Duration>,
    },
    /// The session ended and cannot be resumed.
    #[error("the session was lost: {0}")]
    SessionLost(SessionLoss),
    /// The connection's task ended without a word: the runtime was shut down.
    #[error("the connection's task was stopped: the runtime shut down")]
    Aborted,
}

impl ConnectionError {
    /// Whether a new connection may fare better.
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
            ConnectionError::ClosedHere | ConnectionError::Aborted => false,
            ConnectionError::Reconnect(error) => error.is_retryable(),
            _ => true,
        }
    }
}

impl From<io::Error> for ConnectionError {
    fn from(error: io::Error) -> ConnectionError {
        ConnectionError::Io(Arc::new(error))
    }
}

/// Why a session cannot go on.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SessionLoss {
    /// It was without a connection for longer than its life, or the server let it go, to make room
    /// or because its application was done with it.
    #[error("it was without a connection for too long, or the other side let it go")]
    Expired,
    /// On a server: it was without a connection and had to make room for others.
    #[error("the server had to make room for other sessions")]
    Evicted,
    /// The server does not know it: it was started anew.
    #[error("the server was started anew and does not know it")]
    Unknown,
    /// It belongs to somebody else: the token or the principal does not match.
    #[error("it belongs to somebody else")]
    NotYours,
    /// A newer connection of the same session exists.
    #[error("it is in use by a newer connection")]
    Superseded,
    /// The server has no room for it.
    #[error("the server has no room for another session")]
    Full,
    /// The close was not completed by its deadline.
    #[error("the close was not completed by its deadline")]
    CloseTimedOut,
    /// The peer ended it at once.
    #[error("the peer ended it: {0}")]
    AbortedByPeer(String),
    /// The server, or the protocol, refused it.
    #[error("{0}")]
    Refused(String),
    /// The server offers no session any more.
    #[error("the server no longer offers sessions")]
    NotOffered,
    /// The server agreed to `unstall.v1` and does not speak it.
    #[error("the server agreed to unstall.v1 and does not speak it")]
    NotSpoken,
}

/// [`flush`](crate::Sender::flush) failed: the connection ended before everything was written.
#[derive(Clone, Debug, thiserror::Error)]
#[error("the connection ended before everything was written")]
#[non_exhaustive]
pub struct FlushError {
    /// Why it ended.
    #[source]
    pub reason: Arc<ConnectionError>,
}

/// [`delivered`](crate::Sender::delivered) cannot say that everything was delivered.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DeliveryError {
    /// A plain peer never says what its application took.
    #[error("the peer agreed to no session: what its application took cannot be known")]
    NotASession,
    /// The session ended first; the messages come back.
    #[error("the session ended with {messages} messages undelivered")]
    Lost {
        /// How many come back.
        messages: u64,
    },
    /// The connection has ended.
    #[error("the connection ended before everything was delivered: {0}")]
    Ended(Arc<ConnectionError>),
}
