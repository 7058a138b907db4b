//! A TCP proxy that misbehaves on command: it stops forwarding, trickles, or cuts.

use std::{
    net::SocketAddr,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, DuplexStream},
    net::{TcpListener, TcpSocket},
    sync::watch,
    time::Instant,
};

use super::frames::listen_keeping;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mode {
    Forward,
    /// Reads nothing and forwards nothing, in either direction. Closes nothing.
    BlackHole,
    /// So many bytes at a time, with a pause after each, in each direction.
    Trickle(usize, Duration),
    /// Both connections are reset.
    Cut,
}

pub(crate) struct Proxy {
    pub(crate) address: SocketAddr,
    state: Arc<State>,
}

struct State {
    target: SocketAddr,
    /// The mode of new connections.
    mode: Mutex<Mode>,
    /// The mode of existing connections.
    connections: Mutex<Vec<watch::Sender<Mode>>>,
    /// When each connection arrived.
    arrivals: Mutex<Vec<Instant>>,
    forwarded: AtomicU64,
}

impl Proxy {
    /// A proxy in front of `target`, for any number of connections. Its own buffers are small, so
    /// that what is not forwarded stays with the sender.
    pub(crate) async fn to(target: SocketAddr) -> Proxy {
        let (listener, address) = listen_keeping(16 << 10);
        let state = Arc::new(State {
            target,
            mode: Mutex::new(Mode::Forward),
            connections: Mutex::default(),
            arrivals: Mutex::default(),
            forwarded: AtomicU64::new(0),
        });
        tokio::spawn(accept(listener, state.clone()));
        Proxy { address, state }
    }

    /// Sets the mode of existing and of new connections.
    pub(crate) fn set(&self, mode: Mode) {
        *self.state.mode.lock().unwrap() = mode;
        self.set_existing(mode);
    }

    /// Sets the mode of existing connections only.
    pub(crate) fn set_existing(&self, mode: Mode) {
        let connections = self.state.connections.lock().unwrap();
        for connection in connections.iter() {
            connection.send_replace(mode);
        }
    }

    /// Resets the existing connections.
    pub(crate) fn cut(&self) {
        self.set_existing(Mode::Cut);
    }

    /// Bytes forwarded so far, both directions together.
    pub(crate) fn forwarded(&self) -> u64 {
        self.state.forwarded.load(Ordering::Relaxed)
    }

    /// When each connection arrived, from the first on.
    pub(crate) fn arrivals(&self) -> Vec<Instant> {
        self.state.arrivals.lock().unwrap().clone()
    }

    /// Connections that are forwarded, or kept, now.
    pub(crate) fn open(&self) -> usize {
        let connections = self.state.connections.lock().unwrap();
        connections.iter().filter(|it| !it.is_closed()).count()
    }
}

/// A pipe of memory that misbehaves as a [`Proxy`] does.
pub(crate) struct Wire(watch::Sender<Mode>);

impl Wire {
    /// It, and its two ends.
    pub(crate) fn new() -> (Wire, DuplexStream, DuplexStream) {
        let (one, client) = tokio::io::duplex(16 << 10);
        let (two, server) = tokio::io::duplex(16 << 10);
        let (mode, watching) = watch::channel(Mode::Forward);
        tokio::spawn(async move {
            forward_both(client, server, watching, &AtomicU64::new(0)).await;
        });
        (Wire(mode), one, two)
    }

    pub(crate) fn set(&self, mode: Mode) {
        self.0.send_replace(mode);
    }
}

async fn accept(listener: TcpListener, state: Arc<State>) {
    while let Ok((client, _)) = listener.accept().await {
        state.arrivals.lock().unwrap().push(Instant::now());
        let mode = {
            let mut connections = state.connections.lock().unwrap();
            // Connections that have ended are removed now and then.
            if connections.len().is_power_of_two() {
                connections.retain(|it| !it.is_closed());
            }
            let connection = watch::Sender::new(*state.mode.lock().unwrap());
            let mode = connection.subscribe();
            connections.push(connection);
            mode
        };
        let state = state.clone();
        tokio::spawn(async move {
            client.set_zero_linger().unwrap();
            let socket = TcpSocket::new_v4().unwrap();
            socket.set_recv_buffer_size(16 << 10).unwrap();
            if let Ok(server) = socket.connect(state.target).await {
                for tcp in [&client, &server] {
                    tcp.set_nodelay(true).unwrap();
                    // A cut drops both halves: the peers are reset.
                    tcp.set_zero_linger().unwrap();
                }
                forward_both(client, server, mode, &state.forwarded).await;
            }
        });
    }
}

async fn forward_both(
    client: impl AsyncRead + AsyncWrite,
    server: impl AsyncRead + AsyncWrite,
    mut mode: watch::Receiver<Mode>,
    forwarded: &AtomicU64,
) {
    let (client_read, client_write) = tokio::io::split(client);
    let (server_read, server_write) = tokio::io::split(server);
    let up = forward(client_read, server_write, mode.clone(), forwarded);
    let down = forward(server_read, client_write, mode.clone(), forwarded);
    tokio::select! {
        biased;
        _ = mode.wait_for(|mode| *mode == Mode::Cut) => {}
        _ = async { tokio::join!(up, down) } => {}
    }
}

async fn forward(
    mut from: impl AsyncRead + Unpin,
    mut to: impl AsyncWrite + Unpin,
    mut mode: watch::Receiver<Mode>,
    forwarded: &AtomicU64,
) {
    let mut buffer = vec![0; 16 << 10];
    loop {
        let now = *mode.borrow_and_update();
        let (at_most, pause) = match now {
            Mode::Forward => (buffer.len(), Duration::ZERO),
            Mode::Trickle(bytes, pause) => (bytes.min(buffer.len()), pause),
            Mode::BlackHole | Mode::Cut => {
                if mode.changed().await.is_err() {
                    return;
                }
                continue;
            }
        };
        let read = tokio::select! {
            read = from.read(&mut buffer[..at_most]) => read,
            _ = mode.changed() => continue,
        };
        match read {
            Ok(0) | Err(_) => {
                let _ = to.shutdown().await;
                return;
            }
            Ok(read) => {
                // What was read just before the black hole opened stays in it.
                if mode
                    .wait_for(|mode| *mode != Mode::BlackHole)
                    .await
                    .is_err()
                    || to.write_all(&buffer[..read]).await.is_err()
                {
                    return;
                }
                forwarded.fetch_add(read as u64, Ordering::Relaxed);
            }
        }
        if !pause.is_zero() {
            // The pace of the trickle.
            tokio::time::sleep(pause).await;
        }
    }
}
