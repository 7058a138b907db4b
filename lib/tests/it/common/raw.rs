//! A library's client that is connected to a peer of raw bytes, and such a peer's bulk traffic.

use tokio::io::AsyncWriteExt;
use unstall::{Client, Connection, Options};

use super::frames::{CLOSE, RawPeer, frame, listen};

/// A client connection, and the raw server it is connected to. It does not reconnect.
pub(crate) async fn client(options: Options) -> (Connection, RawPeer) {
    let (listener, address) = listen().await;
    let client = Client::new(format!("ws://{address}/"));
    let client = client.options(options).without_reconnect();
    let (connection, raw) = tokio::join!(client.connect(), RawPeer::accept(&listener));
    (connection.unwrap(), raw)
}

/// Appends an unmasked frame.
pub(crate) fn encode(out: &mut Vec<u8>, opcode: u8, payload: &[u8]) {
    out.extend_from_slice(&frame(opcode, payload).encode());
}

impl RawPeer {
    pub(crate) async fn send(&mut self, opcode: u8, payload: &[u8]) {
        self.say(frame(opcode, payload)).await;
    }

    /// The next frame's opcode and payload; `None` at the end of the stream.
    pub(crate) async fn read(&mut self) -> Option<(u8, Vec<u8>)> {
        let frame = self.see().await.ok()?;
        Some((frame.opcode, frame.payload))
    }

    /// Says goodbye and half-closes; what the other side still sends is read and forgotten.
    pub(crate) async fn finish(mut self) {
        self.send(CLOSE, &1000u16.to_be_bytes()).await;
        let _ = self.tcp.shutdown().await;
        let _ = tokio::io::copy(&mut self.tcp, &mut tokio::io::sink()).await;
    }
}
