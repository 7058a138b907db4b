//! A server whose client is the test, a client whose server is the test, and packets by hand.

use std::sync::Arc;

use bytes::Bytes;
use unstall_proto::topics::{
    AccessToken, Block, Client, ClientConfig, ClientEvent, Delivery, Durability, Filter, LogBounds,
    LogId, LogInfo, Offset, Position, Publisher, Server, ServerConfig, ServerEvent, Snapshot,
    Start, StoredAt, StoredMessage, SubscribeOptions, SubscribeRequest, SubscriptionId,
    TopicPacket,
};
use unstall_proto::{Kind, Time};

pub const LOG: LogId = LogId([7; 16]);
pub const NOW: Time = Time::ORIGIN;
pub const PUBLISHER: Publisher = Publisher {
    id: [3; 16],
    epoch: 1,
};
/// The smallest first credit.
pub const CREDIT: u64 = 131_072;

pub fn offset(number: u64) -> Offset {
    Offset::new(number).unwrap()
}

pub fn time(number: u64) -> StoredAt {
    StoredAt::new(1_700_000_000_000 + number).unwrap()
}

pub fn bounds(first: u64, last: u64) -> LogBounds {
    LogBounds {
        log: LOG,
        first: offset(first),
        last: offset(last),
        last_time: time(last),
    }
}

pub fn message<'a>(number: u64, topic: &'a str, payload: &'a [u8]) -> StoredMessage<'a> {
    StoredMessage {
        offset: offset(number),
        time: time(number),
        topic,
        kind: Kind::Binary,
        is_final: false,
        payload,
    }
}

pub fn block(messages: &[StoredMessage<'_>]) -> Arc<Block> {
    Arc::new(Block::new(messages.iter().copied()))
}

/// A packet from its bytes in hexadecimal digits, with spaces.
pub fn hex(text: &str) -> Bytes {
    let digits: Vec<_> = text.bytes().filter(|byte| *byte != b' ').collect();
    let byte = |pair: &[u8]| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap();
    digits.chunks(2).map(byte).collect()
}

pub fn concat(parts: &[&[u8]]) -> Bytes {
    parts.concat().into()
}

/// HELLO of a client, with the largest message that it accepts.
pub fn hello(publisher: Option<Publisher>, max_message: u64) -> Bytes {
    let (id, epoch) = publisher.map_or(([0; 16], 0), |it| (it.id, it.epoch));
    concat(&[&[1], &id, &epoch.to_be_bytes(), &max_message.to_be_bytes()])
}

/// A server that has welcomed a client.
pub fn welcomed(config: ServerConfig) -> Server {
    welcomed_with(config, hello(Some(PUBLISHER), 1 << 30))
}

pub fn welcomed_with(config: ServerConfig, hello: Bytes) -> Server {
    let mut server = Server::new(Arc::new(config));
    server.handle_packet(hello).unwrap();
    assert!(matches!(server.poll_event(), Some(ServerEvent::Hello(_))));
    server.welcome(&LogInfo::new(
        LOG,
        offset(1),
        Offset::START,
        Durability::Disk,
    ));
    assert!(matches!(sent(&mut server)[..], [TopicPacket::Welcome(_)]));
    server
}

/// Everything that the server sends now.
pub fn sent(server: &mut Server) -> Vec<TopicPacket> {
    let mut packets = Vec::new();
    while server.wants_transmit() {
        let packet = server.poll_transmit(time(0));
        packets.extend(packet.map(|packet| TopicPacket::decode(packet.into_bytes()).unwrap()));
    }
    packets
}

/// SUBSCRIBE from the beginning.
pub fn subscribe(number: u32, credit: u64, filter: &str) -> Bytes {
    let (number, credit) = (number.to_be_bytes(), credit.to_be_bytes());
    concat(&[&[0x20], &number, &credit, &[0; 8], &[0], filter.as_bytes()])
}

/// The client subscribes; the caller is asked.
pub fn asked(server: &mut Server, packet: Bytes) -> SubscribeRequest {
    server.handle_packet(packet).unwrap();
    match server.poll_event() {
        Some(ServerEvent::Subscribe(request)) => request,
        other => panic!("{other:?}"),
    }
}

/// A client that is welcome, with one subscription that its server has not answered.
pub fn client(config: ClientConfig, filter: &str, start: Start) -> (Client, SubscriptionId) {
    let mut client = Client::new(config);
    let filter = Filter::new(filter).unwrap();
    let id = client.subscribe(filter, start, SubscribeOptions::new());
    connect(&mut client, LOG);
    (client, id)
}

/// WELCOME.
pub fn welcome(log: LogId, once_millis: u64) -> Bytes {
    concat(&[
        &[2],
        &log.0,
        &1u64.to_be_bytes(),
        &0u64.to_be_bytes(),
        &65_536u64.to_be_bytes(),
        &262_144u64.to_be_bytes(),
        &once_millis.to_be_bytes(),
        &100u32.to_be_bytes(),
        &[1],
    ])
}

/// A new connection, up to WELCOME. Returns what the client has sent.
pub fn connect(client: &mut Client, log: LogId) -> Vec<TopicPacket> {
    client.attach(NOW, AccessToken::NONE);
    let mut packets = sent_by(client);
    client.handle_packet(NOW, welcome(log, 0)).unwrap();
    packets.extend(sent_by(client));
    while client.poll_event().is_some() {}
    packets
}

/// Everything that the client sends now.
pub fn sent_by(client: &mut Client) -> Vec<TopicPacket> {
    let mut packets = Vec::new();
    while client.wants_transmit() {
        let packet = client.poll_transmit(NOW);
        packets.extend(packet.map(|packet| TopicPacket::decode(packet.into_bytes()).unwrap()));
    }
    packets
}

/// SUBSCRIBED, of a server that does not know the time of its last message.
pub fn subscribed(number: u32, after: u64, at: StoredAt, end: u64) -> Bytes {
    subscribed_up_to(number, (after, at), (end, StoredAt::UNKNOWN))
}

/// SUBSCRIBED.
pub fn subscribed_up_to(number: u32, begin: (u64, StoredAt), end: (u64, StoredAt)) -> Bytes {
    TopicPacket::Subscribed {
        subscription: number,
        after: offset(begin.0),
        time: begin.1,
        end: offset(end.0),
        end_time: end.1,
    }
    .to_bytes()
}

/// SUBSCRIBED, of a first subscription that is a snapshot.
pub fn snapshot_up_to(end: u64) -> Bytes {
    subscribed_up_to(1, (0, StoredAt::UNKNOWN), (end, time(end)))
}

pub fn at(number: u64) -> Position {
    Position {
        log: LOG,
        offset: offset(number),
        time: time(number),
    }
}

/// A snapshot up to `end` that was cut off, of which `through` has come.
pub fn cut(end: u64, through: u64) -> Snapshot {
    Snapshot {
        end: at(end),
        through: offset(through),
    }
}

/// The start that goes on with it.
pub fn latest(end: u64, through: u64) -> Start {
    Start::Latest(Some(cut(end, through)))
}

/// MESSAGES for the first subscription, one record each.
pub fn messages(all: &[StoredMessage<'_>]) -> Bytes {
    let mut server = welcomed(ServerConfig::new());
    let request = asked(&mut server, subscribe(1, 1 << 30, ">"));
    let last = all.last().map_or(0, |last| last.offset.get());
    let opening = unstall_proto::topics::Opening::beginning(&bounds(1, last));
    server.subscribed(request.key, opening);
    assert_eq!(sent(&mut server).len(), 1);
    let read = server.poll_read().unwrap();
    server.read(read.key, block(all), read.through, Offset::START);
    server.poll_transmit(time(0)).unwrap().into_bytes()
}

/// CAUGHT_UP for the first subscription.
pub fn caught_up(at: u64) -> Bytes {
    TopicPacket::CaughtUp {
        subscription: 1,
        offset: offset(at),
        time: time(at),
    }
    .to_bytes()
}

/// GAP for the first subscription.
pub fn gap(reason: u8, after: u64, through: u64) -> Bytes {
    let (after, through) = (after.to_be_bytes(), through.to_be_bytes());
    concat(&[&[0x23, 0, 0, 0, 1, reason, 0], &after, &through])
}

/// Everything that a subscription delivers now.
pub fn delivered(client: &mut Client, id: SubscriptionId) -> Vec<Delivery> {
    std::iter::from_fn(|| client.poll_delivery(id)).collect()
}

pub fn events(client: &mut Client) -> Vec<ClientEvent> {
    std::iter::from_fn(|| client.poll_event()).collect()
}
