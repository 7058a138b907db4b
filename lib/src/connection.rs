//! The application's handles: [`Connection`], [`Sender`], [`Receiver`].

use std::{
    collections::VecDeque,
    future::Future,
    net::SocketAddr,
    pin::Pin,
    sync::{Arc, Mutex},
    task::{Context, Poll, ready},
    time::Duration,
};

use futures_core::Stream;
use futures_sink::Sink;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::task::AbortHandle;
use tokio_tungstenite::WebSocketStream;
use tracing::Instrument;

use crate::{
    defaults::RECEIVE_YIELD_EVERY,
    error::{
        CloseCode, CloseReport, ConnectionError, DeliveryError, FlushError, SendError, SendRefusal,
        TrySendError,
    },
    events::Events,
    inbox::{End, Taken},
    message::{Incoming, Message},
    options::Options,
    pump::{Plain, Pump, Reading},
    session::Undelivered,
    shared::{Identity, Shared},
    stats::Stats,
    transport::Upgraded,
    ws::{self, Side, WebSocket},
};

/// A WebSocket connection that reads always, writes always, and says what holds it up.
///
/// Made by [`connect`](crate::connect) or [`Client`](crate::Client), by
/// [`Server::accept`](crate::Server::accept), by the axum extractor, or around an existing
/// [`WebSocketStream`]. A task of its own moves the bytes; nothing the application does, or
/// leaves undone, blocks it.
///
/// Dropping the last handle closes the connection: what was sent is written first, within
/// [`Options::close_timeout`].
#[derive(Debug)]
pub struct Connection {
    sender: Sender,
    receiver: Receiver,
}

impl Connection {
    /// Takes over a WebSocket whose handshake is done. The stream's own limits on message sizes
    /// stay in force beside [`Options::max_message_bytes`]. It is not reconnected.
    ///
    /// # Panics
    /// Outside a Tokio runtime, as `tokio::spawn` does.
    pub fn from_websocket<S>(stream: WebSocketStream<S>, options: Options) -> Connection
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let tcp = ws::tcp_below(stream.get_ref());
        let identity = Identity {
            local: tcp.and_then(|tcp| tcp.local_addr().ok()),
            peer: tcp.and_then(|tcp| tcp.peer_addr().ok()),
            ..Identity::default()
        };
        let ws = WebSocket::adopt(stream, &options);
        Connection::start(ws, options, identity).0
    }

    /// The server's side of an upgrade, and the means to abort its task and so drop the socket.
    pub(crate) fn start_server(
        upgraded: Upgraded,
        request: http::Request<()>,
        options: Options,
    ) -> (Connection, AbortHandle) {
        let identity = Identity {
            local: upgraded.local,
            peer: upgraded.peer,
            subprotocol: upgraded.subprotocol,
            request: Some(Arc::new(request)),
            response: None,
        };
        let ws = WebSocket::new(
            upgraded.transport,
            upgraded.leftover,
            Side::Server,
            &options,
        );
        Connection::start(ws, options, identity)
    }

    /// Runs an open WebSocket until it ends.
    pub(crate) fn start<S>(
        ws: WebSocket<S>,
        options: Options,
        identity: Identity,
    ) -> (Connection, AbortHandle)
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let shared = Shared::new(options, identity);
        let (connection, guard) = Connection::over(shared.clone());
        let span = span(&shared);
        let run = async move {
            let mut reading = Reading::new(&shared.options);
            let ended = Pump::new(ws, shared.clone(), Plain::new(&mut reading))
                .run()
                .await;
            ended.finish(&shared, &mut reading).await;
            drop(guard);
        };
        let pump = tokio::spawn(run.instrument(span));
        (connection, pump.abort_handle())
    }

    /// The handles over `shared`, and the guard that ends it should its task vanish.
    pub(crate) fn over(shared: Arc<Shared>) -> (Connection, TaskGuard) {
        crate::doctor::own::register(&shared);
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
    pub async fn send(&self, message: impl Into<Message>) -> Result<(), SendError> {
        self.sender.send(message).await
    }

    /// See [`Sender::send_within`].
    pub async fn send_within(
        &self,
        message: impl Into<Message>,
        time_to_live: Duration,
    ) -> Result<(), SendError> {
        self.sender.send_within(message, time_to_live).await
    }

    /// See [`Sender::try_send`].
    pub fn try_send(&self, message: impl Into<Message>) -> Result<(), TrySendError> {
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
    pub async fn recv(&mut self) -> Result<Option<Incoming>, ConnectionError> {
        self.receiver.recv().await
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

    /// The peer's address, where there is one: of the proxy, if one is in between.
    pub fn peer(&self) -> Option<SocketAddr> {
        self.sender.shared.identity().peer
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
    let peer = shared.identity().peer.map(tracing::field::display);
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

/// The sending half. Clones share one outbox; messages of one clone keep their order.
#[derive(Debug)]
pub struct Sender {
    shared: Arc<Shared>,
}

impl Sender {
    pub(crate) fn new(shared: Arc<Shared>) -> Sender {
        shared.outbox.add_sender();
        Sender { shared }
    }

    /// Queues a message; waits while the outbox is full. It is written when the socket is
    /// writable, without further calls.
    ///
    /// Cancel safety: dropped before it resolves, the message is not queued and is dropped with
    /// the future. The order among those who wait is kept.
    ///
    /// # Errors
    /// With the message: it is too large, or the connection has ended or is closing. A client that
    /// reconnects goes on accepting while it is away, up to the outbox's limit.
    pub async fn send(&self, message: impl Into<Message>) -> Result<(), SendError> {
        self.shared.outbox.send(message.into(), None).await
    }

    /// As [`send`](Self::send), for a message that is worthless after `time_to_live`: if it was not
    /// begun by then it is dropped, counted in [`Stats::expired`] and an
    /// [`Event::Expired`](crate::Event::Expired). The time counts from this call.
    pub async fn send_within(
        &self,
        message: impl Into<Message>,
        time_to_live: Duration,
    ) -> Result<(), SendError> {
        self.shared
            .outbox
            .send(message.into(), Some(time_to_live))
            .await
    }

    /// Queues a message if there is room now.
    ///
    /// # Errors
    /// With the message: full (try again), too large, or ended.
    pub fn try_send(&self, message: impl Into<Message>) -> Result<(), TrySendError> {
        self.shared.outbox.try_send(message.into())
    }

    /// Waits until everything accepted before this call is written to the socket and, under TLS,
    /// out of the TLS buffer. It does not say that the peer read it. Safe to cancel.
    ///
    /// # Errors
    /// The connection ended first. Over reconnects it goes on waiting.
    pub async fn flush(&self) -> Result<(), FlushError> {
        self.shared.outbox.flush().await
    }

    /// Closes the connection (RFC 6455 §7.1.2): refuses further messages, writes those accepted,
    /// exchanges close frames. Ends within [`Options::close_timeout`], whatever the peer does; the
    /// report tells what was not written. A reason over 123 bytes is cut.
    ///
    /// Cancel safety: dropped, the closing goes on; calling again waits for the same end. What the
    /// peer sent before is still received.
    pub async fn close(&self, code: CloseCode, reason: &str) -> CloseReport {
        self.shared.request_close(code, reason);
        self.shared.wait_ended().await;
        self.shared.report()
    }

    /// Whether the peer agreed to a session.
    pub fn is_session(&self) -> bool {
        self.shared.is_session()
    }

    /// Of a session: waits until the peer's application has taken (or acknowledged by hand)
    /// everything accepted before this call. Safe to cancel.
    ///
    /// # Errors
    /// This is no session, or it ended first: then the messages come back from
    /// [`take_undelivered`](Self::take_undelivered) or the close report.
    pub async fn delivered(&self) -> Result<(), DeliveryError> {
        let board = &self.shared.board;
        let before = board.progress().lost;
        self.shared
            .outbox
            .flush()
            .await
            .map_err(|error| DeliveryError::Ended(error.reason))?;
        if !self.shared.is_session() {
            return Err(DeliveryError::NotASession);
        }
        let target = board.progress().accepted;
        loop {
            let changed = board.changed();
            tokio::pin!(changed);
            // Registered before looking, so that no change falls in between.
            changed.as_mut().enable();
            let progress = board.progress();
            let messages = progress.lost - before;
            if messages > 0 {
                return Err(DeliveryError::Lost { messages });
            }
            if progress.settled + progress.lost >= target {
                return Ok(());
            }
            changed.await;
        }
    }

    /// Messages of sessions that ended before the peer's application had taken them, in order.
    /// Each comes back once: here, or in the report of [`close`](Self::close). What was still in
    /// the outbox is not among them: it goes on with the next session.
    ///
    /// Bounded: of what earlier sessions left, the latest
    /// [`Options::replay_bytes`](crate::Options::replay_bytes) (at least 32 MiB) are kept beside
    /// those of the last session; older ones are dropped with
    /// [`Event::UndeliveredDropped`](crate::Event::UndeliveredDropped).
    pub fn take_undelivered(&self) -> Vec<Undelivered> {
        self.shared.board.take_undelivered()
    }

    /// Waits until the connection has ended for good, and reports as [`close`](Self::close) does.
    /// Safe to cancel.
    pub async fn ended(&self) -> CloseReport {
        self.shared.wait_ended().await;
        self.shared.report()
    }

    /// A snapshot of the counters, queues and stalls.
    pub fn stats(&self) -> Stats {
        self.shared.stats()
    }

    /// What happens to the connection, from the oldest event that is kept.
    pub fn events(&self) -> Events {
        self.shared.events()
    }

    /// A [`Sink`] of messages. Its flush is [`flush`](Self::flush), its close closes the
    /// connection with 1000. Where the outbox is full, one message waits in the sink itself until
    /// it is polled again: flush the sink before dropping it.
    pub fn sink(&self) -> MessageSink {
        MessageSink {
            sender: self.clone(),
            sending: None,
            flushing: None,
            closing: None,
        }
    }
}

impl Clone for Sender {
    fn clone(&self) -> Sender {
        Sender::new(self.shared.clone())
    }
}

impl Drop for Sender {
    fn drop(&mut self) {
        if self.shared.outbox.remove_sender() {
            self.shared.handle_dropped();
        }
    }
}

type BoxFuture<T> = Pin<Box<dyn Future<Output = T> + Send>>;

/// The [`Sink`] over a [`Sender`], from [`Sender::sink`].
pub struct MessageSink {
    sender: Sender,
    sending: Option<BoxFuture<Result<(), SendError>>>,
    flushing: Option<BoxFuture<Result<(), FlushError>>>,
    closing: Option<BoxFuture<CloseReport>>,
}

impl std::fmt::Debug for MessageSink {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("MessageSink")
            .field("sender", &self.sender)
            .finish_non_exhaustive()
    }
}

impl Sink<Message> for MessageSink {
    type Error = ConnectionError;

    fn poll_ready(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        let Some(sending) = &mut self.sending else {
            return Poll::Ready(Ok(()));
        };
        let result = ready!(sending.as_mut().poll(cx));
        self.sending = None;
        Poll::Ready(result.map_err(|error| refused(error.reason)))
    }

    fn start_send(mut self: Pin<&mut Self>, message: Message) -> Result<(), Self::Error> {
        // What was flushed so far does not cover this message.
        self.flushing = None;
        let earlier = self.sending.take();
        let message = match &earlier {
            Some(_) => message,
            None => match self.sender.try_send(message) {
                Ok(()) => return Ok(()),
                Err(TrySendError {
                    message,
                    reason: SendRefusal::Full,
                }) => message,
                Err(error) => return Err(refused(error.reason)),
            },
        };
        let sender = self.sender.clone();
        self.sending = Some(Box::pin(async move {
            if let Some(earlier) = earlier {
                earlier.await?;
            }
            sender.send(message).await
        }));
        Ok(())
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        ready!(self.as_mut().poll_ready(cx))?;
        let sender = self.sender.clone();
        let flushing = self
            .flushing
            .get_or_insert_with(|| Box::pin(async move { sender.flush().await }));
        let result = ready!(flushing.as_mut().poll(cx));
        self.flushing = None;
        Poll::Ready(result.map_err(|error| (*error.reason).clone()))
    }

    fn poll_close(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        ready!(self.as_mut().poll_ready(cx))?;
        let sender = self.sender.clone();
        let closing = self.closing.get_or_insert_with(|| {
            Box::pin(async move { sender.close(CloseCode::NORMAL, "").await })
        });
        let report = ready!(closing.as_mut().poll(cx));
        self.closing = None;
        Poll::Ready(match report.error {
            Some(error) => Err((*error).clone()),
            None => Ok(()),
        })
    }
}

fn refused(reason: SendRefusal) -> ConnectionError {
    match reason {
        SendRefusal::Ended(why) => (*why).clone(),
        SendRefusal::TooLarge { size, limit } => ConnectionError::MessageTooLarge { size, limit },
        SendRefusal::Full => unreachable!("a full outbox is waited for"),
    }
}

/// The receiving half.
pub struct Receiver {
    shared: Arc<Shared>,
    /// Taken from the inbox in one go, handed out one by one.
    local: VecDeque<Incoming>,
    /// Bytes handed out that the inbox does not know of yet.
    taken: Mutex<Taken>,
    /// Messages handed out in all.
    received: u64,
    handed_out: u32,
    end: Option<End>,
    /// Dropped, it gives back what it has not handed out, for another receiver.
    borrowed: bool,
}

impl Receiver {
    fn new(shared: Arc<Shared>) -> Receiver {
        let local = VecDeque::new();
        Receiver {
            shared,
            local,
            taken: Mutex::default(),
            received: 0,
            handed_out: 0,
            end: None,
            borrowed: false,
        }
    }

    /// A receiver whose end does not end the stream.
    pub(crate) fn borrowed(shared: Arc<Shared>) -> Receiver {
        let mut receiver = Receiver::new(shared);
        receiver.borrowed = true;
        receiver
    }

    /// The next message, or the place where some are missing. `Ok(None)` after the connection
    /// ended normally: by a close with 1000, 1001 or without a code, or by this side. Everything
    /// received before the end comes first.
    ///
    /// Cancel safety: dropped before it resolves, nothing is lost.
    ///
    /// # Errors
    /// Why the connection ended otherwise. Further calls return the same.
    pub async fn recv(&mut self) -> Result<Option<Incoming>, ConnectionError> {
        std::future::poll_fn(|cx| self.poll_recv(cx)).await
    }

    fn poll_recv(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Result<Option<Incoming>, ConnectionError>> {
        self.handed_out += 1;
        if self.handed_out >= RECEIVE_YIELD_EVERY {
            ready!(tokio::task::coop::poll_proceed(cx)).made_progress();
            self.handed_out = 0;
        }
        if self.local.is_empty() && self.end.is_none() {
            let taken = self.taken.get_mut().unwrap();
            match ready!(self.shared.inbox.take(&mut self.local, taken, cx)) {
                Ok(()) => {}
                Err(end) => self.end = Some(end),
            }
        }
        if let Some(incoming) = self.local.pop_front() {
            self.received += u64::from(matches!(incoming, Incoming::Message(_)));
            let taken = self.taken.get_mut().unwrap();
            taken.add(&incoming);
            // The peer waits to hear of the last of a batch, whenever more is asked for.
            if self.local.is_empty() || taken.bytes >= self.shared.inbox.release_step() {
                self.shared.inbox.release(taken);
            }
            return Poll::Ready(Ok(Some(incoming)));
        }
        Poll::Ready(match self.end.as_ref().and_then(Option::as_ref) {
            Some(error) => Err((**error).clone()),
            None => Ok(None),
        })
    }

    /// Tells the session of what was handed out, though nobody asks for more.
    fn report_taken(&self) {
        self.shared.inbox.release(&mut self.taken.lock().unwrap());
    }

    /// With [`Options::acknowledge_by_hand`]: everything received so far is processed, and counts as
    /// delivered to the peer.
    pub fn acknowledge(&self) {
        self.shared.board.acknowledge(self.received);
    }

    /// How many messages were received so far, for [`acknowledge_to`](Self::acknowledge_to).
    pub fn position(&self) -> u64 {
        self.received
    }

    /// As [`acknowledge`](Self::acknowledge), up to an earlier [`position`](Self::position).
    pub fn acknowledge_to(&self, position: u64) {
        self.shared.board.acknowledge(position.min(self.received));
    }

    /// A snapshot of the counters, queues and stalls.
    pub fn stats(&self) -> Stats {
        self.shared.stats()
    }

    /// What happens to the connection, from the oldest event that is kept.
    pub fn events(&self) -> Events {
        self.shared.events()
    }
}

impl std::fmt::Debug for Receiver {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Receiver")
            .field("shared", &self.shared)
            .finish_non_exhaustive()
    }
}

impl Drop for Receiver {
    fn drop(&mut self) {
        self.report_taken();
        if self.borrowed {
            self.shared.inbox.put_back(std::mem::take(&mut self.local));
        } else {
            // Who drops only the receiver wants nothing more; who is gone never took it.
            if std::thread::panicking() || !self.shared.outbox.has_senders() {
                self.shared.inbox.abandon();
            }
            self.shared.inbox.receiver_gone(&mut self.local);
            self.shared.handle_dropped();
        }
    }
}

impl Stream for Receiver {
    type Item = Result<Incoming, ConnectionError>;

    /// As [`recv`](Receiver::recv); ends after an error.
    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let result = ready!(self.poll_recv(cx));
        if result.is_err() {
            self.end = Some(None);
        }
        Poll::Ready(result.transpose())
    }
}
