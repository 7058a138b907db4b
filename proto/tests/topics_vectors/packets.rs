//! Every kind of packet, and malformed ones.

use serde_json::{Map, Value, json};
use unstall_proto::topics::{
    ClientHello, Filter, Offset, ServerReject, ServerWelcome, Snapshot, Start, StoredAt, Subscribe,
    Topic, TopicPacket, TopicRecord, published_runs,
};
use unstall_proto::{Kind, ProtocolError};

use crate::words::NO_SNAPSHOT;
use crate::{bytes, hex, hex_or_repeat, list, read, text};

fn decimal(number: u64) -> Value {
    json!(number.to_string())
}

fn offset(offset: Offset) -> Value {
    decimal(offset.get())
}

fn time(time: StoredAt) -> Value {
    decimal(time.millis())
}

/// A name that came as bytes: what is none is hexadecimal.
fn name(bytes: &[u8], is_name: impl Fn(&str) -> bool) -> Value {
    let text = std::str::from_utf8(bytes).ok();
    match text.filter(|name| is_name(name)) {
        Some(name) => json!(name),
        None => json!({ "hex": hex(bytes) }),
    }
}

fn token(token: &str) -> Value {
    match token.chars().next() {
        Some(one) if token.len() > 256 => {
            json!({ "repeat": { "text": one.to_string(), "times": token.len() } })
        }
        _ => json!(token),
    }
}

fn hello(hello: &ClientHello) -> Value {
    let (id, epoch) = match hello.publisher {
        Some(publisher) => (publisher.id, publisher.epoch),
        None => ([0; 16], 0),
    };
    json!({
        "kind": "HELLO", "publisher": hex(&id), "epoch": decimal(epoch),
        "largest_message": decimal(hello.max_message), "token": token(hello.token.as_str()),
    })
}

fn welcome(welcome: &ServerWelcome) -> Value {
    json!({
        "kind": "WELCOME", "log": hex(&welcome.log.0), "first": offset(welcome.first),
        "last": offset(welcome.last), "largest_message": decimal(welcome.max_message),
        "publish_window": decimal(welcome.publish_window), "once": decimal(welcome.once_millis),
        "subscriptions": welcome.subscriptions, "durability": welcome.durability as u8,
        "name": welcome.name,
    })
}

fn reject(reject: &ServerReject) -> Value {
    json!({
        "kind": "REJECT", "reason": reject.reason as u8,
        "retry_after": decimal(reject.retry_after_millis), "text": reject.text,
    })
}

fn subscribe(subscribe: &Subscribe) -> Value {
    json!({
        "kind": "SUBSCRIBE", "subscription": subscribe.subscription,
        "credit": decimal(subscribe.credit), "largest_lag": decimal(subscribe.max_lag_millis),
        "start": start(&subscribe.start),
        "filter": name(&subscribe.filter, |name| Filter::new(name).is_ok()),
    })
}

fn start(start: &Start) -> Value {
    match start {
        Start::Beginning => json!({ "name": "beginning" }),
        Start::Now => json!({ "name": "now" }),
        Start::After(position) => json!({
            "name": "after", "log": hex(&position.log.0), "offset": offset(position.offset),
            "time": time(position.time),
        }),
        Start::Last(count) => json!({ "name": "last", "count": decimal(u64::from(*count)) }),
        Start::Latest(snapshot) => {
            let Snapshot { end, through } = snapshot.unwrap_or(NO_SNAPSHOT);
            json!({
                "name": "latest", "log": hex(&end.log.0), "end": offset(end.offset),
                "time": time(end.time), "offset": offset(through),
            })
        }
        Start::Since(since) => json!({ "name": "since", "time": time(*since) }),
        other => panic!("a start without a name: {other:?}"),
    }
}

/// The records of a packet that begins within a message or not.
fn records(bytes: &[u8], within: bool, stored: bool) -> Result<Vec<Value>, ProtocolError> {
    let (mut rest, mut begins, mut all) = (bytes, !within, Vec::new());
    while !rest.is_empty() {
        let record = match stored {
            true => TopicRecord::read_stored(rest, begins)?,
            false => TopicRecord::read_published(rest, begins)?,
        };
        let mut fields = Map::new();
        fields.insert("text".to_owned(), json!(record.kind == Kind::Text));
        fields.insert("continues".to_owned(), json!(record.continues));
        fields.insert("final".to_owned(), json!(record.is_final));
        if let Some(first) = record.first {
            let topic = name(first.topic, |name| Topic::new(name).is_ok());
            fields.insert("topic".to_owned(), topic);
            if stored {
                fields.insert("offset".to_owned(), offset(first.stored.0));
                fields.insert("time".to_owned(), time(first.stored.1));
            }
        }
        let (name, payload) = hex_or_repeat("payload", record.payload);
        fields.insert(name, payload);
        all.push(Value::Object(fields));
        begins = !record.continues;
        rest = &rest[record.size..];
    }
    Ok(all)
}

/// The fields as the vectors have them.
fn fields(packet: &TopicPacket, within: bool) -> Result<Value, ProtocolError> {
    Ok(match packet {
        TopicPacket::Hello(packet) => hello(packet),
        TopicPacket::Welcome(packet) => welcome(packet),
        TopicPacket::Reject(packet) => reject(packet),
        TopicPacket::Token(packet) => json!({ "kind": "TOKEN", "token": token(packet.as_str()) }),
        TopicPacket::Ping(number) => json!({ "kind": "PING", "number": decimal(*number) }),
        TopicPacket::Pong(number) => json!({ "kind": "PONG", "number": decimal(*number) }),
        TopicPacket::Abort { code, reason } => {
            json!({ "kind": "ABORT", "code": code.0, "text": reason })
        }
        TopicPacket::GoAway {
            within_millis,
            reason,
        } => json!({ "kind": "GOAWAY", "window": decimal(*within_millis), "text": reason }),
        TopicPacket::Publish { first, records: r } => json!({
            "kind": "PUBLISH", "first": decimal(*first), "records": records(r, within, false)?,
        }),
        TopicPacket::Published {
            durability,
            first,
            runs,
        } => {
            let runs: Vec<_> = published_runs(runs)
                .map(|run| {
                    let first = run.offset.map_or(0, Offset::get);
                    json!({ "count": decimal(run.count), "offset": decimal(first) })
                })
                .collect();
            json!({
                "kind": "PUBLISHED", "durability": *durability as u8, "first": decimal(*first),
                "runs": runs,
            })
        }
        TopicPacket::Refused {
            number,
            reason,
            text,
        } => json!({
            "kind": "REFUSED", "number": decimal(*number), "reason": *reason as u8, "text": text,
        }),
        TopicPacket::Unknown(kind) => json!({ "kind": kind }),
        other => fields_of_subscription(other, within)?,
    })
}

fn fields_of_subscription(packet: &TopicPacket, within: bool) -> Result<Value, ProtocolError> {
    Ok(match packet {
        TopicPacket::Subscribe(packet) => subscribe(packet),
        TopicPacket::Subscribed {
            subscription,
            after,
            time: at,
            end,
            end_time,
        } => json!({
            "kind": "SUBSCRIBED", "subscription": subscription, "after": offset(*after),
            "time": time(*at), "end": offset(*end), "end_time": time(*end_time),
        }),
        TopicPacket::Messages {
            subscription,
            records: r,
        } => json!({
            "kind": "MESSAGES", "subscription": subscription, "records": records(r, within, true)?,
        }),
        TopicPacket::Gap { subscription, gap } => json!({
            "kind": "GAP", "subscription": subscription, "reason": gap.reason as u8,
            "certain": u8::from(gap.certain), "after": offset(gap.after),
            "through": offset(gap.through),
        }),
        TopicPacket::CaughtUp {
            subscription,
            offset: at,
            time: then,
        } => json!({
            "kind": "CAUGHT_UP", "subscription": subscription, "offset": offset(*at),
            "time": time(*then),
        }),
        TopicPacket::Credit {
            subscription,
            limit,
        } => json!({
            "kind": "CREDIT", "subscription": subscription, "credit": decimal(*limit),
        }),
        TopicPacket::Unsubscribe(subscription) => {
            json!({ "kind": "UNSUBSCRIBE", "subscription": subscription })
        }
        TopicPacket::Ended {
            subscription,
            reason,
            text,
        } => json!({
            "kind": "ENDED", "subscription": subscription, "reason": *reason as u8, "text": text,
        }),
        other => panic!("a kind of packet without fields: {other:?}"),
    })
}

#[test]
fn every_packet_of_the_vectors_decodes_to_its_fields_and_back() {
    let vectors = read("topics-packets.json");
    let valid = list(&vectors["valid"]);
    assert!(valid.len() >= 106);
    for vector in valid {
        let what = text(&vector["name"]);
        let data = bytes(vector);
        let packet = TopicPacket::decode(data.clone().into());
        let packet = packet.unwrap_or_else(|e| panic!("{what}: {e}"));
        let within = vector["within"].is_object();
        let got = fields(&packet, within).unwrap_or_else(|e| panic!("{what}: {e}"));
        assert_eq!(got, vector["packet"], "{what}");
        // The bytes behind the kind of an ignored packet are not kept, and records are kept as they
        // came.
        let again = match packet {
            TopicPacket::Unknown(_) => data[..1].to_vec(),
            _ => data,
        };
        assert_eq!(packet.to_bytes(), again, "{what}");
    }
}
