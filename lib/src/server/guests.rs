//! HTTP beside WebSockets, on the same port: requests that ask for no WebSocket go to an axum router.
//!
//! The connection has a task of its own. Until its first request is read, it is a handshake like any
//! other, and ends with it. If that request asks for no WebSocket, the connection takes a place among
//! the open ones, and its slot among the handshakes is free. A later request may still ask for a
//! WebSocket, because a reverse proxy uses a connection for one client after the other.

use std::{
    convert::Infallible,
    io,
    pin::pin,
    sync::{Arc, Mutex, OnceLock, PoisonError},
};

use ::axum::{Router, body::Body, extract::ConnectInfo};
use http::{HeaderValue, Request, Response, header};
use hyper::{body::Incoming, server::conn::http1, service::service_fn, upgrade::OnUpgrade};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::{
    sync::{Notify, watch},
    task::JoinSet,
    time::{Instant, timeout_at},
};
use tower_service::Service;

use super::{
    ServerState,
    admit::{Agreed, Ends, Handshake},
    door::Slot,
    handshake::Rejection,
    holder::Holders,
    open::Member,
    places::{Over, Seat},
    proxies::PeerAddr,
};
use crate::{
    defaults::{FOREVER, HYPER_SMALLEST_BUFFER, SERVER_HEADERS},
    time::later,
    ws::{headers::has_token, transport::Transport},
};

/// What the requests of one TCP connection share.
struct Shared {
    state: Arc<ServerState>,
    router: Router,
    peer: PeerAddr,
    ends: Ends,
    over: Option<Over>,
    /// The slot of the TCP connection, until its first request is decided.
    slot: Mutex<Option<Slot>>,
    /// Set by the first request that asks for no WebSocket.
    guest: OnceLock<Guest>,
    entered: watch::Sender<bool>,
    /// The server shuts down: the request under way is the last one.
    last: Arc<Notify>,
    /// The connection is this WebSocket from now on.
    switched: Mutex<Option<(Agreed, OnUpgrade, Handshake)>>,
}

/// The place of a connection that speaks HTTP, and its part in a shutdown.
struct Guest {
    member: Arc<Member>,
    _seat: Seat,
}

/// Answers the requests of a connection. Ends when the first one is decided: what follows goes on in a
/// task of its own.
pub(super) async fn serve(
    handshake: Handshake,
    transport: Transport,
    router: Router,
) -> io::Result<()> {
    let shared = Arc::new(Shared {
        state: handshake.state,
        router,
        peer: handshake.peer,
        ends: handshake.ends,
        over: handshake.over,
        slot: Mutex::new(Some(handshake.slot)),
        guest: OnceLock::new(),
        entered: watch::Sender::new(false),
        last: Arc::default(),
        switched: Mutex::default(),
    });
    let mut entered = shared.entered.subscribe();
    // Dropping the set ends the task.
    let mut task = JoinSet::new();
    let abort = task.spawn(drive(transport, shared.clone()));
    tokio::select! {
        Some(ended) = task.join_next() => return ended.map_err(io::Error::other)?,
        _ = entered.wait_for(|entered| *entered) => {}
    }
    if let Some(guest) = shared.guest.get() {
        guest.member.entered(shared.last.clone(), abort);
    }
    drop(shared);
    task.detach_all();
    Ok(())
}

/// Runs the connection to its end, and the WebSocket's handshake if one was asked for.
async fn drive(transport: Transport, shared: Arc<Shared>) -> io::Result<()> {
    let service = {
        let shared = shared.clone();
        service_fn(move |request| {
            let shared = shared.clone();
            async move { Ok::<_, Infallible>(shared.answer(request).await) }
        })
    };
    let limits = &shared.state.config.limits;
    let connection = http1::Builder::new()
        // It also ends a connection that is idle for as long.
        .timer(TokioTimer::new())
        .header_read_timeout(limits.handshake_timeout.min(FOREVER))
        .max_headers(SERVER_HEADERS)
        .max_header_size(limits.header_bytes)
        .max_buf_size(limits.header_bytes.max(HYPER_SMALLEST_BUFFER))
        .serve_connection(TokioIo::new(transport), service)
        .with_upgrades();
    let mut connection = pin!(connection);
    let ended = tokio::select! {
        ended = connection.as_mut() => ended,
        () = shared.last.notified() => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    ended.map_err(io::Error::other)?;
    let switched = lock(&shared.switched).take();
    let Some((agreed, upgrade, handshake)) = switched else {
        return Ok(());
    };
    let upgraded = upgrade.await.map_err(io::Error::other)?;
    let parts = upgraded.downcast::<TokioIo<Transport>>();
    let parts = parts.expect("hyper gives back the stream that it was given");
    let transport = parts.io.into_inner();
    let start = handshake.upgraded(agreed, transport, parts.read_buf);
    match timeout_at(handshake.deadline, start).await {
        Ok(()) => {}
        Err(_) => handshake.state.counters.handshakes_timed_out.add(),
    }
    Ok(())
}

impl Shared {
    async fn answer(self: Arc<Self>, request: Request<Incoming>) -> Response<Body> {
        if has_token(request.headers(), header::UPGRADE, "websocket") {
            return self.upgrade(request).await;
        }
        match self.enter(&request) {
            Ok(peer) => self.pass(request, peer).await,
            Err(over) => {
                over.counter(&self.state.counters).add();
                last(over.rejection(self.state.config.limits.retry_after))
            }
        }
    }

    /// Answers a handshake, as on a connection that begins with one.
    async fn upgrade(&self, request: Request<Incoming>) -> Response<Body> {
        let Some(handshake) = self.handshake() else {
            let over = Over::Handshakes;
            over.counter(&self.state.counters).add();
            return last(over.rejection(self.state.config.limits.retry_after));
        };
        match handshake.decide(request.into_parts().0).await {
            Err(rejection) => last(rejection),
            Ok((agreed, upgrade, agreement)) => {
                *lock(&self.switched) = Some((agreed, upgrade, handshake));
                agreement.response()
            }
        }
    }

    /// A handshake, if there is a slot for it.
    fn handshake(&self) -> Option<Handshake> {
        let now = Instant::now();
        let own = lock(&self.slot).take();
        let network = self.peer.network();
        Some(Handshake {
            slot: own.or_else(|| self.state.door.enter(network, now))?,
            state: self.state.clone(),
            peer: self.peer,
            ends: self.ends.clone(),
            deadline: later(now, self.state.config.limits.handshake_timeout),
            over: self.over,
        })
    }

    /// Takes a place for the connection, at its first request. Returns the client of this one.
    fn enter(&self, request: &Request<Incoming>) -> Result<PeerAddr, Over> {
        let peer = match &self.state.config.proxies {
            Some(proxies) => proxies.read_headers(request.headers(), self.peer),
            None => self.peer,
        };
        if self.guest.get().is_some() {
            return Ok(peer);
        }
        self.over.map_or(Ok(()), Err)?;
        let client = Holders::new(peer.network(), None);
        let seat = Seat::new(&self.state.places, client);
        seat.take()?;
        let member = self.state.open.join();
        // One request is answered at a time, so nobody else has set it.
        let _ = self.guest.set(Guest {
            member,
            _seat: seat,
        });
        lock(&self.slot).take();
        self.entered.send_replace(true);
        Ok(peer)
    }

    async fn pass(&self, request: Request<Incoming>, peer: PeerAddr) -> Response<Body> {
        let mut request = request.map(Body::new);
        self.ends.tell(peer, request.extensions_mut());
        if let Some(peer) = peer.known() {
            request.extensions_mut().insert(ConnectInfo(peer.client));
        }
        // A router is always ready.
        let Ok(answer) = self.router.clone().call(request).await;
        answer
    }
}

/// A refusal, behind which the connection is closed.
fn last(rejection: Rejection) -> Response<Body> {
    let mut answer = rejection.answer::<Body>();
    let close = HeaderValue::from_static("close");
    answer.headers_mut().append(header::CONNECTION, close);
    answer
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
