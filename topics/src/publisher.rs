//! Publishing by a client: room for messages, and their answers.

use tokio::sync::oneshot;
use unstall_proto::topics::{Offset, PublishError as NotTaken, Refusal};

use crate::{
    defaults::EXPIRED_AGAIN,
    keeper::{Handle, State},
    publish_error::{PublishError, is_no_text},
    store::Publication,
};

/// Results of messages with consecutive numbers: known already, or still to come.
enum Part {
    Known(Result<Offset, PublishError>),
    Coming(usize, oneshot::Receiver<Vec<Result<Offset, PublishError>>>),
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
