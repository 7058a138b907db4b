//! A pull consumer of our own: ephemeral, in memory, without acknowledgements. It delivers what
//! matches its filter, in order, from a start on.

use std::{sync::Arc, time::Duration};

use async_nats::{Client, HeaderName, StatusCode, Subscriber};
use futures_util::{FutureExt, StreamExt, stream::FuturesUnordered};
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::time::{sleep, timeout};
use unstall_proto::topics::Offset;

use super::{
    api::{Api, Failure},
    limits::{
        CONSUMER_IDLE, CREATE_ATTEMPTS, CREATE_PATIENCE, FOLLOW_EXPIRES, FOLLOW_MESSAGES,
        HEARTBEAT, LATEST_BYTES, READ_AHEAD, READ_AHEAD_BYTES, READ_MESSAGES, READ_SILENCE,
    },
    message::{Place, Received, delivered},
    subjects::Subjects,
};

/// How many messages of a request did not come.
const PENDING_MESSAGES: HeaderName = HeaderName::from_static("Nats-Pending-Messages");

/// What a consumer delivers.
#[derive(Clone, Copy, Debug)]
pub(super) enum Deliver {
    /// Everything that matches, from this offset on.
    From(Offset),
    /// The latest message of each topic that matches, in the order of their offsets. What is
    /// published later follows.
    Latest,
}

/// What the server does when it has nothing more for a request.
#[derive(Clone, Copy, Debug)]
enum Wait {
    /// It says so at once.
    No,
    /// It waits for this long, and says this often that it lives.
    For {
        expires: Duration,
        heartbeat: Duration,
    },
}

/// What comes from a consumer.
#[derive(Debug)]
pub(super) enum Delivery {
    Message(Received),
    /// The server lives, and has nothing.
    Heartbeat,
    /// The last request is over, without all that it asked for.
    Over(Over),
}

/// Why a request is over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Over {
    /// Nothing more matches, or it has expired.
    Nothing,
    /// The next message is beyond its bytes.
    TooLarge,
    /// The server is not done with the request before.
    Busy,
}

/// Why a consumer cannot be used any more.
#[derive(Clone, Debug, thiserror::Error)]
pub(super) enum Broken {
    #[error("the connection to NATS is lost")]
    Lost,
    #[error("it does not answer")]
    Silent,
    #[error("the server ended it: {0}")]
    Ended(Arc<str>),
    /// Deliveries were lost on their way, for example because a subscription overflowed.
    #[error("deliveries are missing")]
    Missing,
}

#[derive(Debug)]
pub(super) struct Consumer {
    client: Client,
    subscriber: Subscriber,
    /// What is said about a request comes to this, with a dot and the request's number.
    inbox: String,
    /// The number of the last request, and how many messages it asked for.
    request: (u64, u64),
    next_subject: String,
    delete_subject: String,
    /// The delivery that comes next.
    delivery: u64,
    /// How many messages matched when it was made.
    pub(super) pending: u64,
    /// Deliveries that were asked for and have not come.
    asked: u64,
    /// If it delivers the latest messages: how many are asked for at a time at most, of any length. The
    /// server drops one of these if it is beyond the bytes of its request.
    at_once: Option<u64>,
    /// A delivery that was given back.
    given_back: Option<Received>,
    /// What a delivery takes, about.
    typical_bytes: u64,
    subjects: Subjects,
}

impl Drop for Consumer {
    fn drop(&mut self) {
        // The server removes it after a while in any case.
        let (client, subject) = (
            self.client.clone(),
            std::mem::take(&mut self.delete_subject),
        );
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            runtime.spawn(async move { client.publish(subject, "".into()).await });
        }
    }
}

impl Consumer {
    /// Makes a consumer. JetStream gives it to any server of the stream, for some seconds also to one
    /// that is dead and does not answer. So without an answer it soon asks for another one. Whatever
    /// is made and not used, the servers remove.
    pub(super) async fn create(
        api: &Api,
        subjects: &Subjects,
        filter: Option<String>,
        deliver: Deliver,
    ) -> Result<Consumer, Failure> {
        let attempt = || Consumer::create_once(api, subjects, filter.clone(), deliver);
        let mut attempts = FuturesUnordered::from_iter([attempt()]);
        let mut made = 1;
        loop {
            let another = sleep(CREATE_PATIENCE);
            tokio::select! {
                Some(consumer) = attempts.next() => match consumer {
                    Ok(consumer) => return Ok(consumer),
                    Err(failure) if attempts.is_empty() => return Err(failure),
                    Err(_) => {}
                },
                () = another, if made < CREATE_ATTEMPTS => {
                    attempts.push(attempt());
                    made += 1;
                }
            }
        }
    }

    async fn create_once(
        api: &Api,
        subjects: &Subjects,
        filter: Option<String>,
        deliver: Deliver,
    ) -> Result<Consumer, Failure> {
        #[derive(Deserialize)]
        struct Created {
            #[serde(default)]
            num_pending: u64,
        }
        let client = api.connected()?;
        let inbox = client.new_inbox();
        let subscriber = client
            .subscribe(format!("{inbox}.*"))
            .await
            .map_err(|error| Failure::Away(error.to_string().into()))?;
        // Names are unique within the stream.
        let name = format!("unstall-{:032x}", fastrand::u128(..));
        let mut config = json!({
            "name": name,
            "ack_policy": "none",
            "replay_policy": "instant",
            "inactive_threshold": CONSUMER_IDLE.as_nanos() as u64,
            "mem_storage": true,
            "num_replicas": 1,
            "max_deliver": 1,
        });
        let at_once = match deliver {
            Deliver::From(offset) => {
                config["deliver_policy"] = json!("by_start_sequence");
                config["opt_start_seq"] = json!(offset.get().max(1));
                None
            }
            Deliver::Latest => {
                config["deliver_policy"] = json!("last_per_subject");
                Some((LATEST_BYTES / client.max_payload().max(1) as u64).max(1))
            }
        };
        // Without a filter the server need not look at subjects.
        if let Some(filter) = filter {
            config["filter_subject"] = json!(filter);
        }
        let stream = &api.stream;
        let body = json!({ "stream_name": **stream, "config": config });
        let subject = format!("CONSUMER.CREATE.{stream}.{name}");
        let created: Created = api.ask(&subject, &body).await?;
        Ok(Consumer {
            client,
            subscriber,
            inbox,
            request: (0, 0),
            next_subject: format!("{}.CONSUMER.MSG.NEXT.{stream}.{name}", api.prefix),
            delete_subject: format!("{}.CONSUMER.DELETE.{stream}.{name}", api.prefix),
            delivery: 1,
            pending: created.num_pending,
            asked: 0,
            at_once,
            given_back: None,
            typical_bytes: 512,
            subjects: subjects.clone(),
        })
    }

    /// Asks for messages. `bytes` is as the server counts, with subjects and headers; 0 means any.
    async fn pull(&mut self, messages: u64, bytes: u64, wait: Wait) -> Result<(), Broken> {
        let mut request = json!({ "batch": messages });
        if bytes > 0 {
            request["max_bytes"] = json!(bytes);
        }
        match wait {
            Wait::No => request["no_wait"] = json!(true),
            Wait::For { expires, heartbeat } => {
                request["expires"] = json!(expires.as_nanos() as u64);
                request["idle_heartbeat"] = json!(heartbeat.as_nanos() as u64);
            }
        }
        let number = self.request.0 + 1;
        let reply = format!("{}.{number}", self.inbox);
        let request = Value::to_string(&request);
        let sent = self
            .client
            .publish_with_reply(self.next_subject.clone(), reply, request.into());
        sent.await.map_err(|_| Broken::Lost)?;
        self.request = (number, messages);
        self.asked += messages;
        Ok(())
    }

    /// Asks for more, so that messages come as they are published.
    pub(super) async fn keep_asking(&mut self) -> Result<(), Broken> {
        if self.asked >= FOLLOW_MESSAGES / 2 {
            return Ok(());
        }
        let wait = Wait::For {
            expires: FOLLOW_EXPIRES,
            heartbeat: HEARTBEAT,
        };
        self.pull(FOLLOW_MESSAGES - self.asked, 0, wait).await
    }

    /// The next message that is there, of at most `most` that are of use, and about `bytes`. `None` if
    /// there is none.
    pub(super) async fn bring(
        &mut self,
        most: u64,
        bytes: usize,
    ) -> Result<Option<Received>, Broken> {
        if let Some(received) = self.given_back.take() {
            return Ok(Some(received));
        }
        let bytes = bytes as u64;
        // More than this read needs, so that the server sends while the reader works.
        let guess = READ_AHEAD * (bytes / self.typical_bytes + 1);
        let mut messages = guess.min(READ_MESSAGES).min(most.max(1));
        let mut limit = (2 * bytes).max(READ_AHEAD_BYTES);
        if let Some(at_once) = self.at_once {
            (messages, limit) = (messages.min(at_once), 0);
        }
        loop {
            if self.asked == 0 {
                self.pull(messages, limit, Wait::No).await?;
            }
            match self.next(READ_SILENCE).await? {
                Delivery::Message(received) => {
                    self.typical_bytes = (7 * self.typical_bytes + received.cost()) / 8;
                    return Ok(Some(received));
                }
                Delivery::Over(Over::Nothing) => return Ok(None),
                // Alone it may have any length.
                Delivery::Over(Over::TooLarge) => (messages, limit) = (1, 0),
                Delivery::Over(Over::Busy) => sleep(Duration::from_millis(1)).await,
                Delivery::Heartbeat => {}
            }
        }
    }

    /// The next [`bring`](Self::bring) gives it again.
    pub(super) fn give_back(&mut self, received: Received) {
        self.given_back = Some(received);
    }

    /// The next delivery. It can be dropped and called again.
    pub(super) async fn next(&mut self, patience: Duration) -> Result<Delivery, Broken> {
        match timeout(patience, self.subscriber.next()).await {
            Ok(Some(message)) => self.delivery(message),
            Ok(None) => Err(Broken::Lost),
            Err(_) => Err(Broken::Silent),
        }
    }

    /// The next delivery, if it is there already.
    pub(super) fn try_next(&mut self) -> Option<Result<Delivery, Broken>> {
        match self.subscriber.next().now_or_never()? {
            Some(message) => Some(self.delivery(message)),
            None => Some(Err(Broken::Lost)),
        }
    }

    fn delivery(&mut self, message: async_nats::Message) -> Result<Delivery, Broken> {
        if let Some(status) = message.status {
            return self.said(status, &message);
        }
        let place = message.reply.as_deref().and_then(Place::of);
        let Some(place) = place.filter(|place| place.delivery == self.delivery) else {
            return Err(Broken::Missing);
        };
        self.delivery += 1;
        self.asked = self.asked.saturating_sub(1);
        Ok(Delivery::Message(delivered(&self.subjects, place, message)))
    }

    /// The server says something about a request.
    fn said(
        &mut self,
        status: StatusCode,
        message: &async_nats::Message,
    ) -> Result<Delivery, Broken> {
        let text = message.description.as_deref().unwrap_or("");
        let over = match status {
            StatusCode::IDLE_HEARTBEAT => return Ok(Delivery::Heartbeat),
            StatusCode::TIMEOUT if text.contains("Pending") => Over::Busy,
            StatusCode::NOT_FOUND | StatusCode::TIMEOUT => Over::Nothing,
            StatusCode::REQUEST_TERMINATED if text.contains("MaxBytes") => Over::TooLarge,
            // All its messages came before.
            StatusCode::REQUEST_TERMINATED if text.contains("Batch Completed") => {
                return Ok(Delivery::Heartbeat);
            }
            StatusCode::NO_RESPONDERS => return Err(Broken::Ended("it is gone".into())),
            other => return Err(Broken::Ended(format!("{other} {text}").into())),
        };
        let headers = message.headers.as_ref();
        let pending = headers.and_then(|headers| headers.get(PENDING_MESSAGES));
        let pending = pending.and_then(|pending| pending.as_str().parse::<u64>().ok());
        let (number, messages) = self.request;
        let is_last = message.subject.strip_prefix(&*self.inbox) == Some(&format!(".{number}"));
        if is_last {
            // Without the header none of its messages came.
            self.asked = self.asked.saturating_sub(pending.unwrap_or(messages));
            return Ok(Delivery::Over(over));
        }
        self.asked = self.asked.saturating_sub(pending.unwrap_or(0));
        Ok(Delivery::Heartbeat)
    }
}
