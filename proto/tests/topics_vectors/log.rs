//! A log of the vectors, and what a server asks of it.

use std::sync::Arc;

use serde_json::Value;
use unstall_proto::Kind;
use unstall_proto::topics::{
    Block, Filter, LogBounds, LogId, Offset, Opening, Position, ReadRequest, Server, Snapshot,
    Start, StoredAt, StoredMessage,
};

use crate::{list, number, repeated, text, unhex};

/// A message of a log.
#[derive(Clone)]
struct Message {
    offset: Offset,
    time: StoredAt,
    topic: String,
    kind: Kind,
    is_final: bool,
    payload: Vec<u8>,
}

pub(crate) struct Log {
    pub(crate) bounds: LogBounds,
    messages: Vec<Message>,
    /// Messages behind the first and up to the second offset cannot be read.
    pub(crate) damaged: (Offset, Offset),
}

pub(crate) fn offset(value: &Value) -> Offset {
    Offset::new(number(value)).expect("an offset")
}

pub(crate) fn stored_at(value: &Value) -> StoredAt {
    StoredAt::new(number(value)).expect("a time")
}

pub(crate) fn log_id(value: &Value) -> LogId {
    LogId(unhex(text(value)).try_into().expect("16 bytes"))
}

/// The payload of a message or a step, and whether it is text.
pub(crate) fn payload(value: &Value) -> (Kind, Vec<u8>) {
    if let Some(text) = value["text"].as_str() {
        return (Kind::Text, text.as_bytes().to_vec());
    }
    if let Some(hex) = value["hex"].as_str() {
        return (Kind::Binary, unhex(hex));
    }
    let repeat = &value["repeat"];
    let kind = match repeat["text"].is_string() {
        true => Kind::Text,
        false => Kind::Binary,
    };
    (kind, repeated(repeat))
}

pub(crate) fn start(value: &Value) -> Start {
    let Some(name) = value["name"].as_str() else {
        return Start::Beginning;
    };
    match name {
        "beginning" => Start::Beginning,
        "now" => Start::Now,
        "after" => Start::After(position(value)),
        "last" => Start::Last(number(&value["count"]).try_into().expect("a count")),
        "latest" => {
            let place = position(value);
            let end = Position {
                offset: offset(&value["end"]),
                ..place
            };
            let through = place.offset;
            Start::Latest((end.log != LogId::NONE).then_some(Snapshot { end, through }))
        }
        "since" => Start::Since(stored_at(&value["time"])),
        other => panic!("an unknown start {other}"),
    }
}

fn position(value: &Value) -> Position {
    Position {
        log: log_id(&value["log"]),
        offset: offset(&value["offset"]),
        time: stored_at(&value["time"]),
    }
}

impl Log {
    /// A log as the vectors describe it. What is missing follows from the messages.
    pub(crate) fn new(value: &Value) -> Log {
        let messages = value["messages"].as_array();
        let messages: Vec<_> = messages.into_iter().flatten().map(Message::new).collect();
        let last = messages.last();
        let mut bounds = LogBounds {
            log: LogId([0x10; 16]),
            first: Offset::START,
            last: last.map_or(Offset::START, |last| last.offset),
            last_time: last.map_or(StoredAt::UNKNOWN, |last| last.time),
        };
        if value["id"].is_string() {
            bounds.log = log_id(&value["id"]);
        }
        if value["last"].is_number() {
            bounds.last = offset(&value["last"]);
        }
        if value["last_time"].is_number() {
            bounds.last_time = stored_at(&value["last_time"]);
        }
        let mut log = Log {
            bounds,
            messages,
            damaged: (Offset::START, Offset::START),
        };
        log.find_first();
        if value["first"].is_number() {
            log.bounds.first = offset(&value["first"]);
        }
        log
    }

    fn find_first(&mut self) {
        let behind = self.bounds.last.checked_add(1).expect("an offset");
        self.bounds.first = self.messages.first().map_or(behind, |first| first.offset);
    }

    pub(crate) fn append(&mut self, messages: &Value) {
        for value in list(messages) {
            let message = Message::new(value);
            self.bounds.last = message.offset;
            self.bounds.last_time = message.time;
            self.messages.push(message);
        }
    }

    pub(crate) fn remove(&mut self, through: Offset) {
        self.messages.retain(|message| message.offset > through);
        self.find_first();
    }

    fn matching<'a>(&'a self, filter: &'a Filter) -> impl Iterator<Item = &'a Message> {
        let messages = self.messages.iter();
        messages.filter(|message| filter.matches(&message.topic))
    }

    /// The answer to SUBSCRIBE.
    pub(crate) fn open(&self, start: &Start, filter: &Filter) -> Opening {
        let bounds = &self.bounds;
        let sought = |first: Option<&Message>, otherwise: Offset| {
            let after = first.map_or(otherwise, |first| first.offset.before());
            Opening::sought(bounds, after)
        };
        match start {
            Start::Beginning => Opening::beginning(bounds),
            Start::Now => Opening::now(bounds),
            Start::After(position) => Opening::after(bounds, *position, self.found(position)),
            Start::Last(count) => {
                let found: Vec<_> = self.matching(filter).collect();
                let first = found.len().checked_sub(*count as usize);
                sought(first.map(|first| found[first]), bounds.first.before())
            }
            Start::Latest(snapshot) => {
                let found = snapshot.map_or(StoredAt::UNKNOWN, |it| self.found(&it.end));
                Opening::latest(bounds, *snapshot, found)
            }
            Start::Since(time) => {
                let mut messages = self.messages.iter();
                sought(messages.find(|message| message.time >= *time), bounds.last)
            }
            other => panic!("an unknown start {other:?}"),
        }
    }

    /// When the message at a position was stored, if it is there.
    fn found(&self, position: &Position) -> StoredAt {
        let mut messages = self.messages.iter();
        let found = messages.find(|message| message.offset == position.offset);
        found.map_or(StoredAt::UNKNOWN, |found| found.time)
    }

    /// Answers everything that a server wants to read. Whether it wanted something.
    pub(crate) fn serve(&self, server: &mut Server) -> bool {
        let mut served = false;
        while let Some(request) = server.poll_read() {
            served = true;
            self.read(server, &request);
        }
        served
    }

    fn read(&self, server: &mut Server, request: &ReadRequest) {
        let (begin, end) = self.damaged;
        let mut through = request.through;
        if begin < end && request.after < end {
            if request.after >= begin {
                return server.read_damaged(request.key, end, false);
            }
            through = through.min(begin);
        }
        let up_to = self
            .matching(&request.filter)
            .filter(|message| message.offset <= request.through);
        let mut found: Vec<_> = up_to.collect();
        if request.latest {
            let all = found.clone();
            found.retain(|message| {
                let later = |other: &&&Message| other.offset > message.offset;
                let mut later = all.iter().filter(later);
                !later.any(|other| other.topic == message.topic)
            });
        }
        found.retain(|message| message.offset > request.after && message.offset <= through);
        let block = Block::new(found.into_iter().map(Message::stored));
        server.read(request.key, Arc::new(block), through, self.bounds.first);
    }
}

impl Message {
    fn new(value: &Value) -> Message {
        let (kind, payload) = payload(value);
        Message {
            offset: offset(&value["offset"]),
            time: stored_at(&value["time"]),
            topic: value["topic"].as_str().unwrap_or("t").to_owned(),
            kind,
            is_final: value["final"] == true,
            payload,
        }
    }

    fn stored(&self) -> StoredMessage<'_> {
        StoredMessage {
            offset: self.offset,
            time: self.time,
            topic: &self.topic,
            kind: self.kind,
            is_final: self.is_final,
            payload: &self.payload,
        }
    }
}
