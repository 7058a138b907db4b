//! How a client gets to a node: over WebSocket, from one address to the next, or within the process.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use unstall::{Backoff, Client, ConnectError, Reconnect};
use unstall_proto::topics::{AccessToken, limits::SUBPROTOCOL};

use crate::{
    link::{self, LinkReceiver, LinkSender},
    node::Node,
    serving::Serving,
    topics::TokenFn,
};

/// Connects to nodes.
pub(crate) struct Dialer {
    way: Way,
    token: Option<TokenFn>,
    backoff: Backoff,
    /// Attempts that failed in a row.
    failures: u32,
    connected: Option<Instant>,
}

enum Way {
    Nodes { clients: Vec<Client>, next: usize },
    Here(Node),
}

/// Why no connection was made.
#[derive(Debug, thiserror::Error)]
pub(crate) enum DialError {
    #[error("{0}")]
    Connect(#[from] ConnectError),
    #[error("the application gave no token: {0}")]
    Token(Arc<str>),
    #[error("the server does not speak topics; use the address of a node")]
    OtherProtocol,
    #[error("no address was given")]
    NoAddress,
}

/// A link to a node, and the token to show there.
pub(crate) struct Dialed {
    pub(crate) sender: LinkSender,
    pub(crate) receiver: LinkReceiver,
    pub(crate) token: AccessToken,
}

impl Dialer {
    pub(crate) fn nodes(
        clients: Vec<Client>,
        token: Option<TokenFn>,
        reconnect: Reconnect,
    ) -> Dialer {
        let next = fastrand::usize(..clients.len().max(1));
        let clients = clients
            .into_iter()
            .map(|client| client.plain().subprotocol(SUBPROTOCOL).without_reconnect())
            .collect();
        Dialer {
            way: Way::Nodes { clients, next },
            token,
            backoff: Backoff::new(reconnect),
            failures: 0,
            connected: None,
        }
    }

    /// A node in the same process.
    pub(crate) fn here(node: Node) -> Dialer {
        Dialer {
            way: Way::Here(node),
            token: None,
            backoff: Backoff::new(Reconnect::default()),
            failures: 0,
            connected: None,
        }
    }

    /// Connects to the next node.
    pub(crate) async fn dial(&mut self) -> Result<Dialed, DialError> {
        let token = match &self.token {
            None => AccessToken::NONE,
            Some(token) => {
                let text = token()
                    .await
                    .map_err(|error| DialError::Token(error.to_string().into()))?;
                AccessToken::new(&text)
                    .map_err(|error| DialError::Token(error.to_string().into()))?
            }
        };
        let (sender, receiver) = self.way.link().await?;
        self.connected = Some(Instant::now());
        Ok(Dialed {
            sender,
            receiver,
            token,
        })
    }

    /// Whether each connection has a token of its own.
    pub(crate) fn has_tokens(&self) -> bool {
        self.token.is_some()
    }

    /// Whether it makes no sense to try again. With several addresses, another one may do better.
    pub(crate) fn is_final(&self, error: &DialError) -> bool {
        let only = match &self.way {
            Way::Nodes { clients, .. } => clients.len() <= 1,
            Way::Here(_) => true,
        };
        match error {
            DialError::Connect(error) => only && !error.is_retryable(),
            DialError::OtherProtocol => only,
            DialError::NoAddress => true,
            DialError::Token(_) => false,
        }
    }

    /// The connection ended, or none was made. How long to wait before the next attempt; `None` if
    /// there is to be none.
    pub(crate) fn lost(&mut self, received_any: bool, asked: Option<Duration>) -> Option<Duration> {
        match self.connected.take() {
            Some(since) => {
                self.failures = 0;
                self.backoff.lived(since.elapsed(), received_any);
            }
            None => self.failures += 1,
        }
        if !self.backoff.allows(self.failures) {
            return None;
        }
        Some(self.backoff.next(asked))
    }
}

impl Way {
    async fn link(&mut self) -> Result<(LinkSender, LinkReceiver), DialError> {
        let (clients, next) = match self {
            Way::Nodes { clients, next } => (clients, next),
            Way::Here(node) => {
                let [(sender, receiver), there] = link::local();
                let serving = Serving::new(node, None);
                tokio::spawn(serving.run(there.0, there.1));
                return Ok((sender, receiver));
            }
        };
        if clients.is_empty() {
            return Err(DialError::NoAddress);
        }
        let client = &clients[*next % clients.len()];
        *next += 1;
        let connection = client.connect().await?;
        if !link::speaks_topics(&connection) {
            return Err(DialError::OtherProtocol);
        }
        Ok(link::socket(connection))
    }
}
