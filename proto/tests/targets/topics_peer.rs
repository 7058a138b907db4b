//! Any packets in any state: neither side panics, and neither holds more than its limits.
//!
//! A script is a list of steps: packets by hand or from pieces that are nearly right, and what the
//! callers of both sides do.

use std::sync::Arc;

use bytes::{BufMut, Bytes, BytesMut};
use unstall_proto::topics::{
    AccessToken, Block, Client, ClientConfig, Delivery, Durability, Filter, LogBounds, LogId,
    LogInfo, Offset, Opening, Outcome, Publisher, Refusal, Server, ServerConfig, ServerEvent,
    Start, StoredAt, StoredMessage, SubscribeOptions, SubscriptionEnd, SubscriptionId,
    SubscriptionKey, Topic,
};
use unstall_proto::{Kind, Time};

use super::script::Script;

const WINDOW: u64 = 262_144;
const LARGEST: u64 = 65_536;
/// What queues, tables and unsent answers may take besides what is paid for.
const OVERHEAD: u64 = 512 * 1024;

pub fn run(input: &[u8]) {
    let mut script = Script(input);
    let held = match script.flag() {
        true => allocation_counter::measure(|| Servers::new().play(script)).bytes_max,
        false => allocation_counter::measure(|| Clients::new().play(script)).bytes_max,
    };
    // The window, a message that is being put together, and each once more while it is copied.
    let limit = 4 * WINDOW + 8 * LARGEST + OVERHEAD;
    assert!(held <= limit, "{held} bytes are held");
}

/// A packet: any bytes, or a kind with fields that have a chance.
fn packet(script: &mut Script<'_>) -> Bytes {
    if script.flag() {
        return Bytes::copy_from_slice(script.bytes());
    }
    let mut buf = BytesMut::new();
    buf.put_u8(script.u8() & 0x37);
    match script.u8() % 4 {
        0 => buf.put_u32(u32::from(script.u8() % 4)),
        1 => buf.put_u64(u64::from(script.u8() % 8)),
        2 => {
            buf.put_u32(u32::from(script.u8() % 4));
            buf.put_u64(u64::from(script.u16()) << 6);
            buf.put_u64(0);
            buf.put_u8(script.u8() % 6);
            buf.put_slice(b">");
        }
        _ => {
            buf.put_u32(1);
            buf.put_u8(1 + script.u8() % 6);
            buf.put_u8(script.u8() & 1);
            buf.put_u64(u64::from(script.u8()));
            buf.put_u64(u64::from(script.u8()));
        }
    }
    for _ in 0..script.u8() % 8 {
        record(script, &mut buf);
    }
    buf.freeze()
}

fn record(script: &mut Script<'_>, buf: &mut BytesMut) {
    let length = script.length().min(65_536);
    let flags = u32::from(script.u8() & 7);
    buf.put_u32(0x8000_0000 | (length as u32) << 3 | flags);
    if script.flag() {
        buf.put_u8(script.u8() & 0x3f);
        buf.put_u8(0);
    }
    if script.flag() {
        buf.put_slice(b"\x01a");
    }
    buf.put_bytes(b'x', length);
}

fn offset(number: u64) -> Offset {
    Offset::new(number).unwrap_or_default()
}

fn block(script: &mut Script<'_>) -> Arc<Block> {
    let payload = vec![b'x'; script.length() % 150_000];
    let begin = u64::from(script.u8());
    let count = u64::from(script.u8() % 4);
    Arc::new(Block::new((begin..begin + count).map(|number| {
        StoredMessage {
            offset: offset(number + 1),
            time: StoredAt::UNKNOWN,
            topic: "a",
            kind: Kind::Text,
            is_final: number % 16 == 0,
            payload: &payload,
        }
    })))
}

/// A server whose client does anything.
struct Servers {
    server: Server,
    keys: Vec<SubscriptionKey>,
    reads: Vec<SubscriptionKey>,
    numbers: Vec<u64>,
}

impl Servers {
    fn new() -> Servers {
        let config = ServerConfig::new()
            .subscriptions(4)
            .max_message(LARGEST)
            .publish_window(WINDOW)
            .hand_bytes(WINDOW)
            .reads(2);
        Servers {
            server: Server::new(Arc::new(config)),
            keys: Vec::new(),
            reads: Vec::new(),
            numbers: Vec::new(),
        }
    }

    fn play(mut self, mut script: Script<'_>) {
        // Otherwise most scripts end at once.
        let mut hello = vec![1];
        hello.extend([3; 16]);
        hello.extend(1u64.to_be_bytes());
        hello.extend(LARGEST.to_be_bytes());
        let _ = self.server.handle_packet(hello.into());
        while !script.is_done() {
            self.step(&mut script);
            self.look();
        }
        while self.server.poll_transmit(StoredAt::UNKNOWN).is_some() {}
        assert!(!self.server.wants_transmit());
    }

    fn step(&mut self, script: &mut Script<'_>) {
        let server = &mut self.server;
        match script.u8() % 12 {
            0..=3 if server.wants_input() => drop(server.handle_packet(packet(script))),
            4 => drop(server.poll_transmit(StoredAt::UNKNOWN)),
            5 => {
                let info = LogInfo::new(LogId([7; 16]), offset(1), offset(9), Durability::Disk);
                server.welcome(&info);
            }
            6 => {
                if let Some(key) = self.keys.pop() {
                    let bounds = LogBounds {
                        log: LogId([7; 16]),
                        first: offset(1),
                        last: offset(script.u8().into()),
                        last_time: StoredAt::UNKNOWN,
                    };
                    match script.u8() % 4 {
                        0 => server.end(key, SubscriptionEnd::NotAllowed, "no"),
                        1 => server
                            .subscribed(key, Opening::latest(&bounds, None, StoredAt::UNKNOWN)),
                        2 => server.subscribed(key, Opening::now(&bounds)),
                        _ => server.subscribed(key, Opening::beginning(&bounds)),
                    }
                }
            }
            7 => {
                if let Some(key) = self.reads.pop() {
                    let through = offset(script.u8().into());
                    match script.u8() % 4 {
                        0 => server.read_damaged(key, through, true),
                        1 => server.read_failed(key, "no"),
                        _ => server.read(key, block(script), through, offset(script.u8().into())),
                    }
                }
            }
            8 => {
                if let Some(number) = self.numbers.pop() {
                    server.published(
                        number,
                        match script.u8() % 3 {
                            0 => Outcome::Stored(None),
                            1 => Outcome::refused(Refusal::Full),
                            _ => Outcome::Stored(Some(offset(1 + u64::from(script.u8())))),
                        },
                    );
                }
            }
            9 => server.set_end(offset(script.u16().into()), StoredAt::UNKNOWN),
            10 => server.release(),
            11 if script.u8().is_multiple_of(16) => server.expire(),
            _ => {}
        }
    }

    fn look(&mut self) {
        while let Some(event) = self.server.poll_event() {
            match event {
                ServerEvent::Subscribe(request) => self.keys.push(request.key),
                ServerEvent::Publish(requests) => {
                    self.numbers.extend(requests.iter().map(|it| it.number));
                }
                _ => {}
            }
        }
        while let Some(read) = self.server.poll_read() {
            self.reads.push(read.key);
        }
        assert!(self.reads.len() <= 2);
        assert!(self.server.in_hand() <= WINDOW + 2 * (4 * 160_000));
    }
}

/// A client whose server does anything.
struct Clients {
    client: Client,
    ids: Vec<SubscriptionId>,
}

impl Clients {
    fn new() -> Clients {
        let publisher = Publisher {
            id: [3; 16],
            epoch: 1,
        };
        let config = ClientConfig::new()
            .publisher(publisher)
            .window(WINDOW)
            .max_message(LARGEST)
            .unanswered(WINDOW);
        Clients {
            client: Client::new(config),
            ids: Vec::new(),
        }
    }

    fn play(mut self, mut script: Script<'_>) {
        self.subscribe(Start::Beginning);
        self.attach();
        while !script.is_done() {
            self.step(&mut script);
            while self.client.poll_event().is_some() {}
            for id in &self.ids {
                let (held, partial) = self.client.held(*id);
                assert!(held <= WINDOW + LARGEST + 400, "{held} bytes are held");
                assert!(partial <= 2 * LARGEST, "{partial} bytes of a message");
            }
        }
        while self.client.poll_transmit(Time::ORIGIN).is_some() {}
        assert!(!self.client.wants_transmit());
    }

    fn subscribe(&mut self, start: Start) {
        if self.ids.is_empty() {
            let options = SubscribeOptions::new();
            self.ids
                .push(self.client.subscribe(Filter::all(), start, options));
        }
    }

    fn attach(&mut self) {
        self.client.attach(Time::ORIGIN, AccessToken::NONE);
        while self.client.poll_transmit(Time::ORIGIN).is_some() {}
        let mut welcome = vec![2];
        welcome.extend([7; 16]);
        welcome.extend(1u64.to_be_bytes());
        welcome.extend(0u64.to_be_bytes());
        welcome.extend(LARGEST.to_be_bytes());
        welcome.extend(WINDOW.to_be_bytes());
        welcome.extend(1_000u64.to_be_bytes());
        welcome.extend(9u32.to_be_bytes());
        welcome.push(1);
        let _ = self.client.handle_packet(Time::ORIGIN, welcome.into());
        let mut subscribed = vec![0x21, 0, 0, 0, 1];
        subscribed.extend([0; 16]);
        subscribed.extend(40u64.to_be_bytes());
        let _ = self.client.handle_packet(Time::ORIGIN, subscribed.into());
    }

    fn step(&mut self, script: &mut Script<'_>) {
        let client = &mut self.client;
        match script.u8() % 10 {
            0..=3 => drop(client.handle_packet(Time::ORIGIN, packet(script))),
            4 => drop(client.poll_transmit(Time::ORIGIN)),
            5 => {
                for id in self.ids.clone() {
                    let delivery = self.client.poll_delivery(id);
                    if let Some(Delivery::Messages(batch)) = delivery {
                        let cost = batch.cost();
                        assert_eq!(batch.map(|message| message.cost).sum::<u64>(), cost);
                        self.client.taken(id, cost);
                    }
                }
            }
            6 => {
                let topic = Topic::new("a").unwrap();
                let payload = vec![b'x'; script.length() % 65_536];
                let _ = client.publish(topic, Kind::Text, false, payload.into());
            }
            7 if script.u8().is_multiple_of(8) => self.attach(),
            8 => client.handle_timeout(Time::from_millis(script.u16().into())),
            9 => {
                for id in std::mem::take(&mut self.ids) {
                    match script.u8() % 8 {
                        0 => self.client.unsubscribe(id),
                        _ => {
                            self.client.resubscribe(id);
                            self.ids.push(id);
                        }
                    }
                }
                self.subscribe(Start::Latest(None));
            }
            _ => {}
        }
    }
}
