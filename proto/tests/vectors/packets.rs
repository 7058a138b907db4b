//! `packets.json`: every kind of packet, and malformed ones.

use std::num::NonZeroU64;

use serde_json::{Value, json};
use unstall_proto::{
    CloseFrame, Epoch, ErrorCode, Generation, Hello, Kind, Offset, Packet, ProtocolError, Record,
    Rejection, Seq, SessionId, Token, Welcome,
};

use crate::runner::{error_name, hex, unhex};
use crate::{read, writing, written};

fn hello(epoch: u64, generation: u64, received: u64) -> Packet {
    Packet::Hello(Hello {
        id: SessionId([1; 16]),
        token: Token([2; 16]),
        epoch: NonZeroU64::new(epoch).map(Epoch),
        generation: Generation::new(generation),
        received: Seq::new(received),
        acked: Seq::new(received / 2),
        credit: Offset::new(1 << 20),
        max_message: 8 << 20,
    })
}

fn welcome() -> Packet {
    Packet::Welcome(Welcome {
        token: Token([0xa0; 16]),
        epoch: Epoch(NonZeroU64::new(7).unwrap()),
        generation: Generation::new(1),
        received: Seq::ZERO,
        acked: Seq::ZERO,
        credit: Offset::new(1 << 20),
        max_message: 8 << 20,
        life_millis: 120_000,
    })
}

fn data(first: u64, records: &str) -> Packet {
    Packet::Data {
        first: Seq::new(first),
        records: unhex(records).into(),
    }
}

fn close(last: u64, code: u16, reason: &str) -> Packet {
    Packet::Close {
        last: Seq::new(last),
        within_millis: 5000,
        frame: CloseFrame::new(code, reason),
    }
}

fn valid() -> Vec<(&'static str, Packet)> {
    let long = format!("4100{}", "78".repeat(64));
    let full = Rejection::Full {
        retry_after_millis: 1500,
    };
    vec![
        ("HELLO that opens a session", hello(0, 1, 0)),
        ("HELLO that resumes a session", hello(7, 3, 9)),
        ("WELCOME", welcome()),
        ("REJECT expired", Packet::Reject(Rejection::Expired)),
        ("REJECT unknown", Packet::Reject(Rejection::Unknown)),
        ("REJECT not yours", Packet::Reject(Rejection::NotYours)),
        ("REJECT superseded", Packet::Reject(Rejection::Superseded)),
        ("REJECT full, again in 1.5 s", Packet::Reject(full)),
        (
            "REJECT inconsistent",
            Packet::Reject(Rejection::Inconsistent),
        ),
        (
            "REJECT for a reason of a later server",
            Packet::Reject(Rejection::Other(200)),
        ),
        ("DATA with the text \"hi\"", data(1, "096869")),
        (
            "DATA with an empty text and an empty binary",
            data(2, "0100"),
        ),
        ("DATA with 64 bytes: a length of two bytes", data(3, &long)),
        (
            "DATA with a length longer than needed",
            data(1, "800000086869"),
        ),
        ("DATA whose last record continues", data(5, "04ff0e616263")),
        ("DATA with the last sequence number", data(u64::MAX, "00")),
        ("ACK", Packet::Ack(Seq::new(4096))),
        ("CREDIT", Packet::Credit(Offset::new(1 << 21))),
        ("BLOCKED", Packet::Blocked(Offset::new(1 << 20))),
        ("PING", Packet::Ping(1)),
        ("PONG", Packet::Pong(1)),
        ("CLOSE", close(12, 1000, "bye")),
        ("CLOSE without records and reason", close(0, 4000, "")),
        ("END", Packet::End),
        (
            "ABORT",
            Packet::Abort {
                code: ErrorCode::CREDIT_EXCEEDED,
                reason: "too much".to_owned(),
            },
        ),
        (
            "GOAWAY",
            Packet::GoAway {
                within_millis: 30_000,
                reason: "deploy".to_owned(),
            },
        ),
        ("an unknown kind that is ignored", Packet::Unknown(0x80)),
    ]
}

/// The malformed packets: hex, and the error's name.
fn malformed() -> Vec<(&'static str, String, &'static str)> {
    let number = "0000000000000001";
    let ok_welcome = hex(&welcome().to_bytes());
    let ok_hello = hex(&hello(7, 3, 9).to_bytes());
    let mut zero_generation = hello(7, 3, 9).to_bytes().to_vec();
    zero_generation[41..49].fill(0);
    let mut small_message = hello(7, 3, 9).to_bytes().to_vec();
    small_message[73..81].fill(0);
    let mut zero_epoch = welcome().to_bytes().to_vec();
    zero_epoch[17..25].fill(0);
    let mut long_life = welcome().to_bytes().to_vec();
    long_life[65..73].fill(0xff);
    let long_reason = format!("1a0001{}", "78".repeat(124));
    let record = |records: &str| format!("10{number}{records}");
    vec![
        ("an empty packet", String::new(), "MALFORMED"),
        ("the unknown kind 0", "00".to_owned(), "UNKNOWN_KIND"),
        (
            "an unknown kind below 0x80",
            "7f00".to_owned(),
            "UNKNOWN_KIND",
        ),
        (
            "HELLO cut short",
            ok_hello[..ok_hello.len() - 2].to_owned(),
            "MALFORMED",
        ),
        (
            "HELLO with a byte left over",
            format!("{ok_hello}00"),
            "MALFORMED",
        ),
        (
            "HELLO with the generation 0",
            hex(&zero_generation),
            "MALFORMED",
        ),
        (
            "HELLO with a largest message below the smallest",
            hex(&small_message),
            "MALFORMED",
        ),
        ("WELCOME with the epoch 0", hex(&zero_epoch), "MALFORMED"),
        (
            "WELCOME with a life of more than ten years",
            hex(&long_life),
            "MALFORMED",
        ),
        (
            "WELCOME cut short",
            ok_welcome[..ok_welcome.len() - 2].to_owned(),
            "MALFORMED",
        ),
        ("REJECT cut short", "0301".to_owned(), "MALFORMED"),
        (
            "REJECT with a byte left over",
            format!("0305{number}00"),
            "MALFORMED",
        ),
        (
            "DATA cut in its header",
            "1000000000000001".to_owned(),
            "MALFORMED",
        ),
        ("DATA without records", record(""), "MALFORMED"),
        (
            "DATA from the sequence number 0",
            "10000000000000000000".to_owned(),
            "MALFORMED",
        ),
        (
            "DATA whose record's length is cut",
            record("41"),
            "MALFORMED",
        ),
        ("DATA whose record is cut", record("0968"), "MALFORMED"),
        (
            "DATA with a record that is too long",
            record("80040004"),
            "MALFORMED",
        ),
        (
            "DATA with an empty record that continues",
            record("02"),
            "MALFORMED",
        ),
        ("ACK cut short", "1100".to_owned(), "MALFORMED"),
        (
            "ACK with a byte left over",
            format!("11{number}00"),
            "MALFORMED",
        ),
        (
            "DATA with a record whose length takes 8 bytes and is too long",
            record("c0000000ffffffff00"),
            "MALFORMED",
        ),
        ("CREDIT cut short", "12".to_owned(), "MALFORMED"),
        ("BLOCKED cut short", "1300000000".to_owned(), "MALFORMED"),
        (
            "PING with a byte left over",
            format!("14{number}ff"),
            "MALFORMED",
        ),
        ("PONG cut short", "15000000".to_owned(), "MALFORMED"),
        (
            "CLOSE with a deadline of more than ten years",
            format!("18{number}000000496cebb80103e8"),
            "MALFORMED",
        ),
        (
            "CLOSE cut in its code",
            format!("18{number}{number}03"),
            "MALFORMED",
        ),
        (
            "CLOSE with a reason that is not UTF-8",
            format!("18{number}{number}03e8ff"),
            "MALFORMED",
        ),
        ("END with a byte left over", "1900".to_owned(), "MALFORMED"),
        ("ABORT cut in its code", "1a00".to_owned(), "MALFORMED"),
        ("ABORT with a reason of 124 bytes", long_reason, "MALFORMED"),
        (
            "GOAWAY with a window of more than ten years",
            format!("1b{}", "ff".repeat(8)),
            "MALFORMED",
        ),
    ]
}

fn fields(packet: &Packet) -> Value {
    let text = |number: u64| number.to_string();
    match packet {
        Packet::Hello(hello) => json!({
            "kind": "HELLO", "session_id": hex(&hello.id.0), "token": hex(&hello.token.0),
            "epoch": text(hello.epoch.map_or(0, |epoch| epoch.0.get())),
            "generation": text(hello.generation.get()), "received": text(hello.received.get()),
            "acked": text(hello.acked.get()), "credit": text(hello.credit.get()),
            "largest_message": text(hello.max_message),
        }),
        Packet::Welcome(welcome) => json!({
            "kind": "WELCOME", "token": hex(&welcome.token.0),
            "epoch": text(welcome.epoch.0.get()), "generation": text(welcome.generation.get()),
            "received": text(welcome.received.get()), "acked": text(welcome.acked.get()),
            "credit": text(welcome.credit.get()), "largest_message": text(welcome.max_message),
            "life": text(welcome.life_millis),
        }),
        Packet::Reject(rejection) => json!({
            "kind": "REJECT", "reason": rejection_number(*rejection),
            "retry_after": match rejection {
                Rejection::Full { retry_after_millis } => text(*retry_after_millis),
                _ => text(0),
            },
        }),
        Packet::Data {
            first,
            records: bytes,
        } => json!({
            "kind": "DATA", "first": text(first.get()), "records": records(bytes),
        }),
        Packet::Ack(seq) => json!({ "kind": "ACK", "seq": text(seq.get()) }),
        Packet::Credit(offset) => json!({ "kind": "CREDIT", "offset": text(offset.get()) }),
        Packet::Blocked(offset) => json!({ "kind": "BLOCKED", "offset": text(offset.get()) }),
        Packet::Ping(number) => json!({ "kind": "PING", "number": text(*number) }),
        Packet::Pong(number) => json!({ "kind": "PONG", "number": text(*number) }),
        Packet::Close {
            last,
            within_millis,
            frame,
        } => json!({
            "kind": "CLOSE", "last": text(last.get()), "deadline": text(*within_millis), "code": frame.code, "reason": frame.reason,
        }),
        Packet::End => json!({ "kind": "END" }),
        Packet::Abort { code, reason } => {
            json!({ "kind": "ABORT", "code": code.0, "reason": reason })
        }
        Packet::GoAway {
            within_millis,
            reason,
        } => {
            json!({ "kind": "GOAWAY", "window": text(*within_millis), "reason": reason })
        }
        Packet::Unknown(kind) => json!({ "kind": kind }),
        _ => panic!("a kind of packet without fields"),
    }
}

fn rejection_number(rejection: Rejection) -> u8 {
    rejection.to_packet()[1]
}

fn records(mut bytes: &[u8]) -> Vec<Value> {
    let mut all = Vec::new();
    while !bytes.is_empty() {
        let record = Record::read(bytes).expect("a record");
        all.push(json!({
            "text": record.kind == Kind::Text, "continues": record.continues,
            "payload": hex(record.payload),
        }));
        bytes = &bytes[record.size()..];
    }
    all
}

/// What decoding, and walking the records, says of a packet.
fn verdict(bytes: Vec<u8>) -> Result<Packet, ProtocolError> {
    let packet = Packet::decode(bytes.into())?;
    if let Packet::Data { records, .. } = &packet {
        let mut rest = &records[..];
        while !rest.is_empty() {
            rest = &rest[Record::read(rest)?.size()..];
        }
    }
    Ok(packet)
}

#[test]
fn every_packet_is_as_the_vectors_have_it() {
    let valid: Vec<_> = valid()
        .into_iter()
        .map(|(name, packet)| {
            json!({ "name": name, "hex": hex(&packet.to_bytes()), "packet": fields(&packet) })
        })
        .collect();
    let malformed: Vec<_> = malformed()
        .into_iter()
        .map(|(name, hex, error)| json!({ "name": name, "hex": hex, "error": error }))
        .collect();
    let built = json!({ "valid": valid, "malformed": malformed });
    if !written("packets.json", &built) {
        assert_eq!(read("packets.json"), built);
    }
}

#[test]
fn every_packet_of_the_vectors_decodes_to_its_fields_and_back() {
    if writing() {
        return;
    }
    let vectors = read("packets.json");
    let valid = vectors["valid"].as_array().expect("a list");
    assert!(valid.len() >= 27);
    for vector in valid {
        let bytes = unhex(vector["hex"].as_str().expect("hex"));
        let packet = verdict(bytes.clone()).unwrap_or_else(|e| panic!("{}: {e}", vector["name"]));
        assert_eq!(fields(&packet), vector["packet"], "{}", vector["name"]);
        assert_eq!(packet.to_bytes(), bytes, "{}", vector["name"]);
    }
}

#[test]
fn every_malformed_packet_of_the_vectors_gives_its_error() {
    if writing() {
        return;
    }
    let vectors = read("packets.json");
    let malformed = vectors["malformed"].as_array().expect("a list");
    assert!(malformed.len() >= 33);
    for vector in malformed {
        let bytes = unhex(vector["hex"].as_str().expect("hex"));
        let error = verdict(bytes).expect_err(vector["name"].as_str().expect("a name"));
        assert_eq!(error_name(&error), vector["error"], "{}", vector["name"]);
    }
}
