//! A connection that speaks HTTP/1.1 or HTTP/2. Over HTTP/2 each stream may carry a WebSocket (RFC
//! 8441).
//!
//! The connection has a task of its own, which the handshake ends unless it opens a WebSocket. The
//! first request has the slot of the TCP connection among the handshakes. Every further one takes a
//! slot of its own.

use std::{
    convert::Infallible,
    io,
    pin::pin,
    sync::{Arc, Mutex},
};

use bytes::Bytes;
use http::{HeaderValue, Request, Response, Version, header};
use http_body_util::Full;
use hyper::{body::Incoming, service::service_fn, upgrade::OnUpgrade};
use hyper_util::{
    rt::{TokioExecutor, TokioIo},
    server::conn::auto,
};
use tokio::{
    sync::{Notify, watch},
    task::JoinSet,
    time::{Instant, sleep, timeout_at},
};

use super::{
    ServerState, Stage,
    admit::{Agreed, Ends, Handshake},
    door::Slot,
    handshake::Rejection,
    places::Over,
    proxies::PeerAddr,
    talk::Decision,
};
use crate::{
    defaults::{
        HTTP2_CONNECTION_BYTES, HTTP2_GOODBYE_TIMEOUT, HTTP2_IDLE_TIMEOUT, HTTP2_STREAM_BYTES,
        HTTP2_STREAMS, HYPER_SMALLEST_BUFFER, SERVER_HEADERS,
    },
    time::later,
    ws::transport::{Held, Transport},
};

/// What the requests of one TCP connection share.
struct Shared {
    state: Arc<ServerState>,
    peer: PeerAddr,
    ends: Ends,
    over: Option<Over>,
    /// The slot of the TCP connection, while it carries no WebSocket.
    slot: Mutex<Option<Slot>>,
    /// How many WebSockets it carries; `None` before the first request over HTTP/2 is answered.
    open: watch::Sender<Option<usize>>,
    /// What HTTP/1.1 agreed to: the connection is one WebSocket from now on.
    switched: Mutex<Option<(Agreed, OnUpgrade, Handshake)>>,
}

/// Answers the requests of a connection until it carries a WebSocket, or has ended.
pub(super) async fn serve(handshake: Handshake, transport: Transport) -> io::Result<()> {
    let shared = Arc::new(Shared {
        state: handshake.state,
        peer: handshake.peer,
        ends: handshake.ends,
        over: handshake.over,
        slot: Mutex::new(Some(handshake.slot)),
        open: watch::Sender::new(None),
        switched: Mutex::default(),
    });
    let mut open = shared.open.subscribe();
    // Dropping the set ends the task.
    let mut task = JoinSet::new();
    task.spawn(drive(transport, shared.clone()));
    tokio::select! {
        Some(ended) = task.join_next() => ended.map_err(io::Error::other)??,
        _ = open.wait_for(|open| open.is_some_and(|open| open > 0)) => task.detach_all(),
    }
    let switched = shared.switched.lock().unwrap().take();
    if let Some((agreed, upgrade, handshake)) = switched {
        let upgraded = upgrade.await.map_err(io::Error::other)?;
        let parts = auto::upgrade::downcast::<TokioIo<Transport>>(upgraded);
        let parts = parts.expect("hyper gives back the stream that it was given");
        let transport = parts.io.into_inner();
        handshake.upgraded(agreed, transport, parts.read_buf).await;
    }
    Ok(())
}

/// Runs the connection to its end. An idle connection is ended.
async fn drive(transport: Transport, shared: Arc<Shared>) -> io::Result<()> {
    let service = {
        let shared = shared.clone();
        service_fn(move |request| {
            let shared = shared.clone();
            async move { Ok::<_, Infallible>(shared.answer(request).await) }
        })
    };
    let builder = builder(shared.state.config.limits.header_bytes);
    let connection = builder.serve_connection_with_upgrades(TokioIo::new(transport), service);
    let mut connection = pin!(connection);
    let last = async {
        tokio::select! {
            () = shared.idle() => {}
            () = shared.state.reached(Stage::Draining) => {}
        }
    };
    tokio::select! {
        ended = connection.as_mut() => return ended.map_err(io::Error::other),
        () = last => connection.as_mut().graceful_shutdown(),
    }
    // From now on the client opens no stream. Those that are open go on.
    let goodbye = async {
        tokio::select! {
            () = shared.closed() => {}
            () = shared.state.reached(Stage::Stopped) => {}
        }
        sleep(HTTP2_GOODBYE_TIMEOUT).await;
    };
    tokio::select! {
        ended = connection => ended.map_err(io::Error::other),
        () = goodbye => Ok(()),
    }
}

/// Refuses the first request of a client that got no slot.
pub(super) async fn refuse(
    transport: Transport,
    header_bytes: usize,
    rejection: Rejection,
) -> io::Result<()> {
    let told = Notify::new();
    let service = service_fn(|request: Request<Incoming>| {
        told.notify_one();
        let answer = refusal(rejection.clone(), request.version());
        async { Ok::<_, Infallible>(answer) }
    });
    let builder = builder(header_bytes);
    let mut connection = pin!(builder.serve_connection(TokioIo::new(transport), service));
    tokio::select! {
        ended = connection.as_mut() => return ended.map_err(io::Error::other),
        () = told.notified() => connection.as_mut().graceful_shutdown(),
    }
    connection.await.map_err(io::Error::other)
}

fn builder(header_bytes: usize) -> auto::Builder<TokioExecutor> {
    let mut builder = auto::Builder::new(TokioExecutor::new());
    builder
        .http1()
        // The handshake's own deadline covers it.
        .header_read_timeout(None)
        .max_headers(SERVER_HEADERS)
        .max_buf_size(header_bytes.max(HYPER_SMALLEST_BUFFER));
    builder
        .http2()
        .enable_connect_protocol()
        .max_header_list_size(u32::try_from(header_bytes).unwrap_or(u32::MAX))
        .max_concurrent_streams(HTTP2_STREAMS)
        .initial_stream_window_size(HTTP2_STREAM_BYTES)
        .initial_connection_window_size(HTTP2_CONNECTION_BYTES)
        .max_send_buf_size(HTTP2_STREAM_BYTES as usize);
    builder
}

fn refusal(rejection: Rejection, version: Version) -> Response<Full<Bytes>> {
    let mut answer = rejection.answer();
    if version != Version::HTTP_2 {
        // Only one request is served.
        let close = HeaderValue::from_static("close");
        answer.headers_mut().append(header::CONNECTION, close);
    }
    answer
}

impl Shared {
    async fn answer(self: Arc<Self>, request: Request<Incoming>) -> Response<Full<Bytes>> {
        let version = request.version();
        let Some(mut request_of) = Borrowed::new(&self, version) else {
            let over = Over::Handshakes;
            over.counter(&self.state.counters).add();
            let rejection = over.rejection(self.state.config.limits.retry_after);
            return refusal(rejection, version);
        };
        match request_of.decide(request).await {
            Err(rejection) => refusal(rejection, version),
            Ok((agreed, upgrade, agreement)) => {
                let response = agreement.response();
                if let Some(handshake) = request_of.handshake.take() {
                    match version {
                        Version::HTTP_2 => self.open(handshake, agreed, upgrade),
                        _ => *self.switched.lock().unwrap() = Some((agreed, upgrade, handshake)),
                    }
                }
                response
            }
        }
    }

    /// A handshake for the next request, if there is a slot for it.
    fn handshake(&self) -> Option<Handshake> {
        let now = Instant::now();
        let own = self.slot.lock().unwrap().take();
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

    /// Starts the WebSocket of a stream in a task, which is the handshake's from now on.
    fn open(self: Arc<Self>, handshake: Handshake, agreed: Agreed, upgrade: OnUpgrade) {
        let stream = Held(Arc::new(OpenStream::new(&self)));
        let id = handshake.slot.id;
        let task = tokio::spawn(async move {
            let state = handshake.state.clone();
            let opened = timeout_at(handshake.deadline, async {
                let upgraded = upgrade.await?;
                let transport = Transport::foreign(upgraded).holding(stream);
                handshake.upgraded(agreed, transport, Bytes::new()).await;
                Ok::<_, hyper::Error>(())
            });
            match opened.await {
                Ok(Ok(())) => {}
                Ok(Err(error)) => {
                    state.counters.handshakes_failed.add();
                    tracing::debug!(%error, "a client reset its stream during its handshake");
                }
                Err(_) => state.counters.handshakes_timed_out.add(),
            }
        });
        self.state.door.started(id, task.abort_handle());
    }

    /// Resolves when no WebSocket was open for a while.
    async fn idle(&self) {
        let mut open = self.open.subscribe();
        loop {
            let _ = open.wait_for(|open| *open == Some(0)).await;
            tokio::select! {
                () = sleep(HTTP2_IDLE_TIMEOUT) => return,
                _ = open.wait_for(|open| *open != Some(0)) => {}
            }
        }
    }

    /// Resolves when no WebSocket is open.
    async fn closed(&self) {
        let mut open = self.open.subscribe();
        let _ = open
            .wait_for(|open| open.is_none_or(|open| open == 0))
            .await;
    }
}

/// The handshake of a request that is not accepted yet. A client may reset its stream at any time.
struct Borrowed {
    shared: Arc<Shared>,
    version: Version,
    handshake: Option<Handshake>,
}

impl Borrowed {
    fn new(shared: &Arc<Shared>, version: Version) -> Option<Borrowed> {
        Some(Borrowed {
            handshake: Some(shared.handshake()?),
            shared: shared.clone(),
            version,
        })
    }

    async fn decide(&self, request: Request<Incoming>) -> Decision<Agreed> {
        match &self.handshake {
            Some(handshake) => handshake.decide(request.into_parts().0).await,
            None => Err(Over::Handshakes.rejection(self.shared.state.config.limits.retry_after)),
        }
    }
}

impl Drop for Borrowed {
    /// A connection without a WebSocket keeps a slot, so that it counts among the handshakes.
    fn drop(&mut self) {
        let Some(handshake) = self.handshake.take() else {
            return;
        };
        let open = &self.shared.open;
        if self.version == Version::HTTP_2 {
            open.send_modify(|open| *open = open.or(Some(0)));
        }
        if open.borrow().is_none_or(|open| open == 0) {
            *self.shared.slot.lock().unwrap() = Some(handshake.slot);
        }
    }
}

/// Counts a WebSocket of a connection until it is dropped.
struct OpenStream(Arc<Shared>);

impl OpenStream {
    fn new(shared: &Arc<Shared>) -> OpenStream {
        let count = |open: &mut Option<usize>| *open = Some(open.unwrap_or(0).saturating_add(1));
        shared.open.send_modify(count);
        OpenStream(shared.clone())
    }
}

impl Drop for OpenStream {
    fn drop(&mut self) {
        let count = |open: &mut Option<usize>| *open = open.map(|open| open.saturating_sub(1));
        self.0.open.send_modify(count);
    }
}
