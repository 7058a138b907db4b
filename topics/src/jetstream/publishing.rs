//! Publishes batches over the link: one task, which sends what its [`Window`] says, and answers the
//! batches in order.

use std::{collections::VecDeque, sync::Arc, time::Instant};

use async_nats::{Client, Message, StatusCode, Subscriber};
use futures_util::{FutureExt, StreamExt};
use serde::Deserialize;
use tokio::{
    sync::{mpsc, oneshot, watch},
    time::sleep_until,
};
use unstall_proto::topics::{Refusal, StoredAt};

use super::{
    api::offset,
    limits::{ANSWER_TIMEOUT, HEADER_BYTES},
    link::Link,
    message::{headers, message_id},
    subjects::Subjects,
    window::{Answer, Said, Sending, Window},
};
use crate::store::{Appended, Publication};

/// Answers that are looked at before messages are sent again.
const ANSWERS_A_TURN: usize = 1_024;

/// A message and its id.
#[derive(Debug)]
struct Outgoing {
    publication: Publication,
    id: String,
}

/// A batch that is to be published, and where its answer goes.
#[derive(Debug)]
pub(super) struct Batch {
    pub(super) publications: Vec<Publication>,
    pub(super) answer: oneshot::Sender<Vec<Appended>>,
}

/// A batch whose messages are in the window.
#[derive(Debug)]
struct Waiting {
    count: usize,
    appended: Vec<Appended>,
    answer: oneshot::Sender<Vec<Appended>>,
}

/// Where the answers of one client arrive.
struct Inbox {
    client: Client,
    subscriber: Subscriber,
    /// With the dot at its end.
    prefix: String,
}

pub(super) struct Publishing {
    subjects: Subjects,
    window: Window<Outgoing>,
    batches: VecDeque<Waiting>,
    inbox: Option<Inbox>,
    /// For messages without a publisher: sending them again must not store them twice either.
    own_id: String,
    own_number: u64,
    max_message_bytes: usize,
}

impl Publishing {
    pub(super) fn new(subjects: Subjects, own_id: String, max_message_bytes: usize) -> Publishing {
        Publishing {
            subjects,
            window: Window::new(ANSWER_TIMEOUT, Instant::now()),
            batches: VecDeque::new(),
            inbox: None,
            own_id,
            own_number: 0,
            max_message_bytes,
        }
    }

    /// Runs until the store is dropped.
    pub(super) async fn run(
        mut self,
        mut batches: mpsc::UnboundedReceiver<Batch>,
        link: Arc<Link>,
    ) {
        let mut changes = link.watch();
        drop(link);
        self.relink(&mut changes).await;
        loop {
            let wake = self.window.wake_at();
            tokio::select! {
                batch = batches.recv() => match batch {
                    Some(batch) => self.take(batch),
                    None => return,
                },
                answer = next_answer(&mut self.inbox) => self.hear_all(answer),
                _ = changes.changed() => self.relink(&mut changes).await,
                () = sleep_until(wake.unwrap_or_else(Instant::now).into()), if wake.is_some() => {}
            }
            self.window.tick(Instant::now());
            self.send().await;
            self.tell();
        }
    }

    fn take(&mut self, batch: Batch) {
        let now = Instant::now();
        self.batches.push_back(Waiting {
            count: batch.publications.len(),
            appended: Vec::with_capacity(batch.publications.len()),
            answer: batch.answer,
        });
        for publication in batch.publications {
            let id = match &publication.publisher {
                Some((publisher, number)) => message_id(publisher, *number),
                None => {
                    self.own_number += 1;
                    format!("{}-{}", self.own_id, self.own_number)
                }
            };
            let bytes = publication.payload.len() + publication.topic.as_str().len() + HEADER_BYTES;
            let outgoing = Outgoing { publication, id };
            let is_too_large = outgoing.publication.payload.len() > self.max_message_bytes;
            let answer = is_too_large.then_some(Answer::Refused(Refusal::TooLarge));
            self.window.push(outgoing, bytes, answer, now);
        }
    }

    /// The connection was lost, or there is a new one.
    async fn relink(&mut self, changes: &mut watch::Receiver<Option<Client>>) {
        let client = changes.borrow_and_update().clone();
        self.lost();
        let Some(client) = client else {
            return;
        };
        let prefix = format!("{}.", client.new_inbox());
        match client.subscribe(format!("{prefix}>")).await {
            Ok(subscriber) => {
                self.inbox = Some(Inbox {
                    client,
                    subscriber,
                    prefix,
                });
                self.window.connected(Instant::now());
            }
            // Then the connection is lost again, and the link says so.
            Err(error) => tracing::debug!(%error, "no inbox for answers"),
        }
    }

    fn lost(&mut self) {
        if self.inbox.take().is_some() {
            self.window.connection_lost(Instant::now());
        }
    }

    async fn send(&mut self) {
        while let Some(inbox) = &self.inbox {
            let now = Instant::now();
            let Some((sending, message)) = self.window.next(now) else {
                return;
            };
            let reply = format!("{}{}.{}", inbox.prefix, sending.round, sending.number);
            let Outgoing { publication, id } = message;
            let sent = inbox.client.publish_with_reply_and_headers(
                self.subjects.subject(&publication.topic),
                reply,
                headers(publication, id),
                publication.payload.clone(),
            );
            let said = match sent.await {
                Ok(()) => continue,
                Err(error) => error.kind(),
            };
            match said {
                async_nats::client::PublishErrorKind::Send => self.lost(),
                async_nats::client::PublishErrorKind::MaxPayloadExceeded => {
                    self.hear(sending, refused(Refusal::TooLarge));
                }
                async_nats::client::PublishErrorKind::InvalidSubject => {
                    self.hear(sending, refused(Refusal::InvalidTopic));
                }
            }
        }
    }

    /// Takes an answer, and others that are there already.
    fn hear_all(&mut self, first: Option<Message>) {
        self.hear_one(first);
        for _ in 0..ANSWERS_A_TURN {
            let inbox = self.inbox.as_mut();
            let Some(next) = inbox.and_then(|inbox| inbox.subscriber.next().now_or_never()) else {
                return;
            };
            self.hear_one(next);
        }
    }

    fn hear_one(&mut self, answer: Option<Message>) {
        let (Some(message), Some(inbox)) = (answer, &self.inbox) else {
            return self.lost();
        };
        if let Some(sending) = sending(&inbox.prefix, &message.subject) {
            self.hear(sending, said(&message));
        }
    }

    fn hear(&mut self, sending: Sending, said: Said) {
        self.window.heard(sending, said, Instant::now());
    }

    /// Answers the batches of which everything is known.
    fn tell(&mut self) {
        loop {
            while let Some(batch) = self.batches.front() {
                if batch.appended.len() < batch.count {
                    break;
                }
                if let Some(batch) = self.batches.pop_front() {
                    // Whoever asked may have left.
                    let _ = batch.answer.send(batch.appended);
                }
            }
            let (Some(batch), Some((_, answer))) = (self.batches.front_mut(), self.window.pop())
            else {
                return;
            };
            batch.appended.push(match answer {
                // JetStream's answer has no time.
                Answer::Stored(offset) => Appended::Stored {
                    offset,
                    time: StoredAt::UNKNOWN,
                },
                Answer::Before(offset) => Appended::Before(offset),
                Answer::Refused(refusal) => Appended::Refused(refusal),
            });
        }
    }
}

/// Waits for ever without an inbox.
async fn next_answer(inbox: &mut Option<Inbox>) -> Option<Message> {
    match inbox {
        Some(inbox) => inbox.subscriber.next().await,
        None => std::future::pending().await,
    }
}

fn refused(refusal: Refusal) -> Said {
    Said::Answer(Answer::Refused(refusal))
}

/// Which sending an answer is about: the end of its subject.
fn sending(prefix: &str, subject: &str) -> Option<Sending> {
    let (round, number) = subject.strip_prefix(prefix)?.split_once('.')?;
    Some(Sending {
        round: round.parse().ok()?,
        number: number.parse().ok()?,
    })
}

/// What an answer says.
fn said(message: &Message) -> Said {
    #[derive(Deserialize)]
    struct Ack {
        seq: Option<u64>,
        #[serde(default)]
        duplicate: bool,
        error: Option<serde_json::Value>,
    }
    if message.status == Some(StatusCode::NO_RESPONDERS) {
        return Said::NotTaken;
    }
    let Ok(ack) = serde_json::from_slice::<Ack>(&message.payload) else {
        tracing::warn!("JetStream's answer to a message is odd");
        return Said::Unclear;
    };
    if let Some(error) = ack.error {
        return said_in_error(&error);
    }
    match ack.seq {
        Some(sequence) if sequence > 0 && ack.duplicate => {
            Said::Answer(Answer::Before(Some(offset(sequence))))
        }
        Some(sequence) if sequence > 0 => Said::Answer(Answer::Stored(offset(sequence))),
        // A duplicate of a message that is being stored.
        _ => Said::Unclear,
    }
}

/// The error codes are those of nats-server's `server/errors.json`.
fn said_in_error(error: &serde_json::Value) -> Said {
    let code = error.get("err_code").and_then(serde_json::Value::as_u64);
    match code.unwrap_or(0) {
        // The message or its header exceeds a limit.
        10_054 | 10_097 => refused(Refusal::TooLarge),
        // Memory, storage, or the stream's or the account's limit is used up.
        10_002 | 10_023 | 10_028 | 10_047 | 10_122 => refused(Refusal::Full),
        // The stream cannot store: a full or broken disk.
        10_077 => refused(Refusal::Full),
        // The stream is sealed.
        10_109 => refused(Refusal::NotAllowed),
        // Too many requests; the cluster is without a leader, or this server is not the leader.
        10_167 | 10_004..=10_009 => Said::NotTaken,
        // A duplicate is being stored, or something else went wrong.
        _ => {
            tracing::debug!(%error, "JetStream did not store a message");
            Said::Unclear
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;
    use unstall_proto::topics::Offset;

    use super::*;

    fn answer(payload: &serde_json::Value) -> Said {
        said(&Message {
            subject: "inbox".into(),
            reply: None,
            payload: payload.to_string().into(),
            headers: None,
            status: None,
            description: None,
            length: 0,
        })
    }

    #[test]
    fn an_answer_names_its_sending() {
        let sent = Sending {
            round: 3,
            number: 70_000,
        };
        assert_eq!(sending("_INBOX.x.", "_INBOX.x.3.70000"), Some(sent));
        assert_eq!(sending("_INBOX.x.", "_INBOX.y.3.70000"), None);
        assert_eq!(sending("_INBOX.x.", "_INBOX.x.3"), None);
    }

    #[test]
    fn each_answer_of_jetstream_is_understood() {
        let at = |number| Offset::new(number).unwrap();
        let stored = json!({ "stream": "LOG", "seq": 5 });
        assert_eq!(answer(&stored), Said::Answer(Answer::Stored(at(5))));
        let before = json!({ "stream": "LOG", "seq": 5, "duplicate": true });
        assert_eq!(answer(&before), Said::Answer(Answer::Before(Some(at(5)))));
        let being_stored = json!({ "stream": "LOG", "seq": 0, "duplicate": true });
        assert_eq!(answer(&being_stored), Said::Unclear);
        for (code, expected) in [
            (10_054, refused(Refusal::TooLarge)),
            (10_047, refused(Refusal::Full)),
            (10_167, Said::NotTaken),
            (10_158, Said::Unclear),
        ] {
            let error = json!({ "error": { "code": 400, "err_code": code }, "stream": "LOG" });
            assert_eq!(answer(&error), expected, "{code}");
        }
    }
}
