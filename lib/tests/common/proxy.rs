//! A TCP proxy that misbehaves on command: it stops forwarding, trickles, or cuts.

use std::{net::SocketAddr, time::Duration};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{
        TcpListener, TcpSocket, TcpStream,
        tcp::{OwnedReadHalf, OwnedWriteHalf},
    },
    sync::watch,
};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    Forward,
    /// Nothing is read and nothing forwarded, in either direction; nothing is closed.
    BlackHole,
    /// So many bytes at a time, with a pause after each, in each direction.
    Trickle(usize, Duration),
    /// Both connections are reset.
    Cut,
}

pub struct Proxy {
    pub address: SocketAddr,
    mode: watch::Sender<Mode>,
}

impl Proxy {
    /// A proxy in front of `target`, for any number of connections. Its own buffers are small, so
    /// that what is not forwarded stays with the sender.
    pub async fn to(target: SocketAddr) -> Proxy {
        let socket = TcpSocket::new_v4().unwrap();
        socket.set_recv_buffer_size(16 << 10).unwrap();
        socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
        let listener = socket.listen(1024).unwrap();
        let address = listener.local_addr().unwrap();
        let mode = watch::Sender::new(Mode::Forward);
        tokio::spawn(accept(listener, target, mode.subscribe()));
        Proxy { address, mode }
    }

    pub fn set(&self, mode: Mode) {
        self.mode.send_replace(mode);
    }
}

async fn accept(listener: TcpListener, target: SocketAddr, mode: watch::Receiver<Mode>) {
    while let Ok((client, _)) = listener.accept().await {
        let mode = mode.clone();
        tokio::spawn(async move {
            let socket = TcpSocket::new_v4().unwrap();
            socket.set_recv_buffer_size(16 << 10).unwrap();
            if let Ok(server) = socket.connect(target).await {
                forward_both(client, server, mode).await;
            }
        });
    }
}

async fn forward_both(client: TcpStream, server: TcpStream, mut mode: watch::Receiver<Mode>) {
    for tcp in [&client, &server] {
        tcp.set_nodelay(true).unwrap();
        // A cut drops both halves: the peers are reset.
        tcp.set_zero_linger().unwrap();
    }
    let (client_read, client_write) = client.into_split();
    let (server_read, server_write) = server.into_split();
    let up = forward(client_read, server_write, mode.clone());
    let down = forward(server_read, client_write, mode.clone());
    tokio::select! {
        _ = async { tokio::join!(up, down) } => {}
        _ = mode.wait_for(|mode| *mode == Mode::Cut) => {}
    }
}

async fn forward(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, mut mode: watch::Receiver<Mode>) {
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
            }
        }
        if !pause.is_zero() {
            tokio::time::sleep(pause).await;
        }
    }
}
