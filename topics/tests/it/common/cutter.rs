//! A TCP proxy that cuts connections after random numbers of bytes, drawn from a seed.

use std::{
    net::SocketAddr,
    ops::Range,
    sync::{
        Arc, Mutex,
        atomic::{AtomicI64, AtomicUsize, Ordering::Relaxed},
    },
};

use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::watch,
};

pub(crate) struct Cutter {
    pub(crate) address: SocketAddr,
    state: Arc<State>,
}

struct State {
    target: Mutex<SocketAddr>,
    rng: Mutex<fastrand::Rng>,
    /// After how many bytes a connection is cut, in both directions together. `None`: never.
    life: Mutex<Option<Range<i64>>>,
    cuts: AtomicUsize,
    arrived: AtomicUsize,
    /// Cuts all connections whenever it changes.
    all: watch::Sender<u64>,
    /// Nothing is forwarded while it is `true`.
    frozen: watch::Sender<bool>,
}

impl Cutter {
    /// It cuts nothing until it is told to.
    pub(crate) async fn to(target: SocketAddr, seed: u64) -> Cutter {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let state = Arc::new(State {
            target: Mutex::new(target),
            rng: Mutex::new(fastrand::Rng::with_seed(seed)),
            life: Mutex::new(None),
            cuts: AtomicUsize::new(0),
            arrived: AtomicUsize::new(0),
            all: watch::Sender::new(0),
            frozen: watch::Sender::new(false),
        });
        let accepting = state.clone();
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                accepting.arrived.fetch_add(1, Relaxed);
                tokio::spawn(accepting.clone().carry(client));
            }
        });
        Cutter { address, state }
    }

    /// New connections are cut after so many bytes.
    pub(crate) fn cut_after(&self, life: impl Into<Option<Range<i64>>>) {
        *self.state.life.lock().unwrap() = life.into();
    }

    /// Cuts all connections.
    pub(crate) fn cut(&self) {
        self.state.all.send_modify(|times| *times += 1);
    }

    /// New connections go there.
    pub(crate) fn lead_to(&self, target: SocketAddr) {
        *self.state.target.lock().unwrap() = target;
    }

    pub(crate) fn freeze(&self, frozen: bool) {
        self.state.frozen.send_replace(frozen);
    }

    /// How many connections were cut because of their bytes.
    pub(crate) fn cuts(&self) -> usize {
        self.state.cuts.load(Relaxed)
    }

    /// How many connections came.
    pub(crate) fn arrived(&self) -> usize {
        self.state.arrived.load(Relaxed)
    }
}

impl State {
    async fn carry(self: Arc<Self>, client: TcpStream) {
        let mut all = self.all.subscribe();
        let target = *self.target.lock().unwrap();
        let life = self.life.lock().unwrap().clone();
        let left = life.map_or(i64::MAX, |life| self.rng.lock().unwrap().i64(life));
        let left = AtomicI64::new(left);
        let Ok(server) = TcpStream::connect(target).await else {
            return;
        };
        for tcp in [&client, &server] {
            tcp.set_nodelay(true).unwrap();
            // A cut resets both.
            tcp.set_zero_linger().unwrap();
        }
        let (client_read, client_write) = client.into_split();
        let (server_read, server_write) = server.into_split();
        let up = self.forward(client_read, server_write, &left);
        let down = self.forward(server_read, client_write, &left);
        tokio::select! {
            () = async { tokio::select! {
                () = up => {}
                () = down => {}
            } } => {
                if left.load(Relaxed) <= 0 {
                    self.cuts.fetch_add(1, Relaxed);
                }
            }
            _ = all.changed() => {}
        }
    }

    /// Forwards until the end or the cut.
    async fn forward(
        &self,
        mut from: impl AsyncRead + Unpin,
        mut to: impl AsyncWrite + Unpin,
        left: &AtomicI64,
    ) {
        let mut frozen = self.frozen.subscribe();
        let mut buffer = vec![0; 16 << 10];
        loop {
            if frozen.wait_for(|frozen| !frozen).await.is_err() {
                return;
            }
            let Ok(read @ 1..) = from.read(&mut buffer).await else {
                return;
            };
            let before = left.fetch_sub(read as i64, Relaxed);
            let some = (read as i64).min(before.max(0)) as usize;
            if to.write_all(&buffer[..some]).await.is_err() || some < read {
                return;
            }
        }
    }
}
