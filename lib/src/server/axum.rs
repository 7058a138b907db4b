//! WebSockets in an [axum](https://docs.rs/axum) application: the extractor [`Upgrade`].

use std::{future::Future, net::SocketAddr};

use ::axum::{
    body::Body,
    extract::{ConnectInfo, FromRequestParts},
    response::{IntoResponse, Response},
};
use bytes::Bytes;
use http::{Request, request::Parts};
use hyper::upgrade::{OnUpgrade, Upgraded};
use hyper_util::{rt::TokioIo, server::conn::auto};
use tokio::{net::TcpStream, time::timeout};
use unstall_proto::SUBPROTOCOL;

use super::{
    handshake::{self, Rejection},
    hello::{self, Greeting},
    holder::{Client, Network},
    origin::Origins,
    proxies::{PeerAddr, TrustedProxies},
    registry::{Attached, Opened},
    sessions::Sessions,
};
use crate::{
    defaults,
    handles::Connection,
    settings::Options,
    ws::transport::{self, Transport},
};

/// Extracts a WebSocket handshake from a request; [`on_upgrade`](Upgrade::on_upgrade) answers it.
///
/// A request that is no handshake, or breaks the rules of RFC 6455 section 4.2.1, is rejected
/// with the right status and a text that says why.
///
/// ```
/// use axum::{Router, response::Response, routing::any};
/// use unstall::axum::Upgrade;
///
/// async fn feed(upgrade: Upgrade) -> Response {
///     upgrade.on_upgrade(|mut connection| async move {
///         while let Ok(Some(incoming)) = connection.recv().await {
///             println!("{incoming:?}");
///         }
///     })
/// }
///
/// let app: Router = Router::new().route("/feed", any(feed));
/// # let _ = app;
/// ```
#[derive(Debug)]
#[must_use = "the handshake is answered by `on_upgrade`"]
pub struct Upgrade {
    request: Parts,
    upgrade: OnUpgrade,
    options: Options,
    subprotocols: Vec<String>,
    sessions: Option<Sessions>,
    origins: Origins,
    proxies: Option<TrustedProxies>,
}

impl<S: Send + Sync> FromRequestParts<S> for Upgrade {
    type Rejection = Rejection;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Upgrade, Rejection> {
        handshake::check(parts, &[])?;
        let Some(upgrade) = parts.extensions.remove::<OnUpgrade>() else {
            let why = "The HTTP server in between cannot hand its connection over.\n";
            return Err(Rejection::new(http::StatusCode::UPGRADE_REQUIRED, why));
        };
        Ok(Upgrade {
            request: parts.clone(),
            upgrade,
            options: Options::default(),
            subprotocols: Vec::new(),
            sessions: None,
            origins: Origins::default(),
            proxies: None,
        })
    }
}

impl Upgrade {
    /// The options of the connection.
    pub fn options(mut self, options: Options) -> Upgrade {
        self.options = options;
        self
    }

    /// Offers sessions (`unstall.v1`) next to plain connections. A client that resumes a session is
    /// handed to the handler that has it, and the handler of `on_upgrade` does not run again.
    pub fn sessions(mut self, sessions: impl Into<Sessions>) -> Upgrade {
        self.sessions = Some(sessions.into());
        self
    }

    /// Lets only the pages of these origins connect; see
    /// [`ServerBuilder::origins`](crate::ServerBuilder::origins), also for the default: the pages
    /// of the request's own host.
    pub fn origins<O: Into<String>>(mut self, origins: impl IntoIterator<Item = O>) -> Upgrade {
        self.origins = Origins::listed(origins);
        self
    }

    /// Lets the pages of every site connect; see
    /// [`ServerBuilder::allow_any_origin`](crate::ServerBuilder::allow_any_origin).
    pub fn allow_any_origin(mut self) -> Upgrade {
        self.origins = Origins::Any;
        self
    }

    /// The reverse proxies in front of the application, which tell the clients' addresses in a
    /// header. The TCP connection's own address has to be known for that: serve the application
    /// with `into_make_service_with_connect_info::<SocketAddr>()`.
    pub fn trusted_proxies(mut self, proxies: &TrustedProxies) -> Upgrade {
        self.proxies = Some(proxies.clone());
        self
    }

    /// The subprotocols that the handler speaks. The client's first choice among them is agreed
    /// on; a client that offers none of them gets none.
    pub fn subprotocols<P: Into<String>>(
        mut self,
        subprotocols: impl IntoIterator<Item = P>,
    ) -> Upgrade {
        self.subprotocols = subprotocols.into_iter().map(Into::into).collect();
        self
    }

    /// Answers with 101 and runs `handler` with the connection in a task of its own.
    ///
    /// A handler that panics ends its own connection and nothing else. If the client goes away
    /// before it has the answer, the handler does not run.
    pub fn on_upgrade<H, F>(self, handler: H) -> Response
    where
        H: FnOnce(Connection) -> F + Send + 'static,
        F: Future<Output = ()> + Send + 'static,
    {
        let mut spoken = self.subprotocols;
        if self.sessions.is_some() {
            spoken.insert(0, SUBPROTOCOL.to_owned());
        }
        let checked = self.origins.check(&self.request.headers);
        let agreement = match checked.and_then(|()| handshake::check(&self.request, &spoken)) {
            Ok(agreement) => agreement,
            Err(rejection) => return IntoResponse::into_response(rejection),
        };
        let response = agreement.response();
        let (upgrade, subprotocol, options) = (self.upgrade, agreement.subprotocol, self.options);
        let mut request = Request::from_parts(self.request, ());
        let info = request.extensions().get::<ConnectInfo<SocketAddr>>();
        let info = info.map(|info| info.0);
        let peer = info.map(PeerAddr::direct).map(|peer| match &self.proxies {
            Some(proxies) => proxies.read_headers(request.headers(), peer),
            None => peer,
        });
        peer.map(|peer| request.extensions_mut().insert(peer));
        let sessions = self.sessions;
        tokio::spawn(async move {
            let upgraded = match upgrade.await {
                Ok(upgraded) => upgraded,
                Err(error) => {
                    tracing::debug!(%error, "a client went away during its handshake");
                    return;
                }
            };
            let (transport, leftover) = unwrap(upgraded);
            let upgraded = transport::Upgraded {
                local: transport.local(),
                peer: info.or_else(|| transport.peer()),
                transport,
                leftover,
                subprotocol,
                response: None,
            };
            match sessions.filter(|_| upgraded.is_session()) {
                None => handler(super::start_plain(upgraded, request, peer, options).0).await,
                Some(sessions) => {
                    let opened = attach(&sessions, upgraded, request, peer, &options).await;
                    // An existing session goes on with its own handler.
                    if let Some(opened) = opened {
                        let _held = opened.tenancy;
                        handler(opened.connection).await;
                    }
                }
            }
        });
        response
    }
}

/// The new session, if the client wanted one and it was not refused.
async fn attach(
    sessions: &Sessions,
    upgraded: transport::Upgraded,
    request: Request<()>,
    peer: Option<PeerAddr>,
    options: &Options,
) -> Option<Opened> {
    let address = peer.map(|peer| peer.client).or(upgraded.peer);
    let identity = hello::identity(&upgraded, request, peer);
    let principal = hello::principal(&identity);
    let client = Client::new(Network::of(address), principal.as_ref());
    let attach = async {
        match Greeting::hear(upgraded, identity, options).await {
            Ok(greeting) => Ok(sessions.0.attach(greeting, client, options, None).await),
            Err(unheard) => Err(unheard),
        }
    };
    match timeout(defaults::SERVER_HANDSHAKE_TIMEOUT, attach).await {
        Ok(Ok(Attached::New(opened))) => return Some(*opened),
        Ok(Ok(Attached::Refused(refused))) => {
            let rejection = refused.rejection;
            tracing::debug!(%rejection, "a session was refused");
            if let Some(ws) = refused.ws {
                hello::refuse(ws, rejection, &rejection.to_string()).await;
            }
        }
        Ok(Err(unheard)) => unheard.dismiss().await,
        Ok(Ok(Attached::Resumed)) | Err(_) => {}
    }
    None
}

/// The TCP stream below, where `axum::serve` or hyper itself serve one; else the stream as it is.
fn unwrap(upgraded: Upgraded) -> (Transport, Bytes) {
    let upgraded = match auto::upgrade::downcast::<TokioIo<TcpStream>>(upgraded) {
        Ok(parts) => return (Transport::tcp_stream(parts.io.into_inner()), parts.read_buf),
        Err(upgraded) => upgraded,
    };
    match upgraded.downcast::<TokioIo<TcpStream>>() {
        Ok(parts) => (Transport::tcp_stream(parts.io.into_inner()), parts.read_buf),
        // What was read ahead stays inside.
        Err(upgraded) => (Transport::foreign(upgraded), Bytes::new()),
    }
}

impl IntoResponse for Rejection {
    fn into_response(self) -> Response {
        self.answer::<Body>()
    }
}
