//! What one record costs on one core: encoded, decoded, handed over, taken, acknowledged and
//! credited. `cargo bench -p unstall-proto`.
#![allow(missing_docs)]

use std::num::NonZeroU64;

use divan::counter::{BytesCount, ItemsCount};
use divan::{Bencher, black_box};
use unstall_proto::{
    Config, Epoch, Generation, Hello, Incoming, Payload, Session, SessionId, Time, Token,
};

const NOW: Time = Time::ORIGIN;
const ROUND: u64 = 4096;

fn main() {
    divan::main();
}

struct Pair {
    client: Session,
    on_client: Generation,
    server: Session,
    on_server: Generation,
}

impl Pair {
    fn new() -> Pair {
        let config = Config::new().window(8 << 20).replay(64 << 20);
        let mut client = Session::client(config.clone(), SessionId([1; 16]), Token([2; 16]));
        let on_client = client.attach(NOW).unwrap();
        let hello = client.poll_transmit(NOW, on_client).unwrap();
        let hello = Hello::from_packet(hello).unwrap();
        let epoch = Epoch(NonZeroU64::MIN);
        let (mut server, on_server) =
            Session::server(config, &hello, epoch, Token([3; 16])).unwrap();
        let welcome = server.poll_transmit(NOW, on_server).unwrap();
        client.handle_packet(NOW, on_client, welcome).unwrap();
        Pair {
            client,
            on_client,
            server,
            on_server,
        }
    }

    /// Sends `ROUND` messages; `take` sees each batch.
    fn round(&mut self, payload: Payload<'_>, mut take: impl FnMut(&mut unstall_proto::Batch)) {
        for _ in 0..ROUND {
            self.client.send(payload).unwrap();
        }
        while let Some(packet) = self.client.poll_transmit(NOW, self.on_client) {
            self.server
                .handle_packet(NOW, self.on_server, packet)
                .unwrap();
            while let Some(Incoming::Messages(mut batch)) = self.server.recv() {
                take(&mut batch);
                self.server.taken(NOW, batch.end());
            }
            while let Some(packet) = self.server.poll_transmit(NOW, self.on_server) {
                self.client
                    .handle_packet(NOW, self.on_client, packet)
                    .unwrap();
            }
        }
    }
}

fn text(size: usize) -> String {
    "x".repeat(size)
}

#[divan::bench(args = [16, 64, 512, 4096])]
fn binary_borrowed(bencher: Bencher<'_, '_>, size: usize) {
    let mut pair = Pair::new();
    let payload = text(size);
    bencher
        .counter(ItemsCount::new(ROUND))
        .counter(BytesCount::new(ROUND * size as u64))
        .bench_local(|| {
            pair.round(Payload::Binary(payload.as_bytes()), |batch| {
                while let Some(message) = batch.next_ref() {
                    black_box(message);
                }
            });
        });
}

#[divan::bench(args = [64])]
fn text_borrowed(bencher: Bencher<'_, '_>, size: usize) {
    let mut pair = Pair::new();
    let payload = text(size);
    bencher.counter(ItemsCount::new(ROUND)).bench_local(|| {
        pair.round(Payload::Text(&payload), |batch| {
            while let Some(message) = batch.next_ref() {
                black_box(message);
            }
        });
    });
}

#[divan::bench(args = [64])]
fn binary_as_slices(bencher: Bencher<'_, '_>, size: usize) {
    let mut pair = Pair::new();
    let payload = text(size);
    bencher.counter(ItemsCount::new(ROUND)).bench_local(|| {
        pair.round(Payload::Binary(payload.as_bytes()), |batch| {
            for message in batch {
                black_box(message);
            }
        });
    });
}
