//! Records cost no allocation: only packets and blocks do.

use std::num::NonZeroU64;

use unstall_proto::{Config, Epoch, Generation, Hello, Incoming, Session, SessionId, Time, Token};

const MESSAGES: u64 = 10_000;

fn opened() -> (Session, Generation, Session, Generation) {
    let now = Time::ORIGIN;
    let config = Config::new().window(16 << 20);
    let mut client = Session::client(config.clone(), SessionId([1; 16]), Token([2; 16]));
    let on_client = client.attach(now).unwrap();
    let hello = Hello::from_packet(client.poll_transmit(now, on_client).unwrap()).unwrap();
    let epoch = Epoch(NonZeroU64::MIN);
    let (mut server, on_server) = Session::server(config, &hello, epoch, Token([3; 16])).unwrap();
    let welcome = server.poll_transmit(now, on_server).unwrap();
    client.handle_packet(now, on_client, welcome).unwrap();
    (client, on_client, server, on_server)
}

#[test]
fn ten_thousand_messages_cost_only_their_packets() {
    let now = Time::ORIGIN;
    let (mut client, on_client, mut server, on_server) = opened();
    let mut packets = 0;
    let mut received = 0;
    let counted = allocation_counter::measure(|| {
        for _ in 0..MESSAGES {
            client.send(&[7; 64][..]).unwrap();
        }
        while let Some(packet) = client.poll_transmit(now, on_client) {
            packets += 1;
            server.handle_packet(now, on_server, packet).unwrap();
            while let Some(Incoming::Messages(mut batch)) = server.recv() {
                while let Some(message) = batch.next_ref() {
                    received += u64::from(message.payload == [7; 64]);
                }
                server.taken(now, batch.end());
            }
            while let Some(packet) = server.poll_transmit(now, on_server) {
                client.handle_packet(now, on_client, packet).unwrap();
            }
        }
    });
    assert_eq!(received, MESSAGES);
    // A block and its handle serve two packets; the queues grow now and then.
    assert!(
        counted.count_total <= 4 * packets + 30,
        "{} in {packets} packets",
        counted.count_total
    );
    assert!(
        counted.count_total * 50 < MESSAGES,
        "{} for {MESSAGES}",
        counted.count_total
    );
}
