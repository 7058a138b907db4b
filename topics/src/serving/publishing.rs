//! Published messages on their way to the log, and their answers.

use futures_util::future::BoxFuture;
use unstall_proto::topics::{Outcome, PublishRequest, Refusal};

use super::{Answer, Serving};
use crate::{
    appender::may_come_again,
    log::{Log, offset},
    message::copied,
    spans,
    store::{Appended, Publication},
};

impl Serving {
    pub(super) fn publish(&mut self, messages: Vec<PublishRequest>) {
        let mut numbers = Vec::with_capacity(messages.len());
        let mut batch = Vec::with_capacity(messages.len());
        let publisher = self.publisher;
        for message in messages {
            let permit = self.permit.as_ref();
            let permit = permit.filter(|permit| permit.may_publish(&message.topic));
            // `Some(None)` if it publishes without an id.
            let publisher = permit.and_then(|permit| match publisher {
                Some(publisher) => permit.publisher(publisher).map(Some),
                None => Some(None),
            });
            let Some(publisher) = publisher else {
                let refused = Outcome::refused(Refusal::NotAllowed);
                self.server.published(message.number, refused);
                continue;
            };
            numbers.push(message.number);
            let payload = copied(message.payload);
            let mut publication = Publication::new(message.topic, message.kind, payload);
            publication.is_final = message.is_final;
            publication.publisher = publisher.map(|publisher| (publisher, message.number));
            batch.push(publication);
        }
        if !batch.is_empty() {
            let halt = self.halt.get_or_insert_default().clone();
            self.batches.push_back((numbers, batch, halt));
            self.submit();
        }
    }

    /// Queues the next batch, if the one before it is queued.
    pub(super) fn submit(&mut self) {
        if self.is_submitting {
            return;
        }
        let Some((numbers, batch, halt)) = self.batches.pop_front() else {
            return;
        };
        self.is_submitting = true;
        let log: Log = self.node.log.clone();
        let span = spans::arrived(&batch);
        self.asked.push(Box::pin(async move {
            let answer = log.submit(batch, halt).await;
            Answer::Submitted(Box::pin(async move {
                let outcomes = answer.outcome().await;
                spans::answered(&span, outcomes.iter().copied().map(offset));
                Answer::Appended(numbers, outcomes)
            }))
        }));
    }

    /// A batch is queued, so the next one may be.
    pub(super) fn submitted(&mut self, appended: BoxFuture<'static, Answer>) {
        self.asked.push(appended);
        self.is_submitting = false;
        self.submit();
    }

    /// Tells the client what happened to its messages.
    pub(super) fn appended(&mut self, numbers: Vec<u64>, outcomes: Vec<Appended>) {
        // From now on the server value itself keeps what the client sends too early.
        if outcomes.iter().any(may_come_again) {
            self.halt = None;
        }
        for (number, outcome) in numbers.into_iter().zip(outcomes) {
            self.server.published(number, told(outcome));
        }
    }
}

/// What a client is told of a message.
fn told(appended: Appended) -> Outcome {
    match appended {
        Appended::Stored { offset, .. } => Outcome::Stored(Some(offset)),
        Appended::Before(offset) => Outcome::Stored(offset),
        Appended::Refused(refusal) => Outcome::refused(refusal),
    }
}
