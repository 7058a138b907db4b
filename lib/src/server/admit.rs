//! The handshake of one connection: from TCP to WebSocket, or to its refusal.

use std::{io, net::SocketAddr, sync::Arc};

use bytes::Bytes;
use http::{Extensions, Request, request::Parts};
use hyper::upgrade::OnUpgrade;
use tokio::{
    sync::OwnedSemaphorePermit,
    time::{Instant, timeout_at},
};
use tracing::Instrument;

#[cfg(feature = "tls")]
use super::certificates::PeerCertificates;
#[cfg(feature = "axum")]
use super::guests;
#[cfg(feature = "http2")]
use super::http2;
use super::{
    ServerState,
    acceptance::Acceptance,
    builder::Config,
    door::{Arrival, Slot},
    handshake::{self, Agreement, Rejection},
    hello::{self, Greeting},
    holder::{Holders, Principal},
    open::Member,
    places::{Over, Seat},
    proxies::PeerAddr,
    queue::Accepted,
    registry::{Attached, Host, Opened, Registry},
    talk::{Decision, converse},
};
use crate::{
    defaults,
    dial::tls,
    session::opening,
    spans,
    time::{earlier, later},
    ws::{
        extension::CompressionAgreed,
        transport::{Held, HelloSent, Transport, Upgraded},
    },
};
use unstall_proto::Hello;

/// A handshake under way.
pub(super) struct Handshake {
    pub(super) state: Arc<ServerState>,
    pub(super) slot: Slot,
    pub(super) peer: PeerAddr,
    pub(super) ends: Ends,
    pub(super) deadline: Instant,
    /// The limit that was reached, once the client's real address was known.
    pub(super) over: Option<Over>,
}

/// What the connection below HTTP tells of both ends.
#[derive(Clone, Default)]
pub(super) struct Ends {
    local: Option<SocketAddr>,
    peer: Option<SocketAddr>,
    #[cfg(feature = "tls")]
    certificates: Option<PeerCertificates>,
}

impl Ends {
    fn of(transport: &Transport) -> Ends {
        Ends {
            local: transport.local(),
            peer: transport.peer(),
            #[cfg(feature = "tls")]
            certificates: PeerCertificates::new(transport.peer_certificates()),
        }
    }

    /// Puts what the application may ask for into the extensions of a request.
    pub(super) fn tell(&self, peer: PeerAddr, extensions: &mut Extensions) {
        if let Some(peer) = peer.known() {
            extensions.insert(peer);
        }
        #[cfg(feature = "tls")]
        if let Some(certificates) = &self.certificates {
            extensions.insert(certificates.clone());
        }
    }
}

/// A request that is accepted.
pub(super) struct Agreed {
    request: Request<()>,
    subprotocol: Option<String>,
    compression: Option<CompressionAgreed>,
    /// The HELLO that came with it.
    hello: Option<Hello>,
    peer: PeerAddr,
    client: Holders,
    seat: Arc<Seat>,
}

/// Runs the handshake of a client that has a slot.
pub(super) async fn open(arrival: Arrival, slot: Slot, state: Arc<ServerState>) {
    let handshake = Handshake {
        deadline: later(Instant::now(), state.config.limits.handshake_timeout),
        peer: arrival.peer,
        ends: Ends::default(),
        state: state.clone(),
        slot,
        over: None,
    };
    let deadline = handshake.deadline;
    match timeout_at(deadline, handshake.run(arrival.stream)).await {
        Err(_) => state.counters.handshakes_timed_out.add(),
        Ok(Err(error)) => {
            state.counters.handshakes_failed.add();
            tracing::debug!(peer = %arrival.peer.client, ?error, "a handshake failed");
        }
        // Done, or refused. A refusal is counted where it is decided.
        Ok(Ok(())) => {}
    }
}

/// Refuses a client that got no slot. Reads its request first, because most clients lose an answer
/// that comes before their request is sent.
pub(super) async fn refuse(
    arrival: Arrival,
    over: Over,
    _permit: OwnedSemaphorePermit,
    state: Arc<ServerState>,
) {
    let config = &state.config;
    let limits = &config.limits;
    let within = defaults::SERVER_REFUSAL_TIMEOUT.min(limits.handshake_timeout);
    let rejection = || over.rejection(limits.retry_after);
    let decide = |_| async { Decision::<()>::Err(rejection()) };
    let talk = async {
        let (transport, _) = secure(arrival.stream, arrival.peer, config).await?;
        #[cfg(feature = "http2")]
        if config.http2 {
            return http2::refuse(transport, limits.header_bytes, rejection()).await;
        }
        let talk = converse(transport, limits.header_bytes, decide).await;
        talk.map(|_| ())
    };
    // The refusal is already counted, so a failure to send it does not matter.
    let _ = timeout_at(later(Instant::now(), within), talk).await;
}

/// Reads what comes before HTTP: the PROXY header, and TLS.
async fn secure(
    mut stream: Transport,
    peer: PeerAddr,
    config: &Config,
) -> io::Result<(Transport, PeerAddr)> {
    let peer = match (&config.proxies, stream.tcp_mut()) {
        (Some(proxies), Some(tcp)) => proxies.read_preface(tcp, peer).await?,
        _ => peer,
    };
    let transport = match &config.tls {
        None => stream,
        Some(tls) => tls::accept(tls.clone(), stream).await?,
    };
    Ok((transport, peer))
}

impl Handshake {
    async fn run(mut self, stream: Transport) -> io::Result<()> {
        let state = self.state.clone();
        let (transport, peer) = secure(stream, self.peer, &state.config).await?;
        self.peer = peer;
        self.over = self.moved_to(peer);
        self.ends = Ends::of(&transport);
        #[cfg(feature = "axum")]
        if let Some(router) = &state.config.router {
            return guests::serve(self, transport, router.clone()).await;
        }
        #[cfg(feature = "http2")]
        if state.config.http2 {
            return http2::serve(self, transport).await;
        }
        let header_bytes = state.config.limits.header_bytes;
        let decide = |parts| self.decide(parts);
        let agreed = converse(transport, header_bytes, decide).await?;
        if let Some((agreed, transport, leftover)) = agreed {
            self.upgraded(agreed, transport, leftover).await;
        }
        Ok(())
    }

    /// Starts the connection, or its session, after the request was accepted.
    pub(super) async fn upgraded(&self, agreed: Agreed, transport: Transport, leftover: Bytes) {
        self.state.counters.accepted.add();
        let upgraded = Upgraded {
            local: self.ends.local,
            peer: self.ends.peer,
            transport,
            leftover,
            subprotocol: agreed.subprotocol.clone(),
            compression: agreed.compression.clone(),
            response: None,
            hello: HelloSent::Never,
        };
        let sessions = self.state.config.sessions.as_ref();
        match sessions.filter(|_| upgraded.is_session()) {
            None => self.start(upgraded, agreed),
            Some(sessions) => self.attach(&sessions.0, upgraded, agreed).await,
        }
    }

    /// Counts the handshake for the address that a proxy reported.
    fn moved_to(&self, peer: PeerAddr) -> Option<Over> {
        let network = peer.network();
        self.slot.moved_to(network).err()
    }

    /// Starts a plain connection. It has its place already.
    fn start(&self, mut upgraded: Upgraded, agreed: Agreed) {
        let member = self.state.open.join();
        let place = Held(agreed.seat);
        let held = Held(Arc::new((member.clone(), place.clone())));
        upgraded.transport = upgraded.transport.holding(held);
        let terms = self.state.terms(&agreed.client);
        let (connection, pump) =
            super::start_plain(upgraded, agreed.request, agreed.peer.known(), terms);
        member.started(&connection, pump);
        self.state.queue.push(Accepted {
            connection,
            member,
            place,
        });
    }

    /// Reads HELLO, and opens or resumes the session.
    async fn attach(&self, sessions: &Arc<Registry>, mut upgraded: Upgraded, agreed: Agreed) {
        let (counters, config) = (&self.state.counters, &self.state.config);
        let terms = self.state.terms(&agreed.client);
        upgraded.transport = upgraded.transport.holding(Held(agreed.seat.clone()));
        let identity = hello::identity(&upgraded, agreed.request, agreed.peer.known());
        let greeting = Greeting::hear(upgraded, identity, agreed.hello, &terms.options);
        let greeting = match greeting.await {
            Ok(greeting) => greeting,
            Err(unheard) => {
                counters.handshakes_failed.add();
                let error = &unheard.error;
                tracing::debug!(peer = %self.peer.client, ?error, "a session's handshake failed");
                return unheard.dismiss().await;
            }
        };
        self.slot.waits_for_client(false);
        let member = self.state.open.join();
        let host = Host {
            seat: agreed.seat,
            member: Held(member.clone()),
            retry_after: config.limits.retry_after,
        };
        let attached = sessions
            .attach(greeting, agreed.client, terms, Some(host))
            .await;
        match attached {
            Attached::New(opened) => self.opened(member, *opened),
            Attached::Resumed => counters.sessions_resumed.add(),
            Attached::Refused(refused) => {
                let counter = refused.over.map(|over| over.counter(counters));
                counter.unwrap_or(&counters.refused.sessions).add();
                let rejection = refused.rejection;
                tracing::debug!(peer = %self.peer.client, %rejection, "a session was refused");
                self.slot.waits_for_client(true);
                drop(member);
                if let Some(ws) = refused.ws {
                    let why = refused.over.map(Over::why);
                    let why = why.map_or_else(|| rejection.to_string(), str::to_owned);
                    hello::refuse(ws, rejection, &why).await;
                }
            }
        }
    }

    fn opened(&self, member: Arc<Member>, opened: Opened) {
        member.started(&opened.connection, opened.task);
        self.state.queue.push(Accepted {
            connection: opened.connection,
            member,
            place: opened.tenancy,
        });
    }

    /// Decides about a request, in a span of its own.
    pub(super) async fn decide(&self, parts: Parts) -> Decision<Agreed> {
        let span = spans::decision(self.peer.client, &parts.headers);
        let decision = self.check(parts).instrument(span.clone()).await;
        let status = match &decision {
            Ok((.., agreement)) => agreement.status(),
            Err(rejection) => rejection.status(),
        };
        spans::answered(&span, status);
        decision
    }

    /// Runs the checks in order: RFC 6455, Origin, limits of the address, the authentication hook,
    /// limits of the principal.
    async fn check(&self, mut parts: Parts) -> Decision<Agreed> {
        let ServerState {
            config,
            counters,
            places,
            ..
        } = &*self.state;
        let refused = &counters.refused;
        handshake::normalise(&mut parts);
        let hello = opening::take_hello(&mut parts.headers);
        let mut agreement = handshake::check(&parts, &config.subprotocols)
            .inspect_err(|_| refused.requests.add())?;
        agreement.greet(hello);
        agreement.compress(config.options.compression.as_ref(), &parts.headers);
        config
            .origins
            .check(&parts.headers)
            .inspect_err(|_| refused.origins.add())?;
        let upgrade = parts.extensions.remove::<OnUpgrade>().ok_or_else(|| {
            refused.requests.add();
            Rejection::new(
                http::StatusCode::BAD_REQUEST,
                "This request cannot be upgraded.\n",
            )
        })?;
        let mut peer = self.peer;
        let mut over = self.over;
        if let Some(proxies) = &config.proxies {
            peer = proxies.read_headers(&parts.headers, peer);
            over = over.or(self.moved_to(peer));
        }
        let is_session =
            |agreement: &Agreement| config.sessions.is_some() && agreement.is_session();
        let network = peer.network();
        let full = |over: Over| {
            over.counter(counters).add();
            over.rejection(config.limits.retry_after)
        };
        over.map_or(Ok(()), Err).map_err(full)?;
        // A client that may resume a session is checked after HELLO.
        if !is_session(&agreement) {
            places.look(&Holders::new(network, None)).map_err(full)?;
        }
        let mut request = Request::from_parts(parts, ());
        self.ends.tell(peer, request.extensions_mut());
        let mut request = self.authenticated(request).await?;
        if let Some(acceptance) = request.extensions_mut().remove::<Acceptance>() {
            agreement.accept(acceptance, request.headers())?;
        }
        let principal = request.extensions().get::<Principal>();
        let client = Holders::new(network, principal);
        let seat = Arc::new(Seat::new(places, client.clone()));
        // The hook may have agreed to no session.
        if !is_session(&agreement) {
            seat.take().map_err(full)?;
        }
        let agreed = Agreed {
            request,
            subprotocol: agreement.subprotocol.clone(),
            compression: agreement.compression(),
            hello: agreement.hello(),
            peer,
            client,
            seat,
        };
        Ok((agreed, upgrade, agreement))
    }

    /// Runs the authentication hook. It is cut early enough to leave time for the refusal.
    async fn authenticated(&self, request: Request<()>) -> Result<Request<()>, Rejection> {
        let ServerState {
            config, counters, ..
        } = &*self.state;
        let Some(hook) = &config.authenticate else {
            return Ok(request);
        };
        let limits = &config.limits;
        let to_answer = defaults::SERVER_ANSWER_TIMEOUT.min(limits.handshake_timeout / 10);
        self.slot.waits_for_client(false);
        let answer = timeout_at(earlier(self.deadline, to_answer), hook(request)).await;
        self.slot.waits_for_client(true);
        match answer {
            Ok(Ok(request)) => Ok(request),
            Ok(Err(rejection)) => {
                counters.refused.unauthenticated.add();
                Err(rejection)
            }
            Err(_) => {
                counters.handshakes_timed_out.add();
                let why = "Authentication took too long; try again later.\n";
                Err(Rejection::unavailable(why, limits.retry_after))
            }
        }
    }
}
