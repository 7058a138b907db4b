//! What publishing can end with, and answers on their way to who waits for them.

use std::collections::VecDeque;

use tokio::sync::oneshot;
use unstall_proto::topics::{NameError, Offset, PublishError as NotTaken, Refusal};

use crate::{
    keeper::{Handle, State},
    store::Publication,
};

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

/// Results of messages with consecutive numbers: known already, or still to come.
enum Part {
    Known(Result<Offset, PublishError>),
    Coming(usize, oneshot::Receiver<Vec<Result<Offset, PublishError>>>),
}

impl Handle {
    /// Publishes messages in order, waits for room where there is none, and then for the answers.
    pub(crate) async fn publish(
        &self,
        batch: Vec<Publication>,
    ) -> Vec<Result<Offset, PublishError>> {
        let total = batch.len();
        let mut parts = Vec::new();
        let mut rest = batch.into_iter().peekable();
        // Who waits for room keeps its place, and its messages stay together.
        let turn = self.shared.line.acquire().await;
        while rest.peek().is_some() && turn.is_ok() {
            let full = self.shared.with(|state, _| {
                if state.ended.is_some() {
                    rest.by_ref().for_each(drop);
                    return false;
                }
                publish_some(state, &mut rest, &mut parts)
            });
            if full {
                self.shared.room.notified().await;
            }
        }
        drop(turn);
        let mut results = Vec::with_capacity(total);
        for part in parts {
            match part {
                Part::Known(result) => results.push(result),
                Part::Coming(count, answers) => match answers.await {
                    Ok(answers) => results.extend(answers),
                    Err(_) => results.extend((0..count).map(|_| Err(PublishError::Unknown))),
                },
            }
        }
        // The client has ended before these were sent.
        results.resize_with(total, || Err(PublishError::NotSent));
        results
    }
}

/// Publishes as many messages as there is room for. `true`: there is no more room.
fn publish_some(
    state: &mut State,
    rest: &mut std::iter::Peekable<std::vec::IntoIter<Publication>>,
    parts: &mut Vec<Part>,
) -> bool {
    let mut taken = 0;
    let mut full = false;
    while let Some(message) = rest.peek() {
        let Publication {
            topic,
            kind,
            is_final,
            payload,
            ..
        } = message;
        let topic = topic.clone();
        match state
            .client
            .publish(topic, *kind, *is_final, payload.clone())
        {
            Ok(_) => taken += 1,
            Err(NotTaken::Full) => {
                full = true;
                break;
            }
            Err(_) => {
                if taken > 0 {
                    parts.push(Part::Coming(taken, state.answers.expect(taken)));
                    taken = 0;
                }
                parts.push(Part::Known(Err(PublishError::Refused(Refusal::TooLarge))));
            }
        }
        rest.next();
    }
    if taken > 0 {
        parts.push(Part::Coming(taken, state.answers.expect(taken)));
    }
    full
}
