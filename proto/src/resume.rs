//! The resume exchange: the name of a session, what proves the right to it, and the positions of
//! both sides (SPEC.md, "Resume").

use std::fmt;
use std::num::NonZeroU64;
use std::time::Duration;

use bytes::{BufMut, BytesMut};
use subtle::ConstantTimeEq;

use crate::error::ProtocolError;
use crate::limits::{MAX_MAX_MESSAGE, MAX_RETRY_AFTER, MIN_MAX_MESSAGE};
use crate::number::{Generation, Offset, Seq};
use crate::wire::{Fields, kind};

/// The name of a session: 16 random bytes, drawn by the client. It is not a secret.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[expect(clippy::exhaustive_structs, reason = "it is bytes of the wire")]
pub struct SessionId(pub [u8; 16]);

/// The secret that proves the right to a session: 16 bytes from a cryptographic generator.
///
/// It never belongs in a URL or a log; `Debug` does not show it.
#[derive(Clone, Copy)]
#[expect(clippy::exhaustive_structs, reason = "it is bytes of the wire")]
pub struct Token(pub [u8; 16]);

impl Token {
    /// Compares in a time that does not depend on the bytes.
    fn matches(&self, other: &Token) -> bool {
        self.0.ct_eq(&other.0).into()
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token(…)")
    }
}

impl PartialEq for Token {
    fn eq(&self, other: &Token) -> bool {
        self.matches(other)
    }
}

impl Eq for Token {}

/// One life of a server process: a random number, drawn at its start. A client that names another
/// epoch had its session with an earlier process.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[expect(clippy::exhaustive_structs, reason = "it is a number of the wire")]
pub struct Epoch(pub NonZeroU64);

/// The client's first packet on each connection. It opens a session or resumes it.
///
/// Version 1 of the protocol has these fields for ever, so none is ever added here.
#[derive(Clone, Debug, PartialEq, Eq)]
#[expect(
    clippy::exhaustive_structs,
    reason = "version 1 has these fields for ever"
)]
pub struct Hello {
    /// The session.
    pub id: SessionId,
    /// What proves the right to the session.
    pub token: Token,
    /// The server's epoch as WELCOME gave it. `None` before the first WELCOME.
    pub epoch: Option<Epoch>,
    /// The number of this connection.
    pub generation: Generation,
    /// The last record that the client received.
    pub received: Seq,
    /// The last record that the client acknowledges.
    pub acked: Seq,
    /// The offset up to which the server may send.
    pub credit: Offset,
    /// The largest message that the client accepts, in bytes. The first exchange fixes it.
    pub max_message: u64,
}

impl Hello {
    pub(crate) fn decode(fields: &mut Fields<'_>) -> Result<Hello, ProtocolError> {
        let hello = Hello {
            id: SessionId(fields.array()?),
            token: Token(fields.array()?),
            epoch: NonZeroU64::new(fields.u64()?).map(Epoch),
            generation: decode_generation(fields)?,
            received: Seq::new(fields.u64()?),
            acked: Seq::new(fields.u64()?),
            credit: Offset::new(fields.u64()?),
            max_message: decode_max_message(fields)?,
        };
        Ok(hello)
    }

    pub(crate) fn encode(&self, buf: &mut BytesMut) {
        buf.put_u8(kind::HELLO);
        buf.put_slice(&self.id.0);
        buf.put_slice(&self.token.0);
        buf.put_u64(self.epoch.map_or(0, |epoch| epoch.0.get()));
        buf.put_u64(self.generation.get());
        buf.put_u64(self.received.get());
        buf.put_u64(self.acked.get());
        buf.put_u64(self.credit.get());
        buf.put_u64(self.max_message);
    }
}

/// The server's answer to HELLO when it accepts.
///
/// Version 1 of the protocol has these fields for ever, so none is ever added here.
#[derive(Clone, Debug, PartialEq, Eq)]
#[expect(
    clippy::exhaustive_structs,
    reason = "version 1 has these fields for ever"
)]
pub struct Welcome {
    /// The token for the next resume.
    pub token: Token,
    /// The server's epoch.
    pub epoch: Epoch,
    /// The number of this connection, as HELLO gave it.
    pub generation: Generation,
    /// The last record that the server received.
    pub received: Seq,
    /// The last record that the server acknowledges.
    pub acked: Seq,
    /// The offset up to which the client may send.
    pub credit: Offset,
    /// The largest message that the server accepts, in bytes.
    pub max_message: u64,
    /// How long the server keeps the session without a connection, in milliseconds.
    pub life_millis: u64,
}

impl Welcome {
    pub(crate) fn decode(fields: &mut Fields<'_>) -> Result<Welcome, ProtocolError> {
        let token = Token(fields.array()?);
        let Some(epoch) = NonZeroU64::new(fields.u64()?) else {
            return Err(ProtocolError::Malformed("the epoch 0"));
        };
        Ok(Welcome {
            token,
            epoch: Epoch(epoch),
            generation: decode_generation(fields)?,
            received: Seq::new(fields.u64()?),
            acked: Seq::new(fields.u64()?),
            credit: Offset::new(fields.u64()?),
            max_message: decode_max_message(fields)?,
            life_millis: fields.millis()?,
        })
    }

    pub(crate) fn encode(&self, buf: &mut BytesMut) {
        buf.put_u8(kind::WELCOME);
        buf.put_slice(&self.token.0);
        buf.put_u64(self.epoch.0.get());
        buf.put_u64(self.generation.get());
        buf.put_u64(self.received.get());
        buf.put_u64(self.acked.get());
        buf.put_u64(self.credit.get());
        buf.put_u64(self.max_message);
        buf.put_u64(self.life_millis);
    }
}

fn decode_generation(fields: &mut Fields<'_>) -> Result<Generation, ProtocolError> {
    match fields.u64()? {
        0 => Err(ProtocolError::Malformed("the generation 0")),
        generation => Ok(Generation::new(generation)),
    }
}

fn decode_max_message(fields: &mut Fields<'_>) -> Result<u64, ProtocolError> {
    match fields.u64()? {
        bytes @ MIN_MAX_MESSAGE..=MAX_MAX_MESSAGE => Ok(bytes),
        _ => Err(ProtocolError::Malformed(
            "a largest message out of its range",
        )),
    }
}

/// Why the server rejects HELLO.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
#[non_exhaustive]
pub enum Rejection {
    /// The session was without a connection for too long, or it was ended.
    #[error("the session has expired or was ended")]
    Expired,
    /// The server never knew the session: it restarted, or it is another server.
    #[error("the server does not know the session: it restarted, or it is another server")]
    Unknown,
    /// The token is not that of the session.
    #[error("the token is not that of the session")]
    NotYours,
    /// The session has a newer connection.
    #[error("the session has a newer connection")]
    Superseded,
    /// The server has no room for another session. Connect again later.
    #[error("the server is full")]
    Full {
        /// When to try again, in milliseconds, as the server says; 0 leaves it to the client.
        /// A client waits for [`Rejection::retry_after`], which is cut.
        retry_after_millis: u64,
    },
    /// The positions of the two sides do not fit: one of them has lost its state.
    #[error("the positions of the two sides do not fit")]
    Inconsistent,
    /// A reason that this version does not know.
    #[error("rejected for a reason that this version does not know: {0}")]
    Other(u8),
}

impl Rejection {
    /// Whether connecting again may bring the session back.
    pub fn is_retryable(&self) -> bool {
        matches!(self, Rejection::Full { .. })
    }

    /// How long to wait before connecting again, if the server says so; at most
    /// [`MAX_RETRY_AFTER`].
    pub fn retry_after(&self) -> Option<Duration> {
        match self {
            Rejection::Full {
                retry_after_millis: millis @ 1..,
            } => Some(Duration::from_millis(*millis).min(MAX_RETRY_AFTER)),
            _ => None,
        }
    }

    pub(crate) fn decode(fields: &mut Fields<'_>) -> Result<Rejection, ProtocolError> {
        let reason = fields.u8()?;
        let retry_after_millis = fields.millis()?;
        Ok(match reason {
            1 => Rejection::Expired,
            2 => Rejection::Unknown,
            3 => Rejection::NotYours,
            4 => Rejection::Superseded,
            5 => Rejection::Full { retry_after_millis },
            6 => Rejection::Inconsistent,
            other => Rejection::Other(other),
        })
    }

    pub(crate) fn encode(self, buf: &mut BytesMut) {
        let (reason, retry_after_millis) = match self {
            Rejection::Expired => (1, 0),
            Rejection::Unknown => (2, 0),
            Rejection::NotYours => (3, 0),
            Rejection::Superseded => (4, 0),
            Rejection::Full { retry_after_millis } => (5, retry_after_millis),
            Rejection::Inconsistent => (6, 0),
            Rejection::Other(other) => (other, 0),
        };
        buf.put_u8(kind::REJECT);
        buf.put_u8(reason);
        buf.put_u64(retry_after_millis);
    }
}

/// The tokens that a server accepts: the one that the client has for certain, and the one that it
/// was offered last and may have.
#[derive(Clone, Debug)]
pub(crate) struct Tokens {
    confirmed: Token,
    offered: Option<Token>,
}

impl Tokens {
    pub(crate) fn new(confirmed: Token) -> Tokens {
        Tokens {
            confirmed,
            offered: None,
        }
    }

    /// The token to resume with, or the one that WELCOME offers.
    pub(crate) fn latest(&self) -> Token {
        self.offered.unwrap_or(self.confirmed)
    }

    /// The token that the client has for certain.
    pub(crate) fn confirmed(&self) -> Token {
        self.confirmed
    }

    /// Whether `token` proves the right to the session. Both comparisons are always made.
    pub(crate) fn allows(&self, token: &Token) -> bool {
        let confirmed = self.confirmed.matches(token);
        let offered = self
            .offered
            .as_ref()
            .unwrap_or(&self.confirmed)
            .matches(token);
        confirmed | offered
    }

    /// A client came with the allowed `token` and is offered `next`. So it has `token`, and an
    /// offer other than that never reached it.
    pub(crate) fn rotate(&mut self, token: Token, next: Token) {
        self.confirmed = token;
        self.offered = Some(next);
    }

    /// The client has the offered token: it sent a packet after WELCOME.
    pub(crate) fn confirm(&mut self) {
        if let Some(offered) = self.offered.take() {
            self.confirmed = offered;
        }
    }

    /// The client's side: WELCOME brought the next token.
    pub(crate) fn replace(&mut self, token: Token) {
        *self = Tokens::new(token);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: Token = Token([1; 16]);
    const B: Token = Token([2; 16]);
    const C: Token = Token([3; 16]);

    #[test]
    fn the_previous_token_is_valid_until_the_next_is_confirmed() {
        let mut tokens = Tokens::new(A);
        tokens.rotate(A, B);
        assert!(tokens.allows(&A) && tokens.allows(&B) && !tokens.allows(&C));
        tokens.confirm();
        assert!(!tokens.allows(&A) && tokens.allows(&B));
    }

    #[test]
    fn coming_with_the_offered_token_confirms_it() {
        let mut tokens = Tokens::new(A);
        tokens.rotate(A, B);
        tokens.rotate(B, C);
        assert!(!tokens.allows(&A) && tokens.allows(&B) && tokens.allows(&C));
    }

    #[test]
    fn an_offer_that_was_lost_is_withdrawn_when_the_client_comes_with_the_older_one() {
        let mut tokens = Tokens::new(A);
        tokens.rotate(A, B);
        tokens.rotate(A, C);
        assert!(tokens.allows(&A) && !tokens.allows(&B) && tokens.allows(&C));
    }

    #[test]
    fn a_token_is_not_shown() {
        assert_eq!(format!("{:?}", A), "Token(…)");
    }
}
