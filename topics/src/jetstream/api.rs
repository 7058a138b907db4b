//! Questions to JetStream, and its answers.

use std::sync::Arc;

use async_nats::{Client, RequestErrorKind, client::Request};
use base64::{Engine, prelude::BASE64_STANDARD};
use bytes::Bytes;
use serde::{Deserialize, de::DeserializeOwned};
use serde_json::{Map, Value, json};
use time::{OffsetDateTime, format_description::well_known::Rfc3339};
use unstall_proto::topics::{Offset, StoredAt};

use super::{
    limits::QUESTION_TIMEOUT,
    link::{Link, not_connected},
};
use crate::store::{Bounds, StoreError};

/// No message is found.
const NO_MESSAGE: u64 = 10_037;
/// No such stream.
pub(super) const NO_STREAM: u64 = 10_059;
/// There is a stream of this name, with other settings.
pub(super) const STREAM_EXISTS: u64 = 10_058;

/// The `max_bytes` of all streams on disk would be more than the servers may have.
pub(super) const NO_DISK: u64 = 10_047;
/// The same of streams in memory.
pub(super) const NO_MEMORY: u64 = 10_028;

/// Asks JetStream about one stream.
#[derive(Debug)]
pub(super) struct Api {
    pub(super) link: Arc<Link>,
    pub(super) stream: Box<str>,
    /// `$JS.API`, or that of a domain.
    pub(super) prefix: Box<str>,
}

/// Why there is no answer.
#[derive(Clone, Debug, thiserror::Error)]
pub(super) enum Failure {
    #[error("{0}")]
    Away(Arc<str>),
    #[error("JetStream refused: {text} ({code})")]
    Refused { code: u64, text: Arc<str> },
}

impl From<Failure> for StoreError {
    fn from(failure: Failure) -> StoreError {
        StoreError::Unavailable(failure.to_string().into())
    }
}

/// The stream, as its leader knows it.
#[derive(Clone, Debug, Deserialize)]
pub(super) struct Info {
    pub(super) config: Map<String, Value>,
    /// When the stream was made. Another stream of the same name differs in it.
    pub(super) created: String,
    state: State,
}

#[derive(Clone, Debug, Deserialize)]
struct State {
    messages: u64,
    first_seq: u64,
    last_seq: u64,
    last_ts: String,
}

impl Info {
    pub(super) fn bounds(&self) -> Bounds {
        let last = offset(self.state.last_seq);
        // Without messages the servers differ in what they call the first.
        let first = match self.state.messages {
            0 => last.checked_add(1).unwrap_or(Offset::MAX),
            _ => offset(self.state.first_seq),
        };
        // A stream that never had a message says the year 1.
        let last_time = match last {
            Offset::START => StoredAt::UNKNOWN,
            _ => nanos(&self.state.last_ts).map_or(StoredAt::UNKNOWN, stored_at),
        };
        Bounds::new(first, last, last_time)
    }
}

/// A message as the leader has it.
#[derive(Debug)]
pub(super) struct Found {
    pub(super) subject: String,
    pub(super) sequence: u64,
    pub(super) time: StoredAt,
    /// The block of headers, as on the wire.
    pub(super) headers: Vec<u8>,
    pub(super) payload: Bytes,
}

/// What message to get.
#[derive(Clone, Copy, Debug)]
pub(super) enum Get<'a> {
    /// The one with this sequence.
    At(u64),
    /// The first with a matching subject, from this sequence on.
    Next { from: u64, subject: &'a str },
}

impl Api {
    pub(super) fn connected(&self) -> Result<Client, Failure> {
        self.link
            .connected()
            .ok_or_else(|| Failure::Away(not_connected()))
    }

    /// Asks a question under the prefix, and reads the answer.
    pub(super) async fn ask<T: DeserializeOwned>(
        &self,
        subject: &str,
        body: &Value,
    ) -> Result<T, Failure> {
        let client = self.connected()?;
        let request = Request::new()
            .payload(body.to_string().into())
            .timeout(Some(QUESTION_TIMEOUT));
        let away = |why: String| Failure::Away(why.into());
        let answer = client
            .send_request(format!("{}.{subject}", self.prefix), request)
            .await
            .map_err(|error| match error.kind() {
                RequestErrorKind::NoResponders => away(
                    "JetStream is not running at the servers of NATS, or not in this account"
                        .into(),
                ),
                RequestErrorKind::TimedOut => away(format!(
                    "JetStream did not answer within {} s; the stream {} may have no leader",
                    QUESTION_TIMEOUT.as_secs(),
                    self.stream
                )),
                _ => away(format!("the request to NATS failed: {error}")),
            })?;
        let odd = |error: serde_json::Error| away(format!("JetStream's answer is odd: {error}"));
        let value: Value = serde_json::from_slice(&answer.payload).map_err(odd)?;
        if let Some(error) = value.get("error") {
            return Err(refused(error));
        }
        serde_json::from_value(value).map_err(odd)
    }

    pub(super) async fn info(&self) -> Result<Info, Failure> {
        self.ask(&format!("STREAM.INFO.{}", self.stream), &Value::Null)
            .await
    }

    pub(super) async fn create(&self, config: &Value) -> Result<Info, Failure> {
        self.ask(&format!("STREAM.CREATE.{}", self.stream), config)
            .await
    }

    /// Gets a message from the leader. `None` if it has no such message.
    pub(super) async fn get(&self, get: Get<'_>) -> Result<Option<Found>, Failure> {
        #[derive(Deserialize)]
        struct Answer {
            message: Message,
        }
        #[derive(Deserialize)]
        struct Message {
            subject: String,
            seq: u64,
            time: String,
            #[serde(default)]
            hdrs: String,
            #[serde(default)]
            data: String,
        }
        let body = match get {
            Get::At(sequence) => json!({ "seq": sequence }),
            Get::Next { from, subject } => json!({ "seq": from, "next_by_subj": subject }),
        };
        let subject = format!("STREAM.MSG.GET.{}", self.stream);
        let message = match self.ask::<Answer>(&subject, &body).await {
            Ok(answer) => answer.message,
            Err(Failure::Refused {
                code: NO_MESSAGE, ..
            }) => return Ok(None),
            Err(failure) => return Err(failure),
        };
        let decode = |text: &str| {
            BASE64_STANDARD.decode(text).map_err(|error| {
                Failure::Away(format!("JetStream's answer is odd: {error}").into())
            })
        };
        Ok(Some(Found {
            subject: message.subject,
            sequence: message.seq,
            time: nanos(&message.time).map_or(StoredAt::UNKNOWN, stored_at),
            headers: decode(&message.hdrs)?,
            payload: decode(&message.data)?.into(),
        }))
    }
}

/// An answer's error.
pub(super) fn refused(error: &Value) -> Failure {
    let number = |name| error.get(name).and_then(Value::as_u64);
    let text = error
        .get("description")
        .and_then(Value::as_str)
        .unwrap_or("without a reason");
    Failure::Refused {
        code: number("err_code").or(number("code")).unwrap_or(0),
        text: unstall::printable(text).to_string().into(),
    }
}

/// A sequence as an offset. JetStream gives no sequences out that are no offsets: at a million
/// messages a second they would take 146,000 years.
pub(super) fn offset(sequence: u64) -> Offset {
    Offset::new(sequence).unwrap_or(Offset::MAX)
}

/// A time of JetStream.
pub(super) fn stored_at(nanos: u64) -> StoredAt {
    StoredAt::new(nanos / 1_000_000).unwrap_or(StoredAt::UNKNOWN)
}

/// A time in the answers: nanoseconds since 1970.
pub(super) fn nanos(text: &str) -> Option<u64> {
    let time = OffsetDateTime::parse(text, &Rfc3339).ok()?;
    time.unix_timestamp_nanos().try_into().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn info(messages: u64, first: u64, last: u64) -> Bounds {
        let info = json!({
            "config": {},
            "created": "2026-11-29T13:27:42.123456789Z",
            "state": {
                "messages": messages, "first_seq": first, "last_seq": last,
                "last_ts": "2026-11-29T13:27:42.5Z",
            },
        });
        serde_json::from_value::<Info>(info).unwrap().bounds()
    }

    #[test]
    fn an_empty_stream_begins_behind_its_last_message() {
        let bounds = |first, last, time| {
            Bounds::new(offset(first), offset(last), StoredAt::new(time).unwrap())
        };
        assert_eq!(info(0, 0, 0), bounds(1, 0, 0));
        assert_eq!(info(0, 1, 0), bounds(1, 0, 0));
        assert_eq!(info(0, 8, 7), bounds(8, 7, 1_795_958_862_500));
        assert_eq!(info(3, 5, 7), bounds(5, 7, 1_795_958_862_500));
    }
}
