//! What publishing can end with.

use unstall_proto::{
    Kind,
    topics::{NameError, Refusal},
};

use crate::store::Publication;

/// A message was not published, or it is not known whether it was.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PublishError {
    /// The topic is not a valid name. Nothing was sent.
    #[error("the message was not published: {0}")]
    Name(#[from] NameError),
    /// Text that is not UTF-8. Nothing was sent.
    #[error("the message was not published: it is text and not UTF-8; publish it as binary")]
    InvalidText,
    /// The log refused it. Only [`Refusal::Unknown`] leaves open whether it is stored.
    #[error("the message was not published: {0}")]
    Refused(Refusal),
    /// The message is stored, once. It was published before, and its offset is no longer known.
    #[error("the message was stored before, and its offset is no longer known")]
    StoredBefore,
    /// The client ended before the message was sent to any node. It is not stored.
    #[error("the message was not published: the client ended before it was sent")]
    NotSent,
    /// The message was sent, and the client ended before an answer came. It may be stored or not.
    #[error("it is not known whether the message was published: no answer came")]
    Unknown,
}

impl PublishError {
    /// Whether the message may be stored although this is an error.
    pub fn may_be_stored(&self) -> bool {
        match self {
            PublishError::Unknown
            | PublishError::StoredBefore
            | PublishError::Refused(Refusal::Unknown) => true,
            PublishError::Name(_)
            | PublishError::InvalidText
            | PublishError::NotSent
            | PublishError::Refused(_) => false,
        }
    }
}

/// Whether a message says that it is text, and is not. Every subscriber would take it for a broken
/// protocol.
pub(crate) fn is_no_text(message: &Publication) -> bool {
    message.kind == Kind::Text && std::str::from_utf8(&message.payload).is_err()
}
