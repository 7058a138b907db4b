//! Messages of the log as messages of NATS.
//!
//! The payload is carried as it is. `Nats-Msg-Id` has the publisher, its epoch and the number.
//! `Unstall` says `text`, `final` or `text final`; a binary message has no such header.

use async_nats::{HeaderMap, HeaderName, Message};
use bytes::Bytes;
use unstall_proto::{
    Kind,
    topics::{Offset, Publisher, StoredAt},
};

use super::{
    api::{Found, offset, stored_at},
    subjects::Subjects,
};
use crate::store::{Publication, Stored};

const MESSAGE_ID: HeaderName = HeaderName::from_static("Nats-Msg-Id");
const KIND: HeaderName = HeaderName::from_static("Unstall");

/// A message of the stream.
#[derive(Clone, Debug)]
pub(super) enum Received {
    Message(Stored),
    /// Another program published it under a subject that is not a topic.
    Odd {
        offset: Offset,
        time: StoredAt,
        /// What stands behind the prefix.
        name: Box<str>,
        why: Box<str>,
    },
}

impl Received {
    pub(super) fn offset(&self) -> Offset {
        match self {
            Received::Message(stored) => stored.offset,
            Received::Odd { offset, .. } => *offset,
        }
    }

    pub(super) fn time(&self) -> StoredAt {
        match self {
            Received::Message(stored) => stored.time,
            Received::Odd { time, .. } => *time,
        }
    }

    /// The topic, or what should be one.
    pub(super) fn name(&self) -> &str {
        match self {
            Received::Message(stored) => stored.topic.as_str(),
            Received::Odd { name, .. } => name,
        }
    }

    /// What it takes in memory.
    pub(super) fn cost(&self) -> u64 {
        match self {
            Received::Message(stored) => stored.cost(),
            Received::Odd { name, why, .. } => (name.len() + why.len() + 64) as u64,
        }
    }
}

/// The headers of a message that is published.
pub(super) fn headers(publication: &Publication, id: &str) -> HeaderMap {
    let mut headers = HeaderMap::new();
    headers.insert(MESSAGE_ID, id);
    let kind = match (publication.kind, publication.is_final) {
        (Kind::Binary, false) => return headers,
        (Kind::Binary, true) => "final",
        (Kind::Text, false) => "text",
        (Kind::Text, true) => "text final",
    };
    headers.insert(KIND, kind);
    headers
}

/// The message id of a publisher's message. It has no topic, because a number names one message over
/// all topics. JetStream drops a second message with the same id, also if its subject is another.
pub(super) fn message_id(publisher: &Publisher, number: u64) -> String {
    let id = u128::from_be_bytes(publisher.id);
    format!("{id:032x}-{}-{number}", publisher.epoch)
}

/// What a consumer says of a message, in its reply subject.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Place {
    /// The message's place in the stream.
    pub(super) offset: Offset,
    pub(super) time: StoredAt,
    /// Its place among what the consumer delivered. They are contiguous.
    pub(super) delivery: u64,
}

impl Place {
    /// Reads `$JS.ACK.STREAM.CONSUMER.DELIVERED.SEQUENCE.DELIVERY.TIME.PENDING`. Newer servers put a
    /// domain and a hash of the account in front of the stream's name, and a token at the end.
    pub(super) fn of(reply: &str) -> Option<Place> {
        let mut tokens = reply.strip_prefix("$JS.ACK.")?.split('.');
        let longer = reply.bytes().filter(|&byte| byte == b'.').count() >= 10;
        let number = |text: Option<&str>| text?.parse::<u64>().ok();
        let sequence = number(tokens.nth(if longer { 5 } else { 3 }))?;
        let delivery = number(tokens.next())?;
        let nanos = number(tokens.next())?;
        Some(Place {
            offset: offset(sequence),
            time: stored_at(nanos),
            delivery,
        })
    }
}

/// A message that a consumer delivered.
pub(super) fn delivered(subjects: &Subjects, place: Place, message: Message) -> Received {
    let kind = message
        .headers
        .as_ref()
        .and_then(|headers| headers.get(KIND));
    let kind = kind.map_or("", |kind| kind.as_str());
    received(
        subjects,
        place.offset,
        place.time,
        &message.subject,
        kind,
        message.payload,
    )
}

/// A message that the leader answered with.
pub(super) fn found(subjects: &Subjects, found: Found) -> Received {
    let headers = String::from_utf8_lossy(&found.headers);
    let kind = headers.lines().find_map(|line| {
        let (name, value) = line.split_once(':')?;
        name.eq_ignore_ascii_case("Unstall")
            .then(|| value.trim().to_owned())
    });
    let kind = kind.unwrap_or_default();
    let place = offset(found.sequence);
    received(
        subjects,
        place,
        found.time,
        &found.subject,
        &kind,
        found.payload,
    )
}

fn received(
    subjects: &Subjects,
    offset: Offset,
    time: StoredAt,
    subject: &str,
    kind: &str,
    payload: Bytes,
) -> Received {
    let topic = match subjects.topic(subject) {
        Ok(topic) => topic,
        Err(error) => {
            return Received::Odd {
                offset,
                time,
                name: subjects.name(subject).into(),
                why: format!("its subject is not a topic: {error}").into(),
            };
        }
    };
    let says = |word| kind.split(' ').any(|said| said == word);
    // Another program may claim it of bytes that are no text.
    let is_text = says("text") && std::str::from_utf8(&payload).is_ok();
    let kind = if is_text { Kind::Text } else { Kind::Binary };
    Received::Message(Stored::new(
        offset,
        time,
        topic,
        kind,
        says("final"),
        payload,
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reply_subject_of_either_form_names_the_place() {
        let place = Some(Place {
            offset: offset(42),
            time: StoredAt::new(1_764_500_000_123).unwrap(),
            delivery: 7,
        });
        for reply in [
            "$JS.ACK.LOG.reader.1.42.7.1764500000123456789.9",
            "$JS.ACK.hub.ACCOUNT.LOG.reader.1.42.7.1764500000123456789.9",
            "$JS.ACK._.ACCOUNT.LOG.reader.1.42.7.1764500000123456789.9.token",
        ] {
            assert_eq!(Place::of(reply), place, "{reply}");
        }
        for reply in ["", "$JS.ACK.LOG.reader.1.x.7.1.9", "_INBOX.a.b"] {
            assert_eq!(Place::of(reply), None, "{reply}");
        }
    }

    #[test]
    fn kind_and_end_of_topic_come_back() {
        let subjects = Subjects::new("log").unwrap();
        for (kind, is_final) in [
            (Kind::Binary, false),
            (Kind::Binary, true),
            (Kind::Text, false),
            (Kind::Text, true),
        ] {
            let topic = unstall_proto::topics::Topic::new("a.b").unwrap();
            let mut publication = Publication::new(topic.clone(), kind, "payload");
            publication.is_final = is_final;
            let headers = headers(&publication, "id");
            let said = headers.get(KIND).map_or("", |kind| kind.as_str());
            let at = StoredAt::UNKNOWN;
            let subject = subjects.subject(&topic);
            let came = received(&subjects, offset(1), at, &subject, said, "payload".into());
            let Received::Message(stored) = came else {
                panic!("it is a topic")
            };
            assert_eq!((stored.kind, stored.is_final), (kind, is_final));
            assert_eq!(stored.topic, topic);
        }
    }

    #[test]
    fn bytes_that_are_no_text_are_binary_whatever_their_header_says() {
        let subjects = Subjects::new("log").unwrap();
        let payload = Bytes::from_static(b"\xff");
        let came = received(
            &subjects,
            offset(1),
            StoredAt::UNKNOWN,
            "log.a",
            "text",
            payload,
        );
        assert!(matches!(came, Received::Message(stored) if stored.kind == Kind::Binary));
    }

    #[test]
    fn a_subject_that_is_no_topic_is_told_with_its_offset() {
        let subjects = Subjects::new("log").unwrap();
        let came = received(
            &subjects,
            offset(9),
            StoredAt::UNKNOWN,
            "log.a*b",
            "",
            Bytes::new(),
        );
        assert!(matches!(&came, Received::Odd { name, .. } if &**name == "a*b"));
        assert_eq!(came.offset(), offset(9));
    }
}
