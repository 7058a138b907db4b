//! axum's extractor. axum has no client; that is tokio-tungstenite.

use std::net::SocketAddr;

use axum::{
    Router,
    extract::{
        State,
        ws::{Message, WebSocket as Accepted, WebSocketUpgrade},
    },
    response::Response,
    routing::any,
};
use bytes::Bytes;
use futures_util::stream::{SplitSink, SplitStream};
use tokio::{
    net::TcpListener,
    sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel},
};
use tokio_tungstenite::tungstenite;

use super::{
    framed::{Frame, Framed},
    tungstenite::{WebSocket as Dialed, connect},
};
use crate::{
    Result,
    engine::{Batching, Engine, Link, Rx, Tx, ended},
};

impl Frame for Message {
    fn binary(payload: &Bytes) -> Message {
        Message::Binary(payload.clone())
    }

    fn payload(&self) -> Option<&[u8]> {
        match self {
            Message::Binary(payload) => Some(payload),
            _ => None,
        }
    }
}

pub(crate) struct Axum;

impl Engine for Axum {
    const NAME: &'static str = "axum";
    const HOW: &'static str = "its extractor, `send().await` and `recv().await` for each message; \
        its peer is `tt-naive`'s client";
    const BATCHING: Batching = Batching::Naive;
    type Server = UnboundedReceiver<Accepted>;
    type Link = Either<Framed<Accepted, Message>, Framed<Dialed, tungstenite::Message>>;

    async fn bind(listener: TcpListener) -> Result<Self::Server> {
        let (tell, accepted) = unbounded_channel();
        let router = Router::new().route("/", any(upgrade)).with_state(tell);
        tokio::spawn(async move { axum::serve(listener, router).await });
        Ok(accepted)
    }

    async fn accept(server: &mut Self::Server) -> Result<Self::Link> {
        let accepted = server.recv().await.ok_or_else(ended)?;
        Ok(Either::Server(Framed::new(accepted)))
    }

    async fn connect(address: SocketAddr) -> Result<Self::Link> {
        Ok(Either::Client(Framed::new(connect(address).await?)))
    }
}

async fn upgrade(
    upgrade: WebSocketUpgrade,
    State(tell): State<UnboundedSender<Accepted>>,
) -> Response {
    upgrade.on_upgrade(|socket| async move {
        // Nobody waits for it any more when the run is over.
        let _ = tell.send(socket);
    })
}

/// The server's end of a connection or the client's, or halves of them.
pub(crate) enum Either<S, C> {
    Server(S),
    Client(C),
}

impl Link for Either<Framed<Accepted, Message>, Framed<Dialed, tungstenite::Message>> {
    type Tx = Either<
        Framed<SplitSink<Accepted, Message>, Message>,
        Framed<SplitSink<Dialed, tungstenite::Message>, tungstenite::Message>,
    >;
    type Rx = Either<
        Framed<SplitStream<Accepted>, Message>,
        Framed<SplitStream<Dialed>, tungstenite::Message>,
    >;

    fn split(self) -> (Self::Tx, Self::Rx) {
        match self {
            Either::Server(server) => {
                let (tx, rx) = server.split();
                (Either::Server(tx), Either::Server(rx))
            }
            Either::Client(client) => {
                let (tx, rx) = client.split();
                (Either::Client(tx), Either::Client(rx))
            }
        }
    }
}

impl<S: Tx, C: Tx> Tx for Either<S, C> {
    async fn feed(&mut self, payload: &Bytes) -> Result<()> {
        match self {
            Either::Server(server) => server.feed(payload).await,
            Either::Client(client) => client.feed(payload).await,
        }
    }

    async fn flush(&mut self) -> Result<()> {
        match self {
            Either::Server(server) => server.flush().await,
            Either::Client(client) => client.flush().await,
        }
    }
}

impl<S: Rx, C: Rx> Rx for Either<S, C> {
    async fn receive(&mut self, take: &mut (impl FnMut(&[u8]) + Send)) -> Result<()> {
        match self {
            Either::Server(server) => server.receive(take).await,
            Either::Client(client) => client.receive(take).await,
        }
    }
}
