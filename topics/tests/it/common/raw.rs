//! A client that says what tests want it to say, over a real connection.

use std::net::SocketAddr;

use bytes::{BufMut, Bytes, BytesMut};
use unstall::{Client, Connection, Incoming, Options};
use unstall_proto::{ErrorCode, topics::TopicPacket};
use unstall_topics::SUBPROTOCOL;

use super::{in_time, url};

pub(crate) struct Raw {
    pub(crate) connection: Connection,
}

impl Raw {
    /// Connected, and nothing is said.
    pub(crate) async fn connect(address: SocketAddr) -> Raw {
        Raw::with(address, Options::default()).await
    }

    pub(crate) async fn with(address: SocketAddr, options: Options) -> Raw {
        let client = Client::new(url(address))
            .plain()
            .options(options)
            .subprotocol(SUBPROTOCOL)
            .without_reconnect();
        Raw {
            connection: in_time(client.connect()).await.unwrap(),
        }
    }

    /// Connected and welcome.
    pub(crate) async fn welcome(address: SocketAddr) -> Raw {
        let mut raw = Raw::connect(address).await;
        raw.say(hello(7, "")).await;
        let answer = raw.packet().await;
        assert!(
            matches!(answer, Some(TopicPacket::Welcome(_))),
            "{answer:?}"
        );
        raw
    }

    pub(crate) async fn say(&self, packet: impl Into<Bytes>) {
        // Whoever was refused may find the connection closed.
        let _ = in_time(self.connection.send(packet.into())).await;
    }

    /// The next packet; `None` when the connection is over.
    pub(crate) async fn packet(&mut self) -> Option<TopicPacket> {
        match in_time(self.connection.recv()).await {
            Ok(Some(Incoming::Message(message))) => {
                Some(TopicPacket::decode(message.into_bytes()).unwrap())
            }
            _ => None,
        }
    }

    /// The first packet that matches.
    pub(crate) async fn seek(&mut self, wanted: impl Fn(&TopicPacket) -> bool) -> TopicPacket {
        loop {
            let packet = self.packet().await.expect("the connection goes on");
            if wanted(&packet) {
                return packet;
            }
        }
    }

    /// Everything up to the end, which has to be ABORT with this code.
    pub(crate) async fn aborted(&mut self, code: ErrorCode) {
        loop {
            match self.packet().await {
                Some(TopicPacket::Abort { code: told, .. }) => {
                    assert_eq!(told, code);
                    assert!(self.packet().await.is_none(), "nothing follows ABORT");
                    return;
                }
                Some(_) => {}
                None => panic!("the connection ended without a word"),
            }
        }
    }

    /// It answers a ping, so it is open and served.
    pub(crate) async fn alive(&mut self) {
        self.say(ping(77)).await;
        self.seek(|packet| *packet == TopicPacket::Pong(77)).await;
    }
}

pub(crate) fn hello(publisher: u8, token: &str) -> Bytes {
    let mut packet = BytesMut::new();
    packet.put_u8(0x01);
    packet.put_bytes(publisher, 16);
    packet.put_u64(u64::from(publisher > 0));
    packet.put_u64(64 << 20);
    packet.put_slice(token.as_bytes());
    packet.freeze()
}

pub(crate) fn token(token: &[u8]) -> Bytes {
    let mut packet = BytesMut::new();
    packet.put_u8(0x04);
    packet.put_slice(token);
    packet.freeze()
}

pub(crate) fn ping(number: u64) -> Bytes {
    let mut packet = BytesMut::new();
    packet.put_u8(0x14);
    packet.put_u64(number);
    packet.freeze()
}

/// SUBSCRIBE from the beginning.
pub(crate) fn subscribe(number: u32, credit: u64, filter: &[u8]) -> Bytes {
    subscribe_from(number, credit, &[0], filter)
}

pub(crate) fn subscribe_from(number: u32, credit: u64, start: &[u8], filter: &[u8]) -> Bytes {
    let mut packet = BytesMut::new();
    packet.put_u8(0x20);
    packet.put_u32(number);
    packet.put_u64(credit);
    packet.put_u64(0);
    packet.put_slice(start);
    packet.put_slice(filter);
    packet.freeze()
}

/// The start "last N".
pub(crate) fn last(count: u64) -> [u8; 9] {
    let mut start = [3; 9];
    start[1..].copy_from_slice(&count.to_be_bytes());
    start
}

pub(crate) fn credit(number: u32, limit: u64) -> Bytes {
    let mut packet = BytesMut::new();
    packet.put_u8(0x25);
    packet.put_u32(number);
    packet.put_u64(limit);
    packet.freeze()
}

pub(crate) fn unsubscribe(number: u32) -> Bytes {
    let mut packet = BytesMut::new();
    packet.put_u8(0x26);
    packet.put_u32(number);
    packet.freeze()
}

/// PUBLISH with records.
pub(crate) fn publish(first: u64, records: &[&[u8]]) -> Bytes {
    let mut packet = BytesMut::new();
    packet.put_u8(0x30);
    packet.put_u64(first);
    records.iter().for_each(|record| packet.put_slice(record));
    packet.freeze()
}

/// The first record of a message.
pub(crate) fn record(topic: &[u8], text: bool, continues: bool, payload: &[u8]) -> Vec<u8> {
    let mut record = word(text, continues, payload.len());
    record.push(topic.len() as u8);
    record.extend(topic);
    record.extend(payload);
    record
}

/// A further record of a message.
pub(crate) fn further(text: bool, continues: bool, payload: &[u8]) -> Vec<u8> {
    let mut record = word(text, continues, payload.len());
    record.extend(payload);
    record
}

fn word(text: bool, continues: bool, length: usize) -> Vec<u8> {
    let word = (length as u64) << 3 | u64::from(continues) << 1 | u64::from(text);
    // A varint of QUIC: the first two bits say how long it is.
    match word {
        0..=0x3f => vec![word as u8],
        0x40..=0x3fff => (0x4000 | word as u16).to_be_bytes().to_vec(),
        _ => (0x8000_0000 | word as u32).to_be_bytes().to_vec(),
    }
}
