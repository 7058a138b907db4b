//! Wherever a connection is cut, every message is delivered once and in order after resuming: in the
//! upgrade, in HELLO or WELCOME, in a packet or between two, in either direction.
//!
//! Messages larger than a packet are cut at every 31st byte and around their borders. With
//! `UNSTALL_FULL=1` they are cut at every byte.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use crate::common::{full, limit, net::bind, plain};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    task::{JoinHandle, JoinSet},
};
use unstall::{Client, CloseCode, Message, Options, Reconnect, Server};

/// Messages each way.
const COUNT: u32 = 100;

/// The length of a message that takes two packets.
const LARGE: u32 = 50;

/// How many exchanges run at once.
const PARALLEL: usize = 32;

fn message(direction: u8, index: u32, large: bool) -> Message {
    let size = match index {
        LARGE if large => 66_000,
        _ => 5 + index as usize % 8,
    };
    let mut payload = vec![index as u8; size];
    payload[0] = direction;
    payload[1..5].copy_from_slice(&index.to_be_bytes());
    Message::binary(payload)
}

/// Where a connection is cut, and in which exchange.
#[derive(Clone, Copy, Debug)]
struct Cut {
    /// With messages larger than a packet.
    large: bool,
    /// Cuts the second connection, which resumes after the first was cut at this byte from the server.
    second: Option<u64>,
    /// Counts the bytes from the server to the client. `false`: those from the client to the server.
    down: bool,
    at: u64,
}

/// A proxy that cuts one connection: it forwards exactly so many bytes of it in one direction. At even
/// offsets it then resets both ends; at odd offsets it closes them with FIN. It forwards all other
/// connections whole, and counts the bytes of the first two.
struct Cutter {
    address: SocketAddr,
    up: [AtomicU64; 2],
    down: [AtomicU64; 2],
}

impl Cutter {
    /// Returns the proxy, and the task that accepts. The caller ends that task.
    async fn to(target: SocketAddr, cut: Cut) -> (Arc<Cutter>, JoinHandle<()>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let cutter = Arc::new(Cutter {
            address: listener.local_addr().unwrap(),
            up: Default::default(),
            down: Default::default(),
        });
        let accepted_by = cutter.clone();
        let accepting = tokio::spawn(async move {
            let mut number = 0;
            while let Ok((client, _)) = listener.accept().await {
                let passing = cut.passing(number);
                // At the end of the test the server is gone, and the client may connect once more.
                let Ok(server) = TcpStream::connect(target).await else {
                    continue;
                };
                tokio::spawn(accepted_by.clone().forward(
                    client,
                    server,
                    number,
                    passing,
                    cut.at.is_multiple_of(2),
                ));
                number += 1;
            }
        });
        (cutter, accepting)
    }

    async fn forward(
        self: Arc<Self>,
        client: TcpStream,
        server: TcpStream,
        number: usize,
        (up, down): (u64, u64),
        reset: bool,
    ) {
        for tcp in [&client, &server] {
            tcp.set_nodelay(true).unwrap();
            if reset {
                tcp.set_zero_linger().unwrap();
            }
        }
        let unseen = AtomicU64::new(0);
        let (mut client_read, mut client_write) = client.into_split();
        let (mut server_read, mut server_write) = server.into_split();
        let upward = copy(
            &mut client_read,
            &mut server_write,
            up,
            self.up.get(number).unwrap_or(&unseen),
        );
        let downward = copy(
            &mut server_read,
            &mut client_write,
            down,
            self.down.get(number).unwrap_or(&unseen),
        );
        // If one direction is cut, or an endpoint ends it, both end.
        tokio::select! {
            _ = upward => {}
            _ = downward => {}
        }
    }
}

impl Cut {
    /// How many bytes of this connection pass, up and down.
    fn passing(self, number: usize) -> (u64, u64) {
        let mut passing = (u64::MAX, u64::MAX);
        if number == usize::from(self.second.is_some()) {
            match self.down {
                true => passing.1 = self.at,
                false => passing.0 = self.at,
            }
        } else if number == 0 {
            passing.1 = self.second.unwrap();
        }
        passing
    }
}

async fn copy(
    from: &mut tokio::net::tcp::OwnedReadHalf,
    to: &mut tokio::net::tcp::OwnedWriteHalf,
    mut left: u64,
    count: &AtomicU64,
) {
    let mut buffer = vec![0; 16 << 10];
    while left > 0 {
        let most = (buffer.len() as u64).min(left) as usize;
        let Ok(read @ 1..) = from.read(&mut buffer[..most]).await else {
            return;
        };
        if to.write_all(&buffer[..read]).await.is_err() {
            return;
        }
        left -= read as u64;
        count.fetch_add(read as u64, Ordering::Relaxed);
    }
    // Over loopback, written bytes are in the receiver's kernel already. The reset comes after them.
}

/// One whole exchange through the proxy: the server answers each message.
async fn exchange(cut: Cut) -> Arc<Cutter> {
    let options = Options::default().window_bytes(256 << 10);
    let server = bind(Server::builder().options(options.clone())).await;
    let (cutter, accepting) = Cutter::to(server.local_addr(), cut).await;
    let serving = tokio::spawn(async move {
        let mut session = limit(server.accept()).await.unwrap();
        for index in 0..COUNT {
            let received = plain(limit(session.recv()).await);
            assert_eq!(received, message(0, index, cut.large), "number {index}");
            session.send(message(1, index, cut.large)).await.unwrap();
        }
        let end = limit(session.recv()).await;
        assert!(matches!(end, Ok(None)), "{end:?}");
        let report = limit(session.close(CloseCode::NORMAL, "")).await;
        assert!(report.clean && report.unsent.is_empty() && report.maybe_delivered.is_empty());
    });
    let client = Client::new(format!("ws://{}/", cutter.address))
        .require_session()
        .options(options)
        .reconnect(Reconnect::default().first(Duration::from_millis(1)));
    let mut connection = client.connect_lazy().unwrap();
    for index in 0..COUNT {
        let sent = connection.send(message(0, index, cut.large));
        limit(sent).await.unwrap();
    }
    for index in 0..COUNT {
        let received = plain(limit(connection.recv()).await);
        assert_eq!(received, message(1, index, cut.large), "number {index}");
    }
    limit(connection.delivered()).await.unwrap();
    let report = limit(connection.close(CloseCode::NORMAL, "")).await;
    assert!(report.clean, "{report:?}");
    assert!(report.unsent.is_empty() && report.maybe_delivered.is_empty());
    limit(serving).await.unwrap();
    accepting.abort();
    cutter
}

/// How many bytes go up and down in an exchange that is not cut.
async fn record(large: bool, second: Option<u64>) -> [u64; 2] {
    let whole = Cut {
        large,
        second,
        down: false,
        at: u64::MAX,
    };
    let cutter = exchange(whole).await;
    let number = usize::from(second.is_some());
    [&cutter.up, &cutter.down].map(|bytes| bytes[number].load(Ordering::Relaxed))
}

/// Cuts an exchange at each of these offsets in each direction.
async fn cut_at(what: &str, large: bool, second: Option<u64>, offsets: impl Fn(u64, u64) -> bool) {
    let bytes = record(large, second).await;
    let mut cuts = Vec::new();
    for (down, bytes) in [(false, bytes[0]), (true, bytes[1])] {
        let offsets = (0..=bytes).filter(|at| offsets(*at, bytes));
        cuts.extend(offsets.map(|at| Cut {
            large,
            second,
            down,
            at,
        }));
    }
    let (total, mut whole) = (cuts.len(), 0);
    let mut cuts = cuts.into_iter();
    let mut running = JoinSet::new();
    loop {
        while running.len() < PARALLEL
            && let Some(cut) = cuts.next()
        {
            running.spawn(async move {
                let exchanged = tokio::spawn(exchange(cut)).await;
                exchanged.unwrap_or_else(|error| panic!("{cut:?}: {error}"));
            });
        }
        match running.join_next().await {
            Some(done) => done.unwrap(),
            None => break,
        }
        whole += 1;
    }
    println!("{what}: {whole} of {total} offsets ({bytes:?} bytes up and down)");
    assert_eq!(whole, total);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn at_every_byte_of_a_first_connection() {
    cut_at("first connection", false, None, |_, _| true).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn at_every_byte_of_a_connection_that_resumes() {
    // The first connection is cut after the first answers.
    let first = record(false, None).await[1] / 4;
    cut_at("resuming connection", false, Some(first), |_, _| true).await;
}

/// All offsets inside a large record are alike, so only some of them are cut.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn within_messages_larger_than_a_packet() {
    let every = if full() { 1 } else { 31 };
    cut_at("large messages", true, None, |at, bytes| {
        at % every == 0 || (65_400..66_400).contains(&(bytes - at)) && at % 7 == 0
    })
    .await;
}
