//! What a log answers to each start, sent by a server to a client with much credit.

use std::sync::Arc;

use serde_json::{Value, json};
use unstall_proto::Time;
use unstall_proto::topics::{
    AccessToken, Client, ClientConfig, Durability, Filter, LogInfo, Server, ServerConfig,
    ServerEvent, StoredAt, SubscribeOptions, TopicPacket, TopicRecord,
};

use crate::log::{Log, start};
use crate::words::{end_name, gap};
use crate::{list, read, text};

/// A packet of a server as the vectors have it.
fn answers(packet: TopicPacket) -> Vec<Value> {
    match packet {
        TopicPacket::Welcome(_) => vec![],
        TopicPacket::Subscribed {
            after,
            time,
            end,
            end_time,
            ..
        } => vec![json!({
            "subscribed": after.get(), "time": time.millis(), "end": end.get(),
            "end_time": end_time.millis(),
        })],
        TopicPacket::Gap { gap: what, .. } => vec![gap(&what)],
        TopicPacket::CaughtUp { offset, time, .. } => {
            vec![json!({ "caught_up": offset.get(), "time": time.millis() })]
        }
        TopicPacket::Ended { reason, .. } => vec![json!({ "ended": end_name(reason) })],
        TopicPacket::Messages { records, .. } => messages(&records),
        other => panic!("{other:?}"),
    }
}

/// The offsets of the messages that begin in a packet.
fn messages(records: &[u8]) -> Vec<Value> {
    let (mut rest, mut all) = (records, Vec::new());
    // The messages of these vectors are one record each.
    let mut begins = true;
    while !rest.is_empty() {
        let record = TopicRecord::read_stored(rest, begins).expect("a record");
        if let Some(first) = record.first {
            all.push(json!({ "message": first.stored.0.get() }));
        }
        begins = !record.continues;
        rest = &rest[record.size..];
    }
    all
}

/// What a server sends in the subscription of a vector.
fn sent(vector: &Value) -> Vec<Value> {
    let (log, ask) = (Log::new(&vector["log"]), &vector["subscribe"]);
    let config = ClientConfig::new().window(1 << 30);
    let largest = vector["largest_message"].as_u64();
    let mut client = Client::new(config.max_message(largest.unwrap_or(8 << 20)));
    let filter = Filter::new(text(&ask["filter"])).expect("a filter");
    let mut options = SubscribeOptions::new();
    if let Some(lag) = ask["largest_lag"].as_u64() {
        options = options.max_lag(std::time::Duration::from_millis(lag));
    }
    client.subscribe(filter, start(&ask["start"]), options);
    client.attach(Time::ORIGIN, AccessToken::NONE);
    let mut server = Server::new(Arc::new(ServerConfig::new()));
    while let Some(packet) = client.poll_transmit(Time::ORIGIN) {
        let packet = packet.into_bytes();
        server.handle_packet(packet).expect("the client is right");
    }
    let bounds = log.bounds;
    let info = LogInfo::new(bounds.log, bounds.first, bounds.last, Durability::Disk);
    while let Some(event) = server.poll_event() {
        match event {
            ServerEvent::Hello(_) => server.welcome(&info),
            ServerEvent::Subscribe(request) => {
                let opening = log.open(&request.start, &request.filter);
                server.subscribed(request.key, opening);
            }
            other => panic!("{other:?}"),
        }
    }
    let now = StoredAt::new(vector["now"].as_u64().unwrap_or(0)).expect("a time");
    let mut all = Vec::new();
    loop {
        log.serve(&mut server);
        let Some(packet) = server.poll_transmit(now) else {
            return all;
        };
        let packet = packet.into_bytes();
        client
            .handle_packet(Time::ORIGIN, packet.clone())
            .expect("the server is right");
        all.extend(answers(TopicPacket::decode(packet).expect("a packet")));
    }
}

#[test]
fn a_log_answers_each_start_as_the_vectors_say() {
    let vectors = read("topics-answers.json");
    let subscriptions = list(&vectors["subscriptions"]);
    assert!(subscriptions.len() >= 76);
    for vector in subscriptions {
        let got = Value::Array(sent(vector));
        assert_eq!(got, vector["answers"], "{}", vector["name"]);
    }
}
