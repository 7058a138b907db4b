//! What publishing can end with, and answers on their way to who waits for them.

use std::collections::VecDeque;

use tokio::sync::oneshot;
use unstall_proto::topics::{NameError, Offset, Refusal};

/// A message was not published, or it is not known whether it was.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PublishError {
    /// The topic is not a valid name. Nothing was sent.
    #[error("the message was not published: {0}")]
    Name(#[from] NameError),
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
            PublishError::Name(_) | PublishError::NotSent | PublishError::Refused(_) => false,
        }
    }
}

/// Those who wait for answers, in the order of the numbers of their messages.
#[derive(Debug, Default)]
pub(crate) struct Answers(VecDeque<Waiting>);

/// Who waits for the answers to messages with consecutive numbers.
#[derive(Debug)]
struct Waiting {
    left: usize,
    results: Vec<Result<Offset, PublishError>>,
    to: oneshot::Sender<Vec<Result<Offset, PublishError>>>,
}

impl Answers {
    /// Waits for the answers to the next `count` messages.
    pub(crate) fn expect(
        &mut self,
        count: usize,
    ) -> oneshot::Receiver<Vec<Result<Offset, PublishError>>> {
        let (to, results) = oneshot::channel();
        self.0.push_back(Waiting {
            left: count,
            results: Vec::with_capacity(count),
            to,
        });
        results
    }

    /// The next message has its answer.
    pub(crate) fn answer(&mut self, result: Result<Offset, PublishError>) {
        let Some(first) = self.0.front_mut() else {
            return;
        };
        first.results.push(result);
        first.left -= 1;
        if first.left == 0
            && let Some(done) = self.0.pop_front()
        {
            // Who published may be gone.
            let _ = done.to.send(done.results);
        }
    }
}
