//! What one side can make the other one hold.

use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use unstall_proto::topics::{
    Block, Client, ClientConfig, LogInfo, Offset, Opening, Server, ServerConfig, ServerEvent,
    Start, StoredAt,
};

use crate::common::*;

fn bytes_held<T>(make: impl FnOnce() -> T) -> (u64, T) {
    let mut made = None;
    let counted = allocation_counter::measure(|| made = Some(make()));
    (
        u64::try_from(counted.bytes_current).unwrap_or(0),
        made.unwrap(),
    )
}

#[test]
fn an_idle_subscriber_takes_less_than_a_kibibyte() {
    let config = Arc::new(ServerConfig::new());
    let hello = hello(None, 1 << 20);
    let subscribe = subscribe(1, CREDIT, "prices.EUR.USD");
    let (held, server) = bytes_held(|| {
        let mut server = Server::new(config.clone());
        server.handle_packet(hello.clone()).unwrap();
        server.poll_event();
        let info = LogInfo::new(
            LOG,
            offset(1),
            offset(9),
            unstall_proto::topics::Durability::Memory,
        );
        server.welcome(&info);
        while server.poll_transmit(time(0)).is_some() {}
        server.handle_packet(subscribe.clone()).unwrap();
        let Some(ServerEvent::Subscribe(request)) = server.poll_event() else {
            panic!("it subscribes");
        };
        server.subscribed(request.key, Opening::now(&bounds(1, 9)));
        while server.poll_transmit(time(0)).is_some() {}
        server
    });
    let whole = held + size_of::<Server>() as u64;
    println!(
        "{whole} bytes, of which {} are the server's own",
        size_of::<Server>()
    );
    assert!(whole < 1024, "{whole} bytes");
    drop(server);
}

#[test]
fn a_publisher_that_reads_no_answers_makes_a_server_hold_its_window() {
    let config = ServerConfig::new()
        .publish_window(262_144)
        .max_message(65_536);
    let mut server = welcomed(config);
    let (held, ()) = bytes_held(|| {
        for number in 1..=4_000u64 {
            let first = number.to_be_bytes();
            let packet = concat(&[&[0x30], &first, &hex("00 01 61")]);
            if server.handle_packet(packet).is_err() {
                panic!("{number} messages cost less than the window");
            }
            server.poll_event();
        }
    });
    assert!(held < 2 * 262_144, "{held} bytes");
    assert!(
        server
            .handle_packet(hex("30 0000000000000fa1 00 01 61"))
            .is_ok()
    );
}

#[test]
fn memory_for_a_message_is_taken_as_its_pieces_arrive() {
    let mut server = welcomed(ServerConfig::new().max_message(1 << 30));
    let piece = concat(&[&hex("30 0000000000000001 800003ea"), &[7; 125]]);
    let first = concat(&[&hex("30 0000000000000001 0a 01 61"), &[7; 1]]);
    server.handle_packet(first).unwrap();
    let (held, ()) = bytes_held(|| {
        for _ in 0..1_000 {
            server.handle_packet(piece.clone()).unwrap();
        }
    });
    assert!(held < 3 * 125_000, "{held} bytes for 125,000");
    let told = server.memory();
    assert!(told.abs_diff(held) < 130_000, "{told} bytes are told");
}

/// A packet that has memory of its own, as one that was read from a socket.
fn own(packet: &Bytes) -> Bytes {
    BytesMut::from(&packet[..]).freeze()
}

#[test]
fn a_client_holds_no_more_than_its_window_for_an_application_that_takes_nothing() {
    let window = 262_144;
    let config = || ClientConfig::new().window(window);
    // Packets with one small message each would take several times their cost.
    for length in [0, 50, 500, 5_000, 60_000] {
        let payload = vec![0; length];
        let (mut client, _) = client(config(), ">", Start::Beginning);
        let open = subscribed(1, 0, StoredAt::UNKNOWN, 1 << 40);
        client.handle_packet(NOW, open).unwrap();
        let (held, number) = bytes_held(|| fill(&mut client, &payload));
        println!("{number} messages of {length} bytes: {held} bytes");
        assert!(held < 2 * window, "{held} bytes of messages of {length}");
    }
}

/// Sends until the credit is used up. Returns how many messages.
fn fill(client: &mut Client, payload: &[u8]) -> u64 {
    for number in 1.. {
        let packet = own(&messages(&[message(number, "a", payload)]));
        if client.handle_packet(NOW, packet).is_err() {
            return number;
        }
    }
    0
}

#[test]
fn gaps_and_marks_without_end_take_no_memory() {
    let (mut client, _) = client(ClientConfig::new(), ">", Start::Beginning);
    client
        .handle_packet(NOW, subscribed(1, 0, StoredAt::UNKNOWN, 9))
        .unwrap();
    client.handle_packet(NOW, caught_up(9)).unwrap();
    let (held, ()) = bytes_held(|| {
        for number in 5..20_000u64 {
            let reason = [1, 4, 5, 6][number as usize % 4];
            let packet = gap(reason, 2 * number, 2 * number + 1);
            client.handle_packet(NOW, packet).unwrap();
            client
                .handle_packet(NOW, caught_up(2 * number + 2))
                .unwrap();
            let go_away = hex("1b 0000000000000005");
            client.handle_packet(NOW, go_away).unwrap();
        }
    });
    assert!(held < 10_000, "{held} bytes");
}

#[test]
fn ten_thousand_readers_of_a_block_share_its_bytes() {
    let payload = vec![1; 100_000];
    let shared = Arc::new(Block::new([message(1, "a", &payload)]));
    let (held, servers) = bytes_held(|| {
        let all = (0..100).map(|_| {
            let mut server = welcomed(ServerConfig::new());
            let request = asked(&mut server, subscribe(1, CREDIT, ">"));
            server.subscribed(request.key, Opening::beginning(&bounds(1, 1)));
            sent(&mut server);
            let read = server.poll_read().unwrap();
            server.read(read.key, shared.clone(), offset(1), Offset::START);
            let packet = server.poll_transmit(time(0)).unwrap();
            (server, packet)
        });
        all.collect::<Vec<_>>()
    });
    assert!(held / 100 < 3_000, "{} bytes each", held / 100);
    drop(servers);
}
