//! A connection as the application holds it: both halves, and the task behind them.

use std::{
    future::Future,
    net::SocketAddr,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use futures_core::Stream;

use super::{Receiver, Sender, Shared, register};
use crate::{
    messages::{CloseReport, Incoming, IntoMessage, SendError, TrySendError},
    reports::{CloseCode, ConnectionError, DeliveryError, Events, FlushError, Stats},
};

/// A WebSocket connection that reads always, writes always, and says what holds it up.
///
/// Made by [`connect`](crate::connect) or [`Client`](crate::Client), by
/// [`Server::accept`](crate::Server::accept), by the axum extractor, or around an existing
/// [`WebSocketStream`](tokio_tungstenite::WebSocketStream). A task of its own moves the bytes; nothing the application does, or
/// leaves undone, blocks it.
///
/// Dropping the last handle closes the connection: what was sent is written first, within
/// [`Options::close_timeout`](crate::Options::close_timeout).
#[derive(Debug)]
pub struct Connection {
    sender: Sender,
    receiver: Receiver,
}

impl Connection {
    /// The handles over `shared`, and the guard that ends it should its task vanish.
    pub(crate) fn over(shared: Arc<Shared>) -> (Connection, TaskGuard) {
        register::add(&shared);
        let guard = TaskGuard(shared.clone());
        let connection = Connection {
            sender: Sender::new(shared.clone()),
            receiver: Receiver::new(shared),
        };
        (connection, guard)
    }

    /// The two halves. The connection stays open as long as either lives; a dropped [`Receiver`]
    /// lets what arrives be discarded and counted.
    pub fn split(self) -> (Sender, Receiver) {
        (self.sender, self.receiver)
    }

    /// See [`Sender::send`].
    #[inline]
    pub fn send(&self, message: impl IntoMessage) -> impl Future<Output = Result<(), SendError>> {
        self.sender.send(message)
    }

    /// See [`Sender::send_many`].
    ///
    /// # Errors
    /// As [`Sender::send_many`].
    pub async fn send_many<M: IntoMessage>(
        &self,
        messages: impl IntoIterator<Item = M>,
    ) -> Result<(), SendError> {
        self.sender.send_many(messages).await
    }

    /// See [`Sender::send_within`].
    pub async fn send_within(
        &self,
        message: impl IntoMessage,
        time_to_live: Duration,
    ) -> Result<(), SendError> {
        self.sender.send_within(message, time_to_live).await
    }

    /// See [`Sender::try_send`].
    pub fn try_send(&self, message: impl IntoMessage) -> Result<(), TrySendError> {
        self.sender.try_send(message)
    }

    /// See [`Sender::flush`].
    pub async fn flush(&self) -> Result<(), FlushError> {
        self.sender.flush().await
    }

    /// See [`Sender::close`]. What was received here counts as taken.
    pub async fn close(&self, code: CloseCode, reason: &str) -> CloseReport {
        self.receiver.report_taken();
        self.sender.close(code, reason).await
    }

    /// See [`Receiver::recv`].
    #[inline]
    pub fn recv(&mut self) -> impl Future<Output = Result<Option<Incoming>, ConnectionError>> {
        self.receiver.recv()
    }

    /// A snapshot of the counters, queues and stalls.
    pub fn stats(&self) -> Stats {
        self.sender.stats()
    }

    /// What happens to the connection, from the oldest event that is kept.
    pub fn events(&self) -> Events {
        self.sender.events()
    }

    /// Whether the peer agreed to a session (`unstall.v1`), so that nothing is lost in silence over
    /// broken connections. A client that connects lazily knows it after the first connection.
    pub fn is_session(&self) -> bool {
        self.sender.is_session()
    }

    /// See [`Sender::delivered`].
    ///
    /// # Errors
    /// As [`Sender::delivered`].
    pub async fn delivered(&self) -> Result<(), DeliveryError> {
        self.sender.delivered().await
    }

    /// See [`Receiver::acknowledge`].
    pub fn acknowledge(&self) {
        self.receiver.acknowledge();
    }

    /// The peer's address, if it has one. On a client that dialed through a proxy it is the
    /// proxy's. On a server behind [trusted proxies](crate::TrustedProxies) it is the client's own;
    /// the port is 0 if the proxy did not tell it.
    pub fn peer(&self) -> Option<SocketAddr> {
        self.sender.shared.identity().peer_addr()
    }

    /// This side's address.
    pub fn local(&self) -> Option<SocketAddr> {
        self.sender.shared.identity().local
    }

    /// The subprotocol that was agreed (RFC 6455 §1.9).
    pub fn subprotocol(&self) -> Option<String> {
        self.sender.shared.identity().subprotocol
    }

    /// On a server, the upgrade request: its path, headers, and what the authentication hook put
    /// into its extensions.
    pub fn request(&self) -> Option<Arc<http::Request<()>>> {
        self.sender.shared.identity().request
    }

    /// On a client, the head of the server's answer to the upgrade request, of the latest connection:
    /// cookies, limits, the name of the node.
    pub fn response(&self) -> Option<Arc<http::Response<()>>> {
        self.sender.shared.identity().response
    }

    pub(crate) fn shared(&self) -> &Arc<Shared> {
        &self.sender.shared
    }
}

impl Stream for Connection {
    type Item = Result<Incoming, ConnectionError>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        Pin::new(&mut self.receiver).poll_next(cx)
    }
}

/// The span of a connection's task: its id, and the peer as soon as that is known.
pub(crate) fn span(shared: &Shared) -> tracing::Span {
    let peer = shared.identity().peer_addr().map(tracing::field::display);
    tracing::info_span!(target: "unstall", "connection", id = shared.id, peer)
}

/// Ends the handle if its task is dropped or panics.
pub(crate) struct TaskGuard(Arc<Shared>);

impl Drop for TaskGuard {
    fn drop(&mut self) {
        let end = Some(Arc::new(ConnectionError::Aborted));
        let report = CloseReport {
            error: end.clone(),
            ..CloseReport::default()
        };
        self.0.end(end.clone(), report);
        self.0.inbox.end(end);
    }
}
