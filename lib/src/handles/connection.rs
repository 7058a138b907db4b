//! A connection as the application holds it, and what happens if its task ends early.

use std::{
    future::Future,
    ops::ControlFlow,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use futures_core::Stream;
use tracing::Span;

use super::{
    Batch, MessageSink, Receiver, Sender, Shared, facts::tells_of_its_connection, register,
};
use crate::{
    messages::{
        CloseReport, Gap, Incoming, IntoMessage, MessageRef, Position, SendError, TrySendError,
        Undelivered,
    },
    reports::{CloseCode, ConnectionError, DeliveryError, FlushError},
    spans,
};

/// A WebSocket connection that always reads, always writes, and says what holds it up.
///
/// It is made by [`connect`](crate::connect) or a [`Client`](crate::Client), by a
/// [`Server`](crate::Server) or its axum extractor, or [from a
/// `WebSocketStream`](Connection::from_websocket) that is open already. A background task, the pump,
/// moves the bytes. Nothing that the application does, or leaves undone, stops the pump.
///
/// A connection is its two halves together. It has the methods of both: [`Sender`] and [`Receiver`]
/// say in full what each does. [`split`](Connection::split) takes it apart, and
/// [`Receiver::reunite`] joins it again. It is a [`Stream`] of [`Incoming`]s, as the receiver is.
///
/// When the last handle is dropped, the connection closes with code 1001, or 1011 if a panic drops
/// it. What was sent is written first, within
/// [`Options::close_timeout`](crate::Options::close_timeout), but nothing reports what could not be
/// written: call [`close`](Connection::close) for that.
#[derive(Debug)]
#[must_use = "a connection that is dropped is closed"]
pub struct Connection {
    pub(super) sender: Sender,
    pub(super) receiver: Receiver,
}

tells_of_its_connection!(Connection, sender.shared);

impl Connection {
    /// The handles over `shared`, and the guard that ends the connection if its task is dropped.
    pub(crate) fn over(shared: Arc<Shared>) -> (Connection, TaskGuard) {
        if shared.is_listed() {
            register::add(&shared);
        }
        let guard = TaskGuard(shared.clone());
        let connection = Connection {
            sender: Sender::new(shared.clone()),
            receiver: Receiver::new(shared),
        };
        (connection, guard)
    }

    /// Takes the connection apart, so that one task can send while another receives.
    ///
    /// The connection stays open as long as either half lives. If the [`Receiver`] is dropped first,
    /// what arrives is discarded and counted.
    pub fn split(self) -> (Sender, Receiver) {
        (self.sender, self.receiver)
    }

    /// Queues a message, and waits while the outbox is full: [`Sender::send`].
    ///
    /// Cancel safety: if dropped before it resolves, the message is not sent.
    ///
    /// # Errors
    /// As [`Sender::send`], with the message.
    #[inline]
    pub fn send(&self, message: impl IntoMessage) -> impl Future<Output = Result<(), SendError>> {
        self.sender.send(message)
    }

    /// Queues many messages, at a fraction of the cost for short ones: [`Sender::send_many`].
    ///
    /// # Errors
    /// As [`Sender::send_many`], with the message that was refused.
    pub async fn send_many<M: IntoMessage>(
        &self,
        messages: impl IntoIterator<Item = M>,
    ) -> Result<(), SendError> {
        self.sender.send_many(messages).await
    }

    /// Passes on what a batch of another connection has, up to a gap: [`Sender::send_batch`].
    ///
    /// # Errors
    /// As [`Sender::send_batch`], with the message that was refused.
    pub async fn send_batch(
        &self,
        batch: &mut Batch<'_>,
        each: impl FnMut(MessageRef<'_>) -> ControlFlow<()>,
    ) -> Result<Option<Gap>, SendError> {
        self.sender.send_batch(batch, each).await
    }

    /// Queues a message that is worthless after `time_to_live`: [`Sender::send_within`].
    ///
    /// # Errors
    /// As [`Sender::send`], with the message.
    pub async fn send_within(
        &self,
        message: impl IntoMessage,
        time_to_live: Duration,
    ) -> Result<(), SendError> {
        self.sender.send_within(message, time_to_live).await
    }

    /// Queues a message that is not compressed, because it holds a secret:
    /// [`Sender::send_uncompressed`].
    ///
    /// # Errors
    /// As [`Sender::send`], with the message.
    pub async fn send_uncompressed(&self, message: impl IntoMessage) -> Result<(), SendError> {
        self.sender.send_uncompressed(message).await
    }

    /// The same if there is room now: [`Sender::try_send_uncompressed`].
    ///
    /// # Errors
    /// As [`Sender::try_send`], with the message.
    pub fn try_send_uncompressed(&self, message: impl IntoMessage) -> Result<(), TrySendError> {
        self.sender.try_send_uncompressed(message)
    }

    /// Queues a message if there is room now: [`Sender::try_send`].
    ///
    /// # Errors
    /// As [`Sender::try_send`], with the message.
    pub fn try_send(&self, message: impl IntoMessage) -> Result<(), TrySendError> {
        self.sender.try_send(message)
    }

    /// Waits until everything that was sent is written to the socket: [`Sender::flush`].
    ///
    /// # Errors
    /// The connection ended first.
    pub async fn flush(&self) -> Result<(), FlushError> {
        self.sender.flush().await
    }

    /// In a session, waits until the peer's application has received everything that was sent:
    /// [`Sender::delivered`].
    ///
    /// # Errors
    /// As [`Sender::delivered`].
    pub async fn delivered(&self) -> Result<(), DeliveryError> {
        self.sender.delivered().await
    }

    /// The messages that ended sessions did not deliver: [`Sender::take_undelivered`].
    pub fn take_undelivered(&self) -> Vec<Undelivered> {
        self.sender.take_undelivered()
    }

    /// A [`Sink`](futures_sink::Sink) of messages: [`Sender::sink`].
    pub fn sink(&self) -> MessageSink {
        self.sender.sink()
    }

    /// Closes the connection, and reports what was not delivered: [`Sender::close`].
    ///
    /// In a session, what this side has received counts as delivered to it, unless it
    /// [acknowledges by hand](crate::Options::acknowledge_by_hand).
    pub async fn close(&self, code: CloseCode, reason: &str) -> CloseReport {
        self.receiver.report_taken();
        self.sender.close(code, reason).await
    }

    /// Waits until the connection has ended for good, and reports what was not delivered:
    /// [`Sender::ended`].
    pub async fn ended(&self) -> CloseReport {
        self.receiver.report_taken();
        self.sender.ended().await
    }

    /// The next message, or the place where some are missing: [`Receiver::recv`].
    ///
    /// Cancel safety: if dropped before it resolves, nothing is lost.
    ///
    /// # Errors
    /// As [`Receiver::recv`].
    #[inline]
    pub fn recv(&mut self) -> impl Future<Output = Result<Option<Incoming>, ConnectionError>> {
        self.receiver.recv()
    }

    /// What is there now, without waiting: [`Receiver::try_recv`].
    #[inline]
    pub fn try_recv(&mut self) -> Option<Incoming> {
        self.receiver.try_recv()
    }

    /// Everything that is there to be received, borrowed: [`Receiver::recv_batch`].
    ///
    /// # Errors
    /// As [`Receiver::recv`].
    pub async fn recv_batch(&mut self) -> Result<Option<Batch<'_>>, ConnectionError> {
        self.receiver.recv_batch().await
    }

    /// Where the message ends that was received last: [`Receiver::position`].
    pub fn position(&self) -> Position {
        self.receiver.position()
    }

    /// Acknowledges everything received so far: [`Receiver::acknowledge`].
    pub fn acknowledge(&self) {
        self.receiver.acknowledge();
    }

    /// Acknowledges everything up to an earlier position: [`Receiver::acknowledge_to`].
    pub fn acknowledge_to(&self, position: Position) {
        self.receiver.acknowledge_to(position);
    }

    pub(crate) fn shared(&self) -> &Arc<Shared> {
        &self.sender.shared
    }
}

impl Stream for Connection {
    type Item = Result<Incoming, ConnectionError>;

    /// As [`recv`](Connection::recv). The stream ends after an error.
    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        Pin::new(&mut self.receiver).poll_next(cx)
    }
}

/// The span of a connection's task: its id, and the peer's address if that is known.
pub(crate) fn span(shared: &Shared) -> Span {
    let identity = shared.identity();
    let headers = identity.request.as_deref().map(http::Request::headers);
    spans::connection(shared.id, identity.peer_addr(), headers)
}

/// Ends the connection if its task is dropped or panics.
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
