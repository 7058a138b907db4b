//! Connections over pipes of memory. No kernel takes part. So a test can pause the clock, which then
//! jumps to the next timer by itself: `#[tokio::test(start_paused = true)]`.
//!
//! There are both engines: an adopted stream, and the library's own one on the server's side, which gets
//! its stream from axum.

use axum::{Router, extract::State, response::Response, routing::any};
use tokio::{
    io::DuplexStream,
    sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel},
};
use unstall::{
    Connection, Options, Sessions, axum::Upgrade, tokio_tungstenite::tungstenite::protocol::Role,
};

use super::{adopt, frames::RawPeer, limit};

/// How many bytes a pipe buffers each way, as a socket does.
const PIPE: usize = 64 << 10;

/// Which of the two engines moves the bytes.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Engine {
    Own,
    Adopted,
}

pub(crate) const ENGINES: [Engine; 2] = [Engine::Own, Engine::Adopted];

impl Engine {
    /// The server's end of a connection, and the raw client at its other end.
    pub(crate) async fn before_raw(self, options: Options) -> (Connection, RawPeer<DuplexStream>) {
        match self {
            Engine::Adopted => {
                let (ours, theirs) = tokio::io::duplex(PIPE);
                let ours = adopt(ours, Role::Server, options).await;
                (ours, RawPeer::client(theirs))
            }
            Engine::Own => {
                let mut server = MemoryServer::start(options, None);
                let raw = RawPeer::upgrade(server.dial()).await;
                (server.accept().await, raw)
            }
        }
    }
}

/// A server whose clients dial over pipes.
pub(crate) struct MemoryServer {
    dialed: UnboundedSender<DuplexStream>,
    accepted: UnboundedReceiver<Connection>,
}

impl MemoryServer {
    /// Starts the server, with sessions if they are given.
    pub(crate) fn start(options: Options, sessions: Option<Sessions>) -> MemoryServer {
        let (dialed, listener) = unbounded_channel();
        let (accept, accepted) = unbounded_channel();
        let settings = Settings {
            options,
            sessions,
            accept,
        };
        let app = Router::new().route("/", any(upgrade)).with_state(settings);
        tokio::spawn(async move { axum::serve(Listener(listener), app).await });
        MemoryServer { dialed, accepted }
    }

    /// The client's end of a new connection, before the upgrade.
    pub(crate) fn dial(&self) -> DuplexStream {
        let (client, server) = tokio::io::duplex(PIPE);
        self.dialed.send(server).unwrap();
        client
    }

    pub(crate) async fn accept(&mut self) -> Connection {
        limit(self.accepted.recv()).await.unwrap()
    }
}

#[derive(Clone)]
struct Settings {
    options: Options,
    sessions: Option<Sessions>,
    accept: UnboundedSender<Connection>,
}

async fn upgrade(State(settings): State<Settings>, mut upgrade: Upgrade) -> Response {
    if let Some(sessions) = &settings.sessions {
        upgrade = upgrade.sessions(sessions);
    }
    upgrade
        .options(settings.options)
        .on_upgrade(async move |connection| {
            // The test may have ended already.
            let _ = settings.accept.send(connection);
        })
}

struct Listener(UnboundedReceiver<DuplexStream>);

impl axum::serve::Listener for Listener {
    type Io = DuplexStream;
    type Addr = ();

    async fn accept(&mut self) -> (DuplexStream, ()) {
        match self.0.recv().await {
            Some(stream) => (stream, ()),
            None => std::future::pending().await,
        }
    }

    fn local_addr(&self) -> std::io::Result<()> {
        Ok(())
    }
}
