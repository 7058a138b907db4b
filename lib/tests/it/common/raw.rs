//! A client of the library that is connected to a raw peer, and the bulk traffic of raw peers.

use tokio::{
    io::{AsyncRead, AsyncWrite, AsyncWriteExt},
    net::TcpListener,
};
use unstall::{Connection, Options, tokio_tungstenite::tungstenite::protocol::Role};

use super::{
    adopt,
    frames::{CLOSE, RawPeer, frame, listen},
    tcp_pair,
};

/// A client connection, and the raw server it is connected to. It does not reconnect.
pub(crate) async fn client(options: Options) -> (Connection, RawPeer) {
    client_of(&listen().await.0, options).await
}

/// The same, with a given listener.
pub(crate) async fn client_of(listener: &TcpListener, options: Options) -> (Connection, RawPeer) {
    let client = super::client(listener.local_addr().unwrap(), options);
    let (connection, raw) = tokio::join!(client.connect(), RawPeer::accept(listener));
    (connection.unwrap(), raw)
}

/// An adopted stream in this role, and the raw peer at its other end.
pub(crate) async fn adopted(role: Role, options: Options) -> (Connection, RawPeer) {
    let (ours, theirs) = tcp_pair().await;
    let raw = match role {
        Role::Client => RawPeer::server(theirs),
        Role::Server => RawPeer::client(theirs),
    };
    (adopt(ours, role, options).await, raw)
}

/// Appends an unmasked frame.
pub(crate) fn encode(out: &mut Vec<u8>, opcode: u8, payload: &[u8]) {
    out.extend_from_slice(&frame(opcode, payload).encode());
}

impl<S: AsyncRead + AsyncWrite + Unpin> RawPeer<S> {
    pub(crate) async fn send(&mut self, opcode: u8, payload: &[u8]) {
        self.say(frame(opcode, payload)).await;
    }

    /// The next frame's opcode and payload; `None` at the end of the stream.
    pub(crate) async fn read(&mut self) -> Option<(u8, Vec<u8>)> {
        let frame = self.see().await.ok()?;
        Some((frame.opcode, frame.payload))
    }

    /// Sends a close frame and FIN, and reads up to the end of the stream.
    pub(crate) async fn finish(mut self) {
        self.send(CLOSE, &1000u16.to_be_bytes()).await;
        // The other side may have ended first.
        let _ = self.io.shutdown().await;
        let _ = tokio::io::copy(&mut self.io, &mut tokio::io::sink()).await;
    }
}
