//! Wherever a connection is cut, in the upgrade, in HELLO or WELCOME, in a packet or between two,
//! in either direction, every message is delivered once and in order after resuming.

mod common;

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use common::{
    limit, plain,
    sessions::{AMPLE, bind},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    task::JoinSet,
};
use unstall::{Client, CloseCode, Connection, Message, Options, Reconnect, Server};

/// Messages each way, one of them of two packets.
const COUNT: u32 = 200;
const LARGE: u32 = 100;

/// How many exchanges run at once.
const PARALLEL: usize = 32;

fn message(direction: u8, index: u32) -> Message {
    let size = match index {
        LARGE => 66_000,
        _ => 5 + index as usize % 20,
    };
    let mut payload = vec![index as u8; size];
    payload[0] = direction;
    payload[1..5].copy_from_slice(&index.to_be_bytes());
    Message::binary(payload)
}

/// Which bytes pass before the cut.
#[derive(Clone, Copy, Debug)]
struct Cut {
    /// The second connection, which resumes, instead of the first.
    second: bool,
    /// Those from the server to the client instead of those from the client to the server.
    down: bool,
    at: u64,
}

/// Forwards every connection but one, of which it forwards exactly so many bytes in one direction,
/// and then resets both its ends. The bytes forwarded of the first two connections are counted.
struct Cutter {
    address: SocketAddr,
    up: [AtomicU64; 2],
    down: [AtomicU64; 2],
}

impl Cutter {
    /// `early`: the first connection is cut there as well, so that the second resumes.
    async fn to(target: SocketAddr, cut: Option<Cut>, early: u64) -> Arc<Cutter> {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let cutter = Arc::new(Cutter {
            address: listener.local_addr().unwrap(),
            up: Default::default(),
            down: Default::default(),
        });
        let weak = Arc::downgrade(&cutter);
        tokio::spawn(async move {
            let mut number = 0;
            while let Ok((client, _)) = listener.accept().await {
                let Some(cutter) = weak.upgrade() else { return };
                let (up, down) = cuts(cut, early, number);
                let server = TcpStream::connect(target).await.unwrap();
                tokio::spawn(cutter.forward(client, server, number, up, down));
                number += 1;
            }
        });
        cutter
    }

    async fn forward(
        self: Arc<Self>,
        client: TcpStream,
        server: TcpStream,
        number: usize,
        up: u64,
        down: u64,
    ) {
        for tcp in [&client, &server] {
            tcp.set_nodelay(true).unwrap();
            tcp.set_zero_linger().unwrap();
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
        // The first that is cut, or that an endpoint ends, ends both.
        tokio::select! {
            _ = upward => {}
            _ = downward => {}
        }
    }
}

/// How many bytes of this connection pass, up and down.
fn cuts(cut: Option<Cut>, early: u64, number: usize) -> (u64, u64) {
    let mut passing = (u64::MAX, u64::MAX);
    if let Some(cut) = cut {
        if number == 0 && cut.second {
            passing.1 = early;
        }
        if number == usize::from(cut.second) {
            let way = if cut.down {
                &mut passing.1
            } else {
                &mut passing.0
            };
            *way = cut.at;
        }
    }
    passing
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
    // The last bytes are with the receiver before the reset destroys what is on its way.
    let _ = to.flush().await;
    tokio::time::sleep(Duration::from_millis(1)).await;
}

async fn send_all(connection: &Connection, direction: u8) {
    for index in 0..COUNT {
        limit(AMPLE, connection.send(message(direction, index)))
            .await
            .unwrap();
    }
}

async fn receive_all(connection: &mut Connection, direction: u8) {
    for index in 0..COUNT {
        let received = limit(AMPLE, async { plain(connection.recv().await) }).await;
        assert_eq!(received, message(direction, index), "number {index}");
    }
}

/// One whole exchange through the proxy. The client sends on its own, the server answers each.
async fn exchange(cut: Option<Cut>, early: u64) -> Arc<Cutter> {
    let options = Options::default().window_bytes(256 << 10);
    let server = bind(Server::builder().options(options.clone())).await;
    let cutter = Cutter::to(server.local_addr(), cut, early).await;
    let serving = tokio::spawn(async move {
        let mut session = limit(AMPLE, server.accept()).await.unwrap();
        for index in 0..COUNT {
            let received = limit(AMPLE, async { plain(session.recv().await) }).await;
            assert_eq!(received, message(0, index), "number {index}");
            session.send(message(1, index)).await.unwrap();
        }
        let end = limit(AMPLE, session.recv()).await;
        assert!(matches!(end, Ok(None)), "{end:?}");
        let report = limit(AMPLE, session.close(CloseCode::NORMAL, "")).await;
        assert!(report.clean && report.unsent.is_empty() && report.maybe_delivered.is_empty());
    });
    let client = Client::new(format!("ws://{}/", cutter.address))
        .require_session()
        .options(options)
        .reconnect(Reconnect::default().first(Duration::from_millis(1)));
    let mut connection = client.connect_lazy().unwrap();
    send_all(&connection, 0).await;
    receive_all(&mut connection, 1).await;
    limit(AMPLE, connection.delivered()).await.unwrap();
    let report = limit(AMPLE, connection.close(CloseCode::NORMAL, "")).await;
    assert!(report.clean, "{report:?}");
    assert!(report.unsent.is_empty() && report.maybe_delivered.is_empty());
    limit(AMPLE, serving).await.unwrap();
    cutter
}

/// Every offset near the ends and the packets' borders, and of the large messages' insides, which
/// are all alike, each `step`th.
fn offsets(bytes: u64, step: u64) -> impl Iterator<Item = u64> {
    (0..=bytes).filter(move |at| *at < 1200 || bytes - at < 400 || at % step == 0)
}

async fn run(cuts: Vec<Cut>, early: u64) {
    let total = cuts.len();
    let mut cuts = cuts.into_iter();
    let mut running = JoinSet::new();
    let mut whole = 0;
    loop {
        while running.len() < PARALLEL
            && let Some(cut) = cuts.next()
        {
            running.spawn(async move {
                tokio::spawn(exchange(Some(cut), early))
                    .await
                    .unwrap_or_else(|error| panic!("{cut:?}: {error}"));
            });
        }
        match running.join_next().await {
            Some(done) => done.unwrap(),
            None => break,
        }
        whole += 1;
    }
    println!("{whole} of {total} cuts: all delivered once and in order");
    assert_eq!(whole, total);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn probe() {
    let start = std::time::Instant::now();
    let whole = exchange(None, 0).await;
    println!("{:?} {:?} {:?}", whole.up, whole.down, start.elapsed());
    let start = std::time::Instant::now();
    let cuts = (0..1000)
        .map(|at| Cut {
            second: false,
            down: false,
            at: at * 70,
        })
        .collect();
    run(cuts, 0).await;
    println!("{:?}", start.elapsed());
}
