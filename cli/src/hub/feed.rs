//! `GET /topics/FILTER`: reads from the log, as lines of JSON or as a stream of events.

use std::{
    convert::Infallible,
    time::{Duration, SystemTime},
};

use axum::{
    body::Body,
    extract::{Path, Query, State},
    response::{IntoResponse, Response},
};
use bytes::Bytes;
use futures_util::{FutureExt, stream::unfold};
use http::{HeaderMap, HeaderValue, StatusCode, header};
use serde::Deserialize;
use tokio::{sync::watch, time::sleep};
use unstall_topics::{Delivery, Filter, Permit, Position, Start, Subscription};

use super::{
    events::{self, Events, Resumed},
    http::{Peer, Problem, Shared},
    limits::{CHUNK_BYTES, READ_MESSAGES},
    shares::Share,
};
use crate::topics::{lines, start::From};

#[derive(Debug, Deserialize)]
pub(super) struct What {
    /// An offset or a position.
    after: Option<String>,
    /// Any place to begin at.
    from: Option<String>,
    limit: Option<u64>,
}

pub(super) async fn read(
    State(shared): State<Shared>,
    Path(name): Path<String>,
    Query(what): Query<What>,
    peer: Peer,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let pass = shared.door.enter_http(&headers, true)?;
    let bad = |error: &dyn ToString| Problem::new(StatusCode::BAD_REQUEST, error.to_string());
    let filter = Filter::new(&name).map_err(|error| bad(&error))?;
    if !pass.may_subscribe(&filter) {
        let why = "reading this filter is not allowed; use another filter or another token";
        return Err(Problem::new(StatusCode::FORBIDDEN, why));
    }
    let mut share = shared.readers.share(peer.0.ip());
    if !share.take(1) {
        let why = "too many clients read at once; try again later";
        return Err(Problem::unavailable(why));
    }
    let asked = what.start().map_err(|error| bad(&error))?;
    let as_events = events::are_wanted(&headers);
    let start = match as_events {
        false => asked.unwrap_or(From::Start(Start::Beginning)),
        // A page that connects again names what it had last.
        true => match events::resumed(&headers).map_err(|error| bad(&error))? {
            Some(Resumed::Over) => return Ok(StatusCode::NO_CONTENT.into_response()),
            Some(Resumed::From(from)) => from,
            None => asked.unwrap_or(From::Start(Start::Now)),
        },
    };
    let start = start.in_log(shared.log.id());
    let subscription = shared.log.subscribe(filter.as_str(), start);
    let feed = Feed {
        subscription: subscription.map_err(|error| bad(&error))?,
        expires: pass.expires(),
        ending: shared.ending.clone(),
        is_exact: filter.as_topic().is_some(),
        _share: share,
    };
    let (kind, body) = match as_events {
        true => ("text/event-stream", Events::new(feed).body()),
        false => {
            let left = what.limit.unwrap_or(READ_MESSAGES);
            ("application/x-ndjson", Lines { feed, left }.body())
        }
    };
    let mut response = Response::new(body);
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    // The answer depends on these.
    let vary = HeaderValue::from_static("accept, authorization, cookie, last-event-id");
    headers.insert(header::VARY, vary);
    // nginx would gather a stream of events.
    headers.insert("x-accel-buffering", HeaderValue::from_static("no"));
    if let Ok(log) = HeaderValue::try_from(shared.log.id().to_string()) {
        headers.insert("unstall-log", log);
    }
    Ok(response)
}

impl What {
    /// Where the request wants to begin.
    fn start(&self) -> Result<Option<From>, String> {
        match (&self.after, &self.from) {
            (None, None) => Ok(None),
            (Some(_), Some(_)) => Err("give either after or from".to_owned()),
            (None, Some(from)) => from.parse().map(Some).map_err(|why| format!("from: {why}")),
            (Some(after), None) => match after.parse() {
                Ok(from @ (From::Offset(_) | From::Start(Start::After(_)))) => Ok(Some(from)),
                _ => Err("after: it has to be an offset or a position".to_owned()),
            },
        }
    }
}

/// What an answer is made of.
pub(super) struct Feed {
    subscription: Subscription,
    expires: Option<SystemTime>,
    ending: watch::Receiver<bool>,
    /// The filter is a topic, so the subscription ends with that.
    pub(super) is_exact: bool,
    _share: Share,
}

/// What comes next.
pub(super) enum Next {
    Delivery(Delivery),
    /// The topic is complete.
    Complete,
    /// The token has expired.
    Expired,
    /// The hub ends, or the log cannot be read any more.
    Over,
}

impl Feed {
    /// What comes next.
    ///
    /// Cancel safety: if dropped before it resolves, nothing is lost.
    pub(super) async fn next(&mut self) -> Next {
        loop {
            let left = match self.expires.map(|at| at.duration_since(SystemTime::now())) {
                None => None,
                Some(Ok(left)) if !left.is_zero() => Some(left),
                Some(_) => return Next::Expired,
            };
            tokio::select! {
                biased;
                _ = self.ending.wait_for(|ending| *ending) => return Next::Over,
                // The system's clock may be set, so it is asked again.
                () = sleep(left.unwrap_or_default().min(Duration::from_secs(3600))), if left.is_some() => {}
                next = self.subscription.recv() => return match next {
                    Ok(Some(delivery)) => Next::Delivery(delivery),
                    Ok(None) => Next::Complete,
                    Err(_) => Next::Over,
                },
            }
        }
    }

    /// What comes next, if it is there.
    pub(super) fn next_now(&mut self) -> Option<Next> {
        self.next().now_or_never()
    }

    pub(super) fn position(&self) -> Option<Position> {
        self.subscription.position()
    }
}

/// Lines of JSON, up to the end that the log has when the request comes.
struct Lines {
    feed: Feed,
    /// How many messages may still come.
    left: u64,
}

impl Lines {
    fn body(self) -> Body {
        Body::from_stream(unfold(Some(self), |lines| async {
            let (text, lines) = lines?.chunk().await;
            Some((Ok::<_, Infallible>(Bytes::from(text)), lines))
        }))
    }

    /// The next lines, and what follows them.
    async fn chunk(mut self) -> (String, Option<Lines>) {
        let mut text = String::new();
        while self.left > 0 && text.len() < CHUNK_BYTES {
            let next = match text.is_empty() {
                true => self.feed.next().await,
                false => match self.feed.next_now() {
                    Some(next) => next,
                    None => return (text, Some(self)),
                },
            };
            match next {
                Next::Delivery(delivery) => {
                    text += &lines::json(&delivery);
                    text += "\n";
                    match delivery {
                        Delivery::Message(_) => self.left = self.left.saturating_sub(1),
                        Delivery::CaughtUp(_) => return (text, None),
                        _ => {}
                    }
                }
                Next::Expired => {
                    text += "{\"error\":\"the token has expired\"}\n";
                    return (text, None);
                }
                Next::Complete | Next::Over => return (text, None),
            }
        }
        let more = self.left > 0;
        (text, more.then_some(self))
    }
}
