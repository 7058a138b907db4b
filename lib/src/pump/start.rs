//! A connection over one WebSocket, without reconnects.

use tokio::{
    io::{AsyncRead, AsyncWrite},
    task::AbortHandle,
};
use tokio_tungstenite::WebSocketStream;
use tracing::Instrument;

use super::{Plain, Pump, Reading};
use crate::{
    handles::{Connection, Driver, Identity, Shared, span},
    settings::{Options, Terms},
    ws::{self, WebSocket},
};

impl Connection {
    /// Takes over a WebSocket whose handshake is done. The connection is plain: it is neither a
    /// session nor reconnected. The stream's own limits on message sizes stay in force, in addition
    /// to [`Options::max_message_bytes`].
    ///
    /// # Panics
    /// Outside a Tokio runtime, as `tokio::spawn` does.
    pub fn from_websocket<S>(stream: WebSocketStream<S>, options: Options) -> Connection
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let tcp = ws::tcp_below(stream.get_ref());
        let identity = Identity {
            local: tcp.and_then(|tcp| tcp.local_addr().ok()),
            peer: tcp.and_then(|tcp| tcp.peer_addr().ok()),
            ..Identity::default()
        };
        let ws = WebSocket::adopt(stream, &options);
        Connection::start(ws, options, identity).0
    }

    /// Runs an open WebSocket in a task of its own, until it ends.
    pub(crate) fn start<S>(
        ws: WebSocket<S>,
        terms: impl Into<Terms>,
        identity: Identity,
    ) -> (Connection, AbortHandle)
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let shared = Shared::new(terms, identity);
        let (connection, guard) = Connection::over(shared.clone());
        let span = span(&shared);
        let held = shared.clone();
        let run = async move {
            let mut reading = Reading::new(&held.options);
            let plain = Plain::new(&mut reading, &held.account);
            let ended = Pump::new(ws, held.clone(), plain).run().await;
            ended.finish(&held, &mut reading).await;
            drop(guard);
        };
        let pump = Driver::spawn(&shared, run.instrument(span));
        (connection, pump.abort_handle())
    }
}
