//! `POST /topics/TOPIC`: publishes the body.

use axum::{
    body::{Body, HttpBody},
    extract::{Path, Query, State},
    response::Response,
};
use bytes::{Bytes, BytesMut};
use http::{HeaderMap, StatusCode, header};
use http_body_util::BodyExt;
use serde::{Deserialize, Serialize};
use tokio::time::timeout;
use unstall_proto::Kind;
use unstall_topics::{Permit, PublishError, Refusal, Topic, store::Publication};

use super::{
    http::{Peer, Problem, Shared, Stored, json},
    limits::{BODY_TIMEOUT, KEY_BYTES},
    shares::Share,
};

const IDEMPOTENCY_KEY: &str = "idempotency-key";

#[derive(Debug, Deserialize)]
pub(super) struct How {
    /// Whether it is the topic's last message.
    #[serde(default, rename = "final")]
    is_final: bool,
}

#[derive(Serialize)]
struct Published {
    log: String,
    /// `null`: it was stored before, and its offset is no longer known.
    offset: Option<u64>,
}

pub(super) async fn publish(
    State(shared): State<Shared>,
    Path(name): Path<String>,
    Query(how): Query<How>,
    peer: Peer,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Problem> {
    let unstored = |problem: Problem| problem.stored(Stored::No);
    let pass = shared.door.enter_http(&headers, false);
    let pass = pass.map_err(|denied| unstored(denied.into()))?;
    let topic = Topic::new(&name);
    let topic = topic.map_err(|error| unstored(Problem::new(StatusCode::BAD_REQUEST, error)))?;
    if !pass.may_publish(&topic) {
        return Err(failed(&PublishError::Refused(Refusal::NotAllowed)));
    }
    let key = idempotency_key(&headers).map_err(unstored)?;
    let mut held = shared.bodies.share(peer.0.ip());
    let limit = shared.log.max_message_bytes();
    let reading = timeout(BODY_TIMEOUT, read(body, limit, &mut held));
    let late = || {
        let why = "the body took too long to arrive";
        Err(Problem::new(StatusCode::REQUEST_TIMEOUT, why))
    };
    let payload = reading.await.unwrap_or_else(|_| late()).map_err(unstored)?;
    let kind = kind(&headers, &payload).map_err(unstored)?;
    let mut publication = Publication::new(topic.clone(), kind, payload);
    publication.is_final = how.is_final;
    publication.publisher = key.map(|key| (pass.publisher_of(&topic, key), 1));
    let results = shared.log.publish_many(vec![publication]).await;
    let result = results.into_iter().next();
    let offset = match result.unwrap_or(Err(PublishError::Unknown)) {
        Ok(offset) => Some(offset.get()),
        Err(PublishError::StoredBefore) => None,
        Err(error) => return Err(failed(&error)),
    };
    let log = shared.log.id().to_string();
    Ok(json(StatusCode::OK, &Published { log, offset }))
}

fn idempotency_key(headers: &HeaderMap) -> Result<Option<&[u8]>, Problem> {
    let mut keys = headers.get_all(IDEMPOTENCY_KEY).iter();
    let key = keys.next().map(|key| key.as_bytes());
    let is_valid = key.is_none_or(|key| (1..=KEY_BYTES).contains(&key.len()));
    match is_valid && keys.next().is_none() {
        true => Ok(key),
        false => Err(Problem::new(
            StatusCode::BAD_REQUEST,
            format_args!("there is to be one Idempotency-Key, of 1 to {KEY_BYTES} bytes"),
        )),
    }
}

/// Reads a body. Memory is taken as it arrives.
async fn read(mut body: Body, limit: usize, held: &mut Share) -> Result<Bytes, Problem> {
    let too_large = || {
        let why = format!("the message is larger than {limit} bytes, the most that the log takes");
        Problem::new(StatusCode::PAYLOAD_TOO_LARGE, why)
    };
    if body.size_hint().lower() > limit as u64 {
        return Err(too_large());
    }
    let mut payload = BytesMut::new();
    while let Some(frame) = body.frame().await {
        let frame = frame
            .map_err(|_| Problem::new(StatusCode::BAD_REQUEST, "the body did not arrive whole"))?;
        let Ok(data) = frame.into_data() else {
            continue;
        };
        if payload.len().saturating_add(data.len()) > limit {
            return Err(too_large());
        }
        if !held.take(data.len()) {
            let why = "too many messages arrive at once; try again later";
            return Err(Problem::unavailable(why));
        }
        payload.extend_from_slice(&data);
    }
    Ok(payload.freeze())
}

/// JSON, text and forms are text, as `curl -d` sends them. All else is binary.
fn kind(headers: &HeaderMap, payload: &[u8]) -> Result<Kind, Problem> {
    let content_type = headers.get(header::CONTENT_TYPE);
    let content_type = content_type.and_then(|value| value.to_str().ok());
    let content_type = content_type.unwrap_or_default().to_ascii_lowercase();
    let media_type = content_type.split(';').next().unwrap_or_default().trim();
    let is_text = media_type.starts_with("text/")
        || matches!(
            media_type,
            "application/json" | "application/x-www-form-urlencoded"
        )
        || media_type.ends_with("+json");
    match is_text {
        false => Ok(Kind::Binary),
        true if std::str::from_utf8(payload).is_ok() => Ok(Kind::Text),
        true => Err(Problem::new(
            StatusCode::BAD_REQUEST,
            "the body is not UTF-8, as text has to be; \
             send it with Content-Type: application/octet-stream",
        )),
    }
}

/// The answer about a message that is not confirmed.
fn failed(error: &PublishError) -> Problem {
    let problem = match error {
        PublishError::Refused(refusal) => match refusal {
            Refusal::NotAllowed => Problem::new(StatusCode::FORBIDDEN, refusal),
            Refusal::TooLarge => Problem::new(StatusCode::PAYLOAD_TOO_LARGE, refusal),
            Refusal::Fenced => Problem::new(StatusCode::CONFLICT, refusal),
            Refusal::Unknown => Problem::new(StatusCode::GATEWAY_TIMEOUT, refusal),
            Refusal::Full | Refusal::Unavailable => Problem::unavailable(refusal),
            _ => Problem::new(StatusCode::BAD_REQUEST, refusal),
        },
        PublishError::Unknown => Problem::new(StatusCode::GATEWAY_TIMEOUT, error),
        _ => Problem::unavailable(error),
    };
    problem.stored(match error.may_be_stored() {
        true => Stored::Unknown,
        false => Stored::No,
    })
}
