//! What publishing can end with, and answers on their way to who waits for them.

use std::collections::VecDeque;

use tokio::sync::oneshot;
use unstall_proto::{
    Kind,
    topics::{NameError, Offset, PublishError as NotTaken, Refusal},
};

use crate::{
    defaults::EXPIRED_AGAIN,
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

/// Whether a message says that it is text, and is not. Every subscriber would take it for a broken
/// protocol.
pub(crate) fn is_no_text(message: &Publication) -> bool {
    message.kind == Kind::Text && std::str::from_utf8(&message.payload).is_err()
}

impl Handle {
    /// Publishes messages in order, waits for room where there is none, and then for the answers.
    /// What was refused because the token had expired is published again with the next one.
    pub(crate) async fn publish(
        &self,
        batch: Vec<Publication>,
    ) -> Vec<Result<Offset, PublishError>> {
        if !self.shared.renews_tokens {
            return self.publish_once(batch).await;
        }
        let mut results = self.publish_once(batch.clone()).await;
        for _ in 0..EXPIRED_AGAIN {
            let expired: Vec<_> = (0..batch.len())
                .filter(|nth| matches!(results[*nth], Err(PublishError::Refused(Refusal::Expired))))
                .collect();
            if expired.is_empty() {
                break;
            }
            let again = expired.iter().map(|nth| batch[*nth].clone()).collect();
            let answers = self.publish_once(again).await;
            for (nth, answer) in expired.into_iter().zip(answers) {
                results[nth] = answer;
            }
        }
        results
    }

    async fn publish_once(&self, batch: Vec<Publication>) -> Vec<Result<Offset, PublishError>> {
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
    let full = loop {
        let Some(message) = rest.peek() else {
            break false;
        };
        let error = match accept(state, message) {
            Ok(()) => {
                taken += 1;
                None
            }
            Err(None) => break true,
            Err(error) => error,
        };
        rest.next();
        if let Some(error) = error {
            expect(state, std::mem::take(&mut taken), parts);
            parts.push(Part::Known(Err(error)));
        }
    };
    expect(state, taken, parts);
    full
}

/// Hands a message to the client. An error without a reason: there is no room.
fn accept(state: &mut State, message: &Publication) -> Result<(), Option<PublishError>> {
    if is_no_text(message) {
        return Err(Some(PublishError::InvalidText));
    }
    let (topic, payload) = (message.topic.clone(), message.payload.clone());
    let accepted = state
        .client
        .publish(topic, message.kind, message.is_final, payload);
    match accepted {
        Ok(_) => Ok(()),
        Err(NotTaken::Full) => Err(None),
        // What a node takes is known when it welcomes the client.
        Err(_) if state.client.welcome().is_none() => Err(None),
        Err(_) => Err(Some(PublishError::Refused(Refusal::TooLarge))),
    }
}

/// The answers to the last `count` messages are still to come.
fn expect(state: &mut State, count: usize, parts: &mut Vec<Part>) {
    if count > 0 {
        parts.push(Part::Coming(count, state.answers.expect(count)));
    }
}
