//! The application's handles: [`Connection`], [`Sender`], [`Receiver`].

use std::{
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
use unstall_proto as proto;

use crate::{
    defaults::RECEIVE_YIELD_EVERY,
    error::{
        CloseCode, CloseReport, ConnectionError, DeliveryError, FlushError, SendError, SendRefusal,
        TrySendError,
    },
    events::Events,
    handshake,
    inbox::{End, Taken},
    message::{Incoming, IncomingRef, IntoMessage, Item, Items, Message, packet_cost},
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
            request: Some(Arc::new(handshake::apart(request))),
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
    #[inline]
    pub fn send(&self, message: impl IntoMessage) -> impl Future<Output = Result<(), SendError>> {
        let outbox = &self.shared.outbox;
        let mut message = Some(message);
        let mut waiting = None;
        std::future::poll_fn(move |cx| {
            if let Some(message) = message.take() {
                if outbox.push_short(message.is_text(), message.payload()) {
                    return Poll::Ready(Ok(()));
                }
                match outbox.try_send(message.into()) {
                    Ok(()) => return Poll::Ready(Ok(())),
                    Err(TrySendError {
                        message,
                        reason: SendRefusal::Full,
                    }) => waiting = Some(Box::pin(outbox.send(message, None))),
                    Err(TrySendError { message, reason }) => {
                        return Poll::Ready(Err(SendError { message, reason }));
                    }
                }
            }
            match &mut waiting {
                Some(waiting) => waiting.as_mut().poll(cx),
                None => Poll::Pending,
            }
        })
    }

    /// Queues one message after the other, each as [`send`](Self::send) does, at a fraction of the
    /// cost for short ones. The queue is locked while short messages are drawn: the iterator has to
    /// be quick, and must not use this connection.
    ///
    /// Cancel safety: dropped before it resolves, what was drawn is queued, except for a message
    /// that waited for room, which is dropped with the future.
    ///
    /// # Errors
    /// As [`send`](Self::send), with the message that was refused: those before it are queued, those
    /// behind it not drawn.
    pub async fn send_many<M: IntoMessage>(
        &self,
        messages: impl IntoIterator<Item = M>,
    ) -> Result<(), SendError> {
        let mut messages = messages.into_iter();
        let outbox = &self.shared.outbox;
        loop {
            let next = outbox.push_run(&mut messages).or_else(|| messages.next());
            match next {
                Some(message) => self.send(message).await?,
                None => return Ok(()),
            }
        }
    }

    /// As [`send`](Self::send), for a message that is worthless after `time_to_live`: if it was not
    /// begun by then it is dropped, counted in [`Stats::expired`] and an
    /// [`Event::Expired`](crate::Event::Expired). The time counts from this call.
    pub async fn send_within(
        &self,
        message: impl IntoMessage,
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
    pub fn try_send(&self, message: impl IntoMessage) -> Result<(), TrySendError> {
        let outbox = &self.shared.outbox;
        if outbox.push_short(message.is_text(), message.payload()) {
            return Ok(());
        }
        outbox.try_send(message.into())
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
    local: Items,
    /// Comes before `local`: a packet that is being cut.
    packet: Option<proto::Batch>,
    /// A message or gap that a batch lends.
    lent: Option<Incoming>,
    handed: Mutex<Handed>,
    /// Messages handed out in all.
    received: u64,
    handed_out: u32,
    end: Option<End>,
    /// Dropped, it gives back what it has not handed out, for another receiver.
    borrowed: bool,
}

/// What was handed out and the inbox does not know of yet.
#[derive(Default)]
struct Handed {
    taken: Taken,
    /// What was left of the packet, in messages and bytes, when it was last looked at.
    left: (u64, usize),
}

impl Handed {
    fn look_at(&mut self, packet: &proto::Batch) {
        let left = (packet.remaining(), packet_cost(packet));
        self.taken.messages += self.left.0 - left.0;
        self.taken.bytes += self.left.1 - left.1;
        self.left = left;
    }
}

impl Receiver {
    fn new(shared: Arc<Shared>) -> Receiver {
        Receiver {
            shared,
            local: Items::new(),
            packet: None,
            lent: None,
            handed: Mutex::default(),
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
    #[inline]
    pub fn recv(&mut self) -> impl Future<Output = Result<Option<Incoming>, ConnectionError>> {
        std::future::poll_fn(move |cx| match self.cut_now() {
            Some(message) => Poll::Ready(Ok(Some(Incoming::Message(message)))),
            None => self.poll_recv(cx),
        })
    }

    /// The next message of the packet, if it is short and it is not yet time to look at the runtime's
    /// budget.
    #[inline(always)]
    fn cut_now(&mut self) -> Option<Message> {
        if self.handed_out + 1 >= RECEIVE_YIELD_EVERY {
            return None;
        }
        let packet = self.packet.as_mut()?;
        let message = Message::cut_short(packet)?;
        if packet.is_finished() {
            self.end_packet();
        }
        self.handed_out += 1;
        self.received += 1;
        Some(message)
    }

    /// All that is there, to be looked at without a copy: for streams of many small messages.
    /// Waits and ends as [`recv`](Self::recv) does.
    ///
    /// Cancel safety: dropped before it resolves, nothing is lost. A [`Batch`] that is dropped
    /// leaves what it did not yield for the next call.
    ///
    /// # Errors
    /// As [`recv`](Self::recv).
    ///
    /// ```no_run
    /// # async fn f(mut receiver: unstall::Receiver) -> Result<(), unstall::ConnectionError> {
    /// let mut bytes = 0;
    /// while let Some(mut batch) = receiver.recv_batch().await? {
    ///     while let Some(incoming) = batch.next() {
    ///         match incoming {
    ///             unstall::IncomingRef::Message(message) => bytes += message.as_bytes().len(),
    ///             unstall::IncomingRef::Gap(gap) => println!("something is missing: {gap:?}"),
    ///         }
    ///     }
    /// }
    /// # Ok(()) }
    /// ```
    pub async fn recv_batch(&mut self) -> Result<Option<Batch<'_>>, ConnectionError> {
        let there = std::future::poll_fn(|cx| self.poll_there(cx)).await?;
        Ok(there.then_some(Batch { receiver: self }))
    }

    #[inline(never)]
    fn poll_recv(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Result<Option<Incoming>, ConnectionError>> {
        self.handed_out += 1;
        if self.handed_out >= RECEIVE_YIELD_EVERY {
            ready!(tokio::task::coop::poll_proceed(cx)).made_progress();
            self.handed_out = 0;
        }
        Poll::Ready(match ready!(self.poll_there(cx)) {
            Ok(true) => Ok(self.next_there()),
            Ok(false) => Ok(None),
            Err(why) => Err(why),
        })
    }

    /// Waits until there is something to hand out; `false`: nothing more comes.
    fn poll_there(&mut self, cx: &mut Context<'_>) -> Poll<Result<bool, ConnectionError>> {
        if self.packet.is_some() || !self.local.is_empty() {
            return Poll::Ready(Ok(true));
        }
        if self.end.is_none() {
            let taken = &mut self.handed.get_mut().unwrap().taken;
            match ready!(self.shared.inbox.take(&mut self.local, taken, cx)) {
                Ok(()) => return Poll::Ready(Ok(true)),
                Err(end) => self.end = Some(end),
            }
        }
        Poll::Ready(match self.end.as_ref().and_then(Option::as_ref) {
            Some(error) => Err((**error).clone()),
            None => Ok(false),
        })
    }

    /// The next of what is there.
    fn next_there(&mut self) -> Option<Incoming> {
        loop {
            if let Some(message) = self.packet.as_mut().and_then(Message::cut) {
                self.count_cut();
                return Some(Incoming::Message(message));
            }
            match self.next_item()? {
                Some(Item::One(incoming)) => return Some(incoming),
                Some(Item::Packet(_)) | None => {}
            }
        }
    }

    /// Goes on to the next item: `Some(None)` if it is a packet, which is to be cut now. The message
    /// may be a part of a read buffer.
    fn next_item(&mut self) -> Option<Option<Item>> {
        match self.local.pop_front()? {
            Item::Packet(packet) => {
                self.handed.get_mut().unwrap().left = (packet.remaining(), packet_cost(&packet));
                self.packet = Some(packet);
                Some(None)
            }
            item => {
                let handed = self.handed.get_mut().unwrap();
                handed.taken.messages += item.messages();
                handed.taken.bytes += item.cost();
                self.received += item.messages();
                self.report_in_time();
                Some(Some(item))
            }
        }
    }

    /// A message was cut from the packet.
    fn count_cut(&mut self) {
        self.received += 1;
        self.end_packet();
    }

    /// After its last message the packet is gone.
    #[inline(never)]
    fn end_packet(&mut self) {
        if let Some(packet) = self.packet.take_if(|packet| packet.is_finished()) {
            self.handed.get_mut().unwrap().look_at(&packet);
            self.report_in_time();
        }
    }

    /// The peer waits to hear of the last of what is there, whenever more is asked for.
    fn report_in_time(&mut self) {
        let taken = &mut self.handed.get_mut().unwrap().taken;
        if self.local.is_empty() || taken.bytes >= self.shared.inbox.release_step() {
            self.shared.inbox.release(taken);
        }
    }

    /// Tells the session of what was handed out, though nobody asks for more.
    fn report_taken(&self) {
        let mut handed = self.handed.lock().unwrap();
        if let Some(packet) = &self.packet {
            handed.look_at(packet);
        }
        self.shared.inbox.release(&mut handed.taken);
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
        let rest = self.packet.take().map(Item::Packet);
        rest.into_iter()
            .for_each(|rest| self.local.push_front(rest));
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

/// What is there to be received, from [`Receiver::recv_batch`]. Nothing in it is copied; what it is
/// dropped with stays with the receiver.
#[derive(Debug)]
pub struct Batch<'r> {
    receiver: &'r mut Receiver,
}

impl Batch<'_> {
    /// The next message, or the place where some are missing; `None` when all that was there was
    /// yielded. What was yielded counts as taken.
    #[allow(clippy::should_implement_trait)]
    pub fn next(&mut self) -> Option<IncomingRef<'_>> {
        let receiver = &mut *self.receiver;
        if receiver
            .packet
            .as_ref()
            .is_none_or(proto::Batch::is_finished)
        {
            receiver.end_packet();
            let lent = match receiver.next_item()? {
                Some(Item::One(incoming)) => Some(incoming),
                Some(Item::Packet(_)) | None => None,
            };
            if let Some(incoming) = lent {
                return Some(match receiver.lent.insert(incoming) {
                    Incoming::Message(message) => IncomingRef::Message((&*message).into()),
                    Incoming::Gap(gap) => IncomingRef::Gap(gap),
                });
            }
        }
        receiver.received += 1;
        let message = receiver.packet.as_mut()?.next_ref()?;
        Some(IncomingRef::Message(message.into()))
    }
}

impl Drop for Batch<'_> {
    fn drop(&mut self) {
        self.receiver.lent = None;
        self.receiver.end_packet();
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
