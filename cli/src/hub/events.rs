//! A log as a stream of events, for a browser's `EventSource` (HTML, "Server-sent events").
//!
//! The id of an event is a position, not an offset alone. A page connects again by itself and names
//! the last id, perhaps at a hub with another log. An offset would be taken for one of that log, and
//! messages would be missing in silence. A position is told as a gap.

use std::{convert::Infallible, fmt::Write};

use axum::body::Body;
use bytes::Bytes;
use futures_util::stream::unfold;
use http::{HeaderMap, header};
use tokio::time::{Instant, MissedTickBehavior, interval_at};
use unstall_topics::{Delivery, Position};

use super::{
    feed::{Feed, Next},
    limits::{CHUNK_BYTES, COMMENT_INTERVAL, RETRY},
};
use crate::{
    time::later,
    topics::{lines, start::From},
};

const LAST_EVENT_ID: &str = "last-event-id";

/// Behind the position in the id of a topic's final message.
const FINAL: &str = ";final";

/// What a page says that connects again.
pub(super) enum Resumed {
    From(From),
    /// It has a topic's final message. The answer 204 tells an `EventSource` to stay away.
    Over,
}

/// Whether the client asks for events.
pub(super) fn are_wanted(headers: &HeaderMap) -> bool {
    let accepted = headers.get_all(header::ACCEPT).iter();
    let mut kinds = accepted
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .filter_map(|kind| kind.split(';').next());
    kinds.any(|kind| kind.trim().eq_ignore_ascii_case("text/event-stream"))
}

/// Where a page goes on.
pub(super) fn resumed(headers: &HeaderMap) -> Result<Option<Resumed>, String> {
    let wrong = || "the Last-Event-ID is not one of this hub's".to_owned();
    let Some(id) = headers.get(LAST_EVENT_ID) else {
        return Ok(None);
    };
    let id = id.to_str().map_err(|_| wrong())?;
    if let Some(position) = id.strip_suffix(FINAL) {
        position.parse::<Position>().map_err(|_| wrong())?;
        return Ok(Some(Resumed::Over));
    }
    match id {
        // So is the id of a page that has none yet.
        "" => Ok(None),
        _ => {
            let from = id.parse().map_err(|_| wrong())?;
            Ok(Some(Resumed::From(from)))
        }
    }
}

/// A stream of events.
pub(super) struct Events {
    feed: Feed,
    /// When a comment is due, if nothing else was sent.
    comments: tokio::time::Interval,
    /// The last id that was sent.
    told: Option<Position>,
    begun: bool,
}

impl Events {
    pub(super) fn new(feed: Feed) -> Events {
        let first = later(Instant::now(), COMMENT_INTERVAL);
        let mut comments = interval_at(first, COMMENT_INTERVAL);
        comments.set_missed_tick_behavior(MissedTickBehavior::Delay);
        Events {
            feed,
            comments,
            told: None,
            begun: false,
        }
    }

    pub(super) fn body(self) -> Body {
        Body::from_stream(unfold(Some(self), |events| async {
            let (text, events) = events?.chunk().await;
            Some((Ok::<_, Infallible>(Bytes::from(text)), events))
        }))
    }

    /// The next events, and what follows them.
    async fn chunk(mut self) -> (String, Option<Events>) {
        let mut text = String::new();
        if !std::mem::replace(&mut self.begun, true) {
            let _ = write!(text, "retry: {}\n\n", RETRY.as_millis());
        }
        while text.len() < CHUNK_BYTES {
            let next = match text.is_empty() {
                true => tokio::select! {
                    next = self.feed.next() => next,
                    _ = self.comments.tick() => return (self.comment(), Some(self)),
                },
                false => match self.feed.next_now() {
                    Some(next) => next,
                    None => break,
                },
            };
            if !self.tell(&mut text, &next) {
                return (text, None);
            }
        }
        self.comments.reset();
        (text, Some(self))
    }

    /// Writes an event. `false`: it is the last one.
    fn tell(&mut self, text: &mut String, next: &Next) -> bool {
        let delivery = match next {
            Next::Delivery(delivery) => delivery,
            Next::Expired => {
                *text += "event: expired\ndata: {\"error\":\"the token has expired\"}\n\n";
                return false;
            }
            Next::Complete | Next::Over => return false,
        };
        let mut mark = "";
        match delivery {
            Delivery::Message(message) if message.is_final() && self.feed.is_exact => mark = FINAL,
            Delivery::Message(_) => {}
            Delivery::Gap(_) => *text += "event: gap\n",
            _ => *text += "event: caught_up\n",
        }
        self.told = self.feed.position();
        if let Some(position) = self.told {
            let _ = writeln!(text, "id: {position}{mark}");
        }
        let _ = write!(text, "data: {}\n\n", lines::json(delivery));
        true
    }

    /// Says that the stream lives, and how far it is if it matched nothing lately. An event without
    /// data only sets the last id.
    fn comment(&mut self) -> String {
        let position = self.feed.position().filter(|at| Some(*at) != self.told);
        self.told = position.or(self.told);
        match position {
            Some(position) => format!("id: {position}\n\n"),
            None => ":\n\n".to_owned(),
        }
    }
}
