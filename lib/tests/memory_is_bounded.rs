//! Memory stays under the documented limits, whatever the peer sends and the application fails to do. A
//! message that is kept costs little more than its size. The allocator counts, so each test runs alone.

#[path = "it/common/mod.rs"]
#[expect(dead_code, reason = "what is needed of the helpers here is little")]
mod common;

use common::raw;

use std::{
    io::Write,
    net::{Ipv4Addr, TcpStream},
    sync::{
        Arc, Mutex, MutexGuard,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    time::Duration,
};

use common::frames::{BINARY, CLOSE, CONTINUATION, PING, RawPeer, upgrade};
use common::net::{ask, bind, connect_from, serve};
use common::{client, echo, echoed, events::waits, limit, plain, until};
use peak_alloc::PeakAlloc;
use tokio::io::AsyncWriteExt;
use unstall::{
    Budget, Compression, Connection, ConnectionError, Gap, Incoming, Message, Options, Overflow,
    SendRefusal, Server, Spill, SpillFallback, StallCause, TrySendError,
    tokio_tungstenite::tungstenite::protocol::Role,
};
use unstall_proto::{Packet, SUBPROTOCOL};

#[global_allocator]
static ALLOCATED: PeakAlloc = PeakAlloc;

const KIB: usize = 1 << 10;
const MIB: usize = 1 << 20;
/// A connection's read window and write buffer, as documented at `Options`.
const BUFFERS: usize = MIB;

/// The tests share the counting allocator, so only one may run at a time.
fn alone() -> MutexGuard<'static, ()> {
    static ALONE: Mutex<()> = Mutex::new(());
    ALONE
        .lock()
        .unwrap_or_else(|poisoned| poisoned.into_inner())
}

fn run(test: impl Future<Output = ()>) {
    let _alone = alone();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(test);
}

/// The growth of memory since this was made: now, and the highest.
struct Growth(usize);

impl Growth {
    fn start() -> Growth {
        ALLOCATED.reset_peak_usage();
        Growth(ALLOCATED.current_usage())
    }

    fn peak(&self) -> usize {
        ALLOCATED.peak_usage().saturating_sub(self.0)
    }

    fn now(&self) -> usize {
        ALLOCATED.current_usage().saturating_sub(self.0)
    }
}

/// A thread that floods. The memory of its frames is freed when it is joined.
struct Flooded {
    _tcp: TcpStream,
    _frames: Vec<u8>,
    written: usize,
}

/// Writes the frames again and again from a thread of its own, until `total` bytes are written or the
/// socket takes nothing for a second. It allocates nothing during that.
fn flood(raw: RawPeer, frames: Vec<u8>, total: usize) -> std::thread::JoinHandle<Flooded> {
    let mut tcp = raw.io.into_std().unwrap();
    tcp.set_nonblocking(false).unwrap();
    tcp.set_write_timeout(Some(Duration::from_secs(1))).unwrap();
    std::thread::spawn(move || {
        let mut written = 0;
        'all: while written < total {
            let mut rest = &frames[..];
            while !rest.is_empty() {
                match tcp.write(rest) {
                    Ok(taken) => {
                        written += taken;
                        rest = &rest[taken..];
                    }
                    Err(_) => break 'all,
                }
            }
        }
        Flooded {
            _tcp: tcp,
            _frames: frames,
            written,
        }
    })
}

fn frames(size: usize, count: usize) -> Vec<u8> {
    let payload = vec![7; size];
    let mut frames = Vec::with_capacity(count * (size + 10));
    (0..count).for_each(|_| raw::encode(&mut frames, BINARY, &payload));
    frames
}

#[test]
fn paused_connection_holds_the_peer_and_keeps_to_its_inbox() {
    run(async {
        let options = Options::default();
        let growth = Growth::start();
        let (connection, raw) = raw::client(options).await;
        let frames = frames(4 * KIB, 16);
        let own = frames.len();
        let peer = flood(raw, frames, 1 << 30);
        until("the peer held", || peer.is_finished()).await;
        let stalled: Vec<_> = connection.stats().stalled_by().collect();
        assert_eq!(stalled, [StallCause::ApplicationNotReading]);
        let peak = growth.peak() - own;
        assert!(peak <= 4 * MIB + BUFFERS, "{peak}");
        let written = peer.join().unwrap().written;
        assert!(written < 64 * MIB, "the peer wrote {written}");
    });
}

fn gibibyte_is_read_within(limit: usize, policy: Overflow, size: usize) {
    run(async {
        let growth = Growth::start();
        let (connection, raw) = raw::client(Options::default().overflow(policy)).await;
        let frames = frames(size, (64 * KIB / size).max(1));
        let own = frames.len();
        let whole = (1 << 30) / own;
        let messages = whole * (64 * KIB / size).max(1);
        let peer = flood(raw, frames, whole * own);
        until("all read", || {
            connection.stats().messages_received == messages as u64
        })
        .await;
        let peak = growth.peak() - own;
        assert!(peak <= limit + BUFFERS, "{peak}");
        peer.join().unwrap();
    });
}

#[test]
fn drop_oldest_reads_1_gib_within_its_inbox() {
    gibibyte_is_read_within(4 * MIB, Overflow::DropOldest, 4 * KIB);
}

#[test]
fn drop_newest_reads_1_gib_within_its_inbox() {
    // Long messages keep the buffer that they were read into, which may be one and a half times as large.
    gibibyte_is_read_within(6 * MIB, Overflow::DropNewest, 64 * KIB);
}

#[test]
fn flood_of_empty_messages_is_bounded_by_the_limit() {
    for policy in [Overflow::Pause, Overflow::DropOldest, Overflow::DropNewest] {
        run(async {
            let growth = Growth::start();
            let options = Options::default().inbox_bytes(MIB).overflow(policy.clone());
            let (_connection, raw) = raw::client(options).await;
            let frames = frames(0, 16 * KIB);
            let own = frames.len();
            let peer = flood(raw, frames, 8 * MIB);
            until("all sent or held", || peer.is_finished()).await;
            let peak = growth.peak() - own;
            assert!(peak <= MIB + BUFFERS, "{policy:?}: {peak}");
            peer.join().unwrap();
        });
    }
}

/// Once nobody counted the memory of the keys of conflation. The bound is that of the inbox alone,
/// because messages of eight bytes leave the buffers small.
#[test]
fn keys_of_conflation_count() {
    run(async {
        let key = |message: &Message| Some(message.as_bytes().repeat(50));
        let policy = Overflow::Conflate(std::sync::Arc::new(key));
        let growth = Growth::start();
        let options = Options::default().inbox_bytes(MIB).overflow(policy);
        let (connection, raw) = raw::client(options).await;
        let mut frames = Vec::with_capacity(2 * MIB);
        (0..100_000u64).for_each(|i| raw::encode(&mut frames, BINARY, &i.to_be_bytes()));
        let own = frames.capacity();
        let peer = flood(raw, frames, MIB);
        until("held", || peer.is_finished()).await;
        until("a full inbox", || {
            waits(&connection.stats(), StallCause::ApplicationNotReading)
        })
        .await;
        let peak = growth.peak() - own;
        assert!(peak <= MIB + BUFFERS / 4, "{peak}");
        peer.join().unwrap();
    });
}

/// A peer that never reads, and sends pings without end.
#[test]
fn flood_of_pings_to_a_peer_that_does_not_read_is_bounded() {
    run(async {
        let growth = Growth::start();
        let (_connection, raw) = raw::client(Options::default()).await;
        let mut frames = Vec::with_capacity(MIB);
        (0..1000).for_each(|_| raw::encode(&mut frames, PING, &[7; 125]));
        let own = frames.capacity();
        let peer = flood(raw, frames, 64 * MIB);
        until("all sent or held", || peer.is_finished()).await;
        let peak = growth.peak() - own;
        assert!(peak <= BUFFERS, "{peak}");
        peer.join().unwrap();
    });
}

/// Receives `count` messages and keeps one in a thousand. Returns what each kept one costs when everything
/// else is idle.
async fn cost_of_kept(connection: &mut Connection, count: usize) -> usize {
    let mut kept = Vec::with_capacity(count / 1000);
    for index in 0..count {
        match limit(connection.recv()).await.unwrap().unwrap() {
            Incoming::Message(message) if index % 1000 == 999 => kept.push(message),
            Incoming::Message(_) => {}
            Incoming::Gap(gap) => panic!("{gap:?}"),
        }
    }
    let before = ALLOCATED.current_usage();
    let count = kept.len();
    kept.clear();
    let on_heap = before - ALLOCATED.current_usage();
    on_heap / count + size_of::<Message>()
}

async fn send_alternating(raw: &mut RawPeer, size: usize, count: usize) {
    let chunk = frames(size, 100);
    for _ in 0..count / 100 {
        raw.io.write_all(&chunk).await.unwrap();
    }
}

/// The bound that `Options` documents, and half a KiB for the message's place in the queue. Up to 8 KiB it
/// is the size. Above, it is one and a half times the size where messages are of one length, and four
/// times where a peer mixes long messages with short ones.
fn bound(size: usize, mixed: bool) -> usize {
    let pinned = match (size > 8 * KIB, mixed) {
        (false, _) => size,
        (true, false) => size + size / 2,
        (true, true) => 4 * size,
    };
    pinned + KIB / 2
}

/// Once a message of 10 KiB kept a whole read buffer, which a long message had made grow.
#[test]
fn kept_message_costs_little_more_than_itself() {
    for size in [0, 64, 200, 5 * KIB, 10 * KIB, 40 * KIB] {
        run(async {
            let count = if size > KIB { 4_000 } else { 50_000 };
            let (mut connection, mut raw) = raw::client(Options::default()).await;
            for long in [false, true] {
                if long {
                    raw.send(BINARY, &vec![0; 8 * MIB]).await;
                    drop(connection.recv().await.unwrap());
                }
                let (cost, ()) = tokio::join!(
                    cost_of_kept(&mut connection, count),
                    send_alternating(&mut raw, size, count)
                );
                assert!(
                    cost <= bound(size, long),
                    "{size} bytes cost {cost}, after a long one: {long}"
                );
            }
        });
    }
}

/// An adopted stream reads 128 KiB ahead. Once every kept message of 9 KiB kept all of that.
#[test]
fn kept_message_of_an_adopted_stream_costs_little_more_than_itself() {
    for size in [64, 10 * KIB, 40 * KIB] {
        run(async {
            let (mut connection, mut raw) = raw::adopted(Role::Client, Options::default()).await;
            let (cost, ()) = tokio::join!(
                cost_of_kept(&mut connection, 4_000),
                send_alternating(&mut raw, size, 4_000)
            );
            assert!(cost <= bound(size, false), "{size} bytes cost {cost}");
        });
    }
}

/// Once a message that was read back from the spill file kept the whole chunk.
#[test]
fn kept_message_that_was_spilled_costs_little_more_than_itself() {
    run(async {
        let policy = Overflow::Spill(Spill::default().then(SpillFallback::Disconnect));
        let options = Options::default().inbox_bytes(64 * KIB).overflow(policy);
        let (mut connection, mut raw) = raw::client(options).await;
        let size = 10 * KIB;
        send_alternating(&mut raw, size, 4_000).await;
        until("in the file", || connection.stats().spilled.0 > 3_000).await;
        let cost = cost_of_kept(&mut connection, 4_000).await;
        assert!(cost <= bound(size, false), "{size} bytes cost {cost}");
    });
}

/// Once, under `DropOldest` and `Conflate`, the queue kept the memory of its greatest length for ever.
#[test]
fn memory_of_queues_is_given_back_when_idle() {
    let key = |message: &Message| Some(message.as_bytes()[..1].to_vec());
    for policy in [
        Overflow::Pause,
        Overflow::DropOldest,
        Overflow::DropNewest,
        Overflow::Conflate(std::sync::Arc::new(key)),
        Overflow::Spill(Spill::default()),
    ] {
        run(async {
            let options = Options::default().overflow(policy.clone());
            let (mut connection, mut raw) = raw::client(options).await;
            raw.send(BINARY, b"first").await;
            plain(connection.recv().await);
            let growth = Growth::start();
            let chunk = frames(64, 1000);
            for _ in 0..10 {
                raw.io.write_all(&chunk).await.unwrap();
            }
            drop(chunk);
            until("all read", || {
                connection.stats().messages_received == 10_001
            })
            .await;
            assert!(growth.now() > MIB / 2, "{policy:?}");
            let mut left = 10_000;
            while left > 0 {
                left -= match limit(connection.recv()).await.unwrap().unwrap() {
                    Incoming::Message(_) => 1,
                    Incoming::Gap(Gap::Conflated { messages, .. }) => messages,
                    Incoming::Gap(gap) => panic!("{gap:?}"),
                };
            }
            // The receiver asks once more, and waits for a message that does not come.
            raw.send(BINARY, b"last").await;
            plain(connection.recv().await);
            let idle = tokio::time::timeout(Duration::from_millis(50), connection.recv()).await;
            assert!(idle.is_err());
            let now = growth.now();
            // The read window has grown. It stays so until the next ping.
            assert!(
                now <= (128 + 32) * KIB,
                "{policy:?}: {now} after the backlog was read"
            );
        });
    }
}

#[test]
fn budget_bounds_fifty_connections_and_starves_none() {
    run(async {
        const CONNECTIONS: usize = 50;
        let budget = Budget::new(8 * MIB);
        let options = Options::default().budget(budget.clone());
        let growth = Growth::start();
        let mut pairs = Vec::new();
        for _ in 0..CONNECTIONS {
            pairs.push(raw::client(options.clone()).await);
        }
        let writers: Vec<_> = pairs
            .drain(..)
            .map(|(connection, mut raw)| {
                let writer = tokio::spawn(async move {
                    send_alternating(&mut raw, 1000, 8_000).await;
                    raw
                });
                (connection, writer)
            })
            .collect();
        until("all held", || {
            writers.iter().all(|(connection, _)| {
                waits(&connection.stats(), StallCause::ApplicationNotReading)
            })
        })
        .await;
        // The floors count: each connection has one for its queue and one for its read window.
        assert!(budget.used() <= 8 * MIB + CONNECTIONS * 128 * KIB);
        let frames = CONNECTIONS * 100 * 1010;
        let each = 64 * KIB + BUFFERS;
        let peak = growth.peak() - frames;
        assert!(peak <= 8 * MIB + CONNECTIONS * each, "{peak}");
        let queued: usize = writers.iter().map(|(it, _)| it.stats().inbox.bytes).sum();
        assert!(queued <= 8 * MIB + CONNECTIONS * 64 * KIB, "{queued}");

        // Most applications never read again. For the others everything goes on, one after the other.
        for (mut connection, writer) in writers.into_iter().skip(40) {
            for _ in 0..8_000 {
                plain(limit(connection.recv()).await);
            }
            writer.await.unwrap();
        }
    });
}

#[test]
fn budget_used_up_by_others_does_not_stop_a_sender() {
    run(async {
        let budget = Budget::new(2 * MIB);
        let options = Options::default()
            .outbox_bytes(4 * MIB)
            .budget(budget.clone());
        let (stuck, _never_reads) = raw::client(options.clone()).await;
        // Queues leave the last quarter to messages of which only a part has arrived. A budget is
        // drawn in steps of up to 64 KiB: the last one may not fit any more.
        while budget.used() + 64 * KIB <= budget.limit() * 3 / 4 {
            if stuck.try_send(vec![0; 32 * KIB]).is_err() {
                tokio::task::yield_now().await;
            }
        }
        let (connection, mut raw) = raw::client(options).await;
        let reads = async {
            for index in 0..100u32 {
                let (_, payload) = raw.read().await.unwrap();
                assert_eq!(payload[..4], index.to_be_bytes());
            }
        };
        let sends = async {
            for index in 0..100u32 {
                let mut payload = vec![0; (index as usize + 1) * KIB * 2];
                payload[..4].copy_from_slice(&index.to_be_bytes());
                connection.send(payload).await.unwrap();
            }
        };
        limit(async { tokio::join!(reads, sends) }).await;
    });
}

/// Sends all but the last byte of a message of `size` bytes, in one frame or in several. A connection may
/// be ended during that.
async fn say_all_but_the_last_byte(raw: &mut RawPeer, size: usize, fragments: bool) {
    let head = |first: u8, length: usize| {
        let mut head = vec![first, 127];
        head.extend_from_slice(&(length as u64).to_be_bytes());
        head
    };
    let step = match fragments {
        false => size,
        true => 128 * KIB,
    };
    for begin in (0..size).step_by(step) {
        let length = step.min(size - begin);
        let said = match begin + length == size {
            true => length - 1,
            false => length,
        };
        let is_final = u8::from(begin + length == size) << 7;
        let opcode = if begin == 0 { BINARY } else { CONTINUATION };
        let mut bytes = head(is_final | opcode, length);
        bytes.resize(bytes.len() + said, 7);
        if raw.io.write_all(&bytes).await.is_err() {
            return;
        }
    }
}

/// Once only queues counted. Ninety clients made a server with a budget of 1 GiB hold 1.4 GiB of messages
/// whose last byte was missing, for as long as they liked.
#[test]
fn messages_that_are_not_whole_stay_within_the_budget_and_who_holds_most_goes() {
    const MESSAGE: usize = 4 * MIB;
    const CLIENTS: usize = 12;
    const BUDGET: usize = 16 * MIB;
    // Budgets round up, so the fourth would not fit.
    const STAY: usize = BUDGET / MESSAGE - 1;
    for fragments in [false, true] {
        run(async {
            let budget = Budget::new(BUDGET);
            let options = Options::default().budget(budget.clone());
            let (innocent, mut its_peer) = raw::client(options.clone()).await;
            let growth = Growth::start();
            let mut clients = Vec::new();
            for _ in 0..CLIENTS {
                let (connection, mut raw) = raw::client(options.clone()).await;
                say_all_but_the_last_byte(&mut raw, MESSAGE, fragments).await;
                clients.push((connection, raw));
                assert!(budget.used() <= BUDGET + (CLIENTS + 1) * 128 * KIB);
                // A connection that holds little goes on.
                innocent.send("still here").await.unwrap();
                assert_eq!(its_peer.read().await.unwrap().1, b"still here");
            }
            let gone = |connection: &Connection| match connection.try_send("?") {
                Err(TrySendError::Refused(refused)) => {
                    let SendRefusal::Ended(why) = refused.reason else {
                        panic!("{refused}");
                    };
                    assert!(matches!(*why, ConnectionError::Evicted { .. }), "{why}");
                    true
                }
                _ => false,
            };
            until("all arrived or gone", || {
                let gone = clients.iter().filter(|it| gone(&it.0)).count();
                gone >= CLIENTS - STAY && budget.used() >= STAY * MESSAGE
            })
            .await;
            // The test's own copy of one message, and memory that buffers outgrew.
            let peak = growth.peak();
            assert!(peak <= BUDGET + 2 * MESSAGE + CLIENTS * 128 * KIB, "{peak}");
            let mut whole = 0;
            for (mut connection, mut raw) in clients {
                if gone(&connection) {
                    let ended = connection.recv().await;
                    let Err(ConnectionError::Evicted { held }) = ended else {
                        panic!("{ended:?}");
                    };
                    assert!((64 * KIB..=MESSAGE + 256 * KIB).contains(&held), "{held}");
                    let told = async {
                        while let Some((opcode, payload)) = raw.read().await {
                            if opcode == CLOSE {
                                assert_eq!(payload[..2], 1013u16.to_be_bytes());
                                return;
                            }
                        }
                    };
                    limit(told).await;
                } else {
                    raw.io.write_all(&[7]).await.unwrap();
                    let message = plain(limit(connection.recv()).await);
                    assert_eq!(message.len(), MESSAGE);
                    whole += 1;
                }
            }
            assert_eq!(whole, STAY);
            drop((innocent, its_peer));
            until("all given back", || budget.used() == 0).await;
        });
    }
}

/// Once the length in a frame's header was allocated. 14 bytes ended a process whose `max_message_bytes`
/// was "no limit".
#[test]
fn announced_lengths_cost_nothing() {
    let lengths = [
        1 << 30,
        1 << 46,
        u64::from(u32::MAX) + 1,
        isize::MAX as u64 - 20,
        isize::MAX as u64,
    ];
    for length in lengths {
        for (first, earlier) in [(0x82, 0), (0x81, 0), (0x80, 100)] {
            run(async {
                let budget = Budget::new(1 << 30);
                let options = Options::default().max_message_bytes(usize::MAX);
                let options = options.budget(budget.clone());
                let (connection, mut raw) = raw::client(options).await;
                let growth = Growth::start();
                if earlier > 0 {
                    raw.say(common::frames::part(BINARY, vec![7; earlier]))
                        .await;
                }
                let mut begun = vec![first, 127];
                begun.extend_from_slice(&length.to_be_bytes());
                begun.extend_from_slice(&[7; 10 * KIB]);
                raw.io.write_all(&begun).await.unwrap();
                until("a window is made for it", || budget.used() >= 64 * KIB).await;
                let peak = growth.peak();
                assert!(peak <= 256 * KIB, "{length}: {peak}");
                connection.send("alive").await.unwrap();
                assert_eq!(raw.read().await.unwrap().1, b"alive");
            });
        }
    }
}

/// Once what was taken and not acknowledged by hand cost 16 bytes a message, which nothing bounded:
/// 38 MiB on the wire took 614 MiB.
#[test]
fn messages_that_are_not_acknowledged_by_hand_cost_nothing() {
    const PACKETS: u64 = 500;
    const MESSAGES: u64 = 4_000;
    run(async {
        let options = Options::default().acknowledge_by_hand(true);
        let server = bind(Server::builder().options(options)).await;
        let mut tcp = connect_from(Ipv4Addr::LOCALHOST, server.local_addr()).await;
        let request = upgrade(&format!("sec-websocket-protocol: {SUBPROTOCOL}\r\n"));
        ask(&mut tcp, &request).await;
        let mut raw = RawPeer::client(tcp);
        // It says that it keeps whatever is not acknowledged, and keeps nothing.
        let mut hello = vec![1];
        hello.extend([7; 32]);
        for number in [0_u64, 1, 0, 0, 1 << 40, 1 << 20] {
            hello.extend(number.to_be_bytes());
        }
        raw.send(BINARY, &hello).await;
        let (_sender, mut receiver) = limit(server.accept()).await.unwrap().split();
        let growth = Growth::start();
        let sending = async {
            let (mut credit, mut offset) = (0, 0);
            for packet in 0..PACKETS {
                // A record costs 64 bytes.
                offset += MESSAGES * 64;
                while credit < offset {
                    let (opcode, payload) = limit(raw.read()).await.unwrap();
                    if opcode == BINARY {
                        match Packet::decode(payload.into()).unwrap() {
                            Packet::Welcome(welcome) => credit = welcome.credit.get(),
                            Packet::Credit(more) => credit = more.get(),
                            _ => {}
                        }
                    }
                }
                // Empty messages.
                let mut data = vec![0x10];
                data.extend((packet * MESSAGES + 1).to_be_bytes());
                data.resize(data.len() + MESSAGES as usize, 0);
                raw.send(BINARY, &data).await;
            }
        };
        let receiving = async {
            let mut received = 0;
            while received < PACKETS * MESSAGES {
                let mut batch = limit(receiver.recv_batch()).await.unwrap().unwrap();
                while batch.next().is_some() {
                    received += 1;
                }
            }
        };
        tokio::join!(sending, receiving);
        let peak = growth.peak();
        assert!(peak <= 8 * MIB, "{peak}");
    });
}

/// What both ends of connections hold that carried ticks and fell idle, for each end, in bytes.
async fn idle_after_ticks(session: bool, len: usize, limit: usize) {
    const PAIRS: usize = 100;
    let options = Options::default()
        .ping_interval(Duration::from_millis(400))
        .compression(Compression::default());
    let server = bind(Server::builder().options(options.clone())).await;
    serve(&server, echo);
    let connect = async || {
        let client = client(server.local_addr(), options.clone());
        let client = match session {
            true => client.require_session(),
            false => client.plain(),
        };
        client.connect().await.unwrap()
    };
    let exchange = async |client: &mut Connection, number: u32| {
        let tick = format!("{{\"symbol\":\"S{}\",\"price\":{number}.5}}", number % 7);
        echoed(client, &tick.repeat(len / tick.len())).await;
    };
    // The connections of a process share the working memory of the compressor.
    let mut first = connect().await;
    exchange(&mut first, 0).await;
    let growth = Growth::start();
    let held = || growth.now() / (2 * PAIRS);
    let mut clients = Vec::with_capacity(PAIRS);
    for _ in 0..PAIRS {
        clients.push(connect().await);
    }
    for number in 0..20 {
        for client in &mut clients {
            exchange(client, number).await;
        }
    }
    let busy = held();
    let idle = std::time::Instant::now();
    while held() > limit && idle.elapsed() < Duration::from_secs(20) {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    // What the last ones give back is in the figure too.
    tokio::time::sleep(Duration::from_secs(1)).await;
    let report = format!(
        "session: {session}, ticks of {len} B: {busy} bytes an end, and {} when idle",
        held()
    );
    println!("{report}");
    assert!(held() <= limit, "{report}, of {limit}");
}

/// Once a server held the future of each handler twice: in a block that took it, and where that block
/// awaited it. Each idle connection of a hub took 2 KiB more for it.
#[test]
fn a_server_holds_the_future_of_a_handler_once() {
    const HELD: usize = 128 * KIB;
    run(async {
        let server = bind(Server::builder()).await;
        serve(&server, async |mut connection: Connection| {
            let held = std::hint::black_box([1_u8; HELD]);
            while let Ok(Some(Incoming::Message(message))) = connection.recv().await {
                connection.send(message).await.unwrap();
            }
            std::hint::black_box(held);
        });
        let growth = Growth::start();
        let client = client(server.local_addr(), Options::default());
        let mut connection = client.plain().connect().await.unwrap();
        echoed(&mut connection, "here").await;
        let now = growth.now();
        assert!(now >= HELD, "{now}");
        assert!(now < HELD + 64 * KIB, "{now} bytes for a future of {HELD}");
    });
}

/// Once the resident memory of a server was taken for what its connections held. It stays higher, because
/// the allocator keeps what was freed.
#[test]
fn an_idle_connection_is_small_again_after_compressed_traffic() {
    for len in [300, 4096] {
        // With its runtime each ends whole, and leaves nothing to the next.
        run(idle_after_ticks(false, len, 10 * KIB));
        run(idle_after_ticks(true, len, 12 * KIB));
    }
}

/// Once a session heard acknowledgements only when its credit was used up, if it sent without a pause in a
/// runtime of one thread. Then it kept packets that had long arrived, and its credit grew meanwhile.
#[test]
fn a_session_that_never_waits_keeps_what_is_under_way_and_no_more() {
    const BATCHES: usize = 256;
    const BATCH: usize = 512;
    /// What may wait here and in the kernel, in messages of a KiB.
    const UNDER_WAY: usize = 2 * KIB;
    run(async {
        let budget = Budget::new(1 << 30);
        let options = Options::default().budget(budget.clone());
        let server = bind(Server::builder().options(options)).await;
        let address = server.local_addr();
        let arrived = Arc::new(AtomicUsize::new(0));
        let count = arrived.clone();
        let receiving = std::thread::spawn(move || {
            let mut runtime = tokio::runtime::Builder::new_current_thread();
            runtime.enable_all().build().unwrap().block_on(async {
                let client = client(address, Options::default()).require_session();
                let mut connection = client.connect().await.unwrap();
                for _ in 0..BATCHES * BATCH {
                    connection.recv().await.unwrap().unwrap();
                    count.fetch_add(1, Relaxed);
                }
            });
        });
        let connection = server.accept().await.unwrap();
        let batch = vec![Message::binary(vec![7; KIB]); BATCH];
        let mut most = 0;
        for sent in 1..=BATCHES {
            connection.send_many(batch.clone()).await.unwrap();
            most = most.max(budget.used());
            // The client keeps up, however busy the machine is. The runtime does not get its turn.
            while arrived.load(Relaxed) + UNDER_WAY < sent * BATCH {
                assert!(!receiving.is_finished());
                std::thread::yield_now();
            }
        }
        tokio::task::spawn_blocking(|| receiving.join().unwrap())
            .await
            .unwrap();
        println!("{most} bytes held at most");
        assert!(most < 6 * MIB, "{most}");
    });
}
