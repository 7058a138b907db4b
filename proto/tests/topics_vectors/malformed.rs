//! Malformed packets, given to the side that receives them.

use std::sync::Arc;

use bytes::Bytes;
use serde_json::Value;
use unstall_proto::topics::{
    AccessToken, Client, ClientConfig, Durability, Filter, LogId, LogInfo, Offset, Server,
    ServerConfig, Start, StoredAt, SubscribeOptions,
};
use unstall_proto::{ProtocolError, Time};

use crate::words::error_name;
use crate::{bytes, list, read, text};

const NOW: Time = Time::ORIGIN;

/// A server that has sent WELCOME, and this WELCOME.
fn welcomed_server() -> (Server, Bytes) {
    let mut client = Client::new(ClientConfig::new());
    client.attach(NOW, AccessToken::NONE);
    let hello = client.poll_transmit(NOW).expect("HELLO").into_bytes();
    let mut server = fresh_server();
    server.handle_packet(hello).expect("HELLO is right");
    let first = Offset::new(1).expect("an offset");
    let info = LogInfo::new(LogId([1; 16]), first, Offset::START, Durability::Memory);
    server.welcome(&info);
    let welcome = server.poll_transmit(StoredAt::UNKNOWN).expect("WELCOME");
    (server, welcome.into_bytes())
}

fn fresh_server() -> Server {
    Server::new(Arc::new(ServerConfig::new()))
}

/// A client that waits for WELCOME.
fn waiting_client() -> Client {
    let mut client = Client::new(ClientConfig::new());
    client.subscribe(Filter::all(), Start::Beginning, SubscribeOptions::new());
    client.attach(NOW, AccessToken::NONE);
    while client.poll_transmit(NOW).is_some() {}
    client
}

/// A client with a subscription that has begun.
fn subscribed_client() -> Client {
    let mut client = waiting_client();
    let subscribed = [&[0x21, 0, 0, 0, 1][..], &[0; 32]].concat();
    for packet in [welcomed_server().1, subscribed.into()] {
        client.handle_packet(NOW, packet).expect("it is right");
        while client.poll_transmit(NOW).is_some() {}
    }
    client
}

/// The beginning of the message within which a packet begins.
fn beginning(kind: u8, within: &Value) -> Vec<u8> {
    let flags = u8::from(within["text"] == true) | (u8::from(within["final"] == true) << 2);
    let word = 8 | 2 | flags;
    match kind {
        0x22 => vec![0x22, 0, 0, 0, 1, word, 1, 0, 1, b't', b'x'],
        _ => vec![0x30, 0, 0, 0, 0, 0, 0, 0, 1, word, 1, b't', b'x'],
    }
}

fn to_server(packet: Vec<u8>, within: &Value) -> Result<(), ProtocolError> {
    let mut server = match packet.first() {
        Some(0x01) => fresh_server(),
        _ => welcomed_server().0,
    };
    if within.is_object() {
        server
            .handle_packet(beginning(0x30, within).into())
            .expect("the beginning is right");
    }
    server.handle_packet(packet.into())
}

fn to_client(packet: Vec<u8>, within: &Value) -> Result<(), ProtocolError> {
    let mut client = match packet.first() {
        Some(0x02 | 0x03) => waiting_client(),
        _ => subscribed_client(),
    };
    if within.is_object() {
        client
            .handle_packet(NOW, beginning(0x22, within).into())
            .expect("the beginning is right");
    }
    client.handle_packet(NOW, packet.into())
}

#[test]
fn every_malformed_packet_of_the_vectors_gives_its_error() {
    let vectors = read("topics-packets.json");
    let malformed = list(&vectors["malformed"]);
    assert!(malformed.len() >= 124);
    let (mut servers, mut clients) = (0, 0);
    for vector in malformed {
        let (packet, within) = (bytes(vector), &vector["within"]);
        let what = text(&vector["name"]);
        let check = |result: Result<(), ProtocolError>| {
            let error = result.expect_err(what);
            assert_eq!(vector["error"], error_name(error.code()), "{what}: {error}");
        };
        let kind = packet.first().copied();
        let of_client = [0x01, 0x04, 0x20, 0x25, 0x26, 0x30];
        let of_server = [0x02, 0x03, 0x1b, 0x21, 0x22, 0x23, 0x24, 0x27, 0x31, 0x32];
        if !kind.is_some_and(|kind| of_server.contains(&kind)) {
            servers += 1;
            check(to_server(packet.clone(), within));
        }
        if !kind.is_some_and(|kind| of_client.contains(&kind)) {
            clients += 1;
            check(to_client(packet, within));
        }
    }
    assert!(servers >= 49 && clients >= 86, "{servers} and {clients}");
}
