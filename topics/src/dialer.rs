//! How a client gets to a node: over WebSocket, from one address to the next, or within the process.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use tracing::Span;
use unstall::{Backoff, Client, ConnectError, Reconnect, printable};
use unstall_proto::topics::{AccessToken, RejectReason, ServerReject, limits::SUBPROTOCOL};

use crate::{
    link::{self, LinkReceiver, LinkSender},
    node::Node,
    serving::Serving,
    spans,
    tokens::Tokens,
};

/// Connects to nodes.
pub(crate) struct Dialer {
    way: Way,
    tokens: Tokens,
    backoff: Backoff,
    /// Attempts in a row that no node welcomed.
    failures: u32,
    connected: Option<Instant>,
}

enum Way {
    Nodes { nodes: Vec<Address>, at: usize },
    Here(Node),
}

/// An address, and what is known of it.
struct Address {
    client: Client,
    /// The node asked to be left alone until then.
    rests: Option<Instant>,
    /// The token that the node rejected last.
    rejected: Option<AccessToken>,
    /// Nothing that the client can do will change its answer.
    hopeless: bool,
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
    /// Of the log in this process.
    #[error("the log has ended: {0}")]
    Ended(Arc<str>),
}

/// A link to a node, and the token to show there.
pub(crate) struct Dialed {
    pub(crate) sender: LinkSender,
    pub(crate) receiver: LinkReceiver,
    pub(crate) token: AccessToken,
}

/// What came of an attempt.
pub(crate) enum Outcome {
    /// There was a connection, and it ended. One that ended before the welcome achieved nothing.
    Lived {
        welcomed: bool,
    },
    Rejected(ServerReject, AccessToken),
    Failed(DialError),
}

impl Dialer {
    pub(crate) fn nodes(clients: Vec<Client>, tokens: Tokens, reconnect: Reconnect) -> Dialer {
        let at = fastrand::usize(..clients.len().max(1));
        let nodes = clients.into_iter().map(Address::new).collect();
        Dialer::new(Way::Nodes { nodes, at }, tokens, reconnect)
    }

    /// A node in the same process.
    pub(crate) fn here(node: Node) -> Dialer {
        Dialer::new(Way::Here(node), Tokens::None, Reconnect::default())
    }

    fn new(way: Way, tokens: Tokens, reconnect: Reconnect) -> Dialer {
        Dialer {
            way,
            tokens,
            backoff: Backoff::new(reconnect),
            failures: 0,
            connected: None,
        }
    }

    /// Connects to the next node. If all of them asked to be left alone, it waits for the first that
    /// may be asked again.
    pub(crate) async fn dial(&mut self) -> Result<Dialed, DialError> {
        if let Some(moment) = self.way.go_on() {
            tokio::time::sleep_until(moment.into()).await;
        }
        let token = self.tokens.next().await.map_err(DialError::Token)?;
        let (sender, receiver) = self.way.link().await?;
        self.connected = Some(Instant::now());
        Ok(Dialed {
            sender,
            receiver,
            token,
        })
    }

    /// The span that its connections are within.
    pub(crate) fn span(&self) -> Span {
        match self.way {
            Way::Nodes { .. } => spans::client(),
            Way::Here(_) => Span::none(),
        }
    }

    /// Whether each connection has a token of its own.
    pub(crate) fn renews_tokens(&self) -> bool {
        self.tokens.are_renewed()
    }

    /// How long to wait before the next attempt; `None` if there is to be none. [`dial`](Self::dial)
    /// waits in addition if nodes asked for it.
    pub(crate) fn after(&mut self, outcome: &Outcome) -> Option<Duration> {
        let since = self.connected.take();
        match outcome {
            Outcome::Lived { welcomed } => {
                self.failures = 0;
                let lived = since.map(|since| since.elapsed()).unwrap_or_default();
                self.backoff.lived(lived, *welcomed);
                self.way.note(|node| {
                    node.hopeless = false;
                    node.rejected = None;
                });
            }
            Outcome::Rejected(reject, token) => {
                self.failures += 1;
                let renews = self.renews_tokens();
                self.way.note(|node| node.rejected(reject, token, renews));
            }
            Outcome::Failed(error) => {
                self.failures += 1;
                self.way.note(|node| node.failed(error));
                let fixed = matches!(error, DialError::Token(_)) && !self.renews_tokens();
                if fixed || matches!(error, DialError::NoAddress | DialError::Ended(_)) {
                    return None;
                }
            }
        }
        let goes_on = !self.way.is_hopeless() && self.backoff.allows(self.failures);
        goes_on.then(|| self.backoff.next(None))
    }
}

impl Address {
    fn new(client: Client) -> Address {
        Address {
            client: client.plain().subprotocol(SUBPROTOCOL).without_reconnect(),
            rests: None,
            rejected: None,
            hopeless: false,
        }
    }

    fn rests(&mut self, asked: Option<Duration>) {
        self.rests = asked.map(|wait| Instant::now() + wait);
    }

    fn rejected(&mut self, reject: &ServerReject, token: &AccessToken, renews: bool) {
        self.rests(reject.retry_after());
        if reject.reason == RejectReason::NotAllowed {
            let same = self.rejected.replace(token.clone()).as_ref() == Some(token);
            self.hopeless = same || !renews;
        }
    }

    fn failed(&mut self, error: &DialError) {
        match error {
            DialError::Connect(error) => {
                self.rests(error.retry_after());
                self.hopeless = !error.is_retryable();
            }
            DialError::OtherProtocol => self.hopeless = true,
            DialError::Token(_) | DialError::NoAddress | DialError::Ended(_) => {}
        }
    }
}

impl Way {
    /// Goes on to the next address that may be asked now. If there is none, to the one that may be
    /// asked first, and says when.
    fn go_on(&mut self) -> Option<Instant> {
        let Way::Nodes { nodes, at } = self else {
            return None;
        };
        let now = Instant::now();
        let count = nodes.len();
        let turn = (0..count).map(|step| (*at + 1 + step) % count);
        let rests = |node: usize| nodes[node].rests.filter(|until| *until > now);
        let next = turn.min_by_key(|node| rests(*node))?;
        *at = next;
        rests(next)
    }

    /// Notes what came of the attempt at the present address.
    fn note(&mut self, note: impl FnOnce(&mut Address)) {
        if let Way::Nodes { nodes, at } = self
            && let Some(node) = nodes.get_mut(*at)
        {
            note(node);
        }
    }

    /// Whether it makes no sense to try again.
    fn is_hopeless(&self) -> bool {
        match self {
            Way::Nodes { nodes, .. } => nodes.iter().all(|node| node.hopeless),
            Way::Here(_) => false,
        }
    }

    async fn link(&self) -> Result<(LinkSender, LinkReceiver), DialError> {
        let (nodes, at) = match self {
            Way::Nodes { nodes, at } => (nodes, *at),
            Way::Here(node) => {
                if let Some(why) = node.parts.log.shared.ended() {
                    return Err(DialError::Ended(why.clone()));
                }
                let [(sender, receiver), there] = link::local();
                let serving = Serving::new(node, None);
                tokio::spawn(serving.run(there.0, there.1));
                return Ok((sender, receiver));
            }
        };
        let node = nodes.get(at).ok_or(DialError::NoAddress)?;
        let connection = node.client.connect().await?;
        if !link::speaks_topics(&connection) {
            return Err(DialError::OtherProtocol);
        }
        Ok(link::socket(connection))
    }
}

/// What a node says of a rejection, safe to print.
pub(crate) fn words(reject: &ServerReject) -> String {
    let text = printable(&reject.text);
    match reject.text.is_empty() {
        true => format!("the node rejects the client: {}", reject.reason),
        false => format!("the node rejects the client: {} ({text})", reject.reason),
    }
}
